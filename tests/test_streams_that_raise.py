"""A function may leave anything in the place of sys.stdout: it costs nobody but itself."""

import os
import sys

import pytest

from hadrosaur import Project


class Raises:
    """Whatever is asked of it is refused."""

    def __getattr__(self, name):
        raise RuntimeError(f'no {name}')

    def __eq__(self, other):
        raise RuntimeError('not comparable')

    __hash__ = None


def compute(ident, args, subdir):
    print('said by', ident)
    if args.get('leaves'):
        sys.stdout = sys.stderr = Raises()
    return ident


@pytest.mark.parametrize('executor', ['inline', 'processes'])
def test_the_next_one_never_notices(executor, tmp_path):
    """Siblings complete with their own logs, and the caller's streams and descriptors are what they were."""
    before = (sys.stdout, sys.stderr, *(os.readlink(f'/proc/self/fd/{fd}') for fd in (1, 2)))
    with Project(tmp_path / 'base') as proj:
        proj.resource('coll')(compute)
        items = [('a', {}), ('odd', {'leaves': True}), ('b', {}), ('c', {})]
        found = {res.ident: res for res in proj.fetch_many('coll', items, executor=executor, workers=1)}

        assert {res.status for res in found.values()} == {'completed'}
        for ident, res in found.items():
            with open(res.paths['stdout']) as file:
                assert file.read() == f'said by {ident}\n'
    after = (sys.stdout, sys.stderr, *(os.readlink(f'/proc/self/fd/{fd}') for fd in (1, 2)))
    assert before == after
