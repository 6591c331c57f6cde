"""P22: the page shows and never harms: hostile requests, and what is hostile in a base."""

import asyncio
import html.parser
import logging
import os
import re
import socket
import urllib.request
from contextlib import ExitStack, suppress
from functools import partial
from urllib.parse import urlsplit

import page
import pytest
from harness import IS_FULL, chance, count
from page_attacks import CANARY, COLLECTIONS, IDENTS, RAN, SCRIPT, Generator, make_base, spoil
from tally import Tally

from hadrosaur import HadrosaurError, Project
from hadrosaur.web.addresses import address
from hadrosaur.web.report import Report
from hadrosaur.web.security import Guard
from hadrosaur.web.server import make_app

pytestmark = pytest.mark.filterwarnings('ignore::hadrosaur.HadrosaurWarning')  # of what is damaged

REQUESTS = count(10_000, quick=80)
ROUND = 250 if IS_FULL else 40
HANG = 60.0  # seconds for one answer: only a hang reaches it
OLD = 1_000_000_000  # when the canaries were read last


class Parsed(html.parser.HTMLParser):
    """What of a page could run, or fetch something from elsewhere."""

    def __init__(self, text):
        super().__init__()
        self.wrong = []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        found = dict(attrs)
        if tag == 'script' and not re.fullmatch(r'/static/page\.js\?\w+', found.get('src') or ''):
            self.wrong.append(f'<script {found}>')
        if tag in ('iframe', 'object', 'embed', 'base', 'style', 'foreignobject') or 'http-equiv' in found:
            self.wrong.append(f'<{tag}>')
        for name, value in attrs:
            if name.startswith('on') or name in ('style', 'srcdoc'):
                self.wrong.append(f'<{tag} {name}=…>')
            if name.rpartition(':')[2] in ('href', 'src', 'action') and not (value or '').startswith(
                ('/', '#', '?')
            ):
                self.wrong.append(f'<{tag} {name}={value!r}>')
            if name.rpartition(':')[2] in ('href', 'src', 'action') and (value or '').startswith('//'):
                self.wrong.append(f'<{tag} {name}={value!r}>')


async def answer(app, scope, body):
    """Status, headers and body of one answer; what an app raises is a 500, as the server would say it."""
    pieces, is_over, started = [body[:9], body[9:]], asyncio.Event(), {}
    is_stream = scope['raw_path'].startswith(b'/events')

    async def receive():
        if pieces:
            return {'type': 'http.request', 'body': pieces.pop(0), 'more_body': bool(pieces)}
        with suppress(TimeoutError):  # who listens goes away
            await asyncio.wait_for(is_over.wait(), 0.02 if is_stream else HANG)
        return {'type': 'http.disconnect'}

    told = []

    async def send(message):
        if message['type'] == 'http.response.start':
            started.update(message)
        else:
            told.append(message.get('body', b''))
            if not message.get('more_body'):
                is_over.set()

    try:
        await asyncio.wait_for(app(scope, receive, send), HANG)
    except TimeoutError:
        return 599, {}, b'it hangs'
    except Exception as error:
        return 500, {}, repr(error).encode()
    headers = {name.decode().lower(): value.decode('latin-1') for name, value in started.get('headers', [])}
    return started.get('status', 500), headers, b''.join(told)


def judge(tally, scope, status, headers, body):
    """What is wrong about an answer."""
    said = f'{scope["method"][:20]} {scope["raw_path"][:200]!r} ?{scope["query_string"][:300]!r}'
    if status >= 500 and not (status == 503 and b'Traceback' not in body):
        tally.wrong(f'status {status}', f'{said} {body[-600:]!r}')
    if CANARY.encode() in body or b'root:x:' in body:
        tally.wrong('a reading outside of the base', said)
    policy = headers.get('content-security-policy', '')
    if not (
        policy.startswith(("default-src 'none'; script-src 'self'; ", 'sandbox; '))
        and 'unsafe-eval' not in policy
    ):
        tally.wrong('no policy', f'{said}: {policy}')
    if headers.get('x-content-type-options') != 'nosniff' or any('\n' in each for each in headers.values()):
        tally.wrong('headers', f'{said}: {headers}')
    kind = headers.get('content-type', '')
    if kind.startswith('text/html') and 'sandbox' not in policy:
        for each in Parsed(body.decode()).wrong:
            tally.wrong('markup', f'{said}: {each}')
    elif kind.startswith(
        ('text/html', 'application/xhtml', 'text/xml', 'application/javascript', 'text/css')
    ) and not (scope['raw_path'].startswith(b'/static/')):
        tally.wrong('a stored file as a page', f'{said}: {kind}')
    if b'\x1b' in body and kind.startswith('text/html'):
        tally.wrong('control sequences', said)


