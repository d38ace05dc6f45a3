"""What counts about one piece of code: its own bytes, and the other pieces that it refers to.

One function per kind of object (the table of docs/design/fingerprints.md). Lookups are static: no foreign
code runs. A node's data holds everything but the pieces it refers to; ``graph.py`` puts them together.
"""

from __future__ import annotations

import abc
import functools
import re
import sys
import types
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Final

from pyplantx.fingerprint import value as values
from pyplantx.fingerprint.additions import Additions
from pyplantx.fingerprint.arrays import text
from pyplantx.fingerprint.boundary import Boundary, module_file
from pyplantx.fingerprint.contents import PART_NAMES, PARTED, Contents, parts_of
from pyplantx.fingerprint.foreign import asked, is_a
from pyplantx.fingerprint.generated import Origin, origin_of
from pyplantx.fingerprint.jitted import options_of
from pyplantx.fingerprint.loadedmodules import loaded_by
from pyplantx.fingerprint.memos import Cached
from pyplantx.fingerprint.modules import locate, offered
from pyplantx.fingerprint.nested import with_nested
from pyplantx.fingerprint.objects import (
    MISSING,
    bound_to,
    called_by_ufunc,
    class_module,
    inner_function,
    instance_dict,
    is_code,
    is_own_number,
    library_name,
    own_fields,
    qualified,
    role_function,
    static_attribute,
)
from pyplantx.fingerprint.pieces import (
    ABSENT,
    FUNCTION,
    Node,
    Reference,
    Slot,
    inner_names,
    label_of,
    names_of,
    read_arguments,
    read_attribute,
    read_cell,
    read_class,
    read_derived,
    read_field,
    read_item,
    read_made_up,
    read_member,
    read_modules,
    read_registered,
    static_pin,
)
from pyplantx.fingerprint.places import DEFAULTS, FUNCTION_NOISE, Places, closure_label, global_label
from pyplantx.fingerprint.records import ANNOTATIONS, DERIVED, DOCS, NAMES, Record, mentioned
from pyplantx.fingerprint.references import (
    LOCATION,
    MODULES,
    PATH,
    SPEC_FINDER,
    WATCHED_FINDERS,
    Target,
    follow,
    follow_import,
    member,
)
from pyplantx.fingerprint.settings import place_of

#: What is said of compiled code of which nothing can be seen. It has no state that Python code could alter.
COMPILED: Final = "compiled, and its file can't be found"

#: All the data of a subreactor that is named: its code is asked for when it is called. The number was raised when calls
#: in other threads and the like began to be observed: no older trace has them.
SUBREACTOR: Final = b"subreactor 2\0"

#: Said of functions that import by a computed text. What they import is asked for when they do: no older trace has it.
OBSERVED: Final = b"imports are observed\0"

#: Said of functions that take modules from among the loaded ones: no older fingerprint has these.
LOADED: Final = b"loaded modules\0"

#: Names in code that finds code by computed text.
_FINDERS: Final = WATCHED_FINDERS | {"eval", "exec", "globals", "__globals__", "f_globals"}

#: Names that Python, or IPython for its history, puts into a module by itself.
_NOT_MEANT: Final = frozenset({"__doc__", "__warningregistry__"}).__contains__
_HISTORY: Final = r"__doc__|__warningregistry__|In|Out|exit|quit|open|get_ipython|_(i*|i?\d+|_+|[iod]h)"

