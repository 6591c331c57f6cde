"""Resources travel from base to base whole: export, import, merge, backup, and what is in their way."""

import io
import json
import os
import shutil
import tarfile
from pathlib import Path

import pytest
from test_cli_tools import call

import hadrosaur
from hadrosaur import Project, directory
from hadrosaur.directory.claim import Claim
from hadrosaur.maintenance import parcels, transfer

LONG = 'x' * 300
ODD = ['plain', 'a/b', '../up', 'é,1', LONG, '-rf']
EXCEPT = {'changed', 'session', 'seen_mtime_ns'}


def fill(path, *more, word='first'):
    """A project with resources of all kinds: odd idents, failed, with storage, attempts and a hand copy."""
    with Project(path) as proj:

        @proj.resource('coll', keep_attempts=1)
        def compute(ident, args, subdir):
            print(ident, word)
            Path(subdir, 'deep/er').mkdir(parents=True)
            Path(subdir, 'empty').mkdir()
            Path(subdir, 'deep/er/data').write_bytes(os.urandom(3000))
            Path(os.fsdecode(os.fsencode(subdir) + b'/no\xfftext\n')).write_text(ident)
            Path(subdir, 'run.sh').write_text('#!/bin/sh\n')
            Path(subdir, 'run.sh').chmod(0o755)
            if ident == 'bad':
                raise ValueError(word)
            return {'ident': ident, 'word': word, **args}

        for ident in (*ODD, 'bad', *more):
            proj.fetch('coll', ident, {'n': 1})
        proj.fetch('coll', 'plain', recompute=True)
        proj.resource('other coll')(lambda ident, args, subdir: proj.fetch('coll', 'plain') and None)
        proj.fetch('other coll', 'nothing')
        [used] = proj.sql('SELECT * FROM uses')
        assert used['used_ident'] == 'plain'
    return Path(path)


@pytest.fixture(scope='module')
def full(tmp_path_factory):
    """Such a project, with a folder that was copied by hand; nobody changes it."""
    path = fill(tmp_path_factory.mktemp('transfer') / 'full')
    shutil.copytree(path / 'coll/plain', path / 'coll/copied')
    with Project(path) as proj:
        proj.reindex()
    return path


@pytest.fixture(scope='module')
def archive(full):
    """All of it, in a tar."""
    with Project(full, create=False) as proj:
        report = proj.export(full.parent / 'all.tar')
    assert (report.resources, report.left_out) == (len(ODD) + 3, ())
    return full.parent / 'all.tar'


def rows(path):
    """All rows as they are asked for, but for what is of one base alone."""
    with Project(path, create=False) as proj:
        assert proj.check(deep=True).findings == []
        return [
            {name: row.raw(name) for name in hadrosaur.records.COLUMNS if name not in EXCEPT}
            for row in proj.query(order_by='ident')
        ]


def files(path):
    """Everything in the resources of a base, but for what is of one base alone."""
    return {
        str(file.relative_to(path)): (file.read_bytes() if file.is_file() else None, file.stat().st_mode)
        for file in Path(path).rglob('*')
        if not str(file.relative_to(path)).startswith(('.hadrosaur', 'index.')) and file.name != '.lock'
    }


def without_records(found):
    return {name: what for name, what in found.items() if not name.endswith('copied/record.json')}


@pytest.mark.parametrize('end', ['.tar', '.tar.gz', '.tar.zst', '.tgz', '.tar.xz'])
def test_what_was_exported_comes_in_equal(full, tmp_path, end, monkeypatch):
    """Files, modes, rows and provenance, into a base that was not there, by each kind of file."""
    if end == '.tar.zst':
        pytest.importorskip('backports.zstd' if os.sys.version_info < (3, 14) else 'compression.zstd')
    with Project(full, create=False) as proj:
        out = proj.export(tmp_path / f'all{end}')
        told = proj.get('coll', 'plain').provenance
        used = proj.sql('SELECT * FROM uses')
    (tmp_path / f'all{end}').rename(tmp_path / 'any.name')
    with Project(tmp_path / 'new') as new:
        report = new.import_(tmp_path / 'any.name')
        assert (report.resources, report.same) == (out.resources, 0)
        assert new.get('coll', 'plain').provenance == told
        assert new.sql('SELECT * FROM uses') == used
        packed, real = [], parcels.pack
        monkeypatch.setattr(
            parcels, 'pack', lambda origin, to: packed.append(origin.ident) or real(origin, to)
        )
        again = new.import_(tmp_path / 'any.name')
        assert len(packed) == len(set(packed)) == out.resources  # each is read once
        assert (again.resources, again.same) == (0, out.resources)

    assert without_records(files(tmp_path / 'new')) == without_records(files(full))
    assert rows(tmp_path / 'new') == rows(full)
    record = json.loads((tmp_path / 'new/coll/copied/record.json').read_text())
    assert record['ident'] == 'copied'
    assert list((tmp_path / 'new/.hadrosaur/incoming').iterdir()) == []


