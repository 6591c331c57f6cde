"""What is shipped: contents of wheel and sdist."""

import subprocess
import sys
import tarfile
import zipfile

import pytest
from conftest import HANG, ROOT

pytest.importorskip('hatchling', reason='hatchling builds the package')


@pytest.fixture(scope='module')
def built(tmp_path_factory):
    """The folder with the wheel and the sdist."""
    folder = tmp_path_factory.mktemp('dist')
    command = [sys.executable, '-m', 'hatchling', 'build', '-d', str(folder)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=HANG)
    assert done.returncode == 0, done.stderr
    return folder


def test_wheel_carries_the_migrations(built):
    """The wheel is the package with its migrations, and nothing else."""
    [wheel] = built.glob('*.whl')
    names = set(zipfile.ZipFile(wheel).namelist())
    package = {name for name in names if '.dist-info/' not in name}
    sources = {path.relative_to(ROOT).as_posix() for path in (ROOT / 'hadrosaur').rglob('*.py')}
    for kind in ('html', 'css', 'js', 'svg'):  # of the page
        sources |= {path.relative_to(ROOT).as_posix() for path in (ROOT / 'hadrosaur/web').rglob(f'*.{kind}')}
    revisions = {f'hadrosaur/{path.relative_to(ROOT)}' for path in (ROOT / 'migrations').rglob('*.py')}

    assert revisions >= {'hadrosaur/migrations/env.py', 'hadrosaur/migrations/versions/0001_resources.py'}
    assert package == sources | revisions | {'hadrosaur/py.typed', 'hadrosaur/migrations/script.py.mako'}


def test_wheel_says_what_it_is(built):
    """Name, version, licence, command and extras stand in the metadata."""
    [wheel] = built.glob('*.whl')
    archive = zipfile.ZipFile(wheel)
    read = {
        name.rpartition('/')[2]: archive.read(name).decode()
        for name in archive.namelist()
        if '.dist-info/' in name
    }

    assert 'Version: 1.0.0a1\n' in read['METADATA']
    assert 'License-Expression: MIT\n' in read['METADATA']
    for extra in ('dask', 'pandas', 'polars', 'web', 'all'):
        assert f'Provides-Extra: {extra}\n' in read['METADATA']
    assert 'hadrosaur = hadrosaur.cli:main' in read['entry_points.txt']


def test_sdist_has_what_a_packager_needs(built):
    """Sources, tests, pages and the files of migrations; nothing that a run leaves behind."""
    [sdist] = built.glob('*.tar.gz')
    with tarfile.open(sdist) as archive:
        names = {name.partition('/')[2] for name in archive.getnames()}

    assert {
        'README.md',
        'LICENSE',
        'CHANGELOG.md',
        'alembic.ini',
        'pyproject.toml',
        'Makefile',
        'constraints.txt',
    } <= names
    assert {
        'hadrosaur/project/__init__.py',
        'migrations/env.py',
        'tests/conftest.py',
        'examples/source_census.py',
    } <= names
    assert not [name for name in names if '__pycache__' in name or name.startswith(('demo/', '.venv/'))]
