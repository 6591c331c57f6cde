"""Keeping house: what takes space on the disk, and numbers for programs that watch."""

import json
import os
from pathlib import Path

import pytest
from test_cli_tools import call

from hadrosaur import Project


@pytest.fixture(scope='module')
def stocked(tmp_path_factory):
    """Two collections; one resource with much in its storage, one that failed."""
    base = tmp_path_factory.mktemp('house') / 'base'
    with Project(base) as proj:

        @proj.resource('small')
        def small(ident, args, subdir):
            if ident == 'bad':
                raise ValueError(ident)

        @proj.resource('la"rge')
        def large(ident, args, subdir):
            Path(subdir, 'inner').mkdir()
            Path(subdir, 'inner/data').write_bytes(os.urandom(300_000))
            os.link(Path(subdir, 'inner/data'), Path(subdir, 'again'))
            Path(subdir, 'link').symlink_to('/')

        proj.fetch_many('small', ['a', 'b', 'bad'], executor='inline').wait()
        proj.fetch('la"rge', 'x/y')
    return base


def test_du_tells_what_takes_space(stocked):
    """By collection, with what functions wrote; the largest first; hard links once, links not at all."""
    found = json.loads(call('du', stocked, '--json', '--largest', '2').stdout)

    assert list(found['collections']) == ['la"rge', 'small']
    large, small = found['collections'].values()
    assert (large['resources'], small['resources']) == (1, 3)
    assert 300_000 <= large['storage'] < 400_000
    assert large['storage'] < large['bytes'] < 500_000
    assert 0 < small['bytes'] < 200_000
    assert found['largest'][0] == {'collection': 'la"rge', 'ident': 'x/y', 'bytes': large['bytes']}
    assert len(found['largest']) == 2


def test_du_of_one_collection(stocked):
    """A table in a pipe; an unknown collection is said."""
    lines = call('du', stocked, 'small', '--largest', '0').stdout.splitlines()
    assert [line.split('\t')[:2] for line in lines] == [['collection', 'resources'], ['small', '3']]
    assert call('du', stocked, 'smal').exit_code == 3
    assert call('du', stocked / 'nowhere').exit_code == 3


def test_metrics_are_what_prometheus_reads(stocked):
    """Counts, what runs, and durations, each with its labels escaped."""
    lines = call('metrics', stocked).stdout.splitlines()
    values = dict(line.rsplit(' ', 1) for line in lines if not line.startswith('#'))

    assert values['hadrosaur_resources{collection="small",status="completed"}'] == '2'
    assert values['hadrosaur_resources{collection="small",status="error"}'] == '1'
    assert values[r'hadrosaur_resources{collection="la\"rge",status="completed"}'] == '1'
    assert values['hadrosaur_running{collection="small"}'] == '0'
    assert 0 <= float(values['hadrosaur_duration_seconds{collection="small",quantile="0.5"}']) < 60
    assert [line for line in lines if line.startswith('# TYPE')] == [
        f'# TYPE hadrosaur_{name} gauge' for name in ('resources', 'running', 'duration_seconds')
    ]
