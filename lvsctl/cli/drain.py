"""Taking a real server out: what becomes of the flows that are with it."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from lvsctl.cli import options
from lvsctl.cli.failure import ExitStatus, say
from lvsctl.cli.help import Command, new_app
from lvsctl.cli.output import Format, Progress, show, show_json, style
from lvsctl.cli.where import Where, in_lab_kernel
from lvsctl.engine import drain as engine
from lvsctl.engine import idle as engine_idle
from lvsctl.engine.labs import parse_lab_and_nodes, running_lab
from lvsctl.errors import HostError, UsageError
from lvsctl.model.flows import DRAINED, IDLING, DrainRow, FlowKind, Outcome, Way
from lvsctl.output import drain_markdown, safe_files
from lvsctl.output.text.drain import format_drain, format_idle, format_matrix, format_row

app = new_app()


class DrainFormat(StrEnum):
    """The output formats of the command; Markdown with --matrix only."""

    TEXT = "text"
    JSON = "json"
    MARKDOWN = "markdown"


def complete_kinds(incomplete: str) -> list[str]:
    """Kinds of flow, of which several are separated by commas."""
    before, comma, last = incomplete.rpartition(",")
    return [before + comma + one for one in options.starting_with(last, DRAINED)]


def complete_idle_kinds(incomplete: str) -> list[str]:
    """The same of flows that are silent."""
    before, comma, last = incomplete.rpartition(",")
    return [before + comma + one for one in options.starting_with(last, IDLING)]


def parse_kinds(text: str | None, known: Sequence[FlowKind]) -> tuple[FlowKind, ...]:
    """Parse kinds of flow, separated by commas, which are among ``known``. Raises BadParameter."""
    words = [word.strip() for word in (text or "").split(",") if word.strip()]
    for word in words:
        if word not in known:
            raise typer.BadParameter(f"{word!r} is none of {', '.join(known)}.")
    return tuple(dict.fromkeys(map(FlowKind, words)))


def check_timeout(seconds: int) -> None:
    """Raise BadParameter for a timeout that an experiment cannot have; 0 is none."""
    if seconds and not 2 <= seconds <= engine.SHORT:
        raise typer.BadParameter(f"--timeout {seconds} is not from 2 to {engine.SHORT}.")


@app.command(cls=Command)
@in_lab_kernel(starts=True)
def drain(
    ctx: typer.Context,
    words: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[LAB] RS",
            autocompletion=options.complete_nodes,
            help="Real server, after its lab (optional if only one is running).",
        ),
    ] = None,
    by: Annotated[
        Way,
        typer.Option(
            "--by",
            help="How it is taken out: weight (weight 0), delete (out of IPVS's table), stop (its "
            "server process ends).",
        ),
    ] = Way.WEIGHT,
    kinds: Annotated[
        str | None,
        typer.Option(
            "--while",
            metavar="KIND,…",
            autocompletion=complete_kinds,
            help=f"Flows that run meanwhile: {', '.join(DRAINED)}; default: all that the lab's "
            "services allow.",
        ),
    ] = None,
    tried: Annotated[
        bool,
        typer.Option("--try", help="Try what each setting would change (half a minute)."),
    ] = False,
    timeout: Annotated[
        int,
        typer.Option(
            "--timeout",
            metavar="SECONDS",
            min=0,
            help="IPVS's timeouts meanwhile (2 to 10), to see what happens when entries expire; "
            "default: the lab's.",
        ),
    ] = 0,
    client: Annotated[
        str | None,
        typer.Option(
            "--client",
            metavar="NODE",
            autocompletion=options.complete_nodes,
            help="Node that the flows come from; default: the first client.",
        ),
    ] = None,
    matrix: Annotated[
        bool,
        typer.Option(
            "--matrix",
            help="Try every way with every combination of sysctls, in a lab of its own "
            "(some minutes).",
        ),
    ] = False,
    write: Annotated[
        Path | None,
        typer.Option("--write", "-w", metavar="FILE", help="With --matrix: write Markdown there."),
    ] = None,
    wanted: Annotated[
        DrainFormat,
        typer.Option("--format", "-f", help="Output format: text, json; markdown with --matrix."),
    ] = DrainFormat.TEXT,
    where: options.Placement = Where.AUTO,
) -> ExitStatus:
    """Take a real server out while flows run, and see what becomes of each.

    The flows begin at the real server: a held connection that goes on asking, an idle one with
    TCP keepalives, new connections, those of a persistent client, a client port that is used
    again, datagrams. Then it is taken out, and for some seconds it is watched which flows go on,
    move to another real server, are reset, or get no answer, and why: from what the client
    receives, captured frames and IPVS's connection table. Everything is put back. The exit
    status is 1 if a flow could not be started.

    Examples:
      lvsctl drain dr rs1
      lvsctl drain dr rs1 --by delete --try
      lvsctl drain rs1 --by delete --while held,udp --timeout 2
      lvsctl drain --matrix --write draining-matrix.md
    """
    if matrix:
        if words or kinds or tried or timeout or client:
            raise UsageError("--matrix has a lab of its own: name no lab, flows or settings")
        return _matrix(write, wanted)
    if write is not None or wanted is DrainFormat.MARKDOWN:
        raise UsageError("--write and --format markdown need --matrix")
    check_timeout(timeout)
    flows = parse_kinds(kinds, DRAINED)
    lab, nodes = parse_lab_and_nodes(words or ())
    if len(nodes) != 1:
        raise UsageError(
            "name one real server",
            hint=f"lvsctl drain {lab.name} "
            + next((s.node for service in lab.services for s in service.real_servers), "RS"),
        )
    with Progress() as progress:
        result = engine.drain(
            lab,
            nodes[0],
            by,
            flows,
            sender=client,
            timeout=timeout,
            tried=tried,
            report=progress.note,
        )
    if wanted is DrainFormat.JSON:
        show_json(result)
    else:
        show(format_drain(result, style=style()))
    return ExitStatus.OK if result.decided else ExitStatus.CLAIM_FAILED


@app.command(cls=Command)
@in_lab_kernel()
def idle(
    ctx: typer.Context,
    lab: options.Lab = None,
    kinds: Annotated[
        str | None,
        typer.Option(
            "--while",
            metavar="KIND,…",
            autocompletion=complete_idle_kinds,
            help=f"Flows: {', '.join(IDLING)}; default: all that the lab's services allow.",
        ),
    ] = None,
    tried: Annotated[
        bool,
        typer.Option("--try", help="Try what each setting would change (half a minute)."),
    ] = False,
    timeout: Annotated[
        int,
        typer.Option(
            "--timeout",
            metavar="SECONDS",
            min=0,
            help="IPVS's timeouts meanwhile (2 to 10); default: the lab's, or 2 where they are "
            "longer than 10.",
        ),
    ] = 0,
    client: Annotated[
        str | None,
        typer.Option(
            "--client",
            metavar="NODE",
            autocompletion=options.complete_nodes,
            help="Node that the flows come from; default: the first client.",
        ),
    ] = None,
    wanted: options.As = Format.TEXT,
    where: options.Placement = Where.AUTO,
) -> ExitStatus:
    """Let flows be silent for longer than IPVS keeps them, and see what becomes of each.

    A connection is idle and then asks again; one is held by TCP keepalives; a client that has
    shut down its side reads its answer late; client ports are used again; a flow of UDP pauses.
    IPVS's timeouts are short meanwhile, so that it takes seconds. Everything is put back. The
    exit status is 1 if a flow could not be started.

    Examples:
      lvsctl idle dr
      lvsctl idle dr --try
      lvsctl idle --while idle,keepalive --timeout 5
    """
    check_timeout(timeout)
    flows = parse_kinds(kinds, IDLING)
    with Progress() as progress:
        result = engine_idle.idle(
            running_lab(lab),
            flows,
            sender=client,
            timeout=timeout,
            tried=tried,
            report=progress.note,
        )
    if wanted is Format.JSON:
        show_json(result)
    else:
        show(format_idle(result, style=style()))
    return ExitStatus.OK if result.decided else ExitStatus.CLAIM_FAILED


def _matrix(write: Path | None, wanted: DrainFormat) -> ExitStatus:
    def report(number: int, total: int, row: DrainRow) -> None:
        if sys.stderr.isatty():
            say(f"[{number}/{total}] {format_row(row)}")

    rows = engine.matrix(report=report)
    text = drain_markdown.page(rows)
    if write is not None:
        try:
            with safe_files.opened(write) as stream:
                stream.write(text.encode())
        except OSError as error:
            raise HostError(f"cannot write {write}: {error.strerror}") from error
    match wanted:
        case DrainFormat.TEXT:
            show(format_matrix(rows, style=style()))
        case DrainFormat.JSON:
            show_json(rows=rows)
        case DrainFormat.MARKDOWN:
            show(text)
    started = all(one.outcome is not Outcome.NOT_STARTED for row in rows for one in row.flows)
    return ExitStatus.OK if started else ExitStatus.CLAIM_FAILED
