"""Received values for other libraries: lazily, without copies, in other processes too; rows of sparse matrices."""

from __future__ import annotations

import pickle
import sys

import numpy as np
import pytest
import scipy.sparse as sp

from pyplantx import specs
from pyplantx.errors import BadRequest, MissingLibrary
from pyplantx.spec_tests import FolderStage, stored
from pyplantx.specs import views
from pyplantx.specs.views import converted

ARRAY = np.arange(60.0).reshape(12, 5)


def hdf(tmp_path, array=ARRAY, **options):
    stage = FolderStage(str(tmp_path))
    spec = specs.HdfArraySpec()
    allocation = spec.allocate(stage, shape=array.shape, dtype=array.dtype, **options)
    allocation.handle[...] = array
    written = allocation.seal()
    return spec.open(stage.seal(), written.meta, 1)


def zarr(tmp_path, array=ARRAY):
    pytest.importorskip("zarr")
    stage = FolderStage(str(tmp_path))
    spec = specs.ZarrArraySpec()
    allocation = spec.allocate(stage, shape=array.shape, dtype=array.dtype, chunks=(4, 5))
    allocation.handle[...] = array
    written = allocation.seal()
    return spec.open(stage.seal(), written.meta, 1)


LAZY = {
    "in one piece": lambda path: hdf(path),
    "chunked": lambda path: hdf(path, chunks=(4, 2)),
    "packed": lambda path: hdf(path, compression="gzip", chunks=(5, 5)),
    "zarr": zarr,
}


@pytest.fixture(params=LAZY)
def lazy(request, tmp_path):
    return LAZY[request.param](tmp_path)


# -- numpy ----------------------------------------------------------------------------------------


def test_an_array_is_numpy_already():
    assert converted(ARRAY, "numpy", "x") is ARRAY


def test_datasets_as_numpy(lazy):
    found = converted(lazy, "numpy", "x")
    assert type(found) is np.ndarray and np.array_equal(found, ARRAY)
    found[0] = -1  # is private
    assert lazy[0, 1] == 1


def test_a_dataset_in_one_piece_is_mapped(tmp_path):
    found = converted(hdf(tmp_path), "numpy", "x")
    assert not found.flags.owndata


def test_datasets_without_elements_or_axes_or_with_fields(tmp_path):
    for number, array in enumerate([np.zeros((0, 3)), np.array(2.5), np.array([(1, 2.0)], [("a", "i1"), ("b", "f8")])]):
        folder = tmp_path / str(number)
        folder.mkdir()
        found = converted(hdf(folder, array), "numpy", "x")
        assert found.tobytes() == array.tobytes() and found.shape == array.shape


# -- dask -----------------------------------------------------------------------------------------


def test_datasets_as_dask(lazy):
    pytest.importorskip("dask.array")
    found = converted(lazy, "dask", "x")
    assert found.shape == (12, 5) and found.dtype == ARRAY.dtype
    assert np.array_equal(found[3:7, ::2].compute(scheduler="threads"), ARRAY[3:7, ::2])
    assert float(found.sum().compute(scheduler="sync")) == ARRAY.sum()
    assert float(pickle.loads(pickle.dumps(found)).sum().compute(scheduler="sync")) == ARRAY.sum()


def test_dask_blocks_are_whole_chunks(tmp_path, monkeypatch):
    pytest.importorskip("dask.array")
    monkeypatch.setattr(views, "_DASK_BLOCK", 4 * 5 * 8 * 2)
    assert converted(hdf(tmp_path, chunks=(4, 2)), "dask", "x").chunks == ((8, 4), (5,))
    monkeypatch.setattr(views, "_DASK_BLOCK", 100)
    assert converted(ARRAY, "dask", "x").chunks == ((2,) * 6, (5,))


def test_an_array_as_dask_is_not_copied():
    pytest.importorskip("dask.array")
    found = converted(ARRAY, "dask", "x")
    shared = found.map_blocks(lambda block: np.full((1, 1), np.shares_memory(block, ARRAY)), chunks=(1, 1), dtype=bool)
    assert shared.compute(scheduler="sync").all() and np.array_equal(found.compute(scheduler="sync"), ARRAY)


