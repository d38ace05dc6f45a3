"""The conformance kit for ingredient types: derive from `SpecTests`, give it a spec and sample values.

::

    from pyplantx.spec_tests import SpecTests

    class TestPointSpec(SpecTests):
        spec = PointSpec()
        values = [Point(0, 0), Point(-1, 2)]

It needs no test library: every method whose name begins with ``test_`` is a check that raises
`AssertionError`; `SpecTests.run_all` calls them all. `FolderStage` and `FolderPayload` are a stage and a
payload without a warehouse, for tests of your own.
"""

from __future__ import annotations

import json
import os
import pickle
import struct
import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, ClassVar

from pyplantx.core.trace import Digest
from pyplantx.errors import PyplantxError
from pyplantx.fingerprint.value import hash_bytes
from pyplantx.specs.base import Buffer, IngredientTypeSpec, Layout, Written
from pyplantx.specs.buffers import map_file


class FolderStage:
    """A `Stage` that writes parts as files into a folder.

    Parameters
    ----------
    folder : str
        An existing, empty folder.
    """

    def __init__(self, folder: str) -> None:
        self.folder = folder
        self.written: list[str] = []  #: parts made by `write`
        self.given: list[str] = []  #: parts for which a path was given

    def write(self, part: str, chunks: Iterable[Buffer]) -> None:
        """Write one part from buffers."""
        self.written.append(part)
        with open(os.path.join(self.folder, part), "xb") as file:
            for chunk in chunks:
                file.write(chunk)

    def path(self, part: str) -> str:
        """A path at which the spec creates the part."""
        self.given.append(part)
        return os.path.join(self.folder, part)

    def write_array(self, part: str, head: bytes, body: Buffer, block: int) -> list[Digest]:
        """Write one part that is a head and a contiguous body."""
        view = memoryview(body)
        flat = view.cast("B") if view.nbytes else memoryview(b"")
        self.write(part, [head, flat])
        return [hash_bytes(flat[start : start + block]) for start in range(0, len(flat), block)]

    def describe(self, part: str, layout: Layout, digests: Sequence[Digest]) -> None:
        """Check that what a spec tells about a part that it made itself is right."""
        with open(os.path.join(self.folder, part), "rb") as file:
            file.seek(layout.head)
            sizes = [min(layout.block, layout.body - start) for start in range(0, layout.body, layout.block)]
            found = [hash_bytes(file.read(size)) for size in sizes]
        assert found == list(digests), f"the blocks of the part {part} have other digests than the spec says"

    def seal(self, inline: bool = False) -> FolderPayload:
        """The payload of what was written.

        Parameters
        ----------
        inline : bool
            Whether parts made by `write` are kept in memory, as the index keeps small ones.
        """
        kept = self.written if inline else []
        inlined = {part: _read(os.path.join(self.folder, part)) for part in kept}
        return FolderPayload(self.folder, [*self.written, *self.given], inlined)


class FolderPayload:
    """A `Payload` whose parts are files in a folder, or are kept in memory.

    Parameters
    ----------
    folder : str
        Where the files are.
    parts : sequence of str
        Names of all parts.
    inline : mapping
        Contents of the parts that are no files of their own.
    """

    def __init__(self, folder: str, parts: Sequence[str], inline: Mapping[str, bytes] | None = None) -> None:
        self._folder = folder
        self._parts = tuple(parts)
        self._inline = dict(inline or {})

    def parts(self) -> tuple[str, ...]:
        """Names of the parts."""
        return self._parts

    def is_file(self, part: str) -> bool:
        """Whether the part is a file."""
        return part in self._parts and part not in self._inline

    def read(self, part: str) -> bytes:
        """The part's bytes."""
        found = self._inline.get(part)
        return found if found is not None else _read(self.path(part))

    def path(self, part: str) -> str:
        """Path of the part's file."""
        return os.path.join(self._folder, part)

    def open_checked(self, part: str) -> FolderFile:
        """The part's file."""
        return FolderFile(self.path(part))

    def map(self, part: str, writable: bool) -> Any:
        """A private memory map of the part's file."""
        return map_file(self.path(part), writable)


