"""Parts of args and results, written the same in Python, on the command line and in an index's SQL.

``result.score`` is the key ``score`` of a result, ``result.model.depth`` a key of what is there, ``args.C``
an arg, ``result.losses[0]`` an item of a list, and ``result`` the whole. A key that holds a dot or a bracket
stands between quotes: ``result."a.b"``.
"""

from __future__ import annotations

import json
import re
from functools import lru_cache
from typing import TYPE_CHECKING, Any, NamedTuple

from .records import COLUMNS as ROW_COLUMNS

if TYPE_CHECKING:
    from collections.abc import Mapping

    from .records import Entry

COLUMNS = ('args', 'result')
"""The columns that hold JSON."""

MISSING: Any = type('Missing', (), {'__repr__': lambda self: 'MISSING', '__bool__': lambda self: False})()
"""What a path gives where nothing is there: that is not null."""

_STEP = re.compile(r'\.(?P<bare>[^."\[\]]+)|\."(?P<quoted>[^"]*)"|\[(?P<place>[0-9]{1,9})\]')
_PLAIN = re.compile(r'[^."\[\]]+').fullmatch
_NOT_IN_SQL = re.compile(r'["\\\x00-\x1f]')  # SQLite compares keys as they are written in JSON


class Path(NamedTuple):
    """A part of the args or of the result of a resource."""

    column: str
    steps: tuple[str | int, ...] = ()

    @property
    def text(self) -> str:
        """As people write it."""
        parts = (
            f'[{step}]' if isinstance(step, int) else f'.{step}' if _PLAIN(step) else f'."{step}"'
            for step in self.steps
        )
        return self.column + ''.join(parts)

    @property
    def in_sql(self) -> str:
        """As SQLite's JSON functions take it."""
        parts = (f'[{step}]' if isinstance(step, int) else f'."{step}"' for step in self.steps)
        return '$' + ''.join(parts)

    def within(self, value: Any) -> Any:
        """What is there in a value, `MISSING` where nothing is."""
        for step in self.steps:
            is_item = isinstance(step, int) and isinstance(value, list) and step < len(value)
            if not is_item and not (isinstance(step, str) and isinstance(value, dict) and step in value):
                return MISSING
            value = value[step]
        return value

    def of(self, entry: Entry, result: Any = MISSING) -> Any:
        """What is there in a row; ``result`` is used where it is given."""
        if self.column == 'result' and result is not MISSING:
            return self.within(result)
        cell = entry.raw(self.column)
        return MISSING if cell is None else self.within(entry[self.column])


def is_path(text: str) -> bool:
    """Is it meant as a part of args or result, rather than as the name of a column?"""
    return text.startswith(('args.', 'args[', 'result.', 'result['))


@lru_cache(maxsize=256)
def parse(text: str) -> Path:
    """Read a path. Raises ValueError where it is none, or names a key that SQL cannot ask for."""
    column = next(
        (name for name in COLUMNS if text == name or (is_path(text) and text.startswith(name))), None
    )
    if column is None:
        raise ValueError(f'{text!r} is no part of args or result: write for example result.score, or args.C')
    steps: list[str | int] = []
    place = len(column)
    while place < len(text):
        found = _STEP.match(text, place)
        if found is None:
            raise ValueError(
                f'{text!r} cannot be read from {text[place:]!r} on: write result.key, result.list[0], or'
                ' result."a key with a dot"'
            )
        steps.append(int(found['place']) if found['place'] else found['bare'] or found['quoted'] or '')
        place = found.end()
    return below(column, *steps)


def declared(columns: Mapping[str, str] | None) -> dict[str, str]:
    """The parts that a collection declares as columns, by name, as people write them. Raises ValueError."""
    found = {}
    for name, text in (columns or {}).items():
        if not isinstance(name, str) or not name.isidentifier() or name in ROW_COLUMNS:
            raise ValueError(f'columns takes names such as score, which no column has; {name!r} is none')
        path = parse(text) if isinstance(text, str) else None
        if path is None or not path.steps:
            raise ValueError(
                f'columns takes a part of args or results for {name}, such as result.score, not {text!r}'
            )
        found[name] = path.text
    return found


def below(column: str, *steps: str | int) -> Path:
    """The path of these keys and places. Raises ValueError for a key that SQL cannot ask for."""
    for step in steps:
        if isinstance(step, str) and _NOT_IN_SQL.search(step):
            raise ValueError(
                f'the key {json.dumps(step)} holds a quote, a backslash or a control character, and cannot be'
                f' asked for in SQL: go through `Project.results` and compare it in Python'
            )
    return Path(column, steps)


def leaves(column: str, value: Any) -> dict[str, Any]:
    """Parts of a value one level deep, by path: of a dict its items, of anything else the whole."""
    if not isinstance(value, dict):
        return {column: value}
    return {Path(column, (str(key),)).text: item for key, item in value.items()}
