"""The ingredient type of all that no other takes: object. The only importer of dill.

specs/object is the written format. ``simple.py`` has the values that need no pickle.
"""

from __future__ import annotations

import os
import sys
import types
from collections.abc import Callable, Iterable, Mapping
from functools import cache
from typing import TYPE_CHECKING, Any

from pyplantx.errors import CannotFingerprint, CannotStore, DamagedObject, MissingLibrary, PayloadMissing
from pyplantx.fingerprint.foreign import ANSWERS, let_end
from pyplantx.specs.base import Payload, Stage, Written
from pyplantx.specs.buffers import map_file, one_line, slices
from pyplantx.specs.plain import type_name
from pyplantx.specs.refusals import advice, advice_where_pickle_fails, deepest, path_to, refusal
from pyplantx.specs.services import BuiltinSpec, OptionalLibrary

if TYPE_CHECKING:
    import pickle

_PICKLE_PART = "value.pickle"
_OWN_PART = 64 * 1024  #: buffers from here on are parts of their own
_FUNCTIONS = frozenset({types.FunctionType, type(cache(lambda: None))})
_PICKLERS = frozenset({"pyplantx", "pickle", "dill"})  #: packages whose code runs while nothing of the object's does
_NESTED = "value is nested too deeply to be pickled"


class ObjectSpec(BuiltinSpec):
    """Anything that pickle can write, with big buffers as parts; dill for what pickle refuses."""

    name = "object"
    executes_code = True

    def recognise(self, value: Any) -> bool:
        return True

    def write(self, value: Any, stage: Stage) -> Written:
        pickled = _pickled(value, self.services.is_project_class)
        stage.write(_PICKLE_PART, pickled.chunks)
        for index, buffer in enumerate(pickled.buffers):
            stage.write(_buffer_part(index), slices(buffer))
        meta = {"type": type_name(type(value)), **pickled.meta()}
        try:
            return Written(self.services.encode(value), meta)
        except (CannotFingerprint, RecursionError) as error:
            reason = str(error).partition("\n")[0] or "nested too deeply"
            # A digest of its own per send: no early cutoff, but never equal to another value's.
            return Written(os.urandom(16).hex(), {**meta, "unencodable": reason})

    def open(self, payload: Payload, meta: Mapping[str, Any], version: int) -> Any:
        _check_python(meta)
        parts = [_buffer_part(index) for index in range(meta.get("buffers", 0))]
        if set(payload.parts()) != {_PICKLE_PART, *parts}:
            raise DamagedObject(f"an object's parts don't match its record: {', '.join(sorted(payload.parts()))}")
        data = self._bytes(payload, _PICKLE_PART, writable=False)
        buffers = [self._bytes(payload, part, self.services.writable) for part in parts]
        try:
            return _unpickled(data, buffers, "dill" in meta)
        except ModuleNotFoundError as error:
            raise _without_module(error, meta.get("classes", ())) from error

    def preview(self, payload: Payload, meta: Mapping[str, Any], version: int) -> str:
        codec = "dill" if "dill" in meta else "pickle"
        return one_line(f"object {meta.get('type', '?')} ({codec}, {meta.get('buffers', 0)} large buffers)")

    @staticmethod
    def _bytes(payload: Payload, part: str, writable: bool) -> Any:
        if payload.is_file(part):
            return map_file(payload.path(part), writable)
        data = payload.read(part)
        return bytearray(data) if writable else data


def _buffer_part(index: int) -> str:
    return f"buffer-{index}.bin"


class _Refused(Exception):
    def __init__(self, target: object, what: str) -> None:
        super().__init__(what)
        self.target = target
        self.what = what


class _Sink:
    """What a pickler writes into, and what it notes on the way."""

    def __init__(self, is_project_class: Callable[[type], bool]) -> None:
        self.chunks: list[Any] = []
        self.buffers: list[memoryview] = []
        self.write = self.chunks.append
        self.classes: set[str] = set()
        self.codec: dict[str, Any] = {}
        self.holds_code = False
        self._is_project_class = is_project_class
        self._ways: dict[type, Callable[[Any], Any] | None] = {}  # of the classes that were seen, see `_own_way`

    def meta(self) -> dict[str, Any]:
        meta = dict(self.codec)
        if self.buffers:
            meta["buffers"] = len(self.buffers)
        if self.holds_code:
            meta["python"] = list(sys.version_info[:2])
        if self.classes:
            meta["classes"] = sorted(self.classes)
        return meta

    def take(self, buffer: pickle.PickleBuffer) -> bool:
        """Whether a buffer stays inside the pickle (small), or becomes a part."""
        raw = buffer.raw()
        if raw.nbytes < _OWN_PART:
            return True
        self.buffers.append(raw)
        return False

    def look(self, item: object) -> Any:
        """The hook of both picklers: refuse what is never stored, note classes; leave the rest to them."""
        kind = type(item)
        if kind not in self._ways:
            what = refusal(kind)
            if what is not None:
                return self._refuse(item, what)
            self._ways[kind] = _own_way(kind)
            self._note(kind)
        if isinstance(item, type):
            self._note(item)
        elif kind in _FUNCTIONS and _is_named(item):
            self._note(item)
        way = self._ways[kind]
        return NotImplemented if way is None else way(item)

    def look_for_dill(self, item: object) -> Any:
        """`look`, and the name of a script's class, or one in a function.

        dill itself warns that such a class can't be found, and then tries its name. To switch its warnings off would be
        to switch them for all threads.
        """
        way = self.look(item)
        if way is not NotImplemented or not isinstance(item, type):
            return way
        if item.__bases__ == (tuple,) and hasattr(item, "_fields"):
            return way  # named tuples are written in a way of dill's own
        is_missed = item.__module__ == "__main__" or "<locals>" in item.__qualname__
        return item.__qualname__ if is_missed else way

    def _refuse(self, item: object, what: str) -> Any:
        if getattr(item, "__name__", "").partition(".")[0] != "dill":  # dill's pickles name its own modules
            raise _Refused(item, what)
        return NotImplemented

    def _note(self, kind: Any) -> None:
        """Note a class or function, which receivers see as it is on the day that they receive the value."""
        if kind.__module__ == "builtins" and kind.__qualname__ == "code":
            self.holds_code = True
        elif self._is_project_class(kind):
            self.classes.add(f"{kind.__module__}:{kind.__qualname__}")


