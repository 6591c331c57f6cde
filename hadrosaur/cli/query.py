"""Many rows: ``query`` and ``sql``."""

from __future__ import annotations

import contextlib
import json
from itertools import chain
from typing import TYPE_CHECKING, Any

import click

from ..args_idents import ident_of
from ..dataframes import VALUES
from ..errors import HadrosaurError
from ..json_paths import MISSING, is_path, parse
from ..records import PUBLIC_COLUMNS as COLUMNS
from . import output
from .arguments import BASE, FILTERS, SOME_COLL, STATUS, filters, together
from .loading import opened
from .output import Column

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from typing import BinaryIO

    from ..index import Query
    from ..project import Project
    from ..records import Entry

MOST_NAMED = 10  # types or groups of failures that are named where none was found
SCREEN = 50  # rows shown on a terminal, if nobody says how many

FORMS = together(
    click.option('--json', 'form', flag_value='json', help='Write a JSON list of objects.'),
    click.option('--csv', 'form', flag_value='csv', help='Write CSV.'),
)


# --- query -----------------------------------------------------------------------------------------


@click.command(
    epilog="""\b
Examples:
  hadrosaur query base --status error
  hadrosaur query base books --since 2h --error-type ValueError
  hadrosaur query base books --args year=1851 --order-by -duration --limit 10
  hadrosaur query base fits --columns ident,args.C,result.score --limit 10
  hadrosaur query base fits --result 'score>0.9' --result model.kind=svc --csv
  hadrosaur query base books --status error --idents > failed.txt
"""
)
@BASE
@SOME_COLL
@STATUS
@FILTERS
@click.option('--offset', type=click.IntRange(min=0), metavar='N', help='Number of rows to skip.')
@click.option('--columns', metavar='NAME,…',
              help='Columns to show, also parts of args and results: ident,args.C,result.score.')  # fmt: skip
@FORMS
@click.option('--idents', 'form', flag_value='idents', help='Write only the idents, one a line.')
def query(base: str, collection: str | None, form: str | None, columns: str | None, **given: Any) -> None:
    """List resources that match filters.

    Different filters must all match; of a repeated filter, one value must match. A terminal shows the last 50
    rows, unless --limit is given.

    --idents writes one ident a line, as --idents-from of `run`, `retry` and `rm` reads them; an ident that
    does not fit on a line is written as JSON.
    """
    with opened(base) as project:
        wanted = filters(given)
        if columns and form != 'idents':
            rows = found(project, collection, wanted)
            _write_columns(rows, _columns_of(rows, columns), form)
        elif form == 'json':
            output.write_json_list(entry.as_json() for entry in found(project, collection, wanted))
        elif form == 'csv':
            _write_csv(found(project, collection, wanted))
        elif form == 'idents':
            rows = found(project, collection, wanted)
            for entry in rows:
                print(ident_line(entry.ident))
            note_if_none(rows)
        else:
            _write_table(project, collection, wanted)


def found(project: Project, collection: str | None, wanted: dict[str, Any]) -> Query:
    """Return the rows that match; an invalid filter is a usage error."""
    try:
        return project.query(collection, **wanted)
    except (ValueError, TypeError) as error:
        raise click.UsageError(str(error))


def note_if_none(rows: Query, otherwise: str = 'nothing matches') -> None:
    """Say so on stderr if no row matches, and name what error types or groups there are."""
    if not rows:
        output.note(rows.why_nothing() or otherwise)


def ident_line(ident: str) -> str:
    """Format an ident as one line that `idents_of` reads back."""
    if ident.isprintable() and not ident.startswith(('[', '{')):
        return ident
    return output.json_text([ident])


def asked_for(idents: Iterable[str], source: BinaryIO | None) -> Iterator[tuple[Any, Any]]:
    """Yield (ident, args or None) from the command line and a file; UsageError if there are none."""
    if not idents and source is None:
        raise click.UsageError('which ones? Give IDENT …, or --idents-from FILE')
    return chain(((ident, None) for ident in idents), idents_of(source))


def idents_of(source: BinaryIO | None) -> Iterator[tuple[Any, Any]]:
    """Yield (ident, args or None) from each line of a file; invalid UTF-8 is refused later, by name."""
    for number, data in enumerate(source or ()):
        text = data.decode('utf-8', 'surrogateescape').rstrip('\r\n')
        if number == 0:
            text = text.removeprefix('\ufeff')
        if text:
            yield _item(text)


def _item(text: str) -> tuple[Any, Any]:
    if not text.startswith(('[', '{')):
        return text, None
    try:
        parts = json.loads(text)
    except (ValueError, RecursionError):
        return text, None
    if isinstance(parts, dict):
        with contextlib.suppress(HadrosaurError):  # else it is refused later, as one of many
            return ident_of(parts), parts
        return parts, None
    if len(parts) in (1, 2) and isinstance(parts[0], (str, int)):
        return parts[0], parts[1] if len(parts) == 2 else None
    return text, None


