"""The index table: the text that makes it, the Core table that is compiled, and what uses its indexes."""

import re
import sqlite3

import pytest
from sqlalchemy import create_engine, inspect

from hadrosaur import records, schema, tables


@pytest.fixture
def connection():
    """A fresh index in memory, as `schema.create` makes it."""
    with create_engine('sqlite://', isolation_level='AUTOCOMMIT').connect() as made:
        schema.create(made.exec_driver_sql)
        yield made


@pytest.fixture
def driver(connection):
    """The same, as the driver sees it."""
    return connection.connection.driver_connection


def plan(driver, query, *values):
    """How SQLite would go about a query, one step a line."""
    return '\n'.join(row[3] for row in driver.execute(f'EXPLAIN QUERY PLAN {query}', values))


def one_space(text):
    return re.sub(r'\s+', ' ', text).strip()


def without_comments(text):
    return one_space(re.sub(r'--.*', '', text))


def test_the_columns_are_those_of_an_entry_in_order():
    """A row read as it comes is an Entry."""
    assert list(records.COLUMNS) == [column.name for column in tables.resources.columns]


def test_text_and_core_table_have_the_same_columns(connection):
    """Names, types, NOT NULL and key of the CREATE TABLE text are those of the Core table."""
    made = inspect(connection)
    columns = [
        (column['name'], str(column['type']), column['nullable']) for column in made.get_columns('resources')
    ]
    expected = [(column.name, str(column.type), column.nullable) for column in tables.resources.columns]

    assert expected == columns
    key = made.get_pk_constraint('resources')
    assert [column.name for column in tables.resources.primary_key] == key['constrained_columns']
    assert tables.resources.primary_key.name == key['name']


def test_text_and_core_table_have_the_same_checks(connection):
    """Each CHECK has a name, and says the same in both places."""
    made = {
        check['name']: one_space(check['sqltext'])
        for check in inspect(connection).get_check_constraints('resources')
    }
    expected = {
        constraint.name: str(constraint.sqltext)
        for constraint in tables.resources.constraints
        if hasattr(constraint, 'sqltext')
    }

    assert expected == made
    assert None not in made


def test_text_and_core_table_have_the_same_indexes(connection, driver):
    """What Core would make, the text makes: columns in order, and the condition of the partial ones."""
    with create_engine('sqlite://').connect() as other:
        tables.metadata.create_all(other)
        query = "SELECT name, sql FROM sqlite_master WHERE type = 'index' AND sql IS NOT NULL"
        expected = {name: one_space(sql) for name, sql in other.exec_driver_sql(query)}

    made = {name: one_space(sql) for name, sql in driver.execute(query)}
    assert expected == made


def test_alembic_finds_no_difference(connection):
    """`alembic revision --autogenerate` on a fresh index has nothing to say."""
    from alembic.autogenerate import compare_metadata
    from alembic.migration import MigrationContext

    context = MigrationContext.configure(connection, opts={'include_object': tables.is_compared})
    assert compare_metadata(context, tables.metadata) == []


def test_every_column_is_explained_in_the_shell(driver):
    """`.schema` shows a comment beside each column."""
    (text,) = driver.execute("SELECT sql FROM sqlite_master WHERE name = 'resources'").fetchone()
    commented = re.findall(r'^ +(\w+) .*,  -- \w', text, re.MULTILINE) + re.findall(
        r'^ +(\w+) .*, +-- \w', text, re.MULTILINE
    )

    assert set(records.COLUMNS) <= set(commented)


def test_the_file_is_marked_as_ours_and_stamped(driver):
    """The application id and one row that holds the newest revision."""
    assert driver.execute('PRAGMA application_id').fetchall() == [(schema.APPLICATION_ID,)]
    assert driver.execute('SELECT version_num FROM alembic_version').fetchall() == [(schema.HEAD,)]
    assert 0 < schema.APPLICATION_ID < 2**31
    assert schema.APPLICATION_ID.to_bytes(4) == b'hdrs'


@pytest.mark.parametrize(
    ('status', 'phase', 'message'),
    [
        ('done', None, 'resources_status_is_known'),
        (None, None, 'NOT NULL'),
        ('completed', 'running', 'resources_phase_is_of_pending'),
        ('pending', 'waiting', 'resources_phase_is_of_pending'),
    ],
)
def test_nonsense_is_refused(driver, status, phase, message):
    """A status that is none of the three, or a phase of what is not pending."""
    row = 'INSERT INTO resources (collection, ident, status, phase, changed) VALUES (?, ?, ?, ?, ?)'
    with pytest.raises(sqlite3.IntegrityError, match=message):
        driver.execute(row, ('c', 'i', status, phase, 'now'))


