"""Results are columns: rows are found, sorted and shown by parts of args and results; SQL does the same."""

import json
import operator
import sqlite3
from fnmatch import fnmatchcase
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from test_cli_tools import call

from hadrosaur import HadrosaurWarning, InvalidArgs, Project, grid, json_paths
from hadrosaur.index._functions import FUNCTIONS

RESULTS = [
    {'score': 0.5, 'n': 1, 'ok': True, 'kind': 'svc', 'deep': {'er': [1, {'x': 'y'}]}, 'a.b': 1},
    {'score': 0.9, 'n': 1.0, 'ok': False, 'kind': 'tree', 'deep': {'er': []}, "it's": None},
    {'score': 2, 'n': None, 'ok': 1, 'kind': 'svm', 'deep': 'text', 'é x': [1, 2]},
    {'score': '0.7', 'n': 2**70, 'ok': None, 'kind': '', 'deep': [[3]]},
    {'score': -1e300, 'n': '1', 'kind': None},
    [1, 2], 'text', 7, None, {}, '\U0001f995\x00',
]  # fmt: skip


@pytest.fixture(scope='module')
def known(tmp_path_factory):
    """A project with all those results, whose args are their places; one that failed, one that is long."""
    base = tmp_path_factory.mktemp('results') / 'base'
    with Project(base) as proj:

        @proj.resource('fits')
        def fits(ident, args, subdir):
            return RESULTS[args['place']]

        @proj.resource('other')
        def other(ident, args, subdir):
            if args['C'] == 2:
                raise ValueError('no')
            return {'score': args['C'], 'text': 'x' * (3000 if args['C'] == 4 else 1)}

        proj.fetch_many('fits', grid(place=range(len(RESULTS))), executor='inline').wait()
        proj.fetch_many('other', grid(C=[1, 2, 3, 4]), executor='inline').wait()
    with Project(base) as proj:
        yield proj


def places(query):
    return sorted(entry.args['place'] for entry in query)


def find(proj, **filters):
    return places(proj.query('fits', **filters))


# --- filters ---------------------------------------------------------------------------------------

FOUND = [
    ({'score': 0.5}, [0]),
    ({'score': 2.0}, [2]),
    ({'score': ('>', 0.5)}, [1, 2]),
    ({'score': ('>=', 0.5, '<', 2)}, [0, 1]),
    ({'score': ('>', '0.6')}, [3]),
    ({'score': ('!=', 0.5)}, [1, 2, 3, 4]),
    ({'score': [0.5, '0.7']}, [0, 3]),
    ({'n': 1}, [0, 1]),
    ({'n': '1'}, [4]),
    ({'n': None}, [2]),
    ({'n': ('!=', None)}, [0, 1, 3, 4]),
    ({'n': ('>', 10**18)}, [3]),
    ({'ok': True}, [0]),
    ({'ok': ('!=', True)}, [1, 2, 3]),
    ({'kind': ('glob', 'sv?')}, [0, 2]),
    ({'kind': ('glob', '[!s]*')}, [1]),
    ({'kind': ''}, [3]),
    ({'kind': 'svc', 'ok': True}, [0]),
    ({'deep.er[1].x': 'y'}, [0]),
    ({'deep.er[0]': 1}, [0]),
    ({'deep': {'er': []}}, [1]),
    ({'deep.er': [1, {'x': 'y'}]}, [0]),
    ({'deep[0][0]': 3}, [3]),
    ({'"a.b"': 1}, [0]),
    ({"it's": None}, [1]),
    ({'é x': [1, 2]}, [2]),
    ({'é x[0]': [1, 5]}, [2]),
    ({}, list(range(len(RESULTS)))),
]


@pytest.mark.parametrize(('wanted', 'found'), FOUND, ids=str)
def test_rows_are_found_by_parts_of_their_results(known, wanted, found):
    """Equality of the same JSON type, one of several, comparisons; missing is not null, text is no number."""
    assert find(known, result=wanted) == found


def test_args_take_the_same_comparisons(known):
    """Beside plain equality, for which 1 and 1.0 differ as they always did."""
    assert find(known, args={'place': ('<', 2)}) == [0, 1]
    assert find(known, args={'place': [3, 4.0, 5]}) == [3, 5]
    assert find(known, args={'place': 4.0}) == []
    assert find(known, args={'place': ('>', 1)}, result={'kind': ('glob', 's*')}) == [2]
    assert known.query('fits', args={'place': ('<', 2)})[0].result == RESULTS[1]
    holds = FUNCTIONS['hadrosaur_holds'][0]
    assert holds('{"m":{"d":3},"a.b":1}', '[{"m.d":3,"a.b":1}]')
    assert not holds('{"m":{"d":3}}', '[{"m.e":null}]')


