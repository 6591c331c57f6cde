"""Capture the standard output and error of one function call in two files, while it runs.

There are two ways; record.json names the one that was used:

* ``descriptors``: descriptors 1 and 2 of the process point to the logs during the call, so that subprocesses,
  ``os.write(1, …)`` and C code are captured. This takes the output of every thread, so it is used only if the
  process does nothing else.
* ``streams``: ``sys.stdout`` and ``sys.stderr`` are routers that find the log by the caller's context. Calls
  in several threads stay apart, and threads that a function starts belong to it. Output that does not go
  through these two names is not captured: that of subprocesses and C code, and of handlers and streams that
  were taken before the call.

`choose` exists because, in a test, capturing descriptors with other threads alive swallowed 168 lines of an
unrelated thread.

In a worker (`in_worker`), threads that a function leaves behind go on writing to the log of their own
resource; only what bypasses Python's streams goes to a later resource's log.
"""

from __future__ import annotations

import contextlib
import contextvars
import errno
import functools
import io
import os
import sys
import threading
import warnings
import weakref
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, TextIO, cast, get_args

from . import fileops
from .locks import has_other_threads

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from .unfinished_line import LastWords

Way = Literal['auto', 'descriptors', 'streams', 'off']
WAYS = get_args(Way)


def choose(wanted: str) -> str:
    """Return the way to capture: 'auto' means descriptors if no other thread could print.

    Threads of ours print nothing and do not count.
    """
    if wanted != 'auto':
        return wanted
    if threading.current_thread() is not threading.main_thread():
        return 'streams'
    alone = threading.active_count() == 1 or not has_other_threads()
    return 'descriptors' if alone else 'streams'


def capturing(way: str, logs: tuple[int, int]) -> contextlib.AbstractContextManager[None]:
    """Within it, output goes to ``logs``: descriptors of stdout.log and stderr.log, open for appending."""
    if way == 'descriptors':
        return _Descriptors(logs)
    if way == 'streams':
        return _streams(logs)
    return contextlib.nullcontext()


class _Direct(io.BufferedWriter):
    """An unbuffered file that completes partial writes."""

    def write(self, data: Any) -> int:
        written = super().write(data)
        self.flush()
        return written


class _Lines(io.TextIOWrapper):
    """A line-buffered text stream, for ``tail -f``; never raises because of its text."""

    def __init__(self, fd: int, position: int, *, closefd: bool = False) -> None:
        raw = io.FileIO(fd, 'w', closefd=closefd)
        super().__init__(_Direct(raw), 'utf-8', 'backslashreplace', line_buffering=True)
        self._position = position
        self._goes_at_once = bool(os.environ.get('PYTHONUNBUFFERED'))

    def write(self, text: str) -> int:
        written = super().write(text)
        if '\n' in text or '\r' in text:
            if _last_words is not None:
                _last_words.clear(self._position)
        elif self._goes_at_once and not _is_child and threading.active_count() == 1:
            self.flush()  # as is asked for; among several, whole lines matter more
        elif _last_words is not None and not _last_words.add(self._position, text):
            self.flush()
        return written

    def flush(self) -> None:
        super().flush()
        if _last_words is not None:
            _last_words.clear(self._position)

    def lead_elsewhere(self, fd: int) -> None:
        """Write to another descriptor from now on, which then belongs to the stream."""
        self.flush()
        raw = cast('Any', self.buffer).raw
        raw.__init__(fd, 'w', closefd=True)  # which lets go of the one before, that it does not own

    def is_as_made(self) -> bool:
        """Whether the stream can be reused: the function has not reconfigured, closed or detached it."""
        is_plain = vars(self).keys() <= _OWN
        return (
            is_plain and self.line_buffering and (self.encoding, self.errors) == ('utf-8', 'backslashreplace')
        )


_OWN = frozenset({'mode', '_position', '_goes_at_once'})  # what a stream of ours has as it was made
_last_words: LastWords | None = None
_in_worker = _is_child = False


