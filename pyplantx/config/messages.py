"""What people are told when a parameter is not there, or a reactor tried to change one."""

from __future__ import annotations

from functools import partial

from pyplantx.config.keys import Path, path_name
from pyplantx.config.kinds import ABSENT, GROUPS, is_dunder
from pyplantx.config.node import NoConfig, Node
from pyplantx.errors import ReadOnlyConfig, UnknownParameter, near_misses


def unknown(node: Node) -> UnknownParameter:
    """Nothing is at `node`, an absent one; what may have been meant is looked for by whoever reads it."""
    group = node.parent
    while group is not None and group.parent is not None and group.kind == ABSENT:
        node, group = group, group.parent
    if group is None or isinstance(group.value, NoConfig):
        return UnknownParameter(
            "no config has been set",
            hint="plant.set_config(config), before running reactors; PipeworkMock(config=config) in a test",
        )
    place = f" in {path_name(group.path)!r}" if group.path else ""
    message = f"the config has no parameter {node.path[-1]!r}{place}"
    return UnknownParameter(message, hint=partial(_suggestion, node, group))


def not_an_attribute(group: Node, name: str) -> UnknownParameter:
    """A mapping was asked for an attribute."""
    if group.child(name).kind != ABSENT:
        return UnknownParameter(f"config.{name}: this config is read by key", hint=f"config[{name!r}]")
    return unknown(group.child(name))


def refused(path: Path) -> ReadOnlyConfig:
    """A reactor tried to set or delete what is at `path`."""
    return ReadOnlyConfig(
        f"a reactor can't change {_named(path)}",
        hint="use a local variable, or copy.deepcopy(config) and change that; set parameters before running reactors",
    )


def altered(path: Path) -> ReadOnlyConfig:
    """A reactor altered the value at `path` in place."""
    return ReadOnlyConfig(
        f"the reactor changed {_named(path)}",
        hint="a config holds still while reactors run; change a copy of the value (copy.deepcopy)",
    )


def _named(path: Path) -> str:
    return f"config parameter {path_name(path)!r}" if path else "the config"


def _suggestion(node: Node, group: Node) -> str:
    if is_dunder(str(node.path[-1])):
        return ""
    names = list(group.value) if isinstance(group.value, dict) else group.all_names()
    near = near_misses(str(node.path[-1]), map(str, names))
    if near:
        return "did you mean " + " or ".join(near) + "?"
    inside = [f"{name}.{node.path[-1]}" for name in names if _has_inside(group, name, node.path[-1])]
    if inside:
        return "did you mean " + " or ".join(inside) + "?"
    return "parameters there: " + (", ".join(map(str, names[:20])) or "none") + (", ..." if len(names) > 20 else "")


def _has_inside(group: Node, name: object, wanted: str | int) -> bool:
    child = group.child(name) if isinstance(name, (str, int)) else None
    return child is not None and child.kind in GROUPS and wanted in child.all_names()
