"""How a verb ends: its exit code, and one clean message on stderr for whatever went wrong.

=====  ==================================================================
0      done
1      some resources ended in error
2      usage
3      no project, collection or resource of that name
4      index and directories disagree
5      the base cannot be used: a fault of the index, no space, no permission, no worker processes
130    interrupted (128 + SIGINT)
141    whoever read our output has gone (128 + SIGPIPE)
=====  ==================================================================
"""

from __future__ import annotations

import contextlib
import errno
import os
import signal
import sys
import warnings
from typing import TYPE_CHECKING, Any

import click

from ..errors import HadrosaurError, HadrosaurWarning
from ..sanitize import printable
from .output import note

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

DONE = 0
FAILED = 1
USAGE = 2
NOT_FOUND = 3
DISAGREE = 4
UNUSABLE = 5
INTERRUPTED = 128 + signal.SIGINT
BROKEN_PIPE = 128 + signal.SIGPIPE

MOST_WARNINGS = 20
"""Lines of one kind of warning; a run over a million resources may have a million reasons for one."""


def exit_code_of(verb: Callable[[], Any]) -> int:
    """Run a verb and return its exit code; usage errors are left to click."""
    _never_fail_to_print()
    try:
        with _plain_warnings():
            code = verb()
        sys.stdout.flush()
    except (KeyboardInterrupt, click.exceptions.Abort):
        return INTERRUPTED
    except BrokenPipeError:
        _drop_output()
        return BROKEN_PIPE
    except HadrosaurError as error:
        return refuse(error)
    except OSError as error:
        return refuse_system_error(error)
    return code if isinstance(code, int) else DONE


def refuse(error: HadrosaurError) -> int:
    """Print an error and its hint; returns the exit code."""
    note(f'Error: {error.message}')
    if error.hint:
        note(f'  {error.hint}')
    return error.exit_code


_NEXT_STEP = {
    errno.ENOSPC: 'make room on that disk, and run it again',
    errno.EDQUOT: 'make room within your quota, and run it again',
    errno.EMFILE: 'close some, or allow more (`ulimit -n`), and run it again',
    errno.ENFILE: 'close some programs: the whole machine has too many open files',
    errno.EROFS: 'it can be read; to change it, mount the disk for writing',
    errno.EACCES: 'check who may read and write there',
    errno.EPERM: 'check who may read and write there',
    errno.ESTALE: 'the file server lost track of it: run it again',
    errno.EIO: 'the disk or its server fails: run it again, and look into the system log',
}


def refuse_system_error(error: OSError) -> int:
    """Print an error of the operating system and what to do; returns the exit code."""
    what = str(error.strerror or error)
    if isinstance(error.filename, str | bytes):
        what = f'{os.fsdecode(error.filename)}: {what}'
    note(f'Error: {printable(what)}')
    if error.errno in _NEXT_STEP:
        note(f'  {_NEXT_STEP[error.errno]}')
    return UNUSABLE


def _never_fail_to_print() -> None:
    """Make printing never fail: escape characters unknown to the terminal, replace closed streams."""
    for name in ('stdout', 'stderr'):
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, 'w'))  # noqa: SIM115
        reconfigure = getattr(getattr(sys, name), 'reconfigure', None)
        if reconfigure is not None:
            reconfigure(errors='backslashreplace')


def _drop_output() -> None:
    """Discard what is still buffered for stdout, so that Python's flush at exit does not fail."""
    with contextlib.suppress(OSError, ValueError):
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, sys.stdout.fileno())
        os.close(nowhere)


@contextlib.contextmanager
def _plain_warnings() -> Iterator[None]:
    """Print our warnings in one line without source location; leave others unchanged."""
    counts: dict[type[Warning], int] = {}
    with warnings.catch_warnings():
        others = warnings.showwarning

        def show(message: Any, category: type[Warning], *more: Any, **named: Any) -> None:
            if not issubclass(category, HadrosaurWarning):
                others(message, category, *more, **named)
                return
            counts[category] = counts.get(category, 0) + 1
            if counts[category] <= MOST_WARNINGS:
                note(f'Warning: {printable(str(message))}')
            elif counts[category] == MOST_WARNINGS + 1:
                note(f'Warning: further warnings of this kind ({category.__name__}) are not shown')

        warnings.showwarning = show
        # Appended: what the user says with -W or PYTHONWARNINGS comes first.
        warnings.simplefilter('always', HadrosaurWarning, append=True)
        yield
