"""Writes lvsctl/kernel/shapes.txt, messages that pyroute2 encodes for us: ``make shapes``.

Kept in the repository, so that no command needs to import pyroute2 for them; a test says
when the file is out of date, as after a change in ``kernel.by_pyroute2`` or in pyroute2.
"""

from __future__ import annotations

from pathlib import Path

from lvsctl.kernel import by_pyroute2, shapes


def text() -> str:
    """The file, as it should be."""
    return "".join(
        f"{shapes.key(name, *words)} {kind.encode(*words).hex()}\n"
        for name, kind in by_pyroute2.KINDS.items()
        for words in kind.words
    )


if __name__ == "__main__":
    Path(shapes.FILE).write_text(text(), encoding="ascii")
