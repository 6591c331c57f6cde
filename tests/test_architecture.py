"""The layers of the package, light imports, and a front page that is true."""

import ast
import json
import subprocess
import sys
from pathlib import Path

import pytest

import hadrosaur

PACKAGE = Path(hadrosaur.__file__).parent

LAYERS = {
    'cli': 8,
    'web': 7.5, 'activity': 7.2, 'project': 7,
    'maintenance': 6.5, 'dead_sessions': 6.1, 'engine': 6, 'fetcher': 6, 'progress': 6, 'reindex': 6,
    'scan': 5.9, 'tee': 5.5, 'executors.dask': 5.4, 'executors.futures': 5.3, 'executors._chunk_host': 5.25,
    'executors.inline': 5.2, 'executors.threads': 5.2, 'executors._inline_cancel': 5.17,
    'executors._ticker': 5.15, 'executors.processes': 5.1, 'executors._scheduler': 5.09,
    'executors._worker_process': 5.07, 'executors.template': 5.06, 'executors._worker_main': 5.05,
    'executors._memory': 5.04, 'executors.worker_state': 5.04, 'executors.base': 5, 'store': 5,
    'row_writer': 4.6, 'executors._function_source': 4.5, 'executors._random_state': 4.5,
    'executors._settings': 4.5, 'executors._worker_exit': 4.5, 'registry': 4.5, 'row_events': 4.5,
    'hooks': 2.5, 'compute': 4, 'handle': 4, 'index': 4, 'upgrade': 4, 'wait_graph': 4,
    'reuse': 3.95, 'recover': 3.9, 'failure': 3.8, 'context': 3.7, 'dependencies': 3.6, 'limits': 3.5,
    'provenance': 3.5, 'run_progress': 3.5,
    'run_record': 3.2, 'tables': 3.1, 'basedir': 3, 'capture': 3, 'directory': 3, 'metrics': 3,
    'not_started': 3, 'schema': 3,
    'trees': 2.1,
    'durability': 2.5, 'private_files': 2.5, 'cpu_count': 2, 'dataframes': 2, 'fileops': 2, 'locks': 2,
    'mounts': 2, 'retry_policy': 2, 'stack_dump': 2, 'unfinished_line': 2, 'worker_setup': 2,
    'inputs': 2,
    'args_idents': 1.5, 'codes': 1.5, 'filters': 1.5, 'json_paths': 1.5, 'canonical': 1, 'coroutines': 1,
    'fingerprint': 1, 'records': 1, 'redefinition': 1,
    'columns': 0.5, 'sanitize': 0.5, 'errors': 0, 'loaded': -1,
}  # fmt: skip
FREE = {'__init__', '__main__', 'executors'}  # the front page, its door, an empty folder page

MODULES_WITH_SQLALCHEMY = [path for path in PACKAGE.rglob('*.py') if 'sqlalchemy' in path.read_text('utf-8')]
HEAVY = ('sqlalchemy', 'alembic', 'click', 'rich', 'cloudpickle', 'jinja2', 'starlette')


def module_name(path):
    """``engine.batch`` for hadrosaur/engine/batch.py."""
    parts = list(path.relative_to(PACKAGE).with_suffix('').parts)
    return '.'.join(parts[:-1] if parts[-1] == '__init__' and len(parts) > 1 else parts)


def layer_of(module):
    """The name in LAYERS that a module belongs to: itself, or the package that it is a part of."""
    while module and module not in LAYERS and module not in FREE:
        module = module.rpartition('.')[0]
    return module


def imported(path):
    """Modules of the package that a file imports, inside functions and for types too."""
    here = ['hadrosaur', *path.relative_to(PACKAGE).with_suffix('').parts][:-1]
    for node in ast.walk(ast.parse(path.read_text('utf-8'))):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            start = here[: len(here) - node.level + 1] if node.level else []
            module = '.'.join([*start, node.module] if node.module else start)
            names = [f'{module}.{alias.name}' for alias in node.names]
        else:
            continue
        for name in names:
            if name.startswith('hadrosaur.') and layer_of(name.removeprefix('hadrosaur.')):
                yield node.lineno, layer_of(name.removeprefix('hadrosaur.'))


SOURCES = sorted(path for path in PACKAGE.rglob('*.py') if 'migrations' not in path.parts)


