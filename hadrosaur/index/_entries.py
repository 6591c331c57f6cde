"""From rows of the table to entries: what hadrosaur never writes is damage.

Anybody may write into the file. A cell of another type or an unknown status would be met far from here,
by whoever shows or compares it; and a path that leads out of the base by whoever opens it.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from .. import canonical
from ..errors import InvalidIdent
from ..records import COLUMNS, STATUSES, Entry
from ._examining import Altered

if TYPE_CHECKING:
    from collections.abc import Iterable

_NUMBERS = frozenset({'attempt', 'pid', 'max_rss', 'seen_mtime_ns'})
_SECONDS = frozenset({'duration', 'cpu_seconds'})
_REQUIRED = frozenset({'collection', 'ident', 'status'})
_STATUS = COLUMNS.index('status')
_PATH = COLUMNS.index('path')

_OUTSIDE = re.compile(r'\A/|(?:\A|/)\.\.?(?:/|\Z)')
"""What is in a path that may lead anywhere but into a folder of a collection."""

_known: set[tuple[type, ...]] = set()  # types of the cells of rows that were found to be good


def entries(rows: Iterable[tuple[Any, ...]]) -> list[Entry]:
    """An entry for each row. Raises `Altered`, which is met as all damage is."""
    return [entry(row) for row in rows]


def entry(row: tuple[Any, ...]) -> Entry:
    """The entry of a row."""
    kinds = tuple(map(type, row))
    if kinds not in _known:
        for name, value in zip(COLUMNS, row, strict=True):
            _check(name, value)
        _known.add(kinds)
    if row[_STATUS] not in STATUSES:
        raise Altered(f'a row has the status {row[_STATUS]!r}')
    path = row[_PATH]
    if path is not None and _OUTSIDE.search(path):
        row = (*row[:_PATH], _path_of(row), *row[_PATH + 1 :])
    return Entry(row)


def text(value: Any) -> str:
    """A cell that is text, of a row that is no entry."""
    if type(value) is not str:
        raise Altered(f'a cell holds {type(value).__name__} where text belongs')
    return value


def _check(name: str, value: Any) -> None:
    wanted: tuple[type, ...] = (str,)
    if name in _NUMBERS:
        wanted = (int,)
    elif name in _SECONDS:
        wanted = (float, int)
    if not (type(value) in wanted or (value is None and name not in _REQUIRED)):
        raise Altered(f'the column {name} of a row holds {type(value).__name__}')


def _path_of(row: tuple[Any, ...]) -> str | None:
    """The folder that collection and ident have."""
    try:
        return f'{canonical.collection_folder(row[0])}/{canonical.folder_name(row[1])}'
    except InvalidIdent:
        return None
