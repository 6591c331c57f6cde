"""What a disk refuses, or a process may not open, costs nothing that was there before, and is told."""

import errno
import fcntl
import json
import os

import pytest

from hadrosaur import Project, compute, fileops, handle, recover
from hadrosaur.errors import Unreadable

OLD, NEW = {'n': 'old'}, {'n': 'new'}


@pytest.fixture
def coll(proj):
    """A collection with one completed resource; what a run returns are its args."""

    @proj.resource('coll', on_args_change='keep')
    def compute_it(ident, args, subdir):
        return args

    proj.fetch('coll', 'a', OLD)
    return proj


def refusing(monkeypatch, name, number, after, *, times=10**9, wrote=0):
    """Have os.NAME fail from the so-manieth call on, so many times; ``wrote``: after so many bytes of it."""
    real, count = getattr(os, name), [0]

    def call(*args, **more):
        count[0] += 1
        if after < count[0] <= after + times:
            if wrote and name == 'pwrite':
                real(args[0], args[1][:wrote], *args[2:])
            raise OSError(number, os.strerror(number))
        return real(*args, **more)

    monkeypatch.setattr(os, name, call)
    return count


def content(base):
    return {path: path.read_bytes() for path in (base / 'coll/a').rglob('*') if path.is_file()}


# --- too many open files ---------------------------------------------------------------------------------


@pytest.mark.parametrize('number', [errno.EMFILE, errno.ENFILE, errno.EIO, errno.EACCES])
@pytest.mark.parametrize('how', ['fetch', 'get', 'explain', 'args'])
def test_what_is_completed_and_cannot_be_read_is_not_an_error_of_it(coll, base, monkeypatch, number, how):
    """It is said that it cannot be read; no row, no file changes, nothing is computed."""
    before, row, told = content(base), coll.query()[0], []
    for after in range(12):
        with monkeypatch.context() as patched:
            count = refusing(patched, 'open', number, after)
            try:
                if how == 'fetch':
                    assert coll.fetch('coll', 'a').result == OLD
                elif how == 'get':
                    assert coll.get('coll', 'a').result == OLD
                elif how == 'args':
                    assert coll.fetch('coll', 'a', OLD).result == OLD
                else:
                    assert not coll.explain('coll', 'a').computes
            except Unreadable as error:
                told.append((os.strerror(number) in str(error), error.exit_code))
            if count[0] <= after:
                break
        assert content(base) == before
    assert len(told) > 2
    assert set(told) == {(True, 5)}
    assert coll.query()[0] == row


def test_many_that_cannot_be_read_are_told_one_by_one(coll, base, monkeypatch):
    """fetch_many yields what cannot be read as an error that names it, and goes on."""
    coll.fetch('coll', 'b', OLD)
    rows = list(coll.query())
    real = handle._look_once

    def look(path, folder, *more):
        if folder == 'a':
            raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))
        return real(path, folder, *more)

    monkeypatch.setattr(handle, '_look_once', look)
    found = {res.ident: res for res in coll.fetch_many('coll', ['a', 'b'], executor='inline')}
    assert found['a'].entry.error_type == 'Unreadable'
    assert 'Too many open files' in found['a'].error
    assert found['b'].result == OLD
    assert list(coll.query()) == rows


@pytest.mark.parametrize('durable', [False, True])
@pytest.mark.parametrize('number', [errno.EMFILE, errno.EIO, errno.ENOSPC])
def test_a_recompute_that_cannot_open_its_files_leaves_the_old_result(base, monkeypatch, number, durable):
    """Whichever of its files cannot be opened before it begins, all of the old one stays."""
    with Project(base, durable=durable) as proj:
        proj.resource('coll')(lambda ident, args, subdir: args)
        proj.fetch('coll', 'a', OLD)
        begun = 0
        for after in range(4, 60):
            before = content(base)
            collection = proj._registry.get('coll')
            order = proj._store.job(collection, 'a', '{"n":"new"}', 'a', recompute='yes')
            with monkeypatch.context() as patched:
                count = refusing(patched, 'open', number, after)
                outcome = compute.carry_out(order, collection.function)
            if outcome.not_started:
                assert content(base) == before
                assert proj.get('coll', 'a').result == OLD
            else:
                begun += 1
            if count[0] <= after:
                break
            proj.fetch('coll', 'a', OLD, recompute=True)
        assert outcome.entry.status == 'completed'
        assert begun < 30


