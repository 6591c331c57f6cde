"""Many resources of one collection: consumed lazily from the user's iterable, yielded as they finish."""

from __future__ import annotations

import contextlib
import os
import threading
import time
from collections import deque
from collections.abc import Iterable, Iterator, Mapping, Sized
from functools import partial
from typing import TYPE_CHECKING, Any

from .. import context, directory, fileops, wait_graph
from ..args_idents import named
from ..errors import (
    ExecutorFault,
    HadrosaurError,
    InvalidArgs,
    InvalidIdent,
    ResourceError,
    Unreadable,
    warn,
)
from ..handle import NOTHING, FolderState, Resource, free_frames, look
from ..locks import Ender
from ..records import Counts, Entry, RunResult, checked_seconds
from ..store import FilesOnly, new_batch
from ._items import Item, items_of
from ._summary import in_words
from .dispatcher import Dispatcher, Submission

if TYPE_CHECKING:
    from collections.abc import Callable
    from datetime import timedelta

    from ..registry import Collection
    from ..store import Store

GROUP = 64  # jobs per transaction, when there is a stream of them
PATIENCE = 0.05  # seconds to pull idents before what was pulled is handed over
IDLE_POLL = 0.05  # seconds between looks at a resource that someone else computes, growing to:
IDLE_POLL_MOST = 1.0
MET_MOST = 100_000  # idents computed elsewhere that are remembered, so that a repeat is no new request
REFILL = 0.75  # of the executor's capacity: below it, more of the user's idents are pulled


class _DeadlinePassed(Exception):
    """The timeout of `Batch.wait` has passed; never leaves this module."""


