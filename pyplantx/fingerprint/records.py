"""What is remembered about a code object, and the key under which it is found again.

Kept apart from ``normalform.py``, so that a process in which every function is known never loads the
machinery that reads bytecode.
"""

from __future__ import annotations

import json
import marshal
import re
import sys
from collections.abc import Iterable
from types import CodeType
from typing import Final

from pyplantx.basics.tuples import NamedTuple
from pyplantx.fingerprint.value import hash_bytes

#: Raised when the normal form changes: all code is other code then.
VERSION: Final = "1"

#: Raised when the record changes, or what it says: old records are then never found again.
_RECORDS: Final = b"5"

#: Begins everything that is hashed about code: instructions mean something for one minor version only.
DOMAIN: Final = f"pyplantx code {VERSION} {sys.implementation.cache_tag}\n"

#: What code may read about other code, beside what it does: docstrings, names of functions, their annotations, and
#: which classes derive from one.
DOCS, NAMES, ANNOTATIONS, DERIVED = 1, 2, 4, 8
READ_BY: Final = {
    **dict.fromkeys(("__doc__", "getdoc"), DOCS),
    **dict.fromkeys(("__name__", "__qualname__", "co_name", "co_qualname"), NAMES),
    **dict.fromkeys(("__annotations__", "get_type_hints", "get_annotations"), ANNOTATIONS),
    **dict.fromkeys(("signature", "from_callable", "getfullargspec"), ANNOTATIONS),
    "__subclasses__": DERIVED,
}
_FLAGS: Final = {"d": DOCS, "n": NAMES, "a": ANNOTATIONS, "s": DERIVED}
_find_read: Final = re.compile("__(?:doc|name|qualname|annotations|subclasses)__").findall


def read_by_text(text: str) -> int:
    """What is read with the help of a text, as in ``getattr(function, "__name__")``."""
    found = 0
    for name in _find_read(text):
        found |= READ_BY[name]
    return found


#: The pieces of a name that is sent, see ``hints.py``.
Pieces = list[list[str]]

#: What a pattern for names has where the code says nothing.
ANYTHING: Final = r"[\s\S]*"

_new = tuple.__new__  # see `core/trace.py`
_RAW_DOMAIN: Final = DOMAIN.encode() + b"raw " + _RECORDS + b"\0"
_quote: Final = json.encoder.encode_basestring_ascii
_encode: Final = json.JSONEncoder(separators=(",", ":"), check_circular=False).encode
_decode: Final = json.JSONDecoder().raw_decode


def _to_json(thing: object) -> str:
    """JSON without spaces; "" for nothing."""
    return _encode(thing) if thing else ""


def pieces_to_json(sent: list[Pieces]) -> str:
    """The same for the pieces of names, four times as fast."""
    names = ["],[".join([",".join(map(_quote, piece)) for piece in pieces]) for pieces in sent]
    return f"[[[{']],[['.join(names)}]]]" if names else ""


_DOTTED: Final = r"[^\W\d]\w*(?:\.[^\W\d]\w*)*"
_names_in: Final = re.compile(rf"(?<![\w.]){_DOTTED}").findall
_CONTAINERS: Final = (list, tuple, set, frozenset, dict)

#: The names in a text that pandas takes for variables: ``"x > @LIMIT"``.
variables_in: Final = re.compile(rf"(?<!\w)@{_DOTTED}").findall


def mentioned(things: Iterable[object]) -> set[str]:
    """The names, with the attributes taken from them, in some texts, and in those inside containers."""
    found, pending, seen = set[str](), list(things), set[int]()
    while pending:
        one = pending.pop()
        if isinstance(one, str):
            found.update(_names_in(one))
        elif isinstance(one, _CONTAINERS) and id(one) not in seen:
            seen.add(id(one))
            pending += [*one, *one.values()] if isinstance(one, dict) else one
    return found


def called(things: Iterable[object]) -> set[str]:
    """The texts that may say where something lies that is to be called: ``"models.net.Net"``."""
    texts = (item for one in things for item in (one if type(one) is tuple else (one,)))
    return {text for text in texts if type(text) is str and "." in text and re.fullmatch(_DOTTED, text)}


