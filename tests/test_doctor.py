"""`doctor` names what is wrong with a base, its disk or this machine, and what to do; it only looks."""

import json
import os
import resource
import shutil
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest
from test_cli_tools import call
from test_transfer import files

from hadrosaur import Project, fileops, mounts
from hadrosaur.maintenance import doctor


@pytest.fixture
def used(base):
    """A base that is well."""
    with Project(base) as proj:
        proj.resource('coll')(lambda ident, args, subdir: 1)
        proj.fetch('coll', 'one')
    return base


def levels(base):
    """The worst level of each examination."""
    found = {}
    order = ['ok', 'note', 'fix', 'fault']
    for each in json.loads(call('doctor', base, '--json').stdout):
        found[each['about']] = max(found.get(each['about'], 'ok'), each['level'], key=order.index)
        assert each['to_do'] or each['level'] in ('ok', 'note')
    return found


def test_a_base_that_is_well(used):
    """Everything is told, nothing is changed, and the exit code is 0."""
    before = files(used)
    done = call('doctor', used)
    assert done.exit_code == 0, done.stdout
    abouts = [line.split('\t')[0] for line in done.stdout.splitlines()[1:]]
    assert set(abouts) == {
        'versions', 'file system', 'locks', 'space', 'permissions', 'index', 'leftovers', 'limits',
    }  # fmt: skip
    assert 'the locks hold' in done.stdout
    assert files(used) == before
    assert os.listdir(used / '.hadrosaur/sessions') == []
    assert call('doctor', used / 'nowhere').exit_code == 3


def mount(kind, options=''):
    return lambda path: mounts.Mount(kind, frozenset(options.split(',')))


@pytest.mark.parametrize(
    ('kind', 'level', 'word'),
    [
        ('ext4', 'ok', 'of this machine'),
        ('nfs4', 'fix', "index='/local/path"),
        ('cifs', 'fix', 'compute on one machine'),
        ('strange', 'note', 'not known'),
    ],
)
def test_file_systems_are_named(used, monkeypatch, kind, level, word):
    """With whether locks and index can be trusted there."""
    monkeypatch.setattr(mounts, 'mount_of', mount(kind))
    monkeypatch.setattr(mounts, 'LOCAL', frozenset({'ext4'}))
    assert levels(used)['file system'] == level
    assert word in call('doctor', used).stdout


def no_locks(*_, **more):
    return True


def refused(*_, **more):
    raise OSError(37, 'No locks available')


@pytest.mark.parametrize('lock', [no_locks, refused])
def test_locks_that_do_not_hold_are_a_fault(used, monkeypatch, lock):
    """They are tried, whatever the file system is called."""
    monkeypatch.setattr(fileops, 'try_lock', lock)
    assert levels(used)['locks'] == 'fault'
    assert call('doctor', used).exit_code == 5


def test_low_space_and_limits(used, monkeypatch):
    """Bytes, files and descriptors that may run out."""
    monkeypatch.setattr(doctor, 'free_space', lambda path: (10**8, 10**12))
    monkeypatch.setattr(resource, 'getrlimit', lambda which: (100, 1000))
    assert call('doctor', used).exit_code == 4
    found = levels(used)
    assert (found['space'], found['limits']) == ('fix', 'fix')
    assert 'hadrosaur gc' in call('doctor', used).stdout


def stamp(revision):
    def change(base):
        with closing(sqlite3.connect(base / 'index.sqlite3')) as driver, driver:
            driver.execute('UPDATE alembic_version SET version_num = ?', (revision,))

    return change


def foreign(base):
    (base / 'index.sqlite3').write_text('notes of mine')


def gone(base):
    (base / 'index.sqlite3').unlink()


@pytest.mark.parametrize(
    ('change', 'level'),
    [(stamp('9999_newer'), 'fault'), (stamp('0005_history'), 'note'), (foreign, 'fault'), (gone, 'note')],
)
def test_the_index_is_looked_at_and_left(used, change, level):
    """Newer, older, no index, none: said, and nothing is upgraded, rebuilt or set aside."""
    change(used)
    before = {path.name: path.read_bytes() for path in used.glob('index*')}
    assert levels(used)['index'] == level
    assert {path.name: path.read_bytes() for path in used.glob('index*')} == before


def test_leftovers_are_found(used, monkeypatch):
    """Of killed processes, imports, requests to cancel, and indexes set aside; each with what to do.

    The file of a session is none: programs seldom say that they end, and whoever computes next sweeps it up.
    """
    hidden = used / '.hadrosaur'
    host = os.uname().nodename
    (hidden / 'sessions' / f'{host}-1-0000000a').write_text('')
    (hidden / 'sessions' / f'{host}-1-0000000b.unwritten').write_text('')
    (hidden / f'incoming/{host}-1-0000000a.0000').mkdir(parents=True)
    (hidden / 'cancel').mkdir()
    for path in (hidden / 'cancel/old', hidden / '.format.json.1.new', used / 'index.sqlite3.damaged'):
        path.write_text('')
        os.utime(path, (1, 1))
    found = [
        each for each in json.loads(call('doctor', used, '--json').stdout) if each['about'] == 'leftovers'
    ]
    assert sorted(each['level'] for each in found) == ['fix', 'fix', 'fix', 'fix', 'note']
    assert all(each['to_do'] for each in found)
    assert any(each['found'].startswith('1 import cut off') for each in found)
    assert call('doctor', used).exit_code == 4


@pytest.mark.skipif(os.geteuid() == 0, reason='root may read everything')
def test_permissions(used):
    """What cannot be written or read, with the command that helps."""
    (used / 'coll').chmod(0o500)
    assert levels(used)['permissions'] == 'fix'
    (used / 'coll').chmod(0o700)


def test_links_and_a_newer_format(used, tmp_path):
    """What we would refuse at the first use is said before."""
    (used / '.hadrosaur/sessions').rmdir()
    (used / '.hadrosaur/sessions').symlink_to(tmp_path)
    assert levels(used)['permissions'] == 'fix'
    Path(used, '.hadrosaur/format.json').write_text('{"format": 99}')
    assert levels(used)['locks'] == 'fault'


def test_a_collection_behind_a_link_is_noted(used, tmp_path):
    """Its resources are not seen, and why is said; a base without .hadrosaur is not called read-only."""
    (used / 'coll').rename(tmp_path / 'elsewhere')
    (used / 'coll').symlink_to(tmp_path / 'elsewhere')
    assert 'coll is a link to a folder' in call('doctor', used).stdout
    assert call('doctor', used).exit_code == 0
    shutil.rmtree(used / '.hadrosaur')
    assert 'there is no .hadrosaur yet' in call('doctor', used).stdout
