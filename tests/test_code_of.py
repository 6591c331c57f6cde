"""``version='code'``: a digest that code changes, and comments, blank lines and moves do not."""

import functools
import importlib
import itertools
import sys
import textwrap

import pytest

from hadrosaur import Project, code_of

NUMBERS = itertools.count()


@pytest.fixture
def load(tmp_path, monkeypatch):
    """A module of some text, anew each time."""
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(sys, 'dont_write_bytecode', True)

    def make(text):
        name = f'written{next(NUMBERS)}'
        (tmp_path / f'{name}.py').write_text(textwrap.dedent(text))
        importlib.invalidate_caches()
        return importlib.import_module(name)

    return make


PLAIN = """
def f(ident, args, subdir):
    total = 1
    return total + len(ident)
"""

SAME = {
    'comments': PLAIN.replace('total = 1', 'total = 1  # the first'),
    'blank lines': '\n\n\n' + PLAIN.replace('    return', '\n\n    return'),
    'moved': 'import os\n\ndef other():\n    return 5\n' + PLAIN,
    'docstring': PLAIN.replace('    total = 1', '    "what it does"\n    total = 1'),
    'layout': PLAIN.replace('total + len(ident)', '(\n        total\n        + len(ident)\n    )'),
    'name': PLAIN.replace('def f(', 'def renamed(') + '\nf = renamed\n',
    'nested': 'def make():\n' + textwrap.indent(PLAIN, '    ') + '    return f\nf = make()\n',
    'method': 'class C:\n    @staticmethod\n' + textwrap.indent(PLAIN.strip(), '    ') + '\nf = C.f\n',
}
OTHER = {
    'a number': PLAIN.replace('total = 1', 'total = 2'),
    'a type': PLAIN.replace('total = 1', 'total = 1.0'),
    'a truth': PLAIN.replace('total = 1', 'total = True'),
    'a name': PLAIN.replace('total', 'sum_'),
    'an operator': PLAIN.replace('total +', 'total -'),
    'a default': PLAIN.replace('subdir)', 'subdir=None)'),
    'async': PLAIN.replace('def f', 'async def f'),
    'a text': PLAIN.replace('1\n', '"1"\n'),
    'a constant': PLAIN.replace('1\n', 'None\n'),
    'order': PLAIN.replace('total + len(ident)', 'len(ident) + total'),
}


def digest(module):
    function = module.f
    if isinstance(function, staticmethod):
        function = function.__func__
    return code_of(function)


@pytest.mark.parametrize('text', [text for name, text in SAME.items() if name != 'method'],
                         ids=[name for name in SAME if name != 'method'])  # fmt: skip
def test_what_changes_nothing(text, load):
    """Comments, blank lines, docstrings, layout, the name and the place make no difference."""
    assert digest(load(text)) == digest(load(PLAIN))


@pytest.mark.parametrize('text', OTHER.values(), ids=OTHER)
def test_what_changes_the_code(text, load):
    """Any other number, name, operator, default or order is other code."""
    assert digest(load(text)) != digest(load(PLAIN))


def test_the_digest_is_for_good(load):
    """The same code has the same digest in every release, of Python too."""
    assert digest(load(PLAIN)) == GOLDEN


GOLDEN = 'code:5c5a408958f453ca'


def test_helpers_count_if_they_are_named(load):
    """code_of takes several functions, and classes; the order and each of them counts."""
    module = load(
        PLAIN + 'def g():\n    return 1\n\nclass K:\n    size = 3\n    def m(self):\n        return 1\n'
    )
    other = load(
        PLAIN + 'def g():\n    return 2\n\nclass K:\n    size = 4\n    def m(self):\n        return 1\n'
    )
    assert code_of(module.f) == code_of(other.f)
    assert code_of(module.f, module.g) != code_of(other.f, other.g)
    assert code_of(module.f, module.g) != code_of(module.g, module.f)
    assert code_of(module.K) != code_of(other.K)
    assert code_of(module.K().m) == code_of(other.K().m) == code_of(module.K.m)


DECORATED = """
import functools

def twice(g):
    {wraps}
    def inner(*args):
        return {result}
    return inner

@twice
def f(ident, args, subdir):
    return {body}
"""


