"""What the torture has in common: how much of it, and forked children that end well or say why not."""

import os
import random
import sys
import traceback

IS_FULL = bool(os.environ.get('HADROSAUR_TORTURE'))
"""`make torture` says so; else it is the quick tier inside `make test`."""


def count(full, quick=None):
    """So many: in full, in the quick tier (a hundredth unless told), or as many as HADROSAUR_COUNT says."""
    if IS_FULL:
        return int(os.environ.get('HADROSAUR_COUNT', full))
    return max(1, full // 100) if quick is None else quick


def chance():
    """A generator of its own, from the seed in the table at the end; HADROSAUR_SEED repeats it."""
    return random.Random(int(os.environ['HADROSAUR_SEED']))


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
