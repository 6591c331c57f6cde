"""Who asks gets what was asked for: with these args, by this version, once more; or is told otherwise.

Whatever the clocks say, whoever else computes the same at that moment, and whichever way one asks.
"""

import contextlib
import itertools
import os
import sys
import threading
import time
import warnings

import pytest
from conftest import await_that
from test_fetching_alike import ask, await_file

import hadrosaur
from hadrosaur import Project

YEARS = 3 * 365 * 86400


@pytest.fixture
def ran():
    """Idents in the order in which they ran, in this process."""
    return []


def counting(project, ran, **options):
    @project.resource('coll', **options)
    def compute(ident, args, subdir):
        ran.append(ident)
        if ident.startswith('bad'):
            raise ValueError(ident)
        return args.get('n', 0)


# --- clocks ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize('offset', [300, YEARS, -300, -YEARS])
@pytest.mark.parametrize('executor', ['inline', 'threads'])
def test_what_a_batch_is_asked_for_needs_no_clock(proj, ran, monkeypatch, offset, executor):
    """Records from the future, or a clock that was set back: each is computed again, and once only."""
    counting(proj, ran)
    idents = ['a', 'bad1', 'b', 'bad2']
    now = time.time
    with monkeypatch.context() as clock:
        clock.setattr(time, 'time', lambda: now() + offset)
        proj.fetch_many('coll', idents, executor=executor).wait()
    ran.clear()
    retried = proj.fetch_many('coll', [*idents, *idents], executor=executor).wait()
    assert sorted(ran) == ['bad1', 'bad2']
    if executor == 'inline':  # else some repeats were merged with what was still on its way
        assert (retried.total, retried.completed, retried.error) == (8, 4, 4)
    ran.clear()
    proj.fetch_many('coll', itertools.chain(idents, idents), executor=executor, recompute=True).wait()
    assert sorted(ran) == sorted(idents)


@pytest.mark.parametrize('offset', [YEARS, -YEARS])
def test_a_result_from_another_time_expires(proj, ran, monkeypatch, offset):
    """One that lies further ahead than a result is good for is computed again, and so good again."""
    counting(proj, ran, expires_after=3600)
    now = time.time
    with monkeypatch.context() as clock:
        clock.setattr(time, 'time', lambda: now() + offset)
        proj.fetch('coll', 'a')
    assert proj.explain('coll', 'a').code == 'age'
    proj.fetch('coll', 'a')
    proj.fetch_many('coll', ['a'], executor='inline').wait()
    proj.fetch('coll', 'a')

    assert ran == ['a', 'a']


def test_a_request_to_cancel_outlives_a_clock_that_is_wrong(base, monkeypatch):
    """Its age is how long it has been seen, and not what the file says: whom it is for may look later."""
    from hadrosaur import basedir

    basedir.request_cancel(str(base), 'coll/a', 'now')
    (request,) = (base / '.hadrosaur/cancel').iterdir()
    os.utime(request, (0, 0))
    for _ in range(3):
        assert basedir.cancel_requests(str(base)) == {('coll/a', 'now')}
    monkeypatch.setattr(basedir, 'REQUEST_LIFE', -1.0)
    assert basedir.cancel_requests(str(base)) == {('coll/a', 'now')}
    assert basedir.cancel_requests(str(base)) == set()


# --- somebody else's run -----------------------------------------------------------------------------------

POLICIES = ['warn', 'keep', 'recompute', 'error']
WAYS = ['fetch', 'value', 'many', 'background']


def asked(project, way, *args):
    if way == 'background':
        return project.fetch('coll', 'x', *args, background=True).wait()
    return ask(project, 'waited' if way == 'fetch' else way, 'coll', 'x', *args)


def judged(policy, way, what, get):
    """Call ``get`` (which gives a Resource) and see that the policy holds, as for a saved result."""
    if policy == 'error' and way != 'many':
        with pytest.raises((hadrosaur.InvalidArgs, hadrosaur.ResourceError), match='was computed'):
            get()
        return
    kind = hadrosaur.ArgsChangedWarning if what == 'args' else hadrosaur.VersionChangedWarning
    with pytest.warns(kind) if policy == 'warn' else contextlib.nullcontext():
        res = get()
    if policy == 'error':
        assert (res.status, 'was computed' in res.entry.error) == ('error', True)
    else:
        assert res.result == ('mine' if policy == 'recompute' else 'theirs')


