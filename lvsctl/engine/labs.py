"""The labs that exist: list, find, remove; the lab and the plan that a topology describes."""

from __future__ import annotations

import difflib
import shlex
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext, suppress
from dataclasses import dataclass, replace
from pathlib import Path

from lvsctl.errors import LabError, LvsctlError, UsageError
from lvsctl.kernel import paths, processes, registry
from lvsctl.kernel.registry import Entry, State
from lvsctl.model.lab import NAMESPACE_PREFIX, Lab, Node
from lvsctl.model.service import ForwardingMethod, Scheduler
from lvsctl.topology import shipped


@dataclass(frozen=True, slots=True)
class Listed:
    """A lab in the list. ``lab`` is None if its entry cannot be read (``entry.problem``).

    ``answering``: whether the process that answers for its real servers is running.
    ``faults`` are the injected faults with their nodes. ``masters`` are the directors that hold
    addresses that move from one to another; empty with one director.
    """

    entry: Entry
    lab: Lab | None
    answering: bool
    faults: tuple[str, ...] = ()
    masters: tuple[str, ...] = ()


def list_labs() -> tuple[Listed, ...]:
    """Return every lab of which anything exists, by name."""
    return tuple(_listed(entry) for entry in registry.labs())


def _listed(entry: Entry) -> Listed:
    if entry.state is State.BROKEN:
        return Listed(entry, None, answering=False)
    try:
        lab = configured(entry)
    except LvsctlError as error:
        broken = replace(entry, state=State.BROKEN, problem=error.message)
        return Listed(broken, None, answering=False)
    injected = paths.read_faults(entry.lab)
    stopped = {one.node for one in injected if one.fault == "service-stopped"}
    needed = any(
        not lab.node(server.node).run and server.node not in stopped
        for service in lab.services
        for server in service.real_servers
    )
    answering = not needed or processes.RESPONDER in processes.daemons(entry.lab)
    faults = tuple(map(str, injected))
    return Listed(entry, lab, answering=answering, faults=faults, masters=_masters(lab))


def _masters(lab: Lab) -> tuple[str, ...]:
    """Return the directors that are master; none where that cannot be read."""
    if not lab.floating:
        return ()
    from lvsctl.kernel import masters  # with netlink: heavy, and only for several directors

    try:
        found = masters.holders(lab)
    except LvsctlError:
        return ()
    return tuple(dict.fromkeys(name for names in found.values() for name in names))


def configured(entry: Entry) -> Lab:
    """Return the lab that an entry describes. Raises LabError or TopologyError if it is damaged."""
    # With PyYAML: only a lab that exists has a topology to read.
    from lvsctl.topology.loading import parse_topology
    from lvsctl.topology.overrides import Overrides

    words = entry.overrides
    name, servers = words.get("name"), words.get("servers")
    scheduler, forward = words.get("scheduler"), words.get("forward")
    damaged = LabError(f"the entry of lab {entry.lab} is damaged", hint=f"lvsctl down {entry.lab}")
    if not isinstance(name, str | None) or not isinstance(servers, int | None):
        raise damaged
    try:
        chosen = Scheduler(scheduler) if scheduler else None
        method = ForwardingMethod(forward) if forward else None
    except ValueError:
        raise damaged from None
    text = entry.topology.encode(errors="surrogatepass")  # what is no text is no topology either
    # The forwarding methods' rules were checked when the lab was created.
    topology = shipped.Topology(entry.source, text, entry.argument)
    lab = parse_topology(
        topology.text,
        topology.source,
        overrides=Overrides(name, servers, chosen, method),
        directory=topology.directory,
    )
    if lab.name != entry.lab:
        raise damaged
    return lab


