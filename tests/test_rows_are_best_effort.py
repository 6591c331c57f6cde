"""Computing goes on while the index is locked, missing, damaged or being rebuilt; its rows follow."""

import itertools
import linecache
import os
import signal
import sqlite3
import sys
import time
import warnings

import pytest
from conftest import HANG, await_that

from hadrosaur import Counts, HadrosaurWarning, Project, row_events, row_writer

WAYS = ['a transaction', 'a rebuild']
HOLD = """
    import fcntl, sqlite3, sys
    base, how = sys.argv[1:]
    if how == 'a transaction':
        connection = sqlite3.connect(f'{base}/index.sqlite3', isolation_level=None)
        connection.execute('BEGIN IMMEDIATE')
    else:
        lock = open(f'{base}/.hadrosaur/index.lock', 'w')
        fcntl.flock(lock, fcntl.LOCK_EX)
    print('held', flush=True)
    sys.stdin.read()
    """
MARKS = '.hadrosaur/sessions'


@pytest.fixture
def held(program, base):
    """Another program holds the index, until it is released."""
    holders = []

    def hold(how='a transaction'):
        import subprocess

        holder = program(HOLD, base, how, start=True, stdin=subprocess.PIPE)
        assert holder.stdout.readline() == 'held\n'
        holders.append(holder)

        def release():
            holder.stdin.close()
            holder.stdout.read()
            holder.wait(60)
            holder.stdin = None

        return release

    return hold


def rows(base):
    """What another process finds in the index: status by ident; and it agrees with the folders."""
    with Project(base, create=False) as other:
        found = {entry.ident: entry.status for entry in other.query()}
        assert other.check(deep=True).findings == []
    return found


def marks(base):
    """Names of the sessions that left rows unwritten."""
    return [name for name in os.listdir(base / MARKS) if name.endswith('.unwritten')]


def quietly():
    """Without the warning that rows could not be written, which is not what is tested."""
    return pytest.mark.filterwarnings(
        'ignore:.*could not be written|.*left unwritten:hadrosaur.HadrosaurWarning'
    )


# --- the index is locked -----------------------------------------------------------------------------


@quietly()
@pytest.mark.parametrize('how', WAYS)
@pytest.mark.parametrize('executor', ['fetch', 'background', 'inline', 'threads', 'processes'])
def test_new_resources_are_computed_while_another_program_holds_the_index(proj, base, held, executor, how):
    """Each way to compute goes on; once the index is free, it says the same as the folders."""

    @proj.resource('coll', retries=1)
    def compute(ident, args, subdir):
        from hadrosaur import current

        if ident == 'bad' or (ident == 'again' and current().attempt == 1):
            raise ValueError(ident)
        return ident

    proj.fetch('coll', 'before')
    release = held(how)

    idents = ['a', 'b', 'bad', 'again']
    if executor in ('fetch', 'background'):
        found = [proj.fetch('coll', ident, background=executor == 'background') for ident in idents]
        found = [resource.wait(60) if resource.status == 'pending' else resource for resource in found]
    else:
        found = list(proj.fetch_many('coll', idents, executor=executor, workers=2))
    assert {resource.ident: resource['result'] for resource in found} == {
        'a': 'a', 'b': 'b', 'bad': None, 'again': 'again'
    }  # fmt: skip
    release()
    proj.close()

    assert rows(base) == {
        'before': 'completed', 'a': 'completed', 'b': 'completed', 'bad': 'error', 'again': 'completed'
    }  # fmt: skip
    assert marks(base) == []


@quietly()
def test_a_timeout_kills_while_the_index_is_locked(proj, base, held):
    """The thread that looks at clocks and deaths never waits for the index."""

    @proj.resource('coll', timeout=0.5)
    def compute(ident, args, subdir):
        if ident == 'hangs':
            time.sleep(600)
        if ident == 'dies':
            os._exit(3)
        return ident

    proj.fetch('coll', 'before')
    release = held()
    found = {
        resource.ident: resource.entry.error_type
        for resource in proj.fetch_many('coll', ['hangs', 'dies', 'fine'], workers=2)
    }
    release()

    assert found == {'hangs': 'TimedOut', 'dies': 'WorkerDied', 'fine': None}
    assert {entry.ident: entry.error_type for entry in proj.query()} == {**found, 'before': None}


