"""A run writes into files of its own: what stood there before is emptied, replaced, or why it is refused."""

import json
import os
import socket
import stat
import subprocess
import sys

import pytest

from hadrosaur import directory, recover
from hadrosaur.directory.claim import Claim

FILES = ['status.json', 'result.json', 'stdout.log', 'stderr.log', 'error.log', 'record.json']
CANARY = b'{"precious": true}\n'


@pytest.fixture
def coll(proj):
    """A collection whose function prints its args, and fails if they say so."""

    @proj.resource('coll')
    def compute_it(ident, args, subdir):
        print('printed in', args)
        print('warned in', args, file=sys.stderr)
        assert not os.listdir(subdir)
        with open(f'{subdir}/kept', 'w') as kept:
            kept.write(str(args))
        if args.get('fails'):
            raise ValueError(f'failed in {args}')
        return args

    return proj


def examine(res, base, args):
    """What stands in a resource's folder after a run with these args is that run's and nobody else's."""
    folder = base / 'coll' / res.ident
    fails = 'fails' in args
    assert res.status == ('error' if fails else 'completed')
    assert json.loads((folder / 'status.json').read_bytes())[res.status] is True
    assert (folder / 'stdout.log').read_text() == f'printed in {args}\n'
    assert f'warned in {args}' in (folder / 'stderr.log').read_text()
    assert (folder / 'stderr.log').read_text().count('warned in') == 1
    assert (folder / 'storage/kept').read_text() == str(args)
    assert json.loads((folder / 'record.json').read_bytes())['args'] == args
    if fails:
        assert (folder / 'error.log').read_text().count('ValueError: failed in') == 1
        assert str(args) in (folder / 'error.log').read_text()
        assert not (folder / 'result.json').exists()
    else:
        assert json.loads((folder / 'result.json').read_bytes()) == args
        assert not (folder / 'error.log').exists() or not (folder / 'error.log').read_bytes()
    for path in folder.rglob('*'):
        if path.is_file():
            assert path.stat().st_nlink == 1
        assert not path.is_symlink()
    assert {path.name for path in folder.iterdir()} <= {*directory.FILES, directory.STORAGE}


ARGS = [{'n': 1}, {'fails': 1, 'n': 1}]


@pytest.mark.parametrize('after', ARGS, ids=['completes', 'fails'])
@pytest.mark.parametrize('before', ARGS, ids=['was completed', 'had failed'])
@pytest.mark.parametrize('gone', [['status.json'], ['status.json', 'record.json'], ['record.json'], []])
@pytest.mark.parametrize('way', ['inline', 'background'])
def test_nothing_of_the_last_run_is_left(coll, base, before, after, gone, way):
    """Logs, traceback, result and storage are one run's, whichever of the files was deleted by hand."""
    coll.fetch('coll', 'a', before | {'n': 0})
    for name in gone:
        (base / 'coll/a' / name).unlink()
    res = coll.fetch('coll', 'a', after, recompute=True, background=way == 'background', wait=True)
    examine(res, base, after)


@pytest.mark.parametrize('after', ARGS, ids=['completes', 'fails'])
@pytest.mark.parametrize('gone', [[], ['status.json'], ['record.json']])
def test_a_copy_by_hard_links_leaves_its_original(coll, base, after, gone):
    """Of `cp -al`, only the copy changes: its content, and the times and modes of the original's files."""
    coll.fetch('coll', 'a', {'n': 0})
    (base / 'coll/a/.lock').touch()
    subprocess.run(['cp', '-al', base / 'coll/a', base / 'coll/b'], check=True)
    original = {path: path.read_bytes() for path in (base / 'coll/a').rglob('*') if path.is_file()}
    times = {path: path.stat().st_mtime_ns for path in original}
    for name in gone:
        (base / 'coll/b' / name).unlink()
    res = coll.fetch('coll', 'b', after, recompute=True)
    (base / 'coll/b/.lock').unlink()
    examine(res, base, after)
    assert {path: path.read_bytes() for path in original} == original
    assert {path: path.stat().st_mtime_ns for path in original} == times


def test_a_lock_file_that_is_a_hard_link_is_locked_by_neither_for_the_other(base):
    """Original and copy can be computed at the same time, and each by one only."""
    (base / 'coll').mkdir(parents=True)
    taken = []
    first = Claim.take(str(base / 'coll'), 'a', lock='file')
    first.release()
    subprocess.run(['cp', '-al', base / 'coll/a', base / 'coll/b'], check=True)
    try:
        for ident in ('b', 'a'):
            taken.append(Claim.take(str(base / 'coll'), ident, lock='file'))
            assert taken[-1] is not None
            assert Claim.take(str(base / 'coll'), ident, lock='file') is None
    finally:
        for claim in filter(None, taken):
            claim.release()


