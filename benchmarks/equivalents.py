"""Equivalent programs for each system: a chain and a fan-out of distinct functions on small integers.

Every program is a module with ``run(seed, folder)``, which opens the store, computes the result and leaves
it stored. Step i of a chain is ``(x * 3 + i) % 9973``; a fan-out sends one number through N such steps and
sums. In a chain with helpers each step calls a function of its own, which reads a constant of the module.
`expected` says what must come out, whoever computes it.
"""

from __future__ import annotations

MODULUS = 9973
CHAIN, FAN, HELPERS = "chain", "fan", "chain with helpers"


def step(i: int, x: int) -> int:
    return (x * 3 + i) % MODULUS


def expected(shape: str, size: int, seed: int) -> int:
    """The result, computed the plain way."""
    if shape == FAN:
        return sum(step(i, seed + 1) for i in range(size))
    x = seed + 1
    for i in range(size):
        x = step(i, x)
    return x


def source(system: str, shape: str, size: int, edited: bool = False) -> str:
    """Text of the program; `edited` rewrites the middle step so that its value stays the same."""
    lines = list(HEADS[system])
    if shape == HELPERS:
        lines.append(f"MODULUS = {MODULUS}")
    for i in range(size):
        text = f"(x * 3 + {i}) % {MODULUS}"
        if edited and i == size // 2:
            text = f"({i} + 3 * x) % {MODULUS}"
        if shape == HELPERS:
            lines += [f"def h{i}(x):", f"    return {text}".replace(str(MODULUS), "MODULUS")]
            text = f"h{i}(x)"
        lines += STEPS[system](i, text, shape)
    return "\n".join(lines + TAILS[system](shape, size)) + "\n"


# --- pyplantx ------------------------------------------------------------------------------------

PLANT_HEAD = [
    "from pyplantx import Plant, ReactorFunc",
    "@ReactorFunc",
    "def first(pipe):",
    "    pipe.send('x_first', pipe.read_config('seed') + 1)",
]


def plant_step(i: int, text: str, shape: str) -> list[str]:
    before = "x_first" if shape == FAN or i == 0 else f"x{i - 1}"
    return [
        "@ReactorFunc",
        f"def r{i}(pipe):",
        f"    x = yield pipe.receive('{before}')",
        f"    pipe.send('x{i}', {text})",
    ]


def plant_tail(shape: str, size: int) -> list[str]:
    sink = [
        "@ReactorFunc",
        "def last(pipe):",
        f"    xs = yield pipe.receive(*[f'x{{i}}' for i in range({size})])",
        "    pipe.send('total', sum(xs))",
    ]
    result = "total" if shape == FAN else f"x{size - 1}"
    return (sink if shape == FAN else []) + [
        "def run(seed, folder):",
        "    with Plant(folder) as plant:",
        "        plant.set_config({'seed': seed})",
        f"        return plant.produce('{result}')",
    ]


# --- caches of functions -------------------------------------------------------------------------

JOBLIB_HEAD = [
    "import os",
    "from joblib import Memory",
    "cached = Memory(os.environ['BENCH_STORE'], verbose=0).cache",
]
DISKCACHE_HEAD = [
    "import os",
    "import diskcache",
    "store = diskcache.Cache(os.environ['BENCH_STORE'])",
    "cached = store.memoize()",
]
CACHE_FIRST = ["@cached", "def first(seed):", "    return seed + 1"]


def cache_step(i: int, text: str, shape: str) -> list[str]:
    return ["@cached", f"def r{i}(x):", f"    return {text}"]


def cache_tail(shape: str, size: int) -> list[str]:
    steps = f"STEPS = [globals()[f'r{{i}}'] for i in range({size})]"
    if shape == FAN:
        body = ["    x = first(seed)", "    return last([step(x) for step in STEPS])"]
        return [steps, "@cached", "def last(xs):", "    return sum(xs)", "def run(seed, folder):", *body]
    body = ["    x = first(seed)", "    for step in STEPS:", "        x = step(x)", "    return x"]
    return [steps, "def run(seed, folder):", *body]


HEADS = {
    "pyplantx": PLANT_HEAD,
    "joblib": JOBLIB_HEAD + CACHE_FIRST,
    "diskcache": DISKCACHE_HEAD + CACHE_FIRST,
}
STEPS = {"pyplantx": plant_step, "joblib": cache_step, "diskcache": cache_step}
TAILS = {"pyplantx": plant_tail, "joblib": cache_tail, "diskcache": cache_tail}
