"""A base that means ill: what is planted in it, what lies outside and must not be touched, and every verb."""

import contextlib
import os
import resource
import shutil
import socket
import subprocess
import sys
import textwrap
from pathlib import Path

from hadrosaur import HadrosaurError, HadrosaurWarning, Project

CANARY = 'CANARY-4711'  # stands in everything outside of the base; never in a verb's output
EVIL = 'EVIL-4711'  # stands in what is planted as code

JOBS = """
    import os, sys
    from hadrosaur import Project

    word = sys.argv[1] if sys.argv[0].endswith('make.py') else 'x'
    proj = Project('base')

    @proj.resource('coll')
    def compute(ident, args, subdir):
        if ident == 'cut' and word != 'x':
            os._exit(9)     # with the index open: a session that died, and a -wal
        print(word, ident)
        with open(f'{subdir}/{word}.txt', 'w') as file:
            file.write(word)
        if ident == 'bad':
            raise ValueError(word)
        return f'{word} {ident}'

    proj.resource('other')(lambda ident, args, subdir: word)
"""
MAKE = """
    for n in range(20):
        proj.fetch('other', n, {'word': word})
    proj.fetch('coll', 'done', {'word': word})
    proj.fetch('coll', 'bad', {'word': word})
    os.makedirs('base/.hadrosaur/cancel', exist_ok=True)
    os.makedirs('base/.hadrosaur/indexes', exist_ok=True)
    proj.fetch('coll', 'cut', {'word': word})
"""


def make_base(folder, word):
    """A base with a completed, a failed and a cut off resource, an index with -wal, and a dead session."""
    folder.mkdir(parents=True)
    (folder / 'jobs.py').write_text(textwrap.dedent(JOBS))
    (folder / 'make.py').write_text(textwrap.dedent(JOBS) + textwrap.dedent(MAKE))
    done = subprocess.run(
        [sys.executable, 'make.py', word], cwd=folder, timeout=300, capture_output=True, text=True
    )
    assert done.returncode == 9, done.stderr
    (session,) = (folder / 'base/.hadrosaur/sessions').iterdir()
    return session.name


# --- what lies outside ------------------------------------------------------------


