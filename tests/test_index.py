"""The index as its callers see it: which rows are written, which writes are dropped, what it counts."""

import itertools
import sqlite3
import subprocess
import sys
import threading
from datetime import UTC, datetime

import pytest

from hadrosaur.errors import HadrosaurError, IndexBusy, IndexFault
from hadrosaur.index import Index, _connection, _pool, _sql, _writes
from hadrosaur.records import Entry


def clock(second):
    """A time as the table writes it."""
    return f'2026-01-01T{second // 3600:02}:{second // 60 % 60:02}:{second % 60:02}.000000Z'


def asked(ident, collection='c', **cells):
    """The entry of a resource that was asked for."""
    cells = {'attempt': 1, 'args': '{}', 'path': f'{collection}/{ident}', 'queued_at': clock(0), **cells}
    return Entry.make(collection=collection, ident=ident, status='pending', phase='queued', **cells)


def done(ident, collection='c', *, at=1, **cells):
    """The entry of a resource that was computed."""
    cells = {'started_at': clock(at - 1), 'finished_at': clock(at), 'duration': 1.0, **cells}
    return asked(ident, collection, **cells).change(status='completed', phase=None)


def failed(ident, collection='c', *, error_type='ValueError', error='bad', **cells):
    """The entry of a resource that ended in error."""
    return done(ident, collection, error_type=error_type, error=error, **cells).change(status='error')


@pytest.fixture
def place(tmp_path):
    """Where an index and its lock are."""
    return {
        'path': tmp_path / 'base' / 'index.sqlite3',
        'lock_path': tmp_path / 'base' / '.hadrosaur' / 'index.lock',
    }


@pytest.fixture
def index(place):
    """An empty index of session s1."""
    (place['path'].parent / '.hadrosaur').mkdir(parents=True)
    made = Index(**place, session='s1')
    yield made
    made.close()


@pytest.fixture
def other(place, index):
    """The same index as another session's process has it."""
    made = Index(**place, session='s2')
    yield made
    made.close()


def statuses(index):
    return {entry.ident: entry.status for entry in index.find(order_by=None)}


# --- writing -----------------------------------------------------------------------------------------


def test_a_queued_resource_is_pending_and_belongs_to_the_session(index):
    """Queue makes a row; what it was given comes back."""
    index.queue([asked('i', args='{"a":1}')])
    row = index.get('c', 'i')

    assert (row.status, row.phase, row.session, row.args) == ('pending', 'queued', 's1', {'a': 1})


def test_queued_never_overwrites_a_pending_row(index, other):
    """Whoever asks second changes nothing: not the phase, not the owner, not the time."""
    index.queue([asked('i')])
    index.start([('c', 'i')])
    before = index.get('c', 'i')
    other.queue([asked('i', queued_at=clock(9), attempt=7)])

    assert before == index.get('c', 'i')


def test_queued_takes_over_what_belongs_to_nobody(index):
    """A pending row without a session has nobody who would ever finish it."""
    index.merge([(asked('i', attempt=2), None)])
    index.queue([asked('i', attempt=3)])

    assert (index.get('c', 'i').session, index.get('c', 'i').attempt) == ('s1', 3)


def test_queued_turns_a_final_row_into_a_pending_one(index):
    """A recompute is asked for: nothing of the last run stays."""
    index.finish([failed('i', attempt=3)])
    index.queue([asked('i', attempt=4)])
    row = index.get('c', 'i')

    assert (
        row.status, row.attempt, row.finished_at, row.error_type, row.duration,
    ) == ('pending', 4, None, None, None)  # fmt: skip


def test_start_touches_only_pending_rows(index):
    """A head that has run for a second is marked; one that is done meanwhile is left alone."""
    index.queue([asked('i')])
    index.finish([done('j')])
    index.start([('c', 'i'), ('c', 'j'), ('c', 'nobody')])

    row = index.get('c', 'i')
    assert (row.phase, row.raw('started_at')) == ('running', row.changed)
    assert index.get('c', 'j') == done('j').change(changed=index.get('c', 'j').changed)
    assert index.get('c', 'nobody') is None


