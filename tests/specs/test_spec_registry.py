"""Which spec stores what, how types are named, and that nothing heavy is loaded before it is needed."""

from __future__ import annotations

import builtins
import os
import subprocess
import sys

import numpy as np
import pytest
import scipy.sparse as sp

from pyplantx import specs
from pyplantx.errors import BadRequest, CannotStore, DamagedObject, MissingLibrary, UnknownSpec
from pyplantx.ingredient import Ingredient
from pyplantx.spec_tests import FolderPayload, FolderStage, stored
from pyplantx.specs.base import IngredientTypeSpec, Written
from pyplantx.specs.services import Services


class Everything(IngredientTypeSpec):
    name = "everything"

    def recognise(self, value):
        return True

    def write(self, value, stage):
        return Written("0" * 32)

    def open(self, payload, meta, version):
        return None


class Integers(Everything):
    name = "integers"
    version = 3

    def recognise(self, value):
        return type(value) is int


class LargeHdf(specs.HdfArraySpec):
    """A user's own variant of a built-in keeps its name."""


@pytest.mark.parametrize(
    ("value", "name"),
    [
        (None, "simple"),
        (True, "simple"),
        (3, "simple"),
        (2.0, "simple"),
        ("x", "simple"),
        (b"", "simple"),
        (1j, "simple"),
        ([], "list"),
        ([1, ["a"]], "list"),
        ([(1,)], "object"),
        ((1, 2), "object"),
        ({}, "object"),
        ({1}, "object"),
        (np.zeros(3), "array"),
        (np.float64(1), "array"),
        (np.ma.zeros(2), "array"),
        (np.array([None]), "object"),
        (sp.eye_array(3), "sparse"),
        (sp.csr_matrix((2, 2)), "sparse"),
        (np.str_("a"), "object"),
        (open, "object"),
    ],
)
def test_inference(value, name):
    assert specs.SpecRegistry().infer(value).name == name


def test_the_newest_registration_is_asked_first():
    registry = specs.SpecRegistry()
    registry.register([Everything()])
    assert registry.infer(5).name == "everything"
    registry.register(Integers)
    assert registry.infer(5).name == "integers" and registry.infer("x").name == "everything"
    registry.register([Everything])
    assert registry.infer(5).name == "everything"
    assert [spec.name for spec in registry.added()] == ["integers", "everything"]
    assert registry.names() == (
        "file",
        "array",
        "sparse",
        "hdf",
        "zarr",
        "keras",
        "object",
        "simple",
        "list",
        "everything",
        "integers",
    )


def test_registering_built_ins_again_changes_nothing():
    registry = specs.SpecRegistry(Services(full_check=True))
    before = registry.names()
    registry.register([specs.HdfArraySpec(), specs.ScipySparseSpec(), specs.KerasModelSpec()])
    registry.register([specs.HdfArraySpec, specs.SimpleSpec()])
    assert set(registry.names()) == set(before)
    assert registry.infer(5).name == "simple"
    assert registry.get("sparse").services.full_check


def test_a_variant_of_a_built_in_takes_its_place():
    registry = specs.SpecRegistry()
    registry.register([LargeHdf()])
    assert type(registry.get("hdf")) is LargeHdf
    assert type(registry.resolve(specs.HdfArraySpec)) is LargeHdf


def test_a_class_that_a_notebook_cell_defines_anew():
    def cell():
        return type("Cell", (Everything,), {"name": "cell", "__module__": "__main__", "__qualname__": "Cell"})

    registry = specs.SpecRegistry()
    registry.register([cell()])
    registry.register([cell()])
    assert registry.resolve(cell()).name == "cell"


