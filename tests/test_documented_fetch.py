"""`Project.fetch` behaves to the letter as it is documented."""

import contextlib
import json
import os
import shutil
import sqlite3
import subprocess
import sys
import warnings
from pathlib import Path

import pytest
from conftest import HANG

import hadrosaur
from hadrosaur import Project

STATUSES = {
    'completed': {'completed': True, 'pending': False, 'error': False},
    'pending': {'completed': False, 'pending': True, 'error': False},
    'error': {'completed': False, 'pending': False, 'error': True},
}


@pytest.fixture
def calls(proj):
    """A collection whose function notes each call; an ident that starts with 'bad' fails."""
    made = []

    @proj.resource('coll')
    def compute(ident, args, subdir):
        made.append((ident, args, subdir))
        print('printed', ident)
        if ident.startswith('bad'):
            raise ValueError(f'{ident} is no good')
        return {'ts': 1.0, 'args': args}

    return made


def test_documented_shape(tmp_path, monkeypatch):
    """A relative base gives the documented dict, to the letter."""
    monkeypatch.chdir(tmp_path)
    with Project('./base_directory') as proj:

        @proj.resource('collection_name')
        def compute_resource(ident, args, subdir):
            print('goes into stdout.log')
            return {'ts': 1.0}

        res = proj.fetch('collection_name', 'uniq_ident123', {'a': 1})

    expected = {
        'result': {'ts': 1.0},
        'status': {'completed': True, 'pending': False, 'error': False},
        '_paths': {
            'base': 'base_directory/collection_name/uniq_ident123',
            'error': 'base_directory/collection_name/uniq_ident123/error.log',
            'stdout': 'base_directory/collection_name/uniq_ident123/stdout.log',
            'stderr': 'base_directory/collection_name/uniq_ident123/stderr.log',
            'status': 'base_directory/collection_name/uniq_ident123/status.json',
            'result': 'base_directory/collection_name/uniq_ident123/result.json',
            'storage': 'base_directory/collection_name/uniq_ident123/storage/',
        },
    }
    assert expected == res
    assert isinstance(res, dict)
    assert expected == json.loads(json.dumps(res))
    assert list(res) == ['result', 'status', '_paths']


def test_paths_have_two_names(proj, calls):
    """``paths`` answers like ``_paths``, and is no fourth key."""
    res = proj.fetch('coll', 'one')

    assert res['paths'] is res['_paths']
    assert res.get('paths') is res['_paths']
    assert 'paths' in res
    assert len(res) == 3
    assert res.get('nothing', 7) == 7
    with pytest.raises(KeyError):
        res['nothing']


def test_paths_exist_and_survive_chdir(tmp_path, monkeypatch):
    """The base is absolute from the first moment: a later chdir changes nothing."""
    monkeypatch.chdir(tmp_path)
    with Project('base') as proj:
        proj.resource('coll')(lambda ident, args, subdir: subdir)
        (tmp_path / 'elsewhere').mkdir()
        monkeypatch.chdir(tmp_path / 'elsewhere')
        res = proj.fetch('coll', 'one')

    assert res['result'] == str(tmp_path / 'base/coll/one/storage')
    assert (tmp_path / 'base/coll/one/result.json').exists()
    assert not os.listdir(tmp_path / 'elsewhere')


def test_computed_once(proj, calls):
    """The second fetch gives the saved result, equal to the first, and does not call the function."""
    first = proj.fetch('coll', 'one', {'a': (1, 2)})
    second = proj.fetch('coll', 'one')

    assert first == second
    assert first['result']['args'] == {'a': [1, 2]}  # as JSON gives them back
    assert len(calls) == 1


def test_error_is_stored_returned_and_tried_again(proj, calls):
    """A function that raises leaves its traceback; fetch returns, and the next fetch tries again."""
    res = proj.fetch('coll', 'bad')

    assert res['result'] is None
    assert res['status'] == STATUSES['error']
    with open(res['_paths']['error']) as log:
        assert 'ValueError: bad is no good' in log.read()
    assert 'in compute' in res.error
    with open(res['_paths']['stdout']) as log:
        assert log.read() == 'printed bad\n'
    assert proj.fetch('coll', 'bad')['status'] == STATUSES['error']
    assert [call[0] for call in calls] == ['bad', 'bad']
    assert proj.query('coll')[0].attempt == 2


