"""A YAML document as a tree with the line and column of every value.

Plain scalars follow YAML 1.2's core schema, as editors do, and not YAML 1.1's: ``on`` and
``no`` are text, ``1:30`` is text and not 90, ``010`` is not 8.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from lvsctl.errors import quoted

_INTEGER = re.compile(r"[-+]?(0|[1-9][0-9]{0,30})")
_FLOAT = re.compile(r"[-+]?(\.[0-9]+|(0|[1-9][0-9]*)(\.[0-9]*)?)([eE][-+]?[0-9]+)?")
_WORDS: dict[str, bool | None] = {
    **dict.fromkeys(("", "~", "null", "Null", "NULL"), None),
    **dict.fromkeys(("true", "True", "TRUE"), True),
    **dict.fromkeys(("false", "False", "FALSE"), False),
}


class Mark(NamedTuple):
    """A place in the file; line and column count from 1."""

    line: int
    column: int


class Scalar(NamedTuple):
    """A single value as written. ``quoted`` values are always text."""

    text: str
    quoted: bool
    mark: Mark

    @property
    def value(self) -> str | int | float | bool | None:
        """The value in YAML 1.2."""
        if self.quoted:
            return self.text
        if self.text in _WORDS:
            return _WORDS[self.text]
        if _INTEGER.fullmatch(self.text):
            return int(self.text)
        if _FLOAT.fullmatch(self.text):
            return float(self.text)
        return self.text


@dataclass(frozen=True, slots=True)
class Sequence:
    """A list."""

    items: tuple[Tree, ...]
    mark: Mark


class Entry(NamedTuple):
    """One key of a mapping with its value."""

    key_mark: Mark
    value: Tree


@dataclass(frozen=True, slots=True)
class Mapping:
    """A mapping, its keys as text in the order of the file."""

    entries: dict[str, Entry] = field(hash=False)
    mark: Mark


Tree = Scalar | Sequence | Mapping

# The position of a value: ("services", 0, "port") is services[0].port.
Path = tuple[str | int, ...]


def plain(tree: Tree) -> Any:
    """Convert the tree to lists, dicts and values, which a JSON Schema can check."""
    if isinstance(tree, Scalar):
        return tree.value
    if isinstance(tree, Sequence):
        return [plain(item) for item in tree.items]
    return {key: plain(entry.value) for key, entry in tree.entries.items()}


def described(tree: Tree) -> str:
    """Describe the value for a message, such as "the text 'eighty'"."""
    if isinstance(tree, Sequence):
        return "a list"
    if isinstance(tree, Mapping):
        return "a mapping"
    value = tree.value
    if value is None:
        return "nothing"
    if isinstance(value, bool):
        return f"the truth value {tree.text}"
    if isinstance(value, str):
        return f"the text {quoted(value)}"
    return f"the number {quoted(tree.text)[1:-1]}"