def plant(path, kind, canary):
    """Put something of another kind in a file's place."""
    path.unlink(missing_ok=True)
    if kind == 'symlink':
        path.symlink_to(canary)
    elif kind == 'dangling':
        path.symlink_to(canary.with_name('nowhere'))
    elif kind == 'hard link':
        path.hardlink_to(canary)
    elif kind == 'fifo':
        os.mkfifo(path)
    elif kind == 'socket':
        with socket.socket(socket.AF_UNIX) as server:
            server.bind(os.path.relpath(path))
    elif kind == 'device':
        try:
            os.mknod(path, stat.S_IFCHR | 0o666, os.makedev(1, 3))
        except PermissionError:
            pytest.skip('only root makes devices')
    elif kind == 'folder':
        path.mkdir()


KINDS = ['symlink', 'dangling', 'hard link', 'fifo', 'socket', 'device', 'folder']


@pytest.mark.parametrize('name', FILES)
@pytest.mark.parametrize('kind', KINDS)
@pytest.mark.parametrize('state', ['first', 'completed'])
def test_what_is_no_file_of_its_own_is_replaced(coll, base, tmp_path, monkeypatch, name, kind, state):
    """Nothing is written through a link, nothing hangs, and afterwards a file stands there."""
    canary = tmp_path / 'canary'
    canary.write_bytes(CANARY)
    if state == 'completed':
        coll.fetch('coll', 'a', {'n': 0})
    else:
        (base / 'coll/a').mkdir()
    monkeypatch.chdir(base)
    plant(base / 'coll/a' / name, kind, canary)
    for args in ({'n': 2}, {'fails': 1, 'n': 3}):
        examine(coll.fetch('coll', 'a', args, recompute=True), base, args)
        assert canary.read_bytes() == CANARY
        assert canary.stat().st_nlink == 1
        assert {path.name for path in tmp_path.iterdir()} == {'base', 'canary'}


@pytest.mark.parametrize('name', FILES)
def test_a_folder_with_something_in_it_is_never_removed(coll, base, name):
    """It is refused before anything is touched, with its name and what to do."""
    coll.fetch('coll', 'a', {'n': 0})
    (base / 'coll/a' / name).unlink(missing_ok=True)
    (base / 'coll/a' / name).mkdir()
    (base / 'coll/a' / name / 'thesis.tex').write_text('ten years')
    before = {path: path.read_bytes() for path in (base / 'coll/a').rglob('*') if path.is_file()}
    res = coll.fetch('coll', 'a', {'n': 1}, recompute=True)
    assert res.status == 'error'
    assert name in res.error
    assert 'move it away' in res.error
    assert {path: path.read_bytes() for path in (base / 'coll/a').rglob('*') if path.is_file()} == before


@pytest.mark.parametrize('kind', ['symlink', 'dangling', 'file', 'fifo'])
@pytest.mark.parametrize('way', ['inline', 'processes', 'background'])
def test_a_storage_that_is_a_link_is_refused_before_anything_is_touched(coll, base, tmp_path, kind, way):
    """The old result stays and is served; the error says what to do; what it leads to is not emptied."""
    coll.fetch('coll', 'a', {'n': 0})
    storage = base / 'coll/a/storage'
    (tmp_path / 'big').mkdir()
    storage.rename(tmp_path / 'big/moved')
    if kind == 'file':
        storage.write_bytes(CANARY)
    elif kind == 'fifo':
        os.mkfifo(storage)
    else:
        storage.symlink_to(tmp_path / 'big' / ('moved' if kind == 'symlink' else 'nowhere'))
    before = {path: path.read_bytes() for path in (base / 'coll/a').iterdir() if path.is_file()}
    if way == 'processes':
        (res,) = coll.fetch_many('coll', ['a'], {'n': 1}, recompute=True, workers=1)
    elif way == 'inline':
        res = coll.fetch('coll', 'a', {'n': 1}, recompute=True)
    if way == 'background':
        coll.fetch('coll', 'a', {'n': 1}, recompute=True, background=True)
        coll.wait()
    else:
        assert res.status == 'error'
        assert 'storage is a link, or a file' in res.error
        assert {path: path.read_bytes() for path in (base / 'coll/a').iterdir() if path.is_file()} == before
    assert (tmp_path / 'big/moved/kept').read_text() == "{'n': 0}"
    assert coll.fetch('coll', 'a').result == {'n': 0}


