"""Cancelling what runs in a program's own main thread: the function is interrupted, and nothing else."""

import json
import os
import signal
import threading
import time
from pathlib import Path

import pytest
from conftest import HANG, await_that
from test_cancel_elsewhere import await_file, hadrosaur

import hadrosaur as package
from hadrosaur import Cancelled, Project
from hadrosaur.errors import ExecutorFault
from hadrosaur.executors import _inline_cancel
from hadrosaur.locks import CANCEL_SIGNAL

PROGRAM = """
    import signal, sys, time
    from pathlib import Path
    from hadrosaur import Project

    signal.signal(signal.SIGINT, signal.SIG_IGN)   # as a shell starts what runs in the background
    proj = Project('base')

    @proj.resource('coll', retries=2)
    def compute(ident, args, subdir):
        if ident == 'slow':
            print('began')
            Path('began').touch()
            time.sleep(600)
        return ident

    if sys.argv[1] == 'fetch':
        print([proj.fetch('coll', ident).status for ident in ('quick', 'slow', 'last')])
    else:
        print(proj.fetch_many('coll', ['quick', 'slow', 'last'], executor='inline').wait())
"""


@pytest.mark.parametrize('how', ['fetch', 'fetch_many'])
def test_cancel_what_another_process_runs_inline(program, tmp_path, how):
    """It ends as in a worker, in a sleep too; it is not tried again, and the rest goes on."""
    process = program(PROGRAM, how, start=True)
    await_file(tmp_path / 'began', process)
    done = hadrosaur(tmp_path, 'cancel', 'base', 'coll', 'slow', '--json')
    out, err = process.communicate(timeout=HANG)
    with Project(tmp_path / 'base', create=False) as proj:
        [row] = proj.query(status='error')
        slow = proj.get('coll', 'slow')
        statuses = {entry.ident: entry.status for entry in proj.query()}

    assert json.loads(done.stdout) == {'asked': 1, 'stopped': 1, 'finished': 0, 'pending': 0}, done.stderr
    assert (process.returncode, err) == (0, '')
    assert statuses == {'quick': 'completed', 'slow': 'error', 'last': 'completed'}
    assert (row.error_type, row.error, row.attempt) == ('Cancelled', 'the run was cancelled', 1)
    assert slow.error.splitlines()[-3:] == [
        f'  File "{tmp_path}/program0.py", line 14, in compute',
        '    time.sleep(600)',
        'Cancelled: the run was cancelled',
    ]
    assert Path(tmp_path, slow.paths['stdout']).read_text() == 'began\n'
    assert not list((tmp_path / 'base/.hadrosaur/cancel').iterdir())
    assert ('completed' in out) if how == 'fetch' else ('completed=2, error=1' in out)


def waits(ident, args, subdir):
    """A function that runs until it is interrupted."""
    Path(args['began']).touch()
    time.sleep(HANG)


@pytest.fixture
def elsewhere(tmp_path):
    """Has something done in another thread once the function has begun; joined at the end."""
    threads = []

    def start(action):
        def work():
            await_that((tmp_path / 'began').exists)
            action()

        threads.append(threading.Thread(target=work))
        threads[-1].start()
        return {'began': str(tmp_path / 'began')}

    yield start
    for thread in threads:
        thread.join()


def test_cancel_from_another_thread(proj, elsewhere):
    """Of a fetch and of a batch; `.value` says Cancelled; its group is that of runs cancelled in workers."""
    proj.resource('coll')(waits)
    counts = []
    one = proj.fetch('coll', 'one', elsewhere(lambda: counts.append(proj.cancel('coll', 'one'))))
    os.remove(one.args['began'])
    batch = proj.fetch_many('coll', ['two', 'three'], elsewhere(lambda: batch.cancel()), executor='inline')
    [two] = list(batch)
    groups = {row.error_group for row in proj.query()}

    assert counts == [1]
    assert (one.status, two.status, batch.counts.pending) == ('error', 'error', 0)
    assert groups == {package.fingerprint.fingerprint('Cancelled', 'the run was cancelled', None)}
    with pytest.raises(Cancelled):
        _ = one.value


