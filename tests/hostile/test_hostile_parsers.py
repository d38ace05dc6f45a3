"""Fuzzing of what else reads bytes from a store: specs of several parts, notes, keys, tables, recorded questions.

As in ``test_hostile_bytes.py``: a value, "absent", or an error of the hierarchy; no other one, no wait, no death.
"""

from __future__ import annotations

import os
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pyplantx import Plant, ReactorFunc, specs
from pyplantx.core.trace import Question
from pyplantx.errors import PyplantxError
from pyplantx.fingerprint.value import hash_text
from pyplantx.session.world import Answers
from pyplantx.warehouse import apart, formatfile, records, roots, trust
from pyplantx.warehouse.claims import Claims
from pyplantx.warehouse.files import Layout
from pyplantx.warehouse.payloads import MemoryPayload
from pyplantx.warehouse.warehouse import Warehouse
from tests.hostile.strangers import AWKWARD
from tests.hostile.test_hostile_bytes import (  # noqa: F401 (fixtures)
    LONG_LIMIT,
    examples,
    fuzz,
    in_child,
    little_memory,
    mutated,
)

# -- records -------------------------------------------------------------------------------------------


def test_the_other_records(examples: int) -> None:  # noqa: F811
    fuzz(records.decode_parts, [b'{"label":"' + b"d" * 32 + b'"}'], examples)
    fuzz(records.decode_blob, [b'["4:kindx","text"]'], examples)
    entry = b'[{"reactor":"r","id":"r","action":"ran","reason":"new","started":1.0,"seconds":1.0}]'
    fuzz(records.decode_history, [entry], examples)


def test_what_is_held(examples: int) -> None:  # noqa: F811
    def addresses(data: bytes) -> None:
        assert all(isinstance(item, str) for item in roots._addresses(data.decode("utf-8", "surrogateescape")))

    def last_run(data: bytes) -> None:
        found = roots._decode("script", data.decode("utf-8", "surrogateescape"))
        assert isinstance(found.when, float) and isinstance(found.why, str)

    fuzz(addresses, [b'["' + b"a" * 32 + b'"]'], examples)
    fuzz(last_run, [b'[1.5,"' + b"a" * 64 + b'"]'], examples)


# -- files of the directory ----------------------------------------------------------------------------


def test_what_a_signed_store_says(examples: int, tmp_path: Path) -> None:  # noqa: F811
    key, store = tmp_path / "key", tmp_path / "store"
    with Warehouse(store, trust="signed", key=key, durability="process"):
        pass
    layout = Layout(str(store))
    sound = Path(layout.format).read_bytes()

    def parse(data: bytes) -> None:
        Path(layout.format).write_bytes(data)
        Path(layout.format_copy).write_bytes(data)
        formatfile.find_sealing(layout, "signed", key, read_only=True)

    def checked(data: bytes) -> None:
        """With the checksum that anybody can compute."""
        try:
            said = records.from_json(data.decode())
            signature = trust.read_signature(said)
            said["check"] = formatfile._format_check(said["version"], signature)
        except (ValueError, TypeError, LookupError, AttributeError):
            return
        parse(records.to_json(said).encode())

    fuzz(parse, [sound], examples)
    fuzz(checked, [sound], examples)


def test_keys(examples: int, tmp_path: Path) -> None:  # noqa: F811
    path = tmp_path / "key"
    path.touch(0o600)

    def parse(data: bytes) -> None:
        path.write_bytes(data)
        assert len(trust._read_key(str(path))) == 32

    fuzz(parse, [b"ab" * 32 + b"\n"], examples)


def test_notes_of_an_index_that_is_apart(examples: int, tmp_path: Path) -> None:  # noqa: F811
    store, index = tmp_path / "store", tmp_path / "index"
    with Warehouse(store, index=index, durability="process"):
        pass
    layout = Layout(str(store), str(index))
    for path in (store / "index.json", index / "objects.json"):
        sound = path.read_bytes()

        def parse(data: bytes, path: Path = path) -> None:
            path.write_bytes(data)
            apart.check_pair(layout)

        fuzz(parse, [sound], examples)
        path.write_bytes(sound)


