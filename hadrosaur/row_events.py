"""What happens to rows, and what it makes of the index: the words between who computes and who writes."""

from __future__ import annotations

import contextlib
import errno
import os
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

from . import directory, fileops, recover
from .errors import Interrupted
from .handle import of_one_run

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from .basedir import BaseDirectory
    from .index import Index
    from .records import Entry

READER = 1.0
"""Seconds that a reader waits for rows which cannot be written."""
LATER = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOMEM})  # the folder may be readable in a moment
LOOKS = 3  # at a folder whose resource is on its way; if it still is, that run has its own last word

Key = tuple[str, str]
Found = tuple[Key, 'Entry | None', Any]
"""(key, what its folder says or None where it has none, ``changed`` of the row before that was looked at)."""


class Place(NamedTuple):
    """Where a resource is: what its row is made of, once its folder is looked at.

    Attributes:
        told: The row of a run that was begun there and could not be written down; None: it was cut off.
    """

    collection: str
    ident: str
    collection_path: str  # absolute
    folder: str
    lock: str = 'folder'
    told: Entry | None = None

    def recover(self, patience: float = directory.LOCK_PATIENCE) -> recover.Recovered:
        """Recover the folder."""
        told = self.told
        return recover.recover(
            self.collection,
            self.ident,
            self.collection_path,
            self.folder,
            lock=self.lock,
            patience=patience,
            error_type=(told and told.error_type) or Interrupted.__name__,
            reason=(told and told.error) or recover.REASON,
        )


class Event:
    """Something that happened to some rows.

    Attributes:
        kind: ``queue`` (entries), ``start`` (keys), ``finish`` (entries), ``disown`` (keys), ``merge``
            ((entry or None, key, changed)), or ``sync`` (places: the rows become what the folders say).
        rows: What it happened to.
        session: Whose rows they are.
        is_news: Would nobody know of it if we were killed now? Of the others a pending row tells.
        written: How many rows of a ``queue`` were written; None: it is not known yet.
    """

    __slots__ = ('goes_with', 'is_news', 'kind', 'rows', 'session', 'tries', 'written')

    def __init__(self, kind: str, rows: Sequence[Any], session: str | None = None, tries: int = 0) -> None:
        self.kind = kind
        self.rows = rows
        self.session = session
        self.is_news = kind == 'queue'
        self.tries = tries  # how often it was tried before
        self.goes_with = (kind, session, tries)  # what may be written together
        self.written: int | None = None


class Rows(Protocol):
    """Where events go."""

    def put(self, event: Event) -> None:
        """Take an event; never waits."""

    def write(self, event: Event) -> None:
        """Take an event, and write it now if that takes no waiting to speak of."""

    def flush(self, patience: float = READER) -> bool:
        """Write what waits; False where it could not be, for so many seconds."""

    def unwritten(self) -> dict[tuple[str, str], Entry | None]:
        """What the rows will be that wait to be written; None: there will be none."""

    def rest(self) -> None:
        """`flush`, and hold nothing that is not needed."""

    def close(self) -> bool:
        """`flush` for the last time."""

    @property
    def is_behind(self) -> bool:
        """Are there rows that are not written yet?"""

    @property
    def fault(self) -> BaseException | None:
        """Why rows cannot be written, if they cannot."""


class NoRows:
    """Inside a worker or a resource's function: there the index is out of reach."""

    is_behind = False
    fault: BaseException | None = None

    def put(self, event: Event) -> None:
        """Nothing."""

    def write(self, event: Event) -> None:
        """Nothing."""

    def flush(self, patience: float = READER) -> bool:
        """There is nothing to write."""
        return True

    def unwritten(self) -> dict[tuple[str, str], Entry | None]:
        """None."""
        return {}

    def rest(self) -> None:
        """There is nothing to write."""

    def close(self) -> bool:
        """There is nothing to write."""
        return True


# --- applying ----------------------------------------------------------------------------------------


