"""P7: reindex makes from the directories alone an index that equals the live one: the machine, for longer."""

import importlib
import os

os.environ['HADROSAUR_TORTURE'] = '1'  # before the machine is made, which reads it
machine = importlib.import_module('test_state_machine')
TestLife = machine.TestLife


def test_that_is_all():
    print(f'P7: {machine.EXAMPLES} lives of {machine.STEPS} steps')
