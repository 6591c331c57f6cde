"""The command line, part 3: verbs that look (status, query, show, logs, errors, explain, sql)."""

import csv
import io
import json
import os
import signal
import subprocess
import time

import pytest
from conftest import HANG
from test_cli_tools import HOSTILE, JOBS, call, command, files, on_terminal, stocked, wait_for

from hadrosaur import Project
from hadrosaur.activity import rate as rate_of
from hadrosaur.cli import output
from hadrosaur.cli.show import _Log
from hadrosaur.records import Entry, format_time


@pytest.fixture
def base(tmp_path):
    """A base with some books."""
    return stocked(tmp_path / 'base')


@pytest.fixture
def started(tmp_path):
    """Start the command line; what was started is ended."""
    processes = []

    def start(*args, **more):
        process = subprocess.Popen(
            command(*args), cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, **more
        )
        processes.append(process)
        return process

    yield start
    for process in processes:
        if process.poll() is None:
            process.kill()
        process.communicate()


def table(*args):
    """The rows of a table in a pipe, as dicts."""
    shown = call(*args)
    assert shown.exit_code == 0, shown.stderr
    titles, *rows = (line.split('\t') for line in shown.stdout.splitlines())
    return [dict(zip(titles, row, strict=True)) for row in rows]


def document(*args):
    """What --json writes."""
    shown = call(*args, '--json')
    assert shown.exit_code == 0, shown.stderr
    return json.loads(shown.stdout)


# --- status ----------------------------------------------------------------------------------------


def test_status_counts(base):
    """One line for each collection; --json is Project.stats, with neither rate nor ETA where nothing runs."""
    with Project(base, create=False) as project:
        stats = project.stats()

    row = table('status', base)[0]
    assert (row['collection'], row['total'], row['completed'], row['error']) == ('books', '6', '4', '2')
    assert document('status', base) == {
        'books': {**stats['books'], 'rate': None, 'eta_seconds': None, 'progress': []}
    }
    assert document('status', base, 'books') == document('status', base)


def test_status_of_nothing(tmp_path):
    """An empty project has no rows, which is said."""
    with Project(tmp_path / 'base') as project:
        project.query()
    shown = call('status', tmp_path / 'base')

    assert shown.exit_code == 0
    assert 'no resources yet' in shown.stderr
    assert document('status', tmp_path / 'base') == {}


def test_status_tells_rate_and_eta(started, tmp_path):
    """While something runs: resources per second of late, and seconds until what is queued is done."""
    (tmp_path / 'jobs.py').write_text(JOBS)
    lines = ['a', 'b', 'c', '["slow", {"until": "go"}]']
    process = started('run', 'jobs:proj', 'books', '--idents-from', '-', '-j', '1', stdin=subprocess.PIPE)
    process.stdin.write('\n'.join(lines))
    process.stdin.close()
    process.stdin = None
    log = tmp_path / 'base/books/slow/stdout.log'
    wait_for(lambda: log.exists() and log.read_text(), 'the slow one')
    wait_for(lambda: document('status', tmp_path / 'base')['books']['completed'] == 3, 'the others')
    counts = document('status', tmp_path / 'base')['books']
    row = table('status', tmp_path / 'base')[0]
    (tmp_path / 'go').touch()

    assert process.wait(timeout=HANG) == 0
    assert counts['pending'] == 1
    assert counts['rate'] > 0
    assert counts['eta_seconds'] == pytest.approx(1 / counts['rate'], rel=0.1, abs=0.1)
    assert float(row['rate']) > 0


@pytest.mark.parametrize(
    ('ages', 'rate'),
    [
        ([], None),
        ([5], None),
        ([0, 5, 10], 0.2),
        ([0, 1, 2, 3, 4, 2000], 1.0),  # an earlier run does not count
        ([600, 1200, 1800, 90_000], 2 / 1800),  # where each takes long, an hour counts
        ([90_000, 100_000], None),
    ],
    ids=str,
)
def test_rate(ages, rate):
    """Resources finished per second of late, from the last ones alone."""

    class Rows:
        def query(self, collection, **wanted):
            return [Entry.make(finished_at=format_time(time.time() - age)) for age in ages]

    assert rate_of(Rows(), 'books') == (rate and pytest.approx(rate, rel=0.05))


