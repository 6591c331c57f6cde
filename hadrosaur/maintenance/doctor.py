"""Diagnose a base directory, its file system and this machine. Changes nothing.

The index is not opened and resources are not read; `check` does that. The examinations are independent: one
that fails is a finding itself.
"""

from __future__ import annotations

import contextlib
import os
import resource
import shlex
import sqlite3
import stat
import sys
import time
from typing import TYPE_CHECKING, Literal, NamedTuple

from .. import __version__, fileops, mounts
from ..basedir import CANCEL, HIDDEN, INDEX, REQUEST_LIFE, SESSIONS
from ..errors import HadrosaurError
from ..registry import collection_folders
from ..sanitize import size
from ..schema import HEAD, REVISIONS
from ..upgrade import stored_revision
from .incoming import INCOMING, free_space

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterator

    from ..basedir import BaseDirectory

LOW_SPACE, LOW_INODES = 1 << 30, 20_000  # free bytes and files, below which a batch may not fit
LOW_DESCRIPTORS = 256
LARGE_WAL = 256 << 20  # bytes
LEFT_AFTER = 3600.0  # age in seconds from which a temporary file counts as left over

Level = Literal['ok', 'note', 'fix', 'fault']


class Diagnosis(NamedTuple):
    """One finding of `Project.doctor`."""

    about: str  # one word
    level: Level  # ok; note: for information; fix: should be fixed; fault: the base cannot be used
    found: str
    to_do: str = ''


def examine(base: BaseDirectory, index: str) -> list[Diagnosis]:
    """Run all examinations.

    Args:
        base: The base directory.
        index: Path of its index.
    """
    found: list[Diagnosis] = []
    examinations: dict[str, Callable[[BaseDirectory, str], Iterator[Diagnosis]]] = {
        'versions': _versions,
        'file system': _file_system,
        'locks': _locks,
        'space': _space,
        'permissions': _permissions,
        'index': _index,
        'leftovers': _leftovers,
        'limits': _limits,
    }
    for about, look in examinations.items():
        try:
            found += look(base, index)
        except HadrosaurError as error:
            found.append(Diagnosis(about, 'fault', error.message, error.hint or ''))
        except OSError as error:
            what = f'{error.filename or base.given}: {error.strerror}'
            found.append(
                Diagnosis(about, 'fault', what, 'look into who may read there, and into the system log')
            )
    return found


def _versions(base: BaseDirectory, index: str) -> Iterator[Diagnosis]:
    python = '.'.join(map(str, sys.version_info[:3]))
    yield Diagnosis(
        'versions', 'ok', f'hadrosaur {__version__}, Python {python}, SQLite {sqlite3.sqlite_version}'
    )
    if sqlite3.sqlite_version_info < (3, 38):
        yield Diagnosis(
            'versions', 'note', 'SQLite before 3.38 has no ->> for results', 'install a newer Python'
        )


def _file_system(base: BaseDirectory, index: str) -> Iterator[Diagnosis]:
    mount = mounts.mount_of(base.path)
    if mount is None or not (mount.is_local or mount.is_shared):
        kind = 'unknown' if mount is None else mount.kind
        yield Diagnosis(
            'file system', 'note', f'{kind}: whether other machines see it is not known, so files are locked'
        )
    else:
        whose = 'of this machine' if mount.is_local else 'that other machines may see'
        yield Diagnosis('file system', 'ok', f'{mount.kind}, {whose}')
    for sentence in mounts.mistrust(base.path, index):
        what, _, todo = sentence.partition(': ')
        yield Diagnosis('file system', 'fix', what, todo)


