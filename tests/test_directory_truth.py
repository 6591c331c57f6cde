"""The directory is the truth, whatever the function does and wherever a process is cut off."""

import contextlib
import gc
import json
import os
import pickle
import re
import shutil
import signal
import sqlite3
import stat
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import HANG, await_that

import hadrosaur
from hadrosaur import Project, canonical, compute, directory, fileops

COMPLETED = {'completed': True, 'pending': False, 'error': False}
PENDING = {'completed': False, 'pending': True, 'error': False}
ERROR = {'completed': False, 'pending': False, 'error': True}

PRELUDE = """
        import ctypes, json, os, shutil, signal, subprocess, sys, threading, time, warnings
        from pathlib import Path
        from hadrosaur import Project

        proj = Project('base')

        def await_file(path, seconds=300):
            end = time.monotonic() + seconds
            while not os.path.exists(path):
                assert time.monotonic() < end, path
                time.sleep(0.002)

        def log(collection, ident, name='stdout'):
            return Path('base', collection, ident, name + '.log').read_text(errors='replace')

        def record(collection, ident):
            return json.loads(Path('base', collection, ident, 'record.json').read_text())
"""


def tree(path):
    """Everything below a folder: names, kinds, bytes and times, following no link."""
    found = {}
    for at in sorted(Path(path).rglob('*')):
        known = at.lstat()
        what = at.read_bytes() if stat.S_ISREG(known.st_mode) else stat.S_IFMT(known.st_mode)
        found[str(at.relative_to(path))] = (what, known.st_mtime_ns)
    return found


def status_of(base, ident, collection='coll'):
    return json.loads((base / collection / ident / 'status.json').read_text())


def write_status(base, ident, status, collection='coll'):
    document = {'completed': COMPLETED, 'pending': PENDING, 'error': ERROR}[status]
    (base / collection / ident / 'status.json').write_text(json.dumps(document))


@pytest.fixture
def calls(proj):
    """A collection whose function notes each call; an ident that starts with 'bad' fails."""
    made = []

    @proj.resource('coll')
    def compute(ident, args, subdir):
        made.append(ident)
        print('printed', ident)
        Path(subdir, 'own').write_text(ident)
        if ident.startswith('bad'):
            raise ValueError(f'{ident} is no good')
        return {'ident': ident, 'run': len(made)}

    return made


# --- the files, and the order in which they are written --------------------------------------------------


def test_a_function_sees_its_own_folder_begun_and_without_a_result(proj, base):
    """While the function runs, status.json says pending, and nothing of an earlier run is left."""
    seen = []

    @proj.resource('coll')
    def compute(ident, args, subdir):
        folder = Path(subdir).parent
        texts = {at.name: at.read_text() for at in folder.iterdir() if at.is_file()}
        seen.append((texts, os.listdir(subdir), sorted(os.listdir(folder))))
        print('noise')
        Path(subdir, 'left').touch()
        if len(seen) == 1:
            raise ValueError('first')
        return len(seen)

    for _ in range(2):
        proj.fetch('coll', 'one')
    proj.fetch('coll', 'one', recompute=True)

    assert len(seen) == 3
    for run, (texts, storage, names) in enumerate(seen, 1):
        assert json.loads(texts['status.json']) == PENDING
        record = json.loads(texts['record.json'])
        assert (record['state'], record['attempt'], record['ident']) == ('begun', run, 'one')
        assert not texts.get('result.json')
        assert not texts.get('error.log')
        assert (texts['stdout.log'], texts['stderr.log'], storage) == ('', '', [])
        assert set(names) <= {*directory.FILES, 'storage'}, names
    assert sorted({*os.listdir(base / 'coll/one')} - {'.lock'}) == [
        'error.log', 'record.json', 'result.json', 'status.json', 'stderr.log', 'stdout.log', 'storage',
    ]  # fmt: skip


def test_status_documents_have_three_keys_and_one_length(proj, calls, base):
    """Every status.json has exactly the three keys, one of them true, and all have the same length."""
    proj.fetch('coll', 'one')
    proj.fetch('coll', 'bad')
    lengths = {len((base / f'coll/{ident}/status.json').read_bytes()) for ident in ('one', 'bad')}
    lengths |= {len(data) for data in directory.STATUS_BYTES.values()}

    assert (status_of(base, 'one'), status_of(base, 'bad')) == (COMPLETED, ERROR)
    assert len(lengths) == 1
    assert {name: json.loads(data) for name, data in directory.STATUS_BYTES.items()} == {
        'completed': COMPLETED,
        'pending': PENDING,
        'error': ERROR,
    }


WRITES = """
        writes = []
        writers = {name: getattr(os, name) for name in ('pwrite', 'write', 'ftruncate', 'truncate', 'replace',
                                                        'rename', 'unlink', 'mkdir', 'link', 'rmdir', 'open')}

        def noting(name, call):
            def noted(*args, **more):
                result = call(*args, **more)
                where = args[1] if name in ('replace', 'rename') else args[0]
                if name == 'open' and not args[1] & (os.O_CREAT | os.O_TRUNC):
                    return result
                if isinstance(where, int):
                    where = os.readlink(f'/proc/self/fd/{where}')
                known = Path('base/coll/one/status.json')
                text = known.read_text() if known.exists() else ''
                state = [word for word, so in (json.loads(text) if text else {}).items() if so]
                writes.append((name, os.path.basename(where), state[0] if state else None))
                return result
            return noted

        def observed(**more):
            proj.query()        # what is made at the first use is made
            writes.clear()
            for name, call in writers.items():
                setattr(os, name, noting(name, call))
            try:
                proj.fetch('coll', 'one', **more)
            finally:
                for name, call in writers.items():
                    setattr(os, name, call)
            return [write for write in writes if write[1] not in ('format.json', '.lock')]
"""


def test_status_is_switched_last(program):
    """The last thing written in a folder is status.json, and nothing is written once it is final."""
    program(
        PRELUDE
        + WRITES
        + """
        fails = []

        @proj.resource('coll')
        def compute(ident, args, subdir):
            print('x')
            if fails:
                raise ValueError('as asked')
            return {'long': 'x' * 1000}

        def check(found, final, before):
            # everything up to the first pending is (a first run) the record alone
            files = [name for _, name, _ in found]
            assert found[-1][1].strip('.').startswith('status.json'), found
            assert found[-1][2] == final, found
            finals = [write for write in found if write[2] in ('completed', 'error')]
            assert len(finals) == 1 + before, found     # no write but the last sees a final status
            assert files[-2].strip('.').startswith('record.json'), found

        check(observed(), 'completed', 0)
        fails.append(1)
        found = observed(recompute=True)
        assert found[0][1:] == ('status.json', 'pending'), found    # a recompute says pending FIRST
        check(found, 'error', 0)
        fails.clear()
        check(observed(), 'completed', 0)
        """
    )


@pytest.mark.long
def test_a_racing_reader_meets_only_whole_states(program):
    """Whoever looks while a resource is computed over and over gets a whole result or none."""
    program(
        PRELUDE
        + """
        @proj.resource('coll')
        def compute(ident, args, subdir):
            return ['x' * (1000 * args['n']), args['n']]

        proj.fetch('coll', 'one', {'n': 0})
        if os.fork() == 0:
            try:
                for n in range(150):
                    proj.fetch('coll', 'one', {'n': n % 7}, recompute=True)
            finally:
                open('done', 'w').close()
                os._exit(0)
        seen = {'completed': 0, 'pending': 0, 'error': 0}
        with warnings.catch_warnings():
            warnings.simplefilter('error')
            while not os.path.exists('done'):
                res = proj.get('coll', 'one')
                seen[res.status] += 1
                if res.status == 'completed':
                    assert len(res['result'][0]) == 1000 * res['result'][1]
        assert os.wait()[1] == 0
        assert seen['completed'] > 20 and seen['error'] == 0, seen
        assert proj.get('coll', 'one').status == 'completed'
        """
    )


@pytest.mark.parametrize('moment', ['begun', 'done'])
def test_a_recompute_between_two_readings_is_no_damage(program, moment):
    """A result emptied by a recompute, between reading status and result, is neither error nor damaged."""
    program(
        PRELUDE
        + """
        @proj.resource('coll')
        def compute(ident, args, subdir):
            if args['slow']:
                open('began', 'w').close()
                await_file('go')
            return {'whole': True}

        proj.fetch('coll', 'one', {'slow': False})
        read, child = os.open, []

        def finish():
            open('go', 'w').close()
            return os.waitpid(child.pop(), 0)[1]

        def opening(name, *args, **more):
            if name == 'result.json' and not child and not os.path.exists('began'):
                child.append(os.fork())
                if child[0] == 0:
                    os.open = read
                    proj.fetch('coll', 'one', {'slow': True}, recompute=True)
                    os._exit(0)
                await_file('began')         # the result is emptied by now
            elif name == 'status.json' and child and sys.argv[1] == 'done':
                assert finish() == 0        # and is whole again when the status is looked at again
            return read(name, *args, **more)

        os.open = opening
        with warnings.catch_warnings():
            warnings.simplefilter('error')
            res = proj.get('coll', 'one')
        os.open = read
        if child:
            assert finish() == 0
        assert res.status == ('pending' if sys.argv[1] == 'begun' else 'completed'), (res, res.error)
        assert proj.get('coll', 'one')['result'] == {'whole': True}
        """,
        moment,
    )


# --- output ----------------------------------------------------------------------------------------------

NOISY = """
        @proj.resource('coll')
        def compute(ident, args, subdir):
            print('print', ident)
            os.write(1, b'raw\\n')
            os.write(1, b'\\xff\\xfe not utf-8\\n')
            subprocess.run(['sh', '-c', 'echo sub; echo suberr >&2'], check=True)
            os.system('echo system')
            ctypes.CDLL(None).puts(b'from C')     # sits in the buffer of the C library
            print('err', file=sys.stderr)
            sys.stdout.write('no newline')
"""


@pytest.mark.parametrize('where', ['inline', 'processes'])
def test_output_of_all_kinds_is_captured(program, where):
    """Subprocesses, descriptor 1 and C code land in the log, inline with one thread and in slots."""
    done = program(
        PRELUDE
        + NOISY
        + """
        if sys.argv[1] == 'inline':
            proj.fetch('coll', 'a')
            proj.fetch('coll', 'b')
        else:
            proj.fetch_many('coll', ['a', 'b'], workers=1).wait()
        for ident in 'ab':
            text = Path('base/coll', ident, 'stdout.log').read_bytes()
            first = f'print {ident}\\n'.encode() + b'raw\\n\\xff\\xfe not utf-8\\nsub\\nsystem\\n'
            assert text in (first + b'from C\\nno newline', first + b'no newlinefrom C\\n'), text
            assert log('coll', ident, 'stderr') == 'suberr\\nerr\\n'
            assert record('coll', ident)['capture'] == 'descriptors'
        print('after')
        """,
        where,
        env={name: value for name, value in os.environ.items() if name != 'PYTHONUNBUFFERED'},
    )

    assert (done.stdout, done.stderr) == ('after\n', '')


