"""Questions and today's answers: `ConfigSource` as replays and explanations use it."""

from __future__ import annotations

import enum
import threading
from concurrent.futures import ThreadPoolExecutor
from functools import cached_property
from types import SimpleNamespace as NS

import pytest
from config_tape import Tape, changed, code, encode, record, source
from hypothesis import given
from hypothesis import strategies as st

from pyplantx.config import ConfigBase, ConfigSource
from pyplantx.config.keys import MODES, describe_key, make_key, parse_key
from pyplantx.config.kinds import _FOR_ALL, LEAF, MAPPING, OBJECT, is_dunder, kind_of
from pyplantx.config.node import Node
from pyplantx.config.view import ConfigView
from pyplantx.core.trace import ABSENT
from pyplantx.errors import ReadOnlyConfig

# -- keys

parts = st.text() | st.text(st.characters(codec=None)) | st.integers()


@given(st.sampled_from(MODES), st.lists(parts).map(tuple))
def test_keys_round_trip(mode, path):
    key = make_key(mode, path)
    assert parse_key(key) == (mode, path)
    assert key.isprintable() and key.encode()


@given(st.lists(parts).map(tuple), st.lists(parts).map(tuple))
def test_different_places_have_different_keys(one, other):
    assert (make_key("value", one) == make_key("value", other)) == (one == other)


@pytest.mark.parametrize(
    ("key", "said"),
    [
        ("value lr", "lr"),
        ("value model.lr", "model.lr"),
        ("has z", "presence of z"),
        ("keys model", "keys of model"),
        ("len []", "number of keys of the config"),
        ("whole []", "all of the config"),
        ("class m", "class of m"),
        ('value ["a.b"]', '["a.b"]'),
        ("nonsense", "nonsense"),
    ],
)
def test_describe(key, said):
    assert source(None).describe(key) == describe_key(key) == said


# -- answers


@given(st.text() | st.builds("{} {}".format, st.sampled_from(MODES), st.text()))
def test_every_text_has_an_answer_that_equals_no_other(key):
    config = NS(a=1, m=NS(b=2))
    first, second = source(config).answer(key), source(config).answer(key)
    assert len(first[1]) <= 60 and first[1].isprintable()
    assert first[0] == ABSENT or len(first[0]) == 32
    if "can't be compared" in first[1]:
        assert first[0] != second[0]


def test_answers_show_the_value_shortly():
    config = NS(lr=0.1, name="x" * 1000, big=list(range(10**5)), m=NS(a=1), f=len, o=object(), huge=10**10000)
    answer = source(config).answer
    assert answer("value lr")[1] == "0.1"
    assert answer("value z") == (ABSENT, "absent")
    assert answer("value m")[1] == "a group"
    assert answer("value f")[1] == "<built-in function len>"
    assert all(len(answer(f"value {name}")[1]) <= 60 for name in vars(config))
    assert "0x" not in answer("value o")[1]


class Bad:
    def __repr__(self):
        raise RuntimeError("no")

    __slots__ = ()


def test_what_cannot_be_encoded_is_new_each_time_and_says_why():
    config = NS(lock=threading.Lock(), a=1)
    tape = record(config, lambda c: c.lock)
    assert tape.reads["value lock"][1].startswith("can't be compared")
    assert changed(tape, config) == ["value lock"]
    assert changed(record(config, lambda c: vars(c)), config) == ["value lock"]
    assert changed(record(config, repr), config) == ["whole []"]


def test_unread_options_never_matter():
    odd = NS(lock=threading.Lock(), generator=(i for i in ()), me=None, bad=Bad(), a=1)
    odd.me = odd
    assert changed(record(odd, lambda c: c.a), NS(a=1)) == []


def test_what_cannot_be_copied_is_handed_out_itself():
    lock = threading.Lock()
    config = NS(m=NS(lock=lock, items=[1]), holder=[lock, [2]])
    results = []
    record(config, lambda c: results.extend([c.m.lock, c.holder, c.m.items]))
    assert results[0] is lock and results[1][0] is lock
    assert results[1] is not config.holder and results[1][1] is not config.holder[1]


