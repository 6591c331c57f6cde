"""What happened before: each attempt leaves a line in record and index, and its files where they are kept."""

import json
import os
import sqlite3
from pathlib import Path

import pytest
from test_cli_tools import call
from test_upgrade import DUMPS, load

from hadrosaur import Project, directory, schema


@pytest.fixture
def tried(proj):
    """A resource that failed twice, was completed, and computed again with other args; its files are kept."""

    @proj.resource('coll', keep_attempts=2, on_args_change='recompute', version='7')
    def compute(ident, args, subdir):
        attempt = len(told)
        told.append(args)
        print(f'this is run {attempt + 1}')
        if attempt < 2:
            raise (ValueError, KeyError)[attempt](f'no {attempt}')
        return {'run': attempt + 1, **args}

    told = []
    for _ in range(3):
        proj.fetch('coll', 'one', {'a': 1})
    proj.fetch('coll', 'one', {'a': 2})
    return proj


EXPECTED = [
    (1, 'error', 'ValueError', 'no 0'),
    (2, 'error', 'KeyError', "'no 1'"),
    (3, 'completed', None, None),
    (4, 'completed', None, None),
]


def told(lines):
    return [(line['attempt'], line['status'], line['error_type'], line['error']) for line in lines]


def test_each_attempt_is_a_line(tried):
    """In record.json, in the row, of a Resource and in the view ``attempts``, which reindex finds again."""
    resource = tried.get('coll', 'one')
    [row] = tried.query('coll')
    record = json.loads(Path(tried.path, 'coll/one/record.json').read_text())

    assert told(resource.attempts) == EXPECTED
    assert told(row.history) == told(record['history']) == EXPECTED[:3]
    assert row.history[0]['args_hash'] == row.history[2]['args_hash'] != row.args_hash
    assert {line['version'] for line in resource.attempts} == {'7'}
    assert row.history[0]['error_group'].startswith('f1:')
    assert row.history[0]['started_at'] < row.history[0]['finished_at'] < row.history[1]['started_at']
    statement = 'SELECT attempt, status, error_type, error FROM attempts ORDER BY started_at'
    assert [tuple(line.values()) for line in tried.sql(statement)] == EXPECTED
    assert tried.check(deep=True).findings == []
    tried.reindex(fresh=True)
    assert [tuple(line.values()) for line in tried.sql(statement)] == EXPECTED
    assert tried.query('coll')[0] == row.change(changed=tried.query('coll')[0].changed)


def test_a_first_run_costs_nothing_more(proj):
    """Its record has no history, and its folder no attempts."""
    proj.resource('coll', keep_attempts=3)(lambda ident, args, subdir: 1)
    resource = proj.fetch('coll', 'one')

    assert resource.entry.history == []
    assert told(resource.attempts) == [(1, 'completed', None, None)]
    assert 'history' not in json.loads(Path(proj.path, 'coll/one/record.json').read_text())
    assert not Path(proj.path, 'coll/one/attempts').exists()


def test_twenty_lines_are_kept(proj):
    """Of a resource that fails for ever the last ones."""

    @proj.resource('coll')
    def fail(ident, args, subdir):
        raise ValueError('never')

    for _ in range(24):
        resource = proj.fetch('coll', 'one')
    assert [line['attempt'] for line in resource.attempts] == list(range(4, 25))


def test_a_run_that_was_cut_off_is_a_line(proj):
    """Settled or not, it is Interrupted; retries and hand-made histories do no harm."""
    proj.resource('coll', retries=1)(lambda ident, args, subdir: 1 / int(args['n']))
    proj.fetch('coll', 'one', {'n': 0})
    folder = Path(proj.path, 'coll/one')
    record = json.loads((folder / 'record.json').read_text())
    (folder / 'record.json').write_text(
        json.dumps({**record, 'state': 'begun', 'history': [7, {'attempt': 'x'}]})
    )
    (folder / 'status.json').write_bytes(directory.STATUS_BYTES['pending'])
    resource = proj.fetch('coll', 'one', {'n': 1})

    assert resource.status == 'completed'
    assert [(line['attempt'], line['error_type']) for line in resource.attempts] == [
        (None, None), (2, 'Interrupted'), (3, None),
    ]  # fmt: skip
    assert proj.check().findings == []


