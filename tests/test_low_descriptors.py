"""Descriptors 0, 1 and 2 are for input and output: no file of ours is ever one of them."""

import os
import sqlite3

import pytest

from hadrosaur import Project
from hadrosaur.index import _connection

JOBS = """
    import os, shutil, sys
    from hadrosaur import Project

    executor, capture, closed = sys.argv[1], sys.argv[2], [int(fd) for fd in sys.argv[3]]
    said = os.dup2(1, 100)
    for fd in closed:
        os.close(fd)
    proj = Project('base')

    @proj.resource('coll', capture=capture)
    def compute(ident, args, subdir):
        for fd in {1, 2, *closed}:
            try:
                at = os.readlink(f'/proc/self/fd/{fd}')
            except OSError:
                continue
            if at.endswith('.json'):
                os.write(said, f'{fd} is {at}\\n'.encode())
            if args['how'] == 'close' and executor != 'threads':  # there it is a race for the number
                os.close(fd)
            elif args['how'] == 'write':
                try:
                    os.write(fd, b'JUNK' * 1000)
                except OSError:
                    pass
        return ident

    def told():
        return [os.readlink(f'/proc/self/fd/{fd}') for fd in (0, 1, 2) if fd not in closed]

    before = told()
    work = {n: {'how': how} for n, how in enumerate(['', 'close', 'write', ''] * 5)}
    for res in proj.fetch_many('coll', work, executor=executor, workers=3):
        if res['result'] != res.ident:
            os.write(said, f'{res.ident}: {res.status} {res.error}\\n'.encode())
    if (executor, capture) == ('inline', 'descriptors') and told() != before:
        os.write(said, f'{told()}, not {before}\\n'.encode())
    for found in proj.check(deep=True).findings:
        os.write(said, f'{found}\\n'.encode())
    proj.close()
    os.write(said, b'that is all')
"""


@pytest.mark.parametrize('closed', ['012', '12', '1', '2'])
@pytest.mark.parametrize(
    ('executor', 'capture'), [('inline', 'descriptors'), ('inline', 'streams'), ('threads', 'streams')]
)
def test_nothing_of_ours_is_printed_to_or_closed(program, executor, capture, closed):
    """Where a program has no streams, what prints to them or closes them meets none of our files."""
    assert program(JOBS, executor, capture, closed).stdout.replace('JUNK', '') == 'that is all'


def test_a_function_that_closes_all_of_its_callers_descriptors(program, base):
    """The row is written at once, and what is fetched next is computed.

    Not promised of worker processes that were started before: their connections are closed with the rest.
    """
    program(
        """
        import os, sys
        from hadrosaur import Project

        proj = Project(sys.argv[1])

        @proj.resource('coll', capture='streams')
        def compute(ident, args, subdir):
            if ident == 'closes':
                os.closerange(3, 1000)
            return ident

        proj.fetch('coll', 'a')
        assert proj.fetch('coll', 'closes').status == 'error'
        assert not proj._store.rows.is_behind
        assert [proj.fetch('coll', ident).status for ident in 'bc'] == ['completed'] * 2
        assert {row.ident: row.status for row in proj.query()} == {
            'a': 'completed', 'b': 'completed', 'c': 'completed', 'closes': 'error'}
        proj.close()
        """,
        base,
    )
    with Project(base) as proj:
        assert proj.check(deep=True).findings == []


def is_there(fd):
    try:
        return os.fstat(fd)
    except OSError:
        return None


def test_a_connection_that_was_closed_under_sqlite_closes_nobody_elses(tmp_path):
    """Whoever has got the numbers of its descriptors since keeps them."""
    driver = sqlite3.connect(tmp_path / 'some.sqlite3')
    driver.execute('CREATE TABLE some (cell)')
    file = os.stat(tmp_path / 'some.sqlite3')
    opened = {fd for fd in range(3, 1000) if (found := is_there(fd)) and os.path.samestat(found, file)}
    assert opened
    for fd in opened:
        os.close(fd)
    files = [open(tmp_path / 'mine', 'a') for _ in range(20)]  # noqa: SIM115
    assert opened <= {file.fileno() for file in files}
    _connection._close_what_was_closed(driver)
    for file in files:
        file.write('.')
        file.close()
    assert (tmp_path / 'mine').read_text() == '.' * 20
