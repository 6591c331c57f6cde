"""`fetch_many` on inline and processes: lazy, keeps going, blames exactly, leaves nothing behind."""

import _thread
import collections
import contextlib
import enum
import gc
import json
import os
import signal
import socket
import sys
import threading
import time
import uuid
import warnings
from pathlib import Path

import pytest
from conftest import HANG, await_that

import hadrosaur
from hadrosaur import Counts, Project, fetcher, project
from hadrosaur.engine import batch as batch_module
from hadrosaur.engine.dispatcher import Notifier
from hadrosaur.executors import _worker_main, _worker_process

EXECUTORS = ['inline', 'processes']

PRELUDE = """
        import json, os, random, signal, subprocess, sys, threading, time
        from pathlib import Path
        import hadrosaur
        from hadrosaur import Project

        proj = Project('base')

        def await_file(path, seconds=300):
            end = time.monotonic() + seconds
            while not os.path.exists(path):
                assert time.monotonic() < end, path
                time.sleep(0.002)

        def ran(ident):
            with open('runs', 'a') as runs:
                runs.write(ident + '\\n')
"""


def runs(folder):
    """How often each ident was run."""
    with contextlib.suppress(FileNotFoundError):
        return collections.Counter((folder / 'runs').read_text().splitlines())
    return collections.Counter()


def rows(proj, collection='coll'):
    return {entry.ident: entry.status for entry in proj.query(collection)}


class Marked:
    """Processes that were started with a mark in their environment, however far from us."""

    def __init__(self):
        self._mark = f'HADROSAUR_TEST={uuid.uuid4().hex}'

    @property
    def environment(self):
        name, _, value = self._mark.partition('=')
        return {**os.environ, name: value}

    def alive(self):
        found = []
        for at in Path('/proc').iterdir():
            with contextlib.suppress(OSError):
                is_ours = at.name.isdigit() and self._mark.encode() in (at / 'environ').read_bytes()
                if is_ours and (at / 'stat').read_text().rpartition(')')[2].split()[0] != 'Z':
                    found.append(int(at.name))
        return found


@pytest.fixture
def marked():
    """A mark for the processes of a test; none is left alive."""
    found = Marked()
    yield found
    for pid in found.alive():
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)


def children():
    """Our own child processes, but for what is kept: trackers of multiprocessing and loky, our template."""
    found = set()
    for task in Path('/proc/self/task').iterdir():
        with contextlib.suppress(OSError):  # a thread, or a child, that has just ended
            for pid in (task / 'children').read_text().split():
                command = Path(f'/proc/{pid}/cmdline').read_bytes()
                if b'resource_tracker' not in command and b'executors.template' not in command:
                    found.add(int(pid))
                elif b'executors.template' in command:
                    found.update(map(int, Path(f'/proc/{pid}/task/{pid}/children').read_text().split()))
    return found


def holdings():
    """Threads, descriptors (by what they are) and children of this process.

    The clock that looks whether an inline run is cancelled ends within a second of the last one.
    """
    gc.collect()
    kinds = collections.Counter()
    for fd in os.listdir('/proc/self/fd'):
        with contextlib.suppress(OSError):
            kinds[os.readlink(f'/proc/self/fd/{fd}').partition(':')[0]] += 1
    return {thread.name for thread in threading.enumerate()} - {'hadrosaur-clock'}, kinds, children()


# --- lazy ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(('executor', 'ahead'), [('inline', 200), ('processes', 2000)])
def test_idents_are_pulled_lazily(proj, monkeypatch, executor, ahead):
    """A generator of 100 000 idents is pulled only a little further than results are taken."""
    monkeypatch.setattr(batch_module, 'PATIENCE', HANG)  # a slow machine pulls no less
    proj.resource('coll')(lambda ident, args, subdir: ident)
    pulled = 0
    most = 0

    def idents():
        nonlocal pulled
        for n in range(100_000):
            pulled += 1
            yield f'{n}'

    batch = proj.fetch_many('coll', idents(), workers=2, executor=executor)
    assert pulled == 0  # nothing starts before the first iteration
    for taken, res in enumerate(batch, 1):
        assert res.status == 'completed'
        most = max(most, pulled - taken)
        if taken == 300:
            break
    if executor == 'processes':  # nobody takes results: nobody pulls either
        time.sleep(0.3)
    assert max(most, pulled - 300) <= ahead
    batch.cancel()
    batch.close()
    assert batch.counts.pending == 0


def test_saved_results_are_not_held_whole(proj, monkeypatch):
    """Answered from disk: a million would not be read ahead of the reader."""
    proj.resource('coll')(lambda ident, args, subdir: ident)
    proj.fetch_many('coll', map(str, range(400)), executor='inline').wait()
    monkeypatch.setattr(batch_module, 'PATIENCE', HANG)  # a slow machine reads no less
    pulled = []
    source = (pulled.append(n) or str(n) for n in range(400))
    batch = proj.fetch_many('coll', source, workers=1)
    next(batch)

    assert len(pulled) < 200
    assert batch.wait() == Counts(total=400, completed=400, error=0, pending=0, reused=400)


def test_an_infinite_source_can_be_left(proj):
    """Breaking out of an endless generator ends the batch; who looks then sees what has become of it."""
    proj.resource('coll')(lambda ident, args, subdir: int(ident))

    def idents():
        n = 0
        while True:
            yield n
            n += 1

    seen = []
    for res in proj.fetch_many('coll', idents(), workers=2):
        seen.append(res['result'])
        if len(seen) == 20:
            break
    assert len(set(seen)) == 20
    assert 'pending' not in rows(proj).values()


# --- what comes out --------------------------------------------------------------------------------------


@pytest.mark.parametrize('executor', EXECUTORS)
def test_it_keeps_going_and_counts(proj, executor):
    """Failures are yielded like others; `Counts` says how it went, and what was there already."""

    @proj.resource('coll')
    def compute(ident, args, subdir):
        if int(ident) % 5 == 0:
            raise ValueError(f'{ident} is no good')
        return int(ident) * 2

    idents = [str(n) for n in range(40)]
    batch = proj.fetch_many('coll', idents, workers=2, executor=executor)
    found = {res.ident: res for res in batch}

    assert set(found) == set(idents)
    for ident, res in found.items():
        if int(ident) % 5:
            assert (res.status, res['result']) == ('completed', int(ident) * 2)
        else:
            assert res.status == 'error'
            assert f'ValueError: {ident} is no good' in res.error
    assert batch.counts == Counts(total=40, completed=32, error=8, pending=0, reused=0)
    again = proj.fetch_many('coll', idents, workers=2, executor=executor)
    assert again.wait() == Counts(total=40, completed=32, error=8, pending=0, reused=32)
    attempts = {entry.attempt for entry in proj.query(status='error')}
    assert attempts == {2}
    kept = proj.fetch_many('coll', idents, executor=executor, retry_errors=False)
    assert len(list(kept)) == 40
    assert kept.counts[:4] == (40, 32, 8, 0)
    assert {entry.attempt for entry in proj.query(status='error')} == {2}
    assert proj.fetch_many('coll', [], executor=executor).wait() == Counts()


def test_resources_are_yielded_as_they_finish(proj, tmp_path):
    """One that hangs at the head holds up nobody: twenty others are yielded before it."""
    go = tmp_path / 'go'

    @proj.resource('coll')
    def compute(ident, args, subdir):
        if ident == 'slow':
            while not go.exists():
                time.sleep(0.002)
        return ident

    order = []
    for res in proj.fetch_many('coll', ['slow', *map(str, range(20))], workers=2):
        order.append(res.ident)
        if len(order) == 20:
            assert 'slow' not in order
            go.touch()
    assert order[-1] == 'slow'
    assert len(order) == 21


