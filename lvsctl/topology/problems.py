"""Collect every mistake of a topology file, each with its place."""

from __future__ import annotations

from lvsctl.errors import Problem, TopologyError, quoted
from lvsctl.topology.tree import Mapping, Mark, Path, Scalar, Sequence, Tree

# Bounds the output for files that are not topologies at all.
MAX_PROBLEMS = 100


class ProblemCollector:
    """The problems of one file. ``root``, its tree, turns paths into lines and columns."""

    def __init__(self, source: str) -> None:
        self.root: Tree | None = None
        self.source = source
        self._problems: dict[Problem, None] = {}
        self._paths: set[Path] = set()

    def add(self, path: Path, message: str, hint: str = "", *, key: bool = False) -> None:
        """Record a problem at ``path``: at its value or, with ``key``, at its key."""
        path, mark = place(self.root, path, key=key)
        self.add_at(mark, path, message, hint)

    def add_at(self, mark: Mark, path: Path, message: str, hint: str) -> None:
        """Record a problem whose place in the file is known."""
        if len(self._problems) >= MAX_PROBLEMS:
            return
        self._paths.update(path[:length] for length in range(len(path) + 1))
        problem = Problem(mark.line, mark.column, shown(path), message, hint)
        self._problems[problem] = None

    def touches(self, *path: str | int) -> bool:
        """Whether a problem was recorded at or below ``path``."""
        return path in self._paths

    def raise_any(self) -> None:
        """Raise TopologyError with all problems, if there are any."""
        if self._problems:
            raise self.error()

    def error(self) -> TopologyError:
        """Return all problems as one error."""
        return TopologyError(self.source, tuple(self._problems))


def place(root: Tree | None, path: Path, *, key: bool = False) -> tuple[Path, Mark]:
    """Find ``path`` in the file: the path as the file writes it, and its line and column.

    The path is adapted to the shorthand in use: in a list, a name finds the item of that
    name, and a path ends at a scalar. A list or a mapping is located at its key. A path
    that does not exist is located at its last part that does.
    """
    if root is None:
        return path, Mark(0, 0)
    here: Tree = root
    mark = root.mark
    actual: list[str | int] = []
    for depth, step in enumerate(path):
        if isinstance(here, Mapping):
            entry = here.entries.get(str(step))
            if entry is None:
                return (*actual, *path[depth:]), mark
            here, actual = entry.value, [*actual, str(step)]
            at_key = key and depth == len(path) - 1
            is_single = isinstance(here, Scalar) and here.value is not None
            mark = here.mark if is_single and not at_key else entry.key_mark
        elif isinstance(here, Sequence):
            index = step if isinstance(step, int) else _index_of(here, step)
            if index is None or not 0 <= index < len(here.items):
                return (*actual, *path[depth:]), mark
            here, actual = here.items[index], [*actual, index]
            mark = here.mark
        else:
            break
    return tuple(actual), mark


def _index_of(sequence: Sequence, name: str) -> int | None:
    for index, item in enumerate(sequence.items):
        if isinstance(item, Scalar) and item.text == name:
            return index
    return None


def shown(path: Path) -> str:
    """Format a path, such as ``services[0].port``."""
    parts = []
    for step in path:
        if isinstance(step, int):
            parts.append(f"[{step}]")
        else:
            name = step if step.isprintable() and 0 < len(step) <= 60 else quoted(step)
            parts.append(f".{name}")
    return "".join(parts).removeprefix(".")
