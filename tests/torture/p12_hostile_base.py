"""P12: whatever stands in a base, nothing outside of it is touched, nothing stored is run, nothing hangs."""

import contextlib
import os
import shutil
import sqlite3
from pathlib import Path

import pytest
from harness import chance, count, load_everything
from hostile import (
    CANARY,
    EVIL,
    EXIT_CODES,
    PLANTS,
    VERBS,
    Outside,
    carry_out,
    clear,
    make_base,
    places,
)
from tally import Tally, Victim

ATTACKS = count(5000, quick=40)
ONLY = os.environ.get('HADROSAUR_ONLY', '')  # part of 'place: plant: verb', to try one again


@pytest.fixture(scope='module')
def stage(tmp_path_factory):
    """A folder with what is outside, and a base to copy."""
    load_everything()
    folder = tmp_path_factory.mktemp('stage')
    session = make_base(folder / 'template', 'mine')
    return folder, Outside(folder / 'outside'), session


def judged(tally, what, victim, outside, linked=None):
    """Note all that was wrong about one verb's answer."""
    out, err = victim.said()
    if victim.code == 'hang':
        tally.wrong('it hangs', what)
    elif victim.code not in EXIT_CODES:
        tally.wrong(f'it ends with {victim.code}', f'{what}\n{err[-1200:]}')
    elif 'Traceback (most recent call last)' in err and not (
        'reproduce' in what and 'raise ValueError(word)' in err
    ):
        tally.wrong('a traceback', f'{what}\n{err[-1200:]}')
    elif victim.code in (3, 5) and not err.strip():
        tally.wrong('it does not say why', what)
    if CANARY in out + err and linked is None:
        tally.wrong('what is outside is shown', f'{what}\n{(out + err)[:600]}')
    if f'{EVIL}:' in err or Path(victim.out.parent, 'executed').exists():
        tally.wrong('something stored is run', f'{what}\n{err[-1200:]}')
    touched = outside.touched(linked)
    if touched:
        tally.wrong('what is outside is touched', f'{what}: {touched[:4]}')
        outside.mend()


def plant_one(outside, path, place, plant):
    """Plant it; gives the inode of a file outside that the base now holds too."""
    path.parent.mkdir(parents=True, exist_ok=True)
    clear(path)
    PLANTS[plant](path, outside.counterpart(place))
    if plant == 'hard link':
        outside.known = outside.look()
        return path.stat().st_ino
    return None


def test_planted_before(stage, tmp_path, record):
    """In the place of every file and folder of ours, everything a disk can hold, under every verb."""
    folder, outside, session = stage
    tally = Tally('P12')
    every = [(place, plant, verb) for place in places(session) for plant in PLANTS for verb in VERBS]
    chance().shuffle(every)
    if ONLY:
        every = [one for one in every if ONLY in ': '.join(one)]
    victims_folder = tmp_path / 'victim'
    for place, plant, verb in every[:ATTACKS]:
        shutil.copytree(folder / 'template', victims_folder, symlinks=True)
        linked = plant_one(outside, victims_folder / place, place, plant)
        victim = Victim(tmp_path, lambda verb=verb: carry_out(verb, victims_folder))
        victim.wait()
        tally.fault(plant)
        judged(tally, f'{place}: {plant}: {verb}', victim, outside, linked)
        shutil.rmtree(victims_folder)
        if linked is not None:
            outside.mend()
    tally.end(record, at_least=min(ATTACKS, len(every)))


# --- while a verb is at work -------------------------------------------------------------------------

SWAPPED = [
    'base/coll/done',
    'base/coll/done/storage',
    'base/coll/done/result.json',
    'base/coll/done/status.json',
    'base/coll/bad/record.json',
    'base/coll/bad/error.log',
    'base/coll',
    'base/index.sqlite3-wal',
    'base/.hadrosaur/sessions',
    'base/.hadrosaur/format.json',
    'base/.hadrosaur/cancel',
    'base/.hadrosaur',
]
SWAPS = ['symlink', 'symlink to a folder', 'FIFO', 'empty folder', 'device']
DURING = [
    'recompute',
    'fetch bad',
    'fetch_many on threads',
    'reindex in Python',
    'check in Python',
    'remove',
    'rm',
    'query',
    'reindex --fresh',
    'show bad',
    'logs',
    'status',
    'get',
]


def swap(path, plant, outside, end):
    """In a victim of its own: put it there and take it away, as fast as it goes, until ``end`` exists."""
    ours = path.with_name(path.name + '.ours')
    bad = path.with_name(path.name + '.bad')
    PLANTS[plant](bad, outside)
    while not end.exists():
        for one, other in ((path, ours), (bad, path), (path, bad), (ours, path)):
            with contextlib.suppress(OSError):
                os.rename(one, other)
    return 0


