"""What a type checker says of the public interface; ``make lint`` checks this file, nothing runs it."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, date, datetime, timedelta
from typing import Any, Literal, assert_type

import hadrosaur
from hadrosaur import (
    Batch,
    CancelRequest,
    CheckReport,
    Collection,
    Counts,
    Difference,
    Entry,
    ErrorGroup,
    Explanation,
    Finding,
    Progress,
    Project,
    Query,
    ReindexReport,
    Resource,
    ResourceFailed,
    RunContext,
    Use,
)

Word = Literal['pending', 'completed', 'error']

proj = Project('base', durable=True, index='/local/index.sqlite3', create=False)


# --- registering -----------------------------------------------------------------------------------


@proj.resource('typed', timeout=timedelta(minutes=1), retry_on=(OSError, 'TimedOut'), on_args_change='keep')
def typed(ident: str, args: dict[str, Any], subdir: str) -> int:
    """A function keeps its own type."""
    return len(ident)


@proj.resource(retries=2, retry_delay=0.5, max_retry_delay=timedelta(hours=1), capture='streams')
async def later(ident: str, args: dict[str, int], subdir: str) -> None:
    """Without a name, and a coroutine."""


@proj.resource('untyped', memory='2 GB', rate='10/min', index_result=False, version=3)
def untyped(ident, args, subdir):  # type: ignore[no-untyped-def]
    """Functions without annotations are taken too."""


assert_type(typed('a', {}, '.'), int)
proj.resource('policy', on_args_change='sometimes')  # type: ignore[arg-type]
proj.resource('capture', capture='sometimes')  # type: ignore[arg-type]
proj.resource('number of args')(lambda ident: ident)  # type: ignore[type-var]


# --- one resource ----------------------------------------------------------------------------------

assert_type(proj.fetch('typed', 'a'), Resource)
assert_type(proj.fetch('typed', 1, {'x': [1]}, recompute=True, wait=timedelta(seconds=1)), Resource)
assert_type(proj.fetch('typed', {'C': 1}, background=True, wait=2.5, echo=True, raise_error=True), Resource)
assert_type(proj.fetch(collection='typed', ident='a', args=None), Resource)
assert_type(proj.fetch(collection_name='typed', ident='a'), Resource)
proj.fetch('typed')  # type: ignore[call-overload]
proj.fetch(ident='a')  # type: ignore[call-overload]
proj.fetch('typed', 'a', recompte=True)  # type: ignore[call-overload]
assert_type(proj.get('typed', 'a'), Resource)
assert_type(proj.exists('typed', 'a'), bool)
assert_type(proj.explain('typed', 'a', {'x': 1}), Explanation)


async def fetched() -> Resource:
    """`afetch` takes what `fetch` takes."""
    assert_type(await proj.collection('typed').afetch('a', wait=True), Resource)
    return await proj.afetch(collection_name='typed', ident='a', raise_error=True)


def looked_at(resource: Resource) -> None:
    """What a resource tells."""
    assert_type(resource.status, Word)
    assert_type(resource.paths, dict[str, str])
    assert_type(resource.args, dict[str, Any])
    assert_type(resource.error, str | None)
    assert_type(resource.finished_at, datetime | None)
    assert_type(resource.duration, float | None)
    assert_type(resource.progress, Progress | None)
    assert_type(resource.entry, Entry)
    assert_type(resource.wait(timedelta(seconds=1)), Resource)
    assert_type(resource['result'], Any)


def failed(error: ResourceFailed) -> None:
    """What an error tells."""
    assert_type(error.message, str)
    assert_type(error.hint, str | None)
    assert_type(error.traceback_text, str)
    assert_type(error.collection, str)


def inside() -> None:
    """What a function can ask about its own run."""
    run = hadrosaur.current()
    assert_type(run, RunContext | None)
    if run is not None:
        assert_type(run.attempt, int)
        run.progress(0.5, 'half way')


# --- many resources --------------------------------------------------------------------------------

with proj.fetch_many('typed', ['a', 1, ('b', {'x': 1}), {'C': 1}], workers=2, executor='threads') as batch:
    assert_type(batch, Batch)
    assert_type(next(batch), Resource)
    assert_type(batch.wait(timeout=timedelta(seconds=1)), Counts)
    assert_type(batch.counts.completed, int)
proj.fetch_many('typed', {'a': {'x': 1}}, {'y': 2}, progress=lambda counts: print(counts.total))
proj.fetch_many('typed', hadrosaur.grid(C=[1, 10]), progress=True, threads=1)
proj.fetch_many('typed', proj.query(status='error'))
proj.fetch_many('typed', proj.query('typed', stale=True), recompute=True)

stopped = proj.cancel('typed', 'a')
assert_type(stopped, CancelRequest)
assert_type(stopped.idents, tuple[str, ...])
assert_type(stopped.wait(1.5), bool)
assert_type(proj.wait('typed', timeout=timedelta(seconds=1)), bool)


# --- the index -------------------------------------------------------------------------------------

found = proj.query(
    ['typed', 'untyped'],
    status=['error', 'pending'],
    ident='a*',
    phase='running',
    host=['one', 'two'],
    version=[1, '2'],
    attempt=2,
    since=timedelta(hours=1),
    until=date(2026, 1, 31),
    min_duration=timedelta(seconds=1),
    max_memory=1e9,
)
assert_type(found, Query)
assert_type(found[0], Entry)
assert_type(found[:10], list[Entry])
assert_type(found.first(), Entry | None)
assert_type(found.idents(), list[str])
proj.query(status='failed')  # type: ignore[arg-type]
proj.query(phase='waiting')  # type: ignore[arg-type]
proj.query(since=datetime.now(UTC), until='2026-01-31')


def row(entry: Entry) -> None:
    """What a row tells."""
    assert_type(entry.status, Word)
    assert_type(entry.phase, Literal['queued', 'running'] | None)
    assert_type(entry.started_at, datetime | None)
    assert_type(entry.args, dict[str, Any])
    assert_type(entry.error_type, str | None)


assert_type(proj.results('typed', status='completed'), Iterator[tuple[str, Any]])
assert_type(proj.error_groups(), list[ErrorGroup])
assert_type(proj.stats(), dict[str, Any])
assert_type(proj.sql('SELECT 1'), list[dict[str, Any]])
assert_type(proj.reindex(), ReindexReport)
assert_type(proj.check(fix=True), CheckReport)
assert_type(proj.check().findings, list[Finding])
assert_type(proj.collection('typed'), Collection)
assert_type(proj.collection('typed').fetch('a', wait=True), Resource)
assert_type(proj.collection('typed').query(status='error'), Query)
assert_type(proj.uses('typed', 'a'), list[Use])
assert_type(proj.used_by('typed', 'a'), list[Use])
assert_type(proj.stale_because('typed', 'a'), str | None)
assert_type(hadrosaur.code_of(typed, untyped), str)
proj.on('error', print)


# --- what depends on what --------------------------------------------------------------------------


def csv(ident: str, args: dict[str, Any]) -> list[str]:
    """The files of a resource."""
    return [f'{ident}.csv']


proj.resource('from files', inputs=csv, on_input_change='recompute', on_upstream_change='error')(typed)
proj.resource('by code', version=hadrosaur.code_of(typed, csv))(typed)
proj.resource('policy', on_upstream_change='sometimes')(typed)  # type: ignore[arg-type]
for old in proj.query(stale=True):
    assert_type(old.stale_because, str | None)
    assert_type(old.run, str | None)
    assert_type(old.uses, list[Use])
    assert_type(old.inputs, list[str])
assert_type(proj.uses('typed', 'a')[0].run, str)
assert_type(proj.explain('typed', 'a').differences, tuple[Difference, ...])
assert_type(proj.explain('typed', 'a').chain, tuple[str, ...])