class Canaries:
    """Files beside a base: whether anybody has read them."""

    def __init__(self, folder):
        self.files = [
            folder / 'secret.txt',
            folder / 'full/secret.svg',
            folder / 'full/folded/storage/secret.txt',
        ]
        self.probe = folder / 'probe'
        self.probe.write_text('x')
        for file in (*self.files, self.probe):
            os.utime(file, (OLD, OLD + 500_000_000))
        self.probe.read_text()
        self.sees_reading = self.probe.stat().st_atime != OLD

    def judge(self, tally):
        for file in self.files if self.sees_reading else ():
            if file.stat().st_atime != OLD:
                tally.wrong('a canary was read', file)


@pytest.fixture
def hostile(tmp_path):
    """A hostile base."""
    return make_base(tmp_path / 'hostile')


def cookie_of():
    return Guard(None, token=page.TOKEN, is_local=True, refused=None).cookie


def test_requests(hostile, record):
    """Whatever is asked, of whatever base: no 5xx, nothing from outside, no markup that could run."""
    tally, chosen, canaries = Tally('P22'), chance(), Canaries(hostile.parent)
    requests = Generator(chosen, page.TOKEN, cookie_of())

    async def attack(app, number):
        async with app.router.lifespan_context(app):
            for _ in range(number):
                scope, body = requests()
                status, headers, told = await answer(app, scope, body)
                judge(tally, scope, status, headers, told)
                tally.fault(f'{status // 100}xx')

    while tally.faults < REQUESTS:
        with Project(hostile, create=False) as project:
            asyncio.run(attack(make_app(project, page.TOKEN), ROUND))
        spoil(hostile, chosen)  # rows that nobody of ours would write
    canaries.judge(tally)
    tally.end(record, REQUESTS)


def test_nothing_changes_for_who_may_not(base, record):
    """With the functions at hand, nothing is removed or computed for who lacks the key or the origin."""
    tally, number = Tally('P22'), count(1000, quick=30)
    requests = Generator(chance(), page.TOKEN, cookie_of())

    async def attack(app):
        async with app.router.lifespan_context(app):
            for place in range(number):
                scope, _ = requests()
                form = f'verb=remove&collection=plain&ident={place % 3}'.encode()
                lacks = (b'origin',) if place % 2 else (b'cookie', b'authorization')
                headers = [pair for pair in scope['headers'] if pair[0] not in (*lacks, b'content-length')]
                headers += [(b'content-length', str(len(form)).encode())]
                if not place % 2:
                    headers.append((b'origin', b'http://' + headers[0][1]))
                scope.update(method='POST', raw_path=b'/do', path='/do', headers=headers, query_string=b'')
                status, *_ = await answer(app, scope, form)
                tally.fault('form')
                if status not in (403, 413, 421):
                    tally.wrong('it may', f'{status}: {headers}')

    with Project(base) as project:
        project.resource('plain')(lambda ident, args, subdir: ident)
        for ident in '012':
            project.fetch('plain', ident)
        before = project.stats()['plain']['total']
        asyncio.run(attack(make_app(project, page.TOKEN, acting=project)))
        if project.stats()['plain']['total'] != before:
            tally.wrong('removed', 'plain')
    tally.end(record)


