"""P21: nothing that a function does to its process reaches another resource, and workers are as the program.

Each of the things that a function may leave behind, three times on each executor: the sibling that the same
worker computes next finds the process, prints, and leaves files with modes, as if it were alone. Inline and
in threads the process is the program's, as docs/howto/workers.md says: there the logs are apart, and the
program's own output goes on. And each of the things that a function may depend on, three times on each
executor: it finds what it finds inline.
"""

import json
import os
import shutil
import stat
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import HANG
from harness import IS_FULL, chance, child, count, ended
from test_last_words import BREAKS
from test_siblings import LEFT_BEHIND, look
from zoo_keeper import executor_of

from hadrosaur import Project

TIMES = count(3, quick=1)
EXECUTORS = ['processes', 'ThreadPoolExecutor', 'ProcessPoolExecutor', 'loky', 'dask']

MORE = {
    'a variable less': 'os.environ.pop("HOME", None)',
    'a thread': 'threading.Thread(target=time.sleep, args=(600,), daemon=True).start()',
    'a thread that prints': """
def late():
    while True:
        print("late")
        time.sleep(0.01)
threading.Thread(target=late, daemon=True).start()
""",
    'a child that goes on': 'os.fork() or os.execvp("sleep", ["sleep", "20"])',
    'an exit handler': '__import__("atexit").register(print, "at exit")',
    'a signal to come': 'signal.signal(14, lambda *a: 1 / 0); signal.setitimer(signal.ITIMER_REAL, 0.05)',
    'an exception hook of threads': 'threading.excepthook = print',
    'a line without its end': 'print("half", end="")',
    'a logger that is off': 'logging.disable(60); logging.root.setLevel(60)',
    'a profile of threads': 'threading.setprofile(None)',
    'many descriptors': 'sys.kept = [os.open(os.devnull, os.O_RDONLY) for _ in range(50)]',
    'a process group of a child': 'os.fork() or (os.setpgid(0, 0), os._exit(0))',
    'a deep recursion': 'sys.setrecursionlimit(10 ** 6)',
    'a hard limit of processes': 'resource.setrlimit(resource.RLIMIT_NPROC, (500, 500))',
    'a limit of memory': 'resource.setrlimit(resource.RLIMIT_AS, (1 << 33, resource.getrlimit(9)[1]))',
    'a root filter': 'logging.root.addFilter(lambda record: False)',
    'another showwarning': 'warnings.showwarning = lambda *a: None',
    'all at once': 'os.chdir("/"); os.umask(0); sys.stdout.close(); logging.disable(60); gc.disable()',
}
BROKEN = {f'stream {what}': code for what, code in BREAKS.items() if 'Hostile' not in code}
ALL = {**LEFT_BEHIND, **MORE, **BROKEN}


def modes(res):
    """Permissions of a resource's folder and files."""
    base = res.paths['base']
    names = ['', 'status.json', 'result.json', 'record.json', 'stdout.log', 'stderr.log', 'storage']
    return {name: stat.filemode(os.stat(f'{base}/{name}').st_mode) for name in names}


def told(res):
    """What came of a sibling: its result, its logs, its modes."""
    with open(res.paths['stdout']) as out, open(res.paths['stderr']) as err:
        return {'result': res.result, 'out': out.read(), 'err': err.read(), 'modes': modes(res)}


@pytest.mark.parametrize('kind', EXECUTORS if IS_FULL else EXECUTORS[:1])
def test_siblings_are_as_if_alone(tmp_path, record, kind):
    """Result, logs, modes and all that can be seen of the process: the same as of a resource alone."""
    chosen = chance()
    names = list(ALL) if IS_FULL else chosen.sample(list(ALL), 6)
    different = []
    with executor_of(kind) as executor, Project(tmp_path / 'base') as proj:
        proj.resource('coll')(look)
        [alone] = proj.fetch_many('coll', ['sibling'], workers=1, executor=executor)
        expected = told(alone)
        for name in names:
            for time in range(TIMES):
                collection = f'{name} {time}'
                proj.resource(collection)(look)
                idents = [('first', {'leave': ALL[name]}), ('sibling', {})]
                found = {
                    res.ident: res
                    for res in proj.fetch_many(collection, idents, workers=1, executor=executor)
                }
                if found['sibling'].status != 'completed':
                    different.append((name, found['sibling'].error))
                elif (seen := told(found['sibling'])) != expected:
                    differences = {
                        key: (seen[key], expected[key]) for key in expected if seen[key] != expected[key]
                    }
                    different.append((name, differences))
    record('P21', len(names) * TIMES, len(different), f'{kind}: {len(names) * TIMES}')
    assert different == []


