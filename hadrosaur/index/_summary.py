"""Keys, counts, durations and groups of failures."""

from __future__ import annotations

import math
from array import array
from collections import defaultdict
from typing import TYPE_CHECKING, Any

from ..fingerprint import mask
from ..records import ErrorGroup, moment
from ._entries import text
from ._examining import Altered

if TYPE_CHECKING:
    import sqlite3
    from datetime import datetime

# Each part is counted in an index that holds just those rows; one statement sees one state.
_COUNTS = """
SELECT collection, 'total', count(*) FROM resources WHERE {0} GROUP BY collection
UNION ALL
SELECT collection, 'error', count(*) FROM resources WHERE {0} AND status = 'error' GROUP BY collection
UNION ALL
SELECT collection, 'pending', count(*) FROM resources WHERE {0} AND status = 'pending' GROUP BY collection"""

_DURATIONS = """
SELECT collection, duration FROM resources WHERE {} AND status <> 'pending' AND duration IS NOT NULL"""

# Each step looks up the next name in an index: as many steps as collections, however many rows.
COLLECTIONS = """
WITH RECURSIVE found (name) AS (
    SELECT min(collection) FROM resources
    UNION ALL
    SELECT (SELECT min(collection) FROM resources WHERE collection > name) FROM found WHERE name IS NOT NULL
)
SELECT name FROM found WHERE name IS NOT NULL"""

# SQLite takes the columns that are not grouped from the row with the max: the latest failure.
_LATEST = """
SELECT coalesce(error_group, error_type, ''), count(*), coalesce(error_type, ''), coalesce(error, ''),
       collection, ident, max(finished_at)
FROM resources WHERE {} AND status = 'error'
GROUP BY collection, coalesce(error_group, error_type, '')"""

_EARLIEST = """
SELECT collection, coalesce(error_group, error_type, ''), min(finished_at)
FROM resources WHERE {} AND status = 'error'
GROUP BY collection, coalesce(error_group, error_type, '')"""


def collections(driver: sqlite3.Connection) -> list[str]:
    """Names of the collections that have rows, in order."""
    return [text(name) for (name,) in driver.execute(COLLECTIONS)]


def keys(collection: str | None) -> tuple[str, tuple[str, ...]]:
    """A statement that gives the (collection, ident) of all rows, and its values."""
    test, values = _of(collection)
    return f'SELECT collection, ident FROM resources WHERE {test}', values


def count(driver: sqlite3.Connection, collection: str | None) -> dict[str, dict[str, int]]:
    """Rows by status, for each collection that has rows, or for the given one."""
    test, values = _of(collection)
    found: dict[str, dict[str, int]] = {} if collection is None else {collection: {}}
    for name, what, number in driver.execute(_COUNTS.format(test), values * 3):
        found.setdefault(text(name), {})[what] = number
    return {name: _counts(**numbers) for name, numbers in found.items()}


def _counts(total: int = 0, error: int = 0, pending: int = 0) -> dict[str, int]:
    return {'total': total, 'completed': total - error - pending, 'error': error, 'pending': pending}


def stats(driver: sqlite3.Connection, collection: str | None) -> dict[str, dict[str, Any]]:
    """`count`, and how long runs took."""
    # In Python, since SQLite would sort whole rows: 0.5 s for a million, 8 bytes each.
    taken: dict[str, array[float]] = defaultdict(lambda: array('d'))
    test, values = _of(collection)
    for name, duration in driver.execute(_DURATIONS.format(test), values):
        if not isinstance(duration, (int, float)):
            raise Altered('a duration is no number')
        taken[name].append(duration)
    return {
        name: {**counts, 'duration': _spread(taken[name])}
        for name, counts in count(driver, collection).items()
    }


def _spread(durations: array[float]) -> dict[str, float | None]:
    """Percentiles by nearest rank: each is a duration that occurred."""
    if not durations:
        return {'p50': None, 'p95': None, 'max': None}
    ranked = sorted(durations)
    return {'p50': _percentile(ranked, 50), 'p95': _percentile(ranked, 95), 'max': ranked[-1]}


def _percentile(ranked: list[float], percent: int) -> float:
    return ranked[math.ceil(len(ranked) * percent / 100) - 1]


def error_groups(driver: sqlite3.Connection, collection: str | None) -> list[ErrorGroup]:
    """Failures by cause, most frequent first; the example is the latest."""
    test, values = _of(collection)
    first = {(of, group): time for of, group, time in driver.execute(_EARLIEST.format(test), values)}
    latest = driver.execute(_LATEST.format(test), values).fetchall()
    found = [
        ErrorGroup(
            group=text(group),
            count=number,
            type=text(kind),
            pattern=mask(text(message)),
            frame=None,
            collection=text(of),
            example=text(ident),
            first=_time(first.get((of, group))),
            last=_time(last),
        )
        for group, number, kind, message, of, ident, last in latest
    ]
    return sorted(found, key=lambda each: (-each.count, each.collection, each.group))


def _time(cell: Any) -> datetime | None:
    return None if cell is None else moment(text(cell))


def _of(collection: str | None) -> tuple[str, tuple[str, ...]]:
    """A test for a WHERE clause, and its values."""
    return ('true', ()) if collection is None else ('collection = ?', (collection,))
