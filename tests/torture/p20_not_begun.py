"""P20: a run that never began leaves folder and row as they were, whatever kept it from beginning.

Functions that cannot be loaded or kill their loader, and claims that fail: too many open files, links in the
place of folder and storage, permissions; on every executor, for a first run, a completed and a failed one.
"""

import ctypes
import os
import resource
import shutil
import subprocess
import sys
import tempfile
import warnings
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from contextlib import closing, contextmanager, suppress
from multiprocessing import get_context
from pathlib import Path

import pytest
from harness import IS_FULL, count

from hadrosaur import HadrosaurWarning, Project, ResourceNotFound
from hadrosaur.records import COLUMNS

TIMES = count(5, quick=1)
EXECUTORS = ['inline', 'threads', 'processes', 'ThreadPoolExecutor', 'ProcessPoolExecutor', 'loky', 'dask']
CHOSEN = EXECUTORS if IS_FULL else ['inline', 'processes']
IDENTS = ['done', 'failed', 'new']


class Bad:
    """Something that a function drags along: loading it calls a function."""

    def __init__(self, call, *arguments):
        self.called = call, arguments

    def __reduce__(self):
        return self.called


FEW = """
import os, resource
lowest = os.dup(0)
os.close(lowest)
resource.setrlimit(resource.RLIMIT_NOFILE, (lowest, resource.getrlimit(resource.RLIMIT_NOFILE)[1]))
"""
LOADS = {
    'it exits': lambda: Bad(os._exit, 7),
    'it is killed': lambda: Bad(exec, 'import os; os.kill(os.getpid(), 9)'),
    'it raises': lambda: Bad(int, 'no number'),
    'it asks to exit': lambda: Bad(sys.exit, 3),
    'its module is gone': lambda: Bad(__import__, 'no_such_module_anywhere'),
    'too many open files': lambda: Bad(exec, FEW),  # of the worker that loads it
}
PLACES = ['folder is a link', 'storage is a link', 'no permission', 'too many open files']
FAULTS = [*LOADS, *PLACES[:3]]


@contextmanager
def executor(name):
    """An executor of that name."""
    if name == 'ThreadPoolExecutor':
        with ThreadPoolExecutor(1) as pool:
            yield pool
    elif name == 'ProcessPoolExecutor':
        with ProcessPoolExecutor(1, mp_context=get_context('spawn')) as pool:
            yield pool
    elif name == 'loky':
        loky = pytest.importorskip('loky')
        pool = loky.ProcessPoolExecutor(1)
        yield pool
        pool.shutdown(wait=True, kill_workers=True)
    elif name == 'dask':
        distributed = pytest.importorskip('distributed')
        with (
            distributed.LocalCluster(
                n_workers=1, threads_per_worker=1, processes=False, dashboard_address=None
            ) as cluster,
            distributed.Client(cluster) as client,
        ):
            yield client
    else:
        yield name


def contents(folder):
    """What stands there: bytes of files, targets of links; None where nothing does."""
    if folder.is_symlink() or not folder.exists():
        return os.readlink(folder) if folder.is_symlink() else None
    found = {}
    for path in sorted(folder.rglob('*')):
        if path.name != '.lock':
            is_link, name = path.is_symlink(), str(path.relative_to(folder))
            found[name] = os.readlink(path) if is_link else path.read_bytes() if path.is_file() else None
    return found


def filled(base):
    """A base with a completed and a failed resource, and a function that can drag something along."""
    proj, dragged = Project(base), []

    @proj.resource('coll')
    def compute(ident, args, subdir):
        Path(subdir, 'kept').write_text(ident)
        print(ident)
        if ident == 'failed':
            raise ValueError('the first run failed')
        return ['precious', len(dragged)]

    proj.resource('warm')(lambda ident, args, subdir: None)
    for ident in IDENTS[:2]:
        proj.fetch('coll', ident, {'asked': 1})
    return proj, dragged


@contextmanager
def faulty(fault, base, dragged, name):
    """Nothing can begin; yields the idents for which that is so."""
    if fault == 'too many open files' and name in ('inline', 'threads'):
        kind = no_descriptor_left()
    elif fault in LOADS:
        kind = dragging(dragged, LOADS[fault]())
    elif fault == 'no permission':
        kind = closed_to_us(base / 'coll')
    else:
        kind = linked(base / 'coll', base.parent / 'away', '' if fault == 'folder is a link' else '/storage')
    with kind:
        # With its last descriptors a worker can take a new folder; then its run has begun, and failed.
        is_of_worker = fault == 'too many open files' and name not in ('inline', 'threads')
        yield IDENTS[:2] if is_of_worker or fault == 'storage is a link' else IDENTS


@contextmanager
def no_descriptor_left():
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    opened = []
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(map(int, os.listdir('/proc/self/fd'))) + 1, hard))
    try:
        with suppress(OSError):
            while True:
                opened.append(os.open('/', os.O_RDONLY))
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        for fd in opened:
            os.close(fd)


@contextmanager
def dragging(dragged, what):
    dragged.append(what)
    try:
        yield
    finally:
        dragged.clear()


@contextmanager
def closed_to_us(coll):
    for ident in IDENTS[:2]:
        (coll / ident).chmod(0)
    coll.chmod(0o555)
    try:
        yield
    finally:
        coll.chmod(0o755)
        for ident in IDENTS[:2]:
            (coll / ident).chmod(0o755)


