"""Recover one folder whose computing process is dead: decide, under its lock, what it is.

    status final                             unchanged
    pending or damaged, and the record is
        final                                status.json is rewritten from the record
        running, or damaged                  error Interrupted (or the given reason)
        queued, or missing                   never started: status.json is removed

Recovery is idempotent. A folder whose lock is held is being computed and is left alone.
"""

from __future__ import annotations

import contextlib
import errno
import os
import time
from typing import Any, NamedTuple

from . import directory, fileops, fingerprint
from .directory.claim import Claim
from .errors import Interrupted, ResourceError
from .records import Entry, Job, RunResult, format_time

REASON = 'the process that computed it was cut off before the function was done'


class Recovered(NamedTuple):
    """The state of a folder after recovery.

    ``entry`` is its row, None if it was never started or does not exist. ``busy``: it is being computed.
    ``run`` is the run id in its record. ``spoiled`` says why it cannot be recovered. If the folder cannot be
    changed at all, ``is_foreseen`` is true and ``foreseen`` is the row that recovery would give.
    """

    entry: Entry | None
    busy: bool = False
    run: str | None = None
    ended_in_error: str | None = None
    is_foreseen: bool = False
    foreseen: Entry | None = None

    @property
    def is_known(self) -> bool:
        """Return whether the folder matches ``entry``."""
        return not self.busy and self.ended_in_error is None


def recover(
    collection: str,
    ident: str,
    collection_path: str,
    folder: str,
    *,
    lock: str = 'folder',
    patience: float = directory.LOCK_PATIENCE,
    error_type: str = Interrupted.__name__,
    reason: str = REASON,
    only_run: str | None = None,
    last_words: tuple[bytes, bytes] = (b'', b''),
    max_rss: int | None = None,
) -> Recovered:
    """Recover the folder of a resource.

    Args:
        collection: The collection's name.
        ident: The resource's ident.
        collection_path: Absolute path of the collection's folder.
        folder: Name of the resource's folder in it.
        lock: What is locked (see `BaseDirectory.lock`).
        patience: Seconds to wait for the lock.
        error_type: Error type of a run that was cut off.
        reason: Its message.
        only_run: Fail only a run of this id; leave any other run as it is.
        last_words: Unfinished lines that the run had not yet written to stdout.log and stderr.log.
        max_rss: Its peak memory in bytes, if known.
    """
    try:
        claim = Claim.take(collection_path, folder, lock=lock, make=False, patience=patience)
    except (FileNotFoundError, NotADirectoryError):
        return Recovered(None)
    except PermissionError as error:
        ended_in_error = Recovered(None, busy=True, ended_in_error=str(error))
        return _with_foreseen(ended_in_error, collection, ident, collection_path, folder, error_type, reason)
    except OSError:  # not ours to change (a link): left alone
        return Recovered(None, busy=True)
    if claim is None:
        return Recovered(None, busy=True)
    try:
        return _Recovery(claim, collection, ident, error_type, reason, last_words, max_rss).recover(only_run)
    except OSError as error:  # a folder stands where a file should be, the disk is full or read-only
        ended_in_error = Recovered(None, ended_in_error=str(error))
        if error.errno not in _LASTING:
            return ended_in_error
        return _with_foreseen(ended_in_error, collection, ident, collection_path, folder, error_type, reason)
    finally:
        claim.release()


_LASTING = frozenset(
    {
        errno.EACCES,
        errno.EPERM,
        errno.EROFS,
        errno.ENOSPC,
        errno.EDQUOT,
        errno.EISDIR,
        errno.ENOTDIR,
        errno.ENOTEMPTY,
        errno.EEXIST,
    }
)
"""A folder that cannot be changed for one of these is not changed the next moment either."""


def _with_foreseen(
    ended_in_error: Recovered,
    collection: str,
    ident: str,
    collection_path: str,
    folder: str,
    error_type: str,
    reason: str,
) -> Recovered:
    """Add the row that recovery would give, for a folder that can be read but not changed."""
    with contextlib.suppress(OSError), fileops.opened_below(collection_path, folder) as opened:
        record = directory.read_record(opened)
        state = directory.effective_status(directory.read_status(opened), record, opened)
        path = f'{os.path.basename(collection_path)}/{folder}'
        if state == 'pending':
            entry = directory.entry_of(collection, ident, path, 'pending', opened, record)
            return ended_in_error._replace(is_foreseen=True, foreseen=_cut_off(entry, error_type, reason))
        if state in ('completed', 'error'):
            entry = directory.entry_of(collection, ident, path, state, opened, record)
            return ended_in_error._replace(is_foreseen=True, foreseen=entry)
        return ended_in_error._replace(is_foreseen=True)
    return ended_in_error


