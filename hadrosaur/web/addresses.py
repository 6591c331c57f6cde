"""Names in addresses: any collection and any ident is one segment of a path, and comes back unchanged."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any
from urllib.parse import quote, unquote_to_bytes, urlencode

if TYPE_CHECKING:
    from collections.abc import Iterable

TWIN = '.json'
"""What the address of a page ends with where its data are asked for."""

_DOTS = ('.', '..')


def segment(name: str) -> str:
    """A name as one segment: browsers resolve dots, and a last ``.json`` would ask for a page's data."""
    text = f'~{name}' if name in _DOTS or name.startswith('~') else name
    quoted = quote(text, safe='', errors='surrogatepass')
    return f'{quoted[: -len(TWIN)]}%2E{TWIN[1:]}' if quoted.endswith(TWIN) else quoted


def names_in(path: bytes) -> tuple[list[str], bool]:
    """The names in a raw path, and whether the data of a page are asked for. Raises UnicodeError."""
    raw = path.partition(b'?')[0]
    is_twin = raw.endswith(TWIN.encode())
    if is_twin:
        raw = raw[: -len(TWIN)]
    parts = [unquote_to_bytes(part).decode() for part in raw.split(b'/')[1:]]
    return [part[1:] if part.startswith('~') else part for part in parts], is_twin


def address(*names: str, **params: Any) -> str:
    """The address of a page: ``address('c', 'books', 'r', 'emma')``; a parameter that is None is left out."""
    path = '/' + '/'.join(map(segment, names))
    return with_params(path, params.items())


def with_params(path: str, params: Iterable[tuple[str, Any]]) -> str:
    """A path and its parameters, those that are None left out; a list stands for several."""
    pairs = [(name, each) for name, value in params for each in _several(value)]
    text = urlencode(pairs, errors='surrogatepass')
    return f'{path}?{text}' if text else path


def _several(value: Any) -> list[Any]:
    return [] if value is None else list(value) if isinstance(value, (list, tuple)) else [value]
