"""The page: what can be told of its looks without looking."""

import re

import pytest
from conftest import ROOT

STATIC = ROOT / 'hadrosaur/web/static'
STYLE = (STATIC / 'page.css').read_text('utf-8')


def colours(theme):
    """The colours of a theme by name; what the dark one leaves out is as in the light one."""
    blocks = re.findall(r':root \{(.*?)\}', STYLE, re.DOTALL)
    found = {}
    for block in blocks[: 1 if theme == 'light' else 2]:
        found.update(re.findall(r'--(\w+): (#[0-9a-f]{6})', block))
    return found


def luminance(colour):
    """Of WCAG 2: how light a colour is."""
    parts = [int(colour[place : place + 2], 16) / 255 for place in (1, 3, 5)]
    red, green, blue = (
        part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts
    )
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


@pytest.mark.parametrize('theme', ['light', 'dark'])
@pytest.mark.parametrize('text', ['text', 'dim', 'link', 'ok', 'bad', 'run'])
@pytest.mark.parametrize('ground', ['bg', 'card', 'soft'])
def test_text_stands_out(theme, text, ground):
    """Each colour of text has the contrast that WCAG AA asks for, on each ground, in both themes."""
    found = colours(theme)
    light, dark = sorted((luminance(found[text]), luminance(found[ground])), reverse=True)

    assert (light + 0.05) / (dark + 0.05) >= 4.5


def test_style_and_script_are_ours_and_short():
    """Under 400 lines together, and nothing in them comes from elsewhere."""
    script = (STATIC / 'page.js').read_text('utf-8')

    assert len(STYLE.splitlines()) + len(script.splitlines()) < 400
    assert '//' not in re.sub(r'^\s*//.*$', '', script, flags=re.MULTILINE)
    assert 'url(' not in STYLE
    assert '@import' not in STYLE
