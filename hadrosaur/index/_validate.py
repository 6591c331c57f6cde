"""What is in a file that should be an index, whose it is, and what SQLite's refusals mean.

Anybody may write into the file. A cell of another type or an unknown status is damage, found here where rows
become entries: it would be met far away, by whoever shows or compares it.
"""

from __future__ import annotations

import os
import re
import sqlite3
import stat
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

from .. import canonical
from ..basedir import HIDDEN, INDEX
from ..columns import COLUMNS as TABLE_COLUMNS
from ..columns import PUBLIC
from ..errors import IndexBusy, IndexFault, IndexTooNew, InvalidIdent, NotOurIndex
from ..records import COLUMNS, STATUSES, Entry
from ._connection import PARTS, PooledConnection, close, configure, connect
from ._fork_guard import fork_guard

if TYPE_CHECKING:
    from collections.abc import Callable

    from ._connection import FileSignature

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
_NOT_OF_THE_FILE = frozenset({sqlite3.SQLITE_NOMEM, sqlite3.SQLITE_INTERRUPT, sqlite3.SQLITE_MISUSE})
_CHANGED = ('no such table', 'no such column', 'has no column', 'Could not decode', 'malformed JSON')
"""What SQLite and the driver say of tables and text that hadrosaur did not write."""

_MARK_AT = 68  # in the header of an SQLite file: application_id, four bytes, big-endian
_MAGIC = {'-wal': (b'\x37\x7f\x06\x82', b'\x37\x7f\x06\x83'), '-journal': (b'\xd9\xd5\x05\xf9',)}


class Altered(sqlite3.DatabaseError):
    """A row holds what hadrosaur never writes."""


class OpenProblem(NamedTuple):
    """Why an index cannot be opened as it is.

    ``kind`` is ``missing``, ``damaged``, ``linked`` (it has another name too), ``foreign`` (it came from
    another project), ``old`` (``detail`` is the revision), ``not wal``, or ``moved``: the files are no
    longer those that were looked at.
    """

    kind: str
    detail: str = ''


class Owner(Protocol):
    """Knows by which number an index is this base's."""

    def identity(self) -> int | None:
        """The number; None where the base has none yet."""

    def identify(self, known: int = 0) -> int | None:
        """The same; where there is none, the base gets the one given, or a new one. None: it cannot."""


class Place(NamedTuple):
    """Where an index is.

    Attributes:
        path: The file.
        is_own: It is where the base has its index by itself: whatever stands there stands in its way. In
            any other place only what is known to be ours is ever replaced.
        remedy: What a user may do about what is refused.
        owner: Knows the base; None: any index will do.
    """

    path: str
    is_own: bool
    remedy: str
    owner: Owner | None = None

    @classmethod
    def of(cls, path: str, base: str, remedy: str, owner: Owner | None) -> Place:
        """The place at ``path`` of an index of ``base``."""
        folder, name = os.path.split(path)
        try:
            is_own = name == INDEX and os.path.samefile(folder, base)
        except OSError:
            is_own = path == f'{base}/{INDEX}'
        if not is_own:
            remedy = 'give another path, or move it away'
        return cls(path, is_own, remedy, owner)

    def look(self) -> OpenProblem | None:
        """What the names tell, before anything is opened: SQLite follows links and waits for FIFOs.

        Raises:
            NotOurIndex: There is something else than a file, or it is not for us to touch.
        """
        size, linked = 0, ''
        for part in PARTS:
            try:
                status = os.lstat(self.path + part)
            except FileNotFoundError:
                continue
            if not stat.S_ISREG(status.st_mode):
                raise NotOurIndex(f'{self.path + part} is not a regular file', hint=self.remedy)
            size = status.st_size if part == '' else size
            linked = linked or (self.path + part if status.st_nlink > 1 else '')
        if not self.is_own:
            self._respect(linked, size)
        if linked:
            return OpenProblem('linked', f'{linked} has another name too, a hard link')
        return OpenProblem('missing') if size == 0 else None

    def _respect(self, linked: str, size: int) -> None:
        """In a place that is not our own: refuse what is somebody's by its name."""
        folder, name = os.path.split(self.path)
        if name == INDEX and os.path.isdir(f'{folder}/{HIDDEN}'):
            raise NotOurIndex(f'{self.path} is the index of another base', hint='give another path')
        if linked:
            raise NotOurIndex(f'{linked} has another name too, a hard link', hint=self.remedy)
        if size == 0:  # what is left beside an index that was deleted is deleted with it
            for part, magic in _MAGIC.items():
                if _head(self.path + part, 4)[:4] not in (b'', *magic):
                    raise NotOurIndex(f'{self.path + part} is not of an index', hint=self.remedy)

    def is_ours(self) -> bool:
        """Is a damaged file one that hadrosaur made? Only for who owns the index lock.

        It is read without SQLite, which drops the locks that other threads' connections have on it.
        """
        from ..schema import APPLICATION_ID

        mark = _head(self.path, _MARK_AT + 4)[_MARK_AT:]
        return self.is_own or mark == APPLICATION_ID.to_bytes(4, 'big')


