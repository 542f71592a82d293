"""Types of lists and mappings, and of values that can be written in several ways.

Like the types in ``scalar_types``, each reads a part of the tree and describes itself in
JSON Schema.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from dataclasses import field as with_default
from typing import Any, Generic, NamedTuple, TypeVar

from lvsctl.errors import choice_hint, nearest, quoted
from lvsctl.topology import tree as t
from lvsctl.topology.parsers import InvalidValue
from lvsctl.topology.problems import ProblemCollector
from lvsctl.topology.scalar_types import Schema, Text, ValueType, example_of, refuse
from lvsctl.topology.tree import Path

T = TypeVar("T")
S = TypeVar("S")


@dataclass(frozen=True)
class ListOf(Generic[T]):
    """A list; with ``distinct``, without duplicates."""

    item: ValueType[T]
    expected: str
    example: str
    at_least: int = 0
    at_most: int = 0
    distinct: bool = False

    def read(
        self, tree: t.Tree, at: Path, problems: ProblemCollector
    ) -> tuple[T | None, ...] | None:
        if not isinstance(tree, t.Sequence):
            refuse(self, tree, at, problems)
            return None
        if not _size_fits(self, len(tree.items), at, problems):
            return None
        found: list[T | None] = []
        for index, item in enumerate(tree.items):
            value = self.item.read(item, (*at, index), problems)
            if self.distinct and value is not None and value in found:
                problems.add((*at, index), f"{value} is a duplicate", "remove one of the two")
                value = None
            found.append(value)
        return tuple(found)

    def schema(self) -> Schema:
        schema: Schema = {"type": "array", "items": self.item.schema()}
        if self.at_least:
            schema["minItems"] = self.at_least
        if self.at_most:
            schema["maxItems"] = self.at_most
        return schema | ({"uniqueItems": True} if self.distinct else {})


@dataclass(frozen=True)
class MapOf(Generic[T]):
    """A mapping from names that the user chooses to values of one type."""

    key: Text[str]
    value: ValueType[T]
    expected: str
    example: str
    at_least: int = 0
    at_most: int = 0

    def read(
        self, tree: t.Tree, at: Path, problems: ProblemCollector
    ) -> dict[str, T | None] | None:
        if not isinstance(tree, t.Mapping):
            refuse(self, tree, at, problems)
            return None
        if not _size_fits(self, len(tree.entries), at, problems):
            return None
        found: dict[str, T | None] = {}
        for name, entry in tree.entries.items():
            try:
                self.key.parse(name)
            except InvalidValue as wrong:
                problems.add((*at, name), wrong.message, wrong.hint, key=True)
            found[name] = self.value.read(entry.value, (*at, name), problems)
        return found

    def schema(self) -> Schema:
        schema: Schema = {
            "type": "object",
            "propertyNames": self.key.schema(),
            "additionalProperties": self.value.schema(),
        }
        if self.at_least:
            schema["minProperties"] = self.at_least
        return schema | ({"maxProperties": self.at_most} if self.at_most else {})


def _size_fits(
    value_type: ListOf[Any] | MapOf[Any], size: int, at: Path, problems: ProblemCollector
) -> bool:
    if size < value_type.at_least:
        problems.add(at, "must not be empty", example_of(value_type, at))
        return False
    if value_type.at_most and size > value_type.at_most:
        problems.add(at, f"has {size} entries", f"at most {value_type.at_most}")
        return False
    return True


class Key(NamedTuple):
    """One key of a record. ``default`` is for the documentation: the value if it is omitted."""

    value_type: ValueType[object]
    about: str
    required: bool = False
    default: Any = None

    def schema(self) -> Schema:
        extra = {} if self.default is None else {"default": self.default}
        return {"description": self.about, **self.value_type.schema(), **extra}


@dataclass(frozen=True)
class Record(Generic[T]):
    """A mapping with known keys, which become the arguments of ``make``.

    At least one of the keys in each group of ``any_of`` is required. ``words`` are hints for
    keys that users know from elsewhere.
    """

    make: Callable[..., T]
    fields: Mapping[str, Key]
    expected: str
    example: str
    any_of: tuple[tuple[str, ...], ...] = ()
    words: Mapping[str, str] = with_default(default_factory=dict)

    def read(self, tree: t.Tree, at: Path, problems: ProblemCollector) -> T | None:
        if not isinstance(tree, t.Mapping):
            refuse(self, tree, at, problems)
            return None
        meant = self._report_unknown(tree, at, problems)
        for name, field in self.fields.items():
            if field.required and name not in tree.entries and name not in meant:
                hint = f"for example: {name}: {field.value_type.example}"
                problems.add(at, f"the key {quoted(name)} is missing", hint)
        for group in self.any_of:
            if not any(name in tree.entries or name in meant for name in group):
                first = group[0]
                example = f"for example: {first}: {self.fields[first].value_type.example}"
                wanted = " or ".join(quoted(name) for name in group)
                problems.add(at, f"needs {wanted}", example)
        return self.make(
            **{
                name: field.value_type.read(tree.entries[name].value, (*at, name), problems)
                for name, field in self.fields.items()
                if name in tree.entries
            }
        )

    def _report_unknown(self, tree: t.Mapping, at: Path, problems: ProblemCollector) -> set[str]:
        """Report unknown keys and return the keys that were probably meant."""
        missing = [name for name in self.fields if name not in tree.entries]
        meant: set[str] = set()
        for name in tree.entries:
            if name not in self.fields:
                hint = self.words.get(name.lower().replace("_", "-")) or choice_hint(
                    name, missing or self.fields, "other keys"
                )
                problems.add((*at, name), f"unknown key {quoted(name)}", hint, key=True)
                meant.update(nearest(name, missing)[:1])
        return meant

    def schema(self) -> Schema:
        schema: Schema = {
            "type": "object",
            "properties": {name: field.schema() for name, field in self.fields.items()},
            "additionalProperties": False,
        }
        required = [name for name, field in self.fields.items() if field.required]
        if required:
            schema["required"] = required
        groups = [{"anyOf": [{"required": [n]} for n in group]} for group in self.any_of]
        if len(groups) == 1:
            schema |= groups[0]
        elif groups:
            schema["allOf"] = groups
        return schema


@dataclass(frozen=True)
class OneOf(Generic[T]):
    """A value that can be written as a scalar, a list or a mapping.

    ``nothing`` is the value of an empty entry; None if it must not be empty.
    """

    expected: str
    example: str
    single: ValueType[T] | None = None
    listed: ValueType[T] | None = None
    mapped: ValueType[T] | None = None
    nothing: T | None = None

    def read(self, tree: t.Tree, at: Path, problems: ProblemCollector) -> T | None:
        if isinstance(tree, t.Scalar) and tree.value is None:
            if self.nothing is None:
                refuse(self, tree, at, problems)
            return self.nothing
        kinds = {t.Scalar: self.single, t.Sequence: self.listed, t.Mapping: self.mapped}
        value_type = kinds[type(tree)]
        if value_type is None:
            refuse(self, tree, at, problems)
            return None
        return value_type.read(tree, at, problems)

    def schema(self) -> Schema:
        ways = [w.schema() for w in (self.single, self.listed, self.mapped) if w is not None]
        return {"anyOf": ways + ([] if self.nothing is None else [{"type": "null"}])}


@dataclass(frozen=True)
class Converted(Generic[S, T]):
    """A type whose value is converted by ``turn``, which cannot fail."""

    value_type: ValueType[S]
    turn: Callable[[S], T]

    @property
    def expected(self) -> str:
        return self.value_type.expected

    @property
    def example(self) -> str:
        return self.value_type.example

    def read(self, tree: t.Tree, at: Path, problems: ProblemCollector) -> T | None:
        value = self.value_type.read(tree, at, problems)
        return None if value is None else self.turn(value)

    def schema(self) -> Schema:
        return self.value_type.schema()
