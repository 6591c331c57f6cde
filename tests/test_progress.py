"""Progress: a live line on a terminal, a line now and then in a pipe, a callback for programs."""

import os
import pty
import subprocess
import sys

import pytest
from conftest import HANG

from hadrosaur import Counts

PROGRAM = """
    from hadrosaur import Project
    from hadrosaur import progress
    progress.LIVE_INTERVAL = progress._Live.interval = 0
    progress._Plain.interval = 0
    proj = Project('base')

    @proj.resource('coll')
    def compute(ident, args, subdir):
        if ident == '3':
            raise ValueError('number [red]three[/red]')

    print(proj.fetch_many('coll', list(range(6)), workers=1, progress=True).wait())
"""


def test_callback_gets_counts(proj):
    """A function is called with the counts at each change, the last time with the final ones."""
    proj.resource('coll')(lambda ident, args, subdir: 1 / (int(ident) % 4))
    seen = []
    final = proj.fetch_many('coll', range(8), executor='inline', progress=seen.append).wait()

    assert all(isinstance(counts, Counts) for counts in seen)
    assert [counts.completed + counts.error for counts in seen] == list(range(1, 9))
    assert seen[-1] == final == (8, 6, 2, 0, 0)


def test_piped_progress_is_plain_lines(program):
    """In a pipe: whole lines on stderr, no escape sequences; data goes to stdout."""
    done = program(PROGRAM)
    lines = done.stderr.splitlines()

    assert done.stdout == 'Counts(total=6, completed=5, error=1, pending=0, reused=0)\n'
    assert lines[-1].startswith('coll: 6/6 done, 1 failed')
    assert '\x1b' not in done.stderr


def test_piped_progress_ends_with_the_final_counts(program):
    """A batch that is done before the first line is due is told of all the same, in one line."""
    done = program(PROGRAM.replace('progress._Plain.interval = 0', 'progress._Plain.interval = 1000'))

    assert [line.partition(',')[0] for line in done.stderr.splitlines()] == ['coll: 6/6 done']


@pytest.mark.skipif(not hasattr(os, 'openpty'), reason='needs a pseudo-terminal')
def test_terminal_shows_a_live_line(program, tmp_path):
    """On a terminal: counts, and the last error with its markup shown as it is."""
    theirs, ours = pty.openpty()
    started = program('pass')  # the fixture's folder
    source = tmp_path / 'live.py'
    import textwrap

    source.write_text(textwrap.dedent(PROGRAM))
    process = subprocess.Popen(
        [sys.executable, str(source)],
        cwd=tmp_path,
        stdout=subprocess.DEVNULL,
        stderr=ours,
        env={**os.environ, 'TERM': 'xterm', 'COLUMNS': '120'},
    )
    os.close(ours)
    shown = b''
    while True:
        try:
            data = os.read(theirs, 4096)
        except OSError:
            break
        if not data:
            break
        shown += data
    os.close(theirs)

    assert process.wait(timeout=HANG) == started.returncode == 0
    assert b'6/6' in shown
    assert b'1 failed' in shown
    assert b'number [red]three[/red]' in shown
