"""Whatever an index holds, however little space there is: an answer or a clear word, no error of SQLite's."""

import contextlib
import os
import shutil
import sqlite3
import subprocess
import sys
import threading
import warnings

import pytest
from conftest import await_that

from hadrosaur import HadrosaurError, HadrosaurWarning, Project
from hadrosaur.errors import IndexFault, ResourceNotFound
from hadrosaur.index import Index, _connection, _lock, _opening


def compute(ident, args, subdir):
    if ident == 'bad':
        raise ValueError('no')
    return ident


def hadrosaur(*words, **more):
    """The command, as a user types it; only a hang reaches the timeout."""
    command = [sys.executable, '-m', 'hadrosaur', *map(str, words)]
    return subprocess.run(command, capture_output=True, text=True, timeout=300, check=False, **more)


@pytest.fixture
def good(tmp_path):
    """A base with three resources, closed; it is copied for each attempt."""
    with Project(tmp_path / 'good') as proj:
        proj.resource('coll')(compute)
        for ident in ('a', 'b', 'bad'):
            proj.fetch('coll', ident)
    return tmp_path / 'good'


def outcomes(base, first):
    """What goes wrong when every verb is called in turn, beginning with one of them; and the idents then."""
    verbs = {
        'write': lambda proj: proj.fetch('coll', 'a', recompute=True),
        'revision': lambda proj: proj.index_revision(),
        'stats': lambda proj: proj.stats(),
        'query': lambda proj: [entry.as_json() for entry in proj.query()],
        'filters': lambda proj: proj.query('coll', ident='a*', error='n', args={'x': 1})[:],
        'errors': lambda proj: proj.error_groups(),
        'sql': lambda proj: proj.sql('SELECT * FROM resources'),
        'check': lambda proj: proj.check(),
        'reindex': lambda proj: proj.reindex(changed_only=True),
        'cancel': lambda proj: proj.cancel('coll'),
        'fresh': lambda proj: proj.reindex(fresh=True),
    }
    wrong = []
    with warnings.catch_warnings(), Project(base) as proj:
        warnings.simplefilter('ignore', HadrosaurWarning)
        proj.resource('coll')(compute)
        for name in sorted(verbs, key=lambda name: name != first):
            try:
                verbs[name](proj)
            except HadrosaurError as fault:
                if name != 'revision':  # which only looks, and may say that it is damaged
                    wrong.append((name, repr(fault)))
            except Exception as fault:
                wrong.append((name, 'raw', repr(fault)))
        return wrong, sorted(entry.ident for entry in proj.query())


HEADER = [
    (0, 0), (16, 3), (17, 255), (18, 3), (18, 0), (19, 3), (19, 1), (20, 255), (21, 0), (28, 255), (31, 1),
    (32, 255), (39, 9), (44, 1), (47, 5), (47, 0), (52, 1), (56, 7), (59, 3),
    (60, 9), (68, 7), (100, 7), (105, 9),
]  # fmt: skip


@pytest.mark.parametrize('first', ['write', 'stats'])
def test_a_byte_changed_in_the_header_costs_a_rebuilding_at_most(good, first):
    """Every verb works on, whatever one byte of the header says, and all rows are there again."""
    content = (good / 'index.sqlite3').read_bytes()
    for place, value in HEADER:
        for left in good.glob('index.sqlite3*'):
            left.unlink()
        (good / 'index.sqlite3').write_bytes(content[:place] + bytes([value]) + content[place + 1 :])
        assert outcomes(good, first) == ([], ['a', 'b', 'bad']), (place, value)


@pytest.mark.parametrize('length', [1, 100, 4095, 5000])
def test_an_index_that_was_cut_off_is_built_anew(good, length):
    """However short it is."""
    os.truncate(good / 'index.sqlite3', length)
    assert outcomes(good, 'stats') == ([], ['a', 'b', 'bad'])


@pytest.mark.parametrize(('place', 'value'), [(47, 5), (18, 9)])
def test_commands_tell_no_error_of_sqlite(good, place, value):
    """A traceback is never shown, and the command gives its answer."""
    content = bytearray((good / 'index.sqlite3').read_bytes())
    content[place] = value
    (good / 'index.sqlite3').write_bytes(content)
    done = hadrosaur('query', good, '--idents')

    assert sorted(done.stdout.split()) == ['a', 'b', 'bad'], done.stderr
    assert 'Traceback' not in done.stderr
    assert done.returncode == 0


