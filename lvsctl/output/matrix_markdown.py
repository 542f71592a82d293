"""The matrix fault × topology as Markdown, to be kept; and what is kept, read again.

What is kept can be added to: cells that are not made anew stay as they are.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from lvsctl.engine.campaign import Cell, Column
from lvsctl.faults import FAULTS
from lvsctl.faults.known import KNOWN

GOOD, BAD, NOT_APPLICABLE, NOT_RUN = "✓", "✗", "–", ""

_HEAD = """\
# Faults × topologies

Made by `lvsctl fault matrix --write docs/fault-matrix.md`, which does what it says: for each
shipped topology a lab is brought up and found healthy (every claim passes, no cause is named);
then each fault that applies is injected, where it shows best, and the lab is looked at. A cell
says {good} and the node where

- `diagnose` names the fault first, at that node,
- of the claims of `verify`, those fail that the fault says it breaks, and no others,
- and after it is taken back the lab is healthy again.

{bad} says what was otherwise; {none}: the topology cannot have the fault. Only some of it, made
anew in place: `lvsctl fault matrix tun --fault tunnel-down --write docs/fault-matrix.md`.
`lvsctl fault show NAME` says what a fault is, how it shows on the wire and which claims it breaks.

"""

_KNOWN_HEAD = """
## Misconfigurations that people make

What goes wrong with LVS in practice, and which fault stands for it. Where there is none, why.

"""

Cells = dict[tuple[str, str], str]
"""What each cell says, by fault and topology."""


def cells_of(columns: Iterable[Column]) -> Cells:
    """Every fault in every topology that was run; those that do not apply too."""
    found: Cells = {}
    for column in columns:
        for cell in column.cells:
            found[cell.trial.fault.id, column.topology] = _said(cell)
    return found


def _said(cell: Cell) -> str:
    if cell.holds:
        return f"{GOOD} {cell.trial.node}"
    return f"{BAD} {cell.trial.node}: {'; '.join(cell.wrong)}".replace("|", "/")


def read(text: str) -> Cells:
    """The cells of a matrix that was written; empty where the text has none."""
    rows = [
        [part.strip() for part in line.strip().strip("|").split("|")]
        for line in text.splitlines()
        if line.startswith("|")
    ]
    if not rows or rows[0][:1] != ["fault"]:
        return {}
    topologies = rows[0][1:]
    found: Cells = {}
    for name, *said in rows[2:]:
        fault = name.strip("`")
        if fault not in FAULTS:
            break  # another table has begun
        found.update({(fault, t): one for t, one in zip(topologies, said, strict=False)})
    return found


def matrix(
    cells: Mapping[tuple[str, str], str],
    topologies: Iterable[str],
    applies: Iterable[tuple[str, str]],
) -> str:
    """The whole document. ``applies`` are the faults and topologies that go together."""
    names = tuple(topologies)
    possible = set(applies)
    rows = [["fault", *names]]
    for fault in FAULTS:
        said = [
            cells.get((fault, t), NOT_RUN) if (fault, t) in possible else NOT_APPLICABLE
            for t in names
        ]
        rows.append([f"`{fault}`", *said])
    known = [["", "what people do", "fault", "why none, or what the kernel does"]]
    for one in KNOWN:
        faults = ", ".join(f"`{fault}`" for fault in one.faults)
        known += [[str(one.number), one.text, faults, one.why]]
    head = _HEAD.format(good=GOOD, bad=BAD, none=NOT_APPLICABLE)
    return head + _table(rows) + _KNOWN_HEAD + _table(known)


def _table(rows: list[list[str]]) -> str:
    """Aligned, so that it can be read as it is."""
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    widths = [min(max(width, 3), 60) for width in widths]
    lines = [_row(rows[0], widths), "|" + "|".join("-" * (width + 2) for width in widths) + "|"]
    return "\n".join([*lines, *(_row(row, widths) for row in rows[1:])]) + "\n"


def _row(row: list[str], widths: list[int]) -> str:
    return "| " + " | ".join(c.ljust(w) for c, w in zip(row, widths, strict=True)) + " |"