def _head(path: str, length: int) -> bytes:
    try:
        fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except FileNotFoundError:
        return b''
    try:
        return os.pread(fd, length, 0)
    finally:
        os.close(fd)


def examine(driver: sqlite3.Connection, place: Place) -> OpenProblem | None:
    """Read enough of an open file to know whose it is, and which revision.

    Raises:
        NotOurIndex: Another program made it.
        IndexTooNew: A newer release made it.
    """
    from ..schema import APPLICATION_ID, HEAD, REVISIONS

    path = place.path
    (application,) = driver.execute('PRAGMA application_id').fetchone()
    tables = {name for (name,) in driver.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
    is_whole = tables >= {'resources', 'alembic_version'}
    if application != APPLICATION_ID:
        if application == 0 and not tables and place.is_own:
            return OpenProblem('missing')
        if is_whole and place.is_own:
            return OpenProblem('damaged', 'its mark is not that of an index')
        raise NotOurIndex(
            f'{path} is an SQLite file of another program; it was left as it is', hint=place.remedy
        )
    if not is_whole:
        return OpenProblem('damaged', 'its tables are missing')
    stored = [revision for (revision,) in driver.execute('SELECT version_num FROM alembic_version')]
    if len(stored) != 1 or not isinstance(stored[0], str):
        return OpenProblem('damaged', 'its revision is missing')
    if stored[0] not in REVISIONS:
        raise IndexTooNew(
            f'{path} has revision {stored[0]!r}; this release of hadrosaur knows {HEAD!r} and older. '
            'It was left as it is',
            hint=f'install a newer hadrosaur, or {place.remedy}',
        )
    if _is_foreign(driver, place):
        if place.is_own:
            return OpenProblem('foreign', 'its number is another')
        raise NotOurIndex(
            f'{path} is the index of another project; it was left as it is',
            hint='give another path; if the base is a copy, or its .hadrosaur/ was lost, delete this file',
        )
    return None if stored[0] == HEAD else OpenProblem('old', stored[0])


def open_good(
    path: str,
    mode: str,
    place: Place,
    signature: Callable[[], FileSignature],
    *,
    is_writable: bool = False,
) -> PooledConnection | OpenProblem:
    """Open an index that is in order, or return what is wrong with it.

    Args:
        path: The file: the one at ``place``, or a copy of it.
        mode: As for `connect`.
        place: Where the index is.
        signature: Tells later whether the files are still the same.
        is_writable: Is it opened to be written?

    Raises:
        NotOurIndex, IndexTooNew: As `examine` does.
        sqlite3.Error: It is busy or out of reach.
    """
    driver: sqlite3.Connection | None = None
    try:
        driver = connect(path, mode)
        with fork_guard:
            problem = examine(driver, place)
            if problem is None and is_writable:
                (journal,) = driver.execute('PRAGMA journal_mode').fetchone()
                problem = None if journal == 'wal' else OpenProblem('not wal')
        if problem is not None:
            return problem
        configure(driver)
        pooled = PooledConnection(driver, signature, is_writable=is_writable)
        driver = None
        return pooled
    except FAULTS as fault:
        if not is_damage_at_opening(fault):
            raise
        return OpenProblem('damaged', str(fault))
    finally:
        if driver is not None:
            close(driver)


def named(driver: sqlite3.Connection) -> int:
    """By which number the index is its base's; 0: it has none."""
    (number,) = driver.execute('PRAGMA user_version').fetchone()
    return int(number)


def _is_foreign(driver: sqlite3.Connection, place: Place) -> bool:
    """Does the index belong to another base? One without a number is of an earlier release."""
    number = named(driver)
    if place.owner is None or number == 0:
        return False
    mine = place.owner.identity()
    return number != mine and not (mine is None and place.is_own)


def is_altered(driver: sqlite3.Connection) -> bool:
    """Is the table another one than hadrosaur makes? Then what it refuses tells nothing of our rows."""
    from ..schema import INDEXES, TABLE, TRIGGERS, USES

    try:
        made = driver.execute(
            "SELECT sql FROM sqlite_master WHERE tbl_name IN ('resources', 'uses') AND sql IS NOT NULL"
        )
        stored = {' '.join(str(text).split()) for (text,) in made}
    except FAULTS:
        return True
    return not stored >= {' '.join(text.split()) for text in (TABLE, USES, *INDEXES, *TRIGGERS.values())}


def _code(fault: Fault) -> int:
    return int(getattr(fault, 'sqlite_errorcode', None) or 0)


def is_damage(fault: Fault) -> bool:
    """Whether the file holds what neither SQLite nor hadrosaur put there."""
    if isinstance(fault, Altered):
        return True
    code = _code(fault)
    return bool({code, code & 0xFF} & _DAMAGE) or any(words in str(fault) for words in _CHANGED)


def is_damage_of_the_file(fault: Fault) -> bool:
    """`is_damage`, where the statement is the user's own, who may ask for tables that are not there."""
    return not any(words in str(fault) for words in _CHANGED) and is_damage(fault)


def is_damage_at_opening(fault: Fault) -> bool:
    """The same of a file that is just opened: all but what is said of its being busy or out of reach.

    An older SQLite may call a header damaged that a newer one would read; both are built anew.
    """
    is_of_the_file = _code(fault) & 0xFF not in _NOT_OF_THE_FILE and not isinstance(
        fault, (sqlite3.ProgrammingError, sqlite3.InterfaceError)
    )
    return is_damage(fault) or (is_of_the_file and not is_busy(fault) and not is_unreachable(fault))


def is_busy(fault: Fault) -> bool:
    """Whether somebody else kept the lock."""
    return _code(fault) & 0xFF in _BUSY


def is_passing(fault: Fault) -> bool:
    """Whether the connection is as good as before: somebody had the lock, or the disk is full."""
    return is_busy(fault) or _code(fault) & 0xFF == sqlite3.SQLITE_FULL


def is_unreachable(fault: Fault) -> bool:
    """Whether the file system refuses: no permission, no space, no medium."""
    return _code(fault) & 0xFF in _UNREACHABLE


def is_moved(fault: Fault) -> bool:
    """Whether the file was renamed or deleted under the connection."""
    return _code(fault) == sqlite3.SQLITE_READONLY_DBMOVED


def is_read_only_by_its_header(fault: Fault, path: str) -> bool:
    """Does SQLite take the file for one that is not to be written, while the file system lets us?"""
    if _code(fault) != sqlite3.SQLITE_READONLY:
        return False
    try:
        is_mounted_so = bool(os.statvfs(path).f_flag & os.ST_RDONLY)
    except OSError:
        return False
    parts = [part for part in (path + part for part in PARTS) if os.path.lexists(part)]
    return not is_mounted_so and all(os.access(part, os.W_OK) for part in (os.path.dirname(path), *parts))


def told(fault: Fault | OSError, path: str, hint: str) -> IndexFault:
    """What a user is told of a refusal: the one place where SQLite's errors become ours."""
    if isinstance(fault, FAULTS) and is_busy(fault):
        return IndexBusy(f'another process kept {path} locked for too long', hint='try again')
    return IndexFault(f'{path} cannot be used: {fault}', hint=hint)


# --- rows ------------------------------------------------------------------------------------------


ALL = f'SELECT {", ".join(COLUMNS)} FROM resources'
"""Text that selects all rows."""

ONE = f'{ALL} WHERE collection = ? AND ident = ?'
"""Text that selects the row of a collection and an ident."""

_PYTHON: dict[str, set[type]] = {'TEXT': {str}, 'INTEGER': {int}, 'FLOAT': {float, int}}
_TYPES = {
    # Rows that are shown instead of what is stored have no `changed`.
    column.name: frozenset(
        _PYTHON[column.type] | (set() if column.is_required and column in PUBLIC else {type(None)})
    )
    for column in TABLE_COLUMNS
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
        types = _TYPES[name]
        if not _is_plainly(types, column) and not types.issuperset(map(type, column)):
            raise Altered(f'the column {name} of a row holds what hadrosaur does not write there')
    if not _STATUSES.issuperset(columns[_STATUS]):
        raise Altered('a row has a status that there is not')
    paths = '\n' + '\n'.join(filter(None, columns[_PATH]))
    if '/.' in paths or '\n.' in paths or '\n/' in paths:
        rows = list(map(_inside, rows))
    return list(map(Entry, rows))


def _is_plainly(types: frozenset[Any], column: tuple[Any, ...]) -> bool:
    """Does one quick step show that the whole column is as it should be? Else it has to be looked through."""
    try:
        if str in types:
            ''.join(column)
            return True
        return type(sum(column)) in types
    except TypeError:
        return column[0] is None and type(None) in types and column.count(None) == len(column)


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
