"""P1: a result once returned is still there, byte for byte, whoever is killed at whatever moment."""

import hashlib
import json
import os
import signal
import sqlite3
from collections import Counter
from contextlib import closing, suppress
from pathlib import Path

from conftest import await_that
from harness import chance, count

from hadrosaur import Project, ResourceNotFound

KILLS = count(1000, quick=8)
IDENTS = 40

CALLER = """
    import hashlib, os, random, sys, warnings
    from pathlib import Path
    from hadrosaur import Project, HadrosaurWarning

    warnings.simplefilter('ignore', HadrosaurWarning)   # of workers that died
    proj = Project('base')
    chosen = random.Random(int(sys.argv[1]))
    log = os.open('acknowledged', os.O_WRONLY | os.O_APPEND | os.O_CREAT)

    def note(*words):
        os.write(log, (' '.join(map(str, words)) + '\\n').encode())     # one write: never torn by a kill

    @proj.resource('coll')
    def compute(ident, args, subdir):
        chosen = random.Random(os.urandom(8))
        nonce = os.urandom(8).hex()
        Path(subdir, 'nonce').write_text(nonce)
        print(nonce)
        if chosen.random() < 0.1:
            raise ValueError(nonce)
        return {'nonce': nonce, 'long': nonce * chosen.choice([0, 10, 3000])}

    def got(res):
        if res.status == 'completed':
            data = Path(res.paths['result']).read_bytes()
            note('got', res.ident, hashlib.sha256(data).hexdigest())
        else:
            note(res.status, res.ident, '-')

    idents = [str(n) for n in range(int(sys.argv[2]))]
    while True:
        some = chosen.sample(idents, 8)
        again = chosen.random() < 0.5
        for ident in some:
            note('again' if again else 'asked', ident, '-')
        if chosen.random() < 0.5:
            for ident in some:
                got(proj.fetch('coll', ident, recompute=again))
        else:
            for res in proj.fetch_many('coll', some, workers=2, recompute=again):
                got(res)
"""


def slots_of(pid):
    """The processes that work for a caller: the one that forks its workers, and those."""
    found = []
    for task in Path(f'/proc/{pid}/task').glob('*'):  # a thread starts them
        with suppress(OSError):
            for child in map(int, (task / 'children').read_text().split()):
                found += [child, *slots_of(child)]
    return found


def acknowledged(path):
    """By ident: the checksum last given back, or None; and whether it was asked to be computed again."""
    given, open_again = {}, set()
    for line in path.read_text().splitlines():
        word, ident, digest = line.split()
        if word == 'again':
            open_again.add(ident)
        elif word == 'got':
            given[ident] = digest
            open_again.discard(ident)
        elif word != 'asked':
            given.pop(ident, None)
            open_again.discard(ident)
    return given, open_again


def examine(folder, outcomes):
    """Everything that was given back is there, and nothing is a mixture of two runs."""
    given, open_again = acknowledged(folder / 'acknowledged')
    with Project(folder / 'base') as proj:
        for entry in proj.query('coll'):
            # What a killed caller's worker still computes, it finishes.
            try:
                res = await_that(lambda ident=entry.ident: settled(proj, ident), 60)
            except ResourceNotFound:  # its caller was killed before it was begun
                assert entry.status == 'pending'
                assert entry.ident not in given
                continue
            at = folder / 'base/coll' / res.ident
            if res.status == 'completed':
                data = (at / 'result.json').read_bytes()
                record = json.loads((at / 'record.json').read_text())
                nonces = {json.loads(data)['nonce'], (at / 'storage/nonce').read_text()}
                nonces.add((at / 'stdout.log').read_text().strip())
                is_old = hashlib.sha256(data).hexdigest() == given.get(res.ident)
                assert len(nonces) == 1, (res.ident, nonces)
                assert record['result_sha256'] == hashlib.sha256(data).hexdigest()
                assert is_old or res.ident in open_again or res.ident not in given, res.ident
                outcomes['old' if is_old else 'new'] += 1
            else:
                assert res.ident in open_again or res.ident not in given, (res.ident, res.error)
                outcomes[res.entry.error_type] += 1
        lost = given.keys() - {entry.ident for entry in proj.query('coll')}
        assert not lost
        findings = proj.check(deep=True).findings
        assert findings == []


def settled(proj, ident):
    res = proj.get('coll', ident)
    return res if res.status != 'pending' else None


def test_no_result_is_lost(program, tmp_path, record):
    chosen = chance()
    outcomes = Counter()
    log = tmp_path / 'acknowledged'
    log.touch()
    kills = Counter()
    while kills.total() < KILLS:
        caller = program(CALLER, chosen.randrange(10**9), IDENTS, start=True)
        while caller.poll() is None:
            # After so many more words of the caller's; then at any point of whatever it does next.
            wanted = log.stat().st_size + chosen.randrange(10, 2000)
            await_that(
                lambda size=wanted, one=caller: log.stat().st_size >= size or one.poll() is not None, 60
            )
            victims = slots_of(caller.pid)
            if victims and chosen.random() < 0.7:
                victim, kind = chosen.choice(victims), 'worker'
            else:
                victim, kind = caller.pid, 'caller'
            try:
                os.kill(victim, signal.SIGKILL)
            except ProcessLookupError:  # it had just ended by itself
                continue
            kills[kind] += 1
            if kind == 'caller':
                caller.wait()
        assert caller.returncode == -signal.SIGKILL, caller.stderr.read()
        examine(tmp_path, outcomes)
    with closing(sqlite3.connect(tmp_path / 'base/index.sqlite3')) as index:
        assert index.execute('pragma integrity_check').fetchall() == [('ok',)]
    record('P1', kills.total(), 0, f'kills {dict(kills)}, looks {dict(outcomes)}')
