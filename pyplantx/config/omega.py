"""Lists of OmegaConf: each is one value, as in other configs, and what is in it is read as everywhere in OmegaConf."""

from __future__ import annotations

import re
import sys
from typing import Any

from pyplantx.config.kinds import is_omegaconf

_INTERPOLATION = re.compile(r"(\\*)\$\{")


def resolved(value: Any) -> Any:
    """A list of OmegaConf by itself, its interpolations made out; any other value as it is.

    A plain list, which every library takes, unless there are mappings in it: those are read by attribute, too.
    """
    if not is_omegaconf(type(value), "ListConfig"):
        return value
    omegaconf = sys.modules["omegaconf"].OmegaConf
    items = omegaconf.to_container(value, resolve=True)
    if not _holds_mapping(items):
        return items
    return omegaconf.create(_literal(items), flags={"allow_objects": True})


def plain(value: Any) -> Any:
    """What `resolved` has given, as built-in containers: what it is compared by."""
    if not is_omegaconf(type(value), "ListConfig"):
        return value
    return sys.modules["omegaconf"].OmegaConf.to_container(value, resolve=True)


def _holds_mapping(items: object) -> bool:
    if isinstance(items, list):
        return any(_holds_mapping(item) for item in items)
    return isinstance(items, dict)


def _literal(item: Any) -> Any:
    """`item`, its texts such that OmegaConf takes nothing in them for an interpolation."""
    if isinstance(item, str):
        return _INTERPOLATION.sub(r"\1\1\\${", item)
    if isinstance(item, list):
        return [_literal(part) for part in item]
    return {key: _literal(part) for key, part in item.items()} if isinstance(item, dict) else item
