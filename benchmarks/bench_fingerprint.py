"""What fingerprints cost: microseconds per function, first time and remembered; values; arrays.

    python benchmarks/bench_fingerprint.py [--functions 2000]

Each figure is the best of several rounds, each on freshly compiled functions with the garbage of the round
before collected.
"""

from __future__ import annotations

import argparse
import gc
import sys
import time
from collections.abc import Callable, Iterator
from typing import Any

from pyplantx.fingerprint import sending, value
from pyplantx.fingerprint.code import Fingerprinter

CLOSED = "def r{n}(pipe):\n    x = yield pipe.receive('x_{n}')\n    pipe.send('x_{m}', x + {n})\n"
WITH_HELPER = (
    "def r{n}(pipe):\n    x = yield pipe.receive('x_{n}')\n    pipe.send('x_{m}', scale(x) + len(range({n})))\n"
)
ORDINARY = """def r{n}(pipe, limit={n}, *, strict=True):
    '''Doc.'''
    total = 0
    data = yield pipe.receive('data')
    for item in data:
        try:
            value = scale(item)
        except ValueError as error:
            if strict:
                raise RuntimeError(f"bad item {{item}}") from error
            value = 0
        while value > limit:
            value //= 2
        total += value
    found = [q * FACTOR for q in data if q in {{1, 2, {n}}}]
    pipe.send('total_{n}', total)
    pipe.send('found_{n}', sorted(found, key=lambda q: -q))
"""
HEAD = "FACTOR = 3\ndef scale(x):\n    return x * FACTOR\n"


class Memo(dict[str, str]):
    """Remembers in memory, so that no store is measured."""

    def get_code(self, raw: str) -> str | None:
        return self.get(raw)

    def put_code(self, raw: str, record: str) -> None:
        self[raw] = record


def functions(template: str, count: int) -> list[Any]:
    """Freshly compiled functions."""
    source = HEAD + "".join(template.format(n=n, m=n + 1) for n in range(count))
    names: dict[str, Any] = {"__name__": "bench"}
    exec(compile(source, "bench.py", "exec"), names)
    return [names[f"r{n}"] for n in range(count)]


def timed(count: int, work: Callable[..., object], *arguments: object) -> float:
    """Microseconds per piece of work."""
    gc.collect()
    start = time.perf_counter()
    work(*arguments)
    return (time.perf_counter() - start) / count * 1e6


def code_row(template: str, count: int, rounds: int = 3) -> Iterator[float]:
    """First time; first time with hints; remembered by the memo; by the process (a second activity)."""
    best = [1e9] * 4
    for _ in range(rounds):
        memo = Memo()
        for place, known, work in ((0, memo, Fingerprinter.freeze), (1, Memo(), ask), (2, memo, Fingerprinter.freeze)):
            made, printer = functions(template, count), Fingerprinter(known)
            printer.begin_activity()
            best[place] = min(best[place], timed(count, work, printer, made))
        printer.begin_activity()
        best[3] = min(best[3], timed(count, printer.freeze, made))
    yield from best


def ask(printer: Fingerprinter, made: list[Any]) -> None:
    """What a cold start asks of each reactor: its fingerprint, and what it seems to send."""
    for function in made:
        printer.fingerprint(function)
        sending.hints(printer, function)


def repeat(thing: object, count: int) -> None:
    for _ in range(count):
        value.digest(thing)


def value_rows() -> Iterator[tuple[str, float]]:
    """Microseconds per digest."""
    numpy = __import__("numpy")
    nested = {"model": {"lr": 0.1, "layers": [64, 64, 10]}, "seed": 1, "tags": ("a", "b"), "mask": None}
    rows = [
        ("int", 12345, 100_000),
        ("str", "abc", 100_000),
        ("nested dict", nested, 5_000),
        ("array, 80 B", numpy.ones(10), 5_000),
        ("array, 100 kB", numpy.ones(12_500), 2_000),
        ("array, 256 MiB", numpy.ones(1 << 25), 1),
    ]
    for label, thing, count in rows:
        yield label, min(timed(count, repeat, thing, count) for _ in range(3))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--functions", type=int, default=2000)
    count = parser.parse_args().functions
    print(f"Python {sys.version.split()[0]}, {count} functions, µs each\n")
    print(f"{'':28}{'first':>10}{'and hints':>10}{'memo hit':>10}{'again':>10}")
    for label, template in (
        ("refers to nothing", CLOSED),
        ("helper, builtins", WITH_HELPER),
        ("ordinary, 75 instr.", ORDINARY),
    ):
        print(f"{label:28}" + "".join(f"{figure:10.2f}" for figure in code_row(template, count)))
    print()
    for label, figure in value_rows():
        print(f"{label:28}{figure:10.2f}")


if __name__ == "__main__":
    main()