@pytest.fixture
def others(base, tmp_path):
    """Another Project of the same base, in which a thread computes x, with n = 1, until it is let go."""
    other = Project(base)
    go, began = tmp_path / 'go', tmp_path / 'began'

    @other.resource('coll', version='1')
    def compute(ident, args, subdir):
        began.touch()
        await_file(go)
        return 'theirs'

    thread = threading.Thread(target=lambda: other.fetch('coll', 'x', {'n': 1}))
    thread.start()
    await_that(began.exists)
    yield go
    go.touch()
    thread.join()
    other.close()


@pytest.mark.parametrize('way', WAYS)
@pytest.mark.parametrize('policy', POLICIES)
@pytest.mark.parametrize('what', ['args', 'version'])
def test_the_policies_hold_for_a_run_that_was_waited_for(proj, others, monkeypatch, what, policy, way):
    """Somebody computes it with other args, or by another version: as if it had been saved before."""
    version, args = ('1', {'n': 2}) if what == 'args' else ('2', {'n': 1})
    policies = {'on_args_change': policy, 'on_version_change': policy}
    proj.resource('coll', version=version, **policies)(lambda ident, args, subdir: 'mine')
    waits = type(proj._fetcher)._await
    monkeypatch.setattr(type(proj._fetcher), '_await', lambda *given: (others.touch(), waits(*given))[1])
    if way in ('many', 'background'):
        others.touch() if way == 'background' else None
        batch_waits = hadrosaur.engine.batch.Batch._poll_elsewhere
        monkeypatch.setattr(
            hadrosaur.engine.batch.Batch,
            '_poll_elsewhere',
            lambda *given: (others.touch(), batch_waits(*given))[1],
        )
    judged(policy, way, what, lambda: asked(proj, way, args))


@pytest.mark.parametrize('way', WAYS)
@pytest.mark.parametrize('policy', POLICIES)
def test_the_policies_hold_for_what_was_computed_meanwhile(proj, base, monkeypatch, policy, way):
    """Another program is quicker, between looking at the folder and computing it."""
    other = Project(base)
    other.resource('coll')(lambda ident, args, subdir: 'theirs')
    proj.resource('coll', on_args_change=policy)(lambda ident, args, subdir: 'mine')
    queue = proj._store.queue

    def late(orders, **how):
        if orders[0].recompute == 'no':
            other.fetch('coll', 'x', {'n': 1})
        return queue(orders, **how)

    monkeypatch.setattr(proj._store, 'queue', late)
    judged(policy, way, 'args', lambda: asked(proj, way, {'n': 2}))
    other.close()


def test_background_work_that_was_computed_meanwhile_is_computed_anew(proj, base, monkeypatch):
    """Nobody has to wait for it for the policy to hold."""
    other = Project(base)
    other.resource('coll')(lambda ident, args, subdir: 'theirs')
    proj.resource('coll', on_args_change='recompute')(lambda ident, args, subdir: 'mine')
    queue = proj._store.queue

    def late(orders, **how):
        other.fetch('coll', 'x', {'n': 1})
        monkeypatch.undo()
        return queue(orders, **how)

    monkeypatch.setattr(proj._store, 'queue', late)
    proj.fetch('coll', 'x', {'n': 2}, background=True)
    assert proj.wait()

    assert proj.get('coll', 'x')['result'] == 'mine'
    other.close()


def test_a_failure_with_other_args_is_not_ours(proj, base, tmp_path):
    """Whoever waits for a run with other args, and sees it fail, computes its own."""
    other, go, began = Project(base), tmp_path / 'go', tmp_path / 'began'

    @other.resource('coll')
    def compute(ident, args, subdir):
        began.touch()
        await_file(go)
        raise ValueError('theirs')

    thread = threading.Thread(target=lambda: other.fetch('coll', 'x', {'n': 1}))
    thread.start()
    await_that(began.exists)
    proj.resource('coll')(lambda ident, args, subdir: 'mine')
    pending = [proj.fetch('coll', 'x', {'n': n}) for n in (1, 2)]
    go.touch()
    thread.join()

    assert pending[0].wait().status == 'error'
    assert pending[1].value == 'mine'
    other.close()


