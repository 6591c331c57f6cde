"""Rows on their way into the index: in order, in groups, and never waited for by who computes.

The directories are the truth and are final before a row is written, so a row may come late. Whoever
computes hands its rows over as events; they are applied in the order in which they came. Where the
index is free, the calling thread writes its own event (and what waits before it) at once. Where another
program keeps the index locked, or it is being rebuilt, or the disk is full, events wait here, and a
thread that lives only while there are some tries again and again.

What is not written when the process ends is left to the next one. Most of it the index tells by itself: a
pending row of a process that is gone is recovered. Of what else there is, a mark beside the session's file
tells from before it waits until it is written; whoever finds it without a living owner reads the changed
folders (see dead_sessions.py).
"""

from __future__ import annotations

import atexit
import contextlib
import os
import shlex
import sys
import threading
import time
import weakref
from collections import deque
from typing import TYPE_CHECKING

from .errors import HadrosaurWarning, IndexBusy, IndexFault, warn
from .loaded import loaded
from .locks import Guarded, at_most, start_without_signals
from .row_events import READER, Event, apply, outlook

if TYPE_CHECKING:
    from collections.abc import Callable

    from .basedir import BaseDirectory
    from .index import Index
    from .records import Entry

PATIENCE = 0.1
"""Seconds that a thread waits for an index which somebody else has locked, before its rows wait instead."""
GATHER = 0.02  # seconds to let events come together, for one transaction
GROUP = 500  # rows in one transaction
MOST = 200_000  # rows that wait; beyond that the folders are read again instead, when the index is back
LINGER = 0.5  # seconds that the thread waits for more, before it ends
PAUSE, LONGEST_PAUSE = 0.05, 1.0  # seconds between attempts
BUSY_SAID = 5.0  # seconds that the index is kept locked before that is said
LAST = 3.0  # seconds that the end of the program waits for them

_BROKEN = ('OperationalError', 'DatabaseError')  # of sqlite3: of an index that cannot be used


