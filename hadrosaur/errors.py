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
    └─ VersionChangedWarning

Each error says what happened, where, and (in ``hint``) the next step. The same object serves a
program, the command line (``exit_code``) and a log. What a user's function raises is never turned
into one of these: it is stored with the resource and comes back as ``res.error``.
"""

import os
import sys
import warnings
from typing import Any


class HadrosaurError(RuntimeError):
    """Anything hadrosaur itself refuses or cannot do.

    Attributes:
        message: What happened, and where.
        hint: The next step, or None.
        exit_code: What the command line exits with.
    """

    exit_code = 2

    def __init__(self, message: str = '', *, hint: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint

    def __str__(self) -> str:
        return f'{self.message} ({self.hint})' if self.hint else self.message


class ProjectError(HadrosaurError):
    """The base directory or a collection is not what was asked for."""


class NotAProject(ProjectError):
    """The directory holds no hadrosaur project."""

    exit_code = 3


class BaseIsNotADirectory(ProjectError):
    """The base path is a file, or cannot be made a directory."""


class BaseUnusable(ProjectError):
    """What hadrosaur keeps in the base cannot be read or written, or is of a newer release."""

    exit_code = 5


class DuplicateCollection(ProjectError):
    """Two different functions were registered under one collection name."""


class UnknownCollection(ProjectError, LookupError):
    """No collection of that name."""

    exit_code = 3


class ResourceError(HadrosaurError):
    """Something about one resource.

    Attributes:
        collection: The collection's name, '' where it is not known.
        ident: The resource's ident as it was given.
    """

    def __init__(
        self, message: str = '', *, collection: str = '', ident: Any = '', hint: str | None = None
    ) -> None:
        super().__init__(message, hint=hint)
        self.collection = collection
        self.ident = ident


class InvalidIdent(ResourceError, ValueError):
    """The ident (or collection name) cannot name a resource."""


class InvalidArgs(ResourceError, TypeError):
    """The args are not a JSON object."""


class ResourceNotFound(ResourceError, LookupError):
    """The resource was never asked for, or is gone."""

    exit_code = 3


class Unreadable(ResourceError):
    """What stands on the disk cannot be read at this moment; nothing was computed and nothing changed.

    Too many files are open, the disk fails, or it belongs to somebody else.
    """

    exit_code = 5


class ResourceFailed(ResourceError):
    """The resource ended in error, and its value was asked for: ``res.value``, or ``raise_error=True``.

    What the function raised is the cause (``__cause__``) where it was called in this process. A run that
    was cut off is one of the subclasses.

    Attributes:
        traceback_text: What stands in error.log.
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
    """The function returned something that JSON cannot hold; the message names the JSON path."""

    exit_code = 1


class CycleError(ResourceError):
    """A resource asked, through nested fetches, for itself; or resources wait for each other in a ring."""

    exit_code = 1


class Interrupted(ResourceFailed):
    """The run was cut off: Ctrl-C, a killed process, a power cut."""


class TimedOut(ResourceFailed):
    """The run took longer than the collection's timeout and was killed."""


class MemoryExceeded(ResourceFailed):
    """The run took more than the collection's memory and was killed; the message names its peak."""


class Cancelled(ResourceFailed):
    """The run was cancelled and killed."""


class WorkerDied(ResourceFailed):
    """The process that ran the function died; the message names the signal."""


class TransferFault(HadrosaurError):
    """Resources cannot be brought from one place to another."""


class BadArchive(TransferFault):
    """The file holds something that no export of ours does; nothing that it holds was believed."""

    exit_code = 5


class TransferConflict(TransferFault):
    """Resources that are to come in are here already, and are others; the message names them."""

    exit_code = 4


class IndexFault(HadrosaurError):
    """The index cannot be used.

    Attributes:
        is_lasting: Waiting does not help: it cannot be where or what it was said to be.
    """

    exit_code = 5
    is_lasting = False


class IndexBusy(IndexFault):
    """Another process kept the index locked for too long."""


class IndexTooNew(IndexFault):
    """The index was made by a newer release of hadrosaur."""

    is_lasting = True


class NotOurIndex(IndexFault):
    """The file at the index's place was not made by hadrosaur."""

    is_lasting = True


class UpgradeFailed(IndexFault):
    """A migration failed; it was rolled back."""


class ExecutorFault(HadrosaurError):
    """The executor cannot run anything."""

    exit_code = 5


class UnknownExecutor(ExecutorFault):
    """No executor of that name or kind."""

    exit_code = 2


class ExecutorUnavailable(ExecutorFault):
    """The executor needs something that is not installed, or does not answer."""

    exit_code = 2


class HadrosaurWarning(UserWarning):
    """Something a user should look at, though the work goes on."""


class ArgsChangedWarning(HadrosaurWarning):
    """A computed resource was asked for with other args; the saved result was returned."""


class VersionChangedWarning(HadrosaurWarning):
    """A computed resource was made by another version of the function; the saved result was returned."""


def log(message: str, *values: object) -> None:
    """Log to the logger ``hadrosaur`` at level INFO, in programs that have imported `logging`.

    For events that need nobody's attention: a worker that died, an index that was rebuilt, recovered runs of
    processes that are gone.
    """
    if logging := sys.modules.get('logging'):  # else nobody has set it up to listen
        logger = logging.getLogger('hadrosaur')
        if not logger.handlers:
            logger.addHandler(logging.NullHandler())  # the program decides where records go
        logger.info(message, *values)


_OURS = os.path.dirname(os.path.abspath(__file__)) + os.sep


def warn(message: str, category: type[HadrosaurWarning] = HadrosaurWarning) -> None:
    """Warn, and point at the user's line: that of the first frame outside of the package."""
    frame = sys._getframe(1)
    level = 2
    while frame.f_back is not None and _is_ours(frame.f_code.co_filename):
        frame = frame.f_back
        level += 1
    warnings.warn(message, category, stacklevel=level)


def _is_ours(file: str) -> bool:
    # A with block of ours may stand between: it goes through contextlib.
    return file.startswith(_OURS) or os.path.basename(file) == 'contextlib.py'
