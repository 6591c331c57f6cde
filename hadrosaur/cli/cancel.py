"""Stop pending resources: ``cancel``."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import click

from ..errors import Cancelled, ResourceNotFound
from . import output
from .arguments import BASE, COLL, JSON, Name
from .exit_codes import DONE, NOT_FOUND
from .loading import opened

if TYPE_CHECKING:
    from ..project import Project
    from ..records import Entry

PATIENCE = 10.0
"""Seconds to wait for the answer: whoever computes looks for requests once a second."""


@click.command(
    epilog="""\b
Examples:
  hadrosaur cancel base books moby-dick
  hadrosaur cancel base books                  all that are pending
"""
)
@BASE
@COLL
@click.argument('ident', type=Name(), required=False)
@JSON
def cancel(base: str, collection: str, ident: str | None, as_json: bool) -> int:
    """Stop pending resources, in whatever process they run.

    One resource, or all pending ones of a collection. A running one is killed, with the processes it started,
    and ends in error Cancelled. A queued one is withdrawn, as if it had never been requested. One that runs
    in a program's main thread is interrupted there, as by Ctrl-C.

    Exit code: 3 if nothing was pending.
    """
    with opened(base) as project:
        if ident is not None:
            project.get(collection, ident)
        asked = _pending(project, collection, ident)
        project.cancel(collection, ident)
        left = _await(project, collection, asked) if asked else set()
        gone = [row for row in asked if row.ident not in left]
        stopped = sum(_is_stopped(project, row) for row in gone)
    finished = len(gone) - stopped
    if as_json:
        output.write_json(
            {'asked': len(asked), 'stopped': stopped, 'finished': finished, 'pending': len(left)}
        )
        return DONE if asked else NOT_FOUND
    if not asked:
        output.note('nothing is pending')
        return NOT_FOUND
    print(f'{stopped} stopped')
    if finished:
        output.note(f'{finished} finished before they could be stopped')
    if left:
        output.note(
            f'{len(left)} still pending: they run in threads, which cannot be stopped, or in code that can '
            'not be interrupted; or the program that started them was killed, and their worker ends by itself'
        )
    return DONE


def _pending(project: Project, collection: str, ident: str | None = None) -> list[Entry]:
    return [row for row in project.query(collection, status='pending') if ident in (None, row.ident)]


def _await(project: Project, collection: str, asked: list[Entry]) -> set[str]:
    """Those of them that are still pending once they had time to stop."""
    idents = {row.ident for row in asked}
    deadline = time.monotonic() + PATIENCE
    while left := idents & {row.ident for row in _pending(project, collection)}:
        if time.monotonic() > deadline:
            break
        time.sleep(0.1)
    return left


def _is_stopped(project: Project, asked: Entry) -> bool:
    """Whether it ended in Cancelled, or was withdrawn; else it finished before it could be stopped."""
    try:
        now = project.get(asked.collection, asked.ident).entry
    except ResourceNotFound:
        return True
    if now.error_type == Cancelled.__name__:
        return True
    return bool(now.finished_at and asked.queued_at and now.finished_at < asked.queued_at)
