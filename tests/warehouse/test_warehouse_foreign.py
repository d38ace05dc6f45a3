"""`Warehouse.foreign_changes`: whether what was looked up may have been overtaken by another process."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from pyplantx.fingerprint.value import hash_text
from pyplantx.warehouse.environments import Environments
from pyplantx.warehouse.warehouse import Warehouse
from tests.warehouse.stores import ROOT, send

OTHER = """
import sys
from pyplantx.warehouse.warehouse import Warehouse
with Warehouse(sys.argv[1]) as warehouse:
    warehouse.blob_put("test", "key", "text")
"""


def write_elsewhere(directory: Path) -> None:
    subprocess.run([sys.executable, "-c", OTHER, str(directory)], check=True, cwd=ROOT, timeout=60)


def test_own_commits_are_not_foreign(tmp_path: Path) -> None:
    with Warehouse(tmp_path) as warehouse:
        warehouse.begin_activity()
        warehouse.find_record(hash_text("a node"))
        before = warehouse.foreign_changes()
        for number in range(3):
            send(warehouse, f"x{number}", number)
            warehouse.sync()
            assert warehouse.producers(f"x{number}")
        assert warehouse.foreign_changes() == before


def test_what_another_process_commits_is_noticed_with_the_next_view(tmp_path: Path) -> None:
    with Warehouse(tmp_path) as warehouse:
        warehouse.begin_activity()
        before = warehouse.foreign_changes()
        write_elsewhere(tmp_path)
        assert warehouse.blob_get("test", "key") is None and warehouse.foreign_changes() == before
        warehouse.refresh()
        assert warehouse.foreign_changes() != before and warehouse.blob_get("test", "key") == "text"


def test_what_another_process_commits_between_two_of_ours_is_noticed(tmp_path: Path) -> None:
    with Warehouse(tmp_path) as warehouse:
        warehouse.begin_activity()
        send(warehouse, "x", 1)
        warehouse.sync()
        before = warehouse.foreign_changes()
        write_elsewhere(tmp_path)
        send(warehouse, "y", 2)
        warehouse.sync()
        assert warehouse.foreign_changes() != before


def test_an_own_commit_that_is_seen_before_the_writer_has_noted_it_is_not_foreign(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with Warehouse(tmp_path) as warehouse:
        warehouse.begin_activity()
        before, seen = warehouse.foreign_changes(), []
        transact = Environments.transact

        def looked_at_at_once(environments: Environments, env: Any, work: Any) -> None:
            transact(environments, env, work)
            warehouse.refresh()
            seen.append(warehouse.foreign_changes())

        monkeypatch.setattr(Environments, "transact", looked_at_at_once)
        for number in range(3):
            send(warehouse, f"x{number}", number)
            warehouse.sync()
        assert seen == [before] * 3
        monkeypatch.undo()
        write_elsewhere(tmp_path)  # whose number comes next
        warehouse.refresh()
        assert warehouse.foreign_changes() != before


def test_what_another_process_commits_is_noticed_by_each_warehouse_with_its_own_view(tmp_path: Path) -> None:
    with Warehouse(tmp_path) as one, Warehouse(tmp_path) as other:
        one.begin_activity()
        other.begin_activity()
        assert other.blob_get("test", "key") is None
        write_elsewhere(tmp_path)
        one.refresh()
        assert one.blob_get("test", "key") == "text"
        before = other.foreign_changes()
        assert other.blob_get("test", "key") is None
        other.refresh()
        assert other.foreign_changes() != before


def test_what_another_warehouse_of_the_process_commits_is_noticed(tmp_path: Path) -> None:
    with Warehouse(tmp_path) as one:
        with Warehouse(tmp_path) as other:
            one.begin_activity()
            before = one.foreign_changes()
            send(one, "x", 1)
            assert one.foreign_changes() == before
            send(other, "y", 2)
            assert (after := one.foreign_changes()) != before
            send(other, "z", 3)
        assert one.foreign_changes() not in (before, after)