@pytest.mark.parametrize('where', ['inline', 'processes', 'streams'])
def test_logs_are_streamed_while_the_function_runs(program, tmp_path, where):
    """A printed line stands in the log before the function is done."""
    started = program(
        PRELUDE
        + """
        @proj.resource('coll')
        def compute(ident, args, subdir):
            print('a line')
            print('an error line', file=sys.stderr)
            await_file('go')
            print('the end')

        if sys.argv[1] == 'streams':
            threading.Thread(target=await_file, args=('go',)).start()
        if sys.argv[1] == 'processes':
            proj.fetch_many('coll', ['one'], workers=1).wait()
        else:
            proj.fetch('coll', 'one')
        """,
        where,
        start=True,
    )
    folder = tmp_path / 'base/coll/one'
    await_that(lambda: (folder / 'stdout.log').exists() and (folder / 'stdout.log').read_text() == 'a line\n')
    await_that(lambda: (folder / 'stderr.log').read_text() == 'an error line\n')
    assert json.loads((folder / 'status.json').read_text()) == PENDING
    (tmp_path / 'go').touch()

    _, err = started.communicate(timeout=HANG)
    assert started.returncode == 0, err
    assert (folder / 'stdout.log').read_text() == 'a line\nthe end\n'


@pytest.mark.parametrize('where', ['inline', 'processes', 'streams'])
def test_warnings_reach_every_log(program, where):
    """A warning from one line of code stands in the log of each resource that met it."""
    program(
        PRELUDE
        + """
        @proj.resource('coll')
        def compute(ident, args, subdir):
            warnings.warn('look out')

        idents = ['a', 'b', 'c']
        if sys.argv[1] == 'processes':
            proj.fetch_many('coll', idents, workers=1).wait()
        else:
            if sys.argv[1] == 'streams':
                threading.Thread(target=await_file, args=('go',)).start()
            for ident in idents:
                proj.fetch('coll', ident)
        open('go', 'w').close()
        found = {ident: log('coll', ident, 'stderr').count(': UserWarning: look out') for ident in idents}
        assert found == {'a': 1, 'b': 1, 'c': 1}, found
        """,
        where,
    )


def test_other_threads_are_never_swallowed(program):
    """With other threads alive their output stays theirs, and record.json says which way was used."""
    done = program(
        PRELUDE
        + """
        @proj.resource('coll')
        def compute(ident, args, subdir):
            helper = threading.Thread(target=print, args=('from my thread',))
            helper.start()
            helper.join()
            for n in range(20):
                print(ident, n)
                time.sleep(0.0005)

        stop = threading.Event()
        def innocent():
            n = 0
            while not stop.is_set():
                print('innocent', n, flush=True)
                n += 1
                time.sleep(0.0003)
            print('count', n, flush=True)

        proj.fetch('coll', 'alone')
        thread = threading.Thread(target=innocent)
        thread.start()
        for n in range(15):
            proj.fetch('coll', f'many{n}')
        stop.set()
        thread.join()
        proj.fetch('coll', 'again')
        for ident, way in [('alone', 'descriptors'), ('many3', 'streams'), ('again', 'descriptors')]:
            assert record('coll', ident)['capture'] == way, (ident, record('coll', ident)['capture'])
            assert log('coll', ident) == 'from my thread\\n' + ''.join(f'{ident} {n}\\n' for n in range(20))
        """
    )

    lines = done.stdout.splitlines()
    count = int(lines[-1].split()[1])
    assert count > 50
    assert lines[:-1] == [f'innocent {n}' for n in range(count)]


def test_a_thread_may_print_across_fetches(program):
    """A print of another thread that begins during one fetch and ends after others does no harm."""
    done = program(
        PRELUDE
        + """
        go, entered, ended = threading.Event(), threading.Event(), threading.Event()

        @proj.resource('coll')
        def compute(ident, args, subdir):
            if ident == 'first':
                go.set()
                assert entered.wait(30)

        class Slow:
            def __str__(self):
                entered.set()
                assert ended.wait(30)
                return 'shown'

        # print() holds sys.stdout without counting a reference while it asks for the text
        thread = threading.Thread(target=lambda: go.wait(30) and print(Slow()))
        thread.start()
        for ident in ('first', 'second', 'third'):
            assert proj.fetch('coll', ident).status == 'completed'
        ended.set()
        thread.join()
        print('after')
        """,
        env={**os.environ, 'PYTHONMALLOC': 'debug'},  # what is freed is overwritten
    )

    assert (done.stdout, done.stderr) == ('shown\nafter\n', '')


def test_threads_that_fetch_keep_their_logs_apart(program):
    """Eight threads that fetch and print at once: no line is foreign, none is missing."""
    program(
        PRELUDE
        + """
        @proj.resource('coll')
        def compute(ident, args, subdir):
            for n in range(300):
                print(ident, n)
                if n % 50 == 0:
                    print(ident, n, file=sys.stderr)
                    time.sleep(0)
            return ident

        def work(k):
            for n in range(5):
                assert proj.fetch('coll', f'{k}-{n}')['result'] == f'{k}-{n}'

        threads = [threading.Thread(target=work, args=(k,)) for k in range(8)]
        for thread in threads: thread.start()
        for thread in threads: thread.join()
        for k in range(8):
            for n in range(5):
                ident = f'{k}-{n}'
                assert log('coll', ident) == ''.join(f'{ident} {n}\\n' for n in range(300))
                assert log('coll', ident, 'stderr') == ''.join(f'{ident} {n}\\n' for n in range(0, 300, 50))
        assert len(proj.query(status='completed')) == 40
        """
    )


def test_threads_that_are_the_first_to_fetch(program):
    """Many threads begin together on a base that is new: all of them get their resources."""
    program(
        PRELUDE
        + """
        sys.setswitchinterval(1e-5)
        faults = []

        def work(project, start, k):
            start.wait()
            try:
                assert project.fetch('coll', k % 3, wait=300).status == 'completed'
            except BaseException as error:
                faults.append(repr(error))

        for n in range(12):
            project = Project(f'base{n}')
            project.resource('coll')(lambda ident, args, subdir: ident)
            start = threading.Barrier(8)
            threads = [threading.Thread(target=work, args=(project, start, k)) for k in range(8)]
            for thread in threads: thread.start()
            for thread in threads: thread.join()
            assert not faults, faults
            assert [e.status for e in project.query()] == ['completed'] * 3
            project.close()
        """
    )


@pytest.mark.parametrize('closed', ['1', '2', '012'])
def test_closed_descriptors_are_borne(program, tmp_path, closed):
    """A daemon may run with descriptor 0, 1 or 2 closed: logs, lock and files are as ever."""
    program(
        """
        import os, sys
        if len(sys.argv) == 2:      # once more, with descriptors closed before Python starts
            for fd in sys.argv[1]:
                os.close(int(fd))
            os.execv(sys.executable, [sys.executable, sys.argv[0], sys.argv[1], 'again'])
        """
        + PRELUDE
        + """
        import fcntl, traceback
        report = 'it ended early'

        @proj.resource('coll')
        def compute(ident, args, subdir):
            if os.fork() == 0:      # closes its copies of the lock
                os._exit(0)
            os.wait()
            print('print')
            os.system('echo sub')
            print('err', file=sys.stderr)
            fd = os.open(os.path.dirname(subdir), os.O_RDONLY)
            try:
                fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                return ident
            raise AssertionError('the lock is not held')

        try:
            assert proj.fetch('coll', 'a')['result'] == 'a', proj.get('coll', 'a').error
            counts = proj.fetch_many('coll', ['b', 'c'], workers=1).wait()
            assert counts[:3] == (2, 2, 0), proj.get('coll', 'b').error
            for ident in 'abc':
                assert log('coll', ident) == 'print\\nsub\\n', log('coll', ident)
                assert log('coll', ident, 'stderr') == 'err\\n', log('coll', ident, 'stderr')
            proj.close()
            report = 'fine'
        except BaseException:
            report = traceback.format_exc()
        finally:
            with open('report', 'w') as file:
                file.write(report)
        """,
        closed,
        check=False,
    )

    assert (tmp_path / 'report').read_text() == 'fine'


# --- the lock --------------------------------------------------------------------------------------------


@pytest.mark.long
@pytest.mark.parametrize('index', ['kept', 'deleted'])
def test_computed_by_one_only(program, index):
    """Eight processes ask for the same idents in shuffled order, the index being deleted or not."""
    done = program(
        PRELUDE
        + """
        import random
        import hadrosaur.index, sqlalchemy      # once, before the fork

        @proj.resource('coll')
        def compute(ident, args, subdir):
            os.close(os.open(f'ran-{ident}', os.O_CREAT | os.O_EXCL))
            if int(ident) % 10 == 0:
                time.sleep(0.002)
            return ident

        idents = [str(n) for n in range(120)]

        def ask(seed):
            random.Random(seed).shuffle(idents)
            for ident in idents:
                res = proj.fetch('coll', ident, wait=300)
                assert res['result'] == ident, (ident, res, res.error)
            proj.close()        # else rows that still wait end with the process

        def delete():
            chosen = random.Random(5)
            while not os.path.exists('stop'):
                for end in chosen.choice([('',), ('-wal',), ('', '-wal', '-shm'), ('-wal', '-shm')]):
                    try:
                        os.unlink(f'base/index.sqlite3{end}')
                    except FileNotFoundError:
                        pass
                time.sleep(0.03)

        def child(work, *args):
            pid = os.fork()
            if pid == 0:
                code = 1
                try:
                    work(*args)
                    code = 0
                except BaseException:
                    import traceback
                    traceback.print_exc()
                finally:
                    sys.stderr.flush()
                    os._exit(code)
            return pid

        deleter = child(delete) if sys.argv[1] == 'deleted' else None
        ended = {pid: os.waitpid(pid, 0)[1] for pid in [child(ask, seed) for seed in range(8)]}
        open('stop', 'w').close()
        if deleter:
            os.waitpid(deleter, 0)
        assert set(ended.values()) == {0}, ended
        assert len([name for name in os.listdir() if name.startswith('ran-')]) == 120
        found = Project('base')
        if deleter:
            found.reindex()
        rows = {e.ident: e.status for e in found.query('coll')}
        assert rows == dict.fromkeys(idents, 'completed'), rows
        """,
        index,
    )

    assert not any(word in done.stderr for word in ('locked', 'Traceback')), done.stderr


