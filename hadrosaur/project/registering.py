"""The part of a Project that takes in functions: `Project.resource`."""

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
    """What registers the functions of a `Project`."""

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
    ) -> Callable[[Function], Function]:
        """Register the decorated function as the one that computes a collection's resources.

        The function is called as ``function(ident, args, subdir)``: a str, a dict as JSON gives it back,
        and the absolute path of the resource's storage folder. It returns any JSON value, and is itself
        returned unchanged. It may be ``async def``: each run has an event loop of its own.

        Args:
            name: The collection's name; its folder is made. None: the function's.
            setup: A function without arguments that is called once in each worker, by the first run there;
                what it returns (a model, a connection) is ``hadrosaur.current().setup`` in every run. A
                generator yields it, and goes on behind the ``yield`` when the worker ends. If it raises, the
                run ends in that error.
            background: ``fetch`` returns at once, and the resource is computed by a worker process.
            retries: How often a failed run is tried again.
            retry_on: Try again only after these: exception classes, or names as `error_type` shows them
                (``'TimedOut'``, ``'requests.exceptions.Timeout'``), with all that are below them in the tree
                of classes. None: after any.
            retry_delay: Seconds (as everywhere, or a timedelta) before the first retry.
            retry_backoff: What the delay is multiplied by for each further retry.
            max_retry_delay: Seconds that the delay never exceeds.
            timeout: Seconds one run of the function may take; it is killed then, with what it started.
            memory: Bytes, or a text such as ``'2 GB'``, that one run may take, together with what it started;
                it is killed when it is seen to take more.
            at_once: How many runs of the collection there are at a time at most, in all processes together.
            rate: How many begin in a time at most, in all processes together: ``'10/min'`` (``s``, ``min``,
                ``hour``, ``day``), or a number of starts per second.
            runs_per_worker: Runs after which a worker process is replaced; 1: each has one of its own.
            keep_storage: Leave what an earlier run put into storage.
            version: Of the function: a saved result of another version is handled by
                ``on_version_change``.
            on_args_change: What fetching a computed resource with other args does: ``'warn'`` and
                return the saved result, ``'recompute'``, ``'error'`` or ``'keep'``.
            on_version_change: The same for another version.
            expires_after: Seconds after which a saved result is computed again.
            capture: How output is caught: ``'auto'``, ``'descriptors'``, ``'streams'`` or ``'off'``.
            index_result: Bytes of a result that the index holds too, where it is no longer, so that it can
                be asked for (``query(result=…)``, SQL); False: none.
            columns: Names for parts of args and results, ``{'score': 'result.score'}``, to sort by and to
                choose for frames and ``--columns``. The index finds and sorts by them without reading all
                rows, which costs each resource of the project some 15 µs for each.
            keep_attempts: So many earlier runs of a resource whose logs, error, record and result are kept,
                in ``attempts/<number>/`` of its folder; their lines in record.json are kept in any case.

        Raises:
            InvalidIdent: The name cannot name a folder.
            DuplicateCollection: Another function has that name.
            ValueError: An option has no such value.
            TypeError: What is decorated cannot be called.
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

        def register(function: Function) -> Function:
            nonlocal spec
            if name is None:
                called = getattr(function, '__name__', '')
                if not called.isidentifier():
                    raise ValueError(f'{function!r} has no name of its own: write resource(NAME)')
                spec = spec._replace(collection=called, folder=canonical.collection_folder(called))
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
                    None if setup is None else Prepared(function, setup),
                    tuple(parts.items()),
                )
            )
            return function

        return register
