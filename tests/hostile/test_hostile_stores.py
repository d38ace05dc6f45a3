"""Stores that somebody else has prepared: looking at them runs nothing, and what they hold is refused with a reason."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pyplantx import Ingredient, Plant, ReactorFunc, specs
from pyplantx.core.trace import ObjectRef
from pyplantx.testing import forget_reactors
from pyplantx.warehouse.files import Layout
from pyplantx.warehouse.inspection import write_mark
from pyplantx.warehouse.records import IN_FILES, IN_RECORD, IN_SMALL
from tests.hostile.forge import Forger, bombs, named

ROOT = Path(__file__).parents[2]
AS_ROOT = pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a store to somebody else")


#: Seconds after which a process that looks at a store counts as hanging.
LIMIT = 120.0


def visit(friendly: Path, strange: Path, trust: str, missing: str = "", limit: float = LIMIT) -> dict[str, Any]:
    """What a process did that looked at a store; it must end by itself, and well. `missing`: see `visitor`."""
    # -B: the .pyc files of a fresh clone are Python's, not ours
    visitor = [sys.executable, "-B", "-m", "tests.hostile.visitor"]
    command = [*visitor, str(friendly), str(strange), trust, *filter(None, [missing])]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=limit, check=False)
    assert done.returncode == 0, done.stderr
    told: dict[str, Any] = json.loads(done.stdout)
    return told


def assert_harmless(
    friendly: Path, strange: Path, trust: str = "data", missing: str = "", limit: float = LIMIT
) -> list[str]:
    """Nothing ran, nothing was written outside, every error was of the hierarchy; the errors."""
    told = visit(friendly, strange, trust, missing, limit)
    assert told["events"] == []
    assert not told["bare"], "\n".join(told["bare"])
    errors: list[str] = told["errors"]
    return errors


@pytest.fixture(scope="session")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A sound store of all specs and homes, made once."""
    from scipy import sparse

    folder = tmp_path_factory.mktemp("template")
    (folder / "file.txt").write_text("text")

    @ReactorFunc
    def everything(pipe: Any) -> None:
        pipe.send("simple", 7)
        pipe.send("text", "x" * 500)
        pipe.send("list", [1, [2.5, "x"]])
        pipe.send("object", {"a": (1, {2})})
        pipe.send("object in small", {"a": b"x" * 20_000})
        pipe.send("object in files", {"a": np.zeros(300_000)})
        pipe.send("array", np.arange(20.0))
        pipe.send("array in files", np.arange(300_000.0))
        pipe.send("sparse", sparse.csr_array(np.eye(5)))
        pipe.send("hdf", np.arange(20.0), specs.HdfArraySpec)
        pipe.send("file", str(folder / "file.txt"), Ingredient.Type.file)

    forget_reactors()
    with Plant(folder / "plant", durability="process") as plant:
        plant.add_reactors(everything)
        plant.run_reactor(everything)
        plant.produce("object")
    forget_reactors()
    return folder / "plant"


@pytest.fixture
def stores(template: Path, tmp_path: Path) -> tuple[Path, Path]:
    """Two copies of it: one stays as it is, the other is for the attacker."""
    for name in ("friendly", "strange"):
        shutil.copytree(template, tmp_path / name)
    return tmp_path / "friendly", tmp_path / "strange"


def test_a_friendly_store_is_all_read(stores: tuple[Path, Path]) -> None:
    told = visit(*stores, "own")
    assert told["bare"] == [] and not [error for error in told["errors"] if "NoProducer" not in error]
    assert any("pickle" in event for event in told["events"])  # the hook does see what it is there to see


def test_the_bombs_go_off_where_they_are_trusted(stores: tuple[Path, Path], tmp_path: Path) -> None:
    """The positive control: in a store of one's own, a pickle is decoded."""
    _, strange = stores
    for number, bomb in enumerate(bombs(tmp_path / "marker")):
        Forger(strange).add(f"bomb {number}", "object", {"value.pickle": bomb}, home=IN_RECORD)
    told = visit(*stores, "own")
    assert (tmp_path / "marker").exists()
    assert any("os.mkdir" in event for event in told["events"])


