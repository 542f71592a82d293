"""Collect every mistake of a topology file, each with its place."""

from __future__ import annotations

import re
from collections.abc import Callable
from collections.abc import Sequence as Sequence_
from typing import NamedTuple

from lvsctl.errors import Problem, TopologyError, quoted
from lvsctl.topology.tree import Mapping, Mark, Path, Scalar, Sequence, Tree

# Bounds the output for files that are not topologies at all.
MAX_PROBLEMS = 100


class Mistake(NamedTuple):
    """A problem by its path in the file; ``key``: of a key and not of its value."""

    path: Path
    message: str
    hint: str
    key: bool


class ProblemCollector:
    """The problems of one file. ``root``, its tree, turns paths into lines and columns."""

    def __init__(self, source: str) -> None:
        self.root: Tree | None = None
        self.source = source
        self._problems: dict[Problem, None] = {}
        self._paths: set[Path] = set()
        self.mistakes: dict[Mistake, None] = {}

    def add(self, path: Path, message: str, hint: str = "", *, key: bool = False) -> None:
        """Record a problem at ``path``: at its value or, with ``key``, at its key."""
        path, mark = place(self.root, path, key=key)
        self.mistakes[Mistake(path, message, hint, key)] = None
        self.add_at(mark, path, message, hint)

    def add_at(self, mark: Mark, path: Path, message: str, hint: str) -> None:
        """Record a problem whose place in the file is known."""
        if len(self._problems) >= MAX_PROBLEMS:
            return
        self._paths.update(path[:length] for length in range(len(path) + 1))
        problem = Problem(mark.line, mark.column, shown(path), message, hint)
        self._problems[problem] = None

    def adopt(self, other: ProblemCollector, services: Sequence_[int]) -> bool:
        """Add the problems of a corrected file that this one does not have; return whether any.

        ``services`` are the indexes here of the services that are left there.
        """
        before = len(self._problems)
        known = {(problem.line, problem.column) for problem in self._problems}
        for problem in other._problems:
            here = problem._replace(path=_SERVICE.sub(_renumbered(services), problem.path))
            # What was corrected is not judged again: its author may mean something else.
            if (here.line, here.column) not in known:
                self._problems[here] = None
        return len(self._problems) > before

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


_SERVICE = re.compile(r"^services\[(\d+)\]")


def _renumbered(services: Sequence_[int]) -> Callable[[re.Match[str]], str]:
    def renumbered(found: re.Match[str]) -> str:
        index = int(found[1])
        return f"services[{services[index] if index < len(services) else index}]"

    return renumbered


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