class Import(NamedTuple):
    """An import statement inside a function.

    Attributes
    ----------
    level : int
        Leading dots.
    module : str
        What is imported.
    names : list of str or None
        ``from module import names``, each with the attributes taken from it if it is used in no other way
        ("u.f"); None for ``import module``.
    chains : list of list of str or None
        For ``import module`` bound to a local: the attribute chains taken from it; None if it is used in
        other ways too, so that all of it counts.
    """

    level: int
    module: str
    names: list[str] | None
    chains: list[list[str]] | None


class Record(NamedTuple):
    """Everything worth remembering about a code object, nested code included.

    Attributes
    ----------
    digest : str
        Digest of the normal form.
    chains : list of str
        Global names with the attributes taken from them at once ("np.linalg.norm"), sorted. Texts beside one of
        `TARGETS`, which name what is to be called, stand behind a "=".
    imports : list of Import
    sees : int
        What is read about other code: `DOCS`, `NAMES`, `ANNOTATIONS`, `DERIVED`.
    dynamic : bool
        Whether code or modules are found by computed text.
    queries : bool
        Whether a text is handed to what looks up its names in the caller (``df.query("x > @LIMIT")``). Those in
        texts of the code itself are among `chains`, each behind a "@".
    hints : str
        Names that are sent, as JSON (`sent` reads it); "" if there are none.
    """

    digest: str
    chains: list[str]
    imports: list[Import]
    sees: int = 0
    dynamic: bool = False
    queries: bool = False
    hints: str = ""

    @property
    def is_closed(self) -> bool:
        """Whether the digest alone says it all: nothing is referred to."""
        return not (self.chains or self.imports or self.sees or self.dynamic or self.queries)

    @property
    def sent(self) -> list[Pieces]:
        """The pieces of the names that are sent, see ``hints.py``."""
        return _pieces(self.hints) if self.hints else []

    def to_text(self) -> str:
        """One line: digest, "." if the code is closed and "+" if not, then tab-separated fields."""
        if self.is_closed:
            return f"{self.digest}.\t{self.hints}"
        flags = "".join(letter for letter, bit in _FLAGS.items() if self.sees & bit) if self.sees else ""
        flags += "y" * self.dynamic + "q" * self.queries
        return f"{self.digest}+{' '.join(self.chains)}\t{flags}\t{_to_json(self.imports)}\t{self.hints}"

    @classmethod
    def from_text(cls, text: str) -> Record:
        """The inverse of `to_text`."""
        if text[32] == ".":
            return _new(cls, (text[:32], [], [], 0, False, False, text[34:]))
        chains, flags, imports, hints = text[33:].split("\t")
        brought = [Import(*one) for one in json.loads(imports)] if imports else []
        sees = sum(bit for letter, bit in _FLAGS.items() if letter in flags) if flags else 0
        return _new(cls, (text[:32], chains.split(), brought, sees, "y" in flags, "q" in flags, hints))


def is_closed(text: str) -> bool:
    """`Record.is_closed`, of a record's text."""
    return text[32] == "."


def plain_chains(text: str) -> list[str] | None:
    """`Record.chains`, of a record's text, if these are all that the code refers to; else None."""
    if text[32] == ".":
        return []
    chains, flags, imports, _ = text[33:].split("\t")
    return None if flags or imports else chains.split()


def sent_in(text: str) -> list[Pieces]:
    """`Record.sent`, of a record's text."""
    hints = text[34:] if text[32] == "." else text[text.rindex("\t") + 1 :]
    return _pieces(hints) if hints else []


def _pieces(hints: str) -> list[Pieces]:
    found: list[Pieces] = _decode(hints)[0]
    return found


def raw_digest(code: CodeType) -> str:
    """Key of a code object for looking up its record: same key, same normal form; 1 µs.

    It is cheaper, but splits more than the normal form. Line numbers and file names are left out, so that
    an edit above a function keeps its key. ``marshal`` is safe here, as it is not for whole code objects:
    version 2 of its format has neither the reference flags nor the interning flags that depend on the
    history of the process, it types and prefixes every value, and it sorts frozensets.
    """
    consts = code.co_consts
    if CodeType in map(type, consts):
        consts = tuple(raw_digest(c) if isinstance(c, CodeType) else c for c in consts)
    fields = (
        *(code.co_code, consts, code.co_names, code.co_varnames, code.co_freevars, code.co_cellvars),
        *(code.co_flags, code.co_argcount, code.co_posonlyargcount, code.co_kwonlyargcount),
        *(code.co_exceptiontable, consts is code.co_consts),
    )
    return hash_bytes(_RAW_DOMAIN + marshal.dumps(fields, 2))