HELD = """
        def child():
            open('child', 'w').close()
            await_file('end')

        @proj.resource('coll')
        def compute(ident, args, subdir):
            if os.path.exists('second'):
                return 'second'
            how = sys.argv[1]
            if how == 'fork':
                if os.fork() == 0:
                    open('child', 'w').close()
                    await_file('end')
                    os._exit(0)
            if how == 'daemon':
                if os.fork() == 0:
                    os.setsid()
                    if os.fork() == 0:
                        open('child', 'w').close()
                        await_file('end')
                    os._exit(0)
            if how == 'popen':
                subprocess.Popen([sys.executable, '-c', 'import os, time\\n'
                                  'while not os.path.exists("end"): time.sleep(0.01)'], close_fds=False)
            if how == 'system':
                os.system('sh -c "while ! test -e end; do sleep 0.05; done" &')
            if how == 'multiprocessing':
                import multiprocessing
                multiprocessing.get_context('fork').Process(target=child).start()
            if how in ('fork', 'daemon', 'multiprocessing'):
                await_file('child')         # it has let go of what it inherited
            if sys.argv[2] == 'killed':
                os.kill(os.getpid(), signal.SIGKILL)
            return 'first'
"""


@pytest.mark.parametrize('how', ['nothing', 'fork', 'daemon', 'popen', 'system', 'multiprocessing'])
def test_the_lock_is_free_once_its_process_is_dead(program, tmp_path, how):
    """After kill -9 it is free at once, though a child, daemon or subprocess lives on."""
    try:
        killed = program(PRELUDE + HELD + "        proj.fetch('coll', 'one')", how, 'killed', start=True)
        assert killed.wait(timeout=HANG) == -signal.SIGKILL, killed.stderr.read()
        with Project(tmp_path / 'base') as proj:
            proj.resource('coll')(lambda ident, args, subdir: 'second')
            assert proj.get('coll', 'one').entry.error_type == 'Interrupted'
            res = proj.fetch('coll', 'one')
            assert (res['result'], res.entry.attempt) == ('second', 2)
            assert [entry.status for entry in proj.query()] == ['completed']
    finally:
        (tmp_path / 'end').touch()


def test_a_pending_row_of_a_dead_session_is_no_promise(program, proj, calls, base):
    """Who has the index open while another process is killed computes what that one left pending."""
    proj.fetch('coll', 'other')  # the index is open: what is left from here on is met by the fetch itself
    program(PRELUDE + HELD + "        proj.fetch('coll', 'one')", 'nothing', 'killed', check=False)

    with contextlib.closing(sqlite3.connect(base / 'index.sqlite3')) as index:
        assert index.execute("SELECT status FROM resources WHERE ident = 'one'").fetchall() == [('pending',)]
    res = proj.fetch('coll', 'one')
    assert (res.status, res.entry.attempt) == ('completed', 2)


@pytest.mark.parametrize('how', ['fork', 'daemon', 'popen', 'multiprocessing'])
def test_a_surviving_child_does_not_keep_the_resource(program, tmp_path, how):
    """A function that returns and leaves a child behind is completed, and can be computed again."""
    try:
        done = program(
            PRELUDE
            + HELD
            + """
        assert proj.fetch('coll', 'one')['result'] == 'first'
        open('second', 'w').close()
        for _ in range(100):    # where the machine is busy, exec closes an inherited lock a little late
            res = proj.fetch('coll', 'one', recompute=True)
            if res.status != 'pending' or sys.argv[1] != 'popen':
                break
        assert res['result'] == 'second', res
        open('end', 'w').close()
        print('once')
        """,
            how,
            'alive',
        )
        assert done.stdout == 'once\n'
    finally:
        (tmp_path / 'end').touch()


def test_a_stopped_worker_is_not_dead(program, tmp_path):
    """A process under SIGSTOP still holds its resource: pending for everyone, and completed at last."""
    stopped = program(
        PRELUDE
        + """
        @proj.resource('coll')
        def compute(ident, args, subdir):
            open('began', 'w').close()
            await_file('go')
            return 'mine'

        assert proj.fetch('coll', 'one')['result'] == 'mine'
        """,
        start=True,
    )
    await_that((tmp_path / 'began').exists)
    os.kill(stopped.pid, signal.SIGSTOP)
    try:
        with Project(tmp_path / 'base') as proj:
            proj.resource('coll')(lambda ident, args, subdir: 'stolen')
            assert proj.fetch('coll', 'one', wait=1.2).status == 'pending'
            assert proj.get('coll', 'one').status == 'pending'
            assert [entry.status for entry in proj.query()] == ['pending']
            proj.reindex()
            assert proj.check(fix=True).remaining == []
            assert [entry.status for entry in proj.query()] == ['pending']
            assert proj.fetch('coll', 'one', recompute=True).status == 'pending'
            with pytest.raises(hadrosaur.ResourceError, match='being computed'):
                proj.remove('coll', 'one')
            with contextlib.closing(sqlite3.connect(tmp_path / 'base/index.sqlite3')) as index, index:
                index.execute('DELETE FROM resources')
            with pytest.raises(hadrosaur.ResourceError, match='is being computed'):  # the lock says so, too
                proj.remove('coll', 'one')
            (tmp_path / 'go').touch()
            os.kill(stopped.pid, signal.SIGCONT)
            assert proj.fetch('coll', 'one', wait=300)['result'] == 'mine'
    finally:
        os.kill(stopped.pid, signal.SIGCONT)
    assert stopped.wait(timeout=HANG) == 0, stopped.stderr.read()


@pytest.mark.parametrize('how', ['no', 'yes', 'fails'])
def test_an_order_delivered_twice_runs_once(proj, calls, how):
    """A run id that is final on the disk is answered from there, under recompute and after a failure too."""
    known = proj._registry.get('coll')
    ident = 'bad' if how == 'fails' else 'one'
    if how == 'yes':
        proj.fetch('coll', ident)
        calls.clear()
    recompute = 'yes' if how == 'yes' else 'no'
    order = proj._store.job(known, ident, '{}', ident, recompute=recompute)
    first = compute.carry_out(order, known.function)
    second = compute.carry_out(order, known.function)

    assert calls == [ident]
    assert first.entry.status == second.entry.status == ('error' if how == 'fails' else 'completed')
    assert (first.result, first.entry.attempt) == (second.result, second.entry.attempt)
    assert first.run == second.run == order.run


# --- cut off anywhere ------------------------------------------------------------------------------------

CUT = """
        import collections, glob, shutil
        import hadrosaur.index, sqlalchemy      # once, before the forks

        left, steps = [0], []

        def counted(name, call):
            def wrapper(*args, **more):
                if name == 'open' and not args[1] & (os.O_CREAT | os.O_TRUNC):
                    return call(*args, **more)
                left[0] -= 1
                if left[0] == 0:
                    os.kill(os.getpid(), signal.SIGKILL)
                return call(*args, **more)
            return wrapper

        def cut_at(k, work):
            'Run work in a child that is killed before its k-th change of the disk; False: it got through.'
            pid = os.fork()
            if pid == 0:
                try:
                    for name in ('open', 'pwrite', 'write', 'ftruncate', 'replace', 'rename', 'unlink',
                                 'mkdir', 'rmdir', 'link'):
                        setattr(os, name, counted(name, getattr(os, name)))
                    left[0] = k
                    work()
                    os._exit(0)
                finally:
                    import traceback
                    traceback.print_exc()
                    os._exit(1)
            ended = os.waitpid(pid, 0)[1]
            assert ended in (0, signal.SIGKILL), ended
            return ended == signal.SIGKILL

        def compute(ident, args, subdir):
            value = args.get('v', 'again')
            print(value)
            Path(subdir, value).touch()
            if value.startswith('bad'):
                raise ValueError(value)
            if value == 'dies':
                os.kill(os.getpid(), signal.SIGKILL)
            return value

        def opened(path):
            found = Project(path)
            found.resource('coll')(compute)
            return found

        def kind_of(project, res):
            'What a resource is; a mixture is an AssertionError.'
            assert res.status != 'pending', res
            if res.status == 'error':
                assert res['result'] is None
                kind = res.entry.error_type
                assert kind in ('Interrupted', 'ValueError'), res.error
                assert res.error.rstrip().splitlines()[-1].startswith(kind), res.error
                if kind == 'ValueError':
                    assert os.listdir(res.paths['storage']) == [res.args['v']]
                return kind
            value = res['result']
            assert res.args.get('v', 'again') == value, (res.args, value)
            assert Path(res.paths['stdout']).read_text() == value + '\\n'
            assert os.listdir(res.paths['storage']) == [value]
            assert not res.error
            return value

        def got(project):
            try:
                return kind_of(project, project.get('coll', 'one'))
            except LookupError:
                return 'absent'

        def rows(project):
            return [(e.status, e.error_type, e.args, e.attempt) for e in project.query('coll', ident='one')]

        def picture(path):
            found = {}
            for at in sorted(glob.glob(f'{path}/coll/**', recursive=True)):
                known = os.lstat(at)
                found[at] = (known.st_mtime_ns, Path(at).read_bytes() if os.path.isfile(at) else b'')
            return found

        def check(path, allowed, fetched):
            'Every way to look agrees, settles once, and a fetch gives an answer.'
            with opened(path) as project:
                kind = got(project)
                assert kind in allowed, (kind, allowed)
                shown, before = rows(project), picture(path)
                statuses = [row[0] for row in shown]
                assert statuses == ({'absent': [], 'Interrupted': ['error'], 'ValueError': ['error']}
                                    .get(kind, ['completed'])), (kind, shown)
            with opened(path) as project:
                assert (rows(project), got(project)) == (shown, kind)
                project.reindex()
                assert (rows(project), got(project)) == (shown, kind), (rows(project), shown)
                assert project.check(deep=True).findings == []
                after = picture(path)
                assert after == before, {at: (before.get(at), after.get(at)) for at in {*before, *after}
                                         if before.get(at) != after.get(at)}
                found = kind_of(project, project.fetch('coll', 'one'))
                assert found in fetched, (found, fetched)
            return kind

        def first_look(path, way, allowed, fetched):
            'The same, met first by a query, a fetch, a reindex or fetch_many.'
            with opened(path) as project:
                if way == 'query':
                    for row in rows(project):
                        assert row[0] != 'pending', row
                elif way == 'reindex':
                    project.reindex()
                    assert 'pending' not in [row[0] for row in rows(project)]
                elif way == 'fetch':
                    assert kind_of(project, project.fetch('coll', 'one')) in fetched
                else:
                    found = [kind_of(project, res) for res in
                             project.fetch_many('coll', ['one'], executor='inline')]
                    assert len(found) == 1 and found[0] in fetched, found
                assert got(project) in {*allowed, *fetched}
"""

