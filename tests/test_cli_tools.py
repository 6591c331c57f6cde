"""The command line, part 1: its tools (text, tables, JSON, CSV), and what the other parts use."""

import csv
import fcntl
import io
import json
import os
import pty
import struct
import subprocess
import sys
import termios
import time
from datetime import UTC, datetime

import pytest
from click.testing import CliRunner
from conftest import HANG

from hadrosaur import Project
from hadrosaur.cli import app, output
from hadrosaur.cli.output import Column
from hadrosaur.sanitize import size

HOSTILE = 'a\x1b[31mb\tc\nd[red]e[/red]\u202ef'

JOBS = """
import os, sys, time
from hadrosaur import Project

proj = Project('base')

def until(name):
    deadline = time.monotonic() + 300
    while not os.path.exists(name) and time.monotonic() < deadline:
        time.sleep(0.01)

@proj.resource('books')
def books(ident, args, subdir):
    print('reading', ident)
    print('a warning', file=sys.stderr)
    if ident.startswith('bad') and not os.path.exists('mended'):
        raise ValueError(f'cannot read {ident}')
    if 'until' in args:
        until(args['until'])
        print('end')
    return {'letters': len(ident), **args}
"""


# --- what the other parts use ----------------------------------------------------------------------


def call(*args, **more):
    """Call the command line in this process."""
    try:
        runner = CliRunner(mix_stderr=False)
    except TypeError:  # since click 8.2 they are never mixed
        runner = CliRunner()
    return runner.invoke(app, [str(arg) for arg in args], **more)


def command(*args):
    """The command line as a program."""
    return [sys.executable, '-m', 'hadrosaur', *map(str, args)]


def hadro(*args, cwd, **more):
    """Run the command line as a user would."""
    more = {'text': True, 'timeout': 300, **more}
    return subprocess.run(command(*args), cwd=cwd, capture_output=True, **more)


def on_terminal(*args, cwd, width=100, **more):
    """Run it on a terminal; returns (what the terminal got, exit code)."""
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack('HHHH', 40, width, 0, 0))
    env = {**os.environ, 'TERM': 'xterm-256color', 'COLUMNS': '', **more.pop('env', {})}
    process = subprocess.Popen(
        command(*args), cwd=cwd, env=env, stdin=subprocess.DEVNULL, stdout=theirs, stderr=theirs
    )
    os.close(theirs)
    got = b''
    try:
        while data := os.read(ours, 65536):
            got += data
    except OSError:  # the other end is closed
        pass
    finally:
        os.close(ours)
    return got.decode().replace('\r\n', '\n'), process.wait()


def wait_for(condition, what):
    """Wait until something is so."""
    deadline = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline, f'waited in vain for {what}'
        time.sleep(0.01)


def stocked(base):
    """A base with three completed books, two that failed, and one with a hostile name."""
    with Project(base) as project:

        @project.resource('books')
        def books(ident, args, subdir):
            print('reading', ident)
            print('a warning', file=sys.stderr)
            if ident.startswith('bad'):
                raise ValueError(f'cannot read {ident}: {HOSTILE}')
            return {'letters': len(ident)}

        for ident, year in (('emma', 1815), ('moby-dick', 1851), ('ulysses', 1922)):
            project.fetch('books', ident, {'year': year})
        for ident in ('bad1', 'bad2', HOSTILE):
            project.fetch('books', ident)
    return base


def files(base):
    """Every file below a directory, with its bytes."""
    return {path: path.read_bytes() for path in sorted(base.rglob('*')) if path.is_file()}


# --- text ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ('text', 'shown'),
    [
        ('plain ünïcode ☃', 'plain ünïcode ☃'),
        ('a\tb\nc\rd', 'a\\tb\\nc\\rd'),
        ('\x1b[31mred\x07\x7f\x9b', '\\x1b[31mred\\x07\\x7f\\x9b'),
        ('abc\u202edef\u2028', 'abc\\u202edef\\u2028'),
        ('\udcff', '\\udcff'),
        ('[red]x[/red]', '[red]x[/red]'),
    ],
)
def test_visible_shows_what_would_not_print(text, shown):
    """Control characters, line ends and marks of direction are shown as escapes, all else as it is."""
    assert shown == output.printable(text)


@pytest.mark.parametrize(
    ('number', 'shown'),
    [
        (0.0021, '2.1 ms'),
        (1.5, '1.5 s'),
        (59.96, '60 s'),
        (61, '1 min 01 s'),
        (3661, '1 h 01 min'),
        (90000, '1 d 01 h'),
        (None, None),
    ],
)
def test_durations_for_people(number, shown):
    """Durations have the unit that fits."""
    assert shown == output.seconds(number)


@pytest.mark.parametrize(
    ('number', 'shown'), [(0, '0 B'), (1500, '1.5 kB'), (45_200_000, '45.2 MB'), (7e12, '7e+03 GB')]
)
def test_sizes_for_people(number, shown):
    """Bytes have the unit that fits."""
    assert shown == size(number)


def test_times():
    """Times are UTC text for programs; for people today's have no day."""
    moment = datetime(2026, 1, 31, 18, 0, 0, 250, tzinfo=UTC)

    assert output.utc(moment) == '2026-01-31T18:00:00.000250Z'
    assert len(output.lately(moment)) == len('2026-01-31 18:00')
    assert len(output.lately(datetime.now(UTC))) == len('18:00:00')
    assert output.utc(None) is output.local(None) is output.lately(None) is None


