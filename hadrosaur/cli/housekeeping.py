"""How much there is: ``du`` and ``gc`` for people with full disks, ``metrics`` for programs that watch."""

from __future__ import annotations

import heapq
from typing import TYPE_CHECKING, Any

import click

from ..activity import prometheus
from ..maintenance import sizes
from ..sanitize import printable, size
from . import output
from .arguments import BASE, JSON, SOME_COLL, Span
from .exit_codes import DONE
from .loading import opened
from .output import Column

if TYPE_CHECKING:
    from ..maintenance.gc import Doomed


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
              help='Resources that are listed.')  # fmt: skip
@JSON
def du(base: str, collection: str | None, largest: int, as_json: bool) -> None:
    """Show what takes space on the disk.

    By collection, and the largest resources. Sizes are what the files take on the disk, in bytes; `storage`
    is the part that the functions wrote themselves. A file with several names in a resource counts once; no
    link is followed.
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
@click.option('--older-than', type=Span(), metavar='DURATION', help='Finished so long ago: 12h, 30d, 8w.')
@click.option(
    '--status',
    type=click.Choice(('completed', 'error')),
    multiple=True,
    help='Of this status only; may be repeated.',
)
@click.option(
    '--keep-last', type=click.IntRange(min=0), metavar='N', help='Keep the newest N of each collection.'
)
@click.option('--max-bytes', metavar='SIZE', help='Only as much as is needed to get below: 500MB, 20GB.')
@click.option('-n', '--dry-run', is_flag=True, help='Say what would be deleted, and delete nothing.')
@JSON
def gc(base: str, collection: str | None, dry_run: bool, as_json: bool, **wanted: Any) -> int:
    """Delete what is old, or too much.

    The oldest go first. All that is said must hold; what runs, or is pending, stays. What is to go is told
    before the first one goes.
    """

    def tell(chosen: list[Doomed]) -> None:
        taken = size(sum(each.bytes for each in chosen))
        output.note(f'{output.counted(len(chosen), "resource")}, {taken}, {"would go" if dry_run else "go"}')

    with opened(base) as project:
        try:
            report = project.gc(collection, dry_run=dry_run, told=tell, **wanted)
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
        output.note(printable(f'stays: {each.refused}'))
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
    """Print counts and durations for Prometheus.

    In its text format, which node_exporter reads from a file, too.
    """
    with opened(base) as project:
        print(prometheus(project), end='')
