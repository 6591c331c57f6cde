"""Carry out one order in one directory: the worker's whole job, with no database in sight.

    lock     the directory's lock is the claim; if someone has it, they are computing, and we are not
    look     done already, by this very order or by another: then that is the outcome
    begin    the directory says pending, the record says begun
    run      the user's function, its output going into the logs
    finish   result or error, then the record, then status.json; unlock

Whatever the function does, the outcome is returned and never raised. If the process dies, the
kernel frees the lock, and what stands in the directory tells how far it came (see settle.py).
"""

from __future__ import annotations

import contextlib
import contextvars
import functools
import json
import os
import signal
import threading
import time
from collections.abc import Collection, Coroutine
from typing import TYPE_CHECKING, Any, NamedTuple

from . import canonical, capture, coroutines, directory, diskio, howfar, limits, retrying, setups
from .basedir import HOST
from .directory import State, history
from .directory.claim import Claim
from .errors import Cancelled, Interrupted, ResourceError, ResultNotSerializable
from .locks import HELD_BACK, has_other_threads, is_ours
from .metrics import Meter
from .records import INDEXED_RESULT, Entry, Outcome, WorkOrder, format_time, parse_time
from .unbegun import Unloadable, entry_of_order, not_started, unsaved

try:  # without the wrapper that makes an enum of each signal, four times for every resource (20 µs)
    from _signal import pthread_sigmask as _sigmask  # type: ignore[import-not-found]
except ImportError:
    from signal import pthread_sigmask as _sigmask

if TYPE_CHECKING:
    import logging
    from collections.abc import Callable
    from types import TracebackType

    _Function = Callable[..., Any] | setups.Prepared

RESULT_CARRIED = 1 << 16  # bytes; a longer result does not travel in an outcome: it is read from disk

in_worker = False
"""True in a slot: there a Project opens nothing, and a nested fetch works on files only."""


def keep_state(is_nested: bool) -> Callable[[], object]:
    """What puts the process back as it is now, after a function has run; a worker has one (see `_slot`)."""
    return _nothing


def keep_setup(is_nested: bool) -> Callable[[], object]:
    """The same of a setup, whose changes to the process stay; what it gives is called when it is over."""
    return _nothing


def _nothing() -> None:
    pass


class Unwanted(KeyboardInterrupt):
    """Raised in a function of the main thread whose run somebody wants cancelled.

    Attributes:
        run: Its run id. Where it comes out of a nested run, that one was interrupted.
    """

    def __init__(self, run: str) -> None:
        super().__init__('the run was cancelled')
        self.run = run


bases: dict[str, str] = {}
"""In a worker: absolute path of each base as its user wrote it; a worker may stand in another folder."""


class Running(howfar.Says):
    """The resource that is being computed: what `hadrosaur.current()` gives.

    Attributes:
        collection: Its collection.
        ident: Its ident.
        args: The args that the function got.
        subdir: Absolute path of its storage folder.
        attempt: 1 at the first run of this resource's life.
        setup: What the collection's ``setup`` gave in this worker; None where it has none.
    """

    setup: Any = None

    def __init__(self, order: WorkOrder, subdir: str, attempt: int) -> None:
        self.collection = order.collection
        self.ident = order.ident
        self._order = order
        self.is_unwanted = self.is_interruptible = False  # is to be cancelled; runs in the main thread
        self.args: dict[str, Any] = json.loads(order.args) if order.args != '{}' else {}
        self.subdir = subdir
        self.attempt = attempt
        self._process = os.getpid()
        self._chain = (*order.chain, order.step)
        self._nested: list[Entry] = []
        self._fetching = threading.Lock()  # what a coroutine fetches in threads, one after the other

    @property
    def logger(self) -> logging.Logger:
        """A logger whose records, from INFO up, land in stderr.log."""
        return _logger()

    def progress(self, fraction: float | None = None, text: str = '') -> None:
        """Say how far the run is: `hadrosaur ps`, `status`, `show` and ``Resource.progress`` show it.

        Args:
            fraction: From 0 to 1; None where it is not known.
            text: What it does now, in a line of at most 200 characters.

        It costs some 20 µs, and may be called from any thread of the run. Raises TypeError for text in the
        place of the fraction; one below 0 or above 1 is warned of.
        """
        report = self._reported(os.path.dirname(self.subdir), self._order.run, self._process)
        if report is not None:
            report.say(fraction, text)

    def __repr__(self) -> str:
        return f'Running({self.collection!r}, {self.ident!r}, attempt={self.attempt})'


