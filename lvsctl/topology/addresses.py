"""Addresses and routes: those that the file gives are checked, the others are chosen.

The same file always gets the same addresses: routers from .1, directors from .2, clients
from .10, real servers from .11 (in IPv6 ::1, ::2, ::10, ::11), skipping what is taken.
Where a subnet is too small for that, the lowest free address.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from ipaddress import IPv4Interface, IPv6Interface, ip_interface
from itertools import chain

from lvsctl.model.addresses import IPAddress, IPInterface, IPNetwork
from lvsctl.model.lab import Interface, Network, Role, Route
from lvsctl.topology.config import AddressConfig, NodeConfig
from lvsctl.topology.layout import Layout, subnet_with
from lvsctl.topology.problems import ProblemCollector
from lvsctl.topology.tree import Path

_PREFERRED = {Role.ROUTER: "1", Role.DIRECTOR: "2", Role.CLIENT: "10", Role.REAL_SERVER: "11"}

Interfaces = dict[str, tuple[Interface, ...]]


def first_offset(subnet: IPNetwork) -> int:
    """Return the offset of the lowest usable address in the subnet."""
    return 0 if subnet.prefixlen == subnet.max_prefixlen - 1 else 1


def last_offset(subnet: IPNetwork) -> int:
    """Return the offset of the highest usable address in the subnet.

    IPv4's last address is the broadcast address, except in a /31 (RFC 3021).
    """
    size = 1 << (subnet.max_prefixlen - subnet.prefixlen)
    return size - 2 if subnet.version == 4 and size > 2 else size - 1


def unusable_because(subnet: IPNetwork, address: IPAddress) -> str:
    """Return why no host can have this address of the subnet; empty if one can."""
    offset = int(address) - int(subnet.network_address)
    if offset < first_offset(subnet):
        return f"is the address of the network {subnet} itself"
    if offset > last_offset(subnet):
        return f"is the broadcast address of {subnet}"
    return ""


def candidates(subnet: IPNetwork, start: str) -> Iterator[IPAddress]:
    """Iterate over the usable addresses: from ``start`` upwards, then those below it.

    ``start`` is the host part, decimal in IPv4 and hexadecimal in IPv6: "11" is .11 and ::11.
    """
    offset = int(start, 10 if subnet.version == 4 else 16)
    first, last = first_offset(subnet), last_offset(subnet)
    for step in chain(range(offset, last + 1), range(first, min(offset, last + 1))):
        yield subnet.network_address + step


def free_address(subnet: IPNetwork, taken: Collection[IPAddress], start: str) -> IPAddress | None:
    """Return the first candidate that is not taken, or None."""
    return next((address for address in candidates(subnet, start) if address not in taken), None)


def place_given_addresses(layout: Layout, problems: ProblemCollector) -> None:
    """Check the file's addresses and enter them into ``layout.given`` and ``layout.holders``.

    An address of an entry with ``count`` is the first of as many consecutive ones.
    """
    for group, config in layout.configs.items():
        members = layout.members_of(group)
        for network_name, addresses in (config.networks or {}).items():
            network = layout.networks.get(network_name)
            if network is None or problems.touches("networks", network_name):
                continue
            for index, address in enumerate(addresses or ()):
                path = ("nodes", group, "networks", network_name, index)
                if address is not None:
                    _place(address, network, members, layout, path, problems)


def _place(
    given: AddressConfig,
    network: Network,
    members: tuple[str, ...],
    layout: Layout,
    path: Path,
    problems: ProblemCollector,
) -> None:
    first = given.ip if isinstance(given, IPv4Interface | IPv6Interface) else given
    subnet = subnet_with(network, first)
    if subnet and isinstance(given, IPv4Interface | IPv6Interface) and given.network != subnet:
        problems.add(
            path,
            f"the prefix length of {given} is not that of {network.name} ({subnet})",
            f"write {first}",
        )
    for index, name in enumerate(members):
        wrong = _wrong_with(first, index, network, layout)
        if wrong or subnet is None:
            which = f"{name}'s address " if len(members) > 1 else ""
            problems.add(path, f"{which}{wrong}", _proposal(network, layout))
            return
        address = first + index
        layout.holders[address] = name
        interface = ip_interface(f"{address}/{subnet.prefixlen}")
        layout.given.setdefault((name, network.name), []).append(interface)


def _wrong_with(first: IPAddress, index: int, network: Network, layout: Layout) -> str:
    subnets = " and ".join(str(subnet) for subnet in network.subnets)
    if int(first) + index >= 1 << first.max_prefixlen:
        return f"{first} + {index} is outside {network.name} ({subnets})"
    address = first + index
    subnet = subnet_with(network, address)
    if subnet is None:
        return f"{address} is outside {network.name} ({subnets})"
    if reason := unusable_because(subnet, address):
        return f"{address} {reason}"
    if holder := layout.holders.get(address):
        return f"{address} is already the address of {holder}"
    return ""


def _proposal(network: Network, layout: Layout) -> str:
    free = (free_address(subnet, layout.holders, "10") for subnet in network.subnets)
    usable = [str(address) for address in free if address is not None]
    return f"such as {' or '.join(usable)}" if usable else "leave it out: one is chosen"


def check_routes(layout: Layout, problems: ProblemCollector) -> None:
    """Report gateways that are on none of the node's networks, which the kernel refuses."""
    for group, config in layout.configs.items():
        if config.networks is None or problems.touches("nodes", group, "networks"):
            continue
        networks = [layout.networks[n] for n in config.networks if n in layout.networks]
        for index, route in enumerate(config.routes or ()):
            if route is None or route.via is None or route.to is None:
                continue
            path = ("nodes", group, "routes", index, "via")
            target = route.to[0]
            if target is not None and target.version != route.via.version:
                problems.add(
                    path,
                    f"{route.via} is of another IP version than {target}",
                    f"an IPv{target.version} address",
                )
            elif not any(subnet_with(network, route.via) for network in networks):
                subnets = (f"{n.name} ({s})" for n in networks for s in n.subnets)
                problems.add(
                    path,
                    f"{route.via} is not on any of {group}'s networks",
                    f"an address in {' or '.join(subnets)}",
                )


