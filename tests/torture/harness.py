"""What the torture has in common: how much of it, and forked children that end well or say why not."""

import gc
import importlib
import os
import pkgutil
import random
import sys
import tempfile
import traceback
import warnings
from contextlib import suppress

import hadrosaur

IS_FULL = bool(os.environ.get('HADROSAUR_TORTURE'))
"""`make torture` says so; else it is the quick tier inside `make test`."""


def count(full, quick=None):
    """So many: in full, in the quick tier (a hundredth unless told), or as many as HADROSAUR_COUNT says."""
    if IS_FULL:
        return int(os.environ.get('HADROSAUR_COUNT', full))
    return max(1, full // 100) if quick is None else quick


def chance():
    """A generator of its own, from the seed in the table at the end; HADROSAUR_SEED repeats it."""
    return random.Random(int(os.environ['HADROSAUR_SEED']))


def child(work, *args):
    """Fork; the child does that and ends with 0, or with 1 and a traceback."""
    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            work(*args)
            code = 0
        except BaseException:
            traceback.print_exc()
        finally:
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(code)
    return pid


def ended(pids):
    """Wait for children; every one ended well."""
    codes = {pid: os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) for pid in pids}
    assert set(codes.values()) <= {0}, codes


def load_everything():
    """Once, in the program that forks victims, all that they would load and compile: half of their time."""
    for module in pkgutil.walk_packages(hadrosaur.__path__, 'hadrosaur.'):
        if not any(word in module.name for word in ('migrations', '__main__', '.web', 'dask')):
            with suppress(ImportError):
                importlib.import_module(module.name)
    for name in ('alembic.command', 'alembic.config', 'sqlalchemy.dialects.sqlite', 'cloudpickle', 'csv'):
        importlib.import_module(name)
    with (
        tempfile.TemporaryDirectory() as folder,
        hadrosaur.Project(f'{folder}/base') as proj,
        warnings.catch_warnings(),
    ):
        warnings.simplefilter('ignore')
        proj.resource('coll')(lambda ident, args, subdir: ident)
        for _ in range(2):
            proj.fetch('coll', 'one', {}, recompute=True)
            list(proj.query()), len(proj.query('coll', status='pending')), proj.stats(), proj.error_groups()
            proj.check(fix=True, deep=True), proj.reindex(), proj.remove('coll', 'one')
    if IS_FULL:
        gc.freeze()  # else each fork copies all of it, when it collects
