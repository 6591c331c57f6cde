"""Export, import, merge and backup.

Incoming resources are staged and validated before they are moved in (incoming.py). A resource that exists
with the same contents is left as it is, so an interrupted import is resumed by repeating it.
"""

from __future__ import annotations

import contextlib
import os
from typing import IO, TYPE_CHECKING, Any, Literal, NamedTuple, get_args

from .. import canonical, directory, fileops
from ..errors import BadArchive, BaseUnusable, ResourceError, TransferConflict, TransferFault, Unreadable
from ..sanitize import printable, size
from . import archive, parcels
from .incoming import Built, Incoming, free_space
from .parcels import Nobody, Origin

if TYPE_CHECKING:
    from collections.abc import Iterable

    from ..registry import Collection, Registry
    from ..store import Store

OnConflict = Literal['refuse', 'skip', 'rename', 'replace']
GROUP, GROUP_BYTES = 32, 1 << 28  # resources, or bytes, that are staged before they are moved in together
MOST_NAMED = 10  # conflicts in a message
MOST_NAMES = 10_000  # idents tried when a resource is renamed

Key = tuple[str, str]


class TransferReport(NamedTuple):
    """The result of an export, import, merge or backup."""

    resources: int = 0  # transferred
    same: int = 0  # existed already, with the same contents
    pending: int = 0  # left out, because they are running or queued
    skipped: tuple[Key, ...] = ()  # a different resource of that name exists
    renamed: tuple[tuple[str, str, str], ...] = ()  # (collection, ident, new ident)
    left_out: tuple[str, ...] = ()  # unreadable resources with the reason; links and devices in storage/


def check_policy(on_conflict: str) -> None:
    """Raises ValueError for an unknown policy."""
    if on_conflict not in get_args(OnConflict):
        known = ', '.join(map(repr, get_args(OnConflict)))
        raise ValueError(f'on_conflict must be one of {known}, not {on_conflict!r}')


# --- out -------------------------------------------------------------------------------------------


def write(origins: Iterable[tuple[Origin | None, str]], stream: IO[bytes]) -> TransferReport:
    """Write resources into a tar stream."""
    writer = archive.Writer(stream)
    pending, left_out = 0, []
    for origin, why in origins:
        if origin is None:
            left_out.append(why)
            continue
        try:
            listed = parcels.pack(origin, writer)
        except Unreadable as error:
            left_out.append(error.message)
            continue
        pending += listed is None
        left_out += _not_carried(listed)
    writer.close()
    return TransferReport(writer.count, pending=pending, left_out=tuple(left_out))


def _not_carried(listed: dict[str, Any] | None) -> list[str]:
    if listed is None:
        return []
    name = f'{listed["collection"]}/{listed["ident"]}'
    return [f'{name}: {path} is a link, or no file' for path in listed['left_out']]


# --- in --------------------------------------------------------------------------------------------


