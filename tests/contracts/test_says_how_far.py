"""`current().progress(…)`: how far a run says it is, for whoever looks from outside, on every executor."""

import json
import os
import threading
import time
import warnings
from pathlib import Path

import pytest
from conftest import HANG, await_that
from test_cli_tools import call
from test_executor_contract import cluster, executor, killable  # noqa: F401  fixtures

import hadrosaur
from hadrosaur import Progress, Project


def says(ident, args, subdir):
    """Says how far it is, and goes on when it is told to."""
    hadrosaur.current().progress(0.25, f'epoch\n 1 of {ident}')
    for name, fraction in (('half', 0.5), ('end', None)):
        end = time.monotonic() + 300
        while not os.path.exists(f'{args["go"]}.{name}'):
            assert time.monotonic() < end
            time.sleep(0.005)
        if fraction:
            hadrosaur.current().progress(fraction, 'x' * 500)


def looker(base, go, seen):
    """Look from beside the run, and let it go on each time that it was seen."""
    try:
        with Project(base, create=False) as proj:

            def said():
                try:
                    return proj.get('coll', 'one').progress
                except hadrosaur.ResourceNotFound:
                    return None

            seen.append(await_that(said))
            Path(f'{go}.half').touch()
            seen.append(await_that(lambda: (now := said()) != seen[0] and now))
    finally:
        for name in ('half', 'end'):
            Path(f'{go}.{name}').touch()


def test_it_is_seen_from_outside_while_it_runs(proj, executor, tmp_path):  # noqa: F811
    """Its last words, in a line, as long as it runs; nothing is left when it is over."""
    proj.resource('coll')(says)
    go, seen = str(tmp_path / 'go'), []
    proj.stats()
    watcher = threading.Thread(target=looker, args=(proj.path, go, seen))
    watcher.start()
    [found] = proj.fetch_many('coll', {'one': {'go': go}}, executor=executor, workers=1)
    watcher.join(HANG)

    assert found.status == 'completed', found.error
    assert seen == [Progress(0.25, 'epoch 1 of one'), Progress(0.5, 'x' * 200)]
    assert found.progress is None
    assert 'progress.json' not in os.listdir(found.paths['base'])


def test_a_killed_run_says_nothing(proj, killable):  # noqa: F811
    """Neither what a worker said that died, nor in the run that follows it."""

    def function(ident, args, subdir):
        if hadrosaur.current().attempt == 1:
            hadrosaur.current().progress(0.9, 'nearly')
            os.kill(os.getpid(), 9)
        return [str(path) for path in Path(subdir).parent.iterdir() if 'progress' in path.name]

    proj.resource('coll')(function)
    [first] = proj.fetch_many('coll', ['a'], executor=killable, workers=1)
    assert (first.entry.error_type, first.progress) == ('WorkerDied', None)
    assert 'progress.json' not in os.listdir(first.paths['base'])
    [second] = proj.fetch_many('coll', ['a'], executor=killable, workers=1)
    assert second.result == []


def test_words_of_another_run_are_not_taken_for_this_ones(proj, tmp_path):
    """A file that a run of another program left, or that somebody put there, says nothing of this one."""
    seen = []

    def function(ident, args, subdir):
        place = Path(subdir).parent / 'progress.json'
        run = json.loads((place.parent / 'record.json').read_text())['run']
        for data in (
            {'run': 'other', 'fraction': 0.5, 'text': ''},
            {'run': run},
            [],
            {'run': run, 'fraction': 'x'},
        ):
            place.write_text(json.dumps(data))
            with Project(proj.path, create=False) as other:
                seen.append(other.get('coll', ident).progress)
        place.unlink()
        place.symlink_to('/etc/passwd')
        hadrosaur.current().progress(1)
        with Project(proj.path, create=False) as other:
            seen.append(other.get('coll', ident).progress)

    proj.resource('coll')(function)
    found = proj.fetch('coll', 'a')
    assert found.status == 'completed', found.error
    assert seen == [None] * 4 + [Progress(1.0, '')]


