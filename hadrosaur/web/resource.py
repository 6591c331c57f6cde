"""What the page of one resource shows, as plain data."""

from __future__ import annotations

import contextlib
import os
import re
import shlex
from typing import TYPE_CHECKING, Any

from .. import activity, directory
from ..errors import HadrosaurError, ResourceError, ResourceNotFound
from . import files
from .addresses import address
from .asking import NotUnderstood

if TYPE_CHECKING:
    from ..handle import Resource
    from ..project import Project
    from ..records import Entry, Use
    from .asking import Asked

LOOKS = 20  # at a resource that is computed anew each time
LARGEST = 4 << 20  # bytes of a result that is read for a page
MOST_DIFFERENCES = 400  # lines
MOST_USES = 40  # resources that are named in each direction


def resource(project: Project, name: str, ident: str, asked: Asked) -> dict[str, Any]:
    """All about one resource."""
    with files.folder_of(project, name, ident) as folder:
        is_large = _size_of(folder, directory.RESULT) > LARGEST
        found = _without_result(project, name, ident) if is_large else _of_one_run(project, name, ident)
        entry = _with_row(project, found)
        logs = {log: files.tail_of(folder, log) for log in files.LOGS}
        error = logs.pop('error')
        listed, is_more = files.storage_of(folder)
        shown = files.previews(folder, listed)
        record = directory.read_record(folder) or {}
    progress = found.progress
    attempts = found.attempts
    return {
        **entry.as_json(),
        'collection': name,
        'ident': ident,
        'status': found.status,
        'result': None if is_large else found.result,
        'is_large': is_large,
        'progress': progress and progress._asdict(),
        'traceback': _traceback(error, record) if found.status == 'error' else None,
        'logs': {log: None if tail is None else tail._asdict() for log, tail in logs.items()},
        'storage': [
            {
                **each._asdict(),
                'address': address('file', name, ident, *each.name.split('/')),
                'preview': shown.get(each.name),
            }
            for each in listed
        ],
        'is_more': is_more,
        'attempts': attempts,
        'compared': _compared(found, asked),
        'neighbours': _neighbours(project, found),
        'copies': _copies(project, found),
        **_used(project, name, ident),
    }


def _with_row(project: Project, found: Resource) -> Entry:
    """The entry of the directory; of one that is pending the index knows since when it runs, and where."""
    if found.status != 'pending':
        return found.entry
    row = project._index().get(found.collection, found.ident)
    return row if row is not None and row.status == 'pending' else found.entry


def _size_of(folder: int, name: str) -> int:
    try:
        return os.stat(name, dir_fd=folder, follow_symlinks=False).st_size
    except OSError:
        return 0


def _without_result(project: Project, name: str, ident: str) -> Resource:
    """The resource as its row tells of it: its result is too long to be read for a page."""
    known = project._registry.get_any(name)
    row = project._index().get(name, ident)
    if row is None:
        return _of_one_run(project, name, ident)
    folder = directory.find_folder(known.spec.path, ident)
    return project._store.resource(known, ident, folder, row.status, entry=row)


def _of_one_run(project: Project, name: str, ident: str) -> Resource:
    """The resource, its entry read too; again where it was computed anew between the two."""
    for left in reversed(range(LOOKS)):
        found = project.get(name, ident)
        try:
            if found.entry is not None:
                return found
        except ResourceError:
            if not left:
                raise
    raise ResourceNotFound(f'{name}/{ident} is computed again and again', collection=name, ident=ident)


# --- the traceback ---------------------------------------------------------------------------------

_FRAME = re.compile(r'  File "(.*)", line (\d+), in (.*)')


def _traceback(tail: files.Tail | None, record: dict[str, Any]) -> dict[str, Any]:
    """The whole, and the frame that is the user's own."""
    text = '' if tail is None else tail.text
    lines = text.splitlines()
    own = str(record.get('error_frame') or '')
    frames = [(at, found) for at, line in enumerate(lines) if (found := _FRAME.fullmatch(line))]
    ours = [(at, found) for at, found in frames if own and _is_at(found, own)] or frames[-1:]
    if not ours:
        return {'text': text, 'frame': None}
    at, found = ours[-1]
    code = []
    for line in lines[at + 1 : at + 4]:
        if _FRAME.fullmatch(line) or not line.startswith('    '):
            break
        code.append(line.removeprefix('    '))
    return {
        'text': text,
        'frame': {'file': found[1], 'line': int(found[2]), 'in': found[3], 'code': '\n'.join(code)},
    }


def _is_at(frame: re.Match[str], own: str) -> bool:
    file, _, function = own.rpartition(':')
    return frame[1].endswith(file) and function.rpartition('.')[2] == frame[3].rpartition('.')[2]


# --- what stands beside it -------------------------------------------------------------------------


def _compared(found: Resource, asked: Asked) -> dict[str, Any] | None:
    """In what two attempts differ, where that is asked for."""
    text = asked.one('compare')
    if text is None:
        return None
    numbers = text.split('..')
    if len(numbers) != 2 or not all(
        each.isascii() and each.isdecimal() and len(each) < 9 for each in numbers
    ):
        raise NotUnderstood(f'{text!r} names no two attempts: write 1..2')
    before, after = map(int, numbers)
    lines = list(activity.differences(found, before, after))
    return {
        'before': before,
        'after': after,
        'lines': lines[:MOST_DIFFERENCES],
        'more': len(lines) > MOST_DIFFERENCES,
    }


def _neighbours(project: Project, found: Resource) -> dict[str, str | None]:
    """The addresses of the failures that ended before and after this one."""
    ended = found.entry.raw('finished_at')
    if found.status != 'error' or ended is None:
        return {'previous': None, 'next': None}
    key = (ended, found.collection, found.ident)
    older = project.query(found.collection, status='error', after=key, limit=1).first()
    newer = project.query(
        found.collection, status='error', order_by='finished_at', after=key, limit=1
    ).first()
    addresses = [
        None if each is None else address('c', found.collection, 'r', each.ident) for each in (newer, older)
    ]
    return dict(zip(('previous', 'next'), addresses, strict=True))


def _copies(project: Project, found: Resource) -> dict[str, str]:
    """What brings one here from elsewhere, to be copied."""
    name, ident = found.collection, found.ident
    words = shlex.join([project.base, name, ident])
    return {
        'Python': f'Project({project.base!r}, create=False).get({name!r}, {ident!r})',
        'path': shlex.quote(os.path.abspath(found.paths['base'])),
        'command': f'hadrosaur show {words}',
        'reproduce': f'hadrosaur reproduce MODULE:PROJ {shlex.join([name, ident])}',
    }


def _used(project: Project, name: str, ident: str) -> dict[str, Any]:
    """What it used and what used it, and why it is stale, if it is."""
    found: dict[str, Any] = {'uses': [], 'used_by': [], 'stale_because': None}
    with contextlib.suppress(HadrosaurError):  # removed at this moment
        found['uses'] = [_link(project, use) for use in project.uses(name, ident)[:MOST_USES]]
        found['used_by'] = [_link(project, use) for use in project.used_by(name, ident)[:MOST_USES]]
        found['stale_because'] = project.stale_because(name, ident)
    return found


def _link(project: Project, use: Use) -> dict[str, Any]:
    stale: str | None = 'it is not there'
    with contextlib.suppress(HadrosaurError):
        stale = project.stale_because(use.collection, use.ident)
    return {'collection': use.collection, 'ident': use.ident, 'stale_because': stale}
