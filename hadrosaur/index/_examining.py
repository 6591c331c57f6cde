"""What is in a file that should be an index, and what SQLite's refusals mean."""

from __future__ import annotations

import os
import sqlite3
import stat
from typing import NamedTuple

from ..errors import IndexTooNew, NotOurIndex
from ._connection import SIDES

Fault = sqlite3.Error | UnicodeDecodeError
FAULTS = (sqlite3.Error, UnicodeDecodeError)
"""What the driver raises; the second where SQLite's own message quotes bytes of the file that are no text."""

# SQLite's result codes (https://sqlite.org/rescode.html): the low byte is the kind, the rest refines it.
_DAMAGE = frozenset({sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_IOERR_SHORT_READ})
_BUSY = frozenset({sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED, sqlite3.SQLITE_PROTOCOL})
_UNREACHABLE = frozenset(
    {
        sqlite3.SQLITE_CANTOPEN,
        sqlite3.SQLITE_READONLY,
        sqlite3.SQLITE_PERM,
        sqlite3.SQLITE_FULL,
        sqlite3.SQLITE_IOERR,
    }
)
_CHANGED = ('no such table', 'no such column', 'has no column', 'Could not decode')
"""What SQLite and the driver say of tables and text that hadrosaur did not write."""


class Trouble(NamedTuple):
    """Why an index cannot be opened as it is.

    ``kind`` is ``missing``, ``damaged``, ``old`` (``detail`` is the revision), ``not wal``, or ``moved``:
    the files are no longer those that were looked at.
    """

    kind: str
    detail: str = ''


def is_missing(path: str) -> bool:
    """Whether there is no index, or an empty file in its place.

    Raises:
        NotOurIndex: There is something else than a file; links are not followed.
    """
    size = 0
    for side in SIDES:
        try:
            found = os.lstat(path + side)
        except FileNotFoundError:
            continue
        if not stat.S_ISREG(found.st_mode):
            raise NotOurIndex(f'{path + side} is not a regular file', hint='move it away')
        size = found.st_size if side == '' else size
    return size == 0


def examine(driver: sqlite3.Connection, path: str, remedy: str) -> Trouble | None:
    """Read enough of an open file to know whose it is, and which revision.

    Raises:
        NotOurIndex: Another program made it.
        IndexTooNew: A newer release made it.
    """
    from ..schema import APPLICATION_ID, HEAD, REVISIONS

    (application,) = driver.execute('PRAGMA application_id').fetchone()
    tables = {name for (name,) in driver.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
    if application != APPLICATION_ID:
        if application == 0 and not tables:
            return Trouble('missing')
        raise NotOurIndex(f'{path} is an SQLite file of another program; it was left as it is', hint=remedy)
    if not tables >= {'resources', 'alembic_version'}:
        return Trouble('damaged', 'its tables are missing')
    stored = [revision for (revision,) in driver.execute('SELECT version_num FROM alembic_version')]
    if len(stored) != 1:
        return Trouble('damaged', 'its revision is missing')
    if stored[0] not in REVISIONS:
        raise IndexTooNew(
            f'{path} has revision {stored[0]!r}; this release of hadrosaur knows {HEAD!r} and older. '
            'It was left as it is',
            hint=f'install a newer hadrosaur, or {remedy}',
        )
    return None if stored[0] == HEAD else Trouble('old', stored[0])


def _code(fault: Fault) -> int:
    return int(getattr(fault, 'sqlite_errorcode', None) or 0)


def is_damage(fault: Fault) -> bool:
    """Whether the file holds what neither SQLite nor hadrosaur put there."""
    if isinstance(fault, UnicodeDecodeError):
        return True
    code = _code(fault)
    return bool({code, code & 0xFF} & _DAMAGE) or any(words in str(fault) for words in _CHANGED)


def is_busy(fault: Fault) -> bool:
    """Whether somebody else kept the lock."""
    return _code(fault) & 0xFF in _BUSY


def is_unreachable(fault: Fault) -> bool:
    """Whether the file system refuses: no permission, no space, no medium."""
    return _code(fault) & 0xFF in _UNREACHABLE


def is_moved(fault: Fault) -> bool:
    """Whether the file was renamed or deleted under the connection."""
    return _code(fault) == sqlite3.SQLITE_READONLY_DBMOVED
