"""The state of a base directory: ``status`` and ``errors``."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

import click

from .. import activity
from ..activity import retry_command
from ..records import Progress
from ..sanitize import printable
from . import output
from .arguments import BASE, JSON, SOME_COLL
from .loading import opened
from .output import Column

if TYPE_CHECKING:
    from collections.abc import Callable

    from ..records import ErrorGroup

LONGEST_PATTERN = 200  # characters of a message that a terminal shows of a cause
INTERVAL = 1.0  # seconds between two looks of --watch


# --- status ----------------------------------------------------------------------------------------


@click.command(
    epilog="""\b
Examples:
  hadrosaur status base
  hadrosaur status base books --watch
  hadrosaur status base --json | jq .books.error
"""
)
@BASE
@SOME_COLL
@JSON
@click.option('--watch', is_flag=True, help='Update every second, until Ctrl-C.')
def status(base: str, collection: str | None, as_json: bool, watch: bool) -> None:
    """Count resources by status; show rate and remaining time.

    Rate and remaining time are shown while something runs, for what is queued so far. Runs that report their
    progress, by hadrosaur.current().progress(0.3, 'epoch 3'), are listed below the table.
    """
    if watch and as_json:
        raise click.UsageError('--watch shows tables; leave --json out, or call it again and again')
    with opened(base) as project:
        if watch:
            _watch(lambda: activity.state(project, collection))
        elif as_json:
            output.write_json(activity.state(project, collection))
        else:
            state = activity.state(project, collection)
            output.write_table(_columns(state), _rows(state))
            for line in _said(state):
                output.note(line)
            for name, counts in state.items():
                if sample := counts['duration']['sample']:
                    output.note(f'{name}: durations are those of the last {sample}')
            if not state:
                output.note('there are no resources yet')


def _said(state: dict[str, Any]) -> list[str]:
    return [
        f'{name}/{each["ident"]}: {Progress(each["fraction"], each["text"])}'
        for name, counts in state.items()
        for each in counts['progress']
    ]


_COUNTS = ('total', 'completed', 'error', 'pending')


def _columns(state: dict[str, Any]) -> list[Column]:
    columns = [Column('collection', folded=True), *(Column(name, right=True) for name in _COUNTS)]
    columns += [Column(name, output.seconds, right=True, spare=True) for name in ('p50', 'p95', 'max')]
    if _is_running(state):
        columns += [Column('rate', lambda rate: f'{rate:.3g}/s', right=True)]
        columns += [Column('to go', output.seconds, right=True)]
    return columns


def _rows(state: dict[str, Any]) -> list[list[Any]]:
    paces = ('rate', 'eta_seconds') if _is_running(state) else ()
    return [
        [
            name,
            *(counts[each] for each in _COUNTS),
            *(counts['duration'][each] for each in ('p50', 'p95', 'max')),
            *(counts[each] for each in paces),
        ]
        for name, counts in state.items()
    ]


def _is_running(state: dict[str, Any]) -> bool:
    return any(counts['pending'] for counts in state.values())


def _watch(look: Callable[[], dict[str, Any]]) -> None:
    """Print the table again and again, in place on a terminal."""
    if not output.is_terminal():
        while True:
            state = look()
            output.write_table(_columns(state), _rows(state))
            print(flush=True)
            for line in _said(state):
                output.note(line)
            time.sleep(INTERVAL)
    from rich.console import Group
    from rich.live import Live
    from rich.text import Text

    console = output.terminal()
    with Live(console=console, auto_refresh=False) as live:
        while True:
            state = look()
            table = output.drawn(_columns(state), _rows(state), console.width)
            said = [Text(printable(line), no_wrap=True, overflow='ellipsis') for line in _said(state)]
            live.update(Group(table, *said), refresh=True)
            time.sleep(INTERVAL)


# --- errors ----------------------------------------------------------------------------------------


@click.command(
    epilog="""\b
Examples:
  hadrosaur errors base
  hadrosaur errors base books --json
  hadrosaur query base books --error-type ValueError
  hadrosaur retry jobs:proj books --group f1:342252dc289c3479
"""
)
@BASE
@SOME_COLL
@JSON
def errors(base: str, collection: str | None, as_json: bool) -> None:
    """Group failures by cause.

    Failures with the same cause have the same exception type, the same place in your code, and the same
    message apart from numbers and quoted text. The most frequent cause comes first, each with the command
    that retries its resources. `query` and `rm` take --group too.
    """
    with opened(base) as project:
        groups = project.error_groups(collection)
    if as_json:
        output.write_json([_as_json(group) for group in groups])
        return
    if output.is_terminal():
        output.write_blocks(map(_block, groups))
    else:
        titles = ('count', 'type', 'collection', 'example', 'last', 'frame', 'pattern', 'group', 'retry')
        output.write_table([Column(title) for title in titles], map(_group_cells, groups))
    if not groups:
        output.note('there are no failures')


def _as_json(group: ErrorGroup) -> dict[str, Any]:
    times = {'first': output.utc(group.first), 'last': output.utc(group.last)}
    return {**group._asdict(), **times, 'retry': retry_command(group)}


def _group_cells(group: ErrorGroup) -> tuple[Any, ...]:
    told = (group.count, group.type, group.collection, group.example, output.utc(group.last))
    return (*told, group.frame, group.pattern, group.group, retry_command(group))


def _block(group: ErrorGroup) -> tuple[str, list[str], str]:
    """Describe a group of failures: the cause, where and when, and the command that retries it."""
    first, last = output.lately(group.first), output.lately(group.last)
    times = last if first == last else f'{first} … {last}'
    places = [group.frame, group.collection, times]
    cause = f'{group.count} {group.type}: {output.shortened(group.pattern, LONGEST_PATTERN)}'
    about = [' · '.join(filter(None, places)), f'example: {group.example}', f'group: {group.group}']
    return cause, about, retry_command(group)
