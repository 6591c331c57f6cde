"""Walk the directories: rebuild the index from them, compare the two, mend what differs.

A row is written only where it has not changed since its folder was read, so that a reindex during a
run does no harm: whoever wrote the row meanwhile knew more.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any, NamedTuple

from . import canonical, directory, diskio, settle
from .basedir import BaseDirectory
from .errors import BaseIsNotADirectory, HadrosaurError, NotAProject
from .records import CheckReport, Entry, Finding, ReindexReport
from .registry import collection_folders, collection_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from .index import Index
    from .store import Store

GROUP = 500  # rows per transaction while the index is filled
_COMPARED = ('args', 'args_hash', 'attempt', 'queued_at', 'started_at', 'finished_at', 'duration',
             'error_type', 'error', 'error_group', 'host', 'pid', 'cpu_seconds', 'max_rss', 'version',
             'path')  # fmt: skip


class Folder(NamedTuple):
    """What a walk finds in one folder: its row, or why it has none."""

    collection: str
    name: str  # of the folder, relative to the base
    entry: Entry | None
    problem: str | None = None
    unchanged: bool = False  # its status.json is no newer than what the index saw
    state: directory.State = 'absent'
    ident: str | None = None
    is_unread: bool = False  # it could not be read this time: its row stays


def is_project(base: BaseDirectory) -> bool:
    """Does the base hold an index, ``.hadrosaur/``, or a folder of folders with a status.json?"""
    if any(os.path.lexists(path) for path in (base.index_path, base.hidden)):
        return True
    return next(collection_folders(base.path), None) is not None


def require_project(base: BaseDirectory) -> None:
    """Raises NotAProject where there is nothing of ours, BaseIsNotADirectory for a file."""
    if os.path.exists(base.path) and not os.path.isdir(base.path):
        raise BaseIsNotADirectory(f'{base.given!r} is a file, not the base directory of a project')
    if not is_project(base):
        what = 'holds no hadrosaur project' if os.path.isdir(base.path) else 'does not exist'
        raise NotAProject(f'{base.given!r} {what}', hint='give the base directory that Project(…) was given')


def walk(base: str, only: str | None = None, seen: dict[str, int | None] | None = None) -> Iterator[Folder]:
    """Every folder of every collection (or of the one whose folder is ``only``).

    ``seen``: by path relative to the base, the time of the status.json that the index has seen; a
    folder whose time is the same is not read.
    """
    for folder in [only] if only is not None else collection_folders(base):
        collection = collection_of(folder)
        if collection is None:
            yield Folder(folder, folder, None, 'its name is that of no collection')
            continue
        path = f'{base}/{folder}'
        with diskio.opened(path, diskio.LOOK) as parent:
            for name in diskio.list_folders(path):
                yield _visit(collection, folder, name, parent, seen or {})


def _visit(collection: str, folder: str, name: str, parent: int, seen: dict[str, int | None]) -> Folder:
    path = f'{folder}/{name}'
    known = seen.get(path)
    if known is not None and directory.status_mtime(parent, f'{name}/') == known:
        return Folder(collection, path, None, unchanged=True)
    try:
        opened = diskio.open_folder(name, diskio.LOOK, within=parent)
    except OSError as error:
        return Folder(collection, path, None, str(error.strerror), is_unread=not diskio.is_no_file(error))
    try:
        return _look(collection, path, name, opened, parent)
    except HadrosaurError as error:
        return Folder(collection, path, None, str(error))
    except OSError as error:
        return Folder(collection, path, None, f'it cannot be read: {error.strerror}', is_unread=True)
    finally:
        os.close(opened)


def _look(collection: str, path: str, name: str, opened: int, parent: int) -> Folder:
    state = directory.read_status(opened)
    if state == 'absent':
        return Folder(collection, path, None)
    record = directory.read_record(opened)
    ident = directory.ident_of(name, opened, record)
    if _is_shadowed(name, ident, parent):
        return Folder(collection, path, None, f'its ident {ident!r} has a folder of its own')
    if state == 'damaged':
        return Folder(collection, path, None, f'{directory.STATUS} is damaged', state=state, ident=ident)
    entry = directory.entry_of(collection, ident, path, state, opened, record)
    problem = f'{directory.RECORD} is damaged' if record == {} else None
    return Folder(collection, path, entry, problem, state=state, ident=ident)


def _is_shadowed(name: str, ident: str, parent: int) -> bool:
    encoded = canonical.folder_name(ident)
    if encoded == name:
        return False
    try:
        os.stat(encoded, dir_fd=parent, follow_symlinks=False)
    except OSError:
        return False
    return True


def refill(base: BaseDirectory, index: Index) -> None:
    """Fill a new, empty index from the directories."""
    rows: list[tuple[Entry, str | None]] = []
    for found in walk(base.path):
        if found.entry is not None:
            rows.append((found.entry, None))
        if len(rows) >= GROUP:
            index.merge(rows, [])
            rows.clear()
    index.merge(rows, [])


def reindex(
    store: Store,
    collection: str | None = None,
    *,
    changed_only: bool = False,
    progress: Callable[[int], None] | None = None,
) -> ReindexReport:
    """Make the rows what the folders are; see `Project.reindex`."""
    return _Reindexing(store, collection, progress).run(changed_only=changed_only)


class _Reindexing:
    def __init__(self, store: Store, collection: str | None, progress: Callable[[int], None] | None) -> None:
        self._store = store
        self._collection = collection
        self._progress = progress
        self._changes: list[tuple[Entry, str | None]] = []
        self._counts = [0, 0, 0]  # added, updated, removed

    def run(self, *, changed_only: bool) -> ReindexReport:
        rows = {(row.collection, row.ident): row for row in self._store.index.scan(self._collection)}
        seen = {row.path: row.seen_mtime_ns for row in rows.values()} if changed_only else {}
        by_path = {row.path: key for key, row in rows.items()} if changed_only else {}
        unreadable: list[tuple[str, str]] = []
        unread: set[str] = set()
        scanned = 0
        only = None if self._collection is None else canonical.collection_folder(self._collection)
        for found in walk(self._store.base.path, only, seen):
            scanned += 1
            if found.problem is not None:
                unreadable.append((found.name, found.problem))
            if found.is_unread:
                unread.add(found.name)
            if found.unchanged:
                rows.pop(by_path[found.name], None)
                continue
            entry = found.entry
            if entry is None or entry.status == 'pending':
                entry = self._settled(found)
            if entry is not None:
                self._compare(entry, rows.pop((entry.collection, entry.ident), None))
            if self._progress is not None and scanned % GROUP == 0:
                self._progress(scanned)
        left = {key: row for key, row in rows.items() if row.path not in unread and not self._is_queued(row)}
        self._flush([(*key, row.raw('changed')) for key, row in left.items()])
        added, updated, gone = self._counts
        return ReindexReport(scanned, added, updated, gone, unreadable)

    def _settled(self, found: Folder) -> Entry | None:
        """A folder that is pending or damaged, once settled; as it is while someone computes it."""
        if found.ident is None or found.state == 'absent':
            return None
        folder = os.path.basename(found.name)
        path = f'{self._store.base.path}/{os.path.dirname(found.name)}'
        awaited = self._is_queued(self._store.index.get(found.collection, found.ident))
        if awaited:
            return found.entry and found.entry.change(phase='queued')
        settled = settle.settle(found.collection, found.ident, path, folder, lock=self._store.base.lock)
        return found.entry if settled.busy or settled.spoiled is not None else settled.entry

    def _is_queued(self, row: Entry | None) -> bool:
        return row is not None and row.status == 'pending' and self._store.base.is_alive(row.session)

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
    """The columns in which a folder's entry and its row differ, status first."""
    return [name for name in ('status', *_COMPARED) if entry.raw(name) != row.raw(name)]


