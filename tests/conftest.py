"""What tests share: a project in a fresh folder, programs run as a user would, and no stray processes."""

import contextlib
import os
import signal
import subprocess
import sys
import textwrap
import threading
import time
import uuid
from pathlib import Path

import pytest

from hadrosaur import Project, mounts

pytest_plugins = ['torture.table']  # what each promise withstood, at the end

ROOT = Path(__file__).parent.parent

if os.environ.get('HADROSAUR_TEST_LOCK') == 'file':
    # All tests as on a disk that other machines may share: `make test LOCK=file`.
    sys.path.insert(0, str(ROOT / 'tests/lockmode'))
    os.environ['PYTHONPATH'] = os.pathsep.join(filter(None, [sys.path[0], os.environ.get('PYTHONPATH')]))
    mounts.LOCAL = frozenset()

if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    # Started in the background by a shell: programs that tests interrupt would inherit the deafness.
    signal.signal(signal.SIGINT, signal.default_int_handler)


HANG = 300  # seconds: a limit that only a hang reaches, however busy the machine is


def is_running(pid):
    """Whether a process is there and has not ended; it may end while it is read."""
    with contextlib.suppress(FileNotFoundError, ProcessLookupError):
        return Path(f'/proc/{pid}/stat').read_text().rpartition(')')[2].split()[0] != 'Z'
    return False


def await_that(is_so, seconds=HANG):
    """Wait for something to be so; the test fails if it does not come."""
    end = time.monotonic() + seconds
    while not (found := is_so()):
        assert time.monotonic() < end, 'it did not come'
        time.sleep(0.003)
    return found


COLLECTED = pytest.StashKey()


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(config, items):
    """The longest first, so that no worker waits for it at the end."""
    config.stash[COLLECTED] = {item.nodeid for item in items}  # long ones too, before they are left out
    items.sort(key=lambda item: item.path.name != 'test_source_census.py')


@pytest.fixture
def base(tmp_path):
    """A base directory that does not exist yet."""
    return tmp_path / 'base'


@pytest.fixture
def proj(base):
    """A project, closed at the end."""
    project = Project(base)
    yield project
    project.close(cancel=True)


@pytest.fixture
def program(tmp_path):
    """Run (or start) a Python program given as text, in its own process, as a user would."""
    started, mark = [], uuid.uuid4().hex

    def run(source, *args, flags=(), start=False, check=True, **more):
        path = tmp_path / f'program{len(started)}.py'
        path.write_text(textwrap.dedent(source), encoding='utf-8')
        command = [sys.executable, *flags, str(path), *map(str, args)]
        more.setdefault('cwd', tmp_path)
        more['env'] = {**(more.get('env') or os.environ), 'HADROSAUR_TEST_PROGRAM': mark}
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, **more)
        started.append(process)
        if start:
            return process
        out, err = process.communicate(timeout=HANG)
        done = subprocess.CompletedProcess(command, process.returncode, out, err)
        if check:
            assert done.returncode == 0, done.stderr
        return done

    yield run
    for process in started:
        if process.poll() is None:
            process.kill()
    end_strays(f'HADROSAUR_TEST_PROGRAM={mark}')
    for process in started:
        process.wait(HANG)
        for pipe in (process.stdout, process.stderr, process.stdin):
            if pipe is not None:
                pipe.close()  # unread: whoever still holds the other end is not waited for


def end_strays(mark):
    """Kill what bears the mark in its environment: grandchildren too, in whatever session they are."""
    for at in Path('/proc').glob('[0-9]*'):
        with contextlib.suppress(OSError):
            if mark.encode() in (at / 'environ').read_bytes().split(b'\0'):
                os.kill(int(at.name), signal.SIGKILL)


@pytest.fixture(scope='module', autouse=True)
def _no_foreign_threads():
    """Output is captured in another way where foreign threads are alive: none may stay for the next file."""
    before = threading.enumerate()
    yield
    is_known = ('Dask-',)  # kept for good; only the torture in full has a cluster in its own process
    stray = [
        thread
        for thread in threading.enumerate()
        if thread not in before and not thread.name.startswith(is_known)
    ]
    for thread in stray:
        thread.join(5)
    assert not any(thread.is_alive() for thread in stray), stray


@pytest.fixture(autouse=True)
def _no_stray_threads():
    """A test that leaves a thread of ours behind has not cleaned up."""
    yield
    names = {thread.name for thread in threading.enumerate()} - {'hadrosaur-clock'}  # ends within a second
    stray = [name for name in names if name.startswith('hadrosaur')]
    assert not stray or os.environ.get('HADROSAUR_ALLOW_THREADS'), stray
