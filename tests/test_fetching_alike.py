"""What a caller gets is the same whichever way it asks: fetch, fetch_many, background, inside a function.

The value of a resource, whoever else computes it; and an error, never silence, where resources wait for
each other.
"""

import contextlib
import json
import os
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest
from conftest import HANG, await_that

import hadrosaur
from hadrosaur import Project, wait_graph

WAYS = ['fetch', 'value', 'many', 'waited']
EXECUTORS = ['threads', 'processes', 'ThreadPoolExecutor']


def await_file(path, seconds=HANG):
    """In a function, which may run in another process."""
    end = time.monotonic() + seconds
    while not os.path.exists(path):
        assert time.monotonic() < end, f'{path} did not come'
        time.sleep(0.002)


def ask(project, way, collection, ident, *args):
    """The resource, asked for inside a function or at top level; it is waited for in each of these ways."""
    if way == 'fetch':
        return project.fetch(collection, ident, *args)
    if way == 'value':
        res = project.fetch(collection, ident, *args, wait=False)
        with contextlib.suppress(hadrosaur.ResourceFailed):
            _ = res.value
        return res.wait()
    if way == 'many':
        (res,) = project.fetch_many(collection, [ident], *args, executor='inline')
        return res
    return project.fetch(collection, ident, *args, wait=True)


@contextlib.contextmanager
def executor(kind):
    if kind == 'ThreadPoolExecutor':
        with ThreadPoolExecutor(4) as pool:
            yield pool
    else:
        yield kind


@pytest.fixture
def with_lock_files(base):
    """Where folders cannot be locked, a file in each serves instead."""
    (base / '.hadrosaur').mkdir(parents=True)
    (base / '.hadrosaur/format.json').write_text(json.dumps({'format': 1, 'lock': 'file'}))


# --- somebody else computes it ---------------------------------------------------------------------------


ALIKE = [(kind, 'fetch') for kind in EXECUTORS] + [('threads', way) for way in WAYS[1:]]


@pytest.mark.parametrize(('kind', 'way'), ALIKE)
def test_a_shared_dependency_gives_its_value_to_all(proj, tmp_path, kind, way):
    """Inside a function a resource that somebody else computes is waited for: nobody gets None."""
    here = str(tmp_path)

    @proj.resource('inner')
    def inner(ident, args, subdir):
        with open(f'{here}/ran', 'a') as ran:
            ran.write('ran\n')
        for n in range(4):  # all four have asked by now, or are about to
            await_file(f'{here}/outer-{n}')
        return 42

    @proj.resource('outer')
    def outer(ident, args, subdir):
        open(f'{here}/outer-{ident}', 'w').close()
        return ask(proj, way, 'inner', 'shared')['result']

    with executor(kind) as chosen:
        found = [res.result for res in proj.fetch_many('outer', range(4), workers=4, executor=chosen)]

    assert found == [42] * 4
    assert (tmp_path / 'ran').read_text() == 'ran\n'
    assert {row.status for row in proj.query()} == {'completed'}
    assert not list(tmp_path.glob('base/.hadrosaur/waiting/[0-9]*'))


@pytest.mark.parametrize(('kind', 'way'), [*ALIKE, *(('inline', way) for way in WAYS)])
def test_what_is_queued_behind_the_function_is_computed_by_it(proj, kind, way):
    """One worker, whose queue holds the dependency: nobody waits for what only it could begin."""
    proj.resource('coll')(
        lambda ident, args, subdir: ask(proj, way, 'coll', 'inner')['result'] if ident == 'outer' else 42
    )
    with executor(kind) as chosen:
        found = [
            res.result for res in proj.fetch_many('coll', ['outer', 'inner'], workers=1, executor=chosen)
        ]

    assert found == [42, 42]


def test_told_not_to_wait_a_nested_fetch_shows_pending(proj, tmp_path):
    """``wait=False`` is pending at once, inside a function too; ``wait=0.01`` after that time."""
    go = str(tmp_path / 'go')

    @proj.resource('inner', background=True)
    def inner(ident, args, subdir):
        open(f'{subdir}/began', 'w').close()
        await_file(go)
        return 42

    @proj.resource('outer')
    def outer(ident, args, subdir):
        found = [proj.fetch('inner', 'x', wait=wait).status for wait in (False, 0.01)]
        return [*found, proj.get('inner', 'x').status]

    pending = proj.fetch('inner', 'x')
    await_that(lambda: os.path.exists(f'{pending.paths["storage"]}began'))
    found = proj.fetch('outer', 'y')

    assert found['result'] == ['pending'] * 3
    (tmp_path / 'go').touch()
    assert pending.value == 42


