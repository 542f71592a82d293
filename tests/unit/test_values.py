"""Our ``dataclass`` is the standard library's, class by class, but for what it costs."""

from __future__ import annotations

import copy
import dataclasses
import importlib
import inspect
import pickle
import pkgutil
import subprocess
import sys
from typing import Any

import pytest

import lvsctl
from lvsctl import values
from lvsctl.values import asdict, dataclass, field, replace


def every_class() -> list[type]:
    found: dict[type, None] = {}
    for module in pkgutil.walk_packages(lvsctl.__path__, "lvsctl."):
        if module.name in ("lvsctl.__main__", "lvsctl.testing.worker"):
            continue
        if module.name.startswith(("lvsctl.machine.guest", "lvsctl.cli.preload")):
            continue  # they begin to work where they are imported
        for thing in vars(importlib.import_module(module.name)).values():
            if isinstance(thing, type) and "__lvsctl_fields__" in thing.__dict__:
                found[thing] = None
    return list(found)


CLASSES = every_class()


def words_of(cls: type) -> dict[str, str]:
    return {one.name: f"a {one.name}" for one in dataclasses.fields(cls) if one.init}


def test_there_are_classes_to_look_at() -> None:
    assert len(CLASSES) > 100


@pytest.mark.parametrize("cls", CLASSES, ids=lambda cls: f"{cls.__module__}.{cls.__qualname__}")
def test_a_class_is_what_the_standard_library_makes_of_its_fields(cls: type) -> None:
    twin = values.standard(cls)
    before = inspect.signature(cls)
    words = words_of(cls)

    assert before == inspect.signature(twin)
    assert [one.name for one in dataclasses.fields(cls)] == list(cls.__annotations__) or (
        len(cls.__mro__) > 2
    )
    assert cls.__match_args__ == twin.__match_args__  # type: ignore[attr-defined]
    if hasattr(cls, "__post_init__"):
        return  # it looks at what it is given
    ours, theirs = cls(**words), twin(**words)
    for _ in range(values.FEW):  # by now one is compiled, and makes the same
        cls(**words)
    assert inspect.signature(vars(cls)["__init__"]).parameters.keys() - {"self"} == words.keys()
    if getattr(cls.__repr__, "__module__", "") == values.__name__:
        assert repr(ours) == repr(theirs).replace(twin.__qualname__, cls.__qualname__, 1)
    assert ours == cls(**words)
    assert ours != theirs
    assert asdict(ours) == dataclasses.asdict(ours) == dataclasses.asdict(theirs)
    if cls.__hash__ is None:
        assert twin.__hash__ is None
    elif "__hash__" in cls.__dict__:
        assert hash(ours) == hash(theirs)


@dataclass(frozen=True, slots=True, kw_only=True)
class Base:
    where: str
    why: str = field(default="", compare=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class Thing(Base):
    kind: str
    parts: list[str] = field(default_factory=list, hash=False)


@dataclass(frozen=True, slots=True, order=True)
class Ordered:
    first: int
    second: int = 2
    third: int = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "third", self.first + self.second)


@dataclass(slots=True)
class Open:
    name: str
    seen: dict[str, int] = field(default_factory=lambda: {"lo": 1})


THING = Thing(where="here", why="because", kind="one")


def test_equality_and_hash_leave_out_what_does_not_count() -> None:
    other = Thing(where="here", why="for fun", kind="one")
    assert other == THING
    assert hash(other) == hash(THING) == hash(("here", "one"))
    assert Thing(where="there", kind="one") != THING
    assert Base(where="here") != THING


def test_each_value_gets_its_own_from_a_factory() -> None:
    assert Thing(where="", kind="").parts is not Thing(where="", kind="").parts
    assert Open("a").seen == {"lo": 1}
    assert Open("a", {}).seen == {}


def test_order_is_that_of_the_fields() -> None:
    assert sorted([Ordered(2), Ordered(1, 5), Ordered(1)]) == [
        Ordered(1),
        Ordered(1, 5),
        Ordered(2),
    ]
    assert (Ordered(1) < Ordered(1)) is False
    assert Ordered(1) <= Ordered(1)
    with pytest.raises(TypeError, match="not supported"):
        Ordered(1) < 1  # type: ignore[operator]  # noqa: B015