_running: contextvars.ContextVar[Running | None] = contextvars.ContextVar('hadrosaur_running', default=None)
_in_slot: list[Running] = []  # what runs in a slot, nested ones last; a thread belongs to the first
_alone: list[
    Running
] = []  # what the only thread of a program runs: a thread that comes up meanwhile is its own


def current() -> Running | None:
    """The resource that is being computed here, or None outside of a resource's function."""
    running = _running.get()
    if running is None:
        if in_worker:
            return _in_slot[0] if _in_slot else None
        if _alone and not is_ours():
            return _alone[0]
    return running


def chain_of(running: Running) -> tuple[tuple[str, str, str], ...]:
    """The resources (base, collection, ident) that led to what is being computed, itself last."""
    return running._chain


def base_of(running: Running) -> str:
    """Absolute path of the base that it is computed in."""
    return running._order.task.base


def order_of(running: Running) -> WorkOrder:
    """The order that is carried out."""
    return running._order


def in_progress() -> list[Running]:
    """What is computed in this process just now, nested ones after what they are nested in."""
    return list(_in_slot)


def raise_if_unwanted(*_: object) -> None:
    """Handles the signal that interrupts: only a function that is to be cancelled, and nothing after it."""
    for running in _in_slot:
        if running.is_unwanted:
            raise Unwanted(running._order.run)


def fetching(running: Running | None) -> contextlib.AbstractContextManager[Any]:
    """Held by a thread that fetches for a function which goes on meanwhile: its output is one stream."""
    return contextlib.nullcontext() if running is None else running._fetching


def add_nested(running: Running, outcome: Outcome) -> None:
    """Have the rows of a nested fetch travel with the outcome of the one that asked."""
    running._nested.extend(outcome.nested)
    if outcome.fresh:
        running._nested.append(outcome.entry)


def stderr_handler(form: str) -> logging.Handler:
    """A handler that writes to whatever sys.stderr is at that moment."""
    import logging
    import sys

    class Handler(logging.StreamHandler[Any]):
        def emit(self, record: logging.LogRecord) -> None:
            self.stream = sys.stderr
            super().emit(record)

    handler = Handler()
    handler.setFormatter(logging.Formatter(form))
    return handler


@functools.cache
def _logger() -> logging.Logger:
    import logging

    logger = logging.getLogger('hadrosaur.resource')
    logger.addHandler(stderr_handler('%(asctime)s %(levelname)s %(message)s'))
    logger.setLevel(logging.INFO)
    logger.propagate = False
    return logger


def carry_out(order: WorkOrder, function: _Function | Unloadable) -> Outcome:
    """Compute the resource that ``order`` names, unless that is done already or being done.

    In the main thread signals wait while we write: Ctrl-C comes while the function runs, or at the end.
    """
    mask = _hold_signals()
    try:
        carry_out = _in_turn if order.task.is_limited else _carry_out
        return carry_out(order, function, mask)
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


def _in_turn(order: WorkOrder, function: _Function | Unloadable, mask: _Mask) -> Outcome:
    """The same within the limits of the collection; an outcome with ``later``, where it may not begin now."""
    try:
        later = limits.until_next_start(order.task)  # before its folder is touched
        place = None if later else limits.take_place(order)
    except OSError as error:
        return not_started(order, type(error).__name__, _why_not_there(order, error))
    if place is None:
        return _put_off(order, later)
    try:
        return _carry_out(order, function, mask)
    finally:
        place.give_back()


def _put_off(order: WorkOrder, later: float) -> Outcome:
    return Outcome(order.run, entry_of_order(order, 'pending'), later=later)


