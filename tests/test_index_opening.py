"""Indexes that are missing, deleted under a connection, damaged, newer, not ours, out of reach or forked."""

import atexit
import contextlib
import fcntl
import itertools
import os
import re
import shutil
import signal
import sqlite3
import subprocess
import sys
import textwrap
import threading
import warnings
from pathlib import Path

import pytest
from conftest import HANG
from test_index import asked, done, statuses

from hadrosaur import schema
from hadrosaur.errors import (
    HadrosaurError,
    HadrosaurWarning,
    IndexFault,
    IndexTooNew,
    NotOurIndex,
    UpgradeFailed,
)
from hadrosaur.index import Index, _connection, _lock, _rebuild, _validate

TESTS = str(Path(__file__).parent)
SIDES = ('', '-wal', '-shm')
NOBODY = 65534
"""A user who may do nothing special."""


class Base:
    """A base directory, and indexes on it that are all closed at the end."""

    def __init__(self, path):
        self.path = path
        self.file = path / 'index.sqlite3'
        self.hidden = path / '.hadrosaur'
        self.hidden.mkdir(parents=True)
        self.directories = ['on disk']
        self.fillings = 0
        self._opened = []

    def refill(self, index):
        self.fillings += 1
        index.merge([(done(ident), None) for ident in self.directories])

    def index(self, **more):
        more = {'lock_path': self.hidden / 'index.lock', 'refill': self.refill, **more}
        made = Index(self.file, **more)
        self._opened.append(made)
        return made

    def names(self):
        return sorted(path.name for path in (*self.path.iterdir(), *self.hidden.iterdir()))

    def content(self):
        return {
            name: (self.path / name).read_bytes() for name in self.names() if (self.path / name).is_file()
        }

    def close(self):
        for index in self._opened:
            index.close()


@pytest.fixture
def base(tmp_path):
    made = Base(tmp_path / 'base')
    yield made
    made.close()


@pytest.fixture
def run(tmp_path):
    """Start Python programs that use the index; what is still running at the end is killed."""
    started = []

    def start(source, *args, **more):
        path = tmp_path / f'program{len(started)}.py'
        path.write_text(PREFACE + textwrap.dedent(source), encoding='utf-8')
        process = subprocess.Popen(
            [sys.executable, str(path), *map(str, args)],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
            start_new_session=True, **more,
        )  # fmt: skip
        started.append(process)
        return process

    yield start
    for process in started:
        with contextlib.suppress(ProcessLookupError):  # its forked children, too
            os.killpg(process.pid, signal.SIGKILL)
        process.communicate()


PREFACE = f"""
import os, sys, threading
sys.path.insert(0, {TESTS!r})
from hadrosaur.index import Index
from test_index import asked, done, failed, statuses
def at(path, **more):
    return Index(path + '/index.sqlite3', lock_path=path + '/.hadrosaur/index.lock', **more)
def told(line):
    print(line, flush=True)
def wait():
    return sys.stdin.readline()
"""


def finished(process, sent=''):
    """What a program said, once it has ended well."""
    out, err = process.communicate(sent, timeout=HANG)
    assert process.returncode == 0, err
    return out.split()


def said(process):
    """The next line of a program."""
    line = process.stdout.readline().strip()
    assert line, process.communicate()[1]
    return line


def program(path):
    """The index as another program has it: sqlite3 and nothing else."""
    return contextlib.closing(sqlite3.connect(path, isolation_level=None))


# --- missing and empty -------------------------------------------------------------------------------


def test_a_missing_index_is_built_from_the_directories(base):
    """Without a word: it is convenience, and everything in it is elsewhere."""
    index = base.index()

    assert statuses(index) == {'on disk': 'completed'}
    assert base.fillings == 1
    assert 'index.sqlite3.new' not in base.names()


def test_without_directories_a_missing_index_is_empty(base):
    """Whoever gives no refill gets an empty table."""
    assert statuses(base.index(refill=None)) == {}


@pytest.mark.parametrize('content', ['nothing', 'an empty database', 'a database that was emptied'])
def test_an_empty_file_is_no_index(base, content):
    """It is what a crash while it was made, or a careless program, leaves behind."""
    base.file.touch()
    if content != 'nothing':
        with program(base.file) as other:
            other.execute('PRAGMA journal_mode = WAL' if content == 'an empty database' else 'VACUUM')
            if content != 'an empty database':
                other.executescript('CREATE TABLE x (y); DROP TABLE x')

    assert statuses(base.index()) == {'on disk': 'completed'}


def test_an_old_wal_never_meets_a_new_index(base):
    """A -wal without its index is deleted before a new index stands there."""
    index = base.index()
    index.finish([done('lost')])
    (base.path / 'kept-wal').write_bytes((base.path / 'index.sqlite3-wal').read_bytes())
    index.close()
    base.file.unlink()
    (base.path / 'kept-wal').rename(base.path / 'index.sqlite3-wal')

    assert statuses(base.index()) == {'on disk': 'completed'}


def test_what_fills_an_index_must_use_the_one_it_is_given(base):
    """Asking the index that is being rebuilt would wait for itself for ever."""
    index = base.index(refill=lambda new: index.count())
    with pytest.raises(IndexFault, match='must use the index it is given'):
        index.count()


