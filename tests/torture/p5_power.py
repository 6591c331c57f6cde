"""P5: after a power cut nothing torn is ever served; with durable=True nothing acknowledged is lost.

What a run does to its folder is recorded, and each state that a power cut may leave (see power.py) is put
on a disk, opened and asked. Each run's result, args, output and storage tell which run they belong to.

Why the syncs of a recompute are necessary and sufficient, without ``durable=True``:

* status.json is pending *on the disk* before anything of the old run changes. Without that sync the old
  "completed" could come back over a result, or a record, of the new run.
* record.json says begun before result.json is removed; both syncs lie between. Else the final record of
  the old run would decide about a pending status, beside a result of the new one.
* The name of result.json (a new file each time, begin removes the old one) and the final record.json are
  there before the final status: else the new "completed" could stand over the old result, or over the
  record of the old run.
* The *bytes* of result.json need not be: the file is new, so that no other run's can show through, and a
  torn one does not parse and is computed again. Leaving that sync out violated nothing here; it is
  ``durable=True`` that needs it, for which a result that was acknowledged is lost if it is torn. (That it
  is made without ``durable=True`` too, in a recompute, spares the computing; it makes nothing truer.)
* After these nothing is left to be told apart: whatever else is loose belongs to one run. So more syncs
  would not make anything truer; they would only keep more (that is ``durable=True``).

A first run needs none of them: in its folder there are no other run's bytes to be mixed up with, and a
result that is torn does not parse. That holds only as long as nothing of an older run can be in the folder:
the rule is therefore not "the old status was completed" but "an older result.json is there".
"""

import contextlib
import hashlib
import json
import os
import pickle
import shutil
import tempfile
import warnings
from pathlib import Path

import pytest
from harness import IS_FULL, chance, count
from power import Mark, Recorder, lay_out

from hadrosaur import HadrosaurWarning, Project, ResourceNotFound, compute, directory, durability

MOST = count(60, quick=0)  # states of each moment beyond the plainest, see `Recorder.states`
WHOLE = 1 if IS_FULL else 8  # every so many are also computed again and checked
A, B, C = ({'of': letter, 'text': letter * 600} for letter in 'abc')


class Story:
    """A project on a recorded disk, whose runs can be told apart."""

    def __init__(self, place, durable, keep_attempts=0):
        self.place, self.disk, self.durable = place, f'{place}/disk', durable
        self.keep_attempts = keep_attempts
        os.mkdir(self.disk)
        self.recorder = Recorder(self.disk)
        self.runs, self.plan = {}, []
        self.proj = None

    def project(self, disk, function):
        proj = Project(f'{disk}/new/base', durable=self.durable)
        proj.resource('c', keep_attempts=self.keep_attempts)(function)
        return proj

    def open(self, *, is_new=True):
        """Have a project; one that is not new is firmly on the disk."""
        self.proj = self.project(self.disk, self.compute)
        if not is_new:
            self.proj.stats()
            self.recorder.synced_all()

    def compute(self, ident, args, subdir):
        n = len(self.runs) + 1
        text = f'run {n} of {ident}\n'
        size, fails = self.plan.pop(0)
        result = {'run': n, 'args': args, 'pad': f'{n}' * size}
        stored = {'part': text * 5, 'deep/er': text * 60}
        self.runs[n] = {'args': args, 'result': result, 'out': text, 'stored': stored, 'fails': fails}
        print(text, end='')
        os.mkdir(f'{subdir}/deep')
        for name, data in stored.items():
            Path(subdir, name).write_text(data)
        if fails:
            raise ValueError(text.strip())
        return result

    def fetch(self, args=None, *, size=700, fails=False, recompute=False, queued=False):
        """One run; ``queued``: as caller and worker do it for a background fetch."""
        self.plan = [(size, fails)]
        self.recorder.mark('asked')
        before = len(self.runs)
        if queued:
            known = self.proj._registry.get('c')
            folder = directory.find_folder(known.spec.path, 'x')
            how = 'yes' if recompute else 'no'
            order = self.proj._store.job(known, 'x', json.dumps(args), folder, recompute=how)
            assert compute.enqueue(order)
            compute.carry_out(order, known.function)
        else:
            self.proj.fetch('c', 'x', args, recompute=recompute)
        assert len(self.runs) == before + 1
        self.recorder.mark('done', len(self.runs))

    def remove(self):
        self.recorder.mark('removing')
        self.proj.remove('c', 'x')
        self.recorder.mark('removed')

    def delete_status(self):
        self.recorder.mark('removing')
        os.unlink(f'{self.disk}/new/base/c/x/status.json')

    def killed(self, part, work):
        """``work`` is done by a process that is killed when it has done about that part of it."""
        handed = f'{self.place}/handed'
        self.recorder.look()
        pid = os.fork()
        if pid == 0:
            self.recorder.forked()
            with contextlib.suppress(BaseException):
                self.recorder.at_end = (int(part * LOOKS), lambda: self._hand_on(handed))
                work()
            self._hand_on(handed)
        assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
        recorded, self.runs = pickle.loads(Path(handed).read_bytes())
        self.recorder.__dict__.update(recorded)
        os.unlink(handed)
        self.proj = self.project(self.disk, self.compute)
        with contextlib.suppress(ResourceNotFound):
            self.proj.get('c', 'x')

    def _hand_on(self, path):
        recorded = {**self.recorder.__dict__, 'at_end': None, '_busy': False}
        with open(path, 'wb') as file:
            pickle.dump((recorded, self.runs), file)
        os._exit(0)


