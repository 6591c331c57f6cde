"""Templates, and the words in which they show times, sizes and other people's text."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from functools import cache
from importlib.resources import files as resources
from typing import Any

import jinja2
from markupsafe import Markup, escape

from ..records import moment
from ..sanitize import lately, local, printable, seconds, size
from .addresses import address
from .charts import share_bar

DEEPEST, MOST_ITEMS, LONGEST = 6, 60, 400


@cache
def environment() -> jinja2.Environment:
    """All templates, autoescaped; a name that is not there is a mistake."""
    made = jinja2.Environment(
        autoescape=True,
        loader=jinja2.PackageLoader('hadrosaur.web'),
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
    )
    made.filters.update(ago=ago, seconds=seconds, size=size, printable=_printable, tree=tree, value=value)
    made.filters.update(percent=percent, number=number, time=time)
    made.globals.update(address=address, share_bar=share_bar, static=static)
    return made


def page(template: str, data: dict[str, Any]) -> bytes:
    """A template with its data. Text that is no UTF-8 is shown with escapes."""
    return environment().get_template(template).render(data).encode('utf-8', 'backslashreplace')


@cache
def static(name: str) -> str:
    """The text of a file of ours: style sheet, script, logo."""
    return resources('hadrosaur.web').joinpath('static', name).read_text('utf-8')


def _printable(text: Any) -> str:
    return '' if text is None else printable(str(text))


def time(text: str | None) -> Markup:
    """A time of the index, short, with the whole of it for who points at it."""
    when = moment(text) if isinstance(text, str) else None
    if when is None:
        return Markup('')
    return Markup('<time datetime="{}" title="{}">{}</time>').format(text, local(when), lately(when))


def ago(text: str | None) -> str:
    """How long ago a time of the index is."""
    when = moment(text) if isinstance(text, str) else None
    if when is None:
        return ''
    return f'{seconds(max(0.0, (datetime.now(UTC) - when).total_seconds()))} ago'


def number(value: int | None) -> str:
    """A count, with thin spaces between thousands."""
    return '' if value is None else f'{value:,}'.replace(',', '\u202f')


def percent(share: float | None) -> str:
    """A share; whole only where it is."""
    if share is None:
        return ''
    shown = min(99.9, 100 * share) if share < 1 else 100.0
    return f'{shown:.3g} %'


def value(cell: Any, column: str = '') -> Any:
    """A cell of a table as people read it."""
    if cell is None:
        return ''
    if column.endswith('_at'):
        return time(cell)
    if column in ('duration', 'cpu_seconds'):
        return seconds(cell)
    if column == 'max_rss':
        return size(cell)
    if isinstance(cell, float):
        return f'{cell:.6g}'
    return printable(cell) if isinstance(cell, str) else json.dumps(cell)


def tree(found: Any, depth: int = 0) -> Markup:
    """A JSON value that can be folded."""
    if isinstance(found, dict) and found:
        items = [(printable(str(key)), each) for key, each in list(found.items())[:MOST_ITEMS]]
    elif isinstance(found, list) and found:
        items = [(str(place), each) for place, each in enumerate(found[:MOST_ITEMS])]
    else:
        return _leaf(found)
    if depth >= DEEPEST:
        return _leaf(json.dumps(found))
    rows = [_branch(key, each, depth) for key, each in items]
    if len(found) > MOST_ITEMS:
        rows.append(Markup('<li class="dim">… {} more</li>').format(len(found) - MOST_ITEMS))
    return Markup('<ul class="tree">{}</ul>').format(Markup('').join(rows))


def _branch(key: str, found: Any, depth: int) -> Markup:
    if isinstance(found, (dict, list)) and found:
        what = f'{len(found)} {"keys" if isinstance(found, dict) else "items"}'
        is_open = Markup(' open') if depth < 1 else ''
        form = '<li><details{}><summary><b>{}</b> <i>{}</i></summary>{}</details></li>'
        return Markup(form).format(is_open, key, what, tree(found, depth + 1))
    return Markup('<li><b>{}</b> {}</li>').format(key, _leaf(found))


def _leaf(found: Any) -> Markup:
    kind = 'text' if isinstance(found, str) else 'number' if isinstance(found, (int, float)) else 'word'
    text = printable(found) if isinstance(found, str) else json.dumps(found)
    text = text if len(text) <= LONGEST else f'{text[:LONGEST]}… ({len(text)} characters)'
    return Markup('<span class="v-{}">{}</span>').format(kind, escape(text))
