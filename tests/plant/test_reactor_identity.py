"""Which reactor is meant by a name or a reactor: two of one name, one defined anew, one defined twice."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from pyplantx import ReactorFunc, errors

HERE = sys.modules[__name__]


@pytest.fixture
def define(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Defines reactors in this module, as a notebook does in its own."""

    def run(source: str) -> Any:
        for name in ("first", "second"):
            monkeypatch.setattr(HERE, name, getattr(HERE, name, None), raising=False)
        exec(source, vars(HERE))
        return lambda name: vars(HERE)[name]

    return run


def reactor(function: str, value: int, options: str = "") -> str:
    return f"@ReactorFunc({options})\ndef {function}(pipe): pipe.send('x', {value})\n"


def test_two_functions_of_one_name_are_a_clash_that_names_both(open_plant: Any, define: Any) -> None:
    found = define(reactor("first", 1, "name='load'") + reactor("second", 2, "name='load'"))
    both = rf"{__name__}:first \(<string>:1\) and {__name__}:second \(<string>:3\)"
    with open_plant() as plant:
        for ask in (plant.get_reactors, lambda: plant.produce("x"), lambda: plant.run_reactor(found("first"))):
            with pytest.raises(errors.ReactorClash, match=both):
                ask()
    with open_plant() as plant:
        with pytest.raises(errors.ReactorClash, match=both):
            plant.add_reactors(found("first"), found("second"))


def test_local_functions_of_one_name_are_a_clash(open_plant: Any) -> None:
    @ReactorFunc(name="load")
    def one(pipe: Any) -> None:
        pipe.send("x", 1)

    @ReactorFunc(name="load")
    def two(pipe: Any) -> None:
        pipe.send("y", 2)

    with open_plant() as plant, pytest.raises(errors.ReactorClash, match="one .* and .*two"):
        plant.produce("y")


@pytest.mark.parametrize("options", ["", "name='load'"])
def test_one_that_is_defined_anew_takes_effect(options: str, open_plant: Any, define: Any) -> None:
    old = define(reactor("first", 1, options))("first")
    with open_plant() as plant:
        assert plant.produce("x") == 1
        new = define(reactor("first", 2, options))("first")
        assert plant.produce("x") == 2
        plant.run_reactor(new)
        assert plant.fetch_ingredient("x") == 2
        with pytest.raises(errors.UnknownReactor, match="is another one"):
            plant.run_reactor(old)


def test_one_that_is_given_a_new_name_replaces_the_old_one_when_that_is_deleted(open_plant: Any, define: Any) -> None:
    define(reactor("first", 1, "name='load'"))
    with open_plant() as plant:
        assert plant.produce("x") == 1
        define(reactor("second", 2, "name='load'"))
        with pytest.raises(errors.ReactorClash, match="del first"):
            plant.produce("x")
        define("del first")
        assert plant.produce("x") == 2
        define("first = None")


def test_a_reactor_is_never_taken_for_another_one(open_plant: Any, define: Any) -> None:
    old = define(reactor("first", 1))("first")
    with open_plant(old) as plant:
        new = define(reactor("first", 2))("first")
        plant.run_reactor(new)
        assert plant.fetch_ingredient("x") == 2
        with pytest.raises(errors.UnknownReactor, match="is another one.*"):
            plant.run_reactor(old)
        plant.add_reactor(old)
        plant.run_reactor(old)
        with pytest.raises(errors.UnknownReactor, match="is another one.*"):
            plant.run_reactor(new)


def test_the_same_one_may_be_made_twice(open_plant: Any, define: Any) -> None:
    old = define(reactor("first", 1))("first")
    define(reactor("first", 1))
    with open_plant() as plant:
        plant.run_reactor(old)
        assert plant.log.take() == ["first"]


SCRIPT = """
{before}
from pyplantx import *
@ReactorFunc(sends='x'{options})
def r(pipe): pipe.send('x', 1)
@ReactorFunc
def c(pipe): pipe.send('c', (yield pipe.receive('x')) + 1)
if __name__ == '__main__':
    import other
    with Plant('w') as plant:
        {register}
        print(plant.produce('c'), plant.get_reactors())
        for given in ('c', c, other.s.c, other.s.r, r):
            plant.run_reactor(given)
        print([entry['id'] for entry in plant.get_execution_history()])
"""


@pytest.mark.parametrize("before", ["", "if __name__ == '__main__': import other"])
@pytest.mark.parametrize(
    "register", ["", "plant.add_reactors(r, c, other.s.r, other.s.c)", "plant.add_reactors(other.s.r, other.s.c, r, c)"]
)
@pytest.mark.parametrize("options", ["", ", name='load'"])
def test_a_script_that_its_own_module_imports_has_its_reactors_once(
    before: str, register: str, options: str, tmp_path: Path
) -> None:
    (tmp_path / "s.py").write_text(SCRIPT.format(before=before, register=register, options=options))
    (tmp_path / "other.py").write_text("import s\n")
    done = subprocess.run([sys.executable, "s.py"], cwd=tmp_path, capture_output=True, text=True)
    assert not done.stderr
    r = "load" if options else "__main__:r"
    assert done.stdout.splitlines() == [
        f"2 [<reactor {r}>, <reactor __main__:c>]",
        str([r, *["__main__:c"] * 4, r, r]),
    ]
