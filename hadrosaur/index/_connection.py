"""One connection to an index file: how it is made, and how it notices that its file is gone.

A statement by itself is a transaction; several stand between an explicit BEGIN IMMEDIATE and COMMIT.
`Connections` keeps what is open. Text runs on the driver itself: through SQLAlchemy it would cost 1.3 times
as much, against 1.16 for the driver with what is kept here (two cores, 2026).
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import resource
import sqlite3
import threading
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from ..locks import patience, start_without_signals
from ._fork_guard import fork_guard, let_go_in_children
from ._lock import IndexLock

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator


BUSY_SECONDS = 60.0
"""How long a transaction waits for another process's."""

CHECKPOINT_PAGES = 10_000
"""Pages of 4 KiB that the -wal may grow to before they are copied into the index: 40 MB. A checkpoint
waits for the disk; with SQLite's 1 000 it was a third of what an inline resource costs."""

SIDES = ('', '-wal', '-shm')
"""What SQLite appends to the name of the index file for the three files that make it up."""

PARTS = (*SIDES, '-journal')
"""The same, with what it would write where the index is not in WAL mode, and looks for in any case."""

MEMORY = 'memory:'
"""What the path of an index begins with that is nowhere but in memory."""

_PRAGMAS = (
    'PRAGMA synchronous = NORMAL',  # a commit does not wait for the disk; the -wal is never torn
    f'PRAGMA wal_autocheckpoint = {CHECKPOINT_PAGES}',
    'PRAGMA mmap_size = 0',  # a mapped file that shrinks kills the process that reads it
    # Else SQLite refuses its JSON functions in indexes of declared columns. The file may come from anywhere,
    # but no function that its schema could call writes or loads anything: extensions are off, ours are pure.
    'PRAGMA trusted_schema = ON',
)

_kept_open: list[PooledConnection] = []
"""Connections that may not be closed while somebody replaces the index."""

FileSignature = tuple[Any, ...]
"""What tells one state of the index files from another."""


class PooledConnection:
    """An open connection and what it takes to use it.

    Attributes:
        driver: The sqlite3 connection.
        lock: To be shared during each transaction; None where nobody else can come.
        is_writable: May it write?
        is_kept: Is it to stay open when it is given back?
        mark: What ``look`` answered when it was opened.
    """

    __slots__ = ('__weakref__', '_look', '_patience', 'driver', 'is_kept', 'is_writable', 'lock', 'mark')

    def __init__(
        self,
        driver: sqlite3.Connection,
        look: Callable[[], FileSignature],
        *,
        lock: IndexLock | None = None,
        is_writable: bool = False,
    ) -> None:
        self.driver = driver
        self.lock = lock
        self.is_writable = is_writable
        self.is_kept = True
        self._look = look
        self._patience = patience.seconds
        self.mark = look()

    def is_current(self) -> bool:
        """Whether the files are still those that were opened."""
        signature = self._look()
        return signature == self.mark and signature != ()

    def is_open(self) -> bool:
        """Are its descriptors its own? SQLite waits ten seconds for each lock on one that was closed."""
        return self.lock is None or not self.lock.is_lost()

    def be_patient(self) -> None:
        """Have SQLite wait as long as this thread wants to."""
        if self._patience != patience.seconds:
            self._patience = patience.seconds
            self.driver.execute(f'PRAGMA busy_timeout = {1000 * busy_seconds():.0f}')

    def close(self) -> None:
        """Close connection and lock.

        The last to close an index deletes its -wal, by name. Were the file replaced at that moment, it
        would be the new one's; so while somebody may be replacing it, the connection stays open.
        """
        if not self.is_open():
            self.lock, lock = None, self.lock
            _close_what_was_closed(self.driver)
            if lock is not None:
                lock.close()
        elif not self._close():
            _kept_open.append(self)

    def _close(self) -> bool:
        lock = self.lock
        if lock is not None and not lock.try_share():
            return False
        self.lock = None
        close(self.driver)
        if lock is not None:
            lock.close()
        return True

    def _close_once_free(self) -> None:
        lock = self.lock
        if lock is not None:
            with contextlib.suppress(OSError, ValueError):  # somebody else has closed it
                lock.share()
        self._close()


def close_kept() -> None:
    """Close the connections that had to stay open, where nobody replaces their index any more."""
    for _ in range(len(_kept_open)):
        with contextlib.suppress(IndexError):  # another thread has taken it
            _kept_open.pop(0).close()


def close_kept_later() -> None:
    """The same in a moment: a thread for each that must wait, which ends with the replacing."""
    close_kept()
    with contextlib.suppress(IndexError):
        while pooled := _kept_open.pop(0):
            start_without_signals(
                threading.Thread(target=pooled._close_once_free, name='index-closer', daemon=True)
            )


def _forget_kept() -> None:
    _kept_open.clear()  # in a forked child the copies are closed by `_Opened`, their locks by themselves


os.register_at_fork(after_in_child=_forget_kept)


