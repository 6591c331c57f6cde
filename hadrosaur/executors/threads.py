"""``executor='threads'``: in threads of the calling program.

For functions that wait (downloads) or release the interpreter's lock. A thread cannot be killed, so
there are no timeouts; output is caught where it goes through ``sys.stdout`` and ``sys.stderr``.
"""

from __future__ import annotations

import contextlib
import heapq
import itertools
import threading
import time
from typing import TYPE_CHECKING

from .. import basedir, compute, worker_setup
from ..cpu_count import processors
from ..errors import ExecutorFault
from ..records import Job
from ._ticker import LONG_RUN, Clock, wanted_cancelled
from .base import Executor, Listener

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

    from .base import Function


class ThreadsExecutor(Executor):
    """Up to ``workers`` threads, started as they are needed."""

    runs_here = True

    def __init__(self, listener: Listener, workers: int | None = None) -> None:
        self.workers = workers or processors() + 4  # as concurrent.futures has it: most of them wait
        self.capacity = 4 * self.workers
        self._tell = listener
        self._guard = threading.Condition()
        self._telling = threading.Lock()
        self._waiting: list[tuple[float, int, Job, Function]] = []
        self._running: dict[str, Job] = {}
        self._since: dict[str, float] = {}  # when runs began that are not told of as running, monotonic
        self._threads: list[threading.Thread] = []
        self._count = itertools.count()
        self._closing = False
        self._clock = Clock(self._look)

    def submit(self, jobs: Sequence[Job], function: Function, *, delay: float = 0.0) -> None:
        """Take jobs of one collection. Raises ExecutorFault where it has a timeout."""
        if jobs[0].spec.needs_process:
            spec = jobs[0].spec
            why = 'has a timeout' if spec.timeout is not None else 'has runs_per_worker'
            why = why if spec.memory is None else 'has a limit of memory'
            raise ExecutorFault(
                f'{jobs[0].collection!r} {why}, and a thread cannot be stopped or be a process of its own',
                hint="use executor='processes'",
            )
        moment = time.monotonic() + delay if delay else 0.0
        with self._guard:
            for job in jobs:
                heapq.heappush(self._waiting, (moment, next(self._count), job, function))
            self._guard.notify_all()
            while len(self._threads) < min(self.workers, len(self._waiting) + len(self._running)):
                thread = threading.Thread(target=self._work, name='hadrosaur-worker', daemon=True)
                self._threads.append(thread)
                try:
                    thread.start()
                except RuntimeError:  # no more threads can be started
                    self._threads.remove(thread)
                    if not self._threads:
                        raise
                    break
        self._clock.wind()

    def _work(self) -> None:
        while (item := self._next()) is not None:
            job, function = item
            try:
                try:
                    run_result = compute.carry_out(job, function)
                finally:
                    with self._guard:
                        del self._running[job.run]
                        self._since.pop(job.run, None)
                        self._guard.notify_all()
                with self._telling:
                    self._tell.on_results([run_result._replace(exception=None)])
            except BaseException as error:  # told to whoever waits, who would wait for ever
                self._tell.failed(error)
        worker_setup.end()

    def _next(self) -> tuple[Job, Function] | None:
        """The next job whose time has come, or None at the end."""
        with self._guard:
            while not self._closing:
                wait = self._waiting[0][0] - time.monotonic() if self._waiting else None
                if wait is not None and wait <= 0:
                    _, _, job, function = heapq.heappop(self._waiting)
                    self._running[job.run] = job
                    self._since[job.run] = time.monotonic()
                    return job, function
                self._guard.wait(wait)
        return None

    def _look(self) -> bool:
        """Tell of what has been running for a second, and drop what somebody wants cancelled in time."""
        with self._guard:
            waiting = [item[2] for item in self._waiting]
        if wanted := wanted_cancelled(waiting):
            for job in wanted:
                basedir.drop_cancel_request(job.spec.base, job.path)
            with contextlib.suppress(ExecutorFault):  # begun meanwhile
                self.cancel({job.run for job in wanted})
        with self._telling:
            with self._guard:
                now = time.monotonic()
                long = [run for run, since in self._since.items() if now - since >= LONG_RUN]
                jobs = [self._running[run] for run in long]
                for run in long:
                    del self._since[run]
                is_needed = bool(self._waiting or self._since)
            if jobs:
                self._tell.started(jobs)
        return is_needed

    def cancel(self, runs: Collection[str]) -> None:
        """Drop what is not begun. Raises ExecutorFault where something runs: it goes on to its end."""
        with self._guard:
            dropped = [item[2] for item in self._waiting if item[2].run in runs]
            self._waiting = [item for item in self._waiting if item[2].run not in runs]
            heapq.heapify(self._waiting)
            running = [job for run, job in self._running.items() if run in runs]
        if dropped:
            with self._telling:
                self._tell.dropped(dropped)
        if running:
            raise ExecutorFault(
                f'{running[0].collection}/{running[0].ident} runs in a thread, which cannot be stopped',
                hint="use executor='processes' for what may have to be cancelled",
            )

    def interrupt(self) -> None:
        """Drop what is not begun, and wait for what runs: a thread cannot be stopped."""
        with self._guard:
            runs = {item[2].run for item in self._waiting}
        self.cancel(runs)
        with self._guard:
            self._guard.wait_for(lambda: not self._running)

    def close(self) -> None:
        """End the threads, once what they run is done."""
        with self._guard:
            self._closing = True
            self._guard.notify_all()
        self._clock.close()
        for thread in self._threads:
            if thread is not threading.current_thread():
                thread.join()
