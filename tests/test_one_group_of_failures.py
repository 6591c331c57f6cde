"""One group of failures: found by its fingerprint, type or a class above it, retried and removed as one."""

import json
import os
import re
import shutil
import sqlite3
from pathlib import Path

import pytest
from rich.cells import cell_len
from rich.console import Console
from test_cli_tools import call
from test_upgrade import DUMPS, load

from hadrosaur import Project, schema
from hadrosaur.cli import output

LONG = 'measurement-of-the-third-detector-' * 3


class FarAway(LookupError, OSError):
    """Two classes above it, and those above them."""


class Nearer(FarAway):
    """One more."""


def compute(ident, args, subdir):
    if ident.startswith('near'):
        raise Nearer(f'no page {ident}')
    if ident.startswith('key'):
        return {}[ident]
    if ident.startswith('value'):
        raise ValueError(f'{ident} is bad')
    if ident.startswith('both'):
        raise ExceptionGroup('tasks', [KeyError(ident), OSError(ident)])
    return ident


def fill(proj):
    """Failures of four causes, and one that is completed."""
    proj.resource('books')(compute)
    idents = ['near-1', 'near-2', 'key-1', 'value-1', 'value-2', 'value-3', 'both-1', 'good']
    proj.fetch_many('books', idents, executor='inline').wait()
    return proj


@pytest.fixture
def failed(proj):
    """A project with them, to be changed."""
    return fill(proj)


@pytest.fixture(scope='module')
def known(tmp_path_factory):
    """A project with them, to be looked at."""
    base = tmp_path_factory.mktemp('known') / 'base'
    with Project(base) as proj:
        fill(proj)
    with Project(base) as proj:
        yield proj


def idents(query):
    return sorted(entry.ident for entry in query)


def group_of(proj, ident):
    [entry] = proj.query('books', ident=ident)
    return entry.error_group


def jobs(proj, tmp_path, body="raise ValueError('again')"):
    """A module whose Project has the same base."""
    path = tmp_path / f'jobs_of_{tmp_path.name}.py'
    path.write_text(
        f'from hadrosaur import Project\nproj = Project({proj.path!r})\n'
        f"@proj.resource('books')\ndef books(ident, args, subdir):\n    {body}\n"
    )
    return f'{path}:proj'


# --- finding ---------------------------------------------------------------------------------------


def test_query_by_group(known):
    """``error_group=`` takes one fingerprint or several; an unknown one finds nothing."""
    near, key = group_of(known, 'near-1'), group_of(known, 'key-1')

    assert idents(known.query(error_group=near)) == ['near-1', 'near-2']
    assert idents(known.query('books', error_group=[near, key])) == ['key-1', 'near-1', 'near-2']
    assert len(known.query(error_group='f1:0000000000000000')) == 0
    assert idents(known.query(error_group=[])) == []
    assert idents(known.query(error_group=near, ident='*2')) == ['near-2']


NAMES = {
    'ValueError': ['value-1', 'value-2', 'value-3'],
    'Nearer': ['near-1', 'near-2'],
    f'{__name__}.Nearer': ['near-1', 'near-2'],
    'FarAway': ['near-1', 'near-2'],
    f'{__name__}.FarAway': ['near-1', 'near-2'],
    'LookupError': ['both-1', 'key-1', 'near-1', 'near-2'],
    'OSError': ['both-1', 'near-1', 'near-2'],
    'KeyError': ['both-1', 'key-1'],
    'ExceptionGroup': ['both-1'],
    'ExceptionGroup(KeyError, OSError)': ['both-1'],
    'earer': [],
    'object': [],
    'BaseException': [],
}


@pytest.mark.parametrize('name', NAMES)
def test_an_error_type_is_found_by_its_name_and_by_what_is_above_it(known, name):
    """The dotted name, the last part of it, and both of each class above; nothing that only ends alike."""
    assert idents(known.query('books', error_type=name)) == NAMES[name]
    assert len(known.query(error_type=[name, name])) == len(NAMES[name])


def test_exceptions_are_all_that_failed(known):
    """Exception is above everything; several types add up; other filters hold as well."""
    assert len(known.query(error_type='Exception')) == 7
    assert idents(known.query(error_type=['KeyError', 'FarAway'], ident='*1')) == [
        'both-1',
        'key-1',
        'near-1',
    ]


