"""Deviations: where a node differs from the lab as configured.

Only what was inspected is compared: ``inspect`` reads neither every sysctl nor the bridges.
"""

from __future__ import annotations

from collections.abc import Mapping

from lvsctl.model.lab import Lab
from lvsctl.model.state import NodeState
from lvsctl.plan import planner
from lvsctl.plan.diff import diff
from lvsctl.plan.stages import Plan, Stage
from lvsctl.resources.base import Deviation, Resource
from lvsctl.resources.namespace import Namespace
from lvsctl.resources.sysctl import Sysctl
from lvsctl.resources.veth_link import VethLink


def find_deviations(
    lab: Lab, inspected: Mapping[str, NodeState]
) -> dict[str, tuple[Deviation, ...]]:
    """Return the deviations of each inspected node, by its name."""
    states = {state.netns: state for state in inspected.values()}
    plan = _inspected(planner.plan_for(lab), states)
    found = diff(plan, states)
    by_netns: dict[str, list[Deviation]] = {netns: [] for netns in states}
    for resource in (one for stage in found.missing for one in stage.resources):
        netns = resource.node_netns if isinstance(resource, VethLink) else resource.netns
        if (deviation := resource.deviation(states[netns], lab)) is not None:
            by_netns[netns].append(deviation)
    for resource in found.extra:
        if (deviation := resource.surplus(lab)) is not None:
            by_netns[resource.netns].append(deviation)
    return {name: tuple(by_netns[state.netns]) for name, state in inspected.items()}


def _inspected(plan: Plan, states: dict[str, NodeState]) -> Plan:
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