def test_error_log_is_empty_after_success(proj):
    """error.log is absent or empty unless the last run failed."""
    fails = [True]

    @proj.resource('coll')
    def compute(ident, args, subdir):
        if fails:
            fails.pop()
            raise ValueError('once')
        return 1

    assert proj.fetch('coll', 'one').status == 'error'
    res = proj.fetch('coll', 'one')

    assert res.status == 'completed'
    assert res.error is None
    assert os.path.getsize(res.paths['error']) == 0


def test_recompute_runs_again_in_an_empty_storage(proj):
    """``recompute=True`` runs it again; what the last run left in storage is gone."""
    seen = []

    @proj.resource('coll')
    def compute(ident, args, subdir):
        seen.append(sorted(os.listdir(subdir)))
        with open(os.path.join(subdir, f'file{len(seen)}'), 'w') as file:
            file.write('x')
        print(len(seen))
        return len(seen)

    assert proj.fetch('coll', 'one')['result'] == 1
    res = proj.fetch('coll', 'one', recompute=True)

    assert res['result'] == 2
    assert seen == [[], []]
    assert os.listdir(res.paths['storage']) == ['file2']
    with open(res.paths['stdout']) as log:
        assert log.read() == '2\n'


def test_keep_storage(proj):
    """With ``keep_storage=True`` the files of an earlier run are still there."""

    @proj.resource('coll', keep_storage=True)
    def compute(ident, args, subdir):
        names = os.listdir(subdir)
        open(os.path.join(subdir, 'kept'), 'w').close()
        return names

    proj.fetch('coll', 'one')

    assert proj.fetch('coll', 'one', recompute=True)['result'] == ['kept']


def test_int_idents_are_their_text(proj, calls):
    """An int names the same resource as its digits."""
    assert proj.fetch('coll', 12) == proj.fetch('coll', '12')
    assert [call[0] for call in calls] == ['12']


def test_stored_args_are_used_again(proj, calls):
    """Where no args are given, a retry, a recompute and a run after a hand edit repeat what was asked."""
    proj.fetch('coll', 'bad', {'a': 1})
    proj.fetch('coll', 'bad')
    proj.fetch('coll', 'one', {'b': 2})
    proj.fetch('coll', 'one', recompute=True)
    for again in (proj.fetch, lambda coll, ident: proj.fetch_many(coll, [ident], executor='inline').wait()):
        Path(proj.path, 'coll/one/status.json').unlink()
        again('coll', 'one')
    proj.fetch('coll', 'fresh')

    assert [call[1] for call in calls] == [{'a': 1}] * 2 + [{'b': 2}] * 4 + [{}]


def test_changed_args_return_the_saved_result_with_a_warning(proj, calls):
    """An ident names a resource, args do not; only args that were given are compared."""
    proj.fetch('coll', 'one', {'a': 1})
    with pytest.warns(hadrosaur.ArgsChangedWarning, match='coll/one') as caught:
        res = proj.fetch('coll', 'one', {'a': 2})

    assert res['result']['args'] == {'a': 1}
    assert caught[0].filename == __file__
    with warnings.catch_warnings():
        warnings.simplefilter('error')
        proj.fetch('coll', 'one', {'a': 1})
        proj.fetch('coll', 'one')
    assert len(calls) == 1


@pytest.mark.parametrize(('policy', 'result'), [('recompute', {'a': 2}), ('keep', {'a': 1})])
def test_policies_for_changed_args(proj, policy, result):
    """``'recompute'`` computes again, ``'keep'`` keeps silently."""
    proj.resource('coll', on_args_change=policy)(lambda ident, args, subdir: args)
    proj.fetch('coll', 'one', {'a': 1})

    assert proj.fetch('coll', 'one', {'a': 2})['result'] == result


def test_policy_error(proj):
    """``'error'`` refuses, and names the resource."""
    proj.resource('coll', on_args_change='error')(lambda ident, args, subdir: args)
    proj.fetch('coll', 'one', {'a': 1})
    with pytest.raises(hadrosaur.InvalidArgs, match='coll/one'):
        proj.fetch('coll', 'one', {'a': 2})


