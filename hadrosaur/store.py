"""A base directory together with its index: what `fetch` and `fetch_many` do to both, in order.

Files first, index second. Rows are handed to a `RowWriter`, which nobody who computes waits for: the
files are the truth, and where the index cannot be written the rows follow when it can.

`FilesOnly` is the same inside a worker: there the index is out of reach, and the rows of what a
function fetches travel with its own outcome.
"""

from __future__ import annotations

import os
import time
from functools import partial
from typing import TYPE_CHECKING, Any

from . import canonical, context, directory, fileops, recover, retry_policy
from .basedir import HOST
from .errors import IndexFault, ResourceNotFound, Unreadable, warn
from .handle import FolderState, Resource, look, unreadable
from .hooks import Hooks
from .locks import Guarded, at_most
from .provenance import Provenance
from .records import Entry, Job, RunResult, format_time
from .recover import Recovered
from .row_events import Event, NoRows, Place, Rows
from .row_writer import PATIENCE, RowWriter

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from .basedir import BaseDirectory
    from .index import Index
    from .records import CollectionSpec
    from .registry import Collection
    from .row_events import Found

GROUP = 64  # rows of recovered resources in one transaction


class Store(Guarded):
    """One project's directories and index.

    Attributes:
        is_sent_off: Is a resource (collection, ident) on its way here, or waiting to be tried again?
        rows: Where rows go.
        unsettled: How to show rows of dead processes whose folders cannot be recovered.
    """

    rows: Rows

    def __init__(
        self,
        base: BaseDirectory,
        open_index: Callable[[], Index],
        recover: Callable[[Store], object] | None = None,
        is_sent_off: Callable[[str, str], bool] = lambda collection, ident: False,
        catch_up: Callable[[Store], object] = lambda store: None,
        functions: Callable[[], Iterable[Any]] = tuple,
    ) -> None:
        super().__init__()
        self.base = base
        self._open_index = open_index
        self._recover = recover
        self.is_sent_off = is_sent_off
        self.unsettled: dict[tuple[str, str], Entry] = {}
        self._index: Index | None = None
        self.provenance = Provenance(base.path, functions)
        self.hooks = Hooks(lambda: self.rows.flush())
        self.rows = RowWriter(base, lambda: self.index, self._reopen, is_sent_off, lambda: catch_up(self))

    def _reopen(self) -> None:
        self._index = None

    @property
    def index(self) -> Index:
        """The index; at the first use it is opened, and what dead processes left is recovered."""
        index = self._index  # another thread may close it: then this one opens anew what it has
        if index is None:
            with self._guard:
                opened = self._index is None
                index = self._index = self._index or self._open_index()
            if opened and self._recover is not None:
                self._recover(self)
        return index

    def up_to_date(self) -> Index:
        """The index for who reads: with our own rows, and with nothing of dead sessions in it.

        Where rows cannot be written, they are shown as they will be.
        """
        index = self.index
        if self.rows.flush():
            index.show({})
            if self._recover is not None:
                self._recover(self)
        is_written = self.rows.flush()
        index.show({**self.unsettled, **({} if is_written else self.rows.unwritten())})
        return index

    def rebuild(self) -> None:
        """Set the index aside, whatever it is, and make a new one from the directories."""
        index = self._index = self._index or self._open_index()
        index.rebuild()

    # --- looking -----------------------------------------------------------------------------------

    def look(
        self, collection: Collection, ident: str, *, with_record: bool = False
    ) -> tuple[str, FolderState]:
        """(folder, what it says) of a resource, without lock or index."""
        path = collection.spec.path
        folder = directory.find_folder(path, ident)
        return folder, look(path, folder, with_record=with_record)

    def record(self, collection: Collection, folder: str) -> dict[str, Any] | None:
        """The record.json of a resource, None where there is none."""
        path = collection.spec.path
        try:
            with fileops.opened_below(path, folder) as opened:
                record = directory.read_record(opened)
                return None if record is not None and directory.is_removed(opened) else record
        except OSError as error:
            if isinstance(error, FileNotFoundError) or fileops.is_no_file(error):
                return None
            raise unreadable(f'{path}/{folder}', error) from error

    def result(self, collection: Collection, folder: str) -> Any:
        """The value in the result.json of a resource that is completed, whatever its status.json says."""
        path = collection.spec.path
        try:
            with fileops.opened_below(path, folder) as opened:
                return directory.parse_result(fileops.read(directory.RESULT, opened))
        except OSError as error:
            raise unreadable(f'{path}/{folder}/{directory.RESULT}', error) from error

    def warn_of_damage(self, collection: Collection, ident: str, folder: str, damage: str) -> None:
        """Say that a result does not parse while the status still says completed: it is never served."""
        warn(
            f'{collection.spec.path}/{folder}/{directory.RESULT} is damaged ({damage}); '
            f'a fetch computes {collection.name}/{ident} again'
        )

    def is_locked(self, collection_path: str, folder: str) -> bool:
        """Is someone computing the resource in this folder of a collection (an absolute path)?"""
        with_file = self.base.lock != 'folder'
        try:
            with fileops.opened(collection_path, fileops.LOOK) as parent:
                if fileops.is_locked(folder, parent, if_refused=not with_file):
                    return True
            if with_file:  # which other machines lock too
                with fileops.opened(f'{collection_path}/{folder}', fileops.LOOK) as parent:
                    return fileops.is_locked(directory.LOCK, parent)
        except OSError:
            pass
        return False

    def is_in_progress(self, collection: Collection, ident: str, folder: str) -> bool:
        """Is someone computing the resource, or has a living process queued it?"""
        if self.is_locked(collection.spec.path, folder):
            return True
        return self.is_queued(collection.name, ident)

    def is_queued(self, collection: str, ident: str) -> bool:
        """Has a living process queued the resource? Of our own rows those count that are on their way.

        Never waits for the index: where it cannot tell, locks decide.
        """
        if self.is_sent_off(collection, ident):
            return True
        row = self._row(collection, ident)
        if row is None or row.status != 'pending' or row.session == self.base.known_session:
            return False
        return self.base.is_alive(row.session)

    def _row(self, collection: str, ident: str) -> Entry | None:
        try:
            return at_most(PATIENCE, lambda: self.index.get(collection, ident))
        except (IndexFault, OSError) as fault:
            if getattr(fault, 'is_lasting', False):
                raise
            return None

    def recover(self, collection: Collection, ident: str, folder: str) -> Recovered:
        """Recover a folder that nobody computes, and put what it is into the index."""
        recovered = _settled(collection, ident, folder)
        if recovered.is_known:
            self.sync([(collection.name, ident, collection.spec, folder)])
        return recovered

    def sync_finished(self, collection: Collection, ident: str, folder: str) -> Recovered:
        """Recover a resource that someone else has computed, and see that its row says what came of it.

        Whoever computed it may be gone by now, with nobody left to write the row.
        """
        recovered = _settled(collection, ident, folder)
        if recovered.entry is not None:
            self.sync([(collection.name, ident, collection.spec, folder)])
        return recovered

    def sync(self, resources: Sequence[tuple[str, str, CollectionSpec, str]], *, soon: bool = False) -> None:
        """Have rows become what folders say: (collection, ident, task, folder).

        The folders are looked at when all that happened before is written. ``soon``: from a thread that
        may not wait.
        """
        places = [Place(name, ident, spec.path, folder, spec.lock) for name, ident, spec, folder in resources]
        event = Event('sync', places, self.base.known_session)
        (self.rows.put if soon else self.rows.write)(event)

    def write_rows(self, found: Sequence[Found]) -> None:
        """Make rows what their folders were found to be: (key, an entry or no row, changed).

        Not where the row has been written since ``changed``: somebody fetches it at this moment.
        """
        if found:
            self.rows.write(Event('merge', found))

    # --- jobs and outcomes -----------------------------------------------------------------------

    def job(
        self,
        collection: Collection,
        ident: str,
        args: str | None,
        folder: str,
        *,
        recompute: str = 'no',
        batch: str = '',
        is_run: bool = True,
        is_new: bool = False,
    ) -> Job:
        """A job for a resource. Without ``args`` (canonical JSON) those of the last run are repeated.

        ``batch``: what its run id begins with (see `new_batch`). ``is_run``: the function is to be called.
        ``is_new``: it was seen to have no folder.
        """
        record: dict[str, Any] | None = None
        looks = recompute == 'changed' and collection.looks_at_origin
        if ((args is None and not is_new) or looks) and os.path.lexists(f'{collection.spec.path}/{folder}'):
            record = self.record(collection, folder)
        if args is None:
            args = (directory.recorded_args(record) if record else None) or '{}'
        # Looked at again: somebody may have computed it since it was found to be stale.
        is_stale = looks and bool(collection.causes(ident, record or {}, self.base))
        running = context.current()
        return Job(
            spec=collection.spec,
            run=_new_run(batch),
            ident=ident,
            folder=folder,
            args=args,
            args_hash=_NO_ARGS if args == '{}' else canonical.args_hash(args),
            queued_at=format_time(time.time()),
            recompute=recompute,
            chain=context.chain_of(running) if running else (),
            provenance=self._provenance() if is_run else None,
            stale_run=directory.recorded_run(record) if is_stale else None,
        )

    def _provenance(self) -> str | None:
        return self.provenance.digest()

    def queue(self, jobs: Sequence[Job], *, running: bool = False) -> bool:
        """Write the rows of jobs that are about to be carried out (``running``: this very moment).

        False where a row was pending already: somebody else has asked for that resource. Where the index
        cannot be written now, nobody is known to have.
        """
        rows = [_queued(job, 'running' if running else 'queued') for job in jobs]
        event = Event('queue', rows, self._session())
        self.rows.write(event)
        return event.written in (None, len(rows))

    def _session(self) -> str | None:
        """The session of this process; None where none can be begun, as on a full disk."""
        try:
            return self.base.session()
        except OSError:
            return None

    def requeue(self, job: Job, *, running: bool = False) -> None:
        """Write that a failed run is to be tried again (``running``: this very moment)."""
        self.rows.put(Event('queue', [_queued(job, 'running' if running else 'queued')], self._session()))

    def started(self, jobs: Sequence[Job], *, here: bool = False) -> None:
        """Write that these jobs run, where and since when (``here``: in this process)."""
        unknown = (None, HOST, os.getpid()) if here else (None, None, None)
        rows = [(*job.key, *(_begun(job) or unknown)) for job in jobs]
        self.rows.put(Event('start', rows))

    def finish(self, run_results: Sequence[RunResult], *, soon: bool = False) -> None:
        """Write the rows of outcomes, and of what was fetched on the way; ``soon`` as in `sync`."""
        rows: list[Entry] = []
        held_by_others: list[tuple[str, str]] = []
        places: list[Place] = []
        for run_result in run_results:
            for entry in (*run_result.nested, run_result.entry):
                if entry.status == 'pending':
                    held_by_others.append((entry.collection, entry.ident))
                elif run_result.not_started and entry is run_result.entry:
                    places.append(self._place_of(entry))
                elif entry.seen_mtime_ns is None:  # it could not be written down, on a full disk
                    places.append(self._place_of(entry)._replace(told=entry))
                else:
                    rows.append(entry)
        hand_over = self.rows.put if soon else self.rows.write
        if rows:
            event = Event('finish', rows)
            event.is_news = any(run_result.nested for run_result in run_results)
            hand_over(event)
        if held_by_others:
            self.release_ownership(held_by_others)
        if places:  # what was left in their folders goes now, so that nobody waits for it
            for place in places:
                place.recover()
            hand_over(Event('sync', places, self.base.known_session))

    def _place_of(self, entry: Entry) -> Place:
        collection, folder = os.path.split(entry.path)
        path = self.base.collection_path(collection)
        return Place(entry.collection, entry.ident, path, folder, self.base.lock)

    def release_ownership(self, keys: Sequence[tuple[str, str]]) -> None:
        """Pending rows of ours that someone else turned out to compute are nobody's: the lock decides."""
        self.rows.put(Event('disown', keys, self.base.known_session))

    def unqueue(self, jobs: Sequence[Job]) -> None:
        """Jobs that were never begun: their resources become again what their folders say."""
        for job in jobs:
            recover.recover(job.collection, job.ident, job.spec.path, job.folder, lock=job.spec.lock)
        for start in range(0, len(jobs), GROUP):
            group = jobs[start : start + GROUP]
            self.sync([(*job.key, job.spec, job.folder) for job in group], soon=True)

    # --- resources ---------------------------------------------------------------------------------

    def resource(
        self,
        collection: Collection,
        ident: str,
        folder: str,
        status: Any,
        result: Any = None,
        *,
        wait: Callable[..., Resource] | None = None,
        entry: Entry | None = None,
        **told: Any,
    ) -> Resource:
        """What the user gets; ``told``: traceback and cause of a failure (see `Resource`)."""
        at = (self.base.given, self.base.path, collection.spec.folder, folder)
        return Resource(collection.name, ident, status, result, at=at, wait=wait, entry=entry, **told)

    def note(self, collection: Collection, job: Job, run_result: RunResult, *, is_last: bool = True) -> None:
        """Queue callbacks for a run and its nested fetches; ``is_last``: it will not be retried."""
        hooks = self.hooks
        for entry in {(entry.collection, entry.ident): entry for entry in run_result.nested}.values():
            if hooks.wants(entry.status):
                hooks.note(entry.status, partial(self._resource_of_entry, entry))
        status = run_result.entry.status
        if is_last and run_result.fresh and hooks.wants(status):
            hooks.note(status, partial(self.resource_of, collection, job, run_result))

    def _resource_of_entry(self, entry: Entry) -> Resource:
        above, _, folder = entry.path.rpartition('/')
        value = None
        if entry.status == 'completed':
            with fileops.opened_below(self.base.collection_path(above), folder) as opened:
                value = directory.parse_result(fileops.read(directory.RESULT, opened))
        at = (self.base.given, self.base.path, above, folder)
        return Resource(entry.collection, entry.ident, entry.status, value, at=at, entry=entry)

    def resource_of(self, collection: Collection, job: Job, run_result: RunResult) -> Resource:
        """The resource that an outcome tells of; a long result is read from its file.

        By then it may be another run's, or computed again, or gone: then it is what is found there.
        """
        status, value = run_result.entry.status, None
        if status == 'completed' and run_result.result is None:
            return self._found(collection, job, run_result)
        if status == 'completed' and run_result.result is not None:
            value = directory.parse_result(run_result.result)
        traceback = run_result.traceback if run_result.not_started else None
        return self.resource(
            collection,
            job.ident,
            job.folder,
            status,
            value,
            entry=run_result.entry,
            traceback=traceback,
            cause=run_result.cause,
        )

    def _found(self, collection: Collection, job: Job, run_result: RunResult) -> Resource:
        entry: Entry | None = None
        try:
            found = look(job.spec.path, job.folder, with_record=True)
        except Unreadable as error:
            entry = _no_entry(job, Unreadable.__name__, str(error))
            return self.resource(collection, job.ident, job.folder, 'error', entry=entry)
        status = found.state
        if found.damage is not None:
            what = f'{directory.RESULT} is damaged: {found.damage}'
            status, entry = 'error', _no_entry(job, 'Damaged', what)
        elif status == 'absent':
            what = 'it was removed before its result was read'
            status, entry = 'error', _no_entry(job, ResourceNotFound.__name__, what)
        elif status == 'damaged':  # being switched, or to be recovered by whoever waits for it
            status = 'pending'
        elif status == 'completed' and run_result.fresh and (found.record or {}).get('run') == run_result.run:
            entry = run_result.entry
        more: dict[str, Any] = {'entry': entry, 'seen': found if entry is None else None}
        return self.resource(collection, job.ident, job.folder, status, found.value, **more)

    def note_use(self, resource: Resource) -> None:
        """A function was given a resource; outside of one there is nothing to note."""

    def close(self) -> None:
        """Write what waits, close the index and end the session."""
        self.rows.close()
        index, self._index = self._index, None
        if index is not None:
            index.close()
        self.provenance.complete()
        self.base.end_session()


