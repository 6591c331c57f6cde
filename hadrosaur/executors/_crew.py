"""The slots of one pool: who gets which order, who is blamed, who is killed.

Each slot has a queue of orders that it was sent and has not answered, and the head of that queue is the
one that runs. From this one list follow exact blame, the clock of a timeout, ``phase='running'``,
hand-over and cancelling.

* About 30 ms of work is sent ahead, so that a slot never waits for its caller.
* A slot that dies (its process is seen to end; a surviving child may keep the socket open) blames its
  head, if the head's directory says that it was begun; the rest goes to other slots.
* A slot that hangs on its head for a second loses its queue to idle ones. If it was quicker after all,
  lock and run id make the double delivery harmless.

All of it happens in the one driver thread of the pool, so nothing here is locked.
"""

from __future__ import annotations

import contextlib
import heapq
import os
import selectors
import signal
import socket
import time
from collections import deque
from typing import TYPE_CHECKING, Any

from .. import basedir, compute, settle, setups
from ..errors import Cancelled, Interrupted, MemoryExceeded, TimedOut, WorkerDied, log
from ..records import Outcome, WorkOrder
from ..shown import size
from ..unbegun import not_started
from . import _memory, _slot
from ._worker import TELLS_ITS_END, Ticket, Worker, how_it_died

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

LONG_RUN = 1.0  # seconds after which a head counts as running, and its queue is up for hand-over
LONGEST_LOADING = 60.0  # seconds for a worker to import what a function with a timeout needs
GATHER = 0.005  # seconds to let outcomes come together, while every slot has work ahead
GRACE = 2.0  # seconds from interrupting to killing
RETIRED = 4  # slots for each worker that may wait for threads which functions left behind
UNBEGUN_DEATHS = 3  # deaths before its order was even begun, after which an order is given up


