"""Index and directories kept together: each way to disagree is found in words, and mended if it can be."""

import gc
import json
import shutil
import sqlite3
import threading
from pathlib import Path

import pytest
from test_cli_tools import call

from hadrosaur import Entry, Project, canonical, reindex, scan

IDENTS = ('ant', 'bee', 'cow')


@pytest.fixture
def zoo(tmp_path):
    """A base with three animals, one of them failed."""
    base = tmp_path / 'base'
    with Project(base) as proj:

        @proj.resource('zoo')
        def compute(ident, args, subdir):
            if ident == 'cow':
                raise ValueError('too big')
            return {'name': ident}

        for ident in IDENTS:
            proj.fetch('zoo', ident, {'of': 1})
    return base


def write(base, statement):
    """Change the index behind everybody's back."""
    with sqlite3.connect(base / 'index.sqlite3') as database:
        assert database.execute(statement).rowcount == 1
    database.close()


def edit(path, **values):
    """Change some fields of a JSON file by hand."""
    path.write_text(json.dumps({**json.loads(path.read_text()), **values}))


def lose_row(base):
    write(base, "DELETE FROM resources WHERE ident = 'bee'")


def lose_folder(base):
    shutil.rmtree(base / 'zoo/bee')


def change_status(base):
    write(base, "UPDATE resources SET status = 'error' WHERE ident = 'bee'")


def change_times(base):
    write(base, "UPDATE resources SET finished_at = '2001-01-01T00:00:00.000000Z' WHERE ident = 'bee'")


def change_args(base):
    write(base, """UPDATE resources SET args = '{"of":2}' WHERE ident = 'bee'""")


def cut_off(base):
    (base / 'zoo/bee/status.json').write_text('{"completed": false, "pending": true, "error": false}\n')
    edit(base / 'zoo/bee/record.json', state='begun')


def damage_status(base):
    (base / 'zoo/bee/status.json').write_bytes(b'\0' * 54)


def damage_record(base):
    (base / 'zoo/bee/record.json').write_text('{"format": 1, "coll')


def damage_result(base):
    (base / 'zoo/bee/result.json').write_text('{"name": "b')


def copy_folder(base):
    lose_row(base)
    shutil.rmtree(base / 'zoo/bee')
    shutil.copytree(base / 'zoo/ant', base / 'zoo/bee')


def change_result(base):
    (base / 'zoo/bee/result.json').write_text('{"name": "queen"}\n')


WAYS = {  # what was done: (which problems are found, words of the first, what the row says once it is mended)
    lose_row: (['missing-row'], 'the folder says completed, no row does', 'completed'),
    lose_folder: (['missing-folder'], 'the row says completed, no folder does', None),
    change_status: (['status'], "status: the folder says 'completed', the row 'error'", 'completed'),
    change_times: (['times'], "finished_at: the folder says '2", 'completed'),
    change_args: (['details'], """args: the folder says '{"of":1}', the row '{"of":2}'""", 'completed'),
    cut_off: (['cut-off'], 'begun, and cut off half way', 'error'),
    damage_status: (['damaged'], 'status.json is damaged', 'completed'),
    damage_record: (['damaged', 'details'], 'record.json is damaged', 'completed'),
    copy_folder: (['missing-row'], 'no row does', 'completed'),
}
LEFT = {  # only a person, or a fetch, can tell what is right
    damage_result: (['damaged'], 'result.json does not parse', 'completed'),
    change_result: (['checksum'], 'its checksum differs from the one in record.json', 'completed'),
}


@pytest.mark.parametrize('way', [*WAYS, *LEFT])
def test_each_way_to_disagree_is_found(zoo, way):
    """Check says in words what disagrees, for the one resource that does, and changes nothing."""
    problems, words, _ = {**WAYS, **LEFT}[way]
    with Project(zoo) as proj:
        assert proj.check(deep=True) == (3, [])
        proj.close()
        way(zoo)
        found = proj.check(deep=True).findings
        again = proj.check(deep=True).findings

    assert [(finding.collection, finding.ident, finding.fixed) for finding in found] == [
        ('zoo', 'bee', False) for _ in problems
    ]
    assert [finding.problem for finding in found] == problems
    assert words in found[0].detail
    assert again == found


