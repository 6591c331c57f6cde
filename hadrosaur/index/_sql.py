"""SQL of the user's own: it reads, for a limited time, and does nothing else."""

from __future__ import annotations

import contextlib
import sqlite3
import time
from typing import TYPE_CHECKING, Any

from ..errors import HadrosaurError
from ._validate import FAULTS, is_damage_of_the_file

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

SECONDS = 30.0
"""How long a statement may run, unless its caller says otherwise."""

_STEPS = 10_000
"""SQLite's steps between two looks at the clock: well under a millisecond."""

LONGEST_VALUE = 100_000_000
"""Bytes of one value, so that nobody fills the memory with `zeroblob`."""

_ACTIONS = frozenset({sqlite3.SQLITE_SELECT, sqlite3.SQLITE_READ, sqlite3.SQLITE_RECURSIVE})
_PRAGMAS = frozenset(
    {
        'application_id', 'collation_list', 'compile_options', 'database_list', 'encoding',
        'foreign_key_list', 'freelist_count', 'function_list', 'index_info', 'index_list', 'index_xinfo',
        'integrity_check', 'journal_mode', 'page_count', 'page_size', 'quick_check', 'schema_version',
        'table_info', 'table_list', 'table_xinfo', 'user_version',
    }
)  # fmt: skip
"""PRAGMAs that tell and do not change."""

_WITH_ARGUMENT = frozenset(name for name in _PRAGMAS if name.endswith(('_info', '_xinfo', '_list', '_check')))
"""Those that may be given an argument: a table, an index, a number of complaints."""


_TABLES = ('json_each', 'json_tree', *(f'pragma_{name}' for name in sorted(_PRAGMAS)))
"""Tables that SQLite makes when they are first named, which the authorizer would take for writing."""


CHUNK = 1000
"""Rows that are read at a time."""


def ask(
    driver: sqlite3.Connection, query: str, values: Sequence[Any] | Mapping[str, Any], seconds: float
) -> Iterator[list[dict[str, Any]]]:
    """Lists of rows as dicts; a name that occurs twice gets a number. Time between two lists does not count.

    Raises:
        HadrosaurError: It is no SQL, it would write, or it takes too long.
    """
    for table in _TABLES:
        with contextlib.suppress(sqlite3.Error):  # not every release has all of them
            driver.execute(f'SELECT 1 FROM {table} LIMIT 0')
    driver.execute('PRAGMA query_only = ON')
    driver.setlimit(sqlite3.SQLITE_LIMIT_LENGTH, LONGEST_VALUE)
    driver.set_authorizer(_authorize)
    left, deadline = seconds, time.monotonic() + seconds
    driver.set_progress_handler(lambda: time.monotonic() > deadline, _STEPS)
    try:
        cursor = driver.execute(query, values)
        names = _distinct([column[0] for column in cursor.description or ()])
        while rows := cursor.fetchmany(CHUNK):
            left = deadline - time.monotonic()
            yield [dict(zip(names, row, strict=True)) for row in rows]
            deadline = time.monotonic() + left
    except (sqlite3.Error, sqlite3.Warning, ValueError, TypeError, OverflowError) as fault:
        if isinstance(fault, FAULTS) and is_damage_of_the_file(fault):
            raise
        if time.monotonic() > deadline:
            raise HadrosaurError(f'the statement was stopped after {seconds:g} seconds', hint='ask for less')
        is_denied = any(
            word in str(fault) for word in ('readonly', 'read-only', 'not authorized', 'prohibited')
        )
        hint = 'only reading is allowed' if is_denied else ''
        raise HadrosaurError(f'SQLite refuses the statement: {fault}', hint=hint)


def _authorize(action: int, first: str | None, second: str | None, *_where: str | None) -> int:
    if action in _ACTIONS:
        return sqlite3.SQLITE_OK
    if action == sqlite3.SQLITE_FUNCTION:
        return sqlite3.SQLITE_DENY if second == 'load_extension' else sqlite3.SQLITE_OK
    if action == sqlite3.SQLITE_PRAGMA and _only_tells((first or '').lower(), second):
        return sqlite3.SQLITE_OK
    return sqlite3.SQLITE_DENY


def _only_tells(pragma: str, argument: str | None) -> bool:
    return pragma in _WITH_ARGUMENT or (pragma in _PRAGMAS and not argument)


def _distinct(names: list[str]) -> list[str]:
    taken: list[str] = []
    for name in names:
        free, number = name, 1
        while free in taken:
            number += 1
            free = f'{name}:{number}'
        taken.append(free)
    return taken
