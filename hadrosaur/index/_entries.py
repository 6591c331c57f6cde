"""From rows of the table to entries: what hadrosaur never writes is damage.

Anybody may write into the file. A cell of another type or an unknown status would be met far from here,
by whoever shows or compares it; and a path that leads out of the base by whoever opens it.
"""

from __future__ import annotations

import re
from typing import Any

from .. import canonical
from ..errors import InvalidIdent
from ..records import COLUMNS, STATUSES, Entry
from ._validate import Altered

ALL = f'SELECT {", ".join(COLUMNS)} FROM resources'
"""Text that selects all rows."""

ONE = f'{ALL} WHERE collection = ? AND ident = ?'
"""Text that selects the row of a collection and an ident."""

_TEXT = frozenset({str, type(None)})
_NUMBER = frozenset({int, type(None)})
_SECONDS = frozenset({float, int, type(None)})
_KINDS = {
    **dict.fromkeys(COLUMNS, _TEXT),
    **dict.fromkeys(('collection', 'ident', 'status'), frozenset({str})),
    **dict.fromkeys(('attempt', 'pid', 'max_rss', 'seen_mtime_ns'), _NUMBER),
    **dict.fromkeys(('duration', 'cpu_seconds'), _SECONDS),
}
_STATUSES = frozenset(STATUSES)
_STATUS = COLUMNS.index('status')
_PATH = COLUMNS.index('path')
_OUTSIDE = re.compile(r'\A/|(?:\A|/)\.\.?(?:/|\Z)')
"""What is in a path that may lead anywhere but into a folder of a collection."""


def entries(rows: list[tuple[Any, ...]]) -> list[Entry]:
    """An entry for each row. Raises `Altered`, which is met as all damage is.

    Looked at by columns: that is many times as fast as looking at each row.
    """
    if not rows:
        return []
    columns = list(zip(*rows, strict=True))
    for name, column in zip(COLUMNS, columns, strict=True):
        kinds = _KINDS[name]
        if not _is_plainly(kinds, column) and not kinds.issuperset(map(type, column)):
            raise Altered(f'the column {name} of a row holds what hadrosaur does not write there')
    if not _STATUSES.issuperset(columns[_STATUS]):
        raise Altered('a row has a status that there is not')
    paths = '\n' + '\n'.join(filter(None, columns[_PATH]))
    if '/.' in paths or '\n.' in paths or '\n/' in paths:
        rows = list(map(_inside, rows))
    return list(map(Entry, rows))


def _is_plainly(kinds: frozenset[Any], column: tuple[Any, ...]) -> bool:
    """Does one quick step show that the whole column is as it should be? Else it has to be looked through."""
    try:
        if str in kinds:
            ''.join(column)
            return True
        return type(sum(column)) in kinds
    except TypeError:
        return column[0] is None and type(None) in kinds and column.count(None) == len(column)


def text(value: Any) -> str:
    """A cell that is text, of a row that is no entry."""
    if type(value) is not str:
        raise Altered(f'a cell holds {type(value).__name__} where text belongs')
    return value


def _inside(row: tuple[Any, ...]) -> tuple[Any, ...]:
    """The row; where its path may lead out of the base, with the one that collection and ident have."""
    path = row[_PATH]
    if path is None or not _OUTSIDE.search(path):
        return row
    try:
        path = f'{canonical.collection_folder(row[0])}/{canonical.folder_name(row[1])}'
    except InvalidIdent:
        path = None
    return (*row[:_PATH], path, *row[_PATH + 1 :])
