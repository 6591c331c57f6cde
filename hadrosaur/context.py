"""What is being computed in this process just now: `current`, and what the rest of the package asks of it."""

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
    """Raised in a function of the main thread whose run somebody wants cancelled.

    Attributes:
        run: Its run id. Where it comes out of a nested run, that one was interrupted.
    """

    def __init__(self, run: str) -> None:
        super().__init__('the run was cancelled')
        self.run = run


bases: dict[str, str] = {}
"""In a worker: absolute path of each base as its user wrote it; a worker may stand in another folder."""


class RunContext(run_progress.Says):
    """The resource that is being computed: what `hadrosaur.current()` gives.

    Attributes:
        collection: Its collection.
        ident: Its ident.
        args: The args that the function got.
        subdir: Absolute path of its storage folder.
        attempt: 1 at the first run of this resource's life.
        setup: What the collection's ``setup`` gave in this worker; None where it has none.
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
        self._fetching = threading.Lock()  # what a coroutine fetches in threads, one after the other

    @property
    def logger(self) -> logging.Logger:
        """A logger whose records, from INFO up, land in stderr.log."""
        return _logger()

    def progress(self, fraction: float | None = None, text: str = '') -> None:
        """Say how far the run is: `hadrosaur ps`, `status`, `show` and ``Resource.progress`` show it.

        Args:
            fraction: From 0 to 1; None where it is not known.
            text: What it does now, in a line of at most 200 characters.

        It costs some 20 µs, and may be called from any thread of the run. Raises TypeError for text in the
        place of the fraction; one below 0 or above 1 is warned of.
        """
        report = self._reported(os.path.dirname(self.subdir), self._job.run, self._process)
        if report is not None:
            report.say(fraction, text)

    def __repr__(self) -> str:
        return f'Running({self.collection!r}, {self.ident!r}, attempt={self.attempt})'


_running: contextvars.ContextVar[RunContext | None] = contextvars.ContextVar(
    'hadrosaur_running', default=None
)
_in_worker: list[RunContext] = []  # what runs in a worker, nested ones last; a thread belongs to the first
# What the only thread of a program runs: a thread that comes up meanwhile is its own.
_alone: list[RunContext] = []


def enter(running: RunContext) -> tuple[contextvars.Token[RunContext | None], bool]:
    """From now on this is computed here, until `leave` gets what this returns."""
    is_alone = not (in_worker or _alone or has_other_threads())
    token = _running.set(running)
    _in_worker.append(running)
    if is_alone:
        _alone.append(running)
    return token, is_alone


def leave(running: RunContext, entered: tuple[contextvars.Token[RunContext | None], bool]) -> None:
    """It is over: no signal that comes now is meant for it."""
    token, is_alone = entered
    _in_worker.remove(running)  # not always the last: a function may fetch in threads of its own
    if is_alone:
        _alone.pop()
    _running.reset(token)


def current() -> RunContext | None:
    """The resource that is being computed here, or None outside of a resource's function."""
    running = _running.get()
    if running is None:
        if in_worker:
            return _in_worker[0] if _in_worker else None
        if _alone and not is_ours():
            return _alone[0]
    return running


def chain_of(running: RunContext) -> tuple[tuple[str, str, str], ...]:
    """The resources (base, collection, ident) that led to what is being computed, itself last."""
    return running._chain


def base_of(running: RunContext) -> str:
    """Absolute path of the base that it is computed in."""
    return running._job.spec.base


def job_of(running: RunContext) -> Job:
    """The job that is carried out."""
    return running._job


def in_progress() -> list[RunContext]:
    """What is computed in this process just now, nested ones after what they are nested in."""
    return list(_in_worker)


def raise_if_unwanted(*_: object) -> None:
    """Handles the signal that interrupts: only a function that is to be cancelled, and nothing after it."""
    for running in _in_worker:
        if running.is_unwanted:
            raise Unwanted(running._job.run)


def fetching(running: RunContext | None) -> contextlib.AbstractContextManager[Any]:
    """Held by a thread that fetches for a function which goes on meanwhile: its output is one stream."""
    return contextlib.nullcontext() if running is None else running._fetching


def add_nested(running: RunContext, run_result: RunResult) -> None:
    """Have the rows of a nested fetch travel with the outcome of the one that asked."""
    running._nested.extend(run_result.nested)
    if run_result.fresh:
        running._nested.append(run_result.entry)


def stderr_handler(form: str) -> logging.Handler:
    """A handler that writes to whatever sys.stderr is at that moment."""
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
