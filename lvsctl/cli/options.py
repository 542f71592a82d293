"""Arguments and options that several commands take, and their completion.

Completion starts and changes nothing.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Annotated

import typer

from lvsctl.cli.output import Format
from lvsctl.cli.where import WHERE_VARIABLE, Where
from lvsctl.errors import LvsctlError
from lvsctl.kernel import registry
from lvsctl.model.service import ForwardingMethod, Scheduler
from lvsctl.topology import shipped


def complete_topologies(incomplete: str) -> list[str]:
    """Names of shipped topologies."""
    return starting_with(incomplete, shipped.names())


def complete_labs(incomplete: str) -> list[str]:
    """Names of running labs."""
    return starting_with(incomplete, _labs())


def complete_nodes(ctx: typer.Context, incomplete: str) -> list[str]:
    """Names of nodes: of the lab that the command line names, else of the only one."""
    return starting_with(incomplete, _nodes(ctx.params.get("lab")))


def complete_lab_nodes(ctx: typer.Context, incomplete: str) -> list[str]:
    """Names of nodes of the only lab, or of all labs as LAB/NODE."""
    lab = ctx.params.get("lab")
    if lab is not None or "/" not in incomplete:
        found = starting_with(incomplete, _nodes(lab))
        if found:
            return found
    return starting_with(
        incomplete, [f"{name}/{node}" for name in _labs() for node in _nodes(name)]
    )


def complete_schedulers(incomplete: str) -> list[str]:
    """Names of IPVS's schedulers."""
    return starting_with(incomplete, Scheduler)


def _labs() -> list[str]:
    try:
        return [entry.lab for entry in registry.labs()]
    except LvsctlError:
        return []


def _nodes(lab: str | None) -> list[str]:
    from lvsctl.engine.labs import running_lab  # only names of nodes need the lab's topology

    try:
        return [node.name for node in running_lab(lab).nodes]
    except LvsctlError:
        return []


def starting_with(incomplete: str, names: Iterable[str]) -> list[str]:
    """Return the names that start with what was typed."""
    return [str(name) for name in names if name.startswith(incomplete)]


def refuse_nan(value: float | None) -> float | None:
    """Refuse what is not a number: no comparison with a limit does."""
    if value is not None and math.isnan(value):
        raise typer.BadParameter("nan is not a number of seconds.")
    return value


Placement = Annotated[
    Where,
    typer.Option(
        "--where",
        envvar=WHERE_VARIABLE,
        help="Where to run: auto (the host's kernel if it can run labs, else the machine), host, "
        "or machine.",
    ),
]

Topology = Annotated[
    str,
    typer.Argument(
        metavar="TOPOLOGY",
        autocompletion=complete_topologies,
        help="Name of a shipped topology, a file, or - for standard input.",
        show_default=False,
    ),
]

Lab = Annotated[
    str | None,
    typer.Argument(
        metavar="[LAB]",
        autocompletion=complete_labs,
        help="Lab name; optional if only one is running.",
    ),
]

LabOption = Annotated[
    str | None,
    typer.Option(
        "--lab",
        "-l",
        metavar="LAB",
        autocompletion=complete_labs,
        help="Lab name; optional if only one is running.",
    ),
]

Servers = Annotated[
    int | None,
    typer.Option(
        "--servers",
        "-s",
        metavar="N",
        min=1,
        help="Number of real servers; default: the topology's.",
    ),
]

SchedulerOption = Annotated[
    Scheduler | None,
    typer.Option(
        "--scheduler",
        metavar="NAME",
        autocompletion=complete_schedulers,
        help=f"Scheduler of every service: {', '.join(Scheduler)}; default: the topology's.",
    ),
]

Forward = Annotated[
    ForwardingMethod | None,
    typer.Option(
        "--forward",
        metavar="METHOD",
        help=f"Forwarding method of every service: {', '.join(ForwardingMethod)}; default: the "
        "topology's.",
    ),
]

Name = Annotated[
    str | None,
    typer.Option(
        "--name", "-n", metavar="LAB", help="Lab name; several labs can run side by side."
    ),
]

Sender = Annotated[
    str | None,
    typer.Option(
        "--client",
        metavar="NODE",
        autocompletion=complete_nodes,
        help="Node that sends the requests; default: every client that reaches the VIP.",
    ),
]

As = Annotated[
    Format,
    typer.Option("--format", "-f", help="Output format: text for people, json for programs."),
]
