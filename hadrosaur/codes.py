"""``version='code'``: a digest of what functions do, independent of comments, blank lines and position.

It is made of the syntax tree without positions, docstrings, the function's own name and the decorators of
`Project.resource`. The tree is serialised by our own code, since `ast.dump` changes between Python releases.
"""

from __future__ import annotations

import ast
import functools
import hashlib
import inspect
import json
import linecache
from collections.abc import Iterator
from types import CodeType, FunctionType, MethodType
from typing import Any

_Definition = ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda | ast.ClassDef
_DEFINITIONS = (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda, ast.ClassDef)


def code_of(*functions: Any) -> str:
    """Return a digest of the code of functions and classes, for ``version=`` of `Project.resource`.

    Comments, blank lines, docstrings, the function's name and its position do not count. Its code does, and
    so do its other decorators, a function that a decorator has wrapped (in a closure, or in an object that is
    called in its place), and the arguments of a partial.
    Functions that it calls count only if they are given as well: ``version=code_of(fit, load)``. The code is
    read from the file: reload a module that was edited since it was imported.

    Raises:
        ValueError: The source of one cannot be found: it is built in, was typed at a prompt, or shares its
            line with another lambda.
        TypeError: One is not a function or class.
    """
    if not functions:
        raise TypeError('code_of takes the functions whose code counts, at least one')
    parts = [part for function in functions for part in _parts(function, set())]
    data = json.dumps(parts, ensure_ascii=True, separators=(',', ':')).encode()
    return f'code:{hashlib.blake2b(data, digest_size=8).hexdigest()}'


def _parts(function: Any, met: set[int]) -> Iterator[Any]:
    """What counts of a function: a tree for each definition that it consists of."""
    if id(function) in met:
        return
    met.add(id(function))
    if isinstance(function, functools.partial):
        yield ['partial', *_parts(function.func, met)]
        for value in (*function.args, *(pair for pair in sorted(function.keywords.items()))):
            yield from _parts(value, met) if callable(value) else [_plain(value, function)]
        return
    if isinstance(function, MethodType):
        function = function.__func__
    if isinstance(function, type):
        yield _tree(_class_in_source(function))
        return
    if not isinstance(function, FunctionType):
        called = next(
            (vars(each)['__call__'] for each in type(function).__mro__ if '__call__' in vars(each)), None
        )
        is_ours, held = isinstance(called, FunctionType), list(_held_by(function))
        if not is_ours and not held:
            kind = ValueError if callable(function) else TypeError
            raise kind(
                f'{function!r} has no source in Python, so that its code cannot be looked at{_INSTEAD}'
            )
        for each in [called, *held] if is_ours else held:
            yield from _parts(each, met)
        return
    yield _tree(_in_source(function))
    for each in _held_by(function):
        yield from _parts(each, met)


def _held_by(function: Any) -> Iterator[Any]:
    """What a decorator has wrapped: functions in the closure of one, in the attributes of another object."""
    values = [_content(cell) for cell in getattr(function, '__closure__', None) or ()]
    attributes = getattr(function, '__dict__', {})
    is_function = isinstance(function, FunctionType)
    values += [attributes.get('__wrapped__')] if is_function else list(attributes.values())
    for value in values:
        inner = list(value.values()) if isinstance(value, dict) else value
        for each in inner if isinstance(inner, (list, tuple)) else [inner]:
            if isinstance(each, _FUNCTIONS) or _is_decorated(each):
                yield each


_FUNCTIONS = (FunctionType, MethodType, functools.partial)


def _is_decorated(value: Any) -> bool:
    """Is it an object that is called in the place of a function, such as one of functools.lru_cache?"""
    held = getattr(value, '__dict__', {}).values()
    return (
        callable(value) and not isinstance(value, type) and any(isinstance(each, _FUNCTIONS) for each in held)
    )


_INSTEAD = "; write version='1' or the like, and another one when it changes"


def _plain(value: Any, function: Any) -> Any:
    try:
        json.dumps(value, allow_nan=False)
    except (TypeError, ValueError, RecursionError):
        raise ValueError(f'{function!r} holds {value!r}, which has no code and is no JSON value{_INSTEAD}')
    return value


def _content(cell: Any) -> Any:
    try:
        return cell.cell_contents
    except ValueError:  # empty
        return None


