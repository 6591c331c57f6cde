"""`at_once=` and `rate=`: limits of a collection that hold in all processes together, on every executor."""

import os
import signal
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from conftest import HANG, await_that
from test_executor_contract import cluster, executor  # noqa: F401  fixtures

import hadrosaur
from hadrosaur import Project, limits


def counts(ident, args, subdir):
    """How many run at this moment, itself included: each has a file as long as it runs."""
    folder = Path(args['folder'])
    mine = folder / f'{ident}.{os.getpid()}.{threading.get_ident()}'
    mine.touch()
    seen = 0
    end = time.monotonic() + args.get('seconds', 0.05)
    while time.monotonic() < end:
        seen = max(seen, len(list(folder.iterdir())))
        time.sleep(0.002)
    mine.unlink()
    return seen


@pytest.fixture
def running(tmp_path):
    """A folder that holds a file for each run under way."""
    folder = tmp_path / 'running'
    folder.mkdir()
    return folder


def test_no_more_run_at_once(proj, executor, running):  # noqa: F811
    """Two batches of four workers, one of them of another Project: never more than two runs at a time."""
    proj.resource('coll', at_once=2)(counts)
    other = Project(proj.path)
    other.resource('coll', at_once=2)(counts)
    args = {'folder': str(running)}
    with ThreadPoolExecutor(2) as threads, other:
        batches = [
            threads.submit(list, each.fetch_many('coll', idents, args, executor=executor, workers=workers))
            for each, idents, workers in (
                (proj, range(8), None if executor == 'inline' else 4),
                (other, range(8, 16), None if executor == 'inline' else 4),
            )
        ]
        found = [each for batch in batches for each in batch.result(HANG)]
    assert [each.error for each in found if each.error] == []
    assert len(found) == 16
    assert max(each.result for each in found) <= 2
    assert proj.stats()['coll']['completed'] == 16


def meets(ident, args, subdir):
    """Returns when another of these runs."""
    Path(args['folder'], ident).touch()
    end = time.monotonic() + 60
    while len(os.listdir(args['folder'])) < 2:
        assert time.monotonic() < end
        time.sleep(0.005)


def test_as_many_run_as_may(proj, executor, running):  # noqa: F811
    """Two places are two runs at a time, not one."""
    if executor == 'inline':
        return
    proj.resource('coll', at_once=2)(meets)
    batch = proj.fetch_many('coll', ['a', 'b'], {'folder': str(running)}, executor=executor, workers=2)
    assert [each.status for each in batch] == ['completed'] * 2


def test_fetches_of_all_kinds_keep_it(proj, running):
    """Inline in threads of the program, in the background, nested in others: one at a time."""
    proj.resource('coll', at_once=1)(counts)
    args = {'folder': str(running)}
    proj.resource('outer')(lambda ident, args, subdir: proj.fetch('coll', ident, args).value)
    with ThreadPoolExecutor(4) as threads:
        found = [threads.submit(proj.fetch, 'coll', f'here{n}', args) for n in range(3)]
        found += [threads.submit(proj.fetch, 'coll', f'behind{n}', args, background=True) for n in range(3)]
        nested = list(proj.fetch_many('outer', range(4), args, workers=2))
    values = [each.result().value for each in found] + [each.result for each in nested]
    assert values == [1] * 10


def test_a_resource_of_its_own_collection_shares_the_place(proj):
    """A recursive function needs one place, however deep it goes."""

    def depth(ident, args, subdir):
        return 0 if ident == '0' else 1 + proj.fetch('coll', int(ident) - 1).value

    proj.resource('coll', at_once=1)(depth)
    assert proj.fetch('coll', 5).value == 5
    assert proj.fetch_many('coll', [9], workers=1).wait().completed == 1


def test_the_place_of_a_dead_process_is_free(proj):
    """A worker that is killed, and one that exits, have given their place back."""

    def dies(ident, args, subdir):
        if ident == 'killed':
            os.kill(os.getpid(), signal.SIGKILL)
        if ident == 'exits':
            os._exit(3)
        if ident == 'closes':
            os.closerange(3, 50)
        return ident

    proj.resource('coll', at_once=1)(dies)
    found = {each.ident: each for each in proj.fetch_many('coll', ['killed', 'exits', 'closes', 'a', 'b'])}
    assert {ident for ident, each in found.items() if each.status == 'completed'} >= {'a', 'b'}
    assert proj.fetch('coll', 'c').status == 'completed'


