"""The statements of a query, made of conditions and an order.

Loaded with the first query, since SQLAlchemy takes a quarter of a second. Each test is an expression of
SQLAlchemy that is compiled once, with a question mark where a value belongs: values never stand in the text.
Only the three status words are spelled out, since SQLite uses a partial index only where it can see that
its condition holds; and the paths of parts of args and results, as in the indexes on them.
"""

from __future__ import annotations

from difflib import get_close_matches
from functools import lru_cache
from itertools import chain
from typing import TYPE_CHECKING, Any, NamedTuple

from sqlalchemy import and_, literal_column, or_, tuple_
from sqlalchemy.dialects import sqlite

from ..json_paths import is_path, parse
from ..records import COLUMNS
from ..tables import resources
from ._summary import COLLECTIONS
from ._validate import ALL

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sqlalchemy.sql import ColumnElement

ROW = resources.c
ANY: ColumnElement[Any] = literal_column('?')


class Condition(NamedTuple):
    """One test that a row must pass."""

    text: str  # of SQL, in parentheses
    values: tuple[Any, ...] = ()
    leads: str = ''  # by what an index finds the rows: collection, ident, cause, since, pending or error
    asked_once: bool = False  # it is one question about all rows: those that were found are not asked again


def compiled(test: ColumnElement[Any]) -> str:
    """The text of an expression, in parentheses."""
    return f'({test.compile(dialect=sqlite.dialect())})'


def is_in(column: ColumnElement[Any], text: str) -> ColumnElement[bool]:
    """A test for one of a list, or of what a SELECT gives."""
    return column.op('IN', is_comparison=True)(literal_column(f'({text})'))


def marks(number: int) -> str:
    """Places for so many values."""
    return ', '.join('?' * number)


def json_part(column: str, path: str, function: str = 'json_extract') -> ColumnElement[Any]:
    """A part of a JSON column, written as the index on it is."""
    quoted = path.replace("'", "''")
    return literal_column(f"{function}(resources.{column}, '{quoted}')")


def _column(order: str) -> ColumnElement[Any]:
    name = order.removeprefix('-')
    if not is_path(name):
        return ROW[name]
    path = parse(name)
    return json_part(path.column, path.in_sql)


def checked_order(column: str | None) -> str:
    """The given order, if there is such a column.

    Raises:
        ValueError: There is none.
    """
    column = column or 'collection'
    if not isinstance(column, str):
        raise TypeError(f'order_by takes the name of a column, not {column!r}')
    name = column.removeprefix('-')
    if is_path(name):
        parse(name)
    elif name not in COLUMNS:
        part = f'; a part of results is written result.{name}' if name.isidentifier() else ''
        raise ValueError(f'unknown column {name!r}{meant(name, COLUMNS)}{part}')
    return column


def meant(word: str, choices: tuple[str, ...]) -> str:
    """The end of a message on an unknown word: the nearest one there is, or all of them."""
    close = get_close_matches(word.lower(), choices, n=1)
    return f': did you mean {close[0]!r}?' if close else f'; there is {", ".join(choices)}'


def after(order: str, row: Any) -> Condition:
    """The rows that follow one in an order and are alike in this: whether the column is known."""
    value, *key = row
    if len(key) != 2 or not all(isinstance(each, str) for each in key):
        raise ValueError(f'after takes (value, collection, ident) of the last row, not {row!r}')
    values = () if value is None else (value, value)
    return Condition(_follows(order, value is None), (*values, *key))


@lru_cache(maxsize=64)
def _follows(order: str, is_unknown: bool) -> str:
    """What comes after (value, value, collection, ident) in an order; the first test is one for an index."""
    column, sign = _column(order), '<' if order.startswith('-') else '>'
    follows_key = tuple_(ROW.collection, ROW.ident) > tuple_(ANY, ANY)
    if is_unknown:
        return compiled(and_(column.is_(None), follows_key))
    follows = column.op(sign, is_comparison=True)(ANY)
    return compiled(and_(column.op(f'{sign}=', is_comparison=True)(ANY), or_(follows, follows_key)))


@lru_cache(maxsize=256)
def _by_column(order: str, is_backward: bool, is_plain: bool, nulls: bool) -> str:
    """By the column, NULLs last if there may be some; or backwards. A plus sign keeps indexes out."""
    is_down, column = order.startswith('-'), _column(order)
    text = f'{"+" if is_plain else ""}{column} {"DESC" if is_down != is_backward else "ASC"}'
    # SQLite puts NULLs before all else; saying so where it does by itself would cost the index.
    if nulls and getattr(column, 'nullable', True) and not is_down:
        text += ' NULLS FIRST' if is_backward else ' NULLS LAST'
    return text


