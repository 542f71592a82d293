"""The comparison of NAT, TUN and DR as Markdown: the table, and the evidence of each row."""

from __future__ import annotations

import re
from collections.abc import Iterator

from lvsctl.model.compare import ComparedRow, Comparison, MethodCell

_HEAD = """\
# NAT, TUN and DR, measured

`lvsctl compare --scale scale.json --format markdown > docs/compared.md` writes this page, where
`lvsctl scale --format json > scale.json` wrote the file. [How it is measured](compare.md).
"""


def page(result: Comparison) -> str:
    """Return the page: the table, and the evidence of each row."""
    heads = ["", *(str(method).upper() for method in result.methods)]
    table = [heads, ["---"] * len(heads), *(_line(row) for row in result.rows)]
    lines = [_HEAD, *("| " + " | ".join(line) + " |" for line in table)]
    lines += ["", f"*In italics: the table of <{result.source}>.*"]
    lines += ["", "## Evidence"]
    for row in result.rows:
        lines += ["", f"### {row.title}", ""]
        for cell in row.cells:
            lines += _evidence(cell)
    return "\n".join(lines) + "\n"


def _line(row: ComparedRow) -> list[str]:
    anchor = re.sub(r"[^a-z0-9 ]", "", row.title.lower()).replace(" ", "-")
    return [f"[{row.title}](#{anchor})", *(_cell(cell) for cell in row.cells)]


def _cell(cell: MethodCell) -> str:
    text = cell.measured if cell.done else f"{cell.measured}: `{cell.command}`"
    quoted = f"*{cell.quoted}* – " if cell.quoted else ""
    return (quoted + text).replace("|", "\\|").replace("~", "\\~")


def _evidence(cell: MethodCell) -> Iterator[str]:
    yield f"- {str(cell.method).upper()}: `{cell.command}`"
    for frame in cell.frames:
        yield f"    - `{frame.tap}` {frame.direction.name.lower()}: `{frame.summary()}`"
