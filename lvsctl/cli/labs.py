"""Labs come and go: up, down, ls."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from lvsctl.cli import failure
from lvsctl.cli.exit_status import ExitStatus
from lvsctl.cli.output import Format, show, show_json, style
from lvsctl.cli.where import Handover, in_lab_kernel
from lvsctl.errors import LabError, LvsctlError, UsageError

# What annotations of parameters name is only imported where Typer reads them (``Placed``).
if TYPE_CHECKING:
    import typer

    from lvsctl.cli import complete, options
    from lvsctl.engine.results import Listed, Up
    from lvsctl.model.service import Scheduler
    from lvsctl.topology.overrides import Overrides


def overrides_of(name: str | None, servers: int | None, scheduler: Scheduler | None) -> Overrides:
    """What the command line changes about a topology."""
    from lvsctl.topology.overrides import Overrides

    return Overrides(name=name, servers=servers, scheduler=scheduler)


def _checked(
    words: list[str],
    topology: str,
    servers: int | None,
    scheduler: Scheduler | None,
    name: str | None,
    **_: object,
) -> Handover:
    """Read the topology here, for its mistakes, and hand its text on where need be."""
    from lvsctl import modes
    from lvsctl.topology import shipped
    from lvsctl.topology.loading import parse_topology

    found = shipped.find(topology, sys.stdin.buffer)
    overrides = overrides_of(name, servers, scheduler)
    parse_topology(found.text, found.source, overrides=overrides, rules=modes.violations)
    if topology in shipped.names() or _can_be_read_inside(topology):
        return Handover(words)
    return Handover(["-" if word == topology else word for word in words], found.text)


def _can_be_read_inside(topology: str) -> bool:
    """Not standard input nor a pipe, <(…), nor in a directory that the machine has its own of."""
    path = Path(topology).resolve()
    own = any(path.is_relative_to(place) for place in ("/dev", "/proc", "/run", "/sys"))
    return topology != "-" and path.is_file() and not own


@in_lab_kernel(starts=True, prepare=_checked)
def up(
    topology: options.Topology,
    servers: options.Servers = None,
    scheduler: options.Schedulers = None,
    name: options.Name = None,
    wanted: options.As = Format.TEXT,
) -> None:
    """Bring a lab up, or change the running one to its topology.

    Builds the topology out of network namespaces, configures IPVS on the director and
    starts the real servers. Where the lab runs already it is made equal to the topology,
    and what was changed is listed. Where it fails or is interrupted, nothing of a new lab is
    left behind, and a running one is made what it was.

    Examples:
      lvsctl up dr                          a shipped topology (lvsctl topologies)
      lvsctl up ./mine.yaml --name trial    a file of your own, under another name
      lvsctl up nat -s 8 --scheduler wlc    with eight real servers
      lvsctl up dr --where machine          in the throwaway kernel
      generate-topology | lvsctl up -       from standard input
    """
    from lvsctl.cli.progress import Progress
    from lvsctl.engine.up import bring_up
    from lvsctl.topology import shipped

    found = shipped.find(topology, sys.stdin.buffer)
    with Progress() as progress:
        result = bring_up(found, overrides_of(name, servers, scheduler), progress)
    _show_up(result, wanted)


def _show_up(result: Up, wanted: Format) -> None:
    if wanted is Format.JSON:
        from lvsctl.output import jsonable

        show_json(jsonable.up(result))
    else:
        from lvsctl.output import text_up

        show(text_up.up(result, style=style()))


def _down_nothing(labs: list[str] | None, all_: bool, wait: bool) -> int:  # noqa: ARG001
    """``down`` where not even a machine runs."""
    for lab in labs or ():
        failure.explain(LabError(f"lab {lab} is not running"))
    if not labs and not all_:
        raise LabError("no lab is running")
    if all_:
        show("no lab is running")
    return ExitStatus.USAGE if labs else ExitStatus.OK


@in_lab_kernel(without=_down_nothing)
def down(
    labs: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[LAB]...", autocompletion=complete.labs, help="Needless where one lab runs."
        ),
    ] = None,
    all_: Annotated[bool, typer.Option("--all", help="Every lab that there is.")] = False,
    wait: Annotated[
        bool, typer.Option("--wait", help="Return only when the kernel has taken all apart.")
    ] = False,
) -> int:
    """Remove labs: exactly what they own, and nothing else.

    Ends a lab's processes and removes its namespaces, with the links, addresses, routes and
    IPVS tables in them. Also removes what a killed command left half done.

    Examples:
      lvsctl down            the only lab
      lvsctl down dr nat     these two
      lvsctl down --all
      lvsctl down dr --wait  and the memory is free again
    """
    from lvsctl.engine import teardown

    if labs and all_:
        raise UsageError("name the labs, or say --all")
    status = ExitStatus.OK
    for lab in labs or _removable(everything=all_):
        try:
            removed = teardown.down(lab, wait=wait)
        except LvsctlError as error:  # the others must go all the same
            status = max(status, failure.explain(error))
        else:
            count = len(removed.namespaces)
            show(f"lab {lab} is down ({count} namespace{'' if count == 1 else 's'} removed)")
    return status


def _removable(*, everything: bool) -> list[str]:
    from lvsctl.kernel import registry

    names = [entry.lab for entry in registry.labs()]
    if everything:
        if not names:
            show("no lab is running")
        return names
    if not names:
        raise LabError("no lab is running")
    if len(names) > 1:
        raise UsageError(
            f"{len(names)} labs are running: {', '.join(names)}",
            hint="name those to remove, or say --all",
        )
    return names


def _no_labs(wanted: Format) -> None:
    _list((), wanted)


@in_lab_kernel(needs_root=False, without=_no_labs)
def ls(wanted: options.As = Format.TEXT) -> None:
    """List the labs that are running.

    With each lab: its topology, nodes, and virtual services. A lab that is damaged, or was
    left half done by a command that was killed, is listed with what is wrong.

    Examples:
      lvsctl ls
      lvsctl ls --format json | jq -r '.labs[].name'
    """
    from lvsctl.engine.labs import list_labs

    _list(list_labs(), wanted)


def _list(found: Sequence[Listed], wanted: Format) -> None:
    if wanted is Format.JSON:
        from lvsctl.output import jsonable

        show_json(jsonable.listing(found))
    else:
        from lvsctl.output import text_listing

        show(text_listing.listing(found, style=style()))
