"""What the project registers with libraries, which then call it by a name, a type or a tag.

``gymnasium.register("Maze-v0", entry_point=Maze)`` leaves a class in a table of the library, and in a reactor that
calls ``gymnasium.make("Maze-v0")`` nothing leads there. What was registered is told by the statement that did it, which
stands in a source of the project: so it counts as code, with all that it names, for who uses the library.

This file may know: sources of the project, and what their names lead to. It may not know: what counts.
"""

from __future__ import annotations

import sys
import types
from collections.abc import Callable, Iterable, Iterator
from keyword import iskeyword
from typing import TYPE_CHECKING, Any, Final

from pyplantx.basics.tuples import NamedTuple
from pyplantx.fingerprint.boundary import Boundary
from pyplantx.fingerprint.foreign import offers
from pyplantx.fingerprint.nested import names_in, texts_in
from pyplantx.fingerprint.objects import MISSING, class_module, instance_dict

if TYPE_CHECKING:
    import ast

#: What is called like that and puts something into a class, where it is found by itself (`additions`).
_INTO_CLASSES: Final = ("accessor", "namespace")

#: What they are given changes no value, or is not called by a reactor.
_WITHOUT_EFFECT: Final = frozenset(
    {*("atexit", "faulthandler", "logging", "os", "pyplantx", "pytest", "signal", "sys", "threading", "warnings")}
)


class Registration(NamedTuple):
    """A statement that registers something with a library.

    Attributes
    ----------
    package : str
        The library.
    said : str
        The statement, without comments and layout.
    texts : frozenset of str
        What the library is given as a text: a name under which it finds the thing.
    code : function
        The statement as the body of a function.
    """

    package: str
    said: str
    texts: frozenset[str]
    code: Any

    def is_used_by(self, function: types.FunctionType) -> bool:
        """Whether a function names anything of the library, or says a name under which that finds the thing."""
        held = function.__globals__
        for name in names_in(function.__code__):
            if _top(name) == self.package or _top(_home(held.get(name))) == self.package:
                return True
        return not self.texts.isdisjoint(texts_in(function.__code__))


class Registrations:
    """What one source registers with libraries.

    Parameters
    ----------
    namespace : dict
        What the names in the source mean.
    text : bytes
        The source.
    chains : set of str
        The dotted names in it that may be those of functions that register something.
    """

    __slots__ = ("_chains", "_found", "_namespace", "_packages", "_text")

    def __init__(self, namespace: dict[str, Any], text: bytes, chains: set[str]) -> None:
        self._namespace, self._text, self._chains = namespace, text, sorted(chains)
        self._packages: dict[str, str] = {}
        self._found: list[Registration] = []

    def look(self, boundary: Boundary) -> list[Registration]:
        """Those that there are today: the same objects as before, as long as the names mean the same libraries."""
        packages = {chain: _package_of(self._namespace, chain, boundary) for chain in self._chains}
        if packages != self._packages:
            self._packages = packages
            self._found = self._read(packages) if any(packages.values()) else []
        return self._found

    def _read(self, packages: dict[str, str]) -> list[Registration]:
        import ast  # hardly ever is something registered

        def package_of(call: ast.expr) -> str:
            return packages.get(_chain_of(call)) or ""

        try:
            tree = ast.parse(self._text)
        except (SyntaxError, ValueError):  # the file was changed since it was loaded
            return []
        return [
            _registration(piece, package, package_of, self._namespace)
            for piece in _pieces(tree.body, package_of, None)
            for package in sorted(_packages_in(piece, package_of))
        ]


# --- what is called ---------------------------------------------------------------------------------------


def _package_of(namespace: dict[str, Any], chain: str, boundary: Boundary) -> str:
    """The library that registers what it is given under this name; "" if there is none, or that has no effect."""
    prefix, _, last = chain.rpartition(".")
    holder = _led_to(namespace, prefix or last)
    home = _home(holder)
    if not home or _top(home) in _WITHOUT_EFFECT or last.endswith(_INTO_CLASSES) or not boundary.is_library(home):
        return ""
    if prefix and (_is_abstract(holder, last) or not _is_found_in(holder, prefix.rpartition(".")[2], _top(home))):
        return ""
    return _top(home)


def _led_to(namespace: dict[str, Any], chain: str) -> Any:
    first, *names = chain.split(".")
    held = namespace.get(first, sys.modules.get(first, MISSING))  # it may be imported inside a function
    for name in names:
        within = vars(held) if issubclass(type(held), type) else instance_dict(held)
        held = (within or {}).get(name, MISSING)
    return held


def _home(held: Any) -> str:
    """The module that something is, or was defined in; that of the class of any other object."""
    kind = type(held)
    if issubclass(kind, types.ModuleType):
        return str((instance_dict(held) or {}).get("__name__", ""))
    if kind is types.MethodType:
        return _home(held.__func__)
    if kind is types.FunctionType or kind is types.BuiltinFunctionType:
        return str(held.__module__ or "")
    return class_module(held if issubclass(kind, type) else kind)


def _top(module: str) -> str:
    return module.partition(".")[0]


def _is_abstract(holder: Any, name: str) -> bool:
    """Whether this registers a class with an abstract one: who asks for it does so with `isinstance`."""
    return issubclass(type(holder), type) and name == "register" and not offers(holder, name)


