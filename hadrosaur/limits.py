"""``at_once=`` and ``rate=``: limits on concurrent runs and on starts of a collection.

They hold for all processes that compute in a base, on every machine, without a server. A run holds one of the
collection's places, each a locked file in ``.hadrosaur/limits/``, which a process that dies releases. The
times of the last starts are in another file there. A run that has to wait is told when to try again, and
occupies no worker meanwhile.

A run that is nested in a run of its own collection shares the place of the outer one, which waits for it.
"""

from __future__ import annotations

import contextlib
import errno
import math
import os
import re
import stat
import struct
import time
from typing import TYPE_CHECKING, Any

from . import fileops, private_files
from .basedir import HIDDEN
from .errors import BaseUnusable

if TYPE_CHECKING:
    from collections.abc import Iterator

    from .records import CollectionSpec, Job

FOLDER = 'limits'
"""Name of the folder in ``.hadrosaur/``."""
MOST = 10_000  # places, and starts that are written down: 80 kB
_PAUSE, _PAUSE_MOST, _LONGEST = 0.02, 0.2, 30.0  # seconds until one comes again
_PATIENCE = 1.0  # seconds to wait for who writes down a start, which takes an instant
_HEADER = struct.Struct('=dQQ')  # seconds, how many starts in them, which of those below is the oldest
_TIME = struct.Struct('=d')
_UNITS = {'s': 1, 'sec': 1, 'second': 1, 'm': 60, 'min': 60, 'minute': 60, 'h': 3600, 'hour': 3600,
          'd': 86400, 'day': 86400}  # fmt: skip
_RATE = re.compile(rf'([0-9]+(?:\.[0-9]+)?) ?(?:/|per) ?({"|".join(_UNITS)})s?', re.IGNORECASE)


def rate_of(given: Any) -> tuple[int, float] | None:
    """Parse a rate, ``'10/min'`` or a number per second, into (number of starts, seconds).

    Raises ValueError for an invalid rate.
    """
    if given is None:
        return None
    number, seconds = 0.0, 1.0
    if isinstance(given, str) and (found := _RATE.fullmatch(given.strip())):
        number, seconds = float(found[1]), float(_UNITS[found[2].lower()])
    elif isinstance(given, (int, float)) and not isinstance(given, bool):
        number = float(given)
    if not 0 < number < math.inf:
        raise ValueError(
            f"rate must be starts per second, a text such as '10/min' or '100/hour', or None, not {given!r}"
        )
    if not number.is_integer():  # one at a time, evenly
        number, seconds = 1, seconds / number
    if number > MOST:
        raise ValueError(f'rate={given!r} is more than {MOST} at a time; say it of a shorter time')
    return int(number), seconds


def pause(later: float, times: int) -> float:
    """Return the delay before trying again after so many ``times`` (``later``: the delay that was told)."""
    return min(later or min(_PAUSE * 1.5 ** min(times, 20), _PAUSE_MOST), _LONGEST)


class Place:
    """A place among the concurrent runs of a collection, or one that is not needed."""

    def __init__(self, fd: int = -1) -> None:
        self._fd = fd
        self._known = os.fstat(fd) if fd >= 0 else None

    def give_back(self) -> None:
        """Release the place. A function may have closed the file, and its number may be in use again."""
        if self._known is not None and fileops.is_same(self._fd, self._known):
            fileops.unlock(self._fd)
        elif self._known is not None:
            fileops.forget(self._fd)


def take_place(job: Job) -> Place | None:
    """Take a place for a run; None if all are taken. Raises OSError."""
    spec = job.spec
    shares = any(step[:2] == (spec.base, spec.collection) for step in job.chain)
    if spec.at_once is None or shares:
        return Place()
    with _folder(spec, make=True) as folder:
        first = time.monotonic_ns()
        for number in range(spec.at_once):
            fd = _opened(f'{spec.folder}.{(first + number) % spec.at_once}', folder)
            if fileops.try_lock(fd):
                return Place(fd)
            os.close(fd)
    return None


