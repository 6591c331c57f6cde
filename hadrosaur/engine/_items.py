"""What a batch is asked for, one by one, in whatever form it is given."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any, NamedTuple

from ..handle import Resource
from ..records import Entry


class Item(NamedTuple):
    ident: Any
    args: Any


def items_of(idents: Iterable[Any], args: dict[str, Any] | None) -> Iterator[Item]:
    """Idents, (ident, args) pairs, or a mapping of ident to args; one at a time."""
    if isinstance(idents, (str, bytes)):
        raise TypeError(
            f'fetch_many takes many idents, not one text; for one, write [{idents!r}] or call fetch'
        )
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
