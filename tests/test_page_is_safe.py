"""The page: who may ask, and what an answer may do."""

import asyncio
import gc
import os

import page
import pytest

from hadrosaur import Project


@pytest.fixture(scope='module')
def base(tmp_path_factory):
    """A base with a secret beside it, and links that lead there."""
    path = tmp_path_factory.mktemp('safe')
    (path / 'secret.txt').write_text('CANARY')
    page.made(path / 'base', 4).close()
    storage = path / 'base/thumbs/img-003/storage'
    os.symlink(path / 'secret.txt', storage / 'link.txt')
    os.symlink(path, storage / 'folder')
    os.link(path / 'base/index.sqlite3', storage / 'own.bin')
    os.mkfifo(storage / 'pipe.txt')
    (path / 'base/thumbs/img-000/stdout.log').unlink()
    os.symlink(path / 'secret.txt', path / 'base/thumbs/img-000/stdout.log')
    return path / 'base'


@pytest.fixture(scope='module')
def project(base):
    """Opened to read."""
    with Project(base, create=False) as opened:
        yield opened


def test_the_token_is_handed_over_once_and_kept_in_a_cookie(project):
    """Without the printed address there is nothing to see; after it a cookie does, out of sight."""
    browser = page.client(project, token=False)
    handed = browser.get(f'/c/thumbs?token={page.TOKEN}&status=error', follow_redirects=False)

    assert page.client(project, token=False).get('/').status_code == 403
    assert page.client(project, token=False).get('/?token=wrong').status_code == 403
    assert handed.status_code == 303
    assert handed.headers['location'] == '/c/thumbs?status=error'
    assert {'httponly', 'samesite=strict'} <= {
        part.strip().lower() for part in handed.headers['set-cookie'].split(';')
    }
    assert browser.get('/').status_code == 200


def test_programs_bring_the_token_in_a_header(project):
    """`Authorization: Bearer` opens the twins and /metrics to programs, such as Prometheus."""
    browser = page.client(project, token=False)
    answer = browser.get('/metrics', headers={'authorization': f'Bearer {page.TOKEN}'})

    assert answer.status_code == 200
    assert 'hadrosaur_resources{collection="thumbs",status="completed"} 2' in answer.text


@pytest.mark.parametrize(
    'host', ['evil.example', 'evil.example:8000', '127.0.0.1.evil.example', 'a@127.0.0.1', '']
)
def test_another_host_is_refused(project, host):
    """A site that gives its name to our number (DNS rebinding) gets nothing, cookie or not."""
    assert page.client(project).get('/', headers={'host': host}).status_code == 421


def test_another_site_is_refused(project):
    """What another site's page asks for is refused; who changes something says where he comes from."""
    browser = page.client(project)

    assert browser.get('/', headers={'origin': 'http://evil.example'}).status_code == 403
    assert browser.post('/do', data={'verb': 'remove'}).status_code == 403
    assert browser.post('/do', data={'verb': 'remove'}, headers={'origin': 'null'}).status_code == 403


def test_it_only_looks_unless_it_was_given_the_functions(project):
    """Without --app nothing can be asked for that changes anything, and no page offers it."""
    browser = page.client(project)
    form = {'verb': 'remove', 'collection': 'thumbs', 'ident': 'img-003'}

    assert browser.post('/do', data=form, headers={'origin': page.HOST}).status_code == 403
    assert browser.get('/confirm?verb=remove&collection=thumbs&ident=img-003').status_code == 403
    assert 'confirm' not in browser.get('/c/thumbs/r/img-003').text
    assert project.exists('thumbs', 'img-003')


def test_every_answer_has_a_strict_policy(project):
    """No script, style or picture from anywhere else is loaded, on any page, refusals included."""
    browser = page.client(project)
    for path in ('/', '/c/thumbs', '/nothing', '/static/page.js', '/index.json'):
        headers = browser.get(path).headers
        assert headers['content-security-policy'].startswith("default-src 'none'; script-src 'self'")
        assert 'unsafe' not in headers['content-security-policy']
        assert headers['x-content-type-options'] == 'nosniff'


def test_stored_files_run_nothing(project):
    """Files that functions left come under a sandbox; what is no image or plain text is saved."""
    browser = page.client(project)
    for name, how in (('picture.svg', 'inline'), ('thumb.png', 'inline'), ('note.html', 'attachment')):
        headers = browser.get(f'/file/thumbs/img-003/{name}').headers
        assert headers['content-security-policy'].startswith("sandbox; default-src 'none'")
        assert headers['content-disposition'].startswith(how)
    as_text = browser.get('/file/thumbs/img-003/note.html?text').headers
    assert as_text['content-type'].startswith('text/plain')


@pytest.mark.parametrize(
    'path',
    [
        '/file/thumbs/img-003/link.txt',
        '/file/thumbs/img-003/folder/secret.txt',
        '/file/thumbs/img-003/pipe.txt',
        '/file/thumbs/img-003/%2e%2e/%2e%2e/%2e%2e/%2e%2e/secret.txt',
        '/file/thumbs/img-003/..%2F..%2F..%2F..%2Fsecret.txt',
        '/file/thumbs/img-003/%2Fetc%2Fpasswd',
        '/file/thumbs/img-003//etc/passwd',
        '/log/thumbs/img-000/stdout',
        '/file/%2e%2e/x/secret.txt',
        '/file/thumbs/..%2f..%2fsecret.txt/x',
        '/file/thumbs/img-003/a%00b',
        '/file/.hadrosaur/sessions/x',
        '/c/thumbs/r/img-000',
        '/c/thumbs/r/img-003',
    ],
)
def test_nothing_beside_the_base_is_read(project, path):
    """No link is followed and no dots are, whatever stands in a storage or in an address."""
    answer = page.client(project).get(path)

    assert answer.status_code in (200, 404)
    assert 'CANARY' not in answer.text
    assert 'root:' not in answer.text


def test_forms_and_addresses_have_an_end(project):
    """What is too long is refused before it is read."""
    browser = page.client(project)
    origin = {'origin': page.HOST}

    assert browser.get(f'/c/thumbs?q={"x" * 9000}').status_code == 414
    assert browser.post('/do', content=b'x' * 70_000, headers=origin).status_code == 413


@pytest.mark.parametrize('path', ['/file/thumbs/img-003/thumb.png', '/log/thumbs/img-003/stdout'])
def test_who_goes_before_the_first_byte_leaves_no_file_open(project, path):
    """A file or log that a client asks for, and goes before it has come, is closed."""
    before = set(os.listdir('/proc/self/fd'))

    async def gone():
        return {'type': 'http.disconnect'}

    async def heard(message):
        pass

    headers = [(b'host', b'127.0.0.1:8000'), (b'authorization', f'Bearer {page.TOKEN}'.encode())]
    scope = {
        'type': 'http', 'asgi': {'version': '3.0', 'spec_version': '2.3'}, 'http_version': '1.1',
        'method': 'GET', 'scheme': 'http', 'path': path, 'raw_path': path.encode(), 'query_string': b'',
        'root_path': '', 'headers': headers,
    }  # fmt: skip
    for _ in range(5):
        asyncio.run(page.make_app(project, page.TOKEN)(dict(scope), gone, heard))
    gc.collect()

    assert len(set(os.listdir('/proc/self/fd')) - before) < 5
