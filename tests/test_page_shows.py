"""The page: each address shows what it is for, and its twin gives the same as data."""

import contextlib
import html
import sqlite3

import page
import pytest

from hadrosaur import Project
from hadrosaur.web import pages
from hadrosaur.web import resource as one_page
from hadrosaur.web.addresses import address, names_in


@pytest.fixture(scope='module')
def base(tmp_path_factory):
    """A base with something of everything."""
    path = tmp_path_factory.mktemp('page') / 'base'
    page.made(path).close()
    return path


@pytest.fixture(scope='module')
def browser(base):
    """Looks at it."""
    with Project(base, create=False) as project:
        yield page.client(project)


def data(browser, path):
    answer = browser.get(path)
    assert answer.status_code == 200, answer.text
    assert answer.headers['content-type'].startswith('application/json')
    return answer.json()


ADDRESSES = ['/', '/errors', '/running', '/timeline', '/c/thumbs', '/c/thumbs/errors', '/c/thumbs/gallery',
             '/c/thumbs/r/img-001', '/c/thumbs/r/img-003', '/c/a%2Fb']  # fmt: skip


@pytest.mark.parametrize('path', ADDRESSES)
def test_every_page_is_whole_and_light(browser, path):
    """Each page weighs less than 150 kB, is HTML to its end, and has a twin that is JSON."""
    answer = browser.get(path)
    twin = data(browser, '/index.json' if path == '/' else f'{path}.json')

    assert answer.status_code == 200
    assert answer.text.rstrip().endswith('</html>')
    assert len(answer.content) < 150_000
    assert twin


def test_overview_counts_all_collections(browser):
    """The first page counts every collection and names the last failures."""
    found = data(browser, '/index.json')
    counts = {each['name']: (each['total'], each['error']) for each in found['collections']}

    assert counts == {'thumbs': (30, 9), 'a/b': (6, 0)}
    assert len(found['failures']) == 6
    assert 'TimeoutError' in browser.get('/').text


def test_filters_of_the_address_are_those_of_query(browser):
    """Filters combine as in `query`, and each can be taken out again."""
    found = data(browser, '/c/thumbs.json?status=completed&result=score>1&args=size<20&sort=result.score')
    idents = [row['ident'] for row in found['rows']]

    assert idents == ['img-012', 'img-013', 'img-014', 'img-015', 'img-017', 'img-018', 'img-019']
    assert [chip['value'] for chip in found['filters']] == ['completed', 'result.score>1', 'args.size<20']
    assert 'status' not in found['filters'][0]['without']


@pytest.mark.parametrize(
    ('text', 'number'),
    [('img-00', 10), ('img-00? result.score>0.5', 2), ('error:timed', 3), ('type:OSError', 3), ('none', 0)],
)
def test_search_box(browser, text, number):
    """One box searches idents, parts of args and results, and errors."""
    text = text.replace('type:', 'error_type:')

    assert data(browser, address('c', 'thumbs.json', q=text).replace('%2E', '.'))['found'] == number


@pytest.mark.parametrize('order', ['-finished_at', 'ident', '-result.score', 'args.size', 'error'])
def test_pages_follow_each_other_by_key(base, browser, monkeypatch, order):
    """`older` goes through all rows, each once, in any order; rows that lack the column come last."""
    monkeypatch.setattr(pages, 'PAGE', 7)
    path, seen = f'/c/thumbs?sort={order}', []
    while path:
        found = data(browser, path.replace('/c/thumbs', '/c/thumbs.json'))
        seen += [row['ident'] for row in found['rows']]
        path = found['next']
    with Project(base, create=False) as project:
        expected = [row.ident for row in project.query('thumbs', order_by=order)]

    assert seen == expected
    assert len(seen) == 30


