"""What lies in a resource's folder, for a browser: logs with their colours, files with previews.

A folder is reached step by step from the base by descriptors, each step under the name that a collection,
an ident or a listing gives; no link is followed, and nothing but a regular file is read.
"""

from __future__ import annotations

import contextlib
import csv
import io
import json
import os
import re
import stat
from typing import TYPE_CHECKING, Any, NamedTuple

from markupsafe import Markup, escape

from .. import directory, fileops
from ..errors import ResourceNotFound
from ..sanitize import Harmless

if TYPE_CHECKING:
    from collections.abc import Iterator

    from ..project import Project

TAIL = 32_768
"""Bytes at the end of a log that a page shows."""

PREVIEW = 16_384
"""Bytes at the beginning of a file that a page shows."""

MOST_FILES, MOST_PREVIEWS, MOST_ROWS, MOST_CELLS, LONGEST_CELL = 200, 6, 12, 12, 80
DEPTH = 6

LOGS = {'stdout': directory.STDOUT, 'stderr': directory.STDERR, 'error': directory.ERROR}

IMAGES = {
    'png': 'image/png', 'jpg': 'image/jpeg', 'jpeg': 'image/jpeg', 'gif': 'image/gif', 'webp': 'image/webp',
    'avif': 'image/avif', 'bmp': 'image/bmp', 'svg': 'image/svg+xml',
}  # fmt: skip
"""What is shown as an image, where no script in it runs; anything else is saved, or shown as text."""

TABLES = {'csv': ',', 'tsv': '\t'}
TEXTS = frozenset(
    [
        'txt',
        'log',
        'md',
        'rst',
        'json',
        'jsonl',
        'yaml',
        'yml',
        'toml',
        'ini',
        'cfg',
        'py',
        'r',
        'sql',
        'html',
        'htm',
        'xml',
        'tex',
        'sh',
        'csv',
        'tsv',
    ]
)


class Listed(NamedTuple):
    """A file of a resource's storage."""

    name: str  # below storage/, with slashes
    size: int
    modified: float

    @property
    def kind(self) -> str:
        """The end of its name."""
        return self.name.rpartition('.')[2].lower() if '.' in self.name else ''


@contextlib.contextmanager
def folder_of(project: Project, collection: str, ident: str) -> Iterator[int]:
    """The open folder of a resource. Raises ResourceNotFound, UnknownCollection or InvalidIdent."""
    path = project._registry.get_any(collection).spec.path
    try:
        with fileops.opened_below(path, directory.find_folder(path, ident), fileops.FOLDER) as folder:
            yield folder
    except OSError as error:
        if not (isinstance(error, FileNotFoundError) or fileops.is_no_file(error)):
            raise
        raise ResourceNotFound(f'{collection}/{ident} has no such file', collection=collection, ident=ident)


@contextlib.contextmanager
def opened_file(folder: int, *names: str) -> Iterator[tuple[int, os.stat_result]]:
    """A regular file below an open folder, by the names on the way. Raises OSError for anything else."""
    if not names or any(name in ('', '.', '..') or '/' in name or '\0' in name for name in names):
        raise FileNotFoundError(names)
    with contextlib.ExitStack() as stack:
        for name in names[:-1]:
            folder = stack.enter_context(fileops.opened(name, within=folder))
        fd = os.open(names[-1], fileops.READ, dir_fd=folder)
        stack.callback(os.close, fd)
        found = os.fstat(fd)
        if not stat.S_ISREG(found.st_mode):
            raise FileNotFoundError(names[-1])
        yield fd, found


def storage_of(folder: int) -> tuple[list[Listed], bool]:
    """The files in a resource's storage, in order, and whether there are more than are listed."""
    found: list[Listed] = []
    with contextlib.suppress(OSError), fileops.opened(directory.STORAGE, within=folder) as storage:
        _list(storage, '', found, DEPTH)
    return found[:MOST_FILES], len(found) > MOST_FILES


def _list(folder: int, above: str, found: list[Listed], depth: int) -> None:
    with os.scandir(folder) as entries:
        names = sorted(entry.name for entry in entries)
    for name in names[: MOST_FILES + 1]:
        if len(found) > MOST_FILES:
            return
        with contextlib.suppress(OSError):
            seen = os.stat(name, dir_fd=folder, follow_symlinks=False)
            if stat.S_ISREG(seen.st_mode):
                found.append(Listed(above + name, seen.st_size, seen.st_mtime))
            elif stat.S_ISDIR(seen.st_mode) and depth:
                with fileops.opened(name, within=folder) as inner:
                    _list(inner, f'{above}{name}/', found, depth - 1)


def first_image(folder: int) -> Listed | None:
    """The first image in a resource's storage; None where there is none."""
    return next((each for each in storage_of(folder)[0] if each.kind in IMAGES), None)


# --- previews --------------------------------------------------------------------------------------


def previews(folder: int, listed: list[Listed]) -> dict[str, dict[str, Any]]:
    """For the first files that can be shown: ``{'image': True}``, ``{'table': rows}`` or ``{'text': …}``."""
    found: dict[str, dict[str, Any]] = {}
    for each in listed:
        if len(found) >= MOST_PREVIEWS:
            break
        if each.kind in IMAGES:
            found[each.name] = {'image': True}
        elif each.kind in TEXTS and each.size:
            with contextlib.suppress(OSError):
                names = (directory.STORAGE, *each.name.split('/'))
                with opened_file(folder, *names) as (fd, _):
                    found[each.name] = _preview(each, os.pread(fd, PREVIEW, 0))
    return found


