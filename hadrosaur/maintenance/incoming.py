"""Staging area for resources that are brought into a base: build, validate, then move in atomically.

A resource is built in ``.hadrosaur/incoming/<session>/``, which the next import removes if this process is
killed. To move it in, its own folder is created empty and locked, and the staged folder is renamed over it: a
rename replaces an empty folder atomically, so a partial resource is never visible. Its row is set to pending
under our session first; after a crash, recovery then sets the row to what the folder says.
"""

from __future__ import annotations

import contextlib
import errno
import os
from typing import TYPE_CHECKING, Any, NamedTuple

from .. import directory, durability, fileops, private_files, provenance, trees
from ..basedir import HIDDEN, is_of_this_machine
from ..directory.claim import Claim
from ..errors import BadArchive, ResourceError
from . import parcels

if TYPE_CHECKING:
    from ..registry import Collection
    from ..store import Store
    from .parcels import Readable

INCOMING = 'incoming'
"""Folder of the staging areas."""
GROUP = 32  # resources that get their place, and their rows, together
_LARGE = 1 << 26  # bytes; free space is checked before a larger file is written
_TRIES = 100  # attempts to move in, while others create and remove the folder


class Built(NamedTuple):
    """A staged resource."""

    collection: str
    ident: str
    name: str  # of its folder in the staging area
    listed: dict[str, Any]


