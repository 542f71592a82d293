"""What no configuration of a director says, and a lab needs: networks, client, router.

The addresses of virtual services and real servers decide the networks. Each assumption is a
sentence, which the topology has as a comment beside what rests on it.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from ipaddress import IPv4Network, IPv6Network, ip_network
from types import MappingProxyType
from typing import NamedTuple

from lvsctl.formats.configuration import Configuration, Mark, Service
from lvsctl.model.addresses import IPAddress, IPNetwork
from lvsctl.model.service import ForwardingMethod
from lvsctl.topology.addresses import free_address, unusable_because
from lvsctl.topology.parsers import MAX_INTERFACE_NAME, NAME_PATTERN, RESERVED_NAMES

OUTSIDE = "outside"
"""The clients' network."""

_OUTSIDE_SUBNETS: tuple[IPNetwork, ...] = (
    *(IPv4Network("198.51.100.0/24"), IPv4Network("203.0.113.0/24"), IPv4Network("192.0.2.0/24")),
    *(IPv4Network(f"10.254.{number}.0/24") for number in range(100)),
    *(IPv6Network(f"2001:db8:ffff:{number:x}::/64") for number in range(100)),
)
"""Networks for documentation (RFC 5737, RFC 3849) first: a real configuration has none of them."""

_PREFIXES = {4: (24, 23, 22, 20, 16, 25, 26, 27, 28, 29), 6: (64, 60, 56, 72, 80, 96, 112)}
"""Prefix lengths to try for an address whose network is unknown, the most likely one first."""

_TAKEN_NAMES = frozenset((*RESERVED_NAMES, OUTSIDE, "client", "router", "director"))


@dataclass(slots=True)
class Segment:
    """A network of the topology: subnets by IP version, and where they are from."""

    name: str
    subnets: dict[int, IPNetwork] = field(default_factory=dict)
    assumed: str = ""


class MarkedVip(NamedTuple):
    """The VIP that is assumed for a firewall mark, and why that one."""

    vip: IPAddress
    why: str


@dataclass(frozen=True, slots=True)
class Surroundings:
    """The networks, and who is on them; ``server_segments`` by the real server's address.

    ``marked_vips`` are the VIPs of services by firewall mark, which no file names.
    """

    segments: tuple[Segment, ...]
    director: tuple[Segment, ...]
    router: tuple[Segment, ...]
    server_segments: dict[IPAddress, Segment]
    marked_vips: dict[Mark, MarkedVip]


def assume(configuration: Configuration, services: Iterable[Service]) -> Surroundings:
    """Decide the networks for ``services``, whose addresses hosts can have."""
    found = list(services)
    vips = {vip: None for service in found for vip in vips_of(service)}
    methods: dict[IPAddress, set[ForwardingMethod]] = {}
    for service in found:
        for one in service.servers:
            methods.setdefault(one.rip, set()).add(one.forward)
    networks = _Networks(configuration)
    front = [networks.of(vip) for vip in vips]
    behind = {rip: networks.of(rip) for rip in methods}
    marked = _vips_of_marks(configuration, found, networks)
    front += [networks.of(one.vip) for one in marked.values()]
    networks.name_all(front)
    for service in found:
        for one in service.servers:
            version, other = service.match.version, one.rip.version
            networks.add_version(
                behind[one.rip], version, f"real servers answer IPv{version} clients directly"
            )
            for vip in vips_of(service, marked):
                networks.add_version(
                    networks.of(vip),
                    other,
                    f"the director's own address, for tunnels by IPv{other}",
                )
    local = {ForwardingMethod.NAT, ForwardingMethod.DR}
    near = [behind[rip] for rip, used in methods.items() if used & local]
    routed = [behind[rip] for rip, used in methods.items() if used != {ForwardingMethod.NAT}]
    outside = Segment(OUTSIDE, assumed="the clients are behind a router")
    for version in sorted({service.match.version for service in found}):
        outside.subnets[version] = networks.free(version)
    return Surroundings(
        (outside, *networks.segments),
        _distinct((*front, *near)),
        _distinct((outside, *front, *routed)),
        behind,
        marked,
    )


def vips_of(
    service: Service, marked: Mapping[Mark, MarkedVip] = MappingProxyType({})
) -> tuple[IPAddress, ...]:
    """Return the addresses by which clients reach a service; of a mark, those in ``marked``."""
    if isinstance(service.match, Mark):
        known = marked.get(service.match)
        return () if known is None else (known.vip,)
    return (service.match.vip,)