def test_a_filling_that_fails_leaves_the_old_index(base):
    """Building comes first, replacing last."""
    index = base.index(refill=lambda new: failing[0](new))
    failing = [base.refill]
    index.finish([done('i')])

    def fail(new):
        new.finish([done('half')])
        raise OSError('disk on fire')

    failing[0] = fail
    with pytest.raises(IndexFault, match='on fire'):
        index.rebuild()

    assert statuses(index) == {'i': 'completed', 'on disk': 'completed'}
    assert [name for name in base.names() if 'new' in name] == []


def test_a_killed_rebuild_is_no_obstacle(base):
    """What it left behind is deleted by the next one."""
    index = base.index()
    index.count()
    for side in SIDES:
        (base.path / f'.index.sqlite3.new{side}').write_bytes(b'half of an index')
    index.rebuild()

    assert statuses(index) == {'on disk': 'completed'}
    assert [name for name in base.names() if 'new' in name] == []


@pytest.mark.parametrize('cut', [1, 2, 3, 4])
def test_a_replacement_that_is_cut_off_anywhere_is_made_good(base, monkeypatch, cut):
    """Between any two of its steps there is the old index, whole, or none."""
    index = base.index()
    index.finish([done('i')])
    writer = base.index()
    writer.finish([done('in the wal')])
    steps = itertools.count(1)

    def step(call, *args):
        if next(steps) == cut:
            raise KeyboardInterrupt
        return call(*args)

    unlink, replace = os.unlink, os.replace
    with monkeypatch.context() as patched:
        patched.setattr(_rebuild, 'delete', lambda path: None)
        patched.setattr(os, 'unlink', lambda *args: step(unlink, *args))
        patched.setattr(os, 'replace', lambda *args: step(replace, *args))
        with pytest.raises(KeyboardInterrupt):
            index.rebuild()
    base.directories += ['i', 'in the wal']

    assert set(statuses(index)) >= {'i', 'in the wal'}
    assert statuses(index) == statuses(writer)


# --- deleted or replaced under open connections ------------------------------------------------------

SUBSETS = [subset for number in (1, 2, 3) for subset in itertools.combinations(SIDES, number)]


@pytest.mark.parametrize('deleted', SUBSETS)
def test_files_deleted_under_a_connection_are_noticed_before_the_next_write(base, deleted):
    """Without the index, or its -wal or -shm, commits go nowhere: it is built anew, then written."""
    index = base.index()
    index.finish([done('i')])
    base.directories.append('i')
    for side in deleted:
        Path(f'{base.file}{side}').unlink()
    index.finish([done('j')])
    index.close()

    with program(base.file) as other:
        found = {ident for (ident,) in other.execute('SELECT ident FROM resources')}
    assert found == {'on disk', 'i', 'j'}
    assert base.fillings == 2


@pytest.mark.parametrize('deleted', SUBSETS)
def test_files_deleted_under_a_connection_are_noticed_before_the_next_read(base, deleted):
    """A reader never answers from files that have no name."""
    index = base.index()
    index.finish([done('only in the index')])
    for side in deleted:
        Path(f'{base.file}{side}').unlink()

    assert statuses(index) == {'on disk': 'completed'}


@pytest.mark.parametrize('side', ['-wal', '-shm'])
def test_files_replaced_under_a_connection_are_noticed(base, side):
    """A copy that was put back is another file: what was committed to the first one is nowhere."""
    index = base.index()
    index.finish([done('i')])
    base.directories.append('i')
    shutil.copy(f'{base.file}{side}', base.path / 'copy')
    os.replace(base.path / 'copy', f'{base.file}{side}')
    index.finish([done('j')])

    assert set(statuses(base.index())) == {'on disk', 'i', 'j'}
    assert base.fillings == 2


def test_an_index_that_another_process_rebuilt_is_opened_again(base):
    """Its file is another one; there is nothing to rebuild."""
    index = base.index()
    index.finish([done('i')])
    base.directories.append('i')
    base.index().rebuild()
    index.finish([done('j')])

    assert set(statuses(index)) == {'on disk', 'i', 'j'}
    assert set(statuses(base.index())) == {'on disk', 'i', 'j'}
    assert base.fillings == 2


def test_a_stream_goes_on_while_the_index_is_replaced(base):
    """Once it is beyond the first thousand, its rows are those of the index that it began with."""
    index = base.index()
    index.finish([done(f'{number:04}') for number in range(2500)])
    rows = iter(index.find(order_by=None))
    first, *_ = [next(rows) for _ in range(1001)]
    index.rebuild()
    index.finish([done('new')])

    assert first.ident == '0000'
    assert len(list(rows)) == 2501 - 1001
    assert set(statuses(index)) == {'on disk', 'new'}


def test_the_last_word_of_an_old_connection_does_not_reach_the_new_index(base):
    """Closing a connection to a replaced file must not delete the -wal of the new one."""
    old = base.index()
    old.finish([done('i')])
    index = base.index()
    index.rebuild()
    index.finish([done('j')])
    old.close()

    assert (base.path / 'index.sqlite3-wal').exists()
    with program(base.file) as other:
        assert other.execute("SELECT count(*) FROM resources WHERE ident = 'j'").fetchone() == (1,)