def test_a_group_that_holds_itself():
    first, second = NS(a=1), NS(a=2)
    first.me, second.me = first, second
    tape = record(first, repr)
    again = NS(a=1)
    again.me = again
    assert changed(tape, again) == []
    assert changed(tape, second) == ["whole []"]
    assert record(first, lambda c: c.me.me.a).keys() == {"value me", "value me.me", "value me.me.a"}


def test_leaf_and_group_are_different_answers():
    tape = record(NS(m=NS(lr=1)), lambda c: c.m)
    assert changed(tape, NS(m=NS(lr=2))) == []
    assert changed(tape, NS(m={"lr": 1})) == ["value m"]
    assert changed(tape, NS()) == ["value m"]


def test_a_dict_option_is_one_value():
    tape = record(NS(o={"a": {"b": 1}, "c": 2}), lambda c: c.o["a"])
    assert tape.keys() == {"value o"}
    assert changed(tape, NS(o={"a": {"b": 1}, "c": 3})) == ["value o"]


class Color(enum.Enum):
    RED = 1


class Callable:
    def __call__(self):
        return 1


@pytest.mark.parametrize(
    ("value", "nested", "root"),
    [
        (1, LEAF, LEAF),
        ({"a": 1}, LEAF, MAPPING),
        ([1], LEAF, LEAF),
        (Color.RED, LEAF, LEAF),
        (NS(), OBJECT, OBJECT),
        (ConfigBase(), OBJECT, OBJECT),
        (Callable(), OBJECT, OBJECT),
        (threading.Thread(), LEAF, OBJECT),
        (ValueError(), LEAF, LEAF),
        (enum, LEAF, OBJECT),
        (Color, LEAF, LEAF),
    ],
)
def test_what_is_a_group(value, nested, root):
    assert (kind_of(value), kind_of(value, root=True)) == (nested, root)


def test_views_have_the_special_methods_that_kinds_names():
    assert {name for name, made in vars(ConfigView).items() if is_dunder(name) and callable(made)} <= _FOR_ALL


# -- code of config classes


def make_class(factor):
    class Config(ConfigBase):
        default = 3

        def __init__(self):
            super().__init__()
            self.a, self.b, self.unread = 2, 5, 1

        @property
        def scaled(self):
            return self.a * factor

        @cached_property
        def kept(self):
            return [self.a * factor]

        def total(self, more=0):
            return self.a + self.b * factor + more

        @staticmethod
        def fixed():
            return factor

        @classmethod
        def made(cls):
            return cls.default * factor

        def __call__(self, x, *, more=0):
            return self.a + x * factor + more

        def __len__(self):
            return self.b

    return Config


METHODS = {
    "property": (lambda c: c.scaled, {"value scaled", "value a"}),
    "cached property": (lambda c: (c.kept, c.kept), {"value kept", "value a"}),
    "method": (lambda c: c.total(more=2), {"value total", "value a", "value b"}),
    "static method": (lambda c: c.fixed(), {"value fixed"}),
    "class method": (lambda c: c.made(), {"class []"}),
    "call": (lambda c: c(3, more=1), {"value __call__", "value a"}),
    "len": (len, {"value __len__", "value b"}),
}


@pytest.mark.parametrize(("read", "keys"), METHODS.values(), ids=METHODS)
def test_methods_run_on_the_view_and_their_code_counts(read, keys):
    results = []
    tape = record(make_class(2)(), lambda c: results.append(read(c)))
    assert results == [read(make_class(2)())]
    assert tape.keys() == keys
    assert changed(tape, make_class(2)()) == []
    other = make_class(2)()
    other.unread = 9
    assert changed(tape, other) == []
    if read is not len:
        assert changed(tape, make_class(3)()) != []


def test_a_property_that_becomes_an_attribute():
    tape = record(make_class(2)(), lambda c: c.scaled)
    assert "value scaled" in changed(tape, NS(a=2, scaled=4))


def test_methods_may_call_their_base():
    class Child(make_class(2)):
        def total(self, more=0):
            return super().total(more) + 1

    results = []
    tape = record(Child(), lambda c: results.append(c.total()))
    assert results == [Child().total()]
    assert {"value a", "value b"} <= tape.keys()


