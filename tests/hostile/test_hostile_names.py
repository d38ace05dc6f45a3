"""Any text is a name, no name is a path: all distinct, and nothing is written outside of the directory."""

from __future__ import annotations

import os
import stat
import sys
import unicodedata
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pyplantx import Plant, ReactorFunc
from pyplantx.errors import NoProducer
from pyplantx.testing import forget_reactors
from pyplantx.warehouse import roots, tables, warehouse
from tests.hostile.strangers import AWKWARD, names

_CHANGES = frozenset({"os.mkdir", "os.rename", "os.remove", "os.rmdir", "os.link", "os.symlink", "os.truncate"})
_watchers: list[tuple[str, list[str]]] = []


def _watch(event: str, args: tuple[Any, ...]) -> None:
    """The audit hook: what is opened for writing, made, moved or removed outside of the watched folder."""
    if not _watchers:
        return
    if event == "open" and not (isinstance(args[1], str) and set(args[1]) & set("wxa+") or args[2] & os.O_ACCMODE):
        return
    if event != "open" and event not in _CHANGES:
        return
    inside, seen = _watchers[-1]
    seen += [str(path) for path in args[:2] if isinstance(path, str) and _leaves(path, inside)]


def _leaves(path: str, inside: str) -> bool:
    return path.startswith(("/", ".")) and not os.path.realpath(path).startswith((inside, "/dev/", "/proc/"))


@contextmanager
def watched(folder: Path) -> Iterator[list[str]]:
    """Paths outside of the folder that were changed meanwhile."""
    seen: list[str] = []
    if not getattr(_watch, "is_added", False):
        sys.addaudithook(_watch)
        _watch.is_added = True  # type: ignore[attr-defined]
    _watchers.append((os.path.realpath(folder), seen))
    try:
        yield seen
    finally:
        _watchers.pop()


def sender(wanted: list[str]) -> Any:
    """A reactor that sends each name with its own number."""

    @ReactorFunc(name="sends")
    def sends(pipe: Any) -> None:
        for number, name in enumerate(pipe.read_config("names")):
            pipe.send(name, number)

    forget_reactors()
    return sends


def round_trip(folder: Path, wanted: list[str]) -> None:
    with watched(folder) as outside:
        for _ in range(2):  # the second plant has nothing but the store
            with Plant(folder, durability="process", config={"names": wanted}) as plant:
                plant.add_reactors(sender(wanted))
                plant.produce(wanted[0])
                assert [plant.fetch_ingredient(name) for name in wanted] == list(range(len(wanted)))
                assert set(plant.warehouse.names()) >= set(wanted)
    assert outside == []


def test_the_watch_sees_what_is_written_outside(tmp_path: Path) -> None:
    (tmp_path / "inside").mkdir()
    with watched(tmp_path / "inside") as outside:
        (tmp_path / "inside" / "file").write_text("x")
        assert outside == []
        (tmp_path / "file").write_text("x")
        os.mkdir(tmp_path / "folder")
        assert len(outside) == 2


def test_awkward_names_are_all_distinct(tmp_path: Path) -> None:
    wanted = list(dict.fromkeys(AWKWARD))
    before = sorted(os.listdir(tmp_path))
    round_trip(tmp_path / "plant", wanted)
    assert sorted(os.listdir(tmp_path)) == [*before, "plant"]
    for path in (tmp_path / "plant").rglob("*"):  # no name has become a file's
        assert path.name.isascii() and not stat.S_ISLNK(path.lstat().st_mode)


def test_names_that_are_taken_for_the_same_are_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The positive control: a store like a file system that does not know capitals."""
    real = tables.name_key
    for module in (tables, warehouse, roots):
        monkeypatch.setattr(module, "name_key", lambda name: real(name.lower()))
    with pytest.raises(AssertionError, match="{'A'} >= {'A', 'a'}"):
        round_trip(tmp_path / "plant", ["a", "A"])
    round_trip(tmp_path / "others", ["a", "b"])


def variants(name: str) -> list[str]:
    """The name, and what careless stores take for the same."""
    forms = [unicodedata.normalize(form, name) for form in ("NFC", "NFD", "NFKC", "NFKD")]
    return list(dict.fromkeys([name, name.upper(), name.lower(), name.casefold(), name.strip(), name + "\0", *forms]))


def check_many(folder: Path, examples: int) -> None:
    number = iter(range(1 << 30))

    @settings(max_examples=examples, deadline=None, suppress_health_check=list(HealthCheck))
    @given(st.lists(names, min_size=1, max_size=3))
    def run(some: list[str]) -> None:
        wanted = list(dict.fromkeys(variant for name in some for variant in variants(name)))
        round_trip(folder / str(next(number)), wanted)

    run()


def test_many_names(tmp_path: Path) -> None:
    check_many(tmp_path, 20)  # each with up to 27 names


@pytest.mark.campaign
def test_five_thousand_names(tmp_path: Path) -> None:
    check_many(tmp_path, 1000)


def test_an_absent_name_is_shown_on_one_line_and_does_not_reach_the_terminal(tmp_path: Path) -> None:
    with Plant(tmp_path / "plant") as plant:
        with pytest.raises(NoProducer) as caught:
            plant.fetch_ingredient("\x1b[2Jcleared\nforged: all is well")
    headline = str(caught.value).splitlines()[0]
    assert "\x1b" not in str(caught.value) and "forged" in headline
