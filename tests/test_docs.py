"""The pages in docs/: what they show runs, where the tool is installed."""

import re
import shlex
import shutil
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner
from conftest import HANG, ROOT

from hadrosaur import Project
from hadrosaur.cli import app

SQL = (ROOT / 'docs/sql.md').read_text('utf-8')
EVERYDAY = (ROOT / 'docs/howto/everyday.md').read_text('utf-8')
DASK = (ROOT / 'docs/howto/dask.md').read_text('utf-8')


def blocks(page, language):
    """The code blocks of a language on a page."""
    return re.findall(rf'^```{language}\n(.*?)^```$', page, re.MULTILINE | re.DOTALL)


@pytest.fixture(scope='module')
def example(tmp_path_factory):
    """A folder with a base_directory that has completed, failed and timed resources."""
    folder = tmp_path_factory.mktemp('docs')
    with Project(folder / 'base_directory') as proj:

        @proj.resource('collection_name')
        def compute(ident, args, subdir):
            if ident == 'bad':
                raise ValueError(ident)
            return ident

        for ident in ('good', 'bad', 'other'):
            proj.fetch('collection_name', ident, {'a': 1})
    return folder


def test_schema_is_that_of_a_live_index(example):
    """docs/sql.md shows the whole schema, word for word as the index has it."""
    with sqlite3.connect(example / 'base_directory/index.sqlite3') as database:
        made = database.execute(
            "SELECT name, sql FROM sqlite_master WHERE sql IS NOT NULL AND tbl_name != 'alembic_version' "
            "ORDER BY type = 'index', rowid"
        ).fetchall()

    assert blocks(SQL, 'sql') == [''.join(f'{sql};\n' for _, sql in made)]


COMMANDS = [line for block in blocks(EVERYDAY, 'sh') for line in block.splitlines()]


@pytest.mark.parametrize('line', COMMANDS)
def test_everyday_commands_exist(line):
    """Each verb is there and takes each option."""
    for command in line.partition('#')[0].split('|'):
        _, verb, *words = shlex.split(command)
        said = CliRunner().invoke(app, [verb, '--help'])
        assert said.exit_code == 0, said.output
        for word in words:
            assert not word.startswith('--') or f'{word} ' in said.output, word


def test_everyday_python_runs(tmp_path, monkeypatch):
    """What is shown of another version does what is said."""
    monkeypatch.chdir(tmp_path)
    with Project('base_directory') as proj:
        proj.resource('collection_name', version='1')(lambda ident, args, subdir: 'old')
        proj.fetch('collection_name', 'IDENT')
    shown = {}
    exec('\n'.join(blocks(EVERYDAY, 'python')), shown)
    with shown['proj'] as proj:
        proj.fetch_many('collection_name', proj.query('collection_name', stale=True), recompute=True).wait()
        assert proj.fetch('collection_name', 'IDENT')['result'] == 5


LINES = [line for block in blocks(SQL, 'sh') for line in block.splitlines() if line]


@pytest.mark.parametrize('line', LINES)
def test_sql_recipes_run(example, line):
    """Each shell recipe works on a live index; tools that are not installed are skipped."""
    words = shlex.split(line)
    beside = Path(sys.executable).parent / words[0]  # installed in this environment
    words[0] = str(beside) if beside.exists() else words[0]
    if shutil.which(words[0]) is None:
        pytest.skip(f'{words[0]} is not installed')
    if 'datasette' in words[0]:
        words += ['--get', '/index/errors.json?_shape=array']  # one request instead of a server
    done = subprocess.run(words, cwd=example, capture_output=True, text=True, timeout=HANG)

    assert (done.returncode, done.stderr) == (0, '')
    assert done.stdout.strip() or 'from running' in line


def test_pandas_recipe_runs(example, monkeypatch):
    """The pandas recipe gives a frame of all rows."""
    pytest.importorskip('pandas')
    [recipe] = blocks(SQL, 'python')
    monkeypatch.chdir(example)
    names = {}
    exec(compile(recipe, 'docs/sql.md', 'exec'), names)

    assert len(names['frame']) == 3


def test_dask_page_shows_what_the_api_takes():
    """The page's Python is valid, and its calls are those of the contract test."""
    for recipe in blocks(DASK, 'python') + blocks(DASK, 'python no-run'):
        compile(recipe, 'docs/howto/dask.md', 'exec')

    assert "executor='dask:tcp://" in DASK
