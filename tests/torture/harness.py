"""What the torture has in common: how much of it, and forked children that end well or say why not."""

import os
import random
import sys
import traceback


def count(full):
    """So many in full; HADROSAUR_COUNT says how many for a quick look."""
    return int(os.environ.get('HADROSAUR_COUNT', full))


def chance():
    """A generator of its own; its seed is printed, and HADROSAUR_SEED repeats it."""
    seed = int(os.environ.get('HADROSAUR_SEED', random.SystemRandom().randrange(10**9)))
    print(f'HADROSAUR_SEED={seed}')
    return random.Random(seed)


def child(work, *args):
    """Fork; the child does that and ends with 0, or with 1 and a traceback."""
    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            work(*args)
            code = 0
        except BaseException:
            traceback.print_exc()
        finally:
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(code)
    return pid


def ended(pids):
    """Wait for children; every one ended well."""
    codes = {pid: os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) for pid in pids}
    assert set(codes.values()) <= {0}, codes
