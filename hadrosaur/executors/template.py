"""The template process: it has imported what every worker needs, and forks the workers.

An interpreter that starts and imports the package costs 50 to 200 ms of processor time; a fork of one
that has done so costs a few. So each program that needs workers has one template, started with the
first of them. It holds no code of the user's and has a single thread, which makes forking it safe where
forking the program itself would not be.

What a program may have changed since its template was started travels with each request: environment,
module search path, current folder, umask, limits, processors. What only a new interpreter would notice
(another user id, `LD_*` or `PYTHON*` variables, a locale) makes a new template.

A worker is the template's child and not the program's, so the template collects it and tells its exit
status through a pipe of its own; the pipe's end is how a death is noticed. The template ends with its
program, or some seconds after its last worker. Where forking is not safe (macOS) workers are started
as new interpreters instead; see `worker`.
"""

from __future__ import annotations

import atexit
import contextlib
import gc
import importlib
import marshal
import os
import select
import signal
import socket
import struct
import subprocess
import sys
import threading
import time
from typing import Any

from .. import capture, fileops, unfinished_line
from ..unfinished_line import LastWords

IS_USED = sys.platform == 'linux' and hasattr(socket, 'send_fds') and unfinished_line.IS_POSSIBLE
"""Is forking a process that has only imported modules safe here?"""

IDLE = 5.0  # seconds without a worker, after which a template ends
_ANSWERS_WITHIN = 60.0  # seconds that only a template that is stopped or broken takes to fork
_HEADER = struct.Struct('!I')
_STATUS = struct.Struct('!i')
_PARENT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
_PROGRAM = (  # looks for modules where its program does, from the first import on
    'import sys; sys.path[:] = sys.argv[2:]; '
    'from hadrosaur.executors.template import main; main(int(sys.argv[1]))'
)
_AT_START = ('LD_', 'PYTHON', 'LC_', 'LANG', 'MALLOC_', 'GLIBC_', 'ASAN_')
"""Environment variables with these prefixes are looked at only when a process starts."""
_WARM = (
    'hadrosaur.executors._worker_main',
    'hadrosaur.executors._function_source',
    'hadrosaur.fingerprint',
    'cloudpickle',
    'logging',
    'traceback',
    'inspect',
    'tempfile',
)


class TemplateError(OSError):
    """A template that does not fork: it cannot be started, or it has ended."""


# --- the program's side ------------------------------------------------------------------------------


class ForkedProcess:
    """A worker, as its program sees it: what `subprocess.Popen` would be if it were our child.

    Attributes:
        pid: Its process id, which is also that of its process group and session.
        returncode: Its exit code, minus the signal's number where one killed it; None while it runs.
    """

    def __init__(self, pid: int, status: Any, last_words: LastWords | None) -> None:
        self.pid = pid
        self.last_words = last_words
        self.returncode: int | None = None
        self._status = status  # the reading end of the pipe that tells how it ended
        self._read = b''

    def fileno(self) -> int:
        """A descriptor that is readable when the process has ended; `close` gives it back."""
        return int(self._status.fileno())

    def poll(self) -> int | None:
        """Its exit code, None while it runs."""
        if self.returncode is None and select.select([self._status], [], [], 0)[0]:
            self._note(os.read(self._status.fileno(), _STATUS.size - len(self._read)))
        return self.returncode

    def wait(self, timeout: float | None = None) -> int:
        """Its exit code, once it has ended. Raises subprocess.TimeoutExpired after so many seconds."""
        while self.returncode is None:
            if not select.select([self._status], [], [], timeout)[0]:
                raise subprocess.TimeoutExpired('a worker', timeout or 0.0)
            self.poll()
        return self.returncode

    def _note(self, data: bytes) -> None:
        self._read += data
        if not data:  # the template is gone, and with it whoever could tell
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(self.pid, signal.SIGKILL)
            self.returncode = -signal.SIGKILL
        elif len(self._read) == _STATUS.size:
            (self.returncode,) = _STATUS.unpack(self._read)

    def close(self) -> None:
        """Give the descriptor back; the process may go on."""
        fileops.close(self._status)
        if self.last_words is not None:
            self.last_words.close()


