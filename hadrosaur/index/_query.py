"""What a query gives: a sequence of entries that is read when it is looked at."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from itertools import chain, islice
from typing import TYPE_CHECKING, Any, overload

from ..errors import warn
from ..json_paths import MISSING
from ..records import Entry
from . import _summary
from ._connection import transaction
from ._entries import entries
from ._filters import after as follows
from ._filters import chosen_text, conditions, count_text, ids_text, order, rows_text
from ._json_filters import asked_parts, left_out, why_nothing
from ._shape import Shape

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Mapping

    from ._pool import ConnectionPool

WINDOW = 1000
"""Rows that are read at once and kept: half a megabyte, 5 ms; a page of anything a person looks at."""

SHOWN_IN_NOTEBOOK = 20
"""Rows that a notebook shows of a query."""


class Query(Sequence[Entry]):
    """Rows of the index, as a sequence: ``len``, indexing, slicing, and iteration that streams.

    Nothing is read until it is asked for. Then up to 1 000 neighbouring rows are read together and
    kept, so a query that finds no more than that is read once and stays as it was; ask again for news.
    Rows anywhere are found in milliseconds, among a million too: ``query[500_000]``, ``query[-1]``,
    ``reversed(query)``.

    Iterating over more reads the first 1 000, then notes which others there are (8 bytes each), and reads
    these a thousand at a time. A row is given once, as it is when it is read; not if it was removed by then,
    or passes the filters no more. What is written meanwhile may come later than its place. Nothing is kept
    from SQLite, however long the work between two rows takes.
    """

    def __init__(
        self,
        connections: ConnectionPool,
        filters: Mapping[str, Any],
        *,
        order_by: str | None = None,
        limit: int | None = None,
        offset: int = 0,
        after: tuple[Any, str, str] | None = None,
    ) -> None:
        found = conditions(filters)
        if after is not None:
            found.append(follows(order_by, after))
        self._connections = connections
        self._shape = Shape(tuple(condition.kind for condition in found), order(order_by))
        self._numbers = tuple(chain.from_iterable(condition.lists for condition in found))
        self._values = tuple(chain.from_iterable(condition.values for condition in found))
        self._limit = _natural('limit', limit)
        self._offset = _natural('offset', offset) or 0
        self._asked = {
            **filters,
            'order_by': order_by,
            'limit': limit,
            'offset': offset or None,
            'after': after,
        }
        self.named: Mapping[str, str] = {}  # parts by the names that collections declare for them
        self._read_result: Callable[[Entry], Any] | None = None  # from the disk
        self._is_explained = not any(asked_parts(filters, order_by))
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
        if index < 0 and self._is_all and not self._is_read:
            return self._from_the_end(-index - 1)
        position = index if index >= 0 else index + len(self)
        if position >= 0:
            start = position - position % WINDOW
            rows = self._read_window(start)
            if position - start < len(rows):
                return rows[position - start]
        raise IndexError(f'there is no row {index}')

    def __iter__(self) -> Iterator[Entry]:
        rows = self._read_window(0)
        return iter(rows) if self._is_read else self._stream(rows)

    def __reversed__(self) -> Iterator[Entry]:
        rows = self._read_window(0)
        if self._is_read:
            return reversed(rows)
        return self._stream(self._read_window(~0) if self._is_all else [], is_backward=True)

    def __repr__(self) -> str:
        asked = ', '.join(f'{name}={value!r}' for name, value in self._asked.items() if value is not None)
        return f'Query({asked})'

    def first(self) -> Entry | None:
        """The first row, or None where there is none."""
        return next(iter(self._read_window(0)), None)

    def idents(self) -> list[str]:
        """The idents of all rows, in order: what `fetch_many` takes."""
        return [entry.ident for entry in self]

    def cells(self, names: Sequence[str], most: int) -> list[tuple[Any, ...]]:
        """Some columns of the first rows, as SQLite keeps them: for a chart, which needs no more of many."""
        if self._offset or self._shape.parts != 1:
            return [tuple(map(entry.raw, names)) for entry in self[:most]]
        text = f'SELECT {", ".join(names)} FROM ({rows_text(self._shape, self._numbers)})'
        values = (*self._values, most if self._limit is None else min(most, self._limit), 0)
        return self._connections.read(lambda driver: driver.execute(text, values).fetchall())

    def to_pandas(self, results: bool | Iterable[str] = False) -> Any:
        """All rows as a `pandas.DataFrame` (extra ``pandas``): nullable dtypes, UTC timestamps.

        Args:
            results: True: a column for each item of args and results, such as ``args.C`` and
                ``result.score``, one level deep; deeper values are JSON text. Some names choose: keys of
                results, parts such as ``'args.C'`` and ``'result.model.depth'``, and names that the
                collection declares (``columns=``). Results too long for the index are read from the disk.
        """
        from ..dataframes import to_pandas

        return to_pandas(self, results, self.result_of, self.named)

    def to_polars(self, results: bool | Iterable[str] = False) -> Any:
        """All rows as a `polars.DataFrame` (extra ``polars``): UTC timestamps, args as JSON text.

        ``results`` is as for `to_pandas`.
        """
        from ..dataframes import to_polars

        return to_polars(self, results, self.result_of, self.named)

    @property
    def limit(self) -> int | None:
        """How many rows were asked for at most."""
        return self._limit

    def result_of(self, entry: Entry) -> Any:
        """The result of one of the rows, `MISSING` where it has none; from the disk where it is long."""
        if entry.raw('result') is not None:
            return entry.result
        read = self._read_result
        return MISSING if read is None or entry.status != 'completed' else read(entry)

    def _repr_html_(self) -> str:
        """What a notebook shows: the first rows, and how many there are."""
        from ..sanitize import html_table

        names = ('collection', 'ident', 'status', 'finished_at', 'duration', 'error_type', 'error')
        rows = [[entry.raw(name) for name in names] for entry in self[:SHOWN_IN_NOTEBOOK]]
        return html_table(names, rows, f'{len(self)} resources')

    @property
    def _is_read(self) -> bool:
        """Are all rows known?"""
        return self._window is not None and self._window[0] == 0 and len(self._window[1]) < WINDOW

    @property
    def _is_all(self) -> bool:
        """Is neither end of what is found cut off?"""
        return self._limit is None and not self._offset

    def _from_the_end(self, position: int) -> Entry:
        start = position - position % WINDOW
        rows = self._read_window(~start)
        if position - start < len(rows):
            return rows[position - start]
        raise IndexError(f'there is no row {-position - 1}')

    def _stream(self, first: list[Entry], *, is_backward: bool = False) -> Iterator[Entry]:
        """These rows, and then all others."""
        yield from first
        given = {(entry.collection, entry.ident) for entry in first}
        # Cut at its beginning, the whole is read from there, and turned round.
        shape = self._shape._replace(is_backward=is_backward and self._is_all)
        is_turned = is_backward and not self._is_all
        others = self._connections.stream(
            self._ids(shape, 0, self._limit), partial(self._chosen, shape), entries, is_backward=is_turned
        )
        rest = (row for rows in others for row in (reversed(rows) if is_turned else rows))
        left = None if self._limit is None else self._limit - len(first)
        yield from islice((row for row in rest if (row.collection, row.ident) not in given), left)

    def _slice(self, index: slice) -> list[Entry]:
        if self._is_read and self._window is not None:
            return self._window[1][index]
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
        """The rows from ``start``, which is a multiple of WINDOW; fewer than WINDOW at the end.

        ``~start``: as many before the last one, that one first.
        """
        if self._window is None or self._window[0] != start:
            rows = self._read(start, WINDOW) if start >= 0 else self._read(~start, WINDOW, is_backward=True)
            self._window = (start, rows)
            if not start and not self._is_explained:
                self._explain(rows)
            if start >= 0 and (0 < len(rows) < WINDOW or (not rows and not start)):
                self._length = start + len(rows)
        return self._window[1]

    def _read(self, start: int, number: int | None, *, is_backward: bool = False) -> list[Entry]:
        """``number`` rows from ``start``, or all."""
        shape = self._shape._replace(is_backward=is_backward)
        within = self._within(start, number)
        if not start and not self._offset and shape.parts == 1:
            text = rows_text(shape, self._numbers)
            values = (*self._values, -1 if within is None else within, 0)
            return self._connections.read(lambda driver: entries(driver.execute(text, values).fetchall()))
        return self._connections.read(lambda driver: self._find(driver, shape, start, within))

    def _find(self, driver: sqlite3.Connection, shape: Shape, start: int, number: int | None) -> list[Entry]:
        """First where they are, without a look at the rows before them, and then these rows."""
        found: list[Entry] = []
        with transaction(driver, 'DEFERRED'):
            known = [rowid for rowid, *_ in driver.execute(*self._ids(shape, start, number))]
            for first in range(0, len(known), WINDOW):
                chosen = self._chosen(shape, known[first : first + WINDOW])
                found += entries(driver.execute(*chosen).fetchall())
        return found

    def _ids(self, shape: Shape, start: int, number: int | None) -> tuple[str, tuple[Any, ...]]:
        values = (*self._values * shape.parts, -1 if number is None else number, self._offset + start)
        return ids_text(shape, self._numbers), values

    def _chosen(self, shape: Shape, known: Sequence[int]) -> tuple[str, tuple[Any, ...]]:
        return chosen_text(shape, self._numbers, len(known)), (*known, *self._values)

    def _within(self, start: int, number: int | None) -> int | None:
        if self._limit is None:
            return number
        left = max(0, self._limit - start)
        return left if number is None else min(left, number)

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

    def _explain(self, rows: list[Entry]) -> None:
        """Warn where nothing is found because a part of args or results is in no row, or of another type."""
        self._is_explained = True
        parts = list(asked_parts(self._asked, self._asked['order_by']))
        known = self._asked['collection']
        names = [known] if isinstance(known, str) else None if known is None else list(known)
        found = rows and (parts[-1].wanted is not None or parts[-1].path.of(rows[0]) is not MISSING)
        if not found and (why := self._connections.read(lambda driver: why_nothing(driver, names, parts))):
            warn(why)
        is_of_results = any(part.path.column == 'result' for part in parts)
        if is_of_results and (why := self._connections.read(lambda driver: left_out(driver, names))):
            warn(why)


def _natural(name: str, value: int | None) -> int | None:
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int):
        raise TypeError(f'{name} takes a whole number, not {value!r}')
    if value < 0:
        raise ValueError(f'{name} cannot be negative: {value}')
    return value
