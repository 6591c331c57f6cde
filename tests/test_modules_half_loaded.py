"""Another thread may be importing a module at any moment: we look at none that is half there."""

import sys
from importlib.machinery import ModuleSpec
from types import ModuleType

import pytest

from hadrosaur import Project, UnknownExecutor, errors, progress, redefinition, row_writer, worker_setup


class Closed:
    """In the place of a writer whose rows are all written."""

    def close(self):
        """Nothing is left to do."""


@pytest.fixture
def half_loaded(monkeypatch):
    """All modules that we look at where they are loaded, as they are at the first line of their import."""
    for name in (
        'socket', 'decimal', 'locale', 'multiprocessing', 'multiprocessing.context', 'concurrent.futures',
        'distributed', 'IPython', 'numpy', 'logging', 'multiprocessing.util', 'cloudpickle',
    ):  # fmt: skip
        module = ModuleType(name)
        module.__spec__ = ModuleSpec(name, None)
        module.__spec__._initializing = True
        monkeypatch.setitem(sys.modules, name, module)


def test_a_module_that_is_just_being_imported_is_not_looked_at(base, half_loaded, monkeypatch):
    """Settings of the interpreter, notebooks, executors and generators are asked for without it."""
    from hadrosaur.executors import _random_state, _settings

    assert {'socket', 'decimal', 'locale', 'starting'}.isdisjoint(_settings.of_this_process())
    assert not _random_state._is_generator(object())
    assert not progress._is_notebook()
    assert redefinition.cell() is None
    assert not worker_setup._mark_of(object())
    errors.log('said to nobody')
    monkeypatch.setattr(row_writer, '_exit_pid', 0)
    monkeypatch.setattr(row_writer.atexit, 'register', lambda *_: None)
    row_writer._close_at_exit(writer := Closed())
    assert writer in row_writer._unclosed
    with Project(base) as proj:
        proj.resource('coll')(lambda ident, args, subdir: ident)
        with pytest.raises(UnknownExecutor):
            proj.fetch_many('coll', ['a'], executor=object())