SCENARIOS = {
    # value of the run that is cut off, is it a recompute, what may be found, what a fetch may give
    'first': ('new', False, ['absent', 'Interrupted', 'new'], ['new', 'again']),
    'failing': ('bad', False, ['absent', 'Interrupted', 'ValueError'], ['ValueError', 'again']),
    'recompute': ('new', True, ['old', 'Interrupted', 'new'], ['old', 'new']),
    'failing recompute': ('bad', True, ['old', 'Interrupted', 'ValueError'], ['old', 'ValueError']),
    'recompute of a hard-linked copy': ('new', True, ['old', 'Interrupted', 'new'], ['old', 'new']),
    'recompute after an error': ('new', True, ['ValueError', 'Interrupted', 'new'], ['ValueError', 'new']),
}


@pytest.mark.long
@pytest.mark.parametrize('scenario', SCENARIOS)
def test_cut_off_before_any_write(program, scenario):
    """Killed before each single change of the disk: old, interrupted or new, never a mixture."""
    value, recompute, allowed, fetched = SCENARIOS[scenario]
    program(
        PRELUDE
        + CUT
        + """
        value, recompute, allowed, fetched, linked = json.loads(sys.argv[1])
        with opened('start') as project:
            if recompute:
                project.fetch('coll', 'one', {'v': 'bad-old' if 'ValueError' in allowed[:1] else 'old'})
            if linked:
                for at in glob.glob('start/coll/one/*'):
                    if os.path.isfile(at):
                        os.makedirs('start/coll/copy/storage', exist_ok=True)
                        os.link(at, at.replace('/one/', '/copy/'))
                Path('start/coll/copy/storage/old').touch()
                project.reindex()
        ways = ['query', 'fetch', 'reindex', 'fetch_many']
        found, k, cut = collections.Counter(), 1, True
        while cut:
            path = f'base{k}'
            if linked:
                subprocess.run(['cp', '-a', 'start', path], check=True)
            else:
                shutil.copytree('start', path)
            work = lambda: opened(path).fetch('coll', 'one', {'v': value}, recompute=recompute)
            cut = cut_at(k, work)
            if linked:
                with opened(path) as project:
                    copy = project.get('coll', 'copy')
                    assert kind_of(project, copy) == 'old'
                    project.remove('coll', 'copy')
            shutil.copytree(path, f'{path}-{k % 4}')
            try:
                kind = check(path, allowed, fetched)
                first_look(f'{path}-{k % 4}', ways[k % 4], allowed, fetched)
            except BaseException as error:
                raise AssertionError(f'killed before change {k}') from error
            steps.append(kind)
            found[kind] += 1
            k += 1
        order = [allowed.index(kind) for kind in steps]
        assert order == sorted(order), steps        # it never goes back
        assert set(found) == set(allowed), found    # each was met, so the cuts were between the writes
        assert k > 8, found
        """,
        json.dumps([value, recompute, allowed, fetched, 'hard-linked' in scenario]),
    )


@pytest.mark.long
@pytest.mark.parametrize('recompute', [False, True], ids=['first run', 'recompute'])
def test_recovery_itself_cut_off(program, recompute):
    """A settling that is killed before any of its writes is repeated by the next, to the same end."""
    program(
        PRELUDE
        + CUT
        + """
        recompute = sys.argv[1] == 'True'
        with opened('start') as project:
            if recompute:
                project.fetch('coll', 'one', {'v': 'old'})
        work = lambda: opened('start').fetch('coll', 'one', {'v': 'dies'}, recompute=recompute)
        assert cut_at(10**6, work)
        k, cut = 1, True
        while cut:
            path = f'base{k}'
            shutil.copytree('start', path)
            lookers = [lambda: opened(path).get('coll', 'one'), lambda: len(opened(path).query('coll')),
                       lambda: opened(path).reindex()]
            cut = cut_at(k, lookers[k % 3])
            with opened(path) as project:
                assert got(project) == 'Interrupted'
                assert [row[:2] for row in rows(project)] == [('error', 'Interrupted')]
                before = picture(path)
            with opened(path) as project:
                assert got(project) == 'Interrupted'
                assert [row[:2] for row in rows(project)] == [('error', 'Interrupted')]
                assert project.check(deep=True).findings == []
            assert picture(path) == before
            k += 1
        assert k > 4
        """,
        recompute,
    )


@pytest.mark.long
def test_cut_off_while_queueing_in_the_background(program):
    """A caller killed while it queues a background recompute: the old result, or the slot's new one."""
    program(
        PRELUDE
        + CUT
        + """
        with opened('start') as project:
            project.fetch('coll', 'one', {'v': 'old'})
        k, cut, seen = 1, True, set()
        while cut:
            path = f'base{k}'
            shutil.copytree('start', path)
            work = lambda: opened(path).fetch('coll', 'one', {'v': 'new'}, recompute=True, background=True)
            cut = cut_at(k, work)
            with opened(path) as project:
                kind = kind_of(project, project.fetch('coll', 'one', wait=300))
                assert kind in ('old', 'new', 'again'), kind
                seen.add(kind)
                assert [row[0] for row in rows(project)] == ['completed']
            k += 1
        assert 'old' in seen and k > 3, (seen, k)
        """
    )


# --- damage ----------------------------------------------------------------------------------------------

DAMAGED = {
    'empty': b'',
    'cut': b'{"completed": true, "pend',
    'null': b'null',
    'a list': b'[true, false, false]',
    'keys missing': b'{"completed": true}',
    'two true': b'{"completed": true, "pending": true, "error": false}',
    'none true': b'{"completed": false, "pending": false, "error": false}',
    'numbers': b'{"completed": 1, "pending": 0, "error": 0}',
    'words': b'{"completed": "true", "pending": "", "error": ""}',
    'one key more': b'{"completed": true, "pending": false, "error": false, "x": false}',
    'not UTF-8': b'\xff\xfe{"completed": true}',
    'nested': b'[' * 100_000,
    'zeros': b'\0' * 54,
    'fifo': os.mkfifo,
    'folder': os.mkdir,
    'link': lambda path: os.symlink('result.json', path),
    'dangling link': lambda path: os.symlink('nowhere', path),
}


@pytest.mark.timeout(300)
@pytest.mark.parametrize('damage', DAMAGED)
def test_damaged_status(proj, calls, base, damage):
    """A status.json that is no state is told from the record: final, begun, or never begun."""

    def spoil(ident):
        path = base / 'coll' / ident / 'status.json'
        path.unlink()
        what = DAMAGED[damage]
        path.write_bytes(what) if isinstance(what, bytes) else what(path)

    idents = ['final', 'got', 'begun', 'begun2', 'bare', 'bare2', 'indexed', 'queried']
    for ident in [*idents, 'well']:
        proj.fetch('coll', ident)
    first = {ident: proj.fetch('coll', ident) for ident in idents}
    for ident in ('begun', 'begun2'):
        path = base / 'coll' / ident / 'record.json'
        path.write_text(path.read_text().replace('"state": "completed"', '"state": "begun"'))
    for ident in ('bare', 'bare2'):
        (base / 'coll' / ident / 'record.json').unlink()
    for ident in idents:
        spoil(ident)
    calls.clear()

    assert proj.get('coll', 'got') == first['got']
    assert proj.get('coll', 'begun').entry.error_type == 'Interrupted'
    with pytest.raises(hadrosaur.ResourceNotFound):
        proj.get('coll', 'bare')
    assert calls == []
    assert proj.fetch('coll', 'final')['result']['ident'] == 'final'
    assert calls == []  # a final record decides
    assert proj.fetch('coll', 'begun2')['status'] == COMPLETED
    assert proj.fetch('coll', 'bare2')['status'] == COMPLETED
    assert calls == ['begun2', 'bare2']
    report = proj.reindex()
    assert any('indexed' in path for path, _ in report.unreadable), report
    statuses = {entry.ident: entry.status for entry in proj.query()}
    expected = dict.fromkeys([*idents, 'well'], 'completed') | {'begun': 'error'}
    del expected['bare']
    assert statuses == expected
    assert status_of(base, 'indexed') == COMPLETED


def test_a_torn_status_is_read_again(proj, calls, base, monkeypatch):
    """Who reads while it is switched sees no state at all; the next reading does, and nothing is damaged."""
    proj.fetch('coll', 'one')
    read, torn = fileops.read, []

    def tearing(name, folder, *more):
        data = read(name, folder, *more)
        if name == 'status.json' and len(torn) < 4:
            torn.append(name)
            return data[:24] + directory.STATUS_BYTES['pending'][24:]
        return data

    monkeypatch.setattr(fileops, 'read', tearing)

    assert proj.reindex() == (1, 0, 0, 0, [])
    assert len(torn) == 4


def test_a_pending_status_over_a_damaged_result_is_a_run_cut_off(proj, calls, base):
    """A record that says completed decides only where the result parses."""
    proj.fetch('coll', 'one')
    (base / 'coll/one/result.json').write_text('{"run": 1')
    write_status(base, 'one', 'pending')

    assert proj.get('coll', 'one').entry.error_type == 'Interrupted'
    assert proj.fetch('coll', 'one')['result']['run'] == 2


def test_one_bad_folder_does_not_stop_a_reindex(proj, calls, base):
    """Whatever stands in one folder or in place of it, all others are indexed, and it is reported."""
    for n in range(4):
        proj.fetch('coll', f'good{n}')
    for name, make in [('fifo', os.mkfifo), ('folder', os.mkdir)]:
        for file in ('status.json', 'record.json', 'result.json', 'error.log'):
            shutil.copytree(base / 'coll/good0', base / f'coll/{name}-{file}')
            (base / f'coll/{name}-{file}' / file).unlink(missing_ok=True)
            make(base / f'coll/{name}-{file}' / file)
    (base / 'coll/a file').write_text('x')
    for copy in (b'/coll/\xff', b'/\xff/one'):  # names that are not UTF-8
        shutil.copytree(os.fsencode(base / 'coll/good1'), os.fsencode(base) + copy)
    (base / 'coll/good0/status.json').unlink()

    for fresh in (False, True):
        report = proj.reindex(fresh=fresh)
        assert {'good1', 'good2', 'good3'} <= {entry.ident for entry in proj.query('coll')}
        assert report.unreadable
        assert proj.query(status='pending', limit=1)[:] == []
    assert 'coll' in proj.collections
    with pytest.raises(hadrosaur.UnknownCollection):
        proj.query('nothing')


