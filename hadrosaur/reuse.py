"""May what stands in a directory be given as it is? What a job finds once it has locked the directory."""

from __future__ import annotations

from typing import Any, NamedTuple

from . import dependencies, directory, fileops
from .directory import State
from .directory.claim import Claim
from .records import Job, RunResult


class Found(NamedTuple):
    """What stood in a directory when it was locked."""

    on_disk: State  # what status.json says,
    effective_status: State  # and what that means, now that nobody computes it
    record: dict[str, Any] | None


NOTHING = Found('absent', 'absent', None)


def look(claim: Claim, job: Job) -> tuple[RunResult | None, Found]:
    """What stands in the directory, now that nobody else can change it."""
    on_disk = directory.read_status(claim.folder)
    if on_disk == 'absent' and claim.completes_removal():
        return None, NOTHING
    record = directory.read_record(claim.folder)
    state = directory.effective_status(on_disk, record, claim.folder)
    if record:
        _refuse_other_ident(claim, job, record)
    ours = bool(record) and record.get('run') == job.run and record.get('state') == state  # type: ignore[union-attr]
    if not ours and not _is_reusable(state, record, job):
        return None, Found(on_disk, state, record)
    result = directory.read_result(claim.folder) if state == 'completed' else None
    if state == 'completed' and result is None:
        return None, Found(on_disk, state, record)
    if state not in ('completed', 'error'):
        return None, Found(on_disk, state, record)
    if on_disk != state:
        claim.set_status(state)
        if record and record.get('ident') != job.ident:  # a copy made by hand
            from . import recover  # not in every worker: few folders are copied, and fewer damaged too

            record = recover.adopted(claim, job.collection, job.ident)
    entry = directory.entry_of(job.collection, job.ident, job.path, state, claim.folder, record)
    return RunResult(job.run, entry, result, fresh=ours), Found(on_disk, state, record)


def _is_reusable(state: State, record: dict[str, Any] | None, job: Job) -> bool:
    if state != 'completed' or job.recompute == 'yes':
        return False
    if job.stale_run is not None and job.stale_run == directory.recorded_run(record):
        return False
    return job.recompute == 'no' or not differs(record or {}, job.args, job.spec)


def differs(record: dict[str, Any], args: str | None, spec: Any) -> list[str]:
    """Why a completed resource is not what is asked for now: any of args, version, age.

    Args:
        record: Its record.json.
        args: Canonical JSON of the args given, or None where none were.
        spec: The collection's `Task`.
    """
    whys = []
    if args is not None and not directory.has_args(record, args):
        whys.append('args')
    if spec.version is not None and record.get('version') != spec.version:
        whys.append('version')
    if spec.expires_after is not None and dependencies.age(record) > spec.expires_after:
        whys.append('age')
    return whys


def _refuse_other_ident(claim: Claim, job: Job, record: dict[str, Any]) -> None:
    """Two idents that meet in one folder: only where the disk does not tell upper from lower case."""
    other = record.get('ident')
    if not isinstance(other, str) or other == job.ident or other.casefold() != job.ident.casefold():
        return
    with fileops.opened(claim.collection_path) as collection:
        is_there = claim.name in fileops.list_folders(collection)
    if not is_there:
        raise OSError(f'{job.ident!r} and {other!r} are one folder on this case-insensitive disk')


def holds_another_run(claim: Claim, job: Job, found: Found) -> bool:
    """May a power cut leave files of an older run beside this one's, so that they are to be kept apart?

    A result, or a record of other args; or those of a run that was cut off, which did not wait for the
    disk. What a run with the same args left that failed cannot be told from this one's, and never is served.
    """
    if found.effective_status == 'completed' or fileops.is_there(directory.RESULT, claim.folder):
        return True
    record = found.record
    if record is None or record.get('state') == 'queued':
        return False
    return record.get('state') != 'error' or directory.recorded_args(record) != job.args
