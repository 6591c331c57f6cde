"""The command line, part 5: verbs that mend (check, reindex, rm)."""

import json
import shutil
import subprocess

import pytest
from conftest import HANG
from test_cli_tools import HOSTILE, JOBS, call, command, on_terminal, stocked, wait_for

from hadrosaur import Project


@pytest.fixture
def base(tmp_path):
    """A base with some books."""
    return stocked(tmp_path / 'base')


def idents(base):
    """All idents in the index."""
    with Project(base, create=False) as project:
        return {entry.ident for entry in project.query()}


def drop_index(base):
    """Delete the index."""
    for path in base.glob('index.sqlite3*'):
        path.unlink()


# --- check -----------------------------------------------------------------------------------------


def test_check_finds_nothing(base):
    """Exit code 0 where all agree."""
    shown = call('check', base, '--deep')

    assert shown.exit_code == 0
    assert '6 folders: index and directories agree' in shown.stderr
    assert shown.stdout == ''


def test_check_finds_and_fixes(base):
    """Exit code 4 where something is left; --fix mends it."""
    shutil.rmtree(base / 'books/emma')
    shutil.copytree(base / 'books/ulysses', base / 'books/copy')
    found, listed = call('check', base), call('check', base, '--json')
    fixed, again = call('check', base, '--fix'), call('check', base)

    assert found.exit_code == listed.exit_code == 4
    assert '--fix' in found.stderr
    problems = {(each['problem'], each['ident']) for each in json.loads(listed.stdout)['findings']}
    assert ('missing-folder', 'emma') in problems
    assert ('missing-row', 'copy') in problems
    assert 'missing-folder\tbooks\temma\tno' in found.stdout
    assert 'missing-folder\tbooks\temma\tyes' in fixed.stdout
    assert idents(base) >= {'copy', 'ulysses'}
    assert 'emma' not in idents(base)
    assert again.exit_code == 0


def test_check_deep_finds_what_was_edited(base):
    """Checksums are compared only with --deep."""
    (base / 'books/emma/result.json').write_text('{"letters": 5}\n')
    shallow, deep = call('check', base), call('check', base, '--deep', '--json')

    assert shallow.exit_code == 0
    assert deep.exit_code == 4
    assert [each['problem'] for each in json.loads(deep.stdout)['findings']] == ['checksum']


# --- reindex ---------------------------------------------------------------------------------------


def test_reindex(base):
    """After changes by hand the index agrees with the directories."""
    shutil.rmtree(base / 'books/emma')
    shown = call('reindex', base)
    again = json.loads(call('reindex', base, 'books', '--json').stdout)

    assert shown.exit_code == 0
    assert shown.stdout == '5 folders: 0 rows added, 0 updated, 1 removed\n'
    assert again == {'scanned': 5, 'added': 0, 'updated': 0, 'removed': 0, 'unreadable': []}
    assert 'emma' not in idents(base)


def test_reindex_makes_an_index(tmp_path):
    """A folder that has none gets one: one of hadrosaur 0.0.2, or an empty one."""
    old = tmp_path / 'base/books/emma'
    old.mkdir(parents=True)
    (old / 'status.json').write_text('{"completed": true, "pending": false, "error": false}')
    (old / 'result.json').write_text('{"letters": 4}')
    (tmp_path / 'empty').mkdir()

    assert call('reindex', tmp_path / 'base').exit_code == 0
    assert idents(tmp_path / 'base') == {'emma'}
    assert call('reindex', tmp_path / 'empty').exit_code == 0
    assert call('status', tmp_path / 'empty').exit_code == 0


def test_reindex_names_what_is_unreadable(base):
    """On stderr, and in the document."""
    (base / 'books/emma/record.json').write_text('no JSON')
    shown = call('reindex', base)
    listed = json.loads(call('reindex', base, '--json').stdout)

    assert 'unreadable: books/emma: ' in shown.stderr
    assert listed['unreadable'][0]['path'] == 'books/emma'


@pytest.mark.parametrize(
    ('option', 'told'),
    [
        ('--fresh', '5 folders: 5 rows added, 0 updated, 0 removed\n'),
        ('--changed-only', '5 folders: 0 rows added, 0 updated, 1 removed\n'),
    ],
)
def test_reindex_options(option, told, base):
    """A fresh index, or a quick look at what changed: the rows are those of the directories."""
    before = idents(base)
    shutil.rmtree(base / 'books/emma')
    shown = call('reindex', base, option)

    assert (shown.exit_code, shown.stdout) == (0, told), shown.stderr
    assert idents(base) == before - {'emma'}


def test_reindex_on_a_terminal(base):
    """The progress line is wiped away."""
    shown, code = on_terminal('reindex', 'base', cwd=base.parent)

    assert code == 0
    assert shown.endswith('6 folders: 0 rows added, 0 updated, 0 removed\n')


# --- rm --------------------------------------------------------------------------------------------


def test_rm(base):
    """Folder and row go; one that is not there is named, and the others go all the same."""
    shown = call('rm', base, 'books', 'emma', 'nobody', HOSTILE)

    assert shown.exit_code == 3
    assert shown.stdout.splitlines()[0] == 'deleted\temma'
    assert 'there is no books/nobody' in shown.stderr
    assert '\x1b' not in shown.output
    assert idents(base) == {'moby-dick', 'ulysses', 'bad1', 'bad2'}
    assert not (base / 'books/emma').exists()


def test_rm_takes_what_query_gives(base):
    """Idents that are no plain line come back as the same idents."""
    listed = call('query', base, 'books', '--idents').stdout
    removed = call('rm', base, 'books', '--idents-from', '-', input=listed)

    assert (removed.exit_code, removed.stderr) == (0, '')
    assert len(removed.stdout.splitlines()) == 6
    assert idents(base) == set()


def test_rm_says_what_it_would_do(base):
    """-n deletes nothing; --json is one document."""
    shown = call('rm', base, 'books', 'emma', 'nobody', '-n', '--json')

    assert json.loads(shown.stdout) == {
        'removed': ['emma'],
        'refused': [{'ident': 'nobody', 'reason': f"there is no books/nobody in '{base}'"}],
        'dry_run': True,
    }
    assert 'emma' in idents(base)


def test_rm_takes_idents_that_look_like_options(tmp_path):
    """After -- every word is an ident."""
    with Project(tmp_path / 'base') as project:
        project.resource('books')(lambda ident, args, subdir: None)
        project.fetch('books', '-rf')

    assert call('rm', tmp_path / 'base', 'books', '--', '-rf').exit_code == 0
    assert idents(tmp_path / 'base') == set()


def test_rm_refuses_what_runs(tmp_path):
    """A resource that is being computed stays."""
    (tmp_path / 'jobs.py').write_text(JOBS)
    process = subprocess.Popen(
        command('run', 'jobs:proj', 'books', 'slow', '--args', '{"until": "go"}'), cwd=tmp_path,
        stdout=subprocess.DEVNULL,
    )  # fmt: skip
    try:
        log = tmp_path / 'base/books/slow/stdout.log'
        wait_for(lambda: log.exists() and log.read_text(), 'the run')
        for options in ([], ['-n']):
            shown = call('rm', tmp_path / 'base', 'books', 'slow', *options)
            assert shown.exit_code == 2
            assert 'is being computed' in shown.stderr
        (tmp_path / 'go').touch()
        assert process.wait(timeout=HANG) == 0
    finally:
        process.kill()
        process.wait()
    assert (tmp_path / 'base/books/slow/result.json').exists()
