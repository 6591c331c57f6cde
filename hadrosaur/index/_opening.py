"""Opening an index that may be missing, old, newer, damaged, somebody else's, or out of reach.

Who opens shares the index lock, and looks. What is good is opened. What is missing, old or damaged is
mended under the exclusive lock, after another look: of eight processes that find nothing, one builds
and seven open what it built. What is newer or not ours is refused and left as it is. Where nothing can
be written, reading goes on (`_reading`).
"""

from __future__ import annotations

import contextlib
import os
import shlex
import sqlite3
import threading
import warnings
from typing import TYPE_CHECKING

from ..errors import HadrosaurWarning, IndexBusy, IndexFault, IndexTooNew, NotOurIndex, UpgradeFailed
from . import _building
from ._connection import SIDES, Held, close, configure, connect, inodes, main_inode, opened
from ._examining import (
    FAULTS,
    Fault,
    Trouble,
    examine,
    is_busy,
    is_damage,
    is_missing,
    is_moved,
    is_unreachable,
)
from ._gate import gate
from ._lock import IndexLock
from ._reading import ReadOnlyFile

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from ._connection import Mark

TRIES = 5
"""How often an index is mended before opening it is given up: one is enough unless someone breaks it."""


class _Unreachable(Exception):
    """The index cannot be written here and now."""


class BareFile:
    """An index that nobody else can know of yet: the one that is being built."""

    def __init__(self, path: str) -> None:
        self._path = path

    def open(self, *, writing: bool) -> Held:
        """A connection that reads and writes."""
        driver = connect(self._path, 'rw')
        configure(driver)
        return Held(driver, lambda: main_inode(self._path), is_writable=True)

    def open_to_ask(self) -> Held:
        """A connection that only reads."""
        driver = connect(self._path, 'ro')
        return Held(driver, lambda: main_inode(self._path))

    def lost(self, held: Held) -> None:
        """Somebody deleted it."""
        raise IndexFault(f'{self._path} was deleted while it was built')

    def failed(self, held: Held, fault: Fault) -> None:
        """Whoever builds deals with it."""
        raise fault


