"""Each mutant of tests/mutants.py still fits: it changes a line that is there, and names a test that is."""

import mutants
from conftest import COLLECTED

TESTS = 'tests/'


def test_each_mutant_fits_the_code(request):
    """Its text stands in its file exactly once, what it makes of that is Python, and its test exists."""
    known = {node.removeprefix(TESTS) for node in request.config.stash[COLLECTED]}
    wrong = mutants.misfits(known)
    assert not wrong, '\n'.join(wrong)


def test_what_does_not_fit_is_told(monkeypatch):
    """A text that is gone or stands there twice; a file or a test that is gone; no Python; twice the same."""
    one = mutants.Mutant(
        'one', 'fileops.py', 'def sync_folder', 'def sync_dir', 'test_mutants_fit.py::test_none'
    )
    there = 'test_mutants_fit.py::test_each_mutant_fits_the_code'
    two = one._replace(test=there)
    wrong = {
        'there is no test': [one],
        'it is there already': [two, two],
        'stands there 0 times': [two._replace(old='never written')],
        'times, not once': [two._replace(old='import')],
        'there is no such file': [two._replace(file='gone.py')],
        'it is no Python': [two._replace(new='def )')],
    }
    for words, listed in wrong.items():
        monkeypatch.setattr(mutants, 'MUTANTS', {'part': listed})
        found = mutants.misfits({there})
        assert len(found) == 1, found
        assert words in found[0]
    monkeypatch.setattr(mutants, 'MUTANTS', {'part': [two]})
    assert mutants.misfits({there}) == []
