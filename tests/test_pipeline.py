"""The example of a pipeline computes exactly what is stale, and says why."""

import importlib.util

from conftest import ROOT


def example():
    spec = importlib.util.spec_from_file_location('pipeline', ROOT / 'examples/pipeline.py')
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_pipeline_computes_exactly_what_is_stale(tmp_path):
    """28 at first, 3 after one text was edited, 27 after a new version of stage one, and then none."""
    made, texts, base = example(), tmp_path / 'texts', tmp_path / 'base'
    made.write(texts)
    with made.pipeline(base, texts) as proj:
        first = made.bring_up_to_date(proj, executor='inline')
        assert first == {'words': 12, 'stop': 1, 'scores': 12, 'reports': 3}
        assert made.bring_up_to_date(proj, executor='inline') == {}
        (texts / 'melville-2.txt').write_text('Call me Ishmael.')
        stale = {f'{row.collection}/{row.ident}': row.stale_because for row in proj.query(stale=True)}
        changed = f'{texts}/melville-2.txt changed'
        assert stale == {
            'words/melville-2': f'its input {changed}',
            'scores/melville-2': f'words/melville-2 is stale: the input of words/melville-2, {changed}',
            'reports/melville': f'scores/melville-2 is stale: the input of words/melville-2, {changed}',
        }
        assert made.bring_up_to_date(proj, executor='inline') == {'words': 1, 'scores': 1, 'reports': 1}
        assert made.bring_up_to_date(proj, executor='inline') == {}
    with made.pipeline(base, texts, version='2') as proj:
        assert len(proj.query(stale=True)) == 27
        counts = made.bring_up_to_date(proj, workers=2)
        assert counts == {'words': 12, 'scores': 12, 'reports': 3}
        assert made.bring_up_to_date(proj, executor='inline') == {}
        assert proj.check().findings == []
