"""Worker processes of our own: jobs stream in, outcomes stream out, and a death costs one resource.

`WorkerPool` is what its caller sees, from any thread. One driver thread looks after the workers; what it
decides is in `Crew`.
"""

from __future__ import annotations

import contextlib
import itertools
import signal
import socket
import threading
from collections import deque
from typing import TYPE_CHECKING, Any

from .. import fileops
from ..cpu_count import limited_threads, processors
from ..errors import ExecutorFault
from ..locks import start_without_signals
from ..records import CollectionSpec, Job, RunResult
from . import _memory, _worker_main
from ._scheduler import GRACE, Scheduler
from ._worker_process import DEEPEST, WorkItem, require_python
from .base import Executor, Listener, Packed, loaded_code, pack

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

    from .base import Function

MOST_FUNCTIONS = 100  # that a pool which lives on keeps, before it begins with new workers


class WorkerPool(Executor):
    """``executor='processes'``: up to ``workers`` workers on this machine."""

    def __init__(self, listener: Listener, workers: int | None = None, threads: int | None = None) -> None:
        require_python()
        self.workers = workers or processors()
        self.capacity = (DEEPEST + 64) * self.workers
        self._tell = listener
        self._tickets: dict[str, WorkItem] = {}
        self._packed: dict[tuple[CollectionSpec, int], tuple[Packed, Function]] = {}
        self._numbers: dict[tuple[CollectionSpec, str], int] = {}
        self._count = itertools.count()
        self._frames: dict[int, bytes] = {}
        self._inbox: deque[tuple[str, Any]] = deque()
        self._results: list[RunResult] = []
        self._thread: threading.Thread | None = None
        self._guard = threading.Lock()
        self._wake_in, self._wake_out = socket.socketpair()
        self._wake_in.setblocking(False)
        self._wake_out.setblocking(False)
        for end in (self._wake_in, self._wake_out):
            fileops.close_in_children(end)
        self._scheduler = Scheduler(
            self.workers,
            self._wake_out,
            self._tickets,
            self._frames,
            resolve=self._resolve,
            drop=self._drop,
            started=listener.started,
            environment=lambda: limited_threads(self.workers, threads),
        )
        self._code = loaded_code()
        self._generation = 0  # of the code that functions are made of, see `renew`
        self._asleep = True
        self._closing = False
        self._idle = threading.Condition(self._guard)
        self._fault: BaseException | None = None

    # --- the caller's side -------------------------------------------------------------------------

    def submit(self, jobs: Sequence[Job], function: Function, *, delay: float = 0.0) -> None:
        """Take jobs of one collection; ``delay`` seconds are waited before they may run."""
        key = (jobs[0].spec, id(function))
        if key not in self._packed:
            self._packed[key] = (pack(function), function)  # kept alive, so that its id is not used again
        self.submit_packed(jobs, self._packed[key][0], delay=delay)

    def renew(self) -> None:
        """Send functions as they are now, and where a module was loaded again, to workers that load it, too.

        For a pool that lives on while the program around it changes, in a notebook or after a reload.
        """
        self._packed.clear()
        code = loaded_code()
        is_changed = any(code.get(name) is not spec for name, spec in self._code.items())
        if is_changed or (len(self._numbers) > MOST_FUNCTIONS and not self.busy):
            self._generation += 1
            self._numbers.clear()
            if not self.busy:
                self._frames.clear()
        self._code = code

    def submit_packed(self, jobs: Sequence[Job], packed: Packed, *, delay: float = 0.0) -> None:
        """Take jobs whose function was packed elsewhere. Raises ExecutorFault for what cannot hold here."""
        if jobs[0].spec.memory is not None and not _memory.IS_POSSIBLE:
            raise ExecutorFault(
                f'{jobs[0].collection!r} has a limit of memory, which is watched through /proc, and this '
                'system has none',
                hint='leave memory= out, or run it on Linux',
            )
        number = self._number(jobs[0].spec, packed)
        work_items = [WorkItem(job, number, self._generation) for job in jobs]
        self._ask('submit', (work_items, delay))

    def _number(self, spec: CollectionSpec, packed: Packed) -> int:
        """Workers know each (task, function) by a number; the function's bytes go to each worker once."""
        key = (spec, packed.digest)
        if key not in self._numbers:
            number = self._numbers[key] = next(self._count)
            self._frames[number] = _worker_main.pack_frame('task', number, tuple(spec), *packed[1:])
        return self._numbers[key]

    def cancel(self, runs: Collection[str]) -> None:
        """Drop what is not begun; kill the workers that run the rest."""
        self._ask('cancel', set(runs))

    def unqueue(self, runs: Collection[str]) -> None:
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
        """End all workers. What is under way is killed and recovered by whoever looks next."""
        with self._guard:
            if self._closing:
                return
            self._closing = True
            thread = self._thread
        if thread is not None and thread is not threading.current_thread():
            self._wake()
            thread.join()
        for end in (self._wake_in, self._wake_out):
            fileops.close(end)
        self._scheduler.close()

    def _ask(self, what: str, about: Any) -> None:
        with self._guard:
            if self._fault is not None:
                raise ExecutorFault(f'the worker processes failed: {self._fault}') from self._fault
            if self._closing:
                if what != 'submit':
                    return
                raise ExecutorFault('the worker processes have been ended')
            if what == 'submit':
                self._tickets.update((work_item.job.run, work_item) for work_item in about[0])
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
            self._scheduler.discard()
        finally:
            with self._idle:
                self._idle.notify_all()
            if self._fault is not None:
                self._tell.failed(self._fault)

    def _turn(self) -> None:
        """One round: read what came, act on what was asked, look at the clocks, send, tell."""
        self._asleep = True
        ready = self._scheduler.select(wait=not (self._inbox or self._closing))
        self._asleep = False
        self._scheduler.hear(ready)
        while self._inbox:
            self._act(*self._inbox.popleft())
        self._scheduler.go_on()
        self._tell_results()

    def _resolve(self, run_result: RunResult) -> None:
        if self._tickets.pop(run_result.run, None) is not None or run_result.fresh:
            self._results.append(run_result)  # what was computed is told, even if it was given up before

    def _act(self, what: str, about: Any) -> None:
        if what == 'submit':
            self._scheduler.put(*about)
        elif what == 'cancel':
            self._scheduler.cancel(about, signal.SIGKILL)
        elif what == 'withdraw':
            self._scheduler.cancel(about, None)
        elif what == 'interrupt':
            self._scheduler.cancel(set(self._tickets), signal.SIGINT)

    def _drop(self, work_items: Sequence[WorkItem]) -> None:
        """Tickets that were not begun are not wanted any more."""
        if not work_items:
            return
        self._tell.dropped([work_item.job for work_item in work_items])
        for work_item in work_items:
            self._tickets.pop(work_item.job.run, None)
        self._tell_if_idle()

    def _tell_results(self) -> None:
        if self._results:
            try:
                self._tell.on_results(self._results)
            finally:
                self._results = []
            self._tell_if_idle()

    def _tell_if_idle(self) -> None:
        with self._idle:
            if not self.busy:
                self._idle.notify_all()
