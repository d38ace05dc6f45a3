"""A reactor can't change the config: not through the view, not through what it was handed."""

from __future__ import annotations

import argparse
import copy
from dataclasses import dataclass, field
from types import SimpleNamespace as NS

import pytest
from config_tape import Tape, record, source

from pyplantx.config import ConfigBase
from pyplantx.errors import ReadOnlyConfig


class Config(ConfigBase):
    def __init__(self):
        super().__init__()
        self.lr = 0.1
        self.items = [1, [2]]
        self.options = {"a": {"b": 1}}
        self.model = NS(lr=1, sizes=[3])
        self.mark_auxiliary(["scratch"])
        self.scratch = [0]

    def remember(self):
        self.lr = 2

    @property
    def changing(self):
        self.items.append(3)
        return len(self.items)


@dataclass
class Data:
    lr: float = 0.1
    items: list = field(default_factory=lambda: [1, [2]])


def assign(config):
    config.lr = 1


def assign_nested(config):
    config.model.lr = 1


def add_new(config):
    config.other = 1


def delete(config):
    del config.model.lr


def augment(config):
    config.lr += 1


REFUSED = {
    assign: "'lr'",
    assign_nested: "'model.lr'",
    add_new: "'other'",
    delete: "'model.lr'",
    augment: "'lr'",
    Config.remember: "'lr'",
    (lambda c: setattr(c, "lr", 1)): "'lr'",
    (lambda c: c.model.__dict__.__class__ and c.model.__setattr__("lr", 3)): "'model.lr'",
}


@pytest.mark.parametrize(("write", "named"), REFUSED.items())
def test_writing_through_a_view_names_the_parameter(write, named):
    config = Config()
    with pytest.raises(ReadOnlyConfig, match=named) as caught:
        record(config, write)
    assert "copy" in caught.value.hint
    assert (config.lr, config.model.lr) == (0.1, 1)


def set_item(c):
    c["a"] = 1


def delete_item(c):
    del c["a"]


def union(c):
    c |= {"a": 1}


CHANGES = [
    set_item,
    delete_item,
    union,
    lambda c: c.update(a=1),
    lambda c: c.pop("a"),
    lambda c: c.clear(),
    lambda c: c.setdefault("a", 2),
    lambda c: c.popitem(),
]


@pytest.mark.parametrize("write", CHANGES)
def test_dict_config(write):
    config = {"a": 0}
    with pytest.raises(ReadOnlyConfig):
        record(config, write)
    assert config == {"a": 0}


HANDED_OUT = {
    (lambda c: c.items.append(1)): "'items'",
    (lambda c: c.items[1].append(1)): "'items'",
    (lambda c: c.options["a"].update(b=2)): "'options'",
    (lambda c: c.model.sizes.clear()): "'model.sizes'",
    (lambda c: c.scratch.append(1)): "'scratch'",
    (lambda c: c.changing): "'items'",
    (lambda c: vars(c).update(lr=3)): "the config",
    (lambda c: vars(c.model).pop("lr")): "'model'",
    (lambda c: c.mark_auxiliary(["lr"])): "the config",
}


@pytest.mark.parametrize(("change", "named"), HANDED_OUT.items())
def test_changing_what_was_handed_out_is_noticed(change, named):
    config = Config()
    with pytest.raises(ReadOnlyConfig, match=named):
        record(config, change)
    assert vars(config).keys() == vars(Config()).keys()
    assert (config.items, config.options, config.model, config.scratch) == (
        [1, [2]],
        {"a": {"b": 1}},
        NS(lr=1, sizes=[3]),
        [0],
    )


def test_changing_an_array():
    numpy = pytest.importorskip("numpy")
    config = NS(a=numpy.zeros(3))
    with pytest.raises(ReadOnlyConfig, match="'a'"):
        record(config, lambda c: c.a.fill(1))
    assert config.a.sum() == 0


def test_reading_and_sorting_copies_is_fine():
    config = Config()
    record(config, lambda c: (sorted(c.items, key=str), list(c.items).append(1), c.options["a"]["b"], repr(c), vars(c)))


@pytest.mark.parametrize(
    "make", [Config, Data, lambda: argparse.Namespace(lr=0.1, items=[1]), lambda: NS(lr=1, items=[])]
)
def test_a_copy_is_the_reactors_own(make):
    def alter(config):
        mine = copy.deepcopy(config)
        mine.lr = 5
        mine.items.append(3)
        assert type(mine) is type(make())

    original = make()
    record(original, alter)
    assert len(original.items) == len(make().items)


def test_each_run_has_one_private_copy():
    config = NS(items=[1])
    plant_side = source(config)
    one, other = Tape(), Tape()
    first, second = plant_side.view(one), plant_side.view(other)
    assert first.items is first.items is plant_side.read(one, "items")
    assert first.items is not second.items and first.items is not config.items
    first.items.append(2)
    assert second.items == config.items == [1]
    with pytest.raises(ReadOnlyConfig):
        plant_side.check_unchanged(one)
    plant_side.check_unchanged(other)


def test_a_failed_run_is_forgotten_unchecked():
    plant_side, tape = source(NS(items=[1])), Tape()
    plant_side.view(tape).items.append(2)
    plant_side.forget(tape)
    plant_side.check_unchanged(tape)


def test_the_original_is_safe_from_library_methods_too():
    pydantic = pytest.importorskip("pydantic")

    class Model(pydantic.BaseModel):
        a: list = [1]

    original = Model()
    with pytest.raises(ReadOnlyConfig):
        record(original, lambda c: c.__pydantic_fields_set__.add("x"))
    record(original, lambda c: c.model_copy(update={"a": [2]}))
    assert original.a == [1] and original.model_fields_set == set()


def test_making_a_config_from_the_views_class_is_refused():
    with pytest.raises(ReadOnlyConfig, match="recording view"):
        record(Config(), lambda c: type(c)())
    record(Config(), lambda c: c.__class__())
