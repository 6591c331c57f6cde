"""One resource: ``show``, ``logs``, ``diff`` and ``explain``."""

from __future__ import annotations

import contextlib
import itertools
import os
import shlex
import sys
import time
from typing import TYPE_CHECKING, Any

import click

from .. import directory, fileops
from ..activity import attempt_folder, differences
from ..errors import ResourceError
from ..records import moment
from ..sanitize import Harmless, printable, size
from . import output
from .arguments import ARGS, BASE, COLL, IDENT, JSON
from .loading import opened

if TYPE_CHECKING:
    from collections.abc import Iterator

    from ..handle import Resource
    from ..project import Project

MOST_NAMED = 10  # of what a resource used, and of its inputs, `show` shows; --json has all
LOOKS = 20  # at a resource that is computed anew each time
LONGEST_RESULT = 300  # characters of a result that `show` shows; --json has all of it
LOOK_AT_LOG = 0.1  # seconds between two looks at a log that is followed
LOOK_AT_STATUS = 0.5  # seconds between two looks at whether its resource is still pending
CHUNK = 1 << 16  # bytes of a log in memory at once


# --- show ------------------------------------------------------------------------------------------


@click.command(
    epilog="""\b
Examples:
  hadrosaur show base books moby-dick
  hadrosaur show base books moby-dick --json | jq .result
"""
)
@BASE
@COLL
@IDENT
@JSON
def show(base: str, collection: str, ident: str, as_json: bool) -> None:
    """Show one resource: status, times, args, result or error, files.

    Also earlier attempts, and the program that computed it.
    """
    with opened(base) as project:
        resource = _of_one_run(project, collection, ident)
        if as_json:
            output.write_json(_document(resource))
        else:
            output.write_fields(_fields(resource))


def _of_one_run(project: Project, collection: str, ident: str) -> Resource:
    """Return the resource with its entry, both of the same run."""
    for tries_left in reversed(range(LOOKS)):
        resource = project.get(collection, ident)
        try:
            if resource.entry is not None:
                return resource
        except ResourceError:
            if not tries_left:
                raise
    raise AssertionError('unreachable')


def _document(resource: Resource) -> dict[str, Any]:
    return {
        **resource.entry.as_json(),
        'status': resource.status,
        'result': resource.result,
        'traceback': resource.error,
        'attempts': resource.attempts,
        'program': resource.provenance,
        'progress': output.progress(resource.progress),
        'paths': resource.paths,
    }


def _fields(resource: Resource) -> Iterator[tuple[str, Any]]:
    entry = resource.entry
    phase = f' ({entry.phase})' if entry.phase else ''
    yield 'collection', resource.collection
    yield 'ident', resource.ident
    yield 'status', resource.status + phase
    yield 'progress', resource.progress
    yield 'args', output.json_text(entry.args)
    yield 'attempt', entry.attempt
    yield 'version', entry.version
    yield 'queued', output.local(entry.queued_at)
    yield 'started', output.local(entry.started_at)
    yield 'finished', output.local(entry.finished_at)
    yield 'took', output.seconds(entry.duration)
    yield 'cpu', output.seconds(entry.cpu_seconds)
    yield 'memory', size(entry.max_rss)
    yield 'ran on', f'{entry.host}, process {entry.pid}' if entry.host else None
    yield from _program(resource.provenance)
    yield 'used', _some([f'{use.collection}/{use.ident}' for use in entry.uses])
    yield 'inputs', _some(entry.inputs)
    yield from _what_came_of_it(resource)
    for line in entry.history:
        when = output.local(moment(line.get('finished_at') or line.get('started_at') or ''))
        why = f'{line.get("error_type")}: {line.get("error") or ""}' if line.get('error_type') else None
        words = filter(None, (str(line.get('status')), when, why))
        yield f'attempt {line.get("attempt")}', output.shortened('  '.join(words), LONGEST_RESULT)
    for name, path in resource.paths.items():
        yield 'directory' if name == 'base' else os.path.basename(path.rstrip('/')), path


