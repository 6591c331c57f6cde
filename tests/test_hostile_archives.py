"""What no export of ours holds is refused, and leaves the base, and all around it, as they were."""

import io
import json
import os
import tarfile
from pathlib import Path
from random import Random

import pytest
from test_cli_tools import call
from test_transfer import files

import hadrosaur
from hadrosaur import Project, canonical, directory
from hadrosaur.maintenance import archive, incoming

NOTHING = b''
GOOD = {
    'status.json': directory.STATUS_BYTES['completed'],
    'result.json': b'{"a": 1}\n',
    'record.json': b'{"format": 1, "collection": "coll", "ident": "one", "state": "completed", "run": "r"}\n',
    'stdout.log': b'hello\n',
    'storage/data': b'x' * 100,
}


def listed_of(contents, **changes):
    """The list of a resource, as `export` writes it."""
    rows = [
        {
            'path': path,
            'size': len(data),
            'sha256': directory.checksum(data),
            'mtime_ns': 10**18,
            'executable': False,
        }
        for path, data in contents.items()
    ]
    return {
        'format': 1, 'collection': 'coll', 'ident': 'one', 'folders': ['storage'], 'files': rows,
        'left_out': [], **changes,
    }  # fmt: skip


class Forged:
    """An archive that is written member by member."""

    def __init__(self):
        self.stream = io.BytesIO()
        self.tar = tarfile.TarFile(mode='w', fileobj=self.stream, format=tarfile.PAX_FORMAT)
        self.document(archive.ABOUT, {'format': 1})

    def add(self, name, data=None, **changes):
        member = tarfile.TarInfo(name)
        if data is None and 'type' not in changes:
            member.type = tarfile.DIRTYPE
        member.size = len(data or b'')
        for key, value in changes.items():
            setattr(member, key, value)
        self.tar.addfile(member, io.BytesIO(data) if data else None)

    def document(self, name, document):
        self.add(name, json.dumps(document).encode())

    def resource(self, contents=None, place='coll/one', changes=None, skip=()):
        contents = GOOD if contents is None else contents
        self.add(place)
        self.add(f'{place}/storage')
        for path, data in contents.items():
            self.add(f'{place}/{path}', data)
        if 'list' not in skip:
            self.document(f'{archive.OWN}/{place}.json', listed_of(contents, **(changes or {})))

    def done(self, count=1):
        self.document(archive.END, {'format': 1, 'resources': count})
        self.tar.close()
        self.stream.seek(0)
        return self.stream


def of_ident(ident, place=None, **more):
    """A resource that says it is of some ident, in a folder."""

    def forge(forged):
        record = json.dumps({'collection': 'coll', 'ident': ident}).encode()
        place_of = place or f'coll/{canonical.folder_name(ident)}'
        forged.resource({**GOOD, 'record.json': record}, place=place_of, changes={'ident': ident, **more})

    return forge


def member(name, data=None, **changes):
    """A good resource with one more member before its list."""

    def forge(forged):
        forged.resource(skip=['list'])
        forged.add(name, data, **changes)
        forged.document(f'{archive.OWN}/coll/one.json', listed_of(GOOD))

    return forge


def contents(**changed):
    """A good resource with other files, which its list tells of truly."""
    names = {name: key for key in changed for name in GOOD if name.replace('.', '_').replace('/', '_') == key}
    found = {**GOOD, **{name: changed[key] for name, key in names.items()}}
    found = {name: data for name, data in found.items() if data is not None}
    return lambda forged: forged.resource(found)


def false_list(**changes):
    return lambda forged: forged.resource(changes=changes)


def listed_stranger(forged):
    """A member of a type that nobody knows, which the list calls a file of the same contents."""
    forged.resource(skip=['list'])
    forged.add('coll/one/storage/x', b'hello', type=b'Z')
    forged.document(f'{archive.OWN}/coll/one.json', listed_of({**GOOD, 'storage/x': b'hello'}))


