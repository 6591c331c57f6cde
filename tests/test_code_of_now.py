"""Which code a worker computes: the one that is registered now, wherever it came from."""

import importlib
import importlib.util
import runpy
import sys
import types
from pathlib import Path

import pytest

from hadrosaur import Project


def fetched(proj, tag):
    """The results of one resource in each way."""
    yield proj.fetch('coll', f'{tag}-inline').result
    yield next(proj.fetch_many('coll', [f'{tag}-many'], workers=1)).result
    yield proj.fetch('coll', f'{tag}-background', background=True).wait(100).result
    yield proj.fetch('in-time', f'{tag}-timeout').result


def register(proj, function):
    proj.resource('coll')(function)
    proj.resource('in-time', timeout=600)(function)


def test_a_module_that_was_loaded_again(proj, tmp_path, monkeypatch):
    """Edited and reloaded, by itself or as a helper of a function that is not: the new code computes."""
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(sys, 'dont_write_bytecode', True)
    path = tmp_path / 'edited_by_the_test.py'

    def edit(word):
        path.write_text(f'def area(ident, args, subdir):\n    return {word!r}\n')
        importlib.invalidate_caches()

    edit('first')
    edited = importlib.import_module('edited_by_the_test')
    try:
        register(proj, edited.area)
        assert set(fetched(proj, 1)) == {'first'}
        for resource in [proj.fetch('coll', f'busy {n}', background=True) for n in range(50)]:
            assert resource.wait(100).result == 'first'  # all workers that there may be
        edit('second')
        importlib.reload(edited)
        register(proj, edited.area)
        assert set(fetched(proj, 2)) == {'second'}

        with Project(tmp_path / 'other') as other:
            module = 'edited_by_the_test'
            register(other, lambda ident, args, subdir: importlib.import_module(module).area(0, 0, 0))
            assert set(fetched(other, 3)) == {'second'}
            edit('third')
            importlib.reload(edited)
            assert set(fetched(other, 4)) == {'third'}
    finally:
        del sys.modules['edited_by_the_test']


def test_what_a_script_changes_about_its_functions(program):
    """A global, a helper, an attribute of a callable object: every way of fetching sees the change."""
    program(
        f"""
        import sys
        sys.path.insert(0, {str(Path(__file__).parent)!r})
        from hadrosaur import Project
        from test_code_of_now import fetched, register

        word = 'first'
        def helper():
            return word
        def compute(ident, args, subdir):
            return helper()

        proj = Project('base')
        register(proj, compute)
        assert set(fetched(proj, 1)) == {{'first'}}
        word = 'second'
        assert set(fetched(proj, 2)) == {{'second'}}
        def helper():
            return 'third'
        assert set(fetched(proj, 3)) == {{'third'}}
        proj.close()

        class Model:
            def __call__(self, ident, args, subdir):
                return self.word
        model = Model()
        model.word = 'fourth'
        other = Project('other')
        register(other, model)
        assert set(fetched(other, 4)) == {{'fourth'}}
        model.word = 'fifth'
        assert set(fetched(other, 5)) == {{'fifth'}}
        other.close()
        """
    )


def test_many_changes_do_not_pile_up(proj):
    """A callable that is another each time: the pool does not keep them all, and always computes the last."""

    class Counter:
        count = 0

        def __call__(self, ident, args, subdir):
            return self.count

    counter = Counter()
    proj.resource('coll', background=True)(counter)
    for number in range(150):
        counter.count = number
        assert proj.fetch('coll', number).wait(100).result == number
    pool = proj._background.dispatcher.executor
    assert len(pool._numbers) <= 101
    assert len(pool._frames) <= 101


SCRIPT = """
import os, pickle, shelve, sys, typing
from hadrosaur import Project

class Base:
    def scale(self):
        return 1

class Model(Base):
    other: 'Forward'
    def __init__(self, weight):
        self.weight = weight
    def scale(self):
        return super().scale() * self.weight

class Forward:
    pass

class Unmentioned:
    word = 'kept'

def train(ident, args, subdir):
    with open(f'{subdir}/model.pkl', 'wb') as file:
        pickle.dump(Model(len(ident)), file)
    with shelve.open(f'{subdir}/shelf') as shelf:
        shelf['model'] = Model(7)
        assert shelf['model'].scale() == 7
    hints = typing.get_type_hints(Model)
    with open(f'{subdir}/model.pkl', 'rb') as file:
        return [pickle.load(file).scale(), hints['other'].__name__]

def load(ident, args, subdir):
    with open(args['path'], 'rb') as file:
        return pickle.load(file).scale()

def load_what_nothing_mentions(ident, args, subdir):
    with open(args['path'], 'rb') as file:
        return pickle.load(file).word

proj = Project('base')
for function in (train, load, load_what_nothing_mentions):
    proj.resource(function.__name__)(function)
"""


