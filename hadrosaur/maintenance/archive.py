"""The archive format: a tar with the files of each resource, followed by a manifest with their checksums.

::

    .hadrosaur-export/about.json            format version; first
    <collection>/<resource>/…               the files of a resource, named as in a base directory
    .hadrosaur-export/<collection>/<resource>.json      its manifest, see parcels.py
    .hadrosaur-export/end.json              number of resources; last, so that truncation is detected

Writing and reading both stream. The reader trusts nothing: target folders are derived from collection and
ident, never from member names; only regular files and folders are accepted, each once, and no more bytes than
the disk can hold; a resource counts only after its manifest was read and matches.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import sys
import tarfile
from typing import IO, TYPE_CHECKING, Any

from .. import canonical, directory
from ..errors import BadArchive, InvalidIdent
from .parcels import DEEPEST, FORMAT, NEVER, Carrier, Hashed, Readable

if TYPE_CHECKING:
    from collections.abc import Iterator

OWN = '.hadrosaur-export'
ABOUT, END = f'{OWN}/about.json', f'{OWN}/end.json'
LIST_MOST = 64 << 20  # bytes of a manifest: about 300 000 files
_HEADER_MOST = 1 << 20  # bytes of an extended header, such as a long name
_THEIRS = {'gzip', 'zlib', 'lzma', '_lzma', 'backports', 'compression', '_zstd'}
"""Modules whose exceptions mean damaged data; so does an OSError without errno."""
_SUFFIXES = {'.gz': 'gzip', '.tgz': 'gzip', '.zst': 'zstd', '.tzst': 'zstd', '.bz2': 'bz2', '.xz': 'lzma'}
_MAGIC = {'gzip': b'\x1f\x8b', 'zstd': b'\x28\xb5\x2f\xfd', 'bz2': b'BZh', 'lzma': b'\xfd7zXZ\0'}
_MAGIC_LENGTH = 6


def compressed(file: IO[bytes], name: str) -> IO[bytes]:
    """Wrap a file for compression by the suffix of its name. Raises BadArchive if a library is missing."""
    return _wrapped(file, _SUFFIXES.get(os.path.splitext(name)[1].lower()), 'wb')


def decompressed(file: IO[bytes]) -> IO[bytes]:
    """Wrap a stream for decompression by its first bytes. Raises BadArchive if a library is missing."""
    head = file.read(_MAGIC_LENGTH)
    kind = next((kind for kind, magic in _MAGIC.items() if head.startswith(magic)), None)
    return _wrapped(_Prefixed(head, file), kind, 'rb')  # type: ignore[arg-type]


class _Prefixed:
    """A stream whose first bytes were read already."""

    def __init__(self, head: bytes, file: IO[bytes]) -> None:
        self._head = head
        self._file = file

    def read(self, size: int = -1) -> bytes:
        if not self._head:
            return self._file.read(size)
        size = len(self._head) if size < 0 else size
        found, self._head = self._head[:size], self._head[size:]
        return found


def _wrapped(file: IO[bytes], kind: str | None, mode: str) -> IO[bytes]:
    if kind is None:
        return file
    import importlib

    module = _zstd() if kind == 'zstd' else importlib.import_module(kind)
    wrapped: IO[bytes] = module.open(file, mode)
    return wrapped


@contextlib.contextmanager
def new_file(path: str, *, overwrite: bool) -> Iterator[IO[bytes]]:
    """A stream to a new file that appears when it is complete. Raises BadArchive if it cannot be made."""
    if not overwrite and os.path.lexists(path):
        raise BadArchive(f'{path!r} is there already', hint='choose another name, or say --force')
    if not os.path.isdir(above := os.path.dirname(path) or '.'):
        raise BadArchive(f'there is no folder {above!r} to write to', hint='make it first')
    beside = f'{path}.{os.getpid()}.part'
    try:
        with open(beside, 'wb') as file:
            stream = compressed(file, path)
            yield stream
            if stream is not file:
                stream.close()
            file.flush()
            os.fsync(file.fileno())
        os.replace(beside, path)
    except BaseException:
        with contextlib.suppress(OSError):
            os.unlink(beside)
        raise


def _zstd() -> Any:
    try:
        if sys.version_info >= (3, 14):
            from compression import zstd
        else:
            from backports import zstd
    except ImportError:
        raise BadArchive(
            '.zst takes a library that is not installed', hint="pip install 'hadrosaur[zstd]', or use .tar.gz"
        ) from None
    return zstd


# --- writing ---------------------------------------------------------------------------------------


class _Counted:
    """A pipe with the `tell` that tarfile needs."""

    def __init__(self, stream: IO[bytes]) -> None:
        self._stream = stream
        self._at = 0

    def tell(self) -> int:
        return self._at

    def write(self, data: bytes) -> None:
        self._stream.write(data)
        self._at += len(data)


class Writer:
    """A carrier that writes a tar stream."""

    def __init__(self, stream: IO[bytes]) -> None:
        self._tar = tarfile.TarFile(mode='w', fileobj=_Counted(stream), format=tarfile.PAX_FORMAT)  # type: ignore[arg-type]
        self._place = ''
        self.count = 0
        self._add_document(ABOUT, {'format': FORMAT, 'what': 'resources of hadrosaur'})

    def begin(self, collection: str, ident: str) -> None:
        """Start a resource."""
        self._place = f'{canonical.collection_folder(collection)}/{canonical.folder_name(ident)}'
        self._add_folder(self._place)

    def _add_folder(self, name: str) -> None:
        member = tarfile.TarInfo(name)
        member.type, member.mode = tarfile.DIRTYPE, 0o755
        self._add(member)

    def _add(self, member: tarfile.TarInfo, data: Any = None) -> None:
        self._tar.addfile(member, data)
        _forget(self._tar)

    def folder(self, path: str) -> None:
        """Add a folder."""
        self._add_folder(f'{self._place}/{path}')

    def file(self, path: str, data: Readable, size: int, mode: int) -> None:
        """Add a file."""
        member = tarfile.TarInfo(f'{self._place}/{path}')
        member.size = size
        member.mode = 0o755 if mode & 0o100 else 0o644
        self._add(member, data)

    def end(self, listed: dict[str, Any]) -> None:
        """Write the manifest."""
        self.count += 1
        self._add_document(f'{OWN}/{self._place}.json', listed)
        self._place = ''

    def void(self) -> None:
        """Mark everything since `begin` as void."""
        if self._place:
            self._add_document(f'{OWN}/{self._place}.json', {'format': FORMAT, 'void': True})
            self._place = ''

    def _add_document(self, name: str, document: dict[str, Any]) -> None:
        data = json.dumps(document, indent=1).encode()
        member = tarfile.TarInfo(name)
        member.size = len(data)
        self._add(member, io.BytesIO(data))

    def close(self) -> None:
        """Write the end."""
        self._add_document(END, {'format': FORMAT, 'resources': self.count})
        self._tar.close()


# --- reading ---------------------------------------------------------------------------------------


class _Member(tarfile.TarInfo):
    """Refuse long extended headers, which tarfile reads into memory."""

    def _proc_member(self, tar: tarfile.TarFile) -> Any:
        if self.type not in (tarfile.REGTYPE, tarfile.AREGTYPE, tarfile.DIRTYPE) and self.size > _HEADER_MOST:
            raise BadArchive(f'a header in it has {self.size:,} bytes')
        return super()._proc_member(tar)  # type: ignore[misc]


def read(stream: IO[bytes], carrier: Carrier) -> Iterator[dict[str, Any]]:
    """Pass each resource of a tar stream to a carrier, and yield its verified manifest.

    The caller calls the carrier's `end`. Raises BadArchive for anything that `Writer` never writes.
    """
    try:
        yield from _Reading(stream, carrier).resources()
    except BadArchive:
        raise
    except (tarfile.TarError, EOFError, ValueError, OverflowError) as error:
        raise BadArchive(f'it is damaged, or no tar file: {error}') from error
    except Exception as error:
        is_theirs = type(error).__module__.partition('.')[0] in _THEIRS or type(error) is OSError
        if is_theirs and getattr(error, 'errno', None) is None:
            raise BadArchive(f'it is damaged: {error}') from error
        raise


class _Reading:
    def __init__(self, stream: IO[bytes], carrier: Carrier) -> None:
        self._tar = tarfile.open(fileobj=stream, mode='r|', tarinfo=_Member)  # noqa: SIM115
        self._carrier = carrier
        self._place: str | None = None
        self._folders: list[str] = []
        self._files: dict[str, tuple[int, str]] = {}
        self._idents: set[int] = set()

    def resources(self) -> Iterator[dict[str, Any]]:
        about = self._next()
        if about is None or about.name != ABOUT or self._document(about).get('format') != FORMAT:
            raise BadArchive('it was not written by `hadrosaur export`, or by a newer release')
        count = 0
        while (member := self._next()) is not None:
            if member.name == END:
                if self._place is not None or self._document(member).get('resources') != count:
                    raise BadArchive('resources in it are missing')
                return
            if member.name.startswith(f'{OWN}/'):
                listed = self._listed(member)
                if listed is not None:
                    count += 1
                    yield listed
            else:
                self._take(member)
        raise BadArchive(f'its end is missing, behind {count} resources')

    def _next(self) -> tarfile.TarInfo | None:
        member = self._tar.next()
        _forget(self._tar)
        if member is None:
            return None
        if (
            member.type not in (tarfile.REGTYPE, tarfile.AREGTYPE, tarfile.DIRTYPE)
            or member.sparse is not None
        ):
            raise BadArchive(f'{_shown(member.name)} is no plain file or folder')
        if member.size < 0 or (member.isdir() and member.size):
            raise BadArchive(f'{_shown(member.name)} has an impossible size')
        return member

    def _document(self, member: tarfile.TarInfo) -> dict[str, Any]:
        if not member.isreg() or member.size > LIST_MOST:
            raise BadArchive(f'{_shown(member.name)} is no list of ours')
        file = self._tar.extractfile(member)
        try:
            found = json.loads(file.read() if file is not None else b'')
        except RecursionError:
            found = None
        if not isinstance(found, dict):
            raise BadArchive(f'{_shown(member.name)} is no list of ours')
        return found

    # --- files -------------------------------------------------------------------------------------

    def _take(self, member: tarfile.TarInfo) -> None:
        parts = member.name.rstrip('/').split('/') if member.isdir() else member.name.split('/')
        if (
            len(parts) < 2
            or len(parts) > DEEPEST + 3
            or any(part in ('', '.', '..') or '\0' in part for part in parts)
        ):
            raise BadArchive(f'{_shown(member.name)} is no place in a collection')
        place, path = '/'.join(parts[:2]), '/'.join(parts[2:])
        if self._place is None:
            self._place, self._folders, self._files = place, [], {}
            self._carrier.begin(*parts[:2])
        if place != self._place:
            raise BadArchive(f'{_shown(self._place)} has no list of its files')
        if not path:
            if not member.isdir() or self._folders or self._files:
                raise BadArchive(f'{_shown(member.name)} is there twice, or no folder')
            return
        if path in self._files or path in self._folders or parts[2] in NEVER or directory.is_litter(parts[2]):
            raise BadArchive(f'{_shown(member.name)} is there twice, or has a name of ours')
        try:
            self._carry(member, path)
        except (FileExistsError, FileNotFoundError, NotADirectoryError, IsADirectoryError) as error:
            raise BadArchive(f'{_shown(member.name)} has no place: {error.strerror}') from error

    def _carry(self, member: tarfile.TarInfo, path: str) -> None:
        if member.isdir():
            self._carrier.folder(path)
            self._folders.append(path)
            return
        file = self._tar.extractfile(member)
        assert file is not None
        hashed = Hashed(file, member.size)
        self._carrier.file(path, hashed, member.size, member.mode)
        if hashed.is_short:
            raise BadArchive(f'it ends within {_shown(member.name)}')
        self._files[path] = (member.size, hashed.checksum())

    # --- lists -------------------------------------------------------------------------------------

    def _listed(self, member: tarfile.TarInfo) -> dict[str, Any] | None:
        """The verified manifest of the resource just read; None if it is void."""
        place, self._place = self._place, None
        if place is None or member.name != f'{OWN}/{place}.json':
            raise BadArchive(f'{_shown(member.name)} is the list of no resource')
        listed = self._document(member)
        if listed.get('void') is True:
            self._carrier.void()
            return None
        name = _shown(place)
        try:
            collection, ident = listed['collection'], listed['ident']
            expected = f'{canonical.collection_folder(collection)}/{canonical.folder_name(ident)}'
            files = {each['path']: (each['size'], each['sha256']) for each in listed['files']}
            are_times = all(
                type(each['mtime_ns']) is int and 0 <= each['mtime_ns'] < 1 << 62 for each in listed['files']
            )
            folders = list(listed['folders'])
        except (KeyError, TypeError, AttributeError, InvalidIdent) as error:
            raise BadArchive(f'the list of {name} is none of ours: {error}') from error
        if type(collection) is not str or type(ident) is not str or expected != place or not are_times:
            raise BadArchive(f'the list of {name} is that of another resource')
        for path in files.keys() | self._files.keys():
            if files.get(path) != self._files.get(path):
                raise BadArchive(
                    f'{name}/{_shown(path)} is not what its checksum says, or missing, or too much'
                )
        if len(files) != len(listed['files']) or sorted(folders) != sorted(self._folders):
            raise BadArchive(f'{name} has other folders than its list')
        key = hash((collection, ident))
        if key in self._idents:
            raise BadArchive(f'{name} is there twice')
        self._idents.add(key)
        return listed


def _forget(tar: tarfile.TarFile) -> None:
    """Do not keep the header of every file in memory."""
    tar.members.clear()  # type: ignore[attr-defined]


def _shown(name: str) -> str:
    from ..sanitize import printable

    text = name.encode(errors='backslashreplace').decode()
    return printable(text if len(text) < 200 else f'{text[:200]}…')