def _append(name: str, words: bytes, folder: int) -> None:
    log = fileops.open_ours(name, folder, os.O_WRONLY | os.O_APPEND) if words else None
    if log is not None:
        try:
            os.write(log, words)
        finally:
            os.close(log)


def _cut_off(entry: Entry, error_type: str, reason: str) -> Entry:
    """Return the row of a run that was cut off."""
    return entry.change(
        status='error',
        phase=None,
        finished_at=format_time(time.time()),
        error_type=error_type,
        error=reason,
        error_group=fingerprint.fingerprint(error_type, reason, None),
    )


def attribute_failure(
    job: Job,
    error_type: str,
    reason: str,
    *,
    patience: float,
    last_words: tuple[bytes, bytes] = (b'', b''),
    max_rss: int | None = None,
) -> RunResult | None:
    """Recover the folder of a job whose worker died; None if the run had not started.

    ``last_words``: unfinished lines of the worker, to be appended to the logs. ``max_rss``: its peak memory
    in bytes, if known.
    """
    found = recover(
        job.collection,
        job.ident,
        job.spec.path,
        job.folder,
        lock=job.spec.lock,
        patience=patience,
        error_type=error_type,
        reason=reason,
        only_run=job.run,
        last_words=last_words,
        max_rss=max_rss,
    )
    if found.entry is None or found.run != job.run:
        return None
    return RunResult(job.run, found.entry, fresh=True)


def rewrite_record(
    collection: str, ident: str, collection_path: str, folder: str, *, lock: str = 'folder'
) -> None:
    """Rewrite record.json of a finished resource so that it names this ident and matches its files.

    For folders that were copied by hand, and for damaged records. Does nothing if the resource is not
    finished, is being computed, or cannot be written.
    """
    with contextlib.suppress(OSError):
        claim = Claim.take(collection_path, folder, lock=lock, make=False)
        if claim is not None:
            try:
                _Recovery(claim, collection, ident, '', '').rewrite_record()
            finally:
                claim.release()


def adopted(claim: Claim, collection: str, ident: str) -> dict[str, Any] | None:
    """Return the record of a finished, locked resource after `rewrite_record`."""
    _Recovery(claim, collection, ident, '', '').rewrite_record()
    return directory.read_record(claim.folder)


def remove(
    collection: str,
    ident: str,
    collection_path: str,
    folder: str,
    *,
    lock: str = 'folder',
    durable: bool = False,
    row: Entry | None = None,
) -> bool:
    """Delete a resource's folder, under its lock; False if there is none.

    Args as for `recover`. ``durable``: after a power cut it is either whole or gone. ``row``: delete only if
    the folder still matches this row. Raises ResourceError if it does not, or if it is being computed.
    """
    try:
        claim = Claim.take(collection_path, folder, lock=lock, make=False, durable=durable)
    except (FileNotFoundError, NotADirectoryError):
        return False
    if claim is None:
        raise ResourceError(
            f'{collection}/{ident} is being computed',
            collection=collection,
            ident=ident,
            hint='cancel it first',
        )
    try:
        if row is not None and not _Recovery(claim, collection, ident, '', '').is_still(row):
            raise ResourceError(
                f'{collection}/{ident} differs from its row: it was computed again, or edited by hand',
                collection=collection,
                ident=ident,
                hint='hadrosaur reindex makes the index agree',
            )
        claim.remove()
    finally:
        claim.release()
    return True


_KEPT = (
    'uses_count',
    'uses_digest',
    'capture',
    'error_frame',
    'result_size',
    'result_sha256',
    'index_result',
)


