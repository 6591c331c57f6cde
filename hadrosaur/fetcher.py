"""One resource: serve it from disk, compute it here, send it off, or wait for whoever computes it.

The first question is answered by the directory alone: a completed resource is served with neither
lock nor database. Everything else goes through the store, in the order of the design: the row says
pending, the directory is computed under its lock, the row says what came of it.
"""

from __future__ import annotations

import contextlib
import time
import warnings
from typing import TYPE_CHECKING, Any

from . import canonical, capture, compute, directory
from .errors import CycleError, HadrosaurWarning, IndexFault, ResourceFailed, ResourceNotFound
from .handle import Look, Resource, look
from .records import Entry, Explanation, WorkOrder
from .store import FilesOnly, Store, is_worth_a_retry, retry_order

if TYPE_CHECKING:
    from collections.abc import Callable

    from .basedir import BaseDirectory
    from .directory import State
    from .registry import Collection, Registry

_POLL, _POLL_MOST = 0.005, 1.0  # seconds between looks at a resource that is waited for
_PROBE = 1.0  # seconds between looks at its lock


class Fetcher:
    """Fetches single resources of a project.

    Args:
        base: The base directory.
        registry: The collections.
        store: The live store.
        send_off: Has an order carried out in the background.
        pause: Waits so many seconds, or less if there is news of a resource (collection, ident).
    """

    def __init__(
        self,
        base: BaseDirectory,
        registry: Registry,
        store: Store,
        send_off: Callable[[Collection, WorkOrder], None],
        pause: Callable[[str, str, float], None],
    ) -> None:
        self._base = base
        self._registry = registry
        self._live = store
        self._send_off = send_off
        self._pause = pause

    def store(self) -> Store:
        """The live store; inside a resource's function one that works on files only."""
        running = compute.current()
        if not compute.in_worker and (running is None or compute.base_of(running) != self._base.path):
            return self._live
        return FilesOnly(self._base, running)

    # --- from disk ---------------------------------------------------------------------------------

    def saved(self, collection: Collection, ident: str, args: Any) -> tuple[State | None, Resource | None]:
        """The saved result, with neither lock nor database; else the state that was found."""
        path = collection.task.path
        folder = directory.find_folder(path, ident)
        compared = args is not None or collection.is_versioned
        state, data, record = look(path, folder, with_record=compared)
        if state != 'completed':
            return state, None
        if compared:
            text = None if args is None else canonical.args_json(args, collection.name, ident)
            if collection.is_outdated(ident, record, text, stacklevel=4):
                return state, None
        try:
            value = directory.parse_result(data) if data is not None else _no_result()
        except ValueError as error:
            return self._damaged(collection, ident, folder, data, error), None
        return state, self._live.resource(collection, ident, folder, 'completed', value)

    def _damaged(
        self, collection: Collection, ident: str, folder: str, data: bytes | None, error: ValueError
    ) -> State | None:
        """A result that does not parse while the status still says completed is never served."""
        path = collection.task.path
        again = look(path, folder)
        if again.state != 'completed' or again.result != data:
            return None  # a recompute has begun meanwhile, or is even done
        warnings.warn(
            f'{path}/{folder}/{directory.RESULT} is damaged ({error}); '
            f'a fetch computes {collection.name}/{ident} again',
            HadrosaurWarning,
            stacklevel=4,
        )
        return 'damaged'

    def get(self, collection: Collection, ident: str) -> Resource | None:
        """Look without ever computing; None where there is nothing."""
        folder, (state, data, _) = self._live.look(collection, ident)
        if state in ('pending', 'damaged'):
            state, data, _ = self._looked_at_closely(collection, ident, folder)
        if state == 'damaged':
            spoiled = _damaged_entry(
                collection, ident, f'{directory.STATUS} is damaged, and cannot be mended'
            )
            return self._live.resource(collection, ident, folder, 'error', entry=spoiled)
        if state == 'absent':
            is_queued = self.store().is_queued(collection.name, ident)
            return self.pending(collection, ident, folder) if is_queued else None
        result = None
        if state == 'completed':
            try:
                result = directory.parse_result(data) if data is not None else _no_result()
            except ValueError as error:
                if self._damaged(collection, ident, folder, data, error) is None:
                    return self.get(collection, ident)
                return self._live.resource(
                    collection,
                    ident,
                    folder,
                    'error',
                    entry=_damaged_entry(collection, ident, f'{directory.RESULT} is damaged: {error}'),
                )
        return self._live.resource(collection, ident, folder, state, result, wait=self.wait_for)

    def _looked_at_closely(self, collection: Collection, ident: str, folder: str) -> Look:
        """A pending or damaged resource that nobody computes is what it is once settled."""
        store = self.store()
        if store.is_awaited(collection, ident, folder) or store.settle(collection, ident, folder).busy:
            return Look('pending')
        return look(collection.task.path, folder)

    # --- computed ----------------------------------------------------------------------------------

    def obtain(
        self,
        collection: Collection,
        ident: str,
        args: Any,
        state: State | None,
        *,
        recompute: bool,
        background: bool | None,
        wait: bool | float,
        echo: bool,
    ) -> Resource:
        """Compute a resource whose directory says ``state``, or wait for whoever computes it."""
        store = self.store()
        text = None if args is None else canonical.args_json(args, collection.name, ident)
        how = 'yes' if recompute else 'changed' if state == 'completed' else 'no'
        folder = directory.find_folder(collection.task.path, ident)
        order = store.order(collection, ident, text, folder, recompute=how)
        _refuse_cycle(order)
        if background is None:
            background = collection.background
        if self._is_under_way(store, collection, ident, folder, state):
            resource = self.pending(collection, ident, folder)
        elif isinstance(store, FilesOnly) or not (background or collection.needs_slot):
            resource = self._compute_here(store, collection, order, echo)
        else:
            wait = wait if background else True
            with _echoing(order) if echo and wait else contextlib.nullcontext():
                self._send_off(collection, order)
                resource = self.pending(collection, ident, folder)
                return resource if wait is False else resource.wait(None if wait is True else wait)
        if resource.status == 'pending' and wait is not False:
            resource = resource.wait(None if wait is True else wait)
        return resource

    def _is_under_way(
        self, store: Store, collection: Collection, ident: str, folder: str, state: State | None
    ) -> bool:
        if state in ('absent', 'completed', 'error', 'damaged'):
            return False
        return store.is_awaited(collection, ident, folder)

    def _compute_here(self, store: Store, collection: Collection, order: WorkOrder, echo: bool) -> Resource:
        retries = 0
        if echo:  # chosen now, since the thread that echoes is nobody whose output could be swallowed
            order = order._replace(task=order.task._replace(capture=capture.choose(order.task.capture)))
        while True:
            try:
                if not (store.queue([order], running=True) or retries) and store.is_queued(*order.key):
                    return self.pending(collection, order.ident, order.folder)
                with _echoing(order) if echo else contextlib.nullcontext():
                    outcome = compute.carry_out(order, collection.function)
                store.finish([outcome])
            except IndexFault:  # of queue: there is nothing to be withdrawn, and nothing to write it to
                raise
            except BaseException:
                store.withdraw([order])
                raise
            if outcome.exception is not None:
                raise outcome.exception
            if retries >= collection.retries or not is_worth_a_retry(outcome):
                break
            retries += 1
            order = retry_order(order, outcome)
        if outcome.entry.status == 'pending':
            return self.pending(collection, order.ident, order.folder)
        return store.resource_of(collection, order, outcome)

    def pending(self, collection: Collection, ident: str, folder: str) -> Resource:
        """A pending resource that can be waited for."""
        return self._live.resource(collection, ident, folder, 'pending', wait=self.wait_for)

    def wait_for(self, resource: Resource, seconds: float | None) -> Resource:
        """Look again and again until it is no longer pending; settle it if nobody computes it any more."""
        collection = self._registry.get_any(resource.collection)
        path, ident = collection.task.path, resource.ident
        folder = directory.find_folder(path, ident)
        deadline = None if seconds is None else time.monotonic() + seconds
        pause, probed = _POLL, time.monotonic()
        while self._is_to_come(collection, ident, look(path, folder).state):
            now = time.monotonic()
            if deadline is not None and now >= deadline:
                return self.pending(collection, ident, folder)
            if now - probed >= _PROBE:
                probed = now
                self._looked_at_closely(collection, ident, folder)
            self._pause(collection.name, ident, pause if deadline is None else min(pause, deadline - now))
            pause = min(pause * 1.5, _POLL_MOST)
        self.store().note_done(collection, ident, folder)
        found = self.get(collection, ident)
        if found is None:
            raise ResourceNotFound(
                f'{collection.name}/{ident} was cancelled before it was begun, or removed',
                collection=collection.name,
                ident=ident,
            )
        return found

    def _is_to_come(self, collection: Collection, ident: str, state: State) -> bool:
        """Is it pending? So is what is queued and not begun, and a failed run that is to be tried again."""
        if state in ('pending', 'damaged'):
            return True
        if state == 'completed' or (state == 'error' and not collection.retries):
            return False
        if self._live.is_sent_off(collection.name, ident) or self.store().is_queued(collection.name, ident):
            return True
        folder = directory.find_folder(collection.task.path, ident)
        return state == 'absent' and self.store().is_locked(collection.task.path, folder)

    # --- explained ---------------------------------------------------------------------------------

    def explain(self, collection: Collection, ident: str, args: str | None) -> Explanation:
        """Would a fetch compute, and why; see `Project.explain`."""
        folder, (state, data, record) = self._live.look(collection, ident, with_record=True)
        if state == 'absent':
            if self._live.is_queued(collection.name, ident):
                return Explanation(False, 'it is queued')
            return Explanation(True, 'it was never computed')
        if state in ('pending', 'damaged'):
            if self._live.is_awaited(collection, ident, folder):
                return Explanation(False, 'it is being computed, or queued')
            return Explanation(True, 'its last run was cut off')
        if state == 'error':
            return Explanation(True, 'its last run ended in error')
        try:
            directory.parse_result(data or b'')
        except ValueError as error:
            return Explanation(True, f'its result is damaged: {error}')
        return self._explain_completed(collection, record or {}, args)

    def _explain_completed(
        self, collection: Collection, record: dict[str, Any], args: str | None
    ) -> Explanation:
        whys = compute.differs(record, args, collection.task)
        if not whys:
            return Explanation(False, 'it is completed')
        policy, why = collection.strictest(whys)
        if why == 'age':
            return Explanation(True, f'it is older than {collection.task.expires_after:g} s')
        if not collection.is_registered:
            rule = "only a collection with on_args_change='recompute' computes it again"
            return Explanation(False, f'its {why} changed, and {rule}')
        reason = f"its {why} changed, and the collection's policy is {policy!r}"
        return Explanation(policy == 'recompute', reason)


