"""The shape of a query: what decides its SQL text, and nothing of the values that are asked for."""

from __future__ import annotations

from typing import NamedTuple

EXACT = frozenset({'collection', 'ident', 'error_group'})
"""Kinds that take a list of values, one of which the column must equal."""

_LEADING = EXACT | {
    'error_type named', 'error_group or_type', 'since', 'since within', 'status pending', 'status error',
    'ident below',
}  # fmt: skip
"""Kinds for which there is an index that finds the rows."""


class Shape(NamedTuple):
    """All that decides the text of a query."""

    kinds: tuple[str, ...]
    order: str

    @property
    def is_of_the_newest(self) -> bool:
        """Whether it asks for the last ones of everything, which are among the last of each collection."""
        return self.order == '-finished_at' and not _LEADING & set(self.kinds)