@pytest.mark.parametrize("kind", [sp.csr_matrix, sp.csr_array])
def test_a_csr_matrix_as_dask_comes_in_blocks_of_rows(kind, monkeypatch):
    da = pytest.importorskip("dask.array")
    matrix = kind(sp.random(30, 8, 0.3, random_state=1, format="csr"))
    monkeypatch.setattr(views, "_DASK_BLOCK", 200)
    found = converted(matrix, "dask", "x")
    assert found.numblocks[0] > 3 and found.numblocks[1] == 1
    sums = da.map_blocks(lambda block: np.asarray(block.sum(axis=1)).reshape(-1, 1), found, chunks=(found.chunks[0], 1))
    assert np.allclose(sums.compute(scheduler="sync"), np.asarray(matrix.sum(axis=1)).reshape(-1, 1))
    assert (found[3:9, 2:4].compute(scheduler="sync") != matrix[3:9, 2:4]).nnz == 0


# -- xarray ---------------------------------------------------------------------------------------


def test_datasets_as_xarray_are_read_where_they_are_asked_for(lazy, monkeypatch):
    pytest.importorskip("xarray")
    from pyplantx.specs import lazyxarray

    keys = []
    read = lazyxarray.Backed._read
    monkeypatch.setattr(lazyxarray.Backed, "_read", lambda self, key: (keys.append(key), read(self, key))[1])
    found = converted(lazy, "xarray", "speed")
    assert found.name == "speed" and found.dims == ("dim_0", "dim_1") and found.dtype == ARRAY.dtype
    part = found[2:9:3, -1]
    assert keys == []
    assert np.array_equal(part.values, ARRAY[2:9:3, -1]) and len(keys) == 1
    assert np.array_equal(found[::-1, [0, 3]].values, ARRAY[::-1, [0, 3]])
    assert float(found.sum()) == ARRAY.sum()


def test_writing_to_a_dataset_as_xarray_alters_this_one_alone(lazy):
    pytest.importorskip("xarray")
    found, other = (converted(lazy, "xarray", "speed") for _ in range(2))
    found[2:4, 0] = -7
    altered = ARRAY.copy()
    altered[2:4, 0] = -7
    assert np.array_equal(found.values, altered) and np.array_equal(other.values, ARRAY)
    assert np.array_equal(lazy[...], ARRAY)


@pytest.mark.parametrize("make", [hdf, zarr])
def test_datasets_without_elements_as_xarray(make, tmp_path):
    pytest.importorskip("xarray")
    found = converted(make(tmp_path, ARRAY[:0]), "xarray", "x")
    assert found.shape == found[::-1].values.shape == (0, *ARRAY.shape[1:]) and found.dtype == ARRAY.dtype


def test_an_array_as_xarray_is_not_copied():
    pytest.importorskip("xarray")
    assert np.shares_memory(converted(ARRAY, "xarray", "x").values, ARRAY)


# -- torch ----------------------------------------------------------------------------------------


def test_an_array_as_torch_is_a_tensor_on_its_memory():
    pytest.importorskip("torch")
    array = ARRAY.copy()
    found = converted(array, "torch", "x")
    found[0, 0] = -5
    assert array[0, 0] == -5


@pytest.mark.parametrize("array", [np.array(["a"]), np.zeros(2, ">f8"), np.zeros(2, [("a", "i4")])])
def test_elements_that_torch_does_not_have(array):
    pytest.importorskip("torch")
    with pytest.raises(BadRequest, match="can't be received as 'torch'"):
        converted(array, "torch", "x")


def test_a_read_only_array_is_no_tensor():
    pytest.importorskip("torch")
    array = ARRAY.copy()
    array.flags.writeable = False
    with pytest.raises(BadRequest, match="received read-only"):
        converted(array, "torch", "x")


def test_datasets_as_torch_are_rows(lazy):
    torch = pytest.importorskip("torch")
    found = converted(lazy, "torch", "x")
    assert isinstance(found, torch.utils.data.Dataset) and len(found) == 12
    assert found[3].tolist() == ARRAY[3].tolist() and found[-1].tolist() == ARRAY[-1].tolist()
    with pytest.raises(IndexError):
        found[12]
    loader = torch.utils.data.DataLoader(found, batch_size=5)
    assert [len(batch) for batch in loader] == [5, 5, 2]
    assert torch.cat(list(loader)).numpy().tolist() == ARRAY.tolist()
    assert [row.tolist() for row in found.__getitems__([7, 2])] == [ARRAY[7].tolist(), ARRAY[2].tolist()]
    assert len(list(found)) == 12


def test_rows_in_other_processes(lazy):
    torch = pytest.importorskip("torch")
    found = converted(lazy, "torch", "x")
    loader = torch.utils.data.DataLoader(found, batch_size=4, num_workers=2)
    assert torch.cat(list(loader)).numpy().tolist() == ARRAY.tolist()