def _program(told: dict[str, Any] | None) -> Iterator[tuple[str, Any]]:
    """Describe the program that computed it; a note that was edited by hand may contain anything."""
    if not told:
        return
    argv, git, packages = (told.get(name) for name in ('argv', 'git', 'packages'))
    if isinstance(argv, list):
        yield 'program', output.shortened(shlex.join(map(str, argv)), LONGEST_RESULT)
    yield 'by', f'{told.get("user")}, with Python {told.get("python")}, hadrosaur {told.get("hadrosaur")}'
    if isinstance(git, dict):
        yield 'commit', f'{git.get("commit")}{", and changes since" if git.get("dirty") else ""}'
    if isinstance(packages, dict) and packages:
        listed = ', '.join(f'{name} {version}' for name, version in packages.items())
        yield 'packages', output.shortened(listed, LONGEST_RESULT)


def _some(names: list[str]) -> str | None:
    """Join the first names, and say how many more there are."""
    more = f' and {len(names) - MOST_NAMED} more' if len(names) > MOST_NAMED else ''
    return f'{", ".join(names[:MOST_NAMED])}{more}' if names else None


def _what_came_of_it(resource: Resource) -> Iterator[tuple[str, Any]]:
    entry = resource.entry
    if resource.status == 'error':
        yield 'error', f'{entry.error_type}: {entry.error}'
        yield 'error group', entry.error_group
    elif resource.status == 'completed':
        yield 'result', output.shortened(output.json_text(resource.result), LONGEST_RESULT)


# --- logs ------------------------------------------------------------------------------------------


@click.command(
    epilog="""\b
Examples:
  hadrosaur logs base books moby-dick
  hadrosaur logs base books moby-dick -f --stderr
  hadrosaur logs base books moby-dick --error
"""
)
@BASE
@COLL
@IDENT
@click.option('-f', '--follow', is_flag=True, help='Print new output while the resource is pending.')
@click.option('--stderr', 'name', flag_value='stderr', help='Print standard error.')
@click.option('--error', 'name', flag_value='error', help='Print the traceback.')
@click.option('--raw', is_flag=True, help='Do not escape control sequences on a terminal.')
@click.option(
    '--attempt',
    type=click.IntRange(min=1),
    metavar='N',
    help='Print an earlier attempt whose files were kept.',
)
def logs(
    base: str, collection: str, ident: str, follow: bool, name: str | None, raw: bool, attempt: int | None
) -> None:
    """Print the output of one resource.

    A pipe or a file gets the bytes as they are. A terminal gets colours, but other control sequences are
    shown as text, since they could move the cursor, retitle the window or type for you.

    With -f, new output is printed until the resource is completed or ends in error. If it is computed again
    meanwhile, the new log follows the old one.
    """
    with opened(base) as project:
        resource = project.get(collection, ident)
        path = resource.paths[name or 'stdout']
        if attempt is not None:
            path = os.path.join(attempt_folder(resource, attempt), os.path.basename(path))
        log = _Log(path, raw=raw or not output.is_terminal(), follow=follow)
        try:
            log.pass_on()
            while follow and attempt is None and resource.status == 'pending':
                resource = _after_a_while(project, resource, log)
                log.pass_on()
        finally:
            log.end()


def _after_a_while(project: Project, resource: Resource, log: _Log) -> Resource:
    """Return the resource a little later, passing on what is logged meanwhile."""
    until = time.monotonic() + LOOK_AT_STATUS
    while time.monotonic() < until:
        time.sleep(LOOK_AT_LOG)
        log.pass_on()
    return project.get(resource.collection, resource.ident)


