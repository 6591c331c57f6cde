"""Forking while SQLite is in use.

A forked child has copies of the parent's connections, but not of its locks: POSIX locks stay with the
process that took them. SQLite does not know that. A connection that the child opens beside the copies
is counted with them, believes that the locks are there, and takes none. Measured (SQLite 3.40): the
parent closes its own, is the last that holds a lock, and deletes the -wal into which the child writes;
the child's rows are gone.

So the copies go first. No thread is inside SQLite while the process forks (the `gate` waits for those
that are), therefore every copy is at rest, and the child closes them all before it opens its own. At
rest, closing gives back locks that the child never had, and touches nothing of the parent's.
"""

from __future__ import annotations

import contextlib
import os
import threading
import weakref
from collections import deque
from functools import cache
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Callable

PATIENCE = 65.0
"""Seconds that a fork waits for threads inside SQLite: a little more than they wait for each other
(`_connection.BUSY_SECONDS`)."""


class _Own(threading.local):
    """How often the thread itself is inside."""

    depth = 0


class ForkGuard:
    """Counts the threads that are inside SQLite. A context manager; may be nested."""

    def __init__(self) -> None:
        self._lock = threading.RLock()
        self._changed = threading.Condition(self._lock)
        self._own = _Own()
        self._inside = 0
        self._forking = 0  # threads that wait to fork
        self._left: deque[Callable[[], object]] = deque()  # by finalisers, for who comes next

    def __enter__(self) -> None:
        own = self._own
        with self._lock:
            while self._forking and not own.depth:  # who is inside must get on, or never leaves
                self._changed.wait()
            own.depth += 1
            self._inside += 1
        if self._left:
            self._do_left()

    def __exit__(self, *exception: object) -> None:
        with self._lock:
            self._own.depth -= 1
            self._inside -= 1
            if self._forking:
                self._changed.notify_all()
        if self._left:
            self._do_left_without_waiting()

    def once_free(self, action: Callable[[], object]) -> None:
        """Have something done inside: at once if that takes no waiting, else by who enters or leaves next.

        For finalisers. The collector runs them anywhere, in the hooks of a fork too, where this thread has
        closed the gate and would wait for itself.
        """
        self._left.append(action)
        self._do_left_without_waiting()

    def _do_left_without_waiting(self) -> None:
        if not self._lock.acquire(blocking=False):
            return
        try:
            if self._forking:
                return
            self._own.depth += 1
            self._inside += 1
        finally:
            self._lock.release()
        try:
            self._do_left()
        finally:
            with self._lock:  # nobody keeps it while we are inside
                self._own.depth -= 1
                self._inside -= 1
                if self._forking:
                    self._changed.notify_all()

    def _do_left(self) -> None:
        with contextlib.suppress(IndexError):  # another thread was faster
            while self._left:
                self._left.popleft()()

    def close(self) -> None:
        """Wait until nobody else is inside, and let nobody in."""
        self._lock.acquire()
        self._forking += 1
        self._changed.wait_for(lambda: self._inside <= self._own.depth, PATIENCE)

    def open(self) -> None:
        """Undo `close`."""
        self._forking -= 1
        self._changed.notify_all()
        self._lock.release()
        if self._left:
            self._do_left_without_waiting()


class Inherited(Protocol):
    """What must let go of its descriptors in a forked child."""

    def close_after_fork(self) -> None:
        """Close what the parent opened; called in the child, by its only thread."""


fork_guard = ForkGuard()
_inherited: weakref.WeakSet[Inherited] = weakref.WeakSet()


def let_go_in_children(owner: Inherited) -> None:
    """Call ``owner.let_go`` in every child that is forked from now on."""
    _watch_forks()
    _inherited.add(owner)


@cache
def _watch_forks() -> None:
    # Who registers last is called first. The gate must be closed before logging takes its lock for the
    # fork, since a thread inside may be importing SQLAlchemy, which asks for a logger.
    import logging  # noqa: F401

    os.register_at_fork(before=fork_guard.close, after_in_parent=fork_guard.open, after_in_child=_in_child)


def _in_child() -> None:
    for owner in list(_inherited):  # while the gate is closed: no finaliser comes between
        owner.close_after_fork()
    fork_guard.__init__()  # type: ignore[misc]  # as new: the threads that it counted are not here