class Outside:
    """Another base and some files, none of which anything may touch, read or list."""

    ATIME, MTIME = 1_000_000_000, 1_500_000_000  # a reading moves the first one, as it is the older

    def __init__(self, folder):
        self.folder = folder
        make_base(folder, CANARY)
        (folder / 'secret.txt').write_text(f'{CANARY}\n')
        (folder / 'full').mkdir()
        (folder / 'full/secret.txt').write_text(f'{CANARY}\n')
        self.probe = folder / 'probe'
        self.probe.write_text('x')
        self.mend()
        self.probe.read_text()
        self.sees_reading = self.probe.stat().st_atime != self.ATIME
        self.kept = folder.with_name('outside-kept')
        shutil.copytree(folder, self.kept, symlinks=True)
        self.mend()

    def mend(self):
        """Everything as it was, and known as it is now."""
        if hasattr(self, 'kept'):
            for root, folders, files in os.walk(self.folder):
                for name in files:
                    path = Path(root, name)
                    kept = self.kept / path.relative_to(self.folder)
                    if not kept.exists():
                        path.unlink()
                for name in list(folders):
                    path = Path(root, name)
                    if path.is_symlink() or not (self.kept / path.relative_to(self.folder)).exists():
                        path.unlink() if path.is_symlink() else shutil.rmtree(path)
                        folders.remove(name)
            for root, _, files in os.walk(self.kept):
                there = self.folder / Path(root).relative_to(self.kept)
                there.mkdir(parents=True, exist_ok=True)
                there.chmod(Path(root).stat().st_mode & 0o7777)
                for name in files:
                    (there / name).unlink(missing_ok=True)
                    shutil.copyfile(Path(root, name), there / name)
                    (there / name).chmod(Path(root, name).stat().st_mode & 0o7777)
        for path in [self.folder, *self.folder.rglob('*')]:
            os.utime(path, (self.ATIME, self.MTIME), follow_symlinks=False)
        self.known = self.look()

    def look(self):
        """By path: kind and mode, inode, links, size, times. Nothing is opened."""
        found = {}
        todo = ['']
        while todo:
            at = todo.pop()
            stat = os.lstat(self.folder / at)
            found[at] = stat
        for path in self._paths():
            found[path] = os.lstat(self.folder / path)
        return found

    def _paths(self):
        if not hasattr(self, 'names'):
            self.names = sorted(str(path.relative_to(self.folder)) for path in self.folder.rglob('*'))
        return [name for name in self.names if os.path.lexists(self.folder / name)]

    def counterpart(self, place):
        """What stands outside in that place, to lead or to link to."""
        path = self.folder / place
        return path if os.path.lexists(path) and not path.is_symlink() else self.folder / 'secret.txt'

    def touched(self, linked=None):
        """What was done to it, in words. A file that the base holds a hard link to may be read."""
        now = self.look()
        told = [f'{path} is gone' for path in self.known.keys() - now.keys()]
        for path, is_now in now.items():
            was = self.known.get(path)
            if was is None:
                told.append(f'{path} is new')
                continue
            is_linked = linked is not None and is_now.st_ino == linked
            for field in ('st_mode', 'st_ino', 'st_size', 'st_mtime_ns', 'st_uid'):
                if getattr(was, field) != getattr(is_now, field):
                    told.append(f'{path or "outside"}: {field[3:]} changed')
            if is_linked or not path:
                continue
            if was.st_nlink != is_now.st_nlink:
                told.append(f'{path}: links changed')
            elif was.st_ctime_ns != is_now.st_ctime_ns and was.st_mtime_ns == is_now.st_mtime_ns:
                told.append(f'{path}: its metadata changed')
            if self.sees_reading and was.st_atime_ns != is_now.st_atime_ns:
                told.append(f'{path}: it was read')
        new = {entry.name for entry in os.scandir(self.folder)} - {name.split('/')[0] for name in self.known}
        told += [f'{name} is new outside' for name in new]
        return told


# --- what is planted ------------------------------------------------------------

IN_RESOURCE = [
    'status.json',
    'result.json',
    'record.json',
    'stdout.log',
    'stderr.log',
    'error.log',
    'storage',
    '.lock',
    '',
]


def places(session):
    """Where ours stands, relative to the folder that holds the base."""
    found = [
        f'base/coll/{ident}/{name}'.rstrip('/') for ident in ('done', 'bad', 'cut') for name in IN_RESOURCE
    ]
    found += ['base/coll/new', 'base/coll', 'base/other', 'base/index.sqlite3', 'base/index.sqlite3-wal']
    found += [
        'base/index.sqlite3-shm',
        'base/index.sqlite3-journal',
        'base/.index.sqlite3.new',
        'base/.hadrosaur',
    ]
    hidden = [
        'format.json',
        'index.lock',
        'sessions',
        f'sessions/{session}',
        'cancel',
        'cancel/request',
        'indexes',
    ]
    hidden += [
        f'indexes/{os.uname().nodename}',
        'waiting',
        'wait_graph/one',
        'waiting/.lock',
        'sessions/x.unwritten',
    ]
    return found + [f'base/.hadrosaur/{name}' for name in hidden]


def clear(path):
    if path.is_symlink() or not path.is_dir():
        path.unlink(missing_ok=True)
    else:
        shutil.rmtree(path)


def _socket(path, outside):
    here = os.getcwd()
    os.chdir(path.parent)  # the name of a socket may have 107 bytes
    try:
        with contextlib.closing(socket.socket(socket.AF_UNIX)) as one:
            one.bind(path.name)
    finally:
        os.chdir(here)


def _hard_link(path, outside):
    os.link(outside if outside.is_file() else outside_root(outside) / 'secret.txt', path)  # a folder has none


def _huge(path, outside):
    path.write_bytes(b'{"completed": true, ')
    os.truncate(path, 10 << 30)


