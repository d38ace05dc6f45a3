"""Named tuples that are made quickly: sixty of them were a fifth of what importing the package costs.

``typing.NamedTuple`` compiles every annotation and writes Python code for each class, 130 µs in all; this takes 25. For
type checkers it is ``typing.NamedTuple``, and it is used in the same way: a class body of annotated fields, some with a
default, and methods. Fields can't be changed, subclasses add none.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from typing import NamedTuple as NamedTuple
else:
    from collections import _tuplegetter

    def _new(cls: type, *given: Any, **named: Any) -> Any:
        lack = len(cls._fields) - len(given)
        if named or not 0 <= lack <= len(cls._defaults):
            given = _complete(cls, given, named)
        elif lack:
            given += cls._defaults[-lack:]
        return tuple.__new__(cls, given)

    def _complete(cls: type, given: tuple[Any, ...], named: dict[str, Any]) -> tuple[Any, ...]:
        """All fields in order, from what was given by place, by name, and by default."""
        left = cls._fields[len(given) :]
        known = {**cls._field_defaults, **named}
        wrong = [name for name in named if name not in left] or given[len(cls._fields) :]
        lacking = [name for name in left if name not in known]
        if wrong or lacking:
            what = f"lacks {', '.join(lacking)}" if lacking else f"does not take {', '.join(map(repr, wrong))}"
            raise TypeError(f"{cls.__name__}({', '.join(cls._fields)}) {what}")
        return (*given, *[known[name] for name in left])

    def _repr(self: tuple[Any, ...]) -> str:
        fields = ", ".join([f"{name}={value!r}" for name, value in zip(self._fields, tuple.__iter__(self))])
        return f"{type(self).__name__}({fields})"

    def _make(cls: type, values: Iterable[Any]) -> Any:
        """The tuple of these values, one for each field."""
        return cls(*values)

    def _replace(self: tuple[Any, ...], **changes: Any) -> Any:
        """The same tuple with other values for some fields."""
        return type(self)(**{**self._asdict(), **changes})

    def _asdict(self: tuple[Any, ...]) -> dict[str, Any]:
        """Field to value."""
        return dict(zip(self._fields, tuple.__iter__(self)))

    _METHODS: Mapping[str, Any] = {
        "__slots__": (),
        "__new__": _new,
        "__repr__": _repr,
        "__getnewargs__": lambda self: tuple(tuple.__iter__(self)),
        "_make": classmethod(_make),
        "_replace": _replace,
        "__replace__": _replace,  # for copy.replace
        "_asdict": _asdict,
    }

    class _Maker(type):
        """Makes a subclass of tuple where a class is derived from `NamedTuple`."""

        def __new__(mcs, name: str, bases: tuple[type, ...], body: dict[str, Any]) -> type:
            if not bases:
                return super().__new__(mcs, name, bases, body)
            fields = tuple(body.get("__annotations__", ()))
            if not fields and "__annotate_func__" in body:  # Python 3.14, where they are not postponed
                raise TypeError(f"{name} needs `from __future__ import annotations`, or its fields are not seen")
            defaults = {field: body.pop(field) for field in fields if field in body}
            if tuple(defaults) != fields[len(fields) - len(defaults) :]:
                raise TypeError(f"{name}: a field without a default follows one with a default")
            getters = {field: _tuplegetter(index, f"The field {field!r}.") for index, field in enumerate(fields)}
            described = {"_fields": fields, "_field_defaults": defaults, "__match_args__": fields}
            described["_defaults"] = tuple(defaults.values())
            return type(name, (tuple,), {**_METHODS, **described, **getters, **body})

    class NamedTuple(metaclass=_Maker):
        """Derive from it as from ``typing.NamedTuple``."""
