"""Ingredient types of plain values: simple and list, as one JSON text.

specs/simple and specs/list are the written formats. Every plant loads this file, so it imports little.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from pyplantx.errors import CannotStore, DamagedObject
from pyplantx.specs.base import Payload, Stage, Written
from pyplantx.specs.buffers import one_line, slices
from pyplantx.specs.plain import SIMPLE, dump_json, find_unlisted, load_json, type_name
from pyplantx.specs.services import BuiltinSpec

if TYPE_CHECKING:
    from pyplantx.core.trace import Digest

_JSON_PART = "value.json"
_RAW_PART = "value.bin"
_RAW_BYTES = 256  #: longer bytes are a raw part
_MOSTLY_TINY = SIMPLE - {str, bytes}


class SimpleSpec(BuiltinSpec):
    """None, bool, int, float, complex, str and bytes: by exact type, as one JSON text."""

    name = "simple"

    def recognise(self, value: Any) -> bool:
        return type(value) in SIMPLE

    def write(self, value: Any, stage: Stage) -> Written:
        kind = type(value)
        if kind not in SIMPLE:
            raise CannotStore(
                f"value is a {type_name(kind)}, not a simple value",
                hint="leave the type off, or convert the value (int(x), float(x), str(x))",
            )
        if kind is bytes and len(value) > _RAW_BYTES:
            stage.write(_RAW_PART, slices(memoryview(value)))
            return Written(self.services.encode(value), {"part": _RAW_PART})
        stage.write(_JSON_PART, (dump_json(value),))
        return Written(self.services.encode(value))

    def write_tiny(self, value: Any, most: int) -> tuple[str, bytes, Digest] | None:
        """`write` without a stage: part, bytes and digest; None if there are more, or it is for `write` to refuse.

        Most values of quick reactors are small numbers: a stage costs more than all the rest.
        """
        kind = type(value)
        if kind not in _MOSTLY_TINY and (kind not in SIMPLE or len(value) > most):
            return None
        data = dump_json(value)
        return (_JSON_PART, data, self.services.encode(value)) if len(data) <= most else None

    def open(self, payload: Payload, meta: Mapping[str, Any], version: int) -> Any:
        if meta and meta.get("part") == _RAW_PART:
            return payload.read(_RAW_PART)
        return self._value(payload.read(_JSON_PART))

    def open_tiny(self, part: str, data: bytes) -> Any:
        """`open` of what `write_tiny` gave."""
        if part != _JSON_PART:
            raise DamagedObject(f"a simple value has no part {part!r}")
        return self._value(data)

    @staticmethod
    def _value(data: bytes) -> Any:
        value = load_json(data, "simple value")
        if type(value) is list:
            raise DamagedObject("the payload of a simple value is a list")
        return value

    def preview(self, payload: Payload, meta: Mapping[str, Any], version: int) -> str:
        value = self.open(payload, meta, version)
        return "None" if value is None else f"{type(value).__name__} {_shown(value)}"


class ListSpec(BuiltinSpec):
    """A list of simple values and of such lists, as one JSON text."""

    name = "list"

    def recognise(self, value: Any) -> bool:
        return type(value) is list and find_unlisted(value) is None

    def write(self, value: Any, stage: Stage) -> Written:
        trouble = find_unlisted(value) if type(value) is list else ("value", f"a {type_name(type(value))}")
        if trouble is not None:
            path, what = trouble
            raise CannotStore(
                f"{path} is {what}; a list ingredient holds simple values and lists of them",
                hint="leave the type off, or use Ingredient.Type.object",
            )
        stage.write(_JSON_PART, (dump_json(value),))
        return Written(self.services.encode(value))

    def open(self, payload: Payload, meta: Mapping[str, Any], version: int) -> Any:
        value = load_json(payload.read(_JSON_PART), "list")
        if type(value) is not list:
            raise DamagedObject(f"the payload of a list is a {type(value).__name__}")
        return value

    def preview(self, payload: Payload, meta: Mapping[str, Any], version: int) -> str:
        value = self.open(payload, meta, version)
        return f"list of {len(value)}: {_shown(value[:20])}"


def _shown(value: Any) -> str:
    try:
        return one_line(repr(value))
    except ValueError:  # CPython writes no decimal text of an int above 4,300 digits
        return "with an int of more than 4,300 digits"
