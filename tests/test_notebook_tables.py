"""Notebooks: what is looked at shows itself as a table, escaped and bounded."""

import html
import os
import re
import shutil

import pytest

from hadrosaur import Project

HOSTILE = '<script>alert(1)</script>\x1b[31m\u202e\udcff'


def text(shown):
    """The cells of tables, in order."""
    cells = re.findall(r'<(?:td|th|caption)\b[^>]*>(.*?)</(?:td|th|caption)>', shown, re.DOTALL)
    return [html.unescape(cell) for cell in cells]


@pytest.fixture(scope='module')
def project(tmp_path_factory):
    """A project with many rows, causes and collections, and hostile text in each place."""
    with Project(tmp_path_factory.mktemp('tables') / 'base') as made:

        @made.resource('coll')
        def coll(ident, args, subdir):
            if ident.startswith('bad'):
                raise type(f'Error{ident[3:]}', (ValueError,), {})(
                    '<img src=x onerror=alert(1)>' + 'x' * 9999
                )
            return {'a': HOSTILE[:-1], 'long': 'x' * 100_000, 'list': list(range(1000))}

        made.fetch_many('coll', [f'{n}' for n in range(25)], executor='inline').wait()
        made.fetch_many('coll', [f'bad{n}' for n in range(23)], executor='inline').wait()
        made.fetch('coll', HOSTILE[:-1], {'<b>': 1})
        for number in range(22):
            made.resource(f'<i>{number}')(lambda ident, args, subdir: ident)
            made.fetch(f'<i>{number}', 'one')
        yield made


SHOWN = {
    'project': lambda project: project,
    'batch': lambda project: project.fetch_many('coll', ['1', 'bad1'], executor='inline'),
    'query': lambda project: project.query('coll'),
    'groups': lambda project: project.error_groups(),
    'resource': lambda project: project.get('coll', HOSTILE[:-1]),
    'failure': lambda project: project.get('coll', 'bad1'),
}


@pytest.mark.parametrize('what', SHOWN)
def test_a_table_is_escaped_and_bounded(project, what):
    """Whatever stands in it is text, and a table has no more than 20 rows of 200 characters a cell."""
    found = SHOWN[what](project)
    shown = found._repr_html_()
    if what == 'batch':
        found.close()

    assert shown.startswith('<table>')
    assert shown.encode()
    assert not re.search(r'<(?!/?(table|caption|thead|tbody|tr|th|td)\b)', shown)
    assert '\x1b' not in shown
    assert '\u202e' not in shown
    assert len(shown) < 60_000
    assert max(map(len, text(shown))) <= 300
    assert shown.count('<tr>') <= 30


def test_a_project_shows_counts_and_its_last_failures(project):
    """Collections with their counts, then what has failed last."""
    cells = text(project._repr_html_())

    assert cells[0] == f'{project!r}: the largest 20 of 23 collections'
    assert ['coll', '49', '26', '23', '0'] in [cells[at : at + 5] for at in range(len(cells))]
    assert 'last failures' in cells
    assert any('Error22: <img src=x' in cell for cell in cells)


def test_a_query_and_its_causes_say_how_many_there_are(project):
    """The first rows, how many there are in all, and with what args and result."""
    assert text(project.query('coll')._repr_html_())[0] == 'the first 20 of 49 resources'
    assert text(project.query('coll', ident='1')._repr_html_())[0] == '1 resources'
    assert text(project.error_groups()._repr_html_())[0] == '23 causes: the first 20'
    assert "{'<b>': 1}" in text(project.query(args={'<b>': 1})._repr_html_())


def test_a_batch_and_a_resource_tell_how_it_ended(project):
    """A batch says what is done, a resource its error, args, result and folder."""
    batch = project.fetch_many('coll', ['1', 'bad1'], executor='inline')
    before = text(batch._repr_html_())[0]
    batch.wait()
    cells = text(project.get('coll', 'bad1')._repr_html_())

    assert before == 'fetch_many of coll: 0 completed, 0 failed, 2 not begun'
    assert text(batch._repr_html_())[0].startswith('fetch_many of coll: 1 completed')
    told = dict(zip(cells[3::2], cells[4::2], strict=True))
    assert told['status'] == 'error'
    assert 'Error1: <img' in told['error']
    assert os.path.isdir(told['folder'])


def test_what_is_gone_is_shown_as_far_as_it_is_known(tmp_path):
    """A resource whose folder is gone, and a project whose base is, show what they know and raise nothing."""
    with Project(tmp_path / 'base') as project:
        project.resource('coll')(lambda ident, args, subdir: ident)
        found = project.fetch('coll', 'one')
        project.stats()
        shutil.rmtree(tmp_path / 'base')

        assert 'completed' in text(found._repr_html_())
        assert repr(project) in text(project._repr_html_())[0]