def test_tables_of_claims(examples: int, tmp_path: Path) -> None:  # noqa: F811
    """Numbers that nobody has drawn mean nothing; what waits is told in files that may hold anything."""
    rng = random.Random(1)
    for _ in range(max(3, examples // 50)):
        size = rng.choice([0, 7, 4096, 1 << 20, (1 << 20) + 8, 3 << 20])
        folder = tmp_path / str(rng.random())
        folder.mkdir()
        (folder / "claims.lock").write_bytes(rng.randbytes(size))
        for name, text in (("1-a", b""), (f"{os.getpid()}-b", b"9" * 5000), ("x", b"\xff"), ("2-c", b"-1")):
            (folder / f"{name}.waits").write_bytes(text)
        in_child(lambda: _claim(folder))  # noqa: B023


def _claim(folder: Path) -> None:
    claims = Claims(str(folder))
    for number in range(50):
        claim = claims.claim(str(number), 0.0)
        assert claim is not None
        assert Claims(str(folder)).claim(str(number), 0.01) is None
        claim.release()


# -- payloads ------------------------------------------------------------------------------------------


def parts_of(folder: Path, value: Any, spec: Any) -> tuple[dict[str, bytes], dict[str, Any]]:
    """Parts and metadata of a value, as the spec writes them."""
    with Warehouse(folder, durability="process") as warehouse:
        ref = warehouse.store("x", value, spec)
        payload = warehouse._opener._payload(ref)
        return {part: bytes(payload.read(part)) for part in payload.parts()}, records.from_json(ref.meta)


def fuzz_spec(spec: Any, parts: dict[str, bytes], meta: dict[str, Any], count: int, use: Any) -> None:
    """Open it with one part or its metadata changed; in a child, should a library die."""
    cases: list[tuple[str, bytes]] = []

    @settings(max_examples=count, deadline=None, suppress_health_check=list(HealthCheck))
    @given(st.data())
    def collect(data: Any) -> None:
        name = data.draw(st.sampled_from(["", *parts]))
        cases.append((name, data.draw(mutated([parts[name] if name else records.to_json(meta).encode()]))))

    def open_one(name: str, changed: bytes) -> None:
        told = meta
        if not name:
            try:
                told = records.from_json(changed.decode())
            except ValueError:
                return
            if not isinstance(told, dict):
                return  # `meta_of` refuses that
        try:
            use(spec.open(MemoryPayload({**parts, name: changed} if name else parts), told, 1))
        except PyplantxError:
            return

    collect()
    in_child(lambda: [open_one(*case) for case in cases], LONG_LIMIT)


@pytest.mark.parametrize("form", ["csr", "csc", "bsr", "coo", "dia", "lil", "dok"])
def test_sparse_matrices(examples: int, tmp_path: Path, form: str) -> None:  # noqa: F811
    from scipy import sparse

    spec = specs.ScipySparseSpec(full_check=True)
    made = sparse.csr_array(np.diag(np.arange(1.0, 7.0)) + np.eye(6, k=2)).asformat(form)
    parts, meta = parts_of(tmp_path, made, specs.ScipySparseSpec)
    fuzz_spec(spec, parts, meta, examples // 3, lambda value: value @ np.ones(value.shape[-1]))  # coo may have one axis


def test_zarr_arrays(examples: int, tmp_path: Path) -> None:  # noqa: F811
    pytest.importorskip("zarr", minversion="3")
    parts, meta = parts_of(tmp_path, np.arange(24.0).reshape(4, 6), specs.ZarrArraySpec)
    fuzz_spec(specs.ZarrArraySpec(), parts, meta, examples, lambda value: value[...])


@pytest.mark.parametrize("layout", ["gzip", "gzip shuffle", "fletcher32", "lzf"])
def test_packed_hdf5_files(examples: int, layout: str) -> None:  # noqa: F811
    """Their chunks are unpacked by functions of ours, and by HDF5 where there are none."""
    import io

    import h5py

    from pyplantx.specs.hdf import _backend
    from pyplantx.specs.zarrstore import InMemory

    packing, *more = layout.split()
    filters: dict[str, Any] = {"fletcher32": True} if packing == "fletcher32" else {"compression": packing}
    buffer = io.BytesIO()
    with h5py.File(buffer, "w", libver=("v110", "v110")) as file:
        file.create_dataset("data", data=np.arange(60.0), chunks=(7,), shuffle=bool(more), **filters)
    found: list[bytes] = []

    @settings(max_examples=examples, deadline=None, suppress_health_check=list(HealthCheck))
    @given(mutated([buffer.getvalue()]))
    def collect(data: bytes) -> None:
        found.append(data)

    def open_one(data: bytes) -> None:
        try:
            backend = _backend(InMemory(data), {"shape": [60], "dtype": "<f8"})
            backend.read(...)
        except PyplantxError:
            return

    collect()
    in_child(lambda: [open_one(data) for data in found], LONG_LIMIT)


# -- recorded questions and notes ----------------------------------------------------------------------


@ReactorFunc
def asks(pipe: Any) -> None:
    pipe.send("x", pipe.read_config("lr"))


@pytest.fixture
def answers(tmp_path: Path) -> Iterator[Any]:
    with Plant(tmp_path / "plant", config={"lr": 1}, durability="process") as plant:
        plant.add_reactors(asks)
        plant.produce("x")
        plant._fingerprinter.begin_activity()
        world = Answers(
            plant._config_source,
            plant._fingerprinter,
            plant.warehouse,
            plant._advice.error_of,
            plant._subreactor_started,
        )
        yield lambda kind, key: world.answer(asks, Question(kind, key))


KINDS = ("config", "subreactor", "classes", "file", "env", "no such kind", "")
KEYS = (
    *AWKWARD,
    "=",
    "=os",
    "=.x:y",
    "=os:path",
    "=a\0b:c",
    "os:environ",
    "json:loads x:y",
    "=builtins:int",
    "{}",
    "[1",
)


@pytest.mark.parametrize("kind", KINDS)
def test_recorded_questions(answers: Any, examples: int, kind: str) -> None:  # noqa: F811
    """A forged trace may ask anything: there is an answer, which need be no right one."""

    @settings(max_examples=examples, deadline=None, suppress_health_check=list(HealthCheck))
    @given(st.text(st.characters(), max_size=30) | st.sampled_from(KEYS))
    def run(key: str) -> None:
        ask(key)

    def ask(key: str) -> None:
        if kind != "file" or not is_folder(key):  # all that is in it would be read: of "/" the whole disk
            assert isinstance(answers(kind, key).answer, str)

    for key in KEYS:
        ask(key)
    run()


def is_folder(path: str) -> bool:
    try:
        return os.path.isdir(path)
    except ValueError:  # a name that no file can have
        return False


def test_questions_about_files_that_are_none(answers: Any, tmp_path: Path) -> None:
    """A pipe would keep us waiting, a device never ends."""
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "file").write_text("x")
    ordinary = answers("file", str(tmp_path / "file")).answer

    def ask() -> None:
        paths = (tmp_path / "pipe", Path("/dev/zero"), Path("/dev/null"))
        told = {answers("file", str(path)).answer for path in paths}
        assert len(told) == 1 and ordinary not in told

    in_child(ask)


def test_noted_digests_of_files(answers: Any, examples: int, tmp_path: Path, monkeypatch: Any) -> None:  # noqa: F811
    path = tmp_path / "file"
    path.write_text("x")
    right = answers("file", str(path)).answer
    noted: list[str] = [""]
    monkeypatch.setattr(Warehouse, "blob_get", lambda self, kind, key: noted[0])

    def parse(data: bytes) -> None:
        noted[0] = data.decode("utf-8", "surrogateescape")
        assert answers("file", str(path)).answer == right

    fuzz(parse, [b'[[1,2,3,4,5],"' + hash_text("x").encode() + b'"]'], examples)
