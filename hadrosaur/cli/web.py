"""The page: ``web``, ``report`` and ``top``."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import click

from ..errors import HadrosaurError, ProjectError
from . import output
from .arguments import BASE
from .loading import loaded, opened

if TYPE_CHECKING:
    from ..project import Project


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
@click.option('--port', type=click.IntRange(0, 65535), default=0, help='Port; 0: one that is free.')
@click.option('--app', 'target', metavar='MODULE:PROJ', help='Allow computing, cancelling and removing.')
@click.option('--open', 'is_opened', is_flag=True, help='Open it in a browser.')
def web(base: str, host: str, port: int, target: str | None, is_opened: bool) -> None:
    """Show a base directory in a browser.

    Until Ctrl-C. The address that is printed holds a key; who opens it may look. Without --app nothing can
    be changed from the page. Needs the extra web: pip install 'hadrosaur[web]'.
    """
    try:
        from ..web.serving import serve
    except ImportError as error:
        raise HadrosaurError(f'the page needs {error.name}', hint="pip install 'hadrosaur[web]'")
    acting = None if target is None else _of_this_base(loaded(target), base)
    with opened(base) as project:
        serve(project, host, port, acting=acting, is_opened=is_opened, say=_say)


def _say(address: str) -> None:
    print(address, flush=True)
    output.note('Ctrl-C ends it')


def _of_this_base(acting: Project, base: str) -> Project:
    if not os.path.samefile(acting.path, base):
        raise ProjectError(f'--app names the project of {acting.base!r}, not that of {base!r}')
    return acting