def test_watch_looks_again_until_interrupted(started, base):
    """--watch writes a table again and again; Ctrl-C ends it with 130 and no other word."""
    process = started('status', 'base', '--watch')
    for _ in range(6):
        process.stdout.readline()
    process.send_signal(signal.SIGINT)
    _, said = process.communicate(timeout=HANG)

    assert process.returncode == 130
    assert said.strip() == ''


# --- query -----------------------------------------------------------------------------------------


def test_query_rows(base):
    """Rows with a few columns, newest first, hostile text escaped."""
    rows = table('query', base)

    assert [row['ident'] for row in rows] == [
        output.printable(HOSTILE), 'bad2', 'bad1', 'ulysses', 'moby-dick', 'emma',
    ]  # fmt: skip
    assert rows[1]['error_type'] == 'ValueError'
    assert rows[1]['error'].startswith('cannot read bad2')
    assert rows[-1]['finished_at'].endswith('Z')


@pytest.mark.parametrize(
    ('filters', 'idents'),
    [
        ('--status error', 'bad1 bad2'),
        ('--status completed --ident moby* --ident emma', 'emma moby-dick'),
        ('--error-type ValueError --error BAD2', 'bad2'),
        ('--args year=1815', 'emma'),
        ('--args year="1815"', ''),
        ('--since 1h --status error', 'bad1 bad2'),
        ('--until 1h', ''),
        ('--since 2020-01-01 --until 2021-01-01T10:00', ''),
        ('--min-duration 1h', ''),
        ('--status error --order-by ident --limit 1', 'bad1'),
        ('--status error --order-by -ident --limit 1', 'bad2'),
        ('--status error --order-by ident --limit 5 --offset 1', 'bad2'),
        ('--limit 0', ''),
    ],
)
def test_query_filters(filters, idents, base):
    """The filters are those of Project.query."""
    shown = call('query', base, 'books', *filters.split(), '--idents')

    assert shown.exit_code == 0, shown.stderr
    assert sorted(shown.stdout.split()) == idents.split()


def test_query_json_is_as_json(base):
    """--json is the list of what Entry.as_json gives."""
    with Project(base, create=False) as project:
        entries = [entry.as_json() for entry in project.query('books')]

    assert document('query', base, 'books') == entries
    assert document('query', base, '--status', 'pending') == []


def test_query_csv(base):
    """--csv has all public columns, and comes back as it was."""
    rows = list(csv.DictReader(io.StringIO(call('query', base, '--csv').stdout, newline='')))

    assert {row['ident'] for row in rows} == {'emma', 'moby-dick', 'ulysses', 'bad1', 'bad2', HOSTILE}
    assert json.loads(rows[-1]['args']) == {'year': 1815}
    assert rows[-1]['error'] == ''


def test_query_csv_is_inert(tmp_path):
    """An ident that would be a formula in a spreadsheet is not one."""
    with Project(tmp_path / 'base') as project:
        project.resource('=collection')(lambda ident, args, subdir: None)
        project.fetch('=collection', '=1+1')
        project.fetch('=collection', '-1', {'a': 1})
    shown = call('query', tmp_path / 'base', '--csv')

    for row in csv.reader(io.StringIO(shown.stdout)):
        assert not [cell for cell in row if cell[:1] in ('=', '+', '@') or cell == '-1']


def test_query_on_a_terminal(tmp_path):
    """The last fifty, and how many more there are; hostile text is neither markup nor obeyed."""
    with Project(tmp_path / 'base') as project:
        project.resource('books')(lambda ident, args, subdir: None)
        project.fetch_many('books', (f'{HOSTILE}{number}' for number in range(53)), executor='inline').wait()
    env = {'NO_COLOR': '1'}
    shown, code = on_terminal('query', 'base', cwd=tmp_path, env=env)
    few, _ = on_terminal('query', 'base', '--limit', '52', cwd=tmp_path, env=env)
    coloured, _ = on_terminal('query', 'base', cwd=tmp_path)

    assert code == 0
    assert shown.count('completed') == 50
    assert '3 more; --limit 53 shows all' in shown
    assert few.count('completed') == 52
    assert 'more' not in few
    assert '[red]' in shown
    assert '\\x1b[31m' in shown
    assert '\x1b[3' not in shown
    assert '\x1b[32mcompleted' in coloured


