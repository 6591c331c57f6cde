"""`Resource`, what `Project.fetch` returns: a dict with a few more attributes."""

from __future__ import annotations

import binascii
import contextlib
import errno
import os
import time
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar, cast

from . import directory, fileops, provenance, records, run_progress
from .directory import State
from .errors import (
    Cancelled,
    Interrupted,
    MemoryExceeded,
    ResourceError,
    ResourceFailed,
    TimedOut,
    Unreadable,
    WorkerDied,
)
from .records import Entry, Status

if TYPE_CHECKING:
    from collections.abc import Callable
    from datetime import datetime, timedelta

    from .records import Progress

_COMPLETED: dict[str, bool] = {'completed': True, 'pending': False, 'error': False}
_PENDING: dict[str, bool] = {'completed': False, 'pending': True, 'error': False}
_ERROR: dict[str, bool] = {'completed': False, 'pending': False, 'error': True}
_DOCUMENT = {'completed': _COMPLETED, 'pending': _PENDING, 'error': _ERROR}


def shown_paths(base: str) -> dict[str, str]:
    """The documented paths of a resource whose directory is ``base``; storage ends with a slash."""
    return {
        'base': base,
        'error': f'{base}/error.log',
        'stdout': f'{base}/stdout.log',
        'stderr': f'{base}/stderr.log',
        'status': f'{base}/status.json',
        'result': f'{base}/result.json',
        'storage': f'{base}/storage/',
    }


T = TypeVar('T')

LONGEST_ERROR = 4 << 20  # bytes of the end of error.log that `Resource.error` is


