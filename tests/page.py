"""What tests of the page share: a base with something of everything, and a browser without a window."""

import asyncio
import contextlib
import json
import shutil
import struct
import threading
import zlib
from pathlib import Path

import httpx
import uvicorn

from hadrosaur import Project
from hadrosaur.web.server import make_app

BROWSER = shutil.which('chromium')
FLAGS = [
    '--no-sandbox', '--disable-gpu', '--disable-quic', '--no-first-run', '--disable-background-networking',
    '--disable-component-update', '--disable-sync',
]  # fmt: skip
TOKEN = 'the-key-of-this-test'
HOST = 'http://127.0.0.1:8000'
SVG = (
    '<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 9 9"><script>alert(1)</script><circle r="4"/></svg>'
)


def png(shade):
    """A picture of one pixel."""
    parts = [
        (b'IHDR', struct.pack('>IIBBBBB', 1, 1, 8, 0, 0, 0, 0)),
        (b'IDAT', zlib.compress(bytes([0, shade]))),
    ]
    blocks = [struct.pack('>I', len(data)) + kind + data + struct.pack('>I', zlib.crc32(kind + data))
              for kind, data in [*parts, (b'IEND', b'')]]  # fmt: skip
    return b'\x89PNG\r\n\x1a\n' + b''.join(blocks)


def thumb(ident, args, subdir):
    """Leaves an image, a table and colours in its log; fails in two ways."""
    print(f'\x1b[32mgreen\x1b[0m {ident} <b>')
    number = args['size']
    if number % 5 == 1:
        raise KeyError(f'no size {number}')
    if number % 7 == 2:
        raise TimeoutError(f'timed out after {number} s')
    Path(subdir, 'thumb.png').write_bytes(png(number % 255))
    Path(subdir, 'picture.svg').write_text(SVG)
    Path(subdir, 'table.csv').write_text('name,count\na,1\nb,2\n')
    Path(subdir, 'note.html').write_text('<script>alert(1)</script>')
    Path(subdir, 'deep').mkdir(exist_ok=True)
    Path(subdir, 'deep/data.json').write_text(json.dumps([{'x': 1}, {'x': 2}]))
    return {'score': number / 10, 'model': {'kind': 'svc', 'depth': number}}


def made(base, number=30):
    """A project of two collections, its resources computed here."""
    project = Project(base)
    project.resource('thumbs', columns={'score': 'result.score'})(thumb)
    project.resource('a/b')(lambda ident, args, subdir: ident)
    project.fetch_many(
        'thumbs', {f'img-{n:03}': {'size': n} for n in range(number)}, executor='inline'
    ).wait()
    for ident in ('<script>alert(1)</script>', 'x.json', '..', '~', 'é/ü?#&%2F', '\x1b[31mred'):
        project.fetch('a/b', ident)
    project.stats()  # which has the declared columns noted in the base
    return project


class Browser:
    """A browser without a window: it keeps cookies and follows where it is sent."""

    def __init__(self, app, site):
        self._site = site
        self._client = httpx.AsyncClient(
            transport=httpx.ASGITransport(app), base_url=HOST, follow_redirects=True
        )

    def close(self):
        """As where the server ends."""
        self._site.close()

    def get(self, path, **more):
        return self.request('GET', path, **more)

    def post(self, path, **more):
        return self.request('POST', path, **more)

    def request(self, method, path, **more):
        return asyncio.run(self._client.request(method, path, **more))


def client(project, token=True, **options):
    """A browser without a window, which has opened the printed address."""
    app = make_app(project, TOKEN, **options)
    found = Browser(app, app.state.site)
    if token:
        assert found.get(f'/?token={TOKEN}').status_code == 200
    return found


@contextlib.contextmanager
def served(project, **options):
    """The page on a port of this machine, in a thread; the address that opens it."""
    from hadrosaur.web.serving import Server, bind

    bound = bind('127.0.0.1', 0)
    app = make_app(project, TOKEN, **options)
    config = uvicorn.Config(app, log_level='warning', timeout_graceful_shutdown=2)
    server = Server(config, app.state.site.end_streams)
    thread = threading.Thread(target=server.run, args=([bound],))
    thread.start()
    try:
        yield f'http://127.0.0.1:{bound.getsockname()[1]}/?token={TOKEN}'
    finally:
        server.should_exit = True
        thread.join()
        bound.close()
