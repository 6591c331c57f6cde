"""Does a resource cost more where there are many already?"""

import contextlib

from hadrosaur import Project

from .. import floors
from ..contenders import exhaust, fetch_each, project_in, write_each
from ..floors import COLLECTION, Output
from ..harness import Contender, at_most, race
from ..work import idents, work

SMALL = 1000


def growth(settings):
    """New resources in a flat folder of a thousand, and in one of many; in process.

    The folder of many is filled once and grows on from round to round.
    """
    large = settings.number(100_000, 20_000)
    ours, theirs = _Ours(settings.places), _Theirs(settings.places)
    for side in (ours, theirs):
        side.fill(large)
    few, many = f'at {SMALL:,}', f'at {large:,}'
    contenders = [
        Contender(f'floor {few}', theirs.small),
        Contender(f'floor {many}', theirs.large),
        Contender(f'hadrosaur {few}', ours.small),
        Contender(
            f'hadrosaur {many}',
            ours.large,
            (at_most(1.25, f'hadrosaur {few}'),),
            against=f'floor {many}',
        ),
    ]
    race('growth', contenders, settings, number=500, rounds=settings.turns(9))


class _Ours:
    def __init__(self, places):
        self.place = places.fresh('large')
        self.total = 0

    def fill(self, number):
        with Project(self.place) as project:
            project.resource(COLLECTION)(work)
            exhaust(project.fetch_many(COLLECTION, idents(number), workers=2))
        self.total = number

    @contextlib.contextmanager
    def large(self, _place, number):
        names = idents(number, self.total)
        with project_in(self.place) as project:
            yield lambda: fetch_each(project, names)
        self.total += number
        floors.has_rows(f'{self.place}/index.sqlite3', self.total)

    @contextlib.contextmanager
    def small(self, place, number):
        with project_in(place) as project:
            fetch_each(project, idents(SMALL))
            names = idents(number, SMALL)
            yield lambda: fetch_each(project, names)
        floors.has_rows(f'{place}/index.sqlite3', SMALL + number)


class _Theirs:
    def __init__(self, places):
        self.place = places.fresh('large-floor')
        self.total = 0

    def fill(self, number):
        collection = f'{self.place}/{COLLECTION}'
        floors.os.mkdir(collection)
        exhaust(floors.write_on_two(collection, idents(number)))
        with contextlib.closing(floors.open_index(f'{self.place}/index.sqlite3')) as database:
            floors.insert_all(database, collection)
        self.total = number

    @contextlib.contextmanager
    def large(self, _place, number):
        names = idents(number, self.total)
        with _floor_in(self.place) as (database, output):
            yield lambda: write_each(database, f'{self.place}/{COLLECTION}', names, output)
        self.total += number
        floors.has_rows(f'{self.place}/index.sqlite3', self.total)

    @contextlib.contextmanager
    def small(self, place, number):
        collection = f'{place}/{COLLECTION}'
        floors.os.mkdir(collection)
        with _floor_in(place) as (database, output):
            write_each(database, collection, idents(SMALL), output)
            names = idents(number, SMALL)
            yield lambda: write_each(database, collection, names, output)
        floors.has_rows(f'{place}/index.sqlite3', SMALL + number)


@contextlib.contextmanager
def _floor_in(place):
    with contextlib.closing(floors.open_index(f'{place}/index.sqlite3')) as database, Output() as output:
        yield database, output
