"""What the built-in specs are given from outside, and what all of them say of a missing library or option."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import TypeVar

from pyplantx.core.trace import Digest
from pyplantx.errors import BadRequest, MissingLibrary
from pyplantx.specs.base import IngredientTypeSpec

#: For those who have no budget of their own (a spec without a plant).
CHUNK_MEMORY = 32 << 20

Self = TypeVar("Self", bound="BuiltinSpec")


def _default_encode(value: object) -> Digest:
    from pyplantx.fingerprint.value import digest

    return digest(value)


def _nothing_is_project(_: type) -> bool:
    return False


class Services:
    """Helpers that the plant injects into the built-in specs.

    Parameters
    ----------
    encode : callable, optional
        Value -> canonical digest; raises `CannotFingerprint`. Default: ``fingerprint.value.digest``.
    is_project_class : callable, optional
        Whether a class belongs to the user's project (its code then counts for who receives it). Default: none does.
    writable : bool
        Whether received arrays may be written to (privately, copy-on-write).
    full_check : bool
        Whether payloads are checked to the last index, because the store is not this user's own.
    chunk_memory : int
        Bytes of unpacked chunks that one open dataset may hold.
    """

    __slots__ = ("chunk_memory", "encode", "full_check", "is_project_class", "writable")

    def __init__(
        self,
        encode: Callable[[object], Digest] | None = None,
        is_project_class: Callable[[type], bool] | None = None,
        *,
        writable: bool = True,
        full_check: bool = False,
        chunk_memory: int = CHUNK_MEMORY,
    ) -> None:
        self.encode = encode or _default_encode
        self.is_project_class = is_project_class or _nothing_is_project
        self.writable, self.full_check, self.chunk_memory = writable, full_check, chunk_memory


class BuiltinSpec(IngredientTypeSpec):
    """A spec that comes with the package; made without arguments, served by a registry."""

    def __init__(self) -> None:
        self.services = Services()

    def serve(self: Self, services: Services) -> Self:
        """Take the registry's helpers; returns itself."""
        self.services = services
        return self


class OptionalLibrary:
    """A block that imports an optional library: ``with OptionalLibrary("h5py", "an HDF array"): import h5py``.

    Parameters
    ----------
    package : str
        Name by which it is installed.
    what : str
        Who needs it, for the error.

    Raises
    ------
    MissingLibrary
        If the import fails; the original error is its cause.
    """

    __slots__ = ("_package", "_what")

    def __init__(self, package: str, what: str) -> None:
        self._package = package
        self._what = what

    def __enter__(self) -> None:
        """Nothing to prepare."""

    def __exit__(self, _: object, error: BaseException | None, __: object) -> None:
        if isinstance(error, ImportError):
            raise MissingLibrary(
                f"{self._what} needs the package {self._package!r}, which can't be imported: {error}",
                hint=f"pip install {self._package}",
            ) from error


def unknown_options(what: str, unknown: Iterable[str], possible: Sequence[str]) -> BadRequest:
    """The error for an allocation with options that there are not; names those that were probably meant.

    Parameters
    ----------
    what : str
        What was to be allocated, with its article.
    unknown, possible : sequence of str
        Names of options.
    """
    import difflib

    near = [close for name in unknown for close in difflib.get_close_matches(name, possible, n=1)]
    meant = f"did you mean {', '.join(near)}? " if near else ""
    return BadRequest(
        f"{what} can't be allocated with {', '.join(unknown)}=",
        hint=f"{meant}{', '.join(possible[:-1])} and {possible[-1]} are possible",
    )
