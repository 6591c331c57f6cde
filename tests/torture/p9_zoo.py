"""P9: whatever a function does, exactly its own resource gets a final state, and its siblings complete."""

import contextlib
import json
import os
import signal
import subprocess
import sys
import uuid
from pathlib import Path

import pytest
import zoo
from harness import IS_FULL, count
from tally import Tally, Victim, until

from hadrosaur import Project

TIMES = count(5, quick=1)
IN_WORKERS = ['processes', 'ThreadPoolExecutor', 'ProcessPoolExecutor', 'loky', 'dask']
HERE = Path(__file__).parent
ONLY = os.environ.get('HADROSAUR_ONLY', '')
NAMES = [name for name in zoo.ANIMALS if ONLY in name]
IN_CALLER = [name for name in NAMES if not zoo.ANIMALS[name].kills]
# What cannot be asked of a caller's own process: its streams and its folder are the function's too.
NOT_INLINE = {
    'closes_everything',
    'points_everything_elsewhere',
    'both_sides_of_a_fork_return',
    'both_sides_of_a_fork_raise',
    'leads_a_session',
}
NOT_ON_THREADS = {
    'closes_1_and_2',
    'closes_its_streams',
    'changes_folder',
    'has_no_stdout',
    'replaces_stdout',
    'stands_in_a_folder_that_is_gone',
    'changes_umask',
    'runs_out_of_memory',
}

KILLERS = [
    name for name in NAMES
    if zoo.ANIMALS[name].kills and not zoo.ANIMALS[name].hangs and name not in NOT_INLINE
]  # fmt: skip
if not IS_FULL:  # some of each kind
    NAMES = [*NAMES[::9], 'replaces_stdout', 'hangs']
    IN_CALLER = [*IN_CALLER[::9], 'replaces_stdout']
    KILLERS = KILLERS[::5]


def _last_name(kind):
    """An error type without its module, and without what is in the group that it may be."""
    return (kind or '').partition('(')[0].rpartition('.')[2]


def judge(tally, kind, document):
    """One animal on one executor: states of its own, and siblings that never notice."""
    name = document['animal']
    where = f'{name} on {kind}'
    if 'left open' in document:
        tally.wrong('a descriptor stays open', f'{where}: {document["left open"]}')
        return
    ends = zoo.ANIMALS[name].ends
    given, rows = document['given'], document['rows']
    for ident, files in document['siblings'].items():
        expected = [
            json.dumps({'sibling': ident}, separators=(',', ':')),
            f'out of {ident}\n',
            f'err of {ident}\n',
        ]
        found = [files[0] and files[0].strip().replace(': ', ':'), *files[1:]]
        if given.get(ident) != [['completed', None]] or rows.get(ident) != ['completed', None]:
            tally.wrong('a sibling suffers', f'{where}: {ident}: {given.get(ident)}, row {rows.get(ident)}')
        elif found != expected:
            tally.wrong('files of a sibling', f'{where}: {ident}: {str(found)[:300]}')
    for number in range(TIMES):
        ident = f'{name}{number}'
        tally.fault(kind)
        states = given.get(ident, [])
        row = rows.get(ident)
        if len(states) != 1 or states[0][0] not in ('completed', 'error'):
            tally.wrong('no final state', f'{where}: {ident} was given as {states}')
        elif None not in ends and _last_name(states[0][1]) not in ends and states[0][0] not in ends:
            tally.wrong('another end', f'{where}: {states[0]}, not {ends}')
        elif row != states[0] and None not in ends:
            tally.wrong('the row says something else', f'{where}: given {states[0]}, row {row}')
    odd = [
        found
        for found in document['problems']
        if 'sibling' in found or name[:8] not in ('removes_', 'renames_')
    ]
    if odd and name not in ('replaces_its_files', 'writes_into_its_files', 'forbids_its_folder'):
        tally.wrong('check finds something', f'{where}: {odd[:3]}')


def strays(token):
    """Processes that carry the token in the environment they were started with."""
    found = {}
    for path in Path('/proc').glob('[0-9]*'):
        with contextlib.suppress(OSError):
            if token.encode() in (path / 'environ').read_bytes() and int(path.name) != os.getpid():
                line = (path / 'cmdline').read_bytes().replace(b'\0', b' ').decode(errors='replace')
                if line:  # else a zombie, whose parent will fetch it
                    found[int(path.name)] = line
    return found