def test_as_many_descriptors_as_a_run_needs_are_there_before_it_begins(coll, base, program):
    """With ever fewer left, a recompute is refused, or done: an old result is never lost to the limit."""
    coll.close()
    program(
        """
        import os, resource, sys
        from hadrosaur import Project
        from hadrosaur.errors import Unreadable

        proj = Project(sys.argv[1])
        proj.resource('coll')(lambda ident, args, subdir: args)
        assert proj.fetch('coll', 'a').status == 'completed'
        proj.fetch('coll', 'a', {'n': -1}, recompute=True)     # all that is imported late is imported
        last, seen = -1, set()
        hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
        used = max(map(int, os.listdir('/proc/self/fd')))
        for spare in range(1, 40):
            resource.setrlimit(resource.RLIMIT_NOFILE, (used + spare, hard))
            try:
                res = proj.fetch('coll', 'a', {'n': spare}, recompute=True)
                status, told = res.status, res.error
            except Unreadable as error:
                status, told = 'error', str(error)
            resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
            seen.add(status)
            if status == 'completed':
                last = spare
            else:
                assert 'Too many open files' in told, told
            found = proj.fetch('coll', 'a')
            assert (found.status, found.result) == ('completed', {'n': last}), (spare, found, found.error)
        assert seen == {'completed', 'error'}, seen
        """,
        base,
    )


# --- writes and syncs that fail --------------------------------------------------------------------------

FAULTS = {
    'write': ('pwrite', errno.ENOSPC, 0),
    'short write': ('pwrite', errno.ENOSPC, 30),
    'sync': ('fdatasync', errno.EIO, 0),
    'folder sync': ('fsync', errno.EIO, 0),
    'rename': ('replace', errno.EIO, 0),
}


@pytest.mark.parametrize('fault', FAULTS)
@pytest.mark.parametrize('durable', [False, True])
@pytest.mark.parametrize('times', [1, 2, 10**9])
@pytest.mark.parametrize('state', ['new', 'completed', 'failed'])
def test_the_args_that_were_asked_for_outlive_every_failure(base, monkeypatch, fault, durable, times, state):
    """Whichever write or sync fails, the record parses, and a retry without args has those asked for last."""
    name, number, wrote = FAULTS[fault]
    fails = []
    with Project(base, durable=durable) as proj:

        @proj.resource('coll')
        def compute_it(ident, args, subdir):
            if fails:
                raise ValueError('as it was told')
            return {**args, 'text': 'x' * 3000}

        collection = proj._registry.get('coll')
        for after in range(30):
            if state != 'new':
                fails[:] = [1] if state == 'failed' else []
                proj.fetch('coll', 'a', {'n': 'old', 'long': 'y' * 500}, recompute=True)
                fails.clear()
            order = proj._store.job(collection, 'a', '{"n":"new"}', 'a', recompute='yes')
            with monkeypatch.context() as patched:
                count = refusing(patched, name, number, after, times=times, wrote=wrote)
                outcome = compute.carry_out(order, collection.function)
            record = base / 'coll/a/record.json'
            if record.exists() and not (times > 2 and wrote):  # else nothing can put back what was torn
                assert 'n' in json.loads(record.read_bytes())['args']
            settled = recover.recover('coll', 'a', str(base / 'coll'), 'a').entry
            if outcome.entry.status == 'completed':
                assert settled.status == 'completed'
            elif settled is not None and not (times > 2 and wrote):
                assert settled.args['n'] == ('new' if not outcome.not_started else 'old')
                assert proj.fetch('coll', 'a').result['n'] == settled.args['n']
            if settled is not None:
                proj.remove('coll', 'a')
            if count[0] <= after:
                break
        assert outcome.entry.status == 'completed'


