"""How long a command takes that does next to nothing."""

import contextlib
import os
import subprocess
import sys

from ..contenders import fetch_each, project_in
from ..harness import Contender, Skipped, at_most, at_most_over, below, race
from ..work import idents


def start(settings):
    """import hadrosaur, hadrosaur --help, hadrosaur status BASE."""
    base = settings.places.fresh('small')
    with project_in(base) as project:
        fetch_each(project, idents(20))
    ours = _script('hadrosaur') or [sys.executable, '-m', 'hadrosaur']
    contenders = [
        _running('bare', [sys.executable, '-c', 'pass']),
        _running('import sqlalchemy', [sys.executable, '-c', 'import sqlalchemy']),
        _running('import hadrosaur', [sys.executable, '-c', 'import hadrosaur'], at_most_over(0.040, 'bare')),
        _running('hadrosaur --help', [*ours, '--help'], below(100, 'ms')),
        _running('hadrosaur status', [*ours, 'status', base], at_most(1.3, 'import sqlalchemy')),
        _running('signac --help', _script('signac', '--help')),
    ]
    number = settings.number(3)
    race('start', contenders, settings, number=number, rounds=settings.turns(9), unit='ms', warm_up=0.3)


def _script(name, *arguments):
    path = os.path.join(os.path.dirname(sys.executable), name)
    return [path, *arguments] if os.path.exists(path) else None


def _running(name, command, *targets):
    @contextlib.contextmanager
    def ready(_place, number):
        if command is None:
            raise Skipped('not installed')

        def run():
            for _ in range(number):
                subprocess.run(command, check=True, stdout=subprocess.DEVNULL)

        yield run

    return Contender(name, ready, targets)