def running_lab(name: str | None) -> Lab:
    """Return the running lab called ``name``; without a name, the only one.

    Raises LabError where it does not run, its entry is damaged or it was left half changed,
    UsageError where several labs run.
    """
    if name is None:
        names = [entry.lab for entry in registry.labs()]
        if not names:
            raise LabError("no lab is running", hint="start one: lvsctl up dr")
        if len(names) > 1:
            raise UsageError(
                f"{len(names)} labs are running: {', '.join(names)}",
                hint=f"name one of them in the command, such as {names[0]}",
            )
        name = names[0]
    entry = registry.read(name)
    if entry is None:
        raise not_running(name)
    if entry.state not in (State.UP, State.CHANGING):
        problem = entry.problem or f"it is {entry.state}, or the command that did so was killed"
        raise LabError(
            f"lab {name} is not usable: {problem}",
            hint=f"lvsctl down {name}" + (f" && {up_command(entry)}" if entry.source else ""),
        )
    if entry.state is State.CHANGING and not registry.is_held(name):
        raise LabError(
            f"lab {name} is not usable: a command that was changing it did not finish, "
            "so it matches neither its old nor its new topology",
            hint=f"`{up_command(entry)}` creates it again, `lvsctl down {name}` removes it",
        )
    return configured(entry)


def parse_lab_and_nodes(words: Sequence[str]) -> tuple[Lab, Sequence[str]]:
    """Return the running lab and the names of nodes that ``[LAB] [NODE]...`` mean.

    Where only one lab runs, its name may be left out. Raises what ``running_lab`` raises.
    """
    if not words:
        return running_lab(None), ()
    labs_there = [entry.lab for entry in registry.labs()]
    if len(labs_there) == 1 and words[0] not in labs_there:
        only = running_lab(None)
        if any(node.name == words[0] for node in only.nodes):
            return only, words
    return running_lab(words[0]), words[1:]


def find_node(lab: Lab, name: str) -> Node:
    """Return the node of ``lab`` called ``name``. Raises UsageError with the names it has."""
    try:
        return lab.node(name)
    except KeyError:
        names = ", ".join(node.name for node in lab.nodes)
        raise UsageError(f"lab {lab.name} has no node {name!r}", hint=f"it has: {names}") from None


def up_command(entry: Entry) -> str:
    """Return the command that makes a lab what its topology says: typed here, it is this lab.

    With the overrides that it was started with. A topology from standard input has to be given
    again.
    """
    argument = entry.argument
    if not argument:  # of an earlier version, or not from the command line
        stem = entry.source.removesuffix(".yaml")
        argument = stem if stem in shipped.names() else entry.source
    elif "/" in argument:
        path = Path(argument)
        with suppress(OSError):
            if path.is_relative_to(Path.cwd()):
                argument = f"./{path.relative_to(Path.cwd())}"
    words = ["lvsctl", "up", argument]
    for key, value in entry.overrides.items():
        words += [f"--{key}", str(value)]
    return shlex.join(words)


def not_running(name: str) -> LabError:
    """Return the error about a lab that does not run, with what may have been meant."""
    entries = registry.labs()
    names = [entry.lab for entry in entries]
    near = difflib.get_close_matches(name, names, n=1)
    own = [one.lab for one in entries if f"{NAMESPACE_PREFIX}-{one.lab}-{name}" in one.namespaces]
    if own:
        hint = f"{name} is a node or network of {', '.join(own)}: name the lab, too"
    elif near:
        hint = f"did you mean {near[0]}?"
    elif names:
        hint = f"running: {', '.join(names)}"
    elif name in shipped.names():
        hint = f"start it: lvsctl up {name}"
    else:
        hint = "no lab is running; start one: lvsctl up dr"
    return LabError(f"lab {name} is not running", hint=hint)


def remove_surely(lab: str) -> None:
    """Remove a lab, if it exists, also if a signal's exception interrupts that; then raise this."""
    try:
        if registry.read(lab) is not None:
            tear_down(lab)
    except LvsctlError:
        raise
    except BaseException:
        if registry.read(lab) is not None:
            tear_down(lab)
        raise


def tear_down(lab: str, *, wait: bool = False) -> registry.Removed:
    """Remove everything that ``lab`` owns. Raises LabError if the lab does not exist.

    The kernel destroys namespaces in the background; ``wait`` until it has done so.
    """
    with registry.lock(lab), _wait_for_cleanup(lab) if wait else nullcontext():
        removed = registry.remove(lab)
    if not removed.existed:
        raise not_running(lab)
    return removed


def _wait_for_cleanup(lab: str) -> AbstractContextManager[None]:
    from lvsctl.kernel import netns_cleanup  # with pyroute2: heavy, and only for --wait

    return netns_cleanup.wait_for_cleanup(lab)
