"""Inject faults into a running lab, and restore it.

A fault is recorded before anything is changed, so that a lab can be restored even after
`kill -9`: restoring a change that was never made does no harm.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import partial

from lvsctl.errors import UsageError
from lvsctl.faults import FAULTS
from lvsctl.faults.base import Fault, FaultContext
from lvsctl.faults.change import Change, reversed_
from lvsctl.kernel import apply, masters, netns, ordering, paths, registry, undo
from lvsctl.kernel.paths import InjectedFault
from lvsctl.kernel.state import flush_neighbours_and_routes
from lvsctl.model.event import ignore
from lvsctl.model.frame import VRRP
from lvsctl.model.lab import Lab
from lvsctl.model.masters import Holders
from lvsctl.netlink.links import wait_until_operational
from lvsctl.plan import planner
from lvsctl.plan.stages import Plan, Stage
from lvsctl.resources.announcement_filter import AnnouncementFilter
from lvsctl.resources.base import Resource
from lvsctl.resources.drop_filter import DropFilter
from lvsctl.resources.keepalived import Keepalived
from lvsctl.resources.link_up import LinkUp
from lvsctl.resources.responder_port import ResponderPort
from lvsctl.resources.veth_link import VethLink
from lvsctl.traffic.responder import responder_of


@dataclass(frozen=True, slots=True)
class FaultInjector:
    """Injects faults into a running lab and restores them."""

    lab: Lab

    @property
    def plan(self) -> Plan:
        """The lab's plan."""
        return planner.plan_for(self.lab)

    def context(self, node: str) -> FaultContext:
        """The lab's plan at a node."""
        return FaultContext(self.lab, self.plan, self.lab.node(node))

    def node_for(self, fault: Fault, node: str | None = None) -> str:
        """Choose where to inject ``fault``: ``node``, or its default node. Raises UsageError."""
        nodes = fault.nodes(self.lab, self.plan)
        if not nodes:
            raise UsageError(
                f"{fault.id} does not apply to lab {self.lab.name}: {self._why_not(fault)}",
                hint=f"lvsctl fault list --lab {self.lab.name}",
            )
        if node is not None and node not in nodes:
            raise UsageError(
                f"{fault.id} cannot be injected at {node!r}", hint=f"at {', '.join(nodes)} it can"
            )
        return node or nodes[0]

    def _why_not(self, fault: Fault) -> str:
        methods = {method for service in self.lab.services for method in service.methods}
        if not methods.intersection(fault.modes):
            return f"it applies to {' and '.join(fault.modes)} only"
        return "this topology has nothing that it could change"

    def inject(self, fault: Fault, node: str | None = None) -> InjectedFault:
        """Inject ``fault``. Raises UsageError if it does not apply there or is injected already."""
        with registry.lock(self.lab.name):
            return self.inject_held(fault, node)

    def inject_held(
        self, fault: Fault, node: str | None = None, *, wait: bool = True
    ) -> InjectedFault:
        """The same, for a caller that holds the lab's lock.

        ``wait`` until another director is master, where the fault makes one.
        """
        one = InjectedFault(fault.id, self.node_for(fault, node))
        noted = paths.read_faults(self.lab.name)
        if one in noted:
            raise UsageError(f"{one} is injected already", hint=f"lvsctl fault restore {fault.id}")
        noted = (*noted, one)
        paths.write_faults(self.lab.name, noted)
        before = masters.holders(self.lab)
        changes = fault.changes_at(self.context(one.node))
        self._carry_out(changes, noted)
        if wait and _is_about_masters(self.lab, one.node, changes, before):
            masters.wait_for_change(self.lab, before)
        return one

    def restore(self, some: Sequence[InjectedFault] | None = None) -> tuple[InjectedFault, ...]:
        """Restore some faults, or all that are injected; the latest first."""
        with registry.lock(self.lab.name):
            return self.restore_held(some)

    def restore_held(
        self, some: Sequence[InjectedFault] | None = None
    ) -> tuple[InjectedFault, ...]:
        """The same, for a caller that holds the lab's lock."""
        noted = paths.read_faults(self.lab.name)
        restored = [one for one in reversed(noted) if some is None or one in some]
        for one in restored:
            noted = tuple(other for other in noted if other != one)
            self._carry_out(reversed_(self._changes_of(one)), noted)
            paths.write_faults(self.lab.name, noted)
        if restored:
            # What was removed is the last one now.
            ordering.put_in_order(self.broken_plan().resources, self.lab.name)
            masters.wait_for_master(self.lab, masters.takeover_seconds(self.lab))
            # What neighbours learnt while it was there would outlast the fault.
            nodes = [self.lab.netns(node.name) for node in self.lab.nodes]
            flush_neighbours_and_routes(netns.existing(self.lab.name, nodes))
        return tuple(restored)

    def broken_plan(self) -> Plan:
        """Return the lab's plan as injected faults have changed it."""
        stages = list(self.plan.stages)
        more: list[Resource] = []
        for change in self._injected():
            if change.before is not None:
                stages = [_replaced(stage, change.before, change.after) for stage in stages]
            elif change.after is not None:
                more.append(change.after)
        return Plan(self.lab.name, (*stages, *((Stage("faults", tuple(more)),) if more else ())))

    def inject_again(self) -> None:
        """Make again what faults have added and no state shows; the caller holds the lab's lock."""
        added = [change.after for change in self._injected() if change.before is None]
        self._perform(*(one for one in added if isinstance(one, UNSHOWN)))

    def _injected(self) -> tuple[Change, ...]:
        noted = paths.read_faults(self.lab.name)
        return tuple(change for one in noted for change in self._changes_of(one))

    def _changes_of(self, one: InjectedFault) -> tuple[Change, ...]:
        """No changes for an unknown fault or a node that no longer exists."""
        if one.fault not in FAULTS or one.node not in {node.name for node in self.lab.nodes}:
            return ()
        return FAULTS[one.fault].changes_at(self.context(one.node))

    def _carry_out(self, changes: Iterable[Change], staying: Iterable[InjectedFault]) -> None:
        """Each change in order; servers together at the end, because one process is all of them.

        ``staying`` are the faults that are there afterwards.
        """
        servers = False
        for change in changes:
            before, after = change.before, change.after
            if isinstance(before or after, ResponderPort):
                servers = True
                continue
            if before is not None and not change.in_place:
                undo.undo((before,), self.lab.name, ignore)
            if after is not None:
                self._perform(after)
        if servers:
            listening = self._listening(staying)
            if listening:
                self._perform(*listening)
            else:  # nothing would end the process that serves all of them
                ports = [one for one in self.plan.resources if isinstance(one, ResponderPort)]
                undo.undo(ports[:1], self.lab.name, ignore)

    def _listening(self, staying: Iterable[InjectedFault]) -> tuple[ResponderPort, ...]:
        """What should listen now: what the plan has, less what faults have stopped."""
        ports = dict.fromkeys(op for op in self.plan.resources if isinstance(op, ResponderPort))
        for one in staying:
            for change in self._changes_of(one):
                if isinstance(change.before, ResponderPort):
                    ports.pop(change.before, None)
                if isinstance(change.after, ResponderPort):
                    ports[change.after] = None
        return tuple(ports)

    def _perform(self, *ops: Resource) -> None:
        apply.apply_plan(
            (Stage("fault", ops),),
            self.lab.name,
            ignore,
            respond=responder_of(self.lab),
            reconciling=True,
        )
        for op in ops:
            plugged = self._ports(op)
            if plugged:  # it carries nothing at first
                netns.run_inside(op.netns, partial(_wait_until_up, plugged))

    def _ports(self, op: Resource) -> set[int]:
        """The index of the switch's port that ``op`` sets up; empty for anything else."""
        return {
            cable.port_index
            for cable in self.plan.resources
            if isinstance(cable, VethLink)
            and isinstance(op, LinkUp)
            and (cable.netns, cable.port) == (op.netns, op.device)
        }


