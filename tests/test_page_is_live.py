"""The page: what is told while it is open, and what may be done from it."""

import asyncio
import json
import shutil
import socket
import threading
import urllib.request
from pathlib import Path

import page
import pytest
from conftest import HANG, await_that
from starlette.datastructures import QueryParams

from hadrosaur import Project, directory
from hadrosaur.directory.claim import Claim
from hadrosaur.web import events


@pytest.fixture(autouse=True)
def _often(monkeypatch):
    """Looks as often as it can."""
    monkeypatch.setattr(events, 'LOOK', 0.01)
    monkeypatch.setattr(events, 'LEAST', 0.0)


async def heard(news, params, until, meanwhile=lambda event: None, last=''):
    """The events of a stream up to the first of that name."""
    found = []
    async with asyncio.timeout(HANG):
        async for text in await news.stream(QueryParams(params), last):
            lines = dict(line.split(': ', 1) for line in text.splitlines() if ': ' in line)
            found.append((lines.get('event'), json.loads(lines.get('data', '{}'))))
            news.place = lines.get('id') or getattr(news, 'place', '')
            meanwhile(found[-1])
            if found[-1][0] == until:
                break
    return found


def test_an_open_page_is_told_that_something_has_changed(proj):
    """Whoever writes the index, an open page hears of it, and asks nothing meanwhile."""
    proj.resource('c')(lambda ident, args, subdir: ident)
    proj.fetch('c', 'one')
    proj.stats()
    with Project(proj.base, create=False) as looked:
        news = events.Notifier(looked)

        def compute(event):
            if event[0] is None:
                proj.fetch('c', 'two')
                proj.stats()

        found = asyncio.run(heard(news, {}, 'changed', compute))

    assert [name for name, _ in found] == [None, 'changed']


def test_what_changed_before_the_page_listens_is_told_too(proj):
    """Between the making of a page and its listening nothing is lost: it says of which moment it is."""
    proj.resource('c')(lambda ident, args, subdir: ident)
    proj.fetch('c', 'one')
    proj.stats()
    with Project(proj.base, create=False) as looked:
        news = events.Notifier(looked)
        mark = news.mark()
        proj.fetch('c', 'two')
        proj.stats()
        found = asyncio.run(heard(news, {'since': mark}, 'changed'))

    assert [name for name, _ in found] == [None, 'changed']


def test_a_log_is_followed_to_its_end(proj):
    """What a running resource prints comes from where the page was made on, and at last the end."""
    goes_on = threading.Event()

    @proj.resource('c')
    def talks(ident, args, subdir):
        print('first')
        print('\x1b[31mred\x1b[0m <b>é')
        assert goes_on.wait(HANG)
        print('last')

    proj.stats()
    thread = threading.Thread(target=proj.fetch, args=('c', 'one'))
    thread.start()
    try:
        with Project(proj.base, create=False) as looked:
            browser = page.client(looked)

            def shown():
                answer = browser.get('/c/c/r/one.json')
                found = answer.json() if answer.status_code == 200 else {}
                return found if 'red' in str(found.get('logs', {}).get('stdout')) else None

            log = await_that(shown)['logs']['stdout']
            since = f'{log["end"]},{log["mark"]}'
            made = asyncio.run(
                heard(
                    events.Notifier(looked), {'collection': 'c', 'ident': 'one', 'since': since}, 'ended',
                    lambda event: goes_on.set(),
                )
            )  # fmt: skip
    finally:
        goes_on.set()
        thread.join()

    assert log['html'] == 'first\n<span class="a-f1">red</span> &lt;b&gt;é\n'
    assert (
        ''.join(data['html'] for name, data in made if name == 'log' and data['log'] == 'stdout') == 'last\n'
    )
    assert made[-1] == ('ended', {'status': 'completed'})


@pytest.mark.parametrize('gone', ['c/one', ''], ids=['resource', 'base'])
def test_a_log_that_is_followed_ends_where_its_resource_is_removed(proj, gone):
    """The page is told that it ended; nothing is raised where nobody reads it."""
    proj.resource('c')(lambda ident, args, subdir: print('first'))
    proj.fetch('c', 'one')
    (Path(proj.base) / 'c/one/status.json').write_bytes(directory.STATUS_BYTES['pending'])
    claim = Claim.take(f'{proj.base}/c', 'one', make=False)
    with Project(proj.base, create=False) as looked:
        made = asyncio.run(
            heard(
                events.Notifier(looked), {'collection': 'c', 'ident': 'one'}, 'ended',
                lambda event: event[0] == 'log' and shutil.rmtree(Path(proj.base, gone), ignore_errors=True),
            )
        )  # fmt: skip
    claim.release()

    assert made[-1] == ('ended', {'status': 'absent'})


def test_who_was_cut_off_hears_the_rest_alone(proj):
    """A browser that connects again says which event was its last: nothing is told twice."""
    proj.resource('c')(lambda ident, args, subdir: print('said'))
    proj.fetch('c', 'one')
    news, key = events.Notifier(proj), {'collection': 'c', 'ident': 'one', 'since': ''}
    first = asyncio.run(heard(news, key, 'ended'))
    again = asyncio.run(heard(news, key, 'ended', last=news.place))

    assert [data['html'] for name, data in first if name == 'log' and data['html']] == ['said\n']
    assert [name for name, _ in again] == [None, 'ended']


