"""The template process that forks the workers: what reaches a worker, and what ends when."""

import contextlib
import os
import resource
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import HANG, await_that, is_running

from hadrosaur.executors import template

pytestmark = pytest.mark.skipif(not template.IS_USED, reason='workers are not forked here')


def parent_of(pid):
    return int(Path(f'/proc/{pid}/stat').read_text().rpartition(')')[2].split()[1])


def look_around(ident, args, subdir):
    """What a worker is."""
    return {
        'pid': os.getpid(),
        'parent': os.getppid(),
        'session': os.getsid(0),
        'environ': os.environ.get('OF_THE_PROGRAM'),
        'umask': f'{os.umask(0o22):o}',
        'folder': os.getcwd(),
        'path': sys.path,
        'files': resource.getrlimit(resource.RLIMIT_NOFILE)[0],
        'processors': sorted(os.sched_getaffinity(0)),
        'stdin': os.readlink('/proc/self/fd/0'),
        'random': __import__('random').random(),
    }


def test_one_template_for_all_batches(proj):
    """Two batches and background work have workers of their own, forked by one process that is kept."""
    proj.resource('coll')(look_around)
    found = [res.result for n in range(2) for res in proj.fetch_many('coll', [f'{n}'], workers=1)]
    found.append(proj.fetch('coll', 'later', background=True).wait(60).result)

    assert len({worker['pid'] for worker in found}) == 3
    assert len({worker['parent'] for worker in found}) == 1
    assert parent_of(found[0]['parent']) == os.getpid()
    assert all(worker['session'] == worker['pid'] for worker in found)
    assert len({worker['random'] for worker in found}) == 3


def test_a_worker_is_what_its_program_is_now(program, tmp_path):
    """Environment, umask, folder, path, limits and processors of the moment, not of the template's start."""
    program(
        f"""
        import os, resource, sys
        sys.path.insert(0, {str(Path(__file__).parent)!r})
        from hadrosaur import Project
        from test_template import look_around
        proj = Project('base')
        proj.resource('coll')(look_around)
        [before] = proj.fetch_many('coll', ['before'], workers=1)

        os.environ['OF_THE_PROGRAM'] = 'new'
        os.umask(0o027)
        os.mkdir('elsewhere')
        os.chdir('elsewhere')
        sys.path.insert(0, '/of/the/program')
        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        resource.setrlimit(resource.RLIMIT_NOFILE, (200, hard))
        cpu = min(os.sched_getaffinity(0))
        os.sched_setaffinity(0, [cpu])
        [after] = proj.fetch_many('coll', ['after'], workers=1)

        assert before.result['parent'] == after.result['parent']
        assert before.result['environ'] is None and after.result['environ'] == 'new'
        assert after.result['umask'] == '27', after.result
        assert after.result['folder'] == os.getcwd()
        assert after.result['path'][0] == '/of/the/program'
        assert after.result['files'] == 200
        assert after.result['processors'] == [cpu]
        assert after.result['stdin'] == '/dev/null'

        os.environ['PYTHONUTF8'] = '1'  # what only a new interpreter looks at
        [anew] = proj.fetch_many('coll', ['anew'], workers=1)
        assert anew.result['parent'] != after.result['parent']
        proj.close()
        """
    )


def test_a_template_holds_no_code_of_the_users(program, tmp_path):
    """A module of the user's is imported in each worker, and never in the process that forks them."""
    (tmp_path / 'jobs.py').write_text(
        'import os\nfrom pathlib import Path\n'
        "with open(Path(__file__).parent / 'imported', 'a') as told:\n    print(os.getpid(), file=told)\n"
        'def compute(ident, args, subdir):\n    return os.getpid(), os.getppid()\n'
    )
    program(
        """
        import os
        from pathlib import Path
        import jobs
        from hadrosaur import Project
        proj = Project('base')
        proj.resource('coll')(jobs.compute)
        found = [res.result for n in range(3) for res in proj.fetch_many('coll', [n], workers=1)]
        imported = [int(line) for line in Path('imported').read_text().split()]
        assert imported == [os.getpid(), *(pid for pid, _ in found)], (imported, found)
        proj.close()
        """
    )


@pytest.mark.parametrize(
    ('ending', 'told'),
    [
        ('os._exit(7)', 'exited with status 7'),
        ('os._exit(0)', 'status 0'),
        ('os.kill(os.getpid(), signal.SIGSEGV)', 'SIGSEGV'),
        ('signal.signal(signal.SIGTERM, signal.SIG_DFL), os.kill(os.getpid(), signal.SIGTERM)', 'SIGTERM'),
    ],
)
def test_how_a_worker_ended_is_known_exactly(program, ending, told):
    """Though it is nobody's child here; and whatever the program does with children that end."""
    program(
        f"""
        import os, signal
        from hadrosaur import Project
        proj = Project('base')
        proj.resource('coll')(lambda ident, args, subdir: ident == 'dies' and ({ending}))
        signal.signal(signal.SIGCHLD, signal.SIG_IGN)
        found = {{res.ident: res for res in proj.fetch_many('coll', ['a', 'dies', 'b'], workers=1)}}
        assert {told!r} in found['dies'].entry.error, found['dies'].entry.error
        assert found['a'].status == found['b'].status == 'completed'
        proj.close()
        """
    )


