"""Create, remove and list labs: up, down, ls.

A command imports what it needs of the engine when it runs: completion needs none of it, and ``ls``
neither netlink nor plans.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any

import typer

from lvsctl.cli import failure, options, sources
from lvsctl.cli.failure import ExitStatus
from lvsctl.cli.help import Command, new_app
from lvsctl.cli.output import Format, Progress, show, show_json, style
from lvsctl.cli.where import ForwardRequest, Where, in_lab_kernel, machine_is_running, why_not_here
from lvsctl.errors import LabError, LvsctlError, UsageError
from lvsctl.kernel import registry
from lvsctl.model.service import ForwardingMethod, Scheduler

app = new_app()


def _check_topology(
    words: list[str],
    topology: str,
    servers: int | None,
    scheduler: Scheduler | None,
    name: str | None,
    forward: ForwardingMethod | None,
    **_: object,
) -> ForwardRequest:
    """Parse the topology here, for its mistakes; forward its text if the machine cannot read it."""
    from lvsctl.topology.overrides import Overrides

    return sources.forwarded(words, topology, Overrides(name, servers, scheduler, forward))


def _needs_no_machine(*, dry_run: bool, **_: object) -> bool:
    """Return whether the answer is known without a kernel: no machine is running, so no lab."""
    return dry_run and why_not_here() is not None and not machine_is_running()


@app.command(cls=Command)
@in_lab_kernel(starts=True, prepare=_check_topology, anywhere=_needs_no_machine)
def up(
    ctx: typer.Context,
    topology: options.Topology,
    servers: options.Servers = None,
    scheduler: options.SchedulerOption = None,
    forward: options.Forward = None,
    name: options.Name = None,
    new: Annotated[
        bool, typer.Option("--new", help="Refuse if a lab of that name is running.")
    ] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Print what would be changed, and change nothing.")
    ] = False,
    wanted: options.As = Format.TEXT,
    where: options.Placement = Where.AUTO,
) -> None:
    """Bring a lab up, or change a running one to match its topology.

    Builds the topology from network namespaces, configures IPVS on the director and starts
    the real servers. If the lab is running already, it is changed to match the topology, and
    the changes are listed. If up fails or is interrupted, a new lab is removed and a running
    one is restored to its previous state.

    Examples:
      lvsctl up dr                          a shipped topology (lvsctl topologies)
      lvsctl up ./mine.yaml --name trial    your own file, with another lab name
      lvsctl up nat -s 8 --scheduler wlc    with eight real servers
      lvsctl up methods --forward tun       with another forwarding method
      lvsctl up dr --where machine          in the throwaway kernel
      lvsctl up keepalived.conf             keepalived's virtual services (lvsctl import)
      lvsctl up ./mine.yaml --dry-run       what it would change (lvsctl diff)
      generate-topology | lvsctl up -       from standard input
    """
    from lvsctl.engine.up import bring_up
    from lvsctl.output.text.plan import format_up
    from lvsctl.plan.capacity import unanswered
    from lvsctl.plan.planner import load_lab
    from lvsctl.topology.overrides import Overrides

    found = sources.find_topology(topology)
    overrides = Overrides(name, servers, scheduler, forward)
    if new and registry.read(lab := load_lab(found, overrides).name) is not None:
        raise LabError(
            f"lab {lab} is running already",
            hint=f"give it another name: --name {lab}2 (Python: name='{lab}2'); or change it: "
            "without --new (Python: change=True)",
        )
    if dry_run:
        from lvsctl.engine.preview import preview
        from lvsctl.output.text.plan import format_preview

        planned = preview(load_lab(found, overrides))
        if wanted is Format.JSON:
            show_json(planned)
        else:
            show(format_preview(planned, style=style()))
        return
    try:
        with Progress() as progress:
            result = bring_up(found, overrides, progress)
        if wanted is Format.JSON:
            show_json(result)
        else:
            show(format_up(result, style=style()))
        for text in unanswered(result.lab):
            failure.say(f"warning: {text}")
    except failure.Signalled:
        _say_what_is_up(load_lab(found, overrides).name)
        raise


def _say_what_is_up(lab: str) -> None:
    """Say that a lab is up although its command is interrupted: the signal came too late."""
    entry = registry.read(lab)
    if entry is not None and entry.state is registry.State.UP:
        failure.say(f"lab {lab} is up; remove it: lvsctl down {lab}")


def _down_without_machine(labs: list[str] | None, all_: bool, wait: bool) -> int:
    """Answer ``down`` if no machine is running."""
    for lab in labs or ():
        failure.explain(LabError(f"lab {lab} is not running"))
    if not labs and not all_:
        raise LabError("no lab is running")
    if all_:
        show("no lab is running")
    return ExitStatus.USAGE if labs else ExitStatus.OK


@app.command(cls=Command)
@in_lab_kernel(without_machine=_down_without_machine)
def down(
    ctx: typer.Context,
    labs: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[LAB]...",
            autocompletion=options.complete_labs,
            help="Lab names; optional if only one is running.",
        ),
    ] = None,
    all_: Annotated[bool, typer.Option("--all", help="Remove every lab.")] = False,
    wait: Annotated[
        bool, typer.Option("--wait", help="Return when the kernel has freed everything.")
    ] = False,
    where: options.Placement = Where.AUTO,
) -> int:
    """Remove labs and everything they own, and nothing else.

    Ends a lab's processes and removes its namespaces, with the links, addresses, routes and
    IPVS tables in them. Also removes what an interrupted or killed command left behind.

    Examples:
      lvsctl down            the only lab
      lvsctl down dr nat     these two
      lvsctl down --all
      lvsctl down dr --wait  return when its memory is free
    """
    from lvsctl.engine.labs import tear_down

    if labs and all_:
        raise UsageError("name the labs, or use --all")
    status = ExitStatus.OK
    for lab in labs or _labs_to_remove(everything=all_):
        try:
            removed = tear_down(lab, wait=wait)
        except LvsctlError as error:  # go on with the other labs
            status = max(status, failure.explain(error))
        else:
            count = len(removed.namespaces)
            show(f"lab {lab} is down ({count} namespace{'' if count == 1 else 's'} removed)")
    return status


def _labs_to_remove(*, everything: bool) -> list[str]:
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
            hint="name the labs to remove, or use --all",
        )
    return names


def _ls_without_machine(wanted: Format) -> None:
    _list((), wanted)


@app.command(cls=Command)
@in_lab_kernel(needs_root=False, without_machine=_ls_without_machine)
def ls(
    ctx: typer.Context,
    wanted: options.As = Format.TEXT,
    where: options.Placement = Where.AUTO,
) -> None:
    """List running labs.

    Shows each lab's topology, nodes and virtual services. A lab that is damaged, or was left
    incomplete by a killed command, is listed with its problem.

    Examples:
      lvsctl ls
      lvsctl ls --format json | jq -r '.labs[].name'
    """
    from lvsctl.engine.labs import list_labs

    _list(list_labs(), wanted)


def _list(found: Sequence[Any], wanted: Format) -> None:
    if wanted is Format.JSON:
        show_json(labs=found)
    else:
        from lvsctl.output.text.labs import format_labs

        show(format_labs(found, style=style()))