def _is_found_in(holder: Any, name: str, package: str) -> bool:
    """Whether something is a library's own; an object of one of its classes is so if the library holds it, too."""
    if issubclass(type(holder), type | types.ModuleType | types.FunctionType | types.MethodType):
        return True
    own = [module for key, module in list(sys.modules.items()) if _top(key) == package]
    return any((instance_dict(module) or {}).get(name) is holder for module in own)


# --- the statements ---------------------------------------------------------------------------------------


def _pieces(
    statements: list[ast.stmt], package_of: Callable[[ast.expr], str], function: ast.stmt | None
) -> Iterator[ast.stmt]:
    """The smallest statements that register something and say it all."""
    import ast

    for statement in statements:
        packages = _packages_in(statement, package_of)
        if not packages:
            continue
        within = statement if isinstance(statement, ast.FunctionDef | ast.AsyncFunctionDef) else function
        inner = [piece for body in _bodies_of(statement) for piece in _pieces(body, package_of, within)]
        if within is statement and any(_names_in(piece) & _locals_of(statement) for piece in inner):
            inner = []  # it says only with the rest of the function what is registered
        if set().union(*(_packages_in(piece, package_of) for piece in inner)) == packages:
            yield from inner
        else:
            yield statement


def _packages_in(statement: ast.stmt, package_of: Callable[[ast.expr], str]) -> set[str]:
    return {package for call in _calls_in(statement) if (package := package_of(call))}


def _calls_in(statement: ast.stmt) -> Iterator[ast.expr]:
    """The decorators, and what is called for no result: `moved = register(fixed, moving)` is about images."""
    import ast

    for node in ast.walk(statement):
        if isinstance(node, ast.Expr):
            yield from (inner.func for inner in ast.walk(node) if isinstance(inner, ast.Call))
        for one in getattr(node, "decorator_list", ()):
            yield one.func if isinstance(one, ast.Call) else one


def _bodies_of(statement: ast.stmt) -> list[list[ast.stmt]]:
    """The blocks of a statement, each line of which stands by itself; in a loop or a class it does not."""
    import ast

    if not isinstance(statement, ast.If | ast.Try | ast.With | ast.FunctionDef | ast.AsyncFunctionDef):
        return []
    blocks = [getattr(statement, name, []) for name in ("body", "orelse", "finalbody")]
    return [*blocks, *(handler.body for handler in getattr(statement, "handlers", []))]


def _chain_of(node: ast.expr) -> str:
    import ast

    if isinstance(node, ast.Attribute):
        before = _chain_of(node.value)
        return before and f"{before}.{node.attr}"
    return node.id if isinstance(node, ast.Name) else ""


def _names_in(node: ast.AST) -> set[str]:
    import ast

    return {one.id for one in ast.walk(node) if isinstance(one, ast.Name)}


def _locals_of(function: ast.stmt) -> set[str]:
    import ast

    nodes = list(ast.walk(function))
    stored = {one.id for one in nodes if isinstance(one, ast.Name) and isinstance(one.ctx, ast.Store)}
    brought = {_top(one.asname or one.name) for one in nodes if isinstance(one, ast.alias)}
    return stored | brought | {one.arg for one in nodes if isinstance(one, ast.arg)}


def _registration(
    statement: ast.stmt, package: str, package_of: Callable[[ast.expr], str], namespace: dict[str, Any]
) -> Registration:
    import ast

    calls = [node for node in ast.walk(statement) if isinstance(node, ast.Call) and package_of(node.func) == package]
    given = [one for call in calls for one in (*call.args, *(keyword.value for keyword in call.keywords))]
    texts = frozenset([one.value for one in given if isinstance(one, ast.Constant) and isinstance(one.value, str)])
    code = _as_function([statement, *_found_at(texts)], package, namespace)
    return Registration(package, _unparsed(statement), texts, code)


def _found_at(texts: Iterable[str]) -> Iterator[ast.stmt]:
    """What leads to the things whose place is given as a text: ``"mazes.small:Maze"``."""
    import ast

    for module, _, name in (text.partition(":") for text in sorted(texts)):
        if _is_dotted(module) and _is_dotted(name):
            yield from ast.parse(f"import {module}; {module}.{name}").body


def _is_dotted(text: str) -> bool:
    return all(part.isidentifier() and not iskeyword(part) for part in text.split("."))


def _as_function(statements: list[ast.stmt], package: str, namespace: dict[str, Any]) -> types.FunctionType:
    compiled = _compiled("def", statements) or _compiled("async def", statements) or _compiled("def", _said(statements))
    assert compiled is not None  # texts can always be compiled
    code = next(const for const in compiled.co_consts if isinstance(const, types.CodeType))
    name = f"<registered with {package}>"
    return types.FunctionType(code.replace(co_name=name, co_qualname=name), namespace)


def _compiled(kind: str, statements: list[ast.stmt]) -> types.CodeType | None:
    """A function with some statements; None if they can stand in no such function."""
    import ast

    module = ast.parse(f"{kind} registered(): pass")
    module.body[0].body = statements  # type: ignore[attr-defined]
    try:
        return compile(ast.fix_missing_locations(module), "<registered>", "exec", dont_inherit=True)
    except SyntaxError:
        return None


def _said(statements: list[ast.stmt]) -> list[ast.stmt]:
    """What counts of statements that can't stand by themselves: what they say."""
    import ast

    return [ast.Return(ast.Constant("\n".join(map(_unparsed, statements))))]


def _unparsed(statement: ast.stmt) -> str:
    import ast

    try:
        return ast.unparse(statement)
    except RecursionError:  # a sum of hundreds; only the order of several hangs on it
        return ""
