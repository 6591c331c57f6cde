"""`setup=`: called once in each worker, its value in every run there, on every executor."""

import os
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from conftest import HANG, await_that
from test_executor_contract import cluster, executor, killable  # noqa: F401  fixtures

import hadrosaur


def noted(folder, word):
    """Leave a file of its own that bears a word."""
    Path(folder, f'{word}.{os.getpid()}.{threading.get_ident()}.{time.monotonic_ns()}').touch()


def words(folder):
    """The files that bear each word."""
    found = {}
    for path in Path(folder).iterdir():
        found.setdefault(path.name.split('.')[0], []).append(path.name)
    return found


def setup_in(folder, number=1):
    """A setup that leaves a note of each of its calls, and prints."""

    def setup():
        noted(folder, 'called')
        print('setting up, for', hadrosaur.current().ident)
        return {'number': number, 'worker': (os.getpid(), threading.get_ident())}

    return setup


def uses(ident, args, subdir):
    """What the setup gave, and which worker this is."""
    print('running')
    made = hadrosaur.current().setup
    return [made['number'], list(made['worker']), [os.getpid(), threading.get_ident()]]


def test_it_is_called_once_in_each_worker(proj, executor, tmp_path):  # noqa: F811
    """Each worker calls it once, in its first run, whose log has what it prints; each run finds its value."""
    notes = tmp_path / 'notes'
    notes.mkdir()
    proj.resource('coll', setup=setup_in(str(notes)))(uses)
    found = {each.ident: each for each in proj.fetch_many('coll', range(12), executor=executor, workers=2)}

    assert [each.error for each in found.values() if each.error] == []
    assert all(each.result[1] == each.result[2] for each in found.values())
    workers = {tuple(each.result[2]) for each in found.values()}
    called = words(notes)['called']
    assert {name.split('.')[1] for name in called} == {str(pid) for pid, _ in workers}
    assert len(called) == len(workers)
    logs = {ident: Path(each.paths['stdout']).read_text() for ident, each in found.items()}
    firsts = [ident for ident, log in logs.items() if log != 'running\n']
    assert len(firsts) == len(workers)
    assert all(logs[ident] == f'setting up, for {ident}\nrunning\n' for ident in firsts)


def setup_that_fails(folder):
    """A setup that takes a while to fail."""

    def setup():
        noted(folder, 'failed')
        end = time.monotonic() + 0.3
        while time.monotonic() < end:
            time.sleep(0.01)
        raise LookupError('there is no model')

    return setup


def test_its_failure_is_that_of_the_runs_and_costs_its_time_once(proj, executor, tmp_path):  # noqa: F811
    """Each resource ends in the setup's error, with its traceback; not each of them calls it again."""
    notes = tmp_path / 'notes'
    notes.mkdir()
    proj.resource('coll', setup=setup_that_fails(str(notes)))(uses)
    found = list(proj.fetch_many('coll', range(40), executor=executor, workers=1))

    assert {each.status for each in found} == {'error'}
    assert {each.entry.error_type for each in found} == {'LookupError'}
    assert len(proj.error_groups()) == 1
    for each in found:
        lines = each.error.splitlines()
        assert lines[0] == 'Traceback (most recent call last):'
        assert lines[1].startswith(f'  File "{__file__}"')
        assert lines[1].endswith('in setup')
    assert len(words(notes)['failed']) < 20


def test_a_setup_that_kills_its_worker_is_not_called_for_each(proj, killable, tmp_path):  # noqa: F811
    """Where the process died is said; for a while those that come get that answer, and are as they were."""
    notes = tmp_path / 'notes'
    notes.mkdir()
    folder = str(notes)

    def setup():
        noted(folder, 'called')
        end = time.monotonic() + 0.3
        while time.monotonic() < end:
            time.sleep(0.01)
        os._exit(7)

    proj.resource('coll', setup=setup)(finds)
    found = list(proj.fetch_many('coll', range(30), executor=killable, workers=1))
    assert {each.entry.error_type for each in found} == {'WorkerDied'}
    assert {each.entry.error for each in found} == {
        'the process that computed it exited with status 7, in the setup of its collection'
    }
    called = len(words(notes)['called'])
    assert called < 15
    assert len(proj.query('coll')) == called


