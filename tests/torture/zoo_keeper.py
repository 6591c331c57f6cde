"""A program: one executor, some animals, each so often among siblings; what came of it, in `answers`.

python zoo_keeper.py EXECUTOR TIMES ANIMAL…
"""

import contextlib
import json
import os
import shutil
import sys
import warnings
from pathlib import Path

import zoo

from hadrosaur import HadrosaurWarning, Project

TIMEOUT = 1.0


@contextlib.contextmanager
def executor_of(kind):
    """An executor by its name."""
    if kind == 'ThreadPoolExecutor':
        from concurrent.futures import ThreadPoolExecutor

        with ThreadPoolExecutor(2) as made:
            yield made
    elif kind == 'ProcessPoolExecutor':
        from concurrent.futures import ProcessPoolExecutor

        with ProcessPoolExecutor(2) as made:
            yield made
    elif kind == 'loky':
        import loky

        made = loky.ProcessPoolExecutor(2)
        yield made
        made.shutdown(wait=True, kill_workers=True)
    elif kind == 'dask':
        import logging

        import distributed

        with (
            distributed.LocalCluster(
                n_workers=2, threads_per_worker=1, dashboard_address=None, silence_logs=logging.CRITICAL
            ) as cluster,
            distributed.Client(cluster, set_as_default=False) as client,
        ):
            yield client
    else:
        yield kind


def seen(base, name, times, executor, kind):
    """What came of one animal and its siblings."""
    function = zoo.ANIMALS[name]
    with Project(base) as proj:
        proj.resource('zoo', timeout=TIMEOUT if function.hangs else None)(zoo.compute)
        work = []
        for number in range(times):
            work += [(f'sibling{number}', {}), (f'{name}{number}', {'animal': name})]
        work.append((f'sibling{times}', {}))
        batch = proj.fetch_many('zoo', work, executor=executor, workers=2)
        given = {}
        for res in batch:
            given.setdefault(res.ident, []).append([res.status, res.entry.error_type if res.entry else None])
        rows = {row.ident: [row.status, row.error_type] for row in proj.query('zoo')}
        problems = [str(found) for found in proj.check().findings]
        siblings = {}
        for number in range(times + 1):
            folder = Path(base, 'zoo', f'sibling{number}')
            files = [folder / 'result.json', folder / 'stdout.log', folder / 'stderr.log']
            siblings[folder.name] = [path.read_text() if path.exists() else None for path in files]
        daemons = [path.read_text() for path in Path(base).glob('zoo/*/storage/daemon')]
    return {
        'animal': name,
        'given': given,
        'rows': rows,
        'problems': problems,
        'siblings': siblings,
        'counts': list(batch.counts),
        'daemons': daemons,
    }


def main():
    """Run the animals on one executor."""
    kind, times, *names = sys.argv[1:]
    warnings.simplefilter('ignore', HadrosaurWarning)
    answer = open('answers', 'w')  # noqa: SIM115
    before = None
    home, streams = os.getcwd(), (sys.stdout, sys.stderr)
    with executor_of(kind) as executor:
        for name in ['', *names]:
            base = os.path.join(home, f'base-{name or "first"}')
            # What is left behind in the caller's own process is the caller's to mend.
            os.chdir(home)
            os.umask(0o022)
            sys.stdout, sys.stderr = streams
            if name:
                document = seen(base, name, int(times), executor, kind)
                answer.write(json.dumps(document) + '\n')
                answer.flush()
            else:
                with Project(base) as proj:  # what is imported and opened once
                    proj.resource('zoo')(zoo.compute)
                    proj.fetch_many('zoo', ['a', 'b', 'c'], executor=executor, workers=2).wait()
            now = {
                fd: os.readlink(f'/proc/self/fd/{fd}')
                for fd in os.listdir('/proc/self/fd')
                if os.path.islink(f'/proc/self/fd/{fd}')
            }
            mine = {fd: what for fd, what in now.items() if base in what}
            if mine:
                answer.write(json.dumps({'animal': name, 'left open': mine}) + '\n')
            before = before or len(now)
            if kind not in ('inline', 'threads') and len(now) > before + 4:
                answer.write(json.dumps({'animal': name, 'left open': [before, *now.values()]}) + '\n')
                before = len(now)
            with contextlib.suppress(OSError):
                for folder in Path(base).glob('zoo/*'):
                    folder.chmod(0o755)
            shutil.rmtree(base, ignore_errors=True)
    answer.write(json.dumps({'ended': True}) + '\n')
    answer.flush()


if __name__ == '__main__':
    main()
