"""The canonical encoding of values: one tag byte per type, eight-byte little-endian lengths, children inside.

This file may know: values. It may not know: how hashing works (it is given that), what code means (it asks
``code``), or any library: numpy, scipy and friends are recognised by the names of their types and never
imported. The format is written down in ``specs/fingerprint/1/FORMAT.md``; a change of what an existing value
encodes to is a new version of it.
"""

from __future__ import annotations

import functools
import struct
import types
from collections.abc import Callable, Iterable, Mapping
from itertools import chain
from typing import Any, Final

from pyplantx.fingerprint import arrays
from pyplantx.fingerprint.arrays import size, text
from pyplantx.fingerprint.boundary import Boundary, module_name
from pyplantx.fingerprint.foreign import ANSWERS, asked, is_a, let_end
from pyplantx.fingerprint.kinds import Kind, Layout
from pyplantx.fingerprint.modules import TARGETS, locate
from pyplantx.fingerprint.notes import is_note, without_notes
from pyplantx.fingerprint.objects import (
    MISSING,
    PICKLING,
    as_builtin,
    bound_to,
    class_attribute,
    class_module,
    instance_dict,
    is_by_address,
    library_name,
    member_fields,
    name_of,
    own_fields,
    plain_array_class,
    qualified,
    read_slot,
    without_hashes,
    without_own_numbers,
)
from pyplantx.fingerprint.reductions import Unsteady, held_code, is_look_up, left_out, pickled_code, reduction
from pyplantx.fingerprint.states import NEVER, STATES, hooks_in_order, hung_on_masked, is_inconstant, sparse_state

Code = Callable[[object], str]
Opaque = Callable[[object], None]
Pairs = Iterable[tuple[Any, Any]]

#: Containers whose encoding is longer are replaced by its digest, so that shared structure stays cheap.
LIMIT: Final = 4096

_pack_double: Final = struct.Struct("<d").pack
_NAN: Final = b"f" + _pack_double(float("nan"))
_LIBRARIES: Final = Boundary("ignore")
_TARGETS: Final = frozenset(TARGETS)
_PICKLING: Final = frozenset(PICKLING)

#: What `functools.update_wrapper` copies to an object beside ``__wrapped__``: where a function lies, its docstring.
_COPIED: Final = frozenset(functools.WRAPPER_ASSIGNMENTS)


class Unencodable(Exception):
    """Carries the trouble up to ``value.encode``, which knows the right error; collects the path on the way."""

    def __init__(self, what: str, hint: str = "") -> None:
        super().__init__(what)
        self.what = what
        self.path: list[str] = []
        self.hint = hint or "leave it out, or give its class a __fingerprint__ method"

    def message(self) -> str:
        """Where and what, in one line."""
        return f"can't fingerprint value{''.join(reversed(self.path))}: {self.what}"


# --- leaves: exact types whose encoding is one expression ------------------------------------------------


def _none(value: None) -> bytes:
    return b"N"


def _bool(value: bool) -> bytes:
    return b"T" if value else b"F"


def _int(value: int) -> bytes:
    length = (value.bit_length() + 8) >> 3
    return b"i" + length.to_bytes(8, "little") + value.to_bytes(length, "little", signed=True)


def _float(value: float) -> bytes:
    return b"f" + _pack_double(value) if value == value else _NAN


def _complex(value: complex) -> bytes:
    return b"c" + _float(value.real) + _float(value.imag)


def _str(value: str) -> bytes:
    raw = value.encode("utf-8", "surrogatepass")
    return b"s" + len(raw).to_bytes(8, "little") + raw


def _bytes(value: bytes) -> bytes:
    return b"b" + len(value).to_bytes(8, "little") + value


#: Exact type -> its encoding.
LEAVES: Final[dict[type, Callable[[Any], bytes]]] = {
    type(None): _none,
    bool: _bool,
    int: _int,
    float: _float,
    complex: _complex,
    str: _str,
    bytes: _bytes,
    bytearray: lambda value: b"B" + size(len(value)) + value,
    type(Ellipsis): lambda value: b"E",
    type(NotImplemented): lambda value: b"M",
    range: lambda value: b"r" + _int(value.start) + _int(value.stop) + _int(value.step),
}