def _vips_of_marks(
    configuration: Configuration, services: Iterable[Service], networks: _Networks
) -> dict[Mark, MarkedVip]:
    """Choose a VIP for each mark: two marks on one packet are impossible.

    An address of VRRP that no other service has, otherwise a free one beside the real servers.
    """
    found = list(services)
    taken = {vip for one in configuration.services for vip in vips_of(one)}
    virtual = [one.ip for instance in configuration.instances for one, _ in instance.addresses]
    spare = [vip for vip in virtual if vip not in taken]
    taken.update(virtual, (address.ip for address, _ in configuration.addresses))
    taken.update(one.rip for service in configuration.services for one in service.servers)
    chosen: dict[Mark, MarkedVip] = {}
    for service in found:
        match = service.match
        if not isinstance(match, Mark):
            continue
        vip = next((one for one in spare if one.version == match.version), None)
        why = "VRRP's address that no other service has"
        if vip is None:
            segment = networks.of(service.servers[0].rip)
            networks.add_version(
                segment, match.version, f"real servers answer IPv{match.version} clients directly"
            )
            vip = free_address(segment.subnets[match.version], taken, "100")
            why = "no file says which VIPs a mark is for"
        else:
            spare.remove(vip)
        if vip is not None:
            taken.add(vip)
            chosen[match] = MarkedVip(vip, why)
    return chosen


def _distinct(segments: Iterable[Segment]) -> tuple[Segment, ...]:
    return tuple({id(segment): segment for segment in segments}.values())


class _Networks:
    """Finds the network of each address: those of the file first, likely ones otherwise."""

    def __init__(self, configuration: Configuration) -> None:
        self.segments: list[Segment] = []
        self._known = list(_known(configuration))

    def of(self, address: IPAddress) -> Segment:
        """Return the segment with the address, a new one if there is none."""
        for segment in self.segments:
            subnet = segment.subnets.get(address.version)
            if subnet is not None and address in subnet:
                return segment
        for subnet, device in self._known:
            if address in subnet and not unusable_because(subnet, address):
                return self._add(subnet, device, "")
        subnet = self._likely(address)
        return self._add(subnet, "", f"the file does not say which network {address} is in")

    def _add(self, subnet: IPNetwork, device: str, assumed: str) -> Segment:
        for segment in self.segments:
            if device and segment.name == device and subnet.version not in segment.subnets:
                segment.subnets[subnet.version] = subnet
                return segment
        usable = device if all(one.name != device for one in self.segments) else ""
        segment = Segment(usable, {subnet.version: subnet}, assumed)
        self.segments.append(segment)
        return segment

    def _subnets(self) -> Iterator[IPNetwork]:
        for segment in self.segments:
            yield from segment.subnets.values()

    def _overlaps(self, subnet: IPNetwork) -> bool:
        others = (*self._subnets(), *(known for known, _ in self._known))
        return any(one.version == subnet.version and one.overlaps(subnet) for one in others)

    def _likely(self, address: IPAddress) -> IPNetwork:
        for prefix in _PREFIXES[address.version]:
            subnet = ip_network(f"{address}/{prefix}", strict=False)
            if not unusable_because(subnet, address) and not self._overlaps(subnet):
                return subnet
        return ip_network(f"{address}/{address.max_prefixlen - 2}", strict=False)

    def add_version(self, segment: Segment, version: int, reason: str) -> None:
        """Give a segment a subnet of an IP version, unless it has one."""
        if version not in segment.subnets:
            segment.subnets[version] = self.free(version)
            segment.assumed = f"{segment.assumed}; {reason}" if segment.assumed else reason

    def free(self, version: int) -> IPNetwork:
        """Return a network for the clients that overlaps none of the others."""
        fitting = [one for one in _OUTSIDE_SUBNETS if one.version == version]
        return next((one for one in fitting if not self._overlaps(one)), fitting[-1])

    def name_all(self, front: Iterable[Segment]) -> None:
        """Name the segments that the file has no interface for, by what is on them."""
        with_vips = {id(segment) for segment in front}
        used = {segment.name for segment in self.segments if segment.name}
        only = len(self.segments) == 1
        for segment in self.segments:
            if not segment.name:
                base = "lan" if only else "front" if id(segment) in with_vips else "back"
                numbered = (base if n == 1 else f"{base}{n}" for n in range(1, 2000))
                segment.name = next(name for name in numbered if name not in used)
                used.add(segment.name)


def _known(configuration: Configuration) -> Iterator[tuple[IPNetwork, str]]:
    """Yield the networks that the file has prefix lengths for, with their interface's name."""
    found: list[IPNetwork] = []
    given = [pair for instance in configuration.instances for pair in instance.addresses]
    for address, device in (*given, *configuration.addresses):
        subnet = address.network
        if subnet.prefixlen > subnet.max_prefixlen - 2:
            continue
        if any(one.version == subnet.version and one.overlaps(subnet) for one in found):
            continue
        found.append(subnet)
        usable = re.fullmatch(NAME_PATTERN, device) and len(device) <= MAX_INTERFACE_NAME
        yield subnet, device if usable and device not in _TAKEN_NAMES else ""
