"""The filters, columns and order of an address, as `Project.query` takes them."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, NamedTuple

from ..errors import HadrosaurError
from ..filters import comparison, point_in_time, span, wanted
from ..json_paths import is_path, parse
from ..records import PUBLIC_COLUMNS, STATUSES
from .addresses import TWIN, with_params

if TYPE_CHECKING:
    from collections.abc import Mapping

    from starlette.datastructures import QueryParams

    from ..index import Query
    from ..project import Project

_SEVERAL = {'status': 'status', 'ident': 'ident', 'error_type': 'type', 'group': 'cause', 'error': 'error'}
_PARTS = ('args', 'result')
_TIMES = ('since', 'until')
_SPANS = ('min_duration', 'max_duration')
_SIZES = ('min_memory', 'max_memory')
FILTERS = (*_SEVERAL, *_PARTS, *_TIMES, *_SPANS, *_SIZES, 'stale')
ORDER = '-finished_at'


class NotUnderstood(HadrosaurError):
    """An address asks for what makes no sense."""


class Chip(NamedTuple):
    """One filter, and the address without it."""

    name: str
    value: str
    without: str


class Asked:
    """What an address asks of a collection. Raises NotUnderstood.

    Attributes:
        filters: For `Project.query`, without order and limit.
        order: For `Project.query`.
        columns: Parts and columns that were chosen; empty: the usual ones.
        after: Where the page begins, for `Project.query`; None: at the beginning.
    """

    def __init__(self, path: str, params: QueryParams) -> None:
        self._path = path
        self._params = [(name, value) for name, value in params.multi_items() if value != '']
        self._search()
        self.order = self.one('sort') or ORDER
        try:
            self.filters = self._filters()
            self.columns = [as_column(text, {}) for text in self._all('col')]
            self.after = _after(self.one('after'))
        except (ValueError, TypeError, RecursionError) as error:
            raise NotUnderstood(str(error))

    def query(self, project: Project, name: str | None, **more: Any) -> Query:
        """The rows that pass the filters. Raises NotUnderstood, UnknownCollection."""
        try:
            return project.query(name, **{**self.filters, **more})
        except (ValueError, TypeError) as error:
            raise NotUnderstood(str(error))

    def one(self, name: str) -> str | None:
        """The last value of a parameter."""
        return next((value for key, value in reversed(self._params) if key == name), None)

    def _all(self, name: str) -> list[str]:
        return list(dict.fromkeys(value for key, value in self._params if key == name))

    def _search(self) -> None:
        """The search box: comparisons of args and results become filters, the rest is part of an ident."""
        text = self.one('q')
        self._params = [(name, value) for name, value in self._params if name != 'q']
        words = []
        for word in (text or '').split():
            name, _, rest = word.partition(':')
            if is_path(word) and any(sign in word for sign in '=<>'):
                column, _, test = word.partition('.')
                self._params.append((column, test))
            elif name in _SEVERAL and rest:
                self._params.append((name, rest))
            else:
                words.append(word)
        if words:
            glob = ' '.join(words)
            is_glob = any(sign in glob for sign in '*?[')
            self._params.append(('ident', glob if is_glob else f'*{glob}*'))

    def _filters(self) -> dict[str, Any]:
        found: dict[str, Any] = {}
        for name in _SEVERAL:
            if values := self._all(name):
                found['error_group' if name == 'group' else name] = values
        for name in _PARTS:
            if values := self._all(name):
                found[name] = wanted(map(comparison, values))
        for name in _TIMES:
            if (text := self.one(name)) is not None:
                found[name] = point_in_time(text)
        for name in _SPANS:
            if (text := self.one(name)) is not None:
                found[name] = span(text)
        for name in _SIZES:
            if (text := self.one(name)) is not None:
                found[name] = float(text)
        if (text := self.one('stale')) is not None:
            found['stale'] = text not in ('0', 'no')
        if unknown := set(found.get('status', ())) - set(STATUSES):
            raise ValueError(f'there is no status {sorted(unknown)[0]!r}')
        return found

    @property
    def chips(self) -> list[Chip]:
        """The filters, each with the address that leaves it out."""
        found = []
        for place, (name, value) in enumerate(self._params):
            if name in FILTERS:
                rest = [pair for at, pair in enumerate(self._params) if at != place and pair[0] != 'after']
                label = f'{name}.{value}' if name in _PARTS else value
                word = '' if name in _PARTS else _SEVERAL.get(name, name.replace('_', ' '))
                found.append(Chip(word, label, with_params(self._path, rest)))
        return found

    def kept(self, *but: str) -> list[tuple[str, str]]:
        """The parameters, for a form that adds to them."""
        return [(name, value) for name, value in self._params if name not in ('after', *but)]

    def address(self, **changes: Any) -> str:
        """The address with some parameters replaced (None: without), from the first page on."""
        rest = [pair for pair in self._params if pair[0] not in changes and pair[0] != 'after']
        return with_params(self._path, [*rest, *changes.items()])

    @property
    def twin(self) -> str:
        """The address of the same as data."""
        return with_params(self._path + TWIN, self._params)

    def sorted_by(self, name: str) -> str:
        """The address that sorts by a column; downwards first, the other way round when it is asked again."""
        return self.address(sort=name if self.order == f'-{name}' else f'-{name}')


def as_column(text: str, named: Mapping[str, str]) -> str:
    """A column, or the path of a part, which may go by a declared name. Raises NotUnderstood."""
    path = named.get(text, text)
    if not is_column(path):
        raise NotUnderstood(f'there is no column {text!r}')
    return path


def is_column(text: str) -> bool:
    """Is it a column, or a part that can be asked for?"""
    try:
        return text in PUBLIC_COLUMNS or bool(parse(text))
    except ValueError:
        return False


def _after(text: str | None) -> tuple[Any, str, str] | None:
    if text is None:
        return None
    found = json.loads(text)
    is_key = isinstance(found, list) and len(found) == 3 and all(isinstance(each, str) for each in found[1:])
    is_long = is_key and isinstance(found[0], int) and abs(found[0]) >= 1 << 63  # for SQLite
    if not is_key or is_long or not isinstance(found[0], (str, int, float, type(None))):
        raise ValueError(f'{text!r} is no place to go on from')
    return (found[0], found[1], found[2])
