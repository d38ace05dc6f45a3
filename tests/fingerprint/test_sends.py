"""Whether code shows all that a reactor can send: never where anybody else, or another name, could send."""

from __future__ import annotations

import types
from typing import Any

import pytest

from pyplantx.fingerprint.sends import shows_all_it_sends

SHOWN = [
    "def f(pipe): pipe.send('x', 1)",
    "def f(pipe): yield pipe.receive('x')",
    "async def f(pipe):\n x = await pipe.receive('x')\n pipe.send('y', x + 1)",
    "def f(pipe, config):\n for i in range(9): pipe.send('x', [i, config.a])",
    "def f(pipe):\n with open('x') as file: pipe.send('x', file.read())",
    "def f(pipe):\n x = pipe.allocate('x', shape=(1, 2))\n x[:] = helper(x)\n pipe.send('x', x)",
    "def f(p):\n try: p.send('x', lambda: 1)\n finally: print('y')",
    "def f(pipe): pipe.send('x', pipe.read_config('a') if pipe.has('a') else [i for i in range(3)])",
    "def f(pipe): pipe.map_blocks(helper, a, out=b); pipe.checkpoint('k', 1)",
    "def f(other): other.send('x', value=1)",
]
HIDDEN = {
    "nothing is given": "def f(): pass",
    "who knows what": "def f(*pipe): pass",
    "a helper": "def f(pipe): publish(pipe)",
    "a subreactor": "def f(pipe): yield from sub(pipe, 'x')",
    "a second name": "def f(pipe):\n other = pipe\n other.send('x', 1)",
    "another value": "def f(pipe):\n pipe = wrap()\n pipe.send('x', 1)",
    "a bound method": "def f(pipe):\n send = pipe.send\n send('x', 1)",
    "a method that is handed on": "def f(pipe): each(pipe.send)",
    "a computed name": "def f(pipe): pipe.send('x' + y, 1)",
    "a variable": "def f(pipe, name): pipe.send(name, 1)",
    "one of two": "def f(pipe, c): pipe.send('x' if c else 'y', 1)",
    "a formatted one": "def f(pipe, n): pipe.send(f'x{n}', 1)",
    "arguments": "def f(pipe, a): pipe.send(*a)",
    "keywords": "def f(pipe, a): pipe.send(**a)",
    "a name as a keyword": "def f(pipe): pipe.send(value='x', name='y')",
    "an unknown method": "def f(pipe): pipe.send_later('x', 1)",
    "an attribute": "def f(pipe): pipe.other.send('x', 1)",
    "one of its own": "def f(pipe): pipe.send = 1",
    "what it is chosen for": "def f(pipe, other): (pipe or other).send('x', 1)",
    "getattr": "def f(pipe): getattr(pipe, 'send')('x', 1)",
    "a container": "def f(pipe): [pipe][0].send('x', 1)",
    "a function inside": "def f(pipe):\n def g(): pipe.send('x', 1)\n g()",
    "a comprehension": "def f(pipe): [(lambda: pipe)().send(n, 1) for n in 'xy']",
    "local variables": "def f(pipe): helper(locals())",
    "code in texts": "def f(pipe): exec(\"pipe.send('x', 1)\")",
    "frames": "def f(pipe): sys._getframe().f_locals['pipe'].send('x', 1)",
    "deleted": "def f(pipe):\n del pipe",
}


def code_of(source: str) -> types.CodeType:
    made: dict[str, Any] = {}
    exec(source, made)
    code: types.CodeType = made["f"].__code__
    return code


@pytest.mark.parametrize("source", SHOWN)
def test_literal_names_show_all(source: str) -> None:
    assert shows_all_it_sends(code_of(source))


@pytest.mark.parametrize("what", HIDDEN)
def test_everything_else_may_hide_something(what: str) -> None:
    assert not shows_all_it_sends(code_of(HIDDEN[what]))


def test_long_code_is_read_to_its_end() -> None:
    """Beyond 256 names and constants, where instructions are prefixed by others."""
    many = "".join(f"    pipe.send('x{i}', value{i})\n" for i in range(600))
    assert shows_all_it_sends(code_of(f"def f(pipe):\n{many}"))
    assert not shows_all_it_sends(code_of(f"def f(pipe):\n{many}    pipe.send(value7, 1)\n"))