def test_a_record_that_has_no_room_to_grow_is_put_back(coll, base, monkeypatch):
    """A full disk takes what a file has room for, and not a byte more; no new file either."""
    before, real = content(base), os.pwrite

    def write(fd, data, offset):
        room = os.fstat(fd).st_size - offset
        if room <= 0:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return real(fd, data[:room], offset)

    with monkeypatch.context() as patched:
        patched.setattr(os, 'pwrite', write)
        found = coll.fetch('coll', 'a', {'n': 'long' * 500}, recompute=True)
        assert 'No space left' in found.error
    assert content(base) == before
    assert coll.fetch('coll', 'a').result == OLD


def test_a_full_disk_is_told_in_the_folder(coll, base, monkeypatch):
    """The result that had no room is gone; status and record, which need none, say why."""
    real = os.pwrite

    def write(fd, data, offset):
        if os.readlink(f'/proc/self/fd/{fd}').endswith(('result.json', 'error.log')):
            real(fd, data[:5], offset)
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return real(fd, data, offset)

    monkeypatch.setattr(os, 'pwrite', write)
    res = coll.fetch('coll', 'a', NEW, recompute=True)
    assert res.status == 'error'
    assert res.entry.error == '[Errno 28] No space left on device'
    monkeypatch.undo()
    found = coll.get('coll', 'a')
    assert found.error == '[Errno 28] No space left on device'
    assert found.args == NEW
    assert set(os.listdir(base / 'coll/a')) - {'.lock'} == {
        'status.json', 'record.json', 'stdout.log', 'stderr.log', 'storage',
    }  # fmt: skip
    assert coll.fetch('coll', 'a').result == NEW


# --- what waits for the disk -----------------------------------------------------------------------------


@pytest.fixture
def synced(monkeypatch):
    """Names of what was synced, in order; '…' where the function ran."""
    names = []

    def noted(real):
        def call(fd):
            names.append(os.path.basename(os.readlink(f'/proc/self/fd/{fd}')).strip('.').split('.')[0])
            return real(fd)

        return call

    monkeypatch.setattr(os, 'fdatasync', noted(os.fdatasync))
    monkeypatch.setattr(os, 'fsync', noted(os.fsync))
    return names


def test_a_recompute_that_was_queued_waits_for_the_disk_as_an_inline_one(coll, synced):
    """Whether it was completed is asked of what is believed, not of the status that queueing has changed."""
    collection = coll._registry.get('coll')
    order = coll._store.job(collection, 'a', '{"n":1}', 'a', recompute='yes')

    def function(ident, args, subdir):
        synced.append('…')
        return args

    assert compute.carry_out(order, function).fresh
    inline = list(synced)
    synced.clear()
    order = coll._store.job(collection, 'a', '{"n":2}', 'a', recompute='yes')
    assert compute.enqueue(order)
    synced.clear()
    assert compute.carry_out(order, function).fresh
    assert synced == inline
    assert inline.index('status') < inline.index('record') < inline.index('…')
    assert inline.index('…') < inline.index('result') < len(inline) - 1
    assert inline[-1] == 'status'


@pytest.mark.parametrize('with_syncfs', [True, False])
def test_durable_waits_for_storage_and_for_the_names_above(base, synced, monkeypatch, with_syncfs):
    """All that the function wrote, the folders' names up to the base's parent: before the final status."""
    from hadrosaur import durability

    monkeypatch.setattr(durability, '_above_synced', set())
    if with_syncfs:
        monkeypatch.setattr(durability, '_syncfs', lambda: lambda fd: synced.append('whole') or 0)
    else:
        monkeypatch.setattr(durability, '_syncfs', lambda: None)
    with Project(base, durable=True) as proj:

        @proj.resource('coll')
        def compute_it(ident, args, subdir):
            synced.append('…')
            os.makedirs(f'{subdir}/deep/er')
            for name in ('one', 'deep/two', 'deep/er/three'):
                with open(f'{subdir}/{name}', 'w') as file:
                    file.write(name)
            os.symlink('/etc/passwd', f'{subdir}/link')
            os.mkfifo(f'{subdir}/fifo')
            return 1

        assert proj.fetch('coll', 'a').status == 'completed'
    after = synced[synced.index('…') + 1 :]
    assert after[-1] == 'status'
    assert {'result', 'record', 'stdout', 'stderr', 'a'} <= set(after)
    if with_syncfs:
        assert after.count('whole') == 1
    else:
        assert {'one', 'two', 'three', 'er', 'deep', 'storage'} <= set(after)
    assert not {'passwd', 'link', 'fifo'} & set(after)
    assert {'coll', 'base', base.parent.name} <= set(synced[: synced.index('…')])


