"""P21: nothing that a function does to its process reaches another resource, in any kind of worker.

Each of the things that a function may leave behind, three times on each executor that computes in worker
processes: the sibling that the same worker computes next finds the process, prints, and leaves files with
modes, as if it were alone.
"""

import os
import stat

import pytest
from harness import IS_FULL, chance, count
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
    'real-time signals': 'signal.signal(signal.SIGRTMIN, signal.SIG_IGN)',
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
