"""What a forwarding method is, to the rest of lvsctl: what it needs and what it rules out.

A mode's file reads like the definition of the forwarding method. It yields
*needs*: operations with the reason for each. The planner puts them in order.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol as Interface

from lvsctl.model.addresses import host_route
from lvsctl.model.lab import Lab, Node
from lvsctl.model.rule import Violation
from lvsctl.model.service import ForwardingMethod, RealServer, VirtualService
from lvsctl.resources.address import Address
from lvsctl.resources.base import Resource
from lvsctl.resources.sysctl import Sysctl


@dataclass(frozen=True, slots=True)
class Placed:
    """A virtual service where a topology places it: the lab, its index there, one director."""

    lab: Lab
    index: int
    service: VirtualService
    director: Node

    @property
    def vip_device(self) -> str:
        """The director's interface on the network that the VIP belongs to."""
        network = self.lab.network_of(self.service.vip)
        if network is None:
            raise ValueError(f"{self.service.vip} lies in no network")
        return network.name

    def netns(self, server: RealServer) -> str:
        """The namespace of one of the service's real servers."""
        return self.lab.netns(server.node)


class Mode(Interface):
    """A forwarding method of IPVS."""

    method: ForwardingMethod
    gateway_is_director: bool
    """Whether the real servers' replies must go back through the director."""

    def director_needs(self, placed: Placed) -> Iterator[Resource]:
        """What the director needs beyond the VIP and the IPVS table."""
        ...

    def real_server_needs(self, placed: Placed, server: RealServer) -> Iterator[Resource]:
        """What a real server needs beyond an address and a way back to the client."""
        ...

    def violations(self, placed: Placed) -> Iterator[Violation]:
        """What of the topology contradicts the forwarding method's definition."""
        ...


def vip_on_director(placed: Placed) -> Address:
    """The VIP, an address of the director in every mode: clients' requests must reach IPVS."""
    return Address(
        netns=placed.lab.netns(placed.director.name),
        device=placed.vip_device,
        address=host_route(placed.service.vip),
        why=f"clients reach {placed.service.name} here: IPVS takes what is addressed to the VIP",
    )


def loose_reverse_path(netns: str, device: str, why: str) -> Iterator[Sysctl]:
    """Reverse path filtering off for ``device``: the greater of `all` and the device counts.

    Linux, Documentation/networking/ip-sysctl.rst, rp_filter.
    """
    for name in ("all", device):
        yield Sysctl(netns=netns, name=f"net.ipv4.conf.{name}.rp_filter", value="0", why=why)


def no_port_mapping(placed: Placed) -> Iterator[Violation]:
    """TUN and DR leave the transport header alone, so the real server must use the VIP's port."""
    for position, server in enumerate(placed.service.real_servers):
        if server.port != placed.service.key.port:
            yield Violation(
                path=("services", placed.index, "real_servers", position),
                message=(
                    f"{server.node} listens on port {server.port}, but {placed.service.forward} "
                    f"cannot map ports: the request arrives with port {placed.service.key.port}"
                ),
                hint=(
                    f"leave out `port: {server.port}`, or use `forward: nat`, "
                    "the only forwarding method that rewrites ports"
                ),
            )
