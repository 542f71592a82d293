"""One request's way through a lab: walk."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated

import typer

from lvsctl.cli import complete, options
from lvsctl.cli.exit_status import ExitStatus
from lvsctl.cli.output import show, show_json, style
from lvsctl.cli.where import in_lab_kernel


class Drawn(StrEnum):
    """How a walk is drawn."""

    TEXT = "text"
    JSON = "json"
    MERMAID = "mermaid"
    HTML = "html"


@in_lab_kernel()
def walk(
    lab: options.Lab = None,
    service: Annotated[
        str | None,
        typer.Option("--service", metavar="NAME", help="This virtual service, not the first."),
    ] = None,
    client: Annotated[
        str | None,
        typer.Option(
            "--client",
            metavar="NODE",
            autocompletion=complete.nodes,
            help="From this node, not the first client.",
        ),
    ] = None,
    verbose: Annotated[
        bool, typer.Option("--verbose", "-v", help="Explain repeated hops in full too.")
    ] = False,
    wanted: Annotated[
        Drawn, typer.Option("--format", "-f", help="Text, JSON, a Mermaid diagram, or a page.")
    ] = Drawn.TEXT,
) -> ExitStatus:
    """Send one request and show its way, hop by hop, from captured frames.

    Each hop with MAC addresses, IP addresses, ports, TTL and encapsulation, what the node
    before it changed, and why; ARP questions first, for neighbours are forgotten before.
    The exit status is 1 where no answer came.

    Examples:
      lvsctl walk
      lvsctl walk tun -v
      lvsctl walk dr --format html > walk.html
    """
    from lvsctl.engine.inspect import walk_request
    from lvsctl.engine.labs import running_lab

    found = walk_request(running_lab(lab), service, client)
    match wanted:
        case Drawn.TEXT:
            from lvsctl.output import walk_text

            show(walk_text.walk(found, style=style(), verbose=verbose))
        case Drawn.JSON:
            from lvsctl.output import walk_json

            show_json(walk_json.walk(found))
        case Drawn.MERMAID:
            from lvsctl.output.mermaid import mermaid

            show(mermaid(found))
        case Drawn.HTML:
            from lvsctl.output.html import walk_page

            show(walk_page(found))
    return ExitStatus.OK if found.exchange.answered else ExitStatus.CLAIM_FAILED
