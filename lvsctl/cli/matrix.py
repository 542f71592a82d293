"""Fault × topology, by doing it: fault matrix."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Sequence
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from lvsctl.cli import complete
from lvsctl.cli.exit_status import ExitStatus
from lvsctl.cli.output import show, show_json, style
from lvsctl.cli.where import in_lab_kernel
from lvsctl.errors import HostError, UsageError

if TYPE_CHECKING:
    from lvsctl.engine.campaign import Cell, Column


class Printed(StrEnum):
    """How the matrix is printed."""

    TEXT = "text"
    JSON = "json"
    MARKDOWN = "markdown"


def _ids(incomplete: str) -> list[str]:
    from lvsctl.faults import FAULTS

    return [name for name in FAULTS if name.startswith(incomplete)]


@in_lab_kernel(starts=True)
def matrix(
    topologies: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[TOPOLOGY]...",
            autocompletion=complete.topologies,
            help="Shipped ones, by name; without any, all.",
        ),
    ] = None,
    only: Annotated[
        list[str] | None,
        typer.Option(
            "--fault", metavar="FAULT", autocompletion=_ids, help="This one; can be repeated."
        ),
    ] = None,
    write: Annotated[
        Path | None,
        typer.Option(
            "--write", "-w", metavar="FILE", help="Keep it there as Markdown, with what is there."
        ),
    ] = None,
    wanted: Annotated[
        Printed, typer.Option("--format", "-f", help="Text, JSON, or Markdown.")
    ] = Printed.TEXT,
) -> ExitStatus:
    """Try every fault in every shipped topology: is it noticed, named, and mended?

    For each topology a lab of its own is brought up and must be healthy. Then each fault that
    applies is injected and looked at: `diagnose` must name it first, at its node; the claims of
    `verify` that it breaks must fail, and no others; once taken back, the lab must be healthy
    again. Each takes ten to twenty seconds, all of them half an hour and more: some can be
    named. The exit status is 1 where anything was otherwise.

    Examples:
      lvsctl fault matrix
      lvsctl fault matrix dr tun --fault vip-missing
      lvsctl fault matrix --format json > matrix.json
      lvsctl fault matrix nat --write docs/fault-matrix.md     other columns there stay
    """
    from lvsctl.engine.faults import (
        applicable_faults,
        check_fault_names,
        check_topology_names,
        run_matrix_column,
    )

    names = check_topology_names(topologies or ())
    faults = check_fault_names(only or ())
    columns: list[Column] = []
    cells = sum(len(applicable_faults(name, faults)) for name in names)
    if not cells:
        raise UsageError(
            f"{', '.join(faults)} can be injected into none of these: {', '.join(names)}",
            hint="lvsctl fault show says what a fault is about",
        )
    tell = _telling(cells)
    for name in names:
        columns.append(run_matrix_column(name, faults, tell))
        if write is not None:
            _kept(write, columns)
    _show(columns, wanted)
    return ExitStatus.OK if all(column.holds for column in columns) else ExitStatus.CLAIM_FAILED


def _telling(cells: int) -> Callable[[Cell], None]:
    """Tell who waits at a terminal of each cell, and how long the rest will take."""
    from lvsctl.cli.failure import say
    from lvsctl.output import matrix_text

    began, done = time.monotonic(), 0

    def tell(cell: Cell) -> None:
        nonlocal done
        done += 1
        if sys.stderr.isatty():
            left = (time.monotonic() - began) / done * (cells - done)
            minutes = f", {left / 60:.0f} min to go" if left > 60 else ""
            say(f"[{done}/{cells}{minutes}] {cell.topology}: {matrix_text.line(cell)}")

    return tell


def _kept(file: Path, columns: Sequence[Column]) -> None:
    """After each topology: what is done is kept, though the next be interrupted."""
    from lvsctl.output import planted

    text = _markdown(columns, file.read_text(encoding="utf-8") if file.exists() else "")
    try:
        with planted.opened(file) as stream:
            stream.write(text.encode())
    except OSError as error:
        raise HostError(f"cannot write {file}: {error.strerror}") from error


def _markdown(columns: Sequence[Column], before: str = "") -> str:
    from lvsctl.engine.faults import (
        applicable_faults,
    )
    from lvsctl.output import matrix_markdown
    from lvsctl.topology import shipped

    cells = {**matrix_markdown.read(before), **matrix_markdown.cells_of(columns)}
    names = shipped.names()
    applies = [(fault, name) for name in names for fault in applicable_faults(name)]
    return matrix_markdown.matrix(cells, names, applies)


def _show(columns: Sequence[Column], wanted: Printed) -> None:
    from lvsctl.output import matrix_text

    match wanted:
        case Printed.TEXT:
            show(matrix_text.text(columns, style=style()))
        case Printed.JSON:
            show_json(matrix_text.json(columns))
        case Printed.MARKDOWN:
            show(_markdown(columns))
