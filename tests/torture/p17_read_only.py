"""P17: a store that is read-only or full can be read: what is completed, rows, logs and counts answer."""

import contextlib
import json
import os
import shutil
import subprocess
import sys
import textwrap
import warnings
from pathlib import Path

import pytest
from harness import IS_FULL, count, load_everything
from hostile import _cli
from tally import Tally, Victim

from hadrosaur import HadrosaurError, Project

TIMES = count(3, quick=1)
NOBODY = 65534
IS_ROOT = os.geteuid() == 0

MAKE = """
    import os, sys
    from hadrosaur import Project

    proj = Project('base')

    @proj.resource('coll')
    def compute(ident, args, subdir):
        print('said by', ident)
        if ident == 'bad':
            raise ValueError('a reason')
        if ident == 'cut':
            os._exit(0)
        return {'ident': ident, 'long': 'x' * (200_000 if ident == 'long' else 1)}

    for ident in ('done', 'long', 'bad'):
        proj.fetch('coll', ident, {'a': 1})
    if sys.argv[1] == 'wal':
        proj.fetch('coll', 'cut')
    proj.close()
"""
INDEXES = ['closed', 'wal', 'wal without shm', 'none', 'damaged', 'old']


def make(folder, kind):
    """A base, and what became of its index."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / 'make.py').write_text(textwrap.dedent(MAKE))
    died = 'wal' if kind.startswith('wal') else 'no'
    subprocess.run([sys.executable, 'make.py', died], cwd=folder, check=True, timeout=300)
    index = folder / 'base/index.sqlite3'
    if kind == 'wal without shm':
        index.with_name('index.sqlite3-shm').unlink()
    elif kind == 'none':
        index.unlink()
    elif kind == 'damaged':
        index.write_bytes(b'damaged' * 1000)
    elif kind == 'old':  # a database that was not left in WAL mode
        import sqlite3

        database = sqlite3.connect(index)
        database.execute('PRAGMA journal_mode = DELETE')
        database.close()
    if died == 'wal':
        assert (folder / 'base/index.sqlite3-wal').exists()


def no_more(*_):
    raise AssertionError('it is computed again')


def look(folder, user=None):
    """In a victim: everything that only reads; what is wrong is raised."""
    os.chdir(folder)
    if user is not None:
        os.setgroups([])
        os.setgid(user)
        os.setuid(user)
    warnings.resetwarnings()
    warnings.simplefilter('ignore')
    with Project('base') as proj:
        proj.resource('coll')(no_more)
        done = proj.fetch('coll', 'done')
        assert done.status == 'completed', done
        assert done.result == {'ident': 'done', 'long': 'x'}, done
        assert done.args == {'a': 1}
        assert proj.fetch('coll', 'long', wait=True).result['long'] == 'x' * 200_000
        assert [res.status for res in proj.fetch_many('coll', ['done', 'long'], executor='inline')] == [
            'completed'
        ] * 2
        assert Path(done.paths['stdout']).read_text() == 'said by done\n'
        assert proj.get('coll', 'bad').status == 'error'
        assert 'a reason' in proj.get('coll', 'bad').error
    with Project('base', create=False) as proj:
        rows = {row.ident: row.status for row in proj.query('coll')}
        assert rows.items() >= {'done': 'completed', 'long': 'completed', 'bad': 'error'}.items(), rows
        assert rows.get('cut', 'error') == 'error', rows
        assert proj.stats()['coll']['completed'] == 2
        (group,) = [group for group in proj.error_groups() if group.type == 'ValueError']
        assert group.count == 1
        assert proj.sql("select count(*) as n from resources where status = 'completed'") == [{'n': 2}]
        assert proj.explain('coll', 'done')
        assert proj.check(deep=False) is not None
    return 0


LOOKS = {
    'status': (('status', '{base}'), '2'),
    'query': (('query', '{base}', '--json'), '"done"'),
    'show': (('show', '{base}', 'coll', 'done'), 'completed'),
    'logs': (('logs', '{base}', 'coll', 'done'), 'said by done'),
    'errors': (('errors', '{base}'), 'a reason'),
    'logs --error': (('logs', '{base}', 'coll', 'bad', '--error'), 'a reason'),
    'sql': (('sql', '{base}', 'select ident from resources'), 'done'),
    'explain': (('explain', '{base}', 'coll', 'done'), ''),
    'db current': (('db', 'current', '{base}'), ''),
    'check': (('check', '{base}'), None),
}


def run(folder, words, user):
    """In a victim: a reading verb of the command line."""
    os.chdir(folder)
    if user is not None:
        os.setgroups([])
        os.setgid(user)
        os.setuid(user)
    warnings.resetwarnings()
    try:
        _cli(*words)('base')
    except HadrosaurError as error:
        print(error, file=sys.stderr)
        return error.exit_code
    return 0


def attack(tally, folder, where, said, user=None):
    """Everything that reads, on a store that cannot be written."""
    said.mkdir(exist_ok=True)
    for name in ['Python', *LOOKS]:
        tally.fault(where.partition(':')[0])
        words, wanted = LOOKS.get(name, (None, None))
        victim = Victim(said, lambda words=words: run(folder, words, user) if words else look(folder, user))
        victim.wait()
        out, err = victim.said()
        what = f'{where}: {name}'
        allowed = {'check': (0, 4), 'db current': (0, 5) if 'damaged' in where else (0,)}.get(name, (0,))
        if victim.code == 'hang':
            tally.wrong('it hangs', what)
        elif 'Traceback' in err or victim.code not in allowed:
            tally.wrong('it does not answer', f'{what}: {victim.code}\n{err[-1000:]}')
        elif wanted is not None and wanted not in out:
            tally.wrong('another answer', f'{what}: {out[:300]} {err[:300]}')


@contextlib.contextmanager
def mounted(place, *options):
    """A tmpfs, for root alone."""
    place.mkdir(parents=True, exist_ok=True)
    done = subprocess.run(
        ['mount', '-t', 'tmpfs', *options, 'none', str(place)], capture_output=True, text=True
    )
    if done.returncode:
        pytest.skip(f'a file system cannot be mounted here: {done.stderr.strip()}')
    try:
        yield
    finally:
        subprocess.run(['umount', '-l', str(place)], check=True)


def fill(place):
    """Not one byte is free, and no name can be made."""
    with contextlib.suppress(OSError), open(place / 'filler', 'wb', buffering=0) as file:
        for size in (1 << 20, 4096, 1):
            with contextlib.suppress(OSError):
                while True:
                    file.write(b'x' * size)


@pytest.fixture(scope='module', autouse=True)
def _loaded():
    load_everything()


@pytest.mark.parametrize('kind', INDEXES if IS_FULL else INDEXES[2:3])
@pytest.mark.skipif(not IS_ROOT, reason='mounts are for root')
def test_a_read_only_mount(kind, tmp_path, record):
    """Mounted read-only, with and without an index, with the -wal of a program that was killed."""
    tally = Tally('P17')
    for _ in range(TIMES):
        place = tmp_path / 'mount'
        with mounted(place):
            make(place, kind)
            subprocess.run(['mount', '-o', 'remount,ro', str(place)], check=True)
            attack(tally, place, f'read-only mount: {kind}', tmp_path / 'said')
    tally.end(record)


@pytest.mark.parametrize('kind', INDEXES if IS_FULL else INDEXES[2:3])
@pytest.mark.skipif(not IS_ROOT, reason='mounts are for root')
def test_a_full_store(kind, tmp_path, record):
    """0 bytes free where the base is, and none where temporary files go."""
    tally = Tally('P17')
    for turn in range(TIMES):
        place = tmp_path / 'mount'
        with mounted(place, '-o', 'size=6m'):
            make(place, kind)
            fill(place)
            (place / 'tmp').mkdir()
            kept = {name: os.environ.get(name) for name in ('TMPDIR', 'SQLITE_TMPDIR')}
            import tempfile

            if turn % 2 == 0:
                os.environ.update(TMPDIR=str(place / 'tmp'), SQLITE_TMPDIR=str(place / 'tmp'))
                tempfile.tempdir = str(place / 'tmp')
            try:
                attack(tally, place, f'full store: {kind}', tmp_path / 'said')
            finally:
                tempfile.tempdir = None
                for name, value in kept.items():
                    os.environ.pop(name, None)
                    if value is not None:
                        os.environ[name] = value
    tally.end(record)


@pytest.mark.parametrize('kind', INDEXES if IS_FULL else INDEXES[2:3])
def test_folders_of_somebody_else(kind, tmp_path_factory, record):
    """Permissions alone: a base whose folders and files may only be read."""
    tally = Tally('P17')
    for _ in range(TIMES):
        place = Path(f'/tmp/hadrosaur-p17-{os.getpid()}')  # where another user may pass
        shutil.rmtree(place, ignore_errors=True)
        try:
            make(place, kind)
            for path in [place, *place.rglob('*')]:
                path.chmod(0o555 if path.is_dir() else 0o444)
            said = tmp_path_factory.mktemp('said')
            attack(tally, place, f'permissions: {kind}', said, NOBODY if IS_ROOT else None)
        finally:
            for path in [place, *place.rglob('*')]:
                with contextlib.suppress(OSError):
                    path.chmod(0o755)
            shutil.rmtree(place, ignore_errors=True)
    tally.end(record)


def test_that_they_would_write(tmp_path, record):
    """What has to compute there says in one sentence that it cannot."""
    if not (IS_ROOT and IS_FULL):
        pytest.skip('mounts are for root, and it takes long')
    tally = Tally('P17')
    place = tmp_path / 'mount'
    with mounted(place):
        make(place, 'closed')
        (place / 'jobs.py').write_text(
            "from hadrosaur import Project\nproj = Project('base')\n"
            "proj.resource('coll')(lambda ident, args, subdir: ident)\n"
        )
        subprocess.run(['mount', '-o', 'remount,ro', str(place)], check=True)
        for words in [
            ('run', 'jobs.py:proj', 'coll', 'new'),
            ('run', 'jobs.py:proj', 'coll', 'done', '--recompute'),
            ('retry', 'jobs.py:proj', 'coll'),
            ('rm', 'base', 'coll', 'done'),
            ('reindex', 'base'),
            ('reindex', 'base', '--fresh'),
            ('check', 'base', '--fix'),
            ('db', 'upgrade', 'base'),
            ('cancel', 'base', 'coll'),
        ]:
            done = subprocess.run(
                [sys.executable, '-m', 'hadrosaur', *words],
                cwd=place,
                capture_output=True,
                text=True,
                timeout=300,
            )
            tally.fault('writing verb')
            if 'Traceback' in done.stderr:
                tally.wrong('a traceback', f'{words}: {done.stderr[-900:]}')
            elif done.returncode not in (0, 1, 3, 4, 5) or (done.returncode == 5 and not done.stderr.strip()):
                tally.wrong('no clear word', f'{words}: {done.returncode} {json.dumps(done.stderr[-300:])}')
        with Project(place / 'base', create=False) as proj:
            assert proj.get('coll', 'done').result == {'ident': 'done', 'long': 'x'}
    tally.end(record)
