"""Which subreactors count for a reactor, however it comes by them: edits of small programs, session by session."""

from __future__ import annotations

import copy
import inspect
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from pyplantx import SubreactorFunc
from pyplantx.errors import BadRequest
from pyplantx.fingerprint.code import Fingerprinter
from pyplantx.testing import forget_reactors
from tests.fingerprint.harness import program

HEAD = """\
import functools, types
from pyplantx import ReactorFunc, SubreactorFunc
{before}
@SubreactorFunc
def one(pipe): return (yield pipe.receive('x')) + 1
@SubreactorFunc
def two(pipe): return (yield pipe.receive('x')) + 100
@SubreactorFunc
def three(pipe): return (yield pipe.receive('x')) + 1000
"""
TAIL = """
@ReactorFunc
def a(pipe): pipe.send('x', 5)
"""
OTHER = """\
from pyplantx import SubreactorFunc
@SubreactorFunc
def one(pipe): return (yield pipe.receive('x')) + 200
"""
Session = Callable[..., tuple[Any, list[str]]]


@pytest.fixture
def session(open_plant: Any, tmp_path: Path) -> Session:
    """A session of a program: what it makes, and which reactors ran."""
    number = 0

    def run(
        source: str, before: str = "", config: Callable[[Any], Any] | None = None, executor: Any = None, **files: str
    ) -> Any:
        nonlocal number
        number += 1
        forget_reactors()
        files = {"other.py": OTHER, **{f"{name}.py": text for name, text in files.items()}}
        with program(tmp_path / str(number), {**files, "app.py": HEAD.format(before=before) + source + TAIL}) as app:
            with open_plant(config=config(app) if config is not None else None, executor=executor) as plant:
                value = plant.produce("out")
            return value, plant.log.take()

    return run


def reactor(body: str, setting: str = "") -> str:
    """A program: what is set up, and the body of the reactor."""
    return f"{setting}\n@ReactorFunc\ndef b(pipe):\n    {body}\n    pipe.send('out', v)\n"


EXCHANGED = {
    "dict": ("v = yield from S['p'](pipe)", "S = {'p': one}"),
    "list": ("v = yield from S[0](pipe)", "S = [one, two, three][0:]\nS[0] = one"),
    "namespace": ("v = yield from S.p(pipe)", "S = types.SimpleNamespace(p=one)"),
    "partial": ("v = yield from S(pipe)", "S = functools.partial(one)"),
    "default": ("v = yield from h(pipe)", "def h(pipe, s=one): return s(pipe)"),
    "keyword": ("v = yield from h(pipe)", "def h(pipe, *, s=one): return s(pipe)"),
    "attribute": ("v = yield from h.s(pipe)", "def h(): pass\nh.s = one"),
    "static": ("v = yield from W.s(pipe)", "class W: s = staticmethod(one)"),
    "class attribute": ("v = yield from W.s(pipe)", "class W: s = one"),
    "instance": (
        "v = yield from w.go(pipe)",
        "class W:\n    def __init__(self, s): self.s = s\n    def go(self, pipe): return self.s(pipe)\nw = W(one)",
    ),
    "method": (
        "v = yield from W().go(pipe)",
        "class W:\n    def go(self, pipe): return step(pipe)\nstep = one",
    ),
    "name": ("v = yield from step(pipe)", "step = one"),
    "second name": ("v = yield from step(pipe)\n    if v < 0: yield from one(pipe)", "step = (one)"),
    "both called": ("v = (yield from one(pipe)) + (yield from step(pipe))", "step = (one)"),
    "argument": ("v = yield from h(pipe, step)", "def h(pipe, s): return s(pipe)\nstep = one"),
    "argument of a subreactor": (
        "v = yield from h(pipe, step)",
        "@SubreactorFunc\ndef h(pipe, s): return (yield from s(pipe))\nstep = one",
    ),
    "answer of a subreactor": (
        "s = yield from h(pipe)\n    v = yield from s(pipe)",
        "@SubreactorFunc\ndef h(pipe): return step\nstep = one",
    ),
    "helper in a list": ("v = yield from H[0](pipe)", "def h(pipe): return step(pipe)\nH = [h]\nstep = one"),
    "wrapped": (
        "v = yield from w(pipe)",
        "def deco(f):\n    @functools.wraps(f.function)\n    def w(pipe): return f(pipe)\n    return w\nw = deco(one)",
    ),
    "factory": (
        "v = yield from pick()(pipe)",
        "def pick():\n    @SubreactorFunc\n    def sub(pipe): return (yield from step(pipe))\n    return sub\n"
        "step = one",
    ),
}


