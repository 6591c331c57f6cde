"""The page in a real browser: Debian's Chromium, without a window. Skipped where there is none."""

import re
import threading

import page
import pytest
from conftest import HANG, await_that

from hadrosaur import Project
from hadrosaur.web import events

sync_api = pytest.importorskip('playwright.sync_api', reason='playwright drives the browser')
needs_chromium = pytest.mark.skipif(page.BROWSER is None, reason='browser tests need chromium')
pytestmark = [pytest.mark.long, needs_chromium]


@pytest.fixture(scope='module')
def chromium():
    """One browser for all tests."""
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=page.BROWSER, args=page.FLAGS)
        yield browser
        browser.close()


@pytest.fixture(scope='module')
def shown(tmp_path_factory):
    """The address of the page on a base with something of everything."""
    with page.made(tmp_path_factory.mktemp('browser') / 'base') as project, page.served(project) as address:
        yield address


class Tab:
    """A page that has opened the address; all that its console says, and all that it asks for, is noted."""

    def __init__(self, browser, address, **options):
        self.root, self.said, self.asked = address.partition('/?')[0], [], []
        self.context = browser.new_context(**options)
        self.page = self.context.new_page()
        self.page.set_default_timeout(HANG * 1000)
        self.page.on('console', lambda message: self.said.append(message.text))
        self.page.on('pageerror', lambda error: self.said.append(str(error)))
        self.page.on('request', lambda request: self.asked.append(request.url))
        self.page.goto(address)

    def goto(self, path):
        self.page.goto(self.root + path)
        return self.page

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.context.close()


PATHS = ['/', '/c/thumbs', '/c/thumbs?status=error', '/c/thumbs/errors', '/c/thumbs/gallery', '/running',
         '/timeline', '/c/thumbs/r/img-001', '/c/thumbs/r/img-003', '/c/a%2Fb', '/errors']  # fmt: skip


@pytest.mark.parametrize('theme', ['light', 'dark'])
@pytest.mark.parametrize('width', [1280, 390])
def test_every_page_is_silent_and_keeps_to_its_host_and_width(chromium, shown, theme, width):
    """No page complains, asks anybody else for anything, or is wider than the window; images are there."""
    with Tab(chromium, shown, color_scheme=theme, viewport={'width': width, 'height': 800}) as tab:
        for path in PATHS:
            opened = tab.goto(path)
            assert opened.evaluate('document.documentElement.scrollWidth') <= width, path
            assert opened.evaluate('[...document.images].every((it) => !it.complete || it.naturalWidth)'), (
                path
            )

    assert tab.said == []
    assert {re.match(r'https?://[^/]*', url)[0] for url in tab.asked} == {tab.root}


def test_a_click_on_a_chart_filters(chromium, shown):
    """A bar is a link to just the rows that it counts."""
    with Tab(chromium, shown) as tab:
        opened = tab.goto('/c/thumbs')
        bar = opened.locator('figure', has_text='durations').locator('a').first
        number = int(bar.get_attribute('aria-label').rpartition(': ')[2])
        bar.dispatch_event('click')
        opened.wait_for_url('**min_duration**')

        assert opened.locator('#rows tbody tr').count() == number


def test_keys_go_through_rows(chromium, shown):
    """j and k choose a row, Enter opens it, / searches, ? lists the keys."""
    with Tab(chromium, shown) as tab:
        opened = tab.goto('/c/thumbs?sort=ident')
        opened.keyboard.press('?')
        assert opened.locator('#keys').is_visible()
        opened.keyboard.press('Escape')
        opened.keyboard.press('/')
        opened.keyboard.type('img-00')
        opened.keyboard.press('Enter')
        opened.wait_for_url('**q=img-00**')
        for key in ('j', 'j', 'j', 'k', 'Enter'):
            opened.keyboard.press(key)
        opened.wait_for_url('**/r/img-0**')


def test_it_reads_and_searches_without_javascript(chromium, shown):
    """Pages are whole as they come, and forms work by themselves."""
    with Tab(chromium, shown, java_script_enabled=False) as tab:
        opened = tab.goto('/c/thumbs')
        opened.locator('input[type=search]').fill('result.score>2')
        opened.locator('.search button').click()
        opened.wait_for_url('**q=result**')

        assert opened.locator('.chips').inner_text().startswith('result.score>2')
        assert opened.locator('#rows tbody tr').count() == 6


def test_a_live_log_is_followed(chromium, tmp_path):
    """What a running resource prints appears as it is printed; at its end the page shows what came of it."""
    goes_on = threading.Event()
    with Project(tmp_path / 'base') as project:

        @project.resource('c')
        def talks(ident, args, subdir):
            print('first', flush=True)
            assert goes_on.wait(HANG)
            print('\x1b[31m<b>last</b>', flush=True)

        project.stats()
        thread = threading.Thread(target=project.fetch, args=('c', 'one'))
        thread.start()
        try:
            await_that(lambda: project.exists('c', 'one'))
            with page.served(project) as address, Tab(chromium, address) as tab:
                opened = tab.goto('/c/c/r/one')
                opened.get_by_text('first').wait_for()
                goes_on.set()
                opened.locator('pre', has_text='<b>last</b>').wait_for()
                opened.locator('.facts', has_text='completed').wait_for()
                assert tab.said == []
        finally:
            goes_on.set()
            thread.join()


def test_a_cause_is_retried_from_the_page(chromium, tmp_path, monkeypatch):
    """The button of a cause asks once, and then its failures are computed again, before one's eyes."""
    monkeypatch.setattr(events, 'MOST', 0.1)
    works = tmp_path / 'works'
    with Project(tmp_path / 'base') as project:

        @project.resource('c')
        def compute(ident, args, subdir):
            if not works.exists():
                raise ValueError('not yet')
            return ident

        for ident in ('one', 'two'):
            project.fetch('c', ident)
        works.touch()
        with page.served(project, acting=project) as address, Tab(chromium, address) as tab:
            opened = tab.goto('/c/c')
            opened.get_by_text('retry 2').click()
            opened.get_by_role('button', name='retry').click()
            opened.locator('.state', has_text='2 completed').wait_for()
            assert tab.said == []