@pytest.mark.parametrize('wraps', ['@functools.wraps(g)', ''])
def test_what_a_decorator_wraps_counts(wraps, load):
    """The wrapped function and the wrapper count, with and without functools.wraps."""
    parts = {'wraps': wraps, 'result': 'g(*args)', 'body': '1'}
    known = digest(load(DECORATED.format(**parts)))
    assert digest(load('# moved\n' + DECORATED.format(**parts))) == known
    assert digest(load(DECORATED.format(**{**parts, 'body': '2'}))) != known
    assert digest(load(DECORATED.format(**{**parts, 'result': '2 * g(*args)'}))) != known


OBJECTS = {
    'an object': """
class Retry:
    def __init__(self, g):
        self.g = g
    def __call__(self, *args):
        return {result}, self.g(*args)
@Retry
""",
    'an object with wraps, of a subclass': """
import functools
class Retry:
    def __call__(self, *args):
        return {result}, self.g(*args)
class Often(Retry):
    def __init__(self, g):
        functools.update_wrapper(self, g)
        self.g = g
@Often
""",
    'a cache below a function': """
import functools
def twice(g):
    def inner(*args):
        return {result}, g(*args)
    return inner
@twice
@functools.lru_cache
""",
    'functions in a list': """
def first_of(g):
    steps = [g]
    def inner(*args):
        return {result}, steps[0](*args)
    return inner
@first_of
""",
}


@pytest.mark.parametrize('decorator', OBJECTS.values(), ids=OBJECTS)
def test_what_an_object_wraps_counts(decorator, load):
    """A function is not lost from sight in an object that is called in its place, or in a list."""
    text = decorator + 'def f(ident, args, subdir):\n    return {body}\n'
    known = digest(load(text.format(result=1, body=1)))
    assert digest(load('# moved\n' + text.format(result=1, body=1))) == known
    assert digest(load(text.format(result=1, body=2))) != known
    assert digest(load(text.format(result=2, body=1))) != known


def test_lambdas_partials_and_objects(load):
    """Lambdas on one line are told apart; of a partial its arguments count; an object is its __call__."""
    text = 'f, g = (lambda i, a, s: 1), (lambda i, a, s: 2)\nh = lambda i, a, s: 1\n'
    module = load(text)
    assert code_of(module.f) == code_of(module.h) != code_of(module.g)
    assert code_of(functools.partial(module.f, 1)) != code_of(functools.partial(module.f, 2))
    assert code_of(functools.partial(module.f, 1)) == code_of(functools.partial(load(text).f, 1))
    called = load('class K:\n    def __call__(self, i, a, s):\n        return 1\n')
    assert code_of(called.K()) == code_of(called.K.__call__)
    cached = load('import functools\n@functools.lru_cache\ndef f(i):\n    return 1\n')
    assert digest(cached) != digest(load('def f(i):\n    return 1\n'))


@pytest.mark.parametrize(
    ('function', 'kind', 'words'),
    [
        (len, ValueError, 'has no source in Python'),
        (functools.partial(len, object()), ValueError, 'no '),
        (5, TypeError, 'has no source in Python'),
        (eval('lambda: 1'), ValueError, 'source of <lambda> cannot be found'),
    ],
    ids=['builtin', 'partial', 'number', 'typed'],
)
def test_what_has_no_source_is_one_sentence(function, kind, words):
    """Built in, typed at a prompt, or no function: a sentence that says what to write instead."""
    with pytest.raises(kind, match=words):
        code_of(function)
    with pytest.raises(TypeError, match='at least one'):
        code_of()


JOBS = """
from hadrosaur import Project
proj = Project({base!r})

@proj.resource('coll', version='code'{more})
def coll(ident, args, subdir):
    {comment}
    return {result}
"""


def test_version_code(base, load):
    """Resources are stale once the function's code is another; options and comments change nothing."""

    def project(**parts):
        known = {'base': str(base), 'more': '', 'comment': '# first', 'result': '1', **parts}
        return load(JOBS.format(**known)).proj

    with project() as proj:
        assert proj.fetch('coll', 'a').value == 1
        assert proj.query('coll')[0].version.startswith('code:')
    with project(comment='# second', more=', retries=3') as proj:
        assert not proj.query(stale=True)
    with project(result='2') as proj:
        assert proj.query(stale=True).idents() == ['a']
        assert (
            proj.fetch_many('coll', proj.query('coll', stale=True), recompute=True, workers=1).wait()[1] == 1
        )
        assert proj.fetch('coll', 'a').value == 2
    with pytest.raises(ValueError, match='no source'):
        Project(base).resource('b', version='code')(len)
