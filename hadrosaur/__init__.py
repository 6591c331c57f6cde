"""Compute a million keyed resources in parallel; each has a folder you can open and a row you can query.

>>> from hadrosaur import Project
>>> proj = Project('./base_directory')
>>> @proj.resource('collection_name')
... def compute_resource(ident, args, subdir):
...     return {'ident': ident}
>>> proj.fetch('collection_name', 'uniq_ident123')['result']
{'ident': 'uniq_ident123'}
"""

from .compute import current
from .errors import (
    ArgsChangedWarning,
    BaseIsNotADirectory,
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
    Interrupted,
    InvalidArgs,
    InvalidIdent,
    NotAProject,
    NotOurIndex,
    ProjectError,
    ResourceError,
    ResourceFailed,
    ResourceNotFound,
    ResultNotSerializable,
    TimedOut,
    UnknownCollection,
    UnknownExecutor,
    UpgradeFailed,
    VersionChangedWarning,
    WorkerDied,
)
from .handle import Resource
from .project import Project
from .records import CheckReport, Counts, Entry, ErrorGroup, Explanation, Finding, ReindexReport
from .runner import Batch

__version__ = '1.0.0a1'

__all__ = [
    'ArgsChangedWarning',
    'BaseIsNotADirectory',
    'Batch',
    'Cancelled',
    'CheckReport',
    'Counts',
    'CycleError',
    'DuplicateCollection',
    'Entry',
    'ErrorGroup',
    'ExecutorFault',
    'ExecutorUnavailable',
    'Explanation',
    'Finding',
    'HadrosaurError',
    'HadrosaurWarning',
    'IndexBusy',
    'IndexFault',
    'IndexTooNew',
    'Interrupted',
    'InvalidArgs',
    'InvalidIdent',
    'NotAProject',
    'NotOurIndex',
    'Project',
    'ProjectError',
    'ReindexReport',
    'Resource',
    'ResourceError',
    'ResourceFailed',
    'ResourceNotFound',
    'ResultNotSerializable',
    'TimedOut',
    'UnknownCollection',
    'UnknownExecutor',
    'UpgradeFailed',
    'VersionChangedWarning',
    'WorkerDied',
    'current',
]
