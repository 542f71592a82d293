"""The director does not tell clients that a packet is too large for the tunnel.

Everything works, but in pieces: with pmtu_disc=0 it clears DF on the outer header and
fragments (Documentation/networking/ipvs-sysctl.rst).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from lvsctl.faults.base import TUN, TUNNEL_COSTS, Fault, Scene
from lvsctl.faults.change import Change
from lvsctl.model.lab import Role
from lvsctl.resources.ops import SetSysctl


def changes(scene: Scene) -> Iterator[Change]:
    """IPVS's own setting, which is on as kernels come."""
    setting = SetSysctl(netns=scene.netns, key="net.ipv4.vs.pmtu_disc", value="1")
    yield Change(setting, replace(setting, value="0"))


FAULT = Fault(
    id="pmtu-discovery-off",
    says="the director's IPVS does no path MTU discovery",
    modes=(TUN,),
    at=(Role.DIRECTOR,),
    changes=changes,
    symptom=("no fragmentation-needed: full-sized requests leave the director in two fragments"),
    breaks=TUNNEL_COSTS,
)
