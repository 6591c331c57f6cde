"""One contract, kept by every executor: same files, same rows, exact blame, logs apart, nothing left."""

import contextlib
import json
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from conftest import HANG, is_running

from hadrosaur import ExecutorFault, Project

HERE = Path(__file__).parent
EXAMPLE = HERE.parent.parent / 'examples/compression_on_dask.py'


@contextlib.contextmanager
def futures_threads():
    from concurrent.futures import ThreadPoolExecutor

    with ThreadPoolExecutor(2) as executor:
        yield executor


@contextlib.contextmanager
def futures_processes():
    from concurrent.futures import ProcessPoolExecutor

    with ProcessPoolExecutor(2) as executor:
        yield executor


@contextlib.contextmanager
def loky():
    module = pytest.importorskip('loky', reason='loky is not installed')
    executor = module.ProcessPoolExecutor(2)
    try:
        yield executor
    finally:
        executor.shutdown(wait=True, kill_workers=True)


@contextlib.contextmanager
def dask(address):
    distributed = pytest.importorskip('distributed', reason='dask is not installed')
    with distributed.Client(address, timeout=60, set_as_default=False) as client:
        yield client
    if callbacks := getattr(
        distributed.Future, '_cb_executor', None
    ):  # else a thread of it stays: programs with one are others
        callbacks.shutdown()
        distributed.Future._cb_executor = None


KINDS = [
    'inline', 'threads', 'processes', 'ThreadPoolExecutor', 'ProcessPoolExecutor', 'loky',
    pytest.param('dask', marks=pytest.mark.long),  # three interpreters that load all of dask
]  # fmt: skip
KILLS = [kind for kind in KINDS if kind not in ('inline', 'threads')]


@pytest.fixture(scope='module')
def cluster(tmp_path_factory):
    """A real scheduler and two real worker processes on loopback, in other working directories."""
    pytest.importorskip('distributed', reason='dask is not installed')
    folder = tmp_path_factory.mktemp('cluster')
    file = folder / 'scheduler.json'
    quiet = {'stdout': subprocess.DEVNULL, 'stderr': subprocess.DEVNULL}
    dask_command = [sys.executable, '-m', 'distributed.cli.dask_scheduler']
    started = [
        subprocess.Popen(
            [
                *dask_command,
                '--host',
                '127.0.0.1',
                '--port',
                '0',
                '--no-dashboard',
                '--scheduler-file',
                str(file),
            ],
            cwd=folder,
            start_new_session=True,
            **quiet,
        )
    ]
    while not file.exists() or not file.read_text().strip():
        assert started[0].poll() is None
        time.sleep(0.05)
    for number, nanny in enumerate(['--nanny', '--no-nanny']):
        place = folder / f'worker{number}'
        place.mkdir()
        command = [sys.executable, '-m', 'distributed.cli.dask_worker', '--scheduler-file', str(file), nanny]
        started.append(
            subprocess.Popen(
                [*command, '--nthreads', '1', '--no-dashboard', '--local-directory', str(place)],
                cwd=place,
                start_new_session=True,
                **quiet,
            )
        )
    address = json.loads(file.read_text())['address']
    with dask(address) as client:
        client.wait_for_workers(2, timeout=300)
    yield address
    for process in reversed(started):  # dask's own way of ending waits now and then for ever
        os.killpg(process.pid, signal.SIGKILL)
        process.wait(timeout=HANG)


@pytest.fixture(params=KINDS)
def executor(request):
    """Each executor in turn."""
    yield from make(request)


@pytest.fixture(params=KILLS)
def killable(request):
    """Each executor whose functions run in slots."""
    yield from make(request)


def make(request):
    kind = request.param
    makers = {
        'ThreadPoolExecutor': futures_threads,
        'ProcessPoolExecutor': futures_processes,
        'loky': loky,
        'dask': lambda: dask(request.getfixturevalue('cluster')),
    }
    if kind not in makers:
        yield kind
        return
    with makers[kind]() as made:
        yield made


