"""P18: a file system whose locks cannot be trusted is found out and named, with what to do: every type."""

import re
from pathlib import Path

import pytest
import test_mounts
from harness import count
from tally import Tally
from test_mounts import line, told

from hadrosaur import mounts

LEAST = count(200, quick=15)  # faked types, options and places
mounted = test_mounts.mounted

LOCAL = [
    'ext2',
    'ext3',
    'ext4',
    'xfs',
    'btrfs',
    'zfs',
    'f2fs',
    'bcachefs',
    'tmpfs',
    'ramfs',
    'overlay',
    'apfs',
    'hfsplus',
    'jfs',
    'reiserfs',
    'nilfs2',
    'squashfs',
    'iso9660',
    'vfat',
    'exfat',
    'ntfs3',
    'fuseblk',
    'fuse.fuse-overlayfs',
    'fuse.mergerfs',
    'erofs',
    'udf',
    'ufs',
    'minix',
    'devtmpfs',
]
OTHERS = [
    'fuse.unheard-of',
    'orangefs',
    'unheard-of-fs',
    'fuse.mount',
    'panfs',
    'wekafs',
    'quobyte',
    'fuse.quobyte',
    'pvfs2',
    'acfs',
    'cvfs',
    'fuse.moosefs',
    'fuse.mfs',
    'fuse.lizardfs',
    'fuse.seaweedfs',
]
AGAINST = [
    ('nfs', 'rw,vers=3,nolock'),
    ('nfs', 'rw,local_lock=flock'),
    ('nfs', 'rw,local_lock=all'),
    ('nfs4', 'rw,local_lock=flock'),
    ('nfs4', 'rw,local_lock=all'),
    ('lustre', 'rw,localflock'),
    ('lustre', 'rw,noflock'),
]


def kernel_types():
    """What the kernel of this machine knows."""
    try:
        return sorted({row.split()[-1] for row in Path('/proc/filesystems').read_text().splitlines()})
    except OSError:
        return []


def judge(tally, kind, options, sentences):
    """Each sentence names the type and says what to do; what should be said is said."""
    base = [text for text in sentences if 'the base is on' in text]
    index = [text for text in sentences if 'the index is on' in text]
    mount = mounts.Mount(kind, frozenset(options.split(',')))
    tally.fault('type')
    for text in sentences:
        if kind not in text:
            tally.wrong('it is not named', f'{kind}: {text}')
        if not re.search(r'move it to|index=|compute on one machine', text):
            tally.wrong('what to do is not said', f'{kind}: {text}')
    if kind in LOCAL and sentences:
        tally.wrong('a local disk is mistrusted', f'{kind}: {sentences}')
    if mount.keeps_locks and not base:
        tally.wrong('locks are trusted', f'{kind} {options}')
    if mount.is_shared and not index:
        tally.wrong('the index is trusted', f'{kind} {options}')


def test_every_type(mounted, tmp_path, record):
    """Local, clustered, network, with every option that matters, at several mount points."""
    tally = Tally('P18')
    shared = sorted(mounts.KEEPS_LOCKS | mounts.CARRIES_LOCKS)
    kinds = [(kind, 'rw') for kind in [*LOCAL, *shared, *OTHERS]] + AGAINST
    kinds += [(kind, 'rw') for kind in kernel_types() if kind not in LOCAL and not kind.startswith('fuse')]
    number = 0
    places = [tmp_path, tmp_path.parent, '/']
    while tally.faults < LEAST:
        for kind, options in kinds:
            place = places[number % len(places)]
            mounted(line(place, kind, options))
            folder = tmp_path / f'base{number}'
            number += 1
            try:
                judge(tally, kind, options, told(folder))
            except Exception as error:
                tally.wrong(f'{type(error).__name__} is raised', f'{kind} {options}: {error}')
            if tally.faults >= LEAST:
                break
    tally.end(record, at_least=LEAST)


@pytest.mark.parametrize('kind', ['nfs4', 'cifs', 'fuse.sshfs', '9p'])
def test_two_mounts(mounted, tmp_path, kind, record):
    """Of a base and an index on two file systems each is judged by its own."""
    tally = Tally('P18')
    (tmp_path / 'far').mkdir()
    (tmp_path / 'near').mkdir()
    mounted(line(tmp_path / 'far', kind))
    near = told(tmp_path / 'far/base', index=tmp_path / 'near/index.sqlite3')
    tally.fault('two')
    if any('the index' in text for text in near):
        tally.wrong('the index is local', near)
    far = told(tmp_path / 'near/base', index=tmp_path / 'far/index.sqlite3')
    tally.fault('two')
    if not any('the index is on' in text and kind in text for text in far):
        tally.wrong('the index is trusted', far)
    if any('the base' in text for text in far):
        tally.wrong('the base is local', far)
    tally.end(record)
