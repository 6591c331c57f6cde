"""How many processors this process may use, and how many threads each worker should start."""

from __future__ import annotations

import math
import os
import posixpath

_GROUPS = '/sys/fs/cgroup'
_OWN_GROUPS = '/proc/self/cgroup'

THREADS_OF = (
    'OMP_NUM_THREADS',
    'OPENBLAS_NUM_THREADS',
    'MKL_NUM_THREADS',
    'NUMEXPR_NUM_THREADS',
    'VECLIB_MAXIMUM_THREADS',
)
"""Environment variables by which numerical libraries are told how many threads to start."""


def processors() -> int:
    """Return the number of processors this process may use, by CPU affinity and control groups."""
    try:
        mine = len(os.sched_getaffinity(0))
    except AttributeError:  # macOS
        return os.cpu_count() or 1
    allowed = allowed_by_groups()
    return mine if allowed is None else max(1, min(mine, math.ceil(allowed)))


def allowed_by_groups(own: str = _OWN_GROUPS, mounted: str = _GROUPS) -> float | None:
    """Return the number of processors that control groups allow (``docker run --cpus``); None: no limit.

    It is the minimum over a group and its parents, for both versions of control groups. In a container, the
    path of the own group is often that of the host, and the group itself is mounted: then that one is read.
    """
    found = []
    for line in _read(own).splitlines():
        number, _, rest = line.partition(':')
        controllers, _, path = rest.partition(':')
        if number == '0' and not controllers:
            found += [_limit_of_two(f'{mounted}{at}') for at in _upward(path)]
        elif 'cpu' in controllers.split(','):
            tops = [f'{mounted}/{name}' for name in (controllers, 'cpu')]
            found += [_limit_of_one(f'{top}{at}') for top in tops for at in _upward(path)]
    return min((limit for limit in found if limit), default=None)


def _upward(path: str) -> list[str]:
    steps = [part for part in posixpath.normpath(path).split('/') if part not in ('', '..')]
    return ['/'.join(['', *steps[:length]]) for length in range(len(steps), -1, -1)]


def _limit_of_two(group: str) -> float | None:
    return _quotient(*_read(f'{group}/cpu.max').split()[:2])


def _limit_of_one(group: str) -> float | None:
    quota, period = _read(f'{group}/cpu.cfs_quota_us'), _read(f'{group}/cpu.cfs_period_us')
    return _quotient(quota.strip(), period.strip())


def _quotient(quota: str = '', period: str = '') -> float | None:
    """Parse a quota; None if there is no limit: ``max`` in version two, -1 in version one."""
    if not (quota.isdecimal() and period.isdecimal()) or not int(period):
        return None
    return int(quota) / int(period)


def _read(path: str) -> str:
    try:
        with open(path, encoding='utf-8', errors='replace') as file:
            return file.read(65536)
    except OSError:
        return ''


def limited_threads(workers: int, wanted: int | None) -> dict[bytes, bytes]:
    """Return environment variables for workers, so that all together use each processor once.

    Variables in the environment are kept, unless a number was ``wanted``.
    """
    number = str(wanted or max(1, processors() // workers)).encode()
    names = map(os.fsencode, THREADS_OF)
    return {name: number for name in names if wanted is not None or name not in os.environb}
