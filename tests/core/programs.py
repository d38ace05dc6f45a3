"""Random toy programs, and random edits of them.

A reactor is a tuple of operations on a number, its *accumulator*; the operations are its version. What
it sends is the accumulator modulo something small, so that many edits end in equal content.

==================================  ==============================================================
("ask", names)                      receive a group, add it up
("ask in any order", names)         receive one by one, in an order of chance; the sum is the same
("try", name)                       receive, or add 1 if that fails
("config", key)                     add a parameter
("send", name, modulus)             send
("if", modulus, then, otherwise)    branch on the accumulator
("fail if", modulus)                raise on the accumulator
("chance", below)                   add a random number
==================================  ==============================================================

A name is a text, or ("f", text, key): the text with the value of a parameter behind it.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from typing import Any

from driver import Program, Reactor, ToyError

Ops = tuple[Any, ...]

CONFIG_KEYS = ("lr", "mode", "size")
CONFIG_VALUES = (0, 1, 2)


def body_of(ops: Ops) -> Any:
    def body(pipe: Any) -> Any:
        yield from perform(ops, pipe, [1])

    return body


def perform(ops: Ops, pipe: Any, acc: list[int]) -> Any:
    for kind, *args in ops:
        if kind == "ask":
            acc[0] += sum((yield tuple(resolve(name, pipe) for name in args[0])))
        elif kind == "ask in any order":
            names = list(args[0])
            pipe.chance.shuffle(names)
            for name in names:
                acc[0] += sum((yield (resolve(name, pipe),)))
        elif kind == "try":
            acc[0] += yield from attempt(resolve(args[0], pipe))
        elif kind == "config":
            acc[0] += 3 * pipe.config(args[0])
        elif kind == "send":
            pipe.send(resolve(args[0], pipe), acc[0] % args[1])
        elif kind == "if":
            yield from perform(args[2] if acc[0] % args[0] else args[1], pipe, acc)
        elif kind == "fail if" and acc[0] % args[0] == 0:
            raise ToyError(f"{acc[0]} is a multiple of {args[0]}")
        elif kind == "chance":
            acc[0] += pipe.chance.randrange(args[0])


def attempt(name: str) -> Any:
    try:
        (value,) = yield (name,)
    except Exception:
        return 1
    return value


def resolve(name: Any, pipe: Any) -> str:
    return name if isinstance(name, str) else f"{name[1]}{pipe.config(name[2])}"


def flat(ops: Ops) -> Iterator[Any]:
    for op in ops:
        yield op
        if op[0] == "if":
            yield from flat(op[2])
            yield from flat(op[3])


def sendable(ops: Ops) -> set[str]:
    """Every name that the operations could send under any config."""
    names: set[str] = set()
    for op in flat(ops):
        if op[0] == "send":
            name = op[1]
            names.update([name] if isinstance(name, str) else [f"{name[1]}{value}" for value in CONFIG_VALUES])
    return names


class Source:
    """A program as operations, with what its code hints at.

    Styles: "any operation" has right hints for all; "strangers" and "wrong hints" do without operations
    after which a name is not sent: then only a guess could tell a name that nobody sends from a cycle.
    """

    def __init__(self, rng: random.Random, size: int, chancy: bool) -> None:
        self.rng, self.chancy = rng, chancy
        self.style = rng.choice(("any operation", "any operation", "strangers", "wrong hints"))
        self.ops: dict[str, Ops] = {}
        self.hinted: dict[str, bool] = {}
        self.names: dict[str, list[Any]] = {}
        for i in range(size):
            self._add(f"r{i}")
        for _ in range(rng.randrange(3)):
            self._talk(*sorted(rng.sample(list(self.ops), 2)))

    def _talk(self, first: str, second: str) -> None:
        """Let two reactors talk: the first sends and then receives what the second makes of that."""
        heard, told = [f"{id}.talk{len(self.names[id])}" for id in (first, second)]
        result = f"{heard} result"
        self.names[first] += [heard, result]
        self.names[second].append(told)
        self.ops[first] = (("send", heard, 97), *self.ops[first], ("ask", (told,)), ("send", result, 97))
        self.ops[second] = (("ask", (heard,)), ("send", told, self.rng.choice((2, 97))), *self.ops[second])

    def _add(self, id: str) -> None:
        """A reactor on top of the ones before."""
        rng = self.rng
        self.names[id] = [f"{id}.{k}" for k in range(rng.choice((1, 1, 2, 3)))]
        if rng.random() < 0.15:
            self.names[id].append(("f", f"{id}.f", rng.choice(CONFIG_KEYS)))
        self.hinted[id] = self.style != "strangers" or rng.random() < 0.7
        self.ops[id] = self._body(id)

    def _body(self, id: str) -> Ops:
        rng = self.rng
        ops: list[Any] = [self._op(id) for _ in range(rng.randrange(4))]
        for name in self.names[id]:
            send = ("send", name, rng.choice((2, 3, 5, 97)))
            if rng.random() < 0.25:
                send = ("if", 2, (send,), (self._op(id), ("send", name, rng.choice((2, 97)))))
            elif rng.random() < 0.05 and self.style == "any operation":
                send = ("if", rng.choice((2, 3)), (send,), ())
            ops.insert(rng.randrange(len(ops) + 1), send)
            if rng.random() < 0.1:
                ops.append(("ask", (name,)))
            if rng.random() < 0.3:
                ops.append(self._op(id))
        return tuple(ops)

    def _op(self, id: str) -> Any:
        rng = self.rng
        kinds = ("ask", "ask", "ask", "ask", "ask in any order", "try", "config", "config", "if", "fail if", "chance")
        kind = rng.choice(kinds)
        if kind in ("ask", "ask in any order", "try") and id == next(iter(self.names)):
            kind = "config"
        if kind == "ask" and rng.random() < 0.7:
            return ("ask", (self._name(id),))
        if kind in ("ask", "ask in any order"):
            return (kind, tuple({self._name(id): None for _ in range(3)}))
        if kind in ("try", "fail if") and self.style != "any operation":
            kind = "config"
        if kind == "try":
            return ("try", self._name(id))
        if kind == "if":
            return ("if", rng.choice((2, 3)), (self._op(id),), (self._op(id),))
        if kind == "fail if":
            return ("fail if", rng.choice((7, 11, 13)))
        if kind == "chance" and self.chancy:
            return ("chance", rng.choice((2, 100)))
        return ("config", rng.choice(CONFIG_KEYS))

    def _name(self, id: str) -> Any:
        """Mostly of a reactor before; sometimes an own one, or one of a later reactor (a dialogue or a cycle)."""
        rng, ids = self.rng, list(self.names)
        at = ids.index(id)
        draw = rng.random()
        if draw < 0.02:
            return rng.choice(self.names[rng.choice(ids)])
        if at == 0 or (draw < 0.03 and self.style == "any operation"):
            return "nobody"
        return rng.choice(self.names[ids[max(0, at - 1 - int(rng.expovariate(0.7)))]])

    # ------------------------------------------------------------- edits

    def edit(self) -> None:
        """Rewrite a reactor, change one of its operations, or turn a dialogue round."""
        rng = self.rng
        id = rng.choice(list(self.ops))
        ops = list(self.ops[id])
        draw = rng.random()
        if draw < 0.3:
            self.ops[id] = self._body(id)
        elif draw < 0.6 or not ops:
            self.ops[id] = (*ops, self._op(id))
        elif draw < 0.8:
            self.ops[id] = (self._op(id), *ops)
        else:
            rng.shuffle(ops)
            self.ops[id] = tuple(ops)

    def catches(self) -> bool:
        """Whether a reactor may catch a failure."""
        return any(op[0] == "try" for ops in self.ops.values() for op in flat(ops))

    def program(self) -> Program:
        return {id: self._reactor(id) for id in self.ops}

    def _reactor(self, id: str) -> Reactor:
        ops, hinted = self.ops[id], self.hinted[id]
        hints = tuple(sorted(sendable(ops))) if hinted else ()
        if self.style == "wrong hints":  # the names that it asks for as well
            asked = {name for op in flat(ops) if op[0].startswith("ask") for name in op[1] if isinstance(name, str)}
            hints += tuple(sorted(asked))
        return Reactor(repr(ops), body_of(ops), hints=hints, whole=hinted)
