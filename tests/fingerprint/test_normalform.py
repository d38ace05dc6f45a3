"""What the normal form of a code object forgets, and what it keeps."""

from __future__ import annotations

import ast
import sys
import textwrap
import types
from typing import Any

import pytest

from pyplantx.fingerprint.normalform import normalise
from pyplantx.fingerprint.records import Record, raw_digest
from tests.fingerprint.harness import of_source

BASE = """
def helper(x): return x
class Other: pass
def f(items, limit=3, *, strict=True):
    '''Doc.'''
    total = 0
    for item in items:
        try:
            value = helper(item)
        except (ValueError, TypeError) as error:
            if strict and limit: raise
            value = 0
        else:
            total += value
        finally:
            total -= 1
        while value > limit:
            value //= 2
            if value == 7: continue
            if value == 9: break
    found = [q * 2 for q in items if q in {1, 2, 3}]
    with open(found) as handle:
        text = f"{total:>3} {found!r}"
    class Inner(Other):
        '''Inner doc.'''
        rate = 2
        def method(self):
            '''Method doc.'''
            return self.rate
    assert total, "none"
    return (text, total, 1000, handle, Inner)
"""


def edit(*pairs: tuple[str, str]) -> str:
    source = BASE
    for old, new in pairs:
        assert old in source
        source = source.replace(old, new)
    return source


def code_of(source: str, name: str = "f") -> types.CodeType:
    namespace: dict[str, Any] = {}
    exec(textwrap.dedent(source), namespace)
    return namespace[name].__code__  # type: ignore[no-any-return]


SAME = {
    "comments": [("    total = 0\n", "    # sum\n    total = 0  # zero\n\n\n")],
    "moved": [("def helper", "\n\n\n\ndef helper")],
    "docstring": [("'''Doc.'''", "'''Other doc.\n\n    More.\n    '''")],
    "no docstring": [("    '''Doc.'''\n", "")],
    "docstring of a nested class": [("'''Inner doc.'''", "'''Better.'''")],
    "docstring of a method": [("            '''Method doc.'''\n", "")],
    "local annotation": [("    total = 0\n", "    total: int = 0\n")],
    "parameter annotations": [
        ("(items, limit=3, *, strict=True)", "(items: list, limit: int = 3, *, strict=True) -> int")
    ],
    "local renamed": [("total", "amount")],
    "loop variable renamed": [("for item in items", "for one in items"), ("helper(item)", "helper(one)")],
    "quotes": [('"none"', "'none'")],
    "number spelling": [("1000", "1_000")],
    "set order": [("{1, 2, 3}", "{3, 2, 1}")],
    "wrapped call": [("helper(item)", "helper(\n                item\n            )")],
    "wrapped condition": [
        (
            "if strict and limit: raise",
            "if (\n                strict\n                and limit\n            ):\n                raise",
        )
    ],
    "pass and bare string": [("    total = 0\n", "    total = 0\n    pass\n    'note'\n")],
    "dead branch": [("    total = 0\n", "    total = 0\n    if 0:\n        total = 9\n")],
    "body on its own line": [("if value == 7: continue", "if value == 7:\n                continue")],
    "parentheses": [("return (text, total, 1000, handle, Inner)", "return text, total, 1000, handle, Inner")],
}

CHANGED = {
    "constant": [("1000", "1001")],
    "type of a constant": [("1000", "1000.0")],
    "bool for int": [("total = 0\n", "total = False\n")],
    "sign of zero": [("total = 0\n", "total = 0.0\n")],
    "default": [("limit=3", "limit=4")],
    "keyword default": [("strict=True", "strict=False")],
    "parameter renamed": [("limit", "bound")],
    "operator": [("value //= 2", "value /= 2")],
    "comparison": [("value > limit", "value >= limit")],
    "exception": [("(ValueError, TypeError)", "(ValueError, KeyError)")],
    "order of exceptions": [("(ValueError, TypeError)", "(TypeError, ValueError)")],
    "else to try": [
        ("        else:\n            total += value\n", ""),
        ("helper(item)\n", "helper(item)\n            total += value\n"),
    ],
    "no finally": [("        finally:\n            total -= 1\n", "        total -= 1\n")],
    "break for continue": [("continue", "break")],
    "set content": [("{1, 2, 3}", "{1, 2, 4}")],
    "list for set": [("{1, 2, 3}", "[1, 2, 3]")],
    "comprehension": [("q * 2", "q * 3")],
    "generator for list": [("[q * 2 for q in items if q in {1, 2, 3}]", "(q * 2 for q in items if q in {1, 2, 3})")],
    "format": [(":>3", ":>4")],
    "conversion": [("!r", "!s")],
    "class attribute": [("rate = 2", "rate = 3")],
    "method": [("return self.rate", "return -self.rate")],
    "base class": [("Inner(Other)", "Inner(object)")],
    "assert": [("assert total", "assert not total")],
    "swapped branches": [("if value == 7", "if not value == 7")],
    "or": [("strict and limit", "strict or limit")],
    "attribute": [("self.rate", "self.pace")],
    "returns nothing": [("    return (text, total, 1000, handle, Inner)", "    (text, total, 1000, handle, Inner)")],
    "generator": [("    total = 0\n", "    total = yield\n")],
    "variadic": [("limit=3, *,", "*limit,")],
    "positional only": [("(items, limit=3", "(items, /, limit=3")],
}


