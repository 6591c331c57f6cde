"""P19: a fetch inside a function, wait=True and .value give the value, whoever else computes the resource."""

import json
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from harness import IS_FULL, count
from tally import Tally

from hadrosaur import Project

FETCHES = count(5000, quick=60)
OUTER = 8
KINDS = ['inline', 'threads', 'processes', 'ThreadPoolExecutor', 'ProcessPoolExecutor', 'loky', 'dask']
HERE = Path(__file__).parent
ENVIRONMENT = {**os.environ, 'PYTHONPATH': os.pathsep.join([str(HERE), *sys.path])}

# Every executor in a program of its own: one that hangs is killed, and the others are tried all the same.
ON_EXECUTOR = """
    import json, sys, time, warnings
    from hadrosaur import HadrosaurWarning, Project
    from zoo_keeper import executor_of

    warnings.simplefilter('ignore', HadrosaurWarning)

    def main():
        kind, rounds = sys.argv[1], int(sys.argv[2])
        proj = Project('base')

        @proj.resource('inner')
        def inner(ident, args, subdir):
            time.sleep(0.02)
            return f'value of {ident}'

        @proj.resource('outer')
        def outer(ident, args, subdir):
            shared = f'shared-{ident.split("-")[0]}'
            way = int(ident.split('-')[1]) % 4
            if way == 0:
                return proj.fetch('inner', shared)['result']
            if way == 1:
                return proj.fetch('inner', shared, wait=True)['result']
            if way == 2:
                return proj.fetch('inner', shared).value
            return [res['result'] for res in proj.fetch_many('inner', [shared], executor='inline')][0]

        wrong, fetches = [], 0
        with executor_of(kind) as executor:
            for turn in range(rounds):
                idents = [f'{turn}-{n}' for n in range(int(sys.argv[3]))]
                for res in proj.fetch_many('outer', idents, executor=executor, workers=4):
                    fetches += 1
                    if res['result'] != f'value of shared-{turn}':
                        wrong.append([res.ident, res.status, res['result'], res.error])
            proj.close()
        with open(f'answer-{kind}', 'w') as file:
            json.dump([fetches, wrong], file)

    if __name__ == '__main__':
        main()
"""