def test_version_change(base):
    """Another version of the function is noticed as args are."""
    with Project(base) as proj:
        proj.resource('coll', version=1)(lambda ident, args, subdir: 'old')
        proj.fetch('coll', 'one')
    with Project(base) as proj:
        proj.resource('coll', version=2)(lambda ident, args, subdir: 'new')
        with pytest.warns(hadrosaur.VersionChangedWarning):
            assert proj.fetch('coll', 'one')['result'] == 'old'
        assert [entry.ident for entry in proj.query('coll', stale=True)] == ['one']
    with Project(base) as proj:
        proj.resource('coll', version=2, on_version_change='recompute')(lambda ident, args, subdir: 'new')
        assert proj.fetch('coll', 'one')['result'] == 'new'
        assert len(proj.query('coll', stale=True)) == 0


def test_expires_after(proj):
    """A result older than that is computed again."""
    count = []
    proj.resource('coll', expires_after=3600)(lambda ident, args, subdir: count.append(1))
    proj.fetch('coll', 'one')
    proj.fetch('coll', 'one')
    record = json.loads((base_of(proj) / 'coll/one/record.json').read_text())
    record['finished_at'] = '2001-01-01T00:00:00.000000Z'
    (base_of(proj) / 'coll/one/record.json').write_text(json.dumps(record))
    proj.fetch('coll', 'one')

    assert len(count) == 2


def base_of(proj):
    from pathlib import Path

    return Path(proj.path)


def test_raise_error(proj, calls):
    """``raise_error=True`` raises ours, which holds the traceback and is a RuntimeError."""
    with pytest.raises(hadrosaur.ResourceFailed, match='bad is no good') as caught:
        proj.fetch('coll', 'bad', raise_error=True)

    assert isinstance(caught.value, RuntimeError)
    assert (caught.value.collection, caught.value.ident) == ('coll', 'bad')
    assert 'Traceback' in caught.value.traceback_text


BACKGROUND = """
    import os, sys, time
    from hadrosaur import Project
    proj = Project('base')

    @proj.resource('coll')
    def compute(ident, args, subdir):
        while not os.path.exists('go'):
            time.sleep(0.005)
        print('in', os.getpid())
        return ident

    os.chdir('.')
    res = proj.fetch('coll', 'one', background=True)
    assert res['status'] == {'completed': False, 'pending': True, 'error': False}, res
    assert res['result'] is None
    assert os.path.exists('base/coll/one/status.json')
    again = proj.fetch('coll', 'one')
    assert again.status == 'pending'
"""


def test_background_is_pending_at_once_and_completes_by_itself(program, tmp_path):
    """The folder says pending before fetch returns; nobody has to ask for it to be completed."""
    program(
        BACKGROUND
        + """
    open('go', 'w').close()
    done = res.wait()
    assert done.status == 'completed' and done['result'] == 'one', done
    assert res.status == 'pending'      # a snapshot
    assert proj.wait()
    assert [e.status for e in proj.query()] == ['completed']
    """
    )


def test_interpreter_exit_waits_for_background_work(program, tmp_path):
    """A program that just ends leaves its background work completed."""
    started = program(BACKGROUND + "    print('ending', flush=True)", start=True)
    assert started.stdout.readline() == 'ending\n'
    (tmp_path / 'go').touch()

    assert started.wait(timeout=HANG) == 0, started.stderr.read()
    with contextlib.closing(sqlite3.connect(tmp_path / 'base/index.sqlite3')) as index:
        # As that program left it: a Project settles what its opening finds.
        assert index.execute('SELECT ident, status FROM resources').fetchall() == [('one', 'completed')]
    with Project(tmp_path / 'base', create=False) as proj:
        assert [(entry.ident, entry.status) for entry in proj.query()] == [('one', 'completed')]


