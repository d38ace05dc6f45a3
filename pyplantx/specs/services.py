"""What the built-in specs are given from outside, and what all of them say of a missing library or option."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, TypeVar

from pyplantx.core.trace import Digest
from pyplantx.errors import BadRequest, MissingLibrary, did_you_mean, shown
from pyplantx.specs.base import IngredientTypeSpec

#: For those who have no budget of their own (a spec without a plant).
CHUNK_MEMORY = 32 << 20

Self = TypeVar("Self", bound="BuiltinSpec")
_T = TypeVar("_T")


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
    meant = [did_you_mean(name, possible) for name in unknown]
    *first, last = possible
    advice = f"{', '.join(first)} and {last} are possible" if first else f"only {last} is possible"
    return BadRequest(f"{what} can't have {', '.join(unknown)}=", hint=" ".join([*filter(None, meant), advice]))


def check_uncompressed(options: Any) -> None:
    """Of an array without compression.

    Raises
    ------
    BadRequest
        If options of one are given: it would be uncompressed, and nobody be told.
    """
    if options is not None:
        raise BadRequest(
            f"compression_opts={shown(options)} is given, and no compression=", hint="name it: compression='gzip'"
        )


def make_compressor(make: Callable[..., _T], compression: str, options: Any, level: str) -> _T:
    """A compressor with the options that a script gives it.

    Parameters
    ----------
    make : callable
        Takes the compressor's own arguments by name.
    compression : str
        Its name, for the error.
    options : int, mapping or None
        A level, the arguments themselves, or nothing.
    level : str
        Which argument a lone number is.

    Raises
    ------
    BadRequest
        If it takes no such arguments.
    """
    named = options if isinstance(options, Mapping) else {} if options is None else {level: options}
    try:
        return make(**named)
    except (TypeError, ValueError, KeyError) as error:
        raise BadRequest(
            f"compression_opts={shown(options)} is not for {compression!r}: {error}",
            hint="leave it out, or give a level: compression_opts=3",
        ) from error
