"""A block of a killed run counts only for what it was made from: a source may be filled otherwise the next time."""

from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pyplantx import Plant, ReactorFunc, specs
from tests.blocks.test_resume_kills import read_ledger
from tests.blocks.values import Unseen

ROWS, COLUMNS = 40, 2048  # more than what is digested as a whole
BLOCK = 4  # rows
MEMORY = 3 * BLOCK * (COLUMNS + 1) * 8  # of two arrays, one with a single column
STOPPED_IN = 6


class Stopped(Exception):
    """Ends a run in the middle, as a kill does."""


class Own:
    """An array of nobody's."""

    def __init__(self, inner: Any) -> None:
        self.inner, self.shape, self.dtype = inner, inner.shape, inner.dtype

    def __getitem__(self, selection: Any) -> Any:
        return self.inner[selection]


class Settings:
    """What the attempts of a reactor differ in, and what they have done; no reactor observes it."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.attempt = 0
        self.calls = Unseen()
        self.changes: slice | None = slice(None)  # rows that each attempt fills otherwise

    def __fingerprint__(self) -> str:
        return ""  # functions of blocks have it

    def value(self) -> Any:
        """What the source is filled with."""
        value = np.arange(ROWS * COLUMNS, dtype="f8").reshape(ROWS, COLUMNS)
        if self.changes is not None:
            value[self.changes] += 1000 * self.attempt
        return value

    def note(self, value: Any) -> Any:
        """Called for each block."""
        self.calls.append(1)
        if self.attempt == 1 and len(self.calls) == STOPPED_IN:
            raise Stopped
        return value


def allocated(spec: Any, **options: Any) -> Callable[..., Any]:
    def make(pipe: Any, received: Any, value: Any, path: Path) -> Any:
        array = pipe.allocate_temp(spec, shape=value.shape, dtype=value.dtype, **options)
        array[...] = value
        return array

    return make


def memory_map(pipe: Any, received: Any, value: Any, path: Path) -> Any:
    array = np.memmap(path / "raw", "f8", "w+", shape=value.shape)
    array[...] = value
    return array


def altered(pipe: Any, received: Any, value: Any, path: Path) -> Any:
    received[...] = value
    return received


def altered_part(pipe: Any, received: Any, value: Any, path: Path) -> Any:
    received[...] = value
    return received[:, :0:-1]


def view(pipe: Any, received: Any, value: Any, path: Path) -> Any:
    return allocated(specs.ArraySpec)(pipe, received, value, path)[:, 1:]


def masked(pipe: Any, received: Any, value: Any, path: Path) -> Any:
    return np.ma.MaskedArray(received, mask=value % 2000 > 990)


def sparse(pipe: Any, received: Any, value: Any, path: Path) -> Any:
    matrix = pytest.importorskip("scipy.sparse").csr_matrix(received)
    matrix.data[:] = value.ravel()[-len(matrix.data) :]
    return matrix


SOURCES: dict[str, Callable[..., Any]] = {
    "HDF": allocated(specs.HdfArraySpec),
    "chunked HDF": allocated(specs.HdfArraySpec, chunks=(4, 512), compression="gzip"),
    "npy": allocated(specs.ArraySpec),
    "view of npy": view,
    "memory map": memory_map,
    "altered": altered,
    "part of altered": altered_part,
    "masked": masked,
    "csr": sparse,
    "own": lambda pipe, received, value, path: Own(value),
    "plain": lambda pipe, received, value, path: value,
    "Fortran": lambda pipe, received, value, path: np.asfortranarray(value),
    "objects": lambda pipe, received, value, path: value.astype(object),
}


def sums(x: Any) -> Any:
    return np.asarray(x.sum(axis=1), "f8").reshape(-1)


def memory_for(source: Any) -> int:
    return MEMORY * 3 // 2 + 1000 if hasattr(source, "indptr") else MEMORY


def by_map(pipe: Any, source: Any, settings: Settings) -> Any:
    out = pipe.allocate("x", specs.HdfArraySpec, shape=(ROWS,), dtype="f8")
    pipe.map_blocks(lambda x: settings.note(sums(x)), source, out=out, memory=memory_for(source))
    return out


def by_reduction(pipe: Any, source: Any, settings: Settings) -> Any:
    return pipe.reduce_blocks(
        lambda x: settings.note(sums(x)), source, combine=lambda a, b: np.concatenate([a, b]), memory=memory_for(source)
    )


def by_loop(pipe: Any, source: Any, settings: Settings) -> Any:
    out = pipe.allocate("x", specs.HdfArraySpec, shape=(ROWS,), dtype="f8")
    for b in pipe.blocks(source, out, memory=memory_for(source), resume=True):
        out[b] = settings.note(sums(source[b]))
    return out


WAYS = {"map": by_map, "reduce": by_reduction, "loop": by_loop}


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return Settings(tmp_path)


@pytest.fixture(autouse=True)
def everything_is_noted_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """However slow the machine is."""
    monkeypatch.setattr("pyplantx.blocks.reduction.WORTH", 0.0)


@pytest.fixture
def attempts(settings: Settings) -> Callable[..., Any]:
    """Stop a reactor in the middle, run it again; what it sends, and the blocks that it then computed."""
    settings.calls.clear()

    def run(body: Callable[..., Any], **options: Any) -> tuple[Any, int]:
        settings.attempt = 0
        first = settings.value()

        @ReactorFunc(name="base", version="1")
        def base(pipe: Any) -> None:
            pipe.send("base", first)

        @ReactorFunc(name="r", version="1")
        def reactor(pipe: Any) -> Any:
            received = yield pipe.receive("base")
            settings.attempt += 1
            pipe.send("x", body(pipe, received, settings))

        with Plant(settings.path / "plant", durability="process", **options) as plant:
            plant.add_reactors(base, reactor)
            with pytest.raises(Stopped):
                plant.produce("x")
            settings.calls.clear()
            return np.asarray(plant.produce("x")[...]), len(settings.calls)

    return run


def expected(kind: str, settings: Settings) -> Any:
    """What an undisturbed run gives now."""

    class Pipe:
        def allocate_temp(self, spec: Any, *, shape: Any, dtype: Any, **options: Any) -> Any:
            return np.empty(shape, dtype)

    settings.attempt, received = 0, None
    received = settings.value()
    settings.attempt = 2
    source = SOURCES[kind](Pipe(), received, settings.value(), settings.path)
    return sums(getattr(source, "inner", source))


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("kind", SOURCES)
class TestFilledByTheRun:
    def body(self, kind: str, way: str) -> Callable[..., Any]:
        def body(pipe: Any, received: Any, settings: Settings) -> Any:
            return WAYS[way](pipe, SOURCES[kind](pipe, received, settings.value(), settings.path), settings)

        return body

    def skip(self, kind: str, way: str) -> None:
        if way == "loop" and kind in ("csr", "npy"):
            pytest.skip("csr has no plain loops; of an array in memory that was written to none is resumed")

    def test_otherwise(self, kind, way, settings, attempts):
        value, _ = attempts(self.body(kind, way))
        assert value.tolist() == expected(kind, settings).tolist()

    def test_in_its_last_block_alone(self, kind, way, settings, attempts):
        settings.changes = slice(ROWS - 1, ROWS)
        value, _ = attempts(self.body(kind, way))
        assert value.tolist() == expected(kind, settings).tolist()

    def test_in_its_first_block_alone(self, kind, way, settings, attempts):
        """Of a map only that is done again."""
        self.skip(kind, way)
        settings.changes = slice(0, 1)
        value, calls = attempts(self.body(kind, way))
        assert value.tolist() == expected(kind, settings).tolist()
        assert calls < ROWS // BLOCK or way != "map"

    def test_as_before(self, kind, way, settings, attempts):
        self.skip(kind, way)
        settings.changes = None
        value, calls = attempts(self.body(kind, way))
        assert value.tolist() == expected(kind, settings).tolist()
        assert calls <= ROWS // BLOCK - STOPPED_IN + 3


def lines(settings: Settings) -> list[dict[str, Any]]:
    """What the ledgers say of blocks."""
    paths = sorted(settings.path.glob("plant/staging/resume/*/*/ledger"))
    return [line for path in paths for line in read_ledger(str(path)) if "block" in line]


def stopped(settings: Settings, *reactors: Any, **options: Any) -> tuple[Any, list[dict[str, Any]]]:
    """Value of the second run, and what the first one has noted."""
    with Plant(settings.path / "plant", durability="process", **options) as plant:
        plant.add_reactors(*reactors)
        with pytest.raises(Stopped):
            plant.produce("x")
        noted = lines(settings)
        settings.calls.clear()
        return np.asarray(plant.produce("x")[...]), noted


RECEIVED: dict[str, tuple[Any, dict[str, Any]]] = {
    "array": (None, {}),
    "HDF": (specs.HdfArraySpec, {}),
    "chunked HDF": (specs.HdfArraySpec, {"chunks": (4, 512)}),
    "Zarr": (specs.ZarrArraySpec, {"chunks": (4, 512)}),
    "csr": (None, {}),
}


class TestReceived:
    """What the run has observed is not read for it."""

    ROWS = 400  # of a megabyte and more

    def base(self, kind: str) -> Any:
        @ReactorFunc(name="base", version="1")
        def base(pipe: Any) -> None:
            for name, offset in (("a", 0), ("b", 1)):
                value = np.arange(self.ROWS * 512, dtype="f8").reshape(self.ROWS, 512) + offset
                spec, options = RECEIVED[kind]
                if kind == "csr":
                    value = pytest.importorskip("scipy.sparse").csr_matrix(value)
                if spec is None:
                    pipe.send(name, value)
                else:
                    array = pipe.allocate(name, spec, shape=value.shape, dtype="f8", **options)
                    array[...] = value
                    pipe.send(name, array)

        return base

    def run(self, settings: Settings, kind: str, pick: Callable[..., Any], **options: Any) -> Any:
        if kind == "Zarr":
            pytest.importorskip("zarr")

        @ReactorFunc(name="r", version="1")
        def reactor(pipe: Any) -> Any:
            both = yield pipe.receive("a", "b")
            settings.attempt += 1
            source = pick(both)
            out = pipe.allocate("x", specs.HdfArraySpec, shape=source.shape[:1], dtype="f8")
            pipe.map_blocks(lambda x: settings.note(sums(x)), source, out=out, memory=3 * 40 * 513 * 12)
            pipe.send("x", out)

        return stopped(settings, self.base(kind), reactor, **options)

    def sums(self, offset: int, first: int = 0) -> list[float]:
        value = np.arange(self.ROWS * 512, dtype="f8").reshape(self.ROWS, 512) + offset
        return [float(total) for total in value.sum(axis=1)[first : first + 360]]

    @pytest.mark.parametrize("kind", RECEIVED)
    def test_it_tells_what_it_is(self, kind, settings):
        value, noted = self.run(settings, kind, lambda both: both[0])
        assert value.tolist()[:360] == self.sums(0)
        assert len(noted) >= STOPPED_IN - 2 and all(line["read"] == [] for line in noted)
        assert len(settings.calls) < 10

    @pytest.mark.parametrize("kind", RECEIVED)
    def test_and_which_one(self, kind, settings):
        value, noted = self.run(settings, kind, lambda both: both[settings.attempt - 1])
        assert noted and value.tolist()[:360] == self.sums(1)

    def test_and_which_part_of_it(self, settings):
        value, noted = self.run(settings, "array", lambda both: both[0][settings.attempt : settings.attempt + 360])
        assert value.tolist() == self.sums(0, 2)
        assert noted and all(line["read"] == [] for line in noted)

    def test_unless_the_body_of_a_loop_may_write_to_it(self, settings):
        @ReactorFunc(name="r", version="1")
        def reactor(pipe: Any) -> Any:
            source = yield pipe.receive("a")
            settings.attempt += 1
            out = pipe.allocate("y", specs.HdfArraySpec, shape=source.shape[:1], dtype="f8")
            for b in pipe.blocks(source, out, memory=3 * 40 * 513 * 8, resume=True):
                source[b] += 1
                out[b] = settings.note(sums(source[b]))
            pipe.send("y", out)
            pipe.send("x", source[:, 0] + out[:])

        value, noted = stopped(settings, self.base("array"), reactor)
        assert value.tolist()[:360] == [total + 512 * (row + 1) + 1 for row, total in enumerate(self.sums(0))]
        assert noted == []


class TestOtherThanBlocks:
    def test_in_place_on_what_was_not_written_to(self, settings):
        """What a killed run has left in the block that it was writing is not read."""

        @ReactorFunc(name="r", version="1")
        def reactor(pipe: Any) -> Any:
            out = pipe.allocate("x", specs.ArraySpec, shape=(40, 512), dtype="f8")
            settings.attempt += 1
            pipe.map_blocks(lambda x: settings.note(x + 1), out, out=out, memory=6 * 4 * 512 * 8)
            pipe.send("x", out)

        with Plant(settings.path / "plant", durability="process") as plant:
            plant.add_reactors(reactor)
            with pytest.raises(Stopped):
                plant.produce("x")
            (path,) = settings.path.glob("plant/staging/resume/*/*/data-1")
            with path.open("r+b") as file:  # part of its block
                file.seek(-(40 - STOPPED_IN * 4 + 3) * 512 * 8, 2)
                file.write(np.ones(512).tobytes())
            settings.calls.clear()
            assert set(np.asarray(plant.produce("x")).ravel().tolist()) == {1.0}
        assert len(settings.calls) < 10

    @pytest.mark.parametrize("kind", ["HDF", "plain"])
    def test_a_block_of_an_array_that_was_written_to(self, kind, settings, caplog):
        @ReactorFunc(name="r", version="1")
        def reactor(pipe: Any) -> Any:
            settings.attempt += 1
            other = np.zeros((40, 8))
            if kind == "HDF":
                other = pipe.allocate_temp(specs.HdfArraySpec, shape=(40, 8), dtype="f8")
                other[...] = 0
            out = pipe.allocate("y", specs.HdfArraySpec, shape=(40, 8), dtype="f8")
            for b in pipe.blocks(other, out, memory=6 * 4 * 8 * 8, resume=True):
                out[b] = other[b] = settings.note(np.ones((4, 8)))
            pipe.send("y", out)
            pipe.send("x", other[:, 0] + out[:, 0])

        value, noted = stopped(settings, reactor)
        assert value.tolist() == [2.0] * 40 and noted == []
        assert "writes otherwise" in caplog.text

    @pytest.mark.parametrize("spec", [specs.ArraySpec, specs.HdfArraySpec])
    @pytest.mark.parametrize("rows", ["permuted", "before", "behind", "far behind"])
    def test_rows_of_other_blocks(self, rows, spec, settings):
        """An array in memory tells of no write: what was written before its turn, or after it, is seen there."""
        order = np.random.default_rng(1).permutation(40)
        where = {"before": lambda b: slice(max(0, b.start - 6), b.stop), "behind": lambda b: slice(b.start, b.stop + 6)}
        where["permuted"], where["far behind"] = (lambda b: np.sort(order[b])), (lambda b: slice(35, 40))

        @ReactorFunc(name="r", version="1")
        def reactor(pipe: Any) -> Any:
            settings.attempt += 1
            out = pipe.allocate("x", spec, shape=(40,), dtype="f8")
            for b in pipe.blocks(out, memory=3 * 4 * 8, resume=True):
                there = where[rows](b[0])
                out[there] = out[there] + b.index + 1
                settings.note(0)
            pipe.send("x", out)

        expected = np.zeros(40)
        for index in range(10):
            expected[where[rows](slice(4 * index, 4 * index + 4))] += index + 1
        value, _ = stopped(settings, reactor)
        assert value.tolist() == expected.tolist()

    @pytest.mark.parametrize("kind", ["HDF", "Zarr", "file"])
    def test_something_that_it_does_not_name(self, kind, settings, caplog):
        if kind == "Zarr":
            pytest.importorskip("zarr")
        spec, options = (specs.HdfArraySpec if kind == "HDF" else specs.ZarrArraySpec), {"shape": 10, "dtype": "f8"}

        @ReactorFunc(name="r", version="1")
        def reactor(pipe: Any) -> Any:
            settings.attempt += 1
            beside = pipe.allocate("y", "file") if kind == "file" else pipe.allocate("y", spec, **options)
            out = pipe.allocate("z", specs.HdfArraySpec, shape=(40,), dtype="f8")
            for b in pipe.blocks(out, memory=3 * 4 * 8, resume=True):
                if kind == "file":
                    with Path(beside).open("a") as file:
                        file.write("1")
                else:
                    beside[b.index] = 1
                out[b] = settings.note(np.ones(4))
            found = len(Path(beside).read_text()) if kind == "file" else int(beside[:].sum())
            pipe.send("y", beside)
            pipe.send("z", out)
            pipe.send("x", np.array([found]))

        value, noted = stopped(settings, reactor)
        assert value.tolist() == [10] and noted == []
        assert "writes otherwise" in caplog.text

    @pytest.mark.parametrize("after", [False, True])
    @pytest.mark.parametrize("way", ["loop", "map", "reduce"])
    def test_a_value_that_is_carried_from_block_to_block(self, way, after, settings, caplog):
        @ReactorFunc(name="r", version="1")
        def reactor(pipe: Any) -> Any:
            settings.attempt += 1

            def number(x: Any) -> Any:
                before = pipe.checkpoint("blocks", default=0)
                pipe.checkpoint("blocks", before + 1)
                return settings.note(x + before)

            ones = np.ones(40)
            out = pipe.allocate("x", specs.HdfArraySpec, shape=(40,), dtype="f8")
            if way == "map":
                pipe.map_blocks(number, ones, out=out, memory=6 * 4 * 8)
            elif way == "reduce":
                out[:] = pipe.reduce_blocks(number, ones, combine=lambda a, b: [*a, *b], memory=3 * 4 * 8)
            else:
                for b in pipe.blocks(ones, out, memory=6 * 4 * 8, resume=True):
                    out[b] = number(ones[b])
            pipe.checkpoint("blocks", 100)
            if after and settings.attempt == 1:
                raise Stopped
            pipe.send("x", out)

        settings.calls.extend([1] * 20 * after)  # not in the loop
        value, noted = stopped(settings, reactor)
        assert noted == [] and len(settings.calls) == 10
        assert value.tolist() == [1 + row // 4 for row in range(40)]
        assert "pipe.checkpoint can't be resumed" in caplog.text

    def test_the_value_to_begin_with(self, settings):
        """What `combine` writes into is not the reactor's own array: after a kill it would lack what was combined."""

        @ReactorFunc(name="r", version="1")
        def reactor(pipe: Any) -> Any:
            settings.attempt += 1
            begin = np.zeros(8)
            total = pipe.reduce_blocks(
                lambda x: settings.note(x.sum(axis=0)),
                np.ones((40, 8)),
                combine=lambda a, b: np.add(a, b, out=a),
                initial=begin,
                memory=3 * 4 * 8 * 8,
            )
            pipe.send("x", np.stack([begin, total]))

        value, noted = stopped(settings, reactor)
        assert value.tolist() == [[0.0] * 8, [40.0] * 8]
        assert noted and len(settings.calls) < 10

    def test_an_object_to_begin_with_stays_what_it_is(self, settings):
        nothing = object()

        @ReactorFunc(name="r", version="1")
        def reactor(pipe: Any) -> Any:
            total = pipe.reduce_blocks(
                len,
                np.ones(40),
                combine=lambda a, b: [*([] if a is nothing else a), b],
                initial=nothing,
                memory=3 * 4 * 8,
            )
            pipe.send("x", total)

        with Plant(settings.path / "plant", durability="process") as plant:
            plant.add_reactors(reactor)
            assert plant.produce("x") == [4] * 10

    @pytest.mark.parametrize("begin", [[0], {"a": [0]}])
    def test_what_it_consists_of(self, begin, settings):
        """A list is copied; one inside it is not, so that a change of it ends the resume."""

        @ReactorFunc(name="r", version="1")
        def reactor(pipe: Any) -> Any:
            settings.attempt += 1
            initial = copy.deepcopy(begin)

            def add(total: Any, more: Any) -> Any:
                (total["a"] if isinstance(total, dict) else total)[0] += more
                return total

            settings.note(0)
            total = pipe.reduce_blocks(
                lambda x: settings.note(len(x)), np.ones(40), combine=add, initial=initial, memory=3 * 4 * 8
            )
            assert (total["a"] if isinstance(total, dict) else total) == [40]
            pipe.send("x", np.array(initial["a"] if isinstance(initial, dict) else initial))

        value, noted = stopped(settings, reactor)
        assert value.tolist() == ([0] if begin == [0] else [40])
        assert bool(noted) == (begin == [0])


