"""The immutable values that pass between the layers.

A `Job` goes to a worker, a `RunResult` comes back, an `Entry` is a row of the index. All can be pickled and
sent to another machine that shares the file system.

An `Entry` is a tuple of plain values in the order of `COLUMNS`, as SQLite and record.json store them. Times
and JSON are parsed on access, so that a million rows are read in seconds.
"""

from __future__ import annotations

import json
import re
from collections import namedtuple
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, Self

from . import columns

if TYPE_CHECKING:
    from collections.abc import Iterable

Status = Literal['pending', 'completed', 'error']
STATUSES: tuple[Status, ...] = ('pending', 'completed', 'error')
Phase = Literal['queued', 'running']
PHASES: tuple[Phase, ...] = ('queued', 'running')

COLUMNS = tuple(column.name for column in columns.COLUMNS)
"""The columns of the index table ``resources``, in order; an Entry holds one value for each."""

INDEXED_RESULT = 2048
"""Bytes of a result.json that the index holds too, if a collection says nothing else."""

PUBLIC_COLUMNS = COLUMNS[: len(columns.PUBLIC)]
"""The columns that users see; the others are the index's own bookkeeping."""

_BLANK = dict.fromkeys(COLUMNS)
_UNKNOWN = (None,) * (COLUMNS.index('host') - COLUMNS.index('finished_at'))
_POSITION = {name: position for position, name in enumerate(COLUMNS)}
_TIMES = frozenset(columns.of_kind('time'))


def format_time(seconds: float) -> str:
    """Format seconds since the epoch as ISO-8601 UTC text with microseconds and a Z.

    Of fixed width, so that it sorts as time does, and readable by SQLite's date functions.
    """
    whole, micros = divmod(int(seconds * 1_000_000), 1_000_000)
    return f'{_second(whole)}.{micros:06}Z'


@lru_cache(maxsize=64)  # many runs end within the same second
def _second(whole: int) -> str:
    return datetime.fromtimestamp(whole, UTC).strftime('%Y-%m-%dT%H:%M:%S')


def parse_time(text: str) -> datetime:
    """Parse what `format_time` wrote into an aware UTC datetime."""
    return datetime.fromisoformat(text)


def seconds(value: Any) -> Any:
    """Convert a timedelta or number (also numpy's) to a float of seconds; return other values unchanged."""
    if isinstance(value, timedelta):
        return value.total_seconds()
    is_number = isinstance(value, (int, float)) and not isinstance(value, bool)
    return float(value) if is_number else value


def checked_seconds(name: str, value: Any) -> float:
    """Seconds from a number or a timedelta; ValueError, which names the argument, for anything else."""
    found = seconds(value)
    if not isinstance(found, float) or not found >= 0:
        raise ValueError(f'{name} must be a number of seconds from 0 up, or a timedelta, not {value!r}')
    return found


_SIZE = re.compile(r'([0-9]+(?:\.[0-9]+)?) ?([kmgt]?)(i?)b?', re.IGNORECASE)


def number_of_bytes(value: Any) -> Any:
    """Convert ``2 GB``, ``512 MiB`` or a number to whole bytes; return other values unchanged."""
    if isinstance(value, str):
        found = _SIZE.fullmatch(value.strip())
        if found is None or (found[3] and not found[2]):
            return value
        factor = 1024 if found[3] else 1000
        return round(float(found[1]) * factor ** ' kmgt'.index(found[2].lower() or ' '))
    is_number = hasattr(value, '__index__') or (isinstance(value, float) and value.is_integer())
    return int(value) if is_number and not isinstance(value, bool) else value


def moment(text: str) -> datetime | None:
    """Parse the time in a cell that may have been edited by hand; None if it is not a time."""
    try:
        found = parse_time(text)
    except ValueError:
        return None
    if found.tzinfo is None:
        found = found.replace(tzinfo=UTC)
    return found if 1 < found.year < 9999 else None


if TYPE_CHECKING:

    class _Row(tuple[Any, ...]):
        """The types of the cells that are shown unparsed."""

        collection: str
        ident: str
        status: Status
        phase: Phase | None
        args_hash: str | None
        attempt: int
        duration: float | None
        error_type: str | None
        error: str | None
        error_group: str | None
        host: str | None
        pid: int | None
        cpu_seconds: float | None
        max_rss: int | None
        version: str | None
        provenance: str | None
        run: str | None
        path: str
        session: str | None
        changed: str | None
        seen_mtime_ns: int | None

else:
    _Row = namedtuple('_Row', COLUMNS)


