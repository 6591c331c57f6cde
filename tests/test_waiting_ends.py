"""What a killed program left pending is not waited for, where nothing can be written about it either."""

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from hadrosaur import Project

PENDING = '{"completed": false, "pending": true, "error": false}\n'


@pytest.fixture
def base():
    """In a folder that others may enter, which pytest's own may not be."""
    with tempfile.TemporaryDirectory() as folder:
        os.chmod(folder, 0o755)
        yield Path(folder) / 'base'


@pytest.fixture
def left(base):
    """A base that a dead program left behind: a run cut off, one only queued, and a queued recompute."""
    with Project(base) as proj:
        proj.resource('coll')(lambda ident, args, subdir: ident)
        for ident in ('begun', 'queued', 'anew'):
            proj.fetch('coll', ident)
    for ident in ('begun', 'queued', 'anew'):
        folder = base / 'coll' / ident
        (folder / 'status.json').write_text(PENDING)
        record = json.loads((folder / 'record.json').read_text())
        if ident == 'begun':
            record['state'] = 'begun'
            (folder / 'result.json').unlink()
            (folder / 'record.json').write_text(json.dumps(record) + '\n')
        elif ident == 'queued':
            (folder / 'record.json').unlink()
    (base / 'index.sqlite3').unlink()
    with Project(base) as proj:
        proj.stats()
    for ident in ('begun', 'queued', 'anew'):  # building the index has settled them
        (base / 'coll' / ident / 'status.json').write_text(PENDING)
    return base


READER = """
import json, os, sys, warnings
from hadrosaur import Project, HadrosaurError, cli
import hadrosaur.recover, hadrosaur.registry, hadrosaur.index._filters, hadrosaur.index._readonly
import hadrosaur.index._filters, hadrosaur.schema, hadrosaur.upgrade, hadrosaur.mounts, traceback
import concurrent.futures, difflib, html, sqlalchemy, sqlalchemy.dialects.sqlite.pysqlite, hadrosaur.cli.show
warnings.simplefilter('ignore')
base = sys.argv[1]
if os.getuid() == 0:
    os.setgid(65534)
    os.setuid(65534)

def told(call):
    try:
        return call()
    except HadrosaurError as error:
        return type(error).__name__

found = {}
proj = Project(base, create=False)
proj.resource('coll')(lambda ident, args, subdir: 'computed')
for ident in ('begun', 'queued', 'anew'):
    found[ident] = [
        told(lambda: proj.get('coll', ident).status),
        told(lambda: proj.get('coll', ident).wait().status),
        told(lambda: proj.get('coll', ident).value),
        told(lambda: proj.fetch('coll', ident, wait=True).status),
    ]
print(json.dumps(found))
"""


def test_on_a_base_that_can_only_be_read_waiting_ends(left):
    """``.wait()``, ``.value``, ``fetch(wait=True)``: Interrupted, never asked for, or the old result."""
    subprocess.run(['chmod', '-R', 'a-w,a+rX', left], check=True)
    try:
        done = subprocess.run(
            [sys.executable, '-c', READER, str(left)],
            capture_output=True,
            text=True,
            timeout=300,
            check=False,
        )
    finally:
        subprocess.run(['chmod', '-R', 'u+w', left], check=True)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)

    assert found['begun'] == ['error', 'error', 'Interrupted', 'error']
    assert found['anew'] == ['completed', 'completed', 'anew', 'completed']
    assert found['queued'][:3] == ['ResourceNotFound'] * 3
    assert found['queued'][3] in ('pending', 'error', 'ResourceNotFound')
    assert (left / 'coll/begun/status.json').read_text() == PENDING


def test_logs_are_not_followed_for_ever(left):
    """``hadrosaur logs -f`` of such a resource prints what there is, and ends."""
    (left / 'coll/begun/status.json').unlink()
    (left / 'coll/begun/status.json').mkdir()  # so that it cannot be settled, not even by root
    done = subprocess.run(
        [sys.executable, '-m', 'hadrosaur', 'logs', str(left), 'coll', 'begun', '-f'],
        capture_output=True,
        timeout=300,
        check=False,
    )

    assert done.returncode == 0, done.stderr
