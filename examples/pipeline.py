"""A pipeline of three stages with a shared upstream, brought up to date after each change.

    python examples/pipeline.py [BASE]

Twelve short texts are split into words, each text is scored with a list of stop words that all share, and
three reports sum the scores up. Then one text is edited, and then the first stage gets a new version: each
time exactly what depends on the change is computed again, from the leaves up.
"""

import sys
import tempfile
from pathlib import Path

from hadrosaur import Project

TITLES = [f'{author}-{number}' for author in ('austen', 'melville', 'shelley') for number in range(1, 5)]


def pipeline(base, texts, version='1'):
    """The project: `words` and `stop` are fetched by `scores`, and `scores` by `reports`."""
    proj = Project(base)

    @proj.resource('words', version=version, inputs=lambda title, args: texts / f'{title}.txt')
    def words(title, args, subdir):
        found = (texts / f'{title}.txt').read_text('utf-8').split()
        return [word.strip('.,') for word in found] if version == '1' else [word.lower() for word in found]

    @proj.resource('stop')
    def stop(language, args, subdir):
        return ['the', 'a', 'of', 'and']

    @proj.resource('scores')
    def scores(title, args, subdir):
        common = proj.fetch('stop', 'english').value
        return sum(word not in common for word in proj.fetch('words', title).value)

    @proj.resource('reports')
    def reports(author, args, subdir):
        titles = [title for title in TITLES if title.startswith(author)]
        return sum(res.value for res in proj.fetch_many('scores', titles))

    return proj


def write(texts):
    """The texts that everything is computed from."""
    texts.mkdir(parents=True, exist_ok=True)
    for number, title in enumerate(TITLES):
        (texts / f'{title}.txt').write_text(f'The story of {title}, ' + 'and a whale ' * number, 'utf-8')


def bring_up_to_date(proj, **options):
    """Compute what is missing and what is stale; how many of each collection were computed."""
    before = {(entry.collection, entry.ident): entry.run for entry in proj.query()}
    proj.fetch_many('reports', ['austen', 'melville', 'shelley'], **options).wait()
    proj.fetch_many('reports', proj.query('reports', stale=True), recompute=True, **options).wait()
    counts = {}
    for entry in proj.query(order_by='collection'):
        if before.get((entry.collection, entry.ident)) != entry.run:
            counts[entry.collection] = counts.get(entry.collection, 0) + 1
    return counts


def show(proj):
    """What is stale, and why."""
    for entry in proj.query(stale=True, order_by='ident'):
        print(f'  {entry.collection}/{entry.ident}: {entry.stale_because}')


def main(base):
    """Compute everything, edit one text, and change the first stage."""
    texts = base / 'texts'
    write(texts)
    with pipeline(base / 'project', texts) as proj:
        print('computed:', bring_up_to_date(proj))
        (texts / 'melville-2.txt').write_text('Call me Ishmael.', 'utf-8')
        show(proj)
        print('after one text was edited:', bring_up_to_date(proj))
    with pipeline(base / 'project', texts, version='2') as proj:
        show(proj)
        print('after stage one got version 2:', bring_up_to_date(proj))
        print('and now:', bring_up_to_date(proj))


if __name__ == '__main__':
    if len(sys.argv) > 1:
        main(Path(sys.argv[1]))
    else:
        with tempfile.TemporaryDirectory() as folder:
            main(Path(folder))
