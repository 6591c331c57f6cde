"""``executor='inline'``: in the caller's own thread, one after the other. Debuggers and examples like it."""

from __future__ import annotations

import heapq
import itertools
import time
from typing import TYPE_CHECKING

from ..records import Job
from . import _inline_cancel
from .base import Executor, Listener

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

    from .base import Function


class InlineExecutor(Executor):
    """Runs a job at each `step`."""

    runs_at_once = True
    runs_here = True
    is_stepped = True

    def __init__(self, listener: Listener, workers: int | None = None) -> None:
        self._tell = listener
        self._waiting: list[tuple[float, int, Job, Function]] = []
        self._count = itertools.count()

    def submit(self, jobs: Sequence[Job], function: Function, *, delay: float = 0.0) -> None:
        """Take jobs; they run when the caller steps."""
        moment = time.monotonic() + delay if delay else 0.0
        for job in jobs:
            heapq.heappush(self._waiting, (moment, next(self._count), job, function))

    def step(self) -> bool:
        """Run one job whose time has come. Raises KeyboardInterrupt, once it is written down."""
        if not self._waiting or self._waiting[0][0] > time.monotonic():
            return False
        moment, _, job, function = heapq.heappop(self._waiting)
        if moment:  # a retry that was waiting for its time
            self._tell.started([job])
        run_result = _inline_cancel.carry_out(job, function)
        self._tell.on_results([run_result])
        if run_result.exception is not None:
            raise run_result.exception
        return True

    def cancel(self, runs: Collection[str]) -> None:
        """Drop what waits, interrupt what runs. Raises ExecutorFault where that is not the main thread."""
        dropped = [item[2] for item in self._waiting if item[2].run in runs]
        self._waiting = [item for item in self._waiting if item[2].run not in runs]
        heapq.heapify(self._waiting)
        if dropped:
            self._tell.dropped(dropped)
        _inline_cancel.cancel(lambda job: job.run in runs)

    def interrupt(self) -> None:
        """Drop everything: Ctrl-C itself has reached the function already."""
        self.cancel({item[2].run for item in self._waiting})

    def close(self) -> None:
        """Nothing is held."""