@pytest.mark.parametrize('call', ['text first', 'percent', 'nan', 'numpy', 'hostile'])
def test_what_is_no_fraction(proj, call):
    """Text in its place is refused in words; a number out of range is warned of, and harms no run."""
    said = []

    def function(ident, args, subdir):
        run = hadrosaur.current()
        if call == 'text first':
            run.progress('epoch 3')
        if call == 'percent':
            run.progress(30, 'epoch 3')
            run.progress(40, 'epoch 3')
        if call == 'nan':
            run.progress(float('nan'), 'epoch 3')
        if call == 'numpy':
            run.progress(pytest.importorskip('numpy').float32(0.5), 'epoch 3')
        if call == 'hostile':
            run.progress(0.5, '\ud800\x1b[31m\0' * 300)
        with Project(proj.path, create=False) as other:
            said.append(other.get('coll', ident).progress)

    proj.resource('coll')(function)
    with warnings.catch_warnings(record=True) as warned:
        warnings.simplefilter('always')
        found = proj.fetch('coll', 'a')
    if call == 'text first':
        assert (found.status, found.entry.error_type) == ('error', 'TypeError')
        assert 'fraction' in found.entry.error
        return
    assert found.status == 'completed', found.error
    fractions = {'percent': 1.0, 'nan': None, 'numpy': 0.5, 'hostile': 0.5}
    assert said[0].fraction == fractions[call]
    assert [str(each.message)[:24] for each in warned] == ['progress takes a fraction'[:24]] * (
        call == 'percent'
    )


def test_a_thread_that_stays_says_nothing_more(proj):
    """After the end of its run, `progress` of a thread that it left behind does nothing."""
    go, said = threading.Event(), threading.Event()

    def function(ident, args, subdir):
        run = hadrosaur.current()
        run.progress(0.1)

        def later():
            go.wait(HANG)
            run.progress(0.7)
            said.set()

        threading.Thread(target=later).start()

    proj.resource('coll')(function)
    found = proj.fetch('coll', 'a')
    go.set()
    assert said.wait(HANG)
    assert 'progress.json' not in os.listdir(found.paths['base'])


def test_a_forked_child_says_it_for_its_run(proj):
    """Once the run itself has said something; else nobody would take away what the child left."""
    said = []

    def function(ident, args, subdir):
        run = hadrosaur.current()
        if ident == 'first':
            run.progress(0.1)
        child = os.fork()
        if child == 0:
            run.progress(0.5, 'child')
            os._exit(0)
        os.waitpid(child, 0)
        with Project(proj.path, create=False) as other:
            said.append(other.get('coll', ident).progress)

    proj.resource('coll')(function)
    for ident in ('first', 'not'):
        assert 'progress.json' not in os.listdir(proj.fetch('coll', ident).paths['base'])
    assert said == [Progress(0.5, 'child'), None]


def test_status_show_and_ps_say_it(proj):
    """Each of the three commands shows it, as text and as JSON, with no harm in it."""
    begun, go, told = threading.Event(), threading.Event(), {}

    def function(ident, args, subdir):
        hadrosaur.current().progress(0.3, 'epoch \x1b[31m3')
        begun.set()
        assert go.wait(HANG)

    def command(verb, *words):
        return call(verb, proj.path, *words)

    proj.resource('coll', capture='off')(function)
    run = threading.Thread(target=proj.fetch, args=('coll', 'one'))
    run.start()
    try:
        assert begun.wait(HANG)
        for verb, more in (('status', ()), ('show', ('coll', 'one')), ('ps', ())):
            told[verb] = command(verb, *more)
            told[f'{verb} --json'] = json.loads(command(verb, *more, '--json').stdout)
    finally:
        go.set()
        run.join(HANG)
    said = {'fraction': 0.3, 'text': 'epoch \x1b[31m3'}
    assert told['status'].stderr == 'coll/one: 30 % epoch \\x1b[31m3\n'
    assert told['status --json']['coll']['progress'] == [{'ident': 'one', **said}]
    assert 'progress     30 % epoch \\x1b[31m3\n' in told['show'].stdout
    assert told['show --json']['progress'] == said
    assert '\t30 % epoch \\x1b[31m3\t' in told['ps'].stdout
    assert told['ps --json'][0]['progress'] == said
