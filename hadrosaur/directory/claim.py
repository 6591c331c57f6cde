"""Writing into one resource's directory: what only the holder of its lock may do.

In which order the files of a run are begun and finished is decided here, and nowhere else; the
docstrings of `Claim.begin` and `Claim.finish` say it.
"""

from __future__ import annotations

import contextlib
import errno
import os
import stat

from .. import durability, fileops, trees
from ..records import Status
from . import (
    ERROR,
    LOCK,
    LOCK_PATIENCE,
    RECORD,
    RECORD_MOST,
    REMOVED,
    RESULT,
    STATUS,
    STATUS_BYTES,
    STATUS_LENGTH,
    STDERR,
    STDOUT,
    STORAGE,
    State,
    is_removed,
)
from ._ready import Ready

_APPEND = os.O_WRONLY | os.O_APPEND
_BEGUN = (RECORD, STATUS, STORAGE, STDOUT, STDERR)  # what a first run begins with, in this job
_SPARE = 16  # descriptors that a run needs beyond its own files: for capture, for emptying storage/
_TRIES = 1000  # to lock a folder that others remove and make; no more where inode numbers are made up


class Claim:
    """A resource's directory, locked. Only its holder writes there; the kernel frees it if we die.

    Attributes:
        folder: A descriptor of the directory.
        was_made: The directory was not there before.
        has_begun: Something of a run has been written: the directory is no longer what it was.
    """

    __slots__ = (
        '_durable',
        '_has_result',
        '_is_trusted',
        '_lock',
        '_record',
        '_record_bytes',
        '_record_stat',
        '_status',
        '_status_stat',
        '_was_completed',
        'collection_path',
        'created',
        'folder',
        'folder_stat',
        'has_begun',
        'logs',
        'name',
    )  # fmt: skip

    def __init__(self, collection_path: str, name: str, folder: int, lock: int, *, durable: bool) -> None:
        self._record = self._status = -1
        self.logs: tuple[int, ...] = ()
        self._lock = lock
        self.folder = folder
        self.collection_path = collection_path
        self.name = name
        self.folder_stat = os.fstat(folder)
        self._durable = durable
        self._record_bytes = b''
        self._was_completed = self._has_result = False
        self._is_trusted = True  # no function of a user's has run, which might close our descriptors
        self.created = self.has_begun = False

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
        parent = fileops.open_folder(collection_path, fileops.LOOK)
        try:
            for _ in range(_TRIES):
                made = make and fileops.make_folder(name, parent)
                try:
                    claim = cls._locked(collection_path, name, parent, lock, durable, patience)
                except FileNotFoundError:
                    if make:  # removed just after it was made
                        continue
                    raise
                except BaseException:
                    if made:
                        with contextlib.suppress(OSError):
                            os.rmdir(name, dir_fd=parent)
                    raise
                if claim is None:
                    return None
                if not claim._stands_in(parent):
                    claim.release()  # removed between opening and locking: start again
                elif claim._shares_its_lock():
                    claim.release()
                else:
                    claim.created = made
                    if durable and make:
                        durability.sync_above(collection_path)
                    return claim
            raise OSError(errno.ESTALE, 'the folder is replaced again and again')
        finally:
            os.close(parent)

    @classmethod
    def _locked(
        cls, path: str, name: str, parent: int, lock: str, durable: bool, patience: float
    ) -> Claim | None:
        held = folder = fileops.open_folder(name, within=parent)
        try:
            if lock != 'folder':
                flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
                held = fileops.out_of_reach(os.open(LOCK, flags, 0o666, dir_fd=folder))
                if not stat.S_ISREG(os.fstat(held).st_mode):
                    raise OSError(errno.ENODEV, f'{LOCK} is no file: remove it')
            is_locked = fileops.lock_within(held, patience)
            if is_locked and held != folder:
                is_locked = cls._folder_too(folder, patience)
        except BaseException:
            fileops.unlock(held)
            if held != folder:
                os.close(folder)
            raise
        if is_locked:
            return cls(path, name, folder, held, durable=durable)
        fileops.unlock(held)
        if held != folder:
            os.close(folder)
        return None

    @staticmethod
    def _folder_too(folder: int, patience: float) -> bool:
        """Lock the folder beside the file: some process here may not know yet that files are locked."""
        try:
            return fileops.lock_within(folder, patience)
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
        try:  # by its name too: whoever recovered or removed the folder may have unlinked what we opened
            return fileops.is_same(self._lock, os.stat(LOCK, dir_fd=self.folder, follow_symlinks=False))
        except FileNotFoundError:
            return False

    def _shares_its_lock(self) -> bool:
        """Is the lock file another folder's too, as in a copy by hard links? Then it gets one of its own.

        Whoever waits for the shared one meanwhile finds that it stands there no more.
        """
        if self._lock == self.folder or os.fstat(self._lock).st_nlink == 1:
            return False
        fileops.replace(LOCK, b'', self.folder)
        return True

    def begin(
        self, record: bytes, state: State, *, was_completed: bool = False, keep_storage: bool = False
    ) -> None:
        """Make the directory say that a run has begun, and nothing else.

        Where it was made for this run: record.json, then status.json. Otherwise status.json says pending
        *first*, so that from then on nobody believes the old result; then the record says begun, and only
        then is what the last run left emptied. Cut off anywhere, it is recovered as the old result or as
        interrupted. All that is needed is opened before the first step. Raises OSError; where `has_begun`
        is false then, the directory is as it was.

        Args:
            record: The record.json that says begun.
            state: What status.json says,
            was_completed: and whether a completed result is there, which a pending one may hide.
            keep_storage: Leave what stands in storage/.
        """
        self._was_completed = was_completed
        if self.created and state == 'absent':
            self._begin_first(record)
        else:
            self._begin_again(record, state, keep_storage)
        self._is_trusted = False  # until `is_intact` has looked

    def _begin_first(self, record: bytes) -> None:
        """Raises FileExistsError, and leaves what is there, where somebody was here before we locked it."""
        folder, pending, made = self.folder, STATUS_BYTES['pending'], 0
        try:
            fd = fileops.create(RECORD, record, folder, durable=self._durable, replaces=False)
            self._keep_record(fd, record)
            made = 1
            self._keep_status(fileops.create(STATUS, pending, folder, durable=self._durable, replaces=False))
            made = len(_BEGUN)
            fileops.make_folder(STORAGE, folder)
            self.logs = (fileops.open_new(STDOUT, folder, _APPEND),)
            self.logs += (fileops.open_new(STDERR, folder, _APPEND),)
        except BaseException:
            self._remove_begun(made)
            raise
        self.has_begun = True

    def _remove_begun(self, made: int) -> None:
        """Make it what it was, where a first run could not begin."""
        self._close_files()
        try:
            for name in reversed(_BEGUN[:made]):  # an empty folder is removed too
                fileops.remove(name, self.folder)
        except OSError:
            self.has_begun = True

    def _begin_again(self, record: bytes, state: State, keep_storage: bool) -> None:
        ready = Ready(self.folder)
        try:
            try:
                self._make_ready(ready, record)
                self._say(ready, record, state)
            except BaseException:
                self._take_back(ready, state)
                raise
            self.has_begun = True
            ready.clear(keep_storage=keep_storage)
        finally:
            ready.close()

    def _make_ready(self, ready: Ready, record: bytes) -> None:
        ready.open(spare=_SPARE if self._was_completed else 0)
        self._open_record(ready, record)
        self._open_status(ready)
        for name in (STDOUT, STDERR):
            self.logs += (ready.open_log(name),)

    def _say(self, ready: Ready, record: bytes, state: State) -> None:
        if state == 'absent':
            if self._is_synced:  # a status.json that was deleted by hand is gone from the disk too
                fileops.sync_folder(self.folder)
            self._say_begun(ready, record)
            self._say_pending(ready)
            return
        if state != 'pending' or ready.replaces(STATUS):
            self._say_pending(ready)
        elif self._is_synced:  # a recompute that was queued has said so, and did not wait for the disk
            fileops.sync_data(self._status)
        self._say_begun(ready, record)

    @property
    def _is_synced(self) -> bool:
        """Is the order in which things reach the disk to be kept, so that a power cut mixes no two runs?"""
        return self._durable or self._was_completed

    def _open_record(self, ready: Ready, record: bytes) -> None:
        """Open it to be rewritten in place; else, or if it must never be torn, write one beside it."""
        with contextlib.suppress(FileNotFoundError):
            try:
                ready.old_record = fileops.read(RECORD, self.folder, RECORD_MOST)
            except OSError as error:
                if not fileops.is_no_file(error) and not isinstance(error, PermissionError):
                    raise
        fd = None
        if ready.old_record is not None and not self._durable:
            fd = fileops.open_ours(RECORD, self.folder, os.O_RDWR)
        if fd is None:
            fd = ready.write_beside(RECORD, record, durable=self._is_synced)
            self._keep_record(fd, record)
        else:
            self._keep_record(fd, ready.old_record or b'')

    def _open_status(self, ready: Ready | None = None) -> None:
        """Open it to be switched in place; else, where there is a ``ready``, write one beside it."""
        fd = fileops.open_ours(STATUS, self.folder, os.O_RDWR)
        if fd is not None and os.fstat(fd).st_size != STATUS_LENGTH:
            os.close(fd)
            fd = None
        if fd is None and ready is not None:
            fd = ready.write_beside(STATUS, STATUS_BYTES['pending'], durable=self._is_synced)
        if fd is not None:
            self._keep_status(fd)

    def _keep_record(self, fd: int, data: bytes) -> None:
        self._record, self._record_bytes, self._record_stat = fd, data, os.fstat(fd)

    def _keep_status(self, fd: int) -> None:
        self._status, self._status_stat = fd, os.fstat(fd)

    def _say_pending(self, ready: Ready) -> None:
        ready.is_status_changed = True
        if not ready.put(STATUS):
            self._switch('pending', sync=self._is_synced)
        elif self._is_synced:
            fileops.sync_folder(self.folder)

    def _say_begun(self, ready: Ready, record: bytes) -> None:
        is_put = ready.put(RECORD)
        if not is_put:
            self._rewrite_record(record)
        ready.is_record_changed = True
        if is_put and self._is_synced:
            fileops.sync_folder(self.folder)

    def _take_back(self, ready: Ready, state: State) -> None:
        """Make the directory what it was, as far as that goes; else it has begun."""
        try:
            ready.undo()
            if ready.is_record_changed and ready.old_record is not None:
                fileops.replace(RECORD, ready.old_record, self.folder)
            elif ready.is_record_changed:
                fileops.remove(RECORD, self.folder)
            if ready.is_status_changed and state == 'absent':
                fileops.remove(STATUS, self.folder)
            elif ready.is_status_changed and state in STATUS_BYTES:
                self.set_status(state)
        except OSError:
            # A status that says pending is recovered by the record: by the old one to what it was.
            self.has_begun = ready.is_record_changed

    def _close_files(self) -> None:
        """Those that the function has not closed, whose numbers may be of files of its own by now."""
        ours = [fd for fd in (self._record, self._status) if self._is_ours(fd)]
        for fd in (*ours, *self.logs):
            fileops.close_quietly(fd)
        self.logs, self._record, self._status = (), -1, -1

    def finish(self, status: Status, record: bytes, *, result: bytes | None = None, error: str = '') -> int:
        """Write what came of the run, status.json last. Returns its time in nanoseconds.

        Raises OSError; then status.json still says pending, and the next to look recovers it.
        """
        sync = self._is_synced
        if result is not None:
            os.close(fileops.create(RESULT, result, self.folder, durable=sync))
            self._has_result = True
        if error:
            text = error.encode(errors='backslashreplace')
            with contextlib.suppress(OSError):  # on a full disk: the record says it in one line
                os.close(fileops.create(ERROR, text, self.folder, durable=self._durable))
        # What the record tells of is on the disk before it: from then on a run that is cut off is believed.
        if self._durable:
            for log in self.logs:
                fileops.sync_data(log)
            durability.sync_storage(STORAGE, self.folder, self.path)
        if sync:
            fileops.sync_folder(self.folder)  # the result's name
        self.write_record(record)
        if result is None and self._has_result:  # written, but then its record or its status could not be
            fileops.remove(RESULT, self.folder)
        return self._switch(status, sync=sync)

    def write_record(self, record: bytes) -> None:
        """Rewrite record.json: in place where it is the one that `begin` opened, else by rename."""
        if not self._durable and self._is_in_place(self._record, RECORD):
            self._rewrite_record(record)
        else:
            fileops.replace(RECORD, record, self.folder, durable=self._is_synced)

    def _rewrite_record(self, record: bytes) -> None:
        before = self._record_bytes
        try:
            self._record_bytes = fileops.overwrite(self._record, record, before, durable=self._is_synced)
        except OSError:
            # The args that were asked for stand there and nowhere else: what is torn is put back whole.
            with contextlib.suppress(OSError):
                if fileops.read(RECORD, self.folder) != before:
                    fileops.replace(RECORD, before, self.folder)
            raise

    def set_status(self, status: Status) -> int:
        """Make status.json say ``status``, whatever stands there. Returns its time in nanoseconds."""
        if self._status < 0:
            self._open_status()
        return self._switch(status, sync=self._durable)

    def _switch(self, status: Status, *, sync: bool) -> int:
        """One in-place write where the file is ours alone and has the one length; else a rename.

        Returns its time in nanoseconds.
        """
        data = STATUS_BYTES[status]
        if self._is_in_place(self._status, STATUS):
            try:
                fileops.write_all(self._status, data)
                if sync:
                    fileops.sync_data(self._status)
            except OSError:  # nobody is to believe what the disk may not have
                with contextlib.suppress(OSError):
                    fileops.write_all(self._status, STATUS_BYTES['pending'])
                raise
            return os.fstat(self._status).st_mtime_ns
        fileops.replace(STATUS, data, self.folder, durable=sync)
        return os.stat(STATUS, dir_fd=self.folder, follow_symlinks=False).st_mtime_ns

    def _is_ours(self, fd: int) -> bool:
        """Is it open, and still the file that we opened?"""
        return fd >= 0 and (self._is_trusted or fileops.is_same(fd, self._opened_as(fd)))

    def _opened_as(self, fd: int) -> os.stat_result:
        return self._record_stat if fd == self._record else self._status_stat

    def _is_in_place(self, fd: int, name: str) -> bool:
        """May the file be written in place? It is ours, under that name and no other."""
        return self._is_ours(fd) and fileops.is_alone(self._opened_as(fd), name, self.folder)

    def is_intact(self) -> bool:
        """After a function has run: are our descriptors still ours, and is the directory in its place?"""
        if not fileops.is_same(self.folder, self.folder_stat):
            return False
        self._is_trusted = False
        self._is_trusted = all(fd < 0 or self._is_ours(fd) for fd in (self._record, self._status))
        try:
            now = os.stat(self.path, follow_symlinks=False)
        except OSError:
            return False
        return now.st_ino == self.folder_stat.st_ino and now.st_dev == self.folder_stat.st_dev

    def remove(self) -> None:
        """Remove the directory and all that is in it. Cut off anywhere, the next claim completes that."""
        with fileops.opened(self.collection_path, fileops.LOOK) as parent:
            self._empty(parent)
            for name in (REMOVED, LOCK):  # the lock last: from then on the folder may be somebody else's
                fileops.remove(name, self.folder)
            try:
                os.rmdir(self.name, dir_fd=parent)
            except OSError as error:
                if error.errno not in (errno.ENOTEMPTY, errno.EEXIST, errno.ENOENT):
                    raise

    def completes_removal(self) -> bool:
        """Remove what is left where somebody was killed while removing the directory; False where not."""
        if not is_removed(self.folder):
            return False
        with fileops.opened(self.collection_path, fileops.LOOK) as parent:
            self._empty(parent)
        fileops.remove(REMOVED, self.folder)
        return True

    def _empty(self, parent: int) -> None:
        """From the first step on nobody takes what is left for a resource."""
        try:
            os.rename(STATUS, REMOVED, src_dir_fd=self.folder, dst_dir_fd=self.folder)
        except FileNotFoundError:
            if not is_removed(self.folder):
                os.close(fileops.open_new(REMOVED, self.folder))
        if self._durable:  # or a power cut brings the status back, without what it stood for
            fileops.sync_folder(self.folder)
        trees.clear_folder(self.name, parent, kept=(REMOVED, LOCK))

    def unmake(self) -> None:
        """Remove the directory again where `take` made it, and nothing was put into it since."""
        if not self.created:
            return
        with contextlib.suppress(OSError):
            if self._lock != self.folder:
                fileops.remove(LOCK, self.folder)
            with fileops.opened(self.collection_path, fileops.LOOK) as parent:
                os.rmdir(self.name, dir_fd=parent)

    def __del__(self) -> None:
        if getattr(self, 'folder', -1) >= 0:  # else it was released, or not even begun to be made
            self.release()  # where Ctrl-C came between taking it and keeping it

    def release(self) -> None:
        """Close everything and give the lock back, whatever the disk says of a file as it is closed."""
        if self.folder < 0:
            return
        self._close_files()
        if self._lock != self.folder:
            fileops.unlock(self._lock)
        fileops.unlock(self.folder)
        self.folder = -1
