"""The part of a Project that works on whole bases: retention, export, import, merge and backup."""

from __future__ import annotations

import contextlib
import json
import os
from typing import IO, TYPE_CHECKING, Any

from .. import directory, fileops, private_files, reindex
from ..basedir import HIDDEN, BaseDirectory
from ..errors import BaseUnusable, HadrosaurError, ResourceError, TransferFault
from ..maintenance import gc
from .indexed import Indexed

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from datetime import timedelta

    from ..maintenance.doctor import Diagnosis
    from ..maintenance.gc import GcItem, GcReport
    from ..maintenance.parcels import Origin
    from ..maintenance.transfer import Arrival, OnConflict, TransferReport

BACKUP = 'backup.json'
"""In ``.hadrosaur/``: marks a base as the backup of another."""


class Keeping(Indexed):
    """The methods of a `Project` for retention and for moving resources between bases."""

    _durable: bool

    def on(
        self, event: str, function: Callable[[Any], object] | None = None
    ) -> Callable[[Any], object] | Callable[[Callable[[Any], object]], Callable[[Any], object]]:
        """Register a callback for finished resources or batches.

        >>> proj.on('error', lambda res: print(res.ident, res.entry.error))

        Args:
            event: ``'completed'`` or ``'error'``: a run of this process or its workers finished and will not
                be retried, nested fetches included. ``'batch_end'``: a `fetch_many` is over.
            function: Called in this process with the `Resource` (or the `Batch`) once the row is written: in
                the thread that fetches, waits or iterates, or in a thread of its own for background work.
                Exceptions are logged (logger ``hadrosaur``) and otherwise ignored. If it is left out, `on`
                is a decorator.

        Raises:
            ValueError: Unknown event.
            TypeError: ``function`` is not callable.
        """
        if function is None:
            self._store.hooks.check(event)
            return lambda given: self.on(event, given)
        self._store.hooks.on(event, function)
        return function

    def gc(
        self,
        collection: str | None = None,
        *,
        older_than: float | timedelta | None = None,
        status: str | tuple[str, ...] | list[str] | None = None,
        keep_last: int | None = None,
        max_bytes: int | str | None = None,
        dry_run: bool = False,
        on_plan: Callable[[list[GcItem]], None] | None = None,
    ) -> GcReport:
        """Remove resources by age, number or size, oldest first; never pending or running ones.

        Args:
            collection: Only this collection.
            older_than: Minimum age since the run finished, in seconds or as a timedelta.
            status: ``'completed'``, ``'error'`` or both (None).
            keep_last: Number of resources to keep in each collection, the newest of that status.
            max_bytes: Remove only until the collections take at most this much disk space: bytes, or text
                such as ``'20 GB'``.
            dry_run: Select, but remove nothing.
            on_plan: Called with the list of resources to be removed, before the first is.

        Returns:
            A `GcReport`: lists of what was ``removed`` and ``refused``, each item with its ``bytes``.

        Raises:
            ValueError: No criterion is given, or one is invalid.
        """
        wanted = gc.checked(older_than, status, keep_last, max_bytes)
        names = self._registry.names() if collection is None else [collection]
        known = {name: self._registry.get_any(name) for name in names}
        index = self._index()
        chosen = gc.choose(index, ((name, each.spec.path) for name, each in known.items()), *wanted)
        if on_plan is not None:
            on_plan(chosen)
        report = gc.GcReport([], [])
        for each in chosen:
            try:
                if not dry_run:
                    self._remove(known[each.collection], each.ident, each.row)
                report.removed.append(each)
            except (ResourceError, OSError) as error:
                report.refused.append(each._replace(refused=str(getattr(error, 'message', error))))
        return report

    def doctor(self) -> list[Diagnosis]:
        """Diagnose the base directory, its file system and this machine.

        Changes nothing, and does not open the index; `check` compares resources with the index.

        Returns:
            A list of `Diagnosis` tuples: ``about``, ``level`` (``'ok'``, ``'note'``, ``'fix'``: should be
            fixed, ``'fault'``: the base cannot be used), ``found`` and ``to_do``.
        """
        from ..maintenance import doctor

        return doctor.examine(self._base, self._index_file())

    # --- out and in --------------------------------------------------------------------------------

    def export(
        self,
        file: str | os.PathLike[str] | IO[bytes],
        collection: str | None = None,
        *,
        overwrite: bool = False,
        **filters: Any,
    ) -> TransferReport:
        """Write resources to a tar file: all their files, with checksums.

        Pending resources are left out, and so are links and devices in storage folders, which the report
        names. Resources that are computed meanwhile are exported as they were before or after.

        Args:
            file: Path, or binary stream. The path's ending chooses the compression: ``.tar``, ``.tar.gz``,
                ``.tar.xz``, ``.tar.bz2``, or ``.tar.zst`` (Python 3.14, or ``pip install
                'hadrosaur[zstd]'``). The file appears only once it is complete.
            collection: Only this collection.
            overwrite: Replace an existing file.
            filters: As for `query`.

        Returns:
            A `TransferReport`: numbers of resources, and names of some.

        Raises:
            BadArchive: The file exists, or no library for its compression is installed.
        """
        from ..maintenance import archive, parcels, transfer

        _check_file(file, 'write')
        self._settle_down()
        if filters:
            chosen = self._origins(collection, filters)
        else:
            if collection is not None:
                self._registry.get_any(collection)
            chosen = parcels.origins(self._base.path, collection)
        if not isinstance(file, str | os.PathLike):
            return transfer.write(chosen, file)
        with archive.new_file(os.fspath(file), overwrite=overwrite) as stream:
            return transfer.write(chosen, stream)

    def _origins(
        self, collection: str | None, filters: dict[str, Any]
    ) -> Iterator[tuple[Origin | None, str]]:
        from ..maintenance.parcels import Origin

        for entry in self.query(collection, **filters):
            known = self._registry.get_any(entry.collection)
            folder = directory.find_folder(known.spec.path, entry.ident)
            yield Origin(entry.collection, entry.ident, self._base.path, known.spec.path, folder), ''

    def import_(
        self, file: str | os.PathLike[str] | IO[bytes], *, on_conflict: OnConflict = 'refuse'
    ) -> TransferReport:
        """Read resources from a tar file that `export` wrote.

        The file is checked before anything changes; a pipe can be read only once, so what comes before a
        fault or a conflict is in by then. Each resource appears atomically. A resource that already exists
        with the same contents is left as it is: an interrupted import can be repeated.

        Args:
            file: Path, or binary stream. Its first bytes tell how it is compressed.
            on_conflict: What to do if a different resource of the same name exists: ``'refuse'`` the whole
                import, ``'skip'`` it, ``'rename'`` it (``ident-2``), or ``'replace'`` the existing one.

        Returns:
            A `TransferReport`: numbers of resources, and names of some.

        Raises:
            BadArchive: The file is damaged or was not written by `export`.
            TransferConflict: Different resources of the same names exist; the message names them.
        """
        from ..maintenance import transfer

        transfer.check_policy(on_conflict)
        _check_file(file, 'read')
        if isinstance(file, str | os.PathLike):
            with open(file, 'rb') as opened:
                return self._import(opened, on_conflict)
        return self._import(file, on_conflict)

    def _import(self, file: IO[bytes], on_conflict: OnConflict) -> TransferReport:
        from ..maintenance import archive

        with self._arrival(on_conflict) as arrival:
            if file.seekable():
                start = file.tell()
                arrival.inspect(archive.decompressed(file))
                file.seek(start)
            try:
                arrival.read(archive.decompressed(file))
            except HadrosaurError as error:
                if count := arrival.report().resources:
                    known = f'{error.hint}; ' if error.hint else ''
                    error.hint = f'{known}{count} that came before it are in, and stay if this is repeated'
                raise
            return arrival.report()

    @contextlib.contextmanager
    def _arrival(self, on_conflict: OnConflict) -> Iterator[Arrival]:
        from ..maintenance import transfer

        self._index()
        arrival = transfer.Arrival(
            self._store, self._registry, durable=self._durable, on_conflict=on_conflict
        )
        try:
            yield arrival
        finally:
            arrival.close()

    def merge(
        self,
        other: str | os.PathLike[str],
        collection: str | None = None,
        *,
        on_conflict: OnConflict = 'refuse',
    ) -> TransferReport:
        """Copy the resources of another base directory into this one; see `import_`.

        Args:
            other: Path of the other base directory, which is not changed.
            collection: Only this collection.
            on_conflict: As for `import_`.

        Returns:
            A `TransferReport`: numbers of resources, and names of some.

        Raises:
            NotAProject: ``other`` holds no project.
            TransferConflict: Different resources of the same names exist; the message names them.
        """
        from ..maintenance import parcels, transfer

        transfer.check_policy(on_conflict)
        base = BaseDirectory(os.fsdecode(other))
        reindex.require_project(base)
        self._refuse_overlap(base.path)
        with self._arrival(on_conflict) as arrival:
            arrival.refuse_conflicts(parcels.origins(base.path, collection))
            arrival.copy(parcels.origins(base.path, collection))
            return arrival.report()

    def backup(self, target: str | os.PathLike[str]) -> TransferReport:
        """Copy all finished resources to another base directory, incrementally.

        A resource that is computed meanwhile is copied as it was before or after; one that was never
        finished is left out. Resources removed here stay in the backup. The backup is a normal base
        directory with its own index: use it as it is, or `merge` it to restore.

        Args:
            target: Path of the backup: a new or empty directory, or an earlier backup of this base. That of
                another base is refused, also of one that had the same path.

        Returns:
            A `TransferReport`: numbers of resources, and names of some.

        Raises:
            TransferFault: ``target`` holds something other than a backup of this base.
        """
        from ..maintenance import parcels

        self._settle_down()
        base = BaseDirectory(os.fsdecode(target))
        self._refuse_overlap(base.path)
        self._mark_backup(base)
        copy: Any = type(self)(target, durable=self._durable)  # type: ignore[call-arg]
        with copy, copy._arrival('replace') as arrival:
            arrival.copy(parcels.origins(self._base.path), quickly=True)
            copy._base.declare({**self._base.columns(), **self._registry.columns()})
            report: TransferReport = arrival.report()
        return report

    def _refuse_overlap(self, other: str) -> None:
        here, there = os.path.realpath(self._base.path), os.path.realpath(other)
        if here == there or f'{here}/'.startswith(f'{there}/') or f'{there}/'.startswith(f'{here}/'):
            raise TransferFault(f'{other!r} and {self._base.given!r} are one, or one lies in the other')

    def _mark_backup(self, target: BaseDirectory) -> None:
        """Mark a new or empty folder as a backup of this base; refuse any other folder."""
        mine = {'of': self._base.identity(), 'path': self._base.path}
        target.make()
        try:
            with private_files.own_folder(target.path, HIDDEN) as hidden:
                found = json.loads(private_files.read_note(BACKUP, hidden)[0])
            if None in (mine['of'], found['of']):
                is_ours = found['path'] == mine['path']
            else:  # a base that was restored by copying its backup has the backup's number
                is_ours = mine['of'] in (found['of'], target.identity())
        except FileNotFoundError:  # a first backup may have been interrupted before it was marked
            is_ours = set(os.listdir(target.path)) <= {HIDDEN}
            if is_ours:
                target.prepare()
                with fileops.opened(target.hidden) as hidden:
                    fileops.replace(BACKUP, json.dumps(mine).encode() + b'\n', hidden)
        except (OSError, ValueError, KeyError, TypeError, RecursionError, BaseUnusable):
            is_ours = False
        if not is_ours:
            raise TransferFault(
                f'{target.given!r} is not empty, and no backup of {self._base.given!r}',
                hint='give a folder of its own, or use merge',
            )


def _check_file(file: object, method: str) -> None:
    if not isinstance(file, str | os.PathLike) and not hasattr(file, method):
        raise TypeError(f'file must be a path or a binary stream, not {file!r}')