def test_what_an_older_release_or_a_hand_made_travels_too(tmp_path):
    """Without record.json, under a raw name, or renamed though its folder is named by a digest."""
    old = tmp_path / 'old/coll'
    for name in ('a b', 'plain'):
        (old / name / 'storage').mkdir(parents=True)
        (old / name / 'result.json').write_text('{"by": "hand"}\n')
        (old / name / 'status.json').write_bytes(directory.STATUS_BYTES['completed'])
        os.utime(old / name / 'status.json', ns=(10**18, 10**18))
        os.utime(old / name / 'result.json', (-5, -5))
    call('reindex', tmp_path / 'old')
    with Project(tmp_path / 'old', create=False) as proj:
        assert proj.export(tmp_path / 'old.tar').left_out == ()
    with Project(tmp_path / 'new') as new:
        new.resource('coll')(lambda ident, args, subdir: 'mine')
        new.fetch_many('coll', ['plain', LONG], executor='inline').wait()
        assert new.import_(tmp_path / 'old.tar', on_conflict='rename').renamed == (
            ('coll', 'plain', 'plain-2'),
        )
        fill(tmp_path / 'long')
        new.merge(tmp_path / 'long', 'coll', on_conflict='rename')
        assert new.get('coll', 'a b').result == new.get('coll', 'plain-2').result == {'by': 'hand'}
        assert new.get('coll', 'a b').finished_at.year == 2001
        assert new.get('coll', f'{LONG}-2').result['ident'] == LONG
        assert new.get('coll', LONG).result == 'mine'
        assert new.check(deep=True).findings == []


def test_an_export_unpacked_by_hand_is_a_base(archive, full, tmp_path):
    """`tar xf` and `hadrosaur reindex` do without us."""
    with tarfile.open(archive) as tar:
        tar.extractall(tmp_path / 'by-hand', filter='data')
    call('reindex', tmp_path / 'by-hand')
    assert [row['ident'] for row in rows(tmp_path / 'by-hand')] == [row['ident'] for row in rows(full)]


def test_filters_choose_what_is_exported(full, tmp_path):
    """Those of a query; a collection; a stream."""
    with Project(full, create=False) as proj:
        assert proj.export(tmp_path / 'bad.tar', status='error').resources == 1
        assert proj.export(tmp_path / 'other.tar', 'other coll').resources == 1
        stream = io.BytesIO()
        assert proj.export(stream, 'coll', ident='p*', result={'word': 'first'}).resources == 1
        with pytest.raises(hadrosaur.UnknownCollection):
            proj.export(tmp_path / 'none.tar', 'nowhere')
        with pytest.raises(hadrosaur.BadArchive, match='is there already'):
            proj.export(tmp_path / 'bad.tar')
        proj.export(tmp_path / 'bad.tar', overwrite=True, ident='plain')
    assert sorted(os.listdir(tmp_path)) == ['bad.tar', 'other.tar']
    stream.seek(0)
    with Project(tmp_path / 'new') as new:
        new.import_(stream)
        assert [entry.ident for entry in new.query()] == ['plain']


@pytest.fixture
def meeting(full, tmp_path):
    """A base in which `plain` and `bad` are others, and `a/b` is the same."""
    path = tmp_path / 'meeting'
    with Project(path) as proj:
        proj.resource('coll')(lambda ident, args, subdir: 'mine')
        proj.fetch_many('coll', ['plain', 'bad', 'mine'], executor='inline').wait()
        proj.export(tmp_path / 'mine.tar')
    with Project(full, create=False) as source:
        source.export(tmp_path / 'some.tar', 'coll', ident=['plain', 'bad', 'a/b', '-rf'])
        source.export(tmp_path / 'same.tar', 'coll', ident='a/b')
    with Project(path, create=False) as proj:
        proj.import_(tmp_path / 'same.tar')
    return path


def bring(path, tmp_path, full, way, **more):
    """By a file, a stream that cannot be read twice, or from base to base."""
    with Project(path, create=False) as proj:
        if way == 'merge':
            some = tmp_path / 'some'
            with Project(some) as between:
                between.import_(tmp_path / 'some.tar')
            return proj.merge(some, **more)
        if way == 'file':
            return proj.import_(tmp_path / 'some.tar', **more)
        reading, writing = os.pipe()
        with open(writing, 'wb') as out:
            out.write((tmp_path / 'some.tar').read_bytes()[:60_000])
        with open(reading, 'rb') as stream:
            return proj.import_(stream, **more)


