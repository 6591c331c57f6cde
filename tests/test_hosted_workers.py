"""Workers that other people's executors host end with the batch, and with the process that hosts them."""

import os
import signal
import time
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import pytest
from conftest import await_that, is_running


def who(ident, args, subdir):
    if ident == 'slow':
        Path(subdir, 'began').touch()
        time.sleep(600)
    return [os.getpid(), os.getppid()]


def descendants(pid):
    """All that a process has started, and what that has."""
    found = []
    for at in Path('/proc').glob('[0-9]*'):
        try:
            parent = int((at / 'stat').read_text().rpartition(')')[2].split()[1])
        except OSError:
            continue
        if parent == pid:
            found += [int(at.name), *descendants(int(at.name))]
    return [each for each in found if is_running(each)]


@pytest.fixture
def pool():
    """A pool of the user's, which goes on when batches end."""
    with ProcessPoolExecutor(2) as executor:
        yield executor


@pytest.fixture
def who_proj(proj):
    proj.resource('coll')(who)
    return proj


@pytest.mark.long
def test_workers_end_with_the_batch(who_proj, pool):
    """A moment after a batch nothing of ours is left in the pool, whose own processes stay for the next."""
    for turn in range(2):
        idents = [f'{turn}-{number}' for number in range(30)]
        found = [res['result'] for res in who_proj.fetch_many('coll', idents, executor=pool)]
        hosts = list(pool._processes)
        assert found
        await_that(lambda found=found: not any(is_running(pid) for pid, _ in found))
        await_that(lambda hosts=hosts: not [pid for host in hosts for pid in descendants(host)])
        assert all(map(is_running, hosts))


@pytest.mark.long
def test_workers_end_with_the_project(who_proj, pool, base):
    """close() in the middle of a batch ends what runs in the pool, too."""
    batch = who_proj.fetch_many('coll', ['quick', 'slow'], executor=pool)
    next(batch)
    await_that((base / 'coll/slow/storage/began').exists)
    who_proj.close(cancel=True)
    hosts = list(pool._processes)

    await_that(lambda: not [pid for host in hosts for pid in descendants(host)])
    assert who_proj.get('coll', 'slow').status == 'error'


def test_workers_end_with_their_host(who_proj, base):
    """A pool that is killed leaves no worker that waits for work."""
    with ProcessPoolExecutor(1) as pool:
        [[worker, _]] = [res['result'] for res in who_proj.fetch_many('coll', ['a'], executor=pool)]
        [host] = pool._processes
        ours = descendants(host)
        os.kill(host, signal.SIGKILL)
        await_that(lambda: not is_running(worker) and not any(map(is_running, ours)))