def test_computed_elsewhere_is_pending(program, tmp_path):
    """What another process computes is pending here, at once; waiting gives its result."""
    source = """
        import os, sys, time
        from hadrosaur import Project
        proj = Project('base')

        @proj.resource('coll')
        def compute(ident, args, subdir):
            print('began', flush=True)
            open('began', 'w').close()
            while not os.path.exists('go'):
                time.sleep(0.005)
            return os.getpid()

        if sys.argv[1] == 'first':
            proj.fetch('coll', 'one')
        else:
            while not os.path.exists('began'):
                time.sleep(0.005)
            res = proj.fetch('coll', 'one')
            assert res.status == 'pending', res
            open('go', 'w').close()
            done = proj.fetch('coll', 'one', wait=300)
            assert done.status == 'completed' and done['result'] != os.getpid(), done
            assert len(proj.query(status='completed')) == 1
    """
    first = program(source, 'first', start=True)
    program(source, 'second')

    assert first.wait(timeout=HANG) == 0


def test_attributes_are_read_from_the_directory(proj, calls):
    """A resource knows its times, args and words."""
    proj.fetch('coll', 'one', {'a': 1})
    res = proj.fetch('coll', 'one')

    assert (res.collection, res.ident, res.status, res.args) == ('coll', 'one', 'completed', {'a': 1})
    assert res.started_at <= res.finished_at
    assert res.started_at.utcoffset().total_seconds() == 0
    assert 0 <= res.duration < 60
    assert res.error is None
    assert res.result is res['result']


def test_get_looks_and_never_computes(proj, calls):
    """`get` gives what is there, and says so where nothing is."""
    with pytest.raises(hadrosaur.ResourceNotFound, match='coll/one'):
        proj.get('coll', 'one')
    proj.fetch('coll', 'one')

    assert proj.get('coll', 'one') == proj.fetch('coll', 'one')
    assert len(calls) == 1


def test_echo_shows_output_too(program, tmp_path):
    """``echo=True`` shows on the terminal what goes into the logs."""
    done = program("""
        import os, sys
        from hadrosaur import Project
        proj = Project('base')

        @proj.resource('coll')
        def compute(ident, args, subdir):
            print('to out')
            os.write(1, b'raw\\n')
            print('to err', file=sys.stderr)

        res = proj.fetch('coll', 'one', echo=True)
        print('after')
    """)

    assert done.stdout == 'to out\nraw\nafter\n'
    assert done.stderr == 'to err\n'
    assert (tmp_path / 'base/coll/one/stdout.log').read_text() == 'to out\nraw\n'


def test_unknown_collection_says_what_was_meant(proj, calls):
    """An unknown collection is a LookupError that helps."""
    with pytest.raises(hadrosaur.UnknownCollection, match=r"'col'.*did you mean 'coll'"):
        proj.fetch('col', 'one')
    assert issubclass(hadrosaur.UnknownCollection, LookupError)


def test_duplicate_collection(proj, calls):
    """Two functions under one name are refused; the same function again is fine."""

    def other(ident, args, subdir):
        return 2

    with pytest.raises(hadrosaur.DuplicateCollection, match="'coll'"):
        proj.resource('coll')(other)
    proj.resource('more')(other)
    proj.resource('more')(other)


@pytest.mark.parametrize(
    'options',
    [
        {'retries': -1},
        {'timeout': 0},
        {'retry_backoff': 0.5},
        {'on_args_change': 'maybe'},
        {'capture': 'all'},
    ],
    ids=lambda options: next(iter(options)),
)
def test_bad_options_are_refused(proj, options):
    """An option that has no such value is named."""
    with pytest.raises(ValueError, match=next(iter(options))):
        proj.resource('coll', **options)(lambda ident, args, subdir: 1)


def test_base_that_is_a_file(tmp_path):
    """A base that is a file is refused, and the file is left alone."""
    (tmp_path / 'base').write_text('mine')
    with pytest.raises(hadrosaur.BaseIsNotADirectory, match='is a file'):
        Project(tmp_path / 'base')

    assert (tmp_path / 'base').read_text() == 'mine'


