"""The part of a Project that registers functions: `Project.resource`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal, TypeVar

from .. import canonical, limits, retry_policy
from ..json_paths import declared
from ..records import INDEXED_RESULT, CollectionSpec, number_of_bytes, seconds
from ..registry import Collection
from ..worker_setup import Prepared

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping
    from datetime import timedelta

    from ..basedir import BaseDirectory
    from ..capture import Way
    from ..registry import Policy, Registry

    Function = TypeVar('Function', bound=Callable[[str, dict[str, Any], str], Any])
    _Errors = type[BaseException] | str


class Registering:
    """The method of a `Project` that registers functions."""

    _base: BaseDirectory
    _durable: bool
    _registry: Registry

    def resource(
        self,
        name: str | None = None,
        *,
        setup: Callable[[], Any] | None = None,
        background: bool = False,
        retries: int = 0,
        retry_on: _Errors | Iterable[_Errors] | None = None,
        retry_delay: float | timedelta = 0.0,
        retry_backoff: float = 1.0,
        max_retry_delay: float | timedelta | None = None,
        timeout: float | timedelta | None = None,
        memory: int | str | None = None,
        at_once: int | None = None,
        rate: float | str | None = None,
        runs_per_worker: int | None = None,
        keep_storage: bool = False,
        version: str | int | None = None,
        on_args_change: Policy = 'warn',
        on_version_change: Policy = 'warn',
        expires_after: float | timedelta | None = None,
        capture: Way = 'auto',
        index_result: int | Literal[False] = INDEXED_RESULT,
        columns: Mapping[str, str] | None = None,
        keep_attempts: int = 0,
        inputs: Callable[[str, dict[str, Any]], Any] | None = None,
        on_input_change: Policy = 'keep',
        on_upstream_change: Policy = 'keep',
    ) -> Callable[[Function], Function]:
        """Decorator: register a function as the one that computes a collection's resources.

        The function is called as ``function(ident, args, subdir)``: a str, a dict of JSON values, and the
        absolute path of the resource's storage folder. It returns any JSON-serialisable value. It may be
        ``async def``: each run then has an event loop of its own. All durations are in seconds or a
        timedelta.

        Args:
            name: Name of the collection, whose folder is created; default: the function's name.
            setup: Function without arguments, called once in each worker before its first run. What it
                returns (a model, a connection) is ``hadrosaur.current().setup`` in every run. If it is a
                generator, it yields that value and is resumed when the worker ends. If it raises, the run
                ends in that error.
            background: ``fetch`` returns at once, and a worker process computes the resource.
            retries: Maximum number of retries of a failed run.
            retry_on: Retry only after these errors and their subclasses: exception classes, or names as
                in `error_type` (``'TimedOut'``, ``'requests.exceptions.Timeout'``). None: after any.
            retry_delay: Delay before the first retry.
            retry_backoff: Factor by which the delay grows with each further retry.
            max_retry_delay: Maximum delay before a retry.
            timeout: Maximum duration of one run; it is killed after that, with the processes it started.
            memory: Maximum memory of one run and the processes it started, in bytes or as text such as
                ``'2 GB'``; a run that is seen to use more is killed (Linux).
            at_once: Maximum number of concurrent runs of the collection, in all processes together.
            rate: Maximum rate of starts, in all processes together: ``'10/min'`` (``s``, ``min``, ``hour``,
                ``day``), or a number of starts per second.
            runs_per_worker: Number of runs after which a worker process is replaced; 1 gives each run its
                own process.
            keep_storage: Keep the storage folder's contents from run to run.
            version: Version of the function; ``on_version_change`` applies to results of another version.
                ``'code'`` uses a digest of its code (see `hadrosaur.code_of`).
            on_args_change: What to do if a completed resource is fetched with other args: ``'warn'`` and
                ``'keep'`` return the saved result, ``'recompute'`` computes again, ``'error'`` raises.
            on_version_change: The same for a result of another version.
            expires_after: Age at which a saved result is computed again.
            capture: How output is captured: ``'auto'``, ``'descriptors'``, ``'streams'`` or ``'off'``.
            index_result: Maximum size in bytes of results that are also stored in the index, where
                queries and SQL find them; False: none.
            columns: Names for parts of args and results, such as ``{'score': 'result.score'}``, for
                ``order_by``, data frames and ``--columns``. The index is extended to sort by them, which
                costs each resource of the project about 15 µs for each name.
            keep_attempts: Number of earlier runs whose logs, error, record and result are kept, in
                ``attempts/<number>/``. Their lines in record.json are kept in any case.
            inputs: Function of ident and args that returns the paths of a resource's input files. The
                resource is stale once one of them has changed (its size, or its mtime and contents) or is
                gone. Each file is read once before the run, for a digest.
            on_input_change: What to do if a completed resource is fetched whose input files have changed;
                values as for ``on_args_change``. ``'keep'`` does not check; the others read the record and
                stat each file at each fetch.
            on_upstream_change: The same if a resource that its function fetched was computed again, was
                removed or is itself stale (see `query`). ``'recompute'`` ignores an upstream resource that
                a fetch would return as it is. All but ``'keep'`` read the records of all direct and
                indirect upstream resources at each fetch, about 30 µs each.

        Returns:
            A decorator that returns the function unchanged.

        Raises:
            InvalidIdent: The name cannot be a folder's name.
            DuplicateCollection: Another function is registered under that name.
            ValueError: An option's value is invalid.
            TypeError: The decorated object cannot be called.
        """
        if callable(name):
            raise TypeError(f'write @….resource(), with brackets, above {getattr(name, "__name__", name)!r}')
        spec = CollectionSpec(
            collection='' if name is None else str.__str__(name),  # an Enum that is a str counts as its text
            folder='' if name is None else canonical.collection_folder(name),
            base=self._base.path,
            base_given=self._base.given,
            keep_storage=keep_storage,
            version=None if version is None else str(version),
            capture=capture,
            durable=self._durable,
            expires_after=seconds(expires_after),
            timeout=seconds(timeout),
            memory=number_of_bytes(memory),
            at_once=at_once,
            rate=limits.rate_of(seconds(rate)),
            runs_per_worker=runs_per_worker,
            retry_on=retry_policy.names(retry_on),
            keep_attempts=keep_attempts,
            index_result=0 if index_result is False else index_result,
        )
        parts = declared(columns)
        is_by_code = version == 'code'

        def register(function: Function) -> Function:
            nonlocal spec
            if name is None:
                called = getattr(function, '__name__', '')
                if not called.isidentifier():
                    raise ValueError(f'{function!r} has no name of its own: write resource(NAME)')
                spec = spec._replace(collection=called, folder=canonical.collection_folder(called))
            if is_by_code:
                from ..codes import code_of  # seldom needed, and slow to load

                spec = spec._replace(version=code_of(function))
            self._registry.add(
                Collection(
                    spec.collection,
                    function,
                    spec,
                    background,
                    retries,
                    seconds(retry_delay),
                    seconds(retry_backoff),
                    seconds(max_retry_delay),
                    on_args_change,
                    on_version_change,
                    None if setup is None and inputs is None else Prepared(function, setup, inputs=inputs),
                    tuple(parts.items()),
                    on_upstream_change,
                    on_input_change,
                )
            )
            return function

        return register
