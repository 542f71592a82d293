"""The matrix fault × topology for people and for programs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from lvsctl.faults import FAULTS
from lvsctl.output.json_values import Json
from lvsctl.output.style import Cell as Text
from lvsctl.output.style import Style
from lvsctl.output.words import counted

if TYPE_CHECKING:
    from lvsctl.engine.campaign import Cell, Column

VERSION = 1


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


def json(columns: Sequence[Column]) -> Json:
    """``{version, holds, topologies: [{name, healthy, says, cells: [cell]}]}``.

    A cell is ``{fault, node, holds, named_first, named: [{fault, node}], predicted, may_fail,
    failed, as_predicted, healthy_after, wrong: [str]}``: faults that a topology cannot have
    have none. ``healthy`` false: nothing was injected, and ``says`` is why.
    """
    return {
        "version": VERSION,
        "holds": all(column.holds for column in columns),
        "topologies": [
            {
                "name": column.topology,
                "healthy": column.before.healthy,
                "says": column.before.text or None,
                "cells": [_cell(cell) for cell in column.cells],
            }
            for column in columns
        ],
    }


def _cell(cell: Cell) -> Json:
    return {
        "fault": cell.trial.fault.id,
        "node": cell.trial.node,
        "holds": cell.holds,
        "named_first": cell.named_first,
        "named": [{"fault": fault, "node": node} for fault, node in cell.named],
        "predicted": list(cell.trial.predicted),
        "may_fail": list(cell.trial.may_fail),
        "failed": list(cell.trial.failed_claims),
        "as_predicted": cell.trial.as_predicted,
        "healthy_after": cell.after.healthy,
        "wrong": list(cell.wrong),
    }
