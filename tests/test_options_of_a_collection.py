"""Options of `Project.resource`: what they take, and that each executor keeps them."""

import contextlib
from concurrent.futures import ProcessPoolExecutor
from datetime import timedelta
from pathlib import Path

import pytest

import hadrosaur

KINDS = ['inline', 'threads', 'processes', 'futures']


@contextlib.contextmanager
def executor_of(kind):
    """What fetch_many takes as its executor."""
    if kind != 'futures':
        yield kind
        return
    with ProcessPoolExecutor(2) as executor:
        yield executor


class Flaky(ConnectionError):
    """Something that may go away."""


def failing(ident, args, subdir):
    """Fails as ``ident`` says; each run leaves a mark in storage."""
    Path(subdir, str(hadrosaur.current().attempt)).touch()
    if ident == 'below':
        raise Flaky('gone')
    if ident == 'group':
        raise ExceptionGroup('both', [Flaky('a'), ExceptionGroup('inner', [TimeoutError('b')])])
    if ident == 'mixed':
        raise ExceptionGroup('both', [Flaky('a'), ValueError('b')])
    raise ValueError('for good')


@pytest.mark.parametrize('kind', KINDS)
def test_only_named_errors_are_tried_again(kind, proj):
    """`retry_on` holds for an error's class, for the classes above it, and for all that a group holds."""
    proj.resource('some', retries=2, retry_on=OSError, keep_storage=True)(failing)
    proj.resource('by name', retries=1, retry_on=['tests.x.Flaky', 'Flaky'], keep_storage=True)(failing)
    with executor_of(kind) as executor:
        found = proj.fetch_many('some', ['below', 'group', 'mixed', 'other'], executor=executor, workers=2)
        found.wait()
        proj.fetch_many('by name', ['below', 'other'], executor=executor, workers=2).wait()

    attempts = {row.ident: row.attempt for row in proj.query('some')}
    assert attempts == {'below': 3, 'group': 3, 'mixed': 1, 'other': 1}
    assert {row.ident: row.attempt for row in proj.query('by name')} == {'below': 2, 'other': 1}


@pytest.mark.parametrize(
    ('wanted', 'attempts'), [('TimedOut', 2), (hadrosaur.ResourceFailed, 2), (OSError, 1)]
)
def test_a_run_that_was_killed_is_tried_again_by_name(wanted, attempts, proj):
    """An error that no function raises (TimedOut, WorkerDied) has a class too, which `retry_on` may name."""

    @proj.resource('slow', timeout=timedelta(seconds=0.2), retries=1, retry_on=wanted)
    def slow(ident, args, subdir):
        import time

        time.sleep(600)

    proj.fetch('slow', 'x')

    (row,) = proj.query('slow')
    assert (row.error_type, row.attempt) == ('TimedOut', attempts)


@pytest.mark.parametrize('given', [(), 'not a name', 3, [int], [ValueError('x')], ''])
def test_what_is_no_exception_is_refused_at_the_call(given, proj):
    """A `retry_on` that names nothing would never try again, and nobody would know why."""
    with pytest.raises(ValueError, match='retry_on'):
        proj.resource('x', retry_on=given)(failing)


def test_delays_grow_up_to_the_most(proj):
    """`max_retry_delay` bounds what `retry_backoff` makes of the delay, however often it is tried."""
    more = {'retry_backoff': 10, 'max_retry_delay': timedelta(minutes=1)}
    proj.resource('x', retries=9, retry_delay=timedelta(seconds=2), **more)(failing)
    proj.resource('y', retries=9, retry_delay=1, retry_backoff=10)(failing)

    known = proj._registry.get('x')
    assert [known.delay_before(n) for n in (1, 2, 3, 4, 5000)] == [2, 20, 60, 60, 60]
    assert proj._registry.get('y').delay_before(5000) < 1e10


@pytest.mark.parametrize('name', ['timeout', 'expires_after', 'retry_delay', 'max_retry_delay'])
@pytest.mark.parametrize('bad', [timedelta(-1), -1, float('nan'), '5', True])
def test_times_that_are_none_are_refused(name, bad, proj):
    """Seconds are a number or a timedelta, and never less than nothing."""
    with pytest.raises(ValueError, match=name):
        proj.resource('x', **{name: bad})(failing)


def test_seconds_may_be_timedeltas(proj):
    """timeout, expires_after, retry_delay and every wait take a timedelta for seconds."""
    times = dict.fromkeys(('timeout', 'expires_after', 'retry_delay'), timedelta(minutes=5))
    proj.resource('x', background=True, **times)(lambda ident, args, subdir: ident)

    assert proj.fetch('x', 'a', wait=timedelta(minutes=5)).result == 'a'
    assert proj.fetch('x', 'b').wait(timedelta(minutes=5)).result == 'b'
    assert proj.wait(timeout=timedelta(minutes=5))
    for bad in ('5', -1, timedelta(-1), float('nan')):
        with pytest.raises(ValueError, match='wait'):
            proj.fetch('x', 'c', wait=bad)


@pytest.mark.parametrize('kind', KINDS)
def test_numbers_of_numpy_are_numbers(kind, proj):
    """A numpy integer names the resource of that number; numpy's numbers reach the function as Python's."""
    np = pytest.importorskip('numpy')

    @proj.resource('x')
    def x(ident, args, subdir):
        return [ident, args, [type(value).__name__ for value in args.values()]]

    args = {'a': np.int64(3), 'b': np.float32(0.5), 'c': np.bool_(True)}
    with executor_of(kind) as executor:
        found = {
            each.ident: each.result for each in proj.fetch_many('x', np.arange(3), args, executor=executor)
        }

    assert sorted(found) == ['0', '1', '2']
    assert found['2'] == ['2', {'a': 3, 'b': 0.5, 'c': True}, ['int', 'float', 'bool']]
    assert proj.fetch('x', np.uint8(2), {'a': 3, 'b': 0.5, 'c': True}).result == found['2']
    assert proj.get('x', np.int16(1)).ident == '1'


@pytest.mark.parametrize('name', ['bool_', 'float64', 'array'])
def test_what_is_no_number_of_numpy_is_refused(name, proj):
    """Truth values, floats and arrays of numpy name nothing, and times of numpy are no args."""
    np = pytest.importorskip('numpy')
    proj.resource('x')(failing)

    with pytest.raises(hadrosaur.InvalidIdent):
        proj.fetch('x', getattr(np, name)([1, 2] if name == 'array' else 1))
    for bad in (np.datetime64('2026-01-01'), np.float64('nan'), np.array([1]), np.complex64(1)):
        with pytest.raises(hadrosaur.InvalidArgs):
            proj.fetch('x', 'a', {'a': bad})
