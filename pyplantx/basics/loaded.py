"""Classes of libraries that are not imported only to ask whether a value is one of theirs.

Who has such a value has imported its library. But who has another value may ask while a thread is importing it: then
the library is there, and its names are not yet.
"""

from __future__ import annotations

import sys
from typing import Any


def is_of(value: Any, library: str, *classes: str) -> bool:
    """Whether a value is an instance of one of a library's classes.

    Parameters
    ----------
    value : object
    library : str
        Name of the module.
    *classes : str
        Names in it.
    """
    module = sys.modules.get(library)
    if module is None:
        return False
    found = [getattr(module, name, None) for name in classes]
    return isinstance(value, tuple([one for one in found if isinstance(one, type)]))
