"""The SQL of a query, by its shape.

Imported at the first use of an index, because SQLAlchemy takes a quarter of a second.
"""

from __future__ import annotations

import json
from itertools import count
from typing import TYPE_CHECKING, Any

from sqlalchemy import (
    and_,
    bindparam,
    func,
    literal_column,
    not_,
    nulls_first,
    nulls_last,
    or_,
    select,
    text,
    tuple_,
)
from sqlalchemy.dialects import sqlite
from sqlalchemy.sql.expression import UnaryExpression
from sqlalchemy.sql.operators import custom_op

from ..json_paths import Path, is_path, parse
from ..tables import resources
from ._json_filters import NUMBERS
from ._shape import EXACT
from ._summary import COLLECTIONS

if TYPE_CHECKING:
    from collections.abc import Callable

    from sqlalchemy import Select
    from sqlalchemy.sql import ColumnElement

    from ._shape import Shape

TABLE = resources.c


def rows_text(shape: Shape) -> str:
    """Text that selects rows in order; limit and offset come last."""
    found = _filtered(select(*TABLE).order_by(*_order(shape)), shape)
    return _text(found.limit(bindparam('limit')).offset(bindparam('offset')))


def ids_text(shape: Shape) -> str:
    """Text that selects rowids in order; limit and offset come last.

    It passes over what comes before without a look at the rows, where an index holds the whole order: half
    a million in 20 ms. The index of all collections holds what is finished. The rest, which comes last,
    stands in a part of its own that is begun when the first is through: its few rows are sorted.
    """
    ids: Select[Any] = select(literal_column('rowid')).select_from(resources)
    if shape.parts == 1:
        if shape.is_led:  # SQLite would go through an index of all rows that holds every column in question
            ids = ids.add_columns(TABLE.changed)
        found = _filtered(ids.order_by(*_order(shape)), shape)
        return _text(found.limit(bindparam('limit')).offset(bindparam('offset')))
    names = TABLE.collection.op('IN')(literal_column(f'({COLLECTIONS})'))
    parts = [
        ids.where(TABLE.finished_at.is_not(None)).order_by(*_order(shape, nulls=False)),
        ids.where(names, TABLE.finished_at.is_(None)).order_by(*_ties(shape, _plain)),
    ]
    if shape.is_backward:
        parts.reverse()
    # The LIMIT tells SQLite that the order within a part matters.
    texts = [f'SELECT * FROM ({_text(_filtered(part, shape))} LIMIT -1)' for part in parts]
    return f'{" UNION ALL ".join(texts)} LIMIT ? OFFSET ?'


def chosen_text(shape: Shape) -> str:
    """Text that selects rows by their rowids, as far as they pass the filters, in order."""
    ids = literal_column('rowid').in_(bindparam('ids', expanding=True))
    text = _text(_filtered(select(*TABLE).where(ids).order_by(*_order(shape)), shape))
    return text.replace('FROM resources', 'FROM resources NOT INDEXED', 1)  # but by rowid


def _order(shape: Shape, *, nulls: bool = True) -> list[ColumnElement[Any]]:
    """By the column, NULLs last if there may be some, then by the key; or all of it backwards."""
    column = _ordered_by(shape)
    by = _plain(column) if _finds_few(shape) else column
    # SQLite puts NULLs before all else; saying so where it does by itself would cost the index.
    is_down = shape.order.startswith('-') != shape.is_backward
    ordered = by.desc() if is_down else by.asc()
    if nulls and getattr(column, 'nullable', True) and not shape.order.startswith('-'):
        ordered = nulls_first(ordered) if shape.is_backward else nulls_last(ordered)
    return [ordered, *_ties(shape)]


def _ordered_by(shape: Shape) -> ColumnElement[Any]:
    return _column(shape.order)


def _column(order: str) -> ColumnElement[Any]:
    name = order.removeprefix('-')
    return _part(parse(name)) if is_path(name) else TABLE[name]


def _ties(
    shape: Shape, how: Callable[[ColumnElement[Any]], ColumnElement[Any]] = lambda column: column
) -> list[ColumnElement[Any]]:
    column = _ordered_by(shape)
    ties = [how(tie) for tie in (TABLE.collection, TABLE.ident) if tie is not column]
    return [tie.desc() if shape.is_backward else tie.asc() for tie in ties]


def count_text(shape: Shape) -> str:
    """Text that counts rows."""
    return _text(_filtered(select(func.count()).select_from(resources), shape))


