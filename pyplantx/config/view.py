"""What a reactor gets: a read-only object that looks like the config and notes every read.

A view does not inherit from the config's class; it says that it is of that class (``__class__``), so
that ``isinstance`` holds, while whatever looks past the view finds nothing rather than something that was not noted.
Each first read goes through ``__getattr__`` and is kept in the view's real instance dict, so that later
ones cost as much as a plain attribute.
"""

from __future__ import annotations

from collections.abc import Callable, ItemsView, Iterator, KeysView, Mapping, ValuesView
from functools import lru_cache
from types import FunctionType
from typing import Any, NoReturn, Protocol, cast

from pyplantx.config.copies import private_copy
from pyplantx.config.kinds import (
    ABSENT,
    CODE,
    FAILED,
    FIELD_LISTS,
    LEAF,
    MAPPING,
    OBJECT,
    class_attribute,
    is_argparse,
    is_dunder,
    is_omegaconf,
    protocols,
)
from pyplantx.config.messages import not_an_attribute, refused
from pyplantx.config.node import Node
from pyplantx.errors import ReadOnlyConfig, UnknownParameter


class Reads(Protocol):
    """What views need from the run that they belong to."""

    def note(self, node: Node, mode: str) -> None:
        """Record today's answer to a question about a node."""

    def take(self, node: Node) -> Any:
        """Note the read of a place and give what is there."""

    def whole(self, group: Node) -> Any:
        """The run's private copy of a group."""

    def attributes(self, group: Node, view: ConfigView) -> dict[str, Any]:
        """What ``vars(view)`` is."""


class _Nothing:
    """Marks a default that was not given."""


NOTHING = _Nothing()

#: What such a place gives is the same at each read of a run.
HELD = frozenset((LEAF, OBJECT, MAPPING))


class _Holder:
    __slots__ = ("run_and_node",)


# The state of a view: reached by the descriptor alone, so that every attribute name is the user's.
_STATE: Callable[[Any], tuple[Reads, Node]] = _Holder.__dict__["run_and_node"].__get__
_SET_STATE = _Holder.__dict__["run_and_node"].__set__
del _Holder.run_and_node  # type: ignore[attr-defined]


class _ViewType(type):
    """Class of the view classes: what is asked of them would not be noted, so there is nothing."""

    def __getattr__(cls, name: str) -> NoReturn:
        raise UnknownParameter(
            f"type(config) has no attribute {name!r}: it is the class of a recording view",
            hint=f"config.{name}, or config.__class__ for the config's own class",
        )

    def __call__(cls, *args: object, **kwargs: object) -> NoReturn:
        raise ReadOnlyConfig(
            "type(config)(...) would make a recording view", hint="config.__class__(...) makes a config"
        )


