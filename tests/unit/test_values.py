"""The cheap dataclass is held against the real one."""

import copy
import dataclasses
import pickle
import re
from pathlib import Path

import pytest

from pyrtc import values
from pyrtc.values import dataclass, field, replace


@dataclass(frozen=True, slots=True)
class Point:
    """A point."""

    x: int
    y: int = 0
    tags: tuple[str, ...] = ()

    @property
    def total(self) -> int:
        """The sum."""
        return self.x + self.y


@dataclasses.dataclass(frozen=True, slots=True)
class Real:
    x: int
    y: int = 0
    tags: tuple[str, ...] = ()


@dataclass(slots=True)
class Basket:
    """Something that changes."""

    items: list[int] = field(default_factory=list)


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """Keywords only; a default may come first."""

    a: int = 1
    b: str


@dataclass(frozen=True, slots=True)
class Checked:
    """Refuses."""

    size: int

    def __post_init__(self):
        if self.size < 0:
            raise ValueError("negative")


@dataclass(frozen=True, slots=True)
class Empty:
    """Nothing."""


def test_it_reads_and_prints_like_a_dataclass():
    assert repr(Point(1, tags=("a",))) == repr(Real(1, tags=("a",))).replace("Real", "Point")
    assert Point(1, 2).total == 3
    assert Point.__doc__ == "A point."
    assert Point(1, 2) == Point(x=1, y=2) != Point(1, 3)
    assert Point(1) != Real(1)
    assert len({Point(1), Point(1), Point(2)}) == 2
    assert Empty() == Empty() and repr(Empty()) == "Empty()"


@pytest.mark.parametrize("arguments", [(), (1, 2, (), 4)])
def test_wrong_number_of_arguments(arguments):
    with pytest.raises(TypeError, match="__init__"):
        Point(*arguments)
    with pytest.raises(TypeError, match="unexpected keyword"):
        Point(1, z=2)


def test_frozen():
    point = Point(1)
    with pytest.raises(dataclasses.FrozenInstanceError):
        point.x = 2
    with pytest.raises(dataclasses.FrozenInstanceError):
        del point.x
    with pytest.raises(AttributeError):
        point.other = 1
    assert not hasattr(point, "__dict__")


def test_mutable():
    one, other = Basket(), Basket()
    one.items.append(1)
    assert other.items == []
    one.items = [5]
    assert one == Basket([5])
    with pytest.raises(TypeError):
        hash(one)
    with pytest.raises(AttributeError):
        one.other = 1


def test_keywords_only():
    assert Options(b="x") == Options(a=1, b="x")
    with pytest.raises(TypeError):
        Options(1, "x")
    assert Options.__match_args__ == ()


def test_post_init():
    with pytest.raises(ValueError, match="negative"):
        Checked(-1)
    with pytest.raises(ValueError, match="negative"):
        replace(Checked(1), size=-1)


def test_replace():
    assert replace(Point(1, 2), y=5) == Point(1, 5)
    assert dataclasses.replace(Point(1, 2), y=5) == Point(1, 5)
    with pytest.raises(TypeError):
        replace(Point(1), z=1)


def test_dataclasses_sees_its_fields():
    assert dataclasses.is_dataclass(Point) and dataclasses.is_dataclass(Point(1))
    assert [one.name for one in dataclasses.fields(Point)] == ["x", "y", "tags"]
    assert dataclasses.asdict(Point(1)) == {"x": 1, "y": 0, "tags": ()}
    assert dataclasses.fields(Basket)[0].default_factory is list
    assert dataclasses.fields(Options)[1].kw_only
    assert dataclasses.fields(Point)[1].default == 0


def test_copies_and_pickles():
    for value in (Point(1, 2, ("a",)), Basket([1])):
        assert copy.copy(value) == copy.deepcopy(value) == pickle.loads(pickle.dumps(value)) == value


def test_match():
    match Point(1, 2):
        case Point(x, y):
            assert (x, y) == (1, 2)
        case _:
            raise AssertionError


def test_order_of_defaults_is_checked():
    with pytest.raises(TypeError, match="default"):

        @dataclass(frozen=True, slots=True)
        class Wrong:
            a: int = 1
            b: int


def test_slots_must_be_said():
    with pytest.raises(TypeError, match="slots"):
        dataclass(slots=False)


def test_subclass_of_a_value():
    class Named(Point):
        def name(self):
            return f"{self.x}"

    assert Named(1).name() == "1" and Point(1) == Point(1)


def test_fields_are_not_inherited():
    with pytest.raises(TypeError, match="not inherited"):

        @dataclass(frozen=True, slots=True)
        class Named(Point):
            name: str = ""


def test_the_package_asks_for_nothing_else():
    """What type checkers accept, reading the real decorator, and this one would take for a field."""
    for path in Path(values.__file__).parent.rglob("*.py"):
        if path.name != "values.py":
            found = re.search(
                r"\b(ClassVar|InitVar|KW_ONLY)\b|^from dataclasses import", path.read_text(), re.MULTILINE
            )
            assert not found, f"{path}: {found}"
