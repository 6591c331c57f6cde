"""A function that travels to another process keeps its file and its lines: error.log is where users look."""

import functools
import json
import linecache
import pickle
from types import CodeType

import cloudpickle
import pytest

from hadrosaur.executors import _function_source

SCRIPT = """
    import json, sys
    from hadrosaur import Project

    def helper(numbers):
        return numbers[3]  # the line of helper

    class Reader:
        def read(self, numbers):
            return helper(numbers)  # the line of read

    def factory(reader):
        def made(ident, args, subdir):
            inner = lambda: reader.read([])  # the line of inner
            return [inner() for _ in 'a'][0]  # the line of made
        return made

    proj = Project('base')
    proj.resource('work')(factory(Reader()))
    logs = {}
    for executor in ('inline', 'processes'):
        [res] = proj.fetch_many('work', [executor], workers=1, executor=executor)
        logs[executor] = res.error
    print(json.dumps([logs, [[group.count, group.frame] for group in proj.error_groups()]]))
    proj.close()
"""


@pytest.fixture
def forgetful(monkeypatch):
    """A pickler that says of every function that it comes from nowhere, as one of cloudpickle's releases."""
    reducers = cloudpickle.Pickler.dispatch_table
    usual = reducers[CodeType]

    def reduce(code):
        build, fields, *rest = usual(code)
        names = (code.co_filename, '<dynamic-code>')
        other = tuple('<nowhere>' if field in names else field for field in fields)
        return (build, other, *rest)

    monkeypatch.setitem(reducers.maps[0], CodeType, reduce)


def code_of(function):
    """The code of a function and of all that stands inside it."""
    codes = [function.__code__]
    for code in codes:
        codes += [const for const in code.co_consts if isinstance(const, CodeType)]
    return codes


def test_a_failure_names_file_and_lines_wherever_it_was_computed(program):
    """Functions, closures, lambdas and classes of a script: error.log is alike inline and in a worker."""
    logs, groups = json.loads(program(SCRIPT).stdout)

    for line in ('helper', 'read', 'inner', 'made'):
        assert f'# the line of {line}' in logs['inline']
        assert f'# the line of {line}' in logs['processes']
    assert '/program0.py", line ' in logs['processes']
    assert [count for count, _ in groups] == [2]
    assert groups[0][1].endswith('/program0.py:helper')


def test_no_pickler_takes_the_file_away(forgetful):
    """Whatever the pickler writes for the file of a code object, the function comes out with its own."""

    def outer(number):
        def inner():
            return (lambda: number)()

        return inner()

    class Local:
        def method(self):
            return outer(7)

    def entry():
        return Local().method()

    assert pickle.loads(cloudpickle.dumps(lambda: 1)).__code__.co_filename == '<nowhere>'
    loaded = pickle.loads(_function_source.dumps(entry)[0])

    assert loaded() == 7
    [local] = [cell.cell_contents for cell in loaded.__closure__]
    functions = [loaded, local.method, local.method.__closure__[0].cell_contents]
    assert {code.co_filename for function in functions for code in code_of(function)} == {__file__}


def test_partials_and_callable_objects_keep_their_file(forgetful):
    """What is called in the end keeps its file, however it is wrapped."""

    class Callable:
        def __call__(self, ident, args, subdir):
            return ident

    def add(first, second):
        return first + second

    partial = pickle.loads(_function_source.dumps(functools.partial(add, 1))[0])
    thing = pickle.loads(_function_source.dumps(Callable())[0])

    assert partial(2) == 3
    assert partial.func.__code__.co_filename == __file__
    assert type(thing).__call__.__code__.co_filename == __file__


def test_lines_that_no_file_holds_travel_along():
    """A cell of a notebook is known to its kernel alone; the worker shows its lines all the same."""
    name, text = (
        '/tmp/ipykernel_1/123.py',
        'def cell(ident, args, subdir):\n    return 1 / 0  # in the cell\n',
    )
    namespace = {'__name__': '__main__'}
    exec(compile(text, name, 'exec'), namespace)
    linecache.cache[name] = (len(text), None, text.splitlines(keepends=True), name)
    try:
        payload, _ = _function_source.dumps(namespace['cell'])
    finally:
        del linecache.cache[name]

    pickle.loads(payload)
    try:
        assert linecache.getline(name, 2) == '    return 1 / 0  # in the cell\n'
    finally:
        linecache.cache.pop(name, None)


def test_the_lines_of_a_file_do_not_travel(tmp_path):
    """Where a file has the lines, its name is enough."""
    path = tmp_path / 'module.py'
    path.write_text('def work(ident, args, subdir):\n    return 1  # some long line of a file\n', 'utf-8')
    namespace = {'__name__': '__main__'}
    exec(compile(path.read_text('utf-8'), str(path), 'exec'), namespace)
    linecache.getlines(str(path))

    assert b'some long line' not in _function_source.dumps(namespace['work'])
