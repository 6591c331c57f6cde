"""Retention: select resources by age, number or size from the rows of the index, oldest first.

Only completed and failed resources are selected. Each is removed under its folder's lock, and only if the
folder still matches its row: a resource that was recomputed meanwhile, or is running, is kept.
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


class GcItem(NamedTuple):
    """A resource that `Project.gc` selected."""

    collection: str
    ident: str
    status: str
    bytes: int  # its disk usage
    row: Entry
    refused: str | None = None  # why it was kept


class GcReport(NamedTuple):
    """The result of `Project.gc`: what was removed (in a dry run, would be), oldest first."""

    removed: list[GcItem]
    refused: list[GcItem]  # recomputed meanwhile, running, or not removable

    @property
    def bytes(self) -> int:
        """Disk space that was freed, or would be."""
        return sum(each.bytes for each in self.removed)


def checked(
    older_than: Any, status: Any, keep_last: Any, max_bytes: Any
) -> tuple[float | None, tuple[str, ...], int | None, int | None]:
    """Validate the criteria: (seconds, statuses, number, bytes).

    Raises ValueError for an invalid criterion, or where none is given.
    """
    age = seconds(older_than)
    if age is not None and not (isinstance(age, float) and age >= 0):
        raise ValueError(f'older_than must be a number of seconds or a timedelta, not {older_than!r}')
    statuses = (status,) if isinstance(status, str) else tuple(status or ())
    for word in statuses:
        if word not in FINAL:
            raise ValueError(
                f"status must be 'completed' or 'error', not {word!r}; pending resources are kept"
            )
    if keep_last is not None and (type(keep_last) is not int or keep_last < 0):
        raise ValueError(f'keep_last must be a whole number from 0 up, not {keep_last!r}')
    most = number_of_bytes(max_bytes)
    if most is not None and (type(most) is not int or most < 0):
        raise ValueError(f"max_bytes must be a number of bytes, or a text such as '20 GB', not {max_bytes!r}")
    if age is None and not statuses and keep_last is None and most is None:
        raise ValueError('give at least one criterion: older_than, status, keep_last or max_bytes')
    return age, statuses or FINAL, keep_last, most


def choose(
    index: Index,
    collections: Iterable[tuple[str, str]],
    age: float | None,
    statuses: tuple[str, ...],
    keep_last: int | None,
    max_bytes: int | None,
) -> list[GcItem]:
    """Select the resources to remove, oldest first, each with its disk usage.

    Args:
        index: The index, up to date.
        collections: (name, absolute path) of each.
        age: Minimum seconds since the run finished.
        statuses: Only these.
        keep_last: Number of resources to keep in each collection, the newest of these statuses.
        max_bytes: Select only until the collections together take at most this many bytes.
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
    chosen: list[GcItem] = []
    for entry in found:
        if excess is not None and excess <= 0:
            break
        size = _taken(paths, entry)
        excess = None if excess is None else excess - size
        chosen.append(GcItem(entry.collection, entry.ident, entry.status, size, entry))
    return chosen


def _taken(paths: dict[str, str], entry: Entry) -> int:
    """Disk usage of a resource. Its path follows from its names; the row's own `path` is not trusted."""
    path = paths[entry.collection]
    try:
        return disk_usage(path, directory.find_folder(path, entry.ident))[0]
    except InvalidIdent:  # a row that was written by hand
        return 0
