"""The base directory of a project: its path, the files in ``.hadrosaur/``, and sessions.

::

    base_directory/
        index.sqlite3          the index, visible so that SQL tools find it
        .hadrosaur/
            format.json        format version, what is locked (see `BaseDirectory.lock`), and the number
                               by which an index of this base is recognised (`BaseDirectory.identity`)
            indexes/           where a machine keeps its index if not here, one file per machine
            index.lock         shared by writers of the index, exclusive for rebuilding it
            cancel/            cancel requests, one file each
            sessions/          one locked file per calling process. A pending row belongs to a session; if
                               the file's lock is free, the process is dead. A second name that ends in
                               .unwritten means that rows of the session are missing in the index
        <collection>/<ident>/  the resources, see directory/

A base that cannot be written can still be read; files that cannot be created there are left out.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import os
import re
import stat
import time
import weakref
from typing import TYPE_CHECKING, Any

from . import canonical, fileops, json_paths, mounts, private_files
from .errors import BaseIsNotADirectory, BaseUnusable
from .locks import Guarded
from .records import NO_FACTS, Facts, format_time

if TYPE_CHECKING:
    from collections.abc import Callable

INDEX = 'index.sqlite3'
"""The index's file name."""
HIDDEN = '.hadrosaur'
"""The folder of what is not for people."""
FORMAT_FILE = 'format.json'
_TRIES = 5  # to write it while sessions begin, which sweep up what was left of writing it
INDEX_LOCK = 'index.lock'
INDEXES = 'indexes'
SESSIONS = 'sessions'
UNWRITTEN = '.unwritten'  # ends the name of a session's mark that rows of it are not in the index
CANCEL = 'cancel'
REQUEST_LIFE = 60.0  # seconds that we have seen a request; then nobody is there to answer it
FORMAT = 1  # of the directory; a release refuses a number that it does not know

LOCKS = ('folder', 'file')

_READ_ONLY = (errno.EACCES, errno.EPERM, errno.EROFS, *private_files.FULL)
HOST = os.uname().nodename
_THIS_MACHINE = canonical.folder_name(HOST or 'localhost')
_SESSION = re.compile(r'([^/\0]{1,200})-(\d{1,20})-[0-9a-f]{8}')
"""The name of a session: host, process id, and what makes it unique. A host's name may hold a hyphen."""
_UNFINISHED = re.compile(r'\.[^/\0]+\.new')
"""What is renamed once it is whole; it stays where whoever wrote it was killed."""