def test_a_final_row_belongs_to_nobody(index):
    """Finish clears session and phase, with or without a row before."""
    index.queue([asked('i')])
    index.finish([done('i').change(phase='running', session='x'), done('new')])

    for ident in ('i', 'new'):
        row = index.get('c', ident)
        assert (row.status, row.phase, row.session) == ('completed', None, None)


def test_a_late_final_write_is_dropped(index):
    """Where the stored row is of a greater attempt, an earlier run has nothing to say."""
    index.queue([asked('i', attempt=5)])
    index.finish([done('i', attempt=4)])
    assert index.get('c', 'i').status == 'pending'

    index.finish([failed('i', attempt=5)])
    index.finish([done('i', attempt=4)])
    assert index.get('c', 'i').status == 'error'

    index.finish([done('i', attempt=5)])
    assert index.get('c', 'i').status == 'completed'


def test_a_run_that_began_after_the_stored_one_was_over_is_no_late_one(index):
    """Somebody deleted the folder, and attempts are counted anew: the row tells of the new run."""
    index.finish([done('i', at=10, attempt=5)])
    index.finish([failed('i', at=10, attempt=1)])  # began at 9
    assert index.get('c', 'i').status == 'completed'

    index.finish([failed('i', at=12, attempt=1)])
    assert (index.get('c', 'i').status, index.get('c', 'i').attempt) == ('error', 1)


def test_a_pending_entry_is_not_finished(index):
    """Finish takes final rows only, and then writes none at all."""
    with pytest.raises(ValueError, match='c/i is pending'):
        index.finish([done('j'), asked('i')])

    assert statuses(index) == {}


def test_merge_gives_a_row_back(index):
    """A queued recompute that is cancelled gets its old row back, attempt and all."""
    index.finish([done('i', attempt=3)])
    old = index.get('c', 'i')
    index.queue([asked('i', attempt=9)])
    index.merge([(old, index.get('c', 'i').raw('changed'))])

    assert old == index.get('c', 'i').change(changed=old.changed)


def test_disown_gives_up_only_what_is_ours(index, other):
    """What others compute belongs to nobody, so that our end does not look like its end."""
    index.queue([asked('mine')])
    other.queue([asked('theirs')])
    index.release_ownership([('c', 'mine'), ('c', 'theirs'), ('c', 'nobody')])

    assert (index.get('c', 'mine').session, index.get('c', 'theirs').session) == (None, 's2')


def test_every_write_moves_the_row_even_if_the_clock_stands_still(index, monkeypatch):
    """`changed` is never what it was before: reindex relies on it."""
    monkeypatch.setattr(_writes, 'now', lambda: '2026-01-01T00:00:00.999999Z')
    seen = []
    for write in (
        lambda: index.queue([asked('i')]),
        lambda: index.start([('c', 'i')]),
        lambda: index.release_ownership([('c', 'i')]),
        lambda: index.finish([done('i')]),
        lambda: index.merge([(done('i'), seen[-1])]),
    ):
        write()
        seen.append(index.get('c', 'i').changed)

    assert all(now != before for before, now in itertools.pairwise(seen))
    assert seen[:2] == ['2026-01-01T00:00:00.999999Z', '2026-01-01T00:00:00.000000Z']


def test_a_group_is_written_whole_or_not_at_all(index):
    """One row that the table refuses takes the others with it."""
    bad = done('j').change(status='nonsense')
    with pytest.raises(IndexFault, match='CHECK constraint failed'):
        index.finish([done('i'), bad])
    assert statuses(index) == {}

    index.finish([done('i')])
    assert statuses(index) == {'i': 'completed'}


def test_any_text_is_an_ident(index):
    """What means something to SQL, to LIKE, to GLOB or to C is an ident like any other."""
    idents = ["'; DROP TABLE resources; --", 'a\0b', '%', '*', '?', '"', '😀', 'é', 'e\u0301', ' ', 'NULL']
    index.queue([asked(ident) for ident in idents])

    assert sorted(idents) == [entry.ident for entry in index.find(order_by=None)]
    assert all(index.get('c', ident).ident == ident for ident in idents)