class Batch(Iterator[Resource]):
    """What `Project.fetch_many` returns: iterate it for resources as they finish, or call `wait`.

    Nothing is computed before the first iteration. Resources that fail are yielded like the others. As a
    context manager it stops at the end of the with block what has not finished by then.
    """

    def __init__(
        self,
        store: Store,
        collection: Collection,
        idents: Iterable[Any],
        args: Mapping[str, Any] | None = None,
        *,
        workers: int | None = None,
        threads: int | None = None,
        executor: Any = 'processes',
        recompute: bool = False,
        retry_errors: bool = True,
        progress: Callable[[Counts, Entry | None], None] | None = None,
        on_end: Callable[[Batch], None] | None = None,
    ) -> None:
        self.store = self._store = store
        self._collection = collection
        self._source = items_of(idents, args)
        self._length, self._interrupted = len(idents) if isinstance(idents, Sized) else None, 0
        # Does it run while idents are pulled? Else the collection's folder is opened once for many.
        self._runs_users_code = progress is not None or type(idents) not in (list, tuple, set, dict, range)
        self._parent: int | None = None
        self._executor = executor
        self._workers = workers
        self._threads = threads
        self._recompute = recompute
        self._retry_errors = retry_errors
        self.progress = progress
        self._on_end = on_end
        self._dispatcher: Dispatcher | None = None
        self._ender: Ender | None = None
        self._ready: deque[Resource] = deque()
        self._in_flight: set[str] = set()  # idents, to merge repeats
        self._held_by_others: list[Submission] = []
        self._process = os.getpid()
        self._name = new_batch()  # what the run ids of its jobs begin with
        self._met: set[str] = set()  # idents that someone else has computed for it
        self._computed: set[str] = set()  # and those that other batches did
        self._waits: wait_graph.Waits | None = None
        self._cut = False  # closed by someone else than the loop that iterates
        self._exhausted = self._ended = self._cancelled = False
        self._steering = threading.RLock()  # cancel may come from another thread
        self._tally = {'total': 0, 'completed': 0, 'error': 0, 'reused': 0}
        self._deadline: float | None = None  # of the `wait` that iterates just now

    @property
    def dispatcher(self) -> Dispatcher | None:
        """The dispatcher, once it was started."""
        return self._dispatcher if os.getpid() == self._process else None

    @property
    def collection(self) -> str:
        """Name of the collection."""
        return self._collection.name

    @property
    def counts(self) -> Counts:
        """Numbers of distinct resources requested so far, by what became of them."""
        done = self._tally['completed'] + self._tally['error']
        return Counts(
            self._tally['total'],
            self._tally['completed'],
            self._tally['error'],
            self._tally['total'] - done,
            self._tally['reused'],
        )

    def wait(self, timeout: float | timedelta | None = None) -> Counts:
        """Compute everything, without keeping the resources.

        Args:
            timeout: Maximum time to wait, in seconds or as a timedelta; None: no limit. What is in flight
                then goes on, and the batch can be iterated or waited for again. With
                ``executor='inline'`` a run that has begun is finished first.

        Returns:
            The `Counts`; after a timeout ``pending`` may be above 0.
        """
        if timeout is None:
            for _ in self:
                pass
            return self.counts
        self._deadline = time.monotonic() + checked_seconds('timeout', timeout)
        try:
            while time.monotonic() < self._deadline and next(self, None) is not None:
                pass
        except _DeadlinePassed:
            pass
        finally:
            self._deadline = None
        return self.counts

    def summary(self) -> str:
        """Describe the batch in words: how many are completed, failed, interrupted and not begun."""
        return in_words(self.counts, self._interrupted, self._length)

    def cancel(self) -> None:
        """Stop the batch: drop what has not started, kill what runs (error ``Cancelled``)."""
        with self._steering:
            self._exhausted = self._cancelled = True
            self._tally['total'] -= len(self._held_by_others)
            self._held_by_others.clear()
            if self._dispatcher is None:
                self._ended = True
                return
            self._dispatcher.cancel_all()

    def __enter__(self) -> Batch:
        return self

    def __exit__(self, *_: object) -> None:
        """Close at the end of a with block: drop what has not started, kill what runs."""
        self.close()

    def __repr__(self) -> str:
        return f'<Batch of {self._collection.name!r}: {self.summary()}>'

    def _repr_html_(self) -> str:
        """How far it is as a table, for notebooks."""
        from ..sanitize import html_table

        counts = self.counts
        said = f'fetch_many of {self._collection.name}: {self.summary()}'
        return html_table(counts._fields, [counts], said)

    def __iter__(self) -> Batch:
        return self

    def __next__(self) -> Resource:
        try:
            resource = self._next()
        except _DeadlinePassed:
            raise
        except BaseException as error:
            self._end(interrupt=isinstance(error, KeyboardInterrupt))
            if type(error) is KeyboardInterrupt:  # where in our own code it came is of no use to anybody
                raise KeyboardInterrupt(f'{self.summary()}; the same call goes on from there') from None
            raise
        finally:
            if self._waits is not None:
                self._waits.unqueue()
                self._waits = None
        if resource is None:
            self._end(interrupt=False)
            raise StopIteration
        self._store.note_use(resource)
        return resource

    def _next(self) -> Resource | None:
        while not self._ended:
            self._take_finished()
            if not self._ready:
                self._fill()
            self._store.hooks.call()
            if self._ready:
                return self._ready.popleft()
            if self._is_over():
                return None
            self._work_or_wait()
        if self._cut:
            self._cut = False
            counts = self.counts
            warn(
                f'this batch of {self._collection.name!r} was closed before it was done: '
                f'{counts.completed} completed, {counts.error} failed, the rest was not started'
            )
        return None

    def _is_over(self) -> bool:
        dispatcher = self._dispatcher
        if not self._exhausted or self._held_by_others:
            return False
        return dispatcher is None or not (len(dispatcher) or dispatcher.finished)

    def _work_or_wait(self) -> None:
        dispatcher = self._started_dispatcher()
        seen = dispatcher.news.version
        dispatcher.check()
        if dispatcher.finished or dispatcher.executor.step() or self._is_over():
            return
        if not self._exhausted and self._is_hungry(REFILL):
            return  # the user's iterable is slow: look for results, then pull on
        if self._closes_a_ring():
            return
        moments = [submission.next_poll for submission in self._held_by_others]
        if dispatcher.next_retry is not None:
            moments.append(dispatcher.next_retry)
        if tick := getattr(self.progress, 'tick', None):  # a display goes on where nothing ends for a while
            moments.append(time.monotonic() + tick(self.counts))
        if self._deadline is not None:
            moments.append(self._deadline)
            if time.monotonic() >= self._deadline:
                raise _DeadlinePassed
        dispatcher.news.wait(seen, max(0.001, min(moments) - time.monotonic()) if moments else None)

    def _take_finished(self) -> None:
        dispatcher = self._dispatcher
        if dispatcher is None:
            return
        while dispatcher.dropped:
            dispatcher.dropped.popleft()
            self._tally['total'] -= 1
        while dispatcher.finished:
            submission, run_result = dispatcher.finished.popleft()
            if run_result.entry.status == 'pending' and self._cancelled:
                self._tally['total'] -= 1  # someone else computes it, and nobody here waits for that
            elif run_result.entry.status == 'pending' or not self._land(submission, run_result):
                self._held_by_others.append(submission)
                submission.next_poll = time.monotonic() + submission.pause
        if self._held_by_others and not self._ended:
            self._poll_elsewhere(time.monotonic())

    def _land(self, submission: Submission, run_result: RunResult) -> bool:
        """Queue a resource to be yielded; False if it is being computed again before its result was read."""
        is_served = not (run_result.fresh or run_result.not_started)
        if is_served and self._is_submitted_anew(submission, run_result.entry):
            return True
        resource = self._store.resource_of(submission.collection, submission.job, run_result)
        free_frames(run_result.cause)
        if resource.status == 'pending':
            return False
        self._in_flight.discard(submission.job.ident)
        self._add(resource, run_result.entry, reused=not run_result.fresh)
        return True

    def _add(self, resource: Resource, entry: Entry | None, *, reused: bool) -> None:
        status = resource.status
        self._tally['completed' if status == 'completed' else 'error'] += 1
        if entry is not None and entry.error_type == 'Interrupted':
            self._interrupted += 1
        if reused and status == 'completed':
            self._tally['reused'] += 1
        self._ready.append(resource)
        if self.progress is not None:
            self.progress(self.counts, entry)

    # --- pulling the user's idents -----------------------------------------------------------------

    def _fill(self) -> None:
        """Consume idents until the executor has enough, or something is ready to be yielded."""
        if self._exhausted or (self._dispatcher and not self._is_hungry(REFILL)):
            return
        if not self._runs_users_code:
            with contextlib.suppress(OSError):
                self._parent = fileops.open_folder(self._collection.spec.path, fileops.LOOK)
        try:
            self._pull()
        finally:
            self._let_parent_go()

    def _let_parent_go(self) -> None:
        """Close the collection's folder, which user code may have replaced meanwhile."""
        parent, self._parent = self._parent, None
        if parent is not None:
            os.close(parent)

    def _pull(self) -> None:
        deadline = time.monotonic() + PATIENCE
        group: list[Submission] = []
        while len(self._ready) < GROUP:
            item = next(self._source, None)
            if item is None:
                self._exhausted = True
                break
            submission = self._flight_of(item)
            if submission is not None:
                group.append(submission)
            late = time.monotonic() > deadline
            # A hungry executor gets the first ones at once, a busy one a transaction's worth.
            if len(group) >= (GROUP if self._dispatcher and self._dispatcher.busy >= 4 else 1):
                self._submit(group)
                group = []
                if not self._is_hungry(1.0):
                    break
            if late:
                break
        if group:
            self._submit(group)

    def _is_hungry(self, share: float) -> bool:
        if self._dispatcher is None:
            return True
        return self._dispatcher.busy < max(1.0, share * self._dispatcher.executor.capacity)

    def _started_dispatcher(self) -> Dispatcher:
        if self._dispatcher is None:
            executor, workers = self._executor, self._workers
            if executor == 'inline' and self._collection.spec.needs_process:
                executor, workers = 'processes', 1  # one after the other, in a process of ours
            self._dispatcher = Dispatcher(self._store, executor, workers, threads=self._threads)
            self._ender = Ender()
        return self._dispatcher

    def _submit(self, group: list[Submission]) -> None:
        self._let_parent_go()
        with self._steering:
            if self._cancelled or self._ended:
                self._tally['total'] -= len(group)
                return
            try:
                self._started_dispatcher().submit(group)
            except ExecutorFault:
                if not self._ended:  # else another thread has closed it, and that is no fault
                    raise

    def _flight_of(self, item: Item) -> Submission | None:
        """Return a submission to be computed; None if it is done, in progress, or invalid."""
        collection = self._collection
        try:
            ident, args = named(item.ident, item.args, collection.name)
        except (InvalidIdent, InvalidArgs) as error:
            self._refuse(item.ident, error)
            return None
        if ident in self._in_flight:
            return None
        self._tally['total'] += 1
        folder = directory.find_folder(collection.spec.path, ident)
        try:
            return self._looked_at(ident, args, folder)
        except ResourceError as error:  # the policy for changed args, a ring, what cannot be read just now
            self._tally['total'] -= 1
            self._refuse(ident, error, folder)
            return None

    def _looked_at(self, ident: str, args: str | None, folder: str) -> Submission | None:
        collection = self._collection
        compared = args is not None or collection.is_versioned or isinstance(self._store, FilesOnly)
        found = look(collection.spec.path, folder, with_record=compared, parent=self._parent)
        if self._is_there(ident, args, folder, found):
            return None
        how, is_new = 'changed' if found.state == 'completed' else 'no', found is NOTHING
        submission = self._flight(ident, args, folder, how, is_new=is_new)
        if submission.job.step in submission.job.chain:
            raise wait_graph.itself(submission.job.chain, submission.job.step)
        self._in_flight.add(ident)
        if found.state == 'pending' and self._store.is_in_progress(collection, ident, folder):
            self._started_dispatcher()
            self._held_by_others.append(submission)
            return None
        return submission

    def _is_there(self, ident: str, args: str | None, folder: str, found: FolderState) -> bool:
        """Whether the resource is done and is to be yielded as it is."""
        if found.state == 'completed':
            if self._recompute and not self._was_asked_here(ident, folder, found):
                return False
            return self._reuse(ident, args, folder, found)
        if found.state == 'error' and (not self._retry_errors or self._was_asked_here(ident, folder, found)):
            failed = self._store.resource(self._collection, ident, folder, 'error', seen=found)
            self._add(failed, None, reused=True)
            return True
        return False

    def _flight(
        self, ident: str, args: str | None, folder: str, how: str, *, is_new: bool = False
    ) -> Submission:
        more: dict[str, Any] = {'recompute': 'yes' if self._recompute else how, 'is_new': is_new}
        job = self._store.job(self._collection, ident, args, folder, batch=self._name, **more)
        return Submission(self._collection, job, args)

    def computed(self, idents: Iterable[str]) -> None:
        """Note that these were computed on behalf of this batch, so that they are not computed again."""
        self._computed.update(idents)

    def _was_asked_here(self, ident: str, folder: str, found: FolderState) -> bool:
        """Whether the resource was computed in this batch already.

        The run id in its record tells, independently of clocks and without remembering idents.
        """
        if ident in self._met or ident in self._computed:
            return True
        record = found.record or self._store.record(self._collection, folder)
        run = record.get('run') if record else None
        return isinstance(run, str) and run.startswith(self._name)

    def _reuse(self, ident: str, args: str | None, folder: str, found: FolderState) -> bool:
        """Yield the saved result; False if it is damaged, or outdated by the collection's policies."""
        if found.damage is not None:
            self._store.warn_of_damage(self._collection, ident, folder, found.damage)
            return False
        is_compared = found.record is not None
        if is_compared and self._collection.is_outdated(ident, found.record, args, self._store.base):
            return False
        resource = self._store.resource(self._collection, ident, folder, 'completed', found.value, seen=found)
        self._add(resource, None, reused=ident not in self._computed)
        return True

    def _refuse(self, given: Any, error: HadrosaurError, folder: str = '%invalid') -> None:
        """Count an invalid ident as an error that names it; the rest goes on, and nothing is stored."""
        self._tally['total'] += 1
        entry = Entry.make(
            collection=self._collection.name,
            ident=given if isinstance(given, str) else repr(given),
            status='error',
            args='{}',
            attempt=1,
            error_type=type(error).__name__,
            error=str(error),
        )
        resource = self._store.resource(self._collection, entry.ident, folder, 'error', entry=entry)
        self._add(resource, entry, reused=False)

    # --- resources that someone else computes ------------------------------------------------------

    def _is_submitted_anew(self, submission: Submission, entry: Entry) -> bool:
        """Apply the policies to somebody else's run with other args or another version."""
        collection, ident, folder = submission.collection, submission.job.ident, submission.job.folder
        try:
            is_other = collection.is_wanted_anew(ident, entry, submission.args, recompute=self._recompute)
        except ResourceError as error:
            self._forget(submission)
            self._refuse(ident, error, folder)
            return True
        if entry.status == 'error' and collection.retries and isinstance(self._store, FilesOnly):
            is_other = True  # whoever computes it may be about to try again, and cannot be asked
        if is_other:
            submission.job = self._flight(ident, submission.args, folder, 'changed').job
            self._submit([submission])
        elif len(self._met) < MET_MOST:
            self._met.add(ident)
        return is_other

    def _forget(self, submission: Submission) -> None:
        """Remove it from the submissions and the counts."""
        self._in_flight.discard(submission.job.ident)
        self._tally['total'] -= 1

    def _closes_a_ring(self) -> bool:
        """Inside a function: publish what is waited for; a cycle ends in CycleError."""
        running = context.current()
        if running is None or not self._held_by_others:
            return False
        chain = context.chain_of(running)
        if self._waits is None:
            self._waits = wait_graph.Waits(self._store.base.hidden, chain)
        closing = self._waits.publish(submission.job.step for submission in self._held_by_others)
        for submission in [
            submission for submission in self._held_by_others if submission.job.step in closing
        ]:
            self._held_by_others.remove(submission)
            self._forget(submission)
            job = submission.job
            self._refuse(job.ident, wait_graph.ring(chain, job.step), job.folder)
        return bool(closing)

    def _poll_elsewhere(self, now: float) -> None:
        again: list[Submission] = []
        still: list[Submission] = []
        for submission in self._held_by_others:
            if submission.next_poll > now:
                still.append(submission)
            elif not self._is_done_elsewhere(submission, now):
                (again if self._is_given_up(submission, now) else still).append(submission)
        with self._steering:
            self._held_by_others = still if not self._cancelled else []
        for submission in again:
            self._submit([submission])

    def _is_done_elsewhere(self, submission: Submission, now: float) -> bool:
        collection, job = submission.collection, submission.job
        try:
            state = self._store.look(collection, job.ident)[1].state
        except Unreadable as error:
            self._in_flight.discard(job.ident)
            self._tally['total'] -= 1
            self._refuse(job.ident, error, job.folder)
            return True
        if state in ('completed', 'error'):
            recovered = self._store.sync_finished(collection, job.ident, job.folder)
            if recovered.entry is not None and self._land(submission, RunResult(job.run, recovered.entry)):
                return True
        submission.pause = min(max(IDLE_POLL, submission.pause * 1.5), IDLE_POLL_MOST)
        submission.next_poll = now + submission.pause
        return False

    def _is_given_up(self, submission: Submission, now: float) -> bool:
        """Whether the process that computed it is gone; probes the lock at most once a second."""
        if now - submission.probed < 1.0:
            return False
        submission.probed = now
        job = submission.job
        return not self._store.is_in_progress(submission.collection, job.ident, job.folder)

    # --- the end -----------------------------------------------------------------------------------

    def _end(self, *, interrupt: bool) -> None:
        if self._ended:
            return
        self._ended = True
        if os.getpid() != self._process:
            return  # the copy in a forked child, whose parent goes on with it
        if self._dispatcher is not None:
            self._dispatcher.stop(interrupt=interrupt)
            self._take_finished()
        if self._on_end is not None:
            self._on_end(self)
        if self._ender is not None:
            self._ender.join()

    def close(self) -> None:
        """Kill what runs and free workers and locks; happens by itself at the end of the iteration."""
        self._cut = not self._ended and (bool(self._in_flight) or not self._exhausted)
        self._end(interrupt=True)
        if self._ender is not None and os.getpid() == self._process:
            self._ender.join()  # dropped a moment ago, it may just be ending

    def __del__(self) -> None:
        if getattr(self, '_ended', True) or os.getpid() != self._process:
            return
        if self._dispatcher is None and not self._tally['total']:
            warn('a batch of fetch_many was dropped before it was started: iterate it, or call .wait()')
        if self._ender is not None:
            self._ender.ask(partial(self._end, interrupt=False))
