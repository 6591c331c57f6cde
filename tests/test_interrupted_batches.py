"""A batch that is interrupted, or that somebody waits for in a pipe: it says how it stands."""

import os
import signal
import subprocess
import sys
import textwrap

import pytest
from conftest import HANG, await_that

from hadrosaur import Counts, Project, progress
from hadrosaur.engine._summary import in_words

PROGRAM = """
    import sys, time
    from pathlib import Path
    from hadrosaur import Project

    proj = Project('base')

    @proj.resource('coll')
    def compute(ident, args, subdir):
        if ident == '2':
            raise ValueError('two')
        if ident == '3':
            Path('began').touch()
            while not Path('go').exists():
                time.sleep(0.01)
        return ident

    def main():
        proj.fetch_many('coll', map(str, range(5)) if sys.argv[2:] else [*map(str, range(5))],
                        executor=sys.argv[1], workers=1).wait()

    if __name__ == '__main__':
        main()
"""


@pytest.mark.parametrize('executor', ['processes', 'inline'])
@pytest.mark.parametrize('is_lazy', [False, True], ids=['list', 'iterator'])
def test_ctrl_c_says_how_it_stands(program, tmp_path, executor, is_lazy):
    """One line: completed, failed, interrupted, not begun, how to go on; hardly a line of ours above it."""
    started = program(PROGRAM, executor, *(['lazy'] if is_lazy else []), start=True)
    await_that((tmp_path / 'began').exists)
    started.send_signal(signal.SIGINT)
    _, err = started.communicate(timeout=HANG)

    left = 'the rest not begun' if is_lazy else '1 not begun'
    assert err.splitlines()[-1] == (
        f'KeyboardInterrupt: 2 completed, 1 failed, 1 interrupted, {left}; the same call goes on from there'
    )
    assert len([line for line in err.splitlines() if line.startswith('  File ')]) <= 4, err
    with Project(tmp_path / 'base', create=False) as proj:
        assert len(proj.query(status='pending')) == 0


def test_run_in_a_pipe_says_a_line_now_and_then(tmp_path):
    """With total and pace, also while nothing ends; the end itself is told by the command."""
    (tmp_path / 'jobs.py').write_text(textwrap.dedent(PROGRAM))
    run = (
        'from hadrosaur import progress; progress._Plain.interval = 0.1; '
        'from hadrosaur.cli import main; main()'
    )
    (tmp_path / 'idents').write_text('0\n1\n3\n')
    words = ['run', 'jobs:proj', 'coll', '--idents-from', 'idents', '-j', '1']
    process = subprocess.Popen(
        [sys.executable, '-c', run, *words],
        cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env={**os.environ},
    )  # fmt: skip
    await_that((tmp_path / 'began').exists)
    first = process.stderr.readline()
    while '2/3 done' not in first:
        assert first, process.wait(HANG)
        first = process.stderr.readline()
    for _ in range(2):  # nothing ends meanwhile
        assert process.stderr.readline().startswith('coll: 2/3 done, 0 failed')
    (tmp_path / 'go').touch()
    out, err = process.communicate(timeout=HANG)

    assert process.returncode == 0, err
    assert out.startswith('3 completed, 0 failed')


def test_time_to_go_is_told(monkeypatch, capsys):
    """With the total known: pace and time to go, per minute or hour where it is slow."""
    moments = iter([0.0])
    monkeypatch.setattr(progress.time, 'monotonic', lambda: next(moments, 90.0))
    display = progress._Plain('coll', 10)
    display(Counts(10, 3, 0, 7, 0), None)

    assert capsys.readouterr().err == 'coll: 3/10 done, 0 failed, 2/min, 3 min 30 s to go\n'


def test_summary_in_words():
    """What was there before is told, and what nobody counted is not made up."""
    assert in_words(Counts(9, 5, 2, 0, 3), 0, 9) == '5 completed (3 of them before), 2 failed, 2 not begun'
    assert (
        in_words(Counts(2, 1, 1, 0, 0), 1, None) == '1 completed, 0 failed, 1 interrupted, the rest not begun'
    )