def _is_named(function: Any) -> bool:
    """Whether a function is what its module holds under its name: it is then pickled as that name."""
    found: Any = sys.modules.get(getattr(function, "__module__", None) or "")
    for part in getattr(function, "__qualname__", "").split("."):
        found = getattr(found, part, None)
    return found is function


def _own_way(kind: type) -> Callable[[Any], Any] | None:
    """How NumPy's objects of a class are pickled here, where NumPy's own way loses something; None for all others."""
    if any(vars(base).get("__pyplantx_kind__") == "subreactor" for base in kind.__mro__):  # no word of a metaclass
        return _by_name
    ours = next((base for base in kind.__mro__ if (base.__module__, base.__name__) in _OWN_WAYS), None)
    if ours is None or kind.__reduce__ is not ours.__reduce__ or kind.__reduce_ex__ is not ours.__reduce_ex__:
        return None
    return _OWN_WAYS[ours.__module__, ours.__name__]


def _by_name(subreactor: Any) -> Any:
    """A subreactor that its module holds under its name: that name, as with functions."""
    subreactor.travels()
    return subreactor.__qualname__ if _is_named(subreactor) else NotImplemented


def _whole_text(item: Any) -> Any:
    """A text scalar that ends in NUL: NumPy drops that."""
    return (type(item), (item[:],)) if item[-1:] in ("\0", b"\0") else NotImplemented


def _same_bytes(array: Any) -> Any:
    """An array in the byte order of other machines: NumPy turns most of them, such as slices, dates and subclasses."""
    import numpy as np

    dtype = array.dtype
    if dtype.isnative or dtype.fields:
        return NotImplemented
    return np.ndarray.view, (np.ndarray.view(array, dtype.newbyteorder("=")), dtype)


def _same_masked(array: Any) -> Any:
    """`_same_bytes` for masked arrays."""
    import numpy as np

    if array.dtype.isnative or array.dtype.fields:
        return NotImplemented
    data, mask = np.ma.getdata(array, subok=False), np.ma.getmask(array)
    return type(array), (data, mask, None, False, True, 0, array.fill_value, True, array.hardmask)


#: Module and name of a class -> how its objects are pickled here.
_OWN_WAYS: dict[tuple[str, str], Callable[[Any], Any]] = {
    ("numpy", "str_"): _whole_text,
    ("numpy", "bytes_"): _whole_text,
    ("numpy", "ndarray"): _same_bytes,
    ("numpy.ma", "MaskedArray"): _same_masked,
    ("numpy.ma.core", "MaskedArray"): _same_masked,  # its name before NumPy 2.3
}


def _pickled(value: object, is_project_class: Callable[[type], bool]) -> _Sink:
    import pickle

    sink = _Sink(is_project_class)
    try:
        _dump_with_pickle(value, sink)
    except (pickle.PicklingError, AttributeError, TypeError) as refused:
        sink = _retried(value, _Sink(is_project_class), refused)
    except ANSWERS as error:
        let_end(error)
        raise _trouble(value, error, _dump_with_pickle) from error
    return sink


def _retried(value: object, sink: _Sink, refused: Exception) -> _Sink:
    try:
        _dump_with_dill(value, sink)
    except ANSWERS as error:
        let_end(error)
        raise _trouble(value, error, _dump_with_dill) from refused
    return sink


def _dump_with_pickle(value: object, sink: _Sink) -> None:
    pickler = _pickler_class()(sink, protocol=5, buffer_callback=sink.take)
    pickler.reducer_override = sink.look
    pickler.dump(value)


@cache
def _pickler_class() -> Any:
    import pickle

    # The C class itself has no room for a hook; looking the hook up on the instance saves a class per value.
    return type("Pickler", (pickle.Pickler,), {})


