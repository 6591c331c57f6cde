"""What is cut off half way is settled by whoever opens the base next."""

import signal

import pytest

from hadrosaur import Project, ResourceNotFound

REMOVER = """
    import os, signal, sys
    from hadrosaur import Project

    proj = Project('base')
    proj.resource('coll')(lambda ident, args, subdir: 'there')
    proj.fetch('coll', 'x')
    call = getattr(os, sys.argv[1])

    def killed(path, *args, **kwargs):
        if path == sys.argv[2]:
            os.kill(os.getpid(), signal.SIGKILL)
        return call(path, *args, **kwargs)

    setattr(os, sys.argv[1], killed)
    proj.remove('coll', 'x')
"""


@pytest.mark.parametrize(
    ('call', 'name', 'is_there'),
    [('unlink', 'status.json', True), ('unlink', 'record.json', False), ('rmdir', 'x', False)],
)
def test_a_removal_that_is_cut_off_leaves_no_row_that_is_wrong(program, base, call, name, is_there):
    """Killed at any step of a removal: the row says what is left of the folder, with no reindex."""
    done = program(REMOVER, call, name, check=False)
    assert done.returncode == -signal.SIGKILL, done.stderr
    with Project(base) as proj:
        rows = [(row.ident, row.status) for row in proj.query('coll')]
        assert rows == ([('x', 'completed')] if is_there else [])
        if is_there:
            assert proj.get('coll', 'x').result == 'there'
        else:
            with pytest.raises(ResourceNotFound):
                proj.get('coll', 'x')
        report = proj.reindex()
        assert (report.added, report.updated, report.removed) == (0, 0, 0)
