"""The state of a project as shown on the command line and on the page.

Rates, running resources, differences between attempts, and everything for Prometheus.
"""

from __future__ import annotations

import contextlib
import difflib
import json
import os
import re
import shlex
import stat
import time
from typing import TYPE_CHECKING, Any

from . import directory, fileops, run_progress
from .directory.history import ATTEMPTS
from .errors import HadrosaurError, ResourceNotFound
from .sanitize import utc

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from .handle import Resource
    from .project import Project
    from .records import Entry, ErrorGroup

RECENT = 60.0  # seconds that count for the rate, if two resources were finished in them
LESS_RECENT = 3600.0  # seconds that count where each one takes long
SAMPLE = 500  # resources looked at for the rate; the last ones are found by an index
LONGEST_RUNS = 20  # runs of a collection that are asked how far they are
TAIL = 4096  # bytes at the end of a log in which its last line is looked for
_SEQUENCE = re.compile(r'\x1b\[[0-?]*[ -/]*[@-~]')  # colours, and what moves the cursor
COMPARED = ('result.json', 'error.log', 'stdout.log', 'stderr.log')
MOST_COMPARED = 4 << 20  # bytes of the end of a file that is compared
QUANTILES = {'p50': '0.5', 'p95': '0.95', 'max': '1'}


def state(project: Project, collection: str | None) -> dict[str, Any]:
    """Return Project.stats, with ``rate`` (per second) and ``eta_seconds`` for each collection, or None."""
    found = project.stats(collection)
    for name, counts in found.items():
        counts['rate'], counts['eta_seconds'], counts['progress'] = None, None, []
        if counts['pending']:
            speed = rate(project, name)
            counts['rate'] = speed and round(speed, 4)
            counts['eta_seconds'] = round(counts['pending'] / speed, 1) if speed else None
            counts['progress'] = list(_progress(project, name))
    return found


def _progress(project: Project, collection: str) -> Iterator[dict[str, Any]]:
    """Return the progress of the longest runs that report it."""
    for row in project.query(collection, status='pending', order_by='started_at', limit=LONGEST_RUNS):
        if row.phase == 'running':
            with contextlib.suppress(HadrosaurError):
                if (said := project.get(collection, row.ident).progress) is not None:
                    yield {'ident': row.ident, **said._asdict()}


def rate(project: Project, collection: str) -> float | None:
    """Return the number of resources finished per second lately."""
    last = project.query(collection, order_by='-finished_at', limit=SAMPLE)
    ends = [entry.finished_at.timestamp() for entry in last if entry.finished_at is not None]
    now = max([time.time(), *ends])  # whoever computed them may have a clock that is ahead
    ages = sorted(now - end for end in ends)
    for window in (RECENT, LESS_RECENT):
        recent = [age for age in ages if age <= window]
        if len(recent) > 1:
            # From the oldest one's end until now, all but the oldest were finished.
            return (len(recent) - 1) / max(recent[-1], 1e-3)
    return None


def retry_command(group: ErrorGroup) -> str:
    """Return the shell command that retries the failures of a group."""
    return f'hadrosaur retry MODULE:PROJ {shlex.quote(group.collection)} --group {shlex.quote(group.group)}'


# --- what runs -------------------------------------------------------------------------------------


def seen(project: Project, row: Entry) -> dict[str, Any]:
    """Describe a running resource: where, since when, progress, and last output line."""
    since = row.started_at
    return {
        'collection': row.collection,
        'ident': row.ident,
        'attempt': row.attempt,
        'host': row.host,
        'pid': row.pid,
        'started_at': utc(since),
        'seconds': None if since is None else round(max(0.0, time.time() - since.timestamp()), 1),
        **_in_its_folder(project, row),
    }


def _in_its_folder(project: Project, row: Entry) -> dict[str, Any]:
    """Return the progress of a run and the end of its output; None for what there is not."""
    said, tails = None, [(0, '')]
    with contextlib.suppress(OSError, HadrosaurError):
        path = project._registry.get_any(row.collection).spec.path
        with fileops.opened_below(path, directory.find_folder(path, row.ident)) as folder:
            tails = [_tail(name, folder) for name in (directory.STDOUT, directory.STDERR)]
            said = run_progress.read(folder)
    return {'progress': said, 'last_line': max(tails)[1] or None}


