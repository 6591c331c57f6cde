"""What a program has set in its interpreter, for its workers: a function finds there what it finds inline.

Only what has a value that travels, and holds for the whole process. Modules that the program has not loaded
have no settings, and are not loaded for this.
"""

from __future__ import annotations

import contextlib
import gc
import re
import sys
import warnings
from typing import Any

from ..loaded import loaded


def of_this_process() -> dict[str, Any]:
    """What is set now, as what `marshal` takes."""
    found: dict[str, Any] = {
        'argv': [str(word) for word in getattr(sys, 'argv', ())],
        'recursion': sys.getrecursionlimit(),
        'switching': sys.getswitchinterval(),
        'digits': sys.get_int_max_str_digits(),
        'collecting': (gc.isenabled(), gc.get_threshold()),
        'warnings': [_of_filter(*given) for given in warnings.filters],
    }
    if socket := loaded('socket'):
        found['socket'] = socket.getdefaulttimeout()
    if decimal := loaded('decimal'):
        context = _of_context(decimal.getcontext())
        if context != _of_context(decimal.DefaultContext):  # else nobody needs to load it
            found['decimal'] = context
    if locale := loaded('locale'):
        found['locale'] = locale.setlocale(locale.LC_ALL)
    if multiprocessing := loaded('multiprocessing'):
        found['starting'] = multiprocessing.get_start_method(allow_none=True)
    return found


def take_over(found: dict[str, Any]) -> None:
    """Set the same here. What another version or machine refuses stays as it is."""
    sys.argv[:] = found['argv']
    sys.setrecursionlimit(found['recursion'])
    sys.setswitchinterval(found['switching'])
    sys.set_int_max_str_digits(found['digits'])
    enabled, thresholds = found['collecting']
    (gc.enable if enabled else gc.disable)()
    gc.set_threshold(*thresholds)
    here = [_of_filter(*given) for given in warnings.filters]
    if here != found['warnings']:
        warnings.filters[:] = [_filter(given) for given in found['warnings'] if given is not None]  # type: ignore[index]
        warnings._filters_mutated()  # type: ignore[attr-defined]
    if found.get('socket') is not None:
        import socket

        socket.setdefaulttimeout(found['socket'])
    if found.get('decimal'):
        import decimal

        decimal.setcontext(_context(decimal, found['decimal']))
    if found.get('locale') not in (None, 'C'):
        import locale

        with contextlib.suppress(locale.Error):
            locale.setlocale(locale.LC_ALL, found['locale'])
    if found.get('starting'):
        import multiprocessing

        multiprocessing.set_start_method(found['starting'], force=True)


def _of_filter(action: str, message: Any, category: Any, module: Any, line: int) -> Any:
    """A filter of warnings; None for one of a class that is not Python's own, or of no pattern's."""
    patterns = [given.pattern if isinstance(given, re.Pattern) else given for given in (message, module)]
    is_plain = all(given is None or isinstance(given, str) for given in patterns)
    if getattr(category, '__module__', '') != 'builtins' or not is_plain:
        return None
    return (action, patterns[0], category.__name__, patterns[1], line)


def _filter(given: Any) -> Any:
    import builtins

    action, message, category, module, line = given
    text = None if message is None else re.compile(message, re.I)
    return (action, text, getattr(builtins, category), None if module is None else re.compile(module), line)


_NUMBERS = ('prec', 'rounding', 'Emin', 'Emax', 'capitals', 'clamp')


def _of_context(context: Any) -> Any:
    traps = sorted(signal.__name__ for signal, is_set in context.traps.items() if is_set)
    return ([getattr(context, name) for name in _NUMBERS], traps)


def _context(decimal: Any, given: Any) -> Any:
    values, traps = given
    named = dict(zip(_NUMBERS, values, strict=True))
    return decimal.Context(**named, traps=[getattr(decimal, name) for name in traps])
