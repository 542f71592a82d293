"""Read a YAML document into a tree in which every key and value has its line and column.

PyYAML's constructors lose the positions, and its composer recurses and expands aliases
without limit. This module reads the parser's events and builds its own tree, with limits
on size, depth and the number of values. JSON is YAML and is read the same way.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import yaml

from lvsctl.errors import quoted
from lvsctl.topology.problems import ProblemCollector
from lvsctl.topology.shipped import MAX_BYTES
from lvsctl.topology.tree import Entry, Mapping, Mark, Path, Scalar, Sequence, Tree, described

MAX_DEPTH = 16
MAX_VALUES = 50_000

_TEXT_TAGS = frozenset({"!", "tag:yaml.org,2002:str"})
_LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
_UNKNOWN = Mark(0, 0)


def parse_yaml(text: str | bytes, problems: ProblemCollector) -> Tree:
    """Parse one YAML document; mistakes that do not prevent reading it go to ``problems``.

    Raises TopologyError where there is no tree: not UTF-8, not YAML, empty, several
    documents, too large or too deep.
    """
    try:
        return _TreeBuilder(_decode(text), problems).build()
    except _UnreadableYaml as error:
        only = ProblemCollector(problems.source)
        only.add_at(error.mark, (), error.message, error.hint)
        raise only.error() from None


class _UnreadableYaml(Exception):
    """The text cannot be read at all, or not safely."""

    def __init__(self, mark: Mark, message: str, hint: str = "") -> None:
        super().__init__(message)
        self.mark = mark
        self.message = message
        self.hint = hint


def _decode(text: str | bytes) -> str:
    """Decode the file. Raises _UnreadableYaml where it is too large or not UTF-8."""
    try:
        raw = text.encode() if isinstance(text, str) else text
        if len(raw) > MAX_BYTES:
            message = f"the file is larger than {MAX_BYTES} bytes"
            raise _UnreadableYaml(_UNKNOWN, message, "a smaller file")
        return raw.decode()
    except UnicodeEncodeError as error:
        before = error.object[: error.start].encode(errors="replace")
    except UnicodeDecodeError as error:
        before = error.object[: error.start]
    mark = Mark(before.count(b"\n") + 1, len(before) - before.rfind(b"\n"))
    raise _UnreadableYaml(mark, "the file is not UTF-8 text", "save the file as UTF-8")


class _TreeBuilder:
    """Build one tree from the parser's events."""

    def __init__(self, text: str, problems: ProblemCollector) -> None:
        self._text = text
        self._problems = problems
        self._events: Iterator[Any] = iter(())
        self._anchors: dict[str, tuple[Tree, int]] = {}
        self._values = 0

    def build(self) -> Tree:
        self._events = yaml.parse(self._text, Loader=_LOADER)
        try:
            next(self._events)  # the stream starts
            if isinstance(next(self._events), yaml.StreamEndEvent):
                raise _UnreadableYaml(Mark(1, 1), "the file is empty", "begin with: version: 1")
            tree = self._value(next(self._events), ())
            next(self._events)  # the document ends
            after = next(self._events)
            if not isinstance(after, yaml.StreamEndEvent):
                hint = "one file, one topology"
                raise _UnreadableYaml(_mark(after), "a second YAML document starts here", hint)
        except yaml.YAMLError as error:
            raise _syntax_error(error, self._text) from None
        return tree

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
            self._problems.add_at(mark, path, message, "write the value without a tag")
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
            if self._is_valid_key(key, key_mark, path, entries):
                entries[name] = Entry(key_mark, value)
        return Mapping(entries, mark)

    def _is_valid_key(self, key: Tree, mark: Mark, path: Path, entries: dict[str, Entry]) -> bool:
        if not isinstance(key, Scalar):
            message = f"a key must be a word, not {described(key)}"
            self._problems.add_at(mark, path, message, "such as name: value")
            return False
        if key.text == "<<" and not key.quoted:
            hint = "write the merged keys out"
            message = "merge keys (<<) are not supported"
            self._problems.add_at(mark, (*path, key.text), message, hint)
            return False
        if key.text in entries:
            first = entries[key.text].key_mark.line
            hint = f"it is also in line {first}: remove one of the two"
            message = f"the key {quoted(key.text)} is a duplicate"
            self._problems.add_at(mark, (*path, key.text), message, hint)
            return False
        return True

    def _aliased(self, event: Any, path: Path, mark: Mark) -> Tree:
        if event.anchor not in self._anchors:
            hint = f"an anchor &{event.anchor} must end before it is used"
            raise _UnreadableYaml(mark, f"*{event.anchor} is an unknown alias", hint)
        tree, size = self._anchors[event.anchor]
        self._count(size, mark)
        self._check_depth(len(path) + _height(tree), mark)
        return tree

    def _check_depth(self, depth: int, mark: Mark) -> None:
        if depth > MAX_DEPTH:
            hint = "a topology needs far fewer"
            raise _UnreadableYaml(mark, f"nested more than {MAX_DEPTH} levels deep", hint)

    def _count(self, values: int, mark: Mark) -> None:
        self._values += values
        if self._values > MAX_VALUES:
            hint = "an alias counts as often as it is used"
            raise _UnreadableYaml(mark, f"the file has more than {MAX_VALUES} values", hint)


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
    ("Unicode character escape", "write the character itself, not its UTF-16 surrogates"),
    ("end of stream", "close the quotation mark"),
)

_CONTEXTS = (
    ("sequence", "list"),
    ("block collection", "list"),
    ("mapping", "mapping"),
    ("quoted scalar", "text"),
)


def _syntax_error(error: Any, text: str) -> _UnreadableYaml:
    """A parser's error, with what would be right."""
    at = getattr(error, "problem_mark", None)
    if at is None:  # the reader's errors have an offset instead
        position = getattr(error, "position", None)
        before = text[:position] if isinstance(position, int) else ""
        mark = Mark(before.count("\n") + 1, len(before) - before.rfind("\n"))
        return _UnreadableYaml(mark, "not YAML: a control character", "YAML is printable text")
    problem = str(error.problem or error.context or "unreadable")
    hint = next((hint for part, hint in _SYNTAX_HINTS if part in problem), "")
    start = getattr(error, "context_mark", None)
    if start is not None and start.line != at.line:
        context = str(error.context)
        what = next((ours for part, ours in _CONTEXTS if part in context), "")
        hint = f"{hint}; the {what} begins in line {start.line + 1}" if what else hint
    return _UnreadableYaml(Mark(at.line + 1, at.column + 1), f"not YAML: {problem}", hint)


def _mark(event: Any) -> Mark:
    return Mark(event.start_mark.line + 1, event.start_mark.column + 1)
