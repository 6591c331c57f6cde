"""Worker processes of our own: orders stream in, outcomes stream out, and a death costs one resource.

One driver thread looks after all slots. Each slot has a queue of orders that it was sent and has not
answered, and the head of that queue is the one that runs. From this one list follow exact blame, the
clock of a timeout, ``phase='running'``, hand-over and cancelling.

* About 30 ms of work is sent ahead, so that a slot never waits for its caller.
* A slot that dies (its process is seen to end; a surviving child may keep the socket open) blames its
  head, if the head's directory says that it was begun; the rest goes to other slots.
* A slot that hangs on its head for a second loses its queue to idle ones. If it was quicker after all,
  lock and run id make the double delivery harmless.
"""

from __future__ import annotations

import contextlib
import heapq
import selectors
import signal
import socket
import threading
import time
from collections import deque
from typing import TYPE_CHECKING, Any

from .. import basedir, compute, diskio, settle
from ..errors import Cancelled, ExecutorFault, Interrupted, TimedOut, WorkerDied
from ..locks import start_without_signals
from ..records import Outcome, Task, WorkOrder
from . import _slot
from ._worker import DEEPEST, HAS_PIDFD, Ticket, Worker, how_it_died, require_python
from .base import Executor, Listener, Packed, pack, processors

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

    from .base import Function

LONG_RUN = 1.0  # seconds after which a head counts as running, and its queue is up for hand-over
LONGEST_LOADING = 60.0  # seconds for a worker to import what a function with a timeout needs
GATHER = 0.005  # seconds to let outcomes come together, while every slot has work ahead
GRACE = 2.0  # seconds from interrupting to killing
RETIRED = 4  # slots for each worker that may wait for threads which functions left behind
UNBEGUN_DEATHS = 3  # deaths before its order was even begun, after which an order is given up


