"""Whatever befalls the directories, reindex makes from them alone an index that equals the live one.

A machine does to one project all that its users, their editors and their crashes might do, in any order,
and keeps only two records of its own: what a fetch has given back, and which folders were touched by hand.
With HADROSAUR_TORTURE=1 it takes longer, and other ways every time.
"""

import json
import os
import random
import shutil
import signal
import sys
import tempfile
import traceback
import warnings
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, rule

from hadrosaur import HadrosaurWarning, Project, canonical
from hadrosaur.canonical import folder_name
from hadrosaur.errors import ResourceNotFound

pytestmark = pytest.mark.filterwarnings('ignore::hadrosaur.HadrosaurWarning')

TORTURE = bool(os.environ.get('HADROSAUR_TORTURE'))
EXAMPLES, STEPS = (500, 50) if TORTURE else (16, 30)
EXAMPLES = int(os.environ.get('HADROSAUR_COUNT', EXAMPLES)) if TORTURE else EXAMPLES

LONG = 'long' * 60  # its folder is named by a digest
KEYS = [('coll', 'a'), ('coll', 'b'), ('coll', 'x/y'), ('coll', LONG), ('outer', 'a'), ('outer', 'o')]
INNER = 'a'  # what those of 'outer' fetch themselves

ARGS = [None, {}, {'n': 1.0, 'é"': [None, True]}, {'fails': True}, {'nan': True}, {'number': True}]
DOCUMENTS = {
    word: json.dumps({name: name == word for name in ('completed', 'pending', 'error')})
    for word in ('completed', 'pending', 'error')
}
STATUSES = [
    *(text + '\n' for text in DOCUMENTS.values()),
    DOCUMENTS['error'],
    json.dumps(json.loads(DOCUMENTS['completed']), indent=4),
    '',
    '{"completed": true, "pending": true, "error": false}\n',
    '{"completed": 1, "pending": 0, "error": 0}\n',
    '\0' * 54,
    DOCUMENTS['completed'][:20],
]
RESULTS = ['{"by": "hand"}\n', '{"by": "hand"}', '12', '12\n', '"\\ud800"\n', '', '[1, 2', '\0\0', '[' * 9000]
ERROR_LOGS = [b'', b'a: b: c', b'ValueError: \xff\0\n\n', b'no colon\r\n', 'É.é: é'.encode(), b'\n' * 50]
FILES = ['status.json', 'result.json', 'record.json', 'error.log']
FIELDS = ['state', 'collection', 'ident', 'run', 'args_hash', 'attempt', 'queued_at', 'started_at',
          'finished_at', 'duration', 'error_type', 'error', 'error_group', 'host', 'pid', 'cpu_seconds',
          'max_rss', 'version', 'capture', 'result_size', 'result_sha256', 'error_frame', 'args']  # fmt: skip
VALUES = [
    1 << 70,
    float('nan'),
    '\ud800',
    'yesterday',
    None,
    True,
    -1,
    3,
    1.5,
    '',
    'A',
    'begun',
    'queued',
    'completed',
    'error',
    'É\0"',
    [],
    {},
    {'n': 2},
]
ENDS = [('',), ('-wal',), ('-shm',), ('-wal', '-shm'), ('', '-wal'), ('', '-wal', '-shm')]

keys = st.sampled_from(KEYS)
picks = st.integers(0, 5)  # of the folders that are there
thens = st.sampled_from(['agree', 'mend', 'fetch', 'get', 'recompute', 'nothing'])  # right after an edit
WRITES = ('pwrite', 'ftruncate', 'replace', 'rename', 'unlink', 'mkdir', 'rmdir', 'open')


def die():
    os.kill(os.getpid(), signal.SIGKILL)


def die_at(number):
    """From now on this process is killed before it changes the disk for that many-th time."""
    left = [number]

    def counting(name, call):
        def counted(*args, **more):
            if name != 'open' or args[1] & (os.O_CREAT | os.O_TRUNC):
                left[0] -= 1
                if not left[0]:
                    die()
            return call(*args, **more)

        return counted

    for name in WRITES:
        setattr(os, name, counting(name, getattr(os, name)))


