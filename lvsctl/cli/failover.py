"""Two directors: failover."""

from __future__ import annotations

from typing import Annotated

import typer

from lvsctl.cli import options
from lvsctl.cli.failure import ExitStatus
from lvsctl.cli.help import Command, new_app
from lvsctl.cli.output import Format, show, show_json, style
from lvsctl.cli.where import Where, in_lab_kernel
from lvsctl.engine.failover import fail_over
from lvsctl.engine.labs import running_lab
from lvsctl.model.claim import Verdict
from lvsctl.output.text.failover import format_failover

app = new_app()


@app.command(cls=Command)
@in_lab_kernel()
def failover(
    ctx: typer.Context,
    lab: options.Lab = None,
    kill: Annotated[
        str | None,
        typer.Option(
            "--kill",
            metavar="DIRECTOR",
            autocompletion=options.complete_nodes,
            help="Director that loses its power; default: the master.",
        ),
    ] = None,
    cut: Annotated[
        str | None,
        typer.Option(
            "--cut",
            metavar="[DIRECTOR:]NETWORK",
            help="Cut a director's link (the master's) at the switch.",
        ),
    ] = None,
    split: Annotated[
        bool,
        typer.Option(
            "--split", help="Keep the directors' advertisements from each other (split brain)."
        ),
    ] = False,
    back: Annotated[
        bool, typer.Option("--back", help="Bring back what was killed, cut or split.")
    ] = False,
    wanted: options.As = Format.TEXT,
    where: options.Placement = Where.AUTO,
) -> ExitStatus:
    """Make one director take over from another, and measure the outage.

    A client asks every 10 ms meanwhile, and others hold connections open. Captured frames show
    the last advertisement, who took over, who announced the VIP and who followed; then each held
    connection goes on, or the reason is given why it does not. The exit status is 1 if a claim
    fails or cannot be decided.

    Examples:
      lvsctl failover dr-ha
      lvsctl failover dr-ha --back
      lvsctl failover nat-ha --cut director1:private
      lvsctl failover dr-ha --split
      lvsctl failover dr-ha --format json
    """
    result = fail_over(running_lab(lab), kill=kill, cut=cut, split=split, back=back)
    if wanted is Format.JSON:
        show_json(result)
    else:
        show(format_failover(result, style=style()))
    return ExitStatus.OK if result.verdict is Verdict.PASS else ExitStatus.CLAIM_FAILED
