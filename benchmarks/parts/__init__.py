"""The parts, by name: import path of the function that runs one."""

PARTS = {
    'compute': 'computing:compute',
    'many': 'computing:many',
    'again': 'computing:again',
    'dask': 'on_dask:dask',
    'cached': 'cached:cached',
    'cached-many': 'cached:cached_many',
    'query': 'asking:query',
    'reindex': 'reindexing:reindex',
    'page': 'showing:page',
    'start': 'starting:start',
    'growth': 'growing:growth',
    'memory': 'remembering:memory',
}
