"""When the surroundings fail for a moment: nothing is lost, nobody waits for ever, and all goes on."""

import concurrent.futures
import errno
import fcntl
import gc
import json
import os
import shutil
import signal
import sys
import threading
import time

import pytest
from conftest import HANG, await_that

from hadrosaur import (
    Counts,
    ExecutorFault,
    HadrosaurWarning,
    Project,
    ResourceError,
    ResourceNotFound,
    basedir,
    compute,
    fileops,
    locks,
)
from hadrosaur.directory.claim import Claim
from hadrosaur.engine import dispatcher
from hadrosaur.errors import IndexBusy
from hadrosaur.executors import _scheduler, _worker_process
from hadrosaur.executors.base import Executor
from hadrosaur.index import Index
from hadrosaur.records import RunResult
from hadrosaur.store import Store


def too_many_files(*_, **__):
    raise OSError(errno.EMFILE, 'Too many open files')


@pytest.fixture
def unreadable(monkeypatch):
    """Make the files of some name unreadable, for so many attempts; how many are left."""
    left = {}
    real = os.open

    def flaky(path, flags, mode=0o777, *, dir_fd=None):
        if left.get(path) and not flags & (os.O_WRONLY | os.O_RDWR):
            left[path] -= 1
            raise left.get('fault', OSError(errno.EMFILE, 'Too many open files'))
        return real(path, flags, mode, dir_fd=dir_fd)

    monkeypatch.setattr(os, 'open', flaky)
    return left


# --- files that cannot be read -----------------------------------------------------------------------


@pytest.mark.parametrize('name', ['record.json', 'result.json'])
def test_what_cannot_be_read_for_a_moment_is_not_taken_for_lost(proj, base, unreadable, name):
    """A result whose status was cut off is settled by its files; if they cannot be read, later."""
    proj.resource('coll')(lambda ident, args, subdir: 'precious')
    proj.fetch('coll', 'a')
    pending = {'completed': False, 'pending': True, 'error': False}
    (base / 'coll/a/status.json').write_text(json.dumps(pending) + '\n')
    unreadable[name] = 1

    found = proj.get('coll', 'a')
    assert (found.status, found.result) in (('pending', None), ('completed', 'precious'))
    assert unreadable[name] == 0
    assert proj.get('coll', 'a')['result'] == 'precious'


def test_a_folder_that_cannot_be_read_keeps_its_row(proj, base, unreadable):
    """Reindex and check name it, and the next ones find everything as it was."""
    proj.resource('coll')(lambda ident, args, subdir: ident)
    proj.fetch('coll', 'a')
    unreadable['record.json'] = 1
    with pytest.raises(OSError, match=r'Too many open files.*coll/a'):  # of ours, and none of the folder's
        proj.reindex()
    assert [entry.status for entry in proj.query()] == ['completed']

    unreadable['fault'] = OSError(errno.EIO, 'Input/output error')
    unreadable['record.json'] = 2
    report = proj.reindex()

    assert report.unreadable == [('coll/a', 'it cannot be read: Input/output error')]
    assert [entry.status for entry in proj.query()] == ['completed']
    unreadable['record.json'] = 2
    found = proj.check(deep=True).findings
    assert [finding.problem for finding in found] == ['damaged']
    assert found[0].detail.startswith('it cannot be read')
    assert proj.reindex()[1:] == (0, 0, 0, [])
    assert proj.check(deep=True).findings == []


def test_a_session_that_cannot_be_looked_at_lives(proj, base, monkeypatch):
    """Too many open files, or a file of another user's: its queued rows stay, and so does its file."""
    proj.resource('coll')(lambda ident, args, subdir: ident)
    proj.fetch('coll', 'a')
    session = proj._base.session()
    proj._store.index.queue([proj.query()[0].change(ident='b', status='pending', path='coll/b')])
    real = os.open
    with monkeypatch.context() as patch, Project(base) as other:
        patch.setattr(
            os,
            'open',
            lambda path, *given, **named: (
                too_many_files() if path == session else real(path, *given, **named)
            ),
        )
        assert other._base.is_alive(session)
        assert other.stats()['coll']['pending'] == 1
    assert (base / '.hadrosaur/sessions' / session).exists()
    assert [row.status for row in proj.query(ident='b')] == ['pending']


