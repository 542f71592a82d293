"""YAML text → tree.

PyYAML's constructors throw the positions away, and its composer recurses and expands
aliases without limit. So this module reads the parser's *events* and builds its own
tree: bounded in size, depth and expansion, every key and value with line and column.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from lvsctl.topology import trees
from lvsctl.topology.tree import (
    Entry,
    Mapping,
    Mark,
    Path,
    Scalar,
    Sequence,
    Tree,
    described,
    quoted,
)

MAX_BYTES = 1 << 20
MAX_DEPTH = 16
MAX_VALUES = 50_000

_TEXT_TAGS = frozenset({"!", "tag:yaml.org,2002:str"})


@dataclass(frozen=True, slots=True)
class Flaw:
    """Something wrong with the YAML itself; ``mark`` None where there is no one place."""

    mark: Mark | None
    message: str
    hint: str = ""
    path: Path = ()


class NotATree(Exception):
    """The text cannot be read at all, or not safely."""

    def __init__(self, mark: Mark | None, message: str, hint: str = "") -> None:
        super().__init__(message)
        self.flaw = Flaw(mark, message, hint)


def tree_of(text: str | bytes) -> tuple[Tree, tuple[Flaw, ...]]:
    """The tree of one YAML document, and the flaws that did not prevent reading it.

    Raises NotATree where there is no tree: not UTF-8, not YAML, empty, several
    documents, too large or too deep.
    """
    words = decoded(text)
    known = trees.known(words)
    return parsed(words) if known is None else (known, ())


def parsed(text: str) -> tuple[Tree, tuple[Flaw, ...]]:
    """As ``tree_of``, by PyYAML whatever the text is."""
    return _Builder(text).built()


def decoded(text: str | bytes) -> str:
    """The file's characters. Raises NotATree where it is too large or not UTF-8."""
    try:
        raw = text.encode() if isinstance(text, str) else text
        if len(raw) > MAX_BYTES:
            raise NotATree(None, f"the file is larger than {MAX_BYTES} bytes", "a smaller file")
        return raw.decode()
    except UnicodeEncodeError as error:
        before = error.object[: error.start].encode(errors="replace")
    except UnicodeDecodeError as error:
        before = error.object[: error.start]
    mark = Mark(before.count(b"\n") + 1, len(before) - before.rfind(b"\n"))
    raise NotATree(mark, "the file is not UTF-8 text", "save the file as UTF-8")


