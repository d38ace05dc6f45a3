"""Where one reactor of many has changed: what is known without asking the others, and what must not be overlooked."""

from __future__ import annotations

import os
import random
import re
import shutil
from collections import Counter
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from pyplantx import Plant, ReactorFunc
from pyplantx.errors import Deadlock, TwoProducers
from pyplantx.session import recall
from pyplantx.session.deeptraces import DeepTrace, Maker, decode_lineage, encode_lineage
from pyplantx.session.former import Former
from pyplantx.session.trees import Trees
from pyplantx.warehouse.warehouse import Warehouse

LENGTH = 12


def chain(edits: dict[int, str] | None = None) -> list[Any]:
    """Reactors r0 to r11: each sends its number and the sum of all up to it; `edits` are other bodies."""
    lines = []
    for i in range(LENGTH):
        body = f"pipe.send('x{i}', (yield pipe.receive('x{i - 1}')) + {i})" if i else "pipe.send('x0', 0)"
        lines += [f"@ReactorFunc(name='r{i}')", f"def r{i}(pipe):", f"    {(edits or {}).get(i, body)}"]
    made: dict[str, Any] = {"ReactorFunc": ReactorFunc, "np": np}
    exec("\n".join(lines), made)
    return [made[f"r{i}"] for i in range(LENGTH)]


SAME = {5: "pipe.send('x5', 5 + (yield pipe.receive('x4')))"}
OTHER = {5: "pipe.send('x5', 6 + (yield pipe.receive('x4')))"}


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The reactors whose traces are looked up."""
    ids: list[str] = []
    root = Trees.root
    monkeypatch.setattr(Trees, "root", lambda self, id: ids.append(id.rpartition(":")[2]) or root(self, id))
    return ids


def names(ids: list[str]) -> list[str]:
    return [id.rpartition(".")[2] for id in ids]


def test_if_it_sends_the_same_nobody_else_is_asked(open_plant: Any, asked: list[str]) -> None:
    with open_plant(*chain()) as plant:
        assert plant.produce("x11") == 66
    for edits, ran in [(SAME, ["r5"]), (SAME, []), ({}, []), ({}, [])]:
        asked.clear()
        with open_plant(*chain(edits)) as plant:
            assert plant.produce("x11") == 66
            assert plant.log.take() == ran
        assert len(asked) <= 1, asked


def test_what_lies_before_it_is_asked_no_more(open_plant: Any, asked: list[str]) -> None:
    with open_plant(*chain()) as plant:
        plant.produce("x11")
    asked.clear()
    with open_plant(*chain(OTHER)) as plant:
        assert plant.produce("x11") == 67
        assert plant.log.take() == [f"r{i}" for i in range(5, 12)]
    assert len(set(asked)) == 7
    asked.clear()
    with open_plant(*chain(OTHER)) as plant:  # the deep trace was put together from both
        assert plant.produce("x11") == 67 and asked == []
    with open_plant(*chain({**OTHER, 2: "pipe.send('x2', 2 + (yield pipe.receive('x1')))"})) as plant:
        assert plant.produce("x11") == 67
        assert plant.log.take() == ["r2"]


def test_what_was_passed_over_is_up_to_date(open_plant: Any) -> None:
    for edits in ({}, SAME, OTHER):
        with open_plant(*chain(edits)) as plant:
            plant.produce("x11")
            ran = plant.log.take()
            actions = {name: plant.why(name).action for name in (f"r{i}" for i in range(12))}
            assert actions == {name: "ran" if name in ran else "up to date" for name in actions}


@pytest.mark.parametrize("value", [500, 600])
def test_what_was_reached_is_noted_as_by_replays(value: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The collector keeps what the last run of a script has reached."""
    large = {i: f"pipe.send('x{i}', (yield pipe.receive('x{i - 1}')) + {i})" for i in range(1, LENGTH)}
    large[0] = "pipe.send('x0', np.zeros(3000))"
    edited = {**large, 5: f"pipe.send('x5', {value} / 100 + (yield pipe.receive('x4')))"}
    noted: list[list[str]] = []
    note = Warehouse.note_reached
    monkeypatch.setattr(
        Warehouse, "note_reached", lambda self, found: noted.append(sorted(set(found))) or note(self, found)
    )
    for way in ("quick", "slow"):
        for edits in (large, edited):
            with Plant(tmp_path / way) as plant:
                plant.add_reactors(chain(edits))
                assert len(plant.produce("x11")) == 3000
        monkeypatch.setattr(recall.Recall, "recall", lambda self, name, forced: None)
    assert noted[1] == noted[3] and len(noted[1]) == LENGTH