def test_a_project_that_is_dropped_gives_its_session_back(base):
    """Many a program makes one in passing, and never closes it."""
    before = None
    for number in range(5):
        proj = Project(base)
        proj.resource('coll')(lambda ident, args, subdir: ident)
        proj.fetch('coll', number)
        del proj
        gc.collect()
        open_now = [
            os.readlink(f'/proc/self/fd/{fd}')
            for fd in os.listdir('/proc/self/fd')
            if fd.isdigit() and os.path.exists(f'/proc/self/fd/{fd}')
        ]
        before = before or len(open_now)
        assert len(open_now) == before
    assert list((base / '.hadrosaur/sessions').iterdir()) == []


def test_old_requests_to_cancel_are_read_before_they_go(base, monkeypatch):
    """Whoever answers them may be busy with others for longer than they live."""
    monkeypatch.setattr(basedir, 'REQUEST_LIFE', -1.0)
    for name in 'ab':
        basedir.request_cancel(str(base), f'coll/{name}', 'now')

    assert basedir.cancel_requests(str(base)) == {('coll/a', 'now'), ('coll/b', 'now')}
    assert basedir.cancel_requests(str(base)) == set()


def test_a_lock_that_cannot_be_taken_keeps_no_descriptor(base, monkeypatch):
    """The disk may be out of locks."""
    (base / 'coll/a').mkdir(parents=True)
    monkeypatch.setattr(fcntl, 'flock', too_many_files)
    before = os.listdir('/proc/self/fd')
    for lock in ('folder', 'file'):
        with pytest.raises(OSError, match='Too many'):
            Claim.take(str(base / 'coll'), 'a', lock=lock)
    assert fileops.is_locked('a', os.open(base / 'coll', os.O_RDONLY))

    assert len(os.listdir('/proc/self/fd')) == len(before) + 1


def test_a_recompute_that_is_withdrawn_leaves_a_result_without_a_record(proj, base):
    """One that hadrosaur 0.0.2 made, or that a person did, is as good as any."""
    for name in ('old', 'older'):
        folder = base / 'coll' / name
        (folder / 'storage').mkdir(parents=True)
        (folder / 'status.json').write_text('{"completed": true, "pending": false, "error": false}')
        (folder / 'result.json').write_text('"three weeks"\n')
    proj.resource('coll')(lambda ident, args, subdir: 'anew')
    collection = proj._registry.get('coll')
    order = proj._store.job(collection, 'old', None, 'old', recompute='yes')
    assert compute.enqueue(order)
    assert proj.get('coll', 'old')['result'] == 'three weeks'

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Claim, '_say_begun', too_many_files)  # cut off between the status and the record
        patch.setattr(Claim, '_take_back', lambda *_: None)  # as by a kill, after which nobody does
        proj.fetch('coll', 'older', recompute=True)
    assert proj.get('coll', 'older')['result'] == 'three weeks'


@pytest.mark.long
def test_an_executor_that_is_shut_down_in_mid_batch(proj):
    """What waits is not waited for for ever."""
    proj.resource('coll')(lambda ident, args, subdir: ident)
    with concurrent.futures.ThreadPoolExecutor(1) as executor:
        batch = proj.fetch_many('coll', map(str, range(5000)), executor=executor)
        next(batch)
        executor.shutdown(wait=False)
        with pytest.raises(ExecutorFault, match='takes no more work'):
            batch.wait()
    assert proj.stats()['coll']['pending'] == 0