def _locks(base: BaseDirectory, index: str) -> Iterator[Diagnosis]:
    """Take a lock twice: the second attempt must be refused."""
    name = f'.doctor.{os.getpid()}.new'
    if not os.path.lexists(base.hidden):
        yield Diagnosis('locks', 'note', f'there is no {HIDDEN} yet; it is made by the next run')
        return
    if not os.access(base.hidden, os.W_OK):
        yield Diagnosis('locks', 'note', 'cannot be tried where nothing can be written')
        return
    with fileops.opened(base.hidden) as hidden:
        first = fileops.open_new(name, hidden)
        second = os.open(name, fileops.READ, dir_fd=hidden)
        try:
            is_held = fileops.try_lock(first) and not fileops.try_lock(second, shared=True)
        except OSError as error:
            yield Diagnosis('locks', 'fault', f'files cannot be locked: {error.strerror}', 'use another disk')
            return
        finally:
            fileops.unlock(second)
            fileops.unlock(first)
            fileops.remove(name, hidden)
    if not is_held:
        what = 'a lock that is held is granted twice: resources may be computed twice'
        yield Diagnosis('locks', 'fault', what, 'use another disk, or mount this one with locks')
        return
    what = 'folders' if base.lock == 'folder' else 'files'
    yield Diagnosis('locks', 'ok', f'{what} are locked, and the locks hold')


def _space(base: BaseDirectory, index: str) -> Iterator[Diagnosis]:
    free, there_is = free_space(base.path)
    found = os.statvfs(base.path)
    inodes = f', {found.f_favail:,} files' if found.f_files else ''
    said = f'{size(free)} of {size(there_is)} are free{inodes}'
    is_low = free < LOW_SPACE or (found.f_files and found.f_favail < LOW_INODES)
    command = f'hadrosaur du {shlex.quote(base.given)} shows what takes it, hadrosaur gc removes what is old'
    yield Diagnosis('space', 'fix', said, command) if is_low else Diagnosis('space', 'ok', said)


def _permissions(base: BaseDirectory, index: str) -> Iterator[Diagnosis]:
    places = [base.path, base.hidden, f'{base.hidden}/{SESSIONS}', index]
    places += [f'{base.path}/{folder}' for folder in collection_folders(base.path)]
    unreadable = [place for place in places if os.path.lexists(place) and not os.access(place, os.R_OK)]
    readonly = [place for place in places if os.path.lexists(place) and not os.access(place, os.W_OK)]
    for place in unreadable:
        yield Diagnosis('permissions', 'fault', f'{place} cannot be read', f'chmod u+rX {shlex.quote(place)}')
    if base.path in readonly:
        yield Diagnosis('permissions', 'note', 'the base can only be read: nothing is computed there')
    else:
        for place in readonly:
            todo = f'chmod u+w {shlex.quote(place)}, or ask its owner'
            yield Diagnosis('permissions', 'fix', f'{place} cannot be written', todo)
    for place in places:
        if os.path.islink(place) and place != base.path:
            yield Diagnosis('permissions', 'fix', f'{place} is a link, and none is followed', 'move it away')
    for name in _names(base.path):
        if os.path.islink(path := f'{base.path}/{name}') and os.path.isdir(path) and path not in places:
            what = f'{path} is a link to a folder: it is no collection, since no link is followed'
            yield Diagnosis('permissions', 'note', what, 'move the folder itself there, if it should be one')
    if not unreadable and not readonly:
        yield Diagnosis('permissions', 'ok', 'everything can be read and written')


def _index(base: BaseDirectory, index: str) -> Iterator[Diagnosis]:
    if not os.path.lexists(index):
        yield Diagnosis('index', 'note', 'there is none; it is made from the directories at its first use')
        return
    revision = stored_revision(index)
    if revision == HEAD:
        yield Diagnosis('index', 'ok', f'{size(os.stat(index).st_size)}, revision {revision}')
    elif revision in REVISIONS:
        todo = 'it is upgraded when it is opened'
        yield Diagnosis('index', 'note', f'revision {revision} of an older release', todo)
    elif revision is None:
        todo = f'hadrosaur reindex {shlex.quote(base.given)} --fresh sets it aside and makes a new one'
        yield Diagnosis('index', 'fault', f'{index} is damaged, or no index of ours', todo)
    else:
        todo = 'pip install --upgrade hadrosaur'
        yield Diagnosis('index', 'fault', f'revision {revision} of a newer release', todo)
    with contextlib.suppress(OSError):
        if (wal := os.stat(f'{index}-wal').st_size) > LARGE_WAL:
            todo = 'end the program that reads from it all the time'
            yield Diagnosis('index', 'fix', f'its -wal has {size(wal)}', todo)