# --- reindex -----------------------------------------------------------------------------------------


def test_merge_writes_only_where_the_row_has_not_moved(index):
    """What was written since reindex read the folder is newer than what reindex found there."""
    index.finish([done('same'), done('moved'), done('gone'), done('gone but moved')])
    was = {entry.ident: entry.changed for entry in index.find(order_by=None)}
    index.finish([done('moved', at=5), done('gone but moved', at=5), done('made meanwhile', at=5)])

    numbers = index.merge(
        [
            (failed('same'), was['same']),
            (failed('moved'), was['moved']),
            (failed('made meanwhile'), None),
            (failed('new'), None),
            (failed('deleted meanwhile'), clock(0)),
        ],
        [('c', ident, was[ident]) for ident in ('gone', 'gone but moved')],
    )

    assert numbers == (1, 1, 1)
    assert statuses(index) == {
        'same': 'error',
        'new': 'error',
        'moved': 'completed',
        'made meanwhile': 'completed',
        'gone but moved': 'completed',
    }


def test_merge_does_not_take_a_pending_row_from_its_session(index, other):
    """A folder does not tell who asked; the row does. A final one belongs to nobody."""
    other.queue([asked('i'), asked('j')])
    was = {entry.ident: entry.changed for entry in index.find(order_by=None)}
    index.merge([(asked('i', attempt=2), was['i']), (done('j'), was['j']), (asked('k'), None)])

    assert [(entry.ident, entry.session, entry.attempt) for entry in index.find(order_by=None)] == [
        ('i', 's2', 2),
        ('j', None, 1),
        ('k', None, 1),
    ]


def test_merge_is_one_transaction(index):
    """A row that the table refuses leaves the index as it was."""
    index.finish([done('i')])
    was = index.get('c', 'i').changed
    with pytest.raises(IndexFault, match='CHECK constraint failed'):
        index.merge([(failed('i'), was), (done('j'), None), (done('k').change(status='?'), None)])

    assert statuses(index) == {'i': 'completed'}


def test_merge_of_nothing(index):
    """No rows, no numbers, no error."""
    assert index.merge([], []) == (0, 0, 0)


# --- reading -----------------------------------------------------------------------------------------


@pytest.fixture
def filled(index):
    """Two collections with some of everything."""
    index.finish([done(str(number), 'a', at=number, duration=float(number)) for number in range(1, 101)])
    index.finish(
        [
            failed('x', 'b', at=1, error_group='f1:g', error='no 1', duration=None),
            failed('y', 'b', at=3, error_group='f1:g', error='no 2', duration=None),
            failed('z', 'b', at=2, error_type='KeyError', error="'k'", duration=None),
            failed('z', 'a', at=2, error_group='f1:g', error='no 3', duration=None),
        ]
    )
    index.queue([asked('p', 'b')])
    return index


def test_counts(filled):
    """By status and collection; a collection that was asked for is there even if it is empty."""
    a = {'total': 101, 'completed': 100, 'error': 1, 'pending': 0}
    b = {'total': 4, 'completed': 0, 'error': 3, 'pending': 1}
    zeros = dict.fromkeys(a, 0)

    assert filled.count() == {'a': a, 'b': b}
    assert filled.count('b') == {'b': b}
    assert filled.count('none') == {'none': zeros}
    assert filled.collections() == ['a', 'b']


def test_stats_are_counts_and_durations(filled):
    """Percentiles by nearest rank, over all that is done; None where nothing took any time."""
    expected = filled.count()
    expected['a']['duration'] = {'p50': 50.0, 'p95': 95.0, 'max': 100.0, 'sample': None}
    expected['b']['duration'] = {'p50': None, 'p95': None, 'max': None, 'sample': None}

    assert filled.stats() == expected
    assert filled.stats('a') == {'a': expected['a']}
    assert filled.stats('none')['none']['total'] == 0