def in_worker(last_words: LastWords | None) -> None:
    """Switch to the behaviour of a worker: threads that a function starts belong to its resource for good.

    Args:
        last_words: Memory for unfinished lines, which the caller reads if the worker dies.
    """
    global _last_words, _in_worker, _is_child
    _last_words, _in_worker, _is_child = last_words, True, False
    _carry_contexts()


def _in_child() -> None:
    """After a fork inside a function: stop writing to the memory that is shared with the parent."""
    global _last_words, _is_child
    _last_words, _is_child = None, True


os.register_at_fork(after_in_child=_in_child)


# --- descriptors -----------------------------------------------------------------------------------

_ours: list[_Lines] = []  # streams on descriptors 1 and 2, made once per process (8 µs a pair)
_left_alive: list[weakref.ref[threading.Thread]] = []  # threads that functions have left in this worker


class _Descriptors:
    """Point descriptors 1 and 2 to the logs, and restore them afterwards."""

    __slots__ = (
        '_logs', '_mine', '_originals', '_running', '_saved', '_stdio', '_token', '_warnings',
    )  # fmt: skip

    def __init__(self, logs: tuple[int, int]) -> None:
        self._logs = logs

    def __enter__(self) -> None:
        self._stdio = _standing()
        _flush(*self._stdio)
        flush_c()
        first = _duplicate(1)
        try:
            self._saved = (first, _duplicate(2))
        except OSError:  # too many open files
            if first is not None:
                os.close(first)
            raise
        self._mine = _Owner(self._streams())
        self._running = threading.enumerate() if _in_worker and threading.active_count() > 1 else ()
        self._token = _logs_here.set(self._mine) if _in_worker else None
        if _last_words is not None:
            _last_words.begin()
        self._originals = [router.original for router in _routers]
        # Before the descriptors lead to the logs: else a thread that stays could print into them.
        sys.stdout, sys.stderr = cast('tuple[TextIO, TextIO]', self._routed())
        self._lead_to_logs()
        # Entering it forgets which warnings were shown, so that each resource's log has its own.
        self._warnings = warnings.catch_warnings()
        self._warnings.__enter__()

    def _streams(self) -> tuple[_Lines, ...]:
        """Return the streams of the last run if they are free and unchanged; a nested run gets its own."""
        if _logs_here.get() or not {*map(id, _ours)}.isdisjoint(map(id, self._stdio)):
            return (_Lines(1, 0), _Lines(2, 1))
        if not _ours or not all(stream.is_as_made() for stream in _ours):
            _ours[:] = [_Lines(1, 0), _Lines(2, 1)]
        return tuple(_ours)

    def _lead_to_logs(self) -> None:
        os.dup2(self._logs[0], 1)
        os.dup2(self._logs[1], 2)

    def _routed(self) -> tuple[Any, Any]:
        """Return our streams, behind routers if a thread of an earlier resource could print."""
        if not _in_worker or not _left_alive:
            return self._mine.streams
        _left_alive[:] = [known for known in _left_alive if (thread := known()) and thread.is_alive()]
        if not _left_alive:
            return self._mine.streams
        for router, stream in zip(_routers, self._mine.streams, strict=True):
            router.original = stream
        return _routers

    def __exit__(self, *_: object) -> None:
        self._warnings.__exit__(None, None, None)
        if not _flush(*_standing(), *self._mine.streams):  # the function may have closed 1 or 2
            with contextlib.suppress(OSError):
                self._lead_to_logs()
            if not _flush(*self._mine.streams):
                _ours.clear()
        flush_c()
        if _last_words is not None:
            _last_words.end()
        if self._token is not None:
            _logs_here.reset(self._token)
            self._let_threads_go_on()
        sys.stdout, sys.stderr = cast('tuple[TextIO, TextIO]', self._put_back())
        for fd, saved in zip((1, 2), self._saved, strict=True):
            if saved is None:
                with contextlib.suppress(OSError):
                    os.close(fd)
            else:
                os.dup2(saved, fd)
                os.close(saved)

    def _put_back(self) -> tuple[Any, Any]:
        """Restore the previous streams, behind the routers if threads that may print have stayed."""
        for router, before, standing in zip(_routers, self._originals, self._stdio, strict=True):
            router.original = before if standing is router else standing
        return _routers if _in_worker and _left_alive else self._stdio

    def _let_threads_go_on(self) -> None:
        """Leave the streams to the threads that stayed: what they print belongs to this resource."""
        if threading.active_count() == 1:
            return
        before = {threading.current_thread(), *self._running}
        new = [thread for thread in threading.enumerate() if thread not in before]
        _left_alive.extend(map(weakref.ref, new))
        if new:
            _ours.clear()
            for stream, log in zip(self._mine.streams, self._logs, strict=True):
                with contextlib.suppress(OSError, ValueError):  # closed by the function, too many open files
                    stream.lead_elsewhere(fileops.out_of_reach(os.dup(log)))


