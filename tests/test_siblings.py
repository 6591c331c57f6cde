"""What a function does to its worker process does not reach the next resource that it computes."""

import os
from pathlib import Path

import pytest


def look(ident, args, subdir):
    """The process as the function finds it, after it has done to it what ``args`` says."""
    import builtins
    import decimal
    import faulthandler
    import gc
    import io
    import locale
    import logging
    import resource
    import signal
    import socket
    import sys
    import tempfile
    import threading
    import time
    import warnings

    umask = os.umask(0o22)
    os.umask(umask)
    seen = {
        'handlers': [repr(signal.getsignal(n)).split(' at ')[0] for n in (2, 10, 12, 13, 14, 15, 34)],
        'mask': sorted(signal.pthread_sigmask(signal.SIG_BLOCK, ())),
        'timers': [signal.getitimer(n)[0] > 0 for n in (0, 1, 2)],
        'umask': umask,
        'folder': os.getcwd(),
        'limits': [resource.getrlimit(n) for n in range(10)],
        'ids': (os.getuid(), os.geteuid(), os.getgid(), os.getegid()),
        'nice': os.nice(0),
        'processors': sorted(os.sched_getaffinity(0)),
        'stdin': sys.stdin.name,
        'streams': (sys.stdout.name, sys.stderr.name, sys.stdout.encoding, sys.stdout.line_buffering),
        'hooks': (sys.excepthook is sys.__excepthook__, sys.displayhook is sys.__displayhook__),
        'argv': sys.argv,
        'recursion': sys.getrecursionlimit(),
        'switching': sys.getswitchinterval(),
        'traced': (sys.gettrace() is None, sys.getprofile() is None),
        'collecting': gc.isenabled(),
        'crashes are told': faulthandler.is_enabled(),
        'root': (len(logging.root.handlers), logging.root.level, logging.root.manager.disable),
        'warnings': [str(given) for given in warnings.filters],
        'locale': locale.setlocale(locale.LC_ALL),
        'decimal': str(decimal.getcontext()),
        'socket': socket.getdefaulttimeout(),
        'builtins': sorted(vars(builtins)),
        'more hooks': (
            sys.breakpointhook is sys.__breakpointhook__,
            threading.excepthook is threading.__excepthook__,
            sys.get_asyncgen_hooks().firstiter,
            len(gc.callbacks),
            threading.current_thread() is threading.main_thread() and signal.set_wakeup_fd(-1),
        ),
        'settings': (
            sys.get_int_max_str_digits(),
            sys.getdlopenflags(),
            getattr(sys, 'tracebacklimit', None),
            gc.get_threshold(),
            threading.stack_size(),
        ),
        'logging': (logging.raiseExceptions, logging.lastResort is None, logging.getLoggerClass().__name__),
        'scheduling': (os.sched_getscheduler(0), os.getgroups()),
        'len': builtins.len is ''.__len__ or builtins.len('abc'),
    }
    print(ident, 'was here')
    exec(
        args.get('leave', ''),
        {
            'os': os, 'sys': sys, 'io': io, 'signal': signal, 'resource': resource, 'logging': logging,
            'locale': locale, 'decimal': decimal, 'socket': socket, 'builtins': builtins,
            'warnings': warnings, 'gc': gc,
            'faulthandler': faulthandler, 'threading': threading, 'time': time, 'tempfile': tempfile,
            'subdir': subdir,
        },
    )  # fmt: skip
    return seen


