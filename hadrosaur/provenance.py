"""Provenance: a note about each computing process, in ``.hadrosaur/provenance/<digest>.json``.

Records and rows hold the digest. Before the first run the note gets what is known at once: user, host,
Python, release and command line (0.3 ms). Git and package versions (10 ms) are added later: when a run begins
at least a second after the first, or at close or exit.
"""

from __future__ import annotations

import atexit
import contextlib
import functools
import hashlib
import json
import os
import pwd
import re
import sys
import time
import weakref
from typing import TYPE_CHECKING, Any

from . import fileops, private_files
from .basedir import HIDDEN, HOST
from .errors import BaseUnusable
from .locks import Guarded
from .records import format_time

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from types import CodeType

PROVENANCE = 'provenance'
"""Folder of the notes, each named by the digest of its first version."""
SOON = 1.0  # seconds after the first run before the slow part is added
GIT_PATIENCE = 5.0  # seconds before git is given up
FRESH = 10.0  # seconds that the answer of git is cached
_MOST_WORDS, _MOST_TEXT = 100, 1000  # of a command line, and characters of a word
_DIGEST = re.compile('[0-9a-f]{16}')

_all: weakref.WeakSet[Provenance] = weakref.WeakSet()


class Provenance(Guarded):
    """The note of this process in one base directory.

    Args:
        base: Absolute path of the base.
        functions: Gives the registered functions, whose imports are examined.
    """

    def __init__(self, base: str, functions: Callable[[], Iterable[Any]] = tuple) -> None:
        super().__init__()
        self._base = base
        self._functions = functions
        self._in_child()
        _all.add(self)

    def _in_child(self) -> None:
        super()._in_child()
        self._digest: str | None = None
        self._document: dict[str, Any] = {}
        self._due = 0.0  # when to add the slow part; 0.0: added, or not begun
        self._is_begun = False

    def digest(self) -> str | None:
        """The name of the note, written at the first call; None if it cannot be written."""
        if not self._is_begun:
            with self._guard:
                if not self._is_begun:
                    self._begin()
        elif self._due and time.monotonic() > self._due:
            self.complete()
        return self._digest

    def _begin(self) -> None:
        self._document = _known_at_once()
        data = json.dumps(self._document, sort_keys=True).encode()
        digest = hashlib.blake2b(data, digest_size=8).hexdigest()
        if self._write(digest):
            self._digest, self._due = digest, time.monotonic() + SOON
        self._is_begun = True

    def complete(self) -> None:
        """Add the slow part, unless that is done."""
        with self._guard:
            if self._due and self._digest is not None:
                self._due = 0.0
                functions = list(self._functions())
                more = {'git': _git(_folder_of(functions)), 'packages': _packages(functions)}
                self._document.update(more)
                self._write(self._digest)

    def _write(self, digest: str) -> bool:
        data = json.dumps(self._document, indent=1, ensure_ascii=False).encode(errors='backslashreplace')
        try:
            with private_files.own_folder(self._base, HIDDEN, PROVENANCE, make=True) as folder:
                fileops.replace(f'{digest}.json', data[: private_files.LONGEST_NOTE] + b'\n', folder)
        except (OSError, BaseUnusable):  # a full or read-only disk: computing goes on without
            return False
        return True


@atexit.register
def complete_all() -> None:
    """Complete every note of this process."""
    # After Ctrl-C Python ends by SIGINT, but `eval` makes it forget that, and so does loading a named tuple.
    if getattr(sys, 'last_type', None) is KeyboardInterrupt:
        return
    for each in list(_all):
        each.complete()


def read(base: str, digest: Any) -> dict[str, Any] | None:
    """The note of that name in a base (an absolute path); None if there is none."""
    if not isinstance(digest, str) or not _DIGEST.fullmatch(digest):
        return None
    complete_all()
    with contextlib.suppress(OSError, ValueError, RecursionError, BaseUnusable):
        with private_files.own_folder(base, HIDDEN, PROVENANCE) as folder:
            found = json.loads(private_files.read_note(f'{digest}.json', folder)[0])
        return found if isinstance(found, dict) else None
    return None


def keep(base: str, digest: Any, told: Any) -> None:
    """Store a note from another base, unless one of that name exists."""
    if not isinstance(digest, str) or not _DIGEST.fullmatch(digest) or not isinstance(told, dict):
        return
    data = json.dumps(told, indent=1, ensure_ascii=False).encode(errors='backslashreplace') + b'\n'
    with (
        contextlib.suppress(OSError, BaseUnusable),
        private_files.own_folder(base, HIDDEN, PROVENANCE, make=True) as folder,
    ):
        if len(data) <= private_files.LONGEST_NOTE and not fileops.is_there(f'{digest}.json', folder):
            private_files.put_first(f'{digest}.json', data, folder)


def _known_at_once() -> dict[str, Any]:
    from . import __version__

    return {
        'started_at': format_time(time.time()),
        'python': '.'.join(map(str, sys.version_info[:3])),
        'hadrosaur': __version__,
        'argv': [str(word)[:_MOST_TEXT] for word in getattr(sys, 'argv', ())[:_MOST_WORDS]],
        'executable': sys.executable,
        'directory': _directory(),
        'user': _user(),
        'host': HOST,
        'pid': os.getpid(),
        'git': None,
        'packages': {},
    }