def parsed(path):
    """[the value in a file of ours], or [] where it does not parse or may be torn."""
    try:
        text = path.read_bytes().decode()
        value = json.loads(text)
    except (OSError, ValueError, RecursionError):
        return []
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    return [] if is_number and not text.endswith('\n') else [value]


def status_word(folder):
    """What status.json says, if that is exactly one of the three things that it may say."""
    status = parsed(folder / 'status.json')
    for word, text in DOCUMENTS.items():
        wanted = json.loads(text)
        # repr, since 1 equals True
        if status == [wanted] and all(repr(status[0][name]) == repr(wanted[name]) for name in wanted):
            return word
    return 'damaged'


def rows(project):
    """All rows, every public column, each as an attribute too: what is kept must also be readable."""
    found = {}
    for entry in project.query(order_by='ident'):
        assert (entry.collection, entry.ident) not in found
        found[entry.collection, entry.ident] = dict(entry) and entry.as_json()
    return found


def differences(one, other):
    """Of two sets of rows, for the message: by key, the cells that differ."""
    found = {}
    for key in one.keys() | other.keys():
        here, there = one.get(key, {}), other.get(key, {})
        cells = {name: (here.get(name), there.get(name)) for name in {*here, *there}}
        found[key] = {name: pair for name, pair in cells.items() if pair[0] != pair[1]}
    return {key: cells for key, cells in found.items() if cells}


def torn(record):
    """Is it known by its hash that the args are another record's? Such a record tells nothing."""
    args, known = record.get('args'), record.get('args_hash')
    is_told = isinstance(args, dict) and isinstance(known, str)
    return is_told and known != canonical.args_hash(canonical.args_json(args))


