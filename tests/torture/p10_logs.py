"""P10: a log holds all that its resource printed, and nothing else."""

import os
import subprocess
import sys
import threading
from collections import Counter
from pathlib import Path

import pytest
from harness import count

from hadrosaur import Project

LINES = count(5000, quick=40)
WORKERS = 8


def tags(ident, name):
    return Counter(f'{ident} {name} {number}'.encode() for number in range(LINES))


def loud(ident, args, subdir):
    """Prints by every way that its capture promises to catch, one tagged line after the other."""
    everything = args['everything']
    for number in range(LINES):
        line = f'{ident} %s {number}'
        if everything and number % 500 == 1:
            sys.stdout.flush()
            subprocess.run(['sh', '-c', f'echo "{line % "out"}"; echo "{line % "err"}" >&2'], check=True)
        elif everything and number % 5 == 1:
            sys.stdout.flush()
            os.write(1, (line % 'out').encode() + b'\n')
            os.write(2, (line % 'err').encode() + b'\n')
        elif number % 7 == 1:
            sys.stdout.write(line % 'out' + '\n')
            print(line % 'err', file=sys.stderr, flush=True)
        else:
            print(line % 'out')
            sys.stderr.write(line % 'err' + '\n')
    if everything:
        sys.stdout.flush()
        os.write(1, b'\xff\xfe\x00 not UTF-8\n')
    return threading.active_count()


@pytest.mark.parametrize('executor', ['threads', 'processes'])
def test_all_and_nothing_else(tmp_path, capfd, executor, record):
    everything = executor == 'processes'
    foreign = missing = 0
    with Project(tmp_path / 'base') as proj:
        proj.resource('coll')(loud)
        idents = [f'{executor}{number}' for number in range(2 * WORKERS)]
        args = {'everything': everything}
        counts = proj.fetch_many('coll', idents, args, workers=WORKERS, executor=executor).wait()
        assert counts.completed == len(idents), counts
        for ident in idents:
            for name, log in ('out', 'stdout.log'), ('err', 'stderr.log'):
                found = Counter(Path(tmp_path / 'base/coll' / ident / log).read_bytes().splitlines())
                wanted = tags(ident, name)
                if everything and name == 'out':
                    wanted[b'\xff\xfe\x00 not UTF-8'] = 1
                foreign += (found - wanted).total()
                missing += (wanted - found).total()
    record('P10', 2 * LINES * len(idents), foreign + missing, f'lines, {executor}')
    assert (foreign, missing) == (0, 0)
    assert capfd.readouterr().out == ''
