"""Who may ask, and what an answer may do in a browser.

A page on one's own machine can be reached by every site that is open in the browser, so the address bar
is not enough: the Host must be ours (DNS rebinding), whoever changes something must come from a page of
ours (Origin), and each request shows a token, which the printed address hands over once and a cookie
keeps. What is shown is other people's text: no script, style or picture from anywhere else is loaded.
"""

from __future__ import annotations

import hashlib
import hmac
import ipaddress
import socket
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from starlette.datastructures import Headers, MutableHeaders, QueryParams
from starlette.requests import cookie_parser
from starlette.responses import PlainTextResponse, RedirectResponse, Response

from .addresses import with_params

if TYPE_CHECKING:
    from collections.abc import Callable

    from starlette.types import ASGIApp, Message, Receive, Scope, Send

LONGEST_ADDRESS = 8192
"""Bytes of a path with its parameters."""

LONGEST_FORM = 65_536
"""Bytes of what a form sends."""

POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; "
    "form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
)

SANDBOX = "sandbox; default-src 'none'; style-src 'unsafe-inline'; frame-ancestors 'none'"
"""For files that functions left: whatever is in them, nothing of it runs or is fetched."""

_ALWAYS = {
    'content-security-policy': POLICY,
    'x-content-type-options': 'nosniff',
    'referrer-policy': 'same-origin',
    'cross-origin-opener-policy': 'same-origin',
    'cross-origin-resource-policy': 'same-origin',
    'x-frame-options': 'DENY',
    'cache-control': 'no-store',
}

_OURS = ('localhost', '127.0.0.1', '[::1]')


class Guard:
    """Lets through what may ask, and gives every answer its headers."""

    def __init__(
        self, app: ASGIApp, *, token: str, is_local: bool, refused: Callable[[str], Response]
    ) -> None:
        """``is_local``: only names of this very machine are taken for ours."""
        self._app = app
        self._token = token
        self._is_local = is_local
        self._refused = refused  # the page for who shows no token
        self._names = (
            {*_OURS} if is_local else {*_OURS, socket.gethostname().lower(), socket.getfqdn().lower()}
        )
        self.cookie = f'hadrosaur-{hashlib.sha256(token.encode()).hexdigest()[:12]}'

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        if scope['type'] == 'lifespan':
            await self._app(scope, receive, send)
            return
        if scope['type'] != 'http':
            return

        async def with_headers(message: Message) -> None:
            if message['type'] == 'http.response.start':
                headers = MutableHeaders(scope=message)
                for name, value in _ALWAYS.items():
                    headers.setdefault(name, value)
            await send(message)

        answer = self._refusal(scope)
        await (answer or self._app)(scope, receive, with_headers)

    def _refusal(self, scope: Scope) -> Response | None:
        headers = Headers(scope=scope)
        hosts = headers.getlist('host')
        if len(hosts) != 1 or not self._is_ours(hosts[0]):
            return PlainTextResponse('this is not my name\n', 421)
        if len(scope['raw_path']) + len(scope['query_string']) > LONGEST_ADDRESS:
            return PlainTextResponse('the address is too long\n', 414)
        is_change = scope['method'] not in ('GET', 'HEAD')
        origins = headers.getlist('origin')
        if (origins and origins != [f'{scope["scheme"]}://{hosts[0]}']) or (is_change and not origins):
            return PlainTextResponse('asked from another site\n', 403)
        if is_change and not 0 <= _length(headers) <= LONGEST_FORM:
            return PlainTextResponse('too much is sent\n', 413)
        if scope['path'].startswith('/static/'):
            return None
        return self._without_token(scope, headers)

    def _without_token(self, scope: Scope, headers: Headers) -> Response | None:
        cookies = [
            value
            for line in headers.getlist('cookie')
            for name, value in cookie_parser(line).items()
            if name == self.cookie
        ]
        bearer = headers.get('authorization', '').removeprefix('Bearer ')
        if any(map(self._is_token, [*cookies, bearer])):
            return None
        params = QueryParams(scope['query_string']).multi_items()
        if scope['method'] != 'GET' or not any(name == 'token' and self._is_token(it) for name, it in params):
            return self._refused('Open the address that `hadrosaur web` has printed: it holds the key.')
        rest = [(name, value) for name, value in params if name != 'token']
        path = '/' + scope['raw_path'].decode('ascii', 'replace').lstrip('/')
        answer = RedirectResponse(with_params(path, rest), 303)
        answer.set_cookie(self.cookie, self._token, httponly=True, samesite='strict')
        return answer

    def _is_token(self, text: str) -> bool:
        return hmac.compare_digest(text.encode('utf-8', 'surrogatepass'), self._token.encode())

    def _is_ours(self, host: str) -> bool:
        try:
            found = urlsplit(f'//{host}')
            name = found.hostname or ''
            _ = found.port
        except ValueError:
            return False
        if found.netloc != host or found.username is not None:
            return False
        if name in self._names or f'[{name}]' in self._names:
            return True
        if self._is_local:
            return False
        try:
            ipaddress.ip_address(name)  # a site can give its own name to our number, not be a number
        except ValueError:
            return False
        return True


def _length(headers: Headers) -> int:
    try:
        return int(headers.get('content-length', '-1'))
    except ValueError:
        return -1
