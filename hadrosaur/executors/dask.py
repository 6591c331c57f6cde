"""A Dask cluster: ``executor=Client(…)`` or ``executor='dask:tcp://host:port'`` (extra ``dask``).

Dask is the engine beyond one machine. Its tasks are hosts of workers (see `_host`), so a function that
kills its process never kills a Dask worker. The base directory must be seen by every worker under the
same absolute path; one that does not see it says so at once. Dask runs a task up to three times when
its worker dies; the run id in each job makes that harmless.
"""

from __future__ import annotations

import importlib
import socket
import time
from typing import TYPE_CHECKING, Any

from ..errors import ExecutorUnavailable
from . import _chunk_host
from .futures import FuturesExecutor

if TYPE_CHECKING:
    from ._chunk_host import Chunk
    from .base import Listener

PATIENCE = 5  # seconds to reach a scheduler


class DaskExecutor(FuturesExecutor):
    """Hands chunks to a `dask.distributed.Client`, or to a new one of an address."""

    def __init__(
        self, listener: Listener, workers: int | None, client: Any, threads: int | None = None
    ) -> None:
        self._own = connect(client.removeprefix('dask:')) if isinstance(client, str) else None
        super().__init__(listener, workers, self._own or client, threads)

    def _threads_of_each(self) -> int | None:
        return None  # Dask sees to it, on each of its machines

    def _count_workers(self) -> int:
        return max(1, int(sum(self._foreign.nthreads().values())))

    def _send(self, chunk: Chunk) -> Any:
        # pure=False: the same orders again are other work, not a cached result.
        return self._foreign.submit(_chunk_host.run_chunk, chunk, pure=False)

    def _withdrawn(self, future: Any) -> bool:
        return False  # cancelling a dask future forgets it, and does not stop what runs

    def close(self) -> None:
        """Give back the connection, if it is ours."""
        super().close()
        if self._own is not None:
            self._own.close()


def connect(address: str) -> Any:
    """A client of the scheduler at ``address``. Raises ExecutorUnavailable."""
    try:
        client: Any = importlib.import_module('distributed').Client
    except ImportError:
        raise ExecutorUnavailable('dask is not installed', hint="pip install 'hadrosaur[dask]'")
    try:
        _await_listener(address)
        return client(address, timeout=PATIENCE, set_as_default=False)
    except (OSError, TimeoutError, ValueError) as error:
        raise ExecutorUnavailable(
            f'no dask scheduler answers at {address}: {error}', hint='start one with `dask scheduler`'
        )


def _await_listener(address: str) -> None:
    """Raises OSError where nobody listens: a Client that does not connect is noisy, and slow to end."""
    scheme, _, rest = address.rpartition('://')
    host, _, port = rest.rpartition(':')
    if scheme not in ('', 'tcp', 'tls'):
        return  # dask knows what to make of it
    deadline = time.monotonic() + PATIENCE
    while True:
        try:
            socket.create_connection((host.strip('[]'), int(port)), PATIENCE).close()
            return
        except ConnectionRefusedError:
            if time.monotonic() >= deadline:
                raise
            time.sleep(0.1)  # a scheduler may just be starting
