"""A broken topology with its mistakes corrected as their hints propose, to find further ones.

Some mistakes can only be judged once others are corrected: whether a forwarding method's rules hold
needs every name and address. So that a file's author reads all of them at once, each value is
replaced by the one that its hint proposes; what has no such value is left out if that is possible.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable

from lvsctl.topology.problems import Mistake
from lvsctl.topology.tree import Entry, Mapping, Mark, Path, Scalar, Sequence, Tree

_PROPOSED = re.compile(r"did you mean '([^']+)'\?|write ([^\s`]+)$")
"""The hints that contain the right value."""

_LEFT_OUT = frozenset(
    {
        *("delay", "loss", "rate", "mtu", "routes", "sysctls", "run", "scheduler", "persistence"),
        *(
            "encapsulation",
            "one_packet",
            "snat",
            "protocol",
            "weight",
            "upper",
            "lower",
            "description",
        ),
    }
)
"""Optional keys without which the rest can be judged."""

_MOST = 20
"""Mistakes above which a file is not a topology with typing errors."""

Correct = Callable[[Tree], Tree | None]


def repaired(root: Tree, mistakes: Iterable[Mistake]) -> tuple[Tree, list[int]] | None:
    """Return the corrected tree, and the indexes in the file of the services that are left in it.

    None if there are too many mistakes, or one that cannot be corrected or left out.
    """
    found = list(mistakes)
    if len(found) > _MOST:
        return None
    tree: Tree = root
    without: set[int] = set()
    for one in found:
        match one.path:
            case ("services", int(index), *_) if not _proposal(one) and not _is_optional(one):
                without.add(index)
                continue
        corrected = _corrected(tree, one)
        if corrected is None:
            return None
        tree = corrected
    if not isinstance(tree, Mapping):
        return None
    services = tree.entries.get("services")
    if services is None or not isinstance(services.value, Sequence):
        return (tree, []) if not without else None
    kept = [index for index in range(len(services.value.items)) if index not in without]
    if not kept:
        return None
    items = tuple(services.value.items[index] for index in kept)
    return _with(tree, "services", Sequence(items, services.value.mark)), kept


def _proposal(one: Mistake) -> str:
    found = _PROPOSED.match(one.hint)
    return (found[1] or found[2]) if found else ""


def _is_optional(one: Mistake) -> bool:
    return one.message.startswith("unknown key") or any(step in _LEFT_OUT for step in one.path)


def _corrected(tree: Tree, one: Mistake) -> Tree | None:
    proposal = _proposal(one)
    if one.path in ((), ("version",), ("name",)) and isinstance(tree, Mapping):
        missing = (key for key in ("version", "name") if f"'{key}'" in one.message)
        key = str(one.path[0]) if one.path else next(missing, "")
        text = "1" if key == "version" else "lab"
        return _with(tree, key, Scalar(text, False, tree.mark)) if key else None
    above, last = one.path[:-1], str(one.path[-1])
    if proposal and one.message.startswith("unknown key"):
        return _edit(tree, above, lambda there: _renamed(there, last, proposal))
    if proposal:
        return _edit(tree, one.path, lambda there: _replaced(there, proposal)) or _edit(
            tree, above, lambda there: _renamed(there, last, proposal)
        )
    if _is_optional(one):
        at = next((i for i, step in enumerate(one.path) if step in _LEFT_OUT), len(one.path) - 1)
        return _edit(tree, one.path[:at], lambda there: _renamed(there, str(one.path[at]), ""))
    match one.path:
        case ("nodes", str(), "networks", str(), *_) if not one.key:  # an address is chosen
            return _edit(tree, one.path[:4], lambda there: Scalar("", False, there.mark))
    return None


def _edit(tree: Tree, path: Path, correct: Correct) -> Tree | None:
    """Return the tree with the part at ``path`` corrected; None if it has no such part."""
    if not path:
        return correct(tree)
    step = path[0]
    if isinstance(tree, Mapping) and (entry := tree.entries.get(str(step))) is not None:
        value = _edit(entry.value, path[1:], correct)
        return None if value is None else _with(tree, str(step), value)
    if isinstance(tree, Sequence) and isinstance(step, int) and step < len(tree.items):
        value = _edit(tree.items[step], path[1:], correct)
        if value is not None:
            return Sequence((*tree.items[:step], value, *tree.items[step + 1 :]), tree.mark)
    return None


def _with(tree: Mapping, key: str, value: Tree) -> Mapping:
    mark = tree.entries[key].key_mark if key in tree.entries else Mark(*tree.mark)
    return Mapping({**tree.entries, key: Entry(mark, value)}, tree.mark)


def _replaced(tree: Tree, text: str) -> Tree | None:
    return Scalar(text, False, tree.mark) if isinstance(tree, Scalar) and tree.text else None


def _renamed(tree: Tree, key: str, name: str) -> Tree | None:
    """Return a mapping whose ``key`` has another name; without a name, it is left out."""
    if not isinstance(tree, Mapping) or key not in tree.entries:
        return None
    entries = {
        (name if old == key else old): entry
        for old, entry in tree.entries.items()
        if old != key or (name and name not in tree.entries)
    }
    return Mapping(entries, tree.mark)
