"""Filters and orders by parts of args and results: what they ask for, and why they find nothing."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from difflib import get_close_matches
from fnmatch import translate
from typing import TYPE_CHECKING, Any, NamedTuple

from ..canonical import args_json
from ..json_paths import MISSING, Path, below, is_path, leaves, parse
from ._shape import Condition
from ._summary import COLLECTIONS

if TYPE_CHECKING:
    import sqlite3

OPERATORS = ('=', '!=', '<', '<=', '>', '>=', 'glob')
CONSTANTS = ('true', 'false', 'null')
"""Types that have one value, so that none is bound."""

NUMBERS = ('integer', 'real')
"""SQLite's words for what JSON calls a number."""

_SAMPLE = 200  # rows that are looked at to say what there is, where nothing was found


class Test(NamedTuple):
    """One comparison; ``kind`` is the JSON type that is compared, and decides the SQL with the operator."""

    operator: str
    kind: str  # number, text, true, false, null or json
    value: Any


def tests_of(path: Path, wanted: Any) -> list[list[Test]]:
    """What a filter asks of a path: one of these groups, all of whose tests must hold.

    A value: equal. A list: equal to one of its items, or to the list. A tuple of an operator and a value, or
    of several in turn: all of these hold.

    Raises ValueError or TypeError (InvalidArgs) for what cannot be compared.
    """
    if isinstance(wanted, tuple) and wanted and isinstance(wanted[0], str) and wanted[0] in OPERATORS:
        if len(wanted) % 2:
            raise ValueError(
                f"{path.text}: write an operator and a value, such as ('>', 0.9), not {wanted!r}"
            )
        pairs = zip(wanted[::2], wanted[1::2], strict=True)
        return [[_test(path, operator, value) for operator, value in pairs]]
    if isinstance(wanted, list):
        return [[_test(path, '=', each)] for each in (*wanted, wanted)]
    return [[_test(path, '=', wanted)]]


def _test(path: Path, operator: str, value: Any) -> Test:
    value = json.loads(args_json({path.text: value}))[path.text]
    if operator not in OPERATORS:
        raise ValueError(f'{path.text}: there is no operator {operator!r}; there are {", ".join(OPERATORS)}')
    kind = _kind_of(value)
    if operator == 'glob':
        if kind != 'text':
            raise ValueError(f'{path.text}: glob takes a pattern, which is text, not {value!r}')
        return Test(operator, kind, translate(value))
    if operator not in ('=', '!=') and kind not in ('number', 'text'):
        raise ValueError(
            f'{path.text}: {operator} compares numbers with numbers and text with text, not with {value!r}'
        )
    if kind == 'number' and abs(value) >= 1 << 63:
        value = float(value)
    return Test(operator, kind, json.dumps([value]) if kind == 'json' else value)


def _kind_of(value: Any) -> str:
    if value is None or isinstance(value, bool):
        return json.dumps(value)
    return 'number' if isinstance(value, (int, float)) else 'text' if isinstance(value, str) else 'json'


def condition(column: str, wanted: Any) -> Condition | None:
    """What a filter on args or results asks for; None where it asks for nothing."""
    if not isinstance(wanted, Mapping):
        example = f"{column}={{'name': ('>', 0.9)}}"
        raise TypeError(
            f'{column} takes a dict of paths and what is there, such as {example}, not {wanted!r}'
        )
    spec, values = [], []
    for name, asked in wanted.items():
        path = path_of(column, name)
        groups = tests_of(path, asked)
        spec.append((path.in_sql, [[(test.operator, test.kind) for test in group] for group in groups]))
        values += [test.value for group in groups for test in group if test.kind not in CONSTANTS]
    return Condition(f'parts {json.dumps([column, spec])}', tuple(values)) if spec else None


def path_of(column: str, name: Any) -> Path:
    """The path that a key of a filter names: ``score``, ``model.depth``; ``''`` is a key as well."""
    if not isinstance(name, str):
        raise TypeError(f'{column} takes keys that are text, not {name!r}')
    return parse(f'{column}.{name}') if name else below(column, name)


def is_plain(wanted: Any) -> bool:
    """Is a filter on args one for a value, or for one of several, rather than a comparison?"""
    is_test = isinstance(wanted, tuple) and wanted and isinstance(wanted[0], str) and wanted[0] in OPERATORS
    return not is_test


# --- nothing found ---------------------------------------------------------------------------------


class Asked(NamedTuple):
    """A path that a query asks for, by a filter (what is wanted), or, last, as its order."""

    path: Path
    wanted: list[list[Test]] | None = None


def asked_parts(filters: Mapping[str, Any], order: str | None) -> Iterator[Asked]:
    """The parts that a query asks for, but for args that are plainly equal."""
    for column in ('result', 'args'):
        wanted = filters.get(column)
        for name, asked in wanted.items() if isinstance(wanted, Mapping) else ():
            if column == 'result' or not is_plain(asked):
                path = path_of(column, name)
                yield Asked(path, tests_of(path, asked))
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
    found = {_BOOLS.get(kind, kind) for kind in (_kind_of(value) for _, value in seen)}
    if kinds & found:
        return None
    ident, value = seen[0]
    return (
        f'{path.text} is compared with {_named(kinds)}, and is {_named(found)} where it was looked at: in'
        f' {ident!r} it is {json.dumps(value)[:60]}; these are never equal, and neither is more'
    )


_BOOLS = {'true': 'true or false', 'false': 'true or false'}


def _named(kinds: Iterable[str]) -> str:
    words = {'number': 'a number', 'json': 'a list or dict'}
    return ' or '.join(sorted(words.get(kind, kind) for kind in kinds))


def _unknown(path: Path, sample: list[tuple[Any, ...]], names: list[str] | None) -> str:
    known: dict[str, None] = {}
    for _, args, result in sample:
        cell = _at(Path(path.column), args if path.column == 'args' else result)
        if isinstance(cell, dict):
            known.update(dict.fromkeys(leaves(path.column, cell)))
    there = ', '.join(sorted(known)[:20]) or 'nothing'
    close = get_close_matches(path.text, known, n=1)
    meant = f'; did you mean {close[0]}?' if close else ''
    of = f' of {", ".join(names)}' if names else ''
    return f'no row{of} has {path.text}; there is {there}{meant}'


def left_out(driver: sqlite3.Connection, names: list[str] | None) -> str | None:
    """Say so where the index holds only some of the results, going by the last ones of some collections."""
    known = names if names is not None else [name for (name,) in driver.execute(COLLECTIONS)]
    for name in known:
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
