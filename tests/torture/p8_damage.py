"""P8: what does not parse is never served, what was changed is listed, no damaged index is believed."""

import json
import os
import shutil
import signal
import subprocess
import sys
import textwrap
import warnings
from pathlib import Path

import pytest
from harness import chance, count, load_everything
from hostile import EXIT_CODES, _cli
from tally import Tally, Victim, until

from hadrosaur import HadrosaurError, HadrosaurWarning, Project, ResourceNotFound

DAMAGES = count(2800, quick=28)
FILES = DAMAGES * 3 // 7  # of result, status and record
INDEXES = DAMAGES * 3 // 7  # of index and -wal
DELETIONS = DAMAGES - FILES - INDEXES  # of any of the three index files while two workers run
ONLY = os.environ.get('HADROSAUR_ONLY', '')

OURS = ['result.json', 'status.json', 'record.json']
VALUES = {
    'number': lambda ident: 12345678.25,
    'text': lambda ident: f'text of {ident}',
    'short': lambda ident: {'ident': ident, 'n': [1, 2.5, None, True]},
    'long': lambda ident: {'ident': ident, 'rows': [{'n': n, 'word': f'w{n}'} for n in range(4000)]},
}


def compute(ident, args, subdir):
    return VALUES[ident.partition('-')[0]](ident)


MAKE = """
    import os, sys
    from hadrosaur import Project
    from p8_damage import VALUES, compute

    proj = Project('base')

    @proj.resource('coll')
    def run(ident, args, subdir):
        if ident.startswith('bad'):
            raise ValueError(ident)
        if ident == 'end':
            os._exit(0)     # the -wal stays
        return compute(ident, args, subdir)

    for kind in VALUES:
        for n in range(3):
            proj.fetch('coll', f'{kind}-{n}', {'n': n})
    proj.fetch('coll', 'bad-0', {'n': 0})
    if sys.argv[1] == 'wal':
        proj.fetch('coll', 'end')
"""


@pytest.fixture(scope='module')
def templates(tmp_path_factory):
    """Two bases: one that was closed, one whose program died and left a -wal."""
    load_everything()
    folder = tmp_path_factory.mktemp('templates')
    for kind in ('closed', 'wal'):
        (folder / kind).mkdir()
        path = folder / kind / 'make.py'
        path.write_text(textwrap.dedent(MAKE))
        environment = {**os.environ, 'PYTHONPATH': os.pathsep.join([str(Path(__file__).parent), *sys.path])}
        subprocess.run(
            [sys.executable, str(path), kind], cwd=folder / kind, check=True, timeout=300, env=environment
        )
    with Project(folder / 'wal/base') as proj:  # settle what was cut off, in a copy that keeps its -wal
        assert len(proj.query('coll')) > 12
    shutil.rmtree(folder / 'wal')
    shutil.copytree(folder / 'closed', folder / 'wal')
    subprocess.run(
        [sys.executable, str(folder / 'wal/make.py'), 'wal'],
        cwd=folder / 'wal',
        check=True,
        timeout=300,
        env=environment,
    )
    assert (folder / 'wal/base/index.sqlite3-wal').stat().st_size > 0
    return folder


def damage(path, chosen):
    """Change a file as a failing disk does; in words."""
    data = bytearray(path.read_bytes())
    kind = chosen.choice(['flip', 'flip', 'truncate', 'zero', 'zeros', 'garbage', 'grow', 'swap'])
    if not data:
        kind = 'grow'
    at = chosen.randrange(len(data)) if data else 0
    if kind == 'flip':
        for _ in range(chosen.choice([1, 1, 1, 3, 50])):
            data[chosen.randrange(len(data))] ^= 1 << chosen.randrange(8)
    elif kind == 'truncate':
        del data[at:]
    elif kind == 'zero':
        data[at] = 0
    elif kind == 'zeros':
        length = chosen.choice([16, 512, 4096, len(data)])
        data[at : at + length] = bytes(len(data[at : at + length]))
    elif kind == 'garbage':
        length = len(data[at : at + chosen.choice([4, 100, 4096])])
        data[at : at + length] = chosen.randbytes(length)
    elif kind == 'grow':
        data += chosen.choice([b'\0' * 512, b'{}', b'\n\n', chosen.randbytes(100)])
    else:
        other = chosen.randrange(len(data))
        data[at], data[other] = data[other], data[at]
    path.write_bytes(data)
    return f'{kind} at {at}'