LINK = {'type': tarfile.SYMTYPE, 'linkname': '../../../outside'}
TRUE = listed_of(GOOD)['files']
HOSTILE = {
    'absolute': member('/tmp/hadrosaur-hostile', b'x'),
    'up': member('coll/../../outside/file', b'x'),
    'up at once': member('../outside/file', b'x'),
    'dot': member('coll/./one/file', b'x'),
    'empty part': member('coll//one/file', b'x'),
    'not in a collection': member('file', b'x'),
    'into the hidden folder': member('.hadrosaur/format.json', b'{"format": 99}'),
    'the index': member('index.sqlite3', b'x'),
    'in the place of the index': member('index.sqlite3/one', b'x'),
    'symlink': member('coll/one/storage/link', **LINK),
    'hard link': member('coll/one/storage/link', type=tarfile.LNKTYPE, linkname='coll/one/result.json'),
    'an unknown type that is listed': listed_stranger,
    'link in the place of storage': member('coll/one/other', **LINK),
    'fifo': member('coll/one/storage/fifo', type=tarfile.FIFOTYPE),
    'device': member('coll/one/storage/null', type=tarfile.CHRTYPE, devmajor=1, devminor=3),
    'block device': member('coll/one/storage/disk', type=tarfile.BLKTYPE),
    'unknown type': member('coll/one/storage/x', type=b'Z'),
    'sparse': member('coll/one/storage/x', b'x' * 512, type=tarfile.GNUTYPE_SPARSE),
    'the same file twice': member('coll/one/result.json', b'7\n'),
    'a folder twice': member('coll/one/storage'),
    'itself twice': member('coll/one'),
    'itself as a file': member('coll/one', b'x'),
    'a file below a file': member('coll/one/result.json/x', b'x'),
    'a folder in the place of a file': member('coll/one/result.json'),
    'a file without its folder': member('coll/one/storage/no/such/x', b'x'),
    'a lock': member('coll/one/.lock', b'x'),
    'a removal': member('coll/one/.removed', b'x'),
    'a file that is not listed': member('coll/one/storage/more', b'x'),
    'a folder that is not listed': member('coll/one/storage/more'),
    'another resource between': member('coll/two/status.json', GOOD['status.json']),
    'the list of another': lambda forged: (
        forged.resource(skip=['list']),
        forged.document(f'{archive.OWN}/coll/two.json', listed_of(GOOD, ident='two')),
    ),
    'a list without files': lambda forged: forged.document(f'{archive.OWN}/coll/one.json', listed_of(GOOD)),
    'no list': lambda forged: forged.resource(skip=['list']),
    'a list that is a folder': lambda forged: (
        forged.resource(skip=['list']), forged.add(f'{archive.OWN}/coll/one.json'),
    ),
    'another checksum': false_list(files=[{**TRUE[0], 'sha256': '0' * 64}, *TRUE[1:]]),
    'another size': false_list(files=[{**TRUE[0], 'size': 7}, *TRUE[1:]]),
    'a file missing in the list': false_list(files=TRUE[1:]),
    'a file twice in the list': false_list(files=[TRUE[0], *TRUE]),
    'a file that is missing': false_list(files=[*TRUE, {**TRUE[0], 'path': 'storage/no'}]),
    'times that are none': false_list(files=[{**TRUE[0], 'mtime_ns': 1 << 70}, *TRUE[1:]]),
    'times that are text': false_list(files=[{**TRUE[0], 'mtime_ns': 'now'}, *TRUE[1:]]),
    'files that are none': false_list(files='status.json'),
    'folders that are none': false_list(folders=7),
    'another ident': false_list(ident='two'),
    'another collection': false_list(collection='other'),
    'an ident that is a number': false_list(ident=1),
    'an ident that is none': false_list(ident=''),
    'an ident in the folder of another': of_ident('two', 'coll/one'),
    'a folder that is no name of ours': of_ident('a b', 'coll/a b'),
    'an older name of an ident': of_ident('a,b', 'coll/a%2Cb'),
    'a hidden collection': of_ident('one', '.git/one', collection='.git'),
    'the record of another': contents(record_json=b'{"collection": "coll", "ident": "two"}\n'),
    'the record of another collection': contents(record_json=b'{"collection": "other", "ident": "one"}\n'),
    'pending': contents(status_json=directory.STATUS_BYTES['pending']),
    'no status': contents(status_json=None),
    'a damaged status': contents(status_json=b'{}'),
    'a damaged result': contents(result_json=b'{"a": '),
    'no result': contents(result_json=None),
    'one resource twice': lambda forged: (forged.resource(), forged.resource()),
    'two folders of one ident': lambda forged: (
        of_ident('a,b')(forged), of_ident('a,b', 'coll/a%2Cb')(forged),
    ),
}  # fmt: skip


