"""Topologies whose YAML was read ahead of time: the shipped ones.

PyYAML takes 25 ms to import, most of it for regular expressions that libyaml has no use
for: as long as bringing a small lab up. So the trees of the shipped topologies lie in
trees.json (`make trees`), each with the very text that it is the tree of. Any other text,
down to a changed comment, is read by PyYAML.
"""

from __future__ import annotations

import functools
from typing import Any

from lvsctl.topology.tree import Entry, Mapping, Mark, Scalar, Sequence, Tree

FILE = f"{__file__.removesuffix('.py')}.json"


def known(text: str) -> Tree | None:
    """The tree of ``text``; None where it has to be read."""
    written = _trees().get(text)
    return None if written is None else _read(written)


@functools.cache
def _trees() -> dict[str, Any]:
    import json

    try:
        with open(FILE, encoding="utf-8") as file:  # noqa: PTH123 (a third of the time)
            return dict(json.load(file))
    except (OSError, ValueError):  # slower, and no worse: PyYAML reads them anew
        return {}


def written(tree: Tree) -> list[Any]:
    """``tree`` as JSON has it: line, column, and what is there."""
    place = [tree.mark.line, tree.mark.column]
    if isinstance(tree, Scalar):
        return [*place, tree.text, tree.quoted]
    if isinstance(tree, Sequence):
        return [*place, [written(item) for item in tree.items]]
    return [
        *place,
        {
            key: [entry.key_mark.line, entry.key_mark.column, written(entry.value)]
            for key, entry in tree.entries.items()
        },
    ]


def _read(said: list[Any]) -> Tree:
    line, column, what, *quoted = said
    mark = Mark(line, column)
    if isinstance(what, str):
        return Scalar(what, quoted[0], mark)
    if isinstance(what, list):
        return Sequence(tuple(map(_read, what)), mark)
    entries = {key: Entry(Mark(one[0], one[1]), _read(one[2])) for key, one in what.items()}
    return Mapping(entries, mark)
