"""Out-of-core function pipelines that re-run exactly what an edit touches.

>>> from pyplantx import *
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
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

#: Public name -> the module that it is in; the others are modules themselves. Each is imported when it is first used: a
#: module that only decorates reactors is spared the plant, which takes thirty milliseconds.
_HOMES = {
    "ConfigBase": "config",
    "ConfigValue": "config",
    "Ingredient": "ingredient",
    "Pipework": "pipework",
    "Plant": "plant",
    "ReactorFunc": "reactor",
    "SubreactorFunc": "reactor",
    "tracked": "fingerprint",
    "untracked": "fingerprint",
}


def __getattr__(name: str) -> Any:
    from importlib import import_module

    room = f"{__name__}.{_HOMES.get(name, name)}"
    try:
        home = import_module(room)
    except ModuleNotFoundError as error:
        if error.name != room:
            raise
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}") from None
    value = getattr(home, name) if name in _HOMES else home
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
