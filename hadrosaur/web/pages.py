"""What each page of many shows, as plain data: what its ``.json`` twin is, and its template renders."""

from __future__ import annotations

import json
import time
from collections import defaultdict
from datetime import datetime
from itertools import islice
from typing import TYPE_CHECKING, Any

from .. import activity
from ..errors import HadrosaurError
from ..json_paths import MISSING, leaves, parse
from ..sanitize import seconds, size, utc
from . import charts, files
from .addresses import address
from .asking import as_column, is_column

if TYPE_CHECKING:
    from collections.abc import Iterable

    from ..project import Project
    from ..records import Entry
    from .asking import Asked
    from .charts import Chart

PAGE = 50
"""Rows of a page."""

SAMPLE = 5_000
"""Resources that a chart looks at, those that finished last: 35 ms."""

FAILURES = 2_000
"""Failures whose causes a collection's page tells, the last ones: 15 ms. Their own page looks at all."""

POINTS = 300
"""Points of a scatter chart, and runs of a timeline: what a page of 150 kB can hold."""

MOST_COLLECTIONS, MOST_GROUPS, MOST_FAILURES, MOST_RUNNING, PICTURES, LOOKED_AT = 60, 100, 6, 100, 24, 200
LONGEST = 160
LARGEST = 1e100  # of numbers in a chart
LAST = 253_370_000_000.0  # of times in a chart: the year 9998, which is one in every time zone


def overview(project: Project) -> dict[str, Any]:
    """All collections."""
    found = activity.state(project, None)
    shown = []
    for name in list(found)[:MOST_COLLECTIONS]:
        ends = project.query(name).cells(('finished_at', 'status'), 2000)
        shown.append(
            {'name': name, **_counted(project, name, found[name]), 'chart': _over_time(name, ends, None)}
        )
    failures = project.query(status='error', limit=MOST_FAILURES)
    return {
        'base': project.base,
        'total': sum(counts['total'] for counts in found.values()),
        'collections': shown,
        'left_out': list(found)[MOST_COLLECTIONS:],
        'failures': [_failure(row) for row in failures],
    }


def _counted(project: Project, name: str, counts: dict[str, Any]) -> dict[str, Any]:
    """Counts with the share that is done, and how many of the pending ones run."""
    done = counts['completed'] + counts['error']
    running = 0
    if counts['pending']:
        rows = project.query(name, status='pending', order_by='started_at', limit=MOST_RUNNING * 10)
        running = sum(row.phase == 'running' for row in rows)
    return {**counts, 'running': running, 'done': done / counts['total'] if counts['total'] else None}


def _failure(row: Entry) -> dict[str, Any]:
    return {
        'collection': row.collection,
        'ident': row.ident,
        'error_type': row.error_type,
        'error': row.error,
        'finished_at': row.raw('finished_at'),
    }


# --- one collection --------------------------------------------------------------------------------


def collection(project: Project, name: str, asked: Asked) -> dict[str, Any]:
    """One collection: counts, charts, causes of failures and a page of rows."""
    counts = activity.state(project, name)[name]
    rows, following, points = _rows(project, name, asked)
    sample = asked.query(project, name).cells(('finished_at', 'status', 'duration', 'max_rss'), SAMPLE)
    columns, known = _columns(project, name, asked, rows)
    is_whole = len(sample) < SAMPLE
    number = counts['total'] if not asked.filters else len(sample) if is_whole else None
    groups = project.error_groups(name, last=FAILURES) if counts['error'] and not asked.filters else []
    return {
        'collection': name,
        **_counted(project, name, counts),
        'filters': [chip._asdict() for chip in asked.chips],
        'found': number,
        'columns': columns,
        'known': known,
        'rows': [_row(row, columns) for row in rows],
        'next': following,
        'groups': [_group(group) for group in groups[:MOST_FAILURES]],
        'causes': len(groups),
        'of_failures': FAILURES if counts['error'] > FAILURES else None,
        'charts': _charts(project, name, asked, sample, points, '' if is_whole else f'the last {SAMPLE}'),
    }


def _rows(project: Project, name: str, asked: Asked) -> tuple[list[Entry], str | None, list[Entry]]:
    """A page of rows, the address of the one that follows, and rows for a chart.

    Those where the column of the order is not known come last, in pages of their own.
    """
    points = list(asked.query(project, name, order_by=asked.order, after=asked.after, limit=POINTS))
    rows = points[: PAGE + 1]
    if len(rows) <= PAGE and asked.after is not None and asked.after[0] is not None:
        left = PAGE + 1 - len(rows)
        rest = asked.query(project, name, order_by=asked.order, after=(None, '', ''), limit=left)
        rows += list(rest)
    if len(rows) <= PAGE:
        return rows, None, points
    last = rows[PAGE - 1]
    column = asked.order.removeprefix('-')
    named = project._named_parts(name)
    value = _raw(last, named.get(column, column))
    key = json.dumps([value, last.collection, last.ident])
    return rows[:PAGE], asked.address(after=key), points


