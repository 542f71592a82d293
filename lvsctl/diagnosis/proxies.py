"""Rule about nodes that answer ARP or neighbour discovery for other nodes' addresses.

A proxy does (proxy_arp, ``ip neigh add proxy``), and so does a node with a local route to an
address that no device of it has. Nodes that hold the address are found by other rules. (In IPv6
only those that hold it on the device that receives the question answer for that reason.)
"""

from __future__ import annotations

from collections.abc import Iterator

from lvsctl.diagnosis.base import Case, Found, Rule, shown
from lvsctl.model.addresses import IPAddress
from lvsctl.model.claim import Cause
from lvsctl.model.frame import Direction


def answering_for_others(case: Case) -> Iterator[Found]:
    """Name each node that was captured answering for an address that another node has."""
    named = set()
    owners_of: dict[tuple[str, IPAddress], tuple[str, ...]] = {}
    for frame in case.evidence.frames:
        address = frame.answers_for if frame.direction is Direction.OUT else None
        node, device = frame.tap.node, frame.tap.device
        if address is None or (node, address) in named:
            continue
        if (device, address) not in owners_of:
            owners_of[device, address] = _owners(case, device, address)
        owners = owners_of[device, address]
        if not owners or node in owners or _holds(case, node, device, address):
            continue
        named.add((node, address))
        setting, remedy = _why(case, node, device, address)
        yield Cause(
            fault="proxy-answers",
            node=node,
            text=f"{node} answers as a proxy for {address}, an address of {owners[0]}",
            evidence=(
                *([f"{node}: {setting}"] if setting else []),
                f"{node}: {address} is not on {device}",
                *shown([frame]),
            ),
            consequence=(
                f"packets to {address} go to {node} wherever its answer is accepted instead of "
                f"that of {owners[0]}"
            ),
            remedy=remedy,
        )


def _holds(case: Case, node: str, device: str, address: IPAddress) -> bool:
    """Whether a node answers for an address because it has it: an IPv6 one on that device."""
    holders = case.network.holders(node, address)
    return any(address.version == 4 or link.name == device for link in holders)


def _owners(case: Case, device: str, address: IPAddress) -> tuple[str, ...]:
    """The nodes on a network that answer for an address there, according to the topology."""
    network = case.lab.network_of(address)
    if any(address in service.vips for service in case.lab.services):
        on_it = network is not None and network.name == device
        return tuple(node.name for node in case.lab.directors) if on_it else ()
    return tuple(
        node.name
        for node in case.lab.nodes
        if any(a.ip == address for a in node.addresses_on(device))
    )


def _why(case: Case, node: str, device: str, address: IPAddress) -> tuple[str, str]:
    """The setting that makes a node answer, empty if none does, and the command that ends it."""
    for entry in case.state(node).proxies:
        if entry.address == address:
            words = ("neigh", "del", "proxy", address, "dev", entry.device)
            return f"ip neigh show proxy has {address} dev {entry.device}", case.type(
                node, "ip", *words
            )
    conf, setting = ("ipv4", "proxy_arp") if address.version == 4 else ("ipv6", "proxy_ndp")
    keys = [f"net.{conf}.conf.{scope.replace('.', '/')}.{setting}" for scope in ("all", device)]
    on = [key for key in keys if case.network.number(node, key)]
    if on and conf == "ipv4":
        off = (f"{key}=0" for key in on)
        return " ".join(f"{key}=1" for key in on), case.type(node, "sysctl", "-w", *off)
    return "", case.restore(node)


RULES = (
    Rule(
        find=answering_for_others,
        by_state=False,
        latent=True,
        harms_others=True,
        rules_out="no node answers for another node's address as a proxy",
    ),
)
