"""Alembic: replaying history equals the schema, old indexes keep their rows, failures leave no trace."""

import os
import re
import shutil
import signal
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import pytest
from conftest import HANG, ROOT

import hadrosaur
from hadrosaur import Project, schema
from hadrosaur.upgrade import find_migrations, make_engine, stored_revision, upgrade_index

DUMPS = sorted((ROOT / 'tests/data/indexes').glob('*.sql'))
ROWS = {('one', 'completed'), ('two', 'completed'), ('bad', 'error')}


def load(dump, path):
    """An index file as an old release left it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with closing(sqlite3.connect(path)) as index:
        index.executescript(dump.read_text('utf-8'))
    return path


def contents(path):
    """Everything in the schema of a file, by name, with its words; and whose file it is."""
    with closing(sqlite3.connect(path)) as index:
        found = dict(index.execute('SELECT name, sql FROM sqlite_master WHERE sql IS NOT NULL'))
        return found, index.execute('PRAGMA application_id').fetchone()


def alembic(*words):
    """Plain alembic, from the checkout."""
    command = [sys.executable, '-m', 'alembic', *map(str, words)]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=HANG)


def fresh(path):
    """A new index as this release makes it."""
    from sqlalchemy import create_engine

    engine = create_engine(f'sqlite:///{path}')
    with engine.begin() as connection:
        schema.create(connection.exec_driver_sql)
    engine.dispose()
    return path


def test_replaying_all_revisions_equals_the_schema(tmp_path):
    """Tables, indexes, views, CHECKs, comments and mark are the same, to the letter."""
    done = alembic('-x', f'index={tmp_path / "replayed.sqlite3"}', 'upgrade', 'head')
    assert done.returncode == 0, done.stderr
    replayed, mark = contents(tmp_path / 'replayed.sqlite3')
    made, made_mark = contents(fresh(tmp_path / 'fresh.sqlite3'))
    for found in (replayed, made):
        found.pop('alembic_version')  # Alembic's own words

    assert {name: squeeze(sql) for name, sql in replayed.items()} == {
        n: squeeze(sql) for n, sql in made.items()
    }
    assert mark == made_mark == (schema.APPLICATION_ID,)
    assert 'CONSTRAINT resources_status_is_known CHECK' in replayed['resources']
    assert '-- ' in replayed['resources']


def squeeze(sql):
    return ' '.join(sql.split())


def test_revisions_are_one_line_of_history():
    """schema.REVISIONS names the files, oldest first, and each follows the one before."""
    names = sorted(path.stem for path in (ROOT / 'migrations/versions').glob('*.py'))

    assert tuple(names) == schema.REVISIONS
    for before, name in zip([None, *names], names, strict=False):
        text = (ROOT / 'migrations/versions' / f'{name}.py').read_text()
        assert f'down_revision = {before!r}' in text
        assert not re.search(r'^\s*(from|import) hadrosaur', text, re.MULTILINE)


@pytest.mark.parametrize('dump', DUMPS, ids=lambda dump: dump.stem)
def test_every_released_index_opens_with_its_rows(dump, base):
    """An index of an older release is upgraded when it is opened; its rows are there."""
    path = load(dump, base / 'index.sqlite3')
    assert stored_revision(path) == dump.stem
    with Project(base, create=False) as proj:
        rows = {(entry.ident, entry.status) for entry in proj.query()}
        proj.resource('coll')(lambda ident, args, subdir: 1)
        assert proj.fetch('coll', 'new').status == 'completed'

    assert rows == ROWS
    assert stored_revision(path) == schema.HEAD
    assert contents(path)[0].keys() == contents(fresh(base / 'fresh.sqlite3'))[0].keys()


def test_there_is_a_dump_of_each_older_revision():
    """Whoever adds a revision keeps an index of the one before."""
    assert {dump.stem for dump in DUMPS} >= set(schema.REVISIONS[:-1])


def test_upgrading_what_is_at_head_changes_nothing(tmp_path):
    """A second upgrade is no upgrade."""
    path = fresh(tmp_path / 'index.sqlite3')
    before = contents(path)
    upgrade_index(path)

    assert contents(path) == before


OPENER = """
    import sys
    from hadrosaur import Project
    sys.stdin.read(1)
    with Project('base', create=False) as proj:
        print(sorted(entry.ident for entry in proj.query()))
