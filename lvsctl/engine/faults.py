"""What ``lvsctl fault`` and ``verify --prove`` do."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from lvsctl.engine import campaign
from lvsctl.engine.campaign import Cell, Column, Proof, Step, Trial
from lvsctl.engine.findings import FaultListed, FaultShown
from lvsctl.engine.labs import find_node
from lvsctl.engine.up import temporary_lab
from lvsctl.errors import UsageError
from lvsctl.faults import FAULTS, find_fault
from lvsctl.faults.base import Fault
from lvsctl.faults.change import reversed_
from lvsctl.faults.injector import FaultInjector
from lvsctl.kernel import packet_filters, paths, probe
from lvsctl.model.lab import Lab
from lvsctl.model.state import NodeState
from lvsctl.plan import planner
from lvsctl.plan.planner import load_lab
from lvsctl.resources.typed import typeable
from lvsctl.topology import shipped
from lvsctl.topology.overrides import Overrides
from lvsctl.topology.shipped import Topology


def prove_claims(
    lab: Lab,
    report: Callable[[Trial], None],
    begin: Callable[[Step], None] = lambda _: None,
    only: Sequence[str] = (),
) -> Proof:
    """Inject every applicable fault into a running lab and compare which claims fail.

    ``only``: some of them.
    """
    return campaign.prove(FaultInjector(lab), report, only, begin)


def inject_fault(lab: Lab, name: str, node: str | None = None) -> FaultShown:
    """Inject a fault into a running lab. Raises UsageError if it does not apply there."""
    if node is not None:
        find_node(lab, node)
    record = FaultInjector(lab).inject(find_fault(name), node)
    return show_fault(lab, name, record.node)


def restore_faults(lab: Lab, name: str | None = None, node: str | None = None) -> tuple[str, ...]:
    """Restore one fault, or all of them. Raises UsageError if it is not paths."""
    if name is None:
        return tuple(map(str, FaultInjector(lab).restore()))
    find_fault(name)
    records = paths.read_faults(lab.name)
    meant = [one for one in records if one.fault == name and node in (None, one.node)]
    if not meant:
        raise UsageError(
            f"{name} is not injected into lab {lab.name}",
            hint=f"injected: {', '.join(map(str, records)) or 'none'}",
        )
    return tuple(map(str, FaultInjector(lab).restore(meant)))


def list_faults(lab: Lab | None = None) -> tuple[FaultListed, ...]:
    """List every fault; with a lab, the nodes where it can be and where it is paths."""
    if lab is None:
        return tuple(map(FaultListed, FAULTS.values()))
    plan, records = planner.plan_for(lab), paths.read_faults(lab.name)
    return tuple(
        FaultListed(
            fault,
            fault.nodes(lab, plan),
            tuple(one.node for one in records if one.fault == fault.id),
        )
        for fault in FAULTS.values()
    )


def show_fault(lab: Lab | None, name: str, node: str | None = None) -> FaultShown:
    """Show what a fault does to a lab, by default to the first shipped topology that it fits.

    Raises UsageError if it does not apply.
    """
    fault, running = find_fault(name), lab is not None
    if lab is None:
        lab = _example(fault)
    injector = FaultInjector(lab)
    context = injector.context(injector.node_for(fault, node))
    changes = fault.changes_at(context)
    if running:
        states = {
            name: NodeState(name, whole=True, nftables=packet_filters.has_nftables())
            for name in map(lab.netns, (node.name for node in lab.nodes))
        }
        changes = tuple(change.fitted(states) for change in changes)
    inside = probe.inside_machine()

    def typed(command: str) -> str:
        return typeable(command, lab, in_machine=inside)

    return FaultShown(
        fault=fault,
        lab=lab.name,
        node=context.node.name,
        predicted=fault.predicted(context),
        commands=tuple(typed(command) for change in changes for command in change.commands()),
        remedy=tuple(typed(c) for change in reversed_(changes) for c in change.commands()),
    )


def _example(fault: Fault) -> Lab:
    # The simplest labs first.
    for name in dict.fromkeys(("dr", "nat", "tun", *shipped.names())):
        lab = _shipped_lab(name)
        if fault.nodes(lab, planner.plan_for(lab)):
            return lab
    raise UsageError(f"{fault.id} applies to no shipped topology")


def _shipped_lab(name: str) -> Lab:
    return load_lab(Topology(name, shipped.text_of(name).encode()))


def check_fault_names(names: Sequence[str]) -> tuple[str, ...]:
    """Return ``names``. Raises UsageError for a fault that does not exist."""
    return tuple(find_fault(name).id for name in names)


def check_topology_names(names: Sequence[str]) -> tuple[str, ...]:
    """Return the shipped topologies of these names, or all. Raises UsageError."""
    available = shipped.names()
    for name in names:
        if name not in available:
            raise UsageError(
                f"no shipped topology is called {name}", hint=f"these are: {', '.join(available)}"
            )
    return tuple(dict.fromkeys(names or available))


def applicable_faults(topology: str, only: Sequence[str] = ()) -> tuple[str, ...]:
    """The faults (``only`` these, if any) that apply to a shipped topology."""
    injector = FaultInjector(_shipped_lab(topology))
    return tuple(fault.id for fault, _ in campaign.applicable(injector, only))


def run_matrix_column(
    topology: str, only: Sequence[str] = (), report: Callable[[Cell], None] = lambda _: None
) -> Column:
    """Test a shipped topology in a lab of its own, which is removed afterwards.

    Raises LabError if a lab of that name is running, and what ``bring_up`` raises.
    """
    text = Topology(topology, shipped.text_of(topology).encode())
    with temporary_lab(text, Overrides(name=f"matrix-{topology}")) as lab:
        return campaign.run_column(FaultInjector(lab), topology, report, only)
