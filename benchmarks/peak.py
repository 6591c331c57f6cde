"""``python -m benchmarks.peak fetch|query PLACE NUMBER`` prints how far memory rose, in bytes.

A process of its own that has imported nothing but hadrosaur when it starts counting: what the index
needs, SQLAlchemy above all, is loaded later and counts.
"""

import sys

from hadrosaur import Project

from .work import work


def main(what, place, number):
    """Print the peak of resident memory above the start."""
    with Project(place) as project:
        project.resource('bench')(work)
        if what == 'fetch':
            names = (f'item-{each:07}' for each in range(number))
            peak, seen = measured(lambda: project.fetch_many('bench', names, workers=2))
        else:
            peak, seen = measured(project.query)
    if seen != number:
        raise SystemExit(f'{seen} came instead of {number}')
    print(peak)


def measured(make):
    """The peak in bytes, and how many were made."""
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
