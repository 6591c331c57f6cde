"""`Project`, the class that users work with. Everything else is reached through it."""

from __future__ import annotations

import atexit
import os
import sys
import weakref
from collections.abc import Sized
from heapq import nlargest
from typing import TYPE_CHECKING, Any, cast, overload

from .. import context, directory, locks, reindex
from ..args_idents import Ident, named
from ..basedir import BaseDirectory
from ..dead_sessions import recover_all
from ..engine import Background, Batch, check_executor
from ..errors import HadrosaurError, ProjectError
from ..executors import _inline_cancel
from ..fetcher import Asked, Fetcher, not_found
from ..handle import Resource, failure, free_frames
from ..records import Counts, Entry, checked_seconds
from ..registry import Collection, Registry
from ..store import Store
from .collection import Collection as BoundCollection
from .in_flight import InFlight
from .keeping import Keeping
from .registering import Registering

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping
    from datetime import timedelta
    from typing import Unpack

    from ..index import Query
    from ..records import Job
    from .collection import FetchOptions, NamedFetchOptions


class Project(Registering, InFlight, Keeping):
    """A base directory with collections of resources, and the functions that compute them.

    The index is opened on first use. A Project can be shared between threads, used after a fork, and
    pickled. Inside a worker process it opens nothing.

    Args:
        base: Path of the base directory; created if missing. Returned paths are relative if it is relative.
        durable: Sync files to disk before a result is acknowledged, so that a power cut loses nothing.
        index: Path of the index file; default: inside the base. Give a local path if the base is on a
            network file system, because SQLite's WAL mode works on one machine only.
        create: False opens an existing project to read it: nothing is created or recorded in the base
            before you compute something.

    Raises:
        BaseIsNotADirectory: The base is a file.
        NotAProject: ``create=False``, and the directory holds no project.
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
        self._computes = create  # False: opened to read, or to repair
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
        self._declared: Any = None

    @property
    def base(self) -> str:
        """The base directory as you gave it, normalised."""
        return self._base.given

    @property
    def path(self) -> str:
        """Absolute path of the base directory."""
        return self._base.path

    @property
    def collections(self) -> list[str]:
        """Names of all collections: registered here, or found in the base directory."""
        return self._registry.names()

    def __repr__(self) -> str:
        return f'Project({self._base.given!r})'

    def _repr_html_(self) -> str:
        """Counts by collection and the last failures as tables, for notebooks."""
        from ..sanitize import MOST_ROWS, html_table, local, seconds

        names = ('total', 'completed', 'error', 'pending')
        try:
            stats = self.stats()
            failures = list(self.query(status='error', limit=5))
        except (HadrosaurError, OSError) as error:
            return html_table((), (), f'{self!r}: {error}')
        largest = nlargest(MOST_ROWS, stats, key=lambda name: stats[name]['total'])
        rows = [
            (name, *(counts[key] for key in names), seconds(counts['duration']['p50']))
            for name, counts in stats.items()
            if name in largest
        ]
        which = f': the largest {len(rows)} of {len(stats)} collections' if len(stats) > len(rows) else ''
        found = html_table(('collection', *names, 'p50'), rows, f'{self!r}{which}')
        if failures:
            told = [
                (row.collection, row.ident, local(row.finished_at), f'{row.error_type}: {row.error}')
                for row in failures
            ]
            found += html_table(('collection', 'ident', 'finished', 'error'), told, 'last failures')
        return found

    # --- one resource ------------------------------------------------------------------------------

    @overload
    def fetch(
        self,
        collection: str,
        ident: Ident,
        args: Mapping[str, Any] | None = None,
        **options: Unpack[FetchOptions],
    ) -> Resource: ...
    @overload
    def fetch(
        self,
        *,
        collection_name: str,
        ident: Ident,
        args: Mapping[str, Any] | None = None,
        **options: Unpack[FetchOptions],
    ) -> Resource: ...
    def fetch(
        self,
        collection: str | None = None,
        ident: Ident | None = None,
        args: Mapping[str, Any] | None = None,
        *,
        recompute: bool = False,
        background: bool | None = None,
        wait: bool | float | timedelta | None = None,
        echo: bool = False,
        raise_error: bool = False,
        collection_name: str | None = None,
    ) -> Resource:
        """Return a resource: from disk if it is completed, else computed now.

        If the function raises, ``fetch`` does not: the status is error, the traceback is in error.log, and
        the next fetch tries again. If another process is computing the resource, ``fetch`` returns it as
        pending; inside a resource's function it waits.

        Args:
            collection: Name of a registered collection.
            ident: Key of the resource: a str or an int; or a dict of args, which then form the key (see
                `hadrosaur.ident_of`).
            args: JSON-serialisable dict passed to the function. None reuses the args of the last run, or {}.
            recompute: Compute again even if completed.
            background: Return at once, as pending, and compute in a worker process. None: the collection's
                setting.
            wait: Wait for a pending resource: True, or for at most so many seconds (or a timedelta).
                None: only inside a resource's function.
            echo: Also show the function's output on this terminal while it runs.
            raise_error: Raise if the resource ends in error.
            collection_name: The same as ``collection``, for calls by keyword.

        Returns:
            A `Resource`, the dict ``{'result': …, 'status': {…}, '_paths': {…}}``. Its ``value`` is the
            result, waiting for it if needed, or raises.

        Raises:
            UnknownCollection: The collection is not registered.
            InvalidIdent, InvalidArgs: Raised before anything is written.
            ResourceFailed: With ``raise_error=True``: the resource ended in error.
            CycleError: The resource waits, through nested fetches, for the one that is fetching it.
        """
        if wait is not None and type(wait) is not bool:
            wait = checked_seconds('wait', wait)
        if collection is None or collection_name is not None:
            collection = _only_one(collection, collection_name)
        known = self._registry.find(collection) or self._registry.get(collection)
        text, given = named(ident, args, collection)
        state: directory.State | None = None
        if not recompute:
            state, found = self._fetcher.saved(known, text, given)
            if found is not None:
                return found
        known = self._registry.get(collection)
        background = known.background if background is None else background
        asked = Asked(given, recompute, background, echo)
        resource = self._fetcher.obtain(known, text, asked, state, wait)
        self._store.hooks.call()
        if raise_error and resource.status == 'error':
            raise failure(resource) from resource._cause
        free_frames(resource._cause)
        return resource

    async def afetch(
        self,
        collection: str | None = None,
        ident: Ident | None = None,
        args: Mapping[str, Any] | None = None,
        **options: Unpack[NamedFetchOptions],
    ) -> Resource:
        """Run `fetch` in a thread, so that the event loop is not blocked. Same arguments and result.

        Cancelling the awaiting task does not stop the fetch. Inside a resource's function, concurrent
        calls are computed one after the other.
        """
        import asyncio

        def fetch() -> Resource:
            with context.fetching(context.current()):
                call: Callable[..., Resource] = self.fetch
                return call(collection, ident, args, **options)

        return await asyncio.to_thread(fetch)

    def get(self, collection: str, ident: Ident) -> Resource:
        """Return a resource as it is on disk; never computes.

        Raises:
            ResourceNotFound: It was never requested, or was removed.
            UnknownCollection: There is no such collection.
        """
        known = self._registry.get_any(collection)
        text, _ = named(ident, None, collection)
        resource = self._fetcher.get(known, text)
        if resource is None:
            raise not_found(self._base, collection, text)
        return resource

    def exists(self, collection: str, ident: Ident) -> bool:
        """Return whether the resource exists, in any status; never computes."""
        known = self._registry.get_any(collection)
        return self._fetcher.peek(known, named(ident, None, collection)[0]) is not None

    def collection(self, name: str) -> BoundCollection:
        """Return one collection with its methods bound: ``proj.collection('books').fetch('moby-dick')``.

        Raises:
            UnknownCollection: The name is neither registered nor a folder in the base directory.
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
        """Compute many resources in parallel, and yield each as it finishes.

        A resource that fails is yielded like the others; it does not stop the batch. Nothing is computed
        before the batch is iterated or waited for.

        Args:
            collection: Name of a registered collection.
            idents: Iterable of idents, of (ident, args) pairs, of dicts of args (such as a
                `hadrosaur.grid`) or of query rows; or a mapping of ident to args. Consumed lazily: a
                generator of millions is never held whole. A query with ``stale=True``, together with
                ``recompute=True``, is computed in the order of dependencies: first the stale resources
                that these used, also in other collections.
            args: Args for the idents that bring none.
            workers: Number of parallel workers; default: the number of processors.
            executor: ``'processes'``, ``'threads'``, ``'inline'``, a `concurrent.futures.Executor`, a
                `dask.distributed.Client`, or a Dask scheduler's address, ``'dask:tcp://host:port'``.
            threads: Threads that numerical libraries (OpenMP, OpenBLAS, MKL, numexpr, Accelerate) may
                start in each worker process. None: what the environment says (``OMP_NUM_THREADS`` …), else
                processors divided by workers.
            recompute: Recompute completed resources as well.
            retry_errors: Recompute resources that ended in error.
            progress: True shows a live display on stderr; a function is called with `Counts` at each change.

        Returns:
            A `Batch`: iterate it for resources in the order in which they finish, or call ``wait()``.

        Raises:
            UnknownCollection: The collection is not registered.
            UnknownExecutor, ExecutorUnavailable: No such executor, or its package is missing.
            TypeError, ValueError: ``idents`` is a single text or not iterable, or another argument is
                invalid.
        """
        known = self._registry.get(collection)
        check_executor(executor, workers, threads)
        if progress is not None and not isinstance(progress, bool) and not callable(progress):
            raise TypeError(f'progress takes True, False or a function of the Counts, not {progress!r}')
        options = {'workers': workers, 'threads': threads, 'executor': executor}
        if recompute and getattr(idents, 'is_of_stale', False):
            idents = LeavesFirst(self, collection, cast('Query', idents), options)
        store = self._fetcher.store()
        is_nested = store is not self._store
        display = self._display(progress, collection, idents)
        batch = Batch(
            store,
            known,
            idents,
            args,
            workers=workers,
            threads=None if is_nested else threads,
            executor='inline' if is_nested else executor,
            recompute=recompute,
            retry_errors=retry_errors,
            progress=display,
            on_end=self._batch_ended,
        )
        if isinstance(idents, LeavesFirst):
            idents.batch = batch
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
        hooks = self._store.hooks
        if hooks.is_used and batch.store is self._store:
            hooks.note('batch_end', lambda: batch)
            hooks.call()
        if close := getattr(batch.progress, 'close', None):
            close()

    # --- background --------------------------------------------------------------------------------

    def _submit_background(self, collection: Collection, job: Job, args: str | None) -> None:
        self._register_exit()
        self._background.submit_background(collection, job, args)

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

    # --- the end -----------------------------------------------------------------------------------

    def close(self, *, cancel: bool = False) -> None:
        """Wait for background work, stop unfinished batches, close the index.

        The Project opens again when it is next used.

        Args:
            cancel: Kill background work instead of waiting for it.

        Raises:
            ProjectError: Called inside a function that this Project is computing.
        """
        self._refuse_inside()
        self._background.close(cancel=cancel)
        _inline_cancel.rest()
        for batch in list(self._batches):
            batch.close()
        locks.await_enders()
        self._store.hooks.close()
        self._store.close()
        if self._exit_hook is not None:
            atexit.unregister(self._exit_hook)
            self._exit_hook, self._exit_pid = None, 0

    def __enter__(self) -> Project:
        return self

    def __exit__(self, _: object, error: BaseException | None, *__: object) -> None:
        """Close at the end of a with block; background work is cancelled if an exception leaves the block."""
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


