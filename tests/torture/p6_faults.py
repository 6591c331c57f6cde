"""P6: a fault at any file operation costs only the resource being written, is said, and is mended by itself.

`trials.py` does each thing again and again, with a fault at the first, the second, … the last file operation
of the whole process tree, SQLite's included, and looks each time at what is left, and at what a second run
makes of it.
"""

import json
import os
import shutil
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from faults import Faults
from harness import IS_FULL, chance

ROOT = Path(__file__).parents[2]
SCENARIOS = [
    'first', 'inline', 'recompute', 'failing', 'cached', 'background', 'many', 'remove', 'reindex', 'fresh',
    'check', 'recovery', 'upgrade', 'building', 'run', 'rm',
]  # fmt: skip
FAULTS = [
    'ENOSPC', 'ENOSPC on', 'EDQUOT', 'EIO', 'EIO on', 'ESTALE', 'EMFILE', 'EMFILE on', 'short', 'kill',
    'EIO looking',
]  # fmt: skip
SURE = ['inline', 'many', 'check', 'upgrade', 'building', 'remove', 'run', 'rm', 'failing']
QUICK = 6  # trials of all scenarios together
CORES = len(os.sched_getaffinity(0)) if IS_FULL else 1
EACH = int(os.environ.get('HADROSAUR_COUNT', 0))  # so many k of each scenario and fault; 0: every k


@pytest.fixture(scope='module')
def place():
    """A folder in memory, where syncs cost nothing."""
    memory = Path('/dev/shm')
    where = memory if memory.is_dir() and os.access(memory, os.W_OK) else None
    folder = Path(tempfile.mkdtemp(prefix='hadrosaur-torture-', dir=where))
    yield folder
    shutil.rmtree(folder, ignore_errors=True)


def tried(place, wanted):
    """What came of each trial; as many programs at once as there are cores."""
    shards = [wanted[number::CORES] for number in range(CORES)]
    with ThreadPoolExecutor(CORES) as threads:
        done = list(threads.map(lambda number: shard(place / str(number), shards[number]), range(CORES)))
    return [trial for some in done for trial in some]


def shard(place, wanted):
    if not wanted:
        return []
    place.mkdir(exist_ok=True)
    with Faults(place, place / 'base', log_size=1 << 20) as faults:
        command = [sys.executable, str(Path(__file__).with_name('trials.py')), str(place), json.dumps(wanted)]
        environment = faults.environment(PYTHONPATH=f'{ROOT}{os.pathsep}{os.environ.get("PYTHONPATH", "")}')
        with subprocess.Popen(
            command, env=environment, stdout=subprocess.PIPE, text=True, start_new_session=True
        ) as running:
            try:
                done = [json.loads(line) for line in running.stdout]
                assert running.wait() == 0
            finally:
                running.kill()
    return done


def told(done):
    """What went wrong in which trials, for the reader."""
    for trial in done:
        for violation in trial['violations']:
            at = f'{trial["scenario"]}, {trial["fault"]} at {trial["at"]} ({trial["first"]})'
            yield f'{at}: {violation} | {trial["said"]} {trial["told"]}'


def judge(done, record):
    broken = [trial for trial in done if trial['violations']]
    record('P6', sum(trial['fired'] > 0 for trial in done), len(broken))
    assert not broken, '\n'.join([f'{len(broken)} of {len(done)}', *list(told(broken))[:40]])
    assert any(trial['fired'] for trial in done)


@pytest.fixture
def small_disk(tmp_path):
    """A file system of three megabytes, where root may mount one."""
    disk = tmp_path / 'disk'
    disk.mkdir()
    command = ['mount', '-t', 'tmpfs', '-o', 'size=3m', 'hadrosaur-torture', str(disk)]
    if os.geteuid() != 0 or subprocess.run(command, capture_output=True, timeout=300).returncode != 0:
        pytest.skip('only root can mount a small disk, and here not even root')
    yield disk
    subprocess.run(['umount', '-l', str(disk)], check=True, timeout=300)


