"""From the filters of a query to SQL text and its parameters.

Values never stand in the text. Each filter becomes a `Condition`: a word for its kind and the values
that are bound. The kinds and the order make up the query's shape; Core compiles each shape once, and
the text is kept. Only the three status words are spelled out, since SQLite uses a partial index only
where it can see that its condition holds.

Three tests run in Python, from within SQLite, because they must agree with Python exactly: globs
(`fnmatch`; SQLite's GLOB reads ``[!x]`` otherwise and stops at a NUL), text without regard to case
(LIKE knows that of ASCII only), and args, compared as canonical JSON. They cost 0.3 to 0.5 µs a row.
"""

from __future__ import annotations

import builtins
import json
import re
from collections.abc import Iterable, Mapping
from datetime import UTC, date, datetime, timedelta
from difflib import get_close_matches
from fnmatch import translate
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Literal

from .. import errors, fingerprint
from ..canonical import args_json
from ..json_paths import MISSING, is_path, parse
from ..records import COLUMNS, PHASES, STATUSES
from ._fork_guard import fork_guard
from ._json_filters import condition, is_plain
from ._shape import Condition, Shape

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Callable


MOST_VALUES = 30_000
"""Values in one query, all filters together; SQLite takes 32 766 parameters since 3.32."""

MOST_NAMED = 10
"""Error types or groups that a warning names."""

Several = str | Iterable[str]
Moment = datetime | date | timedelta | str


# --- filters ---------------------------------------------------------------------------------------


def conditions(filters: Mapping[str, Any]) -> list[Condition]:
    """What the filters that are not None ask for.

    Raises:
        ValueError: A filter's value makes no sense; the message says what does.
        TypeError: It is of a type that the filter does not take.
    """
    versions = filters.get('versions') or {}
    found: list[Condition] = []
    for name, value in filters.items():
        if value is None or name == 'versions':
            continue
        if name == 'stale':
            found.append(_staleness(bool(value), versions))
        elif name in ('args', 'result'):
            found += _parts_of(name, value)
        else:
            found.append(_READERS[name](value))
    if sum(len(condition.values) for condition in found) > MOST_VALUES:
        raise ValueError(f'too many values: a query takes {MOST_VALUES}, all filters together')
    return _joined(found)


def _joined(found: list[Condition]) -> list[Condition]:
    """The conditions, with those on collection and on since as one: an index answers both together."""
    kinds = {condition.kind: condition for condition in found}
    if not kinds.keys() >= {'collection', 'since'}:
        return found
    names, since = kinds['collection'], kinds['since']
    values = (*names.values, since.values[0]) * 2
    rest = [condition for condition in found if condition not in (names, since)]
    return [*rest, Condition('since within', values, names.lists * 2)]


def _texts(name: str, value: Several) -> list[str]:
    if not isinstance(value, Iterable):
        raise TypeError(f'{name} takes text, not {type(value).__name__}: {value!r}')
    texts = [value] if isinstance(value, str) else list(value)
    for text in texts:
        if not isinstance(text, str):
            raise TypeError(f'{name} takes text, not {type(text).__name__}: {text!r}')
    return texts


def _one_of(name: str) -> Callable[[Several], Condition]:
    return lambda value: _exact(name, _texts(name, value))


def _exact(name: str, texts: list[Any]) -> Condition:
    known = tuple(dict.fromkeys(texts))
    return Condition(name, known, (len(known),))


def _error_type(value: Several) -> Condition:
    return Condition('error_type named', (json.dumps(_texts('error_type', value)),))


def _error_group(value: Several) -> Condition:
    """Failures without a fingerprint are a group by their type, as `error_groups` lists them."""
    groups = dict.fromkeys(_texts('error_group', value))
    if all(map(_FINGERPRINT, groups)):
        return _exact('error_group', list(groups))
    return Condition('error_group or_type', (*groups, *groups), (len(groups), len(groups)))


_FINGERPRINT = re.compile(r'f\d+:').match


def _status(value: Several) -> Condition:
    asked = set(_texts('status', value))
    for word in sorted(asked - set(STATUSES)):
        raise ValueError(f'unknown status {word!r}{_meant(word, STATUSES)}')
    return Condition('status ' + ' '.join(word for word in STATUSES if word in asked), ())


def _phase(value: Several) -> Condition:
    words = _texts('phase', value)
    for word in words:
        if word not in PHASES:
            raise ValueError(f'unknown phase {word!r}{_meant(word, PHASES)}')
    return _exact('phase', words)


def _version(value: Any) -> Condition:
    """Versions are stored as text; a whole number stands for its digits."""
    several: list[Any] = [value] if isinstance(value, (str, int)) else list(value)
    texts = [str(each) if type(each) is int else each for each in several]
    return _exact('version', _texts('version', texts))