class Life(RuleBasedStateMachine):
    """One project and everything that may happen to it."""

    def __init__(self):
        super().__init__()
        self.root = Path(tempfile.mkdtemp(prefix='hadrosaur-life-'))
        self.base = self.root / 'base'
        self.ran = []  # keys whose function was called in this process
        self.given = {}  # what a fetch gave back as completed, and nobody but hadrosaur touched since
        self.by_hand = set()  # keys whose row need not agree before the next reindex
        self.edited = set()  # keys whose files were touched since they were computed
        self.is_doomed = False  # (in a forked child) the function kills its process
        self.warnings = warnings.catch_warnings()
        self.warnings.__enter__()
        warnings.simplefilter('ignore', HadrosaurWarning)  # of damage, which is what this is about
        self.proj = self.opened()

    def opened(self, **more):
        project = Project(self.base, **more)

        @project.resource('coll')
        def compute(ident, args, subdir):
            self.ran.append(('coll', ident))
            print('printed', ident)
            Path(subdir, 'own').write_text(ident)
            if self.is_doomed:
                die()
            if args.get('fails'):
                raise ValueError(f'{ident} is no good')
            value = {'ident': ident, 'run': len(self.ran), 'by': os.getpid()}
            return float('nan') if args.get('nan') else 1234 if args.get('number') else value

        @project.resource('outer', keep_storage=True)
        def compute_outer(ident, args, subdir):
            self.ran.append(('outer', ident))
            inner = self.proj.fetch('coll', INNER)
            if self.is_doomed:
                die()
            return {'of': inner['result'], 'args': args}

        return project

    @initialize()
    def begin(self):
        """Something of each kind is there from the start."""
        for key, args in (KEYS[0], None), (KEYS[1], {'fails': True}), (KEYS[2], {'n': 1}), (KEYS[4], {}):
            self.fetch(key, args, False)

    def teardown(self):
        try:
            self.agree()
            self.mend()
            for key in KEYS:
                self.fetch(key, None, False)
            self.agree()
            self.proj.close(cancel=True)
        finally:
            self.warnings.__exit__(None, None, None)
            shutil.rmtree(self.root)

    def folder(self, key):
        return self.base / key[0] / folder_name(key[1])

    def recorded(self, key, name):
        """A field of record.json, as we read it; None where there is no such thing, or it is damaged."""
        record = parsed(self.folder(key) / 'record.json')
        try:  # NaN and half a surrogate pair are no standard JSON
            json.dumps(record, ensure_ascii=False, allow_nan=False).encode()
        except ValueError:
            return None
        return record[0].get(name) if record and isinstance(record[0], dict) and not torn(record[0]) else None

    def attempts(self, key):
        """How many runs the folder tells of; what the index could not hold is not told."""
        count = self.recorded(key, 'attempt')
        return count if type(count) is int and 0 <= count < 1 << 62 else 0

    def there(self, pick):
        """One of the folders that are there, or None."""
        found = [key for key in KEYS if self.folder(key).is_dir()]
        return found[pick % len(found)] if found else None

    def touched(self, key):
        self.by_hand.add(key)
        self.edited.add(key)
        self.given.pop(key, None)

    def look_at(self, key, then):
        """What has come of an edit, before anything else happens."""
        if then in ('agree', 'mend'):
            getattr(self, then)()
        elif then == 'get':
            self.get(key)
        elif then != 'nothing':
            self.fetch(key, None, then == 'recompute')

    # --- what is asked of hadrosaur --------------------------------------------------------------------

    def to_be_served(self, key):
        """[what a fetch has to give back without computing], or [], by reading the folder in our own way."""
        folder = self.folder(key)
        if not (folder / 'status.json').exists():
            return []
        word = status_word(folder)
        if word in ('pending', 'damaged'):  # nobody computes it here: its record decides
            word = self.recorded(key, 'state')
        return parsed(folder / 'result.json') if word == 'completed' else []

    def judge(self, key, res, served, ran, attempts):
        """Was what a fetch gave computed only if need be, and is it what stands on the disk?"""
        assert res.status in ('completed', 'error')
        called = self.ran[ran:]
        assert (key in called) == (not served), (key, called, served)
        assert served or self.attempts(key) == attempts + 1
        assert status_word(self.folder(key)) == res.status
        if res.status == 'completed':
            assert [res.result] == parsed(self.folder(key) / 'result.json')
            assert not served or res.result == served[0]
            assert key in called or self.given.get(key, [res.result]) == [res.result]
            self.given[key] = [res.result]
        else:
            assert res.result is None
            assert res.error
        for one in called:  # its row was written just now
            self.by_hand.discard(one)
            self.edited.discard(one)
            if one != key:
                self.given.pop(one, None)

    @rule(key=keys, args=st.sampled_from(ARGS), recompute=st.booleans())
    def fetch(self, key, args, recompute):
        """It comes back completed or as an error, from disk if a whole result stands there."""
        served, ran, attempts = [] if recompute else self.to_be_served(key), len(self.ran), self.attempts(key)
        if recompute:
            self.given.pop(key, None)
        self.judge(key, self.proj.fetch(*key, args, recompute=recompute), served, ran, attempts)

    @rule(chosen=st.lists(keys, min_size=1, max_size=4), args=st.sampled_from(ARGS), retry=st.booleans())
    def fetch_many(self, chosen, args, retry):
        """The same for several: each once, and none stops the others."""
        asked = {key for key in chosen if key[0] == 'coll'}
        before = {key: (self.to_be_served(key), len(self.ran), self.attempts(key)) for key in asked}
        errors = set() if retry else {key for key in asked if status_word(self.folder(key)) == 'error'}
        seen = set()
        idents = [ident for _, ident in chosen if ('coll', ident) in asked]
        for res in self.proj.fetch_many('coll', idents, args, executor='inline', retry_errors=retry):
            key = ('coll', res.ident)
            if key not in seen and key not in errors:
                self.judge(key, res, *before[key])
            seen.add(key)
        assert seen == asked

    @rule(key=keys)
    def get(self, key):
        """Looking computes nothing, and shows what a fetch would serve."""
        served, ran = self.to_be_served(key), len(self.ran)
        try:
            res = self.proj.get(*key)
        except ResourceNotFound:
            assert not served
        else:
            assert res.status in ('completed', 'error')
            assert (res.status == 'completed') == bool(served)
            assert not served or res.result == served[0]
            assert res.entry.ident == key[1]
        assert len(self.ran) == ran

    @rule(key=keys)
    def remove(self, key):
        """Folder and row are gone."""
        was_there = self.folder(key).exists()
        try:
            self.proj.remove(*key)
        except ResourceNotFound:
            assert not was_there
        else:
            assert was_there
        assert not self.folder(key).exists()
        self.given.pop(key, None)
        self.by_hand.discard(key)
        self.edited.discard(key)

    @rule(
        collection=st.sampled_from([None, 'coll', 'outer']),
        how=st.sampled_from(['', 'changed_only', 'fresh']),
    )
    def reindex(self, collection, how):
        """Any way of it is fine at any moment."""
        self.proj.reindex(collection, **({how: True} if how else {}))
        if collection is None and how != 'changed_only':
            self.by_hand.clear()

    @rule()
    def reopen(self):
        """What was closed opens again, as it is or as another Project."""
        self.proj.close()
        self.proj = self.opened()

    # --- what is promised of the index -----------------------------------------------------------------

    @rule(elsewhere=st.booleans())
    def agree(self, elsewhere=False):
        """The live index, seen from here or elsewhere, and one made from the directories alone are equal."""
        before = rows(self.proj)
        if elsewhere:
            with Project(self.base) as other:
                found = rows(other)
            assert found == before, differences(before, found)
        self.proj.reindex()
        live = rows(self.proj)
        report = self.proj.reindex()
        assert report[1:4] == (0, 0, 0), report
        self.tell_of_folders(live)
        (self.root / 'other').mkdir()
        with Project(self.base, index=self.root / 'other' / 'index.sqlite3') as other:
            made = rows(other)
            assert made == live, differences(live, made)
            report = other.reindex()
            assert report[1:4] == (0, 0, 0), report
        shutil.rmtree(self.root / 'other')
        kept = {key: row for key, row in live.items() if key not in self.by_hand}
        before = {key: row for key, row in before.items() if key not in self.by_hand}
        assert before == kept, differences(before, kept)
        self.by_hand.clear()

    def tell_of_folders(self, found):
        """Each row says what its folder says, and each folder with a status has a row, all as we read it."""
        for key in KEYS:
            folder, row = self.folder(key), found.get(key)
            if row is None:
                is_nameless = key[1] == LONG and self.recorded(key, 'ident') != LONG
                assert is_nameless or not (folder / 'status.json').exists(), key
                continue
            assert row['status'] == status_word(folder)
            assert row['path'] == f'{key[0]}/{folder.name}'
            assert row['finished_at']
            if row['status'] == self.recorded(key, 'state'):
                for name in ('error', 'error_type', 'version', 'host'):
                    value = self.recorded(key, name)
                    assert row[name] == (value if isinstance(value, str) else None), (key, name, row)
            elif row['status'] == 'error':  # set by hand: the last line of the error log explains it
                log = folder / 'error.log'
                text = log.read_bytes().decode(errors='replace') if log.exists() else ''
                lines = [line.strip() for line in text.splitlines() if line.strip()]
                assert row['error'] in (lines[-1] if lines else 'no error.log'), row

    @rule()
    def mend(self):
        """Check mends everything but what only a person, or a fetch, can decide."""
        report = self.proj.check(fix=True, deep=True)
        spoiled = {
            finding[1:3]
            for finding in report.remaining
            if finding.problem == 'checksum' or finding.detail.startswith('result.json')
        }
        assert spoiled <= self.edited, spoiled - self.edited
        nameless = folder_name(LONG)  # a digest whose record does not tell of what
        left = [f for f in report.remaining if f[1:3] not in spoiled and f.ident != nameless]
        assert not left, left
        again = self.proj.check(deep=True).findings
        assert {finding[:3] for finding in again} == {finding[:3] for finding in report.remaining}, again
        self.by_hand.clear()

    # --- crashes ---------------------------------------------------------------------------------------

    def killed(self, work, moment):
        """Have a forked child do something and be killed on the way, or be done before that."""
        pid = os.fork()
        if pid == 0:
            code = 1
            try:
                self.is_doomed = moment == 0
                warnings.simplefilter('ignore', HadrosaurWarning)  # whatever a thread has put back since
                if moment:
                    die_at(moment)
                work()
                code = 0
            except BaseException:
                traceback.print_exc()
                sys.stderr.flush()
            finally:
                os._exit(code)
        code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
        assert code in (0, -signal.SIGKILL), code

    @rule(
        key=keys, args=st.sampled_from(ARGS), recompute=st.booleans(), moment=st.integers(0, 16), then=thens
    )
    def fetch_and_die(self, key, args, recompute, moment, then):
        """A fetch in another process that dies in the function (0) or before a change of the disk."""
        if recompute or not self.to_be_served(key):
            self.given.pop(key, None)
            if key[0] == 'outer':  # the row of what it fetched died with it
                self.by_hand.add(('coll', INNER))
                self.given.pop(('coll', INNER), None)
        self.killed(lambda: self.proj.fetch(*key, args, recompute=recompute), moment)
        self.look_at(key, then)

    @rule(pick=picks, moment=st.integers(1, 6), then=thens)
    def remove_and_die(self, pick, moment, then):
        if key := self.there(pick):
            self.touched(key)
            self.killed(lambda: self.proj.remove(*key), moment)
            self.look_at(key, then)

    @rule(what=st.sampled_from(['reindex', 'fresh', 'check', 'query']), moment=st.integers(1, 12))
    def mend_and_die(self, what, moment):
        """What only looks and mends may die at any moment, too."""
        work = {
            'reindex': self.proj.reindex,
            'fresh': lambda: self.proj.reindex(fresh=True),
            'check': lambda: self.proj.check(fix=True, deep=True),
            'query': lambda: rows(self.proj),
        }
        self.killed(work[what], moment)

    # --- by hand ---------------------------------------------------------------------------------------

    def write(self, key, name, data, then):
        self.touched(key)
        (self.folder(key) / name).write_bytes(data)
        self.look_at(key, then)

    @rule(pick=picks, text=st.sampled_from(STATUSES), then=thens)
    def write_status(self, pick, text, then):
        if key := self.there(pick):
            self.write(key, 'status.json', text.encode(), then)

    @rule(pick=picks, text=st.sampled_from(RESULTS), then=thens)
    def write_result(self, pick, text, then):
        if key := self.there(pick):
            self.write(key, 'result.json', text.encode(), then)

    @rule(pick=picks, data=st.sampled_from(ERROR_LOGS), then=thens)
    def write_error_log(self, pick, data, then):
        if key := self.there(pick):
            self.write(key, 'error.log', data, then)

    @rule(pick=picks, name=st.sampled_from(FIELDS), value=st.sampled_from(VALUES), then=thens)
    def write_record(self, pick, name, value, then):
        key = self.there(pick)
        record = parsed(self.folder(key) / 'record.json') if key else []
        if record and isinstance(record[0], dict):
            data = json.dumps({**record[0], name: value}).encode()
            self.write(key, 'record.json', data, then)

    @rule(
        pick=picks,
        name=st.sampled_from(FILES),
        place=st.floats(0, 1, exclude_max=True),
        bits=st.integers(1, 255),
        then=thens,
    )
    def flip(self, pick, name, place, bits, then):
        """A byte that rots."""
        key = self.there(pick)
        if key and (self.folder(key) / name).exists():
            data = bytearray((self.folder(key) / name).read_bytes())
            if data:
                data[int(place * len(data))] ^= bits
            self.write(key, name, bytes(data), then)

    @rule(pick=picks, name=st.sampled_from(['status.json', *FILES]), then=thens)
    def delete(self, pick, name, then):
        key = self.there(pick)
        if key and (self.folder(key) / name).exists():
            self.touched(key)
            (self.folder(key) / name).unlink()
            self.look_at(key, then)

    @rule(pick=picks, then=thens)
    def delete_folder(self, pick, then):
        if key := self.there(pick):
            self.touched(key)
            shutil.rmtree(self.folder(key))
            self.look_at(key, then)

    @rule(pick=picks, to=keys, is_copy=st.booleans(), then=thens)
    def put_elsewhere(self, pick, to, is_copy, then):
        """A folder is copied or renamed, over another if there is one."""
        key = self.there(pick)
        if key in (None, to):
            return
        self.touched(to)
        shutil.rmtree(self.folder(to), ignore_errors=True)
        if is_copy:
            shutil.copytree(self.folder(key), self.folder(to))
        else:
            self.touched(key)
            self.folder(key).rename(self.folder(to))
        self.look_at(to, then)

    @rule(pick=picks)
    def write_into_storage(self, pick):
        """Nobody's business."""
        key = self.there(pick)
        if key and (self.folder(key) / 'storage').is_dir():
            (self.folder(key) / 'storage' / 'status.json').write_text('{}')
            (self.folder(key) / 'storage' / 'deep').mkdir(exist_ok=True)

    @rule(ends=st.sampled_from(ENDS), closed=st.booleans(), key=keys)
    def delete_index(self, ends, closed, key):
        """An index, or a part of it, that is deleted under an open connection costs no row."""
        if closed:
            self.proj.close()
        else:
            len(self.proj.query())  # it is open
        for end in ends:
            Path(f'{self.base}/index.sqlite3{end}').unlink(missing_ok=True)
        for _ in range(2):  # another process makes a new one at the first look; is it written to?
            self.fetch(key, None, True)
            self.agree(elsewhere=True)

    @rule(
        end=st.sampled_from(['', '', '-wal']),
        seed=st.integers(0, 1000),
        length=st.sampled_from([8, 100, 5000]),
        closed=st.booleans(),
    )
    def damage_index(self, end, seed, length, closed):
        """Whatever is written into an index, it can be made anew."""
        if closed:
            self.proj.close()
        path = Path(f'{self.base}/index.sqlite3{end}')
        if path.exists() and (size := path.stat().st_size):
            chosen = random.Random(seed)
            with path.open('r+b') as file:
                file.seek(chosen.randrange(size))
                file.write(bytes(chosen.choices(range(256), k=length)))
            self.proj.reindex(fresh=True)
            self.by_hand.clear()


