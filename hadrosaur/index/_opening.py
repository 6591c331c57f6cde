"""Opening an index that may be missing, old, newer, damaged, somebody else's, or out of reach.

Who opens shares the index lock, and looks. What is good is opened. What is missing, old or damaged is
fixed under the exclusive lock, after another look: of eight processes that find nothing, one builds
and seven open what it built. What is newer or not ours is refused and left as it is. Where nothing can
be written, reading goes on (`_reading`).

An index carries a number, which the base has too: so neither is taken for that of another project.
"""

from __future__ import annotations

import contextlib
import os
import shlex
import sqlite3
import threading
import time
from typing import TYPE_CHECKING

from ..errors import IndexFault, IndexTooNew, NotOurIndex, UpgradeFailed, log, warn
from . import _rebuild
from ._connection import (
    PARTS,
    SIDES,
    PooledConnection,
    busy_seconds,
    close_kept,
    configure,
    connect,
    inodes,
    main_inode,
    opened,
)
from ._fork_guard import fork_guard
from ._lock import IndexLock
from ._readonly import ReadOnlyFile
from ._validate import (
    FAULTS,
    Fault,
    OpenProblem,
    Place,
    is_altered,
    is_busy,
    is_damage,
    is_moved,
    is_read_only_by_its_header,
    is_unreachable,
    named,
    open_good,
    told,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from ._connection import FileSignature
    from ._validate import Owner

TRIES = 5
"""How often an index is fixed before opening it is given up: one is enough unless someone breaks it."""


PACE = 20.0
"""After an index could not be built, so many times as long as that took pass before the next attempt."""


class _Unreachable(Exception):
    """The index cannot be written here and now."""


class IndexUnderConstruction:
    """An index that nobody else can know of yet: the one that is being built."""

    def __init__(self, path: str) -> None:
        self._path = path

    def open(self, *, writing: bool) -> PooledConnection:
        """A connection that reads and writes."""
        driver = connect(self._path, 'rw')
        configure(driver)
        return PooledConnection(driver, lambda: main_inode(self._path), is_writable=True)

    is_shown_otherwise = False

    def open_to_ask(self) -> PooledConnection:
        """A connection that only reads."""
        driver = connect(self._path, 'ro')
        return PooledConnection(driver, lambda: main_inode(self._path))

    def lost(self, pooled: PooledConnection) -> None:
        """Somebody deleted it."""
        raise IndexFault(f'{self._path} was deleted while it was built')

    def failed(self, pooled: PooledConnection, fault: Fault) -> None:
        """Whoever builds deals with it."""
        raise fault


class IndexFile:
    """The index file of a base directory: opens it, repairs it, replaces it.

    Args:
        path: The file; absolute.
        lock_path: The lock file; absolute.
        fill: Fills a new, empty index, given its path.
        upgrade: Brings an index to this release's revision, given its path and the stored revision.
        owner: Knows by which number an index is this base's.
        on_good: Called once a good index was opened.
        read_only: Never write.
    """

    def __init__(
        self,
        path: str,
        lock_path: str,
        *,
        fill: Callable[[str], None] | None = None,
        upgrade: Callable[[str, str], None] | None = None,
        owner: Owner | None = None,
        on_good: Callable[[], None] | None = None,
        read_only: bool = False,
    ) -> None:
        self.path = path
        self._lock_path = lock_path
        self._fill = fill
        self._upgrade = upgrade
        self.read_only = read_only
        base = os.path.dirname(os.path.dirname(lock_path))
        remedy = f'`hadrosaur reindex {shlex.quote(base)} --fresh` sets it aside and builds a new one'
        self._place = Place.of(path, base, remedy, owner)
        self._owner = owner
        self._on_good = on_good
        self.reader = ReadOnlyFile(self._place, fill)
        self._builder: int | None = None  # the thread that is building a new index
        self._refusal: tuple[float, BaseException] | None = None  # until when building is not tried again
        self._is_named = owner is None
        self._is_swept = False

    @property
    def is_shown_otherwise(self) -> bool:
        """Are rows shown that are not stored? Then who reads cannot write on the same connection."""
        return bool(self.reader.instead)

    # --- what `Connections` asks for ---------------------------------------------------------------

    def open(self, *, writing: bool) -> PooledConnection:
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
            pooled = self._open()
            if self.is_shown_otherwise and not writing:
                self.reader.adapt(pooled)
                pooled.is_writable = False
            return pooled
        except _Unreachable as fault:
            if writing:
                refused = IndexFault(f'{self.path} cannot be written: {fault}', hint=_way_out(self.path))
                refused.is_lasting = _rebuild.is_too_long(self.path)
                raise refused
            return self.reader.open()

    def open_to_ask(self) -> PooledConnection:
        """A connection that only reads, from wherever `open` would."""
        pooled = self.open(writing=False)
        if not pooled.is_writable:
            return pooled
        pooled.close()
        try:
            pooled = IndexUnderConstruction(self.path).open_to_ask()
        except sqlite3.Error:
            return self.reader.open()
        try:
            with fork_guard:  # where no -shm can be made, it is the first statement that fails
                pooled.driver.execute('SELECT 1 FROM sqlite_master').fetchone()
            self.reader.adapt(pooled)
        except FAULTS:
            pooled.close()
            return self.reader.open()
        return pooled

    def lost(self, pooled: PooledConnection) -> None:
        """Build a new index, unless somebody did since ``held`` was opened.

        The file is gone; or it is there and its -wal or -shm is gone, and with it what was committed.
        """
        if not pooled.is_writable:
            return
        with self._owned():
            inode = main_inode(self.path)
            if inode in ((), pooled.mark[:2]):
                with contextlib.suppress(_Unreachable):  # who opens it next is told
                    self._rebuild(None)

    def failed(self, pooled: PooledConnection, fault: Fault) -> None:
        """Build a new index where the old one proved damaged; else raise.

        Raises:
            IndexBusy: Somebody else kept the index locked.
            IndexFault: It cannot be written, or read.
        """
        if is_moved(fault):
            return
        # Deleted in mid-transaction: whatever came of that.
        if pooled.is_writable and not pooled.is_current():
            self.lost(pooled)
        else:
            is_damaged = is_damage(fault) or is_read_only_by_its_header(fault, self.path)
            if not is_damaged and (is_busy(fault) or is_unreachable(fault) or not is_altered(pooled.driver)):
                raise told(fault, self.path, _way_out(self.path)) from fault
            if not pooled.is_writable:
                self.reader.mark_corrupt(str(fault))
                return
            with self._owned():
                if main_inode(self.path) == pooled.mark[:2]:
                    try:
                        self._set_aside('damaged', str(fault))
                    except _Unreachable:
                        self.reader.mark_corrupt(str(fault))

    # --- opening -----------------------------------------------------------------------------------

    def _open(self) -> PooledConnection:
        close_kept()
        try:
            lock = IndexLock(self._lock_path)
            try:
                pooled = self._open_or_repair(lock)
            except BaseException:
                lock.close()
                raise
        except OSError as fault:
            raise _Unreachable(fault) from fault
        except sqlite3.Error as fault:
            if is_unreachable(fault):
                raise _Unreachable(fault) from fault
            raise told(fault, self.path, _way_out(self.path)) from fault
        pooled.lock = lock
        if self._on_good is not None:
            on_good, self._on_good = self._on_good, None
            on_good()
        return pooled

    def _open_or_repair(self, lock: IndexLock) -> PooledConnection:
        for _ in range(TRIES):
            with lock.shared():
                if not self._is_swept:
                    self._is_swept = True
                    _rebuild.sweep(self.path)
                outcome = self._look()
            if isinstance(outcome, PooledConnection):
                self._name(outcome, lock)
                return outcome
            with lock.owned():
                outcome = self._look()
                if isinstance(outcome, PooledConnection):  # another process was faster
                    outcome.close()
                else:
                    self._repair(outcome)
        raise IndexFault(f'{self.path} is broken again and again while it is opened')

    def _name(self, pooled: PooledConnection, lock: IndexLock) -> None:
        """Give an index of an earlier release the number of its base; next time, where that cannot be."""
        if self._is_named or self._owner is None:
            return
        self._is_named = True
        with fork_guard, contextlib.suppress(OSError, *FAULTS):
            number = named(pooled.driver)
            if number and self._owner.identity() == number:
                return
            if lock.try_own():
                try:
                    if mine := self._owner.identify(number if self._place.is_own else 0):
                        pooled.driver.execute('PRAGMA busy_timeout = 0')  # somebody may write for a minute
                        pooled.driver.execute(f'PRAGMA user_version = {mine}')
                finally:
                    pooled.driver.execute(f'PRAGMA busy_timeout = {int(busy_seconds() * 1000)}')
                    lock.release()

    def _look(self) -> PooledConnection | OpenProblem:
        """The index, open, or what is wrong with it."""
        trouble = self._place.look()
        if trouble is not None:
            return trouble
        for part in PARTS:
            if _is_denied(self.path + part):
                raise PermissionError(f'no permission to write {self.path + part}')
        before = self._inodes()
        try:
            return open_good(self.path, 'rw', self._place, lambda: inodes(self.path), is_writable=True)
        except FAULTS as fault:
            if is_unreachable(fault) and self._inodes() != before:  # SQLite met files as they were deleted
                return OpenProblem('moved')
            raise

    def _inodes(self) -> list[FileSignature]:
        return [main_inode(self.path + side) for side in SIDES]

    def _repair(self, trouble: OpenProblem) -> None:
        if trouble.kind in ('missing', 'linked'):  # a file that has another name keeps that one
            self._rebuild(None)
        elif trouble.kind == 'damaged' and not self._place.is_ours():
            raise NotOurIndex(f'{self.path} is no index; it was left as it is', hint=self._place.remedy)
        elif trouble.kind in ('damaged', 'foreign'):
            self._set_aside(trouble.kind, trouble.detail)
        elif trouble.kind == 'old':
            self._bring_to_head(trouble.detail)
        elif trouble.kind == 'not wal':
            with opened(self.path, 'rw') as driver:
                driver.execute('PRAGMA journal_mode = WAL')

    def _bring_to_head(self, stored: str) -> None:
        if self._upgrade is None:
            self._rebuild(_rebuild.quarantine(self.path, 'old'))
            return
        try:
            with fork_guard:  # Alembic opens a connection of its own
                self._upgrade(self.path, stored)
        except UpgradeFailed as fault:
            self._set_aside('old', str(fault))

    # --- replacing ---------------------------------------------------------------------------------

    def rebuild(self) -> None:
        """Build a new index; one that is damaged or not ours is set aside, ours is replaced.

        Raises:
            NotOurIndex: It stands where somebody wanted the index, and was not made by us.
            IndexFault: Nothing can be written.
        """
        self._refusal = None
        with self._owned():
            try:
                why = self._why_aside()
                if why:
                    self._set_aside(why, 'as was asked')
                else:
                    self._rebuild(None)
            except (_Unreachable, OSError, sqlite3.Error) as fault:
                raise IndexFault(f'{self.path} cannot be built: {fault}', hint=_way_out(self.path)) from fault

    def _why_aside(self) -> str:
        """Why what stands there is to be kept, '' where it need not be."""
        try:
            outcome = self._look()
        except IndexTooNew:
            return 'other'
        except NotOurIndex:
            if not self._place.is_own:
                raise
            return 'other'
        except sqlite3.Error:  # busy, or out of reach for SQLite: it has a name all the same
            return 'other'
        if isinstance(outcome, PooledConnection):
            outcome.close()
            return ''
        if outcome.kind == 'damaged' and not self._place.is_ours():
            raise NotOurIndex(f'{self.path} is no index; it was left as it is', hint=self._place.remedy)
        return {'damaged': 'damaged', 'foreign': 'foreign'}.get(outcome.kind, '')

    def _set_aside(self, why: str, reason: str) -> None:
        quarantine = _rebuild.quarantine(self.path, why)
        self._rebuild(quarantine)
        warn(
            f'{self.path} was {_WAS.get(why, why)} and is now {os.path.basename(quarantine)} ({reason}); '
            'a new index was built from the directories',
        )

    def _rebuild(self, quarantine: str | None) -> None:
        """Build and place; the caller owns the index lock."""
        if self._refusal is not None and time.monotonic() < self._refusal[0]:
            raise _Unreachable(self._refusal[1])
        new = _rebuild.workplace(self.path)
        self._builder = threading.get_ident()
        begun = time.monotonic()
        try:
            number = self._owner.identify() if self._owner is not None else 0
            _rebuild.build(new, self._fill, number or 0)
            _rebuild.place(new, self.path, quarantine=quarantine)
        except (OSError, sqlite3.Error) as fault:
            if not isinstance(fault, OSError) and not is_unreachable(fault):
                raise told(fault, new, 'try again') from fault
            now = time.monotonic()
            self._refusal = (now + PACE * (now - begun - 0.1), fault)  # a quick one costs nothing
            raise _Unreachable(fault) from fault
        finally:
            self._builder = None
        self._is_named = self._is_named or bool(number)
        log('%s was built in %.1f s', self.path, time.monotonic() - begun)

    @contextlib.contextmanager
    def _owned(self) -> Iterator[None]:
        try:
            lock = IndexLock(self._lock_path)
        except OSError as fault:
            raise IndexFault(f'{self._lock_path} cannot be locked: {fault}', hint='is the base still there?')
        with contextlib.closing(lock), lock.owned():
            yield
        close_kept()


_WAS = {
    'other': 'of another kind',
    'foreign': 'of another project',
}  # what is said of a file that was set aside; else its kind itself


def _way_out(path: str) -> str:
    if _rebuild.is_too_long(path):
        return (
            f'the path is too long for SQLite ({len(os.fsencode(path))} bytes): put the index elsewhere, '
            "Project(base, index='/a/shorter/path/index.sqlite3')"
        )
    return 'check permissions and space'


def _is_denied(path: str) -> bool:
    """Whether the file may not be written; who closes an index deletes its -wal, perhaps at this moment."""
    before = main_inode(path)
    return before != () and not os.access(path, os.W_OK) and main_inode(path) == before
