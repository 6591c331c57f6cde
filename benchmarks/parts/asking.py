"""Asking the index, at a million rows."""

import contextlib
import shutil
import sqlite3

from hadrosaur import Project
from hadrosaur.records import STATUSES

from ..filling import MAIN, fill_index
from ..harness import Contender, Wrong, at_most, below, note, race

LAST_ERRORS = """
SELECT * FROM resources WHERE collection = ? AND status = 'error' ORDER BY finished_at DESC LIMIT 100"""
PAGE = """
SELECT * FROM resources WHERE finished_at IS NOT NULL ORDER BY finished_at LIMIT 1 OFFSET ?"""
COUNT = 'SELECT collection, status, count(*) FROM resources GROUP BY collection, status'


def query(settings):
    """The last 100 errors of a collection, the counts by status, and pages of everything."""
    rows = settings.number(1_000_000, 300_000)
    base = settings.places.fresh('index')
    fill_index(base, rows)
    note(f'query: {rows:,} rows, of which one in forty is an error')
    _race_for_errors(settings, base)
    _race_for_counts(settings, base)
    _race_for_pages(settings, base, rows)


def _race_for_errors(settings, base):
    def raw(database):
        return database.execute(LAST_ERRORS, (MAIN,)).fetchall()

    def ours(project):
        return list(project.query(MAIN, status='error', limit=100))

    with _opened(base) as (database, project):
        if [tuple(entry) for entry in ours(project)] != raw(database):
            raise Wrong('hadrosaur finds other rows than SQLite')
        contenders = [
            _asking('floor', lambda: raw(database)),
            _asking('hadrosaur', lambda: ours(project), at_most(3)),
            _asking('hadrosaur, and its length first', lambda: _measured(project)),
        ]
        race('the last 100 errors', contenders, settings, number=100, rounds=settings.turns(15), unit='ms')


def _measured(project):
    found = project.query(MAIN, status='error', limit=100)
    return len(found), list(found)


def _race_for_counts(settings, base):
    fitting = f'{settings.places.fresh("copy")}/index.sqlite3'
    shutil.copyfile(f'{base}/index.sqlite3', fitting)
    with _opened(base) as (same, project), contextlib.closing(sqlite3.connect(fitting)) as copy:
        copy.execute('CREATE INDEX fitting ON resources (collection, status)')
        expected = {(of, status): number for of, status, number in copy.execute(COUNT)}
        ways = {
            'hadrosaur, index.count': (lambda: project._index().count(), at_most(0.2)),
            'hadrosaur, sql(status_counts)': (
                lambda: project.sql('SELECT * FROM status_counts'),
                at_most(1.2),
            ),
            'hadrosaur, len(query(status=…))': (
                lambda: [len(project.query(status=word)) for word in STATUSES],
                at_most(0.6),
            ),
            'hadrosaur, stats(), with durations': (lambda: project.stats(), below(100, 'ms')),
        }
        for name, number in project.stats().items():
            if any(expected.get((name, word), 0) != number[word] for word in STATUSES):
                raise Wrong('hadrosaur counts otherwise than SQLite')
        contenders = [
            _asking('floor', lambda: copy.execute(COUNT).fetchall()),
            _asking('the same, without its own index', lambda: same.execute(COUNT).fetchall()),
            *(_asking(name, *way) for name, way in ways.items()),
        ]
        race('counts by status', contenders, settings, number=3, rounds=settings.turns(7), unit='ms')


def _race_for_pages(settings, base, rows):
    """Rows anywhere in the default order, of all collections."""
    middle = rows // 2
    with _opened(base) as (database, project):
        ways = {
            'query()[0]': lambda: project.query()[0],
            'query()[-1]': lambda: project.query()[-1],
            'query(), the middle one': lambda: project.query()[middle],
            'next(reversed(query()))': lambda: next(reversed(project.query())),
        }
        contenders = [
            _asking('floor', lambda: database.execute(PAGE, (middle,)).fetchone()),
            *(_asking(name, act, at_most(2)) for name, act in ways.items()),
        ]
        race('pages', contenders, settings, number=5, rounds=settings.turns(7), unit='ms')


@contextlib.contextmanager
def _opened(base):
    """The same index by both ways, each with its connection open."""
    with contextlib.closing(sqlite3.connect(f'{base}/index.sqlite3')) as database, Project(base) as project:
        yield database, project


def _asking(name, act, *targets):
    @contextlib.contextmanager
    def ready(_place, number):
        act()
        yield lambda: [act() for _ in range(number)]

    return Contender(name, ready, targets)
