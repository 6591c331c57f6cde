"""P3: a resource is never computed by two at once, however many ask, whether or not the index is there."""

import os
import random
import time
import warnings

import pytest
from harness import chance, child, count, ended

from hadrosaur import HadrosaurWarning, Project

IDENTS = count(5000, quick=60)
PROCESSES = 8
ENDS = [('',), ('-wal',), ('-shm',), ('', '-wal', '-shm'), ('-wal', '-shm')]


@pytest.mark.parametrize('index', ['kept', 'deleted'])
def test_computed_once(tmp_path, capfd, index, record):
    """Eight processes fetch the same idents in shuffled order; a marker of each run can be made only once."""
    base, ran = tmp_path / 'base', tmp_path / 'ran'
    ran.mkdir()
    chosen = chance()
    idents = [str(number) for number in range(IDENTS)]

    def ask(seed):
        # An index that is deleted within a transaction may look damaged, and is set aside with a warning.
        warnings.simplefilter('default', HadrosaurWarning)
        proj = Project(base)

        @proj.resource('coll')
        def compute(ident, args, subdir):
            os.close(os.open(ran / ident, os.O_CREAT | os.O_EXCL))
            return ident

        random.Random(seed).shuffle(idents)
        for ident in idents:
            res = proj.fetch('coll', ident, wait=120)
            assert res['result'] == ident, (ident, res, res.error)
        proj.close()

    def delete():
        some = random.Random(IDENTS)
        while not (tmp_path / 'stop').exists():
            for end in some.choice(ENDS):
                (base / f'index.sqlite3{end}').unlink(missing_ok=True)
            time.sleep(0.05)  # now and then, so that the others come to something

    Project(base).close()
    deleter = child(delete) if index == 'deleted' else None
    try:
        ended([child(ask, chosen.random()) for _ in range(PROCESSES)])
    finally:
        (tmp_path / 'stop').touch()
        if deleter:
            ended([deleter])
    said = capfd.readouterr().err
    assert 'locked' not in said, said
    runs = len(list(ran.iterdir()))
    record('P3', PROCESSES * IDENTS, runs != IDENTS, f'{runs} runs, index {index}')
    assert runs == IDENTS
    with Project(base) as proj:
        proj.reindex()
        found = {entry.ident: entry.status for entry in proj.query('coll')}
    assert found == dict.fromkeys(idents, 'completed')
