"""The queue between callers and executors: submit jobs, write their rows, retry failed ones."""

from __future__ import annotations

import contextlib
import heapq
import importlib
import threading
import time
from collections import deque
from typing import TYPE_CHECKING, Any

from .. import basedir
from ..errors import ExecutorFault, ExecutorUnavailable, ResourceError, UnknownExecutor
from ..executors._ticker import Clock, wanted_cancelled
from ..executors.base import Executor, Listener
from ..loaded import loaded
from ..records import Job, RunResult
from ..store import is_worth_a_retry, retry_order
from ._turns import Turns

if TYPE_CHECKING:
    from collections.abc import Callable, Container

    from ..registry import Collection
    from ..store import Store

EXECUTORS = {
    'inline': 'hadrosaur.executors.inline:InlineExecutor',
    'threads': 'hadrosaur.executors.threads:ThreadsExecutor',
    'processes': 'hadrosaur.executors.processes:WorkerPool',
}
"""Executors by name: import path of the class, loaded when asked for."""

SHARING_THIS_PROCESS = ('inline', 'threads')

ASKED_AGAIN = 5  # times that background work asks for a resource which someone else has locked,
ASKED_AFTER = 0.2  # seconds after the first time, and so many more after each
MOST_WAITING = 10_000  # retries that may wait for their time while others go on, about 1 kB each


def make_executor(
    executor: Any, listener: Listener, workers: int | None, threads: int | None = None
) -> Executor:
    """Create the executor for a name, an address, an Executor or a Dask Client.

    Raises UnknownExecutor, ExecutorUnavailable, or ValueError for an invalid number of workers.
    """
    path = check_executor(executor, workers, threads)
    is_here = isinstance(executor, str) and executor in SHARING_THIS_PROCESS
    more = {} if is_here else {'threads': threads}
    if path in EXECUTORS.values():
        return _load(path)(listener, workers, **more)
    return _load(path)(listener, workers, executor, **more)


def check_executor(executor: Any, workers: int | None, threads: int | None = None) -> str:
    """Return the import path of the class that drives an executor, without loading or contacting anything.

    Raises UnknownExecutor, ExecutorUnavailable for an asynchronous Client, or ValueError for an invalid
    number of workers or threads.
    """
    for name, number in (('workers', workers), ('threads', threads)):
        if number is not None and (isinstance(number, bool) or not isinstance(number, int) or number < 1):
            raise ValueError(f'{name} must be a whole number from 1 up, not {number!r}')
    if threads is not None and isinstance(executor, str) and executor in SHARING_THIS_PROCESS:
        raise ValueError(
            f'threads limits what numerical libraries start in worker processes, and executor={executor!r} '
            'has none; set OMP_NUM_THREADS and the like before your program starts'
        )
    if isinstance(executor, str) and executor in EXECUTORS:
        return EXECUTORS[executor]
    path = _foreign(executor)
    if path is None:
        raise UnknownExecutor(
            f'no executor is called {executor!r}',
            hint=f"choose one of {', '.join(map(repr, EXECUTORS))}, 'dask:tcp://host:port', a dask Client, "
            'or a concurrent.futures.Executor',
        )
    return path


def _foreign(executor: Any) -> str | None:
    """Return the import path of the class that drives a foreign executor; None if it is not one."""
    if isinstance(executor, str):
        if not executor.startswith('dask:'):
            return None
        scheme, _, place = executor.removeprefix('dask:').rpartition('://')
        host, _, port = place.rpartition(':')
        if scheme in ('', 'tcp', 'tls') and not (host and port.isdigit()):  # others dask knows
            raise UnknownExecutor(
                f'no dask scheduler can be at {executor.removeprefix("dask:")!r}: it has no host or no port '
                'number',
                hint='write dask:tcp://host:port',
            )
        return 'hadrosaur.executors.dask:DaskExecutor'
    futures, dask = loaded('concurrent.futures'), loaded('distributed')
    if futures is not None and isinstance(executor, futures.Executor):
        return 'hadrosaur.executors.futures:FuturesExecutor'
    if dask is not None and isinstance(executor, dask.Client):
        if getattr(executor, '_asynchronous', False) or executor.asynchronous:
            raise ExecutorUnavailable(
                'this dask Client is asynchronous: it works only for coroutines of its own event loop, and '
                'fetch_many waits for it from outside',
                hint="give a Client without asynchronous=True, or the scheduler's address: "
                "executor='dask:tcp://host:port'",
            )
        return 'hadrosaur.executors.dask:DaskExecutor'
    return None