@pytest.mark.parametrize("name", SAME)
def test_forgotten(name: str) -> None:
    assert of_source(edit(*SAME[name])) == of_source(BASE)


@pytest.mark.parametrize("name", CHANGED)
def test_kept(name: str) -> None:
    assert of_source(edit(*CHANGED[name])) != of_source(BASE)


def test_all_changes_differ_from_each_other() -> None:
    digests = {of_source(edit(*pairs)) for pairs in CHANGED.values()}
    assert len(digests) == len(CHANGED)


def test_future_annotations_do_not_count() -> None:
    assert of_source("from __future__ import annotations\n" + BASE) == of_source(BASE)


def test_the_function_name_does_not_count() -> None:
    assert of_source("def f(x): return x + 1") == of_source("def g(x): return x + 1", "g")


def test_names_of_locals_count_where_the_code_can_see_them() -> None:
    one, other = "def f(): a = 1; return locals()", "def f(): b = 1; return locals()"
    assert of_source(one) != of_source(other)


def test_method_calls_look_the_same_with_and_without_an_import() -> None:
    """With ``import numpy`` in the file, the compiler chooses other instructions for ``numpy.sum(x)``."""
    plain = code_of("def f(x): return math.floor(x)")
    compiled = compile("import math\ndef f(x): return math.floor(x)", "x", "exec")
    inside = next(const for const in compiled.co_consts if isinstance(const, types.CodeType))
    assert normalise(plain) == normalise(inside)


def test_endless_loop() -> None:
    assert of_source("def f():\n    while True: pass") == of_source("def f():\n    while 1:\n        pass")


def test_long_jumps_and_many_constants() -> None:
    body = "\n".join(f"    if x == {n + 1000}: x += {n + 2000}" for n in range(400))
    wrapped = body.replace(": x", ":\n        x")
    source = "def f(x):\n{}\n    return x"
    assert of_source(source.format(body)) == of_source(source.format(wrapped))
    assert of_source(source.format(body)) != of_source(source.format(body.replace("x == 1399", "x == 1398")))


# --- layout: re-formatting a large body of code ----------------------------------------------------------------


def functions(code: types.CodeType) -> list[types.CodeType]:
    inner = [const for const in code.co_consts if isinstance(const, types.CodeType)]
    return [one for const in inner for one in (const, *functions(const))]


@pytest.mark.parametrize(
    "name", ["argparse", "ast", "dataclasses", "functools", "heapq", "json.decoder", "shutil", "tarfile"]
)
def test_layout_of_the_standard_library_does_not_count(name: str) -> None:
    """``ast.unparse`` re-wraps everything; docstrings, comments and lines are other ones afterwards."""
    module = __import__(name, fromlist=["x"])
    with open(module.__file__, encoding="utf-8") as stream:
        tree = ast.parse(stream.read())
    with open(module.__file__, encoding="utf-8") as stream:
        original = functions(compile(stream.read(), "a.py", "exec"))
    laid_out = functions(compile(ast.unparse(tree), "b.py", "exec"))
    changed = [
        one.co_qualname
        for one, other in zip(original, laid_out, strict=True)
        if normalise(one).digest != normalise(other).digest
    ]
    assert len(original) > 10
    assert changed == []


def living(tree: ast.AST) -> list[ast.AST]:
    """The nodes in function bodies that the compiler does not throw away (``if 0 and ...``)."""
    bodies = [stmt for one in ast.walk(tree) if isinstance(one, ast.FunctionDef) for stmt in one.body]
    dead = {
        part
        for one in ast.walk(tree)
        if isinstance(one, ast.If) and isinstance(one.test, ast.BoolOp) and isinstance(one.test.values[0], ast.Constant)
        for part in ast.walk(one)
    }
    nodes = dict.fromkeys(node for stmt in bodies for node in ast.walk(stmt))
    return [node for node in nodes if node not in dead]


