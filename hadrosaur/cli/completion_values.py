"""Values for shell completion: collections and idents, from the folders alone.

The index is not opened: loading SQLAlchemy would take too long for a press of the tab key.
"""

from __future__ import annotations

import os
from itertools import islice
from typing import TYPE_CHECKING, Any

from .. import fileops
from ..canonical import collection_folder, ident_of_folder
from ..errors import InvalidIdent

if TYPE_CHECKING:
    from collections.abc import Iterator

    import click

MOST = 200
"""Idents offered at once; nobody reads more, and a collection may hold millions."""


def collections(ctx: click.Context, _: click.Parameter, incomplete: str) -> list[str]:
    """Return the collections of BASE that begin with the word."""
    from ..registry import collection_folders

    base = os.path.expanduser(ctx.params.get('base') or '')
    try:
        found = [_ident(folder) for folder in collection_folders(base)]
    except OSError:
        return []
    return [name for name in found if name is not None and name.startswith(incomplete)]


def idents(ctx: click.Context, _: click.Parameter, incomplete: str) -> list[str]:
    """Return the idents of BASE and COLL that begin with the word."""
    base: Any = ctx.params.get('base')
    collection: Any = ctx.params.get('collection')
    if not base or not collection:
        return []
    try:
        path = os.path.join(os.path.expanduser(base), collection_folder(collection))
        return sorted(islice(_beginning(path, incomplete), MOST))
    except (OSError, InvalidIdent):
        return []


def _beginning(path: str, incomplete: str) -> Iterator[str]:
    with fileops.opened(path) as folder:
        for name in fileops.list_folders(folder):
            ident = _ident(name)
            if ident is not None and ident.startswith(incomplete):
                yield ident


def _ident(folder: str) -> str | None:
    """Return the ident of a folder, if it can be typed."""
    try:
        ident = ident_of_folder(folder)
    except InvalidIdent:
        return None
    return ident if ident is not None and ident.isprintable() else None