class FilesOnly(Store):
    """A store inside a worker or a resource's function: rows travel with the outcome that is under way."""

    def __init__(self, base: BaseDirectory, running: context.RunContext | None) -> None:
        super().__init__(base, _no_index)
        self.rows = NoRows()
        self._running = running

    def finish(self, run_results: Sequence[RunResult], *, soon: bool = False) -> None:
        """Have the rows travel."""
        if self._running is not None and context.base_of(self._running) == self.base.path:
            for run_result in run_results:
                context.add_nested(self._running, run_result)

    def _provenance(self) -> str | None:
        """That of whoever asked for what is running."""
        return context.job_of(self._running).provenance if self._running is not None else None

    def note_use(self, resource: Resource) -> None:
        """Have the record of what runs tell which run it was given."""
        running, entry, seen = self._running, resource._entry, resource._seen
        if running is None or context.base_of(running) != self.base.path or resource.status == 'pending':
            return
        if entry is not None:
            run, known = entry.run, entry.args_hash
        else:
            record = (seen and seen.record) or {}
            run, known = directory.recorded_run(record), record.get('args_hash')
        if run is not None:  # else it never began
            known = known if isinstance(known, str) else ''
            context.add_use(running, resource.collection, resource.ident, run, known)

    def _session(self) -> str | None:
        """None: the rows are the caller's."""