def in_module(ident, args, subdir):
    """A function that another process imports."""
    print('printed by', ident)
    print('complained', ident, file=sys.stderr)
    Path(subdir, 'file').write_text(ident)
    if args.get('fails'):
        raise ValueError(f'{ident} failed')
    return {'ident': ident, 'args': args}


def test_same_files_and_rows(proj, executor):
    """Whatever computes them, the same files and rows are left, failures included, and the rest goes on."""
    proj.resource('coll')(in_module)
    work = {f'i{n}': {'n': n, 'fails': n % 5 == 0} for n in range(20)}
    batch = proj.fetch_many('coll', work, executor=executor, workers=2)
    seen = {resource.ident: resource for resource in batch}

    assert batch.counts == (20, 16, 4, 0, 0)
    assert seen.keys() == work.keys()
    for ident, args in work.items():
        folder = Path(proj.path, 'coll', ident)
        status = json.loads((folder / 'status.json').read_text())
        assert status == {'completed': not args['fails'], 'pending': False, 'error': args['fails']}
        assert (folder / 'stdout.log').read_text() == f'printed by {ident}\n'
        assert (folder / 'stderr.log').read_text() == f'complained {ident}\n'
        assert (folder / 'storage/file').read_text() == ident
        if args['fails']:
            assert f'ValueError: {ident} failed' in (folder / 'error.log').read_text()
        else:
            assert json.loads((folder / 'result.json').read_text()) == {'ident': ident, 'args': args}
            assert seen[ident]['result'] == {'ident': ident, 'args': args}
    rows = {entry.ident: entry for entry in proj.query('coll')}
    assert {ident: row.status for ident, row in rows.items()} == {
        ident: 'error' if args['fails'] else 'completed' for ident, args in work.items()
    }
    assert all(row.attempt == 1 and row.duration is not None for row in rows.values())
    assert not proj.check().findings


def test_functions_from_everywhere(proj, executor):
    """Closures, lambdas and functions of modules are carried alike."""
    added = 5

    def closure(ident, args, subdir):
        return int(ident) + added

    proj.resource('closure')(closure)
    proj.resource('lambda')(lambda ident, args, subdir: ident * 2)
    proj.resource('module')(in_module)

    assert [res['result'] for res in proj.fetch_many('closure', [1], executor=executor)] == [6]
    assert [res['result'] for res in proj.fetch_many('lambda', ['a'], executor=executor)] == ['aa']
    assert proj.fetch_many('module', ['a'], executor=executor).wait().completed == 1


def test_a_killed_process_costs_its_own_resource(proj, killable):
    """kill -9, os._exit and a segmentation fault: exactly that resource fails, and names how."""

    @proj.resource('coll')
    def compute(ident, args, subdir):
        import ctypes

        if ident == 'killed':
            os.kill(os.getpid(), signal.SIGKILL)
        if ident == 'exited':
            os._exit(3)
        if ident == 'crashed':
            ctypes.string_at(0)
        return ident

    idents = [*map(str, range(12)), 'killed', *map(str, range(12, 24)), 'exited', 'crashed', 'last']
    counts = proj.fetch_many('coll', idents, executor=killable, workers=2).wait()
    rows = {entry.ident: (entry.error_type, entry.error) for entry in proj.query('coll', status='error')}

    assert counts == (len(idents), len(idents) - 3, 3, 0, 0)
    assert {ident: kind for ident, (kind, _) in rows.items()} == dict.fromkeys(
        ('killed', 'exited', 'crashed'), 'WorkerDied'
    )
    assert 'SIGKILL' in rows['killed'][1]
    assert 'status 3' in rows['exited'][1]
    assert 'SIGSEGV' in rows['crashed'][1]
    assert 'Segmentation fault' in Path(proj.path, 'coll/crashed/stderr.log').read_text()


