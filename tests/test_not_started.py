"""A run that never began leaves the folder as it was, and the caller is told why."""

import errno
import os
import sys

import pytest

from hadrosaur import ResourceNotFound, compute, recover
from hadrosaur.directory.claim import Claim
from hadrosaur.not_started import Unloadable

IDENTS = ['done', 'failed', 'new']


def content(base, ident):
    """Every file below a resource's folder, by name; None where there is no folder."""
    folder = base / 'coll' / ident
    if not folder.exists():
        return None
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob('*'))
        if path.is_file() and path.name != '.lock'
    }


class Bad:
    """Something that a function may drag along: loading it calls a function with one argument."""

    def __init__(self, called, argument):
        self.called = called, argument

    def __reduce__(self):
        return self.called[0], (self.called[1],)


LOADS = {
    'it exits': Bad(os._exit, 7),
    'it raises': Bad(int, 'no number'),
    'it asks to exit': Bad(sys.exit, 3),
}


@pytest.fixture(params=LOADS)
def filled(request, proj, base):
    """A collection with a completed and a failed resource, whose function can no longer be loaded."""
    dragged = []

    @proj.resource('coll')
    def compute_it(ident, args, subdir):
        with open(f'{subdir}/kept', 'w') as kept:
            kept.write(ident)
        if ident == 'failed':
            raise ValueError('the first run failed')
        return ['precious', len(dragged)]

    for ident in IDENTS[:2]:
        proj.fetch('coll', ident, {'asked': 1})
    dragged.append(LOADS[request.param])
    return {ident: content(base, ident) for ident in IDENTS}


@pytest.mark.parametrize('recompute', [True, False])
def test_a_function_that_cannot_be_loaded_begins_nothing(proj, base, filled, recompute):
    """Results, logs, storage and args of the last run stay, whatever loading the function does."""
    found = {res.ident: res for res in proj.fetch_many('coll', IDENTS, workers=1, recompute=recompute)}
    assert {ident: content(base, ident) for ident in IDENTS} == filled
    asked = found if recompute else {ident: found[ident] for ident in ('failed', 'new')}
    assert {res.status for res in asked.values()} == {'error'}
    for res in asked.values():
        assert res.entry.error_type in ('WorkerDied', 'builtins.ValueError', 'ValueError', 'SystemExit')
        assert 'the first run failed' not in res.error
    assert proj.get('coll', 'done').result == ['precious', 0]
    assert proj.get('coll', 'failed').error.endswith('the first run failed\n')
    with pytest.raises(ResourceNotFound):
        proj.get('coll', 'new')


def test_a_first_run_that_cannot_begin_leaves_no_folder(proj, base, monkeypatch):
    """The folder that was made for it goes again; one that was there stays."""
    proj.resource('coll')(lambda ident, args, subdir: ident)
    (base / 'coll/there').mkdir()
    (base / 'coll/there/notes.txt').write_text('mine')

    def refuse(*_, **__):
        raise OSError(errno.ENOSPC, 'no room')

    monkeypatch.setattr(Claim, 'begin', refuse)
    for ident in ('new', 'there'):
        assert 'no room' in proj.fetch('coll', ident).error
    assert os.listdir(base / 'coll') == ['there']
    # A worker leaves it so by itself, whether or not its caller is still there to settle it.
    collection = proj._registry.get('coll')
    order = proj._store.job(collection, 'new', None, 'new')
    assert compute.carry_out(order, collection.function).not_started
    assert os.listdir(base / 'coll') == ['there']


def test_why_a_function_could_not_be_loaded_is_told_in_full(proj):
    """The traceback of the import is what ``error`` shows, pickled or not."""
    import pickle

    bad = Bad(compile, 'x = (')

    @proj.resource('coll')
    def compute_it(ident, args, subdir):
        return bad is None

    (res,) = proj.fetch_many('coll', ['a'], workers=1)
    assert res.entry.error_type == 'TypeError'
    assert 'could not be loaded' in res.entry.error
    assert res.error.startswith('Traceback')
    assert '_worker_main.py' in res.error
    assert pickle.loads(pickle.dumps(res)).error == res.error


def test_a_saved_result_is_given_whether_or_not_the_function_loads(proj, monkeypatch):
    """An order that comes late, for what is computed by now, needs no function."""
    proj.resource('coll')(lambda ident, args, subdir: 'saved')
    proj.fetch('coll', 'a')
    store = proj._store
    found = proj._registry.get('coll')
    order = store.job(found, 'a', None, 'a')
    outcome = compute.carry_out(order, Unloadable.of(ImportError('gone')))
    assert outcome.entry.status == 'completed'
    assert not outcome.not_started
    outcome = compute.carry_out(order._replace(recompute='yes'), Unloadable.of(ImportError('gone')))
    assert outcome.not_started
    assert not outcome.fresh


@pytest.mark.parametrize('number', [errno.EMFILE, errno.ENFILE, errno.EACCES, errno.EIO, errno.ESTALE])
def test_a_claim_that_fails_begins_nothing(proj, base, monkeypatch, number):
    """Whatever keeps the folder from being locked, what stands in it stays, and the next fetch serves it."""
    proj.resource('coll')(lambda ident, args, subdir: 'saved')
    proj.fetch('coll', 'a')
    before = content(base, 'a')

    def refuse(*args, **more):
        raise OSError(number, os.strerror(number))

    with monkeypatch.context() as patched:
        patched.setattr(Claim, 'take', refuse)
        res = proj.fetch('coll', 'a', recompute=True)
    assert res.status == 'error'
    assert os.strerror(number) in res.error
    assert content(base, 'a') == before
    assert proj.fetch('coll', 'a').result == 'saved'
    assert recover.recover('coll', 'a', str(base / 'coll'), 'a').entry.status == 'completed'
