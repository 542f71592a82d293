"""A filter that keeps back the announcements of an address. Only faults set any."""

from __future__ import annotations

from dataclasses import dataclass

from lvsctl.model.addresses import IPAddress
from lvsctl.resources.base import Command, Part, Resource, link_part

ADVERTISEMENT = 136
"""ICMPv6's type of a neighbour advertisement (RFC 4861, section 4.4)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AnnouncementFilter(Resource):
    """``device`` does not send what announces ``address`` unasked.

    That is gratuitous ARP (RFC 5227, section 3), or an unsolicited neighbour advertisement to all
    nodes (RFC 4861, section 7.2.6). Replies to a question are sent.
    """

    device: str
    address: IPAddress

    @property
    def keys(self) -> tuple[tuple[int, int, int], ...]:
        """What tc-u32(8) compares: offset into the ARP packet or IP header, bytes, value."""
        if self.address.version == 4:
            high, low = divmod(int(self.address), 1 << 16)
            sender = ((14, 2, high), (16, 2, low))  # RFC 826: the addresses of sender and target
            return (*sender, (24, 4, int(self.address)))
        last = int(self.address) & 0xFFFFFFFF
        return (24, 1, 0xFF), (40, 1, ADVERTISEMENT), (60, 4, last)  # to a multicast address

    def commands(self) -> tuple[Command, ...]:
        protocol = "arp" if self.address.version == 4 else "ipv6"
        words = ["protocol", protocol, "u32"]
        for offset, size, value in self.keys:
            mask = (1 << 8 * size) - 1
            words += f"match u{8 * size} {value:#x} {mask:#x} at {offset}".split()
        words += ["action", "drop"]
        return (
            self.command("tc", "qdisc", "add", "dev", self.device, "clsact"),
            self.command("tc", "filter", "add", "dev", self.device, "egress", *words),
        )

    def undo_commands(self) -> tuple[Command, ...]:
        return (self.command("tc", "qdisc", "del", "dev", self.device, "clsact"),)

    def rests_on(self) -> frozenset[Part]:
        return Resource.rests_on(self) | {link_part(self.netns, self.device)}
