"""Where there is little room, or the surroundings are odd: all works, or says in one sentence why not."""

import json
import os
import resource
import shutil
import signal
import subprocess
import sys
import textwrap

import pytest

from hadrosaur import Project

PROGRAM = """
    import json, os, sys

    if 'gone' in sys.argv:
        os.mkdir('gone')
        os.chdir('gone')
        os.rmdir('../gone')
    answer = os.fdopen(os.open(os.environ['ANSWER'], os.O_WRONLY | os.O_CREAT | os.O_APPEND), 'w')
    base = os.environ['BASE']

    def tell(step, found):
        answer.write(json.dumps([step, found]) + '\\n')
        answer.flush()

    def attempt(step, work):
        from hadrosaur import HadrosaurError
        try:
            tell(step, work())
        except HadrosaurError as error:
            tell(step, ['refused', type(error).__name__, str(error)])
        except BaseException as error:
            import traceback
            tell(step, ['raised', type(error).__name__, traceback.format_exc()[-1500:]])

    from hadrosaur import Project

    with open(__file__) as file:
        pass
    proj = Project(base)

    @proj.resource('coll')
    def compute(ident, args, subdir):
        print('said by', ident)
        with open(os.path.join(subdir, 'file'), 'w') as file:
            file.write(str(ident.encode()))
        return {'ident': ident}

    def told(res):
        last = (res.error or '').strip().splitlines()[-1:]
        return [res.ident, res.status, res['result'], *last]

    if __name__ == '__main__':
        odd = 'zwei-\\u00fc-\\U0001f995'
        attempt('fetch', lambda: [told(proj.fetch('coll', ident)) for ident in ('one', odd)])
        attempt('again', lambda: [told(proj.fetch('coll', 'one'))])
        attempt('many', lambda: [told(res) for res in
                                 proj.fetch_many('coll', ['a', 'b', 'c', '\\u00e9'], workers=2)])
        attempt('query', lambda: sorted(row.ident for row in proj.query('coll', status='completed')))
        attempt('stats', lambda: proj.stats()['coll']['total'])
        attempt('close', proj.close)
        tell('end', True)
"""
VERBS = [('status', 'BASE'), ('query', 'BASE', 'coll'), ('query', 'BASE', '--json'),
         ('show', 'BASE', 'coll', 'one'), ('logs', 'BASE', 'coll', 'one'), ('check', 'BASE', '--deep'),
         ('run', 'PROGRAM:proj', 'coll', 'by-run', 'ö', '-j', '2')]  # fmt: skip

CLOCK = r"""
    #define _GNU_SOURCE
    #include <dlfcn.h>
    #include <stdlib.h>
    #include <sys/time.h>
    #include <time.h>

    static time_t off(void) {
        const char *years = getenv("YEARS_OFF");
        return years ? (time_t)(atof(years) * 365.25 * 86400) : 0;
    }
    int clock_gettime(clockid_t clock, struct timespec *now) {
        static int (*real)(clockid_t, struct timespec *);
        if (!real) real = dlsym(RTLD_NEXT, "clock_gettime");
        int result = real(clock, now);
        if (!result && (clock == CLOCK_REALTIME || clock == CLOCK_REALTIME_COARSE)) now->tv_sec += off();
        return result;
    }
    int gettimeofday(struct timeval *now, void *zone) {
        struct timespec precise;
        int result = clock_gettime(CLOCK_REALTIME, &precise);
        now->tv_sec = precise.tv_sec;
        now->tv_usec = precise.tv_nsec / 1000;
        return result;
    }
    time_t time(time_t *there) {
        struct timespec now;
        clock_gettime(CLOCK_REALTIME, &now);
        if (there) *there = now.tv_sec;
        return now.tv_sec;
    }
"""


def limit(what, number):
    return {'before': lambda: resource.setrlimit(what, (number, number))}


def closed(*descriptors):
    return {'before': lambda: [os.close(fd) for fd in descriptors], 'closed': descriptors}