#: Attributes of a class that say where it lies, or that Python and the ABC machinery keep for themselves.
_CLASS_NOISE: Final = frozenset(
    {
        *("__module__", "__qualname__", "__doc__", "__dict__", "__weakref__", "__firstlineno__"),
        *("__static_attributes__", "_abc_impl", "_abc_registry", "_abc_cache", "__pyplantx_pin__", "__signature__"),
        *("__abstractmethods__", "__annotate__", "__annotate_func__", "__annotations_cache__"),
        "__slotnames__",  # copyreg leaves it there when the first instance is copied or pickled
    }
)
_ENUM_NOISE: Final = frozenset(
    {
        *("_member_map_", "_member_names_", "_value2member_map_", "_new_member_", "__new_member__"),
        *("_unhashable_values_", "_unhashable_values_map_", "_hashable_values_", "_use_args_"),
    }
)
#: What SymPy concludes from the assumptions of a class, which count, in the order of a set.
_SYMPY_NOISE: Final = frozenset({"_prop_handler", "default_assumptions"})
#: What `functools.singledispatch` keeps: a count of all registrations with ABCs in the process, and its cache.
_DISPATCH_NOISE: Final = frozenset({"cache_token", "dispatch_cache", "_clear_cache"})
_WRAPPER_NOISE: Final = frozenset({"__pyplantx_pin__", "cache_parameters", *functools.WRAPPER_ASSIGNMENTS})
_CACHED_NOISE: Final = _WRAPPER_NOISE | {"attrname", "lock"}