@pytest.mark.parametrize('kind', KINDS if IS_FULL else ['threads', 'processes'])
def test_shared_by_eight(kind, program, tmp_path, record):
    """Eight outer resources that want one inner resource at once: each gets its value, on every executor."""
    if kind in ('loky', 'dask'):
        pytest.importorskip({'loky': 'loky', 'dask': 'distributed'}[kind])
    tally = Tally('P19')
    rounds = max(1, FETCHES // len(KINDS) // OUTER // 2)
    running = program(ON_EXECUTOR, kind, rounds, OUTER, start=True, env=ENVIRONMENT)
    try:
        _, err = running.communicate(timeout=300 + rounds)
    except subprocess.TimeoutExpired:
        tally.wrong('it hangs', kind)
        running.kill()
    else:
        if running.returncode != 0:
            tally.wrong('it fails', f'{kind}: {err[-1500:]}')
        else:
            fetches, wrong = json.loads((tmp_path / f'answer-{kind}').read_text())
            tally.fault(kind, fetches)
            for one in wrong:
                tally.wrong('another value', f'{kind}: {one}')
    tally.end(record)


ON_ONE_KEY = """
    import json, os, sys, threading, time, warnings
    from hadrosaur import HadrosaurWarning, Project

    warnings.simplefilter('ignore', HadrosaurWarning)
    me, rounds, threads = int(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])
    proj = Project('base')

    @proj.resource('coll')
    def compute(ident, args, subdir):
        fd = os.open(os.path.join(subdir, 'once'), os.O_CREAT | os.O_EXCL | os.O_WRONLY)
        os.close(fd)
        time.sleep(0.01)
        return {'ident': ident, 'long': ident * (20_000 if ident.endswith('0') else 1)}

    wrong = []

    def work(mine):
        for turn in range(rounds):
            ident = f'{turn}'
            try:
                if (mine + turn) % 2:
                    value = proj.fetch('coll', ident, wait=True)['result']
                else:
                    value = proj.fetch('coll', ident).value
            except Exception as error:
                value = f'{type(error).__name__}: {error}'
            if not isinstance(value, dict) or value['ident'] != ident or not value['long'].startswith(ident):
                wrong.append([ident, str(value)[:200]])

    running = [threading.Thread(target=work, args=(n,)) for n in range(threads)]
    for thread in running:
        thread.start()
    for thread in running:
        thread.join()
    proj.close()
    with open(f'answer-{me}', 'w') as file:
        json.dump(wrong, file)
"""


@pytest.mark.parametrize(('processes', 'threads'), [(1, 8), (8, 1), (3, 3)] if IS_FULL else [(3, 3)])
def test_on_one_key(processes, threads, program, tmp_path, record):
    """Eight threads, eight processes, and some of both on one key after the other: nobody gets None."""
    tally = Tally('P19')
    rounds = max(2, FETCHES // 2 // 3 // (processes * threads))
    running = [program(ON_ONE_KEY, n, rounds, threads, start=True, env=ENVIRONMENT) for n in range(processes)]
    for number, one in enumerate(running):
        try:
            _, err = one.communicate(timeout=300 + rounds)
        except subprocess.TimeoutExpired:
            tally.wrong('it hangs', f'{processes} processes of {threads} threads')
            one.kill()
            continue
        if one.returncode != 0:
            tally.wrong('it fails', err[-1500:])
            continue
        tally.fault(f'{processes} x {threads}', rounds * threads)
        for bad in json.loads((tmp_path / f'answer-{number}').read_text()):
            tally.wrong('another value', bad)
    with Project(tmp_path / 'base') as proj:
        rows = {row.status for row in proj.query('coll')}
        if rows != {'completed'} or proj.stats()['coll']['total'] != rounds:
            tally.wrong('rows', f'{rows} {proj.stats()}')
    tally.end(record)


RING = """
    import json, os, sys, time, warnings
    from hadrosaur import CycleError, HadrosaurWarning, Project

    warnings.simplefilter('ignore', HadrosaurWarning)
    me, members, turn, way = int(sys.argv[1]), int(sys.argv[2]), sys.argv[3], sys.argv[4]
    proj = Project('base')

    @proj.resource('ring')
    def member(ident, args, subdir):
        turn, number = ident.split('-')
        with open(f'inside-{ident}', 'w'):
            pass
        end = time.monotonic() + 60
        while not all(os.path.exists(f'inside-{turn}-{n}') for n in range(members)):
            assert time.monotonic() < end
            time.sleep(0.002)
        wanted = f'{turn}-{(int(number) + 1) % members}'
        if way == 'value':
            return ['above', proj.fetch('ring', wanted).value]
        res = proj.fetch('ring', wanted, wait=True if way == 'wait' else None)
        if res.status == 'error':
            return ['beside', res.error.strip().splitlines()[-1]]
        return ['above', res['result']]

    kind = {'process': 'inline', 'workers': 'processes'}[sys.argv[5]]
    idents = [f'{turn}-{me}'] if kind == 'inline' else [f'{turn}-{n}' for n in range(members)]
    found = []
    for res in proj.fetch_many('ring', idents, executor=kind, workers=members):
        found.append([res.ident, res.status, res.entry.error_type, str(res['result'])])
    proj.close()
    with open(f'ring-{turn}-{me}', 'w') as file:
        json.dump(found, file)
"""


@pytest.mark.parametrize('way', ['plain', 'wait', 'value'] if IS_FULL else ['value'])
@pytest.mark.parametrize('who', ['process', 'workers'])
def test_rings(way, who, program, tmp_path, record):
    """Processes, or the workers of one, that wait for each other in a ring: exactly one gets CycleError."""
    tally = Tally('P19')
    for turn in range(max(1, min(10, FETCHES // 100))):
        members = 2 + turn % 4
        number = members if who == 'process' else 1
        running = [
            program(RING, n, members, turn, way, who, start=True, env=ENVIRONMENT) for n in range(number)
        ]
        tally.fault(f'ring of {members}')
        found = []
        for n, one in enumerate(running):
            try:
                _, err = one.communicate(timeout=300)
            except subprocess.TimeoutExpired:
                tally.wrong('a ring hangs', f'{way}, {who}, {members} members')
                one.send_signal(signal.SIGKILL)
                continue
            if one.returncode:
                tally.wrong('it fails', err[-1500:])
            else:
                found += json.loads((tmp_path / f'ring-{turn}-{n}').read_text())
        cycles = [one for one in found if (one[2] or '').endswith('CycleError')]
        if len(found) == members and len(cycles) != 1:
            tally.wrong('not one CycleError', f'{way}, {who}, {members} members: {found}')
        if any(status not in ('completed', 'error') for _, status, _, _ in found):
            tally.wrong('no final state', found)
    tally.end(record)


def test_threads_in_a_ring(tmp_path, record):
    """Two threads of one process that wait for each other: one gets CycleError, the other goes on."""
    tally = Tally('P19')
    for turn in range(max(1, min(50, FETCHES // 100))):
        base = tmp_path / f'base{turn}'
        with Project(base) as proj:
            both = threading.Barrier(2)

            @proj.resource('ring')
            def member(ident, args, subdir, proj=proj, both=both):
                both.wait(30)
                return proj.fetch('ring', 'b' if ident == 'a' else 'a').value

            found = [
                (res.status, res.entry.error_type, res.error or '')
                for res in proj.fetch_many('ring', ['a', 'b'], executor='threads', workers=2)
            ]
        tally.fault('threads')
        if sum('CycleError' in (kind or '') for _, kind, _ in found) != 1:
            tally.wrong('not one CycleError', found)
    tally.end(record)