# --- result, status, record ------------------------------------------------------------


def some_files(tally, base, ident, what, before, words):
    """Damaged files: what a reader is given, and what check says of it."""
    expected = compute(ident, {}, '')
    with warnings.catch_warnings(), Project(base, create=False) as proj:
        warnings.simplefilter('ignore', HadrosaurWarning)
        proj.resource('coll')(compute)
        findings = [f'{found.problem} {found.ident}' for found in proj.check(deep=True).findings]
        is_listed = any(ident in found for found in findings)
        try:
            got = proj.get('coll', ident)
        except ResourceNotFound:
            got = None
        path = base / 'coll' / ident / 'result.json'  # gone where it counts as never begun
        data = path.read_bytes() if path.exists() else b''
        is_same = is_changed = False
        try:
            found = json.loads(data, parse_constant=lambda word: 1 / 0)
            is_same = found == expected
            is_changed = not is_same
        except (ValueError, ZeroDivisionError, RecursionError):
            found = None
        if got is not None and got.status == 'completed':
            if got.result != expected and not is_changed:
                tally.wrong('what does not parse is served', f'{what}: {str(got.result)[:100]}')
            if got.result != expected and not is_listed:
                tally.wrong('what was changed is not listed', f'{what}: {str(got.result)[:100]}; {findings}')
            if not _is_completed(words['status.json']) and not _is_object(words['record.json']):
                tally.wrong('completed by a status that is none', f'{what}: {words["status.json"][:80]}')
        if words['result.json'] != before['result.json'] and not is_listed:
            tally.wrong(
                'a changed result is not listed', f'{what}: {findings}, now {words["result.json"][:80]}'
            )
        again = proj.fetch('coll', ident)
        if again.status == 'completed' and again.result != expected and not is_changed:
            tally.wrong('what does not parse is served', f'{what}: {str(again.result)[:100]}')
        if again.status != 'completed':
            tally.wrong('it is not computed again', f'{what}: {again.status} {again.error}')
        proj.check(fix=True, deep=True)
        left = list(proj.check().findings)
        if left:
            tally.wrong('it is not mended', f'{what}: {left[:3]}')


def _is_completed(data):
    """Whether status.json says completed, as its one rule has it."""
    try:
        document = json.loads(data)
    except (ValueError, RecursionError):
        return False
    return document == {'completed': True, 'pending': False, 'error': False} and all(
        isinstance(value, bool) for value in document.values()
    )


def _is_object(data):
    try:
        return isinstance(json.loads(data), dict)
    except (ValueError, RecursionError):
        return False


def test_files_of_a_resource(templates, tmp_path, record):
    """Flipped, cut, zeroed: what does not parse is computed again, and what was changed is listed."""
    tally = Tally('P8')
    chosen = chance()
    idents = [f'{kind}-{n}' for kind in VALUES for n in range(3)]
    base = tmp_path / 'base'
    shutil.copytree(templates / 'closed/base', base)
    for turn in range(FILES):
        ident = chosen.choice(idents)
        folder = base / 'coll' / ident
        shutil.rmtree(folder)
        shutil.copytree(templates / 'closed/base/coll' / ident, folder)
        before = {name: (folder / name).read_bytes() for name in OURS}
        how = [
            f'{name}: {damage(folder / name, chosen)}'
            for name in chosen.sample(OURS, chosen.choice([1, 1, 1, 2]))
        ]
        words = {name: (folder / name).read_bytes() for name in OURS}
        what = f'{turn}: {ident}: {"; ".join(how)}'
        if ONLY and ONLY not in what:
            continue
        tally.fault(how[0].partition(':')[0])
        try:
            some_files(tally, base, ident, what, before, words)
        except Exception as error:
            tally.wrong(f'{type(error).__name__} is raised', f'{what}: {error}')
    tally.end(record)