@pytest.mark.parametrize('damage', [b'', b'{"run": 1', b'\xff', '17', 'folder', 'fifo', 'link', 'nothing'])
def test_damaged_result(proj, calls, base, damage):
    """A result that does not parse is computed again, with a warning, and never served."""
    proj.fetch('coll', 'one')
    path = base / 'coll/one/result.json'
    path.unlink()
    if damage == 'folder':
        path.mkdir()
    elif damage == 'fifo':
        os.mkfifo(path)
    elif damage == 'link':
        (base / 'valid.json').write_text('"foreign"\n')
        path.symlink_to(base / 'valid.json')
    elif damage != 'nothing':
        path.write_bytes(damage if isinstance(damage, bytes) else damage.encode())
    replaceable = isinstance(damage, bytes) or damage in ('17', 'nothing')

    with pytest.warns(hadrosaur.HadrosaurWarning, match='coll/one') as caught:
        seen = proj.get('coll', 'one')
    assert seen['result'] is None
    with pytest.warns(hadrosaur.HadrosaurWarning, match='damaged') as caught:
        res = proj.fetch('coll', 'one')
    assert caught[0].filename == __file__
    assert res.status == 'completed' if replaceable else res['result'] != 'foreign'
    if replaceable:
        assert (calls, res['result']['run']) == (['one', 'one'], 2)
        assert proj.fetch('coll', 'one') == res
    with contextlib.suppress(FileNotFoundError):
        assert (base / 'valid.json').read_text() == '"foreign"\n'


# --- edited by hand --------------------------------------------------------------------------------------


def test_an_edited_result_is_served_and_listed(proj, calls, base):
    """A result that parses is served, and check(deep=True) says that it was changed."""
    proj.fetch('coll', 'one')
    (base / 'coll/one/result.json').write_text('{"mine": 1}')

    assert proj.fetch('coll', 'one')['result'] == {'mine': 1}
    assert proj.check().findings == []
    assert [(found.problem, found.ident) for found in proj.check(deep=True).findings] == [('checksum', 'one')]
    assert calls == ['one']


def test_a_status_edited_by_hand_wins(proj, calls, base):
    """completed → error is tried again, error → completed is served, pending is settled from the record."""
    for ident in ('good', 'kept', 'bad', 'bad2'):
        proj.fetch('coll', ident)
    before = proj.get('coll', 'kept')
    write_status(base, 'good', 'error')
    (base / 'coll/good/error.log').write_text('Traceback\n  somewhere\nmy.Own: thought so\n')
    write_status(base, 'kept', 'pending')
    write_status(base, 'bad2', 'pending')
    write_status(base, 'bad', 'completed')
    (base / 'coll/bad/result.json').write_text('"by hand"')
    calls.clear()

    report = proj.reindex()
    assert (report.added, report.removed) == (0, 0)
    rows = {entry.ident: (entry.status, entry.error_type, entry.error) for entry in proj.query()}
    assert rows['good'] == ('error', 'my.Own', 'thought so')
    assert rows['kept'] == ('completed', None, None)
    assert rows['bad'] == ('completed', None, None)
    assert rows['bad2'][:2] == ('error', 'ValueError')
    assert proj.get('coll', 'kept') == before
    assert proj.fetch('coll', 'bad')['result'] == 'by hand'
    assert calls == []
    assert proj.fetch('coll', 'good')['status'] == COMPLETED
    assert calls == ['good']
    for ident in ('good', 'kept', 'bad', 'bad2'):
        assert sorted(status_of(base, ident)) == ['completed', 'error', 'pending']


def test_status_json_in_another_layout_is_read(proj, calls, base):
    """Pretty-printed, in another order, with a BOM-free newline or none: what parses counts."""
    proj.fetch('coll', 'one')
    text = json.dumps(dict(reversed(COMPLETED.items())), indent=4)
    (base / 'coll/one/status.json').write_text(text)

    assert proj.fetch('coll', 'one')['status'] == COMPLETED
    assert proj.fetch('coll', 'one', recompute=True)['result']['run'] == 2
    assert status_of(base, 'one') == COMPLETED
    assert proj.fetch('coll', 'one')['result']['run'] == 2


def test_deleting_status_asks_for_a_new_run(proj, calls, base):
    """Without status.json it is never begun: the row goes at reindex, the next fetch computes."""
    for ident in ('one', 'two'):
        proj.fetch('coll', ident, {'a': 1})
        (base / f'coll/{ident}/status.json').unlink()

    assert proj.reindex('coll').removed == 2
    assert len(proj.query()) == 0
    with pytest.raises(hadrosaur.ResourceNotFound):
        proj.get('coll', 'one')
    assert proj.fetch('coll', 'one')['result']['run'] == 3
    assert [(entry.ident, entry.status) for entry in proj.query()] == [('one', 'completed')]


def test_copied_renamed_and_deleted_folders(proj, calls, base):
    """The folder's name is the ident; index and fetch follow what was done by hand."""
    for ident in ('copied', 'renamed', 'deleted', 'bad'):
        proj.fetch('coll', ident, {'of': ident})
    shutil.copytree(base / 'coll/copied', base / 'coll/a copy')
    shutil.copytree(base / 'coll/bad', base / 'coll/bad copy')
    (base / 'coll/renamed').rename(base / 'coll/new%20name')
    shutil.rmtree(base / 'coll/deleted')
    calls.clear()

    for ident in ('a copy', 'copied', 'new name'):
        assert proj.fetch('coll', ident)['status'] == COMPLETED, ident
    assert calls == []
    report = proj.reindex()
    assert report.removed == 2
    rows = {entry.ident: (entry.status, entry.args['of']) for entry in proj.query()}
    assert rows == {
        'copied': ('completed', 'copied'),
        'a copy': ('completed', 'copied'),
        'new name': ('completed', 'renamed'),
        'bad': ('error', 'bad'),
        'bad copy': ('error', 'bad'),
    }
    assert proj.fetch('coll', 'a copy', recompute=True)['result']['ident'] == 'a copy'
    assert proj.fetch('coll', 'copied')['result']['ident'] == 'copied'
    assert proj.fetch('coll', 'deleted')['status'] == COMPLETED
    assert calls == ['a copy', 'deleted']
    assert proj.reindex()[1:4] == (0, 0, 0)


def test_a_copied_folder_that_is_settled_tells_of_itself(proj, calls, base):
    """A digest names nobody: once the status is mended for an ident, the record says whose it is."""
    ident = 'long' * 60
    proj.fetch('coll', 'one')
    copy = base / 'coll' / canonical.folder_name(ident)
    shutil.copytree(base / 'coll/one', copy)
    (copy / 'status.json').write_text('spoiled')

    assert proj.get('coll', ident).status == 'completed'
    assert {entry.ident for entry in proj.query()} == {'one', ident}
    assert proj.reindex()[1:] == (0, 0, 0, [])
    assert proj.check(deep=True).findings == []
    assert calls == ['one']


@pytest.mark.parametrize('then', ['recompute', 'fail', 'remove', 'settle'])
def test_a_hard_linked_copy_keeps_its_bytes(proj, base, then):
    """Files that have another name elsewhere (cp -al, a backup) do not change with the original."""
    fails = []

    @proj.resource('coll')
    def compute(ident, args, subdir):
        print('printed', len(fails))
        print('err', file=sys.stderr)
        Path(subdir, 'own').write_text(str(len(fails)))
        if fails:
            raise ValueError('now it fails')
        return ['a result that is longer than the next one' if not fails else '', len(fails)]

    proj.fetch('coll', 'one')
    subprocess.run(['cp', '-al', base / 'coll/one', base / 'coll/copy'], check=True)
    before = {name: what[0] for name, what in tree(base / 'coll/copy').items()}
    if then == 'fail':
        fails.append(1)
    if then == 'remove':
        proj.remove('coll', 'one')
    elif then == 'settle':
        path = base / 'coll/one/record.json'
        text = path.read_text()
        path.unlink()
        path.write_text(text.replace('"state": "completed"', '"state": "begun"'))
        (base / 'coll/one/status.json').unlink()
        write_status(base, 'one', 'pending')
        assert proj.get('coll', 'one').status == 'error'
    else:
        status = 'error' if fails else 'completed'
        assert proj.fetch('coll', 'one', recompute=True).status == status
        assert status_of(base, 'one')[status]

    own = before.pop('storage/own')
    assert {
        name: what[0] for name, what in tree(base / 'coll/copy').items() if name != 'storage/own'
    } == before
    assert then in ('recompute', 'fail') or (base / 'coll/copy/storage/own').read_bytes() == own
    assert proj.fetch('coll', 'copy')['status'] == COMPLETED


@pytest.mark.parametrize('fails', [False, True])
def test_a_hard_linked_copy_made_while_it_runs_keeps_its_bytes(proj, base, fails):
    """A backup in the middle of a run says pending for ever, whatever comes of the run."""

    @proj.resource('coll')
    def compute(ident, args, subdir):
        for name in ('status.json', 'record.json'):
            os.link(base / 'coll/one' / name, base / name)
        return 1 // (not fails)

    proj.fetch('coll', 'one')
    assert status_of(base, 'one')['error' if fails else 'completed']
    assert json.loads((base / 'status.json').read_text()) == PENDING
    assert json.loads((base / 'record.json').read_text())['state'] == 'begun'


def old_folder(base, name, status, result=None, error=None):
    """A resource as hadrosaur 0.0.2 left it: no record.json."""
    folder = base / 'coll' / name
    (folder / 'storage').mkdir(parents=True)
    (folder / 'status.json').write_text(
        json.dumps({'completed': COMPLETED, 'error': ERROR}.get(status, PENDING))
    )
    (folder / 'stdout.log').write_text('old output\n')
    (folder / 'stderr.log').write_text('')
    if result is not None:
        (folder / 'result.json').write_text(json.dumps(result))
    if error is not None:
        (folder / 'error.log').write_text(error)
    return folder


