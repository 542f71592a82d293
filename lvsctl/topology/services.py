"""Virtual services: their VIPs and keys, checked against the layout."""

from __future__ import annotations

from lvsctl.model.addresses import IPAddress
from lvsctl.model.lab import Role
from lvsctl.model.service import ForwardingMethod, ServiceKey
from lvsctl.topology.drafts import TopologyDraft
from lvsctl.topology.layout import Layout, subnet_with
from lvsctl.topology.report import Report
from lvsctl.topology.subnets import free_address, unusable_because
from lvsctl.topology.tree import Path


def check_services(draft: TopologyDraft, layout: Layout, report: Report) -> None:
    """Report what is wrong with the VIPs, names and keys of services."""
    trusted = _is_trusted(draft, report)
    names: dict[str, int] = {}
    keys: dict[ServiceKey, int] = {}
    for index, service in enumerate(draft.services or ()):
        if service is None:
            continue
        path: Path = ("services", index)
        if service.name is not None and names.setdefault(service.name, index) != index:
            first = f"services[{names[service.name]}]"
            message = f"{first} has the name {service.name} already"
            report.add((*path, "name"), message, "choose another name")
        if (key := service.key) and keys.setdefault(key, index) != index:
            first = f"services[{keys[key]}]"
            report.add((*path, "vip"), f"{first} has {key} already", "use another port or VIP")
        if service.vip is not None:
            _check_vip(service.vip, (*path, "vip"), layout, report, trusted)
        if service.encapsulation and service.forward not in (None, ForwardingMethod.TUN):
            report.add(
                (*path, "encapsulation"),
                f"{service.forward} does not encapsulate",
                "remove the key, or write forward: tun",
                key=True,
            )


def _is_trusted(draft: TopologyDraft, report: Report) -> bool:
    """Whether it is certain which networks there are and which the directors are on."""
    if report.touches("networks") or draft.nodes is None:
        return False
    return not any(
        node is None
        or node.role is None
        or (node.role is Role.DIRECTOR and report.touches("nodes", name, "networks"))
        for name, node in draft.nodes.items()
    )


def _check_vip(vip: IPAddress, path: Path, layout: Layout, report: Report, trusted: bool) -> None:
    if holder := layout.holders.get(vip):
        wrong = f"is the address of {holder}"
    elif trusted:
        wrong = _wrong_with(vip, layout)
    else:
        return
    if wrong:
        report.add(path, f"{vip} {wrong}", _proposal(vip, layout))


def _wrong_with(vip: IPAddress, layout: Layout) -> str:
    network = layout.network_of(vip)
    if network is None:
        return "is in none of the lab's networks"
    for director in layout.having(Role.DIRECTOR):
        if network not in layout.networks_of(director):
            return f"is in the network {network.name}, which {director} is not on"
    subnet = subnet_with(network, vip)
    return unusable_because(subnet, vip) if subnet else ""


def _proposal(vip: IPAddress, layout: Layout) -> str:
    """A VIP that would do: in the network that was meant, if the director is on it."""
    wanted = layout.network_of(vip)
    for director in layout.having(Role.DIRECTOR)[:1]:
        networks = sorted(layout.networks_of(director), key=lambda network: network != wanted)
        for subnet in (subnet for network in networks for subnet in network.subnets):
            free = free_address(subnet, layout.holders, "100")
            if subnet.version == vip.version and free is not None:
                return f"a free address in one of {director}'s networks, such as {free}"
    return "a free address in one of the director's networks"