def test_timeout_kills_the_run_and_what_it_started(proj, killable):
    """A run over its time ends as TimedOut, and its subprocess with it; the others never notice."""

    @proj.resource('coll', timeout=0.5)
    def compute(ident, args, subdir):
        if ident == 'hangs':
            child = subprocess.Popen(['sleep', '600'])
            Path(subdir, 'pid').write_text(str(child.pid))
            child.wait()
        return ident

    counts = proj.fetch_many('coll', ['a', 'hangs', 'b', 'c'], executor=killable, workers=2).wait()
    [row] = proj.query('coll', status='error')
    pid = int(Path(proj.path, 'coll/hangs/storage/pid').read_text())

    assert counts == (4, 3, 1, 0, 0)
    assert (row.ident, row.error_type) == ('hangs', 'TimedOut')
    assert '0.5 s' in row.error
    wait_until(lambda: not is_running(pid))


def test_timeout_is_refused_on_threads(proj):
    """A thread cannot be stopped, and the error says so."""
    proj.resource('coll', timeout=1)(in_module)
    with pytest.raises(ExecutorFault, match='thread cannot be stopped'):
        proj.fetch_many('coll', ['a'], executor='threads').wait()

    assert len(proj.query()) == 0


def test_cancel_in_mid_run(proj, killable, tmp_path):
    """What runs is killed and ends as Cancelled; what is not begun is as if never asked for."""

    @proj.resource('coll')
    def compute(ident, args, subdir):
        if ident != 'first':
            Path(args['began']).touch()
            time.sleep(600)

    work = [('first', {}), *((f'i{n}', {'began': str(tmp_path / 'began')}) for n in range(30))]
    batch = proj.fetch_many('coll', work, executor=killable, workers=1)
    assert next(batch).ident == 'first'
    canceller = threading.Thread(target=lambda: (wait_until((tmp_path / 'began').exists), batch.cancel()))
    canceller.start()
    left = list(batch)
    canceller.join()

    assert {res.status for res in left} <= {'error'}
    assert 1 <= len(left) <= 2
    assert batch.counts.pending == 0
    assert {entry.error_type for entry in proj.query(status='error')} == {'Cancelled'}
    assert len(proj.query(status='pending')) == 0
    assert len(os.listdir(Path(proj.path, 'coll'))) == 1 + len(left)


def test_retries_count_attempts(proj, executor, tmp_path):
    """A failed run is tried again; each attempt counts, and the last error is kept."""

    @proj.resource('coll', retries=2, retry_delay=0.01)
    def compute(ident, args, subdir):
        tries = Path(args['tries'], ident)
        count = int(tries.read_text()) + 1 if tries.exists() else 1
        tries.write_text(str(count))
        if ident == 'never' or count < 3:
            raise ValueError(f'try {count}')
        return count

    args = {'tries': str(tmp_path)}
    seen = {r.ident: r for r in proj.fetch_many('coll', ['third', 'never'], args, executor=executor)}

    assert (seen['third'].status, seen['third']['result']) == ('completed', 3)
    assert seen['never'].status == 'error'
    assert {entry.ident: entry.attempt for entry in proj.query()} == {'third': 3, 'never': 3}
    assert proj.query(status='error')[0].error == 'try 3'


def test_a_retry_waits_for_its_time(proj, executor, tmp_path):
    """``retry_delay`` before the first retry, so many times ``retry_backoff`` before each further one."""

    @proj.resource('coll', retries=2, retry_delay=0.1, retry_backoff=3)
    def compute(ident, args, subdir):
        with open(args['began'], 'a') as began:
            print(time.time(), file=began)
        raise ValueError('as asked')

    args = {'began': str(tmp_path / 'began')}
    assert proj.fetch_many('coll', ['one'], args, executor=executor).wait().error == 1
    first, second, third = map(float, (tmp_path / 'began').read_text().split())

    assert second - first > 0.1
    assert third - second > 0.3


def test_long_runs_among_many_short_ones(proj, executor):
    """What waits behind them, and is handed back or over, is computed all the same, and once."""

    @proj.resource('coll')
    def compute(ident, args, subdir):
        if ident.startswith('long'):
            time.sleep(0.15)
        return ident

    # Several in a row, so that one of them is not the last of what travels together.
    idents = [*map(str, range(40)), 'long1', 'long2', 'long3', *map(str, range(40, 120))]
    counts = proj.fetch_many('coll', idents, executor=executor, workers=1).wait()

    assert counts == (123, 123, 0, 0, 0)
    assert {entry.attempt for entry in proj.query('coll')} == {1}


