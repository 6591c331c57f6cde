"""The command line, part 4: verbs that compute (run, retry, reproduce)."""

import errno
import json
import os
import re
import signal
import subprocess
import sys

import pytest
from click.testing import CliRunner
from conftest import HANG
from test_cli_tools import HOSTILE, JOBS, command, files, hadro, on_terminal, wait_for

from hadrosaur import Project
from hadrosaur.cli import app
from hadrosaur.cli.query import ident_line, idents_of
from hadrosaur.executors import _worker_process


@pytest.fixture
def place(tmp_path):
    """A folder with a jobs.py."""
    (tmp_path / 'jobs.py').write_text(JOBS)
    return tmp_path


def run(place, *args, **more):
    """``hadrosaur run jobs:proj books …``."""
    return hadro('run', 'jobs:proj', 'books', *args, cwd=place, **more)


def rows(place, **filters):
    """Rows of the index, by ident."""
    with Project(place / 'base', create=False) as project:
        return {entry.ident: entry for entry in project.query(**filters)}


# --- run -------------------------------------------------------------------------------------------


def test_run(place):
    """Computes what is not there; counts and exit code 0."""
    first, second = run(place, 'emma', 'ulysses', '-j', '2'), run(place, 'emma', 'new')

    assert first.returncode == second.returncode == 0
    assert first.stdout.startswith('2 completed, 0 failed')
    assert second.stdout.startswith('2 completed (1 of them before), 0 failed')
    assert first.stderr == ''
    assert set(rows(place, status='completed')) == {'emma', 'ulysses', 'new'}


def test_run_with_failures(place):
    """Exit code 1; the failures by type, with an example; stdout holds nothing that functions print."""
    done = run(place, 'emma', 'bad1', 'bad2')
    lines = done.stdout.splitlines()

    assert done.returncode == 1
    assert lines[0].startswith('1 completed, 2 failed')
    assert lines[1:3][1].split('\t')[:2] == ['2', 'ValueError']
    assert 'reading' not in done.stdout
    assert 'hadrosaur errors base books' in done.stderr


def test_run_json(place):
    """One document."""
    done = run(place, 'emma', 'bad1', '--json')
    found = json.loads(done.stdout)

    assert done.returncode == 1
    assert {name: found[name] for name in ('total', 'completed', 'error', 'pending', 'reused')} == {
        'total': 2, 'completed': 1, 'error': 1, 'pending': 0, 'reused': 0,
    }  # fmt: skip
    assert found['failures'] == [
        {'type': 'ValueError', 'count': 1, 'example': 'bad1', 'message': 'cannot read bad1'}
    ]


def test_run_a_file(place):
    """``path/to/jobs.py:proj``, from elsewhere; the base is where the caller stands."""
    (place / 'elsewhere').mkdir()
    done = hadro('run', '../jobs.py:proj', 'books', 'emma', cwd=place / 'elsewhere')

    assert done.returncode == 0, done.stderr
    assert (place / 'elsewhere/base/books/emma/result.json').exists()


def test_run_reads_idents(place):
    """Lines of a file and of standard input; args of their own, and --args for the others."""
    (place / 'idents.txt').write_bytes(b'\xef\xbb\xbffirst\r\n\nlast one')
    lines = '["own", {"year": 1}]\n["given"]\n[odd\n'
    by_file = run(place, 'word', '--idents-from', 'idents.txt', '--args', '{"year": 2}')
    by_pipe = run(place, '--idents-from', '-', '--args', '{"year": 3}', input=lines)

    assert by_file.returncode == by_pipe.returncode == 0, by_pipe.stderr
    assert {ident: entry.args['year'] for ident, entry in rows(place).items()} == {
        'word': 2, 'first': 2, 'last one': 2, 'own': 1, 'given': 3, '[odd': 3,
    }  # fmt: skip


def test_lines_are_read_as_they_are_needed():
    """A source of a million lines is never held."""
    read = []

    def source():
        for number in range(1_000_000):
            read.append(number)
            yield b'%d\n' % number

    lines = idents_of(source())

    assert [next(lines), next(lines)] == [('0', None), ('1', None)]
    assert len(read) == 2


@pytest.mark.parametrize(
    'ident', ['plain', 'a b', ' edge ', '[x', '["x"]', '["x", {}]', HOSTILE, 'ü', '\x7f', '=1', '123']
)
def test_ident_lines_come_back(ident):
    """What ``query --idents`` writes, ``run --idents-from`` reads as the same ident."""
    line = ident_line(ident)

    assert line.isprintable()
    assert list(idents_of([f'{line}\n'.encode()])) == [(ident, None)]