class Resource(dict[str, Any]):
    """A snapshot of one resource: a dict with the keys ``result``, ``status`` and ``_paths``.

    ``res['paths']`` is the same as ``res['_paths']``. The attributes beyond the dict are read from the
    resource's directory on first use. They belong to the same run as the result; if that run is gone,
    ResourceError is raised. `wait` returns a new snapshot.

    Attributes:
        collection: Name of the collection.
        ident: Ident of the resource.
    """

    __slots__ = ('_at', '_cause', '_entry', '_seen', '_traceback', '_wait', 'collection', 'ident')

    collection: str
    ident: str

    def __init__(
        self,
        collection: str,
        ident: str,
        status: Status,
        result: Any,
        *,
        at: tuple[str, str, str, str],
        wait: Callable[[Resource, float | None], Resource] | None = None,
        entry: Entry | None = None,
        traceback: str | None = None,
        cause: BaseException | None = None,
        seen: FolderState | None = None,
    ) -> None:
        """``at``: base as shown, absolute base, the collection's folder, the resource's folder.

        ``traceback``: what `error` is, where that does not stand in error.log. ``seen``: what was found in
        the directory, where there is no ``entry``.
        """
        dict.__init__(
            self,
            result=result,
            status=_DOCUMENT[status].copy(),
            _paths=shown_paths(f'{at[0]}/{at[2]}/{at[3]}' if at[0] != '.' else f'{at[2]}/{at[3]}'),
        )
        self.collection = collection
        self.ident = ident
        self._at = at
        self._wait = wait
        self._entry = entry
        self._traceback = traceback
        self._cause = cause  # what the function raised, where it was called in this process
        self._seen = seen

    # The documentation calls the mapping by both names, and a JSON dump shows it once.

    def __missing__(self, key: str) -> Any:
        if key == 'paths':
            return self['_paths']
        raise KeyError(key)

    def get(self, key: str, default: Any = None) -> Any:
        """Return the value of a key (``paths`` included), or ``default``."""
        return dict.get(self, '_paths' if key == 'paths' else key, default)

    def __contains__(self, key: object) -> bool:
        return dict.__contains__(self, '_paths' if key == 'paths' else key)

    @property
    def status(self) -> Status:
        """``'completed'``, ``'pending'`` or ``'error'``."""
        said = self['status']
        return 'completed' if said['completed'] else 'error' if said['error'] else 'pending'

    @property
    def result(self) -> Any:
        """What the function returned, as parsed from JSON; None unless completed."""
        return self['result']

    @property
    def value(self) -> Any:
        """What the function returned, waiting for it if the resource is pending.

        Raises:
            ResourceFailed: The resource ended in error; of the subclasses `TimedOut`, `MemoryExceeded`,
                `Cancelled`, `WorkerDied` or `Interrupted` if the run was cut off. If the function ran in
                this process, its exception is the ``__cause__``.
            ResourceNotFound: The run was cancelled before it started.
        """
        resource = self.wait()
        if resource.status == 'completed':
            return resource.result
        if resource.status == 'pending':  # a copy that was pickled
            raise ResourceError(
                f'{self.collection}/{self.ident} is pending, and this copy of it cannot wait',
                collection=self.collection,
                ident=self.ident,
                hint='fetch it from the Project',
            )
        raise failure(resource) from resource._cause

    @property
    def paths(self) -> dict[str, str]:
        """Paths of the resource's directory and its files, by the names of the dict."""
        return cast('dict[str, str]', self['_paths'])

    @property
    def args(self) -> dict[str, Any]:
        """The args of the last run."""
        return self._known.args

    @property
    def provenance(self) -> dict[str, Any] | None:
        """The program that computed it: command line, user, host, Python, git commit, package versions.

        None if unknown.
        """
        return provenance.read(self._at[1], self._known.raw('provenance'))

    @property
    def attempts(self) -> list[dict[str, Any]]:
        """All known runs as dicts, oldest first, with the fields of record.json."""
        entry = self._known
        names = ('attempt', 'status', 'started_at', 'finished_at', 'error_type', 'error', 'error_group')
        last = {name: entry.raw(name) for name in (*names, 'args_hash', 'version', 'host')}
        return [*entry.history, last] if entry.raw('started_at') else entry.history

    @property
    def error(self) -> str | None:
        """The traceback of the last run, from error.log; None unless it failed.

        If the run could not start: the reason; error.log and all other files are then as before.
        """
        if self.status != 'error':
            return None
        if self._traceback is not None:
            return self._traceback
        return self._in_folder(self._read_error) or self._known.error

    @property
    def started_at(self) -> datetime | None:
        """Start of the last run, as an aware UTC datetime."""
        return self._known.started_at

    @property
    def finished_at(self) -> datetime | None:
        """End of the last run, as an aware UTC datetime."""
        return self._known.finished_at

    @property
    def duration(self) -> float | None:
        """Duration of the last run, in seconds."""
        return self._known.duration

    @property
    def progress(self) -> Progress | None:
        """How far the current run is, as its function reported by ``hadrosaur.current().progress``.

        A `Progress`; None if no run is in progress or it reported nothing.
        """
        found: Progress | None = self._in_folder(run_progress.read) if self.status == 'pending' else None
        return found

    @property
    def entry(self) -> Entry:
        """The resource's `Entry`, read from its directory instead of the index."""
        return self._known

    def wait(self, seconds: float | timedelta | None = None) -> Resource:
        """Wait while the resource is pending, and return a new snapshot.

        Args:
            seconds: Maximum time to wait, in seconds or as a timedelta; None: no limit. After that the
                snapshot returned is still pending.

        Raises:
            ResourceNotFound: The run was cancelled before it started.
        """
        limit = None if seconds is None else records.checked_seconds('seconds', seconds)
        if self._wait is None or self.status != 'pending':
            return self
        return self._wait(self, limit)

    @property
    def _known(self) -> Entry:
        if self._entry is None:
            self._entry = self._read_entry()
        return self._entry

    def _read_entry(self) -> Entry:
        seen = self._seen
        if seen is not None and seen.state == 'completed' and seen.record is None:
            seen = look(f'{self._at[1]}/{self._at[2]}', self._at[3], with_record=True)
            if seen.mark is None or seen.mark != self._seen.mark:  # type: ignore[union-attr]
                raise ResourceError(
                    f'{self.collection}/{self.ident} was computed again or removed since it was fetched: '
                    'the args and times of that run are gone',
                    collection=self.collection,
                    ident=self.ident,
                    hint='fetch it again',
                )

        def entry(folder: int) -> Entry:
            record = seen.record if seen is not None else directory.read_record(folder)
            path = f'{self._at[2]}/{self._at[3]}'
            return directory.entry_of(self.collection, self.ident, path, self.status, folder, record)

        found: Entry | None = self._in_folder(entry)
        if found is None and seen is not None and seen.record is not None:
            found = entry(-1)  # the directory is gone, and was read before
        return found or Entry.make(collection=self.collection, ident=self.ident, status=self.status)

    def _read_error(self, folder: int) -> str | None:
        """The text of error.log, if it is of the run that this is a snapshot of."""
        before = directory.record_data(folder)
        try:
            text = fileops.read_tail(directory.ERROR, folder, LONGEST_ERROR).decode(errors='replace')
        except FileNotFoundError:
            return None
        if before is None:  # hadrosaur 0.0.2, or a person
            return text
        record, known = directory.parse_record(before), self._known
        is_same = all(record.get(name) == known.raw(name) for name in ('attempt', 'started_at'))
        return text if is_same and before == directory.record_data(folder) else None

    def _in_folder(self, read: Callable[[int], Any]) -> Any:
        """What is read from the directory, None where there is none (any more)."""
        try:
            with fileops.opened_below(f'{self._at[1]}/{self._at[2]}', self._at[3]) as folder:
                return read(folder)
        except OSError as error:
            if isinstance(error, FileNotFoundError) or fileops.is_no_file(error):
                return None
            raise unreadable(f'{self._at[1]}/{self._at[2]}/{self._at[3]}', error) from error

    def _repr_html_(self) -> str:
        """The resource as a table, for notebooks."""
        from .sanitize import html_table, local, seconds, short

        shown: list[tuple[str, Any]] = [('status', self.status)]
        with contextlib.suppress(ResourceError):  # the run is gone
            known = self._known
            if self.status == 'error':
                shown.append(('error', f'{known.error_type}: {known.error}'))
            shown += [('args', short(known.args)), ('attempt', known.attempt)]
            shown += [('finished', local(known.finished_at)), ('took', seconds(known.duration))]
        shown += [('result', short(self.result)), ('folder', self.paths['base'])]
        is_known = [(name, value) for name, value in shown if value is not None]
        return html_table(('', ''), is_known, f'{self.collection} / {self.ident}')

    def __reduce__(self) -> tuple[Any, ...]:
        seen = self._seen._replace(value=None) if self._seen is not None else None
        more = (self._entry, self._traceback, seen)
        return (_rebuilt, (self.collection, self.ident, dict(self), self._at, *more))


