"""What a run needs of a directory that was there before, made ready while nothing in it is changed."""

from __future__ import annotations

import contextlib
import errno
import os

from .. import fileops, trees
from . import ERROR, FILES, RESULT, STORAGE, is_litter


class Ready:
    """Files of a locked directory that are open, or written beside those whose place they are to take.

    Attributes:
        old_record: What record.json held, None where there was none.
        is_status_changed: status.json may say something else by now,
        is_record_changed: and so does record.json.
    """

    def __init__(self, folder: int) -> None:
        self._folder = folder
        self._is_folder: dict[str, bool] = {}  # what stands in the directory
        self._beside: dict[str, str] = {}
        self._emptied: list[int] = []  # logs that are to be emptied
        self._new: list[str] = []
        self._error: int | None = None
        self.old_record: bytes | None = None
        self.is_status_changed = self.is_record_changed = False

    def open(self, *, spare: int) -> None:
        """Look at what is there. Raises OSError where that cannot be made way for, or is a link.

        ``spare``: so many descriptors must be to be had.
        """
        with os.scandir(self._folder) as found:
            self._is_folder = {entry.name: entry.is_dir(follow_symlinks=False) for entry in found}
        for name in FILES:
            if self._is_folder.get(name):
                fileops.refuse_full(name, self._folder)
        if STORAGE in self._is_folder:
            self._refuse_link()
        if ERROR in self._is_folder:
            self._error = fileops.open_ours(ERROR, self._folder, os.O_WRONLY)
            if self._error is not None:
                self._emptied.append(self._error)
        spares: list[int] = []
        try:
            while len(spares) < spare:
                spares.append(os.dup(self._folder))
        finally:
            for fd in spares:
                os.close(fd)

    def _refuse_link(self) -> None:
        if self._is_folder[STORAGE]:
            os.close(fileops.open_folder(STORAGE, within=self._folder))  # may it be read and emptied?
            return
        raise OSError(
            errno.ENOTDIR,
            f'{STORAGE} is a link, or a file, and nothing is written through it: put a folder in its place '
            '(to have it on another disk, mount that there, or link the whole base)',
        )

    def write_beside(self, name: str, data: bytes, *, durable: bool) -> int:
        """Write a file that is to be `put` in the place of another; returns its descriptor."""
        written = fileops.beside(name)
        fd = fileops.create(written, data, self._folder, durable=durable)
        self._beside[name] = written
        return fd

    def open_log(self, name: str) -> int:
        """A descriptor for a log: of the one that is there if that is ours alone, else of a new one."""
        flags = os.O_WRONLY | os.O_APPEND
        if name not in self._is_folder:
            self._new.append(name)
            return fileops.open_new(name, self._folder, flags)
        fd = fileops.open_ours(name, self._folder, flags)
        if fd is not None:
            self._emptied.append(fd)
            return fd
        written = fileops.beside(name)
        fd = fileops.open_new(written, self._folder, flags)
        self._beside[name] = written
        return fd

    def replaces(self, name: str) -> bool:
        """Is a file of this name to be put in the place of another?"""
        return name in self._beside

    def put(self, name: str) -> bool:
        """Put what was written beside in its place; False where there is nothing."""
        written = self._beside.pop(name, None)
        if written is None:
            return False
        fileops.put(written, name, self._folder)
        return True

    def close(self) -> None:
        """Close what the run itself does not need."""
        if self._error is not None:
            os.close(self._error)

    def undo(self) -> None:
        """Remove what was made so far, and is not yet put in its place."""
        for name in (*self._beside.values(), *self._new):
            with contextlib.suppress(OSError):
                fileops.remove(name, self._folder)

    def clear(self, *, keep_storage: bool) -> None:
        """Empty what the last run left, and what a process left that was killed in the middle of a write."""
        if RESULT in self._is_folder:
            fileops.remove(RESULT, self._folder)  # not emptied: it may be read at this moment
        if ERROR in self._is_folder and self._error is None:
            fileops.remove(ERROR, self._folder)
        for log in self._emptied:
            os.ftruncate(log, 0)
        for name in list(self._beside):
            self.put(name)
        for name, is_folder in self._is_folder.items():
            if is_litter(name):
                (trees.remove_tree if is_folder else fileops.remove)(name, self._folder)
        if STORAGE not in self._is_folder:
            fileops.make_folder(STORAGE, self._folder)
        elif not keep_storage:
            trees.clear_folder(STORAGE, self._folder)