@pytest.mark.parametrize("name", EXCHANGED)
def test_exchanging_a_subreactor_is_an_edit(name: str, session: Session) -> None:
    body, setting = EXCHANGED[name]
    at = setting.rindex("one")
    exchanged = f"{setting[:at]}two{setting[at + 3 :]}"
    assert session(reactor(body, setting)) == (12 if name == "both called" else 6, ["b", "a"])
    assert session(reactor(body, setting))[1] == []
    expected = 111 if name == "both called" else 105
    assert session(reactor(body, exchanged)) == (expected, ["b"])
    assert session(reactor(body, exchanged), "PLUS = 0")[1] == []
    edited = exchanged + "\ntwo.function.__code__ = three.function.__code__"
    value, ran = session(reactor(body, edited))
    assert ran == ["b"] and value == expected + 900


@pytest.mark.parametrize("name", EXCHANGED)
def test_exchanging_the_module_it_comes_from_is_an_edit(name: str, session: Session) -> None:
    body, setting = EXCHANGED[name]
    at = setting.rindex("one")
    setting = f"{setting[:at]}chosen{setting[at + 3 :]}"
    both = name == "both called"
    assert session(reactor(body, f"chosen = one\n{setting}")) == (12 if both else 6, ["b", "a"])
    source = reactor(body, f"from other import one as chosen\n{setting}")
    assert session(source) == (211 if both else 205, ["b"])
    assert session(source, other=OTHER.replace("200", "300")) == (311 if both else 305, ["b"])


MOVED = {
    "name": ("v = yield from one(pipe)", ""),
    "attribute": ("v = yield from W.s(pipe)", "class W: s = staticmethod(one)"),
    "dict": ("v = yield from S['p'](pipe)", "S = {'p': one}"),
    "method": ("v = yield from W().go(pipe)", "class W:\n    def go(self, pipe): return one(pipe)"),
}


@pytest.mark.parametrize("name", MOVED)
def test_moving_a_subreactor_is_no_edit(name: str, session: Session) -> None:
    body, setting = MOVED[name]
    assert session(reactor(body, setting)) == (6, ["b", "a"])
    moved = OTHER.replace("200", "1")
    assert session(reactor(body, f"from other import one\n{setting}"), other=moved) == (6, [])
    edited = OTHER.replace("200", "2")
    assert session(reactor(body, f"from other import one\n{setting}"), other=edited) == (7, ["b"])


NOT_CALLED = {
    "name": ("v = yield from one(pipe)\n    if v < 0: yield from two(pipe)", ""),
    "class attribute": ("v = yield from W.s(pipe)", "class W: s = one; t = two"),
    "static": ("v = yield from W.s(pipe)", "class W: s = staticmethod(one); t = staticmethod(two)"),
    "helper": ("v = yield from h(pipe, True)", "def h(pipe, first): return one(pipe) if first else two(pipe)"),
}


@pytest.mark.parametrize("name", NOT_CALLED)
def test_a_named_subreactor_that_is_not_called_costs_nothing(name: str, session: Session) -> None:
    body, setting = NOT_CALLED[name]
    assert session(reactor(body, setting)) == (6, ["b", "a"])
    assert session(reactor(body, f"{setting}\ntwo.function.__code__ = three.function.__code__")) == (6, [])


@pytest.mark.parametrize(
    ("setting", "edited"),
    [
        ("S = {one: 1, two: 2}", "S = {two: 1, one: 2}"),
        ("S = [(one, 1), (two, 2)]", "S = [(two, 1), (one, 2)]"),
        ("S = {'a': one, 'b': two}", "S = {'b': one, 'a': two}"),
    ],
)
def test_which_one_lies_where_counts_uncalled(setting: str, edited: str, session: Session) -> None:
    body = "n = dict(S)\n    v = n['a'] is one if 'a' in n else n[one]\n    yield from three(pipe)"
    first, ran = session(reactor(body, setting))
    assert ran == ["b", "a"]
    second, ran = session(reactor(body, edited))
    assert ran == ["b"] and second != first