@pytest.mark.parametrize("clash", ["x4", "x9", "x11"])
def test_two_producers_are_seen(clash: str, open_plant: Any) -> None:
    """It sends what it receives, what hangs on it, or what was asked for: their senders would have been asked."""
    edits = {5: f"x = yield pipe.receive('x4'); pipe.send('x5', x + 5); pipe.send({clash!r}, 1)"}
    with open_plant(*chain()) as plant:
        plant.produce("x11")
    with open_plant(*chain(edits)) as plant:
        with pytest.raises(TwoProducers, match=f"'{clash}'"):
            plant.produce("x11")
        assert plant.log.take() == ["r5"]
    with open_plant(*chain(SAME)) as plant:
        assert plant.produce("x11") == 66


def test_two_producers_are_seen_in_the_order_of_the_replays(open_plant: Any) -> None:
    """It sends what is asked for before it, and other content than it had sent."""
    bodies = {"b": "pipe.send('b', 1)", "a": "pipe.send('a', 1)", **links("a")}
    bodies["t"] = "x = yield pipe.receive('b'); pipe.send('t', x + (yield pipe.receive('s8')))"
    with open_plant(*network(bodies)) as plant:
        assert plant.produce("t") == 11
    bodies["a"] = "pipe.send('a', 2); pipe.send('b', 2)"
    with open_plant(*network(bodies)) as plant, pytest.raises(TwoProducers, match="'b'"):
        plant.produce("t")


def test_a_failure_names_all_who_asked(open_plant: Any) -> None:
    with open_plant(*chain()) as plant:
        plant.produce("x11")
    edits = {9: "yield pipe.receive('x8'); raise ValueError('no')"}
    with open_plant(*chain(edits)) as plant, pytest.raises(ValueError, match="no") as raised:
        plant.produce("x11")
    (note,) = [note for note in raised.value.__notes__ if "asked for" in note]
    assert "r9 ('x11' was demanded, r11 asked for 'x10', r10 asked for 'x9')" in note


def test_who_asks_for_what_hangs_on_it_is_told(open_plant: Any) -> None:
    with open_plant(*chain()) as plant:
        plant.produce("x11")
    with open_plant(*chain({5: "pipe.send('x5', (yield pipe.receive('x7')))"})) as plant:
        with pytest.raises(Deadlock, match="'x7'"):
            plant.produce("x11")
        with pytest.raises(Deadlock, match="'x11'"):
            plant.add_reactors(chain({5: "pipe.send('x5', (yield pipe.receive('x11')))"}))
            plant.produce("x11")


def test_a_payload_that_is_gone_is_made_again(open_plant: Any, tmp_path: Path) -> None:
    edits = {3: "pipe.send('x3', np.full(300_000, (yield pipe.receive('x2')) + 3))"}
    edits[4] = "pipe.send('x4', (yield pipe.receive('x3'))[0] + 4)"
    with open_plant(*chain(edits)) as plant:
        assert plant.produce("x11") == 66
    shutil.rmtree(tmp_path / "plant" / "objects")
    (tmp_path / "plant" / "objects").mkdir(mode=0o700)
    with open_plant(*chain({**edits, 4: "pipe.send('x4', 4 + (yield pipe.receive('x3'))[0])"})) as plant:
        assert plant.produce("x11") == 66
        assert sorted(plant.log.take()) == ["r3", "r4"]