def test_resolving():
    registry = specs.SpecRegistry()
    registry.register([Integers()])
    for given, name in [
        *((member, member.value) for member in Ingredient.Type),
        ("hdf", "hdf"),
        (specs.HdfArraySpec, "hdf"),
        (specs.HdfArraySpec(), "hdf"),
        (specs.ScipySparseSpec, "sparse"),
        (specs.KerasModelSpec, "keras"),
        (specs.FileSpec, "file"),
        (Integers, "integers"),
        (Integers(), "integers"),
    ]:
        assert registry.resolve(given).name == name
    assert registry.resolve(Integers) is registry.get("integers", 2)


def test_unknown_types_come_with_advice():
    registry = specs.SpecRegistry()
    with pytest.raises(UnknownSpec, match="did you mean 'array'"):
        registry.resolve("arrays")
    with pytest.raises(UnknownSpec, match="register_ingredient_specs"):
        registry.get("point", 1)
    with pytest.raises(
        UnknownSpec, match=r"Integers is not registered[\s\S]*register_ingredient_specs\(\[Integers\(\)\]\)"
    ):
        registry.resolve(Integers)
    with pytest.raises(UnknownSpec, match="format version 2 of 'array'[\\s\\S]*upgrade"):
        registry.get("array", 2)
    with pytest.raises(UnknownSpec, match="version 0"):
        registry.get("array", 0)


class OldStyle:
    @classmethod
    def get_name(cls):
        return "old"

    def is_instance(self, value):
        return False

    def store(self, warehouse, name, value):
        return None

    def fetch(self, warehouse, name, meta=None):
        return None


class OldStyleDerived(OldStyle, IngredientTypeSpec):
    pass


@pytest.mark.parametrize("old", [OldStyle, OldStyle(), OldStyleDerived, OldStyleDerived()])
def test_specs_made_for_pyplant_are_told_how_to_move(old):
    registry = specs.SpecRegistry()
    for use in (registry.resolve, lambda given: registry.register([given])):
        with pytest.raises(BadRequest, match=r"PyPlant's custom specs had another interface[\s\S]*recognise"):
            use(old)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (5, "5 is not an ingredient type"),
        (int, "not an ingredient type"),
        (IngredientTypeSpec, "lacks the method write and the method open and a name"),
    ],
)
def test_other_things_are_no_types(given, message):
    with pytest.raises(BadRequest, match=message):
        specs.SpecRegistry().resolve(given)


def test_names_are_unique():
    class Thief(Everything):
        name = "array"

    with pytest.raises(BadRequest, match="'array' of .*Thief is taken by ArraySpec"):
        specs.SpecRegistry().register([Thief()])


def test_what_is_injected_is_used():
    registry = specs.SpecRegistry(
        Services(encode=lambda value: "f" * 32, is_project_class=lambda kind: kind is Everything)
    )
    with stored(registry.infer(5), 5) as entry:
        assert entry.written.digest == "f" * 32
    with stored(registry.infer({}), {"a": Everything()}) as entry:
        assert entry.meta["classes"] == [f"{__name__}:Everything"]
    with stored(specs.SpecRegistry(Services(writable=False)).infer(np.zeros(3)), np.zeros(3)) as entry:
        assert not entry.open().flags.writeable


LOADED = """
import sys
from pyplantx import specs
from pyplantx.ingredient import Ingredient
registry = specs.SpecRegistry()
registry.register([specs.HdfArraySpec(), specs.ScipySparseSpec(), specs.KerasModelSpec()])
assert [registry.infer(value).name for value in (1, [1], {})] == ["simple", "list", "object"]
heavy = ("numpy", "scipy", "h5py", "dill", "keras", "pickle", "dataclasses", "inspect")
print([name for name in heavy if name in sys.modules])
"""


def test_nothing_heavy_is_loaded_before_it_is_needed():
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    done = subprocess.run([sys.executable, "-c", LOADED], env=environment, check=True, capture_output=True, text=True)
    assert done.stdout.strip() == "[]"


