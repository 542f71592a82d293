"""A lab as it is: inspect, verify."""

from __future__ import annotations

from typing import Annotated

import typer

from lvsctl.cli import complete, options
from lvsctl.cli.exit_status import ExitStatus
from lvsctl.cli.output import Format, show, show_json, style
from lvsctl.cli.where import in_lab_kernel


@in_lab_kernel()
def inspect(
    lab: options.Lab = None,
    nodes: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[NODE]...", autocompletion=complete.nodes, help="These nodes only."
        ),
    ] = None,
    wanted: options.As = Format.TEXT,
) -> None:
    """Show what the kernel holds for a lab's nodes.

    Addresses, routes, neighbours, the ARP and forwarding sysctls that matter, tunnel
    devices, listeners with their processes, and the IPVS table with its counters.

    Examples:
      lvsctl inspect
      lvsctl inspect director            where only one lab runs
      lvsctl inspect dr director rs1
      lvsctl inspect dr --format json
    """
    from lvsctl import app

    named, wanted_nodes = app.addressed([*([lab] if lab else []), *(nodes or ())])
    result = app.inspect(named, wanted_nodes)
    if wanted is Format.JSON:
        from lvsctl.report import jsonable

        show_json(jsonable.inspection(result))
    else:
        from lvsctl.report import text

        show(text.inspection(result, style=style()))


@in_lab_kernel()
def verify(
    lab: options.Lab = None,
    verbose: Annotated[
        bool,
        typer.Option("--verbose", "-v", help="With what was expected and seen, for each claim."),
    ] = False,
    wanted: options.As = Format.TEXT,
) -> ExitStatus:
    """Send requests through the VIP and prove from captured packets what LVS promises.

    Every interface of every node is captured meanwhile. What the forwarding method does to
    requests and replies is decided on those frames; the distribution is the scheduler's;
    IPVS's counters and connection table agree with what the client saw. The exit status is
    0 only where every claim passes.

    Examples:
      lvsctl verify
      lvsctl verify dr -v
      lvsctl verify nat --format json > verdict.json
    """
    from lvsctl import app
    from lvsctl.model.finding import Verdict

    result = app.verify(app.running(lab))
    if wanted is Format.JSON:
        from lvsctl.report import jsonable

        show_json(jsonable.verification(result))
    else:
        from lvsctl.report import text

        show(text.verification(result, verbose=verbose, style=style()))
    return ExitStatus.OK if result.verdict is Verdict.PASS else ExitStatus.CLAIM_FAILED
