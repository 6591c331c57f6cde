"""Other people's text, shown: an ident or a message may hold anything, and must do nothing."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

LONGEST = 200  # characters of a cell in a notebook
_COLOURS = {'completed': '#2e7d32', 'error': '#c62828', 'pending': '#b26a00'}


def visible(text: str) -> str:
    """The text in one line, with an escape for each character that would not print as itself.

    Control characters, escape sequences, line ends, and marks that turn the direction of writing.
    """
    if text.isprintable():
        return text
    return ''.join(char if char.isprintable() else _escaped(char) for char in text)


def _escaped(char: str) -> str:
    return char.encode('unicode_escape').decode()


def html_table(headers: Sequence[str], rows: Iterable[Sequence[Any]], caption: str = '') -> str:
    """A table for notebooks, every text escaped; a cell that is a status has its colour."""
    from html import escape

    def cell(value: Any) -> str:
        text = '' if value is None else str(value)
        text = text if len(text) <= LONGEST else text[: LONGEST - 1] + '…'
        colour = f'; color: {_COLOURS[text]}' if text in _COLOURS else ''
        return f'<td style="text-align: left{colour}">{escape(text)}</td>'

    head = ''.join(f'<th style="text-align: left">{escape(header)}</th>' for header in headers)
    body = ''.join(f'<tr>{"".join(map(cell, row))}</tr>' for row in rows)
    title = f'<caption style="text-align: left">{escape(caption)}</caption>' if caption else ''
    return f'<table>{title}<thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>'
