"""The public interface: what calls take, when they refuse it, and what comes back."""

import asyncio
import importlib.util
import logging
import pickle
import shutil
import sys
import threading
from datetime import timedelta
from pathlib import Path

import pytest
from conftest import HANG, await_that

import hadrosaur
from hadrosaur import CancelRequest, NotAProject, Project, RunContext, errors


def echo(ident, args, subdir):
    """Compute what most of these tests fetch; an ident ``bad`` fails."""
    if ident == 'bad':
        raise KeyError(ident)
    return ident


@pytest.fixture
def books(proj):
    """A collection that echoes its idents."""
    proj.resource('books')(echo)
    return proj


def test_fetch_takes_the_collection_by_either_keyword(books):
    """``collection`` and ``collection_name`` are the same; none or both is an error of the call."""
    assert books.fetch(collection_name='books', ident='a').value == 'a'
    assert books.fetch(ident='b', collection='books', args={}).value == 'b'
    assert asyncio.run(books.afetch(collection_name='books', ident='c')).value == 'c'
    with pytest.raises(TypeError, match='name of a collection'):
        books.fetch(ident='a')
    with pytest.raises(TypeError, match='not both'):
        books.fetch('books', 'a', collection_name='books')


def test_waiting_for_a_batch_can_time_out(proj):
    """`Batch.wait(timeout)` returns with what is pending; the work goes on and can be waited for again."""
    go = threading.Event()

    @proj.resource('slow')
    def slow(ident, args, subdir):
        assert go.wait(HANG)

    batch = proj.fetch_many('slow', ['a', 'b'], workers=2, executor='threads')
    assert batch.wait(timedelta(milliseconds=20)).pending == 2
    assert batch.wait(0).pending == 2
    go.set()
    assert batch.wait(HANG) == (2, 2, 0, 0, 0)
    assert batch.wait() == (2, 2, 0, 0, 0)
    with pytest.raises(ValueError, match='timeout must be a number of seconds'):
        batch.wait('soon')


@pytest.mark.parametrize('idents', ['moby', b'bytes', None, 5, 'resource', 'row'], ids=str)
def test_what_is_no_iterable_of_idents_is_refused_at_the_call(books, idents):
    """One text, one resource, one row, or nothing to iterate: not only when the batch is run."""
    single = {'resource': lambda: books.fetch('books', 'a'), 'row': lambda: books.query().first()}
    books.fetch('books', 'a')
    with pytest.raises(TypeError, match='fetch_many takes'):
        books.fetch_many('books', single[idents]() if idents in single else idents)


def test_other_arguments_of_many_are_checked_at_the_call(books):
    """Args that are no dict, and a progress that is no function."""
    with pytest.raises(TypeError, match='args'):
        books.fetch_many('books', ['a'], 5)
    with pytest.raises(TypeError, match='progress takes'):
        books.fetch_many('books', ['a'], progress='yes')


def test_seconds_to_wait_are_checked_at_the_call(books):
    """Also where there is nothing to wait for."""
    done = books.fetch('books', 'a')
    for wrong in ('soon', -1):
        with pytest.raises(ValueError, match='must be a number of seconds'):
            done.wait(wrong)
        with pytest.raises(ValueError, match='must be a number of seconds'):
            books.fetch('books', 'a', wait=wrong)
    assert done.wait(timedelta(seconds=1)) is done


def test_rows_are_found_by_phase_host_version_and_attempt(proj):
    """Each alone, one or several values, and with other filters."""
    proj.resource('old', version='1')(echo)
    proj.resource('new', version=2)(echo)
    proj.fetch('old', 'a')
    proj.fetch('new', 'b')
    proj.fetch('new', 'b', recompute=True)
    host = proj.query().first().host

    assert proj.query(version='1').idents() == ['a']
    assert proj.query(version=2).idents() == ['b']
    assert len(proj.query(version=[1, '2'], host=[host, 'elsewhere'], order_by='ident')) == 2
    assert proj.query(attempt=2).idents() == ['b']
    assert proj.query('old', attempt=[1, 2]).idents() == ['a']
    assert not proj.query(host='elsewhere')
    assert not proj.query(phase=['queued', 'running'])
    with pytest.raises(ValueError, match="did you mean 'queued'"):
        proj.query(phase='queud')
    with pytest.raises(TypeError, match='attempt takes whole numbers'):
        proj.query(attempt='first')


def test_a_run_under_way_is_found_by_its_phase(proj):
    """``phase='running'``, from within the function itself."""

    @proj.resource('books')
    def books(ident, args, subdir):
        started.set()
        assert go.wait(HANG)

    started, go = threading.Event(), threading.Event()
    with proj.fetch_many('books', ['a'], executor='threads', workers=1) as batch:
        batch.wait(0.01)
        assert started.wait(HANG)
        await_that(lambda: proj.query(phase='running').idents() == ['a'])
        assert not proj.query(phase='queued')
        go.set()
        batch.wait()