@pytest.mark.parametrize('line', ['[1, 2, 3]', '[{"a": 1}]', '[]', '[' * 10_000], ids=lambda line: line[:20])
def test_lines_that_are_no_pair_are_idents(line):
    """A line that only looks like JSON is an ident."""
    assert list(idents_of([line.encode()])) == [(line, None)]


def test_a_bad_line_among_many_costs_only_itself(place):
    """It is counted and named; the others are computed."""
    done = run(place, '--idents-from', '-', input=b'emma\n\xff\xfe\n["x", 5]\nulysses\n', text=False)

    assert done.returncode == 1
    assert done.stdout.startswith(b'2 completed, 2 failed')
    assert b'InvalidIdent' in done.stdout
    assert b'InvalidArgs' in done.stdout


def test_recompute(place):
    """--recompute runs those that are there again, with the args that they had."""
    run(place, 'emma', '--args', '{"year": 1815}')
    done = run(place, 'emma', '--recompute')

    assert done.stdout.startswith('1 completed, 0 failed')
    assert rows(place)['emma'].attempt == 2
    assert rows(place)['emma'].args == {'year': 1815}


def test_dry_run(place):
    """-n says for each what would be done, and does nothing."""
    run(place, 'emma', 'bad1')
    before = files(place / 'base/books')
    lines = 'emma\nbad1\nnew\n["x", 5]\n'
    done = run(place, '--idents-from', '-', '-n', input=lines)
    listed = json.loads(run(place, 'emma', 'new', '-n', '--json', '--recompute').stdout)

    assert done.returncode == 0
    assert [line.split('\t')[:2] for line in done.stdout.splitlines()] == [
        ['leave', 'emma'], ['compute', 'bad1'], ['compute', 'new'], ['refuse', 'x'],
    ]  # fmt: skip
    assert 'compute 2, leave 1, refuse 1' in done.stderr
    assert [plan['action'] for plan in listed] == ['compute', 'compute']
    assert files(place / 'base/books') == before


def test_interrupted(place):
    """Ctrl-C: what ran is written as interrupted, exit code 130, no traceback; a second run goes on."""
    process = subprocess.Popen(
        command('run', 'jobs:proj', 'books', 'slow', 'later', '-j', '1', '--args', '{"until": "go"}'),
        cwd=place, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    log = place / 'base/books/slow/stdout.log'
    wait_for(lambda: log.exists() and log.read_text(), 'the run')
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=HANG)

    assert process.returncode == 130
    assert 'interrupted: 0 completed' in err
    assert 'Traceback' not in err
    assert out == ''
    assert {ident: entry.error_type for ident, entry in rows(place).items()} == {'slow': 'Interrupted'}
    (place / 'go').touch()
    assert run(place, 'slow', 'later').returncode == 0


def test_progress_is_for_terminals(place):
    """A live line on a terminal, no control sequence in a pipe."""
    shown, code = on_terminal('run', 'jobs:proj', 'books', 'emma', cwd=place)

    assert code == 0
    assert '1/1' in shown or '1 ' in shown
    assert '1 completed, 0 failed' in shown
    assert '\x1b[' in shown
    assert '\x1b' not in run(place, 'ulysses').stderr


def test_warnings_of_a_run(place):
    """A warning of ours is one line on stderr."""
    run(place, 'emma', '--args', '{"year": 1}')
    done = run(place, 'emma', '--args', '{"year": 2}')

    assert done.returncode == 0
    assert re.fullmatch(r'Warning: books/emma was computed with other args.*\n', done.stderr)


# --- MODULE:PROJ -----------------------------------------------------------------------------------


TARGETS = [
    ('jobs', 2, "'jobs' is no MODULE:PROJ"),
    (':proj', 2, 'is no MODULE:PROJ'),
    ('nojobs:proj', 2, "there is no module 'nojobs'"),
    ('jobs.deeper:proj', 2, "there is no module 'jobs.deeper'"),
    ('nojobs.py:proj', 2, "there is no file 'nojobs.py'"),
    ('jobs:project', 2, "'project' in 'jobs' is not there; it has jobs:proj"),
    ('jobs:books', 2, "'books' in 'jobs' is no Project; it has jobs:proj"),
    ('json:proj', 2, 'it has none'),
    ('sub/json.py:proj', 2, "another module called 'json'"),
    ('a.b.py:proj', 2, 'has a dot'),
    ('quits:proj', 2, 'asked to exit'),
    ('sub.jobs:proj', 3, "no collection is called 'books'"),
]


