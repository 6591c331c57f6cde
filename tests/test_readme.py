"""What the README shows runs, and what it names exists."""

import re
import shlex
import subprocess
import sys

import pytest
from conftest import HANG, ROOT

README = (ROOT / 'README.md').read_text('utf-8')


def blocks(language):
    """The README's code blocks of a language, in order."""
    return re.findall(rf'^```{language}\n(.*?)^```$', README, re.MULTILINE | re.DOTALL)


@pytest.fixture(scope='module')
def tutorial(tmp_path_factory):
    """The folder in which all Python blocks were run, one after the other, as one program."""
    folder = tmp_path_factory.mktemp('readme')
    program = '\n'.join(blocks('python')) + '\nproj.close()\n'
    (folder / 'tutorial.py').write_text(program, 'utf-8')
    done = subprocess.run(
        [sys.executable, '-W', 'error', 'tutorial.py'],
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=HANG,
    )
    assert done.returncode == 0, done.stderr
    return folder


def test_python_blocks_run_as_one_program(tutorial):
    """The tutorial leaves the folders that it speaks of."""
    assert len(blocks('python')) >= 6
    folder = tutorial / 'base_directory/collection_name/uniq_ident123'
    assert (folder / 'storage/notes.txt').read_text() == 'files of your own'
    assert {path.name for path in folder.iterdir()} == {
        'status.json', 'result.json', 'stdout.log', 'stderr.log', 'storage', 'record.json',
    }  # fmt: skip


COMMANDS = [
    line.partition('#')[0].strip()
    for block in blocks('sh')
    for line in block.splitlines()
    if line.startswith(('hadrosaur ', 'sqlite3 '))
]


@pytest.mark.parametrize('command', [line for line in COMMANDS if 'module:proj' not in line])
def test_shell_lines_run_on_the_tutorial(tutorial, command):
    """Each hadrosaur and sqlite3 line does what it says on the tutorial's output."""
    words = shlex.split(command)
    if words[0] == 'hadrosaur':
        words[:1] = [sys.executable, '-m', 'hadrosaur']
    done = subprocess.run(words, cwd=tutorial, capture_output=True, text=True, timeout=HANG)

    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() or 'agree' in done.stderr


def test_the_first_session_gives_what_it_shows(tmp_path):
    """The lines after `>>>` print what stands below them."""
    command = [sys.executable, '-W', 'error', '-m', 'doctest', str(ROOT / 'README.md')]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=HANG)

    assert (done.returncode, done.stdout, done.stderr) == (0, '', '')
    assert README.count('>>> ') >= 6
    assert README.index('pip install') < README.index('>>> ') < README.index('## ')


def test_the_two_commands_of_a_checkout():
    """`make demo` and `make test` are the first two that it names, and there are such."""
    first = [
        line.split()[:2] for block in blocks('sh') for line in block.splitlines() if line.startswith('make')
    ]
    makefile = (ROOT / 'Makefile').read_text()

    assert first == [['make', 'demo'], ['make', 'test']]
    assert re.search(r'^demo:', makefile, re.MULTILINE)
    assert re.search(r'^test:', makefile, re.MULTILINE)


@pytest.mark.parametrize('page', ['CONTRIBUTING.md', 'CHANGELOG.md', 'LICENSE', 'hadrosaur/py.typed'])
def test_pages_that_a_project_needs(page):
    """The pages that the README and the package's metadata name are there."""
    assert (ROOT / page).exists()


def test_every_file_of_a_folder_is_explained():
    """README and the constants of directory.py name the same files."""
    from hadrosaur import directory

    for name in set(directory.FILES) - {directory.LOCK}:
        assert f'`{name}`' in README


@pytest.mark.parametrize('link', re.findall(r'\]\((?!http)([^)]+)\)', README))
def test_links_lead_somewhere(link):
    """Links to files of the project are not broken."""
    assert (ROOT / link.partition('#')[0]).exists()
