"""File systems whose locks or shared memory cannot be trusted are found out and named, with what to do."""

import warnings

import pytest

from hadrosaur import HadrosaurWarning, Project, mounts


@pytest.fixture
def mounted(tmp_path, monkeypatch):
    """Pretend that the test's folders are on other file systems, as the kernel would tell it."""

    def pretend(*lines):
        path = tmp_path / 'mountinfo'
        root = '1 0 8:1 / / rw,relatime shared:1 - ext4 /dev/sda1 rw'
        path.write_text('\n'.join([root, *lines]) + '\n')
        monkeypatch.setattr(mounts, 'MOUNTINFO', str(path))

    return pretend


def line(point, kind, options='rw'):
    """One line of /proc/self/mountinfo; blanks in the mount point are written in octal there."""
    escaped = str(point).replace(' ', r'\040')
    return f'36 35 98:0 /mnt1 {escaped} rw,noatime master:1 - {kind} server:/export {options}'


def told(base, **options):
    """The warnings of a program's first use of an index."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter('always')
        with Project(base, **options) as proj:
            proj.resource('coll')(lambda ident, args, subdir: ident)
            assert proj.fetch('coll', 'a').status == 'completed'
    return [str(warning.message) for warning in caught if warning.category is HadrosaurWarning]


@pytest.mark.parametrize('kind', sorted(mounts.KEEPS_LOCKS))
def test_locks_that_stay_on_one_machine_are_named(mounted, tmp_path, kind):
    """Base and index on such a file system: two warnings, each with what to do."""
    mounted(line(tmp_path, kind))
    locks, index = told(tmp_path / 'base')

    assert f'the base is on {kind}, where other machines may not see the locks' in locks
    assert 'compute on one machine at a time' in locks
    assert f'the index is on {kind}' in index
    assert "Project(base, index='/local/path/index.sqlite3')" in index


@pytest.mark.parametrize('kind', sorted(mounts.CARRIES_LOCKS))
def test_a_cluster_file_system_wants_the_index_elsewhere(mounted, tmp_path, kind):
    """Its locks hold, but SQLite's shared memory is that of one machine; with a local index all is well."""
    (tmp_path / 'shared').mkdir()
    mounted(line(tmp_path / 'shared', kind))

    [index] = told(tmp_path / 'shared/base')
    assert f'the index is on {kind}' in index
    assert told(tmp_path / 'shared/other', index=tmp_path / 'local.sqlite3') == []


@pytest.mark.parametrize(
    ('kind', 'options'),
    [
        ('nfs', 'rw,vers=3,nolock'),
        ('nfs4', 'rw,local_lock=flock'),
        ('nfs', 'rw,local_lock=all'),
        ('lustre', 'rw,localflock'),
        ('lustre', 'rw,noflock'),
    ],
)
def test_the_way_it_is_mounted_counts(mounted, tmp_path, kind, options):
    """Options that keep locks on one machine are seen."""
    mounted(line(tmp_path, kind, options))

    assert 'may not see the locks' in told(tmp_path / 'base')[0]
    assert not mounts.Mount(kind, frozenset({'rw'})).keeps_locks


@pytest.mark.parametrize('kind', ['ext4', 'xfs', 'btrfs', 'zfs', 'tmpfs', 'overlay', 'fuseblk', 'apfs'])
def test_local_disks_are_trusted(mounted, tmp_path, kind):
    """Nothing is said of them."""
    mounted(line(tmp_path, kind))

    assert told(tmp_path / 'base') == []


def test_the_innermost_mount_counts(mounted, tmp_path):
    """The longest mount point above the path, the last of two on one place, blanks and links resolved."""
    deep = tmp_path / 'with blank'
    (deep / 'base').mkdir(parents=True)
    (tmp_path / 'link').symlink_to(deep)
    (tmp_path / 'with').mkdir()
    mounted(line(tmp_path, 'nfs4'), line(deep, 'cifs'), line(deep, 'xfs'), line(tmp_path / 'wi', 'ceph'))

    assert mounts.mount_of(str(deep / 'base')).kind == 'xfs'
    assert mounts.mount_of(str(tmp_path / 'link/base')).kind == 'xfs'
    assert mounts.mount_of(str(tmp_path / 'with')).kind == 'nfs4'
    assert mounts.mount_of('/').kind == 'ext4'


def test_where_nothing_is_known_nothing_is_said(tmp_path, monkeypatch):
    """On systems without /proc, and on lines that are not understood."""
    monkeypatch.setattr(mounts, 'MOUNTINFO', str(tmp_path / 'none'))
    assert mounts.mount_of('/') is None
    (tmp_path / 'none').write_text('gibberish\n')
    assert mounts.mount_of('/') is None
    assert told(tmp_path / 'base') == []


def test_looking_is_quiet(mounted, tmp_path):
    """Commands that only look do not repeat it."""
    told(tmp_path / 'base')
    mounted(line(tmp_path, 'cifs'))
    with warnings.catch_warnings():
        warnings.simplefilter('error')
        with Project(tmp_path / 'base', create=False) as proj:
            assert len(proj.query()) == 1
