"""A base directory together with its index: what `fetch` and `fetch_many` do to both, in order.

Files first, index second. Where the index cannot be written after the files are final, that is a
warning and not an error: the files are the truth, and the row follows at the next opening or reindex.

`FilesOnly` is the same inside a worker: there the index is out of reach, and the rows of what a
function fetches travel with its own outcome.
"""

from __future__ import annotations

import os
import shlex
import time
import warnings
from typing import TYPE_CHECKING, Any

from . import canonical, compute, directory, diskio, settle
from .errors import HadrosaurWarning, IndexFault
from .handle import Look, Resource, look
from .locks import Guarded
from .records import Entry, Outcome, WorkOrder, format_time
from .settle import Settled

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from .basedir import BaseDirectory
    from .index import Index
    from .registry import Collection


GROUP = 64  # rows of settled resources in one transaction


class Store(Guarded):
    """One project's directories and index.

    Attributes:
        is_sent_off: Is a resource (collection, ident) on its way here, or waiting to be tried again?
    """

    def __init__(
        self,
        base: BaseDirectory,
        open_index: Callable[[], Index],
        recover: Callable[[Store], object] | None = None,
        is_sent_off: Callable[[str, str], bool] = lambda collection, ident: False,
    ) -> None:
        super().__init__()
        self.base = base
        self._open_index = open_index
        self._recover = recover
        self.is_sent_off = is_sent_off
        self._index: Index | None = None

    @property
    def index(self) -> Index:
        """The index; at the first use it is opened, and what dead processes left is settled."""
        index = self._index  # another thread may close it: then this one opens anew what it has
        if index is None:
            with self._guard:
                opened = self._index is None
                index = self._index = self._index or self._open_index()
            if opened and self._recover is not None:
                self._recover(self)
        return index

    def rebuild(self) -> None:
        """Set the index aside, whatever it is, and make a new one from the directories."""
        index = self._index = self._index or self._open_index()
        index.rebuild()

    # --- looking -----------------------------------------------------------------------------------

    def look(self, collection: Collection, ident: str, *, with_record: bool = False) -> tuple[str, Look]:
        """(folder, what it says) of a resource, without lock or index."""
        path = collection.task.path
        folder = directory.find_folder(path, ident)
        return folder, look(path, folder, with_record=with_record)

    def record(self, collection: Collection, folder: str) -> dict[str, Any] | None:
        """The record.json of a resource, None where there is none."""
        try:
            with diskio.opened_below(collection.task.path, folder) as opened:
                return directory.read_record(opened)
        except OSError:
            return None

    def is_locked(self, collection_path: str, folder: str) -> bool:
        """Is someone computing the resource in this folder of a collection (an absolute path)?"""
        path, name = collection_path, folder
        if self.base.lock != 'folder':
            path, name = f'{collection_path}/{folder}', directory.LOCK
        try:
            with diskio.opened(path, diskio.LOOK) as parent:
                return diskio.is_locked(name, parent)
        except OSError:
            return False

    def is_awaited(self, collection: Collection, ident: str, folder: str) -> bool:
        """Is someone computing the resource, or has a living process queued it?"""
        if self.is_locked(collection.task.path, folder):
            return True
        return self.is_queued(collection.name, ident)

    def is_queued(self, collection: str, ident: str) -> bool:
        """Has a living process queued the resource? Of our own rows those count that are on their way."""
        row = self.index.get(collection, ident)
        if row is None or row.status != 'pending':
            return False
        if row.session == self.base.session():
            return self.is_sent_off(collection, ident)
        return self.base.is_alive(row.session)

    def settle(self, collection: Collection, ident: str, folder: str) -> Settled:
        """Settle a folder that nobody computes, and put what it is into the index."""
        changed = self.changed(collection.name, ident)
        settled = _settled(collection, ident, folder)
        if settled.is_known:
            self.write_rows([((collection.name, ident), settled.entry, changed)])
        return settled

    def note_done(self, collection: Collection, ident: str, folder: str) -> Settled:
        """Settle a resource that someone else has computed, and see that its row says what came of it.

        Whoever computed it may be gone by now, with nobody left to write the row.
        """
        settled = _settled(collection, ident, folder)
        entry = settled.entry
        if entry is not None:
            self._try(lambda: self._finish_pending(entry))
        return settled

    def _finish_pending(self, entry: Entry) -> None:
        row = self.index.get(entry.collection, entry.ident)
        if row is None or row.status == 'pending':
            self.index.finish([entry])

    def changed(self, collection: str, ident: str) -> Any:
        """When the row was written last, None where there is none; asked for before its folder is read."""
        try:
            row = self.index.get(collection, ident)
        except (IndexFault, OSError):
            return None
        return None if row is None else row.raw('changed')

    def write_rows(self, found: Sequence[tuple[tuple[str, str], Entry | None, Any]]) -> None:
        """Make rows what their folders were found to be: (key, an entry or no row, changed).

        Not where the row has been written since ``changed``: somebody fetches it at this moment.
        """
        there = [(entry, changed) for _, entry, changed in found if entry is not None]
        gone = [(*key, changed) for key, entry, changed in found if entry is None and changed is not None]
        if there or gone:
            self._try(lambda: self.index.merge(there, gone))

    # --- orders and outcomes -----------------------------------------------------------------------

    def order(
        self,
        collection: Collection,
        ident: str,
        args: str | None,
        folder: str,
        *,
        recompute: str = 'no',
    ) -> WorkOrder:
        """An order for a resource. Without ``args`` (canonical JSON) those of the last run are repeated."""
        if args is None:
            is_there = os.path.lexists(f'{collection.task.path}/{folder}')
            record = self.record(collection, folder) if is_there else None
            args = (directory.recorded_args(record) if record else None) or '{}'
        running = compute.current()
        return WorkOrder(
            task=collection.task,
            run=_new_run(),
            ident=ident,
            folder=folder,
            args=args,
            args_hash=canonical.args_hash(args),
            queued_at=format_time(time.time()),
            recompute=recompute,
            chain=compute.chain_of(running) if running and compute.base_of(running) == self.base.path else (),
        )

    def queue(self, orders: Sequence[WorkOrder], *, running: bool = False) -> bool:
        """Write the rows of orders that are about to be carried out (``running``: this very moment).

        False where a row was pending already: somebody else has asked for that resource.
        """
        index = self.index
        index.session = self.base.session()  # a forked child has one of its own
        rows = [_queued(order, 'running' if running else 'queued') for order in orders]
        return index.queue(rows) == len(rows)

    def queue_again(self, order: WorkOrder) -> None:
        """Write that a failed run is to be tried again."""
        self._try(lambda: self.queue([order]))

    def started(self, orders: Sequence[WorkOrder]) -> None:
        """Write that these orders run."""
        self._try(lambda: self.index.start([order.key for order in orders]))

    def finish(self, outcomes: Sequence[Outcome]) -> None:
        """Write the rows of outcomes, and of what was fetched on the way."""
        rows: list[Entry] = []
        elsewhere: list[tuple[str, str]] = []
        for outcome in outcomes:
            rows.extend(outcome.nested)
            if outcome.entry.status == 'pending':
                elsewhere.append((outcome.entry.collection, outcome.entry.ident))
            else:
                rows.append(outcome.entry)
        if rows:
            self._try(lambda: self.index.finish(rows))
        if elsewhere:
            self.disown(elsewhere)

    def disown(self, keys: Sequence[tuple[str, str]]) -> None:
        """Pending rows of ours that someone else turned out to compute are nobody's: the lock decides."""
        self._try(lambda: self.index.disown(keys))

    def withdraw(self, orders: Sequence[WorkOrder]) -> None:
        """Orders that were never begun: their resources become again what their folders say."""
        for start in range(0, len(orders), GROUP):
            found, unknown = [], []
            for order in orders[start : start + GROUP]:
                changed = self.changed(*order.key)
                settled = settle.settle(
                    order.collection, order.ident, order.task.path, order.folder, lock=order.task.lock
                )
                if settled.is_known:
                    found.append((order.key, settled.entry, changed))
                else:
                    unknown.append(order.key)
            self.write_rows(found)
            if unknown:
                self.disown(unknown)

    def _try(self, write: Callable[[], object]) -> None:
        """Files are final by now: an index that cannot be written costs a warning, not a result."""
        try:
            write()
        except (IndexFault, OSError) as error:
            if isinstance(error, OSError):  # a function may have closed the index's descriptors
                self._index = None
            warnings.warn(
                f'the index of {self.base.given!r} could not be written: {error}; the files are complete, '
                f'and `hadrosaur reindex {shlex.quote(self.base.given)}` brings the index up to date',
                HadrosaurWarning,
                stacklevel=2,
            )

    # --- resources ---------------------------------------------------------------------------------

    def resource(
        self,
        collection: Collection,
        ident: str,
        folder: str,
        status: Any,
        result: Any = None,
        *,
        wait: Callable[..., Resource] | None = None,
        entry: Entry | None = None,
        traceback: str | None = None,
    ) -> Resource:
        """What the user gets."""
        at = (self.base.given, self.base.path, collection.task.folder, folder)
        return Resource(
            collection.name, ident, status, result, at=at, wait=wait, entry=entry, traceback=traceback
        )

    def resource_of(self, collection: Collection, order: WorkOrder, outcome: Outcome) -> Resource:
        """The resource that an outcome tells of; a long result is read from its file."""
        status, result = outcome.entry.status, None
        if status == 'completed':
            data = outcome.result
            if data is None:
                data = look(order.task.path, order.folder).result
            result = directory.parse_result(data) if data is not None else None
        traceback = outcome.traceback if outcome.not_started else None
        return self.resource(
            collection, order.ident, order.folder, status, result, entry=outcome.entry, traceback=traceback
        )

    def close(self) -> None:
        """Close the index and end the session."""
        index, self._index = self._index, None
        if index is not None:
            index.close()
        self.base.end_session()


