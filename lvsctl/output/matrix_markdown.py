"""The fault matrix as Markdown: written to a file, and read from it again.

A run of some faults or topologies updates their cells; the other cells stay as they are.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from functools import cache

from lvsctl.engine.campaign import Cell, Column
from lvsctl.engine.faults import applicable_faults
from lvsctl.faults import FAULTS
from lvsctl.faults.known import KNOWN
from lvsctl.topology import shipped

GOOD, BAD, NOT_APPLICABLE, NOT_RUN = "✓", "✗", "–", ""

_HEAD = """\
# Faults × topologies

`lvsctl fault matrix --write docs/fault-matrix.md` writes this page. For each shipped topology it
brings up a lab and checks that the lab is healthy: every claim passes, and `diagnose` finds no
cause. Then it injects each fault that applies, at its default node. A cell has {good} and that node
if

- `diagnose` names the fault first, at that node,
- the claims of `verify` that the fault must break fail, and no others,
- and nothing differs from the topology after the fault is removed.

{bad} is followed by the difference. {none} means that the fault does not apply to the topology, an
empty cell that it was not run there yet. To update some cells only:
`lvsctl fault matrix tun --fault tunnel-down --write docs/fault-matrix.md`.
`lvsctl fault show NAME` describes a fault, its effect on the wire and the claims that it breaks.

"""

_KNOWN_HEAD = """
## Common misconfigurations

The misconfigurations of LVS that occur in practice, each with the fault that reproduces it, or the
reason why there is no such fault.

"""

Cells = dict[tuple[str, str], str]
"""The text of each cell, by fault and topology."""


def cells_of(columns: Iterable[Column]) -> Cells:
    """Return the cells of every fault and topology that was run."""
    found: Cells = {}
    for column in columns:
        for cell in column.cells:
            found[cell.trial.fault.id, column.topology] = said(cell)
    return found


def said(cell: Cell) -> str:
    """Return the text of a cell."""
    if cell.holds:
        return f"{GOOD} {cell.trial.node}"
    return f"{BAD} {cell.trial.node}: {'; '.join(cell.wrong)}".replace("|", "/")


def read(text: str) -> Cells:
    """Read the cells of a matrix from its Markdown; empty if the text has none."""
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
            break  # the next table
        found.update({(fault, t): one for t, one in zip(topologies, said, strict=False)})
    return found


def page(cells: Mapping[tuple[str, str], str]) -> str:
    """Return the page of all shipped topologies, with the cells that are known."""
    return matrix(cells, shipped.names(), possible())


def missing(cells: Mapping[tuple[str, str], str]) -> int:
    """Count the cells that were not run."""
    return sum(not cells.get(pair) for pair in possible())


@cache
def possible() -> tuple[tuple[str, str], ...]:
    """Return each fault with each shipped topology that it applies to."""
    return tuple((fault, name) for name in shipped.names() for fault in applicable_faults(name))


def matrix(
    cells: Mapping[tuple[str, str], str],
    topologies: Iterable[str],
    applies: Iterable[tuple[str, str]],
) -> str:
    """Return the page. ``applies`` are the pairs of fault and topology that are possible."""
    names = tuple(topologies)
    possible = set(applies)
    rows = [["fault", *names]]
    for fault in FAULTS:
        said = [
            cells.get((fault, t), NOT_RUN) if (fault, t) in possible else NOT_APPLICABLE
            for t in names
        ]
        rows.append([f"`{fault}`", *said])
    known = [["", "misconfiguration", "fault", "remark"]]
    for one in KNOWN:
        faults = ", ".join(f"`{fault}`" for fault in one.faults)
        known += [[str(one.number), one.text, faults, one.why]]
    head = _HEAD.format(good=GOOD, bad=BAD, none=NOT_APPLICABLE)
    return head + _table(rows) + _KNOWN_HEAD + _table(known)


def _table(rows: list[list[str]]) -> str:
    """Return a table with aligned columns, readable as text."""
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    widths = [min(max(width, 3), 60) for width in widths]
    lines = [_row(rows[0], widths), "|" + "|".join("-" * (width + 2) for width in widths) + "|"]
    return "\n".join([*lines, *(_row(row, widths) for row in rows[1:])]) + "\n"


def _row(row: list[str], widths: list[int]) -> str:
    return "| " + " | ".join(c.ljust(w) for c, w in zip(row, widths, strict=True)) + " |"