def test_a_function_that_goes_on_is_interrupted_again(proj, elsewhere):
    """Who catches it is told each second; what it raises instead is still Cancelled, with its cause."""
    caught = []

    @proj.resource('coll', retries=3)
    def stubborn(ident, args, subdir):
        Path(args['began']).touch()
        try:
            time.sleep(HANG)
        except BaseException as error:
            caught.append(type(error))
        try:
            time.sleep(HANG)
        except KeyboardInterrupt as error:
            caught.append(type(error))
            raise RuntimeError('cleaned up') from error

    failed = proj.fetch('coll', 'one', elsewhere(lambda: proj.cancel('coll')))

    assert len(caught) == 2
    assert (failed.entry.error_type, failed.entry.attempt) == ('Cancelled', 1)
    assert 'RuntimeError: cleaned up' in failed.error
    assert failed.error.endswith('Cancelled: the run was cancelled\n')


def test_what_is_nested_in_it_ends_with_it(proj, elsewhere):
    """The whole is Cancelled, the part that ran just then Interrupted, and says why."""
    proj.resource('part')(waits)

    @proj.resource('whole')
    def whole(ident, args, subdir):
        return proj.fetch('part', ident, args).value

    failed = proj.fetch('whole', 'one', elsewhere(lambda: proj.cancel('whole', 'one')))

    assert failed.entry.error_type == 'Cancelled'
    part = proj.get('part', 'one').entry
    assert (part.error_type, part.error) == (
        'Interrupted',
        'the run was interrupted: what it is a part of was cancelled',
    )


def test_a_coroutine_is_cancelled_too(proj, elsewhere):
    """Its event loop ends as with Ctrl-C: what it awaits is cancelled, and cleans up."""
    seen = []

    @proj.resource('coll')
    async def compute(ident, args, subdir):
        import asyncio

        try:
            Path(args['began']).touch()
            await asyncio.sleep(HANG)
        finally:
            seen.append('cleaned up')

    failed = proj.fetch('coll', 'one', elsewhere(lambda: proj.cancel('coll')))

    assert (failed.entry.error_type, seen) == ('Cancelled', ['cleaned up'])


def test_a_signal_that_comes_too_late_interrupts_nobody(proj, monkeypatch):
    """The run has ended when the signal comes: the program's own code goes on, and so does the next run."""

    def too_late(running):
        running.is_unwanted = True
        signal.pthread_kill(threading.main_thread().ident, CANCEL_SIGNAL)

    conclude = package.compute._conclude

    def late(*about):
        too_late(running[0])
        return conclude(*about)

    running = []

    @proj.resource('coll')
    def compute(ident, args, subdir):
        running[:] = [package.current()]
        return ident

    monkeypatch.setattr(package.compute, '_conclude', late)
    for ident in ('one', 'two'):
        assert proj.fetch('coll', ident).value == ident
    assert signal.getsignal(CANCEL_SIGNAL) == signal.SIG_DFL


def test_what_runs_in_another_thread_is_said_to_run_on(proj, tmp_path):
    """A thread cannot be stopped, and the error says so and what would do."""
    go = threading.Event()

    @proj.resource('coll')
    def compute(ident, args, subdir):
        (tmp_path / 'began').touch()
        assert go.wait(HANG)

    thread = threading.Thread(target=proj.fetch, args=('coll', 'one'))
    thread.start()
    await_that((tmp_path / 'began').exists)
    try:
        with pytest.raises(ExecutorFault, match=r'coll/one runs in a thread.*background=True'):
            proj.cancel('coll')
    finally:
        go.set()
        thread.join()
    assert proj.get('coll', 'one').status == 'completed'


def test_no_thread_looks_where_nothing_runs(proj):
    """It ends by itself, with the project, and before the program forks: a child has only its own threads."""

    def ours():
        return [thread for thread in threading.enumerate() if thread.name == 'hadrosaur-clock']

    @proj.resource('coll')
    def compute(ident, args, subdir):
        [before] = ours()
        child = os.fork()
        if not child:
            os._exit(0)
        os.waitpid(child, 0)
        [after] = ours()
        return [before.is_alive(), after.is_alive()]

    assert proj.fetch('coll', 'one').value == [False, True]
    proj.close()
    assert not ours()
    _inline_cancel.rest()
