"""Fuzzing of everything that parses bytes from a store: a value, "absent", or an error of the hierarchy; nothing else.

An attacker knows the checksums, so each parser is given what has passed them. The quick version tries a few hundred
texts for each parser, always the same; the campaign tries thousands of new ones.
"""

from __future__ import annotations

import io
import json
import resource
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from pyplantx import Plant, ReactorFunc
from pyplantx.core.trace import (
    Group,
    ObjectRef,
    Observation,
    Segment,
    Sent,
    decode_segment,
    encode_segment,
    older_segments,
)
from pyplantx.errors import PyplantxError
from pyplantx.fingerprint.value import hash_bytes, hash_text
from pyplantx.session import deeptraces
from pyplantx.session.former import Former
from pyplantx.specs.plain import load_json
from pyplantx.warehouse import formatfile, records
from pyplantx.warehouse.files import Layout
from pyplantx.warehouse.inspection import _read_mark
from pyplantx.warehouse.objects import meta_of
from pyplantx.warehouse.tables import name_key
from pyplantx.warehouse.warehouse import Warehouse
from tests.faults import children

QUICK, LONG = 150, 20_000
LONG_LIMIT = 3600.0  #: seconds for as many in one child

#: JSON that is deep, long, or not quite JSON.
_AWKWARD = [
    b"",
    b"[",
    b"[" * 100_000,
    b'{"a":' * 50_000,
    b"9" * 5_000,
    b"-",
    b"null",
    b"NaN",
    b'"\\ud800"',
    b"\xff",
    b"[[]]",
]

_json = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=40) | st.just("0" * 32),
    lambda inside: st.lists(inside, max_size=9) | st.dictionaries(st.text(max_size=9), inside, max_size=4),
    max_leaves=25,
)


def mutated(sound: list[bytes]) -> st.SearchStrategy[bytes]:
    """Sound texts with bytes changed, removed, doubled; any JSON; any bytes."""

    @st.composite
    def changed(draw: Any) -> bytes:
        data = bytearray(draw(st.sampled_from(sound)))
        for _ in range(draw(st.integers(1, 4))):
            at = draw(st.integers(0, max(0, len(data) - 1)))
            how = draw(st.integers(0, 3))
            piece = draw(
                st.binary(min_size=1, max_size=4) | st.sampled_from([b"[", b"]", b'"', b",", b"null", b"-1", b"1e9"])
            )
            if how == 0:
                data[at : at + len(piece)] = piece
            elif how == 1:
                del data[at : at + len(piece)]
            elif how == 2:
                data[at:at] = piece
            else:
                data[at:at] = data[at : at + 20]
        return bytes(data)

    @st.composite
    def swapped(draw: Any) -> bytes:
        """A sound JSON text in which one thing is another."""
        try:
            value = json.loads(draw(st.sampled_from(sound)))
        except ValueError:
            return draw(st.sampled_from(sound))
        return json.dumps(_swap(value, draw)).encode()

    return st.one_of(
        changed(),
        swapped(),
        _json.map(lambda value: json.dumps(value).encode()),
        st.binary(max_size=200),
        st.sampled_from(_AWKWARD),
    )


def _swap(value: Any, draw: Any) -> Any:
    if isinstance(value, list) and value and draw(st.integers(0, 3)):
        at = draw(st.integers(0, len(value) - 1))
        return [*value[:at], _swap(value[at], draw), *value[at + 1 :]]
    return draw(_json)


def parses(parse: Callable[[bytes], Any], data: bytes, *allowed: type[Exception]) -> Any:
    """What a parser makes of the bytes; None for an error that it may raise. Any other one is raised."""
    try:
        return parse(data)
    except (PyplantxError, *allowed):
        return None


