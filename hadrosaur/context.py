"""The runs in progress in this process: `current`, and what the rest of the package needs to know."""

from __future__ import annotations

import contextlib
import contextvars
import functools
import json
import os
import threading
from typing import TYPE_CHECKING, Any

from . import run_progress
from .locks import has_other_threads, is_ours
from .records import Entry, Job, RunResult

if TYPE_CHECKING:
    import logging

in_worker = False
"""True in a worker: there a Project opens nothing, and a nested fetch works on files only."""


class Unwanted(KeyboardInterrupt):
    """Raised in the main thread, inside the function of a run that is to be cancelled.

    Attributes:
        run: Id of that run; it may be nested in another one.
    """

    def __init__(self, run: str) -> None:
        super().__init__('the run was cancelled')
        self.run = run


bases: dict[str, str] = {}
"""In a worker: absolute path of each base as its user wrote it; a worker may stand in another folder."""


class RunContext(run_progress.Says):
    """The run that is calling your function, as `hadrosaur.current` returns it.

    Attributes:
        collection: Name of the collection.
        ident: Ident of the resource.
        args: The args that the function received.
        subdir: Absolute path of the resource's storage folder.
        attempt: Number of this run of the resource, from 1.
        setup: What the collection's ``setup`` returned in this worker; None without one.
    """

    setup: Any = None

    def __init__(self, job: Job, subdir: str, attempt: int) -> None:
        self.collection = job.collection
        self.ident = job.ident
        self._job = job
        self.is_unwanted = self.is_interruptible = False  # is to be cancelled; runs in the main thread
        self.args: dict[str, Any] = json.loads(job.args) if job.args != '{}' else {}
        self.subdir = subdir
        self.attempt = attempt
        self._process = os.getpid()
        self._chain = (*job.chain, job.step)
        self._nested: list[Entry] = []
        self._uses: dict[tuple[str, str], dict[str, str]] = {}  # resources: run ids, each with its args hash
        self._fetching = threading.Lock()  # what a coroutine fetches in threads, one after the other

    @property
    def logger(self) -> logging.Logger:
        """A logger that writes records of level INFO and above to the resource's stderr.log."""
        return _logger()

    def progress(self, fraction: float | None = None, text: str = '') -> None:
        """Report how far the run is, for ``Resource.progress`` and `hadrosaur ps`, `status` and `show`.

        A call costs about 20 µs and may come from any thread of the run.

        Args:
            fraction: From 0 to 1, else it warns; None if unknown.
            text: What the run is doing, in one line of at most 200 characters.

        Raises:
            TypeError: ``fraction`` is text.
        """
        report = self._reported(os.path.dirname(self.subdir), self._job.run, self._process)
        if report is not None:
            report.say(fraction, text)

    def __repr__(self) -> str:
        return f'RunContext({self.collection!r}, {self.ident!r}, attempt={self.attempt})'


_running: contextvars.ContextVar[RunContext | None] = contextvars.ContextVar(
    'hadrosaur_running', default=None
)
_in_worker: list[RunContext] = []  # what runs in a worker, nested ones last; a thread belongs to the first
# What the only thread of a program runs: a thread that comes up meanwhile is its own.
_alone: list[RunContext] = []


def enter(running: RunContext) -> tuple[contextvars.Token[RunContext | None], bool]:
    """Make this the current run; returns what `leave` needs."""
    is_alone = not (in_worker or _alone or has_other_threads())
    token = _running.set(running)
    _in_worker.append(running)
    if is_alone:
        _alone.append(running)
    return token, is_alone


def leave(running: RunContext, entered: tuple[contextvars.Token[RunContext | None], bool]) -> None:
    """End the current run. A cancel signal that arrives later no longer concerns it."""
    token, is_alone = entered
    _in_worker.remove(running)  # not always the last: a function may fetch in threads of its own
    if is_alone:
        _alone.pop()
    _running.reset(token)


def current() -> RunContext | None:
    """Return the `RunContext` of the run that called this code; None outside of a resource's function."""
    running = _running.get()
    if running is None:
        if in_worker:
            return _in_worker[0] if _in_worker else None
        if _alone and not is_ours():
            return _alone[0]
    return running


def chain_of(running: RunContext) -> tuple[tuple[str, str, str], ...]:
    """The chain of nested fetches that led to a run: (base, collection, ident) each, the run itself last."""
    return running._chain


def base_of(running: RunContext) -> str:
    """Absolute path of the run's base directory."""
    return running._job.spec.base


def job_of(running: RunContext) -> Job:
    """The run's job."""
    return running._job


def in_progress() -> list[RunContext]:
    """The runs in progress in this process; nested ones follow the run they are nested in."""
    return list(_in_worker)


def raise_if_unwanted(*_: object) -> None:
    """Signal handler: raise `Unwanted` if a run in progress is to be cancelled, else do nothing."""
    for running in _in_worker:
        if running.is_unwanted:
            raise Unwanted(running._job.run)


def fetching(running: RunContext | None) -> contextlib.AbstractContextManager[Any]:
    """Lock for threads that fetch on behalf of one run, so that their output is not interleaved."""
    return contextlib.nullcontext() if running is None else running._fetching


def add_nested(running: RunContext, run_result: RunResult) -> None:
    """Attach the rows of a nested fetch to the result of the run that fetched."""
    running._nested.extend(run_result.nested)
    if run_result.fresh:
        running._nested.append(run_result.entry)
        # What it was given before is replaced by its own doing, and by nobody else's.
        running._uses.pop((run_result.entry.collection, run_result.entry.ident), None)


def add_use(running: RunContext, collection: str, ident: str, run: str, args_hash: str) -> None:
    """Note that the function was given what a run of another resource has made."""
    if (base_of(running), collection, ident) not in running._chain:
        running._uses.setdefault((collection, ident), {})[run] = args_hash


def stderr_handler(form: str) -> logging.Handler:
    """A logging handler that looks up ``sys.stderr`` each time it writes."""
    import logging
    import sys

    class Handler(logging.StreamHandler[Any]):
        def emit(self, record: logging.LogRecord) -> None:
            self.stream = sys.stderr
            super().emit(record)

    handler = Handler()
    handler.setFormatter(logging.Formatter(form))
    return handler


@functools.cache
def _logger() -> logging.Logger:
    import logging

    logger = logging.getLogger('hadrosaur.resource')
    logger.addHandler(stderr_handler('%(asctime)s %(levelname)s %(message)s'))
    logger.setLevel(logging.INFO)
    logger.propagate = False
    return logger
