"""What a batch is asked for, one by one, in whatever form it is given."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any, NamedTuple

from ..errors import InvalidArgs
from ..handle import Resource
from ..records import Entry


class Item(NamedTuple):
    ident: Any
    args: Any


def items_of(idents: Iterable[Any], args: Mapping[str, Any] | None) -> Iterator[Item]:
    """Yield items from idents, (ident, args) pairs, or a mapping of ident to args; checked at the call.

    Raises:
        TypeError: ``idents`` is one text, one resource or not iterable, or ``args`` is no mapping.
    """
    if isinstance(idents, (str, bytes, Entry, Resource)):
        what = 'text' if isinstance(idents, (str, bytes)) else 'resource'
        shown = repr(idents) if what == 'text' else repr(idents.ident)  # type: ignore[union-attr]
        raise TypeError(
            f'fetch_many takes many idents, not one {what}; for one, write [{shown}] or call fetch'
        )
    if not isinstance(idents, Iterable) and not hasattr(type(idents), '__getitem__'):
        raise TypeError(f'fetch_many takes an iterable of idents, not {idents!r}')
    if args is not None and not isinstance(args, Mapping):
        raise InvalidArgs(f'args must be a dict or None, not {args!r}')
    return _items(idents, None if args is None else dict(args))


def _items(idents: Iterable[Any], args: dict[str, Any] | None) -> Iterator[Item]:
    pairs: Iterable[Any] = idents.items() if isinstance(idents, Mapping) else idents
    for item in pairs:
        if isinstance(item, (Entry, Resource)):
            yield Item(item.ident, args)
        elif isinstance(item, (tuple, list)) and len(item) == 2:
            yield Item(item[0], item[1] if item[1] is not None or isinstance(item[0], Mapping) else args)
        elif isinstance(item, Mapping):
            yield Item(item, None)
        else:
            yield Item(item, args)
