"""Functions that do what they like to process, folder and result; and what becomes of each."""

import contextlib
import ctypes
import faulthandler
import itertools
import multiprocessing
import os
import resource
import shutil
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

ANIMALS = {}


def animal(*ends, kills=False, hangs=False, heavy=False):
    """``ends``: 'completed' or error types that may come of it; ``kills``: the process that it runs in."""

    def add(function):
        ANIMALS[function.__name__] = function
        function.ends, function.kills, function.hangs, function.heavy = ends, kills, hangs, heavy
        return function

    return add


def compute(ident, args, subdir):
    """The collections' function: an animal, or a sibling that does as it should."""
    print('out of', ident)
    print('err of', ident, file=sys.stderr, flush=True)
    name = args.get('animal')
    if name is None:
        Path(subdir, 'file').write_text(ident)
        return {'sibling': ident}
    return ANIMALS[name](subdir)


# --- ending the process ------------------------------------------------------------


@animal('WorkerDied', kills=True)
def exits(subdir):
    os._exit(3)


@animal('WorkerDied', kills=True)
def exits_well(subdir):
    os._exit(0)


@animal('WorkerDied', kills=True)
def kills_itself(subdir):
    os.kill(os.getpid(), signal.SIGKILL)


@animal('WorkerDied', kills=True)
def terminates_itself(subdir):
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(60)


@animal('WorkerDied', kills=True)
def segfaults(subdir):
    ctypes.string_at(0)


@animal('WorkerDied', kills=True)
def signals_a_segfault(subdir):
    os.kill(os.getpid(), signal.SIGSEGV)


@animal('WorkerDied', kills=True)
def aborts(subdir):
    os.abort()


@animal('WorkerDied', kills=True)
def kills_its_group(subdir):
    os.killpg(os.getpgid(0), signal.SIGKILL)


@animal('WorkerDied', kills=True)
def becomes_another_program(subdir):
    os.execv('/bin/true', ['true'])


@animal('WorkerDied', kills=True)
def overflows_the_stack_of_c(subdir):
    faulthandler._stack_overflow()


@animal('SystemExit')
def sys_exit(subdir):
    sys.exit(2)


@animal('SystemExit')
def sys_exit_with_text(subdir):
    sys.exit('for a reason')


@animal('KeyboardInterrupt', 'Interrupted', kills=True)
def raises_keyboard_interrupt(subdir):
    raise KeyboardInterrupt


@animal('KeyboardInterrupt', 'Interrupted', kills=True)
def interrupts_itself(subdir):
    os.kill(os.getpid(), signal.SIGINT)
    time.sleep(2)


@animal('MemoryError')
def runs_out_of_memory(subdir):
    soft, hard = resource.getrlimit(resource.RLIMIT_AS)
    used = int(Path('/proc/self/statm').read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (used + (64 << 20), hard))
    try:
        return len(bytearray(1 << 30))
    finally:
        resource.setrlimit(resource.RLIMIT_AS, (soft, hard))


@animal('RecursionError')
def recurses(subdir):
    return recurses(subdir)


# --- what outlives the run ------------------------------------------------------------


@animal('completed')
def forks_a_child_that_lives(subdir):
    pid = os.fork()
    if pid == 0:
        with contextlib.suppress(BaseException):
            time.sleep(2)
        os._exit(0)
    return 'parent'


@animal('completed')
def daemonises(subdir):
    pid = os.fork()
    if pid == 0:
        os.setsid()
        if os.fork() == 0:
            Path(subdir, 'daemon').write_text(str(os.getpid()))
            time.sleep(5)
        os._exit(0)
    os.waitpid(pid, 0)
    return 'parent'


@animal('completed')
def both_sides_of_a_fork_return(subdir):
    return 'child' if os.fork() == 0 else 'parent'


@animal('completed', 'ForkedOn')
def both_sides_of_a_fork_raise(subdir):
    side = os.fork()
    raise ForkedOn('child' if side == 0 else 'parent')


class ForkedOn(Exception):
    pass


@animal('completed')
def leaves_a_subprocess(subdir):
    subprocess.Popen(['sleep', '2'])
    return 1


@animal('completed')
def uses_multiprocessing(subdir):
    process = multiprocessing.get_context('fork').Process(target=print, args=('from a child',))
    process.start()
    process.join()
    return process.exitcode