class _Opened:
    """Every driver connection that is open; it changes only inside the gate, so a child knows all copies."""

    def __init__(self) -> None:
        self.drivers: set[sqlite3.Connection] = set()
        self._left: list[sqlite3.Connection] = []
        let_go_in_children(self)

    def close_after_fork(self) -> None:
        """In a forked child: close the copies of the parent's connections.

        One within a transaction stays open, since closing would roll that back.
        """
        for driver in self.drivers:
            if driver.in_transaction:
                self._left.append(driver)
            else:
                with contextlib.suppress(sqlite3.Error):
                    driver.close()
        self.drivers = set()


_opened = _Opened()


def inodes(path: str) -> FileSignature:
    """(device, inode) of the three files of an index that is written; never opens them.

    Closing any descriptor of an index file would drop the locks that SQLite holds on it.
    """
    try:
        main, wal, shm = os.stat(path), os.stat(path + '-wal'), os.stat(path + '-shm')
    except FileNotFoundError:
        return ()
    return (main.st_dev, main.st_ino, wal.st_dev, wal.st_ino, shm.st_dev, shm.st_ino)


def main_inode(path: str) -> FileSignature:
    """(device, inode) of the index file, () where there is none."""
    if path.startswith(MEMORY):
        return (path,)
    try:
        main = os.stat(path)
    except FileNotFoundError:
        return ()
    return (main.st_dev, main.st_ino)


def contents(path: str) -> FileSignature:
    """What changes when the index or its -wal is written by anybody, for readers of a copy."""
    return tuple(_content(path + side) for side in ('', '-wal'))


def _content(path: str) -> FileSignature:
    try:
        status = os.stat(path)
    except FileNotFoundError:
        return ()
    return (status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns)


def connect(path: str, mode: str) -> sqlite3.Connection:
    """A driver connection of its own, in autocommit mode.

    Args:
        path: The index file.
        mode: ``rw``, ``rwc`` (makes the file), ``ro`` or ``immutable``.

    Raises:
        sqlite3.Error: As the driver raises it.
    """
    with fork_guard:
        seconds, uri = busy_seconds(), uri_of(path, mode)
        driver = sqlite3.connect(uri, seconds, isolation_level=None, check_same_thread=False, uri=True)
        _opened.drivers.add(driver)
        return driver


@contextlib.contextmanager
def opened(path: str, mode: str) -> Iterator[sqlite3.Connection]:
    """`connect`, inside the gate, and closed at the end."""
    driver = connect(path, mode)
    try:
        with fork_guard:
            yield driver
    finally:
        close(driver)


def close(driver: sqlite3.Connection) -> None:
    """Close a driver connection; what is committed is safe, whatever SQLite says."""
    with fork_guard, contextlib.suppress(sqlite3.Error):
        _opened.drivers.discard(driver)
        driver.close()


def _close_what_was_closed(driver: sqlite3.Connection) -> None:
    """Close a connection whose descriptors a function has closed; who has got their numbers keeps them.

    While it is open, whatever this process opens of that index shares locks with it that cannot be taken.
    """
    most = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    beyond = most // 2 if 0 < most < 1 << 16 else 1 << 15  # numbers that SQLite never had
    copies: list[tuple[int, int, bool]] = []
    for fd in map(int, os.listdir('/dev/fd')):
        with contextlib.suppress(OSError):
            copies.append((fd, fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, beyond), os.get_inheritable(fd)))
    close(driver)
    for fd, copy, is_inherited in copies:
        try:
            os.fstat(fd)
        except OSError:
            os.dup2(copy, fd, is_inherited)
        os.close(copy)


def configure(driver: sqlite3.Connection) -> None:
    """Set what SQLite does not keep in the file."""
    from ._functions import FUNCTIONS

    with fork_guard:
        for pragma in _PRAGMAS:
            driver.execute(pragma)
        for name, (function, arguments) in FUNCTIONS.items():
            driver.create_function(name, arguments, function, deterministic=True)


def busy_seconds() -> float:
    """How long SQLite waits for other processes, on behalf of this thread."""
    return BUSY_SECONDS if patience.seconds is None else patience.seconds


def uri_of(path: str, mode: str) -> str:
    """What SQLite opens; the arguments are those of `connect`."""
    if path.startswith(MEMORY):
        return f'file:{path[len(MEMORY) :]}?mode=memory&cache=shared'
    query = 'immutable=1' if mode == 'immutable' else f'mode={mode}'
    return f'file://{quote(os.fsencode(path))}?{query}'


@contextlib.contextmanager
def transaction(driver: sqlite3.Connection, how: str = 'IMMEDIATE') -> Iterator[None]:
    """Several statements as one: all of them happen, or none. ``DEFERRED``: all see one state."""
    driver.execute(f'BEGIN {how}')
    try:
        yield
        driver.execute('COMMIT')
    except BaseException:
        with contextlib.suppress(sqlite3.Error):  # what went wrong first is what counts
            if driver.in_transaction:
                driver.execute('ROLLBACK')
        raise
