"""Files that a resource is computed from: recorded before the run, compared by size, time and contents."""

import json
import os
import time

import pytest

from hadrosaur import HadrosaurError, Project, StaleWarning, inputs


@pytest.fixture
def files(tmp_path):
    for name in ('one', 'two'):
        (tmp_path / f'{name}.csv').write_text(name)
        os.utime(tmp_path / f'{name}.csv', (1_000, 1_000))
    return tmp_path


def made(base, files, calls=None, **options):
    """A collection that is computed from the file of each ident."""
    proj = Project(base)

    @proj.resource('sums', inputs=lambda ident, args: [files / f'{ident}.csv'], **options)
    def sums(ident, args, subdir):
        if calls is not None:
            calls.append(ident)
        return (files / f'{ident}.csv').read_text()

    return proj


def stale(proj):
    return {row.ident: row.stale_because for row in proj.query(stale=True)}


@pytest.mark.parametrize('executor', ['inline', 'processes'])
def test_a_changed_file_makes_its_resource_stale(executor, base, files):
    """Another size, or the same size and other contents; a touch alone changes nothing."""
    with made(base, files) as proj:
        assert proj.fetch_many('sums', ['one', 'two'], executor=executor, workers=1).wait().completed == 2
        assert stale(proj) == {}
        assert proj.query('sums', ident='one')[0].inputs == [str(files / 'one.csv')]
        os.utime(files / 'one.csv', (1, 1))
        assert stale(proj) == {}
        (files / 'one.csv').write_text('uno')
        os.utime(files / 'one.csv', (2, 2))
        (files / 'two.csv').write_text('longer')
        why = {ident: f'its input {files}/{ident}.csv changed' for ident in ('one', 'two')}
        assert stale(proj) == why
        proj.reindex(fresh=True)
        assert stale(proj) == why
        assert proj.check().findings == []
        again = proj.query('sums', stale=True)
        proj.fetch_many('sums', again, recompute=True, executor=executor).wait()
        assert stale(proj) == {}
        (files / 'two.csv').unlink()
        assert stale(proj) == {'two': f'its input {files}/two.csv is gone'}
        assert proj.explain('sums', 'two').chain == ('sums/two',)


def test_what_is_written_twice_in_a_tick_of_the_clock_has_changed(base, files):
    """Of the same size and time, as on a file system that counts in ticks: its contents tell."""
    path = files / 'one.csv'
    with made(base, files, on_input_change='recompute') as proj:
        now = time.time_ns() + 3600 * 10**9  # a clock that is ahead is no better
        for word in ('uno', 'ein', 'een'):
            path.write_text(word)
            os.utime(path, ns=(now, now))
            assert proj.fetch('sums', 'one').value == word
            assert stale(proj) == {}
        path.write_text('ett')
        os.utime(path, ns=(now, now))
        assert stale(proj) == {'one': f'its input {path} changed'}


def test_contents_are_read_on_doubt_only(base, files, monkeypatch):
    """Size and time tell whether a file is the same, and its contents only where these leave a doubt."""
    with made(base, files) as proj:
        proj.fetch('sums', 'one')
        monkeypatch.setattr(inputs, '_digest', None)
        assert stale(proj) == {}
        (files / 'one.csv').write_text('much longer')
        assert stale(proj) == {'one': f'its input {files}/one.csv changed'}


@pytest.mark.parametrize(
    ('make', 'what'),
    [
        (lambda path: None, 'is not there'),
        (lambda path: path.mkdir(), 'is a folder, or no file at all'),
        (lambda path: os.mkfifo(path), 'is a folder, or no file at all'),
        (lambda path: path.symlink_to('nowhere'), 'is not there'),
    ],
    ids=['missing', 'folder', 'fifo', 'link'],
)
def test_an_input_that_is_no_file_is_one_sentence(make, what, base, files):
    """The resource ends in an error that names the file, and its function is not called."""
    calls = []
    make(files / 'none.csv')
    with made(base, files, calls) as proj:
        failed = proj.fetch('sums', 'none')
        assert failed.entry.error_type == 'InputNotFound'
        assert failed.entry.error.startswith(f'the input {files}/none.csv of sums/none {what}')
        assert calls == []
        assert proj.fetch('sums', 'one').value == 'one'


