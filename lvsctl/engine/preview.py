"""What ``up`` would change, before it does; and what differs between two topologies."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

from lvsctl.engine.labs import configured
from lvsctl.engine.reconcile import refuse_rewiring
from lvsctl.engine.whole import whole_state
from lvsctl.kernel import netns, own_servers, paths, registry, undo
from lvsctl.kernel.registry import State
from lvsctl.model.lab import Lab
from lvsctl.plan import commanded, diff, planner
from lvsctl.plan.stages import Plan, Up
from lvsctl.resources.base import Resource
from lvsctl.resources.namespace import Namespace
from lvsctl.resources.responder_port import ResponderPort
from lvsctl.resources.veth_link import VethLink


def preview(lab: Lab) -> Up:
    """Return what ``up`` would do to make the running lab equal to ``lab``; it changes nothing.

    ``created`` is true if no such lab is running: then ``added`` is the whole plan. Raises
    LabError where ``up`` would refuse to change the running lab.
    """
    plan = planner.plan_for(lab)
    entry = registry.read(lab.name)
    if entry is None or entry.state is not State.UP:
        return Up(lab, created=True, added=plan.resources)
    running = configured(entry)
    before = planner.plan_for(running)
    owned = commanded.owned_by_keepalived(plan)
    obsolete = diff.obsolete(before.resources, plan.resources)
    outdated = tuple(one for one in obsolete if not commanded.is_owned(one, owned))
    refuse_rewiring(lab.name, before, plan)
    undo.refuse(outdated, lab.name)
    there = set(netns.existing(lab.name, {one.netns for one in outdated}))
    gone = tuple(one for one in outdated if one.netns in there or isinstance(one, Namespace))
    states = whole_state(lab, plan)
    found = diff.diff(plan, states, own_servers.to_restart(lab, states))
    added = tuple(
        one
        for stage in found.missing
        for one in stage.resources
        # One process answers on all ports: it is started again for one of them.
        if not (isinstance(one, ResponderPort) and one.satisfied_by(states))
    )
    # What goes with a node that is removed is nothing that is left.
    going = {str(command) for one in gone for command in one.undo_commands()}
    return Up(
        lab,
        created=False,
        added=tuple(dict.fromkeys(added)),
        removed=_removed((*gone, *found.extra), added),
        restored=tuple(map(str, paths.read_faults(lab.name))),
        edited=found.edited,
        left=tuple(one for one in found.left if one.command not in going),
    )


def between(before: Plan, after: Plan, lab: Lab) -> Up:
    """Return what changes from one plan to another; ``lab`` is the second one's. Pure.

    Which number an interface has in the kernel is not a difference.
    """
    same = {_without_numbers(one) for one in before.resources}
    keys = {_without_numbers(one).key for one in before.resources}
    added = tuple(one for one in after.resources if _without_numbers(one) not in same)
    kept = {_without_numbers(one).key for one in after.resources}
    gone = [one for one in before.resources if _without_numbers(one).key not in kept]
    return Up(
        lab,
        created=False,
        added=added,
        removed=tuple(diff.independent(gone)),
        edited=tuple(one for one in added if _without_numbers(one).key in keys),
    )


def _removed(gone: Iterable[Resource], added: Iterable[Resource]) -> tuple[Resource, ...]:
    """Return what would be removed: each thing once, and nothing that goes with something else."""
    back = set(added)
    once = {one.key: one for one in reversed(list(gone))}
    return tuple(one for one in reversed(diff.independent(once.values())) if one not in back)


def _without_numbers(one: Resource) -> Resource:
    if isinstance(one, VethLink):
        return replace(one, port_index=0, device_index=0, bridge_index=0)
    return one
