"""What a function has printed of a line that it has not ended, where its caller finds it after a kill.

Standard output is written line by line, so that the lines of several threads and processes stay whole; the
front of an unfinished line waits in the process, and would be lost with it: dots of progress, "fetching
page 7 ...". So a worker keeps a copy of that front in a few pages of memory that it shares with its caller.
When the worker is killed or crashes, the caller puts them at the end of the log.

It costs a copy of the text for a piece of a line, and nothing for a whole one.
"""

from __future__ import annotations

import mmap
import os
import struct

_LENGTHS = struct.Struct('=III')  # how many runs are nested, bytes of standard output, of standard error
_AREA = 1 << 14  # bytes for each of the two; a longer front is written out
_SIZE = mmap.PAGESIZE + 2 * _AREA

IS_POSSIBLE = hasattr(os, 'memfd_create')


def create() -> int:
    """A descriptor of shared memory for `LastWords`, with no name anywhere; it is closed by whoever asks."""
    fd = os.memfd_create('hadrosaur-last-words', os.MFD_CLOEXEC)
    try:
        os.ftruncate(fd, _SIZE)
    except BaseException:
        os.close(fd)
        raise
    return fd


class LastWords:
    """Two fronts of lines, in the memory behind a descriptor."""

    def __init__(self, fd: int) -> None:
        self._memory = mmap.mmap(fd, _SIZE)
        self._lengths = [0, 0]
        self._depth = 0

    def begin(self) -> None:
        """A run begins, perhaps in another one; nothing of a line stands open."""
        self._depth += 1
        self._lengths = [0, 0]
        self._note()

    def end(self) -> None:
        """A run ends."""
        self._depth -= 1
        self._lengths = [0, 0]
        self._note()

    def add(self, position: int, text: str) -> bool:
        """The front of a line grows; False where it is too long to be kept."""
        data = text.encode('utf-8', 'backslashreplace')
        start = self._lengths[position]
        if start + len(data) > _AREA:
            return False
        begin = mmap.PAGESIZE + position * _AREA + start
        self._memory[begin : begin + len(data)] = data
        self._lengths[position] = start + len(data)
        self._note()
        return True

    def clear(self, position: int) -> None:
        """The line is in the log."""
        if self._lengths[position]:
            self._lengths[position] = 0
            self._note()

    def _note(self) -> None:
        _LENGTHS.pack_into(self._memory, 0, self._depth, *self._lengths)

    def read(self) -> tuple[bytes, bytes]:
        """For the caller: what stands open of the two; nothing where a nested run was cut off.

        That one has logs of its own, and is not the one that the caller knows of.
        """
        depth, out, err = _LENGTHS.unpack_from(self._memory, 0)
        if depth != 1:
            return b'', b''
        start = mmap.PAGESIZE
        return (
            self._memory[start : start + min(out, _AREA)],
            self._memory[start + _AREA : start + _AREA + min(err, _AREA)],
        )

    def close(self) -> None:
        """Give the memory back."""
        self._memory.close()