class _Owner(NamedTuple):
    """The streams of a run in a worker, also for the threads that it starts; see `_Logs` for other ways."""

    streams: tuple[Any, ...]
    guard: contextlib.AbstractContextManager[None] = contextlib.nullcontext()
    ended: bool = False


def _standing() -> tuple[Any, Any]:
    """What sys.stdout and sys.stderr are; a function may have deleted them."""
    return (getattr(sys, 'stdout', None), getattr(sys, 'stderr', None))


def _duplicate(fd: int) -> int | None:
    try:
        return fileops.out_of_reach(os.dup(fd))
    except OSError as error:
        if error.errno == errno.EBADF:  # a daemon may run with descriptor 1 or 2 closed
            return None
        raise


def _flush(*streams: TextIO | None) -> bool:
    """Flush what can be flushed; False if one of our streams could not be."""
    is_done = True
    for stream in streams:
        try:
            stream.flush()  # type: ignore[union-attr]
        except Exception:  # closed, None, or anything that a function has put there, with a flush of its own
            is_done &= not isinstance(stream, _Lines)
    return is_done


@functools.cache
def _c_flush() -> Callable[[None], Any]:
    import ctypes

    return cast('Callable[[None], Any]', ctypes.CDLL(None).fflush)


def flush_c() -> None:
    """Flush the C library's buffers, which would otherwise appear in the next resource's log."""
    _c_flush()(None)


# --- streams ---------------------------------------------------------------------------------------

_logs_here: contextvars.ContextVar[_Logs | _Owner | None] = contextvars.ContextVar(
    'hadrosaur_logs', default=None
)


class _Logs:
    """The two logs of one call, with their own descriptors, so that late output cannot reach other files."""

    def __init__(self, logs: tuple[int, int]) -> None:
        own = [fileops.out_of_reach(os.dup(log)) for log in logs]
        self.streams = tuple(_Lines(log, n, closefd=True) for n, log in enumerate(own))
        self.guard = threading.RLock()
        self.ended = False

    def end(self) -> None:
        """Close the logs; later output of threads that stayed goes where it went before the call."""
        with self.guard:
            self.ended = True
            for stream in self.streams:
                _flush(stream)
                with contextlib.suppress(OSError):  # the function may have closed its descriptor
                    stream.close()


class _Router:
    """Replaces sys.stdout or sys.stderr and passes every call on to the caller's log.

    There is one of each for the life of the process: a thread may be inside a ``print`` when sys.stdout is
    restored, and Python before 3.14 does not hold a reference to the stream that it prints to.
    """

    def __init__(self, position: int) -> None:
        self._position = position
        self.original: Any = None

    def write(self, text: str) -> int:
        """Write to the caller's log, or to the stream that was there before."""
        logs = _logs_here.get()
        if logs is not None:
            with logs.guard:
                if not logs.ended:
                    return logs.streams[self._position].write(text)
        written: int = self.original.write(text)
        return written

    def detach(self) -> Any:
        """Detach the underlying buffer, for a stream that the function makes of it; the log goes on."""
        target = self._target()
        return io.BufferedWriter(io.FileIO(os.dup(target.fileno()), 'w'))

    def flush(self) -> None:
        """Flush the same."""
        _flush(self._target())

    def _target(self) -> Any:
        logs = _logs_here.get()
        return self.original if logs is None or logs.ended else logs.streams[self._position]

    def __getattr__(self, name: str) -> Any:
        return getattr(self._target(), name)

    def __iter__(self) -> Iterator[str]:
        return iter(self._target())


