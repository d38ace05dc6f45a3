"""What can't be allocated is an error that tells the reactor, the ingredient, what is wrong and what to write."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from pyplantx import Ingredient, ReactorFunc, errors, specs
from pyplantx.runs import run

REFUSED = {
    "no type": (None, {}, errors.BadRequest),
    "no such type": ("aray", {}, errors.UnknownSpec),
    "not to be allocated": (Ingredient.Type.object, {}, errors.BadRequest),
    "no shape": (Ingredient.Type.array, {}, errors.BadRequest),
    "no such option": (Ingredient.Type.array, {"shap": (3,)}, errors.BadRequest),
    "no such dtype": (Ingredient.Type.array, {"shape": (3,), "dtype": "flot"}, errors.BadRequest),
    "a bad ending": (Ingredient.Type.file, {"suffix": "/../x"}, errors.BadRequest),
    "bad chunks": (specs.HdfArraySpec, {"shape": (1,), "chunks": "no"}, errors.BadRequest),
    "no room": (specs.HdfArraySpec, {"shape": (10**18,), "dtype": "f8"}, errors.WarehouseFull),
    "a bad shape": (specs.HdfArraySpec, {"shape": (-1,), "dtype": "f4"}, errors.BadRequest),
}


@pytest.mark.parametrize("case", REFUSED)
@pytest.mark.parametrize(
    ("method", "what"), [("allocate", "ingredient 'the scan'"), ("allocate_temp", "scratch space 'the scan'")]
)
def test_the_error_says_who_allocates_what(open_plant: Any, case: str, method: str, what: str) -> None:
    type_given, options, kind = REFUSED[case]

    @ReactorFunc
    def scans(pipe: Any) -> None:
        getattr(pipe, method)("the scan", type_given, **options)

    with open_plant(scans) as plant:
        with pytest.raises(kind) as caught:
            plant.run_reactor(scans)
        assert str(caught.value).startswith(f"reactor scans: {what} can't be allocated: ")
        assert list(Path(plant.plant_dir, "staging").glob("*/*")) == []  # nothing is left behind


def test_options_are_told_with_the_one_that_was_meant(open_plant: Any) -> None:
    @ReactorFunc
    def scans(pipe: Any) -> None:
        pipe.allocate("scan", Ingredient.Type.array, shap=(3,), dtyp="f4")

    with open_plant(scans) as plant, pytest.raises(errors.BadRequest, match="can't have shap, dtyp=") as caught:
        plant.run_reactor(scans)
    assert caught.value.hint.startswith("did you mean 'shape'? did you mean 'dtype'? shape")


def test_a_type_that_is_not_known_is_told_with_the_ingredient_that_is_sent(open_plant: Any) -> None:
    @ReactorFunc
    def sends(pipe: Any) -> None:
        pipe.send("x", 1, "simpel")

    with (
        open_plant(sends) as plant,
        pytest.raises(errors.UnknownSpec, match="^ingredient 'x' can't be stored: no") as e,
    ):
        plant.run_reactor(sends)
    assert e.value.hint == "did you mean 'simple'?"


@pytest.mark.parametrize("form", [str, Path])
def test_what_was_allocated_under_one_name_is_not_sent_under_another(open_plant: Any, form: Any) -> None:
    @ReactorFunc
    def mixes(pipe: Any) -> None:
        array = pipe.allocate("array", Ingredient.Type.array, shape=(3,), dtype="f4")
        path = pipe.allocate("file", Ingredient.Type.file)
        Path(path).write_text("x")
        for handle, name in ((array, "array"), (form(path), "file")):
            with pytest.raises(errors.BadRequest, match=f"sends as 'z' what it allocated as '{name}'"):
                pipe.send("z", handle)
            pipe.send(name, handle)
            with pytest.raises(errors.BadRequest, match=f"sends as 'z' what it allocated as '{name}'"):
                pipe.send("z", handle)
        with pytest.raises(errors.BadRequest, match="allocates 'file' a second time"):
            pipe.allocate("file", Ingredient.Type.file)
        pipe.send("z", 1)

    with open_plant(mixes) as plant:
        assert plant.produce("z") == 1


def test_who_allocates_many_is_not_asked_about_each_at_every_send(
    open_plant: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    is_handle, asked = run._is_handle, list[str]()
    monkeypatch.setattr(run, "_is_handle", lambda one, value: asked.append(value) or is_handle(one, value))

    @ReactorFunc
    def many(pipe: Any) -> None:
        paths = {f"f{number}": pipe.allocate(f"f{number}", Ingredient.Type.file) for number in range(20)}
        for name, path in paths.items():
            Path(path).write_text(name)
            pipe.send(name, path)
            assert len(pipe._run.unsent()) == 19 - int(name[1:])
            pipe.send(f"n{name}", name)

    with open_plant(many) as plant:
        plant.run_reactor(many)
    assert len(asked) == 20


def test_what_was_allocated_as_one_type_is_not_sent_as_another(open_plant: Any) -> None:
    """The second type was ignored."""

    @ReactorFunc
    def mixes(pipe: Any) -> None:
        array = pipe.allocate("array", Ingredient.Type.array, shape=(3,), dtype="f4")
        with pytest.raises(errors.BadRequest, match="allocated as 'array', and can't be sent as 'hdf'"):
            pipe.send("array", array, specs.HdfArraySpec)
        pipe.send("array", array, Ingredient.Type.array)

    with open_plant(mixes) as plant:
        plant.run_reactor(mixes)
        assert plant.produce("array").tolist() == [0, 0, 0]


def test_the_key_of_a_checkpoint_is_called_so(open_plant: Any) -> None:
    @ReactorFunc
    def swaps(pipe: Any) -> None:
        pipe.checkpoint(3, "step")

    with open_plant(swaps) as plant, pytest.raises(errors.BadRequest, match="key of a checkpoint is a text, not 3"):
        plant.run_reactor(swaps)