def test_an_index_elsewhere_is_found_again(base, tmp_path):
    """Who does not say where it is, as the commands, uses the same; without it, the base has its own."""
    elsewhere, again = tmp_path / 'in a folder/index.sqlite3', base / 'index.sqlite3'
    with Project(base, index=elsewhere) as proj:
        proj.resource('coll')(lambda ident, args, subdir: ident)
        proj.fetch('coll', 'a')
        question = 'select file from pragma_database_list'
        done = subprocess.run(
            [sys.executable, '-m', 'hadrosaur', 'sql', str(base), question, '--json'],
            capture_output=True,
            text=True,
            check=True,
        )
        assert json.loads(done.stdout) == [{'file': str(elsewhere)}]
        with Project(base) as other:
            assert [entry.ident for entry in other.query()] == ['a']
    assert not again.exists()

    elsewhere.unlink()
    with Project(base) as proj:
        assert [entry.ident for entry in proj.query()] == ['a']
    assert again.exists()
    with Project(base, index=elsewhere) as proj:
        proj.stats()
    with Project(base, index=again) as proj:
        proj.stats()
    elsewhere.write_bytes(b'')
    with Project(base) as proj:
        assert [entry.ident for entry in proj.query()] == ['a']
    assert elsewhere.read_bytes() == b''


def test_a_copied_base_leaves_the_index_of_the_original_alone(base, tmp_path):
    """What the copy brings along of where the index is is not true of it."""
    elsewhere = tmp_path / 'elsewhere.sqlite3'
    with Project(base, index=elsewhere) as proj:
        proj.resource('coll')(lambda ident, args, subdir: ident)
        proj.fetch('coll', 'a')
        shutil.copytree(base, tmp_path / 'copy')
        with Project(tmp_path / 'copy') as copy:
            copy.resource('coll')(lambda ident, args, subdir: ident)
            copy.remove('coll', 'a')
            copy.reindex()
        assert [row.ident for row in proj.query()] == ['a']
    assert (tmp_path / 'copy/index.sqlite3').exists()


@pytest.mark.parametrize(
    ('options', 'runs'),
    [
        ({'on_version_change': 'recompute'}, 2),
        ({'on_version_change': 'error'}, 'version'),
        ({'on_args_change': 'error', 'on_version_change': 'recompute'}, 'args'),
        ({'expires_after': 1e-6, 'on_version_change': 'keep'}, 2),
        ({'on_version_change': 'keep'}, 1),
    ],
)
def test_of_several_differences_the_strictest_policy_counts(base, options, runs):
    """Other args that are no matter do not hide another version, or an age."""
    made = []

    def compute(ident, args, subdir):
        made.append(ident)

    with Project(base) as proj:
        proj.resource('coll', version='1')(compute)
        proj.fetch('coll', 'a', {'n': 1})
    with Project(base) as proj:
        proj.resource('coll', **{'version': '2', 'on_args_change': 'keep', **options})(compute)
        explained = proj.explain('coll', 'a', {'n': 2})
        if isinstance(runs, str):
            with pytest.raises(hadrosaur.ResourceError, match=f'other {runs}|another {runs}'):
                proj.fetch('coll', 'a', {'n': 2})
            assert not explained.computes
        else:
            proj.fetch('coll', 'a', {'n': 2})
            assert len(made) == runs
            assert explained.computes is (runs == 2)


def test_a_base_whose_path_is_too_long_for_sqlite(tmp_path):
    """The message says how long it is and what helps, and that does help."""
    deep = tmp_path.joinpath(*['d' * 100] * 5)
    deep.mkdir(parents=True)
    with Project(deep / 'base') as proj:
        proj.resource('coll')(lambda ident, args, subdir: ident)
        with pytest.raises(hadrosaur.IndexFault, match=r'too long for SQLite \(\d+ bytes\).*index='):
            proj.fetch('coll', 'a')
    with Project(deep / 'base', index=tmp_path / 'short.sqlite3') as proj:
        proj.resource('coll')(lambda ident, args, subdir: ident)

        assert proj.fetch('coll', 'a')['result'] == 'a'
        assert proj.reindex(fresh=True).added == 1


def test_a_group_may_write_the_index_where_the_umask_lets_it(program, tmp_path):
    """The index has the mode that every other file has."""
    program(
        """
        import os
        from hadrosaur import Project

        os.umask(0o002)
        with Project('base') as proj:
            proj.resource('coll')(lambda ident, args, subdir: ident)
            proj.fetch('coll', 'a')
            modes = {path: os.stat(path).st_mode & 0o777 for path in
                     ('base/index.sqlite3', 'base/index.sqlite3-wal', 'base/coll/a/status.json')}
            assert set(modes.values()) == {0o664}, modes
        """
    )


