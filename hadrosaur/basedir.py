"""The base directory of a project: where it is, what ``.hadrosaur/`` holds, and who is at work in it.

::

    base_directory/
        index.sqlite3          the index, visible so that SQL tools find it
        .hadrosaur/
            format.json        format of the directory, and what is locked (see `BaseDirectory.lock`)
            indexes/           where a machine has its index, if not here: one file each
            index.lock         shared by writers of the index, exclusive for its rebuilding
            cancel/            requests to whoever computes a resource, one file each
            sessions/          one locked file per calling process: a pending row belongs to a session,
                               and when the file's lock is free its process is gone
        <collection>/<ident>/  the resources, see directory.py

A base that cannot be written is read all the same: what fails to be made there is done without.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import os
import time
import weakref
from typing import TYPE_CHECKING, Any

from . import canonical, diskio
from .errors import BaseIsNotADirectory, ProjectError
from .locks import Guarded
from .records import format_time

if TYPE_CHECKING:
    from collections.abc import Callable

INDEX = 'index.sqlite3'
"""The index's file name."""
HIDDEN = '.hadrosaur'
"""The folder of what is not for people."""
FORMAT_FILE = 'format.json'
INDEX_LOCK = 'index.lock'
INDEXES = 'indexes'
SESSIONS = 'sessions'
CANCEL = 'cancel'
REQUEST_LIFE = 60.0  # seconds; then nobody is there to answer it
FORMAT = 1  # of the directory; a release refuses a number that it does not know

_READ_ONLY = (errno.EACCES, errno.EPERM, errno.EROFS)
HOST = os.uname().nodename
_THIS_MACHINE = canonical.folder_name(HOST or 'localhost')


class BaseDirectory(Guarded):
    """The base as the user wrote it, and as an absolute path from the first moment.

    Attributes:
        path: Absolute; a later chdir changes nothing.
        given: As the user wrote it, normalised; what returned paths start with.
    """

    def __init__(self, given: str | os.PathLike[str], path: str | None = None) -> None:
        super().__init__()
        self.given = os.path.normpath(os.fspath(given))
        self.path = path or os.path.abspath(self.given)
        self.hidden = f'{self.path}/{HIDDEN}'
        self._lock: str | None = None
        self._session: tuple[int, str, int] | None = None  # (process id, name, descriptor)
        self._forget: Callable[[], object] = lambda: None

    def make(self) -> None:
        """Make the folder. Raises BaseIsNotADirectory."""
        try:
            os.makedirs(self.path, exist_ok=True)
        except (FileExistsError, NotADirectoryError):
            raise BaseIsNotADirectory(
                f'the base {self.given!r} is a file, or lies below one',
                hint='give a path where a folder can be',
            )
        except OSError as error:
            raise BaseIsNotADirectory(f'the base {self.given!r} cannot be made: {error.strerror}')

    def collection_path(self, folder: str) -> str:
        """Absolute path of a collection's folder."""
        return f'{self.path}/{folder}'

    @property
    def index_path(self) -> str:
        """Where the index is, unless the user put it elsewhere."""
        return f'{self.path}/{INDEX}'

    def index_elsewhere(self) -> str | None:
        """Where this machine has the index, if the user put it elsewhere and it is still there.

        So that whoever opens the base without saying where, as the commands do, finds the same index.
        """
        try:
            with diskio.opened_below(self.hidden, INDEXES) as folder:
                path, _, base = os.fsdecode(diskio.read(_THIS_MACHINE, folder)).rstrip('\n').rpartition('\n')
            mine = base == str(os.stat(self.path).st_ino)  # a copy of the base has an index of its own
        except OSError:
            return None
        return path if mine and os.path.isabs(path) and os.path.isfile(path) else None

    def remember_index(self, path: str) -> None:
        """Note where this machine has the index; nothing is noted where the base cannot be written."""
        if path == (self.index_elsewhere() or self.index_path) or not self.prepare():
            return
        with contextlib.suppress(FileExistsError):
            os.mkdir(f'{self.hidden}/{INDEXES}')
        with diskio.opened_below(self.hidden, INDEXES) as folder:
            if path == self.index_path:
                diskio.remove(_THIS_MACHINE, folder)
            else:
                diskio.replace(_THIS_MACHINE, os.fsencode(f'{path}\n{os.stat(self.path).st_ino}\n'), folder)

    @property
    def index_lock_path(self) -> str:
        """The file that writers and the rebuilder of the index lock."""
        return f'{self.hidden}/{INDEX_LOCK}'

    @property
    def lock(self) -> str:
        """What is locked to claim a resource: 'folder', or 'file' where folders cannot be locked.

        Found out once and written into format.json, so that all who work here agree.
        """
        if self._lock is None:
            self._lock = self._format().get('lock', 'folder')
        return self._lock

    def _format(self) -> dict[str, Any]:
        try:
            found = json.loads(diskio.read_path(f'{self.hidden}/{FORMAT_FILE}'))
        except (OSError, ValueError):
            return self._make_format()
        if not isinstance(found, dict) or not isinstance(found.get('format'), int):
            return self._make_format()
        if found['format'] > FORMAT:
            raise ProjectError(
                f'{self.given!r} has directory format {found["format"]}; this release knows up to {FORMAT}',
                hint='pip install --upgrade hadrosaur',
            )
        return found

    def _make_format(self) -> dict[str, Any]:
        document = {'format': FORMAT, 'lock': 'folder'}
        if not self.prepare():
            return document
        with diskio.opened(self.hidden) as hidden:
            document['lock'] = 'folder' if diskio.can_lock(hidden) else 'file'
            diskio.replace(FORMAT_FILE, json.dumps(document).encode() + b'\n', hidden)
        return document

    def prepare(self) -> bool:
        """Make ``.hadrosaur/`` and what stands in it; False where the base cannot be written.

        Raises ProjectError where a symlink stands in its place.
        """
        if os.path.islink(self.hidden):
            raise ProjectError(
                f'{self.hidden} is a symlink, and none is followed inside a base', hint='remove it'
            )
        try:
            os.makedirs(f'{self.hidden}/{SESSIONS}', exist_ok=True)
        except OSError as error:
            if error.errno in _READ_ONLY:
                return False
            raise
        return os.access(self.hidden, os.W_OK)

    # Sessions.

    def session(self) -> str | None:
        """The name of this process's session, begun at the first call; None on a read-only base."""
        mine = self._session
        if mine is None or mine[0] != os.getpid():
            with self._guard:
                mine = self._session
                if mine is None or mine[0] != os.getpid():
                    mine = self._session = self._begin_session()
        return mine[1] if mine else None

    def _begin_session(self) -> tuple[int, str, int] | None:
        if not self.prepare():
            return None
        name = f'{HOST}-{os.getpid()}-{os.urandom(4).hex()}'
        about = {'host': HOST, 'pid': os.getpid(), 'since': format_time(time.time())}
        with diskio.opened(f'{self.hidden}/{SESSIONS}') as sessions:
            beside = f'.{name}.new'
            fd = diskio.create(beside, json.dumps(about).encode() + b'\n', sessions)
            diskio.try_lock(fd)
            # Renamed only when locked: a session file whose lock is free is always one of the dead.
            os.rename(beside, name, src_dir_fd=sessions, dst_dir_fd=sessions)
            for other in os.listdir(f'{self.hidden}/{SESSIONS}'):  # programs seldom say that they end
                if other.startswith(f'{HOST}-') and other != name and not diskio.is_locked(other, sessions):
                    diskio.remove(other, sessions)
        # Many a program makes a Project in passing, and never closes it.
        end = weakref.finalize(self, _end_session, self.hidden, os.getpid(), name, fd)
        end.atexit = False  # background work may have to be waited for; the file's lock ends with us
        self._forget = end
        return (os.getpid(), name, fd)

    def end_session(self) -> None:
        """Give the session up; its file goes."""
        self._session = None
        self._forget()

    def is_alive(self, session: str | None) -> bool:
        """Is the process of that session still there?"""
        if session is None:
            return False
        mine = self._session
        if mine and mine[:2] == (os.getpid(), session):
            return True
        try:
            with diskio.opened(f'{self.hidden}/{SESSIONS}', diskio.LOOK) as sessions:
                return diskio.is_locked(session, sessions)
        except FileNotFoundError:
            return False
        except OSError:  # one that cannot be looked at may well be alive
            return True

    def drop_session(self, session: str) -> None:
        """Remove the file of a session that is over."""
        _drop_session(self.hidden, session)


