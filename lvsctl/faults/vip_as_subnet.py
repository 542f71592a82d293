"""The VIP is on a real server's loopback with the network's prefix length, not as /32.

On a loopback device the kernel takes the whole subnet for local: the real server then
answers itself instead of a client there. (To clients elsewhere it does no harm.)
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from ipaddress import ip_interface

from lvsctl.faults.base import DR, ONE_SILENT, Fault, Scene
from lvsctl.faults.change import Change
from lvsctl.model.lab import Role


def changes(scene: Scene) -> Iterator[Change]:
    """The same VIP with the prefix length of the network that it lies in."""
    for vip in scene.vips(device="lo"):
        for network, _, cip in scene.neighbours(Role.CLIENT):
            subnet = next(s for s in scene.lab.network(network).subnets if cip in s)
            if vip.address.ip in subnet:
                wide = ip_interface(f"{vip.address.ip}/{subnet.prefixlen}")
                yield Change(vip, replace(vip, address=wide))


FAULT = Fault(
    id="vip-as-subnet",
    says="a real server holds the VIP as a whole subnet instead of one address",
    modes=(DR,),
    at=(Role.REAL_SERVER,),
    changes=changes,
    symptom=(
        "requests reach the real server; its replies stay inside it, where the client's "
        "network is local now"
    ),
    breaks=("dr.reply-direct", *ONE_SILENT),
)