def fuzz(parse: Callable[[bytes], Any], sound: list[bytes], examples: int, *allowed: type[Exception]) -> None:
    @settings(max_examples=examples, deadline=None, suppress_health_check=list(HealthCheck))
    @given(mutated(sound))
    def run(data: bytes) -> None:
        parses(parse, data, *allowed)

    for data in (*sound, *_AWKWARD):
        parses(parse, data, *allowed)
    run()


@pytest.fixture(params=[pytest.param(QUICK, id="quick"), pytest.param(LONG, id="long", marks=pytest.mark.campaign)])
def examples(request: Any) -> int:
    return int(request.param)


@pytest.fixture(autouse=True)
def little_memory() -> Iterator[None]:
    """No parser needs a gigabyte more than is in use, whatever a header claims."""
    before = resource.getrlimit(resource.RLIMIT_DATA)
    resource.setrlimit(resource.RLIMIT_DATA, (4 << 30, before[1]))
    yield
    resource.setrlimit(resource.RLIMIT_DATA, before)


REF = ObjectRef("array", 1, "a" * 32, "b" * 32, 10, '{"x":1}', "value.json\n7")
NAME = records.NameRecord("x", REF, [("mod:r", "c" * 32)])
LAID = [["array", 1, "a" * 32, "", "files", [["data.npy", 9, "b" * 32, "c" * 96, [1, 4, 8]]], 1.0, 2.0]]
OBJECT = records.ObjectRecord("array", 1, "a" * 32, "", "record", (records.Part("data.npy", 3, "b" * 32),), 1.0)
STEPS = (Group((Observation("config", "lr", "d" * 32, "1"),)), Sent("x", REF))
SEGMENT = encode_segment(Segment(STEPS, encode_segment(Segment(STEPS))))


def test_a_parser_that_is_broken_is_found() -> None:
    """The positive control."""
    for broken in (lambda data: json.loads(data)[3], lambda data: data.decode(), lambda data: {}[data]):
        with pytest.raises((ValueError, LookupError, TypeError, RecursionError)):
            fuzz(broken, [b"[1,2,3,4]"], QUICK)


# -- one parser at a time -----------------------------------------------------------------------------


@pytest.mark.parametrize("decode", [records.decode_name, records.decode_producers])
def test_name_records(decode: Any, examples: int) -> None:
    fuzz(decode, [records.encode_name(NAME)], examples)


def test_version_records(examples: int) -> None:
    sound = records.encode_versions(records.VersionList("mod:r", [("c" * 32, 1.0)], {"label": "d" * 32}))
    fuzz(records.decode_versions, [sound], examples)


def test_object_records(examples: int) -> None:
    def parse(data: bytes) -> None:
        record, payload = records.decode_object(data)
        assert isinstance(record.size, int)
        records.split_payload(record, payload)

    sound = [records.encode_object(OBJECT, b"abc"), json.dumps(LAID[0]).encode() + b"\n"]
    fuzz(parse, sound, examples)
    fuzz(lambda data: parse(data + b"\n"), [sound[1].strip()], examples)


def test_trace_segments(examples: int) -> None:
    """`decode_segment` says ValueError; whoever asks for a segment takes that for "absent"."""

    def parse(data: bytes) -> None:
        segment = decode_segment(records.decode_text(data))
        assert isinstance(segment.steps, tuple)
        older_segments(segment)

    fuzz(parse, [SEGMENT.encode()], examples, ValueError)


def test_payloads_of_simple_values_and_lists(examples: int) -> None:
    sound = [
        b"7",
        b'[1,{"int":"0xff"},{"float":"7ff8000000000000"},{"complex":[1.0,2.0]},{"bytes":"aa=="},{"str":"61"}]',
    ]
    fuzz(lambda data: load_json(data, "simple value"), sound, examples)


def test_metadata(examples: int) -> None:
    fuzz(lambda data: meta_of(data.decode("utf-8", "surrogateescape")), [b'{"a":1}'], examples)