def test_tables_fit_the_terminal(base):
    """No line is wider than the terminal."""
    for width in (120, 60):
        shown, code = on_terminal('query', 'base', cwd=base.parent, width=width, env={'NO_COLOR': '1'})
        lines = [line.replace('\x1b[1m', '').replace('\x1b[0m', '') for line in shown.splitlines()]

        assert code == 0
        assert max(map(len, lines)) <= width
        assert any('bad1' in line and 'error' in line for line in lines)


# --- show and explain ------------------------------------------------------------------------------


def test_show(base):
    """All about one, in lines."""
    good = dict(line.split(maxsplit=1) for line in call('show', base, 'books', 'emma').stdout.splitlines())
    bad = call('show', base, 'books', 'bad1').stdout

    assert good['status'] == 'completed'
    assert good['args'] == '{"year": 1815}'
    assert good['result'] == '{"letters": 4}'
    assert good['stdout.log'] == f'{base}/books/emma/stdout.log'
    assert 'error        ValueError: cannot read bad1: a' in bad
    assert '\x1b' not in bad


def test_show_json(base):
    """The row, the result, the traceback and the paths."""
    good, bad = document('show', base, 'books', 'emma'), document('show', base, 'books', 'bad1')

    assert good['result'] == {'letters': 4}
    assert good['args'] == {'year': 1815}
    assert good['traceback'] is None
    assert good['paths']['storage'] == f'{base}/books/emma/storage/'
    assert bad['status'] == 'error'
    assert bad['traceback'].startswith('Traceback')
    assert bad['result'] is None


def test_show_shortens_a_long_result(tmp_path):
    """A result of many pages is cut in the lines, and whole in JSON."""
    with Project(tmp_path / 'base') as project:
        project.resource('books')(lambda ident, args, subdir: list(range(10_000)))
        project.fetch('books', 'long')

    assert len(call('show', tmp_path / 'base', 'books', 'long').stdout) < 2000
    assert document('show', tmp_path / 'base', 'books', 'long')['result'] == list(range(10_000))


@pytest.mark.parametrize(
    ('ident', 'args', 'computes'),
    [('emma', [], False), ('bad1', [], True), ('new', [], True), ('emma', ['--args', '{"year": 1}'], False)],
)
def test_explain(ident, args, computes, base):
    """What Project.explain says."""
    found = document('explain', base, 'books', ident, *args)
    shown = call('explain', base, 'books', ident, *args).stdout

    assert found['computes'] is computes
    if args:  # of the function's registration nothing is known here
        assert (
            found['reason'] == "its args changed, and only a collection with on_args_change='recompute' "
            'computes it again'
        )
    lines = [f'would {"" if computes else "not "}be computed: {found["reason"]}']
    assert shown.splitlines() == lines + (['  args.year: 1815, now 1'] if args else [])


# --- logs ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ('option', 'start'),
    [([], b'reading bad1\n'), (['--stderr'], b'a warning\n'), (['--error'], b'Traceback (most recent call')],
    ids=['stdout', 'stderr', 'error'],
)
def test_logs(option, start, base):
    """The bytes of that log."""
    name = {'': 'stdout.log', '--stderr': 'stderr.log', '--error': 'error.log'}[''.join(option)]
    shown = call('logs', base, 'books', 'bad1', *option)

    assert shown.stdout_bytes == (base / 'books/bad1' / name).read_bytes()
    assert shown.stdout_bytes.startswith(start)


def test_logs_are_bytes(base):
    """What is no text comes through as it is; a log that is not there is empty."""
    (base / 'books/emma/stdout.log').write_bytes(bytes(range(256)))

    assert call('logs', base, 'books', 'emma').stdout_bytes == bytes(range(256))
    assert call('logs', base, 'books', 'emma', '--error').stdout_bytes == b''


def test_logs_follow_no_link(base):
    """A link in a log's place is not followed."""
    log = base / 'books/emma/stdout.log'
    log.unlink()
    log.symlink_to('/etc/passwd')
    shown = call('logs', base, 'books', 'emma')

    assert shown.exit_code == 5
    assert shown.stdout == ''


def test_logs_of_a_finished_one_end_by_themselves(base):
    """-f does not wait where nothing more can come."""
    assert call('logs', base, 'books', 'emma', '-f').stdout == 'reading emma\n'