TestLife = pytest.mark.timeout(0 if TORTURE else 600)(Life.TestCase)
TestLife.settings = settings(
    max_examples=EXAMPLES,
    stateful_step_count=STEPS,
    deadline=None,
    derandomize=not TORTURE,
    database=None,
    print_blob=TORTURE,
    report_multiple_bugs=False,
    suppress_health_check=list(HealthCheck),
)


EDITS = {
    'queued_at': '2001-01-01T00:00:00.000000Z',
    'started_at': '2001-01-02T00:00:00.000000Z',
    'finished_at': '2001-01-03T00:00:00.000000Z',
    'attempt': 7,
    'duration': 8.5,
    'error_type': 'Edited',
    'error': 'edited',
    'error_group': 'f1:edited',
    'host': 'elsewhere',
    'pid': 9,
    'cpu_seconds': 10.5,
    'max_rss': 11,
    'version': 'edited',
    'args': {'edited': True},
}


@pytest.mark.parametrize('name', EDITS)
def test_reindex_sees_every_field_of_a_record(proj, base, name):
    """An edit of one field alone reaches its column, and nothing but what follows from it."""
    proj.resource('coll')(lambda ident, args, subdir: 1 / 0)
    proj.fetch('coll', 'one')
    before = rows(proj)['coll', 'one']
    path = base / 'coll/one/record.json'
    edited = {**json.loads(path.read_text()), name: EDITS[name]}
    if name == 'args':  # one without the other is a record that was torn
        edited['args_hash'] = canonical.args_hash(canonical.args_json(edited['args']))
    path.write_text(json.dumps(edited))

    assert [finding.ident for finding in proj.check().findings] == ['one']
    assert proj.reindex()[1:4] == (0, 1, 0)
    after = rows(proj)['coll', 'one']
    changed = {column for column in after if after[column] != before[column]}
    assert changed == ({'args', 'args_hash'} if name == 'args' else {name})
    assert after[name] == EDITS[name]
    assert proj.check().findings == []
