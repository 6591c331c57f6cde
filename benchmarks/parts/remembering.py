"""Memory: what many resources and many rows add to the calling process."""

import os
import subprocess
import sys

from ..filling import fill_index
from ..harness import below, note, show_values

MILLION = 1_000_000


def memory(settings):
    """Peak above the start, of a process of its own (see peak.py)."""
    if not os.path.exists('/proc/self/clear_refs'):
        note('memory: needs /proc, which is not here')
        return
    number, rows = settings.number(50_000, 10_000), settings.number(MILLION, 300_000)
    peaks = {}
    for each in (number // 10, number):
        peaks[f'fetch_many, {each:,}'] = _peak('fetch', settings.places.fresh('fetch'), each)
    few, many = peaks.values()
    base = settings.places.fresh('index')
    for each in (rows // 10, rows):
        base = settings.places.fresh('index')
        fill_index(base, each)
        peaks[f'query, {each:,}'] = _peak('query', base, each)
    show_values('memory above the start', 'MB', peaks, below(60, 'MB'))
    slope = (many - few) / (number - number // 10)
    note(f'fetch_many: {slope:.0f} bytes for each further resource, which is {slope:.0f} MB a million')


def _peak(what, place, number):
    command = [sys.executable, '-m', 'benchmarks.peak', what, place, str(number)]
    return float(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
