"""`proj.on(…)`: functions are told in the caller, after the row is written; their failures are logged."""

import logging
import os
import sqlite3
import threading

import pytest
from conftest import await_that

from hadrosaur import Project


@pytest.fixture
def told(proj):
    """What hooks of all kinds were called with, each with what the index said at that moment."""
    found = []

    def at(event):
        def hook(what):
            if event == 'batch_end':
                found.append((event, what.collection, what.counts))
                return
            with sqlite3.connect(f'{proj.path}/index.sqlite3') as driver:
                row = driver.execute('SELECT status FROM resources WHERE ident = ?', (what.ident,)).fetchone()
            found.append((event, what.ident, what.status, row[0], what.result, os.getpid()))

        return hook

    for event in ('completed', 'error', 'batch_end'):
        assert proj.on(event, hook := at(event)) is hook

    @proj.resource('coll', retries=1)
    def compute(ident, args, subdir):
        if ident.startswith('bad'):
            raise ValueError(ident)
        if ident.startswith('outer'):
            return proj.fetch('coll', 'inner').result
        return ident

    return found


def of(event, ident, result=None):
    return (event, ident, event, event, result, os.getpid())


def test_fetch_tells(proj, told):
    """Once for each run and its retries, before fetch returns; not of what was there; nested ones too."""
    proj.fetch('coll', 'a')
    assert told == [of('completed', 'a', 'a')]
    proj.fetch('coll', 'a')
    proj.fetch('coll', 'bad')
    assert told[1:] == [of('error', 'bad')]
    proj.fetch('coll', 'outer')
    assert told[2:] == [of('completed', 'inner', 'inner'), of('completed', 'outer', 'inner')]
    proj.fetch('coll', 'a', recompute=True)
    assert len(told) == 5


@pytest.mark.parametrize('executor', ['inline', 'threads', 'processes'])
def test_fetch_many_tells(proj, told, executor):
    """Of each that was computed, whoever computed it, then of the end."""
    proj.fetch('coll', 'b')
    del told[:]
    thread = []
    proj.on('completed', lambda res: thread.append(threading.current_thread()))
    batch = proj.fetch_many('coll', ['a', 'b', 'bad', 'outer'], workers=1, executor=executor)
    assert len(list(batch)) == 4
    assert told[-1] == ('batch_end', 'coll', batch.counts)
    assert sorted(told[:-1]) == sorted(
        [of('completed', 'a', 'a'), of('error', 'bad'), of('completed', 'inner', 'inner'),
         of('completed', 'outer', 'inner')]
    )  # fmt: skip
    assert set(thread) == {threading.current_thread()}


def test_background_work_tells(proj, told):
    """By a thread where nobody waits; who waits, or closes, finds it told."""
    proj.fetch('coll', 'a', background=True)
    await_that(lambda: told)
    assert told == [of('completed', 'a', 'a')]
    assert proj.fetch('coll', 'bad', background=True).wait().status == 'error'
    assert told[1:] == [of('error', 'bad')]
    proj.fetch('coll', 'c', background=True)
    proj.wait()
    assert told[2:] == [of('completed', 'c', 'c')]
    proj.fetch('coll', 'd', background=True)
    proj.close()
    assert told[3:] == [of('completed', 'd', 'd')]


def test_a_batch_that_is_left_or_cancelled_ends(proj, told):
    """Its end is told once."""
    with proj.fetch_many('coll', ['a', 'b', 'c'], executor='inline') as batch:
        next(batch)
    assert [each[0] for each in told].count('batch_end') == 1
    assert proj.fetch_many('coll', [], executor='inline').wait().total == 0
    assert [each[0] for each in told].count('batch_end') == 2


def test_what_a_hook_raises_is_logged_and_nothing_else(proj, caplog):
    """The others are called, and the fetch returns as ever; in a batch and in the background too."""
    proj.resource('coll')(lambda ident, args, subdir: ident)
    seen = []
    proj.on('completed', lambda res: 1 / 0)
    proj.on('completed', seen.append)

    @proj.on('batch_end')
    def fail(batch):
        raise OSError('no mail today')

    assert proj.fetch('coll', 'a')['result'] == 'a'
    assert proj.fetch_many('coll', ['b'], executor='inline').wait().completed == 1
    proj.fetch('coll', 'c', background=True)
    proj.close()
    assert [res.result for res in seen] == ['a', 'b', 'c']
    errors = [
        record for record in caplog.records if record.name == 'hadrosaur' and record.levelno == logging.ERROR
    ]
    assert [record.exc_info[0] for record in errors] == [ZeroDivisionError] * 2 + [OSError, ZeroDivisionError]


def test_a_hook_may_fetch_and_query(proj):
    """What follows can be begun there: the next stage, a look at the index, a batch, more hooks."""
    proj.resource('first')(lambda ident, args, subdir: 1)
    proj.resource('second')(lambda ident, args, subdir: proj.fetch('first', ident).result + 1)
    seen = []

    @proj.on('completed')
    def go_on(res):
        if res.collection == 'first' and res.ident in ('a', 'b'):
            seen.append((res.ident, proj.fetch('second', res.ident).result, len(proj.query('second'))))
            proj.fetch_many('first', ['last'], executor='inline').wait()
            proj.fetch('second', 'later', background=True).wait()

    proj.fetch('first', 'a')
    proj.fetch('first', 'b', background=True)
    proj.close()
    assert seen == [('a', 2, 1), ('b', 2, 3)]


@pytest.mark.parametrize(('event', 'function'), [('errors', print), ('', print), (None, print)])
def test_an_unknown_event_is_refused(proj, event, function):
    """With those that there are."""
    with pytest.raises(ValueError, match="there is 'completed', 'error', 'batch_end'"):
        proj.on(event, function)
    with pytest.raises(ValueError, match='there is no event'):
        proj.on(event)
    with pytest.raises(TypeError, match='must be a function'):
        proj.on('error', 7)


def test_a_pickled_project_tells_nobody(proj, told):
    """Functions that are told belong to the program that said so."""
    import pickle

    other = pickle.loads(pickle.dumps(Project(proj.path)))
    other.resource('coll')(lambda ident, args, subdir: 1)
    other.fetch('coll', 'x')
    other.close()
    assert told == []