class _Template:
    """The program's end of its template."""

    def __init__(self, key: Any) -> None:
        self.key = key
        self._control, theirs = socket.socketpair()
        # Python's own multiprocessing starts its processes with the same options, by the same function.
        python = [sys.executable, *subprocess._args_from_interpreter_flags()]  # type: ignore[attr-defined]
        try:
            with theirs:
                self._process = subprocess.Popen(
                    [*python, '-c', _PROGRAM, str(theirs.fileno()), *search_path()],
                    stdin=subprocess.DEVNULL,
                    stdout=subprocess.DEVNULL,
                    stderr=subprocess.DEVNULL,
                    pass_fds=(theirs.fileno(),),
                    start_new_session=True,
                )
        except BaseException:
            self._control.close()
            raise
        fileops.close_in_children(self._control)
        self._control.settimeout(_ANSWERS_WITHIN)

    def fork(self, connection: socket.socket, environment: dict[bytes, bytes]) -> ForkedProcess:
        """A new worker at the other end of ``connection``. Raises TemplateError."""
        state = _state_of_this_process(environment)
        reading, writing = os.pipe2(os.O_CLOEXEC)
        home = words = -1
        status = open(reading, 'rb', buffering=0)  # noqa: SIM115
        try:
            home = os.open('.', fileops.LOOK)
            with contextlib.suppress(OSError):  # files may not be so long here (RLIMIT_FSIZE)
                words = unfinished_line.create()
            last_words = LastWords(words) if words >= 0 else None
            data = marshal.dumps({**state, 'words': words >= 0})
            fds = [connection.fileno(), writing, home, words if words >= 0 else home]
            socket.send_fds(self._control, [_HEADER.pack(len(data))], fds)
            self._control.sendall(data)
            pid, number = struct.unpack('!ii', _receive(self._control, 8))
        except (OSError, EOFError) as error:
            status.close()
            raise TemplateError(f'the process that forks workers has ended: {error}') from error
        except BaseException:  # Ctrl-C between question and answer: the next one must not get this answer
            status.close()
            self.end()
            raise
        finally:
            for fd in (writing, home, words):
                if fd >= 0:
                    os.close(fd)
        if number:
            status.close()
            raise OSError(number, f'a worker process cannot be started: {os.strerror(number)}')
        fileops.close_in_children(status)
        return ForkedProcess(pid, status, last_words)

    def end(self) -> None:
        """Let it end, once its workers have."""
        fileops.close(self._control)
        _ended.append(self._process)  # collected when it has ended


_ended: list[subprocess.Popen[bytes]] = []
_guard = threading.Lock()
_mine: _Template | None = None


def fork_worker(connection: socket.socket, environment: dict[bytes, bytes]) -> ForkedProcess:
    """A new worker process at the other end of ``connection``, an end of a socket pair.

    ``environment``: variables that it has besides ours.

    Raises TemplateError where the template has ended meanwhile, idle or killed: the next call has another,
    and is to bring another connection. Raises OSError where no worker can be started.
    """
    global _mine
    with _guard:
        _ended[:] = [process for process in _ended if process.poll() is None]
        key = _key_of_this_process()
        if _mine is not None and _mine.key != key:
            _drop()
        if _mine is None:
            _mine = _Template(key)
        try:
            return _mine.fork(connection, environment)
        except TemplateError:
            _drop()
            raise


def _drop() -> None:
    global _mine
    if _mine is not None:
        _mine.end()
        _mine = None


@atexit.register
def _at_exit() -> None:
    """Let the template end before the program does. Popen would warn of one that still has a worker."""
    _drop()
    for process in _ended:
        try:
            process.wait(1.0)
        except subprocess.TimeoutExpired:
            process.returncode = 0


def _in_child() -> None:
    global _guard, _mine
    _guard, _mine = threading.Lock(), None  # its socket is closed by `diskio`
    _ended.clear()


os.register_at_fork(after_in_child=_in_child)


def search_path() -> list[str]:
    """Where this program looks for modules, and where this package is."""
    return [entry for entry in sys.path if isinstance(entry, str)] + [_PARENT]


def _key_of_this_process() -> Any:
    """What a running template cannot change in a worker."""
    variables = sorted(item for item in os.environ.items() if item[0].startswith(_AT_START))
    return (sys.executable, os.getresuid(), os.getresgid(), os.getgroups(), variables)


def _state_of_this_process(environment: dict[bytes, bytes]) -> dict[str, Any]:
    """What a worker takes over from its program, as it is at this moment."""
    import resource

    limits = {name: getattr(resource, name) for name in dir(resource) if name.startswith('RLIMIT_')}
    return {
        'environ': {**os.environb, **environment},
        'path': search_path(),
        'umask': _umask(),
        'limits': [(number, *resource.getrlimit(number)) for number in set(limits.values())],
        'processors': list(os.sched_getaffinity(0)),
        'nice': os.getpriority(os.PRIO_PROCESS, 0),
    }


def _umask() -> int | None:
    """The umask, which can otherwise only be asked for by setting it."""
    try:
        with open('/proc/self/status', 'rb') as status:
            return int(status.read().split(b'\nUmask:', 1)[1].split(None, 1)[0], 8)
    except (OSError, IndexError, ValueError):
        return None


def _receive(connection: socket.socket, length: int) -> bytes:
    data = b''
    while len(data) < length:
        part = connection.recv(length - len(data))
        if not part:
            raise EOFError('no answer')
        data += part
    return data


