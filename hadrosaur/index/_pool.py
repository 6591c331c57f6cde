"""The open connections of one index: lent out for one transaction each.

As many are open as were ever in use at once, which is one for each thread that works at the same time;
they stay open, because opening costs as much as twenty transactions. Writers of one process queue up
here: where SQLite makes them wait, it sleeps, and too long.

Before each transaction the files are looked at. Whoever deletes or replaces an index under an open
connection would otherwise not be noticed: SQLite goes on to write into the files without a name.
"""

from __future__ import annotations

import contextlib
import sqlite3
import threading
from array import array
from functools import partial
from typing import TYPE_CHECKING, Any, Protocol, TypeVar, cast

from ..errors import IndexBusy, IndexFault
from ..locks import patience
from ._fork_guard import fork_guard, let_go_in_children
from ._validate import FAULTS, Fault, is_passing

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from ._connection import PooledConnection

T = TypeVar('T')

TRIES = 5
"""How often a transaction is begun again because the index was replaced or fixed under it."""

CHUNK = 1000
"""Rows that are read at a time where many are streamed: 1 ms of work, and half a megabyte."""

MOST_IDLE = 16
"""Connections that are kept when nobody uses them; each has a page cache of 2 MB."""


class Opener(Protocol):
    """Where connections come from, and who repairs the index when they fail.

    Attributes:
        is_shown_otherwise: May readers not use the connections of writers?
    """

    @property
    def is_shown_otherwise(self) -> bool:
        """See above."""

    def open(self, *, writing: bool) -> PooledConnection:
        """A new connection."""

    def open_to_ask(self) -> PooledConnection:
        """A new connection that only reads, whatever is done with it."""

    def lost(self, pooled: PooledConnection) -> None:
        """The files are no longer those that ``held`` opened: make sure that there are good ones."""

    def failed(self, pooled: PooledConnection, fault: Fault) -> None:
        """SQLite refused: repair what can be fixed and return, or raise what the user should see."""


def _attempt(
    pooled: PooledConnection, action: Callable[[sqlite3.Connection], T], writing: bool
) -> tuple[bool, T | None]:
    """(True, what the action gives), or (False, None) where the files are no longer those of ``pooled``."""
    lock = pooled.lock if writing else None
    if lock is not None:
        lock.share()
    try:
        if not pooled.is_current():
            return False, None
        with fork_guard:
            pooled.be_patient()
            return True, action(pooled.driver)
    finally:
        if lock is not None:
            lock.release()


def _raised_once(fault: Fault) -> Callable[[sqlite3.Connection], None]:
    """An action that meets a fault the first time, so that it is fixed."""
    faults = [fault]

    def action(driver: sqlite3.Connection) -> None:
        if faults:
            raise faults.pop()

    return action


class _RepairedMeanwhile(IndexFault):
    """A query was cut off by a repair of the index, or by a fork."""


