"""What people are told."""

from __future__ import annotations

import pickle
from pathlib import Path
from types import SimpleNamespace as NS

import pytest
from config_tape import Tape, record, source

from pyplantx import Plant, errors
from pyplantx.config import messages
from pyplantx.errors import ConfigError, UnknownParameter
from pyplantx.testing import PipeworkMock

CONFIG = NS(learning_rate=0.1, model=NS(depth=3, width=4), log_level="info")


def message(config, read):
    with pytest.raises(UnknownParameter) as caught:
        record(config, read)
    return str(caught.value)


@pytest.mark.parametrize(
    ("config", "read", "said"),
    [
        (CONFIG, lambda c: c.learning_rat, ["no parameter 'learning_rat'", "did you mean learning_rate?"]),
        (CONFIG, lambda c: c.Learning_Rate, ["did you mean learning_rate?"]),
        (CONFIG, lambda c: c.model.dept, ["no parameter 'dept' in 'model'", "did you mean depth?"]),
        (CONFIG, lambda c: c.width, ["did you mean model.width?"]),
        (CONFIG, lambda c: c.qqqq, ["parameters there: learning_rate, model, log_level"]),
        ({"log-level": 1}, lambda c: c["log_level"], ["did you mean log-level?"]),
        ({"lr": 1}, lambda c: c.lr, ["read by key", "config['lr']"]),
        ({}, lambda c: c["a"], ["no parameter 'a'", "none"]),
        (None, lambda c: c.lr, ["no config has been set", "plant.set_config"]),
        (CONFIG, lambda c: type(c).model, ["config.model", "config.__class__"]),
    ],
)
def test_message(config, read, said):
    text = message(config, read)
    assert all(part in text for part in said), text


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("modle.depth", "did you mean model?"),
        ("model.dept", "did you mean depth?"),
        ("model.depth.x", "no parameter 'x' in 'model.depth'"),
        ("depth", "did you mean model.depth?"),
    ],
)
def test_names_in_read_config(name, said):
    with pytest.raises(UnknownParameter) as caught:
        source(CONFIG).read(Tape(), name)
    assert said in str(caught.value)


def test_missing_is_an_error_of_every_kind_that_people_catch():
    for kind in (AttributeError, KeyError, ConfigError):
        with pytest.raises(kind):
            record(CONFIG, lambda c: c.nothing)


def test_a_class_as_config():
    class Config:
        lr = 1

    with pytest.raises(ConfigError, match=r"plant.set_config\(Config\(\)\)"):
        record(Config, lambda c: c.lr)


def test_errors_can_travel():
    with pytest.raises(UnknownParameter) as caught:
        record(CONFIG, lambda c: c.nothing)
    assert "nothing" in str(pickle.loads(pickle.dumps(caught.value)))


def test_asking_in_vain_many_times_stays_cheap():
    tape, plant_side = Tape(), source(CONFIG)
    view = plant_side.view(tape)
    assert [getattr(view, "none", 1) for _ in range(1000)] == [1] * 1000
    assert tape.keys() == {"value none"}


@pytest.mark.parametrize(
    "read", [lambda c: hasattr(c, "learning_rat"), lambda c: getattr(c, "learning_rat", 1)], ids=["hasattr", "getattr"]
)
def test_no_similar_names_are_looked_for_where_nobody_reads_them(monkeypatch, read):
    monkeypatch.setattr(messages, "near_misses", lambda *_: pytest.fail("looked for"))
    record(CONFIG, read)


def test_nor_by_get(monkeypatch):
    monkeypatch.setattr(messages, "near_misses", lambda *_: pytest.fail("looked for"))
    assert record({"lr": 1}, lambda c: c.get("rl", 2))


@pytest.mark.parametrize("given", ["config.yaml", b"lr", Path("config.yaml"), 3, 0.5, True])
def test_what_has_no_parameters_is_no_config(given: object, tmp_path: Path) -> None:
    with pytest.raises(errors.BadRequest, match="read the file first"):
        Plant(tmp_path / "store", config=given)
    assert not (tmp_path / "store").exists()  # an error before the store was opened: nobody would close it
    with Plant(tmp_path / "store") as plant, pytest.raises(errors.BadRequest, match="the config can't be"):
        plant.set_config(given)
    with pytest.raises(errors.BadRequest, match="the config can't be"):
        PipeworkMock(config=given)