@pytest.mark.parametrize('damage', ['{"torn', None])
def test_fetch_and_fetch_many_warn_alike_of_a_damaged_result(proj, base, ran, damage):
    """A result that does not parse, or is gone, is computed again, and that is said, at the user's line."""
    counting(proj, ran)
    for way in ('fetch', 'many'):
        proj.fetch('coll', 'x', {'n': 5})
        result = base / 'coll/x/result.json'
        result.write_text(damage) if damage else result.unlink()
        ran.clear()
        with pytest.warns(hadrosaur.HadrosaurWarning, match=r'result\.json is damaged') as caught:
            assert ask(proj, way, 'coll', 'x')['result'] == 5
        assert ran == ['x']
        assert os.path.basename(caught[0].filename) == 'test_fetching_alike.py'


# --- waiting for oneself -----------------------------------------------------------------------------------


@pytest.mark.parametrize('way', ['fetch', 'value', 'wait', 'many', 'get', 'kept'])
def test_the_body_of_an_inline_loop_does_not_wait_for_its_own_retry(proj, way):
    """The retry is the loop's, which goes on only after the body: so the body computes it."""
    kept = []

    @proj.resource('coll', retries=2, retry_delay=600)
    def compute(ident, args, subdir):
        kept.append(proj.get('coll', ident))
        return 1 // (ident != 'bad' or hadrosaur.current().attempt > 1)

    batch = proj.fetch_many('coll', ['bad', 'good'], executor='inline')
    res = next(batch)
    assert res.ident == 'good'
    if way == 'fetch':
        found = proj.fetch('coll', 'bad', wait=True)
    elif way == 'many':
        (found,) = proj.fetch_many('coll', ['bad'], executor='inline')
    elif way == 'get':
        found = proj.get('coll', 'bad').wait()
    elif way == 'kept':
        assert kept[0].status == 'pending'
        found = kept[0].wait()
    else:
        found = proj.fetch('coll', 'bad')
        found = found.wait() if way == 'wait' else (found.value, found.wait())[1]
    assert proj.wait()

    assert found.status == ('error' if way in ('get', 'kept') else 'completed')
    batch.close()


@pytest.mark.parametrize('executor', ['inline', 'threads'])
def test_close_inside_a_function_is_refused(proj, executor):
    """It would end the batch that the function belongs to; the others are computed all the same."""
    proj.resource('coll')(lambda ident, args, subdir: proj.close() if ident == 'bad' else ident)
    found = {res.ident: res for res in proj.fetch_many('coll', ['a', 'bad', 'b'], executor=executor)}

    assert {ident: res.status for ident, res in found.items()} == {
        'a': 'completed', 'b': 'completed', 'bad': 'error',
    }  # fmt: skip
    assert 'close() inside the function of coll/bad' in found['bad'].error
    assert 'close() inside' in proj.fetch('coll', 'bad').error


def test_a_batch_that_somebody_closes_says_so(proj):
    """Another thread closes the Project: the loop ends early, and not without a word."""
    proj.resource('coll')(lambda ident, args, subdir: ident)
    batch = proj.fetch_many('coll', map(str, itertools.count()), executor='inline')
    next(batch)
    closer = threading.Thread(target=proj.close)
    closer.start()
    closer.join()
    with pytest.warns(hadrosaur.HadrosaurWarning, match='was closed before it was done: 1 completed') as said:
        assert list(batch) == []
    assert said[0].filename == __file__


# --- leaving -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    'error', ['ValueError()', 'KeyboardInterrupt()', 'SystemExit(1)', 'SystemExit(0)', '']
)
def test_leaving_a_with_block(program, error):
    """Background work is waited for; where an error leaves the block it is cancelled, which is said."""
    done = program(
        f"""
        import time
        from hadrosaur import Project
        with Project('base') as proj:
            @proj.resource('coll', background=True)
            def compute(ident, args, subdir):
                time.sleep(600 if {error not in ('', 'SystemExit(0)')} else 0.1)
            for n in range(20):
                proj.fetch('coll', n)
            if {bool(error)}:
                raise {error or 'None'}
        """,
        check=False,
    )
    fails = error not in ('', 'SystemExit(0)')

    assert bool(done.returncode) is fails
    assert ('cancelling 20 resources in the background' in done.stderr) is fails


# --- would it compute --------------------------------------------------------------------------------------

STATES = ['new', 'completed', 'error', 'damaged', 'missing', 'never begun']