def _carry_out(order: WorkOrder, function: _Function | Unloadable, mask: _Mask) -> Outcome:
    try:
        claim = _claim(order)
    except OSError as error:
        return not_started(order, type(error).__name__, _why_not_there(order, error))
    if claim is None:
        return Outcome(order.run, entry_of_order(order, 'pending'))
    try:
        outcome, look = _look(claim, order)
        if outcome is not None:
            return outcome
        if isinstance(function, Unloadable):
            return not_started(order, *function)
        if order.task.rate is not None and (later := limits.start(order.task)):
            return _put_off(order, later)
        return _compute(claim, order, function, look, mask)
    except OSError as error:
        why = f'{claim.path} cannot be used: {error.strerror or error}'
        if not claim.has_begun:
            return not_started(order, type(error).__name__, why)
        return unsaved(order, type(error).__name__, why)
    finally:
        if not claim.has_begun:
            claim.unmake()
        claim.release()


def _claim(order: WorkOrder) -> Claim | None:
    task = order.task
    for attempt in (1, 2):
        try:
            return Claim.take(task.path, order.folder, lock=task.lock, durable=task.durable)
        except FileNotFoundError:
            if attempt == 2 or not os.path.isdir(task.base):
                raise
            os.makedirs(task.path, exist_ok=True)
    return None


def enqueue(order: WorkOrder) -> bool:
    """Make the directory say pending, for an order that is carried out later; False where someone has it.

    An old result and its record stay, so that an order that never begins leaves them as they were. A
    long ident, whose folder is named by a digest, is written down first.
    """
    try:
        claim = _claim(order)
        if claim is None:
            return False
        try:
            _make_pending(claim, order)
        except OSError:
            claim.unmake()
            raise
        finally:
            claim.release()
    except OSError as error:
        why, hint = _why_not_there(order, error), 'nothing was changed'
        raise ResourceError(why, collection=order.collection, ident=order.ident, hint=hint) from error
    return True


def _make_pending(claim: Claim, order: WorkOrder) -> None:
    state = directory.read_status(claim.folder)
    if state == 'absent' and not claim.was_made:
        claim.completes_removal()
    record = directory.read_record(claim.folder)
    if canonical.ident_of_folder(order.folder) is None and record is None:
        claim.write_record(directory.record_bytes(entry_of_order(order, 'pending'), 'queued', order.run))
    _record_as_it_is(claim, order, state, record)
    claim.set_status('pending')


def _record_as_it_is(claim: Claim, order: WorkOrder, state: State, record: dict[str, Any] | None) -> None:
    """Before a final status goes: a record that says the same, or nobody would know if we are cut off now."""
    if state in ('completed', 'error') and (record or {}).get('state') != state:
        entry = directory.entry_of(order.collection, order.ident, order.path, state, claim.folder, record)
        claim.write_record(directory.record_bytes(entry, state, str((record or {}).get('run', ''))))


def _why_not_there(order: WorkOrder, error: OSError) -> str:
    if not os.path.isdir(order.task.base):
        return f'the base {order.task.base} cannot be seen from {HOST}: it must be on a shared file system'
    return f'{order.task.path}/{order.folder} cannot be used: {error.strerror or error}'


def record_lost(order: WorkOrder, error_type: str, error: str) -> Outcome:
    """Write down that an order's run left no trace: not even its directory, which the function has removed.

    Where there is one, the run never began.
    """
    try:
        claim = _claim(order)
        if claim is None or not claim.was_made:
            return not_started(order, error_type, error)
        try:
            outcome = unsaved(order, error_type, error)
            claim.begin(directory.record_bytes(outcome.entry, 'begun', order.run), 'absent')
            record = directory.record_bytes(outcome.entry, 'error', order.run)
            mtime = claim.finish('error', record, error=f'{error_type}: {error}\n')
            return outcome._replace(entry=outcome.entry.change(seen_mtime_ns=mtime))
        finally:
            claim.release()
    except OSError:
        return not_started(order, error_type, error)


# --- look ------------------------------------------------------------------------------------------


class _Look(NamedTuple):
    on_disk: State  # what status.json says,
    believed: State  # and what that means, now that nobody computes it
    record: dict[str, Any] | None


_NOTHING = _Look('absent', 'absent', None)


