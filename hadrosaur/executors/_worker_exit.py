"""How a worker ends: as a program ends, for all that is the user's, at a third of what that costs.

Threads are waited for, exit handlers run, what modules and functions hold is finalised (files are written,
temporary folders removed). What the interpreter does after that takes apart thousands of objects which were
there before any of the user's code: ten milliseconds, and for each page of memory a copy, since a worker
shares them with its template. Where there is anything that Python does not know of (a library that came with
an extension module and may have exit handlers of its own, a thread that goes on) it ends in full.
"""

from __future__ import annotations

import atexit
import contextlib
import gc
import os
import sys
import threading
import weakref
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable


class Leaving:
    """What was there when this was made, which is before the user's code came."""

    def __init__(self) -> None:
        self._modules = frozenset(sys.modules)
        self._libraries = _libraries()
        self._names = frozenset(vars(sys.modules['__main__']))

    def end(self) -> None:
        """End the process, if that can be done here; else return, to end in full."""
        if self._libraries is None or _libraries() != self._libraries:
            return
        threading._shutdown()  # type: ignore[attr-defined]
        atexit._run_exitfuncs()
        if threading.active_count() > 1:
            return
        own = [_forgotten(name) for name in list(sys.modules) if name not in self._modules]
        gc.collect()  # takes those that nobody refers to, while what they hold still has all that it needs
        for module in (known() for known in reversed(own)):
            if module is not None:
                _empty(vars(module))
        _empty(vars(sys.modules['__main__']), but=self._names)
        gc.collect()
        for stream in (sys.stdout, sys.stderr):
            with contextlib.suppress(Exception):  # anything may stand there
                stream.flush()
        os._exit(0)


def _forgotten(name: str) -> Callable[[], Any]:
    """A weak reference to a module that is taken out of the list of modules."""
    try:
        return weakref.ref(sys.modules.pop(name))
    except TypeError:  # anything may stand there
        return lambda: None


def _libraries() -> frozenset[str] | None:
    """The libraries that are loaded, but Python's own; None where that cannot be known."""
    try:
        with open('/proc/self/maps', encoding='utf-8', errors='replace') as maps:
            paths = {line.partition('/')[2].rstrip('\n') for line in maps if '.so' in line}
    except OSError:
        return None
    return frozenset(path for path in paths if '/lib-dynload/' not in path)


def _empty(names: dict[str, Any], but: frozenset[str] = frozenset()) -> None:
    """As Python empties a module: private names first, so that the rest has them no longer but itself."""
    for is_private in (True, False):
        for name in list(names):
            if name not in but and name != '__builtins__' and name.startswith('_') == is_private:
                names[name] = None
