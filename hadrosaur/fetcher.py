"""One resource: serve it from disk, compute it here, send it off, or wait for whoever computes it.

The first question is answered by the directory alone: a completed resource is served with neither
lock nor database. Everything else goes through the store, in the order of the design: the row says
pending, the directory is computed under its lock, the row says what came of it.
"""

from __future__ import annotations

import contextlib
import json
import os
import time
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple

from . import canonical, capture, context, dependencies, directory, limits, reuse, wait_graph
from .errors import IndexFault, ResourceNotFound
from .executors import _inline_cancel
from .handle import FolderState, Resource, look
from .records import NO_FACTS, Difference, Entry, Explanation, Job, RunResult
from .store import FilesOnly, Store, is_worth_a_retry, retry_order

if TYPE_CHECKING:
    from collections.abc import Callable

    from .basedir import BaseDirectory
    from .directory import State
    from .executors.base import Function
    from .records import Facts, Reason
    from .registry import Collection, Registry

_POLL, _POLL_MOST = 0.005, 1.0  # seconds between looks at a resource that is waited for
_PROBE = 1.0  # seconds between looks at its lock


class Asked(NamedTuple):
    """What a caller asked for. A pending resource keeps it, for when it is waited for."""

    args: str | None = None  # canonical JSON; None where none were given
    recompute: bool = False
    background: bool = False
    echo: bool = False


