"""Code objects -> normal form: what the code does, and what it names.

The normal form forgets comments, formatting, line numbers, file and module names, docstrings, the names of
plain locals and the order in which the compiler laid the blocks out. It keeps everything that a program
can observe: instructions, typed constants, names, parameters, exception handlers. docs/design/fingerprints.md
tells why each step is there.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator
from types import CodeType
from typing import Final

from pyplantx.fingerprint import value as values
from pyplantx.fingerprint.bytecode import (
    CELL,
    CONST,
    END,
    FIND_CHAINS,
    IMPORT_NAME,
    LOCAL,
    NAME,
    PLAIN,
    Body,
    Entry,
    Instruction,
    instructions,
    slot_names,
)
from pyplantx.fingerprint.encoding import LEAVES
from pyplantx.fingerprint.flow import Flow, Walk
from pyplantx.fingerprint.hints import VERBS, find_hints
from pyplantx.fingerprint.modules import TARGETS
from pyplantx.fingerprint.records import (
    DOMAIN,
    READ_BY,
    Import,
    Pieces,
    Record,
    called,
    mentioned,
    pieces_to_json,
    read_by_text,
    variables_in,
)

#: VARARGS, VARKEYWORDS, GENERATOR, COROUTINE, ITERABLE_COROUTINE, ASYNC_GENERATOR
_FLAGS: Final = 0x04 | 0x08 | 0x20 | 0x80 | 0x100 | 0x200
_OPTIMIZED: Final = 0x01
_SEES_LOCALS: Final = frozenset({"locals", "vars", "eval", "exec", "dir", "_getframe", "currentframe"})
#: What finds modules by their names, given as text; these and others that find code by computed text.
_IMPORTERS: Final = frozenset({"__import__", "import_module"})
_DYNAMIC: Final = _IMPORTERS | {"exec", "globals", "eval"}
_DYNAMIC_ATTRIBUTES: Final = _IMPORTERS | {"__globals__", "f_globals"}
#: What takes a text and looks up its names in the function that calls it: pandas, xarray, numexpr; SQL over tables
#: in variables; formulas. The last two names are common for other things: they need a text right behind them.
_FORMULAS: Final = frozenset(
    {"dmatrix", "dmatrices", "from_formula", "model_matrix", "ols", "wls", "gls", "glm", "logit"}
)
_QUERIES: Final = frozenset({"query", "eval", "sql", "sql_expr", "evaluate", "execute"}) | _FORMULAS
_UNSURE: Final = frozenset({"evaluate", "execute"})
_TELLING: Final = _SEES_LOCALS | READ_BY.keys() | _DYNAMIC | _DYNAMIC_ATTRIBUTES | _QUERIES
#: Stores at the head of a class body that tell where it stands, not what it does.
_CLASS_NOISE: Final = frozenset({"__qualname__", "__doc__", "__firstlineno__", "__static_attributes__"})


def normalise(code: CodeType) -> Record:
    """Normal form and references of a code object; 0.8 µs per instruction, nested code included.

    Parameters
    ----------
    code : code object
        Of any function; made by ``exec`` or read from a .pyc alike.

    Returns
    -------
    Record
        Its digest depends on the Python minor version, and on nothing else about the process.
    """
    found = _Findings()
    digest = _Normaliser(code, found).digest()
    hints = pieces_to_json(found.sent)
    if found.queries:
        found.chains.update(f"@{chain}" for chain in mentioned(_texts(code)))
    if found.targets:
        found.chains.update(f"={path}" for path in called(_texts(code)))
    chains = sorted(found.chains)
    return Record(digest, chains, found.imports, found.sees, found.dynamic, found.queries, hints)


class _Findings:
    """What a code object and those nested in it name: the fields of a `Record`, and whether one of `TARGETS` is met."""

    __slots__ = ("chains", "dynamic", "imports", "queries", "sees", "sent", "targets")

    def __init__(self) -> None:
        self.chains = set[str]()
        self.imports: list[Import] = []
        self.sent: list[Pieces] = []
        self.dynamic = self.queries = self.targets = False
        self.sees = 0


class _Normaliser:
    """Works on one code object."""

    __slots__ = ("_body", "_code", "_consts", "_found", "_keep_names", "_met", "_params", "_slots", "_tokens")

    def __init__(self, code: CodeType, found: _Findings, keep_names: bool = False) -> None:
        self._code = code
        self._found = found
        self._keep_names = keep_names
        self._body = Body(code)
        self._params = code.co_argcount + code.co_kwonlyargcount + bool(code.co_flags & 4) + bool(code.co_flags & 8)
        # What stands for each local and each constant; "" for those that have not been met.
        self._slots = [""] * (code.co_nlocals + len(code.co_cellvars) + len(code.co_freevars))
        self._consts = [""] * len(code.co_consts)
        self._met = 0

    def digest(self) -> str:
        """Digest of the normal form; adds to the findings."""
        self._note_names()
        self._tokens = [self._header()]
        code, body = self._code, self._body
        jumping = code.co_exceptiontable or body.has_jumps()
        self._write(Walk(body, Flow(code, body)).written if jumping else body.entries)
        return values.hash_text("\n".join(self._tokens))

    def _header(self) -> str:
        code = self._code
        names = code.co_varnames[: self._params]
        flags = code.co_flags & _FLAGS
        head = _head(code.co_argcount, code.co_posonlyargcount, code.co_kwonlyargcount, flags)
        return f"{head} {' '.join((*names, '/', *code.co_freevars))}"

    # --- what the code names --------------------------------------------------------------------------

    def _note_names(self) -> None:
        code, found, names = self._code, self._found, self._code.co_names
        if not _TELLING.isdisjoint(names):
            self._note_telling()
        if not code.co_flags & _OPTIMIZED and "__qualname__" in names:
            self._drop_class_noise()
        found.chains.update([self._chain(*match.span()) for match in FIND_CHAINS.finditer(self._body.ops)])
        if IMPORT_NAME in self._body.ops:
            found.imports += _imports(code, list(instructions(code, self._body.units)))
        if not VERBS.isdisjoint(names):
            found.sent += find_hints(code, self._body)

    def _note_telling(self) -> None:
        """Look at the places where names of `_TELLING` stand, and at the three instructions behind each."""
        code, units = self._code, self._body.units
        telling = {at for at, name in enumerate(code.co_names) if name in _TELLING}
        for at, (kind, _, arg) in enumerate(self._body.entries):
            if kind == NAME and arg in telling:
                self._note_told(list(instructions(code, units[at : at + 4])))

    def _note_told(self, here: list[Instruction]) -> None:
        one = here[0]
        if one.arg in READ_BY and _reads(one):
            self._found.sees |= READ_BY[one.arg]
        if one.arg in _SEES_LOCALS and (one.arg != "eval" or one.name != "LOAD_ATTR"):
            self._keep_names = True
        if one.arg in _QUERIES and _is_query(self._code, here):
            self._keep_names = self._found.queries = True
        if one.arg in (_DYNAMIC_ATTRIBUTES if one.name == "LOAD_ATTR" else _DYNAMIC):
            self._found.dynamic = not self._note_literal(one.arg, here[1:]) or self._found.dynamic
        if one.name == "IMPORT_FROM" and one.arg in _IMPORTERS:
            self._note_local_importer()

    def _note_literal(self, importer: str, after: list[Instruction]) -> bool:
        """Note what is imported by a text that stands in the code; whether it is one."""
        imported = _literal_import(self._code, importer, after)
        self._found.imports += [imported] if imported is not None else []
        return imported is not None

    def _note_local_importer(self) -> None:
        """The same where the function itself imports the importer."""
        slots, loads = slot_names(self._code), list(instructions(self._code, self._body.units))
        for at, one in enumerate(loads):
            if one.name == "LOAD_FAST" and slots[one.arg] in _IMPORTERS:
                self._note_literal(slots[one.arg], loads[at + 1 : at + 4])

    def _drop_class_noise(self) -> None:
        """Blank the stores of constants that say where a class body stands."""
        entries, names = self._body.entries, self._code.co_names
        for at in range(1, len(entries)):
            _, text, arg = entries[at]
            if text == "STORE_NAME " and names[arg] in _CLASS_NOISE and entries[at - 1][0] == CONST:
                self._body.drop(at - 1)
                self._body.drop(at)

    def _chain(self, start: int, end: int) -> str:
        """The dotted name that some instructions load."""
        names = self._code.co_names
        return ".".join([names[arg] for _, _, arg in self._body.entries[start:end]])

    # --- one token per instruction --------------------------------------------------------------------

    def _write(self, entries: list[Entry]) -> None:
        """Add the tokens of some instructions, in this order."""
        add, slots, names, consts = self._tokens.append, self._slots, self._code.co_names, self._consts
        for kind, text, arg in entries:
            if kind == LOCAL:
                add(text + (slots[arg] or self._name_slot(arg)))
            elif kind == NAME:
                add(text + names[arg])
            elif kind == PLAIN:
                add(text)
            elif kind == CONST:
                add(text + (consts[arg] or self._name_const(arg)))
            elif kind == END:
                add(text)
            elif kind == CELL:
                add(text + slot_names(self._code)[arg])

    def _name_slot(self, slot: int) -> str:
        """What stands for a local: parameters by place, others by the order in which locals are met."""
        if slot < self._params:
            known = f"p{slot}"
        else:
            known = self._kept_name(slot) or f"v{self._met}"
        self._met += 1
        self._slots[slot] = known
        return known

    def _kept_name(self, slot: int) -> str:
        """The name of a local that others can see; "" for all others."""
        code = self._code
        if not (self._keep_names or code.co_cellvars or code.co_freevars):
            return ""
        name = slot_names(code)[slot]
        return f"={name}" if self._keep_names or name in code.co_cellvars or name in code.co_freevars else ""

    def _name_const(self, index: int) -> str:
        """What stands for a constant: its encoding; the digest of nested code."""
        const = self._code.co_consts[index]
        leaf = LEAVES.get(type(const))
        if leaf is not None:
            known = leaf(const).hex()
            if type(const) is str and ("@" in const or "__" in const):
                self._note_text(const)
            self._found.targets = self._found.targets or (type(const) is str and const in TARGETS)
        elif isinstance(const, CodeType):
            known = "code " + _Normaliser(const, self._found, self._keep_names).digest()
        else:
            encoded = values.encode(const)
            known = encoded.hex()
            if b"__" in encoded or b"@" in encoded:  # ("__name__", "__doc__")
                self._note_text(" ".join([item for item in const if isinstance(item, str)]))
            if type(const) is tuple:  # the keys of a dict, the names of arguments
                self._found.targets = self._found.targets or any(type(key) is str and key in TARGETS for key in const)
        self._consts[index] = known
        return known

    def _note_text(self, text: str) -> None:
        """Note what a text in the code names for others that read it."""
        self._found.chains.update(variables_in(text))
        self._found.sees |= read_by_text(text)


@functools.lru_cache(maxsize=256)
def _head(*numbers: int) -> str:
    """Arguments (all, positional only, keyword only) and flags."""
    return f"{DOMAIN}{numbers}"


# --- texts ------------------------------------------------------------------------------------------------


def _is_query(code: CodeType, here: list[Instruction]) -> bool:
    """Whether what is loaded here is handed a text with names of this function's; ``model.eval()`` is not."""
    one, then = here[0], here[1] if len(here) > 1 else here[0]
    if one.name.startswith("STORE"):
        return False
    if one.name == "IMPORT_FROM":
        return True
    if one.arg in _UNSURE or one.name != "LOAD_ATTR":
        return then.kind == CONST and isinstance(code.co_consts[then.arg], str)
    return not (then.name == "CALL" and then.raw == 0)


