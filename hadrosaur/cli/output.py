"""Output for terminals, pipes and programs.

On a terminal, tables are drawn by rich in its width and colours. In a pipe, a table is one line of
tab-separated cells per row, under a line of titles, for ``grep``, ``cut`` and ``sort``; rich is not imported.
Programs use ``--json`` or ``--csv``.

Idents and messages are untrusted text. For people, characters that would not print as themselves (control
characters, escape sequences, line ends, marks that change the direction of writing) are escaped. JSON has its
own escapes. A CSV cell that a spreadsheet would run as a formula gets a quote in front.
"""

from __future__ import annotations

import json
import sys
from typing import TYPE_CHECKING, Any, NamedTuple, TextIO

from ..sanitize import lately as lately
from ..sanitize import local as local
from ..sanitize import printable
from ..sanitize import seconds as seconds
from ..sanitize import utc as utc

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    from ..records import Progress

FORMULA = ('=', '+', '-', '@', '\t', '\r', '\n', '\uff1d', '\uff0b', '\uff0d', '\uff20')
"""What makes a spreadsheet take a cell for a formula; the last four are full-width = + - @."""

LEAST_CUT = 24
"""Columns of the screen that a long text gets at least, before other columns are left out for it."""

LEAST = 8
"""Columns of the screen that any text gets at least, if it is that long."""

_STATUS_STYLES = {'completed': 'green', 'error': 'red', 'pending': 'yellow'}


# --- text ------------------------------------------------------------------------------------------


def note(text: str) -> None:
    """Print a note about the data to stderr."""
    print(printable(text), file=sys.stderr, flush=True)


def is_terminal(stream: TextIO | None = None) -> bool:
    """Whether stdout, or the given stream, is a terminal."""
    return (stream or sys.stdout).isatty()


def progress(said: Progress | None) -> dict[str, Any] | None:
    """Return the progress of a run for JSON."""
    return None if said is None else said._asdict()


def counted(number: int, what: str) -> str:
    """Format a number of things: ``1 folder``, ``2 folders``."""
    return f'{number} {what}' if number == 1 else f'{number} {what}s'


def shortened(text: str, length: int) -> str:
    """Return the text, or its beginning and an ellipsis."""
    return text if len(text) <= length else f'{text[: length - 1]}…'


# --- tables ----------------------------------------------------------------------------------------


class Column(NamedTuple):
    """A column of a table.

    ``show`` makes text for a terminal of a value; elsewhere the value stands as it is. Where a terminal
    is too narrow, ``spare`` columns are left out, from the right; then ``cut`` ones lose their ends,
    while ``folded`` ones go on in the next line.
    """

    title: str
    show: Callable[[Any], str | None] | None = None
    right: bool = False
    cut: bool = False
    folded: bool = False
    spare: bool = False


def write_table(columns: Sequence[Column], rows: Iterable[Sequence[Any]]) -> None:
    """Write a table to stdout."""
    if is_terminal():
        console = terminal()
        console.print(drawn(columns, rows, console.width))
        return
    write = sys.stdout.write
    write('\t'.join(column.title for column in columns) + '\n')
    for row in rows:
        write('\t'.join(_cell(value) for value in row) + '\n')


def _cell(value: Any) -> str:
    return '' if value is None else printable(str(value))


def terminal() -> Console:
    """Return a console for stdout that prints text without interpreting markup."""
    from rich.console import Console

    return Console(file=sys.stdout, markup=False, highlight=False, emoji=False)


def drawn(columns: Sequence[Column], rows: Iterable[Sequence[Any]], width: int) -> Table:
    """Draw a table for a terminal of the given width."""
    from rich.table import Table

    texts = [
        [
            _cell(column.show(value) if column.show and value is not None else value)
            for column, value in zip(columns, row, strict=True)
        ]
        for row in rows
    ]
    table = Table(box=None, pad_edge=False, header_style='bold')
    kept = _that_fit(columns, texts, width)
    for position, space in zip(kept, _widths(columns, kept, texts, width), strict=True):
        column = columns[position]
        justify: Any = 'right' if column.right else 'left'
        table.add_column(column.title, justify=justify, no_wrap=column.cut, overflow='fold', width=space)
    for row in texts:
        table.add_row(*(_styled(columns[position], row[position]) for position in kept))
    return table


