"""Walk the directories and turn each folder into a row.

Folders and rows are read in groups, each row before its folder. The record of a finished run, if it is
formatted as we write it, is read by one regular expression; anything else is parsed.
"""

from __future__ import annotations

import contextlib
import os
from itertools import islice
from typing import TYPE_CHECKING, Any, NamedTuple

from . import canonical, directory, fileops
from .directory import record_pattern
from .errors import HadrosaurError, InvalidIdent
from .handle import of_one_run
from .records import Entry
from .registry import collection_folders, collection_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

GROUP = 500
"""Folders that are looked at together."""


class Folder(NamedTuple):
    """What a walk found in one folder: its row, or why it has none."""

    collection: str
    name: str  # of the folder, relative to the base
    entry: Entry | None
    problem: str | None = None
    row: Entry | None = None  # the row that it had before it was read
    unchanged: Sequence[str] = ()  # not one folder, but the idents of some that the index saw as they are
    state: directory.State = 'absent'
    ident: str | None = None
    is_unread: bool = False  # it could not be read this time: its row stays


def _no_rows(collection: str, idents: Sequence[str]) -> dict[str, Entry]:
    return {}


def walk(
    base: str,
    only: str | None = None,
    rows: Callable[[str, Sequence[str]], dict[str, Entry]] = _no_rows,
    seen: Callable[[str, Sequence[str]], dict[str, tuple[Any, Any]]] | None = None,
) -> Iterator[Folder]:
    """Yield every folder of every collection (or of the one whose folder is ``only``) with its row.

    Args:
        base: Absolute path of the base.
        only: Name of a collection's folder.
        rows: Returns rows by ident: ``(collection, idents)``.
        seen: Returns, for idents, the folder and the mtime of status.json that the index knows; a folder
            whose mtime is the same is not read.
    """
    for folder in [only] if only is not None else collection_folders(base):
        collection = collection_of(folder)
        if collection is None:
            yield Folder(folder, folder, None, 'its name is that of no collection')
            continue
        path = f'{base}/{folder}'
        with fileops.opened(path) as parent:
            visit = _Visit(collection, folder, parent)
            names = fileops.list_folders(parent)
            while group := {name: _ident_of(name) for name in islice(names, GROUP)}:
                if seen is not None and (same := visit.unchanged(group, seen)):
                    yield Folder(collection, folder, None, unchanged=list(filter(None, map(group.pop, same))))
                known = rows(collection, [ident for ident in group.values() if ident is not None])
                for name, ident in group.items():
                    found = visit(name, known.get(ident) if ident is not None else None)
                    if ident is None and found.ident is not None:  # its record told; the row comes first
                        found = visit(name, rows(collection, [found.ident]).get(found.ident))
                    yield found


def look_for(base: str, collection: str, ident: str) -> Folder | None:
    """Return the folder of one resource as it is now; None if there is none."""
    try:
        folder = canonical.collection_folder(collection)
        path = f'{base}/{folder}'
        with fileops.opened(path, fileops.LOOK) as parent:
            return _Visit(collection, folder, parent)(directory.find_folder(path, ident), None)
    except (FileNotFoundError, InvalidIdent):  # a row that was written by hand may have any name
        return None
    except OSError as error:
        if fileops.is_no_file(error):  # a link or a file stands in the place of the collection
            return None
        raise


class _Visit(NamedTuple):
    """Reads the folders of one collection."""

    collection: str
    folder: str
    parent: int  # descriptor

    def __call__(self, name: str, row: Entry | None) -> Folder:
        found = self._read(f'{self.folder}/{name}', name, row)
        return found if found.row is row else found._replace(row=row)

    def unchanged(
        self,
        group: dict[str, str | None],
        seen: Callable[[str, Sequence[str]], dict[str, tuple[Any, Any]]],
    ) -> list[str]:
        """Return the names whose status.json has the mtime that the index knows."""
        found = seen(self.collection, [ident for ident in group.values() if ident is not None])
        parent, same = self.parent, []
        for name, ident in group.items():
            known = found.get(ident) if ident is not None else None
            if known is None or known[1] is None or known[0] != f'{self.folder}/{name}':
                continue
            try:
                now = os.stat(f'{name}/{directory.STATUS}', dir_fd=parent, follow_symlinks=False)
            except OSError:
                continue
            if now.st_mtime_ns == known[1]:
                same.append(name)
        return same

    def _read(self, path: str, name: str, row: Entry | None) -> Folder:
        try:
            opened = fileops.open_folder(name, fileops.LOOK, within=self.parent)
        except OSError as error:
            if fileops.is_ours(error):
                raise OSError(error.errno, error.strerror, path)
            is_unread = not fileops.is_no_file(error) and not isinstance(error, FileNotFoundError)
            return Folder(self.collection, path, None, str(error.strerror), is_unread=is_unread)
        try:
            where = (self.collection, path, name, opened, self.parent)
            quick = self._quickly(path, name, opened, row)
            return quick or of_one_run(opened, lambda record: _look(record, *where))
        except HadrosaurError as error:
            return Folder(self.collection, path, None, str(error))
        except OSError as error:
            if fileops.is_ours(error):
                raise OSError(error.errno, error.strerror, path)
            return Folder(self.collection, path, None, f'it cannot be read: {error.strerror}', is_unread=True)
        finally:
            os.close(opened)

    def _quickly(self, path: str, name: str, opened: int, row: Entry | None) -> Folder | None:
        """Read a finished run whose record is formatted as we write it; None if it needs parsing."""
        ident = _ident_of(name)
        data = directory.record_data(opened)
        known = record_pattern.cells(data) if data else None
        if known is None or ident is None or canonical.folder_name(ident) != name:
            return None
        state = directory.read_status(opened)
        if state != known['status']:
            return None
        entry = Entry.make(
            collection=self.collection,
            ident=ident,
            path=path,
            result=directory.indexed_result(directory.RESULT, opened, {}) if state == 'completed' else None,
            seen_mtime_ns=directory.status_mtime(opened),
            **known,
        )
        if directory.record_data(opened) != data:  # another run has begun
            return None
        return Folder(self.collection, path, entry, row=row, state=state, ident=ident)


def _look(
    record: dict[str, Any] | None, collection: str, path: str, name: str, opened: int, parent: int
) -> Folder:
    state = directory.read_status(opened)
    if state == 'absent':
        return Folder(collection, path, None)
    ident = directory.ident_of(name, opened, record)
    if _is_shadowed(name, ident, parent):
        return Folder(collection, path, None, f'its ident {ident!r} has a folder of its own')
    if state == 'damaged':
        return Folder(collection, path, None, f'{directory.STATUS} is damaged', state=state, ident=ident)
    entry = directory.entry_of(collection, ident, path, state, opened, record)
    problem = f'{directory.RECORD} is damaged' if record == {} else None
    return Folder(collection, path, entry, problem, state=state, ident=ident)


def _is_shadowed(name: str, ident: str, parent: int) -> bool:
    """Whether the ident also has a folder under its newer name, which wins."""
    names = (canonical.folder_name(ident), *canonical.folder_names_before(ident))
    for newer in names[: names.index(name)] if name in names else names[:1]:
        with contextlib.suppress(OSError):
            os.stat(newer, dir_fd=parent, follow_symlinks=False)
            return True
    return False


def _ident_of(name: str) -> str | None:
    """Return the ident that a folder's name alone determines."""
    try:
        return canonical.ident_of_folder(name)
    except InvalidIdent:
        return None