@pytest.mark.parametrize('pause', [0, 0.08], ids=['quick source', 'slow source'])
def test_all_workers_are_put_to_work(proj, tmp_path, pause):
    """Four long runs and four workers: all run at once, however slowly the idents come."""

    @proj.resource('coll')
    def compute(ident, args, subdir):
        (tmp_path / f'began{ident}').touch()
        end = time.monotonic() + 4
        while len(list(tmp_path.glob('began*'))) < 4:
            assert time.monotonic() < end, 'the others were not begun'
            time.sleep(0.005)
        return ident

    def idents():
        for n in range(4):
            time.sleep(pause)
            yield n

    assert proj.fetch_many('coll', idents(), workers=4).wait() == Counts(4, 4, 0, 0, 0)


def test_a_hanging_head_loses_its_queue(proj, tmp_path, monkeypatch):
    """What waits behind one that hangs is handed to the other slots, and runs once."""
    monkeypatch.setattr(_worker_process, 'PREFETCH', HANG)  # on a slow machine too, much waits there
    go = tmp_path / 'go'

    @proj.resource('coll')
    def compute(ident, args, subdir):
        with open(tmp_path / 'runs', 'a') as log:
            log.write(ident + '\n')
        if ident == '100':
            while not go.exists():
                time.sleep(0.002)
        return ident

    done = 0
    for res in proj.fetch_many('coll', map(str, range(600)), workers=3):
        done += 1
        if done == 599:
            assert res.ident != '100'
            assert {e.ident: e.phase for e in proj.query(status='pending')} == {'100': 'running'}
            go.touch()
    assert done == 600
    assert set(runs(tmp_path).values()) == {1}


def test_an_order_that_is_sent_again_can_be_revoked_again():
    """Revoking reaches what came before it, each time; only a cancel is answered, once."""
    ours, theirs = socket.socketpair()
    with ours, theirs:
        slot = _worker_main.WorkerMain(theirs)
        order = _worker_main.pack_frame('order', 0, ('run', 'ident'))
        frames = [order, _worker_main.pack_frame('revoke', ['run', 'other'], False)]
        ours.sendall(b''.join([*frames, order, _worker_main.pack_frame('revoke', ['run'], True), order]))
        slot._receive(wait=True)
        answers = list(_worker_main.unpack_frames(bytearray(ours.recv(4096))))

        assert answers == [('skipped', 'run')]
        assert [fields for _, fields in slot._orders] == [('run', 'ident')]


@pytest.mark.parametrize('executor', EXECUTORS)
def test_repeated_idents_are_merged(proj, tmp_path, executor):
    """A repeat in flight is merged and yielded once; a later one is answered from disk."""
    go = tmp_path / 'go'

    @proj.resource('coll')
    def compute(ident, args, subdir):
        with open(tmp_path / 'runs', 'a') as log:
            log.write(ident + '\n')
        end = time.monotonic() + 3
        while ident == 'a' and not go.exists() and time.monotonic() < end:
            time.sleep(0.002)
        return ident

    proj.fetch('coll', 'warm')
    (tmp_path / 'runs').unlink()
    taken = []

    def idents():
        if executor == 'inline':  # each is done before the next is pulled
            go.touch()
            yield 'a'
        else:
            yield from ['a'] * 30
        yield 'b'
        go.touch()
        while 'a' not in taken:
            yield f'filler{time.monotonic_ns()}'
        yield 'a'
        yield 1
        yield '1'

    for res in proj.fetch_many('coll', idents(), workers=2, executor=executor):
        taken.append(res.ident)

    assert set(runs(tmp_path).values()) == {1}
    assert (taken.count('a'), taken.count('b')) == (2, 1)
    assert set(runs(tmp_path)) == set(taken)


@pytest.mark.parametrize('executor', EXECUTORS)
def test_idents_pairs_and_mappings(proj, executor):
    """Idents, (ident, args) pairs, mappings; args for those that bring none."""
    proj.resource('coll')(lambda ident, args, subdir: args)

    def fetched(idents, args=None):
        return {
            res.ident: res['result']
            for res in proj.fetch_many('coll', idents, args, workers=1, executor=executor)
        }

    assert fetched(['a', 7]) == {'a': {}, '7': {}}
    assert fetched([('b', {'x': 1}), ('c', None), 'd'], {'y': 2}) == {
        'b': {'x': 1},
        'c': {'y': 2},
        'd': {'y': 2},
    }
    assert fetched({'e': {'x': (1, 2)}, 'f': None}) == {'e': {'x': [1, 2]}, 'f': {}}
    assert fetched(iter([('g', {})])) == {'g': {}}
    assert {entry.ident: entry.args for entry in proj.query('coll', args={'x': 1})} == {'b': {'x': 1}}


@pytest.mark.parametrize('executor', EXECUTORS)
def test_bad_idents_and_args_among_many(proj, executor):
    """Each is a counted error that names it, and the rest goes on."""
    proj.resource('coll')(lambda ident, args, subdir: ident)
    idents = ['a', '', None, True, 1.5, 'x' * 5000, '\ud800', ('b', {'n': float('nan')}), ('c', [1]),
              ('d', {1: 2}), 'e', b'bytes', ('f', {'s': {1}})]  # fmt: skip
    batch = proj.fetch_many('coll', idents, workers=1, executor=executor)
    found = list(batch)

    assert sorted(res.ident for res in found if res.status == 'completed') == ['a', 'e']
    bad = [res for res in found if res.status == 'error']
    assert len(bad) == 11
    types = collections.Counter(res.entry.error_type for res in bad)
    assert types == {'InvalidIdent': 7, 'InvalidArgs': 4}
    assert all(res.error for res in bad)
    assert any('$.n is NaN' in res.error for res in bad)
    assert batch.counts == Counts(total=13, completed=2, error=11, pending=0, reused=0)
    assert rows(proj) == {'a': 'completed', 'e': 'completed'}


@pytest.mark.filterwarnings('ignore::hadrosaur.HadrosaurWarning')
@pytest.mark.parametrize('executor', EXECUTORS)
def test_a_folder_that_cannot_be_used_stops_nobody(proj, tmp_path, executor, monkeypatch):
    """A file, a link or a FIFO in place of one folder is that resource's error alone."""
    monkeypatch.setattr('hadrosaur.store.warn', lambda *given: None)  # of damage, which others try
    proj.resource('coll')(lambda ident, args, subdir: ident)
    for ident in ('result', 'status'):
        proj.fetch('coll', ident)
        path = Path(proj.path, 'coll', ident, f'{ident}.json')
        path.unlink()
        path.mkdir()
    Path(proj.path, 'coll/file').write_text('mine')
    Path(proj.path, 'coll/link').symlink_to(tmp_path)
    os.mkfifo(Path(proj.path, 'coll/fifo'))
    idents = ['a', 'file', 'b', 'link', 'c', 'fifo', 'd', 'result', 'e', 'status', 'f']
    batch = proj.fetch_many('coll', idents, workers=1, executor=executor)
    found = {res.ident: res.status for res in batch}

    assert {ident for ident in found if found[ident] == 'completed'} >= set('abcdef')
    assert found['file'] == found['link'] == found['fifo'] == 'error'
    assert batch.counts.total == 11
    assert Path(proj.path, 'coll/file').read_text() == 'mine'


@pytest.mark.parametrize('executor', EXECUTORS)
def test_policy_error_among_many(proj, executor):
    """on_args_change='error' refuses one resource, and the rest goes on."""
    proj.resource('coll', on_args_change='error')(lambda ident, args, subdir: args)
    proj.fetch('coll', 'old', {'n': 1})
    pairs = [('a', {'n': 2}), ('old', {'n': 2}), ('b', {'n': 2})]
    found = {res.ident: res for res in proj.fetch_many('coll', pairs, workers=1, executor=executor)}

    assert {ident: res.status for ident, res in found.items()} == {
        'a': 'completed',
        'old': 'error',
        'b': 'completed',
    }
    assert 'other args' in found['old'].error
    assert proj.fetch('coll', 'old')['result'] == {'n': 1}  # what was saved is saved


