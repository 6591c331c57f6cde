"""Background work: single resources computed while the program goes on."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from .. import compute
from ..errors import ExecutorFault, warn
from ..locks import Guarded
from .dispatcher import Dispatcher, Submission

if TYPE_CHECKING:
    from ..records import Job
    from ..registry import Collection
    from ..store import Store


class Background(Guarded):
    """Workers that are created on first use and kept until `close`; a forked child gets its own."""

    def __init__(self, store: Store) -> None:
        super().__init__()
        self._store = store
        self._made: tuple[int, Dispatcher] | None = None

    @property
    def dispatcher(self) -> Dispatcher | None:
        """The dispatcher, once it was started in this process."""
        made = self._made
        return made[1] if made is not None and made[0] == os.getpid() else None

    @property
    def count(self) -> int:
        """Number of resources in flight."""
        dispatcher = self.dispatcher
        return len(dispatcher) if dispatcher is not None and dispatcher.fault is None else 0

    def submit_background(self, collection: Collection, job: Job, args: str | None) -> None:
        """Submit a job; its directory says pending before this returns.

        ``args``: canonical JSON of the args that were given, None if none were.
        """
        with self._guard:  # to the end, so that no job meets a dispatcher that is just being closed
            dispatcher = self._dispatcher()
            if dispatcher.in_flight(*job.key):
                return
            try:
                self._store.queue([job])  # first: a pending folder that no living session owns is recovered
                dispatcher.executor.renew()
                if compute.enqueue(job):
                    dispatcher.take([Submission(collection, job, args)])
                else:
                    self._store.release_ownership([job.key])
            except BaseException:  # Ctrl-C, or a disk that refuses: no row without a job
                if not dispatcher.in_flight(*job.key):
                    self._store.unqueue([job])
                raise

    def _dispatcher(self) -> Dispatcher:
        dispatcher = self.dispatcher
        if dispatcher is not None and dispatcher.fault is not None:  # its workers could not be started
            dispatcher.stop(interrupt=False)
            dispatcher = None
        if dispatcher is None:
            dispatcher = Dispatcher(self._store, 'processes', None, keep=False)
            self._made = (os.getpid(), dispatcher)
        return dispatcher

    def keys(self, collection: str | None, ident: str | None) -> list[tuple[str, str]]:
        """Return (collection, ident) of everything in flight that matches."""
        dispatcher = self.dispatcher
        return [each.job.key for each in dispatcher.in_flight(collection, ident)] if dispatcher else []

    def wait(self, collection: str | None, ident: str | None, timeout: float | None) -> bool:
        """Wait until nothing of this is in flight; False if that takes longer than ``timeout`` seconds."""
        dispatcher = self.dispatcher
        return dispatcher is None or dispatcher.wait_idle(collection, ident, timeout)

    def close(self, *, cancel: bool) -> None:
        """Wait for what is in flight, or kill it; then stop the workers."""
        try:
            if not cancel:
                self.wait(None, None, None)
        except ExecutorFault as fault:  # what it had is recovered below
            warn(f'background work was given up: {fault}')
            cancel = True
        with self._guard:
            dispatcher, self._made = self.dispatcher, None
        if dispatcher is not None:
            if not cancel:
                dispatcher.wait_idle()  # what was sent off in between
            dispatcher.stop(interrupt=False)