def test_nested_fetch(proj, executor):
    """What a function fetches is computed once, and its row arrives with the outcome."""

    @proj.resource('inner')
    def inner(ident, args, subdir):
        return len(ident)

    @proj.resource('outer')
    def outer(ident, args, subdir):
        return proj.fetch('inner', ident * 2)['result']

    results = {r.ident: r['result'] for r in proj.fetch_many('outer', ['a', 'bb'], executor=executor)}

    assert results == {'a': 2, 'bb': 4}
    assert {(e.collection, e.ident, e.status) for e in proj.query()} == {
        ('outer', 'a', 'completed'),
        ('outer', 'bb', 'completed'),
        ('inner', 'aa', 'completed'),
        ('inner', 'bbbb', 'completed'),
    }
    assert not proj.check().findings


def test_what_a_killed_parent_had_finished_is_found(proj, killable):
    """Its row went with the parent; the folder is there: check names it, reindex and a fetch take it up."""

    @proj.resource('inner')
    def inner(ident, args, subdir):
        with open(f'{subdir}/../../runs', 'a') as runs:
            runs.write(ident + '\n')
        return len(ident)

    @proj.resource('outer')
    def outer(ident, args, subdir):
        proj.fetch('inner', 'of ' + ident)
        os.kill(os.getpid(), signal.SIGKILL)

    [lost] = proj.fetch_many('outer', ['x'], executor=killable)

    assert (lost.status, lost.entry.error_type) == ('error', 'WorkerDied')
    found = [(finding.problem, finding.collection, finding.ident) for finding in proj.check().findings]
    assert found == [('missing-row', 'inner', 'of x')]
    assert proj.reindex().added == 1
    assert proj.query('inner')[0].status == 'completed'
    assert proj.fetch('inner', 'of x')['result'] == 4
    assert Path(proj.path, 'inner/runs').read_text() == 'of x\n'


def test_an_unpicklable_function_names_the_culprit(proj, killable):
    """A function that cannot travel is refused, by name, and nothing stays pending."""
    lock = threading.Lock()

    @proj.resource('coll')
    def holds_a_lock(ident, args, subdir):
        return lock.locked()

    with pytest.raises(ExecutorFault, match='holds_a_lock'):
        proj.fetch_many('coll', ['a'], executor=killable).wait()

    assert len(proj.query()) == 0


def test_nothing_is_left(proj, executor):
    """After a batch there is no process, thread or descriptor that was not there before."""
    proj.resource('coll')(in_module)
    proj.fetch_many('coll', ['warm', 'up'], executor=executor, workers=2).wait()
    before = left_overs()
    proj.fetch_many('coll', range(8), executor=executor, workers=2).wait()

    wait_until(lambda: all(now <= then for now, then in zip(left_overs(), before, strict=True)))


def left_overs():
    """(slots, threads, descriptors) of this process."""
    mine = subprocess.run(
        ['ps', '--ppid', str(os.getpid()), '-o', 'pid=,args='], capture_output=True, text=True
    )
    templates = [
        line.split()[0] for line in mine.stdout.splitlines() if 'hadrosaur.executors.template' in line
    ]
    slots = subprocess.run(
        ['ps', '--ppid', ','.join(templates) or '0', '-o', 'args='], capture_output=True, text=True
    )
    return (
        slots.stdout.count('hadrosaur.executors.template'),
        sum(thread.name.startswith('hadrosaur') for thread in threading.enumerate()),
        len(os.listdir('/proc/self/fd')) if os.path.exists('/proc/self/fd') else 0,
    )


def wait_until(true, seconds=HANG):
    """Wait for an event; fails if it does not come."""
    deadline = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < deadline, 'it did not happen'
        time.sleep(0.01)


