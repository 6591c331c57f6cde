"""A resource on its way from one base to another: its files, and a list of them with their checksums.

Whatever carries it (a tar, or a copy from folder to folder) takes `pack`'s calls in order, and gets the list
last. A resource is read without its lock, so that nothing that is computed waits for it: if another run began
meanwhile, what was carried is void, and it is read again.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import stat
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

from .. import canonical, directory, fileops, provenance, recover, scan
from ..errors import Unreadable

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

FORMAT = 1
DEEPEST = 500  # folders below each other in a storage
CHUNK = 1 << 20  # bytes in memory at once
TRIES = 5  # to read a resource that is computed again and again
NEVER = frozenset({directory.LOCK, directory.REMOVED})
"""Names in a resource's folder that are of this base alone."""


class Origin(NamedTuple):
    """Where a resource is read from."""

    collection: str
    ident: str
    base: str  # absolute path
    path: str  # of its collection's folder
    folder: str  # its own folder's name there


class Readable(Protocol):
    """What bytes are read from."""

    def read(self, most: int, /) -> bytes:
        """So many bytes, or fewer; b'' at the end."""


class Carrier(Protocol):
    """What takes a resource: `begin`, then its folders and files, then `end` or `void`."""

    def begin(self, collection: str, ident: str) -> None:
        """The next resource."""

    def folder(self, path: str) -> None:
        """A folder in it; ``path`` is relative to the resource's own."""

    def file(self, path: str, data: Readable, size: int, mode: int) -> None:
        """A file in it, of exactly so many bytes."""

    def end(self, listed: dict[str, Any]) -> None:
        """All of it was read; the list of its files, as `pack` returns it."""

    def void(self) -> None:
        """What was carried since `begin` is not to be believed."""


class Nobody:
    """Carries nothing: for the list alone."""

    def begin(self, collection: str, ident: str) -> None:
        """Nothing."""

    def folder(self, path: str) -> None:
        """Nothing."""

    def file(self, path: str, data: Readable, size: int, mode: int) -> None:
        """Read it to its end."""
        while data.read(CHUNK):
            pass

    def end(self, listed: dict[str, Any]) -> None:
        """Nothing."""

    def void(self) -> None:
        """Nothing."""


class Hashed:
    """Reads exactly so many bytes of a file, and hashes them; what is missing is zeros, and ``is_short``."""

    def __init__(self, data: Readable, size: int) -> None:
        self._data = data
        self._left = size
        self._hash = hashlib.sha256()
        self.is_short = False

    def read(self, most: int = CHUNK, /) -> bytes:
        """So many bytes, or fewer; b'' at the end."""
        most = min(most, self._left, CHUNK)
        try:
            found = self._data.read(most) if most else b''
        except OSError as error:
            raise Broken(error.errno, error.strerror) from error
        if most and not found:
            self.is_short = True
            found = bytes(most)
        self._left -= len(found)
        self._hash.update(found)
        return found

    def checksum(self) -> str:
        """SHA-256 of what was read, in hex."""
        return self._hash.hexdigest()


class _File:
    def __init__(self, fd: int) -> None:
        self._fd = fd

    def read(self, most: int, /) -> bytes:
        return os.read(self._fd, most)


class _Bytes:
    def __init__(self, data: bytes) -> None:
        self._data = data

    def read(self, most: int, /) -> bytes:
        found, self._data = self._data[:most], self._data[most:]
        return found


class Changed(Exception):
    """Another run began while a resource was read."""


class Broken(Exception):
    """A file cannot be read: (errno, why)."""


class Undelivered(Exception):
    """The carrier failed: an OSError that has nothing to do with what was read."""

    def __init__(self, error: OSError) -> None:
        super().__init__(str(error))
        self.error = error


def _told(call: Callable[..., None], *values: Any) -> None:
    try:
        call(*values)
    except OSError as error:
        raise Undelivered(error) from error


def origins(base: str, only: str | None = None) -> Iterator[tuple[Origin | None, str]]:
    """(where it is read from, '') of each finished resource of a base, or (None, why it is left out)."""
    folder = None if only is None else canonical.collection_folder(only)
    for found in scan.walk(base, folder):
        above, _, name = found.name.rpartition('/')
        if found.entry is not None and found.entry.status in ('completed', 'error'):
            yield Origin(found.collection, found.entry.ident, base, f'{base}/{above}', name), ''
        elif found.entry is not None or found.problem is not None:
            yield None, f'{found.name}: {found.problem or "it is pending"}'


def pack(origin: Origin, carrier: Carrier) -> dict[str, Any] | None:
    """Have a resource carried; returns the list of its files, None where it is not finished, or gone.

    Raises Unreadable where it cannot be read, or is another each time it is looked at.
    """
    for _ in range(TRIES):
        try:
            return _pack(origin, carrier)
        except Undelivered as failed:
            raise failed.error from None
        except (Changed, FileNotFoundError):
            carrier.void()
        except (OSError, Broken) as error:
            carrier.void()
            raise _unreadable(origin, str(error.args[-1])) from error
    try:
        with fileops.opened_below(origin.path, origin.folder) as folder:
            state = directory.read_status(folder)
    except OSError:
        state = 'absent'
    if state in ('completed', 'error'):
        raise _unreadable(origin, 'it is another one each time it is read')
    return None


