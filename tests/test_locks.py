"""Threads and forks: a child waits for no lock of a thread that it does not have; closing breaks nobody."""

import os
import signal
import threading

import pytest
from conftest import HANG
from test_index import asked, done

from hadrosaur import HadrosaurWarning, Project, dead_sessions, recover
from hadrosaur.basedir import BaseDirectory
from hadrosaur.engine.dispatcher import Dispatcher
from hadrosaur.index._fork_guard import ForkGuard
from hadrosaur.index._lock import IndexLock
from hadrosaur.locks import start_without_signals


def in_child(action):
    """Run an action in a forked child; its exit code, or minus the signal that ended its waiting."""
    child = os.fork()
    if child == 0:
        signal.signal(signal.SIGALRM, signal.SIG_DFL)
        signal.alarm(300)  # the patience of the test, not of the code
        code = 1
        try:
            action()
            code = 0
        finally:
            os._exit(code)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


@pytest.mark.parametrize(
    ('owner', 'step'), [(BaseDirectory, '_begin_session'), (Project, '_open_index')], ids=['session', 'index']
)
def test_a_child_that_is_forked_while_a_thread_opens_the_project(base, monkeypatch, owner, step):
    """The thread is in the middle of it; the child has no such thread, opens for itself and goes on."""
    inside, go_on = threading.Event(), threading.Event()
    take_step = getattr(owner, step)

    def slowly(self):
        if threading.current_thread() is opener:
            inside.set()
            assert go_on.wait(60)
        return take_step(self)

    monkeypatch.setattr(owner, step, slowly)
    proj = Project(base)
    proj.resource('coll')(lambda ident, args, subdir: ident)
    opener = threading.Thread(target=proj.fetch, args=('coll', 'parent'))
    opener.start()
    assert inside.wait(60)
    code = in_child(lambda: proj.fetch('coll', 'child'))
    go_on.set()
    opener.join()

    assert code == 0
    assert {entry.ident: entry.status for entry in proj.query()} == {
        'parent': 'completed',
        'child': 'completed',
    }
    proj.close()


def test_nobody_enters_sqlite_while_a_fork_waits():
    """Else threads that take turns would keep a fork waiting for ever; who is inside goes on, and deeper."""
    gate = ForkGuard()
    events = []
    entered, forking = threading.Event(), threading.Event()
    go_deeper = threading.Event()

    def stays_inside():
        with gate:
            entered.set()
            assert go_deeper.wait(60)
            with gate:
                events.append('deeper')

    def forks():
        gate.close()
        events.append('fork')
        gate.open()

    def comes_late():
        forking.set()
        with gate:
            events.append('late')

    inside = threading.Thread(target=stays_inside)
    inside.start()
    assert entered.wait(60)
    fork = threading.Thread(target=forks)
    fork.start()
    while not gate._forking:
        pass
    late = threading.Thread(target=comes_late)
    late.start()
    assert forking.wait(60)
    late.join(0.05)  # as long as it takes to be let in by mistake
    go_deeper.set()
    for thread in (inside, fork, late):
        thread.join(HANG)

    assert events == ['deeper', 'fork', 'late']


def test_closing_a_project_while_threads_fetch(proj):
    """Each goes on with what it has or opens anew; nothing is lost."""
    proj.resource('coll')(lambda ident, args, subdir: ident)
    faults = []
    fetched = threading.Semaphore(0)

    def fetch(name):
        for number in range(40):
            try:
                proj.fetch('coll', f'{name}-{number}')
            except BaseException as fault:
                faults.append(fault)
            fetched.release()

    threads = [threading.Thread(target=fetch, args=(name,)) for name in 'ab']
    for thread in threads:
        thread.start()
    for _ in range(80):
        assert fetched.acquire(timeout=HANG)
        proj.close()
    for thread in threads:
        thread.join()

    assert faults == []
    assert len(proj.query(status='completed')) == 80


def test_an_index_that_is_closed_as_soon_as_it_is_open(base, monkeypatch):
    """Another thread closes the project between the opening and the first question, which is answered."""
    with Project(base) as proj:
        monkeypatch.setattr(proj._store, '_recover', lambda store: store._reopen())
        assert proj._store.index.get('coll', 'a') is None


