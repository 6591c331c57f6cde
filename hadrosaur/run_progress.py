"""Progress of a run: ``hadrosaur.current().progress(0.3, 'epoch 3')``.

The last report is in a file of the run's folder, rewritten in place by each call, without a row or a new
file: a call costs 20 µs (two cores, Python 3.11, 2026). The file names the run and is valid only while the
record says that this run is in progress. It is removed with the run; leftovers of killed runs are swept.
"""

from __future__ import annotations

import contextlib
import json
import os
import threading
from typing import Any

from . import directory, fileops
from .errors import warn
from .records import Progress

LONGEST = 200  # characters of a text
_SIZE = 1024  # bytes of the file, always, so that it is neither torn nor cut by a shorter one
_READINGS = 5  # until two are the same: else it was read in the middle of being written

_guard = threading.Lock()  # while a file is made, written or closed: else one might write into another file


def _in_child() -> None:
    global _guard
    _guard = threading.Lock()


os.register_at_fork(after_in_child=_in_child)


class Report:
    """The progress report of one run; a forked child may use it too, once the run itself has."""

    def __init__(self, folder: str, run: str, process: int) -> None:
        self._folder = folder
        self._run = run
        self._process = process
        self._fd = -1
        self._known: os.stat_result | None = None
        self._is_over = self._has_warned = False

    def say(self, fraction: Any, text: Any) -> None:
        """Write the report; an error in writing is ignored."""
        data = self._document(self._checked(fraction), text)
        with contextlib.suppress(OSError), _guard:
            if self._known is None:
                self._open(data)
            elif fileops.is_same(self._fd, self._known):  # a function may close what is not its own
                os.pwrite(self._fd, data, 0)

    def _checked(self, fraction: Any) -> float | None:
        if fraction is None:
            return None
        if isinstance(fraction, (str, bytes)):
            raise TypeError(
                f'progress takes a fraction from 0 to 1, or None, and then a text; not {fraction!r} first'
            )
        number = float(fraction)
        if number != number:
            return None
        if not -1e-6 <= number <= 1 + 1e-6 and not self._has_warned:
            self._has_warned = True
            warn(f'progress takes a fraction from 0 to 1, not {fraction!r}: that is shown as 0 % or 100 %')
        return min(1.0, max(0.0, number))

    def _document(self, fraction: float | None, text: Any) -> bytes:
        line = ' '.join(str(text)[: 2 * LONGEST].split())[:LONGEST]
        while True:
            said = {'run': self._run, 'fraction': fraction, 'text': line}
            data = json.dumps(said, ensure_ascii=False).encode(errors='backslashreplace')
            if len(data) < _SIZE:
                return data.ljust(_SIZE - 1) + b'\n'
            line = line[: len(line) // 2]

    def _open(self, data: bytes) -> None:
        if not self._is_over and os.getpid() == self._process:
            with fileops.opened_below(*os.path.split(self._folder)) as folder:
                self._fd = fileops.create(directory.PROGRESS, data, folder)
            self._known = os.fstat(self._fd)

    def end(self) -> None:
        """Remove the file; threads that the run left behind can no longer report."""
        with _guard:
            self._is_over = True
            known, self._known = self._known, None
            if known is not None and fileops.is_same(self._fd, known):
                os.close(self._fd)
        if known is not None:
            with contextlib.suppress(OSError), fileops.opened_below(*os.path.split(self._folder)) as folder:
                fileops.remove(directory.PROGRESS, folder)


class Says:
    """A run that may report progress; resources for it are created on first use."""

    _report: Report | None = None
    _has_ended = False

    def _reported(self, folder: str, run: str, process: int) -> Report | None:
        """Return the report of the process that runs it; None once it has ended."""
        if self._report is None:
            with _guard:
                if not self._has_ended:
                    self._report = self._report or Report(folder, run, process)
        return self._report

    def _end_report(self) -> None:
        with _guard:
            self._has_ended = True
        if self._report is not None:
            self._report.end()


def read(folder: int, record: dict[str, Any] | None = None) -> Progress | None:
    """Return the last report of the run in progress in an open directory; None if there is none.

    ``record``: its record.json, if it was read already. Raises OSError.
    """
    try:
        data = fileops.read(directory.PROGRESS, folder, 2 * _SIZE)
        for _ in range(_READINGS):
            before, data = data, fileops.read(directory.PROGRESS, folder, 2 * _SIZE)
            if data == before:
                break
        said = json.loads(data)
        run, fraction, text = said['run'], said['fraction'], said['text']
    except (FileNotFoundError, ValueError, KeyError, TypeError, RecursionError):
        return None
    except OSError as error:
        if fileops.is_no_file(error):
            return None
        raise
    record = directory.read_record(folder) if record is None else record
    if not record or record.get('state') != 'begun' or record.get('run') != run:
        return None
    if not isinstance(text, str) or not (fraction is None or isinstance(fraction, (int, float))):
        return None
    return Progress(None if fraction is None else min(1.0, max(0.0, float(fraction))), text)
