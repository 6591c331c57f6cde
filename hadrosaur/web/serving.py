"""The server's life: a socket, a token, and an end at Ctrl-C."""

from __future__ import annotations

import ipaddress
import secrets
import socket
import webbrowser
from typing import TYPE_CHECKING

import uvicorn

from ..errors import HadrosaurError
from .server import make_app

if TYPE_CHECKING:
    from collections.abc import Callable

    from ..project import Project


def serve(
    project: Project,
    host: str,
    port: int,
    *,
    acting: Project | None = None,
    is_opened: bool = False,
    say: Callable[[str], None] = print,
) -> None:
    """Serve the page until Ctrl-C.

    Args:
        project: What is shown.
        host: Where to listen.
        port: Where to listen; 0: wherever it is free.
        acting: What computes and removes; None: the page only looks.
        is_opened: Open a browser.
        say: Is told the address, once it answers.

    Raises:
        HadrosaurError: It cannot listen there.
    """
    token = secrets.token_urlsafe(24)
    app = make_app(project, token, acting=acting, is_local=_is_local(host))
    bound = bind(host, port)
    shown = f'[{host}]' if ':' in host else host if host not in ('0.0.0.0', '::') else socket.gethostname()
    address = f'http://{shown}:{bound.getsockname()[1]}/?token={token}'
    config = uvicorn.Config(
        app, log_level='warning', access_log=False, server_header=False, date_header=False,
        timeout_graceful_shutdown=2, limit_concurrency=200, timeout_keep_alive=30, ws='none',
    )  # fmt: skip
    server = Server(config, app.state.site.end_streams)

    say(address)
    if is_opened:
        webbrowser.open(address)
    try:
        server.run(sockets=[bound])
    except KeyboardInterrupt:  # the end that is meant
        pass
    finally:
        bound.close()


class Server(uvicorn.Server):
    """Uvicorn, which first ends what has no end: open pages would be cut off with a traceback each."""

    def __init__(self, config: uvicorn.Config, end_streams: Callable[[], None]) -> None:
        super().__init__(config)
        self._end_streams = end_streams

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """End the streams and what waits for a client that does not read, then all else."""
        self._end_streams()
        for connection in list(self.server_state.connections):
            if (transport := getattr(connection, 'transport', None)) and transport.get_write_buffer_size():
                transport.abort()
        await super().shutdown(sockets)


def bind(host: str, port: int) -> socket.socket:
    """A socket that listens already: who is told the address may ask at once."""
    try:
        family, kind, protocol, _, place = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        bound = socket.socket(family, kind, protocol)
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        bound.bind(place)
        bound.listen(128)
    except OSError as error:
        raise HadrosaurError(
            f'{host}:{port} cannot be listened on: {error.strerror}', hint='choose another --port'
        )
    return bound


def _is_local(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == 'localhost'
