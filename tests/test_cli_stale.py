"""The commands on what is stale: `stale`, `run --stale`, `explain`, and what `show` says was used."""

import json

import pytest
from test_cli_tools import call

from hadrosaur import Project

JOBS = """
from hadrosaur import Project

proj = Project({base!r})
calls = []

@proj.resource('low', version={version!r})
def low(ident, args, subdir):
    if args.get('bad'):
        raise ValueError('bad')
    return 1

@proj.resource('high')
def high(ident, args, subdir):
    return proj.fetch('low', ident).value + 1
"""


@pytest.fixture
def jobs(base, tmp_path):
    """A base whose first stage has another version by now: the file of the program, for each version."""
    with Project(base) as proj:
        proj.resource('low', version='1')(lambda ident, args, subdir: 1)
        proj.resource('high')(lambda ident, args, subdir: proj.fetch('low', ident).value + 1)
        for ident in ('x', 'y'):
            proj.fetch('low', ident, {'n': 1})
            proj.fetch('high', ident)
        proj.query()[:]
    made = []

    def write(version):
        path = tmp_path / f'jobs{len(made)}_{tmp_path.name}.py'.replace('-', '_')
        path.write_text(JOBS.format(base=str(base), version=version))
        made.append(path)
        return f'{path}:proj'

    return write


def out(*args, code=0):
    done = call(*args)
    assert done.exit_code == code, (done.stdout, done.stderr)
    return done.stdout


def test_stale_lists_what_is_stale_and_why(base, jobs):
    """A line for each, the nearest reason; --json, --csv and --idents."""
    assert out('stale', base) == 'collection\tident\tbecause\n'
    assert 'nothing is stale' in call('stale', base).stderr
    with Project(base) as proj:
        proj.resource('low', version='1')(lambda ident, args, subdir: 1)
        proj.fetch('low', 'x', recompute=True)
    assert out('stale', base).splitlines()[1:] == ['high\tx\tlow/x was computed again']
    row = {'collection': 'high', 'ident': 'x', 'stale_because': 'low/x was computed again'}
    assert json.loads(out('stale', base, 'high', '--json')) == [row]
    assert out('stale', base, '--csv').splitlines()[1] == 'high,x,low/x was computed again'
    assert out('stale', base, '--idents') == 'x\n'
    assert out('stale', base, 'low', '--idents') == ''
    assert call('stale', base, 'hihg').exit_code == 3


def test_run_stale_computes_exactly_that(base, jobs):
    """From the leaves up, with the args that they had; nothing at all the second time."""
    target = jobs('2')
    planned = [line.split('\t') for line in out('run', target, '--stale', '-n').splitlines()]
    assert [plan[1:3] for plan in planned] == [['low', 'x'], ['low', 'y'], ['high', 'x'], ['high', 'y']]
    assert out('run', target, '--stale', '--executor', 'inline').startswith('4 completed, 0 failed')
    assert json.loads(out('run', jobs('2'), '--stale', '--json'))['total'] == 0
    assert out('stale', base, '--idents') == ''
    with Project(base) as proj:
        assert {entry.args['n'] for entry in proj.query('low')} == {1}
        assert {entry.version for entry in proj.query('low')} == {'2'}
    assert json.loads(out('run', jobs('3'), 'low', '--stale', '--executor', 'inline', '--json'))['total'] == 2
    assert out('stale', base, '--idents') == 'x\ny\n'


@pytest.mark.parametrize('words', [['low', 'x', '--stale'], ['--stale', '--args', '{}'], ['--recompute'], []])
def test_run_stale_takes_no_idents(words, base, jobs):
    """What is stale is found by itself; without --stale there must be a collection."""
    assert call('run', jobs('1'), *words).exit_code == 2


def test_run_stale_of_what_is_not_there(base, jobs):
    """A collection that the module does not register is named, before anything is computed."""
    done = call('run', jobs('1'), 'lwo', '--stale')
    assert done.exit_code == 3
    assert "'lwo'" in done.stderr


def test_explain_names_the_chain_and_what_differs(base, jobs):
    """Which arg and which version is another, old and new, and through which resources it comes."""
    with Project(base) as proj:
        proj.resource('low', version='2')(lambda ident, args, subdir: 1)
        proj.query()[:]
    why = 'low/x was computed by version 1, and now there is 2'
    assert out('explain', base, 'high', 'x').splitlines() == [
        f'would not be computed: it is completed, and stale: low/x is stale: {why}',
        '  high/x used low/x',
    ]
    lines = out('explain', base, 'low', 'x', '--args', '{"n": 2, "m": "new"}').splitlines()
    assert lines[1:] == ['  args.m: null, now "new"', '  args.n: 1, now 2', '  version: "1", now "2"']
    found = json.loads(out('explain', base, 'low', 'x', '--args', '{"n": 2}', '--json'))
    assert found['differences'][0] == {'what': 'args.n', 'old': 1, 'new': 2}
    assert found['chain'] == ['low/x']


def test_show_says_what_was_used(base, jobs):
    """`show` names what the function fetched; --json has the run of each."""
    assert 'low/x' in next(line for line in out('show', base, 'high', 'x').splitlines() if 'used' in line)
    [use] = json.loads(out('show', base, 'high', 'x', '--json'))['uses']
    assert use['collection'] == 'low'
    assert len(use['run']) == 24