def _leftovers(base: BaseDirectory, index: str) -> Iterator[Diagnosis]:
    """Leftovers of killed processes, and indexes that were set aside."""
    command = f'rm -r {shlex.quote(base.hidden)}/'
    if unwritten := base.unwritten():
        todo = f'hadrosaur status {shlex.quote(base.given)} brings them'
        yield Diagnosis(
            'leftovers',
            'fix',
            f'rows of {_counted(unwritten, "process", "processes")} are not in the index',
            todo,
        )
    left = [
        name for name in _names(f'{base.hidden}/{INCOMING}') if not base.is_alive(name.rpartition('.')[0])
    ]
    if left:
        what = f'{_counted(left, "import")} cut off'
        yield Diagnosis('leftovers', 'fix', what, f'begin them again, or: {command}{INCOMING}')
    if old := _old(f'{base.hidden}/{CANCEL}', REQUEST_LIFE + LEFT_AFTER):
        yield Diagnosis(
            'leftovers',
            'fix',
            f'{_counted(old, "request")} to cancel without an answer',
            f'{command}{CANCEL}',
        )
    if new := [name for name in _old(base.hidden, LEFT_AFTER) if name.endswith('.new')]:
        todo = ' '.join(['rm', *(shlex.quote(f'{base.hidden}/{name}') for name in new[:5])])
        yield Diagnosis('leftovers', 'fix', f'{_counted(new, "file")} in {HIDDEN} never finished', todo)
    aside = [
        name
        for name in _names(base.path)
        if name.startswith(f'{INDEX}.') or (name.startswith(f'{INDEX}-') and name[len(INDEX) :] not in _PARTS)
    ]
    if aside:
        todo = ' '.join(['rm', *(shlex.quote(f'{base.path}/{name}') for name in aside[:5])])
        yield Diagnosis(
            'leftovers', 'note', f'{_counted(aside, "file")} of indexes that were set aside', todo
        )
    if not (unwritten or left or old or new or aside):
        yield Diagnosis('leftovers', 'ok', 'none')


def _counted(found: Collection[str], one: str, more: str = '') -> str:
    return f'{len(found)} {one if len(found) == 1 else more or f"{one}s"}'


_PARTS = ('-wal', '-shm', '-journal')


def _names(folder: str) -> list[str]:
    try:
        with fileops.opened(folder, fileops.FOLDER & ~os.O_NOFOLLOW) as opened:
            return sorted(os.listdir(opened))
    except (FileNotFoundError, NotADirectoryError):
        return []


def _old(folder: str, age: float) -> list[str]:
    found = []
    for name in _names(folder):
        with contextlib.suppress(OSError):
            seen = os.lstat(f'{folder}/{name}')
            if stat.S_ISREG(seen.st_mode) and time.time() - seen.st_mtime > age:
                found.append(name)
    return found


def _limits(base: BaseDirectory, index: str) -> Iterator[Diagnosis]:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    said = f'{soft:,} open files'
    if soft < LOW_DESCRIPTORS:
        yield Diagnosis('limits', 'fix', said, f'ulimit -n {min(hard, 4096)}')
    else:
        yield Diagnosis('limits', 'ok', said)
    largest = resource.getrlimit(resource.RLIMIT_FSIZE)[0]
    if 0 <= largest < LOW_SPACE:
        yield Diagnosis('limits', 'fix', f'no file may have more than {size(largest)}', 'ulimit -f unlimited')
