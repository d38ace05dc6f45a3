"""The config of a plant: what users derive from, and the view that notes every read.

This package may know: config objects, paths into them, answers. It may not know: reactors, traces, the
store, how values are encoded (it is given that). docs/design/config.md tells the rules.

::

    base      ConfigBase, ConfigValue: what users write
    keys      the text of a recorded question, and its sentence
    kinds     group or single value? where does a class say so?
    copies    private copies of what is handed out
    node      one place in the config, and today's answers about it
    messages  what people are told
    view      what a reactor gets
    run       one `ConfigRun` per run of a reactor: notes, views, private copies
    source    `ConfigSource`, the plant's door
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from pyplantx.config.base import ConfigBase, ConfigValue

if TYPE_CHECKING:
    from pyplantx.config.run import ConfigRun, Recorder
    from pyplantx.config.source import ConfigSource


def __getattr__(name: str) -> Any:
    """The view and what belongs to it, imported by the first who reads a config: many programs have none."""
    import importlib

    room = {"ConfigRun": "run", "Recorder": "run", "ConfigSource": "source"}.get(name)
    if room is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{room}"), name)


__all__ = ["ConfigBase", "ConfigRun", "ConfigSource", "ConfigValue", "Recorder"]
