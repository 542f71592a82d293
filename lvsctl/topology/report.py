"""Collecting every mistake of a topology file, each at its place."""

from __future__ import annotations

from collections.abc import Iterable

from lvsctl.errors import Problem, SpecError
from lvsctl.topology.reading import Flaw
from lvsctl.topology.tree import Mapping, Mark, Path, Scalar, Sequence, Tree, quoted

# A file that is wrong in more places is not the file its author meant.
MAX_PROBLEMS = 100


class Report:
    """The problems of one file. Paths are turned into lines and columns by its tree."""

    def __init__(self, source: str, root: Tree | None = None) -> None:
        self._source = source
        self._root = root
        self._problems: dict[Problem, None] = {}
        self._paths: set[Path] = set()

    def add(self, path: Path, message: str, hint: str = "", *, key: bool = False) -> None:
        """Record a problem at ``path``: at its value or, with ``key``, at its key."""
        if len(self._problems) >= MAX_PROBLEMS:
            return
        path, mark = place(self._root, path, key=key)
        self._paths.update(path[:length] for length in range(len(path) + 1))
        problem = Problem(mark.line, mark.column, shown(path), message, hint)
        self._problems[problem] = None

    def add_flaw(self, flaw: Flaw) -> None:
        """Record something wrong with the YAML itself."""
        mark = flaw.mark or Mark(0, 0)
        problem = Problem(mark.line, mark.column, shown(flaw.path), flaw.message, flaw.hint)
        self._problems[problem] = None
        self._paths.update(flaw.path[:length] for length in range(len(flaw.path) + 1))

    def touches(self, *path: str | int) -> bool:
        """Whether a problem was recorded at ``path`` or below it."""
        return path in self._paths

    def raise_any(self) -> None:
        """Raise SpecError with all problems, if there are any."""
        if self._problems:
            raise self.error()

    def error(self) -> SpecError:
        """The problems as one error."""
        return SpecError(self._source, tuple(self._problems))


def place(root: Tree | None, path: Path, *, key: bool = False) -> tuple[Path, Mark]:
    """``path`` as the file writes it, and where that is.

    A path in the lab's terms is adapted to the shorthand in use: in a list, a name
    finds the item of that name; below a single value there is nothing further. A value
    that is a list or a mapping is found at its key, where a person looks for it. A path
    that leads to nothing is placed at the last part that exists.
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
    """The path as text, such as ``services[0].port``."""
    parts = []
    for step in path:
        if isinstance(step, int):
            parts.append(f"[{step}]")
        else:
            name = step if step.isprintable() and 0 < len(step) <= 60 else quoted(step)
            parts.append(f".{name}")
    return "".join(parts).removeprefix(".")


def nearest(word: str, known: Iterable[str]) -> tuple[str, ...]:
    """The known words most like ``word``, the likeliest first; at most three."""
    if len(word) > 64:
        return ()
    import difflib

    return tuple(difflib.get_close_matches(word.lower(), list(known), 3, 0.6))


def choice_hint(word: str, known: Iterable[str], what: str) -> str:
    """Which of the known words may have been meant, and what there is to choose from."""
    words = list(known)
    if not words:
        return f"there are no {what}"
    near = nearest(word, words)
    listed = ", ".join(words[:16]) + (f", … ({len(words)} in all)" if len(words) > 16 else "")
    meant = f"did you mean {quoted(near[0])}? " if near else ""
    return f"{meant}{what}: {listed}"
