"""What is told of an order whose directory tells nothing: its run never began, or could not be written."""

from __future__ import annotations

import time
from typing import Any, NamedTuple

from .records import Entry, Outcome, WorkOrder, format_time


def not_started(order: WorkOrder, error_type: str, error: str, traceback: str = '') -> Outcome:
    """The outcome of an order whose run never began: its folder, and so its row, are as they were.

    Args:
        order: The order.
        error_type: Why it could not begin,
        error: and the same in one line.
        traceback: What error.log would say.
    """
    outcome = unsaved(order, error_type, error)
    return outcome._replace(fresh=False, not_started=True, traceback=traceback or f'{error_type}: {error}\n')


class Unloadable(NamedTuple):
    """Stands for a function that could not be loaded in this process. Its resources are not begun."""

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


def unsaved(order: WorkOrder, error_type: str, error: str) -> Outcome:
    """The outcome of a run that had begun and could not be written down, not even as failed."""
    from . import fingerprint  # its patterns take 3 ms to compile, which a worker need not wait for

    entry = entry_of_order(order, 'error').change(
        error_type=error_type,
        error=error,
        error_group=fingerprint.fingerprint(error_type, error, None),
        finished_at=format_time(time.time()),
    )
    return Outcome(order.run, entry, fresh=True)


def entry_of_order(order: WorkOrder, status: str, **more: Any) -> Entry:
    """A row that knows no more than the order."""
    return Entry.make(
        **{
            'collection': order.task.collection,
            'ident': order.ident,
            'status': status,
            'args': order.args,
            'args_hash': order.args_hash,
            'attempt': order.attempt,
            'queued_at': order.queued_at,
            'version': order.task.version,
            'provenance': order.provenance,
            'path': order.path,
            **more,
        }
    )
