"""Making an index file, and putting it in the place of another.

A new index is built beside, whole, and renamed into place as the last act. What stood there goes
first, the file before its -wal: an old -wal must never meet the new file, and a file that lost its
-wal must never look whole. Cut off anywhere, there is the old index, the new one, or none; and none
is built again.
"""

from __future__ import annotations

import contextlib
import os
import time
from typing import TYPE_CHECKING

from .. import schema
from ..errors import IndexFault
from ._connection import MEMORY, PARTS, opened, transaction

if TYPE_CHECKING:
    from collections.abc import Callable

_LONGEST = 512  # bytes of a path, SQLITE_MAX_PATHNAME of its Unix VFS


def build(path: str, fill: Callable[[str], None] | None, number: int = 0) -> None:
    """Make an index at ``path`` and fill it; whole or not at all.

    ``number`` is the one by which it is its base's.
    """
    if path.startswith(MEMORY):
        _make_tables(path, number)
        if fill is not None:
            fill(path)
        return
    delete(path)
    try:
        # Else SQLite makes it, and leaves a group out that the umask lets in.
        os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o666))
        _make_tables(path, number)
        if fill is not None:
            fill(path)
        _recover(path)
    except BaseException:
        delete(path)
        raise


def _make_tables(path: str, number: int) -> None:
    with opened(path, 'rw') as driver:
        driver.execute('PRAGMA journal_mode = WAL')
        with transaction(driver):
            schema.create(driver.execute)
            driver.execute(f'PRAGMA user_version = {number}')


def _recover(path: str) -> None:
    """Bring all that the -wal holds into the file itself, and have no -wal."""
    with opened(path, 'rw') as driver:
        driver.execute('PRAGMA wal_checkpoint(TRUNCATE)')
    if os.path.exists(path + '-wal'):
        raise IndexFault(f'the new index {path} is still in use by what filled it')


def place(new: str, path: str, *, quarantine: str | None) -> None:
    """Put the new index where the old one is; the old one is renamed to ``aside``, or deleted."""
    for part in PARTS:
        with contextlib.suppress(FileNotFoundError):
            if quarantine is None:
                os.unlink(path + part)
            else:
                os.rename(path + part, quarantine + part)
    os.replace(new, path)


def delete(path: str) -> None:
    """Delete an index file and what belongs to it."""
    for part in PARTS:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(path + part)


def sweep(path: str) -> None:
    """Delete what a rebuilding that was killed has left; whoever rebuilds now must be kept out."""
    with contextlib.suppress(OSError):
        delete(workplace(path))


def workplace(path: str) -> str:
    """Where the new index is built: beside the old one.

    Not in ``.hadrosaur/``: SQLite goes by paths, and would follow a link that is put in its place meanwhile.
    """
    folder, name = os.path.split(path)
    return os.path.join(folder, f'.{name}.new')


def is_too_long(path: str) -> bool:
    """Is the path one that SQLite refuses, with what it appends to it?"""
    return len(os.fsencode(path)) + len('-journal') > _LONGEST


def quarantine(path: str, why: str) -> str:
    """A free name for an index that is set aside: ``index.sqlite3.damaged-20260131T180000``."""
    name = f'{path}.{why}-{time.strftime("%Y%m%dT%H%M%S", time.gmtime())}'
    number = 1
    free = name
    while os.path.lexists(free):
        number += 1
        free = f'{name}-{number}'
    return free
