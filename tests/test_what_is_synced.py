"""What is synced to the disk, in which order: each call that is named here is one that a power cut needs.

Which states a power cut may leave, and that none of them mixes two runs, is tried by
tests/torture/p5_power.py. Here each list is whole: a sync
that is gone is noticed, and so is one that nobody needs.
"""

import errno
import os
from pathlib import Path

import pytest

from hadrosaur import Project, compute, durability, recover, trees

RUN = '…'
LOGS = ['stdout', 'stderr']
FINAL = ['record beside', 'a', 'status']  # the record by its name, then the status, in place


@pytest.fixture
def synced(monkeypatch):
    """Names of what was synced, in order; ``beside``: written to be put in its place; RUN: the function."""
    names = []

    def noted(real):
        def call(fd):
            name = os.path.basename(os.readlink(f'/proc/self/fd/{fd}'))
            names.append(f'{name[1:].split(".")[0]} beside' if name.endswith('.new') else name.split('.')[0])
            return real(fd)

        return call

    monkeypatch.setattr(os, 'fdatasync', noted(os.fdatasync))
    monkeypatch.setattr(os, 'fsync', noted(os.fsync))
    monkeypatch.setattr(durability, '_takes_one_call', lambda *_: False)  # each file is seen
    monkeypatch.setattr(durability, '_above_synced', set())
    return names


@pytest.fixture
def opened(base, synced):
    """A project, durable or not, and a function that notes its run in ``synced``."""
    projects = []

    def open_it(*, durable):
        proj = Project(base, durable=durable)
        projects.append(proj)

        @proj.resource('coll')
        def compute_it(ident, args, subdir):
            synced.append(RUN)
            if args.get('stores'):
                os.makedirs(f'{subdir}/deep')
                Path(subdir, 'deep/file').write_text('kept')
            if args.get('fails'):
                raise ValueError(ident)
            return args

        return proj

    yield open_it
    for proj in projects:
        proj.close()


def since(synced, act):
    """What ``act`` syncs."""
    synced.clear()
    act()
    return list(synced)


def order(proj, recompute):
    collection = proj._registry.get('coll')
    return proj._store.job(collection, 'a', '{}', 'a', recompute=recompute), collection.function


def test_a_first_run_that_is_durable(opened, synced, base):
    """The names of all that is new above it; begun; result, logs, storage and their names; then final."""
    proj = opened(durable=True)
    found = since(synced, lambda: proj.fetch('coll', 'a', {'stores': True}))
    begun = found.index('record')
    assert found[:3] == ['coll', 'base', base.parent.name]
    stored = ['file', 'deep', 'storage']
    assert found[begun:] == ['record', 'status', RUN, 'result', *LOGS, *stored, 'a', *FINAL]
    found = since(synced, lambda: proj.fetch('coll', 'b'))
    assert found[: found.index(RUN)] == ['coll', 'record', 'status'], 'what is above is synced once'


def test_a_run_that_fails_and_is_durable(opened, synced):
    """Its error.log waits for the disk before the record that tells of it."""
    proj = opened(durable=True)
    found = since(synced, lambda: proj.fetch('coll', 'a', {'fails': True}))
    assert found[found.index(RUN) :] == [RUN, 'error', *LOGS, 'storage', 'a', *FINAL]


def test_a_recompute_that_is_durable(opened, synced):
    """Pending first, then begun; each with its name where a file takes the place of another."""
    proj = opened(durable=True)
    proj.fetch('coll', 'a')
    rest = [RUN, 'result', *LOGS, 'storage', 'a', *FINAL]

    found = since(synced, lambda: proj.fetch('coll', 'a', recompute=True))
    assert found == ['coll', 'record beside', 'status', 'a', *rest]

    os.link(f'{proj.path}/coll/a/status.json', f'{proj.path}/coll/another name')
    found = since(synced, lambda: proj.fetch('coll', 'a', recompute=True))
    assert found == ['coll', 'record beside', 'status beside', 'a', 'a', *rest]


def test_a_queued_recompute_that_is_durable(opened, synced):
    """That it is pending waits for the disk as soon as it is queued; a new status.json with its name."""
    proj = opened(durable=True)
    assert since(synced, lambda: compute.enqueue(order(proj, 'no')[0]))[-2:] == ['status beside', 'a']
    compute.carry_out(*order(proj, 'no'))
    assert since(synced, lambda: compute.enqueue(order(proj, 'yes')[0])) == ['coll', 'status']


def test_a_recompute_in_the_usual_way(opened, synced):
    """Only what keeps two runs apart waits for the disk."""
    proj = opened(durable=False)
    assert since(synced, lambda: proj.fetch('coll', 'a')) == [RUN]
    rest = [RUN, 'result', 'a', 'record', 'status']
    assert since(synced, lambda: proj.fetch('coll', 'a', recompute=True)) == ['status', 'record', *rest]

    for name, begun in (
        ('status', ['status beside', 'a', 'record']),
        ('record', ['record beside', 'status', 'a']),
    ):
        os.link(f'{proj.path}/coll/a/{name}.json', f'{proj.path}/coll/another {name}')
        assert since(synced, lambda: proj.fetch('coll', 'a', recompute=True)) == [*begun, *rest]


def test_a_status_that_was_deleted(opened, synced):
    """It is gone from the disk before a run begins, or it could come back over that run's files."""
    proj = opened(durable=False)
    proj.fetch('coll', 'a')
    os.unlink(f'{proj.path}/coll/a/status.json')
    found = since(synced, lambda: proj.fetch('coll', 'a'))
    assert found[: found.index(RUN)] == ['status beside', 'a', 'record', 'a']


def test_a_run_that_was_cut_off(opened, synced):
    """What it removed is gone from the disk before the record says that it was interrupted."""
    proj = opened(durable=False)
    proj.fetch('coll', 'a')
    pid = os.fork()
    if pid == 0:
        compute.carry_out(order(proj, 'yes')[0], lambda *_: os._exit(0))
        os._exit(1)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
    found = since(synced, lambda: recover.recover('coll', 'a', f'{proj.path}/coll', 'a'))
    assert found == ['a']
    assert proj.get('coll', 'a').entry.error_type == 'Interrupted'


@pytest.mark.parametrize(
    'error',
    [RecursionError(), OSError(errno.EMFILE, 'x'), OSError(errno.EACCES, 'x')],
    ids=['too deep', 'too many open files', 'not ours'],
)
def test_storage_that_cannot_be_walked_through(opened, synced, monkeypatch, error):
    """Then all file systems are synced, before the record."""

    def walk(_):
        raise error

    proj = opened(durable=True)
    monkeypatch.setattr(durability, '_walk', walk)
    monkeypatch.setattr(os, 'sync', lambda: synced.append('everything'))
    found = since(synced, lambda: proj.fetch('coll', 'a', {'stores': True}))
    assert found[found.index(RUN) :] == [RUN, 'result', *LOGS, 'everything', 'a', *FINAL]


def test_a_removal_that_is_durable(opened, synced, monkeypatch):
    """The status is gone from the disk before anything that it stood for goes; else nothing is waited for."""
    clear = trees.clear_folder
    monkeypatch.setattr(trees, 'clear_folder', lambda *a, **k: (synced.append(RUN), clear(*a, **k)))
    for durable in True, False:
        proj = opened(durable=durable)
        proj.fetch('coll', 'a', {'stores': True})
        assert since(synced, lambda proj=proj: proj.remove('coll', 'a')) == ['a'] * durable + [RUN]