def test_others_do_not_wait_with_it(proj):
    """While all places are taken elsewhere, background work of other collections goes on."""
    proj.resource('coll', at_once=2, background=True)(lambda ident, args, subdir: ident)
    proj.resource('other', background=True)(lambda ident, args, subdir: ident)
    order = proj._store.job(proj._registry.get('coll'), 'x', None, 'x')
    taken = [limits.take_place(order) for _ in range(2)]
    assert limits.take_place(order) is None
    waiting = [proj.fetch('coll', n) for n in range(8)]
    assert [proj.fetch('other', n).wait(HANG).status for n in range(8)] == ['completed'] * 8
    assert {each.wait(0).status for each in waiting} == {'pending'}
    for place in taken:
        place.give_back()
    assert {each.wait(HANG).status for each in waiting} == {'completed'}


def test_a_retry_that_waits_keeps_nobody_from_running(proj):
    """The time before a retry is spent without a place."""

    def function(ident, args, subdir):
        if ident == 'fails':
            raise ValueError
        return ident

    proj.resource('coll', at_once=1, retries=1, retry_delay=3600)(function)
    batch = proj.fetch_many('coll', ['fails', 'a', 'b'], executor='threads', workers=2)
    assert {next(batch).ident, next(batch).ident} == {'a', 'b'}
    batch.cancel()
    batch.wait()


def test_what_waits_for_its_turn_can_be_cancelled(proj, base):
    """By the batch and from another process: it is as if never asked for; what runs goes on or is killed."""
    proj.resource('coll', at_once=1, background=True)(lambda ident, args, subdir: time.sleep(600))
    waiting = [proj.fetch('coll', n) for n in range(3)]
    await_that(lambda: len(proj.query('coll', status='pending')) == 3)
    with Project(base, create=False) as other:
        other.cancel('coll', 2)
    with pytest.raises(hadrosaur.ResourceNotFound):
        waiting[2].wait(HANG)
    proj.cancel('coll', 1)
    with pytest.raises(hadrosaur.ResourceNotFound):
        waiting[1].wait(HANG)
    proj.cancel('coll')
    assert waiting[0].wait(HANG).entry.error_type == 'Cancelled'


def begins(ident, args, subdir):
    """When it began."""
    return time.time()


def test_no_more_begin_in_a_time(proj, executor):  # noqa: F811
    """Starts keep their distance, in all workers and batches together."""
    proj.resource('coll', rate=6.5)(begins)
    workers, began = None if executor == 'inline' else 2, time.monotonic()
    batches = [
        proj.fetch_many('coll', idents, executor=executor, workers=workers) for idents in (['a', 'b'], ['c'])
    ]
    with ThreadPoolExecutor(2) as threads:
        found = [each.status for batch in threads.map(list, batches) for each in batch]
    found.append(proj.fetch('coll', 'd').status)
    assert found == ['completed'] * 4
    assert time.monotonic() - began >= 3 / 6.5  # however busy the machine is, the fourth cannot begin before


def test_any_stretch_of_time_counts(proj, monkeypatch):
    """In no ten seconds do more than three begin; a clock that was set back, or another rate, starts anew."""
    now = [1000.0]
    monkeypatch.setattr(limits.time, 'time', lambda: now[0])
    task = proj_task(proj, (3, 10.0))
    began = []
    while now[0] < 1100:
        told = limits.until_next_start(task)
        wait = limits.start(task)
        assert wait == told
        if not wait:
            began.append(now[0])
        now[0] += wait or 1.5
    assert all(later - earlier >= 10 for earlier, later in zip(began, began[3:], strict=False))
    assert len(began) >= 29
    now[0] -= 5e6
    assert limits.start(task) == 0
    now[0] += 5e6
    wider = proj_task(proj, (4, 10.0))  # one more than those that are known of the last ten seconds
    assert [bool(limits.start(wider)) for _ in range(3)][-1]