@pytest.mark.parametrize(
    ('verb', 'target', 'code', 'words'),
    [('run', *target) for target in TARGETS] + [(verb, *TARGETS[-1]) for verb in ('retry', 'reproduce')],
)
def test_targets_that_are_none(verb, target, code, words, place):
    """A MODULE:PROJ that is none is answered by what is wrong and what there is, without a traceback."""
    (place / 'a.b.py').write_text(JOBS)
    (place / 'quits.py').write_text('import sys; sys.exit("no")')
    for name, text in (('jobs', 'from hadrosaur import Project; proj = Project("base")'), ('json', JOBS)):
        (place / 'sub').mkdir(exist_ok=True)
        (place / f'sub/{name}.py').write_text(text)
    done = hadro(verb, target, 'books', *([] if verb == 'retry' else ['emma']), cwd=place)

    assert done.returncode == code, done.stderr
    assert words in done.stderr
    assert 'Traceback' not in done.stderr
    assert done.stdout == ''


@pytest.mark.parametrize('target', ['broken:proj', 'broken.py:proj'])
def test_module_that_raises(target, place):
    """Its own traceback, without our frames or the import system's, and exit code 2."""
    (place / 'broken.py').write_text('import helper\n')
    (place / 'helper.py').write_text('print("loud")\n1 / 0\n')
    done = hadro('run', target, 'books', 'emma', cwd=place)

    assert done.returncode == 2
    assert done.stderr.count('Traceback') == 1
    assert re.findall(r'File ".*/(.*)"', done.stderr) == ['broken.py', 'helper.py']
    assert 'ZeroDivisionError: division by zero' in done.stderr
    assert 'raised ZeroDivisionError while it was imported' in done.stderr
    assert done.stdout == ''


def test_module_that_misses_another(place):
    """A missing module inside the user's is the user's own error."""
    (place / 'broken.py').write_text('import not_installed\n')
    done = hadro('run', 'broken:proj', 'books', 'emma', cwd=place)

    assert done.returncode == 2
    assert "No module named 'not_installed'" in done.stderr
    assert 'Traceback' in done.stderr


def test_module_that_prints(place):
    """What a module prints while it is imported does not mix with data."""
    (place / 'loud.py').write_text(f'print("loud")\n{JOBS}')
    done = hadro('run', 'loud:proj', 'books', 'emma', '--json', cwd=place)

    assert json.loads(done.stdout)['completed'] == 1
    assert 'loud' in done.stderr


# --- retry -----------------------------------------------------------------------------------------


def test_retry(place):
    """Those that ended in error, with the args that they had, and no others."""
    run(place, 'emma', 'bad1', 'bad2', '--args', '{"year": 1}')
    (place / 'mended').touch()
    one = hadro('retry', 'jobs:proj', 'books', '--ident', '*1', cwd=place)
    rest = hadro('retry', 'jobs:proj', 'books', '--json', cwd=place)
    none = hadro('retry', 'jobs:proj', 'books', cwd=place)

    assert one.stdout.startswith('1 completed, 0 failed')
    assert json.loads(rest.stdout)['total'] == 1
    assert 'nothing to retry' in none.stderr
    assert one.returncode == rest.returncode == none.returncode == 0
    assert {ident: (row.attempt, row.args['year']) for ident, row in rows(place).items()} == {
        'emma': (1, 1), 'bad1': (2, 1), 'bad2': (2, 1),
    }  # fmt: skip


def test_retry_that_fails_again(place):
    """Exit code 1, as for run; -n only says what would be done."""
    run(place, 'bad1')
    dry = hadro('retry', 'jobs:proj', 'books', '-n', cwd=place)

    assert dry.stdout.split('\t')[:2] == ['compute', 'bad1']
    assert hadro('retry', 'jobs:proj', 'books', cwd=place).returncode == 1
    assert rows(place)['bad1'].attempt == 2


# --- reproduce -------------------------------------------------------------------------------------


def test_reproduce_a_failure(place):
    """Its output on the terminal, its own traceback, exit code 1; the stored one is not touched."""
    run(place, 'bad1')
    before = files(place / 'base')
    done = hadro('reproduce', 'jobs:proj', 'books', 'bad1', cwd=place)
    after = files(place / 'base')

    assert done.returncode == 1
    assert done.stdout == 'reading bad1\n'
    assert done.stderr.startswith('a warning\nTraceback (most recent call last):\n  File')
    assert re.findall(r'File ".*/(.*)"', done.stderr) == ['jobs.py']
    assert 'ValueError: cannot read bad1' in done.stderr
    assert {path: text for path, text in before.items() if 'books' in path.parts} == {
        path: text for path, text in after.items() if 'books' in path.parts
    }
    assert rows(place)['bad1'].attempt == 1


