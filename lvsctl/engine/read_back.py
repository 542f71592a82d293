"""Compare a lab's state with its plan after applying it: an acknowledgement is not the state."""

from __future__ import annotations

from collections.abc import Iterable

from lvsctl.errors import KernelError
from lvsctl.kernel import parts
from lvsctl.model.lab import Lab
from lvsctl.plan.stages import Plan
from lvsctl.resources.base import Resource, States
from lvsctl.resources.gue_port import GuePort
from lvsctl.resources.ipvs_config import ConnectionTimeouts
from lvsctl.resources.ipvs_service import IpvsService
from lvsctl.resources.keepalived import Keepalived
from lvsctl.resources.responder_port import ResponderPort
from lvsctl.resources.static_route import StaticRoute
from lvsctl.resources.sysctl import Sysctl
from lvsctl.resources.user_command import UserCommand


def check_applied(lab: Lab, plan: Plan) -> None:
    """Raise KernelError if the kernel's state differs from ``plan``, naming both.

    Nodes on which the user's own commands run are left out, because these may change anything.
    """
    resources = _checked(plan)
    check_found(lab, plan, parts.read_states(_parts(resources)))


def check_found(lab: Lab, plan: Plan, states: States) -> None:
    """Raise KernelError if ``states``, which were read after applying ``plan``, differ from it."""
    for one in _checked(plan):
        if not one.satisfied_by(states):
            raise _difference(lab, one, states)


def _checked(plan: Plan) -> list[Resource]:
    users = {one.netns for one in plan.resources if isinstance(one, (UserCommand, Keepalived))}
    return [one for one in plan.resources if users.isdisjoint(one.namespaces)]


def _parts(resources: Iterable[Resource]) -> dict[str, parts.Wanted]:
    """Return the parts of each namespace's state that show whether ``resources`` exist."""
    wanted: dict[str, parts.Wanted] = {}
    for one in resources:
        part = wanted.setdefault(one.netns, parts.Wanted())
        match one:
            case Sysctl():
                part.sysctls.append(one.name)
            case StaticRoute():
                part.routes = True
            case GuePort():
                part.gue_ports = True
            case IpvsService():
                part.ipvs = True
            case ConnectionTimeouts():
                part.timeouts = True
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
