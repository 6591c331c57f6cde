"""Reading, writing and locking files: the one place where bytes meet the disk.

Everything works on names relative to an open folder (``dir_fd``) and never follows a symlink, so
that a link planted in a project, before or during a run, cannot lead outside of it. How a file is
written depends on what stands there and who may be looking:

* `create`: a file of its own, under a name that nobody believes yet. What stood under that name is
  unlinked, never opened: it may be a link to something else, or be read at this moment.
* `overwrite`: in place, through an open descriptor, padded to its old length. A few µs.
* `replace`: written beside and renamed over. Readers see the old or the new file, never a torn one.
  It costs 70 µs more than an in-place write (ext4, two cores, Python 3.11, 2026).

By default nothing is fsynced: what was written survives the death of any process, since the kernel
has it. With ``durable=True`` it survives a power cut too.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import stat
import threading
import time
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator


class Closeable(Protocol):
    """A socket, or anything else with a descriptor."""

    def fileno(self) -> int:
        """Its descriptor."""

    def close(self) -> None:
        """Close it."""


READ = os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK  # O_NONBLOCK: a FIFO must not hang us
FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
LOOK = getattr(os, 'O_PATH', os.O_RDONLY) | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
"""Flags to open a folder only to reach what is in it (cheaper than `FOLDER`; cannot be locked)."""

_CHUNK = 1 << 16  # bytes; status, record and most results fit, so that one read is enough
_FILE_MODE = 0o666  # narrowed by the user's umask, as open() does
_FOLDER_MODE = 0o777


def read(name: str, folder: int, most: int | None = None) -> bytes:
    """The whole text file. Raises OSError: FileNotFoundError, ELOOP for a symlink.

    A file that is no text of ours is not read to its end: one of more than ``most`` bytes (EFBIG), a
    device (ENODEV), a long one with a zero byte (EILSEQ), which is what the holes of a sparse file give.
    """
    fd = os.open(name, READ, dir_fd=folder)
    try:
        data = os.read(fd, _CHUNK)
        return data if len(data) < _CHUNK else _read_on(fd, data, most)
    finally:
        os.close(fd)


def _read_on(fd: int, data: bytes, most: int | None) -> bytes:
    found = os.fstat(fd)
    if not stat.S_ISREG(found.st_mode):
        raise OSError(errno.ENODEV, 'it is a device, not a file')
    if most is not None and found.st_size > most:
        raise OSError(errno.EFBIG, f'it has {found.st_size:,} bytes, and at most {most:,} can be ours')
    parts: list[bytes] = []
    while data:
        if b'\0' in data:
            raise OSError(errno.EILSEQ, 'it holds zero bytes, which no text does')
        parts.append(data)
        data = os.read(fd, 1 << 20)
    return b''.join(parts)


_NO_FILE = frozenset({
    errno.ELOOP, errno.EISDIR, errno.ENOTDIR, errno.ENXIO, errno.ENODEV, errno.EFBIG, errno.EILSEQ,
    errno.EAGAIN,
})  # fmt: skip


def is_no_file(error: OSError) -> bool:
    """Does something else than a file of ours stand there? Else it could only not be read this time."""
    return error.errno in _NO_FILE


def is_closed(error: OSError) -> bool:
    """Is nothing there that we could open, now or in a moment? Else it could only not be read this time."""
    return is_no_file(error) or isinstance(error, FileNotFoundError | PermissionError)


def is_ours(error: OSError) -> bool:
    """Is it this process that has too little, rather than the file that has something wrong?"""
    return error.errno in (errno.EMFILE, errno.ENFILE, errno.ENOMEM)


def read_tail(name: str, folder: int, length: int) -> bytes:
    """The last ``length`` bytes of the file, or all of it."""
    fd = os.open(name, READ, dir_fd=folder)
    try:
        start = max(0, os.fstat(fd).st_size - length)
        return os.pread(fd, length, start)
    finally:
        os.close(fd)


def write_all(fd: int, data: bytes, offset: int = 0) -> None:
    """Write all of ``data`` at ``offset``, however many calls that takes."""
    done = os.pwrite(fd, data, offset)
    while done < len(data):
        done += os.pwrite(fd, data[done:], offset + done)


def create(name: str, data: bytes, folder: int, *, durable: bool = False, replaces: bool = True) -> int:
    """Write a file of its own that nobody reads yet; returns the descriptor, open for `overwrite`.

    Where it cannot be written, nothing is left of it. ``replaces`` as in `open_new`.
    """
    fd = open_new(name, folder, replaces=replaces)
    try:
        write_all(fd, data)
        if durable:
            sync_data(fd)
    except BaseException:
        os.close(fd)
        with contextlib.suppress(OSError):
            os.unlink(name, dir_fd=folder)
        raise
    return fd


def close_quietly(fd: int) -> None:
    """Close it, whatever the disk says, and though it may be closed already."""
    try:  # noqa: SIM105  contextlib.suppress costs as much as closing
        os.close(fd)
    except OSError:
        pass


def out_of_reach(fd: int) -> int:
    """The same file under another number than 0, 1 or 2, which whoever prints writes to.

    In a program without them (started so, or a function closed them) the next file opened gets theirs;
    as SQLite does it, /dev/null stands there from now on.
    """
    if fd > 2:
        return fd
    moved = fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, 3)
    nowhere = os.open(os.devnull, os.O_RDWR)
    os.dup2(nowhere, fd)
    if nowhere > 2:
        os.close(nowhere)
    return moved


def open_new(name: str, folder: int, flags: int = os.O_WRONLY, *, replaces: bool = True) -> int:
    """A descriptor of a new, empty file, in place of whatever had that name.

    Without ``replaces`` FileExistsError is raised where anything has.
    """
    flags |= os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    try:
        fd = os.open(name, flags, _FILE_MODE, dir_fd=folder)
        return fd if fd > 2 else out_of_reach(fd)
    except FileExistsError:
        if not replaces:
            raise
        remove(name, folder)
        return out_of_reach(os.open(name, flags, _FILE_MODE, dir_fd=folder))


def open_ours(name: str, folder: int, flags: int) -> int | None:
    """A descriptor of a file that stands under this name and no other, so that it may be written in place.

    None where it is absent, a link, a hard link, something else than a file, or not to be written: then
    it can be replaced. Raises OSError where that cannot be known (too many open files, a disk that fails).
    """
    try:
        fd = out_of_reach(os.open(name, flags | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK, dir_fd=folder))
    except OSError as error:
        if is_no_file(error) or isinstance(error, (FileNotFoundError, PermissionError)):
            return None
        raise
    found = os.fstat(fd)
    if stat.S_ISREG(found.st_mode) and found.st_nlink == 1:
        return fd
    os.close(fd)
    return None


def overwrite(fd: int, data: bytes, before: bytes, *, durable: bool = False) -> bytes:
    """Rewrite a JSON file in place, padded with spaces to its old length; returns what stands there now.

    It is never shrunk: truncating costs as much as a rename. Only for files whose readers wait for a
    status that is switched later. Where it cannot be written, what stood there ``before`` is put back.
    """
    if len(data) < len(before):
        data = data.rstrip(b'\n').ljust(len(before) - 1) + b'\n'
    try:
        write_all(fd, data)
        if durable:
            sync_data(fd)
    except BaseException:
        write_all(fd, before)
        os.ftruncate(fd, len(before))
        raise
    return data


def replace(name: str, data: bytes, folder: int, *, durable: bool = False) -> None:
    """Put a whole file in place of another: readers see the old one or the new one."""
    put(write_beside(name, data, folder, durable=durable), name, folder)
    if durable:
        sync_folder(folder)


def beside(name: str) -> str:
    """The name of a file that is to be put in the place of another."""
    return f'.{name}.{os.getpid()}.{threading.get_ident()}.new'


def write_beside(name: str, data: bytes, folder: int, *, durable: bool = False) -> str:
    """Write what is to be `put` in the place of a file; returns its name for now."""
    written = beside(name)
    os.close(create(written, data, folder, durable=durable))
    return written


def refuse_full(name: str, folder: int) -> None:
    """Raises OSError where a folder with something in it stands in the place of a file of ours."""
    with opened(name, within=folder) as inner, os.scandir(inner) as found:
        if next(found, None) is not None:
            what = f'a folder that is not empty stands in the place of {name}: move it away'
            raise OSError(errno.ENOTEMPTY, what)


def put(written: str, name: str, folder: int) -> None:
    """Rename a file to its place; an empty folder that stands there goes. Where that fails, so does it."""
    try:
        try:
            os.replace(written, name, src_dir_fd=folder, dst_dir_fd=folder)
        except IsADirectoryError:  # someone's mistake
            refuse_full(name, folder)
            os.rmdir(name, dir_fd=folder)
            os.replace(written, name, src_dir_fd=folder, dst_dir_fd=folder)
    except BaseException:
        with contextlib.suppress(OSError):
            os.unlink(written, dir_fd=folder)
        raise


def remove(name: str, folder: int) -> None:
    """Unlink the file, if it is there; an empty folder in its place goes too."""
    with contextlib.suppress(FileNotFoundError):
        try:
            os.unlink(name, dir_fd=folder)
        except (IsADirectoryError, PermissionError) as error:  # macOS refuses a folder with EPERM
            try:
                os.rmdir(name, dir_fd=folder)
            except NotADirectoryError:
                raise error


def make_folder(name: str, folder: int) -> bool:
    """Make a folder; False where one of that name is there."""
    try:
        os.mkdir(name, _FOLDER_MODE, dir_fd=folder)
    except FileExistsError:
        return False
    return True


def open_folder(name: str, flags: int = FOLDER, *, within: int | None = None) -> int:
    """A descriptor of a folder that is no symlink. Raises OSError."""
    return out_of_reach(os.open(name, flags, dir_fd=within))


def has_name(folder: int, name: str) -> bool:
    """Is this the very name of an open folder, on a disk that may not tell upper from lower case?

    macOS can be asked; elsewhere such disks are rare, and it is taken for granted.
    """
    if 'F_GETPATH' not in vars(fcntl):  # a quarter of what hasattr costs where there is none
        return True
    path = os.fsdecode(fcntl.fcntl(folder, vars(fcntl)['F_GETPATH'], bytes(1024)).rstrip(b'\0'))
    real = os.path.basename(path)
    return real == name or real.lower() != name.lower()


def list_folders(folder: int) -> Iterator[str]:
    """Names of the folders in an open folder, links left out, in the disk's own order."""
    with os.scandir(folder) as found:
        for entry in found:
            try:
                is_folder = entry.is_dir(follow_symlinks=False)
            except OSError:
                continue
            if is_folder:
                yield entry.name


