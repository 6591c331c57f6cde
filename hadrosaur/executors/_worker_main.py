"""The worker program: one process that carries out one job at a time, until its caller is gone.

Frames go both ways over one socket: four bytes of length, then `marshal` (the same interpreter stands
at both ends, and it is four times as fast as pickle). The caller sends ``setup``, ``task``, ``job``
and ``revoke``; the worker answers ``loaded`` (a function is there, its jobs' clocks may start),
``outcome``, ``skipped`` (a job that was revoked in time), and ``retire`` (no more jobs, please: a
function left something that cannot be put back).

The worker has one thread, so it looks into the socket only between jobs. That is enough: a worker
that hangs is killed, and a job that is revoked too late meets the lock and the run id.
"""

from __future__ import annotations

import contextlib
import faulthandler
import marshal
import os
import pickle
import signal
import socket
import struct
import sys
from collections import deque
from typing import TYPE_CHECKING, Any

from .. import capture, compute, context, fileops, stack_dump
from ..not_started import Unloadable
from ..records import CollectionSpec, Entry, Job, RunResult
from ..unfinished_line import LastWords
from . import _memory, _settings
from ._worker_exit import Leaving
from .worker_state import WorkerState

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

LENGTH = struct.Struct('!I')
_CHUNK = 1 << 18  # bytes per reading of the socket; some thousand jobs


def pack_frame(*parts: Any) -> bytes:
    """One frame: length, then the marshalled tuple of ``parts``."""
    data = marshal.dumps(parts)
    return LENGTH.pack(len(data)) + data


def unpack_frames(buffer: bytearray) -> Iterator[tuple[Any, ...]]:
    """The whole frames at the front of ``buffer``, which is shortened by them."""
    start = 0
    try:
        while len(buffer) - start >= LENGTH.size:
            (length,) = LENGTH.unpack_from(buffer, start)
            end = start + LENGTH.size + length
            if len(buffer) < end:
                break
            frame: tuple[Any, ...] = marshal.loads(memoryview(buffer)[start + LENGTH.size : end])
            start = end
            yield frame
    finally:
        del buffer[:start]


def pack_run_result(run_result: RunResult) -> tuple[Any, ...]:
    """An outcome as plain tuples."""
    nested = tuple(map(tuple, run_result.nested))
    result = run_result.result
    if result is not None and len(result) > compute.RESULT_CARRIED:
        result = None
    ending = (run_result.not_started, run_result.traceback, run_result.later, run_result.is_wanted)
    return (run_result.run, tuple(run_result.entry), result, run_result.fresh, nested, *ending)


def unpack_outcome(parts: tuple[Any, ...]) -> RunResult:
    """What `pack_outcome` packed."""
    run, entry, result, fresh, nested, *ending = parts
    not_started, traceback, later, is_wanted = ending
    told = (None, not_started, traceback, None, later, is_wanted)
    return RunResult(run, Entry(entry), result, fresh, tuple(map(Entry, nested)), *told)