class Describer:
    """Describes pieces of code; knows the boundary to libraries, the records of code objects, the places.

    Parameters
    ----------
    boundary : Boundary
        Tells libraries from the project.
    record : callable
        Code object -> its record.
    settle : callable
        Given a fresh slot, returns the one that counts (see ``code.py``: state).
    former : callable
        Owner, key -> what lay there before running code was seen to change it, as the only item; empty if it was not.
    finds : callable
        Told what code names that finds code or modules by computed text, before that code runs.
    additions : Additions
        What the project has put into libraries.
    """

    def __init__(
        self,
        boundary: Boundary,
        record: Callable[[types.CodeType], Record],
        settle: Callable[[Slot], Slot],
        former: Callable[[Any, str], tuple[Any, ...]],
        finds: Callable[[set[str]], None],
        additions: Additions,
    ) -> None:
        self._boundary, self._additions, self._additions_seen = boundary, additions, additions.version
        self._record = record
        self._finds = finds
        contents = Contents(boundary, record, _held_parts)
        self._plain_name, self._held_name = contents.plain_name, contents.held_name
        self.places = Places(boundary, contents, settle, former)
        self._slot = self.places.slot
        self._references: dict[tuple[int, str], Reference] = {}
        self._files: dict[str, str] = {}
        self._missed = False  # whether a name was not found that has no slot
        self._plain_classes: dict[type, bool] = {}  # see `place_of`
        self._classes: dict[tuple[str, str], list[type]] = {}  # by module and name, those that were met
        self.twins: dict[str, list[type]] = {}  # by their label: classes of one name, see `_note_twin`
        self.caches: list[Any] = []  # those of `functools.lru_cache` that were met

    # --- names ----------------------------------------------------------------------------------------

    def reference(self, namespace: dict[str, Any], chain: str) -> Reference:
        """What a name comes to, found once per module and activity."""
        return self._references.get((id(namespace), chain)) or self._refer_first(namespace, chain)

    def look_again(self) -> bool:
        """Forget the slots that changed, and all that was said with the help of names; whether there were any."""
        known, self._additions_seen = self._additions_seen, self._additions.refresh()
        again = self.places.forget_changed() or known != self._additions_seen or self._missed
        again = again or next(self.places.arrivals(), None) is not None
        if again:
            self._references.clear()
            self._plain_classes.clear()
            self.places.forget_lists()
            self._missed = False
        return again

    def widen(self, node: Node, sees: int) -> Node:
        """A node with what counts of it for those who read docstrings, names, annotations or derived classes."""
        wide = Node(node.obj, bytes(node.own))
        wide.constants, wide.refs, wide.opaque = list(node.constants), list(node.refs), node.opaque
        wide.sees = node.sees
        if sees & DOCS and node.docs:
            wide.own += b"docs" + b"".join(map(text, node.docs))
        if sees & NAMES:
            names = [name for ref in node.refs for name in names_of(ref)] + sorted(inner_names(node.obj))
            wide.own += b"names" + b"".join(map(text, names)) if names else b""
        if sees & ANNOTATIONS and node.documented and isinstance(node.obj, types.FunctionType):
            self._add_annotations(wide, node.obj)
        if sees & DERIVED and node.documented and isinstance(node.obj, type):
            self._add_present(wide, "derived classes", read_derived)
        return wide

    def _add_present(self, node: Node, key: str, read: Callable[[Any, str], Any]) -> None:
        """Add what there is of something that most classes have none of."""
        slot = self._slot(node.obj, key, f"{node.label}: {key}", read)
        if slot.data != ABSENT:
            node.add_slot(slot)

    def _add_annotations(self, node: Node, function: types.FunctionType) -> None:
        annotations = function.__annotations__
        if annotations:
            node.add_slot(self._slot(function, "__annotations__", f"{node.label}: annotations", read_attribute))
            self._add_forward(node, annotations, function.__globals__)

    def _add_forward(self, node: Node, annotations: dict[str, Any], namespace: dict[str, Any]) -> None:
        """Add what the texts among some annotations name."""
        for chain in sorted(mentioned(_forward_references(annotations))):
            self._mention(namespace, chain).add_to(node)

    # --- kinds ----------------------------------------------------------------------------------------

    def describe(self, obj: Any) -> Node:
        """The node of a piece of code, or of any other object (then it is one value)."""
        if type(obj) is types.FunctionType and not obj.__dict__:  # with nothing that could mark it
            return self._function(obj)
        pin = static_pin(obj)
        if pin is not None:
            node = Node(obj, b"pin\0")
            node.add_text(getattr(obj, "__qualname__", ""), pin.text)
            return node
        kind = static_attribute(obj, "__pyplantx_kind__")
        if isinstance(kind, str) and not is_a(obj, type):
            return self._role(obj, kind)
        for types_, method in self._methods():
            if is_a(obj, types_):
                return method(obj)
        return self._other(obj)

    def _methods(self) -> tuple[tuple[Any, Callable[[Any], Node]], ...]:
        return (
            (types.FunctionType, self._function),
            (type, self._class),
            (types.ModuleType, self._module),
            (types.CodeType, self._code),
            (PARTED, self._parts),
        )

    def _role(self, obj: Any, kind: str) -> Node:
        """A reactor counts as its function; a subreactor that has a slot of its own is asked for when it is called."""
        node = Node(obj, SUBREACTOR if kind == "subreactor" else kind.encode() + b"\0")
        if kind == "reactor":
            node.add_text("version", str(getattr(obj, "version", "")))
            node.add_ref(role_function(obj))
        return node

    def _parts(self, obj: Any) -> Node:
        """Thin wrappers: what they hold, and the code of their class where the project has derived one."""
        node = Node(obj, b"parts\0")
        self._add_class(node, obj)
        if is_a(obj, Cached):
            self.caches.append(obj)
        for name in parts_of(obj):
            node.add_slot(self._slot(obj, name, f"{node.label}.{name}", read_attribute))
        if type(obj) not in _WITHOUT_FIELDS:
            fields = self._slot(obj, "", f"{node.label}: fields", _read_fields)
            if fields.data != ABSENT:
                node.add_slot(fields)
        return node

    def _add_class(self, node: Node, obj: Any) -> None:
        """The class of an object that is no plain value: the name of a library's, the code of the project's."""
        cls = type(obj)
        if cls in PART_NAMES or self._plain_name(cls) is not None:
            node.own += text(qualified(cls))
        else:
            node.add_ref(cls)

    def _code(self, code: types.CodeType) -> Node:
        record = self._record(code)
        node = Node(code, b"code\0" + record.digest.encode())
        node.documented, node.sees = True, record.sees
        return node

    def _other(self, obj: Any) -> Node:
        label = label_of(obj)
        inner = inner_function(obj)
        if inner is not MISSING:
            node = Node(obj, b"wrapper\0" + text(qualified(type(obj))))
            node.add_ref(inner)
            told = self._slot(obj, "options", f"{label}: options", _read_jit_options)
            if told.data != ABSENT:
                node.add_slot(told)
        elif is_code(obj):
            node = self._compiled(obj)
        else:
            node = Node(obj, b"value\0")
            node.add_slot(self._slot(node, "obj", label, read_attribute, obj))
        return node

    def _compiled(self, obj: Any) -> Node:
        """Functions without bytecode: a library's name, or the project's extension file."""
        node = Node(obj, b"compiled\0")
        node.add_text(_compiled_name(obj), library_name(obj, self._boundary) or self._extension(obj))
        if qualified(type(obj)) == "numpy.ufunc" and node.own.endswith(text("")):
            return self._lifted(node, obj)
        bound = bound_to(obj)
        if bound is not MISSING:
            node.add_slot(self._slot(obj, "__self__", f"{node.label}.__self__", read_attribute, bound))
        if node.own.endswith(text("")):
            node.note(f"{node.label}: {COMPILED}")
        return node

    def _lifted(self, node: Node, ufunc: Any) -> Node:
        """A ufunc that was made from a Python function."""
        node.add_text(f"{ufunc.nin} {ufunc.nout} {ufunc.identity!r}")
        inside = called_by_ufunc(ufunc)
        for function in inside:
            node.add_ref(function)
        if not inside:
            node.note(f"{node.label}: compiled, and what it calls can't be seen")
        return node

    def _extension(self, obj: Any) -> str:
        """Digest of the extension file that holds a compiled function of the project."""
        module = getattr(obj, "__module__", None) or getattr(getattr(obj, "__objclass__", None), "__module__", "")
        file = module_file(module) if isinstance(module, str) else None
        if file is None or file.endswith(".py"):
            return ""
        return self._file_digest(file)

    def _file_digest(self, file: str) -> str:
        if file not in self._files:
            with open(file, "rb") as stream:
                self._files[file] = values.hash_bytes(stream.read())
        return self._files[file]

    # --- modules --------------------------------------------------------------------------------------

    def _module(self, module: types.ModuleType) -> Node:
        """A module that is used as a whole: every attribute of a project module, the name of a library's."""
        name = library_name(module, self._boundary)
        node = Node(module, b"module\0")
        file = module_file(module.__name__)
        if name is not None:
            node.add_text("library", name)
        elif file is not None and not file.endswith((".py", ".pyc")):
            node.add_text("extension", self._file_digest(file))
        else:
            made_up = list(self._made_up(module))  # first: what a package keeps of that, it holds from then on
            self._add_whole(node, vars(module))
            for name, reference in made_up:
                if name not in vars(module):
                    reference.add_to(node)
        if type(module) is not types.ModuleType:
            self._add_class(node, module)
        return node

    def _made_up(self, module: types.ModuleType) -> Iterator[tuple[str, Reference]]:
        """What a project module that loads lazily gives for the names that it offers and does not hold."""
        for name in offered(module):
            target = member(module, [name], self._boundary)
            yield name, _to_reference(target, name, self._target_slot(target))

    def _add_whole(self, node: Node, namespace: dict[str, Any]) -> None:
        """Every name of a module."""
        is_history = re.compile(_HISTORY).fullmatch if "get_ipython" in namespace else _NOT_MEANT
        for key in self.places.list_names(namespace, node, lambda key: key in LOCATION or bool(is_history(key))):
            self._refer(namespace, key).add_to(node)

    # --- functions ------------------------------------------------------------------------------------

    def _function(self, function: types.FunctionType) -> Node:
        origin = origin_of(function)
        if origin is not None:
            return self._generated(function, origin)
        if self._boundary.owns_globals(function.__globals__):
            node = Node(function, b"library\0")
            node.add_text(library_name(function, self._boundary) or "")
            if self._held_name(function) is None:
                self._add_closure(node, function)
            return node
        record = self._record(function.__code__)
        node = Node(function, FUNCTION + record.digest.encode())
        self._add_defaults(node, function)
        self._add_closure(node, function)
        self._add_references(node, function, record)
        if record.queries:
            self._add_mentioned(node, function)
        self._add_hung(node, function)
        node.documented = True
        node.sees |= record.sees
        return node

    def _generated(self, function: types.FunctionType, origin: Origin) -> Node:
        node = Node(function, b"generated\0")
        node.add_text(origin.library, function.__name__)
        if origin.wrapped is not None:
            options = self._slot(function, "options", f"{node.label}: options", _read_options, origin.options)
            node.add_slot(options)
            node.add_ref(origin.wrapped)
            if isinstance(origin.wrapped, types.FunctionType):
                self._add_annotations(node, origin.wrapped)
        return node

    def _add_defaults(self, node: Node, function: types.FunctionType) -> None:
        for key, held in zip(("__defaults__", "__kwdefaults__"), self.places.defaults(function)):
            if held:
                node.add_slot(self._slot(function, key, f"{node.label}: {DEFAULTS}", read_attribute, held))

    def _add_closure(self, node: Node, function: types.FunctionType) -> None:
        was_bare = self.places.was_bare(function)
        if was_bare and function.__closure__ is None:  # nearly always
            self.places.list_none(function, node)
            return
        noise: frozenset[str] = _DISPATCH_NOISE if function.__globals__ is vars(functools) else frozenset()
        for name, cell in zip(function.__code__.co_freevars, function.__closure__ or (), strict=True):
            if name in noise:
                continue
            slot = self._slot(cell, "", f"{node.label}: {closure_label(name)}", read_cell)
            node.own += text(name)
            node.add_slot(slot)
        if was_bare:
            self.places.list_none(function, node)
            return
        attributes = function.__dict__
        if "__wrapped__" in attributes:
            node.add_ref(attributes["__wrapped__"])
        for key in self.places.list_names(attributes, node, functools.partial(_is_function_noise, function, noise)):
            node.add_slot(self._slot(attributes, key, f"{node.label}.{key}", read_item))

    def _add_references(self, node: Node, function: types.FunctionType, record: Record) -> None:
        namespace = function.__globals__
        place, finders = id(namespace), _named_finders(function.__code__) if record.dynamic else set()
        # imports first: plug-ins may register themselves in what a global holds
        brought: Sequence[Target] = ()
        if record.imports:
            brought = [target for one in record.imports for target in follow_import(namespace, one, self._boundary)]
        for chain in record.chains:
            reference = self._references.get((place, chain)) or self._refer_first(namespace, chain)
            reference.add_to(node)
            if reference.finder:
                finders.add(reference.finder)
        for target in brought:
            reference = _to_reference(target, target.key or target.text, self._target_slot(target))
            reference.add_to(node)
            if reference.finder:
                finders.add(reference.finder)
        if finders:
            self._add_finders(node, namespace, finders, function.__code__)

    def _add_hung(self, node: Node, function: types.FunctionType) -> None:
        """Add what the project has put into libraries, or registered with them, as far as it counts for a function."""
        for cls, name in self._additions.seen_by(function.__code__):
            node.add_constant(self._slot(cls, name, f"{label_of(cls)}.{name}", read_class))
        for package in self._additions.called_for(function):
            node.add_constant(self._slot(self._additions, package, f"registered with {package}", _read_registered))

    def _add_loaded(self, node: Node, code: types.CodeType) -> None:
        """Add the modules of the project that code takes from among those that are loaded."""
        node.own += LOADED
        read = functools.partial(_read_loaded, self._boundary)
        node.add_slot(self._slot(code, "loaded modules", f"{node.label}: loaded modules", read))

    def _add_finders(self, node: Node, namespace: dict[str, Any], finders: set[str], code: types.CodeType) -> None:
        """Add all of the function's own module: it finds by computed text what may lie there."""
        self._finds(finders)
        if finders != {SPEC_FINDER}:  # which tells whether there is a module, or loads another one
            self._add_whole(node, namespace)
        if finders & WATCHED_FINDERS:
            node.own += OBSERVED
        elif MODULES in finders:  # what it imports first is observed
            self._add_loaded(node, code)
        blind = ", ".join(sorted(finders - WATCHED_FINDERS - {MODULES}))
        if blind:
            node.note(f"{node.label}: finds code by computed text ({blind}); only its own module counts")

    def _add_mentioned(self, node: Node, function: types.FunctionType) -> None:
        """Add what texts that a query may be given name; those in the code itself are in its record."""
        held = [slot.value for slot in node.constants]
        cells = [read_cell(cell, "") for cell in function.__closure__ or ()]
        held += [*cells, function.__defaults__, function.__kwdefaults__]
        held += [instance_dict(thing) for thing in held if not is_code(thing)]
        namespace = function.__globals__
        for chain in sorted(mentioned(held)):
            self._mention(namespace, chain).add_to(node)

    def _refer_first(self, namespace: dict[str, Any], chain: str) -> Reference:
        """What a name comes to, found once per module and activity."""
        if chain[0] == "@":
            reference = self._mention(namespace, chain[1:])
        elif chain[0] == "=":
            reference = self._refer_called(namespace, chain[1:])
        else:
            reference = self._refer(namespace, chain)
        self._references[id(namespace), chain] = reference
        return reference

    def _mention(self, namespace: dict[str, Any], chain: str) -> Reference:
        """What a name in a text comes to, if it is one that a text may be meant to name."""
        names = chain.split(".")
        target = follow(namespace, names, self._boundary)
        self._missed = self._missed or target.kind == "missing"
        meant = target.kind in ("slot", "library") or (target.kind == "module" and len(names) > 1)
        if names[0] in LOCATION or not meant or static_attribute(target.value, "__pyplantx_kind__") == "reactor":
            return Reference(namespace, b"")  # the name of an ingredient is often that of a reactor
        return self._refer(namespace, chain)

    def _refer_called(self, namespace: dict[str, Any], path: str) -> Reference:
        """What a text names that stands beside ``"_target_"``: something of the project's, or nothing that counts."""
        held = locate(path, self._boundary)
        self._missed = self._missed or held is MISSING
        return Reference(namespace, b"" if held is MISSING else text("called"), module=held)

    def _refer(self, namespace: dict[str, Any], chain: str) -> Reference:
        """What a name comes to."""
        names = chain.split(".")
        if names[0] in LOCATION and names[0] != PATH:
            return Reference(namespace, b"")
        target = follow(namespace, names, self._boundary)
        if target.kind == "slot" and target.used < len(names) and target.value is not MISSING:
            inside = self._inside(target, names)
            if inside is not None:
                return Reference(namespace, *inside)
        return _to_reference(target, ".".join(names[: target.used]), self._target_slot(target), namespace)

    def _inside(self, target: Target, names: list[str]) -> tuple[bytes, Slot] | None:
        """Name and slot of an attribute that is taken from a plain class or object; None if all of that counts.

        What is on the way there needs no slot unless running code puts something else in its place: then the chain
        still goes through what lay there before.
        """
        label, found = global_label(target.owner, target.key), None
        holder = self.places.before_runs(target.owner, target.key, label, _reader_of(target))
        for at in range(target.used, len(names)):
            place = place_of(holder, names[at], self._boundary, self._plain_classes)
            if place is MISSING:
                break
            label = f"{_label_inside(target, place, names[target.used : at])}.{names[at]}"
            read = read_class if is_a(place, type) else read_field
            holder = self.places.before_runs(place, names[at], label, read)
            if holder is MISSING:  # what runs put there is no reason to run again
                break
            found = at + 1, (place, names[at], label, read)
        if found is None:
            return None
        used, slot = found
        return text(".".join(names[:used])), self._slot(*slot)

    def _target_slot(self, target: Target) -> Slot | None:
        if target.kind not in ("slot", "missing") or not target.key:
            self._missed = self._missed or target.kind == "missing"
            return None
        label = global_label(target.owner, target.key)
        if target.key == PATH and target.value is not MISSING:
            return self._slot(target.owner, "modules inside", f"{label}: modules", read_modules)
        if target.key in LOCATION:  # of another module: where that lies
            return None
        return self._slot(target.owner, target.key, label, _reader_of(target), target.value)

    # --- classes --------------------------------------------------------------------------------------

    def _class(self, cls: type) -> Node:
        name = library_name(cls, self._boundary)
        node = Node(cls, b"class\0")
        if name is not None:
            node.add_text("library", name)
            return node
        for base in (*cls.__bases__, type(cls)):
            known = self._plain_name(base)
            if known is not None:
                node.add_text("base", known)
            else:
                node.add_ref(base)
        self._add_members(node, cls)
        if isinstance(cls, abc.ABCMeta):
            self._add_present(node, "registered classes", read_registered)
        node.documented = True
        self._note_twin(cls, node.label)
        return node

    def _note_twin(self, cls: type, label: str) -> None:
        """Note a class of which another one has the place: a cell was run again, and objects of the former are left.

        Both may have the same code. Who reaches both can ask an object for its class, and is told another than by a
        process in which the cell was run once.
        """
        if "<locals>" in cls.__qualname__:
            return  # made in a function, which makes another one at each call
        same = self._classes.setdefault((class_module(cls), cls.__qualname__), [])
        if not any([one is cls for one in same]):
            same.append(cls)
        if len(same) > 1:
            self.twins[label] = same

    def _add_members(self, node: Node, cls: type) -> None:
        own, members = vars(cls), _enum_members(cls)
        for key in members:
            node.add_slot(self._slot(cls, key, f"{node.label}.{key}", read_member))
        for key in self.places.list_names(cls, node, functools.partial(_is_class_noise, cls, members)):
            if is_a(own[key], types.GetSetDescriptorType | types.MemberDescriptorType):
                node.add_text(key, "descriptor")
            else:
                node.add_slot(self._slot(cls, key, f"{node.label}.{key}", read_class))
                if key == "__annotations__":
                    self._add_forward(node, own[key], _namespace_of(cls))


