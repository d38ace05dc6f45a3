"""Values larger than memory: what a reactor allocates or receives costs no private memory of its size."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

LIMITED = """
import mmap, os, resource, sys
import numpy as np
from pyplantx import specs
from pyplantx.spec_tests import FolderPayload, FolderStage

folder, shape = sys.argv[1], (128, 1 << 17)  # 128 MiB of float64
stage = FolderStage(folder)
registry = specs.SpecRegistry()
import h5py, pyplantx.fingerprint.value, pyplantx.specs.npy

def private():
    with open("/proc/self/status") as status:
        return sum(int(line.split()[1]) for line in status if line.startswith(("VmData", "VmStk"))) * 1024

limit = private() + (64 << 20)
resource.setrlimit(resource.RLIMIT_DATA, (limit, limit))
block = np.ones((4, shape[1]))
try:
    np.ones(shape)
    raise SystemExit("the limit is not in force")
except MemoryError:
    pass
"""

PROGRAMS = {
    "hdf in order": """
allocation = registry.get("hdf").allocate(stage, shape=shape, dtype="f8")
for start in range(0, 128, 4):
    allocation.handle[start:start + 4] = block
written = allocation.seal()
received = registry.get("hdf").open(stage.seal(), written.meta, 1)
total = sum(received[start:start + 4].sum() for start in range(0, 128, 4))
""",
    "hdf packed and backwards": """
allocation = registry.get("hdf").allocate(stage, shape=shape, dtype="f8", compression="lzf")
for start in reversed(range(0, 128, 4)):
    allocation.handle[start:start + 4] = block
written = allocation.seal()
received = registry.get("hdf").open(stage.seal(), written.meta, 1)
total = sum(received[start:start + 4].sum() for start in range(0, 128, 4))
""",
    "array": """
allocation = registry.get("array").allocate(stage, shape=shape)
kept = allocation.handle[:1]
for start in range(0, 128, 4):
    allocation.handle[start:start + 4] = block
written = allocation.seal()
assert not allocation.handle.flags.writeable
received = registry.get("array").open(stage.seal(), written.meta, 1)
total = received.sum()
assert kept.sum() == shape[1]
with_view = registry.get("array").write(received, FolderStage(os.path.join(folder, "again")))
assert with_view.digest == written.digest
""",
    "hdf from an array": """
allocation = registry.get("array").allocate(stage, shape=shape)
allocation.handle[:] = 1
registry.get("hdf").write(allocation.handle, FolderStage(os.path.join(folder, "again")))
total = allocation.handle.sum()
""",
}


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc and limits RLIMIT_DATA")
@pytest.mark.parametrize("program", PROGRAMS.values(), ids=PROGRAMS)
def test_128_mebibytes_in_64(program, tmp_path):
    (tmp_path / "again").mkdir()
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    source = LIMITED + program + "assert total == 128 * shape[1], total\nprint('done')"
    done = subprocess.run(
        [sys.executable, "-c", source, str(tmp_path)], env=environment, capture_output=True, text=True, check=False
    )
    assert done.stdout == "done\n", done.stderr


HUGE = """
import os, sys
from pyplantx.specs import ArraySpec
from pyplantx.specs.npy import header_bytes
from pyplantx.spec_tests import FolderPayload
import numpy as np
folder, length = sys.argv[1], 1 << 37  # one tebibyte
head = header_bytes(np.dtype("f8"), (length,), False)
with open(os.path.join(folder, "data.npy"), "wb") as file:
    file.write(head)
    file.truncate(len(head) + 8 * length)
array = ArraySpec().open(FolderPayload(folder, ["data.npy"]), {}, 1)
array[length // 2] = 5
assert array[length // 2] == 5 and array[-1] == 0
"""


def test_an_array_of_a_tebibyte_opens_writable(tmp_path):
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    done = subprocess.run(
        [sys.executable, "-c", HUGE, str(tmp_path)], env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
