"""The far end of a foreign executor: a chunk of jobs comes in, a worker on this machine runs it.

So a function that kills its process costs one resource and never a worker that is not ours, its
output is caught by descriptors, and timeouts hold. One worker is kept warm for each thread that hosts, while
chunks come: nobody tells a process that is not ours when a batch ends, so a worker that had nothing to do for
`IDLE` seconds is ended, and all end with the process that hosts them.
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
from ..locks import start_without_signals
from ..records import Job, RunResult
from .base import Listener, Packed
from .processes import WorkerPool

IDLE = 1.0  # seconds without a chunk after which a worker is ended; to start another costs a hundredth or two
BUDGET = 0.05  # seconds after which a chunk hands back what it has not begun


class Chunk(NamedTuple):
    """Some jobs of one collection, with their function."""

    jobs: list[Job]
    packed: Packed
    owner: str  # of the executor that sent it
    threads: int | None = None  # that numerical libraries may start; None: as many as there are processors


class ChunkResult(NamedTuple):
    """What came of a chunk: outcomes, the runs that were not begun, and those that somebody cancelled."""

    run_results: list[RunResult]
    unbegun: list[str]
    unwanted: list[str]


_Answer = tuple[list[RunResult], list[Job]] | BaseException


class _Host:
    """One thread's worker."""

    def __init__(self, threads: int | None) -> None:
        self.owner = ''
        self.idle_since: float | None = None  # None: it has a chunk
        self._answers: queue.SimpleQueue[_Answer] = queue.SimpleQueue()
        listener = Listener(
            on_results=lambda run_results: self._answers.put((run_results, [])),
            started=lambda jobs: None,
            dropped=lambda jobs: self._answers.put(([], jobs)),
            failed=lambda error: self._answers.put(error),
        )
        self.pool = WorkerPool(listener, 1, threads)

    def run(self, chunk: Chunk) -> ChunkResult:
        requested = cancel_requests(chunk.jobs[0].spec.base)
        unwanted = {job.run for job in chunk.jobs if (job.path, job.queued_at) in requested}
        jobs = [job for job in chunk.jobs if job.run not in unwanted]
        result = ChunkResult([], [], list(unwanted))
        open_runs = {job.run for job in jobs}
        if jobs:
            self.pool.submit_packed(jobs, chunk.packed)
        deadline: float | None = time.monotonic() + BUDGET
        while open_runs:
            try:
                wait = None if deadline is None else max(0.0, deadline - time.monotonic())
                answer = self._answers.get(timeout=wait)
            except queue.Empty:
                deadline = None
                self.pool.unqueue(open_runs)
                continue
            if isinstance(answer, BaseException):
                raise answer
            run_results, dropped = answer
            result.run_results.extend(run_results)
            result.unbegun.extend(job.run for job in dropped)
            open_runs.difference_update(run_result.run for run_result in run_results)
            open_runs.difference_update(job.run for job in dropped)
        return result

    def close(self) -> None:
        """End its worker; a thread that is waiting for it is told."""
        self.pool.close()
        self._answers.put(ExecutorFault('its worker process was ended'))


_hosts: dict[tuple[int, int, int | None], _Host] = {}  # by process, thread, and threads of its libraries
_guard = threading.Lock()
_changed = threading.Condition(_guard)
_watcher: threading.Thread | None = None


def run_chunk(chunk: Chunk) -> ChunkResult:
    """Carry out a chunk; called by the foreign executor, in whatever process and thread it likes."""
    key = (os.getpid(), threading.get_ident(), chunk.threads)
    with _guard:
        host = _hosts.get(key)
        if host is None:
            host = _hosts[key] = _Host(chunk.threads)
        host.owner, host.idle_since = chunk.owner, None
        _watch()
    try:
        result = host.run(chunk)
        host.idle_since = time.monotonic()
        return result
    except BaseException:  # its worker has failed, or cannot be started: the next chunk gets another
        with _guard:
            _hosts.pop(key, None)
        host.close()
        raise


def _watch() -> None:
    """Have somebody look after idle workers, as long as there are any. Called with the guard held."""
    global _watcher
    if _watcher is None:
        watcher = threading.Thread(target=_end_idle, name='hadrosaur-hosts', daemon=True)
        start_without_signals(watcher)
        _watcher = watcher


def _end_idle() -> None:
    global _watcher
    while True:
        with _guard:
            mine = {key: host for key, host in _hosts.items() if key[0] == os.getpid()}
            if not mine:
                _watcher = None
                return
            now = time.monotonic()
            late = [key for key, host in mine.items() if host.idle_since and now - host.idle_since >= IDLE]
            ended = [_hosts.pop(key) for key in late]
            if not ended:
                _changed.wait(IDLE / 4)
        for host in ended:
            host.close()


@atexit.register
def close_hosts(owner: str | None = None) -> None:
    """End the workers that this process hosts: all, or those that worked for an executor last."""
    with _guard:
        ended = [key for key, host in _hosts.items() if owner in (None, host.owner)]
        hosts = [_hosts.pop(key) for key in ended]
        watcher = _watcher if ended and not _hosts else None
        _changed.notify_all()
    if watcher is not None:
        watcher.join()
    for (process, *_), host in zip(ended, hosts, strict=True):
        if process == os.getpid():
            host.close()


def _in_child() -> None:
    global _guard, _changed, _watcher
    _guard = threading.Lock()
    _changed = threading.Condition(_guard)
    _watcher = None
    _hosts.clear()  # the parent's: their sockets are closed here


os.register_at_fork(after_in_child=_in_child)
