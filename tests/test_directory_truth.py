"""Item 4: the directory is the truth, whatever the function does and wherever a process is cut off."""

import contextlib
import json
import os
import pickle
import shutil
import signal
import sqlite3
import stat
import subprocess
import sys
import time
from pathlib import Path

import pytest

import hadrosaur
from hadrosaur import Project, compute, directory

COMPLETED = {'completed': True, 'pending': False, 'error': False}
PENDING = {'completed': False, 'pending': True, 'error': False}
ERROR = {'completed': False, 'pending': False, 'error': True}

PRELUDE = """
        import ctypes, json, os, shutil, signal, subprocess, sys, threading, time, warnings
        from pathlib import Path
        from hadrosaur import Project

        proj = Project('base')

        def await_file(path, seconds=30):
            end = time.monotonic() + seconds
            while not os.path.exists(path):
                assert time.monotonic() < end, path
                time.sleep(0.002)

        def log(collection, ident, name='stdout'):
            return Path('base', collection, ident, name + '.log').read_text(errors='replace')

        def record(collection, ident):
            return json.loads(Path('base', collection, ident, 'record.json').read_text())
"""


def await_that(is_so, seconds=30):
    """Wait for something to be so; the test fails if it does not come."""
    end = time.monotonic() + seconds
    while not (found := is_so()):
        assert time.monotonic() < end, 'it did not come'
        time.sleep(0.003)
    return found


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
    assert sorted(os.listdir(base / 'coll/one')) == [
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
            return [write for write in writes if write[1] != 'format.json']
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

    _, err = started.communicate(timeout=30)
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
