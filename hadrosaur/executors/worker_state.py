"""What a function may leave behind in its worker, put back before the next resource is computed.

A worker computes one resource after another in one process, and each is to find the process as if it
were the first. `WorkerState` remembers, before a run, what is cheap to read, and puts back afterwards
what is not the same: timers, signal handlers, current folder, umask, limits, user ids,
processors, sys.stdin and its kin, logging, warnings, locale, decimal context, the default time-out of
sockets, recursion limit, tracing, builtins. What cannot be put back (a priority that was lowered, a
limit that only root may raise again) is told, and the worker is replaced.

Environment variables and the state of imported modules stay, on purpose: a model that was loaded once
is to be there for the next. docs/howto/workers.md says what is shared and what is not.

Looking costs about 25 µs a run (two cores, Python 3.11, 2026).
"""

from __future__ import annotations

import builtins
import contextlib
import faulthandler
import gc
import os
import resource
import signal
import sys
import warnings
from typing import Any

from .. import diskio

try:  # without the wrapper that makes an Enum of each answer, which costs ten times the question itself
    from _signal import getsignal as _getsignal  # type: ignore[import-not-found]
except ImportError:
    from signal import getsignal as _getsignal

_SIGNALS = sorted(set(signal.valid_signals()) - {signal.SIGKILL, signal.SIGSTOP})
_NAMED = (
    [number for number in _SIGNALS if number < signal.SIGRTMIN] if hasattr(signal, 'SIGRTMIN') else _SIGNALS
)
_LIMITS = [
    getattr(resource, name)
    for name in ('RLIMIT_NOFILE', 'RLIMIT_AS', 'RLIMIT_DATA', 'RLIMIT_FSIZE', 'RLIMIT_CORE', 'RLIMIT_CPU',
                 'RLIMIT_STACK', 'RLIMIT_NPROC')
    if hasattr(resource, name)
]  # fmt: skip
_TIMERS = (signal.ITIMER_REAL, signal.ITIMER_VIRTUAL, signal.ITIMER_PROF)
_SYS = (
    'stdin',
    'excepthook',
    'unraisablehook',
    'displayhook',
    'argv',
    '__stdin__',
    '__stdout__',
    '__stderr__',
)


