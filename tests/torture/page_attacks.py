"""A base that means ill to who looks at it, and requests that mean ill to the page."""

import json
import os
import random
import sqlite3
from pathlib import Path
from urllib.parse import quote

from hadrosaur import Project
from hadrosaur.web.addresses import segment

CANARY = 'CANARY-4711'  # stands in everything outside of the base
RAN = 'canary-ran'  # what a script that runs asks for
SCRIPT = f"document.title='{RAN}';window.ran=1;fetch('/{RAN}');new Image().src='/{RAN}.png';alert('{RAN}')"
MARKUP = [
    f'<script>{SCRIPT}</script>',
    f'"><script>{SCRIPT}</script>',
    f'<img src=x onerror="{SCRIPT}">',
    f"'><svg onload={SCRIPT.split(';')[4]}>",
    f'</pre></title></style><script>{SCRIPT}</script>',
    f'javascript:{SCRIPT}',
    f'<iframe srcdoc="<script>{SCRIPT}</script>">',
    f'<a href="javascript:{SCRIPT}">x</a>',
    '{{ 7*7 }}{% for x in ().__class__.__base__.__subclasses__() %}{{ x }}{% endfor %}',
    '<base href="http://canary.invalid/">',
    f'<meta http-equiv=refresh content="0;url=javascript:{SCRIPT}">',
    f'<style>@import "/{RAN}.css";*{{background:url(/{RAN}.png)}}</style>',
]
ANSI = ''.join(
    f'\x1b[{code}m' for code in (0, 1, 31, '38;5;9', '38;2;1;2;3', '48;5', '999999999', ';;;', '8')
)
ANSI += (
    '\x1b]8;;javascript:alert(1)\x07link\x1b]8;;\x07\x1b[2J\x1b[31"onmouseover="alert(1)m\x9b31m\x1b]0;t\x07'
)
SVG = (
    f'<svg xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink" onload="{SCRIPT}">'
    f'<script>{SCRIPT}</script><image href="/{RAN}.png"/>'
    f'<a xlink:href="javascript:{SCRIPT}"><text>x</text></a>'
    f'<foreignObject><body xmlns="http://www.w3.org/1999/xhtml"><script>{SCRIPT}</script></body></foreignObject>'
    '</svg>'
)
HTML = f'<!doctype html><title>x</title><body onload="{SCRIPT}"><script>{SCRIPT}</script>{"".join(MARKUP)}'
FILES = {
    'picture.svg': SVG, 'page.html': HTML, 'page.htm': HTML, 'page.xhtml': HTML, 'page.xml': SVG,
    'x.js': SCRIPT,
    'fake.png': HTML, 'fake.jpg': SVG, 'notes.txt': HTML, 'table.csv': f'a,{MARKUP[0]}\n=1+1,{MARKUP[2]}\n',
    'deep.json': '[' * 5000, 'list.json': json.dumps([{MARKUP[0]: MARKUP[2]}]), 'nothing': '', 'x.css': '*{}',
    f'{MARKUP[2].replace("/", "")}.png': HTML, 'a\nSet-Cookie: x=1\r\n.txt': 'x', '..%2f..%2fx.txt': 'x',
    '.json': '{}', 'manifest.webmanifest': '{}', 'service-worker.js': SCRIPT, 'é\u202e.svg': SVG,
}  # fmt: skip
IDENTS = [*MARKUP, ANSI, '..', '.', '~', '~~', 'x.json', '%2e%2e', 'a/../../b', '\u202egnp.exe', 'é' * 60,
          'a\nb', ' ', '-rf', 'CON', '😀', '"', "'", '&amp;', '?q=1#f', ';', 'A' * 200]  # fmt: skip
COLLECTIONS = ['plain', MARKUP[2].replace('/', ''), '..x', "o'clock %2f"]


def compute(ident, args, subdir):
    """Leaves all that is hostile, and fails in hostile words."""
    print(f'{ident}\n{ANSI}{"".join(MARKUP)}\n', 'x' * 40_000)
    os.write(1, b'\xff\xfe\x00\x1b[31')
    for name, text in FILES.items():
        Path(subdir, name).write_text(text)
    with open(os.fsencode(subdir) + b'/\xff\xfe.txt', 'wb') as file:
        file.write(b'\xff')
    if args.get('fails'):
        raise ValueError(ident + ANSI)
    return {ident: ident, 'n': args['n'], 'deep': [[[[[[[[ident]]]]]]]], 'large': 10**30, 'bool': True}


