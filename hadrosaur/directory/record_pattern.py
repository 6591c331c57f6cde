"""Records exactly as we write them, matched by one pattern: a third of what the careful reader takes.

Where the pattern fits, the values are those that `directory.entry_of` would give; whatever else may stand in
a record (escapes, a field of another type or in another place, what was written by hand) does not fit, and is
left to that.
"""

from __future__ import annotations

import json
import re
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from .. import canonical
from . import _MADE_FROM, _RECORDED, _TYPES, FORMAT
from ._cells import inputs_text, uses_text

if TYPE_CHECKING:
    from collections.abc import Callable

_TEXT = r'"[^"\\\x00-\x1f]*"'
_WHOLE = '(?:0|[1-9][0-9]{0,17})'
_NUMBER = rf'{_WHOLE}(?:\.[0-9]{{1,30}})?(?:e-[0-9]{{1,3}})?'
_DAY = (
    '(?:(?:0[13578]|1[02])-(?:0[1-9]|[12][0-9]|3[01])|(?:0[469]|11)-(?:0[1-9]|[12][0-9]|30)'
    '|02-(?:0[1-9]|1[0-9]|2[0-8]))'
)
_TIME = f'"[12][0-9]{{3}}-{_DAY}T(?:[01][0-9]|2[0-3]):[0-5][0-9]:[0-5][0-9][.][0-9]{{6}}Z"'


def _cell(name: str) -> str:
    """What stands for a value, where we write it."""
    if name in ('attempt', 'finished_at'):
        return '([1-9][0-9]{0,8})' if name == 'attempt' else f'({_TIME})'
    kinds: dict[Any, str] = {None: _TEXT, int: _WHOLE}
    return f'(null|{_TIME if name.endswith("_at") else kinds.get(_TYPES.get(name), _NUMBER)})'


_LED = ('format', 'collection', 'ident', 'state', 'run', 'args_hash', *_RECORDED)
_NAMED = '|'.join((*_LED, *_MADE_FROM, 'provenance', 'error_bases', 'index_result', 'args'))
_OTHERS = f'"(?!(?:{_NAMED})")[a-z][a-z0-9_]*"'
_match = re.compile(
    rf'\{{\n "format": {FORMAT},\n "collection": {_TEXT},\n "ident": {_TEXT},\n'
    rf' "state": "(completed|error)",\n "run": ({_TEXT}),\n "args_hash": "([^"\\\x00-\x1f]*)",\n '
    + ''.join(f'"{name}": {_cell(name)},\n ' for name in _RECORDED)
    + rf'(?:"provenance": ({_TEXT}),\n )?'
    + ''.join(rf'(?:"{name}": (\[[^\n]*\]),\n )?' for name in _MADE_FROM)
    + rf'(?:{_OTHERS}: (?:null|true|false|{_NUMBER}|{_TEXT}),\n )*"args": (\{{[^\n]*\}})\n\}}\n'
).fullmatch


def cells(data: bytes) -> dict[str, Any] | None:
    """What a row takes from the record of a finished run, by name; None: for the careful reader."""
    try:
        found = _match(data.decode())
    except UnicodeDecodeError:
        return None
    if found is None:
        return None
    state, run, known, *texts, told, uses, inputs, args = found.groups()
    if _hash_of(args) != known:
        return None
    if not (_is_as_written(uses, uses_text) and _is_as_written(inputs, inputs_text)):
        return None
    values: dict[str, Any] = {'status': state, 'run': run[1:-1], 'args': args, 'args_hash': known}
    values['provenance'] = told and told[1:-1]
    values.update(uses=uses, inputs=inputs)
    for name, text in zip(_RECORDED, texts, strict=True):
        if text == 'null':
            values[name] = None
        elif text[0] == '"':
            values[name] = text[1:-1]
        else:
            values[name] = int(text) if text.isdigit() else float(text)
    return values


def _is_as_written(text: str | None, write: Callable[[Any], str | None]) -> bool:
    """Is it, where it is there, what we write?"""
    if text is None:
        return True
    try:
        return write(json.loads(text)) == text
    except (ValueError, RecursionError):
        return False


@lru_cache(maxsize=4096)
def _hash_of(args: str) -> str | None:
    """Of args as we write them; None where they are written otherwise."""
    try:
        is_ours = canonical.args_json(json.loads(args)) == args
    except (ValueError, TypeError, RecursionError):
        return None
    return canonical.args_hash(args) if is_ours else None