def mutants(tree: ast.Module) -> list[tuple[ast.AST, str, Any, Any]]:
    found: list[tuple[ast.AST, str, Any, Any]] = []
    for node in living(tree):
        if isinstance(node, ast.Compare) and isinstance(node.ops[0], ast.Eq):
            found.append((node, "ops", node.ops, [ast.NotEq(), *node.ops[1:]]))
        elif isinstance(node, ast.BinOp) and isinstance(node.op, ast.Add):
            found.append((node, "op", node.op, ast.Sub()))
        elif isinstance(node, ast.If):
            found.append((node, "test", node.test, ast.UnaryOp(ast.Not(), node.test)))
        elif isinstance(node, ast.Constant) and type(node.value) is int:
            found.append((node, "value", node.value, node.value + 1))
        elif isinstance(node, ast.Attribute):
            found.append((node, "attr", node.attr, node.attr + "_"))
    return found


def test_mutants_are_seen() -> None:
    """Small changes of behaviour in real code: the raw key and the normal form both see each of them."""
    import textwrap as victim

    with open(str(victim.__file__), encoding="utf-8") as stream:
        tree = ast.parse(stream.read())
    bodies = ast.Module([node for node in tree.body if isinstance(node, ast.FunctionDef | ast.ClassDef)], [])

    def digests() -> list[tuple[str, str]]:
        code = compile(ast.fix_missing_locations(bodies), "x", "exec")
        return [(normalise(one).digest, raw_digest(one)) for one in functions(code)]

    before, unseen = digests(), []
    for node, field, old, new in mutants(bodies):
        setattr(node, field, new)
        changed = [(a[0] != b[0], a[1] != b[1]) for a, b in zip(before, digests())]
        assert (True, False) not in changed  # the key never merges what the normal form tells apart
        unseen += [] if any(norm for norm, _ in changed) else [ast.unparse(node)]
        setattr(node, field, old)
    assert len(mutants(bodies)) > 50
    assert unseen == []


# --- raw digests and records -------------------------------------------------------------------------------


def test_the_raw_digest_is_stable_where_it_should_be() -> None:
    one, moved = code_of(BASE), code_of("\n\n\n" + BASE)
    if sys.version_info < (3, 13):  # from 3.13 on a class body holds its first line
        assert raw_digest(one) == raw_digest(moved)
    assert raw_digest(one) == raw_digest(code_of(BASE))
    held = [one.co_consts, one.co_names]  # more references to the parts
    assert raw_digest(one) == raw_digest(one.replace(co_filename="elsewhere.py")), held


@pytest.mark.parametrize("name", CHANGED)
def test_the_raw_digest_never_merges_what_differs(name: str) -> None:
    one, other = code_of(BASE), code_of(edit(*CHANGED[name]))
    assert raw_digest(one) != raw_digest(other) or normalise(one) == normalise(other)


def test_constants_that_no_compiler_made() -> None:
    strange = code_of("def f(): return 5").replace(co_consts=(None, object()))
    with pytest.raises(ValueError, match="unmarshallable"):
        raw_digest(strange)


@pytest.mark.parametrize(
    "source",
    [
        BASE,
        "def f(pipe): pass",
        "def f(pipe): pipe.send('a\\tb\\n\\u2028', 1)",
        "def f(pipe): import a.b as c; from .d import e; c.g.h(); import k; k(k); pipe.send(f'x{e}', eval('1'))",
        "def f(): return f.__doc__",
    ],
)
def test_records_survive_as_text(source: str) -> None:
    record = normalise(code_of(source))
    assert Record.from_text(record.to_text()) == record
    assert "\n" not in record.to_text()


def test_what_a_record_says() -> None:
    record = normalise(code_of("def f(x): import a.b as c; c.d(); return np.linalg.norm(K) + (lambda: M)() + x.np"))
    assert record.chains == ["K", "M", "np.linalg.norm"]
    assert [tuple(one) for one in record.imports] == [(0, "a.b", None, [["d"]])]
    assert not record.is_closed
    assert normalise(code_of("def f(x): return x.y + 1")).is_closed


def test_specialised_and_traced_code_is_the_same() -> None:
    namespace: dict[str, Any] = {}
    exec("def f(n):\n    t = 0\n    for i in range(n): t += i\n    return t", namespace)
    function = namespace["f"]
    before = normalise(function.__code__), raw_digest(function.__code__)
    for _ in range(50):
        function(100)
    sys.settrace(lambda *_: None)
    try:
        function(100)
        traced = normalise(function.__code__), raw_digest(function.__code__)
    finally:
        sys.settrace(None)
    assert before == traced