@pytest.mark.parametrize('way', ['fetch', 'value', 'many'])
def test_a_flaky_dependency_is_not_given_up_between_its_attempts(proj, base, tmp_path, way):
    """A run that failed, and that somebody else tries again some day, is not the end of it."""
    go = str(tmp_path / 'go')

    @proj.resource('inner', retries=1, retry_delay=600, background=True)
    def inner(ident, args, subdir):
        if hadrosaur.current().attempt == 1:
            open(f'{subdir}/began', 'w').close()
            await_file(go)
            raise ConnectionError('try again')
        return 42

    pending = proj.fetch('inner', 'shared')
    await_that(lambda: os.path.exists(f'{pending.paths["storage"]}began'))

    @proj.resource('outer')
    def outer(ident, args, subdir):
        return ask(proj, way, 'inner', 'shared')['result']

    def let_go():
        await_that(lambda: list(base.glob('.hadrosaur/waiting/[0-9]*')))
        open(go, 'w').close()

    helper = threading.Thread(target=let_go)
    helper.start()
    assert proj.fetch('outer', 'x')['result'] == 42
    helper.join()


# --- each other ------------------------------------------------------------------------------------------


def ring_of(project, here, size, way):
    @project.resource('ring')
    def ring(ident, args, subdir):
        open(f'{here}/at-{ident}', 'w').close()
        for n in range(size):
            await_file(f'{here}/at-{n}')
        after = str((int(ident) + 1) % size)
        return ask(project, way, *(('between', after) if args.get('between') else ('ring', after))).status

    @project.resource('between')
    def between(ident, args, subdir):
        return ask(project, way, 'ring', ident).status


RINGS = [
    (2, 'processes', 'fetch'),
    (3, 'processes', 'fetch'),
    (2, 'ThreadPoolExecutor', 'fetch'),
    (4, 'threads', 'fetch'),
    (3, 'threads', 'value'),
    (2, 'processes', 'many'),
    (3, 'threads', 'many'),
]


@pytest.mark.parametrize(('size', 'kind', 'way'), RINGS)
def test_of_a_ring_exactly_one_ends_in_a_cycle_error(proj, tmp_path, size, kind, way):
    """A waits for B and B for A, or more of them: one gets the CycleError, and all of them end."""
    ring_of(proj, tmp_path, size, way)
    with executor(kind) as chosen:
        found = list(proj.fetch_many('ring', range(size), workers=size, executor=chosen))

    if way == 'many':  # there it is a counted error that the function sees
        assert [res.status for res in found] == ['completed'] * size
        told = [res.result for res in found if res.result == 'error']
        assert len(told) == 1
    else:
        failed = [res for res in found if res.status == 'error']
        assert [res.entry.error_type for res in failed] == ['CycleError']
        assert 'wait for each other' in failed[0].error


def test_with_lock_files_it_is_the_same(with_lock_files, proj, tmp_path):
    """What is waited for, and of a ring one CycleError, where folders cannot be locked."""
    test_a_shared_dependency_gives_its_value_to_all(proj, tmp_path, 'processes', 'fetch')
    test_of_a_ring_exactly_one_ends_in_a_cycle_error(proj, tmp_path, 2, 'processes', 'fetch')


@pytest.mark.parametrize('way', ['fetch', 'many'])
def test_a_ring_through_nested_resources_is_found(proj, tmp_path, way):
    """Each waits for the other through one that it computes itself."""
    ring_of(proj, tmp_path, 2, way)
    found = list(proj.fetch_many('ring', range(2), {'between': True}, workers=2))

    assert all(res.status == 'completed' for res in found)
    between = {res.ident: res for res in (proj.get('between', n) for n in range(2))}
    told = [res for res in between.values() if res.status == 'error' or res.result == 'error']
    assert told
    rows = [row.error_type for row in proj.query('between', status='error')]
    assert rows.count('CycleError') == (1 if way == 'fetch' else 0)


def test_a_ring_across_programs_is_found(proj, base, tmp_path):
    """Two programs that know nothing of each other, one resource each."""
    source = """
import os, sys, time
from hadrosaur import Project
here, mine, other = sys.argv[1:]
proj = Project(here + '/base')
@proj.resource('ring')
def ring(ident, args, subdir):
    open(f'{here}/at-{ident}', 'w').close()
    while not os.path.exists(f'{here}/at-{other}'):
        time.sleep(0.002)
    return proj.fetch('ring', other).status
print(proj.fetch('ring', mine).entry.error_type)
"""
    started = [
        subprocess.Popen(
            [sys.executable, '-c', source, str(tmp_path), *pair], stdout=subprocess.PIPE, text=True
        )
        for pair in ('ab', 'ba')
    ]
    try:
        found = [process.communicate(timeout=HANG)[0].strip() for process in started]
    finally:
        for process in started:
            process.kill()
            process.wait()

    assert sorted(found) == ['CycleError', 'None']


