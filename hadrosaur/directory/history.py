"""What happened before: a line of record.json for each earlier attempt, and their files where they are kept.

The lines cost a run nothing unless the resource was run before. Files are kept by a hard link each, made
before anything is changed: the next run replaces what has a second name, and never writes through it. So
nothing is copied, and whoever is cut off in between has lost nothing.
"""

from __future__ import annotations

import contextlib
import os
from typing import Any

from .. import fileops, trees
from ..errors import Interrupted
from . import ERROR, RECORD, RESULT, STDERR, STDOUT, recorded_attempt
from ._cells import history_text

ATTEMPTS = 'attempts'
"""Folder of the files of earlier attempts, each in a folder named by its number."""

KEPT = (RECORD, RESULT, STDOUT, STDERR, ERROR)


def before(record: dict[str, Any] | None) -> str | None:
    """The history of a run that begins where this record stands, as JSON; None where there is none."""
    if not record:
        return None
    found = record.get('history')
    lines = list(found) if isinstance(found, list) else []
    state = record.get('state')
    if state in ('completed', 'error', 'begun'):
        line = {**record, 'status': state, 'attempt': recorded_attempt(record) or 1}
        if state == 'begun':  # and cut off, with nobody left to say so
            line.update(status='error', error_type=Interrupted.__name__)
        lines.append(line)
    return history_text(lines)


def keep(folder: int, record: dict[str, Any] | None, most: int) -> None:
    """Keep the files of the last attempt of an open directory, and no more than ``most`` attempts.

    Raises OSError where that cannot be: then the run has not begun, and everything is as it was.
    """
    if not record or record.get('state') == 'queued':
        return
    number = recorded_attempt(record) or 1
    fileops.make_folder(ATTEMPTS, folder)
    with fileops.opened(ATTEMPTS, within=folder) as attempts:
        fileops.make_folder(str(number), attempts)
        with fileops.opened(str(number), within=attempts) as kept:
            for name in KEPT:
                with contextlib.suppress(FileNotFoundError, FileExistsError):
                    os.link(name, name, src_dir_fd=folder, dst_dir_fd=kept, follow_symlinks=False)
        numbers = sorted(int(name) for name in fileops.list_folders(attempts) if name.isdecimal())
        for old in numbers[: max(0, len(numbers) - most)]:
            trees.remove_tree(str(old), attempts)