"""


@pytest.mark.long
def test_eight_openers_at_once(program, tmp_path):
    """Eight processes that open one old index at once all see its rows, in one upgraded index."""
    path = load(DUMPS[0], tmp_path / 'base/index.sqlite3')
    started = [program(OPENER, start=True, stdin=subprocess.PIPE) for _ in range(8)]
    for process in started:
        process.stdin.write('.')
        process.stdin.flush()
    answers = [process.communicate(timeout=HANG) for process in started]

    assert [out for out, _ in answers] == ["['bad', 'one', 'two']\n"] * 8, answers
    assert stored_revision(path) == schema.HEAD


@pytest.fixture
def broken(tmp_path):
    """A copy of the migrations with one more revision, which fails half way."""
    folder = tmp_path / 'migrations'
    shutil.copytree(find_migrations(), folder)
    (folder / 'versions' / '9999_fails.py').write_text(
        'from alembic import op\n'
        "revision = '9999_fails'\n"
        f'down_revision = {schema.HEAD!r}\n'
        'def upgrade():\n'
        "    op.execute('ALTER TABLE resources ADD COLUMN half TEXT')\n"
        "    op.execute('CREATE TABLE other (x)')\n"
        "    op.execute('SELECT no_such_function()')\n"
    )
    return folder


def test_a_revision_that_fails_half_way_leaves_no_trace(broken, tmp_path):
    """All of it is rolled back, the revisions before it included, and the error says so."""
    path = load(DUMPS[0], tmp_path / 'index.sqlite3')
    before = contents(path)
    with pytest.raises(hadrosaur.UpgradeFailed, match='no_such_function') as caught:
        upgrade_index(path, DUMPS[0].stem, migrations=broken)

    assert contents(path) == before
    assert stored_revision(path) == DUMPS[0].stem
    assert 'reindex' in str(caught.value)


def test_an_upgrade_keeps_other_writers_out_from_its_start(tmp_path):
    """The revision that it reads first is still the stored one when it changes the tables."""
    path = load(DUMPS[0], tmp_path / 'index.sqlite3')
    engine = make_engine(path)
    with closing(sqlite3.connect(path, isolation_level=None, timeout=0)) as other:
        with engine.connect() as connection, connection.begin():
            connection.exec_driver_sql('SELECT version_num FROM alembic_version').fetchone()
            with pytest.raises(sqlite3.OperationalError, match='locked'):
                other.execute('BEGIN IMMEDIATE')
        other.execute('BEGIN IMMEDIATE')
    engine.dispose()


KILLED = """
    import os, signal, sys
    from pathlib import Path
    import hadrosaur.upgrade as upgrade

    made = upgrade.make_engine
    left = int(sys.argv[2])

    def counting(path):
        from sqlalchemy import event
        engine = made(path)

        @event.listens_for(engine, 'before_cursor_execute')
        def count(*_):
            global left
            left -= 1
            if left < 0:
                os.kill(os.getpid(), signal.SIGKILL)

        return engine

    upgrade.make_engine = counting
    upgrade.upgrade_index(Path(sys.argv[1]))
    print('done')