def test_recovery_leaves_a_row_that_was_written_meanwhile(proj, monkeypatch):
    """Somebody computes the resource of a dead process while recovery looks at its folder: the row stays."""
    index = proj._store.index
    index.session = 'of a dead process'
    index.queue([asked('i')])
    settle_one = recover.recover

    def settle_slowly(*args, **more):
        found = settle_one(*args, **more)
        index.finish([done('i')])
        return found

    monkeypatch.setattr(recover, 'recover', settle_slowly)

    assert [entry.status for entry in proj.query()] == ['completed']


def test_settling_many_is_said(proj, monkeypatch):
    """It takes a while, and the user is told for what."""
    monkeypatch.setattr(dead_sessions, 'MANY', 2)
    index = proj._store.index
    index.session = 'of a dead process'
    index.queue([asked(ident) for ident in 'ijk'])

    with pytest.warns(HadrosaurWarning, match='recovering 3 resources'):
        assert list(proj.query()) == []


def test_a_lock_that_was_collected_first_keeps_no_connection_open(tmp_path):
    """The garbage collector may take it before the connection that it belongs to."""
    lock = IndexLock(str(tmp_path / '.hadrosaur/index.lock'))
    lock.close()

    assert lock.try_share()


def test_our_own_threads_leave_signals_to_the_main_thread():
    """Python's handlers run there, and only there can they be held back."""
    found = []
    thread = threading.Thread(target=lambda: found.append(signal.pthread_sigmask(signal.SIG_BLOCK, ())))
    before = signal.pthread_sigmask(signal.SIG_BLOCK, ())
    start_without_signals(thread)
    thread.join()

    assert {signal.SIGINT, signal.SIGTERM} <= found[0]
    assert signal.pthread_sigmask(signal.SIG_BLOCK, ()) == before


def test_background_work_of_a_forked_child_is_waited_for(program, tmp_path):
    """Though its parent has had background work of its own."""
    program(
        """
        import os, sys
        from hadrosaur import Project

        proj = Project('base')
        proj.resource('coll', background=True)(lambda ident, args, subdir: ident)
        proj.fetch('coll', 'mine', wait=True)
        if not os.fork():
            proj.fetch('coll', 'childs')
            sys.exit()
        os.wait()
        assert proj.get('coll', 'childs')['result'] == 'childs'
        """
    )


def test_a_forked_child_asks_nothing_of_its_parents_batch(program):
    """Whether a resource is on its way, or is to be cancelled, is for the parent's index to say."""
    program(
        """
        import os, time
        from hadrosaur import Project

        proj = Project('base')
        @proj.resource('coll')
        def compute(ident, args, subdir):
            while ident == 'waits' and not os.path.exists('go'):
                time.sleep(0.002)

        batch = proj.fetch_many('coll', ['quick', 'waits', 'never'], workers=1)
        next(batch)
        if not os.fork():
            assert proj.cancel('coll', 'never') == 1
            assert proj.get('coll', 'never').status == 'pending'
            open('go', 'w').close()
            os._exit(7)
        assert os.wait()[1] == 7 << 8
        batch.wait()
        """
    )


def test_a_child_that_is_forked_during_a_capture_prints(program):
    """It still has the parent's stand-in for sys.stdout in place."""
    done = program(
        """
        import os, threading
        from hadrosaur import Project

        proj = Project('base')
        inside, go_on = threading.Event(), threading.Event()
        @proj.resource('coll', capture='streams')
        def compute(ident, args, subdir):
            print(ident)
            if ident == 'long':
                inside.set()
                go_on.wait()

        running = threading.Thread(target=proj.fetch, args=('coll', 'long'))
        running.start()
        inside.wait()
        if not os.fork():
            proj.fetch('coll', 'short')
            print('after', flush=True)
            os._exit(0)
        assert os.wait()[1] == 0
        go_on.set()
        running.join()
        assert open('base/coll/short/stdout.log').read() == 'short\\n'
        """
    )
    assert done.stdout == 'after\n'


def test_a_forked_child_leaves_its_parents_batch_alone(proj, monkeypatch):
    """It may close its copy of the project while the parent's batch goes on."""
    proj.resource('coll')(lambda ident, args, subdir: ident)
    batch = proj.fetch_many('coll', map(str, range(200)), workers=1)
    next(batch)
    with monkeypatch.context() as patch:
        patch.delattr(Dispatcher, 'stop')
        assert in_child(proj.close) == 0

    assert batch.wait()[:3] == (200, 200, 0)
