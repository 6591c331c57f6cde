"""The part of a Project that knows what is in flight: who computes it, how it is awaited and cancelled."""

from __future__ import annotations

import contextlib
import time
from typing import TYPE_CHECKING, Any, Self

from .. import directory
from ..args_idents import named
from ..basedir import request_cancel
from ..errors import InvalidIdent
from ..records import checked_seconds

if TYPE_CHECKING:
    import weakref
    from collections.abc import Callable, Iterable
    from datetime import timedelta

    from ..args_idents import Ident
    from ..basedir import BaseDirectory
    from ..engine import Background, Batch
    from ..engine.dispatcher import Dispatcher, Submission
    from ..fetcher import Fetcher
    from ..handle import Resource
    from ..index import Index
    from ..records import Entry
    from ..registry import Collection, Registry
    from ..store import Store


class CancelRequest(int):
    """The number of resources that were asked to stop, as an int that can be waited for.

    Attributes:
        collection: Name of the collection.
        idents: Idents of the resources that were asked to stop.
    """

    collection: str
    idents: tuple[str, ...]
    _wait: Callable[[str, tuple[str, ...], float | None], bool]

    def __new__(  # noqa: D102  the class says it
        cls,
        count: int,
        collection: str,
        idents: tuple[str, ...],
        wait: Callable[[str, tuple[str, ...], float | None], bool],
    ) -> Self:
        made = super().__new__(cls, count)
        made.collection, made.idents, made._wait = collection, idents, wait
        return made

    def wait(self, timeout: float | timedelta | None = None) -> bool:
        """Wait until every resource has stopped, or finished before it could be stopped.

        Args:
            timeout: Maximum time to wait, in seconds or as a timedelta; None: no limit.

        Returns:
            True if none of them is pending any more, False if the timeout passed.
        """
        limit = None if timeout is None else checked_seconds('timeout', timeout)
        return self._wait(self.collection, self.idents, limit)

    def __repr__(self) -> str:
        return f'<CancelRequest of {int(self)} in {self.collection!r}>'

    def __reduce__(self) -> tuple[Any, ...]:
        return int, (int(self),)  # a copy elsewhere can wait for nothing


class InFlight:
    """The methods of a `Project` for resources that are queued or being computed."""

    _base: BaseDirectory
    _background: Background
    _batches: weakref.WeakSet[Batch]
    _fetcher: Fetcher
    _registry: Registry
    _store: Store
    if TYPE_CHECKING:

        def _index(self) -> Index: ...

    def _is_sent_off(self, collection: str, ident: str) -> bool:
        """What an inline batch has at hand is not on its way: only its loop goes on, and it may be ours."""
        return self._is_flying(collection, ident, even_stepped=False)

    def _is_flying(self, collection: str, ident: str, *, even_stepped: bool = True) -> bool:
        found = [each for each in self._dispatchers() if each.in_flight(collection, ident)]
        return any(even_stepped or not each.executor.is_stepped for each in found)

    def _submissions(self, collection: str, ident: str | None) -> list[Submission]:
        return [item for each in self._dispatchers() for item in each.in_flight(collection, ident)]

    def _pause(self, collection: str, ident: str, seconds: float) -> None:
        """Wait so long; no longer than a resource is on its way, where that is so."""
        for dispatcher in self._dispatchers():
            if dispatcher.in_flight(collection, ident):
                dispatcher.wait_idle(collection, ident, seconds)
                return
        time.sleep(seconds)

    def _dispatchers(self) -> list[Dispatcher]:
        found = [self._background.dispatcher, *(batch.dispatcher for batch in list(self._batches))]
        return [dispatcher for dispatcher in found if dispatcher is not None]

    def wait(
        self,
        collection: str | None = None,
        ident: Ident | None = None,
        *,
        timeout: float | timedelta | None = None,
    ) -> bool:
        """Wait for this Project's background work.

        Args:
            collection: Wait for this collection only.
            ident: Wait for this resource only.
            timeout: Maximum time to wait, in seconds or as a timedelta; None: no limit.

        Returns:
            True if all of it is done, False if the timeout passed.
        """
        timeout = None if timeout is None else checked_seconds('timeout', timeout)
        if collection is not None:
            self._registry.get_any(collection)
        text = None if ident is None else named(ident, None)[0]
        with self._fetcher.published(self._background.keys(collection, text), timeout):
            is_done = self._background.wait(collection, text, timeout)
        self._store.hooks.call()
        return is_done

    def cancel(self, collection: str, ident: Ident | None = None) -> CancelRequest:
        """Ask for a pending resource, or all pending ones of a collection, to be stopped.

        A resource that has not started is withdrawn, as if it had never been requested. A running one is
        killed, together with the processes it started, and ends in error ``Cancelled``. One that runs in
        a program's main thread is interrupted there as by Ctrl-C: at once in this process, within a
        second in others.

        Args:
            collection: Name of the collection.
            ident: One resource; None: all pending ones.

        Returns:
            A `CancelRequest`: the number of resources asked to stop, with their ``idents`` and ``wait()``.

        Raises:
            ExecutorFault: A resource runs in another thread of this process, where it cannot be stopped.
        """
        known = self._registry.get_any(collection)
        text = None if ident is None else named(ident, None, collection)[0]
        flying = [each.job.ident for each in self._submissions(collection, text)]
        count = sum(dispatcher.cancel(collection, text) for dispatcher in self._dispatchers())
        computing = [name for known_as, name in self._fetcher.computing if known_as == collection]
        flying += [name for name in computing if text in (None, name)]
        count += self._fetcher.cancel(collection, text)
        elsewhere = self._cancel_elsewhere(known, text)
        idents = tuple(dict.fromkeys((*flying, *elsewhere)))
        return CancelRequest(count + len(elsewhere), collection, idents, self._await_cancelled)

    def _await_cancelled(self, collection: str, idents: Iterable[str], seconds: float | None) -> bool:
        """Wait until none of these is pending or running; False if that takes longer."""
        deadline = None if seconds is None else time.monotonic() + seconds
        known = self._registry.get_any(collection)
        for ident in idents:
            pause = 0.01
            while self._is_flying(collection, ident) or _is_pending(self._fetcher.get(known, ident)):
                left = pause if deadline is None else min(pause, deadline - time.monotonic())
                if left <= 0:
                    return False
                self._pause(collection, ident, left)
                pause = min(0.5, pause * 1.5)
        return True

    def _cancel_elsewhere(self, known: Collection, ident: str | None) -> list[str]:
        """Leave cancel requests for resources that other processes compute, who check once a second."""
        collection = known.name
        asked: list[str] = []
        session = self._base.session()
        if ident is None:
            rows: Iterable[Entry | None] = self._index().find(collection, status='pending')
        else:
            rows = [self._index().get(collection, ident)]
        for entry in rows:
            if entry is not None and entry.status == 'pending' and entry.session != session:
                with contextlib.suppress(InvalidIdent):  # a row of no resource
                    path = f'{known.spec.folder}/{directory.find_folder(known.spec.path, entry.ident)}'
                    request_cancel(self._base.path, path, entry.raw('queued_at') or '')
                    asked.append(entry.ident)
        return asked


def _is_pending(resource: Resource | None) -> bool:
    return resource is not None and resource.status == 'pending'
