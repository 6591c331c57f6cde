"""The command line, part 2: help, start-up, exit codes, messages, completion."""

import os
import re
import signal
import sqlite3
import subprocess
import sys
import warnings

import pytest
from conftest import HANG
from test_cli_tools import HOSTILE, call, command, hadro, stocked

import hadrosaur
from hadrosaur.cli import VERBS, app, exit_codes

BUFFERED = {name: value for name, value in os.environ.items() if name != 'PYTHONUNBUFFERED'}
HEAVY = {'sqlalchemy', 'alembic', 'rich', 'cloudpickle'}


@pytest.fixture
def base(tmp_path):
    """A base with some books."""
    return stocked(tmp_path / 'base')


def loaded_by(*args, cwd, **env):
    """Which heavy packages a command line loads."""
    program = f"""
import atexit, sys
@atexit.register
def tell():
    print('loaded:', *{{name.partition('.')[0] for name in sys.modules}}, file=sys.stderr)
from hadrosaur.cli import main
sys.argv = {['hadrosaur', *map(str, args)]!r}
main()
"""
    done = subprocess.run(
        [sys.executable, '-c', program],
        cwd=cwd,
        capture_output=True,
        text=True,
        env={**os.environ, **env},
        timeout=HANG,
    )
    names = re.search('loaded: (.*)', done.stderr)[1].split()
    return HEAVY & set(names), done


# --- help ------------------------------------------------------------------------------------------


@pytest.mark.parametrize('name', ['', *VERBS])
def test_help_fits_a_terminal_of_80_columns(name):
    """No line is longer, those of the examples included."""
    shown = call(*filter(None, [name]), '-h')
    assert not [line for line in shown.stdout.splitlines() if len(line) > 80]


def test_help_lists_every_verb():
    """``hadrosaur -h`` names each verb with its sentence, and begins with worked examples."""
    for option in ('-h', '--help'):
        shown = call(option)

        assert shown.exit_code == 0
        for name, verb in VERBS.items():
            assert re.search(rf'^  {name} +{re.escape(verb.sentence)}$', shown.output, re.MULTILINE)
        for words in ('status base', '--status error', 'logs base', 'retry jobs:proj'):
            assert words in shown.output


@pytest.mark.parametrize('name', VERBS)
def test_each_verb_explains_itself(name):
    """One sentence, the same as in the list of verbs, and worked examples."""
    verb = app.get_command(None, name)
    shown = call(name, '-h')

    assert shown.exit_code == 0
    assert verb.help.split('\n\n')[0] == VERBS[name].sentence
    assert re.search(rf'Examples:\n.*hadrosaur {name} ', shown.output, re.DOTALL)
    assert shown.output == call(name, '--help').output


def test_version(tmp_path):
    """``--version``, and ``python -m hadrosaur``."""
    assert call('--version').output == f'hadrosaur {hadrosaur.__version__}\n'
    assert hadro('--version', cwd=tmp_path).stdout == f'hadrosaur {hadrosaur.__version__}\n'


def test_misspelt_verb():
    """A verb that does not exist is answered with the nearest one."""
    shown = call('stauts', 'base')

    assert shown.exit_code == 2
    assert "did you mean 'status'?" in shown.stderr


# --- start-up --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    'args',
    [
        ['--help'],
        ['--version'],
        ['run', '--help'],
        ['query', '-h'],
        ['completion', 'bash'],
        ['show', 'base', 'books', 'emma'],
        ['logs', 'base', 'books', 'emma'],
        ['explain', 'base', 'books', 'emma'],
    ],
    ids=' '.join,
)
def test_light_verbs_load_nothing_heavy(args, base):
    """What needs neither the index nor a table loads neither SQLAlchemy nor rich."""
    loaded, done = loaded_by(*args, cwd=base.parent)

    assert done.returncode == 0
    assert not loaded


@pytest.mark.parametrize(
    ('words', 'offered'),
    [
        ('hadrosaur sta', 'status'),
        ('hadrosaur query base bo', 'books'),
        ('hadrosaur show base books mo', 'moby-dick'),
        ('hadrosaur query base --status err', 'error'),
        ('hadrosaur logs base books emma --std', '--stderr'),
    ],
)
def test_completion_of_words(words, offered, base):
    """Verbs, options, statuses, collections and idents are completed without opening the index."""
    before = sorted(base.rglob('*'))
    loaded, done = loaded_by(
        cwd=base.parent,
        _HADROSAUR_COMPLETE='bash_complete',
        COMP_WORDS=words,
        COMP_CWORD=str(len(words.split()) - 1),
    )

    assert f'plain,{offered}' in done.stdout.splitlines()
    assert not loaded
    assert before == sorted(base.rglob('*'))


