"""What a function fetches is recorded: in record.json, in the table `uses`, on every executor."""

import json
import shutil
import sqlite3
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing

import pytest
from conftest import ROOT

from hadrosaur import Project, Use, directory
from hadrosaur.directory import record_pattern


def record(base, key):
    return json.loads((base / key / 'record.json').read_text())


def used(base, key):
    """What the record of a resource says that it used: 'collection/ident', sorted."""
    return sorted(f'{use[0]}/{use[1]}' for use in record(base, key).get('uses', []))


def table(proj):
    """The table of uses: (resource, what it used, whether that is the present run)."""
    rows = proj.sql('select * from dependencies order by 1, 2, 3, 4')
    return [
        (f'{r["collection"]}/{r["ident"]}', f'{r["used_collection"]}/{r["used_ident"]}', r['state'])
        for r in rows
    ]


def staged(base):
    """A project in which `top` needs two of `mid`, and each of these one of `low`."""
    proj = Project(base)

    @proj.resource('low')
    def low(ident, args, subdir):
        if ident == 'bad':
            raise ValueError('bad')
        return 1

    @proj.resource('mid')
    def mid(ident, args, subdir):
        return proj.fetch('low', ident).value + 1

    @proj.resource('top')
    def top(ident, args, subdir):
        return sum(res.value for res in proj.fetch_many('mid', ['x', 'y'])) + proj.get('low', 'x').value

    return proj


ALL = [
    ('mid/x', 'low/x', 'current'),
    ('mid/y', 'low/y', 'current'),
    ('top/t', 'low/x', 'current'),
    ('top/t', 'mid/x', 'current'),
    ('top/t', 'mid/y', 'current'),
]


@pytest.mark.parametrize('executor', ['fetch', 'inline', 'threads', 'processes', 'pool'])
def test_what_a_function_fetches_is_recorded(executor, base):
    """fetch, fetch_many and get inside a function, those of nested ones too, wherever it is computed."""
    with staged(base) as proj, ThreadPoolExecutor(1) as pool:
        if executor == 'fetch':
            assert proj.fetch('top', 't').value == 5
        else:
            how = pool if executor == 'pool' else executor
            assert proj.fetch_many('top', ['t'], workers=1, executor=how).wait().completed == 1
        assert table(proj) == ALL
        [entry] = proj.query('top')
        low = record(base, 'low/x')
        assert Use('low', 'x', low['run'], low['args_hash']) in entry.uses
        assert entry.run == record(base, 'top/t')['run']
        assert used(base, 'top/t') == ['low/x', 'mid/x', 'mid/y']
        assert 'uses' not in record(base, 'low/x')
        assert proj.check().findings == []
        proj.reindex(fresh=True)
        assert table(proj) == ALL
        assert proj.reindex() == (5, 0, 0, 0, [])
        assert {use[:2] for use in proj.used_by('low', 'x')} == {('mid', 'x'), ('top', 't')}
        assert sorted(use.ident for use in proj.uses('top', 't')) == ['x', 'x', 'y']
        assert proj.used_by('top', 't') == []


def test_saved_ones_are_recorded_too(base):
    """What was computed before, and is only read from the disk, is what a function used."""
    with staged(base) as proj:
        proj.fetch('low', 'x')
        proj.fetch_many('mid', ['x', 'y'], executor='inline').wait()
        proj.fetch('top', 't')
        assert table(proj) == ALL


def test_failing_runs_and_failing_upstreams(base):
    """A run that fails used what it had fetched, and so did one whose upstream failed."""
    with staged(base) as proj:

        @proj.resource('after')
        def after(ident, args, subdir):
            proj.fetch('low', 'good')
            return proj.fetch('low', 'bad').value

        assert proj.fetch('after', 'a').status == 'error'
        assert used(base, 'after/a') == ['low/bad', 'low/good']
        assert not proj.query(stale=True)
        proj.fetch('low', 'bad')  # it is tried again
        assert [(row.ident, row.stale_because) for row in proj.query(stale=True)] == [
            ('a', 'low/bad was computed again')
        ]