def test_reproduce_a_success(place):
    """With the args that it had; whether the result is the stored one is said."""
    run(place, 'emma', '--args', '{"year": 1815}')
    same = hadro('reproduce', 'jobs:proj', 'books', 'emma', cwd=place)
    (place / 'base/books/emma/result.json').write_text('{"letters": 5}\n')
    other = hadro('reproduce', 'jobs:proj', 'books', 'emma', cwd=place)

    assert same.returncode == other.returncode == 0
    assert 'the stored one has the same result' in same.stderr
    assert '{"letters": 4, "year": 1815}' in same.stderr
    assert 'the stored one has another result' in other.stderr


def test_reproduce_what_is_not_there(place):
    """An ident that was never asked for: exit code 3, and nothing runs."""
    done = hadro('reproduce', 'jobs:proj', 'books', 'emma', cwd=place)

    assert done.returncode == 3
    assert done.stdout == ''


def test_reproduce_keeps_the_scratch_directory(place):
    """--keep leaves it, and says where; without it nothing is left."""
    run(place, 'emma')
    env = {**os.environ, 'TMPDIR': str(place / 'tmp')}
    (place / 'tmp').mkdir()
    hadro('reproduce', 'jobs:proj', 'books', 'emma', cwd=place, env=env)
    assert list((place / 'tmp').iterdir()) == []
    done = hadro('reproduce', 'jobs:proj', 'books', 'emma', '--keep', cwd=place, env=env)
    (scratch,) = (place / 'tmp').iterdir()

    assert f'the scratch directory is {scratch}' in done.stderr
    assert (scratch / 'books/emma/result.json').exists()


PARTS = """
import os
from hadrosaur import Project, current

proj = Project('base')

@proj.resource('parts')
def parts(ident, args, subdir):
    return len(ident)

@proj.resource('wholes', keep_storage=True)
def wholes(ident, args, subdir):
    path = os.path.join(subdir, 'runs')
    with open(path, 'a') as runs:
        runs.write('x')
    part = proj.fetch('parts', ident if not os.path.exists('other') else 'other')
    return [current().ident, part['result'], os.path.getsize(path)]
"""


def test_reproduce_works_on_copies(place):
    """Storage that is kept is copied; what the function fetches is computed in its place, and indexed."""
    (place / 'parts.py').write_text(PARTS)
    hadro('run', 'parts:proj', 'wholes', 'a', cwd=place)
    (place / 'other').touch()
    done = hadro('reproduce', 'parts:proj', 'wholes', 'a', cwd=place)

    assert 'result: ["a", 5, 2]' in done.stderr, done.stderr
    assert (place / 'base/wholes/a/storage/runs').read_text() == 'x'
    assert (place / 'base/wholes/a/result.json').read_text() == '["a", 1, 1]\n'
    assert set(rows(place, collection='parts')) == {'a', 'other'}
    assert hadro('check', 'base', cwd=place).returncode == 0


@pytest.mark.skipif(sys.platform == 'win32', reason='signals')
def test_reproduce_interrupted(place):
    """Ctrl-C in the function ends it with 130, and leaves the stored one as it is."""
    (place / 'go').touch()
    run(place, 'slow', '--args', '{"until": "go"}')
    (place / 'go').unlink()
    process = subprocess.Popen(
        command('reproduce', 'jobs:proj', 'books', 'slow'),
        cwd=place, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        env={**os.environ, 'PYTHONUNBUFFERED': '1'},
    )  # fmt: skip
    assert process.stdout.readline() == 'reading slow\n'
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=HANG)

    assert process.returncode == 130
    assert rows(place)['slow'].status == 'completed'


def test_exit_codes_of_executors(place, monkeypatch):
    """5 where the machine gives no workers, 2 for an executor that is none."""

    def refused(*args):
        raise OSError(errno.EAGAIN, os.strerror(errno.EAGAIN))

    monkeypatch.chdir(place)
    monkeypatch.setattr(sys, 'path', [*sys.path])
    monkeypatch.setattr(_worker_process, '_started', refused)
    command = ['run', 'jobs:proj', 'books', 'emma', '-j', '1']
    assert CliRunner().invoke(app, command).exit_code == 5
    assert CliRunner().invoke(app, [*command, '--executor', 'nonsense']).exit_code == 2
    sys.modules.pop('jobs').proj.close()
