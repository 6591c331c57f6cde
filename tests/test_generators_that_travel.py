"""A random generator that goes to each worker with the function gives the same numbers in all of them."""

import random
import warnings

import pytest

import hadrosaur


def drawing(generator):
    """A function that draws from a generator in its closure."""

    def draw(ident, args, subdir):
        return generator.random()

    return draw


@pytest.mark.parametrize('kind', ['random', 'Generator', 'RandomState'])
def test_a_generator_that_travels_is_warned_of_once(kind, proj, monkeypatch):
    """In a closure it is named, once for the function, and computed nevertheless."""
    monkeypatch.setattr('hadrosaur.executors._random_state._told', set())
    if kind == 'random':
        generator = random.Random(1)
    else:
        numpy = pytest.importorskip('numpy')
        generator = numpy.random.default_rng(1) if kind == 'Generator' else numpy.random.RandomState(1)
    proj.resource('a')(drawing(generator))

    with pytest.warns(hadrosaur.HadrosaurWarning, match="random generator 'generator'"):
        proj.fetch_many('a', ['x'], workers=1).wait()
    with warnings.catch_warnings():
        warnings.simplefilter('error')
        assert proj.fetch_many('a', ['y'], workers=1).wait().completed == 1


@pytest.mark.parametrize('kind', ['inline', 'threads'])
def test_what_stays_here_is_nobodys_concern(kind, proj):
    """In the program itself there is one generator."""
    proj.resource('a')(drawing(random.Random(1)))

    with warnings.catch_warnings():
        warnings.simplefilter('error')
        proj.fetch_many('a', ['x'], executor=kind).wait()


def test_those_of_a_script_are_found_too(program, base):
    """Globals of a script travel with its functions: generators, and methods taken from one."""
    done = program(
        f"""
        from random import Random, gauss
        from hadrosaur import Project

        proj = Project({str(base)!r})
        rng = Random(5)

        @proj.resource('a')
        def a(ident, args, subdir):
            return rng.random()

        @proj.resource('b')
        def b(ident, args, subdir):
            return gauss(0, 1)

        @proj.resource('c')
        def c(ident, args, subdir):
            return Random(ident).random()

        for name in 'abc':
            proj.fetch_many(name, ['x'], workers=1).wait()
        """
    )
    told = [line for line in done.stderr.splitlines() if 'random generator' in line and 'Warning' in line]
    assert [("'rng'" in line, "'gauss'" in line) for line in told] == [(True, False), (False, True)]