@pytest.mark.parametrize('way', ['file', 'merge'])
def test_conflicts_are_named_and_nothing_comes_in(meeting, full, tmp_path, way):
    """`refuse` changes nothing; what is the same is no conflict."""
    before = files(meeting)
    with pytest.raises(hadrosaur.TransferConflict) as caught:
        bring(meeting, tmp_path, full, way)
    assert 'coll/plain' in str(caught.value)
    assert 'coll/bad' in str(caught.value)
    assert 'a/b' not in str(caught.value)
    assert files(meeting) == before


@pytest.mark.parametrize('way', ['file', 'merge'])
def test_conflicts_are_skipped(meeting, full, tmp_path, way):
    """What is here stays; the rest comes in."""
    report = bring(meeting, tmp_path, full, way, on_conflict='skip')
    assert (report.resources, report.same, set(report.skipped)) == (
        1,
        1,
        {('coll', 'plain'), ('coll', 'bad')},
    )
    with Project(meeting, create=False) as proj:
        assert proj.get('coll', 'plain').result == proj.get('coll', 'bad').result == 'mine'
        assert proj.get('coll', '-rf').result['word'] == 'first'


@pytest.mark.parametrize('way', ['file', 'merge'])
def test_conflicts_are_renamed(meeting, full, tmp_path, way):
    """Both stay, once however often it is begun again; records tell the new ident."""
    report = bring(meeting, tmp_path, full, way, on_conflict='rename')
    assert set(report.renamed) == {('coll', 'plain', 'plain-2'), ('coll', 'bad', 'bad-2')}
    shutil.rmtree(tmp_path / 'some', ignore_errors=True)
    again = bring(meeting, tmp_path, full, way, on_conflict='rename')
    assert (again.resources, again.same, again.renamed) == (0, 4, ())
    found = {row['ident']: row for row in rows(meeting)}
    assert set(found) == {'plain', 'plain-2', 'bad', 'bad-2', 'mine', 'a/b', '-rf'}
    assert found['bad-2']['error'] == 'first'
    with Project(meeting, create=False) as proj:
        assert proj.get('coll', 'plain').result == 'mine'
        assert proj.get('coll', 'plain-2').result['ident'] == 'plain'


@pytest.mark.parametrize('way', ['file', 'merge'])
def test_conflicts_are_replaced(meeting, full, tmp_path, way):
    """What comes takes the place of what is here."""
    report = bring(meeting, tmp_path, full, way, on_conflict='replace')
    assert (report.resources, report.same) == (3, 1)
    found = {row['ident']: row for row in rows(meeting)}
    assert found['bad']['status'] == 'error'
    assert json.loads(found['plain']['result'])['word'] == 'first'
    with (
        Project(meeting, create=False) as proj,
        pytest.raises(ValueError, match='on_conflict must be one of'),
    ):
        proj.import_(tmp_path / 'some.tar', on_conflict='overwrite')


def test_what_is_computed_is_a_conflict(full, archive, tmp_path):
    """A resource that somebody holds is left alone, and so is a folder that is no resource of ours."""
    (tmp_path / 'base/coll/plain').mkdir(parents=True)
    (tmp_path / 'base/coll/bad').mkdir()
    (tmp_path / 'base/coll/bad/notes.txt').write_text('mine')
    claim = Claim.take(str(tmp_path / 'base/coll'), 'plain', make=False)
    try:
        with Project(tmp_path / 'base') as proj:
            report = proj.import_(archive, on_conflict='skip')
            assert set(report.skipped) == {('coll', 'plain'), ('coll', 'bad')}
    finally:
        claim.release()
    assert (tmp_path / 'base/coll/bad/notes.txt').read_text() == 'mine'
    with Project(tmp_path / 'base') as proj:
        assert proj.import_(archive, on_conflict='skip').resources == 1
        assert proj.get('coll', 'plain').result['ident'] == 'plain'


class Pipe(io.BytesIO):
    """What can be read once."""

    def seekable(self):
        return False


