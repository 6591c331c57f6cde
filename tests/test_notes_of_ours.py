"""Small files in .hadrosaur/: what stands in their place is neither followed, waited for nor believed."""

import json
import os
import socket
import sqlite3
import subprocess
import sys
from contextlib import closing, suppress

import pytest
from conftest import HANG

from hadrosaur import HadrosaurError, Project, basedir, wait_graph
from hadrosaur.cli import completion_values
from hadrosaur.errors import ProjectError
from hadrosaur.index import _rebuild
from hadrosaur.index._lock import IndexLock

NOT_NOTES = {
    'deep': lambda path: path.write_text('[' * 30_000 + ']' * 30_000),
    'a little deep': lambda path: path.write_text('{"format":' + '[' * 20_000),
    'no text': lambda path: path.write_bytes(b'\xff\xfe\x00{"format'),
    'wrong type': lambda path: path.write_text('{"format": [1], "lock": {}}'),
    'wrong lock': lambda path: path.write_text('{"format": 1, "lock": ["folder"]}'),
    'no object': lambda path: path.write_text('17'),
    'empty': lambda path: path.write_text(''),
    'huge': lambda path: (path.touch(), os.truncate(path, 10 << 30)),
    'fifo': os.mkfifo,
    'socket': lambda path: _bind(path),
    'folder': lambda path: path.mkdir(),
    'full folder': lambda path: (path / 'mine').mkdir(parents=True),
    'link': lambda path: path.symlink_to(path.parent.parent.parent / 'victim'),
    'broken link': lambda path: path.symlink_to('/nowhere/at/all'),
}


def _bind(path):
    here = os.open('.', os.O_RDONLY)
    try:
        os.chdir(path.parent)  # a socket's path may not be long
        with socket.socket(socket.AF_UNIX) as made:
            made.bind(path.name)
    finally:
        os.fchdir(here)
        os.close(here)


def hadrosaur(*words):
    """The command, as a user types it; only a hang reaches the timeout."""
    command = [sys.executable, '-m', 'hadrosaur', *map(str, words)]
    return subprocess.run(command, capture_output=True, text=True, timeout=HANG, check=False)


@pytest.fixture
def used(base):
    """A base with one computed resource, closed."""
    with Project(base) as proj:
        proj.resource('coll')(lambda ident, args, subdir: ident)
        proj.fetch('coll', 'a')
    return base


@pytest.mark.parametrize('kind', NOT_NOTES)
def test_whatever_stands_for_format_json_is_replaced_or_named(used, tmp_path, kind):
    """A format.json that we could not have written is made anew; what cannot be replaced is named."""
    (tmp_path / 'victim').write_text('precious')
    (used / '.hadrosaur/format.json').unlink()
    NOT_NOTES[kind](used / '.hadrosaur/format.json')
    with Project(used) as proj:
        proj.resource('coll')(lambda ident, args, subdir: ident)
        if kind == 'full folder':
            with pytest.raises(ProjectError, match=r'format\.json cannot be written'):
                proj.fetch('coll', 'b')
        else:
            assert proj.fetch('coll', 'b')['result'] == 'b'
            assert {row.ident for row in proj.query('coll')} == {'a', 'b'}
            assert json.loads((used / '.hadrosaur/format.json').read_text())['lock'] in basedir.LOCKS
    assert (tmp_path / 'victim').read_text() == 'precious'


def test_a_format_that_cannot_be_read_this_time_is_not_guessed(used, monkeypatch):
    """What is locked must be known: two that guess differently would compute one resource twice."""
    real = os.open

    def refuse(path, *given, **named):
        if path == 'format.json':
            raise OSError(24, 'Too many open files')
        return real(path, *given, **named)

    before = (used / '.hadrosaur/format.json').read_bytes()
    with Project(used) as proj:
        proj.resource('coll')(lambda ident, args, subdir: ident)
        monkeypatch.setattr(os, 'open', refuse)
        with pytest.raises(ProjectError, match='cannot be read'):
            proj.fetch('coll', 'b')
        monkeypatch.undo()
        assert proj.fetch('coll', 'b')['result'] == 'b'
    assert (used / '.hadrosaur/format.json').read_bytes() == before


