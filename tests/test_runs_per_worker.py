"""`runs_per_worker`: a worker process is replaced after so many runs, whoever computes."""

import contextlib
import os
from collections import Counter
from concurrent.futures import ProcessPoolExecutor

import pytest

from hadrosaur import ExecutorFault

KINDS = ['inline', 'processes', 'futures']


@contextlib.contextmanager
def executor_of(kind):
    """What fetch_many takes as its executor."""
    if kind != 'futures':
        yield kind
        return
    with ProcessPoolExecutor(2) as executor:
        yield executor


def process(ident, args, subdir):
    """The process that computes it."""
    return os.getpid()


def runs_by_process(proj, kind, name, count=7):
    """How many resources of a collection each process has computed."""
    with executor_of(kind) as executor:
        batch = proj.fetch_many(
            name, range(count), executor=executor, workers=None if kind == 'inline' else 2
        )
        found = [each.result for each in batch]
    assert len(found) == count
    assert os.getpid() not in found
    return Counter(found)


@pytest.mark.parametrize('kind', KINDS)
def test_each_run_has_a_process_of_its_own(kind, proj):
    """With 1, no two runs share a process; with 3, no more than three do."""
    proj.resource('one', runs_per_worker=1)(process)
    proj.resource('three', runs_per_worker=3)(process)

    assert set(runs_by_process(proj, kind, 'one').values()) == {1}
    assert max(runs_by_process(proj, kind, 'three').values()) <= 3


@pytest.mark.long
def test_fetch_keeps_it_too(proj):
    """A single fetch, and one in the background, have a process of their own."""
    proj.resource('one', runs_per_worker=1)(process)

    here = {proj.fetch('one', n).result for n in range(2)}
    behind = {proj.fetch('one', n, background=True).wait().result for n in range(2, 4)}
    assert len(here | behind | {os.getpid()}) == 5


def test_a_worker_that_has_run_others_is_not_new(proj):
    """Background work of all collections shares workers; what wants one of its own gets a new one."""
    proj.resource('any', background=True)(process)
    proj.resource('one', runs_per_worker=1)(process)

    used = {proj.fetch('any', n).wait().result for n in range(4)}
    assert proj.fetch('one', 'x').result not in used


def test_what_is_no_number_of_runs_is_refused_at_the_call(proj):
    """Whole numbers from 1 up; and a thread, which is no process, is refused."""
    for bad in (0, -1, True, 1.5, '1'):
        with pytest.raises(ValueError, match='runs_per_worker'):
            proj.resource('x', runs_per_worker=bad)(process)
    proj.resource('x', runs_per_worker=1)(process)
    with pytest.raises(ExecutorFault, match='runs_per_worker'):
        proj.fetch_many('x', ['a'], executor='threads').wait()
