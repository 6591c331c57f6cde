"""The collections of a project: which function computes them, and how."""

from __future__ import annotations

import contextlib
import os
import sys
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, get_args

from . import (
    canonical,
    capture,
    context,
    dependencies,
    fileops,
    inputs,
    limits,
    redefinition,
    reuse,
    worker_setup,
)
from .directory import STATUS
from .errors import (
    ArgsChangedWarning,
    DuplicateCollection,
    InvalidArgs,
    InvalidIdent,
    ProjectError,
    ResourceError,
    StaleWarning,
    UnknownCollection,
    VersionChangedWarning,
    warn,
)
from .loaded import loaded
from .records import CollectionSpec, Facts

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from .basedir import BaseDirectory
    from .records import Entry

_AGAIN = 'recompute=True, or --recompute, computes it again'
_STRICTEST_FIRST = ('error', 'recompute', 'warn', 'keep')
Policy = Literal['warn', 'recompute', 'error', 'keep']
POLICIES = get_args(Policy)
LEAST_MEMORY = 1_000_000  # bytes; an interpreter takes more
MOST_DELAY = 1e9  # seconds before a retry: no clock of the system takes much more


class Collection(NamedTuple):
    """A registered function and the options for computing its resources (see `Project.resource`)."""

    name: str
    function: Callable[..., Any]
    spec: CollectionSpec
    background: bool = False
    retries: int = 0
    retry_delay: float = 0.0
    retry_backoff: float = 1.0
    max_retry_delay: float | None = None
    on_args_change: Policy = 'warn'
    on_version_change: Policy = 'warn'
    prepared: worker_setup.Prepared | None = None  # the function with its setup
    columns: tuple[tuple[str, str], ...] = ()  # names, and the parts of args and results that they mean
    on_upstream_change: Policy = 'keep'
    on_input_change: Policy = 'keep'

    @property
    def program(self) -> Callable[..., Any] | worker_setup.Prepared:
        """What computes a resource: the function, together with its setup if it has one."""
        return self.prepared or self.function

    @property
    def is_registered(self) -> bool:
        """Whether its function and policies are known; False if the collection is only on disk."""
        return self.function is not _not_registered

    @property
    def is_versioned(self) -> bool:
        """Whether a saved result must be compared with its record before it is returned."""
        is_dated = self.spec.version is not None or self.spec.expires_after is not None
        return is_dated or self.looks_at_origin

    @property
    def looks_at_origin(self) -> bool:
        """Whether inputs or upstream resources must be checked before a saved result is returned."""
        return self.on_upstream_change != 'keep' or self.on_input_change != 'keep'

    @property
    def facts(self) -> Facts:
        """What makes its resources stale."""
        policies = {**self._policies(), 'age': 'recompute'}
        cured = frozenset(why for why, policy in policies.items() if policy == 'recompute')
        return Facts(self.spec.version, self.spec.expires_after, cured)  # type: ignore[arg-type]

    def _policies(self) -> dict[str, Policy]:
        return {
            'args': self.on_args_change,
            'version': self.on_version_change,
            'age': 'recompute',
            'input': self.on_input_change,
            'upstream': self.on_upstream_change,
        }

    @property
    def needs_worker(self) -> bool:
        """Whether computing it needs a process that can be killed, or somebody who waits meanwhile."""
        return self.spec.needs_process or bool(self.retries and self.retry_delay)

    def delay_before(self, retry: int) -> float:
        """Return the delay in seconds before a retry (1 is the first)."""
        most = MOST_DELAY if self.max_retry_delay is None else self.max_retry_delay
        try:
            return min(self.retry_delay * self.retry_backoff ** (retry - 1), most)
        except OverflowError:
            return most

    def is_outdated(
        self,
        ident: str,
        record: dict[str, Any] | None,
        args: str | None,
        base: BaseDirectory | None = None,
    ) -> bool:
        """Return whether the policies say that a completed resource is to be computed again.

        Args:
            ident: The resource's ident.
            record: Its record.json.
            args: Canonical JSON of the args given; None if none were: then they are not compared.
            base: Path of the base directory, for policies on inputs and upstream resources.

        Raises:
            InvalidArgs, ResourceError: A policy is ``'error'``.
        """
        whys: list[str] = reuse.differs(record or {}, args, self.spec)
        causes = self.causes(ident, record or {}, base) if base is not None and self.looks_at_origin else {}
        whys += causes
        if not whys:
            return False
        policy, why = self.strictest(whys)
        if policy in ('recompute', 'keep'):
            return policy == 'recompute'
        category = {'args': ArgsChangedWarning, 'version': VersionChangedWarning}.get(why, StaleWarning)
        said = {
            'args': 'was computed with other args',
            'version': 'was computed by another version of its function',
        }
        message = f'{self.name}/{ident} {said.get(why) or f"is stale: {causes[why]}"}'
        if policy == 'error':
            refusal = InvalidArgs if why == 'args' else ResourceError
            raise refusal(message, collection=self.name, ident=ident, hint=_AGAIN)
        warn(f'{message}; the saved result is returned ({_AGAIN})', category)
        return False

    def causes(self, ident: str, record: dict[str, Any], base: BaseDirectory) -> dict[str, str]:
        """Why it is stale by what it was computed from, as far as the policies ask: 'input', 'upstream'."""
        found: dict[str, str] = {}
        if self.on_input_change != 'keep' and (what := self.changed_input(ident, record)):
            found['input'] = f'its input {what}'
        if self.on_upstream_change != 'keep':
            is_cured = self.on_upstream_change == 'recompute'
            upstream = dependencies.cause(
                base.path, (self.name, ident), record, base.facts(), own=False, only_cured=is_cured
            )
            if upstream is not None:
                found['upstream'] = upstream.because
        return found

    def changed_input(self, ident: str, record: dict[str, Any]) -> str | None:
        """Return how an input file has changed, or that there are other files now."""
        lines = dependencies.input_lines(record)
        if what := inputs.changed(lines):
            return what
        if self.prepared is None or self.prepared.inputs is None or 'inputs' not in record:
            return None
        args = record.get('args')
        return inputs.renamed(self.prepared.inputs, lines, ident, args if isinstance(args, dict) else {})

    def is_wanted_anew(self, ident: str, entry: Entry, args: str | None, *, recompute: bool) -> bool:
        """Return whether somebody else's result must be computed again, as it differs from the request.

        Args:
            ident: The resource's ident.
            entry: The row of that run.
            args: Canonical JSON of the args given; None if none were.
            recompute: A recompute was requested, so any other result is useless.

        Raises:
            InvalidArgs, ResourceError: A policy is ``'error'``.
        """
        record = {
            'args': entry.args,
            'version': entry.version,
            'finished_at': entry.raw('finished_at'),
        }
        if entry.status == 'completed' and not recompute:
            return self.is_outdated(ident, record, args)
        whys = reuse.differs(record, args, self.spec)
        return bool(whys) if entry.status == 'completed' else 'args' in whys

    def strictest(self, whys: list[str]) -> tuple[str, str]:
        """Return (policy, reason) of the difference that decides what is done."""
        policies = self._policies()
        return min(((policies[why], why) for why in whys), key=lambda each: _STRICTEST_FIRST.index(each[0]))

    def check(self) -> None:
        """Raise ValueError for an invalid option."""
        if isinstance(self.retries, bool) or not isinstance(self.retries, int) or self.retries < 0:
            raise ValueError(f'retries must be a whole number from 0 up, not {self.retries!r}')
        runs = self.spec.runs_per_worker
        if runs is not None and (isinstance(runs, bool) or not isinstance(runs, int) or runs < 1):
            raise ValueError(f'runs_per_worker must be a whole number from 1 up, or None, not {runs!r}')
        memory = self.spec.memory
        if memory is not None and (isinstance(memory, bool) or not isinstance(memory, int)):
            raise ValueError(
                f"memory must be a number of bytes, a text such as '2 GB' or '1.5 GiB', or None: {memory!r}"
            )
        if memory is not None and memory < LEAST_MEMORY:
            raise ValueError(
                f"memory is {memory} bytes, and no program runs in that; write the unit, as in memory='2 GB'"
            )
        at_once = self.spec.at_once
        if at_once is not None and (
            isinstance(at_once, bool) or not isinstance(at_once, int) or not 1 <= at_once <= limits.MOST
        ):
            raise ValueError(f'at_once must be a whole number from 1 up, or None, not {at_once!r}')
        for name, value, least in (
            ('retry_delay', self.retry_delay, 0),
            ('retry_backoff', self.retry_backoff, 1),
        ):
            if not _is_number(value) or not value >= least:
                raise ValueError(f'{name} must be a number from {least} up, not {value!r}')
        for name, seconds in (
            ('timeout', self.spec.timeout),
            ('expires_after', self.spec.expires_after),
            ('max_retry_delay', self.max_retry_delay),
        ):
            if seconds is not None and (not _is_number(seconds) or not seconds > 0):
                raise ValueError(
                    f'{name} must be a number of seconds above 0, a timedelta, or None, not {seconds!r}'
                )
        kept = self.spec.keep_attempts
        if isinstance(kept, bool) or not isinstance(kept, int) or kept < 0:
            raise ValueError(f'keep_attempts must be a whole number from 0 up, not {kept!r}')
        most = self.spec.index_result
        if isinstance(most, bool) or not isinstance(most, int) or most < 0:
            raise ValueError(f'index_result must be a number of bytes, or False, not {most!r}')
        for name in ('on_args_change', 'on_version_change', 'on_upstream_change', 'on_input_change'):
            if getattr(self, name) not in POLICIES:
                raise ValueError(_choose(name, POLICIES, getattr(self, name)))
        if self.prepared is not None:
            worker_setup.refuse(self.prepared)
        if self.spec.capture not in capture.WAYS:
            raise ValueError(_choose('capture', capture.WAYS, self.spec.capture))