def _load(path: str) -> Callable[..., Executor]:
    module, _, name = path.partition(':')
    made: Callable[..., Executor] = getattr(importlib.import_module(module), name)
    return made


class Submission:
    """One resource in flight: its current job, the args that were given, and the number of retries."""

    __slots__ = (
        'args',
        'asked',
        'collection',
        'has_turn',
        'job',
        'next_poll',
        'pause',
        'probed',
        'put_off',
        'retries',
    )  # fmt: skip

    def __init__(self, collection: Collection, job: Job, args: str | None = None) -> None:
        self.collection = collection
        self.job = job
        self.args = args  # canonical JSON, None where none were given
        self.retries = self.asked = self.put_off = 0
        self.has_turn = False  # the executor has it, of a collection with limits
        self.pause = self.next_poll = self.probed = 0.0  # while someone else computes it


class Notifier:
    """A condition variable with a version counter, so that no wake-up is lost.

    `wait` returns at once if anything was notified since the version that its caller has seen.
    """

    def __init__(self) -> None:
        self.version = 0
        self._told = threading.Condition(threading.Lock())

    def notify(self) -> None:
        """Wake all waiting threads."""
        with self._told:
            self.version += 1
            self._told.notify_all()

    def wait(self, seen: int, seconds: float | None = None) -> None:
        """Wait until the version differs from ``seen``, for at most so many seconds."""
        with self._told:
            self._told.wait_for(lambda: self.version != seen, seconds)