@quietly()
def test_looking_and_waiting_while_the_index_is_locked(proj, held):
    """What asks the index for a decision decides without it."""
    proj.resource('coll')(lambda ident, args, subdir: ident)
    proj.fetch('coll', 'a')
    release = held('a rebuild')

    assert proj.get('coll', 'a')['result'] == 'a'
    assert proj.explain('coll', 'b').computes
    assert proj.fetch('coll', 'b')['result'] == 'b'
    assert proj.fetch('coll', 'b', recompute=True)['result'] == 'b'
    proj.remove('coll', 'a')
    release()

    assert {entry.ident: entry.attempt for entry in proj.query()} == {'b': 2}


@quietly()
@pytest.mark.parametrize('how', WAYS)
def test_an_index_that_is_locked_at_the_first_use(program, base, held, how):
    """A program whose very first resource meets a locked index computes it."""
    with Project(base) as proj:
        proj.resource('coll')(lambda ident, args, subdir: ident)
        proj.fetch('coll', 'before')
    release = held(how)
    with Project(base) as proj:
        proj.resource('coll')(lambda ident, args, subdir: ident)
        assert proj.fetch('coll', 'a')['result'] == 'a'
        assert proj.fetch_many('coll', ['b', 'c'], workers=1).wait() == Counts(2, 2)
        release()

    assert rows(base) == dict.fromkeys(['before', 'a', 'b', 'c'], 'completed')


def test_ctrl_c_is_heard_while_the_index_is_locked(program, base, held):
    """It ends the program while the index is still locked."""
    with Project(base) as proj:
        proj.resource('coll')(lambda ident, args, subdir: ident)
        proj.fetch('coll', 'before')
    release = held()
    fetching = program(
        """
        import sys
        from hadrosaur import Project, row_writer

        row_writer.LAST = 0.1
        proj = Project(sys.argv[1])
        proj.resource('coll')(lambda ident, args, subdir: ident)
        number = 0
        while True:
            number += 1
            proj.fetch('coll', str(number % 100), recompute=True)
            print(number, flush=True)
        """,
        base,
        start=True,
    )
    assert fetching.stdout.readline() == '1\n'
    fetching.send_signal(signal.SIGINT)
    _, err = fetching.communicate(timeout=HANG)  # the index is locked all the while
    release()

    assert 'KeyboardInterrupt' in err
    assert fetching.returncode == 130 or -fetching.returncode == signal.SIGINT, err
    assert rows(base)['before'] == 'completed'


def test_what_is_wrong_is_said_once(proj, base, held, monkeypatch):
    """Not for each resource; and again if it happens again."""
    monkeypatch.setattr(row_writer, 'BUSY_SAID', 0.0)
    failed, real = [], row_writer.RowWriter._failed
    monkeypatch.setattr(row_writer.RowWriter, '_failed', lambda *args: failed.append(real(*args)))
    proj.resource('coll')(lambda ident, args, subdir: ident)
    proj.fetch('coll', 'before')
    release = held()
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter('always')
        for ident in 'abcdef':
            proj.fetch('coll', ident)
        await_that(lambda: len(failed) > 3)
        release()
        proj.close()

    assert [str(warning.message).partition(':')[0] for warning in told] == [
        f'the index of {str(base)!r} could not be written'
    ]
    assert told[0].category is HadrosaurWarning
    assert 'the rows follow as soon as it can be' in str(told[0].message)


# --- the index is lost -------------------------------------------------------------------------------


@pytest.mark.filterwarnings('ignore::hadrosaur.HadrosaurWarning')
@pytest.mark.parametrize('executor', ['inline', 'processes'])
@pytest.mark.parametrize('how', ['deleted', 'damaged', 'rebuilt'])
def test_an_index_that_is_lost_in_mid_batch(proj, base, executor, how):
    """It is made anew, and ends with a row for each resource."""
    proj.resource('coll')(lambda ident, args, subdir: ident)
    idents = [str(number) for number in range(120)]
    for number, _ in enumerate(proj.fetch_many('coll', idents, executor=executor, workers=2)):
        if number == 40:
            spoil(base, how)
    proj.close()

    assert rows(base) == dict.fromkeys(idents, 'completed')