class LeavesFirst:
    """The idents of a query for what is stale, once the stale resources that they used are up to date.

    Each is given after those of its collection that it used, which are computed by batches of their own.
    """

    batch: Batch

    def __init__(self, project: Project, collection: str, query: Query, options: dict[str, Any]) -> None:
        self._project = project
        self._collection = collection
        self._query = query
        self._options = options

    def __len__(self) -> int:
        return len(self._query)

    def __iter__(self) -> Iterator[str]:
        # Read now, since computing changes what is stale; and of a query for all, those of this collection.
        wanted = {entry.ident: None for entry in self._query._rows() if entry.collection == self._collection}
        groups = self._project._stale_levels(self._collection, wanted)
        last = groups[-1:] if groups and groups[-1][0] == self._collection else []
        for name, idents in groups[: len(groups) - len(last)]:
            self._project.fetch_many(name, idents, recompute=True, **self._options).wait()
            if name == self._collection:
                self.batch.computed(idents)
        yield from wanted


def _counted(resources: int) -> str:
    return f'{resources} resource' if resources == 1 else f'{resources} resources'


def _only_one(collection: str | None, collection_name: str | None) -> str:
    """The collection of a call that may give its name by either keyword."""
    given = [name for name in (collection, collection_name) if name is not None]
    if len(given) != 1:
        raise TypeError(
            'fetch takes the name of a collection, as collection or as collection_name'
            + ('' if not given else f', not both: {collection!r} and {collection_name!r}')
        )
    return given[0]