UNSHOWN = (DropFilter, AnnouncementFilter)
"""Kinds of what faults add of which a state shows only parts."""


def _replaced(stage: Stage, before: Resource, after: Resource | None) -> Stage:
    """Return a stage with one resource in the place of another; None: with none."""
    kept = (one if one != before else after for one in stage.resources)
    return Stage(stage.title, tuple(one for one in kept if one is not None))


def _is_about_masters(lab: Lab, node: str, changes: Iterable[Change], before: Holders) -> bool:
    """Whether a director becomes master by ``changes`` at ``node``, after some time."""
    if not lab.floating:
        return False
    for change in changes:
        if isinstance(change.after, DropFilter) and change.after.protocol == VRRP:
            return True
        if isinstance(change.before, Keepalived):
            if _is_about_connections(change):
                return False
            holds = any(node in names for names in before.values())
            return change.after is not None or holds
    return False


def _is_about_connections(change: Change) -> bool:
    """Whether a change of keepalived's configuration is about the synchronization daemon alone."""
    texts = {
        re.sub(r" *lvs_sync_daemon .*\n", "", one.text)
        for one in (change.before, change.after)
        if isinstance(one, Keepalived)
    }
    return change.after is not None and len(texts) == 1


def _wait_until_up(indexes: set[int]) -> None:
    wait_until_operational(indexes, apply.OPERATIONAL_SECONDS)
