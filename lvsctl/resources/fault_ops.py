"""Operations that only faults need: no lab that works contains one.

They describe themselves and are performed as those of ``lvsctl.resources.ops`` are.
"""

from __future__ import annotations

import shlex
from dataclasses import dataclass

from lvsctl.model.addresses import IPAddress
from lvsctl.resources.ops import Op


@dataclass(frozen=True, slots=True, kw_only=True)
class AddNeighbour(Op):
    """A static entry of the ARP cache: ``address`` is reached at ``mac``, and nobody is asked."""

    device: str
    address: IPAddress
    mac: str

    def describe(self) -> tuple[str, ...]:
        return (
            self._ip(
                *("neigh", "replace", self.address, "lladdr", self.mac),
                *("dev", self.device, "nud", "permanent"),
            ),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class DropIncoming(Op):
    """What a firewall does: IPv4 packets of one protocol that come in at ``device`` are dropped.

    With tc(8) rather than a packet filter: that is in every kernel which lvsctl runs on,
    in User-Mode Linux too, which has no nftables. A capture still sees what is dropped.
    """

    device: str
    protocol: int

    def describe(self) -> tuple[str, ...]:
        match = f"protocol ip u32 match ip protocol {self.protocol} 0xff action drop"
        return (
            self._tc("qdisc", "add", "dev", self.device, "clsact"),
            self._tc("filter", "add", "dev", self.device, "ingress", *match.split()),
        )

    def describe_removal(self) -> str:
        """The shell command that takes it away again."""
        return self._tc("qdisc", "del", "dev", self.device, "clsact")

    def _tc(self, *words: object) -> str:
        return shlex.join(["tc", "-n", self.netns, *map(str, words)])
