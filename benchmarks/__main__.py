"""``python -m benchmarks [PART …]``."""

import argparse
import importlib
import os
import shutil
import sqlite3
import subprocess
import sys
import tempfile

from .harness import Settings, note
from .parts import PARTS
from .places import Places

SLOW = 100e-6
"""Seconds for an empty file, above which the disk is said to be slow."""


def main():
    """Run the parts that are asked for, each in a process of its own."""
    asked = _arguments()
    if asked.inside is not None:
        _run(asked.parts[0], asked)
        return 0
    root = tempfile.mkdtemp(prefix='hadrosaur-bench-', dir=asked.at)
    try:
        _introduce(root)
        codes = [_start(name, asked, root) for name in asked.parts or PARTS]
        return int(any(codes))
    finally:
        if not asked.keep:
            note(f'deleting {root} …')
            shutil.rmtree(root, ignore_errors=True)


def _arguments():
    parser = argparse.ArgumentParser(prog='python -m benchmarks', description=__doc__)
    parser.add_argument('parts', nargs='*', metavar='PART', help=f'{", ".join(PARTS)}; default: all')
    parser.add_argument('--size', type=int, help='resources, rows or folders; default: a minute of work')
    parser.add_argument('--rounds', type=int, help='how often everybody does the work')
    parser.add_argument('--at', metavar='DIR', help='where the folders are made; default: the temp folder')
    parser.add_argument('--old', metavar='DIR', help='holds hadrosaur 0.0.2: pip install --no-deps --target')
    parser.add_argument('--keep', action='store_true', help='do not delete the folders')
    parser.add_argument('--inside', help=argparse.SUPPRESS)
    parser.add_argument('--moderate', action='store_true', help='the sizes of a run of all parts')
    asked = parser.parse_args()
    for name in asked.parts:
        if name not in PARTS:
            parser.error(f'there is no part {name!r}; choose from {", ".join(PARTS)}')
    return asked


def _introduce(root):
    load = os.getloadavg()[0]
    processors = len(os.sched_getaffinity(0)) if hasattr(os, 'sched_getaffinity') else os.cpu_count()
    note(
        f'Python {sys.version.split()[0]}, SQLite {sqlite3.sqlite_version}, {processors} processors, '
        f'load {load:.1f}, in {root}'
    )
    note('times are of one resource, row or call; the ratios to the floor of the same run are what counts')
    if load > processors / 2:
        note('others are at work on this machine: expect ratios to be off')


def _run(name, asked):
    places = Places(asked.inside)
    module, _, function = PARTS[name].partition(':')
    settings = Settings(places, asked.size, asked.rounds, asked.moderate, asked.old)
    getattr(importlib.import_module(f'benchmarks.parts.{module}'), function)(settings)
    if places.best > SLOW:
        cost = f'{places.best * 1e6:.0f} µs'
        note(f'an empty file takes {cost} here: much was deleted lately, or the disk is busy')


def _start(name, asked, root):
    command = [sys.executable, '-m', 'benchmarks', name, '--inside', root]
    if len(asked.parts) != 1:
        command.append('--moderate')
    for option in ('size', 'rounds', 'old'):
        if (value := getattr(asked, option)) is not None:
            command += [f'--{option}', str(value)]
    # Compiled modules stand ready, as they do after an installation: processes are started all the time.
    environment = {**os.environ, 'PYTHONPYCACHEPREFIX': f'{root}/compiled'}
    environment.pop('PYTHONDONTWRITEBYTECODE', None)
    return subprocess.run(command, env=environment).returncode


if __name__ == '__main__':
    sys.exit(main())
