"""Code objects -> normal form: what the code does, and what it names.

The normal form forgets comments, formatting, line numbers, file and module names, docstrings, the names of
plain locals and the order in which the compiler laid the blocks out. It keeps everything that a program
can observe: instructions, typed constants, names, parameters, exception handlers. docs/design/fingerprints.md
tells why each step is there.
"""

from __future__ import annotations

from types import CodeType
from typing import Any, Final

from pyplantx.fingerprint import value as values
from pyplantx.fingerprint.bytecode import (
    BRANCH,
    CONST,
    DROP,
    END,
    JUMP,
    LOCAL,
    NAME,
    PLAIN,
    TEST,
    Instruction,
    handlers,
    scan,
    slot_names,
)
from pyplantx.fingerprint.encoding import LEAVES
from pyplantx.fingerprint.hints import find_hints
from pyplantx.fingerprint.records import DOMAIN, Import, Record, to_json

#: VARARGS, VARKEYWORDS, GENERATOR, COROUTINE, ITERABLE_COROUTINE, ASYNC_GENERATOR
_FLAGS: Final = 0x04 | 0x08 | 0x20 | 0x80 | 0x100 | 0x200
_OPTIMIZED: Final = 0x01
_SEES_LOCALS: Final = frozenset({"locals", "vars", "eval", "exec", "dir", "_getframe", "currentframe"})
_SEES_DOCS: Final = frozenset({"__doc__", "getdoc"})
_DYNAMIC: Final = frozenset({"eval", "exec", "globals", "__import__", "import_module"})
_GLOBAL_LOADS: Final = frozenset({"LOAD_GLOBAL", "LOAD_NAME", "LOAD_FROM_DICT_OR_GLOBALS"})
#: Stores at the head of a class body that tell where it stands, not what it does.
_CLASS_NOISE: Final = frozenset({"__qualname__", "__doc__", "__firstlineno__", "__static_attributes__"})


def normalise(code: CodeType) -> Record:
    """Normal form and references of a code object; 60 µs for an ordinary function.

    Parameters
    ----------
    code : code object
        Of any function; made by ``exec`` or read from a .pyc alike.

    Returns
    -------
    Record
        Its digest depends on the Python minor version, and on nothing else about the process.
    """
    return _Normaliser(code).record()