def _settled(collection: Collection, ident: str, folder: str) -> Recovered:
    return recover.recover(collection.name, ident, collection.spec.path, folder, lock=collection.spec.lock)


def _no_entry(job: Job, error_type: str, error: str) -> Entry:
    """Of what is nothing that a row could tell of."""
    more = {'error_type': error_type, 'error': error}
    return Entry.make(collection=job.collection, ident=job.ident, status='error', **more)


_NO_ARGS = canonical.args_hash('{}')
BATCH_LENGTH = 12


def new_batch() -> str:
    """What the run ids of one batch begin with, so that its own runs are told from all others."""
    return os.urandom(BATCH_LENGTH // 2).hex()


def _new_run(batch: str = '') -> str:
    return batch + os.urandom(6 if batch else 6 + BATCH_LENGTH // 2).hex()


def _no_index() -> Index:
    raise IndexFault(
        "the index is out of reach inside a resource's function", hint='query it from the caller'
    )


def _begun(job: Job) -> tuple[str | None, str | None, int | None] | None:
    """(since when, on which host, in which process) a job runs, as its record has it."""
    try:
        with fileops.opened_below(job.spec.path, job.folder) as folder:
            record = directory.read_record(folder) or {}
    except OSError:
        return None
    if record.get('run') != job.run:  # it is about to begin
        return None
    since, host, pid = (record.get(name) for name in ('started_at', 'host', 'pid'))
    return (
        since if isinstance(since, str) else None,
        host if isinstance(host, str) else None,
        pid if isinstance(pid, int) else None,
    )


def _queued(job: Job, phase: str) -> Entry:
    if phase == 'running':
        return job.entry('pending', phase, format_time(time.time()), HOST, os.getpid())
    return job.entry('pending', phase)


def is_worth_a_retry(run_result: RunResult, retry_on: tuple[str, ...] | None) -> bool:
    """Was it the function that failed? What was cancelled, interrupted or never begun is not tried again."""
    failed = run_result.entry.status == 'error' and not run_result.not_started
    if not failed or run_result.entry.error_type in ('Cancelled', 'Interrupted'):
        return False
    if run_result.is_wanted is not None:
        return run_result.is_wanted
    return retry_policy.is_wanted_by_name(retry_on, run_result.entry.error_type or '')


def retry_order(job: Job, run_result: RunResult) -> Job:
    """The order of the next attempt, after a failed one."""
    return job._replace(run=_new_run(job.run[:BATCH_LENGTH]), attempt=run_result.entry.attempt + 1)
