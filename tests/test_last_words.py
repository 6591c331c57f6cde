"""What is printed reaches its own log: the last words of what was killed, and late words of threads."""

import errno
import os
import signal
import sys
import threading
import time
from pathlib import Path

import pytest
from conftest import await_that

from hadrosaur import unfinished_line
from hadrosaur.executors import template

needs_memory = pytest.mark.skipif(
    not template.IS_USED, reason='workers share no memory with their caller here'
)


@pytest.fixture(autouse=True)
def _buffered(monkeypatch):
    monkeypatch.delenv('PYTHONUNBUFFERED', raising=False)


def log(res, name='stdout'):
    return Path(res.paths[name]).read_text()


@needs_memory
@pytest.mark.parametrize(
    'end', ['os.kill(os.getpid(), 9)', 'os.kill(os.getpid(), 11)', 'os._exit(3)', 'time.sleep(600)']
)
def test_unfinished_lines_are_in_the_logs_of_what_was_killed(proj, end):
    """Dots of progress, "fetching page 7 ...": killed, crashed, timed out, the log tells how far it came."""

    def compute(ident, args, subdir):
        print('a whole line')
        print('fetching page 7 ...', end=' ')
        print('\N{SNOWMAN}', end='')
        for _ in range(3):
            sys.stderr.write('.')
        sys.stdout.buffer.write(b'bytes')
        exec(end, {'os': os, 'time': time})

    proj.resource('coll', timeout=2)(compute)
    [res] = proj.fetch_many('coll', ['a'], workers=1)
    assert res.entry.error_type in ('WorkerDied', 'TimedOut')
    assert log(res) == 'a whole line\nbytesfetching page 7 ... \N{SNOWMAN}'
    assert log(res, 'stderr').startswith('...') or log(res, 'stderr').endswith('...')


@needs_memory
def test_lines_are_kept_whole_and_told_once(proj):
    """What was written out is not told again, a front that is too long is written at once."""

    def compute(ident, args, subdir):
        print('one', end='')
        print(' two')
        print('flushed', end='', flush=True)
        print('x' * 50_000, end='')
        print('.', end='')
        os.kill(os.getpid(), signal.SIGKILL)

    proj.resource('coll')(compute)
    [res] = proj.fetch_many('coll', ['a'], workers=1)
    assert log(res) == 'one two\nflushed' + 'x' * 50_000 + '.'


@needs_memory
def test_the_last_words_of_a_nested_run_are_not_its_callers(proj):
    """A worker that dies in a nested fetch leaves nothing of that in the outer resource's log."""

    @proj.resource('inner')
    def inner(ident, args, subdir):
        print('inner words', end='')
        os.kill(os.getpid(), signal.SIGKILL)

    @proj.resource('outer')
    def outer(ident, args, subdir):
        print('outer words', end='')
        proj.fetch('inner', 'x')

    [res] = proj.fetch_many('outer', ['a'], workers=1)
    assert log(res) == 'outer words'


def test_a_forked_child_of_a_function_has_words_of_its_own(proj):
    """It shares the memory with its parent, and does not write there."""

    def compute(ident, args, subdir):
        print('parent', end='')
        pid = os.fork()
        if pid == 0:
            print(' child', end='')
            os._exit(0)
        os.waitpid(pid, 0)
        os.kill(os.getpid(), signal.SIGKILL)

    proj.resource('coll')(compute)
    [res] = proj.fetch_many('coll', ['a'], workers=1)
    assert log(res) == 'parent' or not template.IS_USED


def test_unbuffered_output_is_asked_for_as_everywhere(proj, monkeypatch, tmp_path):
    """With PYTHONUNBUFFERED a piece of a line is in the log while the function goes on."""
    monkeypatch.setenv('PYTHONUNBUFFERED', '1')

    def compute(ident, args, subdir):
        print('half a line', end='')
        while not os.path.exists(args['go']):
            time.sleep(0.01)

    proj.resource('coll')(compute)
    go = tmp_path / 'go'
    batch = proj.fetch_many('coll', ['a'], {'go': str(go)}, workers=1)
    thread = threading.Thread(target=batch.wait)
    thread.start()
    path = Path(proj.path, 'coll/a/stdout.log')
    try:
        await_that(lambda: path.exists() and path.read_text() == 'half a line')
    finally:
        go.touch()
        thread.join()


def test_words_that_do_not_fit_are_refused():
    """The memory holds a front of 16 kB for each of the two, and says where it is full."""
    if not unfinished_line.IS_POSSIBLE:
        pytest.skip('no shared memory without a name here')
    fd = unfinished_line.create()
    words = unfinished_line.LastWords(fd)
    os.close(fd)
    assert words.read() == (b'', b'')
    words.begin()
    assert words.add(0, 'a' * 16_000)
    assert not words.add(0, 'b' * 1000)
    assert words.add(1, 'c')
    assert words.read() == (b'a' * 16_000, b'c')
    words.begin()
    assert words.read() == (b'', b'')
    words.end()
    words.end()
    words.close()


# --- threads that stay -------------------------------------------------------------------------------


