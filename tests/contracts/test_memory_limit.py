"""`memory=`: a run that takes more is killed, with what it started, wherever runs have processes."""

import os
import re
import resource
import subprocess
import time

import pytest
from conftest import HANG, await_that
from test_executor_contract import cluster, killable  # noqa: F401  fixtures

from hadrosaur import ExecutorFault, MemoryExceeded, Project
from hadrosaur.executors import _memory
from hadrosaur.records import number_of_bytes

pytestmark = pytest.mark.skipif(not _memory.IS_POSSIBLE, reason='Linux only')
LIMIT = 150_000_000
MUCH = 260_000_000


def takes(ident, args, subdir):
    """Takes much memory, itself or in processes that it starts, or only what is not its own."""
    import mmap
    import multiprocessing
    import sys

    hog = 'import time; kept = bytearray(b"x") * int(sys.argv[1]); time.sleep(600)'
    command = [sys.executable, '-c', f'import sys; {hog}', str(args['bytes'])]
    if ident == 'itself':
        kept = bytearray(b'x') * args['bytes']
    elif ident == 'child':
        subprocess.run(command)
    elif ident == 'orphan':
        os.system(' '.join(map("'{}'".format, command)) + ' &')
    elif ident == 'new session':
        with open(args['pid'], 'w') as file:
            print(subprocess.Popen(command, start_new_session=True).pid, file=file)
    elif ident == 'several':
        for _ in range(4):
            subprocess.Popen([*command[:-1], str(args['bytes'] // 4)])
    elif ident == 'forked':  # what children of a fork share counts once
        kept = bytearray(b'x') * (args['bytes'] // 3)
        children = [
            multiprocessing.get_context('fork').Process(target=time.sleep, args=(0.7,)) for _ in range(4)
        ]
        for child in children:
            child.start()
        for child in children:
            child.join()
        return len(kept)
    elif ident == 'mapped':  # pages of a file are the system's to take back
        with open(os.path.join(subdir, 'file'), 'wb+') as file:
            for _ in range(args['bytes'] // 1_000_000):
                file.write(b'x' * 1_000_000)
            file.flush()
            with mmap.mmap(file.fileno(), 0, prot=mmap.PROT_READ) as mapped:
                total = sum(mapped[at] for at in range(0, len(mapped), 4096))
                time.sleep(0.5)
                return total
    else:
        return ident
    end = time.monotonic() + 60
    while time.monotonic() < end:
        time.sleep(0.01)
    return 'not killed'


def test_what_takes_more_is_killed(proj, killable):  # noqa: F811
    """It ends in MemoryExceeded, which tells peak and limit; its siblings complete."""
    proj.resource('coll', memory='150 MB')(takes)
    found = {
        each.ident: each
        for each in proj.fetch_many(
            'coll', ['a', 'itself', 'b', 'c'], {'bytes': MUCH}, executor=killable, workers=2
        )
    }
    assert [found[ident].result for ident in 'abc'] == ['a', 'b', 'c']
    killed = found['itself']
    assert killed.entry.error_type == 'MemoryExceeded'
    peak = re.fullmatch(
        r'the run took (\d+) MB of memory, more than the 150 MB that it may, and was killed',
        killed.entry.error,
    )
    assert LIMIT < int(peak[1]) * 1_000_000 <= 1.3 * MUCH
    assert abs(killed.entry.max_rss - int(peak[1]) * 1_000_000) < 1_000_000
    with pytest.raises(MemoryExceeded):
        _ = killed.value
    assert proj.query('coll', error_type='MemoryExceeded').idents() == ['itself']


@pytest.mark.parametrize('ident', ['child', 'orphan', 'new session', 'several'])
def test_what_it_started_counts_too(proj, ident, tmp_path):
    """Subprocesses, one whose own parent has ended, one with a session of its own, and their sum; all end."""
    proj.resource('coll', memory=LIMIT)(takes)
    found = proj.fetch('coll', ident, {'bytes': MUCH, 'pid': str(tmp_path / 'pid')})
    assert found.entry.error_type == 'MemoryExceeded', found.error
    if ident == 'new session':
        pid = (tmp_path / 'pid').read_text().strip()
        await_that(lambda: not _memory.own(pid))


@pytest.mark.parametrize('ident', ['forked', 'mapped'])
def test_what_is_not_its_own_does_not_count(proj, ident):
    """Neither pages that forked children share, more than once, nor pages of files that are mapped."""
    proj.resource('coll', memory=LIMIT)(takes)
    found = proj.fetch('coll', ident, {'bytes': MUCH})
    assert found.status == 'completed', found.error


def leaks(ident, args, subdir):
    """Leaves something behind in its process, and needs little itself."""
    vars(os).setdefault('_kept', []).append(bytearray(b'x') * 50_000_000)
    time.sleep(0.35)
    return os.getpid()


def test_a_run_is_not_blamed_for_what_others_left(proj):
    """A worker whose memory fills from run to run is replaced before it costs a run."""
    proj.resource('coll', memory=LIMIT)(leaks)
    found = list(proj.fetch_many('coll', range(4), workers=1))
    assert {each.status for each in found} == {'completed'}
    assert len({each.result for each in found}) > 1


def test_fetch_and_inline_compute_it_in_a_process(proj):
    """As with a timeout: `fetch`, background work and executor='inline' keep the limit."""
    proj.resource('coll', memory=LIMIT, retries=1)(takes)
    assert proj.fetch('coll', 'itself', {'bytes': MUCH}).entry.error_type == 'MemoryExceeded'
    [found] = proj.fetch_many('coll', {'itself': {'bytes': MUCH}}, executor='inline', recompute=True)
    assert (found.entry.error_type, found.entry.attempt) == ('MemoryExceeded', 4)


def test_threads_are_refused(proj):
    """A thread has no memory of its own: that is said at the call."""
    proj.resource('coll', memory='1 GB')(takes)
    with pytest.raises(ExecutorFault, match='limit of memory'):
        proj.fetch_many('coll', ['a'], executor='threads').wait()


@pytest.mark.parametrize(
    ('given', 'meant'),
    [
        ('2 GB', 2_000_000_000),
        ('2gb', 2_000_000_000),
        ('1.5 GiB', 3 << 29),
        ('512MiB', 512 << 20),
        (' 3M ', 3_000_000),
        ('5000000', 5_000_000),
        (2e9, 2_000_000_000),
        (None, None),
    ],
)
def test_sizes_as_people_write_them(proj, given, meant):
    """Bytes, or a text with a unit: of 1000 (GB) or of 1024 (GiB)."""
    assert number_of_bytes(given) == meant
    proj.resource('coll', memory=given)(takes)


@pytest.mark.parametrize(
    'given',
    [
        'much',
        '2 GBs',
        '-1 GB',
        '',
        'GB',
        2,
        '2',
        0,
        -5,
        True,
        float('nan'),
        float('inf'),
        [1],
        b'2 GB',
        '2 iB',
    ],
)
def test_what_is_no_size_is_refused(proj, given):
    """At registration, in words."""
    with pytest.raises(ValueError, match='memory'):
        proj.resource('coll', memory=given)(takes)


def test_looking_is_cheap():
    """A process that is none of the run's is looked at once, not at every look."""
    worker = subprocess.Popen(['sleep', '600'], start_new_session=True)
    try:
        watch = _memory.Watch()
        assert await_that(lambda: watch.exceeding({worker.pid: 1}), HANG)[worker.pid][0] > 1000
        assert os.getpid() in watch._strangers
        assert worker.pid not in watch._strangers
        assert watch.exceeding({worker.pid: 1 << 60}) == {}
    finally:
        worker.kill()
        worker.wait()


def test_looking_needs_no_descriptor_that_is_not_to_be_had():
    """Where the program or the worker has no descriptor left, that is no reason to end."""
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    watch = _memory.Watch()
    resource.setrlimit(resource.RLIMIT_NOFILE, (3, limits[1]))
    try:
        assert (watch.exceeding({1: 1}), _memory.resident()) == ({}, 0)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)


def test_a_module_that_takes_more_is_no_riddle(tmp_path):
    """What is taken before the function begins ends in the same error, and leaves the folder as it was."""
    with Project(tmp_path / 'base') as proj:

        class Hog:
            def __reduce__(self):
                return eval, ("(kept := bytearray(b'x') * 400_000_000, __import__('time').sleep(60))",)

        hog = Hog()
        proj.resource('coll', memory=LIMIT)(lambda ident, args, subdir: hog is None)
        [found] = proj.fetch_many('coll', ['a'], workers=1)
        assert found.entry.error_type == 'MemoryExceeded'
        assert 'could begin' in found.entry.error
        assert len(proj.query()) == 0
