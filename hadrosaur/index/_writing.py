"""Statements that write rows, compiled once from the Core table to SQL text.

Each sets `changed`, so that reindex can tell a row that moved while it looked at the folder. Two
processes that write one row within the same microsecond would set the same text: the second then
takes the next one.
"""

from __future__ import annotations

import time
from functools import cache
from typing import TYPE_CHECKING, Any, NamedTuple

from ..records import COLUMNS, Entry, format_time

if TYPE_CHECKING:
    from collections.abc import Iterable

    from sqlalchemy.sql import ColumnElement
    from sqlalchemy.sql.base import Executable

Row = tuple[Any, ...]
Key = tuple[str, str]

_SESSION = COLUMNS.index('session')
_SEEN = COLUMNS.index('seen_mtime_ns')
_PLAIN = slice(COLUMNS.index('phase') + 1, _SESSION)  # the columns that are written as they are given


class Statement(NamedTuple):
    """SQL text, the names of its parameters in order, and the values of those that never change."""

    text: str
    order: tuple[str, ...]
    constants: dict[str, Any]

    def values(self, **given: Any) -> Row:
        """The parameters in order."""
        named = {**self.constants, **given}
        return tuple(named[name] for name in self.order)

    def rows(self, rows: Iterable[Row]) -> list[Row]:
        """The parameters of an INSERT: the cells of each row, then what never changes."""
        tail = tuple(self.constants[name] for name in self.order[len(COLUMNS) :])
        return [row + tail for row in rows]


class Statements(NamedTuple):
    """All that is ever done to the table."""

    queue: Statement
    finish: Statement
    replace: Statement
    add: Statement
    update: Statement
    start: Statement
    disown: Statement
    forget: Statement
    remove: Statement


@cache
def statements() -> Statements:
    """All statements that write."""
    from sqlalchemy import and_, bindparam, delete, update

    from ..schema import resources

    table = resources.c
    key = and_(table.collection == bindparam('of'), table.ident == bindparam('named'))
    unmoved = table.changed == bindparam('was')
    pending = table.status == 'pending'
    touched = {'changed': _next_change(table.changed, bindparam('now'))}
    start = update(resources).where(key, pending)
    disown = start.where(table.session.is_not_distinct_from(bindparam('mine')))
    return Statements(
        queue=_upsert('free'),
        finish=_upsert('newer'),
        replace=_upsert('always'),
        add=_upsert('never'),
        update=_compile(update(resources).where(key, unmoved).values(_merged())),
        start=_compile(start.values(phase='running', started_at=bindparam('at'), **touched)),
        disown=_compile(disown.values(session=None, **touched)),
        forget=_compile(delete(resources).where(key)),
        remove=_compile(delete(resources).where(key, unmoved)),
    )


def _compile(statement: Executable) -> Statement:
    from sqlalchemy.dialects import sqlite

    compiled: Any = statement.compile(dialect=sqlite.dialect(paramstyle='qmark'))  # type: ignore[attr-defined]
    return Statement(str(compiled), tuple(compiled.positiontup or ()), dict(compiled.params))


def _upsert(over: str) -> Statement:
    """Write a row; over a stored one ``always``, ``never``, if it is ``free`` or if ours is ``newer``."""
    from sqlalchemy import func, or_
    from sqlalchemy.dialects.sqlite import insert

    from ..schema import resources

    statement = insert(resources)
    key = ['collection', 'ident']
    if over == 'never':
        return _compile(statement.on_conflict_do_nothing(index_elements=key))
    stored, given = resources.c, statement.excluded
    conditions = {
        'always': None,
        'free': or_(stored.status != 'pending', stored.session.is_(None)),
        'newer': func.coalesce(stored.attempt, 0) <= func.coalesce(given.attempt, 0),
    }
    cells: dict[str, Any] = {name: given[name] for name in COLUMNS if name not in key}
    cells['changed'] = _next_change(stored.changed, given.changed)
    return _compile(statement.on_conflict_do_update(index_elements=key, set_=cells, where=conditions[over]))


def _merged() -> dict[str, Any]:
    """What reindex found; a folder does not tell whose session a pending resource belongs to."""
    from sqlalchemy import bindparam, case, func

    from ..schema import resources

    cells: dict[str, Any] = {name: bindparam(f'new_{name}') for name in COLUMNS}
    owner: ColumnElement[str] = func.coalesce(bindparam('new_session'), resources.c.session)
    cells['session'] = case((bindparam('new_status') == 'pending', owner))
    cells['changed'] = _next_change(resources.c.changed, bindparam('new_changed'))
    return cells


def _next_change(stored: ColumnElement[str], now: ColumnElement[str]) -> ColumnElement[str]:
    """``now``, or a microsecond later where that is what is stored."""
    from sqlalchemy import Integer, case, cast, func

    seconds = len('2026-01-01T00:00:00.')
    micros = (cast(func.substr(now, seconds + 1, 6), Integer) + 1) % 1_000_000
    later = func.substr(now, 1, seconds).op('||')(func.printf('%06dZ', micros))
    return case((stored == now, later), else_=now)


# --- rows ------------------------------------------------------------------------------------------


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


def rows(entries: Iterable[Entry], session: str | None) -> list[Row]:
    """Rows of any status; a pending one belongs to its own session, or to the given one."""
    changed = now()
    return [_row(tuple(entry), session, changed) for entry in entries]


def cells(entry: Entry) -> dict[str, Any]:
    """The cells of a row by name, as `Statements.update` takes them."""
    return {f'new_{name}': cell for name, cell in zip(COLUMNS, _row(tuple(entry), None, now()), strict=True)}


def _row(cells: Row, session: str | None, changed: str) -> Row:
    if cells[2] != 'pending':
        return (*cells[:3], None, *cells[_PLAIN], None, changed, cells[_SEEN])
    return (*cells[:_SESSION], cells[_SESSION] or session, changed, cells[_SEEN])
