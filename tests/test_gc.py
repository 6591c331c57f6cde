"""Retention: `gc` removes resources by age, number or size, oldest first, and never pending ones."""

import json
import os
import shutil
import sqlite3
import time
from datetime import timedelta

import pytest
from test_cli_tools import call

from hadrosaur import Project, compute, trees
from hadrosaur.directory.claim import Claim

DAY = 86400.0


@pytest.fixture(scope='module')
def ten(tmp_path_factory):
    """Ten resources of 100 kB, one a day: d0 is ten days old, d9 one; the odd ones failed."""
    now = time.time()
    base = tmp_path_factory.mktemp('gc') / 'base'
    with Project(base) as proj, pytest.MonkeyPatch.context() as patch:

        @proj.resource('coll')
        def work(ident, args, subdir):
            with open(f'{subdir}/data', 'wb') as file:
                file.write(os.urandom(100_000))
            if int(ident[1:]) % 2:
                raise ValueError(ident)

        for day in range(10):
            patch.setattr(compute.time, 'time', lambda day=day: now - (10 - day) * DAY)
            proj.fetch('coll', f'd{day}')
    return base


@pytest.fixture
def aged(ten, base):
    """A copy of it, to remove from."""
    shutil.copytree(ten, base)
    with Project(base, create=False) as proj:
        yield proj


def left(proj):
    return sorted(entry.ident for entry in proj.query())


@pytest.mark.parametrize(
    ('wanted', 'gone'),
    [
        ({'older_than': 7.5 * DAY}, 'd0 d1 d2'),
        ({'older_than': timedelta(days=7, hours=12), 'status': 'error'}, 'd1'),
        ({'status': ('error',)}, 'd1 d3 d5 d7 d9'),
        ({'keep_last': 8}, 'd0 d1'),
        ({'keep_last': 2, 'status': 'error', 'older_than': 5.5 * DAY}, 'd1 d3'),
        ({'keep_last': 4, 'status': 'error', 'older_than': 5.5 * DAY}, 'd1'),
        ({'max_bytes': '700 kB'}, 'd0 d1 d2 d3 d4'),
        ({'max_bytes': 700_000, 'status': 'completed', 'older_than': 3.5 * DAY}, 'd0 d2 d4 d6'),
        ({'max_bytes': '1 TB', 'status': 'error'}, ''),
        ({'older_than': 20 * DAY}, ''),
    ],
)
def test_what_goes(aged, wanted, gone):
    """Age, status, number and size, alone and combined; the plan is given first, oldest first."""
    expected = gone.split()
    said = []
    plan = aged.gc(dry_run=True, **wanted)
    assert (len(left(aged)), len(aged.reindex().unreadable)) == (10, 0)

    def tell(chosen):
        said.extend(each.ident for each in chosen)
        assert len(left(aged)) == 10

    report = aged.gc('coll', on_plan=tell, **wanted)

    assert [each.ident for each in report.removed] == said == expected
    assert report.removed == plan.removed
    assert report.bytes >= 100_000 * len(expected)
    assert left(aged) == sorted({f'd{day}' for day in range(10)} - set(expected))
    assert sorted(os.listdir(f'{aged.path}/coll')) == left(aged)
    assert aged.check().findings == []


@pytest.mark.parametrize(
    'wanted',
    [
        {},
        {'older_than': -1},
        {'older_than': '7d'},
        {'status': 'pending'},
        {'status': ['error', 'old']},
        {'keep_last': -1},
        {'keep_last': True},
        {'max_bytes': 'much'},
        {'max_bytes': -1},
    ],
)
def test_what_makes_no_sense_is_refused(proj, wanted):
    """Nothing is removed where nothing, or nonsense, says what is to go."""
    proj.resource('coll')(lambda ident, args, subdir: 1)
    proj.fetch('coll', 'one')
    with pytest.raises(ValueError, match=r'older_than|status|keep_last|max_bytes'):
        proj.gc(**wanted)
    assert left(proj) == ['one']


def test_what_is_under_way_or_changed_stays(aged, monkeypatch):
    """Locked by somebody, queued by a living process, or computed again since its row was read."""

    def meddle(chosen):
        claims.append(Claim.take(f'{aged.path}/coll', 'd1', make=False))
        other = Project(aged.path)
        other.resource('coll')(lambda ident, args, subdir: 'anew')
        other.fetch('coll', 'd2', recompute=True)
        other._store.queue([other._store.job(other._registry.get('coll'), 'd4', None, 'd4')])
        others.append(other)

    claims, others = [], []
    try:
        report = aged.gc(older_than=5.5 * DAY, on_plan=meddle)
    finally:
        claims[0].release()
        others[0].close()

    assert [each.ident for each in report.removed] == ['d0', 'd3']
    assert [each.ident for each in report.refused] == ['d1', 'd2', 'd4']
    assert 'is being computed' in report.refused[0].refused
    assert 'computed again' in report.refused[1].refused
    assert 'queued' in report.refused[2].refused
    assert aged.get('coll', 'd2').result == 'anew'


def test_a_row_that_was_written_by_hand_leads_nowhere(aged, tmp_path):
    """Where a resource is follows from its names: a path in the index, or a link, is never followed."""
    (tmp_path / 'outside').mkdir()
    (tmp_path / 'outside/status.json').write_text('mine')
    with sqlite3.connect(f'{aged.path}/index.sqlite3') as driver:
        driver.execute("UPDATE resources SET path = '../outside' WHERE ident = 'd0'")
        driver.execute("UPDATE resources SET ident = '../../outside' WHERE ident = 'd1'")
    trees.remove_tree('d2', os.open(f'{aged.path}/coll', os.O_RDONLY))
    os.symlink(tmp_path / 'outside', f'{aged.path}/coll/d2')
    report = aged.gc(older_than=7.5 * DAY)

    assert [each.ident for each in report.removed] == ['d0']
    assert len(report.refused) == 2
    assert (tmp_path / 'outside/status.json').read_text() == 'mine'


def test_the_command(aged):
    """``-n`` says what would go and deletes nothing; then it goes; misuse is said in a sentence."""
    aged.close()
    words = ('gc', aged.path, 'coll', '--older-than', '204h', '--status', 'completed')
    would = call(*words, '-n')
    assert would.stdout.startswith('would delete\tcoll\td0\t')
    assert would.stderr.startswith('1 resource, ')
    assert 'would be deleted' in would.stderr
    done = json.loads(call(*words, '--json').stdout)
    assert [(each['ident'], each['status']) for each in done['removed']] == [('d0', 'completed')]
    assert done['bytes'] == done['removed'][0]['bytes'] > 100_000
    assert call(*words).stdout == ''
    nothing = call('gc', aged.path)
    assert (nothing.exit_code, 'at least one criterion' in nothing.stderr) == (2, True)
    assert call('gc', aged.path, '--max-bytes', 'much').exit_code == 2
    assert call('gc', aged.path, 'cool', '--keep-last', '1').exit_code == 3
