"""Every fault in every topology, tried: fault matrix.

A command imports what it needs of the engine when it runs: where it is only forwarded to the
throwaway kernel, that takes longer than everything else.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Sequence
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from lvsctl.cli import options
from lvsctl.cli.failure import ExitStatus, say
from lvsctl.cli.output import show, show_json, style
from lvsctl.cli.where import Where, in_lab_kernel
from lvsctl.errors import HostError, UsageError
from lvsctl.output import safe_files

if TYPE_CHECKING:
    from lvsctl.engine.campaign import Cell, Column


class MatrixFormat(StrEnum):
    """The output formats of the matrix."""

    TEXT = "text"
    JSON = "json"
    MARKDOWN = "markdown"


def complete_faults(incomplete: str) -> list[str]:
    """Names of faults."""
    from lvsctl.faults import FAULTS

    return options.starting_with(incomplete, FAULTS)


@in_lab_kernel(starts=True)
def matrix(
    ctx: typer.Context,
    topologies: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[TOPOLOGY]...",
            autocompletion=options.complete_topologies,
            help="Names of shipped topologies; default: all.",
        ),
    ] = None,
    only: Annotated[
        list[str] | None,
        typer.Option(
            "--fault",
            metavar="FAULT",
            autocompletion=complete_faults,
            help="Try only this fault; can be repeated. Default: all.",
        ),
    ] = None,
    write: Annotated[
        Path | None,
        typer.Option(
            "--write",
            "-w",
            metavar="FILE",
            help="Write Markdown to this file, keeping results of other topologies in it.",
        ),
    ] = None,
    wanted: Annotated[
        MatrixFormat, typer.Option("--format", "-f", help="Output format: text, json, markdown.")
    ] = MatrixFormat.TEXT,
    where: options.Placement = Where.AUTO,
) -> ExitStatus:
    """Try every fault in every shipped topology: detected, named and fixed?

    For each topology a lab of its own is brought up and must be healthy. Then each fault that
    applies is injected: `diagnose` must name it first, at its node; the claims of `verify` that
    it breaks must fail, and no others; after its removal nothing may differ from the topology,
    and after the last one the lab must be healthy again. Each fault takes some seconds, all of
    them about half an hour. The exit status is 1 if any result is different.

    Examples:
      lvsctl fault matrix
      lvsctl fault matrix dr tun --fault vip-missing
      lvsctl fault matrix --format json > matrix.json
      lvsctl fault matrix nat --write docs/fault-matrix.md     keeps its other columns
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
            f"none of these topologies can have {', '.join(faults)}: {', '.join(names)}",
            hint="lvsctl fault show says to which topologies a fault applies",
        )
    report = _progress(cells)
    for name in names:
        columns.append(run_matrix_column(name, faults, report))
        if write is not None:
            _write(write, columns)
    _show(columns, wanted)
    return ExitStatus.OK if all(column.holds for column in columns) else ExitStatus.CLAIM_FAILED


def _progress(cells: int) -> Callable[[Cell], None]:
    """Return what prints each cell on a terminal, with an estimate of the time left."""
    from lvsctl.output.text.faults import format_cell

    began, done = time.monotonic(), 0

    def report(cell: Cell) -> None:
        nonlocal done
        done += 1
        if sys.stderr.isatty():
            left = (time.monotonic() - began) / done * (cells - done)
            minutes = f", {left / 60:.0f} min to go" if left > 60 else ""
            say(f"[{done}/{cells}{minutes}] {cell.topology}: {format_cell(cell)}")

    return report


def _write(file: Path, columns: Sequence[Column]) -> None:
    """Write the columns so far: they are kept if the command is interrupted later."""
    text = _markdown(columns, file.read_text(encoding="utf-8") if file.exists() else "")
    try:
        with safe_files.opened(file) as stream:
            stream.write(text.encode())
    except OSError as error:
        raise HostError(f"cannot write {file}: {error.strerror}") from error


def _markdown(columns: Sequence[Column], before: str = "") -> str:
    from lvsctl.engine.faults import applicable_faults
    from lvsctl.output import matrix_markdown
    from lvsctl.topology import shipped

    cells = {**matrix_markdown.read(before), **matrix_markdown.cells_of(columns)}
    names = shipped.names()
    applies = [(fault, name) for name in names for fault in applicable_faults(name)]
    return matrix_markdown.matrix(cells, names, applies)


def _show(columns: Sequence[Column], wanted: MatrixFormat) -> None:
    from lvsctl.output.text.faults import format_matrix

    match wanted:
        case MatrixFormat.TEXT:
            show(format_matrix(columns, style=style()))
        case MatrixFormat.JSON:
            show_json(holds=all(column.holds for column in columns), topologies=columns)
        case MatrixFormat.MARKDOWN:
            show(_markdown(columns))