def test_the_files_of_the_last_attempts_are_kept(tried):
    """Logs, error, record and result of the last N, each in its folder; the run's own files are its alone."""
    folder = Path(tried.path, 'coll/one')
    kept = folder / 'attempts'

    assert sorted(path.name for path in kept.iterdir()) == ['2', '3']
    assert (kept / '2/stdout.log').read_text() == 'this is run 2\n'
    assert "KeyError: 'no 1'" in (kept / '2/error.log').read_text()
    assert json.loads((kept / '3/result.json').read_text()) == {'run': 3, 'a': 1}
    assert json.loads((kept / '3/record.json').read_text())['attempt'] == 3
    assert not (kept / '2/result.json').exists()
    assert (folder / 'stdout.log').read_text() == 'this is run 4\n'
    assert all(path.stat().st_nlink == 1 for path in folder.rglob('*') if path.is_file())
    tried.remove('coll', 'one')
    assert not folder.exists()


@pytest.mark.parametrize('place', ['attempts', 'attempts/1'])
def test_nothing_is_kept_through_a_link(proj, tmp_path, place):
    """A link in the place of our folders: the run does not begin, and what it points to is left alone."""
    runs = []
    proj.resource('coll', keep_attempts=1)(lambda ident, args, subdir: runs.append(1))
    proj.fetch('coll', 'one')
    (tmp_path / 'elsewhere').mkdir()
    link = Path(proj.path, 'coll/one', place)
    link.parent.mkdir(exist_ok=True)
    link.symlink_to(tmp_path / 'elsewhere')
    again = proj.fetch('coll', 'one', recompute=True)

    assert (again.status, len(runs)) == ('error', 1)
    assert os.listdir(tmp_path / 'elsewhere') == []
    assert proj.get('coll', 'one').status == 'completed'


def test_the_commands_show_attempts(tried):
    """`show` prints the lines, `logs --attempt` a log, `diff` what is different."""
    shown = call('show', tried.path, 'coll', 'one').stdout
    assert shown.index('attempt 1') < shown.index('attempt 2') < shown.index('attempt 3')
    assert "KeyError: 'no 1'" in shown
    document = json.loads(call('show', tried.path, 'coll', 'one', '--json').stdout)
    assert told(document['attempts']) == EXPECTED

    assert call('logs', tried.path, 'coll', 'one', '--attempt', '2').stdout == 'this is run 2\n'
    assert call('logs', tried.path, 'coll', 'one', '--attempt', '4').stdout == 'this is run 4\n'
    assert 'no 1' in call('logs', tried.path, 'coll', 'one', '--attempt', '2', '--error').stdout
    gone = call('logs', tried.path, 'coll', 'one', '--attempt', '1')
    assert gone.exit_code == 3
    assert (
        'attempt 1 of coll/one has no files: the last attempt is 4, and of those before there is 2, 3'
        in gone.stderr
    )

    lines = call('diff', tried.path, 'coll', 'one').stdout.splitlines()
    assert lines[:2] == ['--- 3/args', '+++ 4/args']
    assert {'- "a": 1', '+ "a": 2', '-this is run 3', '+this is run 4'} <= set(lines)
    assert '+++ 3/result.json' in call('diff', tried.path, 'coll', 'one', '2', '3').stdout
    assert call('diff', tried.path, 'coll', 'one', '3', '3').stdout == ''
    assert call('diff', tried.path, 'coll', 'one', '3').exit_code == 2


@pytest.mark.parametrize('kept', [-1, True, 1.5])
def test_keep_attempts_is_a_number(proj, kept):
    """Anything else is refused when the collection is registered."""
    with pytest.raises(ValueError, match='keep_attempts must be a whole number'):
        proj.resource('coll', keep_attempts=kept)(lambda ident, args, subdir: 1)


def test_an_upgraded_index_gets_its_history_with_reindex(tried):
    """The column is empty at first; declared columns keep their indexes."""
    rows = tried.sql('SELECT ident, attempt, history FROM resources')
    tried.close()
    index = Path(tried.path, 'index.sqlite3')
    index.unlink()
    dump = next(dump for dump in DUMPS if dump.stem == '0004_order')
    with sqlite3.connect(load(dump, index)) as driver:
        driver.execute('DELETE FROM resources WHERE ident <> ?', ('one',))
        driver.execute(
            """CREATE INDEX "part args.a" ON resources (collection, json_extract(args, '$."a"'))"""
        )
    with Project(tried.path, create=False) as proj:
        assert proj.sql('SELECT history FROM resources') == [{'history': None}]
        assert proj.index_revision() == (schema.HEAD, schema.HEAD)
        assert proj.sql("SELECT name FROM sqlite_master WHERE name LIKE 'part %'") == [
            {'name': 'part args.a'}
        ]
        proj.reindex(changed_only=True)
        assert proj.sql('SELECT ident, attempt, history FROM resources') == rows
