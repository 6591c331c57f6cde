"""The memory that runs take: that of each worker and of all that it started, looked at ten times a second.

Looking is cheap as long as a run is within its limit: a page count for each process. Beyond it, what only
seems to be the run's is left out: pages of files that are mapped, which the system takes back when it needs
them, and (Linux tells that of each page) the share of others in pages that are shared, as they are by the
children of a fork.
"""

from __future__ import annotations

import contextlib
import os
import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Container

INTERVAL = 0.1  # seconds between two looks, and
SHARE = 20  # times what a look took, where there are thousands of processes
_FORGET = 2.0  # seconds after which the number of a process that is not ours may be another's
MOST_STEPS = 100  # from a process to the one that started it, and so on
_PAGE = os.sysconf('SC_PAGE_SIZE')

IS_POSSIBLE = os.path.exists('/proc/self/statm')


class Watch:
    """Looks at the memory of workers.

    Attributes:
        next: When it is to look again, by the monotonic clock.
    """

    def __init__(self) -> None:
        self.next = 0.0
        self._strangers: set[int] = set()
        self._known: set[int] = set()  # the workers that they are strangers to
        self._forget_at = 0.0

    def exceeding(self, limits: dict[int, int]) -> dict[int, tuple[int, list[int]]]:
        """Of those workers that exceed their limit the bytes that they take, and whose processes these are.

        ``limits``: bytes by the number of a worker's process.
        """
        began, used = time.monotonic(), time.thread_time()
        if began >= self._forget_at or not limits.keys() <= self._known:
            self._strangers.clear()
            self._known = set(limits)
            self._forget_at = began + _FORGET
        found = {}
        for worker, members in self._members(limits).items():
            limit = limits[worker]
            if sum(members.values()) > limit and sum(map(own, members)) > limit:
                taken = sum(map(_proportional, members))
                if taken > limit:
                    found[worker] = (taken, list(members))
        self.next = began + max(INTERVAL, SHARE * (time.thread_time() - used))
        return found

    def _members(self, workers: dict[int, int]) -> dict[int, dict[int, int]]:
        """By worker, the resident bytes of each process in its session, or that it started elsewhere."""
        processes: dict[int, tuple[int, int, int]] = {}  # by number: parent, session, resident bytes
        try:
            names = os.listdir('/proc')
        except OSError:  # too many open files: the next look may be luckier
            return {}
        for name in names:
            if name.isdigit() and int(name) not in self._strangers:
                with contextlib.suppress(OSError, ValueError, IndexError):  # it has just ended
                    processes[int(name)] = _stat(name)
        found: dict[int, dict[int, int]] = {worker: {} for worker in workers}
        for pid, (_, _, resident) in processes.items():
            worker = _worker_of(pid, processes, found)
            if worker is None:
                self._strangers.add(pid)
            else:
                found[worker][pid] = resident
        return found


def _worker_of(pid: int, processes: dict[int, tuple[int, int, int]], workers: Container[int]) -> int | None:
    """The worker in whose session a process is, or one of those that led to it."""
    for _ in range(MOST_STEPS):
        if pid not in processes:
            break
        parent, session, _ = processes[pid]
        if session in workers:
            return session
        pid = parent
    return None


def _stat(pid: str | int) -> tuple[int, int, int]:
    with open(f'/proc/{pid}/stat', 'rb') as file:
        fields = file.read().rpartition(b')')[2].split()
    return int(fields[1]), int(fields[3]), int(fields[21]) * _PAGE


def own(pid: int | str) -> int:
    """Resident bytes that are no file's."""
    return _sum(f'/proc/{pid}/status', b'RssAnon:', b'RssShmem:')


def _proportional(pid: int) -> int:
    """The same, shared ones by their share."""
    return _sum(f'/proc/{pid}/smaps_rollup', b'Pss_Anon:', b'Pss_Shmem:') or own(pid)


def _sum(path: str, *names: bytes) -> int:
    try:
        with open(path, 'rb') as file:
            lines = [line.split() for line in file if line.startswith(names)]
    except OSError:  # it has just ended, or may not be looked at
        return 0
    return sum(int(line[1]) for line in lines) * 1024


def resident() -> int:
    """Bytes of this process that are no file's, as far as that is known cheaply."""
    try:
        with open('/proc/self/statm', 'rb') as file:
            _, all_pages, shared, *_ = map(int, file.read().split())
    except OSError:  # the function has left no descriptor
        return 0
    return (all_pages - shared) * _PAGE
