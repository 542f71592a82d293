"""The reference pages, written from the tables of lvsctl itself. One module for each page."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from tools.docs.reference import (
    claims,
    commands,
    faults,
    json,
    rules,
    schedulers,
    statuses,
    topologies,
    topology,
)

_NOTE = (
    "<!-- Written by `python -m tools.docs reference`: change it where it comes from, {source}. -->"
)


def written() -> Mapping[str, str]:
    """Every reference page by its file's name, as it must be now."""
    return {
        f"{module.__name__.rpartition('.')[2]}.md": (
            f"{module.TITLE}\n\n{_NOTE.format(source=module.SOURCE)}\n\n{module.text().strip()}\n"
        )
        for module in (
            commands,
            topology,
            topologies,
            schedulers,
            claims,
            faults,
            json,
            statuses,
            rules,
        )
    }


def stale(directory: Path) -> list[Path]:
    """The pages that are not what they must be, and those that nobody writes any more."""
    must = {directory / name: text for name, text in written().items()}
    there = {path: path.read_text(encoding="utf-8") for path in directory.glob("*.md")}
    return sorted(path for path in must.keys() | there.keys() if must.get(path) != there.get(path))


def write(directory: Path) -> None:
    """Make the directory hold exactly the pages that it must."""
    directory.mkdir(parents=True, exist_ok=True)
    pages = written()
    for path in directory.glob("*.md"):
        if path.name not in pages:
            path.unlink()
    for name, text in pages.items():
        (directory / name).write_text(text, encoding="utf-8")
