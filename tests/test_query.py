"""Queries: every filter gives the rows that the same question, asked in plain Python, would give."""

import itertools
import json
import sqlite3
import sys
import tracemalloc
from datetime import UTC, date, datetime, timedelta, timezone
from fnmatch import fnmatchcase

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from test_index import asked, clock, done, failed

from hadrosaur import canonical, records
from hadrosaur.index import Index, _filters, _query
from hadrosaur.index._functions import FUNCTIONS

TEXTS = [
    'a',
    'b',
    'ab',
    'A',
    'a%',
    'a_b',
    '[a]',
    'a-b',
    '^a',
    '!a',
    'a]',
    'a\0b',
    'é',
    'É',
    "'",
    '"',
    '*',
    '\\',
    '😀',
]
ARGS = [
    '{}', '{"a":1}', '{"a":1.0}', '{"a":true}', '{"a":"1"}', '{"a":null}', '{"a":false}', '{"a":0}',
    '{"a":[1,2]}', '{"a":{"b":1,"c":"x"}}', '{"a":1,"b":2}', '{"b":2}', '{"a":100000000000000000000}',
    '{"a":0.1}', '{"a":-0.0}', '{"a":"\\u0000"}', '{"é\\"":"%_"}', '{"a":1e+300}',
]  # fmt: skip
VERSIONS = {'c': '2', 'd': None}