def test_a_waiting_retry_holds_up_nobody(proj, executor):
    """Hundreds are to be tried again in hours: the others are computed, and tried again, meanwhile."""

    @proj.resource('coll', retries=2, retry_delay=0.01, retry_backoff=1_000_000)
    def compute(ident, args, subdir):
        from hadrosaur import current

        if ident.isdigit() or (ident == 'second' and current().attempt == 1):
            raise ValueError(current().attempt)
        return current().attempt

    batch = proj.fetch_many('coll', [*map(str, range(100)), 'second', 'first'], executor=executor, workers=2)
    seen = {resource.ident: resource['result'] for resource in (next(batch), next(batch))}
    batch.cancel()

    assert seen == {'first': 1, 'second': 2}
    assert {resource.status for resource in batch} <= {'error'}  # those that ran just then
    assert proj.stats('coll')['coll']['pending'] == 0


def test_logs_are_complete_and_apart(proj, executor):
    """What is printed and logged stands in its own resource's logs; in slots that of subprocesses too."""
    in_slots = executor not in ('inline', 'threads')

    @proj.resource('coll')
    def compute(ident, args, subdir):
        import logging
        import subprocess
        import sys

        import hadrosaur

        print('printed', ident)
        hadrosaur.current().logger.info('told %s', ident)
        print('complained', ident, file=sys.stderr)
        if args['in_slots']:
            logging.getLogger('mine').info('logged %s', ident)
            logging.getLogger('mine').debug('whispered %s', ident)
            subprocess.run(['echo', 'echoed', ident], check=True)

    idents = [f'i{n}' for n in range(8)]
    proj.fetch_many('coll', idents, {'in_slots': in_slots}, executor=executor, workers=2).wait()

    for ident in idents:
        folder = Path(proj.path, 'coll', ident)
        told, *others = (folder / 'stderr.log').read_text().splitlines()
        assert told.endswith(f'INFO told {ident}')
        if in_slots:
            assert (folder / 'stdout.log').read_text() == f'printed {ident}\nechoed {ident}\n'
            assert others == [f'complained {ident}', f'INFO:mine:logged {ident}']
        else:
            assert (folder / 'stdout.log').read_text() == f'printed {ident}\n'
            assert others == [f'complained {ident}']


# --- bad input -------------------------------------------------------------------------------------------


def test_bad_functions_fail_their_own_resource(proj, executor):
    """A wrong signature, and an exception that cannot be printed, are errors of the resource, in words."""

    class Silent(Exception):
        def __str__(self):
            raise RuntimeError('no words')

    @proj.resource('coll')
    def compute(ident, args, subdir):
        if ident == 'silent':
            raise Silent
        return ident

    proj.resource('few')(lambda ident: ident)
    counts = proj.fetch_many('coll', ['silent', 'fine', 'silent'], executor=executor).wait()
    [wrong] = proj.fetch_many('few', ['x'], executor=executor)

    assert counts[1:] == (1, counts.total - 1, 0, 0)  # a repeat may come when the first is done
    assert {entry.attempt for entry in proj.query('coll')} == {1}
    entry = proj.query('coll', status='error')[0]
    assert entry.error_type.endswith('Silent')
    assert entry.error == '<message unavailable: __str__ raised RuntimeError>'
    assert 'raise Silent' in proj.get('coll', 'silent').error
    assert wrong.entry.error_type == 'TypeError'
    assert 'takes 1 positional argument but 3 were given' in wrong.error


@pytest.mark.parametrize('make', [futures_threads, futures_processes, loky])
def test_an_executor_that_is_shut_down(proj, make):
    """A clear error, and nothing is left pending."""
    proj.resource('coll')(in_module)
    with make() as made:
        made.shutdown()
        with pytest.raises(ExecutorFault, match=r'the executor takes no more work: .*give it a new one'):
            proj.fetch_many('coll', ['a', 'b'], executor=made).wait()

    assert proj.query()[:] == []
    assert proj.check().findings == []


