"""Records of traces, and the tree that they form."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import pytest
from driver import hash_text as toy_hash
from hypothesis import given
from hypothesis import strategies as st

from pyplantx.core.replay import Again, AskLocally, replay
from pyplantx.core.trace import (
    COUNTS,
    MOST_OLDER,
    WAIVED,
    Group,
    ObjectRef,
    Observation,
    Segment,
    Sent,
    Step,
    branch_key,
    decode_segment,
    encode_segment,
    graft,
    observations_of,
    older_segments,
)
from pyplantx.fingerprint.value import hash_text

LAW = Path(__file__).resolve().parents[2] / "specs" / "trace" / "1"
GOLDEN = sorted(path for path in (LAW / "golden").glob("*.json") if path.name != "tree.json")
REJECTS = sorted((LAW / "reject").glob("*.json"))


def steps_of(rows: list[list[Any]]) -> tuple[Step, ...]:
    return tuple([step_of(row) for row in rows])


def step_of(row: list[Any]) -> Step:
    if row[0] == "ask":
        return Group(tuple([Observation(*observation) for observation in row[1:]]))
    return Sent(row[1], ObjectRef(*row[2:]))


def stem(path: Path) -> str:
    return path.stem


@pytest.mark.parametrize("path", GOLDEN, ids=stem)
def test_golden_records(path: Path):
    case = raw(path)
    segment = decode_segment(case["text"])
    lines = [Segment(segment.steps), *older_segments(segment)]
    assert [line.steps for line in lines] == [steps_of(rows) for rows in case["segments"]]
    assert encode_segment(segment) == case["text"]


def raw(path: Path) -> Any:
    return json.loads(path.read_text())


def test_golden_tree():
    case = raw(LAW / "golden" / "tree.json")
    records: dict[str, str] = {}
    for rows in case["traces"]:
        put(records, case["root"], steps_of(rows), hash_text)
    assert records == case["records"]


@pytest.mark.parametrize("path", REJECTS, ids=stem)
def test_rejects(path: Path):
    with pytest.raises(ValueError, match="not a trace segment"):
        decode_segment(raw(path)["text"])


def test_the_corpus_is_not_empty():
    assert len(GOLDEN) >= 7 and len(REJECTS) >= 25


def test_bad_older_lines_are_refused_when_read():
    segment = decode_segment('[]\n[["ask"]]')
    with pytest.raises(ValueError, match="not a trace segment"):
        older_segments(segment)


values = st.recursive(st.none() | st.text() | st.integers(), st.lists, max_leaves=8)


@given(st.text(max_size=60) | values.map(json.dumps))
def test_decoding_anything_gives_a_segment_or_a_value_error(text: str):
    try:
        segment = decode_segment(text)
    except ValueError:
        return
    assert decode_segment(encode_segment(segment)) == segment


names = st.text(st.characters(), max_size=6) | st.sampled_from(["\ud800\udc00", "\U00010000", "\n", "\x00"])
digests = st.sampled_from([c * 32 for c in "0123456789abcdef"])
refs = st.builds(ObjectRef, names, st.integers(1, 9), digests, digests, st.integers(0, 2**40), names, st.none() | names)
observations = st.builds(Observation, st.sampled_from(["ingredient", "config"]), names, digests, names)
groups = st.builds(Group, st.lists(observations, min_size=1, max_size=3).map(tuple))
all_steps = st.lists(st.builds(Sent, names, refs) | groups, max_size=5).map(tuple)


@given(all_steps, st.lists(all_steps, max_size=3))
def test_round_trip(steps: tuple[Step, ...], older: list[tuple[Step, ...]]):
    segment = Segment(steps, "\n".join([encode_segment(Segment(each)) for each in older]))
    again = decode_segment(encode_segment(segment))
    assert again == segment
    if older != [()]:
        assert [each.steps for each in older_segments(again)] == older


@given(all_steps, all_steps)
def test_keys_differ_where_anything_but_words_for_people_differs(one: tuple[Step, ...], other: tuple[Step, ...]):
    same = content(one) == content(other)
    assert (branch_key("k", one, str) == branch_key("k", other, str)) == same
    assert branch_key("k", one, str) != branch_key("l", one, str)


def content(steps: tuple[Step, ...]) -> list[object]:
    flat: list[object] = []
    for step in steps:
        flat += [(step.name, step.ref.digest)] if isinstance(step, Sent) else observations_of((step,))
    return flat


# --------------------------------------------------------------------------- the tree


def put(records: dict[str, str], root: str, steps: tuple[Step, ...], hash_function: Any = toy_hash) -> None:
    grafted = graft(root, steps, lambda key: found(records, key), hash_function)
    if grafted is not None:
        records[grafted[0]] = encode_segment(grafted[1])


def found(records: dict[str, str], key: str) -> Segment | None:
    return decode_segment(records[key]) if key in records else None


def walk(records: dict[str, str], root: str, answers: dict[tuple[str, str], str]) -> tuple[Any, list[Step]]:
    """Replay with these answers: the reason (None at a leaf) and the steps."""
    segment = found(records, root)
    assert segment is not None
    steps: list[Step] = []
    replaying = replay(root, segment, lambda key: found(records, key), toy_hash, steps)
    answer: Any = None
    while True:
        try:
            wish = replaying.send(answer)
        except StopIteration as end:
            return end.value and end.value.reason, steps
        if isinstance(wish, Segment):
            answer = None
        elif isinstance(wish, AskLocally):
            answer = tuple([Observation(*q, answers.get(tuple(q), "?")) for q in wish.questions])
        elif isinstance(wish, Again):
            steps, answer = wish.steps, None
        else:
            answer = [answers.get((o.kind, o.key), "?") for o in wish.observations]


def random_trace(rng: random.Random, world: dict[tuple[str, str], str], ordered: bool) -> tuple[Step, ...]:
    """One run in a world: it asks on and on, the next question depending on the answers if `ordered`."""
    steps: list[Step] = []
    seed = 0
    for turn in range(rng.randrange(1, 6) if not ordered else 5):
        chooser = random.Random(f"{seed} {turn}") if ordered else rng
        questions = chooser.sample(sorted(world), chooser.choice((1, 1, 2)))
        kind = questions[0][0]
        group = Group(tuple([Observation(*q, world[q]) for q in questions if q[0] == kind]))
        steps.append(group)
        seed = hash_of(observations_of(steps))
        if chooser.random() < 0.4:
            steps.append(sent(f"s{turn}", seed % 3 if ordered else rng.randrange(3)))
    return tuple(steps)


def hash_of(value: object) -> int:
    return int(toy_hash(repr(value))[:6], 16)


def sent(name: str, value: int) -> Sent:
    return Sent(name, ObjectRef("toy", 1, str(value) * 32, str(value) * 32, 1))


QUESTIONS = [("ingredient", "a"), ("ingredient", "b"), ("config", "c"), ("config", "d")]


@pytest.mark.parametrize("ordered", [True, False])
def test_every_trace_is_found_again(ordered: bool):
    """A flat list of traces is the law: a replay ends at a leaf where one of them holds, else it falls off."""
    for seed in range(60):
        rng = random.Random(seed)
        records: dict[str, str] = {}
        traces: list[tuple[Step, ...]] = []
        for _ in range(25):
            world = {q: rng.choice("01") * 32 for q in QUESTIONS}
            if traces:
                check(records, traces, world)
            trace = random_trace(rng, world, ordered)
            put(records, "root", trace)
            traces.append(trace)
            assert walk(records, "root", world) == (None, list(trace)), "the newest wins"


def check(records: dict[str, str], traces: list[tuple[Step, ...]], world: dict[tuple[str, str], str]) -> None:
    fitting = [t for t in traces if all(world[kind, key] == answer for kind, key, answer in observations_of(t))]
    reason, steps = walk(records, "root", world)
    assert (reason is None) == bool(fitting)
    if reason is None:
        assert tuple(steps) in fitting
    else:
        assert reason.old and all(old.answer != new.answer for old, new in zip(reason.old, reason.new, strict=True))


def test_deterministic_reactors_have_one_segment_per_node():
    records: dict[str, str] = {}
    for lr in "0101":
        world = {q: "0" * 32 for q in QUESTIONS} | {("config", "c"): lr * 32}
        put(records, "root", random_trace(random.Random(0), world, True))
    assert not any("\n" in text for text in records.values())


def test_a_node_remembers_no_more_than_it_should():
    records: dict[str, str] = {}
    for i in range(MOST_OLDER + 20):
        put(records, "root", (sent("x", i), Group((Observation("config", "c", "0" * 32),))))
    assert len(records) == 1
    assert records["root"].count("\n") == MOST_OLDER


def test_forced_runs_of_a_random_reactor_do_not_pile_up():
    records: dict[str, str] = {}
    for i in range(20):
        put(records, "root", (Group((Observation("config", "c", "0" * 32),)), sent("x", i)))
    assert records["root"].count("\n") == 0
    assert sent("x", 19) in decode_segment(records["root"]).steps


def test_unreadable_older_lines_cost_a_run_and_no_more():
    question = Group((Observation("config", "c", "0" * 32),))
    records = {"root": encode_segment(Segment((question,), "nonsense"))}
    assert walk(records, "root", {("config", "c"): "0" * 32})[0] is None
    assert walk(records, "root", {("config", "c"): "1" * 32})[0].kind == "changed"
    put(records, "root", (Group((Observation("config", "other", "0" * 32),)),))  # the run that it costs is recorded
    assert walk(records, "root", {("config", "other"): "0" * 32})[0] is None


def test_a_deep_tree_is_asked_for_little_more_than_it_tells():
    """Each of many parameters was changed in turn: the walk leaves each branch at its second question."""
    keys = [("config", f"k{number}") for number in range(200)]
    world, records = dict.fromkeys(keys, "0" * 32), dict[str, str]()

    class Answers(dict):
        asked = 0

        def get(self, question, default=None):
            Answers.asked += 1
            return super().get(question, default)

    for key in keys:
        put(records, "root", tuple(Group((Observation(*key, world[key]),)) for key in keys))
        world[key] = "1" * 32
    put(records, "root", tuple(Group((Observation(*key, world[key]),)) for key in keys))
    assert walk(records, "root", Answers(world)) == (None, [Group((Observation(*key, world[key]),)) for key in keys])
    assert Answers.asked < 17 * len(keys)
    Answers.asked = 0
    assert walk({"root": records["root"]}, "root", Answers(dict.fromkeys(keys, "0" * 32)))[0] is None
    assert Answers.asked == len(keys)


def test_many_answers_that_count_no_more_are_asked_for_once_each():
    """A group of parameters was marked auxiliary after the run, and all have changed: each replay goes on along it."""
    keys = [("config", f"k{number}") for number in range(200)]
    steps = tuple(Group((Observation(*key, "0" * 32),)) for key in keys)
    today = {**dict.fromkeys(keys, "1" * 32), **{(COUNTS, f"{kind} {key}"): WAIVED for kind, key in keys}}
    records, asked = dict[str, str](), list[Any]()

    class Answers(dict):
        def get(self, question, default=None):
            asked.append(question)
            return super().get(question, default)

    put(records, "root", steps)
    assert walk(records, "root", Answers(today)) == (None, list(steps))
    assert len(asked) == 2 * len(keys)
    branch = (*steps[:99], Group((Observation(*keys[99], "1" * 32),)), sent("x", 1))
    put(records, "root", branch)  # what was seen with today's answer, behind others that are waived
    assert walk(records, "root", today) == (None, list(branch))
