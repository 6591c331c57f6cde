"""How much there is: ``du`` for people with full disks, ``metrics`` for programs that watch."""

from __future__ import annotations

import heapq
import os
from typing import TYPE_CHECKING

import click

from .. import diskio, walking
from ..activity import prometheus
from ..directory import STORAGE
from ..shown import size
from . import output
from .arguments import BASE, JSON, SOME_COLL
from .output import Column
from .projects import opened

if TYPE_CHECKING:
    from collections.abc import Iterator

BLOCK = 512  # bytes of what stat calls a block, on every system


# --- du --------------------------------------------------------------------------------------------


@click.command(
    epilog="""\b
Examples:
  hadrosaur du base
  hadrosaur du base books --largest 20 --json
"""
)
@BASE
@SOME_COLL
@click.option('--largest', type=click.IntRange(min=0), default=10, show_default=True, metavar='N',
              help='Resources that are listed.')  # fmt: skip
@JSON
def du(base: str, collection: str | None, largest: int, as_json: bool) -> None:
    """Show what takes space on the disk.

    By collection, and the largest resources. Sizes are what the files take on the disk, in bytes; `storage`
    is the part that the functions wrote themselves. A file with several names in a resource counts once; no
    link is followed.
    """
    totals: dict[str, dict[str, int]] = {}
    found: list[tuple[int, str, str]] = []
    with opened(base) as project:
        if collection is not None:
            project._registry.get_any(collection)
        for name, ident, path in _folders(project.path, collection):
            taken, of_storage = _taken(path)
            total = totals.setdefault(name, {'resources': 0, 'bytes': 0, 'storage': 0})
            total['resources'] += 1
            total['bytes'] += taken
            total['storage'] += of_storage
            (heapq.heappush if len(found) < largest else heapq.heappushpop)(found, (taken, name, ident))
    found = sorted(found, reverse=True)[:largest]
    if as_json:
        listed = [{'collection': name, 'ident': ident, 'bytes': taken} for taken, name, ident in found]
        output.write_json({'collections': totals, 'largest': listed})
        return
    columns = [Column('collection', folded=True), Column('resources', right=True)]
    columns += [Column(name, size, right=True) for name in ('bytes', 'storage')]
    output.write_table(columns, ([name, *total.values()] for name, total in totals.items()))
    if found:
        print()
        columns = [
            Column('bytes', size, right=True),
            Column('collection', folded=True),
            Column('ident', folded=True),
        ]
        output.write_table(columns, found)


def _folders(base: str, only: str | None) -> Iterator[tuple[str, str, str]]:
    """(collection, ident, absolute path) of each folder that holds a resource."""
    for folder in walking.walk(base):
        if folder.entry is not None and only in (None, folder.collection):
            yield folder.collection, folder.entry.ident, f'{base}/{folder.name}'


def _taken(path: str) -> tuple[int, int]:
    """Bytes on the disk of all in a folder, and of its storage."""
    seen: set[tuple[int, int]] = set()
    try:
        with diskio.opened(path) as folder:
            inner = _sum(folder, seen, but=STORAGE)
            try:
                with diskio.opened(STORAGE, within=folder) as storage:
                    of_storage = _sum(storage, seen)
            except OSError:  # none, or a link
                of_storage = 0
            return inner + of_storage, of_storage
    except OSError:  # removed meanwhile
        return 0, 0


def _sum(folder: int, seen: set[tuple[int, int]], but: str = '') -> int:
    """Bytes of an open folder and of all in it, each file once."""
    total = os.fstat(folder).st_blocks * BLOCK
    with os.scandir(folder) as found:
        for entry in found:
            if entry.name == but:
                continue
            try:
                if entry.is_dir(follow_symlinks=False):
                    with diskio.opened(entry.name, within=folder) as inner:
                        total += _sum(inner, seen)
                    continue
                stat = entry.stat(follow_symlinks=False)
            except OSError:  # removed meanwhile, or not to be read
                continue
            if (key := (stat.st_dev, stat.st_ino)) not in seen:
                seen.add(key)
                total += stat.st_blocks * BLOCK
    return total


# --- metrics ---------------------------------------------------------------------------------------


@click.command(
    epilog="""\b
Examples:
  hadrosaur metrics base
  hadrosaur metrics base > /var/lib/node_exporter/hadrosaur.prom
"""
)
@BASE
def metrics(base: str) -> None:
    """Print counts and durations for Prometheus.

    In its text format, which node_exporter reads from a file, too.
    """
    with opened(base) as project:
        print(prometheus(project), end='')