def scratch_file(pipe: Any, received: Any, value: Any, path: Path) -> Any:
    name = Path(pipe.allocate("y", "file"))
    name.write_bytes(value.tobytes())
    return name


def sum_of(scratch: Any) -> float:
    if isinstance(scratch, Path):
        return float(np.frombuffer(scratch.read_bytes(), "f8").sum())
    return float(np.asarray(scratch[...]).sum())


class TestCheckpoints:
    """A value may have been made from what was allocated, and that is filled anew by the next run."""

    KINDS = {**{kind: SOURCES[kind] for kind in ("HDF", "chunked HDF", "npy")}, "file": scratch_file}

    def sums(self, settings: Settings, fill: Callable[..., Any]) -> Any:
        """The sum of what was filled, twice: half of it kept by a checkpoint."""

        @ReactorFunc(name="r", version="1")
        def reactor(pipe: Any) -> Any:
            settings.attempt += 1
            scratch = fill(pipe, None, settings.value(), settings.path)
            total = pipe.checkpoint("total", default=[])
            for number in range(len(total), 2):
                if number == 1 and settings.attempt == 1:
                    raise Stopped
                total = [*total, sum_of(scratch)]
                settings.calls.append(number)
                pipe.checkpoint("total", total)
            if isinstance(scratch, Path):
                pipe.send("y", scratch)
            pipe.send("x", np.array(total))

        value, _ = stopped(settings, reactor)
        return value.tolist()

    @pytest.mark.parametrize("kind", KINDS)
    def test_filled_otherwise(self, kind, settings):
        assert self.sums(settings, self.KINDS[kind]) == [settings.value().sum()] * 2
        assert settings.calls == [0, 1]

    @pytest.mark.parametrize("kind", KINDS)
    def test_filled_as_before(self, kind, settings):
        settings.changes = None
        assert self.sums(settings, self.KINDS[kind]) == [settings.value().sum()] * 2
        assert settings.calls == [1]

    @pytest.mark.parametrize("kind", ["HDF", "file"])
    def test_too_large_to_be_compared(self, kind, settings, monkeypatch, caplog):
        monkeypatch.setattr("pyplantx.blocks.alterations._MOST_BYTES", 1000)
        settings.changes = None
        assert self.sums(settings, self.KINDS[kind]) == [settings.value().sum()] * 2
        assert settings.calls == [0, 1] and "too large to be compared" in caplog.text

    @pytest.mark.parametrize("changes", [slice(0, 1), None])
    def test_filled_in_blocks_it_is_known(self, changes, settings, monkeypatch):
        monkeypatch.setattr("pyplantx.blocks.alterations._MOST_BYTES", 1000)
        settings.changes = changes

        def fill(pipe: Any, received: Any, value: Any, path: Path) -> Any:
            out = pipe.allocate_temp(specs.HdfArraySpec, shape=value.shape, dtype="f8")
            pipe.map_blocks(lambda x: x, value, out=out, memory=6 * 4 * 2048 * 8)
            return out

        assert self.sums(settings, fill) == [settings.value().sum()] * 2
        assert settings.calls == ([1] if changes is None else [0, 1])


