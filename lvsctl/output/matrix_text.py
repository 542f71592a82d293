"""The matrix fault × topology for people."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from lvsctl.faults import FAULTS
from lvsctl.output.style import Cell as Text
from lvsctl.output.style import Style
from lvsctl.output.words import counted

if TYPE_CHECKING:
    from lvsctl.engine.campaign import Cell, Column


def text(columns: Sequence[Column], *, style: Style) -> str:
    """A row for each fault that was injected anywhere, then whatever was not as it should be."""
    cells = {(c.trial.fault.id, column.topology): c for column in columns for c in column.cells}
    rows: list[list[str | Text]] = []
    for fault in FAULTS:
        found = [cells.get((fault, column.topology)) for column in columns]
        if any(found):
            rows.append([Text(fault, style.bold), *(_mark(cell, style) for cell in found)])
    lines = []
    if rows:
        headings = ("fault", *(column.topology for column in columns))
        lines += [style.table(rows, headings=headings), ""]
    for column in columns:
        if not column.before.healthy:
            said = f"{column.topology} was not healthy to begin with: {column.before.text}"
            lines.append(style.red(style.wrapped(said, hanging=2)))
    wrong = [cell for cell in cells.values() if not cell.holds]
    for cell in wrong:
        told = f"{cell.topology}: {line(cell)}"
        lines.append(style.red(style.wrapped(told, hanging=2)))
    good = f"{len(cells) - len(wrong)} of {counted(len(cells), 'cell')} as they should be"
    paint = style.green if cells and not wrong else style.red
    lines.append(paint(good))
    return style.finished("\n".join(lines))


def _mark(cell: Cell | None, style: Style) -> Text:
    if cell is None:
        return Text("–", style.dim)
    return Text("ok" if cell.holds else "WRONG", style.green if cell.holds else style.red)


def line(cell: Cell) -> str:
    """A cell by itself, for who waits."""
    said = "named first, broken as predicted, mended" if cell.holds else "; ".join(cell.wrong)
    return f"{cell.trial.fault.id} at {cell.trial.node}: {said}"