def _is_number(value: object) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _choose(name: str, choices: tuple[str, ...], given: object) -> str:
    return f'{name} must be one of {", ".join(map(repr, choices))}, not {given!r}'


class Registry:
    """The collections of a project by name: registered ones, and those that exist only on disk."""

    def __init__(self, base: BaseDirectory, has_rows: Callable[[str], bool] = lambda name: False) -> None:
        self._base = base
        self._has_rows = has_rows
        self._known: dict[str, Collection] = {}
        self._left_out: frozenset[str] = frozenset()
        self._cells: dict[str, redefinition.Cell | None] = {}  # that registered them
        self.find = self._known.get
        """The registered collection of that name, or None: the fast way."""

    def add(self, collection: Collection) -> None:
        """Register a collection and create its folder.

        Registering the same function again is allowed, as a notebook cell or module may be run twice (see
        redefinition.py).

        Raises:
            DuplicateCollection: Another function has the name.
            ProjectError, ValueError: The folder cannot be created, or an option is invalid.
        """
        if not callable(collection.function):
            raise TypeError(
                f'the collection {collection.name!r} needs a function that computes its resources, not '
                f'{collection.function!r}'
            )
        collection.check()
        known = self._known.get(collection.name)
        cell, before = redefinition.cell(), self._cells.get(collection.name)
        is_run_again = cell and before and cell.id == before.id and cell.run != before.run
        if known and not is_run_again and not redefinition.is_same(known.function, collection.function):
            raise DuplicateCollection(
                f'the collection {collection.name!r} has a function already: '
                f'{redefinition.place(known.function)}; another is {redefinition.place(collection.function)}',
                hint='give one of the two collections another name',
            )
        if not context.in_worker:
            self._make_folder(collection)
        self._known[collection.name] = collection
        self._base.registered[collection.name] = collection.facts
        self._cells[collection.name] = cell

    def _make_folder(self, collection: Collection) -> None:
        try:
            os.makedirs(collection.spec.path, exist_ok=True)
        except (FileExistsError, NotADirectoryError):
            raise ProjectError(
                f'{collection.spec.path!r} is no folder, so the collection {collection.name!r} has no place',
                hint='move away what stands there',
            )
        except OSError:  # a base that can only be read, a full disk: a fetch that has to compute says so
            pass

    def get(self, name: str) -> Collection:
        """Return a registered collection. Raises UnknownCollection."""
        collection = self._known.get(name)
        if collection is None:
            raise self._unknown(name)
        lock = self._lock()
        if collection.spec.lock != lock:
            collection = collection._replace(spec=collection.spec._replace(lock=lock))
            self._known[name] = collection
        return collection

    def get_any(self, name: str) -> Collection:
        """Return a collection that is registered, or that has a folder or rows. Raises UnknownCollection."""
        if name in self._known:
            return self.get(name)
        with contextlib.suppress(InvalidIdent):
            folder = canonical.collection_folder(name)
            if os.path.isdir(self._base.collection_path(folder)) or self._has_rows(name):
                spec = CollectionSpec(name, folder, self._base.path, self._base.given, lock=self._lock())
                return Collection(name, _not_registered, spec)
        raise self._unknown(name)

    def _lock(self) -> str:
        return self._base.lock

    def functions(self) -> list[Any]:
        """The registered functions, in the order of registration."""
        return [each.function for each in list(self._known.values()) if each.is_registered]

    def columns(self) -> dict[str, dict[str, str]]:
        """By registered collection, the parts of args and results that it declares as columns."""
        return {name: dict(known.columns) for name, known in self._known.items()}

    def names(self) -> list[str]:
        """Names of all collections: registered here, or found on disk."""
        found = map(collection_of, collection_folders(self._base.path))
        return sorted({*self._known, *(name for name in found if name is not None)})

    def _unknown(self, name: Any) -> UnknownCollection:
        if name in self._left_out:
            return UnknownCollection(
                f'the function of {name!r} was left out when this Project was pickled: it cannot be imported',
                hint='define it in a module',
            )
        import difflib

        known = self.names()
        if name in known:
            return UnknownCollection(
                f'no function is registered for the collection {name!r} here, though its folder is there',
                hint='register it before fetching; get and query read what it holds',
            )
        close = difflib.get_close_matches(str(name), known, 1)
        if close:
            hint = f'did you mean {close[0]!r}?'
        else:
            hint = f'known are: {", ".join(known)}' if known else 'no collection is registered'
        return UnknownCollection(f'no collection is called {name!r}', hint=hint)

    def carried(self, *, everything: bool) -> tuple[dict[str, Collection], frozenset[str]]:
        """What is pickled with a Project: (collections, names of those that cannot be pickled)."""
        carried = {
            name: known
            for name, known in self._known.items()
            if everything
            or (
                _is_importable(known.function)
                and (not known.prepared or all(map(_is_importable, known.prepared.parts)))
            )
        }
        return carried, self._left_out | (self._known.keys() - carried.keys())

    def restore(self, carried: dict[str, Collection], left_out: frozenset[str]) -> None:
        """Restore what `carried` returned."""
        self._known.update(carried)
        self._base.registered.update({name: known.facts for name, known in carried.items()})
        self._left_out = left_out


