"""Compute resources: ``run`` and ``retry``."""

from __future__ import annotations

import shlex
import sys
import time
from typing import TYPE_CHECKING, Any, NamedTuple

import click

from ..engine import check_executor
from ..records import Counts
from ..row_writer import LAST
from ..sanitize import printable
from . import output
from .arguments import ARGS, COLL, FILTERS, IDENTS, IDENTS_FROM, SOME_COLL, TARGET, filters, together
from .exit_codes import DONE, FAILED, UNUSABLE
from .loading import loaded, registered
from .output import Column
from .query import asked_for, found, note_if_none

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from typing import BinaryIO

    from ..handle import Resource
    from ..project import Project

_HOW = together(
    click.option('-j', '--workers', type=click.IntRange(min=1), metavar='N',
                 help='Number of parallel workers.  [default: number of processors]'),
    click.option('--executor', metavar='NAME', default='processes', show_default=True,
                 help="'processes', 'threads', 'inline' or 'dask:tcp://host:port'."),
    click.option('-n', '--dry-run', is_flag=True, help='Show what would be computed, and why.'),
    click.option('--json', 'as_json', is_flag=True, help='Write JSON.'),
)  # fmt: skip


REFUSED = frozenset({'InvalidIdent', 'InvalidArgs', 'ResourceError'})
"""What is told of resources that were refused; nothing of it is stored."""


class How(NamedTuple):
    """Options for computing a set of resources."""

    workers: int | None
    executor: str
    dry_run: bool
    as_json: bool
    args: dict[str, Any] | None = None
    recompute: bool = False


# --- run -------------------------------------------------------------------------------------------


@click.command(
    epilog="""\b
Examples:
  hadrosaur run jobs:proj books moby-dick emma
  hadrosaur run path/to/jobs.py:proj books --idents-from idents.txt -j 8
  seq 1000 | hadrosaur run jobs:proj numbers --idents-from - --args '{"x": 1}'
  echo '["emma", {"x": 1}]' | hadrosaur run jobs:proj books --idents-from -
  hadrosaur run jobs:proj --stale
"""
)
@TARGET
@SOME_COLL
@IDENTS
@IDENTS_FROM
@ARGS
@click.option('--stale', is_flag=True, help='Recompute what is stale, in COLL or in all collections.')
@click.option('--recompute', is_flag=True, help='Recompute completed resources as well.')
@_HOW
def run(
    target: str,
    collection: str | None,
    idents: tuple[str, ...],
    source: BinaryIO | None,
    stale: bool,
    **options: Any,
) -> int:
    """Compute resources in parallel.

    MODULE:PROJ names the Project: a module in the current directory (jobs:proj) or a file
    (path/to/jobs.py:proj). Completed resources are not computed again; failed ones are.

    A line of --idents-from is an ident, a JSON list of an ident and its args, or a JSON object of args, which
    then form the ident. Lines are read as needed. --args is for idents that bring none; without it a resource
    reuses its last args.

    --stale recomputes what `hadrosaur stale` lists, dependencies first.

    Exit code: 1 if some ended in error, 5 if the index could not be written, 130 after Ctrl-C. After Ctrl-C
    the same command continues where it stopped.
    """  # fmt: skip
    if stale:
        return _run_stale(target, collection, bool(idents or source), How(**options))
    if collection is None:
        raise click.UsageError('give COLL and IDENT …, or --stale')
    items: Iterable[Any] = asked_for(idents, source)
    total = _total(idents, source)
    if total is not None:
        items = Known(items, total)
    with loaded(target) as project:
        return _compute(project, collection, items, How(**options))


