"""One function call's standard output and error, into two files, while it runs.

Two ways, and which one was used stands in record.json:

* ``descriptors``: descriptors 1 and 2 of the process point to the logs for as long as the call lasts,
  so that subprocesses, ``os.write(1, …)`` and C code are caught. Only where the process does nothing
  else: it takes the output of every thread.
* ``streams``: ``sys.stdout`` and ``sys.stderr`` are routers that look up, by the context of the caller,
  which log is meant. Calls in several threads stay apart, and threads that a function starts belong to
  it. What does not go through those two names is not caught: subprocesses, C code, handlers and
  streams that were taken before the call.

Descriptor capture with other threads alive swallowed 168 lines of an innocent thread in a test, hence
`choose`.
"""

from __future__ import annotations

import contextlib
import contextvars
import errno
import functools
import os
import sys
import threading
import warnings
from typing import TYPE_CHECKING, Any, TextIO, cast

from .locks import has_other_threads

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

WAYS = ('auto', 'descriptors', 'streams', 'off')


def choose(wanted: str) -> str:
    """The way to capture here and now: 'auto' takes descriptors where no other thread could print.

    Threads of ours print nothing, and never change how output is captured.
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


def _text_stream(fd: int, *, closefd: bool = False) -> TextIO:
    """Line-buffered, so that ``tail -f`` shows what is printed; never a reason for a function to fail."""
    return open(fd, 'w', buffering=1, encoding='utf-8', errors='backslashreplace', closefd=closefd)


# --- descriptors -----------------------------------------------------------------------------------

_ours: list[TextIO] = []  # streams on descriptors 1 and 2, made once per process (8 µs a pair)


class _Descriptors:
    """Point descriptors 1 and 2 to the logs, and put back what was there."""

    __slots__ = ('_logs', '_saved', '_stdio', '_warnings')

    def __init__(self, logs: tuple[int, int]) -> None:
        self._logs = logs

    def __enter__(self) -> None:
        self._stdio = _standing()
        _flush(*self._stdio)
        _flush_c()
        first = _duplicate(1)
        try:
            self._saved = (first, _duplicate(2))
        except OSError:  # too many open files
            if first is not None:
                os.close(first)
            raise
        os.dup2(self._logs[0], 1)
        os.dup2(self._logs[1], 2)
        if not _ours or _ours[0].closed or _ours[1].closed:
            _ours[:] = [_text_stream(1), _text_stream(2)]
        sys.stdout, sys.stderr = _ours
        # Entering it forgets which warnings were shown, so that each resource's log has its own.
        self._warnings = warnings.catch_warnings()
        self._warnings.__enter__()

    def __exit__(self, *_: object) -> None:
        self._warnings.__exit__(None, None, None)
        _flush(*_ours)
        _flush(*(stream for stream in _standing() if all(stream is not one for one in _ours)))
        _flush_c()
        sys.stdout, sys.stderr = cast('tuple[TextIO, TextIO]', self._stdio)
        for fd, saved in zip((1, 2), self._saved, strict=True):
            if saved is None:
                with contextlib.suppress(OSError):
                    os.close(fd)
            else:
                os.dup2(saved, fd)
                os.close(saved)


def _standing() -> tuple[Any, Any]:
    """What sys.stdout and sys.stderr are; a function may have deleted them."""
    return (getattr(sys, 'stdout', None), getattr(sys, 'stderr', None))


def _duplicate(fd: int) -> int | None:
    try:
        return os.dup(fd)
    except OSError as error:
        if error.errno == errno.EBADF:  # a daemon may run with descriptor 1 or 2 closed
            return None
        raise


def _flush(*streams: TextIO | None) -> None:
    for stream in streams:
        try:
            stream.flush()  # type: ignore[union-attr]
        except Exception:  # closed, None, or anything that a function put there, which may raise anything
            continue


@functools.cache
def _c_flush() -> Callable[[None], Any]:
    import ctypes

    return cast('Callable[[None], Any]', ctypes.CDLL(None).fflush)


def _flush_c() -> None:
    """Empty the C library's own buffers, which would else surface in the next resource's log."""
    _c_flush()(None)


# --- streams ---------------------------------------------------------------------------------------

_logs_here: contextvars.ContextVar[_Logs | None] = contextvars.ContextVar('hadrosaur_logs', default=None)


class _Logs:
    """The two logs of one call. Descriptors of their own, so that late output never meets a stranger's."""

    def __init__(self, logs: tuple[int, int]) -> None:
        self.streams = tuple(_text_stream(os.dup(log), closefd=True) for log in logs)
        self.guard = threading.RLock()
        self.ended = False

    def end(self) -> None:
        """Close them; what a thread that was left behind still writes goes where it went before."""
        with self.guard:
            self.ended = True
            for stream in self.streams:
                _flush(stream)
                stream.close()


class _Router:
    """Stands in for sys.stdout or sys.stderr: whatever is asked of it goes to the caller's own log.

    There is one of each for the life of the process: a thread may be in the middle of a ``print`` when
    sys.stdout is put back, and Python (before 3.14) does not hold on to what it prints to.
    """

    def __init__(self, position: int) -> None:
        self._position = position
        self.original: Any = None

    def write(self, text: str) -> int:
        """Write to the caller's log, or to what stood here before."""
        logs = _logs_here.get()
        if logs is not None:
            with logs.guard:
                if not logs.ended:
                    return logs.streams[self._position].write(text)
        written: int = self.original.write(text)
        return written

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


class _Routing:
    """Routers and the carrying of contexts into threads, in place while any call is captured."""

    def __init__(self) -> None:
        self._guard = threading.Lock()
        self._users = 0
        self._undo: Callable[[], None] = lambda: None

    def enter(self) -> None:
        with self._guard:
            self._users += 1
            if self._users == 1:
                self._undo = _install()

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
    start = threading.Thread.start

    @functools.wraps(start)
    def start_in_context(thread: Any) -> None:
        if _logs_here.get() is not None:
            thread.run = functools.partial(contextvars.copy_context().run, thread.run)
        start(thread)

    def undo() -> None:
        # Only what is still ours: another program may have put its own in place meanwhile.
        if sys.stdout is out:
            sys.stdout = out.original
        if sys.stderr is err:
            sys.stderr = err.original
        if threading.Thread.start is start_in_context:
            threading.Thread.start = start  # type: ignore[method-assign]

    sys.stdout, sys.stderr = cast('tuple[TextIO, TextIO]', _routers)
    threading.Thread.start = start_in_context  # type: ignore[assignment, method-assign]
    return undo


_routing = _Routing()
os.register_at_fork(after_in_child=_routing.__init__)  # type: ignore[misc]  # a lock held elsewhere stays held


def _forget_shown_warnings() -> None:
    """Have each resource's log show its own warnings, and leave the filters as they are.

    Python forgets which ones it has shown when a filter is added, even one that is there already.
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
        _routing.leave()
        mine.end()
