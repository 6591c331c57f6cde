"""Contenders that several parts have in common: hadrosaur itself, files and rows, any peer."""

import contextlib
import itertools

from hadrosaur import Project
from hadrosaur.locks import has_other_threads

from . import floors
from .floors import COLLECTION, Output
from .harness import Contender, Wrong
from .peers import Joblib
from .work import idents, work


def project_in(place):
    """A project whose index is open and whose collection is registered."""
    project = Project(place)
    project.resource(COLLECTION)(work)
    project.resource('warm')(work)
    project.fetch('warm', 'up')
    return project


@contextlib.contextmanager
def in_process(place, number):
    """fetch, one after the other."""
    names = idents(number)
    with project_in(place) as project:
        if has_other_threads():
            raise Wrong('other threads are alive: output would not be caught as in a plain program')
        yield lambda: fetch_each(project, names)
    verify(place, names)


def fetch_each(project, names):
    """Compute, or read again."""
    for name in names:
        project.fetch(COLLECTION, name)


@contextlib.contextmanager
def on_two(place, number, **how):
    """fetch_many, on two processes."""
    names = idents(number)
    with project_in(place) as project:
        yield lambda: exhaust(project.fetch_many(COLLECTION, names, workers=2, **how))
    verify(place, names)


def exhaust(iterator):
    """Take all and keep nothing."""
    for _ in iterator:
        pass


def verify(place, names):
    """Folders as the floor leaves them, rows as many as resources, output caught by descriptors."""
    for name in {names[0], names[-1]}:
        floors.same_shape(f'{place}/{COLLECTION}/{name}', name)
        record = floors.json.loads(floors.read(f'{place}/{COLLECTION}/{name}/record.json'))
        if record['capture'] != 'descriptors':
            raise Wrong(f'output was caught by {record["capture"]}')
    floors.has_rows(f'{place}/index.sqlite3', len(names))


@contextlib.contextmanager
def files_and_rows(place, number):
    """The floor: the files, and a statement before and after."""
    names = idents(number)
    collection = f'{place}/{COLLECTION}'
    floors.os.mkdir(collection)
    with contextlib.closing(floors.open_index(f'{place}/index.sqlite3')) as database, Output() as output:
        yield lambda: write_each(database, collection, names, output)
    floors.has_rows(f'{place}/index.sqlite3', number)


def write_each(database, collection, names, output):
    """Files and rows, one after the other."""
    for name in names:
        floors.queue_row(database, name)
        record, value = floors.write_files(collection, name, output)
        floors.finish_row(database, name, record, value)


@contextlib.contextmanager
def files(place, number):
    """The files alone."""
    names = idents(number)
    with Output() as output:
        yield lambda: [floors.write_files(place, name, output) for name in names]


@contextlib.contextmanager
def files_on_two(place, number):
    """The files alone, from two processes."""
    names = idents(number)
    yield lambda: exhaust(floors.write_on_two(place, names))


def computing(peer):
    """A peer computes."""
    return _contender(peer, lambda made, names: made.compute(names), fill=False)


def computing_on_two(peer):
    """A peer computes with two processes."""
    made = _contender(peer, lambda made, names: made.compute_on_two(names), fill=False)
    return made._replace(ends_its_children=peer is not Joblib)


def reading(peer):
    """A peer reads what it has computed; its folder is filled once for all rounds."""
    return _contender(peer, lambda made, names: made.read(names), fill=True)


def _contender(peer, act, *, fill):
    @contextlib.contextmanager
    def ready(place, number):
        names = idents(number)
        with contextlib.closing(peer(place)) as made:
            if fill:
                made.compute(names)
            yield lambda: act(made, names)
            if made.count() != number:
                raise Wrong(f'{peer.name} has {made.count()} results instead of {number}')

    return Contender(peer.name, ready, share=peer.share)


def batched(names, size):
    """Lists of ``size`` names."""
    each = iter(names)
    while batch := list(itertools.islice(each, size)):
        yield batch
