"""The lock of the index file: shared by who opens it or writes into it, exclusive for who replaces it.

SQLite's own locks guard the content of a file; this one guards which file is the index. Each
connection has a lock object of its own, since a flock belongs to an opening of the lock file: so
threads and processes keep each other out in one way.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import stat
import time
from typing import TYPE_CHECKING

from .. import fileops
from ..errors import IndexBusy
from ..locks import patience
from ._fork_guard import let_go_in_children

if TYPE_CHECKING:
    from collections.abc import Iterator

_FLAGS = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK
_POLL = 0.005  # seconds between attempts of who does not want to wait for long


class IndexLock:
    """One opening of the lock file. Waits for what it asks for as long as the thread's `patience` says."""

    def __init__(self, path: str) -> None:
        self.path = path
        self._fd = -1
        folder, name = os.path.split(path)
        with contextlib.suppress(FileExistsError):
            os.mkdir(folder)
        with fileops.opened(folder, fileops.LOOK) as hidden:  # a link that was put there leads nowhere
            self._fd = fileops.out_of_reach(os.open(name, _FLAGS, 0o666, dir_fd=hidden))
        let_go_in_children(self)
        status = os.fstat(self._fd)
        self._file = (status.st_dev, status.st_ino)
        if not stat.S_ISREG(status.st_mode):
            self.close()
            raise OSError(errno.EINVAL, 'it is not a regular file', path)

    def is_lost(self) -> bool:
        """Has somebody else closed its descriptor? A function may close all that there are."""
        if self._fd < 0:  # it was we
            return False
        try:
            status = os.fstat(self._fd)
        except OSError:
            return True
        return (status.st_dev, status.st_ino) != self._file

    def share(self) -> None:
        """Keep replacers out until `release`."""
        self._wait(fcntl.LOCK_SH)

    def try_share(self) -> bool:
        """`share`, if it takes no waiting."""
        # Below 0: collected together with its connection, and a moment before it.
        return self._fd < 0 or self._try(fcntl.LOCK_SH)

    def try_own(self) -> bool:
        """`own`, if it takes no waiting."""
        return self._try(fcntl.LOCK_EX)

    def _try(self, how: int) -> bool:
        try:
            fcntl.flock(self._fd, how | fcntl.LOCK_NB)
        except OSError:
            return False
        return True

    def own(self) -> None:
        """Keep everybody out until `release`."""
        self._wait(fcntl.LOCK_EX)

    def _wait(self, how: int) -> None:
        if patience.seconds is None:
            fcntl.flock(self._fd, how)
            return
        deadline = 0.0
        while True:
            try:
                fcntl.flock(self._fd, how | fcntl.LOCK_NB)
                return
            except BlockingIOError:
                deadline = deadline or time.monotonic() + patience.seconds
                if time.monotonic() >= deadline:
                    raise IndexBusy('the index is being opened or replaced', hint='try again') from None
                time.sleep(_POLL)

    def release(self) -> None:
        """Give the lock back."""
        fcntl.flock(self._fd, fcntl.LOCK_UN)

    @contextlib.contextmanager
    def shared(self) -> Iterator[None]:
        """`share`, for a with block."""
        self.share()
        try:
            yield
        finally:
            self.release()

    @contextlib.contextmanager
    def owned(self) -> Iterator[None]:
        """`own`, for a with block."""
        self.own()
        try:
            yield
        finally:
            self.release()

    def close(self) -> None:
        """Give back lock and descriptor."""
        is_lost, fd, self._fd = self.is_lost(), self._fd, -1
        if fd >= 0 and not is_lost:
            os.close(fd)

    def close_after_fork(self) -> None:
        """Close, never unlock: a child shares the opening, and unlocking would take the parent's lock."""
        self.close()

    def __del__(self) -> None:
        self.close()
