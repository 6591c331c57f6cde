"""The revision of the index: ``db current`` and ``db upgrade``."""

from __future__ import annotations

import click

from . import output
from .arguments import BASE, JSON
from .loading import opened


@click.group(
    epilog="""\b
Examples:
  hadrosaur db current base
  hadrosaur db upgrade base
"""
)
def db() -> None:
    """Show or upgrade the revision of the index.

    Seldom needed: an index is upgraded whenever it is opened.
    """


@db.command(
    epilog="""\b
Examples:
  hadrosaur db current base
  hadrosaur db current base --json
"""
)
@BASE
@JSON
def current(base: str, as_json: bool) -> None:
    """Show the revision of the index and that of this release."""
    with opened(base) as project:
        stored, head = project.index_revision()
    if as_json:
        output.write_json({'stored': stored, 'head': head})
    else:
        print(f'{stored or "no index"}{" (head)" if stored == head else f", this release has {head}"}')


@db.command(
    epilog="""\b
Examples:
  hadrosaur db upgrade base
"""
)
@BASE
@JSON
def upgrade(base: str, as_json: bool) -> None:
    """Upgrade the index to this release's revision, keeping its rows."""
    with opened(base) as project:
        before, head = project.index_revision()
        project.stats()
    if as_json:
        output.write_json({'before': before, 'head': head})
    else:
        print(f'{head}: {"nothing to do" if before == head else "upgraded from " + (before or "nothing")}')
