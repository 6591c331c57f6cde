"""What CONTRIBUTING.md and docs/stability.md name is there, and CI runs what they say."""

import re
import shutil
import subprocess
import tomllib

import pytest
from conftest import HANG, ROOT

import hadrosaur

ARCHITECTURE = (ROOT / 'CONTRIBUTING.md').read_text('utf-8')
STABILITY = (ROOT / 'docs/stability.md').read_text('utf-8')


def test_files_that_the_architecture_page_names_are_there():
    """Below the checkout, or below the package."""
    named = set(re.findall(r'`([\w./-]+(?:/|\.py|\.md|\.toml|\.txt))`', ARCHITECTURE))
    assert len(named) > 40
    missing = [
        name for name in sorted(named) if not ((ROOT / name).exists() or (ROOT / 'hadrosaur' / name).exists())
    ]
    assert set(missing) <= {'storage/', '.hadrosaur/'}  # of a base


def test_names_that_the_architecture_page_names_are_there():
    """Functions and classes that answer "where is …?" are defined somewhere in the package."""
    code = '\n'.join(path.read_text('utf-8') for path in (ROOT / 'hadrosaur').rglob('*.py'))
    questions = ARCHITECTURE[ARCHITECTURE.index('### Where is') : ARCHITECTURE.index('### Life of a run')]
    names = [name for text in re.findall(r'`([\w./]+)`', questions) for name in re.split(r'[./]', text)]
    files = {path.stem for path in (ROOT / 'hadrosaur').rglob('*')} | {'py', '', '__init__'}
    missing = [
        name
        for name in dict.fromkeys(names)
        if name not in files and not re.search(rf'(?:def|class) {name}\b|^{name}\b', code, re.MULTILINE)
    ]
    assert not [name for name in missing if name not in {'e', 'g'}]


def test_what_is_stable_is_there():
    """The views and columns that docs/stability.md names are those of the schema."""
    sql = (ROOT / 'docs/sql.md').read_text('utf-8')
    for name in re.findall(r'^CREATE VIEW (\w+) ', sql, re.MULTILINE):
        assert f'`{name}`' in STABILITY
    for name in ('session', 'changed', 'seen_mtime_ns'):
        assert re.search(rf'^    {name} ', sql, re.MULTILINE)
    assert 'import *' in STABILITY
    assert set(hadrosaur.__all__) <= set(dir(hadrosaur))


@pytest.mark.skipif(shutil.which('make') is None, reason='needs make')
def test_ci_says_on_which_interpreters_the_tests_ran(tmp_path):
    """`.ci/run` tests on each other Python that is here; where there is none, it only says so."""
    for name in ('make', 'python3.13'):
        (tmp_path / name).write_text('#!/bin/sh\n[ "$1" = -c ] || echo "$@"\n')
        (tmp_path / name).chmod(0o755)
    (tmp_path / 'python3.12').write_text('#!/bin/sh\nexit 1\n')
    (tmp_path / 'python3.12').chmod(0o755)
    done = subprocess.run(
        ['bash', str(ROOT / '.ci/run')],
        env={'PATH': f'{tmp_path}:/usr/bin:/bin'},
        capture_output=True,
        text=True,
        timeout=HANG,
    )
    assert done.stdout.splitlines() == [
        'lint',
        'test LONG=1',
        'test',
        'test PYTHON=python3.13 VENV=.venv-python3.13',
        'the tests ran on python3.11, python3.13; not installed here: python3.12',
    ]


def test_floors_of_the_dependencies_can_be_installed_as_pins():
    """`make test OLDEST=1` turns ``>=`` into ``==``, so each dependency names its oldest release alone."""
    dependencies = tomllib.loads((ROOT / 'pyproject.toml').read_text('utf-8'))['project']['dependencies']
    assert all(re.fullmatch(r'[a-z]+>=[\d.]+', each) for each in dependencies)