@pytest.mark.parametrize('way', ['cut', 'conflict'])
def test_what_has_come_in_from_a_pipe_is_told(tmp_path, monkeypatch, way):
    """A pipe cannot be checked before: the error says how many are in, and a second time brings the rest."""
    monkeypatch.setattr(transfer, 'GROUP', 2)
    with Project(fill(tmp_path / 'base')) as proj, Project(tmp_path / 'new') as new:
        file = io.BytesIO()
        proj.export(file)
        if way == 'conflict':
            new.resource('other coll')(lambda ident, args, subdir: 'mine')
            new.fetch('other coll', 'nothing')
        data = file.getvalue()
        with pytest.raises(hadrosaur.HadrosaurError) as raised:
            new.import_(Pipe(data if way == 'conflict' else data[: data.rindex(b'.hadrosaur-export/end')]))
        count = len(new.query()) - (way == 'conflict')
        assert count
        assert f'{count} that came before it are in' in raised.value.hint
        assert new.import_(Pipe(data), on_conflict='skip').same == count


@pytest.mark.parametrize('verb', ['export', 'import_'])
def test_what_is_no_file_is_refused(tmp_path, verb):
    """A sentence that names it."""
    with (
        Project(tmp_path / 'base') as proj,
        pytest.raises(TypeError, match='a binary stream, not 5'),
    ):
        getattr(proj, verb)(5)


def test_what_is_pending_is_left_out(tmp_path):
    """It is counted; links in a storage are named; what is recomputed while it is read is read again."""
    path = fill(tmp_path / 'base')
    (path / 'coll/plain/storage/link').symlink_to('/etc/passwd')
    (path / 'coll/bad/status.json').write_bytes(directory.STATUS_BYTES['pending'])
    (path / 'coll/a%2Fb/result.json').write_text('{"torn')
    claim = Claim.take(str(path / 'coll'), 'bad', make=False)
    with Project(path, create=False) as proj:
        report = proj.export(tmp_path / 'all.tar')
        copied = proj.backup(tmp_path / 'copy')
        (path / 'coll/plain/storage/link').unlink()
        shutil.rmtree(path / 'coll/a%2Fb')
        assert call('backup', path, tmp_path / 'second').exit_code == 0
    claim.release()
    assert report.resources == copied.resources == len(ODD)
    assert report.pending == copied.pending == 1
    assert sorted(report.left_out) == sorted(copied.left_out)
    assert len(report.left_out) == 2
    assert any('plain: storage/link' in sentence for sentence in report.left_out)
    assert any('a%2Fb' in sentence and 'damaged' in sentence for sentence in report.left_out)
    with tarfile.open(tmp_path / 'all.tar') as tar:
        assert not any(member.issym() for member in tar)


@pytest.mark.parametrize('times', [1, 3, 9])
def test_a_resource_that_is_computed_anew_is_never_torn(tmp_path, monkeypatch, times):
    """Read again, and what was written of it does not count; given up where it never stands still."""
    path = fill(tmp_path / 'base')
    proj = Project(path)
    proj.resource('coll')(lambda ident, args, subdir: len(runs))
    runs, real = [], parcels._carry_file

    def meddling(carrier, listed, name, *more):
        real(carrier, listed, name, *more)
        if name == 'result.json' and listed['ident'] == 'plain' and len(runs) < times:
            runs.append(proj.fetch('coll', 'plain', recompute=True).result)

    monkeypatch.setattr(parcels, '_carry_file', meddling)
    report = proj.export(tmp_path / 'all.tar', 'coll')
    proj.close()
    is_given_up = times > parcels.TRIES
    assert len(report.left_out) == is_given_up
    with Project(tmp_path / 'new') as new:
        assert new.import_(tmp_path / 'all.tar').resources == len(ODD) + 1 - is_given_up
        if not is_given_up:
            assert new.get('coll', 'plain').result == times - 1
            assert new.check(deep=True).findings == []


def test_a_backup_copies_what_has_changed(tmp_path, monkeypatch):
    """The second time only that is read; what is computed stays as it was; it is a base of its own."""
    packed, real = [], parcels.pack
    monkeypatch.setattr(parcels, 'pack', lambda origin, to: packed.append(origin.ident) or real(origin, to))
    path = fill(tmp_path / 'base')
    with Project(path) as proj:
        proj.resource('coll')(lambda ident, args, subdir: 'second')
        proj.resource('new', columns={'score': 'result.score'})(lambda ident, args, subdir: {'score': 2})
        total = len(ODD) + 2
        assert proj.backup(tmp_path / 'copy').resources == total
        assert rows(tmp_path / 'copy') == rows(path)
        proj.fetch('coll', 'plain', recompute=True)
        proj.fetch('new', 'one')
        proj.remove('coll', '-rf')
        claim = Claim.take(str(path / 'coll'), 'bad', make=False)
        (path / 'coll/bad/status.json').write_bytes(directory.STATUS_BYTES['pending'])
        packed.clear()
        report = proj.backup(tmp_path / 'copy')
        assert set(packed) == {'plain', 'one', 'bad'}
        claim.release()
        assert (report.resources, report.same, report.pending) == (2, total - 3, 1)
    with Project(tmp_path / 'copy', create=False) as copy:
        assert copy.get('coll', 'plain').result == 'second'
        assert copy.get('coll', 'bad').status == 'error'
        assert copy.get('coll', '-rf').result['word'] == 'first'
        assert copy.query('new', order_by='-score')[0].ident == 'one'
        assert copy.check(deep=True).findings == []


