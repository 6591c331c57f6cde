"""Run one resource again, in this process: ``reproduce``."""

from __future__ import annotations

import os
import shutil
import sys
import tempfile
from typing import TYPE_CHECKING

import click

from . import output
from .arguments import COLL, IDENT, TARGET
from .exit_codes import DONE, FAILED
from .loading import loaded, registered

if TYPE_CHECKING:
    from ..handle import Resource
    from ..project import Project


@click.command(
    epilog="""\b
Examples:
  hadrosaur reproduce jobs:proj books moby-dick
  hadrosaur reproduce jobs:proj books moby-dick --keep
"""
)
@TARGET
@COLL
@IDENT
@click.option('--keep', is_flag=True, help='Keep the scratch directory and print its path.')
def reproduce(target: str, collection: str, ident: str, keep: bool) -> int:
    """Run one resource again in this process, in a scratch copy.

    The resource's last args are used, and output goes to the terminal, so that breakpoint() and debuggers
    work. The stored resource is not changed. Nested fetches work as always.

    Exit code: 1 if it ended in error; the traceback is shown.
    """
    with loaded(target) as project:
        registered(project, collection)
        stored = project.get(collection, ident)
        scratch = tempfile.mkdtemp(prefix='hadrosaur-')
        try:
            return _reproduced(project, stored, scratch)
        finally:
            if keep:
                output.note(f'the scratch directory is {scratch}')
            else:
                shutil.rmtree(scratch, ignore_errors=True)


def _reproduced(project: Project, stored: Resource, base: str) -> int:
    from ..project import Project as Scratch

    known = registered(project, stored.collection)
    with Scratch(base) as scratch:
        scratch.resource(
            known.name,
            capture='off',
            keep_storage=known.spec.keep_storage,
            version=known.spec.version,
            setup=known.prepared.setup if known.prepared else None,
        )(known.function)
        if known.spec.keep_storage:
            _copy_storage(stored, base)
        resource = scratch.fetch(known.name, stored.ident, stored.args)
        sys.stdout.flush()
        has_fetched = len(scratch.query()) > 1
    if has_fetched:  # those were computed where they belong; their rows are not there yet
        project.reindex(changed_only=True)
    return _tell(stored, resource)


def _copy_storage(stored: Resource, base: str) -> None:
    """Copy the storage of earlier runs, if the collection keeps it."""
    if os.path.isdir(stored.paths['storage']):
        path = os.path.join(base, *os.path.normpath(stored.paths['storage']).split(os.sep)[-3:])
        shutil.copytree(stored.paths['storage'], path, symlinks=True)


def _tell(stored: Resource, resource: Resource) -> int:
    took = output.seconds(resource.duration)
    if resource.status == 'error':
        print(resource.error or '', end='', file=sys.stderr)
        output.note(f'ended in error after {took}; the stored one is: {stored.status}')
        return FAILED
    value = output.shortened(output.json_text(resource.result), 300)
    same = stored.status == 'completed' and stored.result == resource.result
    before = 'the stored one has the same result' if same else f'the stored one is: {stored.status}'
    if stored.status == 'completed' and not same:
        before = 'the stored one has another result'
    output.note(f'completed in {took}; {before}')
    output.note(f'result: {value}')
    return DONE
