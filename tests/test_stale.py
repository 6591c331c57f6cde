"""What is stale: by version, age, inputs and what it used; asked of all in one query, or of one folder."""

import json
import os
import random
import shutil
import sqlite3
import threading
from contextlib import closing

import pytest
from conftest import HANG, await_that

from hadrosaur import CycleError, HadrosaurError, Project, StaleWarning, UnknownCollection, dependencies
from hadrosaur.index import Index
from hadrosaur.records import Entry, Facts, format_time

CHAIN = ('a', 'b', 'c')  # each fetches the one before, of the same ident


def chain(base, calls=None, **options):
    """Three collections, each using the one before; what is called is noted. Options by collection."""
    proj = Project(base)

    def make(name, before):
        def function(ident, args, subdir):
            if calls is not None:
                calls.append(f'{name}/{ident}')
            return 1 if before is None else proj.fetch(before, ident).value + 1

        proj.resource(name, **options.get(name, {}))(function)

    for before, name in zip((None, *CHAIN), CHAIN, strict=False):
        make(name, before)
    return proj


def stale(proj, *collection):
    """What is stale, and why."""
    rows = proj.query(*collection, stale=True)
    return {f'{row.collection}/{row.ident}': row.stale_because for row in rows}


def test_another_version_makes_all_that_follows_stale(base):
    """The one that was made by another version, and those that used it, directly or not."""
    with chain(base) as proj:
        proj.fetch_many('c', ['x', 'y'], executor='inline').wait()
        assert stale(proj) == {}
        assert len(proj.query(stale=False)) == 6
    with chain(base, b={'version': '2'}) as proj:
        why = 'was computed without a version, and now there is 2'
        assert stale(proj) == {
            'b/x': f'it {why}', 'b/y': f'it {why}',
            'c/x': f'b/x is stale: b/x {why}', 'c/y': f'b/y is stale: b/y {why}',
        }  # fmt: skip
        assert proj.query(stale=False, order_by='ident').idents() == ['x', 'y']
        explained = proj.explain('c', 'x')
        assert explained.chain == ('c/x', 'b/x')
        assert proj.explain('b', 'x').differences == (('version', None, '2'),)
        assert proj.query('a', stale=True).first() is None


@pytest.mark.parametrize(
    ('change', 'why'),
    [
        (lambda proj, base: proj.fetch('a', 'x', recompute=True), 'was computed again'),
        (lambda proj, base: proj.remove('a', 'x'), 'is gone'),
        (lambda proj, base: shutil.rmtree(base / 'a/x') or proj.reindex(), 'is gone'),
        (lambda proj, base: os.rename(base / 'a/x', base / 'a/renamed') or proj.reindex(), 'is gone'),
        (lambda proj, base: (base / 'a/x/status.json').unlink() or proj.reindex(), 'is gone'),
        (
            lambda proj, base: (
                (shutil.rmtree(base / 'a/x'), shutil.copytree(base / 'a/other', base / 'a/x'))
                and proj.reindex()
            ),
            'was computed again',
        ),
    ],
    ids=['recomputed', 'removed', 'deleted', 'renamed', 'status', 'replaced'],
)
def test_what_becomes_of_an_upstream(change, why, base):
    """Computed again (with the same result), removed, renamed or replaced: what used it is stale."""
    with chain(base) as proj:
        proj.fetch('c', 'x')
        proj.fetch('a', 'other')
        change(proj, base)
        assert stale(proj) == {'b/x': f'a/x {why}', 'c/x': f'b/x is stale: a/x {why}'}
        assert proj.stale_because('c', 'x') == f'b/x is stale: a/x {why}'
        proj.reindex(fresh=True)
        assert set(stale(proj)) == {'b/x', 'c/x'}


def test_what_comes_back_is_fresh_again(base):
    """The run decides, not the time: a folder that is put back makes nothing stale."""
    with chain(base) as proj:
        proj.fetch('c', 'x')
        shutil.copytree(base / 'a/x', base.parent / 'kept')
        proj.fetch('a', 'x', recompute=True)
        assert set(stale(proj)) == {'b/x', 'c/x'}
        shutil.rmtree(base / 'a/x')
        shutil.copytree(base.parent / 'kept', base / 'a/x')
        for name in ('status.json', 'record.json'):
            os.utime(base / 'a/x' / name)
        proj.reindex(changed_only=True)
        assert stale(proj) == {}
        assert proj.stale_because('c', 'x') is None


