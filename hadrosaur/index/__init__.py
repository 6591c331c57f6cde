"""The index: one row for each resource, in one SQLite file that anybody may open.

The directories are the truth; this is what makes them quick to ask. Everything in it can be rebuilt
from them, so an index that is lost, old or damaged is replaced, never repaired, and nothing is ever
decided by it alone. What a reader may rely on: a row that was written is there, unless the file was
deleted or replaced, which is noticed before the next transaction; late writes of earlier runs are
dropped; what is newer than this release, or not ours, is not touched.

This is the only package that writes the file. It knows nothing of directories: who makes an `Index`
tells it how to fill a new one.
"""

from __future__ import annotations

import os
from contextlib import closing
from functools import partial
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import IndexFault
from ..json_paths import parse
from ..records import Entry, ErrorGroup
from . import _sql, _summary, _writes
from ._connection import close_kept_later, transaction
from ._entries import ALL, ONE, entries, entry, text
from ._fork_guard import fork_guard
from ._opening import IndexFile, IndexUnderConstruction
from ._pool import ConnectionPool
from ._query import Query
from ._writes import Key

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
    from datetime import timedelta

    from ._filters import Moment, Several
    from ._validate import Owner
    from ._writes import Row, Statement

__all__ = ['Index', 'Query']


def _quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'


