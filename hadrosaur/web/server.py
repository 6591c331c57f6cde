"""Requests and answers: which address is which page."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import time
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qsl, quote

import anyio.to_thread
from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.datastructures import QueryParams
from starlette.middleware import Middleware
from starlette.responses import RedirectResponse, Response, StreamingResponse
from starlette.routing import Route

from .. import activity
from ..errors import (
    HadrosaurError,
    IndexBusy,
    IndexFault,
    InvalidIdent,
    NotAProject,
    ResourceNotFound,
    UnknownCollection,
)
from ..sanitize import printable
from . import events, files, pages, render
from .actions import Actions, Refused
from .addresses import names_in
from .asking import Asked, NotUnderstood
from .resource import resource
from .security import SANDBOX, Guard

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator

    from starlette.requests import Request

    from ..project import Project

THREADS = 4
"""Pages that are made at once: each uses a connection of the index."""

CHUNK = 1 << 18
STATIC = {'page.css': 'text/css', 'page.js': 'text/javascript', 'logo.svg': 'image/svg+xml'}
_NOT_FOUND = (UnknownCollection, ResourceNotFound, InvalidIdent, NotAProject, UnicodeError)


def make_app(
    project: Project, token: str, *, acting: Project | None = None, is_local: bool = True
) -> Starlette:
    """The application that shows ``project``, and acts through ``acting`` where that is given."""
    site = Site(project, acting)
    guard = Middleware(Guard, token=token, is_local=is_local, refused=lambda text: site.refusal(403, text))
    route = Route('/{path:path}', site.answer, methods=['GET', 'HEAD', 'POST'])
    app = Starlette(routes=[route], middleware=[guard], lifespan=site.lifespan)
    app.state.site = site
    return app


class Site:
    """All pages of one base directory."""

    def __init__(self, project: Project, acting: Project | None) -> None:
        self._project = project
        self._actions = Actions(acting) if acting is not None else None
        self._news = events.Notifier(project)

    @contextlib.asynccontextmanager
    async def lifespan(self, _: Starlette) -> AsyncIterator[None]:
        """From the first request to the last: few threads, and nothing that goes on afterwards."""
        anyio.to_thread.current_default_thread_limiter().total_tokens = THREADS
        with contextlib.suppress(
            HadrosaurError, OSError
        ):  # so that the first page comes as soon as any other
            await run_in_threadpool(lambda: self._page(*self._data([''], Asked('/', QueryParams()))))
        try:
            yield
        finally:
            self.close()

    def end_streams(self) -> None:
        """Let whoever listens go."""
        self._news.close()

    def close(self) -> None:
        """End what listens, and stop what was begun from here."""
        self.end_streams()
        if self._actions is not None:
            self._actions.close()

    async def answer(self, request: Request) -> Response:
        """Answer one request; what goes wrong in a way that is known is said on a page."""
        try:
            names, is_twin = names_in(request.scope['raw_path'])
            if request.method == 'POST':
                form = _form((await request.body()).decode())
                return await run_in_threadpool(self._act, names, form)
            if names == ['events']:
                return await self._stream(request)
            return await run_in_threadpool(self._look, names, is_twin, request)
        except _NOT_FOUND as error:
            return self.refusal(404, _sentence(error))
        except Refused as error:
            return self.refusal(403, _sentence(error))
        except (IndexBusy, IndexFault, OSError) as error:
            return self.refusal(503, _sentence(error))
        except HadrosaurError as error:
            return self.refusal(400, _sentence(error))

    # --- looking -----------------------------------------------------------------------------------

    def _look(self, names: list[str], is_twin: bool, request: Request) -> Response:
        started, mark = time.thread_time(), self._news.mark()
        params, path = request.query_params, request.scope['raw_path'].decode('ascii', 'replace')
        match names:
            case ['static', name]:
                return _static(name if not is_twin else '')
            case ['file', collection, ident, *rest] if rest:
                return self._file(collection, ident, [*rest[:-1], rest[-1] + '.json' * is_twin], params)
            case ['log', collection, ident, log]:
                return self._log(collection, ident, log)
            case ['metrics'] if not is_twin:
                return Response(activity.prometheus(self._project), media_type='text/plain; version=0.0.4')
            case ['confirm'] if not is_twin:
                return self._confirm(params)
            case _:
                template, data = self._data(names, Asked(path.removesuffix('.json' * is_twin), params))
        if is_twin:
            return Response(_json(data), media_type='application/json')
        self._news.took(time.thread_time() - started)
        return self._page(template, {**data, 'mark': mark})

    def _data(self, names: list[str], asked: Asked) -> tuple[str, dict[str, Any]]:
        """The template of a page, and what it shows."""
        project = self._project
        match names:
            case [''] | ['index']:
                return 'overview.html', pages.overview(project)
            case ['running']:
                return 'running.html', pages.running(project)
            case ['timeline']:
                return 'timeline.html', pages.timeline(project, asked)
            case ['errors']:
                return 'errors.html', pages.errors(project, None)
            case ['c', name]:
                return 'collection.html', {**pages.collection(project, name, asked), 'asked': asked}
            case ['c', name, 'errors']:
                return 'errors.html', pages.errors(project, name)
            case ['c', name, 'gallery']:
                return 'gallery.html', pages.gallery(project, name, asked)
            case ['c', name, 'r', ident]:
                return 'resource.html', resource(project, name, ident, asked)
        raise ResourceNotFound('there is no such page')

    def _page(self, template: str, data: dict[str, Any], status: int = 200) -> Response:
        about = {'base': self._project.base, 'acts': self._actions is not None, 'assets': _assets()}
        about['trouble'] = self._actions.trouble if self._actions is not None else ''
        body = render.page(template, {**data, **about})
        return Response(body, status, media_type='text/html')

    def refusal(self, status: int, text: str) -> Response:
        """A page that says in a sentence what is wrong."""
        return self._page('refusal.html', {'status': status, 'text': text}, status)

    # --- files -------------------------------------------------------------------------------------

    def _file(self, collection: str, ident: str, names: list[str], params: QueryParams) -> Response:
        """A file of a storage: images and plain text are shown under a sandbox, all else is saved."""
        with contextlib.ExitStack() as stack:
            folder = stack.enter_context(files.folder_of(self._project, collection, ident))
            fd, found = stack.enter_context(files.opened_file(folder, 'storage', *names))
            kept = os.dup(fd)
        kind = names[-1].rpartition('.')[2].lower()
        is_image = kind in files.IMAGES and 'save' not in params
        is_text = kind in files.TEXTS and 'text' in params
        media = files.IMAGES[kind] if is_image else 'text/plain' if is_text else 'application/octet-stream'
        how = 'inline' if is_image or is_text else 'attachment'
        headers = {
            'content-disposition': f"{how}; filename*=UTF-8''{quote(names[-1], safe='', errors='replace')}",
            'content-length': str(found.st_size),
            'content-security-policy': SANDBOX,
        }
        return StreamingResponse(_chunks(kept, found.st_size), headers=headers, media_type=media)

    def _log(self, collection: str, ident: str, log: str) -> Response:
        """A whole log, as plain text."""
        if log not in files.LOGS:
            raise ResourceNotFound('there is no such log')
        with contextlib.ExitStack() as stack:
            folder = stack.enter_context(files.folder_of(self._project, collection, ident))
            fd, found = stack.enter_context(files.opened_file(folder, files.LOGS[log]))
            kept = os.dup(fd)
        headers = {'content-length': str(found.st_size), 'content-security-policy': SANDBOX}
        return StreamingResponse(_chunks(kept, found.st_size), headers=headers, media_type='text/plain')

    async def _stream(self, request: Request) -> Response:
        last = request.headers.get('last-event-id', '')
        stream = await self._news.stream(request.query_params, last)
        return StreamingResponse(stream, media_type='text/event-stream')

    # --- acting ------------------------------------------------------------------------------------

    def _confirm(self, params: QueryParams) -> Response:
        return self._page('confirm.html', self._acting().plan(dict(params)))

    def _act(self, names: list[str], form: dict[str, str]) -> Response:
        if names != ['do']:
            raise ResourceNotFound('nothing is done there')
        return RedirectResponse(self._acting().do(form), 303)

    def _acting(self) -> Actions:
        if self._actions is None:
            raise Refused('this page is read-only: start it with --app MODULE:PROJ to compute from here')
        return self._actions


def _form(text: str) -> dict[str, str]:
    try:
        return dict(parse_qsl(text, keep_blank_values=True, max_num_fields=100))
    except ValueError:
        raise NotUnderstood('the form has too many fields')


def _chunks(fd: int, size: int) -> Iterator[bytes]:
    """An open file, as long as it was; one that has become shorter is filled up.

    The descriptor is closed too where nobody takes a byte: a generator that was never begun has no end.
    """
    chunks = _closing(fd, size)
    next(chunks)
    return chunks


def _closing(fd: int, size: int) -> Iterator[bytes]:
    try:
        yield b''  # taken at once
        at = 0
        while at < size:
            data = os.pread(fd, min(CHUNK, size - at), at)
            if not data:
                data = bytes(min(CHUNK, size - at))
            yield data
            at += len(data)
    finally:
        os.close(fd)


def _static(name: str) -> Response:
    if name not in STATIC:
        raise ResourceNotFound('there is no such file')
    return Response(render.static(name), media_type=STATIC[name], headers={'cache-control': 'max-age=86400'})


def _assets() -> str:
    """Changes when a file of ours does, so that browsers ask for it again."""
    return hashlib.sha256(''.join(map(render.static, STATIC)).encode()).hexdigest()[:10]


def _sentence(error: BaseException) -> str:
    if isinstance(error, UnicodeError):
        return 'the address is no UTF-8'
    if isinstance(error, OSError) and not isinstance(error, HadrosaurError):
        return 'that cannot be read now' if not isinstance(error, FileNotFoundError) else 'it is not there'
    hint = getattr(error, 'hint', '')
    return printable(f'{error}' + (f' ({hint})' if hint and hint not in str(error) else ''))


def _json(data: dict[str, Any]) -> bytes:
    shown = {name: value for name, value in data.items() if name != 'asked'}
    return json.dumps(shown, default=str, indent=1).encode()
