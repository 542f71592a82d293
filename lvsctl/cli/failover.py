"""Two directors: failover.

A command imports what it needs of the engine when it runs: where it is only forwarded to the
throwaway kernel, that takes longer than everything else.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from lvsctl.cli import options
from lvsctl.cli.failure import ExitStatus
from lvsctl.cli.files import check_writable, write_text
from lvsctl.cli.help import Command, new_app
from lvsctl.cli.output import Format, show, show_json, style
from lvsctl.cli.where import ForwardRequest, Where, in_lab_kernel

app = new_app()


def _check(words: list[str], page: Path | None, **_: object) -> ForwardRequest:
    """Find a file that cannot be written before anything is killed."""
    if page is None:
        return ForwardRequest(words)
    check_writable(page)
    return ForwardRequest(words, writes=page.absolute().parent)


@app.command(cls=Command)
@in_lab_kernel(prepare=_check)
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
    page: Annotated[
        Path | None,
        typer.Option("--html", metavar="FILE", help="Write a page with a time line, in one file."),
    ] = None,
    wanted: options.As = Format.TEXT,
    where: options.Placement = Where.AUTO,
) -> ExitStatus:
    """Make one director take over from another, and measure the outage.

    A client asks every 10 ms meanwhile, and others hold connections open. Captured frames show
    the last advertisement, who took over, who announced the VIP and who followed; then each held
    connection goes on, or the reason is given why it does not. The exit status is 1 if a claim
    fails or cannot be decided.

    Where all directors are active (`ha: ecmp`), one of them is lost, and its next hop is taken
    out of the routes a moment later, as a routing daemon does: what clients notice before and
    after that.

    Examples:
      lvsctl failover dr-ha
      lvsctl failover ecmp --kill director2
      lvsctl failover dr-ha --back
      lvsctl failover nat-ha --cut director1:private
      lvsctl failover dr-ha --split
      lvsctl failover dr-ha --html failover.html
      lvsctl failover dr-ha --format json
    """
    from lvsctl.engine.failover import fail_over
    from lvsctl.engine.labs import running_lab
    from lvsctl.engine.lost_director import lose_director
    from lvsctl.model.claim import Verdict
    from lvsctl.output.text.failover import format_failover

    found = running_lab(lab)
    move = lose_director if found.ecmp else fail_over
    result = move(found, kill=kill, cut=cut, split=split, back=back)
    if wanted is Format.JSON:
        show_json(result)
    else:
        show(format_failover(result, style=style()))
    if page is not None:
        from lvsctl.output.html.failover import failover_page

        write_text(page, failover_page(result))
    return ExitStatus.OK if result.verdict is Verdict.PASS else ExitStatus.CLAIM_FAILED
