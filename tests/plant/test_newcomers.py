"""Reactors that are written while a session goes on: under a new name, in a module, for what another one has sent."""

from __future__ import annotations

import logging
import sys
import types
from typing import Any

import pytest

from pyplantx import ReactorFunc, errors
from pyplantx.session.roster import Roster
from pyplantx.testing import forget_reactors

USE = "@ReactorFunc\ndef use(pipe):\n    x = yield pipe.receive('data')\n    pipe.send('out', x * 10)\n"
CHAIN = "@ReactorFunc\ndef step{0}(pipe):\n    pipe.send('out{0}', (yield pipe.receive('{1}')) + 1)\n"


def load(value: int, name: str = "load") -> str:
    return f"@ReactorFunc\ndef {name}(pipe):\n    pipe.send('data', {value})\n"


@pytest.fixture
def cell(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Runs source in a module; the one of a notebook, or another, which is then imported or loaded again."""

    def run(source: str, module: str = "notebook_of_a_test") -> None:
        if module not in sys.modules:
            monkeypatch.setitem(sys.modules, module, types.ModuleType(module))
            vars(sys.modules[module])["ReactorFunc"] = ReactorFunc
        exec(source, vars(sys.modules[module]))

    return run


def test_a_reactor_under_a_new_name_takes_the_place_of_the_old_one(open_plant: Any, cell: Any) -> None:
    cell(load(1) + USE)
    with open_plant() as plant:
        assert plant.produce("out") == 10
        cell(load(2, "load_data"))
        assert plant.produce("out") == 20
        assert plant.log.take() == ["use", "load", "load_data", "use"]
        assert plant.produce("out") == 20
        cell(load(3, "load_data"))
        assert plant.produce("out") == 30
        cell(load(2, "load_data"))
        assert plant.produce("out") == 20
        assert plant.log.take() == ["load_data", "use"]


def test_so_it_does_where_each_cell_opens_a_plant_of_its_own(open_plant: Any, cell: Any) -> None:
    cell(load(1) + USE)
    with open_plant() as plant:
        assert plant.produce("out") == 10
    cell(load(2, "load_data"))
    with open_plant() as plant:
        assert [(line.reactor, line.action) for line in plant.status()][2] == ("load_data", "would run")
        assert plant.produce("data", "out") == (2, 20)


def test_so_it_does_below_many_that_are_up_to_date(open_plant: Any, cell: Any) -> None:
    names = ["data", *[f"out{number}" for number in range(20)]]
    cell(load(1) + "".join([CHAIN.format(number, name) for number, name in enumerate(names[:-1])]))
    with open_plant() as plant:
        assert (plant.produce("out19"), plant.produce("out19")) == (21, 21)
        cell(load(2, "load_data"))
        assert plant.produce("out5", "out19") == (8, 22)


def test_a_cell_that_was_moved_to_a_module_and_edited_there_counts(open_plant: Any, cell: Any) -> None:
    cell(load(1) + USE)
    with open_plant() as plant:
        assert plant.produce("out") == 10
        cell(load(1), "module_of_a_test")
        assert plant.produce("out") == 10
        assert plant.log.take() == ["use", "load"]
        cell(load(2), "module_of_a_test")
        assert plant.produce("out") == 20
        cell(load(3))  # and back
        assert plant.produce("out") == 30
        cell(load(4), "module_of_a_test")
        assert plant.produce("out") == 40


def test_a_reactor_that_gets_its_old_name_back_and_is_edited_counts(open_plant: Any, cell: Any) -> None:
    cell(load(1) + USE)
    with open_plant() as plant:
        assert plant.produce("out") == 10
        cell(load(2, "load_data"))
        assert plant.produce("out") == 20
        cell(load(3))
        assert plant.produce("out") == 30
        cell(load(4, "load_data"))
        assert plant.produce("out") == 40
        cell(load(4, "load_data"))
        assert plant.produce("out") == 40
        cell(load(5))
        cell(load(6, "load_data"))  # both are edited: the last one counts
        assert plant.produce("out") == 60
        assert plant.produce("out") == 60


def test_two_that_send_the_same_are_not_late_because_another_one_is(open_plant: Any, cell: Any) -> None:
    other = "@ReactorFunc\ndef other(pipe):\n    if pipe.has('other'):\n        pipe.send('data', 2)\n"
    cell(load(1) + other + USE)
    with open_plant(config={"other": True}) as plant:
        plant.run_reactor("other")
    with open_plant(config={}) as plant:
        plant.run_reactor("load")
        assert plant.produce("out") == 10
        cell(load(7, "for_something_else").replace("data", "else"))
        cell(other.replace("2", "3"))  # is not asked today, and nobody has to run it to find that out
        plant.log.take()
        assert plant.produce("out") == 10
        assert plant.log.take() == []


def test_one_that_is_renamed_before_anything_ran_is_the_one_that_is_asked(open_plant: Any, cell: Any) -> None:
    with open_plant() as plant:
        plant.status()
        cell(load(1) + USE)
        cell(load(2, "load_data"))
        assert (plant.produce("out"), plant.produce("out")) == (20, 20)
        assert plant.log.take() == ["use", "load_data"]
        cell(load(1))  # run again as it is: no edit
        assert plant.produce("out") == 20
        cell(load(3))
        assert (plant.produce("out"), plant.produce("out")) == (30, 30)


def test_a_demand_does_not_look_at_a_thousand_late_ones_that_stand_for_no_other(
    open_plant: Any, cell: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    names = [f"data{number}" for number in range(100)]
    with open_plant() as plant:
        plant.status()
        cell("".join([load(1, f"load_{name}").replace("'data'", repr(name)) for name in names]))
        plant.produce(*names)
        plant.produce(names[3])
        looked_at: list[str] = []
        root = Roster.root
        monkeypatch.setattr(Roster, "root", lambda self, id: (looked_at.append(id), root(self, id))[1])
        assert plant.produce(names[3]) == 1
        assert len(set(looked_at)) <= 1


def test_the_status_tells_which_of_two_names_is_asked(open_plant: Any, cell: Any) -> None:
    def actions() -> dict[str, str]:
        return {line.reactor: line.action for line in plant.status()}

    cell(load(1) + USE)
    with open_plant() as plant:
        plant.produce("out")
        cell(load(2, "load_data"))
        assert actions() == {"load": "not asked", "use": "may run", "load_data": "would run"}
        assert "load_data, which was defined after it, may send 'data'" in str(plant.status())
        plant.produce("out")
        plant.log.take()
        assert actions() == {"load": "not asked", "use": "up to date", "load_data": "up to date"}
        assert "two reactors send 'data': load_data, which has run last, is asked" in str(plant.status())
        plant.produce("out")
        assert plant.log.take() == []


def test_the_status_tells_of_two_that_are_both_needed(open_plant: Any, cell: Any) -> None:
    """The one also sends what nobody else does."""
    more = "@ReactorFunc\ndef more(pipe):\n    pipe.send('data', 3)\n    pipe.send('more', 3)\n"
    total = "@ReactorFunc\ndef total(pipe):\n    pipe.send('total', (yield pipe.receive('more')))\n"
    cell(load(1) + more + USE)
    with open_plant() as plant:
        plant.run_reactor("more")
        plant.run_reactor("load")
        plant.produce("out")
        assert [line.action for line in plant.status()] == ["up to date", "not asked", "up to date"]
        cell(total)
        plant.produce("total")
        assert [line.action for line in plant.status()][1] == "unknown"
        with pytest.raises(errors.TwoProducers):
            plant.produce("out", "total")


def test_those_that_were_chosen_by_hand_are_no_exception(open_plant: Any, cell: Any) -> None:
    cell(load(1) + USE)
    notebook = sys.modules["notebook_of_a_test"]
    with open_plant(notebook.load, notebook.use) as plant:
        assert plant.produce("out") == 10
        cell(load(2, "load_data"))
        assert plant.produce("out") == 10  # nobody has chosen it
        plant.add_reactors(notebook.load_data)
        assert plant.produce("out") == 20


def test_one_that_does_not_send_it_after_all_runs_once(open_plant: Any, cell: Any) -> None:
    cell(load(1) + USE)
    other = "@ReactorFunc\ndef other(pipe):\n    if pipe.has('other'):\n        pipe.send('data', 2)\n"
    with open_plant(config={}) as plant:
        assert plant.produce("out") == 10
        cell(other)
        assert (plant.produce("out"), plant.produce("out")) == (10, 10)
        assert plant.log.take() == ["use", "load", "other"]
        plant.set_config({"other": True})
        plant.run_reactor("other")
        assert plant.produce("out") == 20


def test_one_that_is_asked_in_vain_is_not_asked_again(open_plant: Any, cell: Any) -> None:
    cell(load(1) + USE)
    waits = "@ReactorFunc\ndef waits(pipe):\n    pipe.send('data', (yield pipe.receive({!r})) + {})\n"
    catches = (
        "@ReactorFunc\ndef catches(pipe):\n    try:\n        yield pipe.receive('nothing')\n    except LookupError:\n"
        "        pass\n    except Exception:\n        pass\n    if pipe.has('other'):\n        pipe.send('data', 2)\n"
    )
    fails = "@ReactorFunc\ndef fails(pipe):\n    pipe.send('nothing', 1 / 0)\n"
    with open_plant(config={}) as plant:
        assert plant.produce("out") == 10
        for source in (waits.format("out", 1), waits.format("data", 1), fails + catches):
            cell(source)
            assert plant.produce("out") == 10
            assert plant.log.take()
            assert (plant.produce("out"), plant.produce("data")) == (10, 1)
            assert plant.log.take() == []
        cell(load(7, "other") + waits.format("other", 1).replace("'data'", "'other'"))
        cell(waits.format("kept", 1) + "@ReactorFunc\ndef keep(pipe):\n    pipe.send('kept', 6)\n")  # it was edited
        assert plant.produce("out") == 70


def test_of_several_the_last_that_sends_counts(open_plant: Any, cell: Any) -> None:
    cell(load(1) + USE)
    other = "@ReactorFunc\ndef other(pipe):\n    if pipe.has('other'):\n        pipe.send('data', 3)\n"
    with open_plant(config={}) as plant:
        assert plant.produce("out") == 10
        cell(load(5, "first") + load(2, "second") + other)
        assert (plant.produce("out"), plant.produce("out")) == (20, 20)
        assert plant.log.take() == ["use", "load", "other", "second", "use"]


def test_one_that_fails_is_no_reason_to_be_content_with_the_old_one(open_plant: Any, cell: Any) -> None:
    cell(load(1) + USE)
    with open_plant() as plant:
        assert plant.produce("out") == 10
        cell(load(2, "load_data").replace("2", "1 / 0"))
        for _ in range(2):
            with pytest.raises(ZeroDivisionError):
                plant.produce("out")
        cell(load(2, "load_data"))
        assert plant.produce("out") == 20


def test_cells_that_are_run_again_and_new_ones_for_other_things_run_nothing(open_plant: Any, cell: Any) -> None:
    unneeded = load(5, "never_asked")
    cells = load(1) + USE + unneeded
    cell(cells)
    with open_plant() as plant:
        assert plant.produce("out") == 10
        cell(cells)
        cell("@ReactorFunc\ndef more(pipe):\n    pipe.send('more', (yield pipe.receive('out')))\n")
        assert plant.produce("out") == 10
        assert plant.log.take() == ["use", "load"]
        forget_reactors()
        cell(cells)
        assert plant.produce("out") == 10
        assert plant.log.take() == []


def test_a_family_that_is_made_in_a_loop_grows(open_plant: Any, cell: Any) -> None:
    family = (
        "for year in {}:\n    @ReactorFunc(name=f'load-{{year}}')\n    def load(pipe, year=year):\n"
        "        pipe.send(f'table-{{year}}', year)\n"
    )
    cell(family.format((2024, 2025)))
    with open_plant() as plant:
        assert plant.produce("table-2024", "table-2025") == (2024, 2025)
        plant.log.take()
        cell(family.format((2026,)))
        assert plant.produce("table-2024", "table-2025") == (2024, 2025)
        assert plant.log.take() == []
        assert plant.produce("table-2026") == 2026
        assert plant.log.take() == ["load-2026"]


def test_two_of_one_name_are_told_apart_in_words(open_plant: Any, cell: Any, caplog: pytest.LogCaptureFixture) -> None:
    cell(load(1) + USE)
    with open_plant() as plant, caplog.at_level(logging.WARNING, "pyplantx"):
        plant.produce("out")
        cell(load(2), "module_of_a_test")
        plant.produce("out")
        plant.produce("out")
        assert "module_of_a_test:load, which has run last, is asked" in str(plant.status())
        assert "module_of_a_test:load" in caplog.text
        assert "notebook_of_a_test:load" in caplog.text
        with pytest.raises(errors.TwoProducers, match="notebook_of_a_test:load and module_of_a_test:load"):
            plant.run_reactor("notebook_of_a_test:load", "module_of_a_test:load")
