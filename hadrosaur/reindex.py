"""Walk the directories: rebuild the index from them, compare the two, repair differences.

To be safe beside running computations, a row is read before its folder, and written only if it has not
changed since: another writer knew more. Folders and rows are read in groups. For each resource met, a hash is
kept: 60 MB for a million.
"""

from __future__ import annotations

import operator
import os
from itertools import repeat
from typing import TYPE_CHECKING, Any

from . import canonical, directory, fileops, recover
from .basedir import BaseDirectory
from .errors import BaseIsNotADirectory, NotAProject, warn
from .handle import of_one_run
from .records import COLUMNS, PUBLIC_COLUMNS, CheckReport, Entry, Finding, ReindexReport
from .registry import collection_folders
from .scan import GROUP, Folder, look_for, walk

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from .index import Index
    from .store import Store

_COMPARED = tuple(name for name in PUBLIC_COLUMNS if name not in ('collection', 'ident', 'phase'))
_compared = operator.itemgetter(*map(COLUMNS.index, _COMPARED))


def is_project(base: BaseDirectory) -> bool:
    """Return whether the base holds an index, ``.hadrosaur/``, or a resource."""
    if any(os.path.lexists(path) for path in (base.index_path, base.hidden)):
        return True
    return next(collection_folders(base.path), None) is not None


def require_project(base: BaseDirectory) -> None:
    """Raise NotAProject if there is no project, BaseIsNotADirectory for a file."""
    if os.path.exists(base.path) and not os.path.isdir(base.path):
        raise BaseIsNotADirectory(f'{base.given!r} is a file, not the base directory of a project')
    if not is_project(base):
        what = 'holds no hadrosaur project' if os.path.isdir(base.path) else 'does not exist'
        raise NotAProject(f'{base.given!r} {what}', hint='give the base directory that Project(…) was given')


class _Met:
    """The set of resources met, as hashes to save memory.

    A hash collision hides a row without a folder until the next reindex: among a million, the chance is one
    in 10^13.
    """

    def __init__(self) -> None:
        self._hashes: set[int] = set()

    def add(self, collection: str, ident: str) -> None:
        self._hashes.add(hash((collection, ident)))

    def add_all(self, collection: str, idents: Sequence[str]) -> None:
        """Call `add` for each."""
        self._hashes.update(map(hash, zip(repeat(collection), idents, strict=False)))

    def __len__(self) -> int:
        return len(self._hashes)

    def others(self, index: Index, collection: str | None = None) -> Iterator[Entry]:
        """Yield the rows of resources that were not met."""
        for key in index.keys(collection):
            row = index.get(*key) if hash(key) not in self._hashes else None
            if row is not None:
                yield row


def refill(base: BaseDirectory, index: Index) -> None:
    """Fill a new, empty index from the directories.

    Folders that cannot be read get no row, with a warning, since nothing else would report them.
    """
    rows: list[tuple[Entry, str | None]] = []
    unread: list[Folder] = []
    for found in walk(base.path):
        if found.is_unread:
            unread.append(found)
        if found.entry is not None:
            rows.append((found.entry, None))
        if len(rows) >= GROUP:
            index.merge(rows, [])
            rows.clear()
    index.merge(rows, [])
    if unread:
        warn(
            f'{len(unread)} resources of {base.given!r} could not be read and are not in its new index, such '
            f'as {unread[0].name} ({unread[0].problem}); once they can be read, '
            f'`hadrosaur reindex {base.given}` adds them',
        )


def reindex(
    store: Store,
    collection: str | None = None,
    *,
    changed_only: bool = False,
    progress: Callable[[int], None] | None = None,
) -> ReindexReport:
    """Update the rows from the folders; see `Project.reindex`."""
    return _Reindexing(store, collection, progress).run(changed_only=changed_only)