class ConfigView(_Holder, metaclass=_ViewType):
    # Recording, read-only stand-in of a group of parameters that is read by attribute. (No docstring: the
    # config's own is found under that name.)

    def __getattr__(self, name: str) -> Any:
        run, group = _STATE(self)
        node = group.child(name)
        value = run.take(node)
        if node.kind in HELD or node.kind == CODE and not isinstance(node.value, property):
            object.__setattr__(self, name, value)
        return value

    def __setattr__(self, name: str, value: object) -> NoReturn:
        _refuse(self, name)

    def __delattr__(self, name: str) -> NoReturn:
        _refuse(self, name)

    @property
    def __class__(self) -> Any:
        run, group = _STATE(self)
        run.note(group, "class")
        return type(group.value)

    @__class__.setter
    def __class__(self, value: object) -> NoReturn:
        _refuse(self, "__class__")

    @property
    def __dict__(self) -> Any:  # type: ignore[override]
        run, group = _STATE(self)
        return run.attributes(group, self) if group.kind == OBJECT else run.whole(group).__dict__

    @property
    def __doc__(self) -> Any:  # type: ignore[override]
        return _take(self, "__doc__")

    @property
    def __module__(self) -> Any:  # type: ignore[override]
        return _take(self, "__module__")

    def __dir__(self) -> list[str]:
        return dir(_whole(self))

    def __repr__(self) -> str:
        return cast(str, _special(self, "__repr__"))

    def __str__(self) -> str:
        return cast(str, _special(self, "__str__"))

    def __format__(self, spec: str) -> str:
        return cast(str, _special(self, "__format__", spec))

    def __eq__(self, other: object) -> Any:
        return _special(self, "__eq__", other)

    def __ne__(self, other: object) -> Any:
        return _special(self, "__ne__", other)

    def __lt__(self, other: object) -> Any:
        return _special(self, "__lt__", other)

    def __le__(self, other: object) -> Any:
        return _special(self, "__le__", other)

    def __gt__(self, other: object) -> Any:
        return _special(self, "__gt__", other)

    def __ge__(self, other: object) -> Any:
        return _special(self, "__ge__", other)

    def __hash__(self) -> int:
        run, group = _STATE(self)
        owner, definition = class_attribute(type(group.value), "__hash__") or (object, None)
        if owner is object:
            return object.__hash__(self)  # identity: it tells nothing about the config
        if definition is None:
            run.note(group, "class")
            raise TypeError(f"unhashable type: {type(group.value).__name__!r}")
        return cast(int, _special(self, "__hash__"))

    def __bool__(self) -> bool:
        run, group = _STATE(self)
        for name in ("__bool__", "__len__"):
            node = group.child(name)
            run.note(node, "value")
            if node.kind != ABSENT:
                return bool(_special(self, name))
        return True

    def __sizeof__(self) -> int:
        return cast(int, _special(self, "__sizeof__"))

    def __copy__(self) -> Any:
        return _fresh(self)

    def __deepcopy__(self, memo: object) -> Any:
        return _fresh(self)

    def __reduce_ex__(self, protocol: Any) -> Any:
        return _fresh(self).__reduce_ex__(protocol)

    def __reduce__(self) -> Any:
        return _fresh(self).__reduce__()

    def __getstate__(self) -> Any:
        return _fresh(self).__getstate__()


class MappingConfigView(ConfigView):
    # Recording, read-only stand-in of a group of parameters that is read by key.

    __doc__ = vars(ConfigView)["__doc__"]
    __module__ = vars(ConfigView)["__module__"]

    def __getattr__(self, name: str) -> Any:
        run, group = _STATE(self)
        if type(group.value) is not dict and not is_dunder(name) and _is_item(run, group, name):
            return run.take(group.child(name))
        if hasattr(group.value, name):
            return getattr(run.whole(group), name)
        run.note(group.child(name), "value")
        raise not_an_attribute(group, name)

    def __getitem__(self, key: Any) -> Any:
        run, group = _STATE(self)
        if isinstance(key, (str, int)):
            return run.take(group.child(key))
        return run.whole(group)[key]

    def __contains__(self, key: Any) -> bool:
        return _contains(self, key)

    def get(self, key: Any, default: Any = None) -> Any:
        """The item, or `default`; its absence is noted too."""
        try:
            return self[key]
        except KeyError:
            return default

    def __iter__(self) -> Iterator[Any]:
        run, group = _STATE(self)
        run.note(group, "keys")
        return iter(group.names())

    def __reversed__(self) -> Iterator[Any]:
        return iter(list(self)[::-1])

    def __len__(self) -> int:
        run, group = _STATE(self)
        run.note(group, "len")
        return len(group.names())

    def __bool__(self) -> bool:
        return len(self) > 0

    def keys(self) -> KeysView[Any]:
        """The keys, as of a mapping."""
        return KeysView(cast(Any, self))

    def values(self) -> ValuesView[Any]:
        """The values, as of a mapping; each one that is looked at is noted."""
        return ValuesView(cast(Any, self))

    def items(self) -> ItemsView[Any, Any]:
        """The items, as of a mapping; each one that is looked at is noted."""
        return ItemsView(cast(Any, self))

    def copy(self) -> Any:
        """A plain copy that the reactor may change."""
        return _fresh(self)

    def __or__(self, other: Any) -> Any:
        return _special(self, "__or__", other)

    def __ror__(self, other: Any) -> Any:
        return _special(self, "__ror__", other)

    def _refuse_change(self, *args: object, **kwargs: object) -> NoReturn:
        _refuse(self, args[0] if args else "")

    __setitem__ = __delitem__ = __ior__ = _refuse_change
    pop = popitem = clear = update = setdefault = _refuse_change


