"""Locks that a forked child finds free, threads that take no signals, and how long a thread waits.

A child has copies of the parent's locks, and only the thread that forked: what another thread held at
that moment would stay held in the child for ever.
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
    """Start a thread of our own that leaves signals to the main thread, which may hold them back.

    Args:
        thread: The thread.
        silent: It runs nobody's functions, so it prints nothing.
    """
    if silent:
        setattr(thread, _SILENT, True)
    before = signal.pthread_sigmask(signal.SIG_BLOCK, HELD_BACK)
    try:
        thread.start()
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def is_ours() -> bool:
    """Is this a thread of our own that runs nobody's functions?"""
    return hasattr(threading.current_thread(), _SILENT)


def has_other_threads() -> bool:
    """Is there a thread beside this one that is not ours, and may print?"""
    threads = threading.enumerate()
    if len(threads) == 1:
        return False
    here = threading.current_thread()
    return any(thread is not here and not hasattr(thread, _SILENT) for thread in threads)


class Ender:
    """A thread that waits until it is asked to end something, so that a finaliser has nothing to wait for.

    The collector runs finalisers anywhere: in a fork's hooks, or while this very thread holds the locks
    that are needed. So they take none, and start no thread, which takes some of Python's own.
    """

    def __init__(self) -> None:
        self._asked: queue.SimpleQueue[Callable[[], object] | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=_end, args=(self._asked,), name='hadrosaur-end', daemon=True)
        start_without_signals(self._thread)

    def ask(self, action: Callable[[], object]) -> None:
        """Have it done in the thread, its last work; `SimpleQueue.put` may be called anywhere."""
        _ending.append(self)
        self._asked.put(action)

    def join(self) -> None:
        """Wait for what was asked for; nothing is, from now on."""
        self._asked.put(None)
        if self._thread is not threading.current_thread():
            self._thread.join()


_ending: list[Ender] = []  # those that were asked, and may not be done


def await_enders() -> None:
    """Wait until everything is ended that finalisers asked for."""
    for ender in list(_ending):
        ender.join()
        with contextlib.suppress(ValueError):  # another thread was faster
            _ending.remove(ender)


def _end(asked: queue.SimpleQueue[Callable[[], object] | None]) -> None:
    action = asked.get()
    if action is not None:
        action()


class Guarded:
    """What has a lock, ``_guard``, that is new in every forked child.

    It is a lock of Python's own, not one that wraps it: Ctrl-C never comes between its being taken and
    the with block that gives it back.
    """

    def __init__(self) -> None:
        self._guard = threading.Lock()
        _all.add(self)

    def _in_child(self) -> None:
        self._guard = threading.Lock()


class Patience(threading.local):
    """How long a thread waits for others who use the index.

    Attributes:
        seconds: None: a minute for a transaction, and without end for who replaces the index.
    """

    seconds: float | None = None


patience = Patience()


def at_most(seconds: float, action: Callable[..., T], *args: Any) -> T:
    """What the action gives, with no more patience than so many seconds; then `IndexBusy` is raised.

    No context manager: Ctrl-C may come inside its ``__exit__``, and this thread would be impatient for ever.
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
