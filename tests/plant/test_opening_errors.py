"""What goes wrong while a stored object is opened: told to whoever asked for it, made again where that helps."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from pyplantx import Ingredient, ReactorFunc, errors

NOTE = "pyplantx: raised while the stored ingredient 'model' was opened"


class Model:
    """Can be pickled, and not be made again."""

    def __init__(self, how: str) -> None:
        self.how = how

    def __setstate__(self, state: dict[str, str]) -> None:
        how = state["how"]
        raise {"key": KeyError, "attribute": AttributeError, "end": EOFError, "import": ImportError}[how](how)


class TwoWords:
    """Pickled with one argument, and takes two."""

    def __init__(self, one: str, other: str) -> None:
        self.text = f"{one} {other}"

    def __reduce__(self) -> tuple[Any, ...]:
        return TwoWords, (self.text,)


VALUES = {
    "key": (lambda: Model("key"), KeyError),
    "attribute": (lambda: Model("attribute"), AttributeError),
    "end": (lambda: Model("end"), EOFError),
    "import": (lambda: Model("import"), ImportError),
    "arguments": (lambda: TwoWords("a", "b"), TypeError),
}


@pytest.mark.parametrize("case", VALUES)
def test_what_an_object_raises_is_told_and_nothing_runs_again(case: str, open_plant: Any) -> None:
    make, kind = VALUES[case]

    @ReactorFunc
    def train(pipe: Any) -> None:
        pipe.send("model", make(), Ingredient.Type.object)

    @ReactorFunc
    def use(pipe: Any) -> Any:
        pipe.send("used", (yield pipe.receive("model")))

    for _ in range(2):
        with open_plant(train, use) as plant:
            asks = (plant.produce, plant.fetch_ingredient)
            for ask, name in ((asks[0], "used"), (asks[0], "model"), (asks[1], "model")):
                with pytest.raises(kind) as caught:
                    ask(name)
                assert caught.type is kind and NOTE in caught.value.__notes__
            ran = plant.log.take()
            assert ran.count("train") <= 1
    assert ran == ["use"]


@pytest.fixture
def module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """A module that may come and go."""
    folder = tmp_path / "modules"
    folder.mkdir()
    monkeypatch.syspath_prepend(str(folder))
    monkeypatch.setattr(sys, "dont_write_bytecode", True)

    def there(is_there: bool) -> None:
        sys.modules.pop("zoo_module", None)
        (folder / "zoo_module.py").write_text("class Z: pass\n" if is_there else "raise ModuleNotFoundError")
        if not is_there:
            (folder / "zoo_module.py").unlink()
        importlib.invalidate_caches()

    there(True)
    yield there
    sys.modules.pop("zoo_module", None)


def zoo() -> list[Any]:
    @ReactorFunc
    def make(pipe: Any) -> None:
        try:
            pipe.send("z", importlib.import_module("zoo_module").Z())
        except ImportError:
            pipe.send("z", "instead")

    @ReactorFunc
    def name(pipe: Any) -> Any:
        pipe.send("name", type((yield pipe.receive("z"))).__name__)

    @ReactorFunc
    def copes(pipe: Any) -> Any:
        try:
            pipe.send("copes", type((yield pipe.receive("z"))).__name__)
        except ImportError:
            pipe.send("copes", "none")

    return [make, name, copes]


def test_a_library_that_is_missing_is_an_error_that_names_it(module: Any, open_plant: Any) -> None:
    with open_plant(*zoo(), library=["zoo_module"]) as plant:
        plant.produce("z")
    module(False)
    with open_plant(*zoo(), library=["zoo_module"]) as plant:
        plant.log.take()
        for name in ("z", "name"):
            with pytest.raises(
                errors.MissingLibrary, match="needs the package 'zoo_module'.*\n.*pip install"
            ) as caught:
                plant.produce(name)
            assert any("'z' was opened" in note for note in caught.value.__notes__)
        assert plant.produce("copes") == "none"
        assert plant.log.take() == ["name", "copes"]
    module(True)
    with open_plant(*zoo(), library=["zoo_module"]) as plant:
        assert plant.produce("name", "copes") == ("Z", "Z"), "the run without the library must not be reused"


def test_a_module_of_the_project_that_is_gone_makes_the_value_anew(module: Any, open_plant: Any) -> None:
    with open_plant(*zoo()) as plant:
        assert plant.produce("name") == "Z"
    module(False)
    with open_plant(*zoo()) as plant:
        assert plant.produce("z") == "instead"
        assert plant.log.take() == ["make"]


def test_what_a_damaged_object_raises_is_damage(open_plant: Any, tmp_path: Path) -> None:
    @ReactorFunc
    def make(pipe: Any) -> None:
        pipe.send("text", ["\u00e9" * 1_000_000], Ingredient.Type.object)

    @ReactorFunc
    def use(pipe: Any) -> Any:
        pipe.send("length", len((yield pipe.receive("text"))[0]))

    with open_plant(make, use) as plant:
        plant.produce("text")
    (file,) = [path for path in (tmp_path / "plant" / "objects").rglob("*") if path.name == "value.pickle"]
    file.chmod(0o600)
    data = bytearray(file.read_bytes())
    data[1_000_000] = 0xFF  # no text any more: a UnicodeDecodeError
    file.write_bytes(data)
    with open_plant(make, use) as plant:
        assert plant.produce("length") == 1_000_000
        assert sorted(plant.log.take()) == ["make", "use"]
