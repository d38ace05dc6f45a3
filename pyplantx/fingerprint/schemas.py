"""What pydantic has compiled: validators, serializers, type adapters. Each is known by the schema it was made from.

In a schema classes go by texts with their address (``ref``), which is another in each process; here by the number in
which they are met.

This file may know: the shape of pydantic's schemas. It may not know: how anything is encoded or hashed.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Callable
from typing import Any, Final

from pyplantx.fingerprint.foreign import ANSWERS, let_end

_REFERENCES: Final = frozenset({"ref", "schema_ref"})
#: What the project has given lies under these, as it is.
_GIVEN: Final = frozenset({"default", "metadata"})
_ADDRESS: Final = re.compile(r":(\d{5,})")


def compiled_state(compiled: Any) -> object:
    """Of a validator or serializer what it is made from."""
    return _without_addresses(compiled.__reduce__()[1], {})


def call_state(wrapper: Any) -> object:
    """Of a function whose arguments are validated: itself, and what it accepts and returns.

    One that is to be built when it is first called is built now: else it would tell of what it accepts only then, and
    be another one from then on.
    """
    if not wrapper.__pydantic_complete__:
        _build(wrapper._create_validators)
    is_made = wrapper.__pydantic_complete__
    validators = (wrapper.__pydantic_validator__, wrapper.__return_pydantic_validator__) if is_made else None
    return wrapper.function, wrapper.validate_return, wrapper.config_wrapper.config_dict, validators


def _build(build: Callable[[], object]) -> None:
    try:
        build()
    except ANSWERS as error:  # of a type that is not there yet, or of the user's: whoever calls it is told
        let_end(error)


def adapter_state(adapter: Any) -> object:
    """Of a type adapter its type, config and validator: the serializer is made from the same schema.

    As with functions, one that is to be built when it is first used is built now.
    """
    if type(vars(adapter).get("validator")).__name__.startswith("Mock"):
        module = sys.modules.get(vars(adapter).get("_module_name") or "")
        names = {} if module is None else vars(module)
        _build(lambda: adapter.rebuild(raise_errors=False, _types_namespace=names))
    held = vars(adapter)
    validator = held.get("validator")
    is_made = not type(validator).__name__.startswith("Mock")  # else it is when it is first used
    return held.get("_type"), held.get("_config"), validator if is_made else None


def _without_addresses(part: Any, numbers: dict[str, int]) -> Any:
    if type(part) is dict:
        return {key: _entry(key, item, numbers) for key, item in part.items()}
    if type(part) in (list, tuple):
        return type(part)([_without_addresses(item, numbers) for item in part])
    return part


def _entry(key: Any, item: Any, numbers: dict[str, int]) -> Any:
    if key in _REFERENCES and type(item) is str:
        return _ADDRESS.sub(lambda found: f":{numbers.setdefault(found[1], len(numbers))}", item)
    return item if key in _GIVEN else _without_addresses(item, numbers)
