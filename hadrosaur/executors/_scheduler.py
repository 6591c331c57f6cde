"""The workers of one pool: who gets which job, who is blamed, who is killed.

Each worker has a queue of jobs that it was sent and has not answered, and the head of that queue is the
one that runs. From this one list follow exact blame, the clock of a timeout, ``phase='running'``,
hand-over and cancelling.

* About 30 ms of work is sent ahead, so that a worker never waits for its caller.
* A worker that dies (its process is seen to end; a surviving child may keep the socket open) blames its
  head, if the head's directory says that it was begun; the rest goes to other workers.
* A worker that hangs on its head for a second loses its queue to idle ones. If it was quicker after all,
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

from .. import basedir, compute, recover, worker_setup
from ..errors import Cancelled, Interrupted, MemoryExceeded, TimedOut, WorkerDied, log
from ..not_started import not_started
from ..records import Job, RunResult
from ..sanitize import size
from . import _memory, _worker_main
from ._worker_process import TELLS_ITS_END, WorkerProcess, WorkItem, how_it_died

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

LONG_RUN = 1.0  # seconds after which a head counts as running, and its queue is up for hand-over
LONGEST_LOADING = 60.0  # seconds for a worker to import what a function with a timeout needs
GATHER = 0.005  # seconds to let outcomes come together, while every worker has work ahead
GRACE = 2.0  # seconds from interrupting to killing
RETIRED = 4  # workers for each worker that may wait for threads which functions left behind
UNBEGUN_DEATHS = 3  # deaths before its job was even begun, after which a job is given up


class Scheduler:
    """Up to ``workers`` workers and the jobs that they work off.

    Args:
        workers: How many workers there may be.
        wake: A socket that becomes readable when the driver is to look up.
        work_items: The open jobs by run, which the pool keeps.
        frames: What a worker is sent before the first job of a collection, by the collection's number.
        resolve: Told what came of a job.
        drop: Told of work items that were not begun and are not wanted any more.
        started: Told of jobs whose run takes long.
        environment: What the environment of a worker has besides this one's, when it is started.
    """

    def __init__(
        self,
        workers: int,
        wake: socket.socket,
        work_items: dict[str, WorkItem],
        frames: dict[int, bytes],
        *,
        resolve: Callable[[RunResult], None],
        drop: Callable[[Sequence[WorkItem]], None],
        started: Callable[[list[Job]], None],
        environment: Callable[[], dict[bytes, bytes]],
    ) -> None:
        self._workers = workers
        self._wake = wake
        self._tickets = work_items
        self._frames = frames
        self._resolve = resolve
        self._drop = drop
        self._started = started
        self._environment = environment
        self._workers_alive: list[WorkerProcess] = []
        self._retired: list[WorkerProcess] = []
        self._waiting: deque[WorkItem] = deque()
        self._later: list[tuple[float, int, WorkItem]] = []
        self._selector = selectors.DefaultSelector()
        self._selector.register(wake, selectors.EVENT_READ, None)
        self._requests_seen = 0.0  # when cancel requests were looked at last
        self._watch_memory = _memory.Watch()
        self._setups_that_kill: dict[
            int, tuple[float, str, str]
        ] = {}  # by task: until when, and how it ended

    def put(self, work_items: Sequence[WorkItem], delay: float) -> None:
        """Take in jobs; they may run in so many seconds."""
        if not delay:
            self._waiting.extend(work_items)
            return
        moment = time.monotonic() + delay
        for work_item in work_items:
            heapq.heappush(self._later, (moment, id(work_item), work_item))

    def cancel(self, runs: set[str], number: int | None = signal.SIGKILL) -> None:
        """Heads are signalled (None: left alone), everything behind them is dropped."""
        dropped = [work_item for work_item in self._waiting if work_item.job.run in runs]
        dropped += [work_item for _, _, work_item in self._later if work_item.job.run in runs]
        self._waiting = deque(work_item for work_item in self._waiting if work_item.job.run not in runs)
        self._later = [item for item in self._later if item[2].job.run not in runs]
        heapq.heapify(self._later)
        for worker in self._workers_alive:
            behind = [work_item for work_item in list(worker.queue)[1:] if work_item.job.run in runs]
            for work_item in behind:
                work_item.is_cancelled = True
            self._revoke(worker, behind, is_answered=True)
            if number is not None and worker.queue and worker.queue[0].job.run in runs:
                self._signal_head(worker, number)
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
        """Look at the clocks, and send jobs to whoever has room."""
        self._look_at_clocks(time.monotonic())
        self._dispatch()

    def discard(self) -> None:
        """End all workers: those that run something are killed, the others are let go."""
        workers = [*self._workers_alive, *self._retired]
        for worker in workers:
            if worker.queue or worker.kill_reason:
                worker.kill()
            else:
                worker.close_after_fork()
        deadline = time.monotonic() + GRACE
        for worker in workers:
            worker.discard(max(0.0, deadline - time.monotonic()))
        self._workers_alive.clear()
        self._retired.clear()

    def close(self) -> None:
        """Give the descriptor back that `select` needs."""
        self._selector.close()

    def _until_next_event(self) -> float | None:
        now = time.monotonic()
        moments = [self._later[0][0]] if self._later else []
        for worker in self._workers_alive:
            if worker.queue:
                moments.append(self._next_moment(worker, now))
        if not moments:
            return None if TELLS_ITS_END or not self._workers_alive else 0.2
        wait = max(0.0, min(moments) - now)
        return wait if TELLS_ITS_END else min(wait, 0.2)

    def _next_moment(self, worker: WorkerProcess, now: float) -> float:
        """When the head of a worker is to be looked at next."""
        if worker.kill_at is not None and worker.kill_at > now:
            return worker.kill_at
        is_watched = worker.queue[0].job.spec.memory and not worker.kill_reason
        moments = [self._watch_memory.next] if is_watched else []
        if worker.loading or worker.kill_reason:  # it is killed, and takes its time
            return min([now + LONG_RUN, *moments])
        if limit := worker.limit():
            moments.append(worker.head_since + limit)
        if not worker.head_shown:
            moments.append(worker.head_since + LONG_RUN)
        else:
            moments.append(now + LONG_RUN)  # for hand-over, and requests to cancel
        return min(moments)

    def _all_have_work_ahead(self) -> bool:
        return bool(self._workers_alive) and all(len(worker.queue) > 2 for worker in self._workers_alive)

    def _read(self, worker: WorkerProcess | None) -> None:
        """Take in what a worker has said (None: someone woke us)."""
        if worker is None:
            with contextlib.suppress(BlockingIOError):
                self._wake.recv(4096)
            return
        while True:
            try:
                data = worker.connection.recv(1 << 18, socket.MSG_DONTWAIT)
            except (BlockingIOError, ConnectionError):
                break
            if not data:
                self._unwatch(worker.connection)
                break
            worker.buffer += data
            if len(data) < 1 << 18:
                break
        since, waiting = worker.head_since, len(worker.queue)
        for kind, *parts in _worker_main.unpack_frames(worker.buffer):
            self._hear(worker, kind, parts)
        if answers := waiting - len(worker.queue):
            worker.note_pace(time.monotonic() - since, answers)

    def _hear(self, worker: WorkerProcess, kind: str, parts: list[Any]) -> None:
        if kind == 'outcome':
            self._answered(worker, _worker_main.unpack_outcome(parts[0]))
        elif kind == 'skipped':
            self._skipped(worker, parts[0])
        elif kind == 'loaded':
            worker.loading -= 1
            worker.start_head()
        elif kind in ('preparing', 'prepared'):
            worker.is_preparing = kind == 'preparing'
            worker.head_since = time.monotonic()
        elif kind == 'retire':
            self._retire(worker)

    def _answered(self, worker: WorkerProcess, run_result: RunResult) -> None:
        if worker.queue and worker.queue[0].job.run == run_result.run:
            worker.queue.popleft()
            worker.is_preparing = False
            worker.start_head()
        # Else it was handed over, and this worker was quicker after all. The first answer counts.
        self._resolve(run_result)

    def _skipped(self, worker: WorkerProcess, run: str) -> None:
        """A job that was cancelled was not begun."""
        for work_item in [work_item for work_item in worker.queue if work_item.job.run == run]:
            worker.queue.remove(work_item)
            self._drop([work_item])
        worker.start_head()

    def _retire(self, worker: WorkerProcess) -> None:
        """It ends by itself when the threads that a function left do; of too many, the oldest is killed."""
        work_items = list(worker.queue)
        worker.queue.clear()
        self._put_back(work_items)
        self._workers_alive.remove(worker)
        self._retired.append(worker)
        if len(self._retired) > RETIRED * self._workers:
            self._retired[0].kill()

    def _put_back(self, work_items: list[WorkItem]) -> None:
        """What a worker did not begin is the next that others get, unless it was cancelled."""
        self._drop([work_item for work_item in work_items if work_item.is_cancelled])
        self._waiting.extendleft(item for item in reversed(work_items) if not item.is_cancelled)

    def _reap(self, ready: list[tuple[selectors.SelectorKey, int]]) -> None:
        """Find the workers whose process has ended."""
        if TELLS_ITS_END and not any(key.fd == key.data.end_fd for key, _ in ready if key.data):
            return
        for worker in [*self._workers_alive, *self._retired]:
            if worker.process.poll() is not None:
                self._read(worker)  # what it said before it died
                self._bury(worker)

    def _bury(self, worker: WorkerProcess) -> None:
        """A worker is dead: its head is blamed if it was begun, the rest waits for another worker."""
        self._unwatch(worker.connection)
        self._unwatch(worker.end_fd)
        for workers in (self._workers_alive, self._retired):
            if worker in workers:
                workers.remove(worker)
        work_items = list(worker.queue)
        if work_items or worker.kill_reason or worker.process.returncode:
            worker.kill()  # what is left of its group; what runs that went well have started may go on
        worker.queue.clear()
        if work_items and worker.condemned and worker.condemned != work_items[0].job.run:
            pass  # it had just moved on from the one it was killed for: that one is run again
        elif work_items and not self._blamed(worker, work_items[0]):
            work_items[0].deaths += 1
            self._requeue_or_give_up(worker, work_items.pop(0))
        elif work_items:
            work_items.pop(0)
        self._put_back(work_items)
        worker.discard()

    def _blamed(self, worker: WorkerProcess, work_item: WorkItem) -> bool:
        """Recover the head of a dead worker; False where its directory says that it was never begun."""
        why = worker.kill_reason or (WorkerDied.__name__, how_it_died(worker.process.returncode))
        if worker.is_preparing and why[0] not in (Cancelled.__name__, Interrupted.__name__):
            why = (why[0], f'{why[1]}, in the setup of its collection')
            now = time.monotonic()
            until = now + worker_setup.pause_after(now - worker.head_since)
            self._setups_that_kill[work_item.number] = (until, *why)
        log('worker %s at %s/%s: %s', worker.process.pid, *work_item.job.step[1:], why[1])
        more: dict[str, Any] = {'last_words': worker.last_words(), 'max_rss': worker.peak}
        run_result = recover.attribute_failure(work_item.job, *why, patience=1.0, **more)
        if run_result is not None:
            self._resolve(run_result)
        return run_result is not None

    def _requeue_or_give_up(self, worker: WorkerProcess, work_item: WorkItem) -> None:
        reason = worker.kill_reason
        is_dropped = reason and reason[0] not in (TimedOut.__name__, MemoryExceeded.__name__)
        if work_item.is_cancelled or is_dropped:
            self._drop([work_item])
        elif work_item.deaths < UNBEGUN_DEATHS:
            self._waiting.appendleft(work_item)
        else:
            kind, why = worker.kill_reason or (WorkerDied.__name__, how_it_died(worker.process.returncode))
            tell = not_started if worker.loading else compute.record_lost
            self._resolve(tell(work_item.job, kind, f'{why}, {work_item.deaths} times before it could begin'))

    def _signal_head(self, worker: WorkerProcess, number: int) -> None:
        if number == signal.SIGINT:
            worker.kill_reason = (Interrupted.__name__, 'the run was interrupted (Ctrl-C)')
            worker.kill_at = time.monotonic() + GRACE
        else:
            worker.kill_reason = (Cancelled.__name__, 'the run was cancelled')
        worker.condemned = worker.queue[0].job.run
        worker.kill(number)

    def _revoke(self, worker: WorkerProcess, work_items: list[WorkItem], *, is_answered: bool) -> None:
        """Have a worker skip jobs that it has not begun, and say which ones those are."""
        if work_items:
            runs = [work_item.job.run for work_item in work_items]
            self._send(worker, [_worker_main.pack_frame('revoke', runs, is_answered)])

    def _look_at_clocks(self, now: float) -> None:
        while self._later and self._later[0][0] <= now:
            self._waiting.append(heapq.heappop(self._later)[2])
        shown, limits = [], {}
        for worker in self._workers_alive:
            if worker.kill_at is not None and now >= worker.kill_at:
                worker.kill()
            age = worker.head_age(now)
            if not worker.queue or worker.kill_reason:
                continue
            timeout, limit = worker.queue[0].job.spec.timeout, worker.limit()
            if memory := worker.queue[0].job.spec.memory:
                limits[worker.process.pid] = memory
            if worker.loading:
                if timeout and now - worker.head_since >= max(timeout, LONGEST_LOADING):
                    worker.kill_reason = (TimedOut.__name__, 'its module took too long to be imported')
                    worker.kill()
                continue
            if limit and age >= limit:
                why = f'the run took longer than {limit:g} s and was killed'
                worker.kill_reason = (TimedOut.__name__, why)
                worker.condemned = worker.queue[0].job.run
                worker.kill()
            elif age >= LONG_RUN:
                if not worker.head_shown:
                    worker.head_shown = True
                    shown.append(worker.queue[0].job)
                self._hand_over(worker)
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
            for worker in (
                each for each in self._workers_alive if each.process.pid == pid and not each.kill_reason
            ):
                why = f'the run took {size(taken)} of memory, more than the {size(limits[pid])} that it may, '
                worker.kill_reason = (MemoryExceeded.__name__, f'{why}and was killed')
                worker.peak = taken
                if not worker.loading:
                    worker.condemned = worker.queue[0].job.run
                worker.kill()
                for each in processes:
                    with contextlib.suppress(OSError):
                        os.kill(each, signal.SIGKILL)

    def _look_at_requests(self) -> None:
        """Someone in another process may want a resource cancelled: they leave a request in the base."""
        jobs = [work_item.job for work_item in list(self._tickets.values())]
        for base in {job.spec.base for job in jobs}:
            requested = basedir.cancel_requests(base)
            wanted = [job for job in jobs if (job.path, job.queued_at) in requested]
            for job in wanted:
                basedir.drop_cancel_request(base, job.path)
            if wanted:
                self.cancel({job.run for job in wanted})

    def _hand_over(self, worker: WorkerProcess) -> None:
        """Its head takes long: what waits behind it goes to workers that have nothing to do."""
        free = len(self._workers_alive) < self._workers or any(
            not other.queue for other in self._workers_alive
        )
        if free and len(worker.queue) > 1 and not self._waiting:
            behind = [work_item for work_item in list(worker.queue)[1:] if not work_item.is_cancelled]
            self._revoke(worker, behind, is_answered=False)
            for work_item in behind:
                worker.queue.remove(work_item)
            self._waiting.extend(behind)

    def _dispatch(self) -> None:
        """Send waiting jobs to whoever has room, the least busy first, making workers as needed."""
        while self._waiting:
            generation = self._waiting[0].generation
            self._let_go_of_others(generation)
            free = [
                each for each in self._workers_alive if each.generation == generation and each.can_prefetch()
            ]
            worker = min(free, key=lambda s: len(s.queue), default=None)
            if (worker is None or worker.queue) and len(self._workers_alive) < self._workers:
                worker = self._new_worker(generation) or worker
            if worker is None:
                return
            self._supply(worker)

    def _let_go_of_others(self, generation: int) -> None:
        """Idle workers that have loaded other code than what waits is to be computed by end."""
        for worker in [
            each for each in self._workers_alive if each.generation != generation and not each.queue
        ]:
            self._workers_alive.remove(worker)
            self._retired.append(worker)
            worker.close_after_fork()

    def _supply(self, worker: WorkerProcess) -> None:
        frames = []
        share = 1 + len(self._waiting) // (2 * len(self._workers_alive))  # leave something for the others
        if not worker.queue:
            worker.start_head()
        while self._waiting and share and (not worker.queue or worker.can_prefetch()):
            if self._waiting[0].generation != worker.generation:
                break
            share -= 1
            work_item = self._waiting.popleft()
            if work_item.job.run not in self._tickets:
                continue  # answered after all by the worker that it was taken from
            until, *why = self._setups_that_kill.get(work_item.number, (0.0, '', ''))
            if until > time.monotonic():
                self._resolve(not_started(work_item.job, *why))
                continue
            if work_item.number not in worker.known:
                worker.known.add(work_item.number)
                worker.loading += 1
                frames.append(self._frames[work_item.number])
            worker.queue.append(work_item)
            frames.append(_worker_main.pack_frame('order', work_item.number, tuple(work_item.job)[1:]))
        self._send(worker, frames)

    def _send(self, worker: WorkerProcess, frames: list[bytes]) -> None:
        worker.send(frames)
        if worker.unsent:
            self._watch(worker, selectors.EVENT_READ | selectors.EVENT_WRITE)

    def _send_on(self) -> None:
        """Send what did not fit before; most of the time there is none."""
        for worker in self._workers_alive:
            if worker.unsent:
                worker.send_on()
                if not worker.unsent:
                    self._watch(worker, selectors.EVENT_READ)

    def _watch(self, worker: WorkerProcess, events: int) -> None:
        with contextlib.suppress(KeyError, ValueError):  # it is dead, and will be buried
            self._selector.modify(worker.connection, events, worker)

    def _new_worker(self, generation: int) -> WorkerProcess | None:
        """None where no more processes can be started now and there are some; one of them will do."""
        try:
            worker = WorkerProcess(generation, self._environment())
        except OSError:
            if not self._workers_alive:
                raise
            return None
        self._workers_alive.append(worker)
        self._selector.register(worker.connection, selectors.EVENT_READ, worker)
        if worker.end_fd >= 0:
            self._selector.register(worker.end_fd, selectors.EVENT_READ, worker)
        return worker

    def _unwatch(self, what: Any) -> None:
        with contextlib.suppress(KeyError, ValueError):
            self._selector.unregister(what)
