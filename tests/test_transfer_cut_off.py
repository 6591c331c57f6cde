"""An import that is killed at any file operation: nothing half is ever there, and begun again it goes on."""

import errno
import os
import shutil
import signal
from pathlib import Path

import pytest
from conftest import ROOT
from test_transfer import files
from torture.faults import Faults

from hadrosaur import HadrosaurError, Project

GROWS = ('open', 'mkdir', 'rename', 'link', 'write', 'pwrite')
CALLS = ('open', 'mkdir', 'rename', 'replace', 'unlink', 'rmdir', 'link', 'write', 'pwrite', 'utime', 'close')
IDENTS = ['one', 'two', 'three', 'x' * 300]


def grows(name, args):
    return name != 'open' or args[1] & os.O_CREAT


@pytest.fixture(scope='module')
def archive(tmp_path_factory):
    """Four resources, one failed, in a tar; and the base that they came from."""
    path = tmp_path_factory.mktemp('cut') / 'base'
    with Project(path) as proj:

        @proj.resource('coll')
        def compute(ident, args, subdir):
            Path(subdir, 'data').write_bytes(os.urandom(2000))
            return 1 / (ident != 'two')

        for ident in IDENTS:
            proj.fetch('coll', ident)
        proj.backup(path.parent / 'older')
        for ident in IDENTS[:2]:
            proj.fetch('coll', ident, recompute=True)
        proj.export(path.parent / 'all.tar')
    return path.parent / 'all.tar'


def killed_at(number, work, *, full=False):
    """Do the work in a forked child that is killed before its n-th file operation; was it?

    ``full``: instead, from that operation on there is no space.
    """
    child = os.fork()
    if not child:
        try:
            count = [0]
            for name in CALLS:
                real = getattr(os, name)

                def counted(*args, real=real, name=name, **more):
                    count[0] += 1
                    if count[0] == number and not full:
                        os.kill(os.getpid(), signal.SIGKILL)
                    if count[0] >= number and full and name in GROWS and grows(name, args):
                        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
                    return real(*args, **more)

                setattr(os, name, counted)
            work()
            os._exit(0)
        except (OSError, HadrosaurError):
            os._exit(0 if full else 1)
        except BaseException:
            import traceback

            traceback.print_exc()
        finally:
            os._exit(1)
    _, status = os.waitpid(child, 0)
    assert status in (0, signal.SIGKILL)
    return status == signal.SIGKILL


def there(path):
    """What each resource is, through every door: its folder, a fetch without computing, its row."""
    with Project(path) as proj:
        found = {}
        for entry in proj.query():
            resource = proj.get('coll', entry.ident)
            assert resource.status == entry.status == ('error' if entry.ident == 'two' else 'completed')
            found[entry.ident] = resource.result
        assert proj.check(deep=True).findings == []
        folders = os.listdir(path / 'coll') if (path / 'coll').exists() else []
        assert len([name for name in folders if (path / 'coll' / name / 'status.json').exists()]) == len(
            found
        )
    return found


def try_at(number, archive, path, way, *, full=False):
    """Kill it, look, begin again, look; False where it came to its end."""
    source = archive.parent / 'base'

    def work():
        if way == 'backup':
            with Project(source, create=False) as proj:
                proj.backup(path)
            return
        with Project(path) as proj:
            proj.import_(archive) if way == 'import' else proj.merge(source)

    shutil.rmtree(path, ignore_errors=True)
    old = {}
    if way == 'backup':  # of another time: there is something to replace
        shutil.copytree(archive.parent / 'older', path)
        old = files(path)
    was_killed = killed_at(number, work, full=full)
    before = there(path) if path.exists() else {}
    new = files(source)
    for name, what in files(path).items() if path.exists() else ():
        if name.count('/') and (path / 'coll' / name.split('/')[1] / 'status.json').exists():
            assert what in (new.get(name), old.get(name)), name
    work()
    assert set(there(path)) == set(IDENTS) >= set(before)
    assert files(path) == new
    assert os.listdir(path / '.hadrosaur/incoming') == []
    return was_killed


@pytest.mark.parametrize('way', ['import', 'merge', 'backup'])
@pytest.mark.parametrize('number', [60, 190, 250, 310])
def test_a_kill_leaves_nothing_half(archive, tmp_path, way, number):
    """A sample of the places."""
    try_at(number, archive, tmp_path / 'new', way)


@pytest.mark.parametrize('way', ['import', 'merge', 'backup'])
@pytest.mark.parametrize('number', [30, 240])
def test_a_full_disk_leaves_nothing_half(archive, tmp_path, way, number):
    """It is said, and once there is space it goes on."""
    try_at(number, archive, tmp_path / 'new', way, full=True)


@pytest.mark.long
@pytest.mark.parametrize('way', ['import', 'merge', 'backup'])
def test_a_kill_anywhere_leaves_nothing_half(archive, tmp_path, way):
    """Every fifth place, until one that is not reached any more."""
    number = 1
    while try_at(number, archive, tmp_path / 'new', way):
        number += 5
    assert number > 300


IMPORTER = """
    import sys
    from hadrosaur import Project

    with Project('base') as proj:
        proj.import_(sys.argv[1])
"""


def killed_below(archive, program, tmp_path, places):
    """Kill the process at some of its file operations, SQLite's included; look, and begin again."""
    path = os.pathsep.join([str(ROOT / 'tests'), os.environ.get('PYTHONPATH', str(ROOT))])
    base = tmp_path / 'base'
    with Faults(tmp_path, base, log_size=1 << 20) as faults:
        env = faults.environment(PYTHONPATH=path)
        faults.arm()
        program(IMPORTER, archive, env=env)
        total = faults.count
        assert total > 100
        for place in places(total):
            shutil.rmtree(base)
            faults.arm('kill', place)
            done = program(IMPORTER, archive, env=env, check=False)
            assert done.returncode in (-signal.SIGKILL, 0)
            faults.disarm()
            if base.exists():
                there(base)
            with Project(base) as proj:
                proj.import_(archive)
            assert set(there(base)) == set(IDENTS)
            assert files(base) == files(archive.parent / 'base')


def test_a_kill_below_python_leaves_nothing_half(archive, program, tmp_path):
    """Between the operations of SQLite too; a sample."""
    killed_below(archive, program, tmp_path, lambda total: [total // 3, total * 2 // 3, total - 10])


@pytest.mark.long
def test_a_kill_anywhere_below_python_leaves_nothing_half(archive, program, tmp_path):
    """Every seventh operation."""
    killed_below(archive, program, tmp_path, lambda total: range(1, total, 7))
