"""A program: what a function finds inline and in workers, after the program has set up its interpreter.

python as_inline.py EXECUTOR TIMES: prints, as JSON, for each thing what was found inline, and there.
"""

import contextlib
import decimal
import json
import locale
import os
import socket
import sys
import warnings

GREETING = 'hello'


class Own:
    """A class of the program's own."""

    x: 'Own | None' = None

    def __init__(self, x):
        self.x = x

    def __eq__(self, other):
        return type(other) is Own and other.x == self.x

    __hash__ = None


def helper(n):
    """A function of the program's own."""
    return n and helper(n - 1) + 1


async def waited(n):
    """A coroutine of the program's own."""
    import asyncio

    await asyncio.sleep(0)
    return n


def caught(action):
    """What it raises."""
    try:
        return repr(action())
    except BaseException as error:
        return f'{type(error).__name__}: {error}'


DEPENDS = {
    'argv': 'sys.argv',
    'the current folder': 'os.getcwd()',
    'a module beside the program': 'module_of("beside_the_program").VALUE',
    'a module on a path that was added': 'module_of("added_by_the_program").VALUE',
    'the environment': '{k: v for k, v in os.environ.items() if not k.endswith("_THREADS")}',
    'a variable that was set': 'os.environ["OF_THE_PROGRAM"]',
    'a variable that was deleted': 'os.environ.get("LANGUAGE")',
    'umask': '(os.umask(0o77), os.umask(0o27))[0]',
    'limits': '[resource.getrlimit(n) for n in range(10)]',
    'priority': 'os.nice(0)',
    'processors': 'sorted(os.sched_getaffinity(0))',
    'the user': '(os.getresuid(), os.getresgid(), os.getgroups())',
    'the time zone': '(time.tzname, time.strftime("%z", time.localtime(0)))',
    'the temporary folder': 'tempfile.gettempdir()',
    'a global': 'GREETING',
    'a global that was changed later': 'LATER',
    'a class of its own': 'pickle.loads(pickle.dumps(Own(1))) == Own(1)',
    'its name': '(Own.__module__, Own.__qualname__, helper.__module__)',
    'its type hints': 'str(typing.get_type_hints(Own)).replace("types.", "")',
    'its source': 'inspect.getsource(helper)',
    'the name of the program': '(__name__, sys.modules["__main__"].__name__)',
    'a copy': 'copy.deepcopy(Own([1])) == Own([1])',
    'a coroutine': 'asyncio.run(waited(3))',
    'deep recursion': 'helper(5000)',
    'the recursion limit': 'sys.getrecursionlimit()',
    'the switch interval': 'sys.getswitchinterval()',
    'garbage collection': '(gc.isenabled(), gc.get_threshold())',
    'long numbers': 'len(str(10 ** 5000))',
    'decimal precision': 'str(decimal.Decimal(1) / 3)',
    'decimal rounding': 'str(round(decimal.Decimal("2.675") * 1, 2)), decimal.getcontext().rounding',
    'decimal traps': 'caught(lambda: decimal.Decimal(1) / 0)',
    'the locale': '(locale.setlocale(locale.LC_ALL), f"{1234567:n}")',
    'a warning that is an error': 'caught(lambda: warnings.warn("bad", FutureWarning))',
    'a warning that is ignored': 'caught(lambda: warnings.warn("fine", RuntimeWarning))',
    'the time-out of sockets': 'socket.getdefaulttimeout()',
    'flags': 'tuple(sys.flags)',
    'options': '(sys.warnoptions, sys._xoptions)',
    'the interpreter': '(sys.executable, sys.prefix, sys.version, sys.flags.optimize)',
    'encodings': '(sys.getdefaultencoding(), sys.getfilesystemencoding(), locale.getpreferredencoding())',
    'encoding of output': '(sys.stdout.encoding, sys.stdout.errors, sys.stderr.encoding)',
    'line buffering': '(sys.stdout.line_buffering, sys.stderr.line_buffering)',
    'terminals': '[os.isatty(n) for n in range(3)]',
    'standard input': 'sys.stdin.read()',
    'the main thread': 'threading.current_thread() is threading.main_thread()',
    'the name of the process': 'multiprocessing.current_process().name',
    'may it have children': 'multiprocessing.current_process().daemon',
    'how children are started': 'multiprocessing.get_start_method()',
    'a child': 'subprocess.run(["echo", "hi"], capture_output=True, text=True).stdout',
    'a forked child': 'os.waitpid(os.fork() or os._exit(3), 0)[1]',
    'a thread of its own': 'concurrent.futures.ThreadPoolExecutor(2).submit(helper, 3).result()',
    'a process of its own': 'processes_of_its_own()',
    'an alarm': 'rung()',
    'a handler of signals': 'caught(lambda: signal.signal(signal.SIGUSR2, signal.SIG_DFL))',
    'signals that wait': 'sorted(signal.pthread_sigmask(signal.SIG_BLOCK, ()))',
    'tracing': '(sys.gettrace(), sys.getprofile())',
    'a traceback': 'traceback_of()',
    'an exit': 'caught(lambda: sys.exit(3))',
    'assertions': '__debug__',
    'a database in memory': 'sqlite3.connect(":memory:").execute("select 1").fetchone()',
    'a text of another order': 'sorted("äb", key=locale.strxfrm)',
    'descriptors that are open': '[os.fstat(n) is None for n in (0, 1, 2)]',
    'the hash of text': 'hash(GREETING)',
}


