"""P13: a query is data: generated filters against the oracle of the ordinary tests, in plain Python."""

import test_query
from harness import chance, count
from hypothesis import HealthCheck, Phase, given, settings

from hadrosaur.errors import HadrosaurError

QUERIES = count(20_000, quick=150)
index, rows = test_query.index, test_query.rows

HOSTILE = [
    'DELETE FROM resources', "UPDATE resources SET ident = 'x'", 'DROP TABLE resources', 'VACUUM', 'REINDEX',
    "INSERT INTO alembic_version VALUES ('x')", "ATTACH '{place}/evil' AS evil", "VACUUM INTO '{place}/evil'",
    "SELECT load_extension('{place}/evil')", 'PRAGMA user_version = 5', 'PRAGMA journal_mode = DELETE',
    'PRAGMA writable_schema = 1', 'CREATE TEMP TABLE t (x)', 'BEGIN', 'SELECT 1; DELETE FROM resources',
    'WITH RECURSIVE t(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM t) SELECT max(x) FROM t',
    "SELECT writefile('{place}/evil', 'x')", "DELETE FROM resources WHERE ident = '' RETURNING *",
]  # fmt: skip

seen = {'queries': 0, 'with rows': 0}


@settings(
    max_examples=QUERIES,
    deadline=None,
    database=None,
    phases=[Phase.generate, Phase.shrink],
    suppress_health_check=list(HealthCheck),
)
@given(
    filters=test_query.any_filters,
    order_by=test_query.any_order,
    limit=test_query.st.none() | test_query.st.integers(0, 9),
    offset=test_query.st.integers(0, 9),
)
def test_what_python_gives(index, rows, filters, order_by, limit, offset):
    wanted = test_query.expected(rows, filters, order_by, limit, offset)
    found = test_query.find(index, filters, order_by=order_by, limit=limit, offset=offset)
    assert list(found) == wanted
    assert len(test_query.find(index, filters, order_by=order_by, limit=limit, offset=offset)) == len(wanted)
    seen['queries'] += 1
    seen['with rows'] += bool(wanted)


def test_sql_only_reads(index, rows, tmp_path, record):
    """Hostile statements in any order are refused, and neither rows nor the disk are changed."""
    chosen = chance()
    number = max(len(HOSTILE), QUERIES // 100)
    before = sorted(map(repr, rows))
    for turn in range(number):
        statement = HOSTILE[turn] if turn < len(HOSTILE) else chosen.choice(HOSTILE)
        try:
            given = index.sql(statement.replace('{place}', str(tmp_path)), seconds=0.05)
        except HadrosaurError:
            continue
        raise AssertionError(f'{statement} was not refused: {given}')
    assert sorted(map(repr, iter(index.find(order_by=None)))) == before
    assert list(tmp_path.iterdir()) == []
    record(
        'P13',
        number + seen['queries'],
        0,
        f'{seen["with rows"]} queries with rows, {number} hostile statements',
    )