def test_rebuilding_sets_nothing_of_ours_aside(base):
    """`reindex --fresh` of a good index leaves one index."""
    index = base.index()
    index.finish([done('only in the index')])
    index.rebuild()
    index.close()

    assert statuses(base.index()) == {'on disk': 'completed'}
    assert [name for name in base.names() if name.startswith('index.sqlite3.')] == []


def test_a_file_that_got_the_inode_of_the_old_one_is_another_file(base, monkeypatch):
    """Until it is known whether the index was replaced, the old file stays open and keeps its inode."""
    index = base.index(refill=lambda new: pytest.fail('rebuilt what another process had rebuilt'))
    other = base.index()
    other.finish([done('i')])
    index.count()
    other.rebuild()
    old = index._connections._idle[0].mark[:2]
    own = _lock.IndexLock.own

    def rebuild_first(lock):
        monkeypatch.setattr(_lock.IndexLock, 'own', own)
        for _ in range(20):
            other.rebuild()
            if base.file.stat().st_ino == old[1]:
                break
        own(lock)

    monkeypatch.setattr(_lock.IndexLock, 'own', rebuild_first)

    assert statuses(index) == {'on disk': 'completed'}


def test_files_deleted_while_they_are_opened_are_opened_again(base, monkeypatch):
    """SQLite calls it an error of the disk; it is one only where the files are still the same."""
    base.index().finish([done('i')])
    examine, faults = _validate.examine, []

    def examine_what_is_deleted(*args):
        if len(faults) < 2:
            faults.append(sqlite3.OperationalError('disk I/O error'))
            faults[-1].sqlite_errorcode = sqlite3.SQLITE_IOERR
            os.unlink(f'{base.file}{SIDES[len(faults)]}')
            raise faults[-1]
        return examine(*args)

    monkeypatch.setattr(_validate, 'examine', examine_what_is_deleted)

    assert base.index().is_read_only is False
    assert len(faults) == 2


def test_a_write_waits_until_the_index_is_replaced(base):
    """A row that is written while the directories are read would be in the old file, and lost."""
    index = base.index()
    index.finish([done('i')])
    written = threading.Event()

    def write():
        index.finish([done('meanwhile')])
        written.set()

    def refill(new):
        base.refill(new)
        writer.start()
        assert not written.wait(0.3)  # it cannot be waited for, since it waits

    writer = threading.Thread(target=write)
    base.index(refill=refill).rebuild()
    writer.join()

    assert set(statuses(base.index())) == {'on disk', 'meanwhile'}


def test_who_waited_for_the_lock_looks_again(base, monkeypatch):
    """Two find no index at the same time: the second finds what the first built."""
    both = threading.Barrier(2)
    own = _lock.IndexLock.own

    def own_together(lock):
        both.wait(10)
        own(lock)

    monkeypatch.setattr(_lock.IndexLock, 'own', own_together)
    openers = [threading.Thread(target=base.index().count) for _ in range(2)]
    for opener in openers:
        opener.start()
    for opener in openers:
        opener.join()

    assert base.fillings == 1


def test_nothing_is_closed_while_the_index_may_be_replaced(base):
    """The last to close an index deletes its -wal by name: of the new one, if it comes late."""
    index = base.index()
    index.finish([done('i')])
    rebuilder = _lock.IndexLock(str(base.hidden / 'index.lock'))
    rebuilder.own()
    index.close()
    assert (base.path / 'index.sqlite3-wal').exists()

    rebuilder.close()
    for held in _connection._kept_open:
        held.close()
    _connection._kept_open.clear()
    assert set(statuses(index)) == {'i', 'on disk'}


@pytest.mark.long
def test_a_rebuild_waits_for_writers_and_writers_for_it(base, run):
    """Four processes write while two more rebuild from what was acknowledged: no row is lost."""
    acknowledged = base.path / 'acknowledged'
    acknowledged.mkdir()
    writers = [
        run(
            """
            index = at(sys.argv[1], refill=lambda index: told('lost'))
            for step in range(60):
                ident = f'{sys.argv[2]}-{step}'
                open(f'{sys.argv[1]}/acknowledged/{ident}', 'w').close()
                index.queue([asked(ident)])
                index.finish([done(ident)])
            index.close()
            """,
            base.path,
            number,
        )
        for number in range(4)
    ]
    rebuilders = [
        run(
            """
            def refill(index):
                index.merge([(done(name), None) for name in os.listdir(sys.argv[1] + '/acknowledged')])
            index = at(sys.argv[1], refill=refill)
            for _ in range(10):
                index.rebuild()
            """,
            base.path,
        )
        for _ in range(2)
    ]
    said_so = [finished(process) for process in (*rebuilders, *writers)]

    assert said_so[2:].count(['lost']) <= 1, 'only who comes first may find no index'
    found = statuses(base.index())
    assert {f'{number}-{step}' for number in range(4) for step in range(60)} <= set(found)
    assert set(found.values()) == {'completed'}