def _drop_session(hidden: str, session: str) -> None:
    with contextlib.suppress(OSError), diskio.opened(f'{hidden}/{SESSIONS}', diskio.LOOK) as sessions:
        diskio.remove(session, sessions)


def _end_session(hidden: str, process: int, name: str, fd: int) -> None:
    if os.getpid() == process:  # a forked child has closed its copy
        _drop_session(hidden, name)
        diskio.unlock(fd)


# Requests to cancel. Whoever computes a resource, in another process or on another machine, looks into
# this folder once a second; a file names the resource's directory relative to the base.


def request_cancel(base: str, path: str, queued_at: str) -> None:
    """Ask whoever computes the resource in ``path`` to cancel the run that was queued then."""
    os.makedirs(f'{base}/{HIDDEN}/{CANCEL}', exist_ok=True)
    with diskio.opened_below(f'{base}/{HIDDEN}', CANCEL) as folder:
        diskio.replace(_request_name(path), f'{path}\n{queued_at}'.encode(), folder)


def cancel_requests(base: str) -> set[tuple[str, str]]:
    """Which runs somebody wants cancelled: (directory relative to the base, when it was queued)."""
    wanted = set()
    nothing = contextlib.suppress(OSError, UnicodeDecodeError)  # none was ever made, or is just answered
    with nothing, diskio.opened_below(f'{base}/{HIDDEN}', CANCEL) as folder:
        for name in os.listdir(f'{base}/{HIDDEN}/{CANCEL}'):
            made = os.stat(name, dir_fd=folder, follow_symlinks=False).st_mtime
            if name[0] != '.':
                path, _, queued_at = diskio.read(name, folder).decode().rpartition('\n')
                wanted.add((path, queued_at))
            if time.time() - made > REQUEST_LIFE:
                diskio.remove(name, folder)
    return wanted


def drop_cancel_request(base: str, path: str) -> None:
    """The request was answered, or there is nobody to answer it."""
    with contextlib.suppress(OSError), diskio.opened_below(f'{base}/{HIDDEN}', CANCEL) as folder:
        diskio.remove(_request_name(path), folder)


def _request_name(path: str) -> str:
    return hashlib.blake2b(path.encode(), digest_size=16).hexdigest()