def make_base(folder):
    """A base with hostile text in all places, and links that lead out of it; the canaries beside it."""
    folder.mkdir()
    (folder / 'secret.txt').write_text(CANARY)
    (folder / 'full').mkdir()
    (folder / 'full/secret.svg').write_text(f'<svg>{CANARY}</svg>')
    with Project(folder / 'base') as project:
        for name in COLLECTIONS:
            project.resource(name, columns={'number': 'result.n'}, version=MARKUP[1])(compute)
        for number, ident in enumerate(IDENTS):
            project.fetch('plain', ident, {'n': number, 'fails': number % 3 == 0, MARKUP[0]: MARKUP[1]})
        for name in COLLECTIONS[1:]:
            project.fetch(name, MARKUP[0], {'n': 1})
        for ident in ('linked', 'logged', 'folded'):
            project.fetch('plain', ident, {'n': 1})
        project.stats()
    storage = folder / 'base/plain/linked/storage'
    os.symlink(folder / 'secret.txt', storage / 'link.txt')
    os.symlink(folder / 'full/secret.svg', storage / 'link.svg')
    os.symlink(folder / 'full', storage / 'folder')
    os.symlink('/etc', storage / 'etc')
    os.mkfifo(storage / 'pipe.txt')
    for log in ('stdout.log', 'stderr.log', 'result.json', 'record.json'):
        (folder / f'base/plain/logged/{log}').unlink()
        os.symlink(folder / 'secret.txt', folder / f'base/plain/logged/{log}')
    (folder / 'base/plain/folded').rename(folder / 'full/folded')
    (folder / 'full/folded/storage/secret.txt').write_text(CANARY)
    os.symlink(folder / 'full/folded', folder / 'base/plain/folded')
    return folder / 'base'


JUNK = [None, '', 'x', MARKUP[0], '../../..', -1, 1e308, 10**18, '9999-99-99', 'null', '[', '{"a":1}',
        '\x1b[31m',
        '0001-01-01T00:00:00.000000Z', '9999-12-31T23:59:59.999999Z', b'\xff\x00', 'é\u202e']  # fmt: skip