def processes_of_its_own():
    """A pool of the function's own, in whatever way the program starts processes."""
    import multiprocessing

    with multiprocessing.get_context('fork').Pool(1) as pool:
        return pool.map(abs, [-1, 2])


def rung():
    """An alarm that rings in the function."""
    import signal
    import time

    rings = []
    signal.signal(signal.SIGALRM, lambda *_: rings.append(1))
    signal.setitimer(signal.ITIMER_REAL, 0.01)
    while not rings:
        time.sleep(0.001)
    return rings


def traceback_of():
    """The traceback of an error of its own, from the line that calls."""
    import traceback

    try:
        return Own(1) / 0
    except TypeError:
        return traceback.format_exc()


def module_of(name):
    """A module by its name."""
    import importlib

    return importlib.import_module(name)


def compute(ident, args, subdir):
    """What is found, as text."""
    import asyncio  # noqa: F401
    import concurrent.futures  # noqa: F401
    import copy  # noqa: F401
    import gc  # noqa: F401
    import inspect  # noqa: F401
    import multiprocessing  # noqa: F401
    import pickle  # noqa: F401
    import resource  # noqa: F401
    import signal  # noqa: F401
    import sqlite3  # noqa: F401
    import subprocess  # noqa: F401
    import tempfile  # noqa: F401
    import threading  # noqa: F401
    import time  # noqa: F401
    import traceback  # noqa: F401
    import typing  # noqa: F401

    print(ident)
    used = [Own, helper, waited, caught, processes_of_its_own, rung, traceback_of, module_of]
    assert [*used, sys, os, socket, decimal, locale, warnings, GREETING, LATER]  # so they travel
    return repr(eval(args['what'], {**globals(), **locals()}))


def set_up():
    """What a program may do at its start."""
    for name, folder in (('beside_the_program', '.'), ('added_by_the_program', 'added')):
        os.makedirs(folder, exist_ok=True)
        with open(f'{folder}/{name}.py', 'w') as module:
            module.write(f'VALUE = {name!r}\n')
    sys.path.append(os.path.abspath('added'))
    os.environ['OF_THE_PROGRAM'] = 'set'
    os.environ.pop('LANGUAGE', None)
    os.umask(0o27)
    sys.argv.append('--more')
    sys.setrecursionlimit(20_000)
    sys.setswitchinterval(0.002)
    sys.set_int_max_str_digits(0)
    import gc

    gc.set_threshold(900, 11, 12)
    gc.disable()
    decimal.getcontext().prec = 40
    decimal.getcontext().rounding = decimal.ROUND_DOWN
    decimal.getcontext().traps[decimal.DivisionByZero] = False
    socket.setdefaulttimeout(12.5)
    warnings.simplefilter('error', FutureWarning)
    warnings.filterwarnings('ignore', 'fine')
    with contextlib.suppress(locale.Error):
        locale.setlocale(locale.LC_ALL, 'C.UTF-8')
    import multiprocessing

    multiprocessing.set_start_method('spawn')


def main(kind, times):
    """Compare, and print."""
    from zoo_keeper import executor_of

    from hadrosaur import Project

    found = {}
    with executor_of(kind) as executor, Project('base') as proj:
        for name in ('here', *map(str, range(times))):
            proj.resource(f'coll{name}')(compute)
        asked = {what: {'what': code} for what, code in DEPENDS.items()}
        for res in proj.fetch_many('collhere', asked, executor='inline'):
            found[res.ident] = [res.result or res.error]
        for time in range(times):
            for res in proj.fetch_many(f'coll{time}', asked, executor=executor, workers=1):
                found[res.ident].append(res.result or res.error)
    return found


LATER = None
if __name__ == '__main__':
    set_up()
    LATER = 'set when the functions were defined'
    if sys.argv[1] in ('loky', 'dask'):  # these pools start processes of their own in this way
        import multiprocessing

        multiprocessing.set_start_method('forkserver' if sys.argv[1] == 'loky' else 'spawn', force=True)
    print(json.dumps(main(sys.argv[1], int(sys.argv[2]))))
