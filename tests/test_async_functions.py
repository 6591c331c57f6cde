"""Functions that are ``async def`` are resources like any other, and `afetch` blocks no event loop."""

import asyncio
import contextlib
import os
import signal
import textwrap
import threading
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import pytest
from conftest import await_that

import hadrosaur

KINDS = ['inline', 'threads', 'processes', 'futures']


@contextlib.contextmanager
def executor_of(kind):
    """What fetch_many takes as its executor."""
    if kind != 'futures':
        yield kind
        return
    with ProcessPoolExecutor(2) as executor:
        yield executor


async def two_steps(ident, args, subdir):
    """Print before and after a switch; fail where asked to."""
    current = hadrosaur.current()
    print('before', ident)
    await asyncio.sleep(0)
    assert hadrosaur.current() is current
    await asyncio.gather(*(step(ident, n) for n in range(2)))
    Path(subdir, 'made').touch()
    if args.get('fail'):
        await failing(ident)
    return {'ident': current.ident, 'args': args}


async def step(ident, n):
    """A task of its own."""
    print('step', n, hadrosaur.current().ident)


async def failing(ident):
    """Raise below another coroutine."""
    raise KeyError(ident)


@pytest.mark.parametrize('kind', KINDS)
def test_they_give_result_log_and_traceback_as_others_do(kind, proj):
    """Result, output, context, storage and traceback of a coroutine are the same in every executor."""
    proj.resource('a')(two_steps)
    idents = [('good', {'n': 1}), ('good2', {'n': 1}), ('bad', {'fail': True})]
    with executor_of(kind) as executor:
        found = {each.ident: each for each in proj.fetch_many('a', idents, executor=executor, workers=2)}

    assert found['good'].result == {'ident': 'good', 'args': {'n': 1}}
    log = Path(found['good'].paths['stdout']).read_text()
    assert log.splitlines() == ['before good', 'step 0 good', 'step 1 good']
    assert Path(found['good'].paths['storage'], 'made').exists()
    text = Path(found['bad'].paths['error']).read_text()
    assert [line.split()[-1] for line in text.splitlines() if 'File ' in line] == ['two_steps', 'failing']
    assert (found['bad'].entry.error_type, text.splitlines()[-1]) == ('KeyError', "KeyError: 'bad'")


def test_one_that_does_not_end_is_killed_at_its_timeout(proj):
    """`timeout=` holds for coroutines too."""

    @proj.resource('slow', timeout=0.2)
    async def slow(ident, args, subdir):
        await asyncio.Event().wait()

    assert proj.fetch('slow', 'x').entry.error_type == 'TimedOut'


def test_an_event_loop_may_be_running_already(proj):
    """In a notebook, or below ``async def main``, a plain `fetch` computes a coroutine nevertheless."""
    proj.resource('a')(two_steps)

    async def main():
        return proj.fetch('a', 'x').result['ident'], proj.fetch('a', 'bad', {'fail': True})

    result, failed = asyncio.run(main())
    assert result == 'x'
    text = Path(failed.paths['error']).read_text()
    assert [line.split()[-1] for line in text.splitlines() if 'File ' in line] == ['two_steps', 'failing']


def test_afetch_leaves_the_loop_running(proj):
    """While `afetch` computes, other tasks of the loop go on; what it raises, it raises."""
    go_on = threading.Event()

    @proj.resource('a')
    def waits(ident, args, subdir):
        assert go_on.wait(300)
        return ident

    async def main():
        fetching = [asyncio.create_task(proj.afetch('a', n)) for n in range(3)]
        await asyncio.sleep(0)
        asyncio.get_running_loop().call_soon(go_on.set)
        found = await asyncio.gather(*fetching)
        with pytest.raises(hadrosaur.UnknownCollection):
            await proj.afetch('none', 'x')
        return [each.result for each in found]

    assert asyncio.run(main()) == ['0', '1', '2']


@pytest.mark.parametrize('kind', KINDS)
def test_what_a_coroutine_fetches_has_its_own_log(kind, proj):
    """A function that goes on printing while it awaits others keeps its lines, and they keep theirs."""
    proj.resource('below')(two_steps)

    @proj.resource('above')
    async def above(ident, args, subdir):
        async def talk():
            while not done:
                print('above')
                await asyncio.sleep(0.001)

        done = []
        talking = asyncio.create_task(talk())
        found = await asyncio.gather(*(proj.afetch('below', f'{ident}{n}') for n in range(3)))
        done.append(True)
        await talking
        return [each.result['ident'] for each in found]

    with executor_of(kind) as executor:
        batch = proj.fetch_many('above', ['a', 'b'], executor=executor, workers=2)
        found = {each.ident: each for each in batch}

    assert found['a'].result == ['a0', 'a1', 'a2']
    assert set(Path(found['a'].paths['stdout']).read_text().split()) == {'above'}
    for n in range(3):
        log = Path(proj.get('below', f'b{n}').paths['stdout']).read_text()
        assert log.splitlines() == [f'before b{n}', f'step 0 b{n}', f'step 1 b{n}']
    assert proj.stats()['below']['completed'] == 6


def test_ctrl_c_lets_a_coroutine_clean_up(program, base):
    """Ctrl-C cancels the coroutine, whose cleaning up runs, and the resource says Interrupted."""
    source = f"""
        import asyncio, sys
        from pathlib import Path
        from hadrosaur import Project

        proj = Project({str(base)!r})

        @proj.resource('a')
        async def a(ident, args, subdir):
            try:
                Path({str(base)!r}, 'began').touch()
                await asyncio.Event().wait()
            finally:
                Path(subdir, 'cleaned').touch()

        proj.fetch('a', 'x')
    """
    process = program(textwrap.dedent(source), start=True)
    await_that(lambda: (base / 'began').exists())
    os.kill(process.pid, signal.SIGINT)
    process.communicate(timeout=300)

    res = hadrosaur.Project(base, create=False).get('a', 'x')
    assert res.entry.error_type == 'Interrupted'
    assert Path(res.paths['storage'], 'cleaned').exists()