class FilesOnly(Store):
    """A store inside a worker or a resource's function: rows travel with the outcome that is under way."""

    def __init__(self, base: BaseDirectory, running: compute.Running | None) -> None:
        super().__init__(base, _no_index)
        self._running = running

    def queue(self, orders: Sequence[WorkOrder], *, running: bool = False) -> bool:
        """Nothing: the caller's index is out of reach."""
        return True

    def started(self, orders: Sequence[WorkOrder]) -> None:
        """Nothing."""

    def finish(self, outcomes: Sequence[Outcome]) -> None:
        """Have the rows travel."""
        if self._running is not None and compute.base_of(self._running) == self.base.path:
            for outcome in outcomes:
                compute.add_nested(self._running, outcome)

    def changed(self, collection: str, ident: str) -> Any:
        """Nothing."""

    def write_rows(self, found: Sequence[tuple[tuple[str, str], Entry | None, Any]]) -> None:
        """Nothing."""

    def _finish_pending(self, entry: Entry) -> None:
        """Nothing."""

    def is_queued(self, collection: str, ident: str) -> bool:
        """Not that one can know."""
        return False


def _settled(collection: Collection, ident: str, folder: str) -> Settled:
    return settle.settle(collection.name, ident, collection.task.path, folder, lock=collection.task.lock)


def _new_run() -> str:
    return os.urandom(8).hex()


def _no_index() -> Index:
    raise IndexFault(
        "the index is out of reach inside a resource's function", hint='query it from the caller'
    )


def _queued(order: WorkOrder, phase: str) -> Entry:
    return Entry.make(
        collection=order.task.collection,
        ident=order.ident,
        status='pending',
        phase=phase,
        args=order.args,
        args_hash=order.args_hash,
        attempt=order.attempt,
        queued_at=order.queued_at,
        version=order.task.version,
        path=f'{order.task.folder}/{order.folder}',
    )


def is_worth_a_retry(outcome: Outcome) -> bool:
    """Was it the function that failed? What was cancelled, interrupted or never begun is not tried again."""
    failed = outcome.entry.status == 'error' and not outcome.not_started
    return failed and outcome.entry.error_type not in ('Cancelled', 'Interrupted')


def retry_order(order: WorkOrder, outcome: Outcome) -> WorkOrder:
    """The order of the next attempt, after a failed one."""
    return order._replace(run=_new_run(), attempt=outcome.entry.attempt + 1)