def test_what_is_not_durable_waits_for_nothing(coll, synced):
    """Neither a first run nor a failed one costs a single sync."""
    synced.clear()
    coll.fetch('coll', 'new', NEW)
    assert synced == []


# --- files of any size -----------------------------------------------------------------------------------


@pytest.mark.parametrize('name', ['status.json', 'record.json', 'result.json'])
@pytest.mark.parametrize('planted', ['sparse', 'device'])
def test_a_file_of_any_size_is_not_read_to_its_end(coll, base, name, planted):
    """A sparse file of terabytes, a device without an end: it is damaged, at once and without memory."""
    path = base / 'coll/a' / name
    path.unlink()
    if planted == 'sparse':
        with open(path, 'wb') as file:
            file.truncate(1 << 42)
    else:
        try:
            os.mknod(path, 0o20666, os.makedev(1, 5))
        except PermissionError:
            pytest.skip('only root makes devices')
    found = handle.look(str(base / 'coll'), 'a', with_record=True)
    if name == 'status.json':
        assert found.state == 'damaged'
    elif name == 'record.json':
        assert (found.value, found.record) == (OLD, {})
    else:
        assert found.damage
    coll.reindex()
    coll.check(deep=True)
    with pytest.warns(match='damaged') if name == 'result.json' else pytest.MonkeyPatch.context():
        res = coll.fetch('coll', 'a', NEW, recompute=name == 'record.json')
    assert res.result in (NEW, OLD)
    assert os.path.getsize(path) < 10_000


def test_a_result_that_memory_cannot_hold_says_so(coll, monkeypatch):
    """MemoryError is nobody's traceback: the file is named."""

    def read(*args):
        raise MemoryError

    monkeypatch.setattr(fileops, 'read', read)
    with pytest.raises(Unreadable, match='memory'):
        coll.fetch('coll', 'a')


def test_a_traceback_of_any_length_is_cut_at_its_beginning(coll, base):
    """The end of error.log is what says what went wrong."""

    @coll.resource('fails')
    def fails(ident, args, subdir):
        raise ValueError('x' * (handle.LONGEST_ERROR + 1000) + ' the end')

    res = coll.fetch('fails', 'a')
    assert len(res.error) == handle.LONGEST_ERROR
    assert res.error.endswith('the end\n')


# --- a file that cannot be closed ------------------------------------------------------------------------


@pytest.mark.parametrize('executor', ['inline', 'threads'])
@pytest.mark.parametrize('name', ['record.json', 'status.json'])
def test_what_the_disk_says_at_the_end_of_a_run_keeps_no_lock(coll, base, monkeypatch, executor, name):
    """A network disk may refuse the closing of a file: the result is given, and the next run can begin."""
    real, refused = os.close, []

    def close(fd):
        try:
            path = os.readlink(f'/proc/self/fd/{fd}')
        except OSError:
            path = ''
        real(fd)
        if path.endswith(f'/coll/b/{name}') and is_over:
            refused.append(path)
            raise OSError(errno.EIO, os.strerror(errno.EIO))

    is_over = []
    begin = compute._compute
    monkeypatch.setattr(compute, '_compute', lambda *args: (begin(*args), is_over.append(True))[0])
    with monkeypatch.context() as patched:
        patched.setattr(os, 'close', close)
        (res,) = coll.fetch_many('coll', {'b': NEW}, executor=executor, workers=1)
    assert refused
    assert res.result == NEW
    assert coll.fetch('coll', 'b', OLD, recompute=True).result == OLD


def test_a_disk_that_refuses_unlocking_keeps_no_lock(coll, monkeypatch):
    """The lock goes with its descriptor, which is closed whatever unlocking says: the next run can begin."""
    real = fcntl.flock

    def flock(fd, how):
        if how == fcntl.LOCK_UN:
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        return real(fd, how)

    monkeypatch.setattr(fcntl, 'flock', flock)
    for _ in range(2):
        assert coll.fetch('coll', 'a', NEW, recompute=True, wait=5).status == 'completed'
