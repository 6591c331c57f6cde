"""Recover what dead processes left behind: their pending rows, one folder at a time.

Only rows are checked, not all folders: a folder without a row is found by the next fetch of it, by check, or
by reindex. A folder whose lock is held is still being computed, by a worker that outlived its caller; its row
stays pending.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from . import canonical, directory, recover
from .errors import IndexFault, Interrupted, InvalidIdent, log, warn
from .recover import Recovered
from .reindex import reindex
from .store import GROUP

if TYPE_CHECKING:
    from .records import Entry
    from .store import Store


MANY = 5000  # rows that take so long to recover that it is said


def recover_all(store: Store) -> int:
    """Recover the pending rows of dead processes (on a read-only base: overlay them); returns how many."""
    index = store.index
    if not index.is_read_only:
        catch_up(store)
    dead = [session for session in index.pending_sessions() if not store.base.is_alive(session)]
    if not dead:
        return 0
    if index.is_read_only:
        index.mask(dead)
        return 0
    recovered = 0
    store.unsettled.clear()
    entries = index.pending(dead)
    if len(entries) > MANY:
        warn(
            f'recovering {len(entries)} resources that dead processes left pending; this happens once',
        )
    for start in range(0, len(entries), GROUP):
        found = [(entry, _settled(store, entry)) for entry in entries[start : start + GROUP]]
        known = [(entry, now) for entry, now in found if now.is_known]
        store.write_rows(
            [((entry.collection, entry.ident), now.entry, entry.raw('changed')) for entry, now in known]
        )
        recovered += len(known)
        for entry, now in found:
            if now.ended_in_error is not None:  # a full disk, say: nobody computes it, and that is shown
                store.unsettled[entry.collection, entry.ident] = _cut_off(entry, now.ended_in_error)
    for session in dead:
        if session is not None:
            store.base.drop_session(session)
    log('%s: recovered %d runs of dead processes', store.base.given, recovered)
    return recovered


def _cut_off(entry: Entry, why: str) -> Entry:
    return entry.change(
        status='error',
        phase=None,
        error_type=Interrupted.__name__,
        error=f'{recover.REASON}, and that cannot be written down: {why}',
        session=None,
    )


def catch_up(store: Store) -> None:
    """Write the rows that dead processes left unwritten, from the folders."""
    for mark in store.base.unwritten():
        try:
            reindex(store, changed_only=True)
        except (IndexFault, OSError):  # it cannot be written now either
            return
        store.base.drop_session(mark)
        log('%s: wrote rows that a dead process had left unwritten', store.base.given)


def _settled(store: Store, entry: Entry) -> Recovered:
    """Recover the folder of a collection and ident; the path in the row is not trusted."""
    try:
        path = store.base.collection_path(canonical.collection_folder(entry.collection))
        folder = directory.find_folder(path, entry.ident)
    except InvalidIdent:  # a row that no folder can have
        return Recovered(None)
    return recover.recover(entry.collection, entry.ident, path, folder, lock=store.base.lock)
