"""The caller's side of one worker process: its socket, its queue of jobs, its clock, its end."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
import time
from collections import deque

from .. import fileops
from ..errors import ExecutorUnavailable
from ..records import Job
from . import _worker_main, template

PREFETCH = 0.03  # seconds of work in a worker's queue
DEEPEST = 256  # jobs in a worker's queue at most
LONGEST_SETUP = 600.0  # seconds for the setup of a collection that has a timeout, if that is no longer
_TEMPLATES = 5  # that are tried for one worker: somebody may kill each, but they do not all end by themselves

_PROGRAM = (  # looks for modules where its caller does, from the first import on
    'import sys; sys.path[:] = sys.argv[2:]; '
    'from hadrosaur.executors._worker_main import main; main(int(sys.argv[1]))'
)


def _has_pidfd() -> bool:
    """Python may have it where the kernel, or a filter of what it may be asked, has not."""
    try:
        os.close(os.pidfd_open(os.getpid()))
    except (AttributeError, OSError):
        return False
    return True


HAS_PIDFD = _has_pidfd()
TELLS_ITS_END = template.IS_USED or HAS_PIDFD
"""Is there a descriptor that tells when a worker process has ended? Else it is looked for."""


class WorkItem:
    """A job on its way through the pool."""

    __slots__ = ('deaths', 'generation', 'is_cancelled', 'job', 'number')

    def __init__(self, job: Job, number: int, generation: int = 0) -> None:
        self.job = job
        self.generation = generation  # of the code it is to be computed by
        self.number = number  # of its task, as the workers know it
        self.deaths = 0
        self.is_cancelled = False  # and a worker has it: dropped when that says that it was not begun


class WorkerProcess:
    """The caller's side of one worker process; it has loaded code of one ``generation``."""

    def __init__(self, generation: int = 0, environment: dict[bytes, bytes] | None = None) -> None:
        self.generation = generation
        self.process, self.connection = _started(environment or {})
        self.queue: deque[WorkItem] = deque()
        self.buffer = bytearray()
        self.unsent = bytearray()
        self.head_since = time.monotonic()
        self.head_shown = False  # 'running' was told of the head
        self.loading = 0  # functions that it was sent and has not loaded yet
        self.is_preparing = False  # its head is calling the collection's setup
        self.known: set[int] = set()
        self.mean_run_time = 0.0  # seconds per job, lately
        self.kill_reason: tuple[str, str] | None = None  # (error type, reason), if it is we who kill it
        self.peak: int | None = None  # bytes that the run took which was killed for that
        self.condemned = ''  # the run that it is killed for
        self.kill_at: float | None = None  # when it was interrupted, and does not end by itself
        fileops.close_in_children(self.connection)
        self.end_fd = -1  # readable when the process has ended
        try:
            self.end_fd = _end_fd(self.process)
        except OSError:  # too many open files
            self.discard()
            raise
        self.send([_worker_main.pack_frame('setup', [str(word) for word in getattr(sys, 'argv', ())])])

    def send(self, frames: list[bytes]) -> None:
        """Send frames, without waiting: a worker reads only between two jobs, and may hang in one."""
        self.unsent += b''.join(frames)
        self.send_on()

    def send_on(self) -> None:
        """Send what is unsent, as far as it goes; a worker that is gone is noticed by its death, not here."""
        try:
            while self.unsent:
                del self.unsent[: self.connection.send(self.unsent, socket.MSG_DONTWAIT)]
        except BlockingIOError:
            return
        except OSError:
            self.unsent.clear()

    def can_prefetch(self) -> bool:
        """Does it have less than `AHEAD` seconds of work?"""
        if self.kill_reason:
            return False
        if not self.queue:
            return True
        if not self.mean_run_time or self.head_shown:  # nobody knows how long its head will take
            return False
        return len(self.queue) < min(DEEPEST, 1 + int(PREFETCH / self.mean_run_time))

    def start_head(self) -> None:
        """The next in the queue is running from now on."""
        self.head_since = time.monotonic()
        self.head_shown = False

    def head_age(self, now: float) -> float:
        """Seconds that the head has been running; loading its function does not count."""
        return 0.0 if self.loading or not self.queue else now - self.head_since

    def limit(self) -> float | None:
        """Seconds that what the head does now may take; a setup has more time than a run."""
        timeout = self.queue[0].job.spec.timeout
        return max(timeout, LONGEST_SETUP) if timeout and self.is_preparing else timeout

    def note_pace(self, seconds: float, answers: int) -> None:
        """Learn from answers that came together how long a job takes (moving average)."""
        took = max(1e-5, seconds / answers)
        self.mean_run_time = took if not self.mean_run_time else 0.7 * self.mean_run_time + 0.3 * took

    def kill(self, number: int = signal.SIGKILL) -> None:
        """Signal its whole process group: what the function started goes with it."""
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self.process.pid, number)

    def last_words(self) -> tuple[bytes, bytes]:
        """What it had printed of lines that it did not end: for stdout.log and stderr.log."""
        words = self.process.last_words if isinstance(self.process, template.ForkedProcess) else None
        return words.read() if words is not None else (b'', b'')

    def close_after_fork(self) -> None:
        """Ask it to end as a program ends: with its exit handlers, and what it has buffered written."""
        with contextlib.suppress(OSError):
            self.connection.shutdown(socket.SHUT_WR)

    def discard(self, patience: float = 0.0) -> None:
        """Give back descriptors and the process's entry in the kernel's table.

        It is killed, with what it started, where it has not ended by itself after ``patience`` seconds.
        """
        try:
            self.process.wait(patience)
        except subprocess.TimeoutExpired:
            self.kill()
            self.process.wait()
        fileops.close(self.connection)
        if isinstance(self.process, template.ForkedProcess):
            self.process.close()
        elif self.end_fd >= 0:
            os.close(self.end_fd)


