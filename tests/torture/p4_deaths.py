"""P4: a dead worker is noticed within a second; one that lives, or is stopped, is never declared dead."""

import json
import os
import signal
import subprocess
import time
from pathlib import Path

import pytest
from harness import IS_FULL, count
from tally import Tally, until

from hadrosaur import Project

TIMES = count(200, quick=4)
NOTICED = 1.0  # seconds, as promised; a run that is late is tried again alone, for the machine may be busy

CALLER = """
    import json, os, subprocess, sys, time, warnings
    from hadrosaur import HadrosaurWarning, Project

    warnings.simplefilter('ignore', HadrosaurWarning)
    clock, executor = sys.argv[1], sys.argv[2]
    YEAR = 365.25 * 86400

    def real():
        return time.clock_gettime(time.CLOCK_REALTIME)

    if clock in ('both', 'caller'):
        time.time = lambda: real() + float(sys.argv[3]) * YEAR
    proj = Project('base')

    def leave(kind, subdir):
        # What survives the worker's death: it holds its sockets, its lock and its output open.
        if kind == 'child' and os.fork() == 0:
            time.sleep(30)
            os._exit(0)
        if kind == 'subprocess':
            subprocess.Popen(['sleep', '30'], close_fds=False, start_new_session=True)
        if kind == 'daemon' and os.fork() == 0:
            os.setsid()
            if os.fork() == 0:
                for fd in range(3, 64):
                    try:
                        os.set_inheritable(fd, True)
                    except OSError:
                        pass
                time.sleep(30)
            os._exit(0)

    @proj.resource('coll')
    def compute(ident, args, subdir):
        if clock in ('both', 'worker'):
            time.time = lambda: real() + float(sys.argv[3]) * YEAR
        leave(args.get('leaves'), subdir)
        with open(args['at'], 'w') as file:
            file.write(str(os.getpid()))
        os.rename(args['at'], args['at'] + '.ready')
        while not os.path.exists(args['at'] + '.go'):
            time.sleep(0.005)
        return ident

    with open('said', 'w', buffering=1) as said:
        for line in sys.stdin:
            order = json.loads(line)
            batch = proj.fetch_many('coll', {order['ident']: order}, executor=executor, workers=1)
            (res,) = list(batch)
            said.write(json.dumps([res.ident, res.status, res.entry.error_type, res.error, real()]) + '\\n')
    proj.close()
"""


class Caller:
    """A program that fetches what it is told, one after the other."""

    def __init__(self, program, folder, clock='none', executor='processes', years=0):
        self.folder = folder
        self.process = program(CALLER, clock, executor, years, start=True, stdin=subprocess.PIPE, cwd=folder)
        self.number = 0

    def begin(self, leaves=None):
        """Have one computed; the process id of its worker, once it runs."""
        self.number += 1
        self.at = self.folder / f'at{self.number}'
        order = {'ident': f'r{self.number}', 'at': str(self.at), 'leaves': leaves}
        self.process.stdin.write(json.dumps(order) + '\n')
        self.process.stdin.flush()
        ready = self.at.with_name(self.at.name + '.ready')
        assert until(ready.exists, 60), 'it is not begun'
        return int(ready.read_text())

    def go(self):
        self.at.with_name(self.at.name + '.go').touch()

    def said(self, seconds=30):
        """What came of the last one: [ident, status, error type, error, when]; None if nothing does."""
        path = self.folder / 'said'

        def lines():
            found = path.read_text().splitlines() if path.exists() else []
            return found if len(found) >= self.number else None

        found = until(lines, seconds)
        return json.loads(found[self.number - 1]) if found else None

    def end(self):
        self.process.stdin.close()
        self.process.stdin = None
        try:
            self.process.communicate(timeout=300)
        except subprocess.TimeoutExpired:
            self.process.kill()
            return 'hang'
        return self.process.returncode


def end_survivors(marker):
    """Whatever a killed worker left: it has our folder as its own, or sleeps for us."""
    for path in Path('/proc').glob('[0-9]*'):
        try:
            if os.readlink(path / 'cwd') == str(marker) and int(path.name) != os.getpid():
                line = (path / 'cmdline').read_bytes()
                if b'sleep' in line or b'hadrosaur' in line or b'python' in line:
                    yield int(path.name)
        except OSError:
            continue


@pytest.fixture
def survivors(tmp_path):
    yield
    for pid in end_survivors(tmp_path):
        try:
            os.kill(pid, signal.SIGKILL)
        except ProcessLookupError:
            continue


LEAVES = [None, 'child', 'subprocess', 'daemon']


