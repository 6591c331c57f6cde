"""Why a query finds nothing: by a part of args or results, or by the cause of failures."""

from __future__ import annotations

import json
from collections.abc import Mapping
from difflib import get_close_matches
from typing import TYPE_CHECKING, Any, NamedTuple

from ..json_paths import MISSING, Path, is_path, leaves, parse
from ._filters import is_comparison, kind_of, path_of, tests_of, texts_of
from ._functions import is_kind
from ._summary import COLLECTIONS

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Iterable, Iterator

    from ._filters import Test

_SAMPLE = 200  # rows that are looked at to say what there is, where nothing was found
_MOST_NAMED = 10  # error types or groups that are named


class Asked(NamedTuple):
    """A path that a query asks for, by a filter (what is wanted), or, last, as its order."""

    path: Path
    wanted: list[list[Test]] | None = None


def asked_parts(filters: Mapping[str, Any], order: str | None) -> Iterator[Asked]:
    """The parts that a query asks for, but for args that are plainly equal."""
    for column in ('result', 'args'):
        asked = filters.get(column)
        for name, wanted in asked.items() if isinstance(asked, Mapping) else ():
            if column == 'result' or is_comparison(wanted):
                path = path_of(column, name)
                yield Asked(path, tests_of(path, wanted))
    if isinstance(order, str) and is_path(order.removeprefix('-')):
        yield Asked(parse(order.removeprefix('-')))


def why_nothing(driver: sqlite3.Connection, names: list[str] | None, parts: Iterable[Asked]) -> str | None:
    """Why parts find nothing in some collections: no row has one, or what is there is of another type."""
    within = 'true' if names is None else f'collection IN ({", ".join("?" * len(names))})'
    sample = driver.execute(
        f"SELECT ident, args, result FROM resources WHERE {within} AND status = 'completed' LIMIT {_SAMPLE}",
        names or (),
    ).fetchall()
    for path, wanted in parts:
        cells = (
            (ident, _at(path, args if path.column == 'args' else result)) for ident, args, result in sample
        )
        seen = [(ident, value) for ident, value in cells if value is not MISSING]
        if seen:
            if wanted is not None and (said := _mismatch(path, wanted, seen)):
                return said
            continue
        there = driver.execute(
            f'SELECT 1 FROM resources WHERE {within} AND json_type({path.column}, ?) IS NOT NULL LIMIT 1',
            (*(names or ()), path.in_sql),
        ).fetchone()
        if there is None and sample:
            return _unknown(path, sample, names)
    return None


def _at(path: Path, cell: str | None) -> Any:
    try:
        return MISSING if cell is None else path.within(json.loads(cell))
    except (ValueError, RecursionError, TypeError):
        return MISSING


def _mismatch(path: Path, wanted: list[list[Test]], seen: list[tuple[str, Any]]) -> str | None:
    kinds = {_BOOLS.get(test.kind, test.kind) for group in wanted for test in group}
    met = {_BOOLS.get(kind, kind) for kind in (kind_of(value) for _, value in seen)}
    if kinds & met:
        return None
    ident, value = seen[0]
    return (
        f'{path.text} is compared with {_named(kinds)}, and is {_named(met)} where it was looked at: in'
        f' {ident!r} it is {json.dumps(value)[:60]}; these are never equal, and neither is more'
    )


_BOOLS = {'true': 'true or false', 'false': 'true or false'}


def _named(kinds: Iterable[str]) -> str:
    words = {'number': 'a number', 'json': 'a list or dict'}
    return ' or '.join(sorted(words.get(kind, kind) for kind in kinds))


def _unknown(path: Path, sample: list[tuple[Any, ...]], names: list[str] | None) -> str:
    parts: dict[str, None] = {}
    for _, args, result in sample:
        cell = _at(Path(path.column), args if path.column == 'args' else result)
        if isinstance(cell, dict):
            parts.update(dict.fromkeys(leaves(path.column, cell)))
    there = ', '.join(sorted(parts)[:20]) or 'nothing'
    close = get_close_matches(path.text, parts, n=1)
    meant = f'; did you mean {close[0]}?' if close else ''
    of = f' of {", ".join(names)}' if names else ''
    return f'no row{of} has {path.text}; there is {there}{meant}'


def left_out(driver: sqlite3.Connection, names: list[str] | None) -> str | None:
    """Say so where the index holds only some of the results, going by the last ones of some collections."""
    collections = names if names is not None else [name for (name,) in driver.execute(COLLECTIONS)]
    for name in collections:
        lately = driver.execute(
            'SELECT ident, result IS NULL FROM resources WHERE collection = ? AND finished_at IS NOT NULL'
            f" AND status = 'completed' ORDER BY finished_at DESC LIMIT {_SAMPLE}",
            (name,),
        )
        for ident, is_missing in lately:
            if is_missing:
                return (
                    f'not all results of {name} are in the index, and here they count as missing, such as'
                    f' that of {ident!r}: they are longer than index_result= allows, or come from an older'
                    ' release, and then `hadrosaur reindex BASE` adds them'
                )
    return None


def unknown_cause(
    driver: sqlite3.Connection, names: list[str] | None, filters: Mapping[str, Any]
) -> str | None:
    """Which error types or groups there are, where a query asks for one that no failure has; else None."""
    within = 'true' if names is None else f'collection IN ({", ".join("?" * len(names))})'
    for name, label in (('error_type', 'type'), ('error_group', 'group')):
        if filters.get(name) is None:
            continue
        asked = texts_of(name, filters[name])
        column = 'coalesce(error_group, error_type)' if name == 'error_group' else name
        rows = driver.execute(
            f'SELECT {column}, max(error_bases), count(*) FROM resources'
            f" WHERE {within} AND status = 'error' GROUP BY 1 ORDER BY 3 DESC",
            names or (),
        ).fetchall()
        wanted = json.dumps(asked)
        is_type = name == 'error_type'
        met = (is_kind(cause, bases, wanted) if is_type else cause in asked for cause, bases, _ in rows)
        if not rows or not asked or any(met):
            continue
        there = ', '.join(f'{cause} ({number})' for cause, _, number in rows[:_MOST_NAMED])
        more = f', and {len(rows) - _MOST_NAMED} more' if len(rows) > _MOST_NAMED else ''
        close = get_close_matches(asked[0], [str(cause) for cause, *_ in rows], n=1)
        meant = f'; did you mean {close[0]}?' if close else ''
        of = f' of {", ".join(names)}' if names else ''
        return f'no failure{of} has the {label} {" or ".join(asked)}; there is {there}{more}{meant}'
    return None
