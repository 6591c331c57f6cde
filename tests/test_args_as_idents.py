"""Args that name a resource: its ident is readable, the same for ever, and no other args have it.

The hashes were made with ``printf %s JSON | b2sum -l 128``, as in test_canonical.py.
"""

import json
import subprocess
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from test_cli_tools import call

import hadrosaur
from hadrosaur import InvalidArgs, InvalidIdent, Project, canonical, grid, ident_of

IDENTS = {
    'C=1,kernel=rbf': {'kernel': 'rbf', 'C': 1},
    'C=1.0': {'C': 1.0},
    'a="1"': {'a': '1'},
    'a="-1.5e+10"': {'a': '-1.5e+10'},
    'a=1.': {'a': '1.'},
    'a=01': {'a': '01'},
    'a="true"': {'a': 'true'},
    'a=true': {'a': True},
    'a=null,b="null"': {'a': None, 'b': 'null'},
    'a=NaN': {'a': 'NaN'},
    'a=""': {'a': ''},
    'a=-rf': {'a': '-rf'},
    'a="x,b=2"': {'a': 'x,b=2'},
    'a=x,b=2': {'a': 'x', 'b': 2},
    '"a=x,b"=2': {'a=x,b': 2},
    'a="a b"': {'a': 'a b'},
    'a="~"': {'a': '~'},
    'a="zo\xe9"': {'a': 'zo\xe9'},
    r'a="\n\""': {'a': '\n"'},
    '""=1': {'': 1},
    '1=x': {'1': 'x'},
    'true=x': {'true': 'x'},
    'a=[1,"x",{"b":null}]': {'a': [1, 'x', {'b': None}]},
    'a=user@example.org,b=v1.2-3+4': {'a': 'user@example.org', 'b': 'v1.2-3+4'},
    'B=1,a=2': {'a': 2, 'B': 1},
    'a=' + 'x' * 118: {'a': 'x' * 118},
    'a=' + 'x' * 78 + '~' + '05f25dcdac332f11': {'a': 'x' * 119},
    'a="' + '\xe9' * 77 + '~' + 'e2e0de68626c2e74': {'a': '\xe9' * 118},
}
FOLDERS = {
    'C=1,kernel=rbf': ('C=1,kernel=rbf', 'C=1%2Ckernel=rbf'),
    ',': (',', '%2C'),
    'a, b': ('a,%20b', 'a%2C%20b'),
    '.,': ('%2E,', '%2E%2C'),
    ',' * 200: (',' * 200, '%2C' * 20 + '%~980f6c8d562ceaca42f4370890d16736'),
    ',' * 201: (
        ',' * 60 + '%~75b1d8a4f22176efe251ce565cb34aa0',
        '%2C' * 20 + '%~75b1d8a4f22176efe251ce565cb34aa0',
    ),
}


# --- the text --------------------------------------------------------------------------------------


@pytest.mark.parametrize('ident', IDENTS)
def test_golden_idents(ident):
    """The ident of args is the same for ever, in whatever order they are given."""
    args = IDENTS[ident]

    assert ident_of(args) == ident
    assert ident_of(dict(reversed(args.items()))) == ident


values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=6) | st.sampled_from(['1', 'true', 'a,b=1', '~', '"', 'x' * 130]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=2),
    max_leaves=4,
)  # fmt: skip
some_args = st.dictionaries(
    st.text(max_size=4) | st.sampled_from(['a', 'a=1,b', 'b']), values, min_size=1, max_size=3
)


@given(some_args, some_args)
def test_different_args_have_different_idents(one, other):
    """The text is injective: equal idents mean equal args."""
    assert (ident_of(one) == ident_of(other)) == (canonical.args_json(one) == canonical.args_json(other))


@given(some_args)
def test_an_ident_of_args_is_a_good_ident(args):
    """It has a folder of its own, which tells it again, and at most 120 characters."""
    ident = ident_of(args)
    folder = canonical.folder_name(ident)

    assert len(ident) <= 120
    assert canonical.ident_of_folder(folder) == ident or canonical.digest_matches(folder, ident)


def test_numbers_of_numpy_name_what_python_names():
    """As args they are the same, so as idents they are."""
    numpy = pytest.importorskip('numpy')

    assert ident_of({'C': numpy.float64(0.1), 'n': numpy.int32(3)}) == 'C=0.1,n=3'
    assert len(list(grid(C=numpy.linspace(0, 1, 3), n=numpy.array(5)))) == 3


