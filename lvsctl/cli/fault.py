"""Breaking a lab on purpose: fault list, show, inject, restore."""

from __future__ import annotations

from typing import Annotated

import typer

from lvsctl.cli import complete, matrix, options
from lvsctl.cli.grammar import Command
from lvsctl.cli.output import Format, show, show_json, style
from lvsctl.cli.where import in_lab_kernel
from lvsctl.errors import UsageError


def _ids(incomplete: str) -> list[str]:
    from lvsctl.faults import FAULTS

    return [name for name in FAULTS if name.startswith(incomplete)]


Id = Annotated[
    str,
    typer.Argument(metavar="FAULT", autocompletion=_ids, help="Its name.", show_default=False),
]

Lab = Annotated[
    str | None,
    typer.Option(
        "--lab", metavar="LAB", autocompletion=complete.labs, help="Needless where one lab runs."
    ),
]

Node = Annotated[
    str | None,
    typer.Option(
        "--node",
        metavar="NODE",
        autocompletion=complete.nodes,
        help="There, not where it shows best.",
    ),
]


def _no_lab(lab: str | None, **_: object) -> bool:
    return lab is None


@in_lab_kernel(anywhere=_no_lab)
def list_(lab: Lab = None, wanted: options.As = Format.TEXT) -> None:
    """List the faults that can be injected.

    Each is a misconfiguration that people make, with the claims of `lvsctl verify` that it
    must break. With --lab only those that apply to a running lab, and the nodes where.

    Examples:
      lvsctl fault list
      lvsctl fault list --lab dr
    """
    from lvsctl.engine.faults import list_faults
    from lvsctl.engine.labs import running_lab

    found = list_faults(running_lab(lab) if lab is not None else None)
    if wanted is Format.JSON:
        from lvsctl.output import fault_json

        show_json(fault_json.listing(found, lab))
    else:
        from lvsctl.output import fault_text

        show(fault_text.listing(found, lab, style=style()))


@in_lab_kernel(anywhere=_no_lab)
def show_(name: Id, lab: Lab = None, node: Node = None, wanted: options.As = Format.TEXT) -> None:
    """Show a fault: what it is, what it looks like on the wire, and how it is mended.

    With the commands that a person would have typed, for a running lab or, without --lab,
    for the first shipped topology that can have it.

    Examples:
      lvsctl fault show arp-ignore-unset
      lvsctl fault show wrong-gateway --lab nat --node rs2
    """
    from lvsctl.engine.faults import show_fault
    from lvsctl.engine.labs import running_lab

    shown = show_fault(running_lab(lab) if lab is not None else None, name, node)
    if wanted is Format.JSON:
        from lvsctl.output import fault_json

        show_json(fault_json.shown(shown))
    else:
        from lvsctl.output import fault_text

        show(fault_text.shown(shown, style=style()))


@in_lab_kernel()
def inject(name: Id, lab: Lab = None, node: Node = None, wanted: options.As = Format.TEXT) -> None:
    """Break a running lab by a fault.

    `lvsctl ls` and `lvsctl inspect` then say that the lab is broken on purpose;
    `lvsctl fault restore` and `lvsctl up` mend it.

    Examples:
      lvsctl fault inject vip-missing
      lvsctl fault inject arp-ignore-unset --lab dr --node rs2
    """
    from lvsctl.engine.faults import inject_fault
    from lvsctl.engine.labs import running_lab

    injected = inject_fault(running_lab(lab), name, node)
    if wanted is Format.JSON:
        from lvsctl.output import fault_json

        show_json(fault_json.shown(injected))
    else:
        from lvsctl.output import fault_text

        show(fault_text.injected(injected, style=style()))


@in_lab_kernel()
def restore(
    name: Annotated[
        str | None,
        typer.Argument(metavar="[FAULT]", autocompletion=_ids, help="Without one, all of them."),
    ] = None,
    all_: Annotated[bool, typer.Option("--all", help="All of them.")] = False,
    lab: Lab = None,
    node: Node = None,
    wanted: options.As = Format.TEXT,
) -> None:
    """Take a fault back, or all that are injected into a lab.

    Examples:
      lvsctl fault restore
      lvsctl fault restore vip-missing --lab dr
    """
    from lvsctl.engine.faults import restore_faults
    from lvsctl.engine.labs import running_lab

    if name is not None and all_:
        raise UsageError("name the fault, or say --all")
    if name is None and node is not None:
        raise UsageError("--node needs the name of a fault")
    found = running_lab(lab)
    restored = restore_faults(found, name, node)
    if wanted is Format.JSON:
        from lvsctl.output import fault_json

        show_json(fault_json.restored(restored, found.name))
    else:
        from lvsctl.output import fault_text

        show(fault_text.restored(restored, found.name, style=style()))


def add_to(app: typer.Typer) -> None:
    """The commands of `lvsctl fault`."""
    for command, name in (
        (list_, "list"),
        (show_, "show"),
        (inject, "inject"),
        (restore, "restore"),
        (matrix.matrix, "matrix"),
    ):
        app.command(name, cls=Command)(command)
