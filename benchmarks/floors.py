"""Bare Python that does what has to be done and nothing else.

A floor leaves what hadrosaur leaves, file by file and column by column (`same_shape` compares), by the
shortest way that Python has: os.open, os.write, one SQLite connection. It gives no promise: no lock, no
checks, no way to tell what a crash left. How far hadrosaur is above it is what those promises cost.
"""

import contextlib
import hashlib
import json
import multiprocessing
import os
import resource
import sqlite3
import sys
import time
from concurrent.futures import ProcessPoolExecutor
from datetime import UTC, datetime

from hadrosaur import schema
from hadrosaur.records import COLUMNS

from .harness import Wrong
from .work import work

COLLECTION = 'bench'
CHUNK = 50  # resources for a worker process at a time

PENDING = b'{"completed": false, "pending": true, "error": false}\n'
COMPLETED = b'{"completed": true, "pending": false, "error": false}\n'
NO_ARGS = f'b2:{hashlib.blake2b(b"{}", digest_size=16).hexdigest()}'

_NEW = os.O_WRONLY | os.O_CREAT
_HOST = os.uname().nodename
_CHUNK = 1 << 16


def now():
    """The time as text."""
    return datetime.now(UTC).isoformat(timespec='microseconds')[:26] + 'Z'


# --- files -----------------------------------------------------------------------------------------


class Output:
    """One text stream for all resources, whose descriptor points to the log of the one that runs."""

    def __enter__(self):
        self._nowhere = os.open(os.devnull, os.O_WRONLY)
        self.stream = open(os.dup(self._nowhere), 'w', buffering=1, encoding='utf-8')
        self.fd = self.stream.fileno()
        self._before, sys.stdout = sys.stdout, self.stream
        return self

    def __exit__(self, *_):
        sys.stdout = self._before
        self.stream.close()
        os.close(self._nowhere)


def write_files(collection, ident, output):
    """Compute one resource and write its folder; what a row tells of it, and the result."""
    path = f'{collection}/{ident}'
    queued = now()
    os.mkdir(path)
    os.mkdir(f'{path}/storage')
    status = os.open(f'{path}/status.json', _NEW, 0o666)
    os.write(status, PENDING)
    stdout = os.open(f'{path}/stdout.log', _NEW | os.O_APPEND, 0o666)
    stderr = os.open(f'{path}/stderr.log', _NEW | os.O_APPEND, 0o666)
    os.dup2(stdout, output.fd)
    started = now()
    start = time.perf_counter()
    value = work(ident, {}, f'{path}/storage')
    duration = time.perf_counter() - start
    result = json.dumps(value).encode() + b'\n'
    _write(f'{path}/result.json', result)
    record = {
        'format': 1,
        'collection': COLLECTION,
        'ident': ident,
        'state': 'completed',
        'run': '0123456789abcdef',
        'args_hash': NO_ARGS,
        'attempt': 1,
        'queued_at': queued,
        'started_at': started,
        'finished_at': now(),
        'duration': round(duration, 6),
        'error_type': None,
        'error': None,
        'error_group': None,
        'host': _HOST,
        'pid': os.getpid(),
        'cpu_seconds': round(time.process_time(), 6),
        'max_rss': resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
        'version': None,
        'provenance': '0123456789abcdef',
        'capture': 'descriptors',
        'result_size': len(result),
        'result_sha256': hashlib.sha256(result).hexdigest(),
        'args': {},
    }
    _write(f'{path}/record.json', json.dumps(record).encode() + b'\n')
    os.pwrite(status, COMPLETED, 0)
    record['seen_mtime_ns'] = os.fstat(status).st_mtime_ns
    for fd in (status, stdout, stderr):
        os.close(fd)
    return record, value


def _write(path, data):
    fd = os.open(path, _NEW, 0o666)
    os.write(fd, data)
    os.close(fd)


def write_chunk(collection, names):
    """What a worker process does: files, and the results go back."""
    with Output() as output:
        return [write_files(collection, name, output)[1] for name in names]


def write_on_two(collection, names, workers=2):
    """Files alone, from two processes."""
    chunks = [names[start : start + CHUNK] for start in range(0, len(names), CHUNK)]
    with ProcessPoolExecutor(workers, multiprocessing.get_context('fork')) as pool:
        for values in pool.map(write_chunk, [collection] * len(chunks), chunks):
            yield from values


# --- rows ------------------------------------------------------------------------------------------

_CELLS = ', '.join('?' * len(COLUMNS))
_RECORDED = slice(COLUMNS.index('args_hash'), COLUMNS.index('path'))
_UNKNOWN = (None,) * (COLUMNS.index('path') - COLUMNS.index('started_at'))
_SESSION = f'{_HOST}-{os.getpid()}-00000000'
INSERT = f'INSERT INTO resources VALUES ({_CELLS})'
UPDATE = """
UPDATE resources SET status = 'completed', phase = NULL, started_at = ?, finished_at = ?, duration = ?,
    host = ?, pid = ?, cpu_seconds = ?, max_rss = ?, session = NULL, changed = ?, seen_mtime_ns = ?,
    result = ?
WHERE collection = ? AND ident = ?"""


def open_index(path):
    """A connection to an index, new or not, with hadrosaur's own table, indexes and settings."""
    is_new = not os.path.exists(path)
    database = sqlite3.connect(path, isolation_level=None)
    for pragma in ('journal_mode = WAL', 'synchronous = NORMAL', 'wal_autocheckpoint = 10000'):
        database.execute(f'PRAGMA {pragma}')
    for statement in (schema.TABLE, schema.USES, *schema.INDEXES) if is_new else ():
        database.execute(statement)
    return database