def _named_finders(code: types.CodeType) -> set[str]:
    """What a function that finds code by computed text names for that; all that there is, if that can't be told."""
    return {*_FINDERS.intersection(_names_within(code))} or {*_FINDERS}


def _names_within(code: types.CodeType) -> Iterator[str]:
    """The names in a code object and those inside it."""
    for one in with_nested(code):
        yield from (*one.co_names, *one.co_varnames, *one.co_freevars)


def _is_function_noise(function: types.FunctionType, noise: frozenset[str], key: str) -> bool:
    """Whether an attribute of a function says nothing of what it does."""
    attributes = function.__dict__
    if key in FUNCTION_NOISE or key in noise:
        return True
    return is_own_number(function, key, attributes.get(key), attributes.items())


def _enum_members(cls: type) -> dict[str, Any]:
    found: dict[str, Any] = vars(cls).get("_member_map_", {}) if "enum.Enum" in map(qualified, cls.__mro__) else {}
    return found


def _is_class_noise(cls: type, members: dict[str, Any], key: str) -> bool:
    """Whether a name in a class says nothing of what the class does."""
    if key in _CLASS_NOISE or key in members or (key in _ENUM_NOISE and members):
        return True
    if key == "__annotations__":
        return not vars(cls)[key]  # Python makes an empty one when it is first asked for
    if key.startswith("__pydantic_"):
        return key != "__pydantic_fields__"  # the others are compiled from the fields and functions, which count
    return key in _SYMPY_NOISE and "sympy.core.basic.Basic" in map(qualified, cls.__mro__)


