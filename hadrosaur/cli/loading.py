"""Find the Project that a verb works on: a BASE to read, or the user's own ``MODULE:PROJ``."""

from __future__ import annotations

import contextlib
import importlib
import os
import sys
import traceback
from typing import TYPE_CHECKING, Any

import click

from ..errors import HadrosaurError
from ..sanitize import printable

if TYPE_CHECKING:
    from types import ModuleType, TracebackType

    from ..project import Project
    from ..registry import Collection


def opened(base: str) -> Project:
    """Open the project in a base directory without creating one. Raises NotAProject."""
    from ..project import Project

    return Project(base, create=False)


def registered(project: Project, collection: str) -> Collection:
    """Return the registered collection. Raises UnknownCollection."""
    return project._registry.get(collection)


def loaded(target: str) -> Project:
    """The Project that ``MODULE:PROJ`` names: a module's, or that of a file ``path/to/file.py``.

    The module's own output goes to stderr, since stdout is for data. Raises UsageError for whatever is
    wrong; what the module itself raises is shown as its own traceback.
    """
    name, _, attribute = target.rpartition(':')
    if not name or not attribute:
        raise click.UsageError(
            f'{target!r} is no MODULE:PROJ; write for example jobs:proj or path/to/jobs.py:proj'
        )
    is_file = name.endswith('.py') or os.sep in name
    with contextlib.redirect_stdout(sys.stderr):
        module = _of_file(name) if is_file else _of_name(name)
    return _project_in(module, name, attribute)


def _of_name(name: str) -> ModuleType:
    sys.path.insert(0, os.getcwd())
    return _imported(name, name)


def _of_file(path: str) -> ModuleType:
    """Import a file as its folder's module, so that worker processes find it under the same name."""
    folder, file = os.path.split(os.path.abspath(path))
    if not os.path.isfile(path):
        raise click.UsageError(f'there is no file {path!r}')
    name = file.removesuffix('.py')
    if '.' in name:
        raise click.UsageError(f'{path!r} cannot be imported: its name has a dot in it')
    sys.path.insert(0, folder)
    module = _imported(name, path)
    found = getattr(module, '__file__', None) or ''
    if not os.path.exists(found) or not os.path.samefile(found, path):
        raise click.UsageError(
            f'{path!r} cannot be imported: there is another module called {name!r}; rename the file'
        )
    return module


def _imported(name: str, shown: str) -> ModuleType:
    """Import a module of the user, which may raise anything."""
    try:
        return importlib.import_module(name)
    except (KeyboardInterrupt, HadrosaurError):  # ours says in one sentence what is wrong
        raise
    except SystemExit as error:
        raise click.UsageError(
            f'{shown!r} asked to exit with {error.code!r} while it was imported; put what it runs as a '
            "program below `if __name__ == '__main__':`"
        )
    except BaseException as error:
        if isinstance(error, ModuleNotFoundError) and f'{name}.'.startswith(f'{error.name}.'):
            raise click.UsageError(f'there is no module {shown!r} in {os.getcwd()!r} or on the path')
        print(_own_traceback(error), end='', file=sys.stderr)
        raise click.UsageError(f'{shown!r} raised {type(error).__name__} while it was imported')


def _own_traceback(error: BaseException) -> str:
    """Format the traceback without our frames and those of the import system at its top."""
    shown: TracebackType | None = error.__traceback__
    while shown is not None and _is_machinery(shown.tb_frame.f_code.co_filename):
        shown = shown.tb_next
    return ''.join(traceback.format_exception(type(error), error, shown))


def _is_machinery(file: str) -> bool:
    return file in (__file__, importlib.__file__) or file.startswith('<frozen importlib')


def _project_in(module: ModuleType, name: str, attribute: str) -> Project:
    from ..project import Project

    found: Any = module
    for part in attribute.split('.'):
        found = getattr(found, part, None)
    if isinstance(found, Project):
        return found
    there = [key for key, value in vars(module).items() if isinstance(value, Project)]
    hint = f'; it has {", ".join(f"{name}:{key}" for key in there)}' if there else '; it has none'
    what = 'is no Project' if found is not None else 'is not there'
    raise click.UsageError(printable(f'{attribute!r} in {name!r} {what}{hint}'))
