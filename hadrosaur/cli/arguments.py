"""Arguments and options that several verbs share: BASE, COLL, IDENT, filters, times and durations."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, TypeVar

import click

from .. import filters as parse
from ..records import STATUSES
from . import completion_values

if TYPE_CHECKING:
    from collections.abc import Callable

    Command = TypeVar('Command', bound=Callable[..., Any])
    Type = click.ParamType[Any]
else:
    Type = click.ParamType  # it takes no parameter before click 8.5


class Name(Type):
    """The ident of a resource or the name of a collection: UTF-8, whatever the locale."""

    name = 'text'

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        """Decode UTF-8 that Python has escaped, as it does under ``LC_ALL=C``."""
        text = str(value)
        if text.isascii():
            return text
        try:
            return text.encode('utf-8', 'surrogateescape').decode()
        except UnicodeError:  # not UTF-8: refused later, with a message that names it
            return text


class Span(Type):
    """Seconds: ``90``, ``90s``, ``5m``, ``2h``, ``7d``."""

    name = 'duration'

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        """Convert text to seconds."""
        if isinstance(value, float):
            return value
        try:
            return parse.span(value)
        except ValueError as error:
            self.fail(str(error), param, ctx)


class Moment(Type):
    """A point in time: ISO-8601, or a duration before now."""

    name = 'time'

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """Convert ``2h`` to a timedelta; pass ISO text on, which the Project reads as local time."""
        if not isinstance(value, str):
            return value
        try:
            return parse.point_in_time(value)
        except ValueError as error:
            self.fail(str(error), param, ctx)


class JSONObject(Type):
    """A JSON object."""

    name = 'json'

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """Convert text to a dict."""
        if isinstance(value, dict):
            return value
        try:
            parsed = json.loads(value)
        except (ValueError, RecursionError) as error:
            self.fail(f'{value!r} is not JSON: {error}', param, ctx)
        if not isinstance(parsed, dict):
            self.fail(f'{value!r} is no JSON object; write for example \'{{"year": 1851}}\'', param, ctx)
        return parsed


class Comparison(Type):
    """``KEY=VALUE`` or another comparison; the value is JSON if it parses, else text."""

    name = 'key=value'

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """Convert text to (key, operator, value)."""
        if isinstance(value, tuple):
            return value
        try:
            return parse.comparison(value)
        except ValueError as error:
            self.fail(str(error), param, ctx)


BASE = click.argument('base', type=click.Path(file_okay=False))
TARGET = click.argument('target', metavar='MODULE:PROJ', type=click.Path())
COLL = click.argument('collection', type=Name(), metavar='COLL', shell_complete=completion_values.collections)
SOME_COLL = click.argument(
    'collection', type=Name(), metavar='[COLL]', required=False, shell_complete=completion_values.collections
)
IDENT = click.argument('ident', type=Name(), metavar='IDENT', shell_complete=completion_values.idents)
IDENTS = click.argument(
    'idents', type=Name(), metavar='[IDENT]…', nargs=-1, shell_complete=completion_values.idents
)
IDENTS_FROM = click.option(
    '--idents-from',
    'source',
    type=click.File('rb'),
    metavar='FILE',
    help='Read idents from a file, one a line; - is standard input.',
)
ARGS = click.option(
    '--args', type=JSONObject(), metavar='JSON', help='Args for the function, as a JSON object.'
)
JSON = click.option('--json', 'as_json', is_flag=True, help='Write JSON.')


def together(*options: Callable[[Any], Any]) -> Callable[[Any], Any]:
    """Combine several options into one decorator, in the order in which help lists them."""

    def decorate(command: Command) -> Command:
        for option in reversed(options):
            command = option(command)
        return command

    return decorate


GROUP = click.option(
    '--group',
    'error_group',
    metavar='ID',
    multiple=True,
    help='Group of failures, as `errors` names it; repeatable.',
)
STATUS = click.option('--status', type=click.Choice(STATUSES), multiple=True, help='Status; repeatable.')
FILTERS = together(
    click.option(
        '--ident', type=Name(), metavar='GLOB', multiple=True, help='Ident, with * ? [ab]; repeatable.'
    ),
    click.option('--error-type', metavar='NAME', multiple=True,
                 help='Exception class or a base class of it, with or without module; repeatable.'),
    GROUP,
    click.option('--error', metavar='TEXT', multiple=True, help='Part of the error message; repeatable.'),
    click.option('--args', type=Comparison(), metavar='K=V', multiple=True,
                 help='Value of an arg; also K>V, K!=V, …; repeatable, all must hold.'),
    click.option('--result', type=Comparison(), metavar='K=V', multiple=True,
                 help='Value in the result: score=1, score>0.9, model.kind=svc; repeatable, all must hold.'),
    click.option('--since', type=Moment(), metavar='TIME', help='Finished since: 2h, 7d, 2026-01-31T18:00.'),
    click.option('--until', type=Moment(), metavar='TIME', help='Finished until.'),
    click.option('--min-duration', type=Span(), metavar='DURATION', help='Minimum duration: 90, 5m, 2h.'),
    click.option('--order-by', metavar='COLUMN', default='-finished_at', show_default=True,
                 help='Column or part (result.score); a leading - sorts descending.'),
    click.option('--limit', type=click.IntRange(min=0), metavar='N', help='Maximum number of rows.'),
)  # fmt: skip


def filters(given: dict[str, Any]) -> dict[str, Any]:
    """Convert the filters of a command line to those of `Project.query`."""
    several = ('status', 'ident', 'error_type', 'error_group', 'error')
    wanted: dict[str, Any] = {name: list(value) for name in several if (value := given.get(name))}
    for name in ('since', 'until', 'min_duration', 'order_by', 'limit', 'offset'):
        if given.get(name) is not None:
            wanted[name] = given[name]
    for name in ('args', 'result'):
        if given.get(name):
            wanted[name] = parse.wanted(given[name])
    return wanted