def _reads(one: Instruction) -> bool:
    """Whether a name of `READ_BY` is read of something; ``__name__`` alone is the module's."""
    if one.arg[:2] == "__" and one.arg != "__doc__":
        return one.name == "LOAD_ATTR"
    return not one.name.startswith("STORE")


def _texts(code: CodeType) -> Iterator[object]:
    """The constants that the instructions of a code object load, nested code included; no docstrings."""
    for one in instructions(code, Body(code).units):
        const = code.co_consts[one.arg] if one.kind == CONST else None
        if isinstance(const, CodeType):
            yield from _texts(const)
        else:
            yield const


# --- imports ------------------------------------------------------------------------------------------------


def _imports(code: CodeType, found: list[Instruction]) -> list[Import]:
    places = [i for i, one in enumerate(found) if one.name == "IMPORT_NAME"]
    return [one for at in places for one in _import(code, found, at)]


def _import(code: CodeType, found: list[Instruction], at: int) -> list[Import]:
    level, names = (code.co_consts[one.arg] if one.kind == CONST else None for one in found[at - 2 : at])
    level = level if isinstance(level, int) else 0
    module = found[at].arg
    if names:
        return [Import(level, module, _from_names(list(names), found, at + 1), None)]
    end = at + 1
    while "." in module and found[end].name in ("IMPORT_FROM", "SWAP", "POP_TOP"):  # import a.b as c
        end += 1
    chains = _local_chains(found, end)
    if end > at + 1 or "." not in module:
        return [Import(level, module, None, chains)]
    if chains is None:
        return [Import(level, module, None, None)]
    return [Import(level, module, None, []), Import(level, module.partition(".")[0], None, chains)]