@pytest.mark.parametrize('way', WAYS)
def test_what_can_be_mended_is(zoo, way):
    """With fix=True it is mended: nothing is found any more, and folder and row say the same."""
    problems, _, status = WAYS[way]
    way(zoo)
    with Project(zoo) as proj:
        mended = proj.check(fix=True, deep=True)
        assert [finding.fixed for finding in mended.findings] == [True] * len(problems)
        assert mended.remaining == []
        assert proj.check(deep=True).findings == []
        assert [entry.status for entry in proj.query(ident='bee')] == [status] * (status is not None)
        if status == 'completed':
            assert proj.get('zoo', 'bee')['result']['name'] in ('ant', 'bee')
            assert json.loads((zoo / 'zoo/bee/record.json').read_text())['ident'] == 'bee'
        elif status == 'error':
            assert proj.query(ident='bee')[0].error_type == 'Interrupted'


def test_what_shows_only_after_settling_is_mended_too(zoo):
    """A copy whose status is damaged is settled first; then its record is seen to tell of another."""
    lose_row(zoo)
    shutil.rmtree(zoo / 'zoo/bee')
    shutil.copytree(zoo / 'zoo/ant', zoo / 'zoo/bee')
    damage_status(zoo)
    with Project(zoo) as proj:
        assert proj.check(fix=True).remaining == []
        assert proj.check(deep=True).findings == []
        assert proj.get('zoo', 'bee')['result'] == {'name': 'ant'}


@pytest.mark.parametrize('way', LEFT)
def test_what_only_a_person_can_tell_is_left(zoo, way):
    """An edited or damaged result is named and left as it is; the command says so with exit code 4."""
    way(zoo)
    before = (zoo / 'zoo/bee/result.json').read_bytes()
    shown = call('check', zoo, '--fix', '--deep', '--json')

    assert shown.exit_code == 4
    assert [finding['fixed'] for finding in json.loads(shown.stdout)['findings']] == [False]
    assert (zoo / 'zoo/bee/result.json').read_bytes() == before


def test_without_deep_results_are_not_read(zoo):
    """Checksums take reading every result, so only deep=True compares them."""
    change_result(zoo)
    with Project(zoo) as proj:
        assert proj.check().findings == []


def test_what_runs_is_no_disagreement(zoo):
    """A resource that is being computed is neither found nor mended."""
    begun, go = threading.Event(), threading.Event()
    with Project(zoo) as proj:

        @proj.resource('slow')
        def slow(ident, args, subdir):
            begun.set()
            assert go.wait(30)
            return ident

        batch = proj.fetch_many('slow', ['one'], executor='threads')
        waiter = threading.Thread(target=batch.wait)
        waiter.start()
        try:
            assert begun.wait(30)
            before = proj.sql("SELECT * FROM resources WHERE ident = 'one'")
            assert proj.check(fix=True, deep=True).findings == []
            assert proj.reindex() == (4, 0, 0, 0, [])
            assert proj.sql("SELECT * FROM resources WHERE ident = 'one'") == before
            write(zoo, "UPDATE resources SET session = NULL WHERE ident = 'one'")  # nobody's; the lock tells
            assert proj.check(fix=True, deep=True).findings == []
        finally:
            go.set()
            waiter.join()
        assert proj.get('slow', 'one').status == 'completed'


# --- reindex ---------------------------------------------------------------------------------------


def test_reindex_with_changed_only_reads_what_was_written(zoo):
    """Folders whose status.json is as the index saw it are not read; a full reindex reads them."""
    edit(zoo / 'zoo/ant/record.json', version='by hand')
    (zoo / 'zoo/bee/status.json').write_text('{"completed": false, "pending": false, "error": true}\n')
    shutil.rmtree(zoo / 'zoo/cow')
    shutil.copytree(zoo / 'zoo/ant', zoo / 'zoo/dog')
    with Project(zoo) as proj:
        quick = proj.reindex(changed_only=True)
        versions = {entry.ident: entry.version for entry in proj.query(status='completed')}
        full = proj.reindex()

        assert quick == (3, 1, 1, 1, [])
        assert versions == {'ant': None, 'dog': 'by hand'}
        assert full == (3, 0, 1, 0, [])
        assert {(e.ident, e.status, e.version) for e in proj.query()} == {
            ('ant', 'completed', 'by hand'),
            ('bee', 'error', None),
            ('dog', 'completed', 'by hand'),
        }
        assert proj.reindex() == proj.reindex(changed_only=True) == (3, 0, 0, 0, [])