class RowWriter(Guarded):
    """Writes the rows of one project.

    Args:
        base: The base directory.
        index: Gives the index, opened where that is needed.
        reopen: Has the next ``index()`` open it anew.
        is_sent_off: Is a resource (collection, ident) on its way in this process?
        catch_up: Makes the rows what the folders are, where events had to be given up.
    """

    def __init__(
        self,
        base: BaseDirectory,
        index: Callable[[], Index],
        reopen: Callable[[], None],
        is_sent_off: Callable[[str, str], bool],
        catch_up: Callable[[], object],
    ) -> None:
        super().__init__()
        self._base = base
        self._index = index
        self._reopen = reopen
        self._is_sent_off = is_sent_off
        self._catch_up = catch_up
        self._said: set[str] = set()
        self._make_new()

    def _make_new(self) -> None:
        self._events: deque[Event] = deque()
        self._later: list[tuple[float, Event]] = []  # events that are to be tried at some moment
        self._waiting = 0  # rows in the events
        self._given_up = False  # were there more rows than may wait?
        self._done = 0  # events so far, and
        self._retried = 0  # how many of them were tried before
        self._applying = threading.Lock()  # held by whoever applies events, so that their job holds
        self._applier = 0  # the thread that does
        self._news = threading.Condition(self._guard)
        self._thread: threading.Thread | None = None
        self._is_idle = self._closing = self._is_marked = False
        self._fault: BaseException | None = None  # why the last attempt failed
        self._since = 0.0  # when attempts began to fail

    def _in_child(self) -> None:
        """What the parent has to write is the parent's to write."""
        super()._in_child()
        self._make_new()

    # --- for who computes --------------------------------------------------------------------------

    def put(self, event: Event) -> None:
        """Take an event; never waits for the index."""
        with self._guard:
            if event.is_news and not self._is_marked:  # now: a process may be killed at any moment
                self._base.mark_unwritten()
                self._is_marked = True
            self._waiting += len(event.rows)
            self._events.append(event)  # from here on it is written, whatever Ctrl-C comes between
            if self._applier != threading.get_ident():  # else it is applied next
                self._wake()

    def write(self, event: Event) -> None:
        """Take an event, and write it now if the index is free.

        Raises:
            IndexFault: The index cannot be what or where it was said to be, and waiting does not help.
        """
        if self._fault is None and self._applier != threading.get_ident():
            lock = self._applying
            held: list[bool] = []
            try:
                held.extend(map(lock.acquire, (True,), (PATIENCE,)))  # one step, for Ctrl-C
                if held[0] and self._write_now(event):
                    return
            except Exception:
                raise
            except BaseException:  # Ctrl-C, and perhaps nobody who would tell of these rows again
                self.put(event)
                raise
            finally:
                if held and held[0]:
                    lock.release()
        self.put(event)

    def _write_now(self, event: Event) -> bool:
        """Write what waits, and then this event."""
        self._applier = threading.get_ident()
        try:
            if not at_most(PATIENCE, self._apply_up_to, event):
                return False
        except Exception as fault:
            if getattr(fault, 'is_lasting', False) or not _is_trouble(fault):
                raise
            self._fault, self._since = fault, time.monotonic()
            return False  # the thread tries again, and says what is wrong
        finally:
            self._applier = 0
        self._unmark()
        return True

    def _apply_up_to(self, event: Event) -> bool:
        self._index()  # opening it may have rows of its own to write
        while self._events:
            if self._given_up or self._waiting > GROUP:
                return False  # so many are the thread's
            self._apply_some()
        self._apply([event])
        return True

    def _wake(self) -> None:
        """Have the thread look; the caller holds the guard."""
        if self._thread is None:
            _close_at_exit(self)
            self._thread = threading.Thread(target=self._work, name='hadrosaur-rows', daemon=True)
            try:
                start_without_signals(self._thread)
            except RuntimeError:  # no more threads can be started, or the program ends: `flush` writes
                self._thread = None
            except BaseException:  # Ctrl-C
                if self._thread.ident is None:  # before it was started
                    self._thread = None
                raise
        elif self._is_idle:
            self._news.notify_all()

    # --- for who reads, and for the end ------------------------------------------------------------

    @property
    def is_behind(self) -> bool:
        """Are there rows that are not written yet?"""
        return bool(self._events or self._later or self._given_up)

    @property
    def fault(self) -> BaseException | None:
        """Why rows cannot be written, if they cannot."""
        return self._fault if self.is_behind else None

    def flush(self, patience: float = READER) -> bool:
        """Write what waits by now; False where for so many seconds nothing could be written."""
        with self._guard:
            last = self._events[-1] if self._events else None
        done = self._done - self._retried
        deadline = time.monotonic() + patience
        while (self._is_waiting(last) or self._later or self._given_up) and not self._is_applier():
            fault = self._drain(last)
            if self._done - self._retried > done:  # what is only tried again is no progress
                done, deadline = self._done - self._retried, time.monotonic() + patience
            elif time.monotonic() >= deadline or (fault and not isinstance(fault, IndexBusy)):
                return False
            else:
                with self._guard:
                    self._news.wait(PAUSE)
        return True

    def _is_waiting(self, event: Event | None) -> bool:
        """Is it still to be written? Events are not counted: Ctrl-C may come between two steps of that."""
        with self._guard:
            return event is not None and event in self._events

    def _is_applier(self) -> bool:
        return self._applier == threading.get_ident()

    def unwritten(self) -> dict[tuple[str, str], Entry | None]:
        """What the rows will be that wait to be written; None: there will be none."""
        with self._guard:
            events = [*self._events, *(event for _, event in self._later)]
        return outlook(events)

    def close(self) -> bool:
        """Write what waits, and end the thread; False where rows are left to the next process."""
        try:
            done = self.flush(LAST)
        except BaseException:  # Ctrl-C
            self._leave()
            raise
        if not done and self.is_behind:
            self._leave()
        self._end_thread()
        self._unmark()
        return done

    def rest(self) -> None:
        """`flush`, and end the thread where there is nothing left for it to do."""
        if self.flush():
            self._end_thread()

    def _end_thread(self) -> None:
        with self._guard:
            thread, self._closing = self._thread, True
            self._news.notify_all()
        if thread is not None and thread is not threading.current_thread():
            thread.join(LAST)
        with self._guard:
            self._closing = False
            if self.is_behind and self._thread is None:  # an event came while it ended
                self._wake()

    def _leave(self) -> None:
        """Leave what waits to whoever opens the index next."""
        if self._has_news:
            self._say_what_is_left()
            self._base.mark_unwritten()
        with self._guard:
            self._waiting, self._given_up, self._fault, self._is_marked = 0, False, None, False
            self._events.clear()
            self._later.clear()

    @property
    def _has_news(self) -> bool:
        """Are there rows of what happened here? What was found in folders is found there again."""
        return bool(self._later or self._given_up or any(event.kind != 'merge' for event in self._events))

    def _say_what_is_left(self) -> None:
        rows = 'one row is' if self._waiting == 1 else f'{self._waiting} rows are'
        self._say(
            f'{rows} left unwritten in the index of {self._base.given!r} ({self._fault}); the files are '
            'complete, and the rows are written when the index is opened next'
        )

    # --- the thread --------------------------------------------------------------------------------

    def _work(self) -> None:
        pause = PAUSE
        while True:
            with self._guard:
                if not self.is_behind and not self._closing:
                    self._is_idle = True
                    self._news.wait(LINGER)
                    self._is_idle = False
                if self._closing or not self.is_behind:
                    self._thread = None
                    return
                self._news.wait(GATHER)
            began = time.monotonic()
            if self._drain() is None and not self._later:
                pause = PAUSE
                continue
            with self._guard:  # an attempt that took long is not made again at once
                if not self._closing:
                    self._news.wait(max(pause, time.monotonic() - began))
            pause = min(2 * pause, LONGEST_PAUSE)

    def _drain(self, last: Event | None = None) -> BaseException | None:
        """Apply events, all or up to that one; returns what stopped it."""
        lock = self._applying
        held: list[bool] = []
        try:
            held.extend(map(lock.acquire, (True,), (PATIENCE,)))
            if not held[0]:
                return IndexBusy('another thread is writing')
            self._applier = threading.get_ident()
            try:
                self._take_up()
                at_most(PATIENCE, self._apply_all, last)
            except Exception as fault:
                self._failed(fault)
                return fault
            finally:
                self._applier = 0
            self._succeeded()
            return None
        finally:
            if held and held[0]:
                lock.release()

    def _take_up(self) -> None:
        """Events whose moment has come are tried again."""
        now = time.monotonic()
        for item in [item for item in self._later if item[0] <= now]:
            self._retried += 1
            self.put(item[1])
            with contextlib.suppress(ValueError):  # all were left to the next process
                self._later.remove(item)

    def _failed(self, fault: Exception) -> None:
        now = time.monotonic()
        if self._fault is None:
            self._since = now
        self._fault = fault
        if not isinstance(fault, IndexBusy) or now - self._since > BUSY_SAID:
            self._say(
                f'the index of {self._base.given!r} could not be written: {fault}; computing goes on, the '
                'files are complete, and the rows follow as soon as it can be. If it never can, '
                f'`hadrosaur reindex {shlex.quote(self._base.given)}` brings it up to date'
            )

    def _unmark(self) -> None:
        if self._is_marked:
            with self._guard:
                if self._is_marked and not self.is_behind:
                    self._base.unmark_unwritten()
                    self._is_marked = False

    def _succeeded(self) -> None:
        if self._fault is not None:
            self._fault = None
            self._said.clear()
        self._unmark()
        with self._guard:
            self._news.notify_all()

    def _say(self, sentence: str) -> None:
        """Warn, once for each cause."""
        if sentence in self._said:
            return
        self._said.add(sentence)
        try:
            warn(sentence)
        except HadrosaurWarning:  # turned into an error, for which there may be no caller in this thread
            with contextlib.suppress(OSError, ValueError, AttributeError):
                print(f'HadrosaurWarning: {sentence}', file=sys.stderr)

    def _read_folders_instead(self) -> None:
        """So many rows wait that reading the folders again is cheaper than keeping them."""
        with self._guard:
            self._done += len(self._events)
            self._events.clear()
            self._waiting, self._given_up = 0, True
        index = self._index()
        index.show({})
        index.merge([], [('', '', '')])  # can it be written again?
        self._catch_up()
        self._given_up = False

    # --- applying: by one thread at a time ---------------------------------------------------------

    def _apply_all(self, last: Event | None) -> None:
        while (self._events and (last is None or self._is_waiting(last))) or self._given_up:
            if self._waiting > MOST or self._given_up:
                self._read_folders_instead()
            else:
                self._apply_some()

    def _apply_some(self) -> None:
        """Apply the first events, as many as go together; they go once they are written."""
        group = self._first_group()
        try:
            self._apply(group)
        except Exception as fault:
            if _is_trouble(fault):
                raise
            group = group[:1]  # one of them can be written by nobody, and keeps no other waiting
            try:
                self._apply(group)
            except Exception as fault:
                if _is_trouble(fault):
                    raise
                self._say(f'a row of {self._base.given!r} could not be written: {fault!r}')
        with self._guard:
            for event in group:
                if self._events and self._events[0] is event:
                    self._events.popleft()
                    self._waiting -= len(event.rows)
                    self._done += 1
            if not self._events:
                self._waiting = 0

    def _first_group(self) -> list[Event]:
        first = self._events[0]
        group, rows = [first], len(first.rows)
        for number in range(1, len(self._events)):
            event = self._events[number]
            rows += len(event.rows)
            if rows > GROUP or event.goes_with != first.goes_with:
                break
            group.append(event)
        return group

    def _apply(self, group: list[Event]) -> None:
        try:
            again = apply(self._index(), group, self._base, self._is_sent_off)
        except OSError:  # a function may have closed the index's descriptors
            self._reopen()
            again = apply(self._index(), group, self._base, self._is_sent_off)
        if again is not None:
            pause = min(PAUSE * 2**again.tries, LONGEST_PAUSE)
            self._later.append((time.monotonic() + pause, again))


def _is_trouble(fault: Exception) -> bool:
    """Is it the index that cannot be used now, rather than something wrong with a row?"""
    is_broken = type(fault).__module__ == 'sqlite3' and type(fault).__name__ in _BROKEN
    return isinstance(fault, (IndexFault, OSError)) or is_broken


_unclosed: weakref.WeakSet[RowWriter] = weakref.WeakSet()
_exit_pid = 0


def _close_at_exit(writer: RowWriter) -> None:
    """A daemon thread ends in the middle of anything when the interpreter does."""
    global _exit_pid
    _unclosed.add(writer)
    if _exit_pid != os.getpid():
        _exit_pid = os.getpid()
        atexit.register(_close_all, _exit_pid)
        if util := loaded('multiprocessing.util'):  # its children end without atexit
            util.Finalize(None, _close_all, (_exit_pid,), exitpriority=0)


def _close_all(pid: int) -> None:
    if os.getpid() == pid:
        for writer in list(_unclosed):
            with contextlib.suppress(KeyboardInterrupt):  # who ends a program may be in a hurry
                writer.close()
