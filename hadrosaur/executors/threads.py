"""``executor='threads'``: in threads of the calling program.

For functions that wait (downloads) or release the interpreter's lock. A thread cannot be killed, so
there are no timeouts; output is caught where it goes through ``sys.stdout`` and ``sys.stderr``.
"""

from __future__ import annotations

import heapq
import itertools
import threading
import time
from typing import TYPE_CHECKING

from .. import compute
from ..errors import ExecutorFault
from ..records import WorkOrder
from .base import Executor, Listener, processors

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

    from .base import Function


class ThreadsExecutor(Executor):
    """Up to ``workers`` threads, started as they are needed."""

    def __init__(self, listener: Listener, workers: int | None = None) -> None:
        self.workers = workers or processors() + 4  # as concurrent.futures has it: most of them wait
        self.capacity = 4 * self.workers
        self._tell = listener
        self._guard = threading.Condition()
        self._telling = threading.Lock()
        self._waiting: list[tuple[float, int, WorkOrder, Function]] = []
        self._running: dict[str, WorkOrder] = {}
        self._threads: list[threading.Thread] = []
        self._count = itertools.count()
        self._closing = False

    def submit(self, orders: Sequence[WorkOrder], function: Function, *, delay: float = 0.0) -> None:
        """Take orders of one task. Raises ExecutorFault where it has a timeout."""
        if orders[0].task.timeout is not None:
            raise ExecutorFault(
                f'{orders[0].collection!r} has a timeout, and a thread cannot be stopped',
                hint="use executor='processes'",
            )
        moment = time.monotonic() + delay if delay else 0.0
        with self._guard:
            for order in orders:
                heapq.heappush(self._waiting, (moment, next(self._count), order, function))
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

    def _work(self) -> None:
        while (item := self._next()) is not None:
            order, function = item
            try:
                try:
                    outcome = compute.carry_out(order, function)
                finally:
                    with self._guard:
                        del self._running[order.run]
                        self._guard.notify_all()
                with self._telling:
                    self._tell.deliver([outcome._replace(exception=None)])
            except BaseException as error:  # told to whoever waits, who would wait for ever
                self._tell.failed(error)

    def _next(self) -> tuple[WorkOrder, Function] | None:
        """The next order whose time has come, or None at the end."""
        with self._guard:
            while not self._closing:
                wait = self._waiting[0][0] - time.monotonic() if self._waiting else None
                if wait is not None and wait <= 0:
                    _, _, order, function = heapq.heappop(self._waiting)
                    self._running[order.run] = order
                    return order, function
                self._guard.wait(wait)
        return None

    def cancel(self, runs: Collection[str]) -> None:
        """Drop what is not begun. Raises ExecutorFault where something runs: it goes on to its end."""
        with self._guard:
            dropped = [item[2] for item in self._waiting if item[2].run in runs]
            self._waiting = [item for item in self._waiting if item[2].run not in runs]
            heapq.heapify(self._waiting)
            running = [order for run, order in self._running.items() if run in runs]
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
        for thread in self._threads:
            if thread is not threading.current_thread():
                thread.join()
