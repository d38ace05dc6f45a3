"""Every kind of config under every kind of whole-object read: same result as on the plain config, never stale."""

from __future__ import annotations

import argparse
import copy
import dataclasses
import json
import pickle
import pprint
import re
from types import SimpleNamespace

import pytest
from config_tape import changed, record

from pyplantx.config import ConfigBase


class Base(ConfigBase):
    kind = "base"

    def __init__(self, **options):
        super().__init__()
        for name, value in options.items():
            setattr(self, name, value)


class Plain:
    def __init__(self, **options):
        self.__dict__.update(options)


class Speaking(Plain):
    """Defines special methods of its own."""

    def __repr__(self):
        return f"Speaking({self.a})"

    def __eq__(self, other):
        return isinstance(other, Speaking) and self.a == other.a

    def __hash__(self):
        return hash(self.a)

    def __len__(self):
        return len(self.items)

    def __iter__(self):
        return iter(self.items)

    def __contains__(self, item):
        return item in self.items

    def __getitem__(self, key):
        return getattr(self, key)

    def keys(self):
        return ["a", "items"]


class Slots:
    __slots__ = ("a", "items", "m", "lr", "new")

    def __init__(self, **options):
        for name, value in options.items():
            setattr(self, name, value)


@dataclasses.dataclass
class Data:
    a: object = None
    items: object = None
    m: object = None
    lr: object = None
    new: object = None


@dataclasses.dataclass(frozen=True, slots=True)
class Frozen:
    a: object = None
    items: object = None
    m: object = None
    lr: object = None
    new: object = None


@dataclasses.dataclass
class DataBase(ConfigBase):
    a: object = None
    items: object = None
    m: object = None
    lr: object = None
    new: object = None


KINDS = {
    "ConfigBase": Base,
    "plain": Plain,
    "speaking": Speaking,
    "slots": Slots,
    "dataclass": Data,
    "frozen dataclass with slots": Frozen,
    "dataclass of ConfigBase": DataBase,
    "SimpleNamespace": SimpleNamespace,
    "argparse": argparse.Namespace,
    "dict": dict,
}

try:
    import pydantic
except ImportError:
    pass
else:

    class Model(pydantic.BaseModel):
        model_config = pydantic.ConfigDict(extra="allow")
        a: object = None
        items: object = None
        m: object = None
        lr: object = None

    KINDS["pydantic"] = Model

MAPPINGS = (dict,)

try:
    import omegaconf
except ImportError:
    pass
else:
    MAPPINGS = (dict, omegaconf.DictConfig)
    KINDS["OmegaConf"] = lambda **options: omegaconf.OmegaConf.create(options)

try:
    import attrs
except ImportError:
    pass
else:
    KINDS["attrs"] = attrs.make_class(
        "Attrs", {name: attrs.field(default=None) for name in ("a", "items", "m", "lr", "new")}
    )


def build(make, *, a=1, items=(1, 2), lr=0.1, **more):
    return make(a=a, items=list(items), m=make(lr=lr), **more)


EDITS = [{"a": 2}, {"a": True}, {"items": (1, 3)}, {"items": (1, 2, 3)}, {"lr": 0.2}, {"new": 5}]

READS = {
    "repr": repr,
    "str": str,
    "format": lambda c: f"{c}",
    "percent": lambda c: "%s" % (c,),  # noqa: UP031
    "nested repr": lambda c: repr(c.m if not isinstance(c, dict) else c["m"]),
    "in a container": lambda c: repr([c]),
    "pprint": lambda c: pprint.pformat(c, width=1000),
    "vars": lambda c: vars(c) if not isinstance(c, MAPPINGS) else list(vars(c)),
    "vars of vars": lambda c: (
        not isinstance(c, MAPPINGS)
        and {name: vars(value) for name, value in vars(c).items() if hasattr(value, "__dict__")}
    ),
    "__dict__": lambda c: c.__dict__["a"],
    "dir": dir,
    "copy": lambda c: peek(copy.copy(c)),
    "deepcopy": lambda c: peek(copy.deepcopy(c)),
    "pickle": lambda c: peek(pickle.loads(pickle.dumps(c))),
    "pickle protocol 2": lambda c: peek(pickle.loads(pickle.dumps(c, protocol=2))),
    "equal to a copy": lambda c: c == copy.deepcopy(c),
    "equal to another": lambda c: [c == OTHER[type_of(c)], OTHER[type_of(c)] == c],
    "unequal": lambda c: c != OTHER[type_of(c)],
    "hash": lambda c: hash(c) if "__hash__" in vars(type_of(c)) else "by identity",
    "bool": bool,
    "len": len,
    "list": list,
    "sorted": lambda c: sorted(c, key=repr),
    "in": lambda c: ["a" in c, "new" in c, 2 in c],
    "unpacking": lambda c: {**c},
    "keyword arguments": lambda c: (lambda **options: options)(**c),
    "dict()": lambda c: dict(c),
    "items()": lambda c: [(name, repr(value)) for name, value in c.items()],
    "values()": lambda c: repr(list(c.values())),
    "keys()": lambda c: list(c.keys()),
    "json": json.dumps,
    "json of vars": lambda c: json.dumps(vars(c), default=vars),
    "json of dict": lambda c: json.dumps(dict(c), default=dict),
    "asdict": lambda c: dataclasses.asdict(c),
    "astuple": lambda c: dataclasses.astuple(c),
    "fields": lambda c: [field.name for field in dataclasses.fields(c)],
    "replace": lambda c: peek(dataclasses.replace(c, a=7)),
    "is_dataclass": dataclasses.is_dataclass,
    "attrs.asdict": lambda c: attrs.asdict(c),
    "model_dump": lambda c: c.model_dump(),
    "model_dump_json": lambda c: c.model_dump_json(),
    "model_copy": lambda c: peek(c.model_copy(update={"a": 3})),
    "model_fields_set": lambda c: sorted(c.model_fields_set),
    "to_container": lambda c: omegaconf.OmegaConf.to_container(c),
    "to_yaml": lambda c: omegaconf.OmegaConf.to_yaml(c),
    "class name": lambda c: c.__class__.__name__,
    "doc": lambda c: c.__doc__,
    "match": lambda c: matched(c),
    "dict union": lambda c: c | {"z": 1},
    "get": lambda c: [c.get("a"), c.get("new"), c.get("none", 4)],
    "reversed": lambda c: list(reversed(c)),
    "getattr": lambda c: [getattr(c, name, None) for name in ("a", "new", "none")],
    "_get_kwargs": lambda c: c._get_kwargs(),
}