def apply(
    index: Index, group: Sequence[Event], base: BaseDirectory, is_sent_off: Callable[[str, str], bool]
) -> Event | None:
    """Write what events of one kind say; returns one that is to be applied again later, if there is any."""
    first = group[0]
    rows = first.rows if len(group) == 1 else [row for event in group for row in event.rows]
    if first.kind == 'queue':
        index.session = first.session
        first.written = index.queue(rows)
    elif first.kind == 'finish':
        index.finish(rows)
    elif first.kind == 'start':
        index.start(rows)
    elif first.kind == 'disown':
        index.session = first.session
        index.release_ownership(rows)
    elif first.kind == 'merge':
        _merge(index, rows)
    elif again := _sync(index, rows, first, base, is_sent_off):
        return Event('sync', again, first.session, first.tries + 1)
    return None


def _sync(
    index: Index,
    places: Sequence[Place],
    event: Event,
    base: BaseDirectory,
    is_sent_off: Callable[[str, str], bool],
) -> list[Place]:
    """The rows become what the folders say, where no living process has queued the resource since.

    Returns the places that cannot be looked at now.
    """
    found: list[Found] = []
    nobodys: list[Key] = []
    again: list[Place] = []
    for place in places:
        key = (place.collection, place.ident)
        row = index.get_stored(*key)  # before the folder: it may move meanwhile
        is_pending = row is not None and row.status == 'pending'
        if row and is_pending and row.session != event.session and base.is_alive(row.session):
            continue  # theirs to write
        is_on_its_way = is_sent_off(*key)
        try:
            is_known, entry = _what_it_is(place, settles=not is_on_its_way)
        except OSError as error:
            if error.errno in LATER:
                again.append(place)
            continue
        if is_known:
            found.append((key, entry, row and row.raw('changed')))
        elif is_on_its_way and event.tries < LOOKS:
            again.append(place)
        elif is_pending and not is_on_its_way:
            nobodys.append(key)
    _merge(index, found)
    if nobodys:
        index.session = event.session
        index.release_ownership(nobodys)
    return again


def _merge(index: Index, found: Sequence[Found]) -> None:
    there = [(entry, changed) for _, entry, changed in found if entry is not None]
    gone = [(*key, changed) for key, entry, changed in found if entry is None and changed is not None]
    if there or gone:
        index.merge(there, gone)


def _what_it_is(place: Place, *, settles: bool) -> tuple[bool, Entry | None]:
    """(True, its row or None where it was never begun), or (False, None) where that is not decided yet.

    Raises OSError where the folder cannot be looked at.
    """
    path = f'{os.path.basename(place.collection_path)}/{place.folder}'
    try:
        with fileops.opened_below(place.collection_path, place.folder) as folder:
            key = (place.collection, place.ident)

            def read(record: dict[str, Any] | None) -> tuple[directory.State, Entry | None]:
                state = directory.read_status(folder)
                if state in ('completed', 'error'):
                    return state, directory.entry_of(*key, path, state, folder, record)
                return state, None

            state, entry = of_one_run(folder, read)
            if entry is not None:
                return True, entry
    except OSError as error:
        if isinstance(error, FileNotFoundError) or fileops.is_no_file(error):
            return True, None
        raise
    if state == 'absent':
        return True, None
    if not settles:
        return False, None
    recovered = place.recover(patience=0.0)
    return recovered.is_known, recovered.entry


def outlook(events: Sequence[Event]) -> dict[Key, Entry | None]:
    """What rows will be once these events are applied; None: there will be no row."""
    found: dict[Key, Entry | None] = {}
    for event in events:
        if event.kind in ('queue', 'finish'):
            found.update(((entry.collection, entry.ident), entry) for entry in event.rows)
        elif event.kind == 'merge':
            found.update((key, entry) for key, entry, _ in event.rows)
        elif event.kind == 'sync':
            for place in event.rows:
                with contextlib.suppress(OSError):
                    is_known, entry = _what_it_is(place, settles=False)
                    if is_known or place.told is not None:
                        found[place.collection, place.ident] = entry if is_known else place.told
    return found
