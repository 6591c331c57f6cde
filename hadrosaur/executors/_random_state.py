"""Random generators that travel with a function: each worker would start at the same numbers."""

from __future__ import annotations

import random
from typing import Any

from ..errors import warn
from ..loaded import loaded

_told: set[tuple[str, str, tuple[str, ...]]] = set()


def warn_of(function: Any) -> None:
    """Warn, once for each function, of generators in what is sent with it: closure, defaults, own globals."""
    names = tuple(sorted(name for name, value in _sent_with(function) if _is_generator(value)))
    if not names:
        return
    name = getattr(function, '__qualname__', repr(function))
    known = (str(getattr(function, '__module__', '')), name, names)
    if known not in _told:
        _told.add(known)
        warn(
            f'a copy of the random generator {", ".join(map(repr, names))} goes to each worker with the '
            f'function {name}, so that all begin with the same numbers; make one inside the function'
        )


def _sent_with(function: Any) -> list[tuple[str, Any]]:
    function = getattr(function, '__wrapped__', None) or getattr(function, '__func__', function)
    code = getattr(function, '__code__', None)
    if code is None:
        return list(getattr(function, '__dict__', {}).items())  # a callable object
    arguments = reversed(code.co_varnames[: code.co_argcount])
    found = list(zip(arguments, reversed(function.__defaults__ or ()), strict=False))
    found += list((function.__kwdefaults__ or {}).items())
    for name, cell in zip(code.co_freevars, function.__closure__ or (), strict=True):
        try:
            found.append((name, cell.cell_contents))
        except ValueError:  # not bound yet
            continue
    if function.__module__ == '__main__':  # else the worker imports the module, and makes its own
        found += [(name, function.__globals__.get(name)) for name in code.co_names]
    return found


def _is_generator(value: Any) -> bool:
    """Also a method of one, such as ``random.random`` of ``from random import random``."""
    of = getattr(loaded('numpy'), 'random', None)
    kinds = (random.Random, getattr(of, 'Generator', ()), getattr(of, 'RandomState', ()))
    owner = getattr(value, '__self__', None) if callable(value) else None
    return any(isinstance(each, kinds) for each in (value, owner))