def _tail(name: str, folder: int) -> tuple[int, str]:
    """Return (mtime, last line) of a log; (0, '') if it is empty or not a file."""
    fd = -1
    try:
        fd = os.open(name, fileops.READ, dir_fd=folder)
        found = os.fstat(fd)
        if not stat.S_ISREG(found.st_mode):
            return 0, ''
        data = os.pread(fd, TAIL, max(0, found.st_size - TAIL))
    except OSError:
        return 0, ''
    finally:
        if fd >= 0:
            os.close(fd)
    text = _SEQUENCE.sub('', data.decode('utf-8', 'backslashreplace'))
    lines = [line.strip() for line in re.split(r'[\r\n]', text)]  # of a bar that draws over itself, the last
    line = next(filter(None, reversed(lines)), '')
    return (found.st_mtime_ns, line) if line else (0, '')


# --- attempts --------------------------------------------------------------------------------------


def attempt_folder(resource: Resource, number: int) -> str:
    """Return the path of an attempt's files. Raises ResourceNotFound if they were not kept."""
    base = resource.paths['base']
    if number == resource.entry.attempt:
        return base
    folder = f'{base}/{ATTEMPTS}/{number}'
    if os.path.isdir(folder) and not any(map(os.path.islink, (os.path.dirname(folder), folder))):
        return folder
    kept = [name for name in _names(os.path.dirname(folder)) if name.isdecimal()]
    there = ', '.join(sorted(kept, key=int)) or 'none'
    raise ResourceNotFound(
        f'attempt {number} of {resource.collection}/{resource.ident} has no files: the last attempt is'
        f' {resource.entry.attempt}, and of those before there is {there}',
        collection=resource.collection,
        ident=resource.ident,
        hint='resource(…, keep_attempts=N) keeps the files of the last N',
    )


def _names(folder: str) -> list[str]:
    try:
        return os.listdir(folder)
    except OSError:
        return []


def differences(resource: Resource, before: int, after: int) -> Iterator[str]:
    """Compare args, result, traceback and logs of two attempts, in the format of `diff -u`."""
    folders = [(number, attempt_folder(resource, number)) for number in (before, after)]
    for name in ('args', *COMPARED):
        texts = [(f'{number}/{name}', _lines_of(folder, name)) for number, folder in folders]
        (one, old), (other, new) = texts
        yield from difflib.unified_diff(old, new, one, other, lineterm='')


def _lines_of(folder: str, name: str) -> list[str]:
    """Return the lines of an attempt's file, or of its end; args come from its record."""
    try:
        with fileops.opened(folder, fileops.LOOK) as opened_folder:
            if name != 'args':
                return (
                    fileops.read_tail(name, opened_folder, MOST_COMPARED)
                    .decode(errors='replace')
                    .splitlines()
                )
            record = directory.read_record(opened_folder) or {}
    except (FileNotFoundError, NotADirectoryError):
        return []
    return json.dumps(record.get('args'), indent=1, ensure_ascii=False).splitlines()


# --- for Prometheus --------------------------------------------------------------------------------


def prometheus(project: Project) -> str:
    """Return counts and durations in Prometheus's text format."""
    stats = project.stats()
    running = dict.fromkeys(stats, 0)
    for row in project.query(status='pending'):
        running[row.collection] = running.get(row.collection, 0) + (row.phase == 'running')
    parts = (
            _metric('hadrosaur_resources', 'Resources by collection and status.', (
                ({'collection': name, 'status': status}, counts[status])
                for name, counts in stats.items() for status in ('completed', 'error', 'pending')
            )),
            _metric('hadrosaur_running', 'Resources that are being computed.', (
                ({'collection': name}, count) for name, count in running.items()
            )),
            _metric('hadrosaur_duration_seconds',
                    'Seconds that runs took: quantiles of those that are done.', (
                ({'collection': name, 'quantile': quantile}, counts['duration'][word])
                for name, counts in stats.items() for word, quantile in QUANTILES.items()
                if counts['duration'][word] is not None
            )),
    )  # fmt: skip
    return ''.join(parts)


def _metric(name: str, meaning: str, samples: Iterable[tuple[dict[str, str], Any]]) -> str:
    lines = [f'# HELP {name} {meaning}\n# TYPE {name} gauge\n']
    for labels, value in samples:
        told = ','.join(f'{label}="{_escaped(text)}"' for label, text in labels.items())
        lines.append(f'{name}{{{told}}} {value}\n')
    return ''.join(lines)


def _escaped(text: str) -> str:
    return text.replace('\\', r'\\').replace('"', r'\"').replace('\n', r'\n')
