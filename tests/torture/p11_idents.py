# ruff: noqa: E501, RUF001 (hostile texts, as they are)
"""P11: any text that UTF-8 can hold names one directory inside its collection, and comes back unchanged."""

import os
import unicodedata

from harness import chance, count

from hadrosaur import Project, canonical

NAMES = count(300_000, quick=3000)
FETCHES = min(count(5000, quick=60), NAMES)
MOST = 4096  # bytes that an ident may have

HOSTILE = [
    '.', '..', '...', '../x', '../../etc/passwd', '/', '//', '/etc', 'a/b', 'a/../b', 'a\0b', '\0', ' ', '  ',
    'a ', ' a', '\n', '\r\n', '\t', '-rf', '-', '--', '~', '~root', '$HOME', '`id`', '*', '?', '[a]', '!', '#',
    'CON', 'nul', 'com1.txt', 'aux.', 'a.', 'a:b', 'a\\b', '%', '%2F', '%2f', '%00', '%~', '%25', 'a%20b',
    'é', 'e\u0301', 'ß', 'İ', 'ı', 'K', '\u212a', '\ufeff', '\u202e', '\u200b', '\U0001f995', '\U0010ffff', '\uffff',
    'status.json', 'storage', 'index.sqlite3', '.hadrosaur', '.lock', 'a' * 200, 'a' * 201, 'a' * 300,
    'é' * 100, 'a' * 60 + '%~' + '0' * 32, 'x' * MOST, '/' * MOST, 'é' * (MOST // 2), "'; drop table x; --", '"',
    '=1+1', '\x7f', '\x1b[31m', '\ud7ff', '\ue000', 'https://example.org/a?b=c#d', '10.1000/182',
]  # fmt: skip
ALPHABETS = [
    'ab', 'aA', './', '%~', '%2Ff.', '-a.', ' \0\n\t', 'aé\u0301e', "'\"\\*?[]", '\U0001f995\ufeff\u202e', '0123456789',
]  # fmt: skip


def any_char(chosen):
    code = chosen.randrange(0x110000 - 0x800)
    return chr(code if code < 0xD800 else code + 0x800)  # all but the surrogates, which UTF-8 cannot hold


def texts(chosen):
    """Hostile texts, then ever new ones: of few letters, so that they are alike, and of all there are."""
    yield from HOSTILE
    while True:
        length = chosen.choice([1, 2, 3, 5, 8, 20, 60, 199, 201, 400])
        kind = chosen.randrange(3)
        if kind == 0:
            alphabet = chosen.choice(ALPHABETS)
            yield ''.join(chosen.choice(alphabet) for _ in range(length))
        elif kind == 1:
            yield ''.join(any_char(chosen) for _ in range(length))
        else:
            text = chosen.choice(HOSTILE) + chosen.choice(HOSTILE) * chosen.randrange(3)
            yield unicodedata.normalize(chosen.choice(['NFC', 'NFD', 'NFKC']), text) + any_char(chosen)


def distinct(chosen, number):
    found = set()
    for text in texts(chosen):
        if 0 < len(text.encode()) <= MOST and text not in found:
            found.add(text)
            yield text
            if len(found) == number:
                return


def test_names(record):
    """Each is one component of a path, no two have the same, and it leads back."""
    names = {}
    digests = 0
    for ident in distinct(chance(), NAMES):
        name = canonical.folder_name(ident)
        assert name.isascii()
        assert 0 < len(name) <= 200
        assert not set(name) & set('/\0 ')
        assert name[0] not in '.-'
        assert names.setdefault(name, ident) == ident
        if len(name) > 92 and name[60:62] == '%~':
            digests += 1
            assert canonical.digest_matches(name, ident)
        else:
            assert canonical.ident_of_folder(name) == ident
    record('P11', len(names), 0, f'names, {digests} of them digests')


def test_fetches(tmp_path, record):
    """Computed, each under its own name, nowhere else; a new index made of the folders knows all of them."""
    base = tmp_path / 'in' / 'base'
    base.parent.mkdir()
    idents = list(distinct(chance(), FETCHES))
    with Project(base) as proj:
        proj.resource('coll')(lambda ident, args, subdir: [ident, os.path.basename(os.path.dirname(subdir))])
        batch = proj.fetch_many('coll', idents, executor='inline')
        found = {res.ident: res.result for res in batch}
        assert batch.counts.completed == len(idents), batch.counts
        assert all(found[ident][0] == ident for ident in idents)
        folders = set(os.listdir(base / 'coll'))
        assert folders == {folder for _, folder in found.values()}
        assert len(folders) == len(idents)
        assert os.listdir(tmp_path) == ['in']
        assert os.listdir(tmp_path / 'in') == ['base']
        assert set(os.listdir(base)) <= {
            'coll', '.hadrosaur', 'index.sqlite3', 'index.sqlite3-wal', 'index.sqlite3-shm'
        }  # fmt: skip
        live = [entry.as_json() for entry in proj.query(order_by='ident')]
        proj.reindex(fresh=True)
        assert [entry.as_json() for entry in proj.query(order_by='ident')] == live
        assert {row['ident'] for row in live} == set(idents)
        assert proj.check(deep=True).findings == []
        for ident in idents:
            assert proj.get('coll', ident).result[0] == ident
    record('P11', len(idents), 0, f'{len(live)} fetched')