Mapping.register(MappingConfigView)  # for `match`; isinstance asks for __class__


def _is_item(run: Reads, group: Node, name: str) -> bool:
    """Whether the attribute `name` of a mapping (an attribute dict) is its item of that name."""
    item = group.child(name)
    if item.kind in (ABSENT, FAILED) or class_attribute(type(group.value), name) is not None:
        return False
    if is_omegaconf(type(group.value), "DictConfig"):
        return True  # though not the very same object: lists are converted, interpolations computed anew
    run.note(group, "class")  # it decides how attributes are found
    return getattr(group.value, name, NOTHING) is item.value


def _take(view: ConfigView, name: str) -> Any:
    run, group = _STATE(view)
    if group.kind == OBJECT:
        return run.take(group.child(name))
    run.note(group, "class")
    return getattr(group.value, name)


def _whole(view: ConfigView) -> Any:
    run, group = _STATE(view)
    return run.whole(group)


def _fresh(view: ConfigView) -> Any:
    """A copy that the reactor may do with as it likes."""
    run, group = _STATE(view)
    run.note(group, "whole")
    return private_copy(group.value)


def _plain(value: Any) -> Any:
    """What a view stands for, as a whole; anything else as it is."""
    return _whole(value) if type(type(value)) is _ViewType else value


def _special(view: ConfigView, name: str, *args: Any, **kwargs: Any) -> Any:
    """Run a special method: one that the user's class defines, on the view; any other, on a copy."""
    run, group = _STATE(view)
    if name == "__contains__" and is_argparse(type(group.value)):
        return _contains(view, *args)
    node = group.child(name) if group.kind == OBJECT and name not in _ON_A_COPY else None
    if node is not None and node.kind == CODE and isinstance(node.value, FunctionType):
        run.note(node, "value")
        return node.value(view, *args, **kwargs)
    whole = run.whole(group)
    return getattr(type(whole), name)(whole, *map(_plain, args), **kwargs)


# Generated by dataclasses and attrs, and free to ask for the exact class: these see a real object.
_ON_A_COPY = frozenset(
    "__repr__ __str__ __format__ __eq__ __ne__ __hash__ __lt__ __le__ __gt__ __ge__ __sizeof__".split()
)


def _refuse(view: ConfigView, name: object) -> NoReturn:
    _, group = _STATE(view)
    path = (*group.path, name) if isinstance(name, (str, int)) and name != "" else group.path
    raise refused(path)


def new_view(run: Reads, node: Node) -> ConfigView:
    """A view of the group at `node`, whose reads are noted by `run`."""
    cls = MappingConfigView if node.kind == MAPPING else _view_class(protocols(type(node.value)))
    view = object.__new__(cls)
    _SET_STATE(view, (run, node))
    return view


@lru_cache(maxsize=256)
def _view_class(names: tuple[str, ...]) -> type[ConfigView]:
    """`ConfigView` with special methods of these names: Python looks for them on the class alone."""
    members: dict[str, Any] = {name: vars(ConfigView)[name] for name in ("__doc__", "__module__")}
    for name in names:
        members[name] = _FieldList(name) if name in FIELD_LISTS else _forward(name)
    return cast("type[ConfigView]", type.__call__(_ViewType, ConfigView.__name__, (ConfigView,), members))


def _contains(view: ConfigView, name: Any) -> bool:
    """``name in view``, where that asks for a parameter of that name; noting that alone."""
    run, group = _STATE(view)
    if not isinstance(name, (str, int)):
        return name in run.whole(group)
    child = group.child(name)
    run.note(child, "has")
    return child.kind != ABSENT


def _forward(name: str) -> Callable[..., Any]:
    def special(view: ConfigView, *args: Any, **kwargs: Any) -> Any:
        return _special(view, name, *args, **kwargs)

    return special


class _FieldList:
    """The fields of a dataclass or attrs class: there for who asks whether it is one, noted when read."""

    def __init__(self, name: str) -> None:
        self._name = name

    def __get__(self, view: ConfigView | None, owner: type) -> Any:
        return self if view is None else _take(view, self._name)
