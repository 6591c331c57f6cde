"""What is read of a folder, by whichever verb, is of one run, also where the next one comes in between."""

import json

import pytest
from test_cli_tools import call

from hadrosaur import Project, directory, reindex, row_events
from hadrosaur.cli import show


@pytest.fixture
def coll(proj):
    """The first run of ``a`` has failed; the next ones complete, and print more."""
    runs = []

    @proj.resource('coll')
    def compute(ident, args, subdir):
        runs.append(ident)
        print('ab'[len(runs) > 1] * 10 * len(runs))
        if len(runs) == 1:
            raise ValueError('the first one')
        return len(runs)

    proj.fetch('coll', 'a')
    return proj


def then_once(monkeypatch, owner, name, action):
    """After its first call from now on, something happens."""
    real, left = getattr(owner, name), [action]

    def then(*args, **more):
        found = real(*args, **more)
        if left:
            left.pop()()
        return found

    monkeypatch.setattr(owner, name, then)


def again(proj):
    """Somebody else computes it anew."""
    return lambda: proj.fetch('coll', 'a', recompute=True)


def walked(proj):
    [found] = reindex.walk(proj._base.path)
    return found.entry


def synced(proj):
    place = row_events.Place('coll', 'a', f'{proj._base.path}/coll', 'a')
    return row_events._what_it_is(place, settles=False)[1]


@pytest.mark.parametrize('read', [walked, synced])
def test_a_run_that_comes_while_a_folder_is_read(coll, monkeypatch, read):
    """The row that a folder gives has status, times and error of one run."""
    then_once(monkeypatch, directory, 'read_status', again(coll))
    entry = read(coll)
    assert (entry.status, entry.attempt, entry.error_type) == ('completed', 2, None)
    assert entry.seen_mtime_ns == coll.query('coll')[0].seen_mtime_ns


@pytest.mark.parametrize('name', ['read_status', 'read_result'])
def test_a_run_that_comes_while_check_looks_is_no_disagreement(coll, monkeypatch, name):
    """Neither for the row, which is written by whoever computed it, nor for the checksum of its result."""
    if name == 'read_result':
        coll.fetch('coll', 'a')
    then_once(monkeypatch, directory, name, again(coll))
    assert coll.check(deep=True).findings == []


def test_a_run_that_comes_while_one_is_shown(coll, base, monkeypatch):
    """The new one is shown, whole."""
    coll.fetch('coll', 'a')
    then_once(monkeypatch, Project, 'get', again(coll))
    done = call('show', base, 'coll', 'a', '--json')
    assert done.exit_code == 0, done.output
    found = json.loads(done.stdout)
    assert (found['attempt'], found['result']) == (3, 3)


def test_a_run_that_comes_while_its_log_is_printed(coll, base, monkeypatch):
    """The new log is printed from its beginning, and that is said."""
    monkeypatch.setattr(show, 'CHUNK', 4)
    then_once(monkeypatch, show._Log, '_write', again(coll))
    done = call('logs', base, 'coll', 'a')
    assert (done.exit_code, done.stdout) == (0, 'aaaa' + 'b' * 20 + '\n')
    assert 'computed anew' in done.stderr
