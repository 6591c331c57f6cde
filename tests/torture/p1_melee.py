"""P1 and P3, all at once: everybody does everything to the same few resources, and is killed meanwhile.

Three processes of two threads each fetch, compute again, remove, send to the background, cancel, reindex,
mend and rebuild, with results (some of 300 kB) that prove which run and args they belong to. Every so often
one is killed, or one of its workers, and another takes its place.
"""

import hashlib
import json
import os
import signal
import subprocess
import sys
import textwrap
import time
import uuid
import warnings
from collections import Counter
from contextlib import suppress
from pathlib import Path

from conftest import await_that
from harness import IS_FULL, chance

from hadrosaur import HadrosaurWarning, Project, ResourceNotFound

SECONDS = float(os.environ.get('HADROSAUR_MELEE', 60 if IS_FULL else 8))
IDENTS = 30
PROCESSES = 3

FIGHTER = """
    import fcntl, gc, os, random, signal, sys, threading, time, traceback, warnings
    from contextlib import suppress
    from pathlib import Path
    from hadrosaur import HadrosaurError, HadrosaurWarning, Project

    warnings.simplefilter('ignore', HadrosaurWarning)
    seed, idents, here = int(sys.argv[1]), int(sys.argv[2]), os.getcwd()
    stop = threading.Event()
    said = os.open('said', os.O_WRONLY | os.O_APPEND | os.O_CREAT)

    def note(*words):
        text = ' '.join(map(str, words)).replace('\\n', ' | ')
        os.write(said, (text + '\\n').encode(errors='replace'))

    def compute(ident, args, subdir):
        # No second one at once: the kernel frees the mark of a process that dies.
        mark = os.open(f'{here}/marks/{ident}', os.O_RDWR | os.O_CREAT)
        try:
            fcntl.flock(mark, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return computed(ident, args, subdir)
        except BlockingIOError:
            with open(f'{here}/said', 'a') as also:
                print('twice', ident, 'at once', file=also)
        finally:
            os.close(mark)

    def computed(ident, args, subdir):
        nonce = os.urandom(8).hex()
        Path(subdir, 'nonce').write_text(nonce)
        print(nonce)
        time.sleep(args['sleep'])
        if args['fails']:
            raise ValueError(nonce)
        return {'nonce': nonce, 'ident': ident, 'args': args, 'long': nonce * times(ident)}

    def times(ident):
        return 300_000 // 16 if int(ident) % 3 == 0 else int(ident) % 3

    def seen(res):
        if res.status != 'completed':
            assert res.result is None, res
            return 'seen ' + res.status
        value = res.result
        if value is None or value['ident'] != res.ident or value['long'] != value['nonce'] * times(res.ident):
            note('wrong', res.ident, str(value)[:200])
        return 'seen completed'

    def act(proj, chosen):
        ident = str(chosen.randrange(idents))
        some = sorted({str(chosen.randrange(idents)) for _ in range(4)})
        args = {'sleep': chosen.choice([0, 0, 0.002, 0.02]), 'n': chosen.random()}
        args['fails'] = chosen.random() < 0.1
        again = chosen.random() < 0.5
        what = chosen.choices(
            ['fetch', 'many', 'background', 'remove', 'cancel', 'get', 'query', 'reindex', 'fix', 'rebuild'],
            [40, 6, 8, 10, 4, 10, 4, 1, 1, 0.5],
        )[0]
        if what == 'fetch':
            return seen(proj.fetch('c', ident, args, recompute=again, wait=chosen.choice([None, 5])))
        if what == 'many':
            executor = chosen.choice(['inline', 'threads', 'processes'])
            for res in proj.fetch_many('c', some, args, executor=executor, workers=2, recompute=again):
                seen(res)
        elif what == 'background':
            res = proj.fetch('c', ident, args, recompute=again, background=True)
            if chosen.random() < 0.5:
                seen(res.wait(5))
        elif what == 'remove':
            proj.remove('c', ident)
        elif what == 'cancel':
            proj.cancel('c', ident)
        elif what == 'get':
            return seen(proj.get('c', ident))
        elif what == 'query':
            list(proj.query('c', limit=20))
            proj.stats()
        elif what == 'reindex':
            proj.reindex()
        elif what == 'fix':
            proj.check(fix=True)
        else:
            proj._store.rebuild()
        return what

    def fight(number):
        chosen = random.Random(seed + number)
        while not stop.is_set():
            try:
                what = act(proj, chosen)
            except HadrosaurError as error:  # it is being computed, it is gone, it was cancelled
                what = type(error).__name__
            except BaseException:
                note('wrong', traceback.format_exc()[-1500:])
                what = 'raised'
            note('did', what)

    proj = Project('base')
    proj.resource('c')(compute)
    proj.fetch('c', '1', {'sleep': 0, 'fails': False})
    proj.stats()
    signal.signal(signal.SIGTERM, lambda *_: stop.set())
    fighters = [threading.Thread(target=fight, args=(number,)) for number in (0, 1)]
    for fighter in fighters:
        fighter.start()
    print('ready', flush=True)
    for fighter in fighters:
        fighter.join()
    proj.close(cancel=True)
    gc.collect()
    left = []
    for fd in os.listdir('/proc/self/fd'):
        with suppress(OSError):
            left.append(os.readlink(f'/proc/self/fd/{fd}'))
    if left := [path for path in left if path.startswith(f'{here}/base')]:
        note('wrong', 'descriptors left', left)
    note('did', 'ended well')
"""


