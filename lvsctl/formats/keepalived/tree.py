"""The blocks of keepalived.conf: lines, each perhaps with a block in braces."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

from lvsctl.formats.configuration import Notes, Place
from lvsctl.formats.keepalived.lines import Line

MAX_DEPTH = 32


@dataclass(slots=True)
class Block:
    """A line's words and, if a block in braces follows, the lines in it (else None)."""

    words: tuple[str, ...]
    place: Place
    children: list[Block] | None = field(default=None)

    @property
    def keyword(self) -> str:
        """The first word."""
        return self.words[0]

    @property
    def arguments(self) -> tuple[str, ...]:
        """The words after the first."""
        return self.words[1:]

    def each(self, *keywords: str) -> Iterator[Block]:
        """Yield the lines of the block that begin with one of the keywords."""
        for child in self.children or ():
            if child.keyword in keywords:
                yield child


def build_tree(lines: Iterable[Line], notes: Notes) -> Block:
    """Build the tree of a configuration; the root has no words of its own."""
    root = Block(("",), Place(notes.source, 1), [])
    stack = [root]
    for line in lines:
        here = stack[-1].children
        assert here is not None  # noqa: S101 - for the type checker
        if line.words == ("{",):
            if not here or here[-1].children is not None:
                hint = (
                    "a block belongs to the line before it, such as: virtual_server 10.0.0.1 80 {"
                )
                notes.wrong(line.place, "this { belongs to no line", hint)
                here.append(Block(("",), line.place))
            elif len(stack) > MAX_DEPTH:
                notes.wrong(line.place, f"blocks are nested more than {MAX_DEPTH} levels deep")
                return root
            here[-1].children = []
            stack.append(here[-1])
        elif line.words == ("}",):
            if len(stack) == 1:
                notes.wrong(line.place, "this } closes no block", "remove it")
            else:
                stack.pop()
        else:
            here.append(Block(line.words, line.place))
    for block in stack[1:]:
        notes.wrong(block.place, f"the block of {block.keyword} is not closed", "add a }")
    return root
