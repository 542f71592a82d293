"""Deliberate misconfigurations: fault list, show, inject, restore.

A command imports what it needs of the engine when it runs: where it is only forwarded to the
throwaway kernel, that takes longer than everything else.
"""

from __future__ import annotations

from typing import Annotated

import typer

from lvsctl.cli import matrix, options
from lvsctl.cli.help import Command, new_app
from lvsctl.cli.output import Format, show, show_json, style
from lvsctl.cli.where import Where, in_lab_kernel
from lvsctl.errors import UsageError

app = new_app(
    name="fault",
    help="""Inject and remove deliberate misconfigurations (faults).

    Each fault names the claims that it must break: `lvsctl verify --prove` shows that it does.
    """,
    epilog="""
    Examples:
      lvsctl fault list
      lvsctl fault inject arp-ignore-unset --lab dr
      lvsctl fault restore --lab dr
    """,
)

Fault = Annotated[
    str,
    typer.Argument(
        metavar="FAULT",
        autocompletion=matrix.complete_faults,
        help="Name of the fault (lvsctl fault list).",
        show_default=False,
    ),
]

Node = Annotated[
    str | None,
    typer.Option(
        "--node",
        metavar="NODE",
        autocompletion=options.complete_nodes,
        help="Inject at this node instead of the default one.",
    ),
]


def _no_lab(lab: str | None, **_: object) -> bool:
    return lab is None


@app.command("list", cls=Command)
@in_lab_kernel(anywhere=_no_lab)
def list_(
    ctx: typer.Context,
    lab: Annotated[
        str | None,
        typer.Option(
            "--lab",
            "-l",
            metavar="LAB",
            autocompletion=options.complete_labs,
            help="List only the faults that apply to this running lab.",
        ),
    ] = None,
    wanted: options.As = Format.TEXT,
    where: options.Placement = Where.AUTO,
) -> None:
    """List the faults that can be injected.

    Each is a misconfiguration that people make, with the claims of `lvsctl verify` that it
    must break. With --lab, lists only those that apply to a running lab, and at which nodes.

    Examples:
      lvsctl fault list
      lvsctl fault list --lab dr
    """
    from lvsctl.engine.faults import list_faults
    from lvsctl.engine.labs import running_lab
    from lvsctl.output.text.faults import format_faults

    found = list_faults(running_lab(lab) if lab is not None else None)
    if wanted is Format.JSON:
        show_json(lab=lab, faults=found)
    else:
        show(format_faults(found, lab, style=style()))


@app.command("show", cls=Command)
@in_lab_kernel(anywhere=_no_lab)
def show_(
    ctx: typer.Context,
    name: Fault,
    lab: Annotated[
        str | None,
        typer.Option(
            "--lab",
            "-l",
            metavar="LAB",
            autocompletion=options.complete_labs,
            help="Running lab; default: the first shipped topology to which the fault applies.",
        ),
    ] = None,
    node: Annotated[
        str | None,
        typer.Option(
            "--node",
            metavar="NODE",
            autocompletion=options.complete_nodes,
            help="Show it at this node instead of the default one.",
        ),
    ] = None,
    wanted: options.As = Format.TEXT,
    where: options.Placement = Where.AUTO,
) -> None:
    """Show what a fault is, what it looks like on the wire, and how to fix it.

    Also shows the commands that would cause it by hand, for a running lab or, without --lab,
    for the first shipped topology to which it applies.

    Examples:
      lvsctl fault show arp-ignore-unset
      lvsctl fault show wrong-gateway --lab nat --node rs2
    """
    from lvsctl.engine.faults import show_fault
    from lvsctl.engine.labs import running_lab
    from lvsctl.output.text.faults import format_fault

    shown = show_fault(running_lab(lab) if lab is not None else None, name, node)
    if wanted is Format.JSON:
        show_json(shown)
    else:
        show(format_fault(shown, style=style()))


@app.command(cls=Command)
@in_lab_kernel()
def inject(
    ctx: typer.Context,
    name: Fault,
    lab: options.LabOption = None,
    node: Node = None,
    wanted: options.As = Format.TEXT,
    where: options.Placement = Where.AUTO,
) -> None:
    """Inject a fault into a running lab.

    `lvsctl ls` and `lvsctl inspect` then list the fault as injected;
    `lvsctl fault restore` and `lvsctl up` remove it.

    Examples:
      lvsctl fault inject vip-missing
      lvsctl fault inject arp-ignore-unset --lab dr --node rs2
    """
    from lvsctl.engine.faults import inject_fault
    from lvsctl.engine.labs import running_lab
    from lvsctl.output.text.faults import format_injected

    injected = inject_fault(running_lab(lab), name, node)
    if wanted is Format.JSON:
        show_json(injected)
    else:
        show(format_injected(injected, style=style()))


@app.command(cls=Command)
@in_lab_kernel()
def restore(
    ctx: typer.Context,
    name: Annotated[
        str | None,
        typer.Argument(
            metavar="[FAULT]",
            autocompletion=matrix.complete_faults,
            help="Fault to remove; default: all.",
        ),
    ] = None,
    all_: Annotated[bool, typer.Option("--all", help="Remove all faults (the default).")] = False,
    lab: options.LabOption = None,
    node: Annotated[
        str | None,
        typer.Option(
            "--node",
            metavar="NODE",
            autocompletion=options.complete_nodes,
            help="Remove the fault at this node only; default: at every node.",
        ),
    ] = None,
    wanted: options.As = Format.TEXT,
    where: options.Placement = Where.AUTO,
) -> None:
    """Remove one injected fault, or all of them.

    Examples:
      lvsctl fault restore
      lvsctl fault restore vip-missing --lab dr
    """
    from lvsctl.engine.faults import restore_faults
    from lvsctl.engine.labs import running_lab
    from lvsctl.output.text.faults import format_restored

    if name is not None and all_:
        raise UsageError("name the fault, or use --all")
    if name is None and node is not None:
        raise UsageError("--node needs the name of a fault")
    found = running_lab(lab)
    restored = restore_faults(found, name, node)
    if wanted is Format.JSON:
        show_json(lab=found.name, restored=restored)
    else:
        show(format_restored(restored, found.name, style=style()))


app.command(cls=Command)(matrix.matrix)
