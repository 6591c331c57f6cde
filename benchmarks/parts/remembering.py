"""Memory: what many resources and many rows add to the calling process."""

import os
import subprocess
import sys

from ..filling import fill_index
from ..harness import Contender, below, note, show

LIMIT = below(60, 'MB')
MILLION = 1_000_000


def memory(settings):
    """Peak above the start, of a process of its own.

    It starts when hadrosaur is imported and the project made; what the index needs is loaded later, and
    counts.
    """
    if not os.path.exists('/proc/self/clear_refs'):
        note('memory: needs /proc, which is not here')
        return
    number, rows = settings.number(50_000, 10_000), settings.number(MILLION, 300_000)
    found = {}
    for each in (number // 10, number):
        found[f'fetch_many, {each:,}'] = _peak('fetch', settings.places.fresh('fetch'), each)
    name = f'fetch_many, {MILLION:,} in a straight line'
    found[name] = _continued(number // 10, number, list(found.values()))
    base = settings.places.fresh('index')
    fill_index(base, rows)
    found[f'query, {rows:,}'] = _peak('query', base, rows)
    contenders = [Contender(each, None, (LIMIT,)) for each in found]
    show('memory above the start', contenders, {name: [value] for name, value in found.items()}, {}, 'MB')


def _continued(few, many, peaks):
    return max(peaks[1], peaks[1] + (peaks[1] - peaks[0]) / (many - few) * (MILLION - many))


def _peak(what, place, number):
    command = [sys.executable, '-m', __name__, what, place, str(number)]
    return float(subprocess.run(command, check=True, capture_output=True, text=True).stdout)


# --- the process that is measured ------------------------------------------------------------------


def main(what, place, number):
    """Print the peak in bytes."""
    from hadrosaur import Project

    from ..work import work

    with Project(place) as project:
        project.resource('bench')(work)
        if what == 'fetch':
            names = (f'item-{each:07}' for each in range(number))
            peak, seen = _measured(lambda: project.fetch_many('bench', names, workers=2))
        else:
            peak, seen = _measured(project.query)
    if seen != number:
        raise SystemExit(f'{seen} came instead of {number}')
    print(peak)


def _measured(make):
    start = _kilobytes('VmRSS')
    with open('/proc/self/clear_refs', 'w') as file:
        file.write('5')  # proc(5): the peak begins anew
    seen = sum(1 for _ in make())
    return (_kilobytes('VmHWM') - start) * 1024, seen


def _kilobytes(name):
    with open('/proc/self/status') as file:
        return next(int(line.split()[1]) for line in file if line.startswith(name))


if __name__ == '__main__':
    main(sys.argv[1], sys.argv[2], int(sys.argv[3]))