class FolderFile:
    """A `CheckedFile` without checks.

    Parameters
    ----------
    path : str
        Of the file.
    """

    def __init__(self, path: str) -> None:
        self.path = path
        self.size = os.stat(path).st_size

    def read_into(self, buffer: Buffer, start: int) -> None:
        """Fill the buffer from position `start`."""
        with open(self.path, "rb", buffering=0) as file:
            file.seek(start)
            count = file.readinto(buffer)
        assert count == memoryview(buffer).nbytes, f"{self.path} has no {memoryview(buffer).nbytes} bytes at {start}"

    def map(self, writable: bool) -> Any:
        """A private memory map of the file."""
        return map_file(self.path, writable)

    def close(self) -> None:
        """Nothing is open."""


def _read(path: str) -> bytes:
    with open(path, "rb") as file:
        return file.read()


class Stored:
    """One value as a spec has written it.

    Attributes
    ----------
    written : Written
        What the spec told.
    payload : FolderPayload
        What it wrote.
    """

    def __init__(self, spec: IngredientTypeSpec, written: Written, payload: FolderPayload) -> None:
        self.spec = spec
        self.written = written
        self.payload = payload

    @property
    def meta(self) -> Any:
        """The metadata after their way through the index."""
        return json.loads(json.dumps(self.written.meta))

    def open(self) -> Any:
        """The value, opened anew."""
        return self.spec.open(self.payload, self.meta, self.spec.version)

    def preview(self) -> str:
        """The line for people."""
        return self.spec.preview(self.payload, self.meta, self.spec.version)

    def contents(self) -> dict[str, bytes]:
        """All parts' bytes."""
        return {part: self.payload.read(part) for part in self.payload.parts()}


@contextmanager
def stored(spec: IngredientTypeSpec, value: Any, *, inline: bool = False) -> Iterator[Stored]:
    """Write a value with a spec into a temporary folder."""
    with tempfile.TemporaryDirectory() as folder:
        stage = FolderStage(folder)
        written = spec.write(value, stage)
        yield Stored(spec, written, stage.seal(inline))


def same(left: Any, right: Any) -> bool:
    """Whether two values have the same type and the same bits, all the way down.

    Floats are compared by their bits (``-0.0`` differs from ``0.0``, NaN equals itself), arrays by dtype, shape,
    order and bytes, containers element by element, other objects by their state.
    """
    if type(left) is not type(right):
        return False
    if isinstance(left, float):
        return struct.pack(">d", left) == struct.pack(">d", right)
    if isinstance(left, complex):
        return same(left.real, right.real) and same(left.imag, right.imag)
    if isinstance(left, dict):
        return same(list(left.items()), list(right.items()))
    if isinstance(left, (list, tuple)):
        return len(left) == len(right) and all(map(same, left, right))
    if hasattr(left, "dtype") and hasattr(left, "tobytes"):
        return _same_array(left, right)
    if left == left and not hasattr(left, "__dict__"):
        return bool(left == right)
    return _same_state(left, right)


def _same_array(left: Any, right: Any) -> bool:
    facts = [(x.dtype.str, x.dtype.descr if x.dtype.names else None, x.shape, _order(x)) for x in (left, right)]
    if facts[0] != facts[1]:
        return False
    if left.dtype.hasobject:
        return same(left.tolist(), right.tolist())
    if hasattr(left, "mask"):  # its own tobytes fills the masked elements in
        return bool(left.data.tobytes() == right.data.tobytes() and left.mask.tobytes() == right.mask.tobytes())
    return bool(left.tobytes() == right.tobytes())


def _order(array: Any) -> tuple[bool, bool] | None:
    flags = getattr(array, "flags", None)
    if flags is None or not array.ndim or flags.c_contiguous:
        return None
    return (bool(flags.c_contiguous), bool(flags.f_contiguous)) if flags.f_contiguous else None


def _same_state(left: Any, right: Any) -> bool:
    reduces = type(left).__dict__.keys() & {"__reduce__", "__reduce_ex__", "__getstate__"}
    if hasattr(left, "__dict__") and not reduces:
        return same(vars(left), vars(right))
    return pickle.dumps(left) == pickle.dumps(right)


