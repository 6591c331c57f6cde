"""Which resources are stale: one recursive statement, in the tables `resources` and `uses`.

What makes them so stands in dependencies.py, which tells it of one resource from its folder.
"""

from __future__ import annotations

import json
import time
from typing import TYPE_CHECKING

from .. import inputs
from ..records import format_time

if TYPE_CHECKING:
    from collections.abc import Mapping

    from ..records import Facts

# The one parameter is what `declared` gives. UNION keeps a resource once, so that rings come to an end.
_STALE = """
WITH RECURSIVE
declared (name, version, earliest, latest) AS (
    SELECT key, json_extract(value, '$[0]'), json_extract(value, '$[1]'), json_extract(value, '$[2]')
    FROM json_each({declared})
),
stale (collection, ident) AS (
    SELECT r.collection, r.ident
    FROM declared AS d CROSS JOIN resources AS r ON r.collection = d.name
    WHERE r.status <> 'pending'
      AND (d.version IS NOT NULL AND r.version IS NOT d.version
           OR d.earliest IS NOT NULL
              AND (r.finished_at IS NULL OR r.finished_at < d.earliest OR r.finished_at > d.latest))
    UNION
    SELECT collection, ident FROM resources
    WHERE inputs IS NOT NULL AND status <> 'pending' AND hadrosaur_is_changed(inputs)
    UNION
    SELECT u.collection, u.ident
    FROM uses AS u LEFT JOIN resources AS r ON r.collection = u.used_collection AND r.ident = u.used_ident
    WHERE r.ident IS NULL OR r.status = 'pending' OR coalesce(r.run, '') <> u.run
    UNION
    SELECT u.collection, u.ident
    FROM stale AS s JOIN uses AS u ON u.used_collection = s.collection AND u.used_ident = s.ident
)
"""

_KEYS = f'{_STALE.format(declared="?")} SELECT collection, ident FROM stale'
IS_STALE = f'((resources.collection, resources.ident) IN ({_KEYS}))'
IS_FRESH = f'((resources.collection, resources.ident) NOT IN ({_KEYS}))'
"""Tests of a row."""

EDGES = f"""{_STALE.format(declared='?')}
SELECT s.collection, s.ident, t.collection, t.ident
FROM stale AS s
LEFT JOIN uses AS u ON u.collection = s.collection AND u.ident = s.ident
LEFT JOIN stale AS t ON t.collection = u.used_collection AND t.ident = u.used_ident"""
"""Each stale resource, with each stale one that it used, or NULL for others."""

USED_BY = """
SELECT u.collection, u.ident, u.run, r.args_hash
FROM uses AS u LEFT JOIN resources AS r ON r.collection = u.collection AND r.ident = u.ident
WHERE u.used_collection = ? AND u.used_ident = ? ORDER BY 1, 2, 3"""
"""What used a resource, with the run that it was given."""

UNSEEN = """
SELECT DISTINCT u.used_collection, u.used_ident
FROM uses AS u LEFT JOIN resources AS r ON r.collection = u.used_collection AND r.ident = u.used_ident
WHERE r.ident IS NULL OR (r.run IS NULL AND r.status <> 'pending')"""
"""What was used, and has no row that tells its run."""


def declared(facts: Mapping[str, Facts]) -> str:
    """For the statements: of each collection its version, and when its resources must be finished."""
    now = time.time()
    cells: dict[str, list[str | None]] = {}
    for name, each in facts.items():
        seconds = each.expires_after
        bounds = (None, None) if seconds is None else (_time(now - seconds), _time(now + seconds))
        if each.version is not None or seconds is not None:
            cells[name] = [each.version, *bounds]
    return json.dumps(cells)


def _time(seconds: float) -> str:
    try:
        return format_time(min(max(seconds, 0.0), 253402300799.0))
    except (ValueError, OverflowError):
        return format_time(0.0)


def is_changed(lines: str) -> bool:
    """For SQLite: is one of these files other than it was? What is no list of files is none of ours."""
    try:
        return inputs.changed(json.loads(lines)) is not None
    except (ValueError, TypeError, RecursionError):
        return False