def test_threads_that_stay_write_to_the_log_of_their_resource(proj, tmp_path):
    """By print, by a held stream, by logging; they cost no process, and never reach another's log."""

    def compute(ident, args, subdir):
        import logging

        print(ident, 'begins')
        if ident == 'first':
            held, handler = sys.stderr, logging.StreamHandler()
            logger = logging.getLogger('of the thread')
            logger.addHandler(handler)

            def stay():
                while not os.path.exists(args['go']):
                    time.sleep(0.01)
                print('late by print')
                threading.Thread(target=print, args=('late by a thread of its own',)).start()
                held.write('late by a held stream\n')
                logger.warning('late by logging')
                open(args['go'] + '-said', 'w').close()
                time.sleep(600)

            threading.Thread(target=stay, daemon=True).start()
        if ident == 'third':
            open(args['go'], 'w').close()
            while not os.path.exists(args['go'] + '-said'):
                time.sleep(0.01)
        print(ident, 'ends')
        return os.getpid()

    proj.resource('coll')(compute)
    idents = ['first', 'second', 'third', 'fourth']
    found = {
        res.ident: res for res in proj.fetch_many('coll', idents, {'go': str(tmp_path / 'go')}, workers=1)
    }
    assert len({res.result for res in found.values()}) == 1
    for ident in idents[1:]:
        assert log(found[ident]) == f'{ident} begins\n{ident} ends\n'
        assert log(found[ident], 'stderr') == ''
    assert log(found['first']) == ('first begins\nfirst ends\nlate by print\nlate by a thread of its own\n')
    assert log(found['first'], 'stderr') == 'late by a held stream\nlate by logging\n'


def test_a_thread_that_stays_prints_while_a_later_run_begins_and_ends(proj):
    """At each moment of it: descriptors 1 and 2 lead to the later log already, or still."""

    def compute(ident, args, subdir):
        print(ident, 'begins')
        if ident == 'first':
            go, said, real = threading.Semaphore(0), threading.Semaphore(0), os.dup2

            def stay():
                while go.acquire():
                    print('late')
                    said.release()

            def watched(fd, to, *more):
                go.release()
                said.acquire()
                real(fd, to, *more)
                go.release()
                said.acquire()

            threading.Thread(target=stay, daemon=True).start()
            os.dup2 = watched
        print(ident, 'ends')

    proj.resource('coll')(compute)
    idents = ['first', 'second', 'third']
    found = {res.ident: res for res in proj.fetch_many('coll', idents, workers=1)}
    for ident in idents[1:]:
        assert log(found[ident]) == f'{ident} begins\n{ident} ends\n'
    first = log(found['first']).splitlines()
    assert first[:2] == ['first begins', 'first ends']
    assert not [line for line in first[2:] if line != 'late']
    assert len(first) > 2 + 4 * 4, 'twice for each descriptor, at the begin and at the end of the two others'


# --- streams that are broken -------------------------------------------------------------------------

BREAKS = {
    'detached': 'sys.stdout = io.TextIOWrapper(sys.stdout.detach(), encoding="utf-8")',
    'stderr detached': 'sys.stderr = io.TextIOWrapper(sys.stderr.detach(), encoding="utf-8")',
    'closed': 'sys.stdout.close()',
    'wrapped': 'sys.stdout = io.TextIOWrapper(io.FileIO(sys.stdout.fileno(), "w", closefd=False))',
    'reconfigured': 'sys.stdout.reconfigure(encoding="utf-16", line_buffering=False)',
    'None': 'sys.stdout = sys.stderr = None',
    'gone': 'del sys.stdout',
    'hostile': 'sys.stdout = sys.stderr = Hostile()',
    'unflushed': 'print("half", end=""); os.close(1)',
    'led elsewhere': 'print("half", end=""); os.dup2(os.open(os.devnull, os.O_WRONLY), 1)',
}


@pytest.mark.parametrize('executor', ['inline', 'threads', 'processes'])
def test_whatever_a_function_does_to_its_streams(program, executor):
    """It costs neither the next resources nor the program's own output, inline and in workers."""
    breaks = {what: code for what, code in BREAKS.items() if executor != 'threads' or 'os.' not in code}
    done = program(
        f"""
        import io, os, sys
        from hadrosaur import Project

        class Hostile:
            def __getattr__(self, name):
                raise RuntimeError('hostile')

        def compute(ident, args, subdir):
            print('hello', ident)
            exec(args['code'], dict(io=io, os=os, sys=sys, Hostile=Hostile))

        proj = Project('base')
        proj.resource('coll')(compute)
        for what, code in {breaks!r}.items():
            idents = {{f'{{what}} 1': {{'code': code}}, f'{{what}} 2': {{'code': ''}}}}
            for res in proj.fetch_many('coll', idents, workers=1, executor={executor!r}):
                assert res.status == 'completed', (res.ident, res.error)
                text = open(res.paths['stdout']).read()
                assert text.startswith(f'hello {{res.ident}}\\n'), (res.ident, text)
                assert text == f'hello {{res.ident}}\\n' or res.ident.endswith(' 1'), (res.ident, text)
            print('the program goes on', flush=True)
            print('and on', file=sys.stderr, flush=True)
        proj.close()
        """
    )
    assert done.stdout == 'the program goes on\n' * len(breaks)
    assert done.stderr == 'and on\n' * len(breaks)


def test_a_worker_without_such_memory(proj, monkeypatch):
    """Where no file may be so long (ulimit -f), workers compute all the same, and forget what stands open."""

    def refused():
        raise OSError(errno.EFBIG, os.strerror(errno.EFBIG))

    def compute(ident, args, subdir):
        print('whole')
        print('open', end='')
        if ident == 'dies':
            os.kill(os.getpid(), signal.SIGKILL)

    monkeypatch.setattr(unfinished_line, 'create', refused)
    proj.resource('coll')(compute)
    found = {res.ident: res for res in proj.fetch_many('coll', ['dies', 'a'], workers=1)}
    assert (found['a'].status, log(found['a'])) == ('completed', 'whole\nopen')
    assert (found['dies'].entry.error_type, log(found['dies'])) == ('WorkerDied', 'whole\n')
