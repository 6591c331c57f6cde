"""Carry out one job in one directory: the worker's whole job, with no database in sight.

    lock     the directory's lock is the claim; if someone has it, they are computing, and we are not
    look     done already, by this very job or by another: then that is the outcome
    begin    the directory says pending, the record says begun
    run      the user's function, its output going into the logs
    finish   result or error, then the record, then status.json; unlock

Whatever the function does, the outcome is returned and never raised. If the process dies, the
kernel frees the lock, and what stands in the directory tells how far it came (see recover.py).
"""

from __future__ import annotations

import json
import os
import signal
import threading
import time
from collections.abc import Collection, Coroutine
from typing import TYPE_CHECKING, Any, NamedTuple

from . import (
    canonical,
    capture,
    context,
    coroutines,
    dependencies,
    directory,
    failure,
    inputs,
    limits,
    retry_policy,
    worker_setup,
)
from .basedir import HOST
from .context import RunContext, Unwanted
from .directory import State, history
from .directory.claim import Claim
from .errors import ResourceError
from .locks import HELD_BACK
from .metrics import Meter
from .not_started import Unloadable, not_started, unsaved
from .records import Job, RunResult, format_time
from .reuse import NOTHING, Found, holds_another_run, look
from .run_record import RunRecord

try:  # without the wrapper that makes an enum of each signal, four times for every resource (20 µs)
    from _signal import pthread_sigmask as _sigmask  # type: ignore[import-not-found]
except ImportError:
    from signal import pthread_sigmask as _sigmask

if TYPE_CHECKING:
    from collections.abc import Callable

    _Function = Callable[..., Any] | worker_setup.Prepared

RESULT_CARRIED = 1 << 16  # bytes; a longer result does not travel in an outcome: it is read from disk


def keep_state(is_nested: bool) -> Callable[[], object]:
    """What puts the process back as it is now, after a function has run; a worker has one (see `_slot`)."""
    return _nothing


def keep_setup(is_nested: bool) -> Callable[[], object]:
    """The same of a setup, whose changes to the process stay; what it gives is called when it is over."""
    return _nothing


def _nothing() -> None:
    pass


def carry_out(job: Job, function: _Function | Unloadable) -> RunResult:
    """Compute the resource that ``job`` names, unless that is done already or being done.

    In the main thread signals wait while we write: Ctrl-C comes while the function runs, or at the end.
    """
    mask = _hold_signals()
    try:
        carry_out = _in_turn if job.spec.is_limited else _carry_out
        return carry_out(job, function, mask)
    finally:
        _let_signals(mask)


_Mask = Collection[int] | None


def _hold_signals() -> _Mask:
    """Hold them back; returns what was held back before. Handlers run in the main thread only."""
    if threading.current_thread() is not threading.main_thread():
        return None
    before: _Mask = _sigmask(signal.SIG_BLOCK, HELD_BACK)
    return before


def _let_signals(mask: _Mask) -> None:
    if mask is not None:
        _sigmask(signal.SIG_SETMASK, mask)


def _in_turn(job: Job, function: _Function | Unloadable, mask: _Mask) -> RunResult:
    """The same within the limits of the collection; an outcome with ``later``, where it may not begin now."""
    try:
        later = limits.until_next_start(job.spec)  # before its folder is touched
        place = None if later else limits.take_place(job)
    except OSError as error:
        return not_started(job, type(error).__name__, _why_not_there(job, error))
    if place is None:
        return _put_off(job, later)
    try:
        return _carry_out(job, function, mask)
    finally:
        place.give_back()


def _put_off(job: Job, later: float) -> RunResult:
    return RunResult(job.run, job.entry('pending'), later=later)


def _carry_out(job: Job, function: _Function | Unloadable, mask: _Mask) -> RunResult:
    try:
        claim = _claim(job)
    except OSError as error:
        return not_started(job, type(error).__name__, _why_not_there(job, error))
    if claim is None:
        return RunResult(job.run, job.entry('pending'))
    try:
        try:
            return _carry_out_in(claim, job, function, mask)
        except FileExistsError:
            if claim.has_begun or not claim.created:
                raise
            claim.created = False  # somebody was there between our making it and our locking it
            return _carry_out_in(claim, job, function, mask)
    except OSError as error:
        why = f'{claim.path} cannot be used: {error.strerror or error}'
        if not claim.has_begun:
            return not_started(job, type(error).__name__, why)
        return unsaved(job, type(error).__name__, why)
    finally:
        if not claim.has_begun:
            claim.unmake()
        claim.release()


def _carry_out_in(claim: Claim, job: Job, function: _Function | Unloadable, mask: _Mask) -> RunResult:
    run_result, found = (None, NOTHING) if claim.created else look(claim, job)
    if run_result is not None:
        return run_result
    if isinstance(function, Unloadable):
        return not_started(job, *function)
    if job.spec.rate is not None and (later := limits.start(job.spec)):
        return _put_off(job, later)
    return _compute(claim, job, function, found, mask)