def base_in(path):
    """A base with one resource, and something beside it that nobody may touch."""
    (path / 'outside').mkdir()
    (path / 'outside/file').write_text('mine')
    with Project(path / 'base') as proj:
        proj.resource('coll')(lambda ident, args, subdir: ident)
        proj.fetch('coll', 'mine')
        proj.query()[0]
        yield proj


@pytest.fixture
def here(tmp_path):
    """Such a base, to bring something into."""
    yield from base_in(tmp_path)


@pytest.fixture(scope='module')
def untouched(tmp_path_factory):
    """One that all tests which bring nothing into it share."""
    yield from base_in(tmp_path_factory.mktemp('untouched'))


def state(proj, tmp_path):
    found = files(tmp_path)
    hidden = {path.relative_to(proj.path) for path in Path(proj.path, '.hadrosaur').rglob('*')}
    skipped = {'sessions', 'provenance', 'incoming'}
    known = {path for path in hidden if not skipped & set(path.parts)}
    return {
        name: what for name, what in found.items() if '.sqlite3' not in name and '/.hadrosaur/' not in name
    }, known


@pytest.mark.parametrize('seekable', [True, False], ids=['file', 'pipe'])
@pytest.mark.parametrize('kind', HOSTILE)
def test_what_is_hostile_is_refused(untouched, kind, seekable):
    """In a file that is checked first, and in a pipe that cannot be: nothing of it comes in."""
    here, tmp_path = untouched, Path(untouched.path).parent
    before = state(here, tmp_path)
    forged = Forged()
    HOSTILE[kind](forged)
    stream = forged.done()
    given = stream if seekable else Unseekable(stream)
    with pytest.raises(hadrosaur.BadArchive):
        here.import_(given, on_conflict='skip')

    assert state(here, tmp_path) == before
    assert not os.path.exists('/tmp/hadrosaur-hostile')
    assert os.listdir(f'{here.path}/.hadrosaur/incoming') == []
    assert [entry.ident for entry in here.query()] == ['mine']
    assert here.check(deep=True).findings == []


class Unseekable(io.RawIOBase):
    def __init__(self, stream):
        self._stream = stream

    def readable(self):
        return True

    def read(self, size=-1):
        return self._stream.read(size)


def test_the_forged_archive_itself_is_good(here):
    """What the hostile ones are made of comes in."""
    forged = Forged()
    forged.resource()
    of_ident('a,b')(forged)
    of_ident('x' * 300)(forged)
    assert here.import_(forged.done(3)).resources == 3
    assert here.get('coll', 'one').result == {'a': 1}
    assert here.check(deep=True).findings == []


@pytest.mark.parametrize('seed', range(3))
def test_a_flipped_byte_is_noticed_or_harmless(tmp_path, seed):
    """Anywhere in an archive: it is refused and nothing comes in, or what comes in is what went out."""
    forged = Forged()
    forged.resource()
    good = forged.done().getvalue().rstrip(b'\0')
    good += bytes(-len(good) % 512 + 1024)
    random, refused = Random(seed), 0
    with Project(tmp_path / 'base') as proj:
        for _ in range(40):
            data = bytearray(good)
            data[random.randrange(len(good) - 1024)] ^= 1 << random.randrange(8)
            try:
                proj.import_(io.BytesIO(data))
            except hadrosaur.BadArchive:
                refused += 1
                assert not (tmp_path / 'base/coll/one').exists()
                continue
            for name, what in GOOD.items():
                assert (tmp_path / 'base/coll/one' / name).read_bytes() == what
            proj.remove('coll', 'one')
    assert refused > 10