class Fetcher:
    """Fetches single resources of a project.

    Args:
        base: The base directory.
        registry: The collections.
        store: The live store.
        send_off: Has a job carried out in the background; the args that were given, if any.
        pause: Waits so many seconds, or less if there is news of a resource (collection, ident).
    """

    def __init__(
        self,
        base: BaseDirectory,
        registry: Registry,
        store: Store,
        submit_background: Callable[[Collection, Job, str | None], None],
        pause: Callable[[str, str, float], None],
    ) -> None:
        self._base = base
        self._registry = registry
        self._live = store
        self._submit_background = submit_background
        self._pause = pause
        self.computing: list[tuple[str, str]] = []  # what is computed here just now

    def store(self) -> Store:
        """The live store; inside a resource's function one that works on files only."""
        running = context.current()
        if not context.in_worker and (running is None or context.base_of(running) != self._base.path):
            return self._live
        return FilesOnly(self._base, running)

    # --- from disk ---------------------------------------------------------------------------------

    def saved(
        self, collection: Collection, ident: str, args: str | None
    ) -> tuple[State | None, Resource | None]:
        """The saved result, with neither lock nor database; else the state that was found.

        ``args``: canonical JSON, None where none were given.
        """
        path = collection.spec.path
        folder = directory.find_folder(path, ident)
        inside = self._inside()
        compared = args is not None or collection.is_versioned
        found = look(path, folder, with_record=compared or inside is not None)
        if found.state != 'completed':
            return found.state, None
        if found.damage is not None:  # there is nothing that a policy could keep
            self._live.warn_of_damage(collection, ident, folder, found.damage)
            return 'damaged', None
        if compared and collection.is_outdated(ident, found.record, args, self._base):
            return found.state, None
        resource = self._live.resource(collection, ident, folder, 'completed', found.value, seen=found)
        if inside is not None:
            inside.note_use(resource)
        return found.state, resource

    def _inside(self) -> FilesOnly | None:
        """Inside a function of this base: the store that notes what it is given."""
        running = context.current()
        is_inside = running is not None and context.base_of(running) == self._base.path
        return FilesOnly(self._base, running) if is_inside else None

    def get(self, collection: Collection, ident: str) -> Resource | None:
        """Look without ever computing it; None where there is nothing."""
        inside = self._inside()
        resource = self.peek(collection, ident, with_record=inside is not None)
        if inside is not None and resource is not None:
            inside.note_use(resource)
        return resource

    def peek(self, collection: Collection, ident: str, *, with_record: bool = False) -> Resource | None:
        """`get`, without noting that a function was given it."""
        folder, found = self._live.look(collection, ident, with_record=with_record)
        entry: Entry | None = None
        if found.state in ('pending', 'damaged'):
            found, entry = self._looked_at_closely(collection, ident, folder)
        if found.state == 'absent':
            is_queued = self.store().is_queued(collection.name, ident)
            return self.pending(collection, ident, folder) if is_queued else None
        what = None
        if found.state == 'damaged':
            what = f'{directory.STATUS} is damaged, and cannot be repaired'
        elif found.damage is not None:
            self._live.warn_of_damage(collection, ident, folder, found.damage)
            what = f'{directory.RESULT} is damaged: {found.damage}'
        if what is not None:
            ended_in_error = _damaged_entry(collection, ident, what)
            return self._live.resource(collection, ident, folder, 'error', entry=ended_in_error)
        more: dict[str, Any] = {'wait': self.wait_for, 'entry': entry, 'seen': found}
        return self._live.resource(collection, ident, folder, found.state, found.value, **more)

    def _looked_at_closely(
        self, collection: Collection, ident: str, folder: str
    ) -> tuple[FolderState, Entry | None]:
        """What is found, and the row if that cannot be written, of a pending or damaged resource.

        One that nobody computes is what it is once recovered, or would be, where it cannot be changed.
        """
        store = self.store()
        if store.is_in_progress(collection, ident, folder):
            return FolderState('pending'), None
        recovered = store.recover(collection, ident, folder)
        if recovered.busy and recovered.ended_in_error is None:
            return FolderState('pending'), None
        found = look(collection.spec.path, folder, with_record=True)
        if not recovered.is_foreseen or found.state not in ('pending', 'damaged'):
            return found, None
        foreseen = recovered.foreseen
        if foreseen is None:
            return FolderState('damaged' if found.state == 'damaged' else 'absent'), None
        value = store.result(collection, folder) if foreseen.status == 'completed' else None
        return FolderState(foreseen.status, value), foreseen

    # --- computed ----------------------------------------------------------------------------------

    def obtain(
        self,
        collection: Collection,
        ident: str,
        asked: Asked,
        state: State | None,
        wait: bool | float | None,
    ) -> Resource:
        """Compute a resource whose directory says ``state``, or wait for whoever computes it.

        ``wait``: for so many seconds, or True, or False; None waits inside a resource's function only.
        """
        if wait is None:
            wait = is_inside()
        end = None if wait is True else time.monotonic() + wait
        folder = directory.find_folder(collection.spec.path, ident)
        while True:
            store = self.store()
            how = 'yes' if asked.recompute else 'changed' if state == 'completed' else 'no'
            job = store.job(collection, ident, asked.args, folder, recompute=how)
            sent = False
            with contextlib.ExitStack() as echoing:
                if self._is_under_way(store, collection, ident, folder, state):
                    pass
                elif state in ('pending', 'damaged') and _cannot_be_changed(job):
                    return self.get(collection, ident) or self.pending(collection, ident, folder, asked)
                elif isinstance(store, FilesOnly) or not (asked.background or collection.needs_worker):
                    run_result = self._compute_here(store, collection, job, asked.echo)
                    if run_result is not None and (run_result.fresh or run_result.not_started):
                        resource = store.resource_of(collection, job, run_result)
                        store.note_use(resource)
                        return resource
                else:
                    sent = True
                    if asked.echo and (wait or not asked.background):
                        echoing.enter_context(_echoing(job))
                    self._submit_background(collection, job, asked.args)
                    if asked.background and wait is False:
                        return self.pending(collection, ident, folder, asked)
                if not self._await(collection, ident, None if sent and not asked.background else end):
                    return self.pending(collection, ident, folder, asked)
            is_for_others = sent or (asked.background and not isinstance(store, FilesOnly))
            state, found = self._when_over(collection, ident, asked, computes=not is_for_others)
            if found is not None:
                return found

    def _is_under_way(
        self, store: Store, collection: Collection, ident: str, folder: str, state: State | None
    ) -> bool:
        if state in ('absent', 'completed', 'error', 'damaged'):
            return False
        return store.is_in_progress(collection, ident, folder)

    def _compute_here(self, store: Store, collection: Collection, job: Job, echo: bool) -> RunResult | None:
        """What came of the job, or of the last of its retries; None where somebody else has it queued."""
        retries = 0
        if echo:  # chosen now, since the thread that echoes is nobody whose output could be swallowed
            from .tee import needs_streams

            way = job.spec.capture
            way = 'streams' if way == 'auto' and needs_streams() else capture.choose(way)
            job = job._replace(spec=job.spec._replace(capture=way))
        while True:
            try:
                if not (store.queue([job], running=True) or retries) and store.is_queued(*job.key):
                    return None
                with _echoing(job) if echo else contextlib.nullcontext():
                    self.computing.append(job.key)
                    try:
                        run_result = _when_it_may(job, collection.program)
                    finally:
                        self.computing.remove(job.key)
                store.finish([run_result])
            except IndexFault:  # of queue: there is nothing to be withdrawn, and nothing to write it to
                raise
            except BaseException:
                store.unqueue([job])
                raise
            is_last = retries >= collection.retries or not is_worth_a_retry(
                run_result, collection.spec.retry_on
            )
            if store.hooks.is_used:
                store.note(collection, job, run_result, is_last=is_last)
            if run_result.exception is not None:
                raise run_result.exception
            if is_last:
                return run_result
            retries += 1
            job = retry_order(job, run_result)

    def cancel(self, collection: str, ident: str | None) -> int:
        """Interrupt what a fetch in the main thread computes: a resource, or all of a collection's; how many.

        Raises ExecutorFault where it is another thread.
        """
        keys = [key for key in self.computing if key[0] == collection and ident in (None, key[1])]
        return _inline_cancel.cancel(lambda job: job.key in keys and job.spec.base == self._base.path)

    # --- waited for --------------------------------------------------------------------------------

    def pending(
        self, collection: Collection, ident: str, folder: str, asked: Asked | None = None
    ) -> Resource:
        """A pending resource that can be waited for."""
        wait = self.wait_for if asked is None else partial(self.wait_for, asked=asked)
        return self._live.resource(collection, ident, folder, 'pending', wait=wait)

    def wait_for(self, resource: Resource, seconds: float | None, asked: Asked | None = None) -> Resource:
        """Look again and again until it is no longer pending; recover it if nobody computes it any more.

        Whoever computed it may have done so with other args, or another version, than was ``asked`` for:
        then the collection's policies hold, as for any saved result.
        """
        collection = self._registry.get_any(resource.collection)
        ident = resource.ident
        folder = directory.find_folder(collection.spec.path, ident)
        end = None if seconds is None else time.monotonic() + seconds
        while self._await(collection, ident, end):
            state, found = self._when_over(collection, ident, asked, computes=False)
            self._live.hooks.call()
            if found is not None:
                return found
            if asked is not None and state in ('completed', 'error'):
                left = True if end is None else max(0.0, end - time.monotonic())
                return self.obtain(collection, ident, asked, state, left)
        return self.pending(collection, ident, folder, asked)

    def _await(self, collection: Collection, ident: str, end: float | None) -> bool:
        """Wait until nobody is computing a resource; False where that takes longer than ``end``."""
        path = collection.spec.path
        folder = directory.find_folder(path, ident)
        if not self._is_to_come(collection, ident, look(path, folder).state):
            return True
        with self.published([(collection.name, ident)], end):
            pause, probed = _POLL, time.monotonic()
            while self._is_to_come(collection, ident, look(path, folder).state):
                now = time.monotonic()
                if end is not None and now >= end:
                    return False
                if now - probed >= _PROBE:
                    probed = now
                    if not self.store().is_in_progress(collection, ident, folder):
                        return True
                self._pause(collection.name, ident, pause if end is None else min(pause, end - now))
                pause = min(pause * 1.5, _POLL_MOST)
        return True

    def published(
        self, wanted: list[tuple[str, str]], end: float | None
    ) -> contextlib.AbstractContextManager[None]:
        """Inside a function others must know who waits for whom; not where the wait ends by itself.

        ``wanted``: (collection, ident) of what is waited for.
        """
        running = context.current()
        if running is None:
            return contextlib.nullcontext()
        chain = context.chain_of(running)
        steps = [(self._base.path, *key) for key in wanted]
        for step in steps:
            if step in chain:
                raise wait_graph.itself(chain, step)
        if end is not None:
            return contextlib.nullcontext()
        return wait_graph.waiting_for(self._base.hidden, chain, steps)

    def _is_to_come(self, collection: Collection, ident: str, state: State) -> bool:
        """Is it pending? So is what is queued and not begun, and a failed run that is to be tried again.

        Inside a function only what is being computed counts: the rest can be computed there, and whoever
        has it queued may be waiting for that very function.
        """
        if state in ('pending', 'damaged'):
            return True
        if state == 'completed':
            return False
        store = self.store()
        is_tried_again = state == 'absent' or bool(collection.retries)
        if (
            is_tried_again
            and not isinstance(store, FilesOnly)
            and (store.is_sent_off(collection.name, ident) or store.is_queued(collection.name, ident))
        ):
            return True
        folder = directory.find_folder(collection.spec.path, ident)
        return store.is_locked(collection.spec.path, folder)  # about to begin

    def _when_over(
        self, collection: Collection, ident: str, asked: Asked | None, *, computes: bool
    ) -> tuple[State | None, Resource | None]:
        """What somebody else's run has left: the resource, or the state from which to compute it.

        Args:
            collection: The collection.
            ident: The resource's ident.
            asked: What is wanted; None: whatever there is.
            computes: What was never begun, or was cut off, is to be computed, rather than told of.
        """
        store = self.store()
        folder, seen = store.look(collection, ident)
        state: State | None = seen.state
        if state in ('completed', 'error'):
            store.sync_finished(collection, ident, folder)
        if asked is not None and state == 'completed':
            if asked.recompute and self._is_other(collection, folder, asked.args):
                return state, None
            state, found = self.saved(collection, ident, asked.args)
            if found is not None or state == 'completed':
                return state, found
        if asked is not None and state == 'error' and self._is_tried_here(store, collection, folder, asked):
            return state, None
        if computes and state != 'error':
            return state, None
        found = self.get(collection, ident)
        if found is None:
            raise ResourceNotFound(
                f'{collection.name}/{ident} was cancelled before it started, or removed',
                collection=collection.name,
                ident=ident,
            )
        return ('pending', None) if found.status == 'pending' else (found.status, found)

    def _is_other(self, collection: Collection, folder: str, args: str | None) -> bool:
        """Was it computed with other args, or by another version?"""
        record = self._live.record(collection, folder) or {}
        return bool(reuse.differs(record, args, collection.spec))

    def _is_tried_here(self, store: Store, collection: Collection, folder: str, asked: Asked) -> bool:
        """A failure is somebody else's only where args were the same, and the last attempt of several."""
        if collection.retries and isinstance(store, FilesOnly):
            return True  # whoever computes it may be about to try again, and cannot be asked
        record = store.record(collection, folder) or {}
        return asked.args is not None and (directory.recorded_args(record) or '{}') != asked.args

    # --- explained ---------------------------------------------------------------------------------

    def explain(
        self,
        collection: Collection,
        ident: str,
        args: str | None,
        *,
        recompute: bool = False,
        retry_errors: bool = True,
    ) -> Explanation:
        """Would a fetch compute, and why; see `Project.explain`."""
        folder, found = self._live.look(collection, ident, with_record=True)
        state = found.state
        if state == 'absent':
            if self._live.is_queued(collection.name, ident):
                return Explanation(False, 'it is queued', 'queued')
            return Explanation(True, 'it was never computed', 'new')
        if state in ('pending', 'damaged'):
            if not self._live.is_in_progress(collection, ident, folder):
                return Explanation(True, 'its last run was cut off', 'cut-off')
            return self._explain_pending(collection, folder, args, recompute)
        if state == 'error':
            why = 'its last run ended in error'
            return self._with_cause(
                Explanation(retry_errors, why, 'error'), collection, ident, found.record or {}
            )
        if found.damage is not None:
            return Explanation(True, f'its result is damaged: {found.damage}', 'damaged')
        record = found.record or {}
        if recompute:
            explained = Explanation(True, 'it is completed, and asked for anew', 'recompute')
        else:
            explained = self._explain_completed(collection, record, args, ident)
        explained = explained._replace(differences=_differences(collection, record, args, self._base.facts()))
        return self._with_cause(explained, collection, ident, record)

    def _with_cause(
        self, explained: Explanation, collection: Collection, ident: str, record: dict[str, Any]
    ) -> Explanation:
        """The same, with why the resource is stale, if it is."""
        key = (collection.name, ident)
        cause = dependencies.cause(self._base.path, key, record, self._base.facts())
        if cause is None:
            return explained
        reason = explained.reason
        if explained.code == 'completed':
            reason = f'it is completed, and stale: {cause.because}'
        return explained._replace(reason=reason, stale_because=cause.because, chain=cause.chain)

    def _explain_pending(
        self, collection: Collection, folder: str, args: str | None, recompute: bool
    ) -> Explanation:
        """Somebody computes it, or will; where that is not what is asked for, the policies come after it."""
        record = self._live.record(collection, folder) or {}
        if record.get('state') == 'begun' and args is not None:
            found = self._explain_completed(collection, record, args)
            if found.code == 'args' and (recompute or found.computes or found.refused):
                return Explanation(
                    recompute or found.computes,
                    'it is being computed with other args, and then ' + found.reason,
                    'args',
                    found.refused and not recompute,
                )
        return Explanation(False, 'it is being computed, or queued', 'pending')

    def _explain_completed(
        self, collection: Collection, record: dict[str, Any], args: str | None, ident: str | None = None
    ) -> Explanation:
        whys = reuse.differs(record, args, collection.spec)
        causes = {} if ident is None else collection.causes(ident, record, self._base)
        whys += causes
        if not whys:
            return Explanation(False, 'it is completed', 'completed')
        policy, why = collection.strictest(whys)
        if why == 'age':
            return Explanation(True, f'it is older than {collection.spec.expires_after:g} s', 'age')
        code: Reason = why  # type: ignore[assignment]
        if not collection.is_registered:
            rule = "only a collection with on_args_change='recompute' computes it again"
            return Explanation(False, f'its {why} changed, and {rule}', code)
        reason = f"its {why} changed, and the collection's policy is {policy!r}"
        if why in causes:
            reason = f"it is stale ({causes[why]}), and the collection's policy is {policy!r}"
        return Explanation(policy == 'recompute', reason, code, policy == 'error')