def _rebuilt(
    collection: str,
    ident: str,
    items: dict[str, Any],
    at: tuple[str, str, str, str],
    entry: Entry | None,
    traceback: str | None = None,
    seen: FolderState | None = None,
) -> Resource:
    status = next(cast('Status', name) for name, value in items['status'].items() if value)
    more: dict[str, Any] = {'entry': entry, 'traceback': traceback, 'seen': seen}
    return Resource(collection, ident, status, items['result'], at=at, **more)


_FAILURES = {kind.__name__: kind for kind in (Interrupted, TimedOut, MemoryExceeded, Cancelled, WorkerDied)}


def failure(resource: Resource) -> ResourceFailed:
    """What is raised where the value of a resource is asked for that ended in error."""
    entry = resource.entry
    kind = _FAILURES.get(entry.error_type or '', ResourceFailed)
    return kind(
        f'{resource.collection}/{resource.ident} ended in error: {entry.error_type}: {entry.error}',
        collection=resource.collection,
        ident=resource.ident,
        traceback_text=resource.error or '',
        hint=f'see {resource.paths["error"]}',
    )


def free_frames(error: BaseException | None) -> None:
    """Let go of what the frames of an exception's traceback hold: its lines are still known."""
    if error is None:
        return
    from traceback import clear_frames  # which a worker seldom needs

    seen: set[int] = set()
    while error is not None and id(error) not in seen:
        seen.add(id(error))
        clear_frames(error.__traceback__)
        error = error.__cause__ or error.__context__


class FolderState(NamedTuple):
    """What a resource's directory says, read without lock or database.

    A completed one comes with the value of one run, whole, and with that run's record.
    """

    state: State
    value: Any = None  # the result, where completed
    record: dict[str, Any] | None = None  # record.json of a failed run; where asked for, of a completed one
    damage: str | None = None  # why there is no value, though status.json says completed
    mark: tuple[int, int] | None = None  # by which the value's file is known again


NOTHING = FolderState('absent')
"""Where there is no folder of the resource at all."""
_LOOKS = 100  # at a directory that is another each time, before it is called pending
_READINGS = 20  # of a directory that is another run's each time
_BETWEEN = 0.001  # seconds between them


def look(
    collection_path: str, folder: str, *, with_record: bool = False, parent: int | None = None
) -> FolderState:
    """Read a resource's directory: four opens for a completed one. Follows no symlink.

    ``parent``: a descriptor of the collection's folder, for who has just opened it.

    Raises Unreadable where what stands there cannot be known: no descriptor is left, the disk fails.
    """
    try:
        for _ in range(_LOOKS):
            found = _look_once(collection_path, folder, with_record, parent)
            if found is not None:
                return found
            time.sleep(_BETWEEN)
    except OSError as error:
        raise unreadable(f'{collection_path}/{folder}', error) from error
    except MemoryError as error:
        where = f'{collection_path}/{folder}/{directory.RESULT}'
        raise Unreadable(
            f'{where} does not fit into memory', hint='read it in parts, with other tools'
        ) from error
    return FolderState('pending')