def test_setups_that_fetch(program):
    """A setup of a script may use its project, which holds that setup; it is called once in each worker."""
    done = program("""
        import os
        import hadrosaur

        proj = hadrosaur.Project('base')
        proj.resource('models')(lambda ident, args, subdir: len(ident))

        def load():
            open(f'called.{os.getpid()}', 'x').close()
            return proj.fetch('models', 'four').value

        @proj.resource('coll', setup=load)
        def compute(ident, args, subdir):
            return [os.getpid(), hadrosaur.current().setup, proj.fetch('models', ident).value]

        @proj.resource('more', setup=load)
        def more(ident, args, subdir):
            return proj.fetch('coll', ident).value[0] == os.getpid()

        found = [each.value for each in proj.fetch_many('coll', ['a', 'bc', 'd'], workers=1)]
        assert [each[1:] for each in found] == [[4, 1], [4, 2], [4, 1]], found
        assert all(each.value for each in proj.fetch_many('more', ['e', 'fg'], workers=1))
        for ident in 'xyz':
            proj.fetch('coll', ident, background=True).value
        print(len([name for name in os.listdir() if name.startswith('called')]))
        proj.close()
    """)
    assert done.stdout == '3\n'


def test_an_async_setup_is_awaited(proj):
    """Its value is what it returns."""

    async def setup():
        return 'awaited'

    proj.resource('coll', setup=setup)(finds)
    assert proj.fetch('coll', 'a').result == 'awaited'


def test_a_setup_that_failed_is_called_again(proj, tmp_path):
    """Once the time that it took to fail is over; so a cause that is gone needs no new program."""
    calls = []

    def setup():
        calls.append(1)
        if not (tmp_path / 'there').exists():
            raise FileNotFoundError('there')
        return 7

    proj.resource('coll', setup=setup)(lambda ident, args, subdir: hadrosaur.current().setup)
    assert proj.fetch('coll', 'a').status == 'error'
    (tmp_path / 'there').touch()
    assert await_that(lambda: proj.fetch('coll', 'a').result) == 7
    assert len(calls) >= 2


def test_a_changed_setup_is_called_anew(proj, tmp_path):
    """Another setup, or one that refers to something else; the same one under an edited function is kept."""
    notes = tmp_path / 'notes'
    notes.mkdir()
    first, second = setup_in(str(notes), 1), setup_in(str(notes), 2)
    seen = []
    for ident, setup, function in (
        ('a', first, uses),
        ('b', first, uses),
        ('c', second, uses),
    ):
        proj.resource('coll', setup=setup, background=True)(function)
        seen.append(proj.fetch('coll', ident).wait(HANG).result[0])
        proj.resource('here', setup=setup)(function)
        seen.append(proj.fetch('here', ident).result[0])
    assert seen == [1, 1, 1, 1, 2, 2]


def generator_in(folder):
    """A setup that has something to do at the end."""

    def setup():
        yield os.getpid()
        noted(folder, 'closed')

    return setup


def finds(ident, args, subdir):
    """What the setup gave."""
    return hadrosaur.current().setup


def test_a_generator_goes_on_when_the_worker_ends(proj, executor, tmp_path):  # noqa: F811
    """Behind its `yield`: at the end of the batch's processes and threads, and of the program inline."""
    notes = tmp_path / 'notes'
    notes.mkdir()
    proj.resource('coll', setup=generator_in(str(notes)))(finds)
    found = list(proj.fetch_many('coll', range(4), executor=executor, workers=1))
    if executor == 'inline':
        hadrosaur.worker_setup.end()  # which the end of a program calls
    workers = sorted({str(each.result) for each in found})  # an executor may have more than one of its own
    await_that(lambda: sorted(name.split('.')[1] for name in words(notes).get('closed', ())) == workers)


def test_the_end_of_a_program_ends_it(program, tmp_path):
    """Inline, a generator or context manager goes on when the program ends, in its own process alone."""
    done = program("""
        import contextlib, multiprocessing, os
        import hadrosaur

        proj = hadrosaur.Project('base')

        @contextlib.contextmanager
        def setup():
            yield os.getpid()
            print('closed', os.getpid() == mine, flush=True)

        @proj.resource('coll', setup=setup)
        def compute(ident, args, subdir):
            return hadrosaur.current().setup

        mine = os.getpid()
        assert proj.fetch('coll', 'a').result == mine
        child = multiprocessing.get_context('fork').Process(target=proj.fetch, args=('coll', 'b'))
        child.start(); child.join()
        assert proj.fetch('coll', 'b').result == child.pid, 'the value of another process was used'
        assert child.exitcode == 0
    """)
    assert done.stdout == 'closed True\n'