def test_an_error_of_a_property_comes_out():
    class Config(ConfigBase):
        @property
        def broken(self):
            raise ZeroDivisionError("mine")

    with pytest.raises(ZeroDivisionError, match="mine"):
        record(Config(), lambda c: c.broken)


def test_dynamic_attributes_are_values():
    class Dynamic:
        def __getattr__(self, name):
            if name.startswith("x"):
                return len(name)
            raise AttributeError(name)

    tape = record(Dynamic(), lambda c: (c.xyz, hasattr(c, "abc")))
    assert tape.reads["value xyz"][0] == encode(3)
    assert tape.reads["value abc"][0] == ABSENT


# -- reading by name


def test_read_by_dotted_name():
    config = NS(model=NS(lr=0.1, options={"a": {"b": 7}}))
    plant_side, tape = source(config), Tape()
    assert plant_side.read(tape, "model.lr") == 0.1
    assert plant_side.read(tape, "model.options.a.b") == 7
    assert plant_side.read(tape, "model.none", 5) == 5
    assert plant_side.read(tape, "model").lr == 0.1
    assert tape.keys() == {"value model.lr", "value model.options.a.b", "value model.none", "value model"}
    assert changed(tape, NS(model=NS(lr=0.1, options={"a": {"b": 7, "c": 1}}))) == []
    assert changed(tape, NS(model=NS(lr=0.1, options={"a": {"b": 8}}))) == ["value model.options.a.b"]


def test_names_with_dots_in_a_dict_config():
    plant_side, tape = source({"a.b": 1, "c": {"d": 2}, "": 3}), Tape()
    assert [plant_side.read(tape, name) for name in ("a.b", "c.d", "")] == [1, 2, 3]
    assert tape.keys() == {'value ["a.b"]', 'value ["c.d"]', "value c.d", 'value [""]'}
    assert changed(tape, {"a.b": 1, "c": {"d": 2}, "": 3, "c.d": 4}) == ['value ["c.d"]']


def test_read_behind_a_property():
    class Config(ConfigBase):
        def __init__(self):
            self.one = NS(lr=1)

        @property
        def chosen(self):
            return self.one

    plant_side, tape = source(Config()), Tape()
    assert plant_side.read(tape, "chosen.lr") == 1
    assert plant_side.has(tape, "chosen.lr") and not plant_side.has(tape, "chosen.q")
    assert plant_side.read(tape, "chosen.q", 4) == 4
    assert tape.keys() == {"value chosen", "value one", "value one.lr", "value one.q"}


def test_a_property_that_is_not_there_yet():
    class Config(ConfigBase):
        @property
        def late(self):
            return self.other

    plant_side = source(Config())
    assert plant_side.read(Tape(), "late", 4) == plant_side.read(Tape(), "late.x", 4) == 4
    assert not plant_side.has(Tape(), "late.x")
    with pytest.raises(AttributeError, match="'other'"):
        plant_side.read(Tape(), "late")


def test_has_looks_at_presence_alone():
    plant_side, tape = source(NS(a=1, m=NS(b=2))), Tape()
    assert [plant_side.has(tape, name) for name in ("a", "m.b", "z", "m.z", "z.z")] == [True, True, False, False, False]
    assert changed(tape, NS(a=5, m=NS(b=6))) == []
    assert changed(tape, NS(a=1, m=NS(b=2), z=3)) == ["has z"]


def test_peeking_leaves_no_trace():
    plant_side = source(NS(a=[1], m=NS(b=2)))
    tape = Tape()
    assert plant_side.read_unregistered(tape, "m.b") == plant_side.peek(tape, "m").b == 2
    assert plant_side.peek(tape, "none") is None and plant_side.peek(tape, "none", 3) == 3
    plant_side.check_unchanged(tape)
    assert changed(tape, NS()) == []


@pytest.mark.parametrize("how", ["peek", "read_unregistered"])
def test_each_run_peeks_at_a_copy_of_its_own(how):
    plant_side, one, other = source(NS(a=[1])), Tape(), Tape()
    mine = getattr(plant_side, how)(one, "a")
    assert getattr(plant_side, how)(one, "a") is mine
    mine.append(2)
    assert getattr(plant_side, how)(other, "a") == plant_side.read(one, "a") == [1]
    plant_side.check_unchanged(other)
    with pytest.raises(ReadOnlyConfig, match="a"):
        plant_side.check_unchanged(one)
    assert getattr(plant_side, how)(one, "a") == [1]
    mine = getattr(plant_side, how)(one, "a")
    mine.append(2)
    plant_side.forget(one)
    assert getattr(plant_side, how)(one, "a") == [1]