def test_an_upstream_that_is_being_computed(base):
    """While one is computed anew, what used it is stale; the run that is under way is not."""
    calls, begun, go_on = [], threading.Event(), threading.Event()
    with chain(base, calls) as proj:
        proj.fetch('c', 'x')

        def wait(ident, args, subdir):
            begun.set()
            assert go_on.wait(HANG)
            return 1

        other = Project(base)
        other.resource('a')(wait)
        with other:
            thread = threading.Thread(target=other.fetch, args=('a', 'x'), kwargs={'recompute': True})
            thread.start()
            assert begun.wait(HANG)
            await_that(lambda: proj.query('a')[0].status == 'pending')
            assert stale(proj) == {
                'b/x': 'a/x is being computed', 'c/x': 'b/x is stale: a/x is being computed',
            }  # fmt: skip
            go_on.set()
            thread.join(HANG)
        assert stale(proj)['b/x'] == 'a/x was computed again'


def test_an_upstream_that_is_recomputed_while_one_runs(base):
    """A run keeps the id that it was given: what is computed again meanwhile makes it stale at once."""
    fetched, go_on = threading.Event(), threading.Event()
    with chain(base) as proj, chain(base) as other:

        @proj.resource('slow', capture='off')
        def slow(ident, args, subdir):
            value = proj.fetch('a', ident).value
            fetched.set()
            assert go_on.wait(HANG)
            return value

        proj.fetch('a', 'x')
        thread = threading.Thread(target=proj.fetch, args=('slow', 'x'))
        thread.start()
        assert fetched.wait(HANG)
        other.fetch('a', 'x', recompute=True)
        go_on.set()
        thread.join(HANG)
        assert stale(proj) == {'slow/x': 'a/x was computed again'}


def test_an_upstream_in_error_and_what_is_expired(base):
    """One that failed when it was computed again is another run; one that is too old is stale."""
    fails = []
    with chain(base, c={'expires_after': 3600}) as proj:

        @proj.resource('low')
        def low(ident, args, subdir):
            if fails:
                raise ValueError(ident)
            return 1

        proj.resource('high')(lambda ident, args, subdir: proj.fetch('low', ident).value)
        proj.fetch('high', 'x')
        fails.append(1)
        proj.fetch('low', 'x', recompute=True)
        assert stale(proj) == {'high/x': 'low/x was computed again'}
        proj.fetch('c', 'x')
        path = base / 'c/x/record.json'
        record = json.loads(path.read_text())
        path.write_text(json.dumps({**record, 'finished_at': '2026-01-01T00:00:00.000000Z'}))
        proj.reindex('c')
        assert stale(proj, 'c') == {'c/x': 'it is older than 3600 s'}


def test_rows_of_other_machines_are_looked_for(base, tmp_path):
    """An index that is not the only one may lack the row of what was used: its folder is looked at first."""
    with chain(base) as proj:
        proj.fetch('a', 'x')
    mine = Project(base, index=tmp_path / 'mine.sqlite3')
    with mine:
        mine.query()[:]
        with closing(sqlite3.connect(tmp_path / 'mine.sqlite3')) as index:
            index.execute('delete from resources')
            index.commit()
        mine.resource('b')(lambda ident, args, subdir: mine.fetch('a', ident).value)
        mine.resource('a')(lambda ident, args, subdir: 1)
        mine.fetch('b', 'x')
        assert stale(mine) == {}
        assert mine.query('a').idents() == ['x']


# --- brought up to date ----------------------------------------------------------------------------