def _look(claim: Claim, order: WorkOrder) -> tuple[Outcome | None, _Look]:
    """What stands in the directory, now that nobody else can change it."""
    on_disk = directory.read_status(claim.folder)
    if on_disk == 'absent' and (claim.was_made or claim.completes_removal()):
        return None, _NOTHING
    record = directory.read_record(claim.folder)
    state = directory.believed(on_disk, record, claim.folder)
    if record:
        _refuse_other_ident(claim, order, record)
    ours = bool(record) and record.get('run') == order.run and record.get('state') == state  # type: ignore[union-attr]
    if not ours and not _is_reusable(state, record, order):
        return None, _Look(on_disk, state, record)
    result = directory.read_result(claim.folder) if state == 'completed' else None
    if state == 'completed' and result is None:
        return None, _Look(on_disk, state, record)
    if state not in ('completed', 'error'):
        return None, _Look(on_disk, state, record)
    if on_disk != state:
        claim.set_status(state)
        if record and record.get('ident') != order.ident:  # a copy made by hand
            from . import settle  # not in every worker: few folders are copied, and fewer damaged too

            record = settle.adopted(claim, order.collection, order.ident)
    entry = directory.entry_of(order.collection, order.ident, order.path, state, claim.folder, record)
    return Outcome(order.run, entry, result, fresh=ours), _Look(on_disk, state, record)


def _is_reusable(state: State, record: dict[str, Any] | None, order: WorkOrder) -> bool:
    if state != 'completed' or order.recompute == 'yes':
        return False
    return order.recompute == 'no' or not differs(record or {}, order.args, order.task)


def differs(record: dict[str, Any], args: str | None, task: Any) -> list[str]:
    """Why a completed resource is not what is asked for now: any of args, version, age.

    Args:
        record: Its record.json.
        args: Canonical JSON of the args given, or None where none were.
        task: The collection's `Task`.
    """
    whys = []
    if args is not None and (directory.recorded_args(record) or '{}') != args:
        whys.append('args')
    if task.version is not None and record.get('version') != task.version:
        whys.append('version')
    if task.expires_after is not None and _age(record) > task.expires_after:
        whys.append('age')
    return whys


def _age(record: dict[str, Any]) -> float:
    """Seconds since it was computed, by the clock here; or until then, where that clock lags behind.

    So a result from the future is good for no longer than it is ahead, and never for good.
    """
    try:
        return abs(time.time() - parse_time(record['finished_at']).timestamp())
    except (KeyError, TypeError, ValueError, OverflowError):
        return float('inf')


def _refuse_other_ident(claim: Claim, order: WorkOrder, record: dict[str, Any]) -> None:
    """Two idents that meet in one folder: only where the disk does not tell upper from lower case."""
    other = record.get('ident')
    if not isinstance(other, str) or other == order.ident or other.casefold() != order.ident.casefold():
        return
    with diskio.opened(claim.collection_path) as collection:
        is_there = claim.name in diskio.list_folders(collection)
    if not is_there:
        raise OSError(f'{order.ident!r} and {other!r} are one folder on this case-insensitive disk')


# --- run -------------------------------------------------------------------------------------------


class _Ended(NamedTuple):
    """How a call of the user's function ended."""

    result: bytes | None = None
    exception: BaseException | None = None


def _compute(claim: Claim, order: WorkOrder, function: _Function, look: _Look, mask: _Mask) -> Outcome:
    task = order.task
    process = os.getpid()
    way = capture.choose('descriptors' if _is_all_there_is() and task.capture == 'auto' else task.capture)
    entry = entry_of_order(
        order,
        'pending',
        attempt=_next_attempt(order, look.record),
        history=history.before(look.record) if look.record else None,
        started_at=format_time(time.time()),
        host=HOST,
        pid=process,
    )
    _record_as_it_is(claim, order, look.on_disk, look.record)
    if task.keep_attempts:
        history.keep(claim.folder, look.record, task.keep_attempts)
    try:
        claim.begin(
            directory.record_bytes(entry, 'begun', order.run, capture=way),
            look.on_disk,
            was_completed=_holds_another_run(claim, order, look),
            keep_storage=task.keep_storage,
        )
    except OSError as error:
        if not claim.has_begun:
            raise
        return _save_error(claim, order, entry.change(finished_at=format_time(time.time())), error, way)
    running = Running(order, f'{claim.path}/{directory.STORAGE}', entry.attempt)
    alone = (in_worker or way == 'descriptors') and not order.chain
    ended = None
    if isinstance(function, setups.Prepared):
        ended, function = _set_up(function, running, way, claim.logs, mask), function.function
    meter = Meter(alone=alone, in_worker=in_worker)
    if ended is None:
        ended = _call(function, running, way, claim.logs, mask)
    cost = meter.stop()
    running._end_report()
    if os.getpid() != process:
        os._exit(0)  # a child that the function forked and let return: the run is its parent's
    status = 'completed' if ended.exception is None else 'error'
    entry = entry.change(status=status, finished_at=format_time(time.time()), **cost._asdict())
    outcome = _conclude(claim, order, entry, ended, way)
    return outcome._replace(nested=tuple(running._nested))


