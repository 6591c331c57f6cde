"""Draw spirographs: one picture for each pair of wheels, and what one sees of it in a browser.

    python examples/spirographs.py [BASE]
    hadrosaur web BASE --app examples/spirographs.py:proj

Each resource leaves a picture in its storage and tells its length in its log, in colour. Wheels that do not
fit fail, in two ways; there is something to look at on every page.
"""

import math
import os
import sys
import time
from pathlib import Path

from hadrosaur import Project, current

BASE = os.environ.get('SPIROGRAPHS') or Path(__file__).parent.parent / 'demo/spirographs'
proj = Project(sys.argv[1] if __name__ == '__main__' and len(sys.argv) > 1 else BASE)


@proj.resource('spirographs', columns={'length': 'result.length', 'turns': 'result.turns'}, keep_attempts=3)
def spirograph(ident, args, subdir):
    """A pen at distance ``pen`` in a wheel of ``small`` teeth that rolls in a ring of ``ring`` teeth."""
    ring, small, pen = args['ring'], args['small'], args['pen']
    print(f'\x1b[1m{ident}\x1b[0m: ring {ring}, wheel {small}, pen at {pen}')
    if small >= ring:
        raise ValueError(f'a wheel of {small} teeth does not fit into a ring of {ring}')
    turns = math.lcm(ring, small) // ring
    if turns > 60:
        print(f'\x1b[33mgives up: {turns} turns are too many\x1b[0m', file=sys.stderr)
        raise TimeoutError(f'it takes {turns} turns until the curve closes')
    points = [point(ring, small, pen, step * math.tau / 90) for step in range(turns * 90 + 1)]
    length = sum(map(math.dist, points, points[1:]))
    hue = 360 * pen // small % 360
    Path(subdir, 'spirograph.svg').write_text(picture(points, ring, hue), encoding='utf-8')
    Path(subdir, 'points.csv').write_text('x,y\n' + ''.join(f'{x:.2f},{y:.2f}\n' for x, y in points[:200]))
    print(f'{turns} turns, \x1b[32mlength {length:.0f}\x1b[0m')
    return {'length': round(length, 1), 'turns': turns, 'box': {'points': len(points), 'hue': hue}}


def point(ring, small, pen, angle):
    """Where the pen is when the wheel stands at an angle."""
    inner = ring - small
    x = inner * math.cos(angle) + pen * math.cos(inner / small * angle)
    return x, inner * math.sin(angle) - pen * math.sin(inner / small * angle)


def picture(points, size, hue):
    """An SVG of the curve."""
    line = ' '.join(f'{x:.1f},{y:.1f}' for x, y in points)
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="{-size} {-size} {2 * size} {2 * size}">'
        f'<polyline points="{line}" fill="none" stroke="hsl({hue} 55% 45%)" stroke-width="{size / 90:.2f}"/>'
        '</svg>'
    )


@proj.resource('posters')
def poster(ident, args, subdir):
    """Takes its time, and says how far it is."""
    for step in range(args['steps']):
        current().progress(step / args['steps'], f'sheet {step + 1} of {args["steps"]}')
        print(f'sheet {step + 1}: \x1b[36m{"#" * (step % 40)}\x1b[0m', flush=True)
        time.sleep(0.1)
    return {'sheets': args['steps']}


WHEELS = {
    f'{ring}-{small}-{pen}': {'ring': ring, 'small': small, 'pen': pen}
    for ring in (96, 105, 144, 150)
    for small in (24, 30, 36, 40, 45, 52, 63, 75, 97, 110)
    for pen in range(8, small, 11)
}

if __name__ == '__main__':
    for _ in proj.fetch_many('spirographs', WHEELS, progress=True):
        pass
    counts = proj.fetch_many('spirographs', WHEELS, retry_errors=True).wait()  # what failed has two attempts
    posters = proj.fetch_many('posters', {f'poster-{n}': {'steps': 3 + n} for n in range(4)}).wait()
    print(f'{counts.total} spirographs, {counts.error} failed; {posters.total} posters')
    for group in proj.error_groups('spirographs'):
        print(f'  {group.count:4} {group.type}: {group.pattern}')
    print(f'look at them: hadrosaur web {proj.base}')