def test_fetch_many_of_what_is_stale_goes_from_the_leaves_up(base):
    """Exactly what is stale is computed, each once, and what others used comes first."""
    with chain(base) as proj:
        proj.fetch_many('c', ['x', 'y', 'z'], executor='inline').wait()
    calls = []
    with chain(base, calls, a={'version': '2'}) as proj:
        proj.fetch_many('a', ['x', 'y'], executor='inline', recompute=True).wait()
        proj.fetch('b', 'y', recompute=True)
        calls.clear()
        counts = proj.fetch_many('c', proj.query('c', stale=True), recompute=True, executor='inline').wait()
        assert (counts.total, counts.completed, counts.reused) == (3, 3, 0)
        assert sorted(calls) == ['a/z', 'b/x', 'b/z', 'c/x', 'c/y', 'c/z']
        assert calls.index('a/z') < calls.index('b/z') < calls.index('c/z')
        assert stale(proj) == {}
        assert proj.fetch_many('c', proj.query('c', stale=True), recompute=True).wait().total == 0
        proj.resource('d')(lambda ident, args, subdir: proj.fetch('a', 'x').value)
        proj.fetch('d', 'own')
        proj.fetch('a', 'x', recompute=True)
        assert repr(proj.query('c', stale=True)).startswith("<Query(collection='c', stale=True")
        calls.clear()
        everything = proj.query(stale=True)  # of all collections: those of the one that is named are meant
        assert proj.fetch_many('c', everything, recompute=True, executor='inline').wait()[:2] == (1, 1)
        assert calls == ['b/x', 'c/x']


def test_one_collection_that_uses_itself(base):
    """Resources of one collection that used each other are computed in turn, each once."""
    calls = []

    def numbers(version):
        proj = Project(base)

        @proj.resource('fib', version=version)
        def fib(ident, args, subdir):
            calls.append(int(ident))
            return 1 if int(ident) < 2 else sum(proj.fetch('fib', int(ident) - n).value for n in (1, 2))

        return proj

    with numbers('1') as proj:
        assert proj.fetch('fib', 7).value == 21
    calls.clear()
    with numbers('2') as proj:
        batch = proj.fetch_many('fib', proj.query('fib', stale=True), recompute=True, executor='inline')
        assert batch.wait() == (8, 8, 0, 0, 0)
        assert sorted(calls) == list(range(8))
        assert stale(proj) == {}


def test_an_upstream_that_cannot_be_computed_here(base):
    """Where the function of a stale upstream is not registered, that is said before anything is computed."""
    with chain(base, a={'version': '1'}) as proj:
        proj.fetch('c', 'x')
    with chain(base, a={'version': '2'}) as proj:
        proj.query(stale=True)[:]
    proj = Project(base)
    proj.resource('c')(lambda ident, args, subdir: 1)
    with proj:
        assert set(stale(proj)) == {'a/x', 'b/x', 'c/x'}  # versions are known from the program before
        with pytest.raises(UnknownCollection, match="'a'"):
            proj.fetch_many('c', proj.query('c', stale=True), recompute=True, executor='inline').wait()


def test_a_cycle_of_dependencies_is_one_sentence(base):
    """Those that used each other cannot be brought up to date one after the other."""
    proj = Project(base)
    with proj:
        proj.resource('a')(lambda ident, args, subdir: proj.fetch('b', 'x').value if args else 1)
        proj.resource('b')(lambda ident, args, subdir: proj.fetch('a', 'x').value + 1)
        proj.fetch('b', 'x')
        proj.fetch('a', 'x', {'n': 1}, recompute=True)
        assert set(stale(proj)) == {'a/x', 'b/x'}
        batch = proj.fetch_many('a', proj.query('a', stale=True), recompute=True, executor='inline')
        with pytest.raises(CycleError, match='a/x, which used b/x, which used a/x'):
            batch.wait()


# --- policies --------------------------------------------------------------------------------------


def test_keep_looks_at_nothing(base, monkeypatch):
    """By default a fetch serves what is saved, and reads no record for it."""
    calls = []
    with chain(base, calls) as proj:
        proj.fetch('c', 'x')
        proj.fetch('a', 'x', recompute=True)
        calls.clear()
        monkeypatch.setattr('hadrosaur.directory.record_data', None)
        assert proj.fetch('c', 'x').value == 3
        assert proj.fetch_many('c', ['x'], executor='inline').wait().reused == 1
        assert calls == []


def test_warn_and_error(base):
    """'warn' serves what is saved and says why it is stale; 'error' refuses, with the same reason."""
    with chain(base) as proj:
        proj.fetch('c', 'x')
        proj.fetch('a', 'x', recompute=True)
    with chain(base, c={'on_upstream_change': 'warn'}, b={'on_upstream_change': 'error'}) as proj:
        with pytest.warns(StaleWarning, match='c/x is stale: b/x is stale: a/x was computed again'):
            assert proj.fetch('c', 'x').value == 3
        with pytest.raises(HadrosaurError, match='b/x is stale: a/x was computed again'):
            proj.fetch('b', 'x')
        [failed] = proj.fetch_many('b', ['x'], executor='inline')
        assert 'is stale' in failed.error
        assert proj.explain('b', 'x').refused
        assert proj.explain('b', 'x').code == 'upstream'


