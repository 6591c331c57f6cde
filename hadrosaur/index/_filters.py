"""The filters of a query: what each of them takes, and the condition that it means."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from datetime import UTC, date, datetime, timedelta
from fnmatch import translate
from functools import lru_cache
from typing import TYPE_CHECKING, Any, NamedTuple

from sqlalchemy import and_, func, literal_column, not_, or_

from ..canonical import args_json
from ..json_paths import Path, below, parse
from ..records import PHASES, STATUSES
from . import _stale
from ._statements import ANY, ROW, Condition, compiled, is_in, json_part, marks, meant
from ._summary import COLLECTIONS

if TYPE_CHECKING:
    from collections.abc import Callable

    from sqlalchemy.sql import ColumnElement

MOST_VALUES = 30_000
"""Values in one query, all filters together; SQLite takes 32 766 parameters since 3.32."""

Several = str | Iterable[str]
Moment = datetime | date | timedelta | str

NEVER: ColumnElement[bool] = literal_column('0')


# --- filters ---------------------------------------------------------------------------------------


def conditions(filters: Mapping[str, Any]) -> list[Condition]:
    """What the filters that are not None ask for.

    Raises:
        ValueError: A filter's value makes no sense; the message says what does.
        TypeError: It is of a type that the filter does not take.
    """
    given = {name: value for name, value in filters.items() if value is not None}
    facts = given.pop('facts', {})
    asked: list[Condition] = []
    for name, value in given.items():
        if name == 'stale':
            asked.append(
                Condition(
                    _stale.IS_STALE if value else _stale.IS_FRESH, (_stale.declared(facts),), asked_once=True
                )
            )
        elif name == 'since':
            asked.append(_since(value, given.get('collection')))
        elif name in ('args', 'result'):
            asked += _parts_of(name, value)
        elif name in _FILTERS:
            asked.append(_FILTERS[name](value))
        elif name != 'collection':
            raise TypeError(f'there is no filter {name!r}')
    if 'collection' in given and 'since' not in given:  # else `since` names them
        is_plain = any(condition.leads == 'cause' for condition in asked)  # whose indexes are in order, too
        asked.append(_one_of('collection', texts_of('collection', given['collection']), is_plain=is_plain))
    if sum(len(condition.values) for condition in asked) > MOST_VALUES:
        raise ValueError(f'too many values: a query takes {MOST_VALUES}, all filters together')
    return asked


def texts_of(name: str, value: Several) -> list[str]:
    """The different texts that a filter was given, one or several; TypeError for anything else."""
    if not isinstance(value, Iterable):
        raise TypeError(f'{name} takes text, not {type(value).__name__}: {value!r}')
    texts = [value] if isinstance(value, str) else list(value)
    for text in texts:
        if not isinstance(text, str):
            raise TypeError(f'{name} takes text, not {type(text).__name__}: {text!r}')
    return list(dict.fromkeys(texts))


def _one_of(name: str, values: Iterable[Any], *, is_plain: bool = False) -> Condition:
    different = tuple(dict.fromkeys(values))
    return Condition(_equals(name, len(different), is_plain), different, _LEADS.get(name, ''))


@lru_cache(maxsize=64)
def _equals(name: str, number: int, is_plain: bool) -> str:
    """Text that a column equals one of some values; a plus sign tells SQLite to use no index for it."""
    column = literal_column(f'+resources.{name}') if is_plain else ROW[name]
    return compiled(is_in(column, marks(number)))


_LEADS = {'collection': 'collection', 'ident': 'ident', 'error_group': 'cause'}


def _status(value: Several) -> Condition:
    asked = texts_of('status', value)
    for word in sorted(set(asked) - set(STATUSES)):
        raise ValueError(f'unknown status {word!r}{meant(word, STATUSES)}')
    words = tuple(word for word in STATUSES if word in asked)
    return Condition(_has_status(words), leads=words[0] if words in (('pending',), ('error',)) else '')


@lru_cache(maxsize=8)
def _has_status(words: tuple[str, ...]) -> str:
    tests = [ROW.status == literal_column(f"'{word}'") for word in words]
    return compiled(tests[0] if len(tests) == 1 else or_(NEVER, *tests))


def _phase(value: Several) -> Condition:
    words = texts_of('phase', value)
    for word in words:
        if word not in PHASES:
            raise ValueError(f'unknown phase {word!r}{meant(word, PHASES)}')
    return _one_of('phase', words)


def _host(value: Several) -> Condition:
    return _one_of('host', texts_of('host', value))


def _version(value: Any) -> Condition:
    """Versions are stored as text; a whole number stands for its digits."""
    versions: list[Any] = [value] if isinstance(value, (str, int)) else list(value)
    texts = [str(version) if type(version) is int else version for version in versions]
    return _one_of('version', texts_of('version', texts))


def _attempt(value: Any) -> Condition:
    numbers = list(value) if isinstance(value, Iterable) else [value]
    for number in numbers:
        if isinstance(number, bool) or not isinstance(number, int):
            raise TypeError(f'attempt takes whole numbers, not {number!r}')
    return _one_of('attempt', numbers)


_IS_LIKE = func.hadrosaur_is_like(ROW.ident, ANY)
_IDENT_LIKE = compiled(_IS_LIKE)
_IDENT_HOLDS = compiled(and_(func.instr(ROW.ident, ANY) > NEVER, _IS_LIKE))
_IDENT_BELOW = compiled(and_(ROW.ident >= ANY, ROW.ident < ANY, _IS_LIKE))


def _ident(value: Several | int) -> Condition:
    is_number = isinstance(value, int) and not isinstance(value, bool)
    idents = [str(value)] if is_number else texts_of('ident', value)  # type: ignore[arg-type]
    if not any(set(ident) & set('*?[') for ident in idents):
        return _one_of('ident', idents)
    pattern = '|'.join(map(translate, idents))
    if len(idents) > 1:
        return Condition(_IDENT_LIKE, (pattern,))
    if head := _HEAD.match(idents[0]):
        return Condition(_IDENT_BELOW, (head[0], _after(head[0]), pattern), 'ident')
    inside = max(re.split(r'[*?]', idents[0].partition('[')[0]), key=len)  # what every match holds
    return Condition(_IDENT_HOLDS, (inside, pattern))


_HEAD = re.compile(r'[^*?\[\U0010ffff]+')  # nothing sorts after what begins with the last character


def _after(head: str) -> str:
    """The least text that sorts after all that begin with ``head``."""
    last = ord(head[-1])
    following = 0xE000 if last == 0xD7FF else last + 1  # halves of surrogate pairs are no characters
    return head[:-1] + chr(following)


# Each step looks up the next type in its index, and one of its rows: as many steps as there are types.
_OF_TYPE = compiled(
    is_in(
        ROW.error_type,
        """
    WITH RECURSIVE each_type (name) AS (
        SELECT min(error_type) FROM resources
        UNION ALL
        SELECT (SELECT min(error_type) FROM resources WHERE error_type > name) FROM each_type
        WHERE name IS NOT NULL
    )
    SELECT name FROM each_type
    WHERE name IS NOT NULL AND hadrosaur_is_kind(
        name,
        (SELECT error_bases FROM resources WHERE error_type = name AND error_bases IS NOT NULL
         ORDER BY finished_at DESC LIMIT 1),
        ?
    )""",
    )
)


def _error_type(value: Several) -> Condition:
    return Condition(_OF_TYPE, (json.dumps(texts_of('error_type', value)),), 'cause')


def _error_group(value: Several) -> Condition:
    """Failures without a fingerprint are a group by their type, as `error_groups` lists them."""
    groups = texts_of('error_group', value)
    if all(re.match(r'f\d+:', group) for group in groups):
        return _one_of('error_group', groups)
    return Condition(_of_group_or_type(len(groups)), (*groups, *groups), 'cause')


@lru_cache(maxsize=16)
def _of_group_or_type(number: int) -> str:
    groups = marks(number)
    of_type = and_(
        ROW.status == literal_column("'error'"), ROW.error_group.is_(None), is_in(ROW.error_type, groups)
    )
    return compiled(or_(is_in(ROW.error_group, groups), of_type))


_MENTIONS = compiled(and_(ROW.error.is_not(None), func.hadrosaur_mentions(ROW.error, ANY)))


def _error(value: Several) -> Condition:
    return Condition(_MENTIONS, (json.dumps([text.casefold() for text in texts_of('error', value)]),))


_UNFINISHED = ROW.finished_at.is_(None)


def _since(value: Moment, collections: Several | None) -> Condition:
    moment = _moment('since', value)
    names = None if collections is None else texts_of('collection', collections)
    return Condition(_is_since(None if names is None else len(names)), (*(names or ()), moment) * 2, 'since')


@lru_cache(maxsize=16)
def _is_since(number: int | None) -> str:
    """Both alternatives name the collections, so that the index of (collection, time) answers each."""
    within = is_in(ROW.collection, COLLECTIONS if number is None else marks(number))
    finished = and_(within, ROW.finished_at >= ANY)
    return compiled(or_(finished, and_(within, _UNFINISHED, ROW.started_at >= ANY)))


_UNTIL = compiled(or_(ROW.finished_at <= ANY, and_(_UNFINISHED, ROW.started_at <= ANY)))


def _until(value: Moment) -> Condition:
    moment = _moment('until', value, at_end=True)
    return Condition(_UNTIL, (moment, moment))


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


def _bound(name: str, test: ColumnElement[bool], unit: str) -> Callable[[Any], Condition]:
    """A number that a column is at least, or at most."""
    text = compiled(test)

    def read(value: float | timedelta) -> Condition:
        try:
            number = value.total_seconds() if isinstance(value, timedelta) else float(value)
        except (TypeError, ValueError):
            raise ValueError(f'{name} takes a number of {unit}, not {value!r}')
        return Condition(text, (number,))

    return read


_SECONDS = 'seconds, or a timedelta'
_FILTERS: dict[str, Callable[[Any], Condition]] = {
    'status': _status,
    'ident': _ident,
    'error_type': _error_type,
    'error_group': _error_group,
    'error': _error,
    'phase': _phase,
    'host': _host,
    'version': _version,
    'attempt': _attempt,
    'until': _until,
    'min_duration': _bound('min_duration', ROW.duration >= ANY, _SECONDS),
    'max_duration': _bound('max_duration', ROW.duration <= ANY, _SECONDS),
    'min_memory': _bound('min_memory', ROW.max_rss >= ANY, 'bytes'),
    'max_memory': _bound('max_memory', ROW.max_rss <= ANY, 'bytes'),
}


# --- parts of args and results ---------------------------------------------------------------------

OPERATORS = ('=', '!=', '<', '<=', '>', '>=', 'glob')


class Test(NamedTuple):
    """One comparison; ``kind`` is the JSON type that is compared, and decides the SQL with the operator."""

    operator: str
    kind: str  # number, text, true, false, null or json
    value: Any


def is_comparison(wanted: Any) -> bool:
    """Is it a tuple of operators and values, rather than a value, or a list of several?"""
    first = wanted[0] if isinstance(wanted, tuple) and wanted else None
    return isinstance(first, str) and first in OPERATORS


def _parts_of(name: str, value: Any) -> list[Condition]:
    """Conditions on args or results; args that are plain equalities are compared as canonical JSON."""
    if not isinstance(value, Mapping):
        if name == 'args' and isinstance(value, Iterable) and not isinstance(value, str):
            return [_args(list(value))]
        example = f"{name}={{'name': ('>', 0.9)}}"
        raise TypeError(f'{name} takes a dict of paths and what is there, such as {example}, not {value!r}')
    compared = {key: each for key, each in value.items() if name != 'args' or is_comparison(each)}
    plain = {key: each for key, each in value.items() if key not in compared}
    lists = {key: plain.pop(key) for key, each in list(plain.items()) if isinstance(each, list)}
    asked = [_args([{key: item} for item in (*items, items)]) for key, items in lists.items()]
    if plain or (name == 'args' and not value):
        asked.append(_args([plain]))
    if compared:
        spec, bound = [], []
        for key, each in compared.items():
            path = path_of(name, key)
            groups = tests_of(path, each)
            spec.append((path.in_sql, tuple(tuple(test[:2] for test in group) for group in groups)))
            tests = (test for group in groups for test in group)
            bound += [test.value for test in tests if test.kind not in ('true', 'false', 'null')]
        asked.append(Condition(_parts(name, tuple(spec)), tuple(bound)))
    return asked


def path_of(column: str, name: Any) -> Path:
    """The path that a key of a filter names: ``score``, ``model.depth``; ``''`` is a key as well."""
    if not isinstance(name, str):
        raise TypeError(f'{column} takes keys that are text, not {name!r}')
    return parse(f'{column}.{name}') if name else below(column, name)


_HOLDS = func.hadrosaur_holds(ROW.args, ANY)
_ARGS = compiled(_HOLDS)
_ARGS_WITH_PAIR = compiled(and_(func.instr(ROW.args, ANY) > NEVER, _HOLDS))  # the cheap test stands first


def _args(wanted: list[Mapping[str, Any]]) -> Condition:
    """What the args hold: all pairs of one of these."""
    texts = [args_json(dict(each)) for each in wanted]
    if len(texts) == 1 and wanted[0] and not any('.' in name or '[' in name for name in wanted[0]):
        # Canonical args hold each pair in these very characters.
        pairs = [args_json({name: each})[1:-1] for name, each in wanted[0].items()]
        return Condition(_ARGS_WITH_PAIR, (max(pairs, key=len), f'[{texts[0]}]'))
    return Condition(_ARGS, (f'[{",".join(texts)}]',))


def tests_of(path: Path, wanted: Any) -> list[list[Test]]:
    """What a filter asks of a path: one of these groups, all of whose tests must hold.

    A value: equal. A list: equal to one of its items, or to the list. A tuple of an operator and a value, or
    of several in turn: all of these hold.

    Raises ValueError or TypeError (InvalidArgs) for what cannot be compared.
    """
    if is_comparison(wanted):
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
    kind = kind_of(value)
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


def kind_of(value: Any) -> str:
    """The JSON type of a value, with a word for each of its constants."""
    if value is None or isinstance(value, bool):
        return json.dumps(value)
    return 'number' if isinstance(value, (int, float)) else 'text' if isinstance(value, str) else 'json'


@lru_cache(maxsize=256)
def _parts(column: str, spec: tuple[Any, ...]) -> str:
    """For each path one of its groups, of which all tests hold."""
    return compiled(
        and_(
            *(
                or_(*(and_(*(_compared(column, path, *test) for test in group)) for group in groups))
                for path, groups in spec
            )
        )
    )


def _compared(column: str, path: str, operator: str, kind: str) -> ColumnElement[bool]:
    cell = json_part(column, path)
    kinds = {'number': ('integer', 'real'), 'json': ('object', 'array')}.get(kind, (kind,))
    is_of_type = is_in(json_part(column, path, 'json_type'), ', '.join(f"'{each}'" for each in kinds))
    if operator == '!=':
        return not_(_compared(column, path, '=', kind))  # NULL, and no row, where nothing is there
    if kind in ('true', 'false', 'null'):
        return is_of_type
    if kind == 'json':
        return and_(is_of_type, func.hadrosaur_is_json(cell, ANY))
    if operator == 'glob':
        return and_(is_of_type, func.hadrosaur_is_like(cell, ANY))
    return and_(is_of_type, cell.op(operator, is_comparison=True)(ANY))