@pytest.mark.parametrize('end', [1, 512, 700, 4096, 10_000, -1024, -513])
def test_an_archive_that_was_cut_off_is_said_to_be(here, tmp_path, end):
    """Wherever it ends; a first resource that is whole does not come in by a file either."""
    forged = Forged()
    forged.resource()
    of_ident('two')(forged)
    data = forged.done(2).getvalue().rstrip(b'\0')
    data += bytes(-len(data) % 512)
    with pytest.raises(hadrosaur.BadArchive):
        here.import_(io.BytesIO(data[:end]))
    assert not here.exists('coll', 'one')


@pytest.mark.parametrize('text', [b'', b'no tar at all', bytes(10_240), b'\x1f\x8b' + bytes(100)])
@pytest.mark.parametrize('end', ['.tar', '.tar.gz', '.tar.xz', '.tar.bz2', '.tar.zst'])
def test_what_is_no_archive_is_refused(here, tmp_path, text, end):
    """Whatever its name says; and on the command line in one sentence."""
    path = tmp_path / f'it{end}'
    path.write_bytes(text)
    with pytest.raises(hadrosaur.BadArchive):
        here.import_(path)
    done = call('import', here.path, path)
    assert (done.exit_code, 'Traceback' in done.stderr) == (5, False)


def test_more_than_there_is_room_for_is_refused(here, monkeypatch):
    """By what the members say, before their bytes are read; and what is too much for the free space."""
    forged = Forged()
    forged.add('coll/one')
    huge = tarfile.TarInfo('coll/one/huge')
    huge.size = 1 << 60
    forged.tar.fileobj.write(huge.tobuf(tarfile.PAX_FORMAT))
    forged.stream.seek(0)
    with pytest.raises(hadrosaur.BadArchive, match='room'):
        here.import_(forged.stream)
    forged.stream.seek(0)
    with pytest.raises(OSError, match='free'):
        here.import_(Unseekable(forged.stream))

    monkeypatch.setattr(incoming, 'free_space', lambda folder: (50, 1 << 40))
    monkeypatch.setattr('hadrosaur.maintenance.transfer.free_space', lambda folder: (50, 1 << 40))
    forged = Forged()
    forged.resource()
    with pytest.raises(hadrosaur.BaseUnusable, match='50 B are free'):
        here.import_(forged.done())
    assert [entry.ident for entry in here.query()] == ['mine']


def test_a_long_header_is_not_read_into_memory(here):
    """A name of a gigabyte, which packs into a few kB."""
    forged = Forged()
    long = tarfile.TarInfo('x')
    long.type, long.size = tarfile.XHDTYPE, 1 << 30
    forged.tar.fileobj.write(long.tobuf(tarfile.USTAR_FORMAT))
    forged.stream.seek(0)
    with pytest.raises(hadrosaur.BadArchive, match='header'):
        here.import_(forged.stream)


def test_a_link_in_the_place_of_a_collection_leads_nowhere(here, tmp_path):
    """Nothing is built or placed through it, nor through one in the place of the folder that we build in."""
    forged = Forged()
    of_ident('one', 'linked/one', collection='linked')(forged)
    stream = forged.done()
    Path(here.path, 'linked').symlink_to(tmp_path / 'outside')
    with pytest.raises((hadrosaur.HadrosaurError, OSError)):
        here.import_(stream)
    assert os.listdir(tmp_path / 'outside') == ['file']
    Path(here.path, '.hadrosaur/incoming').rmdir()
    Path(here.path, '.hadrosaur/incoming').symlink_to(tmp_path / 'outside')
    with pytest.raises(hadrosaur.BaseUnusable):
        here.import_(Forged().done(0))
    assert os.listdir(tmp_path / 'outside') == ['file']
