"""Rows of the index as a pandas or polars data frame, with suitable dtypes.

Times are UTC timestamps, columns with missing values are nullable, status and phase are categories
(polars: Enum-like strings). ``args``, ``result`` and other columns of JSON are Python values (polars: JSON
text, since a column there has one type).
"""

from __future__ import annotations

import json
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from .columns import of_kind
from .json_paths import MISSING, is_path, leaves, parse
from .records import PHASES, PUBLIC_COLUMNS, STATUSES, Entry

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

TIMES, VALUES, INTEGERS, FLOATS = map(of_kind, ('time', 'JSON', 'integer', 'float'))


def _columns(entries: Iterable[Entry]) -> dict[str, list[Any]]:
    """Return the raw cells, column by column."""
    cells = list(zip(*(tuple(entry)[: len(PUBLIC_COLUMNS)] for entry in entries), strict=True))
    return {name: list(cells[at]) if cells else [] for at, name in enumerate(PUBLIC_COLUMNS)}


def to_pandas(
    entries: Iterable[Entry],
    results: bool | Iterable[str] = False,
    result_of: Callable[[Entry], Any] = lambda entry: entry.result,
    named: Mapping[str, str] = MappingProxyType({}),
) -> Any:
    """Return a `pandas.DataFrame` with one row per entry. Raises ImportError if pandas is not installed.

    Args:
        entries: The rows.
        results: Whether parts of args and results get columns too, or which.
        result_of: Returns the result of a row.
        named: Parts by the names of their columns.
    """
    pandas = _imported('pandas')
    entries = list(entries)
    columns = _columns(entries)
    frame = pandas.DataFrame(columns)
    for name in VALUES:
        frame[name] = pandas.Series([entry[name] for entry in entries], dtype=object)
    for name in TIMES:
        moments = pandas.to_datetime(frame[name], utc=True, format='ISO8601')
        frame[name] = moments.astype('datetime64[us, UTC]')
    for name in INTEGERS:
        frame[name] = frame[name].astype('Int64')
    for name in FLOATS:
        frame[name] = frame[name].astype('Float64')
    frame['status'] = pandas.Categorical(frame['status'], categories=STATUSES)
    frame['phase'] = pandas.Categorical(frame['phase'], categories=PHASES)
    others = set(PUBLIC_COLUMNS).difference(TIMES, INTEGERS, FLOATS, ('status', 'phase', *VALUES))
    for name in others:
        frame[name] = frame[name].astype('string')
    dtypes = {int: 'Int64', float: 'Float64', bool: 'boolean', str: 'string'}
    parts = {
        name: pandas.Series(cells, dtype=dtypes[kind])
        for name, (kind, cells) in _parts(entries, results, result_of, named).items()
    }
    return frame.assign(**parts)


def to_polars(
    entries: Iterable[Entry],
    results: bool | Iterable[str] = False,
    result_of: Callable[[Entry], Any] = lambda entry: entry.result,
    named: Mapping[str, str] = MappingProxyType({}),
) -> Any:
    """Return a `polars.DataFrame` with one row per entry. Raises ImportError if polars is not installed.

    The arguments are those of `to_pandas`.
    """
    polars = _imported('polars')
    entries = list(entries)
    types = {
        **dict.fromkeys(PUBLIC_COLUMNS, polars.String),
        **dict.fromkeys(INTEGERS, polars.Int64),
        **dict.fromkeys(FLOATS, polars.Float64),
    }
    frame = polars.DataFrame(_columns(entries), schema=types)
    moment = polars.Datetime('us', 'UTC')
    kinds = {int: polars.Int64, float: polars.Float64, bool: polars.Boolean, str: polars.String}
    return frame.with_columns(
        *(polars.col(name).str.to_datetime(time_zone='UTC', strict=False).cast(moment) for name in TIMES),
        polars.col('status', 'phase').cast(polars.Categorical),
        *(
            polars.Series(name, cells, dtype=kinds[kind])
            for name, (kind, cells) in _parts(entries, results, result_of, named).items()
        ),
    )


def _parts(
    entries: list[Entry],
    results: bool | Iterable[str],
    result_of: Callable[[Entry], Any],
    named: Mapping[str, str],
) -> dict[str, tuple[type, list[Any]]]:
    """Return, for each part of args and results, its column's type and cells; missing ones are None."""
    if results is False:
        return {}
    if isinstance(results, str):
        raise TypeError(f'results takes True, or a list of names, not one text: write [{results!r}]')
    found: dict[str, list[Any]] = {}
    wanted = {name: parse(text) for name, text in named.items()}
    titles = {path.text: name for name, path in wanted.items()}
    if results is not True:
        chosen = {
            name: named.get(name) or (name if _is_whole(name) else f'result.{name}') for name in results
        }
        wanted = {name if name in named else parse(text).text: parse(text) for name, text in chosen.items()}
        found = {name: [] for name in wanted}
    for number, entry in enumerate(entries):
        result = result_of(entry)
        values = {name: path.of(entry, result) for name, path in wanted.items()}
        if results is True:
            shown = {**leaves('args', entry.args), **({} if result is MISSING else leaves('result', result))}
            values.update((name, value) for name, value in shown.items() if name not in titles)
        for name, value in values.items():
            cells = found.setdefault(name, [])
            cells += [None] * (number - len(cells))
            cells.append(None if value is MISSING else value)
    return {
        name: _typed([*cells, *([None] * (len(entries) - len(cells)))])
        for name, cells in sorted(found.items())
    }


def _is_whole(name: str) -> bool:
    return is_path(name) or name == 'result'


def _typed(cells: list[Any]) -> tuple[type, list[Any]]:
    """Return a type that all cells have, and the cells converted to it: JSON text for mixed types."""
    kinds = {type(cell) for cell in cells if cell is not None}
    if kinds == {int} and all(-(1 << 63) <= cell < 1 << 63 for cell in cells if cell is not None):
        return int, cells
    if kinds and kinds <= {int, float}:
        return float, [None if cell is None else float(cell) for cell in cells]
    if len(kinds) == 1 and kinds <= {bool, str}:
        return kinds.pop(), cells
    texts = [
        cell if cell is None or isinstance(cell, str) else json.dumps(cell, ensure_ascii=False)
        for cell in cells
    ]
    return str, texts


def _imported(name: str) -> Any:
    import importlib

    try:
        return importlib.import_module(name)
    except ImportError:
        raise ImportError(f"{name} is not installed: pip install 'hadrosaur[{name}]'") from None