def test_classes_of_a_script_in_a_worker(program):
    """An instance is pickled in one resource and read in another, and in the program; type hints resolve."""
    program(
        SCRIPT
        + """
for executor in ('inline', 'processes'):
    [res] = proj.fetch_many('train', [f'seven{executor[0]}'], workers=1, executor=executor)
    assert res.result == [6, 'Forward'], res.error
    path = res.paths['storage'] + 'model.pkl'
    with open(path, 'rb') as file:
        assert type(pickle.load(file)) is Model
    args = {'path': os.path.abspath(path)}
    [other] = proj.fetch_many('load', [executor], args, workers=1, executor=executor)
    assert other.result == 6, other.error

with open('unmentioned', 'wb') as file:
    pickle.dump(Unmentioned(), file)
args = {'path': os.path.abspath('unmentioned')}
[res] = proj.fetch_many('load_what_nothing_mentions', ['a'], args, workers=1)
assert res.result == 'kept', res.error
proj.close()
"""
    )


CODE = """
FACTOR = 3

class Thing:
    factor = FACTOR

def work(ident, args, subdir):
    import pickle
    return pickle.loads(pickle.dumps(Thing())).factor * len(ident)
"""


def by_spec(path):
    spec = importlib.util.spec_from_file_location('of_the_test_by_spec', path)
    module = importlib.util.module_from_spec(spec)
    sys.modules['of_the_test_by_spec'] = module
    spec.loader.exec_module(module)
    return module.work


def by_hand(path):
    module = sys.modules['of_the_test_by_hand'] = types.ModuleType('of_the_test_by_hand')
    exec(path.read_text(), module.__dict__)
    return module.work


def by_name_of_another(path):
    """The name is one that a worker would find, and find another module."""
    spec = importlib.util.spec_from_file_location('colorsys', path)
    module = importlib.util.module_from_spec(spec)
    sys.modules['colorsys'] = module
    spec.loader.exec_module(module)
    return module.work


@pytest.mark.parametrize('load', [by_spec, by_hand, by_name_of_another], ids=lambda load: load.__name__)
def test_functions_of_modules_that_no_name_finds(proj, tmp_path, load):
    """Loaded from a path, made by hand: they travel by value, and their classes can be pickled there."""
    (tmp_path / 'jobs.py').write_text(CODE)
    before = dict(sys.modules)
    try:
        proj.resource('coll')(load(tmp_path / 'jobs.py'))
        [res] = proj.fetch_many('coll', ['four'], workers=1)
        assert res.result == 12, res.error
    finally:
        sys.modules.update(before)
        for name in sys.modules.keys() - before.keys():
            if name.startswith('of_the_test'):
                del sys.modules[name]


def test_functions_run_from_a_path(proj, tmp_path):
    """`runpy` leaves no module behind at all."""
    (tmp_path / 'jobs.py').write_text(CODE.replace('pickle.loads(pickle.dumps(Thing()))', 'Thing()'))
    proj.resource('coll')(runpy.run_path(str(tmp_path / 'jobs.py'))['work'])
    [res] = proj.fetch_many('coll', ['four'], workers=1)
    assert res.result == 12, res.error


def test_a_module_of_a_folder_that_was_current_once(program, tmp_path):
    """`import shapes`, then chdir: the empty entry of sys.path means another folder by then."""
    (tmp_path / 'shapes.py').write_text('def area(ident, args, subdir):\n    return len(ident)\n')
    program(
        """
        import os, sys
        sys.path[0] = ''
        import shapes
        from hadrosaur import Project
        proj = Project('base')
        proj.resource('coll')(lambda ident, args, subdir: shapes.area(ident, args, subdir))
        proj.resource('direct')(shapes.area)
        os.mkdir('elsewhere')
        os.chdir('elsewhere')
        for name in ('coll', 'direct'):
            [res] = proj.fetch_many(name, ['four'], workers=1)
            assert res.result == 4, res.error
        proj.close()
        """
    )
