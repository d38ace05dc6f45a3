"""What the project puts into libraries: values in their modules (``math.G = 9.81``), anything in their classes.

Code that lies there is known by itself. A value is not: it might be the library's own, which says where a program
runs (`tempfile.tempdir`) and does not count. That the project has put it there stands in a source of the project, and
nowhere else, so that is where it is looked for, once for each module in a process. What has no name in a source
(``setattr(cls, function.__name__, function)``, decorators of libraries that register accessors) is looked for in the
classes themselves, if a source has the words for it.

This file may know: the sources of the project, and what lies in libraries. It may not know: what counts.
"""

from __future__ import annotations

import functools
import re
import sys
import types
from collections.abc import Iterable, Iterator, Sequence
from itertools import repeat
from operator import is_
from typing import TYPE_CHECKING, Any, Final

from pyplantx.basics.tuples import NamedTuple
from pyplantx.fingerprint.boundary import Boundary, is_library_file
from pyplantx.fingerprint.nested import names_in, texts_in
from pyplantx.fingerprint.objects import HEAP_TYPE, MISSING, class_module, instance_dict, is_of_project, library_name

if TYPE_CHECKING:
    from pyplantx.fingerprint.registrations import Registration, Registrations

#: An attribute that may be assigned to; what it is taken from is looked for to its left. (A pattern that begins with
#: one certain letter takes a tenth of the time of others.)
_ASSIGNED: Final = rb"\.([\w\x80-\xff]+)[ \t]*(?:=[^=]|[-+*/%@&|^<>]+=[^=]|[:,)\]][^=\n]*=[^=])"
_BEFORE: Final = rb"[A-Za-z_\x80-\xff][\w.\x80-\xff]*$"
_REST: Final = rb"[\w\x80-\xff]*"

#: By text: ``setattr(math, "G", 9.81)``, ``vars(math).update(G=9.81)``, ``math.__dict__["G"] = 9.81``.
_BY_TEXT: Final = (
    rb"(?<![.\w])(setattr|vars)\(\s*([A-Za-z_\x80-\xff][\w.\x80-\xff]*)|([A-Za-z_\x80-\xff][\w.\x80-\xff]*)\.__dict__"
)
_TEXT_WORDS: Final = (b"setattr(", b"vars(", b".__dict__")

#: Decorators of libraries that put into classes what they are given; they need not be named in the same place.
_REGISTERS: Final = rb"\bregister_\w+(?:accessor|namespace)\b|@patch\w*|\btype\.__setattr__\("
_REGISTERING_WORDS: Final = (b"register_", b"@patch", b"type.__setattr__")

#: How the names of functions begin by which a library is given something that it calls later.
_GIVING_WORDS: Final = (b"register", b"add_constructor")

#: What methods set attributes of, and what decorators and functions call a class that they were given.
_ITSELF, _SOME_CLASS = "self", "cls"

#: What says where a program runs, whoever has put it there.
_OF_PROCESS: Final = {
    "sys": frozenset(
        {
            *("path", "modules", "meta_path", "path_hooks", "path_importer_cache", "executable", "prefix"),
            *("exec_prefix", "stdin", "stdout", "stderr", "excepthook", "displayhook", "ps1", "ps2"),
            *("dont_write_bytecode", "pycache_prefix", "tracebacklimit"),
        }
    ),
    "os": frozenset({"environ"}),
    "tempfile": frozenset({"tempdir"}),
}

#: What Python, and the machinery of abstract classes, put into a class.
_OF_PYTHON: Final = frozenset(
    {
        *("__dict__", "__weakref__", "__doc__", "__module__", "__annotations__", "__parameters__", "__orig_bases__"),
        *("__abstractmethods__", "_abc_impl", "__slots__", "__class__", "__annotate_func__"),
    }
)


#: Members of classes that hold no other code.
_EMPTY: Final = frozenset(
    {
        *(str, bytes, int, float, bool, tuple, list, dict, set, frozenset, types.NoneType),
        *(types.WrapperDescriptorType, types.MethodDescriptorType, types.ClassMethodDescriptorType),
        *(types.GetSetDescriptorType, types.MemberDescriptorType, types.BuiltinFunctionType),
    }
)


class Addition(NamedTuple):
    """Something that the project has put into a class of a library.

    Attributes
    ----------
    cls : type
        The class.
    name : str
        The name in it.
    """

    cls: type
    name: str


