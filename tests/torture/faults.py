"""Faults below Python: the file operations of a whole process tree, counted, failed, killed or written down.

`faults.c` is compiled into a small library that is preloaded into a process and into all that it starts
(``LD_PRELOAD``), so that SQLite's file operations and those of workers and of ``sh`` are met too. It looks
only at what is below one folder. All processes share one mapped file: a page by which they are armed, at
any moment, and on which they count; behind it the log.

    with Faults(tmp_path, base) as faults:              # skips the test where there is no C compiler
        run(program, env=faults.environment())          # counted: faults.count
        faults.arm('fail', 7, errno.ENOSPC)             # the 7th from now on fails
        faults.arm('fail', 7, errno.ENOSPC, every=True) # and every one after it: a full disk
        faults.arm('short', 7)                          # the 7th write writes half
        faults.arm('kill', 7)                           # SIGKILL to the process that does it, instead of it
        faults.arm('kill after', 7)                     # ... and right after it
        faults.arm('stop', 7)                           # SIGSTOP; SIGCONT lets it do it
        faults.arm(kinds=CHANGES, path='*/status.json') # only count those
        faults.fired                                    # how many faults there were; faults.first: which
        faults.log()                                    # from now on every operation is written down
        faults.operations()                             # as a list of `Operation`
        faults.disarm()                                 # neither counts nor logs

An operation that is armed against is one of ``kinds`` (`CHANGES` unless told otherwise: what changes the
disk or makes it last) whose path below the folder matches ``path`` (fnmatch's, where ``*`` takes slashes
too).

Symbols: Python 3.11 calls open64, openat64, pwrite64, mkdirat, renameat, unlinkat, ftruncate64 …, SQLite
open64, pwrite64, fdatasync, ftruncate64, unlink …: all of a name's variants are stood in for, and do what
they do by a bare system call. Not seen: what goes through ``mmap`` (SQLite's -shm), C's ``fopen``, and
programs that are linked statically. The library opens no descriptor that stays.

The log (`Operation`) holds, in the one order in which they happened (the operation and its entry are under
one lock), every operation of all kinds but those that only look, whether it was armed against or not:

* ``kind, path, other``: the present path below the folder ('' is the folder itself, None: outside of it).
  For rename and link ``path`` is the old and ``other`` the new name; for symlink ``other`` is its text.
* ``inode, other_inode``: of the file that was written, opened, synced, removed or renamed; of what stood at
  the new name (or at the name that is opened) before, 0 where nothing did. A write to a file that was
  renamed or unlinked since is told by its inode; its path is then its new name, or ends with ' (deleted)'.
* ``offset, length, data``: of a write, where (the end for O_APPEND, the file position for plain write), how
  many bytes were asked for, and those written, all of them; ``length`` of a truncate and allocate.
* ``flags, mode``: of open (O_CREAT, O_TRUNC, O_EXCL, …), flock, unlink. ``existed``: something stood there.
* ``result`` (descriptor, bytes, 0; negative: it failed), ``error`` its errno, ``is_fault``: we did that.
* ``pid, tid, sequence, nanoseconds`` (monotonic).

fsync and fdatasync of a file make what was written to its inode before last; fsync of a folder its names;
syncfs everything. Entries with ``error`` changed nothing.
"""

from __future__ import annotations

import atexit
import ctypes
import errno
import functools
import mmap
import os
import shutil
import struct
import subprocess
import tempfile
from pathlib import Path
from typing import NamedTuple

import pytest

KINDS = (
    'create', 'open', 'read open', 'mkdir', 'write', 'rename', 'unlink', 'rmdir', 'fsync', 'fdatasync',
    'syncfs', 'truncate', 'flock', 'link', 'symlink', 'allocate', 'read', 'stat', 'list', 'lock',
)  # fmt: skip
"""In the order of faults.c. create: open with O_CREAT; open: for writing what is there; lock: fcntl's."""