def spoil(base, how):
    """Delete the index, write over its header, or have another Project replace it."""
    if how == 'rebuilt':
        with Project(base) as other:
            other.reindex(fresh=True)
        return
    for side in ('', '-wal', '-shm'):
        if how == 'deleted':
            (base / f'index.sqlite3{side}').unlink(missing_ok=True)
        elif (base / f'index.sqlite3{side}').exists():
            with open(base / f'index.sqlite3{side}', 'r+b') as file:
                file.write(b'no index' * 1024)


# --- the end comes before the rows -------------------------------------------------------------------

LEAVES_ROWS = """
    import os, signal, sys
    from hadrosaur import Project, row_writer

    row_writer.LAST = 0.1
    base, how = sys.argv[1:]
    proj = Project(base)
    proj.resource('coll')(lambda ident, args, subdir: ident)
    for ident in 'abc':
        proj.fetch('coll', ident)
    if how == 'killed':
        while not any(name.endswith('.unwritten') for name in os.listdir(f'{base}/.hadrosaur/sessions')):
            pass
        os.kill(os.getpid(), signal.SIGKILL)
    elif how == 'closed':
        proj.close()
    elif how == 'multiprocessing':
        import multiprocessing

        child = multiprocessing.get_context('fork').Process(target=proj.fetch, args=('coll', 'd'))
        child.start()
        child.join()
    """


@pytest.mark.parametrize(
    ('how', 'who'),
    [
        ('ends', 'reads'),
        ('closed', 'computes'),
        ('killed', 'reads'),
        ('killed', 'computes'),
        ('multiprocessing', 'reads'),
    ],
)
def test_rows_that_a_program_left_unwritten_are_written_by_the_next(program, base, held, how, who):
    """Whether it reads or computes; and only the first has to look."""
    with Project(base) as proj:
        proj.resource('coll')(lambda ident, args, subdir: ident)
        proj.fetch('coll', 'before')
    release = held()
    done = program(LEAVES_ROWS, base, how, check=False)
    assert done.returncode == (-signal.SIGKILL if how == 'killed' else 0), done.stderr
    assert marks(base)
    release()

    if who == 'computes':
        with Project(base) as proj:
            proj.resource('coll')(lambda ident, args, subdir: ident)
            proj.fetch('coll', 'new')
        with sqlite3.connect(base / 'index.sqlite3') as index:
            found = dict(index.execute('SELECT ident, status FROM resources'))
    else:
        found = rows(base)
    expected = ['before', *'abc', *['new'] * (who == 'computes'), *['d'] * (how == 'multiprocessing')]
    assert found == dict.fromkeys(expected, 'completed')
    assert marks(base) == []


@quietly()
def test_a_living_process_writes_its_rows_itself(proj, base, held):
    """Its mark is nobody else's business."""
    proj.resource('coll')(lambda ident, args, subdir: ident)
    proj.fetch('coll', 'before')
    release = held()
    proj.fetch('coll', 'a')
    await_that(lambda: marks(base))
    with Project(base, create=False) as other:
        list(other.query())
        assert marks(base)
    release()
    await_that(lambda: not marks(base))

    assert rows(base) == dict.fromkeys(['before', 'a'], 'completed')


def test_a_child_that_is_forked_while_rows_wait(program, base, held):
    """The rows are the parent's to write; the child has its own."""
    with Project(base) as proj:
        proj.resource('coll')(lambda ident, args, subdir: ident)
        proj.fetch('coll', 'before')
    release = held()
    forked = program(
        """
        import os, sys
        from hadrosaur import Project

        proj = Project(sys.argv[1])
        proj.resource('coll')(lambda ident, args, subdir: ident)
        proj.fetch('coll', 'parent')
        assert proj._store.rows.is_behind
        child = os.fork()
        assert child or not proj._store.rows.is_behind
        proj.fetch('coll', 'parent again' if child else 'child')
        if child:
            print('fetched', flush=True)
            sys.stdin.readline()
        else:
            os.read(0, 1)
        proj.close()
        assert child == 0 or os.waitpid(child, 0)[1] == 0
        """,
        base,
        start=True,
        stdin=-1,
    )
    assert forked.stdout.readline() == 'fetched\n'
    release()
    _, err = forked.communicate('go\n\n', timeout=HANG)

    assert forked.returncode == 0, err
    assert rows(base) == dict.fromkeys(['before', 'parent', 'parent again', 'child'], 'completed')
    assert marks(base) == []