LOOKS = 45  # at the disk, in one run


STORIES = {
    'first': lambda s: (s.open(), s.fetch(A)),
    'failing': lambda s: (s.open(), s.fetch(A, fails=True)),
    'recompute': lambda s: (s.fetch(A), s.fetch(B, recompute=True)),
    'shorter': lambda s: (s.fetch(A, size=1500), s.fetch(B, size=3, recompute=True)),
    'longer': lambda s: (s.fetch(A, size=3), s.fetch(B, size=1500, recompute=True)),
    'failing, retry': lambda s: (s.fetch(A, fails=True), s.fetch(B)),
    'recompute fails': lambda s: (s.fetch(A), s.fetch(B, fails=True, recompute=True)),
    'recompute fails, retry': lambda s: (s.fetch(A), s.fetch(B, fails=True, recompute=True), s.fetch(C)),
    'queued': lambda s: s.fetch(A, queued=True),
    'queued recompute': lambda s: (s.fetch(A), s.fetch(B, recompute=True, queued=True)),
    'queued recompute fails, retry': lambda s: (
        s.fetch(A),
        s.fetch(B, fails=True, recompute=True, queued=True),
        s.fetch(C, queued=True),
    ),
    'recompute twice, the last one kept': lambda s: (
        s.fetch(A),
        s.fetch(B, recompute=True),
        s.fetch(C, fails=True, recompute=True),
    ),
    'removed': lambda s: (s.fetch(A), s.remove()),
    'removed, again': lambda s: (s.fetch(A), s.remove(), s.fetch(B)),
    'status deleted, again': lambda s: (s.fetch(A), s.delete_status(), s.fetch(B)),
}
for part in (0.1, 0.25, 0.4, 0.55, 0.7, 0.85):
    STORIES[f'recompute cut at {part}, again'] = lambda s, part=part: (
        s.fetch(A),
        s.killed(part, lambda: s.fetch(B, recompute=True)),
        s.fetch(C, recompute=True),
    )
    STORIES[f'recompute cut at {part}, the same again'] = lambda s, part=part: (
        s.fetch(A),
        s.killed(part, lambda: s.fetch(B, recompute=True)),
        s.fetch(B, recompute=True),
    )