@pytest.mark.parametrize('executor', EXECUTORS)
def test_recompute_and_large_results(proj, executor):
    """recompute=True runs all again, with the stored args; results of any length come back whole."""

    @proj.resource('coll')
    def compute(ident, args, subdir):
        names = os.listdir(subdir)
        Path(subdir, 'own').touch()
        return [args['n'], 'x' * args['n'], names]

    sizes = {'small': 1, 'middle': 70_000, 'large': 3_000_000}
    first = list(proj.fetch_many('coll', {ident: {'n': n} for ident, n in sizes.items()}, executor=executor))
    second = list(proj.fetch_many('coll', list(sizes), recompute=True, workers=2, executor=executor))

    for found in (first, second):
        assert {res.ident: len(res['result'][1]) for res in found} == sizes
        assert [res['result'][2] for res in found] == [[]] * 3
    assert {entry.attempt for entry in proj.query('coll')} == {2}


@pytest.mark.parametrize('executor', EXECUTORS)
def test_progress_is_told(proj, executor):
    """A function given as progress sees the counts grow."""
    proj.resource('coll')(lambda ident, args, subdir: ident)
    seen = []
    proj.fetch_many('coll', map(str, range(10)), workers=1, executor=executor, progress=seen.append).wait()

    assert [counts.completed for counts in seen] == list(range(1, 11))
    assert seen[-1] == Counts(total=10, completed=10, error=0, pending=0, reused=0)


def test_bad_options(proj):
    """workers=0 and unknown executors are refused; nothing is written."""
    proj.resource('coll')(lambda ident, args, subdir: ident)
    for workers in (0, -1, 1.5, True, 'two'):
        with pytest.raises(ValueError, match='workers'):
            proj.fetch_many('coll', ['a'], workers=workers).wait()
    with pytest.raises(hadrosaur.UnknownExecutor, match='nothing'):
        proj.fetch_many('coll', ['a'], executor='nothing').wait()
    with pytest.raises(TypeError, match='one text'):
        proj.fetch_many('coll', 'abc').wait()
    with pytest.raises(hadrosaur.UnknownCollection, match='coll'):
        proj.fetch_many('col', ['a'])
    assert os.listdir(Path(proj.path, 'coll')) == []
    assert len(proj.query()) == 0


@pytest.mark.parametrize('executor', EXECUTORS)
def test_a_source_that_raises(proj, executor):
    """What the user's generator raises is raised; what was asked before it is final, nothing is pending."""
    proj.resource('coll')(lambda ident, args, subdir: ident)

    def idents():
        yield from map(str, range(10))
        raise ZeroDivisionError('in the source')

    seen = []
    with pytest.raises(ZeroDivisionError, match='in the source'):
        seen.extend(res.ident for res in proj.fetch_many('coll', idents(), workers=1, executor=executor))
    assert set(rows(proj).values()) <= {'completed', 'error'}
    assert not children()


# --- functions of all kinds ------------------------------------------------------------------------------


class Kind(enum.StrEnum):
    COLL = 'coll'


def test_names_that_are_enums(proj):
    """A collection, a timeout, an ident of a subclass of text or number count as what they hold."""

    class Seconds(float):
        pass

    class Ident(str):
        __slots__ = ()

    proj.resource(Kind.COLL, timeout=Seconds(30))(lambda ident, args, subdir: [ident, type(ident).__name__])
    (res,) = proj.fetch_many(Kind.COLL, [Ident('a')], workers=1)
    assert res['result'] == ['a', 'str']
    assert rows(proj) == {'a': 'completed'}


def test_functions_of_all_kinds(program, tmp_path):
    """Closures, lambdas, bound methods and functions of __main__, without a main guard, and of a module."""
    (tmp_path / 'my_module.py').write_text(
        'CALLS = 3\ndef compute(ident, args, subdir): return [ident, CALLS]\n'
    )
    done = program(
        PRELUDE
        + """
        import functools, my_module
        CONSTANT = 5
        print('loaded', flush=True)     # once: no slot imports this program

        def helper():
            return CONSTANT

        @proj.resource('main')
        def compute(ident, args, subdir):
            return [ident, helper()]

        def make(n):
            def closure(ident, args, subdir):
                return [ident, n]
            return closure

        class Thing:
            n = 7
            def method(self, ident, args, subdir):
                return [ident, self.n]
            def __call__(self, ident, args, subdir):
                return [ident, 8]

        proj.resource('closure')(make(6))
        proj.resource('lambda')(lambda ident, args, subdir: [ident, 2])
        proj.resource('module')(my_module.compute)
        proj.resource('method')(Thing().method)
        proj.resource('object')(Thing())
        proj.resource('partial')(functools.partial(lambda n, ident, args, subdir: [ident, n], 9))
        expected = {'main': 5, 'closure': 6, 'lambda': 2, 'module': 3, 'method': 7, 'object': 8, 'partial': 9}
        for name, n in expected.items():
            found = [res['result'] for res in proj.fetch_many(name, ['a'], workers=1)]
            assert found == [['a', n]], (name, proj.get(name, 'a').error)
        """
    )

    assert done.stdout == 'loaded\n'


def test_an_unpicklable_function_is_named(proj):
    """The message names the function and what in it cannot be sent; nothing stays pending."""
    culprit = threading.Lock()

    @proj.resource('coll')
    def my_function(ident, args, subdir):
        return culprit.locked()

    with pytest.raises(hadrosaur.ExecutorFault, match='my_function') as caught:
        proj.fetch_many('coll', ['a', 'b'], workers=1).wait()
    assert 'culprit' in str(caught.value) or 'lock' in str(caught.value)
    assert len(proj.query()) == 0
    assert proj.fetch_many('coll', ['a'], executor='inline').wait().completed == 1


def test_a_function_that_cannot_be_loaded_fails_by_name(program):
    """A module that a worker cannot import is each resource's error, and says which."""
    program(
        PRELUDE
        + """
        Path('vanished.py').write_text(
            "import os\\nif os.environ['PROGRAM'] != str(os.getpid()): raise ImportError('vanished')\\n"
            'def compute(ident, args, subdir): return 1\\n'
        )
        os.environ['PROGRAM'] = str(os.getpid())
        import vanished
        proj.resource('coll')(vanished.compute)
        found = list(proj.fetch_many('coll', ['a', 'b'], workers=1))
        assert len(found) == 2
        for res in found:
            assert res.status == 'error' and 'vanished' in res.error, res.error
        """
    )


# --- deaths ----------------------------------------------------------------------------------------------