MEGABYTE = 1 << 20
PLACES = {
    'as usual': {},
    'in a folder that is gone': {'words': ['gone']},
    '20 descriptors': limit(resource.RLIMIT_NOFILE, 20),
    '40 descriptors': limit(resource.RLIMIT_NOFILE, 40),
    '64 descriptors': limit(resource.RLIMIT_NOFILE, 64),
    'files of no byte': limit(resource.RLIMIT_FSIZE, 0),
    'files of 4 kB': limit(resource.RLIMIT_FSIZE, 4096),
    'files of 100 kB': limit(resource.RLIMIT_FSIZE, 100_000),
    'memory of 250 MB': limit(resource.RLIMIT_AS, 250 * MEGABYTE),
    'memory of 1 GB': limit(resource.RLIMIT_AS, 1024 * MEGABYTE),
    'no stdin': closed(0),
    'no stdout': closed(1),
    'no stderr': closed(2),
    'no stdin, stdout, stderr': closed(0, 1, 2),
    'no home': {'environment': {'HOME': None, 'USER': None, 'LOGNAME': None}},
    'no environment': {'empty': True},
    'no temporary folder': {'environment': {'TMPDIR': '/nonexistent'}},
    'ASCII': {'environment': {'LC_ALL': 'C', 'LANG': 'C', 'PYTHONUTF8': '0', 'PYTHONCOERCECLOCALE': '0'}},
    'umask 000': {'before': lambda: os.umask(0)},
    'umask 077': {'before': lambda: os.umask(0o077)},
    'python -O': {'flags': ['-O']},
    'python -OO': {'flags': ['-OO']},
    'python -W error': {'flags': ['-W', 'error'], 'environment': {'PYTHONWARNINGS': 'error'}},
    'python -X dev': {'flags': ['-X', 'dev'], 'environment': {'PYTHONDEVMODE': '1'}},
    'python -P': {'flags': ['-P'], 'environment': {'PYTHONSAFEPATH': '1'}},
    'SIGCHLD is ignored': {'before': lambda: signal.signal(signal.SIGCHLD, signal.SIG_IGN)},
    'signals are blocked': {'before': lambda: signal.pthread_sigmask(signal.SIG_BLOCK, {2, signal.SIGCHLD})},
    'no shared memory': {'shell': 'mount -t tmpfs -o ro none /dev/shm'},
    'clock 30 years ahead': {'clock': 30},
    'clock 30 years back': {'clock': -30},
}  # fmt: skip
TIGHT = ('descriptors', 'files of', 'memory')  # where one may be refused
PATH = os.pathsep.join(filter(None, sys.path))


@pytest.fixture(scope='session')
def clock(tmp_path_factory):
    """A library that sets the clock of whoever loads it off by years."""
    if not shutil.which('gcc'):
        pytest.skip('there is no C compiler')
    folder = tmp_path_factory.mktemp('clock')
    (folder / 'clock.c').write_text(textwrap.dedent(CLOCK))
    command = ['gcc', '-shared', '-fPIC', '-o', 'clock.so', 'clock.c', '-ldl']
    subprocess.run(command, cwd=folder, check=True, timeout=300)
    return str(folder / 'clock.so')


def run(place, command, folder, more):
    """A command there: exit code, stdout, stderr."""
    environment = {} if place.get('empty') else {**os.environ}
    environment |= {
        'PYTHONPATH': PATH,
        'BASE': str(folder / 'base'),
        'ANSWER': str(folder / 'answer'),
        **more,
    }
    for name, value in place.get('environment', {}).items():
        environment.pop(name, None)
        if value is not None:
            environment[name] = value
    if 'shell' in place:
        words = ['unshare', '--mount', 'sh', '-c', f'{place["shell"]} && exec "$@"', 'sh']
        if subprocess.run([*words, 'true'], capture_output=True, timeout=300).returncode:
            pytest.skip('it cannot be made here')
        command = [*words, *command]
    with open(folder / 'out', 'w+b') as out, open(folder / 'err', 'w+b') as err:
        process = subprocess.Popen(
            command, cwd=folder, env=environment, stdin=subprocess.DEVNULL, stdout=out, stderr=err,
            preexec_fn=place.get('before'), start_new_session=True,
        )  # fmt: skip
        try:
            process.wait(timeout=300)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
            pytest.fail(f'{command[-4:]} hangs')
    return process.returncode, *((folder / name).read_text(errors='replace') for name in ('out', 'err'))