HERE = Path(__file__).parent
OF_THE_PROGRAM = {
    'an alarm', 'a traceback to come', 'a signal to come',  # end it
    'a limit of file sizes', 'an effective user', 'a builtin', 'no builtin', 'a hard limit of processes',
    'a folder that is gone', 'stdin replaced', 'hooks of generators',  # which the sibling asks for
    'all at once',
}  # fmt: skip
"""What a program does to itself, and to all that it computes later, inline or in a thread."""
OF_ITS_THREADS = {
    'stdout gone', 'stdout None', 'stdout closed', 'stderr replaced', 'descriptor 1 closed',
    'descriptor 1 replaced',
    'a timer', 'signal handlers', 'real-time signals', 'a descriptor that wakes', 'stdout patched',
}  # fmt: skip
"""What is one for all threads, so that nobody can say whose it is, or what only the main thread may do."""


@pytest.mark.parametrize('kind', ['inline', 'threads'])
def test_logs_are_apart_where_the_process_is_the_programs(tmp_path, record, kind):
    """The sibling's log is its own, both get a final state, and the program goes on printing where it did."""
    names = [name for name in ALL if name not in OF_THE_PROGRAM]
    if kind == 'threads':
        names = [name for name in names if name not in OF_ITS_THREADS and name not in BROKEN]
    names = names if IS_FULL else chance().sample(names, 6)
    different = []
    for number in range(len(names) * TIMES):
        name = names[number % len(names)]
        folder = tmp_path / str(number)
        folder.mkdir()
        ended([child(in_a_program, folder, kind, ALL[name])])
        seen = json.loads((folder / 'seen').read_text())
        seen['own'] = (folder / 'own').read_text().replace('late\n', '')  # of a thread that was left behind
        expected = {
            'states': ['completed', 'completed'],
            'out': 'sibling was here\n',
            'err': '',
            'own': 'mine\n',
        }
        if seen != expected:
            different.append((name, {key: seen[key] for key in expected if seen[key] != expected[key]}))
    record('P21', len(names) * TIMES, len(different), f'{kind}: {len(names) * TIMES}')
    assert different == []


def in_a_program(folder, kind, code):
    """In a forked child: two resources, the first leaves something behind; then a line of its own."""
    os.dup2(os.open(folder / 'own', os.O_WRONLY | os.O_CREAT), 1)
    sys.stdout = os.fdopen(1, 'w', closefd=False)
    proj = Project(folder / 'base')
    proj.resource('coll')(look)
    found = {
        res.ident: res
        for res in proj.fetch_many('coll', [('first', {'leave': code}), 'sibling'], workers=1, executor=kind)
    }
    proj.close()
    seen = {'states': [found[ident].status for ident in ('first', 'sibling')]}
    for name, log in (('out', 'stdout'), ('err', 'stderr')):
        seen[name] = Path(found['sibling'].paths[log]).read_text()
    (folder / 'seen').write_text(json.dumps(seen))
    if sys.stdout is not None:
        print('mine', flush=True)
    os._exit(0)


@pytest.mark.parametrize('kind', [*EXECUTORS, 'threads'] if IS_FULL else EXECUTORS[:1])
def test_a_function_finds_what_it_finds_inline(tmp_path, record, kind):
    """Settings, streams, code, classes, signals, processes of its own: all but named ones."""
    shutil.copy(HERE / 'as_inline.py', tmp_path)
    environment = {**os.environ, 'PYTHONHASHSEED': '7'}
    environment['PYTHONPATH'] = os.pathsep.join([str(HERE), *sys.path[:1], os.environ.get('PYTHONPATH', '')])
    done = subprocess.run(
        [sys.executable, 'as_inline.py', kind, str(TIMES)],
        cwd=tmp_path,
        env=environment,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=HANG,
    )
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    named = NAMED.get(kind, set())
    different = {what: seen for what, seen in found.items() if len(set(seen)) > 1 and what not in named}
    wrong = {
        what: seen[0] for what, seen in found.items() if 'Traceback' in seen[0] and what != 'a traceback'
    }
    record('P21', len(found) * TIMES, len(different), f'as inline, {kind}: {len(found) * TIMES}')
    assert wrong == {}
    assert different == {}


NAMED = {
    'threads': {
        'the main thread', 'an alarm', 'a handler of signals',
        'decimal precision', 'decimal rounding', 'decimal traps',
    },
    'dask': {'the hash of text'},
}  # fmt: skip
"""The page for people names them."""
