"""Records as we write them are read by one pattern: as the careful reader reads them, or not at all."""

import json
import os

import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st
from test_index import done, failed

from hadrosaur import Project, canonical, directory, fileops, scan
from hadrosaur.directory import record_pattern
from hadrosaur.handle import of_one_run
from hadrosaur.records import format_time

LINE = st.text(st.characters(codec='utf-8'), max_size=12)
NAMES = st.none() | LINE
TIMES = st.none() | st.floats(1, 4e9).map(format_time)
NUMBERS = st.none() | st.integers(0, 10**20) | st.floats(0, 1e9) | st.sampled_from([1e-05, 1e-300, 1e22, 0.1])
COUNTS = st.none() | st.integers(0, 10**20)
ARGS = st.dictionaries(
    st.text('aé"', max_size=2), st.none() | st.integers() | LINE | st.floats(0, 1), max_size=3
)

ENTRIES = st.fixed_dictionaries(
    {
        'args': ARGS.map(canonical.args_json),
        'attempt': st.integers(0, 10**10),
        'queued_at': TIMES,
        'started_at': TIMES,
        'finished_at': TIMES,
        'duration': NUMBERS,
        'cpu_seconds': NUMBERS,
        'error_type': NAMES,
        'error': NAMES,
        'error_group': NAMES,
        'host': NAMES,
        'pid': COUNTS,
        'max_rss': COUNTS,
        'version': NAMES,
    }
)
MORE = st.dictionaries(
    st.sampled_from(['capture', 'result_size', 'error_frame', 'attempt', 'index_result', 'later']),
    NAMES | st.integers(0, 10**6),
    max_size=3,
)


@pytest.fixture(scope='module')
def folder(tmp_path_factory):
    """The folder of a completed resource, alone in its collection."""
    proj = Project(tmp_path_factory.mktemp('base'))
    proj.resource('coll')(lambda ident, args, subdir: {'n': 1})
    proj.fetch('coll', 'one')
    proj.close()
    return proj._base.path


def both(base, data, status='completed'):
    """What a walk finds by the pattern (None: nothing), and by the careful reader."""
    path = f'{base}/coll/one'
    with open(f'{path}/record.json', 'wb') as record:
        record.write(data)
    with open(f'{path}/status.json', 'wb') as file:
        file.write(directory.STATUS_BYTES[status])
    with fileops.opened(f'{base}/coll') as parent, fileops.opened(path) as opened:
        visit = scan._Visit('coll', 'coll', parent)
        quick = visit._quickly('coll/one', 'one', opened, None)
        where = ('coll', 'coll/one', 'one', opened, parent)
        careful = of_one_run(opened, lambda record: scan._look(record, *where))
    return quick, careful


def same(quick, careful):
    """Equal to the cell, in type too."""
    assert quick == careful
    assert list(map(type, quick.entry)) == list(map(type, careful.entry))


@settings(max_examples=80, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(cells=ENTRIES, more=MORE, state=st.sampled_from(['completed', 'error']))
def test_whatever_we_may_write_is_read_alike(folder, cells, more, state):
    """Any text, number and time in any field, and any field that a later release may add."""
    make = done if state == 'completed' else failed
    entry = make('one', 'coll').change(**cells, args_hash=canonical.args_hash(cells['args']))
    quick, careful = both(folder, directory.record_bytes(entry, state, 'run', **more), state)
    if quick is not None:
        same(quick, careful)


@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_whatever_is_changed_in_a_record_is_read_alike(folder, data):
    """Bytes are removed, replaced or doubled: the pattern gives what the careful reader gives, or nothing."""
    entry = done('one', 'coll', host='here', pid=5, cpu_seconds=0.25).change(
        args='{"a":1}', args_hash=canonical.args_hash('{"a":1}')
    )
    record = directory.record_bytes(entry, 'completed', 'run', capture='auto')
    start = data.draw(st.integers(0, len(record) - 1))
    end = data.draw(st.integers(start, min(len(record), start + 30)))
    put = data.draw(
        st.sampled_from(
            [b'', b'0', b'1', b'-', b'.', b'"', b'\\', b'null', b'\n', b' ', b'\xff', b'e5', b'true']
        )
        | st.just(record[start:end] * 2)
    )
    changed = record[:start] + put + record[end:]
    assume(changed != record)
    quick, careful = both(folder, changed)
    if quick is not None:
        same(quick, careful)


@pytest.mark.parametrize(
    ('old', 'new'),
    [
        ('2026-01-01T00:00:01', '2026-02-30T00:00:01'),
        ('"attempt": 1', '"attempt": true'),
        ('"attempt": 1', '"attempt": 0'),
        ('"duration": 1.0', '"duration": 1e999'),
        ('"duration": 1.0', '"duration": 01'),
        ('"pid": 5', '"pid": 9999999999999999999999'),
        ('"host": "here"', '"host": "h\\u0065re"'),
        ('"capture": "auto"', '"attempt": 7'),
        ('"capture": "auto"', '"error_bases": ["A"]'),
        ('{"a":1}', '{"a": 1}'),
        ('{"a":1}', '{"a":2}'),
        ('"format": 1', '"format": 2'),
    ],
)
def test_what_is_nearly_ours_is_for_the_careful_reader(folder, old, new):
    """A value that SQLite or we would show otherwise, a field that comes twice, args of another hash."""
    entry = done('one', 'coll', host='here', pid=5, cpu_seconds=0.25).change(
        args='{"a":1}', args_hash=canonical.args_hash('{"a":1}')
    )
    record = directory.record_bytes(entry, 'completed', 'run', capture='auto').decode()
    assert record_pattern.cells(record.encode()) is not None
    assert old in record
    assert record_pattern.cells(record.replace(old, new, 1).encode()) is None


def test_what_a_run_writes_is_read_by_the_pattern(tmp_path):
    """Of completed and failed runs alike; else it would be quick for nobody."""
    proj = Project(tmp_path / 'base')

    @proj.resource('coll')
    def compute(ident, args, subdir):
        return {'n': args['n']}

    for number in range(3):
        proj.fetch('coll', f'i{number}', {'n': number, 'é': ['x', 0.5]})
    proj.close()
    for name in os.listdir(tmp_path / 'base/coll'):
        data = (tmp_path / 'base/coll' / name / 'record.json').read_bytes()
        known = record_pattern.cells(data)
        assert known is not None
        assert {name: json.loads(data)[name] for name in directory._RECORDED} == {
            name: known[name] for name in directory._RECORDED
        }


def test_another_status_than_the_record_has_is_for_the_careful_reader(folder):
    """As after an edit by hand, or in a run that is just ending."""
    record = directory.record_bytes(
        done('one', 'coll').change(args_hash=canonical.args_hash('{}')), 'completed', 'r'
    )
    assert both(folder, record)[0] is not None
    for status in ('pending', 'error'):
        assert both(folder, record, status)[0] is None