def test_completion_leaves_out_what_cannot_be_typed(base):
    """An ident with control characters is not offered; a BASE that is none offers nothing."""
    words = 'hadrosaur show base books '
    env = {'_HADROSAUR_COMPLETE': 'zsh_complete', 'COMP_WORDS': words, 'COMP_CWORD': '4'}
    _, done = loaded_by(cwd=base.parent, **env)
    _, elsewhere = loaded_by(cwd=base, **env)

    assert 'emma' in done.stdout
    assert '\x1b' not in done.stdout
    assert elsewhere.stdout.strip() == ''


@pytest.mark.parametrize('shell', ['bash', 'zsh', 'fish'])
def test_completion_scripts(shell):
    """``completion`` prints the script of that shell."""
    shown = call('completion', shell)

    assert shown.exit_code == 0
    assert '_HADROSAUR_COMPLETE' in shown.output
    assert 'hadrosaur' in shown.output


def test_a_pipe_gets_no_rich(base):
    """A table in a pipe is written without loading rich, which would cost more than writing it."""
    for verb, needed in ('status', set()), ('query', {'sqlalchemy'}), ('errors', set()):
        loaded, done = loaded_by(verb, 'base', cwd=base.parent)

        assert done.returncode == 0
        assert loaded == needed


# --- exit codes and messages -----------------------------------------------------------------------


@pytest.mark.parametrize(
    ('args', 'code', 'words'),
    [
        ('status nowhere', 3, "'nowhere' does not exist"),
        ('status empty', 3, 'holds no hadrosaur project'),
        ('query nowhere', 3, 'does not exist'),
        ('show nowhere books emma', 3, 'does not exist'),
        ('logs nowhere books emma', 3, 'does not exist'),
        ('errors nowhere', 3, 'does not exist'),
        ('check nowhere', 3, 'does not exist'),
        ('reindex nowhere', 3, 'does not exist'),
        ('rm nowhere books emma', 3, 'does not exist'),
        ('explain nowhere books emma', 3, 'does not exist'),
        ('sql nowhere x', 3, 'does not exist'),
        ('status base boks', 3, "did you mean 'books'?"),
        ('query base boks', 3, "did you mean 'books'?"),
        ('errors base boks', 3, "did you mean 'books'?"),
        ('reindex base boks', 3, "did you mean 'books'?"),
        ('show base books ema', 3, 'never asked for'),
        ('logs base books ema', 3, 'never asked for'),
        ('status', 2, "Missing argument 'BASE'"),
        ('query base --status failed', 2, "'failed' is not one of"),
        ('query base --order-by size', 2, "unknown column 'size'"),
        ('query base --since yesterday', 2, "'yesterday' is no time"),
        ('query base --min-duration 5y', 2, "'5y' is no duration"),
        ('query base --args year', 2, "'year' is no KEY=VALUE"),
        ('query base --limit -1', 2, '--limit'),
        ('explain base books emma --args {', 2, 'is not JSON'),
        ('explain base books emma --args [1]', 2, 'no JSON object'),
        ('status base --watch --json', 2, '--watch'),
        ('rm base books', 2, 'which ones?'),
        ('sql base selekt', 2, 'SQLite refuses'),
    ],
)
def test_exit_codes(args, code, words, base, monkeypatch):
    """A user's mistake is answered by a sentence on stderr and an exit code, with nothing on stdout."""
    monkeypatch.chdir(base.parent)
    (base.parent / 'empty').mkdir()
    shown = call(*args.split())

    assert code == shown.exit_code, shown.stderr
    assert words in shown.stderr
    assert shown.stdout == ''
    assert 'Traceback' not in shown.stderr


@pytest.mark.parametrize(
    'verb', ['status', 'query', 'errors', 'check', 'sql', 'show', 'logs', 'explain', 'rm']
)
def test_verbs_make_no_project(verb, tmp_path):
    """A directory without a project is left as it is."""
    more = {'sql': ['select 1'], 'rm': ['books', 'x']}.get(
        verb, ['books', 'x'] if verb in ('show', 'logs', 'explain') else []
    )
    shown = call(verb, tmp_path, *more)

    assert shown.exit_code == 3
    assert list(tmp_path.iterdir()) == []