def collection_of(folder: str) -> str | None:
    """Return the collection that a folder's name stands for; None if it is not a collection's."""
    try:
        return canonical.ident_of_folder(folder)
    except InvalidIdent:
        return None


def collection_folders(base: str) -> Iterator[str]:
    """Yield the names of the folders in a base that hold at least one resource.

    Raises OSError if they cannot be read: an unreadable folder must not count as absent.
    """
    try:
        with fileops.opened(base, fileops.FOLDER & ~os.O_NOFOLLOW) as top:  # the base itself may be a link
            names = sorted(fileops.list_folders(top))
    except OSError as error:
        if not fileops.is_closed(error):
            raise
        return
    for name in names:
        if not name.startswith('.') and _holds_resources(f'{base}/{name}'):
            yield name


def _holds_resources(path: str) -> bool:
    try:
        with fileops.opened(path) as folder:
            return any(_has_status(name, folder) for name in fileops.list_folders(folder))
    except OSError as error:
        if not fileops.is_closed(error):
            raise
        return False


def _has_status(name: str, folder: int) -> bool:
    try:
        os.stat(f'{name}/{STATUS}', dir_fd=folder, follow_symlinks=False)
    except OSError as error:
        if not fileops.is_closed(error):
            raise
        return False
    return True


def whereabouts(function: Any) -> tuple[str, str]:
    """Return (module, qualified name) of a function, or of a callable object's class."""
    kind = function if hasattr(function, '__qualname__') else type(function)
    return (str(getattr(function, '__module__', '')), str(getattr(kind, '__qualname__', repr(function))))


def _is_importable(function: Any) -> bool:
    module, name = whereabouts(function)
    if module == '__main__':
        return _is_spawning()  # the child makes our __main__ first
    found: Any = sys.modules.get(module)
    for part in name.split('.'):
        found = getattr(found, part, None)
    return found is function


def _is_spawning() -> bool:
    context = loaded('multiprocessing.context')
    return context is not None and context.get_spawning_popen() is not None


def _not_registered(*_: Any) -> Any:
    raise UnknownCollection('no function is registered for this collection here')
