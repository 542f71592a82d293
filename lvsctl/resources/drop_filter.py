"""A filter that drops a protocol. Only faults set any."""

from __future__ import annotations

from dataclasses import dataclass

from lvsctl.resources.base import Command, Part, Resource, link_part


@dataclass(frozen=True, slots=True, kw_only=True)
class DropFilter(Resource):
    """IPv4 packets of one protocol that ``device`` receives are dropped, as by a firewall.

    With tc(8) rather than a packet filter: every kernel that lvsctl runs on has it, User-Mode
    Linux too, which has no nftables. A capture still sees what is dropped.
    """

    device: str
    protocol: int

    def commands(self) -> tuple[Command, ...]:
        match = f"protocol ip u32 match ip protocol {self.protocol} 0xff action drop"
        return (
            self.command("tc", "qdisc", "add", "dev", self.device, "clsact"),
            self.command("tc", "filter", "add", "dev", self.device, "ingress", *match.split()),
        )

    def undo_commands(self) -> tuple[Command, ...]:
        return (self.command("tc", "qdisc", "del", "dev", self.device, "clsact"),)

    def rests_on(self) -> frozenset[Part]:
        return Resource.rests_on(self) | {link_part(self.netns, self.device)}