def test_percentiles_of_few(index):
    """Each is a duration that occurred."""
    index.finish([done('1', duration=3.0)])
    assert index.stats()['c']['duration'] == {'p50': 3.0, 'p95': 3.0, 'max': 3.0, 'sample': None}

    index.finish([done('2', duration=1.0), done('3', duration=2.0)])
    assert index.stats()['c']['duration'] == {'p50': 2.0, 'p95': 3.0, 'max': 3.0, 'sample': None}


def test_failures_are_grouped_by_cause(filled):
    """Most frequent first; the example is the latest; what has no fingerprint goes by its type."""
    groups = [(g.collection, g.group, g.count, g.type, g.example) for g in filled.error_groups()]
    first = filled.error_groups('b')[0]

    assert groups == [
        ('b', 'f1:g', 2, 'ValueError', 'y'),
        ('a', 'f1:g', 1, 'ValueError', 'z'),
        ('b', 'KeyError', 1, 'KeyError', 'z'),
    ]
    assert first.pattern == 'no <n>'
    assert (first.first, first.last) == (
        datetime(2026, 1, 1, 0, 0, 1, tzinfo=UTC),
        datetime(2026, 1, 1, 0, 0, 3, tzinfo=UTC),
    )
    assert [group.collection for group in filled.error_groups('a')] == ['a']


def test_failures_with_nothing_known(index):
    """An error without type, message or times is a group like any other."""
    index.finish([done('i', finished_at=None).change(status='error')])
    (group,) = index.error_groups()

    assert (group.group, group.count, group.pattern, group.first, group.last) == ('', 1, '', None, None)


def test_sessions_of_pending_rows(index, other):
    """Whose rows are pending, and which."""
    index.queue([asked('i'), asked('j')])
    other.queue([asked('k')])
    index.merge([(asked('nobody'), None)])

    assert {'s1', 's2', None} == set(index.pending_sessions())
    assert sorted(entry.ident for entry in index.pending(['s2', None])) == ['k', 'nobody']
    assert index.pending([]) == []


def test_an_iteration_gives_what_is_there_when_it_comes_to_it(index, monkeypatch):
    """Each row once: not one that was removed before its turn; a new one, if its place is still to come."""
    monkeypatch.setattr(_pool, 'CHUNK', 10)
    idents = [f'{number:05}' for number in range(2500)]
    index.finish([done(ident) for ident in idents])
    rows = iter(index.find(order_by=None))
    first = next(rows)
    index.finish([done('99999')])
    index.merge([], [('c', '02000', index.get('c', '02000').raw('changed'))])

    left = [ident for ident in [*idents, '99999'] if ident != '02000']
    assert [first.ident, *(entry.ident for entry in rows)] == left
    assert len(list(index.find('c', order_by=None))) == 2500
    assert list(index.find('nothing', order_by=None)) == []


# --- SQL of the user's own ---------------------------------------------------------------------------


def test_sql_gives_dicts(filled):
    """Names from the statement, values as SQLite keeps them; parameters by place or by name."""
    counts = filled.sql('SELECT status, sum(count) AS n FROM status_counts GROUP BY status')

    assert counts == [
        {'status': 'completed', 'n': 100},
        {'status': 'error', 'n': 4},
        {'status': 'pending', 'n': 1},
    ]
    assert filled.sql('SELECT ident FROM resources WHERE status = ?', ['pending']) == [{'ident': 'p'}]
    assert filled.sql('SELECT :x AS x, value FROM json_each(:y)', {'x': 1, 'y': '[2]'}) == [
        {'x': 1, 'value': 2}
    ]
    assert filled.sql('SELECT 1 AS a, 2 AS a, 3 AS a') == [{'a': 1, 'a:2': 2, 'a:3': 3}]
    assert {'name': 'ident'} in filled.sql("SELECT name FROM pragma_table_info('resources')")
    assert filled.sql('PRAGMA table_info(status_counts)')[0]['name'] == 'collection'
    assert filled.sql(
        'WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n LIMIT 3) SELECT * FROM n'
    )