def test_only_so_many_listen(proj, monkeypatch):
    """Who opens ever more streams is refused."""
    monkeypatch.setattr(events, 'MOST_STREAMS', 1)
    proj.resource('c')(lambda ident, args, subdir: ident)
    proj.fetch('c', 'one')

    async def two():
        news = events.Notifier(proj)
        first = await news.stream(QueryParams({}))
        await anext(first)
        with pytest.raises(Exception, match='1 pages listen'):
            await news.stream(QueryParams({}))
        await first.aclose()
        second = await news.stream(QueryParams({}))
        await second.aclose()

    asyncio.run(two())


@pytest.fixture
def acting(base, tmp_path):
    """A browser that may act, and its project: three failures that succeed now, and one resource."""
    works, proj = tmp_path / 'works', Project(base)

    @proj.resource('c')
    def compute(ident, args, subdir):
        if not works.exists() and ident.startswith('bad'):
            raise ValueError(f'no {ident}')
        return ident

    for ident in ('bad1', 'bad2', 'bad3', 'good'):
        proj.fetch('c', ident)
    works.touch()
    with Project(base, create=False) as looked:
        browser = page.client(looked, acting=proj)
        yield browser, proj
        browser.close()


def post(browser, **form):
    return browser.post('/do', data=form, headers={'origin': page.HOST})


def test_a_cause_is_retried(acting):
    """A button computes all failures of a cause again, after it was confirmed; then there are none."""
    browser, proj = acting
    [group] = browser.get('/c/c/errors.json').json()['groups']
    link = next(part for part in browser.get('/c/c').text.split('"') if part.startswith('/confirm'))
    asked = browser.get(link.replace('&amp;', '&')).text
    answer = post(browser, verb='retry', collection='c', group=group['group'])

    assert '3 resources of c: bad' in asked
    assert answer.status_code == 200  # the collection's page, where one is sent
    await_that(lambda: proj.stats('c')['c']['completed'] == 4)


def test_one_resource_is_recomputed_and_removed(acting):
    """A resource is computed again though it is there, and is gone once that was confirmed."""
    browser, proj = acting
    post(browser, verb='recompute', collection='c', ident='good')
    await_that(lambda: proj.get('c', 'good').entry.attempt == 2)
    remove = {'verb': 'remove', 'collection': 'c', 'ident': 'good'}
    await_that(lambda: post(browser, **remove).status_code == 200)  # refused while its batch has not ended

    assert not proj.exists('c', 'good')


def test_what_cannot_be_begun_is_said_on_the_page(acting, monkeypatch):
    """A batch that cannot begin is told of on each page, and the next one is computed all the same."""
    browser, proj = acting
    with monkeypatch.context() as broken:
        broken.setattr(proj, 'fetch_many', lambda *_, **__: 1 / 0)
        post(browser, verb='recompute', collection='c', ident='good')
        await_that(lambda: 'c cannot be computed: ZeroDivisionError' in browser.get('/').text)
    post(browser, verb='retry', collection='c')
    await_that(lambda: proj.stats('c')['c']['completed'] == 4)

    assert 'cannot be computed' not in browser.get('/').text


@pytest.mark.parametrize(
    ('form', 'status'),
    [
        ({'verb': 'format', 'collection': 'c', 'ident': 'good'}, 400),
        ({'verb': 'remove', 'collection': 'c'}, 400),
        ({'verb': 'remove', 'collection': 'c', 'ident': 'none'}, 404),
        ({'verb': 'retry', 'collection': 'none'}, 404),
        ({}, 400),
    ],
)
def test_what_cannot_be_done_is_said(acting, form, status):
    """An odd form changes nothing, and gets a sentence."""
    browser, proj = acting

    assert post(browser, **form).status_code == status
    assert len(proj.query('c')) == 4


def test_an_open_page_does_not_keep_the_server_from_ending(proj, capfd):
    """Ctrl-C ends the streams of open pages first: nothing is cut off, and nobody is told a traceback."""
    proj.resource('c')(lambda ident, args, subdir: ident)
    proj.fetch('c', 'one')
    with page.served(proj) as opening:
        place = opening.split('/')[2]
        asked = urllib.request.Request(
            f'http://{place}/events', headers={'authorization': f'Bearer {page.TOKEN}'}
        )
        stream = urllib.request.urlopen(asked, timeout=HANG)
        assert stream.readline() == b'retry: 3000\n'
    with stream:
        assert stream.read() == b'\n'

    assert capfd.readouterr().err == ''


def test_a_download_that_stands_still_does_not_keep_the_server_from_ending(proj, capfd):
    """A client that does not read is cut off at the end, without a traceback."""

    @proj.resource('c')
    def big(ident, args, subdir):
        with open(f'{subdir}/big.bin', 'wb') as file:
            file.truncate(100_000_000)

    proj.fetch('c', 'one')
    with page.served(proj) as opening:
        host, _, port = opening.split('/')[2].partition(':')
        client = socket.create_connection((host, int(port)), timeout=HANG)
        lines = [
            'GET /file/c/one/big.bin HTTP/1.1',
            f'Host: {host}:{port}',
            f'Authorization: Bearer {page.TOKEN}',
        ]
        client.sendall(('\r\n'.join(lines) + '\r\n\r\n').encode())
        assert client.recv(12) == b'HTTP/1.1 200'
    client.close()

    assert capfd.readouterr().err == ''