def put_in_every_record(store: Path, bomb: bytes, marker: Path) -> None:
    assert Forger(store).replace(lambda table, key, body: bomb) > 20


def put_in_every_payload(store: Path, bomb: bytes, marker: Path) -> None:
    forger = Forger(store)
    parts = {
        "simple": ("value.json", {}),
        "list": ("value.json", {}),
        "object": ("value.pickle", {}),
        "array": ("data.npy", {}),
        "sparse": ("data.npy", {"class": "csr_array", "shape": [5, 5]}),
        "hdf": ("data.h5", {"shape": [20], "dtype": "<f8"}),
        "file": ("file.pkl", {"part": "file.pkl"}),
        "keras": ("model.keras", {}),
        "zarr": ("zarr.json", {"shape": [20], "dtype": "<f8"}),
        "no such type": ("value.pickle", {}),
    }
    for spec, (part, meta) in parts.items():
        for home in (IN_RECORD, IN_SMALL, IN_FILES):
            forger.add(f"{spec} {home}", spec, {part: bomb}, meta, home)


def put_in_every_text(store: Path, bomb: bytes, marker: Path) -> None:
    """As JSON texts in the places where texts are."""
    text = json.dumps(bomb.decode("latin-1")).encode()
    Forger(store).replace(lambda table, key, body: text)


def put_in_every_file(store: Path, bomb: bytes, marker: Path) -> None:
    for path in store.rglob("*"):
        if path.is_file() and path.name != "data.mdb":
            path.chmod(0o600)
            path.write_bytes(bomb)
    ledger = store / "staging" / "resume" / ("0" * 32) / ("1" * 32)
    ledger.mkdir(parents=True)
    (ledger / "ledger").write_bytes(bomb)


def put_in_the_data_files(store: Path, bomb: bytes, marker: Path) -> None:
    for path in (*store.rglob("data.mdb"), store / "backup" / "meta.mdb"):
        path.write_bytes(bomb * 100)


def put_beside(store: Path, bomb: bytes, marker: Path) -> None:
    """Files that other stores and tools would read."""
    for name in ("cache.db", "state.pkl", "index.pickle", "conftest.py", "sitecustomize.py", "reactors.pkl"):
        (store / name).write_bytes(bomb)
        (store / "objects" / name).write_bytes(bomb)


PLACES: list[Callable[[Path, bytes, Path], None]] = [
    put_in_every_record,
    put_in_every_payload,
    put_in_every_text,
    put_in_every_file,
    put_in_the_data_files,
    put_beside,
]


@pytest.mark.parametrize("place", PLACES, ids=lambda place: place.__name__)
def test_looking_runs_nothing(stores: tuple[Path, Path], tmp_path: Path, place: Any) -> None:
    friendly, strange = stores
    marker = tmp_path / "marker"
    place(strange, bombs(marker)[2], marker)
    assert_harmless(friendly, strange)
    assert not marker.exists()


@pytest.mark.campaign
@pytest.mark.parametrize("place", PLACES, ids=lambda place: place.__name__)
@pytest.mark.parametrize("number", range(11))
def test_looking_runs_nothing_whatever_the_pickle(
    stores: tuple[Path, Path], tmp_path: Path, place: Any, number: int
) -> None:
    friendly, strange = stores
    marker = tmp_path / "marker"
    place(strange, bombs(marker)[number], marker)
    assert_harmless(friendly, strange)
    assert not marker.exists()


def test_a_store_that_others_may_write_to_is_not_trusted(stores: tuple[Path, Path], tmp_path: Path) -> None:
    friendly, strange = stores
    for number, bomb in enumerate(bombs(tmp_path / "marker")):
        Forger(strange).add(f"bomb {number}", "object", {"value.pickle": bomb}, home=IN_RECORD)
    os.chmod(strange, 0o777)
    told = visit(friendly, strange, "own")
    assert not (tmp_path / "marker").exists() and told["bare"] == []
    assert sum("UntrustedStore" in error for error in told["errors"]) >= len(bombs(tmp_path))


