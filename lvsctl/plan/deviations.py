"""How the state of a lab's namespaces differs from its topology, in words. Pure."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from lvsctl.model.lab import Lab
from lvsctl.plan import planner
from lvsctl.plan.diff import Difference, diff, independent
from lvsctl.plan.stages import Left, Plan, Stage
from lvsctl.resources.address import Address
from lvsctl.resources.base import Command, Deviation, Resource, States
from lvsctl.resources.namespace import Namespace
from lvsctl.resources.sysctl import Sysctl
from lvsctl.resources.veth_link import VethLink


@dataclass(frozen=True, slots=True)
class Deviating:
    """A difference in the namespace ``netns``, and the commands that end it.

    ``resource`` is what is missing, or there without being in the plan; None: it is left alone.
    """

    netns: str
    deviation: Deviation
    resource: Resource | None
    commands: tuple[Command, ...]


def deviating(lab: Lab, states: States) -> Iterator[Deviating]:
    """Yield every difference of the namespaces in ``states``."""
    plan = planner.plan_for(lab)
    found = diff(_inspected(plan, states), states)
    ports: dict[str, set[str]] = {}
    for link in (one for one in plan.resources if isinstance(one, VethLink)):
        ports.setdefault(link.netns, set()).add(link.port)
    for resource in (one for stage in found.missing for one in stage.resources):
        netns = resource.node_netns if isinstance(resource, VethLink) else resource.netns
        if (deviation := resource.deviation(states[netns], lab)) is not None:
            edits = resource.edit_commands() if resource in found.edited else resource.commands()
            yield Deviating(netns, deviation, resource, edits)
        if isinstance(resource, VethLink) and resource.netns in states:
            port = resource.port_deviation(
                states[resource.netns], ports[resource.netns], states.get(resource.node_netns)
            )
            if port is not None:
                yield Deviating(resource.netns, port, resource, resource.commands())
    for resource in _worth_a_line(plan, found):
        if (deviation := resource.surplus(lab)) is not None:
            yield Deviating(resource.netns, deviation, resource, resource.undo_commands())
    yield from map(_left, found.left)


def _worth_a_line(plan: Plan, found: Difference) -> Iterator[Resource]:
    """Yield what is extra, without what goes with something else.

    What is in the way of something missing is told with that; of what goes with another extra
    thing, only its addresses are worth a line.
    """
    planned = {one.key for one in plan.resources}
    parts = frozenset[object]().union(*(one.provides() for one in plan.resources))
    alone = set(independent(found.extra))
    for resource in found.extra:
        if resource.key in planned or (resource.provides() and resource.provides() <= parts):
            continue
        if resource in alone or isinstance(resource, Address):
            yield resource


def _left(left: Left) -> Deviating:
    deviation = Deviation(left.text, left=True, command=left.command)
    return Deviating(left.netns, deviation, None, ())


def find_deviations(lab: Lab, states: States) -> dict[str, tuple[Deviation, ...]]:
    """Return the deviations in each inspected namespace, by its name."""
    by_netns: dict[str, list[Deviation]] = {netns: [] for netns in states}
    for one in deviating(lab, states):
        by_netns[one.netns].append(one.deviation)
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