class Index:
    """The rows of one base directory.

    Opens nothing until it is used, and then again whenever it must. May be shared by threads and used
    after a fork.

    Args:
        path: The index file.
        lock_path: The file that is locked while the index is opened, written or replaced.
        session: To whom pending rows belong that are written from here.
        refill: Fills a new, empty index from the directories. It must use the index that it is given.
        upgrade: Brings the index file (path, stored revision) to this release's revision.
        owner: Knows by which number an index is this base's.
        on_good: Called once a good index was opened.
        read_only: Never write, and never make a file in the index's folder.

    Attributes:
        session: As above; may be set later.
    """

    def __init__(
        self,
        path: Path | str,
        *,
        lock_path: Path | str,
        session: str | None = None,
        refill: Callable[[Index], None] | None = None,
        upgrade: Callable[[Path, str], None] | None = None,
        owner: Owner | None = None,
        on_good: Callable[[], None] | None = None,
        read_only: bool = False,
    ) -> None:
        self.session = session
        self._file: IndexFile | None = IndexFile(
            os.path.abspath(path),
            os.path.abspath(lock_path),
            fill=None if refill is None else partial(_fill, refill),
            upgrade=None if upgrade is None else lambda file, stored: upgrade(Path(file), stored),
            owner=owner,
            on_good=on_good,
            read_only=read_only,
        )
        self._connections = ConnectionPool(self._file)

    @classmethod
    def _of_new_file(cls, path: str) -> Index:
        """An index on a file that nobody else knows."""
        index = cls.__new__(cls)
        index.session = None
        index._file = None
        index._connections = ConnectionPool(IndexUnderConstruction(path))
        return index

    def close(self) -> None:
        """Let the connections go; the index may be used again and opens anew."""
        self._connections.checkpoint()
        self._connections.close()
        close_kept_later()

    def __del__(self) -> None:
        if hasattr(self, '_connections'):
            fork_guard.once_free(self._connections.close)

    @property
    def is_read_only(self) -> bool:
        """Whether writing is impossible, by choice or by what the file system allows."""
        return not self._connections.is_writable()

    # --- writing -----------------------------------------------------------------------------------

    def queue(self, entries: Sequence[Entry]) -> int:
        """Write rows of resources that were asked for; returns how many were written.

        A row that is pending already stays as it is, unless it belongs to nobody.
        """
        return self._put(_writes.QUEUE, _writes.pending_rows(entries, self.session))

    def start(self, rows: Sequence[tuple[Any, ...]]) -> None:
        """Mark pending rows as running: (collection, ident), and since when, on which host, in which process.

        Where the latter are not given, or not known, they run since now, somewhere.
        """
        now, statement, values = _writes.now(), _writes.START, []
        for of, named, *begun in rows:
            since, host, pid = begun or (None, None, None)
            values.append(
                statement.values(
                    of=of, named=named, now=now, at_started_at=since or now, at_host=host, at_pid=pid
                )
            )
        self._write(statement.text, values)

    def release_ownership(self, keys: Sequence[Key]) -> None:
        """Pending rows of this session belong to nobody: it turned out that others compute them."""
        self._touch(_writes.DISOWN, keys, {'now': _writes.now(), 'mine': self.session})

    def finish(self, entries: Sequence[Entry]) -> None:
        """Write rows of resources that are done; dropped where the stored row is of a later run.

        That is one of a higher attempt, unless it was over before this one began.
        """
        for each in entries:
            if each.status == 'pending':
                raise ValueError(f'{each.collection}/{each.ident} is pending, not done')
        self._put(_writes.FINISH, _writes.final_rows(entries))

    def merge(
        self, changes: Sequence[tuple[Entry, str | None]], removed: Sequence[tuple[str, str, str]] = ()
    ) -> tuple[int, int, int]:
        """Write what was found in folders, where the rows have not moved since; one transaction.

        Args:
            changes: Entries, and what the row's ``changed`` was before the folder was read; None: there
                was no row. A pending entry without a session keeps the row's.
            removed: (collection, ident, changed) of rows whose folder is gone.

        Returns:
            Numbers of rows that were added, updated and removed.
        """
        new = _writes.rows(entry for entry, was in changes if was is None)
        moved = [
            _writes.UPDATE.values(**_writes.cells(entry), was=was, of=entry.collection, named=entry.ident)
            for entry, was in changes
            if was is not None
        ]
        gone = [_writes.REMOVE.values(of=of, named=named, was=was) for of, named, was in removed]

        def write(driver: sqlite3.Connection) -> tuple[int, int, int]:
            with transaction(driver):
                return (
                    _changed(driver, _writes.ADD.text, new),
                    _changed(driver, _writes.UPDATE.text, moved),
                    _changed(driver, _writes.REMOVE.text, gone),
                )

        return self._connections.write(write)

    def _put(self, statement: Statement, rows: list[Row]) -> int:
        return self._write(statement.text, rows)

    def _touch(self, statement: Statement, keys: Iterable[Key], change: Mapping[str, Any]) -> None:
        self._write(statement.text, [statement.values(of=of, named=named, **change) for of, named in keys])

    def _write(self, text: str, values: list[Row]) -> int:
        if len(values) == 1:  # a statement by itself is a transaction
            return self._connections.write(lambda driver: driver.execute(text, values[0]).rowcount)
        return self._connections.write(lambda driver: _write_all(driver, text, values)) if values else 0

    def index_parts(self, parts: Iterable[str]) -> None:
        """Have an index in SQLite for these parts of args and results, and for no other."""
        wanted = {f'part {text}': parse(text) for text in parts}

        def change(driver: sqlite3.Connection) -> None:
            rows = driver.execute(
                "SELECT name FROM sqlite_master WHERE type = 'index' AND name LIKE 'part %'"
            )
            there = {name for (name,) in rows}
            for name in there - wanted.keys():
                driver.execute(f'DROP INDEX IF EXISTS {_quoted(name)}')
            for name in sorted(wanted.keys() - there):
                path = wanted[name]
                place = path.in_sql.replace("'", "''")
                driver.execute(
                    f'CREATE INDEX IF NOT EXISTS {_quoted(name)}'
                    f" ON resources (collection, json_extract({path.column}, '{place}'))"
                )

        self._connections.write(change)

    # --- reading -----------------------------------------------------------------------------------

    def get(self, collection: str, ident: str) -> Entry | None:
        """The row of one resource."""
        statement, values = ONE, (collection, ident)

        def look(driver: sqlite3.Connection) -> Entry | None:
            row = driver.execute(statement, values).fetchone()
            return None if row is None else entry(row)

        return self._connections.read(look)

    def get_stored(self, collection: str, ident: str) -> Entry | None:
        """`get`, whatever `show` shows."""
        text, key = ONE, (collection, ident)
        found = self._connections.read_stored(lambda driver: driver.execute(text, key).fetchone())
        return None if found is None else Entry(found)

    def find(
        self,
        collection: Several | None = None,
        *,
        status: Several | None = None,
        ident: Several | int | None = None,
        error_type: Several | None = None,
        error: Several | None = None,
        args: Mapping[str, Any] | Iterable[Mapping[str, Any]] | None = None,
        result: Mapping[str, Any] | None = None,
        since: Moment | None = None,
        until: Moment | None = None,
        min_duration: float | timedelta | None = None,
        stale: bool | None = None,
        versions: Mapping[str, str | None] | None = None,
        error_group: Several | None = None,
        order_by: str | None = '-finished_at',
        limit: int | None = None,
        offset: int = 0,
        max_duration: float | timedelta | None = None,
        min_memory: float | None = None,
        max_memory: float | None = None,
        phase: Several | None = None,
        host: Several | None = None,
        version: str | int | Iterable[str | int] | None = None,
        attempt: int | Iterable[int] | None = None,
        after: tuple[Any, str, str] | None = None,
    ) -> Query:
        """Rows that pass every filter; a filter given several values passes what passes one of them.

        Args:
            collection: Name.
            status: ``pending``, ``completed`` or ``error``.
            ident: Ident, or a pattern of `fnmatch`.
            error_type: Class of the exception or one above it: its dotted name, or the end of that.
            error: Part of the message; case does not matter.
            args: What the args hold, on their top level. Compared as canonical JSON: True and 1 differ,
                so do 1 and 1.0, and a name that is missing is not null. A list means any of its items, or
                that very list; names of parts and comparisons are as for ``result``.
            result: Parts of the results that the index holds, and what they are: ``{'score': ('>', 0.9)}``,
                ``{'model.depth': [3, 4]}``; here 1 equals 1.0.
            since: Finished, or else started, then or later. A datetime (local time if it has no zone), a
                date, ISO-8601 text of either, or a timedelta: so long ago.
            until: The same, then or earlier; a date counts to its end.
            min_duration: Seconds at least.
            stale: True: done, and made by another version of the function than ``versions`` tells.
                False: the others.
            versions: The functions' present versions, by collection; None, or not named: never stale.
            error_group: Fingerprint of the cause; of a failure that has none, its type.
            order_by: Column, or ``-column`` for downwards. What is NULL comes last, ties follow
                (collection, ident), and so does None.
            limit: So many rows at most.
            offset: Without the first ones.
            max_duration: Seconds at most.
            min_memory: Bytes at least.
            max_memory: Bytes at most.
            phase: ``queued`` or ``running``.
            host: Name of the machine.
            version: Version of the function.
            attempt: Number of the attempt.
            after: (value of the order's column, collection, ident) of a row: those that follow, without a
                count of what came before. Where the column is not known, the rows where it is not either;
                where it is, only those where it is too.

        Raises:
            ValueError: An unknown status or column, or no point in time; the message says what is meant.
        """
        filters = {
            'collection': collection,
            'status': status,
            'ident': ident,
            'error_type': error_type,
            'error_group': error_group,
            'error': error,
            'phase': phase,
            'host': host,
            'version': version,
            'attempt': attempt,
            'args': args,
            'result': result,
            'since': since,
            'until': until,
            'min_duration': min_duration,
            'max_duration': max_duration,
            'min_memory': min_memory,
            'max_memory': max_memory,
            'stale': stale,
            'versions': versions,
        }
        return Query(self._connections, filters, order_by=order_by, limit=limit, offset=offset, after=after)

    def collections(self) -> list[str]:
        """Names of the collections that have rows, in order."""
        return self._connections.read(_summary.collections)

    def count(self, collection: str | None = None) -> dict[str, dict[str, int]]:
        """Rows by status: ``{collection: {'total', 'completed', 'error', 'pending'}}``."""
        return self._connections.read(lambda driver: _summary.count(driver, collection))

    def stats(self, collection: str | None = None) -> dict[str, dict[str, Any]]:
        """`count`, with the seconds that runs took: ``'duration': {'p50', 'p95', 'max', 'sample'}``.

        ``sample`` is None where these are of all runs; else of so many that finished last.
        """
        return self._connections.read(lambda driver: _summary.stats(driver, collection))

    def error_groups(self, collection: str | None = None, last: int | None = None) -> list[ErrorGroup]:
        """Failures grouped by cause, most frequent first; of the last so many, or all."""
        return self._connections.read(lambda driver: _summary.error_groups(driver, collection, last))

    def sql(
        self,
        query: str,
        params: Sequence[Any] | Mapping[str, Any] = (),
        *,
        seconds: float = _sql.SECONDS,
    ) -> list[dict[str, Any]]:
        """Rows that a statement of SQLite's own SQL gives; it reads only, and for a limited time.

        Raises:
            HadrosaurError: It is no SQL, would do more than read, or takes longer.
        """
        return self._connections.ask(
            lambda driver: list(chain.from_iterable(_sql.ask(driver, query, params, seconds)))
        )

    def sql_rows(
        self, query: str, params: Sequence[Any] | Mapping[str, Any] = ()
    ) -> Iterator[dict[str, Any]]:
        """`sql`, a thousand rows at a time."""
        asked = self._connections.ask_on(lambda driver: _sql.ask(driver, query, params, _sql.SECONDS))
        return chain.from_iterable(asked)

    def pending_sessions(self) -> list[str | None]:
        """The sessions that have pending rows; None: a row that belongs to nobody."""
        statement = "SELECT DISTINCT session FROM resources WHERE status = 'pending'"
        return self._connections.read(
            lambda driver: [session and text(session) for (session,) in driver.execute(statement)]
        )

    def pending(self, sessions: Collection[str | None]) -> list[Entry]:
        """The pending rows of some sessions."""
        asked = set(sessions)
        return [entry for entry in self._entries(f"{ALL} WHERE status = 'pending'") if entry.session in asked]

    def rows(self, collection: str, idents: Sequence[str]) -> dict[str, Entry]:
        """The rows of some resources of a collection, by ident, bookkeeping included."""
        if not idents:
            return {}
        statement = f'{ALL} WHERE collection = ? AND ident IN ({", ".join("?" * len(idents))})'
        return {entry.ident: entry for entry in self._entries(statement, collection, *idents)}

    def _entries(self, statement: str, *values: Any) -> list[Entry]:
        return self._connections.read(lambda driver: entries(driver.execute(statement, values).fetchall()))

    def seen(self, collection: str, idents: Sequence[str]) -> dict[str, tuple[Any, Any]]:
        """The folder of each resource that has a row, and when its status.json was seen to be written."""
        statement = _summary.SEEN.format(', '.join('?' * len(idents)))
        rows = self._connections.read(
            lambda driver: driver.execute(statement, (collection, *idents)).fetchall()
        )
        return {ident: (path, seen) for ident, path, seen in rows}

    def keys(self, collection: str | None = None) -> Iterator[Key]:
        """(collection, ident) of all rows in order; a thousand are read at a time.

        One that is there all the while is given once, whatever is written meanwhile.
        """
        after: Key | None = ('', '')
        while after is not None:
            found = self._connections.read(partial(_summary.keys, collection=collection, after=after))
            yield from found
            after = found[-1] if found else None

    def mask(self, sessions: Collection[str | None]) -> None:
        """Where the index cannot be written: show pending rows of dead sessions as interrupted."""
        if self._file is not None:
            self._file.reader.dead = frozenset(sessions)
            self._connections.close()

    def show(self, instead: Mapping[Key, Entry | None]) -> None:
        """Where rows cannot be written: show these instead of what is stored; None: no row."""
        if self._file is not None and (instead or self._file.reader.instead):
            self._file.reader.instead = instead
            self._connections.close_readers()

    # --- the file ----------------------------------------------------------------------------------

    def rebuild(self) -> None:
        """Build a new index from the directories and put it in the place of what is there.

        What hadrosaur did not make, or a newer release did, or what is damaged, is kept beside it.

        Raises:
            IndexFault: It cannot be written.
        """
        if self._file is None:
            raise IndexFault('an index that is being built cannot be rebuilt')
        self._connections.close()
        self._file.rebuild()


def _fill(refill: Callable[[Index], None], path: str) -> None:
    with closing(Index._of_new_file(path)) as index:
        refill(index)


def _changed(driver: sqlite3.Connection, text: str, values: list[Row]) -> int:
    return driver.executemany(text, values).rowcount if values else 0


def _write_all(driver: sqlite3.Connection, text: str, values: list[Row]) -> int:
    with transaction(driver):
        return driver.executemany(text, values).rowcount