for part in (0.1, 0.2, 0.5, 0.9):
    STORIES[f'first run cut at {part}, again'] = lambda s, part=part: (
        s.killed(part, lambda: s.fetch(A)),
        s.fetch(B, recompute=True),
    )
NEW = ('first', 'failing')  # all others happen in a base that was there


def told(name, durable, place):
    """A story, recorded."""
    story = Story(place, durable, keep_attempts=int('kept' in name))
    is_one_call = 'recompute' in name  # by syncfs, or file by file
    with story.recorder.recording(), pytest.MonkeyPatch.context() as patched, warnings.catch_warnings():
        patched.setattr(durability, '_takes_one_call', lambda *_: is_one_call)
        patched.setattr(durability, '_sync_file_system', lambda _: story.recorder.synced_all() or True)
        warnings.simplefilter('ignore', HadrosaurWarning)
        if name not in NEW:
            story.open(is_new=False)
        STORIES[name](story)
        story.proj.close()
    return story


class Wrong(Exception):
    """What a power cut left is not what is promised."""


def promised(story, point):
    """(the run acknowledged last, has more been asked for since, is it being removed) at a point."""
    acked, asked, removed = None, False, False
    for event in story.recorder.events[:point]:
        if isinstance(event, Mark):
            removed = event.word in ('removing', 'removed') or (removed and event.word == 'asked')
            asked = event.word == 'asked'
            acked = event.about if event.word == 'done' else None if removed else acked
    return acked, asked, removed


def judge(story, point, disk, *, wholly):
    """Open what is left, ask for it, compute it, check it. Raises Wrong."""
    acked, asked, removed = promised(story, point)
    folder = Path(disk, 'new/base/c/x')
    with story.project(disk, _again) as proj:
        try:
            found = proj.get('c', 'x')
        except ResourceNotFound:
            found = None
        n = _what(story, found, folder)
        if story.durable:
            _nothing_lost(story, found, n, folder, acked, asked, removed)
        if not wholly:
            return
        later = proj.fetch('c', 'x')
        _later(story, found, later)
        proj.check(fix=True, deep=True)
        if findings := proj.check(deep=True).findings:
            raise Wrong(f'check finds {findings}')
        rows = [(row.ident, row.status, row.args) for row in proj.query('c')]
        if rows != [('x', 'completed', later.args)]:
            raise Wrong(f'rows {rows}')


def _again(ident, args, subdir):
    return {'run': 'again', 'args': args}


def _what(story, found, folder):
    """The number of the run that is served or told of, if any: all of it belongs to that one."""
    if found is None:
        return None
    if found.status == 'pending':
        raise Wrong('pending, and nobody computes it')
    record = directory.read_record(_fd(folder)) or {}
    if found.status == 'completed':
        n = found.result['run']
        run = story.runs[n]
        if found.result != run['result'] or run['fails']:
            raise Wrong(f'torn: {found.result}')
        digest = hashlib.sha256((folder / 'result.json').read_bytes()).hexdigest()
        if record.get('result_sha256', digest) != digest:
            raise Wrong(f'the result of run {n} beside the record of another')
    elif found.entry.error_type == 'ValueError':
        n = int(found.entry.error.split()[1])
        run = story.runs[n]
        if not run['fails']:
            raise Wrong(f'run {n} did not fail')
    else:  # interrupted, or damaged
        if found.args and found.args not in (A, B, C):
            raise Wrong(f'args of no run: {found.args}')
        return None
    is_told = record.get('state') in ('completed', 'error') or found.args
    if is_told and found.args != run['args']:
        raise Wrong(f'run {n} with the args {str(found.args)[:100]}')
    return n


def _fd(folder):
    _fd.last = getattr(_fd, 'last', None)
    if _fd.last is not None:
        os.close(_fd.last)
    _fd.last = os.open(folder, os.O_RDONLY)
    return _fd.last