# --- the index ------------------------------------------------------------


def _uses(folder):
    """In a victim: a base whose index is damaged, looked at, used, and mended; what is wrong is printed."""
    os.chdir(folder)
    warnings.simplefilter('ignore')
    with Project('base') as proj:
        proj.resource('coll')(compute)
        for ident in ('number-0', 'long-1', 'new' if False else 'text-2'):
            assert proj.fetch('coll', ident).result == compute(ident, {}, ''), ident
        assert proj.fetch('coll', 'short-new').status == 'completed'
        refused = None
        try:
            rows = {row.ident: row.status for row in proj.query('coll')}
            stats = proj.stats()
        except HadrosaurError as error:
            refused = error
        if refused is None:
            print('ROWS', json.dumps(rows, sort_keys=True), stats['coll']['total'])
        else:
            print('REFUSED', type(refused).__name__, refused, file=sys.stderr)
    with Project('base') as proj:
        proj.reindex(fresh=True)
        rows = {row.ident: row.status for row in proj.query('coll')}
        on_disk = {path.name for path in Path('base/coll').iterdir()}
        assert set(rows) == on_disk, (sorted(rows), sorted(on_disk))
        assert proj.check(deep=True).findings == []
    return 0


LOOKS = {
    'status': _cli('status', '{base}'),
    'query': _cli('query', '{base}', '--json'),
    'errors': _cli('errors', '{base}'),
    'check': _cli('check', '{base}', '--deep'),
    'db current': _cli('db', 'current', '{base}'),
    'sql': _cli('sql', '{base}', 'select count(*) from resources'),
    'fresh': _cli('reindex', '{base}', '--fresh'),
    'fix': _cli('check', '{base}', '--fix'),
    'upgrade': _cli('db', 'upgrade', '{base}'),
}


def _look(folder, verb):
    os.chdir(folder)
    warnings.resetwarnings()
    warnings.simplefilter('ignore')
    try:
        LOOKS[verb]('base')
    except HadrosaurError as error:
        print(f'Error: {error}', file=sys.stderr)
        return error.exit_code
    return 0


def _replaced(path, chosen, templates):
    """A foreign, newer, or half deleted index; in words."""
    kind = chosen.choice(['foreign', 'newer', 'text', 'empty', 'deleted', 'no wal', 'no shm', 'other wal'])
    wal, shm = (path.with_name(path.name + end) for end in ('-wal', '-shm'))
    if kind in ('foreign', 'newer'):
        import sqlite3

        if kind == 'foreign':
            for one in (path, wal, shm):
                one.unlink(missing_ok=True)
        database = sqlite3.connect(path)
        if kind == 'foreign':
            database.execute('CREATE TABLE resources (x)')
        else:
            database.execute("UPDATE alembic_version SET version_num = '9999_from_the_future'")
        database.commit()
        database.close()
    elif kind in ('text', 'empty'):
        path.write_bytes(b'not an index\n' * 400 if kind == 'text' else b'')
    elif kind == 'deleted':
        path.unlink()
    elif kind == 'other wal':
        shutil.copyfile(templates / 'wal/base/index.sqlite3-wal', wal)
    else:
        (wal if kind == 'no wal' else shm).unlink(missing_ok=True)
    return kind


