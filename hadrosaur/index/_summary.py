"""Keys, counts, durations and groups of failures."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from ..fingerprint import mask
from ..records import STATUSES, ErrorGroup, moment
from ._connection import transaction
from ._validate import Altered, text

if TYPE_CHECKING:
    import sqlite3
    from datetime import datetime

SAMPLE = 10_000
"""Runs of a collection, the last ones, whose durations are looked at: a rank among so many is within one in
a hundred of that among all, and 10 000 rows take 10 ms where a million take 1.5 s."""

LEAST_SAMPLE, MOST_SAMPLED = 1_000, 50_000
"""Of one collection at least, and of all together where that leaves so many for each."""

# Each step looks up the next name in an index: as many steps as collections, however many rows.
COLLECTIONS = """
WITH RECURSIVE found (name) AS (
    SELECT min(collection) FROM resources
    UNION ALL
    SELECT (SELECT min(collection) FROM resources WHERE collection > name) FROM found WHERE name IS NOT NULL
)
SELECT name FROM found WHERE name IS NOT NULL"""

# How many rows there are SQLite knows without a look at each: it adds up what the pages of an index hold.
# So those of the collection that seems to be the largest (``:most``) are what all the others leave. The
# failed and the pending are counted in indexes that hold just those. One statement sees one state.
_COUNTS = f"""
SELECT name,
       CASE name WHEN :most THEN (SELECT count(*) FROM resources)
                 ELSE (SELECT count(*) FROM resources WHERE collection = name) END,
       (SELECT count(*) FROM resources WHERE collection = name AND status = 'error'),
       (SELECT count(*) FROM resources WHERE collection = name AND status = 'pending')
FROM ({COLLECTIONS})"""

_COUNTS_OF_ONE = _COUNTS.replace(COLLECTIONS, 'SELECT :of AS name')

_GUESSES = 32  # rows that are looked at to guess which collection is the largest

_DURATIONS = """
SELECT duration FROM resources WHERE collection = ? AND status <> 'pending' AND duration IS NOT NULL
ORDER BY finished_at DESC LIMIT ?"""

_KEYS = """
SELECT collection, ident FROM resources WHERE {} ORDER BY collection, ident LIMIT 1000"""

_FAILED = """
(SELECT coalesce(error_group, error_type, '') AS cause, collection, finished_at
 FROM resources WHERE {} AND status = 'error' {})"""

_LAST = 'ORDER BY finished_at DESC LIMIT ?'

_CAUSES = """
SELECT collection, cause, count(*), min(finished_at), max(finished_at)
FROM {} GROUP BY collection, cause"""

_LATEST = """
SELECT coalesce(error_type, ''), coalesce(error, ''), ident FROM resources
WHERE collection = ? AND status = 'error' AND finished_at IS ? AND coalesce(error_group, error_type, '') = ?
LIMIT 1"""


def collections(driver: sqlite3.Connection) -> list[str]:
    """Names of the collections that have rows, in order."""
    return [text(name) for (name,) in driver.execute(COLLECTIONS)]


def keys(
    driver: sqlite3.Connection, *, collection: str | None, after: tuple[str, str]
) -> list[tuple[str, str]]:
    """The (collection, ident) of the rows that follow, in order, as many as are read at a time."""
    if collection is None:
        rows = driver.execute(_KEYS.format('(collection, ident) > (?, ?)'), after)
    else:
        rows = driver.execute(_KEYS.format('collection = ? AND ident > ?'), (collection, after[1]))
    return [(text(of), text(named)) for of, named in rows]


def count(driver: sqlite3.Connection, collection: str | None) -> dict[str, dict[str, int]]:
    """Rows by status, for each collection that has rows, or for the given one."""
    most = _seems_largest(driver)
    is_direct = collection not in (None, most)
    statement = _COUNTS_OF_ONE if is_direct else _COUNTS
    counted = {
        text(name): {'total': total, 'completed': total - error - pending, 'error': error, 'pending': pending}
        for name, total, error, pending in driver.execute(statement, {'most': most, 'of': collection})
    }
    if most in counted:
        rest = sum(counts['total'] for name, counts in counted.items() if name != most)
        counted[most]['total'] -= rest
        counted[most]['completed'] -= rest
    if collection is None:
        return counted
    return {collection: counted.get(collection) or dict.fromkeys(('total', *STATUSES), 0)}


def _seems_largest(driver: sqlite3.Connection) -> str:
    """The collection of most of a few rows. A wrong guess costs time alone."""
    (last,) = driver.execute('SELECT max(rowid) FROM main.resources').fetchone()
    # By the golden ratio: evenly, and in step with no order in which collections may take turns.
    rows = ', '.join(str(1 + int((last or 0) * (part * 0.618034 % 1))) for part in range(_GUESSES))
    met = driver.execute(f'SELECT collection FROM main.resources WHERE rowid IN ({rows})').fetchall()
    return text(max(met, key=met.count)[0]) if met else ''


def stats(driver: sqlite3.Connection, collection: str | None) -> dict[str, dict[str, Any]]:
    """`count`, and how long runs took: all, or a sample, which says of how many it is."""
    collections: dict[str, dict[str, Any]] = {**count(driver, collection)}
    most = max(LEAST_SAMPLE, min(SAMPLE, MOST_SAMPLED // max(1, len(collections))))
    for name, counts in collections.items():
        taken = [seconds for (seconds,) in driver.execute(_DURATIONS, (name, most + 1))]
        if any(not isinstance(seconds, (int, float)) for seconds in taken):
            raise Altered('a duration is no number')
        sample = most if len(taken) > most else None
        counts['duration'] = {**_spread(taken[:most]), 'sample': sample}
    return collections


def _spread(durations: list[float]) -> dict[str, float | None]:
    """Percentiles by nearest rank: each is a duration that occurred."""
    if not durations:
        return {'p50': None, 'p95': None, 'max': None}
    ranked = sorted(durations)
    return {'p50': _percentile(ranked, 50), 'p95': _percentile(ranked, 95), 'max': ranked[-1]}


def _percentile(ranked: list[float], percent: int) -> float:
    return ranked[math.ceil(len(ranked) * percent / 100) - 1]


def error_groups(
    driver: sqlite3.Connection, collection: str | None, last: int | None = None
) -> list[ErrorGroup]:
    """Failures by cause, most frequent first, of the last so many or all; the example is the latest."""
    test, values = _of(collection)
    failed = _FAILED.format(test, '' if last is None else _LAST)
    values = values if last is None else (*values, last)
    with transaction(driver, 'DEFERRED'):
        causes = driver.execute(_CAUSES.format(failed), values).fetchall()
        examples = [driver.execute(_LATEST, (of, last, cause)).fetchone() for of, cause, *_, last in causes]
    groups = [
        ErrorGroup(
            group=text(cause),
            count=number,
            type=text(kind),
            pattern=mask(text(message)),
            frame=None,
            collection=text(of),
            example=text(ident),
            first=_time(first),
            last=_time(last),
        )
        for (of, cause, number, first, last), (kind, message, ident) in zip(causes, examples, strict=True)
    ]
    return sorted(groups, key=lambda group: (-group.count, group.collection, group.group))


def _time(cell: Any) -> datetime | None:
    return None if cell is None else moment(text(cell))


def _of(collection: str | None) -> tuple[str, tuple[Any, ...]]:
    """A test for a WHERE clause, and its values."""
    return ('true', ()) if collection is None else ('collection = ?', (collection,))