def test_folders_of_0_0_2(base):
    """The same layout without record.json, also under raw names, is read, indexed and tried again."""
    raw = ['plain', 'a b', 'é', 'with:colon', 'x?y=1&z', '100%', 'tilde~', '[1, 2]', '.hidden', '-rf']
    for name in raw:
        old_folder(base, name, 'completed', {'old': name})
    trace = 'Traceback (most recent call last):\n  File "x.py", line 1\nKeyError: \'gone\'\n'
    old_folder(base, 'failed one', 'error', error=trace)
    old_folder(base, 'cut-off', 'pending')
    made = []
    with Project(base) as proj:

        @proj.resource('coll')
        def compute(ident, args, subdir):
            made.append(ident)
            return 'new'

        rows = {entry.ident: entry for entry in proj.query('coll')}
        assert {ident for ident, row in rows.items() if row.status == 'completed'} == set(raw)
        assert (rows['failed one'].error_type, rows['failed one'].error) == ('KeyError', "'gone'")
        assert rows['plain'].finished_at is not None
        for name in raw:
            assert proj.fetch('coll', name)['result'] == {'old': name}, name
        assert proj.get('coll', 'failed one').error == trace
        assert made == []
        assert proj.fetch('coll', 'failed one')['result'] == 'new'
        assert proj.fetch('coll', 'cut-off')['result'] == 'new'
        assert proj.fetch('coll', 'a b', recompute=True)['result'] == 'new'
        assert made == ['failed one', 'cut-off', 'a b']
        assert len(os.listdir(base / 'coll')) == len(raw) + 2  # no folder twice
        assert proj.reindex()[1:4] == (0, 0, 0)
        assert all(status == 'completed' for status in {entry.status for entry in proj.query('coll')})


# --- links -----------------------------------------------------------------------------------------------

LINKED = [
    'base/coll', 'base/coll/one', 'base/coll/one/status.json', 'base/coll/one/result.json',
    'base/coll/one/record.json', 'base/coll/one/stdout.log', 'base/coll/one/stderr.log',
    'base/coll/one/error.log', 'base/coll/one/storage', 'base/coll/one/storage/inside', 'base/coll/one/.lock',
    'base/.hadrosaur', 'base/.hadrosaur/sessions', 'base/.hadrosaur/format.json',
    'base/.hadrosaur/index.lock', 'base/index.sqlite3', 'base/index.sqlite3-wal',
]  # fmt: skip


@pytest.mark.timeout(300)
@pytest.mark.parametrize('moment', ['before', 'after'])
@pytest.mark.parametrize('place', LINKED)
def test_no_link_is_followed(tmp_path, monkeypatch, place, moment):
    """A link planted at any level leads nothing outside: what it points to stays untouched."""
    ignored = []
    monkeypatch.setattr(sys, 'unraisablehook', lambda what: ignored.append(repr(what.exc_value)))
    outside = tmp_path / 'outside'
    (outside / 'one/storage').mkdir(parents=True)
    for folder in (outside, outside / 'one', outside / 'one/storage'):
        for name in ('status.json', 'result.json', 'record.json', 'stdout.log', 'canary'):
            (folder / name).write_text('canary')
    write = json.dumps(COMPLETED)
    (outside / 'one/status.json').write_text(write)
    (outside / 'one/result.json').write_text('"foreign"\n')
    (outside / 'empty').write_text('')

    def plant():
        at = tmp_path / place
        at.parent.mkdir(parents=True, exist_ok=True)
        if at.is_dir() and not at.is_symlink():
            shutil.rmtree(at)
        else:
            at.unlink(missing_ok=True)
        is_folder = place in ('base/coll', 'base/.hadrosaur', 'base/.hadrosaur/sessions') or place.endswith(
            ('/one', '/storage', '/inside')
        )
        target = outside / 'one' if place.endswith('one') else outside
        if not is_folder:
            target = outside / ('empty' if 'sqlite' in place or 'lock' in place else 'one/' + at.name)
            if not target.exists():
                target = outside / 'canary'
        at.symlink_to(target)

    def opened():
        proj = Project(tmp_path / 'base')

        @proj.resource('coll')
        def compute(ident, args, subdir):
            print('printed')
            Path(subdir, 'own').write_text('x')
            if args.get('fail'):
                raise ValueError('as asked')
            return 'ours'

        return proj

    if moment == 'after':
        with opened() as proj:
            proj.fetch('coll', 'one')
    plant()
    before = tree(outside)
    served = []
    with contextlib.suppress(OSError, RuntimeError), opened() as proj:
        for work in (
            lambda: proj.get('coll', 'one'),
            lambda: proj.fetch('coll', 'one'),
            lambda: proj.fetch('coll', 'one', recompute=True),
            lambda: proj.fetch('coll', 'one', {'fail': 1}, recompute=True),
            lambda: list(proj.fetch_many('coll', ['one', 'two'], executor='inline')),
            lambda: proj.query()[:],
            lambda: proj.reindex(),
            lambda: proj.check(fix=True, deep=True),
            lambda: proj.remove('coll', 'one'),
            lambda: proj.reindex(fresh=True),
        ):
            plant() if moment == 'after' and not (tmp_path / place).is_symlink() else None
            try:
                found = work()
            except (OSError, RuntimeError, hadrosaur.HadrosaurWarning):
                continue
            finally:
                assert tree(outside) == before
            served += found if isinstance(found, list) else [found]
    with contextlib.suppress(OSError, RuntimeError):
        proj.close()
    assert tree(outside) == before
    assert [res for res in served if isinstance(res, dict) and res.get('result') == 'foreign'] == []
    proj = found = work = None
    gc.collect()
    assert ignored == []  # nothing went wrong where nobody sees it


def test_links_in_storage_are_removed_and_not_followed(proj, tmp_path):
    """Emptying storage, and remove, take links themselves and not what they point to."""
    outside = tmp_path / 'outside'
    (outside / 'deep').mkdir(parents=True)
    (outside / 'deep/canary').write_text('canary')

    @proj.resource('coll')
    def compute(ident, args, subdir):
        names = os.listdir(subdir)
        os.symlink(outside, Path(subdir, 'link'))
        os.symlink(outside / 'deep/canary', Path(subdir, 'file'))
        os.makedirs(Path(subdir, 'a/b'))
        os.symlink(outside, Path(subdir, 'a/b/link'))
        return names

    before = tree(outside)
    for recompute in (False, True):
        assert proj.fetch('coll', 'one', recompute=recompute)['result'] == []
    proj.remove('coll', 'one')

    assert tree(outside) == before
    assert not os.listdir(Path(proj.path, 'coll'))


def test_a_link_planted_while_the_function_runs(proj, tmp_path):
    """A function that replaces its files by links harms nobody; its resource still ends."""
    canary = tmp_path / 'canary'
    canary.write_text('canary')

    @proj.resource('coll')
    def compute(ident, args, subdir):
        path = Path(subdir).parent / ident
        path.unlink(missing_ok=True)
        path.symlink_to(canary)
        return 'x' * 100

    for name in ('status.json', 'result.json', 'record.json', 'error.log', 'stdout.log'):
        res = proj.fetch('coll', name)
        assert res.status in ('completed', 'error')
        assert proj.get('coll', name).status in ('completed', 'error')
        assert canary.read_text() == 'canary', name
    assert len(proj.query(status='pending')) == 0


def test_the_base_may_be_reached_through_a_link(tmp_path):
    """The base itself may be a link."""
    (tmp_path / 'real').mkdir()
    (tmp_path / 'link').symlink_to(tmp_path / 'real')
    with Project(tmp_path / 'link') as proj:
        proj.resource('coll')(lambda ident, args, subdir: 1)
        assert proj.fetch('coll', 'one')['result'] == 1
        assert proj.fetch_many('coll', ['two'], workers=1).wait().completed == 1
    assert (tmp_path / 'real/coll/one/result.json').exists()


# --- long idents -----------------------------------------------------------------------------------------


def test_long_idents_come_back(proj, calls, base):
    """A folder named by a digest tells its ident from its record: completed, failed, cut off, recomputed."""
    idents = [
        'x' * 300,
        'é' * 300,
        'https://example.org/' + 'a/b?c=' * 200,
        'y' * 4096,
        'bad' + 'z' * 400,
        '🦕' * 90,
    ]
    for ident in idents:
        proj.fetch('coll', ident, {'n': len(ident)})
    proj.fetch('coll', idents[0], recompute=True)
    cut = 'cut' + 'c' * 300
    proj.fetch('coll', cut)
    (folder,) = [at for at in (base / 'coll').iterdir() if at.name.startswith('cutccc')]
    record = folder / 'record.json'
    record.write_text(record.read_text().replace('"state": "completed"', '"state": "begun"'))
    (folder / 'status.json').write_text(json.dumps(PENDING))

    def rows():
        return {entry.ident: (entry.status, entry.error_type) for entry in proj.query('coll')}

    assert max(len(os.fsencode(at.name)) for at in (base / 'coll').iterdir()) <= 200
    expected = dict.fromkeys(idents, ('completed', None)) | {
        idents[4]: ('error', 'ValueError'),
        cut: ('error', 'Interrupted'),
    }
    proj.reindex(fresh=True)
    proj.reindex()
    assert rows() == expected
    calls.clear()
    for ident in idents[:4]:
        assert proj.fetch('coll', ident)['result']['ident'] == ident
    assert calls == []
    # a copy of it whose record was damaged is reported, and served to the one who knows the ident
    record.write_text('{')
    report = proj.reindex()
    assert any('cutccc' in path for path, _ in report.unreadable), report


def test_a_queued_long_ident_survives_its_caller(program, tmp_path):
    """Killed while a long ident was queued in the background: it is as if never asked for."""
    killed = program(
        PRELUDE
        + """
        os.sched_setaffinity(0, [min(os.sched_getaffinity(0))])     # one slot
        proj.resource('coll', background=True)(lambda ident, args, subdir: await_file('never'))
        for n in range(6):
            proj.fetch('coll', 'q' * 400 + str(n))
        os.kill(os.getpid(), signal.SIGKILL)
        """,
        start=True,
    )
    assert killed.wait(timeout=HANG) == -signal.SIGKILL, killed.stderr.read()
    with Project(tmp_path / 'base') as proj:
        proj.resource('coll')(lambda ident, args, subdir: len(ident))
        with pytest.raises(hadrosaur.ResourceNotFound):
            proj.get('coll', 'q' * 400 + '5')
        proj.reindex()
        assert not proj.query(ident='*5')[:]
        assert proj.fetch('coll', 'q' * 400 + '5', wait=5)['result'] == 401
        proj.reindex(fresh=True)
        rows = {entry.ident: entry.status for entry in proj.query()}
        assert rows['q' * 400 + '5'] == 'completed'
    (tmp_path / 'never').touch()