@pytest.mark.parametrize(
    ("library", "action"),
    [
        ("h5py", lambda folder: specs.HdfArraySpec().allocate(FolderStage(folder), shape=(3,))),
        ("h5py", lambda folder: specs.HdfArraySpec().open(FolderPayload(folder, ["data.h5"], None), {}, 1)),
        ("dill", lambda folder: specs.ObjectSpec().write(lambda: 1, FolderStage(folder))),
        ("keras", lambda folder: specs.KerasModelSpec().write(1, FolderStage(folder))),
    ],
)
def test_a_missing_library_is_named(library, action, tmp_path, monkeypatch):
    real = builtins.__import__

    def without(name, *rest):
        if name.partition(".")[0] == library:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
        return real(name, *rest)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(MissingLibrary, match=rf"needs the package '{library}'[\s\S]*pip install {library}"):
        action(str(tmp_path))


# -- files ----------------------------------------------------------------------------------------


def test_allocated_files(tmp_path):
    stage = FolderStage(str(tmp_path))
    allocation = specs.FileSpec().allocate(stage, suffix=".png")
    assert allocation.handle.endswith(".png") and not os.path.exists(allocation.handle)
    with open(allocation.handle, "wb") as file:
        file.write(b"image")
    written = allocation.seal()
    payload = stage.seal(inline=True)
    received = specs.FileSpec().open(payload, written.meta, 1)
    assert open(received, "rb").read() == b"image" and payload.is_file(os.path.basename(received))
    assert specs.FileSpec().preview(payload, written.meta, 1) == "file.png of 5 bytes"
    copied = tmp_path / "given.png"
    copied.write_bytes(b"image")
    with stored(specs.FileSpec(), str(copied)) as entry:
        assert entry.written.digest == written.digest


def test_content_and_ending_of_a_file_make_its_digest(tmp_path):
    digests = set()
    for name, content in {"a.png": b"1", "b.png": b"1", "c.png": b"2", "a.jpg": b"1", "a": b"1", "d.png": b""}.items():
        (tmp_path / name).write_bytes(content)
        with stored(specs.FileSpec(), tmp_path / name) as entry:
            digests.add(entry.written.digest)
    assert len(digests) == 5


def test_files_that_can_not_be_sent(tmp_path):
    spec = specs.FileSpec()
    os.mkfifo(tmp_path / "pipe")
    for value, message in [
        (5, "value is a int, not a path"),
        (tmp_path / "none", "there is no file"),
        (tmp_path, "is a folder"),
        ("nul\0", "there is no file"),
        (tmp_path / "pipe", "not a regular file"),
    ]:
        with pytest.raises(CannotStore, match=message):
            spec.write(value, FolderStage(str(tmp_path)))
    with pytest.raises(CannotStore, match="never written"):
        spec.allocate(FolderStage(str(tmp_path))).seal()
    for options, message in [
        ({"suffix": "../x"}, "can't be the ending"),
        ({"suffix": 5}, "can't be"),
        ({"shape": 3}, "a file can.t have shape=\n  hint: only suffix is possible"),
    ]:
        with pytest.raises(BadRequest, match=message):
            spec.allocate(FolderStage(str(tmp_path)), **options)


def test_a_file_payload_has_one_part():
    with pytest.raises(DamagedObject, match="has the one part 'file.png'"):
        specs.FileSpec().open(FolderPayload("", ["file.exe"]), {"part": "file.png"}, 1)


# -- sparse ---------------------------------------------------------------------------------------


def tampered(value, **parts):
    """A payload of `value` with some parts replaced, and its metadata."""
    with stored(specs.ScipySparseSpec(), value) as entry:
        contents, meta = entry.contents(), entry.meta
    for name, array in parts.items():
        with stored(specs.ArraySpec(), array) as part:
            contents[f"{name.replace('_', '-')}.npy"] = part.contents()["data.npy"]
    return FolderPayload("", list(contents), contents), meta


CSR = sp.csr_array(np.array([[1.0, 0], [0, 2]]))