def proj_task(proj, rate):
    """The task of a collection with a rate."""
    proj.resource('coll')(begins)
    return proj._registry.get('coll').spec._replace(rate=rate)


@pytest.mark.parametrize(
    ('given', 'meant'),
    [
        ('10/min', (10, 60.0)),
        ('10 per minute', (10, 60.0)),
        ('5/s', (5, 1.0)),
        ('100/hour', (100, 3600.0)),
        ('1/Day', (1, 86400.0)),
        ('1.5/min', (1, 40.0)),
        (10, (10, 1.0)),
        (2.5, (1, 0.4)),
        (None, None),
    ],
)
def test_rates_as_people_write_them(proj, given, meant):
    """Starts per second, or a text; what is no whole number is one start at a time, evenly."""
    assert limits.rate_of(given) == meant
    proj.resource('coll', rate=given)(begins)


@pytest.mark.parametrize(
    'given', ['fast', '10', '10/fortnight', 0, -1, True, float('nan'), '0/s', [10], '-1/s', 1e9]
)
def test_what_is_no_rate_is_refused(proj, given):
    """At registration, in words."""
    with pytest.raises(ValueError, match='rate'):
        proj.resource('coll', rate=given)(begins)


@pytest.mark.parametrize('given', [0, -1, True, 1.5, '4', 1_000_000])
def test_what_is_no_number_of_runs_is_refused(proj, given):
    """At registration, in words."""
    with pytest.raises(ValueError, match='at_once'):
        proj.resource('coll', at_once=given)(begins)


@pytest.mark.parametrize('limit', [{'at_once': 1}, {'rate': 5}], ids=str)
def test_a_folder_that_is_none_is_named(proj, tmp_path, limit):
    """A link in the place of the folder of limits is not followed: nothing is begun, and it is named."""
    folder = Path(proj.path, '.hadrosaur/limits')
    folder.parent.mkdir(parents=True, exist_ok=True)
    folder.symlink_to(tmp_path)
    before = sorted(os.listdir(tmp_path))
    proj.resource('coll', **limit)(begins)
    found = [proj.fetch('coll', 'a'), *proj.fetch_many('coll', ['b'])]
    for each in found:
        assert 'limits' in each.entry.error
    assert sorted(os.listdir(tmp_path)) == before
    assert len(proj.query('coll')) == 0


def test_ctrl_c_ends_the_wait_for_a_place(program, tmp_path):
    """A fetch that waits for its turn in the main thread can be interrupted, and is as if never asked for."""
    process = program(
        """
        import os, hadrosaur
        from hadrosaur import limits

        proj = hadrosaur.Project('base')
        proj.resource('coll', at_once=1)(lambda ident, args, subdir: ident)
        place = limits.take_place(proj._store.job(proj._registry.get('coll'), 'x', None, 'x'))
        proj.stats()
        try:
            open('waits', 'w').close()
            proj.fetch('coll', 'a')
        except KeyboardInterrupt:
            place.give_back()
            print(len(proj.query()), proj.fetch('coll', 'a').result)
        """,
        start=True,
    )
    await_that(lambda: (tmp_path / 'waits').exists() or process.poll() is not None)
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=HANG)
    assert out == '0 a\n', err


def test_whatever_stands_in_the_place_of_a_limit_is_replaced(proj, tmp_path):
    """Links, folders and junk there are neither followed nor a reason to fail."""
    outside = tmp_path / 'outside'
    outside.write_text('mine')
    folder = Path(proj.path, '.hadrosaur/limits')
    folder.mkdir(parents=True)
    (folder / 'coll.0').symlink_to(outside)
    (folder / 'coll.rate').write_bytes(b'junk' * 5)
    proj.resource('coll', at_once=1, rate='1000/s')(begins)
    assert proj.fetch('coll', 'a').status == 'completed'
    (folder / 'coll.rate').unlink()
    os.mkfifo(folder / 'coll.rate')
    assert proj.fetch('coll', 'b').status == 'completed'
    assert outside.read_text() == 'mine'