def is_same(fd: int, known: os.stat_result) -> bool:
    """Is ``fd`` still the file it was? A function may close every descriptor, and numbers are used again."""
    try:
        now = os.fstat(fd)
    except OSError:
        return False
    return now.st_ino == known.st_ino and now.st_dev == known.st_dev


def is_alone(known: os.stat_result, name: str, folder: int) -> bool:
    """Does the file stand under that name and no other?

    Editors put another file in its place, and a hard-linked copy must not change with it.
    """
    try:
        now = os.stat(name, dir_fd=folder, follow_symlinks=False)
    except OSError:
        return False
    return now.st_ino == known.st_ino and now.st_dev == known.st_dev and now.st_nlink == 1


def is_there(name: str, folder: int) -> bool:
    """Does anything stand under that name, be it a link to nowhere?"""
    try:
        os.stat(name, dir_fd=folder, follow_symlinks=False)
    except FileNotFoundError:
        return False
    return True


def sync_data(fd: int) -> None:
    """Wait until the file's bytes are on the disk."""
    _sync(fd, getattr(os, 'fdatasync', os.fsync))


def sync_folder(folder: int) -> None:
    """Wait until the names in the folder are on the disk."""
    _sync(folder, os.fsync)


def _sync(fd: int, call: Callable[[int], None]) -> None:
    if hasattr(fcntl, 'F_FULLFSYNC'):  # macOS, where fsync leaves the bytes in the cache of the drive
        fcntl.fcntl(fd, fcntl.F_FULLFSYNC)
    else:
        call(fd)