OPERATORS = {'=': operator.eq, '!=': operator.ne, '<': operator.lt, '<=': operator.le, '>': operator.gt,
             '>=': operator.ge, 'glob': fnmatchcase}  # fmt: skip


def kind_of(value):
    return 'bool' if isinstance(value, bool) else 'number' if isinstance(value, (int, float)) else type(value)


@settings(max_examples=40, deadline=None)
@given(
    st.sampled_from(['score', 'n', 'ok', 'kind', 'deep.er', 'nothing']),
    st.sampled_from(list(OPERATORS)),
    st.sampled_from([0.5, 1, 2, '0.7', 'svc', '', 's*', True, None]),
)
def test_comparisons_are_those_of_python(known, name, sign, value):
    """A random comparison finds what an oracle in plain Python finds."""
    if (sign == 'glob' and not isinstance(value, str)) or (
        sign in '<=>=' and sign != '=' and value in (True, None)
    ):
        return
    path, oracle = json_paths.parse(f'result.{name}'), []
    for place, result in enumerate(RESULTS):
        held = path.within(result)
        same = kind_of(held) == kind_of(value)
        if held is not json_paths.MISSING and (OPERATORS[sign](held, value) if same else sign == '!='):
            oracle.append(place)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr('hadrosaur.index._query.warn', lambda message: None)
        assert find(known, result={name: (sign, value)}) == oracle


# --- orders ----------------------------------------------------------------------------------------


def test_rows_are_sorted_by_a_part(known):
    """Largest first with a minus, what has none last in either direction, and ties by ident."""
    numbers = [2, 1, 0, 4]
    down = [entry.args['place'] for entry in known.query('fits', order_by='-result.score')]
    up = [entry.args['place'] for entry in known.query('fits', order_by='result.score')]

    assert [place for place in down if place in numbers] == numbers
    assert [place for place in up if place in numbers] == numbers[::-1]
    assert set(down[:5]) == set(up[:5]) == {0, 1, 2, 3, 4}
    assert down[5:] == up[5:]
    assert [entry.args['place'] for entry in known.query('fits', order_by='-args.place')[:2]] == [10, 9]


def test_the_same_in_plain_sql(known):
    """``result->>'score'`` works in every SQL tool."""
    rows = known.sql("select ident from resources where collection = 'fits' and result->>'score' = 0.9")
    with sqlite3.connect(Path(known.path, 'index.sqlite3')) as database:
        same = database.execute("select ident from resources where result->>'score' = 0.9").fetchall()

    assert [row['ident'] for row in rows] == [row[0] for row in same] == ['place=1']


# --- values ----------------------------------------------------------------------------------------


def test_results_stream(known):
    """(ident, value) of all that is completed, long ones from the disk; filters and orders hold."""
    assert list(known.results('fits')) == [
        (f'place={place}', RESULTS[place])
        for place in sorted(range(len(RESULTS)), key=lambda each: str(each))
    ]
    found = dict(known.results('other'))
    assert {ident: len(value['text']) for ident, value in found.items()} == {'C=1': 1, 'C=3': 1, 'C=4': 3000}
    assert [ident for ident, _ in known.results('other', args={'C': ('>', 1)}, order_by='-args.C')] == [
        'C=4',
        'C=3',
    ]
    assert [ident for ident, _ in known.collection('other').results(ident='C=1')] == ['C=1']


def test_a_row_holds_short_results_only(base):
    """At most index_result bytes, 2 048 if nothing is said; reindex finds the same, and False holds none."""
    with Project(base) as proj:
        for name, most in (('usual', 2048), ('none', False), ('more', 5000)):
            proj.resource(name, index_result=most)(lambda ident, args, subdir: 'x' * int(ident))
            proj.fetch_many(name, [1, 2045, 2046, 4997, 4998], executor='inline').wait()
        statement = 'SELECT collection, ident FROM resources WHERE result IS NOT NULL ORDER BY 1, ident + 0'
        rows = [f'{row["collection"]} {row["ident"]}' for row in proj.sql(statement)]
        assert rows == ['more 1', 'more 2045', 'more 2046', 'more 4997', 'usual 1', 'usual 2045']
    with Project(base, create=False) as proj:
        assert proj.reindex() == (15, 0, 0, 0, [])
        proj.reindex(fresh=True)
        assert [f'{row["collection"]} {row["ident"]}' for row in proj.sql(statement)] == rows


