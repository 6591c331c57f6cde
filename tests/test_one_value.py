"""Completed always comes with the value of one run, whole, whoever computes or removes it at that moment."""

import json
import os
import pickle
import subprocess
import sys
import textwrap
import threading

import pytest

from hadrosaur import Project, ResourceError, directory, fileops, handle
from hadrosaur.records import RunResult

LONG = 90_000  # characters, more than one reading

STORM = """
    import os, random, sys
    from hadrosaur import Project, ResourceError

    number, rounds, length = map(int, sys.argv[2:])
    chance = random.Random(number)
    proj = Project(sys.argv[1])

    @proj.resource('coll', on_args_change='keep')
    def compute(ident, args, subdir):
        mark = os.urandom(8).hex()
        return {'args': args, 'mark': mark, 'body': [mark] * chance.randrange(1, length // 20), 'end': mark}

    seen = faults = 0
    def examine(res, how):
        global seen, faults
        if res is None or res['status']['pending']:
            return
        if res['status']['error'] and res.entry.error_type == 'ResourceNotFound':  # removed just then
            return
        seen += 1
        value = res['result']
        whole = res['status']['completed'] and isinstance(value, dict) and value['end'] == value['mark'] and (
            set(value['body']) == {value['mark']})
        try:
            whole = whole and res.args == value['args']
        except ResourceError:  # it was computed again since
            pass
        if not whole:
            faults += 1
            print(number, how, res['status'], str(value)[:60], res.error, res.args, file=sys.stderr)

    for n in range(rounds):
        ident, args = f'shared{chance.randrange(2)}', {'by': number, 'n': n}
        how = chance.choice(['fetch', 'fetch', 'args', 'recompute', 'remove', 'get', 'many', 'explain'])
        try:
            if how == 'fetch':
                examine(proj.fetch('coll', ident), how)
            elif how == 'args':
                examine(proj.fetch('coll', ident, args), how)
            elif how == 'recompute':
                examine(proj.fetch('coll', ident, args, recompute=True), how)
            elif how == 'remove':
                proj.remove('coll', ident)
            elif how == 'get':
                examine(proj.get('coll', ident), how)
            elif how == 'explain':
                proj.explain('coll', ident, args)
            else:
                for res in proj.fetch_many('coll', ['shared0', 'shared1'], args, executor='inline'):
                    examine(res, how)
        except ResourceError as error:  # it is being computed, or is not there
            if type(error).__name__ not in ('ResourceError', 'ResourceNotFound'):
                raise
    proj.close()
    print(seen, faults)
"""