@pytest.mark.parametrize(
    ('args', 'error', 'words'),
    [
        ({}, InvalidIdent, 'an empty dict of args names no resource'),
        ({'a': float('nan')}, InvalidArgs, r'\$.a is NaN'),
        ({'a': {1}}, InvalidArgs, r'\$.a is of type set'),
        ({1: 2}, InvalidArgs, 'key that is of type int'),
        ([1], InvalidIdent, 'of type list'),
    ],
)
def test_args_that_name_nothing(proj, args, error, words):
    """What is no dict of JSON, or empty, is refused before anything is written."""
    proj.resource('fits')(lambda ident, args, subdir: 1)
    for refuse in (ident_of, lambda args: proj.fetch('fits', args), lambda args: proj.get('fits', args)):
        with pytest.raises(error, match=words):
            refuse(args)
    assert list(Path(proj.path, 'fits').iterdir()) == []


# --- wherever an ident is expected -----------------------------------------------------------------


def test_fetch_many_of_a_grid(proj):
    """Each combination is a resource, named by its args, which the function gets; nothing else is needed."""

    @proj.resource('fits')
    def fits(ident, args, subdir):
        if args['C'] == 100:
            raise ValueError('too large')
        return {'named': ident, **args}

    combinations = grid(C=[1, 10, 100], kernel=['rbf', 'poly'])
    batch = proj.fetch_many('fits', combinations, executor='inline')

    assert batch.wait() == (6, 4, 2, 0, 0)
    assert proj.get('fits', 'C=1,kernel=rbf').result == {'named': 'C=1,kernel=rbf', 'C': 1, 'kernel': 'rbf'}
    assert proj.get('fits', {'kernel': 'poly', 'C': 10}).args == {'C': 10, 'kernel': 'poly'}
    assert proj.fetch_many('fits', [{'C': 1, 'kernel': 'rbf'}], executor='inline').wait().reused == 1
    assert Path(proj.path, 'fits', 'C=1,kernel=rbf', 'status.json').exists()


def test_every_verb_takes_args_for_an_ident(proj):
    """fetch, get, explain, remove, wait, cancel; a Resource is no args."""
    proj.resource('fits')(lambda ident, args, subdir: args)
    args = {'C': 1}
    resource = proj.fetch('fits', args)

    assert (resource.ident, resource.result) == ('C=1', args)
    assert proj.fetch('fits', 'C=1').result == args
    assert proj.get('fits', args).result == args
    assert proj.explain('fits', args).code == 'completed'
    assert proj.explain('fits', {'C': 2}).code == 'new'
    assert proj.wait('fits', args) is True
    assert proj.cancel('fits', args) == 0
    with pytest.raises(InvalidIdent, match='Resource'):
        proj.fetch('fits', resource)
    proj.remove('fits', args)
    assert list(proj.query('fits')) == []


def test_args_given_twice(proj):
    """Args as the ident and as args are refused, in a batch as one of many."""
    proj.resource('fits')(lambda ident, args, subdir: args)

    with pytest.raises(InvalidArgs, match='args are given twice'):
        proj.fetch('fits', {'C': 1}, {'D': 2})
    pairs = [({'C': 1}, {'D': 2}), {}, {'C': 3}, 'plain']
    batch = proj.fetch_many('fits', pairs, {'common': True}, executor='inline')
    found = {resource.ident: resource for resource in batch}
    assert batch.counts == (4, 2, 2, 0, 0)
    assert found['C=3'].result == {'C': 3}
    assert found['plain'].result == {'common': True}


def test_run_reads_args_from_lines(proj, tmp_path):
    """`run --idents-from` takes JSON objects; what `query --idents` writes is read back as it was."""
    path = tmp_path / 'sweep.py'
    path.write_text(
        f'from hadrosaur import Project\nproj = Project({proj.path!r})\n'
        "@proj.resource('fits')\ndef fits(ident, args, subdir):\n    return args\n"
    )
    lines = tmp_path / 'lines'
    lines.write_text('{"C": 1}\n{"C": NaN}\n{"C": 2, "kernel": "rbf"}\n{braces}\n["{\\"C\\": 1}"]\n')
    done = call('run', f'{path}:proj', 'fits', '--idents-from', lines, '--executor', 'inline', '--json')

    assert json.loads(done.stdout)['completed'] == 4, done.stdout
    assert proj.get('fits', {'C': 2, 'kernel': 'rbf'}).result == {'C': 2, 'kernel': 'rbf'}
    listed = call('query', proj.path, 'fits', '--idents')
    lines.write_text(listed.stdout)
    again = call('run', f'{path}:proj', 'fits', '--idents-from', lines, '--executor', 'inline', '--json')
    assert json.loads(again.stdout)['reused'] == 4


