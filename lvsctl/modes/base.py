"""The interface of a forwarding method: what it needs and what it rules out.

A mode's file reads like the definition of the forwarding method. It yields
*needs*: operations with the reason for each. The planner puts them in order.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol as Interface

from lvsctl.model.addresses import IPAddress, host_route
from lvsctl.model.lab import Lab, Node, Violation
from lvsctl.model.packet_filter import Marking
from lvsctl.model.service import ForwardingMethod, FwMark, RealServer, VirtualService
from lvsctl.resources.address import Address
from lvsctl.resources.base import Resource
from lvsctl.resources.marks import Marks
from lvsctl.resources.sysctl import Sysctl


@dataclass(frozen=True, slots=True)
class Placed:
    """A virtual service in its lab: its index in the topology, and one director."""

    lab: Lab
    index: int
    service: VirtualService
    director: Node

    def vip_device(self, vip: IPAddress) -> str:
        """The director's interface on the network that contains the VIP."""
        network = self.lab.network_of(vip)
        if network is None:
            raise ValueError(f"{vip} is in no network")
        return network.name

    def servers(self, method: ForwardingMethod) -> Iterator[tuple[int, RealServer]]:
        """Real servers of one method beyond the director, each with its position in the service."""
        for position, server in enumerate(self.service.real_servers):
            if server.forward is method and not server.local:
                yield position, server

    def netns(self, server: RealServer) -> str:
        """The namespace of one of the service's real servers."""
        return self.lab.netns(server.node)


class Mode(Interface):
    """A forwarding method of IPVS."""

    method: ForwardingMethod
    gateway_is_director: bool
    """Whether the real servers' replies must return through the director."""

    def director_needs(self, placed: Placed) -> Iterator[Resource]:
        """What the director needs beyond the VIP and the IPVS table."""
        ...

    def real_server_needs(self, placed: Placed, server: RealServer) -> Iterator[Resource]:
        """What a real server needs beyond an address and a return path to the client."""
        ...

    def violations(self, placed: Placed) -> Iterator[Violation]:
        """What of the topology contradicts the forwarding method's definition."""
        ...


def vips_on_director(placed: Placed) -> Iterator[Address]:
    """The VIPs, addresses of the director in every mode: requests must reach IPVS."""
    for vip in placed.service.vips:
        deprecated = is_deprecated(placed.lab, vip)
        never = "; deprecated: never the source of a tunnel, which is the DIP"
        yield Address(
            netns=placed.lab.netns(placed.director.name),
            device=placed.vip_device(vip),
            address=host_route(vip),
            deprecated=deprecated,
            why=f"clients reach {placed.service.name} here: IPVS handles packets to the VIP"
            + never * deprecated,
        )


def marks_of(lab: Lab, director: Node) -> Iterator[Marks]:
    """What a director marks of what it receives: requests of services by firewall mark."""
    markings = tuple(
        Marking(service.match.mark, vip, service.endpoint.protocol, ports)
        for service in lab.services
        if isinstance(service.match, FwMark)
        for vip in service.vips
        for ports in (service.match.ports or (None,))
    )
    if markings:
        yield Marks(
            netns=lab.netns(director.name),
            devices=director.networks,
            markings=markings,
            why="several ports or VIPs are one virtual service: IPVS goes by the mark, which nft "
            "sets where the kernel has nf_tables, and tc otherwise",
        )


def is_deprecated(lab: Lab, vip: IPAddress) -> bool:
    """Whether directors hold ``vip`` as a deprecated address: where they tunnel over IPv6.

    IPVS leaves the tunnel's source to the kernel, which takes any address of the interface that
    is not deprecated: the VIP too (ipv6_dev_get_saddr; net/netfilter/ipvs/ip_vs_xmit.c,
    __ip_vs_route_output_v6).
    """
    return lab.is_deprecated(vip)


def loose_reverse_path(netns: str, device: str, why: str) -> Iterator[Sysctl]:
    """Reverse path filtering off for ``device``: the maximum of `all` and the device is used.

    Linux, Documentation/networking/ip-sysctl.rst, rp_filter.
    """
    for name in ("all", device):
        yield Sysctl(netns=netns, name=f"net.ipv4.conf.{name}.rp_filter", value="0", why=why)


def no_port_mapping(placed: Placed, method: ForwardingMethod) -> Iterator[Violation]:
    """TUN and DR do not rewrite ports, so the real server must listen on the VIP's port."""
    ports = sorted({endpoint.port for endpoint in placed.service.endpoints})
    for position, server in enumerate(placed.service.real_servers):
        if server.forward is method and server.port and server.port not in ports:
            yield Violation(
                path=("services", placed.index, "real_servers", position),
                message=(
                    f"{server.node} listens on port {server.port}, but {method} "
                    "cannot map ports: the request arrives with port "
                    + " or ".join(map(str, ports))
                ),
                hint=(
                    f"remove `port: {server.port}`, or use `forward: nat`, "
                    "the only forwarding method that rewrites ports"
                ),
            )
