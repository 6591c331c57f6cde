"""Two machines that share a base: files are locked, since locks of folders stay on one machine."""

import json
import sys

import pytest
from conftest import HANG, await_that

from hadrosaur import Project, mounts
from hadrosaur.directory.claim import Claim

# A host of its own name, on a disk that is not known to be local; the locks of folders are its own.
HOST = """
    import fcntl, os, stat, sys, time
    from pathlib import Path
    here, index = sys.argv[1:3]
    known, flock = os.uname(), fcntl.flock
    os.uname = lambda: os.uname_result((known[0], here, *known[2:]))

    def flock_of_files(fd, how):
        return None if stat.S_ISDIR(os.fstat(fd).st_mode) else flock(fd, how)

    fcntl.flock = flock_of_files
    from hadrosaur import Project, mounts
    mounts.LOCAL = frozenset()
    proj = Project('base', index=None if index == 'shared' else f'{here}.sqlite3')

    @proj.resource('c')
    def compute(ident, args, subdir):
        os.close(os.open(f'ran-{ident}', os.O_CREAT | os.O_EXCL))
        if ident == 'long':
            Path('began').touch()
            while not os.path.exists('go'):
                time.sleep(0.002)
        return [ident, here]
"""


def lock_of(base):
    return json.loads((base / '.hadrosaur/format.json').read_text())['lock']


@pytest.mark.long
@pytest.mark.parametrize('index', ['shared', 'own'])
def test_two_hosts_compute_nothing_twice(program, tmp_path, index):
    """However many processes of two hosts ask for the same resources, each is computed once."""
    source = (
        HOST
        + """
    import random
    idents = [f'{number}' for number in range(60)]
    random.Random(sys.argv[3]).shuffle(idents)
    for ident in idents:
        assert proj.fetch('c', ident, wait=True).value[0] == ident
    proj.close()
    """
    )
    started = [
        program(source, host, index, seed, start=True) for seed in range(2) for host in ('node', 'node-1')
    ]
    for process in started:
        _, err = process.communicate(timeout=HANG)
        assert process.returncode == 0, err
    assert len(list(tmp_path.glob('ran-*'))) == 60
    assert lock_of(tmp_path / 'base') == 'file'


@pytest.mark.parametrize('index', ['shared', 'own'])
def test_what_another_host_computes_is_not_taken_for_dead(program, tmp_path, index):
    """Reading, checking and fetching on one host leave alone what runs on the other, until that is gone."""
    running = program(HOST + "    proj.fetch('c', 'long')\n", 'node-1', index, start=True)
    await_that((tmp_path / 'began').exists)
    look = (
        HOST
        + """
    assert proj.fetch('c', 'long').status == 'pending'
    proj.reindex()
    assert not [finding for finding in proj.check().findings if finding.kind != 'missing'], proj.check()
    print(proj.get('c', 'long').status, proj.query(ident='long')[0].status)
    proj.close()
    """
    )
    assert program(look, 'node', index).stdout == 'pending pending\n'

    running.kill()
    running.wait()
    end = HOST + "    print(proj.get('c', 'long').status)\n    proj.close()\n"
    assert program(end, 'node', index).stdout == 'error\n'


def test_where_the_disk_is_shared_the_choice_is_corrected(base, monkeypatch):
    """A base of an older release that locks folders there locks files from now on, and never goes back."""
    Project(base).close()
    assert Project(base)._base.lock == ('folder' if mounts.LOCAL else 'file')
    path = base / '.hadrosaur/format.json'
    path.write_text(json.dumps({**json.loads(path.read_text()), 'lock': 'folder'}))
    with monkeypatch.context() as patched:
        patched.setattr(mounts, 'LOCAL', frozenset())
        assert Project(base)._base.lock == 'file'
    assert lock_of(base) == 'file'
    assert Project(base)._base.lock == 'file'


@pytest.mark.parametrize(
    'kind', sorted(mounts.CARRIES_LOCKS | mounts.KEEPS_LOCKS | {'fuse.new', 'newfs', 'none'})
)
def test_files_are_locked_on_all_that_is_not_known_to_be_local(base, tmp_path, monkeypatch, kind):
    """Shared file systems, and those that nobody has heard of."""
    table = tmp_path / 'mountinfo'
    table.write_text(f'1 0 0:1 / / rw - ext4 /dev/x rw\n2 1 0:2 / {tmp_path} rw - {kind} server:/x rw\n')
    monkeypatch.setattr(mounts, 'MOUNTINFO', str(table))

    assert Project(base)._base.lock == 'file'
    assert lock_of(base) == 'file'


def test_who_locks_files_locks_the_folder_too(base):
    """A process that read the old choice is kept out by one that knows the new, and the other way round."""
    (base / 'c').mkdir(parents=True)
    for first, second in (('file', 'folder'), ('folder', 'file')):
        claim = Claim.take(str(base / 'c'), 'x', lock=first)
        assert claim is not None
        assert Claim.take(str(base / 'c'), 'x', lock=second, patience=0.0) is None
        claim.release()
        other = Claim.take(str(base / 'c'), 'x', lock=second, patience=0.0)
        assert other is not None
        other.release()


@pytest.mark.skipif(sys.platform != 'linux', reason='tells by /proc')
def test_a_claim_of_both_leaves_nothing_open(base):
    """Neither taking both locks nor failing to leaves a descriptor."""
    import os

    (base / 'c').mkdir(parents=True)
    before = len(os.listdir('/proc/self/fd'))
    claim = Claim.take(str(base / 'c'), 'x', lock='folder')
    assert Claim.take(str(base / 'c'), 'x', lock='file', patience=0.0) is None
    claim.release()
    Claim.take(str(base / 'c'), 'x', lock='file', patience=0.0).release()
    assert len(os.listdir('/proc/self/fd')) == before
