"""Another process makes the files longer than our maps, while several threads of ours read and write."""

from __future__ import annotations

import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pytest

from pyplantx.errors import PyplantxError
from pyplantx.warehouse import environments
from pyplantx.warehouse.warehouse import Warehouse
from tests.warehouse.stores import ROOT, fetch, send

#: Small at first, so that it has to grow often.
FIRST_MAP = 1 << 20

WRITER = f"""
import sys
from pyplantx.warehouse import environments
environments.FIRST_MAP = {FIRST_MAP}
from pyplantx.warehouse.warehouse import Warehouse
from tests.warehouse.stores import send

with Warehouse(sys.argv[1], durability="process") as warehouse:
    for number in range(60):
        send(warehouse, f"new {{number}}", bytes([number]) * 500_000)
        warehouse.sync()
"""


def arrays(count: int) -> list[Any]:
    import numpy as np

    return [np.arange(15_000, dtype="f8") + number for number in range(count)]


def read_on(warehouse: Warehouse, expected: list[Any], over: threading.Event, trouble: list[str]) -> None:
    refs = [warehouse.last_ref(f"x{number}") for number in range(len(expected))]
    warehouse.begin_activity()
    turn = 0
    while not over.is_set():
        turn += 1
        for ref, value in zip(refs, expected):
            try:
                got = warehouse.open(ref)  # type: ignore[arg-type]
                if not (got == value).all():
                    trouble.append("another value")
                warehouse.find_record("f" * 32)
            except PyplantxError as error:
                trouble.append(repr(error))
        warehouse.refresh()
    warehouse.end_activity()
    if not turn:
        trouble.append("nothing was read")


def test_maps_grow_under_readers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(environments, "FIRST_MAP", FIRST_MAP)
    expected, over = arrays(4), threading.Event()
    trouble: list[str] = []
    store = tmp_path / "store"
    with Warehouse(store, durability="process") as first, Warehouse(store, durability="process") as second:
        for number, value in enumerate(expected):
            send(first, f"x{number}", value)
        first.sync()
        before = first._session.index.environments.small.info()["map_size"]
        threads = [threading.Thread(target=read_on, args=(one, expected, over, trouble)) for one in (first, second)]
        for thread in threads:
            thread.start()
        writer = subprocess.Popen([sys.executable, "-c", WRITER, str(store)], cwd=ROOT)
        number = 0
        while writer.poll() is None:
            send(second, "mine", number)
            second.maybe_flush()
            number += 1
        over.set()
        for thread in threads:
            thread.join()
        assert writer.returncode == 0
        assert trouble == []
        second.refresh()
        assert fetch(first, "new 59") == bytes([59]) * 500_000
        assert first._session.index.environments.small.info()["map_size"] > before  # else nothing was tried
        assert [problem for problem in first.check() if not problem.harmless] == []
    assert "damaged" not in caplog.text and "can't be read" not in caplog.text


def test_a_backup_holds_up_a_map_that_grows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """LMDB would move the map under the copy that is read from it."""
    monkeypatch.setattr(environments, "FIRST_MAP", FIRST_MAP)
    begun, may_end, real = threading.Event(), threading.Event(), environments._copy_env

    def slow(*given: Any, **named: Any) -> None:
        begun.set()
        assert may_end.wait(30)
        real(*given, **named)

    with Warehouse(tmp_path / "store", durability="process") as warehouse:
        monkeypatch.setattr(environments, "_copy_env", slow)
        inner = warehouse._session.index.environments
        copying = threading.Thread(target=warehouse._session.index.back_up)
        growing = threading.Thread(target=inner._resize, args=(inner.meta, 8 * FIRST_MAP))
        copying.start()
        assert begun.wait(30)
        growing.start()
        growing.join(0.2)
        assert growing.is_alive() and inner.meta.info()["map_size"] == FIRST_MAP
        may_end.set()
        copying.join(30)
        growing.join(30)
        assert inner.meta.info()["map_size"] == 8 * FIRST_MAP