def test_what_is_frozen_stays_as_it_is() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError, match="cannot assign to field 'kind'"):
        THING.kind = "two"  # type: ignore[misc]
    with pytest.raises(dataclasses.FrozenInstanceError, match="cannot delete field 'kind'"):
        del THING.kind
    with pytest.raises(AttributeError):
        setattr(Open("a"), "other", 1)  # noqa: B010
    changed = Open("a")
    changed.name = "b"
    assert changed == Open("b")
    with pytest.raises(TypeError, match="unhashable"):
        hash(changed)


@pytest.mark.parametrize("value", [THING, Ordered(1), Open("a")])
def test_values_are_copied_and_pickled(value: Any) -> None:
    assert copy.copy(value) == copy.deepcopy(value) == pickle.loads(pickle.dumps(value)) == value  # noqa: S301


def test_replace_runs_what_comes_after_init() -> None:
    assert replace(Ordered(1), second=9).third == 10
    assert replace(THING, kind="two") == Thing(where="here", kind="two")
    with pytest.raises(TypeError, match="unexpected keyword"):
        replace(THING, **{"colour": "red"})  # type: ignore[arg-type]  # noqa: PIE804


@pytest.mark.parametrize(
    "words", [{}, {"where": "here"}, {"where": "", "kind": "", "other": 1}, {"kind": ""}]
)
def test_arguments_that_do_not_fit_are_refused(words: dict[str, Any]) -> None:
    with pytest.raises(TypeError):
        Thing(**words)


def made_with(decorator: Any, of: Any, kw_only: bool) -> Any:
    @decorator(frozen=True, slots=True, kw_only=kw_only)
    class Fresh:
        first: int
        second: list[int] = of(default_factory=list)
        third: str = of(init=False, default="x")
        fourth: int = of(init=False)
        fifth: int = 5

        def __post_init__(self) -> None:
            object.__setattr__(self, "fourth", self.first + 1)

    return Fresh


def outcome(cls: Any, args: tuple[Any, ...], words: dict[str, Any]) -> dict[str, Any] | str:
    try:
        return dataclasses.asdict(cls(*args, **words))
    except TypeError as error:
        return str(error)


@pytest.mark.parametrize("kw_only", [False, True])
@pytest.mark.parametrize("before", [0, values.FEW - 1, values.FEW, 2 * values.FEW])
@pytest.mark.parametrize(
    ("args", "words"),
    [
        ((1,), {}), ((1, [2]), {}), ((1,), {"fifth": 6}), ((), {"first": 3}), ((1, [2], 3), {}),
        ((), {}), ((1, [2], 3, 4), {}), ((1,), {"first": 2}), ((1,), {"third": "y"}),
        ((), {"first": 1, "second": [2], "fifth": 6}), ((), {"sixth": 1, "first": 2}),
    ],
)  # fmt: skip
def test_the_first_values_are_made_as_all_others(
    args: tuple[Any, ...], words: dict[str, Any], before: int, kw_only: bool
) -> None:
    ours = made_with(dataclass, field, kw_only)
    theirs = made_with(dataclasses.dataclass, dataclasses.field, kw_only)
    for number in range(before):
        ours(first=number)
    assert outcome(ours, args, words) == outcome(theirs, args, words)


def test_positional_arguments_of_a_class_without_any_are_refused() -> None:
    with pytest.raises(TypeError, match="positional"):
        Thing(*["here", "because", "one"])  # type: ignore[call-arg]


def test_match_by_position() -> None:
    match Ordered(1, 3):
        case Ordered(first, second):
            assert (first, second) == (1, 3)


def test_asdict_goes_into_what_it_holds() -> None:
    held = Open("outer", {"x": Ordered(1)})  # type: ignore[dict-item]
    assert asdict(held) == {"name": "outer", "seen": {"x": {"first": 1, "second": 2, "third": 3}}}
    assert asdict(held) == dataclasses.asdict(held)


def test_a_dataclass_of_the_standard_library_is_no_base() -> None:
    @dataclasses.dataclass
    class Standard:
        name: str

    with pytest.raises(TypeError, match="standard library"):

        @dataclass
        class Ours(Standard):
            other: str


def test_a_class_costs_neither_dataclasses_nor_inspect() -> None:
    code = (
        "import sys; from lvsctl import ops; ops.SetLinkUp(netns='a', device='lo').describe();"
        "assert not {'dataclasses', 'inspect', 'ast'} & sys.modules.keys()"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