@pytest.mark.parametrize('kind', ['full', 'other', 'self', 'inside', 'around'])
def test_a_backup_goes_into_a_folder_of_its_own(tmp_path, kind):
    """What is no backup of this base is left as it is."""
    with Project(tmp_path / 'b/base') as proj:
        proj.resource('coll')(lambda ident, args, subdir: 1)
        proj.fetch('coll', 'a')
        (tmp_path / 'full').mkdir()
        (tmp_path / 'full/file').write_text('mine')
        Project(tmp_path / 'source').backup(tmp_path / 'other')
        places = {'self': 'b/base', 'inside': 'b/base/coll/x', 'around': 'b'}
        before = files(tmp_path)
        with pytest.raises(hadrosaur.TransferFault):
            proj.backup(tmp_path / places.get(kind, kind))
        assert files(tmp_path) == before


def test_a_backup_is_of_one_base_and_not_of_a_path(tmp_path):
    """Another base at the same path does not replace what was saved; a base restored by copying goes on."""
    fill(tmp_path / 'base')
    with Project(tmp_path / 'base') as proj:
        proj.backup(tmp_path / 'copy')
    (tmp_path / 'base').rename(tmp_path / 'moved')
    other = Project(fill(tmp_path / 'base', word='other'))
    with other, pytest.raises(hadrosaur.TransferFault, match='no backup of'):
        other.backup(tmp_path / 'copy')
    with Project(tmp_path / 'copy', create=False) as copy:
        assert copy.get('coll', 'plain').result['word'] == 'first'
    shutil.copytree(tmp_path / 'copy', tmp_path / 'restored')
    for name in ('moved', 'restored'):
        with Project(tmp_path / name) as proj:
            assert proj.backup(tmp_path / 'copy').resources == 0


def test_the_commands(full, tmp_path):
    """Each says what came of it; misuse and conflicts are said in a sentence."""
    tar = tmp_path / 'all.tar.gz'
    assert f'{len(ODD) + 3} resources written' in call('export', full, tar).stderr
    assert call('export', full, tar).exit_code == 5
    some = call('export', full, tar, 'coll', '--ident', 'p*', '--status', 'completed', '--force', '--json')
    assert json.loads(some.stdout)['resources'] == 1
    assert json.loads(call('import', tmp_path / 'new', tar, '--json').stdout)['resources'] == 1
    merged = call('merge', tmp_path / 'new', full, 'coll')
    assert f'{len(ODD) + 1} resources brought in, 1 there already' in merged.stderr
    piped = call('import', tmp_path / 'piped', '-', '--json', input=tar.read_bytes())
    assert json.loads(piped.stdout)['resources'] == 1
    other = fill(tmp_path / 'other', word='second')
    refused = call('merge', tmp_path / 'new', other)
    assert (refused.exit_code, 'coll/plain' in refused.stderr) == (4, True)
    assert '--on-conflict' in refused.stderr
    skipped = call('merge', tmp_path / 'new', other, '--on-conflict', 'skip')
    assert 'skipped: coll/plain' in skipped.stderr
    assert call('backup', other, tmp_path / 'copy').exit_code == 0
    assert call('backup', full, tmp_path / 'copy').exit_code == 2
    assert call('import', tmp_path / 'new', tmp_path / 'nowhere.tar').exit_code == 2
    assert call('merge', tmp_path / 'new', tmp_path / 'nowhere').exit_code == 3
    (tmp_path / 'home').mkdir()
    (tmp_path / 'home/file').write_text('mine')
    assert call('import', tmp_path / 'home', tar).exit_code == 3
    assert os.listdir(tmp_path / 'home') == ['file']
    assert call('export', tmp_path / 'nowhere', tmp_path / 'x.tar').exit_code == 3
    assert call('export', full, tmp_path / 'x.tar', '--order-by', 'nonsense').exit_code == 2
    assert "there is no folder '" in call('export', full, tmp_path / 'nowhere/x.tar').stderr
    assert not (tmp_path / 'x.tar').exists()