def _end_fd(process: template.ForkedProcess | subprocess.Popen[bytes]) -> int:
    if isinstance(process, template.ForkedProcess):
        return process.fileno()
    return os.pidfd_open(process.pid) if HAS_PIDFD else -1


def _started(
    environment: dict[bytes, bytes],
) -> tuple[template.ForkedProcess | subprocess.Popen[bytes], socket.socket]:
    """The process and our end of the connection; where it cannot be started, neither end is left."""
    for tries_left in reversed(range(_TEMPLATES)):
        # Each has a connection of its own: a worker that was forked, but not told of before its template was
        # killed, ends with its connection, and reads nothing that is meant for the next.
        ours, theirs = socket.socketpair()
        try:
            with theirs:
                start = template.fork_worker if template.IS_USED else _executed
                return start(theirs, environment), ours
        except BaseException as error:
            ours.close()
            if not tries_left or not isinstance(error, template.TemplateError):
                raise
    raise AssertionError('unreachable')


def _executed(theirs: socket.socket, environment: dict[bytes, bytes]) -> subprocess.Popen[bytes]:
    """A worker that is a new interpreter, where forking one that is warm is not safe."""
    # Python's own multiprocessing starts its processes with the same options, by the same function.
    python = [sys.executable, *subprocess._args_from_interpreter_flags()]  # type: ignore[attr-defined]
    return subprocess.Popen(
        [*python, '-c', _PROGRAM, str(theirs.fileno()), *template.search_path()],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=None if _is_inherited(2) else subprocess.DEVNULL,
        pass_fds=(theirs.fileno(),),
        start_new_session=True,
        env={**os.environb, **environment},
    )


def _is_inherited(descriptor: int) -> bool:
    try:
        return os.get_inheritable(descriptor)
    except OSError:  # a daemon may run with it closed
        return False


def require_python() -> None:
    """Raises ExecutorUnavailable where there is no Python to be started, as in a program that was frozen."""
    if getattr(sys, 'frozen', False) or not sys.executable or not os.access(sys.executable, os.X_OK):
        raise ExecutorUnavailable(
            f'worker processes are started with sys.executable, and {sys.executable!r} is no Python',
            hint="executor='threads' and executor='inline' need none",
        )


def how_it_died(code: int | None) -> str:
    """What an exit code says, in words."""
    if code is not None and code < 0:
        try:
            name = signal.Signals(-code).name
        except ValueError:
            name = f'signal {-code}'
        return f'the process that computed it was killed by {name}'
    if not code:  # Popen says 0 too where it was not there to be waited for
        return 'the process that computed it ended, with status 0 or one that your program collected itself'
    return f'the process that computed it exited with status {code}'