class IndexFile:
    """The index file of a base directory: opens it, mends it, replaces it.

    Args:
        path: The file; absolute.
        lock_path: The lock file; absolute.
        fill: Fills a new, empty index, given its path.
        upgrade: Brings an index to this release's revision, given its path and the stored revision.
        read_only: Never write.
    """

    def __init__(
        self,
        path: str,
        lock_path: str,
        *,
        fill: Callable[[str], None] | None = None,
        upgrade: Callable[[str, str], None] | None = None,
        read_only: bool = False,
    ) -> None:
        self.path = path
        self._lock_path = lock_path
        self._fill = fill
        self._upgrade = upgrade
        self.read_only = read_only
        base = os.path.dirname(os.path.dirname(lock_path))
        self._remedy = f'`hadrosaur reindex {shlex.quote(base)} --fresh` sets it aside and builds a new one'
        self.reader = ReadOnlyFile(path, self._remedy, fill)
        self._builder: int | None = None  # the thread that is building a new index

    # --- what `Connections` asks for ---------------------------------------------------------------

    def open(self, *, writing: bool) -> Held:
        """A new connection to a good index.

        Raises:
            IndexFault: There is none, and none can be made; the subclasses tell why.
        """
        if self._builder == threading.get_ident():
            raise IndexFault('what fills a new index must use the index it is given')
        if self.read_only:
            if writing:
                raise IndexFault(f'{self.path} was opened for reading only')
            return self.reader.open()
        try:
            return self._open()
        except _Unreachable as fault:
            if writing:
                refused = IndexFault(f'{self.path} cannot be written: {fault}', hint=_way_out(self.path))
                refused.is_lasting = _building.is_too_long(self.path)
                raise refused
            return self.reader.open()

    def open_to_ask(self) -> Held:
        """A connection that only reads, from wherever `open` would."""
        if self.read_only:
            return self.reader.open()
        try:
            held = BareFile(self.path).open_to_ask()
        except sqlite3.Error:
            return self.reader.open()
        try:
            with gate:  # where no -shm can be made, it is the first statement that fails
                held.driver.execute('SELECT 1 FROM sqlite_master').fetchone()
        except FAULTS:
            held.close()
            return self.reader.open()
        return held

    def lost(self, held: Held) -> None:
        """Build a new index, unless somebody did since ``held`` was opened.

        The file is gone; or it is there and its -wal or -shm is gone, and with it what was committed.
        """
        if not held.is_writable:
            return
        with self._owned():
            found = main_inode(self.path)
            if found in ((), held.mark[:2]):
                self._rebuild(None)

    def failed(self, held: Held, fault: Fault) -> None:
        """Build a new index where the old one proved damaged; else raise.

        Raises:
            IndexBusy: Somebody else kept the index locked.
            IndexFault: It cannot be written, or read.
        """
        if is_moved(fault):
            return
        if held.is_writable and not held.is_current():  # deleted in mid-transaction: whatever came of that
            self.lost(held)
        elif is_damage(fault):
            self._replace_damaged(held, fault)
        elif is_busy(fault):
            raise IndexBusy(
                f'another process kept {self.path} locked for too long', hint='try again'
            ) from fault
        elif is_unreachable(fault):
            raise IndexFault(f'{self.path} cannot be used: {fault}', hint=_way_out(self.path)) from fault
        else:
            raise fault

    def _replace_damaged(self, held: Held, fault: Fault) -> None:
        if not held.is_writable:
            self.reader.distrust(str(fault))
            return
        with self._owned():
            if main_inode(self.path) == held.mark[:2]:
                self._set_aside('damaged', str(fault))

    # --- opening -----------------------------------------------------------------------------------

    def _open(self) -> Held:
        try:
            lock = IndexLock(self._lock_path)
            try:
                held = self._open_or_mend(lock)
            except BaseException:
                lock.close()
                raise
        except OSError as fault:
            raise _Unreachable(fault) from fault
        except sqlite3.Error as fault:
            if is_busy(fault):
                raise IndexBusy(f'another process kept {self.path} locked for too long', hint='try again')
            if is_unreachable(fault):
                raise _Unreachable(fault) from fault
            raise
        held.lock = lock
        return held

    def _open_or_mend(self, lock: IndexLock) -> Held:
        for _ in range(TRIES):
            with lock.shared():
                found = self._look()
            if isinstance(found, Held):
                return found
            with lock.owned():
                found = self._look()
                if isinstance(found, Held):  # another process was faster
                    found.close()
                else:
                    self._mend(found)
        raise IndexFault(f'{self.path} is broken again and again while it is opened')

    def _look(self) -> Held | Trouble:
        """The index, open, or what is wrong with it."""
        if is_missing(self.path):
            return Trouble('missing')
        for side in SIDES:
            if _is_denied(self.path + side):
                raise PermissionError(f'no permission to write {self.path + side}')
        before = self._inodes()
        driver: sqlite3.Connection | None = None
        try:
            driver = connect(self.path, 'rw')
            with gate:
                found = examine(driver, self.path, self._remedy) or _wal_trouble(driver)
            if found is None:
                configure(driver)
                held = Held(driver, lambda: inodes(self.path), is_writable=True)
                driver = None
                return held
            return found
        except FAULTS as fault:
            if is_damage(fault):
                return Trouble('damaged', str(fault))
            if is_unreachable(fault) and self._inodes() != before:  # SQLite met files as they were deleted
                return Trouble('moved')
            raise
        finally:
            if driver is not None:
                close(driver)

    def _inodes(self) -> list[Mark]:
        return [main_inode(self.path + side) for side in SIDES]

    def _mend(self, trouble: Trouble) -> None:
        if trouble.kind == 'missing':
            self._rebuild(None)
        elif trouble.kind == 'damaged':
            self._set_aside('damaged', trouble.detail)
        elif trouble.kind == 'old':
            self._bring_to_head(trouble.detail)
        elif trouble.kind == 'not wal':
            with opened(self.path, 'rw') as driver:
                driver.execute('PRAGMA journal_mode = WAL')

    def _bring_to_head(self, stored: str) -> None:
        if self._upgrade is None:
            self._rebuild(_building.aside(self.path, 'old'))
            return
        try:
            with gate:  # Alembic opens a connection of its own
                self._upgrade(self.path, stored)
        except UpgradeFailed as fault:
            self._set_aside('old', str(fault))

    # --- replacing ---------------------------------------------------------------------------------

    def rebuild(self) -> None:
        """Build a new index; one that is damaged or not ours is set aside, ours is replaced."""
        with self._owned():
            try:
                found = self._look()
            except (NotOurIndex, IndexTooNew):
                why = 'other'
            else:
                why = found.kind if isinstance(found, Trouble) else ''
                if isinstance(found, Held):
                    found.close()
            if why in ('other', 'damaged'):
                self._set_aside(why, 'as was asked')
            else:
                self._rebuild(None)

    def _set_aside(self, why: str, reason: str) -> None:
        aside = _building.aside(self.path, why)
        self._rebuild(aside)
        warnings.warn(
            f'{self.path} was {_WAS.get(why, why)} and is now {os.path.basename(aside)} ({reason}); '
            'a new index was built from the directories',
            HadrosaurWarning,
            stacklevel=2,
        )

    def _rebuild(self, aside: str | None) -> None:
        """Build and place; the caller owns the index lock."""
        new = _building.workplace(self.path, self._lock_path)
        self._builder = threading.get_ident()
        try:
            _building.build(new, self._fill)
        finally:
            self._builder = None
        _building.place(new, self.path, aside=aside)

    @contextlib.contextmanager
    def _owned(self) -> Iterator[None]:
        try:
            lock = IndexLock(self._lock_path)
        except OSError as fault:
            raise IndexFault(f'{self._lock_path} cannot be locked: {fault}', hint='is the base still there?')
        with contextlib.closing(lock), lock.owned():
            yield


_WAS = {'other': 'of another kind'}  # what is said of a file that was set aside; else its kind itself


def _way_out(path: str) -> str:
    if _building.is_too_long(path):
        return (
            f'the path is too long for SQLite ({len(os.fsencode(path))} bytes): put the index elsewhere, '
            "Project(base, index='/a/shorter/path/index.sqlite3')"
        )
    return 'check permissions and space'


def _is_denied(path: str) -> bool:
    """Whether the file may not be written; who closes an index deletes its -wal, perhaps at this moment."""
    before = main_inode(path)
    return before != () and not os.access(path, os.W_OK) and main_inode(path) == before


def _wal_trouble(driver: sqlite3.Connection) -> Trouble | None:
    (mode,) = driver.execute('PRAGMA journal_mode').fetchone()
    return None if mode == 'wal' else Trouble('not wal')
