"""Finalisers take no lock: the collector may run them in the hooks of a fork, which would wait for itself."""

import pytest

PROGRAM = """
    import faulthandler, gc, os, sys, tempfile, threading
    gc.disable()
    order, name = sys.argv[1:]
    faulthandler.dump_traceback_later(100, exit=True)
    armed = [False]

    def hook():
        if armed[0]:
            gc.collect()

    if order == 'first':
        os.register_at_fork(**{name: hook})
    import hadrosaur
    from hadrosaur import Project
    from hadrosaur.index import _pool, _query

    _query.WINDOW = _pool.CHUNK = 1  # rows that are read at a time: one that was begun is not yet done

    def project(name):
        proj = Project(f'{here}/{name}')
        proj.resource('c')(lambda ident, args, subdir: ident)
        for number in range(3):
            proj.fetch('c', f'{number}')
        proj.query()[:]
        return proj

    def forked():
        armed[0] = True
        pid = os.fork()
        if pid == 0:
            gc.collect()
            kept.fetch('c', f'of child {os.getpid()}')
            kept.query()[:]
            os._exit(0)
        armed[0] = False
        assert os.waitpid(pid, 0)[1] == 0
        assert kept.fetch('c', f'of child {pid}')['status']['completed']

    here = tempfile.mkdtemp()
    kept = project('kept')
    if order == 'last':
        os.register_at_fork(**{name: hook})

    for what in ('project', 'query', 'batch', 'background', 'threads'):
        cycle = [project(what)]
        stop, threads = threading.Event(), []
        if what == 'query':
            cycle.append(iter(cycle[0].query()))
            next(cycle[1]), next(cycle[1])
        elif what == 'batch':
            cycle.append(cycle[0].fetch_many('c', map(str, range(10_000, 20_000)), workers=1))
            next(cycle[1])
        elif what == 'background':
            cycle[0].fetch('c', 'background', background=True).wait()
        elif what == 'threads':
            def work():
                number = 0
                while not stop.is_set():
                    number += 1
                    kept.fetch('c', f'thread-{number}')

            threads = [threading.Thread(target=work) for _ in range(2)]
            for thread in threads:
                thread.start()
        cycle.append(cycle)
        del cycle
        forked()
        stop.set()
        for thread in threads:
            thread.join()
    gc.collect()
    kept.close()  # which waits for the end of batches that were dropped, and of what they held
    gc.collect()
    held = [os.readlink(entry.path) for entry in os.scandir('/proc/self/fd') if os.path.exists(entry.path)]
    held = [path.removeprefix(here) for path in held if path.startswith(here)]
    assert not [path for path in held if not path.startswith('/background/')], held
    os._exit(0)
"""


@pytest.mark.long
@pytest.mark.parametrize('hook', ['before', 'after_in_parent', 'after_in_child'])
@pytest.mark.parametrize('order', ['first', 'last'])
def test_a_fork_during_which_something_is_collected_returns(program, order, hook):
    """A dropped project, query or batch that is finalised in a hook of a fork holds up neither side."""
    program(PROGRAM, order, hook)
