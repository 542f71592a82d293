"""A tunnel device of a real server."""

from __future__ import annotations

import errno
from dataclasses import dataclass
from typing import ClassVar

from lvsctl.model.addresses import IPAddress
from lvsctl.model.lab import Lab
from lvsctl.model.service import TunnelKind
from lvsctl.model.state import LinkState, NodeState, Setting
from lvsctl.resources.base import ELSEWHERE, Command, Deviation, Part, Resource, link_part
from lvsctl.resources.link_up import is_up, link_deviation

FALLBACK_DEVICES = frozenset(kind.device for kind in TunnelKind)
"""Devices that the kernel may have made by itself, and cannot delete: they are set down instead."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Tunnel(Resource):
    """A tunnel device that decapsulates whatever reaches the node, from any sender; up.

    A kernel that makes fallback devices in new namespaces has made ``tunl0`` and ``gre0``
    already (net.core.fb_tunnels_only_for_init_net=0): then it only has to be set up. Its
    ``ip6tnl0`` takes IPv6 in IPv6 only, until its mode is changed (net/ipv6/ip6_tunnel.c).
    """

    HINTS: ClassVar[dict[int, str]] = {errno.EOPNOTSUPP: "modprobe {self.kind.module}" + ELSEWHERE}

    device: str
    index: int
    kind: TunnelKind
    checked_at: IPAddress | None = None
    """Of GRE: it takes packets with a checksum, and no others, to this address of the node."""

    def commands(self) -> tuple[Command, ...]:
        mode: tuple[str, ...] = ("mode", "any") if self.kind is TunnelKind.IP6TNL else ()
        if self.checked_at is not None:
            mode = ("local", str(self.checked_at), "icsum")
        typed = ("type", str(self.kind), *mode)
        add = ("ip", "link", "add", "name", self.device, "index", str(self.index), *typed)
        there: tuple[str, ...] = ("ip", "link", "show", "dev", self.device)
        if self.kind is TunnelKind.IP6TNL:
            there = ("ip", "-6", "tunnel", "change", self.device, *mode)
        # Not the other way round: to look first and load the module by adding makes it twice.
        return (
            Command(add, self.netns, otherwise=(there,)),
            self.command("ip", "link", "set", "dev", self.device, "up"),
        )

    def undo_commands(self) -> tuple[Command, ...]:
        if self.device in FALLBACK_DEVICES:
            return (self.command("ip", "link", "set", "dev", self.device, "down"),)
        return (self.command("ip", "link", "del", "dev", self.device),)

    def provides(self) -> frozenset[Part]:
        return frozenset({link_part(self.netns, self.device)})

    def modules(self) -> tuple[str, ...]:
        return (self.kind.module,)

    def is_other(self, state: NodeState) -> bool:
        """Return whether the device exists and is another one: its kind or its parameters."""
        link = state.link(self.device)
        if link is None or (self.device in FALLBACK_DEVICES and not link.up):
            return False
        return link.kind != self.kind or bool(self._parameters(link))

    def holds(self, state: NodeState) -> bool:
        return is_up(state, self.device) and not self.is_other(state)

    def deviation(self, state: NodeState, lab: Lab) -> Deviation | None:
        link = state.link(self.device)
        if link is not None and self.is_other(state):
            kind = [] if link.kind == self.kind else [f"is of kind {link.kind}"]
            found = ", ".join([*kind, *map(str, self._parameters(link))])
            return Deviation(f"{self.device}: {found}", self.why)
        return link_deviation(state, self.device, self.why)

    def _parameters(self, link: LinkState) -> tuple[Setting, ...]:
        """The parameters that differ; a fallback tunl0 of the kernel's own takes any protocol."""
        found = {one.name: one for one in link.settings if one.group == "tunnel"}
        if link.name in FALLBACK_DEVICES and "proto" in found and found["proto"].value == "0":
            del found["proto"]
        for name, value in self._wanted.items():
            has = found.pop(name, None) or Setting(name, "none", value, "tunnel")
            if has.value != value:
                found[name] = has._replace(usual=value)
        return tuple(found.values())

    @property
    def _wanted(self) -> dict[str, str]:
        """The parameters that are not usual, as the state has them.

        The kernel turns path MTU discovery on where any parameter is given (ipgre_netlink_parms
        in net/ipv4/ip_gre.c).
        """
        if self.checked_at is None:
            return {}
        wanted = {"iflags": str(GRE_CHECKSUM_FLAG), "local": str(self.checked_at)}
        return wanted | ({"pmtudisc": "1"} if self.kind is TunnelKind.GRE else {})


GRE_CHECKSUM_FLAG = 0x8000
"""GRE_CSUM of linux/if_tunnel.h."""