def test_what_was_sent_with_other_content_since_is_not_lent(open_plant: Any, asked: list[str]) -> None:
    """The record of a name holds its last version; another one is found by the replay."""

    @ReactorFunc(name="r0")
    def first(pipe: Any, config: Any) -> None:
        pipe.send("x0", config.start)

    def session(start: int, edits: dict[int, str]) -> int:
        with open_plant(first, *chain(edits)[1:], config=SimpleNamespace(start=start)) as plant:
            return int(plant.produce("x11"))

    assert [session(start, {}) for start in (0, 1, 0)] == [66, 67, 66]
    asked.clear()
    assert session(0, OTHER) == 67
    assert {"r0", "r4"} <= set(names(asked))


def test_a_lineage_that_makes_no_sense_is_none() -> None:
    sound = {"a": Maker([], {"x": ["1", ""]}), "b": Maker(["x"], {"y": ["2", "3"]})}
    assert decode_lineage(encode_lineage(sound)) == sound
    for text in ["", "[", "[]", "1", '{"a":1}', '{"a":[["x"]]}', '{"a":[[1],{}]}', '{"a":[[],{"x":["1",2]}]}']:
        assert decode_lineage(text) == {}
    two = "\ud83d\ude00"  # two lone surrogates are not the character that they would make
    assert list(decode_lineage(encode_lineage({"a": Maker([], {two: ["1", ""]})}))["a"].sent) == [two]


def test_a_lineage_with_gaps_lends_only_what_it_knows() -> None:
    lineage = {
        "b": Maker(["x"], {"y": ["2", ""]}),
        "c": Maker(["y"], {"z": ["3", ""]}),
        "d": Maker([], {"w": ["4", ""]}),
    }
    deep = DeepTrace("z", ..., dict.fromkeys("abcd", "0"), [], [], "")  # type: ignore[arg-type]
    former = Former(deep, lineage, {"c"})  # "a", who sent "x", is not in it
    assert former.take_untouched("y") is None
    assert former.take_untouched("w") == "d" and former.take_untouched("w") is None
    assert former.culprit is None and Former(deep, lineage, {"a"}).culprit is None


def test_only_one_on_whom_it_hangs_is_asked_first() -> None:
    lineage = {
        "a": Maker([], {"x": ["1", "5"]}),
        "b": Maker(["x"], {"y": ["2", "6"]}),
        "c": Maker(["y"], {"z": ["3", "7"]}),
        "d": Maker([], {"w": ["4", "8"]}),  # the one that asked for it was mended, and asks no more
    }
    deep = DeepTrace("z", ..., dict.fromkeys("abcd", "0"), [], ["6"], "")  # type: ignore[arg-type]
    culprits = {changed: Former(deep, lineage, set(changed)).culprit for changed in ["a", "b", "c", "d", "bc"]}
    assert culprits == {"a": "a", "b": "b", "c": "c", "d": None, "bc": None}
    assert Former(deep, {**lineage, "a": Maker([], {})}, {"c"}).culprit is None
    assert [Former(deep, lineage, {"c"}).objects_of(id) for id in "ab"] == [[], ["6"]]


def network(bodies: dict[str, str]) -> list[Any]:
    """Reactors by name; each body is a line."""
    made: dict[str, Any] = {"ReactorFunc": ReactorFunc, "np": np, "os": os, "world": WORLD}
    for name, body in bodies.items():
        exec(f"@ReactorFunc(name={name!r})\ndef {name}(pipe, config):\n    {body}\n    yield", made)
    return [made[name] for name in bodies]