def _full_folder(path, outside):
    path.mkdir()
    (path / 'file').write_text('x')
    (path / 'away').symlink_to(outside)
    (path / 'folder').mkdir()
    (path / 'folder/status.json').symlink_to(outside)


PLANTS = {
    'symlink': lambda path, outside: path.symlink_to(outside),
    'symlink to a file': lambda path, outside: path.symlink_to(outside_root(outside) / 'secret.txt'),
    'symlink to a folder': lambda path, outside: path.symlink_to(outside_root(outside) / 'full'),
    'relative symlink': lambda path, outside: path.symlink_to(os.path.relpath(outside, path.parent)),
    'symlink to nothing': lambda path, outside: path.symlink_to(outside_root(outside) / 'made'),
    'symlink to itself': lambda path, outside: path.symlink_to(path.name),
    'hard link': _hard_link,
    'FIFO': lambda path, outside: os.mkfifo(path),
    'device': lambda path, outside: os.mknod(path, 0o20666, os.makedev(1, 5)),  # /dev/zero: it never ends
    'socket': _socket,
    'huge': _huge,
    'deep list': lambda path, outside: path.write_bytes(b'[' * 200_000 + b']' * 200_000 + b'\n'),
    'deep object': lambda path, outside: path.write_bytes(b'{"format":' * 100_000 + b'1' + b'}' * 100_000),
    'empty': lambda path, outside: path.write_bytes(b''),
    'garbage': lambda path, outside: path.write_bytes(bytes(range(256)) * 16),
    'wrong kinds': lambda path, outside: path.write_text(
        '{"format": [], "args": 5, "state": {}, "lock": 7}\n'
    ),
    'empty folder': lambda path, outside: path.mkdir(),
    'full folder': _full_folder,
    'pickle': lambda path, outside: path.write_bytes(b"cos\nsystem\n(S'echo EVIL-4711 > executed'\ntR."),
}
if os.geteuid() != 0:
    del PLANTS['device']


def outside_root(path):
    while path.name != 'outside':
        path = path.parent
    return path


# --- every verb ------------------------------------------------------------


def say(resource):
    value = resource.get('result')
    print(resource.ident, resource.status, repr(value)[:200], (resource.error or '')[:500], resource.args)