class WorkerState:
    """The process as it was when this was made; `put_back` makes it so again."""

    def __init__(self) -> None:
        self._handlers = [_getsignal(number) for number in _NAMED]
        self._home = os.open('.', diskio.LOOK)
        self._home_path = _folder()
        self._umask = os.umask(0o22)
        os.umask(self._umask)
        self._limits = [resource.getrlimit(number) for number in _LIMITS]
        self._ids = _ids()
        self._priority = os.getpriority(os.PRIO_PROCESS, 0)
        self._processors = os.sched_getaffinity(0) if hasattr(os, 'sched_getaffinity') else None
        self._sys = {name: getattr(sys, name, None) for name in _SYS}
        self._argv = list(sys.argv)
        self._recursion = sys.getrecursionlimit()
        self._switching = sys.getswitchinterval()
        self._collecting = gc.isenabled()
        self._builtins = dict(vars(builtins))
        self._modules: dict[str, Any] = {}  # of the modules below: what they had when they were first seen
        self._note_modules()

    def before(self) -> None:
        """Look again at what loading a function may have set up on purpose: its modules are to stay."""
        self._handlers = [_getsignal(number) for number in _NAMED]
        self._builtins = dict(vars(builtins))
        self._argv, self._sys['argv'] = list(sys.argv), sys.argv
        self._recursion, self._switching = sys.getrecursionlimit(), sys.getswitchinterval()
        self._collecting = gc.isenabled()
        self._modules.clear()
        self._note_modules()

    def put_back(self) -> list[str]:
        """Put back what a run has changed. Returns what could not be, in words; mostly nothing."""
        left: list[str] = []
        for timer in _TIMERS:
            if signal.getitimer(timer) != (0.0, 0.0):
                signal.setitimer(timer, 0)
        faulthandler.cancel_dump_traceback_later()
        self._put_back_signals()
        self._put_back_place(left)
        self._put_back_limits(left)
        self._put_back_interpreter()
        self._put_back_modules()
        return left

    def close(self) -> None:
        """Give the descriptor of the folder back."""
        os.close(self._home)

    # --- the process -------------------------------------------------------------------------------

    def _put_back_signals(self) -> None:
        if [_getsignal(number) for number in _NAMED] != self._handlers:
            for number, handler in zip(_NAMED, self._handlers, strict=True):
                if handler is not None and _getsignal(number) is not handler:
                    with contextlib.suppress(OSError, ValueError):
                        signal.signal(number, handler)
        for number in (signal.SIGUSR1, signal.SIGUSR2, signal.SIGALRM, signal.SIGTERM, signal.SIGHUP):
            faulthandler.unregister(number)
        faulthandler.enable()

    def _put_back_place(self, left: list[str]) -> None:
        if _ids() != self._ids and not _regain(self._ids):
            left.append('the user or group that it runs as was changed')
        umask = os.umask(self._umask)
        if umask != self._umask:
            os.umask(self._umask)
        if _folder() != self._home_path:
            with contextlib.suppress(OSError):  # the folder may be gone, which is nobody's fault here
                os.fchdir(self._home)

    def _put_back_limits(self, left: list[str]) -> None:
        for number, (soft, hard) in zip(_LIMITS, self._limits, strict=True):
            if resource.getrlimit(number) != (soft, hard):
                try:
                    resource.setrlimit(number, (soft, hard))
                except (OSError, ValueError):
                    left.append('a limit was lowered for good')
        if os.getpriority(os.PRIO_PROCESS, 0) != self._priority:
            try:
                os.setpriority(os.PRIO_PROCESS, 0, self._priority)
            except OSError:
                left.append('its priority was lowered')
        if self._processors is not None and os.sched_getaffinity(0) != self._processors:
            with contextlib.suppress(OSError):
                os.sched_setaffinity(0, self._processors)

    # --- the interpreter ---------------------------------------------------------------------------

    def _put_back_interpreter(self) -> None:
        for name, value in self._sys.items():
            if getattr(sys, name, None) is not value:
                setattr(sys, name, value)
        if sys.stdin is None or sys.stdin.closed:
            sys.stdin = self._sys['stdin'] = open(os.devnull)  # noqa: SIM115
        if sys.argv != self._argv:
            sys.argv[:] = self._argv
        if sys.getrecursionlimit() != self._recursion:
            sys.setrecursionlimit(self._recursion)
        if sys.getswitchinterval() != self._switching:
            sys.setswitchinterval(self._switching)
        if gc.isenabled() != self._collecting:
            (gc.enable if self._collecting else gc.disable)()
        for tracing, reset in ((sys.gettrace, sys.settrace), (sys.getprofile, sys.setprofile)):
            if tracing() is not None:
                reset(None)
        now = vars(builtins)
        if now != self._builtins:
            for name in now.keys() - self._builtins.keys():
                if name != '_':
                    del now[name]
            now.update(self._builtins)

    # --- modules of the standard library whose settings hold for the whole process -----------------

    def _note_modules(self) -> None:
        self._modules['warnings'] = (list(warnings.filters), warnings.showwarning, warnings.formatwarning)
        if 'logging' in sys.modules:
            import logging

            root = logging.root
            self._modules['logging'] = (
                list(root.handlers),
                root.level,
                root.manager.disable,
                list(root.filters),
            )
        if 'locale' in sys.modules:
            import locale

            self._modules['locale'] = locale.setlocale(locale.LC_ALL)
        if 'decimal' in sys.modules:
            import decimal

            self._modules['decimal'] = decimal.getcontext().copy()
        if 'socket' in sys.modules:
            import socket

            self._modules['socket'] = socket.getdefaulttimeout()

    def _put_back_modules(self) -> None:
        filters, show, form = self._modules['warnings']
        if warnings.filters != filters:
            warnings.filters[:] = filters  # type: ignore[index]
            warnings._filters_mutated()  # type: ignore[attr-defined]
        warnings.showwarning, warnings.formatwarning = show, form
        for name in ('logging', 'locale', 'decimal', 'socket'):
            if name in sys.modules:
                if name in self._modules:
                    getattr(self, f'_put_back_{name}')(sys.modules[name], self._modules[name])
                else:  # first imported in this run: as it is when nobody has set anything
                    getattr(self, f'_put_back_{name}')(sys.modules[name], _FRESH[name])

    @staticmethod
    def _put_back_logging(logging: Any, was: Any) -> None:
        root, (handlers, level, disabled, filters) = logging.root, was
        if root.handlers != handlers:
            for handler in set(root.handlers) - set(handlers):
                with contextlib.suppress(Exception):  # whatever a user's handler may do when it ends
                    handler.close()
            root.handlers[:] = handlers
        if (root.level, root.manager.disable) != (level, disabled):
            root.setLevel(level)
            logging.disable(disabled)
        if root.filters != filters:
            root.filters[:] = filters

    @staticmethod
    def _put_back_locale(locale: Any, was: str) -> None:
        if locale.setlocale(locale.LC_ALL) != was:
            with contextlib.suppress(locale.Error):
                locale.setlocale(locale.LC_ALL, was)

    @staticmethod
    def _put_back_decimal(decimal: Any, was: Any) -> None:
        now, was = decimal.getcontext(), was or decimal.DefaultContext
        if repr(now) != repr(was):
            decimal.setcontext(was.copy())

    @staticmethod
    def _put_back_socket(socket: Any, was: float | None) -> None:
        if socket.getdefaulttimeout() != was:
            socket.setdefaulttimeout(was)


_FRESH: dict[str, Any] = {'logging': ([], 30, 0, []), 'locale': 'C', 'decimal': None, 'socket': None}


def _folder() -> str | None:
    try:
        return os.getcwd()
    except OSError:  # it is gone
        return None


def _ids() -> tuple[int, ...]:
    return (os.getuid(), os.geteuid(), os.getgid(), os.getegid())


def _regain(ids: tuple[int, ...]) -> bool:
    """Become the user again that the process was; possible only where it changed its effective ids."""
    uid, effective_uid, gid, effective_gid = ids
    with contextlib.suppress(OSError):
        os.seteuid(effective_uid)
        os.setegid(effective_gid)
        if (os.getuid(), os.getgid()) != (uid, gid):
            os.setreuid(uid, effective_uid)
            os.setregid(gid, effective_gid)
    return _ids() == ids