def test_charts_filter_when_clicked(browser):
    """A bar's link leads to just the rows that it counts."""
    answer = html.unescape(browser.get('/c/thumbs?status=completed').text)
    assert data(browser, '/c/thumbs.json?status=completed')['found'] == 21
    assert 'href="/c/thumbs.json?status=completed"' in answer
    link = next(part for part in answer.split('href="') if 'min_duration' in part).partition('"')[0]
    found = data(browser, link.replace('/c/thumbs', '/c/thumbs.json'))

    assert 0 < found['found'] < 20
    assert any(chip['name'] == 'min duration' for chip in found['filters'])


def test_columns_are_chosen(browser):
    """Parts of args and results are columns; those that a collection declares go by their name."""
    usual = data(browser, '/c/thumbs.json')
    chosen = data(browser, '/c/thumbs.json?col=result.model.depth&col=max_rss')

    assert [column['label'] for column in usual['columns']][4:6] == ['score', 'args.size']
    assert [column['name'] for column in chosen['columns']][4:6] == ['result.model.depth', 'max_rss']


def test_one_resource(browser):
    """A resource tells its args, result, logs with their colours, and its files with previews."""
    found = data(browser, '/c/thumbs/r/img-003.json')
    shown = browser.get('/c/thumbs/r/img-003').text
    previews = {file['name']: file['preview'] for file in found['storage']}

    assert found['args'] == {'size': 3}
    assert found['result'] == {'score': 0.3, 'model': {'kind': 'svc', 'depth': 3}}
    assert '<span class="a-f2">green</span> img-003 &lt;b&gt;' in shown
    assert previews['thumb.png'] == {'image': True}
    assert previews['table.csv']['table'] == [['name', 'count'], ['a', '1'], ['b', '2']]
    assert previews['deep/data.json']['table'] == [['x'], ['1'], ['2']]
    assert previews['note.html']['text'].startswith('<script>')
    assert '<script>alert' not in shown


def test_what_a_resource_uses_is_linked(tmp_path):
    """A resource names what it used and what used it; after one was computed again, which are stale."""
    with Project(tmp_path / 'base') as project:
        project.resource('low')(lambda ident, args, subdir: 1)
        project.resource('high')(lambda ident, args, subdir: project.fetch('low', 'one').value)
        project.fetch('high', 'top')
        project.fetch('low', 'one', recompute=True)
        browser = page.client(project)
        high, low = data(browser, '/c/high/r/top.json'), data(browser, '/c/low/r/one.json')
        shown = browser.get('/c/high/r/top').text

        assert [(use['collection'], use['ident']) for use in high['uses']] == [('low', 'one')]
        assert [(use['collection'], use['ident']) for use in low['used_by']] == [('high', 'top')]
        assert high['stale_because']
        assert low['stale_because'] is None
        assert 'href="/c/low/r/one"' in shown
        assert [row['ident'] for row in data(browser, '/c/high.json?stale=yes')['rows']] == ['top']


def test_a_long_result_is_not_read_for_a_page(tmp_path, monkeypatch):
    """Of a result that is too long for a page it is said where it is."""
    monkeypatch.setattr(one_page, 'LARGEST', 100)
    with Project(tmp_path / 'base') as project:
        project.resource('c')(lambda ident, args, subdir: 'x' * 200)
        project.fetch('c', 'one')
        project.stats()
        monkeypatch.setattr(project, 'get', lambda *_: 1 / 0)
        found = data(page.client(project), '/c/c/r/one.json')

    assert (found['is_large'], found['result'], found['status']) == (True, None, 'completed')


def test_a_failure_shows_the_users_frame_first(browser):
    """Of a traceback the place in the user's own code stands first, then the whole; failures are linked."""
    found = data(browser, '/c/thumbs/r/img-001.json')
    frame = found['traceback']['frame']

    assert frame['in'] == 'thumb'
    assert 'KeyError' in frame['code']
    assert found['neighbours'] == {'previous': '/c/thumbs/r/img-002', 'next': None}


