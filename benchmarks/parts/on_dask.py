"""Computing on two dask workers of this machine."""

import contextlib

from .. import floors
from ..contenders import batched, on_two
from ..harness import Contender, at_most, race
from ..work import idents

CHUNK = 16


def dask(settings):
    """The floor: dask tasks that write the same files, sixteen each."""
    contenders = [
        Contender('floor', _chunks(CHUNK), ends_its_children=False),
        Contender('one task per resource', _chunks(1), share=0.2, ends_its_children=False),
        Contender('hadrosaur', _ours, (at_most(1.4),), ends_its_children=False),
    ]
    number = settings.number(2000, 1000)
    race('dask, two workers', contenders, settings, number=number, rounds=settings.turns(5))


@contextlib.contextmanager
def _client():
    from distributed import Client, LocalCluster

    cluster = LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address=None)
    with cluster, Client(cluster) as client:
        client.gather(client.map(abs, range(4)))
        yield client


def _chunks(size):
    @contextlib.contextmanager
    def ready(place, number):
        chunks = list(batched(idents(number), size))
        with _client() as client:

            def run():
                client.gather(client.map(floors.write_chunk, [place] * len(chunks), chunks, pure=False))

            yield run
        if len(floors.os.listdir(place)) != number:
            raise floors.Wrong('folders are missing')

    return ready


@contextlib.contextmanager
def _ours(place, number):
    with _client() as client, on_two(place, number, executor=client) as run:
        yield run
