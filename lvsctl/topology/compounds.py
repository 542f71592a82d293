"""Shapes of lists and mappings, and of values that may be written in several ways.

Like those in ``spec.shapes``, each reads a piece of the tree and writes its own JSON Schema.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from lvsctl.topology import tree as t
from lvsctl.topology.report import Report, choice_hint, nearest
from lvsctl.topology.shapes import Schema, Shape, Word, example_of, refuse
from lvsctl.topology.tree import Path
from lvsctl.topology.values import Wrong

T = TypeVar("T")
S = TypeVar("S")


@dataclass(frozen=True)
class ListOf(Generic[T]):
    """A list; with ``distinct``, nothing stands in it twice."""

    item: Shape[T]
    expected: str
    example: str
    at_least: int = 0
    at_most: int = 0
    distinct: bool = False

    def read(self, tree: t.Tree, at: Path, report: Report) -> tuple[T | None, ...] | None:
        if not isinstance(tree, t.Sequence):
            refuse(self, tree, at, report)
            return None
        if not _size_fits(self, len(tree.items), at, report):
            return None
        found: list[T | None] = []
        for index, item in enumerate(tree.items):
            value = self.item.read(item, (*at, index), report)
            if self.distinct and value is not None and value in found:
                report.add((*at, index), f"{value} is here twice", "remove one of the two")
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
    """A mapping from names that the user chooses to values of one shape."""

    key: Word[str]
    value: Shape[T]
    expected: str
    example: str
    at_least: int = 0
    at_most: int = 0

    def read(self, tree: t.Tree, at: Path, report: Report) -> dict[str, T | None] | None:
        if not isinstance(tree, t.Mapping):
            refuse(self, tree, at, report)
            return None
        if not _size_fits(self, len(tree.entries), at, report):
            return None
        found: dict[str, T | None] = {}
        for name, entry in tree.entries.items():
            try:
                self.key.meaning(name)
            except Wrong as wrong:
                report.add((*at, name), wrong.message, wrong.hint, key=True)
            found[name] = self.value.read(entry.value, (*at, name), report)
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


def _size_fits(shape: ListOf[Any] | MapOf[Any], size: int, at: Path, report: Report) -> bool:
    if size < shape.at_least:
        report.add(at, "must not be empty", example_of(shape, at))
        return False
    if shape.at_most and size > shape.at_most:
        report.add(at, f"has {size} entries", f"at most {shape.at_most}")
        return False
    return True


@dataclass(frozen=True)
class Field:
    """One key of a record. ``default`` is what the documentation says about leaving it out."""

    shape: Shape[object]
    about: str
    required: bool = False
    default: Any = None

    def schema(self) -> Schema:
        extra = {} if self.default is None else {"default": self.default}
        return {"description": self.about, **self.shape.schema(), **extra}


@dataclass(frozen=True)
class Record(Generic[T]):
    """A mapping with known keys, which become the arguments of ``make``.

    ``any_of`` names keys of which at least one must be there.
    """

    make: Callable[..., T]
    fields: Mapping[str, Field]
    expected: str
    example: str
    any_of: tuple[str, ...] = ()

    def read(self, tree: t.Tree, at: Path, report: Report) -> T | None:
        if not isinstance(tree, t.Mapping):
            refuse(self, tree, at, report)
            return None
        meant = self._report_unknown(tree, at, report)
        for name, field in self.fields.items():
            if field.required and name not in tree.entries and name not in meant:
                hint = f"for example: {name}: {field.shape.example}"
                report.add(at, f"the key {t.quoted(name)} is missing", hint)
        if self.any_of and not any(name in tree.entries for name in self.any_of):
            first = self.any_of[0]
            example = f"for example: {first}: {self.fields[first].shape.example}"
            wanted = " or ".join(t.quoted(name) for name in self.any_of)
            report.add(at, f"needs {wanted}", example)
        return self.make(
            **{
                name: field.shape.read(tree.entries[name].value, (*at, name), report)
                for name, field in self.fields.items()
                if name in tree.entries
            }
        )

    def _report_unknown(self, tree: t.Mapping, at: Path, report: Report) -> set[str]:
        """Report unknown keys; the keys that they were probably meant to be."""
        missing = [name for name in self.fields if name not in tree.entries]
        meant: set[str] = set()
        for name in tree.entries:
            if name not in self.fields:
                hint = choice_hint(name, missing or self.fields, "other keys")
                report.add((*at, name), f"unknown key {t.quoted(name)}", hint, key=True)
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
        if self.any_of:
            schema["anyOf"] = [{"required": [name]} for name in self.any_of]
        return schema


@dataclass(frozen=True)
class ByKind(Generic[T]):
    """A value that may be written in several ways, told apart by their YAML kind.

    ``nothing`` is what an empty value means; None where it means nothing.
    """

    expected: str
    example: str
    single: Shape[T] | None = None
    listed: Shape[T] | None = None
    mapped: Shape[T] | None = None
    nothing: T | None = None

    def read(self, tree: t.Tree, at: Path, report: Report) -> T | None:
        if isinstance(tree, t.Scalar) and tree.value is None:
            if self.nothing is None:
                refuse(self, tree, at, report)
            return self.nothing
        kinds = {t.Scalar: self.single, t.Sequence: self.listed, t.Mapping: self.mapped}
        shape = kinds[type(tree)]
        if shape is None:
            refuse(self, tree, at, report)
            return None
        return shape.read(tree, at, report)

    def schema(self) -> Schema:
        ways = [w.schema() for w in (self.single, self.listed, self.mapped) if w is not None]
        return {"anyOf": ways + ([] if self.nothing is None else [{"type": "null"}])}


@dataclass(frozen=True)
class As(Generic[S, T]):
    """A shape whose value is turned into another type, which cannot fail."""

    shape: Shape[S]
    turn: Callable[[S], T]

    @property
    def expected(self) -> str:
        return self.shape.expected

    @property
    def example(self) -> str:
        return self.shape.example

    def read(self, tree: t.Tree, at: Path, report: Report) -> T | None:
        value = self.shape.read(tree, at, report)
        return None if value is None else self.turn(value)

    def schema(self) -> Schema:
        return self.shape.schema()
