"""A thread that looks once a second at what is under way, for executors that have no driver thread."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

from .. import basedir
from ..locks import Guarded, start_without_signals

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from ..records import Job

LONG_RUN = 1.0
"""Seconds after which a run counts as running; and between two looks."""


class Clock(Guarded):
    """Calls ``look`` once a second, while that says that something is under way."""

    def __init__(self, look: Callable[[], bool]) -> None:
        super().__init__()
        self._look = look
        self._thread: threading.Thread | None = None
        self._is_wound = self._is_closed = False
        self._stopped = threading.Event()

    def _in_child(self) -> None:
        super()._in_child()
        self._thread, self._stopped = None, threading.Event()

    def wind(self) -> None:
        """Something is under way; called for each submission."""
        with self._guard:
            self._is_wound = True
            if self._thread is not None or self._is_closed:
                return
            self._thread = threading.Thread(
                target=self._tick, args=(self._stopped,), name='hadrosaur-clock', daemon=True
            )
            try:
                start_without_signals(self._thread)
            except RuntimeError:  # no more threads can be started: runs stay shown as queued
                self._thread = None

    def _tick(self, stopped: threading.Event) -> None:
        while not stopped.wait(LONG_RUN):
            with self._guard:
                self._is_wound = False
            try:
                is_needed = self._look()
            except OSError:  # the base cannot be read at this moment
                continue
            with self._guard:
                if not is_needed and not self._is_wound:
                    if self._stopped is stopped:
                        self._thread = None
                    return

    def rest(self) -> None:
        """No more looks until it is wound again; returns when the last one is over."""
        with self._guard:
            thread, stopped = self._thread, self._stopped
            self._thread, self._stopped = None, threading.Event()
        stopped.set()
        if thread is not None and thread is not threading.current_thread():
            thread.join()

    def close(self) -> None:
        """No more looks."""
        self._is_closed = True
        self.rest()


def wanted_cancelled(jobs: Iterable[Job]) -> list[Job]:
    """Those of them that somebody in another process wants cancelled."""
    by_base: dict[str, list[Job]] = {}
    for job in jobs:
        by_base.setdefault(job.spec.base, []).append(job)
    wanted = []
    for base, those in by_base.items():
        requested = basedir.cancel_requests(base)
        if requested:
            wanted += [job for job in those if (job.path, job.queued_at) in requested]
    return wanted
