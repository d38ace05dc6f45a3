"""Workspaces and ledgers: what survives, who may have them, when they go."""

from __future__ import annotations

import errno
import os
import time
from pathlib import Path
from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pyplantx.blocks.logbook import Logbook, save_value
from pyplantx.errors import BadRequest, DamagedObject
from pyplantx.fingerprint.value import hash_text
from pyplantx.warehouse.resume import KEPT_FOR, Ledger, Workspace, sweep_workspaces
from pyplantx.warehouse.warehouse import Warehouse
from tests.faults.children import Child, in_child

KEY = "0" * 32

entries = st.lists(
    st.dictionaries(st.text(max_size=4), st.integers() | st.text(max_size=9) | st.lists(st.text(max_size=3))),
    max_size=6,
)


def written(path: Path, lines: list[dict]) -> Ledger:
    ledger = Ledger(str(path), KEY)
    for line in lines:
        ledger.append(line)
    ledger.close()
    return ledger


def read(path: Path, key: str = KEY) -> list[dict]:
    ledger = Ledger(str(path), key)
    ledger.read()
    return ledger.entries


def open_ledgers(place: Path) -> list[str]:
    """Paths of the ledgers below a folder that this process has open."""
    links = [f"/proc/self/fd/{fd}" for fd in os.listdir("/proc/self/fd")]
    paths = [os.readlink(link) for link in links if os.path.lexists(link)]
    return [path for path in paths if path.startswith(str(place)) and "ledger" in path]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("ledgers")


class TestLedger:
    @given(lines=entries)
    def test_comes_back(self, lines, folder):
        path = folder / "ledger"
        path.unlink(missing_ok=True)
        written(path, lines)
        assert read(path) == lines
        assert read(path, "1" * 32) == []

    @given(lines=entries.filter(bool), data=st.data())
    def test_any_damage_ends_it_there(self, lines, data, folder):
        path = folder / "ledger"
        path.unlink(missing_ok=True)
        written(path, lines)
        good = path.read_bytes()
        at = data.draw(st.integers(0, len(good) - 1))
        bit = data.draw(st.integers(0, 7))
        path.write_bytes(good[:at] + bytes([good[at] ^ 1 << bit]) + good[at + 1 :])
        assert read(path) == lines[: good[:at].count(b"\n")]

    @given(lines=entries.filter(bool), more=entries, data=st.data())
    def test_a_torn_line_is_overwritten(self, lines, more, data, folder):
        path = folder / "ledger"
        path.unlink(missing_ok=True)
        written(path, lines)
        os.truncate(path, data.draw(st.integers(0, path.stat().st_size - 1)))
        ledger = Ledger(str(path), KEY)
        ledger.read()
        whole = len(ledger.entries)
        assert whole < len(lines)
        for line in more:
            ledger.append(line)
        ledger.close()
        assert read(path) == lines[:whole] + more

    @given(lines=entries.filter(bool), more=entries, data=st.data())
    def test_can_be_cut(self, lines, more, data, folder):
        path = folder / "ledger"
        path.unlink(missing_ok=True)
        written(path, lines)
        ledger = Ledger(str(path), KEY)
        ledger.read()
        count = data.draw(st.integers(0, len(lines)))
        ledger.cut(count)
        for line in more:
            ledger.append(line)
        ledger.close()
        assert read(path) == (lines[:count] + more if more else lines)

    def test_what_is_appended_is_not_kept_in_memory(self, tmp_path):
        ledger = written(tmp_path / "ledger", [{"a": number} for number in range(5)])
        assert ledger.count == 5 and ledger.entries == []
        ledger = Ledger(str(tmp_path / "ledger"), KEY)
        ledger.read()
        assert [entry["a"] for entry in ledger.take_entries()] == list(range(5)) and ledger.entries == []
        ledger.append({"a": 5})
        ledger.close()
        assert [entry["a"] for entry in read(tmp_path / "ledger")] == list(range(6))

    def test_lines_can_not_change_places(self, tmp_path):
        path = tmp_path / "ledger"
        written(path, [{"a": 1}, {"b": 2}, {"c": 3}])
        first, second, third = path.read_bytes().splitlines(keepends=True)
        path.write_bytes(first + third + second)
        assert read(path) == [{"a": 1}]
        path.write_bytes(first + first)
        assert read(path) == [{"a": 1}]