@pytest.mark.parametrize('kind', NOT_NOTES)
def test_one_bad_request_to_cancel_hides_no_other(base, kind):
    """A request is one small text file; anything else in that folder is passed over."""
    basedir.request_cancel(str(base), 'coll/a', 'now')
    NOT_NOTES[kind](base / '.hadrosaur/cancel' / ('0' * 32))
    NOT_NOTES[kind](base / '.hadrosaur/cancel' / ('f' * 32))

    assert ('coll/a', 'now') in basedir.cancel_requests(str(base))


@pytest.mark.parametrize('kind', ['fifo', 'link', 'broken link', 'file'])
@pytest.mark.parametrize('name', ['', 'sessions', 'cancel', 'indexes'])
def test_folders_of_ours_are_never_links(used, tmp_path, name, kind):
    """No link in .hadrosaur is followed, and nothing is written through it: a clear word, or done without."""
    place = used / '.hadrosaur' / name
    (tmp_path / 'victim').mkdir()
    if place.exists():
        place.rename(tmp_path / 'old')
    if kind == 'file':
        place.write_text('mine')
    elif kind == 'link':
        place.symlink_to(tmp_path / 'victim')
    else:
        NOT_NOTES[kind](place)

    def ask():
        with Project(used, index=tmp_path / 'elsewhere.sqlite3') as proj:
            proj.resource('coll')(lambda ident, args, subdir: ident)
            proj.fetch('coll', 'b')
            proj.stats()
            proj.cancel('coll', 'a')

    if name == 'cancel':
        ask()
        with pytest.raises(ProjectError, match='not a folder'):
            basedir.request_cancel(str(used), 'coll/a', 'now')
    else:
        with pytest.raises(ProjectError, match='not a folder'):
            ask()
    assert os.listdir(tmp_path / 'victim') == []
    done = hadrosaur('status', used)
    assert 'Traceback' not in done.stderr
    assert done.returncode in (0, 2, 5)


def test_a_session_is_judged_by_its_own_host_alone(base, monkeypatch):
    """The host gpu clears away what is left of gpu, and nothing of gpu-1 or gpu-1-2."""
    monkeypatch.setattr(basedir, 'HOST', 'gpu')
    sessions = base / '.hadrosaur/sessions'
    sessions.mkdir(parents=True)
    others = ['gpu-1-123-0123abcd', 'gpu-1-2-123-0123abcd', 'gp-7-0123abcd', 'gpu-x', 'notes']
    ours = ['gpu-123-0123abcd', '.gpu-124-0123abcd.new']
    for name in (*others, *ours):
        (sessions / name).write_text('{}\n')
    with Project(base) as proj:
        mine = proj._base.session()
        assert sorted(os.listdir(sessions)) == sorted([*others, mine])


def test_what_is_left_of_beginning_a_session_is_swept_away_only_if_its_maker_is_gone(base, monkeypatch):
    """A session that is swept away before it had its lock is simply begun again."""
    first = Project(base)
    real, swept = basedir.fileops.try_lock, []

    def sweep(fd, **named):
        if not swept:
            swept.append(os.listdir(base / '.hadrosaur/sessions'))
            os.unlink(base / '.hadrosaur/sessions' / swept[0][0])
        return real(fd, **named)

    monkeypatch.setattr(basedir.fileops, 'try_lock', sweep)
    session = first._base.session()
    assert swept[0] == [f'.{session}.new']
    assert os.listdir(base / '.hadrosaur/sessions') == [session]
    first.close()


@pytest.mark.parametrize(
    'session', ['../../../victim', '/etc/hostname', 'a\0b', '..', '', 'x' * 5000, 'victim']
)
def test_a_row_names_no_file_as_its_session(used, tmp_path, session):
    """The session in a row leads nowhere: what is no session's name is nobody's, and nothing is deleted."""
    victims = [tmp_path / 'victim', used / 'victim', used / '.hadrosaur/victim']
    for victim in victims:
        victim.write_text('precious')
    with Project(used) as proj:
        row = proj.query()[0]
        index = proj._store.index
        index.session = session
        index.queue([row.change(ident='b', status='pending', path='coll/b')])
    with Project(used) as proj:
        assert [entry.ident for entry in proj.query()] == ['a']
    assert [victim.read_text() for victim in victims] == ['precious'] * 3


