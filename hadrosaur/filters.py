"""Parse filters as people write them on the command line and in addresses: ``2h``, ``score>0.9``."""

from __future__ import annotations

import json
import re
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterable

_UNITS = {'s': 1.0, 'm': 60.0, 'h': 3600.0, 'd': 86400.0, 'w': 604800.0}
_SPAN = re.compile(r'(\d+(?:\.\d+)?)\s*([smhdw])').fullmatch
_COMPARISON = re.compile(r'([^=<>!]+)(!=|<=|>=|=|<|>)(.*)', re.DOTALL).fullmatch


def span(text: str) -> float:
    """Parse ``90``, ``90s``, ``5m``, ``2h`` or ``7d`` into seconds. Raises ValueError."""
    match = _SPAN(text) or _SPAN(f'{text}s')
    if match is None:
        raise ValueError(f'{text!r} is no duration: write 90, 90s, 5m, 2h or 7d')
    return float(match[1]) * _UNITS[match[2]]


def point_in_time(text: str) -> timedelta | str:
    """Parse ``2h`` into a timedelta; return ISO text unchanged, which the Project reads as local time."""
    if match := _SPAN(text):
        try:
            return timedelta(seconds=float(match[1]) * _UNITS[match[2]])
        except OverflowError:
            raise ValueError(f'{_short(text)!r} is longer ago than times go back')
    try:
        datetime.fromisoformat(text)
    except ValueError:
        raise ValueError(f'{text!r} is no time: write 2026-01-31, 2026-01-31T18:00, or 2h, 7d ago')
    return text


def _short(text: str) -> str:
    return text if len(text) <= 40 else f'{text[:40]}…'


def comparison(text: str) -> tuple[str, str, Any]:
    """Parse (key, operator, value); the value is JSON if it parses, else text. Raises ValueError."""
    found = _COMPARISON(text)
    if found is None:
        raise ValueError(f'{text!r} is no KEY=VALUE; instead of = there may be != < <= > >=')
    key, operator, value = found.groups()
    try:
        return key, operator, json.loads(value, parse_constant=_refuse)
    except (ValueError, RecursionError):
        return key, operator, value


def wanted(comparisons: Iterable[tuple[str, str, Any]]) -> dict[str, Any]:
    """Combine comparisons for `Project.query`; all comparisons of one key must hold."""
    tests: dict[str, list[Any]] = {}
    for key, operator, value in comparisons:
        tests.setdefault(key, []).extend((operator, value))
    return {key: each[1] if len(each) == 2 and each[0] == '=' else tuple(each) for key, each in tests.items()}


def _refuse(word: str) -> Any:
    raise ValueError(word)
