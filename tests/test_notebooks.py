"""Notebooks: what a function prints and how a batch goes is shown in the cell, and stays readable there.

The stand-ins behave as ipykernel 6 and 7 do: `OutStream` is a TextIOBase, and no wrapper of a file; its
``fileno`` gives a copy of what was descriptor 1 when the kernel started, the terminal of the server; what
is written goes to the cell. ``get_ipython().kernel`` tells a kernel's shell from a terminal's, and
``display(…, display_id=True)`` gives a handle whose ``update`` replaces what it has shown.
"""

import contextlib
import io
import os
import sys
import types

import pytest
from conftest import await_that

from hadrosaur import progress


class OutStream(io.TextIOBase):
    """What stands in sys.stdout of a kernel."""

    def __init__(self, terminal):
        self.terminal, self.cell = terminal, []

    def fileno(self):
        return self.terminal

    def write(self, text):
        self.cell.append(text)
        return len(text)


@contextlib.contextmanager
def kernels_streams(tmp_path, monkeypatch):
    """Within it, (stdout, stderr) of a kernel stand in sys; nothing may be written to its terminal."""
    with open(tmp_path / 'terminal', 'wb') as terminal:
        pair = [OutStream(terminal.fileno()), OutStream(terminal.fileno())]
        monkeypatch.setattr(sys, 'stdout', pair[0])
        monkeypatch.setattr(sys, 'stderr', pair[1])
        yield pair
    assert (tmp_path / 'terminal').read_bytes() == b''


@pytest.mark.parametrize('how', [{}, {'background': True, 'wait': True}], ids=['inline', 'background'])
def test_echo_prints_into_the_cell(proj, tmp_path, monkeypatch, how):
    """Standard output and error, whole characters, and a subprocess's output where descriptors are caught."""

    @proj.resource('coll')
    def compute(ident, args, subdir):
        import subprocess
        import sys

        print('größer', end=' ', flush=True)
        print('als', ident)
        if args['in_worker']:
            subprocess.run(['echo', 'of a subprocess'], check=True)
        print('complained', file=sys.stderr)

    with kernels_streams(tmp_path, monkeypatch) as streams:
        res = proj.fetch('coll', 'one', {'in_worker': bool(how)}, echo=True, **how)
    shown = [''.join(stream.cell) for stream in streams]

    assert res.status == 'completed'
    assert shown == ['größer als one\n' + 'of a subprocess\n' * bool(how), 'complained\n']
    with open(res.paths['stdout']) as log:
        assert log.read() == shown[0]


def test_echo_through_a_stream_that_fails_costs_nothing(proj, monkeypatch):
    """A cell that is gone, a wrapper that raises: the run completes and its log is whole."""

    class Broken(io.TextIOBase):
        def write(self, text):
            raise RuntimeError('the browser is gone')

    monkeypatch.setattr(sys, 'stdout', Broken())
    proj.resource('coll')(lambda ident, args, subdir: print('said'))
    res = proj.fetch('coll', 'one', echo=True)

    assert res.status == 'completed'
    with open(res.paths['stdout']) as log:
        assert log.read() == 'said\n'


def test_what_copies_to_a_file_gets_the_echo_once(proj, monkeypatch, tmp_path):
    """A stream of the user's that ends in descriptor 1 is not fed with its own text again and again."""
    monkeypatch.chdir(tmp_path)

    class Tee(io.TextIOBase):
        def write(self, text):
            os.write(1, text.encode())
            copied.append(text)
            return len(text)

    copied = []
    monkeypatch.setattr(sys, 'stdout', Tee())
    monkeypatch.setattr('hadrosaur.capture.has_other_threads', lambda: False)

    @proj.resource('coll')
    def compute(ident, args, subdir):
        print('said', flush=True)
        await_that(lambda: copied)

    res = proj.fetch('coll', 'one', echo=True)

    assert ''.join(copied) == 'said\n'
    with open(res.paths['stdout']) as log:
        assert log.read() == 'said\n'


@pytest.fixture
def kernel(monkeypatch):
    """A kernel's IPython, without ipywidgets; gives the outputs of the cell as a saved notebook has them."""
    outputs = {}

    class Handle:
        def __init__(self, key):
            self.key = key

        def update(self, data, raw):
            assert raw
            outputs[self.key] = data

    def display(data, raw, display_id):
        assert raw
        assert display_id is True
        handle = Handle(len(outputs))
        handle.update(data, raw)
        return handle

    shell = types.SimpleNamespace(kernel=object())
    ipython = types.ModuleType('IPython')
    ipython.get_ipython = lambda: shell
    ipython.display = types.ModuleType('IPython.display')
    ipython.display.display = display
    monkeypatch.setitem(sys.modules, 'IPython', ipython)
    monkeypatch.setitem(sys.modules, 'IPython.display', ipython.display)
    return types.SimpleNamespace(outputs=outputs, shell=shell)


def test_progress_is_one_output_that_stays(proj, kernel, monkeypatch, capsys):
    """One line of text, replaced as it changes; the saved notebook has the last one, and no other."""
    monkeypatch.setattr(progress._Notebook, 'interval', 0)
    proj.resource('coll')(lambda ident, args, subdir: 1 / (int(ident) - 3))
    proj.fetch_many('coll', range(6), executor='inline', progress=True).wait()

    [output] = kernel.outputs.values()
    [kind], [text] = output.keys(), output.values()
    assert kind == 'text/plain'
    assert text.splitlines()[0].startswith('coll: 6/6 done, 1 failed, ')
    assert text.splitlines()[1:] == ['last error: 3: ZeroDivisionError: division by zero']
    assert capsys.readouterr() == ('', '')


def test_ipython_in_a_terminal_is_no_notebook(proj, kernel, capsys):
    """There, as without IPython, it is lines on stderr."""
    del kernel.shell.kernel
    proj.resource('coll')(lambda ident, args, subdir: 1)
    proj.fetch_many('coll', range(6), executor='inline', progress=True).wait()

    assert kernel.outputs == {}
    assert capsys.readouterr().err.startswith('coll: 6/6 done')
