"""From the folders to the index: all of it, and when nothing has changed."""

import contextlib

from hadrosaur import Project

from .. import floors, peers
from ..contenders import exhaust
from ..floors import COLLECTION
from ..harness import Contender, Wrong, at_most, below, race
from ..work import idents


def reindex(settings):
    """One collection of many folders, read with a warm cache."""
    number = settings.number(100_000, 20_000)
    base = settings.places.fresh('folders')
    collection = f'{base}/{COLLECTION}'
    floors.os.mkdir(collection)
    exhaust(floors.write_on_two(collection, idents(number)))

    @contextlib.contextmanager
    def floor(place, _number):
        path = f'{place}/index.sqlite3'
        with contextlib.closing(floors.open_index(path)) as database:
            yield lambda: _insert_all(database, collection)
        floors.has_rows(path, number)

    @contextlib.contextmanager
    def lost(place, _number):
        with Project(base, index=f'{place}/index.sqlite3') as project:
            yield project.stats
        floors.has_rows(f'{place}/index.sqlite3', number)

    def again(**how):
        @contextlib.contextmanager
        def ready(place, _number):
            with Project(base, index=f'{place}/index.sqlite3') as project:
                project.stats()
                reports = []
                yield lambda: reports.append(project.reindex(COLLECTION, **how))
                if reports[0] != (number, 0, 0, 0, []):
                    raise Wrong(f'reindex reports {reports[0]}')

        return ready

    contenders = [
        Contender('floor', floor),
        Contender('hadrosaur, a lost index', lost, (at_most(1.3),)),
        Contender('hadrosaur, reindex()', again(), (at_most(1.3),)),
        Contender('hadrosaur, changed_only', again(changed_only=True), (below(6, 'µs'),)),
        Contender('signac, update_cache', _signac, share=0.05),
    ]
    race('reindex', contenders, settings, number=number, rounds=settings.turns(3), warm_up=1)


def _insert_all(database, collection):
    database.execute('BEGIN')
    database.executemany(floors.INSERT, floors.rows_of_folders(collection))
    database.execute('COMMIT')


@contextlib.contextmanager
def _signac(place, number):
    made = peers.Signac(place)
    made.compute(idents(number))
    import signac

    project = signac.get_project(place)
    yield project.update_cache