_routers = (_Router(0), _Router(1))


def beneath(stream: Any) -> Any:
    """Return the stream itself; for a router, the one that the caller's output goes to."""
    return stream._target() if isinstance(stream, _Router) else stream


class _Routing:
    """Installs the routers, and contexts for new threads, while any call is being captured."""

    def __init__(self) -> None:
        self._guard = threading.Lock()
        self._users = 0
        self._undo: Callable[[], None] = lambda: None

    def enter(self) -> None:
        with self._guard:
            self._users += 1
            if self._users == 1:
                self._undo = _install()

    def restore(self, logs: _Logs) -> None:
        """Reinstall the routers if a function replaced them.

        In the main thread it was the function; in another thread it may be somebody else, on purpose.
        """
        is_main = threading.current_thread() is threading.main_thread()
        for name, router, stream in zip(('stdout', 'stderr'), _routers, logs.streams, strict=True):
            standing = getattr(sys, name, None)
            if standing is not router and (is_main or _is_dead(standing) or _writes_to(standing, stream)):
                _flush(standing)
                setattr(sys, name, router)

    def leave(self) -> None:
        with self._guard:
            self._users -= 1
            if self._users == 0:
                self._undo()


def _install() -> Callable[[], None]:
    out, err = _routers
    for router, standing in zip(_routers, _standing(), strict=True):
        if standing is not router:  # a child that was forked during a capture still has it in place
            router.original = standing
    carry_no_more = _carry_contexts() if not _in_worker else lambda: None

    def undo() -> None:
        # Only what is still ours: another program may have put its own in place meanwhile.
        if sys.stdout is out:
            sys.stdout = out.original
        if sys.stderr is err:
            sys.stderr = err.original
        carry_no_more()

    sys.stdout, sys.stderr = cast('tuple[TextIO, TextIO]', _routers)
    return undo


def _carry_contexts() -> Callable[[], None]:
    """Make threads belong to the run that starts them; returns a function that undoes that."""
    start = threading.Thread.start

    @functools.wraps(start)
    def start_in_context(thread: Any) -> None:
        if _logs_here.get() is not None:
            thread.run = functools.partial(contextvars.copy_context().run, thread.run)
        start(thread)

    def undo() -> None:
        if threading.Thread.start is start_in_context:
            threading.Thread.start = start  # type: ignore[method-assign]

    threading.Thread.start = start_in_context  # type: ignore[assignment, method-assign]
    return undo


def _is_dead(stream: Any) -> bool:
    try:
        return stream is None or bool(stream.closed)
    except Exception:  # anything may stand there
        return True


def _writes_to(stream: Any, log: Any) -> bool:
    """Whether a stream of the function, e.g. ``TextIOWrapper(sys.stdout.detach())``, writes to a log."""
    try:
        return bool(os.path.sameopenfile(stream.fileno(), log.fileno()))
    except Exception:  # anything may stand there
        return False


_routing = _Routing()
os.register_at_fork(after_in_child=_routing.__init__)  # type: ignore[misc]  # a lock held elsewhere stays held


def _forget_shown_warnings() -> None:
    """Make each resource's log show its own warnings; filters stay as they are.

    Python forgets which warnings it has shown whenever a filter is added, even one that is there already.
    """
    for action, message, category, module, line in warnings.filters:
        if message is None and module is None:
            warnings.simplefilter(cast('Any', action), category, line, append=True)
            return


@contextlib.contextmanager
def _streams(logs: tuple[int, int]) -> Iterator[None]:
    mine = _Logs(logs)
    _forget_shown_warnings()
    _routing.enter()
    token = _logs_here.set(mine)
    try:
        yield
    finally:
        _logs_here.reset(token)
        _routing.restore(mine)
        _routing.leave()
        mine.end()