class BaseDirectory(Guarded):
    """The base as the user gave it, and its absolute path.

    Attributes:
        path: Absolute path, fixed at creation, so that a later chdir changes nothing.
        given: The path as given, normalised; returned paths start with it.
        registered: By collection registered in this program, what makes its resources stale.
    """

    def __init__(self, given: str | os.PathLike[str], path: str | None = None) -> None:
        super().__init__()
        self.given = os.path.normpath(os.fspath(given))
        self.path = path or os.path.abspath(self.given)
        self.hidden = f'{self.path}/{HIDDEN}'
        self._lock: str | None = None
        self._session: tuple[int, str, int] | None = None  # (process id, name, descriptor)
        self._forget: Callable[[], object] = lambda: None
        self.registered: dict[str, Facts] = {}
        self._declared: dict[str, Facts] | None = None  # as format.json has it

    def make(self) -> None:
        """Create the base directory. Raises BaseIsNotADirectory."""
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
        """Path of the index, unless the user put it elsewhere."""
        return f'{self.path}/{INDEX}'

    def index_elsewhere(self) -> str | None:
        """Path of this machine's index if the user put it outside the base and it still exists, else None.

        It lets programs that do not give the path, such as the commands, find the same index. The note is
        trusted only if we or the owner of the base wrote it.
        """
        try:
            base = os.stat(self.path)
            with fileops.opened_below(self.hidden, INDEXES) as folder:
                note, owner = private_files.read_note(_THIS_MACHINE, folder)
            if owner not in (os.geteuid(), base.st_uid):
                return None
            path, _, of = os.fsdecode(note).rstrip('\n').rpartition('\n')
            mine = of == str(base.st_ino)  # a copy of the base has an index of its own
            is_there = mine and os.path.isabs(path) and stat.S_ISREG(os.lstat(path).st_mode)
        except (OSError, ValueError):
            return None
        return path if is_there else None

    def remember_index(self, path: str) -> None:
        """Note where this machine's index is; does nothing if the base cannot be written."""
        if path == (self.index_elsewhere() or self.index_path) or not self.prepare():
            return
        with private_files.own_folder(self.path, HIDDEN, INDEXES, make=True) as folder:
            if path == self.index_path:
                fileops.remove(_THIS_MACHINE, folder)
            else:
                note = os.fsencode(f'{path}\n{os.stat(self.path).st_ino}\n')
                with (
                    private_files.as_project_error(f'{self.hidden}/{INDEXES}/{_THIS_MACHINE}'),
                    private_files.where_there_is_space(),
                ):
                    fileops.replace(_THIS_MACHINE, note, folder)

    @property
    def index_lock_path(self) -> str:
        """Path of the lock file for writing and rebuilding the index."""
        return f'{self.hidden}/{INDEX_LOCK}'

    @property
    def lock(self) -> str:
        """What is locked to claim a resource: 'folder', or 'file' (a file in it, and the folder as well).

        NFS, Lustre and FUSE keep the lock of a folder on the machine that took it, although taking it
        succeeds; locks of files are shared. So a file is locked wherever the disk is not known to be local.
        The choice is stored in format.json, so that all processes agree. A 'folder' that an older release
        stored on such a disk is corrected. That is safe while processes with the old value are running: they
        lock the folder, as everybody on their machine does, and other machines never saw their locks.
        """
        if self._lock is None:
            found = self._format()
            if found['lock'] == LOCKS[0] and not self._is_on_local_disk():
                found = {**found, 'lock': LOCKS[1]}
                self._write_format(found)
            self._lock = found['lock']
        return self._lock

    def columns(self) -> dict[str, dict[str, str]]:
        """By collection, the parts of args and results that are declared as columns."""
        found = (self._read_format() or {}).get('columns')
        columns: dict[str, dict[str, str]] = {}
        for name, named in found.items() if isinstance(found, dict) else ():
            with contextlib.suppress(ValueError, AttributeError):  # written by hand
                columns[name] = json_paths.declared(named)
        return columns

    def facts(self) -> dict[str, Facts]:
        """By collection, what makes its resources stale: as registered here, else as last declared."""
        if self._declared is None:
            self._declared = self._read_facts()
        return {**self._declared, **self.registered}

    def _read_facts(self) -> dict[str, Facts]:
        found = (self._read_format() or {}).get('facts')
        facts: dict[str, Facts] = {}
        for name, cells in found.items() if isinstance(found, dict) else ():
            version, seconds = cells if isinstance(cells, list) and len(cells) == 2 else (None, None)
            is_number = isinstance(seconds, (int, float)) and not isinstance(seconds, bool)
            facts[name] = Facts(version if isinstance(version, str) else None, seconds if is_number else None)
        return facts

    def declare(self, columns: dict[str, dict[str, str]]) -> dict[str, dict[str, str]]:
        """Store what the collections registered here declare; returns the columns of all collections."""
        before, known = self.columns(), self._read_facts()
        after = {name: named for name, named in {**before, **columns}.items() if named}
        facts = {
            **known,
            **{name: each._replace(recomputes=frozenset()) for name, each in self.registered.items()},
        }
        facts = {name: each for name, each in facts.items() if each != NO_FACTS}
        if after != before or facts != known:
            told = {name: each[:2] for name, each in facts.items()}
            self._write_format({**self._format(), 'columns': after, 'facts': told})
        return after

    def _is_on_local_disk(self) -> bool:
        mount = mounts.mount_of(self.path)
        return mount is not None and mount.is_local

    def identity(self) -> int | None:
        """The number by which an index is recognised as this base's; None if there is none yet."""
        found = self._read_format() or {}
        number = found.get('id')
        is_one = isinstance(number, int) and not isinstance(number, bool) and 0 < number < 1 << 31
        return number if is_one else None

    def identify(self, known: int = 0) -> int | None:
        """Return `identity`; if there is none, store the given number, or (0) a new one.

        The caller holds the index lock, which prevents a race. Returns None if the base cannot be written.
        """
        number = self.identity()
        if number is not None:
            return number
        document = self._format()
        number = known or int.from_bytes(os.urandom(4), 'big') >> 1 or 1
        return number if self._write_format({**document, 'id': number}) else None

    def _format(self) -> dict[str, Any]:
        """Return the content of format.json, creating it if it is missing or damaged."""
        found = self._read_format()
        return self._make_format() if found is None else found

    def _read_format(self) -> dict[str, Any] | None:
        """Return the content of format.json; None if it is missing or invalid."""
        try:
            with fileops.opened(self.hidden, fileops.LOOK) as hidden:
                found = json.loads(private_files.read_note(FORMAT_FILE, hidden)[0])
        except (ValueError, RecursionError, FileNotFoundError):
            return None
        except OSError as error:
            if fileops.is_no_file(error) or error.errno in _READ_ONLY:
                return None
            raise BaseUnusable(  # a guess might have two of us lock different things
                f'{self.hidden}/{FORMAT_FILE} cannot be read: {error.strerror}', hint='try again'
            )
        number = found.get('format') if isinstance(found, dict) else None
        if not isinstance(number, int):
            return None
        if number > FORMAT:
            raise BaseUnusable(
                f'{self.given!r} has directory format {str(number)[:20]}; this release knows up to {FORMAT}',
                hint='pip install --upgrade hadrosaur',
            )
        found.setdefault('lock', LOCKS[0])
        return found if found['lock'] in LOCKS else None

    def _make_format(self) -> dict[str, Any]:
        document: dict[str, Any] = {'format': FORMAT, 'lock': LOCKS[0]}
        if self.prepare():
            with fileops.opened(self.hidden) as hidden:
                may = fileops.can_lock(hidden) and self._is_on_local_disk()
            document['lock'] = LOCKS[0] if may else LOCKS[1]
            is_new = not os.path.lexists(f'{self.hidden}/{FORMAT_FILE}')
            if not self._write_format(document, is_first=is_new) and is_new:
                return self._read_format() or document  # somebody was faster
        return document

    def _write_format(self, document: dict[str, Any], *, is_first: bool = False) -> bool:
        """Write format.json (``is_first``: only if it is missing); False if it cannot be written."""
        data = json.dumps(document).encode() + b'\n'
        try:
            with (
                private_files.as_project_error(f'{self.hidden}/{FORMAT_FILE}'),
                fileops.opened(self.hidden) as hidden,
            ):
                for _ in range(_TRIES):
                    with contextlib.suppress(FileNotFoundError):  # swept away before it had its name
                        if is_first:
                            return private_files.put_first(FORMAT_FILE, data, hidden)
                        fileops.replace(FORMAT_FILE, data, hidden)
                        return True
                return False
        except OSError as error:
            if error.errno not in _READ_ONLY:
                raise
            return False

    def prepare(self) -> bool:
        """Create ``.hadrosaur/`` and its folders; False if the base cannot be written.

        Raises BaseUnusable if something other than a folder is in its place; links are not followed.
        """
        try:
            with private_files.own_folder(self.path, HIDDEN, SESSIONS, make=True):
                return os.access(self.hidden, os.W_OK)
        except OSError as error:
            if error.errno in _READ_ONLY:
                return False
            raise

    def try_to_write(self) -> None:
        """Raise OSError if a few pages cannot be written. A leftover of a kill is swept later."""
        name = f'.{FORMAT_FILE}.{os.getpid()}.new'
        with fileops.opened(self.hidden) as hidden:
            os.close(fileops.create(name, bytes(1 << 16), hidden))
            fileops.remove(name, hidden)

    # Sessions.

    def session(self) -> str | None:
        """Name of this process's session, started on first use; None on a read-only base."""
        mine = self._session
        if mine is None or mine[0] != os.getpid():
            with self._guard:
                mine = self._session
                if mine is None or mine[0] != os.getpid():
                    mine = self._session = self._begin_session()
        return mine[1] if mine else None

    @property
    def known_session(self) -> str | None:
        """Name of this process's session; None if none was started."""
        mine = self._session
        return mine[1] if mine is not None and mine[0] == os.getpid() else None

    def _begin_session(self) -> tuple[int, str, int] | None:
        if not self.prepare():
            return None
        name = f'{HOST}-{os.getpid()}-{os.urandom(4).hex()}'
        about = {'host': HOST, 'pid': os.getpid(), 'since': format_time(time.time())}
        fd: int | None = None
        with contextlib.suppress(OSError), fileops.opened(self.hidden) as hidden:
            private_files.sweep(FORMAT_FILE, hidden)
        full = private_files.where_there_is_space()  # else as on a base that can only be read
        with full, fileops.opened_below(self.hidden, SESSIONS, fileops.FOLDER) as sessions:
            while fd is None:
                fd = _locked_file(name, json.dumps(about).encode() + b'\n', sessions)
            for other in os.listdir(sessions):  # programs seldom say that they end
                if other == name or other.endswith(UNWRITTEN) or not is_of_this_machine(other):
                    continue
                if not fileops.is_locked(other, sessions):
                    with contextlib.suppress(OSError):  # a folder that somebody made there
                        fileops.remove(other, sessions)
        if fd is None:
            return None
        # Many a program makes a Project in passing, and never closes it.
        end = weakref.finalize(self, _end_session, self.hidden, os.getpid(), name, fd)
        end.atexit = False  # background work may have to be waited for; the file's lock ends with us
        self._forget = end
        return (os.getpid(), name, fd)

    def end_session(self) -> None:
        """End the session and remove its file."""
        self._session = None
        self._forget()

    def mark_unwritten(self) -> None:
        """Mark that rows of this process are not in the index yet, in case it dies before they are.

        The mark is a hard link to the session's file, so it is locked as long as the process lives.
        """
        name = self.known_session
        with contextlib.suppress(OSError):
            if name is not None or (name := self.session()) is not None:
                with fileops.opened_below(self.hidden, SESSIONS) as sessions:
                    os.link(name, name + UNWRITTEN, src_dir_fd=sessions, dst_dir_fd=sessions)

    def unmark_unwritten(self) -> None:
        """Remove the mark: all rows of this process are in the index."""
        if self.known_session is not None:
            self.drop_session(self.known_session + UNWRITTEN)

    def unwritten(self) -> list[str]:
        """Marks of dead processes whose rows are not all in the index."""
        try:
            with fileops.opened_below(self.hidden, SESSIONS, fileops.FOLDER) as sessions:
                names = os.listdir(sessions)
        except OSError:
            return []
        marks = [name for name in names if name.endswith(UNWRITTEN)]
        if marks and self.index_elsewhere() is not None:  # other machines have indexes of their own
            marks = [mark for mark in marks if is_of_this_machine(mark)]
        return [mark for mark in marks if not self.is_alive(mark)]

    def is_alive(self, session: str | None) -> bool:
        """Whether the process of a session is alive; a name that is not a session's counts as dead."""
        if session is None or not _session_of(session):
            return False
        mine = self._session
        if mine and mine[:2] == (os.getpid(), session):
            return True
        try:
            with fileops.opened_below(self.hidden, SESSIONS) as sessions:
                return fileops.is_locked(session, sessions)
        except FileNotFoundError:
            return False
        except OSError:  # one that cannot be looked at may well be alive
            return True

    def drop_session(self, session: str) -> None:
        """Remove the file of a session that has ended."""
        _drop_session(self.hidden, session)