def links(first: str) -> dict[str, str]:
    """Reactors s0 to s8: each sends what it received, and one more."""
    sources = [first, *[f"s{i}" for i in range(8)]]
    return {f"s{i}": f"pipe.send('s{i}', (yield pipe.receive({sources[i]!r})) + 1)" for i in range(9)}


class Unseen(dict[str, int]):
    """Something that no fingerprint sees."""

    def __fingerprint__(self) -> str:
        return "unseen"


WORLD = Unseen()


def test_one_that_is_asked_for_two_ingredients_is_held_against_both(open_plant: Any) -> None:
    """One was lent, with its lineage, and the other was replayed."""

    def session(a1: int, target: str) -> tuple[Any, list[str]]:
        bodies = {"a": f"pipe.send('a1', {a1}); pipe.send('a2', 10)", **links("a1"), "t": f"pipe.send('t', {target})"}
        with open_plant(*network(bodies)) as plant:
            return plant.produce("t"), plant.log.take()

    assert session(1, "(yield pipe.receive('s8'))")[0] == 10
    both = "((yield pipe.receive('s8')), (yield pipe.receive('a2')))"
    assert session(1, both) == ((10, 10), ["t"])
    value, ran = session(2, both)
    assert value == (11, 10) and ran == ["a", *[f"s{i}" for i in range(9)], "t"]


@pytest.mark.parametrize("size", [2, 200])
def test_another_layout_is_not_lent(size: int, open_plant: Any) -> None:
    """Replays give the recorded one; the same values may have been sent in another layout since."""
    bodies = {"r0": f"x = np.eye({size}); pipe.send('x0', np.asfortranarray(x) if config['fortran'] else x)"}
    bodies["r1"] = "pipe.send('x1', (yield pipe.receive('x0')).flags.c_contiguous)"
    bodies |= {f"r{i}": f"pipe.send('x{i}', (yield pipe.receive('x{i - 1}')))" for i in range(2, LENGTH)}

    def session(fortran: bool, **edits: str) -> Any:
        with open_plant(*network({**bodies, **edits}), config={"fortran": fortran}) as plant:
            return plant.produce("x11"), plant.log.take()

    assert [session(fortran) for fortran in (False, True, False)][1:] == [(True, ["r0"]), (True, [])]
    assert session(False, r1="x = yield pipe.receive('x0'); pipe.send('x1', x.flags.c_contiguous)") == (True, ["r1"])