class Dispatcher:
    """Submits jobs to an executor, writes results into the index, retries failed ones.

    Attributes:
        finished: Results of submissions, oldest first, for the caller to take.
        news: Notified whenever a submission has ended.
        executor: The executor.
        fault: The error of the executor itself, if it failed.
    """

    def __init__(
        self,
        store: Store,
        executor: Any,
        workers: int | None,
        *,
        threads: int | None = None,
        keep: bool = True,
    ) -> None:
        self._store = store
        self._keep = keep
        self._submissions: dict[str, Submission] = {}  # by run
        self._by_key: dict[tuple[str, str], Submission] = {}
        self._due: list[float] = []  # when the retries that wait may begin, soonest first
        self.finished: deque[tuple[Submission, RunResult]] = deque()
        self.dropped: deque[str] = deque()  # runs that were never begun, for whoever counts them
        self._stopping = False
        self._cancelled: set[str] = set()  # runs that are not tried again
        self._changing = threading.RLock()  # a submission changes its run when it is tried again
        self.news = Notifier()
        self.fault: BaseException | None = None
        listener = Listener(self._deliver, self._started, self._dropped, self._failed)
        self.executor = make_executor(executor, listener, workers, threads)
        self._turns = Turns(getattr(self.executor, 'workers', 1))
        self._clock = Clock(self._look_at_held)

    def __len__(self) -> int:
        """Number of submissions in flight."""
        return len(self._submissions)

    @property
    def busy(self) -> int:
        """Number of submissions that the executor can work on: all except delayed retries."""
        now = time.monotonic()
        while self._due and self._due[0] <= now:
            heapq.heappop(self._due)
        return len(self._submissions) - min(len(self._due), MOST_WAITING)

    @property
    def next_retry(self) -> float | None:
        """When the next delayed retry may start, by the monotonic clock."""
        return self._due[0] if self._due else None

    def submit(self, submissions: list[Submission]) -> None:
        """Queue submissions of one collection in the index, then submit them to the executor."""
        jobs = [submission.job for submission in submissions]
        try:
            self._store.queue(jobs, running=self.executor.runs_at_once)
            self.take(submissions)
        except BaseException:  # Ctrl-C, or an executor that takes no more: no row without a submission
            self._store.unqueue([job for job in jobs if job.run not in self._submissions])
            raise

    def take(self, submissions: list[Submission]) -> None:
        """Submit jobs that are queued in the index already."""
        runs = {submission.job.run for submission in submissions}
        with self._changing:
            for submission in submissions:
                self._submissions[submission.job.run] = self._by_key[submission.job.key] = submission
        # Without the lock: an executor may tell at once what came of them, while it tells others too.
        self._hand_over(submissions, 0.0)
        if late := runs & self._cancelled:  # they were cancelled before the executor had them
            with contextlib.suppress(ExecutorFault):  # begun already, in a thread
                self.executor.cancel(late)

    def _hand_over(self, submissions: list[Submission], delay: float) -> None:
        if not delay and submissions[0].collection.spec.is_limited:
            with self._changing:
                self._turns.hold(submissions)
            self._clock.wind()
            self._give_turns()
            return
        self._send(submissions, delay)

    def _give_turns(self) -> None:
        """Submit what has waited for its turn; without holding the lock, for the reason given in `take`."""
        while True:
            with self._changing:
                submission = None if self._stopping else self._turns.next()
            if submission is None:
                return
            self._send([submission], 0.0)

    def _look_at_held(self) -> bool:
        """Drop waiting submissions that another process wants cancelled."""
        with self._changing:
            held = [submission.job for submission in self._turns]
        for job in wanted_cancelled(held):
            basedir.drop_cancel_request(job.spec.base, job.path)
            self._drop_held({job.run})
        return bool(held)

    def _drop_held(self, runs: Container[str]) -> None:
        with self._changing:
            dropped = self._turns.drop(runs)
        if dropped:
            self._dropped([submission.job for submission in dropped])

    def _send(self, submissions: list[Submission], delay: float) -> None:
        try:
            function = submissions[0].collection.program
            self.executor.submit([submission.job for submission in submissions], function, delay=delay)
        except BaseException:
            self._forget([submission.job for submission in submissions])
            raise

    def in_flight(self, collection: str | None = None, ident: str | None = None) -> list[Submission]:
        """Return what is in flight: everything, a collection's, or one resource's."""
        if collection is not None and ident is not None:
            submission = self._by_key.get((collection, ident))
            return [submission] if submission is not None else []
        submissions = list(self._submissions.values())
        return [submission for submission in submissions if collection in (None, submission.job.collection)]

    def wait_idle(
        self, collection: str | None = None, ident: str | None = None, seconds: float | None = None
    ) -> bool:
        """Wait until nothing of this is in flight; False if that takes longer than ``seconds``.

        Raises ExecutorFault if the executor has failed.
        """
        deadline = None if seconds is None else time.monotonic() + seconds
        while True:
            seen = self.news.version
            if not self.in_flight(collection, ident):
                return True
            self.check()
            left = None if deadline is None else deadline - time.monotonic()
            if left is not None and left <= 0:
                return False
            self.news.wait(seen, left)

    def _end(self, run: str) -> None:
        """Remove a submission that is no longer in flight."""
        submission = self._submissions.pop(run, None)
        if submission is not None:
            self._by_key.pop(submission.job.key, None)
            if submission.has_turn:
                with self._changing:
                    self._turns.free(submission)
        self._cancelled.discard(run)

    def _deliver(self, run_results: list[RunResult]) -> None:
        ended = [run_result for run_result in run_results if run_result.later is None]
        self._store.finish(ended, soon=not self.executor.runs_at_once)
        is_limited = len(ended) < len(run_results)
        for run_result in run_results:
            submission = self._submissions.get(run_result.run)
            if submission is None:
                continue
            if submission.has_turn or run_result.later is not None:
                is_limited = True
                if self._is_put_off(submission, run_result):
                    continue
            job = submission.job
            if self._is_tried_again(submission, run_result) or self._is_asked_again(submission, run_result):
                if self._store.hooks.is_used:
                    self._store.note(submission.collection, job, run_result, is_last=False)
                continue
            if self._is_computed_anew(submission, run_result):
                continue
            if self._store.hooks.is_used:
                self._store.note(submission.collection, job, run_result)
                if not self._keep:
                    self._store.hooks.call_soon()
            if self._keep:
                self.finished.append((submission, run_result))
            self._end(run_result.run)  # last: a submission is on its way, or finished, or both
        if is_limited:
            self._give_turns()
        self.news.notify()

    def _is_put_off(self, submission: Submission, run_result: RunResult) -> bool:
        """Whether its collection's limits delay it: then it keeps its turn and is tried again."""
        with self._changing:
            if run_result.later is None:
                self._turns.free(submission)
                return False
            delay = self._turns.put_off(submission, run_result.later)
            if self._stopping or run_result.run in self._cancelled:
                self._dropped([submission.job])
                return True
            self._send([submission], delay)
            heapq.heappush(self._due, time.monotonic() + delay)
            return True

    def _is_tried_again(self, submission: Submission, run_result: RunResult) -> bool:
        """Whether it is retried; the executor keeps a delayed retry, so it blocks nobody."""
        if submission.retries >= submission.collection.retries:
            return False
        if not is_worth_a_retry(run_result, submission.collection.spec.retry_on):
            return False
        with self._changing:
            if self._stopping or run_result.run in self._cancelled:
                return False
            submission.retries += 1
            submission.job = retry_order(submission.job, run_result)
            self._submissions[submission.job.run] = submission
            del self._submissions[run_result.run]
            delay = submission.collection.delay_before(submission.retries)
            self._store.requeue(submission.job, running=self.executor.runs_at_once and not delay)
            self._hand_over([submission], delay)
            if delay:
                heapq.heappush(self._due, time.monotonic() + delay)  # not sooner than the executor has it
            return True

    def _is_asked_again(self, submission: Submission, run_result: RunResult) -> bool:
        """Whether it is tried again because somebody held its lock, perhaps only to read it."""
        if self._keep or run_result.entry.status != 'pending' or submission.asked >= ASKED_AGAIN:
            return False
        with self._changing:
            if self._stopping or run_result.run in self._cancelled:
                return False
            submission.asked += 1
            self._store.requeue(submission.job)
            self._hand_over([submission], submission.asked * ASKED_AFTER)
            return True

    def _is_computed_anew(self, submission: Submission, run_result: RunResult) -> bool:
        """Whether somebody else's result, of other args or another version, has to be recomputed."""
        if self._keep or run_result.fresh or run_result.entry.status != 'completed':
            return False  # a batch judges for itself
        collection, job = submission.collection, submission.job
        try:
            if not collection.is_wanted_anew(job.ident, run_result.entry, submission.args, recompute=False):
                return False
        except ResourceError:  # told to whoever asks for it
            return False
        with self._changing:
            if self._stopping or run_result.run in self._cancelled:
                return False
            args = submission.args
            submission.job = self._store.job(collection, job.ident, args, job.folder, recompute='changed')
            self._submissions[submission.job.run] = submission
            del self._submissions[run_result.run]
            self._store.requeue(submission.job)
            self._hand_over([submission], 0.0)
            return True

    def _started(self, jobs: list[Job]) -> None:
        self._store.started(jobs, here=self.executor.runs_here)

    def _dropped(self, jobs: list[Job]) -> None:
        self._forget(jobs)
        if jobs and jobs[0].spec.is_limited:
            self._give_turns()

    def _forget(self, jobs: list[Job]) -> None:
        """Remove submissions that were not started and will not be."""
        self._store.unqueue(jobs)
        if self._keep:
            self.dropped.extend(job.run for job in jobs if job.run in self._submissions)
        for job in jobs:
            self._end(job.run)
        self.news.notify()

    def _failed(self, error: BaseException) -> None:
        jobs = [submission.job for submission in list(self._submissions.values())]
        try:
            self._store.unqueue(jobs)  # nobody carries them out, and they are not to look as if
        finally:
            self.fault = error
            self.news.notify()

    def check(self) -> None:
        """Raise ExecutorFault if the executor itself has failed."""
        if self.fault is not None:
            told = self.fault.message if isinstance(self.fault, ExecutorFault) else repr(self.fault)
            raise ExecutorFault(f'the executor failed: {told}') from self.fault

    def cancel(self, collection: str | None = None, ident: str | None = None) -> int:
        """Stop submissions: all, a collection's, or one resource's; returns how many.

        Those not started are withdrawn. Raises ExecutorFault if one cannot be stopped.
        """
        with self._changing:
            runs = {submission.job.run for submission in self.in_flight(collection, ident)}
            self._cancelled |= runs
        self._drop_held(runs)
        if runs:
            self.executor.cancel(runs)
        return len(runs)

    def cancel_all(self) -> None:
        """Stop all submissions for good; runs in threads go on to their end."""
        with self._changing:
            self._stopping = True
        with contextlib.suppress(ExecutorFault):
            self.cancel()

    def stop(self, *, interrupt: bool) -> None:
        """Stop everything, leaving nothing pending."""
        with self._changing:
            self._stopping = True
        self._clock.close()
        self._drop_held({submission.job.run for submission in self._turns})
        if self._submissions and self.fault is None:
            with contextlib.suppress(ExecutorFault):  # it fails just now; what is left is recovered below
                if interrupt:
                    self.executor.interrupt()
                else:
                    self.cancel_all()
                    if not self.executor.is_stepped:  # there nobody is left who could end anything
                        self.wait_idle(seconds=5.0)
        self.executor.close()
        self._give_up()  # killed in mid-run when the executor closed
        self._store.rows.rest()
        self.news.notify()

    def _give_up(self) -> None:
        if self._submissions:
            self._store.unqueue([submission.job for submission in self._submissions.values()])
            self._submissions.clear()
            self._by_key.clear()
