"""A real server is off the network; the director still sends requests."""

from __future__ import annotations

from collections.abc import Iterator

from lvsctl.faults.base import EVERY_MODE, ONE_SILENT, Fault, Scene
from lvsctl.faults.change import Change, removed
from lvsctl.model.lab import Role
from lvsctl.resources.ops import AddLink, SetLinkUp


def changes(scene: Scene) -> Iterator[Change]:
    """Its cables, unplugged at the switch."""
    for op in scene.plan.ops:
        if isinstance(op, AddLink) and op.node_netns == scene.netns:
            yield removed(SetLinkUp(netns=op.netns, device=op.port))


FAULT = Fault(
    id="real-server-down",
    says="a real server is off the network",
    modes=EVERY_MODE,
    at=(Role.REAL_SERVER,),
    changes=changes,
    symptom=("ARP questions for the RIP stay unanswered"),
    breaks=(
        "dr.reply-direct",
        "tun.reply-direct",
        "tun.routed",
        "nat.both-directions-load-director",
        *ONE_SILENT,
    ),
)
