"""A running lab as it is: inspect, diagnose, walk.

A command imports what it needs of the engine when it runs: where it is only forwarded to the
throwaway kernel, that takes longer than everything else.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated

import typer

from lvsctl.cli import options
from lvsctl.cli.failure import ExitStatus
from lvsctl.cli.help import Command, new_app
from lvsctl.cli.output import Format, Progress, show, show_json, style
from lvsctl.cli.where import Where, in_lab_kernel

app = new_app()


@app.command(cls=Command)
@in_lab_kernel()
def inspect(
    ctx: typer.Context,
    lab: options.Lab = None,
    nodes: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[NODE]...",
            autocompletion=options.complete_nodes,
            help="Nodes to show; default: all.",
        ),
    ] = None,
    verbose: Annotated[
        bool, typer.Option("--verbose", "-v", help="Show nodes that are alike one by one.")
    ] = False,
    wanted: options.As = Format.TEXT,
    where: options.Placement = Where.AUTO,
) -> None:
    """Show the kernel's configuration of a lab's nodes.

    Addresses, routes, neighbours, the ARP and forwarding sysctls that matter, tunnel
    devices, listeners with their processes, and the IPVS table with its counters. Of many
    nodes that are as the topology says, one stands for all; -v shows each.

    Examples:
      lvsctl inspect
      lvsctl inspect director            if only one lab is running
      lvsctl inspect dr director rs1
      lvsctl inspect dr --format json
    """
    from lvsctl.engine.inspect import inspect_lab
    from lvsctl.engine.labs import parse_lab_and_nodes
    from lvsctl.output.text.inspection import format_inspection

    named, wanted_nodes = parse_lab_and_nodes([*([lab] if lab else []), *(nodes or ())])
    result = inspect_lab(named, wanted_nodes)
    if wanted is Format.JSON:
        show_json(result)
    else:
        show(format_inspection(result, style=style(), verbose=verbose))


@app.command(cls=Command)
@in_lab_kernel()
def diagnose(
    ctx: typer.Context,
    lab: options.Lab = None,
    client: options.Sender = None,
    wanted: options.As = Format.TEXT,
    where: options.Placement = Where.AUTO,
) -> ExitStatus:
    """Find out why a lab does not work and how to fix it.

    Sends requests through the VIP and captures at every node. What the forwarding method
    needs is then compared with each node's kernel configuration and with the captured frames,
    so any misconfiguration is found, not only injected faults. Harmless differences from the
    topology are remarks. The exit status is 0 only if no cause was found and everything works.

    Examples:
      lvsctl diagnose
      lvsctl diagnose dr --format json
      lvsctl diagnose dr --client director     why it is not answered itself
    """
    from lvsctl.engine.inspect import diagnose_lab
    from lvsctl.engine.labs import running_lab
    from lvsctl.output.text.verification import format_diagnosis

    found = running_lab(lab)
    with Progress() as progress:
        result = diagnose_lab(found, client, emit=progress)
    if wanted is Format.JSON:
        show_json(result)
    else:
        show(format_diagnosis(result, style=style()))
    return ExitStatus.OK if result.healthy else ExitStatus.CLAIM_FAILED


class WalkFormat(StrEnum):
    """The output formats of walk."""

    TEXT = "text"
    JSON = "json"
    MERMAID = "mermaid"
    HTML = "html"


@app.command(cls=Command)
@in_lab_kernel()
def walk(
    ctx: typer.Context,
    lab: options.Lab = None,
    service: Annotated[
        str | None,
        typer.Option(
            "--service", metavar="NAME", help="Virtual service to ask; default: the first."
        ),
    ] = None,
    client: Annotated[
        str | None,
        typer.Option(
            "--client",
            metavar="NODE",
            autocompletion=options.complete_nodes,
            help="Node that sends the request; default: the first client.",
        ),
    ] = None,
    verbose: Annotated[
        bool, typer.Option("--verbose", "-v", help="Explain repeated hops in full.")
    ] = False,
    brief: Annotated[
        bool, typer.Option("--brief", "-b", help="A line a hop, without headers and reasons.")
    ] = False,
    wanted: Annotated[
        WalkFormat,
        typer.Option(
            "--format", "-f", help="Output format: text, json, mermaid (a diagram), html (a page)."
        ),
    ] = WalkFormat.TEXT,
    where: options.Placement = Where.AUTO,
) -> ExitStatus:
    """Follow one request through the lab, hop by hop.

    Sends one request and shows each hop from captured frames: MAC addresses, IP addresses,
    ports, TTL and encapsulation, what the previous node changed, and why. Neighbour entries are
    flushed before, so the ARP requests are shown too. The exit status is 1 if no reply came.

    Examples:
      lvsctl walk
      lvsctl walk tun -v
      lvsctl walk --brief                a line a hop
      lvsctl walk dr --format html > walk.html
    """
    from lvsctl.engine.inspect import walk_request
    from lvsctl.engine.labs import running_lab
    from lvsctl.output.html import page as html_page
    from lvsctl.output.text.walk import format_walk, mermaid

    found = walk_request(running_lab(lab), service, client)
    match wanted:
        case WalkFormat.TEXT:
            show(format_walk(found, style=style(), verbose=verbose, brief=brief))
        case WalkFormat.JSON:
            show_json(found)
        case WalkFormat.MERMAID:
            show(mermaid(found))
        case WalkFormat.HTML:
            show(html_page.walk_page(found))
    return ExitStatus.OK if found.exchange.answered else ExitStatus.CLAIM_FAILED
