"""Locks that are free in a forked child, threads that take no signals, and limits on how long a thread waits.

A forked child has copies of the parent's locks, but only the thread that forked. A lock that another thread
held at that moment would stay locked in the child for ever.
"""

from __future__ import annotations

import contextlib
import os
import queue
import signal
import threading
import weakref
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable

T = TypeVar('T')

CANCEL_SIGNAL = signal.SIGURG
"""Interrupts a function in the main thread that is to be cancelled; ignored where nobody handles it."""

HELD_BACK = frozenset(
    {
        signal.SIGINT,
        signal.SIGTERM,
        signal.SIGHUP,
        signal.SIGALRM,
        signal.SIGUSR1,
        signal.SIGUSR2,
        CANCEL_SIGNAL,
    }
)
"""Signals whose handlers in Python may raise. They run in the main thread, whichever thread was told."""


_SILENT = '_hadrosaur_is_silent'  # attribute of such a thread: a tenth of what looking into a WeakSet costs


def start_without_signals(thread: threading.Thread, *, silent: bool = True) -> None:
    """Start a thread that leaves signals to the main thread.

    Args:
        thread: The thread.
        silent: It runs no functions of users, so it prints nothing.
    """
    if silent:
        setattr(thread, _SILENT, True)
    before = signal.pthread_sigmask(signal.SIG_BLOCK, HELD_BACK)
    try:
        thread.start()
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def is_ours() -> bool:
    """Whether this is a thread of ours that runs no functions of users."""
    return hasattr(threading.current_thread(), _SILENT)


def has_other_threads() -> bool:
    """Whether another thread is alive that is not ours, and may print."""
    threads = threading.enumerate()
    if len(threads) == 1:
        return False
    here = threading.current_thread()
    return any(thread is not here and not hasattr(thread, _SILENT) for thread in threads)


class Ender:
    """A thread that ends something on request, so that a finaliser does not have to wait for it.

    The garbage collector runs finalisers anywhere: in fork hooks, or while this very thread holds the locks
    that they would need. So finalisers take no locks and start no threads.
    """

    def __init__(self) -> None:
        self._asked: queue.SimpleQueue[Callable[[], object] | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=_end, args=(self._asked,), name='hadrosaur-end', daemon=True)
        start_without_signals(self._thread)

    def ask(self, action: Callable[[], object]) -> None:
        """Hand the work to the thread, as its last; `SimpleQueue.put` may be called anywhere."""
        _ending.append(self)
        self._asked.put(action)

    def join(self) -> None:
        """Wait until the requested work is done; no more is accepted."""
        self._asked.put(None)
        if self._thread is not threading.current_thread():
            self._thread.join()


_ending: list[Ender] = []  # those that were asked, and may not be done


def await_enders() -> None:
    """Wait until everything that finalisers requested has ended."""
    for ender in list(_ending):
        ender.join()
        with contextlib.suppress(ValueError):  # another thread was faster
            _ending.remove(ender)


def _end(asked: queue.SimpleQueue[Callable[[], object] | None]) -> None:
    action = asked.get()
    if action is not None:
        action()


class Guarded:
    """Base class of objects with a lock, ``_guard``, that is new in every forked child.

    It is one of Python's own locks, not a wrapper: Ctrl-C cannot arrive between its acquisition and the with
    block that releases it.
    """

    def __init__(self) -> None:
        self._guard = threading.Lock()
        _all.add(self)

    def _in_child(self) -> None:
        self._guard = threading.Lock()


class Patience(threading.local):
    """How long a thread waits for other users of the index.

    Attributes:
        seconds: None: a minute for a transaction, without limit for replacing the index.
    """

    seconds: float | None = None


patience = Patience()


def at_most(seconds: float, action: Callable[..., T], *args: Any) -> T:
    """Run an action that waits for the index for at most so many seconds, then raises `IndexBusy`.

    This is not a context manager, because Ctrl-C inside its ``__exit__`` would leave the thread impatient.
    """
    before = patience.seconds
    patience.seconds = seconds
    try:
        return action(*args)
    finally:
        patience.seconds = before


_all: weakref.WeakSet[Guarded] = weakref.WeakSet()


def _in_child() -> None:
    _ending.clear()
    for guarded in list(_all):
        guarded._in_child()


os.register_at_fork(after_in_child=_in_child)
