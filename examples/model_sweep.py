"""A sweep over 288 nearest-neighbour models of handwritten digits; about a third of the combinations fail.

    pip install scikit-learn pandas
    python examples/model_sweep.py [BASE]             compute, show the best models and the groups of failures
    python examples/model_sweep.py [BASE] --brute     retry the largest group with the corrected function

The grid gives the idents, the index sorts by score, and failures are retried by group, so the program has no
loop over idents. A second run computes only what failed.
"""

import os
import sys
from pathlib import Path

from hadrosaur import Project, grid

words = [word for word in sys.argv[1:] if not word.startswith('-')]
BASE = Path(words[0] if words else Path(__file__).parent.parent / 'demo' / 'sweep')
BRUTE = '--brute' in sys.argv  # the tree algorithms do not support every metric; brute force does

proj = Project(os.path.relpath(BASE))


def load():
    """Training and test images with their labels; called once in each worker."""
    from sklearn.datasets import load_digits
    from sklearn.model_selection import train_test_split

    images, labels = load_digits(return_X_y=True)
    return train_test_split(images, labels, train_size=600, test_size=300, random_state=0)


@proj.resource('fits', setup=load, columns={'score': 'result.score'})
def fit(ident, args, subdir):
    """Return the accuracy of one model on the test images."""
    from sklearn.neighbors import KNeighborsClassifier

    import hadrosaur

    images, others, labels, truth = hadrosaur.current().setup
    if BRUTE:
        args = {**args, 'algorithm': 'brute'}
    model = KNeighborsClassifier(**args).fit(images, labels)
    return {'score': round(model.score(others, truth), 4)}


GRID = grid(
    algorithm=['ball_tree', 'kd_tree', 'brute'],
    metric=['euclidean', 'manhattan', 'chebyshev', 'canberra', 'cosine', 'correlation'],
    n_neighbors=[0, 1, 2, 3, 4, 6, 9, 15],
    weights=['uniform', 'distance'],
)

if __name__ == '__main__':
    causes = proj.error_groups('fits') if BRUTE else []
    wanted = proj.query('fits', error_group=causes[0].group) if causes else GRID
    counts = proj.fetch_many('fits', wanted, workers=2, progress=True).wait()
    print(f'{counts.total} models: {counts.completed} completed, {counts.error} failed\n')
    print(proj.query('fits', order_by='-score', limit=5).to_pandas(results=['score'])[['ident', 'score']])
    print()
    for cause in proj.error_groups('fits'):
        print(f'{cause.count:4} {cause.type}: {cause.pattern}')