def _parsed(text: str | None) -> Any:
    """Parse a cell of JSON; None if it is empty or invalid."""
    try:
        return json.loads(text) if text else None
    except (ValueError, RecursionError):  # edited by hand
        return None


class Use(NamedTuple):
    """A resource that the function of another resource fetched."""

    collection: str
    ident: str
    run: str  # id of the run that made it
    args_hash: str


class Entry(_Row):
    """A row of the index, with attributes (``entry.status``) and items (``entry['status']``).

    Times are aware UTC datetimes, ``args`` is a dict, ``result`` a JSON value. ``duration`` and
    ``cpu_seconds`` are in seconds, ``max_rss`` in bytes. ``path`` is relative to the base directory. Unknown
    values are None.
    """

    __slots__ = ()
    if TYPE_CHECKING:

        def __new__(cls, cells: Iterable[Any]) -> Self:
            """From one iterable of cells."""

    else:
        __new__ = tuple.__new__  # from one iterable of cells

    def __getnewargs__(self) -> tuple[Any, ...]:
        return (tuple(self),)

    @classmethod
    def make(cls, **values: Any) -> Entry:
        """Create an Entry from raw column values by name; the others are None."""
        cells = {**_BLANK, **values}
        if len(cells) > len(COLUMNS):
            raise TypeError(f'no such column: {", ".join(sorted(values.keys() - _POSITION.keys()))}')
        return cls(cells.values())

    def change(self, **values: Any) -> Entry:
        """Return a copy with some raw column values replaced."""
        cells = list(self)
        for name, value in values.items():
            cells[_POSITION[name]] = value
        return Entry(cells)

    @property
    def args(self) -> dict[str, Any]:
        """Args of the last run."""
        found = _parsed(self.raw('args'))
        return found if isinstance(found, dict) else {}

    @property
    def result(self) -> Any:
        """What the function returned; None if it is too long for the index (see ``index_result``)."""
        return _parsed(self.raw('result'))

    @property
    def error_bases(self) -> tuple[str, ...]:
        """Base classes of ``error_type``, up to Exception; with module unless built in."""
        found = _parsed(self.raw('error_bases'))
        return tuple(map(str, found)) if isinstance(found, list) else ()

    @property
    def history(self) -> list[dict[str, Any]]:
        """Earlier attempts as dicts (number, times, status, error, …), oldest first; at most 20."""
        found = _parsed(self.raw('history'))
        return [line for line in found if isinstance(line, dict)] if isinstance(found, list) else []

    @property
    def uses(self) -> list[Use]:
        """What the function fetched during its run: collection, ident, run and args hash of each."""
        found = _parsed(self.raw('uses'))
        lines = found if isinstance(found, list) else []
        return [Use(*line) for line in lines if isinstance(line, list) and len(line) == len(Use._fields)]

    @property
    def inputs(self) -> list[str]:
        """Absolute paths of the input files."""
        return [str(line[0]) for line in self.input_lines if isinstance(line, list) and line]

    @property
    def input_lines(self) -> list[Any]:
        """The input files with size, mtime in ns, and digest."""
        found = _parsed(self.raw('inputs'))
        return found if isinstance(found, list) else []

    @property
    def queued_at(self) -> datetime | None:
        """When the resource was requested."""
        return self._time('queued_at')

    @property
    def started_at(self) -> datetime | None:
        """When the function was called."""
        return self._time('started_at')

    @property
    def finished_at(self) -> datetime | None:
        """When the function returned or failed."""
        return self._time('finished_at')

    @property
    def stale_because(self) -> str | None:
        """The nearest reason why it is stale, in rows of a query with ``stale=True``; else None."""
        return tuple.__getitem__(self, len(COLUMNS)) if len(self) > len(COLUMNS) else None

    def _time(self, name: str) -> datetime | None:
        text = self.raw(name)
        return moment(text) if text else None

    def raw(self, name: str) -> Any:
        """Return a cell as it is stored: times and JSON as text."""
        return tuple.__getitem__(self, _POSITION[name])

    def __getitem__(self, key: Any) -> Any:
        if isinstance(key, str):
            if key not in _POSITION:
                raise KeyError(key)
            return getattr(self, key)
        return tuple.__getitem__(self, key)

    def keys(self) -> tuple[str, ...]:
        """Return the public column names, so that ``dict(entry)`` works."""
        return PUBLIC_COLUMNS

    def as_json(self) -> dict[str, Any]:
        """Return the public columns as a JSON-serialisable dict; times as ISO-8601 text."""
        values = {name: tuple.__getitem__(self, _POSITION[name]) for name in PUBLIC_COLUMNS}
        parsed = {'args': self.args, 'result': self.result, 'error_bases': list(self.error_bases)}
        more = {'uses': [use._asdict() for use in self.uses], 'inputs': self.inputs}
        return {**values, **parsed, 'history': self.history, **more}

    def __repr__(self) -> str:
        shown = ', '.join(
            f'{name}={self.raw(name) if name in _TIMES else getattr(self, name)!r}'
            for name in PUBLIC_COLUMNS
            if self.raw(name) is not None
        )
        return f'Entry({shown})'