def failed(resource: Resource) -> ResourceFailed:
    """What ``raise_error=True`` raises."""
    entry = resource.entry
    return ResourceFailed(
        f'{resource.collection}/{resource.ident} ended in error: {entry.error_type}: {entry.error}',
        collection=resource.collection,
        ident=resource.ident,
        traceback_text=resource.error or '',
        hint=f'see {resource.paths["error"]}',
    )


def not_found(base: BaseDirectory, collection: str, ident: str) -> ResourceNotFound:
    """What is raised for a resource that was never asked for, or is gone."""
    return ResourceNotFound(
        f'there is no {collection}/{ident} in {base.given!r}',
        collection=collection,
        ident=ident,
        hint='it was never asked for, or is deleted since',
    )


def _damaged_entry(collection: Collection, ident: str, what: str) -> Entry:
    return Entry.make(
        collection=collection.name,
        ident=ident,
        status='error',
        error_type='Damaged',
        error=what,
    )


def _no_result() -> Any:
    raise ValueError(f'{directory.RESULT} is missing')


def _refuse_cycle(order: WorkOrder) -> None:
    if order.key in order.chain:
        path = ' → '.join('/'.join(step) for step in (*order.chain, order.key))
        raise CycleError(
            f'a resource cannot wait for itself: {path}', collection=order.collection, ident=order.ident
        )


def _echoing(order: WorkOrder) -> contextlib.AbstractContextManager[None]:
    from .echo import following

    return following(f'{order.task.path}/{order.folder}', (directory.STDOUT, directory.STDERR))
