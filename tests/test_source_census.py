"""The two commands of the README, and the main job on real input."""

import ast
import json
import os
import signal
import subprocess
import sys
import sysconfig
import time
from collections import Counter
from pathlib import Path

import pytest
from conftest import HANG, ROOT

from hadrosaur import Project

CENSUS = ROOT / 'examples/source_census.py'
STDLIB = Path(sysconfig.get_path('stdlib'))

pytestmark = pytest.mark.long  # some 1 800 resources, twice


def failure_of(name):
    """The type of exception that reading and parsing a file of the library raises by itself, or None."""
    try:
        ast.parse((STDLIB / name).read_text('utf-8'))
    except (SyntaxError, UnicodeDecodeError) as error:
        return type(error).__name__
    return None


def hadrosaur(*words, check=True):
    """What a command prints."""
    command = [sys.executable, '-m', 'hadrosaur', *map(str, words)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=HANG)
    assert done.returncode == 0 or not check, done.stderr
    return done.stdout


@pytest.fixture(scope='module')
def census(tmp_path_factory):
    """The census, killed with -9 half way and run again: (base, what the second run printed)."""
    for attempt in range(9):
        base = tmp_path_factory.mktemp('census') / 'demo'
        command = [sys.executable, '-W', 'default', str(CENSUS), str(base)]
        first = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        try:
            # Folders are begun in order; on a busy machine it may be done before it can be killed.
            while first.poll() is None and len(begun(base)) < 600 >> attempt:
                time.sleep(0.02)
            killed = first.poll() is None
        finally:
            first.send_signal(signal.SIGKILL)
            first.wait()
        if killed and 0 < len(finished(base)) < len(begun(base)):
            break
    assert killed, 'it ended before it could be killed, again and again'
    before = {path: path.stat().st_mtime_ns for path in finished(base)}
    second = subprocess.run(command, capture_output=True, text=True, timeout=HANG)
    assert second.returncode == 0, second.stderr
    return base, before, second


def begun(base):
    """Folders of resources."""
    return os.listdir(base / 'stdlib') if (base / 'stdlib').exists() else []


def finished(base):
    """Results that are complete."""
    folders = (base / 'stdlib').glob('*') if (base / 'stdlib').exists() else []
    return [
        folder / 'result.json'
        for folder in folders
        if (folder / 'status.json').exists() and b'"completed": true' in (folder / 'status.json').read_bytes()
    ]


def test_census_of_the_real_library(census):
    """One resource per source file, and exactly the library's own bad files fail, each with its own error."""
    base, _, second = census
    total = sum('site-packages' not in path.parts for path in STDLIB.rglob('*.py'))

    counts = json.loads(hadrosaur('status', base, '--json'))['stdlib']
    rows = json.loads(hadrosaur('query', base, '--status', 'error', '--json'))
    failures = {row['ident']: row['error_type'] for row in rows}
    assert (counts['total'], counts['error'], counts['pending']) == (total, len(failures), 0)
    assert failures == {name: failure_of(name) for name in failures}
    assert f'{len(failures)} failed' in second.stdout
    assert 'hadrosaur query' in second.stdout
    if sys.version_info[:3] == (3, 11, 7):
        assert total == 1790
        assert Counter(failures.values()) == {'SyntaxError': 7, 'UnicodeDecodeError': 4}


def test_killed_half_way_it_computes_nothing_twice(census):
    """What was completed before kill -9 is not touched by the next run, and nothing stays pending."""
    base, before, _ = census
    changed = [path for path, mtime in before.items() if path.stat().st_mtime_ns != mtime]

    assert changed == []
    with Project(base, create=False) as proj:
        assert len(proj.query(status='pending')) == 0
        assert not proj.check().findings
        attempts = Counter(entry.attempt for entry in proj.query(status='completed'))
    assert sum(count for attempt, count in attempts.items() if attempt > 1) <= 2  # the two that were cut off


def test_its_files_and_logs(census):
    """A resource has its table in storage and its line in the log, and the shell finds both."""
    base, _, _ = census
    folder = base / 'stdlib' / 'json%2Fdecoder.py'

    assert (folder / 'storage/functions.csv').read_text().startswith('line,function,lines\n')
    assert hadrosaur('logs', base, 'stdlib', 'json/decoder.py').startswith('json/decoder.py: ')
    assert 'SyntaxError' in hadrosaur('logs', base, 'stdlib', 'lib2to3/tests/data/bom.py', '--error')


def test_sqlite3_shell_answers(census):
    """``select * from errors`` works in the sqlite3 shell."""
    base, _, _ = census
    done = subprocess.run(
        ['sqlite3', str(base / 'index.sqlite3'), 'select * from errors'], capture_output=True, text=True
    )

    with Project(base, create=False) as proj:
        assert len(done.stdout.splitlines()) == len(proj.query(status='error')) > 0


def test_hand_edits_and_a_deleted_index(census, tmp_path):
    """Edit, copy and delete folders: reindex agrees with the disk; a deleted index gives the same rows."""
    base, _, _ = census
    stdlib = base / 'stdlib'
    (stdlib / 'this.py/status.json').write_text('{"completed": false, "pending": false, "error": true}')
    (stdlib / 'this.py/error.log').write_text('ValueError: by hand\n')
    subprocess.run(['cp', '-r', stdlib / 'abc.py', stdlib / 'copy.of.abc'], check=True)
    subprocess.run(['rm', '-r', stdlib / 'ast.py'], check=True)
    report = json.loads(hadrosaur('reindex', base, '--json'))
    with Project(base, create=False) as proj:
        rows = {entry.ident: entry.as_json() for entry in proj.query('stdlib')}
        found = [(finding.problem, finding.ident) for finding in proj.check().findings]
        assert found == []  # a copy is a resource of its folder's name
    for name in ('index.sqlite3', 'index.sqlite3-wal', 'index.sqlite3-shm'):
        (base / name).unlink(missing_ok=True)
    with Project(base, create=False) as proj:
        again = {entry.ident: entry.as_json() for entry in proj.query('stdlib')}

    assert (report['added'], report['updated'], report['removed']) == (1, 1, 1)
    assert (rows['this.py']['error_type'], rows['this.py']['error']) == ('ValueError', 'by hand')
    assert rows['copy.of.abc']['status'] == 'completed'
    assert 'ast.py' not in rows
    assert rows == again


def test_make_knows_the_two_commands():
    """`make demo` installs and runs the census, `make test` installs what tests need; CI runs both."""
    plan = subprocess.run(
        ['make', '-n', 'demo', 'test', 'VENV=no-such-venv'],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    ci = (ROOT / '.ci/run').read_text()

    assert '-m venv no-such-venv' in plan
    assert 'examples/source_census.py' in plan
    assert '-m pytest' in plan
    assert 'make lint' in ci
    assert 'make test' in ci
    assert os.access(ROOT / '.ci/run', os.X_OK)


def test_census_needs_no_main_guard():
    """The example is a plain script."""
    assert '__main__' not in CENSUS.read_text()