def _dump_with_dill(value: object, sink: _Sink) -> None:
    with OptionalLibrary("dill", "an object that pickle refuses"):
        import dill

    # By reference where possible: a copy of a class would be another class, and an old one.
    pickler = dill.Pickler(sink, protocol=5, byref=True, buffer_callback=sink.take)
    pickler.reducer_override = sink.look_for_dill
    pickler.dump(value)
    sink.codec = {"dill": dill.__version__}


def _trouble(value: object, error: BaseException, dump: Callable[[object, _Sink], None]) -> Exception:
    """The error to raise for a value that could not be dumped."""
    if isinstance(error, MemoryError):
        return error
    if isinstance(error, RecursionError):
        return CannotStore(_NESTED, hint="send it in a flatter form, such as a list of nodes and links")
    if isinstance(error, _Refused):
        path = path_to(value, error.target) or "value (in what it gives to pickle)"
        return CannotStore(
            f"{path}: {error.what} can't be stored",
            hint=advice(type(error.target)),
        )
    if isinstance(error, ImportError):
        return error
    path, node = deepest(value, lambda part: _fails(part, dump))
    kind = _class_of(node)
    return CannotStore(
        f"{path}: a {type_name(kind)} can't be stored: {type(error).__name__}: {error}",
        hint=advice_where_pickle_fails(node if isinstance(node, type) else kind),
    )


def _class_of(node: object) -> type:
    """The class that an object says it is of: of a view of the config that of the config."""
    try:
        told: object = node.__class__
    except ANSWERS as error:  # foreign code, in the middle of telling an error
        let_end(error)
        return type(node)
    return told if isinstance(told, type) else type(node)


def _fails(value: object, dump: Callable[[object, _Sink], None]) -> bool:
    try:
        dump(value, _Sink(lambda _: False))
    except ANSWERS as error:  # any failure is the answer to the question
        let_end(error)
        return True
    return False


def _check_python(meta: Mapping[str, Any]) -> None:
    written = meta.get("python")
    here = list(sys.version_info[:2])
    if written is not None and list(written) != here:
        there = ".".join(map(str, written))
        raise PayloadMissing(
            f"the value holds bytecode of Python {there}, which Python {here[0]}.{here[1]} can't run",
            hint="it is produced again; to share values between versions, send data rather than functions",
        )


def _unpickled(data: Any, buffers: list[Any], with_dill: bool) -> Any:
    import pickle

    try:
        if with_dill:
            return _load_with_dill(data, buffers)
        return pickle.loads(data, buffers=buffers)
    except Exception as error:
        if _runs_in(error) not in _PICKLERS:  # in code of the object's class, or in a module that is imported for it
            raise
        if isinstance(error, (pickle.UnpicklingError, EOFError)):
            raise DamagedObject(f"the payload of an object is not a whole pickle: {error}") from error
        if isinstance(error, AttributeError):  # a name that its module does not have (any more)
            raise _not_here(error) from error
        raise


def _load_with_dill(data: Any, buffers: list[Any]) -> Any:
    import io

    with OptionalLibrary("dill", "an object that was stored by dill"):
        import dill
    return dill.Unpickler(io.BytesIO(data), buffers=buffers).load()


def _runs_in(error: BaseException) -> str:
    """The package of the innermost code that an exception comes from; compiled code does not show."""
    trace = error.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    return "" if trace is None else str(trace.tb_frame.f_globals.get("__name__")).partition(".")[0]


def _without_module(error: ModuleNotFoundError, classes: Iterable[str]) -> Exception:
    """The error for an object that takes a module that is not there.

    Parameters
    ----------
    error : ModuleNotFoundError
        Says which one.
    classes : iterable of str
        The project's classes in the object, as "module:qualname".
    """
    missing = error.name
    if missing is None:  # raised by somebody else than Python
        return error
    if any(f"{name.partition(':')[0]}.".startswith(f"{missing}.") for name in classes):
        return _not_here(error)
    package = missing.partition(".")[0]
    return MissingLibrary(
        f"a stored object needs the package {package!r}, which can't be imported: {error}",
        hint=f"pip install {package}",
    )


def _not_here(error: Exception) -> PayloadMissing:
    return PayloadMissing(
        f"the stored object can't be made again here: {type(error).__name__}: {error}",
        hint="its class has moved or changed, or belongs to another script (define it in a module that both import); a "
        "demand makes it again",
    )


# -- functions that go to another process -----------------------------------------------------------


def code_pickler(file: Any, buffer_callback: Callable[[Any], Any]) -> Any:
    """A pickler for functions and what they refer to: what can't be imported goes by value.

    Parameters
    ----------
    file : object
        With ``write``.
    buffer_callback : callable
        As for ``pickle.Pickler``; the protocol is 5. What it writes, ``pickle.loads`` reads.
    """
    with OptionalLibrary("dill", "a function that goes to another process"):
        import dill
    return dill.Pickler(file, protocol=5, byref=False, recurse=True, buffer_callback=buffer_callback)