def test_a_query_shows_its_rows(books):
    """``repr`` gives the filters and the first rows, in lines."""
    books.fetch_many('books', map(str, range(12)), executor='inline').wait()
    books.fetch('books', 'bad')
    shown = repr(books.query(status='error'))
    assert shown.startswith("<Query(status='error'")
    assert 'books/bad  error' in shown
    assert "KeyError: 'bad'" in shown
    assert len(repr(books.query()).splitlines()) == 12  # the filters, ten rows, and that there are more
    assert repr(books.query(ident='none')).endswith(': no rows>')


def test_what_no_failure_has_names_what_there_is(books):
    """An error type or group that no failure has: the query shows those there are."""
    assert repr(books.query(error_type='TimedOut')).endswith(': no rows>')
    books.fetch('books', 'bad')
    [group] = books.error_groups()
    above = books.query(error_type='LookupError', ident='none')  # above KeyError: it is there
    assert above.why_nothing() == ''
    shown = repr(books.query('books', error_type=['KeyEror']))
    assert 'no failure of books has the type KeyEror; there is KeyError (1); did you mean KeyError?' in shown
    assert f'has the group f1:0; there is {group.group} (1)' in books.query(error_group='f1:0').why_nothing()


def test_a_cancel_can_be_waited_for(proj, tmp_path):
    """It is the number of resources asked to stop, with their idents; `wait` returns once they stopped."""

    @proj.resource('slow', background=True)
    def slow(ident, args, subdir):
        (tmp_path / ident).touch()
        threading.Event().wait()

    running = proj.fetch('slow', 'a')
    await_that((tmp_path / 'a').exists)
    asked = proj.cancel('slow', 'a')
    assert isinstance(asked, CancelRequest)
    assert (asked, asked.collection, asked.idents) == (1, 'slow', ('a',))
    assert asked.wait(timedelta(seconds=HANG)) is True
    assert running.wait(HANG).entry.error_type == 'Cancelled'
    assert pickle.loads(pickle.dumps(asked)) == 1
    nothing = proj.cancel('slow')
    assert (nothing, nothing.idents, nothing.wait()) == (0, (), True)
    with pytest.raises(ValueError, match='timeout'):
        nothing.wait(-1)


def test_waiting_for_a_cancel_can_time_out(proj, monkeypatch):
    """False while one of them is still pending."""
    proj.resource('books')(echo)
    pending = proj.fetch('books', 'a')
    request = CancelRequest(1, 'books', ('a',), proj._await_cancelled)
    assert request.wait(0) is True
    monkeypatch.setitem(pending['status'], 'pending', True)
    monkeypatch.setitem(pending['status'], 'completed', False)
    monkeypatch.setattr(proj._fetcher, 'get', lambda *_: pending)
    assert request.wait(0) is False


def test_the_type_of_current_is_exported(proj):
    """``hadrosaur.current()`` is a `hadrosaur.RunContext` inside a function, and None elsewhere."""
    seen = []
    proj.resource('books')(lambda ident, args, subdir: seen.append(hadrosaur.current()))
    assert proj.fetch('books', 'a').status == 'completed'
    assert isinstance(seen[0], RunContext)
    assert repr(seen[0]) == "RunContext('books', 'a', attempt=1)"
    assert hadrosaur.current() is None


def test_opened_to_read_stays_so_through_pickling(base):
    """A copy of ``Project(create=False)`` makes nothing either: not the base, nor anything in it."""
    with Project(base) as made:
        made.resource('books')(echo)
        made.fetch('books', 'a')
    before = sorted(path.name for path in base.rglob('*'))
    with pickle.loads(pickle.dumps(Project(base, create=False))) as copy:
        assert copy.get('books', 'a').value == 'a'
        assert sorted(path.name for path in base.rglob('*')) == before
    copy = pickle.dumps(Project(base, create=False))
    shutil.rmtree(base)
    with pytest.raises(NotAProject):
        Project(base, create=False)
    with pytest.raises(hadrosaur.HadrosaurError):
        pickle.loads(copy).query().first()
    assert not base.exists()


def test_the_logger_has_a_handler_that_does_nothing(monkeypatch):
    """So that a program that has set up no logging hears nothing, at any level."""
    logger = logging.getLogger('hadrosaur')
    monkeypatch.setattr(logger, 'handlers', [])
    errors.log('an index was built')
    errors.log('and another')
    assert [type(handler) for handler in logger.handlers] == [logging.NullHandler]


def test_importing_on_windows_says_what_is_missing(monkeypatch):
    """In one sentence, before anything that only Unix has is imported."""
    monkeypatch.setattr(sys, 'platform', 'win32')
    spec = importlib.util.spec_from_file_location('on_windows', Path(hadrosaur.__file__))
    with pytest.raises(ImportError, match='Linux and macOS; on Windows, use it in WSL'):
        spec.loader.exec_module(importlib.util.module_from_spec(spec))
