"""What is quick at a million rows gives what the plain question, asked of every row, would give."""

import sqlite3
from contextlib import closing

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from test_index import asked, clock, done, failed
from test_query import expected

from hadrosaur import schema
from hadrosaur.errors import HadrosaurError
from hadrosaur.index import Index, _pool, _query, _sql, _summary
from hadrosaur.records import COLUMNS, STATUSES

GROUP_BY = 'SELECT collection, status, count(*) FROM resources GROUP BY collection, status'


def in_memory(entries):
    """A table of these rows, as the driver sees it."""
    driver = sqlite3.connect(':memory:', isolation_level=None)
    for statement in (schema.TABLE, schema.USES, *schema.INDEXES):
        driver.execute(statement)
    marks = ', '.join('?' * len(COLUMNS))
    rows = [tuple(entry.change(changed=clock(0))) for entry in entries]
    driver.executemany(f'INSERT INTO resources VALUES ({marks})', rows)
    return driver


@pytest.fixture
def index(tmp_path):
    """An empty index."""
    made = Index(tmp_path / 'index.sqlite3', lock_path=tmp_path / '.hadrosaur' / 'lock', session='s1')
    yield made
    made.close()


# --- counts and durations ----------------------------------------------------------------------------

SIZES = st.dictionaries(
    st.sampled_from(['a', 'b', 'B', 'é', 'zz', '~']),
    st.tuples(st.integers(0, 4), st.integers(0, 40), st.integers(0, 4)),
)


@settings(max_examples=60, deadline=None)
@given(sizes=SIZES, gone=st.integers(0, 30))
def test_counts_are_those_of_group_by(sizes, gone):
    """However many rows there are of each kind, whichever collection seems the largest, after deletions."""
    rows = [
        make(f'{status}{number}', of)
        for of, numbers in sizes.items()
        for status, make, many in zip(STATUSES, (asked, done, failed), numbers, strict=True)
        for number in range(many)
    ]
    with closing(in_memory(rows)) as driver:
        driver.execute('DELETE FROM resources WHERE rowid % 31 < ?', (gone,))
        expected = {}
        for of, status, number in driver.execute(GROUP_BY):
            expected.setdefault(of, {'total': 0, **dict.fromkeys(STATUSES, 0)})[status] = number
        for counts in expected.values():
            counts['total'] = sum(counts[status] for status in STATUSES)

        assert _summary.count(driver, None) == expected
        assert list(_summary.count(driver, None)) == sorted(expected)
        for of in ('a', 'B', 'none'):
            zeros = {'total': 0, **dict.fromkeys(STATUSES, 0)}
            assert _summary.count(driver, of) == {of: expected.get(of, zeros)}


def test_a_wrong_guess_of_the_largest_collection_changes_no_number(monkeypatch):
    """Not even of one that has no rows, or of none."""
    with closing(in_memory([done('i', 'a'), done('j', 'b'), failed('k', 'b')])) as driver:
        expected = _summary.count(driver, None)
        for guess in ('a', 'b', 'c', ''):
            monkeypatch.setattr(_summary, '_seems_largest', lambda _driver, guess=guess: guess)
            assert _summary.count(driver, None) == expected
            assert _summary.count(driver, 'a') == {'a': expected['a']}


def test_no_row_is_looked_at_to_count_those_of_the_largest_collection():
    """The statement counts in indexes alone, and all rows at once."""
    with closing(in_memory([done('i', 'a')])) as driver:
        plan = [row[3] for row in driver.execute(f'EXPLAIN QUERY PLAN {_summary._COUNTS}', {'most': 'a'})]
        steps = [row[1] for row in driver.execute(f'EXPLAIN {_summary._COUNTS}', {'most': 'a'})]

    assert all('COVERING INDEX' in step for step in plan if 'resources' in step), plan
    assert 'Count' in steps
    assert {'resources_failed_of_collection', 'resources_pending'} <= set(' '.join(plan).split())


def test_collections_that_take_turns_are_told_apart():
    """The few rows that are looked at are in step with no pattern: four of five are of one collection."""
    for period in range(2, 12):
        rows = [done(str(number), 'few' if number % period == 1 else 'most') for number in range(period * 40)]
        with closing(in_memory(rows)) as driver:
            assert period == 2 or _summary._seems_largest(driver) == 'most', period


