"""`ConfigBase` and `ConfigValue`, by themselves and through a view."""

from __future__ import annotations

import argparse
import copy
import pickle
import sys
import types
from dataclasses import dataclass
from types import SimpleNamespace

import pytest
from config_tape import changed, record

from pyplantx.config import ConfigBase, ConfigValue
from pyplantx.config.kinds import is_argparse


class MyConfig(ConfigBase):
    steps = 10
    workers = ConfigValue(4, auxiliary=True)

    def __init__(self):
        super().__init__()
        self.color = "red"
        self.log_level = "info"
        self.mark_auxiliary(["log_level"])


def test_as_in_the_readme():
    tape = record(MyConfig(), lambda config: (config.color, config.log_level))
    assert tape.keys() == {"value color"}


def test_vars_shows_parameters_alone():
    assert vars(MyConfig()) == {"color": "red", "log_level": "info"}
    assert repr(MyConfig()) == "MyConfig(color='red', log_level='info')"


@pytest.mark.parametrize("copied", [copy.copy, copy.deepcopy, lambda c: pickle.loads(pickle.dumps(c))])
def test_copies_keep_what_is_auxiliary(copied):
    assert record(copied(MyConfig()), lambda config: config.log_level).keys() == set()


def test_class_level_defaults_are_seen():
    tape = record(MyConfig(), lambda config: config.steps)
    other = MyConfig()
    other.steps = 11
    assert tape.keys() == {"value steps"}
    assert changed(tape, other) == ["value steps"]


def test_marking_one_name_without_a_list():
    config = MyConfig()
    config.mark_auxiliary("color")
    assert record(config, lambda c: (c.color, c.log_level)).keys() == set()


def test_marks_reach_into_groups_and_cover_them():
    config = MyConfig()
    config.model = SimpleNamespace(lr=1, tmp=SimpleNamespace(path="x"))
    config.mark_auxiliary(["model.tmp"])
    tape = record(config, lambda c: (c.model.lr, c.model.tmp.path, repr(c.model.tmp), hasattr(c.model.tmp, "q")))
    assert tape.keys() == {"value model", "value model.lr"}


def test_to_take_a_mark_away_is_a_change_for_those_who_read_the_place():
    """Nobody knows with which value they ran."""
    config = SimpleNamespace(a=1, b=2, model=SimpleNamespace(lr=1, tmp=SimpleNamespace(path="x")))
    marks = ["b", "model.tmp"]
    tape = record(config, lambda c: (c.a, c.b, c.model.tmp.path), auxiliary=marks)
    assert tape.auxiliary() == {"b", "model.tmp"}
    assert changed(tape, config, auxiliary=marks) == []
    assert changed(tape, config, auxiliary=["b", "model"]) == []
    assert changed(tape, config, auxiliary=["a", "b", "model.tmp"]) == []
    assert changed(tape, config, auxiliary=["b"]) == ["auxiliary model.tmp"]
    assert changed(tape, config) == ["auxiliary b", "auxiliary model.tmp"]
    assert record(config, lambda c: c.a, auxiliary=marks).auxiliary() == set()


def test_marks_of_a_nested_config_are_its_own():
    outer = SimpleNamespace(inner=MyConfig(), log_level=3)
    tape = record(outer, lambda c: (c.inner.log_level, c.log_level))
    assert tape.keys() == {"value inner", "value log_level"}


def test_auxiliary_parameters_do_not_count_in_whole_reads():
    first, second = MyConfig(), MyConfig()
    second.log_level, second.workers = "debug", 9
    tape = record(first, lambda c: (repr(c), vars(c), copy.copy(c), c == first))
    assert changed(tape, second) == []


def test_constructor_that_does_not_call_ours():
    class Short(ConfigBase):
        def __init__(self):
            self.a = 1

    assert record(Short(), lambda c: c.a).keys() == {"value a"}


def test_config_value_reads_as_the_plain_value():
    config = MyConfig()
    assert config.workers == 4
    config.workers = 8
    assert config.workers == 8
    del config.workers
    assert (config.workers, MyConfig.workers.auxiliary) == (4, True)
    assert record(config, lambda c: c.workers).keys() == set()


def test_config_value_in_a_constructor():
    class Inside(ConfigBase):
        def __init__(self):
            super().__init__()
            self.tmp = ConfigValue("/tmp", auxiliary=True)
            self.lr = ConfigValue(0.1)

    config = Inside()
    assert (config.tmp, config.lr) == ("/tmp", 0.1)
    assert record(config, lambda c: (c.tmp, c.lr)).keys() == {"value lr"}


def test_config_value_as_a_dataclass_default():
    @dataclass
    class Data:
        lr: float = ConfigValue(0.1, auxiliary=True)

    assert (Data().lr, Data(lr=3).lr) == (0.1, 3)
    assert record(Data(lr=3), lambda c: c.lr).keys() == set()


@pytest.mark.parametrize("config", [{"a": ConfigValue(3)}, SimpleNamespace(a=ConfigValue(3))])
def test_config_value_elsewhere(config):
    results = []
    record(config, lambda c: results.append(c["a"] if isinstance(c, dict) else c.a))
    assert results == [3]


def test_config_value_in_a_dict_can_be_auxiliary():
    tape = record({"a": ConfigValue(3, auxiliary=True), "b": 1}, lambda c: (c["a"], c["b"]))
    assert tape.keys() == {"value b"}


def test_whether_a_class_is_of_argparse_is_asked_while_that_is_imported(monkeypatch: pytest.MonkeyPatch) -> None:
    assert is_argparse(argparse.Namespace) and not is_argparse(dict)
    monkeypatch.setitem(sys.modules, "argparse", types.ModuleType("argparse"))
    assert not is_argparse(dict)