@pytest.mark.parametrize('old', ["'completed'", 'ident         TEXT', 'INTEGER,', 'resources_key PRIMARY'])
def test_a_table_that_was_altered_is_damage(good, old):
    """What a table refuses that is not ours tells nothing of our rows."""
    content = (good / 'index.sqlite3').read_bytes()
    changed = content.replace(old.encode(), old.swapcase().encode().replace(b'E', b'O'))
    assert changed != content
    (good / 'index.sqlite3').write_bytes(changed)
    assert outcomes(good, 'write') == ([], ['a', 'b', 'bad'])


# --- rows ----------------------------------------------------------------------------------------------

BYTES = b'\xff\x00\xfe'
ROWS = {
    'collection': ['..', '', '.hadrosaur', 'a\0b', '../victim', 'x' * 5000, BYTES],
    'ident': ['..', '', 'a\0b', '../victim', 'x' * 5000, BYTES],
    'path': ['/etc', '../victim', 'coll/../../victim', 'a\0b', 'x' * 100_000, '', BYTES],
    'args': ['[1]', '{', '[' * 20_000, 'null', 'x' * 100_000, BYTES],
    'finished_at': ['yesterday', '0001-01-01', '9999-12-31T23:59:59-14:00', '2026-01-01', '', BYTES],
    'queued_at': ['a\nb', BYTES],
    'duration': ['long', -1.0, 1e308, BYTES],
    'attempt': ['x', 2**63 - 1, 1.5, BYTES],
    'error': ['\x1b[2J\0', 'x' * 100_000, BYTES],
    'error_type': ['\x1b[2J', BYTES],
    'error_group': [BYTES],
    'session': ['../../../victim/status.json', 'a\0b', '', 'x' * 5000, BYTES],
    'changed': ['', BYTES],
    'seen_mtime_ns': ['x', -1],
    'version': [BYTES],
}


@pytest.mark.parametrize('status', ['pending', 'error'])
@pytest.mark.parametrize('column', ROWS)
def test_a_row_may_hold_anything(good, tmp_path, column, status):
    """A row that we did not write breaks no verb, leads nowhere, and is gone after `reindex`."""
    victim = tmp_path / 'victim'
    victim.mkdir()
    (victim / 'status.json').write_text('{"completed": false, "pending": true, "error": false}\n')
    before = (victim / 'status.json').stat()
    row = {
        'collection': 'coll', 'ident': 'row', 'status': status, 'args': '{}', 'path': 'coll/row',
        'attempt': 1,
        'changed': '2026-01-01', 'session': 'gone-1-00000000' if status == 'pending' else None,
        'error_type': 'E', 'error': 'e', 'finished_at': '2026-01-01T00:00:00.000000Z',
    }  # fmt: skip
    base = tmp_path / 'base'
    for value in ROWS[column]:
        shutil.copytree(good, base)
        with contextlib.closing(sqlite3.connect(base / 'index.sqlite3')) as program, program:
            cells = {**row, column: value}
            text = f'INSERT INTO resources ({", ".join(cells)}) VALUES ({", ".join("?" * len(cells))})'
            program.execute(text, tuple(cells.values()))
        assert outcomes(base, 'stats') == ([], ['a', 'b', 'bad']), value
        shutil.rmtree(base)
    assert os.listdir(victim) == ['status.json']
    assert (victim / 'status.json').stat() == before


def test_rows_without_a_folder_are_known_by_their_collection(good):
    """Who deletes a collection's folder by hand is told what the index still says of it."""
    shutil.rmtree(good / 'coll')
    done = hadrosaur('errors', good, 'coll')
    assert (done.returncode, done.stderr) == (0, '')
    with Project(good, create=False) as proj:
        assert proj.stats('coll')['coll']['total'] == 3
        with pytest.raises(ResourceNotFound):
            proj.get('coll', 'a')
        with pytest.raises(ResourceNotFound):
            proj.remove('coll', 'a')
        assert proj.cancel('coll') == 0
        with pytest.raises(HadrosaurError, match='no collection is called'):
            proj.stats('nothing')
        proj.reindex()
        with pytest.raises(HadrosaurError, match='no collection is called'):
            proj.stats('coll')


# --- no space ------------------------------------------------------------------------------------------