def test_causes_of_failures(browser):
    """Failures are grouped by cause, with the command that retries them and an example's last lines."""
    found = data(browser, '/c/thumbs/errors.json')
    causes = [(group['type'], group['count']) for group in found['groups']]

    assert causes == [('KeyError', 6), ('TimeoutError', 3)]
    assert found['groups'][0]['retry'].startswith('hadrosaur retry MODULE:PROJ thumbs --group f1:')
    assert 'KeyError' in found['groups'][0]['lines']


def test_gallery_shows_images(browser):
    """The gallery has the first image of each resource that has one."""
    found = data(browser, '/c/thumbs/gallery.json')

    assert len(found['pictures']) == 21
    assert browser.get(found['pictures'][0]['source']).headers['content-type'] == 'image/svg+xml'


@pytest.mark.parametrize(
    'ident', ['<script>alert(1)</script>', 'x.json', '..', '~', 'é/ü?#&%2F', '\x1b[31mred']
)
def test_any_ident_has_an_address(browser, ident):
    """Whatever an ident is, its page and its twin are found, and it is text there."""
    path = address('c', 'a/b', 'r', ident)

    assert data(browser, f'{path}.json')['result'] == ident
    shown = browser.get(path)
    assert shown.status_code == 200
    assert '<script>alert' not in shown.text
    assert '\x1b' not in shown.text
    assert names_in(path.encode()) == (['c', 'a/b', 'r', ident], False)


@pytest.mark.parametrize(
    ('path', 'status'),
    [
        ('/nothing', 404), ('/c/none', 404), ('/c/thumbs/r/none', 404), ('/c/thumbs/r/', 404), ('/%ff', 404),
        ('/c/thumbs?status=odd', 400), ('/c/thumbs?sort=odd', 400), ('/c/thumbs?since=odd', 400),
        ('/c/thumbs?col=odd', 400), ('/c/thumbs?after=odd', 400), ('/c/thumbs?result=odd', 400),
        ('/c/thumbs?x=odd', 400), ('/c/thumbs?since=99999999999d', 400),
        (f'/c/thumbs?after=[{10**400},"",""]', 400),
        ('/c/thumbs/r/img-001?compare=9..10', 404), ('/c/thumbs/r/img-001?compare=a', 400),
        ('/file/thumbs/img-003/none', 404), ('/log/thumbs/img-003/record.json', 404),
    ],
)  # fmt: skip
def test_what_is_not_there_is_said(browser, path, status):
    """An address of nothing, or with a filter that makes no sense, gets a sentence and no traceback."""
    answer = browser.get(path)

    assert answer.status_code == status
    assert 'Traceback' not in answer.text


@pytest.mark.parametrize(
    ('column', 'value'),
    [('finished_at', '9999-12-31T23:59:59.999999Z'), ('finished_at', '0001-01-01T00:00:00.000000Z'),
     ('started_at', '9999-12-31T23:59:59.999999Z'), ('duration', 1e308), ('max_rss', 2**62), ('pid', 2**62)],
)  # fmt: skip
def test_a_row_of_another_world_is_shown(tmp_path, column, value):
    """A row whose times or numbers nobody can have written is shown as far as it makes sense."""
    with Project(tmp_path / 'base') as project:
        project.resource('c')(lambda ident, args, subdir: {'a"b': 1, 'n': 10**400, 'c\\': {}})
        project.fetch('c', 'one')
        project.stats()
    with contextlib.closing(sqlite3.connect(tmp_path / 'base/index.sqlite3')) as index, index:
        index.execute('PRAGMA ignore_check_constraints = 1')
        index.execute(f'UPDATE resources SET "{column}" = ?', [value])
    with Project(tmp_path / 'base', create=False) as project:
        browser = page.client(project)
        for path in ('/', '/c/c', '/c/c/r/one', '/timeline', '/c/c?x=result.n&y=duration'):
            assert browser.get(path).status_code == 200
