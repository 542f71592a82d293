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
    "formats",
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
    "__main__",
)
"""From the room that knows nothing to the one that knows everything."""

FORBIDDEN = {
    "claims": {"kernel", "capture"},
    "walk": {"kernel", "capture"},
    "diagnosis": {"faults", "kernel", "capture"},
}
"""Beyond the order: every verdict can be computed again from a saved report."""


def room_of(path: Path) -> str:
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def module_of(path: Path) -> str:
    words = path.relative_to(PACKAGE.parent).with_suffix("").parts
    return ".".join(words[:-1] if words[-1] == "__init__" else words)


def imported(path: Path) -> set[str]:
    """Dotted names that a module imports, inside functions and for the type checker too."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module is not None:
            found |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
    return found


def imported_rooms(path: Path) -> set[str]:
    words = (name.split(".") for name in imported(path))
    return {word[1] for word in words if word[0] == "lvsctl" and word[1:2] and word[1] in ROOMS}


MODULES = sorted(path for path in PACKAGE.rglob("*.py") if path != PACKAGE / "__init__.py")


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_imports_point_upwards(path: Path) -> None:
    room = room_of(path)
    assert room in ROOMS, f"{room} has no place in the order of rooms"
    place = str(path.relative_to(PACKAGE))
    for other in imported_rooms(path) - {room}:
        assert ROOMS.index(other) < ROOMS.index(room), f"{place} imports {other}, a later room"
        assert other not in FORBIDDEN.get(room, ()), f"{place} must not know {other}"


def test_no_modules_import_each_other_in_a_circle() -> None:
    """Neither at the top, nor inside a function, nor for the type checker alone."""
    paths = {module_of(path): path for path in MODULES}
    graph = {}
    for module, path in paths.items():
        names = imported(path) & paths.keys()
        # `from package import module` names the package too, and means the module.
        packages = {name for name in names if any(n.startswith(f"{name}.") for n in names)}
        graph[module] = names - packages - {module}
    assert not [sorted(circle) for circle in strongly_connected(graph) if len(circle) > 1]


def strongly_connected(graph: dict[str, set[str]]) -> list[set[str]]:
    """Tarjan's algorithm."""
    found: list[set[str]] = []
    index: dict[str, int] = {}
    low: dict[str, int] = {}
    stack: list[str] = []

    def visit(node: str) -> None:
        index[node] = low[node] = len(index)
        stack.append(node)
        for other in sorted(graph[node]):
            if other not in index:
                visit(other)
            if other in stack:
                low[node] = min(low[node], low[other])
        if low[node] == index[node]:
            start = stack.index(node)
            found.append(set(stack[start:]))
            del stack[start:]

    for node in sorted(graph):
        if node not in index:
            visit(node)
    return found
