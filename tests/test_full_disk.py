"""A full disk: what cannot be written is told where it can be; with space, the index catches up."""

import collections
import os
import shutil
import subprocess
import sys
import textwrap

import pytest

from hadrosaur import Project

SPACE = 'No space left on device'
ERRORS = 'ignore:.*(could not be |left un)written:hadrosaur.HadrosaurWarning'


@pytest.fixture
def disk(tmp_path):
    """A file system of three megabytes, where root may mount one."""
    place = tmp_path / 'disk'
    place.mkdir()
    mount = ['mount', '-t', 'tmpfs', '-o', 'size=3m', 'tmpfs', str(place)]
    if os.geteuid() != 0 or shutil.which('mount') is None or subprocess.run(mount, check=False).returncode:
        pytest.skip('only root can mount a small file system')
    yield place
    subprocess.run(['umount', '-l', str(place)], check=True)


def fill(disk):
    """Leave no byte free."""
    with open(disk / 'ballast', 'ab', buffering=0) as ballast:
        for size in (1 << 16, 4096, 1):
            try:
                while ballast.write(bytes(size)):
                    pass
            except OSError:
                pass


def empty(disk):
    """Give the space back."""
    (disk / 'ballast').unlink()


def as_told(resources):
    """How many have which status, and what failed ones say."""
    statuses = collections.Counter(resource.status for resource in resources)
    return statuses, {resource.entry.error for resource in resources if resource.status == 'error'}


@pytest.mark.filterwarnings(ERRORS)
@pytest.mark.parametrize('executor', ['inline', 'processes'])
@pytest.mark.parametrize('when', ['before', 'in mid-batch', 'before there is an index'])
def test_what_a_full_disk_refuses_is_told_alike(disk, executor, when):
    """Counts, status, errors and the yielded resources agree; with space back, nothing is left to mend."""
    with Project(disk / 'base') as proj:
        proj.resource('coll')(lambda ident, args, subdir: ident * args['times'])
        proj.fetch('coll', 'first', {'times': 1})
        if when == 'before there is an index':
            proj.close()
            (disk / 'base/index.sqlite3').unlink()
        if when != 'in mid-batch':
            fill(disk)
        times = 40_000 if when == 'in mid-batch' else 1
        idents = [f'{number:03}' for number in range(40)]
        batch = proj.fetch_many('coll', idents, {'times': times}, executor=executor, workers=2)
        resources = list(batch)

        statuses, errors = as_told(resources)
        assert batch.counts.total == batch.counts.completed + batch.counts.error == 40
        assert batch.counts.error == statuses['error'] > 0
        assert all(SPACE in error for error in errors)
        found = proj.stats('coll')['coll']
        assert found['pending'] == 0
        assert found['completed'] == statuses['completed'] + 1
        rows = {entry.ident: entry.error for entry in proj.query('coll', status='error')}
        told = {res.ident: res.entry.error for res in resources if res.status == 'error'}
        assert rows.items() <= told.items()
        assert sum(group.count for group in proj.error_groups()) == len(rows)

        (empty if when != 'in mid-batch' else lambda disk: shutil.rmtree(disk / 'base/coll/000'))(disk)
        proj.close()
    with Project(disk / 'base', create=False) as other:
        assert other.stats('coll')['coll']['pending'] == 0
        if when != 'in mid-batch':
            assert other.check(deep=True).findings == []
            assert len(other.query(status='completed')) == statuses['completed'] + 1


@pytest.mark.long
@pytest.mark.filterwarnings(ERRORS)
def test_a_program_that_ended_on_a_full_disk(program, disk):
    """Nothing looks as if it were still to come, with a full disk and with space; the run exits with 5."""
    (disk / 'jobs.py').write_text(
        textwrap.dedent("""
        from hadrosaur import Project

        proj = Project('base')

        @proj.resource('coll')
        def compute(ident, args, subdir):
            return ident * 40_000
        """)
    )

    def hadrosaur(*args):
        command = [sys.executable, '-m', 'hadrosaur', *args]
        done = subprocess.run(command, capture_output=True, text=True, cwd=disk, timeout=300, check=False)
        return done.returncode, done.stdout, done.stderr

    code, out, err = hadrosaur('run', 'jobs:proj', 'coll', *map(str, range(100, 140)))
    assert code == 5, (out, err)
    assert SPACE in out + err
    assert err.count('could not be written:') <= 1, err
    assert 'Traceback' not in err
    for _ in ('full', 'with space'):
        code, out, err = hadrosaur('status', 'base')
        assert code == 0, err
        pending = out.splitlines()[1].split('\t')[4]
        assert pending == '0', out
        (disk / 'base/coll/100/result.json').unlink(missing_ok=True)
        for number in range(101, 110):
            shutil.rmtree(disk / f'base/coll/{number}', ignore_errors=True)
    assert not [name for name in os.listdir(disk / 'base/.hadrosaur/sessions') if name.startswith('.')]


@pytest.mark.parametrize('end', ['in the same program', 'by the next'])
def test_an_index_that_may_not_grow(program, base, end):
    """A limit on the size of files is like a full disk for the index: computing goes on, rows follow."""
    program(
        """
        import resource, signal, sqlite3, sys, warnings
        from hadrosaur import Project, row_writer

        row_writer.LAST = 0.1
        warnings.simplefilter('ignore')
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        proj = Project(sys.argv[1])
        proj.resource('coll')(lambda ident, args, subdir: ident)
        proj.fetch('coll', 'before')
        resource.setrlimit(resource.RLIMIT_FSIZE, (48 << 10, resource.RLIM_INFINITY))
        for number in range(20):
            assert proj.fetch('coll', str(number))['result'] == str(number)
        assert proj.fetch_many('coll', list('abc'), workers=1).wait().completed == 3
        assert proj.stats('coll')['coll']['completed'] == 24, proj.stats()
        if sys.argv[2] == 'in the same program':
            resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
            assert proj._store.rows.flush(60)
            with sqlite3.connect(f'{sys.argv[1]}/index.sqlite3') as index:
                [(count,)] = index.execute("SELECT count(*) FROM resources WHERE status = 'completed'")
            assert count == 24, count
        proj.close()
        """,
        base,
        end,
    )
    with Project(base, create=False) as proj:
        assert proj.stats('coll')['coll']['completed'] == 24
        assert proj.check().findings == []
