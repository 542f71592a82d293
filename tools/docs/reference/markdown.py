"""Small pieces of Markdown."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence


def table(headings: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A table; a bar inside a cell does not end it."""
    lines = [headings, ["---"] * len(headings), *rows]
    return "\n".join(f"| {' | '.join(map(_cell, line))} |" for line in lines)


def _cell(text: str) -> str:
    return " ".join(text.replace("|", "\\|").split())


def code(text: str) -> str:
    """As typed. An empty string is no code."""
    return f"`{text}`" if text else ""


def block(text: str, language: str = "text") -> str:
    """A block of lines as they are."""
    return f"```{language}\n{text.rstrip()}\n```"


def prose(text: str) -> str:
    """A docstring's prose: double backquotes are Sphinx's, <words> would be HTML."""
    text = text.replace("``", "`")
    parts = re.split(r"(`[^`]*`)", text)
    return "".join(p if p.startswith("`") else p.replace("<", "&lt;") for p in parts)


def fault_link(name: str) -> str:
    """A fault, as a link to what it is."""
    return f"[{name}](faults.md#{name})"


def claim_link(name: str) -> str:
    """A claim, as a link to what it says."""
    return f"[{name}](claims.md#{name})"