@pytest.mark.parametrize('state', STATES)
@pytest.mark.parametrize('policy', POLICIES)
def test_explain_says_what_a_fetch_does(base, ran, state, policy):
    """In each state, with each combination of options, explain, fetch and fetch_many agree."""
    names = itertools.count()
    options = itertools.product([None, {'n': 1}, {'n': 2}], ['1', '2'], [None, 1e-9], [False, True])
    made = Project(base)
    for args, version, expires, recompute in options:
        if expires and version == '2':
            continue
        for way in ('fetch', 'many', 'many without retries'):
            if way == 'many without retries' and state != 'error':
                continue
            name, ident = f'coll{next(names)}', 'bad' if state == 'error' else 'x'
            policies = {'on_args_change': policy, 'on_version_change': policy, 'expires_after': expires}

            def compute(ident, args, subdir):
                ran.append(ident)
                return 1 // (ident != 'bad')

            made.resource(name, version='1')(compute)
            if state != 'new':
                made.fetch(name, ident, {'n': 1})
            result = base / name / ident / 'result.json'
            if state == 'damaged':
                result.write_text('{')
            elif state == 'missing':
                result.unlink()
            elif state == 'never begun':
                (base / name / ident / 'status.json').unlink()
            project = Project(base)
            project.resource(name, version=version, **policies)(compute)
            retry = way != 'many without retries'
            found = project.explain(name, ident, args, recompute=recompute, retry_errors=retry)
            ran.clear()
            error = None
            with warnings.catch_warnings():
                warnings.simplefilter('ignore')
                try:
                    if way == 'fetch':
                        project.fetch(name, ident, args, recompute=recompute)
                    else:
                        more = {'recompute': recompute, 'retry_errors': retry}
                        (res,) = project.fetch_many(name, [ident], args, executor='inline', **more)
                        error = res.entry.error_type
                except hadrosaur.ResourceError as refused:
                    error = type(refused).__name__
            where = (state, policy, args, version, expires, recompute, way, found)
            assert found.computes is bool(ran), where
            assert found.refused is (error in ('InvalidArgs', 'ResourceError')), where
            project.close()
    made.close()


def test_a_dry_run_says_what_the_run_does(tmp_path):
    """``run -n`` and ``run``, with and without --recompute, of a result of another version."""
    import subprocess

    source = "from hadrosaur import Project\nproj = Project('base')\n"
    source += "@proj.resource('coll', version={!r}, on_version_change={!r})\ndef f(*_):\n    pass\n"
    (tmp_path / 'jobs.py').write_text(source.format('1', 'warn'))

    def run(*options):
        command = [sys.executable, '-m', 'hadrosaur', 'run', 'jobs:proj', 'coll', 'x', *options]
        return subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=300).stdout

    assert run('-n').startswith('compute')
    run()
    for policy, plain in (('warn', 'leave'), ('error', 'refuse')):
        (tmp_path / 'jobs.py').write_text(source.format('2', policy))
        assert run('-n').startswith(plain)
        assert run('-n', '--recompute').startswith('compute')
    assert run('--recompute').startswith('1 completed, 0 failed')


# --- where warnings point ----------------------------------------------------------------------------------


def test_warnings_point_at_the_users_line(proj, tmp_path):
    """Each warning names the file of whoever called us, however deep it arises."""
    heavy = bytes(11_000_000)
    proj.resource('heavy')(lambda ident, args, subdir: len(heavy))
    proj.resource('coll')(lambda ident, args, subdir: ident)
    proj.fetch('coll', 'x', {'n': 1})
    for call in (
        lambda: proj.fetch('coll', 'x', {'n': 2}),
        lambda: proj.fetch_many('coll', ['x'], {'n': 2}).wait(),
        lambda: list(proj.fetch_many('coll', ['x'], {'n': 2})),
        lambda: proj.fetch('coll', 'x', {'n': 2}, background=True),
        lambda: proj.fetch_many('coll', ['x']) and None,  # dropped
        lambda: proj.fetch('heavy', 'x', background=True).wait(),
        lambda: proj.fetch_many('heavy', ['y']).wait(),
    ):
        with pytest.warns(hadrosaur.HadrosaurWarning) as caught:
            call()
        assert {(warning.filename, len(caught)) for warning in caught} == {(__file__, 1)}


def test_a_warning_inside_a_function_points_at_the_function(proj):
    """The function's own line is the user's there, and not that of whoever fetched it."""
    proj.resource('inner')(lambda ident, args, subdir: ident)
    proj.fetch('inner', 'x', {'n': 1})
    lines = []

    @proj.resource('outer')
    def outer(ident, args, subdir):
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter('always')
            proj.fetch('inner', 'x', {'n': 2})
        lines.extend((warning.filename, warning.lineno) for warning in caught)

    proj.fetch('outer', 'y')
    assert lines == [(__file__, outer.__code__.co_firstlineno + 4)]
