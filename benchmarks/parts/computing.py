"""Computing: in process, on two processes, and in small batches."""

import contextlib

from hadrosaur.executors import template

from .. import peers
from ..contenders import (
    computing,
    computing_on_two,
    exhaust,
    files,
    files_and_rows,
    files_on_two,
    in_process,
    on_two,
    project_in,
)
from ..floors import COLLECTION
from ..harness import Contender, at_most, below, faster_than, race
from ..work import idents


def compute(settings):
    """New resources, one after the other, in the calling process.

    The floor writes the same files and runs a statement before and after. Opening and closing are outside
    of the clock on both sides.
    """
    peers.Original.folder = settings.old
    contenders = [
        Contender('floor', files_and_rows),
        Contender('its files alone', files),
        Contender('hadrosaur', in_process, (at_most(1.5), faster_than('hadrosaur 0.0.2'))),
    ]
    others = (
        peers.Original,
        peers.DiskCache,
        peers.Doit,
        peers.Signac,
        peers.Joblib,
        peers.Huey,
        peers.Luigi,
    )
    contenders += map(computing, others)
    number = settings.number(500)
    race('compute in process', contenders, settings, number=number, rounds=settings.turns(9))


def many(settings):
    """New resources by fetch_many, on two processes, their start included.

    The floor writes the files alone, in chunks of 50; the index is hadrosaur's own extra.
    """
    contenders = [
        Contender('floor', files_on_two),
        Contender('hadrosaur', on_two, (at_most(2), faster_than('joblib'))),
        *map(computing_on_two, (peers.Signac, peers.Joblib)),
        computing_on_two(peers.Doit)._replace(share=0.3),
        computing_on_two(peers.Luigi)._replace(share=0.01),
    ]
    number = settings.number(4000, 2000)
    race('compute on two processes', contenders, settings, number=number, rounds=settings.turns(5))


def again(settings):
    """Batches of 20 in a program that has computed something: the first, and then the second.

    The first starts the process that forks workers, the second forks two; both wait for the ends of theirs.
    """
    contenders = [
        Contender('the second', another_batch, (below(60, 'ms'),), ends_its_children=False),
        Contender('the first', first_batch, (below(150, 'ms'),), ends_its_children=False),
    ]
    race('batches of 20', contenders, settings, number=1, rounds=settings.turns(15), unit='ms', warm_up=0)


@contextlib.contextmanager
def first_batch(place, _number):
    """The first of a program, as far as that matters: nothing is there that forks workers."""
    template._drop()
    with project_in(place) as project:
        yield lambda: exhaust(project.fetch_many(COLLECTION, idents(20), workers=2))


@contextlib.contextmanager
def another_batch(place, _number):
    """One that comes after another."""
    with project_in(place) as project:
        exhaust(project.fetch_many(COLLECTION, idents(20), workers=2))
        yield lambda: exhaust(project.fetch_many(COLLECTION, idents(20, 20), workers=2))