@pytest.mark.parametrize(
    'statement',
    [
        'DELETE FROM resources',
        "UPDATE resources SET status = 'error'",
        'DROP TABLE resources',
        'CREATE TABLE mine (x)',
        'CREATE TEMP TABLE mine (x)',
        "INSERT INTO resources (collection, ident, status, changed) VALUES ('a', 'b', 'error', '')",
        'PRAGMA query_only = OFF',
        'PRAGMA writable_schema = ON',
        'PRAGMA user_version = 5',
        'PRAGMA journal_mode = DELETE',
        'PRAGMA journal_mode(DELETE)',
        'PRAGMA wal_checkpoint',
        "ATTACH 'other.sqlite3' AS other",
        "VACUUM INTO 'copy.sqlite3'",
        'VACUUM',
        'BEGIN',
        'REINDEX',
        'ANALYZE',
        "SELECT load_extension('evil')",
        'SELECT 1; DELETE FROM resources',
        'SELECT zeroblob(1000000000)',
        'SELEC 1',
        'SELECT nothing FROM nowhere',
        'SELECT ?',
        'SELECT 1 -- \0',
        '',
    ],
)
def test_sql_only_reads(filled, statement, tmp_path, monkeypatch):
    """Whatever would write, attach, load or change a setting is refused, and nothing has happened."""
    monkeypatch.chdir(tmp_path)
    before = list(filled.find(order_by=None))
    if statement:
        with pytest.raises(HadrosaurError, match='SQLite refuses'):
            filled.sql(statement)
    else:
        assert filled.sql(statement) == []

    assert before == list(filled.find(order_by=None))
    assert sorted(path.name for path in tmp_path.iterdir()) == ['base']


def test_sql_does_not_run_for_ever(index, monkeypatch):
    """A statement that never ends is stopped when its time is over."""
    monkeypatch.setattr(_sql, '_STEPS', 10)
    endless = 'WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT count(*) FROM n'
    with pytest.raises(HadrosaurError, match='stopped after 0 seconds'):
        index.sql(endless, seconds=0)


# --- connections -------------------------------------------------------------------------------------


def test_nothing_is_opened_or_imported_before_the_first_use(place):
    """Making an Index costs no file and no SQLAlchemy; `import hadrosaur.index` neither."""
    code = (
        'import sys; from hadrosaur.index import Index; '
        f'Index({str(place["path"])!r}, lock_path={str(place["lock_path"])!r}); '
        'print([name for name in ("sqlalchemy", "alembic") if name in sys.modules])'
    )
    told = subprocess.run([sys.executable, '-c', code], capture_output=True, text=True, check=True)

    assert told.stdout.strip() == '[]'
    assert not place['path'].parent.exists()


def test_reading_and_writing_leave_no_transaction_open(index, place):
    """Another program can write at once after anything we did, and its rows are seen at once."""
    index.finish([done('i'), done('j')])
    rows = iter(index.find(order_by=None))
    next(rows)
    with sqlite3.connect(place['path'], timeout=0) as program:
        program.execute("UPDATE resources SET error = 'seen' WHERE ident = 'i'")
    program.close()

    assert index.get('c', 'i').error == 'seen'
    index.finish([done('i')])


def test_settings_of_a_connection(index):
    """What section 4 of the design asks for."""
    settings = {
        'journal_mode': 'wal',
        'synchronous': 1,
        'wal_autocheckpoint': 10_000,
        'busy_timeout': 60_000,
        'mmap_size': 0,
    }

    def read(driver):
        return {name: driver.execute(f'PRAGMA {name}').fetchone()[0] for name in settings}

    assert settings == index._connections.read(read)
    assert index._connections.read(lambda driver: driver.isolation_level) is None


def test_a_transaction_keeps_other_writers_out_from_its_start(index, place):
    """What it reads before it writes is still so when it writes."""
    index.finish([done('i')])
    program = sqlite3.connect(place['path'], isolation_level=None, timeout=0)

    def write(driver):
        with _connection.transaction(driver), pytest.raises(sqlite3.OperationalError, match='locked'):
            program.execute('BEGIN IMMEDIATE')

    index._connections.write(write)
    program.execute('BEGIN IMMEDIATE')
    program.execute('ROLLBACK')
    program.close()


