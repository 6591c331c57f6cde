"""Where folders cannot be locked, a file in each serves instead: the same promises hold."""

import errno
import json
import os
import sqlite3
import stat
import threading

import pytest
from conftest import HANG, await_that

from hadrosaur import Project, fileops, recover
from hadrosaur.directory.claim import Claim

PENDING = '{"completed": false, "pending": true, "error": false}\n'


@pytest.fixture
def proj(base):
    """A project on a disk that does not lock folders."""
    (base / '.hadrosaur').mkdir(parents=True)
    (base / '.hadrosaur/format.json').write_text(json.dumps({'format': 1, 'lock': 'file'}))
    with Project(base) as project:
        yield project
        project.close(cancel=True)


def without_locks_of_folders(put):
    """Where folders can be locked, they are beside the file."""
    real = fileops.lock_within

    def lock_within(fd, patience):
        if stat.S_ISDIR(os.fstat(fd).st_mode):
            raise OSError(errno.ENOLCK, 'folders have no locks here')
        return real(fd, patience)

    put(fileops, 'lock_within', lock_within)


def test_what_is_computed_is_locked_everywhere(proj, base, tmp_path):
    """The caller, a function in a worker that asks for it, another project and check agree that it runs."""
    go = tmp_path / 'go'

    @proj.resource('dep')
    def dep(ident, args, subdir):
        (tmp_path / f'began {threading.get_native_id()}').touch()
        while not go.exists():
            threading.Event().wait(0.002)
        return ident

    @proj.resource('outer')
    def outer(ident, args, subdir):
        without_locks_of_folders(setattr)
        (base / 'dep/x/status.json').unlink()  # which does not mean that nobody computes it
        return proj.fetch('dep', 'x', wait=False).status

    running = threading.Thread(target=proj.fetch, args=('dep', 'x'))
    running.start()
    await_that(lambda: list(tmp_path.glob('began *')))
    try:
        assert [res['result'] for res in proj.fetch_many('outer', ['a'], workers=1)] == ['pending']
        with Project(base) as other:
            other.resource('dep')(dep)
            assert other.fetch('dep', 'x').status == 'pending'
            (base / 'dep/x/status.json').write_text(PENDING)
            with sqlite3.connect(base / 'index.sqlite3') as index:
                index.execute("UPDATE resources SET session = NULL WHERE collection = 'dep'")
            assert other.check().findings == []
    finally:
        go.touch()
        running.join(HANG)
    assert proj.get('dep', 'x')['result'] == 'x'
    assert len(list(tmp_path.glob('began *'))) == 1


def test_a_lock_file_that_was_replaced_is_no_lock(base, monkeypatch):
    """Who settles a folder that was never begun unlinks it, perhaps between another's opening and locking."""
    folder = base / 'c/x'
    (folder / 'storage').mkdir(parents=True)
    (folder / 'storage/mine').touch()
    (folder / 'status.json').write_text(PENDING)
    real, settled = fileops.lock_within, []

    def lock_within(fd, patience):
        if not settled:
            settled.append(None)
            settled.append(recover.recover('c', 'x', str(base / 'c'), 'x', lock='file'))
        return real(fd, patience)

    monkeypatch.setattr(fileops, 'lock_within', lock_within)
    first = Claim.take(str(base / 'c'), 'x', lock='file')
    assert settled == [None, recover.Recovered(None)]
    assert first is not None
    assert Claim.take(str(base / 'c'), 'x', lock='file') is None
    first.release()


def test_a_lock_file_that_another_has_made_meanwhile_is_theirs(base, monkeypatch):
    """What was opened is unlinked, and somebody holds a new one: that one counts."""
    (base / 'c/x').mkdir(parents=True)
    without_locks_of_folders(monkeypatch.setattr)
    real, theirs = fileops.lock_within, []

    def lock_within(fd, patience):
        if not theirs:
            (base / 'c/x/.lock').unlink()
            theirs.append(None)
            theirs.append(Claim.take(str(base / 'c'), 'x', lock='file'))
        return real(fd, patience)

    monkeypatch.setattr(fileops, 'lock_within', lock_within)
    assert Claim.take(str(base / 'c'), 'x', lock='file') is None
    theirs[1].release()
