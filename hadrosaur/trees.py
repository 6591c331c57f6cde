"""Emptying and removing folders, however deep they are, without following a link."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from . import fileops

if TYPE_CHECKING:
    from collections.abc import Container


def clear_folder(name: str, folder: int, kept: Container[str] = ()) -> None:
    """Remove everything in a folder, links themselves and not what they point to; it stays, empty.

    But for names that are ``kept``.

    However deep it is: what is in a subfolder is moved up before the subfolder is removed, so that
    neither the stack nor the number of open descriptors grows.
    """
    with fileops.opened(name, within=folder) as top:
        mark, count = f'.{os.urandom(4).hex()}', 0
        while subfolders := _unlink_files(top, kept):
            for subfolder in subfolders:
                with fileops.opened(subfolder, within=top) as below:
                    for inner in _unlink_files(below):
                        count += 1
                        os.rename(inner, f'{mark}.{count}', src_dir_fd=below, dst_dir_fd=top)
                os.rmdir(subfolder, dir_fd=top)


def _unlink_files(folder: int, kept: Container[str] = ()) -> list[str]:
    """Remove all that is no folder; the folders' names."""
    with os.scandir(folder) as found:
        entries = [(entry.name, entry.is_dir(follow_symlinks=False)) for entry in found]
    entries = [entry for entry in entries if entry[0] not in kept]
    for name, is_folder in entries:
        if not is_folder:
            fileops.remove(name, folder)
    return [name for name, is_folder in entries if is_folder]


def remove_tree(name: str, folder: int) -> None:
    """Remove a folder and everything in it, following no symlink."""
    clear_folder(name, folder)
    os.rmdir(name, dir_fd=folder)