def _nothing_lost(story, found, n, folder, acked, asked, removed):
    status = found.status if found else 'absent'
    if status == 'completed':
        _whole(story.runs[n], n, found, folder)
    run = story.runs.get(acked)
    if run is None:
        return
    error = found.entry.error_type if status == 'error' else None
    if not asked:
        if n != acked:
            raise Wrong(f'run {acked} was acknowledged, and now it is {status} {error}, run {n}')
        if run['fails'] and run['out'].strip() not in (found.error or ''):
            raise Wrong(f'error.log of run {n} is lost: {found.error!r}')
    elif not run['fails'] and status == 'absent':
        raise Wrong(f'run {acked} is gone without a word')
    elif status == 'error' and error not in ('Interrupted', 'ValueError'):
        raise Wrong(f'{error}: {found.entry.error}')
    elif status == 'error' and not found.args:
        raise Wrong('the args are lost')


def _whole(run, n, found, folder):
    """Logs and storage, too."""
    if (folder / 'stdout.log').read_text() != run['out']:
        raise Wrong(f'stdout.log of run {n} is lost')
    stored = {
        str(path.relative_to(folder / 'storage')): path.read_text()
        for path in (folder / 'storage').rglob('*')
        if path.is_file()
    }
    if stored != run['stored']:
        raise Wrong(f'storage of run {n}: { ({name: text[:20] for name, text in stored.items()}) }')
    if found.args != run['args']:
        raise Wrong(f'the args of run {n} are lost')


def _later(story, found, later):
    if later.status != 'completed':
        raise Wrong(f'a fetch ends {later.status}: {later.error}')
    if found is not None and found.status == 'completed' and later.result != found.result:
        raise Wrong('computed again though completed')
    if later.result['run'] == 'again':
        args = later.result['args']
        if args and args not in (A, B, C):
            raise Wrong(f'computed with the args of no run: {args}')
    if later.args != later.result['args'] and later.args:
        raise Wrong('args and result are not of one run')


def attack(story, chosen, most):
    """Every state of every point: (how many, {what is wrong: where})."""
    tried, wrong = 0, {}
    seen = set()
    for point in story.recorder.points():
        indexes = list(story.recorder.index_states(point))
        for tree in story.recorder.states(point, most, chosen):
            key = (hash(frozenset(tree.items())), story.durable and promised(story, point))
            if key in seen:
                continue
            seen.add(key)
            words, index = indexes[tried % len(indexes)]
            tried += 1
            disk = f'{story.place}/left'
            lay_out(tree, index, disk)
            try:
                with warnings.catch_warnings():
                    warnings.simplefilter('ignore')
                    judge(story, point, disk, wholly=tried % WHOLE == 0)
            except Exception as error:
                text = f'{type(error).__name__}: {error}'.replace(disk, '')
                kind = text[:40]
                count, where = wrong.get(kind, (0, ''))
                wrong[kind] = (
                    count + 1,
                    where or f'{text}; {words}, after {story.recorder.events[:point][-1]}'[:900],
                )
            shutil.rmtree(disk)
    return tried, wrong


QUICK = [  # those that notice where a single sync is missing
    ('recompute', False),
    ('queued recompute', False),
    ('recompute cut at 0.7, the same again', False),
    ('status deleted, again', False),
    ('first', True),
    ('recompute', True),
]
CHOSEN = [(name, durable) for name in STORIES for durable in (False, True)] if IS_FULL else QUICK


@pytest.mark.parametrize(
    ('name', 'durable'), CHOSEN, ids=[f'{name}-{("usual", "durable")[durable]}' for name, durable in CHOSEN]
)
def test_what_a_power_cut_leaves(name, durable, record):
    """What is served after a power cut is of one run and whole; a durable project has lost nothing."""
    chosen = chance()
    with tempfile.TemporaryDirectory(dir='/dev/shm') as place:
        story = told(name, durable, place)
        tried, wrong = attack(story, chosen, MOST)
    number = sum(times for times, _ in wrong.values())
    record('P5', tried, number)
    assert not wrong, '\n'.join(f'{times} times {where}' for times, where in wrong.values())
