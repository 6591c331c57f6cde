"""A program that kills an upgrade of an old index at every place, and looks each time at what is left.

It is run with the library of faults.c preloaded (p16_upgrade.py). Arguments: a folder to work in, how many
kills at random moments, a seed. It prints a line of JSON for each kill.
"""

import json
import os
import random
import shutil
import signal
import sqlite3
import sys
import time
import traceback
from contextlib import closing, suppress
from pathlib import Path

import sqlalchemy
from faults import CHANGES, Faults
from harness import load_everything

from hadrosaur import Project, schema, upgrade

DUMPS = sorted((Path(__file__).parents[1] / 'data/indexes').glob('*.sql'))
KINDS = CHANGES | {'flock', 'lock', 'read'}


def contents(path):
    """The words of everything in the schema of a file, its rows, whose file it is, and its revision."""
    with closing(sqlite3.connect(path)) as index:
        found = dict(index.execute('SELECT name, sql FROM sqlite_master WHERE sql IS NOT NULL'))
        found.pop('alembic_version', None)
        words = {name: ' '.join(sql.split()) for name, sql in found.items()}
        rows = index.execute('SELECT collection, ident, status, args, error FROM resources').fetchall()
        mark = index.execute('PRAGMA application_id').fetchone()
        [whole] = index.execute('PRAGMA integrity_check').fetchone()
        revision = index.execute('SELECT version_num FROM alembic_version').fetchall()
    return words, sorted(rows), mark, whole, revision


def open_it(base):
    with Project(base, create=False) as proj:
        return sorted((entry.ident, entry.status) for entry in proj.query())


def compute_in(base):
    """Who computes sweeps up what others left; who only reads leaves it."""
    with Project(base) as proj:
        proj.resource('another')(lambda ident, args, subdir: ident)
        assert proj.fetch('another', 'one').status == 'completed'


def forked(work):
    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            work()
            code = 0
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(code)
    return pid


def at_statement(number, after):
    """Have this process killed before or after the n-th statement of the upgrade."""
    made, seen = upgrade.make_engine, [0]

    def make_engine(path):
        engine = made(path)

        def count(*_):
            seen[0] += 1
            if seen[0] == number:
                os.kill(os.getpid(), signal.SIGKILL)

        sqlalchemy.event.listen(engine, 'after_cursor_execute' if after else 'before_cursor_execute', count)
        return engine

    upgrade.make_engine = make_engine


class Upgrades:
    def __init__(self, place, dump):
        self.dump = dump
        self.base = place / 'base'
        self.template = place / dump.stem
        (self.template / '.hadrosaur').mkdir(parents=True)
        with closing(sqlite3.connect(self.template / 'index.sqlite3')) as index:
            index.executescript(dump.read_text('utf-8'))
        self.old = contents(self.template / 'index.sqlite3')
        self.restore()
        pid = forked(lambda: open_it(self.base))
        assert os.waitpid(pid, 0)[1] == 0
        self.new = contents(self.base / 'index.sqlite3')
        assert self.new[4] == [(schema.HEAD,)]
        assert self.new[1] == self.old[1]

    def restore(self):
        shutil.rmtree(self.base, ignore_errors=True)
        shutil.copytree(self.template, self.base)

    def examine(self, where):
        """What is left is the old or the new, and the next to open it has the new, with its rows."""
        violations = []
        try:
            found = contents(self.copy())
            if found not in (self.old, self.new):
                violations.append(f'between old and new: {found[1:]} {found[0].keys() ^ self.new[0].keys()}')
        except sqlite3.Error as error:
            violations.append(f'{error!r}')
        pid = forked(lambda: open_it(self.base))
        if os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) != 0:
            violations.append('it does not open')
        elif contents(self.base / 'index.sqlite3') != self.new:
            violations.append('it does not become the new one')
        if self.litter():
            pid = forked(lambda: compute_in(self.base))
            if os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) != 0:
                violations.append('it does not compute')
        violations += [f'litter: {name}' for name in self.litter()]
        print(json.dumps({'dump': self.dump.stem, 'where': where, 'violations': violations}), flush=True)

    def litter(self):
        return [path.name for path in self.base.rglob('*') if '.new' in path.name or 'damaged' in path.name]

    def copy(self):
        """The index as the next opener finds it, with its journals; the original stays as it is."""
        beside = self.base.with_name('looked-at')
        shutil.rmtree(beside, ignore_errors=True)
        beside.mkdir()
        for path in self.base.glob('index.sqlite3*'):
            shutil.copy2(path, beside)
        return beside / 'index.sqlite3'

    def trial(self, where, arm):
        """Whether it was killed."""
        self.restore()

        def work():
            arm()
            open_it(self.base)

        status = os.waitpid(forked(work), 0)[1]
        faults.disarm()
        if os.waitstatus_to_exitcode(status) != -signal.SIGKILL:
            return False
        self.examine(where)
        return True

    def every_statement(self, step, first):
        for after in False, True:
            number = first
            while self.trial(f'statement {number}', lambda n=number, a=after: at_statement(n, a)):
                number += step
        return number - step

    def every_operation(self, step, first):
        for action in 'kill', 'kill after':
            number = first
            while self.trial(f'{action} {number}', lambda n=number, a=action: faults.arm(a, n, kinds=KINDS)):
                number += step

    def at_random(self, kills, chosen):
        self.restore()
        began = time.monotonic()
        os.waitpid(forked(lambda: open_it(self.base)), 0)
        length = time.monotonic() - began
        while kills > 0:
            self.restore()
            pid = forked(lambda: open_it(self.base))
            time.sleep(chosen.random() * length)
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
            if os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == -signal.SIGKILL:
                self.examine('random')
                kills -= 1


if __name__ == '__main__':
    place, kills, chosen = Path(sys.argv[1]), int(sys.argv[2]), random.Random(sys.argv[3])
    step = int(sys.argv[4])  # every statement and operation, or every so many
    faults = Faults.attached()
    faults.disarm()
    load_everything()
    for dump in DUMPS:
        upgrades = Upgrades(place, dump)
        statements = upgrades.every_statement(step, chosen.randrange(step) + 1)
        upgrades.every_operation(step, chosen.randrange(step) + 1)
        upgrades.at_random(kills * statements, chosen)