def _attempt(value: Any) -> Condition:
    several = list(value) if isinstance(value, Iterable) else [value]
    for each in several:
        if isinstance(each, bool) or not isinstance(each, int):
            raise TypeError(f'attempt takes whole numbers, not {each!r}')
    return _exact('attempt', several)


def _ident(value: Several) -> Condition:
    numbers = isinstance(value, int) and not isinstance(value, bool)
    idents = [str(value)] if numbers else _texts('ident', value)
    if not any(set(ident) & set('*?[') for ident in idents):
        return _exact('ident', idents)
    pattern = '|'.join(map(translate, idents))
    if len(idents) > 1:
        return Condition('ident like', (pattern,))
    if head := _HEAD.match(idents[0]):
        return Condition('ident below', (head[0], _after(head[0]), pattern))
    inside = max(re.split(r'[*?]', idents[0].partition('[')[0]), key=len)  # what every match holds
    return Condition('ident holding', (inside, pattern))


_HEAD = re.compile(r'[^*?\[\U0010ffff]+')  # nothing sorts after what begins with the last character


def _after(head: str) -> str:
    """The least text that sorts after all that begin with ``head``."""
    last = ord(head[-1])
    following = 0xE000 if last == 0xD7FF else last + 1  # halves of surrogate pairs are no characters
    return head[:-1] + chr(following)


def _error(value: Several) -> Condition:
    return Condition('error like', (json.dumps([text.casefold() for text in _texts('error', value)]),))


def _parts_of(name: str, value: Any) -> list[Condition]:
    """Conditions on args or results; args that are plain equalities are compared as they always were."""
    if name == 'args' and not isinstance(value, Mapping):
        return [_args(value)]
    plain = {key: each for key, each in value.items() if is_plain(each)} if name == 'args' else {}
    parts = condition(
        name, {key: each for key, each in value.items() if key not in plain} if plain else value
    )
    several = {key: plain.pop(key) for key, each in list(plain.items()) if isinstance(each, list)}
    found = [_args([{key: item} for item in (*items, items)]) for key, items in several.items()]
    if plain or (name == 'args' and not value):
        found.append(_args(plain))
    return found if parts is None else [*found, parts]


def _args(value: Mapping[str, Any] | Iterable[Mapping[str, Any]]) -> Condition:
    wanted = [value] if isinstance(value, Mapping) else list(value)
    texts = [args_json(dict(each)) for each in wanted]
    if (
        len(texts) == 1 and wanted[0] and not any('.' in name or '[' in name for name in wanted[0])
    ):  # canonical args hold each pair in these very characters
        pairs = [args_json({name: each})[1:-1] for name, each in dict(wanted[0]).items()]
        return Condition('args holding', (max(pairs, key=len), f'[{texts[0]}]'))
    return Condition('args', (f'[{",".join(texts)}]',))


def _bound(name: str, unit: str) -> Callable[[Any], Condition]:
    """A number that a column is at least, or at most."""

    def read(value: float | timedelta) -> Condition:
        try:
            number = value.total_seconds() if isinstance(value, timedelta) else float(value)
        except (TypeError, ValueError):
            raise ValueError(f'{name} takes a number of {unit}, not {value!r}')
        return Condition(name, (number,))

    return read


def after(order_by: str | None, row: Any) -> Condition:
    """The rows that follow one in an order and are alike in this: whether the column is known."""
    column = order(order_by)
    value, *key = row
    if len(key) != 2 or not all(isinstance(each, str) for each in key):
        raise ValueError(f'after takes (value, collection, ident) of the last row, not {row!r}')
    if value is None:
        return Condition(f'after_unknown {column}', tuple(key))
    return Condition(f'after {column}', (value, value, *key))


def _staleness(stale: bool, versions: Mapping[str, str | None]) -> Condition:
    named = [(name, version) for name, version in versions.items() if version is not None]
    kind = f'{"stale" if stale else "fresh"} {len(named)}'
    return Condition(kind, tuple(cell for pair in named for cell in pair))


def _since(value: Moment) -> Condition:
    moment = _moment('since', value)
    return Condition('since', (moment, moment))


def _until(value: Moment) -> Condition:
    moment = _moment('until', value, at_end=True)
    return Condition('until', (moment, moment))