@pytest.mark.long
def test_eight_that_find_nothing_build_one_index(base, run):
    """One builds, seven open what it built; all of them see the rows."""
    source = """
        def refill(index):
            told('filling')
            index.merge([(done(f'{number}'), None) for number in range(500)])
        told('ready')
        wait()
        index = at(sys.argv[1], refill=refill)
        index.finish([done(sys.argv[2])])
        told(index.count()['c']['completed'] >= 501)
    """
    processes = [run(source, base.path, f'by {number}') for number in range(8)]
    for process in processes:
        assert said(process) == 'ready'
    lines = [finished(process, '\n') for process in processes]

    assert sorted(itertools.chain.from_iterable(lines)) == ['True'] * 8 + ['filling']
    assert base.index().count()['c']['completed'] == 508


@pytest.mark.long
def test_eight_open_an_index_that_is_not_in_wal_mode(base, run):
    """Another program changed the mode: it is changed back, once, and nobody is locked out."""
    index = base.index()
    index.count()
    index.close()
    with program(base.file) as other:
        assert other.execute('PRAGMA journal_mode = DELETE').fetchone() == ('delete',)
    source = """
        told('ready')
        wait()
        index = at(sys.argv[1])
        index.finish([done(sys.argv[2])])
        told(index.get('c', 'on disk').status)
    """
    processes = [run(source, base.path, f'by {number}') for number in range(8)]
    for process in processes:
        assert said(process) == 'ready'

    assert [finished(process, '\n') for process in processes] == [['completed']] * 8
    assert base.index().count()['c']['completed'] == 9


# --- damaged, newer, older, not ours -----------------------------------------------------------------