def of_one_run(folder: int, read: Callable[[dict[str, Any] | None], T]) -> T:
    """What ``read`` makes of an open directory and its record (see `directory.read_record`), all of one run.

    A run writes its record before whatever else it leaves: where that is the same before and after, so is
    the run. It is read again while it is not; at last, where one run follows the other without end, as it is.
    """
    before = directory.record_data(folder)
    for _ in range(_READINGS):
        found = read(None if before is None else directory.parse_record(before))
        after = directory.record_data(folder)
        if after == before:
            break
        before = after
    return found


def unreadable(where: str, error: OSError) -> Unreadable:
    """What is raised where a directory or a file of ours can only not be read this time."""
    hints = {
        errno.EMFILE: 'close some, or allow more (`ulimit -n`)',
        errno.ENFILE: 'close some programs: the whole machine has too many',
        errno.EACCES: 'see who owns it, and its mode',
    }
    hint = hints.get(error.errno or 0, 'nothing was changed: try again')
    return Unreadable(f'{where} cannot be read: {error.strerror or error}', hint=hint)


def _look_once(
    collection_path: str, folder: str, with_record: bool, parent: int | None
) -> FolderState | None:
    """None where it changed while it was read."""
    try:
        within = fileops.out_of_reach(os.open(collection_path, fileops.LOOK)) if parent is None else parent
    except OSError as error:
        return _nothing(error)
    try:
        opened = fileops.out_of_reach(os.open(folder, fileops.LOOK, dir_fd=within))
    except OSError as error:
        return _nothing(error)
    finally:
        if parent is None:
            os.close(within)
    try:
        if not fileops.has_name(opened, folder):
            return NOTHING  # it is the folder of another ident
        if directory.is_completed(opened):
            return _completed(opened, with_record)
        state = directory.read_status(opened)
        if state == 'completed':
            return _completed(opened, with_record)
        if state != 'error':
            return FolderState(state)
        record = directory.read_record(opened)
        is_still = (record or {}).get('state') == 'error' or directory.read_status(opened) == 'error'
        return FolderState('error', record=record) if is_still else None
    except OSError as error:
        if error.errno == errno.ESTALE:  # removed on another machine
            return None
        raise
    finally:
        os.close(opened)


def _nothing(error: OSError) -> FolderState:
    """There is nothing; or a file or a link, which is no resource."""
    if isinstance(error, FileNotFoundError) or fileops.is_no_file(error):
        return NOTHING
    raise error


def _completed(folder: int, with_record: bool) -> FolderState | None:
    """The value of an open directory that says completed; None where it says so no more, or of another run.

    A run never writes into a result that was there before it: it makes a new file. So what is read from
    one that was opened belongs to one run, and is whole if it parses. What a record tells belongs to the
    same run if the record is the same before and after.
    """
    before = directory.record_data(folder) if with_record else None
    try:
        data = fileops.read(directory.RESULT, folder)
        value = directory.parse_result(data)
    except FileNotFoundError:
        return _damaged(folder, None, f'{directory.RESULT} is missing')
    except ValueError as error:
        return _damaged(folder, data, str(error))
    except OSError as error:
        if not fileops.is_no_file(error):
            raise
        return _damaged(folder, b'', f'{directory.RESULT} is no file of ours: {error.strerror}')
    if not with_record:
        return FolderState('completed', value, mark=_mark(data))
    record = directory.parse_record(before) if before is not None else None
    if before != directory.record_data(folder):
        return None
    is_of_it = record is not None and record.get('state') == 'completed'
    if not is_of_it and directory.read_status(folder) != 'completed':
        return None  # it is being removed, or has begun; else the status was set by hand
    return FolderState('completed', value, record, mark=_mark(data))


def _damaged(folder: int, seen: bytes | None, damage: str) -> FolderState | None:
    """None where no more than a run that began, and perhaps ended, came between two readings."""
    before = directory.record_data(folder)
    if directory.read_status(folder) != 'completed' or directory.data_of(directory.RESULT, folder) != seen:
        return None
    if before != directory.record_data(folder):
        return None
    record = directory.parse_record(before) if before is not None else None
    return FolderState('completed', record=record, damage=damage)


def _mark(data: bytes) -> tuple[int, int]:
    """By which a result is known again."""
    return (len(data), binascii.crc32(data))