LEFT_BEHIND = {
    'an alarm': 'signal.signal(signal.SIGALRM, signal.SIG_DFL); signal.alarm(1)',
    'a timer': 'signal.signal(signal.SIGPROF, print); signal.setitimer(signal.ITIMER_PROF, 0.01, 0.01)',
    'a traceback to come': 'faulthandler.dump_traceback_later(0.2, exit=True)',
    'a registered traceback': 'faulthandler.register(signal.SIGUSR1)',
    'no fault handler': 'faulthandler.disable()',
    'umask': 'os.umask(0o077)',
    'a folder': 'os.chdir("/")',
    'a folder that is gone': 'd = tempfile.mkdtemp(); os.chdir(d); os.rmdir(d)',
    'a soft limit': 'h = resource.getrlimit(7)[1]; resource.setrlimit(7, (64, h))',
    'a hard limit': 'resource.setrlimit(resource.RLIMIT_CORE, (0, 0))',
    'a limit of file sizes': 'h = resource.getrlimit(1)[1]; resource.setrlimit(1, (10, h))',
    'a priority': 'os.nice(5)',
    'one processor': 'os.sched_setaffinity(0, [min(os.sched_getaffinity(0))])',
    'signal handlers': '[signal.signal(n, signal.SIG_IGN) for n in (2, 10, 13, 15)]',
    'real-time signals': 'signal.signal(signal.SIGRTMIN, signal.SIG_IGN)',
    'a signal mask': 'signal.pthread_sigmask(signal.SIG_BLOCK, [10, 12, 15])',
    'stdout closed': 'sys.stdout.close()',
    'stdout None': 'sys.stdout = None',
    'stdout gone': 'del sys.stdout',
    'stderr replaced': 'sys.stderr = open(os.devnull, "w")',
    'stdin closed': 'sys.stdin.close()',
    'stdin replaced': 'import io; sys.stdin = io.StringIO("text")',
    'descriptor 1 closed': 'os.close(1)',
    'descriptor 0 closed': 'os.close(0)',
    'descriptor 1 replaced': 'os.dup2(os.open(os.devnull, os.O_WRONLY), 1)',
    'hooks': 'sys.excepthook = sys.displayhook = print',
    'argv': 'sys.argv[:] = ["other"]',
    'recursion limit': 'sys.setrecursionlimit(4000)',
    'switch interval': 'sys.setswitchinterval(0.5)',
    'a tracer': 'sys.settrace(lambda *a: None)',
    'a profiler': 'sys.setprofile(lambda *a: None)',
    'no garbage collection': 'gc.disable()',
    'a root handler': 'logging.basicConfig(level=10, filename=subdir + "/log")',
    'a root level': 'logging.root.setLevel(50)',
    'logging disabled': 'logging.disable(50)',
    'warnings as errors': 'warnings.simplefilter("error")',
    'warnings off': 'warnings.resetwarnings()',
    'a locale': 'locale.setlocale(locale.LC_ALL, "C")',
    'decimal precision': 'decimal.getcontext().prec = 3',
    'a socket timeout': 'socket.setdefaulttimeout(0.001)',
    'a builtin': 'builtins.len = lambda x: 7',
    'a new builtin': 'builtins.profile = lambda f: f',
    'no builtin': 'del builtins.sorted',
    'a debugger': 'sys.breakpointhook = print',
    'a hook of threads': 'threading.excepthook = print',
    'hooks of generators': 'sys.set_asyncgen_hooks(firstiter=print)',
    'hooks of the collector': 'gc.callbacks.append(lambda *a: None)',
    'a threshold of the collector': 'gc.set_threshold(1)',
    'a descriptor that wakes': 'w = os.pipe()[1]; os.set_blocking(w, False); signal.set_wakeup_fd(w)',
    'long numbers': 'sys.set_int_max_str_digits(0)',
    'flags of libraries': 'sys.setdlopenflags(257)',
    'short tracebacks': 'sys.tracebacklimit = 0',
    'a small stack': 'threading.stack_size(1 << 20)',
    'a class of loggers': 'logging.setLoggerClass(type("Own", (logging.Logger,), {}))',
    'silent logging': 'logging.raiseExceptions = False; logging.lastResort = None',
    'another scheduler': 'os.sched_setscheduler(0, os.SCHED_BATCH, os.sched_param(0))',
    'stdout patched': 'sys.stdout.write = None',
    'every descriptor': """
sys.kept_by_the_test = []
try:
    while True:
        sys.kept_by_the_test.append(os.open(os.devnull, os.O_RDONLY))
except OSError:
    pass
""",
}  # fmt: skip
if os.getuid() == 0:
    LEFT_BEHIND['other groups'] = 'os.setgroups([1, 2])'
    LEFT_BEHIND['an effective user'] = 'os.setegid(65534); os.seteuid(65534)'


