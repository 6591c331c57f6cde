"""Who waits for whom: detect cycles of resources that wait for each other.

A function that fetches a resource which another process is computing waits for it. If that resource waits,
directly or indirectly, for the one whose function asked, they would deadlock. So before it waits, a function
publishes a small file in ``.hadrosaur/waiting/``: the chain of resources that led to the function, and the
resources that it waits for. The file is locked while it is valid, so files of dead processes do not count and
are swept. Publishing and looking for a cycle happen under one lock, so exactly one process finds the cycle:
the one that would close it.
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
import stat
import threading
from typing import TYPE_CHECKING, Any

from . import fileops
from .errors import CycleError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

FOLDER = 'waiting'
"""Name of the folder in ``.hadrosaur/``."""
LOCK = '.lock'
PATIENCE = 60.0  # seconds to wait for the lock, which is held for an instant; then it is done without
LONGEST = 1 << 20  # bytes of one file that are read

Step = tuple[str, str, str]
"""One resource of a chain: absolute path of its base, its collection, its ident."""


def shown_chain(steps: Iterable[Step]) -> str:
    """Format a chain of resources for a message."""
    return ' → '.join(f'{collection}/{ident}' for _, collection, ident in steps)


class Waits:
    """What one thread, inside a resource's function, is waiting for.

    Args:
        hidden: Absolute path of the ``.hadrosaur/`` folder of the base.
        chain: The resources that led to the function, the running one last.
    """

    def __init__(self, hidden: str, chain: tuple[Step, ...]) -> None:
        self._hidden = hidden
        self._chain = chain
        self._name = f'{os.getpid()}-{threading.get_ident()}-{os.urandom(4).hex()}'
        self._process = os.getpid()
        self._file = -1
        self._published: frozenset[Step] = frozenset()

    def publish(self, wanted: Iterable[Step]) -> set[Step]:
        """Publish what is waited for from now on; returns, and leaves out, what would close a cycle."""
        asked = frozenset(wanted)
        if asked == self._published and self._file >= 0:
            return set()
        with self._locked() as folder:
            if folder is None:
                return set()
            others = list(self._others(folder))
            closing = {step for step in asked if self._closes(step, others)}
            self._published = asked - closing
            if self._published:
                self._write(folder)
            else:
                self._remove(folder)
        return closing

    def unqueue(self) -> None:
        """Publish that nothing is waited for any more."""
        self._published = frozenset()
        if self._file >= 0 and self._process == os.getpid():
            with contextlib.suppress(OSError), fileops.opened_below(self._hidden, FOLDER) as folder:
                self._remove(folder)
            self._give_back()

    def _closes(self, wanted: Step, others: list[tuple[frozenset[Step], frozenset[Step]]]) -> bool:
        """Whether what is wanted waits, directly or indirectly, for one of our chain."""
        reached, ahead = {wanted}, [wanted]
        while ahead:
            step = ahead.pop()
            if step in self._chain:
                return True
            for chain, waits in others:
                if step in chain:
                    ahead += waits - reached
                    reached |= waits
        return False

    # --- the files ---------------------------------------------------------------------------------

    @contextlib.contextmanager
    def _locked(self) -> Iterator[int | None]:
        """Yield the open folder while its lock is held; None if the folder cannot be opened."""
        try:
            with contextlib.suppress(FileExistsError):  # it may be deleted while functions run
                os.mkdir(self._hidden)
            with fileops.opened(self._hidden, fileops.LOOK) as hidden:
                fileops.make_folder(FOLDER, hidden)
                opened = fileops.opened(FOLDER, within=hidden)
                folder = opened.__enter__()
        except OSError:  # nobody can write here: then nobody computes here, either
            yield None
            return
        try:
            lock = _open(LOCK, folder)
            try:
                fileops.lock_within(lock, PATIENCE)
                yield folder
            finally:
                fileops.unlock(lock)
        finally:
            opened.__exit__(None, None, None)

    def _others(self, folder: int) -> Iterator[tuple[frozenset[Step], frozenset[Step]]]:
        """Return what living processes wait for; remove the files of dead ones."""
        for name in os.listdir(folder):
            if name in (LOCK, self._name):
                continue
            if fileops.is_locked(name, folder):
                with contextlib.suppress(OSError, ValueError, TypeError, KeyError):
                    found = json.loads(_read(name, folder))
                    yield _steps(found['chain']), _steps(found['waits_for'])
            else:
                with contextlib.suppress(OSError):
                    fileops.remove(name, folder)

    def _write(self, folder: int) -> None:
        if self._file < 0:
            self._file = _open(self._name, folder)
            fileops.try_lock(self._file)
        text = json.dumps({'chain': self._chain, 'waits_for': sorted(self._published)}).encode()
        os.ftruncate(self._file, 0)
        fileops.write_all(self._file, text)

    def _remove(self, folder: int) -> None:
        with contextlib.suppress(OSError):
            fileops.remove(self._name, folder)
        self._give_back()

    def _give_back(self) -> None:
        if self._file >= 0:
            file, self._file = self._file, -1
            fileops.unlock(file)


@contextlib.contextmanager
def waiting_for(hidden: str, chain: tuple[Step, ...], wanted: Iterable[Step]) -> Iterator[None]:
    """Publish what is waited for. Raises CycleError if that would close a cycle."""
    waits = Waits(hidden, chain)
    try:
        for step in waits.publish(wanted):
            raise ring(chain, step)
        yield
    finally:
        waits.unqueue()


def ring(chain: tuple[Step, ...], wanted: Step) -> CycleError:
    """Return the error of the process that would close a cycle."""
    return CycleError(
        f'resources wait for each other: {shown_chain((*chain, wanted))}, which waits for one of these',
        collection=wanted[1],
        ident=wanted[2],
        hint='let one of them do without the other, or fetch what both need before',
    )


def itself(chain: tuple[Step, ...], wanted: Step) -> CycleError:
    """Return the error of a resource that fetches itself, directly or indirectly."""
    return CycleError(
        f'a resource cannot wait for itself: {shown_chain((*chain, wanted))}',
        collection=wanted[1],
        ident=wanted[2],
        hint='let its function do without',
    )


def _open(name: str, folder: int) -> int:
    """Open a file of ours for writing. Raises OSError if something else is in its place."""
    flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK
    fd = os.open(name, flags, 0o666, dir_fd=folder)
    found = os.fstat(fd)
    if found.st_nlink > 1 or not stat.S_ISREG(found.st_mode):
        os.close(fd)
        raise OSError(errno.EINVAL, 'this is no file of hadrosaur', name)
    return fd


def _read(name: str, folder: int) -> bytes:
    fd = os.open(name, fileops.READ, dir_fd=folder)
    try:
        return os.read(fd, LONGEST)
    finally:
        os.close(fd)


def _steps(found: Any) -> frozenset[Step]:
    return frozenset((str(base), str(collection), str(ident)) for base, collection, ident in found)