def _is_all_there_is() -> bool:
    """Is this all that a worker does now? What is fetched in a thread runs beside the function that asked."""
    return in_worker and threading.current_thread() is threading.main_thread()


def _holds_another_run(claim: Claim, order: WorkOrder, look: _Look) -> bool:
    """May a power cut leave files of an older run beside this one's, so that they are to be kept apart?

    A result, or a record of other args; or those of a run that was cut off, which did not wait for the
    disk. What a run with the same args left that failed cannot be told from this one's, and never is served.
    """
    if claim.was_made:
        return False
    if look.believed == 'completed' or diskio.is_there(directory.RESULT, claim.folder):
        return True
    record = look.record
    if record is None or record.get('state') == 'queued':
        return False
    return record.get('state') != 'error' or directory.recorded_args(record) != order.args


def _next_attempt(order: WorkOrder, record: dict[str, Any] | None) -> int:
    return max(order.attempt, (directory.recorded_attempt(record) or 0) + 1)


def _set_up(
    prepared: setups.Prepared, running: Running, way: str, logs: tuple[int, ...], mask: _Mask
) -> _Ended | None:
    """Give the run what its collection's setup makes; what it ended in, where the setup fails.

    The first run in a worker makes it, and has in its logs what the setup prints.
    """
    made = setups.here(prepared, base_of(running), running.collection, in_worker=in_worker)
    with made.guard:
        if not made.is_made:
            if made.error is not None:
                return _Ended(exception=made.error)
            ended = _call(made.make, running, way, logs, mask, keep_setup)
            if ended.exception is not None:
                return ended
    running.setup = made.value
    return None


def _call(
    function: Callable[..., Any],
    running: Running,
    way: str,
    logs: tuple[int, ...],
    mask: _Mask,
    keep: Callable[[bool], Callable[[], object]] | None = None,
) -> _Ended:
    """Call the user's function. The one broad except: whatever it raises is its resource's outcome."""
    alone = not (in_worker or _alone or has_other_threads())
    token = _running.set(running)
    put_back = (keep or keep_state)(bool(_in_slot))
    running.is_interruptible = mask is not None and not in_worker
    _in_slot.append(running)
    if alone:
        _alone.append(running)
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
            unwanted = Unwanted(running._order.run)
            unwanted.__cause__ = error
            return _Ended(exception=unwanted)
        return _Ended(exception=error)
    finally:
        _in_slot.remove(running)  # not always the last: a function may fetch in threads of its own
        if alone:
            _alone.pop()
        _running.reset(token)


def _conclude(claim: Claim, order: WorkOrder, entry: Entry, ended: _Ended, way: str) -> Outcome:
    """Write down what came of the run; what cannot be written is an error of this resource alone."""
    if not claim.is_intact():
        lost = OSError('the function removed its own directory, or closed descriptors that are not its own')
        return _conclude_anew(claim, order, entry, _Ended(exception=ended.exception or lost), way)
    if ended.exception is None and ended.result is not None:
        try:
            return _save_result(claim, order, entry, ended.result, way)
        except OSError as error:
            ended = _Ended(exception=error)
    return _save_error(claim, order, entry, ended.exception or OSError('no result'), way)


def _conclude_anew(claim: Claim, order: WorkOrder, entry: Entry, ended: _Ended, way: str) -> Outcome:
    remade = claim.remade(order.task.lock)
    if remade is None:  # somebody else was quicker and computes it now
        return Outcome(order.run, entry_of_order(order, 'pending'))
    try:
        begun = directory.record_bytes(entry, 'begun', order.run, capture=way)
        remade.begin(begun, directory.read_status(remade.folder))
        return _save_error(remade, order, entry, ended.exception or OSError('no result'), way)
    finally:
        remade.release()