# --- nested ----------------------------------------------------------------------------------------------

NESTED = """
        @proj.resource('leaf')
        def leaf(ident, args, subdir):
            print('leaf', ident)
            os.system(f'echo sub {ident}')
            if ident == 'bad':
                raise ValueError('a bad leaf')
            return ident

        @proj.resource('tree')
        def tree(ident, args, subdir):
            print('tree before')
            found = proj.fetch('leaf', f'{ident}-1')
            again = proj.fetch('leaf', f'{ident}-1')
            bad = proj.fetch('leaf', 'bad')
            many = [res['result'] for res in proj.fetch_many('leaf', [f'{ident}-2', f'{ident}-3'])]
            print('tree after')
            return [found['result'], again == found, bad.status, bad['result'], many]

        @proj.resource('top')
        def top(ident, args, subdir):
            return proj.fetch('tree', ident)['result'][0]

        @proj.resource('cycle')
        def cycle(ident, args, subdir):
            return proj.fetch('cycle', str((int(ident) + 1) % 3))['result']

        @proj.resource('self')
        def self_(ident, args, subdir):
            try:
                proj.fetch('self', ident)
            except hadrosaur.CycleError as error:
                return str(error)
"""


@pytest.mark.parametrize('where', ['inline', 'processes'])
def test_nested_fetch(program, where):
    """What a function fetches has a folder, logs and a row of its own; a cycle is a CycleError."""
    done = program(
        PRELUDE
        + '        import hadrosaur\n'
        + NESTED
        + """
        def one(collection, ident):
            if sys.argv[1] == 'inline':
                return proj.fetch(collection, ident)
            (found,) = proj.fetch_many(collection, [ident], workers=2)
            return found

        assert one('top', 'a')['result'] == 'a-1'
        assert one('tree', 'a')['result'] == ['a-1', True, 'error', None, ['a-2', 'a-3']]
        assert log('tree', 'a') == 'tree before\\ntree after\\n', log('tree', 'a')
        assert log('leaf', 'a-1') == 'leaf a-1\\nsub a-1\\n'
        assert log('leaf', 'a-3') == 'leaf a-3\\nsub a-3\\n'
        rows = {(e.collection, e.ident): (e.status, e.attempt) for e in proj.query()}
        assert rows == {('top', 'a'): ('completed', 1), ('tree', 'a'): ('completed', 1),
                        ('leaf', 'a-1'): ('completed', 1), ('leaf', 'a-2'): ('completed', 1),
                        ('leaf', 'a-3'): ('completed', 1), ('leaf', 'bad'): ('error', 1)}, rows
        report = proj.reindex()
        assert report[1:4] == (0, 0, 0), report
        res = one('cycle', '0')
        assert res.status == 'completed' and res['result'] is None or res.status == 'error'
        rows = {e.ident: (e.status, e.error_type) for e in proj.query('cycle')}
        assert set(rows) == {'0', '1', '2'}, rows
        assert rows['2'] == ('error', 'hadrosaur.CycleError') or 'CycleError' in rows['2'][1], rows
        assert 'cycle/0' in proj.get('cycle', '2').error
        found = one('self', 'x')
        assert found.status == 'completed' and 'self/x' in found['result'], found
        print('after')
        """,
        where,
    )

    assert (done.stdout, done.stderr) == ('after\n', '')


def test_a_deleted_resource_that_a_function_fetches_has_its_new_row(proj, base):
    """Its attempts are counted anew; the row tells of the new run, not of the greater number."""
    proj.resource('leaf')(lambda ident, args, subdir: len(os.listdir(subdir)))
    proj.resource('top')(lambda ident, args, subdir: proj.fetch('leaf', 'a')['result'])
    proj.fetch('leaf', 'a')
    proj.fetch('leaf', 'a', recompute=True)
    shutil.rmtree(base / 'leaf/a')
    proj.fetch('top', 't')

    assert [entry.attempt for entry in proj.query('leaf')] == [1]
    assert proj.reindex()[1:4] == (0, 0, 0)


# --- forks and pickles -----------------------------------------------------------------------------------


def test_going_parallel_as_the_original_did(program):
    """`multiprocessing.Process(target=proj.fetch, daemon=True)` under fork: pending, then completed."""
    program(
        PRELUDE
        + """
        import multiprocessing
        multiprocessing.set_start_method('fork')

        @proj.resource('coll')
        def compute(ident, args, subdir):
            print('in', ident)
            open(f'began{ident}', 'w').close()
            await_file('go')
            return args['n']

        proj.query()                # the index is open when the forks are made
        work = [multiprocessing.Process(target=proj.fetch, args=('coll', n, {'n': n}), daemon=True)
                for n in range(4)]
        for process in work: process.start()
        for n in range(4):
            await_file(f'began{n}')
            assert proj.fetch('coll', n).status == 'pending'
        assert [e.status for e in proj.query()] == ['pending'] * 4
        open('go', 'w').close()
        for process in work: process.join(300)
        assert [process.exitcode for process in work] == [0] * 4
        for n in range(4):
            assert proj.fetch('coll', n)['result'] == n
            assert log('coll', str(n)) == f'in {n}\\n'
        assert sorted((e.ident, e.status) for e in proj.query()) == [(str(n), 'completed') for n in range(4)]
        """
    )


@pytest.mark.parametrize('first', ['child', 'parent'])
def test_fork_with_an_open_index(program, tmp_path, first):
    """Both sides go on with the Project, whichever ends first; no row is lost, the index is whole."""
    done = program(
        PRELUDE
        + """
        proj.resource('coll')(lambda ident, args, subdir: ident)
        proj.fetch('coll', 'before')
        child = os.fork()
        if child == 0:
            for n in range(10):
                assert proj.fetch('coll', f'child{n}')['result']
            assert len(proj.query()) >= 11
            if sys.argv[1] == 'parent':
                await_file('parent done')
                proj.fetch('coll', 'late')
            print('child', flush=True)
            sys.exit(0)                 # an ordinary end, exit hooks and all
        if sys.argv[1] == 'child':
            assert os.waitpid(child, 0)[1] == 0
        for n in range(10):
            assert proj.fetch('coll', f'parent{n}')['result']
        if sys.argv[1] == 'parent':
            proj.close()
            open('parent done', 'w').close()
            assert os.waitpid(child, 0)[1] == 0
        assert len(proj.query(status='completed')) == 21 + (sys.argv[1] == 'parent')
        print('parent')
        """,
        first,
    )

    assert done.stdout == 'child\nparent\n'
    assert done.stderr == ''
    with contextlib.closing(sqlite3.connect(tmp_path / 'base/index.sqlite3')) as index:
        assert index.execute('pragma integrity_check').fetchall() == [('ok',)]


def importable(ident, args, subdir):
    """A function that pickle finds by its name."""
    return [ident, args]


def test_a_project_can_be_pickled(proj, base):
    """It is its base and its registry; a function that cannot be imported is named where it is fetched."""
    proj.resource('found')(importable)
    proj.resource('left')(lambda ident, args, subdir: 1)
    proj.fetch('found', 'before')
    with pickle.loads(pickle.dumps(proj)) as again:
        assert again.fetch('found', 'before') == proj.fetch('found', 'before')
        assert again.fetch('found', 'more', {'a': 1})['result'] == ['more', {'a': 1}]
        assert {entry.ident for entry in again.query()} == {'before', 'more'}
        with pytest.raises(hadrosaur.UnknownCollection, match='left'):
            again.fetch('left', 'x')
    res = pickle.loads(pickle.dumps(proj.fetch('found', 'before')))
    assert (res['result'], res.status, res.paths) == (
        ['before', {}],
        'completed',
        proj.get('found', 'before').paths,
    )


# --- whatever the function does --------------------------------------------------------------------------

ZOO = """
        class BadText(Exception):
            def __str__(self): raise ValueError('no text')
            __repr__ = __str__

        class BadRepr:
            def __repr__(self): raise ValueError('no repr')

        def recurse(): return recurse()

        def forks(subdir):
            if os.fork() == 0:
                return 'child'
            assert os.wait()[1] == 0    # it ended where its function returned

        def chatters():
            for n in range(100):
                print('chatter', n)
                time.sleep(0.001)

        def raising(error):
            raise error

        def closes_stdout():
            sys.stdout.close()
            sys.stderr.close()

        def deletes_stdout():
            del sys.stdout, sys.stderr

        def replaces(subdir, name, make):
            path = Path(subdir).parent / name
            path.unlink(missing_ok=True)
            make(path)

        def deep():
            nested = []
            for _ in range(100_000):
                nested = [nested]
            return nested

        ZOO = {       # what it does: (function, what its resource ends in)
            'exits': (lambda s: sys.exit(3), 'SystemExit'),
            'exits with nothing': (lambda s: sys.exit(), 'SystemExit'),
            'exits with no text': (lambda s: sys.exit(BadRepr()), 'SystemExit'),
            'generator exit': (lambda s: raising(GeneratorExit()), 'GeneratorExit'),
            'stop iteration': (lambda s: next(iter(())), 'StopIteration'),
            'no text': (lambda s: raising(BadText()), 'BadText'),
            'lone surrogate': (lambda s: raising(ValueError('a \\ud800 b')), 'ValueError'),
            'NUL': (lambda s: raising(ValueError('a \\0 b')), 'ValueError'),
            'long text': (lambda s: raising(ValueError('x' * 5_000_000)), 'ValueError'),
            'group': (lambda s: raising(ExceptionGroup('g', [ValueError(1), KeyError(2)])), 'ExceptionGroup'),
            'recursion': (lambda s: recurse(), 'RecursionError'),
            'deep result': (lambda s: deep(), 'ResultNotSerializable'),
            'a set': (lambda s: {1}, 'ResultNotSerializable'),
            'key': (lambda s: {(1, 2): 1}, 'ResultNotSerializable'),
            'removes itself': (lambda s: shutil.rmtree(Path(s).parent), 'OSError'),
            'removes its collection': (lambda s: shutil.rmtree(Path(s).parent.parent), 'OSError'),
            'removes storage': (lambda s: shutil.rmtree(s), None),
            'removes its status': (lambda s: (Path(s).parent / 'status.json').unlink(), None),
            'removes its record': (lambda s: (Path(s).parent / 'record.json').unlink(), None),
            'renames itself': (lambda s: (os.rename(Path(s).parent, s[:-8] + '-away'), None)[1], ''),
            'changes folder': (lambda s: os.chdir('/'), None),
            'goes where it is removed': (lambda s: (os.chdir(s), shutil.rmtree(s))[0], None),
            'closes descriptors': (lambda s: os.closerange(3, 256), 'OSError'),
            'closes output': (lambda s: os.closerange(1, 3), None),
            'closes sys.stdout': (lambda s: closes_stdout(), None),
            'deletes sys.stdout': (lambda s: deletes_stdout(), None),
            'no sys.stdout': (lambda s: setattr(sys, 'stdout', None), None),
            'forks': (forks, None),
            'leaves a thread': (lambda s: threading.Thread(target=chatters).start(), None),
            'much output': (lambda s: [print('y' * 1023) for _ in range(20_000)] and None, None),
            'status is a folder': (lambda s: replaces(s, 'status.json', os.mkdir), None),
            'result is a folder': (lambda s: replaces(s, 'result.json', os.mkdir), None),
            'deep storage': (lambda s: os.makedirs(s + '/d' * 600), None),
            'changes recursion': (lambda s: sys.setrecursionlimit(10**6), None),
        }
"""