def is_clear(found):
    """Is it one sentence of ours that says what is wrong?"""
    return isinstance(found, list) and found[:1] == ['refused'] and len(found[2]) > 10


def judge_program(folder, is_tight):
    lines = (folder / 'answer').read_text().splitlines() if (folder / 'answer').exists() else []
    found = dict(json.loads(line) for line in lines)
    assert 'end' in found or (is_tight and not found), found
    raised = {step: what for step, what in found.items() if isinstance(what, list) and what[:1] == ['raised']}
    assert not raised, '\n'.join(f'{step}: {what[2]}' for step, what in raised.items())
    refused = {step: what for step, what in found.items() if is_clear(what)}
    assert is_tight or not refused, refused
    for step in found.keys() & {'fetch', 'again', 'many'} - refused.keys():
        for ident, status, value, *why in found[step]:
            if status == 'completed':
                assert value == {'ident': ident}
            else:
                assert is_tight, found[step]
                assert status == 'error'
                assert why, found[step]
    if not is_tight:
        everything = sorted(['one', 'zwei-ü-🦕', 'a', 'b', 'c', 'é'])
        assert found['query'] == everything
        assert found['stats'] == 6


IS_FULL = bool(os.environ.get('HADROSAUR_TORTURE'))
SOME = ['20 descriptors', 'no stdin, stdout, stderr', 'ASCII', 'python -W error', 'clock 30 years ahead']


@pytest.mark.long
@pytest.mark.parametrize('name', PLACES if IS_FULL else SOME)
def test_a_place(name, tmp_path, request):
    """fetch, fetch_many, query and the commands work there, or say one clear sentence; later all is well."""
    place = PLACES[name]
    is_tight = any(word in name for word in TIGHT)
    more = {}
    if 'clock' in place:
        more = {'LD_PRELOAD': request.getfixturevalue('clock'), 'YEARS_OFF': str(place['clock'])}
    program = tmp_path / 'program.py'
    program.write_text(textwrap.dedent(PROGRAM), encoding='utf-8')
    python = [sys.executable, *place.get('flags', [])]
    code, _, err = run(place, [*python, str(program), *place.get('words', [])], tmp_path, more)
    judge_program(tmp_path, is_tight)
    # Where an interpreter cannot even import what it needs, that is not ours to word.
    assert code == 0 or is_tight, err
    if not is_tight:
        assert 'Traceback' not in err

    verbs = VERBS if IS_FULL else VERBS[2::4]
    for verb in verbs if not is_tight or (tmp_path / 'base/coll/one/status.json').exists() else ():
        words = [
            {'BASE': str(tmp_path / 'base'), 'PROGRAM:proj': f'{program}:proj'}.get(word, word)
            for word in verb
        ]
        code, out, err = run(place, [*python, '-m', 'hadrosaur', *words], tmp_path, more)
        assert code in ((0, 1, 3, 4, 5) if is_tight else (0,)), (verb, code, err)
        assert 'Traceback' not in err or (is_tight and 'import' in err), (verb, err)
        if code and is_tight and 2 not in place.get('closed', ()):
            assert err.strip(), verb
        if verb[0] in ('status', 'query', 'show', 'logs') and code == 0 and 1 not in place.get('closed', ()):
            assert out, verb

    modes = {path.stat().st_mode & 0o777 for path in (tmp_path / 'base').rglob('*.json')}
    assert modes <= ({0o600} if name == 'umask 077' else {0o666} if name == 'umask 000' else {0o644}), modes
    with Project(tmp_path / 'base') as proj:  # with room again
        proj.resource('coll')(lambda ident, args, subdir: {'ident': ident})
        for ident in ('one', 'a', 'é', 'by-run', 'ö'):  # some of them were refused there
            assert proj.fetch('coll', ident)['result'] == {'ident': ident}
        assert proj.check(deep=True).findings == []
        assert {row.status for row in proj.query('coll')} == {'completed'}