def _label_inside(target: Target, place: Any, names: list[str]) -> str:
    """What people call a class or object in which an attribute lies."""
    if is_a(place, type):
        return label_of(place)  # as where all of the class counts: the slots are the same
    return ".".join([global_label(target.owner, target.key), *names])


def _reader_of(target: Target) -> Callable[[Any, str], Any]:
    if target.owner is vars(sys):
        return read_arguments
    return read_item if target.value is MISSING or target.key in target.owner else read_made_up


def _to_reference(target: Target, name: str, slot: Slot | None, namespace: Any = None) -> Reference:
    if target.kind == "module":
        return Reference(namespace, text("module") + text(name), module=target.value)
    if slot is not None:
        return Reference(namespace, text(name), slot, finder=target.finder)
    return Reference(namespace, text(target.kind) + text(target.text), finder=target.finder)


# --- small questions about objects ------------------------------------------------------------------------

#: Those of exactly these types hold nothing else that code reads.
_WITHOUT_FIELDS: Final = (types.MethodType, property, staticmethod, classmethod, functools.cached_property)


def _read_options(function: Any, key: str) -> Any:
    """With which options a function was made."""
    origin = origin_of(function)
    return MISSING if origin is None else origin.options


def _read_jit_options(compiled: Any, key: str) -> Any:
    """How numba was told to compile a function."""
    told = options_of(compiled)
    return MISSING if told is None else told