def test_what_is_cut_off_is_found_by_the_classes_above_it(failed):
    """Interrupted, Cancelled, TimedOut and WorkerDied raise nothing, and are ResourceFailed all the same."""
    failed.resource('slow', timeout=0.05)(lambda ident, args, subdir: __import__('time').sleep(60))
    failed.fetch_many('slow', ['x']).wait()

    for name in ('TimedOut', 'ResourceFailed', 'HadrosaurError', 'RuntimeError'):
        assert idents(failed.query('slow', error_type=name)) == ['x'], name
    assert idents(failed.query('books', error_type='RuntimeError')) == []


def test_a_failure_set_by_hand_is_a_group_by_its_type(failed):
    """Where there is no fingerprint, `errors` names the type as the group, and that finds it."""
    folder = Path(failed.path, 'books', 'good')
    (folder / 'error.log').write_text('Odd: by hand\n')
    (folder / 'status.json').write_text('{"completed": false, "pending": false, "error": true}\n')
    failed.reindex()
    [group] = [each for each in failed.error_groups() if each.example == 'good']

    assert group.group == 'Odd'
    assert idents(failed.query(error_group='Odd')) == ['good']
    assert idents(failed.query(error_group=['Odd', group_of(failed, 'key-1')])) == ['good', 'key-1']
    assert idents(failed.query(error_group='ValueError')) == []  # those have a fingerprint


def test_the_classes_above_stand_in_record_and_row(known):
    """As a JSON list in record.json and index; an Entry gives them as a tuple; reindex finds the same."""
    [entry] = known.query(ident='near-1')
    record = json.loads(Path(known.path, 'books', 'near-1', 'record.json').read_text())
    above = (f'{__name__}.FarAway', 'LookupError', 'OSError', 'Exception')

    assert entry.error_bases == above == tuple(record['error_bases'])
    assert entry.as_json()['error_bases'] == list(above)
    assert known.get('books', 'near-1').entry.error_bases == above
    assert known.get('books', 'good').entry.error_bases == ()
    assert known.check().findings == []


@pytest.mark.parametrize('bases', ['{', '"x"', '[1]', 'null', '[' * 5000])
def test_classes_above_that_anybody_wrote_are_no_fault(failed, bases):
    """A cell that is no list of names costs nobody a traceback."""
    failed.sql('select 1')
    with sqlite3.connect(Path(failed.path, 'index.sqlite3')) as driver:
        driver.execute('UPDATE resources SET error_bases = ?', (bases,))

    assert idents(failed.query(error_type='KeyError')) == ['key-1']
    assert all(isinstance(entry.error_bases, tuple) for entry in failed.query())


# --- the command line ------------------------------------------------------------------------------


def test_errors_names_the_group_and_the_command(known):
    """In a pipe, in JSON and on a terminal: the group's id, and what computes it again."""
    rows = [line.split('\t') for line in call('errors', known.path).stdout.splitlines()]
    table = [dict(zip(rows[0], row, strict=True)) for row in rows[1:]]
    shown = json.loads(call('errors', known.path, '--json').stdout)

    assert {row['group'] for row in table} == {group.group for group in known.error_groups()}
    for row in (*table, *shown):
        assert row['retry'] == f'hadrosaur retry MODULE:PROJ books --group {row["group"]}'


def test_retry_and_query_take_a_group(failed, tmp_path):
    """Just the resources of that cause run again."""
    near = group_of(failed, 'near-1')
    listed = call('query', failed.path, 'books', '--group', near, '--idents').stdout.split()
    call('retry', jobs(failed, tmp_path, "return 'done'"), 'books', '--group', near, '--executor', 'inline')

    assert sorted(listed) == ['near-1', 'near-2']
    assert idents(failed.query('books', status='completed')) == ['good', 'near-1', 'near-2']


def test_rm_takes_a_group(failed):
    """All that failed for that cause is deleted, and -n only says so; idents may be named beside it."""
    value = group_of(failed, 'value-1')
    dry = call('rm', failed.path, 'books', '--group', value, '-n')
    assert dry.stdout.count('would delete') == 3
    assert len(failed.query('books')) == 8

    done = call('rm', failed.path, 'books', 'good', '--group', value)
    assert (done.exit_code, done.stdout.count('deleted')) == (0, 4)
    assert idents(failed.query('books')) == ['both-1', 'key-1', 'near-1', 'near-2']