class _Source:
    """What a source says about attributes that are set.

    Attributes
    ----------
    namespace : dict
        What its names mean.
    assigned : list of (str, str, int)
        What an attribute that may be assigned to is taken from, its name, and where that is said.
    by_text : set of (bool, str)
        Whether it is by `setattr`, and in what names are set that are texts.
    registers : bool
        Whether a library is asked to put something into a class.
    registrations : Registrations or None
        What else libraries are given, to call it.
    """

    __slots__ = ("assigned", "by_text", "namespace", "registers", "registrations", "text")

    def __init__(self, namespace: dict[str, Any], text: bytes) -> None:
        self.namespace, self.text = namespace, text
        self.assigned = list(_assigned_in(text))
        found = _matches(_BY_TEXT, text, _TEXT_WORDS)
        named = {(match[1] == b"setattr", _text(match[2] or match[3])) for match in found}
        self.by_text = sorted(pair for pair in named if pair[1] != _ITSELF)
        self.registers = next(_matches(_REGISTERS, text, _REGISTERING_WORDS), None) is not None
        self.registrations = _registrations(namespace, text)


class _Watched:
    """Modules side by side: whether they are the same is asked whenever a plant looks at its code.

    Parameters
    ----------
    modules : list
        Names; modules, specs, sources.
    """

    __slots__ = ("_modules", "_names", "_namespaces", "_specs")

    def __init__(self, modules: list[tuple[str, tuple[Any, Any, _Source]]]) -> None:
        self._names = [name for name, _ in modules]
        self._modules = [module for _, (module, _, _) in modules]
        self._specs = [spec for _, (_, spec, _) in modules]
        self._namespaces = [instance_dict(module) or {} for module in self._modules]

    def are_the_same(self) -> bool:
        """Whether none is another one by now, or was carried out again."""
        now, specs = map(sys.modules.get, self._names), map(dict.get, self._namespaces, repeat("__spec__"))
        return all(map(is_, now, self._modules)) and all(map(is_, specs, self._specs))


class _Found:
    """What the sources say, taken together; made anew when there is another one.

    Attributes
    ----------
    named : dict
        Namespace of a library, by its identity -> itself, and the names that are set by name.
    open : dict
        The same for namespaces in which names are set by text.
    said : dict
        Names that were asked for there -> whether a source has them as a text.
    in_classes, everywhere
        What lies in classes, by its name; what libraries may call there by themselves.
    registered : dict
        Library -> what is registered with it.
    """

    __slots__ = ("everywhere", "in_classes", "named", "open", "registered", "said")

    def __init__(self) -> None:
        self.named: dict[int, tuple[Any, set[str]]] = {}
        self.open: dict[int, Any] = {}
        self.said: dict[str, bool] = {}
        self.in_classes: dict[str, list[Addition]] = {}
        self.everywhere: list[Addition] = []
        self.registered: dict[str, list[Registration]] = {}

    def told(self) -> object:
        """What can be compared with that of another one."""
        named = {place: names for place, (_, names) in self.named.items()}
        return named, set(self.open), self.in_classes, self.everywhere, self.registered


#: Of the process: for each way to tell libraries from the project, since sources are read once.
_KNOWN: dict[tuple[Sequence[str], ...], Additions] = {}