class _Log:
    """A growing file; read from its beginning again if it is truncated, replaced, or another run's."""

    def __init__(self, path: str, *, raw: bool, follow: bool = True) -> None:
        self._path = path
        self._is_followed = follow
        self._run: str | None = None
        self._run = self._run_now()
        self._harmless = None if raw else Harmless()
        self._offset = 0
        self._inode = -1

    def pass_on(self) -> None:
        """Write what is new in it to stdout."""
        try:
            file = os.open(self._path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK)
        except FileNotFoundError:
            return
        try:
            self._copy(file)
        finally:
            os.close(file)

    def _copy(self, file: int) -> None:
        found = os.fstat(file)
        if found.st_ino != self._inode or found.st_size < self._offset:
            self._offset = 0
        self._inode = found.st_ino
        while data := os.pread(file, CHUNK, self._offset):
            run = self._run_now()  # a run empties its logs after it has said in the record that it begins
            if run == self._run:
                self._offset += len(data)
                self._write(data)
                continue
            if self._offset and not self._is_followed:
                output.note('it was computed anew meanwhile: what follows is the log of the new run')
            self._run, self._offset = run, 0
        sys.stdout.buffer.flush()

    def _run_now(self) -> str | None:
        """Return the run that the log belongs to; if its record cannot be read, the last known one."""
        place = os.path.dirname(self._path)
        with contextlib.suppress(OSError), fileops.opened(place, fileops.LOOK) as folder:
            run = (directory.read_record(folder) or {}).get('run')
            return run if isinstance(run, str) else self._run
        return self._run

    def _write(self, data: bytes, *, end: bool = False) -> None:
        if self._harmless is not None:
            data = self._harmless(data, end=end).encode(sys.stdout.encoding, 'backslashreplace')
        sys.stdout.buffer.write(data)

    def end(self) -> None:
        """Flush the end of the log."""
        self._write(b'', end=True)
        sys.stdout.buffer.flush()


# --- diff ------------------------------------------------------------------------------------------


@click.command(
    epilog="""\b
Examples:
  hadrosaur diff base books moby-dick              the last two attempts
  hadrosaur diff base books moby-dick 2 3
"""
)
@BASE
@COLL
@IDENT
@click.argument('numbers', type=click.IntRange(min=1), nargs=-1, metavar='[N N]')
def diff(base: str, collection: str, ident: str, numbers: tuple[int, ...]) -> None:
    """Compare two attempts of a resource.

    Prints the differences of args, result, traceback and logs in the format of `diff -u`; nothing if there
    are none. The files of earlier attempts are kept only with keep_attempts=N of the collection.
    """
    if len(numbers) not in (0, 2):
        raise click.UsageError('give two numbers of attempts, or none for the last two')
    with opened(base) as project:
        resource = project.get(collection, ident)
        last = resource.entry.attempt or 1
        before, after = numbers or (last - 1, last)
        for line in differences(resource, before, after):
            print(printable(line))


# --- explain ---------------------------------------------------------------------------------------


@click.command(
    epilog="""\b
Examples:
  hadrosaur explain base books moby-dick
  hadrosaur explain base books moby-dick --args '{"year": 1851}'
"""
)
@BASE
@COLL
@IDENT
@ARGS
@JSON
def explain(base: str, collection: str, ident: str, args: dict[str, Any] | None, as_json: bool) -> None:
    """Tell whether a resource would be computed, and why.

    Also tells whether it is stale: which arg or version differs, and through which resources. Version and
    expiry are those of the last program that opened the index. The policies of your module are not known to
    this command; use `hadrosaur run MODULE:PROJ COLL IDENT -n` to include them.
    """
    with opened(base) as project:
        found = project.explain(collection, ident, args)
    if as_json:
        differences = [each._asdict() for each in found.differences]
        output.write_json({**found._asdict(), 'differences': differences})
        return
    print(printable(f'{"would be computed" if found.computes else "would not be computed"}: {found.reason}'))
    for each in found.differences:
        print(printable(f'  {each.what}: {output.json_text(each.old)}, now {output.json_text(each.new)}'))
    for one, used in itertools.pairwise(found.chain):
        print(printable(f'  {one} used {used}'))
