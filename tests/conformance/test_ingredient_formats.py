"""The written formats of ingredient types against today's code, both ways.

Every golden file of every version opens to what its case.json says; what today's writer writes is read by readers that
know nothing but FORMAT.md; every file to be refused is refused for its reason; no type and no value is forgotten.
"""

from __future__ import annotations

import importlib.util
import json
import sys
from pathlib import Path
from typing import Any

import format_readers
import golden_values
import numpy as np
import pytest

from pyplantx import specs
from pyplantx.errors import PayloadMissing, WarehouseError
from pyplantx.spec_tests import FolderPayload, FolderStage
from pyplantx.specs.services import Services

LAW = Path(__file__).resolve().parents[2] / "specs"
REGISTRY = specs.SpecRegistry(Services(full_check=True))
NAMES = REGISTRY.names()


def cases(kind: str) -> list[Any]:
    found = (path for name in NAMES for path in sorted(LAW.glob(f"{name}/*/{kind}/*")))
    return [pytest.param(path, id="/".join(path.relative_to(LAW).parts)) for path in found]


def load(folder: Path) -> tuple[specs.IngredientTypeSpec, int, dict[str, Any], FolderPayload]:
    """(spec, version, case.json, payload) of a case folder."""
    name, version = folder.parts[-4:-2]
    case = json.loads((folder / "case.json").read_text())
    parts = sorted(path.name for path in folder.iterdir() if path.name != "case.json")
    return REGISTRY.get(name, int(version)), int(version), case, FolderPayload(str(folder), parts)


def inlined(payload: FolderPayload) -> FolderPayload:
    """The same payload as the index would hold it."""
    contents = {part: payload.read(part) for part in payload.parts()}
    return FolderPayload(payload._folder, list(contents), contents)


def skip_without_library(name: str) -> None:
    if name in ("keras", "zarr") and importlib.util.find_spec(name) is None:
        pytest.skip(f"{name} is not installed")


@pytest.mark.parametrize("folder", cases("golden"))
def test_golden_files_open_to_what_is_expected(folder):
    skip_without_library(folder.parts[-4])
    spec, version, case, payload = load(folder)
    python = case["meta"].get("python")
    if python not in (None, list(sys.version_info[:2])):
        with pytest.raises(PayloadMissing, match="bytecode of Python"):
            spec.open(payload, case["meta"], version)
        return
    ways = [payload] if spec.name in ("file", "hdf", "keras") else [payload, inlined(payload)]
    for way in ways:
        assert golden_values.received(spec, spec.open(way, case["meta"], version)) == case["value"]


@pytest.mark.parametrize("folder", cases("golden"))
def test_golden_files_are_what_format_md_says(folder):
    skip_without_library(folder.parts[-4])
    spec, _, case, payload = load(folder)
    if spec.name == "keras" or case["meta"].get("python") not in (None, list(sys.version_info[:2])):
        pytest.skip("can't be read independently here")
    assert independent(spec, payload, case["meta"], folder) == case["value"]


@pytest.mark.parametrize("folder", cases("golden"))
def test_previews_of_golden_files(folder):
    spec, version, case, payload = load(folder)
    line = spec.preview(payload, case["meta"], version)
    assert line.isprintable() and 0 < len(line) <= 200


@pytest.mark.parametrize("folder", cases("reject"))
def test_rejects_are_refused_with_their_reason(folder):
    if folder.parts[-4] != "keras":  # models are refused before keras is imported
        skip_without_library(folder.parts[-4])
    spec, version, case, payload = load(folder)
    ways = [payload] if spec.name in ("file", "hdf", "keras") else [payload, inlined(payload)]
    for way in ways:
        with pytest.raises(WarehouseError) as caught:
            spec.open(way, case["meta"], version)
        assert case["reason"] in str(caught.value)


VALUES = [(name, case) for name, values in golden_values.VALUES.items() for case in values]


@pytest.mark.parametrize(("name", "case"), VALUES, ids=["/".join(pair) for pair in VALUES])
def test_what_today_writes_is_what_format_md_says(name, case, tmp_path):
    skip_without_library(name)
    spec, value = REGISTRY.get(name), golden_values.VALUES[name][case]
    stage = FolderStage(str(tmp_path))
    written = golden_values.write(spec, value, stage)
    meta = json.loads(json.dumps(written.meta))
    payload = stage.seal()
    found = independent(spec, payload, meta, tmp_path)
    assert found == golden_values.received(spec, spec.open(payload, meta, spec.version))
    golden = json.loads((LAW / name / "1" / "golden" / case / "case.json").read_text())
    assert found == golden["value"]
    assert written.digest == golden.get("digest", written.digest)


def independent(spec: specs.IngredientTypeSpec, payload: FolderPayload, meta: dict[str, Any], folder: Path) -> Any:
    parts = {part: payload.read(part) for part in payload.parts()}
    return golden_values.received(spec, format_readers.READERS[spec.name](parts, meta, folder))


def has_its_own_digest(folder: Path) -> bool:
    """Whether FORMAT.md alone says the digest (those of other values and of fields are specs/fingerprint's)."""
    case = json.loads((folder / "case.json").read_text())
    plain = (
        folder.parts[-4] in ("array", "hdf", "zarr")
        and not case["meta"].get("class")
        and "[" not in case["value"]["dtype"]
    )
    return plain or folder.parts[-4] in ("file", "sparse")


@pytest.mark.parametrize("folder", [case for case in cases("golden") if has_its_own_digest(case.values[0])])
def test_digests_are_what_format_md_says(folder):
    spec, _, case, payload = load(folder)
    parts = {part: payload.read(part) for part in payload.parts()}
    if spec.name in ("file", "sparse"):
        expected = getattr(format_readers, f"{spec.name}_digest")(parts, case["meta"])
    else:
        array = np.asarray(format_readers.READERS[spec.name](parts, case["meta"], folder))
        expected = format_readers.array_digest(array, b"" if spec.name == "array" else spec.name.encode())
    assert case["digest"] == expected


@pytest.mark.parametrize("name", NAMES)
def test_every_type_has_its_law(name):
    for version in range(1, REGISTRY.get(name).version + 1):
        folder = LAW / name / str(version)
        text = (folder / "FORMAT.md").read_text()
        assert text.startswith(f"# `{name}`, version {version}\n")
        assert (folder / "PROVENANCE").read_text().strip()
        assert list((folder / "golden").iterdir()) and list((folder / "reject").iterdir())


@pytest.mark.parametrize("name", [name for name in NAMES if name != "keras"])
def test_every_golden_file_has_its_value_and_every_value_its_file(name):
    version = str(REGISTRY.get(name).version)
    assert {path.name for path in (LAW / name / version / "golden").iterdir()} == set(golden_values.VALUES[name])


def test_the_corpus_is_small_and_holds_no_python():
    files = [path for name in NAMES for path in LAW.glob(f"{name}/**/*") if path.is_file()]
    assert len(files) > 200
    assert max(path.stat().st_size for path in files) <= 65536
    assert not [path for path in files if path.suffix == ".py"]
