"""The Python stack of a running worker, read from another process (Linux).

A worker has `faulthandler` write its stacks to an anonymous, named memory file, on a signal that programs do
not use. The reader finds that file among the worker's descriptors, which proves that the process is a worker
and handles the signal. Then it sends the signal and reads what was added. So no signal is ever sent to a
process that would die of it, or that merely has the same number. The handler is C code: it also answers from
an endless loop, or from inside a library.
"""

from __future__ import annotations

import contextlib
import faulthandler
import os
import signal
import time

NAME = 'hadrosaur-stacks'
PATIENCE = 5.0  # seconds to wait for the answer
_POLL = 0.02

IS_POSSIBLE = all(hasattr(os, name) for name in ('memfd_create', 'pidfd_open')) and hasattr(
    signal, 'SIGRTMAX'
)


class NoStack(Exception):
    """Why the stack cannot be read, in a sentence."""


def _number() -> int:
    return int(signal.SIGRTMAX) - 2


def listen() -> None:
    """Prepare to be asked; called once in each worker."""
    if IS_POSSIBLE:
        with contextlib.suppress(OSError):  # it works without
            fd = os.memfd_create(NAME, os.MFD_CLOEXEC)
            faulthandler.register(_number(), file=fd, all_threads=True, chain=False)


def ask(pid: int) -> str:
    """Return the stacks of a worker of this user on this machine. Raises NoStack."""
    if not IS_POSSIBLE:
        raise NoStack('stacks can be asked for on Linux only')
    try:
        process = os.pidfd_open(pid)
    except OSError as error:
        raise NoStack(f'there is no process {pid} any more that could be asked') from error
    try:
        memory = _memory(pid)
        try:
            return _answer(process, pid, memory)
        finally:
            os.close(memory)
    finally:
        os.close(process)


def _memory(pid: int) -> int:
    """Open the memory file that a worker writes its stacks to."""
    if os.stat(f'/proc/{pid}').st_uid != os.geteuid():
        raise NoStack(f'process {pid} belongs to another user')
    try:
        for fd in os.listdir(f'/proc/{pid}/fd'):
            with contextlib.suppress(FileNotFoundError):
                if os.readlink(f'/proc/{pid}/fd/{fd}').startswith(f'/memfd:{NAME} '):
                    if not _is_caught(pid):
                        break
                    return os.open(f'/proc/{pid}/fd/{fd}', os.O_RDONLY | os.O_CLOEXEC)
    except OSError as error:
        raise NoStack(f'process {pid} cannot be looked at: {error.strerror}') from error
    raise NoStack(
        f'process {pid} is no worker process that listens: what runs inline or in threads runs in the '
        f"user's own program, where nothing is installed (try: py-spy dump --pid {pid})"
    )


def _is_caught(pid: int) -> bool:
    """Whether the process still handles the signal, which would otherwise kill it."""
    with open(f'/proc/{pid}/status', encoding='ascii', errors='replace') as file:
        for line in file:
            if line.startswith('SigCgt:'):
                return bool(int(line.split()[1], 16) >> (_number() - 1) & 1)
    return False


def _answer(process: int, pid: int, memory: int) -> str:
    before = size = os.fstat(memory).st_size
    try:
        signal.pidfd_send_signal(process, _number())
    except OSError as error:
        raise NoStack(f'process {pid} cannot be asked: {error.strerror}') from error
    end = time.monotonic() + PATIENCE
    while time.monotonic() < end:
        time.sleep(_POLL)
        now = os.fstat(memory).st_size
        if now > before and now == size:  # it has said all
            return os.pread(memory, now - before, before).decode('utf-8', 'backslashreplace')
        size = now
    raise NoStack(f'process {pid} does not answer: it is stopped, or waits for a disk')