CHANGES = frozenset(KINDS[:2] + KINDS[3:16]) - {'flock'}
LOOKS = frozenset({'read open', 'read', 'stat', 'list'})
GROWS = frozenset({'create', 'mkdir', 'write', 'rename', 'link', 'symlink', 'allocate', 'fsync', 'fdatasync'})
"""What a full disk refuses (fsync: where space is found late)."""
OPENS = frozenset({'create', 'open', 'read open', 'list'})
"""What needs a descriptor."""

_ACTIONS = ('count', 'fail', 'short', 'kill', 'kill after', 'stop')
_HEADER = 16384
_ENTRY = struct.Struct('<IIQQ4i3q2QII4I')


class _Entry(NamedTuple):
    """Struct entry of faults.c."""

    size: int
    kind: int
    sequence: int
    nanoseconds: int
    pid: int
    tid: int
    flags: int
    error: int
    result: int
    offset: int
    length: int
    inode: int
    other_inode: int
    existed: int
    is_fault: int
    path_length: int
    other_length: int
    data_length: int
    mode: int


class _Control(ctypes.Structure):
    """Struct control of faults.c."""

    _fields_ = [
        ('mutex', ctypes.c_char * 64), ('made', ctypes.c_uint32), ('is_on', ctypes.c_uint32),
        ('is_logging', ctypes.c_uint32), ('action', ctypes.c_uint32), ('error', ctypes.c_int32),
        ('is_every', ctypes.c_uint32), ('kinds', ctypes.c_uint64), ('at', ctypes.c_uint64),
        ('count', ctypes.c_uint64), ('fired', ctypes.c_uint64), ('only_pid', ctypes.c_int32),
        ('fired_kind', ctypes.c_uint32), ('fired_pid', ctypes.c_int32), ('is_full', ctypes.c_uint32),
        ('log_size', ctypes.c_uint64), ('log_used', ctypes.c_uint64), ('sequence', ctypes.c_uint64),
        ('counts', ctypes.c_uint64 * 32), ('below', ctypes.c_char * 4096), ('pattern', ctypes.c_char * 512),
        ('fired_path', ctypes.c_char * 4096),
    ]  # fmt: skip


class Operation(NamedTuple):
    """One entry of the log; the module's docstring says what its fields mean."""

    kind: str
    path: str | None
    other: str | None
    inode: int
    other_inode: int
    offset: int
    length: int
    data: bytes
    flags: int
    mode: int
    existed: bool
    result: int
    error: int
    is_fault: bool
    pid: int
    tid: int
    sequence: int
    nanoseconds: int

    def __str__(self) -> str:
        to = f' -> {self.other}' if self.other else ''
        size = f' {self.offset}+{len(self.data)}' if self.kind == 'write' else ''
        how = f' {errno.errorcode.get(self.error, self.error)}' if self.error else ''
        return f'{self.sequence} [{self.pid}] {self.kind} {self.path}{to}{size}{how}'


@functools.cache
def compiled() -> Path:
    """The library, compiled once by this process; skips the test where that can't be done."""
    compiler = next(filter(None, map(shutil.which, ('gcc', 'cc', 'clang'))), None)
    if compiler is None or os.uname().sysname != 'Linux':
        pytest.skip('faults below Python need Linux and a C compiler (gcc); there is none here')
    folder = tempfile.TemporaryDirectory(prefix='hadrosaur-faults-', ignore_cleanup_errors=True)
    atexit.register(folder.cleanup)
    library = Path(folder.name) / 'faults.so'
    source = Path(__file__).with_name('faults.c')
    command = [compiler, '-O2', '-shared', '-fPIC', '-o', str(library), str(source), '-ldl', '-lpthread']
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    return library