def test_a_lock_that_is_never_given_back_ends_in_a_word(index, place, monkeypatch):
    """Who waits too long for another process's transaction is told so, and can go on later."""
    monkeypatch.setattr(_connection, 'BUSY_SECONDS', 0.01)
    index.finish([done('i')])
    index.close()
    program = sqlite3.connect(place['path'], isolation_level=None)
    program.execute('BEGIN IMMEDIATE')
    with pytest.raises(IndexBusy, match='locked'):
        index.finish([done('j')])
    program.execute('ROLLBACK')
    program.close()
    index.finish([done('j')])

    assert list(statuses(index)) == ['i', 'j']


def test_threads_share_an_index(index):
    """Eight threads write and read at the same time; nothing is lost, nothing is locked."""
    wrong = []

    def work(number):
        try:
            for step in range(40):
                ident = f'{number}-{step}'
                index.queue([asked(ident)])
                index.finish([done(ident)])
                if index.get('c', ident).status != 'completed':
                    wrong.append(ident)
                index.count()
        except BaseException as error:  # told to the main thread
            wrong.append(error)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert wrong == []
    assert index.count() == {'c': {'total': 320, 'completed': 320, 'error': 0, 'pending': 0}}


def test_a_closed_index_opens_again(index, place):
    """Closing leaves one file, and the next use finds everything."""
    index.finish([done('i')])
    index.close()
    assert sorted(path.name for path in place['path'].parent.iterdir()) == ['.hadrosaur', 'index.sqlite3']

    assert index.get('c', 'i').status == 'completed'


def test_closing_leaves_little_in_the_wal_for_others(index, other, place):
    """Who closes first copies what is committed into the file, though the -wal stays for the others."""
    other.finish([done('first')])
    index.finish([done(f'{number:04}') for number in range(500)])
    before = place['path'].stat().st_size
    index.close()

    assert place['path'].stat().st_size > before
    assert other.count()['c']['total'] == 501


def test_what_is_interrupted_leaves_no_lock(index, monkeypatch):
    """Ctrl-C in the middle of a transaction rolls it back; the next one goes through."""

    class Interrupting:
        def __iter__(self):
            yield from _writes.final_rows([done('i')])
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        index._write(_writes.FINISH, Rows(Interrupting()))
    index.finish([done('j')])

    assert list(statuses(index)) == ['j']


class Rows(list):
    """Two rows, as far as anybody counts; what they are is told while they are written."""

    def __init__(self, rows):
        super().__init__([None, None])
        self._rows = rows

    def __iter__(self):
        return iter(self._rows)


def test_an_index_for_reading_refuses_to_write(index, place):
    """A writer's mistake is named; the index is as it was."""
    index.finish([done('i')])
    reader = Index(**place, read_only=True)
    with pytest.raises(IndexFault, match='for reading only'):
        reader.finish([done('j')])

    assert list(statuses(reader)) == ['i']
    assert (reader.is_read_only, index.is_read_only) == (True, False)
    reader.close()


def test_closing_while_other_threads_write(index):
    """Closing takes only what nobody uses; who is in the middle of a transaction goes on, and opens anew."""
    stop, faults = threading.Event(), []

    def write(name):
        number = 0
        try:
            while not stop.is_set():
                number += 1
                index.finish([done(f'{name}-{number}')])
                assert index.get('c', f'{name}-{number}').status == 'completed'
        except BaseException as fault:
            faults.append(fault)

    threads = [threading.Thread(target=write, args=(name,)) for name in 'ab']
    for thread in threads:
        thread.start()
    for _ in range(150):
        index.close()
    stop.set()
    for thread in threads:
        thread.join()

    assert faults == []


def test_a_checkpoint_is_made_on_a_connection_that_nobody_else_gets(index, monkeypatch):
    """While it lasts the connection is not idle: two threads on one connection spoil each other's work."""
    index.finish([done('i')])
    attempt, shared = _pool._attempt, []

    def attempting(held, action, writing):
        shared.append(held in index._connections._idle)
        return attempt(held, action, writing)

    monkeypatch.setattr(_pool, '_attempt', attempting)
    index.close()

    assert shared == [False]