def _literal_import(code: CodeType, importer: str, after: list[Instruction]) -> Import | None:
    """What ``import_module("pkg.mod")`` imports; None if that is not known from what follows the function's name."""
    name = code.co_consts[after[0].arg] if importer in _IMPORTERS and after and after[0].kind == CONST else None
    if not isinstance(name, str) or not name.strip("."):
        return None
    if importer == "__import__" and after[1].name != "CALL":  # a part of the name, or there is a fromlist
        return None
    module = name.lstrip(".")
    level = len(name) - len(module)
    if level and (after[1].arg != "__package__" or after[-1].name != "CALL"):  # relative to something computed
        return None
    package, _, last = module.rpartition(".")
    if importer == "__import__" or not (package or level):
        return Import(level, module, None, None)
    return Import(level, package, [last], None)


def _from_names(names: list[str], found: list[Instruction], start: int) -> list[str]:
    """What a ``from`` import brings in, each name with the attributes that are taken from it, if nothing else is."""
    brought: list[str] = []
    for at, name in zip(range(start, len(found), 2), names):
        chains = _local_chains(found, at + 1) if found[at].arg == name else None
        brought += [".".join([name, *chain]) for chain in chains] if chains else [name]
    return brought


def _local_chains(found: list[Instruction], store: int) -> list[list[str]] | None:
    """Attribute chains taken from the local that is stored here; None if it is used in any other way."""
    if found[store].name != "STORE_FAST":
        return None
    slot = found[store].arg
    uses = [i for i, one in enumerate(found) if one.kind == LOCAL and one.arg == slot]
    others = [i for i in uses if i != store and not _binds_the_same(found, i, store)]
    chains = [_attributes(found, i + 1) if found[i].name == "LOAD_FAST" else [] for i in others]
    return chains if all(chains) else None


def _binds_the_same(found: list[Instruction], at: int, store: int) -> bool:
    """Whether two stores bind a name to one package: ``import a.b`` and ``import a.c`` both bind ``a``."""
    one, other = found[at - 1], found[store - 1]
    if found[at].name != "STORE_FAST" or not one.name == other.name == "IMPORT_NAME":
        return False
    return bool(one.arg.partition(".")[0] == other.arg.partition(".")[0])


def _attributes(found: list[Instruction], start: int) -> list[str]:
    end = start
    while end < len(found) and found[end].name == "LOAD_ATTR":
        end += 1
    return [one.arg for one in found[start:end]]
