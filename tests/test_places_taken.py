"""Something else stands where a collection belongs: one sentence that names it, in Python and of commands."""

import os
import subprocess
import sys

import pytest

from hadrosaur import Project
from hadrosaur.errors import ProjectError

TAKEN = {
    'file': lambda path: path.write_text('mine'),
    'FIFO': os.mkfifo,
    'link to nothing': lambda path: path.symlink_to('nowhere'),
    'link to a file': lambda path: path.symlink_to(__file__),
}


@pytest.mark.parametrize('kind', TAKEN)
def test_a_collection_whose_place_is_taken(kind, tmp_path):
    """Registering says what stands there, and what stands there is left alone."""
    (tmp_path / 'base').mkdir()
    TAKEN[kind](tmp_path / 'base/coll')
    before = os.lstat(tmp_path / 'base/coll')
    with Project(tmp_path / 'base') as proj, pytest.raises(ProjectError, match='is no folder'):
        proj.resource('coll')(lambda ident, args, subdir: ident)
    assert os.lstat(tmp_path / 'base/coll') == before


def test_of_a_command(tmp_path):
    """`run` of a module that registers such a collection ends with that sentence."""
    (tmp_path / 'base').mkdir()
    (tmp_path / 'base/coll').write_text('mine')
    (tmp_path / 'jobs.py').write_text(
        "from hadrosaur import Project\nproj = Project('base')\n@proj.resource('coll')\n"
        'def compute(ident, args, subdir):\n    return ident\n'
    )
    command = [sys.executable, '-m', 'hadrosaur', 'run', 'jobs.py:proj', 'coll', 'a']
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=300)

    assert done.returncode == 2
    assert 'Traceback' not in done.stderr
    assert 'is no folder' in done.stderr
    assert 'move away what stands there' in done.stderr


def test_a_collection_that_was_replaced_by_a_link(tmp_path):
    """Its resources are gone from there: reindex drops their rows, and nothing is followed."""
    base = tmp_path / 'base'
    with Project(base) as proj:
        proj.resource('coll')(lambda ident, args, subdir: ident)
        proj.fetch('coll', 'a')
    os.rename(base / 'coll', tmp_path / 'elsewhere')
    (base / 'coll').symlink_to(tmp_path / 'elsewhere')
    with Project(base, create=False) as proj:
        assert [found.problem for found in proj.check().findings]
        proj.reindex()
        assert len(proj.query()) == 0
    assert (tmp_path / 'elsewhere/a/status.json').exists()