@pytest.mark.long
def test_a_death_costs_exactly_its_own_resource(proj, tmp_path):
    """Killed, exited, crashed: the error names the signal or status; all siblings complete, each run once."""

    @proj.resource('coll')
    def compute(ident, args, subdir):
        with open(tmp_path / 'runs', 'a') as log:
            log.write(ident + '\n')
        print('printed', ident, flush=True)
        if ident == 'kill':
            os.kill(os.getpid(), signal.SIGKILL)
        if ident == 'exit':
            os._exit(3)
        if ident == 'segv':
            os.kill(os.getpid(), signal.SIGSEGV)
        if ident == 'term':
            os.kill(os.getpid(), signal.SIGTERM)
        return ident

    deadly = {'kill': 'SIGKILL', 'exit': 'status 3', 'segv': 'SIGSEGV', 'term': 'SIGTERM'}
    idents = [
        *map(str, range(20)),
        'kill',
        *map(str, range(20, 40)),
        'exit',
        'segv',
        *map(str, range(40, 60)),
        'term',
    ]
    batch = proj.fetch_many('coll', idents, workers=2)
    found = {res.ident: res for res in batch}

    assert batch.counts == Counts(total=64, completed=60, error=4, pending=0, reused=0)
    for ident in idents:
        res = found[ident]
        assert Path(res.paths['stdout']).read_text() == f'printed {ident}\n'
        if ident in deadly:
            assert (res.status, res.entry.error_type) == ('error', 'WorkerDied')
            assert deadly[ident] in res.error
            assert deadly[ident] in Path(res.paths['error']).read_text()
        else:
            assert (res.status, res['result']) == ('completed', ident)
    assert dict(runs(tmp_path)) == dict.fromkeys(idents, 1)
    errors = {entry.ident: (entry.error_type, entry.error) for entry in proj.query(status='error')}
    assert errors.keys() == deadly.keys()
    assert all(kind == 'WorkerDied' and deadly[ident] in text for ident, (kind, text) in errors.items())


@pytest.mark.timeout(300)
def test_a_death_with_a_spoiled_folder_stops_nobody(program, tmp_path):
    """Whatever the dead one left in place of its files, the batch goes on."""
    program(
        PRELUDE
        + """
        import shutil

        @proj.resource('coll')
        def compute(ident, args, subdir):
            ran(ident)
            folder = Path(subdir).parent
            if ident == 'status':
                (folder / 'status.json').unlink()
                (folder / 'status.json').mkdir()
            elif ident == 'record':
                (folder / 'record.json').unlink()
                (folder / 'record.json').mkdir()
            elif ident == 'file':
                shutil.rmtree(folder)
                folder.write_text('x')
            elif ident == 'gone':
                shutil.rmtree(folder)
            elif ident == 'read-only':
                (folder / 'error.log').mkdir()
            else:
                return ident
            os.kill(os.getpid(), signal.SIGKILL)

        idents = ['a', 'status', 'b', 'record', 'c', 'file', 'd', 'gone', 'e', 'read-only', 'f']
        signal.alarm(300)
        batch = proj.fetch_many('coll', idents, workers=2)
        found = {res.ident: res.status for res in batch}
        assert found == {ident: 'completed' if len(ident) == 1 else 'error' for ident in idents}, found
        assert batch.counts == (11, 6, 5, 0, 0), batch.counts
        assert {e.status for e in proj.query()} == {'completed', 'error'}
        """
    )


def test_a_surviving_child_does_not_hide_a_death(program, tmp_path, marked):
    """A slot that dies while a child of its function lives on is noticed before that ends."""
    done = program(
        PRELUDE
        + """
        @proj.resource('coll')
        def compute(ident, args, subdir):
            if ident == 'dies':
                if os.fork() == 0:
                    os.setsid()
                    await_file('end')
                    os._exit(0)
                os.kill(os.getpid(), signal.SIGKILL)
            return ident

        for res in proj.fetch_many('coll', ['dies', 'lives'], workers=1):
            if res.ident == 'dies':
                assert 'SIGKILL' in res.error, res.error
                print('noticed')
            else:
                assert res['result'] == 'lives'
        Path('end').touch()
        """,
        env=marked.environment,
    )

    assert done.stdout == 'noticed\n'
    await_that(lambda: not marked.alive())


def test_a_stopped_slot_is_not_declared_dead(program, marked):
    """A slot under SIGSTOP is waited for; continued, its resource completes."""
    program(
        PRELUDE
        + """
        @proj.resource('coll')
        def compute(ident, args, subdir):
            Path('pid').write_text(str(os.getpid()))
            os.kill(os.getpid(), signal.SIGSTOP)
            return ident

        def let_go():
            await_file('pid')
            time.sleep(1.3)
            assert [e.status for e in proj.query()] == ['pending']
            Path('seen').touch()
            os.kill(int(Path('pid').read_text()), signal.SIGCONT)

        thread = threading.Thread(target=let_go)
        thread.start()
        (res,) = proj.fetch_many('coll', ['one'], workers=1)
        thread.join()
        assert res['result'] == 'one' and os.path.exists('seen'), res.error
        """,
        env=marked.environment,
    )
    assert not marked.alive()


# --- ends ------------------------------------------------------------------------------------------------


