"""Functions that travel by value keep the name of their file, and their lines where no file holds them.

A traceback is as good as the file and line that it names, and the file is part of the name of a cause
(see `fingerprint`). Which file a code object names after unpickling is up to the pickler: from 3.1.3 on
cloudpickle writes ``<dynamic-code>`` for every function of a script or a notebook. So code objects are
taken apart by the pickler as ever, and the name is put back here.
"""

from __future__ import annotations

import io
import linecache
import pickle
from collections import ChainMap
from types import CodeType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable


def dumps(function: object) -> bytes:
    """The function as bytes that `cloudpickle` makes, and that `pickle.loads` reads."""
    import cloudpickle

    reducers = cloudpickle.Pickler.dispatch_table
    reduce_code = reducers[CodeType]
    sent: set[str] = set()

    def reduce(code: CodeType) -> tuple[Callable[..., CodeType], tuple[Any, ...]]:
        name = code.co_filename
        lines = None if name in sent else _lines_in_memory(name)
        sent.add(name)
        build, fields = reduce_code(code)[:2]
        return restored, (name, lines, build, fields)

    class Pickler(cloudpickle.Pickler):  # type: ignore[misc]
        dispatch_table = ChainMap({CodeType: reduce}, reducers)

    with io.BytesIO() as file:
        Pickler(file, protocol=pickle.HIGHEST_PROTOCOL).dump(function)
        return file.getvalue()


def restored(
    name: str, lines: list[str] | None, build: Callable[..., CodeType], fields: tuple[Any, ...]
) -> CodeType:
    """A code object as it was where it came from, whichever file the pickler says."""
    if lines is not None and name not in linecache.cache:
        linecache.cache[name] = (sum(map(len, lines)), None, lines, name)
    return build(*fields).replace(co_filename=name)


def _lines_in_memory(name: str) -> list[str] | None:
    """The lines of what was typed into a notebook: no file has them, and other processes do not know them."""
    entry = linecache.cache.get(name)
    # (length, time of the file, lines, name); no time: not from a file. One not read yet is shorter.
    return entry[2] if entry is not None and len(entry) == 4 and entry[1] is None else None
