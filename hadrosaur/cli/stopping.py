"""Stop what another process computes: ``cancel``."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import click

from . import output
from .arguments import BASE, COLL, JSON
from .ending import DONE, NOT_FOUND
from .projects import opened

if TYPE_CHECKING:
    from ..project import Project

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
@click.argument('ident', required=False)
@JSON
def cancel(base: str, collection: str, ident: str | None, as_json: bool) -> int:
    """Stop what another process computes.

    One resource, or all of a collection that are pending. What runs is killed, with all that it started,
    and ends in error Cancelled; what only waits is as if never asked for. Exit code: 3 if nothing was
    pending.
    """
    with opened(base) as project:
        if ident is not None:
            project.get(collection, ident)
        asked = project.cancel(collection, ident)
        left = _await(project, collection, ident) if asked else 0
    if as_json:
        output.write_json({'asked': asked, 'pending': left})
    elif not asked:
        output.note('nothing is pending')
    else:
        print(f'{asked - left} stopped')
        if left:
            output.note(
                f'{left} still pending: they run in threads or inline, which cannot be stopped, or whoever '
                'asked for them was killed, and their worker ends by itself'
            )
    return DONE if asked else NOT_FOUND


def _await(project: Project, collection: str, ident: str | None) -> int:
    """How many are still pending once they had time to stop."""
    deadline = time.monotonic() + PATIENCE
    while True:
        pending = [e for e in project.query(collection, status='pending') if ident in (None, e.ident)]
        if not pending or time.monotonic() > deadline:
            return len(pending)
        time.sleep(0.1)