def until_next_start(spec: CollectionSpec) -> float:
    """Return the seconds until another run may probably start; 0.0: now."""
    if spec.rate is None:
        return 0.0
    try:
        with _folder(spec) as folder:
            fd = fileops.open_ours(_rate_file(spec), folder, os.O_RDONLY)
            if fd is None:
                return 0.0
            try:
                known = _read_header(fd)
                return _wait(_read_time(fd, known[2]), known[0]) if _is_of(known, spec.rate) else 0.0
            finally:
                os.close(fd)
    except FileNotFoundError:
        return 0.0


def start(spec: CollectionSpec) -> float:
    """Start a run: returns 0.0 and stores the start if the rate allows it, else the seconds to wait.

    Raises OSError.
    """
    if spec.rate is None:
        return 0.0
    count, seconds = spec.rate
    with _folder(spec, make=True) as folder:
        fd = _opened(_rate_file(spec), folder)
        if not fileops.lock_within(fd, _PATIENCE):
            os.close(fd)
            return _PAUSE
        try:
            header = _read_header(fd)
            if not _is_of(header, spec.rate):
                header = _begin(fd, header, spec.rate)
            oldest = header[2]
            wait = _wait(_read_time(fd, oldest), seconds)
            if not wait:
                os.pwrite(fd, _TIME.pack(time.time()), _HEADER.size + oldest * _TIME.size)
                os.pwrite(fd, _HEADER.pack(seconds, count, (oldest + 1) % count), 0)
            return wait
        finally:
            fileops.unlock(fd)


@contextlib.contextmanager
def _folder(spec: CollectionSpec, *, make: bool = False) -> Iterator[int]:
    try:
        with private_files.own_folder(spec.base, HIDDEN, FOLDER, make=make) as folder:
            yield folder
    except BaseUnusable as error:
        raise OSError(errno.ENOTDIR, error.message) from error


def _rate_file(spec: CollectionSpec) -> str:
    return f'{spec.folder}.rate'


def _wait(began: float, seconds: float) -> float:
    """Return the seconds until a start is old enough; a start in the future is from another clock."""
    age = time.time() - began
    return 0.0 if abs(age) >= seconds else seconds - age


def _read_header(fd: int) -> tuple[float, int, int]:
    data = os.pread(fd, _HEADER.size, 0)
    return _HEADER.unpack(data) if len(data) == _HEADER.size else (0.0, 0, 0)


def _is_of(header: tuple[float, int, int], rate: tuple[int, float]) -> bool:
    return header[:2] == (rate[1], rate[0]) and header[2] < rate[0]


def _read_time(fd: int, position: int) -> float:
    data = os.pread(fd, _TIME.size, _HEADER.size + position * _TIME.size)
    number = _TIME.unpack(data)[0] if len(data) == _TIME.size else 0.0
    return number if math.isfinite(number) else 0.0


def _begin(fd: int, header: tuple[float, int, int], rate: tuple[int, float]) -> tuple[float, int, int]:
    """Rewrite the file for another rate, keeping the starts in it."""
    count, seconds = rate
    known = sorted(filter(None, (_read_time(fd, position) for position in range(min(header[1], MOST)))))
    times = [0.0] * max(0, count - len(known)) + known[-count:]
    os.ftruncate(fd, 0)
    fileops.write_all(fd, _HEADER.pack(seconds, count, 0) + b''.join(map(_TIME.pack, times)))
    return seconds, count, 0


def _opened(name: str, folder: int) -> int:
    """Open a file of ours, creating it if missing; anything else in its place is replaced."""
    for _ in range(3):
        fd = fileops.open_ours(name, folder, os.O_RDWR)
        if fd is not None:
            return fd
        with contextlib.suppress(FileExistsError):
            flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
            return fileops.out_of_reach(os.open(name, flags, 0o666, dir_fd=folder))
        if (fd := fileops.open_ours(name, folder, os.O_RDWR)) is not None:  # somebody was faster
            return fd
        with contextlib.suppress(FileNotFoundError):
            found = os.stat(name, dir_fd=folder, follow_symlinks=False)
            if stat.S_ISREG(found.st_mode) and found.st_nlink == 1:  # of another user, who may hold it
                raise PermissionError(errno.EACCES, f'{HIDDEN}/{FOLDER}/{name} may not be written')
        fileops.remove(name, folder)
    raise OSError(f'{HIDDEN}/{FOLDER}/{name} cannot be made')
