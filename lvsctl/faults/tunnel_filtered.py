"""A firewall on the way lets through TCP, but not IP in IP (protocol 4)."""

from __future__ import annotations

from collections.abc import Iterator

from lvsctl.faults.base import NOBODY_ANSWERS, TUN, Fault, Scene
from lvsctl.faults.change import Change, added
from lvsctl.faults.ops import DropIncoming
from lvsctl.model.lab import Role
from lvsctl.model.packet import IPIP


def changes(scene: Scene) -> Iterator[Change]:
    """Every interface of the router."""
    for device in scene.node.networks:
        yield added(DropIncoming(netns=scene.netns, device=device, protocol=IPIP))


FAULT = Fault(
    id="tunnel-filtered",
    says="a firewall between director and real servers drops IP in IP",
    modes=(TUN,),
    at=(Role.ROUTER,),
    changes=changes,
    symptom=("tunnelled requests leave the director and reach no real server"),
    breaks=("tun.routed", "tun.reply-direct", *NOBODY_ANSWERS),
)