@pytest.fixture(scope='module')
def alone(tmp_path_factory):
    """What a resource sees and prints that a worker computes first."""
    from hadrosaur import Project

    with Project(tmp_path_factory.mktemp('alone') / 'base') as project:
        project.resource('coll')(look)
        [res] = project.fetch_many('coll', ['second'], workers=1)
        assert res.status == 'completed', res.error
        return res.result


@pytest.fixture(scope='module')
def found(tmp_path_factory):
    """Each thing that is left behind, and the resource that the same worker computes after it."""
    from hadrosaur import Project

    with Project(tmp_path_factory.mktemp('siblings') / 'base') as project:
        project.resource('coll')(look)
        idents = {}
        for what, code in LEFT_BEHIND.items():
            idents[f'{what}, first'] = {'leave': code}
            idents[f'{what}, second'] = {}
        return {res.ident: res for res in project.fetch_many('coll', idents, workers=1)}


@pytest.mark.parametrize('what', LEFT_BEHIND)
def test_what_a_function_leaves_behind_does_not_reach_the_next(found, alone, what):
    """The next resource finds the process, and its logs, as if it had been the first."""
    for ident in (f'{what}, first', f'{what}, second'):
        assert found[ident].status == 'completed', found[ident].error
        assert Path(found[ident].paths['stdout']).read_text() == f'{ident} was here\n'
    assert found[f'{what}, second'].result == alone
    assert Path(found[f'{what}, second'].paths['stderr']).read_text() == ''


@pytest.mark.skipif(os.getuid() != 0, reason='only root can become another user')
def test_a_worker_that_has_become_another_user_is_replaced(proj, alone):
    """It cannot become the first again, nor write what its own run returned; the next is not concerned."""
    proj.resource('coll')(look)
    idents = {'first': {'leave': 'os.setgid(65534); os.setuid(65534)'}, 'second': {}}
    found = {res.ident: res for res in proj.fetch_many('coll', idents, workers=1)}
    assert found['second'].status == 'completed', found['second'].error
    assert found['second'].result == alone


def test_a_worker_whose_state_cannot_be_put_back_is_replaced(proj):
    """By a new one, before the next resource is computed."""

    def compute(ident, args, subdir):
        print(os.getpid())
        if os.getuid() == 0:  # who could put back all but this
            os.setuid(65534)
        else:
            os.nice(3)

    proj.resource('coll')(compute)
    batch = proj.fetch_many('coll', ['first', 'second'], workers=1)
    assert len({Path(res.paths['stdout']).read_text() for res in batch}) == 2


def test_what_is_meant_to_stay_stays(proj):
    """Environment variables, imported modules and what they hold: a model that is loaded once serves all."""

    def compute(ident, args, subdir):
        import colorsys  # a module that nobody else needs

        before = os.environ.get('OF_THE_FIRST'), getattr(colorsys, 'model', None)
        os.environ['OF_THE_FIRST'] = colorsys.model = 'loaded'
        return before

    proj.resource('coll')(compute)
    results = [res.result for res in proj.fetch_many('coll', ['first', 'second'], workers=1)]
    assert results == [[None, None], ['loaded', 'loaded']]


