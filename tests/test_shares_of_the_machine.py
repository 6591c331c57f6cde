"""Workers share the machine: processors by its limits, threads of numerical libraries divided among them."""

import contextlib
import os
import subprocess
import sys
from concurrent.futures import ProcessPoolExecutor

import pytest

from hadrosaur import cpu_count

NAMES = cpu_count.THREADS_OF


@contextlib.contextmanager
def executor_of(kind):
    """What fetch_many takes as its executor."""
    if kind != 'futures':
        yield kind
        return
    with ProcessPoolExecutor(2) as executor:
        yield executor


@pytest.fixture(autouse=True)
def unset(monkeypatch):
    """An environment that says nothing."""
    for name in NAMES:
        monkeypatch.delenv(name, raising=False)


def look(ident, args, subdir):
    """What the environment of the run says."""
    return {name: os.environ.get(name) for name in args['names']}


def seen(proj, kind, **more):
    """The same, of a resource of a batch."""
    proj.resource('a')(look)
    with executor_of(kind) as executor:
        batch = proj.fetch_many('a', ['x'], {'names': NAMES}, executor=executor, recompute=True, **more)
        return next(iter(batch)).result


@pytest.mark.parametrize('kind', ['processes', 'futures'])
def test_threads_of_libraries_are_divided_among_workers(kind, proj, monkeypatch):
    """Eight processors for two workers are four threads each; for twenty workers it is one each."""
    for module in ('processes', 'futures'):
        monkeypatch.setattr(f'hadrosaur.executors.{module}.processors', lambda: 8)
    monkeypatch.setattr(cpu_count, 'processors', lambda: 8)

    assert seen(proj, kind, workers=2) == dict.fromkeys(NAMES, '4')
    assert seen(proj, kind, workers=20) == dict.fromkeys(NAMES, '1')
    assert seen(proj, kind, workers=2, threads=3) == dict.fromkeys(NAMES, '3')


def test_what_the_environment_says_stays(proj, monkeypatch):
    """A number in the environment holds, unless `threads=` asks for another."""
    monkeypatch.setenv('OMP_NUM_THREADS', '7')

    found = seen(proj, 'processes', workers=100)
    assert (found['OMP_NUM_THREADS'], found['MKL_NUM_THREADS']) == ('7', '1')
    assert seen(proj, 'processes', threads=2) == dict.fromkeys(NAMES, '2')


@pytest.mark.parametrize('kind', ['inline', 'threads'])
def test_the_program_itself_is_left_alone(kind, proj):
    """What runs in the program has the program's environment, and cannot be limited."""
    assert seen(proj, kind) == dict.fromkeys(NAMES)
    with pytest.raises(ValueError, match='threads'):
        seen(proj, kind, threads=2)


@pytest.mark.parametrize('bad', [0, -1, 1.5, True, '2'])
def test_a_number_of_threads_that_is_none_is_refused_at_the_call(bad, proj):
    """Checked like `workers`, before anything is started."""
    proj.resource('a')(look)
    with pytest.raises(ValueError, match='threads'):
        proj.fetch_many('a', ['x'], threads=bad)


GROUPS = [
    ('no limit', '0::/\n', {'cpu.max': 'max 100000\n'}, None),
    ('v2', '0::/a/b\n', {'a/b/cpu.max': '150000 100000\n'}, 1.5),
    (
        'v2, of a group around it',
        '0::/a/b\n',
        {'a/cpu.max': '50000 100000', 'a/b/cpu.max': 'max 100000'},
        0.5,
    ),
    ('v2, in a container', '0::/../../host/path\n', {'cpu.max': '200000 100000\n'}, 2.0),
    (
        'v1',
        '4:cpu,cpuacct:/a\n1:name=systemd:/\n',
        {'cpu,cpuacct/a/cpu.cfs_quota_us': '300000\n', 'cpu,cpuacct/a/cpu.cfs_period_us': '100000\n'},
        3.0,
    ),
    (
        'v1, in a container',
        '4:cpu,cpuacct:/docker/0123\n0::/\n',
        {'cpu/cpu.cfs_quota_us': '100000\n', 'cpu/cpu.cfs_period_us': '100000\n'},
        1.0,
    ),
    (
        'v1, no limit',
        '4:cpu:/\n',
        {'cpu/cpu.cfs_quota_us': '-1\n', 'cpu/cpu.cfs_period_us': '100000\n'},
        None,
    ),
    ('nonsense', 'what\n\n0::\n', {'cpu.max': 'x y z'}, None),
    ('a period of nothing', '0::/\n', {'cpu.max': '5 0'}, None),
]


@pytest.mark.parametrize(('own', 'files', 'limit'), [each[1:] for each in GROUPS], ids=[g[0] for g in GROUPS])
def test_limits_of_control_groups_are_found(own, files, limit, tmp_path, monkeypatch):
    """The default number of workers is what a container may use, not what its machine has."""
    (tmp_path / 'own').write_text(own)
    for name, text in files.items():
        path = tmp_path / 'groups' / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)

    places = (str(tmp_path / 'own'), str(tmp_path / 'groups'))
    assert cpu_count.allowed_by_groups(*places) == limit

    monkeypatch.setattr(os, 'sched_getaffinity', lambda process: set(range(8)))
    monkeypatch.setattr(cpu_count.allowed_by_groups, '__defaults__', places)
    assert cpu_count.processors() == {None: 8, 0.5: 1, 1.0: 1, 1.5: 2, 2.0: 2, 3.0: 3}[limit]


def test_memory_of_the_largest_subprocess_counts(proj):
    """max_rss is that of the process or of its largest subprocess, whichever is larger."""

    @proj.resource('a')
    def a(ident, args, subdir):
        if ident == 'hungry':
            subprocess.run([sys.executable, '-c', 'x = bytearray(150_000_000)'], check=True)

    proj.fetch_many('a', ['modest', 'hungry', 'modest2'], workers=1).wait()

    rss = {row.ident: row.max_rss for row in proj.query('a')}
    assert rss['hungry'] > 150_000_000
    assert max(rss['modest'], rss['modest2']) < 100_000_000
