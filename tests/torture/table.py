"""One table at the end: promise, faults injected, violations, seconds, seed; a plugin of tests/conftest.py.

A test in `p<number>_<name>.py` asks for the fixture `record` and says what it did, before it asserts:

    def test_all(record): ...; record('P6', faults, violations, '3 scenarios'); assert not violations

Several calls add up. The row of a promise is there whether its tests say anything or not; a test that failed
without having said how many violations counts as one. All tests of one pytest have one seed.
"""

import os
import random
import re
import shutil
from collections import defaultdict

import pytest

os.environ.setdefault('HADROSAUR_SEED', str(random.SystemRandom().randrange(10**9)))
IS_FULL = bool(os.environ.get('HADROSAUR_TORTURE'))
ELSEWHERE = {'test_state_machine.py': 'P7'}  # the quick tier of a promise in a file of another name


def promise_of(path):
    """The promise that a test file is about, or None."""
    name = path.rpartition('/')[2]
    found = re.fullmatch(r'p(\d+)_\w+\.py', name)
    return f'P{found[1]}' if found else ELSEWHERE.get(name)


@pytest.fixture
def record(request):
    """Say how many faults were injected and how many promises broken: it goes into the table at the end."""

    def say(promise, faults, violations=0, note=''):
        request.node.user_properties.append(('torture', [promise, int(faults), int(violations), note]))

    return say


@pytest.fixture(autouse=True)
def _seed(request):
    """Where a test of a promise fails, its seed stands beside it."""
    if promise_of(str(request.node.path)):
        print(f'HADROSAUR_SEED={os.environ["HADROSAUR_SEED"]}')


def rows_of(reports):
    """By promise: faults, violations, seconds, tests that were skipped, notes."""
    rows = defaultdict(lambda: [0, 0, 0.0, 0, []])
    for report in reports:
        said = [value for name, value in getattr(report, 'user_properties', ()) if name == 'torture']
        promise = promise_of(report.nodeid.partition('::')[0])
        if promise:
            row = rows[promise]
            row[2] += getattr(report, 'duration', 0)
            row[3] += report.skipped and not hasattr(report, 'wasxfail')
            row[1] += report.failed and (report.when != 'call' or not sum(item[2] for item in said))
        if report.when != 'call':
            continue
        for named, faults, violations, note in said:
            row = rows[named]
            row[0] += faults
            row[1] += violations
            if note:
                row[4].append(note)
    return rows


def pytest_terminal_summary(terminalreporter):
    """The table, where a test of a promise ran."""
    reports = [
        report
        for word in ('passed', 'failed', 'skipped', 'error', '')
        for report in terminalreporter.stats.get(word, ())
        if hasattr(report, 'when')
    ]
    rows = rows_of(reports)
    if not rows:
        return
    tier = 'full' if IS_FULL else 'quick tier; full: make torture'
    terminalreporter.section(f'promises ({tier})')
    width = shutil.get_terminal_size().columns
    seed = os.environ['HADROSAUR_SEED']
    terminalreporter.write_line(
        f'{"promise":<8} {"faults":>9} {"violations":>10} {"seconds":>8} {"seed":>10}'
    )
    for promise in sorted(rows, key=lambda name: (len(name), name)):
        faults, violations, seconds, skipped, notes = rows[promise]
        note = '; '.join([*(['skipped in part' if faults else 'skipped'] if skipped else []), *notes])
        line = f'{promise:<8} {faults:>9} {violations:>10} {seconds:>8.1f} {seed:>10}'
        terminalreporter.write_line(f'{line}  {note}'[: max(width, 80)].rstrip())
    broken = sum(row[1] for row in rows.values())
    terminalreporter.write_line(
        f'{len(rows)} promises, {sum(row[0] for row in rows.values())} faults, {broken} violations'
        + (f'; again: make torture PROMISE=… HADROSAUR_SEED={seed}' if broken else '')
    )