def _in_source(function: FunctionType) -> _Definition:
    """The definition of a function in its file."""
    code = function.__code__
    name = getattr(function, '__qualname__', code.co_name)
    found = [node for node in _definitions(code.co_filename, function) if _is_of(node, code)]
    if len(found) > 1:  # lambdas on one line
        start = min((at[2] for at in code.co_positions() if at[2] is not None and at[2] > 0), default=None)
        inside = [node for node in found if start is not None and _holds(node, code, start)]
        found = inside[-1:] if len({ast.dump(node) for node in inside}) == 1 else []
    if not found:
        raise ValueError(
            f'the source of {name} cannot be found, or is not the one that it was made from{_INSTEAD}'
        )
    return found[0]


def _is_of(node: _Definition, code: CodeType) -> bool:
    """Does a definition stand where a function's code begins, with its name and parameters?"""
    if isinstance(node, ast.ClassDef):
        return False
    decorators = getattr(node, 'decorator_list', [])
    first = min([node.lineno, *(each.lineno for each in decorators)])
    named = node.args.posonlyargs + node.args.args + node.args.kwonlyargs
    number = code.co_argcount + code.co_kwonlyargcount
    return (
        first == code.co_firstlineno
        and getattr(node, 'name', '<lambda>') == code.co_name
        and tuple(arg.arg for arg in named) == code.co_varnames[:number]
    )


def _holds(node: _Definition, code: CodeType, column: int) -> bool:
    body = node.body if isinstance(node, ast.Lambda) else node
    assert isinstance(body, ast.AST)
    begins, ends = getattr(body, 'col_offset', 0), getattr(body, 'end_col_offset', 0)
    return begins <= column < ends


def _class_in_source(kind: type) -> _Definition:
    try:
        lines, first = inspect.getsourcelines(kind)
    except (OSError, TypeError):
        raise ValueError(f'the source of {kind.__qualname__} cannot be found{_INSTEAD}')
    file = inspect.getsourcefile(kind) or ''
    for node in _definitions(file, kind):
        begins = [node.lineno, *(each.lineno for each in getattr(node, 'decorator_list', []))]
        if isinstance(node, ast.ClassDef) and node.name == kind.__name__ and min(begins) == max(first, 1):
            return node
    raise ValueError(f'the source of {kind.__qualname__} cannot be found among {len(lines)} lines{_INSTEAD}')


def _definitions(file: str, function: Any) -> list[_Definition]:
    linecache.checkcache(file)
    lines = linecache.getlines(file, getattr(function, '__globals__', None))
    return _parsed(''.join(lines))


@functools.lru_cache(maxsize=16)
def _parsed(source: str) -> list[_Definition]:
    """All definitions in a file."""
    try:
        return [node for node in ast.walk(ast.parse(source)) if isinstance(node, _DEFINITIONS)]
    except (SyntaxError, ValueError, RecursionError):
        return []


# --- the tree ----------------------------------------------------------------------------------------


def _tree(node: _Definition) -> Any:
    """A definition without its own name and without what registers it."""
    cells = _cells(node)
    cells.pop('name', None)
    others = [each for each in getattr(node, 'decorator_list', []) if not _registers(each)]
    cells['decorator_list'] = [_plain_tree(each) for each in others]
    return [type(node).__name__, {name: cell for name, cell in cells.items() if cell != []}]


def _registers(decorator: ast.expr) -> bool:
    called = decorator.func if isinstance(decorator, ast.Call) else decorator
    return isinstance(called, ast.Attribute) and called.attr == 'resource'


def _plain_tree(value: Any) -> Any:
    """A tree as JSON: of each node its class, and its fields but for empty ones."""
    if isinstance(value, list):
        return [_plain_tree(each) for each in value]
    if isinstance(value, ast.AST):
        return [type(value).__name__, {name: cell for name, cell in _cells(value).items() if cell != []}]
    return value if isinstance(value, str) else repr(value)  # 1, 1.0, True and b'' differ


def _cells(node: ast.AST) -> dict[str, Any]:
    found = {name: value for name, value in ast.iter_fields(node) if value is not None and name != 'kind'}
    body = found.get('body')
    if isinstance(body, list) and body and isinstance(node, (*_DEFINITIONS,)) and _is_docstring(body[0]):
        found['body'] = body[1:]
    if isinstance(node, ast.Constant):  # None too, which is a value
        found['value'] = [type(node.value).__name__, repr(node.value)]
        return found
    return {name: _plain_tree(value) for name, value in found.items()}


def _is_docstring(node: ast.stmt) -> bool:
    value = node.value if isinstance(node, ast.Expr) else None
    return isinstance(value, ast.Constant) and isinstance(value.value, str)
