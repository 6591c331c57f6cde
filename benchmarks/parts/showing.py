"""The page: how soon it answers at many rows, what it weighs, and what an open one costs a run."""

import contextlib
import http.client
import json
import subprocess
import sys
import threading

import uvicorn

from hadrosaur import Project
from hadrosaur.web.server import make_app
from hadrosaur.web.serving import bind

from ..contenders import exhaust, project_in
from ..filling import MAIN, fill_index
from ..floors import COLLECTION
from ..harness import Contender, Wrong, at_most, below, note, race
from ..work import idents

TOKEN = 'benchmark'
HEAVIEST = 150_000
PATHS = {
    'floor': '/static/page.css',
    'all collections': '/',
    'one collection': f'/c/{MAIN}',
    'its failures': f'/c/{MAIN}?status=error',
    'its causes, with tracebacks': f'/c/{MAIN}/errors',
    'the gallery': f'/c/{MAIN}/gallery',
    'running': '/running',
    'timeline': '/timeline',
    'a search in idents': f'/c/{MAIN}?q=item-00001',
    'sorted by duration': f'/c/{MAIN}?sort=-duration',
}
AS_A_BROWSER = """
import http.client, sys
def ask(path):
    connection = http.client.HTTPConnection('127.0.0.1', int(sys.argv[1]))
    connection.request('GET', path, headers={'authorization': 'Bearer benchmark'})
    return connection.getresponse()
ask(sys.argv[2]).read()
with ask('/events') as events:
    print('listens', flush=True)
    for line in events:
        if line.startswith(b'event: changed'):
            ask(sys.argv[2]).read()
"""


def page(settings):
    """First bytes at a thousand, a hundred thousand and a million rows, and a run beside an open page."""
    for rows in (1_000, 100_000, settings.number(1_000_000, 300_000)):
        base = settings.places.fresh(f'rows-{rows}')
        fill_index(base, rows)
        with Project(base, create=False) as project, served(project) as port:
            weights = {name: len(ask(port, path).read()) for name, path in PATHS.items()}
            note(
                f'kB at {rows:,} rows: '
                + ', '.join(f'{name} {size // 1000}' for name, size in weights.items())
            )
            if max(weights.values()) > HEAVIEST:
                raise Wrong('a page is too heavy')
            contenders = [_answering(name, port, path) for name, path in PATHS.items()]
            race(f'first byte at {rows:,} rows', contenders, settings, number=1,
                 rounds=settings.turns(9), unit='ms', warm_up=1)  # fmt: skip
    contenders = [
        Contender('floor', _alone),
        Contender('beside an open page', _watched, (at_most(1.02),)),
    ]
    number = settings.number(4000, 2000)
    race('a run on two processes', contenders, settings, number=number, rounds=settings.turns(9))


@contextlib.contextmanager
def served(project):
    """The port of the page, which is served in a thread."""
    bound = bind('127.0.0.1', 0)
    server = uvicorn.Server(uvicorn.Config(make_app(project, TOKEN), log_level='error'))
    thread = threading.Thread(target=server.run, args=([bound],))
    thread.start()
    try:
        yield bound.getsockname()[1]
    finally:
        server.should_exit = True
        thread.join()
        bound.close()


def ask(port, path):
    """The answer, of which the first byte is there."""
    connection = http.client.HTTPConnection('127.0.0.1', port)
    connection.request('GET', path, headers={'authorization': f'Bearer {TOKEN}'})
    answer = connection.getresponse()
    if answer.status != 200:
        raise Wrong(f'{path}: {answer.status}')
    return answer


def _answering(name, port, path):
    @contextlib.contextmanager
    def ready(_place, number):
        answers = []

        def run():
            answers.extend(ask(port, path) for _ in range(number))

        yield run
        for answer in answers:
            answer.read()

    return Contender(name, ready, (below(100, 'ms'),))


@contextlib.contextmanager
def _alone(place, number):
    with project_in(place) as project:
        yield lambda: exhaust(project.fetch_many(COLLECTION, idents(number), workers=2))


@contextlib.contextmanager
def _watched(place, number):
    """The same, while another process serves the page and a third looks as a browser does."""
    with project_in(place) as project:
        project.stats()
        command = [sys.executable, '-m', 'hadrosaur', 'web', place]
        with _process(command) as page:
            address = page.stdout.readline()
            port = address.rpartition(':')[2].partition('/')[0]
            token = address.strip().partition('token=')[2]
            program = AS_A_BROWSER.replace('benchmark', token)
            with _process([sys.executable, '-c', program, port, f'/c/{COLLECTION}']) as looks:
                if looks.stdout.readline().strip() != 'listens':
                    raise Wrong(json.dumps(address))
                yield lambda: exhaust(project.fetch_many(COLLECTION, idents(number), workers=2))


@contextlib.contextmanager
def _process(command):
    started = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    try:
        yield started
    finally:
        started.terminate()
        started.wait()
        started.stdout.close()
