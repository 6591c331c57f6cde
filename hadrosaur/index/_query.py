"""What `Project.query` returns: a lazy sequence of entries."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import cache
from itertools import islice
from typing import TYPE_CHECKING, Any, overload

from ..errors import HadrosaurError, IndexFault, warn
from ..json_paths import MISSING
from ..records import STATUSES, Entry
from ..sanitize import printable
from . import _summary
from ._connection import transaction
from ._fork_guard import fork_guard
from ._validate import entries

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Mapping

    from ._pool import ConnectionPool
    from ._statements import Statements

WINDOW = 1000
"""Rows that are read at once and kept: half a megabyte, 5 ms; a page of anything a person looks at."""

SHOWN_IN_REPR = 10
"""Rows that ``repr`` shows."""


class Query(Sequence[Entry]):
    """Rows of the index as a lazy sequence: ``len``, indexing, slicing and streaming iteration.

    Nothing is read before it is needed. Then up to 1 000 neighbouring rows are read together and cached.
    A query of no more rows than that is read once and does not change; make a new one to see later changes.
    Any row is found within milliseconds, even among a million: ``query[500_000]``, ``query[-1]``,
    ``reversed(query)``.

    Iterating over a longer query reads the first 1 000 rows, then the row ids of the rest (8 bytes each),
    then a thousand rows at a time. Each row is yielded once, as it is when it is read; a row that was
    removed meanwhile, or no longer passes the filters, is left out. No transaction stays open between rows.
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
        _load_sqlalchemy()
        from . import _explain, _filters, _statements

        filters = {
            name: list(value) if isinstance(value, Iterator) else value for name, value in filters.items()
        }
        conditions, order = _filters.conditions(filters), _statements.checked_order(order_by)
        if after is not None:
            conditions.append(_statements.after(order, after))
        self._connections = connections
        self._statements = _statements.Statements(conditions, order)
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
        self._because: Callable[[Entry], str | None] | None = None  # why a stale one is so
        self._is_explained = not any(_explain.asked_parts(filters, order_by))
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
                return self._told(rows[position - start])
        raise IndexError(f'there is no row {index}')

    def __iter__(self) -> Iterator[Entry]:
        return self._all_told(self._rows())

    def _rows(self) -> Iterator[Entry]:
        """Iterate without looking for why rows are stale."""
        rows = self._read_window(0)
        return iter(rows) if self._is_read else self._stream(rows)

    def __reversed__(self) -> Iterator[Entry]:
        rows = self._read_window(0)
        if self._is_read:
            return self._all_told(reversed(rows))
        return self._all_told(self._stream(self._read_window(~0) if self._is_all else [], is_backward=True))

    def __repr__(self) -> str:
        """The filters, and the first rows, if they can be read."""
        asked = ', '.join(
            f'{name}={value!r}'
            for name, value in self._asked.items()
            if value is not None and name != 'facts'
        )
        try:
            rows = self._read_window(0)[: SHOWN_IN_REPR + 1]
        except HadrosaurError:  # a repr never raises; whoever reads the rows is told
            return f'<Query({asked})>'
        if not rows:
            return f'<Query({asked}): {self.why_nothing() or "no rows"}>'
        lines = [f'  {_line(entry)}' for entry in rows[:SHOWN_IN_REPR]]
        if len(rows) > SHOWN_IN_REPR:
            lines.append('  …')
        return '\n'.join([f'<Query({asked}):', *lines]) + '>'

    def why_nothing(self) -> str:
        """Name the known error types or groups, if the query asks for one that no failure has; else ''."""
        from ._explain import unknown_cause

        return self._connections.read(
            lambda driver: unknown_cause(driver, self._collections, self._asked) or ''
        )

    @property
    def _collections(self) -> list[str] | None:
        """Names of the collections that the query is limited to; None: all."""
        collections = self._asked.get('collection')
        return (
            [collections]
            if isinstance(collections, str)
            else None
            if collections is None
            else list(collections)
        )

    def first(self) -> Entry | None:
        """Return the first row, or None if there are no rows."""
        return next(self._all_told(self._read_window(0)[:1]), None)

    def idents(self) -> list[str]:
        """Return the idents of all rows, in order, as `fetch_many` takes them."""
        return [entry.ident for entry in self._rows()]

    def cells(self, names: Sequence[str], most: int) -> list[tuple[Any, ...]]:
        """Some columns of the first rows, as SQLite keeps them: for a chart, which needs no more of many."""
        if self._offset or self._statements.parts != 1:
            return [tuple(map(entry.raw, names)) for entry in self[:most]]
        text, values = self._statements.rows(most if self._limit is None else min(most, self._limit), 0)
        text = f'SELECT {", ".join(names)} FROM ({text})'
        return self._connections.read(lambda driver: driver.execute(text, values).fetchall())

    def to_pandas(self, results: bool | Iterable[str] = False) -> Any:
        """Return all rows as a `pandas.DataFrame` (extra ``pandas``): nullable dtypes, UTC timestamps.

        Args:
            results: True adds a column for each item of args and results, such as ``args.C`` and
                ``result.score``, one level deep; deeper values are JSON text. A list of names adds only
                these: keys of results, parts such as ``'args.C'`` and ``'result.model.depth'``, and names
                that the collection declares (``columns=``). Results too long for the index are read from
                disk.
        """
        from ..dataframes import to_pandas

        return to_pandas(self, results, self.result_of, self.named)

    def to_polars(self, results: bool | Iterable[str] = False) -> Any:
        """Return all rows as a `polars.DataFrame` (extra ``polars``): UTC timestamps, args as JSON text.

        Args:
            results: As for `to_pandas`.
        """
        from ..dataframes import to_polars

        return to_polars(self, results, self.result_of, self.named)

    @property
    def is_of_stale(self) -> bool:
        """Was it for what is stale that was asked?"""
        return bool(self._asked.get('stale'))

    @property
    def limit(self) -> int | None:
        """The maximum number of rows, None if there is none."""
        return self._limit

    def result_of(self, entry: Entry) -> Any:
        """Return the result of one of the rows, from disk if it is long; `MISSING` if it has none."""
        if entry.raw('result') is not None:
            return entry.result
        read = self._read_result
        return MISSING if read is None or entry.status != 'completed' else read(entry)

    def _repr_html_(self) -> str:
        """What a notebook shows: the first rows, and how many there are."""
        from ..sanitize import MOST_ROWS, html_table, local, seconds, short

        shown, total = list(self[:MOST_ROWS]), len(self)
        names = ('collection', 'ident', 'status', 'finished', 'took', 'args', 'result', 'error')
        rows = [
            (
                entry.collection, entry.ident, entry.phase or entry.status, local(entry.finished_at),
                seconds(entry.duration), short(entry.args or None), short(entry.result),
                f'{entry.error_type}: {entry.error}' if entry.error_type else None,
            )
            for entry in shown
        ]  # fmt: skip
        which = f'the first {len(shown)} of ' if total > len(shown) else ''
        return html_table(names, rows, f'{which}{total} resources')

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
            return self._told(rows[position - start])
        raise IndexError(f'there is no row {-position - 1}')

    def _stream(self, first: list[Entry], *, is_backward: bool = False) -> Iterator[Entry]:
        """These rows, and then all others."""
        yield from first
        given = {(entry.collection, entry.ident) for entry in first}
        # Cut at its beginning, the whole is read from there, and turned round.
        is_turned = is_backward and not self._is_all
        statements = self._statements.backward() if is_backward and self._is_all else self._statements
        ids = statements.ids(-1 if self._limit is None else self._limit, self._offset)
        others = self._connections.stream(ids, statements.chosen, entries, is_backward=is_turned)
        rest = (row for rows in others for row in (reversed(rows) if is_turned else rows))
        left = None if self._limit is None else self._limit - len(first)
        yield from islice((row for row in rest if (row.collection, row.ident) not in given), left)

    def _slice(self, index: slice) -> list[Entry]:
        if self._is_read and self._window is not None:
            return list(self._all_told(self._window[1][index]))
        bounds = (index.start, index.stop)
        if (index.step or 1) > 0 and all(bound is None or bound >= 0 for bound in bounds):
            start, stop = index.start or 0, index.stop
        else:  # counted from the end
            picked = range(len(self))[index]
            if not picked:
                return []
            start, stop = min(picked), max(picked) + 1
        rows = self._read(start, None if stop is None else max(0, stop - start))
        return list(self._all_told(rows[:: index.step]))

    def _told(self, row: Entry) -> Entry:
        """The row, with why it is stale if that was asked for: its folder tells, once it is looked at."""
        because = self._because
        return row if because is None else Entry((*row, because(row)))

    def _all_told(self, rows: Iterable[Entry]) -> Iterator[Entry]:
        return iter(rows) if self._because is None else map(self._told, rows)

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
        statements = self._statements.backward() if is_backward else self._statements
        limit = -1 if number is None else number
        if self._limit is not None:
            left = max(0, self._limit - start)
            limit = left if number is None else min(left, number)
        start += self._offset
        if not start and statements.parts == 1:
            text, values = statements.rows(limit, 0)
            return self._connections.read(lambda driver: entries(driver.execute(text, values).fetchall()))
        return self._connections.read(lambda driver: _find(driver, statements, limit, start))

    def _count(self) -> int:
        number = max(0, self._connections.read(self._passing) - self._offset)
        return number if self._limit is None else min(number, self._limit)

    def _passing(self, driver: sqlite3.Connection) -> int:
        """How many rows pass the filters."""
        given = {name for name, value in self._asked.items() if value is not None}
        collections = self._collections
        names = [None] if collections is None else list(dict.fromkeys(collections))
        if given <= {'collection', 'status', 'facts', 'order_by', 'limit', 'offset'} and len(names) == 1:
            status = STATUSES if self._asked.get('status') is None else self._asked['status']
            words = {status} if isinstance(status, str) else set(status)
            counts = _summary.count(driver, names[0]).values()
            return sum(count[word] for count in counts for word in words)
        number: int
        (number,) = driver.execute(*self._statements.count()).fetchone()
        return number

    def _explain(self, rows: list[Entry]) -> None:
        """Warn if nothing is found because a part of args or results is in no row, or of another type."""
        from ._explain import asked_parts, left_out, why_nothing

        self._is_explained = True
        parts = list(asked_parts(self._asked, self._asked['order_by']))
        names = self._collections
        is_found = rows and (parts[-1].wanted is not None or parts[-1].path.of(rows[0]) is not MISSING)
        if not is_found and (why := self._connections.read(lambda driver: why_nothing(driver, names, parts))):
            warn(why)
        is_of_results = any(part.path.column == 'result' for part in parts)
        if is_of_results and (why := self._connections.read(lambda driver: left_out(driver, names))):
            warn(why)


