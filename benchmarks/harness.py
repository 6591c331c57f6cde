"""Contenders do the same work in turns; medians, minima, and the ratio to the floor of the same run."""

import contextlib
import gc
import os
import resource
import signal
import statistics
import sys
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import NamedTuple

from rich import box
from rich.console import Console
from rich.table import Table

PATIENCE = 300
"""Seconds after which a contender is given up: it hangs, or the machine does."""

UNITS = {'µs': 1e6, 'ms': 1e3, 'MB': 1e-6}

Ready = Callable[[str, int], AbstractContextManager[Callable[[], object]]]


class Skipped(Exception):
    """This contender cannot take part, and why."""


class Wrong(Exception):
    """A contender did not do the work."""


class Target(NamedTuple):
    """What was promised: in words, and as a test of the medians by name (None: cannot be told)."""

    text: str
    holds: Callable[[float, dict[str, float]], bool | None]


def at_most(factor, of='floor'):
    """A ratio."""
    return Target(f'≤ {factor:g} x {of}', lambda own, by: own <= factor * by[of] if of in by else None)


def at_most_over(seconds, of):
    """A difference."""
    text = f'≤ {of} + {seconds * 1e3:g} ms'
    return Target(text, lambda own, by: own <= by[of] + seconds if of in by else None)


def below(value, unit):
    """An absolute value."""
    return Target(f'≤ {value:g} {unit}', lambda own, _: own <= value / UNITS[unit])


def faster_than(name):
    """Less than another contender."""
    return Target(f'< {name}', lambda own, by: own < by[name] if name in by else None)


class Contender(NamedTuple):
    """Who takes part.

    Attributes:
        name: In the table.
        ready: Context manager: given a fresh folder and a number, prepares (not timed), gives the function
            that is timed, checks what it did and tidies up (not timed).
        targets: What was promised.
        share: Of the work, for those who would take too long; the table gives the time of one.
        against: The floor of its own, if not the first contender.
        ends_its_children: Are its child processes ended when it is done, so that the kernel tells what
            they have worked?
    """

    name: str
    ready: Ready
    targets: tuple[Target, ...] = ()
    share: float = 1.0
    against: str | None = None
    ends_its_children: bool = True


