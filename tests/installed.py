"""What `make wheel` runs in a clean environment, from another directory, on the installed wheel alone.

    python installed.py CHECKOUT

It upgrades every index that was ever released, and computes the census of the standard library.
"""

import sqlite3
import subprocess
import sys
import tempfile
from pathlib import Path

import hadrosaur
from hadrosaur.schema import HEAD
from hadrosaur.upgrade import find_migrations, stored_revision

checkout = Path(sys.argv[1]).resolve()
package = Path(hadrosaur.__file__).parent
assert package.parent != checkout, f'{package} is the checkout, not the wheel'
assert find_migrations() == package / 'migrations', find_migrations()

dumps = sorted((checkout / 'tests/data/indexes').glob('*.sql'))
assert dumps
for dump in dumps:
    base = Path(tempfile.mkdtemp())
    with sqlite3.connect(base / 'index.sqlite3') as index:
        index.executescript(dump.read_text('utf-8'))
    index.close()
    assert stored_revision(base / 'index.sqlite3') == dump.stem
    with hadrosaur.Project(base, create=False) as proj:
        rows = {(entry.ident, entry.status) for entry in proj.query()}
    assert rows == {('one', 'completed'), ('two', 'completed'), ('bad', 'error')}, rows
    assert stored_revision(base / 'index.sqlite3') == HEAD
    print(f'{dump.stem}: opened with its rows, now {HEAD}')

base = Path(tempfile.mkdtemp()) / 'demo'
subprocess.run([sys.executable, str(checkout / 'examples/source_census.py'), str(base)], check=True)
command = Path(sys.executable).parent / 'hadrosaur'
subprocess.run([str(command), 'status', str(base)], check=True)
subprocess.run([str(command), 'check', str(base)], check=True)
with hadrosaur.Project(base, create=False) as proj:
    assert proj.stats()['stdlib']['total'] > 1000
print('the wheel works')