def _held_parts(obj: Any) -> list[Any]:
    """What a thin wrapper wraps, or a class holds; nothing for all else."""
    if isinstance(obj, type):
        members = _enum_members(obj)
        names = [key for key in list(vars(obj)) if not _is_class_noise(obj, members, key)]
        return [obj.__bases__, *[read_member(obj, key) for key in members], {key: vars(obj).get(key) for key in names}]
    return [read_attribute(obj, name) for name in parts_of(obj)] if isinstance(obj, PARTED) else []


def _read_fields(owner: Any, key: str) -> Any:
    """What a thin wrapper holds beside its parts: attributes that were set, fields of the project's class."""
    fields, parts = own_fields(owner), [read_attribute(owner, name) for name in parts_of(owner)]
    noise = _CACHED_NOISE if is_a(owner, functools.cached_property) else _WRAPPER_NOISE
    counting = [name for name in sorted(fields) if name not in noise]
    found = {name: fields[name] for name in counting if not any(fields[name] is part for part in parts)}
    return found | _cache_parameters(fields) or MISSING


def _cache_parameters(fields: dict[str, Any]) -> dict[str, Any]:
    """How `functools.lru_cache` keeps results: which calls are taken for the same one, and which are made again."""
    ask: Any = fields.get("cache_parameters")
    asked = isinstance(ask, types.FunctionType) and ask.__globals__ is vars(functools)
    return {"cache_parameters": ask()} if asked else {}