def test_durations_of_many_runs_are_those_of_the_last(index, monkeypatch):
    """And they say so: of how many. Where there are no more than that, they are of all."""
    monkeypatch.setattr(_summary, 'SAMPLE', 10)
    monkeypatch.setattr(_summary, 'LEAST_SAMPLE', 5)
    index.finish([done(str(number), 'a', at=number, duration=float(number)) for number in range(1, 12)])
    index.finish([done(str(number), 'b', at=number, duration=float(number)) for number in range(1, 11)])
    index.queue([asked('p', 'a')])

    found = index.stats()
    assert found['a']['duration'] == {'p50': 6.0, 'p95': 11.0, 'max': 11.0, 'sample': 10}
    assert found['b']['duration'] == {'p50': 5.0, 'p95': 10.0, 'max': 10.0, 'sample': None}
    monkeypatch.setattr(_summary, 'MOST_SAMPLED', 0)
    assert index.stats('b')['b']['duration'] == {'p50': 8.0, 'p95': 10.0, 'max': 10.0, 'sample': 5}


@pytest.mark.parametrize('collection', [None, 'a', ['a'], ['a', 'b'], 'none', []], ids=str)
@pytest.mark.parametrize('status', [None, 'error', ['error', 'pending'], STATUSES, []], ids=str)
def test_lengths_by_collection_and_status(index, monkeypatch, collection, status):
    """What is told from the counts is what the rows are."""
    monkeypatch.setattr('hadrosaur.index._query.WINDOW', 2)  # else it is read, and not counted
    index.finish([done(str(number), 'a') for number in range(5)])
    index.finish([failed(str(number), 'b') for number in range(4)])
    index.queue([asked(str(number), 'a') for number in range(7, 10)])
    found = index.find(collection, status=status)

    assert len(found) == len(list(index.find(collection, status=status)))


# --- pages and iteration -----------------------------------------------------------------------------


