"""Computing: in process, and on two processes."""

from .. import peers
from ..contenders import computing, computing_on_two, files, files_and_rows, files_on_two, in_process, on_two
from ..harness import Contender, at_most, faster_than, race


def compute(settings):
    """New resources, one after the other, in the calling process.

    The floor writes the same files and runs a statement before and after. Opening and closing are outside
    of the clock on both sides.
    """
    peers.Original.folder = settings.old
    contenders = [
        Contender('floor', files_and_rows),
        Contender('its files alone', files),
        Contender('hadrosaur', in_process, (at_most(1.3), faster_than('hadrosaur 0.0.2'))),
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
        Contender('hadrosaur', on_two, (at_most(1.3), faster_than('joblib'))),
        *map(computing_on_two, (peers.Signac, peers.Joblib)),
        computing_on_two(peers.Doit)._replace(share=0.3),
        computing_on_two(peers.Luigi)._replace(share=0.01),
    ]
    number = settings.number(4000, 2000)
    race('compute on two processes', contenders, settings, number=number, rounds=settings.turns(5))
