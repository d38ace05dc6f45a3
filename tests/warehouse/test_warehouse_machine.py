"""Random lives of a store, compared with a dictionary."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from pathlib import Path
from typing import Any

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from pyplantx.errors import PayloadMissing
from pyplantx.warehouse.warehouse import Warehouse
from tests.faults.children import in_child
from tests.warehouse.stores import send

names = st.sampled_from(["a", "b", "../c", "d\0", "\ud800"])
values = st.one_of(
    st.integers(),
    st.sampled_from(["t", "u" * 300, "v" * 20_000, b"w" * 1_100_000, b"x" * 1_100_000, {"k": (1,)}, None]),
)


class Life(RuleBasedStateMachine):
    """Store, commit, sync, close, die, collect, pin, fork, open twice, damage.

    A name is as it should be, or missing where that is allowed.
    """

    def __init__(self) -> None:
        super().__init__()
        self.home = Path(tempfile.mkdtemp())
        self.number = 0
        self.directory = self.home / "0"
        self.warehouse = self.open()
        self.sent: dict[str, Any] = {}
        self.durable: dict[str, Any] = {}
        self.may_miss = False

    def open(self) -> Warehouse:
        return Warehouse(self.directory, durability="process", lock_timeout=5)

    def teardown(self) -> None:
        self.warehouse.sync()
        if self.may_miss:  # what was damaged and is no name's last version was read by nobody since
            self.warehouse.check(fix=True)
        assert [problem for problem in self.warehouse.check() if not problem.harmless] == []
        self.warehouse.close()
        shutil.rmtree(self.home)

    def read(self, warehouse: Warehouse, name: str) -> Any:
        ref = warehouse.last_ref(name)
        if ref is None:
            return PayloadMissing
        try:
            return warehouse.open(ref)
        except PayloadMissing:
            return PayloadMissing

    @rule(name=names, value=values)
    def send(self, name: str, value: Any) -> None:
        send(self.warehouse, name, value)
        self.sent[name] = value

    @rule(value=values)
    def store_without_commit(self, value: Any) -> None:
        assert self.warehouse.open(self.warehouse.store("lost", value)) == value

    @rule()
    def flush(self) -> None:
        self.warehouse.sync()
        self.durable = dict(self.sent)

    @rule()
    def reopen(self) -> None:
        self.warehouse.close()
        self.durable = dict(self.sent)
        self.warehouse = self.open()

    @rule()
    def die(self) -> None:
        """Go on with a copy of the files as they are at one instant: what a killed process leaves."""
        self.number += 1
        copy = self.home / str(self.number)
        environments = self.warehouse._session.index.environments
        environments.pause()  # the background thread writes nothing while we copy
        try:
            subprocess.run(["cp", "-a", str(self.directory), str(copy)], check=True, close_fds=True)
        finally:
            environments.resume()
        old, self.directory = self.warehouse, copy
        self.warehouse = self.open()
        for name in self.sent:
            found = self.read(self.warehouse, name)
            allowed = [self.sent[name], self.durable.get(name, PayloadMissing)]
            assert self.may_miss and found is PayloadMissing or found in allowed, name
            if found is not PayloadMissing:
                self.sent[name] = found
        missing = [name for name in self.sent if self.read(self.warehouse, name) is PayloadMissing]
        self.sent = {name: value for name, value in self.sent.items() if name not in missing}
        self.durable = dict(self.sent)
        old.close()

    @rule()
    def collect(self) -> None:
        self.warehouse.keeper.gc(None, 1, None, False)
        self.durable = dict(self.sent)

    @rule(name=names)
    def pin(self, name: str) -> None:
        """A pinned version outlives any collection."""
        ref = self.warehouse.last_ref(name)
        if ref is None or not self.warehouse.has(ref):
            return
        self.warehouse.keeper.pin(name, ref.address, stored=True)
        gone = {verdict.stored.address for verdict in self.warehouse.keeper.gc(0, None, None, False).gone}
        assert ref.address not in gone and (self.warehouse.has(ref) or self.may_miss)
        self.warehouse.keeper.unpin(name)
        last = {kept: self.warehouse.last_ref(kept) for kept in self.sent}
        self.sent = {kept: value for kept, value in self.sent.items() if getattr(last[kept], "address", "") not in gone}
        self.durable = dict(self.sent)

    @rule(name=names, value=values)
    def fork(self, name: str, value: Any) -> None:
        """A child stores something through a warehouse of its own; ours sees it, and goes on."""
        self.flush()  # what still waits here is newer than what the child stores

        def store() -> None:
            with self.open() as warehouse:
                send(warehouse, name, value)

        assert in_child(store) == 0
        self.warehouse.refresh()
        self.sent[name] = self.durable[name] = value

    @rule(name=names, value=values)
    def second(self, name: str, value: Any) -> None:
        """Another warehouse of this process on the same directory."""
        with self.open() as other:
            send(other, name, value)
            self.sent[name] = value
            self.never_wrong_in(other)

    @rule(pick=st.integers(0, 100), at=st.integers(0, 1_000_000))
    def damage(self, pick: int, at: int) -> None:
        """Change one byte of one payload file."""
        files = sorted((self.directory / "objects").glob("*/*/*"))
        if not files:
            return
        path = files[pick % len(files)]
        path.chmod(0o600)
        with open(path, "r+b") as file:
            file.seek(at % os.path.getsize(path))
            file.write(b"!")
        self.may_miss = True

    @rule()
    def mend(self) -> None:
        self.warehouse.check(fix=True)
        assert [problem for problem in self.warehouse.check() if not problem.harmless] == []

    @invariant()
    def never_wrong(self) -> None:
        self.never_wrong_in(self.warehouse)

    def never_wrong_in(self, warehouse: Warehouse) -> None:
        for name, value in self.sent.items():
            found = self.read(warehouse, name)
            assert found == value or (found is PayloadMissing and self.may_miss)
        assert set(warehouse.names()) >= set(self.sent)


TestLife = Life.TestCase
TestLife.settings = settings(
    max_examples=25, stateful_step_count=15, suppress_health_check=list(HealthCheck), deadline=None, derandomize=True
)