class Additions:
    """What the project has put into libraries, as of the last `refresh`. Plants of several threads have one together.

    Parameters
    ----------
    boundary : Boundary
        Tells libraries from the project.

    Attributes
    ----------
    version : int
        Grows with what there is.
    is_empty : bool
        Whether there is nothing in classes, and nothing registered, as nearly always.
    """

    def __init__(self, boundary: Boundary) -> None:
        self._boundary, self.version = boundary, 0
        self._modules: dict[str, tuple[Any, Any, _Source]] = {}  # of the project: the module, its spec
        self._watched = _Watched([])
        self._cells: tuple[int, list[_Source]] = (0, [])
        self._loaded = 0, ""  # how many modules there are, and the last one
        self._folders: dict[str, bool] = {}
        self._found, self.is_empty = _Found(), True

    @classmethod
    def of(cls, boundary: Boundary) -> Additions:
        """The one for a boundary, up to date. It has a boundary of its own: what it meets nobody has referred to."""
        _, *way = boundary.policy
        known = _KNOWN.get(tuple(way))
        if known is None:
            known = _KNOWN[tuple(way)] = cls(Boundary("ignore", *way))
        known.refresh()
        return known

    def refresh(self) -> int:
        """Look at what was imported, or imported again, since the last time; gives the version."""
        changed = self._look_at_modules()
        if not self._look_at_cells() and not changed:
            return self.version
        before, found = self._found, self._in_sources()
        self._found = found  # others may be asking meanwhile
        self.is_empty = not (found.in_classes or found.registered)
        self.version += before.told() != found.told()
        return self.version

    def count_for(self, function: types.FunctionType) -> bool:
        """Whether anything in classes of libraries, or registered with them, counts for a function."""
        return bool(self.seen_by(function.__code__) or self.called_for(function))

    def puts(self, namespace: Any, name: str) -> bool:
        """Whether the project puts something under a name into a library's module with this namespace."""
        found = self._found
        named = found.named.get(id(namespace))
        if named is not None and name in named[1]:
            return True
        if id(namespace) not in found.open or not _is_meant(namespace, name):
            return False
        said = found.said.get(name)
        if said is None:
            said = found.said[name] = self._is_said(name)
        return said

    def seen_by(self, code: types.CodeType) -> list[Addition]:
        """What is in classes of libraries and counts for some code: it says its name, or the library calls it."""
        known = self._found
        if not known.in_classes:
            return []
        names = {*names_in(code), *texts_in(code)}
        found = [one for name in known.in_classes.keys() & names for one in known.in_classes[name]]
        found += [one for one in known.everywhere if one.name not in names]
        there = filter(self._lies_there, found)  # who has put it there may have taken it away again
        return sorted(there, key=lambda one: (one.name, one.cls.__module__, one.cls.__qualname__))

    def called_for(self, function: types.FunctionType) -> list[str]:
        """The libraries that may call, for a function, what is registered with them."""
        registered = sorted(self._found.registered.items())
        return [package for package, found in registered if any(one.is_used_by(function) for one in found)]

    def registered_with(self, package: str) -> tuple[types.FunctionType, ...]:
        """The statements that register something with a library, as functions."""
        return tuple([one.code for one in self._found.registered.get(package, ())])

    def _lies_there(self, addition: Addition) -> bool:
        return addition.name in vars(addition.cls) and not self._is_its_own(addition.cls, addition.name)

    # --- where the project says so ----------------------------------------------------------------------

    def _look_at_modules(self) -> bool:
        """Whether modules of the project were imported; an import that is repeated makes another spec."""
        changed = self._imported_again()
        names = list(sys.modules)  # in one step: threads may import meanwhile
        loaded = len(names), names[-1]
        if changed or loaded != self._loaded:
            self._loaded = loaded
            changed += [name for name in names if self._is_new(name, sys.modules.get(name))]
        for name in changed:
            module = sys.modules.get(name)
            if module is None:
                self._modules.pop(name, None)
            else:
                held = instance_dict(module) or {}  # one that loads lazily is not to be woken
                self._modules[name] = module, _spec(module), _Source(held, _read(str(held.get("__file__"))))
        if changed:
            self._watched = _Watched(list(self._modules.items()))
        return bool(changed)

    def _imported_again(self) -> list[str]:
        """Names of modules that are others by now, or have been carried out again."""
        if self._watched.are_the_same():
            return []
        return [name for name, (module, spec, _) in list(self._modules.items()) if not _is_the_same(name, module, spec)]

    def _is_new(self, name: str, module: Any) -> bool:
        if name in self._modules or name.startswith("pyplantx."):
            return False
        file = (instance_dict(module) or {}).get("__file__")
        if type(file) is not str or not (file.endswith(".py") or name == "__main__"):
            return False
        if not self._boundary.policy[1] and self._lies_in_library(file):
            return False
        return not self._boundary.is_library(name, file)

    def _lies_in_library(self, file: str) -> bool:
        folder = file.rpartition("/")[0]
        known = self._folders.get(folder)
        if known is None:
            known = self._folders[folder] = is_library_file(file)
        return known

    def _look_at_cells(self) -> bool:
        """Whether cells of a notebook were run."""
        cache = getattr(sys.modules.get("linecache"), "cache", None)
        if not cache or len(cache) == self._cells[0] or "__main__" not in sys.modules:
            return False
        cells = ["".join(entry[2]) for entry in list(cache.values()) if len(entry) == 4 and entry[1] is None]
        texts = [cell.encode("utf-8", "surrogatepass") for cell in cells]  # each by itself: one may be no Python
        self._cells = len(cache), [_Source(vars(sys.modules["__main__"]), text) for text in texts]
        return bool(texts)

    def _sources(self) -> list[_Source]:
        return [*(source for _, _, source in list(self._modules.values())), *self._cells[1]]

    def _is_said(self, name: str) -> bool:
        word = re.escape(name.encode())  # the pattern begins with it: others take many times as long
        said = re.compile(rb"%b(?:(?<=[\"']%b)[\"']|(?<!\w%b)\s*=)" % (word, word, word)).search
        return any(said(source.text) for source in self._sources())

    def _in_sources(self) -> _Found:
        """What all sources say."""
        found = _Found()
        lying = {(id(one.cls), one.name): one for one in self._in_classes(found)}
        for one in lying.values():
            found.in_classes.setdefault(one.name, []).append(one)
            if one.name.startswith("__") or _replaces(one, self._boundary):
                found.everywhere.append(one)
        given = [source.registrations for source in self._sources() if source.registrations is not None]
        registered = [one for registrations in given for one in registrations.look(self._boundary)]
        for registration in sorted(registered, key=lambda one: (one.package, one.said)):
            found.registered.setdefault(registration.package, []).append(registration)
        return found

    def _in_classes(self, found: _Found) -> Iterator[Addition]:
        """What lies in classes; of modules it is noted which names are set."""
        opened: dict[int, type] = {}
        sources = self._sources()
        all_of_them = any(source.registers for source in sources)
        for source in sources:
            known: dict[str, Any] = {}
            for chain, name, at in source.assigned:
                if chain not in known:
                    all_of_them = all_of_them or chain == _SOME_CLASS
                    known[chain] = self._library_thing(source.namespace, chain)
                holder = known[chain]
                if holder is MISSING or not _is_assigned(source.text, at, chain, name):
                    continue
                if isinstance(holder, type):
                    if not self._is_its_own(holder, name):
                        yield Addition(holder, name)
                elif _is_meant(vars(holder), name):
                    found.named.setdefault(id(vars(holder)), (vars(holder), set()))[1].add(name)
            for sets, chain in source.by_text:
                holder = self._library_thing(source.namespace, chain)
                if isinstance(holder, type):
                    opened[id(holder)] = holder
                elif holder is not MISSING:
                    found.open[id(vars(holder))] = vars(holder)
                all_of_them = all_of_them or (sets and chain.partition(".")[0] not in source.namespace)
        yield from self._in_all(_all_classes() if all_of_them else opened.values())

    def _library_thing(self, namespace: dict[str, Any], chain: str) -> Any:
        """The module or class of a library that a chain of names leads to; `MISSING` if it is none."""
        first, *names = chain.split(".")
        held = namespace.get(first, sys.modules.get(first, MISSING))
        for name in names:
            within = vars(held) if issubclass(type(held), types.ModuleType | type) else {}
            held = within.get(name, MISSING)
        if issubclass(type(held), types.ModuleType):
            name = str(vars(held).get("__name__"))
            return held if self._boundary.owns_globals(vars(held)) and not name.startswith("pyplantx") else MISSING
        return held if isinstance(held, type) and self._is_open(held) else MISSING

    def _is_its_own(self, cls: type, name: str) -> bool:
        """Whether a class of a library holds a function of the library under a name: nobody has put another there."""
        held = vars(cls).get(name)
        return type(held) is types.FunctionType and self._boundary.owns_globals(held.__globals__)

    # --- what lies in classes -----------------------------------------------------------------------------

    def _is_open(self, cls: type) -> bool:
        """Whether something can be put into a class, and it is a library's."""
        if not cls.__flags__ & HEAP_TYPE or class_module(cls).partition(".")[0] == "pyplantx":
            return False
        return library_name(cls, self._boundary) is not None

    def _in_all(self, classes: Iterable[type]) -> Iterator[Addition]:
        """The code of the project that lies in some classes, if these are libraries'; itself or in a thin wrapper."""
        homes = {"__main__", *self._modules}
        for cls in classes:
            if class_module(cls) in homes:
                continue
            held = [
                name for name, item in list(vars(cls).items()) if _may_be_of(item, homes) and name not in _OF_PYTHON
            ]
            if held and self._is_open(cls):
                yield from (Addition(cls, name) for name in held if self._is_projects(vars(cls)[name]))

    def _is_projects(self, item: Any) -> bool:
        return any(is_of_project(one, self._boundary) for one in _parts_of(item))