def test_reindex_of_one_collection(zoo):
    """The rows of other collections are not touched."""
    with Project(zoo) as proj:
        proj.resource('other')(lambda ident, args, subdir: ident)
        proj.fetch('other', 'one')
        shutil.rmtree(zoo / 'other/one')
        shutil.rmtree(zoo / 'zoo/bee')

        assert proj.reindex('zoo').removed == 1
        assert {entry.ident for entry in proj.query()} == {'ant', 'cow', 'one'}


@pytest.mark.parametrize('changed_only', [False, True])
def test_reindex_during_a_run(zoo, changed_only):
    """Again and again while two processes compute: no row is lost, none is put back to an older state."""
    with Project(zoo) as proj:
        proj.resource('coll')(lambda ident, args, subdir: ident)
        batch = proj.fetch_many('coll', map(str, range(400)), workers=2)
        seen = 0
        for resource in batch:
            assert resource.status == 'completed'
            seen += 1
            if seen % 20 == 0:
                proj.reindex(changed_only=changed_only)
                row = proj.query('coll', ident=resource.ident)[0]
                assert (row.status, row.attempt) == ('completed', 1)

        assert seen == batch.counts.completed == 400
        assert proj.stats('coll')['coll']['completed'] == 400
        assert proj.check(deep=True).findings == []


def test_what_comes_after_the_walk_is_no_row_without_a_folder(zoo, monkeypatch):
    """A resource that is computed while the last folders are read stays, and is no disagreement."""
    names = iter(['dog', 'emu'])

    def walk(*given, **named):
        yield from real(*given, **named)
        other.fetch('zoo', next(names))

    real = reindex.walk
    monkeypatch.setattr(reindex, 'walk', walk)
    with Project(zoo) as proj, Project(zoo) as other:
        other.resource('zoo')(lambda ident, args, subdir: ident)

        assert proj.reindex() == (3, 0, 0, 0, [])
        assert proj.check().findings == []
        assert sorted(row.ident for row in proj.query('zoo')) == ['ant', 'bee', 'cow', 'dog', 'emu']


@pytest.mark.long
def test_few_rows_are_held_at_once(zoo, monkeypatch):
    """A million rows fit: reindex and check look at folders and rows in groups."""
    held = []

    def walk(*given, **named):
        for number, found in enumerate(real(*given, **named)):
            if number % 10 == 9:
                held.append(sum(type(each) is Entry for each in gc.get_objects()))
            yield found

    real = reindex.walk
    monkeypatch.setattr(reindex, 'GROUP', 10)
    monkeypatch.setattr(scan, 'GROUP', 10)
    for number in range(200):
        shutil.copytree(zoo / 'zoo/ant', zoo / f'zoo/{number}')
    with Project(zoo) as proj:
        assert proj.reindex().added == 200
        gc.collect()
        monkeypatch.setattr(reindex, 'walk', walk)
        proj.reindex()
        proj.reindex(changed_only=True)
        assert proj.check().scanned == 203

    assert len(held) == 20 + 2 + 20  # of those that are unchanged a group at a time
    assert max(held) < 50


def test_reindex_progress(zoo):
    """A callback is told how many folders were read."""
    told = []
    template = zoo / 'zoo/ant'
    for number in range(500):
        place = Path(zoo, 'zoo', f'n{number}')
        place.mkdir()
        shutil.copy(template / 'status.json', place)
    with Project(zoo) as proj:
        report = proj.reindex(progress=told.append)

    assert report.scanned == 503
    assert told == [500]


