"""Move resources between bases: ``export``, ``import``, ``merge`` and ``backup``."""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING, Any, get_args

import click

from ..maintenance.transfer import OnConflict
from ..sanitize import printable
from . import output
from .arguments import BASE, FILTERS, JSON, SOME_COLL, STATUS, filters
from .exit_codes import DONE, FAILED
from .loading import opened

if TYPE_CHECKING:
    from ..maintenance.transfer import TransferReport

ON_CONFLICT = click.option(
    '--on-conflict',
    type=click.Choice(get_args(OnConflict)),
    default='refuse',
    show_default=True,
    help='What to do if a different resource of the same name exists.',
)
FILE = click.argument('file', type=click.Path(dir_okay=False, allow_dash=True))


def _tell(report: TransferReport, verb: str, as_json: bool) -> int:
    """Print the report; the exit code is 1 if something could not be read."""
    if as_json:
        output.write_json(report._asdict())
    else:
        words = [f'{output.counted(report.resources, "resource")} {verb}']
        words += [f'{report.same} there already'] if report.same else []
        words += [f'{report.pending} left out, which are pending'] if report.pending else []
        words += [f'{len(report.skipped)} skipped'] if report.skipped else []
        output.note(', '.join(words))
        for collection, ident in report.skipped:
            output.note(printable(f'skipped: {collection}/{ident}'))
        for collection, ident, new in report.renamed:
            output.note(printable(f'renamed: {collection}/{ident} to {new}'))
    for sentence in report.left_out:
        output.note(printable(f'left out: {sentence}'))
    return FAILED if report.left_out else DONE


@click.command(
    epilog="""\b
Examples:
  hadrosaur export base all.tar.gz
  hadrosaur export base best.tar.zst fits --result 'score>0.9'
  hadrosaur export base - | ssh other hadrosaur import base -
"""
)
@BASE
@FILE
@SOME_COLL
@STATUS
@FILTERS
@click.option('--force', is_flag=True, help='Replace an existing file.')
@JSON
def export(base: str, file: str, collection: str | None, force: bool, as_json: bool, **given: Any) -> int:
    """Write resources to a tar file, with checksums.

    All resources, or those that match the filters. Pending ones are left out. The ending of FILE chooses the
    compression: .tar, .tar.gz, .tar.xz, .tar.bz2 or .tar.zst; - is standard output.
    """
    given['order_by'] = None if given['order_by'] == '-finished_at' else given['order_by']
    target: Any = sys.stdout.buffer if file == '-' else file
    with opened(base) as project:
        try:
            report = project.export(target, collection, overwrite=force, **filters(given))
        except (ValueError, TypeError) as error:
            raise click.UsageError(str(error))
    return _tell(report, 'written', as_json and file != '-')


@click.command(
    'import',
    epilog="""\b
Examples:
  hadrosaur import base all.tar.gz
  hadrosaur import base all.tar.gz --on-conflict rename
""",
)
@BASE
@FILE
@ON_CONFLICT
@JSON
def import_(base: str, file: str, on_conflict: OnConflict, as_json: bool) -> int:
    """Read resources from a tar file that `export` wrote.

    The whole file is checked before anything changes. A resource that already exists with the same contents
    is left as it is, so an interrupted import can be repeated. BASE is created if missing. FILE - is standard
    input: a pipe is checked as it is read, and what comes before a fault in it is in.
    """
    from ..project import Project

    source: Any = sys.stdin.buffer if file == '-' else file
    if file != '-' and not os.path.exists(file):
        raise click.UsageError(f'there is no file {file!r}')
    is_new = not os.path.isdir(base) or not os.listdir(base)
    with Project(base, create=is_new) as project:
        return _tell(project.import_(source, on_conflict=on_conflict), 'brought in', as_json)


@click.command(
    epilog="""\b
Examples:
  hadrosaur merge base from-the-cluster
  hadrosaur merge base from-the-cluster fits --on-conflict skip
"""
)
@BASE
@click.argument('other', type=click.Path(file_okay=False))
@SOME_COLL
@ON_CONFLICT
@JSON
def merge(base: str, other: str, collection: str | None, on_conflict: OnConflict, as_json: bool) -> int:
    """Copy the resources of another base into this one.

    OTHER is not changed.
    """
    with opened(base) as project:
        report = project.merge(other, collection, on_conflict=on_conflict)
    return _tell(report, 'brought in', as_json)


@click.command(
    epilog="""\b
Examples:
  hadrosaur backup base /mnt/backup/base
"""
)
@BASE
@click.argument('target', type=click.Path(file_okay=False))
@JSON
def backup(base: str, target: str, as_json: bool) -> int:
    """Copy finished resources to another base, incrementally.

    Later runs copy only what has changed. A resource that is computed meanwhile is copied as it was before or
    after. Resources deleted in BASE stay in TARGET. To restore, use TARGET as it is, or merge it.
    """
    with opened(base) as project:
        return _tell(project.backup(target), 'copied', as_json)
