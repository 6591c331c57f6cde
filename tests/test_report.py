"""The report: one file that opens from disk, without a network, and in which nothing runs."""

import base64
import hashlib
import re
from html.parser import HTMLParser

import page
import pytest
from conftest import await_that
from test_cli_tools import call

from hadrosaur import Project
from hadrosaur.web import report as module
from hadrosaur.web.report import Report


@pytest.fixture(scope='module')
def base(tmp_path_factory):
    """A base with something of everything."""
    path = tmp_path_factory.mktemp('report') / 'base'
    page.made(path).close()
    return path


class Read(HTMLParser):
    """What an HTML document has in it: tags with their attributes, and the text."""

    def __init__(self, html):
        super().__init__()
        self.tags, self.words = [], []
        self.feed(html)
        self.text = ' '.join(self.words)

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data):
        self.words.append(data)

    def all(self, attribute):
        return [attrs[attribute] for _, attrs in self.tags if attribute in attrs]


def of(base, *args, **options):
    """The report of a base as text, and as it is read."""
    with Project(base, create=False) as project:
        html = ''.join(Report(project, *args, **options).parts())
    return html, Read(html)


@pytest.fixture(scope='module')
def whole(base):
    """The report of the whole base."""
    return of(base)


def test_nothing_is_fetched_and_nothing_runs(whole):
    """The file refers to nothing outside itself, has no script and no form, and its policy forbids both."""
    html, read = whole
    tags = {tag for tag, _ in read.tags}
    policy = next(attrs['content'] for _, attrs in read.tags if 'http-equiv' in attrs)
    style = re.search('<style>(.*?)</style>', html, re.DOTALL)[1]
    digest = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()

    assert tags.isdisjoint({'script', 'form', 'link', 'iframe', 'object', 'base'})
    assert all(href.startswith('#') for href in read.all('href'))
    assert all(src.startswith('data:image/') for src in read.all('src'))
    assert not [name for _, attrs in read.tags for name in attrs if name.startswith('on') or name == 'style']
    assert policy.startswith(f"default-src 'none'; style-src 'sha256-{digest}'; img-src data:;")


def test_a_report_holds_what_the_page_shows(whole):
    """Counts, charts, causes with their commands, the failures' logs and pictures are all in one file."""
    _, read = whole

    assert sum(tag == 'svg' and attrs.get('class') == 'chart' for tag, attrs in read.tags) >= 6
    for part in ('thumbs', 'a/b', '9 failures, 2 causes', '--group f1:', "raise KeyError(f'no size"):
        assert part in read.text
    assert 'img-001 <b>' in read.text  # what that failure has printed
    assert sum(src.startswith('data:image/svg+xml;base64,') for src in read.all('src')) == 21


def test_links_of_a_report_lead_to_a_place_in_it(whole):
    """A link leads to a part of the file; what is not in the file is no link, and no id stands twice."""
    _, read = whole
    ids = read.all('id')

    assert len(ids) == len(set(ids))
    assert {href[1:] for href in read.all('href')} <= set(ids)
    assert '/c/thumbs/r/img-001' in ids


def test_a_report_of_one_collection(base):
    """With a collection it holds that one alone; one that is not there is an error."""
    _, read = of(base, 'thumbs')

    assert '/c/thumbs' in read.all('id')
    assert not any('a%2Fb' in each for each in read.all('id'))
    assert call('report', base, 'none', '-o', base.parent / 'none.html').exit_code == 3
    assert not (base.parent / 'none.html').exists()


def test_what_there_is_no_room_for_is_said(base, monkeypatch):
    """Images beyond the limit and failures beyond the number are left out, and counted at the end."""
    monkeypatch.setattr(module, 'MOST_OF_ALL', 2)
    _, read = of(base, images=300)

    assert len(read.all('src')) == 2
    assert 'the logs of 7 of 9 failures of thumbs' in read.text
    assert 'images of thumbs after the first 2' in read.text


def test_idents_in_a_report_are_text(whole):
    """An ident with markup or colour sequences is text in the file."""
    html, read = whole

    assert '<script>alert(1)</script>' in read.text
    assert '<script' not in html
    assert '\x1b' not in html


def test_the_command_writes_a_whole_file_or_none(base, tmp_path, monkeypatch):
    """`hadrosaur report` puts the file in its place once it is whole; the one before stays until then."""
    target = tmp_path / 'report.html'
    said = call('report', base, '-o', target)
    html = target.read_text()

    assert said.exit_code == 0
    assert said.stderr.startswith(f'{target}: ')
    assert html.endswith('</html>')
    assert call('report', base, '-o', '-').stdout.startswith('<!doctype html>')
    assert 'there is no folder' in call('report', base, '-o', tmp_path / 'none/report.html').stderr
    monkeypatch.setattr(Report, 'parts', lambda self: iter(['half', None]))
    assert call('report', base, '-o', target).exit_code
    assert target.read_text() == html
    assert [each.name for each in tmp_path.iterdir()] == ['report.html']


def test_a_report_comes_in_pieces(base):
    """Memory does not grow with the file: its parts are made and written one at a time."""
    with Project(base, create=False) as project:
        sizes = [len(part) for part in Report(project).parts()]

    assert len(sizes) > 10
    assert max(sizes) < sum(sizes) / 2


@pytest.mark.long
@pytest.mark.skipif(page.BROWSER is None, reason='browser tests need chromium')
def test_a_report_opens_from_disk(whole, tmp_path):
    """A browser shows it from disk, with style and pictures, and neither complains nor asks for more."""
    from playwright.sync_api import sync_playwright

    (tmp_path / 'report.html').write_text(whole[0], 'utf-8')
    with sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=page.BROWSER, args=page.FLAGS)
        tab = browser.new_page(color_scheme='dark')
        said, asked = [], []
        tab.on('console', lambda message: said.append(message.text))
        tab.on('request', lambda request: asked.append(request.url))
        tab.goto(f'file://{tmp_path}/report.html')
        tab.locator('.gallery img').first.scroll_into_view_if_needed()
        await_that(lambda: tab.evaluate('document.querySelector(".gallery img").naturalWidth'))
        ground = tab.evaluate('getComputedStyle(document.body).backgroundColor')
        browser.close()

    assert said == []
    assert [url for url in asked if not url.startswith('data:')] == [f'file://{tmp_path}/report.html']
    assert ground not in ('rgba(0, 0, 0, 0)', 'rgb(255, 255, 255)')  # the style is allowed