def test_index_in_a_folder_of_its_own(base, tmp_path):
    """It is made at the first use; where it cannot be made, nothing is computed and the folder is named."""
    (tmp_path / 'file').write_text('mine')
    for folder in ('local/deep', 'file'):
        with Project(base, index=tmp_path / folder / 'index.sqlite3') as proj:
            proj.resource('coll')(lambda ident, args, subdir: ident)
            if folder == 'file':
                with pytest.raises(hadrosaur.IndexFault, match=r'the folder of the index .*/file/index'):
                    proj.fetch('coll', 'never')
            else:
                assert proj.fetch('coll', 'a')['result'] == 'a'

    with pytest.raises(hadrosaur.IndexFault, match=r'local is a folder, and not a file.*local/index.sqlite3'):
        Project(base, index=tmp_path / 'local').stats()
    assert (tmp_path / 'local/deep/index.sqlite3').exists()
    assert not (base / 'index.sqlite3').exists()
    assert os.listdir(base / 'coll') == ['a']


BAD_ARGS = [
    ({'a': float('nan')}, r'\$\.a'),
    ({'a': {1, 2}}, r'\$\.a'),
    ({'a': [0, b'x']}, r'\$\.a\[1\]'),
    ({1: 2}, 'key'),
    ([1], 'dict'),
]


@pytest.mark.parametrize(('args', 'message'), BAD_ARGS)
def test_args_that_are_no_json_are_refused_before_anything_is_written(proj, calls, args, message):
    """Neither a folder nor a row is made, and the function is not called."""
    with pytest.raises(hadrosaur.InvalidArgs, match=message):
        proj.fetch('coll', 'one', args)

    assert calls == []
    assert os.listdir(os.path.join(proj.path, 'coll')) == []
    assert len(proj.query()) == 0


BAD_RESULTS = [
    ({'loss': float('nan')}, r'\$\.loss is NaN'),
    ({'a': [1, {2}]}, r'\$\.a\[1\]'),
    (b'bytes', r'\$ is'),
    (object(), r'\$'),
]


@pytest.mark.parametrize(('value', 'message'), BAD_RESULTS, ids=['nan', 'set', 'bytes', 'object'])
def test_results_that_are_no_json_end_in_error(proj, value, message):
    """The status is error, and the JSON path is named."""
    proj.resource('coll')(lambda ident, args, subdir: value)
    res = proj.fetch('coll', 'one')

    assert res.status == 'error'
    assert res.entry.error_type == 'ResultNotSerializable'
    with pytest.raises(AssertionError):
        assert not __import__('re').search(message, res.error)


HOSTILE = [
    '../../x',
    'a/b',
    '.',
    '..',
    '-rf',
    'x' * 300,
    'with\0nul',
    'CON',
    '🦕',
    ' ',
    'trailing ',
    '%2F',
    'é',
    'é',
]


def test_hostile_idents_have_folders_of_their_own(proj, calls, tmp_path):
    """Any text is a legal ident, stays inside its collection, and comes back from the index."""
    for ident in HOSTILE:
        assert proj.fetch('coll', ident)['status'] == STATUSES['completed']

    assert len(os.listdir(os.path.join(proj.path, 'coll'))) == len(set(HOSTILE))
    assert os.listdir(tmp_path) == ['base']
    assert {entry.ident for entry in proj.query('coll')} == set(HOSTILE)
    proj.reindex(fresh=True)
    assert {entry.ident for entry in proj.query('coll')} == set(HOSTILE)


@pytest.mark.parametrize('ident', ['', True, None, 1.5, 'x' * 5000, '\ud800'], ids=repr)
def test_bad_idents_are_refused(proj, calls, ident):
    """What cannot name a resource is refused before anything is written."""
    with pytest.raises(hadrosaur.InvalidIdent):
        proj.fetch('coll', ident)
    assert os.listdir(os.path.join(proj.path, 'coll')) == []