def _moment(name: str, value: Moment, *, at_end: bool = False) -> str:
    """A point in time as the table writes it. A day means its first moment, or its last."""
    try:
        if isinstance(value, str):
            value = date.fromisoformat(value) if _DAY.fullmatch(value) else datetime.fromisoformat(value)
        if isinstance(value, timedelta):
            value = datetime.now(UTC) - value
        elif not isinstance(value, datetime):
            value = datetime(value.year, value.month, value.day)
            if at_end:
                value += timedelta(days=1, microseconds=-1)
        text = value.astimezone(UTC).isoformat(timespec='microseconds')
    except (ValueError, OverflowError, AttributeError):
        raise ValueError(
            f'{name}={value!r} is no point in time: give a datetime, a date, ISO-8601 text such as'
            " '2026-01-31' or '2026-01-31T18:00', or a timedelta that says how long ago"
        )
    return text[:26] + 'Z'


_DAY = re.compile(r'\d{4}-?\d\d-?\d\d|\d{4}-?W\d\d-?\d')

_READERS: dict[str, Callable[[Any], Condition]] = {
    'collection': _one_of('collection'),
    'status': _status,
    'ident': _ident,
    'error_type': _error_type,
    'error_group': _error_group,
    'error': _error,
    'phase': _phase,
    'host': _one_of('host'),
    'version': _version,
    'attempt': _attempt,
    'since': _since,
    'until': _until,
    'min_duration': _bound('min_duration', 'seconds, or a timedelta'),
    'max_duration': _bound('max_duration', 'seconds, or a timedelta'),
    'min_memory': _bound('min_memory', 'bytes'),
    'max_memory': _bound('max_memory', 'bytes'),
}


def order(column: str | None) -> str:
    """The given order, if there is such a column.

    Raises:
        ValueError: There is none.
    """
    column = column or 'collection'
    if not isinstance(column, str):
        raise TypeError(f'order_by takes the name of a column, not {column!r}')
    name = column.removeprefix('-')
    if is_path(name):
        parse(name)
    elif name not in COLUMNS:
        part = f'; a part of results is written result.{name}' if name.isidentifier() else ''
        raise ValueError(f'unknown column {name!r}{_meant(name, COLUMNS)}{part}')
    return column


def _meant(word: str, known: tuple[str, ...]) -> str:
    close = get_close_matches(word.lower(), known, n=1)
    return f': did you mean {close[0]!r}?' if close else f'; there is {", ".join(known)}'


def unknown_cause(
    driver: sqlite3.Connection, names: list[str] | None, filters: Mapping[str, Any]
) -> str | None:
    """Which error types or groups there are, where a query asks for one that no failure has; else None."""
    within = 'true' if names is None else f'collection IN ({", ".join("?" * len(names))})'
    for name, label in (('error_type', 'type'), ('error_group', 'group')):
        if filters.get(name) is None:
            continue
        asked = _texts(name, filters[name])
        column = 'coalesce(error_group, error_type)' if name == 'error_group' else name
        rows = driver.execute(
            f'SELECT {column}, max(error_bases), count(*) FROM resources'
            f" WHERE {within} AND status = 'error' GROUP BY 1 ORDER BY 3 DESC",
            names or (),
        ).fetchall()
        wanted = json.dumps(asked)
        is_type = name == 'error_type'
        met = (_is_kind(known, bases, wanted) if is_type else known in asked for known, bases, _ in rows)
        if not rows or not asked or any(met):
            continue
        there = ', '.join(f'{known} ({number})' for known, _, number in rows[:MOST_NAMED])
        more = f', and {len(rows) - MOST_NAMED} more' if len(rows) > MOST_NAMED else ''
        close = get_close_matches(asked[0], [str(known) for known, *_ in rows], n=1)
        meant = f'; did you mean {close[0]}?' if close else ''
        of = f' of {", ".join(names)}' if names else ''
        return f'no failure{of} has the {label} {" or ".join(asked)}; there is {there}{more}{meant}'
    return None


# --- SQL text --------------------------------------------------------------------------------------


ALL = f'SELECT {", ".join(COLUMNS)} FROM resources'
"""Text that selects all rows."""

ONE = f'{ALL} WHERE collection = ? AND ident = ?'
"""Text that selects the row of a collection and an ident."""


@lru_cache(maxsize=256)
def rows_text(shape: Shape, numbers: tuple[int, ...]) -> str:
    """Text that selects rows; its last two parameters are limit and offset."""
    return _filled(_compiled(shape, 'rows'), numbers)


@lru_cache(maxsize=256)
def ids_text(shape: Shape, numbers: tuple[int, ...]) -> str:
    """Text that selects rowids; its values are those of the shape for each of its parts, limit and offset."""
    return _filled(_compiled(shape, 'ids'), numbers * shape.parts)


@lru_cache(maxsize=256)
def chosen_text(shape: Shape, numbers: tuple[int, ...], number: int) -> str:
    """Text that selects rows by so many rowids, which come before the values of the shape."""
    return _filled(_compiled(shape, 'chosen'), (number, *numbers))