def test_closing_while_the_driver_is_about_to_wait(proj, monkeypatch):
    """It looks once more whether it is to end."""
    proj.resource('coll')(lambda ident, args, subdir: ident)
    batch = proj.fetch_many('coll', ['a', 'b'], workers=1)
    next(batch)
    pool = batch.dispatcher.executor
    await_that(lambda: not pool.busy)
    real, at, go_on = pool._turn, threading.Event(), threading.Event()

    def turn():
        at.set()
        go_on.wait(60)
        real()

    pool._turn = turn
    pool._wake()
    assert at.wait(60)
    closing = threading.Thread(target=pool.close, daemon=True)
    closing.start()
    await_that(lambda: pool._closing)
    go_on.set()
    closing.join(HANG)

    assert not closing.is_alive()
    batch.wait()


def test_a_thread_in_which_our_own_code_fails(proj, monkeypatch):
    """Out of memory, say: whoever waits is told."""
    proj.resource('coll')(lambda ident, args, subdir: ident)
    monkeypatch.setattr(compute, 'carry_out', lambda order, function: [][0])

    with pytest.raises(ExecutorFault, match='IndexError'):
        proj.fetch_many('coll', ['a', 'b'], executor='threads', workers=1).wait()
    assert list(proj.query()) == []


def test_a_kernel_that_knows_no_pidfd(program):
    """Python may have the function where the kernel, or a filter of what it may be asked, refuses."""
    program(
        """
        import errno, os, signal

        def refuse(pid, flags=0):
            raise OSError(errno.ENOSYS, 'Function not implemented')
        os.pidfd_open = refuse
        from hadrosaur import Project
        from hadrosaur.executors import template
        template.IS_USED = False  # where it is, a pipe tells of a death

        proj = Project('base')
        @proj.resource('coll')
        def compute(ident, args, subdir):
            if ident == 'dies':
                os.kill(os.getpid(), signal.SIGKILL)

        counts = proj.fetch_many('coll', ['a', 'dies', 'b'], workers=1).wait()
        assert (counts.completed, counts.error) == (2, 1), counts
        """
    )


def test_the_driver_rests_while_a_killed_worker_takes_its_time(proj, tmp_path, monkeypatch):
    """A big process takes long to die: the driver does not look all the while."""
    proj.resource('coll')(lambda ident, args, subdir: (tmp_path / 'began').touch() or time.sleep(600))
    batch = proj.fetch_many('coll', ['a'], workers=1)
    waiting = threading.Thread(target=batch.wait)
    waiting.start()
    await_that((tmp_path / 'began').exists)
    crew = batch.dispatcher.executor._scheduler
    worker = crew._workers_alive[0]
    kill = worker.kill
    worker.kill = lambda number=9: None
    batch.cancel()
    await_that(lambda: worker.kill_reason)

    worker.head_since -= 10
    assert crew._next_moment(worker, time.monotonic()) > time.monotonic() + 0.5
    worker.kill_at = time.monotonic() - 1
    assert crew._next_moment(worker, time.monotonic()) > time.monotonic() + 0.5
    kill()
    waiting.join(HANG)


def test_an_import_that_hangs_ends(proj, monkeypatch):
    """A worker that is still loading the function of a resource with a timeout is killed in the end."""
    monkeypatch.setattr(_scheduler, 'LONGEST_LOADING', 0.0)

    class Hangs:
        def __reduce__(self):
            return time.sleep, (600,)

    hangs = Hangs()
    proj.resource('coll', timeout=0.05)(lambda ident, args, subdir: hangs)
    [res] = proj.fetch_many('coll', ['a'], workers=1)

    assert res.entry.error_type == 'TimedOut', res.entry


def test_orders_that_were_dropped_are_counted_once(proj):
    """Whatever the batch takes in between."""
    flying = dispatcher.Dispatcher(proj._store, 'inline', None)
    taken = []

    class Flights(dict):
        def __contains__(self, run):
            while flying.dropped:
                taken.append(flying.dropped.popleft())
            return True

    proj.resource('coll')(lambda ident, args, subdir: ident)
    collection = proj._registry.get('coll')
    flying._submissions = Flights()
    for ident in 'ab':
        flying._dropped([proj._store.job(collection, ident, None, ident)])
    assert len(taken) + len(flying.dropped) == 2
    flying.stop(interrupt=False)


