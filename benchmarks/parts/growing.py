"""Does a resource cost more where there are many already?"""

import contextlib
import os

from .. import floors
from ..contenders import fetch_each, project_in, write_each
from ..floors import COLLECTION, Output
from ..harness import Contender, at_most, race
from ..work import idents

SMALL = 1000


def growth(settings):
    """New resources in a flat folder of a thousand, and in one of many; in process.

    Both are filled with empty folders and with rows: a folder's own files slow down nobody else's.
    The one of many is filled once and grows on from round to round.
    """
    large = settings.number(100_000, 20_000)
    few, many = f'at {SMALL:,}', f'at {large:,}'
    ours, theirs = _Side(project_in, fetch_each), _Side(_files_and_rows, _write)
    for side in (ours, theirs):
        side.fill(settings.places.fresh('large'), large)
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


class _Side:
    """Hadrosaur, or the floor, at both sizes.

    Args:
        opened: Context manager: given a folder, what computes there.
        act: Computes, given that and names.
    """

    def __init__(self, opened, act):
        self._opened = opened
        self._act = act

    def fill(self, place, number):
        """Make the large one."""
        self._place, self._total = place, number
        self._prepare(place, number)

    def _prepare(self, place, number):
        with self._opened(place):
            pass
        _fill(place, number)

    @contextlib.contextmanager
    def large(self, _place, number):
        first, self._total = self._total, self._total + number
        with self._computing(self._place, number, first) as run:
            yield run

    @contextlib.contextmanager
    def small(self, place, number):
        self._prepare(place, SMALL)
        with self._computing(place, number, SMALL) as run:
            yield run

    @contextlib.contextmanager
    def _computing(self, place, number, first):
        names = idents(number, first)
        with self._opened(place) as made:
            yield lambda: self._act(made, names)
        floors.has_rows(f'{place}/index.sqlite3', first + number)
        floors.same_shape(f'{place}/{COLLECTION}/{names[-1]}', names[-1])


@contextlib.contextmanager
def _files_and_rows(place):
    collection = f'{place}/{COLLECTION}'
    os.makedirs(collection, exist_ok=True)
    with contextlib.closing(floors.open_index(f'{place}/index.sqlite3')) as database, Output() as output:
        yield database, collection, output


def _write(made, names):
    database, collection, output = made
    write_each(database, collection, names, output)


def _fill(place, number):
    """Empty folders, and rows as if they had been computed."""
    names = idents(number)
    for name in names:
        os.mkdir(f'{place}/{COLLECTION}/{name}')
    model = {'state': 'completed', 'args': {}, 'args_hash': floors.NO_ARGS, 'attempt': 1, 'host': 'somewhere'}
    model |= {'pid': 1, 'duration': 0.001, 'cpu_seconds': 0.001, 'max_rss': 1_000_000}
    model |= dict.fromkeys(('queued_at', 'started_at', 'finished_at'), floors.now())
    rows = (floors.row_of(name, model, 1, floors.now()) for name in names)
    with contextlib.closing(floors.sqlite3.connect(f'{place}/index.sqlite3')) as database, database:
        database.executemany(floors.INSERT, rows)