def test_keys_that_are_not_text():
    config = {1: "a", "1": "b", (2, 3): "c", None: "d"}
    results = []
    tape = record(config, lambda c: results.append([c[1], c["1"], c[2, 3], None in c, 9 in c, dict(c)]))
    assert results == [["a", "b", "c", True, False, config]]
    assert {"value [1]", "value 1", "has [9]", "whole []"} <= tape.keys()
    assert changed(tape, dict(config)) == []
    assert changed(record(config, lambda c: c[1]), {1: "z", "1": "b"}) == ["value [1]"]
    assert changed(record(config, lambda c: c[2, 3]), config | {(2, 3): "z"}) == ["whole []"]


def test_default_dict():
    from collections import defaultdict

    config = defaultdict(list, a=1)
    results = []
    record(config, lambda c: results.append((c["a"], c["b"], c.get("q"))))
    assert results == [(1, [], [])] and config == {"a": 1}


def test_attribute_dict():
    class AttrDict(dict):
        __getattr__ = dict.__getitem__

    tape = record(AttrDict(lr=1, n=2), lambda c: (c.lr, c["n"], c.get("z")))
    assert changed(tape, AttrDict(lr=1, n=2, unread=3)) == []
    assert changed(tape, AttrDict(lr=3, n=2)) == ["value lr"]


def test_a_module_as_config():
    import types

    settings = types.ModuleType("settings")
    settings.lr = 0.1
    tape = record(settings, lambda c: (c.lr, [name for name in vars(c)]))
    settings.lr = 0.2
    assert changed(tape, settings) == ["value lr"]


def test_no_config_answers_like_an_empty_one():
    tape = record(None, lambda c: getattr(c, "lr", 3))
    assert changed(tape, None) == []
    assert changed(tape, NS(lr=1)) == ["value lr"]


def test_a_config_that_is_one_value():
    assert changed(record([1, 2], lambda c: sum(c)), [1, 3]) == ["value []"]


# -- manners


def test_nothing_is_looked_at_before_it_is_asked_for():
    def refuse(value):
        raise AssertionError("looked")

    class Sensitive:
        def __getattribute__(self, name):
            raise AssertionError("looked")

    ConfigSource(Sensitive(), auxiliary=["a"], encode=refuse, code=refuse)


def test_answers_are_kept_for_one_source():
    asked = []
    plant_side = ConfigSource(NS(a=1), encode=lambda value: asked.append(value) or encode(value), code=code)
    assert plant_side.answer("value a") == plant_side.answer("value a")
    plant_side.view(Tape()).a
    assert asked.count(1) == 1


def test_repeated_reads_do_not_reach_the_recorder():
    tape = Tape()
    plant_side = source({"a": 1, "m": NS(b=[2])})
    view = plant_side.view(tape)

    def read():
        return view["a"], view["m"], view["m"].b, plant_side.read(tape, "m.b")

    first, calls = read(), tape.calls
    assert all(one is other for one, other in zip(first, read()))
    assert first[2] is first[3] and tape.calls == calls


def test_reads_from_helper_threads():
    config = NS(**{f"p{i}": [i] for i in range(50)}, m=NS(lr=1))
    plant_side, tape = source(config), Tape()
    view = plant_side.view(tape)
    with ThreadPoolExecutor(8) as pool:
        rounds = list(pool.map(lambda i: [getattr(view, f"p{j}") for j in range(50)] + [view.m], range(40)))
    assert all(a is b for values in rounds for a, b in zip(values, rounds[0]))
    assert len(tape.keys()) == 51
    plant_side.check_unchanged(tape)


def test_two_runs_are_noted_apart():
    plant_side, one, other = source(NS(a=1, b=2)), Tape(), Tape()
    first, second = plant_side.view(one), plant_side.view(other)
    assert (first.a, second.b) == (1, 2)
    assert (one.keys(), other.keys()) == ({"value a"}, {"value b"})