def _may_be_of(item: Any, homes: set[str]) -> bool:
    """Whether a member of a class is, or holds, what lies in one of some modules; generated methods lie in none."""
    kind = type(item)
    if kind is types.FunctionType:
        return item.__globals__.get("__name__") in homes
    if kind in _EMPTY:
        return False
    return any(_home_of(one) in homes for one in _parts_of(item))


def _home_of(item: Any) -> Any:
    if type(item) is types.FunctionType:
        return item.__globals__.get("__name__")
    return class_module(item) if issubclass(type(item), type) else None


def _parts_of(item: Any) -> Iterable[Any]:
    """What a member of a class may hold that is code: what it wraps, what an accessor of a library keeps."""
    if isinstance(item, type):
        return (item,)
    if isinstance(item, property):
        return filter(None, (item.fget, item.fset, item.fdel))
    inner = getattr(item, "__func__", None) if isinstance(item, staticmethod | classmethod) else None
    if inner is not None:
        return (inner,)
    if isinstance(item, types.FunctionType):
        return (item,)
    return (item, *(instance_dict(item) or {}).values())


def _all_classes() -> Iterator[type]:
    seen, pending = {id(object)}, [object]
    while pending:
        for cls in type.__subclasses__(pending.pop()):
            if id(cls) not in seen:
                seen.add(id(cls))
                pending.append(cls)
                yield cls


