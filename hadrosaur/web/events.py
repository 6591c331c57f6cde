"""What is new, as server-sent events: that the index was written, and what a log has got more.

Nothing is asked again and again but the size and time of a few files. A page that took long to make is
made anew seldom, so that who looks costs a run next to nothing.
"""

from __future__ import annotations

import asyncio
import json
import os
from typing import TYPE_CHECKING, Any

from starlette.concurrency import run_in_threadpool

from ..errors import HadrosaurError
from . import files
from .asking import NotUnderstood

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from starlette.datastructures import QueryParams

    from ..project import Project

LOOK = 0.5
"""Seconds between two looks at the files."""

LEAST, MOST, SHARE = 2.0, 10.0, 0.01
"""Seconds before a page is made anew, at least and at most; between them, so that it takes this share of
a processor."""

LOGS = ('stdout', 'stderr')
MOST_STREAMS = 32
BEAT = 15.0  # seconds after which something is said in any case, so that who is gone is noticed


class Notifier:
    """Who listens, and what is told."""

    def __init__(self, project: Project) -> None:
        self._project = project
        self._took = 0.0
        self._streams = 0
        self._is_closed = False

    def took(self, seconds: float) -> None:
        """A page was made in so many seconds."""
        self._took = seconds

    def close(self) -> None:
        """End all streams."""
        self._is_closed = True

    async def stream(self, params: QueryParams, last: str = '') -> AsyncIterator[str]:
        """The events for one page; with ``collection`` and ``ident`` the growth of that resource's logs.

        They go on after ``since`` of the parameters, or after ``last``, the id of the last event heard.
        """
        since = last or params.get('since', '')
        if self._streams >= MOST_STREAMS:
            raise NotUnderstood(f'{MOST_STREAMS} pages listen already')
        collection, ident = params.get('collection', ''), params.get('ident', '')
        if collection and ident:
            await run_in_threadpool(self._status, collection, ident)  # it is there, or that is said
            return self._guarded(self._of_log(collection, ident, since))
        return self._guarded(self._of_index(since))

    async def _guarded(self, events: AsyncIterator[str]) -> AsyncIterator[str]:
        self._streams += 1
        try:
            async for event in events:
                yield event
        finally:
            self._streams -= 1

    # --- the index ---------------------------------------------------------------------------------

    async def _of_index(self, since: str) -> AsyncIterator[str]:
        seen, waited = since or self.mark(), 0.0
        yield 'retry: 3000\n\n'
        while not self._is_closed:
            await asyncio.sleep(LOOK)
            waited += LOOK
            if (mark := self.mark()) != seen and waited >= min(MOST, max(LEAST, self._took / SHARE)):
                seen, waited = mark, 0.0
                yield _event('changed', {}, seen)
            elif waited >= BEAT and waited % BEAT < LOOK:
                yield ': still here\n\n'

    def mark(self) -> str:
        """Another one whenever a transaction is written; a page bears that of before it was made."""
        path = self._project._index_file()
        found: list[Any] = []
        for name in (path, f'{path}-wal'):
            try:
                stat = os.stat(name)
                found += (stat.st_ino, stat.st_size, stat.st_mtime_ns)
            except OSError:
                found.append('')
        return '-'.join(map(str, found))

    # --- a log -------------------------------------------------------------------------------------

    async def _of_log(self, collection: str, ident: str, since: str) -> AsyncIterator[str]:
        """What the logs get more from ``since`` on: ends and marks of stdout and stderr, by commas."""
        numbers = [
            int(each) for each in since.split(',') if each.isascii() and each.isdecimal() and len(each) < 20
        ]
        at = dict(zip(LOGS, zip(numbers[::2], numbers[1::2], strict=False), strict=False))
        yield 'retry: 3000\n\n'
        waited = 0.0
        while not self._is_closed:
            # Before the last words are read.
            try:
                status = await run_in_threadpool(self._status, collection, ident)
            except (HadrosaurError, OSError):  # it was removed, or the whole base
                status = 'absent'
            for log in LOGS:
                tail = await run_in_threadpool(self._tail, collection, ident, log, at.get(log))
                if tail is None or (log in at and at[log] == (tail.end, tail.mark)):
                    continue
                is_anew = log not in at or at[log][1] != tail.mark or tail.start != at[log][0]
                at[log], waited = (tail.end, tail.mark), 0.0
                place = ','.join(f'{end},{mark}' for end, mark in (at.get(each, (0, 0)) for each in LOGS))
                yield _event('log', {'log': log, 'html': str(tail.html), 'is_anew': is_anew}, place)
            if status != 'pending':
                yield _event('ended', {'status': status}, '')
                return
            await asyncio.sleep(LOOK)
            if (waited := waited + LOOK) >= BEAT:
                waited = 0.0
                yield ': still here\n\n'

    def _status(self, collection: str, ident: str) -> str:
        return self._project.get(collection, ident).status

    def _tail(
        self, collection: str, ident: str, log: str, since: tuple[int, int] | None
    ) -> files.Tail | None:
        try:
            with files.folder_of(self._project, collection, ident) as folder:
                return files.tail_of(folder, log, since)
        except (HadrosaurError, OSError):
            return None


def _event(name: str, data: dict[str, Any], place: str) -> str:
    return f'event: {name}\nid: {place}\ndata: {json.dumps(data)}\n\n'