def test_an_index(templates, tmp_path, record):
    """Whatever became of index and -wal: results are served, rows right or refused, a fresh index made."""
    tally = Tally('P8')
    chosen = chance()
    folder = tmp_path / 'victim'
    for turn in range(INDEXES):
        template = chosen.choice(['closed', 'wal'])
        shutil.copytree(templates / template, folder)
        path = folder / 'base/index.sqlite3'
        if chosen.random() < 0.15:
            name, how = 'index.sqlite3', _replaced(path, chosen, templates)
        else:
            name = chosen.choice(
                ['index.sqlite3', 'index.sqlite3-wal'] if template == 'wal' else ['index.sqlite3']
            )
            if name == 'index.sqlite3' and chosen.random() < 0.4:
                data = bytearray(path.read_bytes())
                at = chosen.randrange(100)
                data[at] = chosen.choice([0, 1, 5, 127, 255, data[at] ^ 1 << chosen.randrange(8)])
                path.write_bytes(data)
                how = f'header byte {at} is {data[at]}'
            else:
                how = damage(path.with_name(name), chosen)
        verb = chosen.choice(list(LOOKS)) if chosen.random() < 0.5 else 'use'
        what = f'{turn}: {template}: {name}: {how}: {verb}'
        if not ONLY or ONLY in what:
            tally.fault(name)
            victim = Victim(
                tmp_path, lambda verb=verb: _uses(folder) if verb == 'use' else _look(folder, verb)
            )
            victim.wait()
            _, err = victim.said()
            is_refused = 'from_the_future' in err or 'newer' in err or 'not an index of hadrosaur' in err
            if victim.code == 'hang':
                tally.wrong('it hangs', what)
            elif 'Traceback' in err and not ('IndexTooNew' in err or 'NotOurIndex' in err):
                tally.wrong('a traceback', f'{what}\n{err[-900:]}')
            elif victim.code not in EXIT_CODES and not is_refused and 'Traceback' not in err:
                tally.wrong(f'it ends with {victim.code}', f'{what}\n{err[-900:]}')
            elif victim.code in (3, 5) and not err.strip():
                tally.wrong('it does not say why', what)
        shutil.rmtree(folder)
    tally.end(record)


WORKERS = """
    import os, sys, warnings
    from hadrosaur import Project, HadrosaurWarning
    from p8_damage import compute

    warnings.simplefilter('ignore', HadrosaurWarning)
    proj = Project('base')
    proj.resource('coll')(compute)
    log = os.open('acknowledged', os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    n = 0
    while os.path.exists('go on'):
        some = [f'short-{sys.argv[1]}-{n}-{k}' for k in range(6)]
        for res in proj.fetch_many('coll', some, executor=sys.argv[2], workers=2):
            assert res.status == 'completed' and res.result == compute(res.ident, {}, ''), (res, res.error)
            os.write(log, f'{res.ident}\\n'.encode())
        n += 1
    proj.close()
"""


def test_deleted_while_two_work(templates, tmp_path, program, record):
    """Any of the index's files goes at any moment: nothing acknowledged lacks folder or row afterwards."""
    tally = Tally('P8')
    chosen = chance()
    (tmp_path / 'go on').touch()
    log = tmp_path / 'acknowledged'
    log.touch()
    environment = {**os.environ, 'PYTHONPATH': os.pathsep.join([str(Path(__file__).parent), *sys.path])}
    running = [
        program(WORKERS, number, executor, start=True, env=environment)
        for number, executor in enumerate(['processes', 'inline'])
    ]
    index = tmp_path / 'base/index.sqlite3'
    until(index.exists)
    for _ in range(DELETIONS):
        wanted = log.stat().st_size + chosen.randrange(20, 400)
        found = until(
            lambda size=wanted: log.stat().st_size >= size or any(one.poll() is not None for one in running)
        )
        if not found or any(one.poll() is not None for one in running):
            break
        names = [end for end in ('', '-wal', '-shm') if chosen.random() < 0.5] or ['']
        for end in names:
            index.with_name(index.name + end).unlink(missing_ok=True)
        tally.fault('deletion')
    (tmp_path / 'go on').unlink()
    for one in running:
        try:
            _, err = one.communicate(timeout=300)
        except subprocess.TimeoutExpired:
            one.send_signal(signal.SIGABRT)
            tally.wrong('it hangs', one.args)
            continue
        if one.returncode != 0:
            tally.wrong('a worker fails', err[-1500:])
    wanted = set(log.read_text().split())
    with Project(tmp_path / 'base') as proj:
        found = {row.ident for row in proj.query('coll', status='completed')}
        if wanted - found:
            tally.wrong('an acknowledged resource has no row', f'{len(wanted - found)} of {len(wanted)}')
        findings = proj.check(deep=True).findings
        if findings:
            tally.wrong('check finds something', findings[:5])
    tally.end(record, at_least=DELETIONS)
