"""Live display of a batch: one line on a terminal or in a notebook, else a line on stderr now and then."""

from __future__ import annotations

import sys
import time
from typing import TYPE_CHECKING, Any, Protocol

from .loaded import loaded
from .sanitize import printable

if TYPE_CHECKING:
    from .records import Counts, Entry

LIVE_INTERVAL = 0.1  # seconds between refreshes of a live line
NOTEBOOK_INTERVAL = 0.5  # in a notebook, where each is a message to the browser
PLAIN_INTERVAL = 5.0  # seconds between lines where stderr goes to a file or a pipe


class Display(Protocol):
    """Something that displays counts."""

    def __call__(self, counts: Counts, entry: Entry | None) -> None:
        """Update the display; ``entry`` is the row of the resource that was just computed."""

    def close(self) -> None:
        """Show the last state and leave the terminal as it was."""


def show(name: str, total: int | None = None) -> Display:
    """Return a display that suits stderr. ``total``: the number of resources, if known."""
    if _is_notebook():
        return _Notebook(name, total)
    if sys.stderr is not None and sys.stderr.isatty():
        return _Live(name, total)
    return _Plain(name, total)


def _is_notebook() -> bool:
    """Whether this is a kernel, whose output is shown in cells; IPython in a terminal has none."""
    ipython = loaded('IPython')
    shell = ipython.get_ipython() if ipython is not None else None
    return getattr(shell, 'kernel', None) is not None


class _Paced:
    """Draws at most once per interval, and at the end."""

    interval = PLAIN_INTERVAL
    says_end = True  # what it was in the end; not where the caller says that

    def __init__(self, name: str, total: int | None) -> None:
        self.name = name
        self.total = total
        self.last_error = ''
        self.started = time.monotonic()
        self._shown_at = self.started
        self._counts: Counts | None = None

    def __call__(self, counts: Counts, entry: Entry | None) -> None:
        self._counts = counts
        if entry is not None and entry.error_type:
            self.last_error = printable(f'{entry.ident}: {entry.error_type}: {entry.error}')
        if time.monotonic() - self._shown_at >= self.interval:
            self._shown_at = time.monotonic()
            self.draw(counts)

    def tick(self, counts: Counts) -> float:
        """Redraw when nothing has ended for a while; returns the seconds until the next call."""
        self(counts, None)
        return max(1.0, self.interval)

    def close(self) -> None:
        if self._counts is not None and self.says_end:
            self.draw(self._counts)

    def draw(self, counts: Counts) -> None:
        raise AssertionError('drawn by a subclass')  # pragma: no cover

    def sentence(self, counts: Counts) -> str:
        """Describe the state in one line."""
        shown = self.numbers(counts)
        of = f'/{self.total}' if self.total is not None else ''
        eta = f', {_duration(shown["eta"])} to go' if shown['eta'] else ''
        return f'{self.name}: {shown["done"]}{of} done, {shown["error"]} failed, {_pace(shown["rate"])}{eta}'

    def numbers(self, counts: Counts) -> dict[str, Any]:
        """Return what is displayed: done, errors, rate per second, remaining seconds."""
        done = counts.completed + counts.error
        computed = done - counts.reused
        rate = computed / max(1e-6, time.monotonic() - self.started)
        left = self.total - done if self.total is not None else None
        return {
            'done': done,
            'error': counts.error,
            'rate': rate,
            'eta': left / rate if left is not None and rate else None,
        }


class _Plain(_Paced):
    def draw(self, counts: Counts) -> None:
        print(self.sentence(counts), file=sys.stderr, flush=True)


class _Notebook(_Paced):
    """One output of the cell, updated in place; the saved notebook holds the last state as text."""

    interval = NOTEBOOK_INTERVAL

    def __init__(self, name: str, total: int | None) -> None:
        super().__init__(name, total)
        self._handle: Any = None

    def draw(self, counts: Counts) -> None:
        from IPython.display import display

        text = self.sentence(counts)
        if self.last_error:
            text += f'\nlast error: {self.last_error}'
        shown = {'text/plain': text}
        if self._handle is None:
            self._handle = display(shown, raw=True, display_id=True)
        else:
            self._handle.update(shown, raw=True)


class _Live(_Paced):
    interval = LIVE_INTERVAL

    def __init__(self, name: str, total: int | None) -> None:
        from rich.console import Console
        from rich.live import Live

        super().__init__(name, total)
        # No refreshing thread: with a second thread alive, functions run inline could not be captured
        # by descriptors.
        self._live = Live(console=Console(stderr=True), auto_refresh=False, redirect_stdout=False,
                          redirect_stderr=False)  # fmt: skip
        self._live.start()

    def draw(self, counts: Counts) -> None:
        from rich.progress_bar import ProgressBar
        from rich.table import Table
        from rich.text import Text

        shown = self.numbers(counts)
        row = Table.grid(padding=(0, 1))
        cells: list[Any] = [Text(self.name, style='bold')]
        if self.total is not None:
            cells.append(ProgressBar(total=max(1, self.total), completed=shown['done'], width=24))
        of = f'/{self.total}' if self.total is not None else ''
        cells.append(Text(f'{shown["done"]}{of}'))
        cells.append(Text(f'{shown["error"]} failed', style='red' if shown['error'] else 'dim'))
        cells.append(Text(_pace(shown['rate']), style='dim'))
        if shown['eta']:
            cells.append(Text(f'{_duration(shown["eta"])} to go', style='dim'))
        row.add_row(*cells)
        screen = Table.grid()
        screen.add_row(row)
        if self.last_error:
            screen.add_row(
                Text(f'last error: {self.last_error}', style='dim', no_wrap=True, overflow='ellipsis')
            )
        self._live.update(screen, refresh=True)

    def close(self) -> None:
        super().close()
        self._live.stop()


def _pace(rate: float) -> str:
    """Format a rate: per second, or per minute or hour if it is below one."""
    for unit, seconds in (('s', 1), ('min', 60)):
        if rate * seconds >= 1 or not rate:
            return f'{rate * seconds:.0f}/{unit}'
    return f'{rate * 3600:.0f}/h'


def _duration(seconds: float) -> str:
    whole = int(seconds)
    if whole < 60:
        return f'{whole} s'
    if whole < 3600:
        return f'{whole // 60} min {whole % 60:02} s'
    return f'{whole // 3600} h {whole % 3600 // 60:02} min'
