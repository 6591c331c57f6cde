"""The part of a Project that keeps house: what is old goes, and what is there travels."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..errors import ResourceError
from ..maintenance import gc
from .indexed import Indexed

if TYPE_CHECKING:
    from collections.abc import Callable
    from datetime import timedelta

    from ..maintenance.gc import Doomed, GcReport


class Keeping(Indexed):
    """Verbs for a base as a whole."""

    def gc(
        self,
        collection: str | None = None,
        *,
        older_than: float | timedelta | None = None,
        status: str | tuple[str, ...] | list[str] | None = None,
        keep_last: int | None = None,
        max_bytes: int | str | None = None,
        dry_run: bool = False,
        told: Callable[[list[Doomed]], None] | None = None,
    ) -> GcReport:
        """Remove what is old, or too much, the oldest first; never what runs or is pending.

        Args:
            collection: Only of this one.
            older_than: Finished at least so many seconds (or a timedelta) ago.
            status: ``'completed'``, ``'error'`` or both (None).
            keep_last: So many of each collection stay, the newest of those statuses.
            max_bytes: Remove no more than is needed for the collections to take at most so many bytes: a
                number, or text such as ``'20 GB'``.
            dry_run: Choose, and remove nothing.
            told: Called with what is to go, before the first goes.

        Returns:
            A `GcReport`: what was ``removed`` and what was ``refused``, each with its ``bytes``.

        Raises:
            ValueError: Nothing says what is to go, or one of these makes no sense.
        """
        wanted = gc.checked(older_than, status, keep_last, max_bytes)
        names = self._registry.names() if collection is None else [collection]
        known = {name: self._registry.get_any(name) for name in names}
        index = self._index()
        chosen = gc.choose(index, ((name, each.spec.path) for name, each in known.items()), *wanted)
        if told is not None:
            told(chosen)
        report = gc.GcReport([], [])
        for each in chosen:
            try:
                if not dry_run:
                    self._remove(known[each.collection], each.ident, each.row)
                report.removed.append(each)
            except (ResourceError, OSError) as error:
                report.refused.append(each._replace(refused=str(getattr(error, 'message', error))))
        return report