@pytest.mark.parametrize('executor', ['fetch', 'inline', 'processes'])
def test_recompute_follows_the_policies_down(executor, base):
    """Where all say 'recompute', one fetch of the last brings all up to date, each once, and then no more."""
    options = {name: {'on_upstream_change': 'recompute'} for name in CHAIN}
    with chain(base, **options) as proj:
        proj.fetch('c', 'x')
        proj.fetch('a', 'x', recompute=True)
        assert proj.explain('c', 'x').computes
        runs = [json.loads((base / name / 'x/record.json').read_text())['run'] for name in CHAIN]
        for _ in range(2):
            if executor == 'fetch':
                assert proj.fetch('c', 'x').value == 3
            else:
                assert proj.fetch_many('c', ['x'], executor=executor, workers=1).wait().completed == 1
            now = [json.loads((base / name / 'x/record.json').read_text())['run'] for name in CHAIN]
            assert [before != after for before, after in zip(runs, now, strict=True)] in (
                [False, True, True],
                [False, False, False],
            )
            first, runs = runs, now
        assert first == now
        assert stale(proj) == {}
        assert not proj.explain('c', 'x').computes


def test_recompute_passes_over_what_a_fetch_would_give_as_it_is(base):
    """An upstream that is stale, and whose own policy keeps it, is no reason to compute again and again."""
    calls = []
    with chain(base, calls, c={'on_upstream_change': 'recompute'}) as proj:
        proj.fetch('c', 'x')
        proj.fetch('a', 'x', recompute=True)
        calls.clear()
        proj.fetch('c', 'x')
        assert calls == []
        proj.fetch('b', 'x', recompute=True)
        calls.clear()
        proj.fetch('c', 'x')
        proj.fetch('c', 'x')
        assert calls == ['c/x']


@pytest.mark.parametrize('name', ['on_upstream_change', 'on_input_change'])
def test_a_policy_that_there_is_not(name, base):
    """What is no policy is refused, with those that there are."""
    with pytest.raises(ValueError, match=f"{name} must be one of 'warn', 'recompute', 'error', 'keep'"):
        Project(base).resource('a', **{name: 'always'})(lambda ident, args, subdir: 1)


# --- against an oracle -----------------------------------------------------------------------------


def population(chosen):
    """Random resources and facts: [(key, status, run, version, finished, uses)], facts."""
    keys = [(name, str(number)) for name in 'abc' for number in range(chosen.randint(0, 3))]
    now = 1_700_000_000
    found = []
    for key in keys:
        status = chosen.choice(['completed', 'completed', 'completed', 'error', 'pending', 'absent'])
        uses = [
            (*other, chosen.choice(['r1', 'r1', 'r1', 'r2']))
            for other in chosen.sample([*keys, ('d', 'none')], chosen.randint(0, min(3, len(keys))))
            if status != 'pending' and other != key and (other[0] != 'd' or chosen.random() < 0.2)
        ]
        found.append(
            (key, status, 'r1', chosen.choice([None, '1', '1', '2']), now - chosen.choice([0, 50]), uses)
        )
    facts = {
        name: Facts(chosen.choice([None, None, '1']), chosen.choice([None, None, 10.0])) for name in 'abc'
    }
    return found, facts, now


def oracle(found, facts, now):
    """What is stale: by the definition, until nothing is added."""
    states = {key: (status, run) for key, status, run, *_ in found}
    done = [each for each in found if each[1] in ('completed', 'error')]
    stale = {
        key
        for key, _, _, version, finished, uses in done
        if (facts[key[0]].version is not None and version != facts[key[0]].version)
        or (facts[key[0]].expires_after is not None and now - finished > facts[key[0]].expires_after)
        or any(
            states.get((name, ident), ('absent', ''))[0] in ('absent', 'pending')
            or states[name, ident][1] != run
            for name, ident, run in uses
        )
    }
    while more := {
        key for key, *_, uses in done if key not in stale and any((n, i) in stale for n, i, _ in uses)
    }:
        stale |= more
    return stale