"""


@pytest.mark.long
def test_killing_an_upgrade_leaves_old_or_new(program, tmp_path):
    """kill -9 before any statement (each tenth here): the index is the old or the new one, never between."""
    states = []
    for left in range(0, 1000, 10):
        path = load(DUMPS[0], tmp_path / f'{left}.sqlite3')
        old = contents(path)
        done = program(KILLED, path, left, check=False)
        with closing(sqlite3.connect(path)) as index:  # whoever opens it next rolls back
            assert index.execute('PRAGMA integrity_check').fetchone() == ('ok',)
        states.append(stored_revision(path))
        assert contents(path) == old if states[-1] == DUMPS[0].stem else states[-1] == schema.HEAD
        if done.returncode == 0:
            break
        assert done.returncode == -signal.SIGKILL

    assert done.stdout == 'done\n'
    assert states[0] == DUMPS[0].stem
    assert states[-1] == schema.HEAD


def test_a_newer_index_is_refused_and_left_alone(base):
    """An index of a newer release is named with both revisions, and not touched."""
    path = fresh_in(base)
    with closing(sqlite3.connect(path)) as index:
        index.execute("UPDATE alembic_version SET version_num = '0777_later'")
        index.commit()
    before = path.read_bytes()
    with Project(base, create=False) as proj, pytest.raises(hadrosaur.IndexTooNew) as caught:
        proj.stats()

    assert '0777_later' in str(caught.value)
    assert schema.HEAD in str(caught.value)
    assert '--fresh' in str(caught.value)
    assert path.read_bytes() == before


def fresh_in(base):
    with Project(base) as proj:
        proj.resource('coll')(lambda ident, args, subdir: 1)
        proj.fetch('coll', 'one')
    return Path(base) / 'index.sqlite3'


@pytest.mark.long
def test_plain_alembic_from_the_checkout(tmp_path):
    """``current``, ``check`` (what ``--autogenerate`` would add: nothing); a clear word without an index."""
    path = load(DUMPS[0], tmp_path / 'index.sqlite3')

    assert DUMPS[0].stem in alembic('-x', f'index={path}', 'current').stdout
    assert alembic('-x', f'index={path}', 'upgrade', 'head').returncode == 0
    assert f'{schema.HEAD} (head)' in alembic('-x', f'index={path}', 'current').stdout
    checked = alembic('-x', f'index={path}', 'check')
    assert (checked.returncode, checked.stdout) == (0, 'No new upgrade operations detected.\n')
    refused = alembic('current')
    assert refused.returncode != 0
    assert 'which index?' in refused.stderr
    assert 'Traceback' not in refused.stderr


def test_what_only_computes_or_counts_loads_no_sqlalchemy(base):
    """A new index, one that is at head, writing and counting rows: a quarter of a second less to start."""
    fresh_in(base)
    program = (
        'import sys; from hadrosaur import Project\n'
        f'proj = Project({str(base)!r}, create=False)\n'
        'proj.stats(), proj.error_groups(), proj.reindex()\n'
        "proj.resource('coll')(lambda ident, args, subdir: ident)\n"
        f'for each in proj, Project({str(base.parent / "new")!r}):\n'
        "    each.resource('other')(lambda ident, args, subdir: ident)\n"
        "    each.fetch_many('other', ['a', 'b'], executor='inline').wait()\n"
        "    each.get('other', 'a'), each.explain('other', 'a'), each.fetch('other', 'a')\n"
        '    each.close()\n'
        "assert not {'sqlalchemy', 'alembic'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, '-c', program], check=True, env={**os.environ, 'PYTHONPATH': str(ROOT)})


@pytest.mark.parametrize('whose', ['ours', 'foreign'])
def test_who_asks_for_the_revision_leaves_nothing_beside_the_file(tmp_path, whose):
    """Of a database in WAL mode neither: a reader would make -wal and -shm, and could not remove them."""
    path = tmp_path / 'some.sqlite3'
    with closing(sqlite3.connect(path)) as driver:
        driver.execute('PRAGMA journal_mode = WAL')
        driver.execute(f'CREATE TABLE {"alembic_version" if whose == "ours" else "some"} (version_num)')
        driver.execute('INSERT INTO alembic_version VALUES (7)') if whose == 'ours' else None
        driver.commit()
    assert stored_revision(path) == ('7' if whose == 'ours' else None)
    assert os.listdir(tmp_path) == ['some.sqlite3']


def test_a_revision_that_waits_in_the_wal_is_seen(tmp_path):
    """Where another process has written it, and still has the file open."""
    path = tmp_path / 'some.sqlite3'
    with closing(sqlite3.connect(path, isolation_level=None)) as driver:
        driver.execute('PRAGMA journal_mode = WAL')
        driver.execute('CREATE TABLE alembic_version (version_num)')
        driver.execute('INSERT INTO alembic_version VALUES (8)')
        assert stored_revision(path) == '8'


def test_db_current_and_upgrade(base):
    """The command shows the stored revision without touching it, and brings it to head when asked."""
    import json

    path = load(DUMPS[0], base / 'index.sqlite3')

    def db(verb):
        command = [sys.executable, '-m', 'hadrosaur', 'db', verb, str(base), '--json']
        return json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout)

    assert db('current') == {'stored': DUMPS[0].stem, 'head': schema.HEAD}
    assert stored_revision(path) == DUMPS[0].stem
    assert db('upgrade') == {'before': DUMPS[0].stem, 'head': schema.HEAD}
    assert db('current') == {'stored': schema.HEAD, 'head': schema.HEAD}


def test_a_path_is_no_url(tmp_path):
    """What has a meaning in URLs has none in the path of an index."""
    for name in ('a?b', 'a%20b', 'a#b', 'a b'):
        (tmp_path / name).mkdir()
        with make_engine(tmp_path / name / 'index.sqlite3').connect() as connection:
            connection.exec_driver_sql('CREATE TABLE t (a)')
        assert (tmp_path / name / 'index.sqlite3').exists()
