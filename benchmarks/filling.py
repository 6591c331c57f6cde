"""An index of a million rows without computing them."""

import contextlib
import os
import sqlite3
from datetime import UTC, datetime, timedelta

from hadrosaur import Project
from hadrosaur.records import COLUMNS

from .floors import INSERT, NO_ARGS
from .harness import Wrong

MAIN = 'main'
"""The collection that holds four rows of five."""

OTHER = 'other'
_KINDS = ('ValueError', 'KeyError', 'OSError', 'ZeroDivisionError', 'WorkerDied')
_START = datetime(2026, 1, 1, tzinfo=UTC)


def fill_index(base, number):
    """Make a project in ``base`` whose index holds ``number`` rows and whose folders are not there."""
    for name in (MAIN, OTHER):
        os.mkdir(f'{base}/{name}')
    path = f'{base}/index.sqlite3'
    with Project(base) as project:
        project.stats()
    with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as database:
        database.execute('PRAGMA cache_size = -400000')
        database.execute('BEGIN')
        database.executemany(INSERT, map(_row, range(number)))
        database.execute('COMMIT')
    with Project(base) as project:
        found = sum(counts['total'] for counts in project.stats().values())
    if found != number:
        raise Wrong(f'{path} holds {found} rows instead of {number}')


def _row(number):
    collection, ident = (OTHER if number % 5 == 4 else MAIN), f'item-{number:07}'
    failed = number % 40 == 7
    moment = _START + timedelta(milliseconds=37 * number)
    queued, started, finished = (_text(moment + timedelta(milliseconds=after)) for after in (0, 20, 90))
    kind = _KINDS[number // 40 % len(_KINDS)] if failed else None
    cells = {
        'collection': collection,
        'ident': ident,
        'status': 'error' if failed else 'completed',
        'args': '{}',
        'args_hash': NO_ARGS,
        'attempt': 1,
        'queued_at': queued,
        'started_at': started,
        'finished_at': finished,
        'duration': 0.05 + number % 1000 / 1000,
        'error_type': kind,
        'error': f'item {ident} has no such value: {number}' if failed else None,
        'error_group': f'f1:{_KINDS.index(kind):032x}' if failed else None,
        'host': 'somewhere',
        'pid': 4711,
        'cpu_seconds': 0.04,
        'max_rss': 24_000_000,
        'path': f'{collection}/{ident}',
        'changed': finished,
        'seen_mtime_ns': int(moment.timestamp() * 1e9),
    }
    return tuple(map(cells.get, COLUMNS))


def _text(moment):
    return moment.isoformat(timespec='microseconds')[:26] + 'Z'