@animal('completed')
def leaves_a_thread_that_prints(subdir):
    threading.Thread(target=lambda: (time.sleep(0.3), print('late')), daemon=True).start()
    return 1


@animal('completed')
def leaves_a_thread_that_is_no_daemon(subdir):
    threading.Thread(target=time.sleep, args=(1,)).start()
    return 1


@animal('completed')
def leaves_a_thread_that_raises(subdir):
    threading.Thread(target=lambda: 1 / 0).start()
    return 1


@animal('completed')
def leads_a_session(subdir):
    with contextlib.suppress(OSError):
        os.setsid()
    return 1


# --- descriptors, streams, folders ------------------------------------------------------------


@animal('completed')
def closes_1_and_2(subdir):
    for fd in (1, 2):
        with contextlib.suppress(OSError):  # by streams a caller has them closed for good by the first one
            os.close(fd)
    return 1


@animal('completed')
def closes_its_streams(subdir):
    sys.stdout.close()
    sys.stderr.close()
    return 1


@animal('completed', 'WorkerDied', 'OSError', 'Interrupted', 'ResourceError', kills=True)
def closes_everything(subdir):
    os.closerange(0, 4096)
    return 1


@animal('completed', 'WorkerDied', 'OSError', 'Interrupted', 'ResourceError', kills=True)
def points_everything_elsewhere(subdir):
    nowhere = os.open(os.devnull, os.O_RDWR)
    for fd in map(int, os.listdir('/proc/self/fd')):
        if fd != nowhere:
            with contextlib.suppress(OSError):
                os.dup2(nowhere, fd)
    return 1


@animal('completed')
def leaks_descriptors(subdir):
    for _ in range(50):
        os.open(os.devnull, os.O_RDONLY)
    return 1


@animal('completed')
def changes_folder(subdir):
    os.chdir('/')
    return 1


@animal('completed')
def stands_in_a_folder_that_is_gone(subdir):
    gone = Path(subdir, 'gone')
    gone.mkdir()
    os.chdir(gone)
    gone.rmdir()
    return 1


@animal('completed', heavy=True)
def prints_100_mb(subdir):
    for _ in range(100 if os.environ.get('ZOO_FULL') else 3):
        print('x' * (1 << 20))
    return 1


@animal('completed')
def prints_bytes(subdir):
    os.write(1, bytes(range(256)) * 100)
    sys.stdout.buffer.write(b'\xff\xfe')
    return 1


@animal('completed')
def has_no_stdout(subdir):
    sys.stdout = sys.stderr = None
    return 1


@animal('completed', 'RuntimeError')
def replaces_stdout(subdir):
    class Bad:
        def __getattr__(self, name):
            raise RuntimeError('no such thing')

    sys.stdout = sys.stderr = Bad()
    return 1


@animal('completed')
def changes_umask(subdir):
    os.umask(0o777)
    return 1


@animal('completed')
def deletes_the_index(subdir):
    base = Path(subdir).parent.parent.parent
    for name in ('index.sqlite3', 'index.sqlite3-wal', 'index.sqlite3-shm'):
        (base / name).unlink(missing_ok=True)
    return 1


@animal('completed')
def removes_storage(subdir):
    shutil.rmtree(subdir)
    return 1


@animal('completed', 'ResourceError', 'OSError', 'FileNotFoundError', 'Interrupted', None)
def removes_its_folder(subdir):
    shutil.rmtree(Path(subdir).parent)
    return 1


@animal('completed', 'ResourceError', 'OSError', 'FileNotFoundError', 'Interrupted', None)
def renames_its_folder(subdir):
    folder = Path(subdir).parent
    os.rename(folder, folder.with_name(folder.name + '.away'))
    return 1


@animal('completed', 'ResourceError', 'OSError')
def replaces_its_files(subdir):
    for path in Path(subdir).parent.glob('*.json'):
        path.unlink()
        path.mkdir()
    return 1


@animal('completed')
def writes_into_its_files(subdir):
    for path in Path(subdir).parent.glob('*.json'):
        path.write_bytes(b'\0' * 300)
    return 1


@animal('completed', 'PermissionError', 'OSError', 'ResourceError')
def forbids_its_folder(subdir):
    Path(subdir).parent.chmod(0)
    return 1