def test_planted_during(stage, tmp_path, record):
    """Put in the place of ours again and again while a verb works: nothing is touched, nothing hangs."""
    folder, outside, _ = stage
    tally = Tally('P12')
    every = [
        (place, plant, verb) for place in SWAPPED for plant in SWAPS for verb in DURING if plant in PLANTS
    ]
    chance().shuffle(every)
    for place, plant, verb in every[: ATTACKS // 10]:
        victims_folder = tmp_path / 'victim'
        shutil.copytree(folder / 'template', victims_folder, symlinks=True)
        end, said = tmp_path / 'end', tmp_path / 'said'
        said.mkdir(exist_ok=True)
        target = outside.counterpart(place)
        attacker = Victim(
            said,
            lambda place=place, plant=plant, target=target, end=end, at=victims_folder: swap(
                at / place, plant, target, end
            ),
        )
        victim = Victim(tmp_path, lambda verb=verb, at=victims_folder: carry_out(verb, at))
        victim.wait()
        end.touch()
        attacker.wait()
        end.unlink()
        tally.fault(f'{plant} meanwhile')
        what = f'{place}: {plant} meanwhile: {verb}'
        out, err = victim.said()
        if victim.code == 'hang':
            tally.wrong('it hangs', what)
        elif victim.code not in (
            *EXIT_CODES,
            70,
        ):  # 70: it met its folder half moved, and says so as Python does
            tally.wrong(f'it ends with {victim.code}', f'{what}\n{err[-900:]}')
        if CANARY in out + err:
            tally.wrong('what is outside is shown', f'{what}\n{(out + err)[:600]}')
        touched = outside.touched()
        if touched:
            tally.wrong('what is outside is touched', f'{what}: {touched[:4]}')
            outside.mend()
        shutil.rmtree(victims_folder)
    tally.end(record)


# --- rows ---------------------------------------------------------------------------------------------

TEXTS = [
    '../outside/base/coll/done',
    '{outside}/base/coll/done',
    '..',
    '',
    '/',
    '.hadrosaur',
    'coll/../../outside',
    'x' * 100_000,
    '\x1b[31m',
    '[' * 100_000,
    '{"a":' * 50_000,
    "'; DROP TABLE resources; --",
    '-1',
    '\ufffd\u202e',
    '{"__class__": "os.system"}',
    '9' * 5000,
]
COLUMNS = [
    'collection',
    'ident',
    'path',
    'args',
    'session',
    'error',
    'error_type',
    'error_group',
    'host',
    'version',
    'finished_at',
    'started_at',
    'queued_at',
    'args_hash',
    'duration',
    'attempt',
    'pid',
]


def hostile_row(path, chosen, outside, session):
    """Change rows behind everybody's back; in words."""
    told = []
    with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as database:
        for ident in chosen.sample(['done', 'bad', 'cut'], 2):
            column = chosen.choice(COLUMNS)
            text = chosen.choice(TEXTS).replace('{outside}', str(outside))
            value = chosen.choice([text, text, text.encode(), None, 2**63 - 1, 1e308, -5])
            sets = f'"{column}" = ?' + (
                ", status = 'pending', session = 'gone'" if chosen.random() < 0.4 else ''
            )
            with contextlib.suppress(sqlite3.Error):  # what its own constraints refuse
                database.execute(f'UPDATE resources SET {sets} WHERE ident = ?', (value, ident))
                told.append(f'{ident}.{column} = {value!r:.60}{" pending" if "gone" in sets else ""}')
        if chosen.random() < 0.2:
            database.execute(
                "CREATE TRIGGER evil AFTER UPDATE ON resources BEGIN SELECT load_extension('/x'); END"
            )
            told.append('a trigger')
    return ', '.join(told)


def test_hostile_rows(stage, tmp_path, record):
    """A row is data: nothing in it leads outside, is run, or ends a verb with a traceback."""
    folder, outside, session = stage
    tally = Tally('P12')
    chosen = chance()
    for _ in range(ATTACKS // 5):
        victims_folder = tmp_path / 'victim'
        shutil.copytree(folder / 'template', victims_folder, symlinks=True)
        how = hostile_row(victims_folder / 'base/index.sqlite3', chosen, outside.folder, session)
        verb = chosen.choice(list(VERBS))
        victim = Victim(tmp_path, lambda verb=verb, at=victims_folder: carry_out(verb, at))
        victim.wait()
        tally.fault('row')
        judged(tally, f'{how}: {verb}', victim, outside)
        shutil.rmtree(victims_folder)
    tally.end(record)