class Crew:
    """Up to ``workers`` slots and the orders that they work off.

    Args:
        workers: How many slots there may be.
        wake: A socket that becomes readable when the driver is to look up.
        tickets: The open orders by run, which the pool keeps.
        frames: What a slot is sent before the first order of a task, by the task's number.
        resolve: Told what came of an order.
        drop: Told of tickets that were not begun and are not wanted any more.
        started: Told of orders whose run takes long.
        environment: What the environment of a worker has besides this one's, when it is started.
    """

    def __init__(
        self,
        workers: int,
        wake: socket.socket,
        tickets: dict[str, Ticket],
        frames: dict[int, bytes],
        *,
        resolve: Callable[[Outcome], None],
        drop: Callable[[Sequence[Ticket]], None],
        started: Callable[[list[WorkOrder]], None],
        environment: Callable[[], dict[bytes, bytes]],
    ) -> None:
        self._workers = workers
        self._wake = wake
        self._tickets = tickets
        self._frames = frames
        self._resolve = resolve
        self._drop = drop
        self._started = started
        self._environment = environment
        self._slots: list[Worker] = []
        self._retired: list[Worker] = []
        self._waiting: deque[Ticket] = deque()
        self._later: list[tuple[float, int, Ticket]] = []
        self._selector = selectors.DefaultSelector()
        self._selector.register(wake, selectors.EVENT_READ, None)
        self._requests_seen = 0.0  # when cancel requests were looked at last
        self._watch_memory = _memory.Watch()
        self._setups_that_kill: dict[
            int, tuple[float, str, str]
        ] = {}  # by task: until when, and how it ended

    def put(self, tickets: Sequence[Ticket], delay: float) -> None:
        """Take in orders; they may run in so many seconds."""
        if not delay:
            self._waiting.extend(tickets)
            return
        moment = time.monotonic() + delay
        for ticket in tickets:
            heapq.heappush(self._later, (moment, id(ticket), ticket))

    def cancel(self, runs: set[str], number: int | None = signal.SIGKILL) -> None:
        """Heads are signalled (None: left alone), everything behind them is dropped."""
        dropped = [ticket for ticket in self._waiting if ticket.order.run in runs]
        dropped += [ticket for _, _, ticket in self._later if ticket.order.run in runs]
        self._waiting = deque(ticket for ticket in self._waiting if ticket.order.run not in runs)
        self._later = [item for item in self._later if item[2].order.run not in runs]
        heapq.heapify(self._later)
        for slot in self._slots:
            behind = [ticket for ticket in list(slot.queue)[1:] if ticket.order.run in runs]
            for ticket in behind:
                ticket.is_cancelled = True
            self._revoke(slot, behind, is_answered=True)
            if number is not None and slot.queue and slot.queue[0].order.run in runs:
                self._signal_head(slot, number)
        self._drop(dropped)

    def select(self, *, wait: bool) -> list[tuple[selectors.SelectorKey, int]]:
        """Who has something to say; waits until someone has, or a clock strikes."""
        return self._selector.select(self._until_next_event() if wait else 0.0)

    def hear(self, ready: list[tuple[selectors.SelectorKey, int]]) -> None:
        """Take in what those have to say."""
        if ready and self._all_have_work_ahead():
            time.sleep(GATHER)
            ready = self._selector.select(0)
        for key, _ in ready:
            self._read(key.data)
        self._reap(ready)
        self._send_on()

    def go_on(self) -> None:
        """Look at the clocks, and send orders to whoever has room."""
        self._look_at_clocks(time.monotonic())
        self._dispatch()

    def discard(self) -> None:
        """End all slots: those that run something are killed, the others are let go."""
        slots = [*self._slots, *self._retired]
        for slot in slots:
            if slot.queue or slot.verdict:
                slot.kill()
            else:
                slot.let_go()
        deadline = time.monotonic() + GRACE
        for slot in slots:
            slot.discard(max(0.0, deadline - time.monotonic()))
        self._slots.clear()
        self._retired.clear()

    def close(self) -> None:
        """Give the descriptor back that `select` needs."""
        self._selector.close()

    def _until_next_event(self) -> float | None:
        now = time.monotonic()
        moments = [self._later[0][0]] if self._later else []
        for slot in self._slots:
            if slot.queue:
                moments.append(self._next_moment(slot, now))
        if not moments:
            return None if TELLS_ITS_END or not self._slots else 0.2
        wait = max(0.0, min(moments) - now)
        return wait if TELLS_ITS_END else min(wait, 0.2)

    def _next_moment(self, slot: Worker, now: float) -> float:
        """When the head of a slot is to be looked at next."""
        if slot.kill_at is not None and slot.kill_at > now:
            return slot.kill_at
        is_watched = slot.queue[0].order.task.memory and not slot.verdict
        moments = [self._watch_memory.next] if is_watched else []
        if slot.loading or slot.verdict:  # it is killed, and takes its time
            return min([now + LONG_RUN, *moments])
        if limit := slot.limit():
            moments.append(slot.head_since + limit)
        if not slot.head_shown:
            moments.append(slot.head_since + LONG_RUN)
        else:
            moments.append(now + LONG_RUN)  # for hand-over, and requests to cancel
        return min(moments)

    def _all_have_work_ahead(self) -> bool:
        return bool(self._slots) and all(len(slot.queue) > 2 for slot in self._slots)

    def _read(self, slot: Worker | None) -> None:
        """Take in what a slot has said (None: someone woke us)."""
        if slot is None:
            with contextlib.suppress(BlockingIOError):
                self._wake.recv(4096)
            return
        while True:
            try:
                data = slot.connection.recv(1 << 18, socket.MSG_DONTWAIT)
            except (BlockingIOError, ConnectionError):
                break
            if not data:
                self._unwatch(slot.connection)
                break
            slot.buffer += data
            if len(data) < 1 << 18:
                break
        since, waiting = slot.head_since, len(slot.queue)
        for kind, *parts in _slot.unpack_frames(slot.buffer):
            self._hear(slot, kind, parts)
        if answers := waiting - len(slot.queue):
            slot.note_pace(time.monotonic() - since, answers)

    def _hear(self, slot: Worker, kind: str, parts: list[Any]) -> None:
        if kind == 'outcome':
            self._answered(slot, _slot.unpack_outcome(parts[0]))
        elif kind == 'skipped':
            self._skipped(slot, parts[0])
        elif kind == 'loaded':
            slot.loading -= 1
            slot.start_head()
        elif kind in ('preparing', 'prepared'):
            slot.is_preparing = kind == 'preparing'
            slot.head_since = time.monotonic()
        elif kind == 'retire':
            self._retire(slot)

    def _answered(self, slot: Worker, outcome: Outcome) -> None:
        if slot.queue and slot.queue[0].order.run == outcome.run:
            slot.queue.popleft()
            slot.is_preparing = False
            slot.start_head()
        # Else it was handed over, and this slot was quicker after all. The first answer counts.
        self._resolve(outcome)

    def _skipped(self, slot: Worker, run: str) -> None:
        """An order that was cancelled was not begun."""
        for ticket in [ticket for ticket in slot.queue if ticket.order.run == run]:
            slot.queue.remove(ticket)
            self._drop([ticket])
        slot.start_head()

    def _retire(self, slot: Worker) -> None:
        """It ends by itself when the threads that a function left do; of too many, the oldest is killed."""
        tickets = list(slot.queue)
        slot.queue.clear()
        self._put_back(tickets)
        self._slots.remove(slot)
        self._retired.append(slot)
        if len(self._retired) > RETIRED * self._workers:
            self._retired[0].kill()

    def _put_back(self, tickets: list[Ticket]) -> None:
        """What a slot did not begin is the next that others get, unless it was cancelled."""
        self._drop([ticket for ticket in tickets if ticket.is_cancelled])
        self._waiting.extendleft(ticket for ticket in reversed(tickets) if not ticket.is_cancelled)

    def _reap(self, ready: list[tuple[selectors.SelectorKey, int]]) -> None:
        """Find the slots whose process has ended."""
        if TELLS_ITS_END and not any(key.fd == key.data.end_fd for key, _ in ready if key.data):
            return
        for slot in [*self._slots, *self._retired]:
            if slot.process.poll() is not None:
                self._read(slot)  # what it said before it died
                self._bury(slot)

    def _bury(self, slot: Worker) -> None:
        """A slot is dead: its head is blamed if it was begun, the rest waits for another slot."""
        self._unwatch(slot.connection)
        self._unwatch(slot.end_fd)
        for slots in (self._slots, self._retired):
            if slot in slots:
                slots.remove(slot)
        tickets = list(slot.queue)
        if tickets or slot.verdict or slot.process.returncode:
            slot.kill()  # what is left of its group; what runs that went well have started may go on
        slot.queue.clear()
        if tickets and slot.condemned and slot.condemned != tickets[0].order.run:
            pass  # it had just moved on from the one it was killed for: that one is run again
        elif tickets and not self._blamed(slot, tickets[0]):
            tickets[0].deaths += 1
            self._requeue_or_give_up(slot, tickets.pop(0))
        elif tickets:
            tickets.pop(0)
        self._put_back(tickets)
        slot.discard()

    def _blamed(self, slot: Worker, ticket: Ticket) -> bool:
        """Settle the head of a dead slot; False where its directory says that it was never begun."""
        why = slot.verdict or (WorkerDied.__name__, how_it_died(slot.process.returncode))
        if slot.is_preparing and why[0] not in (Cancelled.__name__, Interrupted.__name__):
            why = (why[0], f'{why[1]}, in the setup of its collection')
            now = time.monotonic()
            until = now + setups.pause_after(now - slot.head_since)
            self._setups_that_kill[ticket.number] = (until, *why)
        log('worker %s at %s/%s: %s', slot.process.pid, *ticket.order.step[1:], why[1])
        more: dict[str, Any] = {'last_words': slot.last_words(), 'max_rss': slot.peak}
        outcome = settle.blame(ticket.order, *why, patience=1.0, **more)
        if outcome is not None:
            self._resolve(outcome)
        return outcome is not None

    def _requeue_or_give_up(self, slot: Worker, ticket: Ticket) -> None:
        is_dropped = slot.verdict and slot.verdict[0] not in (TimedOut.__name__, MemoryExceeded.__name__)
        if ticket.is_cancelled or is_dropped:
            self._drop([ticket])
        elif ticket.deaths < UNBEGUN_DEATHS:
            self._waiting.appendleft(ticket)
        else:
            kind, why = slot.verdict or (WorkerDied.__name__, how_it_died(slot.process.returncode))
            tell = not_started if slot.loading else compute.record_lost
            self._resolve(tell(ticket.order, kind, f'{why}, {ticket.deaths} times before it could begin'))

    def _signal_head(self, slot: Worker, number: int) -> None:
        if number == signal.SIGINT:
            slot.verdict = (Interrupted.__name__, 'the run was interrupted (Ctrl-C)')
            slot.kill_at = time.monotonic() + GRACE
        else:
            slot.verdict = (Cancelled.__name__, 'the run was cancelled')
        slot.condemned = slot.queue[0].order.run
        slot.kill(number)

    def _revoke(self, slot: Worker, tickets: list[Ticket], *, is_answered: bool) -> None:
        """Have a slot skip orders that it has not begun, and say which ones those are."""
        if tickets:
            runs = [ticket.order.run for ticket in tickets]
            self._send(slot, [_slot.pack_frame('revoke', runs, is_answered)])

    def _look_at_clocks(self, now: float) -> None:
        while self._later and self._later[0][0] <= now:
            self._waiting.append(heapq.heappop(self._later)[2])
        shown, limits = [], {}
        for slot in self._slots:
            if slot.kill_at is not None and now >= slot.kill_at:
                slot.kill()
            age = slot.head_age(now)
            if not slot.queue or slot.verdict:
                continue
            timeout, limit = slot.queue[0].order.task.timeout, slot.limit()
            if memory := slot.queue[0].order.task.memory:
                limits[slot.process.pid] = memory
            if slot.loading:
                if timeout and now - slot.head_since >= max(timeout, LONGEST_LOADING):
                    slot.verdict = (TimedOut.__name__, 'its module took too long to be imported')
                    slot.kill()
                continue
            if limit and age >= limit:
                slot.verdict = (TimedOut.__name__, f'the run took longer than {limit:g} s and was killed')
                slot.condemned = slot.queue[0].order.run
                slot.kill()
            elif age >= LONG_RUN:
                if not slot.head_shown:
                    slot.head_shown = True
                    shown.append(slot.queue[0].order)
                self._hand_over(slot)
        if shown:
            self._started(shown)
        if limits and now >= self._watch_memory.next:
            self._look_at_memory(limits)
        if now - self._requests_seen >= LONG_RUN and self._tickets:
            self._requests_seen = now
            self._look_at_requests()

    def _look_at_memory(self, limits: dict[int, int]) -> None:
        """Kill those that take more than their limit, and all that has a part in it, in whatever session."""
        for pid, (taken, processes) in self._watch_memory.exceeding(limits).items():
            for slot in (slot for slot in self._slots if slot.process.pid == pid and not slot.verdict):
                why = f'the run took {size(taken)} of memory, more than the {size(limits[pid])} that it may, '
                slot.verdict = (MemoryExceeded.__name__, f'{why}and was killed')
                slot.peak = taken
                if not slot.loading:
                    slot.condemned = slot.queue[0].order.run
                slot.kill()
                for each in processes:
                    with contextlib.suppress(OSError):
                        os.kill(each, signal.SIGKILL)

    def _look_at_requests(self) -> None:
        """Someone in another process may want a resource cancelled: they leave a request in the base."""
        orders = [ticket.order for ticket in list(self._tickets.values())]
        for base in {order.task.base for order in orders}:
            requested = basedir.cancel_requests(base)
            wanted = [order for order in orders if (order.path, order.queued_at) in requested]
            for order in wanted:
                basedir.drop_cancel_request(base, order.path)
            if wanted:
                self.cancel({order.run for order in wanted})

    def _hand_over(self, slot: Worker) -> None:
        """Its head takes long: what waits behind it goes to slots that have nothing to do."""
        free = len(self._slots) < self._workers or any(not other.queue for other in self._slots)
        if free and len(slot.queue) > 1 and not self._waiting:
            behind = [ticket for ticket in list(slot.queue)[1:] if not ticket.is_cancelled]
            self._revoke(slot, behind, is_answered=False)
            for ticket in behind:
                slot.queue.remove(ticket)
            self._waiting.extend(behind)

    def _dispatch(self) -> None:
        """Send waiting orders to whoever has room, the least busy first, making slots as needed."""
        while self._waiting:
            generation = self._waiting[0].generation
            self._let_go_of_others(generation)
            free = [slot for slot in self._slots if slot.generation == generation and slot.has_room()]
            slot = min(free, key=lambda s: len(s.queue), default=None)
            if (slot is None or slot.queue) and len(self._slots) < self._workers:
                slot = self._new_slot(generation) or slot
            if slot is None:
                return
            self._supply(slot)

    def _let_go_of_others(self, generation: int) -> None:
        """Idle workers that have loaded other code than what waits is to be computed by end."""
        for slot in [slot for slot in self._slots if slot.generation != generation and not slot.queue]:
            self._slots.remove(slot)
            self._retired.append(slot)
            slot.let_go()

    def _supply(self, slot: Worker) -> None:
        frames = []
        share = 1 + len(self._waiting) // (2 * len(self._slots))  # leave something for the others
        if not slot.queue:
            slot.start_head()
        while self._waiting and share and (not slot.queue or slot.has_room()):
            if self._waiting[0].generation != slot.generation:
                break
            share -= 1
            ticket = self._waiting.popleft()
            if ticket.order.run not in self._tickets:
                continue  # answered after all by the slot that it was taken from
            until, *why = self._setups_that_kill.get(ticket.number, (0.0, '', ''))
            if until > time.monotonic():
                self._resolve(not_started(ticket.order, *why))
                continue
            if ticket.number not in slot.known:
                slot.known.add(ticket.number)
                slot.loading += 1
                frames.append(self._frames[ticket.number])
            slot.queue.append(ticket)
            frames.append(_slot.pack_frame('order', ticket.number, tuple(ticket.order)[1:]))
        self._send(slot, frames)

    def _send(self, slot: Worker, frames: list[bytes]) -> None:
        slot.send(frames)
        if slot.unsent:
            self._watch(slot, selectors.EVENT_READ | selectors.EVENT_WRITE)

    def _send_on(self) -> None:
        """Send what did not fit before; most of the time there is none."""
        for slot in self._slots:
            if slot.unsent:
                slot.send_on()
                if not slot.unsent:
                    self._watch(slot, selectors.EVENT_READ)

    def _watch(self, slot: Worker, events: int) -> None:
        with contextlib.suppress(KeyError, ValueError):  # it is dead, and will be buried
            self._selector.modify(slot.connection, events, slot)

    def _new_slot(self, generation: int) -> Worker | None:
        """None where no more processes can be started now and there are some; one of them will do."""
        try:
            slot = Worker(generation, self._environment())
        except OSError:
            if not self._slots:
                raise
            return None
        self._slots.append(slot)
        self._selector.register(slot.connection, selectors.EVENT_READ, slot)
        if slot.end_fd >= 0:
            self._selector.register(slot.end_fd, selectors.EVENT_READ, slot)
        return slot

    def _unwatch(self, what: Any) -> None:
        with contextlib.suppress(KeyError, ValueError):
            self._selector.unregister(what)
