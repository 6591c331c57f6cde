"""Read a resource as a stream of files, followed by a manifest that lists them with their checksums.

`pack` reads a resource and passes its files to a `Carrier`: a tar writer, or a builder of folders. Resources
are read without taking their lock, so a running computation is never delayed. If another run begins while a
resource is read, the carrier is told that it is void, and the resource is read again.
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
DEEPEST = 500  # maximum nesting of folders in a storage
CHUNK = 1 << 20  # bytes read at once
TRIES = 5  # attempts to read a resource that is recomputed all the time
NEVER = frozenset({directory.LOCK, directory.REMOVED})
"""Files of a resource that are never transferred."""


class Origin(NamedTuple):
    """The place of a resource that is read."""

    collection: str
    ident: str
    base: str  # absolute path
    path: str  # of its collection's folder
    folder: str  # its own folder's name there


class Readable(Protocol):
    """A readable binary stream."""

    def read(self, most: int, /) -> bytes:
        """Read up to `most` bytes; b'' at the end."""


class Carrier(Protocol):
    """Consumer of a resource: `begin`, then its folders and files, then `end` or `void`."""

    def begin(self, collection: str, ident: str) -> None:
        """Start a resource."""

    def folder(self, path: str) -> None:
        """Add a folder; ``path`` is relative to the resource's folder."""

    def file(self, path: str, data: Readable, size: int, mode: int) -> None:
        """Add a file of exactly ``size`` bytes."""

    def end(self, listed: dict[str, Any]) -> None:
        """The resource is complete; ``listed`` is its manifest, as `pack` returns it."""

    def void(self) -> None:
        """Discard everything since `begin`."""


class Nobody:
    """A carrier that discards everything, to compute a manifest."""

    def begin(self, collection: str, ident: str) -> None:
        """Nothing."""

    def folder(self, path: str) -> None:
        """Nothing."""

    def file(self, path: str, data: Readable, size: int, mode: int) -> None:
        """Read the file to its end."""
        while data.read(CHUNK):
            pass

    def end(self, listed: dict[str, Any]) -> None:
        """Nothing."""

    def void(self) -> None:
        """Nothing."""


class Hashed:
    """Read and hash exactly ``size`` bytes; if the file is shorter, pad with zeros and set ``is_short``."""

    def __init__(self, data: Readable, size: int) -> None:
        self._data = data
        self._left = size
        self._hash = hashlib.sha256()
        self.is_short = False

    def read(self, most: int = CHUNK, /) -> bytes:
        """Read up to `most` bytes; b'' at the end."""
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
        """SHA-256 of the bytes read so far, in hex."""
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
    """Another run began while the resource was read."""


class Broken(Exception):
    """A file cannot be read: (errno, reason)."""


class Undelivered(Exception):
    """The carrier raised an OSError, as on a full disk; the resource itself could be read."""

    def __init__(self, error: OSError) -> None:
        super().__init__(str(error))
        self.error = error


def _told(call: Callable[..., None], *values: Any) -> None:
    try:
        call(*values)
    except OSError as error:
        raise Undelivered(error) from error


def origins(base: str, only: str | None = None) -> Iterator[tuple[Origin | None, str]]:
    """Yield (origin, '') for each resource of a base, pending ones too; (None, reason) for a broken one."""
    folder = None if only is None else canonical.collection_folder(only)
    for found in scan.walk(base, folder):
        above, _, name = found.name.rpartition('/')
        if found.entry is not None:
            yield Origin(found.collection, found.entry.ident, base, f'{base}/{above}', name), ''
        elif found.problem is not None:
            yield None, f'{found.name}: {found.problem}'


def pack(origin: Origin, carrier: Carrier) -> dict[str, Any] | None:
    """Pass a resource to a carrier; return its manifest, or None if it is pending or gone.

    Raises Unreadable if it cannot be read, or changes during every attempt.
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
        raise _unreadable(origin, 'it was recomputed during every attempt')
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
    """The record of an open folder, rewritten for another ident. Raises Changed."""
    state = directory.read_status(top)
    if state not in ('completed', 'error'):
        raise Changed
    path = f'{canonical.collection_folder(collection)}/{canonical.folder_name(ident)}'
    data = recover.record_of(directory.entry_of(collection, ident, path, state, top, record), top, record)
    if data is None:
        raise OSError(errno.EILSEQ, 'its result is damaged')
    return data


def _mark(top: int) -> tuple[Any, ...]:
    """A value that differs after another run. Raises Changed if the resource is not finished."""
    status = directory.read_status(top)
    if status not in ('completed', 'error'):
        raise Changed
    return status, directory.status_mtime(top), directory.record_data(top)


def _tells_of_another(record: dict[str, Any], origin: Origin) -> bool:
    """Was the folder copied by hand, so that its record names another resource?"""
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
            'mtime_ns': min(max(0, found.st_mtime_ns), (1 << 62) - 1),
            'executable': bool(found.st_mode & 0o100),
        }
    )


@contextlib.contextmanager
def below(top: int, parts: tuple[str, ...]) -> Iterator[int]:
    """Open a subfolder without following links; uses two descriptors at any depth."""
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
    """Does the resource at ``origin`` have the same files? Records may differ, since they hold the ident."""
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