@AS_ROOT
@pytest.mark.parametrize("whose", ["", "meta.lmdb/data.mdb", "objects"])
def test_a_store_of_somebody_else_is_not_trusted(stores: tuple[Path, Path], tmp_path: Path, whose: str) -> None:
    friendly, strange = stores
    Forger(strange).add("bomb", "object", {"value.pickle": bombs(tmp_path / "marker")[2]})
    os.chown(strange / whose, 12345, 12345)
    told = visit(friendly, strange, "own")
    assert not (tmp_path / "marker").exists() and told["bare"] == []
    assert any("UntrustedStore" in error for error in told["errors"])


def test_a_payload_of_somebody_else_is_not_decoded(stores: tuple[Path, Path], tmp_path: Path) -> None:
    """A folder of objects that others may write to, deep in a store of ours."""
    friendly, strange = stores
    ref = Forger(strange).add("bomb", "object", {"value.pickle": bombs(tmp_path / "marker")[2]})
    os.chmod(strange / "objects" / ref.address[:2] / ref.address, 0o777)
    told = visit(friendly, strange, "own")
    assert told["bare"] == []
    assert not (tmp_path / "marker").exists(), "whoever may write there may put any pickle there with a right checksum?"


def ref_to(spec: str, address: str, meta: str) -> ObjectRef:
    """A reference to anything."""
    return ObjectRef(spec, 1, "ab" * 16, address, 10, meta)


@pytest.mark.parametrize(
    "address", ["../../../../etc/passwd", "/etc/passwd", "0" * 31, "0" * 31 + "/", "", "A" * 32, "\0" * 32]
)
def test_an_address_is_no_path(stores: tuple[Path, Path], address: str) -> None:
    friendly, strange = stores
    Forger(strange).put(named("x", ref_to("file", address, '{"part":"passwd"}')))
    errors = assert_harmless(friendly, strange)
    assert any("fetch x" in error and "PayloadMissing" in error for error in errors)


@pytest.mark.parametrize(
    "part", ["../../../../../../../../etc/passwd", "/etc/passwd", "..", "a/b", "", ".hidden", "a\0b", "x" * 101]
)
def test_a_part_is_no_path(stores: tuple[Path, Path], part: str) -> None:
    from pyplantx.fingerprint.value import hash_bytes
    from pyplantx.warehouse.records import ObjectRecord, Part, encode_object
    from pyplantx.warehouse.staging import make_address

    friendly, strange = stores
    data = Path("/etc/passwd").read_bytes()
    parts = (Part(part, len(data), hash_bytes(data)),)
    meta = json.dumps({"part": part})
    address = make_address("file", 1, meta, parts)
    (strange / "objects" / address[:2] / address).mkdir(parents=True)
    record = ObjectRecord("file", 1, "ab" * 16, meta, IN_FILES, parts, 1.0)
    Forger(strange).put(
        ("objects", address.encode(), encode_object(record, b"")), named("x", ref_to("file", address, meta))
    )
    errors = assert_harmless(friendly, strange)
    assert any("fetch x" in error for error in errors)


@pytest.mark.parametrize("noise", [b"\xff", b"\0", b"\x08\0"])
def test_a_forged_mark_of_a_clean_close_is_not_believed(stores: tuple[Path, Path], noise: bytes) -> None:
    """In a store that was given to us, LMDB never gets a file to see that only the giver calls sound."""
    friendly, strange = stores
    for name in ("meta.lmdb", "small.lmdb"):
        path = strange / name / "data.mdb"
        data = path.read_bytes()
        path.write_bytes(data[:8192] + noise * ((len(data) - 8192) // len(noise)))
    write_mark(Layout(str(strange)), durable=False)
    assert_harmless(friendly, strange)