@pytest.mark.parametrize(
    ('kind', 'way'),
    [('inline', way) for way in (*WAYS, 'get')]
    + [('threads', 'many'), ('processes', 'fetch'), ('processes', 'many')],
)
def test_asking_for_itself_is_a_cycle_error(proj, kind, way):
    """Directly, or through another: CycleError, whichever way it asks; no function waits for itself."""

    @proj.resource('self')
    def itself(ident, args, subdir):
        res = proj.get('self', ident).wait() if way == 'get' else ask(proj, way, 'self', ident)
        return [res.status, res.entry.error_type, 'itself' in res.entry.error]

    @proj.resource('first')
    def first(ident, args, subdir):
        return ask(proj, way, 'second', ident).entry.error_type

    @proj.resource('second')
    def second(ident, args, subdir):
        res = proj.get('first', ident).wait() if way == 'get' else ask(proj, way, 'first', ident)
        return [res.status, res.entry.error_type, 'itself' in res.entry.error]

    (res,) = proj.fetch_many('self', ['x'], executor=kind)
    (through,) = proj.fetch_many('first', ['x'], executor=kind)

    if way == 'many':
        assert res.result == proj.get('second', 'x').result == ['error', 'CycleError', True]
    else:
        for failed in (res, proj.get('second', 'x')):
            assert failed.entry.error_type == 'CycleError'
            assert 'cannot wait for itself' in failed.error
    assert through.status == 'completed'


def test_asking_for_itself_through_another_base_is_a_cycle_error(proj, tmp_path):
    """The chain of resources goes on from one base to the next."""
    other = Project(tmp_path / 'other')
    proj.resource('here')(lambda ident, args, subdir: other.fetch('there', ident).entry.error_type)
    other.resource('there')(lambda ident, args, subdir: proj.fetch('here', ident)['result'])

    assert proj.fetch('here', 'x', raise_error=True)['result'] == 'CycleError'
    other.close()


def test_a_function_that_waits_for_background_work_is_part_of_the_ring(proj, tmp_path):
    """``proj.wait()`` inside a function waits for what may wait for that function."""
    began = str(tmp_path / 'began')

    @proj.resource('back', background=True)
    def back(ident, args, subdir):
        await_file(began)
        return proj.fetch('outer', 'x').status

    @proj.resource('outer')
    def outer(ident, args, subdir):
        return proj.wait()

    back_pending = proj.fetch('back', 'y')
    found = threading.Thread(target=lambda: proj.fetch('outer', 'x'))
    found.start()
    await_that(lambda: os.path.exists(f'{proj.path}/outer/x/status.json'))
    open(began, 'w').close()
    found.join()
    ended = {proj.get('outer', 'x').entry.error_type, back_pending.wait().entry.error_type}

    assert ended == {'CycleError', None}


def test_what_the_dead_waited_for_counts_for_nothing(proj, tmp_path):
    """A file in ``waiting/`` that nobody holds is no ring, and is swept."""
    folder = tmp_path / 'base/.hadrosaur/waiting'
    folder.mkdir(parents=True)
    steps = [[proj.path, 'coll', name] for name in ('inner', 'outer')]
    (folder / 'dead').write_text(json.dumps({'chain': steps[:1], 'waits_for': steps[1:]}))
    (folder / 'nonsense').write_text('{')
    began = str(tmp_path / 'began')

    @proj.resource('coll')
    def compute(ident, args, subdir):
        if ident == 'outer':
            await_file(began)
            return proj.fetch('coll', 'inner')['result']
        open(began, 'w').close()
        await_that(lambda: not os.path.exists(folder / 'dead'))
        return 42

    found = [res.result for res in proj.fetch_many('coll', ['inner', 'outer'], executor='threads', workers=2)]

    assert found == [42, 42]
    assert os.listdir(folder) == ['.lock']