def test_a_disk_that_does_not_tell_upper_from_lower_case(proj, base, monkeypatch):
    """There the folder of another ident opens too, and is no answer."""
    proj.resource('coll')(lambda ident, args, subdir: ident)
    assert proj.fetch('coll', 'abc')['result'] == 'abc'
    shutil.copytree(base / 'coll/abc', base / 'coll/ABC')
    monkeypatch.setattr(fcntl, 'F_GETPATH', 50, raising=False)
    monkeypatch.setattr(fcntl, 'fcntl', lambda fd, what, room: f'{base}/coll/abc'.encode().ljust(1024, b'\0'))

    assert proj.get('coll', 'abc')['result'] == 'abc'
    with pytest.raises(ResourceNotFound):
        proj.get('coll', 'ABC')


def test_a_folder_that_is_another_each_time_is_given_up(base, monkeypatch):
    """Some file systems make inode numbers up: an error, and not a wait that nothing ends."""
    (base / 'coll/a').mkdir(parents=True)
    monkeypatch.setattr(Claim, '_stands_in', lambda claim, parent: False)

    with pytest.raises(OSError, match='replaced again and again'):
        Claim.take(str(base / 'coll'), 'a')


def test_a_folder_where_a_file_should_be_goes_everywhere(tmp_path, monkeypatch):
    """Unlinking one is EISDIR on Linux and EPERM on macOS; what may not be removed says so."""

    def unlink(name, *, dir_fd=None):
        raise PermissionError(errno.EPERM, 'Operation not permitted')

    (tmp_path / 'folder').mkdir()
    (tmp_path / 'file').touch()
    folder = os.open(tmp_path, os.O_RDONLY)
    monkeypatch.setattr(os, 'unlink', unlink)
    fileops.remove('folder', folder)
    with pytest.raises(PermissionError, match='Operation not permitted'):
        fileops.remove('file', folder)
    os.close(folder)

    assert os.listdir(tmp_path) == ['file']


def test_output_that_cannot_be_captured_leaves_the_programs_own_alone(program):
    """Too many open files while descriptors 1 and 2 are set aside: an error of this resource, no more."""
    done = program(
        """
        import errno, os
        from hadrosaur import Project

        proj = Project('base')
        proj.resource('coll')(lambda ident, args, subdir: print(ident))
        real, calls = os.dup, []
        def flaky(fd):
            calls.append(fd)
            if len(calls) == fail_at:
                raise OSError(errno.EMFILE, 'Too many open files')
            return real(fd)
        os.dup = flaky
        for fail_at in (1, 2):
            calls.clear()
            print(proj.fetch('coll', fail_at).entry.error, flush=True)
        print(proj.fetch('coll', 3).status)
        """
    )

    assert done.stdout.splitlines() == ['[Errno 24] Too many open files'] * 2 + ['completed']


# --- worker processes --------------------------------------------------------------------------------


def test_worker_processes_that_cannot_be_started(proj, monkeypatch):
    """It is said in words, nothing stays pending, and the next batch goes on."""
    proj.resource('coll')(lambda ident, args, subdir: ident)
    with monkeypatch.context() as patch:
        patch.setattr(_scheduler, 'WorkerProcess', too_many_files)
        with pytest.raises(ExecutorFault, match='Too many open files'):
            proj.fetch_many('coll', list('abc'), workers=2).wait()

        assert proj.query(status='pending')[:] == []
        proj.fetch('coll', 'd', background=True)
        with pytest.raises(ExecutorFault, match='Too many open files'):
            proj.wait()
    assert proj.fetch('coll', 'e', background=True).wait(60).status == 'completed'
    assert proj.fetch_many('coll', ['a', 'b', 'd'], workers=2).wait() == Counts(3, 3, 0, 0, 0)