class CollectionSpec(NamedTuple):
    """What all jobs of one collection share: where it is, and how its function is run."""

    collection: str
    folder: str  # name of the collection's folder
    base: str  # absolute path of the base directory
    base_given: str  # the base as the user wrote it, so that a worker elsewhere finds the same place
    keep_storage: bool = False
    version: str | None = None
    capture: str = 'auto'
    durable: bool = False
    lock: str = 'folder'  # what is locked: the folder's own descriptor, or a file in it
    expires_after: float | None = None  # seconds a result stays good
    timeout: float | None = None  # seconds one run may take
    runs_per_worker: int | None = None  # runs after which a worker process is replaced
    memory: int | None = None  # bytes that a run may take, with all that it starts
    at_once: int | None = None  # runs at a time, in all processes
    rate: tuple[int, float] | None = None  # at most so many starts in so many seconds, in all processes
    retry_on: tuple[str, ...] | None = None  # names of the exceptions that are tried again; None: any
    keep_attempts: int = 0  # earlier runs whose files are kept
    index_result: int = INDEXED_RESULT  # bytes of a result that are in the row too, where it is no longer

    @property
    def is_limited(self) -> bool:
        """Whether ``at_once`` or ``rate`` may delay a run."""
        return self.at_once is not None or self.rate is not None

    @property
    def needs_process(self) -> bool:
        """Whether its runs need a worker process, which can be killed or replaced."""
        return any(limit is not None for limit in (self.timeout, self.runs_per_worker, self.memory))

    @property
    def path(self) -> str:
        """Absolute path of the collection's folder."""
        return f'{self.base}/{self.folder}'


class Job(NamedTuple):
    """The order to compute one resource: all a worker needs, except the function."""

    spec: CollectionSpec
    run: str  # unique per job: makes a delivery that is repeated harmless
    ident: str
    folder: str  # name of the resource's folder inside the collection's
    args: str  # canonical JSON
    args_hash: str
    queued_at: str
    attempt: int = 1  # the least number that this run's attempt may get
    recompute: str = 'no'  # 'no'; 'changed': if args, version or age differ; 'yes'
    provenance: str | None = None  # name of the note that tells which program asked (see provenance.py)
    chain: tuple[tuple[str, str, str], ...] = ()  # the resources (see step) whose functions asked for it
    stale_run: str | None = None  # with 'changed': what this run has left is no good either

    @property
    def collection(self) -> str:
        """The collection's name."""
        return self.spec.collection

    @property
    def path(self) -> str:
        """The resource's directory relative to the base."""
        return f'{self.spec.folder}/{self.folder}'

    def entry(
        self,
        status: Status,
        phase: str | None = None,
        started_at: str | None = None,
        host: str | None = None,
        pid: int | None = None,
    ) -> Entry:
        """The row of a resource of which no more is known; made in one step, since every run has one."""
        spec = self.spec
        return Entry((
            spec.collection, self.ident, status, phase, self.args, self.args_hash, None, self.attempt,
            self.queued_at, started_at, *_UNKNOWN, host, pid, None, None, spec.version, None, self.provenance,
            None, None, None, f'{spec.folder}/{self.folder}', None, None, None,
        ))  # fmt: skip

    @property
    def key(self) -> tuple[str, str]:
        """(collection, ident)."""
        return (self.spec.collection, self.ident)

    @property
    def step(self) -> tuple[str, str, str]:
        """(absolute path of the base, collection, ident): what names the resource in a chain."""
        return (self.spec.base, self.spec.collection, self.ident)


class RunResult(NamedTuple):
    """The result of one job; errors are part of it and never raised.

    A run may fail to start: the folder cannot be locked, or the function cannot be loaded. Then
    ``not_started`` is true, ``entry`` (status error) tells the caller why, and folder and row are unchanged.
    """

    run: str  # of the job that is answered
    entry: Entry  # the row as it is now; status 'pending': someone else is computing it
    result: bytes | None = None  # result.json, where it has not come a long way or is short
    fresh: bool = False  # True: this job ran the function; False: it was there already
    nested: tuple[Entry, ...] = ()  # rows of what the function fetched
    exception: BaseException | None = None  # to be raised again in the caller: Ctrl-C, inline only
    not_started: bool = False  # True: the run never began; the folder is as before, no row may come of it
    traceback: str = ''  # where the run never began: what error.log would say
    cause: BaseException | None = None  # what the function raised, where it was called in this process
    later: float | None = None  # it may not run now, but in so many seconds; 0.0: nobody knows when
    is_wanted: bool | None = None  # is the error one of ``retry_on``? None where only its name is known