class Killed(BaseException):
    """What ends a process between two calls, as nothing of ours can stop it."""


def killed_after(monkeypatch, count, names, act):
    """Do it, and end it at the so-manieth call of these functions of os; True where it came to its end."""
    left = [count]

    def counted(real):
        def call(*args, **more):
            left[0] -= 1
            if left[0] < 0:
                raise Killed
            return real(*args, **more)

        return call

    with monkeypatch.context() as patched:
        for name in names:
            patched.setattr(os, name, counted(getattr(os, name)))
        try:
            act()
        except Killed:
            return False
    return True


@pytest.mark.parametrize('keep_storage', [True, False])
def test_a_removal_that_is_killed_anywhere_leaves_nothing_to_a_later_run(
    proj, base, monkeypatch, keep_storage
):
    """Neither logs nor result, neither args nor files in storage that was to be kept."""
    found = []

    @proj.resource('coll', keep_storage=keep_storage)
    def compute_it(ident, args, subdir):
        found.append(sorted(os.listdir(subdir)))
        print('printed in', args)
        os.mkdir(f'{subdir}/deep')
        for name in ('x', 'y', 'deep/z'):
            open(f'{subdir}/{name}', 'w').close()
        return args

    for after in range(40):
        proj.fetch('coll', 'a', {'n': 'old'})
        names = ['unlink', 'rmdir', 'rename']
        is_done = killed_after(monkeypatch, after, names, lambda: proj.remove('coll', 'a'))
        if after == 0:  # nothing was done
            proj.remove('coll', 'a')
        res = proj.fetch('coll', 'a')
        assert res.result == {}
        assert (base / 'coll/a/stdout.log').read_text() == 'printed in {}\n'
        assert found[-1] == []
        assert {path.name for path in (base / 'coll/a').iterdir()} <= {*directory.FILES, 'storage'}
        proj.remove('coll', 'a')
        if is_done:
            break
    else:
        pytest.fail('it was killed each time')
    assert after > 5


@pytest.mark.parametrize('settled', [True, False])
def test_what_a_killed_replacement_left_is_swept(coll, base, settled):
    """Files, and folders, that were written beside ours; what a person put there stays."""
    coll.fetch('coll', 'a', {'n': 0})
    folder = base / 'coll/a'
    for name in FILES:
        (folder / f'.{name}.1234.5678.new').write_text('half')
    (folder / '.storage.12.34.new/deep').mkdir(parents=True)
    (folder / '.storage.12.34.new/deep/file').touch()
    (folder / '.notes.new').write_text('mine')
    if settled:
        (folder / 'status.json').write_bytes(directory.STATUS_BYTES['pending'])
        assert recover.recover('coll', 'a', str(base / 'coll'), 'a').entry.status == 'completed'
    else:
        coll.fetch('coll', 'a', {'n': 1}, recompute=True)
    assert {name for name in os.listdir(folder) if name[0] == '.'} <= {'.notes.new', '.lock'}
    assert (folder / '.notes.new').read_text() == 'mine'


def test_an_interrupted_run_has_no_result(coll, base):
    """Cut off before the old one was removed, or half way through the new one."""
    coll.fetch('coll', 'a', {'n': 0})
    folder = base / 'coll/a'
    record = json.loads((folder / 'record.json').read_bytes())
    (folder / 'record.json').write_text(json.dumps({**record, 'state': 'begun'}))
    (folder / 'status.json').write_bytes(directory.STATUS_BYTES['pending'])
    assert coll.get('coll', 'a').entry.error_type == 'Interrupted'
    assert not (folder / 'result.json').exists()


def test_a_file_that_the_function_left_in_the_place_of_ours(coll, base):
    """Nothing is written through what a function makes of its own folder."""

    @coll.resource('other')
    def links(ident, args, subdir):
        folder = os.path.dirname(subdir)
        with open(f'{subdir}/mine', 'w') as mine:
            mine.write('mine')
        for name in ('result.json', 'error.log'):
            os.link(f'{subdir}/mine', f'{folder}/{name}')
        if ident == 'fails':
            raise ValueError('on purpose')
        return 'value'

    assert coll.fetch('other', 'a').result == 'value'
    assert coll.fetch('other', 'fails').error.endswith('on purpose\n')
    for ident in ('a', 'fails'):
        assert (base / 'other' / ident / 'storage/mine').read_text() == 'mine'