def record_of(entry: Entry, folder: int, record: dict[str, Any]) -> bytes | None:
    """Return the record of a finished resource as it should be; None if its result is damaged.

    Args:
        entry: The resource's row.
        folder: A descriptor of its directory.
        record: The present record, perhaps of another resource.
    """
    kept = {name: record[name] for name in _KEPT if isinstance(record.get(name), (str, int))}
    if entry.status == 'completed' and 'result_sha256' not in kept:
        data = directory.read_result(folder)
        if data is None:
            return None
        kept.update(result_size=len(data), result_sha256=directory.checksum(data))
    return directory.record_bytes(entry, entry.status, directory.recorded_run(record), **kept)


class _Recovery(NamedTuple):
    claim: Claim
    collection: str
    ident: str
    error_type: str
    reason: str
    last_words: tuple[bytes, bytes] = (b'', b'')
    max_rss: int | None = None

    def recover(self, only_run: str | None) -> Recovered:
        folder = self.claim.folder
        on_disk = directory.read_status(folder)
        record = directory.read_record(folder)
        run = record.get('run') if record else None
        state = directory.effective_status(on_disk, record, folder)
        if on_disk != state or on_disk == 'pending':  # someone was cut off
            directory.sweep(folder)
        if state == 'absent':
            if directory.is_removed(folder):
                self.claim.remove()
            else:
                self._forget(on_disk)
            return Recovered(None)
        if state == 'pending':
            if only_run is not None and run != only_run:
                return Recovered(None, run=run)
            return Recovered(self._interrupt(record or {}), run=run)
        if on_disk != state:
            self.claim.set_status(state)  # type: ignore[arg-type]
            if record and record.get('ident') != self.ident:  # copied by hand; a digest names nobody
                record = adopted(self.claim, self.collection, self.ident)
        return Recovered(self._entry(state, record), run=run)

    def is_still(self, row: Entry) -> bool:
        """Return whether the folder still holds the run of this row, ended in the same way."""
        state = directory.read_status(self.claim.folder)
        entry = self._entry(state, directory.read_record(self.claim.folder))
        names = ('status', 'attempt', 'started_at', 'finished_at')
        return all(entry.raw(name) == row.raw(name) for name in names)

    def rewrite_record(self) -> None:
        state = directory.read_status(self.claim.folder)
        if state not in ('completed', 'error'):
            return
        directory.sweep(self.claim.folder)
        record = directory.read_record(self.claim.folder) or {}
        data = record_of(self._entry(state, record), self.claim.folder, record)
        if data is not None:
            self.claim.write_record(data)

    def _entry(self, state: Any, record: dict[str, Any] | None) -> Entry:
        path = f'{os.path.basename(self.claim.collection_path)}/{self.claim.name}'
        return directory.entry_of(self.collection, self.ident, path, state, self.claim.folder, record)

    def _interrupt(self, record: dict[str, Any]) -> Entry:
        entry = _cut_off(self._entry('pending', record), self.error_type, self.reason)
        entry = entry.change(max_rss=self.max_rss)
        for name, words in zip((directory.STDOUT, directory.STDERR), self.last_words, strict=True):
            with contextlib.suppress(OSError):
                _append(name, words, self.claim.folder)
        with contextlib.suppress(OSError):
            text = f'{self.error_type}: {self.reason}\n'.encode()
            fileops.replace(directory.ERROR, text, self.claim.folder)
        with contextlib.suppress(OSError):  # of the run before, or half written
            fileops.remove(directory.RESULT, self.claim.folder)
        # What the run removed is gone from the disk too, or the next one may find it there again.
        fileops.sync_folder(self.claim.folder)
        self.claim.write_record(directory.record_bytes(entry, 'error', directory.recorded_run(record)))
        return entry.change(seen_mtime_ns=self.claim.set_status('error'))

    def _forget(self, on_disk: directory.State) -> None:
        """Remove our files, as if never requested; the folder too if nothing else is in it."""
        folder = self.claim.folder
        if on_disk != 'absent':
            fileops.remove(directory.STATUS, folder)
        for name in (directory.RECORD, directory.LOCK):
            with contextlib.suppress(OSError):
                fileops.remove(name, folder)
        with contextlib.suppress(OSError):
            os.rmdir(directory.STORAGE, dir_fd=folder)
        with contextlib.suppress(OSError), fileops.opened(self.claim.collection_path, fileops.LOOK) as parent:
            os.rmdir(self.claim.name, dir_fd=parent)