# --- grid ------------------------------------------------------------------------------------------


def test_a_grid_is_a_sequence():
    """Length, indexing, slices and iteration agree; the last name changes fastest."""
    found = grid({'max-depth': (3, None)}, C=range(3), kernel='rbf', weights=({'a': 1},))
    listed = list(found)

    assert len(found) == len(listed) == 6
    assert [found[place] for place in range(6)] == listed == found[:]
    assert found[-1] == listed[-1] == {'max-depth': None, 'C': 2, 'kernel': 'rbf', 'weights': {'a': 1}}
    assert listed[1] == {'max-depth': 3, 'C': 1, 'kernel': 'rbf', 'weights': {'a': 1}}
    assert found[::2] == listed[::2]
    assert len(grid(a=range(10**6), b=range(10**6))) == 10**12
    assert grid(a=range(10**6), b=range(10**6))[10**6 + 7] == {'a': 1, 'b': 7}
    assert list(grid()) == list(grid(a=[])) == []
    with pytest.raises(IndexError):
        found[6]
    with pytest.raises(TypeError, match='twice'):
        grid({'a': 1}, a=2)
    assert {'grid', 'ident_of'} <= set(hadrosaur.__all__)


# --- folders ---------------------------------------------------------------------------------------


@pytest.mark.parametrize('ident', FOLDERS)
def test_golden_folders_of_idents_with_commas(ident):
    """A comma stands for itself; the name of the first grammar is known as well."""
    folder, before = FOLDERS[ident]

    assert canonical.folder_name(ident) == folder
    assert canonical.folder_names_before(ident)[0] == before
    for name in (folder, before):
        assert canonical.ident_of_folder(name) == ident or canonical.digest_matches(name, ident)


@pytest.mark.parametrize('ident', FOLDERS)
def test_a_folder_under_its_old_name_is_found_and_kept(proj, ident):
    """fetch, get, query, reindex, check, recompute and remove find it there, and make no other."""
    runs = []

    @proj.resource('coll')
    def compute(ident, args, subdir):
        runs.append(ident)
        return len(runs)

    proj.fetch('coll', ident, {'a': 1})
    folder, before = FOLDERS[ident]
    proj.close()
    Path(proj.path, 'coll', folder).rename(Path(proj.path, 'coll', before))

    assert proj.reindex().scanned == 1
    assert proj.fetch('coll', ident).result == 1
    assert [(row.ident, row.path) for row in proj.query()] == [(ident, f'coll/{before}')]
    assert proj.fetch_many('coll', [ident], recompute=True, executor='inline').wait().completed == 1
    assert proj.get('coll', ident).result == 2
    assert proj.check().findings == []
    assert [path.name for path in Path(proj.path, 'coll').iterdir()] == [before]
    proj.remove('coll', ident)
    assert list(Path(proj.path, 'coll').iterdir()) == []
    assert proj.fetch('coll', ident).paths['base'].endswith(f'/{folder}')


def test_of_two_folders_of_one_ident_the_newer_name_counts(proj):
    """The other is told of, and is no row."""
    proj.resource('coll')(lambda ident, args, subdir: 'new')
    proj.fetch('coll', 'a,b')
    proj.close()
    subprocess.run(['cp', '-r', f'{proj.path}/coll/a,b', f'{proj.path}/coll/a%2Cb'], check=True)
    report = proj.reindex()

    assert [path for path, _ in report.unreadable] == ['coll/a%2Cb']
    assert [row.path for row in proj.query()] == ['coll/a,b']


def test_collections_keep_their_folders(base):
    """A comma in a collection's name is written as it ever was."""
    with Project(base) as proj:
        proj.resource('a,b')(lambda ident, args, subdir: 1)
        proj.fetch('a,b', 'x,y')
        assert [row.path for row in proj.query('a,b')] == ['a%2Cb/x,y']
        assert proj.reindex('a,b').scanned == 1
        assert proj.collections == ['a,b']