class Settings(NamedTuple):
    """What was asked for on the command line; None: as the part sees fit."""

    places: object
    size: int | None = None
    rounds: int | None = None
    moderate: bool = False  # one of many parts
    old: str | None = None

    def number(self, usual, moderate=None):
        """How much work: what was asked for, or what is usual."""
        if self.size is not None:
            return self.size
        return moderate if self.moderate and moderate is not None else usual

    def turns(self, usual):
        """How many rounds."""
        return self.rounds or (max(3, usual * 2 // 3) if self.moderate else usual)


def race(title, contenders, settings, *, number, rounds, unit='µs', warm_up=0.1):
    """Have everybody do the work ``rounds`` times, in turns and in both directions; show the table.

    The time of a processor is taken too, child processes included: it leaves out the disk, and hears
    less of what others do on the machine.

    ``warm_up``: share of the work that is done once before anything counts.
    """
    taken = {each.name: [] for each in contenders}
    worked = {each.name: [] for each in contenders}
    absent = {}
    for turn in range(-1 if warm_up else 0, rounds):
        for each in contenders if turn % 2 else reversed(contenders):
            if each.name in absent:
                continue
            whole = number * each.share
            amount = max(1, round(whole if turn >= 0 else whole * warm_up))
            _tell(f'{title}: round {turn + 1} of {rounds}, {each.name}')
            try:
                seconds, cpu = once(each, amount, settings.places)
            except ImportError as error:
                absent[each.name] = f'{error.name} is not installed'
            except Skipped as reason:
                absent[each.name] = str(reason)
            else:
                if turn >= 0:
                    taken[each.name].append(seconds / amount)
                    if each.ends_its_children:
                        worked[each.name].append(cpu / amount)
    _tell('')
    show(f'{title} ({number:,}, {rounds} rounds)', contenders, taken, absent, unit, worked)


def once(contender, amount, places):
    """Seconds that it took, and seconds of processor time."""
    place = places.fresh(contender.name)
    with quiet(), contender.ready(place, amount) as run:
        gc.collect()
        os.sync()  # nobody pays for what another left to be written
        with limited(PATIENCE):
            cpu, start = _cpu_seconds(), time.perf_counter()
            run()
            return time.perf_counter() - start, _cpu_seconds() - cpu


@contextlib.contextmanager
def limited(seconds):
    """Raises Skipped in the main thread, should it take longer."""

    def give_up(*_):
        raise Skipped(f'not done after {seconds} s')

    before = signal.signal(signal.SIGALRM, give_up)
    signal.alarm(seconds)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


def _cpu_seconds():
    children = resource.getrusage(resource.RUSAGE_CHILDREN)
    return time.process_time() + children.ru_utime + children.ru_stime


@contextlib.contextmanager
def quiet():
    """What is printed goes nowhere, from child processes too."""
    sys.stdout.flush()
    saved = os.dup(1)
    try:
        with open(os.devnull, 'w') as nowhere, contextlib.redirect_stdout(nowhere):
            os.dup2(nowhere.fileno(), 1)
            yield
    finally:
        os.dup2(saved, 1)
        os.close(saved)


def _tell(text):
    if sys.stderr.isatty():
        sys.stderr.write(f'\r\x1b[K{text[:100]}')
        sys.stderr.flush()


# --- the table -------------------------------------------------------------------------------------


def show(title, contenders, taken, absent, unit, worked):
    """One row for each contender: median, minimum, ratios to the floor, and the targets."""
    medians = {name: statistics.median(values) for name, values in taken.items() if values}
    minima = {name: min(values) for name, values in taken.items() if values}
    cpu = {name: statistics.median(values) for name, values in worked.items() if values}
    table = _table(title)
    table.add_column('')
    for heading in (f'median {unit}', f'min {unit}', 'x floor', 'by minima', 'by CPU'):
        table.add_column(heading, justify='right')
    table.add_column('target')
    for each in contenders:
        if each.name in absent:
            table.add_row(each.name, *[''] * 5, absent[each.name], style='dim')
            continue
        floor = each.against or contenders[0].name
        table.add_row(
            each.name,
            _number(medians[each.name] * UNITS[unit]),
            _number(minima[each.name] * UNITS[unit]),
            *(_ratio(by, each.name, floor) for by in (medians, minima, cpu)),
            '\n'.join(_judged(target, each.name, medians) for target in each.targets),
            style='bold' if each.targets else None,
        )
    console().print(table)


def _ratio(by, name, floor):
    return f'{by[name] / by[floor]:.2f}' if name in by and by.get(floor) else ''


def show_values(title, unit, values, target):
    """One row for each value, by name, all with one target."""
    table = _table(title)
    for heading in ('', unit, 'target'):
        table.add_column(heading, justify='right' if heading == unit else 'left')
    for name, value in values.items():
        table.add_row(name, _number(value * UNITS[unit]), _judged(target, name, values))
    console().print(table)


def _table(title):
    return Table(title=title, title_justify='left', box=box.SIMPLE, header_style='bold', pad_edge=False)


def _judged(target, name, medians):
    verdict = {True: '[green]ok[/]', False: '[red]over[/]', None: 'cannot be told'}
    return f'{target.text}  {verdict[target.holds(medians[name], medians)]}'


def _number(value):
    return f'{value:,.0f}' if value >= 100 else f'{value:.3g}'


def console():
    """Where tables go; wide enough in a file too."""
    made = Console(highlight=False)
    return made if made.is_terminal else Console(highlight=False, width=110)


def note(text):
    """A line below a table, or instead of one."""
    console().print(text, style='dim')
