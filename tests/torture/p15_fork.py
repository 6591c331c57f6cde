"""P15: fork is safe in user programs: in a transaction, in a query, while threads fetch; either first."""

import contextlib
import sqlite3
from itertools import islice

import pytest
from harness import count

FORKS = count(500, quick=3)

PROGRAM = """
    import itertools, os, random, sys, threading, time, traceback
    from pathlib import Path
    from hadrosaur import Project
    import hadrosaur.index, sqlalchemy      # once, before the fork

    scenario, forks = sys.argv[1], int(sys.argv[2])
    proj = Project('base')
    proj.resource('coll')(lambda ident, args, subdir: ident)
    acknowledged = os.open('acknowledged', os.O_WRONLY | os.O_APPEND | os.O_CREAT)

    def fetch(ident):
        res = proj.fetch('coll', ident)
        assert res['result'] == ident, (ident, res, res.error)
        os.write(acknowledged, f'{ident}\\n'.encode())

    def side(name, first, mine, other, work):
        # The one that is not first does half of its work when the first has ended.
        for n in range(3):
            fetch(f'{work}-{name}-{n}')
        if first:
            proj.close()
            os.close(mine)      # the other side reads the end of it
        else:
            os.read(other, 1)
            for n in range(3, 6):
                fetch(f'{work}-{name}-{n}')
            assert len(proj.query('coll', ident=f'{work}-{name}-*')) == 6
            proj.close()

    def fork_with(work, number):
        child_first = number % 2 == 0
        child_read, child_write = os.pipe()
        parent_read, parent_write = os.pipe()
        pid = os.fork()
        if pid == 0:
            code = 1
            try:
                os.close(child_read)
                os.close(parent_write)
                side('child', child_first, child_write, parent_read, work)
                code = 0
            except BaseException:
                traceback.print_exc()
            finally:
                sys.stderr.flush()
                os._exit(code)
        os.close(child_write)
        os.close(parent_read)
        side('parent', not child_first, parent_write, child_read, work)
        status = os.waitpid(pid, 0)[1]
        assert status == 0, status
        os.close(child_read)
        if child_first:  # else it is closed already; a number that is closed twice may be a thread's by then
            os.close(parent_write)

    def in_a_query(number):
        rows = iter(proj.query('coll'))
        list(itertools.islice(rows, 2))
        fork_with(f'query{number}', number)
        del rows

    def in_a_transaction(number):
        # A thread is in the middle of many transactions when the process forks.
        stop = threading.Event()
        def write():
            n = 0
            while not stop.is_set():
                fetch(f'transaction{number}-writer-{n}')
                proj.reindex(changed_only=n % 2 == 0)
                n += 1
        writer = threading.Thread(target=write)
        writer.start()
        time.sleep(random.random() / 100)
        try:
            fork_with(f'transaction{number}', number)
        finally:
            stop.set()
            writer.join()

    stop = threading.Event()

    def keep_fetching(k, number):
        n = 0
        while not stop.is_set():
            fetch(f'threads{number}-{k}-{n}')
            n += 1

    def while_threads_fetch(number):
        stop.clear()
        threads = [threading.Thread(target=keep_fetching, args=(k, number)) for k in range(8)]
        for thread in threads:
            thread.start()
        try:
            fork_with(f'threads{number}', number)
        finally:
            stop.set()
            for thread in threads:
                thread.join()

    how = {'query': in_a_query, 'transaction': in_a_transaction, 'threads': while_threads_fetch}[scenario]
    fetch('first'), fetch('second')
    for number in range(forks):
        how(number)
    proj.close()
"""


@pytest.mark.parametrize('scenario', ['query', 'transaction', 'threads'])
def test_fork(program, tmp_path, scenario, record):
    """Both sides go on with the Project; every acknowledged resource has its row, and the index is whole."""
    running = program(PROGRAM, scenario, FORKS, start=True)
    _, err = running.communicate()
    assert running.returncode == 0, err
    assert err == ''
    wanted = set((tmp_path / 'acknowledged').read_text().split())
    with contextlib.closing(sqlite3.connect(tmp_path / 'base/index.sqlite3')) as index:
        assert index.execute('pragma integrity_check').fetchall() == [('ok',)]
        found = {
            ident for (ident,) in index.execute("SELECT ident FROM resources WHERE status = 'completed'")
        }
        other = index.execute("SELECT ident, status FROM resources WHERE status != 'completed'").fetchall()
    lost = wanted - found
    record('P15', FORKS, len(lost) + len(other), f'{len(wanted)} acknowledged in {scenario}')
    assert not lost, list(islice(lost, 5))
    assert other == []