@pytest.mark.parametrize('named', [5, None, b'bytes', {'a': 1}, [5]])
def test_what_is_no_path(named, base):
    """A function that gives no paths makes its resource an error of type TypeError."""
    proj = Project(base)
    proj.resource('sums', inputs=lambda ident, args: named)(lambda ident, args, subdir: 1)
    with proj:
        assert proj.fetch('sums', 'a').entry.error_type == 'TypeError'


def test_what_cannot_be_called_is_refused(base):
    """inputs= takes a function, and says so when it is given the paths themselves."""
    with pytest.raises(ValueError, match='inputs must be a function of ident and args'):
        Project(base).resource('sums', inputs=['a.csv'])(lambda ident, args, subdir: 1)


def test_the_four_policies(base, files):
    """'keep' looks at nothing, 'warn' says it, 'error' refuses, 'recompute' computes again, once."""
    with made(base, files) as proj:
        proj.fetch('sums', 'one')
        (files / 'one.csv').write_text('changed')
        assert proj.fetch('sums', 'one').value == 'one'
    with (
        made(base, files, on_input_change='warn') as proj,
        pytest.warns(StaleWarning, match=f'sums/one is stale: its input {files}/one.csv changed'),
    ):
        assert proj.fetch('sums', 'one').value == 'one'
    with made(base, files, on_input_change='error') as proj:
        with pytest.raises(HadrosaurError, match='is stale'):
            proj.fetch('sums', 'one')
        assert proj.explain('sums', 'one')[1:4] == (
            f"it is stale (its input {files}/one.csv changed), and the collection's policy is 'error'",
            'input',
            True,
        )
    calls = []
    with made(base, files, calls, on_input_change='recompute') as proj:
        for _ in range(2):
            assert proj.fetch('sums', 'one').value == 'changed'
            assert proj.fetch_many('sums', ['one'], executor='inline').wait().completed == 1
        assert calls == ['one']


def test_other_files_than_before(base, files):
    """A fetch asks the function again: a file that is new among its inputs is a change too."""
    calls = []
    proj = Project(base)

    @proj.resource('all', inputs=lambda ident, args: files.glob('*.csv'), on_input_change='recompute')
    def every(ident, args, subdir):
        calls.append(ident)
        return sorted(path.name for path in files.glob('*.csv'))

    with proj:
        proj.fetch('all', 'a')
        proj.fetch('all', 'a')
        (files / 'three.csv').write_text('three')
        assert len(proj.fetch('all', 'a').value) == 3
        assert proj.fetch('all', 'a').value == ['one.csv', 'three.csv', 'two.csv']
        assert calls == ['a', 'a']


def test_a_change_while_it_runs_is_a_change(base, files):
    """Files are looked at before the function runs: what changes meanwhile is no longer what it was given."""
    proj = Project(base)

    @proj.resource('sums', inputs=lambda ident, args: str(files / 'one.csv'))
    def sums(ident, args, subdir):
        (files / 'one.csv').write_text('changed by itself')
        return 1

    with proj:
        proj.fetch('sums', 'a')
        assert stale(proj) == {'a': f'its input {files}/one.csv changed'}


@pytest.mark.parametrize('lines', [5, [[1, 2]], [['/x', '1', 2, 'd']], [['/x', 1, 2, 'd', 5]], {}, 'text'])
def test_inputs_that_somebody_wrote(lines, base, files):
    """What does not look like an input in an edited record is none, and nothing fails."""
    with made(base, files) as proj:
        proj.fetch('sums', 'one')
        path = base / 'sums/one/record.json'
        path.write_text(json.dumps({**json.loads(path.read_text()), 'inputs': lines}))
        proj.reindex()
        assert stale(proj) == {}
        assert proj.query('sums')[0].inputs == []
