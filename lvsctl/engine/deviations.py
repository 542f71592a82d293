"""Compare a lab's state with its plan.

After applying a plan, because an acknowledgement of the kernel is not the state; and for
``inspect``, which compares only what it has read.
"""

from __future__ import annotations

from collections.abc import Iterable

from lvsctl.errors import KernelError
from lvsctl.kernel import state
from lvsctl.model.lab import Lab
from lvsctl.plan import planner
from lvsctl.plan.diff import diff, independent
from lvsctl.plan.stages import Plan, Stage
from lvsctl.resources.address import Address
from lvsctl.resources.base import Deviation, Resource, States
from lvsctl.resources.gue_port import GuePort
from lvsctl.resources.ipvs_service import IpvsService
from lvsctl.resources.namespace import Namespace
from lvsctl.resources.responder_port import ResponderPort
from lvsctl.resources.static_route import StaticRoute
from lvsctl.resources.sysctl import Sysctl
from lvsctl.resources.user_command import UserCommand
from lvsctl.resources.veth_link import VethLink


def find_deviations(lab: Lab, states: States) -> dict[str, tuple[Deviation, ...]]:
    """Return the deviations in each inspected namespace, by its name."""
    plan = planner.plan_for(lab)
    found = diff(_inspected(plan, states), states)
    by_netns: dict[str, list[Deviation]] = {netns: [] for netns in states}
    for resource in (one for stage in found.missing for one in stage.resources):
        netns = resource.node_netns if isinstance(resource, VethLink) else resource.netns
        if (deviation := resource.deviation(states[netns], lab)) is not None:
            by_netns[netns].append(deviation)
    planned = {one.key for one in plan.resources}
    parts = frozenset[object]().union(*(one.provides() for one in plan.resources))
    alone = set(independent(found.extra))
    for resource in found.extra:
        # What is in the way of something missing is told with that; of what goes with another
        # extra thing, only its addresses are worth a line.
        if resource.key in planned or (resource.provides() and resource.provides() <= parts):
            continue
        if resource not in alone and not isinstance(resource, Address):
            continue
        if (deviation := resource.surplus(lab)) is not None:
            by_netns[resource.netns].append(deviation)
    for left in found.left:
        one = Deviation(left.text, left=True, command=left.command)
        by_netns[left.netns].append(one)
    return {netns: tuple(dict.fromkeys(several)) for netns, several in by_netns.items()}


def _inspected(plan: Plan, states: States) -> Plan:
    """Return the part of ``plan`` about the inspected nodes and settings."""

    def is_inspected(resource: Resource) -> bool:
        if isinstance(resource, VethLink):
            return resource.node_netns in states
        if resource.netns not in states or isinstance(resource, Namespace):
            return False
        if isinstance(resource, Sysctl):
            return resource.name in states[resource.netns].sysctls
        return True

    stages = (
        Stage(stage.title, tuple(filter(is_inspected, stage.resources))) for stage in plan.stages
    )
    return Plan(plan.lab, tuple(stages))


def check_applied(lab: Lab, plan: Plan) -> None:
    """Raise KernelError if the kernel's state differs from ``plan``, naming both.

    Nodes on which the user's own commands run are left out, because these may change anything.
    """
    resources = _checked(plan)
    check_found(lab, plan, state.read_states(_parts(resources)))


def check_found(lab: Lab, plan: Plan, states: States) -> None:
    """Raise KernelError if ``states``, which were read after applying ``plan``, differ from it."""
    for one in _checked(plan):
        if not one.satisfied_by(states):
            raise _difference(lab, one, states)


def _checked(plan: Plan) -> list[Resource]:
    users = {one.netns for one in plan.resources if isinstance(one, UserCommand)}
    return [one for one in plan.resources if users.isdisjoint(one.namespaces)]


def _parts(resources: Iterable[Resource]) -> dict[str, state.Wanted]:
    """Return the parts of each namespace's state that show whether ``resources`` exist."""
    wanted: dict[str, state.Wanted] = {}
    for one in resources:
        part = wanted.setdefault(one.netns, state.Wanted())
        match one:
            case Sysctl():
                part.sysctls.append(one.name)
            case StaticRoute():
                part.routes = True
            case GuePort():
                part.gue_ports = True
            case IpvsService():
                part.ipvs = True
            case ResponderPort():
                part.listeners.add(one.protocol)
    return wanted


def _difference(lab: Lab, wanted: Resource, states: States) -> KernelError:
    netns = wanted.namespaces[-1]  # a veth pair's node, not its switch
    node = next((node.name for node in lab.nodes if lab.netns(node.name) == netns), netns)
    deviation = wanted.deviation(states[netns], lab) if netns in states else None
    found = deviation.text if deviation is not None else "nothing like it"
    command = "; ".join(wanted.describe())
    return KernelError(
        f"{node}: the kernel accepted a setting but does not have it\n"
        f"    wanted: {command}\n    found: {found}",
        node=node,
        command=command,
        hint="does another program change the lab's namespaces, such as a network manager?",
    )
