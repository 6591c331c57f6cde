"""What a resource takes on the disk."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from .. import fileops, scan
from ..directory import STORAGE

if TYPE_CHECKING:
    from collections.abc import Iterator

BLOCK = 512  # bytes of what stat calls a block, on every system


def resources(base: str, only: str | None) -> Iterator[tuple[str, str, tuple[str, str]]]:
    """(collection, ident, (absolute path of the collection, folder)) of each resource in a base.

    ``only``: the name of a collection.
    """
    for folder in scan.walk(base):
        if folder.entry is not None and only in (None, folder.collection):
            above, _, name = folder.name.rpartition('/')
            yield folder.collection, folder.entry.ident, (f'{base}/{above}', name)


def disk_usage(collection_path: str, name: str) -> tuple[int, int]:
    """Bytes on the disk of all in a resource's folder, and of its storage; each file once, links not."""
    seen: set[tuple[int, int]] = set()
    try:
        with fileops.opened_below(collection_path, name, fileops.FOLDER) as folder:
            inner = _sum(folder, seen, but=STORAGE)
            try:
                with fileops.opened(STORAGE, within=folder) as storage:
                    of_storage = _sum(storage, seen)
            except OSError:  # none, or a link
                of_storage = 0
            return inner + of_storage, of_storage
    except OSError:  # removed meanwhile
        return 0, 0


def _sum(folder: int, seen: set[tuple[int, int]], but: str = '') -> int:
    """Bytes of an open folder and of all in it, each file once."""
    total = os.fstat(folder).st_blocks * BLOCK
    with os.scandir(folder) as found:
        for entry in found:
            if entry.name == but:
                continue
            try:
                if entry.is_dir(follow_symlinks=False):
                    with fileops.opened(entry.name, within=folder) as inner:
                        total += _sum(inner, seen)
                    continue
                stat = entry.stat(follow_symlinks=False)
            except OSError:  # removed meanwhile, or not to be read
                continue
            if (key := (stat.st_dev, stat.st_ino)) not in seen:
                seen.add(key)
                total += stat.st_blocks * BLOCK
    return total
