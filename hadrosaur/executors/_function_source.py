"""Functions as bytes that a worker process can load: what it cannot import goes with them, by value.

`cloudpickle` carries functions and classes of the script by value and everything else by reference. Three
things are added here:

* Code keeps the name of its file, and its lines where no file holds them. A traceback is as good as the
  file and line that it names, and the file is part of the name of a cause (see `fingerprint`); from 3.1.3
  on cloudpickle writes ``<dynamic-code>`` for every function of a script or a notebook.
* What stands in a module that a worker would not find by its name (loaded from a path, made by hand, or
  from a folder that was current once) goes by value too.
* In the worker, what went by value stands in a module of its name again, ``__main__`` first of all: an
  instance of a script's class can be pickled there, and read again anywhere.
"""

from __future__ import annotations

import contextlib
import io
import linecache
import os
import pickle
import re
import sys
from collections import ChainMap
from importlib.machinery import PathFinder
from types import CodeType, FunctionType, ModuleType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

SMALL = 100_000  # bytes; a class of the script that the function does not mention goes along up to this

_Names = dict[str, dict[str, Any]]  # module: name: what stands there


def dumps(function: object) -> tuple[bytes, list[str]]:
    """The function as bytes that `pickle.loads` reads in a worker, and folders where that finds modules.

    The folders are those that modules were imported from and that are not in sys.path any more.
    """
    sending = _Sending()
    try:
        return sending.dump(_Whole(function, sending)), sending.folders
    finally:
        sending.close()


class _Whole:
    """A function and, after it in the pickle, what was found to go by value with it."""

    def __init__(self, function: object, sending: _Sending) -> None:
        self._function = function
        self._sending = sending

    def __reduce__(self) -> tuple[Any, ...]:
        return _loaded, (self._function, _Found(self._sending))


class _Found:
    """The names that went by value until it is pickled itself."""

    def __init__(self, sending: _Sending) -> None:
        self._sending = sending

    def __reduce__(self) -> tuple[Any, ...]:
        return dict, ([(module, dict(names)) for module, names in self._sending.names().items()],)


class _Sending:
    """One function on its way: which modules go by value, and what of them was met."""

    def __init__(self) -> None:
        import cloudpickle

        self._cloudpickle = cloudpickle
        self.folders: list[str] = []
        self._by_value: dict[str, bool] = {'__main__': True}
        self._registered: list[ModuleType] = []
        self._met: _Names = {}
        reducers = cloudpickle.Pickler.dispatch_table
        reduce_code = reducers[CodeType]
        sent: set[str] = set()
        note = self._note

        def reduce(code: CodeType) -> tuple[Callable[..., CodeType], tuple[Any, ...]]:
            name = code.co_filename
            lines = None if name in sent else _lines_in_memory(name)
            sent.add(name)
            build, fields = reduce_code(code)[:2]
            return restored, (name, lines, build, fields)

        class Pickler(cloudpickle.Pickler):  # type: ignore[misc]
            dispatch_table = ChainMap({CodeType: reduce}, reducers)

            def reducer_override(self, obj: Any) -> Any:
                if isinstance(obj, (type, FunctionType, ModuleType)):
                    note(obj)
                return super().reducer_override(obj)

        self._pickler = Pickler

    def dump(self, what: object) -> bytes:
        with io.BytesIO() as file:
            self._pickler(file, protocol=pickle.HIGHEST_PROTOCOL).dump(what)
            return file.getvalue()

    def names(self) -> _Names:
        """What was met, what its annotations name, and the other classes of the script, where small."""
        found = {module: dict(names) for module, names in self._met.items()}
        for module, names in found.items():
            there = vars(sys.modules[module])
            for thing in list(names.values()):
                for name in _annotated(thing):
                    if isinstance(there.get(name), (type, ModuleType)):
                        names.setdefault(name, there[name])
        script = found.setdefault('__main__', {})
        for name, thing in list(vars(sys.modules['__main__']).items()):
            if isinstance(thing, type) and thing.__module__ == '__main__' and name not in script:
                with contextlib.suppress(Exception):  # reducers are other people's code
                    if len(self.dump(thing)) <= SMALL:
                        script[name] = thing
        return {module: names for module, names in found.items() if names}

    def close(self) -> None:
        for module in self._registered:
            self._cloudpickle.unregister_pickle_by_value(module)

    def _note(self, thing: Any) -> None:
        if isinstance(thing, ModuleType):
            self._goes_by_value(thing.__name__)
            return
        module, name = getattr(thing, '__module__', None), thing.__qualname__
        if not isinstance(module, str) or not self._goes_by_value(module):
            return
        if vars(sys.modules[module]).get(name) is thing:
            self._met.setdefault(module, {})[name] = thing

    def _is_importable(self, module: ModuleType, name: str) -> bool:
        """Would a worker find this very module by its name? Where its folder is all it lacks, note that."""
        found = _found_by(module, name, sys.meta_path)
        if found is None and '.' not in name and module.__file__:
            folder = os.path.dirname(os.path.abspath(module.__file__))
            if os.path.basename(module.__file__).startswith('__init__.'):
                folder = os.path.dirname(folder)
            found = _found_by(module, name, [PathFinder], [folder])
            if found:
                self.folders.append(folder)
        return bool(found)

    def _goes_by_value(self, name: str) -> bool:
        if name not in self._by_value:
            module = sys.modules.get(name)
            self._by_value[name] = isinstance(module, ModuleType) and not self._is_importable(module, name)
            if self._by_value[name] and module is not None:
                self._cloudpickle.register_pickle_by_value(module)
                self._registered.append(module)
        return self._by_value[name]


