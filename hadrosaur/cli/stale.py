"""List stale resources: ``stale``."""

from __future__ import annotations

import click

from . import output
from .arguments import BASE, SOME_COLL
from .loading import opened
from .output import Column
from .query import FORMS, ident_line


@click.command(
    epilog="""\b
Examples:
  hadrosaur stale base
  hadrosaur stale base sheets --json
  hadrosaur run jobs:proj --stale          recompute them, dependencies first
"""
)
@BASE
@SOME_COLL
@FORMS
@click.option('--idents', 'form', flag_value='idents', help='Write only the idents, one a line.')
def stale(base: str, collection: str | None, form: str | None) -> None:
    """List what is out of date, and why.

    A resource is stale if it was computed by another version of its function, is older than its collection
    allows, or an input file has changed; or if a resource that its function fetched was computed again since,
    is being computed, was removed, or is stale itself. Versions and ages are those of the last program that
    opened the index; `run MODULE:PROJ --stale -n` uses those of your module.
    """
    names = ('collection', 'ident', 'stale_because')
    with opened(base) as project:
        rows = project.query(collection, stale=True, order_by='ident')
        cells = ([row.collection, row.ident, row.stale_because] for row in rows)
        if form == 'json':
            output.write_json_list(dict(zip(names, each, strict=True)) for each in cells)
        elif form == 'csv':
            output.write_csv(names, cells)
        elif form == 'idents':
            for row in rows:
                print(ident_line(row.ident))
        else:
            output.write_table([Column('collection'), Column('ident', folded=True), Column('because')], cells)
        if not rows:
            output.note('nothing is stale')