@pytest.mark.parametrize("how", ["file", "env"])
def test_what_the_changed_one_does_besides_sending_is_seen(
    how: str, open_plant: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It sends the same, but has written a file that the next one reads."""
    path = str(tmp_path / "file")
    monkeypatch.setenv("PYPLANTX_TEST", "0")
    does = {"file": f"open({path!r}, 'w').write('{{}}')", "env": "os.environ['PYPLANTX_TEST'] = '{}'"}[how]
    read = {"file": f"open(pipe.track_file({path!r})).read()", "env": "pipe.env('PYPLANTX_TEST')"}[how]
    bodies = {"a": "", "s": f"x = yield pipe.receive('a1'); pipe.send('s', int({read}) + x)", **links("s")}
    for number in (1, 2, 3):
        bodies["a"] = f"{does.format(number)}; pipe.send('a1', 1)"
        with open_plant(*network(bodies)) as plant:
            assert plant.produce("s8") == 10 + number


def test_what_reads_a_file_that_was_written_meanwhile_is_not_lent(open_plant: Any, tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_text("1")
    bodies = {"s": f"pipe.send('s', int(open(pipe.track_file({str(path)!r})).read()))", **links("s"), "a": ""}
    bodies["t"] = "pipe.send('t', ((yield pipe.receive('a')), (yield pipe.receive('s8'))))"
    for number in (2, 3):
        bodies["a"] = f"open({str(path)!r}, 'w').write('{number}'); pipe.send('a', {number})"
        with open_plant(*network(bodies)) as plant:
            assert plant.produce("t") == (number, 9 + number)


def test_who_runs_again_lends_no_more(open_plant: Any, tmp_path: Path) -> None:
    """Of what an unchanged one sends a payload is gone; it runs, and sends something else of which nobody asked yet."""
    bodies = {"a": "pipe.send('a1', world['hidden']); pipe.send('a2', np.zeros(9000))", **links("a1")}
    bodies["t"] = "pipe.send('t', (yield pipe.receive('s8')))"
    WORLD["hidden"] = 1
    with open_plant(*network(bodies)) as plant:
        assert plant.produce("t") == 10
    WORLD["hidden"] = 2
    shutil.rmtree(tmp_path / "plant" / "objects")
    (tmp_path / "plant" / "objects").mkdir(mode=0o700)
    for path in (tmp_path / "plant").glob("small.lmdb*"):
        path.unlink() if path.is_file() else shutil.rmtree(path)
    bodies["t"] = "x = yield pipe.receive('a2'); pipe.send('t', len(x) + (yield pipe.receive('s8')))"
    with open_plant(*network(bodies)) as plant:
        assert plant.produce("t") == 9011


def test_a_line_that_sends_was_moved(open_plant: Any) -> None:
    """Who used to send it is not asked, as it would not be by the search."""
    with open_plant(*chain()) as plant:
        plant.produce("x11")
    edits = {9: "pipe.send('x11', (yield pipe.receive('x8')))", 11: "pipe.send('y', 1)"}
    with open_plant(*chain(edits)) as plant:
        assert plant.produce("x11") == 36 and plant.log.take() == ["r9"]


def test_who_is_not_needed_beside_the_changed_one_does_not_run(open_plant: Any) -> None:
    """It sends what was demanded, and other content than it had sent: who had sent that would run, but need not."""
    with open_plant(*chain()) as plant:
        plant.produce("x11")
    with open_plant(*chain({9: "yield pipe.receive('x8'); pipe.send('x9', 1); pipe.send('x11', 5)"})) as plant:
        assert plant.produce("x11") == 5 and plant.log.take() == ["r9", "r10"]


def test_a_failure_names_only_those_who_asked(open_plant: Any) -> None:
    with open_plant(*chain()) as plant:
        plant.produce("x11")
    edits = {9: "pipe.send('x11', 1 // ((yield pipe.receive('x8')) - 36))"}
    for rest in [chain(edits)[:11], chain({**edits, 11: "pipe.send('y', 1)"})]:
        with open_plant(*rest) as plant, pytest.raises(ZeroDivisionError) as raised:
            plant.produce("x11")
        (note,) = [note for note in raised.value.__notes__ if "demanded" in note]
        assert "r9 ('x11' was demanded)" in note


# --------------------------------------------------------------------------- at random

SIZE = 14
Body = list[tuple[str, Any]]

_LINES = {
    "ask": "total += yield pipe.receive({!r})",
    "both": "for one in (yield pipe.receive(*{!r})): total += one",
    "try": "try: total += yield pipe.receive({!r})\n    except Exception: total += 1",
    "config": "total += config.c{}",
    "add": "total += {}",
    "mod": "total %= {}",
    "send": "pipe.send({!r}, total)",
    "raise": "if total % 5 == {}: raise ValueError('bad')",
}


def program(bodies: list[Body]) -> list[Any]:
    made: dict[str, Any] = {"ReactorFunc": ReactorFunc}
    for i, body in enumerate(bodies):
        lines = [_LINES[kind].format(argument) for kind, argument in body]
        text = "\n    ".join([f"def r{i}(pipe, config):", "total = 0", *lines, "yield"])
        exec(f"@ReactorFunc(name='r{i}')\n{text}", made)
    return [made[f"r{i}"] for i in range(len(bodies))]


def some_bodies(chance: random.Random) -> list[Body]:
    bodies: list[Body] = [[("config", 0), ("send", "x0")]]
    for i in range(1, SIZE):
        inputs = sorted({i - 1, i // 2, chance.randrange(i)})
        body: Body = [("ask", f"x{j}") for j in inputs]
        if len(inputs) > 2:
            body[:2] = [("both", [f"x{j}" for j in inputs[:2]])]
        body += [("config", chance.randrange(3))] * (chance.random() < 0.3)
        body += [("add", chance.randrange(5)), ("mod", chance.choice([7, 1000])), ("send", f"x{i}")]
        bodies.append(body)
    return bodies


def edited(chance: random.Random, bodies: list[Body]) -> list[Body]:
    i = chance.randrange(SIZE)
    body = list(bodies[i])
    kind = chance.choice(
        ["add", "add", "add", "mod", "ask", "ask", "try", "send", "raise", "config", "shuffle", "drop"]
    )
    other = f"x{chance.randrange(SIZE if chance.random() < 0.1 else max(i, 1))}"
    argument = {"add": chance.randrange(3), "mod": chance.choice([2, 7]), "send": f"y{i}", "raise": chance.randrange(9)}
    if kind == "shuffle":
        chance.shuffle(body)
    elif kind == "drop":
        body.remove(chance.choice(body))
    elif (kind, argument.get(kind)) not in body or kind != "send":
        at = len(body) if kind == "send" else chance.randrange(len(body))
        body.insert(at, (kind, argument.get(kind, other if kind in ("ask", "try") else 0)))
    return [*bodies[:i], body, *bodies[i + 1 :]]


def outcome(directory: Path, reactors: list[Any], config: dict[str, int], target: str, forced: list[str]) -> Any:
    """What came out, and who ran, in whatever order."""
    ran: list[str] = []
    with Plant(directory, durability="process") as plant:
        plant.add_reactors(reactors)
        plant.set_config(SimpleNamespace(**config))
        plant.add_event_listener(Plant.EventType.reactor_started, lambda kind, name, function: ran.append(name))
        try:
            if forced:
                plant.run_reactor(*forced)
            return plant.produce(target), sorted(ran)
        except Deadlock as error:
            return sorted(re.findall(r"r\d+ waits for 'x\d+'", str(error))), sorted(ran)
        except Exception as error:
            return f"{type(error).__name__}: {error}", sorted(ran)


def test_it_is_as_with_replays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever is edited: the same values and errors, and the very same reactors run."""
    mended = Counter[bool]()
    mend = recall.Recall.mend

    def counting(*arguments: Any) -> Any:
        ref = mend(*arguments)
        mended[ref is not None] += 1
        return ref

    monkeypatch.setattr(recall.Recall, "mend", counting)
    for seed in range(10):
        as_with_replays(random.Random(seed), tmp_path / str(seed), monkeypatch)
    assert mended[True] > 10 and mended[False] > 10


def as_with_replays(chance: random.Random, directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    past, config = [some_bodies(chance)], {"c0": 1, "c1": 2, "c2": 3}
    for _ in range(20):
        bodies, forced = past[-1], []
        what = chance.choice(["edit", "edit", "edit", "edit", "config", "back", "forced", "nothing"])
        if what == "edit":
            bodies = edited(chance, bodies)
        elif what == "config":
            config = {**config, f"c{chance.randrange(3)}": chance.randrange(4)}
        elif what == "back":
            bodies = chance.choice(past)
        elif what == "forced":
            forced = [f"r{chance.randrange(SIZE)}"]
        target = f"x{chance.choice([SIZE - 1, SIZE - 1, SIZE - 2])}"
        quick = outcome(directory / "quick", program(bodies), config, target, forced)
        with monkeypatch.context() as patch:
            patch.setattr(recall.Recall, "recall", lambda self, name, forced: None)
            slow = outcome(directory / "slow", program(bodies), config, target, forced)
        assert quick == slow, (what, target, forced)
        if isinstance(slow[0], int):
            past.append(bodies)
