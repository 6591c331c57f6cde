"""Which failed runs are retried: `retry_on=` of a collection, exception classes or names."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from . import errors
from .fingerprint import leaves, name_of_type

if TYPE_CHECKING:
    from collections.abc import Iterable


def names(given: Any) -> tuple[str, ...] | None:
    """Convert `retry_on` to names, since a worker may not have the classes; None: every error.

    A name is dotted (``requests.exceptions.Timeout``) or the class's own (``Timeout``). Raises ValueError for
    anything else.
    """
    if given is None:
        return None
    several: Iterable[Any] = given if isinstance(given, (tuple, list, set, frozenset)) else (given,)
    found = tuple(map(_name, several))
    if not found:
        raise ValueError('retry_on names no exception; leave it out to try again after any, or retries=0')
    return found


def _name(one: Any) -> str:
    if isinstance(one, type) and issubclass(one, BaseException):
        return name_of_type(one)
    if isinstance(one, str) and all(part.isidentifier() for part in str.__str__(one).split('.')):
        return str.__str__(one)
    raise ValueError(f'retry_on must hold exception classes, or names of such, not {one!r}')


def is_wanted(retry_on: tuple[str, ...] | None, error: BaseException) -> bool:
    """Whether an error is one of these or of a subclass; in an exception group, all errors must be."""
    if retry_on is None:
        return True
    return _is_below(type(error), retry_on) or all(_is_below(type(leaf), retry_on) for leaf in leaves(error))


def is_wanted_by_name(retry_on: tuple[str, ...] | None, error_type: str) -> bool:
    """The same for an error of which only the name is known, such as TimedOut or WorkerDied."""
    if retry_on is None:
        return True
    known = getattr(errors, error_type, None)
    if isinstance(known, type):
        return _is_below(known, retry_on)
    return error_type in retry_on or error_type.rpartition('.')[2] in retry_on


def _is_below(kind: type[BaseException], wanted: tuple[str, ...]) -> bool:
    return any(name_of_type(each) in wanted or each.__name__ in wanted for each in kind.__mro__)
