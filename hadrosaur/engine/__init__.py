"""Many resources: bounded submission, retries, sharing with other processes, cancel.

A `Dispatcher` hands jobs to an executor and writes what comes back into the index; a `Batch` feeds
one from the user's idents and yields resources as they finish; `Background` keeps one for single
resources that are computed while the program goes on.
"""

from .background import Background
from .batch import Batch
from .dispatcher import EXECUTORS, check_executor

__all__ = ['EXECUTORS', 'Background', 'Batch', 'check_executor']
