"""P16: an index of any released revision is upgraded with its rows; a kill leaves the old or the new one.

`upgrades.py` kills the upgrade before and after each of its statements, at every file operation of it and
after it, and at random moments.
"""

import json
import os
import subprocess
import sys
from pathlib import Path

from faults import Faults
from harness import IS_FULL, chance, count

ROOT = Path(__file__).parents[2]
KILLS = count(10, quick=0)  # at random moments, for each statement


def test_killed_anywhere(tmp_path, record):
    """Never anything between, never a lost row, nothing left lying about, and the next opener has the new."""
    with Faults(tmp_path, tmp_path / 'base', log_size=1 << 20) as faults:
        program = Path(__file__).with_name('upgrades.py')
        words = [tmp_path, KILLS, chance().random(), 1 if IS_FULL else 120]
        done = subprocess.run(
            [sys.executable, str(program), *map(str, words)],
            env=faults.environment(PYTHONPATH=f'{ROOT}{os.pathsep}{os.environ.get("PYTHONPATH", "")}'),
            stdout=subprocess.PIPE,
            text=True,
            timeout=3600 if IS_FULL else 300,
        )
    trials = [json.loads(line) for line in done.stdout.splitlines()]
    broken = [trial for trial in trials if trial['violations']]
    record('P16', len(trials), len(broken), f'{len({trial["dump"] for trial in trials})} revisions')
    assert done.returncode == 0
    assert not broken, broken[:10]
