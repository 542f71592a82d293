"""A running lab broken on purpose, and put to the test by that."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from lvsctl.engine.labs import breaking_of, find_node, tear_down
from lvsctl.engine.plans import load_lab
from lvsctl.engine.results import FaultListed, FaultShown
from lvsctl.engine.up import bring_up
from lvsctl.errors import LabError, UsageError
from lvsctl.kernel import injected, registry
from lvsctl.model.lab import Lab
from lvsctl.plan import planner
from lvsctl.topology import shipped
from lvsctl.topology.overrides import Overrides
from lvsctl.topology.shipped import Topology

if TYPE_CHECKING:
    from lvsctl.engine.matrix import Cell, Column
    from lvsctl.engine.proving import Proof, Tell
    from lvsctl.faults.base import Fault


def prove_claims(lab: Lab, tell: Tell) -> Proof:
    """Break a running lab by each fault that applies to it, and see which claims fail."""
    from lvsctl.engine import proving

    return proving.prove(breaking_of(lab), tell)


def inject_fault(lab: Lab, name: str, node: str | None = None) -> FaultShown:
    """Inject a fault into a running lab. Raises UsageError where it does not apply there."""
    from lvsctl.faults import fault

    if node is not None:
        find_node(lab, node)
    one = breaking_of(lab).inject(fault(name), node)
    return show_fault(lab, name, one.node)


def restore_faults(lab: Lab, name: str | None = None, node: str | None = None) -> tuple[str, ...]:
    """Take back a fault, or all of them. Raises UsageError where it is not injected."""
    from lvsctl.faults import fault

    noted = injected.read(lab.name)
    if name is None:
        return tuple(map(str, breaking_of(lab).restore()))
    fault(name)
    meant = [one for one in noted if one.fault == name and node in (None, one.node)]
    if not meant:
        there = ", ".join(map(str, noted)) or "no fault is"
        raise UsageError(f"{name} is not injected into lab {lab.name}", hint=f"injected: {there}")
    return tuple(map(str, breaking_of(lab).restore(meant)))


def list_faults(lab: Lab | None = None) -> tuple[FaultListed, ...]:
    """Every fault; with a lab, where it can be injected and where it is."""
    from lvsctl.faults import FAULTS

    if lab is None:
        return tuple(map(FaultListed, FAULTS.values()))
    plan, noted = planner.plan_for(lab), injected.read(lab.name)
    return tuple(
        FaultListed(
            fault,
            fault.nodes(lab, plan),
            tuple(one.node for one in noted if one.fault == fault.id),
        )
        for fault in FAULTS.values()
    )


def show_fault(lab: Lab | None, name: str, node: str | None = None) -> FaultShown:
    """What a fault does to a lab; without one, to the first shipped topology that it applies to.

    Raises UsageError where it does not apply.
    """
    from lvsctl.faults import fault
    from lvsctl.faults.change import reversed_

    one = fault(name)
    if lab is None:
        lab = _example(one)
    breaking = breaking_of(lab)
    scene = breaking.scene(breaking.node_for(one, node))
    changes = one.changes_at(scene)
    return FaultShown(
        fault=one,
        lab=lab.name,
        node=scene.node.name,
        predicted=one.predicted(scene),
        commands=tuple(command for change in changes for command in change.commands()),
        remedy=tuple(c for change in reversed_(changes) for c in change.commands()),
    )


def _example(fault: Fault) -> Lab:
    for name in shipped.names():
        lab = load_lab(Topology(name, shipped.text_of(name).encode()))
        if fault.nodes(lab, planner.plan_for(lab)):
            return lab
    raise UsageError(f"no shipped topology can have {fault.id}")


def check_fault_names(names: Sequence[str]) -> tuple[str, ...]:
    """The same, once they are known to be faults. Raises UsageError."""
    from lvsctl.faults import fault

    return tuple(fault(name).id for name in names)


def check_topology_names(names: Sequence[str]) -> tuple[str, ...]:
    """Those of the shipped topologies that are named, or all. Raises UsageError."""
    there = shipped.names()
    for name in names:
        if name not in there:
            raise UsageError(f"no topology {name} ships", hint=f"these do: {', '.join(there)}")
    return tuple(dict.fromkeys(names or there))


def applicable_faults(topology: str, only: Sequence[str] = ()) -> tuple[str, ...]:
    """The faults (of ``only``, where any are named) that a shipped topology can have."""
    from lvsctl.engine import matrix

    lab = load_lab(Topology(topology, shipped.text_of(topology).encode()))
    return tuple(fault.id for fault, _ in matrix.chosen(breaking_of(lab), only))


def run_matrix_column(
    topology: str, only: Sequence[str] = (), tell: Callable[[Cell], None] = lambda _: None
) -> Column:
    """Put a shipped topology to the test, in a lab of its own that is gone afterwards.

    Raises LabError where a lab of that name runs already, and what ``up`` raises.
    """
    from lvsctl.engine import matrix

    name = f"matrix-{topology}"
    if registry.read(name) is not None:
        raise LabError(f"lab {name} is there already", hint=f"lvsctl down {name}")
    made = bring_up(Topology(topology, shipped.text_of(topology).encode()), Overrides(name=name))
    try:
        return matrix.column(breaking_of(made.lab), topology, tell, only)
    finally:
        tear_down(name)
