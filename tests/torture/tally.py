"""Counting attacks: what was done, what was wrong about the answer, and victims that must come to an end."""

import contextlib
import os
import select
import signal
import sys
import time
import traceback
from collections import Counter
from pathlib import Path

from harness import IS_FULL

HANG = 30.0  # seconds; everything asked of a victim takes a fraction of one, so only a hang reaches it


class Tally:
    """Faults injected for one promise, and each kind of violation with its first examples."""

    def __init__(self, promise):
        self.promise = promise
        self.faults = 0
        self.seen = Counter()
        self.violations = Counter()
        self.examples = {}

    def fault(self, kind='', number=1):
        if IS_FULL and (self.faults + number) // 500 > self.faults // 500:
            print(f'\n{self.promise}: {self.faults + number} faults', flush=True)
        self.faults += number
        self.seen[kind] += number

    def wrong(self, kind, example):
        """Note a violation; the test goes on, so that one kind does not hide another."""
        self.violations[kind] += 1
        if IS_FULL:  # who waits for an hour sees it at once
            print(f'\n{self.promise}, after {self.faults} faults: {kind}: {example}', flush=True)
        self.examples.setdefault(kind, [])
        if len(self.examples[kind]) < 5:
            self.examples[kind].append(str(example)[:1500])

    def end(self, record, at_least=0):
        """Say what came of it; a violation fails the test."""
        kinds = ', '.join(f'{kind}: {number}' for kind, number in sorted(self.seen.items()) if kind)
        record(self.promise, self.faults, self.violations.total(), kinds if len(kinds) < 80 else '')
        told = [
            f'{kind} ({number} times)\n    ' + '\n    '.join(self.examples[kind])
            for kind, number in self.violations.most_common()
        ]
        assert not told, '\n'.join(told)
        assert self.faults >= at_least, f'{self.faults} faults, {at_least} wanted'


class Victim:
    """A forked child in a process group of its own, with its output in files.

    Forked rather than started: the packages are imported once, so that thousands of them are affordable.
    """

    def __init__(self, place, work):
        self.out, self.err = Path(place, 'victim.out'), Path(place, 'victim.err')
        sys.stdout.flush()
        sys.stderr.flush()
        self.pid = os.fork()
        if self.pid == 0:
            self._be_victim(work)
        self.pidfd = os.pidfd_open(self.pid)
        self.code = None

    def _be_victim(self, work):
        code = 70
        try:
            os.setpgid(0, 0)
            for path, fd in ((self.out, 1), (self.err, 2)):
                file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
                os.dup2(file, fd)
                os.close(file)
            os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
            sys.stdin, sys.stdout = open(0, closefd=False), open(1, 'w', closefd=False)  # noqa: SIM115
            sys.stderr = open(2, 'w', closefd=False)  # noqa: SIM115
            signal.signal(signal.SIGINT, signal.default_int_handler)
            code = work() or 0
        except SystemExit as end:
            code = end.code if isinstance(end.code, int) else int(end.code is not None)
        except BaseException:
            traceback.print_exc()
        finally:
            with contextlib.suppress(BaseException):
                sys.stdout.flush()
                sys.stderr.flush()
            os._exit(code)

    def wait(self, seconds=HANG):
        """Its exit code (negative: the signal that ended it), or 'hang'."""
        ready = select.select([self.pidfd], [], [], seconds)[0]
        if not ready:
            self.kill()
            os.waitpid(self.pid, 0)
            self.code = 'hang'
        else:
            self.code = os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])
            self.kill()  # what it left behind in its group
        os.close(self.pidfd)
        return self.code

    def kill(self):
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.pid, signal.SIGKILL)

    def said(self, most=2_000_000):
        """What it wrote: to stdout, to stderr."""
        texts = []
        for path in (self.out, self.err):
            try:
                with open(path, 'rb') as file:
                    texts.append(file.read(most).decode(errors='backslashreplace'))
            except FileNotFoundError:
                texts.append('')
        return tuple(texts)


def until(is_so, seconds=HANG):
    """Wait for something to be so; None where it does not come."""
    end = time.monotonic() + seconds
    while not (found := is_so()):
        if time.monotonic() > end:
            return None
        time.sleep(0.002)
    return found