def marked(mark):
    """The processes that bear the mark of this very test."""
    found = []
    for at in Path('/proc').glob('[0-9]*'):
        with suppress(OSError):
            if mark.encode() in (at / 'environ').read_bytes().split(b'\0'):
                found.append(int(at.name))
    return found


def examine(base):
    """Every resource is of one run, whole; the index says what the folders say. Returns what is wrong."""
    wrong, outcomes = [], Counter()
    with Project(base) as proj, warnings.catch_warnings():
        warnings.simplefilter('ignore', HadrosaurWarning)
        proj.stats()
        for n in range(IDENTS):
            try:
                res = proj.get('c', str(n))
            except ResourceNotFound:
                outcomes['none'] += 1
                continue
            outcomes[res.status] += 1
            at = base / 'c' / str(n)
            if res.status == 'pending':
                wrong.append(f'{n}: pending, and nobody computes it')
                continue
            if res.status == 'error' and res.entry.error_type != 'ValueError':
                continue  # cut off anywhere
            nonces = {(at / 'storage/nonce').read_text(), (at / 'stdout.log').read_text().strip()}
            if res.status == 'completed':
                nonces.add(res.result['nonce'])
                record = json.loads((at / 'record.json').read_text())
                digest = hashlib.sha256((at / 'result.json').read_bytes()).hexdigest()
                if record['result_sha256'] != digest or record['args'] != res.result['args']:
                    wrong.append(f'{n}: result and record differ')
            if len(nonces) != 1:
                wrong.append(f'{n}: {res.status}, of several runs: {nonces}')
        report = proj.reindex()
        if (report.added, report.updated, report.removed) != (0, 0, 0) or report.unreadable:
            wrong.append(f'the index was not what the folders say: {report}')
        findings = proj.check(deep=True).findings
        if findings:
            wrong.append(f'check finds {findings[:5]}')
    return wrong, outcomes


def test_melee(tmp_path, record):
    """No wrong value, nothing computed twice at once, nothing left running, and the index is right."""
    chosen, mark = chance(), f'HADROSAUR_MELEE_OF={uuid.uuid4().hex}'
    name, _, value = mark.partition('=')
    path = tmp_path / 'fighter.py'
    path.write_text(textwrap.dedent(FIGHTER))
    (tmp_path / 'marks').mkdir()
    log = open(tmp_path / 'err', 'w')  # noqa: SIM115

    def fighter():
        return subprocess.Popen(
            [sys.executable, path, str(chosen.randrange(10**9)), str(IDENTS)],
            cwd=tmp_path,
            env={**os.environ, name: value},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=log,
        )

    fighters, kills = [], 0
    end = time.monotonic() + SECONDS
    try:
        fighters = [fighter() for _ in range(PROCESSES)]
        deaf = set(fighters)  # until they say that they are ready
        while time.monotonic() < end:
            time.sleep(chosen.uniform(0.05, 1.5))
            if chosen.random() < 0.5:
                place = chosen.randrange(PROCESSES)
                fighters[place].kill()
                fighters[place].communicate()
                fighters[place] = fighter()
                deaf.add(fighters[place])
            elif workers := [pid for pid in marked(mark) if pid not in [one.pid for one in fighters]]:
                with suppress(ProcessLookupError):
                    os.kill(chosen.choice(workers), signal.SIGKILL)
            kills += 1
        for one in deaf.intersection(fighters):
            one.stdout.readline()
        for one in fighters:
            one.terminate()
        for one in fighters:
            one.communicate(timeout=300)
        codes = [one.returncode for one in fighters]
        await_that(lambda: not marked(mark), 60)  # what killed ones had begun is finished
    finally:
        for pid in marked(mark):
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        for one in fighters:
            one.communicate()
        log.close()
    said = (tmp_path / 'said').read_text().splitlines()
    wrong = [line for line in said if line.startswith(('wrong', 'twice'))]
    after, outcomes = examine(tmp_path / 'base')
    wrong += after
    did = Counter(line.partition(' ')[2] for line in said if line.startswith('did '))
    if set(codes) != {0}:
        wrong.append(f'exit codes {codes}: {(tmp_path / "err").read_text()[-2000:]}')
    print(f'melee: {kills} kills, {dict(did)}, at the end {dict(outcomes)}')
    record('P1', kills, len(wrong), f'melee of {sum(did.values())} calls')
    assert not wrong, '\n'.join(wrong[:20])
