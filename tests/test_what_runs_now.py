"""Look at what runs: ``hadrosaur ps`` and ``hadrosaur stack``, from another process."""

import json
import subprocess
import sys

import pytest
from conftest import HANG, await_that

from hadrosaur import stack_dump

PROGRAM = """
    import os, sys, time
    from hadrosaur import Project

    proj = Project('base')

    @proj.resource('coll')
    def compute(ident, args, subdir):
        print('first line')
        print('\\x1b[31mpage 7\\x1b[0m of \\x07nine\\r\\u202elast line', flush=True)
        deep_inside()

    def deep_inside():
        open('began', 'w').close()
        while not os.path.exists('go'):
            time.sleep(0.01)

    print(proj.fetch_many('coll', ['one', 'two'], executor=sys.argv[1], workers=1).wait())
"""


def hadrosaur(tmp_path, *words, **env):
    import os

    command = [sys.executable, '-m', 'hadrosaur', *words]
    return subprocess.run(
        command, cwd=tmp_path, capture_output=True, text=True, timeout=HANG, env={**os.environ, **env}
    )


@pytest.fixture
def running(program, tmp_path):
    """A program that computes a resource, which has been running for a while; it goes on at the end."""
    started = []

    def start(executor):
        process = program(PROGRAM, executor, start=True)
        started.append(process)
        await_that(lambda: (tmp_path / 'began').exists() or process.poll() is not None)
        return process

    yield start
    (tmp_path / 'go').touch()
    for process in started:
        process.communicate(timeout=HANG)
        assert process.returncode == 0


@pytest.mark.parametrize('executor', ['processes', 'threads', 'inline'])
def test_ps_says_what_runs(running, tmp_path, executor):
    """What runs, in which process, since when, and the last line that it printed, with no harm in it."""
    running(executor)
    [row] = await_that(lambda: json.loads(hadrosaur(tmp_path, 'ps', 'base', '--json').stdout or '[]'))
    shown = hadrosaur(tmp_path, 'ps', 'base', 'coll')

    assert (row['collection'], row['ident'], row['attempt']) == ('coll', 'one', 1)
    record = json.loads((tmp_path / 'base/coll/one/record.json').read_text())
    assert (row['pid'], row['host']) == (record['pid'], record['host'])
    assert row['seconds'] >= 0
    assert row['last_line'] == '\u202elast line'
    [titles, cells] = shown.stdout.splitlines()
    assert titles.split('\t')[-2:] == ['pid', 'last line']
    assert cells.split('\t')[-2:] == [str(row['pid']), '\\u202elast line']


def test_ps_says_that_nothing_runs(proj, tmp_path):
    """An empty table, and a word; finished resources are not listed."""
    proj.resource('coll')(lambda ident, args, subdir: 1)
    proj.fetch('coll', 'one')
    proj.close()
    done = hadrosaur(tmp_path, 'ps', 'base')

    assert (done.returncode, len(done.stdout.splitlines()), done.stderr) == (0, 1, 'nothing runs\n')
    assert json.loads(hadrosaur(tmp_path, 'ps', 'base', '--json').stdout) == []


@pytest.mark.skipif(not stack_dump.IS_POSSIBLE, reason='Linux only')
def test_the_stack_of_a_running_resource(running, tmp_path):
    """The function's own frames, innermost first, with their lines; the run goes on unharmed."""
    running('processes')
    for _ in range(2):
        done = hadrosaur(tmp_path, 'stack', 'base', 'coll', 'one')
        assert done.returncode == 0, done.stderr
        assert 'in deep_inside' in done.stdout
        assert done.stdout.index('in deep_inside') < done.stdout.index('in compute')
        assert '    deep_inside()' in done.stdout
        assert '_call' not in done.stdout
    assert hadrosaur(tmp_path, 'stack', 'base', 'coll', 'two').returncode == 3
    assert hadrosaur(tmp_path, 'stack', 'base', 'coll', 'three').returncode == 3


def test_no_signal_is_sent_to_a_program_of_the_user(running, tmp_path):
    """What runs inline has no stack to be had: that is said, and the program goes on."""
    running('inline')
    done = hadrosaur(tmp_path, 'stack', 'base', 'coll', 'one')

    assert (done.returncode, done.stdout) == (1, '')
    assert 'inline' in done.stderr or 'Linux' in done.stderr