class WorkerMain:
    """The loop of the worker."""

    def __init__(self, connection: socket.socket) -> None:
        self._connection = connection
        self._buffer = bytearray()
        self._orders: deque[tuple[int, tuple[Any, ...]]] = deque()
        self._tasks: dict[int, tuple[CollectionSpec, Callable[..., Any]]] = {}
        self._state = WorkerState()
        self._runs = 0
        self._after_first = 0  # bytes that this process took after its first run
        self._is_spoiled = False  # a function has left something that cannot be put back

    def serve(self) -> None:
        """Carry out what comes, until the caller is gone or this worker has to retire."""
        compute.keep_state, compute.keep_setup = self._keep_state, self._keep_setup
        while self._receive(wait=not self._orders):
            if not self._orders:
                continue
            number, fields = self._orders.popleft()
            spec, function = self._tasks[number]
            most = spec.runs_per_worker or self._runs + 2
            if self._runs < most:  # else another process is to have it
                run_result = compute.carry_out(Job(spec, *fields), function)
                self._runs += run_result.fresh
                self._send('outcome', pack_run_result(run_result))
                self._is_spoiled |= spec.memory is not None and self._is_full(spec.memory)
            if self._is_spoiled or self._runs >= most:
                self._send('retire')
                return

    def _is_full(self, limit: int) -> bool:
        """Have the runs, the first one aside, left so much behind that the next might be blamed for it?"""
        taken = _memory.resident()
        self._after_first = self._after_first or taken
        return taken > max(limit // 2, self._after_first + limit // 8)

    def forget_functions(self) -> None:
        """Hold nothing of the user's any more."""
        self._tasks.clear()
        self._state = WorkerState()

    def _keep_state(self, is_nested: bool) -> Callable[[], object]:
        state = WorkerState() if is_nested else self._state

        def put_back() -> None:
            self._is_spoiled |= bool(state.put_back())
            if is_nested:
                state.close()

        return put_back

    def _keep_setup(self, is_nested: bool) -> Callable[[], object]:
        """What a setup changes stays for the runs after it; one that a run fetches is a part of that run."""
        if is_nested:
            return compute._nothing
        self._send('preparing')

        def keep() -> None:
            self._state.close()
            self._state = WorkerState()
            self._send('prepared')

        return keep

    def _receive(self, *, wait: bool) -> bool:
        """Take in what the caller has sent; False when it is gone."""
        try:
            data = self._connection.recv(_CHUNK, 0 if wait else socket.MSG_DONTWAIT)
        except BlockingIOError:
            return True
        except OSError:
            return False
        if not data:
            return False
        self._buffer += data
        for kind, *parts in unpack_frames(self._buffer):
            self._take(kind, parts)
        return True

    def _take(self, kind: str, parts: list[Any]) -> None:
        if kind == 'order':
            self._orders.append((parts[0], parts[1]))
        elif kind == 'revoke':
            self._revoke(*parts)
        elif kind == 'task':
            self._load(*parts)
        elif kind == 'setup':
            sys.argv[:] = parts[0]  # a module that looks at it sees what it sees in the caller

    def _revoke(self, runs: list[str], is_answered: bool) -> None:
        """Forget jobs that came before this. What was revoked once may be sent again later."""
        revoked, jobs = set(runs), self._orders
        self._orders = deque(job for job in jobs if job[1][0] not in revoked)
        if is_answered:
            for _, (run, *_) in jobs:
                if run in revoked:
                    self._send('skipped', run)

    def _load(
        self, number: int, fields: tuple[Any, ...], payload: bytes, path: list[str], settings: dict[str, Any]
    ) -> None:
        """Unpickle a function. Where it cannot be loaded, none of its resources is begun."""
        spec = CollectionSpec(*fields)
        context.bases[spec.base_given] = spec.base
        sys.path.extend(entry for entry in path if entry not in sys.path and os.path.isdir(entry))
        _settings.take_over(settings)
        try:
            function = pickle.loads(payload)  # which imports cloudpickle where the function needs it
        except BaseException as error:  # the user's modules are run here and may raise anything
            function = Unloadable.of(error)
        _log_to_stderr()
        self._tasks[number] = (spec, function)
        self._state.before()
        self._send('loaded')

    def _send(self, *parts: Any) -> None:
        with contextlib.suppress(OSError):  # the caller is gone: the files are final, that is enough
            self._connection.sendall(pack_frame(*parts))


def _log_to_stderr() -> None:
    """Where nothing sets up logging, records from INFO up go to stderr.log.

    Through logging's last resort, and not by a handler at the root: with one, `logging.basicConfig` in a
    function would do nothing.
    """
    import logging

    if not logging.root.handlers:
        last = context.stderr_handler('%(levelname)s:%(name)s:%(message)s')
        last.setLevel(logging.INFO)
        logging.lastResort = last
        logging.root.setLevel(logging.INFO)


def _on_interrupt(_signal: int, _frame: Any) -> None:
    if context.current() is not None:
        raise KeyboardInterrupt


def main(descriptor: int, last_words: int = -1) -> None:
    """Serve an inherited socket. ``last_words``: a descriptor of the memory for unfinished lines."""
    leaving = Leaving()
    context.in_worker = True
    capture.in_worker(LastWords(last_words) if last_words >= 0 else None)
    signal.signal(signal.SIGINT, _on_interrupt)
    signal.pthread_sigmask(signal.SIG_SETMASK, ())  # started by a thread that takes no signals
    connection = socket.socket(fileno=descriptor)
    os.set_inheritable(descriptor, False)
    fileops.close_in_children(connection)
    sys.stdin = open(os.devnull)  # noqa: SIM115
    stack_dump.listen()
    faulthandler.enable()  # to descriptor 2: a crash explains itself in its resource's stderr.log
    worker = WorkerMain(connection)
    worker._receive(wait=True)
    # What goes wrong before this line is seen on the terminal; afterwards nothing of ours is, and
    # whoever waits for the end of the caller's stderr need not wait for us.
    with open(os.devnull, 'wb') as nowhere:
        os.dup2(nowhere.fileno(), 2)
    worker.serve()
    worker.forget_functions()
    leaving.end()
    # Returning is the end of a program like any other: its exit handlers run, what it buffered is written.
