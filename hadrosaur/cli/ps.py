"""Running resources: ``ps`` and ``stack``."""

from __future__ import annotations

import contextlib
import os
import re
from typing import TYPE_CHECKING, Any

import click

from .. import directory, fileops
from ..activity import seen
from ..sanitize import printable
from . import output
from .arguments import BASE, COLL, IDENT, JSON, SOME_COLL
from .exit_codes import DONE, FAILED, NOT_FOUND
from .loading import opened
from .output import Column

if TYPE_CHECKING:
    from collections.abc import Iterator


# --- ps --------------------------------------------------------------------------------------------


@click.command(
    epilog="""\b
Examples:
  hadrosaur ps base
  hadrosaur ps base books --json
  watch hadrosaur ps base
"""
)
@BASE
@SOME_COLL
@JSON
def ps(base: str, collection: str | None, as_json: bool) -> None:
    """List running resources, with progress and last output line.

    Functions report progress by hadrosaur.current().progress(0.3, 'epoch 3'). The last line is that of
    stdout.log or stderr.log, whichever was written last. A run is listed after its first second, on whatever
    machine it runs.
    """
    with opened(base) as project:
        pending = project.query(collection, status='pending', order_by='started_at')
        running = [seen(project, row) for row in pending if row.phase == 'running']
        queued = len(pending) - len(running)
    if as_json:
        output.write_json_list({**row, 'progress': output.progress(row['progress'])} for row in running)
        return
    columns = [
        Column('collection', folded=True),
        Column('ident', folded=True),
        Column('since', _at, spare=True),
        Column('for', output.seconds, right=True),
        Column('progress', cut=True),
        Column('host', folded=True, spare=True),
        Column('pid', right=True),
        Column('last line', cut=True),
    ]
    order = ('collection', 'ident', 'started_at', 'seconds', 'progress', 'host', 'pid', 'last_line')
    output.write_table(columns, ([row[name] for name in order] for row in running))
    if queued or not running:
        output.note(
            f'{"nothing runs" if not running else len(running)}' + (f', {queued} queued' if queued else '')
        )


def _at(text: str) -> str | None:
    from datetime import datetime

    return output.lately(datetime.fromisoformat(text))


# --- stack -----------------------------------------------------------------------------------------


@click.command(
    epilog="""\b
Examples:
  hadrosaur stack base books moby-dick
"""
)
@BASE
@COLL
@IDENT
def stack(base: str, collection: str, ident: str) -> int:
    """Print the Python stack of a running resource.

    Innermost call first, one stack for each thread. Works on Linux, for runs in worker processes of this
    machine and this user. The run is not disturbed.

    Exit code: 1 if the stack cannot be read, 3 if the resource is not running.
    """
    from ..basedir import HOST
    from ..stack_dump import NoStack, ask

    with opened(base) as project:
        resource = project.get(collection, ident)
        path = project._registry.get_any(collection).spec.path
        folder = directory.find_folder(path, ident)
        record: dict[str, Any] = {}
        with contextlib.suppress(FileNotFoundError), fileops.opened_below(path, folder) as fd:  # it is queued
            record = directory.read_record(fd) or {}
        is_running = record.get('state') == 'begun' and project._store.is_locked(path, folder)
    host, pid = record.get('host'), record.get('pid')
    if not is_running or not isinstance(pid, int):
        output.note(f'{collection}/{ident} does not run: it is {resource.status}')
        return NOT_FOUND
    if host != HOST:
        output.note(f'{collection}/{ident} runs on {host}, in process {pid}: ask there')
        return FAILED
    try:
        told = ask(pid)
    except NoStack as error:
        output.note(f'no stack of {collection}/{ident}: {error}')
        return FAILED
    for line in _of_the_function(told):
        print(printable(line))
    return DONE


_FRAME = re.compile(r'  File "(.*)", line (\d+) in (.*)')


def _of_the_function(told: str) -> Iterator[str]:
    """Return the stacks without our frames, each frame with its source line."""
    import linecache

    ours = os.path.dirname(os.path.dirname(os.path.abspath(__file__))) + os.sep
    header, is_ours = '', False
    for line in told.splitlines():
        frame = _FRAME.fullmatch(line)
        if frame is None:
            header, is_ours = line, False
        elif not is_ours:
            is_ours = frame[1].startswith(ours)
            if is_ours:
                continue
            if header:
                yield header
                header = ''
            yield line
            if source := linecache.getline(frame[1], int(frame[2])).strip():
                yield f'    {source}'