class TestWorkspaces:
    def test_what_is_in_one_is_found_by_the_next_session(self, tmp_path):
        with Warehouse(tmp_path) as warehouse:
            workspace = warehouse.workspaces.take("r", KEY)
            workspace.ledger.append({"a": 1})
            Path(workspace.path("data-0")).write_text("x")
        with Warehouse(tmp_path) as warehouse:
            workspace = warehouse.workspaces.take("r", KEY)
            assert workspace.ledger.entries == [{"a": 1}] and workspace.has("data-0")
            assert warehouse.workspaces.take("r", "1" * 32).ledger.entries == []

    def test_one_holder_at_a_time(self, tmp_path):
        with Warehouse(tmp_path) as warehouse:
            workspace = warehouse.workspaces.take("r", KEY)
            assert warehouse.workspaces.take("r", KEY) is None
            warehouse.workspaces.drop(workspace, remove=False)
            assert warehouse.workspaces.take("r", KEY) is not None

    def test_a_forked_child_does_not_hold_it(self, tmp_path):
        with Warehouse(tmp_path) as warehouse:
            workspace = warehouse.workspaces.take("r", KEY)
            child = Child(lambda tell: (tell("begun"), time.sleep(600)))
            assert child.wait_for("begun")
            warehouse.workspaces.drop(workspace, remove=False)
            assert warehouse.workspaces.take("r", KEY) is not None
            child.kill()
            child.end()

    def test_all_of_a_reactor_go_when_it_commits(self, tmp_path):
        with Warehouse(tmp_path) as warehouse:
            for key in ("1" * 32, "2" * 32):
                warehouse.workspaces.take("r", key)
            warehouse.workspaces.take("other", KEY).ledger.append({})
        with Warehouse(tmp_path) as warehouse:
            warehouse.workspaces.take("r", "3" * 32)
            warehouse.work_finished("r")
            assert len(list((tmp_path / "staging/resume").iterdir())) == 1
            warehouse.work_finished("other")
            assert not (tmp_path / "staging/resume").exists()

    def test_an_interrupt_leaves_none_that_nobody_closes(self, tmp_path, monkeypatch):
        with Warehouse(tmp_path / "plant") as warehouse:
            for number in range(3):
                warehouse.workspaces.take("r", f"{number:032}").ledger.append({"number": number})
            removed, whole = [], Workspace.remove

            def remove(workspace):
                removed.append(workspace.key)
                if len(removed) == 2:
                    raise KeyboardInterrupt
                whole(workspace)

            monkeypatch.setattr(Workspace, "remove", remove)
            with pytest.raises(KeyboardInterrupt):
                warehouse.workspaces.finished("r")
            assert len(open_ledgers(tmp_path)) == 2
            warehouse.workspaces.close()
            assert open_ledgers(tmp_path) == []
            warehouse.workspaces.finished("r")  # by the next run
            assert not (tmp_path / "plant" / "staging" / "resume").exists()

    @pytest.mark.parametrize("way", ["close", "remove"])
    def test_an_interrupt_leaves_one_that_is_dropped_to_the_next_run(self, tmp_path, monkeypatch, way):
        def interrupt(workspace):
            raise KeyboardInterrupt

        with Warehouse(tmp_path) as warehouse:
            workspace = warehouse.workspaces.take("r", KEY)
            workspace.ledger.append({"number": 1})
            monkeypatch.setattr(Workspace, way, interrupt)
            with pytest.raises(KeyboardInterrupt):
                warehouse.workspaces.drop(workspace, remove=way == "remove")
            monkeypatch.undo()
            warehouse.work_finished("r")
            assert open_ledgers(tmp_path) == []
            assert warehouse.workspaces.take("r", KEY).ledger.entries == []

    def test_one_that_was_let_go_of_is_not_removed_any_more(self, tmp_path):
        with Warehouse(tmp_path) as warehouse:
            former = warehouse.workspaces.take("r", KEY)
            former.close()
            warehouse.workspaces.take("r", KEY).ledger.append({"number": 1})  # another's by now
            former.remove()
            assert read(tmp_path / "staging/resume" / hash_text("r") / KEY / "ledger") == [{"number": 1}]

    def test_but_not_those_that_another_session_holds(self, tmp_path):
        with Warehouse(tmp_path) as warehouse:
            warehouse.workspaces.take("r", KEY)
            (path,) = (tmp_path / "staging/resume").glob("*/*")

            def finish() -> None:
                with Warehouse(tmp_path) as mine:
                    mine.work_finished("r")

            assert in_child(finish) == 0
            assert path.exists()

    def test_the_next_session_sweeps_old_ones_only(self, tmp_path):
        with Warehouse(tmp_path) as warehouse:
            for key in ("1" * 32, "2" * 32):
                warehouse.workspaces.take("r", key).ledger.append({})
        old, young = sorted((tmp_path / "staging/resume").glob("*/*"))
        past = time.time() - KEPT_FOR - 1
        for path in (old / "ledger", old / "lock", old):
            os.utime(path, (past, past))
        with Warehouse(tmp_path):
            assert not old.exists() and young.exists()
        assert sweep_workspaces(str(tmp_path / "staging"), older_than=0) == [str(young)]
        assert not (tmp_path / "staging/resume").exists()

    def test_they_are_no_sessions_of_others(self, tmp_path):
        with Warehouse(tmp_path) as warehouse:
            warehouse.workspaces.take("r", KEY)
            assert not warehouse._session.others_may_store()
            assert [problem for problem in warehouse.check() if problem.kind != "garbage"] == []