def test_closing_when_worker_processes_could_not_be_started(proj, monkeypatch):
    """Background work is given up, in words, and the project closes and opens again."""
    proj.resource('coll')(lambda ident, args, subdir: ident)
    with monkeypatch.context() as patch:
        patch.setattr(_scheduler, 'WorkerProcess', too_many_files)
        proj.fetch('coll', 'a', background=True)
        with pytest.warns(HadrosaurWarning, match='given up: .*Too many open files'):
            proj.close()

    assert proj.query(status='pending')[:] == []
    assert proj.fetch('coll', 'a')['result'] == 'a'


def test_fewer_worker_processes_than_wanted(proj, monkeypatch):
    """Where one can be started and a second cannot, the one does it all."""
    proj.resource('coll')(lambda ident, args, subdir: os.getpid())
    real, made = _worker_process.WorkerProcess, []

    def once(*given):
        if made:
            too_many_files()
        made.append(real())
        return made[0]

    monkeypatch.setattr(_scheduler, 'WorkerProcess', once)
    found = {res['result'] for res in proj.fetch_many('coll', map(str, range(50)), workers=2)}

    assert found == {made[0].process.pid}


def test_large_args_behind_a_run_that_hangs(proj):
    """What does not fit into the socket waits without holding up the clock of the timeout."""

    @proj.resource('coll', timeout=1)
    def compute(ident, args, subdir):
        if ident == '150':
            time.sleep(600)
        return len(args['large'])

    items = ((str(number), {'large': 'x' * 60_000}) for number in range(250))
    counts = proj.fetch_many('coll', items, workers=1).wait()

    assert counts[:3] == (250, 249, 1)
    assert proj.get('coll', '150').entry.error_type == 'TimedOut'
    assert proj.fetch('coll', '249')['result'] == 60_000


def test_sending_to_a_slot_never_waits():
    """What a stopped slot does not take stays unsent."""
    worker = _worker_process.WorkerProcess()
    try:
        worker.kill(signal.SIGSTOP)
        worker.send([bytes(10_000_000)])
        assert len(worker.unsent) > 1_000_000
    finally:
        worker.discard()


def spoil_this_worker():
    """Leave something that cannot be put back: the worker retires after this run."""
    from hadrosaur.executors.worker_state import WorkerState

    WorkerState.put_back = lambda self: ['what the test says']


def spoils_its_worker(ident, args, subdir):
    """And a thread that keeps it from ending."""
    threading.Thread(target=time.sleep, args=(600,)).start()
    spoil_this_worker()
    return ident


@pytest.mark.long
def test_slots_whose_threads_never_end_are_not_kept_for_ever(proj):
    """Of those that retired and do not end, the oldest are killed."""
    proj.resource('coll')(spoils_its_worker)
    batch = proj.fetch_many('coll', map(str, range(12)), workers=1)
    most = 0
    for res in batch:
        assert res.status == 'completed'
        most = max(most, len(batch.dispatcher.executor._scheduler._retired))

    assert 0 < most <= _scheduler.RETIRED + 1


def test_what_was_cancelled_behind_a_slot_that_retires_is_not_run(proj, base, tmp_path):
    """It was sent ahead, and comes back because its worker could not be put back; it stays cancelled."""
    go = tmp_path / 'go'

    @proj.resource('coll')
    def compute(ident, args, subdir):
        if ident == 'slow':
            spoil_this_worker()
            while not os.path.exists(args['go']):
                time.sleep(0.01)
        return ident

    idents = [*map(str, range(100)), 'slow', 'victim']
    batch = proj.fetch_many('coll', idents, {'go': str(go)}, workers=1)
    waiting = threading.Thread(target=batch.wait)
    waiting.start()
    await_that((base / 'coll/slow/status.json').exists)
    assert proj.cancel('coll', 'victim') == 1
    go.touch()
    waiting.join(HANG)

    assert batch.counts[:3] == (101, 101, 0)
    assert not (base / 'coll/victim').exists()


# --- executors that are shared -----------------------------------------------------------------------