def test_npy_headers(examples: int) -> None:
    from pyplantx.specs.npy import read_header

    sound = []
    for dtype in ("<f8", [("a", "i4"), ("b", "f8", (2,))], "S5"):
        buffer = io.BytesIO()
        np.save(buffer, np.zeros(3, dtype))
        sound.append(buffer.getvalue())
    fuzz(lambda data: read_header(data, "data.npy").size, sound, examples)
    heads = [data[10 : data.index(b"\n")] for data in sound]

    def parse(text: bytes) -> None:
        header = read_header(b"\x93NUMPY\x01\x00" + (len(text) & 0xFFFF).to_bytes(2, "little") + text, "data.npy")
        assert header.size >= 0

    fuzz(parse, heads, examples)


@pytest.mark.parametrize("chunks", [None, (2,)])
def test_hdf5_files(examples: int, chunks: Any) -> None:
    """HDF5 itself is asked only in a child process, in chunks of examples: should it die, that is told."""
    import h5py

    buffer = io.BytesIO()
    with h5py.File(buffer, "w", libver=("v110", "v110")) as file:
        file.create_dataset("data", data=np.arange(8.0), chunks=chunks)
    sound = buffer.getvalue()
    found: list[bytes] = []

    @settings(max_examples=examples, deadline=None, suppress_health_check=list(HealthCheck))
    @given(mutated([sound]))
    def collect(data: bytes) -> None:
        found.append(data)

    collect()
    in_child(lambda: [_open_hdf(data) for data in found], LONG_LIMIT)


def _open_hdf(data: bytes) -> None:
    from pyplantx.specs.hdf import HdfArraySpec, _backend
    from pyplantx.specs.zarrstore import InMemory

    assert HdfArraySpec.name
    try:
        backend = _backend(InMemory(data), {"shape": [8], "dtype": "<f8"})
        backend.read(...)
    except (PyplantxError, *(OSError, ValueError)) as error:
        assert isinstance(error, PyplantxError) or "read" in str(error), error


def in_child(work: Callable[[], Any], limit: float = children.LIMIT) -> None:
    """Do it in a forked child, whose death is an ordinary failure."""
    status = children.in_child(work, limit)
    assert status == 0, f"the child ended with {status}"


# -- files of the directory ----------------------------------------------------------------------------


def test_format_and_mark(examples: int, tmp_path: Path) -> None:
    layout = Layout(str(tmp_path))
    check = hash_text(f"{formatfile.FORMAT_NAME} 1")

    def parse_format(data: bytes) -> None:
        Path(layout.format).write_bytes(data)
        formatfile.check_format(layout)

    def parse_mark(data: bytes) -> None:
        Path(layout.mark).write_bytes(data)
        assert isinstance(_read_mark(layout), dict)

    fuzz(parse_format, [f'{{"format":"pyplantx warehouse","version":1,"check":"{check}"}}'.encode()], examples)
    fuzz(parse_mark, [f'{{"meta.lmdb":[4096,"{"a" * 32}"],"small.lmdb":[4096,"{"b" * 32}"]}}'.encode()], examples)


def test_ledgers_of_unfinished_work(examples: int, tmp_path: Path) -> None:
    from pyplantx.warehouse.resume import Ledger

    path = tmp_path / "ledger"

    def parse(data: bytes) -> None:
        path.write_bytes(data)
        Ledger(str(path), "k").read()

    def with_check(data: bytes) -> None:
        text = data.replace(b"\n", b"")
        parse(hash_bytes(b"k 0 " + text)[:16].encode() + b" " + text + b"\n")

    fuzz(parse, [b"0123456789abcdef {}\n"], examples)
    fuzz(with_check, [b'{"format":1,"reactor":"mod:r"}', b'{"saw":[],"blocks":[[0,1]]}'], examples)


