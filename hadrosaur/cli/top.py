"""The running view of a base directory in a terminal: ``top``."""

from __future__ import annotations

import contextlib
import os
import select
import signal
import sys
import time
from typing import TYPE_CHECKING, Any, NamedTuple

import click

from .. import activity
from ..records import Progress
from ..sanitize import printable
from . import output
from .arguments import BASE, SOME_COLL
from .loading import opened
from .output import Column

if TYPE_CHECKING:
    from collections.abc import Iterator

    from rich.console import Console, RenderableType

    from ..project import Project

INTERVAL = 1.0
"""Seconds between two looks, at least."""

SHARE = 0.05
"""Share of a processor that looking may take: where a look takes long, the next one comes later."""

MOST_PENDING = 1000  # rows that are searched for what runs
PLAIN_LINES = 60  # of the one frame that is written where there is no terminal
BAR = 20


class View(NamedTuple):
    """What there is to see at one moment."""

    base: str
    state: dict[str, Any]
    running: list[Any]  # rows, the oldest first
    queued: int
    failures: list[Any]  # rows, the last first


@click.command(
    epilog="""\b
Examples:
  hadrosaur top base
  hadrosaur top base thumbs
  ssh -t cluster hadrosaur top base
"""
)
@BASE
@SOME_COLL
def top(base: str, collection: str | None) -> None:
    """Show a live view in the terminal, until q or Ctrl-C.

    Shows collections with counts, rate and remaining time, running resources with their progress and last
    output line, and the latest failures. Updates every second, or less often where that would take more than
    a twentieth of a processor. Writes one frame if standard output is not a terminal.
    """
    with opened(base) as project:
        console = output.terminal()
        if not console.is_terminal or console.is_dumb_terminal:
            console.print(frame(project, look(project, collection), console.width, PLAIN_LINES))
            return
        with contextlib.suppress(KeyboardInterrupt):  # the end that is meant
            _show(project, collection, console)


def _show(project: Project, collection: str | None, console: Console) -> None:
    from rich.live import Live

    look(project, collection)  # modules are loaded, which is no part of what a look takes
    with (
        _terminated_as_interrupted(),
        _keys() as is_ended,
        Live(console=console, screen=True, auto_refresh=False) as live,
    ):
        while True:
            started = time.process_time()
            seen = look(project, collection)
            live.update(frame(project, seen, console.width, console.height), refresh=True)
            if is_ended(max(INTERVAL, (time.process_time() - started) / SHARE)):
                return


@contextlib.contextmanager
def _keys() -> Iterator[Any]:
    """Gives a function that waits so many seconds, and tells whether ``q`` was pressed."""
    import termios
    import tty

    if not sys.stdin.isatty():  # there are no keys
        yield time.sleep
        return
    fd = sys.stdin.fileno()
    before = termios.tcgetattr(fd)
    tty.setcbreak(fd)
    now = termios.tcgetattr(fd)
    now[6][termios.VSUSP] = b'\0'  # a shell would get the terminal back as we have it
    termios.tcsetattr(fd, termios.TCSANOW, now)

    def is_ended(seconds: float) -> bool:
        readable, _, _ = select.select([fd], [], [], seconds)
        typed = os.read(fd, 1024) if readable else b'?'
        return not typed or any(key in typed for key in (b'q', b'Q', b'\x04'))

    try:
        yield is_ended
    finally:
        termios.tcsetattr(fd, termios.TCSADRAIN, before)


@contextlib.contextmanager
def _terminated_as_interrupted() -> Iterator[None]:
    """A terminal is put back in order when we are told to end, too."""
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


# --- what there is to see --------------------------------------------------------------------------


def look(project: Project, collection: str | None) -> View:
    """Ask the index."""
    state = activity.state(project, collection)
    pending = project.query(collection, status='pending', order_by='started_at', limit=MOST_PENDING)
    running = [row for row in pending if row.phase == 'running']
    queued = sum(counts['pending'] for counts in state.values()) - len(running)
    failures = project.query(collection, status='error', limit=PLAIN_LINES)
    return View(project.base, state, running, max(0, queued), list(failures))


def frame(project: Project, view: View, width: int, height: int) -> RenderableType:
    """One frame of so many lines: each line is one, whatever it is about."""
    from rich.console import Group
    from rich.text import Text

    room = max(3, height - 5)  # without the lines that are always there
    states = _largest(view.state, max(1, room // 3))
    failures = view.failures[: max(1, min(5, room // 4))]
    left = max(1, room - len(states) - len(failures) - 2 * bool(failures) - bool(states))
    running = view.running[: max(1, left - 1)]

    total = sum(counts['total'] for counts in view.state.values())
    said = f'{total} resources · {len(view.running)} running · {view.queued} queued'
    parts: list[RenderableType] = [_line(f'{time.strftime("%H:%M:%S")}  {view.base}', 'bold'), _line(said)]
    if states:
        parts.append(output.drawn(_STATE, [_state(name, view) for name in states], width))
    if running:
        rows = [_running(activity.seen(project, row)) for row in running]
        parts += [Text(), output.drawn(_RUNNING, rows, width)]
    if failures:
        parts += [Text(), output.drawn(_FAILED, map(_failure, failures), width)]
    hidden = len(view.state) - len(states), len(view.running) - len(running)
    more = [f'{n} more {what}' for n, what in zip(hidden, ('collections', 'running'), strict=True) if n]
    parts.append(_line(' · '.join(['q quits'] * output.is_terminal() + more), 'dim'))
    return Group(*parts)


def _line(text: str, style: str = '') -> RenderableType:
    from rich.text import Text

    return Text(printable(text), style=style, no_wrap=True, overflow='ellipsis')


def _largest(state: dict[str, Any], most: int) -> list[str]:
    """Names of collections: those with most to do, then the largest; in their own order where all fit."""
    if len(state) <= most:
        return list(state)
    return sorted(state, key=lambda name: (-state[name]['pending'], -state[name]['total'], name))[:most]


_STATE = [
    Column('collection', cut=True),
    Column('done', spare=True),
    Column('completed', right=True),
    Column('error', right=True),
    Column('running', right=True),
    Column('queued', right=True),
    Column('rate', lambda rate: f'{rate:.3g}/s', right=True),
    Column('to go', output.seconds, right=True),
]
_RUNNING = [
    Column('running', cut=True),
    Column('for', output.seconds, right=True),
    Column('progress', cut=True),
    Column('pid', right=True),
    Column('last line', cut=True),
]
_FAILED = [Column('failed', cut=True), Column('at'), Column('error', cut=True)]


def _state(name: str, view: View) -> list[Any]:
    counts = view.state[name]
    running = sum(row.collection == name for row in view.running)
    queued = max(0, counts['pending'] - running)
    done = counts['completed'] + counts['error']
    share = done / counts['total'] if counts['total'] else 1.0
    bar = '#' * int(BAR * share)
    pace = (counts['rate'], counts['eta_seconds'])
    return [name, f'{bar:.<{BAR}}', counts['completed'], counts['error'], running, queued, *pace]


def _running(seen: dict[str, Any]) -> list[Any]:
    said: Progress | None = seen['progress']
    name = f'{seen["collection"]}/{seen["ident"]}'
    return [name, seen['seconds'], said and str(said), seen['pid'], seen['last_line']]


def _failure(row: Any) -> list[Any]:
    error = f'{row.error_type}: {row.error}' if row.error else row.error_type
    return [f'{row.collection}/{row.ident}', output.lately(row.finished_at), error]
