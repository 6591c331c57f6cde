"""First on the path of programs that tests start with HADROSAUR_TEST_LOCK=file: no disk is known to be local.

So they lock files, as on a file system that several machines share.
"""

import importlib.machinery
import sys


class _Finder:
    """Finds hadrosaur.mounts as ever, and changes it once it is loaded."""

    @staticmethod
    def find_spec(name, path=None, target=None):
        if name != 'hadrosaur.mounts':
            return None
        spec = importlib.machinery.PathFinder.find_spec(name, path)
        load = spec.loader.exec_module

        def exec_module(module):
            load(module)
            module.LOCAL = frozenset()

        spec.loader.exec_module = exec_module
        return spec


sys.meta_path.insert(0, _Finder)