def _annotated(thing: Any) -> set[str]:
    """The names in annotations that are text, which nothing else of the code need mention."""
    found = [getattr(thing, '__annotations__', None)]
    if isinstance(thing, type):
        found += [getattr(part, '__annotations__', None) for part in vars(thing).values()]
    texts = [
        text for each in found if isinstance(each, dict) for text in each.values() if isinstance(text, str)
    ]
    return {name for text in texts for name in re.findall(r'[^\W\d]\w*', text)}


_INSTALLED = tuple(
    os.path.realpath(path) + os.sep for path in {sys.prefix, sys.base_prefix, os.path.dirname(os.__file__)}
)


def _found_by(
    module: ModuleType, name: str, finders: Iterable[Any], path: list[str] | None = None
) -> bool | None:
    """Do finders find this very module by its name? None: they find nothing of that name."""
    file = getattr(module, '__file__', None)
    if file is None:  # built in, a package without a file of its own; or made by hand
        return getattr(module, '__spec__', None) is not None
    if os.path.realpath(file).startswith(_INSTALLED):
        return True
    if '.' in name:
        path = getattr(sys.modules.get(name.rpartition('.')[0]), '__path__', None)
    for finder in finders:
        with contextlib.suppress(Exception):  # finders are other people's code
            spec = finder.find_spec(name, path)
            if spec is not None:
                return spec.origin is not None and os.path.realpath(spec.origin) == os.path.realpath(file)
    return None


# --- in the worker -----------------------------------------------------------------------------------


def _loaded(function: Any, names: _Names) -> Any:
    """The function, once what came along by value stands in modules of its name."""
    for name, things in names.items():
        module = sys.modules.get(name)
        if module is None:
            module = sys.modules[name] = ModuleType(name)
        vars(module).update(things)
    return function


def restored(
    name: str, lines: list[str] | None, build: Callable[..., CodeType], fields: tuple[Any, ...]
) -> CodeType:
    """A code object as it was where it came from, whichever file the pickler says."""
    if lines is not None and name not in linecache.cache:
        linecache.cache[name] = (sum(map(len, lines)), None, lines, name)
    return build(*fields).replace(co_filename=name)


def _lines_in_memory(name: str) -> list[str] | None:
    """The lines of what was typed into a notebook: no file has them, and other processes do not know them."""
    entry = linecache.cache.get(name)
    # (length, time of the file, lines, name); no time: not from a file. One not read yet is shorter.
    return entry[2] if entry is not None and len(entry) == 4 and entry[1] is None else None