class Incoming:
    """A staging area, and a `Carrier` that builds resources in it.

    Attributes:
        built: Complete resources that were not moved in yet.
    """

    def __init__(self, store: Store, *, durable: bool = False) -> None:
        self._store = store
        self._durable = durable
        self._base = store.base.path
        session = store.base.session()
        if session is None:
            raise OSError(errno.EROFS, os.strerror(errno.EROFS), self._base)
        self._path = f'{self._base}/{HIDDEN}/{INCOMING}'
        with private_files.own_folder(self._base, HIDDEN, INCOMING, make=True):
            pass
        self._name = f'{session}.{os.urandom(4).hex()}'
        with fileops.opened(self._path) as incoming:
            self._sweep(incoming)
            fileops.make_folder(self._name, incoming)
            self._ours = fileops.open_folder(self._name, within=incoming)
        self._count = 0
        self._top = -1
        self.built: list[Built] = []

    def _sweep(self, incoming: int) -> None:
        """Remove staging areas of dead processes of this machine; locks of others may not be visible here."""
        for name in os.listdir(incoming):
            session = name.rpartition('.')[0]
            if is_of_this_machine(session) and not self._store.base.is_alive(session):
                with contextlib.suppress(OSError):
                    trees.remove_tree(name, incoming)

    def close(self) -> None:
        """Remove the staging area."""
        self.void()
        os.close(self._ours)
        with contextlib.suppress(OSError), fileops.opened(self._path) as incoming:
            trees.remove_tree(self._name, incoming)

    # --- building ----------------------------------------------------------------------------------

    def begin(self, collection: str, ident: str) -> None:
        """Start a resource."""
        self._count += 1
        fileops.make_folder(str(self._count), self._ours)
        self._top = fileops.open_folder(str(self._count), within=self._ours)

    def folder(self, path: str) -> None:
        """Add a folder."""
        *parts, name = path.split('/')
        with parcels.below(self._top, tuple(parts)) as folder:
            os.mkdir(name, 0o777, dir_fd=folder)

    def file(self, path: str, data: Readable, size: int, mode: int) -> None:
        """Add a file."""
        if size > _LARGE and size > (free := free_space(self._ours)[0]):
            raise OSError(errno.ENOSPC, f'{path} has {size:,} bytes, and {free:,} are free', self._base)
        *parts, name = path.split('/')
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
        with parcels.below(self._top, tuple(parts)) as folder:
            fd = os.open(name, flags, 0o777 if mode & 0o100 else 0o666, dir_fd=folder)
            try:
                while part := data.read(parcels.CHUNK):
                    while part:
                        part = part[os.write(fd, part) :]
            finally:
                os.close(fd)

    def end(self, listed: dict[str, Any]) -> None:
        """Validate the resource. Raises BadArchive if it is not a finished resource of this name."""
        self._check(listed)
        for each in listed['files']:
            *parts, name = each['path'].split('/')
            with parcels.below(self._top, tuple(parts)) as folder:
                times = (each['mtime_ns'], each['mtime_ns'])
                os.utime(name, ns=times, dir_fd=folder, follow_symlinks=False)
        os.close(self._top)
        self._top = -1
        self.built.append(Built(listed['collection'], listed['ident'], str(self._count), listed))

    def _check(self, listed: dict[str, Any]) -> None:
        name = f'{listed["collection"]}/{listed["ident"]}'
        state = directory.read_status(self._top)
        if state not in ('completed', 'error'):
            raise BadArchive(f'{name} is no finished resource: its status.json says {state}')
        if state == 'completed' and directory.read_result(self._top) is None:
            raise BadArchive(f'{name} is completed, and its result.json does not parse')
        record = directory.read_record(self._top) or {}
        for word in ('collection', 'ident'):
            if record.get(word, listed[word]) != listed[word]:
                raise BadArchive(f'the record.json of {name} tells of another {word}')

    def void(self) -> None:
        """Discard everything since `begin`."""
        if self._top >= 0:
            os.close(self._top)
            self._top = -1
            trees.remove_tree(str(self._count), self._ours)

    def drop(self, built: Built) -> None:
        """Discard a staged resource."""
        trees.remove_tree(built.name, self._ours)

    # --- getting its place -------------------------------------------------------------------------

    def rename(self, built: Built, ident: str) -> Built:
        """Rewrite its record for another ident."""
        with fileops.opened(built.name, within=self._ours) as top:
            record = directory.read_record(top)
            if record is not None:
                data = parcels.rewritten(built.collection, ident, top, record)
                fileops.replace(directory.RECORD, data, top)
        return built._replace(ident=ident)

    def place(self, built: Built, known: Collection, *, replaces: bool = False) -> None:
        """Move it into its collection.

        Raises ResourceError if the resource exists (unless ``replaces`` is set), or is being computed.
        """
        path = known.spec.path
        folder = directory.find_folder(path, built.ident)
        if self._durable:
            durability.sync_storage(built.name, self._ours, f'{self._path}/{self._name}')
        if (told := built.listed.get('provenance')) is not None:
            with fileops.opened(built.name, within=self._ours) as top:
                digest = (directory.read_record(top) or {}).get('provenance')
            provenance.keep(self._base, digest, told)
        for _ in range(_TRIES):
            claim = Claim.take(path, folder, lock=known.spec.lock)
            if claim is None:
                raise _taken(built, 'is being computed')
            try:
                is_done = self._put(built, claim, replaces=replaces)
            except BaseException:
                claim.unmake()
                raise
            finally:
                claim.release()
            if is_done:
                if self._durable:
                    durability.sync_above(path)
                return
        raise _taken(built, 'has a folder that somebody makes and removes all the time')

    def _put(self, built: Built, claim: Claim, *, replaces: bool) -> bool:
        """False if the folder had to be removed first, or another process interfered: try again."""
        with fileops.opened(claim.collection_path, fileops.LOOK) as parent:
            if not claim.created:
                state = directory.read_status(claim.folder)
                if replaces and state != 'absent':
                    os.rename(claim.name, f'{built.name}.old', src_dir_fd=parent, dst_dir_fd=self._ours)
                else:
                    self._make_free(claim, built, state)
                    return False
            else:
                fileops.remove(directory.LOCK, claim.folder)
            try:
                os.rename(built.name, claim.name, src_dir_fd=self._ours, dst_dir_fd=parent)
            except OSError as error:
                if error.errno in (errno.ENOTEMPTY, errno.EEXIST):
                    return False
                raise
        return True

    def _make_free(self, claim: Claim, built: Built, state: directory.State) -> None:
        """Remove the folder of a resource that was never begun; refuse if it holds anything else."""
        if directory.effective_status(state, directory.read_record(claim.folder), claim.folder) != 'absent':
            raise _taken(built, 'is there already')
        if not claim.completes_removal():
            names = set(os.listdir(claim.folder)) - {directory.LOCK, directory.RECORD, directory.STATUS}
            with contextlib.suppress(OSError):
                os.rmdir(directory.STORAGE, dir_fd=claim.folder)
                names.discard(directory.STORAGE)
            if names:
                raise _taken(built, 'has a folder that is no resource: move it away')
        claim.remove()


def free_space(folder: int | str) -> tuple[int, int]:
    """(free bytes, total bytes) of the file system that a folder is on."""
    found = os.statvfs(folder)
    return found.f_bavail * found.f_frsize, found.f_blocks * found.f_frsize


def _taken(built: Built, why: str) -> ResourceError:
    return ResourceError(
        f'{built.collection}/{built.ident} {why}', collection=built.collection, ident=built.ident
    )