def _differences(
    collection: Collection, record: dict[str, Any], args: str | None, facts: dict[str, Facts]
) -> tuple[Difference, ...]:
    """In which args a resource differs from what is asked for, and in its version."""
    found = []
    if args is not None:
        old, new = json.loads(directory.recorded_args(record) or '{}'), json.loads(args)
        for name in sorted(old.keys() | new.keys()):
            pair = [canonical.args_json({name: each[name]}) if name in each else None for each in (old, new)]
            if pair[0] != pair[1]:
                found.append(Difference(f'args.{name}', old.get(name), new.get(name)))
    version = facts.get(collection.name, NO_FACTS).version
    if version is not None and version != record.get('version'):
        found.append(Difference('version', record.get('version'), version))
    return tuple(found)


def not_found(base: BaseDirectory, collection: str, ident: str) -> ResourceNotFound:
    """What is raised for a resource that was never asked for, or is gone."""
    return ResourceNotFound(
        f'there is no {collection}/{ident} in {base.given!r}',
        collection=collection,
        ident=ident,
        hint='it was never asked for, or was removed',
    )


def _damaged_entry(collection: Collection, ident: str, what: str) -> Entry:
    return Entry.make(
        collection=collection.name,
        ident=ident,
        status='error',
        error_type='Damaged',
        error=what,
    )


def is_inside() -> bool:
    """Are we inside a resource's function (or a worker, which does nothing else)?"""
    return context.in_worker or context.current() is not None


def _cannot_be_changed(job: Job) -> bool:
    path = f'{job.spec.path}/{job.folder}'
    return os.path.isdir(path) and not os.access(path, os.W_OK)


def _when_it_may(job: Job, function: Function) -> RunResult:
    """What comes of a job, once the limits of its collection let it begin."""
    times = 0
    while True:
        run_result = _inline_cancel.carry_out(job, function)
        if run_result.later is None:
            return run_result
        times += 1
        time.sleep(limits.pause(run_result.later, times))


def _echoing(job: Job) -> contextlib.AbstractContextManager[None]:
    from .tee import following

    return following(f'{job.spec.path}/{job.folder}', (directory.STDOUT, directory.STDERR))
