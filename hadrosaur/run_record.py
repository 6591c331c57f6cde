"""record.json and row of one run, formatted in advance as far as known when the run begins.

The texts are those of `directory.record_bytes`, in a third of its time: most of the two records of a run is
the same.
"""

from __future__ import annotations

import json
import os
from functools import lru_cache
from json.encoder import encode_basestring
from typing import Any

from . import directory
from .basedir import HOST
from .metrics import UNKNOWN
from .records import INDEXED_RESULT, Entry, Job, Status


@lru_cache(maxsize=64)
def _of_collection(collection: str, version: str | None, index_result: int) -> tuple[str, str, str, str]:
    """Return the parts of a record that all runs of a collection on this host share."""
    head = f'{{\n "format": {directory.FORMAT},\n "collection": {encode_basestring(collection)},\n "ident": '
    no_error = ',\n "error_type": null,\n "error": null,\n "error_group": null,\n'
    told = 'null' if version is None else encode_basestring(version)
    # How much of a result the index holds: only where that is not the usual.
    most = '' if index_result == INDEXED_RESULT else f',\n "index_result": {index_result}'
    return (
        head,
        f'{no_error} "host": {encode_basestring(HOST)},\n "pid": ',
        f',\n "version": {told},\n ',
        most,
    )


class RunRecord:
    """One run of one job.

    Attributes:
        job: The job.
        attempt: Number of the run in the life of the resource.
        way: How its output is captured.
        cost: Time and memory; unknown during the run.
        finished_at: End of the run as text; None during the run.
    """

    def __init__(self, job: Job, attempt: int, started_at: str, history: str | None, way: str) -> None:
        spec, pid = job.spec, os.getpid()
        self.job = job
        self.attempt = attempt
        self.way = way
        self.cost = UNKNOWN
        self.finished_at: str | None = None
        self._started_at = started_at
        self._history = history
        self._pid = pid
        head, host, told, self._index_result = _of_collection(
            spec.collection, spec.version, spec.index_result
        )
        before = '' if job.provenance is None else f'"provenance": "{job.provenance}",\n '
        if history is not None:
            before += f'"history": {history},\n '
        self._head = f'{head}{encode_basestring(job.ident)},\n "state": "'
        self._begun = (
            f'",\n "run": "{job.run}",\n "args_hash": "{job.args_hash}",\n "attempt": {attempt},\n'
            f' "queued_at": "{job.queued_at}",\n "started_at": "{started_at}",\n "finished_at": '
        )
        self._where = f'{host}{pid},\n "cpu_seconds": '
        self._rest = f'{told}{before}"capture": "{way}"'
        self._before = f'{told}{before}'
        self._uses: str | None = None
        self._inputs: str | None = None
        self._counted: dict[str, Any] = {}
        self._args = f',\n "args": {job.args}\n}}\n'

    def made_from(self, uses: str | None, counted: dict[str, Any], inputs: str | None) -> None:
        """Add what the function fetched, and its input files."""
        self._uses, self._inputs, self._counted = uses, inputs, counted
        cells = {'uses': uses, 'inputs': inputs, **{name: json.dumps(cell) for name, cell in counted.items()}}
        told = ''.join([f'"{name}": {cell},\n ' for name, cell in cells.items() if cell is not None])
        self._rest = f'{self._before}{told}"capture": "{self.way}"'

    def begun(self) -> bytes:
        """Return the record.json of a run in progress."""
        return (
            f'{self._head}begun{self._begun}null,\n "duration": null{self._where}null,\n "max_rss": null'
            f'{self._rest}{self._args}'
        ).encode()

    def completed(self, result: bytes) -> bytes:
        """Return the record.json of a completed run with this result.json."""
        duration, cpu, peak = self.cost
        begun = f'{self._head}completed{self._begun}"{self.finished_at}",\n "duration": {duration}'
        used = f'{self._where}{cpu},\n "max_rss": {"null" if peak is None else peak}{self._rest}'
        checked = f',\n "result_size": {len(result)},\n "result_sha256": "{directory.checksum(result)}"'
        return f'{begun}{used}{checked}{self._index_result}{self._args}'.encode()

    def failed(self, entry: Entry, frame: str | None) -> bytes:
        """Return the record.json of a failed run; ``frame`` is the place in the user's code."""
        more = {'capture': self.way, **self._counted, 'error_frame': frame}
        return directory.record_bytes(entry, 'error', self.job.run, **more)

    def entry(self, status: Status, result: str | None = None, mtime: int | None = None) -> Entry:
        """Return the row, with the result if it is short enough; ``mtime`` is that of status.json."""
        job, (duration, cpu, peak) = self.job, self.cost
        spec = job.spec
        return Entry((
            spec.collection, job.ident, status, None, job.args, job.args_hash, result, self.attempt,
            job.queued_at, self._started_at, self.finished_at, duration, None, None, None, None, HOST,
            self._pid, cpu, peak, spec.version, self._history, job.provenance,
            job.run, self._uses, self._inputs,
            f'{spec.folder}/{job.folder}', None, None, mtime,
        ))  # fmt: skip
