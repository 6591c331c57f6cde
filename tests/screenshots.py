"""Pictures of the page for docs/pictures, taken of examples/spirographs.py: ``make screenshots``.

Needs Debian's Chromium. Each picture is of one address, in one width and one theme.
"""

import contextlib
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from page import BROWSER, FLAGS, served
from playwright.sync_api import sync_playwright

from hadrosaur import Project

ROOT = Path(__file__).resolve().parent.parent
TARGET = ROOT / 'docs/pictures'
FAILED = '150-97-96'
SHOTS = {
    'overview': ('/', 1280, 620, 'light'),
    'collection': ('/c/spirographs?args=ring>100&sort=-length', 1280, 860, 'light'),
    'collection-dark': ('/c/spirographs?args=ring>100&sort=-length', 1280, 860, 'dark'),
    'causes': ('/c/spirographs/errors', 1280, 480, 'light'),
    'resource': (f'/c/spirographs/r/{FAILED}?compare=1..2', 1280, 860, 'light'),
    'files': ('/c/spirographs/r/150-52-41', 1280, 720, 'dark'),
    'gallery': ('/c/spirographs/gallery?status=completed', 1280, 470, 'light'),
    'live': ('/c/posters/r/poster-9', 1280, 560, 'dark'),
    'running': ('/running', 1280, 260, 'light'),
    'timeline': ('/timeline', 1280, 300, 'light'),
    'phone': ('/c/spirographs', 390, 780, 'light'),
    'phone-dark': (f'/c/spirographs/r/{FAILED}', 390, 780, 'dark'),
}
LONG = """
import spirographs
steps = {'poster-8': {'steps': 900}, 'poster-9': {'steps': 700}}
spirographs.proj.fetch_many('posters', steps, workers=2).wait()
"""


def main():
    """Take all pictures, or those that are named."""
    TARGET.mkdir(exist_ok=True)
    with contextlib.ExitStack() as stack:
        folder = Path(tempfile.gettempdir(), 'example')  # its name is in the pictures
        folder.mkdir()
        stack.callback(shutil.rmtree, folder)
        base = folder / 'demo'
        program = shutil.copy(ROOT / 'examples/spirographs.py', folder)
        subprocess.run([sys.executable, program, base], check=True, stderr=subprocess.DEVNULL)
        os.chdir(folder)
        environment = {**os.environ, 'PYTHONPATH': f'{folder}:{ROOT}', 'SPIROGRAPHS': str(base)}
        runs = subprocess.Popen([sys.executable, '-c', LONG], env=environment, stderr=subprocess.DEVNULL)
        stack.callback(runs.wait)
        stack.callback(runs.terminate)
        project = stack.enter_context(Project('demo', create=False))
        address = stack.enter_context(served(project))
        browser = stack.enter_context(sync_playwright()).chromium.launch(executable_path=BROWSER, args=FLAGS)
        stack.callback(browser.close)
        for name in sys.argv[1:] or SHOTS:
            take(browser, address, name, *SHOTS[name])


def take(browser, address, name, path, width, height, theme):
    """One picture."""
    root, _, token = address.partition('?')
    context = browser.new_context(viewport={'width': width, 'height': height}, color_scheme=theme)
    page = context.new_page()
    page.goto(f'{root}running?{token}')
    page.wait_for_function('document.querySelectorAll("progress").length > 1 || location.reload()')
    page.goto(root.rstrip('/') + path)
    page.evaluate(
        'Promise.all([...document.images].map((image) => (image.loading = "eager", image.decode())))'
    )
    page.wait_for_timeout(300)
    page.screenshot(path=TARGET / f'{name}.png')
    print(f'{name}.png', (TARGET / f'{name}.png').stat().st_size // 1000, 'kB')
    context.close()


if __name__ == '__main__':
    main()
