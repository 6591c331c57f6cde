"""Results of jobs that left no trace in their directory: not started, or not writable."""

from __future__ import annotations

import time
from typing import NamedTuple

from .records import Job, RunResult, format_time


def not_started(job: Job, error_type: str, error: str, traceback: str = '') -> RunResult:
    """Return the result of a job whose run could not start; folder and row are unchanged.

    Args:
        job: The job.
        error_type: Type of the error.
        error: Its message in one line.
        traceback: What error.log would contain.
    """
    run_result = unsaved(job, error_type, error)
    traceback = traceback or f'{error_type}: {error}\n'
    return run_result._replace(fresh=False, not_started=True, traceback=traceback)


class Unloadable(NamedTuple):
    """Stands for a function that could not be loaded in this process; its resources are not started."""

    error_type: str
    summary: str
    traceback: str

    @classmethod
    def of(cls, error: BaseException) -> Unloadable:
        """Because of an exception."""
        from traceback import format_exception

        from . import fingerprint

        kind, message = fingerprint.type_name(error), fingerprint.summary(error)
        try:
            text = ''.join(format_exception(error))
        except Exception:  # formatting runs the exception's own code, which may fail in any way
            text = f'{kind}: {message}\n'
        return cls(kind, f'the function could not be loaded in its worker: {message}', text)


def unsaved(job: Job, error_type: str, error: str) -> RunResult:
    """Return the result of a run that could not be written, not even as failed."""
    from . import fingerprint  # its patterns take 3 ms to compile, which a worker need not wait for

    entry = job.entry('error').change(
        error_type=error_type,
        error=error,
        error_group=fingerprint.fingerprint(error_type, error, None),
        finished_at=format_time(time.time()),
    )
    return RunResult(job.run, entry, fresh=True)
