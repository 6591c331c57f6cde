"""Statements that write rows, compiled once from the Core table to SQL text.

Imported at the first use of an index, because SQLAlchemy takes a quarter of a second.

Each statement sets `changed`, so that reindex can tell a row that moved while it looked at the folder.
Two processes that write one row within the same microsecond would set the same text: the second then
takes the next one.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

from sqlalchemy import Integer, and_, bindparam, case, cast, delete, func, or_, update
from sqlalchemy.dialects import sqlite

from ..records import COLUMNS
from ..schema import resources

if TYPE_CHECKING:
    from collections.abc import Iterable

    from sqlalchemy.sql import ColumnElement
    from sqlalchemy.sql.base import Executable

Row = tuple[Any, ...]

BEGUN = ('started_at', 'host', 'pid')  # what is known of a run once it has begun


class Statement(NamedTuple):
    """SQL text, the names of its parameters in order, and the values of those that never change."""

    text: str
    order: tuple[str, ...]
    constants: dict[str, Any]
    tail: tuple[Any, ...]  # of an INSERT: what never changes, after the cells of the row

    def values(self, **given: Any) -> Row:
        """The parameters in order."""
        named = {**self.constants, **given}
        return tuple(named[name] for name in self.order)

    def rows(self, rows: Iterable[Row]) -> list[Row]:
        """The parameters of an INSERT: the cells of each row, then what never changes."""
        return [row + self.tail for row in rows]


class Statements(NamedTuple):
    """All that is ever done to the table."""

    queue: Statement
    finish: Statement
    add: Statement
    update: Statement
    start: Statement
    disown: Statement
    remove: Statement


def compile_all() -> Statements:
    """All statements that write."""
    table = resources.c
    key = and_(table.collection == bindparam('of'), table.ident == bindparam('named'))
    unmoved = table.changed == bindparam('was')
    touched = {'changed': _next_change(table.changed, bindparam('now'))}
    start = update(resources).where(key, table.status == 'pending')
    disown = start.where(table.session.is_not_distinct_from(bindparam('mine')))
    return Statements(
        queue=_upsert('free'),
        finish=_upsert('newer'),
        add=_upsert('never'),
        update=_compile(update(resources).where(key, unmoved).values(_merged())),
        start=_compile(
            start.values(phase='running', **{name: bindparam(f'at_{name}') for name in BEGUN}, **touched)
        ),
        disown=_compile(disown.values(session=None, **touched)),
        remove=_compile(delete(resources).where(key, unmoved)),
    )


def _compile(statement: Executable) -> Statement:
    compiled: Any = statement.compile(dialect=sqlite.dialect(paramstyle='qmark'))  # type: ignore[attr-defined]
    order, constants = tuple(compiled.positiontup or ()), dict(compiled.params)
    return Statement(
        str(compiled), order, constants, tuple(constants[name] for name in order[len(COLUMNS) :])
    )


def _upsert(over: str) -> Statement:
    """Write a row; over a stored one ``never``, if it is ``free`` or if ours is ``newer``.

    Free is a row that is final, or pending and nobody's.
    """
    statement = sqlite.insert(resources)
    key = ['collection', 'ident']
    if over == 'never':
        return _compile(statement.on_conflict_do_nothing(index_elements=key))
    stored, given = resources.c, statement.excluded
    conditions = {
        'free': or_(stored.status != 'pending', stored.session.is_(None)),
        'newer': or_(
            func.coalesce(stored.attempt, 0) <= func.coalesce(given.attempt, 0),
            stored.finished_at < given.started_at,  # somebody deleted the folder, and counting began anew
        ),
    }
    cells: dict[str, Any] = {name: given[name] for name in COLUMNS if name not in key}
    cells['changed'] = _next_change(stored.changed, given.changed)
    return _compile(statement.on_conflict_do_update(index_elements=key, set_=cells, where=conditions[over]))


def _merged() -> dict[str, Any]:
    """What reindex found; a folder does not tell whose session a pending resource belongs to."""
    cells: dict[str, Any] = {name: bindparam(f'new_{name}') for name in COLUMNS}
    owner: ColumnElement[str] = func.coalesce(bindparam('new_session'), resources.c.session)
    cells['session'] = case((bindparam('new_status') == 'pending', owner))
    cells['changed'] = _next_change(resources.c.changed, bindparam('new_changed'))
    return cells


def _next_change(stored: ColumnElement[str], now: ColumnElement[str]) -> ColumnElement[str]:
    """``now``, or a microsecond later where that is what is stored."""
    seconds = len('2026-01-01T00:00:00.')
    micros = (cast(func.substr(now, seconds + 1, 6), Integer) + 1) % 1_000_000
    later = func.substr(now, 1, seconds).op('||')(func.printf('%06dZ', micros))
    return case((stored == now, later), else_=now)