def _raw(row: Entry, column: str) -> Any:
    if column in row.keys():  # noqa: SIM118  an Entry is a tuple of cells
        return row.raw(column)
    value = parse(column).of(row)
    return None if value is MISSING or isinstance(value, (list, dict)) else value


def _columns(
    project: Project, name: str, asked: Asked, rows: list[Entry]
) -> tuple[list[dict[str, Any]], list[str]]:
    """The columns that are shown, with what sorts by them, and all that could be."""
    named = {path: label for label, path in project._named_parts(name).items()}
    known: dict[str, set[str]] = defaultdict(set)
    for row in rows:
        for part, value in _parts(row).items():
            if value not in (None, {}):
                known[part].add(json.dumps(value, default=str)[:LONGEST])
    usual = [part for part in known if part not in named and (len(known[part]) > 1 or part[0] == 'r')]
    paths = asked.columns or [*named, *usual][:5]
    names = ['ident', 'status', 'finished_at', 'duration', *paths]
    if any(row.error for row in rows):
        names.append('error')
    direction = 'descending' if asked.order.startswith('-') else 'ascending'
    by = asked.order.removeprefix('-')
    shown = [
        {
            'name': column,
            'label': named.get(column, column.removesuffix('_at')),
            'sort': asked.sorted_by(column),
            'order': direction if by in (column, named.get(column)) else None,
        }
        for column in dict.fromkeys(names)
    ]
    return shown, [part for part in sorted(known) if part not in paths]


def _parts(row: Entry) -> dict[str, Any]:
    """Parts of a row's args and result that an address can name; one whose key holds a quote is none."""
    found = {**leaves('args', row.args), **leaves('result', row.result)}
    return {part: value for part, value in found.items() if is_column(part)}


def _row(row: Entry, columns: list[dict[str, Any]]) -> dict[str, Any]:
    cells = []
    for column in columns:
        value = _raw_or_value(row, column['name'])
        cells.append(value)
    return {'ident': row.ident, 'status': row.status, 'phase': row.phase, 'cells': cells}


def _raw_or_value(row: Entry, column: str) -> Any:
    if column in row.keys():  # noqa: SIM118
        value = row.raw(column)
        return _cut(value) if isinstance(value, str) and column == 'error' else value
    value = parse(column).of(row)
    return None if value is MISSING else _cut(value)


def _cut(value: Any) -> Any:
    if isinstance(value, (list, dict)):
        value = json.dumps(value, ensure_ascii=False)
    return f'{value[: LONGEST - 1]}…' if isinstance(value, str) and len(value) > LONGEST else value


def _group(group: Any) -> dict[str, Any]:
    times = {'first': utc(group.first), 'last': utc(group.last)}
    return {
        **group._asdict(),
        'pattern': _cut(group.pattern),
        **times,
        'retry': activity.retry_command(group),
    }


# --- its charts ------------------------------------------------------------------------------------


def _charts(
    project: Project, name: str, asked: Asked, sample: list[tuple[Any, ...]], points: list[Entry], note: str
) -> list[Chart]:
    durations = [duration for _, _, duration, _ in sample if _is_number(duration)]
    memory = [rss for _, _, _, rss in sample if rss and _is_number(rss)]
    found = [
        _over_time('finished over time', sample, asked, note),
        charts.histogram(
            'durations',
            durations,
            lambda least, most: asked.address(min_duration=f'{least:.6g}', max_duration=f'{most:.6g}'),
            seconds,
            note,
        ),
        charts.histogram(
            'memory',
            memory,
            lambda least, most: asked.address(min_memory=int(least), max_memory=int(most) + 1),
            lambda value: size(int(value)),
            note,
        ),
        _scatter(project, name, asked, points),
    ]
    return [chart for chart in found if chart is not None]


def _over_time(
    title: str, sample: Iterable[tuple[Any, ...]], asked: Asked | None, note: str = ''
) -> Chart | None:
    ends = [(when, cells[1]) for cells in sample if (when := _epoch(cells[0])) is not None]
    if asked is not None:
        link = asked.address
    else:

        def link(**changes: Any) -> str:
            return address('c', title, **changes)

    return charts.over_time(title, ends, link, note)


def _epoch(text: Any) -> float | None:
    try:
        found = datetime.fromisoformat(text).timestamp() if text else None
        return found if found is None or 0 <= found < LAST else None
    except (ValueError, OverflowError, TypeError):
        return None