def _run_stale(target: str, collection: str | None, is_named: bool, how: How) -> int:
    """Recompute one collection after the other, dependencies first."""
    if is_named or how.args is not None or how.recompute:
        raise click.UsageError(
            '--stale selects the resources itself: leave out IDENT, --idents-from, --args and --recompute'
        )
    with loaded(target) as project:
        if collection is not None:
            registered(project, collection)
        groups = project._stale_levels(collection)
        if not groups:
            output.note('nothing is stale')
        for name, _ in groups:
            registered(project, name)
        if how.dry_run:
            rows = ((name, ident) for name, idents in groups for ident in idents)
            plans = ({'action': 'compute', 'collection': name, 'ident': ident,
                      'reason': project.stale_because(name, ident)} for name, ident in rows)  # fmt: skip
            return _show_plans(plans, how)
        started, totals, failures, last = time.monotonic(), Counts(), Failures(), collection or ''
        for name, idents in groups:
            counts = _carry_out(project, name, idents, how._replace(recompute=True), failures)
            totals, last = Counts(*map(sum, zip(totals, counts, strict=True))), name
        return _told(project, last, totals, failures, how, started)


def _show_plans(plans: Iterable[dict[str, Any]], how: How) -> int:
    if how.as_json:
        output.write_json_list(plans)
    else:
        for plan in plans:
            print('\t'.join(printable(str(cell)) for cell in plan.values()))
    return DONE


# --- retry -----------------------------------------------------------------------------------------


@click.command(
    epilog="""\b
Examples:
  hadrosaur retry jobs:proj books
  hadrosaur retry jobs:proj books --error-type ConnectionError --since 2h -j 2
  hadrosaur retry jobs:proj books --group f1:342252dc289c3479
  hadrosaur retry jobs:proj books --ident 'a*' -n
"""
)
@TARGET
@COLL
@FILTERS
@_HOW
def retry(
    target: str,
    collection: str,
    workers: int | None,
    executor: str,
    dry_run: bool,
    as_json: bool,
    **given: Any,
) -> int:
    """Compute failed resources again.

    All failed resources of a collection, or those that match the filters, with their last args.
    """
    with loaded(target) as project:
        registered(project, collection)
        wanted = {**filters(given), 'status': 'error'}
        # Listed before the first one runs: running them changes what matches.
        rows = found(project, collection, wanted)
        items = [(ident, None) for ident in rows.idents()]
        note_if_none(rows, 'nothing to retry')
        return _compute(project, collection, items, How(workers, executor, dry_run, as_json))


class Known:
    """An iterable of known length that is consumed once."""

    def __init__(self, items: Iterable[Any], total: int) -> None:
        self._items, self._total = items, total

    def __iter__(self) -> Iterator[Any]:
        return iter(self._items)

    def __len__(self) -> int:
        return self._total


def _total(idents: tuple[str, ...], source: BinaryIO | None) -> int | None:
    """Return how many resources are requested; None for a pipe that was not read yet."""
    if source is None:
        return len(idents)
    try:
        if not source.seekable():
            return None
        start = source.tell()
        lines = sum(1 for line in source if line.strip())
        source.seek(start)
    except OSError:
        return None
    return len(idents) + lines


# --- both ------------------------------------------------------------------------------------------


def _compute(project: Project, collection: str, items: Iterable[Any], how: How) -> int:
    registered(project, collection)
    check_executor(how.executor, how.workers)
    if how.dry_run:
        return _say_what_would_be_done(project, collection, items, how)
    started, failures = time.monotonic(), Failures()
    counts = _carry_out(project, collection, items, how, failures)
    return _told(project, collection, counts, failures, how, started)


def _carry_out(
    project: Project, collection: str, items: Iterable[Any], how: How, failures: Failures
) -> Counts:
    batch = project.fetch_many(
        collection,
        items,
        how.args,
        workers=how.workers,
        executor=how.executor,
        recompute=how.recompute,
        progress=True,
    )
    if not output.is_terminal(sys.stderr):
        setattr(batch.progress, 'says_end', False)  # noqa: B010  a line now and then; the end is told below
    try:
        for resource in batch:
            failures.add(resource)
    except KeyboardInterrupt:
        output.note(f'interrupted: {batch.summary()}; the same command goes on from there')
        raise
    return batch.counts


