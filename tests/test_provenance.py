"""Which program computed a resource: one note for each process that computes, named in record and row."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from test_cli_tools import call
from test_upgrade import DUMPS, load

import hadrosaur
from hadrosaur import Project, directory, provenance, schema


def notes_of(proj):
    folder = Path(proj.path, '.hadrosaur/provenance')
    return sorted(folder.iterdir()) if folder.exists() else []


def test_one_note_tells_of_all_that_a_process_computes(proj):
    """Inline, in workers, in the background, nested: record, row, Resource and reindex name the same."""
    proj.resource('inner')(lambda ident, args, subdir: 1 / (ident != 'bad'))

    @proj.resource('outer')
    def outer(ident, args, subdir):
        return proj.fetch('inner', ident)['result']

    proj.fetch('inner', 'a')
    proj.fetch_many('outer', ['b', 'bad'], workers=1).wait()
    proj.fetch('outer', 'c', background=True).wait()
    [note] = notes_of(proj)
    rows = list(proj.query())

    assert len(rows) == 7
    assert {row.provenance for row in rows} == {note.stem}
    for row in rows:
        assert json.loads(Path(proj.path, row.path, 'record.json').read_text())['provenance'] == note.stem
    assert proj.check(deep=True).findings == []
    proj.reindex(fresh=True)
    assert {row.provenance for row in proj.query()} == {note.stem}

    told = proj.get('outer', 'b').provenance
    assert told == json.loads(note.read_text())
    assert (told['python'], told['hadrosaur']) == (sys.version.split()[0], hadrosaur.__version__)
    assert (told['argv'], told['pid'], told['host']) == (sys.argv, os.getpid(), os.uname().nodename)
    assert told['user']
    assert told['packages']['pytest'] == pytest.__version__
    assert set(told['git'] or {'commit': 1, 'branch': 1, 'dirty': 1}) == {'commit', 'branch', 'dirty'}


def test_the_first_fetch_waits_for_nothing_slow(proj, monkeypatch):
    """Git and versions come when the Project is closed, or with the first run after a second."""
    asked = []
    monkeypatch.setattr(provenance, '_git', lambda folder: asked.append(folder))
    proj.resource('coll')(lambda ident, args, subdir: 1)
    proj.fetch('coll', 'a')
    proj.fetch('coll', 'b')
    [note] = notes_of(proj)

    assert asked == []
    assert json.loads(note.read_text())['packages'] == {}
    proj.close()
    assert asked == [os.path.dirname(__file__)]
    assert 'pytest' in json.loads(note.read_text())['packages']
    proj.fetch('coll', 'c')
    proj.close()
    assert (len(asked), notes_of(proj)) == (1, [note])


def test_a_long_process_completes_its_note(proj, monkeypatch):
    """With the first run that begins a while after the first."""
    monkeypatch.setattr(provenance, 'SOON', -1.0)
    proj.resource('coll')(lambda ident, args, subdir: 1)
    proj.fetch('coll', 'a')
    assert json.loads(notes_of(proj)[0].read_text())['packages'] == {}
    proj.fetch('coll', 'b')
    assert json.loads(notes_of(proj)[0].read_text())['packages'] != {}


def test_who_computes_nothing_leaves_no_note(proj, base):
    """Serving what is there, looking, removing: no note is written."""
    proj.resource('coll')(lambda ident, args, subdir: 1)
    proj.fetch('coll', 'a')
    proj.close()
    notes_of(proj)[0].unlink()
    with Project(base) as other:
        other.resource('coll')(lambda ident, args, subdir: 1)
        assert other.fetch('coll', 'a')['result'] == 1
        assert other.get('coll', 'a').provenance is None
        assert len(other.query()) == 1
        other.remove('coll', 'a')
    assert notes_of(proj) == []


def test_what_a_function_will_import_is_told_too(proj, tmp_path, monkeypatch):
    """A package that only the function loads, also where its module is called otherwise than it."""
    for name, top in (('lazy', 'lazy'), ('other_name', 'mod')):
        folder = tmp_path / f'{name}-1.2.dist-info'
        folder.mkdir()
        (folder / 'RECORD').write_text(f'{top}/__init__.py,,\n')
    monkeypatch.syspath_prepend(tmp_path)

    @proj.resource('coll')
    def compute(ident, args, subdir):
        def inner():
            import mod.part

            return mod

        if ident != 'a':
            import lazy

            return lazy, inner()
        return 1

    packages = proj.fetch('coll', 'a').provenance['packages']
    assert (packages['lazy'], packages['other_name']) == ('1.2', '1.2')


def test_a_killed_process_leaves_what_was_known_at_once(program, tmp_path):
    """Its resources name a note that is there."""
    done = program(
        """
        import os, signal
        from hadrosaur import Project
        proj = Project('base')
        proj.resource('coll')(lambda ident, args, subdir: 1)
        proj.fetch('coll', 'a')
        os.kill(os.getpid(), signal.SIGKILL)
        """,
        check=False,
    )
    assert done.returncode == -signal.SIGKILL
    with Project(tmp_path / 'base', create=False) as proj:
        told = proj.get('coll', 'a').provenance
    assert told['argv'][0].endswith('program0.py')
    assert told['git'] is None


def test_a_program_that_just_ends_completes_its_note(program, tmp_path):
    """Without `close`; the commit is that of its own folder, and so is whether anything was changed since."""
    source = """
        from hadrosaur import Project
        proj = Project('base')
        proj.resource('coll')(lambda ident, args, subdir: 1)
        proj.fetch('coll', 'a', recompute=True)
        """
    git = ['git', '-c', 'user.name=a', '-c', 'user.email=a@b', '-C', tmp_path]
    subprocess.run([*git, 'init', '-q'], check=True)
    assert provenance._ask_git(str(tmp_path))['commit'] is None
    (tmp_path / 'data').write_text('one')
    subprocess.run([*git, 'add', 'data'], check=True)
    subprocess.run([*git, 'commit', '-q', '-m', 'one'], check=True)
    commit = subprocess.run([*git, 'rev-parse', 'HEAD'], capture_output=True, text=True).stdout.strip()
    told = []
    for text in ('one', 'two'):
        (tmp_path / 'data').write_text(text)
        program(source)
        with Project(tmp_path / 'base', create=False) as proj:
            told.append(proj.get('coll', 'a').provenance)
    assert [(each['git']['commit'], each['git']['dirty']) for each in told] == [
        (commit, False),
        (commit, True),
    ]
    shown = call('show', tmp_path / 'base', 'coll', 'a').stdout
    assert f'{commit}, and changes since' in shown
    assert 'program1.py' in shown
    document = json.loads(call('show', tmp_path / 'base', 'coll', 'a', '--json').stdout)
    assert document['program'] == told[1]
    assert document['provenance'] == proj.get('coll', 'a').entry.provenance


@pytest.mark.parametrize('kind', ['link', 'file'])
def test_what_stands_in_the_place_of_the_notes(proj, base, tmp_path, kind):
    """Nothing is written through a link; what is computed has no note, and that is all."""
    (base / '.hadrosaur').mkdir()
    (tmp_path / 'elsewhere').mkdir()
    place = base / '.hadrosaur/provenance'
    place.symlink_to(tmp_path / 'elsewhere') if kind == 'link' else place.write_text('')
    proj.resource('coll')(lambda ident, args, subdir: 1)
    resource = proj.fetch('coll', 'a')

    assert (resource.status, resource.entry.provenance, resource.provenance) == ('completed', None, None)
    assert os.listdir(tmp_path / 'elsewhere') == []


@pytest.mark.parametrize('digest', ['../../coll/a/record', '0' * 16, 7, None, 'x' * 16])
def test_a_name_that_was_written_by_hand_leads_nowhere(proj, digest):
    """Only a note of ours is read."""
    proj.resource('coll')(lambda ident, args, subdir: 1)
    proj.fetch('coll', 'a')
    path = Path(proj.path, 'coll/a/record.json')
    path.write_text(json.dumps({**json.loads(path.read_text()), 'provenance': digest}))
    assert proj.get('coll', 'a').provenance is None
    assert call('show', proj.path, 'coll', 'a').exit_code == 0


def test_an_interrupted_run_names_it_too(proj):
    """Who was cut off is known by the record that says begun."""
    proj.resource('coll')(lambda ident, args, subdir: 1)
    proj.fetch('coll', 'a')
    folder = Path(proj.path, 'coll/a')
    record = json.loads((folder / 'record.json').read_text())
    (folder / 'record.json').write_text(json.dumps({**record, 'state': 'begun'}))
    (folder / 'status.json').write_bytes(directory.STATUS_BYTES['pending'])
    cut_off = proj.get('coll', 'a')
    assert (cut_off.entry.error_type, cut_off.entry.provenance) == ('Interrupted', record['provenance'])


def test_an_upgraded_index_gets_the_names_with_reindex(proj):
    """The column is empty at first, and what stood in the others is still there."""
    proj.resource('coll')(lambda ident, args, subdir: 1)
    proj.fetch('coll', 'one')
    proj.close()
    index = Path(proj.path, 'index.sqlite3')
    index.unlink()
    load(next(dump for dump in DUMPS if dump.stem == '0005_history'), index)
    with Project(proj.path, create=False) as again:
        rows = again.sql(
            'SELECT ident, attempt, history IS NULL AS first, provenance FROM resources ORDER BY 1'
        )
        assert [tuple(row.values()) for row in rows] == [
            ('bad', 2, 0, None), ('one', 1, 1, None), ('two', 1, 1, None),
        ]  # fmt: skip
        assert again.index_revision() == (schema.HEAD, schema.HEAD)
        again.reindex(changed_only=True)
        [row] = again.query()
        assert row.provenance == notes_of(proj)[0].stem