def _that_fit(columns: Sequence[Column], texts: Sequence[Sequence[str]], width: int) -> list[int]:
    """Return the positions of the columns that fit."""
    from rich.cells import cell_len

    needed = []
    for position, column in enumerate(columns):
        longest = max((cell_len(row[position]) for row in texts), default=0)
        least = min(longest, LEAST_CUT) if column.cut or column.folded else longest
        needed.append(max(least, cell_len(column.title)) + 2)
    kept = list(range(len(columns)))
    for position in reversed(range(len(columns))):
        if columns[position].spare and sum(needed[each] for each in kept) - 2 > width:
            kept.remove(position)
    return kept


def _widths(
    columns: Sequence[Column], kept: Sequence[int], texts: Sequence[Sequence[str]], width: int
) -> list[int]:
    """Return the width of each column; the widest texts are narrowed first."""
    from rich.cells import cell_len

    spaces = [max([cell_len(columns[each].title), *(cell_len(row[each]) for row in texts)]) for each in kept]
    flexible = [place for place, each in enumerate(kept) if columns[each].cut or columns[each].folded]
    layer_of = width - 2 * (len(kept) - 1)
    for places, least in ((flexible, LEAST_CUT), (range(len(kept)), LEAST)):
        while sum(spaces) > layer_of:
            widest = max(places, key=spaces.__getitem__, default=None)
            if widest is None or spaces[widest] <= least:
                break
            spaces[widest] -= 1
    return spaces


def write_blocks(blocks: Iterable[tuple[str, list[str], str]]) -> None:
    """Write blocks for a terminal: a title, details, and a command, which is not broken into lines."""
    from rich.padding import Padding
    from rich.text import Text

    console = terminal()
    for number, (title, lines, command) in enumerate(blocks):
        if number:
            console.print()
        console.print(Text(printable(title), style='bold', overflow='fold'))
        for line in lines:
            console.print(Padding(Text(printable(line), overflow='fold'), (0, 0, 0, 4)))
        console.print(Text(f'    {printable(command)}'), soft_wrap=True)


def _styled(column: Column, text: str) -> Text:
    from rich.text import Text

    style = _STATUS_STYLES.get(text, '') if column.title == 'status' else ''
    return Text(text, style=style, no_wrap=column.cut, overflow='ellipsis' if column.cut else 'fold')


def write_fields(fields: Iterable[tuple[str, Any]]) -> None:
    """Write lines of name and value; unknown values are left out."""
    known = [(name, str(value)) for name, value in fields if value is not None]
    width = max((len(name) for name, _ in known), default=0)
    for name, value in known:
        print(f'{name:{width}}  {printable(value)}')


# --- for programs ----------------------------------------------------------------------------------


def json_text(value: Any, indent: int | None = None) -> str:
    """Format JSON that is safe on a terminal: readable if all of it prints, else escaped."""
    text = json.dumps(value, ensure_ascii=False, indent=indent, default=_as_text)
    plain = text.replace('\n', '') if indent else text
    if plain.isascii() and plain.isprintable():
        return text
    if plain.isprintable() and (sys.stdout.encoding or '').lower().replace('-', '') == 'utf8':
        return text
    return json.dumps(value, indent=indent, default=_as_text).replace('\x7f', '\\u007f')


def _as_text(value: Any) -> str:
    return value.hex() if isinstance(value, bytes) else str(value)


def write_json(value: Any) -> None:
    """Write one JSON document to stdout."""
    print(json_text(value, indent=2))


def write_json_list(values: Iterable[Any]) -> None:
    """Write a JSON list, one value a line, without holding it in memory."""
    write = sys.stdout.write
    start = '[\n'
    for value in values:
        write(f'{start} {json_text(value)}')
        start = ',\n'
    write('[]\n' if start == '[\n' else '\n]\n')


def write_csv(titles: Sequence[str], rows: Iterable[Sequence[Any]]) -> None:
    """Write CSV to stdout, without formulas."""
    import csv

    table = csv.writer(_Lines())
    shown = printable if is_terminal() else str
    table.writerow([inert(title) for title in titles])
    for row in rows:
        table.writerow([inert(shown(value)) if isinstance(value, str) else value for value in row])


class _Lines:
    """Unix line ends; the csv module quotes a lone CR only if its own line ends contain one."""

    def write(self, line: str) -> int:
        """Write a line of CSV."""
        return sys.stdout.write(line.removesuffix('\r\n') + '\n')


def inert(text: str) -> str:
    """Return the text, with a quote in front if a spreadsheet would evaluate it."""
    return f"'{text}" if text.startswith(FORMULA) else text
