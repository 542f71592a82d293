"""A device that is not from the topology."""

from __future__ import annotations

from collections.abc import Hashable, Iterator
from dataclasses import dataclass, field
from typing import ClassVar, Self

from lvsctl.model.lab import Lab
from lvsctl.model.state import LinkState, NodeState
from lvsctl.resources.base import Command, Deviation, Part, Resource, States, link_part

REMOVABLE = frozenset({
    "bareudp", "bond", "bridge", "dummy", "erspan", "geneve", "gre", "gretap", "hsr", "ifb",
    "ip6erspan", "ip6gre", "ip6gretap", "ip6tnl", "ipip", "ipvlan", "ipvtap", "macsec",
    "macvlan", "macvtap", "nlmon", "sit", "team", "veth", "vlan", "vrf", "vti", "vti6", "vxlan",
    "xfrm",
})  # fmt: skip
"""Kinds of device that only the kernel holds: deleting one ends no program and no connection to
the outside. Not wireguard and tun, which belong to programs, nor what is hardware."""

FALLBACK = frozenset({
    "tunl0", "gre0", "gretap0", "erspan0", "ip_vti0", "ip6_vti0", "sit0", "ip6tnl0", "ip6gre0",
})  # fmt: skip
"""Devices that the kernel may put into new namespaces by itself, down (net.core.fb_tunnels_…)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Device(Resource):
    """A device of any kind. Only found in a state: what a plan needs has kinds of its own."""

    PLANNED: ClassVar[bool] = False

    device: str
    kind: str = field(compare=False)
    index: int = field(default=0, compare=False)
    peer: int = field(default=0, compare=False)
    """The ifindex of a veth's other end in another namespace; 0: none, or in the same."""

    @property
    def key(self) -> Hashable:
        return Device, self.netns, self.device

    def commands(self) -> tuple[Command, ...]:
        kind = self.kind or "of hardware"
        return (Command((), self.netns, comment=f"device {self.device} ({kind})"),)

    def undo_commands(self) -> tuple[Command, ...]:
        return (self.command("ip", "link", "del", "dev", self.device),)

    def provides(self) -> frozenset[Part]:
        return frozenset({link_part(self.netns, self.device)})

    def left_because(self, states: States) -> str:
        if self.kind == "veth" and self.peer and not self._peer_in(states):
            return "its other end is outside of the lab"
        return "" if self.kind in REMOVABLE else "a program or the host may use it"

    def _peer_in(self, states: States) -> bool:
        return any(
            link.index == self.peer and link.peer == self.index and link.kind == "veth"
            for netns, state in states.items()
            if netns != self.netns
            for link in state.links
        )

    def holds(self, state: NodeState) -> bool:
        return state.link(self.device) is not None

    @classmethod
    def from_state(cls, state: NodeState) -> Iterator[Self]:
        for link in state.links:
            if link.name != "lo" and not _is_fallback(link):
                yield cls(
                    netns=state.netns,
                    device=link.name,
                    kind=link.kind,
                    index=link.index,
                    peer=link.peer if link.peer_elsewhere else 0,
                )

    def surplus(self, lab: Lab) -> Deviation | None:
        kind = f" ({self.kind})" if self.kind else ""
        return Deviation(f"device {self.device}{kind} is not from the topology")


def _is_fallback(link: LinkState) -> bool:
    return link.name in FALLBACK and not link.up and not link.addresses
