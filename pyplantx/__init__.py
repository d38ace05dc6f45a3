"""Out-of-core function pipelines that re-run exactly what an edit touches.

>>> from pyplantx import *
"""

from __future__ import annotations

from pyplantx import errors, fingerprint, specs, utils
from pyplantx.config import ConfigBase, ConfigValue
from pyplantx.fingerprint import tracked, untracked
from pyplantx.ingredient import Ingredient
from pyplantx.pipework import Pipework
from pyplantx.plant import Plant
from pyplantx.reactor import ReactorFunc, SubreactorFunc

__version__ = "0.1.0"

__all__ = [
    "ConfigBase",
    "ConfigValue",
    "Ingredient",
    "Pipework",
    "Plant",
    "ReactorFunc",
    "SubreactorFunc",
    "errors",
    "fingerprint",
    "specs",
    "tracked",
    "untracked",
    "utils",
]
