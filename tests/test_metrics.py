"""Metrics: what a run cost, exact for short runs too, in record.json, the index and `stats`."""

import json
import os
import sys
import time
from pathlib import Path

import pytest

from hadrosaur import Project

MEGABYTE = 1 << 20


@pytest.fixture(scope='module')
def measured(tmp_path_factory):
    """Resources of known cost, computed one after the other in one slot."""
    proj = Project(tmp_path_factory.mktemp('metrics') / 'base')

    @proj.resource('coll')
    def compute(ident, args, subdir):
        if ident.startswith('hungry'):
            return len(bytearray(200 * MEGABYTE))
        if ident == 'busy':
            end = time.process_time() + 0.3
            while time.process_time() < end:
                pass
        if ident == 'child':
            import subprocess

            burn = 'import time\nend = time.process_time() + 0.3\nwhile time.process_time() < end: pass'
            subprocess.run([sys.executable, '-c', burn], check=True)
        if ident == 'sleeps':
            time.sleep(0.3)
        return None

    for ident in ('first', 'hungry', 'modest', 'busy', 'child', 'sleeps'):
        proj.fetch_many('coll', [ident], workers=1).wait()
    proj.fetch_many('coll', ['again1', 'hungry2', 'modest2'], workers=1).wait()
    yield proj, {entry.ident: entry for entry in proj.query('coll')}
    proj.close()


def test_duration_is_wall_time(measured):
    """A run that sleeps has a duration and no processor time; a short one is not rounded to nothing."""
    _, rows = measured

    assert 0.3 <= rows['sleeps'].duration < 5
    assert rows['sleeps'].cpu_seconds < 0.2
    assert 0 < rows['first'].duration < 0.3


def test_processor_time_includes_children(measured):
    """What the run burned itself counts, and what its subprocesses burned."""
    _, rows = measured

    assert 0.3 <= rows['busy'].cpu_seconds < 2
    assert 0.3 <= rows['child'].cpu_seconds < 3


@pytest.mark.skipif(not sys.platform.startswith('linux'), reason='only Linux resets the peak')
def test_peak_memory_is_of_each_run(measured):
    """A hungry run shows its peak; the modest one after it, in the same process, does not."""
    _, rows = measured

    assert rows['hungry'].max_rss > 200 * MEGABYTE
    assert rows['modest'].max_rss < 150 * MEGABYTE
    assert rows['modest2'].max_rss < 150 * MEGABYTE


def test_record_index_and_stats_agree(measured):
    """record.json holds the same figures, and `stats` gives their middle, their tail and their largest."""
    proj, rows = measured
    for ident, row in rows.items():
        record = json.loads(Path(proj.path, 'coll', ident, 'record.json').read_text())
        assert (record['duration'], record['cpu_seconds'], record['max_rss']) == (
            row.duration,
            row.cpu_seconds,
            row.max_rss,
        )
        assert record['pid'] != os.getpid()
    durations = sorted(row.duration for row in rows.values())
    stats = proj.stats('coll')['coll']

    assert stats['total'] == stats['completed'] == len(rows)
    assert stats['duration']['max'] == durations[-1]
    assert durations[0] <= stats['duration']['p50'] <= stats['duration']['p95'] <= durations[-1]