def _preview(listed: Listed, data: bytes) -> dict[str, Any]:
    text = data.decode('utf-8', 'replace')
    is_cut = listed.size > len(data)
    with contextlib.suppress(ValueError, RecursionError, csv.Error):
        if listed.kind in TABLES:
            lines = text if not is_cut else text[: text.rfind('\n') + 1]
            rows = list(csv.reader(io.StringIO(lines), delimiter=TABLES[listed.kind]))
            return _table(rows, is_cut)
        if listed.kind == 'json' and not is_cut:
            value = json.loads(text)
            if isinstance(value, list) and value and all(isinstance(each, dict) for each in value):
                names = list(dict.fromkeys(name for each in value for name in each))
                return _table([names, *([each.get(name) for name in names] for each in value)], is_cut)
            text = json.dumps(value, indent=1, ensure_ascii=False)
    return {'text': text, 'is_cut': is_cut}


def _table(rows: list[list[Any]], is_cut: bool) -> dict[str, Any]:
    def cell(value: Any) -> str:
        text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
        return text if len(text) <= LONGEST_CELL else text[: LONGEST_CELL - 1] + '…'

    shown = [[cell(value) for value in row[:MOST_CELLS]] for row in rows[: MOST_ROWS + 1]]
    more = len(rows) - len(shown)
    return {'table': shown, 'more': f'{more}{"+" if is_cut else ""}' if more or is_cut else ''}


# --- logs ------------------------------------------------------------------------------------------


class Tail(NamedTuple):
    """The end of a log, or what was appended to it."""

    html: Markup
    text: str
    start: int  # bytes before it that are left out
    end: int  # where to go on
    mark: int  # of the file: another one, or one that was emptied, is read from its beginning


def tail_of(folder: int, log: str, since: tuple[int, int] | None = None, most: int = TAIL) -> Tail | None:
    """The last bytes of a log; after ``since``, an end and a mark, where it is the same file."""
    try:
        with opened_file(folder, LOGS[log]) as (fd, found):
            size, mark = found.st_size, found.st_ino
            start = max(0, size - most)
            if since is not None and since[1] == mark and since[0] <= size:
                start = max(start, since[0])
            data = os.pread(fd, size - start, start)
    except OSError as error:
        if isinstance(error, FileNotFoundError) or fileops.is_no_file(error):
            return None
        raise
    if start and (since is None or start != since[0]):  # begin with a whole line
        start, data = start + data.find(b'\n') + 1, data[data.find(b'\n') + 1 :]
    data = data[: len(data) - _torn(data)]
    shown = Harmless()(data, end=True)
    return Tail(coloured(shown), _COLOUR.sub('', shown), start, start + len(data), mark)


def _torn(data: bytes) -> int:
    """Bytes at the end that begin a character whose rest is still to come."""
    for back in range(1, min(4, len(data) + 1)):
        first = data[-back]
        if first >= 0xC0:
            return back if back < (2 if first < 0xE0 else 3 if first < 0xF0 else 4) else 0
        if first < 0x80:
            return 0
    return 0


_COLOUR = re.compile(r'\x1b\[([0-9;:]*)m')
_WORDS = {1: 'b', 2: 'dim', 3: 'i', 4: 'u', 7: 'inv'}


def coloured(text: str) -> Markup:
    """Text with colour sequences as HTML: a class for each colour, never a style."""
    pieces: list[Markup] = []
    at, state = 0, dict[str, str]()
    for found in _COLOUR.finditer(text):
        pieces.append(_span(text[at : found.start()], state))
        at, state = found.end(), _applied(state, found[1])
    pieces.append(_span(text[at:], state))
    return Markup('').join(pieces)


def _span(text: str, state: dict[str, str]) -> Markup:
    if not text or not state:
        return escape(text)
    return Markup('<span class="{}">{}</span>').format(' '.join(state.values()), text)


def _applied(state: dict[str, str], codes: str) -> dict[str, str]:
    state, numbers = dict(state), [int(code or 0) for code in re.split('[;:]', codes)]
    while numbers:
        code = numbers.pop(0)
        if code in (38, 48):  # one of 256 colours, or of all: those that have a name are shown
            kind = numbers.pop(0) if numbers else 0
            picked = numbers[:1] if kind == 5 else []
            del numbers[: 1 if kind == 5 else 3]
            code = _named(code, picked[0]) if picked and picked[0] < 16 else -1
        if code == 0:
            state = {}
        elif code in _WORDS:
            state[_WORDS[code]] = f'a-{_WORDS[code]}'
        elif code == 22:
            state.pop('b', None)
            state.pop('dim', None)
        elif code in (23, 24, 27):
            state.pop(_WORDS[code - 20], None)
        elif code in (39, 49):
            state.pop('fg' if code == 39 else 'bg', None)
        elif 30 <= code <= 37 or 90 <= code <= 97:
            state['fg'] = f'a-f{code % 10}'
        elif 40 <= code <= 47 or 100 <= code <= 107:
            state['bg'] = f'a-g{code % 10}'
    return state


def _named(code: int, picked: int) -> int:
    """The code that sets one of the first 16 of 256 colours."""
    return code - 8 + picked if picked < 8 else code + 52 + picked - 8