@cache
def _load_sqlalchemy() -> None:
    with fork_guard:  # a child that is forked during an import waits for that import for ever
        try:
            from . import _filters  # noqa: F401
        except (ImportError, MemoryError) as fault:
            hint = 'is there room in memory? Single resources, counts and computing need none of it'
            raise IndexFault(f'SQLAlchemy, which makes queries, cannot be loaded: {fault}', hint=hint)


def _find(driver: sqlite3.Connection, statements: Statements, limit: int, offset: int) -> list[Entry]:
    """First where they are, without a look at the rows before them, and then these rows."""
    rows: list[Entry] = []
    with transaction(driver, 'DEFERRED'):
        ids = [rowid for rowid, *_ in driver.execute(*statements.ids(limit, offset))]
        for first in range(0, len(ids), WINDOW):
            chosen = statements.chosen(ids[first : first + WINDOW])
            rows += entries(driver.execute(*chosen).fetchall())
    return rows


def _line(entry: Entry) -> str:
    """One row in a line: which resource, its status, how long it took, and its error."""
    took = '' if entry.duration is None else f'{entry.duration:.3g} s'
    error = f'{entry.error_type}: {entry.error}' if entry.error_type else ''
    text = '  '.join(filter(None, (f'{entry.collection}/{entry.ident}', entry.status, took, error)))
    text = printable(text)
    return text if len(text) <= 110 else f'{text[:109]}…'


def _natural(name: str, value: int | None) -> int | None:
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int):
        raise TypeError(f'{name} takes a whole number, not {value!r}')
    if value < 0:
        raise ValueError(f'{name} cannot be negative: {value}')
    return value