def test_a_batch_that_ends_leaves_another_ones_workers_alone(proj, tmp_path):
    """Each on an executor of its own; the slots that host the longer one stay."""
    go = tmp_path / 'go'

    @proj.resource('long')
    def compute(ident, args, subdir):
        while not os.path.exists(args['go']):
            time.sleep(0.01)
        return ident

    proj.resource('short')(lambda ident, args, subdir: ident)
    counts = []
    with concurrent.futures.ThreadPoolExecutor(1) as one, concurrent.futures.ThreadPoolExecutor(1) as other:
        batch = proj.fetch_many('long', ['a', 'b'], {'go': str(go)}, executor=one)
        waiting = threading.Thread(target=lambda: counts.append(batch.wait()), daemon=True)
        waiting.start()
        await_that(lambda: proj.query('long', status='pending'))
        assert proj.fetch_many('short', list('abc'), executor=other).wait() == Counts(3, 3, 0, 0, 0)
        go.touch()
        waiting.join(HANG)

        assert counts == [Counts(2, 2, 0, 0, 0)]


class TellsAtOnce(Executor):
    """Another thread tells what came of a job before it is handed over to the end."""

    def __init__(self, listener, workers):
        self._tell = listener
        self.was_told = []

    def submit(self, jobs, function, *, delay=0.0):
        failed = [RunResult(job.run, _failed(job), fresh=True) for job in jobs]
        telling = threading.Thread(target=self._tell.on_results, args=(failed,))
        telling.start()
        if jobs[0].attempt == 1:  # of a retry it is told by the thread that holds the lock of it
            telling.join(HANG)
            self.was_told.append(not telling.is_alive())

    def cancel(self, runs):
        """Too late."""

    interrupt = close = lambda self: None


def _failed(job):
    from hadrosaur.not_started import not_started

    return not_started(job, 'ValueError', 'bad').entry.change(attempt=job.attempt)


def test_an_outcome_may_be_told_while_orders_are_handed_over(proj, monkeypatch):
    """A retry takes the same lock as handing over; neither waits for the other."""
    monkeypatch.setitem(dispatcher.EXECUTORS, 'threads', f'{__name__}:TellsAtOnce')
    monkeypatch.setitem(sys.modules, __name__, sys.modules[__name__])
    proj.resource('coll', retries=1)(lambda ident, args, subdir: ident)
    batch = proj.fetch_many('coll', ['a'], executor='threads')

    assert batch.wait()[:3] == (1, 0, 1)
    assert batch.dispatcher.executor.was_told == [True]


# --- the index ---------------------------------------------------------------------------------------


@pytest.mark.filterwarnings('ignore::hadrosaur.HadrosaurWarning')
@pytest.mark.parametrize('kind', ['inline', 'threads', 'processes', 'futures'])
def test_an_index_that_is_locked_when_a_run_is_tried_again(proj, monkeypatch, kind):
    """The retry goes on without its pending row; the last word is written when the index can be."""

    @proj.resource('coll', retries=1)
    def compute(ident, args, subdir):
        from hadrosaur import current

        return 1 // (current().attempt - 1)

    queue, refused = Index.queue, []

    def busy_for_retries(self, entries):
        if entries[0].attempt > 1 and len(refused) < 3:
            refused.append(entries[0].ident)
            raise IndexBusy('another process kept it locked for too long')
        return queue(self, entries)

    monkeypatch.setattr(Index, 'queue', busy_for_retries)
    with concurrent.futures.ThreadPoolExecutor(2) as executor:
        how = executor if kind == 'futures' else kind
        counts = proj.fetch_many('coll', list('abc'), executor=how, workers=2).wait()

    assert counts == Counts(3, 3, 0, 0, 0)
    assert len(refused) == 3
    assert {entry.ident: entry.attempt for entry in proj.query(status='completed')} == dict.fromkeys('abc', 2)


