"""What is cut off half way is settled by whoever opens the base next."""

import signal

import pytest

from hadrosaur import Project, ResourceNotFound, directory

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


@pytest.mark.parametrize(('call', 'name'), [('unlink', 'record.json'), ('rmdir', 'x')])
def test_a_removal_that_is_cut_off_leaves_no_row_that_is_wrong(program, base, call, name):
    """Killed in the midst of a removal: the row is gone at the next opening, with no reindex."""
    done = program(REMOVER, call, name, check=False)
    assert done.returncode == -signal.SIGKILL, done.stderr
    with Project(base) as proj:
        assert list(proj.query('coll')) == []
        with pytest.raises(ResourceNotFound):
            proj.get('coll', 'x')
        report = proj.reindex()
        assert (report.added, report.updated, report.removed) == (0, 0, 0)


def test_a_record_that_is_a_mixture_of_two_is_damaged(proj, base):
    """A power cut may leave sectors of two runs in a record.json that parses: its args are not believed."""
    proj.resource('coll')(lambda ident, args, subdir: args)
    proj.fetch('coll', 'x', {'text': 'a' * 600})
    old = (base / 'coll/x/record.json').read_bytes()
    proj.fetch('coll', 'x', {'text': 'b' * 600}, recompute=True)
    new = (base / 'coll/x/record.json').read_bytes()
    assert directory.parse_record(old)['args'] == {'text': 'a' * 600}
    assert directory.parse_record(new)['args'] == {'text': 'b' * 600}
    assert directory.parse_record(old.replace(b'a' * 100, b'b' * 100, 1)) == {}
    indented = new.replace(b'"args": {"text": ', b'"args": {\n  "text":  ')
    assert directory.parse_record(indented)['args'] == {'text': 'b' * 600}