class ConnectionPool:
    """Runs transactions on connections that it keeps open."""

    def __init__(self, opener: Opener) -> None:
        self._opener = opener
        self._idle: list[PooledConnection] = []
        self._all: set[PooledConnection] = set()
        self._writing = threading.Lock()
        let_go_in_children(self)

    def read(self, action: Callable[[sqlite3.Connection], T]) -> T:
        """Run an action that only reads; its statements may see different states of the index."""
        return self._run(action, writing=False)

    def read_stored(self, action: Callable[[sqlite3.Connection], T]) -> T:
        """Run an action that only reads, on rows as they are stored, whatever is shown instead of them."""
        return self._run(action, writing=True)

    def write(self, action: Callable[[sqlite3.Connection], T]) -> T:
        """Run an action that writes, in one transaction."""
        lock, seconds = self._writing, -1.0 if patience.seconds is None else patience.seconds
        taken: list[bool] = []
        try:
            taken.extend(map(lock.acquire, (True,), (seconds,)))  # one step, for Ctrl-C
            if not taken[0]:
                raise IndexBusy('another thread is writing into the index', hint='try again')
            return self._run(action, writing=True)
        finally:
            if taken and taken[0]:
                lock.release()

    def _run(self, action: Callable[[sqlite3.Connection], T], *, writing: bool) -> T:
        for _ in range(TRIES):
            pooled = self._take(writing)
            is_good = False
            try:
                is_good, result = _attempt(pooled, action, writing)
                if is_good:
                    return cast('T', result)
                self._opener.lost(pooled)  # while it is open: a file that is closed may give its inode away
            except FAULTS as fault:
                is_good = is_passing(fault)
                self._opener.failed(pooled, fault)
            finally:
                if is_good:
                    self._give_back(pooled)
                else:
                    self._drop(pooled)
        raise IndexFault('the index was replaced again and again while it was in use')

    def stream(
        self,
        ids: tuple[str, tuple[Any, ...]],
        chosen: Callable[[Sequence[int]], tuple[str, tuple[Any, ...]]],
        made: Callable[[list[Any]], list[T]],
        *,
        is_backward: bool = False,
    ) -> Iterator[list[T]]:
        """Lists of what is made of rows whose ids are read at the start.

        Each list is read by itself: in between SQLite may empty its -wal, however long that takes.

        Args:
            ids: A statement that gives rowids, and its values.
            chosen: Gives a statement that reads the rows of some rowids, and its values.
            made: Makes a list of rows.
            is_backward: From the last rowid to the first.
        """
        with self._own(partial(self._opener.open, writing=False), self._opener.failed) as driver:
            with fork_guard:
                rowids = array('q', (rowid for rowid, *_ in driver.execute(*ids)))
            if is_backward:
                rowids.reverse()
            for start in range(0, len(rowids), CHUNK):
                statement = chosen(rowids[start : start + CHUNK])
                with fork_guard:
                    rows = made(driver.execute(*statement).fetchall())
                yield rows

    def ask(self, action: Callable[[sqlite3.Connection], Iterator[T]]) -> list[T]:
        """What `ask_on` gives, all together; asked again where the index had to be repaired."""
        try:
            return list(self.ask_on(action))
        except _RepairedMeanwhile:
            return list(self.ask_on(action))

    def ask_on(self, action: Callable[[sqlite3.Connection], Iterator[T]]) -> Iterator[T]:
        """What an action gives one by one, on a connection that cannot write, whatever is done with it."""
        with self._own(
            self._opener.open_to_ask, lambda _pooled, fault: self.read(_raised_once(fault))
        ) as driver:
            answers = action(driver)
            while True:
                with fork_guard:
                    answer = next(answers, None)
                if answer is None:
                    return
                yield answer

    @contextlib.contextmanager
    def _own(
        self,
        opened: Callable[[], PooledConnection],
        repair: Callable[[PooledConnection, Fault], object],
    ) -> Iterator[sqlite3.Connection]:
        """A connection that nobody else gets, for work between whose steps other things are done."""
        self.read(lambda driver: None)  # repairs what is to be fixed
        pooled = opened()
        self._all.add(pooled)
        try:
            yield pooled.driver
        except FAULTS as fault:  # mistakes of the user's are not among them
            if pooled in self._all:  # else it was closed by `close_after_fork`
                repair(pooled, fault)
            raise _RepairedMeanwhile(
                'the index was repaired, or the process forked, during a query', hint='ask again'
            )
        finally:  # which the collector may run, where a query is dropped in the middle
            fork_guard.once_free(partial(self._drop, pooled))

    def is_writable(self) -> bool:
        """Whether the index opens for writing."""
        pooled = self._take(False)
        self._give_back(pooled)
        return pooled.is_writable

    def _take(self, writing: bool) -> PooledConnection:
        for idle in reversed(self._idle):
            if idle.is_writable if writing else not (idle.is_writable and self._opener.is_shown_otherwise):
                try:
                    self._idle.remove(idle)
                except ValueError:  # another thread has it
                    continue
                if idle.is_open():
                    return idle
                self._drop(idle)
        for closed in [idle for idle in self._idle if not idle.is_open()]:  # or none can take a lock
            with contextlib.suppress(ValueError):
                self._idle.remove(closed)
                self._drop(closed)
        pooled = self._opener.open(writing=writing)
        self._all.add(pooled)
        return pooled

    def _give_back(self, pooled: PooledConnection) -> None:
        if pooled.is_kept and len(self._idle) < MOST_IDLE:
            self._idle.append(pooled)
        else:
            self._drop(pooled)

    def _drop(self, pooled: PooledConnection) -> None:
        self._all.discard(pooled)
        pooled.close()

    def checkpoint(self) -> None:
        """Bring what was committed from the -wal into the index, as far as nobody has to wait for it.

        The last process to close an index does so anyway; this is for the others.
        """
        try:
            pooled = self._idle.pop()
        except IndexError:
            return
        if pooled.is_writable and pooled.lock is not None and pooled.lock.try_share():
            with contextlib.suppress(sqlite3.Error):  # what is committed stays in the -wal
                _attempt(pooled, lambda driver: driver.execute('PRAGMA wal_checkpoint(PASSIVE)'), True)
        self._give_back(pooled)

    def close(self, *, readers_only: bool = False) -> None:
        """Close what is idle now, and what is in use as soon as it is given back."""
        for pooled in list(self._all):
            pooled.is_kept = pooled.is_kept and readers_only and pooled.is_writable
        for idle in list(self._idle):
            if not idle.is_kept:
                with contextlib.suppress(ValueError):  # another thread has it
                    self._idle.remove(idle)
                    self._drop(idle)

    def close_after_fork(self) -> None:
        """In a forked child: the parent's connections are closed, whoever used them."""
        for pooled in self._all:
            pooled.lock = None  # the parent's opening of the lock file is the parent's to lock
        self._all = set()
        self._idle = []
        self._writing = threading.Lock()