def test_a_batch_dropped_while_its_locks_are_held(proj):
    """The garbage collector drops it in the middle of a transaction: it is ended afterwards."""
    proj.resource('coll')(lambda ident, args, subdir: ident)
    batch = proj.fetch_many('coll', map(str, range(100_000)), workers=1)
    next(batch)
    with proj._store.index._connections._writing, proj._store.rows._guard:
        del batch
    locks.await_enders()

    assert proj.query(status='pending')[:] == []


# --- retries -----------------------------------------------------------------------------------------


@pytest.mark.parametrize('how', ['fetch', 'background', 'elsewhere'])
def test_a_fetch_waits_for_the_last_try(proj, base, how):
    """What failed and is to be tried again is still to come, in the eyes of another process too."""

    @proj.resource('coll', retries=2, retry_delay=0.1)
    def compute(ident, args, subdir):
        from hadrosaur import current

        if current().attempt < 3:
            raise ValueError('not yet')
        return current().attempt

    if how == 'fetch':
        res = proj.fetch('coll', 'a')
    else:
        pending = proj.fetch('coll', 'a', background=True)
        if how == 'elsewhere':
            other = Project(base)
            other.resource('coll', retries=2)(compute)
            pending = other.fetch('coll', 'a', background=True)
            assert other._background.dispatcher is None
        res = pending.wait(60)
        if how == 'elsewhere':
            other.close()

    assert (res.status, res['result'], res.entry.attempt) == ('completed', 3, 3)


# --- what is queued, and not begun -------------------------------------------------------------------


@pytest.fixture
def queued(proj, tmp_path):
    """'later' waits behind 'head' in a batch of one worker, until the file 'go' is there."""

    @proj.resource('coll')
    def compute(ident, args, subdir):
        while not os.path.exists(args['go']):
            time.sleep(0.01)
        return args['n']

    go = str(tmp_path / 'go')
    batch = proj.fetch_many('coll', {'head': {'go': go, 'n': 1}, 'later': {'go': go, 'n': 2}}, workers=1)
    waiting = threading.Thread(target=batch.wait, daemon=True)
    waiting.start()
    await_that(lambda: len(proj.query(status='pending')) == 2)
    yield proj
    (tmp_path / 'go').touch()
    waiting.join(HANG)


@pytest.mark.parametrize('who', ['the same', 'another'])
def test_what_is_queued_is_pending_and_keeps_its_args(queued, base, tmp_path, who):
    """Whoever fetches it meanwhile waits for that run, instead of computing it without its args."""
    proj = queued
    if who == 'another':
        proj = Project(base)
        proj.resource('coll')(lambda ident, args, subdir: 'without args')

    assert proj.get('coll', 'later').status == 'pending'
    assert proj.explain('coll', 'later').reason == 'it is queued'
    pending = proj.fetch('coll', 'later')
    assert pending.status == 'pending'
    with pytest.raises(ResourceError, match='is queued'):
        proj.remove('coll', 'later')
    (tmp_path / 'go').touch()
    assert pending.wait(60)['result'] == 2
    assert [entry.args['n'] for entry in proj.query('coll', ident='later')] == [2]
    if who == 'another':
        proj.close()


def test_a_row_of_our_own_that_nobody_carries_out_stops_nobody(proj):
    """Ctrl-C may have come between writing the row and handing the order over."""
    proj.resource('coll')(lambda ident, args, subdir: args['n'])
    known = proj._registry.get('coll')
    proj._store.queue([proj._store.job(known, 'a', '{"n":1}', 'a')])

    assert proj.fetch('coll', 'a', {'n': 2})['result'] == 2
    assert [entry.status for entry in proj.query()] == ['completed']


def test_waiting_for_what_was_cancelled_before_it_was_begun(queued):
    """It will never come, and waiting says so."""
    pending = queued.get('coll', 'later')
    assert queued.cancel('coll', 'later') == 1

    with pytest.raises(ResourceNotFound, match='was cancelled before it started'):
        pending.wait(60)


