"""P7: reindex makes from the directories alone an index that equals the live one: the machine, for longer.

In the quick tier the machine runs as what it is, tests/test_state_machine.py.
"""

import test_state_machine as machine
from harness import IS_FULL

if IS_FULL:
    TestLife = machine.TestLife


def test_that_is_all(record):
    """How many lives of how many steps."""
    record('P7', machine.EXAMPLES * machine.STEPS, 0, f'{machine.EXAMPLES} lives of {machine.STEPS} steps')
