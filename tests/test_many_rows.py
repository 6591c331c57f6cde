"""What is quick at a million rows gives what the plain question, asked of every row, would give."""

import sqlite3
from contextlib import closing

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from test_index import asked, clock, done, failed

from hadrosaur import schema
from hadrosaur.index import Index, _summary
from hadrosaur.records import COLUMNS, STATUSES

GROUP_BY = 'SELECT collection, status, count(*) FROM resources GROUP BY collection, status'


def in_memory(entries):
    """A table of these rows, as the driver sees it."""
    driver = sqlite3.connect(':memory:', isolation_level=None)
    for statement in (schema.TABLE, *schema.INDEXES):
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