FULL = """
    import os, sys, warnings
    from hadrosaur import HadrosaurError, HadrosaurWarning, Project

    warnings.simplefilter('default', HadrosaurWarning)
    has_index, executor = sys.argv[1] == 'index', sys.argv[2]
    proj = Project('disk/base')

    def register(proj):
        @proj.resource('coll')
        def compute(ident, args, subdir):
            print('a line')
            return {'ident': ident, 'pad': 'x' * 20_000}

    register(proj)
    for ident in 'a', 'b':
        assert proj.fetch('coll', ident).status == 'completed'
    if not has_index:
        proj.close()
        for end in '', '-wal', '-shm':
            if os.path.exists(f'disk/base/index.sqlite3{end}'):
                os.unlink(f'disk/base/index.sqlite3{end}')
        proj = Project('disk/base')
        register(proj)

    filler = os.open('disk/filler', os.O_CREAT | os.O_WRONLY)
    for size in 65536, 4096, 512, 1:
        try:
            while True:
                os.write(filler, bytes(size))
        except OSError:
            pass

    # What is there can be read.
    for ident in 'a', 'b':
        assert proj.fetch('coll', ident).result['ident'] == ident
        assert proj.get('coll', ident).result['ident'] == ident
    for look in (lambda: len(proj.query('coll')), proj.stats, proj.error_groups):
        try:
            print('look', look())
        except HadrosaurError as error:     # an index that must be built first has no room
            print('told', error)
            assert not has_index, error

    # What cannot be written is told of each.
    idents = [str(number) for number in range(20)]
    batch = proj.fetch_many('coll', idents, workers=2, executor=executor)
    ended = {res.ident: res for res in batch}
    assert ended.keys() == set(idents)
    assert batch.counts.error >= 15, batch.counts   # what was closed may have left some room
    for res in ended.values():
        if res.status == 'completed':
            assert res.result['ident'] == res.ident
        else:
            assert 'No space left' in str(res.error), (res.ident, res.error)
    try:
        proj.fetch('coll', 'a', recompute=True)     # it may be lost, but never silently
    except (HadrosaurError, OSError) as error:
        print('told', error)

    # With space again all of it is well, in this process and in the next.
    os.ftruncate(filler, 0)
    counts = proj.fetch_many('coll', idents[:10], workers=2, executor=executor).wait()
    assert counts.completed == 10, counts
    proj.close()
    proj = Project('disk/base')
    register(proj)
    assert not proj.query('coll', status='pending')
    counts = proj.fetch_many('coll', [*idents, 'a', 'b'], workers=2, executor=executor).wait()
    assert counts.completed == 22, counts
    assert len(proj.query('coll', status='completed')) == 22
    findings = proj.check(deep=True).findings
    assert not findings, findings
    proj.close()
"""


if IS_FULL:

    @pytest.mark.parametrize('scenario', SCENARIOS)
    def test_every_operation(place, scenario, record):
        """Every k, each fault: nothing torn is served, nothing is lost, nothing is stuck or untold."""
        numbers = [EACH, chance().random()] if EACH else None
        judge(tried(place, [[scenario, fault, numbers] for fault in FAULTS]), record)

    @pytest.mark.parametrize('executor', ['inline', 'threads', 'processes'])
    @pytest.mark.parametrize('index', ['index', 'no index'])
    def test_no_byte_free(small_disk, program, index, executor, record):
        """What is there can be read, what fails says why, and space brings all back."""
        done = program(FULL, index, executor, check=False)
        record('P6', 21, done.returncode != 0, f'no byte free, {executor}, {index}')
        assert done.returncode == 0, done.stdout + done.stderr
        assert 'Traceback' not in done.stderr, done.stderr

else:

    def test_short_writes_and_no_space(place, record):
        """In the folder of a resource, at every operation of a first run and of a recompute."""
        wanted = [['inline', 'short', None, 'coll/new/*'], ['recompute', 'ENOSPC', None, 'coll/long/*']]
        judge(tried(place, wanted), record)

    def test_a_fault_somewhere(place, record):
        """In a few scenarios: nothing torn is served, nothing is lost, nothing is stuck or untold."""
        chosen = chance()
        some = [[chosen.choice(SURE), chosen.choice(FAULTS[:-1]), [1, chosen.random()]] for _ in range(QUICK)]
        judge(tried(place, some), record)