def test_a_template_that_is_killed(proj, tmp_path):
    """It costs what its workers ran, by name; the rest is computed by workers of another."""

    def compute(ident, args, subdir):
        if ident == 'kills':
            os.kill(os.getppid(), signal.SIGKILL)
            signal.pause()
        return ident

    proj.resource('coll')(compute)
    found = {res.ident: res for res in proj.fetch_many('coll', ['a', 'kills', 'b', 'c'], workers=1)}

    assert [ident for ident, res in found.items() if res.status == 'error'] == ['kills']
    assert found['kills'].entry.error_type == 'WorkerDied'


@pytest.fixture
def templates(monkeypatch):
    """Called with a function that forks in place of each template: it takes that one and a connection."""
    template._drop()

    def replace(fork):
        class Faulty(template._Template):
            def fork(self, *given):
                return fork(self, super().fork, *given)

        monkeypatch.setattr(template, '_Template', Faulty)

    yield replace
    template._drop()


def test_templates_that_are_killed_one_after_the_other(proj, templates):
    """Whoever kills a template, and the next while it starts, and its next, has no batch fail."""
    killed = []

    def fork(one, really, *given):
        if len(killed) < 3:
            one._process.kill()
            killed.append(one._process.wait(60))
        return really(*given)

    templates(fork)
    proj.resource('coll')(lambda ident, args, subdir: ident)
    found = [res.status for res in proj.fetch_many('coll', ['a', 'b'], workers=1)]
    assert (found, killed) == (['completed'] * 2, [-signal.SIGKILL] * 3)


def test_a_worker_that_nobody_was_told_of_takes_no_orders(proj, templates):
    """A template that is killed when it has forked, before it can say so: that worker ends by itself."""
    lost = []

    def fork(one, really, *given):
        process = really(*given)
        if not lost:
            lost.append(process)
            raise template.TemplateError('killed before it could answer')
        return process

    templates(fork)
    proj.resource('coll')(lambda ident, args, subdir: os.getpid())
    [res] = proj.fetch_many('coll', ['a'], workers=1)
    assert res.result != lost[0].pid
    assert lost[0].wait(60) == 0
    lost[0].close()


def test_a_template_that_is_given_up_still_tells_how_its_workers_ended(proj, tmp_path, monkeypatch):
    """What only a new interpreter looks at has changed, while a worker of the old template computes."""

    def compute(ident, args, subdir):
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        print(os.getpid(), flush=True)
        return signal.pause() if ident == 'waits' else os.getppid()

    proj.resource('coll')(compute)
    waits = proj.fetch('coll', 'waits', background=True)
    log = Path(proj.path, 'coll/waits/stdout.log')
    worker = int(await_that(lambda: log.exists() and log.read_text()))
    monkeypatch.setenv('PYTHONUTF8', '1')
    [other] = proj.fetch_many('coll', ['other'], workers=1)
    assert other.result != parent_of(worker)
    os.kill(worker, signal.SIGTERM)
    assert 'SIGTERM' in waits.wait().entry.error


def test_template_and_workers_end_with_their_program(program, tmp_path):
    """Killed with -9, while a worker computes: the worker finishes what it runs, and nothing is left."""
    process = program(
        """
        import os, time
        from hadrosaur import Project
        proj = Project('base')
        @proj.resource('coll')
        def compute(ident, args, subdir):
            print(os.getpid(), os.getppid(), flush=True)
            while not os.path.exists('go'):
                time.sleep(0.01)
        proj.fetch_many('coll', ['a'], workers=1).wait()
        """,
        start=True,
    )
    log = tmp_path / 'base/coll/a/stdout.log'
    worker, parent = map(int, await_that(lambda: log.exists() and log.read_text().endswith('\n') and log)
                         .read_text().split())  # fmt: skip
    process.kill()
    process.wait()
    assert is_running(worker)
    (tmp_path / 'go').touch()
    await_that(lambda: not is_running(worker) and not is_running(parent))
    assert '"completed": true' in (tmp_path / 'base/coll/a/status.json').read_text()


def test_an_idle_template_ends(proj):
    """Some seconds after its last worker; the next batch starts another."""
    proj.resource('coll')(look_around)
    [first] = proj.fetch_many('coll', ['first'], workers=1)
    await_that(lambda: not is_running(first.result['parent']), seconds=HANG)
    [second] = proj.fetch_many('coll', ['second'], workers=1)
    assert second.result['parent'] != first.result['parent']


def test_a_forked_child_has_a_template_of_its_own(proj):
    """The parent's is not used by two, and goes on."""
    proj.resource('coll')(look_around)
    [before] = proj.fetch_many('coll', ['before'], workers=1)
    pid = os.fork()
    if pid == 0:
        code = 1
        with contextlib.suppress(BaseException):
            [inside] = proj.fetch_many('coll', ['inside'], workers=1)
            code = 0 if parent_of(inside.result['parent']) == os.getpid() else 2
        os._exit(code)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
    [after] = proj.fetch_many('coll', ['after'], workers=1)
    assert after.result['parent'] == before.result['parent']


def test_who_reads_the_programs_stderr_need_not_wait(tmp_path):
    """A pipe that the program wrote to ends with it, although its template goes on for a moment."""
    source = (
        'from hadrosaur import Project\nimport os, sys\n'
        "proj = Project('base')\n"
        "proj.resource('coll')(lambda ident, args, subdir: ident)\n"
        "proj.fetch_many('coll', ['a'], workers=1).wait()\nos._exit(0)\n"
    )
    done = subprocess.run([sys.executable, '-c', source], cwd=tmp_path, capture_output=True, timeout=HANG)
    assert (done.returncode, done.stderr) == (0, b'')
