"""A running lab broken on purpose, and put to the test by that."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from lvsctl import planner, spec
from lvsctl.app.bringing_up import up
from lvsctl.app.plans import lab_of
from lvsctl.app.registered import breaking_of, down, node_of
from lvsctl.errors import LabError, UsageError
from lvsctl.kernel import injected, registry
from lvsctl.model.lab import Lab
from lvsctl.results import FaultListed, FaultShown
from lvsctl.spec import shipped
from lvsctl.spec.shipped import Topology

if TYPE_CHECKING:
    from lvsctl.faults.base import Fault
    from lvsctl.matrix import Cell, Column
    from lvsctl.proving import Proof, Tell


def prove(lab: Lab, tell: Tell) -> Proof:
    """Break a running lab by each fault that applies to it, and see which claims fail."""
    from lvsctl import proving

    return proving.prove(breaking_of(lab), tell)


def inject(lab: Lab, name: str, node: str | None = None) -> FaultShown:
    """Inject a fault into a running lab. Raises UsageError where it does not apply there."""
    from lvsctl.faults import fault

    if node is not None:
        node_of(lab, node)
    one = breaking_of(lab).inject(fault(name), node)
    return fault_shown(lab, name, one.node)


def restore(lab: Lab, name: str | None = None, node: str | None = None) -> tuple[str, ...]:
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


def faults(lab: Lab | None = None) -> tuple[FaultListed, ...]:
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


def fault_shown(lab: Lab | None, name: str, node: str | None = None) -> FaultShown:
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
        lab = lab_of(Topology(name, shipped.text_of(name).encode()))
        if fault.nodes(lab, planner.plan_for(lab)):
            return lab
    raise UsageError(f"no shipped topology can have {fault.id}")


def fault_names(names: Sequence[str]) -> tuple[str, ...]:
    """The same, once they are known to be faults. Raises UsageError."""
    from lvsctl.faults import fault

    return tuple(fault(name).id for name in names)


def matrix_topologies(names: Sequence[str]) -> tuple[str, ...]:
    """Those of the shipped topologies that are named, or all. Raises UsageError."""
    there = shipped.names()
    for name in names:
        if name not in there:
            raise UsageError(f"no topology {name} ships", hint=f"these do: {', '.join(there)}")
    return tuple(dict.fromkeys(names or there))


def applying(topology: str, only: Sequence[str] = ()) -> tuple[str, ...]:
    """The faults (of ``only``, where any are named) that a shipped topology can have."""
    from lvsctl import matrix

    lab = lab_of(Topology(topology, shipped.text_of(topology).encode()))
    return tuple(fault.id for fault, _ in matrix.chosen(breaking_of(lab), only))


def matrix_column(
    topology: str, only: Sequence[str] = (), tell: Callable[[Cell], None] = lambda _: None
) -> Column:
    """Put a shipped topology to the test, in a lab of its own that is gone afterwards.

    Raises LabError where a lab of that name runs already, and what ``up`` raises.
    """
    from lvsctl import matrix

    name = f"matrix-{topology}"
    if registry.read(name) is not None:
        raise LabError(f"lab {name} is there already", hint=f"lvsctl down {name}")
    made = up(Topology(topology, shipped.text_of(topology).encode()), spec.Overrides(name=name))
    try:
        return matrix.column(breaking_of(made.lab), topology, tell, only)
    finally:
        down(name)