def test_a_cancel_request_is_for_the_run_that_was_meant(proj, monkeypatch):
    """One that was left for an earlier run does not stop a later one."""
    proj.resource('coll')(lambda ident, args, subdir: ident)
    proj.fetch('coll', 'other')
    basedir.request_cancel(proj.path, 'coll/a', '2026-01-01T00:00:00.000000Z')
    queue = Store.queue

    def cancel_b(self, orders, **how):
        for order in orders:
            if order.ident == 'b':
                basedir.request_cancel(proj.path, order.path, order.queued_at)
        return queue(self, orders, **how)

    monkeypatch.setattr(Store, 'queue', cancel_b)
    with concurrent.futures.ThreadPoolExecutor(1) as executor:
        assert proj.fetch_many('coll', ['a'], executor=executor).wait() == Counts(1, 1, 0, 0, 0)
        assert proj.fetch_many('coll', ['b'], executor=executor).wait() == Counts(0, 0, 0, 0, 0)


# --- locks, forks and the end ------------------------------------------------------------------------


def test_a_child_that_has_a_copy_of_a_lock_does_not_keep_it(tmp_path):
    """Forked between opening and locking, it does not know of the copy."""
    with fileops.opened(str(tmp_path)) as folder:
        fd = os.open('lock', os.O_RDWR | os.O_CREAT, dir_fd=folder)
        reading, writing = os.pipe()
        child = os.fork()
        if child == 0:
            os.close(writing)
            os.read(reading, 1)  # until the parent is done
            os._exit(0)
        assert fileops.try_lock(fd)
        fileops.unlock(fd)
        is_locked = fileops.is_locked('lock', folder)
        os.close(writing)
        os.close(reading)
        os.waitpid(child, 0)

    assert not is_locked


def test_a_lock_for_a_moment_does_not_lose_background_work(proj, base):
    """Whoever looks whether a resource is being computed holds its lock for an instant."""
    proj.resource('coll', background=True)(lambda ident, args, subdir: ident)
    proj.fetch('coll', 'warm').wait(60)
    real, held = compute.enqueue, []

    def then_lock(order):
        is_ours = real(order)
        fd = os.open(base / 'coll/a', os.O_RDONLY)
        fcntl.flock(fd, fcntl.LOCK_SH)
        held.append(fd)
        return is_ours

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(compute, 'enqueue', then_lock)
        pending = proj.fetch('coll', 'a')
    await_that(lambda: any(flight.asked for flight in proj._background.dispatcher.in_flight()))
    os.close(held[0])

    assert pending.wait(60)['result'] == 'a'


def test_ctrl_c_while_the_program_waits_at_its_end(program, tmp_path):
    """It stops what is under way, and no traceback of ours is shown."""
    running = program(
        """
        import os, time
        from hadrosaur import Project

        proj = Project('base')
        @proj.resource('coll', background=True)
        def compute(ident, args, subdir):
            open(f'{subdir}/began', 'w').close()
            time.sleep(600)
        proj.fetch('coll', 'a')
        while not os.path.exists('base/coll/a/storage/began'):
            time.sleep(0.01)
        """,
        start=True,
    )
    assert running.stderr.readline() == 'waiting for 1 resource in the background; Ctrl-C ends that\n'
    running.send_signal(signal.SIGINT)
    out, err = running.communicate(timeout=HANG)

    assert (out, err) == ('', '')
    with Project(tmp_path / 'base', create=False) as proj:
        assert [entry.error_type for entry in proj.query()] == ['Cancelled']


def test_natural_ways_to_name_many(proj):
    """Pairs as JSON has them, and what a query or a fetch gave."""
    proj.resource('coll')(lambda ident, args, subdir: args)
    assert proj.fetch_many('coll', [['a', {'n': 1}], ('b', {'n': 2})], executor='inline').wait()[:3] == (
        2,
        2,
        0,
    )
    again = proj.fetch_many('coll', proj.query('coll'), executor='inline', recompute=True)

    assert {res.ident: res['result'] for res in again} == {'a': {'n': 1}, 'b': {'n': 2}}
    assert proj.fetch_many('coll', [proj.get('coll', 'a')], executor='inline').wait().reused == 1