def test_what_is_not_given_is_not_used(base):
    """Missing ones, `exists`, other bases and the resource itself are no dependencies."""
    with staged(base) as proj, staged(base.parent / 'other') as other:

        @proj.resource('alone')
        def alone(ident, args, subdir):
            proj.exists('low', 'x')
            other.fetch('low', 'x')
            proj.get('alone', ident)
            with pytest.raises(LookupError):
                proj.get('low', 'never')
            return 1

        proj.fetch('low', 'x')
        assert proj.fetch('alone', 'a').status == 'completed'
        assert used(base, 'alone/a') == []
        assert proj.query('alone')[0].uses == []


def test_threads_of_a_function(base):
    """What a thread that the function starts fetches is what the function used."""
    with staged(base) as proj:

        @proj.resource('threaded')
        def threaded(ident, args, subdir):
            threads = [threading.Thread(target=proj.fetch, args=('low', name)) for name in 'xy']
            for thread in threads:
                thread.start()
                thread.join()
            return 1

        proj.fetch_many('threaded', ['a'], workers=1).wait()
        assert used(base, 'threaded/a') == ['low/x', 'low/y']


def test_one_that_was_recomputed_in_between(base):
    """Of one that the function itself computes again the last run counts; by another's hand both do."""
    with staged(base) as proj:

        @proj.resource('own')
        def own(ident, args, subdir):
            proj.fetch('low', 'x')
            return proj.fetch('low', 'x', recompute=True).value

        proj.fetch('own', 'a')
        assert [use[2] for use in record(base, 'own/a')['uses']] == [record(base, 'low/x')['run']]
        assert not proj.query(stale=True)

        @proj.resource('others')
        def others(ident, args, subdir):
            proj.fetch('low', 'y')
            path = base / 'low/y/record.json'  # as if another process had computed it
            path.write_text(path.read_text().replace(record(base, 'low/y')['run'], 'another'))
            return proj.fetch('low', 'y').value

        proj.fetch('others', 'a')
        assert len(record(base, 'others/a')['uses']) == 2
        proj.reindex('low')
        assert proj.query(stale=True).idents() == ['a']


def test_what_a_setup_fetches_every_run_uses(base):
    """The setup of a worker fetches once; each run that it serves depends on it."""
    proj = Project(base)
    proj.resource('low')(lambda ident, args, subdir: 1)
    proj.resource('top', setup=lambda: proj.fetch('low', 'model').value)(lambda ident, args, subdir: ident)
    with proj:
        proj.fetch_many('top', ['a', 'b', 'c'], workers=1).wait()
        assert [used(base, f'top/{ident}') for ident in 'abc'] == [['low/model']] * 3


def test_more_than_a_thousand(base):
    """The first 1 000 are named, and a digest tells all of them apart from all others."""
    uses = {('c', str(number)): {'r': 'h'} for number in range(1500)}
    from hadrosaur.dependencies import recorded

    text, more = recorded(uses)
    assert len(json.loads(text)) == 1000
    assert more['uses_count'] == 1500
    assert recorded(dict(reversed(uses.items())))[1] == more
    assert recorded({**uses, ('c', '7'): {'other': 'h'}})[1] != more
    assert recorded({('c', '1'): {'r': 'h'}})[1] == {}


@pytest.mark.parametrize(
    'uses', [5, {}, [5], [['a']], [['a', 'b', 'c', 4]], ['text'], [['a', 'b', 'c', 'd', 'e']], None]
)
def test_uses_that_somebody_wrote(uses, base):
    """What does not look like a use in an edited record is no use, and nothing fails."""
    with staged(base) as proj:
        proj.fetch('mid', 'x')
        path = base / 'mid/x/record.json'
        path.write_text(json.dumps({**record(base, 'mid/x'), 'uses': uses}))
        proj.reindex()
        assert proj.query('mid')[0].uses == []
        assert [row for row in table(proj) if row[0] == 'mid/x'] == []
        assert proj.explain('mid', 'x').code == 'completed'


def test_records_with_uses_are_read_by_the_pattern(base):
    """The quick reader of records and the careful one make the same row of what was used."""
    with staged(base) as proj:
        proj.fetch('mid', 'x')
        data = (base / 'mid/x/record.json').read_bytes()
        quick = record_pattern.cells(data)
        assert quick['uses'] == directory.uses_text(json.loads(data)['uses'])
        assert record_pattern.cells(data.replace(b'"uses": [[', b'"uses": [ [')) is None
        [row] = proj.query('mid')
        assert row.raw('uses') == quick['uses']
        assert row.raw('run') == quick['run']