def _filtered(statement: Select[Any], shape: Shape) -> Select[Any]:
    for kind in shape.kinds:
        if kind in EXACT:
            column: ColumnElement[str] = TABLE[kind]
            if kind == 'collection' and _BY_CAUSE & set(shape.kinds):
                column = _plain(column)
            statement = statement.where(column.in_(bindparam(kind, expanding=True)))
        else:
            name, _, detail = kind.partition(' ')
            statement = statement.where(_CLAUSES[name](detail))
    return statement


def _text(statement: Select[Any]) -> str:
    return str(statement.compile(dialect=sqlite.dialect(paramstyle='qmark')))


# Their indexes are in the usual order, too.
_BY_CAUSE = frozenset({'error_type named', 'error_group', 'error_group or_type'})


def _finds_few(shape: Shape) -> bool:
    """Whether a condition of the query finds its rows sooner than the order or the collection would.

    SQLite keeps no statistics here. Left to itself it goes through a million rows in the right order
    to find three pending ones, or those of the last hour: a second, instead of milliseconds.
    """
    if {'since', 'since within', 'status pending'} & set(shape.kinds):
        return True
    return 'status error' in shape.kinds and shape.order != '-finished_at'


def _plain(column: ColumnElement[Any]) -> ColumnElement[Any]:
    """The column with a plus sign before it, which tells SQLite to use no index for it."""
    return UnaryExpression(column, operator=custom_op('+'), type_=column.type)


def _part(path: Path, function: str = 'json_extract') -> ColumnElement[Any]:
    """A part of a JSON column, written as the index on it is; the path is text of the statement."""
    quoted = path.in_sql.replace("'", "''")
    return literal_column(f"{function}(resources.{path.column}, '{quoted}')")


# Each takes the rest of the condition's kind; its parameters stand in the order of the condition's values.


def _value(name: str) -> Any:
    return bindparam(f'value_{name}')


def _status(words: str) -> ColumnElement[bool]:
    known = [TABLE.status == literal_column(f"'{word}'") for word in words.split()]
    return known[0] if len(known) == 1 else or_(literal_column('0'), *known)


def _ident(detail: str) -> ColumnElement[bool]:
    like: ColumnElement[bool] = func.hadrosaur_is_like(TABLE.ident, _value('pattern'))
    if detail == 'like':
        return like
    if detail == 'holding':
        return and_(func.instr(TABLE.ident, _value('inside')) > literal_column('0'), like)
    return and_(TABLE.ident >= _value('head'), TABLE.ident < _value('after'), like)


# Each step looks up the next type in its index, and one of its rows: as many steps as there are types.
_TYPES = text("""(
    WITH RECURSIVE each_type (name) AS (
        SELECT min(error_type) FROM resources
        UNION ALL
        SELECT (SELECT min(error_type) FROM resources WHERE error_type > name) FROM each_type
        WHERE name IS NOT NULL
    )
    SELECT name, (SELECT error_bases FROM resources WHERE error_type = name AND error_bases IS NOT NULL
                  ORDER BY finished_at DESC LIMIT 1) AS bases
    FROM each_type WHERE name IS NOT NULL
) AS known""")


def _error_type(_detail: str) -> ColumnElement[bool]:
    is_kind: ColumnElement[bool] = func.hadrosaur_is_kind(
        literal_column('known.name'), literal_column('known.bases'), _value('types')
    )
    return TABLE.error_type.in_(select(literal_column('known.name')).select_from(_TYPES).where(is_kind))


def _error_group(_detail: str) -> ColumnElement[bool]:
    by_type = TABLE.error_type.in_(bindparam('value_type', expanding=True))
    is_alone = and_(TABLE.status == literal_column("'error'"), TABLE.error_group.is_(None), by_type)
    return or_(TABLE.error_group.in_(bindparam('value_group', expanding=True)), is_alone)


def _error(_detail: str) -> ColumnElement[bool]:
    return and_(TABLE.error.is_not(None), func.hadrosaur_mentions(TABLE.error, _value('error')))


def _args(detail: str) -> ColumnElement[bool]:
    holds: ColumnElement[bool] = func.hadrosaur_holds(TABLE.args, _value('args'))
    if not detail:
        return holds
    # The cheap test stands first, as in `_ident`; either order gives the same rows.
    return and_(func.instr(TABLE.args, _value('pair')) > literal_column('0'), holds)