# --- JSON and CSV ----------------------------------------------------------------------------------


@pytest.mark.parametrize('value', [HOSTILE, 'ü☃', '\x7f\x9b', '\ud800', {'a': [1, None, 'ü']}])
def test_json_is_harmless_and_true(value):
    """JSON comes back as it was, and holds no character that a terminal would obey."""
    for indent in (None, 2):
        text = output.json_text(value, indent)

        assert value == json.loads(text)
        assert text.replace('\n', '').isprintable()


def test_json_is_readable_where_it_can_be(capsys):
    """Letters of any alphabet stand as they are, where the terminal speaks UTF-8."""
    assert output.json_text('ü☃') == '"ü☃"'


def test_json_list_is_written_as_it_comes(capsys):
    """The first value is written before the last one is made."""
    written = []

    def values():
        for number in range(3):
            yield {'number': number}
            written.append(capsys.readouterr().out)

    output.write_json_list(values())
    whole = ''.join(written) + capsys.readouterr().out

    assert json.loads(whole) == [{'number': 0}, {'number': 1}, {'number': 2}]
    assert '"number": 0' in written[0]
    assert '2' not in written[1]


@pytest.mark.parametrize('values', [[], [1], ['a', None]])
def test_json_list_is_a_list(values, capsys):
    """An empty one too."""
    output.write_json_list(values)

    assert values == json.loads(capsys.readouterr().out)


@pytest.mark.parametrize('cell', ['=1+1', '+1', '-1', '@SUM(A1)', '\t=1', '\r=1', '\n=1', '\uff1d1'])
def test_csv_cells_are_inert(cell, capsys):
    """What a spreadsheet would calculate has a quote in front; numbers stay numbers."""
    output.write_csv(['name', 'number'], [[cell, -1.5], ['plain', None]])
    rows = list(csv.reader(io.StringIO(capsys.readouterr().out, newline='')))

    assert rows == [['name', 'number'], [f"'{cell}", '-1.5'], ['plain', '']]


# --- tables ----------------------------------------------------------------------------------------

COLUMNS = [
    Column('ident', folded=True),
    Column('status'),
    Column('took', output.seconds, right=True, spare=True),
    Column('error', cut=True),
]
ROWS = [('emma', 'completed', 1.5, None), (HOSTILE, 'error', None, 'm' * 200)]


def test_table_in_a_pipe_is_whole(capsys):
    """One line for each row, cells between tabs, nothing cut, values as programs want them."""
    output.write_table(COLUMNS, ROWS)
    lines = capsys.readouterr().out.splitlines()

    assert lines[0].split('\t') == ['ident', 'status', 'took', 'error']
    assert lines[1].split('\t') == ['emma', 'completed', '1.5', '']
    assert lines[2].split('\t') == [output.printable(HOSTILE), 'error', '', 'm' * 200]


def test_table_on_a_terminal_fits(capsys, monkeypatch):
    """What is to spare goes first, then long texts are cut; nothing is read as markup."""
    monkeypatch.setattr(output, 'is_terminal', lambda stream=None: True)
    monkeypatch.setenv('COLUMNS', '120')
    output.write_table(COLUMNS, ROWS)
    wide = capsys.readouterr().out
    monkeypatch.setenv('COLUMNS', '60')
    output.write_table(COLUMNS, ROWS)
    narrow = capsys.readouterr().out

    assert 'took' in wide
    assert '1.5 s' in wide
    assert 'took' not in narrow
    assert 'completed' in narrow
    assert '[red]' in wide
    assert '…' in wide
    assert '\x1b[31m' not in wide + narrow
    assert all(len(line) <= 120 for line in wide.splitlines())
    assert all(len(line) <= 60 for line in narrow.splitlines())
    assert len(wide.splitlines()) == 3


@pytest.mark.skipif(not os.path.exists('/dev/full'), reason='no /dev/full here')
@pytest.mark.parametrize('asked', ['-h', '--version', 'run -h'])
def test_help_that_cannot_be_printed_is_one_sentence(asked):
    """No room for the help: one sentence and exit code 5, as with every verb, and no traceback."""
    with open('/dev/full', 'w') as full:
        ended = subprocess.run(
            [sys.executable, '-m', 'hadrosaur', *asked.split()],
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
            timeout=HANG,
            check=False,
        )
    assert ended.returncode == 5
    assert ended.stderr.startswith('Error: No space left on device\n')
    assert 'Traceback' not in ended.stderr


def test_an_address_without_a_port_is_refused_before_dask_sees_it(tmp_path):
    """One sentence that says how to write it: dask itself leaves a traceback at the end of the program."""
    pytest.importorskip('distributed')
    (tmp_path / 'jobs.py').write_text(JOBS)
    ended = subprocess.run(
        [
            sys.executable,
            '-m',
            'hadrosaur',
            'run',
            'jobs.py:proj',
            'books',
            'a',
            '--executor',
            'dask:nothing',
        ],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=HANG,
        check=False,
    )
    assert ended.returncode == 2
    assert 'write dask:tcp://host:port' in ended.stderr
    assert 'Traceback' not in ended.stderr