def _told(
    project: Project, collection: str, counts: Counts, failures: Failures, how: How, started: float
) -> int:
    """Print the result and return the exit code."""
    _report(project, collection, counts, failures, how, time.monotonic() - started)
    if not _is_usable(project):
        return UNUSABLE
    return FAILED if counts.error else DONE


def _is_usable(project: Project) -> bool:
    """Whether the index is up to date; says so if not."""
    if not project._store.rows.flush(LAST):
        output.note(
            f'the index of {project.base!r} could not be brought up to date: {project._store.rows.fault}'
        )
        return False
    try:
        project._base.try_to_write()
    except OSError as error:
        output.note(f'{project.base!r} cannot be written any more: {error.strerror}')
        return False
    return True


class Failures:
    """Failed resources by error type: how many, and the first one."""

    def __init__(self) -> None:
        self._by_type: dict[str, dict[str, Any]] = {}

    def add(self, resource: Resource) -> None:
        """Count a resource, if it failed."""
        if resource.status != 'error':
            return
        entry = resource.entry
        kind = entry.error_type or 'Error'
        first = {'type': kind, 'count': 0, 'example': resource.ident, 'message': entry.error}
        self._by_type.setdefault(kind, first)['count'] += 1

    def most_frequent_first(self) -> list[dict[str, Any]]:
        """Return (type, count, an example's ident and message)."""
        return sorted(self._by_type.values(), key=lambda failure: -failure['count'])


def _sentence(counts: Counts) -> str:
    before = f' ({counts.reused} of them before)' if counts.reused else ''
    pending = f', {counts.pending} not finished' if counts.pending else ''
    return f'{counts.completed} completed{before}, {counts.error} failed{pending}'


def _report(
    project: Project, collection: str, counts: Counts, failures: Failures, how: How, took: float
) -> None:
    listed = failures.most_frequent_first()
    if how.as_json:
        output.write_json({**counts._asdict(), 'seconds': round(took, 3), 'failures': listed})
        return
    print(f'{_sentence(counts)}; {output.seconds(took)}')
    if listed:
        columns = [
            Column('count', right=True),
            Column('type'),
            Column('example', folded=True),
            Column('message', cut=True),
        ]
        order = ('count', 'type', 'example', 'message')
        output.write_table(columns, ([failure[name] for name in order] for failure in listed))
    if not REFUSED.issuperset(failure['type'] for failure in listed):
        output.note(f'see: hadrosaur errors {shlex.quote(project.base)} {shlex.quote(collection)}')


def _say_what_would_be_done(project: Project, collection: str, items: Iterable[Any], how: How) -> int:
    """Print a line for each resource, as it is read."""
    tally = {'compute': 0, 'leave': 0, 'refuse': 0}

    def plans() -> Iterator[dict[str, str]]:
        for item in items:
            plan = _plan(project, collection, item, how)
            tally[plan['action']] += 1
            yield plan

    if how.as_json:
        output.write_json_list(plans())
    else:
        for plan in plans():
            cells = (plan['action'], plan['ident'], plan['reason'])
            print('\t'.join(map(printable, cells)))
    output.note(', '.join(f'{action} {count}' for action, count in tally.items() if count))
    return DONE


def _plan(project: Project, collection: str, item: Any, how: How) -> dict[str, str]:
    from ..errors import HadrosaurError

    ident, args = item
    try:
        given = args if args is not None else how.args
        found = project.explain(collection, ident, given, recompute=how.recompute)
    except HadrosaurError as error:
        return {'action': 'refuse', 'ident': str(ident), 'reason': str(error)}
    # What another process has only queued is computed by whoever comes first.
    computes = found.computes or found.code == 'queued'
    action = 'compute' if computes else 'refuse' if found.refused else 'leave'
    return {'action': action, 'ident': str(ident), 'reason': found.reason}
