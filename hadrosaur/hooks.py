"""Callbacks for finished resources and batches, called in the calling process after the row is written.

They run in the thread that fetches, waits or iterates; for background work, where there is none, in a thread
that lives only as long as there are callbacks to run. Exceptions are logged and otherwise ignored.
"""

from __future__ import annotations

import threading
from collections import deque
from typing import TYPE_CHECKING, Any

from .locks import Guarded, start_without_signals

if TYPE_CHECKING:
    from collections.abc import Callable

EVENTS = ('completed', 'error', 'batch_end')


class Hooks(Guarded):
    """The callbacks of one project, and a queue of events that they have not been called for yet.

    Attributes:
        is_used: Is any callback registered?

    Args:
        flush: Writes the rows that are queued.
    """

    def __init__(self, flush: Callable[[], object]) -> None:
        super().__init__()
        self._flush = flush
        self._functions: dict[str, list[Callable[[Any], object]]] = {event: [] for event in EVENTS}
        self._inside = threading.local()
        self.is_used = False
        self._make_new()

    def _make_new(self) -> None:
        self._news: deque[tuple[str, Callable[[], Any]]] = deque()
        self._callers = 0  # threads that are running callbacks
        self._idle = threading.Condition(self._guard)
        self._thread: threading.Thread | None = None

    def _in_child(self) -> None:
        """The queue stays with the parent process."""
        super()._in_child()
        self._make_new()

    def on(self, event: str, function: Callable[[Any], object]) -> None:
        """Register a callback. Raises ValueError for an unknown event, TypeError for no function."""
        self.check(event)
        if not callable(function):
            raise TypeError(f'the callback for {event!r} must be a function, not {function!r}')
        self._functions[event].append(function)
        self.is_used = True

    def check(self, event: str) -> None:
        """Raises ValueError for an unknown event."""
        if event not in EVENTS:
            raise ValueError(f'there is no event {event!r}; there is {", ".join(map(repr, EVENTS))}')

    def wants(self, event: str) -> bool:
        """Is a callback registered for this event?"""
        return bool(self._functions.get(event))

    def note(self, event: str, what: Callable[[], Any]) -> None:
        """Queue an event; ``what`` gives the value that callbacks are called with."""
        with self._guard:
            self._news.append((event, what))

    def call_soon(self) -> None:
        """Run the queue in a thread of its own."""
        with self._guard:
            if self._thread is None and self._news:
                self._thread = threading.Thread(target=self._work, name='hadrosaur-hooks', daemon=True)
                start_without_signals(self._thread, silent=False)  # they may print

    def _work(self) -> None:
        while True:
            self._tell_all()
            with self._guard:
                if not self._news:
                    self._thread = None
                    return

    def call(self) -> None:
        """Run the queue, and wait for callbacks that another thread is running.

        Inside a callback nothing is waited for.
        """
        if not self._news and not self._callers:
            return
        self._tell_all()
        if not getattr(self._inside, 'depth', 0):
            with self._guard:
                self._idle.wait_for(lambda: not self._callers)

    def close(self) -> None:
        """`call`, and join the thread."""
        self.call()
        thread = self._thread
        if thread is not None and thread is not threading.current_thread():
            thread.join()

    def _tell_all(self) -> None:
        """Run the queue; the guard is not held while callbacks run."""
        with self._guard:
            self._callers += 1
        self._inside.depth = getattr(self._inside, 'depth', 0) + 1
        try:
            while batch := self._taken():
                try:
                    self._flush()
                    while batch:
                        self._tell(*batch.popleft())
                finally:  # Ctrl-C, or a callback that ends the program
                    with self._guard:
                        self._news.extendleft(reversed(batch))
        finally:
            self._inside.depth -= 1
            with self._guard:
                self._callers -= 1
                self._idle.notify_all()

    def _taken(self) -> deque[tuple[str, Callable[[], Any]]]:
        """What is queued by now: its rows are written by one flush."""
        with self._guard:
            taken, self._news = self._news, deque()
        return taken

    def _tell(self, event: str, what: Callable[[], Any]) -> None:
        try:
            value = what()
        except Exception:  # the resource was removed or is unreadable
            _log(f'the resource for a callback of {event!r} cannot be read')
            return
        for function in list(self._functions[event]) if value is not None else ():
            try:
                function(value)
            except Exception:
                _log(f'callback {function!r} for {event!r} failed')


def _log(sentence: str) -> None:
    import logging

    logging.getLogger('hadrosaur').exception(sentence)