def spoil(base, chosen):
    """Rows of the index that nobody of ours would write."""
    with sqlite3.connect(base / 'index.sqlite3') as index:
        index.execute('PRAGMA ignore_check_constraints = 1')
        names = [
            row[1]
            for row in index.execute('PRAGMA table_info(resources)')
            if row[1] not in ('collection', 'ident')
        ]
        idents = index.execute('SELECT collection, ident FROM resources').fetchall()
        for collection, ident in chosen.sample(idents, len(idents) // 2):
            name = chosen.choice(names)
            try:
                index.execute(
                    f'UPDATE resources SET "{name}" = ? WHERE collection = ? AND ident = ?',
                    (chosen.choice(JUNK), collection, ident),
                )
            except sqlite3.Error:
                continue
    index.close()


# --- requests --------------------------------------------------------------------------------------

TEXTS = [*MARKUP, *IDENTS, '', '0', '1', 'nan', 'inf', '-1', '1e999', '9' * 40, '9' * 5000, 'x' * 7000,
         '[' * 3000,
         '{"a":' * 900, '*' * 60 + 'b', '*a' * 40, '[a-', '\x00', '\ud800', 'null', 'completed', 'error',
         '2h', '9' * 30 + 'd',
         '99999-01-01', '0000-00-00', '2026-01-01T00:00', '2026-01-01T00:00:00+99:99', '..', '1..2', '0..0',
         '1..999999999',
         "' OR 1=1 --", '"; DROP TABLE resources; --', '$.a', 'result.' + 'a.' * 300, 'result.n>0', 'n>',
         '=', 'n=[1', 'n~x',
         '[null,"",""]', '[1e999,"a","b"]', '[[],"",""]', '[{"a":1},"",""]', '[NaN,"a","b"]', '[1,2,3]',
         'true',
         f'[{10**400},"a","b"]', '["\\ud800","a","b"]', '["a","\\u0000","b"]']  # fmt: skip
PARAMETERS = ['status', 'ident', 'error_type', 'group', 'error', 'args', 'result', 'since', 'until',
              'min_duration',
              'max_duration', 'min_memory', 'max_memory', 'sort', 'col', 'after', 'q', 'x', 'y', 'compare',
              'collection',
              'token', 'save', 'text', 'verb', 'log', 'limit', 'offset', '']  # fmt: skip
PATHS = ['/', '/index', '/errors', '/running', '/timeline', '/metrics', '/confirm', '/events', '/do',
         '/static/page.css',
         '/static/page.js', '/static', '/file', '/log', '/c', '/c/plain', '/c/plain/errors',
         '/c/plain/gallery']  # fmt: skip
SEGMENTS = [b'..', b'.', b'%2e%2e', b'%2E%2e', b'..%2f..', b'..%5c', b'%00', b'a%00b', b'%ff', b'%ed%a0%80',
            b'%c0%ae',
            b'%c0%af', b'', b'~', b'~..', b'~~', b'.json', b'..json', b'%', b'%zz', b'%u002e', b'\xff\xfe',
            b'\xc3\xa9',
            b'secret.txt', b'link.txt', b'folder', b'pipe.txt', b'etc', b'passwd', b'%2fetc%2fpasswd',
            b'storage',
            b'.hadrosaur', b'index.sqlite3', b'__class__', b'x' * 300, b'%41' * 2000, b'a;b=1', b'a b',
            b'a?b', b'a#b',
            b'//evil.example', b'http:', b'page.css', b'resources', b'\r\nx: y', b'\x00',
            b'stdout', b'stderr.log']  # fmt: skip
METHODS = ['GET'] * 60 + ['HEAD'] * 6 + ['POST'] * 14 + [
    'PUT', 'DELETE', 'OPTIONS', 'TRACE', 'CONNECT', 'PATCH', 'get', 'G\0T', 'X' * 5000, '',
    'PROPFIND', 'É']  # fmt: skip
HOSTS = ['127.0.0.1', '127.0.0.1:8000', 'localhost', '[::1]:1'] * 8 + [
    'evil.example', '127.0.0.1.evil.example', '', ':', '[', '[::', 'a@127.0.0.1', '127.0.0.1:x',
    '127.0.0.1:99999', '0x7f.1',
    'localhost.', 'LOCALHOST', '127.0.0.1/', '127.0.0.1\t', '127.0.0.1#', 'é', '127.1',
    '[::ffff:127.0.0.1]', 'x' * 9000]  # fmt: skip


class Generator:
    """Hostile requests, one after the other, from a seed: (scope for ASGI, body)."""

    def __init__(self, chosen, token, cookie):
        self.chosen: random.Random = chosen
        self.token, self.cookie = token, cookie

    def __call__(self):
        chosen = self.chosen
        self.is_tame = (
            chosen.random() < 0.75
        )  # well made, to reach the pages; hostile in what it asks of them
        method = chosen.choice(['GET'] * 9 + ['HEAD']) if self.is_tame else chosen.choice(METHODS)
        path, query = self.path(), self.query()
        body = self.body() if method not in ('GET', 'HEAD') or chosen.random() < 0.05 else b''
        scope = {
            'type': 'http', 'asgi': {'version': '3.0', 'spec_version': '2.3'}, 'http_version': '1.1',
            'scheme': 'http',
            'method': method, 'raw_path': path, 'path': path.decode('latin-1'), 'query_string': query,
            'root_path': '',
            'headers': self.headers(body), 'client': ('127.0.0.1', 1), 'server': ('127.0.0.1', 8000),
        }  # fmt: skip
        return scope, body

    def text(self):
        return self.chosen.choice(TEXTS)

    def quoted(self, text):
        if self.is_tame:
            return segment(text).encode()
        return quote(
            text, safe='' if self.chosen.random() < 0.7 else '/~<>"\'', errors='surrogatepass'
        ).encode()

    def path(self):
        chosen = self.chosen
        roll = chosen.random() * (0.75 if self.is_tame else 1)
        if roll < 0.25:
            path = chosen.choice(PATHS).encode()
        elif roll < 0.75:
            name = 'plain' if chosen.random() < 0.8 else chosen.choice(COLLECTIONS)
            names = [
                name,
                chosen.choice([*IDENTS, 'linked', 'logged', 'folded'] if name == 'plain' else MARKUP[:1]),
            ]
            parts = [self.quoted(name) for name in names]
            kind = chosen.choice(['c', 'c', 'file', 'file', 'log'])
            if kind == 'c':
                path = b'/'.join([b'/c', parts[0], b'r', parts[1]])
            elif kind == 'log':
                path = b'/'.join(
                    [b'/log', *parts, chosen.choice([b'stdout', b'stderr', b'error', b'record'])]
                )
            else:
                name = chosen.choice([*map(self.quoted, FILES), b'%FF%FE.txt', b'link.txt', b'link.svg',
                                      b'pipe.txt',
                                      b'folder/secret.svg', b'etc/passwd', b'secret.txt',
                                      b'../record.json'])  # fmt: skip
                path = b'/'.join([b'/file', *parts, name])
        else:
            path = b'/' + b'/'.join(chosen.choice(SEGMENTS) for _ in range(chosen.randint(1, 6)))
        if not self.is_tame and chosen.random() < 0.25:
            pieces = path.split(b'/')
            pieces.insert(chosen.randint(0, len(pieces)), chosen.choice(SEGMENTS))
            path = b'/'.join(pieces)
        return path + (b'.json' if chosen.random() < 0.3 else b'')

    def query(self):
        chosen = self.chosen
        if chosen.random() < 0.4:
            return b''
        if chosen.random() < 0.1 and not self.is_tame:
            return chosen.choice(
                [
                    b'%',
                    b'&&&',
                    b'=',
                    b'\xff\xfe=\xff',
                    b'a' * 9000,
                    b'?' * 50,
                    b';' * 500,
                    b'%00=%00',
                    b'a=1&' * 2000,
                ]
            )
        pairs = [
            chosen.choice(PARAMETERS).encode()
            + b'='
            + quote(self.text(), safe='', errors='surrogatepass').encode()
            for _ in range(chosen.choice([1, 1, 1, 2, 4]))
        ]
        if self.is_tame:  # what makes sense, beside it
            pairs.append(
                chosen.choice(
                    [
                        b'status=error',
                        b'sort=-args.n',
                        b'col=args.n',
                        b'x=args.n',
                        b'q=a',
                        b'ident=*',
                        b'save',
                    ]
                )
            )
        return b'&'.join(pairs)

    def headers(self, body):
        chosen = self.chosen
        if self.is_tame:
            return [(b'host', b'127.0.0.1:8000'), (b'cookie', f'{self.cookie}={self.token}'.encode())]
        found = [(b'host', chosen.choice(HOSTS).encode())]
        roll = chosen.random()
        if roll < 0.8:
            found.append((b'cookie', f'{self.cookie}={self.token}'.encode()))
        elif roll < 0.85:
            found.append((b'authorization', f'Bearer {self.token}'.encode()))
        elif roll < 0.9:
            found.append(
                (
                    b'cookie',
                    chosen.choice([b'\xff', b'=', b';' * 999, f'{self.cookie}='.encode(), b'a=b; ' * 900]),
                )
            )
        elif roll < 0.95:
            found.append(
                (
                    b'authorization',
                    chosen.choice([b'', b'Bearer', b'Bearer \xff', b'Basic eDp4', b'Bearer ' + b'x' * 9000]),
                )
            )
        if chosen.random() < 0.4:
            found.append(
                (
                    b'origin',
                    chosen.choice(
                        [b'http://' + found[0][1]] * 4 + [b'null', b'http://evil.example', b'', b'\xff']
                    ),
                )
            )
        if body and chosen.random() < 0.9:
            lengths = [str(len(body)).encode()] * 6 + [b'-1', b'x', b'9' * 30, b'0', b'1e3', b'']
            found.append((b'content-length', chosen.choice(lengths)))
        for name in (b'range', b'accept', b'content-type', b'x-forwarded-host', b'x-original-url',
                     b'transfer-encoding',
                     b'if-modified-since', b'upgrade', b'referer', b'host', b'expect',
                     b'x' * 3000):  # fmt: skip
            if chosen.random() < 0.06:
                values = [
                    b'bytes=0-0,5-',
                    b'*/*',
                    b'multipart/form-data',
                    b'evil.example',
                    b'/etc/passwd',
                    b'\xff\x00',
                    b'chunked',
                    b'h2c',
                ]
                found.append((name, chosen.choice(values)))
        return found

    def body(self):
        chosen = self.chosen
        roll = chosen.random()
        if roll < 0.3:
            return chosen.choice(
                [b'', b'\xff' * 9, b'&' * 9000, b'a=1&' * 200, b'x' * 70_000, b'\x00', b'{"a":1}', b'%ff=%ff']
            )
        pairs = {'verb': chosen.choice(['retry', 'recompute', 'cancel', 'remove', 'x', '']),
                 'collection': chosen.choice([*COLLECTIONS, self.text()]),
                 'ident': chosen.choice([*IDENTS, self.text()]), 'group': self.text()}  # fmt: skip
        names = chosen.sample(sorted(pairs), chosen.randint(0, 4))
        return b'&'.join(name.encode() + b'=' + self.quoted(pairs[name]) for name in names)
