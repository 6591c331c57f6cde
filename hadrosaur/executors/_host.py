"""The far end of a foreign executor: a chunk of orders comes in, a slot on this machine runs it.

So a function that kills its process costs one resource and never a worker that is not ours, its
output is caught by descriptors, and timeouts hold. One slot is kept warm for each thread that hosts.
"""

from __future__ import annotations

import atexit
import os
import queue
import threading
import time
from typing import NamedTuple

from ..basedir import cancel_requests
from ..errors import ExecutorFault
from ..records import Outcome, WorkOrder
from .base import Listener, Packed
from .slots import SlotPool

BUDGET = 0.05  # seconds after which a chunk hands back what it has not begun


class Chunk(NamedTuple):
    """Some orders of one task, with their function."""

    orders: list[WorkOrder]
    packed: Packed
    owner: str  # of the executor that sent it


class ChunkResult(NamedTuple):
    """What came of a chunk: outcomes, the runs that were not begun, and those that somebody cancelled."""

    outcomes: list[Outcome]
    unbegun: list[str]
    unwanted: list[str]


_Answer = tuple[list[Outcome], list[WorkOrder]] | BaseException


class _Host:
    """One thread's slot."""

    def __init__(self) -> None:
        self.owner = ''
        self._answers: queue.SimpleQueue[_Answer] = queue.SimpleQueue()
        listener = Listener(
            deliver=lambda outcomes: self._answers.put((outcomes, [])),
            started=lambda orders: None,
            dropped=lambda orders: self._answers.put(([], orders)),
            failed=lambda error: self._answers.put(error),
        )
        self.pool = SlotPool(listener, 1)

    def run(self, chunk: Chunk) -> ChunkResult:
        requested = cancel_requests(chunk.orders[0].task.base)
        unwanted = {order.run for order in chunk.orders if (order.path, order.queued_at) in requested}
        orders = [order for order in chunk.orders if order.run not in unwanted]
        result = ChunkResult([], [], list(unwanted))
        open_runs = {order.run for order in orders}
        if orders:
            self.pool.submit_packed(orders, chunk.packed)
        deadline: float | None = time.monotonic() + BUDGET
        while open_runs:
            try:
                wait = None if deadline is None else max(0.0, deadline - time.monotonic())
                answer = self._answers.get(timeout=wait)
            except queue.Empty:
                deadline = None
                self.pool.withdraw(open_runs)
                continue
            if isinstance(answer, BaseException):
                raise answer
            outcomes, dropped = answer
            result.outcomes.extend(outcomes)
            result.unbegun.extend(order.run for order in dropped)
            open_runs.difference_update(outcome.run for outcome in outcomes)
            open_runs.difference_update(order.run for order in dropped)
        return result

    def close(self) -> None:
        """End its slot; a thread that is waiting for it is told."""
        self.pool.close()
        self._answers.put(ExecutorFault('its worker process was ended'))


_hosts: dict[tuple[int, int], _Host] = {}  # by process and thread
_guard = threading.Lock()


def run_chunk(chunk: Chunk) -> ChunkResult:
    """Carry out a chunk; called by the foreign executor, in whatever process and thread it likes."""
    key = (os.getpid(), threading.get_ident())
    with _guard:
        host = _hosts.get(key)
        if host is None:
            host = _hosts[key] = _Host()
        host.owner = chunk.owner
    try:
        return host.run(chunk)
    except BaseException:  # its slot has failed, or cannot be started: the next chunk gets another
        with _guard:
            _hosts.pop(key, None)
        host.close()
        raise


@atexit.register
def close_hosts(owner: str | None = None) -> None:
    """End the slots that this process hosts: all, or those that worked for an executor last."""
    with _guard:
        ended = [key for key, host in _hosts.items() if owner in (None, host.owner)]
        hosts = [_hosts.pop(key) for key in ended]
    for (process, _), host in zip(ended, hosts, strict=True):
        if process == os.getpid():
            host.close()


def _in_child() -> None:
    global _guard
    _guard = threading.Lock()


os.register_at_fork(after_in_child=_in_child)