MADE = {
    "factory": (
        "v = yield from pick(2)(pipe)",
        "def pick(n):\n    @SubreactorFunc\n    def sub(pipe): return (yield pipe.receive('x')) + n\n    return sub",
    ),
    "nested": (
        "@SubreactorFunc\n    def sub(pipe): return (yield pipe.receive('x')) + 2\n    v = yield from sub(pipe)",
        "",
    ),
    "constant of its own": (
        "@SubreactorFunc\n    def sub(pipe): return (yield pipe.receive('x')) + K\n    v = yield from sub(pipe)",
        "K = 2",
    ),
    "made by a subreactor": (
        "s = yield from pick(pipe, 2)\n    v = yield from s(pipe)",
        "@SubreactorFunc\ndef pick(pipe, n):\n    @SubreactorFunc\n    def sub(pipe):\n"
        "        return (yield pipe.receive('x')) + n\n    return sub",
    ),
    "made by a method": (
        "v = yield from W(2).make()(pipe)",
        "class W:\n    def __init__(self, n): self.n = n\n    def make(self):\n        @SubreactorFunc\n"
        "        def sub(pipe): return (yield pipe.receive('x')) + self.n\n        return sub",
    ),
    "made in advance": (
        "v = yield from S[2](pipe)",
        "def pick(n):\n    @SubreactorFunc\n    def sub(pipe): return (yield pipe.receive('x')) + n\n    return sub\n"
        "S = {n: pick(n) for n in (2, 3)}",
    ),
    "closed over": (
        "v = yield from pick(two_more)(pipe)",
        "def pick(f):\n    @SubreactorFunc\n    def sub(pipe): return f((yield pipe.receive('x')))\n    return sub\n"
        "def two_more(x): return x + 2",
    ),
    "decorated": (
        "v = yield from pick(2)(pipe)",
        "def deco(f):\n    @functools.wraps(f)\n    def w(pipe): return (yield from f(pipe))\n    return w\n"
        "def pick(n):\n    @SubreactorFunc\n    @deco\n    def sub(pipe): return (yield pipe.receive('x')) + n\n"
        "    return sub",
    ),
    "named inside": (
        "v = yield from pick()(pipe)",
        "@SubreactorFunc\ndef low(pipe): return (yield pipe.receive('x')) + 2\n"
        "def pick():\n    @SubreactorFunc\n    def sub(pipe): return (yield from low(pipe))\n    return sub",
    ),
}


@pytest.mark.parametrize("name", MADE)
def test_one_that_no_name_leads_to_is_recalled_until_it_is_edited(name: str, session: Session) -> None:
    body, setting = MADE[name]
    assert session(reactor(body, setting)) == (7, ["b", "a"])
    assert session(reactor(body, setting), "# moved by a line\n") == (7, [])
    edited = reactor(body, setting).replace("2", "9")
    assert session(edited) == (14, ["b"])
    assert session(edited)[1] == []


def test_one_that_was_made_before_the_run_and_found_by_computed_text_is_no_part_of_it(session: Session) -> None:
    """The code that made it counts for the reactor, and what it was made with does not."""
    make = (
        "def pick(n):\n    @SubreactorFunc\n    def sub(pipe): return (yield pipe.receive('x')) + n\n    return sub\n"
    )
    source = reactor(
        "import importlib\n    v = yield from getattr(importlib.import_module('app'), 'S')(pipe)\n    pick"
    )
    assert session(make + source + "S = pick(2)") == (7, ["b", "a"])
    assert session(make + source + "S = pick(3)") == (8, ["b"])


def test_one_that_a_module_defines_when_the_run_imports_it_by_computed_text(session: Session) -> None:
    source = reactor("import importlib\n    v = yield from importlib.import_module('other').one(pipe)")
    assert session(source) == (205, ["b", "a"])
    assert session(source) == (205, [])
    assert session(source, other=OTHER.replace("200", "300")) == (305, ["b"])


