"""Every fault in every topology, tried: fault matrix.

A command imports what it needs of the engine when it runs: where it is only forwarded to the
throwaway kernel, that takes longer than everything else.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Sequence
from enum import StrEnum
from itertools import groupby
from operator import itemgetter
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from lvsctl.cli import options
from lvsctl.cli.failure import ExitStatus, say
from lvsctl.cli.output import show, show_json, style
from lvsctl.cli.where import Where, in_lab_kernel
from lvsctl.errors import HostError, UsageError
from lvsctl.model.shard import Shard
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


def _merges(merge: list[Path] | None, **_: object) -> bool:
    return bool(merge)


@in_lab_kernel(starts=True, anywhere=_merges)
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
    shard: Annotated[
        str | None,
        typer.Option("--shard", metavar="K/N", help="Try only the K-th of N parts of the cells."),
    ] = None,
    merge: Annotated[
        list[Path] | None,
        typer.Option(
            "--merge",
            metavar="FILE",
            help="Try nothing: put pages that --write made into one; can be repeated.",
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
      lvsctl fault matrix --shard 3/8 --write part3.md         on the third of eight machines
      lvsctl fault matrix --merge part1.md --merge part2.md --write matrix.md
    """
    from lvsctl.engine.faults import (
        applicable_faults,
        check_fault_names,
        check_topology_names,
        run_matrix_column,
    )

    if merge:
        if topologies or only or shard or wanted is not MatrixFormat.TEXT:
            raise UsageError("--merge puts pages together: use only --write with it")
        return _merge(merge, write)
    names = check_topology_names(topologies or ())
    faults = check_fault_names(only or ())
    columns: list[Column] = []
    cells = [(name, fault) for name in names for fault in applicable_faults(name, faults)]
    if not cells:
        raise UsageError(
            f"none of these topologies can have {', '.join(faults)}: {', '.join(names)}",
            hint="lvsctl fault show says to which topologies a fault applies",
        )
    part = Shard.parse(shard).of(cells) if shard else cells
    if not part:
        raise UsageError(
            f"part {shard} is empty: there are fewer cells than parts",
            hint=f"all of them: --shard 1/1; one in each part: --shard 1/{len(cells)}",
        )
    report = _progress(len(part))
    for name, several in groupby(part, key=itemgetter(0)):
        columns.append(run_matrix_column(name, [fault for _, fault in several], report))
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
    _save(file, _markdown(columns, _content(file) if file.exists() else ""))


def _content(file: Path) -> str:
    try:
        return file.read_text(encoding="utf-8")
    except (OSError, ValueError) as error:
        raise UsageError(f"cannot read {file}: {error}") from error


def _save(file: Path, text: str) -> None:
    try:
        with safe_files.opened(file) as stream:
            stream.write(text.encode())
    except OSError as error:
        raise HostError(f"cannot write {file}: {error.strerror}") from error


def _markdown(columns: Sequence[Column], before: str = "") -> str:
    from lvsctl.output import matrix_markdown

    return matrix_markdown.page(
        {**matrix_markdown.read(before), **matrix_markdown.cells_of(columns)}
    )


def _merge(parts: Sequence[Path], write: Path | None) -> ExitStatus:
    """Put pages together: each has the cells that one machine has run."""
    from lvsctl.output import matrix_markdown

    cells: matrix_markdown.Cells = {}
    for part in parts:
        found = matrix_markdown.read(_content(part))
        if not found:
            raise UsageError(f"{part} is not a fault matrix", hint="fault matrix --write makes one")
        cells.update({pair: said for pair, said in found.items() if said})
    page = matrix_markdown.page(cells)
    if write is None:
        show(page)
    else:
        _save(write, page)
    wrong = sum(said.startswith(matrix_markdown.BAD) for said in cells.values())
    missing = matrix_markdown.missing(cells)
    say(f"{wrong} wrong, {missing} not run")
    return ExitStatus.CLAIM_FAILED if wrong or missing else ExitStatus.OK


def _show(columns: Sequence[Column], wanted: MatrixFormat) -> None:
    from lvsctl.output.text.faults import format_matrix

    match wanted:
        case MatrixFormat.TEXT:
            show(format_matrix(columns, style=style()))
        case MatrixFormat.JSON:
            show_json(holds=all(column.holds for column in columns), topologies=columns)
        case MatrixFormat.MARKDOWN:
            show(_markdown(columns))