@pytest.mark.parametrize(
    ("value", "parts", "full", "reason"),
    [
        (CSR, {"indptr": np.array([0, 1])}, False, "row pointer has the wrong length"),
        (CSR, {"indptr": np.array([0, 1, 5])}, False, "points outside of the values"),
        (CSR, {"indptr": np.array([1, 1, 2])}, False, "points outside of the values"),
        (CSR, {"indices": np.array([0])}, False, "more indices than values"),
        (CSR, {"data": np.zeros((2, 1, 1))}, False, "wrong number of axes"),
        (CSR.tobsr((1, 1)), {"data": np.zeros(2)}, False, "wrong number of axes"),
        (CSR.tobsr((1, 1)), {"data": np.zeros((2, 0, 1))}, False, "don't fit"),
        (CSR, {"indices": np.array([0, 1_000_000], "i4")}, True, "don't fit"),
        (CSR, {"indices": np.array([0, -1], "i4")}, True, "don't fit"),
        (CSR, {"indptr": np.array([0, 2, 1], "i4")}, True, "don't fit"),
        (CSR.tocoo(), {"coords_0": np.array([0])}, False, "more indices than values"),
        (CSR.tocoo(), {"coords_0": np.array([0, 7], "i4")}, True, "index is out of range"),
        (CSR.tolil(), {"indices": np.array([0, 7])}, True, "index is out of range"),
        (CSR.tolil(), {"indptr": np.array([0, 7])}, False, "wrong length"),
        (CSR.todok(), {"keys": np.array([[0, 7], [0, 0]])}, True, "index is out of range"),
        (CSR.todok(), {"keys": np.array([0, 7])}, False, "more indices than values"),
        (CSR.todia(), {"offsets": np.array([0, 0], "i4"), "data": np.ones((2, 2))}, True, "an offset occurs twice"),
        (CSR.todia(), {"offsets": np.array([0, 0], "i4")}, False, "more diagonals"),
    ],
)
def test_sparse_payloads_that_do_not_fit_are_refused(value, parts, full, reason):
    payload, meta = tampered(value, **parts)
    with pytest.raises(DamagedObject, match=reason):
        specs.ScipySparseSpec(full_check=full).open(payload, meta, 1)


def test_sparse_metadata_are_checked():
    payload, meta = tampered(CSR)
    for shape in ([1 << 60, 2], [2, 2, 2], [-5, 2], ["x", 2], []):
        with pytest.raises(DamagedObject, match="don't fit"):
            specs.ScipySparseSpec().open(payload, {**meta, "shape": shape}, 1)
    for wrong in ("os_matrix", "csr_thing", "csrsystem"):
        with pytest.raises(DamagedObject, match="not a class of scipy.sparse"):
            specs.ScipySparseSpec().open(payload, {**meta, "class": wrong}, 1)
    with pytest.raises(DamagedObject, match="without its part"):
        specs.ScipySparseSpec().open(payload, {**meta, "class": "coo_array"}, 1)


def test_sparse_parts_are_mapped_and_indices_keep_their_width():
    wide = sp.csr_array(sp.eye_array(1000))
    wide.indices, wide.indptr = wide.indices.astype("i8"), wide.indptr.astype("i8")
    with stored(specs.ScipySparseSpec(), wide) as entry:
        received = entry.open()
        assert received.indices.dtype == received.indptr.dtype == np.int64
        assert all(type(part.base).__name__ == "mmap" for part in (received.data, received.indices, received.indptr))
        assert (received @ np.ones(1000)).sum() == 1000


def test_other_sparse_objects_are_objects(tmp_path):
    class Own(sp.csr_array):
        pass

    own = Own((2, 2))
    assert specs.SpecRegistry().infer(own).name == "object"
    for value, message in ((own, "not a sparse matrix or array of SciPy itself"), ([1], "value is a list")):
        with pytest.raises(CannotStore, match=message):
            specs.ScipySparseSpec().write(value, FolderStage(str(tmp_path)))
