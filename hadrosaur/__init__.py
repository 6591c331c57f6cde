"""Run a Python function for millions of keys in parallel and keep every result on disk.

>>> from hadrosaur import Project
>>> proj = Project('./base_directory')
>>> @proj.resource('collection_name')
... def compute_resource(ident, args, subdir):
...     return {'ident': ident}
>>> proj.fetch('collection_name', 'uniq_ident123')['result']
{'ident': 'uniq_ident123'}
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

if sys.platform == 'win32':
    raise ImportError('hadrosaur runs on Linux and macOS; on Windows, use it in WSL (https://aka.ms/wsl)')

from .args_idents import grid, ident_of
from .context import RunContext, current
from .errors import (
    ArgsChangedWarning,
    BadArchive,
    BaseIsNotADirectory,
    BaseUnusable,
    Cancelled,
    CycleError,
    DuplicateCollection,
    ExecutorFault,
    ExecutorUnavailable,
    HadrosaurError,
    HadrosaurWarning,
    IndexBusy,
    IndexFault,
    IndexTooNew,
    InputNotFound,
    Interrupted,
    InvalidArgs,
    InvalidIdent,
    MemoryExceeded,
    NotAProject,
    NotOurIndex,
    ProjectError,
    ResourceError,
    ResourceFailed,
    ResourceNotFound,
    ResultNotSerializable,
    StaleWarning,
    TimedOut,
    TransferConflict,
    TransferFault,
    UnknownCollection,
    UnknownExecutor,
    Unreadable,
    UpgradeFailed,
    VersionChangedWarning,
    WorkerDied,
)
from .handle import Resource
from .records import (
    CheckReport,
    Counts,
    Difference,
    Entry,
    ErrorGroup,
    Explanation,
    Finding,
    Progress,
    ReindexReport,
    Use,
)

if TYPE_CHECKING:
    from .codes import code_of
    from .engine import Batch
    from .index import Query
    from .maintenance.gc import GcReport
    from .maintenance.transfer import TransferReport
    from .project import Project
    from .project.collection import Collection
    from .project.in_flight import CancelRequest

__version__ = '1.0.0a1'

__all__ = [
    'ArgsChangedWarning',
    'BadArchive',
    'BaseIsNotADirectory',
    'BaseUnusable',
    'Batch',
    'CancelRequest',
    'Cancelled',
    'CheckReport',
    'Collection',
    'Counts',
    'CycleError',
    'Difference',
    'DuplicateCollection',
    'Entry',
    'ErrorGroup',
    'ExecutorFault',
    'ExecutorUnavailable',
    'Explanation',
    'Finding',
    'GcReport',
    'HadrosaurError',
    'HadrosaurWarning',
    'IndexBusy',
    'IndexFault',
    'IndexTooNew',
    'InputNotFound',
    'Interrupted',
    'InvalidArgs',
    'InvalidIdent',
    'MemoryExceeded',
    'NotAProject',
    'NotOurIndex',
    'Progress',
    'Project',
    'ProjectError',
    'Query',
    'ReindexReport',
    'Resource',
    'ResourceError',
    'ResourceFailed',
    'ResourceNotFound',
    'ResultNotSerializable',
    'RunContext',
    'StaleWarning',
    'TimedOut',
    'TransferConflict',
    'TransferFault',
    'TransferReport',
    'UnknownCollection',
    'UnknownExecutor',
    'Unreadable',
    'UpgradeFailed',
    'Use',
    'VersionChangedWarning',
    'WorkerDied',
    'code_of',
    'current',
    'grid',
    'ident_of',
]


_LATER = {
    'Batch': '.engine',
    'CancelRequest': '.project.in_flight',
    'Collection': '.project.collection',
    'GcReport': '.maintenance.gc',
    'Project': '.project',
    'Query': '.index',
    'TransferReport': '.maintenance.transfer',
    'code_of': '.codes',
}  # loaded on first use: a worker needs none of them, and starts sooner


def __getattr__(name: str) -> Any:
    """Load `Project` and its companions on first use."""
    if name not in _LATER:
        raise AttributeError(f'module {__name__!r} has no attribute {name!r}')
    from importlib import import_module

    found = globals()[name] = getattr(import_module(_LATER[name], __name__), name)
    return found


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
