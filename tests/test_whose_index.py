"""Only an index that is ours is opened, and only one that is ours is ever replaced."""

import os
import shutil
import socket
import sqlite3
import subprocess
import sys
import warnings

import pytest
from conftest import HANG

from hadrosaur import HadrosaurError, HadrosaurWarning, Project, basedir
from hadrosaur.errors import IndexFault, NotOurIndex

PARTS = ('', '-wal', '-shm', '-journal')


def identity(ident, args, subdir):
    return ident


def computed(base, *idents, **more):
    """Compute some resources in a base, and close it."""
    with Project(base, **more) as proj:
        proj.resource('coll')(identity)
        for ident in idents:
            proj.fetch('coll', ident)


def idents_of(base, **more):
    with Project(base, **more) as proj:
        return sorted(entry.ident for entry in proj.query())


def hadrosaur(*words):
    """The command, as a user types it; only a hang reaches the timeout."""
    command = [sys.executable, '-m', 'hadrosaur', *map(str, words)]
    return subprocess.run(command, capture_output=True, text=True, timeout=HANG, check=False)


def note(base, path):
    """Have the base say that this machine has its index there."""
    (base / '.hadrosaur/indexes').mkdir(exist_ok=True)
    (base / '.hadrosaur/indexes' / basedir._THIS_MACHINE).write_text(f'{path}\n{base.stat().st_ino}\n')


def write_program(path):
    with sqlite3.connect(path) as other:
        other.execute('CREATE TABLE notes (text)')
    other.close()


PRECIOUS = {
    'text': lambda path: path.write_text('precious\n' * 1000),
    'one byte': lambda path: path.write_bytes(b'x'),
    'program': write_program,
    'torn program': lambda path: (write_program(path), os.truncate(path, 5000)),
    'link': lambda path: ((path.parent / 'victim').write_text('mine'), path.symlink_to('victim')),
    'hard link': lambda path: (path.write_text('mine'), os.link(path, path.parent / 'victim')),
    'folder': lambda path: path.mkdir(),
    'fifo': os.mkfifo,
    'write-ahead log': lambda path: (path.touch(), (path.parent / f'{path.name}-wal').write_text('mine')),
}


def snapshot(folder):
    """What there is beside a base: kinds, sizes and bytes."""
    return {
        path.name: (os.lstat(path).st_mode, path.read_bytes() if path.is_file() else b'')
        for path in folder.iterdir()
        if path.name != 'base'
    }


@pytest.mark.parametrize('how', ['given', 'noted'])
@pytest.mark.parametrize('kind', PRECIOUS)
def test_a_file_that_is_not_ours_is_never_touched(base, tmp_path, kind, how):
    """Neither a slip nor a note in the base makes an index of a file of yours: it is refused as it is."""
    computed(base, 'a')
    notes = tmp_path / 'notes.txt'
    PRECIOUS[kind](notes)
    before = snapshot(tmp_path)
    if how == 'noted':
        note(base, notes)
    more = {'index': notes} if how == 'given' else {}
    is_believed = how == 'given' or (notes.is_file() and not notes.is_symlink())
    for ask in (
        lambda proj: proj.stats(),
        lambda proj: proj.reindex(),
        lambda proj: proj.reindex(fresh=True),
        lambda proj: proj.check(fix=True),
        lambda proj: proj.sql('SELECT 1'),
        lambda proj: proj.query()[:1],
    ):
        with Project(base, **more) as proj:
            if is_believed:
                with pytest.raises(IndexFault):
                    ask(proj)
            else:
                ask(proj)
    assert snapshot(tmp_path) == before
    if how == 'given':
        assert idents_of(base) == ['a'], 'the slip is not remembered'


@pytest.mark.parametrize('kind', ['missing', 'empty'])
def test_an_index_may_be_put_where_there_is_nothing(base, tmp_path, kind):
    """A path that does not exist yet, or an empty file, becomes the index and is found again."""
    elsewhere = tmp_path / 'new/index.db'
    if kind == 'empty':
        elsewhere.parent.mkdir()
        elsewhere.touch()
    computed(base, 'a', index=elsewhere)

    assert elsewhere.read_bytes()[:6] == b'SQLite'
    assert hadrosaur('query', base, '--idents').stdout == 'a\n'
    assert not (base / 'index.sqlite3').exists()


