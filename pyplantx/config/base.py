"""What a user's config is built from: `ConfigBase` and `ConfigValue`.

Neither is needed: any dict, dataclass, pydantic model, namespace or plain object can be a config.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, Generic, TypeVar, overload

if TYPE_CHECKING:
    from typing import Self

T = TypeVar("T")


class ConfigValue(Generic[T]):
    """One parameter with something to say about itself; reading it gives the plain value.

    It can stand on a class (as a default that instances may override), be assigned to an attribute of a
    `ConfigBase`, or be a value of a dict or of any other config.

    Parameters
    ----------
    value : object
        The (default) value.
    auxiliary : bool
        Whether reactors may read it without depending on it: a temporary folder, a logging level.

    Examples
    --------
    >>> class MyConfig(ConfigBase):
    ...     workers = ConfigValue(4, auxiliary=True)
    >>> MyConfig().workers
    4
    """

    __slots__ = ("value", "auxiliary", "_name")

    def __init__(self, value: T, *, auxiliary: bool = False) -> None:
        self.value = value
        self.auxiliary = auxiliary
        self._name = ""

    def __set_name__(self, owner: type, name: str) -> None:
        self._name = name

    @overload
    def __get__(self, instance: None, owner: type) -> Self: ...

    @overload
    def __get__(self, instance: object, owner: type | None = None) -> T: ...

    def __get__(self, instance: object | None, owner: type | None = None) -> Self | T:
        if instance is None:
            return self
        stored: T = vars(instance).get(self._name, self.value)
        return stored

    def __set__(self, instance: object, value: T | ConfigValue[T]) -> None:
        vars(instance)[self._name] = value.value if isinstance(value, ConfigValue) else value

    def __delete__(self, instance: object) -> None:
        vars(instance).pop(self._name, None)

    def __repr__(self) -> str:
        return f"ConfigValue({self.value!r}, auxiliary={self.auxiliary})"


class ConfigBase:
    """Base of a config written as a class: set attributes in the constructor or on the class.

    Examples
    --------
    >>> class MyConfig(ConfigBase):
    ...     def __init__(self) -> None:
    ...         super().__init__()
    ...         self.color = 'red'
    ...         self.log_level = 'info'
    ...         self.mark_auxiliary(['log_level'])
    """

    # In a slot, so that `vars(config)` shows the user's parameters and nothing else.
    __slots__ = ("_pyplantx_auxiliary", "__dict__", "__weakref__")

    _pyplantx_auxiliary: set[str]

    def mark_auxiliary(self, names: Iterable[str]) -> None:
        """Let reactors read these parameters without depending on them.

        Parameters
        ----------
        names : iterable of str
            Names of parameters; dotted ones reach into nested groups. A name that does not exist
            (yet) is fine. Marking a group marks all that is in it.
        """
        marked = {names} if isinstance(names, str) else set(names)
        self._pyplantx_auxiliary = auxiliary_names(self) | marked

    def __setattr__(self, name: str, value: Any) -> None:
        if isinstance(value, ConfigValue):
            if value.auxiliary:
                self.mark_auxiliary([name])
            value = value.value
        super().__setattr__(name, value)

    def __repr__(self) -> str:
        shown = ", ".join(f"{name}={value!r}" for name, value in vars(self).items())
        return f"{type(self).__name__}({shown})"


def auxiliary_names(config: ConfigBase) -> set[str]:
    """The names that `config` itself has marked (a constructor may have skipped ours: then none)."""
    marked: set[str] = getattr(config, "_pyplantx_auxiliary", set())
    return marked
