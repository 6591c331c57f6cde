"""What of record and result stands as JSON in a cell of the row, checked, since both are edited by hand."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from .. import canonical, fileops
from ..records import INDEXED_RESULT

if TYPE_CHECKING:
    from collections.abc import Sequence

MOST_ATTEMPTS = 20
"""Earlier attempts that a record tells of."""


def _refuse(constant: str) -> Any:
    raise ValueError(f'{constant} is not standard JSON')


_JSON = json.JSONDecoder(parse_constant=_refuse)


def bases_text(bases: Sequence[str]) -> str:
    """The classes above an error's type as row and record hold them: a JSON list."""
    return json.dumps(list(bases), ensure_ascii=False)


def recorded_bases(record: dict[str, Any]) -> str | None:
    bases = record.get('error_bases')
    if not isinstance(bases, list) or not all(isinstance(name, str) for name in bases):
        return None
    return bases_text(bases)


_LINE = {
    'attempt': int, 'status': str, 'started_at': str, 'finished_at': str, 'error_type': str, 'error': str,
    'error_group': str, 'args_hash': str, 'version': str, 'host': str,
}  # fmt: skip


def history_text(lines: Any) -> str | None:
    """Lines of earlier attempts as row and record hold them, a JSON list; None where there are none."""
    told = [
        {name: line.get(name) if type(line.get(name)) is kind else None for name, kind in _LINE.items()}
        for line in (lines if isinstance(lines, list) else [])[-MOST_ATTEMPTS:]
        if isinstance(line, dict)
    ]
    return json.dumps(told, ensure_ascii=False) if told else None


MOST_USES = 1000
"""Resources that a record names of all that its function fetched."""


def uses_text(lines: Any) -> str | None:
    """What a function fetched, as row and record hold it: a JSON list; None where it fetched nothing.

    Each line is a list of collection, ident, run and args hash.
    """
    return _lines_text(lines, (str, str, str, str), MOST_USES)


def inputs_text(lines: Any) -> str | None:
    """The files that a run was computed from, in the same way: path, bytes, mtime in ns and digest."""
    return _lines_text(lines, (str, int, int, str))


def _lines_text(lines: Any, kinds: tuple[type, ...], most: int | None = None) -> str | None:
    if not isinstance(lines, list):
        return None
    told = [line for line in lines[:most] if isinstance(line, list) and tuple(map(type, line)) == kinds]
    return json.dumps(told, ensure_ascii=False) if told else None


def result_text(data: bytes, most: int) -> str | None:
    """A result.json as its row holds it; None where it is longer than ``most`` bytes, or no standard JSON."""
    if len(data) > most:
        return None
    try:
        text = data.decode().strip()
        value = _JSON.decode(text)
    except (ValueError, RecursionError):
        return None
    is_by_hand = '\n' in text or '\\u' in text  # SQLite compares keys as they are written
    return canonical.result_json(value)[:-1].decode() if is_by_hand else text


def indexed_result(name: str, folder: int, record: dict[str, Any]) -> str | None:
    most = record.get('index_result', INDEXED_RESULT)
    if type(most) is not int or most <= 0:
        return None
    try:
        return result_text(fileops.read(name, folder, most), most)
    except OSError:
        return None
