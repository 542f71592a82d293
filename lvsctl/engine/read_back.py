"""Read back what was applied: an acknowledgement of the kernel is not the state."""

from __future__ import annotations

from lvsctl.errors import KernelError
from lvsctl.kernel import state
from lvsctl.model.lab import Lab
from lvsctl.plan.stages import Plan
from lvsctl.resources.base import Resource, States
from lvsctl.resources.ipvs_service import IpvsService
from lvsctl.resources.sysctl import Sysctl
from lvsctl.resources.user_command import UserCommand


def check_applied(lab: Lab, plan: Plan) -> None:
    """Raise KernelError where the kernel does not hold what ``plan`` says, naming both.

    Nodes on which commands of the user's own run are left out: these may change anything.
    """
    users = {one.netns for one in plan.resources if isinstance(one, UserCommand)}
    wanted = [one for one in plan.resources if users.isdisjoint(one.namespaces)]
    sysctls: dict[str, list[str]] = {name: [] for name in plan.namespaces if name not in users}
    for one in wanted:
        if isinstance(one, Sysctl):
            sysctls[one.netns].append(one.name)
    directors = {one.netns for one in wanted if isinstance(one, IpvsService)}
    states = state.applied_state(sysctls, directors)
    for one in wanted:
        if not one.satisfied_by(states):
            raise _difference(lab, one, states)


def _difference(lab: Lab, wanted: Resource, states: States) -> KernelError:
    netns = wanted.namespaces[-1]  # a veth pair's node, not its switch
    node = next((node.name for node in lab.nodes if lab.netns(node.name) == netns), netns)
    deviation = wanted.deviation(states[netns], lab) if netns in states else None
    found = deviation.text if deviation is not None else "nothing like it"
    command = "; ".join(wanted.describe())
    return KernelError(
        f"{node}: the kernel accepted a setting and does not hold it\n"
        f"    wanted: {command}\n    found: {found}",
        node=node,
        command=command,
        hint="does another program change the lab's namespaces, such as a network manager?",
    )