def test_omegaconf_resolves_what_is_read():
    omegaconf = pytest.importorskip("omegaconf")
    text = {"base": 2, "m": {"lr": "${base}", "sizes": ["${base}", 3]}, "broken": "${none}", "later": "???"}
    results = []
    tape = record(
        omegaconf.OmegaConf.create(text),
        lambda c: results.append([c.m.lr, c["m"]["sizes"], "later" in c, c.m == {"lr": 2, "sizes": [2, 3]}]),
    )
    assert results == [[2, [2, 3], False, True]]
    assert changed(tape, omegaconf.OmegaConf.create(text | {"broken": 1})) == []
    assert "value m.lr" in changed(tape, omegaconf.OmegaConf.create(text | {"base": 3}))
    with pytest.raises(omegaconf.errors.InterpolationKeyError):
        record(omegaconf.OmegaConf.create(text), lambda c: c.broken)


def test_attributes_of_omegaconf_are_read_one_by_one():
    """Also those that are another object at each access: lists, and what is interpolated."""
    omegaconf = pytest.importorskip("omegaconf")
    text = {"root": "/data", "train": "${root}/train.csv", "steps": [1, 2], "m": {"lr": 1}, "seed": 1}
    read: list[object] = []
    tape = record(omegaconf.OmegaConf.create(text), lambda c: read.extend([c.train, c.steps, c["steps"], c.m.lr]))
    assert read == ["/data/train.csv", [1, 2], [1, 2], 1]
    assert changed(tape, omegaconf.OmegaConf.create(text | {"seed": 2, "other": 3})) == []
    assert changed(tape, omegaconf.OmegaConf.create(text | {"root": "/"})) == ["value train"]
    assert changed(tape, omegaconf.OmegaConf.create(text | {"steps": [1]})) == ["value steps"]


def test_mappings_in_lists_of_omegaconf_are_read_by_attribute():
    omegaconf = pytest.importorskip("omegaconf")
    text = {"base": 2, "layers": [{"size": "${base}", "name": r"\${base}"}, [{"size": 3}]], "sizes": [1, 2]}
    read: list[object] = []

    def program(config):
        first, (second,) = config.layers
        read.extend([first.size, first["name"], second.size, dict(**second), type(config.sizes)])
        with pytest.raises(AttributeError):
            first.sise  # noqa: B018

    tape = record(omegaconf.OmegaConf.create(text), program)
    assert read == [2, "${base}", 3, {"size": 3}, list]
    assert changed(tape, omegaconf.OmegaConf.create(text | {"other": 3})) == []
    assert changed(tape, omegaconf.OmegaConf.create(text | {"base": 3})) == ["value layers"]


def test_a_mapping_in_a_list_of_omegaconf_can_not_be_changed():
    omegaconf = pytest.importorskip("omegaconf")
    with pytest.raises(ReadOnlyConfig, match="layers"):
        record(omegaconf.OmegaConf.create({"layers": [{"size": 1}]}), lambda c: setattr(c.layers[0], "size", 2))


def test_want_of_memory_is_no_answer():
    class Scarce:
        scarce = True

        def __getattr__(self, name: str) -> int:
            if Scarce.scarce:
                raise MemoryError
            return 1

    plant_side = source(Scarce())
    with pytest.raises(MemoryError):
        plant_side.answer("value lr")
    Scarce.scarce = False
    assert plant_side.answer("value lr") == source(NS(lr=1)).answer("value lr")


def test_marks_are_sorted_once_however_many_parameters_there_are():
    class Marks(frozenset):
        looks = 0

        def __iter__(self):
            Marks.looks += 1
            return super().__iter__()

    config = {name: {"c": 1, "d": 2} for name in ("a", "a.b", "b", "c")}
    marks = Marks({"a.b.c", "a.d", "b", "c.x.y"})
    root = Node.root(ConfigSource(None, encode=encode, code=code), config, marks)
    hidden = [(name, below) for name in config for below in "cd" if root.child(name).child(below).hidden]
    assert hidden == [("a", "d"), ("a.b", "c"), ("b", "c"), ("b", "d")]
    assert root.child("c").marks == {"x.y"} and Marks.looks == 1