def build_routes(config: NodeConfig) -> tuple[Route, ...]:
    """Return the routes of a valid node entry."""
    return tuple(
        Route(route.to[0], route.via, route.mtu or 0, route.mss or 0)
        for route in config.routes or ()
        if route and route.to and route.via
    )


def assign_addresses(
    layout: Layout, vips: Collection[IPAddress], problems: ProblemCollector
) -> Interfaces:
    """Return every node's interfaces with all their addresses, by the node's name.

    Nodes get addresses in the order of the file. A subnet without enough free addresses
    is reported, and its nodes get none.
    """
    chosen: dict[tuple[str, str], list[IPInterface]] = {
        place: list(addresses) for place, addresses in layout.given.items()
    }
    taken = {*layout.holders, *vips}
    for network in layout.networks.values():
        for subnet in network.subnets:
            waiting = [
                name
                for name in layout.nodes_on(network.name)
                if not any(a in subnet for a in layout.given.get((name, network.name), ()))
            ]
            if _has_room(network, subnet, len(waiting), taken, problems):
                choices = {role: candidates(subnet, start) for role, start in _PREFERRED.items()}
                for name in waiting:
                    role = layout.config_of(name).role or Role.CLIENT
                    address = next(a for a in choices[role] if a not in taken)
                    taken.add(address)
                    chosen.setdefault((name, network.name), []).append(
                        ip_interface(f"{address}/{subnet.prefixlen}")
                    )
    return {
        name: tuple(
            Interface(
                network.name,
                tuple(sorted(chosen.get((name, network.name), ()), key=lambda a: a.version)),
                chosen=tuple(
                    address
                    for address in chosen.get((name, network.name), ())
                    if address not in layout.given.get((name, network.name), ())
                ),
            )
            for network in layout.networks_of(name)
        )
        for name in layout.members
    }


def _has_room(
    network: Network,
    subnet: IPNetwork,
    wanted: int,
    taken: set[IPAddress],
    problems: ProblemCollector,
) -> bool:
    room = last_offset(subnet) - first_offset(subnet) + 1
    free = room - sum(1 for address in taken if address in subnet)
    if wanted <= free:
        return True
    longest = subnet.max_prefixlen
    fitting = next(
        length
        for length in range(subnet.prefixlen, 0, -1)
        if 2 ** (longest - length) - 2 >= room - free + wanted
    )
    problems.add(
        ("networks", network.name, f"ipv{subnet.version}"),
        f"{subnet} is too small: {wanted} nodes need an address and {max(free, 0)} are free",
        f"use a /{fitting} or fewer nodes",
    )
    return False
