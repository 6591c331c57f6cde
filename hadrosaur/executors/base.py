"""The contract of all executors, and how a function travels to another process.

An executor takes jobs and tells, through callbacks, what came of them. It knows neither project nor
index. Every one keeps the same promises, which tests/contracts/ checks for each: it keeps going, it
blames exactly the resource that failed, logs stay apart, the same files are left.
"""

from __future__ import annotations

import hashlib
import marshal
import os
import sys
import threading
from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, Any, NamedTuple

from ..errors import ExecutorFault, warn
from ..records import Job, RunResult
from ..worker_setup import Prepared

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Sequence

    Function = Callable[[str, dict[str, Any], str], Any] | Prepared

LARGE_FUNCTION = 10_000_000  # bytes; above it, shipping the function is felt, and seldom meant


class Listener(NamedTuple):
    """Whom an executor tells. Called from any thread of the calling process, never from two at once."""

    on_results: Callable[[list[RunResult]], None]
    """Outcomes, many at a time where they come many at a time."""
    started: Callable[[list[Job]], None]
    """Jobs whose function has been running for a second."""
    dropped: Callable[[list[Job]], None]
    """Jobs that were cancelled before they were begun."""
    failed: Callable[[BaseException], None]
    """The executor itself has failed and will tell nothing more."""


class Executor(ABC):
    """Carries out jobs.

    Attributes:
        capacity: How many jobs it likes to have at hand; the engine keeps it supplied with those.
        runs_at_once: A job runs as soon as it is submitted, so it need not be shown as queued.
        runs_here: Functions run in the caller's own process.
        is_stepped: Nothing happens but in `step`: who waits without stepping would wait for ever.
    """

    capacity: int = 1
    runs_at_once: bool = False
    runs_here: bool = False
    is_stepped: bool = False

    @abstractmethod
    def submit(self, jobs: Sequence[Job], function: Function, *, delay: float = 0.0) -> None:
        """Take jobs of one collection, to be begun in ``delay`` seconds or later; returns at once."""

    def step(self) -> bool:
        """Do some work in the caller's own thread; True if there was any. Most executors have none."""
        return False

    def renew(self) -> None:  # noqa: B027  most executors live for one batch
        """From now on, functions are computed as they are now; an executor of one batch need not care."""

    @abstractmethod
    def cancel(self, runs: Collection[str]) -> None:
        """Drop those jobs that are not begun, and kill those that are (error ``Cancelled``)."""

    @abstractmethod
    def interrupt(self) -> None:
        """Ctrl-C: interrupt what runs, drop the rest; returns when nothing of it runs any more."""

    @abstractmethod
    def close(self) -> None:
        """Give everything back: processes, threads, descriptors. What is under way is abandoned."""


_guard = threading.Lock()
_packing = False


def _in_child() -> None:
    """A thread of the parent may have been packing when it forked; the child has no such thread."""
    global _guard, _packing
    _guard, _packing = threading.Lock(), False


os.register_at_fork(after_in_child=_in_child)


def is_packing() -> bool:
    """Is a function being pickled by us just now? Then a Project in it carries all its functions."""
    return _packing


class Packed(NamedTuple):
    """A function as bytes, which only a worker opens."""

    digest: str
    payload: bytes
    path: list[str]  # where the caller finds modules of its own, for a worker on another machine
    settings: dict[str, Any]  # of the caller's interpreter


def pack(function: Function) -> Packed:
    """The function as bytes that `cloudpickle` makes: closures, lambdas and ``__main__`` work too.

    Raises ExecutorFault, naming the function, where it holds something that cannot be pickled.
    """
    from . import _function_source, _random_state, _settings

    global _packing
    name = getattr(function, '__qualname__', repr(function))
    try:
        with _guard:
            _packing = True
            payload, folders = _function_source.dumps(function)
    except Exception as error:  # reducers are other people's code and raise what they like
        raise ExecutorFault(
            f'the function {name} cannot be sent to another process: {error}',
            hint="make what it needs inside the function, or use executor='inline' or 'threads'",
        ) from error
    finally:
        _packing = False
    for part in function.parts if isinstance(function, Prepared) else (function,):
        _random_state.warn_of(part)
    if len(payload) > LARGE_FUNCTION:
        warn(
            f'the function {name} carries {len(payload) / 1e6:.0f} MB along to every worker; '
            'load such data inside the function',
        )
    settings = _settings.of_this_process()
    digest = hashlib.blake2b(payload + marshal.dumps(settings), digest_size=16).hexdigest()
    return Packed(digest, payload, [*_own_path(), *folders], settings)


def _own_path() -> list[str]:
    """The entries of sys.path that are neither Python's nor of installed packages."""
    ours = (entry or os.getcwd() for entry in sys.path if isinstance(entry, str))
    return [
        os.path.abspath(entry)
        for entry in ours
        if not entry.startswith((sys.prefix, sys.base_prefix)) and 'site-packages' not in entry
    ]


_INSTALLED = (sys.prefix, sys.base_prefix, os.path.dirname(os.__file__))
_own_modules: tuple[int, list[str]] = (0, [])  # how many modules there were, and which are the user's own


def loaded_code() -> dict[str, Any]:
    """The user's own modules by name, each as something that is another once it was loaded again."""
    global _own_modules
    if _own_modules[0] != len(sys.modules):
        own = [
            name
            for name, module in list(sys.modules.items())
            if not (getattr(module, '__file__', None) or sys.prefix).startswith(_INSTALLED)
        ]
        _own_modules = (len(sys.modules), own)
    found = {name: sys.modules.get(name) for name in _own_modules[1]}
    return {name: getattr(module, '__spec__', None) or module for name, module in found.items()}
