"""Rows as they are written: an entry's cells, and what the index itself adds to them."""

from __future__ import annotations

import time
from functools import cache
from typing import TYPE_CHECKING, Any

from ..records import COLUMNS, Entry, format_time
from ._gate import gate

if TYPE_CHECKING:
    from collections.abc import Iterable

    from ._statements import Row, Statements

Key = tuple[str, str]

_SESSION = COLUMNS.index('session')
_SEEN = COLUMNS.index('seen_mtime_ns')
_PLAIN = slice(COLUMNS.index('phase') + 1, _SESSION)  # the columns that are written as they are given


@cache
def statements() -> Statements:
    """All statements that write."""
    with gate:  # a child that is forked during an import waits for that import for ever
        from . import _statements

        return _statements.compile_all()


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
    """The cells of a row by name, as `Statements.update` takes them."""
    return {f'new_{name}': cell for name, cell in zip(COLUMNS, _row(tuple(entry), now()), strict=True)}


def _row(cells: Row, changed: str) -> Row:
    if cells[2] != 'pending':
        return (*cells[:3], None, *cells[_PLAIN], None, changed, cells[_SEEN])
    return (*cells[: _SESSION + 1], changed, cells[_SEEN])