def test_lock_notes(examples: int, tmp_path: Path) -> None:
    from pyplantx.warehouse.locks import FileLock

    path = tmp_path / "lock"

    def parse(data: bytes) -> None:
        path.write_bytes(data)
        assert all(isinstance(text, str) for text in FileLock(str(path)).holder())

    fuzz(parse, [b'{"pid":1,"host":"h","since":1.5,"note":"n"}'], examples)


def test_records_of_code(examples: int) -> None:
    """What is remembered about code objects: anything else than a sound text counts as not remembered."""
    from pyplantx.fingerprint.records import Import, Record

    imports = [Import(0, "os", None, None)]
    text = Record("a" * 32, ["np.linalg.norm", "@LIMIT"], imports, 5, True, True, '[[["a"]]]').to_text()

    def parse(data: bytes) -> None:
        Record.from_text(data.decode("utf-8", "surrogateescape")).sent

    fuzz(parse, [text.encode(), b"a" * 32 + b".\t"], examples, ValueError, LookupError, TypeError, RecursionError)


# -- the whole facade, on an index of which every body is forged --------------------------------------


class ForgedReader:
    """Stands in for the index: every look-up gives the same forged body."""

    def __init__(self, real: Any) -> None:
        self._real = real
        self.body = b""

    def get(self, table: str, key: bytes) -> bytes:
        return self.body

    def scan(self, table: str) -> Iterator[tuple[bytes, bytes]]:
        yield b"0" * 32, self.body
        yield name_key("x"), self.body

    def tail(self, table: str, limit: int) -> list[tuple[bytes, bytes]]:
        return [(b"0" * 16, self.body)]

    def payload(self, key: bytes) -> bytes:
        return self.body

    def __getattr__(self, name: str) -> Any:
        return getattr(self._real, name)


SOUND = [
    records.encode_name(NAME),
    records.encode_object(OBJECT, b"abc"),
    json.dumps(LAID[0]).encode() + b"\n",
    SEGMENT.encode(),
    records.encode_versions(records.VersionList("mod:r", [("c" * 32, 1.0)], {})),
    b'["4:kindx","[\\"a\\"]"]',
    b'["8:reached/x","[1.0,\\"aa\\"]"]',
    b'[{"reactor":"r","id":"r","action":"ran","reason":"new","started":1.0,"seconds":1.0}]',
]


def ask_all(warehouse: Warehouse) -> None:
    """Every question that a plant or a tool asks; each may fail, with an error of the hierarchy."""
    warehouse._committer.waiting.gone.clear()
    questions: list[Callable[[], Any]] = [
        lambda: warehouse.find_record("0" * 32),
        lambda: dict(warehouse.producers("x")),
        lambda: warehouse.preview(warehouse.last_ref("x") or REF),
        lambda: warehouse.open(warehouse.last_ref("x") or REF),
        lambda: warehouse.has(warehouse.last_ref("x") or REF),
        lambda: warehouse.open(REF._replace(inline=None)),
        lambda: list(warehouse.names()),
        lambda: [version.parts.items() for version in warehouse.versions("mod:r")],
        lambda: [entry.get("id") for entry in warehouse.history()],
        lambda: warehouse.get_code("0" * 32),
        lambda: warehouse.blob_get("kind", "x"),
        lambda: warehouse.check(),
        lambda: str(warehouse.keeper.du()),
        lambda: str(warehouse.keeper.gc(0, None, None, True)),
        lambda: warehouse.keeper.pin("x", "0" * 32, stored=True),
        lambda: warehouse.keeper.unpin("x"),
    ]
    for question in questions:
        try:
            question()
        except PyplantxError:
            continue


