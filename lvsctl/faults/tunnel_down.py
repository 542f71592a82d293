"""A real server's tunnel device is down: nobody takes the outer header off."""

from __future__ import annotations

from collections.abc import Iterator

from lvsctl.faults.base import ONE_SILENT, TUN, Fault, Scene
from lvsctl.faults.change import Change, removed
from lvsctl.model.lab import Role
from lvsctl.resources.ops import AddTunnel, SetLinkUp


def changes(scene: Scene) -> Iterator[Change]:
    """The device, down. Its VIP stays, of no use."""
    for tunnel in scene.planned(AddTunnel):
        yield removed(SetLinkUp(netns=scene.netns, device=tunnel.device))


FAULT = Fault(
    id="tunnel-down",
    says="a real server's tunnel device is down",
    modes=(TUN,),
    at=(Role.REAL_SERVER,),
    changes=changes,
    symptom=(
        "tunnelled requests reach the real server, nothing comes out of the tunnel, and ICMP "
        "port unreachable goes back to the director"
    ),
    breaks=("tun.decapsulated-on-tunnel-device", "tun.reply-direct", *ONE_SILENT),
)
