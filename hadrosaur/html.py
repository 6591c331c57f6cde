"""Tables for notebooks. Every text is escaped: an ident or a message may hold anything."""

from __future__ import annotations

from html import escape
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

LONGEST = 200  # characters of a cell
_COLOURS = {'completed': '#2e7d32', 'error': '#c62828', 'pending': '#b26a00'}


def table(headers: Sequence[str], rows: Iterable[Sequence[Any]], caption: str = '') -> str:
    """An HTML table; a cell that is a status has its colour."""
    head = ''.join(f'<th style="text-align: left">{escape(header)}</th>' for header in headers)
    body = ''.join(f'<tr>{"".join(map(_cell, row))}</tr>' for row in rows)
    title = f'<caption style="text-align: left">{escape(caption)}</caption>' if caption else ''
    return f'<table>{title}<thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>'


def _cell(value: Any) -> str:
    text = '' if value is None else str(value)
    text = text if len(text) <= LONGEST else text[: LONGEST - 1] + '…'
    colour = f'; color: {_COLOURS[text]}' if text in _COLOURS else ''
    return f'<td style="text-align: left{colour}">{escape(text)}</td>'
