"""Args as the ident of a resource: ``{'C': 1, 'kernel': 'rbf'}`` is named ``C=1,kernel=rbf``.

The text is found again years later, so it never changes (golden vectors in tests/test_args_as_idents.py):

- ``key=value`` in the order of the keys' code points, joined by ``,``.
- A key, and a value that is text, stands for itself if it is made of ``A-Z a-z 0-9 _ . + @ -`` alone; a value
  that would read as a JSON number, ``true``, ``false`` or ``null`` does not. All else is canonical JSON.
- Over 120 characters: the first 80, ``~``, and the first 16 hex digits of the args hash.

So different args never have one ident: where a key or value ends can always be told, and ``~`` stands only in
JSON text, whose closing quote would follow it.
"""

from __future__ import annotations

import itertools
import json
import math
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, overload

from .canonical import args_hash, args_json, ident_text
from .errors import InvalidArgs, InvalidIdent

Ident = str | int | Mapping[str, Any]

LONGEST = 120
"""Characters of an ident that is made of args; a terminal shows it in two lines."""

KEPT_OF_LONG, HASH_DIGITS = 80, 16

_BARE = re.compile(r'[A-Za-z0-9_.+@-]+').fullmatch
_LITERAL = re.compile(r'-?(?:0|[1-9][0-9]*)(?:\.[0-9]+)?(?:[eE][+-]?[0-9]+)?|true|false|null').fullmatch


def ident_of(args: Mapping[str, Any]) -> str:
    """Return the ident that `fetch` makes of a dict of args, such as ``C=1,kernel=rbf``.

    Raises:
        InvalidArgs: The args are not JSON-serialisable.
        InvalidIdent: The dict is empty.
    """
    return named(args, None)[0]


def named(ident: object, args: object, collection: str = '') -> tuple[str, str | None]:
    """Return an ident as text and its args as canonical JSON, None where there are none.

    A mapping in the place of the ident is the args. Raises InvalidIdent or InvalidArgs.
    """
    if type(ident) is str or not isinstance(ident, Mapping) or hasattr(type(ident), 'ident'):  # a Resource
        text = ident_text(ident, collection)
        return text, None if args is None else args_json(args, collection, text)
    if args is not None:
        raise InvalidArgs(
            f'args are given twice: as the ident {_brief(ident)}, and as args {_brief(args)}',
            collection=collection,
            hint='give them once: as the ident, or as args',
        )
    given = args_json(dict(ident), collection)
    if given == '{}':
        raise InvalidIdent(
            'an empty dict of args names no resource',
            collection=collection,
            ident=ident,
            hint='give at least one arg, or an ident that is text',
        )
    pairs = (f'{_word(key, is_key=True)}={_word(value)}' for key, value in json.loads(given).items())
    text = ','.join(pairs)
    if len(text) > LONGEST:
        digits = args_hash(given).partition(':')[2][:HASH_DIGITS]
        text = f'{text[:KEPT_OF_LONG]}~{digits}'
    return text, given


def _word(value: Any, *, is_key: bool = False) -> str:
    if isinstance(value, str) and _BARE(value) and (is_key or not _LITERAL(value)):
        return value
    return args_json({'': value})[len('{"":') : -1]


def _brief(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f'{text[:59]}…'


class grid(Sequence[dict[str, Any]]):  # noqa: N801  it is called like a function
    """All combinations of some values, as a lazy sequence of args dicts; the last name varies fastest.

    >>> list(grid(C=[1, 10], kernel=['rbf', 'poly']))[1]
    {'C': 1, 'kernel': 'poly'}

    Args:
        axes: Values by name, for names that are not valid keywords.
        more: The same as keywords. Text, and anything that is not iterable, is a single value.
    """

    def __init__(self, axes: Mapping[str, Any] | None = None, /, **more: Any) -> None:
        known = dict(axes or {})
        if twice := known.keys() & more.keys():
            raise TypeError(f'grid() got {sorted(twice)[0]!r} twice')
        self._axes = {name: _values(values) for name, values in {**known, **more}.items()}

    def __len__(self) -> int:
        return math.prod(map(len, self._axes.values())) if self._axes else 0

    def __iter__(self) -> Any:
        combined = itertools.product(*self._axes.values()) if self._axes else ()
        return (dict(zip(self._axes, values, strict=True)) for values in combined)

    @overload
    def __getitem__(self, index: int) -> dict[str, Any]: ...
    @overload
    def __getitem__(self, index: slice) -> list[dict[str, Any]]: ...
    def __getitem__(self, index: int | slice) -> dict[str, Any] | list[dict[str, Any]]:
        if isinstance(index, slice):
            return [self[each] for each in range(len(self))[index]]
        left = range(len(self))[index]
        picked = {}
        for name, values in reversed(self._axes.items()):
            left, place = divmod(left, len(values))
            picked[name] = values[place]
        return {name: picked[name] for name in self._axes}

    def __repr__(self) -> str:
        return f'grid({", ".join(f"{name}={values!r}" for name, values in self._axes.items())})'


def _values(given: Any) -> list[Any]:
    if isinstance(given, (str, bytes, Mapping)) or not isinstance(given, Iterable):
        return [given]
    try:
        return list(given)
    except TypeError:  # an array of no dimension calls itself iterable
        return [given]
