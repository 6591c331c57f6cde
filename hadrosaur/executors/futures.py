"""Any `concurrent.futures.Executor` instance: it carries chunks of orders, and slots run them.

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

from .. import basedir, directory, diskio, settle
from ..errors import ExecutorFault, WorkerDied
from ..locks import start_without_signals
from ..processors import processors
from ..records import Outcome, WorkOrder
from ..unbegun import not_started
from . import _host
from ._clock import LONG_RUN, Clock, wanted_cancelled
from ._host import Chunk, ChunkResult
from .base import Executor, Listener, Packed, pack

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

    from .base import Function

MOST = 64  # orders in a chunk
LOST_TASKS = 3  # times that an order's chunk may be lost before it was begun


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
        self._waiting: deque[tuple[WorkOrder, Packed]] = deque()
        self._later: list[tuple[float, int, WorkOrder, Packed]] = []
        self._chunks: dict[Any, Chunk] = {}
        self._since: dict[Any, float] = {}  # when those were sent of which nothing is known to run, monotonic
        self._owner = os.urandom(8).hex()
        self._lost: dict[str, int] = {}
        self._cancelled: set[str] = set()
        self._packed: dict[int, tuple[Packed, Function]] = {}
        self._count = itertools.count()
        self._timer: threading.Timer | None = None
        self._alarm = math.inf  # when it rings, monotonic
        self._pace = 0.0  # seconds per order, lately
        self._clock = Clock(self._look)

    def _threads_of_each(self) -> int | None:
        return max(1, processors() // self.workers)

    def _count_workers(self) -> int:
        return int(getattr(self._foreign, '_max_workers', None) or processors())

    def _send(self, chunk: Chunk) -> Any:
        """Have a host run a chunk; returns a future."""
        return self._foreign.submit(_host.run_chunk, chunk)

    # --- orders in ---------------------------------------------------------------------------------

    def submit(self, orders: Sequence[WorkOrder], function: Function, *, delay: float = 0.0) -> None:
        """Take orders of one task. Raises ExecutorFault where the executor takes no more."""
        if id(function) not in self._packed:
            self._packed[id(function)] = (pack(function), function)
        packed = self._packed[id(function)][0]
        with self._guard:
            if delay:
                moment = time.monotonic() + delay
                for order in orders:
                    heapq.heappush(self._later, (moment, next(self._count), order, packed))
            else:
                self._waiting.extend((order, packed) for order in orders)
        self._pump()

    def _pump(self) -> None:
        """Send chunks while there are orders and the executor has less than it can chew."""
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
                    self._waiting.extendleft((order, chunk.packed) for order in reversed(chunk.orders))
                raise ExecutorFault(f'the executor takes no more work: {error}', hint='give it a new one')
            with self._guard:
                self._chunks[future] = chunk
                self._since[future] = time.monotonic()
                cancelled = [order for order in chunk.orders if order.run in self._cancelled]
            for order in cancelled:  # while the chunk was on its way
                basedir.request_cancel(order.task.base, order.path, order.queued_at)
            self._clock.wind()
            future.add_done_callback(self._done)

    def _take_due(self) -> None:
        now = time.monotonic()
        while self._later and self._later[0][0] <= now:
            _, _, order, packed = heapq.heappop(self._later)
            self._waiting.append((order, packed))
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
        size = min(MOST, max(1, int(_host.BUDGET / self._pace))) if self._pace else 1
        first, packed = self._waiting[0]
        orders: list[WorkOrder] = []
        while self._waiting and len(orders) < size:
            order, other = self._waiting[0]
            if other.digest != packed.digest or order.task != first.task:
                break
            orders.append(self._waiting.popleft()[0])
        return Chunk(orders, packed, self._owner, self._threads)

    def _look(self) -> bool:
        """Tell of what has been running for a second, and drop what somebody wants cancelled in time.

        A host says nothing before it is done: the records tell which orders of a chunk are begun.
        """
        with self._guard:
            waiting = [order for order, _ in self._waiting] + [item[2] for item in self._later]
            now = time.monotonic()
            long = [future for future, since in self._since.items() if now - since >= LONG_RUN]
            chunks = [(future, self._chunks[future]) for future in long]
        if wanted := wanted_cancelled(waiting):
            for order in wanted:
                basedir.drop_cancel_request(order.task.base, order.path)
            self.cancel({order.run for order in wanted})
        for future, chunk in chunks:
            running = [order for order in chunk.orders if _is_begun(order)]
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
        outcomes, again, dropped = self._sorted_out(future, chunk)
        for order in {*dropped, *(order for order in chunk.orders if order.run in self._cancelled)}:
            basedir.drop_cancel_request(order.task.base, order.path)
        with self._guard:
            self._waiting.extendleft((order, chunk.packed) for order in reversed(again))
        with self._telling:
            if outcomes:
                self._tell.deliver(outcomes)
            if dropped:
                self._tell.dropped(dropped)
        with self._guard:
            self._guard.notify_all()
        self._pump()

    def _sorted_out(
        self, future: Any, chunk: Chunk
    ) -> tuple[list[Outcome], list[WorkOrder], list[WorkOrder]]:
        """(outcomes, orders to be sent again, orders that were cancelled)."""
        if future.cancelled():
            return [], [], chunk.orders
        try:
            result: ChunkResult = future.result()
        except Exception as error:  # whatever a foreign executor says of a worker that it lost
            return self._recovered(chunk, error)
        self._note_pace(result)
        dropped = self._cancelled.union(result.unwanted)
        again = [order for order in chunk.orders if order.run in result.unbegun and order.run not in dropped]
        left = {*result.unbegun, *result.unwanted}
        return result.outcomes, again, [order for order in chunk.orders if order.run in left & dropped]

    def _note_pace(self, result: ChunkResult) -> None:
        seconds = [outcome.entry.duration or 0.0 for outcome in result.outcomes if outcome.fresh]
        if seconds:
            pace = sum(seconds) / len(seconds) + 0.0005  # half a millisecond of our own for each
            self._pace = pace if not self._pace else 0.7 * self._pace + 0.3 * pace

    def _recovered(
        self, chunk: Chunk, error: Exception
    ) -> tuple[list[Outcome], list[WorkOrder], list[WorkOrder]]:
        """The host is lost: each directory tells how far its order came."""
        outcomes, again = [], []
        for order in chunk.orders:
            reason = f'the worker that computed it was lost: {error}'
            outcome = settle.blame(order, WorkerDied.__name__, reason, patience=2.0)
            lost = self._lost[order.run] = self._lost.get(order.run, 0) + 1
            if outcome is not None:
                outcomes.append(outcome)
            elif lost >= LOST_TASKS or isinstance(error, RuntimeError):
                reason = f'the executor failed before it could begin: {type(error).__name__}: {error}'
                outcomes.append(not_started(order, WorkerDied.__name__, reason))
            else:
                again.append(order)
        return outcomes, again, []

    # --- the end -----------------------------------------------------------------------------------

    def cancel(self, runs: Collection[str]) -> None:
        """Drop what is not begun; what runs is told through a request in the base directory."""
        with self._guard:
            waiting = [*self._waiting, *((order, packed) for _, _, order, packed in self._later)]
            dropped = [order for order, _ in waiting if order.run in runs]
            self._waiting = deque(item for item in self._waiting if item[0].run not in runs)
            self._later = [item for item in self._later if item[2].run not in runs]
            heapq.heapify(self._later)
            under_way = [(future, chunk) for future, chunk in self._chunks.items()]
            self._cancelled.update(set(runs).difference(order.run for order in dropped))
        if dropped:
            with self._telling:
                self._tell.dropped(dropped)
        for future, chunk in under_way:
            wanted = [order for order in chunk.orders if order.run in runs]
            if len(wanted) < len(chunk.orders) or not self._withdrawn(future):
                for order in wanted:
                    basedir.request_cancel(order.task.base, order.path, order.queued_at)

    def _withdrawn(self, future: Any) -> bool:
        """Take a chunk back that no host has begun; False where that cannot be known."""
        taken: bool = future.cancel()
        return taken

    def interrupt(self) -> None:
        """Cancel everything, and wait until nothing runs."""
        with self._guard:
            runs = {order.run for chunk in self._chunks.values() for order in chunk.orders}
            runs |= {order.run for order, _ in self._waiting} | {item[2].run for item in self._later}
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
        _host.close_hosts(self._owner)


def _is_begun(order: WorkOrder) -> bool:
    """Does the record of a folder say that this very order is running?"""
    try:
        with diskio.opened_below(order.task.path, order.folder) as folder:
            record = directory.read_record(folder) or {}
    except OSError:
        return False
    return record.get('state') == 'begun' and record.get('run') == order.run
