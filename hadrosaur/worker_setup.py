"""``setup=``: what the function of a collection needs made once in each worker, a model or a connection.

A worker is a worker process, or a thread of the program that computes. In each the setup is called by the
first run that needs it, and its value serves all runs after it there. It is called anew where it has
changed: another function, or one that refers to other things.

A setup that fails makes the run an error, as its function would. It is not called again for a multiple of
the time that it took to fail, and runs that come in this time end in the same error: of ten thousand
resources, not each waits a minute for what cannot be had.
"""

from __future__ import annotations

import atexit
import contextlib
import hashlib
import os
import sys
import threading
import time
import weakref
from collections.abc import Callable, Coroutine, Generator
from typing import Any

from . import coroutines
from .errors import warn

PATIENCE = 10  # times as long as a setup took to fail, it is not called again;
LONGEST_PAUSE = 60.0  # seconds, if it did not itself take longer


def pause_after(took: float) -> float:
    """Seconds in which a setup is not called again that took so long to fail."""
    return max(took, min(PATIENCE * took, LONGEST_PAUSE))


class Prepared:
    """A function, with its setup and what names its inputs where it has them, on their way to a worker."""

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
        """What stands for this very setup. In its own program that is the object."""
        if not in_worker:
            return id(self.setup)
        self._mark = self._mark or _mark_of(self.setup) or str(id(self.setup))
        return self._mark


def _name(function: Any) -> str:
    return str(getattr(function, '__qualname__', None) or repr(function))


def _mark_of(setup: Any) -> str:
    """A digest of all that a setup is made of; '' outside of workers and what is sent to them.

    It may refer to its project, which holds the setup itself: inside of it no other is looked at.
    """
    global _is_marking
    cloudpickle = sys.modules.get('cloudpickle')
    if cloudpickle is None or _is_marking:
        return ''
    _is_marking = True
    try:
        return hashlib.blake2b(cloudpickle.dumps(setup), digest_size=16).hexdigest()
    finally:
        _is_marking = False


_is_marking = False


def refuse(prepared: Prepared) -> None:
    """Raises ValueError for a setup that takes arguments, and for inputs that cannot be called."""
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
    """What a setup has made in one worker.

    Attributes:
        value: What the function finds as ``current().setup``.
        guard: Held while it is made.
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
        """What it failed of just now; None where it is to be called."""
        return self._error if time.monotonic() < self._until else None

    def end(self) -> None:
        """Let a generator go on behind its ``yield``; what it raises is told, and harms nobody."""
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
    """The values of one worker: by what stands for their setups, and what each collection uses."""

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
    """What the setup of a collection has made, or is to make, in this worker.

    Of a worker process there is one, whichever thread of it computes.
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
