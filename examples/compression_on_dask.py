"""How well does Python's own library compress? One resource per source file, on a Dask cluster.

    python examples/compression_on_dask.py [BASE] [ADDRESS]

ADDRESS is that of a Dask scheduler, such as tcp://127.0.0.1:8786, whose workers see BASE under the same
path; without one, a scheduler and two workers are started on this machine for as long as it takes.
Needs ``pip install 'hadrosaur[dask]'``. Each file is compressed in three ways, which takes long enough
to be worth a cluster; run it again, and nothing is computed.
"""

import bz2
import lzma
import os
import sys
import sysconfig
import zlib
from pathlib import Path

from distributed import Client, LocalCluster

from hadrosaur import Project

BASE = Path(sys.argv[1] if len(sys.argv) > 1 else Path(__file__).parent.parent / 'demo-dask')
LIBRARY = Path(sysconfig.get_path('stdlib'))
WAYS = {'zlib': zlib.compress, 'bz2': bz2.compress, 'lzma': lzma.compress}

proj = Project(os.path.relpath(BASE))


@proj.resource('compression', timeout=60, retries=1)
def compression(ident, args, subdir):
    """Bytes of one source file, as it is and compressed in each way."""
    data = Path(args['library'], ident).read_bytes()
    sizes = {'plain': len(data), **{name: len(compress(data)) for name, compress in WAYS.items()}}
    print(f'{ident}: {sizes}')
    return sizes


def main(client):
    """Compress what is not yet compressed, and print the sums."""
    modules = (path.name for path in sorted(LIBRARY.glob('*.py')))
    batch = proj.fetch_many('compression', modules, {'library': str(LIBRARY)}, executor=client, progress=True)
    sums = dict.fromkeys(['plain', *WAYS], 0)
    for resource in batch:
        if resource.status == 'completed':
            for name, size in resource['result'].items():
                sums[name] += size
    hosts = {entry.pid for entry in proj.query('compression', status='completed')}
    print(f'{batch.counts.completed} modules, {batch.counts.error} failed, by {len(hosts)} processes')
    for name, size in sums.items():
        print(f'  {name:6}{size:12,} bytes  {size / max(1, sums["plain"]):5.0%}')


if __name__ == '__main__':  # for LocalCluster, whose workers import this file; hadrosaur needs none
    if len(sys.argv) > 2:
        with Client(sys.argv[2], timeout=10) as client:
            main(client)
    else:
        local = LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address=None)
        with local as cluster, Client(cluster) as client:
            main(client)
