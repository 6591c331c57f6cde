"""Reading what was computed before."""

import contextlib

from .. import floors, peers
from ..contenders import exhaust, fetch_each, project_in, reading
from ..floors import COLLECTION
from ..harness import Contender, at_most, race
from ..work import idents

ARGS = {'level': 3, 'name': 'Ångström', 'deep': {'a': [1, 2.5]}}


class _Filled:
    """One project with computed resources, which nobody changes: for all contenders and rounds."""

    def __init__(self, settings, number, args=None):
        self.place = settings.places.fresh('cached')
        self.names = idents(number)
        self.collection = f'{self.place}/{COLLECTION}'
        with project_in(self.place) as project:
            exhaust(project.fetch_many(COLLECTION, self.names, args, workers=2))
        floors.has_rows(f'{self.place}/index.sqlite3', number)

    def contender(self, name, act, *targets):
        """``act`` is given the project and the names."""

        @contextlib.contextmanager
        def ready(_place, number):
            with project_in(self.place) as project:
                before = project.get(COLLECTION, self.names[0]).entry
                yield lambda: act(project, self.names[:number])
                if project.get(COLLECTION, self.names[0]).entry != before:
                    raise floors.Wrong('it was computed again')

        return Contender(name, ready, targets)


def _read_each(path, names):
    for name in names:
        floors.read_resource(path, name)


def cached(settings):
    """fetch of what is there: without args, and with args that are compared with the saved ones."""
    peers.Original.folder = settings.old
    number, rounds = settings.number(3000, 1500), settings.turns(7)
    filled = _Filled(settings, number, ARGS)
    path = filled.collection
    floor = filled.contender('floor', lambda _, names: _read_each(path, names))
    others = (peers.DiskCache, peers.Doit, peers.Signac, peers.Original, peers.Joblib, peers.Luigi)
    contenders = [floor, filled.contender('hadrosaur', fetch_each, at_most(1.3)), *map(reading, others)]
    race('cached', contenders, settings, number=number, rounds=rounds)

    def read_with_args(_, names):
        for name in names:
            floors.read_resource_with_args(path, name, ARGS)

    def fetch_with_args(project, names):
        for name in names:
            project.fetch(COLLECTION, name, ARGS)

    contenders = [
        filled.contender('floor', read_with_args),
        filled.contender('hadrosaur', fetch_with_args, at_most(1.3)),
    ]
    race('cached, args given', contenders, settings, number=number, rounds=rounds)


def cached_many(settings):
    """fetch_many over what is there."""
    number = settings.number(10_000, 4000)
    filled = _Filled(settings, number)
    path = filled.collection
    contenders = [
        filled.contender('floor', lambda _, names: _read_each(path, names)),
        filled.contender(
            'hadrosaur', lambda project, names: exhaust(project.fetch_many(COLLECTION, names)), at_most(1.3)
        ),
    ]
    race('cached, in bulk', contenders, settings, number=number, rounds=settings.turns(9))
