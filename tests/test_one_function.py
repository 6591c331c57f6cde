"""A collection has one function: another under its name is refused, the same one defined again is taken."""

import copy
import functools
import importlib
import pickle
import sys
import types

import numpy
import pytest

from hadrosaur import DuplicateCollection, NotAProject, Project


def factory(number, holder=None):
    def made(ident, args, subdir):
        return (number, holder)

    return made


def wrapping(number):
    def wrap(function):
        @functools.wraps(function)
        def wrapper(*given):
            return number, function(*given)

        return wrapper

    return wrap


class Model:
    def __init__(self, number):
        self.number = number

    def __call__(self, ident, args, subdir):
        return self.number

    def compute(self, ident, args, subdir):
        return self.number


class Slotted:
    __slots__ = ('number',)

    def __init__(self, number):
        self.number = number

    def __call__(self, ident, args, subdir):
        return self.number


def plain(ident, args, subdir):
    return ident


def three(number, ident, args, subdir):
    return number


def with_default(number):
    return lambda ident, args, subdir, number=number: number


OTHERS = {
    'lambdas': lambda number: (lambda i, a, s: 'first') if number == 1 else (lambda i, a, s: 'second'),
    'closures': factory,
    'closures over arrays': lambda number: factory(numpy.array([number, 2])),
    'closures over functions': lambda number: factory(factory(number)),
    'closures over objects': lambda number: factory(Model(number)),
    'partials': lambda number: functools.partial(three, number),
    'partials by keyword': lambda number: functools.partial(plain, extra=number),
    'partials of closures': lambda number: functools.partial(factory(number)),
    'callable objects': Model,
    'bound methods': lambda number: Model(number).compute,
    'defaults': with_default,
    'wrapped under one name': lambda number: wrapping(number)(plain),
    'wrapped in a closure': lambda number: wrapping(1)(factory(number)),
}


@pytest.mark.parametrize('kind', OTHERS)
def test_two_that_look_alike_are_two(proj, kind):
    """Two that share a name but not what they do are refused, and the first stays."""
    make = OTHERS[kind]
    first = make(1)
    proj.resource('coll')(first)

    with pytest.raises(DuplicateCollection, match=r"'coll' has a function already: .*; another is "):
        proj.resource('coll')(make(2))

    assert proj._registry.get('coll').function is first
    proj.resource('coll')(make(1))  # another object, but the same in all


def test_objects_that_show_nothing_of_what_they_hold_are_two(proj):
    """Where nobody can tell that two are the same, they are two."""
    proj.resource('coll')(Slotted(1))

    with pytest.raises(DuplicateCollection):
        proj.resource('coll')(Slotted(1))


MODULE = """
from hadrosaur import Project
import functools

proj = globals().get('proj') or Project({base!r})

def other(number):
    def wrap(function):
        @functools.wraps(function)
        def wrapper(*given):
            return number, function(*given)
        return wrapper
    return wrap
{space}
@proj.resource('named')
def named(ident, args, subdir):
    return {what!r}

@proj.resource('wrapped')
@other({what!r})
def wrapped(ident, args, subdir):
    return {what!r}

proj.resource('lambda')(lambda ident, args, subdir: 'as it was')
"""


def test_a_module_may_be_reloaded(tmp_path, monkeypatch):
    """After an edit the functions of a module take the place of what they were, lines shifted or not."""
    path = tmp_path / 'reloaded_for_test.py'
    base = str(tmp_path / 'base')
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setattr(sys, 'dont_write_bytecode', True)
    try:
        for what, space in (('first', ''), ('second', ''), ('third', '\n\n\n')):
            path.write_text(MODULE.format(base=base, what=what, space=space), 'utf-8')
            importlib.invalidate_caches()
            if what == 'first':
                module = importlib.import_module('reloaded_for_test')
            else:
                importlib.reload(module)
            assert module.proj.fetch('named', what).result == what
            assert module.proj.fetch('wrapped', what).result == [what, what]
        assert module.proj.fetch('lambda', 'a').result == 'as it was'
        module.proj.close()
    finally:
        sys.modules.pop('reloaded_for_test', None)