def _columns_of(rows: Query, text: str) -> tuple[str, ...]:
    """Parse a comma-separated list of columns, parts, and names that the collection declares."""
    names = tuple(filter(None, map(str.strip, text.split(','))))
    for name in names:
        try:
            if is_path(name):
                parse(name)
            elif name not in COLUMNS and name not in rows.named:
                there = ', '.join((*rows.named, *COLUMNS))
                raise ValueError(
                    f'there is no column {name!r}; there is {there}, and parts such as result.{name}'
                )
        except ValueError as error:
            raise click.UsageError(f'--columns: {error}')
    return names


def _write_columns(rows: Query, names: tuple[str, ...], form: str | None) -> None:
    """Write the requested columns and parts; results too long for the index are read from disk."""
    parts = {name: parse(rows.named.get(name, name)) for name in names if name not in COLUMNS}
    reads = any(path.column == 'result' for path in parts.values())

    def cells(entry: Entry, *, plain: bool) -> list[Any]:
        result = rows.result_of(entry) if reads else MISSING
        found = []
        for name in names:
            value = parts[name].of(entry, result) if name in parts else entry.raw(name)
            if plain and name in VALUES:
                value = entry[name]
            elif not plain and isinstance(value, (dict, list, bool)):
                value = output.json_text(value)
            found.append(None if value is MISSING else value)
        return found

    if form == 'json':
        output.write_json_list(dict(zip(names, cells(entry, plain=True), strict=True)) for entry in rows)
    elif form == 'csv':
        output.write_csv(names, (cells(entry, plain=False) for entry in rows))
    else:
        shown = rows[:SCREEN] if output.is_terminal() and rows.limit is None else rows
        output.write_table(
            [Column(name, folded=True) for name in names], (cells(entry, plain=False) for entry in shown)
        )
        if len(shown) < len(rows):
            output.note(f'{len(rows) - len(shown)} more; --limit {len(rows)} shows all')


def _write_csv(rows: Iterable[Entry]) -> None:
    from ..records import PUBLIC_COLUMNS

    output.write_csv(PUBLIC_COLUMNS, ([entry.raw(name) for name in PUBLIC_COLUMNS] for entry in rows))


_COLUMNS = {
    'collection': Column('collection', folded=True),
    'ident': Column('ident', folded=True),
    'status': Column('status'),
    'finished_at': Column('finished', output.lately, spare=True),
    'duration': Column('took', output.seconds, right=True, spare=True),
    'error_type': Column('error type', folded=True),
    'error': Column('error', cut=True),
}


def _write_table(project: Project, collection: str | None, wanted: dict[str, Any]) -> None:
    if not output.is_terminal():
        rows = found(project, collection, wanted)
        cells = ([entry.raw(name) for name in _COLUMNS] for entry in rows)
        output.write_table([Column(name) for name in _COLUMNS], cells)
        note_if_none(rows)
        return
    rows = found(project, collection, {'limit': SCREEN, **wanted})
    shown = list(rows)
    names = [name for name in _COLUMNS if name != 'collection' or collection is None]
    output.write_table(
        [_COLUMNS[name] for name in names], ([entry[name] for name in names] for entry in shown)
    )
    note_if_none(rows)
    if len(shown) == SCREEN and 'limit' not in wanted:
        total = len(found(project, collection, wanted))
        if total > SCREEN:
            output.note(f'{total - SCREEN} more; --limit {total} shows all')


# --- sql -------------------------------------------------------------------------------------------


@click.command(
    epilog="""\b
Examples:
  hadrosaur sql base "select error_type, count(*) from errors group by 1"
  hadrosaur sql base "select * from slowest limit 10" --csv
"""
)
@BASE
@click.argument('statement', metavar='"select …"')
@FORMS
def sql(base: str, statement: str, form: str | None) -> None:
    """Run a read-only SQL query on the index.

    The tables are `resources` and `uses`; the views are `errors`, `error_groups`, `status_counts`,
    `attempts`, `dependencies`, `running` and `slowest`.
    """
    with opened(base) as project:
        rows = project.sql_rows(statement)
        first = next(rows, None)
        titles = list(first or ())
        every = chain(() if first is None else (first,), rows)
        if form == 'json':
            output.write_json_list(every)
        elif form == 'csv':
            output.write_csv(titles, (list(row.values()) for row in every))
        elif first is not None:
            columns = [Column(title, folded=True) for title in titles]
            output.write_table(columns, (list(row.values()) for row in every))
        else:
            output.note('no rows')
