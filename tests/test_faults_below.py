"""The library that injects faults below Python does what its docstring says: a test of the tests."""

import errno
import os
import signal
import subprocess
import sys
import textwrap

import pytest
from conftest import HANG
from torture.faults import CHANGES, Faults

PROGRAM = """
    import os, sqlite3, subprocess, sys
    os.makedirs('base/one')
    with open('base/one/file', 'w') as file:
        file.write('first ')
    fd = os.open('base/one', os.O_RDONLY)
    inner = os.open('file', os.O_WRONLY | os.O_APPEND, dir_fd=fd)
    subprocess.run(['sh', '-c', 'echo second >> base/one/file'])
    os.write(inner, b'third')
    os.fsync(inner)
    os.rename('file', 'moved', src_dir_fd=fd, dst_dir_fd=fd)
    os.pwrite(inner, b'!', 0)
    os.truncate('base/one/moved', 4)
    os.unlink('base/one/../one/moved')
    sqlite3.connect('base/index').execute('create table t (x)')
    open('outside', 'w').close()
"""


@pytest.fixture
def faults(tmp_path):
    with Faults(tmp_path, tmp_path / 'base') as found:
        yield found


def run(faults, tmp_path, source=PROGRAM):
    command = [sys.executable, '-I', '-c', textwrap.dedent(source)]
    return subprocess.run(
        command, cwd=tmp_path, env=faults.environment(), capture_output=True, text=True, timeout=HANG
    )


def test_every_operation_is_written_down(faults, tmp_path):
    """In order, of all processes, with paths, offsets and data; nothing of what is outside."""
    faults.log()
    done = run(faults, tmp_path)

    assert done.returncode == 0, done.stderr
    found = [op for op in faults.operations() if op.path and op.path.startswith('one')]
    inode = found[1].inode
    assert [(op.kind, op.path) for op in found] == [
        ('mkdir', 'one'), ('create', 'one/file'), ('write', 'one/file'), ('read open', 'one'),
        ('open', 'one/file'), ('create', 'one/file'), ('write', 'one/file'), ('write', 'one/file'),
        ('fsync', 'one/file'), ('rename', 'one/file'), ('write', 'one/moved'), ('truncate', 'one/moved'),
        ('unlink', 'one/moved'),
    ]  # fmt: skip
    writes = [(op.offset, op.data) for op in found if op.kind == 'write']
    assert writes == [(0, b'first '), (6, b'second\n'), (13, b'third'), (18, b'!')]  # O_APPEND: at the end
    assert {op.inode for op in found if op.kind in ('write', 'fsync', 'rename', 'unlink')} == {inode}
    assert len({op.pid for op in found}) == 2
    kinds = {op.kind for op in faults.operations() if op.path and op.path.startswith('index')}
    assert {'create', 'write', 'fdatasync', 'unlink'} <= kinds  # SQLite's
    assert all(op.path is not None for op in faults.operations())


def test_each_of_them_can_fail(faults, tmp_path):
    """The k-th fails with the errno, and no other; or the process is killed at it."""
    faults.arm(path='one*')
    run(faults, tmp_path)
    total = faults.count
    assert total == 12
    for number in range(1, total + 1):
        subprocess.run(['rm', '-rf', str(tmp_path / 'base')], check=True)
        faults.arm('fail', number, errno.ESTALE, path='one*')
        done = run(faults, tmp_path)
        assert faults.fired == 1
        assert 'Stale file handle' in done.stderr or 'I/O error' in done.stderr, (faults.first, done.stderr)
    subprocess.run(['rm', '-rf', str(tmp_path / 'base')], check=True)
    faults.arm('kill', 10, path='one*')
    done = run(faults, tmp_path)
    assert done.returncode == -signal.SIGKILL
    assert faults.first == 'write one/moved'
    assert (tmp_path / 'base/one/moved').read_text() == 'first second\nthird'


def test_short_writes_and_a_full_disk(faults, tmp_path):
    """A short write writes half; a full disk refuses every one from the k-th on."""
    source = """
        import os
        os.makedirs('base')
        fd = os.open('base/file', os.O_CREAT | os.O_WRONLY)
        for _ in range(4):
            try:
                print(os.write(fd, b'12345678'))
            except OSError as error:
                print(error.errno)
    """
    faults.arm('short', 2, kinds={'write'})
    assert run(faults, tmp_path, source).stdout.split() == ['8', '4', '8', '8']
    subprocess.run(['rm', '-rf', str(tmp_path / 'base')], check=True)
    faults.arm('fail', 3, errno.ENOSPC, every=True, kinds={'write'})
    assert run(faults, tmp_path, source).stdout.split() == ['8', '8', '28', '28']
    assert faults.fired == 2
    faults.disarm()
    assert run(faults, tmp_path, 'import os; os.mkdir("base/x")').returncode == 0
    assert 'flock' not in CHANGES
    assert os.path.isdir(tmp_path / 'base/x')