def several(number):
    """Rows of two collections with equal times, and some that are not finished."""
    for each in range(number):
        of = 'ab'[each % 2]
        if each % 5 == 0:
            yield asked(str(each), of)
        else:
            yield (failed if each % 7 == 0 else done)(str(each), of, at=each // 6, duration=float(each % 4))


@pytest.fixture
def filled(index, monkeypatch):
    """Sixty such rows, read ten at a time."""
    monkeypatch.setattr(_query, 'WINDOW', 10)
    monkeypatch.setattr(_pool, 'CHUNK', 10)
    index.merge([(entry, None) for entry in several(60)])
    return index


@pytest.mark.parametrize('more', [{}, {'limit': 45}, {'limit': 31, 'offset': 17}], ids=str)
@pytest.mark.parametrize(
    'filters', [{}, {'collection': 'a'}, {'status': 'completed'}, {'status': 'error'}], ids=str
)
@pytest.mark.parametrize('order_by', ['-finished_at', 'finished_at', 'duration'])
def test_pages_from_either_end_are_those_of_the_list(filled, filters, order_by, more):
    """Indexing, slices and both iterations, near, deep and backwards; what is not known comes last."""

    def find():
        return filled.find(**filters, order_by=order_by, **more)

    wanted = expected([*filled.find(order_by=None)], filters, order_by, **more)
    assert list(find()) == wanted
    assert list(reversed(find())) == wanted[::-1]
    assert find()[-25:-15] == wanted[-25:-15]
    found = find()
    number = len(wanted)
    for position in (-1, 0, -11, 8, -1, 23, number - 1, -number, number, -number - 1):
        if -number <= position < number:
            assert find()[position] == found[position] == wanted[position]
        else:
            for each in (find(), found):
                with pytest.raises(IndexError, match=f'no row {position}'):
                    each[position]


def test_deep_pages_look_at_no_row_before_them(filled):
    """In both directions, over all collections and in one: an index holds the whole order."""
    for filters in ({}, {'collection': 'a'}, {'status': 'completed'}, {'collection': 'a', 'status': 'error'}):
        found = filled.find(**filters)
        for is_backward in (False, True):
            statements = found._statements.backward() if is_backward else found._statements
            text, values = statements.ids(10, 5)
            plan = filled._connections.read(
                lambda driver, text=text, values=values: [
                    row[3] for row in driver.execute(f'EXPLAIN QUERY PLAN {text}', values)
                ]
            )
            order = next(step for step in plan if 'resources' in step and 'finished_at=?' not in step)
            assert 'COVERING INDEX' in order, (filters, plan)
            assert sum('TEMP B-TREE' in step for step in plan) == statements.parts - 1, (filters, plan)


@pytest.mark.parametrize('direction', [iter, reversed])
def test_an_iteration_keeps_nothing_from_the_checkpoint(filled, tmp_path, direction):
    """Between two rows the -wal can be emptied, however many rows are still to come."""
    rows = direction(filled.find())
    for _ in range(15):  # beyond the first that are read at once
        next(rows)
    with closing(sqlite3.connect(tmp_path / 'index.sqlite3', isolation_level=None, timeout=0)) as other:
        assert other.execute('PRAGMA wal_checkpoint(TRUNCATE)').fetchone()[0] == 0
    assert len(list(rows)) == 45


def test_what_is_written_during_an_iteration_is_given_once(filled):
    """As it is then; not what passes the filters no more, and never more than the limit."""
    rows = filled.find(status='completed', limit=30)
    wanted = list(rows)
    iterator = iter(filled.find(status='completed', limit=30))
    met = [next(iterator)]
    filled.finish([done('new', 'a', at=1000), done(wanted[5].ident, wanted[5].collection, at=2000)])
    met += [next(iterator) for _ in range(12)]
    filled.finish([failed(wanted[25].ident, wanted[25].collection, at=100)])
    met += iterator

    keys = [(entry.collection, entry.ident) for entry in met]
    assert len(set(keys)) == len(keys) <= 30
    assert {entry.status for entry in met} == {'completed'}
    assert ('a', 'new') in keys
    assert (wanted[25].collection, wanted[25].ident) not in keys
    assert keys[:10] == [(entry.collection, entry.ident) for entry in wanted[:10]]


def test_keys_are_read_in_pages(filled, monkeypatch):
    """All of them, or those of one collection, in order, while rows come and go."""
    monkeypatch.setattr(_summary, '_KEYS', _summary._KEYS.replace('1000', '7'))
    keys = sorted((entry.collection, entry.ident) for entry in several(60))

    assert list(filled.keys()) == keys
    assert list(filled.keys('b')) == [key for key in keys if key[0] == 'b']
    assert list(filled.keys('none')) == []
    iterator = filled.keys()
    first = next(iterator)
    filled.merge([], [(*keys[-1], filled.get(*keys[-1]).raw('changed'))])
    assert [first, *iterator] == keys[:-1]


# --- SQL ---------------------------------------------------------------------------------------------

ENDLESS = 'WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT i, i AS i FROM n'


def test_rows_of_sql_come_before_the_last_is_found(index):
    """A statement without end gives its first rows, and is let go with them."""
    rows = index.sql_rows(ENDLESS)

    assert [next(rows) for _ in range(2500)][-1] == {'i': 2500, 'i:2': 2500}
    del rows
    assert list(index.sql_rows('SELECT 1 AS one WHERE 0')) == []


def test_the_time_between_rows_of_sql_does_not_count(index, monkeypatch):
    """Only SQLite's own time is limited: who reads slowly gets all rows."""

    class Clock:
        now = 0.0

        @classmethod
        def monotonic(cls):
            return cls.now

    monkeypatch.setattr(_sql, 'time', Clock)
    rows = index.sql_rows(ENDLESS)
    for number in range(1, 5001):
        assert next(rows)['i'] == number
        Clock.now += 1.0  # an hour and more, where half a minute is allowed
    monkeypatch.setattr(_sql, '_STEPS', 1)
    slow = index.sql_rows(ENDLESS)
    monkeypatch.setattr(Clock, 'monotonic', lambda: setattr(Clock, 'now', Clock.now + 1) or Clock.now)
    with pytest.raises(HadrosaurError, match='stopped after 30 seconds'):
        list(slow)


@pytest.mark.parametrize('statement', ['DELETE FROM resources', 'SELECT nothing', 'SELECT 1; SELECT 2'])
def test_rows_of_sql_only_read(index, statement):
    """What is refused is refused as `sql` refuses it, in the same words."""
    with pytest.raises(HadrosaurError) as whole:
        index.sql(statement)
    with pytest.raises(HadrosaurError) as rows:
        next(index.sql_rows(statement))
    assert str(rows.value) == str(whole.value)
