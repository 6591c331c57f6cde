"""Decide whether a function that is registered again is the same one, redefined, or another.

A module may be reloaded and a notebook cell run again, so a function may arrive as a new object, edited or
not. But two different functions must not share a collection, since one would silently replace the other.

* A function with its own name (``def`` in a module or class) is the same if module, qualified name and file
  are. All cells of a notebook, and all input at a prompt, count as one file.
* Functions without their own name (lambdas, nested functions, partials, bound methods, callable objects) are
  the same if they do the same: equal code, or code at the same place of the same file, and equal values in
  everything they hold (closure, defaults, arguments, attributes).
* Whatever the same notebook cell registers when it is run again replaces what it had registered, if the
  front end tells which cell that is.
"""

from __future__ import annotations

import functools
import os
import sys
from types import CodeType, FunctionType, MethodType
from typing import Any, NamedTuple

from .loaded import loaded

_Met = dict[tuple[int, int], tuple[Any, Any]]


def is_same(known: Any, new: Any) -> bool:
    """Return whether ``new`` is ``known``, perhaps redefined."""
    try:
        return _same(known, new, {})
    except RecursionError:
        return False


class Cell(NamedTuple):
    """A notebook cell that is being run.

    Attributes:
        id: Its id in the front end.
        run: Different for each run of the cell.
    """

    id: str
    run: str


def cell() -> Cell | None:
    """Return the cell that is being run, if that can be known."""
    ipython = loaded('IPython')
    try:
        parent = ipython.get_ipython().kernel.get_parent()
        return Cell(str(parent['metadata']['cellId']), str(parent['header']['msg_id']))
    except (AttributeError, LookupError, TypeError):
        return None


def place(function: Any) -> str:
    """Describe where a function was defined: qualified name, file and line."""
    while isinstance(function, (functools.partial, MethodType)):
        function = function.func if isinstance(function, functools.partial) else function.__func__
    named = function if hasattr(function, '__qualname__') else type(function)
    name = f'{getattr(named, "__module__", "")}.{getattr(named, "__qualname__", repr(function))}'
    code = getattr(function, '__code__', None)
    if not isinstance(code, CodeType):
        return name
    return f'{name} ({os.path.basename(code.co_filename)}, line {code.co_firstlineno})'


def _same(known: Any, new: Any, met: _Met) -> bool:
    if known is new:
        return True
    if (id(known), id(new)) in met:  # one that holds itself: what else it holds decides
        return True
    met[id(known), id(new)] = (known, new)  # kept alive: no other gets its id meanwhile
    if isinstance(known, type) and isinstance(new, type):
        return _name(known) == _name(new)
    if _name(type(known)) != _name(type(new)):
        return False
    if isinstance(known, FunctionType):
        return _same_function(known, new, met)
    if isinstance(known, functools.partial):
        one, other = ((each.func, each.args, each.keywords) for each in (known, new))
        return _same(one, other, met)
    if isinstance(known, MethodType):
        return _same(known.__func__, new.__func__, met) and _same(known.__self__, new.__self__, met)
    if isinstance(known, (tuple, list)):
        return len(known) == len(new) and all(_same(*pair, met) for pair in zip(known, new, strict=True))
    if isinstance(known, dict):
        return known.keys() == new.keys() and all(_same(known[key], new[key], met) for key in known)
    return _is_equal(known, new) or _holds_the_same(known, new, met)


def _same_function(known: FunctionType, new: FunctionType, met: _Met) -> bool:
    if _name(known) != _name(new):
        return False
    if _file(known.__code__) == _file(new.__code__) and _owns_its_name(known):
        return True
    if not (
        _does_the_same(known.__code__, new.__code__) or _stands_at(known.__code__) == _stands_at(new.__code__)
    ):
        return False
    one, other = (
        ([_content(cell) for cell in each.__closure__ or ()], each.__defaults__, each.__kwdefaults__)
        for each in (known, new)
    )
    return _same(one, other, met)


def _name(thing: Any) -> tuple[str, str]:
    return (str(getattr(thing, '__module__', '')), str(getattr(thing, '__qualname__', '')))


def _owns_its_name(function: FunctionType) -> bool:
    """Whether no other function of its file can have the name, except a redefinition."""
    module, name = _name(function)
    if '<' in name:  # <lambda>, <locals>
        return False
    if not function.__closure__:
        return True
    # One that `functools.wraps` has given the name of another is its owner only where it is found under it.
    found: Any = sys.modules.get(module)
    for part in name.split('.'):
        found = getattr(found, part, None)
    while found is not None and found is not function:
        found = getattr(found, '__wrapped__', None)
    return found is function


def _file(code: CodeType) -> str:
    name = code.co_filename
    return (
        '<typed>'
        if name.startswith(('<stdin', '<python-input', '<ipython-input')) or '/ipykernel_' in name
        else name
    )


def _stands_at(code: CodeType) -> object:
    """Return file, line and column; if there is no file, a value that equals nothing else."""
    name = code.co_filename
    if name.startswith('<') or '/ipykernel_' in name:
        return object()
    return (name, code.co_firstlineno, [at[2] for at in code.co_positions() if at[2]][:1])


def _does_the_same(known: CodeType, new: CodeType) -> bool:
    same = all(
        getattr(known, name) == getattr(new, name)
        for name in ('co_code', 'co_names', 'co_varnames', 'co_freevars', 'co_cellvars', 'co_flags',
                     'co_argcount', 'co_posonlyargcount', 'co_kwonlyargcount', 'co_exceptiontable')
    )  # fmt: skip
    return (
        same
        and len(known.co_consts) == len(new.co_consts)
        and all(
            _does_the_same(one, other)
            if isinstance(one, CodeType) and isinstance(other, CodeType)
            else repr(one) == repr(other)
            for one, other in zip(known.co_consts, new.co_consts, strict=True)
        )
    )


def _content(cell: Any) -> Any:
    try:
        return cell.cell_contents
    except ValueError:  # empty
        return None


def _is_equal(known: Any, new: Any) -> bool:
    try:
        equal = known == new
        for _ in range(2):  # an array, and then a frame, tells for all that it holds
            equal = equal.all() if hasattr(equal, 'all') else equal
        return bool(equal)
    except Exception:  # other people's __eq__; an array says nothing that is true or false
        return False


def _holds_the_same(known: Any, new: Any, met: _Met) -> bool:
    """Compare two objects of a class without equality by their attributes, if there are any."""
    one, other = (getattr(each, '__dict__', None) for each in (known, new))
    return isinstance(one, dict) and bool(one) and _same(one, other, met)