def _drop_session(hidden: str, session: str) -> None:
    if not _session_of(session):  # it came from a row, and might lead anywhere
        return
    with contextlib.suppress(OSError), fileops.opened_below(hidden, SESSIONS) as sessions:
        fileops.remove(session, sessions)


def _end_session(hidden: str, process: int, name: str, fd: int) -> None:
    if os.getpid() == process:  # a forked child has closed its copy
        _drop_session(hidden, name)
        fileops.unlock(fd)


def _session_of(name: str) -> re.Match[str] | None:
    """Parse the file name of a session or of its mark."""
    return _SESSION.fullmatch(name.removesuffix(UNWRITTEN))


def is_of_this_machine(name: str) -> bool:
    """Whether a session belongs to this host; locks of another host's sessions may be invisible here."""
    if _UNFINISHED.fullmatch(name):
        name = name[1 : -len('.new')]
    session = _session_of(name)
    return session is not None and session[1] == HOST


def _locked_file(name: str, data: bytes, folder: int) -> int | None:
    """Create a file and lock it; None if it was swept away before it was locked.

    It gets its final name only once locked, so a session's file with a free lock always belongs to a dead
    process.
    """
    beside = f'.{name}.new'
    fd = fileops.create(beside, b'', folder)
    fileops.try_lock(fd)
    with private_files.where_there_is_space():  # it is the lock that counts
        fileops.write_all(fd, data)
    try:
        os.rename(beside, name, src_dir_fd=folder, dst_dir_fd=folder)
    except FileNotFoundError:
        fileops.unlock(fd)
        return None
    return fd