def _claim(job: Job) -> Claim | None:
    spec = job.spec
    for attempt in (1, 2):
        try:
            return Claim.take(spec.path, job.folder, lock=spec.lock, durable=spec.durable)
        except FileNotFoundError:
            if attempt == 2 or not os.path.isdir(spec.base):
                raise
            os.makedirs(spec.path, exist_ok=True)
    return None


def enqueue(job: Job) -> bool:
    """Make the directory say pending, for a job that is carried out later; False where someone has it.

    An old result and its record stay, so that a job that never begins leaves them as they were. A
    long ident, whose folder is named by a digest, is written down first.
    """
    try:
        claim = _claim(job)
        if claim is None:
            return False
        try:
            _make_pending(claim, job)
        except OSError:
            claim.unmake()
            raise
        finally:
            claim.release()
    except OSError as error:
        why, hint = _why_not_there(job, error), 'nothing was changed'
        raise ResourceError(why, collection=job.collection, ident=job.ident, hint=hint) from error
    return True


def _make_pending(claim: Claim, job: Job) -> None:
    state = directory.read_status(claim.folder)
    if state == 'absent' and not claim.created:
        claim.completes_removal()
    record = directory.read_record(claim.folder)
    if canonical.ident_of_folder(job.folder) is None and record is None:
        claim.write_record(directory.record_bytes(job.entry('pending'), 'queued', job.run))
    _record_as_it_is(claim, job, state, record)
    claim.set_status('pending')


def _record_as_it_is(claim: Claim, job: Job, state: State, record: dict[str, Any] | None) -> None:
    """Before a final status goes: a record that says the same, or nobody would know if we are cut off now."""
    if state in ('completed', 'error') and (record or {}).get('state') != state:
        entry = directory.entry_of(job.collection, job.ident, job.path, state, claim.folder, record)
        claim.write_record(directory.record_bytes(entry, state, directory.recorded_run(record)))


def _why_not_there(job: Job, error: OSError) -> str:
    if not os.path.isdir(job.spec.base):
        return f'the base {job.spec.base} cannot be seen from {HOST}: it must be on a shared file system'
    return f'{job.spec.path}/{job.folder} cannot be used: {error.strerror or error}'


def record_lost(job: Job, error_type: str, error: str) -> RunResult:
    """Write down that a job's run left no trace: not even its directory, which the function has removed.

    Where there is one, the run never began.
    """
    try:
        claim = _claim(job)
        if claim is None or not claim.created:
            return not_started(job, error_type, error)
        try:
            run_result = unsaved(job, error_type, error)
            claim.begin(directory.record_bytes(run_result.entry, 'begun', job.run), 'absent')
            record = directory.record_bytes(run_result.entry, 'error', job.run)
            mtime = claim.finish('error', record, error=f'{error_type}: {error}\n')
            return run_result._replace(entry=run_result.entry.change(seen_mtime_ns=mtime))
        finally:
            claim.release()
    except OSError:
        return not_started(job, error_type, error)


class _Ended(NamedTuple):
    """How a call of the user's function ended."""

    result: bytes | None = None
    exception: BaseException | None = None


def _compute(claim: Claim, job: Job, function: _Function, found: Found, mask: _Mask) -> RunResult:
    spec, in_worker = job.spec, context.in_worker
    # Is this all that a worker does now? What is fetched in a thread runs beside the function that asked.
    is_all = in_worker and threading.current_thread() is threading.main_thread()
    way = capture.choose('descriptors' if is_all and spec.capture == 'auto' else spec.capture)
    attempt = max(job.attempt, (directory.recorded_attempt(found.record) or 0) + 1)
    before = history.before(found.record) if found.record else None
    run = RunRecord(job, attempt, format_time(time.time()), before, way)
    if found is not NOTHING:
        _record_as_it_is(claim, job, found.on_disk, found.record)
        if spec.keep_attempts:
            history.keep(claim.folder, found.record, spec.keep_attempts)
    try:
        claim.begin(
            run.begun(),
            found.on_disk,
            was_completed=found is not NOTHING and holds_another_run(claim, job, found),
            keep_storage=spec.keep_storage,
        )
    except OSError as error:
        if not claim.has_begun:
            raise
        run.finished_at = format_time(time.time())
        return _save_error(claim, run, error)
    process = os.getpid()
    running = RunContext(job, f'{claim.path}/{directory.STORAGE}', attempt)
    ended: _Ended | None = None
    files: list[list[Any]] = []
    if isinstance(function, worker_setup.Prepared):
        ended, files = _prepare(function, running, way, claim.logs, mask)
        function = function.function
    meter = Meter(alone=(in_worker or way == 'descriptors') and not job.chain, in_worker=in_worker)
    if ended is None:
        ended = _call(function, running, way, claim.logs, mask)
    run.cost = meter.stop()
    running._end_report()
    if os.getpid() != process:
        os._exit(0)  # a child that the function forked and let return: the run is its parent's
    run.finished_at = format_time(time.time())
    if running._uses or files:
        run.made_from(*dependencies.recorded(running._uses), directory.inputs_text(files))
    run_result = _conclude(claim, run, ended)
    return run_result._replace(nested=tuple(running._nested)) if running._nested else run_result


