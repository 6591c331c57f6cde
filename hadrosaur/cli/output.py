"""Values as text: for a terminal, for a pipe, for a program.

A table is drawn by rich on a terminal, in its width and with its colours. In a pipe it is one line of
tab-separated cells per row, whole and as it comes, under one line of titles: what ``grep``, ``cut``
and ``sort`` want, and rich is not even imported. Programs ask for ``--json`` or ``--csv``.

Idents and messages are other people's text. For people each character that would not print as itself
(control characters, escape sequences, line ends, marks that turn the direction of writing) is shown as
an escape; JSON has its own escapes, and a CSV cell that a spreadsheet would run as a formula gets a
quote in front.
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
    """Say something about the data, on stderr."""
    print(printable(text), file=sys.stderr, flush=True)


def is_terminal(stream: TextIO | None = None) -> bool:
    """Tell whether a person is looking at stdout, or at that stream."""
    return (stream or sys.stdout).isatty()


def progress(said: Progress | None) -> dict[str, Any] | None:
    """How far a run says it is, for JSON."""
    return None if said is None else said._asdict()


def counted(number: int, what: str) -> str:
    """A number of things: ``1 folder``, ``2 folders``."""
    return f'{number} {what}' if number == 1 else f'{number} {what}s'


def shortened(text: str, length: int) -> str:
    """The text, or its beginning and a sign that there is more."""
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
    """The terminal that stdout is; what is printed there is never read as markup."""
    from rich.console import Console

    return Console(file=sys.stdout, markup=False, highlight=False, emoji=False)


def drawn(columns: Sequence[Column], rows: Iterable[Sequence[Any]], width: int) -> Table:
    """A table for a terminal of that width."""
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
    """Positions of the columns that there is room for."""
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
    """Columns of the screen for each column: what is too wide is made narrower, the longest texts first.

    Those that are cut or folded down to `LEAST_CUT`, and where that is not enough all of them to `LEAST`.
    """
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
    """Write on a terminal: what it is about, more about it, and a command, which stays in one piece."""
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
    """Write lines of a name and a value, leaving out what is not known."""
    known = [(name, str(value)) for name, value in fields if value is not None]
    width = max((len(name) for name, _ in known), default=0)
    for name, value in known:
        print(f'{name:{width}}  {printable(value)}')


# --- for programs ----------------------------------------------------------------------------------


def json_text(value: Any, indent: int | None = None) -> str:
    """JSON in which nothing can harm a terminal: as people read it if all of it prints, else escaped."""
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
    """Write a list, one value a line, as they come: a million rows are never held at once."""
    write = sys.stdout.write
    start = '[\n'
    for value in values:
        write(f'{start} {json_text(value)}')
        start = ',\n'
    write('[]\n' if start == '[\n' else '\n]\n')


def write_csv(titles: Sequence[str], rows: Iterable[Sequence[Any]]) -> None:
    """Write CSV to stdout, with cells that no spreadsheet takes for formulas."""
    import csv

    table = csv.writer(_Lines())
    shown = printable if is_terminal() else str
    table.writerow([inert(title) for title in titles])
    for row in rows:
        table.writerow([inert(shown(value)) if isinstance(value, str) else value for value in row])


class _Lines:
    """Ends lines as Unix does; the csv module quotes a lone CR only if its own line ends have one."""

    def write(self, line: str) -> int:
        """Take a line of CSV, which the csv module writes at once."""
        return sys.stdout.write(line.removesuffix('\r\n') + '\n')


def inert(text: str) -> str:
    """The text, with a quote in front where a spreadsheet would calculate it."""
    return f"'{text}" if text.startswith(FORMULA) else text