@pytest.mark.long
def test_a_dask_address_nobody_answers(program, monkeypatch):
    """A clear error after a few seconds, and nothing else is said at the end of the program."""
    pytest.importorskip('distributed', reason='dask is not installed')
    done = program(
        """
        import socket
        from hadrosaur import ExecutorFault, Project
        from hadrosaur.executors import dask

        dask.PATIENCE = 0.5
        proj = Project('base')
        proj.resource('coll')(lambda ident, args, subdir: ident)
        with socket.socket() as taken:
            taken.bind(('127.0.0.1', 0))    # and nobody listens
            for address in (f'tcp://127.0.0.1:{taken.getsockname()[1]}', 'nonsense'):
                try:
                    proj.fetch_many('coll', ['a'], executor=f'dask:{address}').wait()
                except ExecutorFault as error:
                    print(error)
        assert proj.query()[:] == [] and not proj.check().findings
        """
    )

    first, second = done.stdout.splitlines()
    assert first.startswith('no dask scheduler answers at tcp://127.0.0.1:')
    assert second.startswith("no dask scheduler can be at 'nonsense': ")
    assert 'dask scheduler`' in first
    assert done.stderr == ''


def test_a_worker_that_cannot_see_the_base(tmp_path):
    """It says so at once, and makes no folders of its own there."""
    from hadrosaur.executors import _chunk_host
    from hadrosaur.executors.base import pack
    from hadrosaur.records import CollectionSpec, Job

    gone = str(tmp_path / 'only/on/the/caller')
    order = Job(
        CollectionSpec('coll', 'coll', gone, gone), 'run', 'a', 'a', '{}', '', '2026-01-01T00:00:00.000000Z'
    )
    try:
        result = _chunk_host.run_chunk(_chunk_host.Chunk([order], pack(in_module), 'owner'))
    finally:
        _chunk_host.close_hosts()

    [outcome] = result.run_results
    assert outcome.entry.status == 'error'
    assert f'the base {gone} cannot be seen from' in outcome.entry.error
    assert 'shared file system' in outcome.entry.error
    assert not list(tmp_path.iterdir())


# --- a cluster of its own --------------------------------------------------------------------------------


@pytest.mark.long
def test_the_dask_example(cluster, tmp_path):
    """examples/compression_on_dask.py runs on a real cluster, and its second run computes nothing."""
    command = [sys.executable, str(EXAMPLE), str(tmp_path / 'base'), cluster]
    first = subprocess.run(command, capture_output=True, text=True, timeout=HANG, check=True)
    with Project(tmp_path / 'base', create=False) as proj:
        counts = proj.stats()['compression']
        rows = [entry.as_json() for entry in proj.query()]
        assert proj.check(deep=True).findings == []
    second = subprocess.run(command, capture_output=True, text=True, timeout=HANG, check=True)
    with Project(tmp_path / 'base', create=False) as proj:
        assert [entry.as_json() for entry in proj.query()] == rows

    assert counts['completed'] == counts['total'] > 100
    assert f'{counts["total"]} modules, 0 failed, by 2 processes' in first.stdout
    assert first.stdout == second.stdout


@pytest.mark.long
def test_a_dask_worker_killed_in_mid_run(proj, cluster, tmp_path):
    """kill -9 of a worker: the slot that it hosted finishes, nothing runs twice, all are completed.

    The last test, since the cluster has one worker less from here on.
    """

    @proj.resource('coll')
    def compute(ident, args, subdir):
        with open(Path(args['at'], ident), 'a') as runs:
            runs.write('ran\n')
        if ident == '5':
            template = Path(f'/proc/{os.getppid()}/stat').read_text().rpartition(')')[2].split()
            os.kill(int(template[1]), signal.SIGKILL)  # the dask worker, whose template's fork this is
            time.sleep(0.5)
        return ident

    with dask(cluster) as client:
        batch = proj.fetch_many('coll', map(str, range(60)), {'at': str(tmp_path)}, executor=client)
        seen = {resource.ident: resource.status for resource in batch}

    assert seen == {str(n): 'completed' for n in range(60)}
    assert all((tmp_path / ident).read_text() == 'ran\n' for ident in seen)
    assert proj.check().findings == []