def slow_setup(folder):
    """A setup that takes longer than a run may."""

    def setup():
        end = time.monotonic() + 2.2
        while time.monotonic() < end:
            time.sleep(0.01)
        noted(folder, 'called')
        return 1

    return setup


def test_a_setup_is_no_part_of_the_time_of_a_run(proj, tmp_path):
    """A collection's timeout and the duration of its runs do not count the setup."""
    notes = tmp_path / 'notes'
    notes.mkdir()
    proj.resource('coll', setup=slow_setup(str(notes)), timeout=2)(finds)
    [found] = proj.fetch_many('coll', ['a'], workers=1)

    assert (found.status, found.result) == ('completed', 1)
    assert found.duration < 2
    assert len(words(notes)['called']) == 1


def test_what_a_setup_changes_stays_in_its_worker(proj, killable, tmp_path):  # noqa: F811
    """Logging, signal handlers, current folder: the runs that follow find the process as it was set up."""
    place = str(tmp_path)

    def setup():
        import logging
        import signal

        os.chdir(place)
        os.nice(1)
        signal.signal(signal.SIGUSR1, signal.SIG_IGN)
        logging.basicConfig(format='mine %(message)s')
        return os.getpid()

    def function(ident, args, subdir):
        import logging
        import signal

        logging.warning('said')
        ignored = signal.getsignal(signal.SIGUSR1) is signal.SIG_IGN
        return [os.getcwd(), ignored, hadrosaur.current().setup == os.getpid()]

    proj.resource('coll', setup=setup)(function)
    found = list(proj.fetch_many('coll', range(3), executor=killable, workers=1))
    assert [each.result for each in found] == [[place, True, True]] * 3
    assert {Path(each.paths['stderr']).read_text() for each in found} == {'mine said\n'}


def test_a_resource_that_is_fetched_inside_has_its_own(proj, executor, tmp_path):  # noqa: F811
    """A function finds its own collection's value, also after it fetched a resource of another."""
    notes = tmp_path / 'notes'
    notes.mkdir()
    proj.resource('inner', setup=setup_in(str(notes), 2))(lambda i, a, s: hadrosaur.current().setup['number'])

    def function(ident, args, subdir):
        fetched = proj.fetch('inner', ident).value
        return [fetched, hadrosaur.current().setup['number']]

    proj.resource('outer', setup=setup_in(str(notes), 1))(function)
    found = list(proj.fetch_many('outer', range(4), executor=executor, workers=1))
    assert [each.result for each in found] == [[2, 1]] * 4


@pytest.mark.parametrize(
    ('setup', 'word'),
    [(7, 'function'), (lambda path: 1, 'path'), ('load', 'function')],
    ids=['a number', 'with an argument', 'a name'],
)
def test_what_cannot_be_called_is_refused(proj, setup, word):
    """At registration, in words."""
    with pytest.raises(ValueError, match=f'setup.*{word}'):
        proj.resource('coll', setup=setup)(finds)


def test_what_cannot_be_sent_is_named(proj):
    """A setup that holds what no process can be sent is named with its function."""
    lock = threading.Lock()
    proj.resource('coll', setup=lambda: lock)(finds)
    with pytest.raises(hadrosaur.ExecutorFault, match='finds with its setup'):
        proj.fetch_many('coll', ['a']).wait()


def test_reproduce_sets_up_too(tmp_path):
    """`hadrosaur reproduce` calls the setup before the function."""
    (tmp_path / 'jobs.py').write_text(
        'import hadrosaur\n'
        "proj = hadrosaur.Project('base')\n"
        "@proj.resource('coll', setup=lambda: 5)\n"
        'def compute(ident, args, subdir):\n'
        '    return hadrosaur.current().setup\n'
    )
    for words_ in (['run', 'jobs:proj', 'coll', 'a'], ['reproduce', 'jobs:proj', 'coll', 'a']):
        command = [sys.executable, '-m', 'hadrosaur', *words_]
        done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=HANG)
        assert done.returncode == 0, done.stderr
    assert 'the stored one has the same result' in done.stderr