def _directory() -> str | None:
    try:
        return os.getcwd()
    except OSError:  # the directory was removed
        return None


def _user() -> str:
    for name in ('LOGNAME', 'USER'):
        if os.environ.get(name):
            return os.environ[name]
    try:
        return pwd.getpwuid(os.geteuid()).pw_name
    except KeyError:  # as in a container that knows no names
        return str(os.geteuid())


# --- git -------------------------------------------------------------------------------------------


def _folder_of(functions: list[Any]) -> str | None:
    """The folder of the first function's source, or of the main program, or the working directory."""
    files = [code.co_filename for code in map(_code, functions) if code is not None]
    files.append(getattr(sys.modules.get('__main__'), '__file__', None) or '')
    return next(
        (os.path.dirname(os.path.abspath(file)) for file in files if os.path.isfile(file)), _directory()
    )


_said: dict[str, tuple[float, dict[str, Any] | None]] = {}  # by folder: (time, answer)


def _git(folder: str | None) -> dict[str, Any] | None:
    """Commit, branch, and whether tracked files were modified; None without git."""
    if folder is None or not _has_git(folder):
        return None
    known = _said.get(folder)
    if known is None or time.monotonic() - known[0] > FRESH:
        known = _said[folder] = (time.monotonic(), _ask_git(folder))
    return known[1]


def _has_git(folder: str) -> bool:
    while not os.path.exists(os.path.join(folder, '.git')):
        above = os.path.dirname(folder)
        if above == folder:
            return False
        folder = above
    return True


def _ask_git(folder: str) -> dict[str, Any] | None:
    import subprocess  # 5 ms, which a first fetch need not wait for

    command = ('git', '-c', 'core.fsmonitor=false', '-C', folder, 'status', '--porcelain=v2', '--branch',
               '--untracked-files=no')  # fmt: skip
    env = {**os.environ, 'GIT_OPTIONAL_LOCKS': '0', 'LC_ALL': 'C'}
    try:
        done = subprocess.run(
            command, capture_output=True, timeout=GIT_PATIENCE, env=env, stdin=subprocess.DEVNULL
        )
    except (OSError, subprocess.SubprocessError, ValueError):
        return None
    lines = done.stdout.decode(errors='replace').splitlines()
    told = dict(line[2:].split(' ', 1) for line in lines if line.startswith('# branch.') and ' ' in line[2:])
    if done.returncode or 'branch.oid' not in told:
        return None
    is_dirty = any(not line.startswith('#') for line in lines)
    commit = told['branch.oid'] if told['branch.oid'] != '(initial)' else None  # before the first one
    return {'commit': commit, 'branch': told.get('branch.head'), 'dirty': is_dirty}


# --- versions --------------------------------------------------------------------------------------


def _code(function: Any) -> CodeType | None:
    code: CodeType | None = getattr(getattr(function, '__wrapped__', function), '__code__', None)
    return code


def _imports(code: CodeType) -> Iterator[str]:
    """Top-level names of modules that a function imports at run time."""
    import dis

    for step in dis.get_instructions(code):
        if step.opname == 'IMPORT_NAME' and step.argval:
            yield step.argval.partition('.')[0]
    for inner in code.co_consts:
        if isinstance(inner, type(code)):
            yield from _imports(inner)


def _packages(functions: list[Any]) -> dict[str, str]:
    """Versions of the distributions that are loaded here, or that the functions import."""
    tops = {name.partition('.')[0] for name in list(sys.modules)}
    for code in map(_code, functions):
        tops.update(_imports(code) if code is not None else ())
    tops -= sys.stdlib_module_names
    tops -= {'hadrosaur', '__main__', '__mp_main__'}
    return _versions(frozenset(top for top in tops if not top.startswith('_')))


@functools.lru_cache(maxsize=8)
def _versions(tops: frozenset[str]) -> dict[str, str]:
    """From the names of ``*.dist-info`` folders; for modules of another name, from their RECORD files."""
    found: dict[str, str] = {}
    left = set(tops)
    others: list[tuple[str, str, str]] = []
    for site in dict.fromkeys(sys.path):
        try:
            folders = [name for name in os.listdir(site or '.') if name.endswith('.dist-info')]
        except OSError:
            continue
        for folder in sorted(folders):
            name, _, version = folder.removesuffix('.dist-info').partition('-')
            top = next((top for top in (name, name.lower()) if top in left), None)
            if top is not None:
                left.discard(top)
                found[name] = version
            else:
                others.append((f'{site}/{folder}/RECORD', name, version))
    for path, name, version in others if left else ():
        with contextlib.suppress(OSError), open(path, 'rb') as file:
            listed = file.read()
            for top in [top for top in left if f'\n{top}/__init__.py,'.encode() in b'\n' + listed]:
                left.discard(top)
                found[name] = version
    return dict(sorted(found.items()))
