"""Functions that SQLite calls while it runs a query, since they must agree with Python exactly.

Globs (SQLite's GLOB reads ``[!x]`` otherwise and stops at a NUL), text without regard to case (LIKE knows
that of ASCII only), and args, compared as canonical JSON. They cost 0.3 to 0.5 µs a row.
"""

from __future__ import annotations

import builtins
import json
import re
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from .. import errors, fingerprint
from ..canonical import args_json
from ..json_paths import MISSING, parse
from . import _stale

if TYPE_CHECKING:
    from collections.abc import Callable

_matcher = lru_cache(maxsize=64)(lambda pattern: re.compile(pattern).match)
_parsed = lru_cache(maxsize=64)(json.loads)


def _is_like(ident: str, pattern: str) -> bool:
    return isinstance(ident, str) and _matcher(pattern)(ident) is not None


def is_kind(name: str, bases: str | None, wanted: str) -> bool:
    """Is an exception's type, or a class above it, a wanted one: by its dotted name, or the end of it?"""
    if not isinstance(name, str):
        return False
    try:
        above = _parsed(bases) if bases else _known_bases(name)
    except (ValueError, RecursionError, TypeError):
        above = ()
    names = [name, *(base for base in above or () if isinstance(base, str))]
    return any(f'.{name}'.endswith(f'.{end}') for end in _parsed(wanted) for name in names)


@lru_cache(maxsize=64)
def _known_bases(name: str) -> tuple[str, ...]:
    """The classes above what is built in or ours; a run that was cut off raised nothing, and records none."""
    kind = getattr(errors, name, None) or getattr(builtins, name, None)
    is_exception = isinstance(kind, type) and issubclass(kind, BaseException)
    return fingerprint.bases(kind) if is_exception else ()  # type: ignore[arg-type]


def _mentions(message: str | None, wanted: str) -> bool:
    if not isinstance(message, str):
        return False
    folded = message.casefold()
    return any(part in folded for part in _parsed(wanted))


def _holds(cell: str | None, wanted: str) -> bool:
    """Whether the args hold all pairs of one of the wanted dicts."""
    try:
        args = json.loads(cell or '{}')
    except (ValueError, RecursionError, TypeError):
        return False
    return isinstance(args, dict) and any(
        all(_is_same(_at(args, name), value) for name, value in pairs.items()) for pairs in _parsed(wanted)
    )


def _at(args: dict[str, Any], name: str) -> Any:
    """What args hold under a key, or else at the path that it may be (``model.depth``)."""
    if name in args or not ('.' in name or '[' in name):
        return args.get(name, MISSING)
    try:
        return parse(f'args.{name}').within(args)
    except ValueError:
        return MISSING


def _is_same(stored: Any, wanted: Any) -> bool:
    """As canonical JSON tells values apart: True and 1, 1 and 1.0 differ."""
    if type(stored) is not type(wanted):
        return False
    if isinstance(wanted, (str, bool)) or wanted is None:
        return bool(stored == wanted)
    try:
        return args_json({'': stored}) == args_json({'': wanted})
    except TypeError:  # InvalidArgs: what is stored was written by hand and is no standard JSON
        return False


def _is_json(stored: str | None, wanted: str) -> bool:
    """Is what `json_extract` gave of a list or dict that very value? It stands in a list of one."""
    try:
        return stored is not None and _is_same(json.loads(stored), _parsed(wanted)[0])
    except (ValueError, RecursionError, TypeError):
        return False


FUNCTIONS: dict[str, tuple[Callable[..., bool], int]] = {
    'hadrosaur_is_like': (_is_like, 2),
    'hadrosaur_is_json': (_is_json, 2),
    'hadrosaur_is_changed': (_stale.is_changed, 1),
    'hadrosaur_is_kind': (is_kind, 3),
    'hadrosaur_mentions': (_mentions, 2),
    'hadrosaur_holds': (_holds, 2),
}
"""Each by its name in SQL, with the number of its arguments."""