def test_a_result_edited_by_hand_shows_after_reindex(proj):
    """What no longer is standard JSON is in no row, so that SQL can read all there are."""
    proj.resource('fits')(lambda ident, args, subdir: {'score': 1})
    proj.fetch_many('fits', ['one', 'two'], executor='inline').wait()
    Path(proj.path, 'fits/one/result.json').write_text('{\n  "score": 5, "\\u00e9": 1\n}\n')
    Path(proj.path, 'fits/two/result.json').write_text('{"score": NaN}\n')
    proj.reindex()

    with pytest.warns(HadrosaurWarning, match="that of 'two'"):
        assert proj.query(result={'score': 5, 'é': 1}).idents() == ['one']
    assert proj.query(ident='two')[0].result is None


@pytest.mark.parametrize('library', ['pandas', 'polars'])
def test_frames_have_a_column_for_each_part(known, library):
    """One level deep, with the dtype of what is in them; deeper values and mixtures are JSON text."""
    pytest.importorskip(library)
    frame = getattr(known.query('other', order_by='ident'), f'to_{library}')(results=True)
    columns = {name: list(frame[name]) for name in frame.columns if '.' in name}

    assert list(columns) == ['args.C', 'result.score', 'result.text']
    assert columns['args.C'] == [1, 2, 3, 4]
    assert len(columns['result.text'][3]) == 3000
    assert list(map(_plain, columns['result.score'])) == [1, None, 3, 4]
    chosen = getattr(known.query('fits', order_by='-args.place'), f'to_{library}')(
        results=['deep', 'args.place']
    )
    assert list(chosen.columns[-2:]) == ['args.place', 'result.deep']
    assert _plain(list(chosen['result.deep'])[-1]) == '{"er": [1, {"x": "y"}]}'
    with pytest.raises(TypeError, match='not one text'):
        getattr(known.query('fits'), f'to_{library}')(results='score')


def _plain(value):
    return None if str(value) == '<NA>' else value


# --- the command line ------------------------------------------------------------------------------


def test_query_shows_chosen_columns(known):
    """--columns in a table, CSV and JSON, with --result, --args and --order-by; long results too."""
    args = ['query', known.path, 'other', '--order-by', '-args.C', '--columns', 'ident,args.C,result.score']
    assert call(*args).stdout.splitlines()[:2] == ['ident\targs.C\tresult.score', 'C=4\t4\t4']
    assert call(*args, '--csv', '--limit', '1').stdout == 'ident,args.C,result.score\nC=4,4,4\n'
    assert json.loads(call(*args, '--json').stdout)[2] == {'ident': 'C=2', 'args.C': 2, 'result.score': None}
    compared = ['--args', 'place>0', '--args', 'place<3', '--result', 'score>=0.6', '--result', 'kind=tree']
    assert call('query', known.path, 'fits', *compared, '--idents').stdout == 'place=1\n'


@pytest.mark.parametrize(
    ('given', 'words'),
    [
        (['--columns', 'ident,scroe'], "there is no column 'scroe'"),
        (['--columns', 'result.a..b'], 'cannot be read from'),
        (['--order-by', 'score'], 'written result.score'),
        (['--order-by', 'result.'], 'cannot be read from'),
        (['--result', 'score'], 'is no KEY=VALUE'),
        (['--result', 'ok>true'], '> compares numbers with numbers and text with text'),
    ],
    ids=str,
)
def test_what_cannot_be_asked_is_said(known, given, words):
    """A mistake of usage, in a sentence."""
    done = call('query', known.path, 'fits', *given)

    assert done.exit_code == 2
    assert words in done.stderr


# --- what finds nothing ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ('filters', 'words'),
    [
        ({'result': {'scroe': 1}}, 'no row of fits has result.scroe; .*did you mean result.score?'),
        ({'result': {'kind': ('>', 3)}}, 'result.kind is compared with a number, and is .*text'),
        ({'order_by': '-result.nothing'}, 'no row of fits has result.nothing; there is .*result.kind'),
        ({'args': {'plaice': ('>', 1)}}, 'no row of fits has args.plaice; there is args.place'),
    ],
    ids=str,
)
def test_a_part_that_nothing_has_is_said(known, filters, words):
    """A warning names what there is, or what it is."""
    with pytest.warns(HadrosaurWarning, match=words):
        list(known.query('fits', **filters))


def test_results_that_are_not_in_the_index_are_said(known):
    """Nobody takes the best of those that are in it for the best of all."""
    with pytest.warns(HadrosaurWarning, match="count as missing, such as that of 'C=4'"):
        assert known.query('other', order_by='-result.score')[0].ident == 'C=3'