# --- check -----------------------------------------------------------------------------------------


def check(store: Store, *, fix: bool = False, deep: bool = False) -> CheckReport:
    """Compare index and directories; see `Project.check`."""
    return _Checking(store, deep=deep).run(fix=fix)


class _Checking:
    def __init__(self, store: Store, *, deep: bool) -> None:
        self._store = store
        self._deep = deep
        self._findings: list[Finding] = []
        self._misrecorded: list[Folder] = []

    def run(self, *, fix: bool) -> CheckReport:
        rows = {(row.collection, row.ident): row for row in self._store.index.scan()}
        scanned = 0
        for found in walk(self._store.base.path):
            scanned += 1
            try:
                self._examine(found, rows)
            except OSError as error:
                self._note('damaged', found.collection, found.ident or found.name, f'cannot be read: {error}')
        for (collection, ident), row in rows.items():
            if not self._is_under_way(row):
                self._note('missing-folder', collection, ident, f'the row says {row.status}, no folder does')
        if fix and self._findings:
            self._mend()
        return CheckReport(scanned, self._findings)

    def _examine(self, found: Folder, rows: dict[tuple[str, str], Entry]) -> None:
        ident = found.ident or os.path.basename(found.name)
        if found.problem is not None:
            self._note('damaged', found.collection, ident, found.problem)
            self._misrecorded.append(found)
        if found.entry is None:
            if found.state == 'damaged':
                rows.pop((found.collection, ident), None)
            return
        entry = found.entry
        row = rows.pop((entry.collection, entry.ident), None)
        if row is None:
            self._note('missing-row', entry.collection, ident, f'the folder says {entry.status}, no row does')
        elif entry.status == 'pending':
            self._examine_pending(entry, row)
        else:
            self._compare(entry, row)
        if entry.status == 'completed':
            self._examine_result(found, entry)

    def _examine_pending(self, entry: Entry, row: Entry) -> None:
        folder = os.path.basename(entry.path)
        path = f'{self._store.base.path}/{os.path.dirname(entry.path)}'
        with diskio.opened(path, diskio.LOOK) as parent:
            if not diskio.is_locked(folder, parent) and not self._is_under_way(row):
                self._note('cut-off', entry.collection, entry.ident, 'begun, and cut off half way')

    def _compare(self, entry: Entry, row: Entry) -> None:
        changed = differences(entry, row)
        if not changed:
            return
        name = changed[0]
        problem = 'status' if name == 'status' else 'times' if name.endswith('_at') else 'details'
        detail = f'{name}: the folder says {entry.raw(name)!r}, the row {row.raw(name)!r}'
        self._note(problem, entry.collection, entry.ident, detail)

    def _examine_result(self, found: Folder, entry: Entry) -> None:
        path, name = os.path.split(f'{self._store.base.path}/{found.name}')
        with diskio.opened_below(path, name) as opened:
            data = directory.read_result(opened) if self._deep else b''
            record = directory.read_record(opened) or {}
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
            detail = f'{directory.RECORD} was written for {record.get("collection")}/{record.get("ident")}'
            self._note('foreign-record', entry.collection, entry.ident, detail)
            self._misrecorded.append(found)

    def _adopt(self) -> None:
        for found in self._misrecorded:
            if found.ident is not None:
                path, name = os.path.split(f'{self._store.base.path}/{found.name}')
                settle.adopt(found.collection, found.ident, path, name, lock=self._store.base.lock)

    def _is_under_way(self, row: Entry) -> bool:
        return row.status == 'pending' and self._store.base.is_alive(row.session)

    def _note(self, problem: str, collection: str, ident: str, detail: str) -> None:
        self._findings.append(Finding(problem, collection, ident, detail))

    def _mend(self) -> None:
        """Settle, have records tell of their own resource, and look again: what is found no more was mended.

        A folder that had to be settled may show only then that its record tells of another.
        """
        reindex(self._store)
        settled = _Checking(self._store, deep=self._deep)
        settled.run(fix=False)
        if settled._misrecorded:
            settled._adopt()
            reindex(self._store)
        last = _Checking(self._store, deep=self._deep).run(fix=False).findings
        left, known = {finding[:3] for finding in last}, {finding[:3] for finding in self._findings}
        mended = [finding._replace(mended=finding[:3] not in left) for finding in self._findings]
        self._findings = mended + [finding for finding in last if finding[:3] not in known]
