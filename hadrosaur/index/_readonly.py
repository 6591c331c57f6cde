"""Reading an index that cannot be written: a read-only disk, no permission, no space.

SQLite wants to write even where it only reads: a database in WAL mode has a shared -shm file. So there
are five ways, tried in turn: read the file as it is (its -shm exists); read it as one
that nobody changes (no -wal, or an empty one); copy both to a temporary folder and read there; build
an index from the directories in a temporary folder; build it in memory.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import sqlite3
import tempfile
import time
import weakref
from types import MappingProxyType
from typing import TYPE_CHECKING

from .. import fileops
from ..errors import IndexBusy, warn
from ..records import COLUMNS
from ._connection import MEMORY, PooledConnection, configure, connect, contents, main_inode, uri_of
from ._fork_guard import fork_guard
from ._rebuild import build
from ._validate import OpenProblem, is_unreachable, open_good, told

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Mapping

    from ..records import Entry
    from ._connection import FileSignature
    from ._validate import Place

YOUNG = 60.0
"""Seconds that a temporary folder may be old before it has to be locked."""

PREFIX = 'hadrosaur-index-'
"""What the names of temporary folders begin with."""

TRIES = 3
"""How often a copy is begun again because the index was written meanwhile."""


class ReadOnlyFile:
    """Opens an index for reading, and never writes into its folder.

    Attributes:
        dead: Sessions whose pending rows are shown as interrupted.
        instead: Rows that are shown instead of what is stored, by key; None: no row.
    """

    def __init__(self, place: Place, fill: Callable[[str], None] | None) -> None:
        self._path = place.path
        self._place = place
        self._fill = fill
        self._distrusted: FileSignature | None = None  # the contents of an index that proved damaged
        self._stand_in: tuple[str, str, FileSignature] | None = None  # path, kind, of which contents
        self._memory: sqlite3.Connection | None = None  # keeps what is nowhere but in memory
        self.dead: Collection[str | None] = ()
        self.instead: Mapping[tuple[str, str], Entry | None] = {}

    def open(self) -> PooledConnection:
        """A connection that reads; what it reads from depends on what can be read."""
        pooled = self._open()
        self.adapt(pooled)
        return pooled

    def adapt(self, pooled: PooledConnection) -> None:
        """Have a connection show what is to be shown instead of what is stored."""
        if self.dead or self.instead:
            with fork_guard:
                show_otherwise(pooled.driver, self.dead, self.instead)

    def _open(self) -> PooledConnection:
        if self._place.look() or contents(self._path) == self._distrusted:
            return self._open_built()
        try:
            outcome = self._open_itself()
        except (PermissionError, sqlite3.Error) as fault:
            raise told(fault, self._path, 'check permissions')
        except OSError:  # no room for a copy of index and -wal: the directories are there
            return self._open_built()
        if isinstance(outcome, PooledConnection):
            return outcome
        if outcome.kind == 'damaged':
            self.mark_corrupt(outcome.detail)
        return self._open_built()

    def _open_itself(self) -> PooledConnection | OpenProblem:
        path = self._path
        # SQLite would make a -shm where it can, which is then in the way of whoever owns the index.
        if os.path.exists(f'{path}-shm') or not os.access(os.path.dirname(path), os.W_OK):
            try:
                return open_good(path, 'ro', self._place, lambda: main_inode(path))
            except sqlite3.Error as fault:
                if not is_unreachable(fault):
                    raise
        if not any(contents(path)[1][2:3]):  # its size
            return open_good(path, 'immutable', self._place, lambda: contents(path))
        return open_good(self._copied(), 'rw', self._place, lambda: contents(path))

    def mark_corrupt(self, reason: str) -> None:
        """The index proved damaged: read from one that is built for the moment, until it changes."""
        self._distrusted = contents(self._path)
        warn(
            f'{self._path} is damaged ({reason}) and cannot be replaced here; '
            'the directories are read instead',
        )

    def _copied(self) -> str:
        for _ in range(TRIES):
            before = contents(self._path)
            if self._stand_in is not None and self._stand_in[1:] == ('copy', before):
                return self._stand_in[0]
            copy = self._new_stand_in()
            for side in ('', '-wal'):
                shutil.copyfile(self._path + side, copy + side)
            if contents(self._path) == before:
                self._stand_in = (copy, 'copy', before)
                return copy
        raise IndexBusy(f'{self._path} is written faster than it can be copied', hint='try again')

    def _open_built(self) -> PooledConnection:
        path, source = self._path, contents(self._path)
        if self._stand_in is None or self._stand_in[1:] != ('built', source):
            try:
                built = self._new_stand_in()
                build(built, self._fill)
            except (OSError, sqlite3.Error) as fault:
                if isinstance(fault, sqlite3.Error) and not is_unreachable(fault):
                    raise told(fault, path, 'try again')
                built = self._built_in_memory()
            self._stand_in = (built, 'built', source)
        try:
            driver = connect(self._stand_in[0], 'rw')
            configure(driver)
        except sqlite3.Error as fault:
            raise told(fault, self._stand_in[0], 'check permissions and space')
        return PooledConnection(driver, lambda: contents(path))

    def _built_in_memory(self) -> str:
        """Where neither the base nor a temporary folder can be written: shared by all our connections."""
        name = f'{MEMORY}hadrosaur-{os.getpid()}-{os.urandom(4).hex()}'
        with fork_guard:
            self._memory = sqlite3.connect(uri_of(name, 'rw'), uri=True, check_same_thread=False)
        try:
            build(name, self._fill)
        except (OSError, sqlite3.Error) as fault:
            raise told(fault, self._path, 'nothing can be written, here or in the temporary folder')
        return name

    def _new_stand_in(self) -> str:
        _sweep(tempfile.gettempdir())
        folder = tempfile.mkdtemp(prefix=PREFIX)
        lock = os.open(folder, fileops.FOLDER)  # as long as it is locked, its maker is there
        fileops.try_lock(lock)
        weakref.finalize(self, _remove, folder, os.getpid(), lock)
        return os.path.join(folder, os.path.basename(self._path))


def _remove(folder: str, pid: int, lock: int) -> None:
    if os.getpid() == pid:  # a forked child leaves it to its maker
        shutil.rmtree(folder, ignore_errors=True)
        fileops.unlock(lock)


def _sweep(place: str) -> None:
    """Remove temporary folders of ours whose makers were killed."""
    with contextlib.suppress(OSError):
        for name in os.listdir(place):
            if name.startswith(PREFIX):
                with contextlib.suppress(OSError):
                    _remove_if_left(f'{place}/{name}')


def _remove_if_left(folder: str) -> None:
    lock = os.open(folder, fileops.FOLDER)
    try:
        status = os.fstat(lock)
        is_old = time.time() - status.st_mtime > YOUNG  # else its maker may be about to lock it
        if status.st_uid == os.geteuid() and is_old and fileops.try_lock(lock):
            shutil.rmtree(folder, ignore_errors=True)
    finally:
        fileops.unlock(lock)


_INTERRUPTED = {
    'status': "'error'",
    'phase': 'NULL',
    'error_type': "'Interrupted'",
    'error': "'the process that asked for it is gone'",
    'session': 'NULL',
}


def show_otherwise(
    driver: sqlite3.Connection,
    dead: Collection[str | None],
    instead: Mapping[tuple[str, str], Entry | None] = MappingProxyType({}),
) -> None:
    """On this connection, show rows as they would be if they could be written.

    Pending rows of dead sessions as what recovery would make of them, and some rows instead of what is
    stored. A temporary view of the table's name stands before the table itself.
    """
    names = ', '.join(COLUMNS)
    driver.execute('CREATE TEMP TABLE hadrosaur_dead (session)')
    driver.executemany('INSERT INTO temp.hadrosaur_dead VALUES (?)', [(session,) for session in dead])
    driver.execute(f'CREATE TEMP TABLE hadrosaur_instead ({names}, PRIMARY KEY (collection, ident))')
    blank = (None,) * (len(COLUMNS) - 2)
    rows = [
        (*key, *blank) if entry is None else tuple(entry)[: len(COLUMNS)] for key, entry in instead.items()
    ]
    places = ', '.join('?' * len(COLUMNS))
    driver.executemany(f'INSERT INTO temp.hadrosaur_instead VALUES ({places})', rows)
    is_dead = (
        "stored.status = 'pending' AND EXISTS"
        ' (SELECT 1 FROM temp.hadrosaur_dead AS d WHERE d.session IS stored.session)'
    )
    cells = ', '.join(
        f'CASE WHEN {is_dead} THEN {_INTERRUPTED[name]} ELSE stored.{name} END AS {name}'
        if name in _INTERRUPTED
        else f'stored.{name} AS {name}'
        for name in COLUMNS
    )
    driver.execute(
        f'CREATE TEMP VIEW resources AS SELECT {cells}, stored.rowid AS rowid'
        ' FROM main.resources AS stored WHERE NOT EXISTS ('
        'SELECT 1 FROM temp.hadrosaur_instead AS i'
        ' WHERE i.collection = stored.collection AND i.ident = stored.ident)'
        f' UNION ALL SELECT {names}, -rowid FROM temp.hadrosaur_instead WHERE status IS NOT NULL'
    )
    driver.execute(
        'CREATE TEMP VIEW uses AS SELECT collection, ident, used_collection, used_ident, run'
        ' FROM main.uses AS stored WHERE NOT EXISTS ('
        'SELECT 1 FROM temp.hadrosaur_instead AS i'
        ' WHERE i.collection = stored.collection AND i.ident = stored.ident)'
        " UNION ALL SELECT collection, ident, json_extract(value, '$[0]'), json_extract(value, '$[1]'),"
        " json_extract(value, '$[2]') FROM temp.hadrosaur_instead, json_each(uses)"
        " WHERE status <> 'pending'"
    )
