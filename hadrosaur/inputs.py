"""``inputs=``: the files that a resource is computed from, and whether they are what they were.

A file is known by its path, its size and when it was changed. Its contents are compared, by a digest that was
taken before the run, only where the time is another and the size is not; or where the time tells nothing, as
of a file that was written so shortly before that it may be written again within the same tick of the clock.
"""

from __future__ import annotations

import hashlib
import os
import stat
import time
from collections.abc import Callable, Iterable
from functools import lru_cache
from typing import Any

from .errors import InputNotFound

Function = Callable[[str, dict[str, Any]], Any]

TICK = 50_000_000
"""Nanoseconds within which a file that is written twice may keep its time: file systems count in ticks."""
_NO_TIME = -1  # of a file that was written within the last tick


def take(inputs: Function, collection: str, ident: str, args: dict[str, Any]) -> list[list[Any]]:
    """What ``inputs(ident, args)`` names: of each file path, bytes, mtime in ns and digest.

    Raises InputNotFound for what is no file that can be read, TypeError for what is no path.
    """
    return [_known(path, collection, ident) for path in paths_of(inputs, ident, args)]


def paths_of(inputs: Function, ident: str, args: dict[str, Any]) -> list[str]:
    """Absolute paths of what ``inputs(ident, args)`` names. Raises TypeError, and what it raises."""
    named = inputs(ident, args)
    if isinstance(named, (str, os.PathLike)):
        named = [named]
    if not isinstance(named, Iterable) or isinstance(named, (bytes, dict)):
        raise TypeError(f'inputs must give paths, not {type(named).__name__}: {named!r}')
    return list(dict.fromkeys(os.path.abspath(os.fspath(path)) for path in named))


def _known(path: str, collection: str, ident: str) -> list[Any]:
    try:
        path.encode()
        found = os.stat(path)
        if not stat.S_ISREG(found.st_mode):
            raise _refused(path, collection, ident, 'is a folder, or no file at all', 'name the files in it')
        mtime_ns = found.st_mtime_ns if _is_settled(found) else _NO_TIME
        return [path, found.st_size, mtime_ns, _digest(path, found)]
    except FileNotFoundError:
        raise _refused(path, collection, ident, 'is not there', 'make it, or mend inputs= of the collection')
    except UnicodeError:
        raise _refused(repr(path), collection, ident, 'has a name that is no UTF-8', 'rename it')
    except OSError as error:
        raise _refused(path, collection, ident, f'cannot be read: {error.strerror}', 'see its owner and mode')


def _refused(path: str, collection: str, ident: str, what: str, hint: str) -> InputNotFound:
    message = f'the input {path} of {collection}/{ident} {what}'
    return InputNotFound(message, collection=collection, ident=ident, hint=hint)


def _is_settled(found: os.stat_result) -> bool:
    """Would a file that is written from now on have another time?"""
    return time.time_ns() - found.st_mtime_ns > TICK


def _digest(path: str, found: os.stat_result) -> str:
    """Of its contents: a file that many resources need is read once for each time that it has."""
    if _is_settled(found):
        return _digest_of_then(path, found.st_mtime_ns, found.st_ino)
    return _read_digest(path)


@lru_cache(maxsize=1024)
def _digest_of_then(path: str, _mtime_ns: int, _inode: int) -> str:
    return _read_digest(path)


def _read_digest(path: str) -> str:
    with open(path, 'rb') as file:
        return hashlib.file_digest(file, lambda: hashlib.blake2b(digest_size=16)).hexdigest()


def changed(lines: Iterable[Any]) -> str | None:
    """What became of the first file that is not what `take` told of it; None where all are."""
    for path, size, mtime_ns, digest in lines:
        try:
            now = os.stat(path)
            if not stat.S_ISREG(now.st_mode):
                return f'{path} is gone'
            if now.st_size != size:
                return f'{path} changed'
            if now.st_mtime_ns != mtime_ns and _digest(path, now) != digest:
                return f'{path} changed'
        except (FileNotFoundError, NotADirectoryError):
            return f'{path} is gone'
        except (OSError, ValueError) as error:
            return f'{path} cannot be read: {getattr(error, "strerror", None) or error}'
    return None


def renamed(inputs: Function, lines: Iterable[Any], ident: str, args: dict[str, Any]) -> str | None:
    """In what the files that ``inputs`` names now differ from those of a run; None where they do not.

    What it raises is told, and raised again by the run that it would fail.
    """
    try:
        now, before = set(paths_of(inputs, ident, args)), {line[0] for line in lines}
    except Exception as error:  # it is the user's function, and may raise anything
        return f'inputs= raised {type(error).__name__}: {error}'
    if more := now - before:
        return f'{min(more)} is new'
    return f'{min(gone)} is none any more' if (gone := before - now) else None