# --- the end comes while rows wait for their turn ----------------------------------------------------


def killed_before_its_turn(base, ident):
    """Compute in a process that ends before the thread has had its turn; how it ended."""
    child = os.fork()
    if child == 0:
        with warnings.catch_warnings():
            warnings.simplefilter('ignore')
            try:
                proj = Project(base)
                turn = proj._store.rows._applying  # whoever has it writes
                proj.resource('coll')(lambda ident, args, subdir: 'new')

                @proj.resource('outer')
                def outer(ident, args, subdir):
                    proj.fetch('coll', ident, recompute=True)
                    return turn.acquire()

                if ident == 'nested':
                    proj.fetch('outer', ident)
                else:
                    proj.fetch('coll', 'warm')
                    turn.acquire()
                    proj.fetch('coll', ident, recompute=True)
            finally:
                os._exit(os.EX_OK if proj._store.rows._events else os.EX_SOFTWARE)
    return os.waitpid(child, 0)[1]


@pytest.mark.parametrize('ident', ['first', 'again', 'nested'])
def test_rows_that_wait_for_their_turn_when_the_process_ends_are_written_by_the_next(base, ident):
    """Ended by os._exit, as by kill -9, before anybody tried to write them: the next one knows."""
    with Project(base) as proj:
        proj.resource('coll')(lambda ident, args, subdir: 'old')
        for old in ('before', 'again', 'nested'):
            proj.fetch('coll', old)

    assert killed_before_its_turn(base, ident) == os.EX_OK
    rows(base)
    with sqlite3.connect(base / 'index.sqlite3') as index:
        found = dict(index.execute("SELECT ident, attempt FROM resources WHERE collection = 'coll'"))
    expected = {'before': 1, 'again': 1, 'nested': 1, **({'warm': 1} if ident != 'nested' else {})}
    assert found == {**expected, ident: 1 if ident == 'first' else 2}
    assert marks(base) == []


def test_rows_that_are_written_in_time_leave_no_mark(proj, base):
    """Where a run of a batch fetches others, their rows are marked until they are written, no longer."""
    proj.resource('coll')(lambda ident, args, subdir: ident)
    proj.resource('outer')(lambda ident, args, subdir: proj.fetch('coll', ident).value)
    marked = []
    real = proj._base.mark_unwritten
    proj._base.mark_unwritten = lambda: marked.append(real())
    assert proj.fetch_many('outer', [*'abc'], workers=1, executor='threads').wait() == Counts(3, 3)

    assert marked
    assert marks(base) == []


# --- Ctrl-C ------------------------------------------------------------------------------------------


def interrupted(number, code, action):
    """Call with Ctrl-C at that line of a function; False where it has no so many (or had to wait)."""
    left = [number]

    def on_line(frame, event, arg):
        if event == 'line' and not linecache.getline(code.co_filename, frame.f_lineno).strip().startswith(
            'with'
        ):
            left[0] -= 1
            if left[0] == 0:
                raise KeyboardInterrupt
        return on_line

    before = sys.gettrace()
    sys.settrace(lambda frame, event, arg: on_line if frame.f_code is code else None)
    try:
        action()
    except KeyboardInterrupt:
        pass
    finally:
        sys.settrace(before)
    return left[0] <= 0


@pytest.mark.parametrize('where', ['put', '_take_up'])
def test_ctrl_c_between_two_steps_loses_no_row_and_no_count(proj, monkeypatch, where):
    """Wherever it comes while an event is taken, or tried again: what was taken is written in time."""
    rows, written = proj._store.rows, []
    monkeypatch.setattr(rows, '_wake', lambda: None)  # nobody else writes
    monkeypatch.setattr(rows, '_apply', written.extend)
    code = getattr(row_writer.RowWriter, where).__code__
    for number in itertools.count(1):
        first, second = row_events.Event('queue', ['row']), row_events.Event('queue', ['row'])
        if where == 'put':
            reached = interrupted(number, code, lambda: rows.put(first))  # noqa: B023
        else:
            rows._later.append((0.0, first))
            reached = interrupted(number, code, rows.flush)
        rows.flush()
        rows.put(second)
        assert rows.flush()
        assert not rows.is_behind
        assert second in written
        assert where == 'put' or first in written
        if not reached:
            break
    assert number > 4