@pytest.mark.parametrize('path', SOURCES, ids=module_name)
def test_imports_go_only_downward(path):
    """A module imports only from floors below its own (DESIGN: Modules and floors)."""
    own = layer_of(module_name(path))

    assert own, f'{path} has no floor: give it one in LAYERS, before its first line is written'
    if own in FREE:
        return
    for line, other in imported(path):
        assert other == own or LAYERS[other] < LAYERS[own], (
            f'{path}:{line} (floor {LAYERS[own]}) imports {other} (floor {LAYERS[other]}): move what both '
            'need to a floor below, or hand it in as an argument'
        )


@pytest.mark.parametrize('path', SOURCES, ids=module_name)
def test_warnings_go_through_the_one_that_finds_the_users_line(path):
    """A warning points at the line of whoever called us: `hadrosaur.errors.warn` sees to that."""
    if module_name(path) != 'errors':
        assert 'warnings.warn(' not in path.read_text('utf-8')


def modules_after(statement):
    """Names of the modules that are loaded after a statement, in a fresh interpreter."""
    program = f'{statement}\nimport json, sys; print(json.dumps(sorted(sys.modules)))'
    done = subprocess.run([sys.executable, '-c', program], capture_output=True, text=True, check=True)
    return json.loads(done.stdout)


@pytest.mark.parametrize(
    'statement',
    [
        'import hadrosaur',
        'import hadrosaur.executors._worker_main',
        'import hadrosaur.compute, hadrosaur.recover, hadrosaur.handle',
        'from hadrosaur import Project; import tempfile; Project(tempfile.mkdtemp())',
    ],
)
def test_light_imports(statement):
    """Neither ``import hadrosaur`` nor a worker loads any of the heavy modules."""
    loaded = {name.partition('.')[0] for name in modules_after(statement)}

    assert loaded.isdisjoint(HEAVY)


def test_cached_fetch_loads_no_sqlalchemy(tmp_path):
    """A computed resource is served from its directory alone."""
    from hadrosaur import Project

    proj = Project(tmp_path / 'base')
    proj.resource('coll')(lambda ident, args, subdir: ident)
    proj.fetch('coll', 'one')
    proj.close()
    program = (
        f'from hadrosaur import Project; proj = Project({str(tmp_path / "base")!r})\n'
        'proj.resource("coll")(lambda ident, args, subdir: 1)\n'
        'assert proj.fetch("coll", "one")["result"] == "one"'
    )

    assert 'sqlalchemy' not in modules_after(program)
    assert 'sqlite3' not in modules_after(program)


def test_front_page_is_sorted_and_true():
    """``hadrosaur.__all__`` lists, in order, exactly what the package shows."""
    assert all(
        getattr(hadrosaur, name) for name in hadrosaur.__all__
    )  # some are loaded when they are asked for
    shown = {
        name
        for name, value in vars(hadrosaur).items()
        if not name.startswith('_') and not isinstance(value, type(sys))
    } - {'TYPE_CHECKING', 'Any', 'annotations'}

    assert sorted(hadrosaur.__all__) == hadrosaur.__all__
    assert shown == set(hadrosaur.__all__) < set(dir(hadrosaur))
    with pytest.raises(AttributeError, match="'hadrosaur' has no attribute 'Projekt'"):
        _ = hadrosaur.Projekt


@pytest.mark.parametrize('name', hadrosaur.__all__)
def test_exported_names_are_documented(name):
    """What we export we explain: each name has a docstring."""
    assert (getattr(hadrosaur, name).__doc__ or '').strip()


@pytest.mark.parametrize('path', MODULES_WITH_SQLALCHEMY, ids=lambda path: path.stem)
def test_sqlalchemy_is_imported_as_a_whole_first(path):
    """Two threads, one that begins with a module in it and one with the whole, would wait for each other."""
    tree = ast.parse(path.read_text('utf-8'))
    scopes = [tree, *(node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef))]
    for scope in scopes:
        names = [node.module for node in scope.body if isinstance(node, ast.ImportFrom) and not node.level]
        ours = [name for name in names if name and name.split('.')[0] == 'sqlalchemy']
        assert ours[:1] in ([], ['sqlalchemy'])
