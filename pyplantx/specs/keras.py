"""KerasModelSpec: Keras 3 models as ``.keras`` archives (specs/keras is the written format).

keras is imported on first use, with the backend that KERAS_BACKEND names.
"""

from __future__ import annotations

import json
import zipfile
from collections.abc import Iterator, Mapping
from typing import Any

from pyplantx.basics.loaded import is_of
from pyplantx.core.trace import Digest
from pyplantx.errors import CannotStore, DamagedObject, PayloadMissing
from pyplantx.specs.base import Payload, Stage, Written
from pyplantx.specs.buffers import one_line
from pyplantx.specs.plain import type_name
from pyplantx.specs.services import BuiltinSpec, OptionalLibrary

_PART = "model.keras"
_MEMBERS = frozenset({"config.json", "metadata.json", "model.weights.h5"})


class KerasModelSpec(BuiltinSpec):
    """A Keras model with its weights, compile settings and optimizer state."""

    name = "keras"
    #: Keras' safe mode has been bypassed more than once, so a model is only loaded from a trusted store.
    executes_code = True

    def recognise(self, value: Any) -> bool:
        return is_of(value, "keras", "Model")

    def write(self, value: Any, stage: Stage) -> Written:
        keras = _keras()
        if not isinstance(value, keras.Model):
            raise CannotStore(f"value is a {type_name(type(value))}, not a Keras model", hint="leave the type off")
        path = stage.path(_PART)
        try:
            value.save(path)
        except (ValueError, TypeError, NotImplementedError) as error:
            raise CannotStore(
                f"Keras can't save the model {value.name!r}: {error}",
                hint="give custom layers get_config and @keras.saving.register_keras_serializable",
            ) from error
        meta: dict[str, Any] = {"keras": keras.__version__, "name": value.name, "parameters": int(value.count_params())}
        classes = sorted(self._project_classes(value))
        if classes:
            meta["classes"] = classes
        return Written(_digest(keras, value), meta)

    def open(self, payload: Payload, meta: Mapping[str, Any], version: int) -> Any:
        path = _checked(payload)
        keras = _keras()
        try:
            return keras.saving.load_model(path)
        except (ValueError, TypeError, KeyError) as error:
            raise PayloadMissing(
                f"the stored model can't be made again here: {error}",
                hint="a custom layer has moved or changed; the model is produced again",
            ) from error

    def preview(self, payload: Payload, meta: Mapping[str, Any], version: int) -> str:
        return one_line(f"keras model {meta.get('name')}, {meta.get('parameters', 0):,} parameters")

    def _project_classes(self, model: Any) -> set[str]:
        kinds = {type(model), *map(type, model._flatten_layers())}
        found = filter(self.services.is_project_class, kinds)
        return {f"{kind.__module__}:{kind.__qualname__}" for kind in found}


def _keras() -> Any:
    with OptionalLibrary("keras", "a Keras model"):
        import keras
    return keras


def _checked(payload: Payload) -> str:
    """The archive's path, if it is one. Looks at the list of members only."""
    if tuple(payload.parts()) != (_PART,) or not payload.is_file(_PART):
        raise DamagedObject(f"a Keras model has the one file {_PART}, this one has {', '.join(payload.parts())}")
    path = payload.path(_PART)
    try:
        with zipfile.ZipFile(path) as archive:
            missing = _MEMBERS - set(archive.namelist())
    except zipfile.BadZipFile as error:
        raise DamagedObject(f"a Keras model is not a zip archive: {error}") from error
    if missing:
        raise DamagedObject(f"a Keras model lacks {', '.join(sorted(missing))}")
    return path


def _digest(keras: Any, model: Any) -> Digest:
    """Over configuration, weights and optimizer state; the archive's zip entries carry times."""
    from pyplantx.fingerprint.value import combine

    config = json.dumps(keras.saving.serialize_keras_object(model), sort_keys=True, default=repr)
    return combine(b"keras\0" + config.encode(), _weights(keras, model))


def _weights(keras: Any, model: Any) -> Iterator[Digest]:
    from pyplantx.fingerprint.value import array_digest

    optimizer = getattr(model, "optimizer", None)
    variables = [*model.weights, *(optimizer.variables if optimizer is not None else ())]
    return (array_digest(keras.ops.convert_to_numpy(variable)) for variable in variables)
