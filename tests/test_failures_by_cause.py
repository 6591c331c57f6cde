"""Failures by cause: however many fail, each bug is one group, wherever one looks."""

import json
import sqlite3
from datetime import timedelta
from pathlib import Path

import pytest
from test_cli_tools import call

from hadrosaur import Project, fingerprint


@pytest.fixture(scope='module')
def failed(tmp_path_factory):
    """A thousand failures of three bugs, their messages full of numbers, names and places."""
    base = tmp_path_factory.mktemp('causes') / 'base'
    proj = Project(base)

    def parse(ident):
        raise ValueError(f'line {len(ident)} of "/data/in/{ident}.csv" has {int(ident) % 17} columns')

    def look_up(ident):
        return {}[f'key {ident}']

    @proj.resource('coll')
    def compute(ident, args, subdir):
        number = int(ident)
        if number % 10 == 0:
            raise RuntimeError(f'worker 0x{number:08x} gave up after {number / 7:.3f} s')
        return parse(ident) if number % 2 else look_up(ident)

    batch = proj.fetch_many('coll', range(1000), executor='inline')
    assert batch.wait() == (1000, 0, 1000, 0, 0)
    yield proj
    proj.close()


CAUSES = {
    'ValueError': (500, 'line <n> of <text> has <n> columns', 'parse'),
    'KeyError': (400, '<text>', 'look_up'),
    'RuntimeError': (100, 'worker <hex> gave up after <n> s', 'compute'),
}


def test_a_thousand_failures_are_three_groups(failed):
    """Count, pattern, the user's own frame, an example, first and last time."""
    groups = {group.type: group for group in failed.error_groups()}
    rows = {entry.ident: entry for entry in failed.query('coll')}

    assert [group.type for group in failed.error_groups('coll')] == ['ValueError', 'KeyError', 'RuntimeError']
    assert groups.keys() == CAUSES.keys()
    for kind, (count, pattern, function) in CAUSES.items():
        group = groups[kind]
        own = [entry for entry in rows.values() if entry.error_group == group.group]
        assert (group.count, group.pattern, group.collection) == (count, pattern, 'coll')
        assert len(own) == count
        assert group.frame.endswith(f'test_failures_by_cause.py:failed.<locals>.{function}')
        assert group.group.startswith('f1:')
        assert rows[group.example].error_type == kind
        assert group.first == min(entry.finished_at for entry in own)
        assert group.last == max(entry.finished_at for entry in own)
        assert timedelta(0) < group.last - group.first < timedelta(minutes=5)


def test_record_row_and_view_agree(failed):
    """The fingerprint stands in record.json, in the row, and in the view ``error_groups``."""
    group = failed.error_groups()[0]
    record = json.loads(Path(failed.path, 'coll', group.example, 'record.json').read_text())
    with sqlite3.connect(Path(failed.path, 'index.sqlite3')) as database:
        view = database.execute('SELECT error_group, count, error_type FROM error_groups').fetchall()

    assert (record['error_group'], record['error_type']) == (group.group, 'ValueError')
    assert record['error_frame'] == group.frame
    assert sorted(view) == sorted((g.group, g.count, g.type) for g in failed.error_groups())


def test_errors_verb(failed):
    """``hadrosaur errors`` shows the same three, and ``query`` finds one group's idents."""
    shown = json.loads(call('errors', failed.path, 'coll', '--json').stdout)
    table = call('errors', failed.path).stdout

    assert [(each['count'], each['type'], each['pattern']) for each in shown] == [
        (count, kind, pattern) for kind, (count, pattern, _) in CAUSES.items()
    ]
    for _, pattern, function in CAUSES.values():
        assert pattern in table
        assert function in table


def test_the_same_bug_is_the_same_cause_everywhere(tmp_path):
    """A fingerprint depends on neither base nor ident nor executor."""

    def compute(ident, args, subdir):
        raise ValueError(f'{subdir} cannot hold {ident!r}')

    groups = set()
    for executor in ('inline', 'threads', 'processes'):
        with Project(tmp_path / executor) as proj:
            proj.resource('coll')(compute)
            proj.fetch_many('coll', ['x', executor], executor=executor).wait()
            [group] = proj.error_groups()
            assert group.count == 2
            groups.add(group.group)
    assert len(groups) == 1


# --- exception groups --------------------------------------------------------------------------------


def raised(*errors):
    """Exceptions that were raised in a function of their own, in a group in a group."""

    def fail(error):
        raise error

    caught = []
    for error in errors:
        try:
            fail(error)
        except BaseException as one:
            caught.append(one)
    return ExceptionGroup('unhandled errors in a TaskGroup', [ExceptionGroup('inner', caught)])


@pytest.mark.parametrize('executor', ['inline', 'processes'])
def test_what_is_in_an_exception_group_is_the_cause(proj, executor):
    """Three bugs inside task groups are three groups, and rows are found by type and message of the bug."""

    def compute(ident, args, subdir):
        kind, number = ident.split('-')
        errors = {
            'price': [ValueError(f'row {number} has no price')],
            'key': [KeyError(f'column {number}')] * 3,
            'both': [OSError(f'host {number} is gone'), KeyError(number)][:: int(number) % 2 * 2 - 1],
        }
        raise raised(*errors[kind])

    proj.resource('coll')(compute)
    idents = [f'{kind}-{number}' for kind in ('price', 'key', 'both') for number in range(4)]
    proj.fetch_many('coll', idents, executor=executor, workers=1).wait()

    assert sorted((group.type, group.count) for group in proj.error_groups()) == [
        ('ExceptionGroup(KeyError, OSError)', 4),
        ('KeyError', 4),
        ('ValueError', 4),
    ]
    assert {entry.ident for entry in proj.query(error_type='ValueError', error='no price')} == {
        f'price-{number}' for number in range(4)
    }
    assert proj.query(ident='key-1')[0].error == "'column 1' (and 2 more)"
    both = proj.query(ident='both-3')[0].error
    assert 'OSError: host 3 is gone' in both
    assert "KeyError: '3'" in both
    assert 'raise error' in proj.get('coll', 'price-0').error


def test_a_hostile_exception_group_is_described_all_the_same():
    """Deep, huge, and with a property that raises: the cause is named, in bounded time."""
    deep = ValueError('at the bottom')
    for _ in range(10_000):
        deep = ExceptionGroup('level', [deep])
    assert fingerprint.cause(deep)[:2] == ('ValueError', 'at the bottom')

    huge = ExceptionGroup('many', [KeyError(n) for n in range(100_000)])
    assert fingerprint.cause(huge).type == 'KeyError'

    class Lying(ExceptionGroup):
        @property
        def exceptions(self):
            raise RuntimeError('no')

    assert fingerprint.cause(Lying('lies', [OSError('in it')])).type == 'OSError'
