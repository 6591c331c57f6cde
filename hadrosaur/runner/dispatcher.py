"""Orders on their way: handed to an executor, written into the index, tried again where they failed."""

from __future__ import annotations

import contextlib
import heapq
import importlib
import sys
import threading
import time
from collections import deque
from typing import TYPE_CHECKING, Any

from .. import basedir
from ..errors import ExecutorFault, ExecutorUnavailable, ResourceError, UnknownExecutor
from ..executors._clock import Clock, wanted_cancelled
from ..executors.base import Executor, Listener
from ..records import Outcome, WorkOrder
from ..store import is_worth_a_retry, retry_order
from ._turns import Turns

if TYPE_CHECKING:
    from collections.abc import Callable, Container

    from ..registry import Collection
    from ..store import Store

EXECUTORS = {
    'inline': 'hadrosaur.executors.inline:InlineExecutor',
    'threads': 'hadrosaur.executors.threads:ThreadsExecutor',
    'processes': 'hadrosaur.executors.slots:SlotPool',
}
"""Executors by name: import path of the class, loaded when asked for."""

SHARING_THIS_PROCESS = ('inline', 'threads')

ASKED_AGAIN = 5  # times that background work asks for a resource which someone else has locked,
ASKED_AFTER = 0.2  # seconds after the first time, and so many more after each
MOST_WAITING = 10_000  # retries that may wait for their time while others go on, about 1 kB each


def make_executor(
    executor: Any, listener: Listener, workers: int | None, threads: int | None = None
) -> Executor:
    """The executor that a user asked for: a name, an address, an Executor or a dask Client.

    Raises UnknownExecutor, ExecutorUnavailable, or ValueError for a bad number of workers.
    """
    path = check_executor(executor, workers, threads)
    is_here = isinstance(executor, str) and executor in SHARING_THIS_PROCESS
    more = {} if is_here else {'threads': threads}
    if path in EXECUTORS.values():
        return _load(path)(listener, workers, **more)
    return _load(path)(listener, workers, executor, **more)