# --- the template's side -----------------------------------------------------------------------------


def main(descriptor: int) -> None:
    """Be a template on an inherited socket; in each fork of it, be a worker."""
    for module in _WARM:
        with contextlib.suppress(ImportError):
            importlib.import_module(module)
    capture.flush_c()  # which each run does, and which loads `ctypes` the first time
    fds = _serve(socket.socket(fileno=descriptor))
    if fds is None:
        os._exit(0)  # nothing of ours is to be flushed or finalised
    from . import _worker_main

    _worker_main.main(*fds)


def _serve(control: socket.socket) -> tuple[int, int] | None:
    """Fork workers. Returns in each of them the descriptors that `_slot.main` takes, in the template None."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    heard, told = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
    signal.set_wakeup_fd(told, warn_on_full_buffer=False)
    signal.signal(signal.SIGCHLD, lambda number, frame: None)
    signal.pthread_sigmask(signal.SIG_SETMASK, ())  # started by a thread that takes no signals
    control.set_inheritable(False)
    workers: dict[int, int] = {}  # process id: the descriptor that its end is written to
    sources, idle_since = [control.fileno(), heard], time.monotonic()
    gc.collect()
    gc.freeze()  # what is never looked at is never copied
    while True:
        _collect(workers)
        if workers:
            idle_since = time.monotonic()
        elif len(sources) == 1 or time.monotonic() - idle_since >= IDLE:
            return None
        ready, _, _ = select.select(sources, [], [], None if workers else IDLE)
        with contextlib.suppress(BlockingIOError):
            os.read(heard, 4096)
        if control.fileno() in ready:
            request = _next_request(control)
            if request is None:  # the program is gone, or has another: stay until the workers are collected
                sources.remove(control.fileno())
                continue
            fds = _fork(control, workers, (heard, told), *request)
            if fds is not None:
                return fds


def _next_request(control: socket.socket) -> tuple[dict[str, Any], list[int]] | None:
    try:
        data, fds, _, _ = socket.recv_fds(control, _HEADER.size, 4)
        data += _receive(control, _HEADER.size - len(data)) if data else b''
        if not data:
            return None
        return marshal.loads(_receive(control, _HEADER.unpack(data)[0])), fds
    except (OSError, EOFError):
        return None


def _fork(
    control: socket.socket,
    workers: dict[int, int],
    own: tuple[int, int],
    state: dict[str, Any],
    fds: list[int],
) -> tuple[int, int] | None:
    """Fork; in the worker, after it has become one: its connection, and the memory for its last words."""
    connection, status, home, words = fds
    reading, writing = os.pipe2(os.O_CLOEXEC)
    try:
        pid = os.fork()
    except OSError as error:
        control.sendall(struct.pack('!ii', 0, error.errno or 1))
        for fd in (*fds, reading, writing):
            os.close(fd)
        return None
    if pid == 0:
        try:
            os.setsid()
            signal.set_wakeup_fd(-1)
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            for fd in (control.detach(), *own, status, reading, writing, *workers.values()):
                os.close(fd)
            _take_over(state, home)
            return connection, words if state['words'] else -1
        except BaseException:
            os._exit(1)
    for fd in (connection, home, words, writing):
        os.close(fd)
    os.read(reading, 1)  # until it is the head of a group of its own, which can be signalled
    os.close(reading)
    workers[pid] = status
    with contextlib.suppress(OSError):
        control.sendall(struct.pack('!ii', pid, 0))
    return None


def _take_over(state: dict[str, Any], home: int) -> None:
    """Make a worker what its program is now."""
    import resource

    os.environ.clear()
    os.environb.update(state['environ'])
    time.tzset()
    sys.path[:] = state['path']
    importlib.invalidate_caches()
    with contextlib.suppress(OSError):
        os.fchdir(home)
    os.close(home)
    if state['umask'] is not None:
        os.umask(state['umask'])
    with contextlib.suppress(OSError):
        os.sched_setaffinity(0, state['processors'])
    with contextlib.suppress(OSError):
        os.setpriority(os.PRIO_PROCESS, 0, state['nice'])
    for number, soft, hard in state['limits']:
        with contextlib.suppress(OSError, ValueError):
            resource.setrlimit(number, (soft, hard))


def _collect(workers: dict[int, int]) -> None:
    """Tell of each worker that has ended how it did."""
    while workers:
        try:
            pid, status = os.waitpid(-1, os.WNOHANG)
        except ChildProcessError:
            return
        if not pid:
            return
        fd = workers.pop(pid, None)
        if fd is not None:
            with contextlib.suppress(OSError):
                os.write(fd, _STATUS.pack(os.waitstatus_to_exitcode(status)))
            os.close(fd)