def _scatter(project: Project, name: str, asked: Asked, rows: list[Entry]) -> Chart | None:
    """A number of the results against one of the args, or of the results; ``x`` and ``y`` choose."""
    numbers: dict[str, set[float]] = defaultdict(set)
    for row in rows:
        for part, value in _parts(row).items():
            if _is_number(value):
                numbers[part].add(value)
    varied = [part for part in numbers if len(numbers[part]) > 1]
    results = [part for part in varied if part.startswith('result')]
    named = project._named_parts(name)
    declared = [part for part in named.values() if part in varied]
    y = asked.one('y') or next(iter([*declared, *results]), None)
    x = asked.one('x') or next((part for part in [*varied, 'duration'] if part != y), None)
    if x is None or y is None:
        return None
    across, up = as_column(x, named), as_column(y, named)
    points = [
        (float(at), float(value), row.ident, row.status)
        for row in rows
        if _is_number(at := _raw(row, across)) and _is_number(value := _raw(row, up))
    ]
    note = f'the first {POINTS} of the list' if len(rows) == POINTS else ''
    found = charts.scatter(
        'one part against another', points, (x, y), lambda ident: address('c', name, 'r', ident), note
    )
    return found and found._replace(choices=[*varied, 'duration', 'max_rss'], chosen=(x, y))


def _is_number(value: Any) -> bool:
    is_number = isinstance(value, (int, float)) and not isinstance(value, bool)
    return is_number and abs(value) < LARGEST


# --- the other pages -------------------------------------------------------------------------------


def errors(project: Project, name: str | None) -> dict[str, Any]:
    """Failures by cause, each with the end of an example's traceback."""
    groups = project.error_groups(name)
    shown = [{**_group(group), 'lines': _last_lines(project, group)} for group in groups[:MOST_GROUPS]]
    total = sum(group.count for group in groups)
    return {'collection': name, 'total': total, 'causes': len(groups), 'groups': shown}


def _last_lines(project: Project, group: Any) -> str:
    try:
        with files.folder_of(project, group.collection, group.example) as folder:
            tail = files.tail_of(folder, 'error', most=1200)
    except HadrosaurError:
        return ''
    return '' if tail is None else '\n'.join(tail.text.splitlines()[-6:])


def gallery(project: Project, name: str, asked: Asked) -> dict[str, Any]:
    """Images of a collection's resources, the first of each; of those that were looked at on this page."""
    rows = asked.query(project, name, order_by=asked.order, after=asked.after, limit=LOOKED_AT)
    pictures: list[dict[str, Any]] = []
    last: Entry | None = None
    for row in rows:
        if len(pictures) == PICTURES:
            break
        last = row
        try:
            with files.folder_of(project, name, row.ident) as folder:
                found = files.first_image(folder)
        except HadrosaurError:
            continue
        if found is not None:
            source = address('file', name, row.ident, *found.name.split('/'))
            pictures.append({'ident': row.ident, 'status': row.status, 'image': found.name, 'source': source})
    is_more = last is not None and (len(pictures) == PICTURES or len(rows) == LOOKED_AT)
    key = last and json.dumps([_raw(last, asked.order.removeprefix('-')), last.collection, last.ident])
    following = asked.address(after=key) if is_more else None
    filters = [chip._asdict() for chip in asked.chips]
    return {'collection': name, 'filters': filters, 'pictures': pictures, 'next': following}


def running(project: Project) -> dict[str, Any]:
    """What runs now."""
    rows = project.query(status='pending', order_by='started_at', limit=MOST_RUNNING * 10)
    begun = [row for row in rows if row.phase == 'running']
    queued = len(project.query(status='pending')) - len(begun)
    shown = []
    for row in begun[:MOST_RUNNING]:
        found = activity.seen(project, row)
        said = found['progress']
        shown.append({**found, 'progress': said and said._asdict(), 'memory': row.max_rss})
    return {'running': shown, 'left_out': max(0, len(begun) - MOST_RUNNING), 'queued': max(0, queued)}


def timeline(project: Project, asked: Asked) -> dict[str, Any]:
    """Who computed what when, lately, and what runs."""
    ended = islice(asked.query(project, asked.one('collection')), POINTS)
    begun = project.query(
        asked.one('collection'), status='pending', order_by='started_at', limit=MOST_RUNNING
    )
    lanes: dict[str, list[Any]] = defaultdict(list)
    rows = [*ended, *(row for row in begun if row.phase == 'running')]
    now = max([time.time(), *(when for row in rows if (when := _epoch(row.raw('finished_at'))))])
    for row in rows:
        start, end = _epoch(row.raw('started_at')), _epoch(row.raw('finished_at'))
        if start is None:
            continue
        href = address('c', row.collection, 'r', row.ident)
        span = (start, end or now, f'{row.collection}/{row.ident}', row.status, href)
        lanes[f'{row.host or "?"} {row.pid or ""}'.strip()].append(span)
    chart = charts.timeline(sorted(lanes.items()), f'the last {POINTS} runs' if len(rows) >= POINTS else '')
    filters = [chip._asdict() for chip in asked.chips]
    return {'chart': chart, 'filters': filters, 'collection': asked.one('collection')}
