"""Who looks from another process sees what runs: where, in which process and since when."""

import threading
import time
from pathlib import Path

import pytest
from conftest import HANG
from test_executor_contract import cluster, executor  # noqa: F401  fixtures

from hadrosaur import Project


def waits(ident, args, subdir):
    """A function that runs until it was seen to run."""
    import os

    if args.get('fails_first') and not os.path.exists(args['failed']):
        open(args['failed'], 'w').close()
        raise ValueError('once')
    while not os.path.exists(args['go']):
        time.sleep(0.01)
    return os.getpid()


def seen_running(base, seen, go):
    """Look until a row says running and names its process, then let the function end."""
    end = time.monotonic() + 60
    with Project(base, create=False) as proj:
        while not seen and time.monotonic() < end:
            rows = proj.query('coll', status='pending')
            seen += [row for row in rows if row.phase == 'running' and row.pid]
            time.sleep(0.05)
    Path(go).touch()


@pytest.mark.parametrize('fails_first', [False, True], ids=['first attempt', 'retry'])
def test_what_runs_is_shown_as_running(proj, executor, tmp_path, fails_first):  # noqa: F811
    """A row of a run that takes long says running, with host, process and start, on every executor."""
    proj.resource('coll', retries=1, retry_delay=0.01)(waits)
    go, seen = str(tmp_path / 'go'), []
    args = {'go': go, 'failed': str(tmp_path / 'failed'), 'fails_first': fails_first}
    proj.fetch_many('coll', [], executor=executor).wait()  # there is an index
    proj.stats()
    looker = threading.Thread(target=seen_running, args=(proj.path, seen, go))
    looker.start()
    batch = proj.fetch_many('coll', {'one': args}, executor=executor, workers=1)
    [resource] = batch
    looker.join(HANG)

    assert resource.status == 'completed'
    assert seen, 'its row never said running'
    assert (seen[0].pid, seen[0].host) == (resource.result, resource.entry.host)
    if not fails_first:
        assert abs((seen[0].started_at - resource.entry.started_at).total_seconds()) < 0.5


@pytest.mark.long
def test_an_asynchronous_client_is_refused_in_a_sentence(proj, cluster):  # noqa: F811
    """A Client of coroutines cannot be waited for: that is said at the call, with what to give instead."""
    import asyncio

    from distributed import Client

    from hadrosaur import ExecutorUnavailable

    async def attempt():
        async with Client(cluster, asynchronous=True, set_as_default=False) as client:
            with pytest.raises(ExecutorUnavailable, match='asynchronous') as caught:
                proj.fetch_many('coll', ['a'], executor=client)
            return caught.value

    proj.resource('coll')(waits)
    assert 'dask:tcp://' in asyncio.run(attempt()).hint
    assert len(proj.query()) == 0
