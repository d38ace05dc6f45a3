"""Our named tuples beside those of typing: what can be done with one can be done with the other."""

from __future__ import annotations

import copy
import pickle
import types
import typing

import pytest

from pyplantx.basics.tuples import NamedTuple


class Ours(NamedTuple):
    """A point."""

    x: int
    y: int = 2
    name: str = ""

    @property
    def sum(self) -> int:
        return self.x + self.y

    @classmethod
    def at(cls, x: int) -> Ours:
        return cls(x)


class Theirs(typing.NamedTuple):
    x: int
    y: int = 2
    name: str = ""


GIVEN = [
    ((1,), {}),
    ((1, 3), {}),
    ((1, 3, "a"), {}),
    ((), {"x": 1}),
    ((1,), {"name": "b"}),
    ((), {"name": "b", "y": 0, "x": 5}),
]


@pytest.mark.parametrize(("args", "named"), GIVEN)
def test_made_alike(args, named):
    ours, theirs = Ours(*args, **named), Theirs(*args, **named)
    assert tuple(ours) == tuple(theirs)
    assert repr(ours) == repr(theirs).replace("Theirs", "Ours")
    assert ours._asdict() == theirs._asdict()
    assert tuple(ours._replace(y=9)) == tuple(theirs._replace(y=9))
    assert (ours.x, ours.y, ours.name) == (theirs.x, theirs.y, theirs.name)
    assert hash(ours) == hash(theirs)


@pytest.mark.parametrize(
    ("args", "named"), [((), {}), ((1, 2, "", 4), {}), ((1,), {"x": 1}), ((1,), {"z": 1}), ((), {"y": 1})]
)
def test_refused_alike(args, named):
    for kind in (Ours, Theirs):
        with pytest.raises(TypeError, match="Ours|__new__"):
            kind(*args, **named)


def test_the_error_names_what_lacks():
    with pytest.raises(TypeError, match=r"Ours\(x, y, name\) lacks x"):
        Ours()


def test_fields_cannot_be_changed():
    with pytest.raises(AttributeError):
        Ours(1).x = 2
    with pytest.raises(AttributeError):
        Ours(1).other = 2


def test_methods_docs_and_matching():
    assert (Ours(1).sum, Ours.at(4), Ours.__doc__) == (3, Ours(4), "A point.")
    assert Ours._make([1, 2, "c"]) == Ours(1, 2, "c")
    assert Ours._fields == Theirs._fields and Ours._field_defaults == Theirs._field_defaults
    match Ours(1, 2, "d"):
        case Ours(1, y, name=name):
            assert (y, name) == (2, "d")


def test_annotations_that_are_not_there_yet_are_no_fields_to_be_lost():
    def body(namespace):
        namespace["__annotate_func__"] = lambda form: {"x": int}  # what Python 3.14 makes of `x: int`

    with pytest.raises(TypeError, match="from __future__ import annotations"):
        types.new_class("Late", (NamedTuple,), exec_body=body)
    assert types.new_class("Nothing", (NamedTuple,))() == ()


class Listing(NamedTuple):
    items: tuple[int, ...]

    def __iter__(self):
        return iter(self.items)


def test_what_it_iterates_over_is_its_own_affair():
    listing = Listing((1, 2))
    assert list(listing) == [1, 2]
    assert repr(listing) == "Listing(items=(1, 2))"
    assert listing._asdict() == {"items": (1, 2)}
    assert listing._replace(items=(3,)).items == (3,)
    assert pickle.loads(pickle.dumps(listing)).items == (1, 2)


@pytest.mark.parametrize("protocol", range(2, pickle.HIGHEST_PROTOCOL + 1))
def test_travels(protocol):
    sent = pickle.loads(pickle.dumps(Ours(1, 2, "e"), protocol))
    assert type(sent) is Ours and sent == Ours(1, 2, "e")
    assert type(copy.deepcopy(sent)) is Ours


def test_a_field_without_a_default_comes_first():
    with pytest.raises(TypeError, match="without a default"):

        class Wrong(NamedTuple):
            x: int = 1
            y: int