@lru_cache(maxsize=256)
def count_text(shape: Shape, numbers: tuple[int, ...]) -> str:
    """Text that counts rows."""
    return _filled(_compiled(shape, 'count'), numbers)


@lru_cache(maxsize=256)
def _compiled(shape: Shape, what: Literal['rows', 'ids', 'chosen', 'count']) -> str:
    with fork_guard:  # a child that is forked during an import waits for that import for ever
        try:
            from . import _query_sql
        except (ImportError, MemoryError) as fault:
            hint = 'is there room in memory? Single resources, counts and computing need none of it'
            raise errors.IndexFault(f'SQLAlchemy, which makes queries, cannot be loaded: {fault}', hint=hint)
        made: str = getattr(_query_sql, f'{what}_text')(shape)
        return made


_MARKER = re.compile(r'\(__\[POSTCOMPILE_\w+\]\)')


def _filled(text: str, numbers: tuple[int, ...]) -> str:
    """Put a question mark for each value where Core left a mark for a list of them."""
    lengths = iter(numbers)
    return _MARKER.sub(lambda _: f'({", ".join("?" * next(lengths))})', text)


# --- tests that SQLite asks Python for -------------------------------------------------------------


@lru_cache(maxsize=64)
def _matcher(pattern: str) -> Callable[[str], object]:
    return re.compile(pattern).match


def _is_like(ident: str, pattern: str) -> bool:
    return isinstance(ident, str) and _matcher(pattern)(ident) is not None


_parsed = lru_cache(maxsize=64)(json.loads)


def _is_kind(name: str, bases: str | None, wanted: str) -> bool:
    """Is an exception's type, or a class above it, a wanted one: by its dotted name, or the end of it?"""
    if not isinstance(name, str):
        return False
    try:
        above = _parsed(bases) if bases else _known_bases(name)
    except (ValueError, RecursionError, TypeError):
        above = ()
    names = [name, *(each for each in above or () if isinstance(each, str))]
    return any(f'.{each}'.endswith(f'.{text}') for text in _parsed(wanted) for each in names)


@lru_cache(maxsize=64)
def _known_bases(name: str) -> tuple[str, ...]:
    """The classes above what is built in or ours; a run that was cut off raised nothing, and records none."""
    kind = getattr(errors, name, None) or getattr(builtins, name, None)
    is_one = isinstance(kind, type) and issubclass(kind, BaseException)
    return fingerprint.bases(kind) if is_one else ()  # type: ignore[arg-type]


def _mentions(message: str | None, wanted: str) -> bool:
    if not isinstance(message, str):
        return False
    folded = message.casefold()
    return any(text in folded for text in _parsed(wanted))


def _holds(args: str | None, wanted: str) -> bool:
    """Whether the args hold all pairs of one of the wanted dicts."""
    try:
        pooled = json.loads(args or '{}')
    except (ValueError, RecursionError, TypeError):
        return False
    return isinstance(pooled, dict) and any(_contains(pooled, pairs) for pairs in _parsed(wanted))


def _contains(pooled: dict[str, Any], wanted: dict[str, Any]) -> bool:
    return all(_is_same(_at(pooled, name), value) for name, value in wanted.items())


def _at(pooled: dict[str, Any], name: str) -> Any:
    """What args hold under a key, or else at the path that it may be (``model.depth``)."""
    if name in pooled or not ('.' in name or '[' in name):
        return pooled.get(name, MISSING)
    try:
        return parse(f'args.{name}').within(pooled)
    except ValueError:
        return MISSING


def _is_same(pooled: Any, wanted: Any) -> bool:
    """As canonical JSON tells values apart: True and 1, 1 and 1.0 differ."""
    if type(pooled) is not type(wanted):
        return False
    if isinstance(wanted, (str, bool)) or wanted is None:
        return bool(pooled == wanted)
    try:
        return args_json({'': pooled}) == args_json({'': wanted})
    except TypeError:  # InvalidArgs: what is held was written by hand and is no standard JSON
        return False


def _is_json(pooled: str | None, wanted: str) -> bool:
    """Is what `json_extract` gave of a list or dict that very value? It stands in a list of one."""
    try:
        return pooled is not None and _is_same(json.loads(pooled), _parsed(wanted)[0])
    except (ValueError, RecursionError, TypeError):
        return False


FUNCTIONS: dict[str, tuple[Callable[..., bool], int]] = {
    'hadrosaur_is_like': (_is_like, 2),
    'hadrosaur_is_json': (_is_json, 2),
    'hadrosaur_is_kind': (_is_kind, 3),
    'hadrosaur_mentions': (_mentions, 2),
    'hadrosaur_holds': (_holds, 2),
}
