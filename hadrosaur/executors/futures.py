"""Any `concurrent.futures.Executor` instance: it carries chunks of jobs, and workers run them.

The executor's tasks are hosts (see `_host`); which thread or process runs them is its own affair. Short
resources travel several at a time, so that what the executor costs per task is shared; a chunk that
takes longer than its budget hands back what it has not begun.
"""

from __future__ import annotations

import contextlib
import heapq
import itertools
import math
import os
import threading
import time
from collections import deque
from typing import TYPE_CHECKING, Any

from .. import basedir, directory, fileops, recover
from ..cpu_count import processors
from ..errors import ExecutorFault, WorkerDied
from ..locks import start_without_signals
from ..not_started import not_started
from ..records import Job, RunResult
from . import _chunk_host
from ._chunk_host import Chunk, ChunkResult
from ._ticker import LONG_RUN, Clock, wanted_cancelled
from .base import Executor, Listener, Packed, pack

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

    from .base import Function

MOST = 64  # jobs in a chunk
LOST_TASKS = 3  # times that a job's chunk may be lost before it was begun


class FuturesExecutor(Executor):
    """Hands chunks to ``executor``, as many at a time as keep ``workers`` busy."""

    def __init__(
        self, listener: Listener, workers: int | None, executor: Any, threads: int | None = None
    ) -> None:
        self._foreign = executor
        self.workers = workers or self._count_workers()
        self._threads = threads or self._threads_of_each()
        self.capacity = 2 * MOST * self.workers
        self._tell = listener
        self._telling = threading.RLock()  # a retry may be done before it is submitted
        self._guard = threading.Condition()
        self._waiting: deque[tuple[Job, Packed]] = deque()
        self._later: list[tuple[float, int, Job, Packed]] = []
        self._chunks: dict[Any, Chunk] = {}
        self._since: dict[Any, float] = {}  # when those were sent of which nothing is known to run, monotonic
        self._owner = os.urandom(8).hex()
        self._lost: dict[str, int] = {}
        self._cancelled: set[str] = set()
        self._packed: dict[int, tuple[Packed, Function]] = {}
        self._count = itertools.count()
        self._timer: threading.Timer | None = None
        self._alarm = math.inf  # when it rings, monotonic
        self._pace = 0.0  # seconds per job, lately
        self._clock = Clock(self._look)

    def _threads_of_each(self) -> int | None:
        return max(1, processors() // self.workers)

    def _count_workers(self) -> int:
        return int(getattr(self._foreign, '_max_workers', None) or processors())

    def _send(self, chunk: Chunk) -> Any:
        """Have a host run a chunk; returns a future."""
        return self._foreign.submit(_chunk_host.run_chunk, chunk)

    # --- jobs in ---------------------------------------------------------------------------------

    def submit(self, jobs: Sequence[Job], function: Function, *, delay: float = 0.0) -> None:
        """Take jobs of one collection. Raises ExecutorFault where the executor takes no more."""
        if id(function) not in self._packed:
            self._packed[id(function)] = (pack(function), function)
        packed = self._packed[id(function)][0]
        with self._guard:
            if delay:
                moment = time.monotonic() + delay
                for job in jobs:
                    heapq.heappush(self._later, (moment, next(self._count), job, packed))
            else:
                self._waiting.extend((job, packed) for job in jobs)
        self._pump()

    def _pump(self) -> None:
        """Send chunks while there are jobs and the executor has less than it can chew."""
        while True:
            with self._guard:
                self._take_due()
                chunk = self._next_chunk() if len(self._chunks) < 2 * self.workers else None
            if chunk is None:
                return
            try:
                future = self._send(chunk)
            except RuntimeError as error:  # shut down, or broken
                with self._guard:
                    self._waiting.extendleft((job, chunk.packed) for job in reversed(chunk.jobs))
                raise ExecutorFault(f'the executor takes no more work: {error}', hint='give it a new one')
            with self._guard:
                self._chunks[future] = chunk
                self._since[future] = time.monotonic()
                cancelled = [job for job in chunk.jobs if job.run in self._cancelled]
            for job in cancelled:  # while the chunk was on its way
                basedir.request_cancel(job.spec.base, job.path, job.queued_at)
            self._clock.wind()
            future.add_done_callback(self._done)

    def _take_due(self) -> None:
        now = time.monotonic()
        while self._later and self._later[0][0] <= now:
            _, _, job, packed = heapq.heappop(self._later)
            self._waiting.append((job, packed))
        if self._later and self._later[0][0] < self._alarm:
            self._alarm = self._later[0][0]
            if self._timer is not None:
                self._timer.cancel()
            self._timer = threading.Timer(self._alarm - now, self._ring)
            self._timer.name = 'hadrosaur-retries'
            self._timer.daemon = True
            start_without_signals(self._timer)

    def _ring(self) -> None:
        with self._guard:
            self._alarm = math.inf
        try:
            self._pump()
        except ExecutorFault as error:
            self._tell.failed(error)

    def _next_chunk(self) -> Chunk | None:
        """Orders of one task and function, for about the budget of a chunk."""
        if not self._waiting:
            return None
        size = min(MOST, max(1, int(_chunk_host.BUDGET / self._pace))) if self._pace else 1
        first, packed = self._waiting[0]
        jobs: list[Job] = []
        while self._waiting and len(jobs) < size:
            job, other = self._waiting[0]
            if other.digest != packed.digest or job.spec != first.spec:
                break
            jobs.append(self._waiting.popleft()[0])
        return Chunk(jobs, packed, self._owner, self._threads)

    def _look(self) -> bool:
        """Tell of what has been running for a second, and drop what somebody wants cancelled in time.

        A host says nothing before it is done: the records tell which jobs of a chunk are begun.
        """
        with self._guard:
            waiting = [job for job, _ in self._waiting] + [item[2] for item in self._later]
            now = time.monotonic()
            long = [future for future, since in self._since.items() if now - since >= LONG_RUN]
            chunks = [(future, self._chunks[future]) for future in long]
        if wanted := wanted_cancelled(waiting):
            for job in wanted:
                basedir.drop_cancel_request(job.spec.base, job.path)
            self.cancel({job.run for job in wanted})
        for future, chunk in chunks:
            running = [job for job in chunk.jobs if _is_begun(job)]
            with self._telling:
                if running and self._since.pop(future, None) is not None:
                    self._tell.started(running)
        with self._guard:
            return bool(self._since or waiting)

    # --- outcomes out ------------------------------------------------------------------------------

    def _done(self, future: Any) -> None:
        with self._guard:
            chunk = self._chunks.pop(future, None)
            self._since.pop(future, None)
        if chunk is None:
            return
        try:
            self._take_in(future, chunk)
        except BaseException as error:  # told to whoever waits, who would wait for ever
            self._tell.failed(error)

    def _take_in(self, future: Any, chunk: Chunk) -> None:
        run_results, again, dropped = self._sorted_out(future, chunk)
        for job in {*dropped, *(job for job in chunk.jobs if job.run in self._cancelled)}:
            basedir.drop_cancel_request(job.spec.base, job.path)
        with self._guard:
            self._waiting.extendleft((job, chunk.packed) for job in reversed(again))
        with self._telling:
            if run_results:
                self._tell.on_results(run_results)
            if dropped:
                self._tell.dropped(dropped)
        with self._guard:
            self._guard.notify_all()
        self._pump()

    def _sorted_out(self, future: Any, chunk: Chunk) -> tuple[list[RunResult], list[Job], list[Job]]:
        """(outcomes, jobs to be sent again, jobs that were cancelled)."""
        if future.cancelled():
            return [], [], chunk.jobs
        try:
            result: ChunkResult = future.result()
        except Exception as error:  # whatever a foreign executor says of a worker that it lost
            return self._recovered(chunk, error)
        self._note_pace(result)
        dropped = self._cancelled.union(result.unwanted)
        again = [job for job in chunk.jobs if job.run in result.unbegun and job.run not in dropped]
        left = {*result.unbegun, *result.unwanted}
        return result.run_results, again, [job for job in chunk.jobs if job.run in left & dropped]

    def _note_pace(self, result: ChunkResult) -> None:
        seconds = [run_result.entry.duration or 0.0 for run_result in result.run_results if run_result.fresh]
        if seconds:
            mean_run_time = sum(seconds) / len(seconds) + 0.0005  # half a millisecond of our own for each
            self._pace = mean_run_time if not self._pace else 0.7 * self._pace + 0.3 * mean_run_time

    def _recovered(self, chunk: Chunk, error: Exception) -> tuple[list[RunResult], list[Job], list[Job]]:
        """The host is lost: each directory tells how far its job came."""
        run_results, again = [], []
        for job in chunk.jobs:
            reason = f'the worker that computed it was lost: {error}'
            run_result = recover.attribute_failure(job, WorkerDied.__name__, reason, patience=2.0)
            lost = self._lost[job.run] = self._lost.get(job.run, 0) + 1
            if run_result is not None:
                run_results.append(run_result)
            elif lost >= LOST_TASKS or isinstance(error, RuntimeError):
                reason = f'the executor failed before it could begin: {type(error).__name__}: {error}'
                run_results.append(not_started(job, WorkerDied.__name__, reason))
            else:
                again.append(job)
        return run_results, again, []

    # --- the end -----------------------------------------------------------------------------------

    def cancel(self, runs: Collection[str]) -> None:
        """Drop what is not begun; what runs is told through a request in the base directory."""
        with self._guard:
            waiting = [*self._waiting, *((job, packed) for _, _, job, packed in self._later)]
            dropped = [job for job, _ in waiting if job.run in runs]
            self._waiting = deque(item for item in self._waiting if item[0].run not in runs)
            self._later = [item for item in self._later if item[2].run not in runs]
            heapq.heapify(self._later)
            under_way = [(future, chunk) for future, chunk in self._chunks.items()]
            self._cancelled.update(set(runs).difference(job.run for job in dropped))
        if dropped:
            with self._telling:
                self._tell.dropped(dropped)
        for future, chunk in under_way:
            wanted = [job for job in chunk.jobs if job.run in runs]
            if len(wanted) < len(chunk.jobs) or not self._withdrawn(future):
                for job in wanted:
                    basedir.request_cancel(job.spec.base, job.path, job.queued_at)

    def _withdrawn(self, future: Any) -> bool:
        """Take a chunk back that no host has begun; False where that cannot be known."""
        taken: bool = future.cancel()
        return taken

    def interrupt(self) -> None:
        """Cancel everything, and wait until nothing runs."""
        with self._guard:
            runs = {job.run for chunk in self._chunks.values() for job in chunk.jobs}
            runs |= {job.run for job, _ in self._waiting} | {item[2].run for item in self._later}
        self.cancel(runs)
        with self._guard:
            self._guard.wait_for(lambda: not self._chunks, timeout=5.0)

    def close(self) -> None:
        """Forget what is left; the executor itself is the user's."""
        self._clock.close()
        if self._timer is not None:
            self._timer.cancel()
            with contextlib.suppress(RuntimeError):  # it could not be started
                self._timer.join()
        with self._guard:
            left, self._chunks = list(self._chunks), {}
            self._waiting.clear()
        for future in left:
            future.cancel()
        _chunk_host.close_hosts(self._owner)


def _is_begun(job: Job) -> bool:
    """Does the record of a folder say that this very job is running?"""
    try:
        with fileops.opened_below(job.spec.path, job.folder) as folder:
            record = directory.read_record(folder) or {}
    except OSError:
        return False
    return record.get('state') == 'begun' and record.get('run') == job.run