class TestLoopsInLoops:
    """Which one a loop is must not hang on how many blocks of the outer one are left out."""

    def test_belong_to_the_block_of_the_outer_one(self, settings):
        @ReactorFunc(name="r", version="1")
        def reactor(pipe: Any) -> Any:
            settings.attempt += 1
            out = pipe.allocate("x", specs.HdfArraySpec, shape=(40,), dtype="f8")
            for b in pipe.blocks(out, memory=3 * 4 * 8, resume=True):
                settings.note(0)
                inner = pipe.allocate_temp(specs.HdfArraySpec, shape=(40,), dtype="f8")
                for c in pipe.blocks(inner, memory=3 * 4 * 8, resume=True):
                    inner[c] = np.full(c.shape, b.index)
                out[b] = inner[:4]
            pipe.send("x", out)

        value, noted = stopped(settings, reactor)
        assert value.tolist() == [row // 4 for row in range(40)]
        assert noted and len(settings.calls) < 10

    def test_one_behind_a_checkpoint_is_found_again(self, settings):
        @ReactorFunc(name="r", version="1")
        def reactor(pipe: Any) -> Any:
            settings.attempt += 1
            first = pipe.checkpoint("first", default=None)
            if first is None:
                first = pipe.reduce_blocks(len, np.ones(40), memory=3 * 4 * 8)
                pipe.checkpoint("first", first)
            second = pipe.reduce_blocks(lambda x: settings.note(x.sum()), np.ones(40), memory=3 * 4 * 8)
            pipe.send("x", np.array([first, second]))

        value, _ = stopped(settings, reactor)
        assert value.tolist() == [40, 40] and len(settings.calls) < 10

    def test_the_one_after_it_is_found_again(self, settings):
        @ReactorFunc(name="r", version="1")
        def reactor(pipe: Any) -> Any:
            settings.attempt += 1
            first = pipe.allocate_temp(specs.HdfArraySpec, shape=(40,), dtype="f8")
            for b in pipe.blocks(first, memory=3 * 4 * 8, resume=True):
                first[b] = pipe.reduce_blocks(len, np.ones(12), memory=3 * 4 * 8)
            out = pipe.allocate("x", specs.HdfArraySpec, shape=(40,), dtype="f8")
            pipe.map_blocks(settings.note, first, out=out, memory=6 * 4 * 8)
            pipe.send("x", out)

        value, _ = stopped(settings, reactor)
        assert set(value.tolist()) == {12.0} and len(settings.calls) < 10


@pytest.mark.parametrize("changes", [slice(None), None])
@pytest.mark.parametrize("kind", ["npy", "memory map", "plain", "HDF"])
def test_what_worker_processes_read_themselves(kind, changes, settings, attempts):
    settings.changes = changes

    def body(pipe: Any, received: Any, settings: Settings) -> Any:
        source = SOURCES[kind](pipe, received, settings.value(), settings.path)
        out = pipe.allocate("x", specs.HdfArraySpec, shape=(ROWS,), dtype="f8")

        def combine(rows: Any, more: Any) -> Any:
            settings.note(0)
            return rows + more

        room = 8 * MEMORY // 3  # for the blocks of two workers, too
        out[...] = pipe.reduce_blocks(lambda x: x.sum(axis=1).tolist(), source, combine=combine, memory=room, workers=2)
        return out

    value, calls = attempts(body, executor="processes")
    assert value.tolist() == expected(kind, settings).tolist()
    assert changes is not None or calls < ROWS // BLOCK - 1