def test_logs_are_followed_until_the_end(started, tmp_path):
    """-f prints what is printed, as it is printed, and stops when the resource is done."""
    (tmp_path / 'jobs.py').write_text(JOBS)
    run = started('run', 'jobs:proj', 'books', 'slow', '--args', '{"until": "go"}')
    log = tmp_path / 'base/books/slow/stdout.log'
    wait_for(lambda: log.exists() and log.read_text(), 'the first line')
    follower = started('logs', 'base', 'books', 'slow', '-f')

    assert follower.stdout.readline() == 'reading slow\n'
    assert follower.poll() is None
    os.truncate(log, 0)  # as a recompute does
    (tmp_path / 'go').touch()
    assert follower.stdout.read() == 'end\n'
    assert follower.wait(timeout=HANG) == 0
    assert run.wait(timeout=HANG) == 0


def test_followed_log_that_is_interrupted(started, tmp_path):
    """Ctrl-C ends -f with 130, and not the resource."""
    (tmp_path / 'jobs.py').write_text(JOBS)
    run = started('run', 'jobs:proj', 'books', 'slow', '--args', '{"until": "go"}')
    log = tmp_path / 'base/books/slow/stdout.log'
    wait_for(lambda: log.exists() and log.read_text(), 'the first line')
    follower = started('logs', 'base', 'books', 'slow', '-f')
    follower.stdout.readline()
    follower.send_signal(signal.SIGINT)

    assert follower.wait(timeout=HANG) == 130
    assert follower.stderr.read().strip() == ''
    (tmp_path / 'go').touch()
    assert run.wait(timeout=HANG) == 0


def test_log_that_is_replaced(tmp_path, capfdbinary):
    """A log that is emptied, or removed and made anew, is read from its beginning."""
    path = tmp_path / 'stdout.log'
    log = _Log(str(path), raw=True)
    log.pass_on()
    for text in ('first line\n', 'x\n'):
        path.write_text(text)  # truncates
        log.pass_on()
        log.pass_on()
    path.rename(tmp_path / 'old')
    path.write_text('another file\n')
    log.pass_on()

    assert capfdbinary.readouterr().out == b'first line\nx\nanother file\n'


# --- errors and sql --------------------------------------------------------------------------------


def test_errors(base):
    """Failures by cause."""
    row = table('errors', base)[0]
    group = document('errors', base)[0]

    assert (row['count'], row['type'], row['collection']) == ('2', 'ValueError', 'books')
    assert group['count'] == 2
    assert group['first'] < group['last']
    assert group['last'].endswith('Z')
    assert set(group) == {
        'group', 'count', 'type', 'pattern', 'frame', 'collection', 'example', 'first', 'last', 'retry',
    }  # fmt: skip


def test_no_errors(tmp_path):
    """Where nothing failed, that is said."""
    with Project(tmp_path / 'base') as project:
        project.resource('books')(lambda ident, args, subdir: None)
        project.fetch('books', 'emma')

    assert 'no failures' in call('errors', tmp_path / 'base').stderr
    assert document('errors', tmp_path / 'base') == []


def test_sql(base):
    """Rows as a table, as JSON, as CSV."""
    statement = "select status, count(*) as n, '=1' as cell from resources group by 1 order by 1"

    assert table('sql', base, statement) == [
        {'status': 'completed', 'n': '4', 'cell': '=1'},
        {'status': 'error', 'n': '2', 'cell': '=1'},
    ]
    assert document('sql', base, statement)[0] == {'status': 'completed', 'n': 4, 'cell': '=1'}
    assert call('sql', base, statement, '--csv').stdout.splitlines()[1] == "completed,4,'=1"
    assert document('sql', base, 'select 1 where 0') == []
    assert document('sql', base, "select x'00ff' as bytes") == [{'bytes': '00ff'}]


@pytest.mark.parametrize(
    'statement',
    ['delete from resources', "attach 'x.db' as x", 'drop table resources', 'pragma user_version=1'],
)
def test_sql_only_reads(statement, base):
    """Nothing can be changed."""
    before = document('query', base)

    assert call('sql', base, statement).exit_code == 2
    assert document('query', base) == before


def test_looking_changes_nothing(base):
    """Verbs that look leave every file of the resources as it is."""
    before = files(base / 'books')
    for verb in ('status', 'query', 'errors'):
        call(verb, base)
    for verb in ('show', 'logs', 'explain'):
        call(verb, base, 'books', 'emma')

    assert files(base / 'books') == before