def keep(tally, kind, names, tmp_path):
    """Run a keeper for these animals; nothing of it is left."""
    token = uuid.uuid4().hex
    environment = {**os.environ, 'ZOO_TOKEN': token}
    if TIMES == 5:
        environment['ZOO_FULL'] = '1'
    command = [sys.executable, str(HERE / 'zoo_keeper.py'), kind, str(TIMES), *names]
    with open(tmp_path / 'err', 'wb') as err, open(tmp_path / 'out', 'wb') as out:
        process = subprocess.Popen(
            command,
            cwd=tmp_path,
            stdout=out,
            stderr=err,
            stdin=subprocess.DEVNULL,
            env=environment,
            start_new_session=True,
        )
        try:
            process.wait(timeout=300 + 30 * len(names))
        except subprocess.TimeoutExpired:
            tally.wrong('the batch hangs', f'{kind}: after {(tmp_path / "answers").read_text()[-300:]}')
    documents = [json.loads(line) for line in (tmp_path / 'answers').read_text().splitlines()]
    daemons = {int(pid) for document in documents for pid in document.get('daemons', [])}
    if not documents or documents[-1] != {'ended': True}:
        last = documents[-1]['animal'] if documents else 'the first'
        tally.wrong(
            'the caller does not end',
            f'{kind}: {process.poll()} after {last}: {(tmp_path / "err").read_text()[-1500:]}',
        )
    for document in documents:
        if 'animal' in document:
            judge(tally, kind, document)
    until(lambda: not strays(token).keys() - daemons, 8)  # what sleeps for seconds by itself may do so
    for pid, line in strays(token).items():
        if pid not in daemons:
            tally.wrong('a stray process', f'{kind}: {pid} {line}')
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)


@pytest.mark.parametrize('kind', IN_WORKERS if IS_FULL else IN_WORKERS[:1])
def test_in_workers(kind, tmp_path, record):
    """Every animal, on each executor whose functions run in worker processes."""
    if kind in ('loky', 'dask'):
        pytest.importorskip({'loky': 'loky', 'dask': 'distributed'}[kind])
    tally = Tally('P9')
    keep(tally, kind, NAMES, tmp_path)
    tally.end(record)


@pytest.mark.parametrize('kind', ['inline', 'threads'] if IS_FULL else ['inline'])
def test_in_the_caller(kind, tmp_path, record):
    """Those that leave the process alive, in the process of the caller."""
    tally = Tally('P9')
    leave = NOT_INLINE | (NOT_ON_THREADS if kind == 'threads' else set())
    keep(tally, kind, [name for name in IN_CALLER if name not in leave], tmp_path)
    tally.end(record)


@pytest.mark.parametrize('kind', ['inline', 'threads'] if IS_FULL else ['inline'])
def test_that_kill_the_caller(kind, tmp_path, record):
    """Those that end the caller: the next opening finds a final state, and the siblings whole."""
    tally = Tally('P9')
    for name in KILLERS:
        for number in range(TIMES):
            base = tmp_path / f'{name}{number}'

            def work(base=base, name=name):
                with Project(base) as proj:
                    proj.resource('zoo')(zoo.compute)
                    items = [('sibling0', {}), (name, {'animal': name}), ('sibling1', {})]
                    proj.fetch_many('zoo', items, executor=kind, workers=1).wait()

            victim = Victim(tmp_path, work)
            victim.wait()
            tally.fault(kind)
            where = f'{name} on {kind}'
            if victim.code == 'hang':
                tally.wrong('it hangs', where)
            with Project(base) as proj:
                proj.resource('zoo')(zoo.compute)
                rows = {row.ident: (row.status, row.error_type) for row in proj.query('zoo')}
                if rows.get('sibling0') != ('completed', None):
                    tally.wrong('a sibling suffers', f'{where}: {rows}')
                if any(status == 'pending' for status, _ in rows.values()):
                    tally.wrong('no final state', f'{where}: {rows}')
                if rows.get(name, ('error', 0))[0] not in ('error', 'completed'):
                    tally.wrong('no final state', f'{where}: {rows}')
                if name in rows and proj.get('zoo', name).status != rows[name][0]:
                    tally.wrong('the row says something else', f'{where}: {rows}')
                if proj.fetch('zoo', 'sibling1').status != 'completed':
                    tally.wrong('what follows', where)
                findings = proj.check(deep=True).findings
                if findings:
                    tally.wrong('check finds something', f'{where}: {findings}')
    tally.end(record)