def test_what_a_config_names_counts_at_once(session: Session) -> None:
    def config(app: Any) -> Any:
        return {"step": app.h}

    source = "def h(pipe): return step(pipe)\nstep = one\n" + reactor("v = yield from config['step'](pipe)")
    source = source.replace("b(pipe)", "b(pipe, config)")
    assert session(source, config=config) == (6, ["b", "a"])
    assert session(source, config=config)[1] == []
    assert session(source.replace("step = one", "step = two"), config=config) == (105, ["b"])


def test_what_the_class_of_an_ingredient_names_counts_at_once(session: Session) -> None:
    source = (
        "class W:\n    def go(self, pipe): return step(pipe)\nstep = one\n"
        "@ReactorFunc\ndef c(pipe): pipe.send('w', W())\n"
        + reactor("w = yield pipe.receive('w')\n    v = yield from w.go(pipe)")
    )
    assert session(source) == (6, ["b", "c", "a"])
    assert session(source) == (6, [])
    assert session(source.replace("step = one", "step = two"))[0] == 105


PLUS = """
import inspect, threading
import numpy as np
from concurrent.futures import ThreadPoolExecutor
from pyplantx import Ingredient
@SubreactorFunc
def plus(pipe, x=5): return x + 1
def drive(call):
    try: next(iter(call))
    except StopIteration as end: return end.value
def part(x): return drive(plus(None, x))
"""
IN_A_THREAD = "with ThreadPoolExecutor(1) as pool: v = pool.submit({}).result()"
MAPPED = (
    "out = np.zeros(4)\n    pipe.map_blocks({}, np.full(4, 5.0), out=out, workers=2, memory='200B')\n"
    "    v = int(out[3])"
)
SENT = (
    "f = yield pipe.receive('f')\n    v = yield from {}(pipe)",
    "class W:\n    def __init__(self, f): self.f = f\n"
    "@ReactorFunc\ndef c(pipe): pipe.send('f', {}, Ingredient.Type.object)",
)
#: Ways to the code of a subreactor that are no call in the reactor's own thread.
WAYS: dict[str, tuple[str, str, Any]] = {
    "function": ("v = plus.function(pipe)", "", None),
    "wrapped": ("v = plus.__wrapped__(pipe)", "", None),
    "unwrap": ("v = inspect.unwrap(plus)(pipe)", "", None),
    "computed": ("v = getattr(plus, 'func' + 'tion')(pipe)", "", None),
    "function of a method": ("v = W.f.function(pipe)", "class W: f = plus", None),
    "in a subreactor": ("v = yield from h(pipe)", "@SubreactorFunc\ndef h(pipe): return plus.function(pipe)", None),
    "thread": (IN_A_THREAD.format("part, 5"), "", None),
    "call of another thread": (IN_A_THREAD.format("drive, plus(pipe)"), "", None),
    "function in a thread": (IN_A_THREAD.format("lambda: plus.function(pipe)"), "", None),
    "call made at import": ("v = drive(CALLS.pop())", "CALLS = [plus(None)]", None),
    "map in threads": (MAPPED.format("lambda x: part(x)"), "", "threads"),
    "map in processes": (MAPPED.format("lambda x: part(x)"), "", "processes"),
    "map in processes, by name": (MAPPED.format("part"), "", "processes"),
    "sent in a dict": (SENT[0].format("f['g']"), SENT[1].format("{'g': plus}"), None),
    "sent in an instance": (SENT[0].format("f.f"), SENT[1].format("W(plus)"), None),
    "sent as it is": (SENT[0].format("f"), SENT[1].format("plus"), None),
    "function of a sent one": (
        "f = yield pipe.receive('f')\n    v = f['g'].function(pipe)",
        SENT[1].format("{'g': plus}"),
        None,
    ),
    "while an ingredient is made again": (
        "f = yield pipe.receive('f')\n    v = f.v",
        SENT[1].format("W(1)").replace("class W:", "class W:\n    def __setstate__(self, state): self.v = part(5)"),
        None,
    ),
    "in a thread of one that waits": (
        "found = []\n    def work(): GO.wait(60); found.append(part(5)); DONE.set()\n"
        "    threading.Thread(target=work).start(); BEGUN.set()\n    yield pipe.receive('y')\n"
        "    DONE.wait(60)\n    v = found[0]",
        "BEGUN, GO, DONE = threading.Event(), threading.Event(), threading.Event()\n"
        "@ReactorFunc\ndef c(pipe):\n    GO.set()\n    if BEGUN.is_set(): DONE.wait(60)\n    pipe.send('y', 1)",
        None,
    ),
}


