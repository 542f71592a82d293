"""Types of values: each reads a part of the tree and describes itself in JSON Schema.

One table of types (``topology.schema``) is both the validator and the published schema, so
that they always agree. pydantic is no alternative: an error needs the line and column of the
key or value that is wrong, which pydantic's input does not have.

Scalars are here, lists and mappings in ``collection_types``. ``read`` reports a value that is
wrong and returns None.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Generic, NamedTuple, Protocol, TypeVar

from lvsctl.errors import choice_hint, quoted
from lvsctl.topology import tree as t
from lvsctl.topology.parsers import InvalidValue
from lvsctl.topology.problems import ProblemCollector
from lvsctl.topology.tree import Path

T = TypeVar("T")
E = TypeVar("E", bound=StrEnum)
T_co = TypeVar("T_co", covariant=True)

Schema = dict[str, Any]


class ValueType(Protocol[T_co]):
    """A type of value. ``expected`` completes "must be …"; ``example`` is such a value."""

    @property
    def expected(self) -> str: ...

    @property
    def example(self) -> str: ...

    def read(self, tree: t.Tree, at: Path, problems: ProblemCollector) -> T_co | None:
        """Return the tree's value, or report what is wrong and return None."""

    def schema(self) -> Schema:
        """Return the type in JSON Schema."""


def refuse(
    value_type: ValueType[object],
    tree: t.Tree,
    at: Path,
    problems: ProblemCollector,
    hint: str | None = None,
) -> None:
    """Report that the value has the wrong type."""
    is_empty = isinstance(tree, t.Scalar) and tree.value is None
    found = "but is empty" if is_empty else f"not {t.described(tree)}"
    right = example_of(value_type, at) if hint is None else hint
    problems.add(at, f"must be {value_type.expected}, {found}", right)


def example_of(value_type: ValueType[object], at: Path) -> str:
    """Return a hint with an example of a valid value."""
    key = f"{at[-1]}: " if at and isinstance(at[-1], str) else ""
    return f"for example: {key}{value_type.example}"


@dataclass(frozen=True)
class Text(Generic[T]):
    """A text that ``parse`` turns into a value. With ``numeric``, numbers count as text.

    ``pattern``, ``longest`` (0: no limit) and ``excluded`` are the JSON Schema of what
    ``parse`` accepts.
    """

    expected: str
    example: str
    parse: Callable[[str], T]
    pattern: str = ""
    longest: int = 0
    excluded: tuple[str, ...] = ()
    numeric: bool = False

    def read(self, tree: t.Tree, at: Path, problems: ProblemCollector) -> T | None:
        value = tree.value if isinstance(tree, t.Scalar) else None
        accepted = (str, int, float) if self.numeric else str
        if not isinstance(tree, t.Scalar) or value is True or not isinstance(value, accepted):
            free_text = (
                isinstance(tree, t.Scalar)
                and value is not None
                and not (self.pattern or self.numeric)
            )
            quote = f'put it in quotation marks: "{tree.text}"' if free_text else None  # type: ignore[union-attr]
            refuse(self, tree, at, problems, quote)
            return None
        try:
            return self.parse(tree.text)
        except InvalidValue as wrong:
            problems.add(at, wrong.message, wrong.hint)
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


class Integer(NamedTuple):
    """A whole number within limits, as a number or as text."""

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

    def read(self, tree: t.Tree, at: Path, problems: ProblemCollector) -> int | None:
        value = tree.value if isinstance(tree, t.Scalar) else None
        if isinstance(value, str) and re.fullmatch("0|[1-9][0-9]{0,30}", value):
            value = int(value)
        if isinstance(value, bool) or not isinstance(value, int):
            refuse(self, tree, at, problems)
            return None
        if not self.low <= value <= self.high:
            refuse(self, tree, at, problems)
            return None
        return value

    def schema(self) -> Schema:
        number = {"type": "integer", "minimum": self.low, "maximum": self.high}
        return {"anyOf": [number, {"type": "string", "pattern": "^(0|[1-9][0-9]{0,30})$"}]}


class OrWord(NamedTuple):
    """A number, or a word that stands for one."""

    number: Integer
    word: str
    meaning: int

    @property
    def expected(self) -> str:
        return f"{self.number.expected}, or the word {self.word}"

    @property
    def example(self) -> str:
        return self.number.example

    def read(self, tree: t.Tree, at: Path, problems: ProblemCollector) -> int | None:
        if isinstance(tree, t.Scalar) and tree.value == self.word:
            return self.meaning
        return self.number.read(tree, at, problems)

    def schema(self) -> Schema:
        return {"anyOf": [*self.number.schema()["anyOf"], {"const": self.word}]}


class Boolean(NamedTuple):
    """The words true and false."""

    expected: str = "true or false"
    example: str = "true"

    def read(self, tree: t.Tree, at: Path, problems: ProblemCollector) -> bool | None:
        value = tree.value if isinstance(tree, t.Scalar) else None
        if not isinstance(value, bool):
            refuse(self, tree, at, problems)
            return None
        return value

    def schema(self) -> Schema:
        return {"type": "boolean"}


@dataclass(frozen=True)
class Choice(Generic[E]):
    """A value of an enumeration. ``synonyms`` are words of other tools, used in hints only."""

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

    def read(self, tree: t.Tree, at: Path, problems: ProblemCollector) -> E | None:
        words = [word.value for word in self.kind]
        if not isinstance(tree, t.Scalar) or tree.value is None:
            refuse(self, tree, at, problems, f"{self.plural}: {', '.join(words)}")
            return None
        if tree.text not in words:
            word = self.synonyms.get(tree.text.lower(), tree.text)
            hint = choice_hint(word, words, self.plural)
            problems.add(at, f"{quoted(tree.text)} is not {self.what}", hint)
            return None
        return self.kind(tree.text)

    def schema(self) -> Schema:
        return {"enum": [word.value for word in self.kind]}
