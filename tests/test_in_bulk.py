"""fetch_many over what is finished: each as fetch gives it, the collection's folder opened once for many."""

import os
import shutil

import pytest

from hadrosaur import Project


@pytest.fixture
def proj(base):
    """Twenty finished resources, one failed one, and one that is damaged."""
    proj = Project(base)

    @proj.resource('coll')
    def compute(ident, args, subdir):
        if ident == 'bad':
            raise ValueError(ident)
        return {'n': ident}

    for ident in [*map(str, range(20)), 'bad']:
        proj.fetch('coll', ident)
    yield proj
    proj.close()


def test_finished_ones_are_those_of_fetch(proj, base):
    """Values, statuses and paths, in whichever form the idents come."""
    wanted = [proj.fetch('coll', str(number)) for number in range(20)] + [proj.get('coll', 'bad')]
    names = [*map(str, range(20)), 'bad']
    for idents in (names, tuple(names), dict.fromkeys(names), iter(names)):
        found = list(proj.fetch_many('coll', idents, retry_errors=False, executor='inline'))
        assert found == wanted
    assert [res.value for res in proj.fetch_many('coll', range(3))] == [{'n': str(each)} for each in range(3)]


def test_the_folder_of_the_collection_is_opened_once_for_many(proj, base, monkeypatch):
    """And closed: no descriptor is left, in the middle of the batch either."""
    opened = []
    real = os.open

    def counting(path, *more, **how):
        opened.append(os.fspath(path))
        return real(path, *more, **how)

    monkeypatch.setattr(os, 'open', counting)
    before = len(os.listdir('/proc/self/fd'))
    batch = proj.fetch_many('coll', [str(number) for number in range(20)], executor='inline')
    next(batch)
    assert len(os.listdir('/proc/self/fd')) == before
    assert len(list(batch)) == 19
    assert sum(str(path) == f'{proj._base.path}/coll' for path in opened) <= 2


def test_a_collection_that_the_users_code_replaces_is_looked_at_anew(proj, base):
    """A generator of idents, or progress, may do anything between two idents."""
    place = base / 'coll'

    def idents():
        yield '1'
        os.rename(place, base.parent / 'before')
        shutil.copytree(base.parent / 'before', place)
        (place / '2/result.json').write_text('"edited"\n')
        yield '2'

    assert [res.value for res in proj.fetch_many('coll', idents(), executor='inline')] == [
        {'n': '1'},
        'edited',
    ]
