"""Take a census of Python's own standard library: one resource per source file, about 1 800 of them.

    python examples/source_census.py [BASE]

Each file is read, parsed and counted. The library keeps a few deliberately bad files for its own
tests; those fail here by themselves, and a second run computes only them again. Press Ctrl-C or kill
the program whenever you like: the next run goes on where it was.
"""

import ast
import csv
import os
import shlex
import sys
import sysconfig
from pathlib import Path

from hadrosaur import Project

BASE = Path(sys.argv[1] if len(sys.argv) > 1 else Path(__file__).parent.parent / 'demo')
STDLIB = Path(sysconfig.get_path('stdlib'))

proj = Project(os.path.relpath(BASE))


def statements(node, depth=1):
    """All statements below a node, each with how deeply it is nested."""
    for block in ('body', 'orelse', 'finalbody', 'handlers', 'cases'):
        for child in getattr(node, block, ()):
            inside = isinstance(child, ast.stmt)
            if inside:
                yield child, depth
            yield from statements(child, depth + inside)


@proj.resource('stdlib')
def census(ident, args, subdir):
    """Counts of one source file; its functions go into functions.csv."""
    text = (Path(args['stdlib']) / ident).read_text('utf-8')
    tree = ast.parse(text, filename=ident)
    found = list(statements(tree))
    functions = [node for node, _ in found if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef))]
    with open(Path(subdir) / 'functions.csv', 'w', newline='', encoding='utf-8') as out:
        table = csv.writer(out)
        table.writerow(['line', 'function', 'lines'])
        table.writerows([node.lineno, node.name, node.end_lineno - node.lineno + 1] for node in functions)
    print(f'{ident}: {len(functions)} functions')
    return {
        'functions': len(functions),
        'classes': sum(isinstance(node, ast.ClassDef) for node, _ in found),
        'lines': text.count('\n'),
        'depth': max((depth for _, depth in found), default=0),
    }


def sources():
    """The library's source files, without what pip has added to it."""
    for path in sorted(STDLIB.rglob('*.py')):
        if 'site-packages' not in path.parts:
            yield path.relative_to(STDLIB).as_posix()


batch = proj.fetch_many('stdlib', list(sources()), {'stdlib': str(STDLIB)}, workers=2, progress=True)
lines = functions = 0
for resource in batch:
    if resource.status == 'completed':
        lines += resource['result']['lines']
        functions += resource['result']['functions']

counts = batch.counts
before = f' ({counts.reused} of them before)' if counts.reused else ''
print(f'{counts.total} files: {counts.completed} completed{before}, {counts.error} failed')
print(f'{lines} lines, {functions} functions')
for group in proj.error_groups('stdlib'):
    print(f'  {group.count:4} {group.type}: {group.pattern}')
python = min(sys.executable, os.path.relpath(sys.executable), key=len)
hadrosaur = os.path.join(os.path.dirname(python), 'hadrosaur')
print(f"""
What to try next:
  {hadrosaur} status {proj.base}
  {hadrosaur} query {proj.base} --status error
  {hadrosaur} logs {proj.base} stdlib json/decoder.py
  sqlite3 {proj.base}/index.sqlite3 'select ident, error_type from errors'
  {shlex.join([python, *sys.argv])}    (again: only what failed is computed)""")
