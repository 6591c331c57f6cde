"""The logger ``hadrosaur``: what needs nobody's attention, and is looked for when something is odd."""

import logging
import os
import subprocess
import sys

from conftest import HANG

from hadrosaur import Project


def test_what_happened_leaves_a_trace(base, caplog):
    """An index that was built, a worker that died, and runs whose process is gone, at INFO."""
    caplog.set_level(logging.INFO, 'hadrosaur')
    with Project(base) as proj:
        proj.resource('coll')(lambda ident, args, subdir: os._exit(3))
        [res] = proj.fetch_many('coll', ['a'], workers=1)
        assert res.entry.error_type == 'WorkerDied'
    said = caplog.messages
    assert any('index.sqlite3 was built' in line for line in said), said
    assert any('coll/a: ' in line and 'status 3' in line for line in said), said

    if os.fork() == 0:
        proj = Project(base)
        proj.resource('coll')(lambda ident, args, subdir: os._exit(0))
        proj.fetch('coll', 'b')
    os.wait()
    caplog.clear()
    with Project(base) as proj:
        assert proj.get('coll', 'b').status == 'error'
        proj.stats()
    assert any('recovered 1 runs of dead processes' in line for line in caplog.messages), caplog.messages


def test_who_has_not_set_it_up_hears_nothing(tmp_path):
    """Nothing is printed."""
    program = """if True:
        import logging, os
        from hadrosaur import Project
        proj = Project('base')
        proj.resource('coll')(lambda ident, args, subdir: ident)
        proj.fetch('coll', 'a')
        os.remove('base/index.sqlite3')
        proj.close()
        assert len(proj.query()) == 1
    """
    command = [sys.executable, '-c', program]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=HANG)
    assert (done.returncode, done.stdout, done.stderr) == (0, '', '')
