"""Charts as SVG, made here: bars over time, histogram, scatter, timeline. Each mark may be a link.

Colours and sizes of text are the style sheet's; nothing in a chart runs, and every text is escaped.
"""

from __future__ import annotations

import math
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, NamedTuple

from markupsafe import Markup, escape

from ..sanitize import printable
from ..sanitize import seconds as in_words

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    Link = Callable[..., str | None]

WIDTH, HEIGHT = 310, 104
LEFT, RIGHT, TOP, BOTTOM = 6, 6, 16, 18
BINS = 38
LANE, MOST_LANES = 15, 40


class Chart(NamedTuple):
    """A chart, and what it shows for programs."""

    title: str
    svg: Markup
    data: list[dict[str, Any]]
    note: str = ''
    choices: list[str] = []  # parts that may stand in it
    chosen: tuple[str, str] | None = None  # those that do: across and up


_LABEL = Markup('<text x="{:.1f}" y="{:.1f}" class="{}">{}</text>')


def _svg(title: str, marks: Iterable[Markup], height: float = HEIGHT, width: float = WIDTH) -> Markup:
    return Markup(
        '<svg viewBox="0 0 {:.0f} {:.0f}" role="group" aria-label="{}" class="chart">{}</svg>'
    ).format(width, height, title, Markup('').join(marks))


def _rect(kind: str, x: float, y: float, wide: float, tall: float) -> Markup:
    """A bar of a class of ours. Hundreds stand on a page: Markup's own format takes ten times as long."""
    place = f'x="{x:.1f}" y="{y:.1f}" width="{wide:.1f}" height="{tall:.1f}"'
    return Markup(f'<rect class="{escape(kind)}" {place}/>')


def _linked(inner: Markup, title: str, href: str | None) -> Markup:
    title = escape(printable(title))
    if href is None:
        return Markup(f'<g><title>{title}</title>{inner}</g>')
    return Markup(f'<a href="{escape(href)}" aria-label="{title}"><title>{title}</title>{inner}</a>')


def _axis(low: str, high: str, top: str = '') -> list[Markup]:
    base = HEIGHT - BOTTOM
    line = Markup('<path class="axis" d="M{} {}H{}"/>').format(LEFT, base, WIDTH - RIGHT)
    texts = [_LABEL.format(LEFT, HEIGHT - 5, 'l', low), _LABEL.format(WIDTH - RIGHT, HEIGHT - 5, 'r', high)]
    return [line, *texts, _LABEL.format(LEFT, 11, 'l', top)] if top else [line, *texts]


def _bars(stacks: Sequence[tuple[list[tuple[str, int]], str, str | None]]) -> list[Markup]:
    """Bars side by side, each of parts (class, number) from below, with its title and link."""
    most = max((sum(number for _, number in parts) for parts, _, _ in stacks), default=0) or 1
    step = (WIDTH - LEFT - RIGHT) / max(1, len(stacks))
    room_above = HEIGHT - TOP - BOTTOM
    marks = []
    for place, (parts, title, href) in enumerate(stacks):
        x, y, inner = LEFT + place * step, float(HEIGHT - BOTTOM), []
        for kind, number in parts:
            tall = room_above * number / most
            if number:
                tall = max(tall, 1.5)
                y -= tall
                inner.append(_rect(kind, x + 0.5, y, max(1.0, step - 1), tall))
        if inner:
            whole = _rect('hit', x, TOP, step, room_above)
            marks.append(_linked(Markup('').join([whole, *inner]), title, href))
    return marks


