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
import threading
import warnings
from typing import TYPE_CHECKING, Any

from .. import fileops

if TYPE_CHECKING:
    from collections.abc import Callable

try:  # without the wrapper that makes an Enum of each answer, which costs ten times the question itself
    from _signal import getsignal as _getsignal  # type: ignore[import-not-found]
except ImportError:
    from signal import getsignal as _getsignal

_OWN = {signal.SIGRTMAX - 2} if hasattr(signal, 'SIGRTMAX') else set()  # see `stacks`
_SIGNALS = sorted(set(map(int, signal.valid_signals())) - {signal.SIGKILL, signal.SIGSTOP} - _OWN)
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
    'breakpointhook',
    'argv',
    '__stdin__',
    '__stdout__',
    '__stderr__',
)

_SETTINGS: tuple[
    tuple[Callable[[], Any], Callable[[Any], object]], ...
] = (  # of the interpreter: what tells them, and what sets them
    (sys.getrecursionlimit, sys.setrecursionlimit),
    (sys.getswitchinterval, sys.setswitchinterval),
    (sys.get_int_max_str_digits, sys.set_int_max_str_digits),
    (sys.getdlopenflags, sys.setdlopenflags),
    (sys.get_asyncgen_hooks, lambda hooks: sys.set_asyncgen_hooks(*hooks)),
    (gc.isenabled, lambda is_enabled: (gc.enable if is_enabled else gc.disable)()),
    (gc.get_threshold, lambda thresholds: gc.set_threshold(*thresholds)),
)
_SPARE = 64
"""Descriptors that a run finds free, at least; of a few, a quarter."""


class WorkerState:
    """The process as it was when this was made; `put_back` makes it so again."""

    def __init__(self) -> None:
        self._handlers = [_getsignal(number) for number in _SIGNALS]
        self._home = os.open('.', fileops.LOOK)
        self._home_path = _folder()
        self._umask = os.umask(0o22)
        os.umask(self._umask)
        self._limits = [resource.getrlimit(number) for number in _LIMITS]
        self._ids = _ids()
        self._priority = os.getpriority(os.PRIO_PROCESS, 0)
        self._processors = os.sched_getaffinity(0) if hasattr(os, 'sched_getaffinity') else None
        self._sys = {name: getattr(sys, name, None) for name in _SYS}
        self._argv = list(sys.argv)
        self._scheduling, self._groups = _scheduling(), os.getgroups()
        self._note_settings()
        self._builtins = dict(vars(builtins))
        self._modules: dict[str, Any] = {}  # of the modules below: what they had when they were first seen
        self._note_modules()

    def before(self) -> None:
        """Look again at what loading a function may have set up on purpose: its modules are to stay."""
        self._handlers = [_getsignal(number) for number in _SIGNALS]
        self._builtins = dict(vars(builtins))
        self._argv, self._sys['argv'] = list(sys.argv), sys.argv
        self._note_settings()
        self._modules.clear()
        self._note_modules()

    def _note_settings(self) -> None:
        self._settings = [told() for told, _ in _SETTINGS]
        self._callbacks, self._thread_hook = list(gc.callbacks), threading.excepthook
        self._traceback_limit = getattr(sys, 'tracebacklimit', None)
        self._stack = threading.stack_size()  # which asks by setting it to what it is at first
        threading.stack_size(self._stack)

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
        if list(map(_getsignal, _SIGNALS)) != self._handlers:
            for number, handler in zip(_SIGNALS, self._handlers, strict=True):
                if handler is not None and _getsignal(number) is not handler:
                    with contextlib.suppress(OSError, ValueError):
                        signal.signal(number, handler)
        with contextlib.suppress(ValueError):  # a nested run in another thread
            signal.set_wakeup_fd(-1)
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
        found = list(map(resource.getrlimit, _LIMITS))
        for number, now, was in zip(_LIMITS, found, self._limits, strict=True):
            if now != was:
                try:
                    resource.setrlimit(number, was)
                except (OSError, ValueError):
                    left.append('a limit was lowered for good')
        if os.getpriority(os.PRIO_PROCESS, 0) != self._priority:
            try:
                os.setpriority(os.PRIO_PROCESS, 0, self._priority)
            except OSError:
                left.append('its priority was lowered')
        if (_scheduling(), os.getgroups()) != (self._scheduling, self._groups):
            left.append('its scheduling, or its groups, were changed')
        if _is_full_of_descriptors():
            left.append('it leaves so many files open that the next run could open none')
        if self._processors is not None and os.sched_getaffinity(0) != self._processors:
            with contextlib.suppress(OSError):
                os.sched_setaffinity(0, self._processors)

    # --- the interpreter ---------------------------------------------------------------------------

    def _put_back_interpreter(self) -> None:
        now = vars(sys)
        for name, value in self._sys.items():
            if now.get(name) is not value:
                setattr(sys, name, value)
        if sys.stdin is None or sys.stdin.closed:
            sys.stdin = self._sys['stdin'] = open(os.devnull)  # noqa: SIM115
        if sys.argv != self._argv:
            sys.argv[:] = self._argv
        found = [told() for told, _ in _SETTINGS]
        for (_, put), value, was in zip(_SETTINGS, found, self._settings, strict=True):
            if value != was:
                put(was)
        gc.callbacks[:] = self._callbacks
        threading.excepthook = self._thread_hook
        threading.stack_size(self._stack)
        if 'tracebacklimit' in now and self._traceback_limit is None:
            del sys.tracebacklimit
        for tracing, reset in ((sys.gettrace, sys.settrace), (sys.getprofile, sys.setprofile)):
            if tracing() is not None:
                reset(None)
        names = vars(builtins)
        if names != self._builtins:
            for name in names.keys() - self._builtins.keys():
                if name != '_':
                    del names[name]
            names.update(self._builtins)

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
                (logging.raiseExceptions, logging.lastResort, logging.getLoggerClass()),
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
        root, (handlers, level, disabled, filters, general) = logging.root, was
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
        if general is not None:
            logging.raiseExceptions, logging.lastResort = general[:2]
            logging.setLoggerClass(general[2])

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


_FRESH: dict[str, Any] = {'logging': ([], 30, 0, [], None), 'locale': 'C', 'decimal': None, 'socket': None}


def _folder() -> str | None:
    try:
        return os.getcwd()
    except OSError:  # it is gone
        return None


def _scheduling() -> int | None:
    return os.sched_getscheduler(0) if hasattr(os, 'sched_getscheduler') else None


def _is_full_of_descriptors() -> bool:
    """The lowest that is free tells it, without counting."""
    most = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    try:
        lowest = os.dup(2)
    except OSError:
        return True
    os.close(lowest)
    return most != resource.RLIM_INFINITY and lowest >= most - min(_SPARE, most // 4)


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
