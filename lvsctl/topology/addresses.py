"""Choosing the addresses that a topology leaves out.

The same file always gives the same addresses, and they read well: routers from .1,
directors from .2, clients from .10, real servers from .11 (in IPv6 ::1, ::2, ::10,
::11), skipping what is taken. Where a subnet is too small for that, the lowest free one.
"""

from __future__ import annotations

from collections.abc import Collection
from ipaddress import ip_interface

from lvsctl.model.addresses import IPAddress, IPInterface, IPNetwork
from lvsctl.model.lab import Interface, Network, Role
from lvsctl.topology.layout import Layout
from lvsctl.topology.report import Report
from lvsctl.topology.subnets import candidates, first_offset, last_offset

_PREFERRED = {Role.ROUTER: "1", Role.DIRECTOR: "2", Role.CLIENT: "10", Role.REAL_SERVER: "11"}

Interfaces = dict[str, tuple[Interface, ...]]


def interfaces_of(layout: Layout, vips: Collection[IPAddress], report: Report) -> Interfaces:
    """Every node's interfaces with all their addresses, by the node's name.

    Nodes choose in the order of the file. A subnet without enough free addresses is
    reported, and its nodes go without.
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
            if _has_room(network, subnet, len(waiting), taken, report):
                choices = {role: candidates(subnet, start) for role, start in _PREFERRED.items()}
                for name in waiting:
                    role = layout.draft_of(name).role or Role.CLIENT
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
            )
            for network in layout.networks_of(name)
        )
        for name in layout.members
    }


def _has_room(
    network: Network, subnet: IPNetwork, wanted: int, taken: set[IPAddress], report: Report
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
    report.add(
        ("networks", network.name, f"ipv{subnet.version}"),
        f"{subnet} is too small: {wanted} nodes need an address and {max(free, 0)} are free",
        f"a /{fitting} would do, or fewer nodes",
    )
    return False