def test_one_lock_for_looking_and_publishing(proj):
    """However many close a ring at one moment, each ring has one who finds it."""
    proj.stats()  # there is a .hadrosaur
    for _ in range(20):
        size, found = 4, []
        start = threading.Barrier(size)

        def publish(n, size=size, found=found, start=start):
            steps = [(proj.path, 'ring', str(each)) for each in range(size)]
            waits = wait_graph.Waits(f'{proj.path}/.hadrosaur', (steps[n],))
            start.wait()
            closing = waits.publish([steps[(n + 1) % size]])
            start.wait()
            waits.unqueue()
            found.append(bool(closing))

        threads = [threading.Thread(target=publish, args=(n,)) for n in range(size)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert sorted(found) == [False, False, False, True]


# --- the value -------------------------------------------------------------------------------------------


def test_value_waits_or_raises(proj, tmp_path):
    """``.value`` is the result whoever computes it; where it ended in error, it raises."""
    go = tmp_path / 'go'

    @proj.resource('coll', background=True)
    def compute(ident, args, subdir):
        await_file(str(go))
        return {'bad': 1 // (ident != 'bad')}

    good, bad = proj.fetch('coll', 'good'), proj.fetch('coll', 'bad')
    assert (good.status, bad.status) == ('pending', 'pending')
    go.touch()

    assert good.value == {'bad': 1}
    assert proj.fetch('coll', 'good').value == {'bad': 1}
    with pytest.raises(
        hadrosaur.ResourceFailed, match='coll/bad ended in error: ZeroDivisionError'
    ) as caught:
        _ = bad.value
    assert 'ZeroDivisionError' in caught.value.traceback_text
    with pytest.raises(hadrosaur.ResourceFailed):
        proj.fetch('coll', 'bad', background=False, raise_error=True)


@pytest.mark.parametrize('way', ['value', 'raise_error', 'inline', 'threads'])
def test_the_cause_is_what_the_function_raised(proj, way):
    """In this process the exception itself is the cause, so that a program can look into it."""

    class Odd(ValueError):
        pass

    raised = []

    @proj.resource('coll')
    def compute(ident, args, subdir):
        raised.append(Odd(ident))
        raise raised[-1]

    def asked():
        if way == 'raise_error':
            return proj.fetch('coll', 'x', raise_error=True)
        res = (
            proj.fetch('coll', 'x') if way == 'value' else next(proj.fetch_many('coll', ['x'], executor=way))
        )
        return res.value

    with pytest.raises(hadrosaur.ResourceFailed) as caught:
        asked()

    assert caught.value.__cause__ is raised[0]


def test_how_it_was_cut_off_is_the_class_of_the_error(proj, tmp_path):
    """TimedOut, Cancelled, WorkerDied and Interrupted are what is raised, and all are ResourceFailed."""
    never = str(tmp_path / 'never')
    proj.resource('late', timeout=0.2)(lambda ident, args, subdir: await_file(never))
    proj.resource('dead', background=True)(lambda ident, args, subdir: os._exit(3))
    proj.resource('long', background=True)(
        lambda ident, args, subdir: (open(f'{subdir}/began', 'w').close(), await_file(never))
    )
    running = proj.fetch('long', 'x')
    await_that(lambda: os.path.exists(f'{running.paths["storage"]}began'))
    proj.cancel('long', 'x')

    for kind, res in (
        (hadrosaur.TimedOut, proj.fetch('late', 'x')),
        (hadrosaur.WorkerDied, proj.fetch('dead', 'x')),
        (hadrosaur.Cancelled, running),
    ):
        with pytest.raises(kind) as caught:
            _ = res.value
        assert isinstance(caught.value, hadrosaur.ResourceFailed)


THREADS = """
import sys, threading
from concurrent.futures import ThreadPoolExecutor
from hadrosaur import Project, current

proj = Project(sys.argv[1])
shared = proj.resource('shared', background=True)(lambda ident, args, subdir: 'value of ' + ident)

def ask(ident, found):
    found.append((proj.fetch('shared', ident)['result'], current().ident))

@proj.resource('outer')
def outer(ident, args, subdir):
    found = []
    thread = threading.Thread(target=ask, args=('by a thread', found))
    thread.start()
    thread.join()
    with ThreadPoolExecutor(1) as pool:
        pool.submit(ask, 'by a pool', found).result()
    return found

for ident in ('first', 'second'):  # the second with a driver and a writer of rows beside it
    print(proj.fetch('outer', ident).value)
assert current() is None
"""


def test_a_thread_that_an_inline_function_starts_is_inside_it(tmp_path):
    """It waits for what somebody else computes, and knows whose it is: never None for a value."""
    script = tmp_path / 'script.py'
    script.write_text(THREADS)
    command = [sys.executable, str(script), str(tmp_path / 'base')]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=HANG, check=False)
    assert ended.returncode == 0, ended.stderr
    asked = ('by a thread', 'by a pool')
    expected = [[[f'value of {name}', ident] for name in asked] for ident in ('first', 'second')]
    assert ended.stdout.splitlines() == [str(found) for found in expected]
