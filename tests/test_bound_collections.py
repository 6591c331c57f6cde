"""The verbs of one collection, and small things that a person reaches for in a program or a notebook."""

import asyncio

import pytest

import hadrosaur
from hadrosaur import Batch, Collection, HadrosaurWarning, Query, UnknownCollection


@pytest.fixture
def books(proj):
    """A collection of lengths; what is called ``bad`` fails."""

    @proj.resource('books')
    def books(ident, args, subdir):
        if ident == 'bad':
            raise ValueError('no such book')
        return len(ident) * args.get('times', 1)

    return proj.collection('books')


def test_verbs_of_a_collection_are_those_of_its_project(books, proj):
    """Each takes what the project's takes, without the name."""
    assert isinstance(books, Collection)
    assert books.name == 'books'
    assert books.fetch('moby', {'times': 2}, recompute=True).value == 8
    assert asyncio.run(books.afetch('emma')).value == 4
    with pytest.raises(hadrosaur.ResourceFailed, match='no such book'):
        books.fetch('bad', raise_error=True)
    assert books.fetch_many(['dune', 'bad'], executor='inline', retry_errors=False).wait()[:3] == (2, 1, 1)
    assert books.get('dune').value == 4
    assert [books.exists(ident) for ident in ('dune', 'bad', 'ulysses')] == [True, True, False]
    assert books.stats() == proj.stats()['books']
    assert books.error_groups() == proj.error_groups()
    assert books.query(status='completed', order_by='ident').idents() == ['dune', 'emma', 'moby']
    assert eval(repr(books), {'Project': hadrosaur.Project}).name == 'books'
    with pytest.raises(UnknownCollection, match='papers'):
        proj.collection('papers')


def test_a_collection_without_a_name_has_that_of_its_function(proj):
    """`@proj.resource()`; what has no name of its own needs one, and brackets that were left out are said."""

    @proj.resource()
    def papers(ident, args, subdir):
        return ident

    assert proj.collection('papers').fetch('a').value == 'a'
    with pytest.raises(ValueError, match='has no name of its own'):
        proj.resource()(lambda ident, args, subdir: ident)
    with pytest.raises(TypeError, match='with brackets'):

        @proj.resource
        def forgotten(ident, args, subdir):
            return ident

    assert proj.collections == ['papers']


def test_existing_computes_nothing(books, proj):
    """Asking leaves no folder and no row."""
    assert not books.exists('moby')
    assert not proj.exists('books', 'moby')
    assert len(proj.query()) == 0


def test_first_and_idents_of_a_query(books, proj):
    """The first row, or None; and idents as `fetch_many` takes them."""
    assert proj.query().first() is None
    books.fetch_many(['a', 'bb', 'bad'], executor='inline').wait()
    found = proj.query('books', status='error')
    assert isinstance(found, Query)
    assert (found.first().ident, found.idents()) == ('bad', ['bad'])
    assert proj.query(order_by='ident', offset=1).first().ident == 'bad'


def test_a_batch_is_left_as_a_file_is(books, proj):
    """Leaving its with block stops it: what was not begun is as if never asked for."""
    with books.fetch_many(['a', 'b', 'c'], executor='inline') as batch:
        assert isinstance(batch, Batch)
        next(batch)
    with pytest.warns(HadrosaurWarning, match='closed before it was done'):
        assert list(batch) == []
    assert proj.query().idents() == ['a']


def test_a_batch_says_how_it_stands(books):
    """In a shell and in a notebook."""
    batch = books.fetch_many(['a', 'bad'], executor='inline')
    batch.wait()
    assert '1 completed' in repr(batch)
    assert '1 failed' in repr(batch)
    assert 'books' in repr(batch)
    assert '<table>' in batch._repr_html_()
    assert '<td style="text-align: left">2</td>' in batch._repr_html_()
