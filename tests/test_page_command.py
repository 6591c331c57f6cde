"""The command `hadrosaur web`: it serves until Ctrl-C, and says in a sentence why it cannot."""

import signal
import socket
import subprocess
import sys
import urllib.error
import urllib.request

import pytest
from click.testing import CliRunner
from conftest import HANG

from hadrosaur import Project
from hadrosaur.cli import app


@pytest.fixture
def filled(base):
    """A base with one resource."""
    with Project(base) as project:
        project.resource('c')(lambda ident, args, subdir: ident)
        project.fetch('c', 'one')
    return base


def call(*words):
    return CliRunner().invoke(app, ['web', *map(str, words)])


def test_it_serves_until_it_is_interrupted(filled):
    """The printed address opens the page, another does not; Ctrl-C ends it, quietly."""
    command = [sys.executable, '-m', 'hadrosaur', 'web', str(filled)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as served:
        try:
            address = served.stdout.readline().strip()
            opener = urllib.request.build_opener(urllib.request.HTTPCookieProcessor())
            assert b'>c</a>' in opener.open(address, timeout=HANG).read()
            with pytest.raises(urllib.error.HTTPError, match='403'):
                urllib.request.urlopen(address.partition('?')[0], timeout=HANG)
            served.send_signal(signal.SIGINT)
            assert served.wait(HANG) == 0
            assert served.stderr.read() == 'Ctrl-C ends it\n'
        finally:
            served.kill()


def test_a_port_that_is_taken_is_named(filled):
    """Where it cannot listen it says so, and what to do."""
    with socket.socket() as taken:
        taken.bind(('127.0.0.1', 0))
        taken.listen()
        port = taken.getsockname()[1]
        done = call(filled, '--port', port)

    assert done.exit_code != 0
    assert f'127.0.0.1:{port} cannot be listened on' in done.output
    assert 'choose another --port' in done.output


def test_without_the_extra_it_says_how_to_get_it(filled, monkeypatch):
    """A missing package is named with the command that installs it."""
    monkeypatch.setitem(sys.modules, 'hadrosaur.web.serving', None)
    done = call(filled)

    assert done.exit_code != 0
    assert "pip install 'hadrosaur[web]'" in done.output


def test_the_app_must_be_of_the_same_base(filled, tmp_path, monkeypatch):
    """--app takes the project of the base that is shown, and no other."""
    (tmp_path / 'jobs_elsewhere.py').write_text(
        "from hadrosaur import Project\nproj = Project('elsewhere')\n"
    )
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    done = call(filled, '--app', 'jobs_elsewhere:proj')

    assert done.exit_code != 0
    assert "--app names the project of 'elsewhere'" in done.output


def test_no_project_no_page(tmp_path):
    """A folder that is no project is named."""
    done = call(tmp_path)

    assert done.exit_code == 3
    assert 'holds no hadrosaur project' in done.output