def test_rows_of_a_sparse_matrix_come_dense():
    pytest.importorskip("torch")
    matrix = sp.csr_array(np.eye(3, 4))
    found = converted(matrix, "torch", "x")
    assert len(found) == 3 and found[1].tolist() == [0, 1, 0, 0]


def test_a_single_number_has_no_rows(tmp_path):
    pytest.importorskip("torch")
    with pytest.raises(BadRequest, match="no rows"):
        converted(hdf(tmp_path, np.array(2.5)), "torch", "x")


# -- trouble --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("value", "as_", "message"),
    [
        (ARRAY, "dusk", "can't be received as 'dusk'\n  hint: did you mean 'dask'? one of 'numpy', 'dask'"),
        (ARRAY, "pandas!!", "hint: one of 'numpy', 'dask', 'xarray', 'torch'"),
        ({"a": 1}, "dask", "'x' is a dict: it can't be received as 'dask'"),
        (sp.csr_array((2, 2)), "numpy", "its zeros would have to be made"),
        (sp.csr_array((2, 2)), "xarray", "its zeros would have to be made"),
    ],
)
def test_what_can_not_be(value, as_, message):
    with pytest.raises(BadRequest) as caught:
        converted(value, as_, "x")
    assert message in str(caught.value)


def test_only_csr_has_rows_for_dask():
    pytest.importorskip("dask.array")
    with pytest.raises(BadRequest, match="this one is csc"):
        converted(sp.csc_array((2, 2)), "dask", "x")


@pytest.mark.parametrize("library", ["dask", "xarray", "torch"])
def test_a_missing_library_is_named(library, monkeypatch):
    for ours in ("pyplantx.specs.lazyxarray", "pyplantx.specs.torchrows"):
        monkeypatch.delitem(sys.modules, ours, raising=False)
    monkeypatch.setitem(sys.modules, library, None)
    with pytest.raises(MissingLibrary, match=f"needs the package '{library}'"):
        converted(ARRAY.copy(), library, "x")


# -- rows of sparse matrices ----------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["csr_array", "csr_matrix", "csc_array", "csc_matrix"])
@pytest.mark.parametrize(("start", "stop"), [(0, 7), (2, 5), (3, 3), (-3, 100), (5, 2)])
def test_parts_of_sparse_matrices(kind, start, stop):
    matrix = getattr(sp, kind)(sp.random(7, 7, 0.4, random_state=2))
    by_rows = kind.startswith("csr")
    found = (specs.rows if by_rows else specs.columns)(matrix, start, stop)
    expected = matrix[start:stop] if by_rows else matrix[:, start:stop]
    assert type(found) is type(matrix) and found.shape == expected.shape and (found != expected).nnz == 0
    assert found.nnz == 0 or np.shares_memory(found.data, matrix.data)
    assert np.array_equal((found @ np.ones(found.shape[1])), expected @ np.ones(expected.shape[1]))


def test_wide_indices_stay_wide_and_sorted_ones_sorted():
    matrix = sp.csr_array(np.eye(4))
    matrix.indices, matrix.indptr = matrix.indices.astype("i8"), matrix.indptr.astype("i8")
    assert matrix.has_sorted_indices
    found = specs.rows(matrix, 1, 3)
    assert found.indices.dtype == found.indptr.dtype == np.dtype("i8") and np.shares_memory(
        found.indices, matrix.indices
    )
    assert vars(found).get("_has_sorted_indices", vars(found).get("has_sorted_indices"))


def test_rows_of_a_received_matrix_touch_nothing_else():
    matrix = sp.csr_array(sp.random(50, 9, 0.5, random_state=3))
    with stored(specs.ScipySparseSpec(), matrix) as entry:
        received = entry.open()
        assert (specs.rows(received, 10, 20) != matrix[10:20]).nnz == 0


@pytest.mark.parametrize(
    ("cut", "matrix", "found"),
    [
        (specs.rows, sp.csc_array((2, 2)), "csc"),
        (specs.columns, sp.csr_array((2, 2)), "csr"),
        (specs.rows, ARRAY, "numpy.ndarray"),
        (specs.rows, sp.csr_array(np.ones(3)), "csr"),
    ],
)
def test_other_formats_are_refused(cut, matrix, found):
    with pytest.raises(BadRequest, match=f"this one is {found}"):
        cut(matrix, 0, 1)
