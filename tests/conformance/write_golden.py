"""Adds golden files for values that have none: ``python tests/conformance/write_golden.py``.

Existing files are never touched: they are what an earlier version wrote. Look at the new ones by other means
(numpy.load, h5dump, a text editor) before committing them. Cases of keras are made where Keras is installed.
"""

from __future__ import annotations

import importlib.util
import json
import shutil
import sys
import tempfile
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT), str(Path(__file__).parent)]

import golden_values  # noqa: E402

from pyplantx import specs  # noqa: E402
from pyplantx.spec_tests import FolderStage  # noqa: E402


def main() -> None:
    registry = specs.SpecRegistry()
    values = {**golden_values.VALUES, "keras": keras_values()}
    for name, cases in values.items():
        spec = registry.get(name)
        for case, value in cases.items():
            folder = ROOT / "specs" / name / str(spec.version) / "golden" / case
            if not folder.exists():
                write_case(spec, value, folder)
                print(folder.relative_to(ROOT))


def keras_values() -> dict[str, Any]:
    if importlib.util.find_spec("keras") is None:
        return {}
    import keras

    keras.utils.set_random_seed(1)
    return {"two-layers": keras.Sequential([keras.Input((2,)), keras.layers.Dense(2), keras.layers.Dense(1)])}


def write_case(spec: specs.IngredientTypeSpec, value: Any, folder: Path) -> None:
    with tempfile.TemporaryDirectory() as staging:
        stage = FolderStage(staging)
        written = golden_values.write(spec, value, stage)
        meta = json.loads(json.dumps(written.meta))
        found = golden_values.received(spec, spec.open(stage.seal(), meta, spec.version))
        record = {"meta": meta, "value": found}
        if "unencodable" not in meta and spec.name != "object":
            record["digest"] = written.digest
        shutil.copytree(staging, folder)
        folder.chmod(0o755)  # temporary folders are private
    (folder / "case.json").write_text(json.dumps(record, indent=1, ensure_ascii=True) + "\n")


if __name__ == "__main__":
    main()
