"""What other people wrote does nothing to a terminal: colours stay, all else is made visible."""

import os
import pty
import select
import subprocess
import sys

import pytest
from conftest import HANG

from hadrosaur import Project, UnknownExecutor
from hadrosaur.sanitize import Harmless

HOSTILE = {
    b'\x1b[31mred\x1b[0m': '\x1b[31mred\x1b[0m\x1b[0m',
    b'\x1b[1;38;5;208mx\x1b[m': '\x1b[1;38;5;208mx\x1b[m\x1b[0m',
    b'a line\nand\ttab\r\nend': 'a line\nand\ttab\nend',
    b'\x1b[2J\x1b[H': '\\x1b[2J\\x1b[H',
    b'\x1b]0;title\x07': '\\x1b]0;title\\x07',
    b'\x1b]52;c;cm0gLXJm\x1b\\': '\\x1b]52;c;cm0gLXJm\\x1b\\',
    b'\x1b[8mhidden\x1b[0;8mhidden\x1b[08m': '\\x1b[8mhidden\\x1b[0;8mhidden\\x1b[08m',
    b'honest\rforged': 'honest\\rforged',
    b'back\b\b\x7f\x00': 'back\\x08\\x08\\x7f\\x00',
    '\x9b2J c1 \u202eesrever'.encode(): '\\x9b2J c1 \\u202eesrever',
    b'\xff\xfe not text': '\\xff\\xfe not text',
    'grüße 日本'.encode(): 'grüße 日本',
    b'\x1b[': '\\x1b[',
    b'\x1b[31': '\\x1b[31',
    b'\x1bc\x1b7\x1b(0': '\\x1bc\\x1b7\\x1b(0',
    b'\x1b[' + b'1;' * 200 + b'm': '\\x1b[' + '1;' * 200 + 'm',
    b'ends\r': 'ends\\r',
}


@pytest.mark.parametrize('data', HOSTILE)
def test_a_log_on_a_terminal_can_do_no_harm(data):
    """Whole, and in whatever pieces it comes, the same is shown."""
    wanted = HOSTILE[data]
    whole = Harmless()
    assert whole(data) + whole(b'', end=True) == wanted
    for size in (1, 2, 3, 5):
        pieces = Harmless()
        shown = ''.join(pieces(data[at : at + size]) for at in range(0, len(data), size))
        assert shown + pieces(b'', end=True) == wanted


@pytest.fixture
def place(tmp_path):
    """A base with a resource that has printed all of it."""
    text = b''.join(HOSTILE)
    with Project(tmp_path / 'base') as proj:
        proj.resource('c')(lambda ident, args, subdir: os.write(1, text) and None)
        proj.fetch('c', 'a\x1b[2Jb')
    return tmp_path, text


def on_terminal(*words):
    """What a command writes to a terminal."""
    theirs, ours = pty.openpty()
    command = [sys.executable, '-m', 'hadrosaur', *map(str, words)]
    process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=ours, stderr=ours)
    shown = b''
    while process.poll() is None or select.select([theirs], [], [], 0)[0]:
        if select.select([theirs], [], [], 0.05)[0]:
            shown += os.read(theirs, 1 << 16)
    os.close(ours)  # only now: what is not read when the last one closes a terminal may be lost
    os.close(theirs)
    assert process.wait(HANG) == 0
    return shown


@pytest.mark.parametrize('words', [(), ('-f',)])
def test_logs_are_harmless_on_a_terminal_and_exact_in_a_pipe(place, words):
    """On a terminal control sequences are shown; --raw and pipes have every byte."""
    folder, text = place
    asked = ['logs', folder / 'base', 'c', 'a\x1b[2Jb', *words]
    shown, raw = on_terminal(*asked), on_terminal(*asked, '--raw')
    command = [sys.executable, '-m', 'hadrosaur', *map(str, asked)]
    piped = subprocess.run(command, capture_output=True, timeout=HANG, check=True).stdout

    assert piped == text
    assert b'\x1b[2J' in raw
    assert b'\x1b[31mred' in shown
    for harm in (b'\x1b[2J', b'\x1b]', b'\x1b[8m', b'\x07', b'\x08', b'\xe2\x80\xae', b'\x1bc'):
        assert harm not in shown
    assert b'\\x1b[2J' in shown


@pytest.mark.parametrize(
    'verb',
    [
        ('show', 'c', 'a\x1b[2Jb'),
        ('query',),
        ('query', '--idents'),
        ('status',),
        ('errors',),
        ('check',),
        ('explain', 'c', 'a\x1b[2Jb'),
    ],
)
def test_idents_are_harmless_on_a_terminal(place, verb):
    """No verb passes on what stands in an ident."""
    name, *words = verb
    assert b'\x1b[2J' not in on_terminal(name, place[0] / 'base', *words)


@pytest.mark.parametrize(
    'executor', ['nonsense', '', 7, None, object(), 'dask:', 'dask:nothing', 'dask:tcp://host:', 'dask::80']
)
def test_an_executor_that_is_none_is_refused_at_the_call(proj, executor):
    """Also where nothing is left to compute."""
    proj.resource('c')(lambda ident, args, subdir: ident)
    proj.fetch('c', 'a')
    with pytest.raises(UnknownExecutor):
        proj.fetch_many('c', ['a'], executor=executor)
    with pytest.raises(UnknownExecutor):
        proj.fetch_many('c', [], executor=executor)


@pytest.mark.parametrize('workers', [0, -1, True, 1.5, '2'])
def test_workers_are_checked_at_the_call(proj, workers):
    """Also where nothing is left to compute."""
    proj.resource('c')(lambda ident, args, subdir: ident)
    with pytest.raises(ValueError, match='workers must be a whole number from 1 up'):
        proj.fetch_many('c', [], workers=workers)


@pytest.mark.parametrize('words', [('a',), ('a', '-n')])
def test_run_refuses_an_executor_that_is_none(tmp_path, words):
    """With everything computed, and in a dry run."""
    (tmp_path / 'jobs.py').write_text(
        "from hadrosaur import Project\nproj = Project('base')\nproj.resource('c')(lambda i, a, s: i)\n"
    )

    def run(*more):
        command = [sys.executable, '-m', 'hadrosaur', 'run', 'jobs:proj', 'c', *more]
        return subprocess.run(command, cwd=tmp_path, input='', capture_output=True, text=True, timeout=HANG)

    assert run('a', '-j', '1').returncode == 0
    done = run(*words, '--executor', 'nonsense')
    assert done.returncode == 2, done.stderr
    assert "no executor is called 'nonsense'" in done.stderr
