"""Every exception and warning of hadrosaur.

::

    HadrosaurError(RuntimeError)
    ├─ ProjectError
    │   ├─ NotAProject
    │   ├─ BaseIsNotADirectory
    │   ├─ BaseUnusable
    │   ├─ DuplicateCollection
    │   └─ UnknownCollection(LookupError)
    ├─ ResourceError
    │   ├─ InvalidIdent(ValueError)
    │   ├─ InvalidArgs(TypeError)
    │   ├─ ResourceNotFound(LookupError)
    │   ├─ InputNotFound(LookupError)
    │   ├─ Unreadable
    │   ├─ ResourceFailed
    │   │   ├─ Interrupted
    │   │   ├─ TimedOut
    │   │   ├─ MemoryExceeded
    │   │   ├─ Cancelled
    │   │   └─ WorkerDied
    │   ├─ ResultNotSerializable(TypeError)
    │   └─ CycleError
    ├─ TransferFault
    │   ├─ BadArchive
    │   └─ TransferConflict
    ├─ IndexFault
    │   ├─ IndexBusy
    │   ├─ IndexTooNew
    │   ├─ NotOurIndex
    │   └─ UpgradeFailed
    └─ ExecutorFault
        ├─ UnknownExecutor
        └─ ExecutorUnavailable

    HadrosaurWarning(UserWarning)
    ├─ ArgsChangedWarning
    ├─ VersionChangedWarning
    └─ StaleWarning

Each error says what happened, where, and in ``hint`` the next step. ``exit_code`` is what the command line
exits with. An exception of your own function is not one of these: it is stored with the resource, in
``res.error``.
"""

import os
import sys
import warnings
from typing import Any

from .loaded import loaded


