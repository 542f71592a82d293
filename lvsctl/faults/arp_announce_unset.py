"""A real server asks its ARP questions in the name of the VIP: arp_announce is not 2.

It replies from the VIP, so it asks for the way to the client from the VIP (ip-sysctl.rst,
arp_announce=0). Every neighbour that hears it learns the wrong MAC address for the VIP.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from lvsctl.faults.base import DR, PAST_DIRECTOR, Fault, Scene
from lvsctl.faults.change import Change
from lvsctl.model.lab import Role


def changes(scene: Scene) -> Iterator[Change]:
    """The setting on `all`, as kernels come."""
    setting = scene.setting("net.ipv4.conf.all.arp_announce")
    yield Change(setting, replace(setting, value="0"))


FAULT = Fault(
    id="arp-announce-unset",
    says="arp_announce is not set on a real server",
    modes=(DR,),
    at=(Role.REAL_SERVER,),
    changes=changes,
    symptom=(
        "the real server asks who has the client's or the router's address, and says that"
        " it is the VIP"
    ),
    breaks=("dr.real-servers-announce-rip",),
    may_break=("dr.only-director-answers-arp", *PAST_DIRECTOR),
)
