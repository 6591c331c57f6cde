"""Which file system a path is on, and what cannot be trusted there.

Two things depend on the file system. The claim on a resource is a lock (`flock`), which other machines see
only on some file systems. SQLite's write-ahead log needs memory that processes share, which works within one
machine only (https://sqlite.org/wal.html).

Linux lists mounts in /proc/self/mountinfo (proc_pid_mountinfo(5)); on other systems nothing is known, and no
warning is given.
"""

from __future__ import annotations

import os
import re
from typing import NamedTuple

MOUNTINFO = '/proc/self/mountinfo'

CARRIES_LOCKS = frozenset({
    'nfs', 'nfs4', 'ceph', 'fuse.ceph', 'fuse.ceph-fuse', 'glusterfs', 'fuse.glusterfs', 'gfs2',
    'ocfs2', 'lustre', 'fuse.juicefs',
})  # fmt: skip
"""File systems of several machines where each sees the locks of the others, as they are usually mounted."""

KEEPS_LOCKS = frozenset({
    'cifs', 'smb3', 'smbfs', '9p', 'virtiofs', 'vboxsf', 'fuse.vmhgfs-fuse', 'vmhgfs', 'prl_fs', 'drvfs',
    'afs', 'coda', 'ncpfs', 'gpfs', 'beegfs', 'pvfs2', 'fuse.sshfs', 'fuse.s3fs', 'fuse.gcsfuse',
    'fuse.goofys', 'fuse.rclone', 'fuse.davfs',
})  # fmt: skip
"""File systems that others may see too, where a lock may be known only to the machine that took it."""

LOCAL = frozenset({
    'ext2', 'ext3', 'ext4', 'xfs', 'btrfs', 'zfs', 'f2fs', 'jfs', 'nilfs2', 'reiserfs', 'bcachefs', 'tmpfs',
    'ramfs', 'overlay', 'vfat', 'exfat', 'ntfs', 'ntfs3', 'fuseblk', 'hfsplus', 'apfs', 'squashfs', 'erofs',
    'iso9660', 'udf',
})  # fmt: skip
"""File systems that belong to one machine: whatever is locked there, everybody knows."""

_OPTIONS_AGAINST = {
    'nfs': {'nolock', 'local_lock=flock', 'local_lock=all'},
    'nfs4': {'local_lock=flock', 'local_lock=all'},
    'lustre': {'noflock', 'localflock'},
}
"""Ways to mount that keep locks on one machine."""


class Mount(NamedTuple):
    """The file system that a path is on.

    Attributes:
        kind: Its type, such as ``ext4``.
        options: Its mount options.
    """

    kind: str
    options: frozenset[str]

    @property
    def is_shared(self) -> bool:
        """Whether other machines may see it."""
        return self.kind in CARRIES_LOCKS or self.kind in KEEPS_LOCKS

    @property
    def is_local(self) -> bool:
        """Whether it is known that no other machine sees it."""
        return self.kind in LOCAL

    @property
    def keeps_locks(self) -> bool:
        """Whether other machines may see it, but perhaps not the locks taken here."""
        if self.kind in KEEPS_LOCKS:
            return True
        return bool(self.options & _OPTIONS_AGAINST.get(self.kind, set()))


def mount_of(path: str) -> Mount | None:
    """Return the mount that a path is on; None if unknown."""
    real = os.path.realpath(path)
    best, found = '', None
    try:
        with open(MOUNTINFO, encoding='utf-8', errors='surrogateescape') as lines:
            for line in lines:
                point, mount = _parsed(line)
                # As long counts too: of two that are mounted on one place, the later hides the other.
                if len(point) >= len(best) and _is_below(real, point):
                    best, found = point, mount
    except (OSError, ValueError, IndexError):
        return None
    return found


def _parsed(line: str) -> tuple[str, Mount]:
    before, _, after = line.partition(' - ')
    fields, (kind, _, *rest) = before.split(), after.split()
    point = re.sub(r'\\([0-7]{3})', lambda match: chr(int(match[1], 8)), fields[4])
    options = {option for text in (fields[5], *rest) for option in text.split(',')}
    return point, Mount(kind, frozenset(options))


def _is_below(path: str, point: str) -> bool:
    return path == point or path.startswith(point.rstrip('/') + '/')


def mistrust(base: str, index: str) -> list[str]:
    """Return warnings about the file systems of a base and its index; usually none."""
    sentences = []
    on, under = mount_of(base), mount_of(os.path.dirname(index))
    if on is not None and on.keeps_locks:
        sentences.append(
            f'the base is on {on.kind}, where other machines may not see the locks of this one: compute on '
            'one machine at a time, or move it to NFSv4, CephFS or Lustre (mounted with flock)'
        )
    if under is not None and under.is_shared:
        sentences.append(
            f'the index is on {under.kind}, where SQLite may lose what is written from two machines: keep it '
            "on a local disk with Project(base, index='/local/path/index.sqlite3')"
        )
    return sentences