@pytest.mark.parametrize(
    'path', ['../victim/x', '/victim/x', 'coll/../../victim/x', 'linked/x', 'coll/..', '']
)
def test_what_a_row_says_of_its_path_is_never_gone_after(base, tmp_path, path):
    """Reading settles what dead processes left where collection and ident say, and nowhere else."""
    victim = tmp_path / 'victim/x'
    (victim / 'storage').mkdir(parents=True)
    for name in ('status.json', 'record.json', 'result.json', 'error.log'):
        (victim / name).write_text('{"completed": false, "pending": true, "error": false}\n')
    before = sorted((found.name, found.stat().st_mtime_ns) for found in victim.iterdir())
    with Project(base) as proj:
        proj.resource('coll')(lambda ident, args, subdir: ident)
        proj.fetch('coll', 'a')
        (base / 'linked').symlink_to(tmp_path / 'victim')
        row = proj.query()[0]
        for collection in ('coll', 'linked', '..', '.hadrosaur', '/'):
            proj._store.index.session = 'gone-1-00000000'
            hostile = row.change(collection=collection, ident='x', status='pending', path=path)
            proj._store.index.queue([hostile])
    assert hadrosaur('status', base).returncode == 0
    assert hadrosaur('rm', base, 'coll', 'x').returncode == 3
    with Project(base) as proj:
        proj.check(fix=True)
        assert [entry.ident for entry in proj.query()] == ['a']
    assert sorted((found.name, found.stat().st_mtime_ns) for found in victim.iterdir()) == before


def test_a_request_to_cancel_names_the_folder_that_the_ident_has(base, tmp_path, program):
    """Where the row says that it is does not matter."""
    with Project(base) as proj:
        proj.resource('coll')(lambda ident, args, subdir: ident)
        proj.fetch('coll', 'a')
        row, index = proj.query()[0], proj._store.index
        with Project(base) as other:
            index.session = other._base.session()
            index.queue([row.change(ident='b', status='pending', path='../victim/b')])
            assert proj.cancel('coll', 'b') == 1
            assert {path for path, _ in basedir.cancel_requests(str(base))} == {'coll/b'}
    with pytest.raises(HadrosaurError):
        proj.get('coll', 'nothing')


def test_no_folder_is_listed_by_its_path(base, monkeypatch):
    """What is listed was opened first, no link followed: one that is put there meanwhile leads nowhere."""
    with Project(base) as proj:
        proj.resource('coll')(lambda ident, args, subdir: ident)
        proj.fetch_many('coll', ['1', '2'], executor='inline').wait()
    with closing(sqlite3.connect(base / 'index.sqlite3')) as index:
        index.execute("UPDATE resources SET status = 'pending', session = 'gone'")
        index.commit()
    listed = []
    for name in 'listdir', 'scandir':
        real = getattr(os, name)
        monkeypatch.setattr(os, name, lambda at='.', real=real: listed.append(at) or real(at))
    with Project(base) as proj:
        proj.resource('coll')(lambda ident, args, subdir: ident)
        proj.stats()
        proj.cancel('coll', '2')
        proj.fetch('coll', '1', recompute=True)
        proj.reindex()
        proj.check(fix=True, deep=True)
        basedir.cancel_requests(str(base))
        step = (str(base), 'coll', '1')
        waits = wait_graph.Waits(f'{base}/.hadrosaur', (step,))
        assert waits.publish([(str(base), 'coll', '2')]) == set()
        waits.unqueue()
    assert list(completion_values._beginning(f'{base}/coll', '2')) == ['2']
    assert [at for at in listed if not isinstance(at, int) and str(at).startswith(str(base))] == []
    assert len(listed) > 10


def test_a_link_that_is_put_in_the_place_of_dot_hadrosaur_leads_nowhere(base, tmp_path, monkeypatch):
    """Just before the index is locked, or built: nothing is made where it leads."""
    (tmp_path / 'outside').mkdir()

    build, made = _rebuild.build, []

    def swapped_and_built(*args):
        (base / '.hadrosaur').rename(base / '.moved')
        (base / '.hadrosaur').symlink_to(tmp_path / 'outside')
        build(*args)
        made.extend(os.listdir(tmp_path / 'outside'))

    with Project(base) as proj:
        proj.resource('coll')(lambda ident, args, subdir: ident)
        proj.fetch('coll', '1')
        monkeypatch.setattr(_rebuild, 'build', swapped_and_built)
        with suppress(HadrosaurError):
            proj.reindex(fresh=True)
    assert (base / '.hadrosaur').is_symlink()
    with pytest.raises(OSError, match=r'\.hadrosaur'):
        IndexLock(f'{base}/.hadrosaur/index.lock')
    assert made == os.listdir(tmp_path / 'outside') == []
