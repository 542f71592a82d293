"""The addresses and routes that the file gives to nodes, checked against their networks."""

from __future__ import annotations

from ipaddress import IPv4Interface, IPv6Interface, ip_interface

from lvsctl.model.addresses import IPAddress
from lvsctl.model.lab import Network, Route
from lvsctl.topology.drafts import AddressDraft, NodeDraft
from lvsctl.topology.layout import Layout, subnet_with
from lvsctl.topology.report import Report
from lvsctl.topology.subnets import free_address, unusable_because
from lvsctl.topology.tree import Path


def place_given_addresses(layout: Layout, report: Report) -> None:
    """Enter the file's addresses into ``layout.given`` and ``layout.holders``.

    An address of an entry with ``count`` is the first of as many consecutive ones.
    """
    for group, draft in layout.drafts.items():
        members = layout.of_group(group)
        for network_name, addresses in (draft.networks or {}).items():
            network = layout.networks.get(network_name)
            if network is None or report.touches("networks", network_name):
                continue
            for index, address in enumerate(addresses or ()):
                path = ("nodes", group, "networks", network_name, index)
                if address is not None:
                    _place(address, network, members, layout, path, report)


def _place(
    given: AddressDraft,
    network: Network,
    members: tuple[str, ...],
    layout: Layout,
    path: Path,
    report: Report,
) -> None:
    first = given.ip if isinstance(given, IPv4Interface | IPv6Interface) else given
    subnet = subnet_with(network, first)
    if subnet and isinstance(given, IPv4Interface | IPv6Interface) and given.network != subnet:
        report.add(
            path,
            f"the prefix length of {given} is not that of {network.name} ({subnet})",
            f"write {first}",
        )
    for index, name in enumerate(members):
        wrong = _wrong_with(first, index, network, layout)
        if wrong or subnet is None:
            which = f"{name}'s address " if len(members) > 1 else ""
            report.add(path, f"{which}{wrong}", _proposal(network, layout))
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


def check_routes(layout: Layout, report: Report) -> None:
    """Report gateways that their node cannot reach directly, which the kernel would refuse."""
    for group, draft in layout.drafts.items():
        if draft.networks is None or report.touches("nodes", group, "networks"):
            continue
        networks = [layout.networks[n] for n in draft.networks if n in layout.networks]
        for index, route in enumerate(draft.routes or ()):
            if route is None or route.via is None or route.to is None:
                continue
            path = ("nodes", group, "routes", index, "via")
            target = route.to[0]
            if target is not None and target.version != route.via.version:
                report.add(
                    path,
                    f"{route.via} is of another IP version than {target}",
                    f"an IPv{target.version} address",
                )
            elif not any(subnet_with(network, route.via) for network in networks):
                subnets = (f"{n.name} ({s})" for n in networks for s in n.subnets)
                report.add(
                    path,
                    f"{route.via} is on none of {group}'s networks",
                    f"an address in {' or '.join(subnets)}",
                )


def routes_of(draft: NodeDraft) -> tuple[Route, ...]:
    """The routes of a valid draft."""
    return tuple(
        Route(route.to[0], route.via)
        for route in draft.routes or ()
        if route and route.to and route.via
    )