def _unreadable(origin: Origin, why: str) -> Unreadable:
    where = f'{origin.path}/{origin.folder}'
    return Unreadable(f'{where} cannot be read: {why}', collection=origin.collection, ident=origin.ident)


def _pack(origin: Origin, carrier: Carrier) -> dict[str, Any]:
    with fileops.opened_below(origin.path, origin.folder, fileops.FOLDER) as top:
        mark = _mark(top)
        if mark[0] == 'completed' and directory.read_result(top) is None:
            raise OSError(errno.EILSEQ, f'{directory.RESULT} is damaged')
        _told(carrier.begin, origin.collection, origin.ident)
        listed: dict[str, Any] = {
            'format': FORMAT, 'collection': origin.collection, 'ident': origin.ident,
            'folders': [], 'files': [], 'left_out': [],
        }  # fmt: skip
        record = directory.read_record(top) or {}
        told = provenance.read(origin.base, record.get('provenance'))
        if told is not None:
            listed['provenance'] = told
        paths: list[tuple[str, ...]] = [()]
        while paths:
            parts = paths.pop()
            with below(top, parts) as folder:
                for name in sorted(os.listdir(folder)):
                    if not parts and (name in NEVER or directory.is_litter(name)):
                        continue
                    kind = os.stat(name, dir_fd=folder, follow_symlinks=False).st_mode
                    path = '/'.join((*parts, name))
                    if stat.S_ISDIR(kind) and len(parts) < DEEPEST:
                        _told(carrier.folder, path)
                        listed['folders'].append(path)
                        paths.append((*parts, name))
                    elif not stat.S_ISREG(kind):
                        listed['left_out'].append(path)
                    elif path == directory.RECORD and _tells_of_another(record, origin):
                        data = rewritten(origin.collection, origin.ident, top, record)
                        found = os.stat(path, dir_fd=top, follow_symlinks=False)
                        _carry(carrier, listed, path, _Bytes(data), found, len(data))
                    else:
                        _carry_file(carrier, listed, path, name, folder)
        if _mark(top) != mark:
            raise Changed
        _told(carrier.end, listed)
        return listed


def rewritten(collection: str, ident: str, top: int, record: dict[str, Any]) -> bytes:
    """The record of an open directory as that of a resource of another name. Raises Changed."""
    state = directory.read_status(top)
    if state not in ('completed', 'error'):
        raise Changed
    path = f'{canonical.collection_folder(collection)}/{canonical.folder_name(ident)}'
    data = recover.record_of(directory.entry_of(collection, ident, path, state, top, record), top, record)
    if data is None:
        raise OSError(errno.EILSEQ, 'its result is damaged')
    return data


def _mark(top: int) -> tuple[Any, ...]:
    """What is another after another run. Raises Changed where it is not finished."""
    status = directory.read_status(top)
    if status not in ('completed', 'error'):
        raise Changed
    return status, directory.status_mtime(top), directory.record_data(top)


def _tells_of_another(record: dict[str, Any], origin: Origin) -> bool:
    """Was the folder copied by hand? Then its record is to tell of the resource that it is now."""
    return bool(record) and (record.get('collection'), record.get('ident')) != (
        origin.collection,
        origin.ident,
    )


def _carry_file(carrier: Carrier, listed: dict[str, Any], path: str, name: str, folder: int) -> None:
    fd = os.open(name, fileops.READ, dir_fd=folder)
    try:
        found = os.fstat(fd)
        if not stat.S_ISREG(found.st_mode):  # put there a moment ago
            raise Changed
        _carry(carrier, listed, path, _File(fd), found, found.st_size)
    finally:
        os.close(fd)


def _carry(
    carrier: Carrier, listed: dict[str, Any], path: str, data: Readable, found: os.stat_result, size: int
) -> None:
    hashed = Hashed(data, size)
    _told(carrier.file, path, hashed, size, found.st_mode)
    if hashed.is_short:
        raise Changed
    listed['files'].append(
        {
            'path': path,
            'size': size,
            'sha256': hashed.checksum(),
            'mtime_ns': found.st_mtime_ns,
            'executable': bool(found.st_mode & 0o100),
        }
    )


@contextlib.contextmanager
def below(top: int, parts: tuple[str, ...]) -> Iterator[int]:
    """A folder some way below an open one, no part of the way a link; two descriptors, however deep."""
    folder = os.dup(top)
    try:
        for part in parts:
            inner = fileops.open_folder(part, within=folder)
            os.close(folder)
            folder = inner
        yield folder
    finally:
        os.close(folder)


def is_same(listed: dict[str, Any], origin: Origin) -> bool:
    """Do these very files stand there, record and list aside of how they were named?"""
    with contextlib.suppress(OSError):
        with fileops.opened_below(origin.path, origin.folder) as top:
            for each in listed['files']:
                *parts, name = each['path'].split('/')
                if each['path'] == directory.RECORD:
                    continue
                with below(top, tuple(parts)) as folder:
                    found = os.stat(name, dir_fd=folder, follow_symlinks=False)
                    if not stat.S_ISREG(found.st_mode) or found.st_size != each['size']:
                        return False
        there = pack(origin, Nobody())
        return there is not None and _contents(there) == _contents(listed)
    return False


def _contents(listed: dict[str, Any]) -> dict[str, str]:
    return {each['path']: each['sha256'] for each in listed['files'] if each['path'] != directory.RECORD}
