"""From the folders to the index: all of it, and when nothing has changed."""

import contextlib

from hadrosaur import Project

from .. import floors, peers
from ..contenders import exhaust
from ..floors import COLLECTION
from ..harness import Contender, Wrong, at_most, race
from ..work import idents


def reindex(settings):
    """One collection of many folders, read with a warm cache; PERFORMANCE speaks of --size 100000."""
    number = settings.number(50_000, 20_000)
    folders = _Folders(settings.places, number)
    contenders = [
        Contender('floor', folders.floor),
        Contender('hadrosaur, a lost index', folders.lost, (at_most(1.5),)),
        Contender('hadrosaur, reindex()', folders.again(), (at_most(1.5),)),
        Contender('floor of changed_only: stat', folders.stat),
        Contender(
            'hadrosaur, changed_only',
            folders.again(changed_only=True),
            (at_most(1.5, of='floor of changed_only: stat'),),
            against='floor of changed_only: stat',
        ),
        Contender('signac, update_cache', _signac, share=0.05),
    ]
    race('reindex', contenders, settings, number=number, rounds=settings.turns(3), warm_up=0)


class _Folders:
    """The folders, and an index that agrees with them; both are only read by all contenders."""

    def __init__(self, places, number):
        self.number = number
        self.base = places.fresh('folders')
        self.collection = f'{self.base}/{COLLECTION}'
        floors.os.mkdir(self.collection)
        exhaust(floors.write_on_two(self.collection, idents(number)))
        with Project(self.base) as project:
            project.stats()
        self._has_rows(self.base)

    def _has_rows(self, place):
        floors.has_rows(f'{place}/index.sqlite3', self.number)

    @contextlib.contextmanager
    def floor(self, place, _number):
        with contextlib.closing(floors.open_index(f'{place}/index.sqlite3')) as database:
            yield lambda: floors.insert_all(database, self.collection)
        self._has_rows(place)

    @contextlib.contextmanager
    def stat(self, _place, _number):
        """Nothing but the time of each status.json."""
        yield lambda: floors.stat_all(self.collection)

    @contextlib.contextmanager
    def lost(self, place, _number):
        """An index that is not there is built at the first question."""
        with Project(self.base, index=f'{place}/index.sqlite3') as project:
            yield project._index
        self._has_rows(place)

    def again(self, **how):
        @contextlib.contextmanager
        def ready(_place, _number):
            reports = []
            with Project(self.base) as project:
                project.query(limit=1)[0]
                yield lambda: reports.append(project.reindex(COLLECTION, **how))
            if reports[0] != (self.number, 0, 0, 0, []):
                raise Wrong(f'reindex reports {reports[0]}')

        return ready


@contextlib.contextmanager
def _signac(place, number):
    made = peers.Signac(place)
    made.compute(idents(number))
    import signac

    project = signac.get_project(place)
    yield project.update_cache