def test_an_index_of_ours_elsewhere_that_is_damaged_is_set_aside(base, tmp_path):
    """It still says that it is ours, and is built anew like the one in the base."""
    elsewhere = tmp_path / 'index.db'
    computed(base, 'a', index=elsewhere)
    data = bytearray(elsewhere.read_bytes())
    data[100:4096] = b'x' * 3996
    elsewhere.write_bytes(data)
    with pytest.warns(HadrosaurWarning, match='was damaged'):
        assert idents_of(base, index=elsewhere) == ['a']


@pytest.mark.parametrize('where', ['its own', 'elsewhere'])
def test_the_index_of_another_project_is_refused(base, tmp_path, where):
    """An index knows whose it is, wherever it was put; it is left with all its rows."""
    theirs = tmp_path / 'theirs'
    index = theirs / 'index.sqlite3' if where == 'its own' else tmp_path / 'theirs.db'
    computed(theirs, 'x', **({} if where == 'its own' else {'index': index}))
    computed(base, 'a')
    before = index.read_bytes()
    for ask in (lambda proj: proj.stats(), lambda proj: proj.reindex(fresh=True)):
        with Project(base, index=index) as proj, pytest.raises(NotOurIndex, match='another'):
            ask(proj)
    note(base, index)
    assert hadrosaur('status', base).returncode == 5
    assert index.read_bytes() == before
    (base / '.hadrosaur/indexes' / basedir._THIS_MACHINE).unlink()
    assert (idents_of(base), idents_of(theirs)) == (['a'], ['x'])


def test_an_index_that_was_copied_from_another_project_is_set_aside(base, tmp_path):
    """In the base's own place: its rows are of other folders."""
    computed(tmp_path / 'theirs', 'x')
    computed(base, 'a')
    shutil.copy(tmp_path / 'theirs/index.sqlite3', base / 'index.sqlite3')
    with pytest.warns(HadrosaurWarning, match='of another project'):
        assert idents_of(base) == ['a']


@pytest.mark.filterwarnings('error')
@pytest.mark.parametrize('how', ['copied', 'copied without .hadrosaur', 'moved', 'linked to'])
def test_a_base_that_was_copied_or_moved_keeps_its_index(base, tmp_path, how):
    """The copied index is the copy's; a row that only the index has shows that it was not built anew."""
    computed(base, 'a')
    with Project(base) as proj:
        proj._store.index.finish([proj.query()[0].change(ident='only a row')])
    other = tmp_path / 'other'
    if how == 'moved':
        base.rename(other)
    elif how == 'linked to':
        other.symlink_to(base)
    else:
        shutil.copytree(base, other)
    if how == 'copied without .hadrosaur':
        shutil.rmtree(other / '.hadrosaur')
    assert idents_of(other) == ['a', 'only a row']
    assert idents_of(other, index=other / 'index.sqlite3') == ['a', 'only a row']
    computed(other, 'b')
    assert idents_of(other) == ['a', 'b', 'only a row']


@pytest.mark.filterwarnings('error')
@pytest.mark.parametrize('where', ['its own', 'elsewhere'])
def test_an_index_of_an_earlier_release_gets_its_number(base, tmp_path, where):
    """One that does not say whose it is belongs to the base that has it, and keeps its rows."""
    index = base / 'index.sqlite3' if where == 'its own' else tmp_path / 'index.db'
    computed(base, 'a', index=index)
    with Project(base, index=index) as proj:
        proj._store.index.finish([proj.query()[0].change(ident='only a row')])
    (base / '.hadrosaur/format.json').write_text('{"format": 1, "lock": "folder"}\n')
    with sqlite3.connect(index) as driver:
        driver.execute('PRAGMA user_version = 0')
    driver.close()
    for _ in range(2):
        assert idents_of(base) == ['a', 'only a row']
    number = basedir.BaseDirectory(base).identity()
    with sqlite3.connect(index) as driver:
        assert driver.execute('PRAGMA user_version').fetchone() == (number,)
    driver.close()


@pytest.mark.skipif(os.geteuid() != 0, reason='giving a file away takes root')
def test_a_note_of_somebody_else_is_not_believed(base, tmp_path):
    """Only what we wrote, or the owner of the base did, says where the index is."""
    elsewhere = tmp_path / 'index.db'
    computed(base, 'a', index=elsewhere)
    os.chown(base / '.hadrosaur/indexes' / basedir._THIS_MACHINE, 12345, 12345)
    assert basedir.BaseDirectory(base).index_elsewhere() is None
    os.chown(base, 12345, 12345)
    assert basedir.BaseDirectory(base).index_elsewhere() == str(elsewhere)


# --- what stands in its place ------------------------------------------------------------------------