class _Reindexing:
    def __init__(self, store: Store, collection: str | None, progress: Callable[[int], None] | None) -> None:
        self._store = store
        self._base = store.base
        self._collection = collection
        self._progress = progress
        self._changes: list[tuple[Entry, str | None]] = []
        self._counts = [0, 0, 0]  # added, updated, removed

    def run(self, *, changed_only: bool) -> ReindexReport:
        unreadable: list[tuple[str, str]] = []
        met = _Met()
        scanned = 0
        only = None if self._collection is None else canonical.collection_folder(self._collection)
        index = self._store.index
        told = GROUP
        for found in walk(self._base.path, only, index.rows, index.seen if changed_only else None):
            scanned += len(found.unchanged) or 1
            met.add_all(found.collection, found.unchanged)
            if found.problem is not None:
                unreadable.append((found.name, found.problem))
            entry = None if found.unchanged else self._entry(found)
            if entry is not None:
                met.add(entry.collection, entry.ident)
                self._compare(entry, found.row)
            if self._progress is not None and scanned >= told:
                told = scanned + GROUP
                self._progress(scanned)
        self._flush([])
        self._remove_rows_but(met)
        added, updated, removed = self._counts
        return ReindexReport(scanned, added, updated, removed, unreadable)

    def _entry(self, found: Folder) -> Entry | None:
        """Return the entry that the row should hold."""
        if found.entry is None or found.entry.status == 'pending':
            return self._settled(found)
        return found.entry

    def _remove_rows_but(self, met: _Met) -> None:
        """Remove the rows without a folder; each row is read before its folder is looked for."""
        rows = sum(counts['total'] for counts in self._store.index.count(self._collection).values())
        if rows == len(met):  # each that was met has its row by now
            return
        removed: list[tuple[str, str, Any]] = []
        for row in met.others(self._store.index, self._collection):
            if self._is_queued(row):
                continue
            found = look_for(self._base.path, row.collection, row.ident)
            if found is None or (not found.is_unread and self._entry(found) is None):
                removed.append((row.collection, row.ident, row.raw('changed')))
            if len(removed) >= GROUP:
                self._flush(removed)
                removed.clear()
        self._flush(removed)

    def _settled(self, found: Folder) -> Entry | None:
        """Return a pending or damaged folder after recovery; unchanged if it is being computed."""
        if found.ident is None or found.state == 'absent':
            return None
        folder = os.path.basename(found.name)
        path = f'{self._base.path}/{os.path.dirname(found.name)}'
        awaited = self._is_queued(self._store.index.get(found.collection, found.ident))
        if awaited:
            return found.entry and found.entry.change(phase='queued')
        recovered = recover.recover(found.collection, found.ident, path, folder, lock=self._base.lock)
        return recovered.entry if recovered.is_known else found.entry

    def _is_queued(self, row: Entry | None) -> bool:
        return row is not None and row.status == 'pending' and self._base.is_alive(row.session)

    def _compare(self, entry: Entry, row: Entry | None) -> None:
        if row is None:
            self._changes.append((entry, None))
        elif row.status == 'pending' == entry.status:
            pass  # under way: its caller knows best
        elif differences(entry, row) or row.seen_mtime_ns != entry.seen_mtime_ns:
            self._changes.append((entry, row.raw('changed')))
        if len(self._changes) >= GROUP:
            self._flush([])

    def _flush(self, removed: list[tuple[str, str, Any]]) -> None:
        done = self._store.index.merge(self._changes, removed)
        self._counts = [had + new for had, new in zip(self._counts, done, strict=True)]
        self._changes.clear()


def differences(entry: Entry, row: Entry) -> list[str]:
    """Return the columns in which a folder's entry and its row differ, status first."""
    if _compared(tuple(entry)) == _compared(tuple(row)):
        return []
    return [name for name in _COMPARED if entry.raw(name) != row.raw(name)]


# --- check -----------------------------------------------------------------------------------------


def check(
    store: Store,
    *,
    fix: bool = False,
    deep: bool = False,
    progress: Callable[[int], None] | None = None,
) -> CheckReport:
    """Compare index and directories; see `Project.check`."""
    return _Checking(store, deep=deep, progress=progress).run(fix=fix)


def _has_folder(base: str, row: Entry) -> bool:
    """Return whether a folder for this row has appeared since the walk."""
    found = look_for(base, row.collection, row.ident)
    return found is not None and (found.entry is not None or found.is_unread)