def run_cell(text, number, namespace):
    """Run a cell as a notebook's kernel does: each has a file name of its own, and all are __main__."""
    exec(compile(text, f'/tmp/ipykernel_7/{number}.py', 'exec'), namespace)


def test_a_cell_may_be_run_again(proj):
    """A cell that is run again, edited or not, replaces its named functions; another lambda is another."""
    namespace = {'__name__': '__main__', 'proj': proj}
    cell = "@proj.resource('named')\ndef compute(ident, args, subdir):\n    return {!r}\n"
    for number, what in enumerate(('first', 'second', 'second')):
        run_cell(cell.format(what), number, namespace)
        assert proj.fetch('named', f'{number}').result == what
    cell = "proj.resource('nameless')(lambda ident, args, subdir: {!r})\n"
    run_cell(cell.format('first'), 10, namespace)
    run_cell(cell.format('first'), 10, namespace)
    with pytest.raises(DuplicateCollection):
        run_cell(cell.format('second'), 11, namespace)


def test_the_same_cell_may_be_run_again_with_another_lambda(proj, monkeypatch):
    """Where the front end tells which cell is run; not within one run of it, and no other cell."""
    parent = {'metadata': {}, 'header': {}}
    shell = types.SimpleNamespace(kernel=types.SimpleNamespace(get_parent=lambda: parent))
    monkeypatch.setitem(sys.modules, 'IPython', types.SimpleNamespace(get_ipython=lambda: shell))
    cell = "proj.resource('nameless')(lambda ident, args, subdir: {!r})\n"

    def run(name, number, what):
        parent.update(metadata={'cellId': name}, header={'msg_id': number})
        run_cell(cell.format(what), number, {'proj': proj, '__name__': '__main__'})

    run('a', 1, 'first')
    run('a', 2, 'second')
    assert proj.fetch('nameless', 'it')['result'] == 'second'
    for name, number in (('a', 2), ('b', 3)):
        with pytest.raises(DuplicateCollection):
            run(name, number, 'third')
    run('a', 4, 'fourth')


@pytest.mark.parametrize('given', [3, None, 'compute'])
def test_what_cannot_be_called_is_refused_at_once(proj, base, given):
    """Not by the first fetch; and no collection is made for it."""
    with pytest.raises(TypeError, match="'coll' needs a function"):
        proj.resource('coll')(given)
    assert not (base / 'coll').exists()


def test_one_name_in_two_files_is_two_functions(proj):
    """Programs that are run under one module name do not take each other's collections."""
    text = "@proj.resource('coll')\ndef compute(ident, args, subdir):\n    return {!r}\n"
    exec(compile(text.format('a'), '/somewhere/a.py', 'exec'), {'__name__': '__main__', 'proj': proj})
    with pytest.raises(DuplicateCollection, match=r'\(a.py, line 1\).*\(b.py, line 1\)'):
        exec(compile(text.format('b'), '/somewhere/b.py', 'exec'), {'__name__': '__main__', 'proj': proj})


@pytest.mark.parametrize('way', [lambda proj: pickle.loads(pickle.dumps(proj)), copy.copy, copy.deepcopy])
def test_what_was_opened_to_read_stays_so(proj, base, way):
    """create=False goes with a Project through pickling and copying: nothing is made where nothing is."""
    proj.resource('coll')(plain)
    proj.fetch('coll', 'a')
    reader = way(Project(base, create=False))

    assert reader.get('coll', 'a').result == 'a'
    assert reader._computes is False
    assert way(proj)._computes is True
    with pytest.raises(NotAProject):
        Project(base.parent / 'none', create=False)
    reader.close()
