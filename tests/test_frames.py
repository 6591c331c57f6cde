"""Frames and notebooks (issue of the long-lived index, item 6): proper dtypes, and nothing unescaped."""

import pytest

HOSTILE = '<script>alert("x")</script>'


@pytest.fixture
def rows(proj):
    """Three resources: one completed, one failed with a hostile message, one with a hostile ident."""

    @proj.resource('coll')
    def compute(ident, args, subdir):
        if ident == 'bad':
            raise ValueError(HOSTILE)
        return 1

    for ident in ('good', 'bad', HOSTILE):
        proj.fetch('coll', ident, {'n': 1})
    return proj


def test_to_pandas(rows):
    """Times are UTC timestamps, numbers nullable, status a category, args dicts."""
    pandas = pytest.importorskip('pandas')
    frame = rows.query('coll', order_by='ident').to_pandas()

    assert list(frame['status']) == ['completed', 'error', 'completed']
    assert isinstance(frame['status'].dtype, pandas.CategoricalDtype)
    assert str(frame['finished_at'].dt.tz) == 'UTC'
    assert frame['finished_at'].max() == max(entry.finished_at for entry in rows.query())
    assert str(frame['attempt'].dtype) == 'Int64'
    assert str(frame['duration'].dtype) == 'Float64'
    assert frame['args'][0] == {'n': 1}
    assert frame['error'].isna().tolist() == [True, False, True]


def test_to_polars(rows):
    """The same in polars; args are JSON text there."""
    polars = pytest.importorskip('polars')
    frame = rows.query('coll', order_by='ident').to_polars()

    assert frame['ident'].to_list() == [HOSTILE, 'bad', 'good']
    assert frame.schema['finished_at'] == polars.Datetime('us', 'UTC')
    assert frame['finished_at'].max() == max(entry.finished_at for entry in rows.query())
    assert frame.schema['attempt'] == polars.Int64
    assert frame['args'].to_list() == ['{"n":1}'] * 3
    assert frame['error'].null_count() == 2


@pytest.mark.parametrize('kind', ['pandas', 'polars'])
def test_empty_frames_have_all_columns(rows, kind):
    """A query that finds nothing gives a frame with the same columns."""
    pytest.importorskip(kind)
    full = getattr(rows.query(), f'to_{kind}')()
    empty = getattr(rows.query(ident='nothing'), f'to_{kind}')()

    assert list(empty.columns) == list(full.columns)
    assert len(empty) == 0
    assert list(empty.dtypes) == list(full.dtypes)


@pytest.mark.parametrize('what', ['project', 'query', 'resource', 'failed'])
def test_notebooks_show_hostile_text_escaped(rows, what):
    """Neither an ident nor a message becomes HTML."""
    shown = {
        'project': rows,
        'query': rows.query(),
        'resource': rows.fetch('coll', HOSTILE),
        'failed': rows.get('coll', 'bad'),
    }[what]._repr_html_()

    assert shown.startswith('<table>')
    assert '<script>' not in shown
    assert '&lt;script&gt;' in shown
