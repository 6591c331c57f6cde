"""Keep index and directories consistent: ``check``, ``reindex`` and ``rm``."""

from __future__ import annotations

import contextlib
import os
import shlex
import sys
import time
from itertools import chain
from typing import TYPE_CHECKING, Any

import click

from ..errors import NotAProject, ResourceError
from ..progress import PLAIN_INTERVAL
from ..sanitize import printable
from . import output
from .arguments import BASE, COLL, GROUP, IDENTS, IDENTS_FROM, JSON, SOME_COLL
from .exit_codes import DISAGREE, DONE, refuse
from .loading import opened
from .output import Column
from .query import asked_for, found, note_if_none

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from typing import BinaryIO

    from ..project import Project
    from ..records import CheckReport, Finding, ReindexReport


# --- check -----------------------------------------------------------------------------------------


@click.command(
    epilog="""\b
Examples:
  hadrosaur check base
  hadrosaur check base --fix
  hadrosaur check base --deep --json
"""
)
@BASE
@click.option('--fix', is_flag=True, help='Repair what can be repaired.')
@click.option('--deep', is_flag=True, help='Also compare checksums; reads every result.')
@JSON
def check(base: str, fix: bool, deep: bool, as_json: bool) -> int:
    """Find disagreements between index and directories.

    Exit code: 4 if a disagreement remains.
    """
    with opened(base) as project, _progress() as progress:
        report = project.check(fix=fix, deep=deep, progress=progress)
    if as_json:
        findings = [finding._asdict() for finding in report.findings]
        output.write_json({'scanned': report.scanned, 'findings': findings})
    else:
        _write_findings(report)
    if not fix and any(map(_can_be_fixed, report.remaining)):
        output.note(f'hadrosaur check {shlex.quote(base)} --fix repairs what can be repaired')
    elif report.remaining:
        output.note('only a person, or a new run (hadrosaur run … --recompute), can tell what is right')
    return DISAGREE if report.remaining else DONE


def _can_be_fixed(found: Finding) -> bool:
    return found.problem != 'checksum' and not found.detail.startswith('result.json')


def _write_findings(report: CheckReport) -> None:
    if report.findings:
        columns = [
            Column('problem'),
            Column('collection'),
            Column('ident', folded=True),
            Column('fixed'),
            Column('detail', cut=True),
        ]
        output.write_table(columns, map(_cells, report.findings))
    left = f'{len(report.findings)} found, {len(report.remaining)} left'
    folders = output.counted(report.scanned, 'folder')
    output.note(f'{folders}: {left if report.findings else "index and directories agree"}')


def _cells(found: Finding) -> tuple[str, ...]:
    fixed = 'yes' if found.fixed else 'no'
    return (found.problem, found.collection, found.ident, fixed, found.detail)


# --- reindex ---------------------------------------------------------------------------------------


@click.command(
    epilog="""\b
Examples:
  hadrosaur reindex base
  hadrosaur reindex base --changed-only
  hadrosaur reindex base --fresh
"""
)
@BASE
@SOME_COLL
@click.option('--changed-only', is_flag=True, help='Read only folders that changed since the last reindex.')
@click.option('--fresh', is_flag=True, help='Quarantine the index and build a new one.')
@JSON
def reindex(base: str, collection: str | None, changed_only: bool, fresh: bool, as_json: bool) -> None:
    """Update the index from the directories.

    For use after folders were edited, copied or deleted by hand. A base without an index gets one.
    """
    from ..project import Project

    if not os.path.isdir(base):
        raise NotAProject(
            f'{base!r} does not exist', hint='give the base directory that Project(…) was given'
        )
    with Project(base) as project, _progress() as progress:
        report = project.reindex(collection, changed_only=changed_only, fresh=fresh, progress=progress)
    if as_json:
        output.write_json(_as_json(report))
        return
    rows = f'{output.counted(report.added, "row")} added, {report.updated} updated, {report.removed} removed'
    print(f'{output.counted(report.scanned, "folder")}: {rows}')
    for path, reason in report.unreadable:
        output.note(f'unreadable: {path}: {reason}')


@contextlib.contextmanager
def _progress() -> Iterator[Callable[[int], None]]:
    """Show how many folders were read: in one line on a terminal, removed at the end; else now and then."""
    is_terminal = output.is_terminal(sys.stderr)
    said = time.monotonic()

    def say(scanned: int) -> None:
        nonlocal said
        if is_terminal:
            print(f'\r{output.counted(scanned, "folder")}', end='', file=sys.stderr, flush=True)
        elif time.monotonic() - said >= PLAIN_INTERVAL:
            said = time.monotonic()
            output.note(f'{output.counted(scanned, "folder")} read so far')

    try:
        yield say
    finally:
        if is_terminal:
            print('\r\x1b[K', end='', file=sys.stderr, flush=True)


def _as_json(report: ReindexReport) -> dict[str, Any]:
    unreadable = [{'path': path, 'reason': reason} for path, reason in report.unreadable]
    return {**report._asdict(), 'unreadable': unreadable}


# --- rm --------------------------------------------------------------------------------------------


@click.command(
    epilog="""\b
Examples:
  hadrosaur rm base books moby-dick
  hadrosaur rm base books -- -an-ident-that-begins-with-a-dash
  hadrosaur rm base books --group f1:342252dc289c3479 -n
  hadrosaur query base books --since 2h --idents > idents.txt
  hadrosaur rm base books --idents-from idents.txt -n
"""
)
@BASE
@COLL
@IDENTS
@IDENTS_FROM
@GROUP
@click.option('-n', '--dry-run', is_flag=True, help='Show what would be deleted; delete nothing.')
@JSON
def rm(
    base: str,
    collection: str,
    idents: tuple[str, ...],
    source: BinaryIO | None,
    error_group: tuple[str, ...],
    dry_run: bool,
    as_json: bool,
) -> int:
    """Delete resources.

    Deletes their folders and rows; with --group, all failures of one cause. A resource that is being computed
    is refused; the others are still deleted.
    """
    asked = asked_for(idents, source) if idents or source or not error_group else iter(())
    removed: list[str] = []
    refused: list[dict[str, str]] = []
    code = DONE
    with opened(base) as project:
        for ident, _ in chain(asked, _of_groups(project, collection, error_group)):
            try:
                _remove(project, collection, ident, dry_run=dry_run)
                removed.append(ident)
                if not as_json:
                    print(f'{"would delete" if dry_run else "deleted"}\t{printable(ident)}')
            except ResourceError as error:
                refused.append({'ident': ident, 'reason': error.message})
                code = max(code, refuse(error))
    if as_json:
        output.write_json({'removed': removed, 'refused': refused, 'dry_run': dry_run})
    return code


def _of_groups(project: Project, collection: str, groups: tuple[str, ...]) -> list[tuple[str, None]]:
    """Return the idents of some groups of failures, all of them before the first is deleted."""
    if not groups:
        return []
    rows = found(project, collection, {'status': 'error', 'error_group': list(groups)})
    note_if_none(rows)
    return [(ident, None) for ident in rows.idents()]


def _remove(project: Project, collection: str, ident: str, *, dry_run: bool) -> None:
    if project.get(collection, ident).status == 'pending':
        words = ('hadrosaur', 'cancel', project.base, collection, ident)
        raise ResourceError(
            f'{collection}/{ident} is being computed',
            collection=collection,
            ident=ident,
            hint=f'{shlex.join(words)} stops it',
        )
    if not dry_run:
        project.remove(collection, ident)