def over_time(title: str, ends: Sequence[tuple[float, str]], link: Link, note: str = '') -> Chart | None:
    """How many ended when, by status: (seconds since the epoch, status); a link takes two such times."""
    if not ends:
        return None
    low, high = min(when for when, _ in ends), max(when for when, _ in ends)
    step = _round_step((high - low) / BINS) or 1.0
    first = math.floor(low / step) * step
    number = max(1, int((high - first) // step) + 1)
    counts = [{'completed': 0, 'error': 0} for _ in range(number)]
    for when, status in ends:
        if status in counts[0]:
            counts[min(number - 1, int((when - first) // step))][status] += 1
    data = [
        {'since': _iso(first + place * step), 'until': _iso(first + (place + 1) * step), **each}
        for place, each in enumerate(counts)
    ]
    stacks = []
    for place, each in enumerate(counts):
        since, until = first + place * step, first + (place + 1) * step
        said = f'{_clock(since, step)}: {each["completed"]} completed, {each["error"]} failed'
        parts = [('s-completed', each['completed']), ('s-error', each['error'])]
        stacks.append((parts, said, link(since=_iso(since), until=_iso(until))))
    most = max(sum(each.values()) for each in counts)
    axis = _axis(_clock(low, high - low), _clock(high, high - low), f'{most} in {in_words(step)}')
    return Chart(title, _svg(title, [*axis, *_bars(stacks)]), data, note)


def histogram(
    title: str, values: Sequence[float], link: Link, show: Callable[[float], Any], note: str = ''
) -> Chart | None:
    """How often which value occurs; on a scale of powers where they span more than two of them."""
    values = [value for value in values if math.isfinite(value)]
    if not values:
        return None
    low, high = min(values), max(values)
    is_log = low > 0 and high / low > 100
    if is_log:
        edges = [low * (high / low) ** (place / BINS) for place in range(BINS + 1)]
    else:
        width = (high - low) or abs(high) or 1.0
        edges = [low + width * place / BINS for place in range(BINS + 1)]
    counts = [0] * BINS
    for value in values:
        share = math.log(value / low) / math.log(high / low) if is_log else (value - low) / (edges[-1] - low)
        counts[min(BINS - 1, int(share * BINS))] += 1
    stacks, data = [], []
    for place, count in enumerate(counts):
        start, end = edges[place], edges[place + 1]
        data.append({'from': start, 'to': end, 'count': count})
        said = f'{show(start)} to {show(end)}: {count}'
        stacks.append(([('bar', count)], said, link(least=start, most=end)))
    axis = _axis(str(show(low)), str(show(high)), str(max(counts)) + (' · log scale' if is_log else ''))
    return Chart(title, _svg(title, [*axis, *_bars(stacks)]), data, note)


def scatter(
    title: str,
    points: Sequence[tuple[float, float, str, str]],
    names: tuple[str, str],
    link: Link,
    note: str = '',
) -> Chart | None:
    """Points (x, y, label, status), each a link that takes its label."""
    points = [point for point in points if math.isfinite(point[0]) and math.isfinite(point[1])]
    if not points:
        return None
    xs, ys = [point[0] for point in points], [point[1] for point in points]
    across, up = (max(xs) - min(xs)) or 1.0, (max(ys) - min(ys)) or 1.0
    marks = []
    for x, y, label, status in points:
        cx = LEFT + 4 + (WIDTH - LEFT - RIGHT - 8) * (x - min(xs)) / across
        cy = HEIGHT - BOTTOM - 4 - (HEIGHT - TOP - BOTTOM - 8) * (y - min(ys)) / up
        dot = Markup('<circle class="dot s-{}" cx="{:.1f}" cy="{:.1f}" r="2.6"/>').format(status, cx, cy)
        marks.append(_linked(dot, f'{label}: {names[0]} {x:g}, {names[1]} {y:g}', link(label)))
    axis = _axis(f'{min(xs):g}', f'{names[0]} {max(xs):g}', f'{names[1]} {min(ys):g} to {max(ys):g}')
    data = [{'ident': label, 'x': x, 'y': y, 'status': status} for x, y, label, status in points]
    return Chart(title, _svg(title, [*axis, *marks]), data, note)


def timeline(
    lanes: Sequence[tuple[str, Sequence[tuple[float, float, str, str, str | None]]]], note: str = ''
) -> Chart | None:
    """Who computed what when: lanes of (start, end, label, status, link), in seconds since the epoch."""
    spans = [span for _, spans in lanes for span in spans]
    if not spans:
        return None
    low, high = min(span[0] for span in spans), max(span[1] for span in spans)
    width, left = 1080.0, 170.0
    scale = (width - left - 8) / ((high - low) or 1.0)
    marks, shown = [], lanes[:MOST_LANES]
    for row, (name, spans_of_it) in enumerate(shown):
        y = 6 + row * LANE
        marks.append(_LABEL.format(left - 8, y + LANE - 5, 'r', printable(name)))
        marks.append(Markup('<path class="axis" d="M{} {}H{}"/>').format(left, y + LANE - 1, width - 8))
        for start, end, label, status, href in spans_of_it:
            x = left + (start - low) * scale
            bar = _rect(f's-{status}', x, y + 2, max(1.2, (end - start) * scale - 0.4), LANE - 5)
            marks.append(_linked(bar, f'{label}: {in_words(end - start)}, {status}', href))
    height = 6 + len(shown) * LANE + 18
    marks += [
        _LABEL.format(left, height - 4, 'l', _clock(low, high - low)),
        _LABEL.format(width - 8, height - 4, 'r', _clock(high, high - low)),
    ]
    more = f'{len(lanes) - len(shown)} more workers are left out' if len(lanes) > len(shown) else ''
    data = [{'worker': name, 'runs': len(spans_of_it)} for name, spans_of_it in lanes]
    said = ' · '.join(filter(None, (note, more)))
    return Chart('workers over time', _svg('workers over time', marks, height, width), data, said)


def share_bar(counts: Sequence[tuple[str, int]]) -> Markup:
    """A bar of states: (class, number), side by side."""
    total, x, marks = sum(number for _, number in counts) or 1, 0.0, []
    for kind, number in counts:
        if number:
            wide = max(0.6, 100 * number / total)
            marks.append(_rect(kind, x, 0, wide, 6))
            x += wide
    scale = 100 if x <= 100 else x
    return Markup(
        '<svg class="share" viewBox="0 0 {:.1f} 6" preserveAspectRatio="none" aria-hidden="true">{}</svg>'
    ).format(scale, Markup('').join(marks))


_STEPS = (
    1e-3, 2e-3, 5e-3, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800,
    3600, 7200, 14400, 21600, 43200, 86400,
)  # fmt: skip


def _round_step(least: float) -> float:
    """A number of seconds that people count in, no less than that."""
    found = next((step for step in _STEPS if step >= least), None)
    return found if found is not None else 86400.0 * math.ceil(least / 86400)


def _iso(when: float) -> str:
    return datetime.fromtimestamp(when, UTC).isoformat(timespec='milliseconds').replace('+00:00', 'Z')


def _clock(when: float, within: float) -> str:
    """A time as one reads it where all of it is within so many seconds."""
    here = datetime.fromtimestamp(when).astimezone()
    if within >= 3 * 86400:
        return f'{here:%Y-%m-%d}'
    return f'{here:%d %b %H:%M}' if within >= 86400 else f'{here:%H:%M:%S}'