@animal('completed')
def links_storage_elsewhere(subdir):
    shutil.rmtree(subdir)
    os.symlink('/tmp', subdir.rstrip('/'))
    return 1


# --- results ------------------------------------------------------------


class Odd(dict):
    def items(self):
        raise RuntimeError('no items')


class Liar:
    @property
    def __class__(self):
        raise RuntimeError('no class')


def _nested(depth):
    value = []
    for _ in range(depth):
        value = [value]
    return value


def _cycle():
    value = []
    value.append(value)
    return value


RESULTS = {
    'an object': object,
    'a set': lambda: {1, 2},
    'bytes': lambda: b'\xff',
    'NaN': lambda: float('nan'),
    'infinity': lambda: [1e999],
    'a cycle': _cycle,
    'deep': lambda: _nested(100_000),
    'long int': lambda: 10**6000,
    'surrogate': lambda: '\ud800',
    'tuple keys': lambda: {(1, 2): 3},
    'generator': lambda: (n for n in 'ab'),
    'function': lambda: print,
    'complex': lambda: 1j,
    'module': lambda: os,
    'same keys': lambda: {1: 'a', '1': 'b'},
    'endless': lambda: itertools.count(),
    'odd dict': lambda: Odd(a=1),
    'liar': Liar,
    'class': lambda: Odd,
    'exception': lambda: ValueError('x'),
    'lock': threading.Lock,
    'range': lambda: range(3),
    'file': lambda: sys.stdin,
}


def _returner(name, value):
    def returns(subdir):
        return value()

    returns.__name__ = f'returns_{name.replace(" ", "_")}'
    animal('completed', 'ResultNotSerializable', 'RuntimeError')(returns)


for _name, _value in RESULTS.items():
    _returner(_name, _value)


# --- exceptions ------------------------------------------------------------


class Mute(Exception):
    def __str__(self):
        raise RuntimeError('no words')

    __repr__ = __str__


class Bottom(BaseException):
    pass


class Unpicklable(Exception):
    def __init__(self):
        super().__init__(threading.Lock(), lambda: 0)


class NeedsTwo(Exception):
    def __init__(self, one, two):
        super().__init__(f'{one} {two}')


def _raiser(name, make, *ends):
    def raises(subdir):
        raise make()

    raises.__name__ = f'raises_{name}'
    animal(*ends)(raises)


def _ring():
    one, two = ValueError('one'), KeyError('two')
    one.__cause__, two.__cause__ = two, one
    return one


def _local():
    return type('Local\x1b[31m\n', (Exception,), {'__module__': None})('x\ud800\0')


_raiser('mute', Mute, 'Mute')
_raiser('bottom', lambda: Bottom('deep'), 'Bottom')
_raiser('generator_exit', GeneratorExit, 'GeneratorExit')
_raiser('stop_iteration', lambda: StopIteration(5), 'StopIteration')
_raiser('huge', lambda: ValueError('x' * (20 << 20)), 'ValueError')
_raiser('unpicklable', Unpicklable, 'Unpicklable')
_raiser('needs_two', lambda: NeedsTwo(1, 2), 'NeedsTwo')
_raiser('ring', _ring, 'ValueError')
_raiser('odd_class', _local, None)
_raiser('group', lambda: BaseExceptionGroup('g', [KeyboardInterrupt(), ValueError(1)]), 'BaseExceptionGroup')
_raiser('no_exception', lambda: 5, 'TypeError')


# --- hanging ------------------------------------------------------------


@animal('TimedOut', hangs=True, kills=True)
def hangs(subdir):
    time.sleep(3600)


@animal('TimedOut', hangs=True, kills=True)
def hangs_and_is_deaf(subdir):
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    while True:
        with contextlib.suppress(BaseException):
            time.sleep(3600)


@animal('TimedOut', hangs=True, kills=True)
def stops_itself(subdir):
    os.kill(os.getpid(), signal.SIGSTOP)


@animal('TimedOut', hangs=True, kills=True)
def waits_for_a_child(subdir):
    subprocess.run(['sleep', '3600'])


@animal('TimedOut', hangs=True, kills=True)
def reads_stdin(subdir):
    while sys.stdin is not None:
        time.sleep(0.1)
