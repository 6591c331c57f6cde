"""Settle what dead sessions left behind: their pending rows, one folder at a time.

Only rows are looked at, never all folders: a folder without a row is met by the next fetch of it, by
check, or by reindex. A folder whose lock is held is still being computed, by a worker that outlives
its caller; its row stays pending.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from . import settle

if TYPE_CHECKING:
    from .store import Store


def recover(store: Store) -> int:
    """Settle the pending rows whose process is gone (read-only: mask them); returns how many."""
    index = store.index
    dead = [session for session in index.pending_sessions() if not store.base.is_alive(session)]
    if not dead:
        return 0
    if index.is_read_only:
        index.mask(dead)
        return 0
    settled = 0
    for entry in index.pending(dead):
        collection, folder = os.path.split(entry.path)
        found = settle.settle(
            entry.collection,
            entry.ident,
            store.base.collection_path(collection),
            folder,
            lock=store.base.lock,
        )
        if found.is_known:
            store.write_row(entry.collection, entry.ident, found.entry, entry.raw('changed'))
            settled += 1
    for session in dead:
        if session is not None:
            store.base.drop_session(session)
    return settled