def test_check_progress(zoo, monkeypatch):
    """The number of folders read so far is told now and then."""
    monkeypatch.setattr(reindex, 'GROUP', 2)
    told = []
    with Project(zoo) as proj:
        report = proj.check(progress=told.append)

    assert report.scanned == 3
    assert told == [2]


# --- records that were spoiled -----------------------------------------------------------------------

SPOILED = {
    'no time': {'finished_at': 'yesterday', 'started_at': '2026-13-40T00:00:00.000000Z', 'queued_at': ''},
    'too early a time': {'finished_at': '0001-01-01T00:00:00+14:00'},
    'huge numbers': {'attempt': 1 << 70, 'pid': -(1 << 80), 'max_rss': 1 << 63},
    'no numbers': {'attempt': True, 'pid': 'x', 'duration': [], 'cpu_seconds': {}},
    'no text': {'error': 5, 'host': [], 'version': {}, 'args_hash': None, 'run': 7, 'collection': 1},
    'no JSON numbers': {'duration': float('nan'), 'cpu_seconds': float('inf')},
    'half a surrogate pair': {'host': '\ud800', 'run': '\udfff', 'ident': '\ud800'},
    'args that are none': {'args': [1]},
    'args that cannot be stored': {'args': {'a': float('nan')}},
    'another state': {'state': 'finished'},
}


@pytest.mark.parametrize('spoiled', SPOILED)
@pytest.mark.parametrize('status', [None, '', '{"completed": false, "pending": true, "error": false}\n'])
def test_no_record_stops_a_reindex(zoo, spoiled, status):
    """Whatever stands in a record.json, each row is made, and the resource can be fetched and looked at."""
    edit(zoo / 'zoo/bee/record.json', **SPOILED[spoiled])
    if status is not None:
        (zoo / 'zoo/bee/status.json').write_text(status)
    (zoo / 'index.sqlite3').unlink()
    with Project(zoo) as proj:
        proj.resource('zoo')(lambda ident, args, subdir: {'name': ident})
        proj.reindex()
        rows = {entry.ident: entry.as_json() for entry in proj.query()}
        assert proj.reindex()[1:4] == (0, 0, 0)
        assert rows.keys() >= {'ant', 'cow'}
        assert all(isinstance(row['attempt'], int) for row in rows.values())
        json.dumps(rows, allow_nan=False)
        assert proj.fetch('zoo', 'bee')['result'] == {'name': 'bee'}
        assert proj.fetch('zoo', 'bee', recompute=True)['result'] == {'name': 'bee'}
        assert proj.query(ident='bee')[0].status == 'completed'
        assert proj.check(deep=True).findings == []


def test_a_time_written_by_hand_is_taken(zoo):
    """Any ISO-8601 time counts, in whatever zone; without one it is UTC. The index holds one form of it."""
    edit(zoo / 'zoo/ant/record.json', finished_at='2020-01-02 03:04:05+02:00', started_at='2020-01-02')
    with Project(zoo) as proj:
        proj.reindex()
        row = proj.sql("SELECT started_at, finished_at FROM resources WHERE ident = 'ant'")[0]

    assert row == {'started_at': '2020-01-02T00:00:00.000000Z', 'finished_at': '2020-01-02T01:04:05.000000Z'}


@pytest.mark.filterwarnings('ignore::hadrosaur.HadrosaurWarning')
def test_a_damaged_copy_of_a_long_name_stays_known_once_it_was_fetched(proj, base):
    """Its folder is named by a digest: the fetch that mends its status has its record tell the ident."""
    proj.resource('coll')(lambda ident, args, subdir: 12)
    proj.fetch('coll', 'a')
    ident = 'long' * 60
    copy = base / 'coll' / canonical.folder_name(ident)
    shutil.copytree(base / 'coll/a', copy)
    (copy / 'status.json').write_text('{"completed": true, ')
    assert proj.fetch('coll', ident).result == 12
    assert json.loads((copy / 'record.json').read_text())['ident'] == ident
    proj.reindex()
    assert {row.ident for row in proj.query('coll')} == {'a', ident}
    assert proj.check(deep=True).findings == []