class _Builder:
    """Turns the parser's events into one tree."""

    def __init__(self, text: str) -> None:
        self._text = text
        self._events: Iterator[Any] = iter(())
        self._anchors: dict[str, tuple[Tree, int]] = {}
        self._values = 0
        self._flaws: list[Flaw] = []

    def built(self) -> tuple[Tree, tuple[Flaw, ...]]:
        import yaml

        loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
        self._events = yaml.parse(self._text, Loader=loader)
        try:
            next(self._events)  # the stream starts
            if isinstance(next(self._events), yaml.StreamEndEvent):
                raise NotATree(Mark(1, 1), "the file is empty", "begin with: version: 1")
            tree = self._value(next(self._events), ())
            next(self._events)  # the document ends
            after = next(self._events)
            if not isinstance(after, yaml.StreamEndEvent):
                hint = "one file, one topology"
                raise NotATree(_mark(after), "a second YAML document starts here", hint)
        except yaml.YAMLError as error:
            raise _syntax_error(error, self._text) from None
        return tree, tuple(self._flaws)

    def _value(self, event: Any, path: Path) -> Tree:
        mark = _mark(event)
        self._count(1, mark)
        self._check_depth(len(path), mark)
        kind = type(event).__name__
        if kind == "AliasEvent":
            return self._aliased(event, path, mark)
        if event.tag and not (kind == "ScalarEvent" and event.tag in _TEXT_TAGS):
            tag = event.tag.replace("tag:yaml.org,2002:", "!!")
            message = f"the tag {quoted(tag)} is not allowed"
            self._flaws.append(Flaw(mark, message, "write the value without a tag", path))
        before = self._values
        tree: Tree
        if kind == "ScalarEvent":  # a plain one has the style None or ""
            tree = Scalar(event.value, bool(event.style) or event.tag in _TEXT_TAGS, mark)
        elif kind == "SequenceStartEvent":
            tree = self._sequence(mark, path)
        else:
            tree = self._mapping(mark, path)
        if event.anchor:
            self._anchors[event.anchor] = (tree, self._values - before + 1)
        return tree

    def _sequence(self, mark: Mark, path: Path) -> Sequence:
        items: list[Tree] = []
        while type(event := next(self._events)).__name__ != "SequenceEndEvent":
            items.append(self._value(event, (*path, len(items))))
        return Sequence(tuple(items), mark)

    def _mapping(self, mark: Mark, path: Path) -> Mapping:
        entries: dict[str, Entry] = {}
        while type(event := next(self._events)).__name__ != "MappingEndEvent":
            key_mark = _mark(event)
            key = self._value(event, (*path, "key"))
            name = key.text if isinstance(key, Scalar) else ""
            value = self._value(next(self._events), (*path, name))
            if flaw := self._key_flaw(key, key_mark, path, entries):
                self._flaws.append(flaw)
            else:
                entries[name] = Entry(key_mark, value)
        return Mapping(entries, mark)

    @staticmethod
    def _key_flaw(key: Tree, mark: Mark, path: Path, entries: dict[str, Entry]) -> Flaw | None:
        if not isinstance(key, Scalar):
            message = f"a key must be a word, not {described(key)}"
            return Flaw(mark, message, "such as name: value", path)
        if key.text == "<<" and not key.quoted:
            hint = "write the merged keys out"
            return Flaw(mark, "merge keys (<<) are not supported", hint, (*path, key.text))
        if key.text in entries:
            first = entries[key.text].key_mark.line
            hint = f"it is already in line {first}: remove one of the two"
            return Flaw(mark, f"the key {quoted(key.text)} is here twice", hint, (*path, key.text))
        return None

    def _aliased(self, event: Any, path: Path, mark: Mark) -> Tree:
        if event.anchor not in self._anchors:
            hint = f"an anchor &{event.anchor} must end before it is used"
            raise NotATree(mark, f"*{event.anchor} refers to nothing", hint)
        tree, size = self._anchors[event.anchor]
        self._count(size, mark)
        self._check_depth(len(path) + _height(tree), mark)
        return tree

    def _check_depth(self, depth: int, mark: Mark) -> None:
        if depth > MAX_DEPTH:
            hint = "a topology needs far fewer"
            raise NotATree(mark, f"nested more than {MAX_DEPTH} levels deep", hint)

    def _count(self, values: int, mark: Mark) -> None:
        self._values += values
        if self._values > MAX_VALUES:
            hint = "an alias counts as often as it is used"
            raise NotATree(mark, f"the file has more than {MAX_VALUES} values", hint)


def _height(tree: Tree) -> int:
    if isinstance(tree, Scalar):
        return 0
    if isinstance(tree, Sequence):
        return 1 + max(map(_height, tree.items), default=0)
    return 1 + max((_height(entry.value) for entry in tree.entries.values()), default=0)


# libyaml and PyYAML word some errors differently; each of these parts is in one of them.
_SYNTAX_HINTS = (
    ("tab", "indent with spaces, not tabs"),
    ("cannot start any token", "indent with spaces, not tabs; quote text that begins like this"),
    ("mapping values are not allowed", "check the indentation; quote text that contains ': '"),
    ("expected node content", "quote text that begins like this, such as '::1'"),
    ("expected the node content", "quote text that begins like this, such as '::1'"),
    ("',' or ']'", "close the list with ]"),
    ("',' or '}'", "close the mapping with }"),
    ("expected key", "check the indentation of this line"),
    ("'-' indicator", "check the indentation of this line"),
    ("<block end>", "check the indentation of this line"),
    ("':'", "a key is followed by a colon and a space"),
    ("end of stream", "close the quotation mark"),
)

_CONTEXTS = (
    ("sequence", "list"),
    ("block collection", "list"),
    ("mapping", "mapping"),
    ("quoted scalar", "text"),
)


def _syntax_error(error: Any, text: str) -> NotATree:
    """A parser's error, with what would be right."""
    at = getattr(error, "problem_mark", None)
    if at is None:  # the reader's errors have an offset instead
        position = getattr(error, "position", None)
        before = text[:position] if isinstance(position, int) else ""
        mark = Mark(before.count("\n") + 1, len(before) - before.rfind("\n"))
        return NotATree(mark, "not YAML: a control character", "YAML is printable text")
    problem = str(error.problem or error.context or "unreadable")
    hint = next((hint for part, hint in _SYNTAX_HINTS if part in problem), "")
    start = getattr(error, "context_mark", None)
    if start is not None and start.line != at.line:
        context = str(error.context)
        what = next((ours for part, ours in _CONTEXTS if part in context), "")
        hint = f"{hint}; the {what} begins in line {start.line + 1}" if what else hint
    return NotATree(Mark(at.line + 1, at.column + 1), f"not YAML: {problem}", hint)


def _mark(event: Any) -> Mark:
    return Mark(event.start_mark.line + 1, event.start_mark.column + 1)