def _parts(detail: str) -> ColumnElement[bool]:
    """For each path one of its groups, of which all tests hold."""
    column, spec = json.loads(detail)
    numbers = count()
    return and_(
        *(
            or_(
                *(
                    and_(
                        *(_compared(column, path, operator, kind, next(numbers)) for operator, kind in group)
                    )
                    for group in groups
                )
            )
            for path, groups in spec
        )
    )


def _compared(column: str, path: str, operator: str, kind: str, number: int) -> ColumnElement[bool]:
    quoted = path.replace("'", "''")
    cell: ColumnElement[Any] = literal_column(f"json_extract(resources.{column}, '{quoted}')")
    type_of: ColumnElement[str] = literal_column(f"json_type(resources.{column}, '{quoted}')")
    value = _value(f'part_{number}')
    kinds = {'number': NUMBERS, 'json': ('object', 'array')}.get(kind, (kind,))
    is_of_type = type_of.in_([literal_column(f"'{each}'") for each in kinds])
    if operator == '!=':
        return not_(_compared(column, path, '=', kind, number))  # NULL, and no row, where nothing is there
    if kind in ('true', 'false', 'null'):
        return is_of_type
    if kind == 'json':
        return and_(is_of_type, func.hadrosaur_is_json(cell, value))
    if operator == 'glob':
        return and_(is_of_type, func.hadrosaur_is_like(cell, value))
    return and_(is_of_type, cell.op(operator)(value))


def _since(detail: str) -> ColumnElement[bool]:
    """Each alternative names the collections, so that each is answered by the index of (collection, time)."""

    def named(label: str) -> ColumnElement[bool]:
        if detail == 'within':
            return TABLE.collection.in_(bindparam(f'{label}_names', expanding=True))
        known: ColumnElement[bool] = TABLE.collection.op('IN')(literal_column(f'({COLLECTIONS})'))
        return known

    finished = and_(named('finished'), TABLE.finished_at >= _value('finished_since'))
    started = and_(TABLE.finished_at.is_(None), TABLE.started_at >= _value('started_since'))
    return or_(finished, and_(named('started'), started))


def _until(_detail: str) -> ColumnElement[bool]:
    started = and_(TABLE.finished_at.is_(None), TABLE.started_at <= _value('started_until'))
    return or_(TABLE.finished_at <= _value('finished_until'), started)


def _bound(name: str, operator: str) -> Callable[[str], ColumnElement[bool]]:
    """``operator``: ``>=`` or ``<=``."""
    return lambda _detail: TABLE[name].op(operator, is_comparison=True)(_value(f'{name}{operator}'))


def _after(name: str) -> ColumnElement[bool]:
    """What follows (value, value, collection, ident) in the order; the first test is one for an index."""
    column = _column(name)
    operator = '<' if name.startswith('-') else '>'
    follows = column.op(operator, is_comparison=True)(_value('after'))
    return and_(column.op(f'{operator}=', is_comparison=True)(_value('from')), or_(follows, _after_key()))


def _after_unknown(name: str) -> ColumnElement[bool]:
    return and_(_column(name).is_(None), _after_key())


def _after_key() -> ColumnElement[bool]:
    key: ColumnElement[bool] = tuple_(TABLE.collection, TABLE.ident) > tuple_(
        _value('after_collection'), _value('after_ident')
    )
    return key


def _stale(number: str) -> ColumnElement[bool]:
    other = [
        and_(
            TABLE.collection == _value(f'collection_{each}'),
            TABLE.version.is_distinct_from(_value(f'version_{each}')),
        )
        for each in range(int(number))
    ]
    return and_(TABLE.status != literal_column("'pending'"), or_(literal_column('0'), *other))


def _fresh(number: str) -> ColumnElement[bool]:
    return func.not_(_stale(number))


_CLAUSES: dict[str, Callable[[str], ColumnElement[bool]]] = {
    'status': _status,
    'ident': _ident,
    'error': _error,
    'error_type': _error_type,
    'error_group': _error_group,
    'args': _args,
    'parts': _parts,
    'since': _since,
    'until': _until,
    'min_duration': _bound('duration', '>='),
    'max_duration': _bound('duration', '<='),
    'min_memory': _bound('max_rss', '>='),
    'max_memory': _bound('max_rss', '<='),
    'after': _after,
    'after_unknown': _after_unknown,
    'stale': _stale,
    'fresh': _fresh,
}