def _save_result(claim: Claim, order: WorkOrder, entry: Entry, result: bytes, way: str) -> Outcome:
    if len(result) <= order.task.index_result:
        entry = entry.change(result=result[:-1].decode())
    record = directory.record_bytes(
        entry,
        'completed',
        order.run,
        capture=way,
        result_size=len(result),
        result_sha256=directory.checksum(result),
        **_index_result(order),
    )
    mtime = claim.finish('completed', record, result=result)
    return Outcome(order.run, entry.change(seen_mtime_ns=mtime), result, fresh=True)


def _index_result(order: WorkOrder) -> dict[str, int]:
    """How much of a result the index holds, for the record: only where that is not the usual."""
    most = order.task.index_result
    return {} if most == INDEXED_RESULT else {'index_result': most}


def _save_error(claim: Claim, order: WorkOrder, entry: Entry, error: BaseException, way: str) -> Outcome:
    is_cancelled = isinstance(error, Unwanted) and error.run == order.run
    entry, frame, text = _described(entry, error, is_cancelled=is_cancelled)
    record = directory.record_bytes(entry, 'error', order.run, capture=way, error_frame=frame)
    mtime = claim.finish('error', record, error=text)
    # Ctrl-C belongs to whoever started this program; a slot is told by its caller instead.
    again = error if isinstance(error, KeyboardInterrupt) and not (in_worker or is_cancelled) else None
    cause = None if in_worker or is_cancelled else error
    wanted = None if order.task.retry_on is None else retrying.is_wanted(order.task.retry_on, error)
    entry = entry.change(seen_mtime_ns=mtime)
    return Outcome(order.run, entry, fresh=True, exception=again, cause=cause, is_wanted=wanted)


def _described(entry: Entry, error: BaseException, *, is_cancelled: bool) -> tuple[Entry, str | None, str]:
    """The row, the user's own place in the code, and the error.log of a failed run."""
    from . import fingerprint

    cause = fingerprint.cause(error)
    if isinstance(error, KeyboardInterrupt):
        kind, message, frame = Interrupted.__name__, 'the run was interrupted (Ctrl-C)', cause.frame
        if is_cancelled:  # as in a worker, which is killed
            kind, message, frame = Cancelled.__name__, 'the run was cancelled', None
        elif isinstance(error, Unwanted):
            message = 'the run was interrupted: what it is a part of was cancelled'
        group = fingerprint.fingerprint(kind, message, frame)
        bases = fingerprint.bases(Cancelled if is_cancelled else Interrupted)
        cause = fingerprint.Cause(kind, message, frame, group, bases)
    entry = entry.change(
        status='error',
        error_type=cause.type,
        error_bases=directory.bases_text(cause.bases),
        error=cause.message,
        error_group=cause.group,
    )
    return entry, cause.frame, _traceback_text(error, cause.type, cause.message)


_OURS_ABOVE = (_call.__code__, setups.Made.make.__code__, coroutines.run.__code__)


def _traceback_text(error: BaseException, kind: str, message: str) -> str:
    """The traceback from the user's function on, without our own frames above it."""
    import traceback

    if isinstance(error, ResultNotSerializable):
        return f'{kind}: {error}\n'
    shown = error.__traceback__
    while shown is not None and shown.tb_frame.f_code in _OURS_ABOVE:
        shown = shown.tb_next
    _without_handler(shown)
    try:
        lines = traceback.format_exception(type(error), error, shown)
    except Exception:  # formatting runs the exception's own code, which may fail in any way
        return f'{kind}: {message}\n'
    text = ''.join(lines[:-1] if isinstance(error, Unwanted) else lines)
    return text if not isinstance(error, KeyboardInterrupt) else f'{text}{kind}: {message}\n'


def _without_handler(shown: TracebackType | None) -> None:
    """Cut off the frame of ours at the lower end."""
    while shown is not None and shown.tb_next is not None:
        if shown.tb_next.tb_frame.f_code is raise_if_unwanted.__code__:
            shown.tb_next = None
        shown = shown.tb_next
