"""What runs in the program's own main thread, and can be cancelled there: by other processes, other threads.

A signal that nobody else uses interrupts the function where it is, in a system call too, and whatever
handles Ctrl-C in that program. It waits while anything but a function runs (`compute.carry_out` holds it
back), and what comes too late finds nobody to interrupt. Who catches it goes on, until the next one: once
a second. A run in another thread cannot be interrupted.
"""

from __future__ import annotations

import os
import signal
import threading
from typing import TYPE_CHECKING

from .. import basedir, compute, context
from ..errors import ExecutorFault
from ..locks import CANCEL_SIGNAL
from ._ticker import Clock, wanted_cancelled

try:  # without the wrapper that makes an enum of each signal, twice for every resource
    from _signal import signal as _handle  # type: ignore[import-not-found]
except ImportError:
    from signal import signal as _handle

if TYPE_CHECKING:
    from collections.abc import Callable

    from ..records import Job, RunResult
    from .base import Function


def carry_out(job: Job, function: Function) -> RunResult:
    """`compute.carry_out`, which others may cancel."""
    if context.in_worker or threading.current_thread() is not threading.main_thread():
        return compute.carry_out(job, function)
    _clock.wind()
    before = _handle(CANCEL_SIGNAL, context.raise_if_unwanted)
    try:
        return compute.carry_out(job, function)
    finally:
        _handle(CANCEL_SIGNAL, before if before is not None else signal.SIG_DFL)


def cancel(is_meant: Callable[[Job], bool]) -> int:
    """Interrupt what is meant of what runs here; returns how many there are.

    Raises ExecutorFault where one does not run in the main thread.
    """
    found = [running for running in context.in_progress() if is_meant(context.job_of(running))]
    for running in found:
        if not running.is_interruptible:
            raise ExecutorFault(
                f'{running.collection}/{running.ident} runs in a thread, which cannot be stopped',
                hint="use executor='processes', or background=True, for what may have to be cancelled",
            )
        running.is_unwanted = True
    if found:
        signal.pthread_kill(threading.main_thread().ident or 0, CANCEL_SIGNAL)
    return len(found)


def _look() -> bool:
    """Interrupt what another process wants cancelled, and what has not ended since it was told."""
    interruptible = [running for running in context.in_progress() if running.is_interruptible]
    wanted = wanted_cancelled(map(context.job_of, interruptible))
    for job in wanted:
        basedir.drop_cancel_request(job.spec.base, job.path)
    runs = {job.run for job in wanted}
    runs.update(context.job_of(running).run for running in interruptible if running.is_unwanted)
    if runs:
        cancel(lambda job: job.run in runs)
    return bool(interruptible)


_clock = Clock(_look)


def rest() -> None:
    """End the thread that looks, where nothing runs."""
    if not context.in_progress():
        _clock.rest()


def _after_fork() -> None:
    if context.in_progress():
        _clock.wind()


# A program that forks has as many threads as it has started itself.
os.register_at_fork(before=_clock.rest, after_in_parent=_after_fork)
