"""P2: each point of a resource's life can be cut, and is settled by itself at the next opening.

A process is killed at its k-th file operation below the base, SQLite's own included, for each k; in the
background and in batches it is caller or worker, whoever does that operation. Then the base is opened anew:
the resource is as it was, or as it was to become, or interrupted, or as if never asked for, and all of it
is of one run; a second opening finds nothing to do; and the index says what the folders say.
"""

import hashlib
import json
import os
import shutil
import subprocess
import sys
import textwrap
import warnings
from collections import Counter
from contextlib import suppress
from pathlib import Path

import pytest
from conftest import await_that
from faults import Faults
from harness import IS_FULL, chance, count

from hadrosaur import HadrosaurWarning, Project, ResourceNotFound

TIMES = count(10, quick=1)  # each point so often, with other sizes
POINTS = None if IS_FULL else 3  # of each life in the quick tier, drawn anew each time

# Forks a child for each life, so that the packages are imported once.
NURSERY = """
    import json, os, sys, warnings
    from pathlib import Path
    from harness import load_everything
    from hadrosaur import HadrosaurWarning, Project

    warnings.simplefilter('ignore', HadrosaurWarning)

    def compute(ident, args, subdir):
        nonce = os.urandom(8).hex()
        Path(subdir, 'nonce').write_text(nonce)
        print(nonce)
        if args.get('fails') or (args.get('once') and not os.path.exists(args['once'])):
            if args.get('once'):
                Path(args['once']).touch()
            raise ValueError(nonce)
        return {'nonce': nonce, 'args': args, 'long': nonce * (args['size'] // 16)}

    def live(base, life, args):
        proj = Project(base)
        proj.resource('c', retries=int(life == 'retry'), keep_attempts=int('kept' in life))(compute)
        if life == 'recovery':
            proj.stats()
            proj.get('c', 'x')
        elif life == 'remove':
            proj.remove('c', 'x')
        elif 'background' in life:
            proj.fetch('c', 'x', args, background=True, recompute='recompute' in life)
            proj.wait()
        elif 'batch' in life:
            proj.fetch_many('c', ['x'], args, workers=1, recompute='recompute' in life).wait()
        else:
            proj.fetch('c', 'x', args, recompute='recompute' in life)
        proj.close()

    load_everything()
    print('ready', flush=True)
    for line in sys.stdin:
        pid = os.fork()
        if pid == 0:
            code = 1
            try:
                live(*json.loads(line))
                code = 0
            except BaseException:
                import traceback
                traceback.print_exc()
            finally:
                os._exit(code)
        print(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), flush=True)
"""

LIVES = {  # what is there before, and the args of what is cut
    'first run': (None, {}),
    'failing run': (None, {'fails': True}),
    'retry': (None, {'once': True}),
    'recompute': ('completed', {}),
    'failing recompute': ('completed', {'fails': True}),
    'recompute, the last one kept': ('completed', {}),
    'run after a failed one': ('error', {}),
    'remove': ('completed', {}),
    'background': (None, {}),
    'background recompute': ('completed', {}),
    'batch': (None, {}),
    'batch recompute': ('completed', {}),
    'recovery': ('cut', {}),
}


@pytest.fixture(scope='module')
def nursery(tmp_path_factory):
    """(faults, have a life lived): its exit code."""
    place = tmp_path_factory.mktemp('nursery')
    with Faults(place, place / 'base') as faults:
        path = place / 'nursery.py'
        path.write_text(textwrap.dedent(NURSERY))
        with open(place / 'nursery.err', 'w') as err:
            process = subprocess.Popen(
                [sys.executable, path],
                env=faults.environment(PYTHONPATH=os.pathsep.join([str(Path(__file__).parent), *sys.path])),
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=err,
                text=True,
            )
        process.stdout.readline()

        def live(*what):
            process.stdin.write(json.dumps(what) + '\n')
            process.stdin.flush()
            return int(process.stdout.readline())

        live.said = place / 'nursery.err'
        yield faults, live
        process.stdin.close()
        process.wait(60)
        process.stdout.close()


def contents(folder):
    """Every file of a folder, by its path in it."""
    if not folder.is_dir():
        return None
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob('*'))
        if path.is_file()
    }


def opened_anew(base):
    """(bytes of the resource's folder, rows, the resource or None) after an opening."""
    with Project(base) as proj:
        proj.resource('c')(print)
        rows = [tuple(entry) for entry in proj.query('c', status=['completed', 'error', 'pending'])]
        with suppress(ResourceNotFound):
            # What a killed caller's worker still computes, it finishes.
            await_that(lambda: proj.get('c', 'x').status != 'pending', 60)
        try:
            found = proj.get('c', 'x')
        except ResourceNotFound:
            found = None
        rows = [tuple(entry) for entry in proj.query('c')]
    return contents(base / 'c/x'), rows, found