def test_rows_and_uses_go_together(base):
    """A removed resource has no uses, one that is queued neither, and a record of before has none."""
    with staged(base) as proj:
        proj.fetch('top', 't')
        proj.remove('top', 't')
        assert table(proj) == ALL[:2]
        path = base / 'mid/x/record.json'
        old = record(base, 'mid/x')
        del old['uses']
        path.write_text(json.dumps(old))
        proj.reindex()
        assert table(proj) == ALL[1:2]
        assert not proj.query(stale=True)
        shutil.rmtree(base / 'low/y')
        assert proj.check(fix=True).remaining == []
        assert table(proj) == [('mid/y', 'low/y', 'gone')]


def test_a_copied_folder_keeps_its_uses(base):
    """A copy made by hand used what its original used, and has the run of that."""
    with staged(base) as proj:
        proj.fetch('mid', 'x')
        shutil.copytree(base / 'mid/x', base / 'mid/copy')
        proj.reindex()
        assert table(proj) == [('mid/copy', 'low/x', 'current'), ('mid/x', 'low/x', 'current')]
        proj.check(fix=True)
        proj.fetch('low', 'x', recompute=True)
        assert sorted(proj.query(stale=True).idents()) == ['copy', 'x']


def test_an_index_of_before_learns_runs_by_itself(base):
    """After an upgrade a row may not tell its run yet: what uses it is not stale for that."""
    with staged(base) as proj:
        proj.fetch('mid', 'x')
    with closing(sqlite3.connect(base / 'index.sqlite3')) as index:
        index.execute("update resources set run = null where collection = 'low'")
        index.commit()
    with staged(base) as proj:
        assert not proj.query(stale=True)
        assert table(proj) == ALL[:1]


def everything(base):
    """All rows but for when they were written, and all uses."""
    with closing(sqlite3.connect(base / 'index.sqlite3')) as index:
        index.row_factory = sqlite3.Row
        rows = [dict(row) for row in index.execute('select * from resources order by collection, ident')]
        for row in rows:
            del row['changed']
        return rows, [tuple(row) for row in index.execute('select * from uses order by 1, 2, 3, 4')]


def test_an_index_of_the_release_before_is_equal_after_reindex(base):
    """It is upgraded with its rows; what the new columns hold comes with the next reindex."""
    with staged(base) as proj:
        proj.fetch('top', 't')
        proj.fetch('low', 'bad')
    before = everything(base)
    made = (ROOT / 'tests/data/indexes/0006_provenance.sql').read_text('utf-8').split(';\n')
    with closing(sqlite3.connect(base / 'index.sqlite3')) as index:
        for kind in ('trigger', 'view'):
            for (name,) in index.execute(f"select name from sqlite_master where type = '{kind}'").fetchall():
                index.execute(f'drop {kind} {name}')
        index.execute('alter table resources rename to present')
        index.execute('drop table uses')
        for (name,) in index.execute(
            "select name from sqlite_master where sql like 'CREATE INDEX%'"
        ).fetchall():
            index.execute(f'drop index {name}')
        for statement in made:
            if statement.startswith('CREATE') and 'alembic_version' not in statement:
                index.execute(statement)
        names = ', '.join(name for _, name, *_ in index.execute('pragma table_info(resources)'))
        index.execute(f'insert into resources ({names}) select {names} from present')
        index.execute('drop table present')
        index.execute("update alembic_version set version_num = '0006_provenance'")
        index.commit()
    with staged(base) as proj:
        assert {row.ident for row in proj.query()} == {'t', 'x', 'y', 'bad'}
        assert len(proj.query(stale=True)) == 0
        assert proj.reindex(changed_only=True).updated == 6
    assert everything(base) == before


def test_what_a_later_release_adds_is_ignored(base):
    """A record with fields that nobody knows yet makes the same row."""
    with staged(base) as proj:
        proj.fetch('mid', 'x')
        before = everything(base)
        path = base / 'mid/x/record.json'
        path.write_text(json.dumps({**record(base, 'mid/x'), 'of_later': [['a', 1], {'b': None}]}))
        proj.reindex()
        assert everything(base) == before
