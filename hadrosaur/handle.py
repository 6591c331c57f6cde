"""What `Project.fetch` hands to the user: a dict, as documented, that knows a little more."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any, NamedTuple, cast

from . import directory, diskio
from .directory import State
from .errors import Cancelled, Interrupted, ResourceError, ResourceFailed, TimedOut, WorkerDied
from .records import Entry, Status

if TYPE_CHECKING:
    from collections.abc import Callable
    from datetime import datetime

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


class Resource(dict[str, Any]):
    """A snapshot of one resource: a dict with the keys ``result``, ``status`` and ``_paths``.

    ``res['paths']`` answers too, with the same mapping. What an attribute tells beyond the dict is
    read from the directory when it is asked for. `wait` gives a new snapshot, `value` the result,
    whoever computes it.
    """

    __slots__ = ('_at', '_cause', '_entry', '_traceback', '_wait', 'collection', 'ident')

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
    ) -> None:
        """``at``: base as shown, absolute base, the collection's folder, the resource's folder.

        ``traceback``: what `error` is, where that does not stand in error.log.
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

    # The documentation calls the mapping by both names, and a JSON dump shows it once.

    def __missing__(self, key: str) -> Any:
        if key == 'paths':
            return self['_paths']
        raise KeyError(key)

    def get(self, key: str, default: Any = None) -> Any:
        """The value of a key, ``paths`` included, or ``default``."""
        return dict.get(self, '_paths' if key == 'paths' else key, default)

    def __contains__(self, key: object) -> bool:
        return dict.__contains__(self, '_paths' if key == 'paths' else key)

    @property
    def status(self) -> Status:
        """``'completed'``, ``'pending'`` or ``'error'``."""
        return next(cast('Status', name) for name, value in self['status'].items() if value)

    @property
    def result(self) -> Any:
        """What the function returned, as JSON gives it back; None unless completed."""
        return self['result']

    @property
    def value(self) -> Any:
        """What the function returned; waits for it where the resource is pending.

        Raises ResourceFailed where it ended in error (TimedOut, Cancelled, WorkerDied or Interrupted where
        it was cut off), with what the function raised as the cause if it was called in this process.
        """
        resource = self.wait()
        if resource.status == 'completed':
            return resource.result
        if resource.status == 'pending':  # a copy that was pickled
            raise ResourceError(
                f'{self.collection}/{self.ident} is pending, and cannot be waited for in this copy',
                collection=self.collection,
                ident=self.ident,
                hint='fetch it from the Project',
            )
        raise failure(resource) from resource._cause

    @property
    def paths(self) -> dict[str, str]:
        """Paths of the resource's directory and files."""
        return cast('dict[str, str]', self['_paths'])

    @property
    def args(self) -> dict[str, Any]:
        """The args of the last run."""
        return self._known.args

    @property
    def error(self) -> str | None:
        """The traceback of the last run, where it failed: the text of error.log.

        Of a run that could not begin: why. Then error.log, like all else, is as it was.
        """
        if self.status != 'error':
            return None
        if self._traceback is not None:
            return self._traceback
        text = self._in_folder(lambda folder: diskio.read(directory.ERROR, folder).decode(errors='replace'))
        return text or self._known.error

    @property
    def started_at(self) -> datetime | None:
        """When the last run began, as an aware UTC datetime."""
        return self._known.started_at

    @property
    def finished_at(self) -> datetime | None:
        """When the last run was done, as an aware UTC datetime."""
        return self._known.finished_at

    @property
    def duration(self) -> float | None:
        """Seconds that the last run took."""
        return self._known.duration

    @property
    def entry(self) -> Entry:
        """The resource's row as its directory gives it."""
        return self._known

    def wait(self, seconds: float | None = None) -> Resource:
        """A new snapshot, once the resource is no longer pending or ``seconds`` have passed.

        Raises ResourceNotFound where it was cancelled before it was begun.
        """
        if self._wait is None or self.status != 'pending':
            return self
        return self._wait(self, seconds)

    @property
    def _known(self) -> Entry:
        if self._entry is None:
            self._entry = self._in_folder(self._read_entry) or Entry.make(
                collection=self.collection, ident=self.ident, status=self.status
            )
        return self._entry

    def _read_entry(self, folder: int) -> Entry:
        record = directory.read_record(folder)
        path = f'{self._at[2]}/{self._at[3]}'
        return directory.entry_of(self.collection, self.ident, path, self.status, folder, record)

    def _in_folder(self, look: Callable[[int], Any]) -> Any:
        try:
            with diskio.opened_below(f'{self._at[1]}/{self._at[2]}', self._at[3]) as folder:
                return look(folder)
        except OSError:
            return None

    def _repr_html_(self) -> str:
        """What a notebook shows."""
        from .shown import html_table

        shown = [('status', self.status), ('result', repr(self.result)), ('folder', self.paths['base'])]
        if self.status == 'error':
            shown.insert(1, ('error', f'{self._known.error_type}: {self._known.error}'))
        return html_table(('', ''), shown, f'{self.collection} / {self.ident}')

    def __reduce__(self) -> tuple[Any, ...]:
        return (_rebuilt, (self.collection, self.ident, dict(self), self._at, self._entry, self._traceback))


def _rebuilt(
    collection: str,
    ident: str,
    items: dict[str, Any],
    at: tuple[str, str, str, str],
    entry: Entry | None,
    traceback: str | None = None,
) -> Resource:
    status = next(cast('Status', name) for name, value in items['status'].items() if value)
    return Resource(collection, ident, status, items['result'], at=at, entry=entry, traceback=traceback)


_FAILURES = {kind.__name__: kind for kind in (Interrupted, TimedOut, Cancelled, WorkerDied)}


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
    from traceback import clear_frames  # which a worker seldom needs

    seen: set[int] = set()
    while error is not None and id(error) not in seen:
        seen.add(id(error))
        clear_frames(error.__traceback__)
        error = error.__cause__ or error.__context__


class Look(NamedTuple):
    """What a resource's directory says, read without lock or database."""

    state: State
    result: bytes | None = None  # the bytes of result.json, where completed
    record: dict[str, Any] | None = None  # record.json, where it was asked for and completed


_ABSENT = Look('absent')


def look(collection_path: str, folder: str, *, with_record: bool = False) -> Look:
    """Read a resource's directory: four opens for a completed one. Follows no symlink."""
    try:
        parent = os.open(collection_path, diskio.LOOK)
    except OSError:
        return _ABSENT
    try:
        opened = os.open(folder, diskio.LOOK, dir_fd=parent)
    except OSError:  # nothing there; or a file or a link, which is no resource
        return _ABSENT
    finally:
        os.close(parent)
    state: State = 'damaged'
    try:
        if not diskio.has_name(opened, folder):
            return _ABSENT  # it is the folder of another ident
        if not directory.is_completed(opened):
            state = directory.read_status(opened)
            if state != 'completed':
                return Look(state)
        state = 'completed'
        result = diskio.read(directory.RESULT, opened)
        return Look('completed', result, (directory.read_record(opened) or {}) if with_record else None)
    except OSError:  # missing, or a folder or a link of that name, or not to be read now
        return Look(state)
    finally:
        os.close(opened)