def verdict(life, before, base, found, args):
    """What became of it, in a word. Raises AssertionError where it is nothing that may become of it."""
    now = contents(base / 'c/x')
    old, was = before
    if found is None:
        assert old is None or life in ('remove', 'recovery'), f'gone: {sorted(now or ())}'
        assert 'status.json' not in (now or {})
        return 'as if never asked for'
    record = json.loads(now['record.json'])
    assert record['state'] == found.status
    if found.status == 'completed':
        assert hashlib.sha256(now['result.json']).hexdigest() == record['result_sha256']
        nonces = {found.result['nonce'], now['storage/nonce'].decode(), now['stdout.log'].decode().strip()}
        assert len(nonces) == 1, nonces
        assert found.result['long'] == found.result['nonce'] * (found.result['args']['size'] // 16)
        assert found.args == found.result['args'] == record['args']
        assert not now.get('error.log')
        if was == 'completed' and found.result == json.loads(old['result.json']):
            assert {name: now[name] for name in KEPT} == {name: old[name] for name in KEPT}
            return 'old'
        assert life != 'remove'
        assert 'fails' not in args
        return 'new'
    kind = found.entry.error_type
    if kind == 'ValueError':
        nonce = now['storage/nonce'].decode()
        assert found.entry.error == nonce
        assert nonce in found.error
        assert nonce in now['stdout.log'].decode()
        return 'failed'
    assert kind in ('Interrupted', 'WorkerDied'), f'{kind}: {found.error}'
    assert found.args in (args, was_args(old)), 'the args are lost'
    return 'interrupted'


KEPT = ('result.json', 'storage/nonce', 'stdout.log', 'record.json', 'status.json')


def was_args(old):
    return json.loads(old['record.json'])['args'] if old and 'record.json' in old else None


@pytest.mark.parametrize('life', LIVES)
def test_every_point_can_be_cut(life, nursery, base, record):
    """Killed at any file operation of its life, it is whole: old, new, interrupted or never asked for."""
    faults, live = nursery
    faults.watch(base)
    chosen = chance()
    was, more = LIVES[life]
    became, cut = Counter(), 0
    for _ in range(TIMES):
        at, left = 0, None
        while left is None or left:
            if POINTS is None:
                at += 1
            elif left is None:
                at = 10**9  # the first goes through, and tells how many points there are
            else:
                at = left.pop()
            args = {'size': chosen.choice([10, 1000, 70_000, 1_000_000]), **more}
            if 'once' in args:
                args['once'] = f'{base}.once'
                Path(args['once']).unlink(missing_ok=True)
            faults.disarm()
            prepared(live, base, was, chosen, faults)
            before = contents(base / 'c/x'), was
            faults.arm('kill', at)
            code = live(str(base), life, args)
            points, fired, where = faults.count, faults.fired, faults.first
            faults.disarm()
            try:
                became[settled(life, before, base, args)] += 1
            except Exception as error:
                record('P2', cut, 1)
                raise AssertionError(f'{life}, cut at {at} of {points}, {where}: {error!r}') from error
            if not fired:
                assert code == 0, live.said.read_text()[-2000:]
                left = (
                    [] if POINTS is None or left is not None else chosen.sample(range(1, points + 1), POINTS)
                )
            else:
                cut += 1
            shutil.rmtree(base)
    record('P2', cut, 0)
    print(f'P2: {life}: cut {cut} times: {dict(became)}')


def prepared(live, base, was, chosen, faults):
    """What is there before; made once for each size, then copied."""
    size = chosen.choice([10, 1000, 70_000, 1_000_000]) if was else 0
    kept = base.with_name(f'kept {was if was == "error" else bool(was)} {size}')
    if not kept.exists():
        if was is None:
            with Project(base) as proj:
                proj.stats()
        else:
            live(str(base), 'first run', {'size': size, 'fails': was == 'error', 'of': 'before'})
        base.rename(kept)
    shutil.copytree(kept, base)
    if was == 'cut':
        faults.arm('kill', chosen.randrange(1, 60))
        live(str(base), 'recompute', {'size': 100_000})
        faults.disarm()


def settled(life, before, base, args):
    with warnings.catch_warnings():
        warnings.simplefilter('ignore', HadrosaurWarning)
        first = opened_anew(base)
        word = verdict(life, before, base, first[2], args)
        second = opened_anew(base)
        assert second[0] == first[0], 'a second opening changed the folder'
        assert second[1] == first[1], f'a second opening changed the rows: {first[1]} {second[1]}'
        with Project(base) as proj:
            report = proj.reindex()
            assert (report.added, report.updated, report.removed) == (0, 0, 0), (report, first[1])
            assert not report.unreadable, report
            proj.resource('c')(lambda ident, args, subdir: {'nonce': 'again'})
            again = proj.fetch('c', 'x')
            assert again.status == 'completed', again.error
            if first[2] is not None and first[2].status == 'completed':
                assert again.result == first[2].result
            findings = proj.check(deep=True).findings
            assert findings == [], findings
    return word