@contextmanager
def linked(coll, away, below):
    """Each folder, or what is below it, is moved elsewhere, and a link to it stands in its place."""
    away.mkdir()
    for ident in IDENTS[:2]:
        Path(f'{coll}/{ident}{below}').rename(away / ident)
        Path(f'{coll}/{ident}{below}').symlink_to(away / ident)
    if not below:
        (away / 'new').mkdir()
        (away / 'new/mine').write_text('mine')
        (coll / 'new').symlink_to(away / 'new')
    before = contents(away)
    try:
        yield
        assert contents(away) == before, 'changed through a link'
    finally:
        for ident in IDENTS[:2]:
            Path(f'{coll}/{ident}{below}').unlink()
            (away / ident).rename(f'{coll}/{ident}{below}')
        (coll / 'new').unlink(missing_ok=True)
        shutil.rmtree(away)


def attack(name, fault, times, place):
    """Nothing begins, so often; returns how many runs did not begin."""
    tried = 0
    with executor(name) as where:
        for _ in range(times):
            base = Path(tempfile.mkdtemp(dir=place)) / 'base'
            proj, dragged = filled(base)
            try:
                tried += nothing_begins(proj, dragged, base, fault, name, where)
            finally:
                proj.close(cancel=True)
                shutil.rmtree(base.parent)
    return tried


def nothing_begins(proj, dragged, base, fault, name, where):
    coll, what = base / 'coll', f'{fault} on {name}'
    proj.fetch_many('warm', ['up'], workers=1, executor=where).wait()
    rows = {entry.ident: shown(entry) for entry in proj.query('coll')}
    before = {ident: contents(coll / ident) for ident in IDENTS}
    with faulty(fault, base, dragged, name) as idents, warnings.catch_warnings():
        warnings.simplefilter('ignore', HadrosaurWarning)
        with closing(proj.fetch_many('coll', idents, workers=1, executor=where, recompute=True)) as batch:
            resources = list(batch)
    found = [(res.ident, res.status, res.result, res.entry.error_type, res.error) for res in resources]
    assert {ident for ident, *_ in found} == set(idents), f'{what}: {found}'
    for ident, status, result, kind, error in found:
        assert (status, result) == ('error', None), f'{what}: {ident} is {status} {result}'
        assert kind, what
        assert 'the first run failed' not in (error or ''), f'{what}: {kind} {error}'
    now = {ident: contents(coll / ident) for ident in IDENTS}
    assert now == before, f'{what}: changed are {changed(before, now)}'
    if fault == 'folder is a link':  # no link is followed, so that there is nothing of which a row could tell
        proj.reindex()
    now = {entry.ident: shown(entry) for entry in proj.query('coll')}
    assert now == rows, f'{what}: of the rows {changed(rows, now)}'
    assert proj.fetch('coll', 'done').result == ['precious', 0], what
    assert proj.get('coll', 'failed').error.endswith('the first run failed\n'), what
    with pytest.raises(ResourceNotFound):
        proj.get('coll', 'new')
    assert proj.check(deep=True).findings == [], what
    return len(idents)


def shown(entry):
    """A row, by column, but for when and by whom it was written."""
    return {name: entry[name] for name in COLUMNS if name not in ('changed', 'session')}


def changed(before, now):
    """What differs of two dicts of dicts, or of texts."""
    found = []
    for ident in sorted(before.keys() | now.keys()):
        one, other = before.get(ident) or {}, now.get(ident) or {}
        found += [
            f'{ident} {name}'
            for name in sorted(one.keys() | other.keys())
            if one.get(name) != other.get(name)
        ]
    return found


@pytest.mark.parametrize('fault', FAULTS)
@pytest.mark.parametrize('name', CHOSEN)
def test_what_never_began_changed_nothing(name, fault, record):
    """Folder and row are as they were, the caller is told why, and all is well once the fault is gone."""
    if fault in LOADS and fault != 'too many open files' and name in ('inline', 'threads'):
        pytest.skip('there a function is not loaded')
    with tempfile.TemporaryDirectory(dir='/dev/shm') as place:
        record('P20', TIMES * len(IDENTS), 0)
        if fault == 'no permission' and os.getuid() == 0:
            command = [sys.executable, __file__, name, fault, str(TIMES), place]
            done = subprocess.run(command, capture_output=True, text=True, timeout=300)
            assert done.returncode == 0, done.stderr[-3000:]
        else:
            attack(name, fault, TIMES, place)


def as_anybody(name, fault, times, place):
    """As root, whom permissions hold back like anybody else, here and in each process that is started."""
    libc = ctypes.CDLL(None, use_errno=True)
    for capability in (1, 2):  # CAP_DAC_OVERRIDE, CAP_DAC_READ_SEARCH
        assert libc.prctl(24, capability, 0, 0, 0) == 0  # PR_CAPBSET_DROP
    header = (ctypes.c_uint32 * 2)(0x20080522, 0)
    held = (ctypes.c_uint32 * 6)()
    assert libc.capget(header, held) == 0
    for kind in range(3):  # effective, permitted, inheritable
        held[kind] &= ~0b110
    assert libc.capset(header, held) == 0
    attack(name, fault, int(times), place)


if __name__ == '__main__':
    as_anybody(*sys.argv[1:])