class Arrival:
    """An import in progress.

    Args:
        store: The live store of the target base.
        registry: Its collections.
        durable: fsync what is moved in.
        on_conflict: What to do if a different resource of the same name exists.
    """

    def __init__(self, store: Store, registry: Registry, *, durable: bool, on_conflict: OnConflict) -> None:
        self._store = store
        self._registry = registry
        self._policy = on_conflict
        self._incoming = Incoming(store, durable=durable)
        self._bytes = self._count = self._same = self._pending = 0
        self._decided_now: set[Key] = set()  # which get a place with the present group
        self._verified_same: set[int] = set()  # hashes of existing resources, which are read once
        self._skipped: list[Key] = []
        self._renamed: list[tuple[str, str, str]] = []
        self._left_out: list[str] = []

    def close(self) -> None:
        """Remove the staging area."""
        self._incoming.close()

    def report(self) -> TransferReport:
        """The result so far."""
        return TransferReport(
            self._count,
            self._same,
            self._pending,
            tuple(self._skipped),
            tuple(self._renamed),
            tuple(self._left_out),
        )

    # --- from a tar --------------------------------------------------------------------------------

    def inspect(self, stream: IO[bytes]) -> None:
        """Verify a whole tar without writing. Raises BadArchive, TransferConflict or BaseUnusable."""
        free, there_is = free_space(self._store.base.path)
        needed = 0
        conflicts: list[Key] = []
        for listed in archive.read(stream, _Bounded(there_is)):
            key = listed['collection'], listed['ident']
            what = self._what_is_there(key, listed)
            needed += sum(each['size'] for each in listed['files']) if what != 'same' else 0
            if what == 'other':
                conflicts.append(key)
        if self._policy == 'refuse':
            refuse(conflicts)
        if needed > free:
            raise BaseUnusable(
                f'{size(needed)} are to come in, and {size(free)} are free', hint='make room on that disk'
            )

    def read(self, stream: IO[bytes]) -> None:
        """Import the resources of a tar."""
        for listed in archive.read(stream, self._incoming):
            self._incoming.end(listed)
            self._go_on()
        self.flush()

    # --- from another base -------------------------------------------------------------------------

    def refuse_conflicts(self, origins: Iterable[tuple[Origin | None, str]]) -> None:
        """Raises TransferConflict if the policy is to refuse and different resources of these names exist."""
        conflicts = []
        for origin, _ in origins if self._policy == 'refuse' else ():
            if origin is not None and self._is_there((origin.collection, origin.ident)):
                with contextlib.suppress(Unreadable):
                    listed = parcels.pack(origin, Nobody())
                    key = origin.collection, origin.ident
                    if listed is not None and self._what_is_there(key, listed) == 'other':
                        conflicts.append(key)
        refuse(conflicts)

    def copy(self, origins: Iterable[tuple[Origin | None, str]], *, quickly: bool = False) -> None:
        """Import resources of another base.

        ``quickly``: skip resources whose record and status time are unchanged, without reading their files.
        """
        for origin, why in origins:
            if origin is None:
                self._left_out.append(why)
                continue
            if quickly and self._is_as_it_was(origin):
                self._same += 1
                continue
            try:
                listed = parcels.pack(origin, self._incoming)
            except Unreadable as error:
                self._left_out.append(error.message)
                continue
            self._pending += listed is None
            self._left_out += _not_carried(listed)
            self._go_on()
        self.flush()

    def _is_as_it_was(self, origin: Origin) -> bool:
        path = self._known(origin.collection).spec.path
        folder = directory.find_folder(path, origin.ident)
        marks = []
        for place in ((origin.path, origin.folder), (path, folder)):
            with contextlib.suppress(OSError), fileops.opened_below(*place) as top:
                marks.append(
                    (directory.status_mtime(top), directory.record_data(top), directory.read_status(top))
                )
        return len(marks) == 2 and marks[0] == marks[1] and None not in marks[0]

    # --- getting their places ----------------------------------------------------------------------

    def _known(self, collection: str) -> Collection:
        """A collection; its folder is created if needed."""
        base = self._store.base.path
        with contextlib.suppress(FileExistsError):
            os.mkdir(f'{base}/{canonical.collection_folder(collection)}')
        return self._registry.get_any(collection)

    def _is_there(self, key: Key) -> bool:
        path = self._store.base.collection_path(canonical.collection_folder(key[0]))
        return os.path.lexists(f'{path}/{directory.find_folder(path, key[1])}')

    def _what_is_there(self, key: Key, listed: dict[str, Any]) -> Literal['nothing', 'same', 'other']:
        """What exists under this name; a pending resource counts as a different one."""
        if key in self._decided_now:
            return 'other'
        if not self._is_there(key):
            return 'other' if self._store.is_queued(*key) else 'nothing'
        known = self._registry.get_any(key[0])
        folder, found = self._store.look(known, key[1])
        state = found.state
        if state in ('pending', 'damaged') and not self._store.is_in_progress(known, key[1], folder):
            recovered = self._store.recover(known, key[1], folder)
            state = 'absent' if recovered.is_known and recovered.entry is None else 'pending'
            state = recovered.entry.status if recovered.entry is not None else state
        if state == 'absent':
            return 'nothing'
        if state == 'pending':
            return 'other'
        contents = hash((key, tuple(sorted((each['path'], each['sha256']) for each in listed['files']))))
        here = Origin(*key, self._store.base.path, known.spec.path, folder)
        if contents not in self._verified_same and not parcels.is_same(listed, here):
            return 'other'
        self._verified_same.add(contents)
        return 'same'

    def _go_on(self) -> None:
        built = self._incoming.built
        self._bytes += sum(each['size'] for each in built[-1].listed['files']) if built else 0
        if len(built) >= GROUP or self._bytes > GROUP_BYTES:
            self.flush()

    def flush(self) -> None:
        """Move all staged resources in: rows to pending, folders, then rows from folders."""
        group, self._incoming.built, self._bytes = self._incoming.built, [], 0
        ready: list[Built] = []
        for each in group:
            if (decided := self._decided(each)) is not None:
                ready.append(decided)
                self._decided_now.add((decided.collection, decided.ident))
        self._decided_now.clear()
        known = {each.collection: self._known(each.collection) for each in ready}
        places = [
            (
                each,
                known[each.collection],
                directory.find_folder(known[each.collection].spec.path, each.ident),
            )
            for each in ready
        ]
        store = self._store
        store.queue(
            [store.job(of, each.ident, '{}', folder, is_run=False) for each, of, folder in places],
            running=True,
        )
        try:
            for each, of, _ in places:
                self._place(each, of)
        finally:
            store.sync([(each.collection, each.ident, of.spec, folder) for each, of, folder in places])

    def _place(self, built: Built, known: Collection) -> None:
        try:
            self._incoming.place(built, known, replaces=self._policy == 'replace')
        except ResourceError as error:  # another process created it meanwhile
            if self._policy == 'refuse':
                raise TransferConflict(error.message) from None
            self._skipped.append((built.collection, built.ident))
            self._incoming.drop(built)
            return
        self._count += 1

    def _decided(self, built: Built) -> Built | None:
        """The resource to move in, perhaps renamed; None if it is skipped."""
        key = built.collection, built.ident
        what = self._what_is_there(key, built.listed)
        if what == 'other' and self._policy == 'refuse':
            refuse([key])
        if what == 'nothing' or (what == 'other' and self._policy == 'replace'):
            return built
        if what == 'other' and self._policy == 'rename':
            return self._under_another_name(built)
        if what == 'same':
            self._same += 1
        else:
            self._skipped.append(key)
        self._incoming.drop(built)
        return None

    def _under_another_name(self, built: Built) -> Built | None:
        for number in range(2, MOST_NAMES):
            ident = f'{built.ident}-{number}'
            what = self._what_is_there((built.collection, ident), built.listed)
            if what == 'nothing':
                self._renamed.append((built.collection, built.ident, ident))
                return self._incoming.rename(built, ident)
            if what == 'same':  # from an interrupted import
                self._same += 1
                self._incoming.drop(built)
                return None
        raise TransferFault(f'there is no free name for {built.collection}/{built.ident}')


class _Bounded(Nobody):
    """Discards everything; refuses more bytes than the disk could hold."""

    def __init__(self, most: int) -> None:
        self._left = most

    def file(self, path: str, data: parcels.Readable, size: int, mode: int) -> None:
        """Read it to its end."""
        self._left -= size
        if self._left < 0:
            raise BadArchive('it holds more than the whole disk has room for')
        super().file(path, data, size, mode)


def refuse(conflicts: list[Key]) -> None:
    """Raises TransferConflict if there are any."""
    if not conflicts:
        return
    named = ', '.join(printable('/'.join(key)) for key in conflicts[:MOST_NAMED])
    more = f' and {len(conflicts) - MOST_NAMED} more' if len(conflicts) > MOST_NAMED else ''
    raise TransferConflict(
        f'different resources of these names exist, or are being computed: {named}{more}',
        hint='--on-conflict skip keeps the existing ones, --on-conflict rename keeps both',
    )