# Requests to cancel. Whoever computes a resource, in another process or on another machine, looks into
# this folder once a second; a file names the resource's directory relative to the base.


def request_cancel(base: str, path: str, queued_at: str) -> None:
    """Request that the run of the resource at ``path`` that was queued at that time is cancelled."""
    with (
        private_files.own_folder(base, HIDDEN, CANCEL, make=True) as folder,
        private_files.as_project_error(f'{base}/{HIDDEN}/{CANCEL}'),
    ):
        fileops.replace(_request_name(path), f'{path}\n{queued_at}'.encode(), folder)


_first_seen: dict[tuple[str, str, int], float] = {}
"""Requests by their base, name and time: since when we know them. By our clock alone: the one that the
file's time comes from may be off by hours, and whom a request is for may not have seen it yet."""


def cancel_requests(base: str) -> set[tuple[str, str]]:
    """Return the pending cancel requests: (directory relative to the base, time of queueing)."""
    wanted, there = set(), set()
    nothing = contextlib.suppress(OSError)  # none was ever made, or is just answered
    with nothing, fileops.opened_below(f'{base}/{HIDDEN}', CANCEL, fileops.FOLDER) as folder:
        for name in os.listdir(folder):
            with contextlib.suppress(OSError):
                made = (base, name, os.stat(name, dir_fd=folder, follow_symlinks=False).st_mtime_ns)
                if name[0] != '.' and (request := _request(name, folder)):
                    wanted.add(request)
                if time.monotonic() - _first_seen.setdefault(made, time.monotonic()) > REQUEST_LIFE:
                    fileops.remove(name, folder)
                there.add(made)
        for gone in [each for each in list(_first_seen) if each[0] == base and each not in there]:
            _first_seen.pop(gone, None)
    return wanted


def _request(name: str, folder: int) -> tuple[str, str] | None:
    """Parse a request into (path, queued_at); None if the file is not a request."""
    try:
        path, _, queued_at = private_files.read_note(name, folder)[0].decode().rpartition('\n')
    except ValueError:
        return None
    except OSError as error:
        if fileops.is_no_file(error):
            return None
        raise
    return path, queued_at


def drop_cancel_request(base: str, path: str) -> None:
    """Remove a request that was answered, or that nobody can answer."""
    with contextlib.suppress(OSError), fileops.opened_below(f'{base}/{HIDDEN}', CANCEL) as folder:
        fileops.remove(_request_name(path), folder)


def _request_name(path: str) -> str:
    return hashlib.blake2b(path.encode(), digest_size=16).hexdigest()