def type_of(config):
    return config.__class__


def peek(config):
    """Something comparable about a copy that the program may do with as it likes."""
    return [config.__class__.__name__, repr(getattr(config, "a", None)), clean(repr(config))]


def matched(config):
    match config:
        case {"a": 1}:
            return "mapping, 1"
        case object(a=1, m=object(lr=0.1)):
            return "attributes, 1"
        case _:
            return "else"


FAILS = "fails"
# Encoders written in C look for a real dict; they fail loudly, and `dict(config)` helps.
MAY_FAIL = [(dict, READS["json"]), (dict, READS["to_yaml"])]
OTHER = {type(build(make)): build(make) for make in KINDS.values()}


def clean(value):
    """Without addresses; a view is shown as what it stands for."""
    return re.sub(r" at 0x[0-9a-f]+", "", value if isinstance(value, str) else repr(value))


def attempt(read, config):
    """The result, or the kind of failure."""
    try:
        return clean(read(config))
    except Exception:
        return FAILS


@pytest.mark.parametrize("read", READS.values(), ids=READS)
@pytest.mark.parametrize("make", KINDS.values(), ids=KINDS)
def test_same_result_and_never_stale(make, read):
    results = []
    tape = record(build(make), lambda c: results.append(attempt(read, c)))
    before = attempt(read, build(make))
    if (make, read) in MAY_FAIL:
        assert results == [FAILS]
        return
    assert results == [before] or before == FAILS
    assert changed(tape, build(make)) == []
    for edit in EDITS:
        if edit == {"new": 5} and make is KINDS.get("pydantic"):
            continue
        after = build(make, **edit)
        if attempt(read, after) != before:
            assert changed(tape, after), edit


@pytest.mark.parametrize("make", KINDS.values(), ids=KINDS)
def test_the_view_says_that_it_is_of_the_class(make):
    record(build(make), lambda c: isinstance(c, type(build(make))) or pytest.fail("not an instance"))


@pytest.mark.parametrize("make", KINDS.values(), ids=KINDS)
def test_one_parameter_is_one_dependency(make):
    read = lambda c: c.a if not isinstance(c, dict) else c["a"]
    tape = record(build(make), read)
    assert tape.keys() - {"class []"} == {"value a"}
    assert changed(tape, build(make, lr=9, items=(5,))) == []


@pytest.mark.parametrize("make", [m for n, m in KINDS.items() if n not in ("dict",)])
def test_nested_parameter_is_one_dependency(make):
    tape = record(build(make), lambda c: c.m.lr)
    assert tape.keys() == {"value m", "value m.lr"}
    assert changed(tape, build(make, a=9, items=(5,))) == []
    assert changed(tape, build(make, lr=9)) == ["value m.lr"]


def test_a_renamed_class_is_no_change_for_who_reads_parameters():
    class Renamed(Plain):
        pass

    tape = record(build(Plain), lambda c: (c.a, c.m.lr, vars(c), hasattr(c, "q")))
    assert changed(tape, build(Renamed)) == []


def test_the_fields_that_a_pydantic_model_was_given_are_noted():
    pydantic = pytest.importorskip("pydantic")

    class Inner(pydantic.BaseModel):
        x: int = 0

    class Options(pydantic.BaseModel):
        o: int = 1
        inner: Inner = Inner()

    for read in (
        lambda config: sorted(config.model_fields_set),
        lambda config: config.model_dump(exclude_unset=True),
        lambda config: sorted(config.__pydantic_fields_set__),
        lambda config: repr(config.model_copy().model_fields_set),
    ):
        tape = record(Options(), read)
        assert changed(tape, Options()) == []
        assert changed(tape, Options(o=1)) != []
    deep = record(Options(inner=Inner()), lambda config: config.model_dump(exclude_unset=True))
    assert changed(deep, Options(inner=Inner())) == []
    assert changed(deep, Options(inner=Inner(x=0))) != []
