"""Modules that somebody else has loaded: looked at, never imported."""

import sys
from typing import Any


def loaded(name: str) -> Any:
    """Return a module if it is loaded as a whole, else None: also while another thread is importing it."""
    module = sys.modules.get(name)
    return None if getattr(getattr(module, '__spec__', None), '_initializing', False) else module
