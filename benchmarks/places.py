"""Fresh directories, on a disk that remembers what was deleted.

ext4 does not hand out an inode again in the minutes after it was freed; it passes over each of them at
every creation. Where many files were deleted lately, anywhere in the same block group, a create costs
up to 4 000 µs instead of 20 (measured: a folder of seven inodes 115 µs, after an `rm -r` 3 700). So
nothing is deleted before the end, each contender gets a folder of its own in each round, the folders are
spread over the disk, and one where a create is dear is left for another.
"""

import contextlib
import fcntl
import os
import secrets
import struct
import time

TRIES = 12
"""Folders that are tried before the best of them is taken."""

LEARN = 4
"""Folders that are tried at first, to learn what a create costs here."""

_PROBES = 24  # files that are made to find out

_GET_FLAGS, _SET_FLAGS = 0x80086601, 0x40086602  # FS_IOC_GETFLAGS and FS_IOC_SETFLAGS of Linux
_TOP_FOLDER = 0x20000  # `chattr +T`: the folders in it have nothing to do with each other


class Places:
    """Makes folders under ``root``.

    Attributes:
        best: Seconds that a create costs in the best of them.
        last: The same, in the last one that was given out.
    """

    def __init__(self, root):
        self.root = root
        self.best = self.last = float('inf')
        _spread(root)

    def fresh(self, name):
        """A new empty folder in a part of the disk where creating is cheap."""
        found = []
        for tried in range(TRIES):
            path = f'{self.root}/{name.replace(" ", "-").replace("/", "-")}-{secrets.token_hex(4)}'
            os.mkdir(path)
            found.append((_cost_of_a_file(f'{path}/probe'), path))
            cost, path = min(found)
            enough = LEARN if self.best == float('inf') else 1
            if tried + 1 >= enough and cost <= 2 * self.best:
                break
        self.last = cost
        self.best = min(self.best, cost)
        os.mkdir(f'{path}/base')
        return f'{path}/base'


def _cost_of_a_file(path):
    """Seconds to make a file in a new folder."""
    os.mkdir(path)
    start = time.perf_counter()
    for each in range(_PROBES):
        os.close(os.open(f'{path}/{each}', os.O_WRONLY | os.O_CREAT))
    return (time.perf_counter() - start) / _PROBES


def _spread(path):
    """Have the folders in ``path`` made in different parts of the disk, where it is ext4."""
    with contextlib.suppress(OSError):
        fd = os.open(path, os.O_RDONLY)
        try:
            flags = bytearray(8)
            fcntl.ioctl(fd, _GET_FLAGS, flags)
            (number,) = struct.unpack('l', flags)
            fcntl.ioctl(fd, _SET_FLAGS, struct.pack('l', number | _TOP_FOLDER))
        finally:
            os.close(fd)
