"""The page: ``web`` and ``report``."""

from __future__ import annotations

import contextlib
import os
import sys
from typing import TYPE_CHECKING

import click

from ..errors import HadrosaurError, ProjectError
from ..sanitize import printable, size
from . import output
from .arguments import BASE, SOME_COLL
from .loading import loaded, opened

if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import BinaryIO

    from ..project import Project

MB = 1 << 20


@click.command(
    epilog="""\b
Examples:
  hadrosaur web base
  hadrosaur web base --app jobs:proj           retry and cancel from the page
  ssh -L 8080:127.0.0.1:8080 there hadrosaur web base --port 8080
"""
)
@BASE
@click.option('--host', default='127.0.0.1', show_default=True, help='Address to listen on.')
@click.option('--port', type=click.IntRange(0, 65535), default=0, help='Port; 0 picks a free one.')
@click.option('--app', 'target', metavar='MODULE:PROJ', help='Allow the page to compute, cancel and delete.')
@click.option('--open', 'is_opened', is_flag=True, help='Open the page in a browser.')
def web(base: str, host: str, port: int, target: str | None, is_opened: bool) -> None:
    """Show a base directory in a browser.

    Runs until Ctrl-C. The printed address contains a key; whoever opens it may look. Without --app the page
    cannot change anything. Needs the extra web: pip install 'hadrosaur[web]'.
    """
    with _extra():
        from ..web.serving import serve
    acting = None if target is None else _of_this_base(loaded(target), base)
    with opened(base) as project:
        serve(project, host, port, acting=acting, is_opened=is_opened, say=_say)


@contextlib.contextmanager
def _extra() -> Iterator[None]:
    try:
        yield
    except ImportError as error:
        raise HadrosaurError(f'the page needs {error.name}', hint="pip install 'hadrosaur[web]'")


def _say(address: str) -> None:
    print(address, flush=True)
    output.note('Ctrl-C ends it')


def _of_this_base(acting: Project, base: str) -> Project:
    if not os.path.samefile(acting.path, base):
        raise ProjectError(f'--app names the project of {acting.base!r}, not that of {base!r}')
    return acting


# --- report ----------------------------------------------------------------------------------------


@click.command(
    epilog="""\b
Examples:
  hadrosaur report base -o report.html
  hadrosaur report base thumbs -o thumbs.html --images 50
"""
)
@BASE
@SOME_COLL
@click.option('-o', '--output', 'target', type=click.Path(dir_okay=False), default='report.html',
              show_default=True, help='File to write; - is standard output.')  # fmt: skip
@click.option('--images', type=click.IntRange(min=0), default=8, show_default=True, metavar='MB',
              help='Maximum total size of images.')  # fmt: skip
def report(base: str, collection: str | None, target: str, images: int) -> None:
    """Write a report on a base directory as one HTML file.

    The file opens without a network. It holds counts, charts, failures by cause, some failures of each cause
    with their logs, the latest rows, and images of up to 512 kB each. What was left out is listed at its end.
    Needs the extra web: pip install 'hadrosaur[web]'.
    """
    with _extra():
        from ..web.report import Report
    with opened(base) as project:
        made = Report(project, collection, images * MB)
        with _written(target) as file:
            for piece in made.parts():
                file.write(piece.encode('utf-8', 'backslashreplace'))
    if os.path.isfile(target):
        output.note(f'{printable(target)}: {size(os.path.getsize(target))}')


@contextlib.contextmanager
def _written(target: str) -> Iterator[BinaryIO]:
    """Open a file that replaces the target only once it is complete."""
    if target == '-':
        yield sys.stdout.buffer
        sys.stdout.buffer.flush()
        return
    path = os.path.realpath(target)
    if not os.path.isdir(os.path.dirname(path)):
        raise click.UsageError(f'there is no folder {printable(os.path.dirname(target))!r} to write to')
    if os.path.exists(path) and not os.path.isfile(path):  # a pipe or a device
        with open(path, 'wb') as file:
            yield file
        return
    part = f'{path}.{os.getpid()}.part'
    try:
        with open(part, 'xb') as file:
            yield file
        os.replace(part, path)
    except BaseException:
        with contextlib.suppress(OSError):
            os.unlink(part)
        raise
