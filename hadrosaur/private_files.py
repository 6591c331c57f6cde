"""Read and write small files in ``.hadrosaur/``, without following links or blocking on FIFOs."""

from __future__ import annotations

import contextlib
import errno
import os
import stat
from typing import TYPE_CHECKING

from . import fileops
from .errors import BaseUnusable

if TYPE_CHECKING:
    from collections.abc import Iterator

LONGEST_NOTE = 1 << 16
"""Bytes of a small file of ours; what is longer was not written by us."""

FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
"""There is no space, for us at least."""

_NO_LINKS = (errno.EPERM, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK, errno.EACCES)


def read_note(name: str, folder: int) -> tuple[bytes, int]:
    """Return (content, owner) of a small file. Raises ValueError if it is too long, OSError if not a file."""
    fd = os.open(name, fileops.READ, dir_fd=folder)
    try:
        found = os.fstat(fd)
        if not stat.S_ISREG(found.st_mode):
            raise OSError(errno.ENXIO, f'{name} is not a file')
        data = os.pread(fd, LONGEST_NOTE + 1, 0)
    finally:
        os.close(fd)
    if len(data) > LONGEST_NOTE:
        raise ValueError(f'{name} is longer than anything we write there')
    return data, found.st_uid


def sweep(name: str, folder: int) -> None:
    """Remove temporary files of killed writers; a living writer creates its own again."""
    with contextlib.suppress(OSError):
        for other in os.listdir(folder):
            if other.startswith(f'.{name}.') and other.endswith('.new'):
                with contextlib.suppress(OSError):
                    os.unlink(other, dir_fd=folder)


def put_first(name: str, data: bytes, folder: int) -> bool:
    """Create a file atomically; False if another process was faster."""
    beside = f'.{name}.{os.getpid()}.{os.urandom(4).hex()}.new'
    os.close(fileops.create(beside, data, folder))
    try:
        os.link(beside, name, src_dir_fd=folder, dst_dir_fd=folder)
    except FileExistsError:
        return False
    except OSError as error:  # no hard links here
        if error.errno not in _NO_LINKS:
            raise
        os.replace(beside, name, src_dir_fd=folder, dst_dir_fd=folder)
    finally:
        with contextlib.suppress(OSError):
            os.unlink(beside, dir_fd=folder)
    return True


@contextlib.contextmanager
def own_folder(base: str, *names: str, make: bool = False) -> Iterator[int]:
    """Open a folder of ours in a base; closed at the end.

    Raises BaseUnusable if a link or anything else is in its place.
    """
    folder = _opened_each(base, names, make)
    try:
        yield folder
    finally:
        os.close(folder)


def _opened_each(base: str, names: tuple[str, ...], make: bool) -> int:
    if make:
        os.makedirs(base, exist_ok=True)
    path, fd = base, os.open(base, fileops.LOOK & ~os.O_NOFOLLOW)  # the base itself may be a link
    try:
        for name in names:
            path, above = f'{path}/{name}', fd
            if make:
                fileops.make_folder(name, above)
            fd = fileops.open_folder(name, fileops.LOOK, within=above)
            os.close(above)
    except OSError as error:
        os.close(fd)
        if path == base or not fileops.is_no_file(error):
            raise
        raise BaseUnusable(
            f'{path} is not a folder, and hadrosaur keeps its notes there; nothing was changed',
            hint='no link is followed inside a base: move it away',
        )
    return fd


@contextlib.contextmanager
def where_there_is_space() -> Iterator[None]:
    """Ignore a full disk, for files that are dispensable."""
    try:
        yield
    except OSError as error:
        if error.errno not in FULL:
            raise


@contextlib.contextmanager
def as_project_error(path: str) -> Iterator[None]:
    """Turn an OSError about a folder in the place of a file of ours into BaseUnusable."""
    try:
        yield
    except OSError as error:
        if error.errno not in (errno.EISDIR, errno.ENOTEMPTY, errno.EEXIST):
            raise
        raise BaseUnusable(f'{path} cannot be written: {error.strerror}', hint='move it away')