def test_workers_are_let_go_as_programs_end(program, tmp_path):
    """Exit handlers run, buffers are written, temporary folders are removed; what a run started lives on."""
    program(
        """
        import os, sys
        from hadrosaur import Project
        proj = Project('base')

        @proj.resource('coll')
        def compute(ident, args, subdir):
            import atexit, subprocess, tempfile
            here = args['here']
            keep = sys.modules.setdefault('kept_by_the_test', type(sys)('kept_by_the_test'))
            keep.folder = tempfile.TemporaryDirectory(dir=here)
            keep.journal = open(f'{here}/journal', 'w')
            print('a line', file=keep.journal)
            atexit.register(lambda: open(f'{here}/exited', 'w').close())
            with open(f'{here}/child', 'w') as told:
                print(subprocess.Popen(['sleep', '600']).pid, file=told)
            return keep.folder.name

        [res] = proj.fetch_many('coll', ['a'], {'here': os.getcwd()}, workers=1)
        assert open('journal').read() == 'a line\\n'
        assert os.path.exists('exited') and not os.path.exists(res.result)
        os.kill(int(open('child').read()), 9)  # raises where it is gone
        proj.close()
        """
    )


def test_a_worker_that_does_not_end_is_killed(program):
    """It was asked to go, and had a moment: a thread of the function's that never ends holds up nobody."""
    program(
        """
        import os, threading
        from hadrosaur import Project
        proj = Project('base')

        @proj.resource('coll')
        def compute(ident, args, subdir):
            threading.Thread(target=threading.Event().wait).start()
            return os.getpid()

        [res] = proj.fetch_many('coll', ['a'], workers=1)
        proj.close()
        try:
            os.kill(res.result, 0)
        except ProcessLookupError:
            pass
        else:
            raise SystemExit('it is still there')
        """
    )


def test_logging_of_a_function_works_in_a_worker_as_anywhere(proj):
    """basicConfig in the function is no no-op, and holds for its own run; else a default shows records."""

    def compute(ident, args, subdir):
        import logging

        if args['configures']:
            logging.basicConfig(level=logging.DEBUG, format='OWN %(message)s')
        logging.debug('a detail')
        logging.warning('a warning')

    proj.resource('coll')(compute)
    idents = [(ident, {'configures': ident in 'ac'}) for ident in 'abc']
    logs = {
        res.ident: Path(res.paths['stderr']).read_text() for res in proj.fetch_many('coll', idents, workers=1)
    }
    assert logs['a'] == logs['c'] == 'OWN a detail\nOWN a warning\n'
    assert logs['b'] == 'WARNING:root:a warning\n'


def test_what_modules_and_functions_hold_is_finalised(program, tmp_path):
    """Objects of a module and of the script end with the worker, while what they need is still there."""
    (tmp_path / 'holds.py').write_text(
        'import json, os, weakref\n'
        'class Ends:\n'
        '    def __init__(self, path): self.path = path\n'
        '    def __del__(self):\n'
        '        with open(self.path, "w") as file: json.dump(sorted(os.environ)[:0], file)\n'
        'here = os.getcwd()\n'
        'held = Ends(f"{here}/of_a_module")\n'
        'ring = [Ends(f"{here}/of_a_ring")]; ring.append(ring)\n'
        'weakref.finalize(held, open, f"{here}/finalised", "w")\n'
    )
    program(
        """
        import os, sys
        from hadrosaur import Project
        proj = Project('base')
        kept = {}

        @proj.resource('coll')
        def compute(ident, args, subdir):
            import holds
            kept['x'] = holds.Ends('of_the_script')
            kept['file'] = open('written', 'w')
            kept['file'].write('a front of a line')
            if args['foreign']:
                import sqlite3  # whose library may have exit handlers
            return sorted(sys.modules)[:0]

        names = ['of_a_module', 'of_a_ring', 'of_the_script', 'finalised', 'written']
        for foreign in (False, True):
            for res in proj.fetch_many('coll', [str(foreign)], {'foreign': foreign}, workers=1):
                assert res.status == 'completed', res.error
            assert open('written').read() == 'a front of a line'
            for name in names[foreign and 3:]:  # at the end of an interpreter not all is finalised
                os.unlink(name)
        """
    )
