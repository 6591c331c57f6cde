"""``setup=``: create what a function needs once in each worker, such as a model or a connection.

A worker is a worker process, or a thread of the program that computes. In each, the setup is called before
the first run that needs it, and its value serves all later runs there. It is called again if it has changed:
another function, or one that refers to other things.

A setup that fails makes the run fail. It is not called again for a multiple of the time that it took to fail,
and runs in this period end in the same error, so that ten thousand resources do not each wait a minute for
the same failure.
"""

from __future__ import annotations

import atexit
import contextlib
import hashlib
import os
import threading
import time
import weakref
from collections.abc import Callable, Coroutine, Generator
from typing import Any

from . import coroutines
from .errors import warn
from .loaded import loaded

PATIENCE = 10  # times as long as a setup took to fail, it is not called again;
LONGEST_PAUSE = 60.0  # seconds, if it did not itself take longer


def pause_after(took: float) -> float:
    """Return the seconds for which a failed setup is not called again."""
    return max(took, min(PATIENCE * took, LONGEST_PAUSE))


class Prepared:
    """A function with its setup and inputs function, to be sent to a worker."""

    def __init__(
        self,
        function: Callable[..., Any],
        setup: Callable[[], Any] | None,
        mark: str = '',
        inputs: Callable[[str, dict[str, Any]], Any] | None = None,
    ) -> None:
        self.function = function
        self.setup = setup
        self.inputs = inputs
        self._mark = mark  # by which a worker knows the setup again, in whichever pickle it comes
        also = (('setup', setup), ('inputs', inputs))
        of = ' and '.join(f'its {word} {_name(part)}' for word, part in also if part is not None)
        self.__qualname__ = f'{_name(function)} with {of}'

    @property
    def parts(self) -> list[Callable[..., Any]]:
        """The functions that it consists of."""
        return [part for part in (self.function, self.setup, self.inputs) if part is not None]

    def __reduce__(self) -> tuple[Any, ...]:
        mark = '' if self.setup is None else _mark_of(self.setup)
        return (Prepared, (self.function, self.setup, mark, self.inputs))

    def mark(self, in_worker: bool) -> object:
        """What identifies this setup; in its own program, the object itself."""
        if not in_worker:
            return id(self.setup)
        self._mark = self._mark or _mark_of(self.setup) or str(id(self.setup))
        return self._mark


def _name(function: Any) -> str:
    return str(getattr(function, '__qualname__', None) or repr(function))


def _mark_of(setup: Any) -> str:
    """Return a digest of everything a setup consists of; '' outside of workers.

    A setup may refer to its project, which refers to the setup; that recursion is cut.
    """
    global _is_marking
    cloudpickle = loaded('cloudpickle')
    if cloudpickle is None or _is_marking:
        return ''
    _is_marking = True
    try:
        return hashlib.blake2b(cloudpickle.dumps(setup), digest_size=16).hexdigest()
    finally:
        _is_marking = False


_is_marking = False


def refuse(prepared: Prepared) -> None:
    """Raise ValueError for a setup that takes arguments, or inputs that cannot be called."""
    import inspect

    setup, inputs = prepared.setup, prepared.inputs
    if inputs is not None and not callable(inputs):
        raise ValueError(f'inputs must be a function of ident and args that gives paths, not {inputs!r}')
    if setup is None:
        return
    if not callable(setup):
        raise ValueError(
            f'setup must be a function that is called without arguments in each worker, not {setup!r}'
        )
    if inspect.isasyncgenfunction(setup):
        raise ValueError(f'setup may be a generator, and not an asynchronous one as {_name(setup)} is')
    try:
        signature = inspect.signature(setup)
    except ValueError:  # none is known of some that are written in C
        return
    try:
        signature.bind()
    except TypeError as error:
        raise ValueError(
            f'setup is called without arguments, and {_name(setup)}{signature} takes some: {error}'
        ) from None


class Made:
    """The value of a setup in one worker.

    Attributes:
        value: The value of ``current().setup``.
        guard: Lock held while it is created.
        uses: What it fetched: every run that it serves depends on it.
    """

    def __init__(self, setup: Callable[[], Any] | None) -> None:
        self.value: Any = None
        self.guard = threading.RLock()
        self.is_made = False
        self.uses: dict[tuple[str, str], dict[str, str]] = {}
        self._setup = setup
        self._generator: Generator[Any, Any, Any] | None = None
        self._error: BaseException | None = None
        self._until = 0.0  # it is not called again before

    def make(self, *_: object) -> None:
        """Call the setup; raises what it raises."""
        self._error, began = None, time.monotonic()
        try:
            value = self._setup and self._setup()
            if isinstance(value, Coroutine):
                value = coroutines.run(value)
            if isinstance(value, contextlib._GeneratorContextManager):
                value = value.gen
            if isinstance(value, Generator):
                self._generator = value
                value = _first_of(value)
        except (Exception, SystemExit) as error:  # and not Ctrl-C
            pause = pause_after(time.monotonic() - began)
            error.add_note(f'The setup is called again by the first run that comes {pause:.3g} s later.')
            self._error, self._until = error, time.monotonic() + pause
            raise
        self.value, self.is_made = value, True

    @property
    def error(self) -> BaseException | None:
        """The error of a recent failure; None if it is to be called."""
        return self._error if time.monotonic() < self._until else None

    def end(self) -> None:
        """Resume the generator after its ``yield``; errors are reported and otherwise ignored."""
        generator, self._generator = self._generator, None
        if generator is None or not self.is_made:
            return
        try:
            next(generator)
            raise RuntimeError('it yields more than once')
        except StopIteration:
            pass
        except BaseException as error:
            warn(f'the setup {_name(self._setup)} did not end well: {error!r}')


def _first_of(generator: Generator[Any, Any, Any]) -> Any:
    for value in generator:
        return value
    raise RuntimeError('the setup is a generator that yields nothing')


class _Worker:
    """The values of one worker, by setup, and which collection uses which."""

    def __init__(self) -> None:
        self.made: dict[object, Made] = {}
        self.used: dict[tuple[str, str], object] = {}

    def find(self, prepared: Prepared, collection: tuple[str, str], mark: object) -> Made:
        before = self.used.get(collection)
        if before != mark:
            self.used[collection] = mark
            if before is not None and before not in self.used.values():
                self.made.pop(before).end()
        made = self.made.get(mark)
        if made is None:
            made = self.made[mark] = Made(prepared.setup)
        return made


_workers: weakref.WeakKeyDictionary[threading.Thread, _Worker] = weakref.WeakKeyDictionary()
_of_parents: list[object] = []  # not ours to end, nor to be collected in a forked child


def here(prepared: Prepared, base: str, collection: str, *, in_worker: bool) -> Made:
    """Return the setup of a collection in this worker, created or to be created.

    A worker process has one, whichever of its threads computes.
    """
    thread = threading.main_thread() if in_worker else threading.current_thread()
    worker = _workers.get(thread)
    if worker is None:
        worker = _workers[thread] = _Worker()
    return worker.find(prepared, (base, collection), prepared.mark(in_worker))


@atexit.register
def end() -> None:
    """End what was made in this thread, the last first. Called when it ends, and when the program does."""
    worker = _workers.pop(threading.current_thread(), None)
    for made in reversed(list(worker.made.values()) if worker is not None else ()):
        made.end()


def _in_child() -> None:
    global _workers, _is_marking
    _is_marking = False
    _of_parents.append(list(_workers.items()))
    _workers = weakref.WeakKeyDictionary()


os.register_at_fork(after_in_child=_in_child)