@pytest.mark.long
def test_five_processes_that_fetch_compute_and_remove_the_same(base, tmp_path):
    """Each value that one of them gets proves its run and its args, and is longer than one reading."""
    script = tmp_path / 'storm.py'
    script.write_text(textwrap.dedent(STORM))
    command = [sys.executable, str(script), str(base)]
    started = [
        subprocess.Popen(
            [*command, str(number), '120', str(4 * LONG)],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for number in range(5)
    ]
    try:
        told = [process.communicate(timeout=300) for process in started]
    finally:
        for process in started:
            process.kill()
            process.wait()
    for process, (_, err) in zip(started, told, strict=True):
        assert process.returncode == 0, err
        assert 'damaged' not in err
    counted = [tuple(map(int, out.split())) for out, _ in told]
    assert sum(faults for _, faults in counted) == 0, ''.join(err for _, err in told)
    assert sum(seen for seen, _ in counted) > 100


# --- step by step ----------------------------------------------------------------------------------------


@pytest.fixture
def kept(proj):
    """A collection whose value tells its args and its run, longer than one reading."""

    @proj.resource('coll', on_args_change='keep')
    def compute(ident, args, subdir):
        mark = os.urandom(4).hex()
        if args.get('fails'):
            raise ValueError(f'failed by {args}')
        return {'args': args, 'mark': mark, 'body': [mark] * (LONG // 10)}

    proj.fetch('coll', 'a', {'n': 0})
    return proj


def between(monkeypatch, name, act, times=1):
    """Have something done right after a file of that name was opened and read, so many times."""
    real, left = fileops.read, [times]

    def read(called, folder, *more):
        data = real(called, folder, *more)
        if called == name and left[0] > 0:
            left[0] -= 1
            act()
        return data

    monkeypatch.setattr(fileops, 'read', read)


def elsewhere(act):
    """Done by another thread, as another process would do it."""

    def run():
        thread = threading.Thread(target=act)
        thread.start()
        thread.join()

    return run


@pytest.mark.parametrize('name', ['record.json', 'result.json'])
@pytest.mark.parametrize('args', [None, {'n': 1}])
@pytest.mark.parametrize('how', ['fetch', 'get', 'fetch_many'])
def test_computed_again_between_two_readings(kept, monkeypatch, name, args, how):
    """Value and args are of one run, though another began and ended while they were read."""

    def again():
        kept.fetch('coll', 'a', {'n': 2}, recompute=True)

    between(monkeypatch, name, elsewhere(again))
    if how == 'fetch':
        res = kept.fetch('coll', 'a', args)
    elif how == 'get':
        res = kept.get('coll', 'a')
    else:
        (res,) = kept.fetch_many('coll', ['a'], args, executor='inline')
    assert res.status == 'completed'
    assert set(res.result['body']) == {res.result['mark']}
    try:
        told = res.args
    except ResourceError:  # computed again since; so the value is the old one
        told = {'n': 0}
    assert res.result['args'] == told


def test_what_is_asked_of_a_snapshot_later_is_of_its_run_or_refused(kept, base):
    """args, entry and error never tell of a later run; a pickled snapshot is no different."""
    res, copy = kept.fetch('coll', 'a'), pickle.loads(pickle.dumps(kept.fetch('coll', 'a')))
    early = kept.fetch('coll', 'a')
    assert early.args == {'n': 0}
    res['result']['mark'] = 'changed by its owner'
    assert res.args == {'n': 0}
    res = kept.fetch('coll', 'a')
    kept.fetch('coll', 'a', {'n': 5}, recompute=True)
    for one in (res, copy):
        for name in ('args', 'entry', 'duration', 'started_at', 'finished_at'):
            with pytest.raises(ResourceError, match='computed again'):
                getattr(one, name)
    assert early.args == {'n': 0}
    compared = kept.fetch('coll', 'a', {'n': 9})
    kept.remove('coll', 'a')
    assert compared.args == {'n': 5}

    failed = kept.fetch('coll', 'a', {'fails': 1}, recompute=True)
    got = kept.get('coll', 'a')
    assert "failed by {'fails': 1}" in got.error
    again = kept.fetch('coll', 'a', {'fails': 2})
    assert "failed by {'fails': 2}" in again.error.splitlines()[-1]
    for one in (failed, got):
        assert one.error == "failed by {'fails': 1}"
        assert one.args == {'fails': 1}


@pytest.mark.parametrize(
    ('meanwhile', 'expected'),
    [('again', 'completed'), ('removed', 'error'), ('fails', 'error'), ('goes on', 'pending')],
)
def test_a_long_result_that_is_no_more_when_its_outcome_is_told(kept, base, meanwhile, expected):
    """A worker's long result is read from disk: by then it may be another run's, being computed, or gone."""
    collection, store = kept._registry.get('coll'), kept._store
    order = store.job(collection, 'a', '{"n":0}', 'a')
    outcome = RunResult(order.run, kept.fetch('coll', 'a').entry, None, fresh=True)
    if meanwhile == 'removed':
        kept.remove('coll', 'a')
    elif meanwhile == 'goes on':
        (base / 'coll/a/status.json').write_bytes(directory.STATUS_BYTES['pending'])
    else:
        kept.fetch('coll', 'a', {'fails': 7} if meanwhile == 'fails' else {'n': 7}, recompute=True)
    res = store.resource_of(collection, order, outcome)
    assert res.status == expected
    if expected == 'completed':
        assert res.args == res.result['args'] == {'n': 7}
    else:
        assert res.result is None
    if meanwhile == 'fails':
        assert "failed by {'fails': 7}" in res.error
    if meanwhile == 'removed':
        assert res.entry.error_type == 'ResourceNotFound'


def test_a_batch_waits_for_what_is_computed_again_before_it_was_read(kept, monkeypatch):
    """It yields the value once it is there, neither None nor an error."""
    real, states = handle.look, ['pending']

    def look(path, folder, **more):
        found = real(path, folder, **more)
        if more.get('with_record') and found.state == 'completed' and states:
            return handle.FolderState(states.pop())
        return found

    monkeypatch.setattr('hadrosaur.store.look', look)
    (res,) = kept.fetch_many('coll', ['b'], {'n': 3}, workers=1)
    assert not states
    assert res.status == 'completed'
    assert res.result['args'] == {'n': 3}


def test_a_result_of_any_length_is_read_whole_or_called_damaged(proj, base):
    """Every front part of a result is damaged, a number's too."""
    proj.resource('coll')(lambda ident, args, subdir: 0)
    proj.fetch('coll', 'a')
    for value in (123456, 'text', [1, 2], {'a': {'b': None}}, True, ['x' * 70_000]):
        data = json.dumps(value).encode() + b'\n'
        for length in {*range(min(len(data) - 1, 40)), len(data) // 2, len(data) - 2}:
            (base / 'coll/a/result.json').write_bytes(data[:length])
            found = handle.look(str(base / 'coll'), 'a')
            assert (found.value, found.damage is not None) == (None, True), data[:length]
        (base / 'coll/a/result.json').write_bytes(data)
        assert handle.look(str(base / 'coll'), 'a').value == value


def test_a_project_of_another_process_sees_the_same(base):
    """A snapshot that was pickled elsewhere is compared as one of our own is."""
    with Project(base) as proj:
        proj.resource('coll')(lambda ident, args, subdir: args)
        proj.fetch('coll', 'a', {'n': 1})
        data = pickle.dumps(proj.fetch('coll', 'a'))
    program = 'import pickle, sys; print(pickle.loads(sys.stdin.buffer.read()).args)'
    done = subprocess.run([sys.executable, '-c', program], input=data, capture_output=True, timeout=300)
    assert done.stdout == b"{'n': 1}\n", done.stderr