def population():
    """Rows with something of everything, few of them alike."""
    rows = []
    texts, args = itertools.cycle(TEXTS), itertools.cycle(ARGS)
    for number in range(120):
        collection = ('c', 'd', "e'; --")[number % 3]
        ident = next(texts) + (str(number) if number > 3 * len(TEXTS) else '*' * (number // len(TEXTS)))
        cells = {
            'args': next(args),
            'version': (None, '1', '2')[number // 3 % 3],
            'attempt': number % 4,
            'duration': (None, 0.5, 1.0, 3.25)[number % 4],
            'max_rss': number if number % 5 else None,
        }
        if number % 7 == 0:
            started = {'started_at': clock(number)} if number % 2 else {}
            rows.append(asked(ident, collection, **{**cells, **started}))
        elif number % 3:
            rows.append(done(ident, collection, at=number // 2, **cells))
        else:
            message = (None, 'Bad %_ thing', 'ÉTÉ', 'disk FULL', "it's")[number % 5]
            kind = ('ValueError', 'KeyError', None)[number % 3 if number % 2 else 0]
            rows.append(
                failed(ident, collection, at=number // 2, error=message, error_type=kind,
                       error_group=f'f1:{number % 4}', **cells)
            )  # fmt: skip
    return {(row.collection, row.ident): row for row in rows}


@pytest.fixture(scope='module')
def index(tmp_path_factory):
    """The population, indexed."""
    base = tmp_path_factory.mktemp('base')
    made = Index(base / 'index.sqlite3', lock_path=base / '.hadrosaur' / 'index.lock')
    made.merge([(entry, None) for entry in population().values()])
    yield made
    made.close()


@pytest.fixture(scope='module')
def rows(index):
    """The same rows, in no useful order."""
    return list(index.find(order_by=None))[::-1]


# --- the oracle --------------------------------------------------------------------------------------


def several(value):
    return [value] if isinstance(value, str | dict) else list(value)


def moment(value, *, at_end):
    if isinstance(value, str):
        value = date.fromisoformat(value) if len(value) == 10 else datetime.fromisoformat(value)
    if not isinstance(value, datetime):
        value = datetime(value.year, value.month, value.day) + (
            timedelta(days=1, microseconds=-1) if at_end else timedelta()
        )
    return value.astimezone(UTC)


def holds(row, wanted):
    return all(name in row.args and is_one_of(row.args[name], value) for name, value in wanted.items())


def is_one_of(held, value):
    """Is it the value; or, of a list, one of its items or the list?"""
    wanted = (*value, value) if isinstance(value, list) else (value,)
    return canonical.args_json({'': held}) in [canonical.args_json({'': each}) for each in wanted]


def is_stale(row, versions):
    current = versions.get(row.collection)
    return row.status != 'pending' and current is not None and row.version != current


TESTS = {
    'collection': lambda row, value: row.collection in several(value),
    'status': lambda row, value: row.status in several(value),
    'ident': lambda row, value: any(fnmatchcase(row.ident, pattern) for pattern in several(value)),
    'error_type': lambda row, value: row.error_type in several(value),
    'error_group': lambda row, value: row.error_group in several(value),
    'error': lambda row, value: (
        row.error is not None and any(part.casefold() in row.error.casefold() for part in several(value))
    ),
    'args': lambda row, value: any(holds(row, wanted) for wanted in several(value)),
    'since': lambda row, value: (
        (time := row.finished_at or row.started_at) and time >= moment(value, at_end=False)
    ),
    'until': lambda row, value: (
        (time := row.finished_at or row.started_at) and time <= moment(value, at_end=True)
    ),
    'min_duration': lambda row, value: row.duration is not None and row.duration >= value,
    'stale': lambda row, value: is_stale(row, VERSIONS) == value,
}


def expected(rows, filters, order_by='-finished_at', limit=None, offset=0):
    found = [row for row in rows if all(TESTS[name](row, value) for name, value in filters.items())]
    found.sort(key=lambda row: (row.collection, row.ident))
    if order_by is not None:
        name = order_by.removeprefix('-')
        known = [row for row in found if row.raw(name) is not None]
        known.sort(key=lambda row: row.raw(name), reverse=order_by.startswith('-'))
        if order_by.startswith('-'):  # equal ones kept their order, which reverse=True leaves alone
            assert known == sorted(known, key=lambda row: row.raw(name), reverse=True)
        found = known + [row for row in found if row.raw(name) is None]
    return found[offset:] if limit is None else found[offset : offset + limit]


def find(index, filters, **more):
    facts = {name: records.Facts(version) for name, version in VERSIONS.items()}
    return index.find(**filters, facts=facts if 'stale' in filters else None, **more)


FILTERS = [
    {},
    {'collection': 'c'},
    {'collection': ['c', 'd']},
    {'collection': "e'; --"},
    {'collection': []},
    {'collection': ['nothing', 'c', 'c']},
    {'status': 'error'},
    {'status': ['error', 'pending']},
    {'status': ('completed', 'error', 'pending')},
    {'status': []},
    {'collection': 'c', 'status': 'error'},
    {'collection': ['c', 'd'], 'status': 'pending'},
    {'ident': 'a'},
    {'ident': 'a\0b'},
    {'ident': ['a', 'b', 'a\0b']},
    {'ident': 'a*'},
    {'ident': '*'},
    {'ident': '?'},
    {'ident': '[!a]*'},
    {'ident': '[^a]*'},
    {'ident': 'a[!\0]b*'},
    {'ident': 'a?b*'},
    {'ident': '[]a[]*'},
    {'ident': '[[]a]'},
    {'ident': '[a'},
    {'ident': '*[0-9]'},
    {'ident': '[a-b][z-a]*'},
    {'ident': 'a[-_]b*'},
    {'ident': '😀*'},
    {'ident': ['b*', 'A', '*9']},
    {'ident': 'É*', 'collection': ['c', 'd']},
    {'ident': 'a%*'},
    {'ident': []},
    {'error_type': 'ValueError'},
    {'error_type': ['ValueError', 'KeyError'], 'collection': 'c'},
    {'error_type': []},
    {'error_group': 'f1:1'},
    {'error_group': ['f1:1', 'f1:3'], 'status': 'error'},
    {'error': 'bad'},
    {'error': '%'},
    {'error': '_'},
    {'error': 'été'},
    {'error': ["IT'S", 'full']},
    {'error': ''},
    {'args': {}},
    {'args': {'a': 1}},
    {'args': {'a': 1.0}},
    {'args': {'a': True}},
    {'args': {'a': '1'}},
    {'args': {'a': None}},
    {'args': {'a': [1, 2]}},
    {'args': {'a': (1, 2)}},
    {'args': {'a': {'c': 'x', 'b': 1}}},
    {'args': {'a': {'b': 1}}},
    {'args': {'a': 1, 'b': 2}},
    {'args': {'a': 10**20}},
    {'args': {'a': 0.1}},
    {'args': {'a': 0.0}},
    {'args': {'a': '\0'}},
    {'args': {'a': 1e300}},
    {'args': {'é"': '%_'}},
    {'args': {'nothing': None}},
    {'args': [{'b': 2}, {'a': False}]},
    {'args': [{'b': 2}, {}]},
    {'args': [{'b': 2}, {'nothing': None}]},
    {'args': []},
    {'since': clock(30)},
    {'until': clock(30)},
    {'since': clock(10), 'until': clock(40), 'collection': 'c'},
    {'since': datetime(2026, 1, 1, 0, 0, 20, tzinfo=UTC), 'status': 'error'},
    {'since': datetime(2026, 1, 1, 2, 0, 20, tzinfo=timezone(timedelta(hours=2)))},
    {'since': '2026-01-01T00:00:20+00:00'},
    {'since': date(2026, 1, 2)},
    {'until': date(2026, 1, 2)},
    {'until': '2026-01-02'},
    {'since': '2025-12-31', 'until': '2026-01-02'},
    {'min_duration': 1},
    {'min_duration': 3.3},
    {'stale': True},
    {'stale': False},
    {'stale': True, 'collection': ['c', 'd'], 'status': 'completed'},
]


@pytest.mark.parametrize('filters', FILTERS, ids=str)
def test_filters_give_what_python_gives(index, rows, filters):
    """The same rows in the same order, whether they are read, counted or picked."""
    wanted = expected(rows, filters)
    found = find(index, filters)

    assert list(found) == wanted
    assert len(find(index, filters)) == len(wanted)
    assert bool(find(index, filters)) == bool(wanted)
    assert find(index, filters)[:] == wanted


def test_the_population_can_tell_filters_apart(rows):
    """Of the filters above, most pass some rows and not others: the oracle has something to say."""
    passed = [len(expected(rows, filters)) for filters in FILTERS]

    assert sum(0 < number < len(rows) for number in passed) > len(FILTERS) * 0.75


@pytest.mark.parametrize('column', records.COLUMNS)
@pytest.mark.parametrize('sign', ['', '-'])
@pytest.mark.parametrize(
    'filters', [{}, {'status': 'pending'}, {'status': 'error'}, {'since': clock(20)}], ids=str
)
def test_every_column_orders_both_ways(index, rows, column, sign, filters):
    """NULLs last, ties by (collection, ident), also where another index is used to find the rows."""
    order_by = sign + column

    assert list(find(index, filters, order_by=order_by)) == expected(rows, filters, order_by)


def test_without_an_order_the_key_decides(index, rows):
    """order_by=None is the order of the table."""
    assert list(index.find(order_by=None)) == expected(rows, {}, None)


# --- anything at all ---------------------------------------------------------------------------------

text = st.one_of(st.sampled_from(TEXTS), st.text('ab*?[]!^-\\%_\'"é😀\0', max_size=5))
json_value = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=3),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.text(max_size=2), inner, max_size=2),
    max_leaves=4,
)
args_filter = st.one_of(
    st.sampled_from([json.loads(args) for args in ARGS]),
    st.dictionaries(st.sampled_from(['a', 'b', 'é"']), json_value, max_size=2),
)
status = st.sampled_from(records.STATUSES)
time = st.one_of(
    st.datetimes(datetime(2025, 12, 31), datetime(2026, 1, 2), timezones=st.none() | st.just(UTC)),
    st.dates(date(2025, 12, 30), date(2026, 1, 3)),
    st.integers(0, 120).map(clock),
)


def one_or_several(values):
    return values | st.lists(values, max_size=3)


any_filters = st.fixed_dictionaries(
    {},
    optional={
        'collection': one_or_several(st.sampled_from(['c', 'd', "e'; --", 'none'])),
        'status': one_or_several(status),
        'ident': one_or_several(text),
        'error_type': one_or_several(st.sampled_from(['ValueError', 'KeyError', "'"])),
        'error': one_or_several(text),
        'args': one_or_several(args_filter),
        'since': time,
        'until': time,
        'min_duration': st.floats(0, 4),
        'stale': st.booleans(),
    },
)
any_order = st.none() | st.tuples(st.sampled_from(['', '-']), st.sampled_from(records.COLUMNS)).map(''.join)


@settings(max_examples=250, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(filters=any_filters, order_by=any_order, limit=st.none() | st.integers(0, 9), offset=st.integers(0, 9))
@example(filters={'ident': '[', 'args': {'': []}}, order_by='-args', limit=3, offset=1)
def test_any_filters_together_give_what_python_gives(index, rows, filters, order_by, limit, offset):
    """A query is data: whatever stands in it, the rows are those of the oracle."""
    wanted = expected(rows, filters, order_by, limit, offset)
    found = find(index, filters, order_by=order_by, limit=limit, offset=offset)

    assert list(found) == wanted
    assert len(find(index, filters, order_by=order_by, limit=limit, offset=offset)) == len(wanted)


@settings(max_examples=400, deadline=None)
@given(ident=st.text('ab*?[]!^-\\\0é', max_size=6), pattern=st.text('ab*?[]!^-\\\0é', max_size=6))
@example(ident='\U0010ffff!', pattern='\U0010ffff?')
@example(ident='\ud7ffa', pattern='\ud7ff*')
@example(ident='a\U0010ffff\U0010ffff', pattern='a\U0010ffff*')
def test_globs_are_those_of_fnmatch(ident, pattern):
    """The test itself, and the range of texts that is looked through for it."""
    condition = _filters.conditions({'ident': pattern})[0]
    if len(condition.values) == 1:
        found = ident in condition.values
    elif len(condition.values) == 2:
        inside, regex = condition.values
        found = inside in ident and FUNCTIONS['hadrosaur_is_like'][0](ident, regex)
    else:
        head, after, regex = (value.encode('utf-8', 'surrogatepass') for value in condition.values)
        found = head <= ident.encode() < after and FUNCTIONS['hadrosaur_is_like'][0](ident, regex.decode())

    assert found == fnmatchcase(ident, pattern)


@settings(max_examples=300, deadline=None)
@given(
    held=st.dictionaries(st.sampled_from('ab'), json_value),
    wanted=st.dictionaries(st.sampled_from('ab'), json_value),
)
def test_args_are_compared_as_canonical_json(held, wanted):
    """What SQLite looks for first never hides a row that the exact test would pass."""
    text = canonical.args_json(held)
    holds_all = FUNCTIONS['hadrosaur_holds'][0]
    found = True
    for condition in _filters.conditions({'args': wanted}):
        if len(condition.values) == 2:
            pair, pairs = condition.values
            found = found and pair in text and holds_all(text, pairs)
        else:
            found = found and holds_all(text, *condition.values)

    assert found == all(name in held and is_one_of(held[name], value) for name, value in wanted.items())


def test_args_that_are_no_json_match_nothing():
    """A row that another program wrote does not break a query."""
    holds_all = FUNCTIONS['hadrosaur_holds'][0]

    assert not any(
        holds_all(text, '[{"a":1}]') for text in ('', 'x', '[]', '1', '[' * 100_000, '{"a":NaN}', None)
    )
    assert holds_all(None, '[{}]')


# --- a sequence --------------------------------------------------------------------------------------


@pytest.fixture
def windows(monkeypatch):
    """Windows of seven rows, so that a population has many."""
    monkeypatch.setattr(_query, 'WINDOW', 7)


@pytest.mark.usefixtures('windows')
def test_indexing_is_that_of_a_list(index, rows):
    """Forwards, backwards and beyond, across windows."""
    wanted = expected(rows, {})
    found = index.find()
    number = len(wanted)

    for position in (*range(number), *range(-number, 0), 5, 100, 6, 7, 8):
        assert found[position] == wanted[position]
    for position in (number, -number - 1, 10**9):
        with pytest.raises(IndexError, match=str(position)):
            found[position]
    assert list(reversed(found)) == wanted[::-1]
    assert wanted[50] in found
    assert found.index(wanted[50]) == 50


@pytest.mark.usefixtures('windows')
@pytest.mark.parametrize(
    ('limit', 'offset'), [(None, 0), (20, 0), (20, 5), (7, 0), (14, 3), (0, 0), (10, 115), (None, 200)]
)
def test_slices_are_those_of_a_list(index, rows, limit, offset):
    """Any start, stop and step; a limit and an offset are never left."""
    wanted = expected(rows, {}, limit=limit, offset=offset)
    found = index.find(limit=limit, offset=offset)
    edges = (None, 0, 1, 6, 7, 20, 119, 500, -1, -7, -119, -500)

    assert len(index.find(limit=limit, offset=offset)) == len(wanted)
    assert list(index.find(limit=limit, offset=offset)) == wanted
    for start, stop, step in itertools.product(edges, edges, (None, 1, 3, -1, -4)):
        assert found[start:stop:step] == wanted[start:stop:step], (start, stop, step)


def test_a_query_is_not_asked_before_it_is_looked_at(index):
    """Making one reads nothing; what was read once, by ``repr`` too, is not read again."""
    count = 0

    class Counting:
        def __getattr__(self, name):
            nonlocal count
            count += 1
            return getattr(index._connections, name)

    found = _query.Query(Counting(), {'status': 'error'}, limit=5)
    assert count == 0
    assert repr(found).startswith("<Query(status='error', limit=5):")

    assert len(found) == 5
    assert found
    assert found[0] == next(iter(found)) == found[:1][0] == found[-5]
    assert count == 1


@pytest.mark.long
def test_a_long_query_streams(tmp_path):
    """Iterating does not hold the rows, and a write goes on meanwhile."""
    index = Index(tmp_path / 'index.sqlite3', lock_path=tmp_path / '.hadrosaur' / 'lock')
    index.finish([done(f'{number:06}', args=json.dumps({'x': 'y' * 200})) for number in range(30_000)])
    found = index.find()
    tracemalloc.start()
    try:
        number = 0
        for entry in found:
            number += 1
            if number == 5000:
                index.finish([failed(entry.ident)])
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
        index.close()

    assert number == 30_000
    assert peak < 8_000_000  # all rows at once: 40 MB


EARLIEST = datetime.min.replace(tzinfo=timezone(timedelta(hours=2)))
"""A moment that cannot be told in UTC."""

# --- mistakes ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ('filters', 'error', 'message'),
    [
        ({'status': 'errors'}, ValueError, "did you mean 'error'"),
        ({'status': ['error', 'done']}, ValueError, "unknown status 'done'"),
        ({'order_by': 'finnished_at'}, ValueError, "did you mean 'finished_at'"),
        ({'order_by': '--ident'}, ValueError, "unknown column '-ident'"),
        ({'order_by': 'ident; DROP TABLE resources'}, ValueError, 'unknown column'),
        ({'since': 'yesterday'}, ValueError, 'timedelta'),
        ({'since': 12}, ValueError, 'no point in time'),
        (
            {'until': EARLIEST},
            ValueError,
            'no point in time',
        ),
        ({'since': timedelta.max}, ValueError, 'no point in time'),
        ({'limit': -1}, ValueError, 'limit cannot be negative'),
        ({'offset': -1}, ValueError, 'offset cannot be negative'),
        ({'limit': '5'}, TypeError, 'whole number'),
        ({'limit': True}, TypeError, 'whole number'),
        ({'ident': 5.0}, TypeError, 'ident takes text, not float'),
        ({'error_type': ValueError}, TypeError, 'error_type takes text, not type'),
        ({'order_by': ['ident']}, TypeError, 'order_by takes the name of a column'),
        ({'min_duration': '1s'}, ValueError, 'min_duration takes a number of seconds'),
        ({'collection': [5]}, TypeError, 'collection takes text, not int'),
        ({'args': {'a': float('nan')}}, TypeError, r'\$\.a is NaN'),
        ({'args': {'a': object()}}, TypeError, r'\$\.a'),
        ({'ident': [str(number) for number in range(40_000)]}, ValueError, 'too many values'),
    ],
)
def test_mistakes_are_named(index, filters, error, message):
    """At once, before anything is read, with what would be right."""
    with pytest.raises(error, match=message):
        index.find(**filters)


def test_as_many_values_as_are_allowed_work(index, rows):
    """The limit of parameters is SQLite's, not an accident of ours."""
    idents = [str(number) for number in range(_filters.MOST_VALUES - 1)]

    assert list(index.find(ident=[*idents, 'a'])) == expected(rows, {'ident': 'a'})


def test_a_timedelta_is_so_long_ago(tmp_path):
    """Since and until a moment that moves with the clock."""
    index = Index(tmp_path / 'index.sqlite3', lock_path=tmp_path / '.hadrosaur' / 'lock')
    now = datetime.now(UTC).timestamp()
    times = {'old': now - 7200, 'new': now - 60}
    index.finish([done(ident, finished_at=records.format_time(time)) for ident, time in times.items()])

    assert [entry.ident for entry in index.find(since=timedelta(hours=1))] == ['new']
    assert [entry.ident for entry in index.find(until=timedelta(hours=1))] == ['old']
    index.close()


def test_nothing_of_a_value_stands_in_the_text(index):
    """Every value is bound; the text depends on the shape of the question alone."""
    texts = set()
    for word in ('first', "se'cond"):
        found = index.find(
            word, status='error', ident=[word, word + '2'], error_type=word, error=word, args={word: word},
            since=clock(3), until=clock(4), min_duration=3, stale=True, facts={word: records.Facts(word)},
            order_by='-ident',
        )  # fmt: skip
        text, values = found._statements.ids(10, 0)
        texts.add(text)
        assert text.count('?') == len(values)
        assert 'first' not in text
        assert "se'cond" not in text
    assert len(texts) == 1


FAST = [
    ({'collection': 'c', 'status': 'error'}, 'resources_failed_of_collection'),
    ({'status': 'error'}, 'resources_failed '),
    ({'collection': 'c'}, 'resources_of_collection'),
    ({}, 'COVERING INDEX resources_by_finish'),
    ({}, 'resources_of_collection (collection=? AND finished_at=?)'),
    ({'status': 'completed'}, 'COVERING INDEX resources_by_finish'),
    ({'args': {'a': 1}}, 'resources_by_finish'),
    ({'status': 'pending', 'order_by': None}, 'resources_pending'),
    ({'status': 'pending', 'collection': 'c'}, 'resources_pending'),
    ({'since': clock(5)}, 'resources_of_collection (collection=? AND finished_at>?)'),
    ({'since': clock(5), 'collection': 'c'}, 'resources_of_collection (collection=? AND finished_at>?)'),
    (
        {'since': clock(5), 'collection': ['c', 'd']},
        'resources_of_collection (collection=? AND finished_at>?)',
    ),
    ({'error_type': 'x', 'collection': 'c'}, 'resources_by_error_type'),
    ({'error_group': 'x'}, 'resources_by_error_group'),
    ({'ident': 'x', 'collection': 'c'}, 'resources_1 (collection=? AND ident=?)'),
    ({'ident': 'x*', 'collection': 'c'}, 'resources_1 (collection=? AND ident>? AND ident<?)'),
    ({'collection': 'c', 'order_by': None}, 'resources_1 (collection=?)'),
]


@pytest.mark.parametrize(('asked_for', 'used'), FAST, ids=str)
def test_what_is_asked_often_uses_an_index(index, asked_for, used):
    """SQLite is led to the index that finds the rows, whatever it knows of their number."""
    found = index.find(**asked_for)
    text, values = found._statements.ids(100, 0)
    plan = index._connections.read(
        lambda driver: [row[3] for row in driver.execute(f'EXPLAIN QUERY PLAN {text}', values)]
    )

    assert used in ' '.join(plan) + ' '
    assert 'SCAN resources' not in plan


def test_sqlite_takes_what_core_writes():
    """NULLS LAST came with SQLite 3.30; Python 3.11 may be built with 3.7, so say it here first."""
    assert sqlite3.sqlite_version_info >= (3, 30), sys.version
