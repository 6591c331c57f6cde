"""What a query gives: a sequence of entries that is read when it is looked at."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import chain
from typing import TYPE_CHECKING, Any, overload

from ..records import Entry
from . import _summary
from ._entries import entries
from ._finding import conditions, count_text, newest_text, order, rows_text
from ._shape import Shape

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Mapping

    from ._connections import Connections

WINDOW = 1000
"""Rows that are read at once and kept: half a megabyte, 5 ms; a page of anything a person looks at."""

DEPTH = 10_000
"""How far down the last rows of everything are looked up in each collection; further, all are sorted."""

SHOWN_IN_NOTEBOOK = 20
"""Rows that a notebook shows of a query."""


class Query(Sequence[Entry]):
    """Rows of the index, as a sequence: ``len``, indexing, slicing, and iteration that streams.

    Nothing is read until it is asked for. Then up to 1 000 neighbouring rows are read together and
    kept, so a query that finds no more than that is read once and stays as it was; ask again for news.
    Iterating over more reads them as they are at one moment, and holds a thousand at a time. As long as
    that lasts SQLite cannot empty its -wal, which grows by what is written meanwhile: where each of
    many rows is followed by long work, take the idents first, ``[entry.ident for entry in query]``.
    """

    def __init__(
        self,
        connections: Connections,
        filters: Mapping[str, Any],
        *,
        order_by: str | None = None,
        limit: int | None = None,
        offset: int = 0,
    ) -> None:
        found = conditions(filters)
        self._connections = connections
        self._shape = Shape(tuple(condition.kind for condition in found), order(order_by))
        self._numbers = tuple(chain.from_iterable(condition.lists for condition in found))
        self._values = tuple(chain.from_iterable(condition.values for condition in found))
        self._limit = _natural('limit', limit)
        self._offset = _natural('offset', offset) or 0
        self._asked = {**filters, 'order_by': order_by, 'limit': limit, 'offset': offset or None}
        self._length: int | None = None
        self._window: tuple[int, list[Entry]] | None = None  # where it begins, and its rows

    def __len__(self) -> int:
        if self._length is None and not self._read_window(0):
            self._length = 0
        if self._length is None:
            self._length = self._count()
        return self._length

    def __bool__(self) -> bool:
        return bool(self._read_window(0))

    @overload
    def __getitem__(self, index: int) -> Entry: ...
    @overload
    def __getitem__(self, index: slice) -> list[Entry]: ...
    def __getitem__(self, index: int | slice) -> Entry | list[Entry]:
        if isinstance(index, slice):
            return self._slice(index)
        position = index if index >= 0 else index + len(self)
        if position >= 0:
            start = position - position % WINDOW
            rows = self._read_window(start)
            if position - start < len(rows):
                return rows[position - start]
        raise IndexError(f'there is no row {index}')

    def __iter__(self) -> Iterator[Entry]:
        rows = self._read_window(0)
        if len(rows) < WINDOW:
            return iter(rows)
        return self._stream()

    def __repr__(self) -> str:
        asked = ', '.join(f'{name}={value!r}' for name, value in self._asked.items() if value is not None)
        return f'Query({asked})'

    def first(self) -> Entry | None:
        """The first row, or None where there is none."""
        return next(iter(self._read_window(0)), None)

    def idents(self) -> list[str]:
        """The idents of all rows, in order: what `fetch_many` takes."""
        return [entry.ident for entry in self]

    def to_pandas(self) -> Any:
        """All rows as a `pandas.DataFrame` (extra ``pandas``): nullable dtypes, UTC timestamps."""
        from ..frames import to_pandas

        return to_pandas(self)

    def to_polars(self) -> Any:
        """All rows as a `polars.DataFrame` (extra ``polars``): UTC timestamps, args as JSON text."""
        from ..frames import to_polars

        return to_polars(self)

    def _repr_html_(self) -> str:
        """What a notebook shows: the first rows, and how many there are."""
        from ..shown import html_table

        names = ('collection', 'ident', 'status', 'finished_at', 'duration', 'error_type', 'error')
        rows = [[entry.raw(name) for name in names] for entry in self[:SHOWN_IN_NOTEBOOK]]
        return html_table(names, rows, f'{len(self)} resources')

    def _stream(self) -> Iterator[Entry]:
        for rows in self._connections.stream(*self._statement(0, self._limit), entries):
            yield from rows

    def _slice(self, index: slice) -> list[Entry]:
        if self._window is not None and self._window[0] == 0 and len(self._window[1]) < WINDOW:
            return self._window[1][index]  # all there is
        bounds = (index.start, index.stop)
        if (index.step or 1) > 0 and all(bound is None or bound >= 0 for bound in bounds):
            start, stop = index.start or 0, index.stop
        else:  # counted from the end
            picked = range(len(self))[index]
            if not picked:
                return []
            start, stop = min(picked), max(picked) + 1
        rows = self._read(start, None if stop is None else max(0, stop - start))
        return rows[:: index.step]

    def _read_window(self, start: int) -> list[Entry]:
        """The rows from ``start``, which is a multiple of WINDOW; fewer than WINDOW at the end."""
        if self._window is None or self._window[0] != start:
            rows = self._read(start, WINDOW)
            self._window = (start, rows)
            if 0 < len(rows) < WINDOW or (not rows and not start):
                self._length = start + len(rows)
        return self._window[1]

    def _read(self, start: int, number: int | None) -> list[Entry]:
        """``number`` rows from ``start``, or all."""
        statement = self._statement(start, self._within(start, number))
        return self._connections.read(lambda driver: entries(driver.execute(*statement).fetchall()))

    def _within(self, start: int, number: int | None) -> int | None:
        if self._limit is None:
            return number
        left = max(0, self._limit - start)
        return left if number is None else min(left, number)

    def _statement(self, start: int, number: int | None) -> tuple[str, tuple[Any, ...]]:
        first = self._offset + start
        if number is not None and self._shape.is_of_the_newest and first + number <= DEPTH:
            text = newest_text(self._shape, self._numbers)
            return text, (*self._values, first + number, number, first)
        text = rows_text(self._shape, self._numbers)
        return text, (*self._values, -1 if number is None else number, first)

    def _count(self) -> int:
        number = self._connections.read(self._counted)
        number = max(0, number - self._offset)
        return number if self._limit is None else min(number, self._limit)

    def _counted(self, driver: sqlite3.Connection) -> int:
        """How many rows pass the filters."""
        names, words = None, ['total']
        for kind in self._shape.kinds:
            if kind == 'collection':
                names = self._values  # which are all there are: a status is part of its kind
            elif kind.startswith('status '):
                words = kind.split()[1:]
            else:
                break
        else:
            if names is None or len(names) == 1:
                found = _summary.count(driver, names[0] if names else None).values()
                return sum(counts[word] for counts in found for word in words)
        number: int
        (number,) = driver.execute(count_text(self._shape, self._numbers), self._values).fetchone()
        return number


def _natural(name: str, value: int | None) -> int | None:
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int):
        raise TypeError(f'{name} takes a whole number, not {value!r}')
    if value < 0:
        raise ValueError(f'{name} cannot be negative: {value}')
    return value