class _Normaliser:
    """Works on one code object."""

    def __init__(self, code: CodeType, keep_names: bool = False) -> None:
        self._code = code
        self._found, self._jumps, self._at = scan(code)
        names = frozenset(code.co_names)
        self._keep_names = keep_names or not names.isdisjoint(_SEES_LOCALS)
        self._sees_docs = "__doc__" in code.co_consts or (not names.isdisjoint(_SEES_DOCS) and self._loads_docs())
        self._dynamic = not names.isdisjoint(_DYNAMIC)
        self._params = code.co_argcount + code.co_kwonlyargcount + bool(code.co_flags & 4) + bool(code.co_flags & 8)
        self._slots: dict[int, str] = {}
        self._cells = frozenset(code.co_cellvars + code.co_freevars)
        self._nested: dict[int, Record] = {}
        if not code.co_flags & _OPTIMIZED and "__qualname__" in code.co_names:
            self._drop_class_noise()

    def record(self) -> Record:
        chains = {".".join(chain) for chain in _chains(self._found)}
        imports = _imports(self._code, self._found)
        hints = find_hints(self._code, self._found)
        digest = values.hash_text("\n".join((self._header(), *self._emit())))
        docs, dynamic = self._sees_docs, self._dynamic
        for inner in self._nested.values():
            chains.update(inner.chains)
            imports += inner.imports
            hints += inner.sent
            docs, dynamic = docs or inner.sees_docs, dynamic or inner.dynamic
        sent = to_json(hints)
        return Record(digest, sorted(chains), imports, docs, dynamic, sent)

    def _header(self) -> str:
        code = self._code
        numbers = (code.co_argcount, code.co_posonlyargcount, code.co_kwonlyargcount, code.co_flags & _FLAGS)
        names = (*code.co_varnames[: self._params], "/", *code.co_freevars)
        return f"{DOMAIN}{numbers} {' '.join(names)}"

    def _loads_docs(self) -> bool:
        return any(one.arg in _SEES_DOCS for one in self._found if one.kind == NAME and one.name != "STORE_NAME")

    def _drop_class_noise(self) -> None:
        found = self._found
        for i in range(1, len(found)):
            store, load = found[i], found[i - 1]
            if store.name == "STORE_NAME" and store.arg in _CLASS_NOISE and load.kind == CONST:
                found[i - 1] = found[i] = Instruction(DROP, "", 0)

    # --- one token per instruction --------------------------------------------------------------------

    def _token(self, one: Instruction) -> str:
        kind, name, arg = one[0], one[1], one[2]
        if kind == LOCAL:
            known = self._slots.get(arg)
            return f"{name} {known if known is not None else self._name_slot(arg)}"
        if kind == CONST:
            return f"{name} {self._const(arg)}"
        return f"{name} {arg}"

    def _name_slot(self, slot: int) -> str:
        name = slot_names(self._code)[slot]
        if slot < self._params:
            known = f"p{slot}"
        else:
            known = f"={name}" if self._keep_names or name in self._cells else f"v{len(self._slots)}"
        self._slots[slot] = known
        return known

    def _const(self, index: int) -> str:
        const = self._code.co_consts[index]
        leaf = LEAVES.get(type(const))
        if leaf is not None:
            return leaf(const).hex()
        if not isinstance(const, CodeType):
            return values.encode(const).hex()
        inner = self._nested.get(index)
        if inner is None:
            inner = self._nested[index] = _Normaliser(const, self._keep_names).record()
        return f"code {inner.digest}"

    # --- order of emission ----------------------------------------------------------------------------

    def _emit(self) -> list[str]:
        if self._jumps or self._code.co_exceptiontable:
            return self._walk()
        tokens = []
        for one in self._found:
            kind = one[0]
            if kind == PLAIN or kind == NAME:  # half of all; the others are `_token`'s business
                tokens.append(f"{one[1]} {one[2]}")
            elif kind != DROP:
                tokens.append(self._token(one))
            if kind == END:
                break
        return tokens

    def _walk(self) -> list[str]:
        """Emit in the order of control flow, so that the compiler's layout of blocks does not show."""
        covering = self._covering()
        tokens: list[str] = []
        order: dict[int, int] = {}  # index -> number of emission
        labels: list[tuple[int, tuple[int, ...]]] = []  # (token, successors)
        queue, place = [0], 0
        while place < len(queue):
            self._chain(queue[place], queue, tokens, order, labels, covering)
            place += 1
        for token, targets in labels:
            tokens[token] += "".join(f" >{order[target]}" for target in targets)
        return tokens

    def _chain(
        self,
        at: int,
        queue: list[int],
        tokens: list[str],
        order: dict[int, int],
        labels: list[tuple[int, tuple[int, ...]]],
        covering: list[Any] | None,
    ) -> None:
        """Emit from one entry along the fall-through until the end or known ground."""
        found, handler, fresh = self._found, None, True
        while True:
            kind = found[at][0]
            if kind == DROP or kind == JUMP:
                at = self._skip(at)
                kind = found[at][0]
            if at in order:
                if not fresh:
                    labels.append((len(tokens), (at,)))
                    tokens.append("goto")
                return
            order[at] = len(order)
            one = found[at]
            if kind == JUMP:
                tokens.append("forever")
                return
            if covering is not None and (covering[at] != handler or fresh):
                handler = covering[at]
                self._enter(handler, queue, tokens, labels)
            fresh = False
            if kind == TEST or kind == BRANCH:
                at = self._split(one, at, queue, tokens, labels)
                continue
            tokens.append(self._token(one))
            if kind == END:
                return
            at += 1

    def _skip(self, at: int) -> int:
        """Step over what is not there and through unconditional jumps (an endless empty loop ends on itself)."""
        found, seen = self._found, set[int]()
        while found[at].kind == DROP or (found[at].kind == JUMP and at not in seen):
            seen.add(at)
            at = found[at].arg if found[at].kind == JUMP else at + 1
        return at

    def _enter(
        self, handler: Any, queue: list[int], tokens: list[str], labels: list[tuple[int, tuple[int, ...]]]
    ) -> None:
        if handler is None:
            tokens.append("try -")
            return
        target, depth, lasti = handler
        queue.append(target)
        labels.append((len(tokens), (target,)))
        tokens.append(f"try {depth} {lasti:d}")

    def _split(
        self,
        one: Instruction,
        at: int,
        queue: list[int],
        tokens: list[str],
        labels: list[tuple[int, tuple[int, ...]]],
    ) -> int:
        """Emit a conditional jump as (test, if true, if false); returns where to go on."""
        there, here = self._skip(one.arg), self._skip(at + 1)
        name = one.name
        if one.kind == TEST and name in ("FALSE", "NOT_NONE"):
            name, there, here = ("TRUE" if name == "FALSE" else "NONE"), here, there
        queue.append(there)
        labels.append((len(tokens), (there, here)))
        tokens.append(name)
        return here

    def _covering(self) -> list[Any] | None:
        """The handler of each instruction as (entry, depth, lasti); None if there are no handlers at all.

        Compared by value: a jump between two instructions splits a range of the table in two.
        """
        table = handlers(self._code, self._at)
        if not table:
            return None
        covering: list[Any] = [None] * (len(self._found) + 1)
        for start, end, target, depth, lasti in table:
            covering[start:end] = [(self._skip(target), depth, lasti)] * (end - start)
        return covering


# --- what the code names ----------------------------------------------------------------------------------


def _chains(found: list[Instruction]) -> list[list[str]]:
    loads = [i for i, one in enumerate(found) if one[1] in _GLOBAL_LOADS]
    return [[found[i].arg, *_attributes(found, i + 1)] for i in loads]


def _attributes(found: list[Instruction], start: int) -> list[str]:
    end = start
    while end < len(found) and found[end].name == "LOAD_ATTR":
        end += 1
    return [one.arg for one in found[start:end]]


def _imports(code: CodeType, found: list[Instruction]) -> list[Import]:
    return [_import(code, found, i) for i, one in enumerate(found) if one[1] == "IMPORT_NAME"]


def _import(code: CodeType, found: list[Instruction], at: int) -> Import:
    level, names = (code.co_consts[one.arg] if one.kind == CONST else None for one in found[at - 2 : at])
    level = level if isinstance(level, int) else 0
    module = found[at].arg
    if names:
        return Import(level, module, list(names), None)
    end = at + 1
    while "." in module and found[end].name in ("IMPORT_FROM", "SWAP", "POP_TOP"):  # import a.b as c
        end += 1
    bound_whole = end > at + 1 or "." not in module
    chains = _local_chains(found, end) if bound_whole else None
    return Import(level, module, None, chains)


def _local_chains(found: list[Instruction], store: int) -> list[list[str]] | None:
    """Attribute chains taken from the local that is stored here; None if it is used in any other way."""
    if found[store].name != "STORE_FAST":
        return None
    slot = found[store].arg
    uses = [i for i, one in enumerate(found) if one.kind == LOCAL and one.arg == slot and i != store]
    chains = [_attributes(found, i + 1) if found[i].name == "LOAD_FAST" else [] for i in uses]
    return chains if all(chains) else None
