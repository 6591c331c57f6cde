"""The running view in a terminal: `hadrosaur top`."""

import fcntl
import os
import pty
import select
import signal
import struct
import subprocess
import termios
import time

import pytest
from conftest import HANG
from test_cli_tools import HOSTILE, call, command, stocked

from hadrosaur import Project
from hadrosaur.cli import output, top

END = b'\x1b[?1049l'  # the terminal's own screen again
SHOWN = b'\x1b[?25h'  # and its cursor


@pytest.fixture(scope='module')
def base(tmp_path_factory):
    """A base with some books."""
    return stocked(tmp_path_factory.mktemp('top') / 'base')


def lines(project, view, width, height):
    """What a frame looks like, line by line."""
    console = output.terminal()
    options = console.options.update(width=width, height=None)
    drawn = console.render_lines(top.frame(project, view, width, height), options, pad=False)
    return [''.join(segment.text for segment in line) for line in drawn]


@pytest.mark.parametrize(('width', 'height'), [(80, 24), (60, 12), (200, 60)])
def test_a_frame_fits_into_the_terminal(tmp_path, width, height):
    """However much runs and fails, under whatever names, a frame is no longer and no wider than asked."""
    from rich.cells import cell_len

    with Project(tmp_path / 'base') as project:
        for number in range(30):

            @project.resource(f'collection with a long name {number} 目録')
            def compute(ident, args, subdir):
                print(f'{ident} a last line that is long' * 9)
                raise ValueError(f'{HOSTILE} {ident}\nmore' * 20)

        project.fetch_many('collection with a long name 7 目録', [f'{HOSTILE}{n}' * 9 for n in range(40)],
                           executor='inline').wait()  # fmt: skip
        project.fetch('collection with a long name 3 目録', 'one')
        seen = top.look(project, None)
        crowded = seen._replace(running=seen.failures, state={
            f'{name}{n}': counts for name, counts in seen.state.items() for n in range(20)
        })  # fmt: skip
        shown = lines(project, crowded, width, height)

    assert len(shown) <= height
    assert all(cell_len(line) <= width for line in shown)
    assert all(line.isprintable() for line in shown)
    assert any(line.startswith('running') for line in shown)
    assert any('more running' in line for line in shown)


def test_one_frame_where_there_is_no_terminal(base, monkeypatch):
    """In a pipe it writes one frame, plain, and ends."""
    monkeypatch.setenv('COLUMNS', '100')
    said = call('top', base)

    assert said.exit_code == 0
    assert '6 resources · 0 running · 0 queued' in said.stdout
    assert '\x1b' not in said.stdout
    assert 'ValueError: cannot read bad2' in said.stdout
    assert call('top', base, 'none').exit_code == 3


ENDS = {
    'q': lambda process, terminal: os.write(terminal, b'q'),
    'ctrl-c': lambda process, terminal: os.write(terminal, b'\x03'),
    'terminated': lambda process, terminal: process.send_signal(signal.SIGTERM),
}


class OnTerminal:
    """`hadrosaur top` on a terminal of 80 by 24, which is ended after two frames."""

    def __init__(self, base):
        self.ours, self.theirs = pty.openpty()
        fcntl.ioctl(self.theirs, termios.TIOCSWINSZ, struct.pack('HHHH', 24, 80, 0, 0))
        self.before = termios.tcgetattr(self.theirs)
        env = {**os.environ, 'TERM': 'xterm-256color', 'COLUMNS': '', 'LINES': ''}
        self.process = subprocess.Popen(
            command('top', base), env=env, stdin=self.theirs, stdout=self.theirs, stderr=subprocess.PIPE,
            start_new_session=True, preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0),
        )  # fmt: skip

    def ended(self, end):
        """What the terminal got."""
        got, is_told, late = b'', False, time.monotonic() + HANG
        while time.monotonic() < late:
            if select.select([self.ours], [], [], 0.05)[0]:
                got += os.read(self.ours, 65536)
            elif self.process.poll() is not None:
                break
            if not is_told and got.count(b'q quits') >= 2:
                is_told = True
                end(self.process, self.ours)
        return got

    def close(self):
        self.process.kill()
        self.process.communicate()
        os.close(self.ours)
        os.close(self.theirs)


def test_it_leaves_the_terminal_as_it_was(base):
    """It draws in place on a screen of its own, and gives the terminal back, however it is ended."""
    shown = {how: OnTerminal(base) for how in ENDS}
    try:
        for how, terminal in shown.items():
            got = terminal.ended(ENDS[how])
            assert terminal.process.wait(HANG) == 0, how
            assert terminal.process.stderr.read() == b''
            assert termios.tcgetattr(terminal.theirs) == terminal.before, how
            assert got.index(END) > got.rindex(b'q quits')
            assert SHOWN in got
            assert b'\x1b[2J' not in got  # nothing is wiped before it is drawn again: that flickers
            assert b'cannot read bad' in got
    finally:
        for terminal in shown.values():
            terminal.close()