def test_what_finds_nothing_names_what_there_is(known, tmp_path):
    """A type or group that nothing has: `query`, `retry` and `rm` say which there are, and what was meant."""
    target, group = jobs(known, tmp_path), group_of(known, 'key-1')
    told = [
        call('query', known.path, 'books', '--error-type', 'KeyEror').stderr,
        call('retry', target, 'books', '--error-type', 'KeyEror').stderr,
        call('query', known.path, '--error-type', 'KeyEror', '--idents').stderr,
    ]
    for text in told:
        assert 'KeyError (1)' in text
        assert 'ValueError (3)' in text
        assert 'did you mean KeyError?' in text
    for text in (
        call('retry', target, 'books', '--group', group[:-1] + 'x').stderr,
        call('rm', known.path, 'books', '--group', group[:-1] + 'x').stderr,
    ):
        assert f'{group} (1)' in text
        assert f'did you mean {group}?' in text
    assert 'nothing matches' in call('query', known.path, '--error-type', 'KeyError', '--ident', 'x').stderr


# --- on a terminal ---------------------------------------------------------------------------------


@pytest.fixture
def screen(monkeypatch):
    """Commands as a terminal of some width shows them."""

    def show(width, *args):
        monkeypatch.setattr(output, 'is_terminal', lambda stream=None: True)
        console = lambda: Console(width=width, markup=False, highlight=False, emoji=False)  # noqa: E731
        monkeypatch.setattr(output, 'terminal', console)
        return call(*args).stdout

    return show


def whole(text):
    """What is shown, without the breaks of lines."""
    return re.sub(r'\s+', '', text)


@pytest.mark.parametrize('width', [80, 60, 200])
def test_errors_are_readable_where_idents_are_long(proj, screen, width):
    """At 80 columns with idents of 100 characters nothing is torn into columns of a letter or two."""
    proj.resource('a-collection-of-twenty')(lambda ident, args, subdir: {}['the key'])
    proj.fetch('a-collection-of-twenty', LONG)
    shown = screen(width, 'errors', proj.path)
    [group] = proj.error_groups()

    assert len(shown.splitlines()) <= 10
    assert all(cell_len(line) <= max(width, 90) for line in shown.splitlines())
    for text in (LONG, 'KeyError', group.group, group.frame):
        assert whole(text) in whole(shown)
    assert f'hadrosaur retry MODULE:PROJ a-collection-of-twenty --group {group.group}' in shown


def test_every_table_keeps_columns_wide_enough_to_read(proj, screen):
    """Names without end in each column: words are folded, and no column is narrower than eight."""
    name = 'Error' * 12
    kind = type(name, (ValueError,), {'__module__': 'a.very.deep.package.of.somebody'})

    @proj.resource('a-collection-with-a-name-that-has-no-end-in-sight')
    def fail(ident, args, subdir):
        raise kind('a message ' * 20)

    proj.fetch('a-collection-with-a-name-that-has-no-end-in-sight', LONG)
    for args in (['query', proj.path], ['status', proj.path], ['errors', proj.path]):
        lines = screen(80, *args).splitlines()
        assert len(lines) <= 20, lines
        assert all(cell_len(line) <= 80 for line in lines if 'hadrosaur retry' not in line)
    shutil.rmtree(Path(proj.path, 'a-collection-with-a-name-that-has-no-end-in-sight'))
    lines = screen(80, 'check', proj.path).splitlines()
    assert 2 < len(lines) <= 20, lines


# --- an index of the release before ----------------------------------------------------------------


def test_an_upgraded_index_is_filled_by_reindex(failed):
    """The new columns of an older index are empty until `reindex --changed-only`, then rows are as before."""
    columns = (
        'collection, ident, status, args, attempt, error_type, error, error_group, path, result, error_bases'
    )
    rows = failed.sql(f'SELECT {columns} FROM resources ORDER BY 1, 2')
    failed.close()
    index = Path(failed.path, 'index.sqlite3')
    kept = index.rename(index.with_name('kept'))
    dump = next(dump for dump in DUMPS if dump.stem == '0002_fewer_indexes')
    load(dump, index)
    with sqlite3.connect(index) as driver:
        driver.execute('DELETE FROM resources')
        driver.execute('ATTACH ? AS kept', (os.fspath(kept),))
        names = ', '.join(row[1] for row in driver.execute('PRAGMA table_info(resources)'))
        driver.execute(f'INSERT INTO resources ({names}) SELECT {names} FROM kept.resources')
    with Project(failed.path) as proj:
        upgraded = proj.sql(f'SELECT {columns} FROM resources ORDER BY 1, 2')
        assert [{**row, 'result': None, 'error_bases': None} for row in rows] == upgraded
        assert proj.index_revision() == (schema.HEAD, schema.HEAD)
        proj.reindex(changed_only=True)
        assert proj.sql(f'SELECT {columns} FROM resources ORDER BY 1, 2') == rows
        assert proj.check().findings == []
