"""Shapes of values: each reads a piece of the tree and writes its own JSON Schema.

One table of shapes (``spec.schema``) is both the validator and the published schema,
so the two cannot drift apart.

Why not pydantic: an error needs the line and column of the key or value that is wrong,
which pydantic's input no longer has, and its import costs 58 ms on every command.

Single values are here, lists and mappings in ``spec.compounds``.

``read`` returns None for a value that is wrong; it has then been reported.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Generic, Protocol, TypeVar

from lvsctl.topology import tree as t
from lvsctl.topology.report import Report, choice_hint
from lvsctl.topology.tree import Path
from lvsctl.topology.values import Wrong

T = TypeVar("T")
E = TypeVar("E", bound=StrEnum)
T_co = TypeVar("T_co", covariant=True)

Schema = dict[str, Any]


class Shape(Protocol[T_co]):
    """A kind of value. ``expected`` completes "must be …"; ``example`` is such a value."""

    @property
    def expected(self) -> str: ...

    @property
    def example(self) -> str: ...

    def read(self, tree: t.Tree, at: Path, report: Report) -> T_co | None:
        """The value that the tree holds, or None after reporting why there is none."""

    def schema(self) -> Schema:
        """The same in JSON Schema."""


def refuse(
    shape: Shape[object], tree: t.Tree, at: Path, report: Report, hint: str | None = None
) -> None:
    """Report that the value is of another kind than the shape's."""
    is_empty = isinstance(tree, t.Scalar) and tree.value is None
    found = "but is empty" if is_empty else f"not {t.described(tree)}"
    right = example_of(shape, at) if hint is None else hint
    report.add(at, f"must be {shape.expected}, {found}", right)


def example_of(shape: Shape[object], at: Path) -> str:
    """A hint with a value as it should be."""
    key = f"{at[-1]}: " if at and isinstance(at[-1], str) else ""
    return f"for example: {key}{shape.example}"


@dataclass(frozen=True)
class Word(Generic[T]):
    """Text that ``meaning`` turns into a value. With ``numeric``, numbers count as text.

    ``pattern``, ``longest`` (0: no limit) and ``excluded`` say in JSON Schema what
    ``meaning`` refuses.
    """

    expected: str
    example: str
    meaning: Callable[[str], T]
    pattern: str = ""
    longest: int = 0
    excluded: tuple[str, ...] = ()
    numeric: bool = False

    def read(self, tree: t.Tree, at: Path, report: Report) -> T | None:
        value = tree.value if isinstance(tree, t.Scalar) else None
        accepted = (str, int, float) if self.numeric else str
        if not isinstance(tree, t.Scalar) or value is True or not isinstance(value, accepted):
            free_text = (
                isinstance(tree, t.Scalar)
                and value is not None
                and not (self.pattern or self.numeric)
            )
            quote = f'put it in quotation marks: "{tree.text}"' if free_text else None  # type: ignore[union-attr]
            refuse(self, tree, at, report, quote)
            return None
        try:
            return self.meaning(tree.text)
        except Wrong as wrong:
            report.add(at, wrong.message, wrong.hint)
            return None

    def schema(self) -> Schema:
        schema: Schema = {"type": ["string", "number"] if self.numeric else "string"}
        if self.pattern:
            schema["pattern"] = f"^({self.pattern})$"
        if self.longest:
            schema["maxLength"] = self.longest
        if self.excluded:
            schema["not"] = {"enum": list(self.excluded)}
        return schema


@dataclass(frozen=True)
class Integer:
    """A whole number within limits; text that spells one will do."""

    low: int
    high: int
    example: str
    unit: str = ""

    @property
    def expected(self) -> str:
        unit = f" of {self.unit}" if self.unit else ""
        if self.low == self.high:
            return f"the number {self.low}"
        return f"a whole number{unit} from {self.low} to {self.high}"

    def read(self, tree: t.Tree, at: Path, report: Report) -> int | None:
        value = tree.value if isinstance(tree, t.Scalar) else None
        if isinstance(value, str) and re.fullmatch("0|[1-9][0-9]{0,30}", value):
            value = int(value)
        if isinstance(value, bool) or not isinstance(value, int):
            refuse(self, tree, at, report)
            return None
        if not self.low <= value <= self.high:
            refuse(self, tree, at, report)
            return None
        return value

    def schema(self) -> Schema:
        number = {"type": "integer", "minimum": self.low, "maximum": self.high}
        return {"anyOf": [number, {"type": "string", "pattern": "^(0|[1-9][0-9]{0,30})$"}]}


@dataclass(frozen=True)
class Choice(Generic[E]):
    """One word of an enumeration. ``synonyms`` are words of other tools, for hints only."""

    kind: type[E]
    what: str
    plural: str
    synonyms: Mapping[str, str] = field(default_factory=dict)

    @property
    def expected(self) -> str:
        return self.what

    @property
    def example(self) -> str:
        return next(iter(self.kind)).value

    def read(self, tree: t.Tree, at: Path, report: Report) -> E | None:
        words = [word.value for word in self.kind]
        if not isinstance(tree, t.Scalar) or tree.value is None:
            refuse(self, tree, at, report, f"{self.plural}: {', '.join(words)}")
            return None
        if tree.text not in words:
            word = self.synonyms.get(tree.text.lower(), tree.text)
            hint = choice_hint(word, words, self.plural)
            report.add(at, f"{t.quoted(tree.text)} is not {self.what}", hint)
            return None
        return self.kind(tree.text)

    def schema(self) -> Schema:
        return {"enum": [word.value for word in self.kind]}
