"""An address on a link."""

from __future__ import annotations

import errno
from collections.abc import Hashable, Iterator
from dataclasses import dataclass
from typing import ClassVar, Self

from lvsctl.model.addresses import IPInterface
from lvsctl.model.lab import Lab
from lvsctl.model.state import NodeState
from lvsctl.resources.base import (
    Command,
    Deviation,
    Part,
    Resource,
    States,
    link_part,
    vip_or_address,
)

_NO_IPV6 = "this kernel has no IPv6"
_NOT_DEPRECATED = "not deprecated"


@dataclass(frozen=True, slots=True, kw_only=True)
class Address(Resource):
    """An address on a link. IPv6 is usable at once: without duplicate address detection.

    ``deprecated``: an IPv6 address that the kernel does not choose as a source by itself (RFC 6724,
    rule 3). ``dad``: with duplicate address detection after all, as only a fault asks for it.
    """

    HINTS: ClassVar[dict[int, str]] = {
        errno.EACCES: "IPv6 is off there: look at its disable_ipv6, in net.ipv6.conf",
        errno.EAFNOSUPPORT: _NO_IPV6,
        errno.EOPNOTSUPP: _NO_IPV6,
    }

    device: str
    address: IPInterface
    deprecated: bool = False
    dad: bool = False

    @property
    def key(self) -> Hashable:
        return Address, self.netns, self.device, self.address

    def commands(self) -> tuple[Command, ...]:
        return (self._typed("add"),)

    def edit_commands(self) -> tuple[Command, ...]:
        return (self._typed("replace"),)

    def _typed(self, verb: str) -> Command:
        nodad = ["nodad"] if self.address.version == 6 and not self.dad else []
        lifetime = ["preferred_lft", "0"] if self.deprecated else []
        words = ("ip", "addr", verb, self.address, "dev", self.device, *nodad, *lifetime)
        return self.command(*words)

    def undo_commands(self) -> tuple[Command, ...]:
        return (self.command("ip", "addr", "del", self.address, "dev", self.device),)

    def rests_on(self) -> frozenset[Part]:
        return Resource.rests_on(self) | {link_part(self.netns, self.device)}

    def _missing(self, state: NodeState) -> bool:
        link = state.link(self.device)
        return link is None or self.address not in link.addresses

    def _wrong(self, state: NodeState) -> str:
        """Return what is wrong with the address, which exists; empty: nothing."""
        link = state.link(self.device)
        usual = {"secondary", "deprecated"} if self.deprecated else {"secondary"}
        unusual = link.unusual_addresses if link is not None else ()
        if self.deprecated and not any(
            one.address == self.address and "deprecated" in one.flags for one in unusual
        ):
            return _NOT_DEPRECATED
        for one in unusual:
            if one.address == self.address:
                words = [word for word in one.flags if word not in usual]
                words += [f"peer {one.peer}"] if one.peer else []
                words += [f"scope {one.scope}"] if one.scope else []
                if words:
                    return ", ".join(words)
        if not state.whole or link is None or not link.up:
            return ""
        if f"{self.address.ip}/{self.address.max_prefixlen}" not in state.local_addresses:
            return "its route in table local is missing"
        network = self.address.network
        connected = any(
            one.kernel and (one.to, one.device) == (network, self.device) for one in state.routes
        )
        if network.prefixlen == network.max_prefixlen or self.device == "lo" or connected:
            return ""
        return f"the route to {network} on {self.device} is missing"

    def holds(self, state: NodeState) -> bool:
        return not self._missing(state) and not self._wrong(state)

    def in_the_way(self, states: States) -> tuple[Resource, ...]:
        """Return the address itself where it is there and not as it should be.

        Its lifetime alone is changed in place.
        """
        state = states.get(self.netns)
        wrong = self._wrong(state) if state is not None and not self._missing(state) else ""
        return (self,) if wrong not in ("", _NOT_DEPRECATED) else ()

    @classmethod
    def from_state(cls, state: NodeState) -> Iterator[Self]:
        for link in state.links:
            for address in link.addresses:
                own = address.ip.is_loopback or address.ip.is_link_local
                if not (own or _is_compatible(address)):
                    yield cls(netns=state.netns, device=link.name, address=address)

    def deviation(self, state: NodeState, lab: Lab) -> Deviation | None:
        if self.holds(state):
            return None
        what = vip_or_address(self.address.ip, lab)
        if not self._missing(state):
            return Deviation(f"{what} on {self.device}: {self._wrong(state)}", self.why)
        return Deviation(f"{what} is missing on {self.device}", self.why)

    def surplus(self, lab: Lab) -> Deviation | None:
        what = vip_or_address(self.address.ip, lab)
        on_network = self.device in {network.name for network in lab.networks}
        return Deviation(
            f"{what} is on {self.device}, which the topology does not say",
            "arp_ignore=1 does not keep it silent there"
            if on_network and what.startswith("VIP")
            else "",
        )


def _is_compatible(address: IPInterface) -> bool:
    """Whether it is one that the kernel gives a sit device: an IPv4 address in ::/96.

    net/ipv6/addrconf.c, sit_add_v4_addrs.
    """
    return address.version == 6 and int(address.ip) < 1 << 32