def _prepare(
    prepared: worker_setup.Prepared, running: RunContext, way: str, logs: tuple[int, ...], mask: _Mask
) -> tuple[_Ended | None, list[list[Any]]]:
    """Give a run what its setup makes, and name its files: (what it ended in where one fails, the files)."""
    files: list[list[Any]] = []
    ended = None if prepared.setup is None else _set_up(prepared, running, way, logs, mask)
    if ended is not None or prepared.inputs is None:
        return ended, files
    named, args = prepared.inputs, json.loads(running._job.args)

    def take(*_: object) -> None:
        files.extend(inputs.take(named, running.collection, running.ident, args))

    ended = _call(take, running, way, logs, mask)
    return (None if ended.exception is None else ended), files


def _set_up(
    prepared: worker_setup.Prepared, running: RunContext, way: str, logs: tuple[int, ...], mask: _Mask
) -> _Ended | None:
    """Give the run what its collection's setup makes; what it ended in, where the setup fails.

    The first run in a worker makes it, and has in its logs what the setup prints.
    """
    base = context.base_of(running)
    made = worker_setup.here(prepared, base, running.collection, in_worker=context.in_worker)
    with made.guard:
        if not made.is_made:
            if made.error is not None:
                return _Ended(exception=made.error)
            ended = _call(made.make, running, way, logs, mask, keep_setup)
            if ended.exception is not None:
                return ended
            made.uses = running._uses
    running.setup = made.value
    running._uses = {key: runs.copy() for key, runs in made.uses.items()}
    return None


def _call(
    function: Callable[..., Any],
    running: RunContext,
    way: str,
    logs: tuple[int, ...],
    mask: _Mask,
    keep: Callable[[bool], Callable[[], object]] | None = None,
) -> _Ended:
    """Call the user's function. The one broad except: whatever it raises is its resource's outcome."""
    put_back = (keep or keep_state)(bool(context.in_progress()))
    running.is_interruptible = mask is not None and not context.in_worker
    entered = context.enter(running)
    try:
        try:
            with capture.capturing(way, (logs[0], logs[1])):
                try:
                    _let_signals(mask)
                    value = function(running.ident, running.args, running.subdir)
                    if isinstance(value, Coroutine):
                        value = coroutines.run(value)
                finally:
                    _hold_signals()
        finally:
            put_back()  # before anything of ours is written: with the function's umask, limits, user
        return _Ended(canonical.result_json(value, running.collection, running.ident))
    except BaseException as error:
        if running.is_unwanted and not isinstance(error, Unwanted):  # what the function made of it
            unwanted = Unwanted(context.job_of(running).run)
            unwanted.__cause__ = error
            return _Ended(exception=unwanted)
        return _Ended(exception=error)
    finally:
        context.leave(running, entered)


failure.ours_above.add(_call.__code__)


def _conclude(claim: Claim, run: RunRecord, ended: _Ended) -> RunResult:
    """Write down what came of the run; what cannot be written is an error of this resource alone."""
    if not claim.is_intact():
        lost = OSError('the function removed its own directory, or closed descriptors that are not its own')
        return _conclude_anew(claim, run, ended.exception or lost)
    if ended.result is not None:
        try:
            return _save_result(claim, run, ended.result)
        except OSError as error:
            return _save_error(claim, run, error)
    return _save_error(claim, run, ended.exception or OSError('no result'))


def _conclude_anew(claim: Claim, run: RunRecord, error: BaseException) -> RunResult:
    job = run.job
    path, lock = claim.collection_path, job.spec.lock
    remade = Claim.take(path, claim.name, lock=lock, durable=job.spec.durable)
    if remade is None:  # somebody else was quicker and computes it now
        return RunResult(job.run, job.entry('pending'))
    try:
        remade.begin(run.begun(), directory.read_status(remade.folder))
        return _save_error(remade, run, error)
    finally:
        remade.release()


def _save_result(claim: Claim, run: RunRecord, result: bytes) -> RunResult:
    mtime = claim.finish('completed', run.completed(result), result=result)
    job = run.job
    text = result[:-1].decode() if len(result) <= job.spec.index_result else None
    return RunResult(job.run, run.entry('completed', text, mtime), result, True)


def _save_error(claim: Claim, run: RunRecord, error: BaseException) -> RunResult:
    job, in_worker = run.job, context.in_worker
    is_cancelled = isinstance(error, Unwanted) and error.run == job.run
    entry, frame, text = failure.described(run.entry('error'), error, is_cancelled=is_cancelled)
    mtime = claim.finish('error', run.failed(entry, frame), error=text)
    # Ctrl-C belongs to whoever started this program; a worker is told by its caller instead.
    again = error if isinstance(error, KeyboardInterrupt) and not (in_worker or is_cancelled) else None
    cause = None if in_worker or is_cancelled else error
    wanted = None if job.spec.retry_on is None else retry_policy.is_wanted(job.spec.retry_on, error)
    entry = entry.change(seen_mtime_ns=mtime)
    return RunResult(job.run, entry, fresh=True, exception=again, cause=cause, is_wanted=wanted)
