"""An inline run leaves nothing changed in the user's own process, and our threads never count as others."""

import pytest

PROGRAM = """
        import json, os, resource, signal, subprocess, sys, threading, time, warnings
        from pathlib import Path
        from hadrosaur import Project

        proj = Project('base')

        @proj.resource('c')
        def compute(ident, args, subdir):
            print('printed')
            subprocess.run(['echo', 'of a subprocess'])
            warnings.warn('look out')
            if ident == 'fails':
                raise ValueError(ident)

        def way(ident):
            return json.loads(Path('base', 'c', ident, 'record.json').read_text())['capture']
"""


@pytest.mark.parametrize('way', ['descriptors', 'streams'])
def test_an_inline_run_leaves_nothing_changed(program, way):
    """Peak memory, threads' start, warning filters, streams, masks and folders are as they were before."""
    program(
        PROGRAM
        + """
        def state():
            umask = os.umask(0)
            os.umask(umask)
            peak = Path('/proc/self/status').read_text().split('VmHWM:')[1].split()[0]
            return {
                'Thread.start': threading.Thread.start, 'excepthook': (sys.excepthook, threading.excepthook),
                'filters': list(warnings.filters), 'showwarning': warnings.showwarning,
                'streams': (sys.stdout, sys.stderr, sys.stdin),
                'descriptors': [os.fstat(n)[:3] for n in range(3)],
                'signals': signal.pthread_sigmask(signal.SIG_BLOCK, ()), 'umask': umask, 'cwd': os.getcwd(),
                'handlers': [signal.getsignal(n) for n in signal.valid_signals()],
                'environ': dict(os.environ),
                'hooks': (threading.getprofile(), threading.gettrace(), sys.getprofile(), sys.gettrace()),
                'most memory': resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, 'peak': int(peak),
            }

        stop = threading.Event()
        if sys.argv[1] == 'streams':
            threading.Thread(target=stop.wait).start()
        filters, listed = warnings.filters, list(warnings.filters)
        proj.fetch('c', 'warm')
        large = bytearray(200_000_000)
        large[::4096] = b'1' * len(large[::4096])
        del large
        before = state()
        for ident in ('a', 'b', 'fails', 'fails'):
            proj.fetch('c', ident)
        proj.fetch_many('c', ['d', 'e'], executor='inline').wait()
        after = state()
        stop.set()
        assert way('a') == sys.argv[1], way('a')
        changed = {name: (before[name], after[name]) for name in before if before[name] != after[name]}
        assert not changed, changed
        assert warnings.filters is filters
        assert warnings.filters == listed
        assert proj.query(ident='a')[0].max_rss is None  # it stayed below what the process had reached before
        proj.close()
        """,
        way,
    )


def test_the_peak_of_a_hungry_inline_run_is_known(program):
    """Without being reset, the peak of the process tells of a run that raises it."""
    program(
        PROGRAM
        + """
        import resource
        from hadrosaur.metrics import _UNIT

        @proj.resource('hungry')
        def hungry(ident, args, subdir):
            return len(bytearray(args['size']))

        # The peak of whoever exec'd this program counts as its own.
        size = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * _UNIT + 100_000_000
        proj.fetch('hungry', 'a', {'size': size})
        assert proj.query('hungry')[0].max_rss > size
        proj.close()
        """
    )


@pytest.mark.parametrize('what', ['background', 'batch'])
def test_our_own_threads_do_not_change_how_output_is_captured(program, what):
    """While background work or a batch of ours goes on, an inline run is captured by descriptors."""
    program(
        PROGRAM
        + """
        @proj.resource('other')
        def other(ident, args, subdir):
            while not os.path.exists('go'):
                time.sleep(0.01)

        if sys.argv[1] == 'background':
            proj.fetch('other', 'a', background=True)
        else:
            batch = proj.fetch_many('other', ['done', 'a', 'b'], workers=1)
            Path('go').touch()
            next(batch)
            Path('go').unlink()
        assert threading.active_count() > 1
        proj.fetch('c', 'inline')
        Path('go').touch()
        assert way('inline') == 'descriptors', way('inline')
        assert Path('base/c/inline/stdout.log').read_text() == 'printed\\nof a subprocess\\n'
        proj.close(cancel=True)
        """,
        what,
    )


def test_threads_of_other_people_do(program):
    """Where somebody else's thread could print, its output is not taken: streams are used."""
    program(
        PROGRAM
        + """
        proj.fetch('c', 'background', background=True).wait()
        stop = threading.Event()
        threading.Thread(target=stop.wait, name='hadrosaur of mine').start()
        proj.fetch('c', 'inline')
        stop.set()
        assert way('inline') == 'streams', way('inline')
        proj.close()
        """
    )