def listed(ident, args, subdir):
    """What is computed. It follows no link in the place of its storage, or the reading would be its own."""
    storage = os.open(subdir, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
    try:
        return [ident, len(os.listdir(storage))]
    finally:
        os.close(storage)


def _python(work):
    def verb(base):
        with Project(base) as proj:
            proj.resource('coll')(listed)
            proj.resource('other')(lambda ident, args, subdir: ident)
            found = work(proj)
            if found is not None:
                print(found)

    return verb


def _cli(*words, needs_jobs=False):
    def verb(base):
        from hadrosaur.cli import main

        sys.argv = ['hadrosaur', *(word.format(base=base) for word in words)]
        main()

    return verb


def _all(resources):
    for one in resources:
        say(one)


ALL = ['done', 'bad', 'cut', 'new']
COMPUTE_INLINE = ('--executor', 'inline')
VERBS = {
    'fetch': _python(lambda proj: _all(proj.fetch('coll', ident) for ident in ALL)),
    'fetch done': _python(lambda proj: say(proj.fetch('coll', 'done'))),
    'fetch new': _python(lambda proj: say(proj.fetch('coll', 'new', {'a': 1}))),
    'fetch bad': _python(lambda proj: say(proj.fetch('coll', 'bad'))),
    'fetch cut': _python(lambda proj: say(proj.fetch('coll', 'cut'))),
    'recompute': _python(lambda proj: say(proj.fetch('coll', 'done', recompute=True))),
    'fetch_many': _python(lambda proj: _all(proj.fetch_many('coll', ALL, executor='inline'))),
    'fetch_many on threads': _python(
        lambda proj: _all(proj.fetch_many('coll', ALL, executor='threads', workers=2, recompute=True))
    ),
    'get': _python(lambda proj: _all(proj.get('coll', ident) for ident in ALL[:3])),
    'query': _python(lambda proj: [row.as_json() for row in proj.query()]),
    'stats': _python(lambda proj: (proj.stats(), proj.error_groups())),
    'sql in Python': _python(lambda proj: proj.sql('select * from resources')),
    'explain in Python': _python(lambda proj: [proj.explain('coll', ident) for ident in ALL]),
    'cancel in Python': _python(lambda proj: proj.cancel('coll')),
    'remove': _python(lambda proj: proj.remove('coll', 'done')),
    'remove cut': _python(lambda proj: proj.remove('coll', 'cut')),
    'reindex in Python': _python(lambda proj: proj.reindex()),
    'reindex changed': _python(lambda proj: proj.reindex(changed_only=True)),
    'check in Python': _python(lambda proj: proj.check(fix=True, deep=True)),
    'status': _cli('status', '{base}'),
    'status --json': _cli('status', '{base}', '--json'),
    'query --json': _cli('query', '{base}', '--json'),
    'query coll': _cli('query', '{base}', 'coll', '--status', 'error'),
    'show': _cli('show', '{base}', 'coll', 'done'),
    'show bad': _cli('show', '{base}', 'coll', 'bad', '--json'),
    'logs': _cli('logs', '{base}', 'coll', 'done'),
    'logs --error': _cli('logs', '{base}', 'coll', 'bad', '--error'),
    'logs -f': _cli('logs', '{base}', 'coll', 'done', '-f', '--stderr'),
    'errors': _cli('errors', '{base}'),
    'explain': _cli('explain', '{base}', 'coll', 'cut'),
    'sql': _cli('sql', '{base}', 'select * from resources'),
    'check': _cli('check', '{base}', '--deep'),
    'check --fix': _cli('check', '{base}', '--fix', '--deep'),
    'reindex': _cli('reindex', '{base}'),
    'reindex --fresh': _cli('reindex', '{base}', '--fresh'),
    'db current': _cli('db', 'current', '{base}'),
    'db upgrade': _cli('db', 'upgrade', '{base}'),
    'cancel': _cli('cancel', '{base}', 'coll', 'cut'),
    'rm': _cli('rm', '{base}', 'coll', 'done', 'bad', 'cut'),
    'run': _cli('run', 'jobs.py:proj', 'coll', 'done', 'new', 'cut', *COMPUTE_INLINE),
    'run -n': _cli('run', 'jobs.py:proj', 'coll', 'done', 'new', 'cut', '-n'),
    'retry': _cli('retry', 'jobs.py:proj', 'coll', *COMPUTE_INLINE),
    'reproduce': _cli('reproduce', 'jobs.py:proj', 'coll', 'bad'),
}
EXIT_CODES = (0, 1, 2, 3, 4, 5)


def _guard(event, args):
    """Fails on whatever would run stored data."""
    if event == 'pickle.find_class':
        raise RuntimeError(f'{EVIL}: something is unpickled')
    if event in ('exec', 'compile') and args:
        file = str(getattr(args[0], 'co_filename', args[1] if event == 'compile' else ''))
        text = args[0] if event == 'compile' and isinstance(args[0], (str, bytes)) else ''
        if '/base/' in file or EVIL in str(text):
            raise RuntimeError(f'{EVIL}: {event} of {file}')
    if event in ('os.system', 'os.exec', 'subprocess.Popen') and EVIL in repr(args):
        raise RuntimeError(f'{EVIL}: {event}')


def carry_out(verb, folder, base='base'):
    """In a victim: a verb on a base, as a program of a user's would; its exit code."""
    os.chdir(folder)
    resource.setrlimit(resource.RLIMIT_AS, (6 << 30, 6 << 30))  # what is read whole shows
    resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 28, 1 << 28))
    sys.addaudithook(_guard)
    import warnings

    warnings.simplefilter('ignore')
    warnings.simplefilter('always', HadrosaurWarning)
    try:
        VERBS[verb](base)
    except HadrosaurError as error:
        print(f'Error: {error}', file=sys.stderr)
        return error.exit_code
    return 0