class Faults:
    """The shared page and log of one process tree; see the module's docstring."""

    def __init__(self, place: Path | str, below: Path | str, *, log_size: int = 1 << 28) -> None:
        """``place``: a folder for the shared file, outside of ``below``."""
        self.library = compiled()
        self.path = Path(place) / f'faults-{os.getpid()}-{os.urandom(4).hex()}'
        with open(self.path, 'xb') as file:
            file.truncate(_HEADER + log_size)  # sparse: it takes what is used
        self._attach()
        self._control.log_size = log_size
        self.watch(below)

    @classmethod
    def attached(cls) -> Faults:
        """Those of the process tree that we are in ourselves."""
        faults = cls.__new__(cls)
        faults.path = Path(os.environ['HADROSAUR_FAULTS'])
        faults.library = Path(os.environ['LD_PRELOAD'])
        faults._attach()
        return faults

    def _attach(self) -> None:
        with open(self.path, 'r+b') as file:
            self._map = mmap.mmap(file.fileno(), 0)
        self._control = _Control.from_buffer(self._map)

    def watch(self, below: Path | str) -> None:
        """Look below another folder from now on. It need not be there yet."""
        self._control.below = os.fsencode(os.path.realpath(below))

    def environment(self, **more: str) -> dict[str, str]:
        """Ours, with the library; for the process at the root of the tree."""
        return {**os.environ, 'LD_PRELOAD': str(self.library), 'HADROSAUR_FAULTS': str(self.path), **more}

    def arm(self, action: str = 'count', at: int = 0, error: int = 0, *, every: bool = False,
            kinds: frozenset[str] | set[str] = CHANGES, path: str = '', pid: int = 0) -> None:  # fmt: skip
        """Count from 0 again, and at the ``at``-th do that (see the module's docstring)."""
        control = self._control
        control.is_on = 0
        control.action, control.at, control.error = _ACTIONS.index(action), at, error
        control.is_every, control.only_pid, control.pattern = every, pid, os.fsencode(path)
        control.kinds = sum(1 << KINDS.index(kind) for kind in kinds)
        control.count = control.fired = 0
        for number in range(len(KINDS)):
            control.counts[number] = 0
        control.is_on = 1

    def disarm(self) -> None:
        """Neither count nor log from now on."""
        self._control.is_on = self._control.is_logging = 0

    @property
    def count(self) -> int:
        """How many operations of the kinds and paths that are armed against there were."""
        return self._control.count

    @property
    def counts(self) -> dict[str, int]:
        """By kind, armed against or not; those that only look where they are armed against."""
        return {kind: self._control.counts[n] for n, kind in enumerate(KINDS) if self._control.counts[n]}

    @property
    def fired(self) -> int:
        """How many faults there were."""
        return self._control.fired

    @property
    def first(self) -> str:
        """Kind and path of the first fault."""
        if not self.fired:
            return 'none'
        return f'{KINDS[self._control.fired_kind]} {os.fsdecode(self._control.fired_path)}'

    def log(self, *, clear: bool = True) -> None:
        """Write down every operation from now on; what is armed stays so."""
        if clear:
            self._control.log_used = self._control.is_full = 0
        self._control.is_logging = 1
        if not self._control.is_on:
            self.arm()

    def operations(self) -> list[Operation]:
        """What was written down so far, in order."""
        assert not self._control.is_full, 'the log was too short: give Faults a greater log_size'
        root = os.fsdecode(self._control.below)
        found, at, end = [], _HEADER, _HEADER + self._control.log_used
        while at < end:
            entry = _Entry._make(_ENTRY.unpack_from(self._map, at))
            start = at + _ENTRY.size
            path = os.fsdecode(self._map[start : start + entry.path_length])
            start += entry.path_length
            other = os.fsdecode(self._map[start : start + entry.other_length])
            start += entry.other_length
            found.append(
                Operation(
                    kind=KINDS[entry.kind],
                    path=_below(root, path),
                    other=(other if KINDS[entry.kind] == 'symlink' else _below(root, other)) or None,
                    data=self._map[start : start + entry.data_length],
                    existed=bool(entry.existed),
                    is_fault=bool(entry.is_fault),
                    **{name: getattr(entry, name) for name in _SAME},
                )
            )
            at += entry.size
        return found

    def close(self) -> None:
        """Unlink the shared file (processes that still run keep it)."""
        self.disarm()
        del self._control
        self._map.close()
        self.path.unlink(missing_ok=True)

    def __enter__(self) -> Faults:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


_SAME = set(Operation._fields) & set(_Entry._fields) - {'kind', 'existed', 'is_fault'}


def _below(root: str, path: str) -> str | None:
    if path == root:
        return ''
    return path[len(root) + 1 :] if path.startswith(root + '/') else None