class SlotPool(Executor):
    """``executor='processes'``: up to ``workers`` slots on this machine."""

    def __init__(self, listener: Listener, workers: int | None = None) -> None:
        require_python()
        self.workers = workers or processors()
        self.capacity = (DEEPEST + 64) * self.workers
        self._tell = listener
        self._slots: list[Worker] = []
        self._retired: list[Worker] = []
        self._waiting: deque[Ticket] = deque()
        self._later: list[tuple[float, int, Ticket]] = []
        self._tickets: dict[str, Ticket] = {}
        self._packed: dict[tuple[Task, int], tuple[Packed, Function]] = {}
        self._numbers: dict[tuple[Task, str], int] = {}
        self._frames: dict[int, bytes] = {}
        self._inbox: deque[tuple[str, Any]] = deque()
        self._results: list[Outcome] = []
        self._thread: threading.Thread | None = None
        self._guard = threading.Lock()
        self._wake_in, self._wake_out = socket.socketpair()
        self._wake_in.setblocking(False)
        self._wake_out.setblocking(False)
        for end in (self._wake_in, self._wake_out):
            diskio.close_in_children(end)
        self._selector = selectors.DefaultSelector()
        self._selector.register(self._wake_out, selectors.EVENT_READ, None)
        self._asleep = True
        self._closing = False
        self._idle = threading.Condition(self._guard)
        self._fault: BaseException | None = None
        self._requests_seen = 0.0  # when cancel requests were looked at last

    # --- the caller's side -------------------------------------------------------------------------

    def submit(self, orders: Sequence[WorkOrder], function: Function, *, delay: float = 0.0) -> None:
        """Take orders of one task; ``delay`` seconds are waited before they may run."""
        key = (orders[0].task, id(function))
        if key not in self._packed:
            self._packed[key] = (pack(function), function)  # kept alive, so that its id is not used again
        self.submit_packed(orders, self._packed[key][0], delay=delay)

    def submit_packed(self, orders: Sequence[WorkOrder], packed: Packed, *, delay: float = 0.0) -> None:
        """Take orders whose function was packed elsewhere."""
        number = self._number(orders[0].task, packed)
        tickets = [Ticket(order, number) for order in orders]
        self._ask('submit', (tickets, delay))

    def _number(self, task: Task, packed: Packed) -> int:
        """Slots know each (task, function) by a number; the function's bytes go to each slot once."""
        key = (task, packed.digest)
        if key not in self._numbers:
            number = self._numbers[key] = len(self._numbers)
            self._frames[number] = _slot.pack_frame('task', number, tuple(task), packed.payload, packed.path)
        return self._numbers[key]

    def cancel(self, runs: Collection[str]) -> None:
        """Drop what is not begun; kill the slots that run the rest."""
        self._ask('cancel', set(runs))

    def withdraw(self, runs: Collection[str]) -> None:
        """Drop what is not begun; what runs goes on."""
        self._ask('withdraw', set(runs))

    def interrupt(self) -> None:
        """Interrupt what runs, drop the rest, and wait until nothing runs."""
        self._ask('interrupt', None)
        with self._idle:
            self._idle.wait_for(lambda: not self.busy or self._fault is not None, timeout=GRACE + 3)

    @property
    def busy(self) -> bool:
        """Is there any work left?"""
        return bool(self._tickets or self._inbox or self._results)

    def close(self) -> None:
        """End all slots. What is under way is killed and settled by whoever looks next."""
        with self._guard:
            if self._closing:
                return
            self._closing = True
            thread = self._thread
        if thread is not None and thread is not threading.current_thread():
            self._wake()
            thread.join()
        for end in (self._wake_in, self._wake_out):
            diskio.close(end)
        self._selector.close()

    def _ask(self, what: str, about: Any) -> None:
        with self._guard:
            if self._fault is not None:
                raise ExecutorFault(f'the worker processes failed: {self._fault}') from self._fault
            if self._closing:
                if what != 'submit':
                    return
                raise ExecutorFault('the worker processes have been ended')
            if what == 'submit':
                self._tickets.update((ticket.order.run, ticket) for ticket in about[0])
            self._inbox.append((what, about))
            if self._thread is None:
                self._thread = threading.Thread(target=self._drive, name='hadrosaur-driver', daemon=True)
                try:
                    start_without_signals(self._thread)
                except RuntimeError:  # no more threads can be started
                    self._thread = None
                    self._inbox.clear()
                    self._tickets.clear()
                    raise
        self._wake()

    def _wake(self) -> None:
        if self._asleep:
            with contextlib.suppress(BlockingIOError):
                self._wake_in.send(b'.')

    # --- the driver thread -------------------------------------------------------------------------

    def _drive(self) -> None:
        try:
            while not self._closing:
                self._turn()
        except BaseException as error:  # told to whoever waits: a dead driver must not be waited for
            self._fault = error
        try:
            for slot in [*self._slots, *self._retired]:
                slot.discard()
            self._slots.clear()
            self._retired.clear()
        finally:
            with self._idle:
                self._idle.notify_all()
            if self._fault is not None:
                self._tell.failed(self._fault)

    def _turn(self) -> None:
        """One round: read what came, act on what was asked, look at the clocks, send, tell."""
        self._asleep = True
        timeout = 0.0 if self._inbox or self._closing else self._until_next_event()
        ready = self._selector.select(timeout)
        self._asleep = False
        if ready and self._all_have_work_ahead():
            time.sleep(GATHER)
            ready = self._selector.select(0)
        for key, _ in ready:
            self._read(key.data)
        self._reap(ready)
        self._send_on()
        while self._inbox:
            self._act(*self._inbox.popleft())
        self._look_at_clocks(time.monotonic())
        self._dispatch()
        self._tell_results()

    def _until_next_event(self) -> float | None:
        now = time.monotonic()
        moments = [self._later[0][0]] if self._later else []
        for slot in self._slots:
            if slot.queue:
                moments.append(self._next_moment(slot, now))
        if not moments:
            return None if HAS_PIDFD or not self._slots else 0.2
        wait = max(0.0, min(moments) - now)
        return wait if HAS_PIDFD else min(wait, 0.2)

    def _next_moment(self, slot: Worker, now: float) -> float:
        """When the head of a slot is to be looked at next."""
        if slot.kill_at is not None and slot.kill_at > now:
            return slot.kill_at
        if slot.loading or slot.verdict:  # it is killed, and takes its time
            return now + LONG_RUN
        timeout = slot.queue[0].order.task.timeout
        moments = [slot.head_since + timeout] if timeout and not slot.verdict else []
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
                self._wake_out.recv(4096)
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
        elif kind == 'retire':
            self._retire(slot)

    def _answered(self, slot: Worker, outcome: Outcome) -> None:
        if slot.queue and slot.queue[0].order.run == outcome.run:
            slot.queue.popleft()
            slot.start_head()
        # Else it was handed over, and this slot was quicker after all. The first answer counts.
        self._resolve(outcome)

    def _skipped(self, slot: Worker, run: str) -> None:
        """An order that was cancelled was not begun."""
        for ticket in [ticket for ticket in slot.queue if ticket.order.run == run]:
            slot.queue.remove(ticket)
            self._drop([ticket])
        slot.start_head()

    def _resolve(self, outcome: Outcome) -> None:
        if self._tickets.pop(outcome.run, None) is not None or outcome.fresh:
            self._results.append(outcome)  # what was computed is told, even if it was given up before

    def _retire(self, slot: Worker) -> None:
        """It ends by itself when the threads that a function left do; of too many, the oldest is killed."""
        tickets = list(slot.queue)
        slot.queue.clear()
        self._put_back(tickets)
        self._slots.remove(slot)
        self._retired.append(slot)
        if len(self._retired) > RETIRED * self.workers:
            self._retired[0].kill()

    def _put_back(self, tickets: list[Ticket]) -> None:
        """What a slot did not begin is the next that others get, unless it was cancelled."""
        self._drop([ticket for ticket in tickets if ticket.is_cancelled])
        self._waiting.extendleft(ticket for ticket in reversed(tickets) if not ticket.is_cancelled)

    def _reap(self, ready: list[tuple[selectors.SelectorKey, int]]) -> None:
        """Find the slots whose process has ended."""
        if HAS_PIDFD and not any(key.fd == key.data.pidfd for key, _ in ready if key.data):
            return
        for slot in [*self._slots, *self._retired]:
            if slot.process.poll() is not None:
                self._read(slot)  # what it said before it died
                self._bury(slot)

    def _bury(self, slot: Worker) -> None:
        """A slot is dead: its head is blamed if it was begun, the rest waits for another slot."""
        self._unwatch(slot.connection)
        self._unwatch(slot.pidfd)
        for slots in (self._slots, self._retired):
            if slot in slots:
                slots.remove(slot)
        slot.kill()  # what is left of its group
        tickets = list(slot.queue)
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
        order = ticket.order
        error_type, reason = slot.verdict or (WorkerDied.__name__, how_it_died(slot.process.returncode))
        found = settle.settle(
            order.collection,
            order.ident,
            order.task.path,
            order.folder,
            lock=order.task.lock,
            patience=1.0,
            error_type=error_type,
            reason=reason,
            only_run=order.run,
        )
        if found.entry is not None and found.run == order.run:
            self._resolve(Outcome(order.run, found.entry, fresh=True))
            return True
        return False

    def _requeue_or_give_up(self, slot: Worker, ticket: Ticket) -> None:
        if ticket.is_cancelled or (slot.verdict and slot.verdict[0] != TimedOut.__name__):
            self._drop([ticket])
        elif ticket.deaths < UNBEGUN_DEATHS:
            self._waiting.appendleft(ticket)
        else:
            reason = f'{how_it_died(slot.process.returncode)}, {ticket.deaths} times before it could begin'
            self._resolve(compute.record_failure(ticket.order, WorkerDied.__name__, reason))

    def _act(self, what: str, about: Any) -> None:
        if what == 'submit':
            tickets, delay = about
            if delay:
                moment = time.monotonic() + delay
                for ticket in tickets:
                    heapq.heappush(self._later, (moment, id(ticket), ticket))
            else:
                self._waiting.extend(tickets)
        elif what == 'cancel':
            self._cancel(about)
        elif what == 'withdraw':
            self._cancel(about, None)
        elif what == 'interrupt':
            self._cancel(set(self._tickets), signal.SIGINT)

    def _cancel(self, runs: set[str], number: int | None = signal.SIGKILL) -> None:
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

    def _signal_head(self, slot: Worker, number: int) -> None:
        if number == signal.SIGINT:
            slot.verdict = (Interrupted.__name__, 'the run was interrupted (Ctrl-C)')
            slot.kill_at = time.monotonic() + GRACE
        else:
            slot.verdict = (Cancelled.__name__, 'the run was cancelled')
        slot.condemned = slot.queue[0].order.run
        slot.kill(number)

    def _drop(self, tickets: list[Ticket]) -> None:
        if not tickets:
            return
        self._tell.dropped([ticket.order for ticket in tickets])
        for ticket in tickets:
            self._tickets.pop(ticket.order.run, None)
        self._tell_if_idle()

    def _revoke(self, slot: Worker, tickets: list[Ticket], *, is_answered: bool) -> None:
        """Have a slot skip orders that it has not begun, and say which ones those are."""
        if tickets:
            runs = [ticket.order.run for ticket in tickets]
            self._send(slot, [_slot.pack_frame('revoke', runs, is_answered)])

    def _look_at_clocks(self, now: float) -> None:
        while self._later and self._later[0][0] <= now:
            self._waiting.append(heapq.heappop(self._later)[2])
        shown = []
        for slot in self._slots:
            if slot.kill_at is not None and now >= slot.kill_at:
                slot.kill()
            age = slot.head_age(now)
            if not slot.queue or slot.verdict:
                continue
            timeout = slot.queue[0].order.task.timeout
            if slot.loading:
                if timeout and now - slot.head_since >= max(timeout, LONGEST_LOADING):
                    slot.verdict = (TimedOut.__name__, 'its module took too long to be imported')
                    slot.kill()
                continue
            if timeout and age >= timeout:
                slot.verdict = (TimedOut.__name__, f'the run took longer than {timeout:g} s and was killed')
                slot.condemned = slot.queue[0].order.run
                slot.kill()
            elif age >= LONG_RUN:
                if not slot.head_shown:
                    slot.head_shown = True
                    shown.append(slot.queue[0].order)
                self._hand_over(slot)
        if shown:
            self._tell.started(shown)
        if now - self._requests_seen >= LONG_RUN and self._tickets:
            self._requests_seen = now
            self._look_at_requests()

    def _look_at_requests(self) -> None:
        """Someone in another process may want a resource cancelled: they leave a request in the base."""
        orders = [ticket.order for ticket in list(self._tickets.values())]
        for base in {order.task.base for order in orders}:
            requested = basedir.cancel_requests(base)
            wanted = [order for order in orders if (order.path, order.queued_at) in requested]
            for order in wanted:
                basedir.drop_cancel_request(base, order.path)
            if wanted:
                self._cancel({order.run for order in wanted})

    def _hand_over(self, slot: Worker) -> None:
        """Its head takes long: what waits behind it goes to slots that have nothing to do."""
        free = len(self._slots) < self.workers or any(not other.queue for other in self._slots)
        if free and len(slot.queue) > 1 and not self._waiting:
            behind = [ticket for ticket in list(slot.queue)[1:] if not ticket.is_cancelled]
            self._revoke(slot, behind, is_answered=False)
            for ticket in behind:
                slot.queue.remove(ticket)
            self._waiting.extend(behind)

    def _dispatch(self) -> None:
        """Send waiting orders to whoever has room, the least busy first, making slots as needed."""
        while self._waiting:
            slot = min(
                (slot for slot in self._slots if slot.has_room()), key=lambda s: len(s.queue), default=None
            )
            if (slot is None or slot.queue) and len(self._slots) < self.workers:
                slot = self._new_slot() or slot
            if slot is None:
                return
            self._supply(slot)

    def _supply(self, slot: Worker) -> None:
        frames = []
        share = 1 + len(self._waiting) // (2 * len(self._slots))  # leave something for the others
        if not slot.queue:
            slot.start_head()
        while self._waiting and share and (not slot.queue or slot.has_room()):
            share -= 1
            ticket = self._waiting.popleft()
            if ticket.order.run not in self._tickets:
                continue  # answered after all by the slot that it was taken from
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

    def _new_slot(self) -> Worker | None:
        """None where no more processes can be started now and there are some; one of them will do."""
        try:
            slot = Worker()
        except OSError:
            if not self._slots:
                raise
            return None
        self._slots.append(slot)
        self._selector.register(slot.connection, selectors.EVENT_READ, slot)
        if slot.pidfd >= 0:
            self._selector.register(slot.pidfd, selectors.EVENT_READ, slot)
        return slot

    def _unwatch(self, what: Any) -> None:
        with contextlib.suppress(KeyError, ValueError):
            self._selector.unregister(what)

    def _tell_results(self) -> None:
        if self._results:
            try:
                self._tell.deliver(self._results)
            finally:
                self._results = []
            self._tell_if_idle()

    def _tell_if_idle(self) -> None:
        with self._idle:
            if not self.busy:
                self._idle.notify_all()