@pytest.mark.parametrize(
    ('wanted', 'error', 'words'),
    [
        ({'score': ('>', None)}, ValueError, 'compares numbers with numbers'),
        ({'score': ('>',)}, ValueError, 'an operator and a value'),
        ({'score': ('>', 1, 'near', 2)}, ValueError, "no operator 'near'"),
        ({'score': ('glob', 3)}, ValueError, 'which is text'),
        ({'score': float('nan')}, InvalidArgs, 'is NaN'),
        ({'score': {1}}, InvalidArgs, 'is of type set'),
        ({'a"b': 1}, ValueError, 'cannot be read'),
        ({'"a\\b"': 1}, ValueError, 'cannot be asked for in SQL'),
        ({'x[y]': 1}, ValueError, 'cannot be read'),
        ({1: 1}, TypeError, 'keys that are text'),
        ('score', TypeError, 'takes a dict'),
    ],
    ids=str,
)
def test_what_no_filter_can_be(known, wanted, error, words):
    """It is refused at the call, with what is meant."""
    with pytest.raises(error, match=words):
        known.query('fits', result=wanted)


# --- declared columns ------------------------------------------------------------------------------


def plan(proj, query):
    text, values = query._statements.rows(10, 0)
    rows = proj._store.index._connections.read(
        lambda driver: driver.execute(f'EXPLAIN QUERY PLAN {text}', values).fetchall()
    )
    return ' '.join(row[3] for row in rows)


def declared(base, columns, **more):
    proj = Project(base)

    @proj.resource('fits', columns=columns, **more)
    def fits(ident, args, subdir):
        return {'score': args['C'], 'model': {'kind': 'svc'}}

    return proj


def test_a_declared_column_has_an_index_and_a_name(base):
    """It sorts without reading all rows, and has its name in frames and --columns, also where no code is."""
    with declared(base, {'score': 'result.score', 'kind': 'result.model.kind'}) as proj:
        proj.fetch_many('fits', grid(C=range(20)), executor='inline').wait()
        query = proj.query('fits', order_by='-score', limit=3)
        assert query.idents() == ['C=19', 'C=18', 'C=17']
        assert 'USING INDEX part result.score (collection=?)' in plan(proj, query)
        assert 'B-TREE FOR ORDER BY' not in plan(proj, query)
    with Project(base, create=False) as proj:
        assert proj.query('fits', order_by='-score', limit=1).idents() == ['C=19']
    shown = call('query', base, 'fits', '--columns', 'score,kind', '--order-by', '-score', '--limit', '1')
    assert shown.stdout == 'score\tkind\n19\tsvc\n'
    frame = Project(base, create=False).query('fits').to_pandas(results=['kind', 'score'])
    assert list(frame.columns[-2:]) == ['kind', 'score']


def test_what_is_declared_no_more_goes(base):
    """Its index is dropped, and what other collections declare stays."""
    names = "SELECT name FROM sqlite_master WHERE name LIKE 'part %' ORDER BY 1"
    with declared(base, {'score': 'result.score', 'C': 'args.C'}) as proj:
        proj.query('fits')
        assert [row['name'] for row in proj.sql(names)] == ['part args.C', 'part result.score']
    with Project(base) as proj:
        proj.resource('other', columns={'size': 'result.size'})(lambda ident, args, subdir: None)
        proj.query('other')
        assert [row['name'] for row in proj.sql(names)] == [
            'part args.C',
            'part result.score',
            'part result.size',
        ]
    with declared(base, {'C': 'args.C'}) as proj:
        proj.query('fits')
        assert [row['name'] for row in proj.sql(names)] == ['part args.C', 'part result.size']
        proj.reindex(fresh=True)
        proj.query('fits')
        assert [row['name'] for row in proj.sql(names)] == ['part args.C', 'part result.size']


@pytest.mark.parametrize(
    ('options', 'words'),
    [
        ({'columns': {'status': 'result.status'}}, 'which no column has'),
        ({'columns': {'a b': 'result.a'}}, 'which no column has'),
        ({'columns': {'a': 'a'}}, 'is no part of args or result'),
        ({'columns': {'a': 'result'}}, 'such as result.score'),
        ({'index_result': True}, 'index_result must be'),
        ({'index_result': -1}, 'index_result must be'),
    ],
    ids=str,
)
def test_options_that_declare_nothing(proj, options, words):
    """A collection's options are checked when it is registered."""
    with pytest.raises(ValueError, match=words):
        proj.resource('fits', **options)(lambda ident, args, subdir: 1)