FAST = {
    'count of a collection by status': (
        "SELECT count(*) FROM resources WHERE collection = ? AND status = 'error'",
        'COVERING INDEX resources_failed_of_collection',
    ),
    'counts by status': (
        'SELECT collection, status, count(*) FROM resources GROUP BY collection, status',
        'COVERING INDEX resources_of_collection',
    ),
    'counts by status overall': (
        'SELECT status, count(*) FROM resources GROUP BY status',
        'COVERING INDEX resources_of_collection',
    ),
    'status_counts': ('SELECT * FROM status_counts', 'COVERING INDEX resources_of_collection'),
    'last failures of a collection': (
        "SELECT * FROM resources WHERE collection = ? AND status = 'error'"
        ' ORDER BY finished_at DESC LIMIT 100',
        'resources_failed_of_collection',
    ),
    'last failures': ('SELECT * FROM errors LIMIT 100', 'resources_failed'),
    'last ones of everything': (
        'SELECT * FROM resources WHERE finished_at IS NOT NULL'
        ' ORDER BY finished_at DESC, collection, ident LIMIT 100',
        'resources_by_finish',
    ),
    'last ones of a collection': (
        'SELECT * FROM resources WHERE collection = ? ORDER BY finished_at DESC LIMIT 100',
        'resources_of_collection',
    ),
    'sessions of pending ones': (
        "SELECT DISTINCT session FROM resources WHERE status = 'pending'",
        'resources_pending',
    ),
    'running': ('SELECT * FROM running', 'resources_pending'),
    'by type': ('SELECT * FROM resources WHERE error_type = ?', 'resources_by_error_type'),
    'by types': ('SELECT * FROM resources WHERE error_type IN (?, ?)', 'resources_by_error_type'),
    'by cause': ('SELECT * FROM resources WHERE error_group = ?', 'resources_by_error_group'),
    'error_groups': ('SELECT * FROM error_groups', 'INDEX resources_failed'),
    'one': ('SELECT * FROM resources WHERE collection = ? AND ident = ?', 'sqlite_autoindex_resources_1'),
}


@pytest.mark.parametrize('name', FAST)
def test_what_is_asked_often_never_scans_the_table(driver, name):
    """Each of these uses an index, and none sorts more than rows of equal time."""
    query, index = FAST[name]
    steps = plan(driver, query, *['x'] * query.count('?'))

    assert index in steps
    assert not re.search(r'SCAN resources(?! USING)', steps)
    if 'LIMIT' in query:
        assert 'USE TEMP B-TREE FOR ORDER BY' not in steps


def row(driver, collection, ident, status, **cells):
    cells = {'collection': collection, 'ident': ident, 'status': status, 'changed': 'x', **cells}
    marks = ', '.join('?' * len(cells))
    driver.execute(f'INSERT INTO resources ({", ".join(cells)}) VALUES ({marks})', tuple(cells.values()))


@pytest.fixture
def filled(driver):
    """A few rows of each kind."""
    row(driver, 'a', '1', 'completed', duration=2.0, finished_at='2026-01-01T00:00:01.000000Z')
    row(driver, 'a', '2', 'error', error_type='ValueError', error='bad 1', error_group='f1:x',
        duration=5.0, finished_at='2026-01-01T00:00:02.000000Z')  # fmt: skip
    row(driver, 'a', '3', 'error', error_type='ValueError', error='bad 2', error_group='f1:x',
        finished_at='2026-01-01T00:00:03.000000Z')  # fmt: skip
    row(
        driver,
        'b',
        '1',
        'error',
        error_type='KeyError',
        error="'k'",
        finished_at='2026-01-01T00:00:04.000000Z',
    )
    row(driver, 'b', '2', 'pending', phase='queued')
    row(driver, 'b', '3', 'pending', phase='running', started_at='2026-01-01T00:00:00.000000Z')
    return driver


def test_the_views_say_what_their_names_say(filled):
    """Failures newest first, causes with their numbers, counts, what runs since when, what was slow."""

    def rows(query):
        return filled.execute(query).fetchall()

    assert rows('SELECT collection, ident FROM errors') == [('b', '1'), ('a', '3'), ('a', '2')]
    groups = rows('SELECT error_group, count, error_type, collection, first, last FROM error_groups')
    first, last = '2026-01-01T00:00:02.000000Z', '2026-01-01T00:00:03.000000Z'
    assert ('f1:x', 2, 'ValueError', 'a', first, last) == groups[0]
    assert [each[:2] for each in groups[1:]] == [('KeyError', 1)]
    counts = {('a', 'completed', 1), ('a', 'error', 2), ('b', 'error', 1), ('b', 'pending', 2)}
    assert counts == set(rows('SELECT * FROM status_counts'))
    ((ident, seconds),) = rows('SELECT ident, seconds FROM running')
    assert ident == '3'
    assert seconds > 1_000_000
    assert rows('SELECT ident, duration FROM slowest') == [('2', 5.0), ('1', 2.0)]


def test_times_are_what_date_functions_take(filled):
    """SQLite reads the text that records.format_time writes."""
    assert filled.execute('SELECT unixepoch(?)', (records.format_time(1e9),)).fetchone() == (10**9,)
