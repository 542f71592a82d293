"""Compare a plan with a running lab: what it lacks, and what it has beyond it. Pure.

Both are resources, so that the same values describe, apply and undo them. Each kind of resource
says whether a state satisfies it and which of its kind a state has (``resources``). Beyond the
plan only what could change how the lab works counts: addresses, routes, virtual services and
real servers. Links added by hand are left alone.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator
from typing import NamedTuple

from lvsctl.model.state import NodeState
from lvsctl.plan.stages import Plan, Stage
from lvsctl.resources.base import Resource, States
from lvsctl.resources.kinds import KINDS
from lvsctl.resources.responder_port import ResponderPort
from lvsctl.resources.static_route import StaticRoute
from lvsctl.resources.sysctl import Sysctl
from lvsctl.resources.user_command import UserCommand
from lvsctl.resources.veth_link import VethLink


class Difference(NamedTuple):
    """``missing``: the stages of the plan with only what is not so; ``extra``: to be undone.

    ``edited``: those of ``missing`` that take the place of something that exists.
    """

    missing: tuple[Stage, ...]
    extra: tuple[Resource, ...]
    edited: tuple[Resource, ...] = ()

    def __bool__(self) -> bool:
        return bool(self.missing or self.extra)


def diff(plan: Plan, states: States, ended: Collection[str] = ()) -> Difference:
    """Return how the kernel's ``states`` differ from ``plan``.

    ``ended`` are the namespaces in which the user's own command should run, and does not.
    """
    again = [one for one in plan.resources if isinstance(one, VethLink) and _is_cut(one, states)]
    missing = []
    for stage in plan.stages:
        resources = tuple(
            one
            for one in stage.resources
            if not one.satisfied_by(states)
            or any(_rests_on(one, link) for link in again)
            or (isinstance(one, UserCommand) and one.netns in ended)
        )
        # The responder serves all ports of the lab from one process: all or none.
        if any(isinstance(one, ResponderPort) for one in resources):
            resources = tuple(
                one for one in stage.resources if isinstance(one, ResponderPort) or one in resources
            )
        if resources:
            missing.append(Stage(stage.title, resources))
    # Half a veth pair is in the way of a whole one: its port is deleted first.
    halves = (one for one in again if one.netns in states and states[one.netns].link(one.port))
    existing = {one.key for state in states.values() for one in _present(state)}
    edited = (one for stage in missing for one in stage.resources if one.key in existing)
    return Difference(tuple(missing), (*halves, *_extra(plan, states)), tuple(edited))


def settings_of(plan: Plan) -> tuple[str, ...]:
    """Return the sysctls of a plan: those that ``states`` must have for ``diff``."""
    return tuple(dict.fromkeys(one.name for one in plan.resources if isinstance(one, Sysctl)))


def obsolete(old: Iterable[Resource], new: Iterable[Resource]) -> tuple[Resource, ...]:
    """Return those of ``old`` that must be undone for ``new`` to be all there is."""
    wanted = {one.key for one in new}
    return tuple(one for one in dict.fromkeys(old) if one.key not in wanted)


def independent(resources: Iterable[Resource]) -> list[Resource]:
    """Return those of ``resources`` that do not go away together with another one of them."""
    every = list(dict.fromkeys(resources))
    going = frozenset[object]().union(*(one.provides() for one in every))
    return [one for one in every if one.rests_on().isdisjoint(going)]


def _rests_on(resource: Resource, link: VethLink) -> bool:
    """Return whether a resource must be applied again together with ``link``.

    Routes are: those through the link went with it, and setting one twice is harmless.
    """
    if isinstance(resource, StaticRoute) and resource.netns == link.node_netns:
        return True
    return not resource.rests_on().isdisjoint(link.provides())


def _is_cut(link: VethLink, states: States) -> bool:
    """Return whether the link must be created again.

    One end goes with the other one's namespace: where the node still has its end, a switch that
    is not in ``states`` was not looked at.
    """
    node = states.get(link.node_netns)
    if link.netns not in states and node is not None and node.link(link.device) is not None:
        return False
    return not link.exists(states)


def _extra(plan: Plan, states: States) -> Iterator[Resource]:
    """Yield what exists and is neither in the plan nor about to be replaced by it."""
    wanted = {one.key for one in plan.resources}
    nodes = dict.fromkeys(one.node_netns for one in plan.resources if isinstance(one, VethLink))
    for netns in nodes:
        if netns in states:
            yield from (one for one in _present(states[netns]) if one.key not in wanted)


def _present(state: NodeState) -> Iterator[Resource]:
    """Yield what a node has, as the resources that would have made it."""
    for kind in KINDS:
        yield from kind.from_state(state)