# Locks. The kernel frees a flock when the last descriptor of that opening is closed, however the
# process died: within 6 ms in 200 of 200 kill -9. A forked child shares the opening, so it closes its
# copies at once: closing keeps the parent's lock, LOCK_UN in the child would drop it.

_held: dict[int, Closeable | None] = {}  # by descriptor; None: a lock
_NOBODY = object()
_holder = os.getpid()


def _close_in_child() -> None:
    global _holder
    _holder = os.getpid()
    for fd, owner in _held.items():
        with contextlib.suppress(OSError):
            if owner is None:
                os.close(fd)
            else:  # told too, or it would close a stranger of the same number later
                owner.close()
    _held.clear()


os.register_at_fork(after_in_child=_close_in_child)


def try_lock(fd: int, *, shared: bool = False) -> bool:
    """Take the lock of an open file or folder; False where someone else has it.

    The descriptor belongs to the lock from then on: give it back with `unlock`.
    """
    try:
        fcntl.flock(fd, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | fcntl.LOCK_NB)
    except OSError as error:
        if error.errno in (errno.EWOULDBLOCK, errno.EACCES):
            return False
        raise
    _held[fd] = None
    return True


def lock_within(fd: int, patience: float) -> bool:
    """`try_lock`, again and again for ``patience`` seconds."""
    if try_lock(fd):
        return True
    deadline = time.monotonic() + patience
    while not try_lock(fd):
        if time.monotonic() >= deadline:
            return False
        time.sleep(0.001)
    return True


