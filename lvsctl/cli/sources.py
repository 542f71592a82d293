"""The topology that an argument names, also in the format of another program."""

from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from lvsctl.cli import failure
from lvsctl.cli.where import ForwardRequest, inside_machine
from lvsctl.errors import Problem, TopologyError, legible
from lvsctl.topology import shipped
from lvsctl.topology.shipped import Topology

if TYPE_CHECKING:
    from lvsctl.formats.to_topology import Imported
    from lvsctl.topology.overrides import Overrides

_TOPOLOGY_SUFFIXES = (".yaml", ".yml", ".json")


def find_topology(argument: str, *, brief: bool = True) -> Topology:
    """Find a command's topology; what is in another program's format is imported.

    With ``brief``, say on standard error what was imported and assumed. Raises UsageError if it
    cannot be read, TopologyError with the mistakes of an imported file.
    """
    return find_imported(argument, brief=brief)[0]


def find_imported(argument: str, *, brief: bool = True) -> tuple[Topology, Imported | None]:
    """Find a command's topology, and from what it was imported; None if it is one already."""
    found = shipped.find(argument, sys.stdin.buffer)
    if "/" not in argument and argument in shipped.names():
        return found, None
    if Path(argument).suffix in _TOPOLOGY_SUFFIXES:
        return found, None
    from lvsctl.formats import readers  # few commands import a file

    topology, imported = readers.as_topology(found)
    if imported is not None:
        check(imported)
        if brief and not inside_machine():
            say_in_brief(argument, imported)
    return topology, imported


def forwarded(
    words: list[str], argument: str, overrides: Overrides, *, brief: bool = True
) -> ForwardRequest:
    """Check a topology, and return the command line for the machine.

    Standard input, pipes and what is in directories that the machine has its own of are forwarded
    as text. Raises TopologyError with the topology's mistakes.
    """
    from lvsctl.plan import planner

    found, imported = find_imported(argument, brief=brief)
    lab = planner.load_lab(found, overrides)
    # The commands of `run:` may name programs in the host's /tmp, in a shell's words too.
    visible = [word for node in lab.nodes for part in node.run for word in (part, *part.split())]
    visible += imported.files if imported is not None else ()
    if argument in shipped.names() or machine_can_read(argument):
        return ForwardRequest(words, visible=visible)
    words = ["-" if word == argument else word for word in words]
    return ForwardRequest(words, found.text, visible=visible)


def machine_can_read(argument: str) -> bool:
    """Return whether it is a file, and not in a directory that the machine has its own of.

    Standard input and pipes, as <(command) makes them, cannot be read there.
    """
    path = Path(argument).resolve()
    own = any(path.is_relative_to(place) for place in ("/dev", "/proc", "/run", "/sys"))
    return argument != "-" and path.is_file() and not own


def check(imported: Imported) -> None:
    """Raise TopologyError if the topology of an imported file is not a lab."""
    from lvsctl.plan import planner

    source = imported.configuration.source
    try:
        planner.load_lab(Topology(f"topology of {source}", imported.text.encode()))
    except TopologyError as error:
        found = [_in_file(one, imported.text, source) for one in error.problems]
        if all(found):
            error = TopologyError(source, [one for one in found if one is not None])
        error.add(f"these are mistakes in what lvsctl import makes of {source}")
        raise error from None


def _in_file(problem: Problem, text: str, source: str) -> Problem | None:
    """Return a mistake of an imported topology at the line of its service in the file itself."""
    for line in reversed(text.splitlines()[: problem.line]):
        place = re.fullmatch(r"  - name: \S+  # (.+):(\d+)", line)
        if place is not None:
            file = place[1] if place[1] != source else ""
            return problem._replace(line=int(place[2]), column=0, file=file)
        if not line.startswith(" "):
            break
    return None


def say_in_brief(argument: str, imported: Imported) -> None:
    """Say what was imported, and how much of it is assumed or left out."""
    configuration = imported.configuration
    servers = {one.rip for service in configuration.services for one in service.destinations}
    failure.say(
        f"{legible(configuration.source)} ({configuration.program}): "
        f"{counted(len(configuration.services), 'virtual service')}, "
        f"{counted(len(servers), 'real server')}"
    )
    failure.hint("assumed: " + "; ".join(map(legible, imported.assumptions)))
    if imported.remarks:
        what = counted(len(imported.remarks), "setting")
        failure.hint(f"{what} not carried over: lvsctl import {argument} lists them")


def counted(count: int, what: str) -> str:
    """Return a number with its noun."""
    return f"{count} {what}{'' if count == 1 else 's'}"
