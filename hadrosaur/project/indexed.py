"""The half of a Project that asks the index, and keeps it in step with the directories."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .. import compute, directory, locks, mounts, reindex, settle
from ..errors import IndexFault, InvalidIdent, ResourceError, UnknownCollection, warn
from ..fetcher import not_found
from ..naming import Ident, named
from ..records import CheckReport, ErrorGroup, Explanation, ReindexReport

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from ..basedir import BaseDirectory
    from ..fetcher import Fetcher
    from ..index import Index, Query
    from ..registry import Registry
    from ..store import Store


class Indexed:
    """What a `Project` can be asked about all its resources."""

    _base: BaseDirectory
    _computes: bool
    _index_path: str | None
    _registry: Registry
    _store: Store
    _fetcher: Fetcher

    # --- asking the index --------------------------------------------------------------------------

    def query(
        self,
        collection: str | Iterable[str] | None = None,
        *,
        status: Any = None,
        ident: Any = None,
        error_type: Any = None,
        error: Any = None,
        error_group: Any = None,
        args: Mapping[str, Any] | None = None,
        since: Any = None,
        until: Any = None,
        min_duration: float | None = None,
        stale: bool | None = None,
        order_by: str = '-finished_at',
        limit: int | None = None,
        offset: int = 0,
    ) -> Query:
        """Rows of the index: a sequence of `Entry`, read when it is iterated, indexed or counted.

        Args:
            collection: Only of this one, or of these.
            status: ``'pending'``, ``'completed'`` or ``'error'``; like the next four, one or several.
            ident: A glob, as `fnmatch` has it.
            error_type: The exception's class or one above it: its dotted name, or the end of that.
            error: Part of the error's summary, in upper or lower case.
            error_group: The fingerprint of the cause, as `error_groups` gives it.
            args: Top-level keys and what they equal.
            since: Finished (started, if not finished) at or after: a datetime, a date, ISO-8601 text, or
                a timedelta before now.
            until: The same, at or before.
            min_duration: Took at least so many seconds.
            stale: True: made by another version of the function than the registered one; False: not.
            order_by: A column, with a ``-`` before it for descending; what is not known comes last.
            limit: At most so many.
            offset: Leave out so many first.

        Raises:
            ValueError: No such status or column.
            UnknownCollection: No such collection.
        """
        for name in [collection] if isinstance(collection, str) else collection or ():
            self._registry.get_any(name)
        return self._index().find(
            collection,
            status=status,
            ident=ident,
            error_type=error_type,
            error=error,
            error_group=error_group,
            args=args,
            since=since,
            until=until,
            min_duration=min_duration,
            stale=stale,
            versions=self._registry.versions(),
            order_by=order_by,
            limit=limit,
            offset=offset,
        )

    def stats(self, collection: str | None = None) -> dict[str, Any]:
        """Per collection: ``total``, ``completed``, ``error``, ``pending``, and ``duration``.

        That holds ``p50``, ``p95`` and ``max`` in seconds, of all runs. Where there are more than 10 000 in
        a collection (1 000, if there are many collections) they are of the last ones, and ``sample`` says
        of how many; else it is None.
        """
        if collection is not None:
            self._registry.get_any(collection)
        found: dict[str, Any] = self._index().stats(collection)
        return found

    def error_groups(self, collection: str | None = None) -> list[ErrorGroup]:
        """Failures grouped by cause, most frequent first."""
        if collection is not None:
            self._registry.get_any(collection)
        return [self._with_frame(group) for group in self._index().error_groups(collection)]

    def _with_frame(self, group: ErrorGroup) -> ErrorGroup:
        """The user's own place in the code stands in the record of the example."""
        try:
            known = self._registry.get_any(group.collection)
            folder = directory.find_folder(known.task.path, group.example)
        except (UnknownCollection, InvalidIdent):  # a row that was written by hand
            return group
        frame = (self._store.record(known, folder) or {}).get('error_frame')
        return group._replace(frame=frame if isinstance(frame, str) else None)

    def sql(self, query: str, params: Any = ()) -> list[dict[str, Any]]:
        """Run a SELECT on the index, which cannot be changed by it; rows as dicts."""
        return self._index().sql(query, params)

    def explain(
        self,
        collection: str,
        ident: Ident,
        args: Mapping[str, Any] | None = None,
        *,
        recompute: bool = False,
        retry_errors: bool = True,
    ) -> Explanation:
        """Would a fetch with these arguments compute, and why. Nothing is changed.

        ``retry_errors`` is `fetch_many`'s: whether it computes those that ended in error again.
        """
        known = self._registry.get_any(collection)
        text, given = named(ident, args, collection)
        return self._fetcher.explain(known, text, given, recompute=recompute, retry_errors=retry_errors)

    # --- keeping index and directories together ----------------------------------------------------

    def remove(self, collection: str, ident: Ident) -> None:
        """Delete a resource: its folder and its row.

        Raises:
            ResourceNotFound: There is none.
            ResourceError: It is being computed, or queued.
        """
        known = self._registry.get_any(collection)
        text, _ = named(ident, None, collection)
        if self._store.is_queued(known.name, text):
            raise ResourceError(
                f'{known.name}/{text} is queued, or being computed',
                collection=known.name,
                ident=text,
                hint='cancel it first',
            )
        folder = directory.find_folder(known.task.path, text)
        removed = False
        if os.path.lexists(f'{known.task.path}/{folder}'):
            # Pending, and ours: if we are killed half way, whoever opens the base next settles the row.
            self._store.queue([self._store.order(known, text, None, folder)], running=True)
        try:
            removed = settle.remove(known.name, text, known.task.path, folder, lock=known.task.lock)
        finally:
            self._store.sync([(known.name, text, known.task, folder)])
        if not removed:
            raise not_found(self._base, collection, text)

    def reindex(
        self,
        collection: str | None = None,
        *,
        changed_only: bool = False,
        fresh: bool = False,
        progress: Callable[[int], None] | None = None,
    ) -> ReindexReport:
        """Make the index agree with the directories, after they were edited by hand.

        Args:
            collection: Only this one.
            changed_only: Read only folders whose status.json was written since the index last saw it.
            fresh: Set the index aside and make a new one; the way out if it is damaged or not ours.
            progress: Called with the number of folders read so far.
        """
        if collection is not None:
            self._registry.get_any(collection)
        self._settle_down()
        self._store.index.show({})
        if fresh:
            self._store.rebuild()
        report = reindex.reindex(self._store, collection, changed_only=changed_only, progress=progress)
        if fresh:  # all rows are new
            counts = self._store.index.count(collection).values()
            report = report._replace(added=sum(count['total'] for count in counts), updated=0)
        return report

    def check(self, *, fix: bool = False, deep: bool = False) -> CheckReport:
        """In words, every way in which index and directories disagree.

        Args:
            fix: Mend what can be mended.
            deep: Compare checksums too: lists results that were edited or damaged. Reads every result.
        """
        self._settle_down()
        self._store.index.show({})
        return reindex.check(self._store, fix=fix, deep=deep)

    def index_revision(self) -> tuple[str | None, str]:
        """(revision of the index file, revision of this release); None where there is no index.

        Looks only: what opens the index brings it up to date.
        """
        from ..schema import HEAD
        from ..upgrade import stored_revision

        path = self._index_file()
        return (stored_revision(path) if os.path.lexists(path) else None), HEAD

    def _settle_down(self) -> None:
        """Who looks sees what this process has done, and what came of the batches that it dropped."""
        locks.await_enders()
        self._store.rows.flush()

    def _index(self) -> Index:
        locks.await_enders()
        return self._store.up_to_date()

    def _has_rows(self, collection: str) -> bool:
        """Has a collection rows, though nobody registered it and its folder is gone?"""
        if compute.in_worker or compute.current() is not None:
            return False
        try:
            return bool(self._index().find(collection, limit=1))
        except (IndexFault, OSError):
            return False

    def _index_file(self) -> str:
        return self._index_path or self._base.index_elsewhere() or self._base.index_path

    def _open_index(self) -> Index:
        from ..index import Index

        self._base.prepare()
        path = self._index_file()
        if self._computes:
            if path != self._base.index_path:
                _make_folder_of(path)
            for sentence in mounts.mistrust(self._base.path, path):
                warn(f'{self._base.given!r}: {sentence}')
        return Index(
            path,
            lock_path=self._base.index_lock_path,
            refill=lambda index: reindex.refill(self._base, index),
            upgrade=_upgrade,
            owner=self._base,
            on_good=(lambda: self._base.remember_index(path)) if self._computes else None,
        )


def _make_folder_of(index: str) -> None:
    try:
        os.makedirs(os.path.dirname(index), exist_ok=True)
    except OSError as error:
        fault = IndexFault(
            f'the folder of the index {index} cannot be made: {error.strerror}',
            hint='give a path where a file can be',
        )
        fault.is_lasting = isinstance(error, (FileExistsError, NotADirectoryError, PermissionError))
        raise fault
    if os.path.isdir(index):
        fault = IndexFault(
            f'the index {index} is a folder, and not a file',
            hint=f'give a path such as {index}/index.sqlite3',
        )
        fault.is_lasting = True
        raise fault


def _upgrade(path: Path, stored: str) -> None:
    from ..upgrade import upgrade_index

    upgrade_index(path, stored)