def unlock(fd: int) -> None:
    """Give the lock back and close its descriptor.

    Not only by closing: a child that was forked between opening and locking has a copy that it does not
    know of, and would keep the lock. (In a child, `_held` knows none of the parent's.)
    """
    # A child that is just being forked may collect what the parent's locks belonged to.
    if _held.pop(fd, _NOBODY) is None and os.getpid() == _holder:
        with contextlib.suppress(OSError):  # closing gives it back, too
            fcntl.flock(fd, fcntl.LOCK_UN)
    close_quietly(fd)  # the user's function may have closed it


def forget(fd: int) -> None:
    """The descriptor of a lock is somebody else's by now."""
    _held.pop(fd, None)


def close_in_children(owner: Closeable) -> None:
    """Have a socket closed in every child that is forked from now on; until `close`."""
    _held[owner.fileno()] = owner


def close(owner: Closeable) -> None:
    """Close what was given to `close_in_children`."""
    _held.pop(owner.fileno(), None)
    with contextlib.suppress(OSError):  # the user's function may have closed it
        owner.close()


def is_locked(name: str, folder: int, *, if_refused: bool = True) -> bool:
    """Does anyone hold the lock of this file or folder? Takes it for an instant to find out.

    ``if_refused`` is the answer where the file system does not lock such a thing.
    """
    try:
        fd = os.open(name, READ, dir_fd=folder)
    except OSError as error:
        return not (isinstance(error, FileNotFoundError) or is_no_file(error))  # not to be known: not free
    try:
        if try_lock(fd, shared=True):
            unlock(fd)
            return False
    except OSError:
        os.close(fd)
        return if_refused
    os.close(fd)
    return True


def can_lock(folder: int) -> bool:
    """Does the file system lock folders? Some network file systems refuse."""
    fd = os.open('.', FOLDER, dir_fd=folder)
    try:
        fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except OSError as error:
        return error.errno in (errno.EWOULDBLOCK, errno.EACCES)
    finally:
        os.close(fd)
    return True


@contextlib.contextmanager
def opened(name: str, flags: int = FOLDER, *, within: int | None = None) -> Iterator[int]:
    """`open_folder`, closed at the end."""
    fd = open_folder(name, flags, within=within)
    try:
        yield fd
    finally:
        os.close(fd)


@contextlib.contextmanager
def opened_below(parent: str, name: str, flags: int = LOOK) -> Iterator[int]:
    """A folder in a folder, neither of them a symlink, to reach what is in it; closed at the end.

    With `FOLDER` it can be listed. By its path it never is: a link may stand there a moment later.
    """
    with opened(parent, LOOK) as above, opened(name, flags, within=above) as folder:
        yield folder
