"""Which resources are old, or too many: chosen from the rows of the index, the oldest first.

Only what is completed or ended in error is ever chosen. It goes under its folder's lock, and only if the
folder still says what the row said: what was computed again meanwhile, or is being computed, stays.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any, NamedTuple

from .. import directory
from ..errors import InvalidIdent
from ..records import Entry, format_time, number_of_bytes, seconds
from .sizes import disk_usage

if TYPE_CHECKING:
    from collections.abc import Iterable

    from ..index import Index

FINAL = ('completed', 'error')


class Doomed(NamedTuple):
    """A resource that `Project.gc` removes, or refuses to."""

    collection: str
    ident: str
    status: str
    bytes: int  # that it takes on the disk
    row: Entry
    refused: str | None = None  # why it stays


class GcReport(NamedTuple):
    """What `Project.gc` has removed, or would remove; the oldest first."""

    removed: list[Doomed]
    refused: list[Doomed]  # computed again meanwhile, being computed, or not to be removed

    @property
    def bytes(self) -> int:
        """That were freed, or would be."""
        return sum(each.bytes for each in self.removed)


def checked(
    older_than: Any, status: Any, keep_last: Any, max_bytes: Any
) -> tuple[float | None, tuple[str, ...], int | None, int | None]:
    """What a user asks for: (seconds, statuses, number, bytes).

    Raises ValueError for what makes no sense, and where nothing says what is to go.
    """
    age = seconds(older_than)
    if age is not None and not (isinstance(age, float) and age >= 0):
        raise ValueError(f'older_than must be a number of seconds or a timedelta, not {older_than!r}')
    statuses = (status,) if isinstance(status, str) else tuple(status or ())
    for word in statuses:
        if word not in FINAL:
            raise ValueError(f"status must be 'completed' or 'error', not {word!r}: what is pending stays")
    if keep_last is not None and (type(keep_last) is not int or keep_last < 0):
        raise ValueError(f'keep_last must be a whole number from 0 up, not {keep_last!r}')
    most = number_of_bytes(max_bytes)
    if most is not None and (type(most) is not int or most < 0):
        raise ValueError(f"max_bytes must be a number of bytes, or a text such as '20 GB', not {max_bytes!r}")
    if age is None and not statuses and keep_last is None and most is None:
        raise ValueError('say what is to go: older_than, status, keep_last or max_bytes')
    return age, statuses or FINAL, keep_last, most


def choose(
    index: Index,
    collections: Iterable[tuple[str, str]],
    age: float | None,
    statuses: tuple[str, ...],
    keep_last: int | None,
    max_bytes: int | None,
) -> list[Doomed]:
    """What is to go, the oldest first, each with the bytes that it takes.

    Args:
        index: The index, up to date.
        collections: (name, absolute path) of each.
        age: Seconds since it was finished, at least.
        statuses: Of these only.
        keep_last: So many of each collection stay, the newest of those statuses.
        max_bytes: No more than is needed goes, for the collections to take so many bytes together.
    """
    paths = dict(collections)
    before = None if age is None else format_time(time.time() - age)
    found = [
        entry
        for name in paths
        for entry in index.find(name, status=list(statuses), offset=keep_last or 0)
        if (moment := entry.raw('finished_at')) is not None and (before is None or moment < before)
    ]
    found.sort(key=lambda entry: entry.raw('finished_at'))
    excess = None
    if max_bytes is not None:
        excess = sum(_taken(paths, entry) for name in paths for entry in index.find(name)) - max_bytes
    chosen: list[Doomed] = []
    for entry in found:
        if excess is not None and excess <= 0:
            break
        size = _taken(paths, entry)
        excess = None if excess is None else excess - size
        chosen.append(Doomed(entry.collection, entry.ident, entry.status, size, entry))
    return chosen


def _taken(paths: dict[str, str], entry: Entry) -> int:
    """Bytes of a resource; where it is follows from its names, and never from its row."""
    path = paths[entry.collection]
    try:
        return disk_usage(path, directory.find_folder(path, entry.ident))[0]
    except InvalidIdent:  # a row that was written by hand
        return 0
