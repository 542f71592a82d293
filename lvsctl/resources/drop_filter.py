"""A filter that drops a protocol. Only faults set any."""

from __future__ import annotations

from dataclasses import dataclass

from lvsctl.resources.base import Command, Part, Resource, link_part


@dataclass(frozen=True, slots=True, kw_only=True)
class DropFilter(Resource):
    """Packets of one protocol that ``device`` receives are dropped.

    Of one IP ``version``; with ``icmp_type`` only ICMPv6 messages of that type.

    With tc(8) rather than a packet filter: every kernel that lvsctl runs on has it, User-Mode
    Linux too, which has no nftables. A capture still sees what is dropped.
    """

    device: str
    protocol: int
    version: int = 4
    icmp_type: int | None = None

    def commands(self) -> tuple[Command, ...]:
        ethernet, ip = ("ip", "ip") if self.version == 4 else ("ipv6", "ip6")
        match = f"protocol {ethernet} u32 match {ip} protocol {self.protocol} 0xff"
        if self.icmp_type is not None:
            match += f" match u8 {self.icmp_type} 0xff at 40"
        match += " action drop"
        return (
            self.command("tc", "qdisc", "add", "dev", self.device, "clsact"),
            self.command("tc", "filter", "add", "dev", self.device, "ingress", *match.split()),
        )

    def undo_commands(self) -> tuple[Command, ...]:
        return (self.command("tc", "qdisc", "del", "dev", self.device, "clsact"),)

    def rests_on(self) -> frozenset[Part]:
        return Resource.rests_on(self) | {link_part(self.netns, self.device)}