def test_an_index_that_is_not_ours(tmp_path):
    """Exit code 5, the reason, and the command that helps; the file is left as it is."""
    base = stocked(tmp_path / 'base')
    for path in base.glob('index.sqlite3*'):
        path.unlink()
    with sqlite3.connect(base / 'index.sqlite3') as other:
        other.execute('create table other (x)')
    other.close()
    shown = call('status', base)

    assert shown.exit_code == 5
    assert 'reindex' in shown.stderr
    assert 'Traceback' not in shown.stderr


@pytest.mark.parametrize(
    ('fault', 'code'),
    [
        (PermissionError(13, 'Permission denied', 'base/books'), 5),
        (OSError(28, 'No space left on device'), 5),
        (hadrosaur.IndexBusy('locked'), 5),
        (hadrosaur.UnknownCollection('none'), 3),
        (hadrosaur.UnknownExecutor('none'), 2),
        (KeyboardInterrupt(), 130),
        (BrokenPipeError(), 141),
    ],
    ids=lambda value: type(value).__name__,
)
def test_faults_become_exit_codes(fault, code, capfd):
    """Each kind of fault has its exit code."""

    def verb():
        raise fault

    assert code == exit_codes.exit_code_of(verb)
    assert 'Traceback' not in capfd.readouterr().err


def test_a_bug_of_ours_is_not_hidden():
    """Only what we know is turned into a sentence."""
    with pytest.raises(ZeroDivisionError):
        exit_codes.exit_code_of(lambda: 1 // 0)


def test_messages_are_escaped(base):
    """A hostile name does not reach the terminal as it is."""
    shown = call('show', base, 'books', HOSTILE + 'x')

    assert shown.exit_code == 3
    assert '\x1b' not in shown.stderr
    assert '\\x1b[31m' in shown.stderr


def test_warnings_are_one_line_each(capfd):
    """Ours come without their place in the code, and not by the million; others are left alone."""

    def verb():
        for number in range(exit_codes.MOST_WARNINGS + 5):
            warnings.warn(hadrosaur.HadrosaurWarning(f'{number}: {HOSTILE}'), stacklevel=1)

    with warnings.catch_warnings():
        warnings.resetwarnings()
        exit_codes.exit_code_of(verb)
    lines = capfd.readouterr().err.splitlines()

    assert lines[0].startswith('Warning: 0: a\\x1b[31mb')
    assert len(lines) == exit_codes.MOST_WARNINGS + 1
    assert 'further warnings of this kind' in lines[-1]


@pytest.fixture(scope='module')
def much(tmp_path_factory):
    """A base whose rows fill a pipe."""
    base = tmp_path_factory.mktemp('much') / 'base'
    with hadrosaur.Project(base) as project:
        project.resource('books')(lambda ident, args, subdir: None)
        project.fetch_many('books', (f'{number:0200}' for number in range(600)), executor='inline').wait()
    return base


@pytest.mark.parametrize('form', [[], ['--json'], ['--csv'], ['--idents']], ids=str)
def test_broken_pipe_is_quiet(form, much):
    """``| head -1`` ends it without a word."""
    process = subprocess.Popen(
        command('query', much, *form),
        env=BUFFERED,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    process.stdout.readline()
    process.stdout.close()
    said = process.stderr.read()
    process.stderr.close()

    assert process.wait(timeout=HANG) == 128 + signal.SIGPIPE
    assert said == b''


def test_broken_pipe_at_the_end_is_quiet(base):
    """Few bytes stay in the buffer until the end, where nobody may be left to read them."""
    reader, writer = os.pipe()
    os.close(reader)
    done = subprocess.run(
        command('status', 'base'),
        cwd=base.parent,
        env=BUFFERED,
        stdout=writer,
        stderr=subprocess.PIPE,
        timeout=HANG,
    )
    os.close(writer)

    assert done.returncode == 128 + signal.SIGPIPE
    assert done.stderr == b''


def test_closed_standard_output(base):
    """A daemon may have no stdout at all."""
    done = subprocess.run(
        ['sh', '-c', 'exec "$@" >&-', 'sh', *command('status', 'base')],
        cwd=base.parent,
        capture_output=True,
        timeout=HANG,
    )

    assert done.returncode == 0
    assert done.stderr == b''


def test_a_terminal_that_knows_only_ascii(base):
    """Other characters are shown as escapes, and JSON stays JSON."""
    env = {**os.environ, 'PYTHONIOENCODING': 'ascii'}
    shown = hadro('sql', 'base', "select 'naïve ☃' as word", cwd=base.parent, env=env)
    listed = hadro('sql', 'base', "select 'naïve ☃' as word", '--json', cwd=base.parent, env=env)

    assert shown.stdout == 'word\nna\\xefve \\u2603\n'
    assert '"na\\u00efve \\u2603"' in listed.stdout