class _Checking:
    def __init__(self, store: Store, *, deep: bool, progress: Callable[[int], None] | None = None) -> None:
        self._store = store
        self._deep = deep
        self._progress = progress
        self._findings: list[Finding] = []
        self._misrecorded: list[tuple[str, str, str]] = []  # collection, ident, folder

    def run(self, *, fix: bool) -> CheckReport:
        index, base = self._store.index, self._store.base.path
        met = _Met()
        scanned = 0
        for found in walk(base, rows=index.rows):
            scanned += 1
            if self._progress is not None and scanned % GROUP == 0:
                self._progress(scanned)
            if found.ident is not None and (found.entry is not None or found.state == 'damaged'):
                met.add(found.collection, found.ident)
            try:
                self._examine(found)
            except OSError as error:
                self._note('damaged', found.collection, found.ident or found.name, f'cannot be read: {error}')
        for row in met.others(index):
            if self._is_under_way(row) or _has_folder(base, row):
                continue
            what = f'the row says {row.status}, no folder does'
            self._note('missing-folder', row.collection, row.ident, what)
        if fix and self._findings:
            self._repair()
        return CheckReport(scanned, self._findings)

    def _examine(self, found: Folder) -> None:
        ident = found.ident or os.path.basename(found.name)
        if found.problem is not None:
            self._note('damaged', found.collection, ident, found.problem)
            if found.ident is not None:
                self._misrecorded.append((found.collection, ident, found.name))
        entry, row = found.entry, found.row
        if entry is None:
            return
        is_told = entry.status == 'completed' and self._examine_result(found, entry)
        if row is not None and (is_told or not self._deep):  # one finding for one fault
            row = row.change(result=entry.raw('result'))
        if row is None:
            self._note('missing-row', entry.collection, ident, f'the folder says {entry.status}, no row does')
        elif entry.status == 'pending':
            self._examine_pending(entry, row)
        else:
            self._compare(entry, row)

    def _examine_pending(self, entry: Entry, row: Entry) -> None:
        path, folder = os.path.split(f'{self._store.base.path}/{entry.path}')
        if not self._store.is_locked(path, folder) and not self._is_under_way(row):
            self._note('cut-off', entry.collection, entry.ident, 'begun, and cut off half way')

    def _compare(self, entry: Entry, row: Entry) -> None:
        changed = differences(entry, row)
        if not changed or self._is_under_way(row):
            return
        now = self._store.index.get(row.collection, row.ident)
        if now is None or now.raw('changed') != row.raw('changed'):
            return  # it was written meanwhile
        name = changed[0]
        problem = 'status' if name == 'status' else 'times' if name.endswith('_at') else 'details'
        detail = f'{name}: the folder says {entry.raw(name)!r}, the row {row.raw(name)!r}'
        self._note(problem, entry.collection, entry.ident, detail)

    def _examine_result(self, found: Folder, entry: Entry) -> bool:
        """Return what is wrong with a result.json, if anything."""
        before = len(self._findings)
        path, name = os.path.split(f'{self._store.base.path}/{found.name}')

        def read(record: dict[str, Any] | None) -> tuple[dict[str, Any], bytes | None, bool]:
            data = directory.read_result(opened) if self._deep else b''
            return record or {}, data, directory.read_status(opened) == 'completed'

        with fileops.opened_below(path, name) as opened:
            record, data, is_completed = of_one_run(opened, read)
        if not is_completed:  # it is computed anew
            return False
        if data is None:
            self._note('damaged', entry.collection, entry.ident, f'{directory.RESULT} does not parse')
        elif self._deep and record.get('result_sha256') not in (None, directory.checksum(data)):
            detail = (
                f'{directory.RESULT} was changed: its checksum differs from the one in {directory.RECORD}'
            )
            self._note('checksum', entry.collection, entry.ident, detail)
        if record.get('collection', entry.collection) != entry.collection or (
            record.get('ident', entry.ident) != entry.ident
        ):
            # A copy made by hand, which is a resource of its folder's name: no disagreement.
            self._misrecorded.append((entry.collection, entry.ident, found.name))
        return len(self._findings) > before

    def _adopt(self) -> None:
        for collection, ident, folder in self._misrecorded:
            path, name = os.path.split(f'{self._store.base.path}/{folder}')
            recover.rewrite_record(collection, ident, path, name, lock=self._store.base.lock)

    def _is_under_way(self, row: Entry) -> bool:
        return row.status == 'pending' and self._store.base.is_alive(row.session)

    def _note(self, problem: str, collection: str, ident: str, detail: str) -> None:
        self._findings.append(Finding(problem, collection, ident, detail))

    def _repair(self) -> None:
        """Recover the folder, rewrite its record if needed, and look again: what is gone was fixed.

        Only recovery may reveal that a record belongs to another resource.
        """
        reindex(self._store)
        recovered = _Checking(self._store, deep=self._deep)
        recovered.run(fix=False)
        if recovered._misrecorded:
            recovered._adopt()
            reindex(self._store)
        last = _Checking(self._store, deep=self._deep).run(fix=False).findings
        left, known = {finding[:3] for finding in last}, {finding[:3] for finding in self._findings}
        fixed = [finding._replace(fixed=finding[:3] not in left) for finding in self._findings]
        self._findings = fixed + [finding for finding in last if finding[:3] not in known]
