"""Writing into one resource's directory: what only the holder of its lock may do.

In which order the files of a run are begun and finished is decided here, and nowhere else; the
docstrings of `Claim.begin` and `Claim.finish` say it.
"""

from __future__ import annotations

import contextlib
import errno
import os

from .. import diskio
from ..records import Status
from . import (
    ERROR,
    LOCK,
    LOCK_PATIENCE,
    RECORD,
    RESULT,
    STATUS,
    STATUS_BYTES,
    STATUS_LENGTH,
    STDERR,
    STDOUT,
    STORAGE,
    State,
)

_TRIES = 1000  # to lock a folder that others remove and make; no more where inode numbers are made up


class Claim:
    """A resource's directory, locked. Only its holder writes there; the kernel frees it if we die.

    Attributes:
        folder: A descriptor of the directory.
        was_made: The directory was not there before.
        has_begun: Something of a run has been written: the directory is no longer what it was.
    """

    __slots__ = ('_durable', '_is_trusted', '_lock', '_record', '_record_length', '_record_stat', '_status',
                 '_status_stat', '_was_completed', 'collection_path', 'folder', 'folder_stat', 'has_begun',
                 'logs', 'name', 'was_made')  # fmt: skip

    def __init__(self, collection_path: str, name: str, folder: int, lock: int, *, durable: bool) -> None:
        self._record = self._status = -1
        self.logs: tuple[int, ...] = ()
        self._lock = lock
        self.folder = folder
        self.collection_path = collection_path
        self.name = name
        self.folder_stat = os.fstat(folder)
        self._durable = durable
        self._record_length = 0
        self._was_completed = False
        self._is_trusted = True  # no function of a user's has run, which might close our descriptors
        self.was_made = self.has_begun = False

    @property
    def path(self) -> str:
        """Absolute path of the directory."""
        return f'{self.collection_path}/{self.name}'

    @classmethod
    def take(
        cls,
        collection_path: str,
        name: str,
        *,
        lock: str = 'folder',
        make: bool = True,
        durable: bool = False,
        patience: float = LOCK_PATIENCE,
    ) -> Claim | None:
        """Lock the directory, made if need be; None where someone else has it.

        Raises FileNotFoundError where it is not there and not to be made, and OSError where a symlink
        stands in its place.
        """
        parent = diskio.open_folder(collection_path, diskio.LOOK)
        try:
            for _ in range(_TRIES):
                made = make and diskio.make_folder(name, parent)
                folder = diskio.open_folder(name, within=parent)
                claim = cls._locked(collection_path, name, folder, lock, durable, patience)
                if claim is None:
                    return None
                if claim._stands_in(parent):
                    claim.was_made = made
                    if made and durable:
                        with diskio.opened(collection_path) as synced:
                            diskio.sync_folder(synced)
                    return claim
                claim.release()  # removed between opening and locking: start again
            raise OSError(errno.ESTALE, 'it is another folder each time it is looked at')
        finally:
            os.close(parent)

    @classmethod
    def _locked(
        cls, path: str, name: str, folder: int, lock: str, durable: bool, patience: float
    ) -> Claim | None:
        held = folder
        try:
            if lock != 'folder':
                flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
                held = os.open(LOCK, flags, 0o666, dir_fd=folder)
            is_locked = diskio.lock_within(held, patience)
            if is_locked and held != folder:
                is_locked = cls._folder_too(folder, patience)
        except BaseException:
            diskio.unlock(held)
            if held != folder:
                os.close(folder)
            raise
        if is_locked:
            return cls(path, name, folder, held, durable=durable)
        diskio.unlock(held)
        if held != folder:
            os.close(folder)
        return None

    @staticmethod
    def _folder_too(folder: int, patience: float) -> bool:
        """Lock the folder beside the file: some process here may not know yet that files are locked."""
        try:
            return diskio.lock_within(folder, patience)
        except OSError:  # the file system has no locks of folders, and then nobody locks them
            return True

    def _stands_in(self, parent: int) -> bool:
        try:
            now = os.stat(self.name, dir_fd=parent, follow_symlinks=False)
        except FileNotFoundError:
            return False
        if (now.st_dev, now.st_ino) != (self.folder_stat.st_dev, self.folder_stat.st_ino):
            return False
        if self._lock == self.folder:
            return True
        try:  # by its name too: whoever settled or removed the folder may have unlinked what we opened
            return diskio.is_same(self._lock, os.stat(LOCK, dir_fd=self.folder, follow_symlinks=False))
        except FileNotFoundError:
            return False

    def begin(self, record: bytes, state: State, *, keep_storage: bool = False) -> None:
        """Make the directory say that a run has begun, and nothing else.

        First run: record.json, then status.json. Otherwise status.json says pending *first*, so that
        from then on nobody believes the old result; then the record says begun, and only then is what
        the last run left emptied. Cut off anywhere, it is settled as the old result or as interrupted.
        """
        self._was_completed = state == 'completed'
        again = state != 'absent'
        self.has_begun = True
        if again:
            self._open_status()
            if state != 'pending':
                self._switch('pending', sync=self._was_completed or self._durable)
        self._write_begun(record, again)
        if not again:
            self._status = diskio.create(STATUS, STATUS_BYTES['pending'], self.folder, durable=self._durable)
            self._status_stat = os.fstat(self._status)
        self._clear(again, keep_storage)
        self.logs = (diskio.open_log(STDOUT, self.folder), diskio.open_log(STDERR, self.folder))
        self._is_trusted = False  # until `is_intact` has looked

    def _write_begun(self, record: bytes, again: bool) -> None:
        """In place while the status says pending; a hard link elsewhere must not change with it."""
        sync = self._durable or self._was_completed
        length = 0
        fd = -1
        if again:
            with contextlib.suppress(OSError):
                fd = os.open(RECORD, os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=self.folder)
        if fd >= 0:
            found = os.fstat(fd)
            length = found.st_size
            if found.st_nlink != 1:
                os.close(fd)
                diskio.replace(RECORD, record, self.folder, durable=sync)
                return
        if fd >= 0:
            self._record_length = diskio.overwrite(fd, record, length, durable=sync)
        else:
            fd = diskio.create(RECORD, record, self.folder, durable=sync)
            self._record_length = len(record)
        self._record = fd
        self._record_stat = os.fstat(fd)

    def _clear(self, again: bool, keep_storage: bool) -> None:
        if again:
            for name in (RESULT, ERROR, STDOUT, STDERR):
                diskio.empty(name, self.folder)
        if diskio.make_folder(STORAGE, self.folder):
            return
        if keep_storage:
            os.close(diskio.open_folder(STORAGE, diskio.LOOK, within=self.folder))  # refuses a symlink
        else:
            diskio.clear_folder(STORAGE, self.folder)

    def finish(self, status: Status, record: bytes, *, result: bytes | None = None, error: str = '') -> int:
        """Write what came of the run, status.json last. Returns its time in nanoseconds.

        Raises OSError; then status.json still says pending, and the next to look settles it.
        """
        sync = self._durable or self._was_completed
        if result is not None:
            os.close(diskio.create(RESULT, result, self.folder, durable=sync))
        if error:
            text = error.encode(errors='backslashreplace')
            os.close(diskio.create(ERROR, text, self.folder, durable=self._durable))
        self.write_record(record)
        if self._durable:
            for log in self.logs:
                diskio.sync_data(log)
            diskio.sync_folder(self.folder)
        return self._switch(status, sync=sync)

    def write_record(self, record: bytes) -> None:
        """Rewrite record.json: in place where it is the one that `begin` opened, else by rename."""
        sync = self._durable or self._was_completed
        if self._is_in_place(self._record, RECORD):
            self._record_length = diskio.overwrite(self._record, record, self._record_length, durable=sync)
        else:
            diskio.replace(RECORD, record, self.folder, durable=sync)

    def set_status(self, status: Status) -> int:
        """Make status.json say ``status``, whatever stands there. Returns its time in nanoseconds."""
        if self._status < 0:
            self._open_status()
        return self._switch(status, sync=self._durable)

    def _open_status(self) -> None:
        flags = os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK
        with contextlib.suppress(OSError):
            self._status = os.open(STATUS, flags, dir_fd=self.folder)
            self._status_stat = os.fstat(self._status)

    def _switch(self, status: Status, *, sync: bool) -> int:
        """One in-place write where the file is ours alone and has the one length; else a rename.

        Returns its time in nanoseconds.
        """
        data = STATUS_BYTES[status]
        if self._is_in_place(self._status, STATUS) and self._status_stat.st_size == STATUS_LENGTH:
            diskio.write_all(self._status, data)
            if sync:
                diskio.sync_data(self._status)
            return os.fstat(self._status).st_mtime_ns
        diskio.replace(STATUS, data, self.folder, durable=sync)
        return os.stat(STATUS, dir_fd=self.folder, follow_symlinks=False).st_mtime_ns

    def _is_ours(self, fd: int) -> bool:
        """Is it open, and still the file that we opened?"""
        return fd >= 0 and (self._is_trusted or diskio.is_same(fd, self._opened_as(fd)))

    def _opened_as(self, fd: int) -> os.stat_result:
        return self._record_stat if fd == self._record else self._status_stat

    def _is_in_place(self, fd: int, name: str) -> bool:
        """May the file be written in place? It is ours, under that name and no other."""
        return self._is_ours(fd) and diskio.is_alone(self._opened_as(fd), name, self.folder)

    def remade(self, lock: str) -> Claim | None:
        """The directory made anew, where the function removed it or closed our descriptors."""
        return Claim.take(self.collection_path, self.name, lock=lock, durable=self._durable)

    def is_intact(self) -> bool:
        """After a function has run: are our descriptors still ours, and is the directory in its place?"""
        if not diskio.is_same(self.folder, self.folder_stat):
            return False
        self._is_trusted = False
        self._is_trusted = all(fd < 0 or self._is_ours(fd) for fd in (self._record, self._status))
        try:
            now = os.stat(self.path, follow_symlinks=False)
        except OSError:
            return False
        return now.st_ino == self.folder_stat.st_ino and now.st_dev == self.folder_stat.st_dev

    def unmake(self) -> None:
        """Remove the directory again where `take` made it, and nothing was put into it since."""
        if not self.was_made:
            return
        with contextlib.suppress(OSError):
            if self._lock != self.folder:
                diskio.remove(LOCK, self.folder)
            with diskio.opened(self.collection_path, diskio.LOOK) as parent:
                os.rmdir(self.name, dir_fd=parent)

    def __del__(self) -> None:
        with contextlib.suppress(AttributeError):  # not even begun to be made
            self.release()  # where Ctrl-C came between taking it and keeping it

    def release(self) -> None:
        """Close everything and give the lock back."""
        for fd in (self._record, self._status):
            if self._is_ours(fd):
                os.close(fd)
        for fd in self.logs:
            with contextlib.suppress(OSError):
                os.close(fd)
        self.logs = ()
        self._record = self._status = -1
        if self.folder < 0:
            return
        if self._lock != self.folder:
            diskio.unlock(self._lock)
        diskio.unlock(self.folder)
        self.folder = -1
