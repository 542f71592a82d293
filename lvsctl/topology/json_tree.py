"""JSON text → tree, without PyYAML.

Programs write topologies as JSON, which is also YAML. Importing PyYAML and parsing with it
takes longer than everything else that reading a file takes; Python's json is imported
anyway and is written in C. It knows no positions, so its tree will do only where there is
nothing to report, and only for text that means the same in YAML beyond doubt: PyYAML reads
the rest, and has the last word on every mistake.
"""

from __future__ import annotations

import re
from typing import Any, NoReturn

from lvsctl.topology.reading import MAX_DEPTH, MAX_VALUES, NotATree, decoded
from lvsctl.topology.tree import Entry, Mapping, Mark, Scalar, Sequence, Tree

NOWHERE = Mark(0, 0)
"""The mark of everything in such a tree."""

# YAML's escapes are not quite JSON's. A key is one only where its colon follows in the same
# line within 1024 characters (YAML 1.1, 7.3.2 "Simple keys").
_IN_DOUBT = re.compile(r'\\|"(?:(?! :)\s+:|[^"]{1000})')
_WORDS = {None: "null", True: "true", False: "false"}


class _InDoubt(ValueError):
    """JSON, but it may mean something else in YAML, or nothing."""


def tree_of(text: str | bytes) -> Tree | None:
    """The tree of a JSON object, but for the marks; None where PyYAML has to look at it."""
    import json

    try:
        known = decoded(text)
        if not _is_certain(known):
            return None
        # Numbers stay text: int() would refuse long ones, and -0 is to remain what it is.
        found = json.loads(
            known,
            object_pairs_hook=_mapping,
            parse_int=_number,
            parse_float=_refused,
            parse_constant=_refused,
        )
        return _tree(found, 0)
    except (NotATree, ValueError, RecursionError):
        return None


def _is_certain(text: str) -> bool:
    """Whether no character and no size lets YAML differ from JSON.

    What is not printable are tabs, carriage returns, byte order marks and YAML's other line
    breaks. Before each value and each key but the first stands one of four characters.
    """
    return (
        text.replace("\n", "").isprintable()
        and sum(map(text.count, ",:[{")) < MAX_VALUES
        and not _IN_DOUBT.search(text)
    )


def _mapping(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise _InDoubt  # a key that is here twice
    return found


def _number(text: str) -> Scalar:
    return Scalar(text, False, NOWHERE)


def _refused(text: str) -> NoReturn:
    raise _InDoubt(text)


def _tree(found: Any, depth: int) -> Tree:
    if isinstance(found, str):
        return Scalar(found, True, NOWHERE)
    if not isinstance(found, (dict, list)):
        return found if isinstance(found, Scalar) else Scalar(_WORDS[found], False, NOWHERE)
    if depth >= MAX_DEPTH:
        raise _InDoubt  # what it holds may be too deep
    inner = depth + 1
    if isinstance(found, list):
        return Sequence(tuple([_tree(item, inner) for item in found]), NOWHERE)
    entries = {key: Entry(NOWHERE, _tree(value, inner)) for key, value in found.items()}
    return Mapping(entries, NOWHERE)