class Progress(NamedTuple):
    """How far a run is, as its function reported it."""

    fraction: float | None  # 0 to 1; None if unknown
    text: str = ''  # what it is doing, in one line

    def __str__(self) -> str:
        percent = '' if self.fraction is None else f'{100 * self.fraction:.0f} %'
        return ' '.join(filter(None, (percent, self.text)))


class Counts(NamedTuple):
    """Numbers of distinct resources in a batch, by status."""

    total: int = 0
    completed: int = 0  # including the reused ones
    error: int = 0
    pending: int = 0
    reused: int = 0  # completed before this batch


class ReindexReport(NamedTuple):
    """What `reindex` did: numbers of folders and rows."""

    scanned: int
    added: int
    updated: int
    removed: int
    unreadable: list[tuple[str, str]]  # (path, reason)


class ErrorGroup(NamedTuple):
    """Failures that share a cause."""

    group: str  # fingerprint
    count: int  # type: ignore[assignment]  # the word users know; tuple.count is not needed here
    type: str
    pattern: str  # the message with what varies masked
    frame: str | None  # file, line and function in the user's code
    collection: str
    example: str  # ident of one of them
    first: datetime | None
    last: datetime | None


class ErrorGroups(list[ErrorGroup]):
    """Causes of failures, the most frequent first; a table in notebooks."""

    def _repr_html_(self) -> str:
        from .sanitize import MOST_ROWS, html_table, local

        names = ('collection', 'count', 'type', 'pattern', 'frame', 'example', 'first', 'last', 'group')
        rows = [
            (*(getattr(each, name) for name in names[:6]), local(each.first), local(each.last), each.group)
            for each in self[:MOST_ROWS]
        ]
        which = f': the first {len(rows)}' if len(self) > len(rows) else ''
        return html_table(names, rows, f'{len(self)} causes{which}')


class Finding(NamedTuple):
    """One disagreement between index and directories."""

    problem: str  # one word: missing-row, missing-folder, status, …
    collection: str
    ident: str
    detail: str
    fixed: bool = False


class CheckReport(NamedTuple):
    """What `check` found; no findings mean that index and directories agree."""

    scanned: int
    findings: list[Finding]

    @property
    def remaining(self) -> list[Finding]:
        """The findings that were not fixed."""
        return [finding for finding in self.findings if not finding.fixed]


Reason = Literal[
    'new',
    'queued',
    'pending',
    'cut-off',
    'error',
    'damaged',
    'completed',
    'args',
    'version',
    'age',
    'input',
    'upstream',
    'recompute',
]


Why = Literal['version', 'age', 'input', 'upstream']


class Facts(NamedTuple):
    """What makes resources of a collection stale.

    Attributes:
        version: Version of its function; None: any.
        expires_after: Maximum age of a result in seconds.
        recomputes: Causes for which a fetch recomputes.
    """

    version: str | None = None
    expires_after: float | None = None
    recomputes: frozenset[Why] = frozenset()


NO_FACTS = Facts()


class Cause(NamedTuple):
    """Why a resource is stale."""

    code: Why
    reason: str  # in words
    chain: tuple[str, ...]  # from the resource to where the cause lies, as collection/ident
    old: str | None = None  # of a version
    new: str | None = None

    @property
    def because(self) -> str:
        """The cause in words, with the resource through which it comes if that is not obvious."""
        direct = 2 if self.code == 'upstream' else 1
        if len(self.chain) <= direct:
            return self.reason
        return f'{self.chain[1]} is stale: {self.reason}'


class Difference(NamedTuple):
    """A difference between the present fetch and the run that computed the resource."""

    what: str  # 'version', or an arg as args.C
    old: Any  # None where there was none
    new: Any


class Explanation(NamedTuple):
    """Whether a fetch would compute, and why."""

    computes: bool
    reason: str  # in words
    code: Reason = 'completed'  # the reason as one word
    refused: bool = False  # a policy is 'error': fetch raises, fetch_many counts an error
    differences: tuple[Difference, ...] = ()  # args and version, then and now
    stale_because: str | None = None  # the nearest cause, where it is stale
    chain: tuple[str, ...] = ()  # from the resource to where that lies, as collection/ident
