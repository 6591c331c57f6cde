"""`Project`: the public face. Everything else is reached through it."""

from __future__ import annotations

import atexit
import contextlib
import os
import sys
import time
import weakref
from collections.abc import Sized
from typing import TYPE_CHECKING, Any

from .. import context, directory, locks, reindex
from ..args_idents import Ident, named
from ..basedir import BaseDirectory, request_cancel
from ..dead_sessions import recover_all
from ..engine import Background, Batch, check_executor
from ..errors import InvalidIdent, ProjectError
from ..executors import _inline_cancel
from ..fetcher import Asked, Fetcher, not_found
from ..handle import Resource, failure, free_frames
from ..records import Counts, Entry, seconds
from ..registry import Collection, Registry
from ..store import Store
from .collection import Collection as BoundCollection
from .keeping import Keeping
from .registering import Registering

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping
    from datetime import timedelta
    from typing import Unpack

    from ..engine.dispatcher import Dispatcher
    from ..records import Job
    from .collection import FetchOptions


class Project(Registering, Keeping):
    """A base directory of collections of resources, and the functions that compute them.

    Args:
        base: The base directory; made if it is not there. Returned paths are relative if it is.
        durable: Wait for the disk before a result is acknowledged, so that a power cut loses nothing.
        index: Where the index is, if not in the base: a local path, where the base is on a network file
            system (SQLite's WAL needs memory shared between the processes of one machine).
        create: False: the base must hold a project already, and nothing is made there.

    Raises:
        BaseIsNotADirectory: The base is a file.
        NotAProject: ``create=False``, and there is nothing of ours.

    Nothing is opened before the first use. A Project can be shared by threads, used after a fork, and
    pickled; inside a worker it is inert.
    """

    def __init__(
        self,
        base: str | os.PathLike[str],
        *,
        durable: bool = False,
        index: str | os.PathLike[str] | None = None,
        create: bool = True,
    ) -> None:
        given = os.path.normpath(os.fsdecode(base))
        self._base = BaseDirectory(given, context.bases.get(given) if context.in_worker else None)
        self._durable = durable
        self._index_path = os.path.abspath(os.fsdecode(index)) if index is not None else None
        self._computes = create  # else it was opened to look, or to repair
        self._make_parts()
        if context.in_worker:
            return
        if create:
            self._base.make()
        else:
            reindex.require_project(self._base)

    def _make_parts(self) -> None:
        self._registry = Registry(self._base, self._has_rows)
        self._store = Store(
            self._base,
            self._open_index,
            recover_all,
            self._is_sent_off,
            lambda store: reindex.reindex(store, changed_only=True),
            self._registry.functions,
        )
        self._background = Background(self._store)
        self._fetcher = Fetcher(self._base, self._registry, self._store, self._submit_background, self._pause)
        self._batches: weakref.WeakSet[Batch] = weakref.WeakSet()
        self._exit_hook: Callable[[], None] | None = None
        self._exit_pid = 0
        self._declared: Mapping[str, Mapping[str, str]] = {}

    @property
    def base(self) -> str:
        """The base directory as it was given, normalised."""
        return self._base.given

    @property
    def path(self) -> str:
        """The base directory's absolute path."""
        return self._base.path

    @property
    def collections(self) -> list[str]:
        """Names of the collections registered here or found on the disk."""
        return self._registry.names()

    def __repr__(self) -> str:
        return f'Project({self._base.given!r})'

    def _repr_html_(self) -> str:
        """What a notebook shows: counts by collection."""
        from ..sanitize import html_table

        names = ('total', 'completed', 'error', 'pending')
        rows = [(name, *(counts[key] for key in names)) for name, counts in self.stats().items()]
        return html_table(('collection', *names), rows, f'Project {self._base.given}')

    # --- one resource ------------------------------------------------------------------------------

    def fetch(
        self,
        collection: str,
        ident: Ident,
        args: Mapping[str, Any] | None = None,
        *,
        recompute: bool = False,
        background: bool | None = None,
        wait: bool | float | timedelta | None = None,
        echo: bool = False,
        raise_error: bool = False,
    ) -> Resource:
        """The resource: computed now if it has not been, from disk if it has.

        Args:
            collection: A registered collection.
            ident: Names the resource in it: any text, or a whole number; or the args, which then name it (see
                `hadrosaur.ident_of`).
            args: What the function gets as well: a dict of JSON values. None: what the last run had.
            recompute: Compute it again.
            background: Return at once, with the status pending. None: as the collection says.
            wait: Where it is pending, wait for it: True, or for that long. None: inside a resource's
                function only.
            echo: Show its output here too, while it runs.
            raise_error: Raise where it ended in error.

        Returns:
            ``{'result': …, 'status': {…}, '_paths': {…}}``, see `Resource`. If the function raised, the
            status is error, the result None, and the traceback in error.log; the next fetch tries again.
            If it is being computed elsewhere, the status is pending; inside a resource's function that is
            waited for. ``.value`` is the result in any case, or raises.

        Raises:
            UnknownCollection: No such collection.
            InvalidIdent, InvalidArgs: Refused, before anything is written.
            ResourceFailed: ``raise_error=True``, and it ended in error.
            CycleError: It is being computed, and waits for the resource whose function asks for it.
        """
        known = self._registry.find(collection) or self._registry.get(collection)
        text, given = named(ident, args, collection)
        state: directory.State | None = None
        if not recompute:
            state, found = self._fetcher.saved(known, text, given)
            if found is not None:
                return found
        if wait is not None and type(wait) is not bool:
            wait = _checked_seconds('wait', wait)
        known = self._registry.get(collection)
        background = known.background if background is None else background
        asked = Asked(given, recompute, background, echo)
        resource = self._fetcher.obtain(known, text, asked, state, wait)
        if raise_error and resource.status == 'error':
            raise failure(resource) from resource._cause
        free_frames(resource._cause)
        return resource

    async def afetch(
        self,
        collection: str,
        ident: Ident,
        args: Mapping[str, Any] | None = None,
        **options: Unpack[FetchOptions],
    ) -> Resource:
        """`fetch`, in a thread: the event loop goes on meanwhile.

        Cancelling the task that awaits it does not stop the fetch. Inside a resource's function, several at
        once are computed one after the other.
        """
        import asyncio

        def fetch() -> Resource:
            with context.fetching(context.current()):
                return self.fetch(collection, ident, args, **options)

        return await asyncio.to_thread(fetch)

    def get(self, collection: str, ident: Ident) -> Resource:
        """Look at a resource without ever computing it.

        Raises:
            ResourceNotFound: It was never asked for, or is gone.
        """
        known = self._registry.get_any(collection)
        text, _ = named(ident, None, collection)
        resource = self._fetcher.get(known, text)
        if resource is None:
            raise not_found(self._base, collection, text)
        return resource

    def exists(self, collection: str, ident: Ident) -> bool:
        """Is there such a resource: pending, completed or failed? Nothing is computed."""
        known = self._registry.get_any(collection)
        return self._fetcher.get(known, named(ident, None, collection)[0]) is not None

    def collection(self, name: str) -> BoundCollection:
        """One collection, with the verbs bound to it: ``proj.collection('books').fetch('moby-dick')``.

        Raises:
            UnknownCollection: No function is registered under that name, and no folder has it.
        """
        return BoundCollection(self, self._registry.get_any(name).name)

    # --- many resources ----------------------------------------------------------------------------

    def fetch_many(
        self,
        collection: str,
        idents: Iterable[Any],
        args: Mapping[str, Any] | None = None,
        *,
        workers: int | None = None,
        executor: Any = 'processes',
        threads: int | None = None,
        recompute: bool = False,
        retry_errors: bool = True,
        progress: bool | Callable[[Counts], None] | None = None,
    ) -> Batch:
        """Many resources, in parallel, each yielded as it finishes; a bad one never stops the rest.

        Args:
            collection: A registered collection.
            idents: Idents, (ident, args) pairs, or a mapping of ident to args; dicts of args, such as a
                `hadrosaur.grid`; or what a query gave. Taken lazily, so that it may be a generator of
                millions.
            args: For those that bring none.
            workers: How many are computed at once; None: as many as there are processors.
            executor: ``'processes'``, ``'threads'`` or ``'inline'``; or any `concurrent.futures.Executor`,
                a `dask.distributed.Client`, or the address of a dask scheduler, ``'dask:tcp://host:port'``.
            threads: How many threads numerical libraries (OpenMP, OpenBLAS, MKL, numexpr, Accelerate) may
                start in each worker process. None: what the environment says (``OMP_NUM_THREADS`` …), else
                the processors divided by the workers.
            recompute: Compute those that are there again.
            retry_errors: Compute those that ended in error again.
            progress: True shows it on stderr; a function is called with the `Counts` at each change.

        Returns:
            A `Batch`: iterate it, or call ``.wait()``.
        """
        known = self._registry.get(collection)
        check_executor(executor, workers, threads)
        store = self._fetcher.store()
        is_nested = store is not self._store
        display = self._display(progress, collection, idents)
        batch = Batch(
            store,
            known,
            idents,
            dict(args) if args is not None else None,
            workers=workers,
            threads=None if is_nested else threads,
            executor='inline' if is_nested else executor,
            recompute=recompute,
            retry_errors=retry_errors,
            progress=display,
            on_end=self._batch_ended,
        )
        self._batches.add(batch)
        self._register_exit()
        return batch

    def _display(self, wanted: Any, name: str, idents: Any) -> Callable[[Counts, Entry | None], None] | None:
        if wanted is True:
            from ..progress import show

            return show(name, len(idents) if isinstance(idents, Sized) else None)
        if not wanted:
            return None
        call: Callable[[Counts], None] = wanted
        return lambda counts, _: call(counts)

    def _batch_ended(self, batch: Batch) -> None:
        self._batches.discard(batch)
        if close := getattr(batch.progress, 'close', None):
            close()

    # --- background --------------------------------------------------------------------------------

    def _submit_background(self, collection: Collection, job: Job, args: str | None) -> None:
        self._register_exit()
        self._background.submit_background(collection, job, args)

    def _is_sent_off(self, collection: str, ident: str) -> bool:
        """What an inline batch has at hand is not on its way: only its loop goes on, and it may be ours."""
        return self._is_flying(collection, ident, even_stepped=False)

    def _is_flying(self, collection: str, ident: str, *, even_stepped: bool = True) -> bool:
        found = [each for each in self._dispatchers() if each.in_flight(collection, ident)]
        return any(even_stepped or not each.executor.is_stepped for each in found)

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

    def _register_exit(self) -> None:
        """At interpreter exit, background work is waited for and unfinished batches are stopped."""
        if self._exit_pid != os.getpid() and not context.in_worker:
            pid, me = os.getpid(), weakref.ref(self)
            self._exit_pid = pid

            def at_exit() -> None:
                project = me()
                if project is not None and os.getpid() == pid:
                    project._close_at_exit()

            self._exit_hook = atexit.register(at_exit)

    def _close_at_exit(self) -> None:
        try:
            if left := self._background.count:
                print(f'waiting for {_counted(left)} in the background; Ctrl-C ends that', file=sys.stderr)
            self.close()
        except KeyboardInterrupt:
            self.close(cancel=True)

    def wait(
        self,
        collection: str | None = None,
        ident: Ident | None = None,
        *,
        timeout: float | timedelta | None = None,
    ) -> bool:
        """Wait for the background work of this Project (of one collection or resource); True if it is done.

        Args:
            collection: Only this one's.
            ident: Only this resource.
            timeout: Seconds, or a timedelta, to wait at most.
        """
        timeout = None if timeout is None else _checked_seconds('timeout', timeout)
        if collection is not None:
            self._registry.get_any(collection)
        text = None if ident is None else named(ident, None)[0]
        with self._fetcher.published(self._background.keys(collection, text), timeout):
            return self._background.wait(collection, text, timeout)

    def cancel(self, collection: str, ident: Ident | None = None) -> int:
        """Stop computing a resource, or all of a collection's; returns how many were on their way.

        Those not begun are as if never asked for; those that run are killed, with what they started, and
        end in error ``Cancelled``. What runs in the main thread of a program is interrupted there, as by
        Ctrl-C, in this process at once and in others within a second.

        Raises:
            ExecutorFault: One runs in another thread of this process, where it cannot be stopped.
        """
        known = self._registry.get_any(collection)
        text = None if ident is None else named(ident, None, collection)[0]
        count = sum(dispatcher.cancel(collection, text) for dispatcher in self._dispatchers())
        count += self._fetcher.cancel(collection, text)
        return count + self._cancel_elsewhere(known, text)

    def _cancel_elsewhere(self, known: Collection, ident: str | None) -> int:
        """Leave requests for what other processes compute; they look for them once a second."""
        collection = known.name
        count = 0
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
                    count += 1
        return count

    # --- the end -----------------------------------------------------------------------------------

    def close(self, *, cancel: bool = False) -> None:
        """Wait for background work (``cancel=True``: kill it), end batches, close the index.

        The Project opens again when it is used again.

        Raises:
            ProjectError: Called inside a function that this Project computes: it would end its own work.
        """
        self._refuse_inside()
        self._background.close(cancel=cancel)
        _inline_cancel.rest()
        for batch in list(self._batches):
            batch.close()
        locks.await_enders()
        self._store.close()
        if self._exit_hook is not None:
            atexit.unregister(self._exit_hook)
            self._exit_hook, self._exit_pid = None, 0

    def __enter__(self) -> Project:
        return self

    def __exit__(self, _: object, error: BaseException | None, *__: object) -> None:
        """The end of a with block: waits for background work, unless an error or Ctrl-C leaves the block."""
        is_end = isinstance(error, GeneratorExit) or (isinstance(error, SystemExit) and not error.code)
        if error is not None and not is_end and self._background.count:
            what = _counted(self._background.count)
            print(f'{type(error).__name__}: cancelling {what} in the background', file=sys.stderr)
        self.close(cancel=error is not None and not is_end)

    def _refuse_inside(self) -> None:
        """Closing inside a function of ours would wait for that very function, or end its batch unsaid."""
        running = context.current()
        for base, collection, ident in context.chain_of(running) if running is not None else ():
            here = (collection, ident) in self._fetcher.computing or self._is_flying(collection, ident)
            if base == self._base.path and here:
                raise ProjectError(
                    f'close() inside the function of {collection}/{ident}, which this Project is computing',
                    hint='close it where it was made, once its work is done',
                )

    # --- pickling ----------------------------------------------------------------------------------

    def __getstate__(self) -> dict[str, Any]:
        """Base and registry. Functions that cannot be imported travel only with our own orders."""
        from ..executors import base

        carried, left_out = self._registry.carried(everything=base.is_packing())
        return {
            'given': self._base.given,
            'path': self._base.path,
            'durable': self._durable,
            'index_path': self._index_path,
            'computes': self._computes,
            'collections': carried,
            'left_out': left_out,
        }

    def __setstate__(self, state: dict[str, Any]) -> None:
        self._base = BaseDirectory(state['given'], state['path'])
        self._durable = state['durable']
        self._index_path = state['index_path']
        self._computes = state['computes']
        self._make_parts()
        self._registry.restore(state['collections'], state['left_out'])


def _counted(resources: int) -> str:
    return f'{resources} resource' if resources == 1 else f'{resources} resources'


def _checked_seconds(name: str, value: float | timedelta) -> float:
    found = seconds(value)
    if not isinstance(found, float) or not found >= 0:
        raise ValueError(f'{name} must be a number of seconds from 0 up, or a timedelta, not {value!r}')
    return found
