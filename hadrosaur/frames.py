"""Rows of the index as a table of pandas or polars, with the dtypes that one would have chosen by hand.

Times are UTC timestamps, what may be missing is nullable, status and phase are categories (polars:
Enum-like strings), ``args``, ``result`` and ``error_bases`` are Python values (polars: JSON text, since a
column there has one shape).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from .records import PUBLIC_COLUMNS, STATUSES, Entry

if TYPE_CHECKING:
    from collections.abc import Iterable

TIMES = ('queued_at', 'started_at', 'finished_at')
INTEGERS = ('attempt', 'pid', 'max_rss')
FLOATS = ('duration', 'cpu_seconds')
VALUES = ('args', 'result', 'error_bases')
PHASES = ('queued', 'running')


def _columns(entries: Iterable[Entry]) -> dict[str, list[Any]]:
    """The raw cells, column by column."""
    cells = list(zip(*(tuple(entry)[: len(PUBLIC_COLUMNS)] for entry in entries), strict=True))
    return {name: list(cells[at]) if cells else [] for at, name in enumerate(PUBLIC_COLUMNS)}


def to_pandas(entries: Iterable[Entry]) -> Any:
    """A `pandas.DataFrame`, one row for each entry. Raises ImportError where pandas is not installed."""
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
    return frame


def to_polars(entries: Iterable[Entry]) -> Any:
    """A `polars.DataFrame`, one row for each entry. Raises ImportError where polars is not installed."""
    polars = _imported('polars')
    types = {
        **dict.fromkeys(PUBLIC_COLUMNS, polars.String),
        **dict.fromkeys(INTEGERS, polars.Int64),
        **dict.fromkeys(FLOATS, polars.Float64),
    }
    frame = polars.DataFrame(_columns(entries), schema=types)
    moment = polars.Datetime('us', 'UTC')
    return frame.with_columns(
        *(polars.col(name).str.to_datetime(time_zone='UTC', strict=False).cast(moment) for name in TIMES),
        polars.col('status', 'phase').cast(polars.Categorical),
    )


def _imported(name: str) -> Any:
    import importlib

    try:
        return importlib.import_module(name)
    except ImportError:
        raise ImportError(f"{name} is not installed: pip install 'hadrosaur[{name}]'") from None