@pytest.mark.skipif(not IS_FULL, reason='in full')
def test_bytes_on_the_wire(hostile, record, caplog):
    """The same to a real server: every answer is HTTP and no 5xx, and it goes on answering."""
    tally, number = Tally('P22'), count(1000)
    requests = Generator(chance(), page.TOKEN, cookie_of())
    with Project(hostile, create=False) as project, page.served(project) as opening:
        host, port = opening.split('/')[2].split(':')
        for _ in range(number):
            scope, body = requests()
            if scope['raw_path'].startswith(b'/events'):
                continue  # it has no end
            lines = [
                b' '.join(
                    [scope['method'].encode(), scope['raw_path'] + b'?' + scope['query_string'], b'HTTP/1.1']
                )
            ]
            lines += [b': '.join(pair) for pair in [*scope['headers'], (b'connection', b'close')]]
            with socket.create_connection((host, port), timeout=HANG) as wire, suppress(ConnectionError):
                wire.sendall(b'\r\n'.join([*lines, b'', body]))
                wire.shutdown(socket.SHUT_WR)
                told = b''.join(iter(partial(wire.recv, 65536), b''))
                tally.fault('on the wire')
                if told and not re.match(rb'HTTP/1.1 [234]', told):
                    tally.wrong('a 5xx, or no HTTP', f'{lines[0][:300]!r}: {told[:300]!r}')
        still = urllib.request.Request(
            f'http://{host}:{port}/', headers={'authorization': f'Bearer {page.TOKEN}'}
        )
        with urllib.request.urlopen(still) as answer:
            assert answer.status == 200
    for each in caplog.records:
        if each.levelno >= logging.ERROR:
            tally.wrong('the server complains', each.getMessage())
    tally.end(record)


def watch(tab, happened):
    """Note what a script that runs would do, and what was fetched because of what stands in a base."""

    def answered(response):
        at = urlsplit(response.url)
        if at.path.startswith(f'/{RAN}') or at.hostname not in ('127.0.0.1', None):
            happened.append(response.url)

    tab.on('dialog', lambda dialog: (happened.append(f'dialog {dialog.message}'), dialog.dismiss()))
    tab.on('response', answered)


def judge_tab(tab, happened):
    found = list(happened)
    happened.clear()
    for frame in tab.frames:
        if frame.evaluate('window.ran') == 1 or tab.title() == RAN:
            found.append('it ran')
    return found


@pytest.mark.skipif(not IS_FULL or page.BROWSER is None, reason='in full, and where there is Chromium')
def test_no_script_runs(hostile, record, tmp_path):
    """A real browser opens every page, every stored file and a report, and no script of the base runs."""
    from playwright.sync_api import sync_playwright

    tally, happened = Tally('P22'), []
    (tmp_path / 'control.html').write_text(f'<body><script>{SCRIPT}</script>')
    with ExitStack() as stack:
        project = stack.enter_context(Project(hostile, create=False))
        (tmp_path / 'report.html').write_text(''.join(Report(project).parts()), errors='backslashreplace')
        paths = _all_addresses(project)
        opening = stack.enter_context(page.served(project))
        origin = opening.partition('/?')[0]
        driver = stack.enter_context(sync_playwright())
        browser = driver.chromium.launch(executable_path=page.BROWSER, args=page.FLAGS)
        stack.callback(browser.close)
        tab = browser.new_page()
        watch(tab, happened)
        tab.goto(f'file://{tmp_path}/control.html')
        assert len(judge_tab(tab, happened)) >= 2, 'the canary does not sing'
        for url in [opening, *(origin + path for path in paths), f'file://{tmp_path}/report.html']:
            with suppress(Exception):  # a download, which is no page
                tab.goto(url, wait_until='load', timeout=60_000)
            tally.fault('page in a browser')
            for each in judge_tab(tab, happened):
                tally.wrong('a script ran', f'{url[:300]}: {each}')
    tally.end(record)


def _all_addresses(project):
    """Every page there is, and every stored file in each way that it is shown."""
    found = ['/', '/errors', '/running', '/timeline']
    for name in COLLECTIONS:
        found += [address('c', name), address('c', name, 'errors'), address('c', name, 'gallery')]
        rows = list(project.query(name))
        for row in rows:
            found.append(address('c', name, 'r', row.ident))
        for ident in [row.ident for row in rows][:3]:
            with suppress(HadrosaurError, OSError):
                folder = project.get(name, ident).paths['storage']
                for file in sorted(os.listdir(folder)):
                    with suppress(UnicodeError):
                        at = address('file', name, ident, file)
                        found += [at, f'{at}?text', address('log', name, ident, 'stdout')]
    assert len(found) > 4 * len(IDENTS)
    return list(dict.fromkeys(found))