class HadrosaurError(RuntimeError):
    """Base class of all errors that hadrosaur raises.

    Attributes:
        message: What happened, and where.
        hint: What to do next, or None.
        exit_code: Exit code of the command line.
    """

    exit_code = 2

    def __init__(self, message: str = '', *, hint: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint

    def __str__(self) -> str:
        return f'{self.message} ({self.hint})' if self.hint else self.message


class ProjectError(HadrosaurError):
    """A problem with the base directory or a collection."""


class NotAProject(ProjectError):
    """The directory holds no hadrosaur project."""

    exit_code = 3


class BaseIsNotADirectory(ProjectError):
    """The base path is a file, or cannot be made a directory."""


class BaseUnusable(ProjectError):
    """Files in the base cannot be read or written, or are of a newer release."""

    exit_code = 5


class DuplicateCollection(ProjectError):
    """A different function is already registered under this collection name."""


class UnknownCollection(ProjectError, LookupError):
    """There is no collection of this name."""

    exit_code = 3


class ResourceError(HadrosaurError):
    """A problem with one resource.

    Attributes:
        collection: Name of the collection; '' if unknown.
        ident: The ident as it was given.
    """

    def __init__(
        self, message: str = '', *, collection: str = '', ident: Any = '', hint: str | None = None
    ) -> None:
        super().__init__(message, hint=hint)
        self.collection = collection
        self.ident = ident


class InvalidIdent(ResourceError, ValueError):
    """The ident or collection name cannot be used, for the reason given."""


class InvalidArgs(ResourceError, TypeError):
    """The args are not a JSON-serialisable dict."""


class ResourceNotFound(ResourceError, LookupError):
    """The resource was never requested, or was removed."""

    exit_code = 3


class InputNotFound(ResourceError, LookupError):
    """An input file of a resource is missing or cannot be read."""


class Unreadable(ResourceError):
    """The resource's files cannot be read at this moment; nothing was computed or changed.

    Causes are too many open files, a failing disk, or missing permissions.
    """

    exit_code = 5


class ResourceFailed(ResourceError):
    """The resource ended in error; raised by ``res.value`` and by ``fetch(…, raise_error=True)``.

    If the function ran in this process, its exception is the ``__cause__``. A run that was cut off raises one
    of the subclasses.

    Attributes:
        traceback_text: The text of error.log.
    """

    exit_code = 1

    def __init__(
        self,
        message: str = '',
        *,
        collection: str = '',
        ident: Any = '',
        traceback_text: str = '',
        hint: str | None = None,
    ) -> None:
        super().__init__(message, collection=collection, ident=ident, hint=hint)
        self.traceback_text = traceback_text


class ResultNotSerializable(ResourceError, TypeError):
    """The function returned a value that JSON cannot represent; the message names its JSON path."""

    exit_code = 1


class CycleError(ResourceError):
    """Resources wait for each other in a cycle, or one for itself, through nested fetches."""

    exit_code = 1


class Interrupted(ResourceFailed):
    """The run was cut off by Ctrl-C, a killed process or a power cut."""


class TimedOut(ResourceFailed):
    """The run exceeded the collection's ``timeout`` and was killed."""


class MemoryExceeded(ResourceFailed):
    """The run exceeded the collection's ``memory`` and was killed; the message gives its peak."""


class Cancelled(ResourceFailed):
    """The run was cancelled and killed."""


class WorkerDied(ResourceFailed):
    """The worker process died; the message names the signal or exit code."""


class TransferFault(HadrosaurError):
    """Export, import, merge or backup failed."""


class BadArchive(TransferFault):
    """The file is damaged, or was not written by `Project.export`."""

    exit_code = 5


class TransferConflict(TransferFault):
    """Different resources of the same names exist already; the message names them."""

    exit_code = 4


class IndexFault(HadrosaurError):
    """The index cannot be used.

    Attributes:
        is_lasting: True if waiting does not help.
    """

    exit_code = 5
    is_lasting = False


class IndexBusy(IndexFault):
    """Another process kept the index locked for too long."""


class IndexTooNew(IndexFault):
    """The index was made by a newer release of hadrosaur."""

    is_lasting = True


class NotOurIndex(IndexFault):
    """The file is not an index of this project."""

    is_lasting = True


class UpgradeFailed(IndexFault):
    """A migration of the index failed and was rolled back."""


class ExecutorFault(HadrosaurError):
    """The executor cannot run anything."""

    exit_code = 5


class UnknownExecutor(ExecutorFault):
    """There is no executor of this name or type."""

    exit_code = 2


class ExecutorUnavailable(ExecutorFault):
    """The executor needs a package that is not installed, or does not answer."""

    exit_code = 2


class HadrosaurWarning(UserWarning):
    """Base class of all warnings; the work goes on."""


class ArgsChangedWarning(HadrosaurWarning):
    """A completed resource was fetched with other args; the saved result was returned."""


class VersionChangedWarning(HadrosaurWarning):
    """A completed resource was computed by another version of the function; the saved result was returned."""


class StaleWarning(HadrosaurWarning):
    """Something that a resource was computed from has changed; the saved result was returned."""


def log(message: str, *values: object) -> None:
    """Log to the logger ``hadrosaur`` at level INFO, in programs that have imported `logging`.

    For events that need nobody's attention: a worker that died, an index that was rebuilt, recovered runs of
    processes that are gone.
    """
    if logging := loaded('logging'):  # else nobody has set it up to listen
        logger = logging.getLogger('hadrosaur')
        if not logger.handlers:
            logger.addHandler(logging.NullHandler())  # the program decides where records go
        logger.info(message, *values)


_OURS = os.path.dirname(os.path.abspath(__file__)) + os.sep


def warn(message: str, category: type[HadrosaurWarning] = HadrosaurWarning) -> None:
    """Issue a warning that points at the first frame outside of the package."""
    frame = sys._getframe(1)
    level = 2
    while frame.f_back is not None and _is_ours(frame.f_code.co_filename):
        frame = frame.f_back
        level += 1
    warnings.warn(message, category, stacklevel=level)


def _is_ours(file: str) -> bool:
    # A with block of ours may stand between: it goes through contextlib.
    return file.startswith(_OURS) or os.path.basename(file) == 'contextlib.py'
