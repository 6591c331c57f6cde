"""A disk that fails, for a moment or for longer: what cannot be read is never taken for absent."""

import contextlib
import errno
import os
import signal
import sqlite3
import subprocess
import sys

import pytest
from conftest import ROOT
from torture.faults import LOOKS, OPENS, Faults

from hadrosaur import Project, row_writer
from hadrosaur.cli import run
from hadrosaur.row_events import Event, Place

BASE = """
    import errno, os, warnings
    from torture.faults import OPENS, Faults
    from hadrosaur import HadrosaurError, HadrosaurWarning, Project

    proj = Project('base')
    faults = Faults.attached()

    @proj.resource('coll')
    def compute(ident, args, subdir):
        return ident

    for ident in 'a', 'b', 'c':
        assert proj.fetch('coll', ident)['result'] == ident

    def idents():
        return sorted(entry.ident for entry in proj.query('coll'))
"""


@pytest.fixture
def faulty(program, tmp_path):
    """Run a program of which any file operation may fail, with three resources in its base."""
    path = os.pathsep.join([str(ROOT / 'tests'), os.environ.get('PYTHONPATH', str(ROOT))])
    with Faults(tmp_path, tmp_path / 'base', log_size=1 << 20) as faults:
        yield lambda source: program(BASE + source, env=faults.environment(PYTHONPATH=path))


def test_an_index_built_without_a_folder_says_so(faulty):
    """A folder that cannot be read while the index is built is named, with the command that adds it."""
    faulty("""
    proj.close()
    os.unlink('base/index.sqlite3')
    faults.arm('fail', 1, errno.EIO, kinds={'read open'}, path='coll/b/record.json')
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter('always')
        assert idents() == ['a', 'c']
    assert faults.fired == 1
    [said] = [str(one.message) for one in caught]
    assert 'coll/b' in said and 'Input/output error' in said and 'hadrosaur reindex base' in said, said
    proj.reindex()
    assert idents() == ['a', 'b', 'c']
    """)


@pytest.mark.parametrize('path', ['', 'coll', 'coll/*'])
def test_without_descriptors_nothing_is_missing(faulty, path):
    """With too many open files an index is not built at all, rather than without what could not be read."""
    faulty(f"""
    proj.close()
    os.unlink('base/index.sqlite3')
    faults.arm('fail', 1, errno.EMFILE, every=True, kinds=OPENS, path={path!r})
    try:
        raise AssertionError(idents())
    except (HadrosaurError, OSError) as error:
        assert 'Too many open files' in str(error), error
    faults.disarm()
    assert idents() == ['a', 'b', 'c']
    """)


def test_reindex_without_descriptors_removes_no_row(faulty):
    """A reindex that cannot open folders says so, and the rows stay."""
    faulty("""
    faults.arm('fail', 1, errno.EMFILE, every=True, kinds=OPENS, path='coll/*')
    try:
        raise AssertionError(proj.reindex())
    except OSError as error:
        assert error.errno == errno.EMFILE
    faults.disarm()
    assert idents() == ['a', 'b', 'c']
    """)


@pytest.mark.parametrize(
    ('path', 'kinds', 'error', 'words'),
    [
        ('coll/b', OPENS, errno.EMFILE, ['coll/b: Too many open files', 'ulimit -n']),
        ('*/format.json', LOOKS, errno.EIO, ['format.json cannot be read', 'try again']),
        ('coll', OPENS, errno.ESTALE, ['coll: Stale file handle', 'run it again']),
    ],
)
def test_a_command_says_what_where_and_what_to_do(program, tmp_path, path, kinds, error, words):
    """A fault of the disk is two lines and exit code 5: the file, what is wrong, the next step."""
    program("""
        from hadrosaur import Project
        with Project('base') as proj:
            proj.resource('coll')(lambda ident, args, subdir: ident)
            proj.fetch('coll', 'b')
    """)
    with Faults(tmp_path, tmp_path / 'base', log_size=1 << 20) as faults:
        faults.arm('fail', 1, error, every=True, kinds=kinds, path=path)
        done = subprocess.run(
            [sys.executable, '-m', 'hadrosaur', 'reindex', 'base'],
            cwd=tmp_path,
            env=faults.environment(),
            capture_output=True,
            text=True,
            timeout=300,
        )
    assert done.returncode == 5, done.stderr
    assert len(done.stderr.splitlines()) == 2, done.stderr
    for word in words:
        assert word in done.stderr


@pytest.mark.parametrize('executor', ['threads', 'processes'])
def test_a_batch_without_descriptors_ends(faulty, executor):
    """With too many open files until the end, every resource gets its error, and nothing waits for ever."""
    faulty(f"""
    warnings.simplefilter('ignore')
    batch = proj.fetch_many('coll', ['x', 'y'], workers=2, executor={executor!r})
    faults.arm('fail', 1, errno.EMFILE, every=True, kinds=OPENS, path='coll/*')
    counts = batch.wait()
    assert (counts.total, counts.error) == (2, 2), counts
    proj.close()
    faults.disarm()
    with Project('base') as proj:
        assert len(proj.query('coll', status='pending')) == 0
    """)


def test_what_a_killed_process_left_of_format_json_is_swept_up(base):
    """Whoever computes next removes it, and one that is just being written is written again."""
    with Project(base) as proj:
        proj.resource('coll')(lambda ident, args, subdir: ident)
        proj.fetch('coll', 'a')
    left = base / '.hadrosaur/.format.json.1.abcd.new'
    left.write_text('{"form')
    with Project(base) as proj:
        proj.resource('coll')(lambda ident, args, subdir: ident)
        proj.fetch('coll', 'b')
    assert not left.exists()


def test_nothing_is_left_of_a_command_that_is_killed_while_it_tries_the_disk(base):
    """`run` ends by writing a few pages; what a kill leaves of that, the next to compute sweeps up."""
    proj = Project(base)
    proj.resource('coll')(lambda ident, args, subdir: ident)
    proj.fetch('coll', 'a')
    before = set(os.listdir(base / '.hadrosaur'))
    pid = os.fork()
    if pid == 0:
        os.replace = os.rename = os.unlink = lambda *_, **__: os.kill(os.getpid(), signal.SIGKILL)
        run._is_usable(proj)
        os._exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == -signal.SIGKILL
    assert set(os.listdir(base / '.hadrosaur')) > before
    proj.close()
    with Project(base) as proj:
        proj.resource('coll')(lambda ident, args, subdir: ident)
        proj.fetch('coll', 'b')
    assert set(os.listdir(base / '.hadrosaur')) == before


def test_what_is_tried_again_is_no_progress(proj, base, monkeypatch):
    """Rows that cannot be written yet are waited for no longer than was asked; later they are written."""
    proj.resource('coll')(lambda ident, args, subdir: ident)
    proj.fetch('coll', 'a')
    with contextlib.closing(sqlite3.connect(base / 'index.sqlite3', isolation_level=None)) as index:
        index.execute('delete from resources')
    monkeypatch.setattr(row_writer, 'apply', lambda index, group, *more: group[0])
    proj._store.rows.put(Event('sync', [Place('coll', 'a', str(base / 'coll'), 'a')]))
    assert proj._store.rows.flush(0.2) is False
    monkeypatch.undo()
    assert proj._store.rows.flush(20)
    assert {entry.ident for entry in proj.query('coll', status='completed')} == {'a'}