def queue_row(database, ident):
    """One statement: the row says pending."""
    moment = now()
    asked = (COLLECTION, ident, 'pending', 'running', '{}', NO_ARGS, None, 1, moment)
    database.execute(INSERT, (*asked, *_UNKNOWN, f'{COLLECTION}/{ident}', _SESSION, moment, None))


def finish_row(database, ident, record, value):
    """One statement: the row says completed."""
    names = ('started_at', 'finished_at', 'duration', 'host', 'pid', 'cpu_seconds', 'max_rss')
    cells = [record[name] for name in names]
    database.execute(UPDATE, (*cells, now(), record['seen_mtime_ns'], json.dumps(value), COLLECTION, ident))


def row_of(ident, record, mtime, changed):
    """The row of a finished resource, from its record.json."""
    args = json.dumps(record['args'])
    known = map(record.get, COLUMNS[_RECORDED])
    path = f'{COLLECTION}/{ident}'
    return (COLLECTION, ident, record['state'], None, args, *known, path, None, changed, mtime)


def insert_all(database, collection):
    """Rows of all folders, in one transaction."""
    database.execute('PRAGMA cache_size = -100000')
    database.execute('BEGIN')
    database.executemany(INSERT, rows_of_folders(collection))
    database.execute('COMMIT')


# --- reading ---------------------------------------------------------------------------------------


def read(path):
    """The whole of a small file."""
    fd = os.open(path, os.O_RDONLY)
    data = os.read(fd, _CHUNK)
    os.close(fd)
    return data


def read_resource(collection, ident):
    """What fetch returns of a computed resource."""
    path = f'{collection}/{ident}'
    status = json.loads(read(f'{path}/status.json'))
    if not status['completed']:
        raise Wrong(f'{path} is not completed')
    return {
        'result': json.loads(read(f'{path}/result.json')),
        'status': status,
        '_paths': {
            'base': path,
            'error': f'{path}/error.log',
            'stdout': f'{path}/stdout.log',
            'stderr': f'{path}/stderr.log',
            'status': f'{path}/status.json',
            'result': f'{path}/result.json',
            'storage': f'{path}/storage/',
        },
    }


def read_resource_with_args(collection, ident, args):
    """The same, where the args were given: they are hashed, and compared with those in record.json."""
    text = json.dumps(args, ensure_ascii=False, sort_keys=True, separators=(',', ':'))
    args_hash = f'b2:{hashlib.blake2b(text.encode(), digest_size=16).hexdigest()}'
    if json.loads(read(f'{collection}/{ident}/record.json'))['args_hash'] != args_hash:
        raise Wrong(f'{ident} has other args')
    return read_resource(collection, ident)


def stat_all(collection):
    """When each status.json was written."""
    with os.scandir(collection) as folders:
        for folder in folders:
            os.stat(f'{folder.path}/status.json')


def rows_of_folders(collection):
    """The rows of all folders: scandir, three files each, JSON."""
    changed = now()
    with os.scandir(collection) as folders:
        for folder in folders:
            fd = os.open(f'{folder.path}/status.json', os.O_RDONLY)
            completed = json.loads(os.read(fd, _CHUNK))['completed']
            mtime = os.fstat(fd).st_mtime_ns
            os.close(fd)
            if completed:
                record = json.loads(read(f'{folder.path}/record.json'))
                record['result'] = read(f'{folder.path}/result.json').decode().strip()
                yield row_of(folder.name, record, mtime, changed)


# --- is it the same? -------------------------------------------------------------------------------


def same_shape(folder, ident):
    """Does a folder hold what the floor would have left? Raises Wrong."""
    parent = f'{os.path.dirname(os.path.dirname(folder))}/floor-{os.getpid()}-{time.monotonic_ns()}'
    os.mkdir(parent)
    with contextlib.redirect_stdout(None), Output() as output:
        write_files(parent, ident, output)
    ours, theirs = _shape(f'{parent}/{ident}'), _shape(folder)
    if ours != theirs:
        differing = {name for name in ours.keys() | theirs.keys() if ours.get(name) != theirs.get(name)}
        raise Wrong(f'{folder} differs from the floor in {sorted(differing)}: {ours} {theirs}')


def _shape(folder):
    shape = {'storage': os.listdir(f'{folder}/storage')}
    for name in os.listdir(folder):
        if name == 'record.json':
            record = json.loads(read(f'{folder}/{name}'))
            record.pop('max_rss')  # of a run in the user's own process it is known only where that raised it
            shape[name] = {key: type(value).__name__ for key, value in record.items()}
            shape['args_hash'] = record['args_hash']
        elif name == 'result.json':
            shape[name] = json.loads(read(f'{folder}/{name}'))
        elif name != 'storage':
            shape[name] = read(f'{folder}/{name}')
    return shape


def has_rows(path, number, collection=COLLECTION):
    """Does the index hold so many completed rows, each with what a floor's row has? Raises Wrong."""
    given = ('args', 'args_hash', 'attempt', 'queued_at', 'started_at', 'finished_at', 'duration', 'host')
    given += ('pid', 'cpu_seconds', 'path', 'result', 'changed', 'seen_mtime_ns')
    filled = ' AND '.join(f'{name} IS NOT NULL' for name in given)
    with contextlib.closing(sqlite3.connect(path)) as database:
        query = f"SELECT count(*) FROM resources WHERE collection = ? AND status = 'completed' AND {filled}"
        (found,) = database.execute(query, (collection,)).fetchone()
    if found != number:
        raise Wrong(f'{path} has {found} complete rows instead of {number}')