def damage(path, how):
    content = path.read_bytes()
    if how == 'text':
        path.write_text('this is not a database, whatever its name says' * 100)
    elif how == 'zeros':
        path.write_bytes(bytes(len(content)))
    elif how == 'header':
        path.write_bytes(b'SQLITE' + content[6:])
    elif how == 'schema':
        path.write_bytes(content[:100] + b'\xff' * 3000 + content[3100:])
    elif how == 'message':  # SQLite quotes it, and Python cannot read what it says
        path.write_bytes(content.replace(b'CREATE TABLE resources', b'CREATE TABL\xff resources', 1))
    elif how == 'truncated':
        path.write_bytes(content[: len(content) // 2 - 100])
    elif how == 'tables':
        with program(path) as other:
            other.execute('DROP TABLE resources')
    elif how == 'revision':
        with program(path) as other:
            other.execute('DELETE FROM alembic_version')
    elif how == 'column':
        with program(path) as other:
            other.execute('ALTER TABLE resources RENAME COLUMN host TO hosts')


DAMAGES = ['text', 'zeros', 'header', 'schema', 'message', 'truncated', 'tables', 'revision', 'column']


@pytest.mark.parametrize('how', DAMAGES)
def test_a_damaged_index_is_set_aside_and_built_anew(base, how):
    """With a warning that says where it went; nothing of it is deleted."""
    index = base.index()
    index.finish([done(f'{number}') for number in range(100)])
    index.close()
    damage(base.file, how)
    broken = base.file.read_bytes()
    with pytest.warns(HadrosaurWarning, match=r'was damaged and is now index\.sqlite3\.damaged-'):
        found = statuses(base.index())

    assert found == {'on disk': 'completed'}
    (aside,) = [name for name in base.names() if re.fullmatch(r'index\.sqlite3\.damaged-[0-9T]+', name)]
    assert (base.path / aside).read_bytes() == broken


@pytest.mark.parametrize('action', ['read', 'write', 'stream'])
def test_damage_is_met_in_mid_life(base, action):
    """The pages of an open index go bad: the next use builds a new one, and is answered by it."""
    index = base.index()
    index.finish([done(f'{number:04}') for number in range(3000)])
    index.close()
    index.get('c', 'on disk')  # open again, with little of it read
    with open(base.file, 'r+b') as file:
        file.seek(4096 * 3)
        file.write(b'\xff' * (base.file.stat().st_size - 4096 * 3))
    use = {
        'read': lambda: index.get('c', '2999'),
        'write': lambda: index.finish([done('2999')]),
        'stream': lambda: list(index.find(order_by=None)),
    }[action]
    with pytest.warns(HadrosaurWarning, match='was damaged'):
        answer = use()

    assert answer is None or [entry.ident for entry in answer] == ['on disk']
    expected = {'on disk', '2999'} if action == 'write' else {'on disk'}
    assert set(statuses(index)) == expected


def test_damage_that_is_met_in_mid_life_and_described_in_bytes_that_are_no_text(base):
    """SQLite quotes them, and Python cannot read what it says."""
    index = base.index()
    index.finish([done('i')])
    assert set(statuses(index)) == {'on disk', 'i'}
    with program(base.file) as other:
        other.execute('PRAGMA writable_schema = ON')
        broken = "CAST(replace(CAST(sql AS BLOB), CAST('TABLE' AS BLOB), x'ff') AS TEXT)"
        other.execute(f"UPDATE sqlite_master SET sql = {broken} WHERE name = 'resources'")
        other.execute('PRAGMA schema_version = 1000')
    with pytest.warns(HadrosaurWarning, match='was damaged'):
        assert statuses(index) == {'on disk': 'completed'}


def test_a_statement_that_is_refused_in_bytes_that_are_no_text_is_no_damage(base):
    """They are the user's own, which SQLite quotes: the index stays as it is."""
    index = base.index()
    index.finish([done('i')])
    with pytest.raises(HadrosaurError, match='SQLite refuses the statement'):
        index.sql("SELECT json_extract('{}', CAST(x'ff' AS TEXT))")
    assert set(statuses(index)) == {'on disk', 'i'}
    assert not [name for name in base.names() if 'damaged' in name]


def test_text_that_is_not_utf8_is_damage(base):
    """A flipped bit that SQLite does not mind, but Python does."""
    index = base.index()
    index.finish([done('i')])
    with program(base.file) as other:
        other.execute("UPDATE resources SET host = CAST(x'ff' AS TEXT) WHERE ident = 'i'")
    with pytest.warns(HadrosaurWarning, match='was damaged'):
        assert statuses(index) == {'on disk': 'completed'}


def test_two_damaged_indexes_are_both_kept(base, monkeypatch):
    """Set aside within one second, they get two names."""
    monkeypatch.setattr(_rebuild.time, 'strftime', lambda *_: '20260101T000000')
    for _ in range(2):
        base.file.write_bytes(b'x' * 5000)
        with pytest.warns(HadrosaurWarning):
            base.index().count()
        base.close()

    assert [name for name in base.names() if 'damaged' in name] == [
        'index.sqlite3.damaged-20260101T000000',
        'index.sqlite3.damaged-20260101T000000-2',
    ]


def foreign(base, kind):
    """Put something in the index's place that is not ours; returns what must not change."""
    if kind == 'directory':
        base.file.mkdir()
        (base.file / 'kept').write_text('kept')
        return lambda: (base.file / 'kept').read_text()
    target = base.path / 'elsewhere.sqlite3'
    with program(target if 'link' in kind else base.file) as other:
        other.execute('CREATE TABLE notes (text)')
        other.execute("INSERT INTO notes VALUES ('kept')")
        if kind == 'application':
            other.execute('PRAGMA application_id = 1234')
    if kind == 'link':
        base.file.symlink_to(target)
    elif kind == 'link of the wal':
        base.index().count()
        base.close()
        Path(f'{base.file}-wal').symlink_to(target)
    return (target if 'link' in kind else base.file).read_bytes


@pytest.mark.parametrize('kind', ['tables', 'application', 'directory', 'link', 'link of the wal'])
def test_what_is_not_ours_is_refused_and_not_touched(base, kind):
    """Another program's database, a folder, a link to somewhere else."""
    content = foreign(base, kind)
    before = content(), base.names()
    for _ in range(2):
        with pytest.raises(NotOurIndex):
            base.index().queue([asked('i')])
        with pytest.raises(NotOurIndex):
            base.index().get('c', 'i')

    assert (content(), [name for name in base.names() if name != 'index.lock']) == (
        before[0],
        [name for name in before[1] if name != 'index.lock'],
    )


@pytest.mark.parametrize('kind', ['tables', 'application', 'directory', 'link'])
def test_what_is_not_ours_is_kept_beside_a_fresh_index(base, kind):
    """`reindex --fresh`, the command that the refusal names, sets it aside."""
    before = foreign(base, kind)()
    with pytest.warns(HadrosaurWarning, match=r'is now index\.sqlite3\.other-'):
        base.index().rebuild()

    assert statuses(base.index()) == {'on disk': 'completed'}
    (aside,) = [base.path / name for name in base.names() if name.startswith('index.sqlite3.other-')]
    assert (aside / 'kept').read_text() == before if kind == 'directory' else aside.read_bytes() == before


def stamp(base, revision):
    """Make a good index and have it say that it is of another revision."""
    index = base.index()
    index.finish([done('i')])
    index.close()
    with program(base.file) as other:
        other.execute('UPDATE alembic_version SET version_num = ?', (revision,))


def test_a_newer_index_is_refused_and_not_touched(base):
    """The message names both revisions and the command that helps; fresh sets it aside."""
    stamp(base, '0999_future')
    before = base.content()
    with pytest.raises(IndexTooNew) as told:
        base.index(upgrade=lambda path, stored: pytest.fail('upgraded')).count()

    for word in ('0999_future', schema.HEAD, f'hadrosaur reindex {base.path} --fresh'):
        assert word in str(told.value)
    assert base.content() == before
    with pytest.warns(HadrosaurWarning, match=r'is now index\.sqlite3\.other-'):
        base.index().rebuild()
    assert statuses(base.index()) == {'on disk': 'completed'}
    assert any(name.startswith('index.sqlite3.other-') for name in base.names())


@pytest.fixture
def revisions(monkeypatch):
    """A release that knows one revision before the present one."""
    monkeypatch.setattr(schema, 'REVISIONS', ('0000_past', *schema.REVISIONS))


@pytest.mark.usefixtures('revisions')
def test_an_older_index_is_brought_to_head(base):
    """Once, alone, by who was told how; its rows stay."""
    stamp(base, '0000_past')
    calls = []

    def upgrade(path, stored):
        calls.append((path, stored))
        with pytest.raises(BlockingIOError), open(base.hidden / 'index.lock') as lock:
            fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
        with program(path) as other:
            other.execute('UPDATE alembic_version SET version_num = ?', (schema.HEAD,))

    assert statuses(base.index(upgrade=upgrade)) == {'i': 'completed', 'on disk': 'completed'}
    assert calls == [(base.file, '0000_past')]


@pytest.mark.usefixtures('revisions')
def test_an_upgrade_that_fails_ends_in_a_new_index(base):
    """The old one is kept, and a warning says why."""
    stamp(base, '0000_past')

    def upgrade(path, stored):
        raise UpgradeFailed('a column was in the way')

    with pytest.warns(HadrosaurWarning, match='was old and is now .*a column was in the way'):
        assert statuses(base.index(upgrade=upgrade)) == {'on disk': 'completed'}
    assert any(name.startswith('index.sqlite3.old-') for name in base.names())


@pytest.mark.usefixtures('revisions')
def test_an_older_index_without_an_upgrade_is_built_anew(base):
    """Everything in it is in the directories."""
    stamp(base, '0000_past')

    assert statuses(base.index()) == {'on disk': 'completed'}


def test_a_table_of_the_users_own_does_no_harm(base):
    """Somebody keeps notes in our file: it is still ours."""
    index = base.index()
    index.count()
    with program(base.file) as other:
        other.execute('CREATE TABLE notes (text)')
    index.close()
    index.finish([done('i')])

    assert base.fillings == 1


# --- forks -------------------------------------------------------------------------------------------


def test_a_forked_child_has_a_connection_of_its_own(base, run):
    """The parent closes first and the child writes on: the -wal is still there, and so are its rows."""
    process = run(
        """
        index = at(sys.argv[1])
        index.finish([done('before')])
        rows = iter(index.find(order_by=None))
        next(rows)
        reading, writing = os.pipe()
        child = os.fork()
        if child == 0:
            index.finish([done('child 1')])
            told('child')
            os.read(reading, 1)
            index.finish([done('child 2')])
            os._exit(0 if 'parent' in statuses(index) else 1)
        wait()
        index.finish([done('parent')])
        del rows
        index.close()
        os.write(writing, b'x')
        assert os.waitpid(child, 0)[1] == 0
        """,
        base.path,
    )
    assert said(process) == 'child'
    finished(process, '\n')

    with program(base.file) as other:
        found = {ident for (ident,) in other.execute('SELECT ident FROM resources')}
        assert other.execute('PRAGMA integrity_check').fetchone() == ('ok',)
    assert found == {'before', 'child 1', 'child 2', 'parent'}


def test_a_forked_child_holds_sqlites_locks(base, run):
    """What a connection of the child believes to be locked is locked in the kernel's eyes, too."""
    if not os.path.exists('/proc/locks'):
        pytest.skip('the kernel does not tell its locks')
    process = run(
        """
        index = at(sys.argv[1])
        index.finish([done('i')])
        child = os.fork()
        if child == 0:
            index.finish([done('j')])
            inodes = {os.stat(sys.argv[1] + '/index.sqlite3' + side).st_ino for side in ('', '-shm')}
            held = [line.split() for line in open('/proc/locks') if f' {os.getpid()} ' in line]
            locked = {int(line[5].rpartition(':')[2]) for line in held if line[1] == 'POSIX'}
            os._exit(0 if inodes <= locked else 1)
        assert os.waitpid(child, 0)[1] == 0
        """,
        base.path,
    )
    finished(process)


@pytest.mark.skipif(not os.path.isdir('/proc/self/fd'), reason='descriptors are listed in /proc')
def test_a_forked_child_closes_what_a_thread_is_just_opening(base, monkeypatch):
    """A copy that stays open would make SQLite believe that it holds the parent's locks."""
    base.index().count()
    opening, go_on = threading.Event(), threading.Event()
    configure = _validate.configure

    def configure_later(driver):
        opening.set()
        assert go_on.wait(60)
        configure(driver)

    monkeypatch.setattr(_validate, 'configure', configure_later)
    thread = threading.Thread(target=base.index().count)
    thread.start()
    assert opening.wait(60)
    child = os.fork()
    if child == 0:
        found = [os.path.realpath(f'/proc/self/fd/{number}') for number in os.listdir('/proc/self/fd')]
        os._exit(sum(str(base.file) in path for path in found))
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    go_on.set()
    thread.join()

    assert code == 0


def test_a_fork_waits_for_open_transactions(base, run):
    """While eight threads write, children are forked that write, too; nobody waits for ever for a lock."""
    process = run(
        """
        index = at(sys.argv[1])
        stop = threading.Event()
        written = []
        def work(number):
            step = 0
            while not stop.is_set():
                index.finish([done(f'{number}-{step}-{part}') for part in range(20)])
                index.count()
                written.append((number, step))
                step += 1
        threads = [threading.Thread(target=work, args=(number,)) for number in range(8)]
        for thread in threads:
            thread.start()
        children = []
        for number in range(10):
            child = os.fork()
            if child == 0:
                index.finish([done(f'child {number}')])
                index.queue([asked(f'child {number} again')])
                os._exit(0)
            children.append(child)
        statuses = [os.waitpid(child, 0)[1] for child in children]
        stop.set()
        for thread in threads:
            thread.join()
        assert statuses == [0] * 10, statuses
        assert index.count()['c']['total'] == len(written) * 20 + 20, index.count()
        assert index.sql('PRAGMA integrity_check') == [{'integrity_check': 'ok'}]
        """,
        base.path,
    )
    finished(process)


def test_a_forked_child_never_gives_back_the_parents_lock(base, tmp_path):
    """It closes the lock's descriptor; unlocking would unlock the parent."""
    lock = _lock.IndexLock(str(base.hidden / 'index.lock'))
    lock.own()
    descriptor = lock._fd
    child = os.fork()
    if child == 0:
        with contextlib.suppress(OSError):
            os.fstat(descriptor)
            os._exit(1)
        os._exit(0)
    assert os.waitpid(child, 0)[1] == 0

    with open(base.hidden / 'index.lock') as other, pytest.raises(BlockingIOError):
        fcntl.flock(other, fcntl.LOCK_SH | fcntl.LOCK_NB)
    lock.close()


def test_a_stream_that_was_begun_before_the_fork_ends_in_a_word(base, run):
    """In the child, its connection is gone: it says so, and the next query is answered."""
    process = run(
        """
        from hadrosaur.errors import IndexFault
        index = at(sys.argv[1])
        index.finish([done(f'{number:04}') for number in range(3000)])
        rows = iter(index.find(order_by=None))
        begun = [next(rows) for _ in range(1001)]
        child = os.fork()
        if child == 0:
            try:
                list(rows)
            except IndexFault as fault:
                os._exit(0 if 'forked' in str(fault) and len(list(index.find(order_by=None))) == 3000 else 1)
            os._exit(2)
        assert os.waitpid(child, 0)[1] == 0
        assert len(list(rows)) == 1999
        """,
        base.path,
    )
    finished(process)


# --- read-only bases ---------------------------------------------------------------------------------


@pytest.fixture
def as_nobody(base, tmp_path):
    """Run an action in a forked child that may not write; returns what it gives, as text."""
    if os.getuid() != 0:
        pytest.skip('only root can become somebody who may not write')
    for folder in (tmp_path, *list(tmp_path.parents)[:-2]):
        if folder.stat().st_mode & 0o005 != 0o005:
            folder.chmod(folder.stat().st_mode | 0o055)

    def run(action, mode=0o755):
        for path in (base.path, base.hidden):
            path.chmod(mode)
        reading, writing = os.pipe()
        child = os.fork()
        if child == 0:
            try:
                os.setgid(NOBODY)
                os.setuid(NOBODY)
                with warnings.catch_warnings(record=True) as caught:
                    warnings.simplefilter('always')
                    answer = f'{action()!r} {[str(warning.message) for warning in caught] or ""}'
            except BaseException as error:
                answer = f'{type(error).__name__}: {error}'
            os.write(writing, answer.encode())
            atexit._run_exitfuncs()  # what it copied is removed as at any end
            os._exit(0)
        os.close(writing)
        with open(reading, encoding='utf-8') as pipe:
            answer = pipe.read()
        os.waitpid(child, 0)
        return answer.strip()

    return run


def look(index):
    return statuses(index), index.count()['c']['total'], len(index.find()), index.is_read_only


def test_an_index_in_a_folder_that_cannot_be_written_is_read(base, as_nobody):
    """Closed well, it has no -wal: it is read as a file that nobody changes."""
    index = base.index()
    index.finish([done('i')])
    index.close()
    before = base.names()

    assert as_nobody(lambda: look(base.index())) == "({'i': 'completed', 'on disk': 'completed'}, 2, 2, True)"
    assert base.names() == before


def test_who_only_reads_leaves_nothing_in_a_folder_that_he_may_write(base, as_nobody):
    """A -shm of his would keep the owner of the index from writing it."""
    index = base.index()
    index.finish([done('i')])
    index.close()
    before = base.names()

    seen = as_nobody(lambda: look(base.index()), mode=0o777)
    assert seen == "({'i': 'completed', 'on disk': 'completed'}, 2, 2, True)"
    assert base.names() == before


def test_an_index_that_others_write_is_read_live(base, as_nobody):
    """The writers' -shm is there, and what they commit is seen."""
    index = base.index()
    index.finish([done('i')])

    def action():
        reader = base.index()
        return look(reader)

    assert as_nobody(action) == "({'i': 'completed', 'on disk': 'completed'}, 2, 2, True)"


def test_an_index_whose_writer_was_killed_is_read_from_a_copy(base, as_nobody, run, tmp_path):
    """Its -wal holds rows, and there is no -shm to read them with."""
    process = run(
        "index = at(sys.argv[1]); index.finish([done('i'), done('on disk')]); told('done'); wait()", base.path
    )
    said(process)
    process.kill()
    process.wait()
    (base.path / 'index.sqlite3-shm').unlink()
    assert (base.path / 'index.sqlite3-wal').stat().st_size > 0

    def action():
        reader = base.index()
        seen = look(reader), look(base.index(read_only=True))
        copies = list(Path(tmp_path.parent).glob('**/hadrosaur-*'))
        return seen, copies

    good = "({'i': 'completed', 'on disk': 'completed'}, 2, 2, True)"
    assert as_nobody(action) == f'(({good}, {good}), [])'
    assert not (base.path / 'index.sqlite3-shm').exists()


def test_without_an_index_the_directories_are_read(base, as_nobody):
    """An index for the moment is built somewhere else."""
    assert as_nobody(lambda: look(base.index())) == "({'on disk': 'completed'}, 1, 1, True)"
    assert base.names() == ['.hadrosaur']


def test_a_damaged_index_is_left_where_nothing_can_be_written(base, as_nobody):
    """The directories are read instead, and a warning says so."""
    base.file.write_bytes(b'x' * 5000)
    answer = as_nobody(lambda: look(base.index()))

    assert "({'on disk': 'completed'}, 1, 1, True)" in answer
    assert 'the directories are read instead' in answer
    assert base.file.read_bytes() == b'x' * 5000


def test_writing_where_nothing_can_be_written_ends_in_a_word(base, as_nobody):
    """IndexFault, and what to look at."""
    base.index().count()
    base.close()
    answer = as_nobody(lambda: base.index().finish([done('i')]))

    assert answer.startswith('IndexFault:')
    assert 'check permissions' in answer


def test_a_newer_index_is_refused_to_readers_too(base, as_nobody):
    """It may mean something else by the same words."""
    stamp(base, '0999_future')

    assert as_nobody(lambda: look(base.index())).startswith('IndexTooNew:')


def test_an_unreadable_index_ends_in_a_word(base, as_nobody):
    """The file is there, and may not even be read."""
    base.index().count()
    base.close()
    base.file.chmod(0o600)

    assert as_nobody(lambda: look(base.index())).startswith('IndexFault:')


def test_a_read_only_index_shows_dead_sessions_as_interrupted(base):
    """Queries, counts and single looks agree; the file says what it said."""
    writer = base.index(session='dead')
    writer.queue([asked('i'), asked('j', args='{"a":1}')])
    writer.start([('c', 'i')])
    alive = base.index(session='alive')
    alive.queue([asked('k')])
    base.index().merge([(asked('nobody'), None)])
    reader = base.index(read_only=True)
    assert reader.count()['c']['pending'] == 4
    reader.mask(['dead', None])

    assert reader.count() == {'c': {'total': 5, 'completed': 1, 'error': 3, 'pending': 1}}
    assert [entry.ident for entry in reader.find(status='pending')] == ['k']
    row = reader.get('c', 'i')
    assert (row.status, row.phase, row.error_type) == ('error', None, 'Interrupted')
    assert [entry.ident for entry in reader.find(error_type='Interrupted', args={'a': 1})] == ['j']
    assert [(group.type, group.count) for group in reader.error_groups()] == [('Interrupted', 3)]
    assert len(list(reader.find(order_by=None))) == 5
    assert sorted(entry.status for entry in reader.find()) == [
        'completed',
        'error',
        'error',
        'error',
        'pending',
    ]
    assert [
        len(reader.sql(f'SELECT * FROM resources WHERE status = {s!r}')) for s in ('error', 'pending')
    ] == [3, 1]
    assert writer.count()['c']['pending'] == 4
    reader.mask([])
    assert reader.count()['c']['pending'] == 4


def test_masks_are_for_what_cannot_be_written(base):
    """Where rows can be settled they are not hidden, and writing goes on."""
    index = base.index(session='s')
    index.queue([asked('i')])
    index.mask(['s'])
    index.queue([asked('j')])

    assert index.count()['c']['pending'] == 2


def test_a_copy_is_made_again_when_the_original_changes(base, as_nobody):
    """A reader that lives on is not left with yesterday's rows."""
    index = base.index()
    index.count()
    index.close()
    reading, writing = os.pipe()
    told, telling = os.pipe()

    def action():
        reader = base.index()
        first = sorted(statuses(reader))
        os.write(telling, b'x')
        os.read(reading, 1)
        return first, sorted(statuses(reader))

    def change():
        os.read(told, 1)
        index.finish([done('i')])
        index.close()
        os.write(writing, b'x')

    changer = threading.Thread(target=change)
    changer.start()
    answer = as_nobody(action)
    changer.join()

    assert answer == "(['on disk'], ['i', 'on disk'])"


def test_what_is_copied_is_removed(base, monkeypatch, tmp_path):
    """When the index is collected, nothing of it stays in the temporary folder."""
    monkeypatch.setattr('tempfile.tempdir', str(tmp_path))
    reader = base.index(read_only=True)
    assert statuses(reader) == {'on disk': 'completed'}
    assert len(list(tmp_path.glob('hadrosaur-*'))) == 1
    reader.close()
    base._opened.clear()
    del reader

    assert list(tmp_path.glob('hadrosaur-*')) == []


def test_no_space_for_writing_leaves_reading(base, monkeypatch):
    """A full disk is met when the index is opened: it is read; with space again it is written."""
    index = base.index()
    index.finish([done('i')])
    index.close()

    def refuse(path):
        raise OSError(28, 'No space left on device')

    with monkeypatch.context() as full:
        full.setattr('hadrosaur.index._opening.IndexLock', refuse)
        assert set(statuses(index)) == {'i', 'on disk'}
        with pytest.raises(IndexFault, match='No space left'):
            index.finish([done('j')])
        assert set(statuses(index)) == {'i', 'on disk'}
    index.finish([done('j')])

    assert set(statuses(index)) == {'i', 'j', 'on disk'}


def test_a_base_that_is_gone_ends_in_a_word(base):
    """Somebody removed the whole project under us."""
    index = base.index()
    index.finish([done('i')])
    shutil.rmtree(base.path)
    with pytest.raises(IndexFault):
        index.finish([done('j')])
