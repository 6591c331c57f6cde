"""Cancelling from another process: a request file that whoever computes sees within a second."""

import json
import subprocess
import sys

from conftest import HANG

from hadrosaur import Project

PROGRAM = """
    import os, subprocess, time
    from hadrosaur import Project
    proj = Project('base')

    @proj.resource('coll')
    def compute(ident, args, subdir):
        if ident != 'quick':
            child = subprocess.Popen(['sleep', '600'])
            with open(f'pid.{ident}.new', 'w') as file:
                file.write(str(child.pid))
            os.rename(f'pid.{ident}.new', f'pid.{ident}')
            child.wait()

    counts = proj.fetch_many('coll', ['quick', 'slow', 'waits'], workers=1).wait()
    print(counts)
"""


def hadrosaur(tmp_path, *words):
    command = [sys.executable, '-m', 'hadrosaur', *words]
    return subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=HANG)


def await_file(path, process):
    while not path.exists():
        assert process.poll() is None, process.stderr.read()
    return path


def test_cancel_one_running_in_another_process(program, tmp_path):
    """Exactly that one is killed, with what it started; the next one is begun."""
    process = program(PROGRAM, start=True)
    pid = int(await_file(tmp_path / 'pid.slow', process).read_text())
    done = hadrosaur(tmp_path, 'cancel', 'base', 'coll', 'slow', '--json')
    await_file(tmp_path / 'pid.waits', process)
    with Project(tmp_path / 'base', create=False) as proj:
        [row] = proj.query(status='error')

    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == {'asked': 1, 'stopped': 1, 'finished': 0, 'pending': 0}
    assert (row.ident, row.error_type) == ('slow', 'Cancelled')
    state = subprocess.run(['ps', '-p', str(pid), '-o', 'stat='], capture_output=True, text=True).stdout
    assert state[:1] in ('', 'Z')
    hadrosaur(tmp_path, 'cancel', 'base', 'coll')
    assert process.wait(timeout=HANG) == 0


def test_cancel_a_whole_collection(program, tmp_path):
    """What runs ends as Cancelled, what waits is as if never asked for; nothing stays pending."""
    process = program(PROGRAM, start=True)
    await_file(tmp_path / 'pid.slow', process)
    done = hadrosaur(tmp_path, 'cancel', 'base', 'coll')
    out, _ = process.communicate(timeout=HANG)
    with Project(tmp_path / 'base', create=False) as proj:
        rows = {entry.ident: (entry.status, entry.error_type) for entry in proj.query()}

    assert done.returncode == 0, done.stderr
    assert rows == {'quick': ('completed', None), 'slow': ('error', 'Cancelled')}
    assert out == 'Counts(total=2, completed=1, error=1, pending=0, reused=0)\n'
    assert not list((tmp_path / 'base/.hadrosaur/cancel').iterdir())


def test_what_cannot_be_stopped_was_not_stopped(program, tmp_path):
    """A function in a thread runs to its end: that is what is told."""
    process = program(
        """
        import os, time
        from hadrosaur import Project

        proj = Project('base')

        @proj.resource('coll')
        def compute(ident, args, subdir):
            open('began', 'w').close()
            while not os.listdir('base/.hadrosaur/cancel'):
                time.sleep(0.005)

        os.makedirs('base/.hadrosaur/cancel')
        print(proj.fetch_many('coll', ['slow'], executor='threads').wait())
        """,
        start=True,
    )
    await_file(tmp_path / 'began', process)
    done = hadrosaur(tmp_path, 'cancel', 'base', 'coll')
    out, _ = process.communicate(timeout=HANG)

    assert out == 'Counts(total=1, completed=1, error=0, pending=0, reused=0)\n'
    assert (done.returncode, done.stdout) == (0, '0 stopped\n')
    assert done.stderr == '1 finished before they could be stopped\n'


def test_cancel_says_where_nothing_is_pending(tmp_path):
    """Exit code 3, and no request is left behind."""
    with Project(tmp_path / 'base') as proj:
        proj.resource('coll')(lambda ident, args, subdir: 1)
        proj.fetch('coll', 'one')
    done = hadrosaur(tmp_path, 'cancel', 'base', 'coll', 'one')

    assert (done.returncode, done.stdout) == (3, '')
    assert 'nothing is pending' in done.stderr
    assert hadrosaur(tmp_path, 'cancel', 'base', 'coll', 'two').returncode == 3