def _read_registered(additions: Additions, package: str) -> tuple[types.FunctionType, ...]:
    return additions.registered_with(package)


def _read_loaded(boundary: Boundary, code: types.CodeType, key: str) -> dict[str, types.ModuleType]:
    return dict(loaded_by(code, boundary))


def _compiled_name(obj: Any) -> str:
    return str(asked(obj, "__qualname__") or asked(obj, "__name__", ""))


def _forward_references(annotations: dict[str, Any]) -> list[str]:
    """The texts in annotations, which name classes that need not have been there: ``"Model"``, ``list["Model"]``."""
    found: list[str] = []
    pending = list(annotations.values()) if isinstance(annotations, dict) else []
    while pending:
        one = pending.pop()
        if is_a(one, str):
            found.append(one)
        elif type(one).__name__ == "_LiteralGenericAlias":
            continue  # its texts are values
        elif is_a(one, types.GenericAlias | types.UnionType) or type(one).__module__ == "typing":
            pending += getattr(one, "__args__", None) or ()
            pending += filter(None, [getattr(one, "__forward_arg__", None)])
    return found


def _namespace_of(cls: type) -> dict[str, Any]:
    module = sys.modules.get(class_module(cls))
    return vars(module) if isinstance(module, types.ModuleType) else {}
