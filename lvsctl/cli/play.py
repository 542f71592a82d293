"""Playing a drill: a time line of what happens to a lab, and what is expected of it."""

from __future__ import annotations

import sys
from contextlib import ExitStack
from pathlib import Path
from typing import Annotated

import typer

from lvsctl.cli import options
from lvsctl.cli.failure import ExitStatus
from lvsctl.cli.help import Command, new_app
from lvsctl.cli.output import Format, Progress, show, show_json, style
from lvsctl.cli.sources import machine_can_read
from lvsctl.cli.where import ForwardRequest, Where, in_lab_kernel
from lvsctl.engine.labs import remove_surely, running_lab
from lvsctl.engine.play import play as play_drill
from lvsctl.engine.up import bring_up
from lvsctl.errors import UsageError
from lvsctl.kernel import registry
from lvsctl.model.claim import Verdict
from lvsctl.model.drill import Drill
from lvsctl.model.lab import Lab
from lvsctl.output.text.play import format_played
from lvsctl.plan.planner import load_lab
from lvsctl.topology import shipped
from lvsctl.topology.loading import parse_drill
from lvsctl.topology.overrides import Overrides
from lvsctl.topology.shipped import Topology

app = new_app()


def _check_drill(words: list[str], file: str, **_: object) -> ForwardRequest:
    """Parse the drill here, for its mistakes, and forward its text."""
    found = _read(file)
    drill, _problems = parse_drill(found.text, found.source)
    if drill.inside:
        load_lab(found, Overrides())
    elif drill.topology and drill.topology not in shipped.names():
        load_lab(_topology(drill, found), Overrides())
    if found.argument in shipped.names() or machine_can_read(file):
        return ForwardRequest(words)
    return ForwardRequest(["-" if word == file else word for word in words], found.text)


def _read(file: str) -> Topology:
    """Read a drill's file, or a topology. Raises UsageError if that is not possible."""
    if file in shipped.names() and not Path(file).exists():
        return shipped.find(file, sys.stdin.buffer)
    # With a slash, so that it is no shipped topology's name.
    path = file if file == "-" or "/" in file else f"./{file}"
    try:
        return shipped.find(path, sys.stdin.buffer)
    except UsageError as error:
        hint = "a drill is a file of your own, or in a topology: lvsctl play --help"
        raise UsageError(error.message, hint=hint) from None


@app.command(cls=Command)
@in_lab_kernel(starts=True, prepare=_check_drill)
def play(
    ctx: typer.Context,
    file: Annotated[
        str,
        typer.Argument(
            metavar="FILE",
            help="The drill (YAML), a topology with a time line, or - for standard input.",
            show_default=False,
        ),
    ],
    lab: options.Lab = None,
    wanted: options.As = Format.TEXT,
    where: options.Placement = Where.AUTO,
) -> ExitStatus:
    """Carry out a drill in a running lab, and compare what happens with what is expected.

    A drill is a file with a time line (`at 2s: weight rs1 0`, `at 4s: kill director1`, `at 5s:
    fault inject vip-missing rs2`, `at 8s: back`), traffic (`traffic: 50/s`) and what is expected
    (`expect: {lost: 0, outage: < 2s}`). A client asks at that rate, and others hold connections
    open; it is reported what became of them after each step. Afterwards the lab is what its
    topology says. Without LAB, a lab of the drill's own `topology:` is brought up and removed
    again, unless it is running; a topology with `timeline:` is a drill in a lab of its own. The
    exit status is 1 if an expectation is not met or cannot be decided.

    Examples:
      lvsctl play maintenance.yaml
      lvsctl play ecmp                                  the time line of a topology
      lvsctl play maintenance.yaml shop --format json
    """
    found = _read(file)
    drill, problems = parse_drill(found.text, found.source)
    with ExitStack() as stack:
        running = _lab(drill, lab, found, stack)
        progress = stack.enter_context(Progress())
        result = play_drill(running, drill, problems, progress.note)
    if wanted is Format.JSON:
        show_json(result)
    else:
        show(format_played(result, style=style()))
    return ExitStatus.OK if result.verdict is Verdict.PASS else ExitStatus.CLAIM_FAILED


def _topology(drill: Drill, found: Topology) -> Topology:
    """Return the topology that a drill names or is in. Raises UsageError if it does not exist."""
    name = drill.topology
    if drill.inside:
        return found
    if name in shipped.names():
        return Topology(f"{name}.yaml", shipped.text_of(name).encode(), name)
    path = (found.directory or Path.cwd()) / name
    return shipped.find(str(path), sys.stdin.buffer)


def _lab(drill: Drill, name: str | None, found: Topology, stack: ExitStack) -> Lab:
    """Return the lab to play in: a running one, or one of the drill's own for ``stack``."""
    if name is not None or not (drill.topology or drill.inside):
        if name is None and not registry.labs():
            raise UsageError(
                "no lab is running, and the drill names no topology",
                hint="start one: lvsctl up dr; or write topology: dr",
            )
        return running_lab(name)
    topology = _topology(drill, found)
    own = load_lab(topology, Overrides()).name
    if registry.read(own) is not None:
        return running_lab(own)
    # Registered before the lab exists, so that no signal leaves it behind.
    stack.callback(remove_surely, own)
    return bring_up(topology, Overrides()).lab