@pytest.mark.long
def test_nothing_is_left_afterwards(proj):
    """No thread, process or descriptor more than before, however a batch ended."""
    proj.resource('coll')(lambda ident, args, subdir: int(ident) if int(ident) % 7 else os._exit(1))
    proj.resource('forever')(lambda ident, args, subdir: time.sleep(600))
    proj.fetch('coll', '1')
    proj.fetch_many('coll', ['2', '3'], workers=2).wait()
    before = holdings()

    proj.fetch_many('coll', map(str, range(60)), workers=2).wait()
    assert holdings() == before, 'run to its end'
    for res in proj.fetch_many('coll', map(str, range(60, 300)), workers=2):
        if res.ident == '65':
            break
    del res
    assert await_that(lambda: holdings() == before), 'left early'
    batch = proj.fetch_many('coll', map(str, range(300, 500)), workers=2)
    next(batch)
    batch.cancel()
    batch.wait()
    assert holdings() == before, 'cancelled'
    del batch
    with pytest.raises(hadrosaur.UnknownExecutor):
        proj.fetch_many('coll', ['600'], executor='none').wait()
    with pytest.raises(ZeroDivisionError):
        proj.fetch_many('coll', (1 // (3 - n) for n in range(9)), workers=1).wait()
    gc.collect()
    assert holdings() == before, 'raised'
    assert 'pending' not in rows(proj).values()


def test_cancel_in_mid_run(proj, tmp_path):
    """Running ones are killed and end in Cancelled; those never begun are as if never asked."""

    @proj.resource('coll')
    def compute(ident, args, subdir):
        if ident in ('9', '12'):
            (tmp_path / f'began{ident}').touch()
            time.sleep(600)
        return ident

    batch = proj.fetch_many('coll', map(str, range(300)), workers=2)

    def cancel():
        await_that((tmp_path / 'began9').exists)
        await_that((tmp_path / 'began12').exists)
        batch.cancel()

    canceller = threading.Thread(target=cancel)
    found = {res.ident: res for res in batch if canceller.ident or canceller.start() is None}
    canceller.join()

    assert found['9'].entry.error_type == found['12'].entry.error_type == 'Cancelled'
    assert all(res.status == 'completed' for ident, res in found.items() if ident not in ('9', '12'))
    assert rows(proj) == {ident: res.status for ident, res in found.items()}
    assert {at.name for at in Path(proj.path, 'coll').iterdir()} == set(found)
    assert batch.counts == Counts(total=len(found), completed=len(found) - 2, error=2, pending=0, reused=0)
    assert not children()


def test_cancelling_keeps_an_old_result_that_was_not_begun(proj, tmp_path):
    """A queued recompute that is cancelled leaves the old result and the old row."""
    began = tmp_path / 'began'

    @proj.resource('coll')
    def compute(ident, args, subdir):
        if args.get('hang'):
            began.touch()
            time.sleep(600)
        return ident

    idents = [str(n) for n in range(20)]
    proj.fetch_many('coll', idents, executor='inline').wait()
    before = {entry.ident: tuple(entry)[:20] for entry in proj.query()}
    batch = proj.fetch_many('coll', [(ident, {'hang': 1}) for ident in idents], workers=1, recompute=True)
    canceller = threading.Thread(target=lambda: (await_that(began.exists), batch.cancel()))
    canceller.start()
    found = list(batch)
    canceller.join()

    assert [(res.ident, res.entry.error_type) for res in found] == [('0', 'Cancelled')]
    assert batch.counts == Counts(total=1, completed=0, error=1, pending=0, reused=0)
    after = {entry.ident: tuple(entry)[:20] for entry in proj.query()}
    assert {ident for ident in idents if before[ident] != after[ident]} == {'0'}
    for ident in idents[1:]:
        assert proj.fetch('coll', ident)['result'] == ident
    assert proj.check(deep=True).findings == []


def test_a_dropped_batch_warns(proj):
    """One that was never started says so; one that was is silent."""
    proj.resource('coll')(lambda ident, args, subdir: ident)
    with pytest.warns(hadrosaur.HadrosaurWarning, match='dropped'):
        proj.fetch_many('coll', ['a'])
    with warnings.catch_warnings():
        warnings.simplefilter('error')
        proj.fetch_many('coll', ['a'], executor='inline').wait()
        batch = proj.fetch_many('coll', ['b'])
        batch.cancel()
        del batch
        gc.collect()
    assert rows(proj) == {'a': 'completed'}


@pytest.mark.parametrize('ignores', ['', 'ignores'])
def test_ctrl_c_leaves_nothing_pending(program, tmp_path, marked, ignores):
    """SIGINT: running ones are interrupted (or killed), queued ones forgotten, no process is left."""
    started = program(
        PRELUDE
        + """
        @proj.resource('coll')
        def compute(ident, args, subdir):
            if ident in ('50', '51'):
                subprocess.Popen(['sleep', '600'])
                while True:
                    try:
                        Path(f'began{ident}').touch()
                        time.sleep(600)
                    except KeyboardInterrupt:
                        if not args['ignores']:
                            raise
            return ident

        proj.fetch_many('coll', map(str, range(400)), {'ignores': sys.argv[1]}, workers=2).wait()
        """,
        ignores,
        start=True,
        env=marked.environment,
    )
    await_that(lambda: (tmp_path / 'began50').exists() and (tmp_path / 'began51').exists())
    assert len(marked.alive()) >= 5
    started.send_signal(signal.SIGINT)
    _, err = started.communicate(timeout=HANG)

    assert 'KeyboardInterrupt' in err
    assert started.returncode in (-signal.SIGINT, 1, 130)
    await_that(lambda: not marked.alive())
    with Project(tmp_path / 'base') as proj:
        found = rows(proj)
        assert found.pop('50') == found.pop('51') == 'error'
        assert set(found.values()) == {'completed'}
        assert {entry.error_type for entry in proj.query(status='error')} == {'Interrupted'}
        assert proj.check().findings == [], err
        assert {at.name for at in (tmp_path / 'base/coll').iterdir()} == {*found, '50', '51'}


def test_ctrl_c_inline(program, tmp_path):
    """Inline the function itself is interrupted; those that wait are as if never asked."""
    started = program(
        PRELUDE
        + """
        @proj.resource('coll')
        def compute(ident, args, subdir):
            if ident == '3':
                Path('began').touch()
                time.sleep(600)
            return ident

        proj.fetch_many('coll', map(str, range(100)), executor='inline').wait()
        """,
        start=True,
    )
    await_that((tmp_path / 'began').exists)
    started.send_signal(signal.SIGINT)
    _, err = started.communicate(timeout=HANG)

    assert 'KeyboardInterrupt' in err
    with Project(tmp_path / 'base') as proj:
        assert rows(proj) == {'0': 'completed', '1': 'completed', '2': 'completed', '3': 'error'}
        assert proj.get('coll', '3').entry.error_type == 'Interrupted'
        assert len(os.listdir(tmp_path / 'base/coll')) == 4


def test_a_killed_caller(program, tmp_path, marked):
    """kill -9: slots finish their head and go; a new run computes nothing twice, nothing stays pending."""
    source = (
        PRELUDE
        + """
        @proj.resource('coll')
        def compute(ident, args, subdir):
            ran(ident)
            time.sleep(0.02)
            return ident

        idents = [str(n) for n in range(60)]
        if sys.argv[1] == 'first':
            for n, res in enumerate(proj.fetch_many('coll', idents, workers=2)):
                if n == 15:
                    print('now', flush=True)
        else:
            batch = proj.fetch_many('coll', idents, workers=2)
            found = {res.ident: res['result'] for res in batch}
            assert found == {ident: ident for ident in idents}
            assert batch.counts[:4] == (60, 60, 0, 0), batch.counts
            assert batch.counts.reused >= 15
            assert {e.status for e in proj.query()} == {'completed'}
            assert proj.check().findings == []
        """
    )
    killed = program(source, 'first', start=True, env=marked.environment)
    assert killed.stdout.readline() == 'now\n'
    killed.kill()
    killed.wait(timeout=HANG)
    await_that(lambda: not marked.alive())
    program(source, 'second', env=marked.environment)

    assert len(runs(tmp_path)) == 60
    assert set(runs(tmp_path).values()) == {1}
    assert not marked.alive()


@pytest.mark.long
def test_killed_again_and_again(program, tmp_path, marked):
    """Callers killed at random moments, one after the other: nothing acknowledged is lost or run again."""
    source = (
        PRELUDE
        + """
        @proj.resource('coll')
        def compute(ident, args, subdir):
            ran(ident)
            Path(subdir, 'own').write_text(ident)
            return [ident] * 50

        seen = open('acknowledged', 'a', buffering=1)
        batch = proj.fetch_many('coll', map(str, range(700)), workers=2)
        print('go', flush=True)
        for res in batch:
            assert res['result'] == [res.ident] * 50, res.error
            seen.write(res.ident + '\\n')
        """
    )
    for delay in (0.26, 0.3, 0.35, 0.45):
        killed = program(source, start=True, env=marked.environment)
        assert killed.stdout.readline() == 'go\n', killed.stderr.read()
        time.sleep(delay)  # random by nature: any moment will do
        killed.kill()
        _, err = killed.communicate()
        assert err == ''
        acknowledged = set((tmp_path / 'acknowledged').read_text().split())
        with Project(tmp_path / 'base') as proj:
            for ident in acknowledged:
                assert proj.get('coll', ident)['result'] == [ident] * 50
    program(source, env=marked.environment)
    twice = {ident for ident, count in runs(tmp_path).items() if count > 1}
    with Project(tmp_path / 'base') as proj:
        assert set(rows(proj).values()) == {'completed'}
        assert len(rows(proj)) == 700
    assert not twice & acknowledged  # (a slot's head may be finished by an orphan, never computed again)
    assert twice == set()
    await_that(lambda: not marked.alive())


@pytest.mark.long
def test_two_callers_share_the_work(program, tmp_path, marked):
    """Two processes ask for the same 300 idents: each is computed once, both get all results."""
    source = (
        PRELUDE
        + """
        @proj.resource('coll')
        def compute(ident, args, subdir):
            ran(ident)
            if int(ident) % 20 == 0:
                time.sleep(0.01)
            return [ident, 'x' * 100]

        idents = [str(n) for n in range(300)]
        random.Random(sys.argv[1]).shuffle(idents)
        Path('ready' + sys.argv[1]).touch()
        await_file('ready1')
        await_file('ready2')
        batch = proj.fetch_many('coll', idents, workers=2)
        found = {res.ident: res['result'] for res in batch}
        assert found == {ident: [ident, 'x' * 100] for ident in idents}
        assert batch.counts[:4] == (300, 300, 0, 0), batch.counts
        print(batch.counts.reused)
        """
    )
    callers = [program(source, n, start=True, env=marked.environment) for n in (1, 2)]
    reused = []
    for caller in callers:
        out, err = caller.communicate(timeout=HANG)
        assert (caller.returncode, err) == (0, '')
        reused.append(int(out))
    assert len(runs(tmp_path)) == 300
    assert set(runs(tmp_path).values()) == {1}
    assert sum(reused) == 300  # each was reused by exactly one of the two
    with Project(tmp_path / 'base') as proj:
        assert collections.Counter(rows(proj).values()) == {'completed': 300}
    assert not marked.alive()


@pytest.mark.parametrize('how', ['exit', 'return', 'kill'])
def test_a_fork_in_the_middle_of_a_batch(program, how):
    """A child that is forked while a batch runs and ends in any way takes nothing with it."""
    done = program(
        PRELUDE
        + """
        proj.resource('coll')(lambda ident, args, subdir: time.sleep(0.003) or ident)

        from hadrosaur.engine import dispatcher

        def main():
            batch = proj.fetch_many('coll', map(str, range(120)), workers=2)
            for n, res in enumerate(batch):
                assert res.status == 'completed', res.error
                if n == 5:
                    child = os.fork()
                    if child == 0:
                        # It must not wait for slots that are not its own.
                        dispatcher.Dispatcher.stop = lambda *_, **__: os._exit(7)
                        if sys.argv[1] == 'exit':
                            sys.exit(0)
                        if sys.argv[1] == 'kill':
                            os.kill(os.getpid(), signal.SIGKILL)
                        return          # the batch goes out of scope here, too
                    ended = os.waitpid(child, 0)[1]
                    assert ended == (9 if sys.argv[1] == 'kill' else 0), ended
            assert batch.counts == (120, 120, 0, 0, 0), batch.counts
            assert len(proj.query(status='completed')) == 120
            print('done')

        main()
        """,
        how,
    )

    assert (done.stdout, done.stderr) == ('done\n', '')


def test_a_child_may_have_a_batch_of_its_own(program, marked):
    """After a fork both sides can fetch many, each with slots of its own."""
    program(
        PRELUDE
        + """
        proj.resource('coll')(lambda ident, args, subdir: ident)
        first = proj.fetch_many('coll', map(str, range(200)), workers=1)
        next(first)
        child = os.fork()
        counts = proj.fetch_many('coll', [f'{child == 0}{n}' for n in range(50)], workers=1).wait()
        assert counts == (50, 50, 0, 0, 0), counts
        if child == 0:
            os._exit(0)
        assert os.waitpid(child, 0)[1] == 0
        assert first.wait()[:4] == (200, 200, 0, 0), first.counts
        assert len(proj.query(status='completed')) == 300
        """,
        env=marked.environment,
    )
    assert not marked.alive()


# --- time and retries ------------------------------------------------------------------------------------


def test_timeout_kills_what_the_function_started(proj, tmp_path):
    """A run that takes too long ends in TimedOut, its grandchildren with it; the rest is left alone."""

    @proj.resource('coll', timeout=0.6)
    def compute(ident, args, subdir):
        if ident == 'slow':
            import subprocess

            process = subprocess.Popen(
                ['sh', '-c', 'sleep 600 & echo $!; wait'], stdout=subprocess.PIPE, text=True
            )
            (tmp_path / 'pid').write_text(process.stdout.readline())
            process.wait()
        time.sleep(0.01)
        return ident

    found = {
        res.ident: res for res in proj.fetch_many('coll', ['a', 'slow', *map(str, range(30))], workers=2)
    }

    assert (found['slow'].status, found['slow'].entry.error_type) == ('error', 'TimedOut')
    assert '0.6 s' in found['slow'].error
    assert all(res.status == 'completed' for ident, res in found.items() if ident != 'slow')
    grandchild = Path('/proc', (tmp_path / 'pid').read_text().strip())
    await_that(lambda: not grandchild.exists() or ') Z ' in (grandchild / 'stat').read_text(), 2)


def test_timeout_is_of_one_run(proj):
    """Many runs that each stay below it are fine; a foreground fetch is held to it too."""
    proj.resource('coll', timeout=0.8)(
        lambda ident, args, subdir: time.sleep(0.15 if ident != 'slow' else 600)
    )
    counts = proj.fetch_many('coll', map(str, range(8)), workers=1).wait()
    assert counts.completed == 8
    res = proj.fetch('coll', 'slow')
    assert (res.status, res.entry.error_type) == ('error', 'TimedOut')
    assert not children() or proj.wait()


@pytest.mark.parametrize('executor', EXECUTORS)
def test_retries(proj, tmp_path, executor):
    """A failing one is tried again so many times; attempts are counted, the last outcome is yielded once."""

    @proj.resource('coll', retries=2)
    def compute(ident, args, subdir):
        with open(tmp_path / 'runs', 'a') as log:
            log.write(ident + '\n')
        attempt = hadrosaur.current().attempt
        print('attempt', attempt)
        if ident == 'never' or (ident == 'third' and attempt < 3):
            raise ValueError(f'attempt {attempt}')
        return attempt

    batch = proj.fetch_many('coll', ['third', 'never', 'at once'], workers=2, executor=executor)
    found = {res.ident: res for res in batch}

    assert len(found) == 3
    assert (found['third']['result'], found['at once']['result']) == (3, 1)
    assert found['never'].status == 'error'
    assert 'attempt 3' in found['never'].error
    assert dict(runs(tmp_path)) == {'third': 3, 'never': 3, 'at once': 1}
    assert batch.counts == Counts(total=3, completed=2, error=1, pending=0, reused=0)
    assert {entry.ident: entry.attempt for entry in proj.query()} == {'third': 3, 'never': 3, 'at once': 1}
    assert Path(found['third'].paths['stdout']).read_text() == 'attempt 3\n'
    assert not found['third'].error
    assert proj.reindex()[1:4] == (0, 0, 0)


def test_a_death_is_tried_again_and_delays_hold_up_nobody(proj, tmp_path):
    """A killed run counts as a failed one; while a retry waits, others run."""

    @proj.resource('coll', retries=1, retry_delay=0.5)
    def compute(ident, args, subdir):
        with open(tmp_path / 'runs', 'a') as log:
            log.write(ident + '\n')
        if ident == 'dies' and hadrosaur.current().attempt == 1:
            os.kill(os.getpid(), signal.SIGKILL)
        return hadrosaur.current().attempt

    order = []
    found = {}
    for res in proj.fetch_many('coll', ['dies', *map(str, range(30))], workers=1):
        order.append(res.ident)
        found[res.ident] = res
    assert order[-1] == 'dies'
    assert found['dies']['result'] == 2
    assert runs(tmp_path)['dies'] == 2
    assert len(order) == 31


# --- slots -----------------------------------------------------------------------------------------------


def test_a_function_that_leaves_threads(proj, tmp_path):
    """Threads that print after their function returned write into no other log."""

    @proj.resource('coll')
    def compute(ident, args, subdir):
        def chatter():
            for n in range(200):
                print(f'late {ident} {n}')
                time.sleep(0.001)

        print('in time', ident)
        if int(ident) % 4 == 0:
            threading.Thread(target=chatter, daemon=ident == '4').start()
        else:
            time.sleep(0.005)  # for others' late output, if it comes here
        return ident

    counts = proj.fetch_many('coll', map(str, range(24)), workers=2).wait()

    assert counts == Counts(total=24, completed=24, error=0, pending=0, reused=0)
    for n in range(24):
        lines = Path(proj.path, f'coll/{n}/stdout.log').read_text().splitlines()
        assert lines[0] == f'in time {n}'
        assert all(line.startswith(f'late {n} ') for line in lines[1:])


def test_slots_start_where_the_caller_stands(program, tmp_path):
    """Folder, path, environment and options are the caller's; what a function changes is put back."""
    (tmp_path / 'work').mkdir()
    program(
        PRELUDE
        + """
        @proj.resource('coll')
        def compute(ident, args, subdir):
            where = os.getcwd()
            assert sys.stdin.read() == ''       # the caller's terminal is not read
            os.chdir('/')
            return [os.getpid() != int(args['pid']), where, os.environ.get('MINE'), sys.argv[1:],
                    sys.path[0], sys.flags.bytes_warning]

        os.chdir('work')
        os.environ['MINE'] = 'yes'
        sys.path.insert(0, '/nowhere')
        found = [res['result'] for res in proj.fetch_many('coll', ['a', 'b', 'c'],
                                                          {'pid': os.getpid()}, workers=1)]
        assert found == [[True, os.getcwd(), 'yes', ['--mine'], '/nowhere', 2]] * 3, found
        assert os.listdir('.') == []
        """,
        '--mine',
        flags=['-bb'],
    )


UNFORKED = """
        from hadrosaur.executors import template
        template.IS_USED = template.IS_USED and sys.argv[1] != 'unforked'  # none is a new interpreter
"""


@pytest.mark.parametrize(
    ('how', 'closed'),
    [*(('as it is', closed) for closed in ('0', '1', '2', '012')), ('unforked', '2'), ('unforked', 'own')],
)
def test_slots_start_where_descriptors_are_closed(program, tmp_path, how, closed):
    """A daemon may run without any of the three, or keep the last one to itself."""
    program(
        PRELUDE
        + UNFORKED
        + """
        @proj.resource('coll')
        def compute(ident, args, subdir):
            print(ident)
            return ident

        if sys.argv[2] == 'own':
            os.set_inheritable(2, False)
        else:
            for fd in sys.argv[2]:
                os.close(int(fd))
        found = [res['result'] for res in proj.fetch_many('coll', ['a', 'b'], workers=1)]
        open('found', 'w').write(json.dumps(found))
        """,
        how,
        closed,
        check=False,
    )
    assert json.loads((tmp_path / 'found').read_text()) == ['a', 'b']


def test_slots_start_whatever_an_embedding_program_left(program):
    """sys.path may hold what Python skips, and sys.argv anything, or not be there."""
    program(
        PRELUDE
        + """
        class Word(str):
            pass

        proj.resource('coll')(lambda ident, args, subdir: sys.argv)
        sys.path[:0] = [Path('/nowhere'), b'/nowhere']
        for run, argv in enumerate(([Path('script'), Word('word')], None)):
            if argv is None:
                del sys.argv
            else:
                sys.argv = argv
            [res] = proj.fetch_many('coll', [run], workers=1)
            assert res['result'] == ([] if argv is None else ['script', 'word']), (res, res.error)
        """
    )


@pytest.mark.parametrize('way', ['nothing', 'gone', 'frozen'])
def test_a_program_that_is_no_python_starts_no_workers(proj, monkeypatch, way):
    """It would be started again and again; the next try, with a Python, finds nothing left behind."""
    proj.resource('coll', timeout=60)(lambda ident, args, subdir: ident)
    with monkeypatch.context() as patch:
        if way == 'frozen':
            patch.setattr(sys, 'frozen', True, raising=False)
        else:
            patch.setattr(sys, 'executable', None if way == 'nothing' else '/not/there')
        for compute in (lambda: proj.fetch('coll', 'a'), lambda: proj.fetch_many('coll', ['a']).wait()):
            with pytest.raises(hadrosaur.ExecutorUnavailable, match='is no Python'):
                compute()

    assert list(proj.query()) == []
    assert proj.fetch('coll', 'a')['result'] == 'a'


def test_workers_that_failed_leave_nothing_pending(proj, base, monkeypatch):
    """The fetch that waits is told; the next one, from here or elsewhere, starts anew."""
    proj.resource('coll', timeout=60)(lambda ident, args, subdir: ident)
    with monkeypatch.context() as patch:
        patch.setattr(_worker_process, '_started', lambda *ends: 1 / 0)
        with pytest.raises(hadrosaur.ExecutorFault, match='division by zero'):
            proj.fetch('coll', 'a')

    assert list(proj.query()) == []
    with Project(base) as other:
        other.resource('coll')(lambda ident, args, subdir: ident)
        assert other.explain('coll', 'a').computes
    assert proj.fetch('coll', 'a')['result'] == 'a'
    assert proj.close() is None


def test_a_worker_that_was_collected_by_others(program):
    """How it ended is not known then, and not said."""
    program(
        PRELUDE
        + """
        from hadrosaur.executors import template
        template.IS_USED = False  # else a worker is nobody's child here, and how it ended is known
        proj.resource('coll')(lambda ident, args, subdir: os.kill(os.getpid(), signal.SIGKILL))
        signal.signal(signal.SIGCHLD, signal.SIG_IGN)
        [res] = proj.fetch_many('coll', ['a'], workers=1)
        assert res.entry.error_type == 'WorkerDied', res.error
        assert 'your program collected' in res.entry.error, res.entry.error
        """
    )


def test_functions_of_a_script_in_a_process_that_was_spawned(program):
    """There the script is a module that only that process has."""
    program(
        """
        import multiprocessing
        from hadrosaur import Project

        def double(ident):
            return ident * 2

        def work(queue):
            proj = Project('base')
            proj.resource('coll')(compute)
            queue.put([res['result'] for res in proj.fetch_many('coll', ['a'], workers=1)])
            proj.close()

        def compute(ident, args, subdir):
            return double(ident)

        if __name__ == '__main__':
            for method in ('spawn', 'forkserver'):
                context = multiprocessing.get_context(method)
                queue = context.SimpleQueue()
                process = context.Process(target=work, args=(queue,))
                process.start()
                assert queue.get() == ['aa'], method
                process.join()
        """
    )


def test_a_function_may_fetch_from_threads_of_its_own(proj):
    """In a worker they belong to the resource that started them, whatever else they fetch meanwhile."""

    @proj.resource('dep')
    def dep(ident, args, subdir):
        return ident

    @proj.resource('outer')
    def outer(ident, args, subdir):
        began, last_began, over = threading.Event(), threading.Event(), threading.Event()
        inner = Project(proj.path)

        @inner.resource('dep')
        def dep(ident, args, subdir):
            if ident == 'first':
                began.set()
                assert last_began.wait(30)
            else:
                last_began.set()
                assert over.wait(30)

        def look():  # in a thread that Python's own start did not see, as one of a library
            whose.append(getattr(hadrosaur.current(), 'ident', None))
            looked.set()

        def fetch_last():
            assert began.wait(30)
            _thread.start_new_thread(look, ())
            assert looked.wait(30)
            answers.append(inner.fetch('dep', 'last').status)

        def fetch_first():
            answers.append(inner.fetch('dep', 'first').status)
            over.set()

        answers, whose, looked = [], [], threading.Event()
        asking = [threading.Thread(target=fetch_last), threading.Thread(target=fetch_first)]
        for thread in asking:
            thread.start()
        for thread in asking:
            thread.join()
        return answers + whose

    [res] = proj.fetch_many('outer', ['x'], workers=1)
    assert res['result'] == ['completed', 'completed', 'x'], res.error
    assert sorted(row.ident for row in proj.query()) == ['first', 'last', 'x']
    assert proj.check().findings == []


def test_a_function_may_fetch_from_another_project(proj, tmp_path):
    """Its rows stay there, and the same name in both is no circle."""
    with Project(tmp_path / 'other') as other:
        for name in ('coll', 'theirs'):
            other.resource(name)(lambda ident, args, subdir: 'of the other')

        @proj.resource('coll')
        def compute(ident, args, subdir):
            return [other.fetch(name, ident)['result'] for name in ('coll', 'theirs')]

        proj.fetch('coll', 'here')
        proj.fetch_many('coll', ['there'], workers=1).wait()

        assert [res['result'] for res in proj.fetch_many('coll', ['here', 'there'])] == [
            ['of the other'] * 2
        ] * 2
        assert sorted((row.collection, row.ident) for row in proj.query()) == [
            ('coll', 'here'),
            ('coll', 'there'),
        ]
        assert proj.check().findings == []
        assert [row.collection for row in other.query(ident='here', order_by='collection')] == [
            'coll',
            'theirs',
        ]


@pytest.mark.long
def test_files_of_sessions_that_are_over_go(program, tmp_path):
    """A program seldom says that it ends; the next one tidies up."""
    source = """
        from hadrosaur import Project
        proj = Project('base')
        proj.resource('coll')(lambda ident, args, subdir: ident)
        proj.fetch('coll', 'a', recompute=True)
        """
    for _ in range(3):
        program(source)
    assert len(list((tmp_path / 'base/.hadrosaur/sessions').iterdir())) == 1


def test_fetch_as_the_target_of_a_process(program, tmp_path):
    """The original's way to go parallel, under each way to start a process."""
    program(
        """
        import multiprocessing
        from hadrosaur import Project

        proj = Project('base')
        @proj.resource('coll')
        def compute(ident, args, subdir):
            return ident

        if __name__ == '__main__':
            for method in ('fork', 'spawn', 'forkserver'):
                context = multiprocessing.get_context(method)
                process = context.Process(target=proj.fetch, args=('coll', method))
                process.start()
                process.join()
                assert process.exitcode == 0, method
                assert proj.get('coll', method)['result'] == method
        """
    )


@pytest.mark.parametrize('how', ['as it is', 'unforked'])
def test_files_of_the_callers_folder_are_no_modules_of_a_slot(program, tmp_path, how):
    """A script may lie elsewhere than in the current folder, where a socket.py is any other file."""
    (tmp_path / 'work').mkdir()
    for name in ('socket', 'struct', 'json'):
        (tmp_path / f'work/{name}.py').write_text('raise SystemExit("imported from the current folder")')
    program(
        PRELUDE
        + UNFORKED
        + """
        @proj.resource('coll')
        def compute(ident, args, subdir):
            return ident

        assert [res['result'] for res in proj.fetch_many('coll', ['a'], workers=1)] == ['a']
        """,
        how,
        cwd=tmp_path / 'work',
    )


def test_background_and_batches_meet(proj, tmp_path):
    """What is under way in the background is awaited by a batch, and computed once."""
    go = tmp_path / 'go'

    @proj.resource('coll')
    def compute(ident, args, subdir):
        with open(tmp_path / 'runs', 'a') as log:
            log.write(ident + '\n')
        while not go.exists():
            time.sleep(0.002)
        return ident

    assert proj.fetch('coll', 'b', background=True).status == 'pending'
    await_that(lambda: runs(tmp_path)['b'])
    batch = proj.fetch_many('coll', ['a', 'b', 'c'], workers=1)
    threading.Thread(target=lambda: (await_that(lambda: runs(tmp_path)['a']), go.touch())).start()
    assert sorted(res['result'] for res in batch) == ['a', 'b', 'c']
    assert dict(runs(tmp_path)) == {'a': 1, 'b': 1, 'c': 1}
    assert proj.wait(timeout=HANG)
    proj.close()
    assert not children()


def test_what_runs_here_is_awaited_without_polling(proj, monkeypatch):
    """A fetch that waits for a worker process of its own returns as soon as that is done."""
    proj.resource('coll', timeout=60)(lambda ident, args, subdir: ident)
    monkeypatch.setattr(project.in_flight.time, 'sleep', lambda seconds: pytest.fail('it slept'))
    monkeypatch.setattr(fetcher, '_POLL', 30.0)

    assert proj.fetch('coll', 'a')['result'] == 'a'
    assert proj.fetch('coll', 'b', background=True).wait(60)['result'] == 'b'


def test_news_that_came_before_the_waiting_is_not_missed():
    """Several may wait, and none takes the news from another."""
    news = Notifier()
    version = news.version
    heard = []
    waiters = [
        threading.Thread(target=lambda: heard.append(news.wait(version)), daemon=True) for _ in range(3)
    ]
    for waiter in waiters[:2]:
        waiter.start()
    await_that(lambda: len(news._told._waiters) == 2)
    news.notify()
    waiters[2].start()
    for waiter in waiters:
        waiter.join(HANG)

    assert len(heard) == 3


def test_one_among_many_in_the_background_is_found_by_its_name(proj, tmp_path):
    """Sending one off does not take longer the more are on their way."""
    go = tmp_path / 'go'

    class Unread(dict):
        def values(self):
            pytest.fail('all flights were looked at')

    @proj.resource('coll', background=True)
    def compute(ident, args, subdir):
        while not go.exists():
            time.sleep(0.002)
        return ident

    proj.fetch('coll', 'first')
    dispatcher = proj._background.dispatcher
    plain, dispatcher._submissions = dispatcher._submissions, Unread(dispatcher._submissions)
    proj.fetch('coll', 'second')
    assert proj.fetch('coll', 'first').status == 'pending'
    assert proj.explain('coll', 'second').reason == 'it is being computed, or queued'
    plain.update(dispatcher._submissions)
    dispatcher._submissions = plain
    go.touch()
    assert proj.wait(timeout=HANG)
    assert [row.status for row in proj.query()] == ['completed'] * 2


def test_many_in_the_background(proj, tmp_path):
    """background=True for many: pending at once, all completed by themselves; cancel stops the rest."""
    proj.resource('coll', background=True)(
        lambda ident, args, subdir: time.sleep(600) if ident == 'hang' else ident
    )
    resources = [proj.fetch('coll', n) for n in range(10)]
    assert {res.status for res in resources} <= {'pending', 'completed'}
    assert [res.wait(20)['result'] for res in resources] == [str(n) for n in range(10)]
    hanging = proj.fetch('coll', 'hang')
    assert hanging.status == 'pending'
    await_that(lambda: json.loads(Path(proj.path, 'coll/hang/status.json').read_text())['pending'])
    proj.cancel('coll', 'hang')
    with contextlib.suppress(hadrosaur.ResourceNotFound):  # it may have been cancelled before it began
        assert hanging.wait(10).status == 'error'
        assert proj.get('coll', 'hang').entry.error_type == 'Cancelled'
    proj.close(cancel=True)
    assert not children()


def test_two_batches_at_once(proj):
    """Batches of one project do not disturb each other."""
    proj.resource('a')(lambda ident, args, subdir: ['a', ident])
    proj.resource('b')(lambda ident, args, subdir: ['b', ident])
    first = proj.fetch_many('a', map(str, range(100)), workers=1)
    second = proj.fetch_many('b', map(str, range(100)), workers=1)
    found = [res['result'] for pair in zip(first, second, strict=True) for res in pair]

    assert sorted(found) == sorted([name, str(n)] for name in 'ab' for n in range(100))
    assert first.counts == second.counts == Counts(total=100, completed=100, error=0, pending=0, reused=0)


def test_output_stays_in_its_log(proj):
    """Tagged lines of many resources, from Python, descriptor 1, subprocesses: none foreign, none missing."""

    @proj.resource('coll')
    def compute(ident, args, subdir):
        for n in range(100):
            print(f'{ident} {n}')
            os.write(1, f'{ident} raw {n}\n'.encode())
        if int(ident) % 20 == 0:
            os.system(f'echo {ident} sub')
            os.system(f'(echo {ident} err) >&2')
        return ident

    proj.fetch_many('coll', map(str, range(120)), workers=2).wait()
    for n in range(120):
        expected = ''.join(f'{n} {k}\n{n} raw {k}\n' for k in range(100))
        more = n % 20 == 0
        assert Path(proj.path, f'coll/{n}/stdout.log').read_text() == expected + (
            f'{n} sub\n' if more else ''
        )
        assert Path(proj.path, f'coll/{n}/stderr.log').read_text() == (f'{n} err\n' if more else '')
