"""The comparison of NAT, TUN and DR as text."""

from __future__ import annotations

from lvsctl.model.claim import Verdict
from lvsctl.model.compare import Comparison, MethodCell
from lvsctl.output.text.style import Cell, Style


def format_comparison(result: Comparison, *, verbose: bool, style: Style) -> str:
    """Format a paragraph for each row; ``verbose``: with the command that shows each cell."""
    lines = [
        style.heading("NAT, TUN and DR", f"in labs of the topology {result.topology}"),
        style.wrapped(f"in brackets: what {result.source} says", 2, 2),
    ]
    for row in result.rows:
        lines += ["", style.bold(row.title)]
        table = [
            [str(cell.method), Cell(bracketed(cell), style.dim), *_texts(cell, style)]
            for cell in row.cells
        ]
        lines.append(style.table(table, indent=2))
        if verbose:
            lines += [line for cell in row.cells for line in _evidence(cell, style)]
    lines += ["", *_end(result, style, verbose=verbose)]
    return style.finished("\n".join(lines))


def _evidence(cell: MethodCell, style: Style) -> list[str]:
    frames = [f"        #{one.number} {one.tap}  {one.summary()}" for one in cell.frames]
    command = f"    {style.dim(str(cell.method))} {style.cyan(cell.command)}"
    return [command, *map(style.dim, frames)]


def bracketed(cell: MethodCell) -> str:
    """Return what is quoted, in brackets; empty if nothing is."""
    return f"[{cell.quoted}]" if cell.quoted else ""


def _texts(cell: MethodCell, style: Style) -> list[str | Cell]:
    if cell.done:
        return [cell.measured]
    return [Cell(f"{cell.measured}: {cell.command}", style.yellow)]


def _end(result: Comparison, style: Style, *, verbose: bool) -> list[str]:
    lines = []
    for method, verdict in result.verified.items():
        if verdict is not Verdict.PASS:
            text = f"{method}: verify says {verdict} in this lab: do not trust what is above"
            lines.append(style.red(style.wrapped(text)))
    if not verbose:
        lines.append(style.dim("-v shows the command and the frames behind each cell"))
    return lines
