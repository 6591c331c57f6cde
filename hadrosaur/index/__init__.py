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
from ..records import Entry, ErrorGroup, Facts, Use
from . import _sql, _stale, _summary, _writes
from ._connection import close_kept_later, transaction
from ._fork_guard import fork_guard
from ._opening import IndexFile, IndexUnderConstruction
from ._pool import ConnectionPool
from ._query import Query
from ._validate import ALL, ONE, entries, text
from ._writes import Key

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence

    from ._filters import Several
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
        return self._write(_writes.QUEUE, _writes.pending_rows(entries, self.session))

    def start(self, rows: Sequence[tuple[Any, ...]]) -> None:
        """Mark pending rows as running: (collection, ident), and since when, on which host, in which process.

        Where the latter are not given, or not known, they run since now, somewhere.
        """
        now = _writes.now()
        values = []
        for of, named, *begun in rows:
            since, host, pid = begun or (None, None, None)
            started = {'at_started_at': since or now, 'at_host': host, 'at_pid': pid}
            values.append(_writes.START.values(of=of, named=named, now=now, **started))
        self._write(_writes.START, values)

    def release_ownership(self, keys: Sequence[Key]) -> None:
        """Clear this session from pending rows whose resources another process turned out to compute."""
        own = {'now': _writes.now(), 'mine': self.session}
        self._write(_writes.DISOWN, [_writes.DISOWN.values(of=of, named=named, **own) for of, named in keys])

    def finish(self, entries: Sequence[Entry]) -> None:
        """Write rows of resources that are done; dropped where the stored row is of a later run.

        That is one of a higher attempt, unless it was over before this one began.
        """
        for entry in entries:
            if entry.status == 'pending':
                raise ValueError(f'{entry.collection}/{entry.ident} is pending, not done')
        self._write(_writes.FINISH, _writes.final_rows(entries))

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
        added = _writes.rows(entry for entry, was in changes if was is None)
        updated = [
            _writes.UPDATE.values(**_writes.cells(entry), was=was, of=entry.collection, named=entry.ident)
            for entry, was in changes
            if was is not None
        ]
        gone = [_writes.REMOVE.values(of=of, named=named, was=was) for of, named, was in removed]

        def write(driver: sqlite3.Connection) -> list[int]:
            groups = ((_writes.ADD, added), (_writes.UPDATE, updated), (_writes.REMOVE, gone))
            with transaction(driver):
                return [
                    driver.executemany(statement.text, rows).rowcount if rows else 0
                    for statement, rows in groups
                ]

        new, changed, removed_rows = self._connections.write(write)
        return new, changed, removed_rows

    def _write(self, statement: Statement, rows: list[Row]) -> int:
        """Run a statement for each row, in one transaction; returns how many rows it changed."""
        if not rows:
            return 0

        def write(driver: sqlite3.Connection) -> int:
            if len(rows) == 1:  # a statement by itself is a transaction
                return driver.execute(statement.text, rows[0]).rowcount
            with transaction(driver):
                return driver.executemany(statement.text, rows).rowcount

        return self._connections.write(write)

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
        return next(iter(self._entries(ONE, collection, ident)), None)

    def get_stored(self, collection: str, ident: str) -> Entry | None:
        """The row as it is stored, whatever `show` shows."""
        row = self._connections.read_stored(
            lambda driver: driver.execute(ONE, (collection, ident)).fetchone()
        )
        return None if row is None else Entry(row)

    def find(
        self,
        collection: Several | None = None,
        *,
        order_by: str | None = '-finished_at',
        limit: int | None = None,
        offset: int = 0,
        after: tuple[Any, str, str] | None = None,
        **filters: Any,
    ) -> Query:
        """Rows that pass every filter; a filter given several values passes what passes one of them.

        Args:
            collection: Name.
            order_by: Column, or ``-column`` for downwards. What is NULL comes last, ties follow
                (collection, ident), and so does None.
            limit: Maximum number of rows.
            offset: Number of rows to skip.
            after: As for `Project.query`.
            filters: Those of `Project.query`, each by its name, and ``facts``: what makes resources of a
                collection stale by themselves, for ``stale``.

        Raises:
            ValueError: An unknown status or column, or no point in time; the message says what is meant.
            TypeError: There is no such filter, or it does not take such a value.
        """
        filters = {'collection': collection, **filters}
        return Query(self._connections, filters, order_by=order_by, limit=limit, offset=offset, after=after)

    def unseen(self) -> list[Key]:
        """What functions fetched that has no row, or one that does not tell its run."""
        return self._connections.read(
            lambda driver: [(text(of), text(named)) for of, named in driver.execute(_stale.UNSEEN)]
        )

    def used_by(self, collection: str, ident: str) -> list[Use]:
        """The resources whose functions fetched this one, and the run that each was given."""
        rows = self._connections.read(
            lambda driver: driver.execute(_stale.USED_BY, (collection, ident)).fetchall()
        )
        return [Use(text(of), text(named), text(run), known or '') for of, named, run, known in rows]

    def stale_edges(self, facts: Mapping[str, Facts]) -> Iterator[tuple[Key, Key | None]]:
        """Each stale resource, with each stale one that it used, or with None where it used none."""
        values = (_stale.declared(facts),)
        rows = self._connections.read(lambda driver: driver.execute(_stale.EDGES, values).fetchall())
        for of, named, used_of, used in rows:
            yield (text(of), text(named)), None if used is None else (text(used_of), text(used))

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
        rows = self._connections.ask(lambda driver: _sql.ask(driver, query, params, seconds))
        return list(chain.from_iterable(rows))

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
        owners = set(sessions)
        pending = self._entries(f"{ALL} WHERE status = 'pending'")
        return [entry for entry in pending if entry.session in owners]

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
        statement = (
            'SELECT ident, path, seen_mtime_ns FROM resources WHERE collection = ?'
            f' AND ident IN ({", ".join("?" * len(idents))})'
        )
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
            keys = self._connections.read(partial(_summary.keys, collection=collection, after=after))
            yield from keys
            after = keys[-1] if keys else None

    def mask(self, sessions: Collection[str | None]) -> None:
        """Where the index cannot be written: show pending rows of dead sessions as interrupted."""
        if self._file is not None:
            self._file.reader.dead = frozenset(sessions)
            self._connections.close()

    def show(self, instead: Mapping[Key, Entry | None]) -> None:
        """Where rows cannot be written: show these instead of what is stored; None: no row."""
        if self._file is not None and (instead or self._file.reader.instead):
            self._file.reader.instead = instead
            self._connections.close(readers_only=True)

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
