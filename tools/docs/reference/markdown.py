"""Small pieces of Markdown."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence


def table(headings: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Return a table. Bars inside a cell are escaped."""
    lines = [headings, ["---"] * len(headings), *rows]
    return "\n".join(f"| {' | '.join(map(_cell, line))} |" for line in lines)


def _cell(text: str) -> str:
    return " ".join(text.replace("|", "\\|").split())


def code(text: str) -> str:
    """Return text as inline code; an empty string stays empty."""
    return f"`{text}`" if text else ""


def block(text: str, language: str = "text") -> str:
    """Return a fenced block."""
    return f"```{language}\n{text.rstrip()}\n```"


def prose(text: str) -> str:
    """Convert a docstring: double backquotes become single ones, and < is escaped."""
    text = text.replace("``", "`")
    parts = re.split(r"(`[^`]*`)", text)
    return "".join(p if p.startswith("`") else p.replace("<", "&lt;") for p in parts)


def fault_link(name: str) -> str:
    """Return a link to a fault."""
    return f"[{name}](faults.md#{name})"


def claim_link(name: str) -> str:
    """Return a link to a claim."""
    return f"[{name}](claims.md#{name})"
