"""Show text of unknown origin without harm: an ident or a message may contain anything."""

from __future__ import annotations

import codecs
import re
from datetime import UTC
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from datetime import datetime

LONGEST = 200  # characters of a cell in a notebook
MOST_ROWS = 20  # of a table there
_COLOURS = {'completed': '#2e7d32', 'error': '#c62828', 'pending': '#b26a00'}


def printable(text: str) -> str:
    """Return text in one line, with escapes for characters that would not print as themselves.

    That is control characters, escape sequences, line ends, and marks that change the direction of writing.
    """
    if text.isprintable():
        return text
    return ''.join(char if char.isprintable() else _escaped(char) for char in text)


def _escaped(char: str) -> str:
    return char.encode('unicode_escape').decode()


# What sets colours and weights, and does not hide text (8): all that it changes is how text looks.
_COLOUR = re.compile(r'\x1b\[(?:(?!0*8[;:m])[0-9]{0,3}[;:]?){0,24}m')
_BEGUN = re.compile(r'\x1b(?:\[[0-9;:]{0,96})?\Z')  # perhaps a colour, whose end is still to come


class Harmless:
    """Filter a log for a terminal, piece by piece: keep lines, tabs and colours, escape the rest."""

    def __init__(self) -> None:
        self._decode = codecs.getincrementaldecoder('utf-8')('backslashreplace').decode
        self._held = ''
        self._is_coloured = False

    def __call__(self, data: bytes, *, end: bool = False) -> str:
        """The next piece; ``end``: nothing more will come, and the terminal gets its own colours back."""
        text = self._held + self._decode(data, end)
        begun = None if end else _BEGUN.search(text)
        cut = begun.start() if begun else len(text)
        if not end and not begun and text.endswith('\r'):  # of a line end, perhaps
            cut -= 1
        text, self._held = text[:cut], text[cut:]
        shown, at = [], 0
        for colour in _COLOUR.finditer(text):
            shown += [_lines(text[at : colour.start()]), colour[0]]
            at, self._is_coloured = colour.end(), True
        shown.append(_lines(text[at:]))
        if end and self._is_coloured:
            shown.append('\x1b[0m')
        return ''.join(shown)


def _lines(text: str) -> str:
    """Escape each line, keeping tabs; a carriage return within a line would overwrite it."""
    lines = text.replace('\r\n', '\n').split('\n')
    return '\n'.join('\t'.join(map(printable, line.split('\t'))) for line in lines)


def utc(moment: datetime | None) -> str | None:
    """Format a time as the index stores it."""
    if moment is None:
        return None
    return moment.astimezone(UTC).isoformat(timespec='microseconds').replace('+00:00', 'Z')


def local(moment: datetime | None) -> str | None:
    """Format a time for people, in this machine's time zone."""
    return None if moment is None else _here(moment).strftime('%Y-%m-%d %H:%M:%S')


def _here(moment: datetime) -> datetime:
    """Convert to this machine's time zone, unless the result would be outside the calendar."""
    try:
        return moment.astimezone()
    except (OverflowError, ValueError):
        return moment


def lately(moment: datetime | None) -> str | None:
    """Format a time briefly: today's without the date, older ones without seconds."""
    if moment is None:
        return None
    here = _here(moment)
    is_today = here.date() == here.now(here.tzinfo).date()
    return here.strftime('%H:%M:%S' if is_today else '%Y-%m-%d %H:%M')


def seconds(number: float | None) -> str | None:
    """Format a duration for people."""
    if number is None:
        return None
    if not abs(number) < 1e12:  # nobody waits so long
        return f'{number:.3g} s'
    if number < 1:
        return f'{number * 1000:.3g} ms'
    if number < 60:
        return f'{number:.3g} s'
    whole = round(number)
    if whole < 3600:
        return f'{whole // 60} min {whole % 60:02} s'
    if whole < 86400:
        return f'{whole // 3600} h {whole % 3600 // 60:02} min'
    return f'{whole // 86400} d {whole % 86400 // 3600:02} h'


def size(number: int | None) -> str | None:
    """Format a number of bytes for people."""
    if number is None:
        return None
    for unit, factor in (('GB', 1e9), ('MB', 1e6), ('kB', 1e3)):
        if number >= factor:
            return f'{number / factor:.3g} {unit}'
    return f'{number} B'


def short(value: Any) -> str | None:
    """Format a JSON value in a few words, however large it is; None as nothing."""
    import reprlib

    words = reprlib.Repr()
    words.maxstring = words.maxother = words.maxlong = LONGEST
    words.maxdict = words.maxlist = 20
    return None if value is None else words.repr(value)


def html_table(headers: Sequence[str], rows: Iterable[Sequence[Any]], caption: str = '') -> str:
    """Return an HTML table for notebooks, with all text escaped and statuses in colour."""
    from html import escape

    def cell(value: Any) -> str:
        text = '' if value is None else str(value)
        text = printable(text if len(text) <= LONGEST else text[: LONGEST - 1] + '…')
        colour = f'; color: {_COLOURS[text]}' if text in _COLOURS else ''
        return f'<td style="text-align: left{colour}">{escape(text)}</td>'

    head = ''.join(f'<th style="text-align: left">{escape(header)}</th>' for header in headers)
    body = ''.join(f'<tr>{"".join(map(cell, row))}</tr>' for row in rows)
    caption = printable(caption if len(caption) <= LONGEST else caption[: LONGEST - 1] + '…')
    title = f'<caption style="text-align: left">{escape(caption)}</caption>' if caption else ''
    return f'<table>{title}<thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>'