@pytest.mark.parametrize("way", WAYS)
def test_an_edit_is_seen_whichever_way_leads_to_the_code(way: str, session: Session) -> None:
    body, setting, executor = WAYS[way]
    source = PLUS + reactor(body, setting)
    assert session(source, executor=executor)[0] == 6
    assert session(source, executor=executor) == (6, [])
    value, ran = session(source.replace("x + 1", "x + 200"), executor=executor)
    assert value == 205 and "b" in ran
    assert session(source.replace("x + 1", "x + 200"), executor=executor) == (205, [])


def test_one_that_a_sent_one_names_counts_where_it_is_called(session: Session) -> None:
    setting = "@SubreactorFunc\ndef h(pipe): return (yield from plus(pipe))\n" + SENT[1].format("{'g': h}")
    source = PLUS + reactor(SENT[0].format("f['g']"), setting)
    assert session(source) == (6, ["b", "c"])
    assert session(source) == (6, [])
    assert session(source.replace("x + 1", "x + 200"))[0] == 205


@pytest.mark.parametrize("how", ["fork", "spawn"])
def test_where_no_plant_can_see_a_call_it_is_an_error(how: str, session: Session) -> None:
    body = (
        "import multiprocessing\n    from concurrent.futures import ProcessPoolExecutor\n"
        f"    context = multiprocessing.get_context('{how}')\n"
        "    with ProcessPoolExecutor(1, context) as pool: v = pool.submit(part, 5).result()"
    )
    with pytest.raises(BadRequest, match="the subreactor plus is called in a process that was started by another one"):
        session(PLUS + reactor(body))


def test_without_a_plant_it_is_a_generator_like_any_other() -> None:
    @SubreactorFunc
    def plus(pipe: Any, x: int) -> int:
        return x + 1

    with pytest.raises(StopIteration) as end:
        next(iter(plus(None, 5)))
    assert end.value.value == 6 and plus.function(None, 5) == 6
    assert copy.copy(plus) is plus and copy.deepcopy([plus])[0] is plus
    assert list(inspect.signature(plus).parameters) == ["pipe", "x"]
    assert inspect.signature(type(plus))


METHODS = """\
class Base:
    @SubreactorFunc
    def low(self, pipe): return (yield pipe.receive('x')) + self.n
    @SubreactorFunc
    def unused(self, pipe): return (yield pipe.receive('x')) + 3
class W(Base):
    def __init__(self, n): self.n = n
    @SubreactorFunc
    def high(self, pipe): return (yield from self.low(pipe)) * 2
    @classmethod
    @SubreactorFunc
    def of_class(cls, pipe): return (yield pipe.receive('x')) + cls.k
    @SubreactorFunc
    @staticmethod
    def static(pipe): return (yield pipe.receive('x')) + 4
    k = 5
w = W(1)
"""