NO_SPACE = """
import resource, shutil, sys, warnings
from hadrosaur import HadrosaurError, Project
from hadrosaur.errors import IndexFault
warnings.simplefilter('ignore')
base = sys.argv[1]
resource.setrlimit(resource.RLIMIT_FSIZE, (0, resource.RLIM_INFINITY))
with Project(base) as proj:
    proj.resource('coll')(lambda ident, args, subdir: ident)
    for number in range(2):
        assert sorted(entry.ident for entry in proj.query()) == ['a', 'b', 'bad']
        assert proj.stats()['coll']['total'] == 3
        assert [group.example for group in proj.error_groups()] == ['bad']
        assert proj.sql('SELECT count(*) AS n FROM resources') == [{'n': 3}]
        assert proj.fetch('coll', 'a')['result'] == 'a'
        assert proj.fetch('coll', 'new').status == 'error'
        proj.check()
        proj.cancel('coll')
        for fresh in (False, True):
            try:
                proj.reindex(fresh=fresh)
            except IndexFault as fault:
                assert fault.exit_code == 5 and 'cannot be' in str(fault)
            else:
                assert False, 'nothing can be written'
print('well')
"""


@pytest.mark.parametrize('what', ['nothing', 'index', 'hidden', 'damaged'])
def test_where_nothing_can_be_written_rows_are_read_all_the_same(good, program, what):
    """Neither the base nor a temporary folder takes a byte: what was computed is shown from memory."""
    if what in ('index', 'hidden'):
        for left in good.glob('index.sqlite3*'):
            left.unlink()
    if what == 'hidden':
        shutil.rmtree(good / '.hadrosaur')
    elif what == 'damaged':
        (good / 'index.sqlite3').write_bytes(b'x' * 8192)
    assert program(NO_SPACE, good).stdout == 'well\n'
    with warnings.catch_warnings(), Project(good) as proj:
        warnings.simplefilter('ignore', HadrosaurWarning)
        proj.resource('coll')(compute)
        assert proj.fetch('coll', 'new')['result'] == 'new'
        assert sorted(entry.ident for entry in proj.query()) == ['a', 'b', 'bad', 'new']


def test_what_could_not_be_built_after_long_is_not_tried_at_once_again(tmp_path, monkeypatch):
    """Each attempt reads all folders; the next waits for many times as long as the last took."""
    now, attempts = [0.0], []

    def fill(path):
        attempts.append(path)
        now[0] += 5.0
        raise OSError(28, 'No space left on device')

    monkeypatch.setattr(_opening.time, 'monotonic', lambda: now[0])
    (tmp_path / '.hadrosaur').mkdir()
    file = _opening.IndexFile(
        str(tmp_path / 'index.sqlite3'), str(tmp_path / '.hadrosaur/index.lock'), fill=fill
    )
    for later in (0.0, 1.0, 200.0):
        now[0] += later
        with pytest.raises(IndexFault, match='No space left'):
            file.open(writing=True)
    assert len(attempts) == 2


# --- descriptors ---------------------------------------------------------------------------------------


def descriptors(base):
    """What this process has open of the index of a base."""
    found = []
    for fd in os.listdir('/proc/self/fd'):
        with contextlib.suppress(OSError):
            found.append(os.readlink(f'/proc/self/fd/{fd}'))
    return [path for path in found if path.startswith(f'{base}/') and 'index.' in path]


needs_proc = pytest.mark.skipif(not os.path.isdir('/proc/self/fd'), reason='descriptors are listed in /proc')


@needs_proc
def test_what_is_closed_during_a_rebuilding_is_closed_when_that_is_over(good):
    """Its connections wait for the lock, and nothing of them stays open."""
    lock = _lock.IndexLock(str(good / '.hadrosaur/index.lock'))
    proj = Project(good)
    proj.stats()
    lock.own()
    proj.close()
    assert [path for path in descriptors(good) if path.endswith('sqlite3')], 'nothing is closed meanwhile'
    lock.close()

    await_that(lambda: not descriptors(good))
    assert _connection._kept_open == []


@needs_proc
def test_no_descriptor_is_left_of_many_ways_to_open_rebuild_close_and_fork(good):
    """Threads that read, write and rebuild while others close, and children that do the same."""
    faults = []

    def use(number):
        lock = good / '.hadrosaur/index.lock'
        for turn in range(6):
            index = Index(good / 'index.sqlite3', lock_path=lock)
            try:
                index.count()
                rows = index.find(limit=1)[:]
                index.finish([rows[0]] if rows else [])
                if (number + turn) % 3 == 0:
                    index.rebuild()
                if number == 0 and turn % 2:
                    child = os.fork()
                    if child == 0:
                        os._exit(0 if index.count() is not None else 1)
                    assert os.waitpid(child, 0)[1] == 0
            except Exception as fault:
                faults.append(fault)
            finally:
                index.close()

    threads = [threading.Thread(target=use, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert faults == []
    await_that(lambda: not descriptors(good))
