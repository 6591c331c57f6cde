"""A first run writes what any other does, and finds out who was in its folder before it was locked."""

import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from test_records_as_we_write_them import ARGS, LINE

from hadrosaur import canonical, compute, directory, fileops
from hadrosaur.basedir import HOST
from hadrosaur.metrics import Cost
from hadrosaur.records import INDEXED_RESULT, CollectionSpec, Job, format_time
from hadrosaur.run_record import RunRecord

TEXT = LINE.filter(bool)
MOMENT = format_time(1.7e9)


@given(
    names=st.tuples(TEXT, TEXT),
    args=ARGS,
    version=st.none() | LINE,
    history=st.none() | st.just('[{"attempt": 1}]'),
    program=st.none() | st.just('c0ffee'),
    most=st.sampled_from([0, 10, INDEXED_RESULT]),
    cost=st.builds(Cost, st.floats(0, 1e6), st.floats(0, 1e6), st.none() | st.integers(0, 10**12)),
    uses=st.none() | st.just('[["a", "b", "c", "d"]]'),
)
def test_the_records_of_a_run_are_those_of_its_rows(names, args, version, history, program, most, cost, uses):
    """What is formatted ahead is, byte for byte, what is written of a row, and so is the row."""
    task = CollectionSpec(names[0], 'folder', '/base', 'base', version=version, index_result=most)
    text = canonical.args_json(args)
    order = Job(task, 'ab12', names[1], 'x', text, canonical.args_hash(text), MOMENT, provenance=program)
    run, result = RunRecord(order, 3, MOMENT, history, 'descriptors'), b'{"n": 1}\n'

    known = {'attempt': 3, 'history': history, 'started_at': MOMENT, 'host': HOST, 'pid': os.getpid()}
    known['run'] = 'ab12'
    begun = order.entry('pending').change(**known)
    assert run.entry('pending') == begun
    assert run.begun() == directory.record_bytes(begun, 'begun', 'ab12', capture='descriptors')

    run.cost, run.finished_at = cost, format_time(1.8e9)
    done = begun.change(status='completed', finished_at=run.finished_at, **cost._asdict())
    if uses is not None:
        run.made_from(uses, {'uses_count': 1001}, '[["/x", 1, 2, "d"]]')
        done = done.change(uses=uses, inputs='[["/x", 1, 2, "d"]]')
    more = {} if uses is None else {'uses_count': 1001}
    more |= {
        'capture': 'descriptors',
        'result_size': len(result),
        'result_sha256': directory.checksum(result),
    }
    more |= {} if most == INDEXED_RESULT else {'index_result': most}
    assert run.entry('completed', '{"n": 1}', 7) == done.change(result='{"n": 1}', seen_mtime_ns=7)
    assert run.completed(result) == directory.record_bytes(done, 'completed', 'ab12', **more)
    failed = done.change(status='error', error_type='E', error='x"y')
    assert directory.parse_record(run.failed(failed, None))['error'] == 'x"y'


@pytest.mark.parametrize('who', ['computes it', 'queues it', 'begins it and dies'])
def test_somebody_may_be_there_between_making_and_locking(proj, base, monkeypatch, who):
    """What another process has put into a folder that we have just made is looked at first."""
    runs, orders = [], []

    @proj.resource('coll')
    def compute_it(ident, args, subdir):
        runs.append(os.listdir(Path(subdir).parent))
        return len(runs)

    known = proj._registry.get('coll')
    real = fileops.make_folder

    def make_folder(name, folder):
        made = real(name, folder)
        if name == 'x' and not orders:
            orders.append(proj._store.job(known, 'x', '{}', 'x'))
            if who == 'queues it':
                assert compute.enqueue(orders[0])
            elif who == 'computes it':
                assert compute.carry_out(orders[0], known.function).fresh
            else:
                stranger = RunRecord(proj._store.job(known, 'x', '{"n": 1}', 'x'), 7, MOMENT, None, 'off')
                (base / 'coll/x/record.json').write_bytes(stranger.begun())
                (base / 'coll/x/status.json').write_bytes(directory.STATUS_BYTES['pending'])
        return made

    monkeypatch.setattr(fileops, 'make_folder', make_folder)

    res = proj.fetch('coll', 'x')
    assert res.value == 1
    assert len(runs) == 1
    assert res.entry.attempt == (8 if who == 'begins it and dies' else 1)
    assert proj.get('coll', 'x').value == 1