@pytest.mark.parametrize(
    ("body", "edits"),
    [
        ("v = yield from w.high(pipe)", {"* 2": "* 5", "+ self.n": "+ self.n + 1", "W(1)": "W(9)"}),
        ("v = yield from W(2).high(pipe)", {"* 2": "* 5", "+ self.n": "+ self.n + 1"}),
        ("v = yield from W.low(w, pipe)", {"+ self.n": "+ self.n + 1", "W(1)": "W(9)"}),
        ("v = yield from super(W, w).low(pipe)", {"+ self.n": "+ self.n + 1"}),
        ("m = w.high\n    v = yield from m(pipe)", {"* 2": "* 5"}),
        ("v = yield from METHOD(pipe)", {"* 2": "* 5", "+ self.n": "+ self.n + 1", "W(1)": "W(9)"}),
        ("v = yield from METHODS[0](pipe)", {"* 2": "* 5", "+ self.n": "+ self.n + 1", "W(1)": "W(9)"}),
        ("v = yield from w.of_class(pipe)", {"k = 5": "k = 6", "+ cls.k": "- cls.k"}),
        ("v = yield from w.static(pipe)", {"+ 4": "+ 5"}),
        ("v = yield from W.static(pipe)", {"+ 4": "+ 5"}),
    ],
)
def test_subreactors_may_be_methods(body: str, edits: dict[str, str], session: Session) -> None:
    source = reactor(body, METHODS + "METHOD = w.high\nMETHODS = [w.high]")
    value, ran = session(source)
    assert ran == ["b", "a"]
    assert session(source, "# moved by a line") == (value, [])
    assert session(source.replace("+ 3", "+ 4")) == (value, [])
    for before, after in edits.items():
        edited, ran = session(source.replace(before, after))
        assert edited != value and ran == ["b"], before


def test_the_code_of_each_is_gone_through_once(session: Session, monkeypatch: pytest.MonkeyPatch) -> None:
    """Not once for each that is called after it: a reactor may call hundreds, or one of them thousands of times."""
    looked: list[Any] = []
    named_directly = Fingerprinter.named_directly
    monkeypatch.setattr(
        Fingerprinter, "named_directly", lambda self, caller: looked.append(caller) or named_directly(self, caller)
    )
    body = "v = 0\n    for _ in range(5):\n" + "".join(
        f"        v += yield from {name}(pipe)\n" for name in ("one", "two", "three")
    )
    assert session(reactor(body))[0] == 5 * (6 + 105 + 1005)
    assert len(looked) == 4 == len(set(map(id, looked)))


@pytest.mark.parametrize(("define", "wait"), [("def", "yield from"), ("async def", "await")])
def test_there_is_one_frame_between_a_subreactor_and_its_caller(define: str, wait: str, session: Session) -> None:
    """Answers pass through all of them, and Python allows a thousand."""
    source = f"""
def depth():
    frame, count = sys._getframe(), 0
    while frame := frame.f_back: count += 1
    return count
@SubreactorFunc
{define} down(pipe, left):
    if left: return ({wait} down(pipe, left - 1))
    x = {wait} pipe.receive('x')
    return depth()
@ReactorFunc
{define} b(pipe):
    shallow = {wait} down(pipe, 0)
    deep = {wait} down(pipe, 20)
    pipe.send('out', [shallow, deep])
"""
    shallow, deep = session(source, before="import sys")[0]
    assert deep - shallow == 2 * 20


PARTS = """\
K = 1
def double(v): return 2 * v
def half(v): return double(v) - v
@SubreactorFunc
def inner(pipe): return (yield pipe.receive('x'))
@SubreactorFunc
def sub(pipe): return half((yield from inner(pipe))) + K
"""


@pytest.mark.parametrize(
    ("edit", "told"),
    [
        (("K = 1", "K = 2"), "subreactor sub changed (constant app.K changed)"),
        (("2 * v", "3 * v"), "subreactor sub changed (function app.double changed)"),
        (("- v\n", "- v - len([])\n"), "subreactor sub changed (function app.half changed)"),
        ((" + K", " - K"), "subreactor sub changed"),
        ((" + K", " + 1"), "subreactor sub changed (function app.sub changed; constant app.K is gone)"),
        (("('x'))", "('x')) + 1"), "subreactor inner changed"),
    ],
)
def test_what_of_a_subreactor_has_changed_is_told(
    edit: tuple[str, str], told: str, open_plant: Any, tmp_path: Path
) -> None:
    before = HEAD.format(before="") + PARTS + reactor("v = yield from sub(pipe)") + TAIL
    at = before.index(PARTS)
    edited = before[:at] + before[at:].replace(*edit, 1)
    for number, source in enumerate((before, edited)):
        forget_reactors()
        with program(tmp_path / str(number), {"app.py": source}), open_plant() as plant:
            if number == 1:
                expected = f"b: would run ({told})"
                assert [str(line) for line in plant.status() if line.reactor == "b"] == [expected]
            plant.produce("out")
            why = str(plant.why("b"))
    assert why == f"b: ran ({told})"
