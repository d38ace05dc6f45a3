"""One flipped bit in any byte of a golden file: it opens, or it is refused as damaged; nothing else is raised.

The store's checksums find damage before a spec sees it; this is the second line, for payloads from elsewhere. Pickles
and Keras models are left out: decoding damaged ones could run anything.
"""

from __future__ import annotations

import json
import random
import shutil
from pathlib import Path

import pytest

from pyplantx import specs
from pyplantx.errors import DamagedObject
from pyplantx.spec_tests import FolderPayload
from pyplantx.specs.services import Services

LAW = Path(__file__).resolve().parents[2] / "specs"
REGISTRY = specs.SpecRegistry(Services(full_check=True))
CASES = [
    case
    for name in ("simple", "list", "array", "sparse", "hdf", "zarr")
    for case in sorted(LAW.glob(f"{name}/*/golden/*"))
]


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("folder", CASES, ids=["/".join(case.relative_to(LAW).parts) for case in CASES])
def test_flipped_bits(folder, tmp_path):
    name, version = folder.parts[-4:-2]
    pytest.importorskip("zarr" if name == "zarr" else "numpy")
    meta = json.loads((folder / "case.json").read_text())["meta"]
    parts = sorted(path.name for path in folder.iterdir() if path.name != "case.json")
    for part in parts:
        shutil.copy(folder / part, tmp_path)
    chance = random.Random(str(folder.name))
    for part in parts:
        whole = (folder / part).read_bytes()
        for place in chance.sample(range(len(whole)), min(len(whole), 60)):
            flipped = bytearray(whole)
            flipped[place] ^= 1 << chance.randrange(8)
            (tmp_path / part).write_bytes(flipped)
            open_or_refuse(REGISTRY.get(name, int(version)), FolderPayload(str(tmp_path), parts), meta)
        (tmp_path / part).write_bytes(whole)


def open_or_refuse(spec: specs.IngredientTypeSpec, payload: FolderPayload, meta: dict) -> None:
    try:
        spec.open(payload, meta, 1)
    except DamagedObject as error:
        assert str(error)