def entry_of(each):
    key, status, run, version, finished, uses = each
    lines = [[*use, ''] for use in uses]
    return Entry.make(
        collection=key[0], ident=key[1], status=status, run=run, version=version, attempt=1,
        finished_at=format_time(finished), uses=json.dumps(lines) if lines else None, path='/'.join(key),
    )  # fmt: skip


def write(base, each):
    """The folder of a resource, as small as it may be."""
    key, status, run, version, finished, uses = each
    folder = base / key[0] / key[1]
    folder.mkdir(parents=True)
    said = {name: name == status for name in ('completed', 'pending', 'error')}
    (folder / 'status.json').write_text(json.dumps(said))
    known = {'run': run, 'version': version, 'finished_at': format_time(finished), 'state': status}
    (folder / 'record.json').write_text(json.dumps({**known, 'uses': [[*use, ''] for use in uses]}))
    return {**known, 'uses': [[*use, ''] for use in uses]}


def is_equal_to_the_oracle(seeds, tmp_path, monkeypatch):
    index = Index(tmp_path / 'index.sqlite3', lock_path=tmp_path / 'lock')
    index.collections()
    driver = sqlite3.connect(tmp_path / 'index.sqlite3', isolation_level=None)
    seen = [0, 0]
    with closing(index), closing(driver):
        for seed in seeds:
            found, facts, now = population(random.Random(seed))
            monkeypatch.setattr('time.time', lambda now=now: now)
            driver.execute('DELETE FROM resources')
            index.merge([(entry_of(each), None) for each in found if each[1] != 'absent'])
            expected = oracle(found, facts, now)
            told = {(row.collection, row.ident) for row in index.find(stale=True, facts=facts)}
            assert told == expected, (seed, found, facts)
            fresh = {(row.collection, row.ident) for row in index.find(stale=False, facts=facts)}
            assert fresh == {each[0] for each in found if each[1] != 'absent'} - expected, seed
            base = tmp_path / str(seed)
            records = {each[0]: write(base, each) for each in found if each[1] != 'absent'}
            for key, status, *_ in found:
                if status in ('completed', 'error'):
                    cause = dependencies.cause(str(base), key, records[key], facts)
                    assert (cause is not None) == (key in expected), (seed, key, cause)
                    seen[key in expected] += 1
            edges = list(index.stale_edges(facts))
            assert {key for key, _ in edges} == expected
            shutil.rmtree(base, ignore_errors=True)
    assert min(seen) > len(seeds) // 2, seen
    return seen


def test_stale_is_what_an_oracle_says(tmp_path, monkeypatch):
    """Index and folders tell of random graphs what the definition says in plain Python."""
    is_equal_to_the_oracle(range(100), tmp_path, monkeypatch)


@pytest.mark.long
def test_stale_is_what_an_oracle_says_2000_times(tmp_path, monkeypatch):
    """The same for 2 000 graphs; how many resources were stale and fresh is printed."""
    fresh, found = is_equal_to_the_oracle(range(100, 2100), tmp_path, monkeypatch)
    print(f'2 000 graphs: {found} stale, {fresh} fresh')


def test_two_who_find_it_stale_compute_it_once(base, monkeypatch):
    """Somebody was faster after it was found to be stale: what they computed is taken."""
    calls, options = [], {'b': {'on_upstream_change': 'recompute'}}
    with chain(base, calls, **options) as proj, chain(base, calls, **options) as other:
        proj.fetch('b', 'x')
        proj.fetch('a', 'x', recompute=True)
        calls.clear()
        real = proj._store.job

        def job(*args, **more):
            if not calls:
                other.fetch('b', 'x')
            return real(*args, **more)

        monkeypatch.setattr(proj._store, 'job', job)
        assert proj.fetch('b', 'x').value == 2
        assert calls == ['b/x']


def test_rows_that_somebody_wrote(base):
    """Cells that are no lists of uses and inputs make nothing stale by themselves, and nothing fails."""
    with chain(base) as proj:
        proj.fetch('b', 'x')
        proj.query()[:]
        with closing(sqlite3.connect(base / 'index.sqlite3')) as index:
            index.execute("update resources set inputs = '[[1, 2], 5]', version = 'other'")
            index.commit()
        assert stale(proj) == {}
    with chain(base, b={'version': '2'}) as proj:
        assert set(stale(proj)) == {'b/x'}
        assert proj.query('b')[0].inputs == ['1']
