"""Housekeeping: ``du``, ``doctor``, ``gc`` and ``metrics``."""

from __future__ import annotations

import heapq
from typing import TYPE_CHECKING, Any

import click

from ..activity import prometheus
from ..maintenance import sizes
from ..sanitize import printable, size
from . import output
from .arguments import BASE, JSON, SOME_COLL, Span
from .exit_codes import DISAGREE, DONE, UNUSABLE
from .loading import opened
from .output import Column

if TYPE_CHECKING:
    from ..maintenance.gc import GcItem


# --- du --------------------------------------------------------------------------------------------


@click.command(
    epilog="""\b
Examples:
  hadrosaur du base
  hadrosaur du base books --largest 20 --json
"""
)
@BASE
@SOME_COLL
@click.option('--largest', type=click.IntRange(min=0), default=10, show_default=True, metavar='N',
              help='Number of resources to list.')  # fmt: skip
@JSON
def du(base: str, collection: str | None, largest: int, as_json: bool) -> None:
    """Show disk usage by collection, and the largest resources.

    Sizes are in bytes, as allocated on disk. `storage` is the part that the functions wrote themselves. Hard
    links within a resource count once; links are not followed.
    """
    totals: dict[str, dict[str, int]] = {}
    found: list[tuple[int, str, str]] = []
    with opened(base) as project:
        if collection is not None:
            project._registry.get_any(collection)
        for name, ident, place in sizes.resources(project.path, collection):
            taken, of_storage = sizes.disk_usage(*place)
            total = totals.setdefault(name, {'resources': 0, 'bytes': 0, 'storage': 0})
            total['resources'] += 1
            total['bytes'] += taken
            total['storage'] += of_storage
            (heapq.heappush if len(found) < largest else heapq.heappushpop)(found, (taken, name, ident))
    found = sorted(found, reverse=True)[:largest]
    if as_json:
        listed = [{'collection': name, 'ident': ident, 'bytes': taken} for taken, name, ident in found]
        output.write_json({'collections': totals, 'largest': listed})
        return
    columns = [Column('collection', folded=True), Column('resources', right=True)]
    columns += [Column(name, size, right=True) for name in ('bytes', 'storage')]
    output.write_table(columns, ([name, *total.values()] for name, total in totals.items()))
    if found:
        print()
        columns = [
            Column('bytes', size, right=True),
            Column('collection', folded=True),
            Column('ident', folded=True),
        ]
        output.write_table(columns, found)


# --- doctor ----------------------------------------------------------------------------------------


@click.command(
    epilog="""\b
Examples:
  hadrosaur doctor base
  hadrosaur doctor base --json
"""
)
@BASE
@JSON
def doctor(base: str, as_json: bool) -> int:
    """Diagnose a base directory: disk, locks, permissions, index.

    Checks the file system and its locks, versions, free space and inodes, permissions, the index, leftovers
    of killed programs, and limits of this machine, and tells what to do about each problem. Changes nothing;
    `check` compares the resources with the index.

    Exit code: 0 nothing to do, 4 something should be fixed, 5 the base cannot be used.
    """
    with opened(base) as project:
        found = project.doctor()
    if as_json:
        output.write_json([each._asdict() for each in found])
    else:
        columns = [
            Column('about'),
            Column('level'),
            Column('found', folded=True),
            Column('to do', folded=True),
        ]
        output.write_table(columns, found)
    levels = {each.level for each in found}
    return UNUSABLE if 'fault' in levels else DISAGREE if 'fix' in levels else DONE


# --- gc --------------------------------------------------------------------------------------------


@click.command(
    epilog="""\b
Examples:
  hadrosaur gc base --older-than 30d -n
  hadrosaur gc base books --status error --keep-last 100
  hadrosaur gc base --max-bytes '20 GB'
"""
)
@BASE
@SOME_COLL
@click.option('--older-than', type=Span(), metavar='DURATION', help='Minimum age: 12h, 30d, 8w.')
@click.option(
    '--status',
    type=click.Choice(('completed', 'error')),
    multiple=True,
    help='Only resources of this status; repeatable.',
)
@click.option(
    '--keep-last', type=click.IntRange(min=0), metavar='N', help='Keep the newest N of each collection.'
)
@click.option('--max-bytes', metavar='SIZE', help='Delete only until the rest is this small: 500MB, 20GB.')
@click.option('-n', '--dry-run', is_flag=True, help='Show what would be deleted; delete nothing.')
@JSON
def gc(base: str, collection: str | None, dry_run: bool, as_json: bool, **wanted: Any) -> int:
    """Delete resources by age, number or size.

    The oldest go first. If several criteria are given, all must hold. Pending and running resources are
    never deleted. The total is printed before anything is deleted.
    """

    def tell(chosen: list[GcItem]) -> None:
        taken = size(sum(each.bytes for each in chosen))
        verb = 'would be deleted' if dry_run else 'to be deleted'
        output.note(f'{output.counted(len(chosen), "resource")}, {taken}, {verb}')

    with opened(base) as project:
        try:
            report = project.gc(collection, dry_run=dry_run, on_plan=tell, **wanted)
        except ValueError as error:
            raise click.UsageError(str(error))
    if as_json:
        removed, refused = (
            [{name: value for name, value in each._asdict().items() if name != 'row'} for each in chosen]
            for chosen in (report.removed, report.refused)
        )
        output.write_json({'removed': removed, 'refused': refused, 'bytes': report.bytes, 'dry_run': dry_run})
    for each in () if as_json else report.removed:
        words = ('would delete' if dry_run else 'deleted', each.collection, each.ident, str(each.bytes))
        print('\t'.join(map(printable, words)))
    for each in report.refused:
        output.note(printable(f'kept: {each.refused}'))
    return DONE


# --- metrics ---------------------------------------------------------------------------------------


@click.command(
    epilog="""\b
Examples:
  hadrosaur metrics base
  hadrosaur metrics base > /var/lib/node_exporter/hadrosaur.prom
"""
)
@BASE
def metrics(base: str) -> None:
    """Print counts and durations in Prometheus format.

    The text format, which node_exporter also reads from a file.
    """
    with opened(base) as project:
        print(prometheus(project), end='')