@pytest.mark.long
def test_zoo_inline(program, tmp_path):
    """Whatever a function does in the caller's own process, fetch returns its resource, and goes on."""
    done = program(
        PRELUDE
        + ZOO
        + """
        here, faults = os.getcwd(), {}
        import hadrosaur.index, sqlalchemy      # once, before the forks

        def attempt(n, name, function, expected):
            me = os.getpid()
            proj = Project(f'base{n}')
            proj.resource('zoo')(lambda ident, args, subdir: function(subdir))
            proj.resource('well')(lambda ident, args, subdir: print('well', ident))
            for again in (False, True):
                res = proj.fetch('zoo', 'x', recompute=again)
                if os.getpid() != me:
                    os._exit(7)
                kind = res.entry.error_type
                is_os = expected == 'OSError' and kind in ('FileNotFoundError', 'NotADirectoryError')
                assert kind is None if expected is None else expected in str(kind) or is_os, (kind, res.error)
                if 'collection' in name or name == 'closes descriptors':
                    return          # there is nothing left that could tell: SQLite's files were closed too
                seen = proj.get('zoo', 'x')
                assert (seen.status, seen['result']) == (res.status, res['result']), seen
                rows = [e.status for e in proj.query('zoo')]
                assert rows == [res.status], rows
            assert proj.fetch('well', 'y').status == 'completed'
            os.chdir(here)
            assert Path(f'base{n}/well/y/stdout.log').read_text() == 'well y\\n'
            print('shown', n, flush=True)
            found = [f for f in proj.check(deep=True).findings if not f.ident.startswith('x-')]
            assert not found, found     # the folder that was renamed is one that was cut off

        for n, (name, (function, expected)) in enumerate(ZOO.items()):
            pid = os.fork()         # what one spoils is not blamed on the next
            if pid:
                assert os.waitpid(pid, 0)[0] == pid
                text = open(f'report{n}').read() if os.path.exists(f'report{n}') else 'it ended early'
                if text != 'fine':
                    faults[name] = text
                continue
            try:
                attempt(n, name, function, expected)
                text = 'fine'
            except BaseException:
                import traceback
                text = traceback.format_exc(limit=-3)[-700:]
            with open(f'{here}/report{n}', 'w') as report:
                report.write(text)
            os._exit(0)
        Path('faults').write_text(json.dumps(faults, indent=1))
        """,
        check=False,
    )

    faults = json.loads((tmp_path / 'faults').read_text())
    assert not faults, '\n'.join(f'--- {name}: {text}' for name, text in faults.items())
    # Only what was printed outside of a function is seen here, and what a thread left behind says later.
    assert set(re.sub(r'shown|chatter|[\d\s]', '', done.stdout)) == set()
    assert done.stdout.count('shown') > 25


@pytest.mark.long
def test_zoo_in_slots(program, tmp_path):
    """Whatever a function does in a slot, exactly its own resource ends so; its siblings complete."""
    done = program(
        PRELUDE
        + ZOO
        + """
        ZOO |= {
            'kills itself': (lambda s: os.kill(os.getpid(), 9), 'SIGKILL'),
            'crashes': (lambda s: ctypes.string_at(0), 'SIGSEGV'),
            'aborts': (lambda s: os.abort(), 'SIGABRT'),
            'leaves': (lambda s: os._exit(3), 'status 3'),
            'leaves well': (lambda s: os._exit(0), 'status 0'),
            'kills its group': (lambda s: os.killpg(0, 9), 'SIGKILL'),
            'removes itself and dies': (lambda s: (shutil.rmtree(Path(s).parent), os.kill(os.getpid(), 9)),
                                        'SIGKILL'),
            'interrupts itself': (lambda s: raising(KeyboardInterrupt()), 'Interrupted'),
            'terminates': (lambda s: os.kill(os.getpid(), signal.SIGTERM), 'SIGTERM'),
        }
        # it takes its siblings with it, or replaces what nobody could mend
        del ZOO['removes its collection']

        @proj.resource('zoo')
        def compute(ident, args, subdir):
            print('printed', ident)
            if ident in ZOO:
                with open('runs', 'a') as runs:
                    runs.write(ident + '\\n')
                return ZOO[ident][0](subdir)
            return ident

        idents = [ident for n, name in enumerate(ZOO) for ident in (name, f'good{n}')]
        found = {res.ident: res for res in proj.fetch_many('zoo', idents, workers=2)}
        assert set(found) == set(idents)
        faults = {}
        for n, (name, (_, expected)) in enumerate(ZOO.items()):
            good, res = found[f'good{n}'], found[name]
            if good['result'] != f'good{n}' or log('zoo', f'good{n}') != f'printed good{n}\\n':
                faults[f'good{n} after {name}'] = str(good.error)[-300:]
            kind = f'{res.entry.error_type} {res.entry.error}'
            if not (res.entry.error_type is None if expected is None else expected in kind or (
                    expected == 'OSError' and 'Error' in kind)):
                faults[name] = kind
            try:
                seen = proj.get('zoo', name)
                if (seen.status, seen['result']) != (res.status, res['result']):
                    faults[f'get {name}'] = f'{res.status}, then {seen.status}'
            except Exception as error:
                faults[f'get {name}'] = f'{res.status}, then {error!r}'
        rows = {e.ident: e.status for e in proj.query('zoo')}
        if rows != {ident: res.status for ident, res in found.items()}:
            faults['rows'] = str([ident for ident in idents if rows.get(ident) != found[ident].status])
        if os.path.getsize(Path('base/zoo', 'much%20output', 'stdout.log')) != 20_000 * 1024 + 20:
            faults['much output'] = 'not all of it'
        Path('faults').write_text(json.dumps(faults, indent=1))
        Path('runs').write_text(json.dumps(Path('runs').read_text().splitlines()))
        """
    )

    faults = json.loads((tmp_path / 'faults').read_text())
    assert not faults, '\n'.join(f'--- {name}: {text}' for name, text in faults.items())
    runs = json.loads((tmp_path / 'runs').read_text())
    twice = {name: runs.count(name) for name in runs if runs.count(name) > 1}
    assert twice.keys() <= {'removes itself and dies'}, twice  # it leaves nothing that would tell
    assert done.stdout == done.stderr == ''


def test_ctrl_c_in_a_function_is_written_and_raised_again(proj, base):
    """KeyboardInterrupt inline: error Interrupted on disk and in the index, then raised again."""

    @proj.resource('coll')
    def compute(ident, args, subdir):
        print('so far')
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        proj.fetch('coll', 'one')

    assert status_of(base, 'one') == ERROR
    assert proj.get('coll', 'one').entry.error_type == 'Interrupted'
    assert [(entry.status, entry.error_type) for entry in proj.query()] == [('error', 'Interrupted')]
    assert (base / 'coll/one/stdout.log').read_text() == 'so far\n'


@pytest.mark.long
def test_ctrl_c_at_any_moment_of_a_fetch(program, tmp_path):
    """SIGINT soon after any line of ours, not only in the function: the caller is told, nothing is stuck."""
    done = program(
        PRELUDE
        + """
        import hadrosaur

        @proj.resource('coll')
        def compute(ident, args, subdir):
            print('printed', ident)
            return ident

        package = os.path.dirname(hadrosaur.__file__)
        left = [0]

        def on_line(frame, event, arg):
            if event == 'line':
                left[0] -= 1
                if left[0] == 0:        # not here: a tracer may raise where no signal ever could
                    sys.settrace(None)
                    signal.setitimer(signal.ITIMER_REAL, 0.00006)
            return on_line

        def on_call(frame, event, arg):
            return on_line if frame.f_code.co_filename.startswith(package) else None

        signal.signal(signal.SIGALRM, lambda *_: signal.raise_signal(signal.SIGINT))
        proj.fetch('coll', 'warm')
        faults, k, reached, lost = {}, 0, True, 0
        while reached and len(faults) < 12:
            k += 5
            ident, left[0] = str(k), k
            reached = told = False
            try:
                sys.settrace(on_call)
                proj.fetch('coll', ident)
                sys.settrace(None)
                if left[0] <= 0:
                    time.sleep(1)       # it comes at the very end
            except KeyboardInterrupt:
                told = True
            except BaseException as error:
                faults[f'{k}: told'] = repr(error)
            sys.settrace(None)
            reached = left[0] <= 0
            lost += reached and not told    # Python itself drops it where it meets a finalizer
            try:
                if hadrosaur.current() is not None:
                    faults[f'{k}: current'] = repr(hadrosaur.current())
                res = proj.fetch('coll', ident)
                if res.status != 'completed' or log('coll', ident) != f'printed {ident}\\n':
                    faults[f'{k}: then'] = (res.status, res.error and res.error[-200:], log('coll', ident))
                found = [e.status for e in proj.query('coll', ident=ident)]
                if found != ['completed']:
                    faults[f'{k}: row'] = found
            except BaseException as error:
                faults[f'{k}: raised'] = repr(error)
        assert k > 200 or faults, k
        if lost > 2:
            faults['lost'] = lost
        proj.close()
        if proj.check(deep=True).findings:
            faults['check'] = str(proj.check(deep=True).findings)[:500]
        os.write(1, b'raw\\n')
        print('after', flush=True)
        Path('faults').write_text(json.dumps(faults, indent=1))
        """
    )

    faults = json.loads((tmp_path / 'faults').read_text())
    assert not faults, '\n'.join(f'{name}: {what}' for name, what in list(faults.items())[:40])
    assert (done.stdout, done.stderr) == ('raw\nafter\n', '')