class TestValues:
    def test_come_back(self, tmp_path):
        with Warehouse(tmp_path) as warehouse:
            spaces = warehouse.workspaces
            workspace = spaces.take("r", KEY)
            for value in (None, 3, "x", b"y" * 5000, {"a": [1, (2,)]}, {1, 2}, [1.5]):
                kept = workspace.write_value("value-1", value, spaces.registry)
                assert spaces.open_value(workspace, kept) == value

    def test_damage_is_seen(self, tmp_path):
        with Warehouse(tmp_path) as warehouse:
            spaces = warehouse.workspaces
            workspace = spaces.take("r", KEY)
            kept = workspace.write_value("value-1", {"a": (1,)}, spaces.registry)
            (part,) = Path(workspace.path("value-1")).iterdir()
            part.write_bytes(part.read_bytes()[:-1])
            with pytest.raises(DamagedObject, match="does not match"):
                spaces.open_value(workspace, kept)
            part.unlink()
            with pytest.raises(DamagedObject, match="is gone"):
                spaces.open_value(workspace, kept)

    def test_the_last_two_stay(self, tmp_path):
        """Also if one that was damaged is kept again, under the name that it had."""
        host = SimpleNamespace(reactor=SimpleNamespace(id="r", name="r"), recent=tuple, has_right_inputs=lambda: True)
        with Warehouse(tmp_path) as warehouse:
            spaces = warehouse.workspaces
            workspace = spaces.take("r", KEY)
            logbook = Logbook(host, spaces, workspace)
            kept = []
            for number in (1, 2, 2, 3, 4):
                kept.append(logbook.keep_value(number, number))
                logbook.add_value({"value": kept[-1], "saw": []})
                assert all(Path(workspace.path(value["folder"])).exists() for value in kept[-2:])
            assert {path.name for path in tmp_path.rglob("value-*")} == {"value-3", "value-4"}

    def test_what_is_kept_costs_the_same_however_much_was_kept_before(self, tmp_path):
        class Unread(list):
            def __iter__(self):
                raise AssertionError("the lines before are read")

        host = SimpleNamespace(reactor=SimpleNamespace(id="r", name="r"), recent=tuple, has_right_inputs=lambda: True)
        with Warehouse(tmp_path) as warehouse:
            workspace = warehouse.workspaces.take("r", KEY)
            logbook = Logbook(host, warehouse.workspaces, workspace)
            workspace.ledger.entries = Unread(workspace.ledger.entries)
            for number in range(4):
                save_value(logbook, number)
            assert {path.name for path in tmp_path.rglob("value-*")} == {"value-3", "value-4"}

    def test_what_was_kept_stays_when_the_disk_is_full(self, tmp_path, monkeypatch):
        def full(ledger, entry):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

        host = SimpleNamespace(reactor=SimpleNamespace(id="r", name="r"), recent=tuple, has_right_inputs=lambda: True)
        with Warehouse(tmp_path) as warehouse:
            workspace = warehouse.workspaces.take("r", KEY)
            logbook = Logbook(host, warehouse.workspaces, workspace)
            for number in range(5):
                save_value(logbook, number)
                if number == 1:
                    monkeypatch.setattr(Ledger, "append", full)
            assert {"value-1", "value-2"} <= {path.name for path in tmp_path.rglob("value-*")}

    def test_code_is_run_in_trusted_stores_only(self, tmp_path):
        with Warehouse(tmp_path, trust="data") as warehouse:
            spaces = warehouse.workspaces
            workspace = spaces.take("r", KEY)
            kept = workspace.write_value("value-1", {"a": (1,)}, spaces.registry)
            with pytest.raises(DamagedObject, match="not trusted"):
                spaces.open_value(workspace, kept)
            assert spaces.open_value(workspace, workspace.write_value("value-2", 4, spaces.registry)) == 4

    def test_no_file_of_its_own(self, tmp_path):
        with Warehouse(tmp_path) as warehouse:
            workspace = warehouse.workspaces.take("r", KEY)
            kept = workspace.write_value("value-1", 5, warehouse.workspaces.registry)
            with pytest.raises(BadRequest):
                workspace.write_value("value-2", lambda: 0, _Registry())
            assert kept["spec"] == "simple"


class _Registry:
    """Says that everything is of a type that makes its file itself."""

    def infer(self, value):
        return self

    get = infer
    name = "simple"
    version = 1

    def write(self, value, stage):
        stage.path("data")


def test_a_disk_that_fails_as_a_ledger_is_closed_loses_lines_at_most(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    close = os.close

    def failing(fd: int) -> None:
        close(fd)
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    monkeypatch.setattr(os, "close", failing)
    ledger = written(tmp_path / "ledger", [{"block": 1}])
    monkeypatch.undo()
    ledger.append({"block": 2})  # it can be opened again
    ledger.close()
    assert read(tmp_path / "ledger") == [{"block": 1}, {"block": 2}]


def test_what_cannot_be_removed_just_now_stays(tmp_path, monkeypatch):
    """No descriptor was left to look for it: that was the bare error of a reactor that had committed."""

    def fail(folder):
        raise OSError(errno.EMFILE, "Too many open files")

    with Warehouse(tmp_path) as warehouse:
        workspace = warehouse.workspaces.take("r", KEY)
        workspace.ledger.append({})
        with monkeypatch.context() as patch:
            patch.setattr(os, "listdir", fail)
            warehouse.workspaces.finished("r")
        warehouse.workspaces.finished("r")
        assert not list(tmp_path.rglob("ledger"))