class SpecTests:
    """What every ingredient type promises. Derive, set `spec` and `values`.

    Attributes
    ----------
    spec : IngredientTypeSpec
        The type under test.
    values : sequence
        Sample values; the more unusual, the better. Different from each other.
    inferred : bool
        Whether the samples must be recognised without naming the type.
    """

    spec: ClassVar[IngredientTypeSpec]
    values: ClassVar[Sequence[Any]] = ()
    inferred: ClassVar[bool] = True

    def same(self, sent: Any, received: Any) -> bool:
        """Whether `received` is what was sent; override it for types that change on the way (a path)."""
        return same(sent, received)

    def alter(self, received: Any) -> None:
        """Alter a received value as a careless consumer would; override it if yours is mutable."""

    def run_all(self) -> None:
        """Call every check."""
        for name in sorted(dir(self)):
            if name.startswith("test_"):
                getattr(self, name)()

    def test_has_a_name_and_a_version(self) -> None:
        """The store finds the type by these."""
        assert self.spec.name and isinstance(self.spec.name, str)
        assert isinstance(self.spec.version, int) and self.spec.version >= 1
        assert self.values, "the conformance tests need sample values"

    def test_recognises_its_values(self) -> None:
        """`recognise` says yes to the samples (if `inferred`) and never raises for anything."""
        for value in self.values if self.inferred else ():
            assert self.spec.recognise(value), f"{value!r} is not recognised"
        for stranger in (None, 0, "", b"", [], {}, object(), type, print):
            assert self.spec.recognise(stranger) in (True, False)

    def test_round_trip(self) -> None:
        """What is opened is what was written, from files and from the index alike."""
        for value in self.values:
            for inline in (False, True):
                with stored(self.spec, value, inline=inline) as entry:
                    received = entry.open()
                    assert self.same(value, received), f"{value!r} came back as {received!r}"

    def test_equal_values_have_equal_digests(self) -> None:
        """Writing twice gives one digest (32 hex digits), and no two samples share one."""
        digests = []
        for value in self.values:
            with stored(self.spec, value) as first, stored(self.spec, value) as second:
                assert first.written.digest == second.written.digest, f"the digest of {value!r} is not stable"
                digests.append(first.written.digest)
        assert all(len(digest) == 32 and set(digest) <= set("0123456789abcdef") for digest in digests)
        assert len(set(digests)) == len(digests), "two different samples have one digest"

    def test_received_values_are_isolated(self) -> None:
        """Altering a received value changes neither the store nor what the next one receives."""
        for value in self.values:
            for inline in (False, True):
                with stored(self.spec, value, inline=inline) as entry:
                    before = entry.contents()
                    self.alter(entry.open())
                    assert self.same(value, entry.open()), f"{value!r} was altered through a received value"
                    assert entry.contents() == before

    def test_metadata_are_small_and_plain(self) -> None:
        """Metadata go into the index as JSON and come back the same."""
        for value in self.values:
            with stored(self.spec, value) as entry:
                text = json.dumps(entry.written.meta)
                assert json.loads(text) == dict(entry.written.meta) and len(text) < 4096

    def test_preview_is_one_line(self) -> None:
        """The preview is one short printable line."""
        for value in self.values:
            with stored(self.spec, value) as entry:
                line = entry.preview()
                assert line and len(line) <= 200 and line.isprintable(), line

    def test_parts_have_plain_names(self) -> None:
        """Names of parts become file names."""
        for value in self.values:
            with stored(self.spec, value) as entry:
                parts = entry.payload.parts()
                assert parts and len(set(parts)) == len(parts)
                assert all(part and set(part) <= _PLAIN for part in parts), parts

    def test_foreign_values_are_refused_by_a_clear_error(self) -> None:
        """Writing what is not of this type raises one of pyplantx's errors, if it raises."""
        for stranger in (object(), type, lambda: None):
            with tempfile.TemporaryDirectory() as folder:
                try:
                    self.spec.write(stranger, FolderStage(folder))
                except PyplantxError as error:
                    assert str(error)


_PLAIN = frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789._-")