def test_the_whole_facade(examples: int, tmp_path: Path) -> None:
    with Warehouse(tmp_path / "plant", trust="data", durability="process") as warehouse:
        real = warehouse._reader
        warehouse._reader = warehouse._opener._reader = forged = ForgedReader(real)  # type: ignore[assignment]

        @settings(max_examples=max(100, examples // 10), deadline=None, suppress_health_check=list(HealthCheck))
        @given(mutated(SOUND))
        @example(b"")
        def run(body: bytes) -> None:
            forged.body = body
            ask_all(warehouse)

        try:
            run()
        finally:
            warehouse._reader = warehouse._opener._reader = real


def test_deep_traces(examples: int) -> None:
    """What a whole ancestry is remembered by: forged, it is of no use, and harmless."""
    told = [("mod:r", "config", "lr", "b" * 32)]
    sound = deeptraces.encode_deep(deeptraces.DeepTrace("x", REF, {"mod:r": "a" * 32}, told, [], "c" * 32), "g")

    def parse(data: bytes) -> None:
        deep = deeptraces.decode_deep(data.decode("utf-8", "surrogateescape"), "x", "g")
        if deep is not None:
            assert isinstance(deep.ref.address, str) and isinstance(deep.roots, dict)
            assert all(len(answer) == 4 and answer[0] in deep.roots for answer in deep.answers)

    fuzz(parse, [sound.encode()], examples)


def test_lineages(examples: int) -> None:
    """Who in it received and sent what: whatever makes sense can be used, with gaps, and reactors that nobody knows."""
    made = {"a": deeptraces.Maker([], {"x": ["1", "2"]}), "b": deeptraces.Maker(["x"], {"y": ["3", "4"]})}
    deep = deeptraces.DeepTrace("y", REF, {"a": "5", "b": "6"}, [], ["2"], "")

    def parse(data: bytes) -> None:
        lineage = deeptraces.decode_lineage(data.decode("utf-8", "surrogateescape"))
        known = {id: maker for id, maker in lineage.items() if id in deep.roots}
        former = Former(deep, known, {"b"})
        for name in [name for maker in known.values() for name in maker.sent]:
            sender = former.take_untouched(name)
            assert sender is None or set(former.makers_of(name, ())) <= known.keys()
        former.way_to("y", "a")

    fuzz(parse, [deeptraces.encode_lineage(made).encode()], examples)


def test_a_plant_on_forged_traces(examples: int, tmp_path: Path) -> None:
    """Whatever traces and blobs say: the plant answers, or runs what is needed, or says what is wrong."""
    folder = tmp_path / "plant"

    def make(pipe: Any) -> None:
        pipe.send("x", pipe.read_config("lr") + 1)

    def use(pipe: Any) -> Any:
        pipe.send("y", 2 * (yield pipe.receive("x")))

    from pyplantx.testing import forget_reactors

    forget_reactors()
    reactors = [ReactorFunc(name="make")(make), ReactorFunc(name="use")(use)]
    with Plant(folder, config={"lr": 1}, durability="process") as plant:
        plant.add_reactors(*reactors)
        assert plant.produce("y") == 4
    shutil.rmtree(folder / "backup")
    with Plant(folder, config={"lr": 1}, durability="process") as plant:
        plant.add_reactors(*reactors)
        reader = plant.warehouse._reader
        real = reader.get
        forged: set[bytes] = set()

        def forge(table: str, body: bytes) -> Callable[[str, bytes], bytes | None]:
            """The body for whatever is asked first; a store is finite, so not at every node of a tree."""
            forged.clear()

            def get(asked: str, key: bytes) -> bytes | None:
                if asked != table or (key not in forged and len(forged) >= 5):
                    return real(asked, key)
                forged.add(key)
                return body

            return get

        @settings(max_examples=max(60, examples // 20), deadline=None, suppress_health_check=list(HealthCheck))
        @given(
            st.sampled_from(["traces", "blobs", "names", "versions", "code", "objects"]),
            mutated([SEGMENT.encode(), *SOUND]),
        )
        def run(table: str, body: bytes) -> None:
            reader.get = forge(table, body)
            try:
                plant.status()
                plant.produce("x")  # whose value is the word of whoever forged it: that is what `trust` is about
            except PyplantxError:
                return
            finally:
                del reader.get

        run()