class Statements:
    """The statements of a query, each as its text and its values.

    Attributes:
        parts: Of how many parts the text is that finds rows: the finished ones by their index, and the rest.
    """

    def __init__(self, asked: Sequence[Condition], order: str, *, is_backward: bool = False) -> None:
        self._asked = asked
        self._order = order
        self._is_backward = is_backward
        self._tests = [condition.text for condition in asked]
        self._values = tuple(chain.from_iterable(condition.values for condition in asked))
        leads = {condition.leads for condition in asked} - {''}
        self.parts = 2 if order.endswith('finished_at') and not leads else 1
        # An index finds the rows, and holds no more than that.
        others = leads - {'collection'}
        is_whole = 'collection' in leads and order == '-finished_at'
        self._is_led = bool(others) and not (others == {'error'} and is_whole)
        # A condition finds its rows sooner than the order or the collection would. SQLite keeps no statistics
        # here. Left to itself it goes through a million rows in the right order to find three pending ones,
        # or those of the last hour: a second, instead of milliseconds.
        self._finds_few = bool(leads & {'since', 'pending'}) or ('error' in leads and order != '-finished_at')

    def backward(self) -> Statements:
        """The same from the last row to the first."""
        return Statements(self._asked, self._order, is_backward=True)

    def rows(self, limit: int, offset: int) -> tuple[str, tuple[Any, ...]]:
        """Selects rows in order; a limit of -1 is none."""
        text = f'{ALL}{self._where()} ORDER BY {self._ordered()} LIMIT ? OFFSET ?'
        return text, (*self._values, limit, offset)

    def ids(self, limit: int, offset: int) -> tuple[str, tuple[Any, ...]]:
        """Selects rowids in order.

        It passes over what comes before without a look at the rows, where an index holds the whole order:
        half a million in 20 ms. The index of all collections holds what is finished. The rest, which comes
        last, stands in a part of its own that is begun when the first is through: its few rows are sorted.
        """
        if self.parts == 1:
            # Else SQLite would go through an index of all rows that holds every column in question.
            columns = 'rowid, changed' if self._is_led else 'rowid'
            text = f'SELECT {columns} FROM resources{self._where()} ORDER BY {self._ordered()}'
        else:
            parts = [
                f'{self._where("finished_at IS NOT NULL")} ORDER BY {self._ordered(nulls=False)}',
                f'{self._where(f"collection IN ({COLLECTIONS})", "finished_at IS NULL")}'
                f' ORDER BY {self._key("+")}',
            ]
            if self._is_backward:
                parts.reverse()
            # The LIMIT tells SQLite that the order within a part matters.
            texts = [f'SELECT * FROM (SELECT rowid FROM resources{part} LIMIT -1)' for part in parts]
            text = ' UNION ALL '.join(texts)
        return f'{text} LIMIT ? OFFSET ?', (*self._values * self.parts, limit, offset)

    def chosen(self, ids: Sequence[int]) -> tuple[str, tuple[Any, ...]]:
        """Selects rows by their rowids, as far as they pass the filters, in order."""
        again = [condition for condition in self._asked if not condition.asked_once]
        tests = ' AND '.join([f'rowid IN ({marks(len(ids))})', *(condition.text for condition in again)])
        values = chain.from_iterable(condition.values for condition in again)
        return f'{ALL} NOT INDEXED WHERE {tests} ORDER BY {self._ordered()}', (*ids, *values)

    def count(self) -> tuple[str, tuple[Any, ...]]:
        """Counts rows."""
        return f'SELECT count(*) FROM resources{self._where()}', self._values

    def _where(self, *first: str) -> str:
        tests = ' AND '.join((*first, *self._tests))
        return f' WHERE {tests}' if tests else ''

    def _ordered(self, *, nulls: bool = True) -> str:
        return f'{_by_column(self._order, self._is_backward, self._finds_few, nulls)}, {self._key()}'

    def _key(self, sign: str = '') -> str:
        direction = 'DESC' if self._is_backward else 'ASC'
        names = (name for name in ('collection', 'ident') if name != self._order.removeprefix('-'))
        return ', '.join(f'{sign}{name} {direction}' for name in names)