def _replaces(addition: Addition, boundary: Boundary) -> bool:
    """Whether something stands in the place of a thing of the library's own, which the library may call by itself.

    A name that is added comes behind all that the body of the class has.
    """
    cls, name = addition
    if any(name in vars(base) for base in cls.__mro__[1:]):
        return True
    names = list(vars(cls))
    behind = names[names.index(name) + 1 :] if name in names else []
    functions = (held for held in map(vars(cls).get, behind) if type(held) is types.FunctionType)
    return any(boundary.owns_globals(held.__globals__) and _is_of_body(held, cls) for held in functions)


def _is_of_body(function: types.FunctionType, cls: type) -> bool:
    return function.__qualname__ == f"{cls.__qualname__}.{function.__name__}"


def _assigned_in(text: bytes) -> Iterator[tuple[str, str, int]]:
    """The attributes to which a source may assign something: what they are taken from, their names, and where."""
    for match in _compiled(_ASSIGNED).finditer(text):
        at = match.start()
        chain = _before(text, at)
        if chain and chain != _ITSELF:
            yield chain, _text(match[1]), at


def _before(text: bytes, at: int) -> str:
    """The dotted name that ends at a place in a source; "" if there is none."""
    found = _compiled(_BEFORE).search(text, text.rfind(b"\n", 0, at) + 1, at)
    return "" if found is None else _text(found[0])


def _text(found: bytes) -> str:
    """A name as Python has it, which has only one way to write each."""
    if found.isascii():
        return found.decode()
    import unicodedata

    return unicodedata.normalize("NFKC", found.decode("utf-8", "replace"))


def _is_meant(namespace: dict[str, Any], name: str) -> bool:
    if name.startswith("__") and name.endswith("__"):
        return False
    return name not in _OF_PROCESS.get(str(namespace.get("__name__")), ())


def _is_assigned(source: bytes, at: int, chain: str, name: str) -> bool:
    """Whether the line around a place assigns to an attribute; one that is no statement by itself is taken to do so."""
    import ast  # hardly ever is something assigned to in a library

    end = source.find(b"\n", at)
    line = source[source.rfind(b"\n", 0, at) + 1 : end if end >= 0 else len(source)].strip()
    try:
        tree = ast.parse(line)
    except (SyntaxError, ValueError):
        rest = line.partition(f"{chain}.{name}".encode())[2].lstrip()
        return rest[:1] == b"=" and rest[:2] != b"=="
    stored = (node for node in ast.walk(tree) if isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store))
    return any(ast.unparse(node) == f"{chain}.{name}" for node in stored)


def _is_the_same(name: str, module: Any, spec: Any) -> bool:
    return sys.modules.get(name) is module and _spec(module) is spec


def _spec(module: Any) -> Any:
    return (instance_dict(module) or {}).get("__spec__")


@functools.cache
def _compiled(pattern: bytes) -> re.Pattern[bytes]:
    return re.compile(pattern)


def _matches(pattern: bytes, source: bytes, words: Iterable[bytes]) -> Iterator[re.Match[bytes]]:
    """What matches in a source that holds one of some words."""
    return _compiled(pattern).finditer(source) if any(word in source for word in words) else iter(())


def _registrations(namespace: dict[str, Any], source: bytes) -> Registrations | None:
    chains = {chain for word in _GIVING_WORDS if word in source for chain in _called_in(source, word)}
    if not chains:
        return None
    from pyplantx.fingerprint.registrations import Registrations  # most programs register nothing

    return Registrations(namespace, source, chains)


def _called_in(source: bytes, word: bytes) -> Iterator[str]:
    """The dotted names in a source the last part of which begins with a word."""
    for match in _compiled(word + _REST).finditer(source):
        before = _before(source, match.start())
        if not before or before.endswith("."):
            yield before + _text(match[0])


def _read(file: str) -> bytes:
    try:
        with open(file, "rb") as stream:
            return stream.read()
    except OSError:  # run from a place that is gone by now: nothing is said there
        return b""