_FLAT: Final[dict[type, bytes]] = {tuple: b"t", list: b"l", dict: b"d", set: b"S", frozenset: b"Z"}
_MANY: Final = 64


def flat(value: Any) -> bytes | None:
    """The encoding of a small container of leaves, such as defaults and the constants of code; None for all else."""
    tag = _FLAT.get(type(value))
    if tag is None or len(value) > _MANY or (tag == b"d" and not _TARGETS.isdisjoint(value)):
        return None
    try:
        parts = [LEAVES[type(item)](item) for item in (chain(*value.items()) if tag == b"d" else value)]
    except KeyError:
        return None
    if tag in b"SZ":
        parts.sort()
    encoded = tag + size(len(value)) + b"".join(parts)
    return encoded if len(encoded) <= LIMIT else None


class Encoder:
    """Encodes one value. Not reusable.

    Parameters
    ----------
    hash16 : callable
        Buffer -> 16 bytes.
    array : callable
        (plain array of plain elements, class tag) -> hex digest of its tree.
    code, opaque : callable, optional
        As in `pyplantx.fingerprint.value.encode`.
    boundary : Boundary, optional
        Likewise.
    rank : callable, optional
        Likewise.
    """

    __slots__ = (
        *("_array", "_boundary", "_classes", "_code", "_done", "_hash16", "_kinds", "_lowest", "_opaque", "_open"),
        *("_out", "_rank", "_seen"),
    )

    def __init__(
        self,
        hash16: Callable[[Any], bytes],
        array: Callable[[Any, str], str],
        code: Code | None = None,
        opaque: Opaque | None = None,
        boundary: Boundary | None = None,
        rank: Code | None = None,
    ) -> None:
        self._boundary = boundary or _LIBRARIES
        self._hash16 = hash16
        self._array = array
        self._code = code
        self._rank = rank
        self._opaque = opaque
        self._out = bytearray()
        self._kinds: dict[type, Kind] = {}
        self._classes: dict[type, bytes] = {}  # as they are written
        self._open: dict[int, int] = {}  # containers around this place -> depth
        self._seen: dict[int, tuple[int, Any]] = {}  # instances met so far -> (number, kept alive)
        self._done: dict[int, tuple[Any, bytes]] = {}  # large closed containers -> (kept alive, encoding)
        self._lowest = 1 << 60  # outermost depth that the container being written points back to

    def encode(self, value: Any) -> bytes:
        """The encoding of `value`."""
        self.write(value)
        return bytes(self._out)

    def write(self, value: Any) -> None:
        """Append the encoding of one value."""
        cls = type(value)
        leaf = LEAVES.get(cls)
        if leaf is not None:
            self._out += leaf(value)
        else:
            self._write_nested(value, cls)

    def _write_nested(self, value: Any, cls: type) -> None:
        """Append the encoding of a value that is no leaf."""
        body = _CONTAINERS.get(cls)
        if body is not None:
            self._container(value, body)
        else:
            self._write_other(value, cls)

    # --- containers -----------------------------------------------------------------------------------

    def _container(self, value: Any, body: Callable[[Encoder, Any], None]) -> None:
        """Write a container with `body`, or a pointer back to it if it is being written already."""
        key = id(value)
        depth = self._open.get(key)
        if depth is not None:
            self._out += b"^" + size(depth)
            self._lowest = min(self._lowest, depth)
            return
        done = self._done.get(key)
        if done is not None:
            self._out += done[1]
            return
        outer, self._lowest = self._lowest, 1 << 60
        start, depth = len(self._out), len(self._open)
        self._open[key] = depth
        body(self, value)
        del self._open[key]
        if len(self._out) - start > LIMIT:
            self._shorten(value, start, closed=self._lowest >= depth)
        self._lowest = min(outer, self._lowest if self._lowest < depth else outer)

    def _shorten(self, value: Any, start: int, closed: bool) -> None:
        short = b"H" + self._hash16(memoryview(self._out)[start:])
        del self._out[start:]
        self._out += short
        if closed:
            self._done[id(value)] = (value, short)

    def _sequence(self, value: Any) -> None:
        self._out += (b"l" if type(value) is list else b"t") + size(len(value))
        self._items(value)

    def _items(self, items: Iterable[Any]) -> None:
        index, out, leaf_of = -1, self._out, LEAVES.get
        try:
            for item in items:
                index += 1
                leaf = leaf_of(cls := type(item))
                if leaf is not None:
                    out += leaf(item)
                else:
                    self._write_nested(item, cls)
        except Unencodable as trouble:
            trouble.path.append(f"[{index}]")
            raise

    def _mapping(self, value: dict[Any, Any]) -> None:
        if is_by_address(value):
            self._out += b"&" + size(len(value))
            self._items(value.values())
            return
        self._out += b"d" + size(len(value))
        self._pairs(value.items())
        if self._code is not None and any(key in value for key in TARGETS):
            self._targets(value)

    def _targets(self, held: Mapping[Any, Any]) -> None:
        """Write the code of the project that texts in a dict, or in the fields of an instance, name to be called."""
        found = [(key, _located(held[key], self._boundary)) for key in TARGETS if key in held]
        self._left_out([(key, code) for key, code in found if code is not MISSING])

    def _pairs(self, pairs: Pairs, label: str = "[{!r}]") -> None:
        key, out, leaf_of = None, self._out, LEAVES.get
        try:
            for key, item in pairs:
                self.write(key)
                leaf = leaf_of(cls := type(item))
                if leaf is not None:
                    out += leaf(item)
                else:
                    self._write_nested(item, cls)
        except Unencodable as trouble:
            trouble.path.append(label.format(key))
            raise

    def _set(self, value: Any) -> None:
        self._unordered(b"S" if type(value) is set else b"Z", value)

    def _unordered(self, tag: bytes, value: Iterable[Any]) -> None:
        encoded = sorted(map(self._isolated, value)) if self._rank is None else self._ranked(value, self._rank)
        self._out += tag + size(len(encoded))
        for item in encoded:
            self._out += item

    def _ranked(self, items: Iterable[Any], rank: Code) -> list[bytes]:
        """The elements of a set in an order that doesn't depend on the process, though what `code` answers does.

        Sets without code in them, which most are, are encoded once: nothing was asked that is answered otherwise.
        """
        asked: list[object] = []

        def ask(obj: object) -> str:
            asked.append(obj)
            return rank(obj)

        kept = self._code, self._opaque, self._rank, self._classes, self._done
        self._code, self._opaque, self._rank, self._classes, self._done = ask, asked.append, None, {}, {}
        try:
            pairs = sorted([(self._isolated(item), item) for item in items], key=_first)
        finally:
            self._code, self._opaque, self._rank, self._classes, self._done = kept
        return [self._isolated(item) if asked else told for told, item in pairs]

    def _isolated(self, item: Any) -> bytes:
        """One element's encoding that does not depend on which elements came before it."""
        leaf = LEAVES.get(type(item))
        if leaf is not None:
            return leaf(item)
        out, met = self._out, len(self._seen)
        self._out = bytearray()
        try:
            self.write(item)
        except Unencodable as trouble:
            trouble.path.append("{...}")
            raise
        finally:
            encoded, self._out = bytes(self._out), out
            while len(self._seen) > met:
                self._seen.popitem()  # the last one first
        return encoded

    # --- everything else ------------------------------------------------------------------------------

    def _write_other(self, value: Any, cls: type) -> None:
        if cls is types.FunctionType or cls is type:  # most code, of which its kind says nothing else
            self._write_code(value)
            return
        kind = self._kind(cls)
        if kind.is_code(value):
            self._write_code(value)
        elif cls is Unsteady:
            self._unsteady(value)
        elif kind.custom is not None:
            self._custom(value, kind.custom)
        elif kind.is_ordinary:
            self._instance(value, cls, Encoder._state)
        elif self._opaque is not None and is_inconstant(value, kind.bases):
            self._refuse(value)
        elif kind.name in STATES:
            self._out += b"x" + text(kind.name)
            self._container(value, Encoder._plain_state)
        elif not NEVER.isdisjoint(kind.bases):
            self._refuse(value)
        elif "_thread._local" in kind.bases:
            self._instance(value, cls, Encoder._of_thread)
        elif not self._write_numeric(value, kind):
            self._instance(value, cls, Encoder._state)

    def _kind(self, cls: type) -> Kind:
        kind = self._kinds.get(cls)
        if kind is None:
            kind = self._kinds[cls] = Kind(cls)
        return kind

    def _custom(self, value: Any, custom: Callable[[Any], object]) -> None:
        try:
            state = custom(value)
        except MemoryError:  # says nothing of the value
            raise
        except ANSWERS as error:  # a hook of the user's; whoever collects what is opaque still wants the class
            let_end(error)
            if self._opaque is None and isinstance(error, Exception):
                raise
            self._refuse(value, error)
            return
        self._instance(value, type(value), lambda me, v: me._part(b"u", state))

    def _plain_state(self, value: Any) -> None:
        try:
            state = STATES[self._kind(type(value)).name](value)
        except MemoryError:  # says nothing of the value
            raise
        except ANSWERS as error:  # a library's object that is closed, or in no state to be asked
            let_end(error)
            self._refuse(value, error)
            return
        self.write(state)
        if self._code is not None and isinstance(value, dict) and any(key in value for key in TARGETS):
            self._targets(value)  # an OrderedDict, of which the state is a list

    def _write_numeric(self, value: Any, kind: Kind) -> bool:
        """Write arrays, numpy scalars, dtypes, sparse matrices and enum members; False if it is none."""
        cls, bases = kind.cls, kind.bases
        if "numpy.ndarray" in bases:
            self._beside_layout(value.dtype)
            self._write_array(value, cls)
        elif "numpy.generic" in bases:
            self._beside_layout(value.dtype)
            self._write_scalar(value)
        elif "numpy.dtype" in bases:
            self._beside_layout(value)
            self._out += b"D" + arrays.describe_dtype(value)
        elif "enum.Enum" in bases:
            self._container(value, Encoder._enum)
        elif kind.is_sparse:
            self._out += b"x" + text(f"scipy.sparse.{cls.__qualname__}")
            self._container(value, lambda me, v: me.write(sparse_state(v)))
        else:
            return False
        return True

    def _beside_layout(self, dtype: Any) -> None:
        beside = arrays.beside_layout(dtype)
        if beside:
            self._part(b"G", beside)

    def _write_array(self, value: Any, cls: type) -> None:
        name = arrays.class_tag(cls)
        if name == "":
            self._elements(value, "")
        elif name.startswith("numpy.ma."):
            self._instance(value, cls, Encoder._masked)
        else:
            self._instance(value, cls, Encoder._array_subclass)

    def _elements(self, value: Any, tag: str) -> None:
        if not arrays.is_elementwise(value.dtype):
            self._out += b"A" + bytes.fromhex(self._array(value, tag))
            return
        self._out += b"a" + arrays.header(value.dtype, value.shape, tag)
        self._container(value, lambda me, v: me._items(v.reshape(-1).tolist() if v.dtype.names else v.flat))

    def _masked(self, value: Any) -> None:
        self._elements(value.data, "")
        mask = value.mask
        self._part(b"m", mask if getattr(mask, "shape", ()) or value.shape == () else bool(mask))
        fixed = type(value).__name__ == "MaskedConstant"  # whose fill value can't even be asked for
        self._part(b"v", (None if fixed else value.fill_value, value.hardmask))
        hung = hung_on_masked(instance_dict(value) or {})
        if hung:
            self._part(b"d", hung)

    def _array_subclass(self, value: Any) -> None:
        self._elements(value.view(plain_array_class(value)), "")
        self._part(b"d", own_fields(value))

    def _write_scalar(self, value: Any) -> None:
        dtype = value.dtype
        self._out += b"n" + arrays.describe_dtype(dtype)
        if dtype.hasobject:
            self.write(value.item())
        elif dtype.kind == "c":
            self._write_scalar(value.real)
            self._write_scalar(value.imag)
        else:
            raw = value.tobytes() if dtype.kind != "f" or value == value else b"nan"
            self._out += size(len(raw)) + raw

    def _enum(self, value: Any) -> None:
        fields = member_fields(value)
        self._out += b"V" if fields else b"e"
        self._class(type(value))
        self.write(value._name_)
        self.write(value._value_)
        if fields:
            self._out += size(len(fields))
            self._pairs(fields.items(), ".{}")

    def _part(self, tag: bytes, value: Any) -> None:
        self._out += tag
        self.write(value)

    # --- instances ------------------------------------------------------------------------------------

    def _instance(self, value: Any, cls: type, body: Callable[[Encoder, Any], None]) -> None:
        """Write an instance once; later meetings are pointers to it, since its identity can be seen."""
        known = self._seen.get(id(value))
        if known is not None:
            self._out += b"@" + size(known[0])
            self._lowest = -1
            return
        self._seen[id(value)] = (len(self._seen), value)
        self._out += b"o"
        self._class(cls)
        body(self, value)

    def _state(self, value: Any) -> None:
        layout, own = self._kind(type(value)).layout, instance_dict(value)
        if layout.is_reduced or (own is None and not layout.slots and layout.builtin is None):
            self._reduced(value)
        else:
            self._content(value, layout, own)

    def _content(self, value: Any, layout: Layout, own: dict[str, Any] | None) -> None:
        base = layout.builtin
        if base is not None:
            self._out += b"y"
            self.write(as_builtin(value, base))
        elif layout.hides_state:
            self._unseen(value)
        self._fields(value, hooks_in_order(own) if own and layout.is_network else own or {}, layout)
        if base is tuple and self._code is not None:
            self._named_items(value)

    def _named_items(self, value: tuple[Any, ...]) -> None:
        """Write what texts in a named tuple say to be called, as of the fields of any instance."""
        names = class_attribute(type(value), "_fields")
        if isinstance(names, tuple) and any(key in names for key in TARGETS):
            self._targets(dict(zip(names, tuple.__iter__(value))))

    def _fields(self, value: Any, own: dict[str, Any], layout: Layout) -> None:
        wraps = "__wrapped__" in own
        fields = [(name, item) for name, item in own.items() if not (wraps and name in _COPIED)]
        for name, member in layout.slots:
            item = read_slot(member, value)
            if item is not MISSING:
                fields.append((name, item))
        if layout.takes_notes:
            fields = [(name, item) for name, item in fields if not is_note(value, name, item)]
        fields = without_own_numbers(value, fields)
        self._out += b"d" + size(len(fields))
        self._pairs(fields, ".{}")
        if self._code is not None:
            named = {name: item for name, item in fields if type(name) is str and name in TARGETS}
            if named:
                self._targets(named)

    def _of_thread(self, value: Any) -> None:
        """What a `threading.local` holds in the thread that asks, which is the one that runs reactors.

        It is listed all the same: what other threads have in it (those of `map_blocks`) nobody sees.
        """
        try:
            own = dict(vars(value))
        except MemoryError:  # says nothing of the value
            raise
        except ANSWERS as error:  # of its `__init__`, which runs once in each thread
            let_end(error)
            self._unseen(value, error)
            return
        self._fields(value, own, self._kind(type(value)).layout)
        if self._opaque is not None:
            self._opaque(value)

    def _reduced(self, value: Any) -> None:
        try:
            parts = reduction(value)
        except MemoryError:  # says nothing of the value
            raise
        except ANSWERS as error:  # foreign code: whatever it raises means that there is no encoding
            let_end(error)
            if self._code is not None and self._is_open(type(value)):
                self._content(value, self._kind(type(value)).layout, instance_dict(value))
            else:
                self._unseen(value, error)
            return
        if isinstance(parts, str):
            self._out += b"g" + text(parts)
        else:
            self._write_parts(value, parts)
        if self._code is not None:
            self._left_out(left_out(value, parts) + pickled_code(parts, self._boundary))
        elif is_look_up(parts):
            self._left_out(left_out(value, parts))

    def _is_open(self, cls: type) -> bool:
        """Whether instances that refuse to be pickled count with their fields; what a library refuses holds handles."""
        if self._kind(cls).layout.is_network:  # with parametrizations
            return True
        says_no = next(base for base in cls.__mro__ if not _PICKLING.isdisjoint(vars(base)))
        return library_name(says_no, self._boundary) is None

    def _write_parts(self, value: Any, parts: tuple[Any, ...]) -> None:
        function, given, state, items, pairs = (*parts, None, None, None)[:5]
        arguments = without_hashes(given)
        self._out += b"R"
        self._name(function)
        self._out += size(len(arguments))
        for argument in arguments:
            self._class(argument) if isinstance(argument, type) else self.write(argument)
        layout = self._kind(type(value)).layout
        if layout.takes_notes:
            state = without_notes(value, state)
        if type(state) is dict:
            state = _without_own_numbers(value, state)
            state = hooks_in_order(state) if layout.is_network else state
        self.write(state)
        self.write(None if items is None else list(items))
        self.write(None if pairs is None else [tuple(pair) for pair in pairs])

    def _unseen(self, value: Any, cause: BaseException | None = None) -> None:
        """Refuse an object that shows nobody its state; the code that was given to it counts all the same."""
        self._refuse(value, cause)
        if self._code is not None:
            self._left_out(held_code(value))

    def _left_out(self, fields: list[tuple[str, Any]]) -> None:
        """Write fields beside a reduction. It can do without them, so none of them makes a value unencodable."""
        if not fields:
            return
        self._out += b"h" + size(len(fields))
        outer, self._opaque = self._opaque, self._opaque or _ignore
        try:
            self._pairs(fields, ".{}")
        finally:
            self._opaque = outer

    def _unsteady(self, part: Unsteady) -> None:
        self._out += b"?"
        self._class(part.kind)
        if self._opaque is not None:
            self._opaque(part.owner)

    # --- code -----------------------------------------------------------------------------------------

    def _write_code(self, value: Any) -> None:
        if self._code is not None:
            self._name(value)
        elif isinstance(value, functools.partial):
            self._instance(value, type(value), Encoder._partial)
        elif isinstance(value, types.MethodType):
            self._bound(value.__func__, value.__self__)
        elif bound_to(value) is not MISSING:
            owner = value.__self__  # of a class method the class, which is code and refused as such
            self._bound(owner if isinstance(owner, type) else getattr(type(owner), value.__name__), owner)
        else:
            self._library_code(value)

    def _bound(self, function: Any, owner: Any) -> None:
        self._out += b"w"
        self.write(function)
        self.write(owner)

    def _partial(self, value: functools.partial[Any]) -> None:
        for part in (value.func, value.args, value.keywords):
            self.write(part)

    def _library_code(self, value: Any) -> None:
        name = library_name(value, _LIBRARIES)
        if name is None:
            raise Unencodable(
                f"{name_of(value)} is code of your project",
                "a plain value digest can't see code; ask a Fingerprinter: encode_value(value)",
            )
        self._out += b"L" + text(name)

    def _class(self, cls: type) -> None:
        written = self._classes.get(cls)
        if written is None:
            written = self._classes[cls] = self._class_text(cls)
        self._out += written

    def _class_text(self, cls: type) -> bytes:
        if self._code is not None:  # the name can be seen in a repr, and two classes may have one body
            return b"C" + text(self._code(cls)) + text(cls.__qualname__)
        return b"K" + text(f"{module_name(class_module(cls))}.{cls.__qualname__}")

    def _name(self, function: Any) -> None:
        if is_a(function, type):
            self._class(function)
        elif self._code is not None:
            self._out += b"C" + text(self._code(function))
        else:
            module = asked(function, "__module__") or ""
            self._out += b"K" + text(f"{module_name(module)}.{asked(function, '__qualname__', '?')}")

    def _refuse(self, value: Any, cause: BaseException | None = None) -> None:
        if self._opaque is None:
            raise Unencodable(f"a {qualified(type(value))} has no canonical encoding") from cause
        self._out += b"?"
        self._class(type(value))  # leaving out the state leaves methods and class attributes in
        self._opaque(value)


def _located(path: Any, boundary: Boundary) -> Any:
    """What a text names, if it is something of the project's; else `MISSING`."""
    if not isinstance(path, str):  # a dict of OmegaConf has its texts in nodes
        path = (instance_dict(path) or {}).get("_val")
    return locate(path, boundary) if isinstance(path, str) else MISSING


def _without_own_numbers(value: Any, state: dict[Any, Any]) -> dict[Any, Any]:
    """The very dictionary where nothing is left out: it may hold itself, or be met again."""
    fields = list(state.items())
    kept = without_own_numbers(value, fields)
    return state if len(kept) == len(fields) else dict(kept)


def _first(pair: tuple[bytes, Any]) -> bytes:
    return pair[0]


def _ignore(thing: object) -> None:
    """What counts by its type is of no interest to whoever gave no function for it."""


#: Exact type of a container -> what writes its content.
_CONTAINERS: Final[dict[type, Callable[[Encoder, Any], None]]] = {
    list: Encoder._sequence,
    tuple: Encoder._sequence,
    dict: Encoder._mapping,
    set: Encoder._set,
    frozenset: Encoder._set,
}
