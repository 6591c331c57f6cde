"""The part of a Project that queries the index and keeps it in step with the directories."""

from __future__ import annotations

import contextlib
import os
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .. import context, dependencies, directory, locks, mounts, recover, reindex
from ..args_idents import Ident, named
from ..errors import IndexFault, InvalidIdent, ResourceError, UnknownCollection, warn
from ..fetcher import not_found
from ..json_paths import MISSING
from ..records import (
    CheckReport,
    Entry,
    ErrorGroup,
    ErrorGroups,
    Explanation,
    Phase,
    ReindexReport,
    Status,
    Use,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping
    from datetime import date, datetime, timedelta

    from ..basedir import BaseDirectory
    from ..fetcher import Fetcher
    from ..index import Index, Query
    from ..registry import Collection, Registry
    from ..store import Store

    Moment = datetime | date | timedelta | str


class Indexed:
    """The methods of a `Project` that read its index, or repair it."""

    _base: BaseDirectory
    _computes: bool
    _index_path: str | None
    _registry: Registry
    _store: Store
    _fetcher: Fetcher
    _declared: Any  # parts by collection for which the index has indexes, and what makes them stale

    # --- queries -----------------------------------------------------------------------------------

    def query(
        self,
        collection: str | Iterable[str] | None = None,
        *,
        status: Status | Iterable[Status] | None = None,
        ident: str | int | Iterable[str] | None = None,
        error_type: str | Iterable[str] | None = None,
        error: str | Iterable[str] | None = None,
        error_group: str | Iterable[str] | None = None,
        phase: Phase | Iterable[Phase] | None = None,
        host: str | Iterable[str] | None = None,
        version: str | int | Iterable[str | int] | None = None,
        attempt: int | Iterable[int] | None = None,
        args: Mapping[str, Any] | None = None,
        result: Mapping[str, Any] | None = None,
        since: Moment | None = None,
        until: Moment | None = None,
        min_duration: float | timedelta | None = None,
        max_duration: float | timedelta | None = None,
        min_memory: float | None = None,
        max_memory: float | None = None,
        stale: bool | None = None,
        order_by: str = '-finished_at',
        limit: int | None = None,
        offset: int = 0,
        after: tuple[Any, str, str] | None = None,
    ) -> Query:
        """Select rows of the index.

        Filters are combined with AND. Those on text and words take one value or several, of which one must
        match.

        Args:
            collection: Name of the collection.
            status: ``'pending'``, ``'completed'`` or ``'error'``.
            ident: Glob pattern, as for `fnmatch`.
            error_type: Name of the exception's class or of a base class: dotted, or its last parts.
            error: Part of the error's summary; upper and lower case are the same.
            error_group: Fingerprint of the cause, as `error_groups` gives it.
            phase: ``'queued'`` or ``'running'``, of pending resources.
            host: Name of the machine that computed it.
            version: Version of the function that computed it.
            attempt: Number of the attempt, from 1.
            args: Parts of the args and their values, written as for ``result``. Plain equality compares
                canonical JSON: 1 and 1.0 differ.
            result: Parts of the results and their values: ``{'score': 0.9}`` means equal,
                ``{'model.kind': ['svc', 'tree']}`` one of several, ``{'score': ('>', 0.9)}`` a comparison
                by ``= != < <= > >= glob``; ``('>', 0.5, '<', 0.9)`` combines two. Text never compares with
                numbers; a missing part is not null. Only results short enough for the index are searched
                (``index_result`` of `resource`).
            since: Finished (or started, if unfinished) at or after this time: a datetime, a date, ISO-8601
                text, or a timedelta before now.
            until: The same, at or before.
            min_duration: Minimum run time, in seconds or as a timedelta.
            max_duration: Maximum run time.
            min_memory: Minimum peak memory, in bytes.
            max_memory: Maximum peak memory, in bytes.
            stale: True: only stale resources, whose rows have the reason in ``stale_because``: computed by
                another version of the function, older than ``expires_after``, or from an input file that
                has changed; or a resource that it used was computed again (run ids are compared, never
                times), is being computed, was removed, or is itself stale. False: only the others.
            order_by: Column, or part of args or results (``'result.score'``); a leading ``-`` sorts
                descending. Missing values come last.
            limit: Maximum number of rows.
            offset: Number of rows to skip.
            after: For paging without an offset: (value in the order's column, collection, ident) of the
                previous page's last row. Rows without a value there form pages of their own, from
                ``(None, '', '')``.

        Returns:
            A `Query`: a lazy sequence of `Entry`, read when it is iterated, indexed or counted. If it is
            empty because no failure has that error type or group, its repr names those there are.

        Raises:
            ValueError, TypeError: A filter has no such value, or there is no such column.
            UnknownCollection: There is no such collection.
        """
        if collection is not None and not isinstance(collection, str):
            collection = list(collection)
        for name in [collection] if isinstance(collection, str) else collection or ():
            self._registry.get_any(name)
        named = self._named_parts(collection)
        if isinstance(order_by, str) and (name := order_by.removeprefix('-')) in named:
            order_by = order_by.removesuffix(name) + named[name]
        index = self._index()
        if stale is not None:
            self._see_what_is_used(index)
        found = index.find(
            collection,
            status=status,
            ident=ident,
            error_type=error_type,
            error=error,
            error_group=error_group,
            phase=phase,
            host=host,
            version=version,
            attempt=attempt,
            args=args,
            result=result,
            since=since,
            until=until,
            min_duration=min_duration,
            max_duration=max_duration,
            min_memory=min_memory,
            max_memory=max_memory,
            stale=stale,
            facts=self._base.facts(),
            order_by=order_by,
            limit=limit,
            offset=offset,
            after=after,
        )
        found._read_result, found.named = self._result_on_disk, named
        if stale:
            found._because = self._because
        return found

    def uses(self, collection: str, ident: Ident) -> list[Use]:
        """Return what the function of a resource fetched in its last run, from its record.

        Raises:
            ResourceNotFound: There is no such resource.
        """
        known = self._registry.get_any(collection)
        text, _ = named(ident, None, collection)
        resource = self._fetcher.peek(known, text)
        if resource is None:
            raise not_found(self._base, collection, text)
        return resource.entry.uses

    def used_by(self, collection: str, ident: Ident) -> list[Use]:
        """Return the resources whose functions fetched this one, with the run of it that they got."""
        self._registry.get_any(collection)
        return self._index().used_by(collection, named(ident, None, collection)[0])

    def stale_because(self, collection: str, ident: Ident) -> str | None:
        """Return the nearest reason why a resource is stale; None if it is not stale, or not finished.

        Read from its folder and those of the resources that it used, so that no reindex is needed.

        Raises:
            ResourceNotFound: There is no such resource.
        """
        explained = self.explain(collection, ident)
        if explained.code == 'new':
            raise not_found(self._base, collection, named(ident, None, collection)[0])
        return explained.stale_because

    def _because(self, entry: Entry) -> str | None:
        """Return why a row is stale."""
        record = {
            'version': entry.version,
            'finished_at': entry.raw('finished_at'),
            'uses': [list(use) for use in entry.uses],
            'inputs': entry.input_lines,
        }
        key = (entry.collection, entry.ident)
        found = dependencies.cause(self._base.path, key, record, self._base.facts())
        return found and found.because

    def _stale_levels(
        self, collection: str | None = None, idents: Iterable[str] | None = None
    ) -> list[tuple[str, list[str]]]:
        """Return the stale resources, dependencies first: (collection, idents that can be computed together).

        Args:
            collection: Only of this collection, with the stale resources that they used.
            idents: Only these of it.

        Raises:
            CycleError: Resources used each other in a cycle.
        """
        index = self._index()
        self._see_what_is_used(index)
        edges = list(index.stale_edges(self._base.facts()))
        wanted = None
        if idents is not None and collection is not None:
            wanted = [(collection, ident) for ident in idents]
        elif collection is not None:
            wanted = [key for key, _ in edges if key[0] == collection]
        found: list[tuple[str, list[str]]] = []
        for level in dependencies.levels(edges, wanted):
            grouped: dict[str, list[str]] = {}
            for name, ident in level:
                grouped.setdefault(name, []).append(ident)
            found += grouped.items()
        return found

    def _see_what_is_used(self, index: Index) -> None:
        """Add rows that are missing for used resources, computed by other machines or older releases."""
        places = []
        for collection, ident in () if index.is_read_only else index.unseen():
            with contextlib.suppress(UnknownCollection, InvalidIdent):
                known = self._registry.get_any(collection)
                folder = directory.find_folder(known.spec.path, ident)
                places.append((collection, ident, known.spec, folder))
        if places:
            self._store.sync(places)
            self._store.rows.flush()

    def _named_parts(self, collection: str | list[str] | None) -> dict[str, str]:
        """Return the parts of args and results by the names that the given collections declare.

        A name that means different parts in several of them is left out.
        """
        known = {**self._base.columns(), **self._registry.columns()}
        wanted = [collection] if isinstance(collection, str) else known if collection is None else collection
        pairs = {pair for name in wanted for pair in known.get(name, {}).items()}
        names = Counter(name for name, _ in pairs)
        return {name: part for name, part in sorted(pairs) if names[name] == 1}

    def results(self, collection: str, **filters: Any) -> Iterator[tuple[str, Any]]:
        """Yield (ident, result) of each completed resource of a collection.

        Args:
            collection: Name of the collection.
            filters: As for `query`; ordered by ident unless ``order_by`` is given.
        """
        order_by = filters.pop('order_by', 'ident')
        rows = self.query(collection, **{'status': 'completed', **filters}, order_by=order_by)
        for entry in rows:
            value = rows.result_of(entry)
            if value is not MISSING:
                yield entry.ident, value

    def _result_on_disk(self, entry: Entry) -> Any:
        """Return the result of a row from its file; MISSING if there is no valid one."""
        try:
            known = self._registry.get_any(entry.collection)
            found = self._store.look(known, entry.ident)[1]
        except (UnknownCollection, InvalidIdent):  # a row that was written by hand
            return MISSING
        is_there = found.state == 'completed' and found.damage is None
        return found.value if is_there else MISSING

    def stats(self, collection: str | None = None) -> dict[str, Any]:
        """Count resources by status, and summarise their run times.

        Returns:
            For each collection a dict of ``total``, ``completed``, ``error``, ``pending`` and ``duration``.
            ``duration`` holds ``p50``, ``p95`` and ``max`` in seconds. In a collection of more than 10 000
            runs (1 000, if there are many collections) only the latest are used, and ``sample`` says how
            many; else ``sample`` is None.
        """
        if collection is not None:
            self._registry.get_any(collection)
        found: dict[str, Any] = self._index().stats(collection)
        return found

    def error_groups(self, collection: str | None = None, *, last: int | None = None) -> list[ErrorGroup]:
        """Group failures by cause: a list of `ErrorGroup`, most frequent first.

        Args:
            collection: Only of this one.
            last: Only of so many that failed last, for who has hundreds of thousands.
        """
        if collection is not None:
            self._registry.get_any(collection)
        return ErrorGroups(map(self._with_frame, self._index().error_groups(collection, last)))

    def _with_frame(self, group: ErrorGroup) -> ErrorGroup:
        """Add the frame in the user's code, from the record of the example."""
        try:
            known = self._registry.get_any(group.collection)
            folder = directory.find_folder(known.spec.path, group.example)
        except (UnknownCollection, InvalidIdent):  # a row that was written by hand
            return group
        frame = (self._store.record(known, folder) or {}).get('error_frame')
        return group._replace(frame=frame if isinstance(frame, str) else None)

    def sql(self, query: str, params: Any = ()) -> list[dict[str, Any]]:
        """Run a read-only SQL query on the index; return its rows as dicts.

        Args:
            query: A SELECT on the table ``resources`` or one of the views.
            params: Values for its parameters.
        """
        return self._index().sql(query, params)

    def sql_rows(self, query: str, params: Any = ()) -> Iterator[dict[str, Any]]:
        """Run `sql` lazily: read a thousand rows at a time, with a time limit for each thousand.

        Until the last row is read, SQLite cannot truncate the index's -wal file, which grows by whatever
        is written meanwhile.
        """
        return self._index().sql_rows(query, params)

    def explain(
        self,
        collection: str,
        ident: Ident,
        args: Mapping[str, Any] | None = None,
        *,
        recompute: bool = False,
        retry_errors: bool = True,
    ) -> Explanation:
        """Say whether a fetch with these arguments would compute, and why. Changes nothing.

        Args:
            collection: As for `fetch`.
            ident: As for `fetch`.
            args: As for `fetch`.
            recompute: As for `fetch`.
            retry_errors: As for `fetch_many`.

        Returns:
            An `Explanation`.
        """
        known = self._registry.get_any(collection)
        text, given = named(ident, args, collection)
        return self._fetcher.explain(known, text, given, recompute=recompute, retry_errors=retry_errors)

    # --- keeping index and directories together ----------------------------------------------------

    def remove(self, collection: str, ident: Ident) -> None:
        """Delete a resource: its folder and its row.

        Raises:
            ResourceNotFound: There is no such resource.
            ResourceError: It is queued or being computed.
        """
        known = self._registry.get_any(collection)
        self._remove(known, named(ident, None, collection)[0])

    def _remove(self, known: Collection, text: str, row: Entry | None = None) -> None:
        """`remove`; only if its folder still says what a ``row`` does."""
        if self._store.is_queued(known.name, text):
            raise ResourceError(
                f'{known.name}/{text} is queued, or being computed',
                collection=known.name,
                ident=text,
                hint='cancel it first',
            )
        folder = directory.find_folder(known.spec.path, text)
        removed = False
        if os.path.lexists(f'{known.spec.path}/{folder}'):
            # Pending, and ours: if we are killed half way, whoever opens the base next recovers the row.
            self._store.queue([self._store.job(known, text, None, folder, is_run=False)], running=True)
        try:
            spec = known.spec
            removed = recover.remove(
                known.name, text, spec.path, folder, lock=spec.lock, durable=spec.durable, row=row
            )
        finally:
            self._store.sync([(known.name, text, known.spec, folder)])
        if not removed:
            raise not_found(self._base, known.name, text)

    def reindex(
        self,
        collection: str | None = None,
        *,
        changed_only: bool = False,
        fresh: bool = False,
        progress: Callable[[int], None] | None = None,
    ) -> ReindexReport:
        """Update the index from the directories, after these were edited by hand.

        Args:
            collection: Only this collection.
            changed_only: Read only folders whose status.json changed since the index last saw it.
            fresh: Quarantine the index and build a new one; use this if it is damaged.
            progress: Called with the number of folders read so far.

        Returns:
            A `ReindexReport`: numbers of folders and rows.
        """
        if collection is not None:
            self._registry.get_any(collection)
        self._settle_down()
        self._store.index.show({})
        if fresh:
            self._store.rebuild()
            self._declared = None
        report = reindex.reindex(self._store, collection, changed_only=changed_only, progress=progress)
        if fresh:  # all rows are new
            counts = self._store.index.count(collection).values()
            report = report._replace(added=sum(count['total'] for count in counts), updated=0)
        return report

    def check(
        self,
        *,
        fix: bool = False,
        deep: bool = False,
        progress: Callable[[int], None] | None = None,
    ) -> CheckReport:
        """List where index and directories disagree.

        Args:
            fix: Repair what can be repaired.
            deep: Also compare checksums, to find results that were edited or damaged; reads every result.
            progress: Called with the number of folders read so far.

        Returns:
            A `CheckReport`, whose ``findings`` are empty if all agrees.
        """
        self._settle_down()
        self._store.index.show({})
        return reindex.check(self._store, fix=fix, deep=deep, progress=progress)

    def index_revision(self) -> tuple[str | None, str]:
        """Return (revision of the index file, revision of this release) without upgrading the index.

        The first is None if there is no index.
        """
        from ..schema import HEAD
        from ..upgrade import stored_revision

        path = self._index_file()
        return (stored_revision(path) if os.path.lexists(path) else None), HEAD

    def _settle_down(self) -> None:
        """Wait until everything that this process has done, and batches that it dropped, is in the index."""
        locks.await_enders()
        self._store.rows.flush()

    def _index(self) -> Index:
        locks.await_enders()
        index = self._store.up_to_date()
        declared = self._registry.columns()
        if self._computes and (declared, self._base.registered) != self._declared:
            self._declared = (declared, dict(self._base.registered))
            with contextlib.suppress(IndexFault, OSError):  # it cannot be written: then it is slower
                index.index_parts(
                    part for columns in self._base.declare(declared).values() for part in columns.values()
                )
        return index

    def _has_rows(self, collection: str) -> bool:
        """Whether a collection has rows, though it is not registered and has no folder."""
        if context.in_worker or context.current() is not None:
            return False
        try:
            return bool(self._index().find(collection, limit=1))
        except (IndexFault, OSError):
            return False

    def _index_file(self) -> str:
        return self._index_path or self._base.index_elsewhere() or self._base.index_path

    def _open_index(self) -> Index:
        from ..index import Index

        if not self._computes:
            reindex.require_project(self._base)  # it may be a copy, and the base be gone
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