def bind(path):
    here = os.open('.', os.O_RDONLY)
    try:
        os.chdir(path.parent)  # a socket's path may not be long
        with socket.socket(socket.AF_UNIX) as made:
            made.bind(path.name)
    finally:
        os.fchdir(here)
        os.close(here)


IN_ITS_PLACE = {
    'folder': lambda path, victim: (path / 'kept').mkdir(parents=True),
    'fifo': lambda path, victim: os.mkfifo(path),
    'socket': lambda path, victim: bind(path),
    'link': lambda path, victim: path.symlink_to(victim),
    'broken link': lambda path, victim: path.symlink_to('/nowhere/at/all'),
    'hard link': lambda path, victim: os.link(victim, path),
    'junk': lambda path, victim: path.write_bytes(b'junk' * 2000),
    'no permission': lambda path, victim: (path.write_bytes(b''), path.chmod(0)),
}


@pytest.mark.parametrize('kind', IN_ITS_PLACE)
@pytest.mark.parametrize('name', ['index.sqlite3', *(f'index.sqlite3{part}' for part in PARTS[1:]),
                                  '.hadrosaur/index.lock', '.index.sqlite3.new',
                                  '.index.sqlite3.new-wal'])  # fmt: skip
def test_whatever_stands_in_its_place_costs_a_word_at_most(base, tmp_path, kind, name):
    """Nothing hangs, nothing is written through a link, computing goes on, and --fresh helps."""
    computed(base, 'a')
    victim = tmp_path / 'victim'
    victim.write_text('precious\n' * 1000)
    place = base / name
    place.unlink(missing_ok=True)
    IN_ITS_PLACE[kind](place, victim)
    faults = []
    with warnings.catch_warnings(), Project(base) as proj:
        warnings.simplefilter('ignore')
        proj.resource('coll')(identity)
        for ask in (
            lambda: proj.index_revision(),
            lambda: proj.stats(),
            lambda: proj.query()[:],
            lambda: proj.error_groups(),
            lambda: proj.sql('SELECT * FROM resources'),
            lambda: proj.check(),
            lambda: proj.reindex(changed_only=True),
            lambda: proj.cancel('coll', 'a'),
            lambda: proj.get('coll', 'a')['result'],
        ):
            try:
                ask()
            except HadrosaurError as fault:
                faults.append(fault)
        if name.startswith('index.sqlite3'):
            proj.reindex(fresh=True)
            assert sorted(entry.ident for entry in proj.query()) == ['a']
    assert victim.read_text() == 'precious\n' * 1000
    assert all('/index' in str(fault) for fault in faults), faults
    if name.startswith('index.sqlite3'):
        assert idents_of(base) == ['a']


@pytest.mark.parametrize('name', ['index.sqlite3', 'index.sqlite3-wal', 'index.sqlite3-journal'])
def test_db_current_waits_for_no_fifo(base, name):
    """It says what stands there, with exit code 5."""
    computed(base, 'a')
    (base / name).unlink(missing_ok=True)
    os.mkfifo(base / name)
    done = hadrosaur('db', 'current', base)

    assert (done.returncode, 'is not a regular file' in done.stderr) == (5, True)


def test_what_a_killed_rebuilding_left_is_swept_away(base):
    """The unfinished index and what SQLite puts beside it, where it was built."""
    computed(base, 'a')
    left = [f'.index.sqlite3.new{part}' for part in PARTS]
    for name in left:
        (base / name).write_text('left')
    assert idents_of(base) == ['a']
    assert [name for name in left if (base / name).exists()] == []


def test_temporary_folders_of_killed_readers_are_swept_away(base, tmp_path, monkeypatch):
    """Those whose maker lives stay, and those of other programs do."""
    from hadrosaur.index import Index, _readonly

    monkeypatch.setattr('tempfile.tempdir', str(tmp_path))
    monkeypatch.setattr(_readonly, 'YOUNG', -1.0)
    left, other = tmp_path / f'{_readonly.PREFIX}left', tmp_path / 'hadrosaur-of-others'
    left.mkdir()
    (left / 'index.sqlite3').write_text('left')
    other.mkdir()
    lock = base / '.hadrosaur/index.lock'
    first = Index(base / 'index.sqlite3', lock_path=lock, read_only=True)
    second = Index(base / 'index.sqlite3', lock_path=lock, read_only=True)
    assert first.count() == second.count() == {}
    assert not left.exists()
    assert other.exists()
    assert len(list(tmp_path.glob(f'{_readonly.PREFIX}*'))) == 2
    first.close()
    second.close()
