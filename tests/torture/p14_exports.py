"""P14: exports are inert: no cell of a CSV is a formula, no text of HTML is markup, and it comes back."""

import csv
import html.parser
import io
import json
import os

import pytest
from harness import chance, count
from hostile import _cli
from tally import Tally, Victim

from hadrosaur import Project

CELLS = count(5000, quick=200)
STARTS = [
    '=',
    '+',
    '-',
    '@',
    '\t',
    '\r',
    '\n',
    *'\uff1d\uff0b\uff0d\uff20',
    ' =',
    "'=",
    '"=',
    ',=',
    ';=',
    '|',
    '%',
    '\ufeff=',
    '\x00=',
    '\u200b=',
    '\x0b=',
    '',
]
BODIES = [
    '1+1',
    'cmd|" /C calc"!A0',
    'HYPERLINK("http://x","y")',
    'SUM(1,2)',
    'x',
    '<script>alert(1)</script>',
    '"quoted", and\nlines',
    '\x1b[31mred',
    '&lt;b&gt;',
    '1',
    '-1',
    '1e5',
    "';--",
    '\u202eevil',
    '"><img src=x>',
]
FORMULA = ('=', '+', '-', '@', '\t', '\r', '\n', *'\uff1d\uff0b\uff0d\uff20')


@pytest.fixture
def filled(tmp_path):
    """A base whose idents, args, results and errors are hostile; how many cells of text it makes."""
    chosen = chance()
    texts = [f'{start}{body}' for start in STARTS for body in BODIES]
    chosen.shuffle(texts)
    texts = texts[: max(20, CELLS // 4)]

    def compute(ident, args, subdir):
        if ident[-1] in '1x)':
            raise ValueError(ident)
        return ident

    with Project(tmp_path / 'base') as proj:
        proj.resource('coll', version='=1+1')(compute)
        items = [(text, {text: text, 'n': -1}) for text in texts]
        proj.fetch_many('coll', items, executor='inline').wait()
    return tmp_path, len(texts)


def _run(tally, folder, *words):
    def work():
        os.chdir(folder)
        _cli(*words)('base')

    victim = Victim(folder, work)
    if victim.wait() != 0:
        tally.wrong('it fails', f'{words}: {victim.said()[1][-800:]}')
    return victim.out.read_bytes().decode()


def _cells(tally, text, what):
    """Every cell as a spreadsheet reads it, and as one that takes other separators and line ends does."""
    rows = list(csv.reader(io.StringIO(text, newline='')))
    widths = {len(row) for row in rows}
    if len(widths) != 1:
        tally.wrong('rows of several widths', f'{what}: {widths}')
    for row in rows:
        for cell in row:
            tally.fault('cell')
            if cell.startswith(FORMULA) and not _is_number(cell):
                tally.wrong('a formula', f'{what}: {cell[:80]!r}')
    return rows


def _is_number(cell):
    try:
        float(cell)
    except ValueError:
        return False
    return cell[0] in '-' and cell[1:2].isdigit()


def test_csv(filled, record):
    """query --csv and sql --csv: no cell is a formula, and text comes back but for a quote in front."""
    folder, number = filled
    tally = Tally('P14')
    with Project(folder / 'base') as proj:
        idents = [row.ident for row in proj.query('coll', order_by='ident')]
    shown = [
        ('query', '{base}', '--csv', '--order-by', 'ident'),
        ('query', '{base}', 'coll', '--csv', '--order-by', 'ident', '--status', 'error'),
        ('sql', '{base}', 'select * from resources order by ident', '--csv'),
        (
            'sql',
            '{base}',
            "select ident as '=ident', args, error as '@e', error_type from resources",
            '--csv',
        ),
        ('sql', '{base}', 'select ident, hex(ident), cast(ident as blob) from resources', '--csv'),
    ]
    tally.faults = 0
    for words in shown:
        rows = _cells(tally, _run(tally, folder, *words), words[:2])
        if '--status' in words or words[0] == 'sql':
            continue
        at = rows[0].index('ident')
        back = sorted(row[at] for row in rows[1:])
        if {text.removeprefix("'") for text in back} != {text.removeprefix("'") for text in idents}:
            tally.wrong('it does not come back', f'{len(back)} of {len(idents)}')
    tally.end(record, at_least=min(CELLS, number))


def test_tables(filled, record):
    """What is shown to people and read by shells holds no control character and one line for each row."""
    folder, _ = filled
    tally = Tally('P14')
    for words in [
        ('query', '{base}', 'coll'),
        ('errors', '{base}'),
        ('status', '{base}'),
        ('query', '{base}', '--idents'),
        ('sql', '{base}', 'select ident, error, args from resources'),
    ]:
        text = _run(tally, folder, *words)
        tally.fault('line', text.count('\n'))
        odd = {char for char in text if not char.isprintable() and char not in '\n\t'}
        if odd:
            tally.wrong('control characters', f'{words}: {odd}')
    rows = json.loads(_run(tally, folder, 'query', '{base}', 'coll', '--json'))
    if len(rows) == 0 or any(not isinstance(row['ident'], str) for row in rows):
        tally.wrong('json', f'{len(rows)} rows')
    tally.end(record)


class Text(html.parser.HTMLParser):
    """Tags that a piece of HTML has, and its text."""

    def __init__(self):
        super().__init__()
        self.tags = set()

    def handle_starttag(self, tag, attrs):
        self.tags.add(tag)
        self.tags |= {name for name, _ in attrs if name.startswith('on') or name in ('src', 'href')}


def test_html(filled, record):
    """What a notebook shows of a project, of rows and of a resource has the tags of a table and no others."""
    folder, _ = filled
    tally = Tally('P14')
    with Project(folder / 'base') as proj:
        query = proj.query('coll')
        shown = [proj, query, *query[:50]]
        for one in shown:
            maker = getattr(one, '_repr_html_', None)
            if maker is None:
                continue
            page = Text()
            page.feed(maker())
            tally.fault('html')
            if page.tags - {
                'table',
                'caption',
                'thead',
                'tbody',
                'tr',
                'th',
                'td',
                'p',
                'div',
                'style',
                'span',
            }:
                tally.wrong('markup', f'{type(one).__name__}: {page.tags}')
    tally.end(record)
