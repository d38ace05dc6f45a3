"""Identity of causes: values and code.

``value.py`` hashes bytes and values, ``code.py`` fingerprints functions and what they refer to. Users need
the three decorators only (``levers.py``).
"""

from __future__ import annotations

from pyplantx.fingerprint.levers import tracked, untracked
from pyplantx.fingerprint.value import register

__all__ = ["register", "tracked", "untracked"]