def check_executor(executor: Any, workers: int | None, threads: int | None = None) -> str:
    """The import path of the class that drives it; nothing is loaded or reached.

    Raises UnknownExecutor, ExecutorUnavailable for a Client of coroutines, or ValueError for a bad number of
    workers or threads.
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
    """Import path of what drives an executor that is not ours, None where it is none."""
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
    futures, dask = sys.modules.get('concurrent.futures'), sys.modules.get('distributed')
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


class Flight:
    """One resource on its way: its present order, the args that were given, and how often it was tried."""

    __slots__ = (
        'args', 'asked', 'collection', 'has_turn', 'next_poll', 'order', 'pause', 'probed', 'put_off',
        'retries',
    )  # fmt: skip

    def __init__(self, collection: Collection, order: WorkOrder, args: str | None = None) -> None:
        self.collection = collection
        self.order = order
        self.args = args  # canonical JSON, None where none were given
        self.retries = self.asked = self.put_off = 0
        self.has_turn = False  # the executor has it, of a collection with limits
        self.pause = self.next_poll = self.probed = 0.0  # while someone else computes it


class News:
    """Wakes everybody who waits; who has ``seen`` a number is not kept waiting where it is another by now."""

    def __init__(self) -> None:
        self.seen = 0
        self._told = threading.Condition(threading.Lock())

    def tell(self) -> None:
        """There is news."""
        with self._told:
            self.seen += 1
            self._told.notify_all()

    def wait(self, seen: int, seconds: float | None = None) -> None:
        """Wait for news since ``seen``, for so many seconds at most."""
        with self._told:
            self._told.wait_for(lambda: self.seen != seen, seconds)


class Dispatcher:
    """Hands orders to an executor, writes outcomes into the index, tries failed ones again.

    Attributes:
        finished: What came of the flights, oldest first, for whoever takes it.
        news: Told whenever a flight has ended.
        executor: The executor.
        fault: What the executor died of, if it did.
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
        self._flights: dict[str, Flight] = {}  # by run
        self._by_key: dict[tuple[str, str], Flight] = {}
        self._due: list[float] = []  # when the retries that wait may begin, soonest first
        self.finished: deque[tuple[Flight, Outcome]] = deque()
        self.dropped: deque[str] = deque()  # runs that were never begun, for whoever counts them
        self._stopping = False
        self._cancelled: set[str] = set()  # runs that are not tried again
        self._changing = threading.RLock()  # a flight changes its run when it is tried again
        self.news = News()
        self.fault: BaseException | None = None
        listener = Listener(self._deliver, self._started, self._dropped, self._failed)
        self.executor = make_executor(executor, listener, workers, threads)
        self._turns = Turns(getattr(self.executor, 'workers', 1))
        self._clock = Clock(self._look_at_held)

    def __len__(self) -> int:
        """How many flights are on their way."""
        return len(self._flights)

    @property
    def busy(self) -> int:
        """How many flights the executor can go on with: all but retries whose time has not come."""
        now = time.monotonic()
        while self._due and self._due[0] <= now:
            heapq.heappop(self._due)
        return len(self._flights) - min(len(self._due), MOST_WAITING)

    @property
    def next_retry(self) -> float | None:
        """When the next retry that waits may begin, by the monotonic clock."""
        return self._due[0] if self._due else None

    def submit(self, flights: list[Flight]) -> None:
        """Queue flights of one collection in the index, then hand them over."""
        orders = [flight.order for flight in flights]
        try:
            self._store.queue(orders, running=self.executor.runs_at_once)
            self.take(flights)
        except BaseException:  # Ctrl-C, or an executor that takes no more: no row without a flight
            self._store.withdraw([order for order in orders if order.run not in self._flights])
            raise

    def take(self, flights: list[Flight]) -> None:
        """Hand over flights that are queued in the index already."""
        runs = {flight.order.run for flight in flights}
        with self._changing:
            for flight in flights:
                self._flights[flight.order.run] = self._by_key[flight.order.key] = flight
        # Without the lock: an executor may tell at once what came of them, while it tells others too.
        self._hand_over(flights, 0.0)
        if late := runs & self._cancelled:  # they were cancelled before the executor had them
            with contextlib.suppress(ExecutorFault):  # begun already, in a thread
                self.executor.cancel(late)

    def _hand_over(self, flights: list[Flight], delay: float) -> None:
        if not delay and flights[0].collection.task.is_limited:
            with self._changing:
                self._turns.hold(flights)
            self._clock.wind()
            self._give_turns()
            return
        self._send(flights, delay)

    def _give_turns(self) -> None:
        """Hand over what has waited for its turn. Without the lock, for the reason that `take` has."""
        while True:
            with self._changing:
                flight = None if self._stopping else self._turns.next()
            if flight is None:
                return
            self._send([flight], 0.0)

    def _look_at_held(self) -> bool:
        """Drop what somebody in another process wants cancelled before its turn has come."""
        with self._changing:
            held = [flight.order for flight in self._turns]
        for order in wanted_cancelled(held):
            basedir.drop_cancel_request(order.task.base, order.path)
            self._drop_held({order.run})
        return bool(held)

    def _drop_held(self, runs: Container[str]) -> None:
        with self._changing:
            dropped = self._turns.drop(runs)
        if dropped:
            self._dropped([flight.order for flight in dropped])

    def _send(self, flights: list[Flight], delay: float) -> None:
        try:
            function = flights[0].collection.program
            self.executor.submit([flight.order for flight in flights], function, delay=delay)
        except BaseException:
            self._forget([flight.order for flight in flights])
            raise

    def flying(self, collection: str | None = None, ident: str | None = None) -> list[Flight]:
        """What is on its way: all, a collection's, or one resource's."""
        if collection is not None and ident is not None:
            flight = self._by_key.get((collection, ident))
            return [flight] if flight is not None else []
        flights = list(self._flights.values())
        return [flight for flight in flights if collection in (None, flight.order.collection)]

    def await_none(
        self, collection: str | None = None, ident: str | None = None, seconds: float | None = None
    ) -> bool:
        """Wait until nothing of this is on its way; False if that took longer than ``seconds``.

        Raises ExecutorFault where the executor has failed.
        """
        deadline = None if seconds is None else time.monotonic() + seconds
        while True:
            seen = self.news.seen
            if not self.flying(collection, ident):
                return True
            self.check()
            left = None if deadline is None else deadline - time.monotonic()
            if left is not None and left <= 0:
                return False
            self.news.wait(seen, left)

    def _end(self, run: str) -> None:
        """A flight is no longer on its way."""
        flight = self._flights.pop(run, None)
        if flight is not None:
            self._by_key.pop(flight.order.key, None)
            if flight.has_turn:
                with self._changing:
                    self._turns.free(flight)
        self._cancelled.discard(run)

    def _deliver(self, outcomes: list[Outcome]) -> None:
        ended = [outcome for outcome in outcomes if outcome.later is None]
        self._store.finish(ended, soon=not self.executor.runs_at_once)
        is_limited = len(ended) < len(outcomes)
        for outcome in outcomes:
            flight = self._flights.get(outcome.run)
            if flight is None:
                continue
            if flight.has_turn or outcome.later is not None:
                is_limited = True
                if self._is_put_off(flight, outcome):
                    continue
            if self._is_tried_again(flight, outcome) or self._is_asked_again(flight, outcome):
                continue
            if self._is_computed_anew(flight, outcome):
                continue
            if self._keep:
                self.finished.append((flight, outcome))
            self._end(outcome.run)  # last: a flight is on its way, or finished, or both
        if is_limited:
            self._give_turns()
        self.news.tell()

    def _is_put_off(self, flight: Flight, outcome: Outcome) -> bool:
        """Its collection lets it not begin now: it keeps its turn, and comes again."""
        with self._changing:
            if outcome.later is None:
                self._turns.free(flight)
                return False
            delay = self._turns.put_off(flight, outcome.later)
            if self._stopping or outcome.run in self._cancelled:
                self._dropped([flight.order])
                return True
            self._send([flight], delay)
            heapq.heappush(self._due, time.monotonic() + delay)
            return True

    def _is_tried_again(self, flight: Flight, outcome: Outcome) -> bool:
        """A waiting retry holds up nobody: the executor keeps it until its time has come."""
        if flight.retries >= flight.collection.retries:
            return False
        if not is_worth_a_retry(outcome, flight.collection.task.retry_on):
            return False
        with self._changing:
            if self._stopping or outcome.run in self._cancelled:
                return False
            flight.retries += 1
            flight.order = retry_order(flight.order, outcome)
            self._flights[flight.order.run] = flight
            del self._flights[outcome.run]
            delay = flight.collection.delay_before(flight.retries)
            self._store.queue_again(flight.order, running=self.executor.runs_at_once and not delay)
            self._hand_over([flight], delay)
            if delay:
                heapq.heappush(self._due, time.monotonic() + delay)  # not sooner than the executor has it
            return True

    def _is_asked_again(self, flight: Flight, outcome: Outcome) -> bool:
        """Nobody else asks again for what someone had locked for a moment, perhaps only to look at it."""
        if self._keep or outcome.entry.status != 'pending' or flight.asked >= ASKED_AGAIN:
            return False
        with self._changing:
            if self._stopping or outcome.run in self._cancelled:
                return False
            flight.asked += 1
            self._store.queue_again(flight.order)
            self._hand_over([flight], flight.asked * ASKED_AFTER)
            return True

    def _is_computed_anew(self, flight: Flight, outcome: Outcome) -> bool:
        """Somebody else was quicker, with other args or another version than the policies allow."""
        if self._keep or outcome.fresh or outcome.entry.status != 'completed':
            return False  # a batch judges for itself
        collection, order = flight.collection, flight.order
        try:
            if not collection.is_wanted_anew(order.ident, outcome.entry, flight.args, recompute=False):
                return False
        except ResourceError:  # told to whoever asks for it
            return False
        with self._changing:
            if self._stopping or outcome.run in self._cancelled:
                return False
            args = flight.args
            flight.order = self._store.order(collection, order.ident, args, order.folder, recompute='changed')
            self._flights[flight.order.run] = flight
            del self._flights[outcome.run]
            self._store.queue_again(flight.order)
            self._hand_over([flight], 0.0)
            return True

    def _started(self, orders: list[WorkOrder]) -> None:
        self._store.started(orders, here=self.executor.runs_here)

    def _dropped(self, orders: list[WorkOrder]) -> None:
        self._forget(orders)
        if orders and orders[0].task.is_limited:
            self._give_turns()

    def _forget(self, orders: list[WorkOrder]) -> None:
        """They were not begun, and will not be."""
        self._store.withdraw(orders)
        if self._keep:
            self.dropped.extend(order.run for order in orders if order.run in self._flights)
        for order in orders:
            self._end(order.run)
        self.news.tell()

    def _failed(self, error: BaseException) -> None:
        orders = [flight.order for flight in list(self._flights.values())]
        try:
            self._store.withdraw(orders)  # nobody carries them out, and they are not to look as if
        finally:
            self.fault = error
            self.news.tell()

    def check(self) -> None:
        """Raises ExecutorFault where the executor itself has failed."""
        if self.fault is not None:
            told = self.fault.message if isinstance(self.fault, ExecutorFault) else repr(self.fault)
            raise ExecutorFault(f'the executor failed: {told}') from self.fault

    def cancel(self, collection: str | None = None, ident: str | None = None) -> int:
        """Stop flights: all, a collection's, or one resource's; returns how many.

        Those not begun are as if never asked for. Raises ExecutorFault where one cannot be stopped.
        """
        with self._changing:
            runs = {flight.order.run for flight in self.flying(collection, ident)}
            self._cancelled |= runs
        self._drop_held(runs)
        if runs:
            self.executor.cancel(runs)
        return len(runs)

    def cancel_all(self) -> None:
        """Stop every flight, for good; what runs in a thread goes on to its end."""
        with self._changing:
            self._stopping = True
        with contextlib.suppress(ExecutorFault):
            self.cancel()

    def stop(self, *, interrupt: bool) -> None:
        """End everything, and leave nothing pending."""
        with self._changing:
            self._stopping = True
        self._clock.close()
        self._drop_held({flight.order.run for flight in self._turns})
        if self._flights and self.fault is None:
            with contextlib.suppress(ExecutorFault):  # it fails just now; what is left is settled below
                if interrupt:
                    self.executor.interrupt()
                else:
                    self.cancel_all()
                    if not self.executor.is_stepped:  # there nobody is left who could end anything
                        self.await_none(seconds=5.0)
        self.executor.close()
        self._give_up()  # killed in mid-run when the executor closed
        self._store.rows.rest()
        self.news.tell()

    def _give_up(self) -> None:
        if self._flights:
            self._store.withdraw([flight.order for flight in self._flights.values()])
            self._flights.clear()
            self._by_key.clear()
