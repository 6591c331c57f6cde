"""What is told of a run that failed: its row, the user's own place in the code, the text of error.log."""

from __future__ import annotations

from typing import TYPE_CHECKING

from . import coroutines, directory, worker_setup
from .context import Unwanted, raise_if_unwanted
from .errors import Cancelled, Interrupted, ResultNotSerializable

if TYPE_CHECKING:
    from types import CodeType, TracebackType

    from .records import Entry

ours_above: set[CodeType] = {worker_setup.Made.make.__code__, coroutines.run.__code__}
"""Functions of ours that call the user's: their frames are left out at the upper end of a traceback."""


def described(entry: Entry, error: BaseException, *, is_cancelled: bool) -> tuple[Entry, str | None, str]:
    """The row, the user's own place in the code, and the error.log of a failed run."""
    from . import fingerprint  # its patterns take 3 ms to compile, which a worker need not wait for

    cause = fingerprint.cause(error)
    if isinstance(error, KeyboardInterrupt):
        kind, message, frame = Interrupted.__name__, 'the run was interrupted (Ctrl-C)', cause.frame
        if is_cancelled:  # as in a worker, which is killed
            kind, message, frame = Cancelled.__name__, 'the run was cancelled', None
        elif isinstance(error, Unwanted):
            message = 'the run was interrupted: what it is a part of was cancelled'
        group = fingerprint.fingerprint(kind, message, frame)
        bases = fingerprint.bases(Cancelled if is_cancelled else Interrupted)
        cause = fingerprint.Cause(kind, message, frame, group, bases)
    entry = entry.change(
        error_type=cause.type,
        error_bases=directory.bases_text(cause.bases),
        error=cause.message,
        error_group=cause.group,
    )
    return entry, cause.frame, _traceback_text(error, cause.type, cause.message)


def _traceback_text(error: BaseException, kind: str, message: str) -> str:
    """The traceback from the user's function on, without our own frames above it."""
    import traceback

    if isinstance(error, ResultNotSerializable):
        return f'{kind}: {error}\n'
    shown = error.__traceback__
    while shown is not None and shown.tb_frame.f_code in ours_above:
        shown = shown.tb_next
    _without_handler(shown)
    try:
        lines = traceback.format_exception(type(error), error, shown)
    except Exception:  # formatting runs the exception's own code, which may fail in any way
        return f'{kind}: {message}\n'
    text = ''.join(lines[:-1] if isinstance(error, Unwanted) else lines)
    return text if not isinstance(error, KeyboardInterrupt) else f'{text}{kind}: {message}\n'


def _without_handler(shown: TracebackType | None) -> None:
    """Cut off the frame of ours at the lower end."""
    while shown is not None and shown.tb_next is not None:
        if shown.tb_next.tb_frame.f_code is raise_if_unwanted.__code__:
            shown.tb_next = None
        shown = shown.tb_next
