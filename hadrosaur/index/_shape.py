"""The shape of a query: what decides its SQL text, and nothing of the values that are asked for."""

from __future__ import annotations

from typing import Any, NamedTuple

EXACT = frozenset({'collection', 'ident', 'error_group', 'phase', 'host', 'version', 'attempt'})
"""Kinds that take a list of values, one of which the column must equal."""

_LEADING = {
    'collection', 'ident', 'error_group', 'error_type named', 'error_group or_type', 'since', 'since within',
    'status pending', 'status error', 'ident below',
}  # fmt: skip
"""Kinds for which there is an index that finds the rows."""


class Condition(NamedTuple):
    """One test that a row must pass."""

    kind: str
    values: tuple[Any, ...]
    lists: tuple[int, ...] = ()  # of values that stand in a list: how many, for each list


class Shape(NamedTuple):
    """All that decides the text of a query."""

    kinds: tuple[str, ...]
    order: str
    is_backward: bool = False

    @property
    def parts(self) -> int:
        """Of how many parts the text is that finds rows: the finished ones by their index, and the others."""
        return 2 if self.order.endswith('finished_at') and not _LEADING & set(self.kinds) else 1

    @property
    def is_led(self) -> bool:
        """Is there an index that finds the rows, and holds no more than that?"""
        leading = _LEADING & set(self.kinds) - {'collection'}
        is_whole = 'collection' in self.kinds and self.order == '-finished_at'
        return bool(leading) and not (leading == {'status error'} and is_whole)
