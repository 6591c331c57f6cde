"""Rows as they are written: an entry's cells, what the index itself adds to them, and the statements.

Each statement sets `changed`, so that reindex can tell a row that moved while it looked at the folder.
Two processes that write one row within the same microsecond would set the same text: the second then
takes the next one.
"""

from __future__ import annotations

import re
import time
from typing import TYPE_CHECKING, Any, NamedTuple

from ..records import COLUMNS, Entry, format_time

if TYPE_CHECKING:
    from collections.abc import Iterable

Key = tuple[str, str]
Row = tuple[Any, ...]

_SESSION = COLUMNS.index('session')
_SEEN = COLUMNS.index('seen_mtime_ns')
_PLAIN = slice(COLUMNS.index('phase') + 1, _SESSION)  # the columns that are written as they are given


class Statement(NamedTuple):
    """SQL text, and the names of its parameters in order."""

    text: str
    order: tuple[str, ...]

    def values(self, **given: Any) -> Row:
        """The parameters in order."""
        return tuple(given[name] for name in self.order)


def _statement(text: str) -> Statement:
    """Text with ``:name`` for each parameter; one that was prepared by position runs faster."""
    return Statement(re.sub(r':\w+', '?', text), tuple(re.findall(r':(\w+)', text)))


def _next_change(stored: str, now: str) -> str:
    """``now``, or a microsecond later where that is what is stored."""
    micros = f'(CAST(substr({now}, 21, 6) AS INTEGER) + 1) % 1000000'  # behind '2026-01-01T00:00:00.'
    return f"CASE WHEN {stored} = {now} THEN substr({now}, 1, 20) || printf('%06dZ', {micros}) ELSE {now} END"


def _upsert(over: str) -> Statement:
    """Write a row; over a stored one (``resources``) only where ``over`` says so of it."""
    cells = {name: f'excluded.{name}' for name in COLUMNS[2:]}
    cells['changed'] = _next_change('resources.changed', 'excluded.changed')
    assigned = ', '.join(f'{name} = {cell}' for name, cell in cells.items())
    return Statement(
        f'{_INSERT} ON CONFLICT (collection, ident) DO UPDATE SET {assigned} WHERE {over}', COLUMNS
    )


_INSERT = f'INSERT INTO resources ({", ".join(COLUMNS)}) VALUES ({", ".join("?" * len(COLUMNS))})'
_KEY = 'collection = :of AND ident = :named'
_TOUCHED = f'changed = {_next_change("changed", ":now")}'

ADD = Statement(f'{_INSERT} ON CONFLICT (collection, ident) DO NOTHING', COLUMNS)

QUEUE = _upsert("resources.status != 'pending' OR resources.session IS NULL")
"""Over a row that is final, or pending and nobody's."""

FINISH = _upsert(
    'coalesce(resources.attempt, 0) <= coalesce(excluded.attempt, 0)'
    ' OR resources.finished_at < excluded.started_at'  # the folder was deleted, and counting began anew
)
"""Over a row of an earlier run."""

START = _statement(
    "UPDATE resources SET phase = 'running', started_at = :at_started_at, host = :at_host, pid = :at_pid,"
    f" {_TOUCHED} WHERE {_KEY} AND status = 'pending'"
)

DISOWN = _statement(
    f'UPDATE resources SET session = NULL, {_TOUCHED}'
    f" WHERE {_KEY} AND status = 'pending' AND session IS :mine"
)

_FOUND = {name: f':new_{name}' for name in COLUMNS} | {
    # A folder does not tell whose session a pending resource belongs to.
    'session': "CASE WHEN :new_status = 'pending' THEN coalesce(:new_session, session) END",
    'changed': _next_change('changed', ':new_changed'),
}
UPDATE = _statement(
    f'UPDATE resources SET {", ".join(f"{name} = {cell}" for name, cell in _FOUND.items())}'
    f' WHERE {_KEY} AND changed = :was'
)
"""What reindex found, where the row has not moved since."""

REMOVE = _statement(f'DELETE FROM resources WHERE {_KEY} AND changed = :was')


def now() -> str:
    """The time of a change."""
    return format_time(time.time())


def pending_rows(entries: Iterable[Entry], session: str | None) -> list[Row]:
    """Rows of resources that were just asked for."""
    changed = now()
    return [
        (*cells[:2], 'pending', cells[3] or 'queued', *cells[_PLAIN], session, changed, cells[_SEEN])
        for cells in map(tuple, entries)
    ]


def final_rows(entries: Iterable[Entry]) -> list[Row]:
    """Rows of resources that are done."""
    changed = now()
    return [(*cells[:3], None, *cells[_PLAIN], None, changed, cells[_SEEN]) for cells in map(tuple, entries)]


def rows(entries: Iterable[Entry]) -> list[Row]:
    """Rows of any status; a pending one belongs to its own session."""
    changed = now()
    return [_row(tuple(entry), changed) for entry in entries]


def cells(entry: Entry) -> dict[str, Any]:
    """The cells of a row by name, as `UPDATE` takes them."""
    return {f'new_{name}': cell for name, cell in zip(COLUMNS, _row(tuple(entry), now()), strict=True)}


def _row(cells: Row, changed: str) -> Row:
    if cells[2] != 'pending':
        return (*cells[:3], None, *cells[_PLAIN], None, changed, cells[_SEEN])
    return (*cells[: _SESSION + 1], changed, cells[_SEEN])
