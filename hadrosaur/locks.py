"""Locks that a forked child finds free, and threads that take no signals.

A child has copies of the parent's locks, and only the thread that forked: what another thread held at
that moment would stay held in the child for ever.
"""

from __future__ import annotations

import os
import signal
import threading
import weakref

HELD_BACK = frozenset(
    {signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGALRM, signal.SIGUSR1, signal.SIGUSR2}
)
"""Signals whose handlers in Python may raise. They run in the main thread, whichever thread was told."""


def start_without_signals(thread: threading.Thread) -> None:
    """Start a thread of our own that leaves signals to the main thread, which may hold them back."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, HELD_BACK)
    try:
        thread.start()
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


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


_all: weakref.WeakSet[Guarded] = weakref.WeakSet()


def _in_child() -> None:
    for guarded in list(_all):
        guarded._in_child()


os.register_at_fork(after_in_child=_in_child)