def test_killed(program, tmp_path, record, survivors):
    """kill -9 of a worker that nobody survives, or a child, a subprocess or a daemon with its socket."""
    tally = Tally('P4')
    caller = Caller(program, tmp_path)
    slow = []
    for turn in range(TIMES):
        leaves = LEAVES[turn % len(LEAVES)]
        pid = caller.begin(leaves)
        killed = time.time()
        os.kill(pid, signal.SIGKILL)
        found = caller.said()
        tally.fault(f'kill, survived by {leaves}')
        if found is None:
            tally.wrong('it is not noticed', f'{turn}: {leaves}')
            break
        if found[1:3] != ['error', 'WorkerDied']:
            tally.wrong('another end', f'{leaves}: {found}')
        if found[4] - killed > NOTICED:
            slow.append((round(found[4] - killed, 2), leaves))
    # A busy machine may be late now and then, by its own fault; a mechanism that waits is late each time.
    if len(slow) > max(2, TIMES // 10):
        tally.wrong('it is noticed late', f'{len(slow)} of {TIMES}: {slow[:10]}')
    if caller.end() != 0:
        tally.wrong('the caller', 'does not end well')
    tally.end(record)


def test_stopped_worker(program, tmp_path, record):
    """A worker that is stopped for a while is awaited, and its result is taken."""
    tally = Tally('P4')
    caller = Caller(program, tmp_path)
    for turn in range(TIMES):
        pid = caller.begin()
        os.kill(pid, signal.SIGSTOP)
        caller.go()
        time.sleep(
            1.5 if turn < (20 if IS_FULL else 1) else 0.02
        )  # beyond the second in which a death is noticed
        if caller.said(0) is not None:
            tally.wrong('a stopped worker is given up', caller.said(0))
        os.kill(pid, signal.SIGCONT)
        found = caller.said()
        tally.fault('stopped worker')
        if found is None or found[1] != 'completed':
            tally.wrong('a stopped worker is declared dead', f'{turn}: {found}')
            if found is None:
                break
    if caller.end() != 0:
        tally.wrong('the caller', 'does not end well')
    tally.end(record)


def test_stopped_caller(program, tmp_path, record):
    """Nobody says of a stopped caller that it is dead: its work stays pending, computed by no other."""
    tally = Tally('P4')
    caller = Caller(program, tmp_path)
    with Project(tmp_path / 'base') as proj:
        proj.resource('coll')(lambda ident, args, subdir: 'computed by another')
        for turn in range(max(1, TIMES // 4)):
            pid = caller.begin()
            os.kill(caller.process.pid, signal.SIGSTOP)
            if turn % 2:
                os.kill(pid, signal.SIGSTOP)
            ident = f'r{caller.number}'
            for look in (
                lambda ident=ident: proj.get('coll', ident).status,
                lambda ident=ident: proj.fetch('coll', ident, {}).status,
                lambda ident=ident: next(row.status for row in proj.query('coll', ident=ident)),
                lambda ident=ident: (proj.check(fix=True), proj.get('coll', ident).status)[1],
            ):
                tally.fault('look at a stopped caller')
                if (found := look()) != 'pending':
                    tally.wrong('a stopped caller is declared dead', f'{turn}: {found}')
            os.kill(pid, signal.SIGCONT)
            os.kill(caller.process.pid, signal.SIGCONT)
            caller.go()
            found = caller.said()
            if found is None or found[1] != 'completed':
                tally.wrong('a stopped caller', f'{turn}: {found}')
                if found is None:
                    break
    if caller.end() != 0:
        tally.wrong('the caller', 'does not end well')
    tally.end(record)


CLOCKS = [(clock, years) for clock in ('both', 'caller', 'worker') for years in (30, -30)]


@pytest.mark.parametrize(('clock', 'years'), CLOCKS if IS_FULL else CLOCKS[:1])
def test_clocks(program, tmp_path, record, clock, years):
    """Clocks off by years in caller, worker or both: nobody living is dead, and nobody dead is alive."""
    tally = Tally('P4')
    folder = tmp_path / 'work'
    folder.mkdir()
    caller = Caller(program, folder, clock, years=years)
    with Project(folder / 'base') as proj:
        for turn in range(max(2, TIMES // 6)):
            pid = caller.begin()
            ident = f'r{caller.number}'
            seen = {proj.get('coll', ident).status, *(row.status for row in proj.query('coll', ident=ident))}
            if seen != {'pending'}:
                tally.wrong('a living worker is declared dead', f'{clock} {years}: {seen}')
            if turn % 2:
                os.kill(pid, signal.SIGKILL)
            else:
                caller.go()
            found = caller.said()
            tally.fault(f'clock of {clock} off by {years} years')
            wanted = ['error', 'WorkerDied'] if turn % 2 else ['completed', None]
            if found is None or found[1:3] != wanted:
                tally.wrong('another end', f'{clock} {years}: {found}, wanted {wanted}')
                if found is None:
                    break
                continue
            rows = [row.status for row in proj.query('coll', ident=ident)]
            if rows != [wanted[0]] or proj.get('coll', ident).status != wanted[0]:
                tally.wrong('the row says something else', f'{clock} {years}: {rows}, wanted {wanted}')
    if caller.end() != 0:
        tally.wrong('the caller', 'does not end well')
    tally.end(record)


def test_killed_caller(program, tmp_path, record):
    """A killed caller is dead at once for everybody else; its worker may finish what it has in hand."""
    tally = Tally('P4')
    for _turn in range(max(1, TIMES // 10)):
        folder = tmp_path / f'work{_turn}'
        folder.mkdir()
        caller = Caller(program, folder)
        pid = caller.begin()
        caller.process.kill()
        caller.process.wait()
        with Project(folder / 'base') as proj:
            tally.fault('killed caller')
            if (found := proj.get('coll', 'r1').status) != 'pending':
                tally.wrong('a worker that still computes is declared dead', found)
            if _turn % 2:
                os.kill(pid, signal.SIGKILL)
                wanted = 'error'
            else:
                caller.go()
                wanted = 'completed'
            if not until(lambda proj=proj, wanted=wanted: proj.get('coll', 'r1').status == wanted, 10):
                tally.wrong('it is not noticed', f'{proj.get("coll", "r1").status}, wanted {wanted}')
    tally.end(record)
