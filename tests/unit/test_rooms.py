"""DESIGN, "Rooms": imports only point upwards in the list, and verify knows no kernel."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[2] / "lvsctl"

ROOMS = (
    "errors",
    "linux",  # system calls
    "machine",  # apart: of the rest it knows nothing but errors and system calls
    "model",
    "resources",
    "netlink",
    "topology",
    "modes",
    "plan",
    "kernel",
    "traffic",
    "capture",
    "claims",
    "walk",
    "faults",
    "diagnosis",
    "watch",
    "engine",
    "output",
    "cli",
    "api",  # runs the command: it knows its words, not its modules
    "testing",
    "pytest_plugin",
    "__main__",
)
"""From the room that knows nothing to the one that knows everything."""

FORBIDDEN = {
    "claims": {"kernel", "capture"},
    "walk": {"kernel", "capture"},
    "diagnosis": {"faults", "kernel", "capture"},
}
"""Beyond the order: every verdict can be computed again from a saved report."""

HANDED_OVER = {("machine/guest/warm.py", "cli")}
"""The agent inside the machine runs lvsctl's own main: its reason to be."""


def room_of(path: Path) -> str:
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def imported_rooms(path: Path) -> set[str]:
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        names: list[str] = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module is not None:
            names = [node.module, *(f"{node.module}.{alias.name}" for alias in node.names)]
        for name in names:
            words = name.split(".")
            if words[0] == "lvsctl" and len(words) > 1 and words[1] in ROOMS:
                found.add(words[1])
    return found


MODULES = sorted(path for path in PACKAGE.rglob("*.py") if path != PACKAGE / "__init__.py")


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_imports_point_upwards(path: Path) -> None:
    room = room_of(path)
    assert room in ROOMS, f"{room} has no place in the order of rooms"
    place = str(path.relative_to(PACKAGE))
    for other in imported_rooms(path) - {room}:
        if (place, other) in HANDED_OVER:
            continue
        assert ROOMS.index(other) < ROOMS.index(room), f"{place} imports {other}, a later room"
        assert other not in FORBIDDEN.get(room, ()), f"{place} must not know {other}"
