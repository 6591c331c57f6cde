"""Bring an index file to this release's revision: the only door to Alembic.

Alembic is imported only when the stored revision is not the present one, which is seldom. An upgrade
is one transaction: it happens, or nothing does.

Two events on the engine below, and nowhere else, make that true with Python's sqlite3. By itself the
driver begins a transaction too late (not before DDL) and as a reader, so that of eight processes that
bring one file to head 33 of 80 attempts failed, and a revision that failed half way left its first half
behind. With autocommit on connect and BEGIN IMMEDIATE on begin it was 0 of 80, and failures left no
trace (SQLAlchemy's page on the pysqlite dialect describes both events).
"""

from __future__ import annotations

import os
import sqlite3
import stat
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from .errors import IndexFault, NotOurIndex, UpgradeFailed

if TYPE_CHECKING:
    from sqlalchemy import Engine

BUSY_SECONDS = 60.0  # to wait for another process's transaction, as the index does


def find_migrations() -> Path:
    """Return the folder of revisions: in the package (a wheel) or beside it (a checkout).

    Raises UpgradeFailed if there is none.
    """
    package = Path(__file__).parent
    for folder in (package / 'migrations', package.parent / 'migrations'):
        if (folder / 'env.py').is_file():
            return folder
    raise UpgradeFailed(
        f'no migrations beside {package}', hint='reinstall hadrosaur, or hadrosaur reindex BASE --fresh'
    )


def stored_revision(path: str | Path) -> str | None:
    """Return the revision of an index file, None if it has none; changes nothing.

    Raises IndexFault if it is not a file or cannot be read.
    """
    is_whole = True  # without what waits in another file
    modes = ['mode=ro', 'immutable=1']  # the second where SQLite may not make its -shm
    for part in ('', '-wal', '-shm', '-journal'):  # SQLite waits for a FIFO, and follows a link
        beside = os.fsdecode(path) + part
        if os.path.lexists(beside):
            found = os.lstat(beside)
            if not stat.S_ISREG(found.st_mode):
                raise NotOurIndex(f'{beside} is not a regular file', hint='move it away')
            if found.st_nlink > 1:  # a reader writes into -shm
                modes = ['immutable=1']
            if found.st_size and part in ('-wal', '-journal'):
                is_whole = False
    if is_whole:  # else a reader of somebody's file leaves a -wal and a -shm beside it
        modes = ['immutable=1']
    for mode in modes:
        uri = f'file:{quote(os.fsencode(path))}?{mode}'
        try:
            with closing(sqlite3.connect(uri, uri=True, timeout=BUSY_SECONDS)) as connection:
                row = connection.execute('SELECT version_num FROM alembic_version').fetchone()
        except sqlite3.OperationalError:
            continue
        except (sqlite3.Error, UnicodeDecodeError) as error:
            hint = 'hadrosaur reindex BASE --fresh builds a new one'
            raise IndexFault(f'{path} is no index, or a damaged one: {error}', hint=hint) from error
        return str(row[0]) if row else None
    return None


def upgrade_index(path: str | Path, stored: str | None = None, *, migrations: Path | None = None) -> None:
    """Upgrade an index file to the latest revision, in one transaction.

    Args:
        path: The index file.
        stored: Its revision, for the message.
        migrations: The folder of revisions, if not our own.

    Raises:
        UpgradeFailed: The upgrade failed; the file is unchanged.
    """
    from alembic import command
    from alembic.config import Config

    config = Config()
    config.set_main_option('script_location', str(migrations or find_migrations()).replace('%', '%%'))
    engine = make_engine(path)
    try:
        with engine.connect() as connection:
            config.attributes['connection'] = connection
            command.upgrade(config, 'head')
    except Exception as error:  # revisions run any SQL, and Alembic has errors of its own for each step
        raise UpgradeFailed(
            f'{path} could not be brought from revision {stored} to this release: {error}',
            hint='it is as it was; hadrosaur reindex BASE --fresh builds a new one',
        ) from error
    finally:
        engine.dispose()


def make_engine(path: str | Path) -> Engine:
    """Create an engine whose transactions start at BEGIN, cover DDL, and lock for writing at once."""
    from sqlalchemy import URL, create_engine, event
    from sqlalchemy.pool import NullPool

    engine = create_engine(
        URL.create('sqlite', database=str(Path(path).absolute())),
        poolclass=NullPool,
        connect_args={'timeout': BUSY_SECONDS},
    )

    @event.listens_for(engine, 'connect')
    def autocommit(connection: Any, _record: Any) -> None:
        connection.isolation_level = None

    @event.listens_for(engine, 'begin')
    def begin_immediate(connection: Any) -> None:
        connection.exec_driver_sql('BEGIN IMMEDIATE')

    return engine
