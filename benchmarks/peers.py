"""Other programs that keep what was computed, at the same work, as their documentation would have it.

Each is made in a fresh folder. ``compute`` makes the results, ``read`` fetches them again, ``count`` says
how many are there; ``compute_on_two`` is the same with two processes. A library that is not installed
raises ImportError, and the table says so. What they leave differs: none but hadrosaur has logs, a status,
a result and an index.
"""

import importlib.util
import json
import multiprocessing
import os
from concurrent.futures import ProcessPoolExecutor

from .floors import CHUNK
from .harness import Skipped
from .work import work


class DiskCache:
    """One row each, no files."""

    name = 'diskcache'
    share = 1.0

    def __init__(self, place):
        import diskcache

        self._cache = diskcache.Cache(place)

    def compute(self, names):
        for name in names:
            self._cache[name] = work(name, {}, '')

    def read(self, names):
        for name in names:
            self._cache[name]

    def count(self):
        return len(self._cache)

    def close(self):
        self._cache.close()


class Joblib:
    """joblib.Memory: two files each."""

    name = 'joblib'
    share = 1.0

    def __init__(self, place):
        import joblib

        self._place = place
        self._function = joblib.Memory(place, verbose=0).cache(work, ignore=['subdir'])

    def compute(self, names):
        for name in names:
            self._function(name, {}, '')

    def compute_on_two(self, names):
        from joblib import Parallel, delayed

        Parallel(n_jobs=2)(delayed(self._function)(name, {}, '') for name in names)

    read = compute

    def count(self):
        return sum('output.pkl' in files for _, _, files in os.walk(self._place))

    def close(self):
        """Its worker processes wait for more; the next round has new ones."""
        from joblib.externals.loky import get_reusable_executor

        get_reusable_executor().shutdown()


class Signac:
    """Two JSON files each; the document takes the result."""

    name = 'signac'
    share = 1.0

    def __init__(self, place):
        import signac

        self.place = place
        self.project = signac.init_project(place)

    def compute(self, names):
        for name in names:
            job = self.project.open_job({'ident': name}).init()
            job.document.update(work(name, {}, job.path))

    def compute_on_two(self, names):
        chunks = [names[start : start + CHUNK] for start in range(0, len(names), CHUNK)]
        with ProcessPoolExecutor(2, multiprocessing.get_context('fork')) as pool:
            list(pool.map(_signac_chunk, [self.place] * len(chunks), chunks))

    def read(self, names):
        for name in names:
            self.project.open_job({'ident': name}).document()

    def count(self):
        return len(self.project)

    def close(self):
        """Nothing is held."""


def _signac_chunk(place, names):
    import signac

    project = signac.get_project(place)
    for name in names:
        job = project.open_job({'ident': name}).init()
        job.document.update(work(name, {}, job.path))


class Doit:
    """Values in its own database."""

    name = 'doit'
    share = 1.0

    def __init__(self, place):
        from doit.cmd_base import ModuleTaskLoader
        from doit.doit_cmd import DoitMain

        self._place = place
        self._loader, self._main = ModuleTaskLoader, DoitMain
        self._done = 0

    def compute(self, names, *more):
        from doit.tools import run_once

        def task_item():
            for name in names:
                yield {'name': name, 'actions': [(work, [name, {}, ''])], 'uptodate': [run_once]}

        config = {'dep_file': f'{self._place}/doit', 'verbosity': 0, 'reporter': 'zero'}
        loader = self._loader({'DOIT_CONFIG': config, 'task_item': task_item})
        if self._main(loader).run(['run', *more]) == 0:
            self._done = len(names)

    def compute_on_two(self, names):
        self.compute(names, '-n', '2')

    read = compute

    def count(self):
        return self._done

    def close(self):
        """Nothing is held."""


class Huey:
    """A task queue in SQLite whose consumer is this process; as durable as hadrosaur, so without fsync."""

    name = 'huey'
    share = 0.5

    def __init__(self, place):
        import huey

        self._queue = huey.SqliteHuey(filename=f'{place}/huey.sqlite3', fsync=False)
        self._task = self._queue.spec()(work)

    def compute(self, names):
        for name in names:
            self._task(name, {}, '')
            self._queue.execute(self._queue.dequeue())

    def count(self):
        return self._queue.result_count()

    def close(self):
        self._queue.storage.close()


class Luigi:
    """A JSON file each."""

    name = 'luigi'
    share = 0.03

    def __init__(self, place):
        import luigi

        class Item(luigi.CollectionSpec):
            ident = luigi.Parameter()

            def output(self):
                return luigi.LocalTarget(f'{place}/{self.ident}.json')

            def run(self):
                with self.output().open('w') as file:
                    json.dump(work(self.ident, {}, place), file)

        self._place, self._luigi, self._task = place, luigi, Item

    def compute(self, names, workers=1):
        tasks = [self._task(ident=name) for name in names]
        self._luigi.build(tasks, local_scheduler=True, log_level='CRITICAL', workers=workers)

    def compute_on_two(self, names):
        self.compute(names, workers=2)

    read = compute

    def count(self):
        return sum(name.endswith('.json') for name in os.listdir(self._place))

    def close(self):
        """Nothing is held."""


class Original:
    """hadrosaur 0.0.2: no index, no record, output written at the end.

    Fetched by ``pip install --no-deps --target FOLDER hadrosaur==0.0.2`` and found by ``--old FOLDER``.
    """

    name = 'hadrosaur 0.0.2'
    share = 1.0
    folder = None

    def __init__(self, place):
        path = f'{self.folder}/hadrosaur/main.py'
        if self.folder is None or not os.path.exists(path):
            raise Skipped('see --old')
        spec = importlib.util.spec_from_file_location('original_hadrosaur', path)
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        self._place = place
        self._project = module.Project(place)
        self._project.resource('bench')(work)

    def compute(self, names):
        for name in names:
            self._project.fetch('bench', name)

    read = compute

    def count(self):
        return len(os.listdir(f'{self._place}/bench'))

    def close(self):
        """Nothing is held."""
